//! Floating point with x86's rules for NaN, minimum and conversions.
//!
//! - **Rounding** follows MXCSR because FPCR holds the guest's mode while generated code runs (`abi::enter`).
//! - **NaN results** (SDM vol. 1 table 4-7) differ from the host's in choice of operand and in the sign of the default: a result that is NaN
//!   takes a path behind the block. They do not where the host has FEAT_AFP.
//! - **MINSS, MAXSS** are a comparison and a selection.
//! - **Out of range** conversions give the integer indefinite: the host saturates, and what is not below the limit is replaced.
//! - A scalar in a vector register may have anything above it; instructions that make scalars clear what is above, except with FEAT_AFP,
//!   where they keep it: so ADDSD is one instruction there, in place.

use super::encode::{self as e, Cond, Fp, Size, V, Vec3};
use super::exit::ColdPath;
use super::plan;
use super::regs::{Loc, WHOLE};
use super::{EmitError, Emitter, Reach, size_of};
use calque_ir::{FloatCc, Inst, Op, Type, Value};

/// Operations of this file whose type is not a float's.
pub(super) fn is_float(op: Op) -> bool {
    use Op::{FcvtLowToSint, FcvtLowToSintTrunc, FcvtToSint, FcvtToSintTrunc};
    matches!(op, FcvtToSint | FcvtToSintTrunc | FcvtLowToSint | FcvtLowToSintTrunc)
}

/// Scalar and vector form of an operation.
fn forms(op: Op) -> Option<(Fp, Vec3)> {
    Some(match op {
        Op::Fadd => (e::FADD, e::VFADD),
        Op::Fsub => (e::FSUB, e::VFSUB),
        Op::Fmul => (e::FMUL, e::VFMUL),
        Op::Fdiv => (e::FDIV, e::VFDIV),
        Op::Sqrt => (e::FSQRT, e::VFSQRT),
        Op::Ceil => (e::FRINTP, e::VFRINTP),
        Op::Floor => (e::FRINTM, e::VFRINTM),
        Op::Trunc => (e::FRINTZ, e::VFRINTZ),
        Op::Nearest => (e::FRINTN, e::VFRINTN),
        _ => return None,
    })
}

/// A vector whose lowest lane is replaced.
struct Replaced {
    /// Where it is.
    from: V,
    /// Whether it is there as a value that nobody wants any longer.
    dies: bool,
    /// As [`super::regs::Val::zx`].
    zx: u8,
}

/// Whether lanes, or the scalar, are `f64`.
fn is_double(ty: Type) -> bool {
    ty.lane() == Type::F64
}

impl Emitter {
    /// Operations on floats, scalar or in lanes.
    #[inline(never)]
    pub(super) fn float(&mut self, inst: &Inst) -> Result<(), EmitError> {
        let [a, b, c] = [inst.args[0], inst.args[1], inst.args[2]].map(Value);
        match inst.op {
            Op::Fadd | Op::Fsub | Op::Fmul | Op::Fdiv => self.arithmetic(inst, &[a, b]),
            Op::Sqrt => self.arithmetic(inst, &[a]),
            Op::Ceil | Op::Floor | Op::Trunc | Op::Nearest => self.integral(inst, a),
            Op::Fmadd | Op::Fmsub | Op::Fnmadd | Op::Fnmsub => self.fused(inst, [a, b, c]),
            Op::Fmin | Op::Fmax => self.minimum(inst, a, b),
            Op::Fcmp | Op::FcmpSignaling if inst.ty.is_vector() => self.compare_float_lanes(inst, a, b),
            Op::Fcmp | Op::FcmpSignaling => {
                let cond = self.flags(Value(self.at as u32))?;
                // COMISS compares for the sake of its exceptions before anybody asks for a condition.
                if self.regs.is_unused() {
                    return Ok(());
                }
                let d = self.dest()?;
                self.cset(d, cond);
                self.known_zero(1);
                Ok(())
            }
            Op::Select if !inst.ty.is_vector() => {
                let (x, y) = (self.v(b)?, self.v(c)?);
                let cond = self.flags(a)?;
                let d = self.v_dest()?;
                self.word(e::fcsel(inst.ty == Type::F64, d, x, y, cond));
                self.known_zero(inst.ty.bits());
                Ok(())
            }
            Op::Bitcast => {
                let x = self.xz(a)?;
                let d = self.v_dest()?;
                let size = if inst.ty == Type::F64 { Size::X } else { Size::W };
                self.word(e::fmov_from_x(size, d, x));
                self.known_zero(inst.ty.bits());
                Ok(())
            }
            Op::FcvtToSint | Op::FcvtToSintTrunc if inst.ty.is_vector() => self.lanes_to_int(inst, a),
            Op::FcvtToSint | Op::FcvtToSintTrunc => self.scalar_to_int(inst, a),
            Op::FcvtLowToSint | Op::FcvtLowToSintTrunc => self.low_to_int(inst, a),
            Op::Fpromote | Op::Fdemote | Op::FvpromoteLow | Op::Fvdemote | Op::FcvtFromSint | Op::FcvtLowFromSint => {
                self.convert(inst, a)
            }
            _ => self.vector(inst),
        }
    }

