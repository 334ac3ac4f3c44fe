//! The host side of signals: dispositions, masks, and the handler that records.
//!
//! # Safety
//! Raw system calls on signal state (the C library's wrappers refuse signals 32 and 33, which are the guest's C
//! library's), and a handler, [`on_signal`], that runs between any two instructions of its thread. It may call: what is
//! in this file and, for synchronous faults, [`fault::classify`] (which states its own rules). It neither locks nor
//! allocates, keeps `errno`, and reaches its thread's state through a thread-local pointer that is constant while
//! handlers can run (invariants S2, S3 of `signal`).

#![allow(unsafe_code)]

use super::actions::{SIG_DFL, SIG_IGN};
use super::arch;
use super::frame::SigInfo;
use super::set::{SYNCHRONOUS, SigSet};
use crate::fault::{self, Verdict};
use crate::group::REST;
use crate::thread::Thread;
use libc::{SA_ONSTACK, SA_SIGINFO, SIG_SETMASK, siginfo_t, ucontext_t};
use nix::errno::Errno;
use std::cell::{Cell, UnsafeCell};
use std::io::Write;
use std::ptr::{null, null_mut};
use std::sync::Once;
use std::sync::atomic::{
    AtomicPtr, AtomicU32, AtomicUsize, Ordering::Relaxed, Ordering::Release, Ordering::SeqCst, compiler_fence,
};

/// `struct sigaction` of the kernel, the same on both hosts (linux/signal_types.h with `SA_RESTORER`).
#[repr(C)]
#[derive(Clone, Copy)]
struct HostSigaction {
    handler: usize,
    flags: u64,
    restorer: usize,
    mask: u64,
}

/// Size of the kernel's `sigset_t` in bytes: what its calls want to hear.
const SIGSET_SIZE: usize = 8;

/// `rt_sigaction`; `new` of `None` only asks.
fn sigaction(signo: i32, new: Option<HostSigaction>) -> HostSigaction {
    let mut old = HostSigaction { handler: 0, flags: 0, restorer: 0, mask: 0 };
    let new = new.as_ref().map_or(null(), std::ptr::from_ref);
    // SAFETY: both point to structures of the kernel's layout; handlers are `on_signal` or constants.
    unsafe { libc::syscall(libc::SYS_rt_sigaction, signo, new, &raw mut old, SIGSET_SIZE) };
    old
}

/// Sets the host's disposition to `SIG_DFL` or `SIG_IGN`, with `SA_NOCLDSTOP` and `SA_NOCLDWAIT`.
pub fn set_disposition(signo: i32, handler: u64, flags: u64) {
    debug_assert!(handler == SIG_DFL || handler == SIG_IGN);
    sigaction(
        signo,
        Some(HostSigaction {
            handler: handler as usize,
            flags: flags | arch::SA_RESTORER,
            restorer: arch::restorer(),
            mask: 0,
        }),
    );
}

/// Installs [`on_signal`] with these flags besides the necessary ones.
pub fn install(signo: i32, flags: u64) {
    let flags = flags | SA_SIGINFO as u64 | SA_ONSTACK as u64 | arch::SA_RESTORER;
    let handler = crate::arch::signal_entry(on_signal as *const () as usize);
    sigaction(signo, Some(HostSigaction { handler, flags, restorer: arch::restorer(), mask: !0 }));
}

/// Installs the handlers that Calque needs for itself; more than once does no harm.
pub fn init() {
    static DONE: Once = Once::new();
    DONE.call_once(|| {
        for signo in (1..=64).filter(|&n| SYNCHRONOUS.contains(n)) {
            install(signo, 0);
        }
    });
}

/// The signal by which C libraries take a thread's `setuid` to the others (glibc's and Bionic's SIGSETXID).
const SETXID: i32 = 33;

/// The host's action for [`SETXID`], which follows from the guest's. With the first thread that is made in a process, the host's C library sets
/// a handler of its own (`late_init`, `nptl/pthread_create.c`), which knows of no `setuid` of the guest's C library.
pub struct Setxid(HostSigaction);

impl Setxid {
    /// Before a host thread is made.
    pub fn keep() -> Setxid {
        Setxid(sigaction(SETXID, None))
    }

