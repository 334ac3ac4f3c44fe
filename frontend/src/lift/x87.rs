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
use crate::decode::MAX_INSN;
use calque_ir::helper::x87::{Arith, POP, POP_TWICE, QUIET, StackOp, UNCHECKED};
use calque_ir::helper::x87_pointers::{Form, Image, recorded_code};
use calque_ir::state::X87_MASKS;
use calque_ir::{Exit, FaultKind, Helper, Mem, Op, Reg, Target, Type, Value};
use iced_x86::{MemorySize, Mnemonic, OpKind, Register};

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
    /// A number as helpers take it.
    fn number(&mut self, v: u64) -> Value {
        self.b.iconst(Type::I32, v)
    }

    /// Calls a waiting helper, #MF if it says so, and records the instruction.
    fn call_waiting(&mut self, i: &Insn, helper: Helper, args: &[Value]) {
        let pending = self.b.call(helper, args);
        self.b.fault_if(FaultKind::X87Float, pending);
        self.record(i);
    }

    /// For the pointers of memory images (`ir/src/helper/x87_pointers.rs`).
    fn record(&mut self, i: &Insn) {
        let mut bytes = [0; MAX_INSN];
        let len = self.code.read(self.pc, &mut bytes);
        // Prefixes come before; FWAIT is an instruction of its own.
        let opcode = bytes[..len].windows(2).find(|two| (0xd8..=0xdf).contains(&two[0]));
        let opcode = opcode.map_or(0, |two| u16::from(two[0] & 7) << 8 | u16::from(two[1]));
        let code = self.b.iconst(Type::I64, recorded_code(self.pc.0, opcode));
        self.b.put(Reg::X87_CODE, code);
        if (0..i.op_count()).any(|op| i.op_kind(op) == OpKind::Memory) {
            let form = match i.memory_segment() {
                Register::SS => Form::RecordedStack,
                _ => Form::Recorded,
            };
            let m = self.effective_addr(i);
            let address = self.addr_value(m);
            let flip = self.b.iconst(Type::I64, form.flip());
            let data = self.b.binary(Op::Bxor, Type::I64, address, flip);
            self.b.put(Reg::X87_DATA, data);
        }
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
        let arg = self.number(pops.code());
        self.b.call(Helper::X87StoreDone, &[arg]);
        self.record(i);
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
        let n = l.number(st(i, i.op_count() - 1));
        return l.call_waiting(i, Helper::X87LoadSt, &[n]);
    }
    match i.memory_size() {
        MemorySize::Float32 => {
            let v = l.load_bits(i, Type::I32);
            l.call_waiting(i, Helper::X87LoadF32, &[v]);
        }
        MemorySize::Float64 => {
            let v = l.load_bits(i, Type::I64);
            l.call_waiting(i, Helper::X87LoadF64, &[v]);
        }
        _ => {
            let (low, high) = l.load_80(i);
            l.call_waiting(i, Helper::X87LoadF80, &[low, high]);
        }
    }
}

/// FILD.
pub(super) fn fild(l: &mut Lifter<'_>, i: &Insn) {
    let v = l.load_int(i);
    l.call_waiting(i, Helper::X87LoadInt, &[v]);
}

/// FBLD.
pub(super) fn fbld(l: &mut Lifter<'_>, i: &Insn) {
    let (low, high) = l.load_80(i);
    l.call_waiting(i, Helper::X87LoadBcd, &[low, high]);
}

/// FLD1 to FLDZ: constant `k` in the order of their encodings.
pub(super) fn fld_const(l: &mut Lifter<'_>, i: &Insn, k: u64) {
    let k = l.number(k);
    l.call_waiting(i, Helper::X87LoadConst, &[k]);
}

/// FSTPNCE, an FSTP to a register that does not mind an empty ST(0).
pub(super) fn fstpnce(l: &mut Lifter<'_>, i: &Insn) {
    let dst = l.number(st(i, 0) | POP | UNCHECKED);
    l.call_waiting(i, Helper::X87StoreSt, &[dst]);
}

