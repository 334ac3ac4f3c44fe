//! What belongs to no subject: names.

use crate::call::Call;
use crate::host::{self, Zeroed};
use calque_runtime::access;
use nix::errno::Errno;

type Result = std::result::Result<u64, Errno>;

/// `int uname(struct utsname *name)`: the host's, with the guest's machine.
pub(crate) fn uname(call: &mut Call<'_>) -> Result {
    let mut name = libc::utsname::zeroed();
    call.host(libc::SYS_uname, [host::out(&mut name)])?;
    name.machine = [0; 65];
    for (to, from) in name.machine.iter_mut().zip(b"x86_64") {
        *to = *from as libc::c_char;
    }
    let fields = [name.sysname, name.nodename, name.release, name.version, name.machine, name.domainname];
    access::write_bytes(call.addr(0), bytemuck::cast_slice(&fields))?;
    Ok(0)
}
