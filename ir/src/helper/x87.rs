//! The x87 unit: register stack, status word and the responses to exceptions (SDM vol. 1 chapter 8). The numbers
//! are `f80.rs`'s; here is what becomes of them.
//!
//! Guest memory is the lifter's: it loads operands and passes them as bits (an 80-bit one as `i64` and `i16`), and
//! stores what a `Store*` helper returns before it calls `store_done`.
//!
//! Invariants:
//! 1. *Waiting* helpers (result `i1`) do nothing but return 1 while an unmasked exception is pending (ES): the
//!    lifter raises #MF from that result. Instructions that store ask `x87_pending` first.
//! 2. An unmasked invalid operation, division by zero, denormal operand or stack fault leaves the stack as it was;
//!    the others deliver their result (`F80` wraps it), and the fault comes with the next waiting instruction.
//! 3. ES and B are 1 exactly when a raised exception is unmasked: `X87::summarize` runs after every change to
//!    the status or control word.
//! 4. A `Store*` helper changes nothing but a scratch slot; exceptions and pop come with `store_done`, behind the store,
//!    which may fault.

use super::elementary::{self, Angle, Wide};
pub use super::f80::Arith;
use super::f80::{
    self, BIAS, Class, DE, DOUBLE, Done, Env, F80, IE, Low, Nans, OE, PE, Quotient, Relation, SINGLE, UE, ZE,
};
use crate::rounding::Rounding;
use crate::state::{CpuState, X87};

/// Stack fault.
const SF: u16 = 1 << 6;
/// Error summary: an unmasked exception is pending.
const ES: u16 = 1 << 7;
const C0: u16 = 1 << 8;
const C1: u16 = 1 << 9;
const C2: u16 = 1 << 10;
const C3: u16 = 1 << 14;
const BUSY: u16 = 1 << 15;
const CONDITIONS: u16 = C0 | C1 | C2 | C3;
const EXCEPTIONS: u16 = 0x3f;

/// In the argument that names the destination or the kind: pop once or twice afterwards.
pub const POP: u64 = 1 << 8;
pub const POP_TWICE: u64 = 2 << 8;
/// Beside it: an empty ST(0) is not stored, and that is no exception (FSTPNCE).
pub const UNCHECKED: u64 = 1 << 10;
/// In the kind argument of comparisons: quiet NaNs are not invalid (FUCOM).
pub const QUIET: u64 = 1;

/// Operations on the top of the stack without an operand, as the argument of `x87_op`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum StackOp {
    Chs,
    Abs,
    Tst,
    Xam,
    Sqrt,
    Rndint,
    Scale,
    Xtract,
    Prem,
    Prem1,
    IncStp,
    DecStp,
    Sin,
    Cos,
    SinCos,
    Ptan,
    Patan,
    F2xm1,
    Yl2x,
    Yl2xp1,
    Nop,
}

impl StackOp {
    const ALL: [StackOp; 21] = {
        use StackOp::*;
        [
            Chs, Abs, Tst, Xam, Sqrt, Rndint, Scale, Xtract, Prem, Prem1, IncStp, DecStp, Sin, Cos, SinCos, Ptan,
            Patan, F2xm1, Yl2x, Yl2xp1, Nop,
        ]
    };
}

/// FLD1, FLDL2T, FLDL2E, FLDPI, FLDLG2, FLDLN2, FLDZ: exponent and sign, significand cut off, and whether the nearest is one more.
const CONSTANTS: [(u16, u64, bool); 7] = [
    (0x3fff, 0x8000_0000_0000_0000, false),
    (0x4000, 0xd49a_784b_cd1b_8afe, false),
    (0x3fff, 0xb8aa_3b29_5c17_f0bb, true),
    (0x4000, 0xc90f_daa2_2168_c234, true),
    (0x3ffd, 0x9a20_9a84_fbcf_f798, true),
    (0x3ffe, 0xb172_17f7_d1cf_79ab, true),
    (0, 0, false),
];

impl X87 {
    fn physical(&self, i: u64) -> usize {
        (usize::from(self.top) + i as usize) & 7
    }

    fn is_empty(&self, i: u64) -> bool {
        self.empty >> self.physical(i) & 1 != 0
    }

    fn reg(&self, i: u64) -> F80 {
        let [mant, se] = self.regs[self.physical(i)];
        F80 { mant, se: se as u16 }
    }

    fn set(&mut self, i: u64, v: F80) {
        let p = self.physical(i);
        self.regs[p] = [v.mant, u64::from(v.se)];
        self.empty &= !(1 << p);
    }

    fn pop(&mut self) {
        self.empty |= 1 << self.top;
        self.top = (self.top + 1) & 7;
    }

