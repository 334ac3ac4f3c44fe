//! The x87 helpers against the processor: same operands, same control word, same bits, same status word.
//!
//! # Safety
//! Each block of assembly starts and ends with FNINIT, declares the x87 registers as clobbered and touches only the
//! operands it is given.

#![cfg(target_arch = "x86_64")]
#![allow(unsafe_code)]

use calque_ir::helper::x87::StackOp;
use calque_ir::{CpuState, Helper};
use std::arch::asm;

/// An 80-bit number as in memory, padded.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C, align(16))]
struct Ext {
    mant: u64,
    se: u16,
}

impl std::fmt::Debug for Ext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04x}:{:016x}", self.se, self.mant)
    }
}

/// What an operation leaves: ST(0), ST(1), status and tag word.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Outcome {
    st0: Ext,
    st1: Ext,
    status: u16,
    tags: u16,
}

impl Outcome {
    /// What empty registers hold is nobody's business.
    fn without_empty(mut self) -> Self {
        let top = self.status >> 11 & 7;
        let empty = |i| self.tags >> (2 * ((top + i) & 7)) & 3 == 3;
        let none = Ext { mant: 0, se: 0 };
        (self.st0, self.st1) = (if empty(0) { none } else { self.st0 }, if empty(1) { none } else { self.st1 });
        self
    }
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {:?} sw={:04x} tags={:04x}", self.st0, self.st1, self.status, self.tags)
    }
}

/// xorshift64*: reproducible and good enough.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    /// A significand: random, or with long runs of ones and zeros, where rounding carries.
    fn mant(&mut self) -> u64 {
        let top = 1 << 63;
        match self.below(8) {
            0 => top,
            1 => u64::MAX,
            2 => top | 1 << self.below(63),
            3 => u64::MAX << self.below(64) | top,
            4 => u64::MAX >> self.below(64) | top,
            _ => self.next() | top,
        }
    }

    /// An operand of any class.
    fn ext(&mut self) -> Ext {
        let sign = (self.next() as u16) & 0x8000;
        let (exp, mant) = match self.below(24) {
            0 => (0, 0),
            1 => (0, self.next() >> (1 + self.below(62))),
            2 => (0, self.next() | 1 << 63),
            3 => (0x7fff, 1 << 63),
            4 => (0x7fff, self.next() | 3 << 62),
            5 => (0x7fff, self.next() >> 2 | 1 << 63 | 1),
            6 => (0x7fff, self.next() >> 1),
            7 => (1 + self.below(0x7ffe) as u16, self.next() >> 1),
            8 => (1 + self.below(70) as u16, self.mant()),
            9 => (0x7ffe - self.below(70) as u16, self.mant()),
            10 => (0x3fff - 16384 / 2 + self.below(16384) as u16, self.mant()),
            11 => (0x3fff - 16445 / 2 + self.below(60) as u16, self.mant()),
            12 => (0x3fff - 1023 - 60 + self.below(120) as u16, self.mant()),
            13 => (0x3fff + 1023 - 3 + self.below(6) as u16, self.mant()),
            14 => (0x3fff - 127 - 30 + self.below(60) as u16, self.mant()),
            15 => (0x3fff + 127 - 3 + self.below(6) as u16, self.mant()),
            16 => (0x3fff + self.below(70) as u16, self.mant() & u64::MAX << self.below(64)),
            _ => (0x3fff - 35 + self.below(70) as u16, self.mant()),
        };
        Ext { mant, se: sign | exp }
    }

    /// A control word: any rounding and precision; all masked, or now and then any masks.
    fn control(&mut self) -> u16 {
        let masks = if self.below(4) == 0 { self.below(64) as u16 } else { 0x3f };
        let precision = self.pick(&[0, 0x200, 0x300, 0x300, 0x300]);
        0x40 | masks | precision | (self.below(4) as u16) << 10
    }
}

fn call(cpu: &mut CpuState, helper: Helper, args: [u64; 3]) -> u64 {
    helper.body().expect("a helper with a body")(cpu, args[0], args[1], args[2])
}

