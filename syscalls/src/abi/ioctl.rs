//! What the third argument of ioctl(2) is. Request numbers are the same on both hosts: x86-64 and AArch64 both use
//! asm-generic/ioctl.h and asm-generic/ioctls.h.
//!
//! Newer requests say direction and size in their number (asm-generic/ioctl.h, `_IOC`); the old ones are listed.

use crate::row::Dir;

use Dir::{In, Out};

/// Requests whose number does not say what they point to: (request, name, direction, bytes); no bytes for those
/// whose argument is a number or nothing.
#[rustfmt::skip]
pub(crate) const OLD: &[(u32, &str, Dir, u64)] = &[
    (0x5401, "TCGETS",        Out, 36),
    (0x5402, "TCSETS",        In,  36),
    (0x5403, "TCSETSW",       In,  36),
    (0x5404, "TCSETSF",       In,  36),
    (0x5405, "TCGETA",        Out, 18),
    (0x5406, "TCSETA",        In,  18),
    (0x5407, "TCSETAW",       In,  18),
    (0x5408, "TCSETAF",       In,  18),
    (0x5409, "TCSBRK",        In,  0),
    (0x540a, "TCXONC",        In,  0),
    (0x540b, "TCFLSH",        In,  0),
    (0x540c, "TIOCEXCL",      In,  0),
    (0x540d, "TIOCNXCL",      In,  0),
    (0x540e, "TIOCSCTTY",     In,  0),
    (0x540f, "TIOCGPGRP",     Out, 4),
    (0x5410, "TIOCSPGRP",     In,  4),
    (0x5411, "TIOCOUTQ",      Out, 4),
    (0x5412, "TIOCSTI",       In,  1),
    (0x5413, "TIOCGWINSZ",    Out, 8),
    (0x5414, "TIOCSWINSZ",    In,  8),
    (0x5415, "TIOCMGET",      Out, 4),
    (0x5416, "TIOCMBIS",      In,  4),
    (0x5417, "TIOCMBIC",      In,  4),
    (0x5418, "TIOCMSET",      In,  4),
    (0x5419, "TIOCGSOFTCAR",  Out, 4),
    (0x541a, "TIOCSSOFTCAR",  In,  4),
    (0x541b, "FIONREAD",      Out, 4),
    (0x541c, "TIOCLINUX",     In,  1),
    (0x541d, "TIOCCONS",      In,  0),
    (0x541e, "TIOCGSERIAL",   Out, 72),
    (0x541f, "TIOCSSERIAL",   In,  72),
    (0x5420, "TIOCPKT",       In,  4),
    (0x5421, "FIONBIO",       In,  4),
    (0x5422, "TIOCNOTTY",     In,  0),
    (0x5423, "TIOCSETD",      In,  4),
    (0x5424, "TIOCGETD",      Out, 4),
    (0x5425, "TCSBRKP",       In,  0),
    (0x5427, "TIOCSBRK",      In,  0),
    (0x5428, "TIOCCBRK",      In,  0),
    (0x5429, "TIOCGSID",      Out, 4),
    (0x542a, "TCGETS2",       Out, 44),
    (0x5432, "TCGETX",        Out, 16),
    (0x5437, "TIOCVHANGUP",   In,  0),
    (0x5450, "FIONCLEX",      In,  0),
    (0x5451, "FIOCLEX",       In,  0),
    (0x5452, "FIOASYNC",      In,  4),
    (0x5456, "TIOCGLCKTRMIOS", Out, 36),
    (0x5457, "TIOCSLCKTRMIOS", In, 36),
    (0x545d, "TIOCGICOUNT",   Out, 80),
    (0x5460, "FIOQSIZE",      Out, 8),
    (0x8901, "FIOSETOWN",     In,  4),
    (0x8902, "SIOCSPGRP",     In,  4),
    (0x8903, "FIOGETOWN",     Out, 4),
    (0x8904, "SIOCGPGRP",     Out, 4),
    (0x8905, "SIOCATMARK",    Out, 4),
    (0x8906, "SIOCGSTAMP",    Out, 16),
    (0x8907, "SIOCGSTAMPNS",  Out, 16),
    (0x8910, "SIOCGIFNAME",   Out, 40),
    (0x8912, "SIOCGIFCONF",   Out, 16),
    (0x8913, "SIOCGIFFLAGS",  Out, 40),
    (0x8914, "SIOCSIFFLAGS",  In,  40),
    (0x8915, "SIOCGIFADDR",   Out, 40),
    (0x8916, "SIOCSIFADDR",   In,  40),
    (0x8919, "SIOCGIFBRDADDR", Out, 40),
    (0x891b, "SIOCGIFNETMASK", Out, 40),
    (0x891d, "SIOCGIFMETRIC", Out, 40),
    (0x8921, "SIOCGIFMTU",    Out, 40),
    (0x8922, "SIOCSIFMTU",    In,  40),
    (0x8927, "SIOCGIFHWADDR", Out, 40),
    (0x8933, "SIOCGIFINDEX",  Out, 40),
    (0x8946, "SIOCETHTOOL",   Out, 40),
    (0x1260, "BLKGETSIZE",    Out, 8),
    (0x1268, "BLKSSZGET",     Out, 4),
    (0x125e, "BLKROGET",      Out, 4),
    (0x1261, "BLKFLSBUF",     In,  0),
    (0x0001, "FIBMAP",        Out, 4),
    (0x0002, "FIGETBSZ",      Out, 4),
    (0x4b3a, "KDSETMODE",     In,  0),
    (0x4b3b, "KDGETMODE",     Out, 4),
    (0x4b33, "KDGKBTYPE",     Out, 1),
];

/// The memory that the third argument names.
pub(crate) fn buffer(request: u32, at: u64) -> (Dir, u64, u64) {
    if let Some(&(_, _, dir, size)) = OLD.iter().find(|row| row.0 == request) {
        return (dir, at, size);
    }
    // _IOC: number 8 bits, type 8, size 14, direction 2 (1 = the kernel reads, 2 = it writes).
    let (dir, size) = (request >> 30, u64::from(request >> 16 & 0x3fff));
    match dir {
        0 => (In, 0, 0),
        1 => (In, at, size),
        _ => (Out, at, size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions() {
        assert_eq!(buffer(0x5413, 0x1000), (Out, 0x1000, 8)); // TIOCGWINSZ
        assert_eq!(buffer(0x80045430, 0x1000), (Out, 0x1000, 4)); // TIOCGPTN = _IOR('T', 0x30, unsigned)
        assert_eq!(buffer(0x40045431, 0x1000), (In, 0x1000, 4)); // TIOCSPTLCK = _IOW('T', 0x31, int)
        assert_eq!(buffer(0x40049409, 7).2, 4); // FICLONE takes a descriptor; harmless
    }
}