    /// One instruction, and a look at its result.
    fn arithmetic(&mut self, inst: &Inst, args: &[Value]) -> Result<(), EmitError> {
        let (scalar, lanes) = forms(inst.op).ok_or(EmitError::NoCode(inst.op))?;
        let double = is_double(inst.ty);
        let x = self.v(args[0])?;
        let y = if args.len() > 1 { self.v(args[1])? } else { V(0) };
        let d = if inst.ty.is_vector() {
            self.float_dest(&[x, y][..args.len()])?
        } else {
            self.scalar_dest(inst.ty, &[x, y][..args.len()], (args.len() > 1).then_some(args[0]))?
        };
        if inst.ty.is_vector() {
            self.word(e::vec3(lanes, u32::from(double), d, x, y));
        } else {
            let above = if args.len() > 1 { self.val(args[0]).zx } else { WHOLE };
            self.word(e::fp(scalar, double, d, x, y));
            self.scalar_made(inst.ty, above);
        }
        self.look_for_nan(inst.ty, d, &[x, y][..args.len()]);
        Ok(())
    }

    /// A register for a result; the operands survive until it has been looked at, if it is.
    fn float_dest(&mut self, operands: &[V]) -> Result<V, EmitError> {
        if self.host.afp { self.v_dest() } else { self.v_dest_apart(operands) }
    }

    /// The same for a scalar that replaces a vector's lowest lane: if the host's scalar operations keep the other lanes, of the operand `kept`
    /// or of their destination (`None`), and those are the vector's, or zero as those are, the vector is made here, too.
    fn scalar_dest(&mut self, ty: Type, operands: &[V], kept: Option<Value>) -> Result<V, EmitError> {
        let is_alone = |zx: u8| u32::from(zx) <= ty.bits();
        let keeps = |replaced: &Replaced| match kept.map(|v| self.val(v)) {
            Some(kept) => kept.loc == Loc::V(replaced.from) || is_alone(kept.zx) && is_alone(replaced.zx),
            None => true,
        };
        let replaced = self.replaced_vector().filter(keeps);
        let home = self.regs.vector_home();
        if self.plan.merges {
            self.regs.no_home();
        }
        let Some(Replaced { from, dies, .. }) = replaced else { return self.float_dest(operands) };
        self.release_operands();
        let home = home.filter(|&home| {
            let itself = home == from && dies;
            (kept.is_some() || home == from) && self.regs.v_refs(home) == u16::from(itself)
        });
        if home.is_some() || kept.is_some() {
            self.merged = Some(self.plan.fates[self.at].user as usize);
        }
        match home {
            Some(home) => Ok(self.v_define(home)),
            None => self.float_dest(operands),
        }
    }

    /// The vector whose lowest lane the result replaces next, on hosts that can merge the two.
    fn replaced_vector(&self) -> Option<Replaced> {
        let next = self.plan.fates[self.at].user;
        let user = self.insts.get(next as usize).filter(|_| self.plan.merges)?;
        if !plan::replaces_lowest(user) || user.args[1] as usize != self.at {
            return None;
        }
        let vector = Value(user.args[0]);
        if vector.0 as usize > self.at {
            // It will be read from its register, for this purpose only.
            let inst = self.insts[vector.0 as usize];
            let only = inst.op == Op::Get && self.plan.fates[vector.0 as usize].uses == 1;
            let home = plan::vector_home_of(inst.aux).filter(|_| only)?;
            return Some(Replaced { from: home, dies: false, zx: self.regs.v_known(home) });
        }
        let val = self.val(vector);
        match val.loc {
            Loc::V(from) => Some(Replaced { from, dies: self.plan.fates[vector.0 as usize].last == next, zx: val.zx }),
            _ => None,
        }
    }

