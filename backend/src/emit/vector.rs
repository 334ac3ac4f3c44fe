//! Operations on 128-bit vectors: integer lanes, and moving lanes of any kind.

use super::encode::{self as e, Size, V, Vec3, VecShift};
use super::facts;
use super::regs::{Imm, Loc, WHOLE};
use super::{EmitError, Emitter, Reach, log2_of};
use calque_ir::{Cc, Inst, Op, Type, Value};

/// Vector operations whose type or operands do not say so.
pub(super) fn is_vector(op: Op) -> bool {
    matches!(op, Op::HighBits | Op::ExtractLane | Op::Vconst)
}

impl Emitter {
    /// Operations on vectors.
    #[inline(never)]
    pub(super) fn vector(&mut self, inst: &Inst) -> Result<(), EmitError> {
        let [a, b, c] = [inst.args[0], inst.args[1], inst.args[2]].map(Value);
        match inst.op {
            Op::Vconst => {
                if facts::is_zero_vector(&self.insts, &self.pool, self.at as u32) && self.regs.vector_home().is_none() {
                    self.define(Loc::Imm(Imm::new(0)), 0);
                    return Ok(());
                }
                let d = self.v_dest()?;
                let bits = self.pool[inst.args[0] as usize];
                self.v_constant(d, bits);
                Ok(())
            }
            Op::Select => self.select_vector(a, b, c),
            Op::Splat => self.splat(inst, a),
            Op::ExtractLane => self.extract_lane(inst, a),
            Op::InsertLane => self.insert_lane(inst, a, b),
            Op::ScalarToVector => self.scalar_to_vector(inst, a),
            Op::Concat => self.concat(a, b),
            Op::HighBits => self.high_bits(inst, a),
            Op::Vshl | Op::Vushr | Op::Vsshr => self.vector_shift(inst, a, b),
            Op::Shuffle => self.shuffle(inst, a, b),
            Op::Swizzle => self.swizzle(a, b),
            Op::Bnot | Op::Ineg => {
                let x = self.v(a)?;
                let d = self.v_dest()?;
                self.word(if inst.op == Op::Bnot {
                    e::vec2(e::VNOT, 0, d, x)
                } else {
                    e::vec2(e::VNEG, log2_of(inst.ty), d, x)
                });
                Ok(())
            }
            Op::Icmp => self.compare_lanes(inst, a, b),
            Op::Snarrow | Op::Unarrow | Op::Maddwd | Op::Muludq | Op::Sad | Op::Umulhi | Op::Smulhi => {
                self.several(inst, a, b)
            }
            _ => self.lane_by_lane(inst, a, b),
        }
    }

    /// One instruction for the whole shape.
    fn lane_by_lane(&mut self, inst: &Inst, a: Value, b: Value) -> Result<(), EmitError> {
        let lanes = log2_of(inst.ty);
        let (op, log2) = match inst.op {
            Op::Band => (e::VAND, 0),
            Op::Bor => (e::VORR, 0),
            Op::Bxor => (e::VEOR, 0),
            Op::BandNot => (e::VBIC, 0),
            Op::Iadd => (e::VADD, lanes),
            Op::Isub => (e::VSUB, lanes),
            Op::Imul if lanes < 3 => (e::VMUL, lanes),
            Op::UaddSat => (e::UQADD, lanes),
            Op::SaddSat => (e::SQADD, lanes),
            Op::UsubSat => (e::UQSUB, lanes),
            Op::SsubSat => (e::SQSUB, lanes),
            Op::Umin if lanes < 3 => (e::UMIN, lanes),
            Op::Umax if lanes < 3 => (e::UMAX, lanes),
            Op::Smin if lanes < 3 => (e::SMIN, lanes),
            Op::Smax if lanes < 3 => (e::SMAX, lanes),
            Op::AvgRound => (e::URHADD, lanes),
            op => return Err(EmitError::NoCode(op)),
        };
        let (x, y) = (self.v(a)?, self.v(b)?);
        let d = self.v_dest()?;
        self.word(e::vec3(op, log2, d, x, y));
        Ok(())
    }