/// A unit with this control word and `operands` pushed in order.
fn unit(control: u16, operands: &[Ext]) -> CpuState {
    let mut cpu = CpuState::new();
    assert_eq!(call(&mut cpu, Helper::X87SetControl, [control.into(), 0, 0]), 0);
    for v in operands {
        call(&mut cpu, Helper::X87LoadF80, [v.mant, v.se.into(), 0]);
    }
    cpu
}

fn reg(cpu: &mut CpuState, i: u64) -> Ext {
    let mant = call(cpu, Helper::X87RegLow, [i, 0, 0]);
    Ext { mant, se: call(cpu, Helper::X87RegHigh, [i, 0, 0]) as u16 }
}

fn outcome(cpu: &mut CpuState) -> Outcome {
    let status = call(cpu, Helper::X87Status, [0; 3]) as u16;
    let tags = call(cpu, Helper::X87EnvWord, [2, 0, 0]) as u16;
    Outcome { st0: reg(cpu, 0), st1: reg(cpu, 1), status, tags }.without_empty()
}

/// Runs `$op` on the processor with ST(0) = a, ST(1) = b and the registers saved whole afterwards.
macro_rules! native {
    ($op:literal, $control:expr, $a:expr, $b:expr) => {{
        let (control, a, b): (u16, Ext, Ext) = ($control, $a, $b);
        #[repr(C, align(16))]
        struct Area([u8; 108]);
        let mut area = Area([0; 108]);
        // SAFETY: see the file's header.
        unsafe {
            asm!(
                "fninit",
                "fldcw word ptr [{control}]",
                "fld tbyte ptr [{b}]",
                "fld tbyte ptr [{a}]",
                $op,
                "fnsave [{area}]",
                control = in(reg) &control, a = in(reg) &a, b = in(reg) &b, area = in(reg) &mut area,
                out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
            );
        }
        saved(&area.0)
    }};
}

/// The outcome in an FNSAVE image.
fn saved(area: &[u8; 108]) -> Outcome {
    let ext = |at: usize| Ext {
        mant: u64::from_le_bytes(area[at..at + 8].try_into().unwrap()),
        se: u16::from_le_bytes([area[at + 8], area[at + 9]]),
    };
    let word = |at: usize| u16::from_le_bytes([area[at], area[at + 1]]);
    Outcome { st0: ext(28), st1: ext(38), status: word(4), tags: word(8) }.without_empty()
}

const ROUNDS: u32 = 200_000;

/// Compares a native operation with helpers over random operands.
fn check(name: &str, native: impl Fn(u16, Ext, Ext) -> Outcome, helper: impl Fn(&mut CpuState)) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut failures = 0;
    for _ in 0..ROUNDS {
        let (control, a) = (random.control(), random.ext());
        let near = Ext { mant: random.mant(), se: a.se ^ random.pick(&[0, 1, 0x8000, 0x8001]) };
        let b = match random.below(8) {
            0 => near,
            1 => Ext { mant: a.mant, se: near.se },
            _ => random.ext(),
        };
        let want = native(control, a, b);
        let mut cpu = unit(control, &[b, a]);
        helper(&mut cpu);
        let got = outcome(&mut cpu);
        if got != want {
            failures += 1;
            if failures <= 12 {
                eprintln!("{name} cw={control:04x} st0={a:?} st1={b:?}\n  expected {want:?}\n  got      {got:?}");
            }
        }
    }
    assert_eq!(failures, 0, "{name}: {failures} of {ROUNDS} differ");
}

fn arith(op: u64, dst: u64, src: u64) -> impl Fn(&mut CpuState) {
    move |cpu| {
        call(cpu, Helper::X87ArithSt, [op, dst, src]);
    }
}

fn stack_op(op: StackOp) -> impl Fn(&mut CpuState) {
    move |cpu| {
        call(cpu, Helper::X87Op, [op as u64, 0, 0]);
    }
}

#[test]
fn add() {
    check("fadd", |c, a, b| native!("fadd st(0), st(1)", c, a, b), arith(0, 0, 1));
}

#[test]
fn multiply() {
    check("fmul", |c, a, b| native!("fmul st(0), st(1)", c, a, b), arith(1, 0, 1));
}

