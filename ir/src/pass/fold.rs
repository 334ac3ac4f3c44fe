//! Folding: one forward walk that rewrites the region into a fresh list.
//!
//! Within a block it knows what value each guest register holds (F1: an entry is true of the architectural register
//! at this point), so a `get` costs nothing after a `put` or another `get`, and a `put` of what is there already goes.
//! Everything else is `simplify`'s and `address`'s.

use super::address;
use super::dead::merge_targets;
use super::simplify::simplify;
use crate::helper::{Helper, HelperEffect};
use crate::op::{Effect, Format, Op};
use crate::reg::Reg;
use crate::region::{BlockId, Exit, Inst, Region, Value};
use crate::state::CpuState;
use crate::types::Type;

/// The instructions written so far.
#[derive(Default)]
pub(super) struct Values {
    insts: Vec<Inst>,
    block_start: u32,
    /// Recent pure operations by hash: candidates for being the same again.
    recent: Recent,
    /// Registers for running the interpreter on constants, which touches none.
    scratch: Box<CpuState>,
}

impl Values {
    /// The instruction that defines `v`.
    pub(super) fn def(&self, v: Value) -> &Inst {
        &self.insts[v.0 as usize]
    }

    /// Type of `v`.
    pub(super) fn ty(&self, v: Value) -> Type {
        self.def(v).result_type()
    }

    /// The integer constant that `v` is.
    pub(super) fn constant(&self, v: Value) -> Option<u64> {
        let def = self.def(v);
        (def.op == Op::Iconst).then(|| def.imm())
    }

    pub(super) fn scratch(&mut self) -> &mut CpuState {
        &mut self.scratch
    }

    /// Appends an instruction.
    pub(super) fn push(&mut self, inst: Inst) -> Value {
        self.insts.push(inst);
        Value(self.insts.len() as u32 - 1)
    }

    /// Appends an operation with up to two operands, or finds it.
    pub(super) fn op(&mut self, op: Op, ty: Type, aux: u16, a: Value, b: u32) -> Value {
        self.unique(Inst { op, ty, aux, args: [a.0, b, 0, 0] })
    }

    /// Appends a pure operation, or finds it in the block.
    pub(super) fn unique(&mut self, inst: Inst) -> Value {
        let [a, b, c, _] = inst.args;
        let key = u32::from(inst.op as u8) << 8 | u32::from(inst.ty as u8) | u32::from(inst.aux) << 16;
        let hash = (key ^ a.wrapping_mul(0x9e37_79b1) ^ b.rotate_left(16) ^ c).wrapping_mul(0x85eb_ca6b) >> 26;
        let found = self.recent.0[hash as usize];
        // Whatever the table says, it is only believed where the block has just this instruction.
        if found >= self.block_start && self.insts.get(found as usize) == Some(&inst) {
            return Value(found);
        }
        let v = self.push(inst);
        self.recent.0[hash as usize] = v.0;
        v
    }

    /// A constant; `imm` is zero-extended from `ty`.
    pub(super) fn iconst(&mut self, ty: Type, imm: u64) -> Value {
        self.unique(Inst { op: Op::Iconst, ty, aux: 0, args: Inst::imm_args(imm) })
    }

    fn start_block(&mut self) {
        self.block_start = self.insts.len() as u32;
    }
}

/// A direct-mapped table of instruction numbers.
struct Recent([u32; 64]);

impl Default for Recent {
    fn default() -> Self {
        Self([0; 64])
    }
}

/// What a guest register holds.
#[derive(Clone, Copy)]
struct Known {
    value: Value,
    /// Whether the value, zero-extended, is the whole register; else its low part.
    whole: bool,
}

/// Working memory of the pass.
pub(super) struct Fold {
    values: Values,
    renamed: Vec<Value>,
    /// Values that are put into a register: the sum is there anyway, and folding it into an address would keep the old value
    /// alive beside it.
    put: Vec<bool>,
    /// Values that anything uses.
    used: Vec<bool>,
    order: Vec<BlockId>,
    regs: [Option<Known>; Reg::COUNT],
    /// The last comparison of scalars in the block, if nobody uses it and no other has taken its place.
    check: Option<Value>,
}

impl Default for Fold {
    fn default() -> Self {
        Self {
            values: Values::default(),
            renamed: Vec::new(),
            put: Vec::new(),
            used: Vec::new(),
            order: Vec::new(),
            regs: [None; Reg::COUNT],
            check: None,
        }
    }
}

impl Fold {
    /// Rewrites the region.
    pub(super) fn run(&mut self, region: &mut Region) {
        self.values.insts.clear();
        self.renamed.clear();
        self.renamed.resize(region.insts.len(), Value::NONE);
        self.put.clear();
        self.put.resize(region.insts.len(), false);
        for inst in region.insts.iter().filter(|i| i.op == Op::Put) {
            self.put[inst.args[0] as usize] = true;
        }
        self.used.clear();
        self.used.resize(region.insts.len(), false);
        let in_exits = region.blocks.iter().filter_map(|b| b.exit.value());
        for v in region.insts.iter().flat_map(Inst::uses).chain(in_exits) {
            self.used[v.0 as usize] = true;
        }
        self.order.clear();
        self.order.extend(region.block_ids());
        self.order.sort_by_key(|id| region.blocks[id.0 as usize].start);
        for i in 0..self.order.len() {
            self.block(region, self.order[i]);
        }
        std::mem::swap(&mut region.insts, &mut self.values.insts);
    }