    /// What is known of a scalar that has just been made: where scalar operations keep lanes, what is above it comes from a register of which
    /// bits from `above` up are zero.
    fn scalar_made(&mut self, ty: Type, above: u8) {
        self.known_zero(if self.plan.merges && u32::from(above) > ty.bits() { 128 } else { ty.bits() });
    }

    /// Takes the cold path if `r` holds a NaN that may not be x86's.
    fn look_for_nan(&mut self, ty: Type, r: V, operands: &[V]) {
        if self.host.afp {
            return;
        }
        let double = is_double(ty);
        let count = operands.len() as u8;
        let operands = [0, 1, 2].map(|i| operands.get(i).copied().unwrap_or(V(0)));
        if ty.is_vector() {
            let s = self.v_scratch();
            self.word(e::vec2(if double { e::FMAXP_PAIR } else { e::FMAXV }, 0, s, r));
            self.word(e::fcmp(double, s, s));
            self.cold_and_back(ColdPath::LaneNans { double, r, operands, count }, Cond::Vs);
        } else {
            self.word(e::fcmp(double, r, r));
            self.cold_and_back(ColdPath::Nan { double, r, operands, count }, Cond::Vs);
        }
    }

    /// The first operand that is a NaN, quieted, else the default: negative, quiet, no payload.
    pub(super) fn nan(&mut self, double: bool, r: V, operands: &[V]) {
        let done = self.label();
        for &operand in operands {
            let next = self.label();
            self.word(e::fcmp(double, operand, operand));
            self.branch(e::b_cond(Cond::Vc, 0), Reach::Bits19, next);
            // The sum of a NaN with itself is that NaN, quiet.
            self.word(e::fp(e::FADD, double, r, operand, operand));
            self.branch(e::b(0), Reach::Bits26, done);
            self.place(next);
        }
        self.fp_constant_into(r, double, default_nan(double));
        self.place(done);
    }

    /// The same in each lane of `r` that is a NaN.
    pub(super) fn lane_nans(&mut self, double: bool, r: V, operands: &[V]) {
        let sz = u32::from(double);
        let (result, numbers, quiet) = (V(1), V(2), V(3));
        let every = |bits: u64| if double { [bits; 2] } else { [bits | bits << 32; 2] };
        self.v_constant(result, every(default_nan(double)));
        for &operand in operands.iter().rev() {
            self.v_constant(quiet, every(if double { 1 << 51 } else { 1 << 22 }));
            self.word(e::vec3(e::VORR, 0, quiet, quiet, operand));
            self.word(e::vec3(e::FCMEQ, sz, numbers, operand, operand));
            // Where it is no number, the quieted operand.
            self.word(e::vec3(e::BIF, 0, result, quiet, numbers));
        }
        self.word(e::vec3(e::FCMEQ, sz, numbers, r, r));
        self.word(e::vec3(e::BIF, 0, r, result, numbers));
    }

    /// NaNs become quiet on both kinds of processor.
    fn integral(&mut self, inst: &Inst, a: Value) -> Result<(), EmitError> {
        let (scalar, lanes) = forms(inst.op).ok_or(EmitError::NoCode(inst.op))?;
        let (double, x) = (is_double(inst.ty), self.v(a)?);
        if inst.ty.is_vector() {
            let d = self.v_dest()?;
            self.word(e::vec2(lanes, u32::from(double), d, x));
        } else {
            let d = self.scalar_dest(inst.ty, &[], None)?;
            self.word(e::fp1(scalar, double, d, x));
            self.scalar_made(inst.ty, WHOLE);
        }
        Ok(())
    }

