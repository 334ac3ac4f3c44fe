//! Time. Reading a clock goes through the C library, which asks the host's vDSO instead of its kernel; the calls that
//! AArch64 lacks, by those it has.

use crate::call::{AT_FDCWD, Call};
use crate::host;
use nix::errno::Errno;
use nix::time::ClockId;

type Result = std::result::Result<u64, Errno>;

/// `int clock_gettime(clockid_t clock, struct timespec *now)`.
pub(crate) fn clock_gettime(call: &mut Call<'_>) -> Result {
    let now = nix::time::clock_gettime(ClockId::from_raw(call.int(0)))?;
    call.write(1, &[now.tv_sec(), now.tv_nsec()])
}

/// `int gettimeofday(struct timeval *now, struct timezone *zone)`: the zone is the kernel's affair.
pub(crate) fn gettimeofday(call: &mut Call<'_>) -> Result {
    if call.args[1] != 0 {
        return call.pass();
    }
    let now = nix::time::clock_gettime(ClockId::CLOCK_REALTIME)?;
    if call.args[0] == 0 { Ok(0) } else { call.write(0, &[now.tv_sec(), now.tv_nsec() / 1000]) }
}

/// `time_t time(time_t *t)`.
pub(crate) fn time(call: &mut Call<'_>) -> Result {
    // The coarse clock ticks with the kernel's seconds, as time() does.
    let now = nix::time::clock_gettime(ClockId::CLOCK_REALTIME_COARSE)?.tv_sec();
    if call.args[0] != 0 {
        call.write(0, &now)?;
    }
    Ok(now as u64)
}

/// `unsigned alarm(unsigned seconds)`: what was left of the old one is rounded, never to 0 (kernel/time/itimer.c).
pub(crate) fn alarm(call: &mut Call<'_>) -> Result {
    // struct itimerval: interval and value, each seconds and microseconds.
    let new = [0, 0, i64::from(call.uint(0)), 0];
    let mut old = [0i64; 4];
    call.host(libc::SYS_setitimer, [libc::ITIMER_REAL as u64, host::ptr(&new), host::out(&mut old)])?;
    let [_, _, seconds, micros] = old;
    let up = seconds == 0 && micros != 0 || micros >= 500_000;
    Ok((seconds + i64::from(up)) as u64)
}

/// `int utime(const char *path, const struct utimbuf *times)`: seconds of access and modification.
pub(crate) fn utime(call: &mut Call<'_>) -> Result {
    let times = call.read_opt::<[i64; 2]>(1)?.map(|[access, change]| [access, 0, change, 0]);
    set_times(call, AT_FDCWD, 0, times)
}

/// `int utimes(const char *path, const struct timeval times[2])`.
pub(crate) fn utimes(call: &mut Call<'_>) -> Result {
    let times = timevals(call, 1)?;
    set_times(call, AT_FDCWD, 0, times)
}

/// `int futimesat(int dirfd, const char *path, const struct timeval times[2])`. No path: the descriptor itself.
pub(crate) fn futimesat(call: &mut Call<'_>) -> Result {
    let times = timevals(call, 2)?;
    set_times(call, call.args[0], 1, times)
}

/// Two `struct timeval` as `struct timespec`.
fn timevals(call: &Call<'_>, arg: usize) -> std::result::Result<Option<[i64; 4]>, Errno> {
    let Some([access, access_us, change, change_us]) = call.read_opt::<[i64; 4]>(arg)? else { return Ok(None) };
    let valid = 0..1_000_000;
    if !valid.contains(&access_us) || !valid.contains(&change_us) {
        return Err(Errno::EINVAL);
    }
    Ok(Some([access, access_us * 1000, change, change_us * 1000]))
}

fn set_times(call: &mut Call<'_>, dirfd: u64, path: usize, times: Option<[i64; 4]>) -> Result {
    let times = times.as_ref().map_or(0, host::ptr);
    call.host(libc::SYS_utimensat, [dirfd, call.args[path], times, 0])
}
