//! SSE and MMX shuffles: everything that moves bytes by a pattern known from the instruction becomes one
//! `shuffle` with constant indices (0..16 the first operand's bytes, 16..32 the second's, 0x80 zero).

use super::mmx::is_mmx;
use super::operand::Alignment;
use super::sse_move::Half;
use super::vex::{Halves, is_wide, vec_halves, vec_unary_with, vec_with};
use super::{Insn, Lifter};
use calque_ir::{Cc, Op, Type, Value};

/// How PMOVZX and PMOVSX fill the upper bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fill {
    Zeros,
    Signs,
}

/// Which way whole registers are shifted by bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Toward {
    High,
    Low,
}

const ZERO: u8 = 0x80;

/// Byte indices from lane indices: lane k of the result is lane `lane(k)`, lanes of the second operand counted on.
fn lanes_to_bytes(width: u8, lane: impl Fn(u8) -> u8) -> [u8; 16] {
    std::array::from_fn(|k| lane(k as u8 / width) * width + k as u8 % width)
}

/// PUNPCKL/H, UNPCKL/H: interleaves lanes of `width` bytes.
pub(super) fn unpack(l: &mut Lifter<'_>, i: &Insn, end: Half, width: u8) {
    let mmx = is_mmx(i);
    let first = match (end, mmx) {
        (Half::Low, _) => 0,
        (Half::High, true) => 4,
        (Half::High, false) => 8,
    } / width;
    let second = 16 / width;
    let indices = lanes_to_bytes(width, |k| first + k / 2 + if k % 2 != 0 { second } else { 0 });
    vec_with(l, i, |l, a, b| l.b.shuffle(a, b, if mmx { low_half(indices) } else { indices }));
}

/// Only the low half of a pattern, zeros above.
fn low_half(mut indices: [u8; 16]) -> [u8; 16] {
    indices[8..].fill(ZERO);
    indices
}

/// PACKSSWB and kin: narrows the lanes of destination and source; `shape` is the result's.
pub(super) fn pack(l: &mut Lifter<'_>, i: &Insn, op: Op, shape: Type) {
    let mmx = is_mmx(i);
    vec_with(l, i, |l, a, b| {
        if !mmx {
            return l.b.binary(op, shape, a, b);
        }
        let both = l.b.shuffle(a, b, lanes_to_bytes(8, |k| 2 * k));
        l.b.binary(op, shape, both, both)
    });
}

/// Two bits of an immediate.
fn field(imm: u8, k: u8) -> u8 {
    imm >> (2 * k) & 3
}

/// PSHUFD: four 32-bit lanes by the immediate.
pub(super) fn pshufd(l: &mut Lifter<'_>, i: &Insn) {
    let imm = i.immediate8();
    let indices = lanes_to_bytes(4, |k| field(imm, k));
    vec_unary_with(l, i, |l, a| l.b.shuffle(a, a, indices));
}

/// PSHUFLW, PSHUFHW, PSHUFW: the four 16-bit lanes of one half by the immediate.
pub(super) fn pshuf_words(l: &mut Lifter<'_>, i: &Insn, end: Half) {
    let imm = i.immediate8();
    let first = if end == Half::Low { 0 } else { 4 };
    let indices = lanes_to_bytes(2, |k| if k / 4 == first / 4 { first + field(imm, k - first) } else { k });
    vec_unary_with(l, i, |l, a| l.b.shuffle(a, a, indices));
}

/// SHUFPS: two lanes of the destination, then two of the source.
pub(super) fn shufps(l: &mut Lifter<'_>, i: &Insn) {
    let imm = i.immediate8();
    let indices = lanes_to_bytes(4, |k| field(imm, k) + if k < 2 { 0 } else { 4 });
    vec_with(l, i, |l, a, b| l.b.shuffle(a, b, indices));
}

/// SHUFPD: one lane of each.
pub(super) fn shufpd(l: &mut Lifter<'_>, i: &Insn) {
    let imm = i.immediate8();
    vec_halves(l, i, |l, half, a, b| {
        let indices = lanes_to_bytes(8, |k| (imm >> (2 * half + k) & 1) + 2 * k);
        l.b.shuffle(a, b, indices)
    });
}

/// PSLLDQ, PSRLDQ: the whole register by bytes.
pub(super) fn shift_bytes(l: &mut Lifter<'_>, i: &Insn, toward: Toward) {
    let n = i.immediate8().min(16) as i16;
    let indices = std::array::from_fn(|k| {
        let at = if toward == Toward::High { k as i16 - n } else { k as i16 + n };
        if (0..16).contains(&at) { at as u8 } else { ZERO }
    });
    let source = i.op_count() - 2;
    let a = l.read_halves(i, source, Alignment::Any);
    let r = a.map(l, |l, _, a| l.b.shuffle(a, a, indices));
    l.write_halves(i, 0, r);
}

