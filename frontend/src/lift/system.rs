//! Flags as data, CPUID and its kin, segment bases, fences, privileged instructions.

use super::flags::{Flag, FlagSet};
use super::mov::push_value;
use super::operand::Gpr;
use super::operand::gpr::*;
use super::{Insn, Lifter};
use calque_ir::{Cc, Exit, FaultKind, Helper, Mem, Op, Reg, Type, Value};

/// Places of the status flags in RFLAGS, in the order of `Reg::STATUS` (SDM vol. 1 3.4.3).
const PLACES: [(Flag, u32); 6] =
    [(Flag::Cf, 0), (Flag::Pf, 2), (Flag::Af, 4), (Flag::Zf, 6), (Flag::Sf, 7), (Flag::Of, 11)];
/// Place of DF.
const DF: u32 = 10;
/// Bit 1, which is always set, and IF.
const ALWAYS: u64 = 1 << 1 | 1 << 9;

/// `bits` with the `i1` value `flag` at place `n`.
fn with_flag(l: &mut Lifter<'_>, bits: Value, flag: Value, n: u32) -> Value {
    let wide = l.b.unary(Op::Uextend, Type::I64, flag);
    let at = l.b.iconst(Type::I64, u64::from(n));
    let moved = l.b.binary(Op::Ishl, Type::I64, wide, at);
    l.b.binary(Op::Bor, Type::I64, bits, moved)
}

/// The status flags among `flags` at their places, over `bits`.
fn with_status(l: &mut Lifter<'_>, mut bits: Value, flags: FlagSet) -> Value {
    for (flag, n) in PLACES.into_iter().filter(|(f, _)| flags.contains(*f)) {
        let v = l.flag(flag);
        bits = with_flag(l, bits, v, n);
    }
    bits
}

fn set_status(l: &mut Lifter<'_>, image: Value, flags: FlagSet) {
    for (flag, n) in PLACES.into_iter().filter(|(f, _)| flags.contains(*f)) {
        let v = l.bit(image, n, l.b.ty(image));
        l.set_flag(flag, v);
    }
}

pub(super) fn pushf(l: &mut Lifter<'_>, _: &Insn, ty: Type) {
    let rest = l.b.get(Type::I32, Reg::FLAGS_REST);
    let rest = l.b.unary(Op::Uextend, Type::I64, rest);
    let always = l.b.iconst(Type::I64, ALWAYS);
    let bits = l.b.binary(Op::Bor, Type::I64, rest, always);
    let bits = with_status(l, bits, FlagSet::ALL);
    let df = l.b.get(Type::I1, Reg::DF);
    let bits = with_flag(l, bits, df, DF);
    let v = if ty == Type::I64 { bits } else { l.b.unary(Op::Ireduce, ty, bits) };
    push_value(l, ty, v);
}

pub(super) fn popf(l: &mut Lifter<'_>, _: &Insn, ty: Type) {
    let rsp = l.gpr64(RSP);
    let v = l.b.load(ty, Mem::base(rsp));
    let new = l.add_imm(rsp, i64::from(ty.bytes()));
    l.write_gpr(Gpr::R64(RSP), new);
    let v = if ty == Type::I64 { v } else { l.b.unary(Op::Uextend, Type::I64, v) };
    set_rflags(l, v, ty);
    // The next instruction is to be run alone if TF is set.
    const TF: u64 = 1 << 8;
    let rest = l.b.get(Type::I32, Reg::FLAGS_REST);
    let tf = l.b.iconst(Type::I32, TF);
    let traced = l.b.binary(Op::Band, Type::I32, rest, tf);
    let traced = l.compare_zero(Cc::NotEqual, Type::I32, traced);
    l.leave_if(FaultKind::SingleStep, traced);
}

/// Sets the flags that a program may set from an image of type `ty`, zero-extended to 64 bits.
pub(super) fn set_rflags(l: &mut Lifter<'_>, v: Value, ty: Type) {
    set_status(l, v, FlagSet::ALL);
    let df = l.bit(v, DF, Type::I64);
    l.b.put(Reg::DF, df);
    let low = l.b.unary(Op::Ireduce, Type::I32, v);
    let mask = u64::from(calque_ir::state::FLAGS_REST_MASK);
    // A 16-bit image leaves AC and ID alone.
    let mask = if ty == Type::I16 { mask & 0xffff } else { mask };
    let rest = l.b.iconst(Type::I32, mask);
    let rest = l.b.binary(Op::Band, Type::I32, low, rest);
    let rest = if ty == Type::I16 {
        let old = l.b.get(Type::I32, Reg::FLAGS_REST);
        let keep = l.b.iconst(Type::I32, 0xffff_0000);
        let old = l.b.binary(Op::Band, Type::I32, old, keep);
        l.b.binary(Op::Bor, Type::I32, old, rest)
    } else {
        rest
    };
    l.b.put(Reg::FLAGS_REST, rest);
}

/// The flags in AH: all but OF.
const IN_AH: FlagSet = FlagSet::ALL.without(FlagSet::OF);

pub(super) fn lahf(l: &mut Lifter<'_>, _: &Insn) {
    let one = l.b.iconst(Type::I64, 1 << 1);
    let bits = with_status(l, one, IN_AH);
    let v = l.b.unary(Op::Ireduce, Type::I8, bits);
    l.write_gpr(Gpr::High8(RAX), v);
}

pub(super) fn sahf(l: &mut Lifter<'_>, _: &Insn) {
    let v = l.read_gpr(Gpr::High8(RAX));
    set_status(l, v, IN_AH);
}

/// CLC, STC.
pub(super) fn set_carry(l: &mut Lifter<'_>, _: &Insn, value: bool) {
    l.set_flags_const(FlagSet::CF, value);
}

