//! SSE data movement: whole registers, halves, scalars, lanes and masks.

use super::avx::probe_masked_store;
use super::operand::gpr::RDI;
use super::operand::{Alignment, Gpr, vector_of};
use super::string::{StringOp, string};
use super::vex::{first_source, second_source};
use super::{Insn, Lifter};
use calque_ir::state::{MXCSR_DAZ, MXCSR_FTZ, MXCSR_MASKS};
use calque_ir::{Exit, FaultKind, Mem, Op, Reg, Target, Type, Value};
use iced_x86::{OpKind, Register};

/// A half of an XMM register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Half {
    Low,
    High,
}

impl Half {
    fn lane(self) -> u32 {
        self as u32
    }
}

/// MOVAPS and kin: whole registers, loads and stores.
pub(super) fn mov_vec(l: &mut Lifter<'_>, i: &Insn, alignment: Alignment) {
    if i.op_kind(0) != OpKind::Register && alignment == Alignment::Any {
        l.probe_parts(i);
    }
    let v = l.read_halves(i, 1, alignment);
    match i.op_kind(0) {
        OpKind::Register => l.write_halves(i, 0, v),
        _ => l.store_halves(i, v, alignment),
    }
}

/// MOVNTQ: an MMX register to memory.
pub(super) fn movntq(l: &mut Lifter<'_>, i: &Insn) {
    let v = l.read_mm(i.op_register(1));
    l.write(i, 0, v);
    l.enter_mmx(i);
}

/// MOVSS and MOVSD: between registers one lane moves, a load clears the rest.
pub(super) fn mov_scalar(l: &mut Lifter<'_>, i: &Insn, ty: Type) {
    if i.op_kind(0) != OpKind::Register {
        let v = l.read_xmm_low_or_mem(i, 1, ty);
        return l.store_xmm(i, ty, v, Alignment::Any);
    }
    if i.op_kind(1) != OpKind::Register {
        let v = l.load_scalar_to_vec(i, ty);
        return l.write_xmm(i, 0, v);
    }
    let v = l.read_xmm_low_or_mem(i, second_source(i), ty);
    l.write_xmm_low(i, ty, v);
}

/// MOVSD, a mnemonic that SSE2 and the string instructions share.
pub(super) fn movsd(l: &mut Lifter<'_>, i: &Insn) {
    match has_xmm(i) {
        true => mov_scalar(l, i, Type::F64),
        false => string(l, i, StringOp::Movs, Type::I32),
    }
}

/// Whether an operand is an XMM register.
pub(super) fn has_xmm(i: &Insn) -> bool {
    (0..i.op_count()).any(|op| i.op_kind(op) == OpKind::Register && i.op_register(op).is_xmm())
}

/// Whether operand `op` is a vector or MMX register.
fn is_vec(i: &Insn, op: u32) -> bool {
    i.op_kind(op) == OpKind::Register && Gpr::from_iced(i.op_register(op)).is_none()
}

/// MOVD and MOVQ, in all directions; a vector register is written with zeros above.
pub(super) fn mov_dq(l: &mut Lifter<'_>, i: &Insn, ty: Type) {
    // iced calls the forms with a general register of 64 bits MOVQ, so `ty` is right for them, too.
    if is_vec(i, 0) {
        let v = match is_vec(i, 1) {
            true => {
                let v = l.read_vec(i, 1, Alignment::Any);
                l.b.extract_lane(vector_of(ty), v, 0)
            }
            false => l.read_as(i, 1, ty),
        };
        let v = l.b.unary(Op::ScalarToVector, vector_of(ty), v);
        return l.write_vec(i, 0, v);
    }
    let r = i.op_register(1);
    let v = match r.is_mm() {
        true => {
            let v = l.read_mm(r);
            if ty == Type::I64 { v } else { l.b.unary(Op::Ireduce, ty, v) }
        }
        false => l.read_xmm_low_or_mem(i, 1, ty),
    };
    l.write(i, 0, v);
    l.enter_mmx(i);
}

/// MOVLPS, MOVHPS and their PD forms: one half to or from memory.
pub(super) fn mov_half(l: &mut Lifter<'_>, i: &Insn, half: Half) {
    if i.op_kind(0) == OpKind::Register {
        let m = l.addr(i);
        let v = l.b.load(Type::I64, m);
        let old = l.read_xmm(i, first_source(i));
        let new = l.b.insert_lane(Type::I64x2, old, v, half.lane());
        return l.write_xmm(i, 0, new);
    }
    let v = l.read_xmm(i, 1);
    let v = l.b.extract_lane(Type::I64x2, v, half.lane());
    l.write(i, 0, v);
}