    /// A 128-bit constant.
    pub(super) fn v_constant(&mut self, d: V, bits: [u64; 2]) {
        let byte = bits[0] as u8;
        if bits == [u64::from_le_bytes([byte; 8]); 2] {
            return self.word(e::movi_bytes(d, byte));
        }
        let label = self.literal(bits, 16);
        self.branch(e::ldr_literal_q(d, 0), Reach::Bits19, label);
    }

    fn select_vector(&mut self, c: Value, a: Value, b: Value) -> Result<(), EmitError> {
        let (x, y) = (self.v(a)?, self.v(b)?);
        let cond = self.flags(c)?;
        let (s, mask) = (self.scratch(), self.v_scratch());
        self.cset(s, cond);
        self.word(e::op3(e::SUB, Size::X, s, e::ZR, s));
        self.word(e::dup_x(3, mask, s));
        self.word(e::vec3(e::BSL, 0, mask, x, y));
        let d = self.v_dest()?;
        self.v_mov(d, mask);
        Ok(())
    }

    fn splat(&mut self, inst: &Inst, a: Value) -> Result<(), EmitError> {
        let log2 = log2_of(inst.ty);
        if inst.ty.is_float() {
            let x = self.v(a)?;
            let d = self.v_dest()?;
            self.word(e::dup_lane(log2, d, x, 0));
        } else {
            let x = self.xz(a)?;
            let d = self.v_dest()?;
            self.word(e::dup_x(log2, d, x));
        }
        Ok(())
    }

    fn extract_lane(&mut self, inst: &Inst, a: Value) -> Result<(), EmitError> {
        let (log2, lane) = (log2_of(inst.ty), u32::from(inst.aux));
        let x = self.v(a)?;
        if inst.ty.is_float() {
            if lane == 0 {
                let zx = self.val(a).zx;
                self.alias(a, zx);
                return Ok(());
            }
            let d = self.v_dest()?;
            self.word(e::scalar_lane(log2, d, x, lane));
            self.known_zero(8 << log2);
            return Ok(());
        }
        let d = self.dest()?;
        self.word(e::umov(log2, d, x, lane));
        self.known_zero(8 << log2);
        Ok(())
    }

    fn insert_lane(&mut self, inst: &Inst, a: Value, b: Value) -> Result<(), EmitError> {
        let (log2, lane) = (log2_of(inst.ty), u32::from(inst.aux));
        let x = self.v(a)?;
        if inst.ty.is_float() {
            let y = self.v(b)?;
            // Zeros above on either side, or there already.
            let bits = inst.ty.lane().bits();
            let is_alone = lane == 0 && [a, b].iter().all(|&v| u32::from(self.val(v).zx) <= bits);
            if is_alone || self.merged == Some(self.at) || x == y && lane == 0 {
                self.alias(b, if is_alone { bits as u8 } else { WHOLE });
                return Ok(());
            }
            let d = if x == y { self.v_dest()? } else { self.v_dest_apart(&[y])? };
            self.v_mov(d, x);
            self.word(e::ins_lane(log2, d, lane, y, 0));
            if lane == 0 && self.plan.merges {
                // From there, what is made of it can be merged.
                self.settle(b.0 as usize, Loc::V(d), WHOLE);
            }
            return Ok(());
        }
        let y = self.xz(b)?;
        let d = self.v_dest()?;
        self.v_mov(d, x);
        self.word(e::ins_x(log2, d, lane, y));
        Ok(())
    }

    /// A scalar with zeros above.
    fn scalar_to_vector(&mut self, inst: &Inst, a: Value) -> Result<(), EmitError> {
        if inst.ty.is_float() {
            let x = self.v(a)?;
            let bits = inst.ty.lane().bits();
            if u32::from(self.val(a).zx) <= bits {
                self.alias(a, bits as u8);
                return Ok(());
            }
            let d = self.v_dest()?;
            self.word(e::fp1(e::FMOV, bits == 64, d, x));
            return Ok(());
        }
        let lane = inst.ty.lane();
        let x = if lane.bits() < 32 { self.zero_extended(a)? } else { self.xz(a)? };
        let d = self.v_dest()?;
        self.word(e::fmov_from_x(super::size_of(lane), d, x));
        Ok(())
    }

