//! Switches that break one thing each, to test that a comparison finds it. No user needs them; the option is hidden.
//!
//! What is made from IR is broken on its way to the engine, what is copied (identical translation) on its way to the translator.

use calque_ir::{Op, Reg, Region, Type};
#[cfg(target_arch = "x86_64")]
use iced_x86::{Code, Decoder, DecoderOptions, Instruction};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// What is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Sabotage {
    /// What is written to CF is lost; copied CMPs compare with another constant.
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

/// Breaks guest code at `pc` that is about to be copied.
#[cfg(target_arch = "x86_64")]
pub(crate) fn corrupt_bytes(pc: u64, code: &mut [u8]) {
    let chosen = CHOSEN.load(Relaxed);
    if chosen == 0 {
        return;
    }
    let insns: Vec<Instruction> = Decoder::with_ip(64, code, pc, DecoderOptions::NONE).into_iter().collect();
    for insn in insns.iter().filter(|insn| !insn.is_invalid()) {
        let start = (insn.ip() - pc) as usize;
        let bytes = &mut code[start..start + insn.len()];
        match insn.code() {
            Code::Cmp_rm32_imm8 | Code::Cmp_rm64_imm8 if chosen == Sabotage::Flag as u8 => {
                bytes[insn.len() - 1] ^= 0x40
            }
            Code::Mov_rm8_r8 if chosen == Sabotage::Store as u8 => {
                // One NOP with prefixes (SDM vol. 2).
                bytes.fill(0x66);
                bytes[insn.len() - 1] = 0x90;
            }
            Code::Cvttsd2si_r32_xmmm64 | Code::Cvttsd2si_r64_xmmm64 if chosen == Sabotage::Rounding as u8 => {
                // CVTSD2SI: 2D in place of 2C behind the escape byte (SDM vol. 2).
                if let Some(at) = bytes.windows(2).position(|pair| pair == [0x0f, 0x2c]) {
                    bytes[at + 1] = 0x2d;
                }
            }
            _ => {}
        }
    }
}