/// MOVHLPS and MOVLHPS: one half of the source to the other half of the destination.
pub(super) fn mov_across(l: &mut Lifter<'_>, i: &Insn, from: Half, to: Half) {
    let source = l.read_xmm(i, second_source(i));
    let v = l.b.extract_lane(Type::I64x2, source, from.lane());
    let old = l.read_xmm(i, first_source(i));
    let new = l.b.insert_lane(Type::I64x2, old, v, to.lane());
    l.write_xmm(i, 0, new);
}

/// MOVMSKPS, MOVMSKPD, PMOVMSKB: the lanes' sign bits to a general register.
pub(super) fn mov_mask(l: &mut Lifter<'_>, i: &Insn, shape: Type) {
    let v = l.read_halves(i, 1, Alignment::Any);
    let v = v.map(l, |l, _, v| l.b.unary(Op::HighBits, shape, v));
    let bits = match v.high {
        Some(high) => {
            let lanes = l.b.iconst(Type::I32, u64::from(shape.lanes()));
            let high = l.b.binary(Op::Ishl, Type::I32, high, lanes);
            l.b.binary(Op::Bor, Type::I32, v.low, high)
        }
        None => v.low,
    };
    write_gpr_zero_extended(l, i, bits);
    l.enter_mmx(i);
}

/// Writes an `i32` to general register operand 0; a 64-bit one gets zeros above.
fn write_gpr_zero_extended(l: &mut Lifter<'_>, i: &Insn, v: Value) {
    let n = match Gpr::from_iced(i.op_register(0)) {
        Some(Gpr::R64(n) | Gpr::R32(n)) => n,
        other => unreachable!("{other:?} takes no mask"),
    };
    l.write_gpr(Gpr::R32(n), v);
}

/// PINSRB, PINSRW, PINSRD, PINSRQ: a lane from a general register or memory.
pub(super) fn insert(l: &mut Lifter<'_>, i: &Insn, ty: Type) {
    let shape = vector_of(ty);
    let lane = i.immediate8() as u32 & (lanes(i, shape) - 1);
    let v = l.read_as(i, second_source(i), ty);
    // The register form of the narrow ones reads a wider register.
    let v = if l.b.ty(v) == ty { v } else { l.b.unary(Op::Ireduce, ty, v) };
    let old = l.read_vec(i, first_source(i), Alignment::Any);
    let new = l.b.insert_lane(shape, old, v, lane);
    l.write_vec(i, 0, new);
}

/// PEXTRB, PEXTRW, PEXTRD, PEXTRQ, EXTRACTPS: a lane to a general register (zero-extended) or memory.
pub(super) fn extract(l: &mut Lifter<'_>, i: &Insn, ty: Type) {
    let shape = vector_of(ty);
    let source = l.read_vec(i, 1, Alignment::Any);
    let lane = i.immediate8() as u32 & (lanes_of(i.op_register(1), shape) - 1);
    let v = l.b.extract_lane(shape, source, lane);
    l.enter_mmx(i);
    if i.op_kind(0) != OpKind::Register || ty == Type::I64 {
        return l.write(i, 0, v);
    }
    let v = if ty == Type::I32 { v } else { l.b.unary(Op::Uextend, Type::I32, v) };
    write_gpr_zero_extended(l, i, v);
}

fn lanes(i: &Insn, shape: Type) -> u32 {
    lanes_of(i.op_register(0), shape)
}

/// Lanes of `shape` that a register has: an MMX register half of them.
fn lanes_of(r: Register, shape: Type) -> u32 {
    if r.is_mm() { shape.lanes() / 2 } else { shape.lanes() }
}

/// INSERTPS: lane 0 of memory or a chosen lane of a register, to a chosen lane; others cleared by a mask.
pub(super) fn insertps(l: &mut Lifter<'_>, i: &Insn) {
    let imm = i.immediate8();
    let second = second_source(i);
    let v = match i.op_kind(second) {
        OpKind::Register => {
            let source = l.read_xmm(i, second);
            l.b.extract_lane(Type::I32x4, source, u32::from(imm >> 6))
        }
        _ => l.read_as(i, second, Type::I32),
    };
    let old = l.read_xmm(i, first_source(i));
    let new = l.b.insert_lane(Type::I32x4, old, v, u32::from(imm >> 4 & 3));
    let keep = |lane: u32| if imm >> lane & 1 != 0 { 0 } else { 0xffff_ffff << (32 * (lane & 1)) };
    let mask = l.b.vconst([keep(0) | keep(1), keep(2) | keep(3)]);
    let new = l.b.binary(Op::Band, Type::V128, new, mask);
    l.write_xmm(i, 0, new);
}

