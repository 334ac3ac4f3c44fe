//! Signals: the runtime keeps dispositions, masks and frames; here their calls fetch arguments and store results.

use crate::call::Call;
use calque_runtime::signal::{AltStack, KernelSigaction, SigSet};
use calque_runtime::{Outcome, access};
use nix::errno::Errno;

type Result = std::result::Result<u64, Errno>;

/// `sizeof(sigset_t)` of the kernel's.
const SIGSET: u64 = 8;

fn check_size(size: u64) -> std::result::Result<(), Errno> {
    if size == SIGSET { Ok(()) } else { Err(Errno::EINVAL) }
}

/// `int rt_sigaction(int signal, const struct sigaction *new, struct sigaction *old, size_t size)`.
pub(crate) fn rt_sigaction(call: &mut Call<'_>) -> Result {
    check_size(call.args[3])?;
    let new = call.read_opt::<KernelSigaction>(1)?;
    let old = call.thread.signals.actions.replace(call.int(0), new)?;
    if call.args[2] != 0 {
        call.write(2, &old)?;
    }
    Ok(0)
}

/// `int rt_sigprocmask(int how, const sigset_t *new, sigset_t *old, size_t size)`.
pub(crate) fn rt_sigprocmask(call: &mut Call<'_>) -> Result {
    check_size(call.args[3])?;
    let new = call.read_opt::<u64>(1)?;
    // Without a new set `how` does not matter; blocking nothing more changes nothing.
    let (how, set) = new.map_or((libc::SIG_BLOCK, 0), |set| (call.int(0), set));
    let Ok(old) = call.thread.change_mask(how, SigSet(set)) else { return Err(call.not_started()) };
    if call.args[2] != 0 { call.write(2, &old?.0) } else { old.map(|_| 0) }
}

/// `int rt_sigreturn(void)`: the frame under RSP holds the whole state.
pub(crate) fn rt_sigreturn(call: &mut Call<'_>) -> Outcome {
    call.thread.sigreturn();
    Outcome::Continue
}

/// `int rt_sigpending(sigset_t *set, size_t size)`: the host's pending signals and those that Calque holds.
pub(crate) fn rt_sigpending(call: &mut Call<'_>) -> Result {
    check_size(call.args[1])?;
    let mut host = 0u64;
    call.host(libc::SYS_rt_sigpending, [crate::host::out(&mut host), SIGSET])?;
    call.write(0, &(host | call.thread.held_signals().0))
}

/// `int rt_sigtimedwait(const sigset_t *set, siginfo_t *info, const struct timespec *limit, size_t size)`.
pub(crate) fn rt_sigtimedwait(call: &mut Call<'_>) -> Result {
    let [set, info, limit, size, ..] = call.args;
    call.host(libc::SYS_rt_sigtimedwait, [set, info, limit, size])
}

/// `int rt_sigsuspend(const sigset_t *mask, size_t size)`.
pub(crate) fn rt_sigsuspend(call: &mut Call<'_>) -> Result {
    check_size(call.args[1])?;
    let mask = call.read::<u64>(0)?;
    call.host_with_mask(mask, libc::SYS_rt_sigsuspend, |mask| [mask, SIGSET])
}

/// `int pause(void)`.
pub(crate) fn pause(call: &mut Call<'_>) -> Result {
    call.host(libc::SYS_ppoll, [0, 0, 0, 0, 0])
}

/// `int sigaltstack(const stack_t *new, stack_t *old)`.
pub(crate) fn sigaltstack(call: &mut Call<'_>) -> Result {
    let (new, old) = (call.read_opt::<AltStack>(0)?, call.thread.alt_stack());
    if let Some(new) = new {
        call.thread.set_alt_stack(new)?;
    }
    if call.args[1] != 0 {
        access::write(call.addr(1), &old)?;
    }
    Ok(0)
}

/// `int signalfd(int fd, const sigset_t *mask, size_t size)`.
pub(crate) fn signalfd(call: &mut Call<'_>) -> Result {
    let [fd, mask, size, ..] = call.args;
    call.host(libc::SYS_signalfd4, [fd, mask, size, 0])
}
