//! The arms: what each operation does, one arm an operation.
//!
//! The macros read operands out of the frame: `x`, `y`, `z` are the low words of operands 0 to 2, `a`, `b` whole
//! vectors. An arm for a scalar writes the low word of its slot (S1) and leaves the high word stale: a 16-byte access
//! right behind an 8-byte store would wait for it, so scalar arms never touch a whole slot.

use super::lanes::{Lane, map, narrow, zip};
use super::{Host, int, vector};
use crate::helper::{Helper, HelperEffect};
use crate::op::Op;
use crate::reg::{Reg, RegKind};
use crate::region::{Cc, FaultKind, FloatCc, Inst, Value};
use crate::rounding::Rounding;
use crate::sse::{Arith, BEFORE, Fp, Precision, Signaling};
use crate::state::{CpuState, V128};
use crate::types::Type;
use std::cmp::Ordering;

/// How a block ended early.
pub(super) enum Stop<F> {
    Fault(FaultKind),
    Host(F),
}

/// What the guest instruction under way has raised, and MXCSR before it.
#[derive(Clone, Copy)]
struct Floats {
    raised: u32,
    mxcsr: u32,
    /// Only what is raised is of interest: nothing traps.
    collecting: bool,
}

/// MXCSR's exception flags.
const FLAGS: u32 = 0x3f;

/// A block on its way, without the state that it works on.
pub(super) struct Code<'a> {
    pub pool: &'a [[u64; 2]],
    /// Number of the first instruction: values are numbered from there.
    pub start: u32,
    pub insts: &'a [Inst],
}

impl Code<'_> {
    /// Slot of operand `n`.
    #[inline(always)]
    fn slot(&self, inst: &Inst, n: usize) -> usize {
        inst.args[n].wrapping_sub(self.start) as usize
    }

    /// Low word of an optional operand, 0 if absent.
    #[inline(always)]
    fn optional(&self, slots: &[V128], inst: &Inst, n: usize) -> u64 {
        if Value(inst.args[n]) == Value::NONE { 0 } else { slots[self.slot(inst, n)][0] }
    }

    /// Linear address of a memory operand.
    #[inline(always)]
    fn addr(&self, slots: &[V128], inst: &Inst) -> u64 {
        let index = self.optional(slots, inst, 1) << (inst.aux & 3);
        self.optional(slots, inst, 0).wrapping_add(index).wrapping_add(inst.args[2] as i32 as u64)
    }

    /// Type of operand 0.
    #[inline(always)]
    fn arg_type(&self, inst: &Inst) -> Type {
        self.insts[self.slot(inst, 0)].result_type()
    }

    #[inline(always)]
    fn constant(&self, inst: &Inst, n: usize) -> V128 {
        self.pool[inst.args[n] as usize]
    }
}

/// Unsigned integer lanes: `f(a, b)`.
macro_rules! unsigned {
    ($ty:expr, $a:expr, $b:expr, $f:expr) => {
        match $ty {
            Type::I8x16 => zip::<u8>($a, $b, $f),
            Type::I16x8 => zip::<u16>($a, $b, $f),
            Type::I32x4 => zip::<u32>($a, $b, $f),
            _ => zip::<u64>($a, $b, $f),
        }
    };
}

/// Signed integer lanes: `f(a, b)`.
macro_rules! signed {
    ($ty:expr, $a:expr, $b:expr, $f:expr) => {
        match $ty {
            Type::I8x16 => zip::<i8>($a, $b, $f),
            Type::I16x8 => zip::<i16>($a, $b, $f),
            Type::I32x4 => zip::<i32>($a, $b, $f),
            _ => zip::<i64>($a, $b, $f),
        }
    };
}

/// Runs a block's instructions; an error carries the index of the instruction that stopped.
pub(super) fn run_block<H: Host>(
    code: &Code<'_>,
    slots: &mut [V128],
    cpu: &mut CpuState,
    host: &mut H,
) -> Result<(), (usize, Stop<H::Fault>)> {
    run_from(code, slots, cpu, host, 0, false)
}

