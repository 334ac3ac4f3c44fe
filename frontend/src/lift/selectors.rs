//! Segment selectors and descriptor tables, as Linux shows them to a 64-bit program.
//!
//! The kernel's table (`arch/x86/include/asm/segment.h`) is the same in every process, so nothing is kept: what these
//! instructions answer is a function of the selector. There is no local descriptor table and no thread-local segment.
//! SGDT, SIDT, SLDT, STR and SMSW answer what a kernel on a processor with UMIP makes up for them (`arch/x86/kernel/umip.c`).
//!
//! Selectors that are loaded into DS, ES, FS and GS are checked and not kept: reading one gives what a new process has.
//!
//! Far transfers work within 64-bit code; 32-bit code (selector 0x23) is refused: [`FaultKind::Compatibility`].

use super::flags::Flag;
use super::operand::Gpr;
use super::operand::gpr::*;
use super::{Insn, Lifter};
use calque_ir::{Cc, Exit, FaultKind, Helper, Mem, Op, Target, Type, Value};
use iced_x86::{Code, MemorySize, OpKind, Register};

/// CS, SS and 32-bit CS of user mode.
const USER_CS: u64 = 0x33;
const USER_DS: u64 = 0x2b;
const USER32_CS: u64 = 0x23;
/// The descriptor whose limit is the number of the processor: what a program without RDPID or RDTSCP asks LSL for.
const CPU_NUMBER: u64 = 0x78;

/// A descriptor that user mode may use.
struct Descriptor {
    /// Its selector, without the requested privilege level.
    selector: u64,
    /// What LAR shows.
    rights: u32,
    writable: Writable,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Writable {
    Yes,
    No,
}

#[rustfmt::skip]
const DESCRIPTORS: [Descriptor; 4] = [
    Descriptor { selector: USER32_CS & !3, rights: 0x00cf_fb00, writable: Writable::No },
    Descriptor { selector: USER_DS & !3,   rights: 0x00cf_f300, writable: Writable::Yes },
    Descriptor { selector: USER_CS & !3,   rights: 0x00af_fb00, writable: Writable::No },
    Descriptor { selector: CPU_NUMBER,     rights: 0x0040_f500, writable: Writable::No },
];

/// Operand `op` as a selector: 16 bits of a register or of memory, in 64.
fn selector(l: &mut Lifter<'_>, i: &Insn, op: u32) -> Value {
    let v = l.read_as(i, op, Type::I16);
    widened(l, v)
}

/// The low 16 bits of an integer as `i64`.
fn widened(l: &mut Lifter<'_>, v: Value) -> Value {
    let v = if l.b.ty(v) == Type::I16 { v } else { l.b.unary(Op::Ireduce, Type::I16, v) };
    l.b.unary(Op::Uextend, Type::I64, v)
}

/// A selector without its requested privilege level, which is never above a user descriptor's 3.
fn index(l: &mut Lifter<'_>, selector: Value) -> Value {
    let mask = l.b.iconst(Type::I64, 0xfffc);
    l.b.binary(Op::Band, Type::I64, selector, mask)
}

/// `i1`: whether `v` is `n`.
fn is(l: &mut Lifter<'_>, v: Value, n: u64) -> Value {
    let n = l.b.iconst(Type::I64, n);
    l.b.icmp(Cc::Equal, Type::I64, v, n)
}

/// `i1`: whether `v` is one of `those`.
fn is_among(l: &mut Lifter<'_>, v: Value, those: impl Iterator<Item = u64>) -> Value {
    let none = l.b.iconst(Type::I1, 0);
    those.fold(none, |any, n| {
        let hit = is(l, v, n);
        l.b.binary(Op::Bor, Type::I1, any, hit)
    })
}

/// LAR: the descriptor's rights.
pub(super) fn access_rights(l: &mut Lifter<'_>, i: &Insn) {
    let selector = selector(l, i, 1);
    let index = index(l, selector);
    let known = is_among(l, index, DESCRIPTORS.iter().map(|d| d.selector));
    let rights = DESCRIPTORS.iter().fold(l.b.iconst(Type::I32, 0), |other, d| {
        let (hit, rights) = (is(l, index, d.selector), l.b.iconst(Type::I32, u64::from(d.rights)));
        l.b.select(Type::I32, hit, rights, other)
    });
    answer(l, i, known, rights);
}

/// LSL: the descriptor's limit. Only the one whose limit says something asks the host for it.
pub(super) fn segment_limit(l: &mut Lifter<'_>, i: &Insn) {
    let [number, other] = std::array::from_fn(|_| l.b.create_block(l.pc));
    let v = selector(l, i, 1);
    let v = index(l, v);
    let hit = is(l, v, CPU_NUMBER);
    l.close(Exit::Branch { cond: hit, taken: Target::Block(number), fallthrough: Target::Block(other) });

    l.reopen(number);
    let (yes, limit) = (l.b.iconst(Type::I1, 1), l.b.call(Helper::TscAux, &[]));
    answer(l, i, yes, limit);
    l.close(Exit::Goto(Target::Pc(l.next)));

    l.reopen(other);
    let v = selector(l, i, 1);
    let v = index(l, v);
    let known = is_among(l, v, DESCRIPTORS.iter().map(|d| d.selector));
    let all = l.b.iconst(Type::I32, 0xffff_ffff);
    answer(l, i, known, all);
}

/// Writes the `i32` that LAR or LSL found and sets ZF, or clears ZF and keeps the destination, whole.
fn answer(l: &mut Lifter<'_>, i: &Insn, known: Value, v: Value) {
    let Some(r) = Gpr::from_iced(i.op_register(0)) else { unreachable!("LAR and LSL write a register") };
    if let Gpr::R32(n) | Gpr::R64(n) = r {
        let v = l.b.unary(Op::Uextend, Type::I64, v);
        let old = l.gpr64(n);
        let new = l.b.select(Type::I64, known, v, old);
        l.write_gpr(Gpr::R64(n), new);
    } else {
        let v = l.b.unary(Op::Ireduce, r.ty(), v);
        let old = l.read_gpr(r);
        let new = l.b.select(r.ty(), known, v, old);
        l.write_gpr(r, new);
    }
    l.set_flag(Flag::Zf, known);
}

/// VERR, VERW: ZF says whether the selector's segment can be read or written.
pub(super) fn verify(l: &mut Lifter<'_>, i: &Insn, how: Verify) {
    let selector = selector(l, i, 0);
    let index = index(l, selector);
    let fits = |d: &&Descriptor| how == Verify::Read || d.writable == Writable::Yes;
    let usable = is_among(l, index, DESCRIPTORS.iter().filter(fits).map(|d| d.selector));
    l.set_flag(Flag::Zf, usable);
}

/// VERR or VERW.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verify {
    Read,
    Write,
}

