//! System calls of the host.
//!
//! # Safety
//! A system call can do anything to this process. What keeps it harmless: pointers come from `Call`, which has
//! refused everything outside the guest's part of the address space, or point to live Rust values of the layout
//! the call wants; calls that map, unmap or protect memory are made by `GuestMap` only; calls that end, fork or
//! replace the process are made by the runtime only.

#![allow(unsafe_code)]

use nix::errno::Errno;

/// Six arguments, the missing ones 0.
pub(crate) fn six<const N: usize>(args: [u64; N]) -> [u64; 6] {
    let mut all = [0; 6];
    all[..N].copy_from_slice(&args);
    all
}

/// Makes a call that does not sleep.
pub(crate) fn quick<const N: usize>(nr: libc::c_long, args: [u64; N]) -> Result<u64, Errno> {
    let [a, b, c, d, e, f] = six(args);
    // SAFETY: see the module.
    let result = unsafe { libc::syscall(nr, a, b, c, d, e, f) };
    if result == -1 { Err(Errno::last()) } else { Ok(result as u64) }
}

/// An argument that is a pointer to a Rust value, which the kernel reads.
pub(crate) fn ptr<T: ?Sized>(value: &T) -> u64 {
    std::ptr::from_ref(value).cast::<u8>() as u64
}

/// An argument that is a pointer to a Rust value, which the kernel writes.
pub(crate) fn out<T: ?Sized>(value: &mut T) -> u64 {
    std::ptr::from_mut(value).cast::<u8>() as u64
}

/// All bytes zero: for structures that the kernel fills.
pub(crate) trait Zeroed: Sized {
    fn zeroed() -> Self {
        // SAFETY: implemented for C structures of integers only.
        unsafe { std::mem::zeroed() }
    }
}

impl Zeroed for libc::stat {}
impl Zeroed for libc::utsname {}
