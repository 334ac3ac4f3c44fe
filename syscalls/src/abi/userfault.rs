//! The requests of a userfaultfd (linux/userfaultfd.h): what they say of memory. Numbers and structures are the same on both hosts.

/// What becomes of the memory that a request names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Use {
    /// Its faults are reported, or go on.
    Watched,
    /// It gets contents, or loses them.
    Changed,
    /// Its contents are copied.
    Read,
}

use Use::{Changed, Read, Watched};

/// `_IOC_TYPE` of them all.
const TYPE: u32 = 0xaa;

/// `USERFAULTFD_IOC_NEW`, on `/dev/userfaultfd`.
pub(crate) const NEW: u32 = 0xaa00;
/// `UFFDIO_API`: the words `api`, `features`, `ioctls`.
pub(crate) const API: u32 = 0xc018_aa3f;

/// Where in a request's structure of words an address and a length stand, and what that memory is for.
pub(crate) type Named = (usize, usize, Use);

/// Requests that name memory: number, name, what they name.
#[rustfmt::skip]
const RANGES: &[(u32, &str, &[Named])] = &[
    (0xc020_aa00, "UFFDIO_REGISTER",     &[(0, 1, Watched)]),
    (0x8010_aa01, "UFFDIO_UNREGISTER",   &[(0, 1, Watched)]),
    (0x8010_aa02, "UFFDIO_WAKE",         &[(0, 1, Watched)]),
    (0xc028_aa03, "UFFDIO_COPY",         &[(0, 2, Changed), (1, 2, Read)]),
    (0xc020_aa04, "UFFDIO_ZEROPAGE",     &[(0, 1, Changed)]),
    (0xc028_aa05, "UFFDIO_MOVE",         &[(0, 2, Changed), (1, 2, Changed)]),
    (0xc018_aa06, "UFFDIO_WRITEPROTECT", &[(0, 1, Watched)]),
    (0xc020_aa07, "UFFDIO_CONTINUE",     &[(0, 1, Changed)]),
    (0xc020_aa08, "UFFDIO_POISON",       &[(0, 1, Changed)]),
];

/// Features with which calls of the process wait until another thread has read of them: `EVENT_FORK`, `EVENT_REMAP`, `EVENT_REMOVE`,
/// `EVENT_UNMAP`. That thread may be a guest's, and what waits may hold what it needs, so these are kept from guests.
pub(crate) const EVENTS: u64 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 6;

/// Whether `request` is one of a userfaultfd.
pub(crate) fn is_request(request: u32) -> bool {
    request >> 8 & 0xff == TYPE
}

/// The name of a request, for `--strace`.
pub(crate) fn name(request: u32) -> Option<&'static str> {
    match request {
        NEW => Some("USERFAULTFD_IOC_NEW"),
        API => Some("UFFDIO_API"),
        _ => RANGES.iter().find(|row| row.0 == request).map(|row| row.1),
    }
}

/// The ranges that a request names.
pub(crate) fn ranges(request: u32) -> &'static [Named] {
    RANGES.iter().find(|row| row.0 == request).map_or(&[], |row| row.2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_lie_within_the_structures() {
        for &(request, name, ranges) in RANGES {
            let words = (request >> 16 & 0x3fff) as usize / 8;
            assert!(is_request(request) && ranges.iter().all(|&(at, len, _)| at < words && len < words), "{name}");
        }
    }
}
