//! Open flags (asm-generic/fcntl.h has x86-64's values; arch/arm64/include/uapi/asm/fcntl.h moves four of them)
//! and fcntl commands.

use crate::row::Dir;

/// Guest values of the four flags that move.
pub(crate) const O_DIRECT: u32 = 0o40000;
pub(crate) const O_LARGEFILE: u32 = 0o100000;
pub(crate) const O_DIRECTORY: u32 = 0o200000;
pub(crate) const O_NOFOLLOW: u32 = 0o400000;

/// Guest and host value of each flag that moves.
const MOVED: [(u32, u32); 4] = [
    (O_DIRECT, libc::O_DIRECT as u32),
    (O_LARGEFILE, HOST_LARGEFILE),
    (O_DIRECTORY, libc::O_DIRECTORY as u32),
    (O_NOFOLLOW, libc::O_NOFOLLOW as u32),
];

/// glibc says 0 on 64-bit hosts; the kernel's value is what F_GETFL shows.
const HOST_LARGEFILE: u32 = if cfg!(target_arch = "aarch64") { 0o400000 } else { 0o100000 };

/// All the bits that move, which are the same set on both sides.
const MOVED_BITS: u32 = O_DIRECT | O_LARGEFILE | O_DIRECTORY | O_NOFOLLOW;

/// Guest open flags as the host's. (`O_TMPFILE` contains `O_DIRECTORY` on both, and moves with it.)
pub(crate) fn open_flags_to_host(guest: u32) -> u32 {
    MOVED.iter().fold(guest & !MOVED_BITS, |out, &(g, h)| if guest & g != 0 { out | h } else { out })
}

/// Host open flags as the guest's.
pub(crate) fn open_flags_to_guest(host: u32) -> u32 {
    MOVED.iter().fold(host & !MOVED_BITS, |out, &(g, h)| if host & h != 0 { out | g } else { out })
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

    #[test]
    fn open_flags_round_trip() {
        for bit in 0..32 {
            let flag = 1u32 << bit;
            assert_eq!(open_flags_to_guest(open_flags_to_host(flag)), flag, "bit {bit}");
        }
        // O_TMPFILE (asm-generic/fcntl.h): __O_TMPFILE | O_DIRECTORY.
        assert_eq!(open_flags_to_host(0o20000000 | O_DIRECTORY), libc::O_TMPFILE as u32);
    }
}
