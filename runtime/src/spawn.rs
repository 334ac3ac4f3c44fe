//! `clone`: new guest threads, and what all ways of making a child have in common.
//!
//! A guest thread is a host thread: same tid, same scheduling, its own `Thread`. The host thread is an ordinary Rust
//! thread, so the translator's code in it has a stack and thread-local storage of its own.
//!
//! Order at a thread's end (`kernel/fork.c: mm_release`): first its robust mutexes are given up, then its tid word is cleared
//! and a joiner woken, which may unmap the guest stack at once. The kernel's own walk of the robust list comes later, when the host
//! thread ends, so it must not find the guest's list any more.
//!
//! # Safety
//! Raw system calls whose arguments are checked values or addresses that the kernel checks.

#![allow(unsafe_code)]

use crate::access::{self, Fault, GuestMemory};
use crate::fork;
use crate::group::Whose;
use crate::signal::{self, host};
use crate::syscall::Outcome;
use crate::thread::{Access, Thread};
use crate::trace::Registers;
use calque_ir::interp::Host;
use calque_ir::{CpuState, GuestAddr, Type};
use libc::{
    CLONE_CHILD_CLEARTID, CLONE_CHILD_SETTID, CLONE_FILES, CLONE_FS, CLONE_PARENT_SETTID, CLONE_SETTLS, CLONE_SIGHAND,
    CLONE_SYSVSEM, CLONE_THREAD, CLONE_VFORK, CLONE_VM,
};
use nix::errno::Errno;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, mpsc};

/// Arguments of `clone` and `clone3` in one form.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CloneArgs {
    /// `CLONE_*`, without an exit signal.
    pub flags: u64,
    /// Signal to the parent when the child ends; 0 for none.
    pub exit_signal: i32,
    /// Stack pointer of the child; 0: the parent's.
    pub stack: u64,
    pub parent_tid: u64,
    pub child_tid: u64,
    /// FS base of the child with `CLONE_SETTLS`.
    pub tls: u64,
    /// Where `CLONE_PIDFD` stores the descriptor.
    pub pidfd: u64,
}

/// Host stack of a guest thread in bytes: the interpreter and, with synchronous compilation, Cranelift run on it.
const HOST_STACK: usize = 4 << 20;

/// Flags that a thread must have.
const THREAD_FLAGS: i32 = CLONE_VM | CLONE_SIGHAND | CLONE_THREAD;
/// What a host thread shares with the others, and gives up where the guest's is not to share it.
const THREAD_SHARES: i32 = CLONE_FS | CLONE_FILES | CLONE_SYSVSEM;
/// Flags that a thread may have; the last four mean nothing to it, or only to tracers and schedulers.
const THREAD_EXTRAS: i32 = THREAD_SHARES
    | CLONE_SETTLS
    | CLONE_PARENT_SETTID
    | CLONE_CHILD_SETTID
    | CLONE_CHILD_CLEARTID
    | libc::CLONE_DETACHED
    | libc::CLONE_PARENT
    | libc::CLONE_UNTRACED
    | libc::CLONE_IO;

impl CloneArgs {
    /// The arguments as `clone` gets them: exit signal in the low byte.
    pub fn from_clone([flags, stack, parent_tid, child_tid, tls, _]: [u64; 6]) -> Self {
        let exit_signal = (flags & 0xff) as i32;
        Self { flags: flags & 0xffff_ff00, exit_signal, stack, parent_tid, child_tid, tls, pidfd: parent_tid }
    }

    /// Whether one of these flags is set.
    pub fn has(&self, flag: i32) -> bool {
        self.flags & flag as u32 as u64 != 0
    }
}

impl Thread {
    /// `clone` in all its forms: RAX gets the child's id in the parent, 0 in the child.
    pub fn clone_guest(&mut self, args: &CloneArgs) -> Outcome {
        let result = if args.has(CLONE_THREAD) {
            self.spawn(args)
        } else if args.has(CLONE_VM) && args.has(CLONE_VFORK) {
            fork::vfork(self, args)
        } else if args.has(CLONE_VM) {
            fork::lodge(self, args)
        } else {
            fork::fork(self, args)
        };
        match result {
            Ok(id) => self.cpu.gpr[0] = id as u64,
            Err(errno) => self.cpu.gpr[0] = -(errno as i64) as u64,
        }
        Outcome::Continue
    }

