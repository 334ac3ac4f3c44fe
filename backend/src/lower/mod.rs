//! `ir::Region` -> CLIF, one arm an operation.
//!
//! | file        | operations                                                             |
//! |-------------|------------------------------------------------------------------------|
//! | `regs.rs`   | `get`, `put`; which registers a region loads and stores, and when      |
//! | `int.rs`    | scalar integers, conditions, division                                  |
//! | `consts.rs` | constants that loops use, made ready once                              |
//! | `float.rs`  | floating point with x86's NaN, minimum and conversion rules            |
//! | `vector.rs` | 128-bit integer and lane operations                                    |
//! | `memory.rs` | guest loads, stores, atomics                                           |
//! | `inline.rs` | helpers that are an instruction of the host                            |
//! | `call.rs`   | helpers                                                                |
//! | `count.rs`  | counts of executed instructions                                        |
//! | `exit.rs`   | ways out: links, leaves, faults, polls                                 |
//! | `keep.rs`   | computations whose results nobody uses, but whose exceptions count    |
//! | `late.rs`   | flags that are only wanted on a block's rarer way out                 |
//! | `loops.rs`  | which edges close a loop                                               |
//! | `masks.rs`  | the highest bits of bytes, on AArch64                                  |
//!
//! An IR block is one CLIF block, plus those that an operation with a cold path makes. Values of the IR are CLIF values
//! of the type that [`clif_type`] says, except that a vector has whatever lane type its operation gave it and is
//! cast where it is used ([`Lowering::vector`]); a cast costs nothing.
//!
//! Order of guest accesses: Cranelift at `opt_level=none` keeps loads and stores in the order of the CLIF (it may fold a
//! load into its only user, across no other access), so the order of the IR is the order of the machine code. With
//! optimization it would drop and merge accesses, which a guest with threads can see.

mod call;
mod consts;
mod count;
mod exit;
mod float;
mod inline;
mod int;
mod keep;
mod late;
mod loops;
mod masks;
mod memory;
mod regs;
mod vector;

use crate::abi::ARGUMENTS;
use crate::compile::{CompileOptions, ExitSite, StateAtFaults};
use crate::isa::{Arch, HostIsa};
use crate::order::Scalars;
use crate::respell::Respell;
use calque_ir::{BlockId, CpuState, GuestAddr, Inst, Op, Reg, Region, Type, Value as IrValue};
use cranelift_codegen::ir::{self as clif, AbiParam, InstBuilder, MemFlagsData, Signature, SourceLoc, TrapCode, types};
use cranelift_codegen::isa::{CallConv, TargetFrontendConfig};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use float::RawFloat;
use loops::LoopEdges;
use regs::{RegFile, RegSets};
use std::collections::HashMap;
use std::mem::offset_of;

/// Marks accesses to guest memory in the list of traps.
pub(crate) const GUEST_ACCESS: TrapCode = TrapCode::unwrap_user(1);

/// The same, of an access that a barrier orders.
pub(crate) const FENCED_ACCESS: TrapCode = TrapCode::unwrap_user(2);

/// What lowering knows beside the function.
pub(crate) struct Lowered {
    pub(crate) exits: Vec<ExitSite>,
    /// Guest pc of each source location.
    pub(crate) pcs: Vec<GuestAddr>,
    /// Whether the function calls others, so that its stack pointer must be aligned.
    pub(crate) calls: bool,
    /// Source locations of stand-ins (`respell.rs`), ascending.
    pub(crate) respelled: Vec<(u32, Respell)>,
    /// Every comparison of scalars is to raise the invalid flag for quiet NaNs.
    pub(crate) comis: bool,
}