/// MASKMOVDQU and MASKMOVQ: stores the bytes whose mask byte has its top bit set, to DS:RDI.
///
/// A block a byte: bytes that are not selected are neither read nor written.
pub(super) fn maskmov(l: &mut Lifter<'_>, i: &Insn) {
    let bytes = if i.op_register(1).is_mm() { 8 } else { 16 };
    let selected = |l: &mut Lifter<'_>| {
        let mask = l.read_vec(i, 2, Alignment::Any);
        let bits = l.b.unary(Op::HighBits, Type::I8x16, mask);
        let own = l.b.iconst(Type::I32, (1 << bytes) - 1);
        l.b.binary(Op::Band, Type::I32, bits, own)
    };
    probe_masked_store(l, Type::I8, bytes, |l| string_destination(l, i), selected);
    for n in 0..bytes {
        let [store, next] = std::array::from_fn(|_| l.b.create_block(l.pc));
        let mask = l.read_vec(i, 2, Alignment::Any);
        let selected = l.b.extract_lane(Type::I8x16, mask, n);
        let zero = l.b.iconst(Type::I8, 0);
        let selected = l.b.icmp(calque_ir::Cc::SignedLessThan, Type::I8, selected, zero);
        l.close(Exit::Branch { cond: selected, taken: Target::Block(store), fallthrough: Target::Block(next) });

        l.reopen(store);
        let data = l.read_vec(i, 1, Alignment::Any);
        let byte = l.b.extract_lane(Type::I8x16, data, n);
        let at = string_destination(l, i);
        l.b.store(Type::I8, Mem { disp: n as i32, ..Mem::base(at) }, byte);
        l.close(Exit::Goto(Target::Block(next)));
        l.reopen(next);
    }
    l.enter_mmx(i);
    l.close(Exit::Goto(Target::Pc(l.next)));
}

/// DS:rDI, where the segment may be overridden.
fn string_destination(l: &mut Lifter<'_>, i: &Insn) -> Value {
    let narrow = i.op_kind(0) == OpKind::MemorySegEDI;
    let at = match narrow {
        true => {
            let low = l.read_gpr(Gpr::R32(RDI));
            l.b.unary(Op::Uextend, Type::I64, low)
        }
        false => l.gpr64(RDI),
    };
    let segment = match i.segment_prefix() {
        Register::FS => Reg::FS_BASE,
        Register::GS => Reg::GS_BASE,
        _ => return at,
    };
    let base = l.b.get(Type::I64, segment);
    l.b.binary(Op::Iadd, Type::I64, base, at)
}

/// LDMXCSR: reserved bits set are #GP (SDM vol. 1 10.2.3). The block ends, so that engines that keep the rounding
/// mode in a host register take it up.
pub(super) fn ldmxcsr(l: &mut Lifter<'_>, i: &Insn) {
    let v = l.read_as(i, 0, Type::I32);
    set_mxcsr(l, v);
    let unusual = unusual_mxcsr(l, v);
    l.leave_if_unusual(unusual);
    l.close(Exit::Goto(Target::Pc(l.next)));
}

/// Not zero (an `i32`) if MXCSR as `v` has it is unusual: see [`FaultKind::FloatControl`].
pub(super) fn unusual_mxcsr(l: &mut Lifter<'_>, v: Value) -> Value {
    let usual = l.b.iconst(Type::I32, MXCSR_MASKS.into());
    let control = l.b.iconst(Type::I32, (MXCSR_MASKS | MXCSR_DAZ | MXCSR_FTZ).into());
    let differs = l.b.binary(Op::Bxor, Type::I32, v, usual);
    l.b.binary(Op::Band, Type::I32, differs, control)
}

/// Checks and writes MXCSR.
pub(super) fn set_mxcsr(l: &mut Lifter<'_>, v: Value) {
    let reserved = l.b.iconst(Type::I32, !u64::from(MXCSR_MASK));
    let bad = l.b.binary(Op::Band, Type::I32, v, reserved);
    let bad = l.compare_zero(calque_ir::Cc::NotEqual, Type::I32, bad);
    l.b.fault_if(FaultKind::GeneralProtection, bad);
    l.b.put(Reg::MXCSR, v);
}

/// Bits of MXCSR that exist, DAZ included: what FXSAVE reports as MXCSR_MASK.
pub(super) const MXCSR_MASK: u32 = 0xffff;

/// STMXCSR.
pub(super) fn stmxcsr(l: &mut Lifter<'_>, i: &Insn) {
    let v = l.b.get(Type::I32, Reg::MXCSR);
    l.write(i, 0, v);
}
