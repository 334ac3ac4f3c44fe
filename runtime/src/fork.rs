//! `fork`, `vfork` and `clone(CLONE_VM)`: children in a host process of their own.
//!
//! **fork.** The host process forks through the C library (its allocator survives that), with the translator at rest:
//! `Process::before_fork` waits until nobody holds a lock of ours and holds them all. The child has one thread, which
//! goes on in the very same Rust frame.
//!
//! **vfork.** `posix_spawn` and shells rely on what Linux does: the child runs in the parent's memory while the parent's thread sleeps in
//! the kernel, until the child executes another program or ends. The child is a *lodger*: it gets its own `Thread` (registers,
//! dispositions) and its own host stack, and shares everything else, the thread-local storage of the sleeping host thread included.
//!
//! **CLONE_VM alone.** Parent and child run at the same time. So it is a host thread made for the purpose, the *landlord*, that makes the
//! child by vfork and sleeps in its place; the kernel takes the child for one of the whole process, and its end is told to all of it.
//!
//! Emulators make vfork of fork: the child has a copy of the memory, but for the code memory, which is a shared file, and the parent
//! does not wait. So it is tried once what the host does ([`lodgers_share_memory`]).
//!
//! Invariants
//! 1. No signal is taken between blocking them all and the child's [`attach`](signal::attach)ment to its own inbox.
//! 2. A lodger never returns from `child_main`; what it allocated for itself is freed by who slept for it.
//! 3. What a child changes in its dispositions stays its own: the table is a copy, unless CLONE_SIGHAND wants it shared.
//! 4. The kernel clears a lodger's tid word (`CLONE_CHILD_CLEARTID`) and walks its robust list: it knows best when a lodger leaves.
//!
//! A process that ends by itself, by `exit_group`, `execve` or a fault, while others go on in its memory, has its threads come to rest first
//! ([`before_end`], `group.rs`), so that none of them takes a lock of the translator's with it. What is *killed* has no time for that: who slept
//! for a lodger that was killed takes stock of what it left (`killed.rs`).
//!
//! # Safety
//! Raw `clone`; a lodger runs beside the threads of its parent like one more thread.

#![allow(unsafe_code)]

use crate::access;
use crate::group::{Stopped, ThreadGroup, Whose};
use crate::killed;
use crate::lockstep;
use crate::signal::{self, AltStack, ThreadSignals, clone_vfork, host};
use crate::spawn::{CloneArgs, start_registers, store_tids};
use crate::thread::Thread;
use crate::trace::Registers;
use calque_ir::GuestAddr;
use libc::{
    CLONE_CHILD_CLEARTID, CLONE_CHILD_SETTID, CLONE_PARENT_SETTID, CLONE_SETTLS, CLONE_SIGHAND, CLONE_VFORK, CLONE_VM,
};
use libc::{c_void, pid_t};
use nix::errno::Errno;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, mpsc};

/// `CLONE_CLEAR_SIGHAND` (linux/sched.h): handlers become defaults in the child. Only `clone3` has it.
const CLONE_CLEAR_SIGHAND: u64 = 1 << 32;

/// Flags that Calque itself carries out.
const OURS: u64 =
    (CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID) as u64 | CLONE_CLEAR_SIGHAND;

/// Signal state of the child.
fn child_signals(thread: &Thread, args: &CloneArgs) -> ThreadSignals {
    let mut signals = thread.signals.forked();
    if args.has(CLONE_SIGHAND) {
        signals.actions = Arc::clone(&thread.signals.actions);
    }
    // kernel/fork.c: copy_process.
    if args.has(CLONE_VM) && !args.has(CLONE_VFORK) {
        signals.alt = AltStack::NONE;
    }
    if args.flags & CLONE_CLEAR_SIGHAND != 0 {
        signals.actions.forget_handlers();
    }
    signals
}

/// Makes the host's dispositions in the child those of `child_signals`.
fn mirror_signals(thread: &Thread, args: &CloneArgs) {
    if args.flags & CLONE_CLEAR_SIGHAND != 0 {
        thread.signals.actions.mirror_all();
    }
}

