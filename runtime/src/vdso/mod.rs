//! The guest's vDSO: a shared object of ours in place of the kernel's, so that reading a clock is not a system call.
//!
//! The kernel maps such an object into every process and names its address in the auxiliary vector (AT_SYSINFO_EHDR); C
//! libraries look `__vdso_clock_gettime` and its like up there and call them as functions. The host's own object is no use to a guest:
//! it lies among the translator's memory, belongs to the wrong processor on AArch64, and reads time past the gate.
//!
//! Ours is x86-64 code like any other, translated by whatever engine runs the guest. It asks for the time the way guests of
//! hypervisors do, with a CPUID leaf ([`crate::cpuid::CLOCK_LEAF`]): every engine hands CPUID to `gate.rs` already, without
//! leaving generated code, so time still passes the one gate and can be recorded. Where nothing is, units call the host's object
//! at that instruction (`backend::identical`, `unit/clock.rs`). Which cpu a thread runs on comes from RDTSCP.
//!
//! | file       | what                                                     |
//! |------------|----------------------------------------------------------|
//! | `code.rs`  | the functions, as bytes beside their assembly            |
//! | `image.rs` | the ELF file around them: symbols, versions, unwind rows |
//!
//! Invariants:
//! 1. The image is the same in every process, and lies at [`VDSO_BASE`]: translations of it can be kept.
//! 2. Symbols have the version LINUX_2.6 and both of their names, as the kernel's (`arch/x86/entry/vdso/vdso.lds.S`).
//! 3. Every instruction of it has an unwind row: a thread may be interrupted anywhere.
//! 4. Around CPUID, which `mov eax` is right in front of, it keeps nothing in R9 to R11, in flags, or below the stack pointer: units change them.

mod code;
mod image;

use crate::access;
use crate::memory::{GuestMap, VDSO_BASE};
use calque_ir::GuestAddr;
use calque_ir::addr::GUEST_PAGE;
use nix::errno::Errno;

/// Maps the vDSO; its address, for AT_SYSINFO_EHDR.
pub(crate) fn map(memory: &GuestMap) -> Result<GuestAddr, Errno> {
    let image = image::build();
    let base = GuestAddr(VDSO_BASE);
    let len = (image.len() as u64).next_multiple_of(GUEST_PAGE);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    memory.mmap(base, len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)?;
    access::write_bytes(base, &image)?;
    memory.mprotect(base, len, libc::PROT_READ | libc::PROT_EXEC)?;
    memory.set_name(base, len, "[vdso]");
    Ok(base)
}
