//! What a process leaves behind that is killed in memory where others go on.
//!
//! Problem: a lodger (`fork.rs`) that SIGKILL ends, or another signal that is the kernel's to act upon, is ended wherever it is. A lock of the
//! translator's that it held is held for ever then, and what it protects is half changed; the same goes for the allocator.
//!
//! Approach: who has slept for a lodger that did not end by itself takes stock ([`take_stock`]) before it does anything else. It looks whether the lodger
//! was inside the allocator, and takes every lock once, as for a fork. If it gets them, nobody has died with one, and all is as
//! whole as between any two steps of a thread. If not, nobody can use what is in this memory any more: after [`LONGEST`] its process ends, with a
//! line that says so. A *witness* sees to that: a process in this memory that does nothing but system calls, of which the guest hears nothing.
//!
//! None of this costs anything before somebody is killed, but for a word that says who is inside the allocator ([`Allocator`]).
//!
//! What it does not see: a parent that is killed while lodgers of its go on; threads of a lodger whose first thread has ended; and, in a process of one
//! thread, who was inside the allocator for the C library's own sake.
//!
//! # Safety
//! The witness runs on a stack of its own, and has ended before its maker goes on; the allocator is the C library's.

#![allow(unsafe_code)]

use crate::fork::Stack;
use crate::process::Process;
use crate::signal::clone_vfork;
use libc::{c_void, pid_t};
use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, compiler_fence};

/// The C library's allocator, which tells who is inside: without a second thread it takes no lock, and what it keeps for a thread has none, which a lodger
/// shares with the thread that sleeps for it.
struct Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

thread_local! {
    static INSIDE: AtomicBool = const { AtomicBool::new(false) };
}

/// Does this inside the allocator.
#[inline]
fn inside<R>(action: impl FnOnce() -> R) -> R {
    INSIDE.with(|inside| {
        inside.store(true, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        let result = action();
        compiler_fence(Ordering::SeqCst);
        inside.store(false, Ordering::Relaxed);
        result
    })
}

// SAFETY: the system's.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise, here and below.
        inside(|| unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        inside(|| unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        inside(|| unsafe { System.realloc(ptr, layout, size) })
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as above.
        inside(|| unsafe { System.dealloc(ptr, layout) });
    }
}

/// How long taking stock may last, in seconds: others may be at work with what they have locked.
const LONGEST: i64 = 10;

/// What is said at the end.
const LINE: &str = "calque: a process that ran in this process's memory was killed in the middle of a change to it; this process ends, too\n";

/// After the lodger `victim`, for which the calling thread has slept, was killed. All signals are blocked. `interrupt` is its first thread's.
pub(crate) fn take_stock(process: &Process, victim: pid_t, interrupt: &AtomicU32) {
    let mut own = nix::unistd::getpid().as_raw();
    if INSIDE.with(|inside| inside.load(Ordering::Relaxed)) {
        end(own);
    }
    let Ok(mut stack) = Stack::new() else { end(own) };
    // SAFETY: stack and number outlive the witness.
    let witness = unsafe { clone_vfork(libc::CLONE_VM as u64, stack.top(), 0, 0, witness, (&raw mut own).cast()) };
    if witness < 0 {
        end(own);
    }
    await_end(victim);
    drop(process.before_fork());
    process.code.world.forget(interrupt);
    process.code.await_compilations();
    // SAFETY: looks through what the allocator has, each part of it locked.
    unsafe { libc::mallinfo2() };
    // SAFETY: ends a process of our own, of which nobody else has heard.
    unsafe {
        libc::kill(witness as pid_t, libc::SIGKILL);
        while libc::waitpid(witness as pid_t, null_mut(), libc::__WALL) < 0 && *libc::__errno_location() == libc::EINTR
        {
        }
    }
}

/// Waits until all threads of the child `victim` have ended, and leaves its status to the guest.
fn await_end(victim: pid_t) {
    let how = libc::WEXITED | libc::WNOWAIT | libc::__WALL;
    // SAFETY: no result is asked for.
    unsafe { libc::waitid(libc::P_PID, victim as u32, null_mut(), how) };
}

/// First and only function of a witness; `process` is the number of who is to end.
extern "C" fn witness(process: *mut c_void) -> ! {
    let time = libc::timespec { tv_sec: LONGEST, tv_nsec: 0 };
    // SAFETY: plain system calls; the number outlives this process.
    unsafe {
        libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
        let process = *process.cast::<pid_t>();
        if libc::syscall(libc::SYS_getppid) == i64::from(process) {
            libc::syscall(libc::SYS_nanosleep, &raw const time, 0);
            end(process);
        }
        libc::_exit(0)
    }
}

/// Ends a process that cannot go on, for which only system calls are left.
fn end(process: pid_t) -> ! {
    // SAFETY: plain system calls.
    unsafe {
        libc::syscall(libc::SYS_write, libc::STDERR_FILENO, LINE.as_ptr(), LINE.len());
        libc::syscall(libc::SYS_kill, process, libc::SIGKILL);
        libc::_exit(1)
    }
}
