//! Instructions that exist only with VEX: broadcasts, moves between the halves, permutations, per-lane shifts, masked
//! accesses, gathers, fused multiply-add, half precision. What is common to all VEX instructions is in `vex.rs`.
//!
//! # Masked accesses
//! A lane whose mask bit is clear is not accessed and does not fault (SDM vol. 2C VMASKMOV, VPMASKMOV, VGATHER).
//! - A masked *load* reads every lane, but a disabled one from the address of the first enabled one; with no lane enabled
//!   nothing is read.
//! - A masked *store* is a block a lane; one that crosses a page makes sure of both pages first ([`probe_masked_store`]).
//! - A *gather* is a block a lane too, and each updates destination and mask as the SDM describes, so a fault in the
//!   middle leaves what the processor leaves, and the instruction goes on where it stopped.

use super::operand::{Alignment, vector_of};
use super::sse_float::{Parity, alternating};
use super::sse_move::Half;
use super::sse_shuffle::choose;
use super::vex::{Halves, is_wide, join_low, vec_halves};
use super::{Insn, Lifter};
use calque_ir::{BlockId, Cc, Exit, Helper, Mem, Op, Target, Type, Value};
use iced_x86::{OpKind, Register};

/// VBROADCASTSS and kin: the lowest lane of the source in every lane; `ty` is the lane.
pub(super) fn broadcast(l: &mut Lifter<'_>, i: &Insn, ty: Type) {
    let v = match i.op_kind(1) {
        OpKind::Register => {
            let v = l.read_xmm(i, 1);
            l.b.extract_lane(vector_of(ty), v, 0)
        }
        _ => {
            let m = l.addr(i);
            l.b.load(ty, m)
        }
    };
    let all = l.b.unary(Op::Splat, vector_of(ty), v);
    write_doubled(l, i, all);
}

/// VBROADCASTF128, VBROADCASTI128.
pub(super) fn broadcast_half(l: &mut Lifter<'_>, i: &Insn) {
    let v = l.read_xmm_or_mem(i, 1, Alignment::Any);
    write_doubled(l, i, v);
}

/// Writes the same to both halves, as far as the destination has them.
fn write_doubled(l: &mut Lifter<'_>, i: &Insn, v: Value) {
    let high = is_wide(i).then_some(v);
    l.write_halves(i, 0, Halves { low: v, high });
}

/// VEXTRACTF128, VEXTRACTI128.
pub(super) fn extract_half(l: &mut Lifter<'_>, i: &Insn) {
    let v = l.read_halves(i, 1, Alignment::Any);
    let v = if i.immediate8() & 1 == 0 { v.low } else { v.upper() };
    match i.op_kind(0) {
        OpKind::Register => l.write_xmm(i, 0, v),
        _ => l.store_xmm(i, Type::V128, v, Alignment::Any),
    }
}

/// VINSERTF128, VINSERTI128.
pub(super) fn insert_half(l: &mut Lifter<'_>, i: &Insn) {
    let new = l.read_xmm_or_mem(i, 2, Alignment::Any);
    let old = l.read_halves(i, 1, Alignment::Any);
    let r = match i.immediate8() & 1 {
        0 => Halves { low: new, ..old },
        _ => Halves::pair(old.low, new),
    };
    l.write_halves(i, 0, r);
}

/// VPERM2F128, VPERM2I128: each half of the result is one of four halves, or zero.
pub(super) fn permute_halves(l: &mut Lifter<'_>, i: &Insn) {
    let b = l.read_halves(i, 2, Alignment::Any);
    let a = l.read_halves(i, 1, Alignment::Any);
    let choice = |l: &mut Lifter<'_>, field: u8| match field {
        _ if field & 8 != 0 => l.b.vconst([0, 0]),
        _ => [a.low, a.upper(), b.low, b.upper()][usize::from(field & 3)],
    };
    let low = choice(l, i.immediate8());
    let high = choice(l, i.immediate8() >> 4);
    l.write_halves(i, 0, Halves::pair(low, high));
}