/// FST, FSTP.
pub(super) fn fst(l: &mut Lifter<'_>, i: &Insn, pops: Pops) {
    if i.op_kind(0) == OpKind::Register {
        let dst = l.number(st(i, 0) | pops.code());
        return l.call_waiting(i, Helper::X87StoreSt, &[dst]);
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
        let width = l.number(u64::from(ty.bits()));
        let truncate = l.number(u64::from(how == ToInt::Truncated));
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
    let code = l.number(op as u64);
    if i.op_kind(0) == OpKind::Register {
        let dst = l.number(st(i, 0) | pops.code());
        let src = l.number(st(i, 1));
        return l.call_waiting(i, Helper::X87ArithSt, &[code, dst, src]);
    }
    match i.memory_size() {
        MemorySize::Float32 => {
            let v = l.load_bits(i, Type::I32);
            l.call_waiting(i, Helper::X87ArithF32, &[code, v]);
        }
        _ => {
            let v = l.load_bits(i, Type::I64);
            l.call_waiting(i, Helper::X87ArithF64, &[code, v]);
        }
    }
}

/// FIADD and kin.
pub(super) fn arith_int(l: &mut Lifter<'_>, i: &Insn, op: Arith) {
    let code = l.number(op as u64);
    let v = l.load_int(i);
    l.call_waiting(i, Helper::X87ArithInt, &[code, v]);
}

fn kind(how: Compare, pops: Pops) -> u64 {
    pops.code() | if how == Compare::Unordered { QUIET } else { 0 }
}

/// FCOM and FUCOM in all their forms.
pub(super) fn fcom(l: &mut Lifter<'_>, i: &Insn, how: Compare, pops: Pops) {
    let kind = l.number(kind(how, pops));
    let memory = (i.op_count() > 0 && i.op_kind(0) == OpKind::Memory).then(|| i.memory_size());
    match memory {
        None => {
            let n = if i.op_count() == 0 { 1 } else { st(i, i.op_count() - 1) };
            let n = l.number(n);
            l.call_waiting(i, Helper::X87CompareSt, &[n, kind]);
        }
        Some(MemorySize::Float32) => {
            let v = l.load_bits(i, Type::I32);
            l.call_waiting(i, Helper::X87CompareF32, &[v, kind]);
        }
        Some(_) => {
            let v = l.load_bits(i, Type::I64);
            l.call_waiting(i, Helper::X87CompareF64, &[v, kind]);
        }
    }
}

/// FICOM, FICOMP.
pub(super) fn ficom(l: &mut Lifter<'_>, i: &Insn, pops: Pops) {
    let v = l.load_int(i);
    let kind = l.number(kind(Compare::Ordered, pops));
    l.call_waiting(i, Helper::X87CompareInt, &[v, kind]);
}

/// FCOMI, FUCOMI and the popping forms: ZF, PF, CF; OF, SF and AF are cleared.
pub(super) fn fcomi(l: &mut Lifter<'_>, i: &Insn, how: Compare, pops: Pops) {
    l.check_x87();
    let n = l.number(st(i, 1));
    let kind = l.number(kind(how, pops));
    let bits = l.b.call(Helper::X87CompareFlags, &[n, kind]);
    l.set_flags_const(FlagSet::ALL, false);
    for (flag, bit) in [(Flag::Cf, 0), (Flag::Pf, 2), (Flag::Zf, 6)] {
        let v = l.bit(bits, bit, Type::I32);
        l.set_flag(flag, v);
    }
    l.record(i);
}

/// FCMOVcc.
pub(super) fn fcmov(l: &mut Lifter<'_>, i: &Insn, cond: Cond) {
    let c = l.cond(cond);
    let n = l.number(st(i, 1));
    l.call_waiting(i, Helper::X87Cmov, &[n, c]);
}

/// FXCH.
pub(super) fn fxch(l: &mut Lifter<'_>, i: &Insn) {
    let n = l.number(st(i, 1));
    l.call_waiting(i, Helper::X87Exchange, &[n]);
}

/// FFREE, FFREEP.
pub(super) fn ffree(l: &mut Lifter<'_>, i: &Insn, pops: Pops) {
    let arg = l.number(st(i, 0) | pops.code());
    l.call_waiting(i, Helper::X87Free, &[arg]);
}

/// What works on the top of the stack alone.
pub(super) fn stack_op(l: &mut Lifter<'_>, i: &Insn, op: StackOp) {
    let op = l.number(op as u64);
    l.call_waiting(i, Helper::X87Op, &[op]);
}

/// FNINIT and FINIT, which only waits.
pub(super) fn fninit(l: &mut Lifter<'_>, _: &Insn) {
    init(l);
}

/// What FNINIT and FNSAVE do.
pub(super) fn init(l: &mut Lifter<'_>) {
    l.b.call(Helper::X87Init, &[]);
    let none = l.b.iconst(Type::I64, 0);
    l.b.put(Reg::X87_CODE, none);
    l.b.put(Reg::X87_DATA, none);
}

/// FNENI, FNDISI and FNSETPM, which have meant nothing since the 80387.
pub(super) fn nothing(_: &mut Lifter<'_>, _: &Insn) {}

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
    let pending = l.b.call(Helper::X87SetControl, &[v]);
    l.b.fault_if(FaultKind::X87Float, pending);
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

/// The environment as FNSTENV, FLDENV, FNSAVE and FRSTOR see it (SDM vol. 1 figures 8-9 to 8-12): seven words of 32 bits, or of 16
/// with an operand-size prefix.
struct Env {
    ty: Type,
    bytes: i32,
    image: Image,
}

impl Env {
    const WIDE: Env = Env { ty: Type::I32, bytes: 4, image: Image::Env32 };
    const NARROW: Env = Env { ty: Type::I16, bytes: 2, image: Image::Env16 };

    fn of(i: &Insn) -> Env {
        match i.memory_size() {
            MemorySize::FpuEnv14 | MemorySize::FpuState94 => Env::NARROW,
            _ => Env::WIDE,
        }
    }

    /// Of all seven words.
    fn size(&self) -> i32 {
        7 * self.bytes
    }

    /// Two of the words: a pointer and its selector.
    fn pair(&self) -> Type {
        if self.ty == Type::I32 { Type::I64 } else { Type::I32 }
    }

    fn store(&self, l: &mut Lifter<'_>, m: Mem) {
        for n in 0..3 {
            let index = l.number(n as u64);
            let word = l.b.call(Helper::X87EnvWord, &[index]);
            let word = if self.ty == Type::I32 { word } else { l.b.unary(Op::Ireduce, Type::I16, word) };
            l.b.store(self.ty, offset(m, self.bytes * n), word);
        }
        for (n, which) in [(3, Which::Code), (5, Which::Data)] {
            let pair = l.shown_pointer(self.image, which);
            let pair = if self.pair() == Type::I64 { pair } else { l.b.unary(Op::Ireduce, Type::I32, pair) };
            l.b.store(self.pair(), offset(m, self.bytes * n), pair);
        }
    }

    fn load(&self, l: &mut Lifter<'_>, m: Mem) -> LoadedEnv {
        let words = [0, 1, 2].map(|n| l.b.load(Type::I16, offset(m, self.bytes * n)));
        let pairs = [3, 5].map(|n| {
            let pair = l.b.load(self.pair(), offset(m, self.bytes * n));
            if self.pair() == Type::I64 { pair } else { l.b.unary(Op::Uextend, Type::I64, pair) }
        });
        LoadedEnv { words, pairs }
    }

    fn set(&self, l: &mut Lifter<'_>, LoadedEnv { words, pairs }: LoadedEnv) {
        l.b.call(Helper::X87SetEnv, &words);
        // The opcode stands above the selector in the wide image; the narrow one has none.
        let above = l.b.iconst(Type::I64, 48);
        let opcode = l.b.binary(Op::Ushr, Type::I64, pairs[0], above);
        let opcode = l.b.unary(Op::Ireduce, Type::I16, opcode);
        l.b.call(Helper::X87SetOpcode, &[opcode]);
        l.load_pointers(self.image, pairs);
    }
}

/// What FLDENV takes: control, status and tag word; pointers with their selectors.
struct LoadedEnv {
    words: [Value; 3],
    pairs: [Value; 2],
}

/// One of the two pointers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Which {
    Code,
    Data,
}

impl Lifter<'_> {
    /// The bytes that an image has of a pointer.
    pub(super) fn shown_pointer(&mut self, image: Image, which: Which) -> Value {
        let (helper, reg) = match which {
            Which::Code => (Helper::X87CodePointer, Reg::X87_CODE),
            Which::Data => (Helper::X87DataPointer, Reg::X87_DATA),
        };
        let word = self.b.get(Type::I64, reg);
        let image = self.number(image as u64);
        self.b.call(helper, &[image, word])
    }

    /// Sets both pointers from the bytes of an image.
    pub(super) fn load_pointers(&mut self, image: Image, bytes: [Value; 2]) {
        let image = self.number(image as u64);
        for (reg, bytes) in [Reg::X87_CODE, Reg::X87_DATA].into_iter().zip(bytes) {
            let word = self.b.call(Helper::X87LoadedPointer, &[image, bytes]);
            self.b.put(reg, word);
        }
    }
}