    fn fused(&mut self, inst: &Inst, args: [Value; 3]) -> Result<(), EmitError> {
        let double = is_double(inst.ty);
        let [x, y, z] = [self.v(args[0])?, self.v(args[1])?, self.v(args[2])?];
        let scalar = !inst.ty.is_vector();
        let above = self.val(args[2]).zx;
        let d =
            if scalar { self.scalar_dest(inst.ty, &[x, y, z], Some(args[2]))? } else { self.v_dest_apart(&[x, y, z])? };
        if scalar {
            // FMADD, FNMSUB, FMSUB, FNMADD (Arm ARM: what is negated differs from x86's names).
            let which = match inst.op {
                Op::Fmadd => 0,
                Op::Fmsub => 0x20_8000,
                Op::Fnmadd => 0x8000,
                _ => 0x20_0000,
            };
            self.word(e::fp4(which, double, d, x, y, z));
            self.scalar_made(inst.ty, above);
        } else {
            let sz = u32::from(double);
            if matches!(inst.op, Op::Fmsub | Op::Fnmsub) {
                self.negate_lanes(double, d, z);
            } else {
                self.v_mov(d, z);
            }
            let mut p = x;
            if matches!(inst.op, Op::Fnmadd | Op::Fnmsub) {
                p = self.v_scratch();
                self.negate_lanes(double, p, x);
            }
            self.word(e::vec3(e::VFMLA, sz, d, p, y));
        }
        self.look_for_nan(inst.ty, d, &[x, y, z]);
        Ok(())
    }

    /// `d` = -`v` in each lane; `d` is another register. Where NaNs are not looked for, they are left alone: FNEG of vectors may change their
    /// sign also under FPCR.AH (it does in qemu 11), and a comparison of floats would raise flags.
    fn negate_lanes(&mut self, double: bool, d: V, v: V) {
        let sz = u32::from(double);
        if !self.host.afp {
            return self.word(e::vec2(e::VFNEG, sz, d, v));
        }
        let log2 = 2 + sz;
        let every = |high: u32| {
            let high = u64::from(high) << 32;
            if double { [high; 2] } else { [high | high >> 32; 2] }
        };
        let numbers = self.v_scratch();
        self.word(e::vec3(e::VADD, log2, d, v, v));
        self.v_constant(numbers, every(if double { 0xffe0_0000 } else { 0xff00_0000 }));
        self.word(e::vec3(e::CMHS, log2, numbers, numbers, d));
        self.v_constant(d, every(0x8000_0000));
        self.word(e::vec3(e::VAND, 0, numbers, numbers, d));
        self.word(e::vec3(e::VEOR, 0, d, v, numbers));
    }

    /// MINSS is `x < y ? x : y`, MAXSS `x > y ? x : y`.
    fn minimum(&mut self, inst: &Inst, a: Value, b: Value) -> Result<(), EmitError> {
        let (x, y) = (self.v(a)?, self.v(b)?);
        let double = is_double(inst.ty);
        if !inst.ty.is_vector() {
            // Any NaN is an invalid operation here.
            self.word(e::fcmpe(double, x, y));
            let d = self.v_dest()?;
            let cond = if inst.op == Op::Fmin { Cond::Mi } else { Cond::Gt };
            self.word(e::fcsel(double, d, x, y, cond));
            self.known_zero(inst.ty.bits());
            return Ok(());
        }
        let mask = self.v_scratch();
        let (p, q) = if inst.op == Op::Fmin { (y, x) } else { (x, y) };
        self.word(e::vec3(e::FCMGT, u32::from(double), mask, p, q));
        self.word(e::vec3(e::BSL, 0, mask, x, y));
        let d = self.v_dest()?;
        self.v_mov(d, mask);
        Ok(())
    }

    fn compare_float_lanes(&mut self, inst: &Inst, a: Value, b: Value) -> Result<(), EmitError> {
        use FloatCc::*;
        let (x, y) = (self.v(a)?, self.v(b)?);
        let sz = u32::from(is_double(inst.ty));
        let (s, t) = (self.v_scratch(), self.v_scratch());
        let cc = FloatCc::from_code(inst.aux);
        // Each is one of these six, or the opposite of one.
        let (base, negated) = match cc {
            NotEqual => (Equal, true),
            Unordered => (Ordered, true),
            UnorderedOrEqual => (OrderedNotEqual, true),
            UnorderedOrLessThan => (GreaterThanOrEqual, true),
            UnorderedOrLessThanOrEqual => (GreaterThan, true),
            UnorderedOrGreaterThan => (LessThanOrEqual, true),
            UnorderedOrGreaterThanOrEqual => (LessThan, true),
            cc => (cc, false),
        };
        let signaling = inst.op == Op::FcmpSignaling;
        match base {
            Equal => self.word(e::vec3(e::FCMEQ, sz, s, x, y)),
            Ordered => self.ordered(sz, s, [x, y], t),
            OrderedNotEqual => {
                self.ordered(sz, s, [x, y], t);
                self.word(e::vec3(e::FCMEQ, sz, t, x, y));
                self.word(e::vec3(e::VBIC, 0, s, s, t));
            }
            _ if signaling => self.greater(sz, s, [x, y], base),
            // Those would take a quiet NaN for an invalid operation, so they see zeros in its place.
            _ => {
                let numbers = self.v_scratch();
                self.ordered(sz, numbers, [x, y], t);
                self.word(e::vec3(e::VAND, 0, s, x, numbers));
                self.word(e::vec3(e::VAND, 0, t, y, numbers));
                self.greater(sz, s, [s, t], base);
                self.word(e::vec3(e::VAND, 0, s, s, numbers));
            }
        }
        if signaling && matches!(base, Equal | Ordered | OrderedNotEqual) {
            self.word(e::vec3(e::FCMGT, sz, t, x, y)); // for the exception's sake
        }
        let d = self.v_dest()?;
        if negated {
            self.word(e::vec2(e::VNOT, 0, d, s));
        } else {
            self.v_mov(d, s);
        }
        Ok(())
    }