/// VPERMQ, VPERMPD: four 64-bit lanes by the immediate.
pub(super) fn permute_quads(l: &mut Lifter<'_>, i: &Insn) {
    let a = l.read_halves(i, 1, Alignment::Any);
    let imm = i.immediate8();
    let [low, high] = [imm, imm >> 4].map(|fields| {
        let [x, y] = [fields & 3, fields >> 2 & 3].map(|lane| {
            let half = if lane < 2 { a.low } else { a.upper() };
            l.b.extract_lane(Type::I64x2, half, u32::from(lane & 1))
        });
        l.b.binary(Op::Concat, Type::I64x2, x, y)
    });
    l.write_halves(i, 0, Halves::pair(low, high));
}

/// VPERMD, VPERMPS: eight 32-bit lanes of the last operand by the indices in the first source.
pub(super) fn permute_lanes(l: &mut Lifter<'_>, i: &Insn) {
    let a = l.read_halves(i, 2, Alignment::Any);
    let indices = l.read_halves(i, 1, Alignment::Any);
    let r = indices.map(l, |l, _, indices| l.b.call(Helper::Permute8, &[a.low, a.upper(), indices]));
    l.write_halves(i, 0, r);
}

/// VPERMILPS, VPERMILPD: lanes of `width` bytes within each half, by an immediate or by a vector.
pub(super) fn permute_within(l: &mut Lifter<'_>, i: &Insn, width: u8) {
    if i.op_kind(2) == OpKind::Immediate8 {
        let a = l.read_halves(i, 1, Alignment::Any);
        let r = a.map(l, |l, half, a| l.b.shuffle(a, a, immediate_lanes(i.immediate8(), width, half)));
        return l.write_halves(i, 0, r);
    }
    vec_halves(l, i, |l, _, a, by| {
        let mask = |l: &mut Lifter<'_>, word| l.b.vconst([word, word]);
        // Index of the lane times its width, in each of its bytes, plus the byte's number.
        let (chosen, spread, offsets) = match width {
            4 => (mask(l, 0x0000_0003_0000_0003), SPREAD_4, mask(l, 0x0302_0100_0302_0100)),
            _ => (mask(l, 2), SPREAD_8, mask(l, 0x0706_0504_0302_0100)),
        };
        let lanes = l.b.binary(Op::Band, Type::V128, by, chosen);
        let two = l.b.iconst(Type::I64, 2);
        let first = l.b.binary(Op::Vshl, Type::I32x4, lanes, two);
        let first = l.b.shuffle(first, first, spread);
        let bytes = l.b.binary(Op::Bor, Type::V128, first, offsets);
        l.b.binary(Op::Swizzle, Type::I8x16, a, bytes)
    });
}

/// The first byte of each lane of 4 or 8 bytes, in all its bytes.
const SPREAD_4: [u8; 16] = [0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12];
const SPREAD_8: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 8, 8, 8, 8, 8, 8, 8, 8];

/// The lanes that VPERMILPS's immediate names, or VPERMILPD's, which has bits of its own for the upper half.
fn immediate_lanes(imm: u8, width: u8, half: u8) -> [u8; 16] {
    std::array::from_fn(|k| {
        let (lane, byte) = (k as u8 / width, k as u8 % width);
        let from = if width == 4 { imm >> (2 * lane) & 3 } else { imm >> (2 * half + lane) & 1 };
        from * width + byte
    })
}

/// VBLENDVPS and kin: the chooser is the last operand.
pub(super) fn blend_by_operand(l: &mut Lifter<'_>, i: &Insn, shape: Type) {
    let b = l.read_halves(i, 2, Alignment::Any);
    let a = l.read_halves(i, 1, Alignment::Any);
    let by = l.read_halves(i, 3, Alignment::Any);
    let low = choose(l, by.low, shape, a.low, b.low);
    let high = is_wide(i).then(|| choose(l, by.upper(), shape, a.upper(), b.upper()));
    l.write_halves(i, 0, Halves { low, high });
}

/// Which way VPSLLVD and kin shift; the codes of `Helper::ShiftLanes`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum By {
    Left,
    Right,
    /// Right, sign bits in.
    Signed,
}

/// VPSLLVD and kin: lanes of type `lane` shifted by lanes.
pub(super) fn shift_by_lanes(l: &mut Lifter<'_>, i: &Insn, by: By, lane: Type) {
    vec_halves(l, i, |l, _, a, b| {
        let how = l.b.iconst(Type::I32, u64::from(lane.bits()) | (by as u64) << 8);
        l.b.call(Helper::ShiftLanes, &[a, b, how])
    });
}