/// PALIGNR: destination and source as one long number, shifted right by bytes.
pub(super) fn palignr(l: &mut Lifter<'_>, i: &Insn) {
    let n = i.immediate8();
    let size = if is_mmx(i) { 8 } else { 16 };
    let indices = std::array::from_fn(|k| {
        let at = n.saturating_add(k as u8);
        match at {
            _ if k as u8 >= size || at >= 2 * size => ZERO,
            at if at < size => at,
            at => at - size + 16,
        }
    });
    // The source is the low part.
    vec_with(l, i, |l, a, b| l.b.shuffle(b, a, indices));
}

/// PSHUFB: bytes of the destination by the source's low bits, zero where its top bit is set.
pub(super) fn pshufb(l: &mut Lifter<'_>, i: &Insn) {
    let mmx = is_mmx(i);
    vec_with(l, i, |l, a, b| {
        let b = match mmx {
            // Indices wrap at 8.
            true => {
                let mask = l.b.vconst([0x8787_8787_8787_8787, 0]);
                l.b.binary(Op::Band, Type::V128, b, mask)
            }
            false => b,
        };
        l.b.binary(Op::Swizzle, Type::I8x16, a, b)
    });
}

/// MOVDDUP, MOVSLDUP, MOVSHDUP: result lane k of `width` bytes is lane `lanes[k]`.
pub(super) fn duplicate(l: &mut Lifter<'_>, i: &Insn, width: u8, lanes: &[u8]) {
    let indices = lanes_to_bytes(width, |k| lanes[usize::from(k)]);
    vec_unary_with(l, i, |l, a| l.b.shuffle(a, a, indices));
}

/// BLENDPS, BLENDPD, PBLENDW: source lanes where the immediate's bit is set.
pub(super) fn blend(l: &mut Lifter<'_>, i: &Insn, width: u8) {
    let lanes = 16 / width;
    vec_halves(l, i, |l, half, a, b| {
        // The upper half has bits of its own, except for the eight words of VPBLENDW.
        let imm = i.immediate8() >> if width == 2 { 0 } else { half * lanes };
        let indices = lanes_to_bytes(width, |k| if imm >> k & 1 != 0 { k + lanes } else { k });
        l.b.shuffle(a, b, indices)
    });
}

/// BLENDVPS, BLENDVPD, PBLENDVB: source lanes where the sign bit of XMM0's lane is set.
pub(super) fn blend_by_xmm0(l: &mut Lifter<'_>, i: &Insn, shape: Type) {
    vec_with(l, i, |l, a, b| {
        let chooser = l.xmm(0);
        choose(l, chooser, shape, a, b)
    });
}

/// Lanes of `b` where the sign bit of the chooser's lane is set, of `a` elsewhere.
pub(super) fn choose(l: &mut Lifter<'_>, chooser: Value, shape: Type, a: Value, b: Value) -> Value {
    let zero = l.b.vconst([0, 0]);
    let mask = l.b.icmp(Cc::SignedLessThan, shape, chooser, zero);
    let taken = l.b.binary(Op::Band, Type::V128, b, mask);
    let kept = l.b.binary(Op::BandNot, Type::V128, a, mask);
    l.b.binary(Op::Bor, Type::V128, taken, kept)
}

/// PMOVZX, PMOVSX: lanes of `from` bytes of the source's low end to lanes of `to` bytes.
pub(super) fn pmov_extend(l: &mut Lifter<'_>, i: &Insn, fill: Fill, from: u8, to: u8) {
    let above = |source: u8| if fill == Fill::Zeros { ZERO } else { 16 + source };
    let lanes = 16 / to;
    let indices = |half: u8| {
        std::array::from_fn(|k| {
            let (lane, byte) = (half * lanes + k as u8 / to, k as u8 % to);
            if byte < from { lane * from + byte } else { above(lane * from) }
        })
    };
    let a = l.read_vec(i, 1, Alignment::Any);
    let signs = if fill == Fill::Signs { sign_lanes(l, a, from) } else { a };
    let low = l.b.shuffle(a, signs, indices(0));
    let high = is_wide(i).then(|| l.b.shuffle(a, signs, indices(1)));
    l.write_halves(i, 0, Halves { low, high });
}

/// All ones in the lanes of `width` bytes that are negative.
fn sign_lanes(l: &mut Lifter<'_>, a: Value, width: u8) -> Value {
    let shape = match width {
        1 => Type::I8x16,
        2 => Type::I16x8,
        _ => Type::I32x4,
    };
    let zero = l.b.vconst([0, 0]);
    l.b.icmp(Cc::SignedLessThan, shape, a, zero)
}