    /// The lanes in which neither is a NaN; `t` is lost.
    fn ordered(&mut self, sz: u32, d: V, [x, y]: [V; 2], t: V) {
        self.word(e::vec3(e::FCMEQ, sz, d, x, x));
        self.word(e::vec3(e::FCMEQ, sz, t, y, y));
        self.word(e::vec3(e::VAND, 0, d, d, t));
    }

    /// A comparison by order, to which any NaN is an invalid operation.
    fn greater(&mut self, sz: u32, d: V, [x, y]: [V; 2], cc: FloatCc) {
        let (op, x, y) = match cc {
            FloatCc::GreaterThan => (e::FCMGT, x, y),
            FloatCc::GreaterThanOrEqual => (e::FCMGE, x, y),
            FloatCc::LessThan => (e::FCMGT, y, x),
            _ => (e::FCMGE, y, x),
        };
        self.word(e::vec3(op, sz, d, x, y));
    }

    fn convert(&mut self, inst: &Inst, a: Value) -> Result<(), EmitError> {
        if inst.op == Op::FcvtFromSint && !inst.ty.is_vector() {
            let size = size_of(self.ty(a));
            let x = self.xz(a)?;
            let d = self.scalar_dest(inst.ty, &[], None)?;
            self.word(e::scvtf(size, inst.ty == Type::F64, d, x));
            self.scalar_made(inst.ty, WHOLE);
            return Ok(());
        }
        let x = self.v(a)?;
        match inst.op {
            Op::Fpromote => {
                let d = self.scalar_dest(inst.ty, &[], None)?;
                self.word(e::fp1(e::FCVT_TO_F64, false, d, x));
                self.scalar_made(inst.ty, WHOLE);
            }
            Op::Fdemote => {
                let d = self.scalar_dest(inst.ty, &[], None)?;
                self.word(e::fcvt_to_f32(d, x));
                self.scalar_made(inst.ty, WHOLE);
            }
            Op::FvpromoteLow => {
                let d = self.v_dest()?;
                self.word(e::vec2(e::FCVTL, 0, d, x));
            }
            Op::Fvdemote => {
                let d = self.v_dest()?;
                self.word(e::vec2(e::FCVTN, 0, d, x));
            }
            Op::FcvtLowFromSint => {
                let s = self.v_scratch();
                self.word(e::widen_low(true, 32, s, x));
                let d = self.v_dest()?;
                self.word(e::vec2(e::VSCVTF, 1, d, s));
            }
            _ => {
                let d = self.v_dest()?;
                self.word(e::vec2(e::VSCVTF, 0, d, x));
            }
        }
        Ok(())
    }

    /// A scalar, rounded as FPCR says if that is asked for.
    fn scalar_to_int(&mut self, inst: &Inst, a: Value) -> Result<(), EmitError> {
        let mut x = self.v(a)?;
        let double = self.ty(a) == Type::F64;
        let (rounded, c) = (self.v_scratch(), self.v_scratch());
        let compared = if inst.op == Op::FcvtToSint {
            self.round(inst.ty, double, rounded, x, c);
            x = rounded;
            x
        } else {
            self.comparable(double, rounded, x)
        };
        let r = self.truncate(inst.ty, double, x, compared, c);
        let d = self.dest()?;
        self.mov(size_of(inst.ty), d, r);
        self.known_zero(inst.ty.bits());
        Ok(())
    }