    /// Pops as often as the `POP` bits of an argument say.
    fn pop_as(&mut self, arg: u64) {
        for _ in 0..arg >> 8 & 3 {
            self.pop();
        }
    }

    fn env(&self) -> Env {
        Env::new(self.control)
    }

    /// Whether an unmasked exception is pending.
    pub fn pending(&self) -> bool {
        self.status & ES != 0
    }

    /// I3.
    fn summarize(&mut self) {
        let unmasked = self.status & !self.control & EXCEPTIONS != 0;
        self.status = self.status & !(ES | BUSY) | if unmasked { ES | BUSY } else { 0 };
    }

    /// Records exceptions and C1; whether the operation goes on (I2).
    fn raise(&mut self, raised: u16, c1: bool) -> bool {
        self.status = self.status & !C1 | raised | if c1 { C1 } else { 0 };
        self.summarize();
        raised & (IE | ZE | DE) & !self.control == 0
    }

    /// Whether one of the registers is empty.
    fn any_empty(&self, regs: &[u64]) -> bool {
        regs.iter().any(|&i| self.is_empty(i))
    }

    /// Writes a result to ST(i) unless an unmasked exception forbids; whether it did.
    fn deliver(&mut self, i: u64, done: Done) -> bool {
        let go_on = self.raise(done.raised, done.up);
        if go_on {
            self.set(i, done.value);
        }
        go_on
    }

    /// The result, or the indefinite if one of the operands is empty.
    fn deliver_from(&mut self, operands: &[u64], i: u64, compute: impl FnOnce(&X87) -> Done) -> bool {
        let done = if self.any_empty(operands) { Done::invalid().with(SF) } else { compute(self) };
        self.deliver(i, done)
    }

    /// Pushes a loaded number. A denormal is loaded even if that exception is unmasked.
    fn push(&mut self, done: Done) {
        let full = !self.is_empty(7);
        let done = if full && done.raised & SF == 0 { Done { up: true, ..Done::invalid().with(SF) } } else { done };
        if self.raise(done.raised, done.up) || done.raised & IE == 0 {
            self.top = self.top.wrapping_sub(1) & 7;
            self.set(0, done.value);
        }
    }

    fn set_conditions(&mut self, bits: u16) {
        self.status = self.status & !CONDITIONS | bits;
    }

    /// Status word with TOP in place.
    pub fn status_word(&self) -> u16 {
        self.status | u16::from(self.top) << 11
    }

    /// Sets the status word and with it TOP.
    pub fn set_status_word(&mut self, v: u16) {
        self.top = (v >> 11 & 7) as u8;
        self.status = v & !(7 << 11);
        self.summarize();
    }

    /// Sets the control word; bit 6 reads as 1, bits 7 and 13..16 as 0.
    pub fn set_control_word(&mut self, v: u16) {
        self.control = v & 0x1f7f | 0x40;
        self.summarize();
    }

    /// The full tag word: 0 valid, 1 zero, 2 special, 3 empty, for each physical register (SDM vol. 1 8.1.7).
    pub fn tag_word(&self) -> u16 {
        (0..8).fold(0, |word, p| {
            let [mant, se] = self.regs[p];
            let tag = match (F80 { mant, se: se as u16 }).class() {
                _ if self.empty >> p & 1 != 0 => 3,
                Class::Normal => 0,
                Class::Zero => 1,
                _ => 2,
            };
            word | tag << (2 * p)
        })
    }

    /// Sets which registers are empty from a full tag word.
    pub fn set_tag_word(&mut self, word: u16) {
        self.empty = (0..8).fold(0, |empty, p| empty | u8::from(word >> (2 * p) & 3 == 3) << p);
    }

    /// FNINIT.
    pub fn init(&mut self) {
        (self.control, self.status, self.empty, self.top) = (0x37f, 0, 0xff, 0);
        (self.opcode, self.code, self.data) = (0, 0, 0);
    }
}

/// Runs a waiting operation (I1).
fn waiting(cpu: &mut CpuState, operation: impl FnOnce(&mut X87)) -> u64 {
    if cpu.x87.pending() {
        return 1;
    }
    operation(&mut cpu.x87);
    0
}

/// Whether an unmasked exception is pending.
pub(super) fn pending(cpu: &mut CpuState, _: u64, _: u64, _: u64) -> u64 {
    u64::from(cpu.x87.pending())
}

/// Pushes an `f32`.
pub(super) fn load_f32(cpu: &mut CpuState, bits: u64, _: u64, _: u64) -> u64 {
    waiting(cpu, |x| x.push(loaded(F80::from_f32(bits as u32))))
}

