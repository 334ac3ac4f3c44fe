//! What differs between hosts, one file each with the same names. The only place that asks which machine
//! Calque itself was compiled for; code generation asks a [`crate::HostIsa`] value instead.
//!
//! - `enter(cpu, code)`: the trampoline from Rust into generated code; see `abi::enter`.
//! - `fault_return()`, `exit_link()`, `exit_leave()`: addresses of the other ends of the trampoline.
//! - `sync_icache(code, written)`: makes bytes written through one mapping visible to instruction fetch in another.
//! - `native_features()`: Cranelift's ISA settings that this machine supports.
//! - `load_fp_control`, `save_fp_control`: the guest's MXCSR into and out of the host's FP control register.
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