/// SGDT, SIDT: a limit of 0 and a base high in the kernel's half.
pub(super) fn store_table(l: &mut Lifter<'_>, i: &Insn, base: u64) {
    let at = l.addr(i);
    let (limit, base) = (l.b.iconst(Type::I16, 0), l.b.iconst(Type::I64, base));
    let upper = l.displaced(at, 2);
    l.b.store(Type::I64, upper, base);
    l.b.store(Type::I16, at, limit);
}

/// SLDT, STR, SMSW: two bytes of memory, or as many of a register as the operand has; the kernel leaves the others alone.
pub(super) fn store_word(l: &mut Lifter<'_>, i: &Insn, value: u64) {
    if i.op_kind(0) == OpKind::Memory {
        let (at, v) = (l.addr(i), l.b.iconst(Type::I16, value));
        return l.b.store(Type::I16, at, v);
    }
    let Some(r) = Gpr::from_iced(i.op_register(0)) else { unreachable!("a general register") };
    match r {
        Gpr::R32(n) => {
            let old = l.gpr64(n);
            let (mask, v) = (l.b.iconst(Type::I64, !0 << 32), l.b.iconst(Type::I64, value));
            let upper = l.b.binary(Op::Band, Type::I64, old, mask);
            let v = l.b.binary(Op::Bor, Type::I64, upper, v);
            l.write_gpr(Gpr::R64(n), v);
        }
        _ => {
            let v = l.b.iconst(r.ty(), value);
            l.write_gpr(r, v);
        }
    }
}

/// MOV to a segment register: checked, not kept. SS takes the data selector only, the others the null selector and any
/// descriptor, all of which can be read.
pub(super) fn load_segment(l: &mut Lifter<'_>, i: &Insn) {
    let selector = selector(l, i, 1);
    check_segment(l, i.op_register(0), selector);
}

fn check_segment(l: &mut Lifter<'_>, segment: Register, selector: Value) {
    let usable = if segment == Register::SS {
        is(l, selector, USER_DS)
    } else {
        let index = index(l, selector);
        is_among(l, index, DESCRIPTORS.iter().map(|d| d.selector).chain([0]))
    };
    let bad = l.not(usable);
    l.b.fault_if(FaultKind::GeneralProtection, bad);
}

/// POP FS, POP GS: the value on the stack, as MOV to the register takes it.
pub(super) fn pop_segment(l: &mut Lifter<'_>, i: &Insn, v: Value) {
    let selector = widened(l, v);
    check_segment(l, i.op_register(0), selector);
}

/// LSS, LFS, LGS: a register and a selector from memory.
pub(super) fn load_far_pointer(l: &mut Lifter<'_>, i: &Insn, segment: Register) {
    let ty = l.op_type(i, 0);
    let at = l.addr(i);
    let v = l.b.load(ty, at);
    let at = l.displaced(at, ty.bytes() as i32);
    let selector = l.b.load(Type::I16, at);
    let selector = widened(l, selector);
    check_segment(l, segment, selector);
    l.write(i, 0, v);
}

/// Far transfers through memory.
pub(super) fn is_far(i: &Insn) -> bool {
    matches!(i.memory_size(), MemorySize::SegPtr16 | MemorySize::SegPtr32 | MemorySize::SegPtr64)
}

