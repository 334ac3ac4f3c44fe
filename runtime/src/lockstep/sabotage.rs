//! Switches that break one thing each, to test that a comparison finds it. No user needs them; the option is hidden.
//!
//! Code that is made from IR is broken on its way to the engine, so they have no effect on tier 0.

use calque_ir::{Op, Reg, Region, Type};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// What is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Sabotage {
    /// What is written to CF is lost.
    Flag = 1,
    /// Stores of one byte are lost.
    Store,
    /// Truncating conversions round to nearest.
    Rounding,
    /// Translations of changed bytes stay in use.
    Stale,
    /// Instructions that fault are skipped, and nobody hears of it.
    Signal,
}

impl Sabotage {
    /// All switches, by name.
    pub const TABLE: [(&'static str, Sabotage); 5] = [
        ("flag", Sabotage::Flag),
        ("store", Sabotage::Store),
        ("rounding", Sabotage::Rounding),
        ("stale", Sabotage::Stale),
        ("signal", Sabotage::Signal),
    ];
}

static CHOSEN: AtomicU8 = AtomicU8::new(0);

/// Breaks this from now on.
pub fn sabotage(what: Sabotage) {
    CHOSEN.store(what as u8, Relaxed);
}

/// Whether this is broken.
pub(crate) fn is_broken(what: Sabotage) -> bool {
    CHOSEN.load(Relaxed) == what as u8
}

/// Breaks a region that has just been lifted.
pub(crate) fn corrupt(region: &mut Region) {
    let chosen = CHOSEN.load(Relaxed);
    if chosen == 0 {
        return;
    }
    for inst in &mut region.insts {
        match inst.op {
            Op::Put if chosen == Sabotage::Flag as u8 && usize::from(inst.aux) == Reg::CF.index() => {
                inst.aux = Reg::AF.index() as u16;
            }
            Op::Store if chosen == Sabotage::Store as u8 && inst.ty == Type::I8 => inst.op = Op::Fence,
            Op::FcvtToSintTrunc if chosen == Sabotage::Rounding as u8 => inst.op = Op::FcvtToSint,
            _ => {}
        }
    }
}