/// Pushes an `f64`.
pub(super) fn load_f64(cpu: &mut CpuState, bits: u64, _: u64, _: u64) -> u64 {
    waiting(cpu, |x| x.push(loaded(F80::from_f64(bits))))
}

/// A widened number as FLD takes it: a signaling NaN is made quiet.
fn loaded((value, denormal): (F80, u16)) -> Done {
    f80::nan_operand(value).unwrap_or(Done::exact(value)).with(denormal)
}

/// Pushes an 80-bit number, whatever it is.
pub(super) fn load_f80(cpu: &mut CpuState, mant: u64, se: u64, _: u64) -> u64 {
    waiting(cpu, |x| x.push(Done::exact(F80 { mant, se: se as u16 })))
}

/// Pushes a sign-extended integer.
pub(super) fn load_int(cpu: &mut CpuState, v: u64, _: u64, _: u64) -> u64 {
    waiting(cpu, |x| x.push(Done::exact(F80::from_i64(v as i64))))
}

/// Pushes an 18-digit packed decimal (SDM vol. 1 4.7): 16 digits, then 2 digits and the sign.
pub(super) fn load_bcd(cpu: &mut CpuState, low: u64, high: u64, _: u64) -> u64 {
    waiting(cpu, |x| {
        let digits = u128::from(high & 0xff) << 64 | u128::from(low);
        let magnitude = (0..18).rev().fold(0u64, |v, i| v * 10 + (digits >> (4 * i) & 15) as u64);
        let value = F80::from_i64(magnitude as i64);
        let sign = (high as u16) & 0x8000;
        x.push(Done::exact(F80 { se: value.se | sign, ..value }));
    })
}

/// Pushes a copy of ST(i).
pub(super) fn load_st(cpu: &mut CpuState, i: u64, _: u64, _: u64) -> u64 {
    waiting(cpu, |x| {
        x.push(if x.is_empty(i) { Done::invalid().with(SF) } else { Done::exact(x.reg(i)) });
    })
}

/// Pushes constant `k`, rounded as the control word says.
pub(super) fn load_const(cpu: &mut CpuState, k: u64, _: u64, _: u64) -> u64 {
    waiting(cpu, |x| {
        let (se, cut, nearest_is_up) = CONSTANTS[k as usize];
        let inexact = (1..6).contains(&k);
        let up = match x.env().rounding {
            Rounding::Nearest => nearest_is_up,
            Rounding::Up => inexact,
            Rounding::Down | Rounding::Zero => false,
        };
        x.push(Done::exact(F80 { mant: cut + u64::from(up), se }));
    })
}

/// ST(0) as `f32` bits.
pub(super) fn store_f32(cpu: &mut CpuState, _: u64, _: u64, _: u64) -> u64 {
    store_bits(cpu, 0xffc0_0000, |v, env| f80::to_narrow(v, &SINGLE, env))
}

/// ST(0) as `f64` bits.
pub(super) fn store_f64(cpu: &mut CpuState, _: u64, _: u64, _: u64) -> u64 {
    store_bits(cpu, 0xfff8 << 48, |v, env| f80::to_narrow(v, &DOUBLE, env))
}

/// ST(0) as an integer of `width` bits; `truncate` for FISTTP.
pub(super) fn store_int(cpu: &mut CpuState, width: u64, truncate: u64, _: u64) -> u64 {
    store_bits(cpu, 1 << (width - 1), |v, env| {
        f80::to_int(v, width as u32, if truncate != 0 { Rounding::Zero } else { env.rounding })
    })
}

fn store_bits(cpu: &mut CpuState, indefinite: u64, convert: impl FnOnce(F80, Env) -> f80::Bits) -> u64 {
    let x = &cpu.x87;
    let bits = match x.is_empty(0) {
        true => f80::Bits { bits: indefinite, raised: IE | SF, up: false },
        false => convert(x.reg(0), x.env()),
    };
    defer(cpu, bits.raised, bits.up);
    bits.bits
}

/// Slot of `cpu.scratch` that carries exceptions and C1 from a conversion over the store to `store_done` (I4).
const DEFERRED: usize = 3;

fn defer(cpu: &mut CpuState, raised: u16, up: bool) {
    cpu.scratch[DEFERRED] = [u64::from(raised), u64::from(up)];
}

/// After the store: raises what the conversion did, then pops as `arg` says, unless an exception other than precision
/// is unmasked.
pub(super) fn store_done(cpu: &mut CpuState, arg: u64, _: u64, _: u64) -> u64 {
    let allowed = store_allowed(cpu, 0, 0, 0) != 0;
    let [raised, up] = cpu.scratch[DEFERRED];
    if allowed {
        cpu.x87.raise(raised as u16, up != 0);
        cpu.x87.pop_as(arg);
    } else {
        // What is not stored is not inexact either.
        cpu.x87.raise(raised as u16 & !PE, false);
    }
    0
}