#[test]
fn subtract() {
    check("fsub", |c, a, b| native!("fsub st(0), st(1)", c, a, b), arith(2, 0, 1));
    check("fsubr", |c, a, b| native!("fsubr st(0), st(1)", c, a, b), arith(3, 0, 1));
    check("fsub 1,0", |c, a, b| native!(".byte 0xdc, 0xe9", c, a, b), arith(2, 1, 0));
}

#[test]
fn divide() {
    check("fdiv", |c, a, b| native!("fdiv st(0), st(1)", c, a, b), arith(4, 0, 1));
    check("fdivr", |c, a, b| native!("fdivr st(0), st(1)", c, a, b), arith(5, 0, 1));
    check("fdivp 1,0", |c, a, b| native!(".byte 0xde, 0xf9", c, a, b), arith(4, 0x101, 0));
}

#[test]
fn square_root() {
    check("fsqrt", |c, a, b| native!("fsqrt", c, a, b), stack_op(StackOp::Sqrt));
}

#[test]
fn round_to_integral() {
    check("frndint", |c, a, b| native!("frndint", c, a, b), stack_op(StackOp::Rndint));
}

/// Whether the processor does what is left to it as AMD's do: of denormal operands beside infinities, where underflow is not masked.
fn is_amd() -> bool {
    let amd = calque_difftest::generate::is_amd();
    if !amd {
        println!("skipped: this processor is not AMD's");
    }
    amd
}

#[test]
fn scale() {
    if !is_amd() {
        return;
    }
    check("fscale", |c, a, b| native!("fscale", c, a, b), stack_op(StackOp::Scale));
}

#[test]
fn extract() {
    check("fxtract", |c, a, b| native!("fxtract", c, a, b), stack_op(StackOp::Xtract));
}

#[test]
fn remainder() {
    if !is_amd() {
        return;
    }
    check("fprem", |c, a, b| native!("fprem", c, a, b), stack_op(StackOp::Prem));
    check("fprem1", |c, a, b| native!("fprem1", c, a, b), stack_op(StackOp::Prem1));
}

#[test]
fn signs_and_classes() {
    check("fchs", |c, a, b| native!("fchs", c, a, b), stack_op(StackOp::Chs));
    check("fabs", |c, a, b| native!("fabs", c, a, b), stack_op(StackOp::Abs));
    check("fxam", |c, a, b| native!("fxam", c, a, b), stack_op(StackOp::Xam));
}

#[test]
fn compare() {
    let compare = |i, kind| {
        move |cpu: &mut CpuState| {
            call(cpu, Helper::X87CompareSt, [i, kind, 0]);
        }
    };
    check("ftst", |c, a, b| native!("ftst", c, a, b), stack_op(StackOp::Tst));
    check("fcom", |c, a, b| native!("fcom st(1)", c, a, b), compare(1, 0));
    check("fcompp", |c, a, b| native!("fcompp", c, a, b), compare(1, 0x200));
    check("fucom", |c, a, b| native!("fucom st(1)", c, a, b), compare(1, 1));
    check("fucomp empty", |c, a, b| native!("fucomp st(2)", c, a, b), compare(2, 0x101));
}

#[test]
fn stack_moves() {
    check(
        "fld st0",
        |c, a, b| native!("fld st(0)", c, a, b),
        |cpu| {
            call(cpu, Helper::X87LoadSt, [0; 3]);
        },
    );
    check(
        "fld st5",
        |c, a, b| native!("fld st(5)", c, a, b),
        |cpu| {
            call(cpu, Helper::X87LoadSt, [5, 0, 0]);
        },
    );
    check(
        "fxch",
        |c, a, b| native!("fxch st(1)", c, a, b),
        |cpu| {
            call(cpu, Helper::X87Exchange, [1, 0, 0]);
        },
    );
    check(
        "fxch empty",
        |c, a, b| native!("fxch st(4)", c, a, b),
        |cpu| {
            call(cpu, Helper::X87Exchange, [4, 0, 0]);
        },
    );
    check(
        "fstp st1",
        |c, a, b| native!("fstp st(1)", c, a, b),
        |cpu| {
            call(cpu, Helper::X87StoreSt, [0x101, 0, 0]);
        },
    );
    check("fadd empty", |c, a, b| native!("fadd st(0), st(3)", c, a, b), arith(0, 0, 3));
    check("fdecstp", |c, a, b| native!("fdecstp", c, a, b), stack_op(StackOp::DecStp));
    check(
        "overflow",
        |c, a, b| native!("fld1; fld1; fld1; fld1; fld1; fld1; fld1", c, a, b),
        |cpu| {
            for _ in 0..7 {
                call(cpu, Helper::X87LoadConst, [0; 3]);
            }
        },
    );
}