    /// Afterwards, before any code of the guest's can send the signal to a thread of this process.
    pub fn restore(self) {
        let ours = [crate::arch::signal_entry(on_signal as *const () as usize), SIG_DFL as usize, SIG_IGN as usize];
        if !ours.contains(&sigaction(SETXID, None).handler) {
            sigaction(SETXID, Some(self.0));
        }
    }
}

/// Whether the host process ignores `signo`.
pub fn is_ignored(signo: i32) -> bool {
    sigaction(signo, None).handler == SIG_IGN as usize
}

/// The calling host thread's mask.
pub fn mask() -> SigSet {
    let mut old = SigSet::EMPTY;
    // SAFETY: `old` is a kernel sigset.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, SIG_SETMASK, null::<u64>(), &raw mut old, SIGSET_SIZE) };
    old
}

thread_local! {
    /// The calling host thread's mask, while it is known: unless a handler has changed it (`record`). A child of vfork has its parent's
    /// until it ends; the parent then sets its own exactly.
    static MASK: Cell<Option<SigSet>> = const { Cell::new(None) };
}

/// Sets the calling host thread's mask to exactly this.
pub fn set_mask_exactly(mask: SigSet) -> SigSet {
    // Before the call: a handler that runs in between, or right behind it, has the last word.
    MASK.set(Some(mask));
    compiler_fence(SeqCst);
    let mut old = SigSet::EMPTY;
    // SAFETY: both are kernel sigsets.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, SIG_SETMASK, &raw const mask, &raw mut old, SIGSET_SIZE) };
    old
}

/// Sets the calling host thread's mask to what the guest's mask `mask` asks for (S1), unless it is known to be that.
pub fn set_mask(mask: SigSet) {
    let mask = mask.minus(SYNCHRONOUS);
    if MASK.get() != Some(mask) {
        set_mask_exactly(mask);
    }
}

/// Blocks every signal but [`SYNCHRONOUS`]: for threads of the translator, and while a thread is made or unmade.
pub fn block_all() -> SigSet {
    set_mask_exactly(SigSet::ALL.minus(SYNCHRONOUS))
}

/// Sends `info` to the calling thread, exactly as it is: the kernel lets a process pretend anything to itself
/// (`kernel/signal.c: do_rt_tgsigqueueinfo`).
pub fn requeue(info: &SigInfo) {
    // SAFETY: plain calls; `info` has the kernel's layout.
    unsafe {
        let (pid, tid) = (libc::getpid(), libc::syscall(libc::SYS_gettid));
        libc::syscall(libc::SYS_rt_tgsigqueueinfo, pid, tid, info.signo, std::ptr::from_ref(info));
    }
}

/// Marks the signal of [`kick`], which is not the guest's. Its address is the mark.
static KICK: u8 = 0;
/// The same of [`send_to_rest`].
static TO_REST: u8 = 1;

/// `SI_QUEUE` (asm-generic/siginfo.h).
const SI_QUEUE: i32 = -1;

/// Makes host thread `tid` of process `pid` leave the unit that it is in. False if there is no such thread any more.
pub fn kick(thread: [i32; 2]) -> bool {
    send_mark(thread, &KICK)
}

/// Makes host thread `tid` of process `pid` come to its next safepoint, and rest there ([`REST`]).
pub fn send_to_rest(thread: [i32; 2]) {
    send_mark(thread, &TO_REST);
}

/// Whether there is a thread `tid` of process `pid`.
pub fn exists([pid, tid]: [i32; 2]) -> bool {
    // SAFETY: sends nothing.
    let found = unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, 0) };
    found == 0 || Errno::last() != Errno::ESRCH
}

/// Sends SIGTRAP, because it is never blocked, with this mark. False if there is no such thread.
fn send_mark([pid, tid]: [i32; 2], mark: &'static u8) -> bool {
    let mut info: SigInfo = bytemuck::Zeroable::zeroed();
    (info.signo, info.code) = (libc::SIGTRAP, SI_QUEUE);
    // The value behind pid and uid (struct __sifields._rt).
    info.fields[1] = std::ptr::from_ref(mark) as u64;
    // SAFETY: plain call; `info` has the kernel's layout.
    let sent = unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, pid, tid, info.signo, &raw const info) };
    sent == 0 || Errno::last() != Errno::ESRCH
}

