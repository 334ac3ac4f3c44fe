//! The only place that turns a guest address into a pointer.
//!
//! # Safety
//! Guest memory is not Rust's: it changes under our feet (other guest threads, the kernel) and may fault. It is only
//! touched by the assembly primitives of `arch`, whose faults the host signal handler turns into an error
//! (`fault.rs`), or by the kernel, given a raw pointer.

#![allow(unsafe_code)]

use crate::arch;
use crate::memory::is_guests;
use crate::profile;
use crate::thread::Access;
use bytemuck::{AnyBitPattern, NoUninit};
use calque_ir::interp::Host;
use calque_ir::state::V128;
use calque_ir::{CpuState, GuestAddr, Helper, RmwOp, Type};
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
        Some(end) if is_guests(addr.0, end) => Ok(()),
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
    let left = unsafe { arch::copy(buf.as_mut_ptr(), addr.0 as *const u8, buf.len()) };
    done(addr, buf.len(), left, Access::Read)
}

/// Copies `bytes` into guest memory.
pub fn write_bytes(addr: GuestAddr, bytes: &[u8]) -> Result<(), Fault> {
    check(addr, bytes.len(), Access::Write)?;
    // SAFETY: `bytes` is ours; the guest side is covered by the fixup table.
    let left = unsafe { arch::copy(addr.0 as *mut u8, bytes.as_ptr(), bytes.len()) };
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

/// Guest memory as the interpreter sees it.
///
/// Unlike system calls, instructions are not kept away from the translator's memory: generated code could not be
/// either, and a program that reaches there by accident has no way to know the addresses.
pub struct GuestMemory {
    /// Accesses must keep the guest's order between threads.
    pub ordered: bool,
}

impl GuestMemory {
    #[inline(always)]
    fn loaded<T>(&self, result: Result<T, ()>, addr: u64) -> Result<T, Fault> {
        if arch::WEAK_ORDER && self.ordered {
            arch::fence_after_load();
        }
        faulted(result, addr, Access::Read)
    }

    #[inline(always)]
    fn before_store(&self) {
        if arch::WEAK_ORDER && self.ordered {
            arch::fence_before_store();
        }
    }
}

fn faulted<T>(result: Result<T, ()>, addr: u64, access: Access) -> Result<T, Fault> {
    result.map_err(|()| Fault { addr: GuestAddr(addr), access })
}

/// Picks the primitive for an integer's width and widens its result.
macro_rules! by_width {
    ($bytes:expr, $f8:ident, $f16:ident, $f32:ident, $f64:ident, $addr:expr $(, $value:expr)*) => {
        // SAFETY: guarded accesses to guest memory; see the module.
        unsafe {
            match $bytes {
                1 => arch::$f8($addr $(, $value as u8)*).map(u64::from),
                2 => arch::$f16($addr $(, $value as u16)*).map(u64::from),
                4 => arch::$f32($addr $(, $value as u32)*).map(u64::from),
                _ => arch::$f64($addr $(, $value)*),
            }
        }
    };
}

impl Host for GuestMemory {
    type Fault = Fault;

    #[inline(always)]
    fn load(&mut self, addr: u64, bytes: u32) -> Result<u64, Fault> {
        self.loaded(by_width!(bytes, load8, load16, load32, load64, addr), addr)
    }

    #[inline(always)]
    fn load128(&mut self, addr: u64) -> Result<V128, Fault> {
        // SAFETY: as above.
        self.loaded(unsafe { arch::load128(addr) }, addr)
    }

    #[inline(always)]
    fn store(&mut self, addr: u64, bytes: u32, value: u64) -> Result<(), Fault> {
        self.before_store();
        // SAFETY: as above.
        let result = unsafe {
            match bytes {
                1 => arch::store8(addr, value as u8),
                2 => arch::store16(addr, value as u16),
                4 => arch::store32(addr, value as u32),
                _ => arch::store64(addr, value),
            }
        };
        faulted(result, addr, Access::Write)
    }

    #[inline(always)]
    fn store128(&mut self, addr: u64, value: V128) -> Result<(), Fault> {
        self.before_store();
        // SAFETY: as above.
        faulted(unsafe { arch::store128(addr, value) }, addr, Access::Write)
    }

    fn rmw(&mut self, op: RmwOp, ty: Type, addr: u64, value: u64) -> Result<u64, Fault> {
        let bytes = ty.bytes();
        match op {
            RmwOp::Xchg => {
                return faulted(by_width!(bytes, xchg8, xchg16, xchg32, xchg64, addr, value), addr, Access::Write);
            }
            RmwOp::Add => {
                return faulted(by_width!(bytes, add8, add16, add32, add64, addr, value), addr, Access::Write);
            }
            RmwOp::Sub => {
                let negated = value.wrapping_neg();
                return faulted(by_width!(bytes, add8, add16, add32, add64, addr, negated), addr, Access::Write);
            }
            RmwOp::And | RmwOp::Or | RmwOp::Xor => {}
        }
        let mut old = self.load(addr, bytes)?;
        loop {
            let new = op.apply(old, value);
            let seen = faulted(by_width!(bytes, cas8, cas16, cas32, cas64, addr, old, new), addr, Access::Write)?;
            if seen == old {
                return Ok(old);
            }
            old = seen;
        }
    }

    fn cas(&mut self, ty: Type, addr: u64, expected: V128, new: V128) -> Result<V128, Fault> {
        if ty.is_vector() {
            // SAFETY: as above.
            return faulted(unsafe { arch::cas128(addr, expected, new) }, addr, Access::Write);
        }
        let old = by_width!(ty.bytes(), cas8, cas16, cas32, cas64, addr, expected[0], new[0]);
        Ok([faulted(old, addr, Access::Write)?, 0])
    }

    fn fence(&mut self) {
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    }

    fn count(&mut self, cpu: &mut CpuState, counter: u32) {
        profile::bump(cpu, counter);
    }

    fn helper(&mut self, cpu: &mut CpuState, helper: Helper, a: u64, b: u64, c: u64) -> u64 {
        match helper {
            Helper::ProfileCall | Helper::ProfileReturn | Helper::ProfileJump => profile::helper(cpu, helper, a, b, c),
            _ => crate::gate::helper(cpu, helper, a, b, c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::GuestMap;

    /// Two pages of which only the first is mapped.
    fn edge() -> (GuestMap, GuestAddr) {
        crate::signal::host::init();
        let map = GuestMap::new().unwrap();
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let start = map.mmap(GuestAddr(0), 8192, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0).unwrap();
        map.munmap(start.wrapping_add(4096), 4096).unwrap();
        (map, start)
    }

    #[test]
    fn copies_stop_at_the_edge() {
        let (_map, start) = edge();
        for len in [1, 7, 8, 100, 600, 4000] {
            let bytes: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let mut back = vec![0; len];
            let last = start.wrapping_add((4096 - len) as u64);
            write_bytes(last, &bytes).unwrap();
            read_bytes(last, &mut back).unwrap();
            assert_eq!(bytes, back);
            let beyond = Fault { addr: start.wrapping_add(4096), access: Access::Write };
            let fault = write_bytes(last.wrapping_add(1), &bytes).unwrap_err();
            assert!(fault.addr <= beyond.addr && fault.addr.0 > beyond.addr.0 - 8, "{len}: {fault:?}");
        }
    }

    #[test]
    fn strings_end_at_nul_edge_or_limit() {
        let (_map, start) = edge();
        write_bytes(start, b"name\0").unwrap();
        assert_eq!(read_cstr(start, 100), Ok(b"name".to_vec()));
        assert_eq!(read_cstr(start, 3), Err(Errno::ENAMETOOLONG));
        write_bytes(start.wrapping_add(4093), b"end").unwrap();
        assert_eq!(read_cstr(start.wrapping_add(4093), 100), Err(Errno::EFAULT));
        write_bytes(start, &[b'x'; 1000]).unwrap();
        assert_eq!(read_cstr(start, 500), Err(Errno::ENAMETOOLONG));
    }

    #[test]
    fn addresses_beyond_the_guest_are_refused() {
        use crate::memory::GUEST_END;
        let local = 0u8;
        for addr in [&raw const local as u64, GUEST_END, GUEST_END - 3, u64::MAX - 1, 1 << 63] {
            assert_eq!(read::<u32>(GuestAddr(addr)).unwrap_err().addr, GuestAddr(addr));
        }
    }

    #[test]
    fn atomics_of_every_width_and_alignment() {
        let (_map, start) = edge();
        let mut memory = GuestMemory { ordered: true };
        for ty in [Type::I8, Type::I16, Type::I32, Type::I64] {
            let mask = u64::MAX >> (64 - ty.bits());
            for offset in 0..20 {
                let at = start.wrapping_add(offset);
                write(at, &[0x1122_3344_5566_7788u64, 0]).unwrap();
                let old = 0x1122_3344_5566_7788 & mask;
                let stored = |memory: &mut GuestMemory| memory.load(at.0, ty.bytes()).unwrap();
                assert_eq!(memory.rmw(RmwOp::Add, ty, at.0, 0xf0), Ok(old));
                assert_eq!(stored(&mut memory), old.wrapping_add(0xf0) & mask);
                assert_eq!(memory.rmw(RmwOp::Sub, ty, at.0, 0xf0), Ok(old.wrapping_add(0xf0) & mask));
                assert_eq!(memory.rmw(RmwOp::Xor, ty, at.0, 0xff), Ok(old));
                assert_eq!(memory.rmw(RmwOp::Xchg, ty, at.0, 3), Ok(old ^ 0xff));
                assert_eq!(memory.cas(ty, at.0, [4, 0], [9, 0]), Ok([3, 0]));
                assert_eq!(memory.cas(ty, at.0, [3, 0], [9, 0]), Ok([3, 0]));
                assert_eq!(stored(&mut memory), 9);
                // Neighbours are untouched.
                assert_eq!(read::<u8>(at.wrapping_add(8)).unwrap(), 0);
            }
        }
        let at = start.0 + 64;
        memory.store128(at, [1, 2]).unwrap();
        assert_eq!(memory.cas(Type::V128, at, [1, 2], [3, 4]), Ok([1, 2]));
        assert_eq!(memory.load128(at), Ok([3, 4]));
        assert!(memory.load(start.0 + 4090, 8).is_err());
        assert!(memory.rmw(RmwOp::Add, Type::I64, start.0 + 8192, 1).is_err());
    }
}
