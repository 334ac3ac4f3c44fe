//! Sockets: the same on both hosts; only a length that stands in memory needs a look.

use crate::call::Call;
use calque_runtime::access;
use nix::errno::Errno;

/// `int getsockopt(int fd, int level, int name, void *value, int *len)`.
pub(crate) fn getsockopt(call: &mut Call<'_>) -> Result<u64, Errno> {
    let [fd, level, name, value, len, _] = call.args;
    let room = call.read::<u32>(4)?;
    if value != 0 && room != 0 {
        access::check(call.addr(3), room as usize, calque_runtime::thread::Access::Write)?;
        call.will_be_written(call.addr(3), u64::from(room));
    }
    call.host(libc::SYS_getsockopt, [fd, level, name, value, len])
}