    fn concat(&mut self, a: Value, b: Value) -> Result<(), EmitError> {
        let (low, high) = (self.xz(a)?, self.xz(b)?);
        let d = self.v_dest()?;
        self.word(e::fmov_from_x(Size::X, d, low));
        self.word(e::ins_x(3, d, 1, high));
        Ok(())
    }

    /// PMOVMSKB and kin: each lane's sign at its number's bit, summed.
    fn high_bits(&mut self, inst: &Inst, a: Value) -> Result<(), EmitError> {
        let (log2, x) = (log2_of(inst.ty), self.v(a)?);
        let lane_bits = 8 << log2;
        let s = self.v_scratch();
        if log2 == 3 {
            self.word(e::vec_shift(VecShift::Unsigned, 64, s, x, 63));
            let (low, high) = (self.scratch(), self.scratch());
            self.word(e::fmov_to_x(Size::X, low, s));
            self.word(e::umov(3, high, s, 1));
            let d = self.dest()?;
            self.word(e::op3_lsl(e::ORR, Size::W, d, low, high, 1));
            self.known_zero(2);
            return Ok(());
        }
        let places = match log2 {
            0 => [0x8040_2010_0804_0201; 2],
            1 => [0x0008_0004_0002_0001, 0x0080_0040_0020_0010],
            _ => [0x0000_0002_0000_0001, 0x0000_0008_0000_0004],
        };
        let t = self.v_scratch();
        self.word(e::vec_shift(VecShift::Signed, lane_bits, s, x, lane_bits - 1));
        self.v_constant(t, places);
        self.word(e::vec3(e::VAND, 0, s, s, t));
        if log2 == 0 {
            // The upper eight lanes become the upper bytes of 16-bit sums.
            self.word(e::ext(t, s, s, 8));
            self.word(e::vec3(e::ZIP1, 0, s, s, t));
        }
        let sums = log2.max(1);
        self.word(e::vec2(e::ADDV, sums, s, s));
        let d = self.dest()?;
        self.word(e::umov(sums, d, s, 0));
        self.known_zero(16 >> log2);
        Ok(())
    }

    /// Shifts by one count for all lanes; the host takes counts from a vector, negative ones to the right, and shifts everything out
    /// where they reach the width.
    fn vector_shift(&mut self, inst: &Inst, a: Value, b: Value) -> Result<(), EmitError> {
        let log2 = log2_of(inst.ty);
        let width = 8u32 << log2;
        let x = self.v(a)?;
        if let Some(n) = self.as_imm(b) {
            let n = n.min(u64::from(width)) as u32;
            let d = self.v_dest()?;
            match inst.op {
                Op::Vsshr if n == 0 => self.v_mov(d, x),
                Op::Vsshr => self.word(e::vec_shift(VecShift::Signed, width, d, x, n)),
                _ if n == width => self.word(e::movi_bytes(d, 0)),
                Op::Vshl => self.word(e::vec_shift(VecShift::Left, width, d, x, n)),
                _ if n == 0 => self.v_mov(d, x),
                _ => self.word(e::vec_shift(VecShift::Unsigned, width, d, x, n)),
            }
            return Ok(());
        }
        let y = self.x(b)?;
        let (s, count) = (self.scratch(), self.v_scratch());
        self.mov_imm(s, u64::from(width));
        self.word(e::op_imm(e::SUBS_IMM, Size::X, e::ZR, y, u64::from(width)).expect("twelve bits"));
        self.word(e::op_cond(e::CSEL, Size::X, s, y, s, e::Cond::Cc));
        if inst.op != Op::Vshl {
            self.word(e::op3(e::SUB, Size::X, s, e::ZR, s));
        }
        self.word(e::dup_x(log2, count, s));
        let d = self.v_dest()?;
        self.word(e::vec3(if inst.op == Op::Vsshr { e::SSHL } else { e::USHL }, log2, d, x, count));
        Ok(())
    }

