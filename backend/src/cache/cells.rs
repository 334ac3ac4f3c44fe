//! The table of exit cells: one word an exit, read by generated code, written by linking.
//!
//! A cell is reserved before its region is compiled (its number is part of the code), holds its stub (`link_stub.rs`) until it is linked,
//! and goes back only when the whole cache is reset: another thread may be about to jump through it.
//!
//! # Safety
//! The table is an anonymous mapping of zeroed words that lives as long as `Cells` and is only accessed atomically.
#![allow(unsafe_code)]

use super::CacheError;
use crate::abi::{self, CodeKind, FIXED_CELLS, HostCode, LEAVE_CELL, LEAVE_PASSING_CELL, LINK_CELL, RESOLVE_CELL};
use crate::arch;
use crate::emit::entry::Stub;
use crate::sync::{AtomicU32, AtomicU64};
use calque_ir::GuestAddr;
use std::sync::atomic::Ordering;

/// Bit of a word of targets: the exit is in code of tier 0.
const TIER0: u64 = 1 << 63;

pub(super) struct Cells {
    code: Table,
    targets: Table,
    /// What each jumps to while it is not linked.
    stubs: Table,
    /// Of exits in tier-0 code: offset of their branch in code memory, and in the upper half the branch to their way out.
    branches: Table,
    next: AtomicU32,
}

impl Cells {
    pub(super) fn new(capacity: u32) -> Result<Self, CacheError> {
        let cells = Self {
            code: Table::new(capacity)?,
            targets: Table::new(capacity)?,
            stubs: Table::new(capacity)?,
            branches: Table::new(capacity)?,
            next: AtomicU32::new(0),
        };
        cells.reset();
        Ok(cells)
    }

    /// Address for `cpu.rt.cells`.
    pub(super) fn address(&self) -> u64 {
        self.code.words.as_ptr() as u64
    }

    /// Reserves `count` cells in a row for exits of code of this kind, which are not ready to be jumped through; `None` if there are
    /// no more.
    pub(super) fn reserve(&self, count: u32, kind: CodeKind) -> Option<u32> {
        let capacity = self.code.words.len() as u32;
        let take = |next: u32| next.checked_add(count).filter(|&end| end <= capacity);
        let first = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
        for cell in first..first + count {
            self.branches.words[cell as usize].store(0, Ordering::Relaxed);
            self.targets.words[cell as usize].store(if kind == CodeKind::Tier0 { TIER0 } else { 0 }, Ordering::Relaxed);
        }
        Some(first)
    }

    /// Notes where the branch of this cell's exit is, and the word that takes the way out.
    pub(super) fn set_branch(&self, cell: u32, offset: u32, way_out: u32) {
        let word = u64::from(offset) | u64::from(way_out) << 32;
        self.branches.words[cell as usize].store(word, Ordering::Relaxed);
    }

    /// Both, if the exit has a branch of its own.
    pub(super) fn branch(&self, cell: u32) -> Option<(u32, u32)> {
        let word = self.branches.words[cell as usize].load(Ordering::Relaxed);
        (word != 0).then_some((word as u32, (word >> 32) as u32))
    }

    /// Notes where the exit of this cell goes, and what it jumps to until it is linked.
    pub(super) fn prepare(&self, cell: u32, pc: GuestAddr, stub: HostCode) {
        let tier0 = self.targets.words[cell as usize].load(Ordering::Relaxed) & TIER0;
        self.targets.words[cell as usize].store(pc.0 & !TIER0 | tier0, Ordering::Relaxed);
        self.stubs.words[cell as usize].store(stub.0 as u64, Ordering::Relaxed);
        self.unlink(cell);
    }

    /// What kind of code the exit of this cell is in.
    pub(super) fn kind(&self, cell: u32) -> CodeKind {
        let tier0 = self.targets.words[cell as usize].load(Ordering::Relaxed) & TIER0 != 0;
        if tier0 { CodeKind::Tier0 } else { CodeKind::Tail }
    }

    /// Where the exit of this cell goes.
    pub(super) fn target(&self, cell: u32) -> GuestAddr {
        let word = self.targets.words[cell as usize].load(Ordering::Relaxed) & !TIER0;
        // The bit that was taken is a copy of the one below, except in addresses that no code has.
        GuestAddr(word | word << 1 & TIER0)
    }

    /// From now on the exit jumps straight to `code`.
    pub(super) fn link(&self, cell: u32, code: HostCode) {
        self.code.words[cell as usize].store(code.0 as u64, Ordering::Release);
    }

    /// From now on the exit returns to the dispatcher.
    pub(super) fn unlink(&self, cell: u32) {
        self.code.words[cell as usize].store(self.stub(cell).0 as u64, Ordering::Release);
    }

    /// What an unlinked cell holds.
    pub(super) fn stub(&self, cell: u32) -> HostCode {
        HostCode(self.stubs.words[cell as usize].load(Ordering::Relaxed) as usize)
    }

    /// Whether the exit jumps to some code.
    pub(super) fn is_linked(&self, cell: u32) -> bool {
        self.linked_to(cell) != self.stub(cell)
    }

    /// What the cell holds.
    pub(super) fn linked_to(&self, cell: u32) -> HostCode {
        HostCode(self.code.words[cell as usize].load(Ordering::Relaxed) as usize)
    }

    /// Cells in use.
    pub(super) fn used(&self) -> u32 {
        self.next.load(Ordering::Relaxed)
    }

    /// Gives all cells back.
    pub(super) fn reset(&self) {
        self.next.store(FIXED_CELLS, Ordering::Relaxed);
        self.link(LEAVE_CELL, abi::exit_leave());
        self.link(LEAVE_PASSING_CELL, abi::exit_leave_passing());
        self.link(RESOLVE_CELL, abi::exit_resolve());
        self.link(LINK_CELL, abi::exit_link());
        for stub in Stub::ALL {
            self.link(stub.cell(), HostCode(arch::tier0_stub(stub)));
        }
    }
}

/// Words of an anonymous mapping: reserved at once, allocated as they are touched.
#[cfg(not(feature = "models"))]
struct Table {
    words: &'static [AtomicU64],
}

#[cfg(not(feature = "models"))]
impl Table {
    fn new(capacity: u32) -> Result<Self, CacheError> {
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
        // SAFETY: a new anonymous mapping; the slice covers exactly it, zero is a valid word, and it is unmapped only by
        // `drop`, when no reference is left (`words` is never handed out).
        let words = unsafe {
            let p = libc::mmap(std::ptr::null_mut(), capacity as usize * 8, protection, flags, -1, 0);
            if p == libc::MAP_FAILED {
                return Err(CacheError::Map(std::io::Error::last_os_error()));
            }
            std::slice::from_raw_parts(p.cast(), capacity as usize)
        };
        Ok(Self { words })
    }
}

#[cfg(not(feature = "models"))]
impl Drop for Table {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made.
        unsafe { libc::munmap(self.words.as_ptr().cast_mut().cast(), size_of_val(self.words)) };
    }
}

/// In models, where zeroes are no atomics.
#[cfg(feature = "models")]
struct Table {
    words: Box<[AtomicU64]>,
}

#[cfg(feature = "models")]
impl Table {
    fn new(capacity: u32) -> Result<Self, CacheError> {
        Ok(Self { words: (0..capacity).map(|_| AtomicU64::new(0)).collect() })
    }
}