pub(super) fn flip_carry(l: &mut Lifter<'_>, _: &Insn) {
    let cf = l.flag(Flag::Cf);
    let v = l.not(cf);
    l.set_flag(Flag::Cf, v);
}

/// CLD, STD.
pub(super) fn set_direction(l: &mut Lifter<'_>, _: &Insn, value: bool) {
    let v = l.b.iconst(Type::I1, u64::from(value));
    l.b.put(Reg::DF, v);
}

pub(super) fn cpuid(l: &mut Lifter<'_>, _: &Insn) {
    let (leaf, sub) = (l.read_gpr(Gpr::R32(RAX)), l.read_gpr(Gpr::R32(RCX)));
    let v = l.b.call(Helper::Cpuid, &[leaf, sub]);
    for (lane, n) in [RAX, RBX, RCX, RDX].into_iter().enumerate() {
        let v = l.b.extract_lane(Type::I32x4, v, lane as u32);
        l.write_gpr(Gpr::R32(n), v);
    }
}

/// `v` into EDX:EAX.
fn write_edx_eax(l: &mut Lifter<'_>, v: Value) {
    let low = l.b.unary(Op::Ireduce, Type::I32, v);
    let n = l.b.iconst(Type::I64, 32);
    let high = l.b.binary(Op::Ushr, Type::I64, v, n);
    let high = l.b.unary(Op::Ireduce, Type::I32, high);
    l.write_gpr(Gpr::R32(RAX), low);
    l.write_gpr(Gpr::R32(RDX), high);
}

pub(super) fn rdtsc(l: &mut Lifter<'_>, _: &Insn) {
    let v = l.b.call(Helper::Rdtsc, &[]);
    write_edx_eax(l, v);
}

pub(super) fn rdtscp(l: &mut Lifter<'_>, i: &Insn) {
    rdtsc(l, i);
    let aux = l.b.call(Helper::TscAux, &[]);
    l.write_gpr(Gpr::R32(RCX), aux);
}

pub(super) fn rdpid(l: &mut Lifter<'_>, i: &Insn) {
    let aux = l.b.call(Helper::TscAux, &[]);
    let v = if l.op_type(i, 0) == Type::I64 { l.b.unary(Op::Uextend, Type::I64, aux) } else { aux };
    l.write(i, 0, v);
}

pub(super) fn xgetbv(l: &mut Lifter<'_>, _: &Insn) {
    let ecx = l.read_gpr(Gpr::R32(RCX));
    let other = l.compare_zero(Cc::NotEqual, Type::I32, ecx);
    l.b.fault_if(FaultKind::GeneralProtection, other);
    let v = l.b.iconst(Type::I64, l.opts.xcr0);
    write_edx_eax(l, v);
}

/// RDFSBASE, RDGSBASE.
pub(super) fn read_base(l: &mut Lifter<'_>, i: &Insn, base: Reg) {
    let v = l.b.get(Type::I64, base);
    let v = if l.op_type(i, 0) == Type::I64 { v } else { l.b.unary(Op::Ireduce, Type::I32, v) };
    l.write(i, 0, v);
}

/// WRFSBASE, WRGSBASE: #GP for an address that is not canonical (48 bits).
pub(super) fn write_base(l: &mut Lifter<'_>, i: &Insn, base: Reg) {
    let v = l.read(i, 0);
    if l.op_type(i, 0) == Type::I32 {
        let v = l.b.unary(Op::Uextend, Type::I64, v);
        return l.b.put(base, v);
    }
    let n = l.b.iconst(Type::I64, 16);
    let up = l.b.binary(Op::Ishl, Type::I64, v, n);
    let back = l.b.binary(Op::Sshr, Type::I64, up, n);
    let odd = l.b.icmp(Cc::NotEqual, Type::I64, back, v);
    l.b.fault_if(FaultKind::GeneralProtection, odd);
    l.b.put(base, v);
}

/// MFENCE. LFENCE and SFENCE order nothing that x86-64's memory model leaves open for ordinary accesses.
pub(super) fn fence(l: &mut Lifter<'_>, _: &Insn) {
    l.b.fence();
}

/// CLFLUSH and its kin: nothing to flush, but they fault as a load of a byte does (SDM vol. 2 CLFLUSH).
pub(super) fn touch(l: &mut Lifter<'_>, i: &Insn) {
    let m = l.addr(i);
    l.b.load(Type::I8, m);
}

/// INT n: Linux opens vectors 3, 4 and 0x80 to programs (`arch/x86/kernel/idt.c`), the last for 32-bit system calls; all
/// others are #GP.
pub(super) fn int(l: &mut Lifter<'_>, i: &Insn) {
    match i.immediate8() {
        3 => trap_behind(l, i, FaultKind::Breakpoint),
        4 => trap_behind(l, i, FaultKind::Overflow),
        0x80 => l.fault(FaultKind::Compatibility),
        _ => l.fault(FaultKind::GeneralProtection),
    }
}

/// RDRAND, RDSEED: always succeed, which CF says; the other status flags become 0.
pub(super) fn random(l: &mut Lifter<'_>, i: &Insn) {
    let v = l.b.call(Helper::Random, &[]);
    let ty = l.op_type(i, 0);
    let v = if ty == Type::I64 { v } else { l.b.unary(Op::Ireduce, ty, v) };
    l.write(i, 0, v);
    l.set_flags_const(FlagSet::ALL, false);
    l.set_flags_const(FlagSet::CF, true);
}

/// INT3, INT1: traps, with the pc behind the instruction.
pub(super) fn trap_behind(l: &mut Lifter<'_>, _: &Insn, kind: FaultKind) {
    l.close(Exit::Fault { kind, pc: l.next });
}