/// Whether this is the signal with this mark.
fn has_mark(info: &siginfo_t, mark: &'static u8) -> bool {
    // SAFETY: `si_value` is there for SI_QUEUE.
    info.si_signo == libc::SIGTRAP
        && info.si_code == SI_QUEUE
        && unsafe { info.si_value() }.sival_ptr == std::ptr::from_ref(mark).cast_mut().cast()
}

/// Dies by `info.signo`, as a process without a handler does: its parent sees the signal, and the kernel dumps core.
pub fn die(info: &SigInfo) -> ! {
    set_disposition(info.signo, SIG_DFL, 0);
    requeue(info);
    set_mask_exactly(SigSet::ALL.minus(SigSet::of(&[info.signo])));
    // Only reached for a signal that does not kill by default, or for the first process of a pid namespace.
    // SAFETY: ends the process without running anything of it.
    unsafe { libc::_exit(128 + info.signo) }
}

/// Records in an inbox: one asynchronous signal and what `kill` may send of [`SYNCHRONOUS`] before the next safepoint.
const SLOTS: usize = 8;

/// Bit of the interrupt word that says: look into the inbox.
pub const SIGNAL: u32 = 1;

/// Signals that the host handler has taken from the kernel for one thread and the thread has not yet looked at.
pub struct Inbox {
    slots: [UnsafeCell<SigInfo>; SLOTS],
    /// Records written; only the handler adds.
    written: AtomicUsize,
    /// Records read; only the owner adds.
    read: AtomicUsize,
    /// `CpuState::rt.interrupt` of the owner.
    interrupt: AtomicPtr<AtomicU32>,
}

impl Default for Inbox {
    fn default() -> Self {
        Self {
            slots: std::array::from_fn(|_| UnsafeCell::new(SigInfo::new(0, 0))),
            written: AtomicUsize::new(0),
            read: AtomicUsize::new(0),
            interrupt: AtomicPtr::new(null_mut()),
        }
    }
}

impl Inbox {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.written.load(Relaxed) == self.read.load(Relaxed)
    }

    /// The oldest record.
    pub fn take(&self) -> Option<SigInfo> {
        let read = self.read.load(Relaxed);
        if self.written.load(Relaxed) == read {
            return None;
        }
        // SAFETY: S2: written before `written` was raised, and the handler leaves it alone until `read` passes it.
        let info = unsafe { *self.slots[read % SLOTS].get() };
        self.read.store(read + 1, Release);
        Some(info)
    }

    /// Writes a record; a full inbox drops it, as the kernel drops a standard signal that is pending already.
    fn put(&self, info: SigInfo) {
        let written = self.written.load(Relaxed);
        if written - self.read.load(Relaxed) < SLOTS {
            // SAFETY: S2: the slot is free, and handlers do not nest.
            unsafe { *self.slots[written % SLOTS].get() = info };
            self.written.store(written + 1, Release);
        }
        // SAFETY: set by `attach` to a word that outlives the attachment.
        unsafe { (*self.interrupt.load(Relaxed)).fetch_or(SIGNAL, Relaxed) };
    }
}

thread_local! {
    /// Inbox of the guest thread that this host thread runs; null in threads of the translator.
    static CURRENT: Cell<*const Inbox> = const { Cell::new(null()) };
}

/// Size of the stack that host handlers run on: the kernel's largest frame (AVX-512, AMX: 11 KiB) and the fault path.
pub(super) const HANDLER_STACK: usize = 64 << 10;

/// What a host thread has to give back when it stops running a guest thread.
pub struct Attachment {
    previous: *const Inbox,
    old_stack: libc::stack_t,
}

/// Makes the calling host thread the one that runs `thread`: handlers record in its inbox, on a stack of their own;
/// from now on the guest's mask is the host's.
pub fn attach(thread: &mut Thread) -> Attachment {
    init();
    let stack = thread.signals.handler_stack();
    let new = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: stack.len() };
    let mut old_stack = libc::stack_t { ss_sp: null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
    // SAFETY: the stack lives as long as the thread's signal state, which the attachment's user keeps longer.
    unsafe { libc::sigaltstack(&raw const new, &raw mut old_stack) };
    let previous = CURRENT.replace(prepare(thread));
    set_mask(thread.signals.mask());
    Attachment { previous, old_stack }
}

/// Lets the handlers of the calling host thread, already attached, record for `thread` from now on: after a fork or
/// vfork, in child and parent. All signals are blocked.
pub fn move_inbox(thread: &Thread) {
    CURRENT.set(prepare(thread));
}