/// VCVTPS2PD, VCVTDQ2PD: the lanes of the source's low end become wider.
pub(super) fn widen(l: &mut Lifter<'_>, i: &Insn, op: Op) {
    let a = l.read_vec(i, 1, Alignment::Any);
    let low = l.b.unary(op, Type::F64x2, a);
    let high = is_wide(i).then(|| {
        let upper = l.b.extract_lane(Type::I64x2, a, 1);
        let upper = l.b.unary(Op::ScalarToVector, Type::I64x2, upper);
        l.b.unary(op, Type::F64x2, upper)
    });
    l.write_halves(i, 0, Halves { low, high });
}

/// VCVTPD2PS, VCVTPD2DQ, VCVTTPD2DQ: the lanes become narrower, and the upper half of the result zero.
pub(super) fn narrow(l: &mut Lifter<'_>, i: &Insn, op: Op, shape: Type) {
    let a = l.read_halves(i, 1, Alignment::Any);
    let r = a.map(l, |l, _, a| l.b.unary(op, shape, a));
    let r = match r.high {
        Some(high) => join_low(l, r.low, high),
        None => r.low,
    };
    l.write_xmm(i, 0, r);
}

/// VCVTPH2PS.
pub(super) fn from_half_precision(l: &mut Lifter<'_>, i: &Insn) {
    let a = l.read_vec(i, 1, Alignment::Any);
    let low = l.b.call(Helper::HalfToF32x4, &[a]);
    let high = is_wide(i).then(|| {
        let upper = l.b.extract_lane(Type::I64x2, a, 1);
        let upper = l.b.unary(Op::ScalarToVector, Type::I64x2, upper);
        l.b.call(Helper::HalfToF32x4, &[upper])
    });
    l.write_halves(i, 0, Halves { low, high });
}

/// VCVTPS2PH: rounded by the immediate, or by MXCSR if its bit 2 is set.
pub(super) fn to_half_precision(l: &mut Lifter<'_>, i: &Insn) {
    l.probe_ends(i);
    let a = l.read_halves(i, 1, Alignment::Any);
    let mode = super::sse_float::rounding_mode(l, i);
    let r = a.map(l, |l, _, a| l.b.call(Helper::F32x4ToHalf, &[a, mode]));
    let r = match r.high {
        Some(high) => join_low(l, r.low, high),
        None => r.low,
    };
    match (i.op_kind(0), is_wide(i)) {
        (OpKind::Register, _) => l.write_xmm(i, 0, r),
        (_, true) => l.store_xmm(i, Type::V128, r, Alignment::Any),
        (_, false) => {
            let low = l.b.extract_lane(Type::I64x2, r, 0);
            l.store_xmm(i, Type::I64, low, Alignment::Any);
        }
    }
}

/// Which operands of a fused multiply-add are multiplied, as its name says: the first two digits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Order {
    O132,
    O213,
    O231,
}

impl Order {
    /// (multiplicand, multiplier, addend) out of the three operands.
    fn pick<T: Copy>(self, [x, y, z]: [T; 3]) -> [T; 3] {
        match self {
            Order::O132 => [x, z, y],
            Order::O213 => [y, x, z],
            Order::O231 => [y, z, x],
        }
    }
}

/// VFMADDxxxPS and kin.
pub(super) fn fused(l: &mut Lifter<'_>, i: &Insn, op: Op, order: Order, shape: Type) {
    fused_halves(l, i, order, |l, [x, y, z]| l.b.ternary(op, shape, x, y, z));
}

/// VFMADDSUBxxx, VFMSUBADDxxx: one operation in the even lanes, another in the odd ones.
pub(super) fn fused_alternating(l: &mut Lifter<'_>, i: &Insn, even: Op, odd: Op, order: Order, shape: Type) {
    fused_halves(l, i, order, |l, operands| {
        alternating(l, shape, operands, |l, lanes, [x, y, z]| {
            let op = if lanes == Parity::Even { even } else { odd };
            l.b.ternary(op, shape, x, y, z)
        })
    });
}