/// `fork` and `clone` without CLONE_VM. Returns in both processes.
pub(crate) fn fork(thread: &mut Thread, args: &CloneArgs) -> Result<pid_t, Errno> {
    let signals = child_signals(thread, args);
    let process = thread.process;
    let mask = host::block_all();
    process.mem.before_fork();
    let quiet = process.before_fork();
    let pid = host_fork(args);
    if pid == Ok(0) {
        drop(quiet);
        process.after_fork_in_child(&thread.cpu);
        thread.count_from_zero();
        become_child(thread, args, signals);
    } else {
        drop(quiet);
        if let (Ok(pid), true) = (pid, args.has(CLONE_PARENT_SETTID)) {
            let _ = access::write(GuestAddr(args.parent_tid), &pid);
        }
    }
    host::set_mask_exactly(mask);
    pid
}

/// The host's fork: by the C library where it can make such a child, else with the guest's own flags.
fn host_fork(args: &CloneArgs) -> Result<pid_t, Errno> {
    let flags = args.flags & !OURS;
    if flags == 0 && args.exit_signal == libc::SIGCHLD {
        // SAFETY: the translator is at rest (`before_fork`); the C library sees to itself.
        return Errno::result(unsafe { libc::fork() });
    }
    // SAFETY: a child with a copy of this memory that goes on from here; descriptors (CLONE_PIDFD) go where the guest said.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags | args.exit_signal as u64, 0, args.pidfd, 0, 0) };
    Errno::result(pid).map(|pid| pid as pid_t)
}

/// Turns the forked copy of the parent's `Thread` into the child's.
fn become_child(thread: &mut Thread, args: &CloneArgs, signals: ThreadSignals) {
    thread.tid = nix::unistd::gettid().as_raw();
    thread.lodges = false;
    thread.group = Arc::clone(&thread.process.home);
    LODGERS.store(0, Ordering::SeqCst);
    thread.signals.become_forked(signals);
    mirror_signals(thread, args);
    signal::move_inbox(thread);
    start_registers(&mut thread.cpu, args);
    thread.clear_child_tid = args.has(CLONE_CHILD_CLEARTID).then_some(GuestAddr(args.child_tid));
    if args.has(CLONE_CHILD_SETTID) {
        let _ = access::write(GuestAddr(args.child_tid), &thread.tid);
    }
}

/// Host stack of a lodger in bytes: as that of a thread.
const STACK: usize = 4 << 20;
/// Of a thread that does nothing but sleep for one.
const LANDLORD_STACK: usize = 64 << 10;

/// A lodger: what it needs, and what is left of it for who sleeps until it has gone.
struct Lodger {
    child: Thread,
    args: CloneArgs,
    stack: Stack,
    /// Its first thread has ended by itself.
    ended: AtomicBool,
    /// Who wants to know that it is born.
    parent: Option<mpsc::Sender<Result<pid_t, Errno>>>,
}

impl Lodger {
    fn new(thread: &Thread, args: &CloneArgs) -> Result<Lodger, Errno> {
        let mut child = thread.child(args, child_signals(thread, args));
        child.lodges = true;
        child.group = Arc::default();
        Ok(Lodger { child, args: *args, stack: Stack::new()?, ended: AtomicBool::new(false), parent: None })
    }

    /// Makes the child, and sleeps until it has gone its way, in a thread of this `group`. All signals are blocked; the thread's inbox is the
    /// child's afterwards.
    fn host(&mut self, group: &ThreadGroup) -> Result<pid_t, Errno> {
        let kept = OURS & !(CLONE_CHILD_CLEARTID as u64);
        let flags = self.args.flags & !kept | CLONE_VFORK as u64 | self.args.exit_signal as u64;
        let (top, args) = (self.stack.top(), self.args);
        LODGERS.fetch_add(1, Ordering::SeqCst);
        // If the process is ending, it does not wait for a child that is made only now: none is.
        group.rest(|| ());
        // SAFETY: the lodger and its stack outlive the child's use of them, which ends before `clone` returns here.
        let pid = group.rest(|| unsafe {
            clone_vfork(flags, top, args.pidfd, args.child_tid, child_main, (&raw mut *self).cast())
        });
        let (child, ended) = (&self.child, self.ended.load(Ordering::Relaxed));
        if pid > 0 && !ended && !child.group.is_ending() {
            killed::take_stock(child.process, pid as pid_t, &child.cpu.rt.interrupt);
        }
        LODGERS.fetch_sub(1, Ordering::SeqCst);
        child.process.home.release_all(child.tid);
        child.process.code.world.forget(&child.cpu.rt.interrupt);
        self.child.stop_recording();
        if pid < 0 { Err(Errno::from_raw(-pid as i32)) } else { Ok(pid as pid_t) }
    }
}

