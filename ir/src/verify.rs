//! The verifier: what every region must satisfy, whoever made it.
//!
//! 1. Blocks tile the instruction list without overlap; every block is closed.
//! 2. A value is defined above its use in the same block, by an instruction with a result.
//! 3. Operand and result types are those of the operation's row in `op.rs`.
//! 4. Registers, lanes, codes, pool indices, helpers and blocks exist.
//! 5. Within a guest instruction nothing that may fault stands behind a `put` (discipline 2 of `region.rs`).
//! 6. An `insn` mark has a length of 1 to 15 bytes (SDM vol. 2 2.3.11).
//!
//! All problems are collected: one wrong operand should not hide the next.

use crate::helper::Helper;
use crate::op::{Format, Op};
use crate::reg::{Reg, RegKind};
use crate::region::{Block, BlockId, Cc, Exit, FaultKind, FloatCc, Inst, Region, RmwOp, Target, Value};
use crate::types::Type;
use std::fmt;

/// Something wrong with a region.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The instruction, or `None` for the block's exit or range.
    pub inst: Option<Value>,
    pub block: BlockId,
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.inst {
            Some(v) => write!(f, "{}, {v}: {}", self.block, self.message),
            None => write!(f, "{}: {}", self.block, self.message),
        }
    }
}

/// Checks everything in this module's header.
pub fn verify(region: &Region) -> Result<(), Vec<Problem>> {
    let mut check = Check { region, problems: Vec::new(), block: BlockId(0), inst: None };
    check.ranges();
    if check.problems.is_empty() {
        for id in region.block_ids() {
            check.block(id);
        }
        let ascending = region.predicted.is_sorted_by_key(|(from, _)| *from);
        check.require(ascending, || "predicted exits are not in the order of their blocks".into());
    }
    if check.problems.is_empty() { Ok(()) } else { Err(check.problems) }
}

struct Check<'a> {
    region: &'a Region,
    problems: Vec<Problem>,
    block: BlockId,
    inst: Option<Value>,
}

