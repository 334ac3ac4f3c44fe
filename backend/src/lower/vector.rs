//! Operations on 128-bit vectors: integer lanes, and moving lanes of any kind.

use super::{Lowering, Val, clif_type};
use crate::isa::Arch;
use calque_ir::{Cc, Inst, Op, Type, Value as IrValue};
use cranelift_codegen::ir::{self as clif, InstBuilder, condcodes::IntCC, types};
use iced_x86::Code;

/// Vector operations whose type or operands do not say so.
pub(super) fn is_vector(op: Op) -> bool {
    matches!(op, Op::HighBits | Op::ExtractLane | Op::Vconst)
}

impl Lowering<'_> {
    /// Operations on vectors.
    pub(super) fn vector_op(&mut self, inst: &Inst) -> clif::Value {
        match inst.op {
            Op::Vconst => self.pool(inst.args[0]),
            Op::Select => {
                let (c, x, y) = (self.arg(inst, 0), self.whole(inst, 1), self.whole(inst, 2));
                self.b.ins().select(c, x, y)
            }
            Op::Bnot => {
                let x = self.whole(inst, 0);
                self.b.ins().bnot(x)
            }
            Op::Ineg => {
                let x = self.lanes(inst, 0);
                self.b.ins().ineg(x)
            }
            Op::Splat => {
                let x = self.arg(inst, 0);
                self.b.ins().splat(clif_type(inst.ty), x)
            }
            Op::ExtractLane => {
                if let Some(low) = self.low_of(IrValue(inst.args[0]), inst) {
                    return low;
                }
                let x = self.lanes(inst, 0);
                self.b.ins().extractlane(x, inst.aux as u8)
            }
            Op::InsertLane => {
                let (x, scalar) = (self.lanes(inst, 0), self.arg(inst, 1));
                self.b.ins().insertlane(x, scalar, inst.aux as u8)
            }
            Op::ScalarToVector => self.scalar_to_vector(inst),
            Op::Concat => {
                let (low, high) = (self.arg(inst, 0), self.arg(inst, 1));
                self.concat(low, high)
            }
            Op::HighBits => self.high_bits(inst),
            Op::Vshl | Op::Vushr | Op::Vsshr => self.vector_shift(inst),
            Op::Snarrow | Op::Unarrow => self.narrow_lanes(inst),
            Op::Shuffle => self.shuffle(inst),
            Op::Swizzle => {
                let (x, indices) = (self.whole(inst, 0), self.whole(inst, 1));
                self.pick_bytes(x, indices)
            }
            Op::Maddwd => self.multiply_add_pairs(inst),
            Op::Muludq => self.multiply_even(inst),
            Op::Sad => self.sum_absolute_differences(inst),
            Op::Umulhi => self.high_products(inst, Sign::Unsigned),
            Op::Smulhi => self.high_products(inst, Sign::Signed),
            _ => self.lane_by_lane(inst),
        }
    }

    /// Operations that CLIF has for the whole shape.
    fn lane_by_lane(&mut self, inst: &Inst) -> clif::Value {
        if matches!(inst.op, Op::Band | Op::Bor | Op::Bxor | Op::BandNot) {
            return self.bitwise(inst);
        }
        let (x, y) = (self.lanes(inst, 0), self.lanes(inst, 1));
        let ins = self.b.ins();
        match inst.op {
            Op::Iadd => ins.iadd(x, y),
            Op::Isub => ins.isub(x, y),
            Op::Imul => ins.imul(x, y),
            Op::Icmp => ins.icmp(super::int::int_cc(Cc::from_code(inst.aux)), x, y),
            Op::UaddSat => ins.uadd_sat(x, y),
            Op::SaddSat => ins.sadd_sat(x, y),
            Op::UsubSat => ins.usub_sat(x, y),
            Op::SsubSat => ins.ssub_sat(x, y),
            Op::Umin => ins.umin(x, y),
            Op::Umax => ins.umax(x, y),
            Op::Smin => ins.smin(x, y),
            Op::Smax => ins.smax(x, y),
            Op::AvgRound => ins.avg_round(x, y),
            op => unreachable!("{} is no vector operation", op.name()),
        }
    }

    /// Logic does not care for lanes.
    fn bitwise(&mut self, inst: &Inst) -> clif::Value {
        let (x, y) = (self.whole(inst, 0), self.whole(inst, 1));
        let ins = self.b.ins();
        match inst.op {
            Op::Band => ins.band(x, y),
            Op::Bor => ins.bor(x, y),
            Op::Bxor => ins.bxor(x, y),
            _ => ins.band_not(x, y),
        }
    }

    /// An operand in the shape of the operation.
    fn lanes(&mut self, inst: &Inst, slot: usize) -> clif::Value {
        self.vector(inst, slot, inst.ty)
    }

    /// An operand as bytes.
    fn whole(&mut self, inst: &Inst, slot: usize) -> clif::Value {
        self.vector(inst, slot, Type::V128)
    }

    /// A 128-bit constant.
    pub(super) fn constant(&mut self, bytes: [u8; 16]) -> clif::Value {
        let constant = self.b.func.dfg.constants.insert(bytes.to_vec().into());
        self.b.ins().vconst(types::I8X16, constant)
    }

    fn pool_bytes(&self, index: u32) -> [u8; 16] {
        let [low, high] = self.region.pool[index as usize];
        (u128::from(low) | u128::from(high) << 64).to_le_bytes()
    }

    fn pool(&mut self, index: u32) -> clif::Value {
        let bytes = self.pool_bytes(index);
        self.constant(bytes)
    }

    /// An integer with zeros above. Floats are split values (`Lowering::inst_value`).
    fn scalar_to_vector(&mut self, inst: &Inst) -> clif::Value {
        let x = self.arg(inst, 0);
        let ty = clif_type(inst.ty);
        if inst.ty.lane().bits() < 32 {
            let wide = self.b.ins().uextend(types::I32, x);
            let result = self.b.ins().scalar_to_vector(types::I32X4, wide);
            return self.view(result, ty);
        }
        self.b.ins().scalar_to_vector(ty, x)
    }

    /// The lowest lane, if that is what `inst` extracts and the vector is in two parts.
    fn low_of(&mut self, v: IrValue, inst: &Inst) -> Option<clif::Value> {
        let lane = clif_type(inst.ty.lane());
        match self.val(v) {
            Val::Split(split) if inst.aux == 0 && self.b.func.dfg.value_type(split.low).bits() == lane.bits() => {
                Some(self.bits_of(split.low, lane))
            }
            _ => None,
        }
    }

    /// Two `i64` side by side.
    pub(super) fn concat(&mut self, low: clif::Value, high: clif::Value) -> clif::Value {
        let result = self.b.ins().scalar_to_vector(types::I64X2, low);
        self.b.ins().insertlane(result, high, 1)
    }

    /// Shifts by one count for all lanes. CLIF takes the count modulo the lane width; x86 does not.
    fn vector_shift(&mut self, inst: &Inst) -> clif::Value {
        let (x, count) = (self.lanes(inst, 0), self.arg(inst, 1));
        let width = u64::from(inst.ty.lane().bits());
        let known = self.as_const(inst.args[1]);
        if inst.op == Op::Vsshr {
            let count = match known {
                Some(n) => self.iconst(types::I64, n.min(width - 1) as i64),
                None => {
                    let limit = self.iconst(types::I64, width as i64 - 1);
                    let below = self.b.ins().icmp(IntCC::UnsignedLessThan, count, limit);
                    self.b.ins().select(below, count, limit)
                }
            };
            return self.b.ins().sshr(x, count);
        }
        if known.is_some_and(|n| n >= width) {
            return self.constant([0; 16]);
        }
        let shifted = if inst.op == Op::Vshl { self.b.ins().ishl(x, count) } else { self.b.ins().ushr(x, count) };
        if known.is_some() {
            return shifted;
        }
        let below = self.b.ins().icmp_imm_u(IntCC::UnsignedLessThan, count, width as i64);
        let zero = self.constant([0; 16]);
        let zero = self.view(zero, clif_type(inst.ty));
        self.b.ins().select(below, shifted, zero)
    }

    fn narrow_lanes(&mut self, inst: &Inst) -> clif::Value {
        let from = if inst.ty == Type::I8x16 { Type::I16x8 } else { Type::I32x4 };
        let (x, y) = (self.vector(inst, 0, from), self.vector(inst, 1, from));
        if inst.op == Op::Snarrow { self.b.ins().snarrow(x, y) } else { self.b.ins().unarrow(x, y) }
    }

    /// `Op::Shuffle`. CLIF's own has no index for zero, and knows the shapes that are one instruction.
    fn shuffle(&mut self, inst: &Inst) -> clif::Value {
        let (x, y) = (self.whole(inst, 0), self.whole(inst, 1));
        let indices = self.pool_bytes(inst.args[2]);
        if indices.iter().all(|&i| i < 32) {
            let mask = self.b.func.dfg.immediates.push(indices.to_vec().into());
            return self.b.ins().shuffle(x, y, mask);
        }
        let of_x = indices.map(|i| if i < 16 { i } else { 0x80 });
        let of_y = indices.map(|i| if (16..32).contains(&i) { i - 16 } else { 0x80 });
        match (of_x == [0x80; 16], of_y == [0x80; 16]) {
            (true, true) => self.constant([0; 16]),
            (false, true) => self.pick_constant(x, of_x),
            (true, false) => self.pick_constant(y, of_y),
            (false, false) => {
                let (x, y) = (self.pick_constant(x, of_x), self.pick_constant(y, of_y));
                self.b.ins().bor(x, y)
            }
        }
    }

    fn pick_constant(&mut self, x: clif::Value, indices: [u8; 16]) -> clif::Value {
        let indices = self.constant(indices);
        if self.on(Arch::X86_64) { self.b.ins().x86_pshufb(x, indices) } else { self.b.ins().swizzle(x, indices) }
    }

    /// PSHUFB: the low four bits choose, bit 7 clears. AArch64's TBL clears for any index above 15.
    fn pick_bytes(&mut self, x: clif::Value, indices: clif::Value) -> clif::Value {
        if self.on(Arch::X86_64) {
            return self.b.ins().x86_pshufb(x, indices);
        }
        let mask = self.constant([0x8f; 16]);
        let indices = self.b.ins().band(indices, mask);
        self.b.ins().swizzle(x, indices)
    }

    /// PMADDWD, in the form that Cranelift knows.
    fn multiply_add_pairs(&mut self, inst: &Inst) -> clif::Value {
        let (x, y) = (self.vector(inst, 0, Type::I16x8), self.vector(inst, 1, Type::I16x8));
        let (x_low, y_low) = (self.b.ins().swiden_low(x), self.b.ins().swiden_low(y));
        let (x_high, y_high) = (self.b.ins().swiden_high(x), self.b.ins().swiden_high(y));
        let low = self.b.ins().imul(x_low, y_low);
        let high = self.b.ins().imul(x_high, y_high);
        self.b.ins().iadd_pairwise(low, high)
    }

    /// PMULUDQ: lanes 0 and 2 moved to the low half, then the widening product that both hosts have.
    fn multiply_even(&mut self, inst: &Inst) -> clif::Value {
        if self.on(Arch::Aarch64) {
            return self.even_products(inst);
        }
        if let Some(r) = self.by_vex(inst, Code::VEX_Vpmuludq_xmm_xmm_xmmm128) {
            return r;
        }
        const EVEN: [u8; 16] = [0, 1, 2, 3, 8, 9, 10, 11, 0, 1, 2, 3, 8, 9, 10, 11];
        let [x, y] = [0, 1].map(|slot| {
            let v = self.whole(inst, slot);
            let mask = self.b.func.dfg.immediates.push(EVEN.to_vec().into());
            let even = self.b.ins().shuffle(v, v, mask);
            let even = self.view(even, types::I32X4);
            self.b.ins().uwiden_low(even)
        });
        self.b.ins().imul(x, y)
    }

    /// PSADBW: differences as maximum minus minimum, then sums of neighbours until eight bytes are one.
    fn sum_absolute_differences(&mut self, inst: &Inst) -> clif::Value {
        if let Some(r) = self.by_vex(inst, Code::VEX_Vpsadbw_xmm_xmm_xmmm128) {
            return r;
        }
        let (x, y) = (self.whole(inst, 0), self.whole(inst, 1));
        if self.on(Arch::Aarch64) {
            return self.sums_of_differences(x, y);
        }
        let (most, least) = (self.b.ins().umax(x, y), self.b.ins().umin(x, y));
        let bytes = self.b.ins().isub(most, least);
        let (low, high) = (self.b.ins().uwiden_low(bytes), self.b.ins().uwiden_high(bytes));
        let words = self.b.ins().iadd_pairwise(low, high);
        let (low, high) = (self.b.ins().swiden_low(words), self.b.ins().swiden_high(words));
        let doubles = self.b.ins().iadd_pairwise(low, high);
        let halves = self.view(doubles, types::I64X2);
        let upper = self.b.ins().ushr_imm_u(halves, 32);
        let sums = self.b.ins().iadd(halves, upper);
        let mask = self.constant(LOW_HALVES);
        let mask = self.view(mask, types::I64X2);
        self.b.ins().band(sums, mask)
    }

    /// High halves of the products of 16-bit lanes: products in 32 bits, whose upper halves are then put together.
    fn high_products(&mut self, inst: &Inst, sign: Sign) -> clif::Value {
        let code = match sign {
            Sign::Signed => Code::VEX_Vpmulhw_xmm_xmm_xmmm128,
            Sign::Unsigned => Code::VEX_Vpmulhuw_xmm_xmm_xmmm128,
        };
        if let Some(r) = self.by_vex(inst, code) {
            return r;
        }
        const HIGH_HALVES: [u8; 16] = [2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30, 31];
        let (x, y) = (self.vector(inst, 0, Type::I16x8), self.vector(inst, 1, Type::I16x8));
        let (low, high) = match sign {
            Sign::Signed => {
                let (a, b) = (self.b.ins().swiden_low(x), self.b.ins().swiden_low(y));
                let (c, d) = (self.b.ins().swiden_high(x), self.b.ins().swiden_high(y));
                (self.b.ins().imul(a, b), self.b.ins().imul(c, d))
            }
            Sign::Unsigned => {
                let (a, b) = (self.b.ins().uwiden_low(x), self.b.ins().uwiden_low(y));
                let (c, d) = (self.b.ins().uwiden_high(x), self.b.ins().uwiden_high(y));
                (self.b.ins().imul(a, b), self.b.ins().imul(c, d))
            }
        };
        let (low, high) = (self.view(low, types::I8X16), self.view(high, types::I8X16));
        let mask = self.b.func.dfg.immediates.push(HIGH_HALVES.to_vec().into());
        self.b.ins().shuffle(low, high, mask)
    }
}

/// The low 32 bits of both 64-bit lanes.
const LOW_HALVES: [u8; 16] = [255, 255, 255, 255, 0, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0];

/// How lanes are widened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sign {
    Signed,
    Unsigned,
}
