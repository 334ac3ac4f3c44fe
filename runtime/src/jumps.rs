//! Where computed jumps have led: what regions predict of them (`lift/calls.rs`, `lift/switches.rs`).
//!
//! Generated code says which jump missed its cache. A jump does so the first time it gets to a place, when others have pushed that
//! one out of both levels, and when a countdown ends with it (`cold.rs`): where it leads most is seen most.

use calque_backend::sync::{Mutex, MutexGuard};
use calque_ir::GuestAddr;
use hashbrown::HashMap;
use std::sync::PoisonError;

/// Places that are kept of one jump: the cases of most switches.
const KEPT: usize = 64;
/// A place is likely that is at least one of so many.
const LIKELY: u32 = 4;

/// Computed jumps by pc.
#[derive(Default)]
pub(crate) struct Jumps {
    seen: Mutex<HashMap<u64, Targets>>,
}

/// What no other thread can look at or change for the moment.
pub(crate) struct FrozenJumps<'a>(
    #[expect(dead_code, reason = "held, not read")] MutexGuard<'a, HashMap<u64, Targets>>,
);

/// Where one jump has led, and how often that was seen.
#[derive(Default)]
struct Targets {
    kept: Vec<(u64, u32)>,
    others: u32,
}

impl Targets {
    fn add(&mut self, target: u64) {
        match self.kept.iter().position(|(pc, _)| *pc == target) {
            Some(known) => self.kept[known].1 += 1,
            None if self.kept.len() < KEPT => self.kept.push((target, 1)),
            None => self.others += 1,
        }
    }

    /// The likely ones, most likely first.
    fn likely(&self) -> Vec<GuestAddr> {
        let total = self.others + self.kept.iter().map(|(_, count)| count).sum::<u32>();
        let mut likely: Vec<_> = self.kept.iter().filter(|(_, count)| count.saturating_mul(LIKELY) >= total).collect();
        likely.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        likely.into_iter().map(|(pc, _)| GuestAddr(*pc)).collect()
    }

    /// All of them, if they are few enough to be known, in the order in which they were first seen.
    fn all(&self) -> Vec<GuestAddr> {
        let kept = if self.others == 0 { &self.kept[..] } else { &[] };
        kept.iter().map(|(pc, _)| GuestAddr(*pc)).collect()
    }
}

impl Jumps {
    /// Notes that the jump at `from` has led to `to`.
    pub(crate) fn led(&self, from: GuestAddr, to: GuestAddr) {
        self.lock().entry(from.0).or_default().add(to.0);
    }

    /// Where the jump at `from` is likely to lead.
    pub(crate) fn likely(&self, from: GuestAddr) -> Vec<GuestAddr> {
        self.lock().get(&from.0).map(Targets::likely).unwrap_or_default()
    }

    /// Where the jump at `from` has led; nowhere if that is too many places.
    pub(crate) fn all(&self, from: GuestAddr) -> Vec<GuestAddr> {
        self.lock().get(&from.0).map(Targets::all).unwrap_or_default()
    }

    /// Keeps every other thread out until the guard is dropped: for `fork`.
    pub(crate) fn freeze(&self) -> FrozenJumps<'_> {
        FrozenJumps(self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Targets>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_seen_most_is_likely() {
        let jumps = Jumps::default();
        let led = |to: &[u64]| to.iter().for_each(|to| jumps.led(GuestAddr(1), GuestAddr(*to)));
        led(&[10, 20, 20]);
        assert_eq!(jumps.likely(GuestAddr(1)), [GuestAddr(20), GuestAddr(10)]);
        led(&[20; 9]);
        assert_eq!(jumps.likely(GuestAddr(1)), [GuestAddr(20)]);
        assert_eq!(jumps.likely(GuestAddr(2)), []);
    }

    #[test]
    fn nothing_is_likely_of_a_jump_to_many_places() {
        let jumps = Jumps::default();
        (0..10).for_each(|to| jumps.led(GuestAddr(1), GuestAddr(to)));
        assert_eq!(jumps.likely(GuestAddr(1)), []);
    }

    #[test]
    fn all_places_are_known_or_none() {
        let jumps = Jumps::default();
        let places: Vec<_> = (0..KEPT as u64).map(GuestAddr).collect();
        places.iter().chain(&places).for_each(|to| jumps.led(GuestAddr(1), *to));
        assert_eq!(jumps.all(GuestAddr(1)), places);
        jumps.led(GuestAddr(1), GuestAddr(KEPT as u64));
        assert_eq!(jumps.all(GuestAddr(1)), []);
        assert_eq!(jumps.all(GuestAddr(2)), []);
    }
}
