//! Open flags (asm-generic/fcntl.h has x86-64's values; arch/arm64/include/uapi/asm/fcntl.h moves four of them)
//! and fcntl commands.

use crate::arch;
use crate::row::Dir;

/// The four flags that move, with the guest's values: O_DIRECT, O_LARGEFILE, O_DIRECTORY, O_NOFOLLOW.
pub(crate) const MOVING: [u32; 4] = [0o40000, 0o100000, 0o200000, 0o400000];

/// Flags with those of `from` replaced by those of `to`; both use the same four bits.
fn moved(flags: u32, from: &[u32; 4], to: &[u32; 4]) -> u32 {
    let stay = flags & !from.iter().fold(0, |all, bit| all | bit);
    from.iter().zip(to).fold(stay, |out, (from, to)| if flags & from != 0 { out | to } else { out })
}

/// Guest open flags as the host's. (`O_TMPFILE` contains `O_DIRECTORY` on both, and moves with it.)
pub(crate) fn open_flags_to_host(guest: u32) -> u32 {
    moved(guest, &MOVING, &arch::OPEN_FLAGS)
}

/// Host open flags as the guest's.
pub(crate) fn open_flags_to_guest(host: u32) -> u32 {
    moved(host, &arch::OPEN_FLAGS, &MOVING)
}

/// Commands of fcntl(2) (asm-generic/fcntl.h, linux/fcntl.h); the same on both hosts.
pub(crate) const F_GETFL: u32 = 3;
pub(crate) const F_SETFL: u32 = 4;
const F_GETLK: u32 = 5;
const F_SETLK: u32 = 6;
pub(crate) const F_SETLKW: u32 = 7;
const F_SETOWN_EX: u32 = 15;
const F_GETOWN_EX: u32 = 16;
const F_GETOWNER_UIDS: u32 = 17;
const F_OFD_GETLK: u32 = 36;
const F_OFD_SETLK: u32 = 37;
pub(crate) const F_OFD_SETLKW: u32 = 38;
/// `F_LINUX_SPECIFIC_BASE` + 11..=14: hints, read and written as u64.
const F_GET_RW_HINT: u32 = 1035;
const F_SET_FILE_RW_HINT: u32 = 1038;

/// The memory that the third argument names.
pub(crate) fn buffer(cmd: u32, at: u64) -> (Dir, u64, u64) {
    match cmd {
        F_GETLK | F_OFD_GETLK => (Dir::Out, at, FLOCK),
        F_SETLK | F_SETLKW | F_OFD_SETLK | F_OFD_SETLKW => (Dir::In, at, FLOCK),
        F_SETOWN_EX => (Dir::In, at, 8),
        F_GETOWN_EX | F_GETOWNER_UIDS => (Dir::Out, at, 8),
        F_GET_RW_HINT..=F_SET_FILE_RW_HINT => (if cmd % 2 == 1 { Dir::Out } else { Dir::In }, at, 8),
        _ => (Dir::In, 0, 0),
    }
}

/// `sizeof(struct flock)`, the same on both hosts.
const FLOCK: u64 = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::aarch64;

    #[test]
    fn open_flags_round_trip() {
        for bit in 0..32 {
            let flag = 1u32 << bit;
            let there = moved(flag, &MOVING, &aarch64::OPEN_FLAGS);
            assert_eq!(moved(there, &aarch64::OPEN_FLAGS, &MOVING), flag, "bit {bit}");
            assert_eq!(open_flags_to_guest(open_flags_to_host(flag)), flag, "bit {bit}");
        }
    }

    #[test]
    fn the_host_knows_its_flags() {
        // asm-generic/fcntl.h: __O_TMPFILE | O_DIRECTORY.
        assert_eq!(open_flags_to_host(0o20200000), libc::O_TMPFILE as u32);
        assert_eq!(open_flags_to_host(0o40000), libc::O_DIRECT as u32);
        assert_eq!(open_flags_to_host(0o400000), libc::O_NOFOLLOW as u32);
    }
}