/// The same from instruction `first` on; `collecting` as in [`Floats`].
#[inline(always)]
fn run_from<H: Host>(
    code: &Code<'_>,
    slots: &mut [V128],
    cpu: &mut CpuState,
    host: &mut H,
    first: usize,
    collecting: bool,
) -> Result<(), (usize, Stop<H::Fault>)> {
    assert_eq!(code.insts.len(), slots.len());
    let mut floats = Floats { raised: 0, mxcsr: cpu.mxcsr, collecting };
    for (at, inst) in code.insts.iter().enumerate().skip(first) {
        let Inst { op, ty, aux, .. } = *inst;
        macro_rules! x {
            () => {
                slots[code.slot(inst, 0)][0]
            };
        }
        macro_rules! y {
            () => {
                slots[code.slot(inst, 1)][0]
            };
        }
        macro_rules! z {
            () => {
                slots[code.slot(inst, 2)][0]
            };
        }
        macro_rules! a {
            () => {
                slots[code.slot(inst, 0)]
            };
        }
        macro_rules! b {
            () => {
                slots[code.slot(inst, 1)]
            };
        }
        // The result: a word, a word cut to the type's width, a condition, a vector.
        macro_rules! word {
            ($v:expr) => {{
                let v = $v;
                slots[at][0] = v;
            }};
        }
        macro_rules! cut {
            ($v:expr) => {
                word!($v & int::mask(ty))
            };
        }
        macro_rules! flag {
            ($v:expr) => {
                word!(u64::from($v))
            };
        }
        macro_rules! vector {
            ($v:expr) => {{
                let v = $v;
                slots[at] = v;
            }};
        }
        // Floating point, `f(fp, a)` and `f(fp, a, b)` at each type; then what it raised.
        macro_rules! raising {
            ($fp:ident, $e:expr) => {{
                let mut $fp = Fp::new(cpu.mxcsr);
                $e;
                if $fp.raised != 0 {
                    floats.raised |= $fp.raised;
                    if $fp.unmasked($fp.raised) != 0 && !floats.collecting {
                        trap(code, slots, cpu, floats, at);
                        return Err((at, Stop::Fault(FaultKind::SimdFloat)));
                    }
                    cpu.mxcsr |= $fp.raised;
                }
            }};
        }
        macro_rules! float {
            ($f:expr, 1) => {
                raising!(
                    fp,
                    match ty {
                        Type::F32 => word!(u64::from($f(&mut fp, single(x!())).to_bits())),
                        Type::F64 => word!($f(&mut fp, double(x!())).to_bits()),
                        Type::F32x4 => vector!(map::<f32>(a!(), |p| $f(&mut fp, p))),
                        _ => vector!(map::<f64>(a!(), |p| $f(&mut fp, p))),
                    }
                )
            };
            ($f:expr, 2) => {
                raising!(
                    fp,
                    match ty {
                        Type::F32 => word!(u64::from($f(&mut fp, single(x!()), single(y!())).to_bits())),
                        Type::F64 => word!($f(&mut fp, double(x!()), double(y!())).to_bits()),
                        Type::F32x4 => vector!(zip::<f32>(a!(), b!(), |p, q| $f(&mut fp, p, q))),
                        _ => vector!(zip::<f64>(a!(), b!(), |p, q| $f(&mut fp, p, q))),
                    }
                )
            };
        }
        // What the host may refuse.
        macro_rules! hosted {
            ($v:expr) => {
                match $v {
                    Ok(v) => v,
                    Err(fault) => {
                        if !floats.collecting {
                            cpu.mxcsr = floats.mxcsr; // what the instruction has raised so far never happened
                        }
                        return Err((at, Stop::Host(fault)));
                    }
                }
            };
        }

        match op {
            Op::Nop => {}
            Op::Insn => (floats.raised, floats.mxcsr) = (0, cpu.mxcsr),
            Op::Count => {
                let (n, counter, _) = inst.counted();
                cpu.rt.insns = cpu.rt.insns.wrapping_add(u64::from(n));
                host.count(cpu, counter);
            }

            Op::Iconst => word!(inst.imm()),
            Op::Vconst => vector!(code.constant(inst, 0)),
            Op::Get => match aux >> 4 {
                0 => word!(cpu.gpr[aux as usize & 15] & int::mask(ty)),
                1 if ty.is_vector() => vector!(cpu.xmm[aux as usize & 15]),
                1 => cut!(cpu.xmm[aux as usize & 15][0]),
                2 if ty.is_vector() => vector!(cpu.ymmh[aux as usize & 15]),
                2 => cut!(cpu.ymmh[aux as usize & 15][0]),
                _ => word!(read_rest(cpu, aux)),
            },
            Op::Put => match aux >> 4 {
                0 => cpu.gpr[aux as usize & 15] = x!(),
                1 => cpu.xmm[aux as usize & 15] = a!(),
                2 => {
                    let half = a!();
                    cpu.ymmh[aux as usize & 15] = half;
                    cpu.upper_halves |= half[0] | half[1];
                    // SDM vol. 1 15.5: VEX-encoded instructions write all there is of a register.
                    cpu.avx512.zmm_hi256[aux as usize & 15] = [0; 4];
                }
                _ => write_rest(cpu, aux, x!()),
            },

            Op::Bitcast | Op::Uextend => word!(x!()),
            Op::Sextend => cut!(int::signed(code.arg_type(inst), x!()) as u64),
            Op::Ireduce => cut!(x!()),
            Op::Ineg if ty.is_vector() => vector!(unsigned!(ty, [0, 0], a!(), |p, q| p.wrapping_sub(q))),
            Op::Ineg => cut!(x!().wrapping_neg()),
            Op::Bnot if ty.is_vector() => vector!(a!().map(|w| !w)),
            Op::Bnot => cut!(!x!()),
            Op::Clz => word!(u64::from(x!().leading_zeros()) - (64 - u64::from(ty.bits()))),
            Op::Ctz => word!(u64::from(x!().trailing_zeros().min(ty.bits()))),
            Op::Popcnt => word!(u64::from(x!().count_ones())),
            Op::Bswap => word!(x!().swap_bytes() >> (64 - ty.bits())),
            Op::Parity => flag!((x!() as u8).count_ones() & 1 == 0),

            Op::Iadd if ty.is_vector() => vector!(unsigned!(ty, a!(), b!(), |p, q| p.wrapping_add(q))),
            Op::Iadd => cut!(x!().wrapping_add(y!())),
            Op::Isub if ty.is_vector() => vector!(unsigned!(ty, a!(), b!(), |p, q| p.wrapping_sub(q))),
            Op::Isub => cut!(x!().wrapping_sub(y!())),
            Op::Imul if ty.is_vector() => vector!(unsigned!(ty, a!(), b!(), |p, q| p.wrapping_mul(q))),
            Op::Imul => cut!(x!().wrapping_mul(y!())),
            Op::Umulhi if ty.is_vector() => {
                vector!(zip::<u16>(a!(), b!(), |p, q| ((u32::from(p) * u32::from(q)) >> 16) as u16))
            }
            Op::Umulhi => word!(((u128::from(x!()) * u128::from(y!())) >> ty.bits()) as u64),
            Op::Smulhi if ty.is_vector() => {
                vector!(zip::<i16>(a!(), b!(), |p, q| ((i32::from(p) * i32::from(q)) >> 16) as i16))
            }
            Op::Smulhi => cut!((int::product(ty, x!(), y!()) >> ty.bits()) as u64),
            Op::Band if ty.is_vector() => vector!(words(a!(), b!(), |p, q| p & q)),
            Op::Band => word!(x!() & y!()),
            Op::Bor if ty.is_vector() => vector!(words(a!(), b!(), |p, q| p | q)),
            Op::Bor => word!(x!() | y!()),
            Op::Bxor if ty.is_vector() => vector!(words(a!(), b!(), |p, q| p ^ q)),
            Op::Bxor => word!(x!() ^ y!()),
            Op::BandNot if ty.is_vector() => vector!(words(a!(), b!(), |p, q| p & !q)),
            Op::BandNot => word!(x!() & !y!()),
            Op::Ishl => cut!(x!() << (y!() & 63)),
            Op::Ushr => word!(x!() >> (y!() & 63)),
            Op::Sshr => cut!((int::signed(ty, x!()) >> (y!() & 63)) as u64),
            Op::Rotl => word!(int::rotl(ty, x!(), y!())),
            Op::Rotr => word!(int::rotr(ty, x!(), y!())),
            Op::InsertLow8 => word!(x!() & !0xff | y!()),
            Op::InsertHigh8 => word!(x!() & !0xff00 | y!() << 8),
            Op::InsertLow16 => word!(x!() & !0xffff | y!()),

            Op::Icmp if ty.is_vector() => vector!(vector::compare(Cc::from_code(aux), ty, a!(), b!())),
            Op::Icmp => flag!(int::compare(Cc::from_code(aux), ty, x!(), y!())),
            Op::Fcmp | Op::FcmpSignaling => raising!(fp, {
                let signaling = if op == Op::Fcmp { Signaling::No } else { Signaling::Yes };
                let cc = FloatCc::from_code(aux);
                match ty {
                    Type::F32 => flag!(fp.compare(cc, signaling, single(x!()), single(y!()))),
                    Type::F64 => flag!(fp.compare(cc, signaling, double(x!()), double(y!()))),
                    _ => vector!(vector::float_compare(&mut fp, cc, signaling, ty, a!(), b!())),
                }
            }),
            Op::Select => {
                let chosen = code.slot(inst, if x!() != 0 { 1 } else { 2 });
                if ty.is_vector() { vector!(slots[chosen]) } else { word!(slots[chosen][0]) }
            }

            Op::UaddOverflow => flag!(x!().wrapping_add(y!()) & int::mask(ty) < x!()),
            Op::SaddOverflow => word!(int::sum_overflow(ty, x!(), y!(), x!().wrapping_add(y!()))),
            Op::SsubOverflow => word!(int::difference_overflow(ty, x!(), y!(), x!().wrapping_sub(y!()))),
            Op::UmulOverflow => flag!(u128::from(x!()) * u128::from(y!()) > u128::from(int::mask(ty))),
            Op::SmulOverflow => {
                let product = int::product(ty, x!(), y!());
                flag!(product >> (ty.bits() - 1) != product >> 127);
            }
            Op::UaddOverflowCin => {
                flag!(u128::from(x!()) + u128::from(y!()) + u128::from(z!()) > u128::from(int::mask(ty)));
            }
            Op::SaddOverflowCin => {
                word!(int::sum_overflow(ty, x!(), y!(), x!().wrapping_add(y!()).wrapping_add(z!())));
            }
            Op::UsubOverflowBin => flag!(u128::from(x!()) < u128::from(y!()) + u128::from(z!())),
            Op::SsubOverflowBin => {
                word!(int::difference_overflow(ty, x!(), y!(), x!().wrapping_sub(y!()).wrapping_sub(z!())));
            }
            Op::HalfCarry => word!((x!() ^ y!() ^ z!()) >> 4 & 1),

            Op::Udiv | Op::Urem | Op::Sdiv | Op::Srem => match divide(op, ty, x!(), y!(), z!()) {
                Some(v) => word!(v),
                None => return Err((at, Stop::Fault(FaultKind::DivideError))),
            },

            Op::Fadd => float!(|fp: &mut Fp, p, q| fp.arith(Arith::Add, p, q), 2),
            Op::Fsub => float!(|fp: &mut Fp, p, q| fp.arith(Arith::Sub, p, q), 2),
            Op::Fmul => float!(|fp: &mut Fp, p, q| fp.arith(Arith::Mul, p, q), 2),
            Op::Fdiv => float!(|fp: &mut Fp, p, q| fp.arith(Arith::Div, p, q), 2),
            Op::Sqrt => float!(|fp: &mut Fp, p| fp.sqrt(p), 1),
            Op::Fmadd | Op::Fmsub | Op::Fnmadd | Op::Fnmsub => raising!(fp, {
                let (product, sum) = (matches!(op, Op::Fnmadd | Op::Fnmsub), matches!(op, Op::Fmsub | Op::Fnmsub));
                match ty {
                    Type::F32 => {
                        word!(u64::from(fp.fused([x!(), y!(), z!()].map(single), product, sum).to_bits()));
                    }
                    Type::F64 => word!(fp.fused([x!(), y!(), z!()].map(double), product, sum).to_bits()),
                    _ => {
                        let args = [0, 1, 2].map(|slot| slots[code.slot(inst, slot)]);
                        vector!(vector::fused(&mut fp, ty, args, product, sum));
                    }
                }
            }),
            Op::Ceil => float!(|fp: &mut Fp, p| fp.integral(p, Rounding::Up, Precision::Suppressed), 1),
            Op::Floor => float!(|fp: &mut Fp, p| fp.integral(p, Rounding::Down, Precision::Suppressed), 1),
            Op::Trunc => float!(|fp: &mut Fp, p| fp.integral(p, Rounding::Zero, Precision::Suppressed), 1),
            Op::Nearest => float!(|fp: &mut Fp, p| fp.integral(p, Rounding::Nearest, Precision::Suppressed), 1),
            Op::Fmin => float!(|fp: &mut Fp, p, q| fp.select(p, q, Ordering::Less), 2),
            Op::Fmax => float!(|fp: &mut Fp, p, q| fp.select(p, q, Ordering::Greater), 2),
            Op::Fpromote => raising!(fp, word!(fp.promote(single(x!())).to_bits())),
            Op::Fdemote => raising!(fp, word!(u64::from(fp.demote(double(x!())).to_bits()))),
            Op::FvpromoteLow => raising!(fp, {
                let [low, high, ..] = f32::split(a!());
                vector!(f64::join([fp.promote(low), fp.promote(high)]));
            }),
            Op::Fvdemote => raising!(fp, {
                let [low, high] = f64::split(a!());
                vector!(f32::join([fp.demote(low), fp.demote(high), 0.0, 0.0]));
            }),
            Op::FcvtFromSint => raising!(fp, {
                let v = int::signed(code.arg_type(inst), x!());
                match ty {
                    Type::F32 => word!(u64::from(fp.int_to_float::<f32>(v).to_bits())),
                    Type::F64 => word!(fp.int_to_float::<f64>(v).to_bits()),
                    _ => vector!(f32::join(i32::split(a!()).map(|lane| fp.int_to_float(i64::from(lane))))),
                }
            }),
            Op::FcvtLowFromSint => {
                let [low, high, ..] = i32::split(a!());
                vector!(f64::join([f64::from(low), f64::from(high)]));
            }
            Op::FcvtToSint | Op::FcvtToSintTrunc => raising!(fp, {
                let mode = if op == Op::FcvtToSint { fp.rounding() } else { Rounding::Zero };
                match (ty, code.arg_type(inst)) {
                    (Type::I32 | Type::I64, Type::F32) => cut!(fp.float_to_int(ty.bits(), single(x!()), mode) as u64),
                    (Type::I32 | Type::I64, _) => cut!(fp.float_to_int(ty.bits(), double(x!()), mode) as u64),
                    _ => vector!(i32::join(f32::split(a!()).map(|lane| fp.float_to_int(32, lane, mode) as i32))),
                }
            }),
            Op::FcvtLowToSint | Op::FcvtLowToSintTrunc => raising!(fp, {
                let mode = if op == Op::FcvtLowToSint { fp.rounding() } else { Rounding::Zero };
                let [low, high] = f64::split(a!()).map(|lane| fp.float_to_int(32, lane, mode) as i32);
                vector!(i32::join([low, high, 0, 0]));
            }),

            Op::Splat => vector!(vector::splat(ty, x!())),
            Op::ExtractLane => word!(vector::extract(ty, &slots[code.slot(inst, 0)], aux)),
            Op::InsertLane => vector!(vector::insert(ty, a!(), y!(), aux)),
            Op::ScalarToVector => vector!([x!(), 0]),
            Op::Concat => vector!([x!(), y!()]),
            Op::Shuffle => vector!(vector::shuffle(a!(), b!(), code.constant(inst, 2))),
            Op::Swizzle => vector!(vector::swizzle(a!(), b!())),
            Op::HighBits => word!(vector::high_bits(ty, a!())),
            Op::Vshl => vector!(vector::shift(ty, a!(), y!(), vector::Shift::Left)),
            Op::Vushr => vector!(vector::shift(ty, a!(), y!(), vector::Shift::Unsigned)),
            Op::Vsshr => vector!(vector::shift(ty, a!(), y!(), vector::Shift::Signed)),
            Op::UaddSat => vector!(unsigned!(ty, a!(), b!(), |p, q| p.saturating_add(q))),
            Op::SaddSat => vector!(signed!(ty, a!(), b!(), |p, q| p.saturating_add(q))),
            Op::UsubSat => vector!(unsigned!(ty, a!(), b!(), |p, q| p.saturating_sub(q))),
            Op::SsubSat => vector!(signed!(ty, a!(), b!(), |p, q| p.saturating_sub(q))),
            Op::Umin => vector!(unsigned!(ty, a!(), b!(), |p, q| p.min(q))),
            Op::Umax => vector!(unsigned!(ty, a!(), b!(), |p, q| p.max(q))),
            Op::Smin => vector!(signed!(ty, a!(), b!(), |p, q| p.min(q))),
            Op::Smax => vector!(signed!(ty, a!(), b!(), |p, q| p.max(q))),
            Op::AvgRound => vector!(unsigned!(ty, a!(), b!(), |p, q| (p | q) - ((p ^ q) >> 1))),
            Op::Snarrow if ty == Type::I8x16 => vector!(narrow::<i16, i8>(a!(), b!(), |p| p.clamp(-0x80, 0x7f) as i8)),
            Op::Snarrow => vector!(narrow::<i32, i16>(a!(), b!(), |p| p.clamp(-0x8000, 0x7fff) as i16)),
            Op::Unarrow if ty == Type::I8x16 => vector!(narrow::<i16, u8>(a!(), b!(), |p| p.clamp(0, 0xff) as u8)),
            Op::Unarrow => vector!(narrow::<i32, u16>(a!(), b!(), |p| p.clamp(0, 0xffff) as u16)),
            Op::Maddwd => vector!(vector::maddwd(a!(), b!())),
            Op::Muludq => vector!(zip::<u64>(a!(), b!(), |p, q| u64::from(p as u32) * u64::from(q as u32))),
            Op::Sad => vector!(vector::sad(a!(), b!())),

            Op::Load if ty.is_vector() => vector!(hosted!(host.load128(code.addr(slots, inst)))),
            Op::Load => word!(hosted!(host.load(code.addr(slots, inst), ty.bytes()))),
            Op::Store if ty.is_vector() => {
                hosted!(host.store128(code.addr(slots, inst), slots[code.slot(inst, 3)]));
            }
            Op::Store => hosted!(host.store(code.addr(slots, inst), ty.bytes(), slots[code.slot(inst, 3)][0])),
            Op::Rmw => {
                let (addr, v) = (code.addr(slots, inst), slots[code.slot(inst, 3)][0]);
                word!(hosted!(host.rmw(inst.rmw_op(), ty, addr, v)));
            }
            Op::Cas => {
                let addr = x!().wrapping_add(inst.args[2] as i32 as u64);
                vector!(hosted!(host.cas(ty, addr, b!(), slots[code.slot(inst, 3)])));
            }
            Op::Fence => host.fence(),
            Op::Uncarried => word!(0),
            Op::Call => {
                let args = std::array::from_fn(|n| Value(inst.args[n]).expand().map(|_| slots[code.slot(inst, n)]));
                let helper = Helper::from_code(aux);
                if helper.effect() == HelperEffect::Mxcsr {
                    let before = cpu.mxcsr;
                    cpu.mxcsr &= !FLAGS;
                    let result = call(cpu, host, helper, args);
                    let raised = cpu.mxcsr & FLAGS;
                    cpu.mxcsr = before;
                    raising!(fp, {
                        fp.raised = raised;
                        vector!(result);
                    });
                } else {
                    vector!(call(cpu, host, helper, args));
                }
            }
            Op::FaultIf => {
                if x!() != 0 {
                    return Err((at, Stop::Fault(FaultKind::from_code(aux))));
                }
            }
        }
    }
    Ok(())
}