/// Whether no exception of the conversion but precision is unmasked.
pub(super) fn store_allowed(cpu: &mut CpuState, _: u64, _: u64, _: u64) -> u64 {
    let [raised, _] = cpu.scratch[DEFERRED];
    u64::from(raised as u16 & !cpu.x87.control & (IE | DE | ZE | OE | UE) == 0)
}

/// Significand of ST(0), for FSTP m80.
pub(super) fn store_f80_low(cpu: &mut CpuState, _: u64, _: u64, _: u64) -> u64 {
    let empty = cpu.x87.is_empty(0);
    defer(cpu, if empty { IE | SF } else { 0 }, false);
    if empty { F80::INDEFINITE.mant } else { cpu.x87.reg(0).mant }
}

/// Sign and exponent of ST(0).
pub(super) fn store_f80_high(cpu: &mut CpuState, _: u64, _: u64, _: u64) -> u64 {
    let x = &cpu.x87;
    u64::from(if x.is_empty(0) { F80::INDEFINITE.se } else { x.reg(0).se })
}

/// Low 16 digits of ST(0) as packed decimal, for FBSTP.
pub(super) fn store_bcd_low(cpu: &mut CpuState, _: u64, _: u64, _: u64) -> u64 {
    let (bcd, raised, up) = to_bcd(&cpu.x87);
    defer(cpu, raised, up);
    bcd as u64
}

/// High two digits and the sign.
pub(super) fn store_bcd_high(cpu: &mut CpuState, _: u64, _: u64, _: u64) -> u64 {
    (to_bcd(&cpu.x87).0 >> 64) as u64
}

/// ST(0) as packed decimal, with exceptions and C1.
fn to_bcd(x: &X87) -> (u128, u16, bool) {
    const INDEFINITE: u128 = 0xffff_c000_0000_0000_0000;
    const LIMIT: u64 = 1_000_000_000_000_000_000;
    if x.is_empty(0) {
        return (INDEFINITE, IE | SF, false);
    }
    let v = x.reg(0);
    if !matches!(v.class(), Class::Zero | Class::Denormal | Class::Normal) {
        return (INDEFINITE, IE, false);
    }
    match f80::to_magnitude(v, x.env().rounding) {
        Some((mut magnitude, inexact, up)) if magnitude < LIMIT => {
            let sign = u128::from(v.sign()) << 79;
            let digits = (0..18).fold(0u128, |bcd, i| {
                let digit = u128::from(magnitude % 10);
                magnitude /= 10;
                bcd | digit << (4 * i)
            });
            (sign | digits, if inexact { PE } else { 0 }, up)
        }
        _ => (INDEFINITE, IE, false),
    }
}

/// Copies ST(0) to ST(i), `dst` = i and `POP`.
pub(super) fn store_st(cpu: &mut CpuState, dst: u64, _: u64, _: u64) -> u64 {
    waiting(cpu, |x| {
        let unchecked = dst & UNCHECKED != 0 && x.is_empty(0) && x.raise(0, false);
        if unchecked || x.deliver_from(&[0], dst & 7, |x| Done::exact(x.reg(0))) {
            x.pop_as(dst);
        }
    })
}

/// ST(dst) = ST(dst) op ST(src); `dst` with `POP`.
pub(super) fn arith_st(cpu: &mut CpuState, op: u64, dst: u64, src: u64) -> u64 {
    waiting(cpu, |x| {
        let i = dst & 7;
        let compute = |x: &X87| f80::arith(Arith::from_code(op), x.reg(i), x.reg(src), 0, x.env());
        if x.deliver_from(&[i, src], i, compute) {
            x.pop_as(dst);
        }
    })
}

fn arith_memory(cpu: &mut CpuState, op: u64, (operand, denormal): (F80, u16)) -> u64 {
    waiting(cpu, |x| {
        let compute = |x: &X87| f80::arith(Arith::from_code(op), x.reg(0), operand, denormal, x.env());
        x.deliver_from(&[0], 0, compute);
    })
}

/// ST(0) = ST(0) op an `f32`.
pub(super) fn arith_f32(cpu: &mut CpuState, op: u64, bits: u64, _: u64) -> u64 {
    arith_memory(cpu, op, F80::from_f32(bits as u32))
}

/// ST(0) = ST(0) op an `f64`.
pub(super) fn arith_f64(cpu: &mut CpuState, op: u64, bits: u64, _: u64) -> u64 {
    arith_memory(cpu, op, F80::from_f64(bits))
}

/// ST(0) = ST(0) op a sign-extended integer.
pub(super) fn arith_int(cpu: &mut CpuState, op: u64, v: u64, _: u64) -> u64 {
    arith_memory(cpu, op, (F80::from_i64(v as i64), 0))
}