/// `vfork` and `clone(CLONE_VM | CLONE_VFORK)`. Returns in the parent only, when the child has gone its way.
pub(crate) fn vfork(thread: &mut Thread, args: &CloneArgs) -> Result<pid_t, Errno> {
    check_handlers(args)?;
    if lockstep::place().is_some() || !lodgers_share_memory() {
        return fork_and_wait(thread, args);
    }
    let mut lodger = Lodger::new(thread, args)?;
    let mask = host::block_all();
    let pid = lodger.host(&thread.group);
    signal::move_inbox(thread);
    host::set_mask_exactly(mask);
    pid
}

/// Processes that were made to run in this memory, and have not gone their way.
static LODGERS: AtomicU32 = AtomicU32::new(0);

/// Before `thread` ends its process, whose threads are this `group`: if others go on in its memory, none of its threads may leave them a lock
/// that nobody holds any more.
pub(crate) fn before_end<'a>(thread: &Thread, group: &'a ThreadGroup) -> Stopped<'a> {
    let at_home = std::ptr::eq(group, &*thread.process.home);
    group.stop(|| !at_home || LODGERS.load(Ordering::SeqCst) != 0)
}

/// `clone(CLONE_VM)`: a process that runs in the parent's memory beside it.
pub(crate) fn lodge(thread: &mut Thread, args: &CloneArgs) -> Result<pid_t, Errno> {
    check_handlers(args)?;
    if lockstep::place().is_some() || !lodgers_share_memory() {
        return Err(Errno::EINVAL);
    }
    thread.process.require_order();
    thread.process.code.before_lodger(thread.process);
    // The landlord's stack has no room for it.
    let mut lodger = Box::new(Lodger::new(thread, args)?);
    let (sender, receiver) = mpsc::channel();
    lodger.parent = Some(sender.clone());
    // The landlord inherits the mask.
    let mask = host::block_all();
    let group = Arc::clone(&thread.group);
    let setxid = host::Setxid::keep();
    let landlord = move || {
        setxid.restore();
        let _member = group.join(Whose::Translator);
        if let Err(errno) = lodger.host(&group) {
            // The parent waits for this.
            let _ = sender.send(Err(errno));
        }
    };
    let spawned = std::thread::Builder::new().stack_size(LANDLORD_STACK).spawn(landlord);
    let pid = spawned.map_err(|_| Errno::EAGAIN).and_then(|_| receiver.recv().map_err(|_| Errno::EAGAIN)?);
    host::set_mask_exactly(mask);
    pid
}

/// The combinations that the kernel refuses (`copy_process`, `clone3_args_valid`).
fn check_handlers(args: &CloneArgs) -> Result<(), Errno> {
    let cleared = args.flags & CLONE_CLEAR_SIGHAND != 0;
    if args.has(CLONE_SIGHAND) && cleared { Err(Errno::EINVAL) } else { Ok(()) }
}

/// First function of a lodger, on its own host stack.
extern "C" fn child_main(lodger: *mut c_void) -> ! {
    // SAFETY: who made it sleeps.
    let Lodger { child, args, parent, ended, .. } = unsafe { &mut *lodger.cast::<Lodger>() };
    child.tid = nix::unistd::gettid().as_raw();
    let group = Arc::clone(&child.group);
    let member = group.join(Whose::Guest(Registers::of(&child.cpu)));
    store_tids(args, child.tid);
    mirror_signals(child, args);
    signal::move_inbox(child);
    if let Some(parent) = parent {
        // It waits for this.
        let _ = parent.send(Ok(child.tid));
    }
    host::set_mask(child.signals.mask());
    let code = child.run();
    let end = if member.end_first() { libc::SYS_exit_group } else { libc::SYS_exit };
    ended.store(true, Ordering::Relaxed);
    // SAFETY: ends the child alone; nothing of the parent's may be torn down.
    unsafe { libc::syscall(end, code) };
    unreachable!("neither returns")
}

