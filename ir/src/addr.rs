//! Guest addresses as types: arithmetic is spelled out, and only `runtime` turns one into a pointer.

use std::fmt;

/// Size of a guest page in bytes: x86-64 knows 4 KiB pages only (SDM vol. 3 4.5), whatever the host's size is.
pub const GUEST_PAGE: u64 = 4096;

/// An address in the guest's 64-bit linear address space.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct GuestAddr(pub u64);

impl GuestAddr {
    /// The address `bytes` further on, or `None` past the end of the address space.
    pub fn checked_add(self, bytes: u64) -> Option<Self> {
        self.0.checked_add(bytes).map(Self)
    }

    /// The address `bytes` further on, modulo 2^64, as address arithmetic in the processor wraps.
    pub fn wrapping_add(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes))
    }

    /// Rounds down to a multiple of `align`, a power of two.
    pub fn align_down(self, align: u64) -> Self {
        Self(self.0 & !(align - 1))
    }

    /// Rounds up to a multiple of `align`, a power of two; `None` past the end of the address space.
    pub fn align_up(self, align: u64) -> Option<Self> {
        self.0.checked_add(align - 1).map(|a| Self(a & !(align - 1)))
    }

    /// Start of the guest page that holds this address.
    pub fn page(self) -> Self {
        self.align_down(GUEST_PAGE)
    }
}

impl fmt::Display for GuestAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for GuestAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A half-open range of guest addresses, `start <= end`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct GuestRange {
    /// First address.
    pub start: GuestAddr,
    /// First address behind it.
    pub end: GuestAddr,
}

impl GuestRange {
    /// `len` bytes from `start`; `None` where that passes the end of the address space.
    pub fn new(start: GuestAddr, len: u64) -> Option<Self> {
        Some(Self { start, end: start.checked_add(len)? })
    }

    /// Length in bytes.
    pub fn size(self) -> u64 {
        self.end.0 - self.start.0
    }

    /// Whether `addr` lies inside.
    pub fn contains(self, addr: GuestAddr) -> bool {
        self.start <= addr && addr < self.end
    }

    /// Whether the two ranges share an address.
    pub fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }
}