impl Check<'_> {
    fn problem(&mut self, message: String) {
        self.problems.push(Problem { inst: self.inst, block: self.block, message });
    }

    fn require(&mut self, holds: bool, message: impl FnOnce() -> String) {
        if !holds {
            self.problem(message());
        }
    }

    fn ranges(&mut self) {
        let mut order: Vec<BlockId> = self.region.block_ids().collect();
        order.sort_by_key(|id| (self.of(*id).start, self.of(*id).end));
        let mut at = 0;
        for id in order {
            self.block = id;
            let (start, end) = (self.of(id).start, self.of(id).end);
            self.require(start == at && end >= start, || format!("instructions {start}..{end}, expected from {at}"));
            at = end;
        }
        let len = self.region.insts.len() as u32;
        self.require(at == len, || format!("blocks end at {at} of {len} instructions"));
    }

    fn of(&self, id: BlockId) -> &Block {
        &self.region.blocks[id.0 as usize]
    }

    fn block(&mut self, id: BlockId) {
        self.block = id;
        let (start, end) = (self.of(id).start, self.of(id).end);
        let mut put_seen = false;
        for i in start..end {
            self.inst = Some(Value(i));
            let inst = self.region.insts[i as usize];
            match inst.op {
                Op::Insn => put_seen = false,
                Op::Put => put_seen = true,
                // A comparison for the flags of COMISS has been made before any `put` already.
                op => {
                    let stops = op.may_stop() || op.raises() && !op.compares_floats();
                    self.require(!(put_seen && stops), || "may fault behind a put".into());
                }
            }
            self.inst(start, i, &inst);
        }
        self.inst = None;
        self.exit(start, end);
    }

    fn exit(&mut self, start: u32, end: u32) {
        let exit = self.of(self.block).exit;
        self.require(exit != Exit::None, || "has no exit".into());
        for target in exit.targets() {
            if let Target::Block(to) = target {
                self.require((to.0 as usize) < self.region.blocks.len(), || format!("{to} does not exist"));
            }
        }
        for to in self.region.predicted_of(self.block) {
            self.require((to.0 as usize) < self.region.blocks.len(), || format!("{to} does not exist"));
            let computed = matches!(exit, Exit::Indirect(_) | Exit::Return(_) | Exit::CallIndirect { .. });
            self.require(computed, || format!("{to} is predicted of an exit that is not computed"));
        }
        if let Some(v) = exit.value() {
            let expected = if matches!(exit, Exit::Branch { .. }) { Type::I1 } else { Type::I64 };
            self.value(start, end, v, expected);
        }
    }

    /// Type of an operand; reports one that is not defined above in the block.
    fn type_of(&mut self, start: u32, at: u32, v: Value) -> Option<Type> {
        if v.0 < start || v.0 >= at {
            self.problem(format!("{v} is not defined above in this block"));
            return None;
        }
        let ty = self.region.insts[v.0 as usize].result_type();
        self.require(ty != Type::None, || format!("{v} has no result"));
        (ty != Type::None).then_some(ty)
    }

    fn value(&mut self, start: u32, at: u32, v: Value, expected: Type) {
        if let Some(ty) = self.type_of(start, at, v) {
            self.require(ty == expected, || format!("{v} is {}, expected {}", ty.name(), expected.name()));
        }
    }

    fn inst(&mut self, start: u32, at: u32, inst: &Inst) {
        self.codes(inst);
        if matches!(inst.op.format(), Format::Load | Format::Store | Format::Rmw | Format::Cas) {
            let mem = inst.mem();
            for v in mem.base.into_iter().chain(mem.index) {
                self.value(start, at, v, Type::I64);
            }
        }
        let allowed = allowed_types(inst.op).contains(&inst.ty);
        self.require(allowed, || format!("{} has no form for {}", inst.op.name(), inst.ty.name()));
        if allowed {
            self.operands(start, at, inst);
        }
    }

    fn operands(&mut self, start: u32, at: u32, inst: &Inst) {
        let mut value = |slot: usize, expected| self.value(start, at, Value(inst.args[slot]), expected);
        let own = inst.ty.value_type();
        match inst.op {
            Op::Put => value(0, own),
            Op::Load => {}
            Op::Store | Op::Rmw => value(3, own),
            Op::Cas => [1, 3].into_iter().for_each(|slot| value(slot, own)),
            Op::FaultIf => value(0, Type::I1),
            Op::Select => {
                value(0, Type::I1);
                value(1, own);
                value(2, own);
            }
            Op::UaddOverflowCin | Op::SaddOverflowCin | Op::UsubOverflowBin | Op::SsubOverflowBin => {
                value(0, own);
                value(1, own);
                value(2, Type::I1);
            }
            Op::InsertLow8 | Op::InsertHigh8 => {
                value(0, Type::I64);
                value(1, Type::I8);
            }
            Op::InsertLow16 => {
                value(0, Type::I64);
                value(1, Type::I16);
            }
            Op::Vshl | Op::Vushr | Op::Vsshr => {
                value(0, own);
                value(1, Type::I64);
            }
            Op::InsertLane => {
                value(0, own);
                value(1, inst.ty.lane());
            }
            Op::Splat | Op::ScalarToVector => value(0, inst.ty.lane()),
            Op::Concat => [0, 1].into_iter().for_each(|slot| value(slot, Type::I64)),
            Op::Fpromote => value(0, Type::F32),
            Op::Fdemote => value(0, Type::F64),
            Op::Bitcast | Op::Uextend | Op::Sextend | Op::Ireduce => self.conversion(start, at, inst),
            Op::FcvtFromSint | Op::FcvtToSint | Op::FcvtToSintTrunc => self.float_conversion(start, at, inst),
            Op::Call => self.call(start, at, inst),
            _ => {
                let slots = inst.value_slots();
                (0..4).filter(|slot| slots >> slot & 1 != 0).for_each(|slot| value(slot, own));
            }
        }
    }

    fn conversion(&mut self, start: u32, at: u32, inst: &Inst) {
        let Some(from) = self.type_of(start, at, Value(inst.args[0])) else { return };
        let (from_bits, to_bits) = (from.bits(), inst.ty.bits());
        let integers = from.is_int() && (inst.ty.is_int() || inst.ty == Type::I1);
        let fits = match inst.op {
            Op::Bitcast => from_bits == to_bits && !from.is_vector() && from.is_float() != inst.ty.is_float(),
            Op::Uextend => (from == Type::I1 || integers) && from_bits < to_bits,
            Op::Sextend => integers && from_bits < to_bits,
            _ => integers && from_bits > to_bits,
        };
        self.require(fits, || format!("no {} from {} to {}", inst.op.name(), from.name(), inst.ty.name()));
    }

    fn float_conversion(&mut self, start: u32, at: u32, inst: &Inst) {
        let Some(from) = self.type_of(start, at, Value(inst.args[0])) else { return };
        let fits = match (inst.op, inst.ty) {
            (_, ty) if ty.is_vector() => from.is_vector(),
            (Op::FcvtFromSint, _) => matches!(from, Type::I32 | Type::I64),
            _ => matches!(from, Type::F32 | Type::F64),
        };
        self.require(fits, || format!("no {} from {} to {}", inst.op.name(), from.name(), inst.ty.name()));
    }

    fn call(&mut self, start: u32, at: u32, inst: &Inst) {
        let Some(helper) = Helper::ALL.get(inst.aux as usize) else { return };
        self.require(helper.ret() == inst.ty, || format!("{} returns {}", helper.name(), helper.ret().name()));
        for slot in 0..3 {
            let v = Value(inst.args[slot]);
            match helper.args().get(slot) {
                Some(ty) => self.value(start, at, v, *ty),
                None => self.require(v == Value::NONE, || format!("{} takes {slot} arguments", helper.name())),
            }
        }
    }

    /// Everything in `aux` and `args` that is not a value.
    fn codes(&mut self, inst: &Inst) {
        let Inst { op, ty, aux, args } = *inst;
        let aux_below = |n: usize| (aux as usize) < n;
        let fits = match op.format() {
            Format::Get => Reg::from_index(aux as usize).is_some_and(|reg| readable(reg, ty)),
            Format::Put => Reg::from_index(aux as usize).is_some_and(|reg| writable(reg, ty)),
            Format::Compare if op.compares_floats() => aux_below(FloatCc::ALL.len()),
            Format::Compare => aux_below(Cc::ALL.len()),
            Format::FaultIf => aux_below(FaultKind::ALL.len()),
            Format::Call => aux_below(Helper::ALL.len()),
            Format::Rmw => (aux as usize >> 4) < RmwOp::ALL.len(),
            Format::Extract | Format::Insert => aux_below(ty.lanes() as usize),
            // 0: what a translation does before its first instruction.
            Format::Insn => (0..=15).contains(&aux),
            Format::Count => args[0] > 0,
            Format::Pool => (args[0] as usize) < self.region.pool.len(),
            Format::Shuffle => (args[2] as usize) < self.region.pool.len(),
            Format::Imm if op == Op::Iconst && ty.bits() < 64 => inst.imm() >> ty.bits() == 0,
            _ => true,
        };
        self.require(fits, || format!("{} {} with aux {aux}", op.name(), ty.name()));
    }
}

