//! x87 instructions: operands are loaded and stored here, the unit itself is `ir/src/helper/x87.rs`.
//!
//! "Waiting" instructions raise #MF first if an exception is pending: most by the result of their helper, which
//! then has done nothing; those that store ask before they compute the value. A store stands between the helper that
//! converts ST(0) and the one that raises exceptions and pops, so that a page fault finds the unit as it was.
//!
//! Only where exceptions can be unmasked (`LiftOptions::precise_floats`) does it matter that a pending exception comes before a
//! fault of the memory operand, and that a conversion which raises an unmasked exception stores nothing, where it could.

use super::flags::{Cond, Flag, FlagSet};
use super::sse_move::{MXCSR_MASK, set_mxcsr, unusual_mxcsr};
use super::{Insn, Lifter};
use calque_ir::helper::x87::{Arith, POP, POP_TWICE, QUIET, StackOp};
use calque_ir::state::X87_MASKS;
use calque_ir::{Exit, FaultKind, Helper, Mem, Op, Reg, Target, Type, Value};
use iced_x86::{MemorySize, OpKind, Register};

/// Whether an instruction pops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pops {
    Keep,
    Once,
    Twice,
}

impl Pops {
    /// As the helpers take it.
    fn code(self) -> u64 {
        match self {
            Pops::Keep => 0,
            Pops::Once => POP,
            Pops::Twice => POP_TWICE,
        }
    }
}

/// Whether quiet NaNs make a comparison invalid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Compare {
    Ordered,
    Unordered,
}

/// How a number is converted to an integer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ToInt {
    Rounded,
    Truncated,
}

impl Lifter<'_> {
    fn code(&mut self, v: u64) -> Value {
        self.b.iconst(Type::I32, v)
    }

    /// Calls a waiting helper: #MF if it says so.
    fn call_waiting(&mut self, helper: Helper, args: &[Value]) {
        let pending = self.b.call(helper, args);
        self.b.fault_if(FaultKind::X87Float, pending);
    }

    /// Before the memory operand of a waiting instruction is read.
    fn check_x87_before_memory(&mut self) {
        if self.opts.precise_floats {
            self.check_x87();
        }
    }

    /// A memory operand as its bits.
    fn load_bits(&mut self, i: &Insn, ty: Type) -> Value {
        self.check_x87_before_memory();
        self.read_as(i, 0, ty)
    }

    /// A memory operand as a sign-extended `i64`.
    fn load_int(&mut self, i: &Insn) -> Value {
        self.check_x87_before_memory();
        let ty = Type::int(i.memory_size().size() as u32 * 8);
        let v = self.read_as(i, 0, ty);
        if ty == Type::I64 { v } else { self.b.unary(Op::Sextend, Type::I64, v) }
    }

    /// The two parts of an 80-bit memory operand.
    fn load_80(&mut self, i: &Insn) -> (Value, Value) {
        self.check_x87_before_memory();
        let m = self.roomy_addr(i);
        self.load_80_at(m, 0)
    }

    fn load_80_at(&mut self, m: Mem, at: i32) -> (Value, Value) {
        let low = self.b.load(Type::I64, offset(m, at));
        let high = self.b.load(Type::I16, offset(m, at + 8));
        (low, high)
    }

    /// Stores an 80-bit number.
    fn store_80(&mut self, m: Mem, at: i32, (low, high): (Value, Value)) {
        self.b.store(Type::I64, offset(m, at), low);
        self.b.store(Type::I16, offset(m, at + 8), high);
    }

    /// Stores what `convert` makes of ST(0), raises the exceptions of that, and pops.
    fn store_converted<T>(
        &mut self,
        i: &Insn,
        pops: Pops,
        convert: impl Fn(&mut Self) -> T,
        store: impl FnOnce(&mut Self, T),
    ) {
        self.check_x87();
        if self.opts.precise_floats {
            self.probe_ends(i);
            convert(self);
            let allowed = self.b.call(Helper::X87StoreAllowed, &[]);
            let store = |l: &mut Self| {
                let converted = convert(l);
                store(l, converted);
            };
            self.section(allowed, store);
        } else {
            self.probe_parts(i);
            let converted = convert(self);
            store(self, converted);
        }
        let arg = self.code(pops.code());
        self.b.call(Helper::X87StoreDone, &[arg]);
    }

    /// The memory operand, with room in its displacement for offsets within the operand.
    fn roomy_addr(&mut self, i: &Insn) -> Mem {
        let m = self.addr(i);
        match m.disp.checked_add(i.memory_size().size() as i32) {
            Some(_) => m,
            None => Mem::base(self.addr_value(m)),
        }
    }

    /// The memory operand as one base value, for instructions that access it many times.
    pub(super) fn base_of(&mut self, i: &Insn) -> Mem {
        let m = self.addr(i);
        Mem::base(self.addr_value(m))
    }
}