    /// `d` becomes `x` as FPCR rounds it to an integral value, which is inexact only in the integer's range; `c` is lost.
    fn round(&mut self, to: Type, double: bool, d: V, x: V, c: V) {
        if !double || to != Type::I32 {
            // What is out of range has no fraction.
            self.word(e::fp1(e::FRINTX, double, d, x));
            return;
        }
        const LESS: u8 = 8;
        self.word(e::fp1(e::FRINTI, double, d, x));
        self.fp_constant_into(c, double, 2f64.powi(31).to_bits());
        self.word(e::fcmp(double, d, c));
        self.fp_constant_into(c, double, (-2f64.powi(31)).to_bits());
        self.word(e::fccmp(double, d, c, LESS, Cond::Mi));
        // Out of range: what is integral already.
        self.word(e::fcsel(double, c, x, d, Cond::Ge));
        self.word(e::fp1(e::FRINTX, double, c, c));
    }

    /// What a comparison may look at in place of `x`, whose fraction does not count: with FEAT_AFP, it tells of denormals, which conversions do
    /// not. Perhaps in `d`.
    fn comparable(&mut self, double: bool, d: V, x: V) -> V {
        if !self.host.afp {
            return x;
        }
        self.word(e::fp1(e::FRINTZ, double, d, x));
        d
    }

    /// `x` in range, in which `compared` is as well, to the integer, everything else to the integer indefinite; in a scratch register. `c` is lost.
    fn truncate(&mut self, to: Type, double: bool, x: V, compared: V, c: V) -> e::X {
        let size = size_of(to);
        let limit = (1u64 << (size.bits() - 1)) as f64;
        let bits = if double { limit.to_bits() } else { u64::from((limit as f32).to_bits()) };
        self.fp_constant_into(c, double, bits);
        let (r, indefinite) = (self.scratch(), self.scratch());
        self.word(e::fcvtzs(size, double, r, x));
        self.mov_imm(indefinite, 1 << (size.bits() - 1));
        self.word(e::fcmp(double, compared, c));
        self.word(e::op_cond(e::CSEL, size, r, r, indefinite, Cond::Mi));
        r
    }

    /// `f32x4` to `i32x4`.
    fn lanes_to_int(&mut self, inst: &Inst, a: Value) -> Result<(), EmitError> {
        let mut x = self.v(a)?;
        let (rounded, r, mask, indefinite) = (V(0), V(1), V(2), V(3));
        self.holds_zero = false;
        if inst.op == Op::FcvtToSint {
            self.word(e::vec2(e::VFRINTX, 0, rounded, x));
            x = rounded;
        }
        self.word(e::vec2(e::VFCVTZS, 0, r, x));
        // As in `comparable`.
        if self.host.afp && inst.op == Op::FcvtToSintTrunc {
            self.word(e::vec2(e::VFRINTZ, 0, rounded, x));
            x = rounded;
        }
        self.v_constant(mask, [0x4f00_0000_4f00_0000; 2]);
        self.word(e::vec3(e::FCMGT, 0, mask, mask, x));
        self.v_constant(indefinite, [0x8000_0000_8000_0000; 2]);
        self.word(e::vec3(e::BSL, 0, mask, r, indefinite));
        let d = self.v_dest()?;
        self.v_mov(d, mask);
        Ok(())
    }

    /// `f64x2` to two `i32` lanes, zero above.
    fn low_to_int(&mut self, inst: &Inst, a: Value) -> Result<(), EmitError> {
        let x = self.v(a)?;
        let (lane, rounded, c) = (self.v_scratch(), self.v_scratch(), self.v_scratch());
        let [low, high] = [0, 1].map(|n| {
            self.word(e::scalar_lane(3, lane, x, n));
            if inst.op == Op::FcvtLowToSintTrunc {
                let compared = self.comparable(true, rounded, lane);
                return self.truncate(Type::I32, true, lane, compared, c);
            }
            self.round(Type::I32, true, rounded, lane, c);
            self.truncate(Type::I32, true, rounded, rounded, c)
        });
        let d = self.v_dest()?;
        self.word(e::fmov_from_x(Size::W, d, low));
        self.word(e::ins_x(2, d, 1, high));
        Ok(())
    }
}

fn default_nan(double: bool) -> u64 {
    if double { 0xfff8_0000_0000_0000 } else { 0xffc0_0000 }
}