/// Fills `func` with the code of `region`.
pub(crate) fn lower(
    region: &Region,
    host: &HostIsa,
    options: &CompileOptions,
    scalars: Scalars,
    frontend: TargetFrontendConfig,
    func: &mut clif::Function,
    context: &mut FunctionBuilderContext,
) -> Lowered {
    let mut signature = Signature::new(CallConv::Tail);
    signature.params = vec![AbiParam::new(types::I64); 1 + ARGUMENTS.len()];
    func.signature = signature.clone();
    let mut b = FunctionBuilder::new(func, context);
    let entry = b.create_block();
    b.append_block_params_for_function_params(entry);
    b.switch_to_block(entry);
    let cpu = b.block_params(entry)[0];
    let arguments: Vec<clif::Value> = b.block_params(entry)[1..].to_vec();
    let tail = b.import_signature(signature);
    let blocks = region.blocks.iter().map(|_| b.create_block()).collect();
    let loops = LoopEdges::of(region);
    let mut lowering = Lowering {
        b,
        host,
        options,
        scalars,
        region,
        cpu,
        tail,
        blocks,
        values: vec![None; region.insts.len()],
        raw_floats: HashMap::new(),
        raw_lows: Vec::new(),
        wide: HashMap::new(),
        bases: HashMap::new(),
        sums: HashMap::new(),
        place_bits: None,
        zero: None,
        hoisted: Vec::new(),
        users: Users::of(region),
        regs: RegFile::new(region, host.arch),
        sets: RegSets::of(region, &loops, options),
        loops,
        block: BlockId(0),
        at: 0,
        pc: region.pc(),
        raising: Vec::new(),
        helper: None,
        leave: None,
        out: Lowered { exits: Vec::new(), pcs: Vec::new(), calls: false, respelled: Vec::new(), comis: false },
    };
    lowering.out.comis = float::all_signaling(region, host.arch);
    lowering.entry(&arguments);
    for id in region.block_ids() {
        lowering.block(id);
    }
    lowering.finish_leaves();
    let Lowering { mut b, cpu, raising, out, .. } = lowering;
    b.seal_all_blocks();
    b.finalize(frontend);
    keep::keep(func, cpu, &raising);
    out
}

/// State of lowering one region.
struct Lowering<'a> {
    b: FunctionBuilder<'a>,
    host: &'a HostIsa,
    options: &'a CompileOptions,
    /// How scalar guest accesses are made.
    scalars: Scalars,
    region: &'a Region,
    /// Pointer to `CpuState`.
    cpu: clif::Value,
    /// Signature of generated functions.
    tail: clif::SigRef,
    /// CLIF block of each IR block.
    blocks: Vec<clif::Block>,
    /// CLIF value of each IR value lowered so far.
    values: Vec<Option<Val>>,
    /// Results of this block that are not checked for NaN yet.
    raw_floats: HashMap<clif::Value, RawFloat>,
    /// Those of them that registers hold in their lowest lanes.
    raw_lows: Vec<(Reg, Type, clif::Value)>,
    /// Of narrow values of this block, the 64 bits that they are the lowest of, where the others are zero.
    wide: HashMap<clif::Value, clif::Value>,
    /// Bases with a part of a displacement added, which accesses of this block share (`memory.rs`).
    bases: HashMap<(Option<IrValue>, i32), clif::Value>,
    /// Bases with an index, shifted left by a scale, added; likewise.
    sums: HashMap<(IrValue, IrValue, u8), clif::Value>,
    /// `CpuState::place_bits`, once this block has it.
    place_bits: Option<clif::Value>,
    /// A vector of zeros, once one is needed for the whole region.
    zero: Option<clif::Value>,
    /// Constants that were made ready at the entry: type, bits, value.
    hoisted: Vec<(Type, u64, clif::Value)>,
    users: Users,
    regs: RegFile,
    sets: RegSets,
    loops: LoopEdges,
    /// Block being lowered.
    block: BlockId,
    /// Index of the instruction being lowered.
    at: usize,
    /// Guest pc of the instruction being lowered.
    pc: GuestAddr,
    /// Results of operations that raise floating-point exceptions.
    raising: Vec<clif::Value>,
    /// Signature of helpers, once one is called.
    helper: Option<clif::SigRef>,
    /// Where exits to the dispatcher meet, with guest pc and link word, once there is one.
    leave: Option<clif::Block>,
    out: Lowered,
}