/// `m` moved up by `by` bytes.
pub(super) fn offset(m: Mem, by: i32) -> Mem {
    Mem { disp: m.disp + by, ..m }
}

/// Number of an ST register operand.
fn st(i: &Insn, op: u32) -> u64 {
    i.op_register(op) as u64 - Register::ST0 as u64
}

/// FLD.
pub(super) fn fld(l: &mut Lifter<'_>, i: &Insn) {
    if i.op_kind(0) == OpKind::Register {
        // iced names the destination ST(0) nowhere: the one operand is the source.
        let n = l.code(st(i, i.op_count() - 1));
        return l.call_waiting(Helper::X87LoadSt, &[n]);
    }
    match i.memory_size() {
        MemorySize::Float32 => {
            let v = l.load_bits(i, Type::I32);
            l.call_waiting(Helper::X87LoadF32, &[v]);
        }
        MemorySize::Float64 => {
            let v = l.load_bits(i, Type::I64);
            l.call_waiting(Helper::X87LoadF64, &[v]);
        }
        _ => {
            let (low, high) = l.load_80(i);
            l.call_waiting(Helper::X87LoadF80, &[low, high]);
        }
    }
}

/// FILD.
pub(super) fn fild(l: &mut Lifter<'_>, i: &Insn) {
    let v = l.load_int(i);
    l.call_waiting(Helper::X87LoadInt, &[v]);
}

/// FBLD.
pub(super) fn fbld(l: &mut Lifter<'_>, i: &Insn) {
    let (low, high) = l.load_80(i);
    l.call_waiting(Helper::X87LoadBcd, &[low, high]);
}

/// FLD1 to FLDZ: constant `k` in the order of their encodings.
pub(super) fn fld_const(l: &mut Lifter<'_>, _: &Insn, k: u64) {
    let k = l.code(k);
    l.call_waiting(Helper::X87LoadConst, &[k]);
}

/// FST, FSTP.
pub(super) fn fst(l: &mut Lifter<'_>, i: &Insn, pops: Pops) {
    if i.op_kind(0) == OpKind::Register {
        let dst = l.code(st(i, 0) | pops.code());
        return l.call_waiting(Helper::X87StoreSt, &[dst]);
    }
    match i.memory_size() {
        MemorySize::Float32 => {
            l.store_converted(i, pops, |l| l.b.call(Helper::X87StoreF32, &[]), |l, v| l.write(i, 0, v))
        }
        MemorySize::Float64 => {
            l.store_converted(i, pops, |l| l.b.call(Helper::X87StoreF64, &[]), |l, v| l.write(i, 0, v))
        }
        _ => store_pair(l, i, pops, [Helper::X87StoreF80Low, Helper::X87StoreF80High]),
    }
}

/// Stores the 80 bits of two helpers.
fn store_pair(l: &mut Lifter<'_>, i: &Insn, pops: Pops, [low, high]: [Helper; 2]) {
    let convert = |l: &mut Lifter<'_>| (l.b.call(low, &[]), l.b.call(high, &[]));
    l.store_converted(i, pops, convert, |l, converted| {
        let m = l.roomy_addr(i);
        l.store_80(m, 0, converted);
    });
}

