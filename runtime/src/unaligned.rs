//! Guest instructions whose accesses were not aligned where the host's ordered ones must be (`docs/MEMORY-MODEL.md`).
//!
//! The signal handler carries such an access out by itself (`fault.rs`, case 3), at microseconds each. An instruction that keeps it busy loses
//! the translation that it is in: the next one has plain accesses between barriers there, and at every other place that was seen
//! meanwhile.

use calque_backend::sync::{AtomicBool, Mutex, MutexGuard};
use calque_ir::{GuestAddr, Region};
use hashbrown::HashMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

/// Accesses of one instruction that the handler carries out before another translation is worth making: that costs as much as so many.
const PATIENCE: u32 = 64;

/// How often the accesses of which instructions were carried out by the handler.
#[derive(Default)]
pub(crate) struct Unaligned {
    seen: Mutex<HashMap<u64, u32>>,
    any: AtomicBool,
}

/// What keeps other threads out.
pub(crate) type FrozenUnaligned<'a> = MutexGuard<'a, HashMap<u64, u32>>;

impl Unaligned {
    /// Notes another access of the instruction at `pc`; whether its translations are worth making again.
    pub(crate) fn count(&self, pc: GuestAddr) -> bool {
        let mut seen = self.freeze();
        let times = seen.entry(pc.0).or_default();
        *times = times.saturating_add(1);
        self.any.store(true, Ordering::Relaxed);
        *times >= PATIENCE
    }

    /// Marks the accesses of those instructions in a region that is about to be translated.
    #[inline]
    pub(crate) fn mark(&self, region: &mut Region) {
        if self.any.load(Ordering::Relaxed) {
            let seen = self.freeze();
            region.mark_unaligned(|pc| seen.contains_key(&pc.0));
        }
    }

    /// Whether the access of an instruction in these bytes was seen.
    #[inline]
    pub(crate) fn is_seen_in(&self, (start, len): (GuestAddr, u32)) -> bool {
        let is_inside = |pc: &u64| pc.wrapping_sub(start.0) < u64::from(len);
        self.any.load(Ordering::Relaxed) && self.freeze().keys().any(is_inside)
    }

    /// Keeps other threads out until the guard is dropped.
    pub(crate) fn freeze(&self) -> FrozenUnaligned<'_> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_marked_and_is_worth_it_when_it_repeats() {
        let mut region = calque_ir::parse::parse_region(
            "block0 @0x1000:
               insn 0x1000 3
                 v1 = get.i64 rdi
                 v2 = load.i32 [v1]
               insn 0x1003 3
                 store.i32 [v1 + 0x8], v2
                 goto 0x1006",
        )
        .unwrap_or_else(|e| panic!("{e}"));
        let unaligned = Unaligned::default();
        unaligned.mark(&mut region);
        assert!(!region.insts.iter().any(calque_ir::Inst::is_unaligned));
        let worth = (0..PATIENCE).map(|_| unaligned.count(GuestAddr(0x1003))).collect::<Vec<_>>();
        assert_eq!(worth.iter().position(|worth| *worth), Some(PATIENCE as usize - 1));
        unaligned.mark(&mut region);
        let marked = region.insts.iter().filter(|inst| inst.is_unaligned());
        assert_eq!(marked.map(|inst| inst.op).collect::<Vec<_>>(), [calque_ir::Op::Store]);
        let seen = [(0x1000, 3), (0x1000, 4), (0x1003, 3), (0x1004, 9)]
            .map(|(start, len)| unaligned.is_seen_in((GuestAddr(start), len)));
        assert_eq!(seen, [false, true, true, false]);
    }
}
