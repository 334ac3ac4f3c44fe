//! Memory: everything that changes mappings goes through `GuestMap`, which alone knows what is the guest's.

use crate::call::Call;
use crate::{table, uring};
use calque_ir::addr::GUEST_PAGE;
use calque_runtime::{GuestAddr, access};
use nix::errno::Errno;

type Result = std::result::Result<u64, Errno>;

/// `void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)`.
pub(crate) fn mmap(call: &mut Call<'_>) -> Result {
    if let Some(at) = uring::mmap(call)? {
        return Ok(at);
    }
    let [_, len, _, _, _, offset] = call.args;
    let at = call.process().mem.mmap(call.addr(0), len, call.int(2), call.int(3), call.int(4), offset)?;
    Ok(at.0)
}

/// `int mprotect(void *addr, size_t len, int prot)`.
pub(crate) fn mprotect(call: &mut Call<'_>) -> Result {
    call.process().mem.mprotect(call.addr(0), call.args[1], call.int(2)).map(|()| 0)
}

/// `int pkey_mprotect(void *addr, size_t len, int prot, int pkey)`. No keys: -1 is plain mprotect.
pub(crate) fn pkey_mprotect(call: &mut Call<'_>) -> Result {
    if call.int(3) == -1 { mprotect(call) } else { Err(Errno::EINVAL) }
}

/// `int munmap(void *addr, size_t len)`.
pub(crate) fn munmap(call: &mut Call<'_>) -> Result {
    call.process().mem.munmap(call.addr(0), call.args[1]).map(|()| 0)
}

/// `void *mremap(void *old, size_t old_len, size_t new_len, int flags, void *new)`.
pub(crate) fn mremap(call: &mut Call<'_>) -> Result {
    let [_, old_len, new_len, ..] = call.args;
    let at = call.process().mem.mremap(call.addr(0), old_len, new_len, call.int(3), call.addr(4))?;
    Ok(at.0)
}

/// `int brk(void *addr)`: returns the new break, or the old one if it cannot move.
pub(crate) fn brk(call: &mut Call<'_>) -> Result {
    Ok(call.process().mem.brk(call.addr(0)).0)
}

/// `int madvise(void *addr, size_t len, int advice)`.
pub(crate) fn madvise(call: &mut Call<'_>) -> Result {
    call.process().mem.madvise(call.addr(0), call.args[1], call.int(2)).map(|()| 0)
}

/// `ssize_t process_madvise(int pidfd, const struct iovec *vec, size_t len, int advice, unsigned flags)`. Advice about
/// another process's memory changes nothing that it could notice: it is taken, and ignored.
pub(crate) fn process_madvise(call: &mut Call<'_>) -> Result {
    let ranges = access::read_slice::<[u64; 2]>(call.addr(1), call.args[2] as usize)?;
    Ok(ranges.iter().map(|[_, len]| len).fold(0, |sum, len| sum.saturating_add(*len)))
}

/// `int msync(void *addr, size_t len, int flags)`.
pub(crate) fn msync(call: &mut Call<'_>) -> Result {
    range_pass(call)
}

/// `int mlock(void *addr, size_t len)` and others that name a range first: as on the host, for the guest's ranges.
pub(crate) fn range_pass(call: &mut Call<'_>) -> Result {
    access::check(call.addr(0), call.args[1] as usize, calque_runtime::thread::Access::Read)
        .map_err(|_| Errno::ENOMEM)?;
    let nr = table::host_number(call.row).ok_or(Errno::ENOSYS)?;
    call.host(nr, call.args)
}

/// `int mlockall(int flags)`, `int munlockall(void)`. Locks nothing: the host would lock Calque's memory, too.
pub(crate) fn mlockall(call: &mut Call<'_>) -> Result {
    const KNOWN: u64 = (libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) as u64;
    let known = call.row.args.is_empty() || call.args[0] != 0 && call.args[0] & !KNOWN == 0;
    if known { Ok(0) } else { Err(Errno::EINVAL) }
}

/// `int mincore(void *addr, size_t len, unsigned char *vec)`. One byte a guest page, also where host pages are larger.
pub(crate) fn mincore(call: &mut Call<'_>) -> Result {
    let [addr, len, vec, ..] = call.args;
    if addr % GUEST_PAGE != 0 {
        return Err(Errno::EINVAL);
    }
    let pages = len.div_ceil(GUEST_PAGE);
    access::check(call.addr(0), len as usize, calque_runtime::thread::Access::Read).map_err(|_| Errno::ENOMEM)?;
    if pages != 0 && !call.process().mem.is_mapped(call.addr(0), len) {
        return Err(Errno::ENOMEM);
    }
    for page in 0..pages {
        // Memory that is mapped is as good as resident to a program that asks.
        access::write(GuestAddr(vec + page), &1u8)?;
    }
    Ok(0)
}