/// Sets MXCSR's flags as the instruction leaves them whose operation at `at` raised an unmasked exception. One instruction
/// may be several operations, and a processor looks at all lanes before it computes: an unmasked exception that it finds
/// there keeps those of the results from being raised (SDM vol. 1 11.5.2).
#[cold]
fn trap(code: &Code<'_>, slots: &mut [V128], cpu: &mut CpuState, mut floats: Floats, at: usize) {
    let end = code.insts[at..].iter().position(|inst| inst.op == Op::Insn).map_or(code.insts.len(), |n| at + n);
    // The rest of the instruction, on a state that nobody sees.
    let mut shadow = Box::new(CpuState::new());
    shadow.mxcsr = floats.mxcsr & !FLAGS;
    let mut from = at;
    while from < end {
        // Re-runs the operation that trapped, too: its result is needed further on. What stops is left out.
        let rest = Code { pool: code.pool, start: code.start, insts: &code.insts[..end] };
        match run_from(&rest, &mut slots[..end], &mut shadow, &mut super::NoHost, from, true) {
            Ok(()) => break,
            Err((stopped, _)) => from = stopped + 1,
        }
    }
    floats.raised |= shadow.mxcsr & FLAGS;
    let before = floats.raised & BEFORE;
    let raised = if before & !(cpu.mxcsr >> 7) != 0 { before } else { floats.raised };
    cpu.mxcsr = floats.mxcsr | raised;
}