/// Offset (zero-extended) and selector of a far pointer in memory.
fn far_pointer(l: &mut Lifter<'_>, i: &Insn) -> (Value, Value) {
    let ty = match i.memory_size() {
        MemorySize::SegPtr16 => Type::I16,
        MemorySize::SegPtr32 => Type::I32,
        _ => Type::I64,
    };
    let at = l.addr(i);
    let offset = l.b.load(ty, at);
    let offset = if ty == Type::I64 { offset } else { l.b.unary(Op::Uextend, Type::I64, offset) };
    let at = l.displaced(at, ty.bytes() as i32);
    let selector = l.b.load(Type::I16, at);
    (offset, widened(l, selector))
}

/// Faults unless `selector` is that of 64-bit code.
fn check_code(l: &mut Lifter<'_>, selector: Value) {
    let narrow = is(l, selector, USER32_CS);
    l.b.fault_if(FaultKind::Compatibility, narrow);
    let ours = is(l, selector, USER_CS);
    let bad = l.not(ours);
    l.b.fault_if(FaultKind::GeneralProtection, bad);
}

/// JMP through a far pointer. The selector's requested privilege level does not matter, the processor sets it to 3.
pub(super) fn far_jump(l: &mut Lifter<'_>, i: &Insn) {
    let (target, selector) = far_pointer(l, i);
    let selector = at_level_3(l, selector);
    check_code(l, selector);
    l.close(Exit::Indirect(target));
}

fn at_level_3(l: &mut Lifter<'_>, selector: Value) -> Value {
    let level = l.b.iconst(Type::I64, 3);
    l.b.binary(Op::Bor, Type::I64, selector, level)
}

/// CALL through a far pointer: pushes CS, then the return address, both in the operand's width.
pub(super) fn far_call(l: &mut Lifter<'_>, i: &Insn) {
    let (target, selector) = far_pointer(l, i);
    let selector = at_level_3(l, selector);
    check_code(l, selector);
    let ty = match i.memory_size() {
        MemorySize::SegPtr16 => Type::I16,
        MemorySize::SegPtr32 => Type::I32,
        _ => Type::I64,
    };
    let (rsp, bytes) = (l.gpr64(RSP), ty.bytes() as i32);
    let at = |disp: i32| Mem { disp, ..Mem::base(rsp) };
    let (cs, ret) = (l.b.iconst(ty, USER_CS), l.b.iconst(ty, l.next.0 & u64::MAX >> (64 - ty.bits())));
    l.b.store(ty, at(-2 * bytes), ret);
    l.b.store(ty, at(-bytes), cs);
    let new = l.add_imm(rsp, i64::from(-2 * bytes));
    l.write_gpr(Gpr::R64(RSP), new);
    l.close(Exit::Indirect(target));
}

/// RETF: pops offset and selector.
pub(super) fn far_return(l: &mut Lifter<'_>, i: &Insn) {
    let ty = match i.code() {
        Code::Retfw | Code::Retfw_imm16 => Type::I16,
        Code::Retfd | Code::Retfd_imm16 => Type::I32,
        _ => Type::I64,
    };
    let extra = if i.op_count() == 0 { 0 } else { i64::from(i.immediate16()) };
    let rsp = l.gpr64(RSP);
    let target = stacked(l, rsp, ty, 0);
    let selector = stacked(l, rsp, ty, 1);
    let selector = widened(l, selector);
    check_code(l, selector);
    let new = l.add_imm(rsp, 2 * i64::from(ty.bytes()) + extra);
    l.write_gpr(Gpr::R64(RSP), new);
    l.close(Exit::Indirect(target));
}

/// Item `n` of the stack, in items of type `ty`, zero-extended.
fn stacked(l: &mut Lifter<'_>, rsp: Value, ty: Type, n: i32) -> Value {
    let v = l.b.load(ty, Mem { disp: n * ty.bytes() as i32, ..Mem::base(rsp) });
    if ty == Type::I64 { v } else { l.b.unary(Op::Uextend, Type::I64, v) }
}

/// IRET, IRETD, IRETQ: pops RIP, CS, RFLAGS, RSP and SS (SDM vol. 2 IRET: 64-bit mode always pops all five).
pub(super) fn interrupt_return(l: &mut Lifter<'_>, i: &Insn) {
    let ty = match i.code() {
        Code::Iretw => Type::I16,
        Code::Iretd => Type::I32,
        _ => Type::I64,
    };
    let rsp = l.gpr64(RSP);
    let [target, cs, flags, stack, ss] = std::array::from_fn(|n| stacked(l, rsp, ty, n as i32));
    let (cs, ss) = (widened(l, cs), widened(l, ss));
    check_code(l, cs);
    check_segment(l, Register::SS, ss);
    super::system::set_rflags(l, flags, ty);
    l.write_gpr(Gpr::R64(RSP), stack);
    l.close(Exit::Indirect(target));
}