    fn compare_lanes(&mut self, inst: &Inst, a: Value, b: Value) -> Result<(), EmitError> {
        let (x, y) = (self.v(a)?, self.v(b)?);
        let log2 = log2_of(inst.ty);
        let (op, x, y) = match Cc::from_code(inst.aux) {
            Cc::Equal | Cc::NotEqual => (e::CMEQ, x, y),
            Cc::SignedGreaterThan => (e::CMGT, x, y),
            Cc::SignedGreaterThanOrEqual => (e::CMGE, x, y),
            Cc::SignedLessThan => (e::CMGT, y, x),
            Cc::SignedLessThanOrEqual => (e::CMGE, y, x),
            Cc::UnsignedGreaterThan => (e::CMHI, x, y),
            Cc::UnsignedGreaterThanOrEqual => (e::CMHS, x, y),
            Cc::UnsignedLessThan => (e::CMHI, y, x),
            Cc::UnsignedLessThanOrEqual => (e::CMHS, y, x),
        };
        let d = self.v_dest()?;
        self.word(e::vec3(op, log2, d, x, y));
        if Cc::from_code(inst.aux) == Cc::NotEqual {
            self.word(e::vec2(e::VNOT, 0, d, d));
        }
        Ok(())
    }

    /// Operations that take several instructions.
    fn several(&mut self, inst: &Inst, a: Value, b: Value) -> Result<(), EmitError> {
        let (x, y) = (self.v(a)?, self.v(b)?);
        let (s, t) = (self.v_scratch(), self.v_scratch());
        let both = |l: &mut Self, low: Vec3, high: Vec3| {
            l.word(e::vec3(low, 1, s, x, y));
            l.word(e::vec3(high, 1, t, x, y));
        };
        match inst.op {
            Op::Snarrow | Op::Unarrow => {
                let log2 = log2_of(inst.ty);
                let (low, high) = if inst.op == Op::Snarrow { (e::SQXTN, e::SQXTN2) } else { (e::SQXTUN, e::SQXTUN2) };
                let d = if x == y { self.v_dest_apart(&[x])? } else { self.v_dest_apart(&[y])? };
                self.word(e::vec2(low, log2, d, x));
                self.word(e::vec2(high, log2, d, y));
            }
            Op::Maddwd => {
                both(self, e::SMULL, e::SMULL2);
                let d = self.v_dest()?;
                self.word(e::vec3(e::ADDP, 2, d, s, t));
            }
            Op::Muludq => {
                self.word(e::vec2(e::XTN, 2, s, x));
                self.word(e::vec2(e::XTN, 2, t, y));
                let d = self.v_dest()?;
                self.word(e::vec3(e::UMULL, 2, d, s, t));
            }
            Op::Sad => {
                self.word(e::vec3(e::UABD, 0, s, x, y));
                self.word(e::vec2(e::UADDLP, 0, s, s));
                self.word(e::vec2(e::UADDLP, 1, s, s));
                let d = self.v_dest()?;
                self.word(e::vec2(e::UADDLP, 2, d, s));
            }
            _ if inst.ty == Type::I16x8 => {
                // The odd halves of the products.
                if inst.op == Op::Umulhi {
                    both(self, e::UMULL, e::UMULL2)
                } else {
                    both(self, e::SMULL, e::SMULL2)
                }
                let d = self.v_dest()?;
                self.word(e::vec3(e::UZP2, 1, d, s, t));
            }
            op => return Err(EmitError::NoCode(op)),
        }
        Ok(())
    }

    /// `Op::Shuffle`: one instruction for the usual patterns, else a table lookup, which gives 0 for indices out of range.
    fn shuffle(&mut self, inst: &Inst, a: Value, b: Value) -> Result<(), EmitError> {
        let [low, high] = self.pool[inst.args[2] as usize];
        let indices = (u128::from(low) | u128::from(high) << 64).to_le_bytes();
        let (x, y) = (self.v(a)?, self.v(b)?);
        if let Some(pattern) = Pattern::of(&indices, x == y) {
            let pick = |first: bool| if first { x } else { y };
            let d = self.v_dest()?;
            self.word(match pattern {
                Pattern::Lane { log2, first, lane } => e::dup_lane(log2, d, pick(first), lane),
                Pattern::Pair { op, log2, first, second } => e::vec3(op, log2, d, pick(first), pick(second)),
                Pattern::Window { first, second, bytes } => e::ext(d, pick(first), pick(second), bytes),
            });
            return Ok(());
        }
        let of = |range: std::ops::Range<u8>| indices.iter().any(|i| range.contains(i));
        let (of_x, of_y) = (of(0..16), of(16..32));
        let (table, mask) = (self.v_scratch(), V(2));
        if of_x && of_y && x != y {
            self.v_mov(table, x);
            self.v_mov(V(1), y);
            self.v_constant(mask, [low, high]);
            let d = self.v_dest()?;
            self.word(e::vec3(e::TBL2, 0, d, table, mask));
            return Ok(());
        }
        let folded = u128::from_le_bytes(indices.map(|i| if i < 32 { i & 15 } else { 0x80 }));
        self.v_constant(mask, [folded as u64, (folded >> 64) as u64]);
        let d = self.v_dest()?;
        self.word(e::vec3(e::TBL1, 0, d, if of_y { y } else { x }, mask));
        Ok(())
    }