    /// What a child starts with: the registers of its parent but for stack and TLS, RAX = 0, no alternate stack.
    pub(crate) fn child(&self, args: &CloneArgs, signals: signal::ThreadSignals) -> Thread {
        let mut cpu = Box::new(CpuState::new());
        cpu.copy_guest_from(&self.cpu);
        start_registers(&mut cpu, args);
        let clear_child_tid = args.has(CLONE_CHILD_CLEARTID).then_some(GuestAddr(args.child_tid));
        Thread { cpu, signals, clear_child_tid, ..Thread::new(self.process) }
    }

    /// `CLONE_THREAD`.
    fn spawn(&mut self, args: &CloneArgs) -> Result<i32, Errno> {
        let flags = args.flags as i32;
        if flags & THREAD_FLAGS != THREAD_FLAGS || flags & !(THREAD_FLAGS | THREAD_EXTRAS) != 0 {
            return Err(Errno::EINVAL);
        }
        self.process.require_order();
        let child = Thread { group: Arc::clone(&self.group), ..self.child(args, self.signals.beside()) };
        let (sender, receiver) = mpsc::channel();
        let args = *args;
        // The new host thread inherits the mask: no signal before it can take one.
        let mask = host::block_all();
        let builder = std::thread::Builder::new().stack_size(HOST_STACK);
        let setxid = host::Setxid::keep();
        let spawned = builder.spawn(move || {
            setxid.restore();
            child.main(&args, &sender);
        });
        let tid = spawned.map_err(|_| Errno::EAGAIN).and_then(|_| receiver.recv().map_err(|_| Errno::EAGAIN)?);
        host::set_mask_exactly(mask);
        tid
    }

    /// `set_tid_address`.
    pub fn set_tid_address(&mut self, word: GuestAddr) {
        self.clear_child_tid = (word.0 != 0).then_some(word);
        if self.lodges {
            // SAFETY: the kernel writes there when this process lets go of the memory, as to any address of the guest's (4 of `fork.rs`).
            unsafe { libc::syscall(libc::SYS_set_tid_address, word.0) };
        }
    }

    /// Runs the program's first thread on the process's first thread. Its end is that of the process only if no other thread
    /// is left.
    pub fn run_first(mut self) -> ! {
        crate::hidden::close_stand_ins();
        signal::install_host_handlers();
        let group = Arc::clone(&self.group);
        let member = group.join(Whose::Guest(Registers::of(&self.cpu)));
        let code = self.run();
        self.release();
        if member.end_first() {
            self.end_process(code);
        }
        // SAFETY: ends this thread only; whatever its stack holds stays.
        unsafe { libc::syscall(libc::SYS_exit, code) };
        unreachable!("exit does not return")
    }

    /// Body of a guest thread's host thread.
    fn main(mut self, args: &CloneArgs, parent: &mpsc::Sender<Result<i32, Errno>>) {
        let _bomb = AbortOnPanic;
        let group = Arc::clone(&self.group);
        let member = group.join(Whose::Guest(Registers::of(&self.cpu)));
        self.tid = nix::unistd::gettid().as_raw();
        if let Err(errno) = stop_sharing(THREAD_SHARES & !(args.flags as i32)) {
            let _ = parent.send(Err(errno));
            return;
        }
        store_tids(args, self.tid);
        let process = self.process;
        let listed = process.threads.list();
        // The parent waits for this.
        let _ = parent.send(Ok(self.tid));
        let code = self.run();
        drop(listed);
        self.release();
        if member.end() {
            self.end_process(code);
        }
    }

    /// The end of a guest thread that is not its process's: what others may wait for.
    pub fn release(&mut self) {
        host::block_all();
        // What the thread has written is seen before its end is.
        fence(Ordering::SeqCst);
        give_up_robust_list(self.tid);
        if let Some(word) = self.clear_child_tid.take()
            && access::write(word, &0u32).is_ok()
        {
            wake(word);
        }
    }
}