/// FIST, FISTP, FISTTP.
pub(super) fn fist(l: &mut Lifter<'_>, i: &Insn, how: ToInt, pops: Pops) {
    let ty = Type::int(i.memory_size().size() as u32 * 8);
    let convert = |l: &mut Lifter<'_>| {
        let width = l.code(u64::from(ty.bits()));
        let truncate = l.code(u64::from(how == ToInt::Truncated));
        let v = l.b.call(Helper::X87StoreInt, &[width, truncate]);
        if ty == Type::I64 { v } else { l.b.unary(Op::Ireduce, ty, v) }
    };
    l.store_converted(i, pops, convert, |l, v| l.write(i, 0, v));
}

/// FBSTP.
pub(super) fn fbstp(l: &mut Lifter<'_>, i: &Insn) {
    store_pair(l, i, Pops::Once, [Helper::X87StoreBcdLow, Helper::X87StoreBcdHigh]);
}

/// FADD and kin in all their forms.
pub(super) fn arith(l: &mut Lifter<'_>, i: &Insn, op: Arith, pops: Pops) {
    let code = l.code(op as u64);
    if i.op_kind(0) == OpKind::Register {
        let dst = l.code(st(i, 0) | pops.code());
        let src = l.code(st(i, 1));
        return l.call_waiting(Helper::X87ArithSt, &[code, dst, src]);
    }
    match i.memory_size() {
        MemorySize::Float32 => {
            let v = l.load_bits(i, Type::I32);
            l.call_waiting(Helper::X87ArithF32, &[code, v]);
        }
        _ => {
            let v = l.load_bits(i, Type::I64);
            l.call_waiting(Helper::X87ArithF64, &[code, v]);
        }
    }
}

/// FIADD and kin.
pub(super) fn arith_int(l: &mut Lifter<'_>, i: &Insn, op: Arith) {
    let code = l.code(op as u64);
    let v = l.load_int(i);
    l.call_waiting(Helper::X87ArithInt, &[code, v]);
}

fn kind(how: Compare, pops: Pops) -> u64 {
    pops.code() | if how == Compare::Unordered { QUIET } else { 0 }
}

/// FCOM and FUCOM in all their forms.
pub(super) fn fcom(l: &mut Lifter<'_>, i: &Insn, how: Compare, pops: Pops) {
    let kind = l.code(kind(how, pops));
    let memory = (i.op_count() > 0 && i.op_kind(0) == OpKind::Memory).then(|| i.memory_size());
    match memory {
        None => {
            let n = if i.op_count() == 0 { 1 } else { st(i, i.op_count() - 1) };
            let n = l.code(n);
            l.call_waiting(Helper::X87CompareSt, &[n, kind]);
        }
        Some(MemorySize::Float32) => {
            let v = l.load_bits(i, Type::I32);
            l.call_waiting(Helper::X87CompareF32, &[v, kind]);
        }
        Some(_) => {
            let v = l.load_bits(i, Type::I64);
            l.call_waiting(Helper::X87CompareF64, &[v, kind]);
        }
    }
}

/// FICOM, FICOMP.
pub(super) fn ficom(l: &mut Lifter<'_>, i: &Insn, pops: Pops) {
    let v = l.load_int(i);
    let kind = l.code(kind(Compare::Ordered, pops));
    l.call_waiting(Helper::X87CompareInt, &[v, kind]);
}

/// FCOMI, FUCOMI and the popping forms: ZF, PF, CF; OF, SF and AF are cleared.
pub(super) fn fcomi(l: &mut Lifter<'_>, i: &Insn, how: Compare, pops: Pops) {
    l.check_x87();
    let n = l.code(st(i, 1));
    let kind = l.code(kind(how, pops));
    let bits = l.b.call(Helper::X87CompareFlags, &[n, kind]);
    l.set_flags_const(FlagSet::ALL, false);
    for (flag, bit) in [(Flag::Cf, 0), (Flag::Pf, 2), (Flag::Zf, 6)] {
        let v = l.bit(bits, bit, Type::I32);
        l.set_flag(flag, v);
    }
}

/// FCMOVcc.
pub(super) fn fcmov(l: &mut Lifter<'_>, i: &Insn, cond: Cond) {
    let c = l.cond(cond);
    let n = l.code(st(i, 1));
    l.call_waiting(Helper::X87Cmov, &[n, c]);
}