/// The thread's inbox, made to set the thread's interrupt word.
fn prepare(thread: &Thread) -> *const Inbox {
    let inbox = thread.signals.inbox();
    inbox.interrupt.store((&raw const thread.cpu.rt.interrupt).cast_mut(), Relaxed);
    inbox
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let mask = block_all();
        CURRENT.set(self.previous);
        // SAFETY: the stack that was in use before.
        unsafe { libc::sigaltstack(&raw const self.old_stack, null_mut()) };
        if !self.previous.is_null() {
            set_mask_exactly(mask);
        }
    }
}

/// The host's handler for every signal.
extern "C" fn on_signal(signo: i32, info: &siginfo_t, context: &mut ucontext_t) {
    // SAFETY: `errno` is this thread's.
    let errno = unsafe { *libc::__errno_location() };
    if has_mark(info, &KICK) {
        fault::leave_unit(context);
    } else if has_mark(info, &TO_REST) {
        fault::interrupt(REST);
        leave_for_safepoint(context);
    } else if !SYNCHRONOUS.contains(signo) || info.si_code <= 0 {
        record(info, context);
    } else if fault::classify(signo, info, context) == Verdict::NotOurs {
        report_bug(signo, info, context);
        // Returning to the faulting instruction now ends the process by the same fault, with the right core.
        set_disposition(signo, SIG_DFL, 0);
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// One line on stderr about a fault in the translator itself; writes to the descriptor from a buffer on the stack.
#[cold]
fn report_bug(signo: i32, info: &siginfo_t, context: &ucontext_t) {
    let mut line = [0u8; 200];
    let mut rest = &mut line[..];
    let (pc, own) = (crate::arch::context_pc(context), on_signal as *const () as u64);
    // SAFETY: faults have an address.
    let addr = unsafe { info.si_addr() } as u64;
    // A line that does not fit is cut.
    let _ =
        writeln!(rest, "calque: bug: signal {signo} at host pc {pc:#x} (on_signal is at {own:#x}), address {addr:#x}");
    let unused = rest.len();
    // SAFETY: writes the used part of the buffer.
    unsafe { libc::write(2, line.as_ptr().cast(), line.len() - unused) };
}

/// Leaves the signal to the next safepoint, which no system call may keep waiting.
fn record(info: &siginfo_t, context: &mut ucontext_t) {
    let inbox = CURRENT.get();
    if inbox.is_null() {
        return;
    }
    // SAFETY: `attach` set the inbox, which outlives the attachment; the two types are one structure.
    unsafe { (*inbox).put(*std::ptr::from_ref(info).cast::<SigInfo>()) };
    leave_for_safepoint(context);
    MASK.set(None);
    // SAFETY: the kernel's mask has 64 bits.
    unsafe { *(&raw mut context.uc_sigmask).cast::<u64>() = !SYNCHRONOUS.0 };
}

/// Sends the interrupted thread, whose interrupt word is set, to its next safepoint: out of a unit, or of a system call that has not begun.
fn leave_for_safepoint(context: &mut ucontext_t) {
    fault::leave_unit(context);
    let window = arch::window();
    let pc = crate::arch::context_pc(context);
    if (window.check..window.end).contains(&pc) {
        crate::arch::context_set_pc(context, window.interrupted);
    }
}

const _: () = assert!(size_of::<SigInfo>() == size_of::<siginfo_t>());

impl Thread {
    /// Makes the host's system call `nr` (host numbering), with guest pointers as they are. Returns its result, or
    /// [`NOT_STARTED`](super::NOT_STARTED) if a signal waits for delivery: then nothing has happened, and the
    /// guest's call is to be begun again behind the safepoint (`Outcome::Interrupted`).
    ///
    /// EINTR is the guest's result: the kernel only returns it where the guest's handler lacks SA_RESTART or the call is never restarted.
    pub fn host_syscall(&self, nr: i64, args: [u64; 6]) -> i64 {
        let interrupt = (&raw const self.cpu.rt.interrupt).cast::<u32>();
        // SAFETY: the word is the thread's; the syscalls layer refuses arguments that reach the translator's memory.
        unsafe { arch::window_syscall(interrupt, nr as u64, &args) }
    }
}