/// FNSTENV: stores the environment, then masks all exceptions.
pub(super) fn fnstenv(l: &mut Lifter<'_>, i: &Insn) {
    l.probe_parts(i);
    let m = l.base_of(i);
    Env::of(i).store(l, m);
    l.b.call(Helper::X87MaskAll, &[]);
}

/// FLDENV.
pub(super) fn fldenv(l: &mut Lifter<'_>, i: &Insn) {
    l.check_x87();
    let (env, m) = (Env::of(i), l.base_of(i));
    let loaded = env.load(l, m);
    let control = loaded.words[0];
    env.set(l, loaded);
    let unusual = unusual_x87(l, control);
    l.leave_if_unusual(unusual);
}

/// FNSAVE: environment and registers, then FNINIT.
pub(super) fn fnsave(l: &mut Lifter<'_>, i: &Insn) {
    l.probe_parts(i);
    let (env, m) = (Env::of(i), l.base_of(i));
    env.store(l, m);
    store_registers(l, m, env.size(), 10);
    init(l);
}

/// FRSTOR.
pub(super) fn frstor(l: &mut Lifter<'_>, i: &Insn) {
    l.check_x87();
    let (env, m) = (Env::of(i), l.base_of(i));
    let loaded = env.load(l, m);
    let control = loaded.words[0];
    let registers = load_registers(l, m, env.size(), 10);
    env.set(l, loaded);
    set_registers(l, registers);
    let unusual = unusual_x87(l, control);
    l.leave_if_unusual(unusual);
}

