//! What differs between hosts.

#[cfg(any(target_arch = "aarch64", test))]
pub(crate) mod aarch64;
#[cfg(target_arch = "aarch64")]
use aarch64 as host;
#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
use x86_64 as host;

/// `fn host_number(name, guest_number) -> Option<u32>`: the host's number of a call, if it has it.
pub(crate) use host::host_number;

/// O_DIRECT, O_LARGEFILE, O_DIRECTORY and O_NOFOLLOW of the host's kernel.
pub(crate) use host::OPEN_FLAGS;

/// The host's `struct semid64_ds`.
pub(crate) use host::HostSemidDs;

/// `fn semid_to_guest(HostSemidDs) -> SemidDs` and back.
pub(crate) use host::{semid_to_guest, semid_to_host};