#[test]
fn constants() {
    macro_rules! constant {
        ($op:literal, $k:expr) => {
            check(
                $op,
                |c, a, b| native!($op, c, a, b),
                |cpu| {
                    call(cpu, Helper::X87LoadConst, [$k, 0, 0]);
                },
            );
        };
    }
    constant!("fld1", 0);
    constant!("fldl2t", 1);
    constant!("fldl2e", 2);
    constant!("fldpi", 3);
    constant!("fldlg2", 4);
    constant!("fldln2", 5);
    constant!("fldz", 6);
}

/// Random bits of a narrower operand, edge cases included, chosen by the 80-bit generator.
fn narrow(v: Ext) -> u64 {
    let f = if v.se & 1 != 0 { v.mant } else { v.mant >> 1 };
    match v.se >> 1 & 7 {
        0 => f & !(0x7ff << 52 | 0xff << 23),
        1 => f | 0x7ff << 52 | 0xff << 23,
        2 => u64::from(v.se & 2) << 30 | u64::from(v.se & 2) << 62 | 0x7ff0_0000_0000_0000,
        _ => f,
    }
}

/// Memory operand forms: `$op` reads the operand at `{m}`.
macro_rules! native_memory {
    ($op:literal, $control:expr, $a:expr, $memory:expr) => {{
        let (control, a, memory): (u16, Ext, u64) = ($control, $a, $memory);
        #[repr(C, align(16))]
        struct Area([u8; 108]);
        let mut area = Area([0; 108]);
        let zero = Ext { mant: 0, se: 0 };
        // SAFETY: see the file's header.
        unsafe {
            asm!(
                "fninit",
                "fldcw word ptr [{control}]",
                "fld tbyte ptr [{b}]",
                "fld tbyte ptr [{a}]",
                $op,
                "fnsave [{area}]",
                control = in(reg) &control, a = in(reg) &a, b = in(reg) &zero, m = in(reg) &memory,
                area = in(reg) &mut area,
                out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
            );
        }
        saved(&area.0)
    }};
}

/// Compares an instruction with a memory operand with a helper.
fn check_memory(name: &str, native: impl Fn(u16, Ext, u64) -> Outcome, helper: impl Fn(&mut CpuState, u64)) {
    let mut random = Random(0x1234_5678_9abc_def1);
    let mut failures = 0;
    for _ in 0..ROUNDS {
        let (control, a, m) = (random.control(), random.ext(), narrow(random.ext()));
        let want = native(control, a, m);
        let mut cpu = unit(control, &[Ext { mant: 0, se: 0 }, a]);
        helper(&mut cpu, m);
        let got = outcome(&mut cpu);
        if got != want {
            failures += 1;
            if failures <= 12 {
                eprintln!("{name} cw={control:04x} st0={a:?} m={m:016x}\n  expected {want:?}\n  got      {got:?}");
            }
        }
    }
    assert_eq!(failures, 0, "{name}: {failures} of {ROUNDS} differ");
}