impl Lowering<'_> {
    /// Polls, loads the registers that the region needs, and goes to its first block.
    fn entry(&mut self, arguments: &[clif::Value]) {
        self.mark(self.pc);
        self.define_arguments(arguments);
        self.poll_entry();
        if self.regs.splits() {
            self.zero = Some(self.constant([0; 16]));
        }
        self.load_registers();
        self.hoist_constants();
        let first = self.blocks[0];
        self.b.ins().jump(first, &[]);
    }

    fn block(&mut self, id: BlockId) {
        let block = &self.region.blocks[id.0 as usize];
        self.b.switch_to_block(self.blocks[id.0 as usize]);
        self.block = id;
        self.raw_floats.clear();
        self.wide.clear();
        self.bases.clear();
        self.sums.clear();
        self.place_bits = None;
        self.enter_block(id);
        self.mark(block.pc);
        let late = if self.is_precise() { Vec::new() } else { late::of(self.region, id) };
        for at in block.start..block.end {
            if late.binary_search(&at).is_err() {
                self.lower_inst(at);
            }
        }
        self.at = block.end as usize;
        self.settle_lows();
        self.exit(block.exit, &late);
    }

    /// Whether signal handlers may look at all registers.
    fn is_precise(&self) -> bool {
        self.options.state_at_faults != StateAtFaults::PcOnly
    }

    fn lower_inst(&mut self, at: u32) {
        self.at = at as usize;
        if self.values[self.at].is_some() {
            return; // made with another
        }
        let inst = self.region.insts[self.at];
        self.values[self.at] = self.inst_value(&inst);
        if let Some(Val::Plain(value)) = self.values[self.at].filter(|_| inst.op.raises()) {
            self.raising.push(value);
        }
    }

    /// What follows belongs to the guest instruction at `pc`.
    fn mark(&mut self, pc: GuestAddr) {
        self.pc = pc;
        if self.out.pcs.last() != Some(&pc) {
            self.out.pcs.push(pc);
        }
        self.b.set_srcloc(SourceLoc::new(self.out.pcs.len() as u32 - 1));
    }

    /// Emits what `f` does as a stand-in.
    fn respelled(&mut self, how: Respell, f: impl FnOnce(&mut Self) -> clif::Value) -> clif::Value {
        let loc = self.out.pcs.len() as u32;
        self.out.pcs.push(self.pc);
        self.out.respelled.push((loc, how));
        self.b.set_srcloc(SourceLoc::new(loc));
        let result = f(self);
        self.out.pcs.push(self.pc);
        self.b.set_srcloc(SourceLoc::new(loc + 1));
        result
    }

    fn inst_value(&mut self, inst: &Inst) -> Option<Val> {
        match inst.op {
            Op::Get => Some(self.get(inst)),
            Op::ScalarToVector if inst.ty.is_float() => {
                let low = self.new_low(inst, 0);
                let rest = self.zero();
                Some(Val::Split(Split { low, rest, zero_above: self.def(inst.args[0]).op == Op::Load }))
            }
            Op::InsertLane if inst.ty.is_float() && inst.aux == 0 => {
                let low = self.new_low(inst, 1);
                let rest = self.rest(IrValue(inst.args[0]), inst.ty.lane());
                Some(Val::Split(Split { low, rest, zero_above: false }))
            }
            _ => self.inst(inst).map(Val::Plain),
        }
    }

    fn inst(&mut self, inst: &Inst) -> Option<clif::Value> {
        match inst.op {
            Op::Nop => return None,
            Op::Insn => {
                self.mark(GuestAddr(inst.imm()));
                return None;
            }
            Op::Count => self.count(inst),
            Op::Put => self.put(inst),
            Op::Store => self.store(inst),
            Op::Fence => {
                self.b.ins().fence();
            }
            Op::FaultIf => self.fault_if(inst),
            Op::Uncarried => return Some(self.load_state(types::I32, offset_of!(CpuState, rt.uncarried))),
            Op::Load => return Some(self.load(inst)),
            Op::Rmw => return Some(self.rmw(inst)),
            Op::Cas => return Some(self.cas(inst)),
            Op::Call => return self.call(inst),
            _ if inst.ty.is_float() || float::is_float(inst.op) => return Some(self.float(inst)),
            _ if inst.ty.is_vector() || vector::is_vector(inst.op) => return Some(self.vector_op(inst)),
            _ => return Some(self.int(inst)),
        }
        None
    }

    /// CLIF value of an operand.
    fn arg(&mut self, inst: &Inst, slot: usize) -> clif::Value {
        self.value(IrValue(inst.args[slot]))
    }

    fn value(&mut self, v: IrValue) -> clif::Value {
        let value = self.unchecked_value(v);
        let checked = self.settled(value);
        if checked != value {
            self.values[v.0 as usize] = Some(Val::Plain(checked));
        }
        checked
    }

    /// The same, but a NaN may still be one that x86 would not give (`float.rs`).
    fn unchecked_value(&mut self, v: IrValue) -> clif::Value {
        match self.val(v) {
            Val::Plain(value) => value,
            Val::Split(split) => {
                let whole = self.join(split);
                self.values[v.0 as usize] = Some(Val::Plain(whole));
                whole
            }
        }
    }

    fn val(&self, v: IrValue) -> Val {
        self.values[v.0 as usize].unwrap_or_else(|| panic!("{v} is used before it is defined"))
    }

    /// A vector value of which all but the lowest lane, of type `lane`, counts.
    fn rest(&mut self, v: IrValue, lane: Type) -> clif::Value {
        match self.val(v) {
            Val::Split(split) if self.b.func.dfg.value_type(split.low).bits() <= lane.bits() => split.rest,
            _ => self.value(v),
        }
    }

    /// Puts a vector together.
    fn join(&mut self, split: Split) -> clif::Value {
        let split = Split { low: self.checked(split.low), ..split };
        let shape = if self.b.func.dfg.value_type(split.low) == types::F32 { types::F32X4 } else { types::F64X2 };
        // A move of a scalar clears the rest of its register on AArch64.
        if split.zero_above || self.on(Arch::Aarch64) && Some(split.rest) == self.zero {
            return self.b.ins().scalar_to_vector(shape, split.low);
        }
        let rest = self.view(split.rest, shape);
        self.b.ins().insertlane(rest, split.low, 0)
    }

    /// A vector of zeros that every block can use.
    fn zero(&mut self) -> clif::Value {
        if let Some(zero) = self.zero {
            return zero;
        }
        self.constant([0; 16])
    }

    /// Type of an operand.
    fn arg_type(&self, inst: &Inst, slot: usize) -> Type {
        self.region.insts[inst.args[slot] as usize].result_type()
    }

    /// The instruction that defines an operand.
    fn def(&self, v: u32) -> &Inst {
        &self.region.insts[v as usize]
    }

    /// An operand that is a constant.
    fn as_const(&self, v: u32) -> Option<u64> {
        let def = self.def(v);
        (def.op == Op::Iconst).then(|| def.imm())
    }

    /// The value of an earlier instruction of this block with these operands.
    fn earlier(&self, op: Op, ty: Type, args: [u32; 2]) -> Option<clif::Value> {
        let start = self.region.blocks[self.block.0 as usize].start as usize;
        let found = (start..self.at).rev().take(LOOK_BACK).find(|&i| {
            let inst = &self.region.insts[i];
            inst.op == op && inst.ty == ty && inst.args[..2] == args
        })?;
        match self.values[found]? {
            Val::Plain(value) => Some(value),
            Val::Split(_) => None,
        }
    }

    /// A float operand of an operation whose result is a NaN if the operand is, whichever.
    fn unchecked(&mut self, inst: &Inst, slot: usize) -> clif::Value {
        let v = self.unchecked_value(IrValue(inst.args[slot]));
        let ty = clif_type(inst.ty);
        if self.b.func.dfg.value_type(v) == ty { v } else { self.vector(inst, slot, inst.ty) }
    }

    /// A vector operand, seen as `shape`.
    fn vector(&mut self, inst: &Inst, slot: usize, shape: Type) -> clif::Value {
        let v = self.arg(inst, slot);
        self.view(v, clif_type(shape))
    }

    /// A vector seen with other lanes, or a scalar with the same bits.
    fn view(&mut self, v: clif::Value, ty: clif::Type) -> clif::Value {
        if self.b.func.dfg.value_type(v) == ty {
            return v;
        }
        self.b.ins().bitcast(ty, LANES, v)
    }

    /// An integer constant, truncated to `ty`.
    fn iconst(&mut self, ty: clif::Type, value: i64) -> clif::Value {
        let mask = u64::MAX >> (64 - ty.bits());
        self.b.ins().iconst(ty, (value as u64 & mask) as i64)
    }

    fn on(&self, arch: Arch) -> bool {
        self.host.arch == arch
    }
}

