//! Page faults that the guest itself serves: `userfaultfd` and its requests.
//!
//! The kernel stops who touches a page that is missing, wherever that happens: in generated code, or in Calque on the guest's behalf. What
//! it waits for is another thread, perhaps one of the guest's. So no thread of Calque's touches such memory while it holds what others need
//! (`GuestMap::serves_faults`).

use crate::abi::userfault::{self, Use};
use crate::call::Call;
use calque_runtime::memory::is_guests;
use calque_runtime::{GuestAddr, access};
use nix::errno::Errno;

type Result = std::result::Result<u64, Errno>;

/// `int userfaultfd(int flags)`.
pub(crate) fn userfaultfd(call: &mut Call<'_>) -> Result {
    let descriptor = call.pass()?;
    call.process().mem.serve_faults();
    Ok(descriptor)
}

/// `int ioctl(int fd, unsigned long request, ...)`.
pub(crate) fn ioctl(call: &mut Call<'_>) -> Result {
    match call.uint(1) {
        userfault::NEW => userfaultfd(call),
        userfault::API => api(call),
        request if userfault::is_request(request) => on_memory(call, request),
        _ => call.pass(),
    }
}

/// `UFFDIO_API`: as of a kernel that has no events.
fn api(call: &mut Call<'_>) -> Result {
    let [_, wanted, _] = call.read::<[u64; 3]>(2)?;
    if wanted & userfault::EVENTS != 0 {
        call.write(2, &[0u64; 3])?;
        return Err(Errno::EINVAL);
    }
    call.pass()?;
    let [api, features, ioctls] = call.read::<[u64; 3]>(2)?;
    call.write(2, &[api, features & !userfault::EVENTS, ioctls])
}

/// A request that names memory, which has to be the guest's.
fn on_memory(call: &mut Call<'_>, request: u32) -> Result {
    for &(at, len, how) in userfault::ranges(request) {
        let word = |i: usize| access::read::<u64>(GuestAddr(call.args[2].wrapping_add(8 * i as u64)));
        let (start, len) = (word(at)?, word(len)?);
        if start.checked_add(len).is_none_or(|end| !is_guests(start, end)) {
            return Err(Errno::EINVAL);
        }
        if how == Use::Changed {
            call.will_be_written(GuestAddr(start), len);
        }
    }
    call.pass()
}