/// Whether a comparison lets quiet NaNs pass, of its `kind` argument.
fn nans(kind: u64) -> Nans {
    if kind & QUIET != 0 { Nans::Quiet } else { Nans::Signal }
}

/// Relation of ST(0) to the operand, `None` when a register is empty.
fn relation(x: &X87, operand: Option<(F80, u16)>, kind: u64) -> (Relation, u16) {
    match operand {
        Some((b, denormal)) if !x.is_empty(0) => {
            let (relation, raised) = f80::compare(x.reg(0), b, nans(kind));
            // A NaN hides the denormal.
            (relation, if relation == Relation::Unordered { raised } else { raised | denormal })
        }
        _ => (Relation::Unordered, IE | SF),
    }
}

/// C3, C2, C0 of a relation (SDM vol. 1 table 8-6).
fn conditions(relation: Relation) -> u16 {
    match relation {
        Relation::Greater => 0,
        Relation::Less => C0,
        Relation::Equal => C3,
        Relation::Unordered => C3 | C2 | C0,
    }
}

/// Compares into the condition bits. They are set whatever is unmasked; only the pop waits for a good comparison.
fn compare_conditions(cpu: &mut CpuState, operand: impl FnOnce(&X87) -> Option<(F80, u16)>, kind: u64) -> u64 {
    waiting(cpu, |x| {
        let operand = operand(x);
        let (relation, raised) = relation(x, operand, kind);
        let go_on = x.raise(raised, false);
        x.set_conditions(conditions(relation));
        if go_on {
            x.pop_as(kind);
        }
    })
}

/// Compares ST(0) with ST(i).
pub(super) fn compare_st(cpu: &mut CpuState, i: u64, kind: u64, _: u64) -> u64 {
    compare_conditions(cpu, |x| (!x.is_empty(i)).then(|| (x.reg(i), 0)), kind)
}

/// Compares ST(0) with an `f32`.
pub(super) fn compare_f32(cpu: &mut CpuState, bits: u64, kind: u64, _: u64) -> u64 {
    compare_conditions(cpu, |_| Some(F80::from_f32(bits as u32)), kind)
}

/// Compares ST(0) with an `f64`.
pub(super) fn compare_f64(cpu: &mut CpuState, bits: u64, kind: u64, _: u64) -> u64 {
    compare_conditions(cpu, |_| Some(F80::from_f64(bits)), kind)
}

/// Compares ST(0) with a sign-extended integer.
pub(super) fn compare_int(cpu: &mut CpuState, v: u64, kind: u64, _: u64) -> u64 {
    compare_conditions(cpu, |_| Some((F80::from_i64(v as i64), 0)), kind)
}

/// Compares ST(0) with ST(i) and returns ZF, PF and CF in their places (FCOMI, FUCOMI).
pub(super) fn compare_flags(cpu: &mut CpuState, i: u64, kind: u64, _: u64) -> u64 {
    const CF: u64 = 1;
    const PF: u64 = 1 << 2;
    const ZF: u64 = 1 << 6;
    let x = &mut cpu.x87;
    let operand = (!x.is_empty(i)).then(|| (x.reg(i), 0));
    let (relation, raised) = relation(x, operand, kind);
    // C1 is only touched by a stack fault.
    let c1 = raised & SF == 0 && x.status & C1 != 0;
    if x.raise(raised, c1) {
        x.pop_as(kind);
    }
    match relation {
        Relation::Greater => 0,
        Relation::Less => CF,
        Relation::Equal => ZF,
        Relation::Unordered => ZF | PF | CF,
    }
}

/// Exchanges ST(0) and ST(i).
pub(super) fn exchange(cpu: &mut CpuState, i: u64, _: u64, _: u64) -> u64 {
    waiting(cpu, |x| {
        let empty = x.any_empty(&[0, i]);
        if !x.raise(if empty { IE | SF } else { 0 }, false) {
            return;
        }
        let take = |x: &X87, i| if x.is_empty(i) { F80::INDEFINITE } else { x.reg(i) };
        let (a, b) = (take(x, 0), take(x, i));
        x.set(0, b);
        x.set(i, a);
    })
}

/// Marks ST(i) empty; `arg` with `POP` for FFREEP.
pub(super) fn free(cpu: &mut CpuState, arg: u64, _: u64, _: u64) -> u64 {
    waiting(cpu, |x| {
        let p = x.physical(arg & 7);
        x.empty |= 1 << p;
        x.status &= !C1;
        x.pop_as(arg);
    })
}