fn fused_halves(l: &mut Lifter<'_>, i: &Insn, order: Order, f: impl Fn(&mut Lifter<'_>, [Value; 3]) -> Value) {
    let c = l.read_halves(i, 2, Alignment::Any);
    let [a, b] = [0, 1].map(|op| l.read_halves(i, op, Alignment::Any));
    let low = f(l, order.pick([a.low, b.low, c.low]));
    let high = is_wide(i).then(|| f(l, order.pick([a.upper(), b.upper(), c.upper()])));
    l.write_halves(i, 0, Halves { low, high });
}

/// VFMADDxxxSD and kin; the rest of the destination stays, up to bit 127.
pub(super) fn fused_scalar(l: &mut Lifter<'_>, i: &Insn, op: Op, order: Order, ty: Type) {
    let c = l.read_xmm_low_or_mem(i, 2, ty);
    let [a, b] = [0, 1].map(|op| l.read_xmm_low_or_mem(i, op, ty));
    let [x, y, z] = order.pick([a, b, c]);
    let r = l.b.ternary(op, ty, x, y, z);
    let old = l.read_xmm(i, 0);
    let new = l.b.insert_lane(vector_of(ty), old, r, 0);
    l.write_xmm(i, 0, new);
}

/// The lanes of a masked access: how many, how wide, and where the mask's sign bits are.
#[derive(Clone, Copy)]
struct Lanes {
    ty: Type,
    count: u32,
}

impl Lanes {
    fn of(i: &Insn, ty: Type) -> Lanes {
        Lanes { ty, count: vector_of(ty).lanes() * if is_wide(i) { 2 } else { 1 } }
    }

    fn per_half(self) -> u32 {
        vector_of(self.ty).lanes()
    }

    /// The half and the lane within it.
    fn split(self, lane: u32) -> (Half, u32) {
        let half = if lane < self.per_half() { Half::Low } else { Half::High };
        (half, lane % self.per_half())
    }
}

/// One lane of a vector operand in halves.
fn lane_of(l: &mut Lifter<'_>, v: Halves, lanes: Lanes, lane: u32) -> Value {
    let (half, at) = lanes.split(lane);
    let v = if half == Half::Low { v.low } else { v.upper() };
    l.b.extract_lane(vector_of(lanes.ty), v, at)
}

/// `i1`: whether the lane's sign bit is set.
fn is_enabled(l: &mut Lifter<'_>, mask: Halves, lanes: Lanes, lane: u32) -> Value {
    let v = lane_of(l, mask, lanes, lane);
    let zero = l.b.iconst(lanes.ty, 0);
    l.b.icmp(Cc::SignedLessThan, lanes.ty, v, zero)
}

/// VMASKMOVPS, VMASKMOVPD, VPMASKMOVD, VPMASKMOVQ.
pub(super) fn masked_move(l: &mut Lifter<'_>, i: &Insn, ty: Type) {
    match i.op_kind(0) {
        OpKind::Register => masked_load(l, i, Lanes::of(i, ty)),
        _ => masked_store(l, i, Lanes::of(i, ty)),
    }
}

fn masked_load(l: &mut Lifter<'_>, i: &Insn, lanes: Lanes) {
    let [some, none, end] = std::array::from_fn(|_| l.b.create_block(l.pc));
    let mask = l.read_halves(i, 1, Alignment::Any);
    let bits = enabled_bits(l, mask, lanes);
    let any = l.compare_zero(Cc::NotEqual, Type::I32, bits);
    l.close(Exit::Branch { cond: any, taken: Target::Block(some), fallthrough: Target::Block(none) });

    l.reopen(some);
    let mask = l.read_halves(i, 1, Alignment::Any);
    let bits = enabled_bits(l, mask, lanes);
    let first = l.b.unary(Op::Ctz, Type::I32, bits);
    let size = l.b.iconst(Type::I32, u64::from(lanes.ty.bytes()));
    let first = l.b.binary(Op::Imul, Type::I32, first, size);
    let first = l.b.unary(Op::Uextend, Type::I64, first);
    let m = l.addr(i);
    let base = l.addr_value(m);
    let zero = l.b.iconst(lanes.ty, 0);
    let values: Vec<Value> = (0..lanes.count)
        .map(|lane| {
            let own = l.b.iconst(Type::I64, u64::from(lane * lanes.ty.bytes()));
            let enabled = is_enabled(l, mask, lanes, lane);
            let offset = l.b.select(Type::I64, enabled, own, first);
            let at = l.b.binary(Op::Iadd, Type::I64, base, offset);
            let v = l.b.load(lanes.ty, Mem::base(at));
            l.b.select(lanes.ty, enabled, v, zero)
        })
        .collect();
    let halves: Vec<Value> =
        values.chunks(lanes.per_half() as usize).map(|values| gathered(l, lanes, values)).collect();
    l.write_halves(i, 0, Halves { low: halves[0], high: halves.get(1).copied() });
    l.close(Exit::Goto(Target::Block(end)));

    l.reopen(none);
    let zero = l.b.vconst([0, 0]);
    write_doubled(l, i, zero);
    l.close(Exit::Goto(Target::Block(end)));

    l.reopen(end);
    l.close(Exit::Goto(Target::Pc(l.next)));
}