    /// PSHUFB: the low four bits choose, bit 7 clears; the host clears for any index above 15.
    fn swizzle(&mut self, a: Value, b: Value) -> Result<(), EmitError> {
        let (x, y) = (self.v(a)?, self.v(b)?);
        let s = self.v_scratch();
        self.word(e::movi_bytes(s, 0x8f));
        self.word(e::vec3(e::VAND, 0, s, s, y));
        let d = self.v_dest()?;
        self.word(e::vec3(e::TBL1, 0, d, x, s));
        Ok(())
    }

    /// `d` becomes a floating-point constant.
    pub(super) fn fp_constant_into(&mut self, d: V, double: bool, bits: u64) {
        let label = self.literal([bits, 0], 8);
        self.branch(e::ldr_literal_fp(double, d, 0), Reach::Bits19, label);
    }
}

/// A shuffle that is one instruction.
enum Pattern {
    /// One lane everywhere.
    Lane { log2: u32, first: bool, lane: u32 },
    /// Lanes of two vectors interleaved or picked.
    Pair { op: Vec3, log2: u32, first: bool, second: bool },
    /// 16 bytes from the middle of two vectors.
    Window { first: bool, second: bool, bytes: u32 },
}

impl Pattern {
    /// `same`: both operands are one register.
    fn of(indices: &[u8; 16], same: bool) -> Option<Pattern> {
        if indices.iter().any(|&i| i >= 32) {
            return None;
        }
        let is = |want: &dyn Fn(u8) -> u8| {
            indices.iter().zip(0u8..).all(|(&i, n)| if same { i & 15 == want(n) & 15 } else { i == want(n) })
        };
        for log2 in (0..4u32).rev() {
            let size = 1u8 << log2;
            let lane = indices[0] >> log2;
            if is(&|n| (lane << log2) + n % size) {
                return Some(Pattern::Lane { log2, first: lane << log2 < 16, lane: u32::from(lane) & (15 >> log2) });
            }
            // Byte n of a result is byte n % size of its lane n / size.
            for (op, half) in [(e::ZIP1, 0u8), (e::ZIP2, 8)] {
                for (first, second) in ORDERS {
                    let from = |vector: bool| if vector { 0u8 } else { 16 };
                    let zip = |n: u8| {
                        let lane = n / size;
                        from(if lane.is_multiple_of(2) { first } else { second }) + half + lane / 2 * size + n % size
                    };
                    if is(&zip) {
                        return Some(Pattern::Pair { op, log2, first, second });
                    }
                }
            }
            for (op, odd) in [(e::UZP1, 0u8), (e::UZP2, 1)] {
                for (first, second) in ORDERS {
                    let from = |vector: bool| if vector { 0u8 } else { 16 };
                    let unzip =
                        |n: u8| from(if n < 8 { first } else { second }) + (n % 8 / size * 2 + odd) * size + n % size;
                    if log2 < 3 && is(&unzip) {
                        return Some(Pattern::Pair { op, log2, first, second });
                    }
                }
            }
        }
        for (first, second) in ORDERS {
            let from = |vector: bool| if vector { 0u8 } else { 16 };
            let start = indices[0] & 15;
            let window = |n: u8| {
                let at = start + n;
                if at < 16 { from(first) + at } else { from(second) + at - 16 }
            };
            if is(&window) {
                return Some(Pattern::Window { first, second, bytes: u32::from(start) });
            }
        }
        None
    }
}

/// Which operands come first and second: the first one or not.
const ORDERS: [(bool, bool); 4] = [(true, false), (false, true), (true, true), (false, false)];