#[inline(always)]
fn single(word: u64) -> f32 {
    f32::from_bits(word as u32)
}

#[inline(always)]
fn double(word: u64) -> f64 {
    f64::from_bits(word)
}

#[inline(always)]
fn words(a: V128, b: V128, f: impl Fn(u64, u64) -> u64) -> V128 {
    [f(a[0], b[0]), f(a[1], b[1])]
}

fn divide(op: Op, ty: Type, high: u64, low: u64, divisor: u64) -> Option<u64> {
    let (quotient, remainder) = match op {
        Op::Udiv | Op::Urem => int::udivrem(ty, high, low, divisor)?,
        _ => int::sdivrem(ty, high, low, divisor)?,
    };
    Some(if matches!(op, Op::Udiv | Op::Sdiv) { quotient } else { remainder })
}

fn read_rest(cpu: &CpuState, index: u16) -> u64 {
    let reg = Reg::from_index(index as usize).expect("register number");
    match reg.kind() {
        RegKind::Flag(n) => u64::from(cpu.flags[n]),
        _ if reg == Reg::FLAGS_REST => u64::from(cpu.flags_rest),
        _ if reg == Reg::FS_BASE => cpu.fs_base,
        _ if reg == Reg::GS_BASE => cpu.gs_base,
        _ if reg == Reg::FLAGS_KIND => u64::from(cpu.deferred.kind),
        _ if reg == Reg::FLAGS_A => cpu.deferred.a,
        _ if reg == Reg::FLAGS_B => cpu.deferred.b,
        _ if reg == Reg::X87_CODE => cpu.x87.code,
        _ if reg == Reg::X87_DATA => cpu.x87.data,
        _ => u64::from(cpu.mxcsr),
    }
}