#[test]
fn memory_operands() {
    check_memory(
        "fld m32",
        |c, a, m| native_memory!("fld dword ptr [{m}]", c, a, m),
        |cpu, m| {
            call(cpu, Helper::X87LoadF32, [m & 0xffff_ffff, 0, 0]);
        },
    );
    check_memory(
        "fld m64",
        |c, a, m| native_memory!("fld qword ptr [{m}]", c, a, m),
        |cpu, m| {
            call(cpu, Helper::X87LoadF64, [m, 0, 0]);
        },
    );
    check_memory(
        "fild m64",
        |c, a, m| native_memory!("fild qword ptr [{m}]", c, a, m),
        |cpu, m| {
            call(cpu, Helper::X87LoadInt, [m, 0, 0]);
        },
    );
    check_memory(
        "fild m16",
        |c, a, m| native_memory!("fild word ptr [{m}]", c, a, m),
        |cpu, m| {
            call(cpu, Helper::X87LoadInt, [m as i16 as u64, 0, 0]);
        },
    );
    check_memory(
        "fadd m32",
        |c, a, m| native_memory!("fadd dword ptr [{m}]", c, a, m),
        |cpu, m| {
            call(cpu, Helper::X87ArithF32, [0, m & 0xffff_ffff, 0]);
        },
    );
    check_memory(
        "fdivr m64",
        |c, a, m| native_memory!("fdivr qword ptr [{m}]", c, a, m),
        |cpu, m| {
            call(cpu, Helper::X87ArithF64, [5, m, 0]);
        },
    );
    check_memory(
        "fimul m32",
        |c, a, m| native_memory!("fimul dword ptr [{m}]", c, a, m),
        |cpu, m| {
            call(cpu, Helper::X87ArithInt, [1, m as i32 as u64, 0]);
        },
    );
    check_memory(
        "fcom m64",
        |c, a, m| native_memory!("fcom qword ptr [{m}]", c, a, m),
        |cpu, m| {
            call(cpu, Helper::X87CompareF64, [m, 0, 0]);
        },
    );
    check_memory(
        "ficomp m16",
        |c, a, m| native_memory!("ficomp word ptr [{m}]", c, a, m),
        |cpu, m| {
            call(cpu, Helper::X87CompareInt, [m as i16 as u64, 0x100, 0]);
        },
    );
}

/// Stores: what arrives in memory and the state afterwards. Only with all exceptions masked (`x87.rs`, Quirks).
fn check_store(name: &str, native: impl Fn(u16, Ext) -> (u128, u16), helper: impl Fn(&mut CpuState) -> u128) {
    let mut random = Random(0xfeed_f00d_dead_beef);
    for _ in 0..ROUNDS {
        let (control, a) = (random.control() | 0x3f, random.ext());
        let want = native(control, a);
        let mut cpu = unit(control, &[a]);
        let got = (helper(&mut cpu), call(&mut cpu, Helper::X87Status, [0; 3]) as u16);
        assert_eq!(got, want, "{name} cw={control:04x} st0={a:?}: {:x} instead of {:x}", got.0, want.0);
    }
}

macro_rules! native_store {
    ($op:literal, $control:expr, $a:expr) => {{
        let (control, a): (u16, Ext) = ($control, $a);
        let (mut out, mut status) = (0u128, 0u16);
        // SAFETY: see the file's header.
        unsafe {
            asm!(
                "fninit",
                "fldcw word ptr [{control}]",
                "fld tbyte ptr [{a}]",
                $op,
                "fnstsw word ptr [{status}]",
                "fninit",
                control = in(reg) &control, a = in(reg) &a, m = in(reg) &mut out, status = in(reg) &mut status,
                out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
            );
        }
        (out, status)
    }};
}