/// ST(0) = ST(i) if `cond`; either register empty is a stack fault whatever the condition.
pub(super) fn cmov(cpu: &mut CpuState, i: u64, cond: u64, _: u64) -> u64 {
    waiting(cpu, |x| {
        let source = if cond != 0 { i } else { 0 };
        // C1 is only touched by a stack fault.
        x.deliver_from(&[0, i], 0, |x| Done { up: x.status & C1 != 0, ..Done::exact(x.reg(source)) });
    })
}

/// A [`StackOp`].
pub(super) fn stack_op(cpu: &mut CpuState, op: u64, _: u64, _: u64) -> u64 {
    let op = StackOp::ALL[op as usize];
    waiting(cpu, |x| match op {
        StackOp::Nop => {}
        StackOp::IncStp => x.turn(1),
        StackOp::DecStp => x.turn(7),
        StackOp::Xam => x.examine(),
        StackOp::Tst => {
            let (relation, raised) = relation(x, Some((F80::ZERO, 0)), 0);
            x.raise(raised, false);
            x.set_conditions(conditions(relation));
        }
        StackOp::Chs => x.unary(|v, _| Done::exact(v.negated())),
        StackOp::Abs => x.unary(|v, _| Done::exact(F80 { se: v.se & 0x7fff, ..v })),
        StackOp::Sqrt => x.unary(f80::sqrt),
        StackOp::Rndint => x.unary(f80::to_integral),
        StackOp::Scale => {
            x.deliver_from(&[0, 1], 0, |x| f80::scale(x.reg(0), x.reg(1), x.env().full()));
        }
        StackOp::Prem => x.remainder(Quotient::Truncated),
        StackOp::Prem1 => x.remainder(Quotient::Nearest),
        StackOp::Xtract => x.extract(),
        StackOp::F2xm1 => x.unary(exp2_minus1),
        StackOp::Sin => x.trigonometric(Angle::sin, None),
        StackOp::Cos => x.trigonometric(Angle::cos, None),
        StackOp::SinCos => x.trigonometric(Angle::sin, Some(|v, env| angle_function(v, env, Angle::cos))),
        StackOp::Ptan => x.trigonometric(Angle::tan, Some(|_, _| Done::exact(F80::ONE))),
        StackOp::Patan => x.binary_and_pop(|x, y, env| patan(y, x, env)),
        StackOp::Yl2x => x.binary_and_pop(|x, y, env| y_log2(y, x, env)),
        StackOp::Yl2xp1 => x.binary_and_pop(|x, y, env| y_log2_plus1(y, x, env)),
    })
}

impl X87 {
    /// FINCSTP and FDECSTP.
    fn turn(&mut self, by: u8) {
        self.top = (self.top + by) & 7;
        self.status &= !C1;
    }

    /// FXAM (SDM vol. 2A).
    fn examine(&mut self) {
        let v = self.reg(0);
        let class = match v.class() {
            _ if self.is_empty(0) => C3 | C0,
            Class::Unsupported => 0,
            Class::Quiet | Class::Signaling => C0,
            Class::Normal => C2,
            Class::Infinite => C2 | C0,
            Class::Zero => C3,
            Class::Denormal => C3 | C2,
        };
        self.set_conditions(class | if v.sign() { C1 } else { 0 });
    }

    fn unary(&mut self, compute: impl FnOnce(F80, Env) -> Done) {
        self.deliver_from(&[0], 0, |x| compute(x.reg(0), x.env()));
    }

    /// ST(1) = f(ST(0), ST(1)), then pops.
    fn binary_and_pop(&mut self, compute: impl FnOnce(F80, F80, Env) -> Done) {
        if self.deliver_from(&[0, 1], 1, |x| compute(x.reg(0), x.reg(1), x.env().full())) {
            self.pop();
        }
    }

    /// FPREM and FPREM1: C2 says "partial", C0 C3 C1 are the quotient's low bits from the third down.
    fn remainder(&mut self, quotient: Quotient) {
        let mut bits = Low::NotDivided;
        let delivered = self.deliver_from(&[0, 1], 0, |x| {
            let (done, low) = f80::remainder(x.reg(0), x.reg(1), quotient, x.env());
            bits = low;
            done
        });
        match bits {
            Low::NotDivided => self.status &= !C2,
            _ if !delivered => {}
            Low::Partial => self.set_conditions(C2),
            Low::Bits(q) => {
                let bit = |n: u8, flag: u16| if q >> n & 1 != 0 { flag } else { 0 };
                self.set_conditions(bit(0, C1) | bit(1, C3) | bit(2, C0));
            }
        }
    }