    fn block(&mut self, region: &mut Region, id: BlockId) {
        self.values.start_block();
        self.check = None;
        self.regs = [None; Reg::COUNT];
        let (start, end) = (region.blocks[id.0 as usize].start, region.blocks[id.0 as usize].end);
        for i in start..end {
            let mut inst = region.insts[i as usize];
            if inst.op == Op::Nop {
                continue;
            }
            let slots = inst.value_slots();
            let kept =
                [0, 1].map(|slot| slots >> slot & 1 != 0 && self.put.get(inst.args[slot] as usize) == Some(&true));
            for slot in 0..4 {
                if slots >> slot & 1 != 0 && inst.args[slot] != Value::NONE.0 {
                    inst.args[slot] = self.renamed[inst.args[slot] as usize].0;
                }
            }
            self.renamed[i as usize] = self.inst(region, inst, kept);
            if inst.op.compares_floats() && !inst.ty.is_vector() {
                self.check = if self.used[i as usize] { None } else { Some(self.renamed[i as usize]) };
            }
        }
        let block = &mut region.blocks[id.0 as usize];
        (block.start, block.end) = (self.values.block_start, self.values.insts.len() as u32);
        block.exit.map_value(|v| self.renamed[v.0 as usize]);
        block.exit = self.exit(block.exit);
    }

    /// Appends what is left of an instruction; yields its value if it has one. `kept` tells of its first two operands whether registers
    /// hold them.
    fn inst(&mut self, region: &mut Region, mut inst: Inst, kept: [bool; 2]) -> Value {
        match inst.op.format() {
            Format::Get => self.get(inst),
            Format::Put => self.put(inst),
            Format::Load | Format::Store | Format::Rmw => {
                let mem = address::fold(&self.values, inst.mem(), kept);
                inst.args[0] = mem.base.unwrap_or(Value::NONE).0;
                inst.args[1] = mem.index.unwrap_or(Value::NONE).0;
                inst.args[2] = mem.disp as u32;
                inst.aux = inst.aux & !3 | u16::from(mem.scale);
                self.values.push(inst)
            }
            Format::Cas => {
                let (base, disp) = address::fold_offset(&self.values, Value(inst.args[0]), inst.args[2] as i32);
                (inst.args[0], inst.args[2]) = (base.0, disp as u32);
                self.values.push(inst)
            }
            Format::FaultIf if self.values.constant(Value(inst.args[0])) == Some(0) => Value::NONE,
            Format::Call => {
                if Helper::from_code(inst.aux).effect() == HelperEffect::Mxcsr {
                    self.regs[Reg::MXCSR.index()] = None;
                }
                self.values.push(inst)
            }
            _ if inst.op.compares_floats() && !inst.ty.is_vector() => self.compare(inst),
            _ if inst.op.raises() => self.values.unique(inst),
            _ if inst.op.effect() == Effect::Pure => simplify(&mut self.values, &mut region.pool, inst),
            _ => self.values.push(inst),
        }
    }

    /// A comparison of scalars. COMISS compares for the sake of the exceptions before anybody asks for a condition; the first
    /// that is asked for takes its place.
    fn compare(&mut self, inst: Inst) -> Value {
        if let Some(v) = self.check.take() {
            let check = &mut self.values.insts[v.0 as usize];
            let raises_as_much = check.op == inst.op || check.op == Op::FcmpSignaling;
            if raises_as_much && check.ty == inst.ty && check.args == inst.args {
                check.aux = inst.aux;
                return v;
            }
        }
        self.values.push(inst)
    }

    fn get(&mut self, inst: Inst) -> Value {
        let slot = inst.aux as usize;
        if let Some(known) = self.regs[slot] {
            let (from, to) = (self.values.ty(known.value), inst.ty);
            if from == to {
                return known.value;
            }
            if let Some(part) = self.part_of(known, from, to) {
                return part;
            }
        }
        let value = self.values.push(inst);
        let whole = Reg::from_index(slot).is_some_and(|reg| reg.ty() == inst.ty);
        self.regs[slot] = Some(Known { value, whole });
        value
    }

    /// A register read as `to`, from what is known as `from`.
    fn part_of(&mut self, known: Known, from: Type, to: Type) -> Option<Value> {
        let a = known.value;
        let inst = |op, ty| Inst { op, ty, aux: 0, args: [a.0, 0, 0, 0] };
        let inst = match (from, to) {
            (Type::V128, Type::I32) => inst(Op::ExtractLane, Type::I32x4),
            (Type::V128, Type::I64) => inst(Op::ExtractLane, Type::I64x2),
            (Type::V128, Type::F32) => inst(Op::ExtractLane, Type::F32x4),
            (Type::V128, Type::F64) => inst(Op::ExtractLane, Type::F64x2),
            _ if !from.is_int() || !to.is_int() => return None,
            _ if to.bits() < from.bits() => inst(Op::Ireduce, to),
            _ if known.whole => inst(Op::Uextend, to),
            _ => return None,
        };
        Some(simplify(&mut self.values, &mut Vec::new(), inst))
    }

    fn put(&mut self, inst: Inst) -> Value {
        let (slot, value) = (inst.aux as usize, Value(inst.args[0]));
        let known = &mut self.regs[slot];
        if known.is_some_and(|k| k.whole && k.value == value) {
            return Value::NONE;
        }
        *known = Some(Known { value, whole: true });
        self.values.push(inst)
    }

    fn exit(&self, exit: Exit) -> Exit {
        let Exit::Branch { cond, taken, fallthrough } = exit else { return exit };
        let def = self.values.def(cond);
        match def.op {
            Op::Iconst => Exit::Goto(if def.imm() != 0 { taken } else { fallthrough }),
            Op::Bnot => self.exit(Exit::Branch { cond: Value(def.args[0]), taken: fallthrough, fallthrough: taken }),
            _ => merge_targets(exit),
        }
    }
}