/// Stores all eight registers. Where each has 16 bytes, AMD's processors clear the other six.
fn store_registers(l: &mut Lifter<'_>, m: Mem, first: i32, stride: i32) {
    for n in 0..8 {
        let index = l.number(n as u64);
        let low = l.b.call(Helper::X87RegLow, &[index]);
        let high = l.b.call(Helper::X87RegHigh, &[index]);
        let at = first + stride * n;
        if stride == 16 {
            let wide = l.b.unary(Op::Uextend, Type::I64, high);
            l.b.store(Type::I64, offset(m, at), low);
            l.b.store(Type::I64, offset(m, at + 8), wide);
        } else {
            l.store_80(m, at, (low, high));
        }
    }
}

fn load_registers(l: &mut Lifter<'_>, m: Mem, first: i32, stride: i32) -> [(Value, Value); 8] {
    std::array::from_fn(|n| l.load_80_at(m, first + stride * n as i32))
}

fn set_registers(l: &mut Lifter<'_>, registers: [(Value, Value); 8]) {
    for (n, (low, high)) in registers.into_iter().enumerate() {
        let index = l.number(n as u64);
        l.b.call(Helper::X87SetReg, &[index, low, high]);
    }
}

/// Offsets in FXSAVE's area (SDM vol. 1 table 10-2).
pub(super) mod fxsave {
    pub(in super::super) const CODE: i32 = 8;
    pub(in super::super) const DATA: i32 = 16;
    pub(in super::super) const MXCSR: i32 = 24;
    pub(in super::super) const MXCSR_MASK: i32 = 28;
    pub(in super::super) const ST0: i32 = 32;
    pub(in super::super) const XMM0: i32 = 160;
}

