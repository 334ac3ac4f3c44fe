//! What differs between hosts.

#[cfg(any(target_arch = "aarch64", test))]
pub mod aarch64;
#[cfg(target_arch = "aarch64")]
use aarch64 as host;
#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
use x86_64 as host;

/// `fn host_number(name, guest_number) -> Option<u32>`: the host's number of a call, if it has it.
pub(crate) use host::host_number;
