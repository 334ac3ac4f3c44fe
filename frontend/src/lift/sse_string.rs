//! PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM: the comparison is a helper's, index, mask and flags are picked from its
//! result. The memory operand needs no alignment.

use super::flags::{Flag, FlagSet};
use super::operand::gpr::*;
use super::operand::{Alignment, Gpr};
use super::vex::is_vex;
use super::{Insn, Lifter};
use calque_ir::helper::strings::{CARRY_BIT, EXPLICIT, INDEX_SHIFT, OVERFLOW_BIT, SIGN_BIT, ZERO_BIT};
use calque_ir::{Cc, Helper, Op, Type, Value};

/// How the strings end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Length {
    /// By the lengths in EAX and EDX.
    Explicit,
    /// At the first zero element.
    Implicit,
}

/// What the instruction yields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    /// An index in ECX.
    Index,
    /// A mask in XMM0.
    Mask,
}

pub(super) fn pcmpstr(l: &mut Lifter<'_>, i: &Insn, length: Length, answer: Answer) {
    let b = l.read_vec(i, 1, Alignment::Any);
    let a = l.read_vec(i, 0, Alignment::Any);
    let imm = u64::from(i.immediate8());
    let arg = match length {
        Length::Implicit => l.b.iconst(Type::I64, imm),
        Length::Explicit => {
            let fixed = l.b.iconst(Type::I64, imm | EXPLICIT);
            let lengths = explicit_lengths(l, i);
            l.b.binary(Op::Bor, Type::I64, fixed, lengths)
        }
    };
    let r = l.b.call(Helper::Pcmpstr, &[a, b, arg]);
    match answer {
        Answer::Index => {
            let shift = l.b.iconst(Type::I64, u64::from(INDEX_SHIFT));
            let index = l.b.binary(Op::Ushr, Type::I64, r, shift);
            let index = l.b.unary(Op::Ireduce, Type::I32, index);
            l.write_gpr(Gpr::R32(RCX), index);
        }
        Answer::Mask => {
            let imm = l.b.iconst(Type::I32, imm);
            let mask = l.b.call(Helper::PcmpstrMask, &[r, imm]);
            l.set_xmm(0, mask);
            if is_vex(i) {
                l.clear_upper(0);
            }
        }
    }
    l.set_flags_const(FlagSet::ALL, false);
    for (flag, at) in [(Flag::Cf, CARRY_BIT), (Flag::Zf, ZERO_BIT), (Flag::Sf, SIGN_BIT), (Flag::Of, OVERFLOW_BIT)] {
        let v = l.bit(r, at, Type::I64);
        l.set_flag(flag, v);
    }
}

/// EAX and EDX (RAX and RDX with REX.W) clamped to -16..=16, which is all that matters, in bits 8..16 and 16..24.
fn explicit_lengths(l: &mut Lifter<'_>, i: &Insn) -> Value {
    use iced_x86::Mnemonic::{Pcmpestri64, Pcmpestrm64, Vpcmpestri64, Vpcmpestrm64};
    let wide = matches!(i.mnemonic(), Pcmpestri64 | Pcmpestrm64 | Vpcmpestri64 | Vpcmpestrm64);
    let mut clamped = |n: usize, shift: u64| {
        let v = match wide {
            true => l.gpr64(n),
            false => {
                let v = l.read_gpr(Gpr::R32(n));
                l.b.unary(Op::Sextend, Type::I64, v)
            }
        };
        let high = l.b.iconst(Type::I64, 16);
        let low = l.b.iconst(Type::I64, -16i64 as u64);
        let above = l.b.icmp(Cc::SignedGreaterThan, Type::I64, v, high);
        let v = l.b.select(Type::I64, above, high, v);
        let below = l.b.icmp(Cc::SignedLessThan, Type::I64, v, low);
        let v = l.b.select(Type::I64, below, low, v);
        let byte = l.b.iconst(Type::I64, 0xff);
        let v = l.b.binary(Op::Band, Type::I64, v, byte);
        let shift = l.b.iconst(Type::I64, shift);
        l.b.binary(Op::Ishl, Type::I64, v, shift)
    };
    let (a, b) = (clamped(RAX, 8), clamped(RDX, 16));
    l.b.binary(Op::Bor, Type::I64, a, b)
}