/// Gives the calling thread copies of its own of what these flags say.
fn stop_sharing(flags: i32) -> Result<(), Errno> {
    if flags == 0 {
        return Ok(());
    }
    // SAFETY: concerns descriptors, directories and semaphores of this thread only.
    Errno::result(unsafe { libc::unshare(flags) }).map(drop)
}

/// Ends the process if its thread panics: a guest that silently lacks one thread hangs instead of failing.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

/// Registers in which a child differs from its parent.
pub(crate) fn start_registers(cpu: &mut CpuState, args: &CloneArgs) {
    cpu.gpr[0] = 0;
    if args.stack != 0 {
        cpu.gpr[4] = args.stack;
    }
    if args.has(CLONE_SETTLS) {
        cpu.fs_base = args.tls;
    }
}

/// `CLONE_PARENT_SETTID` and `CLONE_CHILD_SETTID` where parent and child share memory. Like the kernel, ignores bad addresses.
pub(crate) fn store_tids(args: &CloneArgs, tid: i32) {
    for (flag, word) in [(CLONE_PARENT_SETTID, args.parent_tid), (CLONE_CHILD_SETTID, args.child_tid)] {
        if args.has(flag) {
            let _ = access::write(GuestAddr(word), &tid);
        }
    }
}

/// Wakes one waiter of a futex that may be shared between processes.
fn wake(word: GuestAddr) {
    // SAFETY: the kernel only looks the address up.
    unsafe { libc::syscall(libc::SYS_futex, word.0, libc::FUTEX_WAKE, 1) };
}

/// Bits of a robust futex (linux/futex.h).
const FUTEX_TID_MASK: u32 = 0x3fff_ffff;
const FUTEX_OWNER_DIED: u32 = 0x4000_0000;
const FUTEX_WAITERS: u32 = 0x8000_0000;
/// Most entries that are looked at (`ROBUST_LIST_LIMIT`).
const ROBUST_LIMIT: usize = 2048;

/// Marks the mutexes of the calling thread's robust list as given up by a dead owner (`kernel/futex/core.c: exit_robust_list`),
/// and forgets the list.
fn give_up_robust_list(tid: i32) {
    let (mut head, mut len) = (0u64, 0usize);
    // SAFETY: the kernel writes two words; a null list is one that it does not walk.
    unsafe {
        libc::syscall(libc::SYS_get_robust_list, 0, &raw mut head, &raw mut len);
        libc::syscall(libc::SYS_set_robust_list, 0, size_of::<[u64; 3]>());
    }
    // `struct robust_list_head`: first entry, offset of the futex word from an entry, entry in the making.
    let Ok([mut entry, offset, pending]) = access::read::<[u64; 3]>(GuestAddr(head)) else { return };
    let word = |entry: u64| GuestAddr((entry & !1).wrapping_add(offset));
    for _ in 0..ROBUST_LIMIT {
        if entry & !1 == head {
            break;
        }
        let next = access::read::<u64>(GuestAddr(entry & !1));
        if entry != pending {
            give_up(word(entry), tid);
        }
        let Ok(next) = next else { return };
        entry = next;
    }
    if pending != 0 {
        give_up(word(pending), tid);
    }
}

/// Replaces `old` by `new` in guest memory; what was there.
fn compare_exchange(word: GuestAddr, old: u32, new: u32) -> Result<u32, Fault> {
    access::check(word, size_of::<u32>(), Access::Write)?;
    let seen = GuestMemory { ordered: true }.cas(Type::I32, word.0, [old.into(), 0], [new.into(), 0])?;
    Ok(seen[0] as u32)
}

/// `handle_futex_death` for one futex.
fn give_up(word: GuestAddr, tid: i32) {
    let Ok(mut value) = access::read::<u32>(word) else { return };
    while value & FUTEX_TID_MASK == tid as u32 {
        match compare_exchange(word, value, value & FUTEX_WAITERS | FUTEX_OWNER_DIED) {
            Ok(old) if old == value => {
                if value & FUTEX_WAITERS != 0 {
                    wake(word);
                }
                return;
            }
            Ok(old) => value = old,
            Err(_) => return,
        }
    }
}