/// What is known of the host's vfork.
const UNKNOWN: u8 = 0;
const SHARES: u8 = 1;
const COPIES: u8 = 2;

/// Whether children of vfork run in their parent's memory on this host: the first time, by making one that writes there. Threads may
/// find out at the same time, and a fork may come in between: nobody waits for another.
fn lodgers_share_memory() -> bool {
    static KNOWN: AtomicU8 = AtomicU8::new(UNKNOWN);
    if KNOWN.load(Ordering::Relaxed) == UNKNOWN {
        KNOWN.store(try_vfork(), Ordering::Relaxed);
    }
    KNOWN.load(Ordering::Relaxed) == SHARES
}

fn try_vfork() -> u8 {
    extern "C" fn write(shared: *mut c_void) -> ! {
        // SAFETY: `try_vfork`'s, or a copy of it.
        unsafe {
            (*shared.cast::<AtomicU8>()).store(SHARES, Ordering::Relaxed);
            libc::_exit(0)
        }
    }
    let Ok(mut stack) = Stack::new() else { return UNKNOWN };
    let mut shared = AtomicU8::new(COPIES);
    let mask = host::block_all();
    // No signal at its end: the guest hears nothing of it.
    let flags = (CLONE_VM | CLONE_VFORK) as u64;
    // SAFETY: stack and word outlive the child's use of them.
    let pid = unsafe { clone_vfork(flags, stack.top(), 0, 0, write, (&raw mut shared).cast()) };
    if pid > 0 {
        // SAFETY: plain call. Another thread of the guest's may have been faster.
        while unsafe { libc::waitpid(pid as pid_t, null_mut(), libc::__WALL) } < 0 && Errno::last() == Errno::EINTR {}
    }
    host::set_mask_exactly(mask);
    shared.into_inner()
}

/// vfork where the host makes no lodgers, or they would be in the way: the child has a copy, the parent waits all the
/// same until a pipe that only the child holds open closes.
fn fork_and_wait(thread: &mut Thread, args: &CloneArgs) -> Result<pid_t, Errno> {
    let args = CloneArgs { flags: args.flags & !((CLONE_VM | CLONE_VFORK | CLONE_SIGHAND) as u64), ..*args };
    let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let pid = fork(thread, &args)?;
    if pid == 0 {
        drop(reader);
        // Closes when the child executes or ends.
        std::mem::forget(writer);
        return Ok(0);
    }
    drop(writer);
    let mask = host::block_all();
    while nix::unistd::read(&reader, &mut [0]) == Err(Errno::EINTR) {}
    host::set_mask_exactly(mask);
    Ok(pid)
}

/// A host stack with a guard page below.
pub(crate) struct Stack(*mut c_void);

// SAFETY: memory of its own, that of whichever thread has the value.
unsafe impl Send for Stack {}

/// Bytes of the guard: the largest page size of any host.
const GUARD: usize = 64 << 10;

impl Stack {
    pub(crate) fn new() -> Result<Stack, Errno> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
        // SAFETY: a new mapping, and the protection of its first pages.
        unsafe {
            let base = libc::mmap(std::ptr::null_mut(), STACK, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
            if base == libc::MAP_FAILED {
                return Err(Errno::last());
            }
            libc::mprotect(base, GUARD, libc::PROT_NONE);
            Ok(Stack(base))
        }
    }

    pub(crate) fn top(&mut self) -> *mut u8 {
        self.0.cast::<u8>().wrapping_add(STACK)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: our mapping; nobody runs on it any more.
        unsafe { libc::munmap(self.0, STACK) };
    }
}