/// FXCH.
pub(super) fn fxch(l: &mut Lifter<'_>, i: &Insn) {
    let n = l.code(st(i, 1));
    l.call_waiting(Helper::X87Exchange, &[n]);
}

/// FFREE, FFREEP.
pub(super) fn ffree(l: &mut Lifter<'_>, i: &Insn, pops: Pops) {
    let arg = l.code(st(i, 0) | pops.code());
    l.call_waiting(Helper::X87Free, &[arg]);
}

/// What works on the top of the stack alone.
pub(super) fn stack_op(l: &mut Lifter<'_>, _: &Insn, op: StackOp) {
    let op = l.code(op as u64);
    l.call_waiting(Helper::X87Op, &[op]);
}

/// FNINIT and FINIT, which only waits.
pub(super) fn fninit(l: &mut Lifter<'_>, _: &Insn) {
    l.b.call(Helper::X87Init, &[]);
}

/// FNCLEX.
pub(super) fn fnclex(l: &mut Lifter<'_>, _: &Insn) {
    l.b.call(Helper::X87ClearExceptions, &[]);
}

/// FNSTCW.
pub(super) fn fnstcw(l: &mut Lifter<'_>, i: &Insn) {
    let v = l.b.call(Helper::X87Control, &[]);
    l.write(i, 0, v);
}

/// FLDCW.
pub(super) fn fldcw(l: &mut Lifter<'_>, i: &Insn) {
    let v = l.load_bits(i, Type::I16);
    l.call_waiting(Helper::X87SetControl, &[v]);
    let unusual = unusual_x87(l, v);
    l.leave_if_unusual(unusual);
}

/// Not zero (an `i32`) if a control word (an `i16`) unmasks an exception: see [`FaultKind::FloatControl`].
pub(super) fn unusual_x87(l: &mut Lifter<'_>, control: Value) -> Value {
    let control = l.b.unary(Op::Uextend, Type::I32, control);
    let masks = l.b.iconst(Type::I32, X87_MASKS.into());
    let unmasked = l.b.unary(Op::Bnot, Type::I32, control);
    l.b.binary(Op::Band, Type::I32, unmasked, masks)
}

/// FNSTSW to AX or memory.
pub(super) fn fnstsw(l: &mut Lifter<'_>, i: &Insn) {
    let v = l.b.call(Helper::X87Status, &[]);
    l.write(i, 0, v);
}

/// Bytes of the environment before the registers of FNSAVE.
const ENV_BYTES: i32 = 28;

fn store_env(l: &mut Lifter<'_>, m: Mem) {
    for n in 0..7 {
        let index = l.code(n as u64);
        let word = l.b.call(Helper::X87EnvWord, &[index]);
        l.b.store(Type::I32, offset(m, 4 * n), word);
    }
}

/// FNSTENV: stores the environment, then masks all exceptions.
pub(super) fn fnstenv(l: &mut Lifter<'_>, i: &Insn) {
    let m = l.base_of(i);
    store_env(l, m);
    l.b.call(Helper::X87MaskAll, &[]);
}

/// The three words that FLDENV takes.
fn load_env(l: &mut Lifter<'_>, m: Mem) -> [Value; 3] {
    [0, 4, 8].map(|at| l.b.load(Type::I16, offset(m, at)))
}

/// FLDENV.
pub(super) fn fldenv(l: &mut Lifter<'_>, i: &Insn) {
    l.check_x87();
    let m = l.base_of(i);
    let words = load_env(l, m);
    l.b.call(Helper::X87SetEnv, &words);
    let unusual = unusual_x87(l, words[0]);
    l.leave_if_unusual(unusual);
}

/// FNSAVE: environment and registers, then FNINIT.
pub(super) fn fnsave(l: &mut Lifter<'_>, i: &Insn) {
    let m = l.base_of(i);
    store_env(l, m);
    store_registers(l, m, ENV_BYTES, 10);
    l.b.call(Helper::X87Init, &[]);
}