/// A vector of scalars.
fn gathered(l: &mut Lifter<'_>, lanes: Lanes, values: &[Value]) -> Value {
    let shape = vector_of(lanes.ty);
    let first = l.b.unary(Op::ScalarToVector, shape, values[0]);
    (1..lanes.per_half()).fold(first, |v, lane| l.b.insert_lane(shape, v, values[lane as usize], lane))
}

/// The mask's sign bits, lane 0 in bit 0.
fn enabled_bits(l: &mut Lifter<'_>, mask: Halves, lanes: Lanes) -> Value {
    let shape = vector_of(lanes.ty);
    let low = l.b.unary(Op::HighBits, shape, mask.low);
    let Some(high) = mask.high else { return low };
    let high = l.b.unary(Op::HighBits, shape, high);
    let by = l.b.iconst(Type::I32, u64::from(lanes.per_half()));
    let high = l.b.binary(Op::Ishl, Type::I32, high, by);
    l.b.binary(Op::Bor, Type::I32, low, high)
}

fn masked_store(l: &mut Lifter<'_>, i: &Insn, lanes: Lanes) {
    let address = |l: &mut Lifter<'_>| {
        let m = l.addr(i);
        l.addr_value(m)
    };
    let enabled = |l: &mut Lifter<'_>| {
        let mask = l.read_halves(i, 1, Alignment::Any);
        enabled_bits(l, mask, lanes)
    };
    probe_masked_store(l, lanes.ty, lanes.count, address, enabled);
    for lane in 0..lanes.count {
        let [store, next] = std::array::from_fn(|_| l.b.create_block(l.pc));
        let mask = l.read_halves(i, 1, Alignment::Any);
        branch_if_enabled(l, mask, lanes, lane, store, next);

        l.reopen(store);
        let v = l.read_halves(i, 2, Alignment::Any);
        let v = lane_of(l, v, lanes, lane);
        let m = l.addr(i);
        let m = l.displaced(m, (lane * lanes.ty.bytes()) as i32);
        l.b.store(lanes.ty, m, v);
        l.close(Exit::Goto(Target::Block(next)));
        l.reopen(next);
    }
    l.close(Exit::Goto(Target::Pc(l.next)));
}