    /// FXTRACT: ST(0) becomes the exponent, then the significand is pushed.
    fn extract(&mut self) {
        if self.is_empty(0) || !self.is_empty(7) {
            return self.push_indefinites(!self.is_empty(0));
        }
        let v = self.reg(0);
        let (exponent, significand) = match v.class() {
            Class::Zero => (Done { value: F80::infinity(true), raised: ZE, up: false }, v),
            Class::Infinite => (Done::exact(F80::infinity(false)), v),
            Class::Normal | Class::Denormal => {
                let (exp, sig) = v.normalized();
                let exponent = Done::exact(F80::from_i64(i64::from(exp - BIAS))).with(v.denormal_flag());
                (exponent, F80::pack(v.sign(), BIAS, sig))
            }
            _ => f80::nan_operand(v).map(|done| (done, done.value)).expect("a NaN or unsupported"),
        };
        if self.deliver(0, exponent) {
            self.top = self.top.wrapping_sub(1) & 7;
            self.set(0, significand);
        }
    }

    /// FSIN, FCOS; with a second function, which is pushed: FSINCOS, FPTAN. C2 and nothing else from 2^63 on.
    fn trigonometric(&mut self, first: fn(&Angle) -> Wide, second: Option<fn(F80, Env) -> Done>) {
        let v = self.reg(0);
        let too_large = v.class() == Class::Normal && v.normalized().0 >= BIAS + 63;
        let empty = self.is_empty(0);
        if too_large && !empty {
            self.status = self.status & !C1 | C2;
            return;
        }
        self.status &= !C2;
        if second.is_some() && (empty || !self.is_empty(7)) {
            return self.push_indefinites(!empty);
        }
        let env = self.env().full();
        let delivered = self.deliver_from(&[0], 0, |_| angle_function(v, env, first));
        if let (true, Some(second)) = (delivered, second) {
            let nan = self.reg(0).class() == Class::Quiet;
            let value = if nan { self.reg(0) } else { second(v, env).value };
            self.top = self.top.wrapping_sub(1) & 7;
            self.set(0, value);
        }
    }

    /// Response to a stack fault of an instruction that replaces ST(0) and pushes.
    fn push_indefinites(&mut self, overflow: bool) {
        if self.raise(IE | SF, overflow) {
            self.set(0, F80::INDEFINITE);
            self.top = self.top.wrapping_sub(1) & 7;
            self.set(0, F80::INDEFINITE);
        }
    }
}

/// A finite nonzero number.
fn wide(v: F80) -> Wide {
    let (exp, sig) = v.normalized();
    Wide::new(v.sign(), exp - BIAS, sig)
}

/// Rounds an approximation, which is never exact.
fn inexact(v: Wide, env: Env) -> Done {
    let done = f80::round(v.sign, v.exp + BIAS, v.sig | 1, env);
    done.with(PE)
}

/// Adds DE for denormal operands.
fn with_denormals(done: Done, operands: &[F80], env: Env) -> Done {
    operands.iter().fold(done, |done, v| f80::with_denormal(done, v.denormal_flag(), env))
}

/// A function of an angle.
fn angle_function(v: F80, env: Env, f: fn(&Angle) -> Wide) -> Done {
    if let Some(done) = f80::nan_operand(v) {
        return done;
    }
    match v.class() {
        Class::Infinite => return Done::invalid(),
        // sin 0 = tan 0 = 0 with its sign, cos 0 = 1.
        Class::Zero => {
            let r = f(&Angle::reduce(false, -1000, 1 << 63));
            return Done::exact(if r.exp < -1 { v } else { F80::ONE });
        }
        _ => {}
    }
    let (exp, sig) = v.normalized();
    let r = f(&Angle::reduce(v.sign(), exp - BIAS, sig));
    with_denormals(inexact(r, env), &[v], env)
}

/// 2^v - 1: F2XM1. Defined for -1..=1.
fn exp2_minus1(v: F80, env: Env) -> Done {
    if let Some(done) = f80::nan_operand(v) {
        return done;
    }
    let minus_half = F80::pack(true, BIAS - 1, 1 << 63);
    match v.class() {
        Class::Zero => Done::exact(v),
        Class::Infinite => Done::exact(if v.sign() { F80::ONE.negated() } else { v }),
        _ if v == F80::ONE.negated() => Done::exact(minus_half).with(PE),
        // Outside the domain the processor leaves the operand and calls it inexact.
        _ if v.normalized().0 >= BIAS && v != F80::ONE => Done::exact(v).with(PE),
        _ => with_denormals(inexact(elementary::exp2m1(wide(v)), env.full()), &[v], env),
    }
}

