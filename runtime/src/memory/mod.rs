//! The guest's address space: what is mapped where, with Linux's semantics of `mmap` and its relatives.
//!
//! Guest address = host address, so every guest mapping is a host mapping at the same place. [`GuestMap`] mirrors
//! the guest's ones in an interval map, for four reasons: placement is deterministic (`layout.rs`), the
//! translator's own memory is out of the guest's reach, guest-executable pages are *not* executable on the
//! host, and pages that hold translated code are write-protected behind the guest's back (`smc.rs`).
//!
//! Invariants:
//! - **M1** A host mapping that is not in the map is the translator's. Nothing is ever placed over it: addresses
//!   outside the map are only claimed with MAP_FIXED_NOREPLACE.
//! - **M2** Host protection = guest protection without EXEC (READ where only EXEC was asked for), without WRITE on
//!   code pages.
//! - **M3** Whatever changes contents or protection of a code page behind the guest code's back drops its mark and
//!   reports it as stale *before* the call returns; the dispatcher looks there before it runs any more code, and waits for whoever is about to
//!   drop translations. Before a code page becomes writable for want of a write, its translations are dropped: other threads write there
//!   without a fault from then on. (Code pages that are *checked* are not protected: their translations look for themselves.)
//! - **M4** No guest memory is touched through `access` while the map is locked: the fault handler locks it.

mod layout;
mod map;
#[cfg(test)]
mod tests;

pub use layout::*;
pub(crate) use map::{CodePage, Frozen, MapOp, Trust};
pub use map::{GuestMap, Mapping, Prot};