/// FRSTOR.
pub(super) fn frstor(l: &mut Lifter<'_>, i: &Insn) {
    l.check_x87();
    let m = l.base_of(i);
    let words = load_env(l, m);
    let registers = load_registers(l, m, ENV_BYTES, 10);
    l.b.call(Helper::X87SetEnv, &words);
    set_registers(l, registers);
    let unusual = unusual_x87(l, words[0]);
    l.leave_if_unusual(unusual);
}

pub(super) fn store_registers(l: &mut Lifter<'_>, m: Mem, first: i32, stride: i32) {
    for n in 0..8 {
        let index = l.code(n as u64);
        let low = l.b.call(Helper::X87RegLow, &[index]);
        let high = l.b.call(Helper::X87RegHigh, &[index]);
        l.store_80(m, first + stride * n, (low, high));
    }
}

pub(super) fn load_registers(l: &mut Lifter<'_>, m: Mem, first: i32, stride: i32) -> [(Value, Value); 8] {
    std::array::from_fn(|n| l.load_80_at(m, first + stride * n as i32))
}

pub(super) fn set_registers(l: &mut Lifter<'_>, registers: [(Value, Value); 8]) {
    for (n, (low, high)) in registers.into_iter().enumerate() {
        let index = l.code(n as u64);
        l.b.call(Helper::X87SetReg, &[index, low, high]);
    }
}

/// Offsets in FXSAVE's area (SDM vol. 1 table 10-2).
pub(super) mod fxsave {
    pub(in super::super) const MXCSR: i32 = 24;
    pub(in super::super) const MXCSR_MASK: i32 = 28;
    pub(in super::super) const ST0: i32 = 32;
    pub(in super::super) const XMM0: i32 = 160;
}

/// FXSAVE: 512 bytes, aligned to 16; the last 96 are the program's.
pub(super) fn fxsave(l: &mut Lifter<'_>, i: &Insn) {
    let m = l.base_of(i);
    l.require_alignment(m);
    let head = l.b.call(Helper::X87FxsaveHead, &[]);
    let zero = l.b.iconst(Type::I64, 0);
    l.b.store(Type::I64, m, head);
    l.b.store(Type::I64, offset(m, 8), zero);
    l.b.store(Type::I64, offset(m, 16), zero);
    let mxcsr = l.b.get(Type::I32, Reg::MXCSR);
    l.b.store(Type::I32, offset(m, fxsave::MXCSR), mxcsr);
    let mask = l.b.iconst(Type::I32, u64::from(MXCSR_MASK));
    l.b.store(Type::I32, offset(m, fxsave::MXCSR_MASK), mask);
    store_registers(l, m, fxsave::ST0, 16);
    for n in 0..16 {
        let v = l.xmm(n);
        l.b.store(Type::V128, offset(m, fxsave::XMM0 + 16 * n as i32), v);
    }
}

/// FXRSTOR; the block ends because MXCSR changes (see `ldmxcsr`).
pub(super) fn fxrstor(l: &mut Lifter<'_>, i: &Insn) {
    let m = l.base_of(i);
    l.require_alignment(m);
    let head = l.b.load(Type::I64, m);
    let mxcsr = l.b.load(Type::I32, offset(m, fxsave::MXCSR));
    let registers = load_registers(l, m, fxsave::ST0, 16);
    let xmm: [Value; 16] = std::array::from_fn(|n| l.b.load(Type::V128, offset(m, fxsave::XMM0 + 16 * n as i32)));
    set_mxcsr(l, mxcsr);
    l.b.call(Helper::X87SetFxsaveHead, &[head]);
    set_registers(l, registers);
    for (n, v) in xmm.into_iter().enumerate() {
        l.set_xmm(n, v);
    }
    let control = l.b.unary(Op::Ireduce, Type::I16, head);
    let unusual = [unusual_mxcsr(l, mxcsr), unusual_x87(l, control)];
    let unusual = l.b.binary(Op::Bor, Type::I32, unusual[0], unusual[1]);
    l.leave_if_unusual(unusual);
    l.close(Exit::Goto(Target::Pc(l.next)));
}

/// WAIT: #MF if an exception is pending.
pub(super) fn wait(l: &mut Lifter<'_>, _: &Insn) {
    l.check_x87();
}
