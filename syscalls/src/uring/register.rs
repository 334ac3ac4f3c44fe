//! `io_uring_register`: what a ring is to know beforehand.

use super::{Result, entry};
use crate::abi::uring::{OP_SUPPORTED, PROBE, PROBE_OP};
use crate::call::{Call, guests_own};
use calque_runtime::memory::is_guest_address;
use calque_runtime::{GuestAddr, access, hidden};
use nix::errno::Errno;

/// What the argument of a request is, and what is to be done about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// Nothing that concerns Calque.
    Plain,
    /// So many bytes that the kernel also writes.
    Written(u64),
    /// `struct iovec[n]`: memory that the kernel reads and writes from now on, whatever becomes of its mapping.
    Buffers,
    /// `int[n]`.
    Files,
    /// `struct io_uring_files_update`: offset, `int[n]`.
    FilesUpdate,
    /// `struct io_uring_rsrc_register`: number, flags, reserved, data, tags.
    Buffers2,
    Files2,
    /// `struct io_uring_rsrc_update2`: offset, reserved, data, tags, number.
    BuffersUpdate,
    FilesUpdate2,
    /// `struct io_uring_probe` with n operations.
    Probe,
    /// `struct io_uring_buf_reg`: a ring of buffers in the guest's memory, to which the guest adds at any time.
    BufferRing,
    /// EINVAL, as from a kernel without it.
    No,
}

use Kind::*;

/// `IORING_REGISTER_*` by number, up to Linux 6.18.
#[rustfmt::skip]
static KINDS: &[(&str, Kind)] = &[
    ("BUFFERS",             Buffers),
    ("UNREGISTER_BUFFERS",  Plain),
    ("FILES",               Files),
    ("UNREGISTER_FILES",    Plain),
    ("EVENTFD",             Files),
    ("UNREGISTER_EVENTFD",  Plain),
    ("FILES_UPDATE",        FilesUpdate),
    ("EVENTFD_ASYNC",       Files),
    ("PROBE",               Probe),
    ("PERSONALITY",         Plain),
    ("UNREGISTER_PERSONALITY", Plain),
    ("RESTRICTIONS",        Plain),
    ("ENABLE_RINGS",        Plain),
    ("FILES2",              Files2),
    ("FILES_UPDATE2",       FilesUpdate2),
    ("BUFFERS2",            Buffers2),
    ("BUFFERS_UPDATE",      BuffersUpdate),
    ("IOWQ_AFF",            Plain),
    ("UNREGISTER_IOWQ_AFF", Plain),
    ("IOWQ_MAX_WORKERS",    Written(8)),
    ("RING_FDS",            No), // numbers in place of descriptors, of which Calque does not know what they are
    ("UNREGISTER_RING_FDS", No),
    ("PBUF_RING",           BufferRing),
    ("UNREGISTER_PBUF_RING", Plain),
    ("SYNC_CANCEL",         Plain),
    ("FILE_ALLOC_RANGE",    Plain),
    ("PBUF_STATUS",         Written(40)),
    ("NAPI",                Written(16)),
    ("UNREGISTER_NAPI",     Written(16)),
    ("CLOCK",               Plain),
    ("CLONE_BUFFERS",       Plain),
    ("SEND_MSG_RING",       No), // an entry that no ring has
    ("ZCRX_IFQ",            No), // network memory
    ("RESIZE_RINGS",        No), // other memory for a ring
    ("MEM_REGION",          No),
];

/// `int io_uring_register(unsigned fd, unsigned request, void *arg, unsigned n)`.
pub(crate) fn register(call: &mut Call<'_>) -> Result {
    let (request, arg, n) = (call.uint(1) as usize, call.args[2], call.uint(3));
    let kind = KINDS.get(request).map_or(No, |row| row.1);
    if !is_guest_address(arg) {
        return Err(Errno::EFAULT);
    }
    admit(call, kind, arg, n)?;
    let result = call.host(libc::SYS_io_uring_register, call.args)?;
    if kind == Probe {
        hide_operations(arg, n)?;
    }
    Ok(result)
}

