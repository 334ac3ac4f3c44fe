//! The x86-64 kernel interface where it differs from the host's: structures with their layout asserted, flag values,
//! conversions.
//!
//! On an x86-64 host every conversion is the identity, and runs all the same: the path that AArch64 takes is the
//! path that the tests take. What is not here is the same on both (both use asm-generic there): signal numbers,
//! errno, socket options, `sockaddr`, `msghdr`, `iovec`, `timespec`, `rlimit`, `rusage`, `statfs`, `statx`, `flock`,
//! `termios`, `sysinfo`, `siginfo`, `sigevent`, `timex`, `shmid_ds`, `msqid_ds`, those of io_uring.

pub(crate) mod epoll;
pub(crate) mod fcntl;
pub(crate) mod ioctl;
pub(crate) mod sem;
pub(crate) mod stat;
pub(crate) mod uring;
pub(crate) mod userfault;

/// Asserts size and field offsets of a guest structure at compile time.
macro_rules! layout {
    ($ty:ty, size $size:literal $(, $field:ident $offset:literal)*) => {
        const _: () = {
            assert!(size_of::<$ty>() == $size);
            $( assert!(std::mem::offset_of!($ty, $field) == $offset); )*
        };
    };
}

pub(crate) use layout;
