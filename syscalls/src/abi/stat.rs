//! `struct stat` (arch/x86/include/uapi/asm/stat.h; AArch64 has asm-generic/stat.h's, 128 bytes, other order).

use super::layout;
use bytemuck::{AnyBitPattern, NoUninit};

/// x86-64's `struct stat`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, AnyBitPattern, NoUninit)]
#[repr(C)]
pub(crate) struct Stat {
    pub st_dev: u64,
    pub st_ino: u64,
    pub st_nlink: u64,
    pub st_mode: u32,
    pub st_uid: u32,
    pub st_gid: u32,
    pub pad: u32,
    pub st_rdev: u64,
    pub st_size: i64,
    pub st_blksize: i64,
    pub st_blocks: i64,
    pub st_atime: i64,
    pub st_atime_nsec: u64,
    pub st_mtime: i64,
    pub st_mtime_nsec: u64,
    pub st_ctime: i64,
    pub st_ctime_nsec: u64,
    pub unused: [i64; 3],
}

layout!(Stat, size 144, st_nlink 16, st_mode 24, st_rdev 40, st_size 48, st_blocks 64, st_atime 72, st_ctime 104);

impl From<&libc::stat> for Stat {
    #[allow(clippy::unnecessary_cast)] // the host's field types differ between hosts
    fn from(host: &libc::stat) -> Stat {
        Stat {
            st_dev: host.st_dev as u64,
            st_ino: host.st_ino as u64,
            st_nlink: host.st_nlink as u64,
            st_mode: host.st_mode,
            st_uid: host.st_uid,
            st_gid: host.st_gid,
            pad: 0,
            st_rdev: host.st_rdev as u64,
            st_size: host.st_size,
            st_blksize: host.st_blksize as i64,
            st_blocks: host.st_blocks,
            st_atime: host.st_atime,
            st_atime_nsec: host.st_atime_nsec as u64,
            st_mtime: host.st_mtime,
            st_mtime_nsec: host.st_mtime_nsec as u64,
            st_ctime: host.st_ctime,
            st_ctime_nsec: host.st_ctime_nsec as u64,
            unused: [0; 3],
        }
    }
}
