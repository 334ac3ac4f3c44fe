//! What differs between hosts, one file each with the same names. The only place that asks which machine
//! Calque itself was compiled for; code generation asks a [`crate::HostIsa`] value instead.
//!
//! - `enter(cpu, code)`: the trampoline from Rust into generated code; see `abi::enter`. Its other ends, which each file defines in
//!   assembly, are declared here.
//! - `sync_icache(code, written)`: makes bytes written through one mapping visible to instruction fetch in another.
//! - `native_features()`: Cranelift's ISA settings that this machine supports.
//! - `load_fp_control`, `save_fp_control`: the guest's MXCSR into and out of the host's FP control register.
//! - `expresses(mxcsr)`: whether that register can hold the control bits that MXCSR has, all exceptions being masked.
//! - `identical`: tier 0 of x86-64 hosts.
//! - `accelerated(helper)`: an entry point that does the same with instructions of this machine.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "aarch64")]
mod aarch64_crypto;
#[cfg(target_arch = "aarch64")]
mod aarch64_tier0;
#[cfg(target_arch = "x86_64")]
pub mod identical;
#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
mod x86_64_crypto;

#[cfg(target_arch = "aarch64")]
pub(crate) use aarch64::*;
#[cfg(target_arch = "aarch64")]
pub(crate) use aarch64_crypto::accelerated;
#[cfg(target_arch = "aarch64")]
pub(crate) use aarch64_tier0::tier0_stub;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::*;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64_crypto::accelerated;

// SAFETY: only their addresses are taken.
#[allow(unsafe_code)]
unsafe extern "C" {
    fn calque_fault_return();
    fn calque_exit_link();
    fn calque_exit_leave();
    fn calque_exit_leave_passing();
    fn calque_exit_resolve();
}

/// Where a signal handler sends a thread that has faulted in generated code.
pub(crate) fn fault_return() -> usize {
    calque_fault_return as *const () as usize
}

/// Where the unlinked stub of an exit goes.
pub(crate) fn exit_link() -> usize {
    calque_exit_link as *const () as usize
}

/// Where exits go whose guest registers are all in `CpuState`.
pub(crate) fn exit_leave() -> usize {
    calque_exit_leave as *const () as usize
}

/// The same for exits that pass `abi::ARGUMENTS` in host registers.
pub(crate) fn exit_leave_passing() -> usize {
    calque_exit_leave_passing as *const () as usize
}

/// Where computed jumps go that the jump cache does not know: `abi::resolve`.
pub(crate) fn exit_resolve() -> usize {
    calque_exit_resolve as *const () as usize
}