fn write_rest(cpu: &mut CpuState, index: u16, v: u64) {
    let reg = Reg::from_index(index as usize).expect("register number");
    match reg.kind() {
        RegKind::Flag(n) => cpu.flags[n] = v as u8,
        _ if reg == Reg::FLAGS_REST => cpu.flags_rest = v as u32,
        _ if reg == Reg::FS_BASE => cpu.fs_base = v,
        _ if reg == Reg::GS_BASE => cpu.gs_base = v,
        _ if reg == Reg::FLAGS_KIND => cpu.deferred.kind = v as u32,
        _ if reg == Reg::FLAGS_A => cpu.deferred.a = v,
        _ if reg == Reg::FLAGS_B => cpu.deferred.b = v,
        _ if reg == Reg::X87_CODE => cpu.x87.code = v,
        _ if reg == Reg::X87_DATA => cpu.x87.data = v,
        _ => cpu.mxcsr = v as u32,
    }
}

/// Calls a helper under the ABI of `helper.rs`.
fn call<H: Host>(cpu: &mut CpuState, host: &mut H, helper: Helper, args: [Option<V128>; 3]) -> V128 {
    let mut words = [0; 3];
    for (i, (arg, ty)) in args.into_iter().zip(helper.args()).enumerate() {
        let v = arg.expect("argument of a helper");
        if ty.is_vector() {
            cpu.scratch[i] = v;
        } else {
            words[i] = v[0];
        }
    }
    let [a, b, c] = words;
    let result = match helper.body() {
        Some(body) => body(cpu, a, b, c),
        None => {
            debug_assert_eq!(helper.effect(), HelperEffect::Host);
            host.helper(cpu, helper, a, b, c)
        }
    };
    if helper.ret().is_vector() { cpu.scratch[0] } else { [result & int::mask(helper.ret()), 0] }
}