/// The form of pointers in the area that FXSAVE, XSAVE and their kin use.
fn area_image(i: &Insn) -> Image {
    match i.mnemonic() {
        Mnemonic::Fxsave64 | Mnemonic::Fxrstor64 | Mnemonic::Xsave64 | Mnemonic::Xrstor64 => Image::Fxsave64,
        _ => Image::Fxsave,
    }
}

/// The x87 unit into the area at `m`.
pub(super) fn store_x87(l: &mut Lifter<'_>, i: &Insn, m: Mem) {
    let code = l.b.get(Type::I64, Reg::X87_CODE);
    let head = l.b.call(Helper::X87FxsaveHead, &[code]);
    l.b.store(Type::I64, m, head);
    for (at, which) in [(fxsave::CODE, Which::Code), (fxsave::DATA, Which::Data)] {
        let bytes = l.shown_pointer(area_image(i), which);
        l.b.store(Type::I64, offset(m, at), bytes);
    }
    store_registers(l, m, fxsave::ST0, 16);
}

/// What the area at `m` has of the x87 unit.
pub(super) struct LoadedX87 {
    /// Control word first.
    pub(super) head: Value,
    pointers: [Value; 2],
    registers: [(Value, Value); 8],
}

impl LoadedX87 {
    pub(super) fn load(l: &mut Lifter<'_>, m: Mem) -> LoadedX87 {
        let [head, code, data] = [0, fxsave::CODE, fxsave::DATA].map(|at| l.b.load(Type::I64, offset(m, at)));
        LoadedX87 { head, pointers: [code, data], registers: load_registers(l, m, fxsave::ST0, 16) }
    }

    pub(super) fn set(self, l: &mut Lifter<'_>, i: &Insn) {
        l.b.call(Helper::X87SetFxsaveHead, &[self.head]);
        l.load_pointers(area_image(i), self.pointers);
        set_registers(l, self.registers);
    }
}

/// FXSAVE: 512 bytes, aligned to 16; the last 96 are the program's.
pub(super) fn fxsave(l: &mut Lifter<'_>, i: &Insn) {
    let m = l.base_of(i);
    l.require_alignment(m);
    l.probe_parts(i);
    let m = l.base_of(i);
    store_x87(l, i, m);
    let mxcsr = l.b.get(Type::I32, Reg::MXCSR);
    l.b.store(Type::I32, offset(m, fxsave::MXCSR), mxcsr);
    let mask = l.b.iconst(Type::I32, u64::from(MXCSR_MASK));
    l.b.store(Type::I32, offset(m, fxsave::MXCSR_MASK), mask);
    for n in 0..16 {
        let v = l.xmm(n);
        l.b.store(Type::V128, offset(m, fxsave::XMM0 + 16 * n as i32), v);
    }
}

/// FXRSTOR; the block ends because MXCSR changes (see `ldmxcsr`).
pub(super) fn fxrstor(l: &mut Lifter<'_>, i: &Insn) {
    let m = l.base_of(i);
    l.require_alignment(m);
    let x87 = LoadedX87::load(l, m);
    let mxcsr = l.b.load(Type::I32, offset(m, fxsave::MXCSR));
    let xmm: [Value; 16] = std::array::from_fn(|n| l.b.load(Type::V128, offset(m, fxsave::XMM0 + 16 * n as i32)));
    set_mxcsr(l, mxcsr);
    let control = l.b.unary(Op::Ireduce, Type::I16, x87.head);
    x87.set(l, i);
    for (n, v) in xmm.into_iter().enumerate() {
        l.set_xmm(n, v);
    }
    let unusual = [unusual_mxcsr(l, mxcsr), unusual_x87(l, control)];
    let unusual = l.b.binary(Op::Bor, Type::I32, unusual[0], unusual[1]);
    l.leave_if_unusual(unusual);
    l.close(Exit::Goto(Target::Pc(l.next)));
}

/// WAIT: #MF if an exception is pending.
pub(super) fn wait(l: &mut Lifter<'_>, _: &Insn) {
    l.check_x87();
}