/// Checks and prepares what a request names.
fn admit(call: &mut Call<'_>, kind: Kind, arg: u64, n: u32) -> Result<()> {
    let word = |i: u64| access::read::<u64>(GuestAddr(arg + 8 * i));
    match kind {
        Plain => {}
        Written(len) => call.will_be_written(GuestAddr(arg), len),
        Probe => call.will_be_written(GuestAddr(arg), PROBE + PROBE_OP * u64::from(n)),
        Buffers => leave_buffers(call, arg, n)?,
        Files => check_files(arg, n)?,
        FilesUpdate => check_files(word(1)?, n)?,
        Buffers2 => leave_buffers(call, word(2)?, word(0)? as u32)?,
        Files2 => check_files(word(2)?, word(0)? as u32)?,
        BuffersUpdate => leave_buffers(call, word(1)?, word(3)? as u32)?,
        FilesUpdate2 => check_files(word(1)?, word(3)? as u32)?,
        BufferRing => buffer_ring(call, word(0)?, word(1)?)?,
        No => return Err(Errno::EINVAL),
    }
    Ok(())
}

/// The kernel writes to the buffers of a `struct iovec[n]` when it pleases.
fn leave_buffers(call: &Call<'_>, iov: u64, n: u32) -> Result<()> {
    /// `IORING_MAX_REG_BUFFERS`.
    const MAX: u32 = 1 << 14;
    if iov == 0 {
        return Ok(());
    }
    for [base, len] in access::read_slice::<[u64; 2]>(GuestAddr(iov), n.min(MAX) as usize)? {
        if base != 0 && len != 0 {
            call.process().leave_to_kernel(GuestAddr(base), guests_own(base, len)?);
        }
    }
    Ok(())
}

/// Refuses Calque's own among `n` descriptors.
pub(super) fn check_files(at: u64, n: u32) -> Result<()> {
    /// `IORING_MAX_FIXED_FILES`.
    const MAX: u32 = 1 << 20;
    if at == 0 {
        return Ok(());
    }
    let files = access::read_slice::<i32>(GuestAddr(at), n.min(MAX) as usize)?;
    if files.into_iter().any(hidden::is_hidden) { Err(Errno::EBADF) } else { Ok(()) }
}

/// A ring of buffers at `at`: number of entries, group, flags in `what`. The guest adds buffers by stores, so any memory may be one.
fn buffer_ring(call: &Call<'_>, at: u64, what: u64) -> Result<()> {
    /// `IOU_PBUF_RING_MMAP`: the kernel's memory, to be mapped from the descriptor.
    const MMAP: u64 = 1;
    if what >> 48 & MMAP != 0 {
        return Err(Errno::EINVAL);
    }
    let entries = what & 0xffff_ffff;
    call.process().leave_to_kernel(GuestAddr(at), guests_own(at, 16 * entries)?);
    call.process().leave_all_to_kernel();
    Ok(())
}

/// Takes operations that guests cannot submit out of what a probe has found.
fn hide_operations(probe: u64, n: u32) -> Result<()> {
    let [last, count] = access::read::<[u8; 2]>(GuestAddr(probe))?;
    access::write(GuestAddr(probe), &[last.min(entry::last()), count])?;
    for i in 0..u64::from(n.min(count.into())) {
        let flags = GuestAddr(probe + PROBE + PROBE_OP * i + 2);
        if !entry::is_offered(i as usize) {
            access::write(flags, &(access::read::<u16>(flags)? & !OP_SUPPORTED))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_stand_at_their_numbers() {
        for (number, name) in
            [(0, "BUFFERS"), (8, "PROBE"), (16, "BUFFERS_UPDATE"), (22, "PBUF_RING"), (34, "MEM_REGION")]
        {
            assert_eq!(KINDS[number].0, name);
        }
        // A descriptor or memory may only be named where it is checked.
        assert!(
            KINDS
                .iter()
                .all(|(name, kind)| *kind != Plain || !name.starts_with("FILES") && !name.starts_with("BUFFERS"))
        );
    }
}
