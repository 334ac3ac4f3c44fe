//! The only place that turns a guest address into a pointer.
//!
//! # Safety
//! Guest memory is not Rust's: it changes under our feet (other guest threads, the kernel) and may fault. It is only
//! touched by the assembly primitives of `arch`, whose faults the host signal handler turns into an error
//! (`fault.rs`), or by the kernel, given a raw pointer.

#![allow(unsafe_code)]

use crate::memory::GUEST_END;
use crate::thread::Access;
use bytemuck::{AnyBitPattern, NoUninit};
use calque_ir::GuestAddr;
use nix::errno::Errno;

/// A guest access that could not be made: EFAULT for a system call, a page fault for an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("cannot access guest memory at {addr}")]
pub struct Fault {
    /// The first byte that could not be accessed, as far as known.
    pub addr: GuestAddr,
    pub access: Access,
}

impl From<Fault> for Errno {
    fn from(_: Fault) -> Errno {
        Errno::EFAULT
    }
}

/// Checks that `len` bytes at `addr` are the guest's to name (mapped or not).
pub fn check(addr: GuestAddr, len: usize, access: Access) -> Result<(), Fault> {
    match addr.0.checked_add(len as u64) {
        Some(end) if end <= GUEST_END => Ok(()),
        _ => Err(Fault { addr, access }),
    }
}

/// A pointer to hand to the *kernel*, which answers EFAULT by itself where nothing is mapped. A buffer that the
/// kernel writes needs `Process::prepare_kernel_write` first.
pub fn kernel_ptr<T>(addr: GuestAddr, len: usize) -> Result<*mut T, Fault> {
    if addr.0 == 0 {
        return Ok(std::ptr::null_mut());
    }
    check(addr, len, Access::Read)?;
    Ok(addr.0 as *mut T)
}

/// Copies guest memory into `buf`.
pub fn read_bytes(addr: GuestAddr, buf: &mut [u8]) -> Result<(), Fault> {
    check(addr, buf.len(), Access::Read)?;
    // SAFETY: `buf` is ours; the guest side is covered by the fixup table.
    let left = unsafe { crate::arch::copy(buf.as_mut_ptr(), addr.0 as *const u8, buf.len()) };
    done(addr, buf.len(), left, Access::Read)
}

/// Copies `bytes` into guest memory.
pub fn write_bytes(addr: GuestAddr, bytes: &[u8]) -> Result<(), Fault> {
    check(addr, bytes.len(), Access::Write)?;
    // SAFETY: `bytes` is ours; the guest side is covered by the fixup table.
    let left = unsafe { crate::arch::copy(addr.0 as *mut u8, bytes.as_ptr(), bytes.len()) };
    done(addr, bytes.len(), left, Access::Write)
}

fn done(addr: GuestAddr, len: usize, left: usize, access: Access) -> Result<(), Fault> {
    if left == 0 { Ok(()) } else { Err(Fault { addr: addr.wrapping_add((len - left) as u64), access }) }
}

/// Reads a `T` of the guest's ABI.
pub fn read<T: AnyBitPattern + NoUninit>(addr: GuestAddr) -> Result<T, Fault> {
    let mut value = T::zeroed();
    read_bytes(addr, bytemuck::bytes_of_mut(&mut value))?;
    Ok(value)
}

/// Writes a `T` of the guest's ABI.
pub fn write<T: NoUninit>(addr: GuestAddr, value: &T) -> Result<(), Fault> {
    write_bytes(addr, bytemuck::bytes_of(value))
}

/// Reads `count` consecutive `T`s.
pub fn read_slice<T: AnyBitPattern + NoUninit>(addr: GuestAddr, count: usize) -> Result<Vec<T>, Fault> {
    let bytes = count.checked_mul(size_of::<T>()).ok_or(Fault { addr, access: Access::Read })?;
    check(addr, bytes, Access::Read)?;
    let mut values = vec![T::zeroed(); count];
    read_bytes(addr, bytemuck::cast_slice_mut(&mut values))?;
    Ok(values)
}

/// Reads up to a NUL, which is not part of the result. At most `max` bytes: ENAMETOOLONG beyond, EFAULT where memory
/// ends before.
pub fn read_cstr(addr: GuestAddr, max: usize) -> Result<Vec<u8>, Errno> {
    let mut text = Vec::new();
    let mut at = addr;
    while text.len() <= max {
        // Never past a page's end: the string may end there, and the next page not exist.
        let mut chunk = [0u8; 256];
        let room = (4096 - at.0 % 4096).min(chunk.len() as u64) as usize;
        read_bytes(at, &mut chunk[..room])?;
        if let Some(end) = chunk[..room].iter().position(|&b| b == 0) {
            text.extend_from_slice(&chunk[..end]);
            return if text.len() <= max { Ok(text) } else { Err(Errno::ENAMETOOLONG) };
        }
        text.extend_from_slice(&chunk[..room]);
        at = at.wrapping_add(room as u64);
    }
    Err(Errno::ENAMETOOLONG)
}