/// Before a masked store of `count` elements of type `ty`: if it crosses a page, its first and its last enabled element are
/// written with what they hold, so that a fault comes before anything changes. The store is about to replace them.
pub(super) fn probe_masked_store(
    l: &mut Lifter<'_>,
    ty: Type,
    count: u32,
    address: impl Fn(&mut Lifter<'_>) -> Value,
    enabled: impl Fn(&mut Lifter<'_>) -> Value,
) {
    let (at, bits) = (address(l), enabled(l));
    let crosses = l.crosses_page(at, count * ty.bytes());
    let any = l.compare_zero(Cc::NotEqual, Type::I32, bits);
    let cond = l.b.binary(Op::Band, Type::I1, crosses, any);
    l.section(cond, |l| {
        let (at, bits) = (address(l), enabled(l));
        let first = l.b.unary(Op::Ctz, Type::I32, bits);
        let (leading, top) = (l.b.unary(Op::Clz, Type::I32, bits), l.b.iconst(Type::I32, 31));
        let last = l.b.binary(Op::Isub, Type::I32, top, leading);
        for element in [first, last] {
            let by = l.b.iconst(Type::I32, u64::from(ty.bytes().trailing_zeros()));
            let offset = l.b.binary(Op::Ishl, Type::I32, element, by);
            let offset = l.b.unary(Op::Uextend, Type::I64, offset);
            let at = l.b.binary(Op::Iadd, Type::I64, at, offset);
            l.probe(ty, at);
        }
    });
}

fn branch_if_enabled(l: &mut Lifter<'_>, mask: Halves, lanes: Lanes, lane: u32, yes: BlockId, no: BlockId) {
    let cond = is_enabled(l, mask, lanes, lane);
    l.close(Exit::Branch { cond, taken: Target::Block(yes), fallthrough: Target::Block(no) });
}

/// VGATHERDPS and kin: `ty` is the element, `index` the index's type. The destination's elements arrive one by one, each
/// clearing its mask element; at the end the whole mask is zero.
pub(super) fn gather(l: &mut Lifter<'_>, i: &Insn, ty: Type, index: Type) {
    let [to, by, mask] = [i.op_register(0), i.memory_index(), i.op_register(2)];
    let indices = (if by.is_ymm() { 2 } else { 1 }) * vector_of(index).lanes();
    let lanes = Lanes { ty, count: indices.min(vector_of(ty).lanes() * if to.is_ymm() { 2 } else { 1 }) };
    for lane in 0..lanes.count {
        let [load, next] = std::array::from_fn(|_| l.b.create_block(l.pc));
        let wanted = register_halves(l, mask);
        branch_if_enabled(l, wanted, lanes, lane, load, next);

        l.reopen(load);
        let m = gather_address(l, i, by, index, lane);
        let v = l.b.load(ty, m);
        replace_lane(l, to, lanes, lane, v);
        l.close(Exit::Goto(Target::Block(next)));

        l.reopen(next);
        let zero = l.b.iconst(ty, 0);
        replace_lane(l, mask, lanes, lane, zero);
    }
    let zero = l.b.vconst([0, 0]);
    l.set_xmm(mask.number(), zero);
    l.clear_upper(mask.number());
    if lanes.count * ty.bytes() <= 16 {
        l.clear_upper(to.number());
    }
    if lanes.count * ty.bytes() < 16 {
        let low = l.xmm(to.number());
        let low = l.b.extract_lane(Type::I64x2, low, 0);
        let low = l.b.unary(Op::ScalarToVector, Type::I64x2, low);
        l.set_xmm(to.number(), low);
    }
    l.close(Exit::Goto(Target::Pc(l.next)));
}

fn register_halves(l: &mut Lifter<'_>, r: Register) -> Halves {
    let low = l.xmm(r.number());
    let high = l.ymmh(r.number());
    Halves::pair(low, high)
}

fn replace_lane(l: &mut Lifter<'_>, r: Register, lanes: Lanes, lane: u32, v: Value) {
    let (half, at) = lanes.split(lane);
    let shape = vector_of(lanes.ty);
    let n = r.number();
    if half == Half::Low {
        let old = l.xmm(n);
        let new = l.b.insert_lane(shape, old, v, at);
        l.set_xmm(n, new);
    } else {
        let old = l.ymmh(n);
        let new = l.b.insert_lane(shape, old, v, at);
        l.set_ymmh(n, new);
    }
}

/// Base plus the scaled, sign-extended index lane plus displacement.
fn gather_address(l: &mut Lifter<'_>, i: &Insn, by: Register, index: Type, lane: u32) -> Mem {
    let indices = register_halves(l, by);
    let width = Lanes { ty: index, count: 0 };
    let v = lane_of(l, indices, width, lane);
    let v = if index == Type::I64 { v } else { l.b.unary(Op::Sextend, Type::I64, v) };
    let scale = l.b.iconst(Type::I64, u64::from(i.memory_index_scale().trailing_zeros()));
    let v = l.b.binary(Op::Ishl, Type::I64, v, scale);
    let m = l.addr(i);
    let base = l.addr_value(m);
    let at = l.b.binary(Op::Iadd, Type::I64, base, v);
    Mem::base(at)
}

/// VZEROUPPER, VZEROALL.
pub(super) fn vzero(l: &mut Lifter<'_>, _: &Insn, what: Zero) {
    for n in 0..16 {
        l.clear_upper(n);
        if what == Zero::All {
            let zero = l.vector_zero();
            l.set_xmm(n, zero);
        }
    }
}

/// What VZEROUPPER and VZEROALL clear.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Zero {
    Upper,
    All,
}
