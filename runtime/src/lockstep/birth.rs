//! New processes for the controller: a copy of the agent's, in its address space but not among the guest's children.
//!
//! The copy is made by a go-between that ends at once, so that it becomes the controller's (a subreaper), and without an exit
//! signal, so that neither `wait` nor SIGCHLD in the guest can tell. It holds no descriptors: a pipe's end that it kept open
//! would keep the guest's reader waiting.
//!
//! # Safety
//! Raw `clone` without new memory: each copy goes on in its own copy of this stack. The agent has one thread (compilation
//! is synchronous), so no lock is held by anybody else.

#![allow(unsafe_code)]

use super::channel::{Seat, is_alive};
use nix::errno::Errno;

fn clone() -> Result<i32, Errno> {
    // SAFETY: as `fork`, without a signal to the parent.
    Errno::result(unsafe { libc::syscall(libc::SYS_clone, 0, 0, 0, 0, 0) }).map(|pid| pid as i32)
}

/// Which process returns from [`copy`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    Parent,
    Copy,
}

/// Makes a copy of the calling process; both return. The copy's number is announced by the copy itself, when it is ready.
pub(super) fn copy(seat: &Seat, controller: i32) -> Result<Side, Errno> {
    seat.announce(0);
    let between = clone()?;
    if between == 0 {
        match clone() {
            Ok(0) => {
                end_with(controller);
                return Ok(Side::Copy);
            }
            // SAFETY: ends the go-between without running anything of the agent's.
            result => unsafe { libc::_exit(i32::from(result.is_err())) },
        }
    }
    let mut status = 0;
    // SAFETY: `__WCLONE`: waits for a child without an exit signal.
    while unsafe { libc::waitpid(between, &mut status, libc::__WCLONE) } < 0 && Errno::last() == Errno::EINTR {}
    if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0 { Ok(Side::Parent) } else { Err(Errno::EAGAIN) }
}

/// Lets the calling process end with the controller, its parent from the moment that the go-between has ended.
fn end_with(controller: i32) {
    while nix::unistd::getppid().as_raw() != controller && is_alive(controller) {
        std::thread::yield_now();
    }
    // Without it, a copy whose controller is killed lives until its next word.
    let _ = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL);
}

/// Keys that interrupt the guest must not end the controller.
pub(super) fn ignore_keyboard() {
    for number in [libc::SIGINT, libc::SIGQUIT, libc::SIGTSTP] {
        // SAFETY: ignoring a signal runs no code of ours.
        unsafe { libc::signal(number, libc::SIG_IGN) };
    }
}

/// Closes all descriptors of the calling process.
pub(super) fn close_all() {
    // SAFETY: this copy uses none of them any more.
    unsafe { libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0) };
}

/// Gives the guest's memory the protection that the guest asked for: the processor itself is going to run there.
pub(super) fn expose(map: &crate::memory::GuestMap) {
    for m in map.mappings() {
        // SAFETY: the guest's own memory, in a copy where no translation runs.
        unsafe { libc::mprotect(m.range.start.0 as *mut _, m.range.size() as usize, m.prot.bits()) };
    }
}

/// Address of a page that belongs to the controller: a SYSCALL instruction, and room.
pub(super) use crate::memory::CONTROLLERS_PAGE as STUB;

/// Makes the page at [`STUB`]; whether that is possible.
pub(super) fn make_stub() -> bool {
    let (prot, flags) = (
        libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE,
    );
    // SAFETY: a new page, where nothing was.
    unsafe {
        let at = libc::mmap(STUB as *mut _, 4096, prot, flags, -1, 0);
        if at as u64 != STUB {
            return false;
        }
        at.cast::<[u8; 2]>().write(SYSCALL);
    }
    true
}

/// The SYSCALL instruction.
const SYSCALL: [u8; 2] = [0x0f, 0x05];

/// Sleeps until traced.
pub(super) fn sleep_forever() -> ! {
    loop {
        // SAFETY: waits for a signal.
        unsafe { libc::pause() };
    }
}

/// Forks the controller before it does anything: the child becomes the guest. 0 in the child.
pub(super) fn fork_guest() -> Result<i32, Errno> {
    // SAFETY: the process has one thread.
    Errno::result(unsafe { libc::fork() })
}