#[test]
fn stores() {
    let store = |helper, args| {
        move |cpu: &mut CpuState| {
            let v = u128::from(call(cpu, helper, args));
            call(cpu, Helper::X87StoreDone, [0; 3]);
            v
        }
    };
    check_store("fst m32", |c, a| native_store!("fst dword ptr [{m}]", c, a), store(Helper::X87StoreF32, [0; 3]));
    check_store("fst m64", |c, a| native_store!("fst qword ptr [{m}]", c, a), store(Helper::X87StoreF64, [0; 3]));
    check_store("fist m16", |c, a| native_store!("fist word ptr [{m}]", c, a), store(Helper::X87StoreInt, [16, 0, 0]));
    check_store("fist m32", |c, a| native_store!("fist dword ptr [{m}]", c, a), store(Helper::X87StoreInt, [32, 0, 0]));
    check_store(
        "fistp m64",
        |c, a| native_store!("fistp qword ptr [{m}]", c, a),
        |cpu| {
            let v = u128::from(call(cpu, Helper::X87StoreInt, [64, 0, 0]));
            call(cpu, Helper::X87StoreDone, [0x100, 0, 0]);
            v
        },
    );
    check_store(
        "fisttp m32",
        |c, a| native_store!("fisttp dword ptr [{m}]", c, a),
        |cpu| {
            let v = u128::from(call(cpu, Helper::X87StoreInt, [32, 1, 0]));
            call(cpu, Helper::X87StoreDone, [0x100, 0, 0]);
            v
        },
    );
    check_store(
        "fstp m80",
        |c, a| native_store!("fstp tbyte ptr [{m}]", c, a),
        |cpu| {
            let high = call(cpu, Helper::X87StoreF80High, [0; 3]);
            let low = call(cpu, Helper::X87StoreF80Low, [0; 3]);
            call(cpu, Helper::X87StoreDone, [0x100, 0, 0]);
            u128::from(high) << 64 | u128::from(low)
        },
    );
    check_store(
        "fbstp",
        |c, a| native_store!("fbstp tbyte ptr [{m}]", c, a),
        |cpu| {
            let high = call(cpu, Helper::X87StoreBcdHigh, [0; 3]);
            let low = call(cpu, Helper::X87StoreBcdLow, [0; 3]);
            call(cpu, Helper::X87StoreDone, [0x100, 0, 0]);
            u128::from(high) << 64 | u128::from(low)
        },
    );
}

/// Compares a function that processors only approximate: results may differ by one unit in the last place, C1 with
/// them. Prints how often the bits are the same.
fn check_close(name: &str, native: impl Fn(u16, Ext, Ext) -> Outcome, helper: impl Fn(&mut CpuState)) {
    let mut random = Random(0xabcd_ef01_2345_6789);
    let (mut failures, mut same) = (0, [0; 4]);
    for _ in 0..ROUNDS / 10 {
        let (control, a, b) = (random.control() | 0x3f, random.ext(), random.ext());
        let want = native(control, a, b);
        let mut cpu = unit(control, &[b, a]);
        helper(&mut cpu);
        let got = outcome(&mut cpu);
        same[usize::from(control >> 10 & 3)] += u32::from(got == want);
        let close = |a: Ext, b: Ext| (a.se == b.se && a.mant.abs_diff(b.mant) <= 1) || next_to(a, b) || next_to(b, a);
        let status = (got.status ^ want.status) & !0x200 == 0;
        if !(status && close(got.st0, want.st0) && close(got.st1, want.st1)) {
            failures += 1;
            if failures <= 12 {
                eprintln!("{name} cw={control:04x} st0={a:?} st1={b:?}\n  expected {want:?}\n  got      {got:?}");
            }
        }
    }
    eprintln!("{name}: {same:?} of {} the same bits, by rounding mode", ROUNDS / 40);
    assert_eq!(failures, 0, "{name}: {failures} differ");
}

/// Whether `b` is the power of two right above `a`.
fn next_to(a: Ext, b: Ext) -> bool {
    b.se == a.se + 1 && a.mant == u64::MAX && b.mant == 1 << 63
}

#[test]
fn transcendental() {
    check_close("fsin", |c, a, b| native!("fsin", c, a, b), stack_op(StackOp::Sin));
    check_close("fcos", |c, a, b| native!("fcos", c, a, b), stack_op(StackOp::Cos));
    check_close("fsincos", |c, a, b| native!("fsincos", c, a, b), stack_op(StackOp::SinCos));
    check_close("fptan", |c, a, b| native!("fptan", c, a, b), stack_op(StackOp::Ptan));
    check_close("fpatan", |c, a, b| native!("fpatan", c, a, b), stack_op(StackOp::Patan));
    check_close("f2xm1", |c, a, b| native!("f2xm1", c, a, b), stack_op(StackOp::F2xm1));
    check_close("fyl2x", |c, a, b| native!("fyl2x", c, a, b), stack_op(StackOp::Yl2x));
    check_close("fyl2xp1", |c, a, b| native!("fyl2xp1", c, a, b), stack_op(StackOp::Yl2xp1));
}
