//! `struct semid64_ds`: x86-64 pads each time to two words (arch/x86/include/uapi/asm/sembuf.h), AArch64 does not
//! (asm-generic/sembuf.h; `arch/aarch64.rs`).

use super::layout;
use bytemuck::{AnyBitPattern, NoUninit};

/// x86-64's `struct semid64_ds`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, AnyBitPattern, NoUninit)]
#[repr(C)]
pub(crate) struct SemidDs {
    /// `struct ipc64_perm`, the same on both.
    pub sem_perm: [u64; 6],
    pub sem_otime: i64,
    pub unused1: u64,
    pub sem_ctime: i64,
    pub unused2: u64,
    pub sem_nsems: u64,
    pub unused3: [u64; 2],
}

layout!(SemidDs, size 104, sem_otime 48, sem_ctime 64, sem_nsems 80);
