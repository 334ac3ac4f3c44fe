//! `struct semid64_ds`: x86-64 pads each time to two words (arch/x86/include/uapi/asm/sembuf.h), AArch64 does not
//! (asm-generic/sembuf.h).

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

/// asm-generic's, for AArch64 hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, AnyBitPattern, NoUninit)]
#[repr(C)]
pub(crate) struct GenericSemidDs {
    pub sem_perm: [u64; 6],
    pub sem_otime: i64,
    pub sem_ctime: i64,
    pub sem_nsems: u64,
    pub unused: [u64; 2],
}

layout!(GenericSemidDs, size 88, sem_otime 48, sem_ctime 56, sem_nsems 64);

/// The host's.
#[cfg(target_arch = "x86_64")]
pub type HostSemidDs = SemidDs;
/// The host's.
#[cfg(not(target_arch = "x86_64"))]
pub type HostSemidDs = GenericSemidDs;

impl From<GenericSemidDs> for SemidDs {
    fn from(h: GenericSemidDs) -> SemidDs {
        SemidDs {
            sem_perm: h.sem_perm,
            sem_otime: h.sem_otime,
            sem_ctime: h.sem_ctime,
            sem_nsems: h.sem_nsems,
            ..SemidDs::default()
        }
    }
}

impl From<SemidDs> for GenericSemidDs {
    fn from(g: SemidDs) -> GenericSemidDs {
        GenericSemidDs {
            sem_perm: g.sem_perm,
            sem_otime: g.sem_otime,
            sem_ctime: g.sem_ctime,
            sem_nsems: g.sem_nsems,
            ..GenericSemidDs::default()
        }
    }
}
