//! Waiting for descriptors: poll, select, epoll, and the makers of descriptors to wait for.

use crate::abi::epoll::EpollEvent;
use crate::call::Call;
use crate::host;
use calque_runtime::{GuestAddr, access};
use nix::errno::Errno;

type Result = std::result::Result<u64, Errno>;

/// `int poll(struct pollfd *fds, unsigned n, int milliseconds)`.
pub(crate) fn poll(call: &mut Call<'_>) -> Result {
    let mut limit = millis(call.int(2));
    let limit = limit.as_mut().map_or(0, host::out);
    call.host(libc::SYS_ppoll, [call.args[0], call.args[1], limit, 0, 0])
}

/// A time-out in milliseconds as seconds and nanoseconds; negative is none.
fn millis(ms: i32) -> Option<[i64; 2]> {
    (ms >= 0).then(|| [i64::from(ms / 1000), i64::from(ms % 1000) * 1_000_000])
}

/// `int ppoll(struct pollfd *fds, unsigned n, struct timespec *limit, const sigset_t *mask, size_t size)`.
pub(crate) fn ppoll(call: &mut Call<'_>) -> Result {
    let [fds, n, limit, mask, size, _] = call.args;
    let (nr, mask) = (libc::SYS_ppoll, sigset(GuestAddr(mask), size)?);
    masked(call, mask, nr, |mask| [fds, n, limit, mask, 8])
}

/// `int select(int n, fd_set *in, fd_set *out, fd_set *except, struct timeval *limit)`. What is left of the limit is
/// written back, as Linux does.
pub(crate) fn select(call: &mut Call<'_>) -> Result {
    let [n, read, write, except, ..] = call.args;
    let mut limit = match call.read_opt::<[i64; 2]>(4)? {
        Some([s, us]) if s < 0 || us < 0 => return Err(Errno::EINVAL),
        // Microseconds beyond a second are taken, too (fs/select.c, kern_select).
        Some([s, us]) => Some([s + us / 1_000_000, us % 1_000_000 * 1000]),
        None => None,
    };
    let pointer = limit.as_mut().map_or(0, host::out);
    let result = call.host(libc::SYS_pselect6, [n, read, write, except, pointer, 0]);
    if let Some([s, ns]) = limit {
        // A read-only time-out is no error (fs/select.c, poll_select_finish).
        let _ = call.write(4, &[s, ns / 1000]);
    }
    result
}

/// `int pselect6(int n, fd_set *in, fd_set *out, fd_set *except, struct timespec *limit, struct { sigset_t *mask; size_t
/// size; } *)`.
pub(crate) fn pselect6(call: &mut Call<'_>) -> Result {
    let [n, read, write, except, limit, _] = call.args;
    let [mask, size] = call.read_opt::<[u64; 2]>(5)?.unwrap_or_default();
    let mask = sigset(GuestAddr(mask), size)?;
    let mut pair = [0, 8];
    let at = host::out(&mut pair);
    masked(call, mask, libc::SYS_pselect6, |mask| {
        pair[0] = mask;
        [n, read, write, except, limit, at]
    })
}

/// The signal set at `mask` unless that is null.
pub(crate) fn sigset(mask: GuestAddr, size: u64) -> std::result::Result<Option<u64>, Errno> {
    match (mask.0, size) {
        (0, _) => Ok(None),
        (_, 8) => Ok(Some(access::read(mask)?)),
        _ => Err(Errno::EINVAL),
    }
}

/// A wait with the signal mask `mask` if there is one; `args` gets the pointer for the kernel, or null.
pub(crate) fn masked<const N: usize>(
    call: &mut Call<'_>,
    mask: Option<u64>,
    nr: libc::c_long,
    args: impl FnOnce(u64) -> [u64; N],
) -> Result {
    match mask {
        None => call.host(nr, args(0)),
        Some(mask) => call.host_with_mask(mask, nr, args),
    }
}

/// `int epoll_create(int size)`: the size only has to be positive.
pub(crate) fn epoll_create(call: &mut Call<'_>) -> Result {
    if call.int(0) <= 0 { Err(Errno::EINVAL) } else { call.host(libc::SYS_epoll_create1, [0]) }
}

/// `int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)`.
pub(crate) fn epoll_ctl(call: &mut Call<'_>) -> Result {
    let [epfd, op, fd, ..] = call.args;
    let event = match call.int(1) {
        libc::EPOLL_CTL_DEL => None,
        _ => Some(libc::epoll_event::from(call.read::<EpollEvent>(3)?)),
    };
    call.host(libc::SYS_epoll_ctl, [epfd, op, fd, event.as_ref().map_or(0, host::ptr)])
}

/// `int epoll_wait(int epfd, struct epoll_event *events, int max, int milliseconds)`.
pub(crate) fn epoll_wait(call: &mut Call<'_>) -> Result {
    epoll(call, None, libc::SYS_epoll_pwait)
}

/// `int epoll_pwait(int epfd, struct epoll_event *events, int max, int milliseconds, const sigset_t *mask, size_t size)`.
pub(crate) fn epoll_pwait(call: &mut Call<'_>) -> Result {
    let mask = sigset(call.addr(4), call.args[5])?;
    epoll(call, mask, libc::SYS_epoll_pwait)
}

/// `int epoll_pwait2(int epfd, struct epoll_event *events, int max, const struct timespec *limit, const sigset_t *mask,
/// size_t size)`.
pub(crate) fn epoll_pwait2(call: &mut Call<'_>) -> Result {
    let mask = sigset(call.addr(4), call.args[5])?;
    epoll(call, mask, libc::SYS_epoll_pwait2)
}

/// Most events taken from the kernel at once; a program that asks for more gets the rest with its next call.
const MAX_EVENTS: u64 = 1 << 16;

/// Waits by the host's call `nr` and hands on the events in the guest's layout.
fn epoll(call: &mut Call<'_>, mask: Option<u64>, nr: libc::c_long) -> Result {
    let max = call.int(2);
    if max <= 0 {
        return Err(Errno::EINVAL);
    }
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; (max as u64).min(MAX_EVENTS) as usize];
    let (buffer, len) = (host::out(&mut events[..]), events.len() as u64);
    let [epfd, _, _, limit, ..] = call.args;
    let count = masked(call, mask, nr, |mask| [epfd, buffer, len, limit, mask, 8])?;
    let found: Vec<EpollEvent> = events[..count as usize].iter().map(|&e| e.into()).collect();
    access::write_bytes(call.addr(1), bytemuck::cast_slice(&found))?;
    Ok(count)
}

/// `int eventfd(unsigned count)`.
pub(crate) fn eventfd(call: &mut Call<'_>) -> Result {
    call.host(libc::SYS_eventfd2, [call.args[0], 0])
}

/// `int inotify_init(void)`.
pub(crate) fn inotify_init(call: &mut Call<'_>) -> Result {
    call.host(libc::SYS_inotify_init1, [0])
}