/// arctan(y/x) in the right quadrant: FPATAN is defined for every pair of numbers (SDM vol. 2A table 3-31).
fn patan(y: F80, x: F80, env: Env) -> Done {
    use Class::{Infinite, Zero};
    if let Some(done) = f80::nan_result(x, y) {
        return done;
    }
    // Infinities and zeros as numbers in the same relation.
    let as_number = |v: F80, other: F80| match (v.class(), other.class()) {
        (Infinite, _) => Wide::new(v.sign(), 0, 1 << 63),
        (Zero, _) | (_, Infinite) => Wide { sign: v.sign(), exp: 0, sig: 0 },
        _ => wide(v),
    };
    let done = match (y.class(), x.class()) {
        (Zero, _) if !x.sign() => Done::exact(y),
        (Zero, _) => inexact(Wide { sign: y.sign(), ..elementary::PI }, env),
        (Infinite, Infinite) => inexact(elementary::atan2(as_number(y, x), as_number(x, y)), env),
        (_, Infinite) if !x.sign() => Done::exact(F80::zero(y.sign())),
        _ => inexact(elementary::atan2(as_number(y, x), as_number(x, y)), env),
    };
    with_denormals(done, &[y, x], env)
}

/// y * log2(x): FYL2X (SDM vol. 2A table 3-58).
fn y_log2(y: F80, x: F80, env: Env) -> Done {
    use Class::{Infinite, Zero};
    if let Some(done) = f80::nan_result(x, y) {
        return done;
    }
    let below_one = x.class() != Infinite && x.class() != Zero && x.normalized().0 < BIAS;
    let done = match (y.class(), x.class()) {
        (Zero, Zero) => Done::invalid(),
        (Infinite, Zero) => Done::exact(F80::infinity(!y.sign())),
        (_, Zero) => Done { value: F80::infinity(!y.sign()), raised: ZE, up: false },
        _ if x.sign() => Done::invalid(),
        (Zero, Infinite) => Done::invalid(),
        (_, Infinite) => Done::exact(F80::infinity(y.sign())),
        (Infinite, _) if x == F80::ONE => Done::invalid(),
        (Infinite, _) => Done::exact(F80::infinity(y.sign() != below_one)),
        (_, _) if x == F80::ONE => Done::exact(F80::zero(y.sign())),
        (Zero, _) => Done::exact(F80::zero(y.sign() != below_one)),
        // Powers of two have whole logarithms: the product may be exact, but is called inexact.
        _ if x.mant << x.mant.leading_zeros() << 1 == 0 => {
            let whole = x.normalized().0 - BIAS;
            let done = f80::arith(Arith::Mul, y, F80::from_i64(i64::from(whole)), 0, env);
            done.with(if done.value.class() == Class::Denormal { UE | PE } else { PE })
        }
        _ => inexact(wide(y).mul(elementary::log2(wide(x))), env),
    };
    if done.raised & (IE | ZE) != 0 { done } else { with_denormals(done, &[y, x], env) }
}

/// y * log2(x + 1): FYL2XP1, for x near 0.
fn y_log2_plus1(y: F80, x: F80, env: Env) -> Done {
    use Class::{Infinite, Zero};
    if let Some(done) = f80::nan_result(x, y) {
        return done;
    }
    let done = match (y.class(), x.class()) {
        (Infinite, Zero) => Done::invalid(),
        (_, Infinite) if x.sign() || y.class() == Zero => Done::invalid(),
        (Zero, _) | (_, Zero) => Done::exact(F80::zero(y.sign() != x.sign())),
        (Infinite, _) | (_, Infinite) => Done::exact(F80::infinity(y.sign() != x.sign())),
        // There is no logarithm: processors leave x.
        _ if x.sign() && x.normalized().0 >= BIAS => Done::exact(x).with(PE),
        _ => inexact(wide(y).mul(elementary::log2_plus1(wide(x))), env),
    };
    if done.raised & IE != 0 { done } else { with_denormals(done, &[y, x], env) }
}

/// FNINIT.
pub(super) fn init(cpu: &mut CpuState, _: u64, _: u64, _: u64) -> u64 {
    cpu.x87.init();
    0
}

/// FNCLEX.
pub(super) fn clear_exceptions(cpu: &mut CpuState, _: u64, _: u64, _: u64) -> u64 {
    cpu.x87.status &= !(EXCEPTIONS | SF | ES | BUSY);
    0
}

/// FNSTCW.
pub(super) fn control(cpu: &mut CpuState, _: u64, _: u64, _: u64) -> u64 {
    u64::from(cpu.x87.control)
}

/// FLDCW.
pub(super) fn set_control(cpu: &mut CpuState, v: u64, _: u64, _: u64) -> u64 {
    waiting(cpu, |x| x.set_control_word(v as u16))
}

/// FNSTSW.
pub(super) fn status(cpu: &mut CpuState, _: u64, _: u64, _: u64) -> u64 {
    u64::from(cpu.x87.status_word())
}
