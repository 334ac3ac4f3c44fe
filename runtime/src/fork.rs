//! `fork` and `vfork`: children in a host process of their own.
//!
//! **fork.** The host process forks through the C library (its allocator survives that), with the translator at rest:
//! `Process::before_fork` waits until nobody holds a lock of ours and holds them all. The child has one thread, which
//! goes on in the very same Rust frame.
//!
//! **vfork.** `posix_spawn` and shells rely on what Linux does: the child runs in the parent's memory while the parent's thread sleeps in
//! the kernel, until the child executes another program or ends. The child gets its own `Thread` (registers,
//! dispositions) and its own host stack, and shares everything else, the thread-local storage of the sleeping host thread included.
//!
//! Invariants
//! 1. No signal is taken between blocking them all and the child's [`attach`](signal::attach)ment to its own inbox.
//! 2. The child never returns from `child_main`; what it allocated for itself is freed by its parent.
//! 3. What a child changes in its dispositions stays its own: the table is a copy, as the kernel's is without CLONE_SIGHAND.
//!
//! A vfork child that is *killed* while it holds a lock of the translator leaves its parent waiting for it; the windows are
//! as short as those of the C library's allocator, which has the same trouble natively.
//!
//! # Safety
//! Raw `clone`; the vfork child runs beside the other threads of its parent like one more thread.

#![allow(unsafe_code)]

use crate::access;
use crate::signal::{self, SigSet, ThreadSignals, clone_vfork, host};
use crate::spawn::{CloneArgs, start_registers, store_tids};
use crate::thread::Thread;
use calque_ir::GuestAddr;
use libc::{
    CLONE_CHILD_CLEARTID, CLONE_CHILD_SETTID, CLONE_PARENT_SETTID, CLONE_SETTLS, CLONE_SIGHAND, CLONE_VFORK, CLONE_VM,
};
use libc::{c_void, pid_t};
use nix::errno::Errno;
use std::sync::Arc;

/// `CLONE_CLEAR_SIGHAND` (linux/sched.h): handlers become defaults in the child. Only `clone3` has it.
const CLONE_CLEAR_SIGHAND: u64 = 1 << 32;

/// Flags that Calque itself carries out.
const OURS: u64 =
    (CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID) as u64 | CLONE_CLEAR_SIGHAND;

/// Signal state of the child.
fn child_signals(thread: &Thread, args: &CloneArgs) -> ThreadSignals {
    let signals = thread.signals.forked();
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
    let process = Arc::clone(&thread.process);
    let mask = host::block_all();
    process.mem.before_fork();
    let quiet = process.before_fork();
    let pid = host_fork(args);
    if pid == Ok(0) {
        drop(quiet);
        process.after_fork_in_child(&thread.cpu.rt.interrupt);
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
    thread.signals.become_forked(signals);
    mirror_signals(thread, args);
    signal::move_inbox(thread);
    start_registers(&mut thread.cpu, args);
    thread.clear_child_tid = args.has(CLONE_CHILD_CLEARTID).then_some(GuestAddr(args.child_tid));
    if args.has(CLONE_CHILD_SETTID) {
        let _ = access::write(GuestAddr(args.child_tid), &thread.tid);
    }
}

/// Host stack of a vfork child in bytes: as that of a thread.
const STACK: usize = 4 << 20;

/// A vfork child on its way.
struct Birth {
    child: Thread,
    args: CloneArgs,
}

/// `vfork` and `clone(CLONE_VM | CLONE_VFORK)`. Returns in the parent only, when the child has gone its way.
pub(crate) fn vfork(thread: &mut Thread, args: &CloneArgs) -> Result<pid_t, Errno> {
    if args.has(CLONE_SIGHAND) {
        return Err(Errno::EINVAL);
    }
    if crate::lockstep::place().is_some() {
        return fork_and_wait(thread, args);
    }
    let signals = child_signals(thread, args);
    let mut birth = Birth { child: thread.child(args, signals), args: *args };
    let mut stack = Stack::new()?;
    let mask = host::block_all();
    let flags = args.flags & !OURS | args.exit_signal as u64;
    // SAFETY: the stack and `birth` outlive the child's use of them, which ends before `clone` returns here.
    let pid = unsafe { clone_vfork(flags, stack.top(), args.pidfd, 0, child_main, (&raw mut birth).cast()) };
    thread.process.code.world.forget(&birth.child.cpu.rt.interrupt);
    birth.child.stop_recording();
    signal::move_inbox(thread);
    host::set_mask_exactly(mask);
    if pid == -i64::from(libc::EINVAL) {
        return fork_and_wait(thread, args);
    }
    if pid < 0 { Err(Errno::from_raw(-pid as i32)) } else { Ok(pid as pid_t) }
}

/// First function of a vfork child, on its own host stack.
extern "C" fn child_main(birth: *mut c_void) -> ! {
    // SAFETY: `vfork`'s, which sleeps.
    let Birth { child, args } = unsafe { &mut *birth.cast::<Birth>() };
    child.tid = nix::unistd::gettid().as_raw();
    store_tids(args, child.tid);
    mirror_signals(child, args);
    signal::move_inbox(child);
    host::set_mask(child.signals.mask());
    let code = child.run();
    // SAFETY: ends the child alone; nothing of the parent's may be torn down.
    unsafe { libc::_exit(code) }
}

/// vfork where the host refuses a child in its own memory (emulators do): the child has a copy, the parent waits all the
/// same until a pipe that only the child holds open closes.
fn fork_and_wait(thread: &mut Thread, args: &CloneArgs) -> Result<pid_t, Errno> {
    let args = CloneArgs { flags: args.flags & !((CLONE_VM | CLONE_VFORK) as u64), ..*args };
    let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let pid = fork(thread, &args)?;
    if pid == 0 {
        drop(reader);
        // Closes when the child executes or ends.
        std::mem::forget(writer);
        return Ok(0);
    }
    drop(writer);
    let mask = host::set_mask(SigSet::ALL);
    while nix::unistd::read(&reader, &mut [0]) == Err(Errno::EINTR) {}
    host::set_mask_exactly(mask);
    Ok(pid)
}

/// A host stack with a guard page below.
struct Stack(*mut c_void);

/// Bytes of the guard: the largest page size of any host.
const GUARD: usize = 64 << 10;

impl Stack {
    fn new() -> Result<Stack, Errno> {
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

    fn top(&mut self) -> *mut u8 {
        self.0.cast::<u8>().wrapping_add(STACK)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: our mapping; nobody runs on it any more.
        unsafe { libc::munmap(self.0, STACK) };
    }
}