fn readable(reg: Reg, ty: Type) -> bool {
    match reg.kind() {
        RegKind::Gpr(_) => ty.is_int(),
        RegKind::Xmm(_) | RegKind::YmmHi(_) => matches!(ty, Type::V128 | Type::I32 | Type::I64 | Type::F32 | Type::F64),
        _ => ty == reg.ty(),
    }
}

fn writable(reg: Reg, ty: Type) -> bool {
    let extends = matches!(reg.kind(), RegKind::Gpr(_)) || reg == Reg::FLAGS_A || reg == Reg::FLAGS_B;
    ty == reg.ty() || extends && ty == Type::I32
}

/// Types that an operation exists for.
pub fn allowed_types(op: Op) -> &'static [Type] {
    use Type::*;
    const INT: &[Type] = &[I8, I16, I32, I64];
    const BIT_INT: &[Type] = &[I1, I8, I16, I32, I64];
    const SCALAR: &[Type] = &[I8, I16, I32, I64, F32, F64];
    const VALUE: &[Type] = &[I1, I8, I16, I32, I64, F32, F64, V128];
    const LANES: &[Type] = &[I8x16, I16x8, I32x4, I64x2];
    const INT_OR_LANES: &[Type] = &[I8, I16, I32, I64, I8x16, I16x8, I32x4, I64x2];
    const BITS: &[Type] = &[I1, I8, I16, I32, I64, V128, I8x16, I16x8, I32x4, I64x2, F32x4, F64x2];
    const FLOAT: &[Type] = &[F32, F64, F32x4, F64x2];
    const SHAPES: &[Type] = &[I8x16, I16x8, I32x4, I64x2, F32x4, F64x2];
    const MEMORY: &[Type] = &[I8, I16, I32, I64, F32, F64, V128];
    match op {
        Op::Nop | Op::Insn | Op::Count | Op::Fence | Op::FaultIf => &[None],
        Op::Uncarried => &[I32],
        Op::Iconst => BIT_INT,
        Op::Vconst => &[V128],
        Op::Get | Op::Put | Op::Select => VALUE,
        Op::Bitcast => SCALAR,
        Op::Uextend | Op::Sextend | Op::Clz | Op::Ctz | Op::Popcnt | Op::Bswap | Op::Parity => INT,
        Op::Ireduce => BIT_INT,
        Op::Ineg | Op::Iadd | Op::Isub => INT_OR_LANES,
        Op::Bnot | Op::Band | Op::Bor | Op::Bxor | Op::BandNot => BITS,
        Op::Imul => &[I8, I16, I32, I64, I16x8, I32x4],
        Op::Umulhi | Op::Smulhi => &[I8, I16, I32, I64, I16x8],
        Op::Ishl | Op::Ushr | Op::Sshr | Op::Rotl | Op::Rotr => INT,
        Op::InsertLow8 | Op::InsertHigh8 | Op::InsertLow16 => &[I64],
        Op::Icmp => &[I1, I8, I16, I32, I64, I8x16, I16x8, I32x4, I64x2],
        Op::Fcmp | Op::FcmpSignaling => FLOAT,
        Op::UaddOverflow
        | Op::SaddOverflow
        | Op::SsubOverflow
        | Op::UmulOverflow
        | Op::SmulOverflow
        | Op::UaddOverflowCin
        | Op::SaddOverflowCin
        | Op::UsubOverflowBin
        | Op::SsubOverflowBin
        | Op::HalfCarry
        | Op::Udiv
        | Op::Urem
        | Op::Sdiv
        | Op::Srem => INT,
        Op::Fadd | Op::Fsub | Op::Fmul | Op::Fdiv | Op::Sqrt | Op::Fmin | Op::Fmax => FLOAT,
        Op::Fmadd | Op::Fmsub | Op::Fnmadd | Op::Fnmsub => FLOAT,
        Op::Ceil | Op::Floor | Op::Trunc | Op::Nearest => FLOAT,
        Op::Fpromote => &[F64],
        Op::Fdemote => &[F32],
        Op::FvpromoteLow | Op::FcvtLowFromSint => &[F64x2],
        Op::Fvdemote => &[F32x4],
        Op::FcvtFromSint => &[F32, F64, F32x4],
        Op::FcvtToSint | Op::FcvtToSintTrunc => &[I32, I64, I32x4],
        Op::FcvtLowToSint | Op::FcvtLowToSintTrunc => &[I32x4],
        Op::Splat | Op::ExtractLane | Op::InsertLane | Op::ScalarToVector | Op::HighBits => SHAPES,
        Op::Concat | Op::Sad | Op::Muludq => &[I64x2],
        Op::Shuffle | Op::Swizzle => &[I8x16],
        Op::Vshl | Op::Vushr | Op::Vsshr => LANES,
        Op::UaddSat | Op::SaddSat | Op::UsubSat | Op::SsubSat | Op::AvgRound => &[I8x16, I16x8],
        Op::Umin | Op::Umax | Op::Smin | Op::Smax => &[I8x16, I16x8, I32x4],
        Op::Snarrow | Op::Unarrow => &[I8x16, I16x8],
        Op::Maddwd => &[I32x4],
        Op::Load | Op::Store => MEMORY,
        Op::Rmw => INT,
        Op::Cas => &[I8, I16, I32, I64, V128],
        Op::Call => &[None, I1, I8, I16, I32, I64, F32, F64, V128],
    }
}