/// What lowering has of an IR value.
#[derive(Clone, Copy)]
enum Val {
    Plain(clif::Value),
    Split(Split),
}

/// A vector in two parts, put together only where something looks at the whole: scalar SSE instructions replace the lowest
/// lane again and again and carry the others along.
#[derive(Clone, Copy)]
struct Split {
    /// The lowest lane, a float.
    low: clif::Value,
    /// A vector with the other lanes.
    rest: clif::Value,
    /// The other lanes are zero, and so are the bits above `low` in its host register (a load put them there; CLIF's
    /// `scalar_to_vector` takes them on trust).
    zero_above: bool,
}

/// How far around an instruction lowering looks for what belongs together.
const LOOK_BACK: usize = 16;

/// Byte order of lanes in casts between vector types.
const LANES: MemFlagsData = MemFlagsData::new().with_endianness(clif::Endianness::Little);

/// CLIF type of an IR type; conditions are bytes of 0 or 1.
fn clif_type(ty: Type) -> clif::Type {
    match ty {
        Type::None => types::INVALID,
        Type::I1 | Type::I8 => types::I8,
        Type::I16 => types::I16,
        Type::I32 => types::I32,
        Type::I64 => types::I64,
        Type::F32 => types::F32,
        Type::F64 => types::F64,
        Type::V128 | Type::I8x16 => types::I8X16,
        Type::I16x8 => types::I16X8,
        Type::I32x4 => types::I32X4,
        Type::I64x2 => types::I64X2,
        Type::F32x4 => types::F32X4,
        Type::F64x2 => types::F64X2,
    }
}

/// Who uses each value.
struct Users(Vec<Use>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    None,
    One(u32),
    More,
}

impl Users {
    fn of(region: &Region) -> Users {
        let mut users = vec![Use::None; region.insts.len()];
        let mut note = |v: IrValue, by: u32| {
            let slot = &mut users[v.0 as usize];
            *slot = if *slot == Use::None { Use::One(by) } else { Use::More };
        };
        for (i, inst) in region.insts.iter().enumerate() {
            inst.uses().for_each(|v| note(v, i as u32));
        }
        for v in region.blocks.iter().filter_map(|b| b.exit.value()) {
            note(v, u32::MAX);
        }
        Users(users)
    }

    /// The only instruction that uses value `v`, if there is exactly one and it is not an exit.
    fn only(&self, v: usize) -> Option<usize> {
        match self.0[v] {
            Use::One(by) if by != u32::MAX => Some(by as usize),
            _ => None,
        }
    }
}
