//! Guest registers: which ones a region loads at its entry and stores when it leaves, and `get` and `put` in between.
//!
//! Each register that a region touches is a Cranelift variable of the register's full type (`i64`, `i8x16`, `i8` for a
//! flag), so that it travels between blocks in a host register. A vector register that the region uses mostly for scalar
//! floats is two variables, lowest lane and the rest, so that scalar arithmetic does not merge lanes at every step. MXCSR
//! is the exception: it stays in `CpuState`, because helpers and the host's control register depend on it.
//!
//! *Dirty* registers are those whose variable may differ from `CpuState`. Invariants:
//! 1. `RegFile::dirty` at any point is the union over all paths to it; storing a register that is clean on this path is
//!    harmless, because its variable was loaded at entry (2).
//! 2. A register in `live_in` of the first block is loaded at entry, unless it comes as an argument. `live_in` contains every register that is read, or that
//!    is stored at an exit and clean on some path to it.
//! 3. A poll stores what is wanted at the block it resumes at (in precise mode, and where budgets end runs, everything: somebody may look at registers
//!    that the program will not read); every other exit stores all that is dirty, but for what it passes in host registers.
//!    So those are dirty from the start. Deferred flags are stored where the region leaves to an unknown place, in precise mode everywhere.
//! 4. In precise mode nothing is dirty at an access to guest memory.
//! 5. `CpuState::upper_halves` is set wherever an upper half is stored that may be another than zero and what it was at the entry. Where
//!    it is not set, those that are one of the two need no store: code for VEX writes zeros into many.

use super::loops::LoopEdges;
use super::{LANES, Lowering, Split, Val, clif_type};
use crate::abi::ARGUMENTS;
use crate::compile::{Budget, CompileOptions, StateAtFaults};
use crate::isa::Arch;
use calque_ir::{BlockId, CpuState, Exit, Inst, Op, Reg, Region, Target, Type, Value as IrValue};
use cranelift_codegen::ir::{self as clif, InstBuilder, MemFlagsData, types};
use cranelift_frontend::Variable;
use std::mem::offset_of;

/// Registers that exits to other code pass on in host registers alone (`abi.rs`). Not RSP, which crash reports want.
pub(super) const PASSED: RegSet = RegSet::of(&[Reg::RAX, Reg::RDI, Reg::RSI, Reg::RDX]);

/// Deferred flags.
pub(super) const DEFERRED: RegSet = RegSet::of(&Reg::DEFERRED);

const UPPER_HALVES: usize = offset_of!(CpuState, upper_halves);

/// Most upper halves that are stored though they are known to be zero: a test of whether they need be costs two instructions.
const MOST_STORED: u32 = 2;

/// The status flags.
pub(super) const STATUS: RegSet = RegSet::of(&Reg::STATUS);

/// A set of registers, by [`Reg::index`].
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct RegSet(u64);

impl RegSet {
    /// Every register.
    pub(super) const ALL: RegSet = RegSet(u64::MAX >> (64 - Reg::COUNT));

    /// The set of a few registers.
    pub(super) const fn of(regs: &[Reg]) -> RegSet {
        let (mut set, mut i) = (0, 0);
        while i < regs.len() {
            set |= 1 << regs[i].number();
            i += 1;
        }
        RegSet(set)
    }

    pub(super) fn insert(&mut self, reg: Reg) {
        self.0 |= 1 << reg.index();
    }

    fn set(&mut self, reg: Reg, contained: bool) {
        if contained { self.insert(reg) } else { self.remove(reg) }
    }

    fn remove(&mut self, reg: Reg) {
        self.0 &= !(1 << reg.index());
    }

    pub(super) fn contains(self, reg: Reg) -> bool {
        self.0 >> reg.index() & 1 != 0
    }

    pub(super) fn union(self, other: RegSet) -> RegSet {
        RegSet(self.0 | other.0)
    }

    /// The upper halves of all vector registers.
    const UPPER_HALVES: RegSet = RegSet(0xffff << Reg::YMMH0.number());

    fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn len(self) -> u32 {
        self.0.count_ones()
    }

    fn intersection(self, other: RegSet) -> RegSet {
        RegSet(self.0 & other.0)
    }

    pub(super) const fn without(self, other: RegSet) -> RegSet {
        RegSet(self.0 & !other.0)
    }

    pub(super) fn iter(self) -> impl Iterator<Item = Reg> {
        (0..Reg::COUNT).filter(move |i| self.0 >> i & 1 != 0).filter_map(Reg::from_index)
    }
}

/// What flows into the blocks of a region.
pub(super) struct RegSets {
    /// May differ from `CpuState`.
    dirty_in: Vec<RegSet>,
    /// May be read, here or by whatever runs behind an exit, before it is written.
    wanted_in: Vec<RegSet>,
    /// Its variable is used: for a read, or to store it at an exit.
    live_in: Vec<RegSet>,
    /// General registers whose upper 32 bits are zero on every path.
    zero_above_in: Vec<RegSet>,
    /// Upper halves of vector registers that are zero on every path, and those that on some are what they were at the entry.
    zero_in: Vec<RegSet>,
    zero_or_kept_in: Vec<RegSet>,
    /// A poll stores everything.
    exact_polls: bool,
    /// Registers that only unknown places want.
    unseen: RegSet,
}

/// What one block does to registers.
#[derive(Clone, Copy, Default)]
struct Effects {
    /// Read before written.
    exposed: RegSet,
    /// Not yet written where the block may leave the region in the middle.
    leaving: RegSet,
    written: RegSet,
    /// General registers last written as 32 bits.
    narrow: RegSet,
    /// Upper halves last written as zero.
    zeroed: RegSet,
    /// Written behind the last point that stores all dirty registers.
    unsaved: RegSet,
    /// Whether there is such a point.
    saves: bool,
}

impl RegSets {
    pub(super) fn of(region: &Region, loops: &LoopEdges, options: &CompileOptions) -> RegSets {
        let mode = options.state_at_faults;
        let exact_polls = mode != StateAtFaults::PcOnly || options.budget != Budget::None;
        let unseen = unseen(mode);
        let effects: Vec<Effects> = region.block_ids().map(|id| effects(region, id, mode)).collect();
        let none = vec![RegSet::default(); effects.len()];
        let mut zero_above_in = vec![RegSet::ALL; effects.len()];
        zero_above_in[0] = RegSet::default();
        let (zero_in, zero_or_kept_in) = (zero_above_in.clone(), vec![RegSet::UPPER_HALVES; effects.len()]);
        let mut dirty_in = none.clone();
        dirty_in[0] = PASSED;
        let mut sets = RegSets {
            dirty_in,
            wanted_in: none.clone(),
            live_in: none,
            zero_above_in,
            zero_in,
            zero_or_kept_in,
            exact_polls,
            unseen,
        };
        while flow_known(&mut sets.zero_above_in, region, &effects, |effect| effect.narrow) {}
        while flow_known(&mut sets.zero_in, region, &effects, |effect| effect.zeroed) {}
        while flow_known(&mut sets.zero_or_kept_in, region, &effects, |effect| effect.zeroed) {}
        while sets.flow_dirty(region, &effects) {}
        while sets.flow_wanted(region, loops, &effects) {}
        while sets.flow_live(region, &effects) {}
        sets
    }

    fn flow_dirty(&mut self, region: &Region, effects: &[Effects]) -> bool {
        let mut changed = false;
        for (i, effect) in effects.iter().enumerate() {
            let kept = if effect.saves { RegSet::default() } else { self.dirty_in[i] };
            let out = kept.union(effect.unsaved);
            for to in successors(region, i) {
                let joined = self.dirty_in[to].union(out);
                changed |= std::mem::replace(&mut self.dirty_in[to], joined) != joined;
            }
        }
        changed
    }

    fn flow_wanted(&mut self, region: &Region, loops: &LoopEdges, effects: &[Effects]) -> bool {
        let mut changed = false;
        for (i, effect) in effects.iter().enumerate().rev() {
            let closes = |to: usize| loops.closes(BlockId(i as u32), BlockId(to as u32));
            let polls = |to: usize| self.exact_polls && closes(to);
            let of = |to: usize| if polls(to) { RegSet::ALL } else { self.wanted_in[to] };
            let inside = successors(region, i).fold(RegSet::default(), |set, to| set.union(of(to)));
            let out = inside.union(self.wanted_behind(&region.blocks[i].exit));
            let wanted = effect.exposed.union(effect.leaving).union(out.without(effect.written));
            changed |= std::mem::replace(&mut self.wanted_in[i], wanted) != wanted;
        }
        changed
    }

    fn flow_live(&mut self, region: &Region, effects: &[Effects]) -> bool {
        let mut changed = false;
        for (i, effect) in effects.iter().enumerate().rev() {
            let out = successors(region, i).fold(RegSet::default(), |set, to| set.union(self.live_in[to]));
            let stored = self.dirty_in[i].intersection(self.wanted_in[i]);
            let live = effect.exposed.union(stored).union(out.without(effect.written));
            changed |= std::mem::replace(&mut self.live_in[i], live) != live;
        }
        changed
    }

    /// What an exit wants beside the region's own blocks.
    fn wanted_behind(&self, exit: &Exit) -> RegSet {
        match exit {
            Exit::Indirect(_) | Exit::Return(_) | Exit::CallIndirect { .. } => RegSet::ALL,
            _ if exit.targets().all(|t| matches!(t, Target::Block(_))) && exit.targets().next().is_some() => {
                RegSet::default()
            }
            _ => RegSet::ALL.without(self.unseen),
        }
    }

    /// What an exit stores that leads to a known place or to the dispatcher.
    pub(super) fn seen(&self) -> RegSet {
        RegSet::ALL.without(self.unseen)
    }

    /// What a poll that resumes at `to` has to store.
    pub(super) fn wanted_at(&self, to: BlockId) -> RegSet {
        if self.exact_polls { RegSet::ALL } else { self.wanted_in[to.0 as usize] }
    }
}

/// One round of a property that registers have behind a block if they are `set` there, or had it and are not written.
fn flow_known(known: &mut [RegSet], region: &Region, effects: &[Effects], set: impl Fn(&Effects) -> RegSet) -> bool {
    let mut changed = false;
    for (i, effect) in effects.iter().enumerate() {
        let out = known[i].without(effect.written).union(set(effect));
        for to in successors(region, i) {
            let joined = known[to].intersection(out);
            changed |= std::mem::replace(&mut known[to], joined) != joined;
        }
    }
    changed
}

/// Registers that only unknown places want, and signal handlers, which see nothing but in precise mode.
fn unseen(mode: StateAtFaults) -> RegSet {
    if mode == StateAtFaults::Precise { RegSet::default() } else { DEFERRED }
}

/// Whether a register is a variable; MXCSR is not.
fn is_variable(reg: Reg) -> bool {
    reg != Reg::MXCSR
}

fn effects(region: &Region, block: BlockId, mode: StateAtFaults) -> Effects {
    let mut e = Effects::default();
    for inst in region.block_insts(block) {
        match inst.op {
            Op::Get => {
                let reg = register(inst);
                if is_variable(reg) && !e.written.contains(reg) {
                    e.exposed.insert(reg);
                }
            }
            Op::Put if is_variable(register(inst)) => {
                e.written.insert(register(inst));
                match inst.ty {
                    Type::I32 => e.narrow.insert(register(inst)),
                    _ => e.narrow.remove(register(inst)),
                }
                e.zeroed.set(register(inst), zeroes_upper_half(region, inst));
                e.unsaved.insert(register(inst));
            }
            op if mode == StateAtFaults::Precise && accesses_guest(op) => {
                e.leaving = e.leaving.union(RegSet::ALL.without(e.written));
                (e.unsaved, e.saves) = (RegSet::default(), true);
            }
            Op::FaultIf | Op::Udiv | Op::Urem | Op::Sdiv | Op::Srem => {
                e.leaving = e.leaving.union(RegSet::ALL.without(unseen(mode)).without(e.written));
            }
            _ => {}
        }
    }
    e
}

/// Whether a `put` sets the upper half of a vector register to a constant of zero.
fn zeroes_upper_half(region: &Region, put: &Inst) -> bool {
    let def = &region.insts[put.args[0] as usize];
    RegSet::UPPER_HALVES.contains(register(put)) && def.op == Op::Vconst && region.pool[def.args[0] as usize] == [0; 2]
}

/// Whether a host fault at this operation is a guest fault.
pub(super) fn accesses_guest(op: Op) -> bool {
    matches!(op, Op::Load | Op::Store | Op::Rmw | Op::Cas)
}

fn successors(region: &Region, block: usize) -> impl Iterator<Item = usize> {
    region.successors(BlockId(block as u32)).map(|to| to.0 as usize)
}

fn register(inst: &Inst) -> Reg {
    Reg::from_index(inst.aux as usize).expect("the verifier checks register numbers")
}

/// Access to `CpuState`: never faults, aligned.
pub(super) const STATE: MemFlagsData = MemFlagsData::trusted();

/// How a register lives between blocks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// One variable of the register's type.
    Whole,
    /// A vector register in two variables: the lowest lane as this float type, and a vector with the other lanes.
    Split(Type),
    /// A general register in two variables: all 64 bits, and the low 32. Where the upper bits are known to be zero only the second
    /// is used, because AArch64 spends an instruction on each zero extension that it cannot fold into a use. Operands of deferred flags
    /// are narrow on every host: they are extended only where the flags are wanted.
    Narrow,
}

/// The registers while a region is lowered.
pub(super) struct RegFile {
    forms: [Form; Reg::COUNT],
    /// The whole register, or the lanes above the lowest.
    variables: [Option<Variable>; Reg::COUNT],
    /// The lowest lane of a split register, the low half of a narrow one.
    lows: [Option<Variable>; Reg::COUNT],
    pub(super) dirty: RegSet,
    /// Narrow registers whose upper 32 bits are zero here.
    zero_above: RegSet,
    /// Upper halves of vector registers that are zero here, and those that may be what they were at the entry.
    zero: RegSet,
    zero_or_kept: RegSet,
    /// In this block: what the variable of the lanes above the lowest holds, as far as it was looked at.
    rest: [Option<clif::Value>; Reg::COUNT],
    /// In this block: the narrow value whose zero extension the register holds, or the scalar in its lowest lane.
    low: [Option<clif::Value>; Reg::COUNT],
}

impl RegFile {
    pub(super) fn new(region: &Region, arch: Arch) -> Self {
        Self {
            forms: forms(region, arch),
            variables: [None; Reg::COUNT],
            lows: [None; Reg::COUNT],
            dirty: RegSet::default(),
            zero_above: RegSet::default(),
            zero: RegSet::default(),
            zero_or_kept: RegSet::default(),
            rest: [None; Reg::COUNT],
            low: [None; Reg::COUNT],
        }
    }

    /// Whether any register is split.
    pub(super) fn splits(&self) -> bool {
        self.forms.iter().any(|f| matches!(f, Form::Split(_)))
    }
}

/// Splits the vector registers that the region mostly uses as scalars of one float type, and narrows the general ones that it writes
/// as 32 bits.
fn forms(region: &Region, arch: Arch) -> [Form; Reg::COUNT] {
    let mut narrow = RegSet::default();
    for inst in region.insts.iter().filter(|i| i.op == Op::Put) {
        let cheap = arch == Arch::X86_64 && !DEFERRED.contains(register(inst));
        if inst.ty == Type::I32 && register(inst).ty() == Type::I64 && !cheap {
            narrow.insert(register(inst));
        }
    }
    let mut uses = [[0u32; 3]; Reg::COUNT];
    for (i, inst) in region.insts.iter().enumerate().filter(|(_, i)| matches!(i.op, Op::Get | Op::Put)) {
        let used_as = match inst.op {
            Op::Get if inst.ty.is_vector() => whole_read(region, i),
            Op::Get => Some(inst.ty),
            _ => scalar_put(&region.insts[inst.args[0] as usize]),
        };
        let kind = match used_as {
            None => continue,
            Some(Type::F32) => 0,
            Some(Type::F64) => 1,
            Some(_) => 2,
        };
        uses[inst.aux as usize][kind] += 1;
    }
    std::array::from_fn(|reg| match uses[reg] {
        _ if Reg::from_index(reg).is_some_and(|r| narrow.contains(r)) => Form::Narrow,
        _ if !Reg::from_index(reg).is_some_and(|r| r.ty().is_vector()) => Form::Whole,
        [single, double, other] if single > double + other => Form::Split(Type::F32),
        [single, double, other] if double > single + other => Form::Split(Type::F64),
        _ => Form::Whole,
    })
}

/// As what a `put` of a vector that `def` defines uses a register: as the scalar that is put into the lowest lane, or as a whole. Copies and
/// constants go with either form.
fn scalar_put(def: &Inst) -> Option<Type> {
    match def.op {
        Op::ScalarToVector if def.ty.is_float() => Some(def.ty.lane()),
        Op::InsertLane if def.ty.is_float() && def.aux == 0 => Some(def.ty.lane()),
        Op::Get | Op::Vconst => None,
        _ => Some(def.ty),
    }
}

/// As what the vector that instruction `at` reads is used: as its lowest lane, if a scalar is taken from there; as neither scalar nor vector
/// if it is only copied, or only wanted to replace its lowest lane by a float. The next uses say so within a few instructions, or it
/// counts as a use of the whole.
fn whole_read(region: &Region, at: usize) -> Option<Type> {
    const REACH: usize = 16;
    let whole = Some(region.insts[at].ty);
    let uses = region.insts[at + 1..].iter().take(REACH).filter(|i| i.uses().any(|v| v.0 as usize == at));
    let (mut found, mut scalar) = (false, None);
    for user in uses {
        match user.op {
            Op::ExtractLane if user.ty.is_float() && user.aux == 0 => scalar = Some(user.ty.lane()),
            Op::Put => {}
            _ if replaces_low(user, at) => {}
            _ => return whole,
        }
        found = true;
    }
    if found { scalar } else { whole }
}

/// Whether an instruction puts a float into the lowest lane of vector `v`, and does not use it otherwise.
fn replaces_low(user: &Inst, v: usize) -> bool {
    user.op == Op::InsertLane && user.aux == 0 && user.ty.is_float() && user.args[0] as usize == v
}

impl Lowering<'_> {
    fn variable(&mut self, reg: Reg) -> Variable {
        let slot = &mut self.regs.variables[reg.index()];
        *slot.get_or_insert_with(|| self.b.declare_var(clif_type(reg.ty())))
    }

    pub(super) fn low_variable(&mut self, reg: Reg, ty: Type) -> Variable {
        let slot = &mut self.regs.lows[reg.index()];
        *slot.get_or_insert_with(|| self.b.declare_var(clif_type(ty)))
    }

    /// Takes the registers that come in host registers.
    pub(super) fn define_arguments(&mut self, arguments: &[clif::Value]) {
        for (reg, &value) in ARGUMENTS.into_iter().zip(arguments) {
            self.define(reg, Val::Plain(value));
        }
    }

    /// The arguments for the next region.
    pub(super) fn arguments(&mut self) -> Vec<clif::Value> {
        let cpu = self.cpu;
        let registers = ARGUMENTS.map(|reg| {
            let value = self.read(reg);
            self.whole_of(value)
        });
        std::iter::once(cpu).chain(registers).collect()
    }

    /// Loads what else the region needs of the registers (invariant 2).
    pub(super) fn load_registers(&mut self) {
        for reg in self.sets.live_in[0].iter().filter(|reg| !ARGUMENTS.contains(reg)) {
            let value = self.load_state(clif_type(reg.ty()), CpuState::offset_of(reg));
            self.define(reg, Val::Plain(value));
        }
    }

    /// Starts a block with what flows into it.
    pub(super) fn enter_block(&mut self, id: BlockId) {
        self.regs.dirty = self.sets.dirty_in[id.0 as usize];
        self.regs.zero_above = self.sets.zero_above_in[id.0 as usize];
        self.regs.zero = self.sets.zero_in[id.0 as usize];
        self.regs.zero_or_kept = self.sets.zero_or_kept_in[id.0 as usize];
        self.regs.low = [None; Reg::COUNT];
        self.regs.rest = [None; Reg::COUNT];
    }

    /// Stores the dirty ones of the `wanted` registers; they remain dirty on the path that goes on.
    pub(super) fn store_dirty(&mut self, wanted: RegSet) {
        let stored = self.regs.dirty.intersection(wanted);
        let kept = stored.intersection(self.regs.zero_or_kept);
        let others = !stored.intersection(RegSet::UPPER_HALVES).without(kept).is_empty();
        let tested = if others || kept.len() <= MOST_STORED { RegSet::default() } else { kept };
        self.store_registers(stored.without(tested));
        if others {
            // Any value but 0.
            self.store_state(self.cpu, UPPER_HALVES);
        } else if !tested.is_empty() {
            let upper_halves = self.load_state(types::I64, UPPER_HALVES);
            let (store, on) = self.branch_off(upper_halves);
            self.b.switch_to_block(store);
            self.store_registers(tested);
            let left = self.regs.dirty.intersection(RegSet::UPPER_HALVES).without(wanted);
            if self.regs.zero == RegSet::UPPER_HALVES && left.is_empty() {
                let none = self.iconst(types::I64, 0);
                self.store_state(none, UPPER_HALVES);
            }
            self.b.ins().jump(on, &[]);
            self.b.switch_to_block(on);
        }
    }

    /// The same where the region leaves to code that finds the flags that it wants in their registers. Tier 0 may have left to the region
    /// with flags deferred: that ends with the region's first `put` of flags.
    pub(super) fn store_to_leave(&mut self, wanted: RegSet) {
        self.store_dirty(wanted);
        if self.regs.dirty.contains(Reg::FLAGS_KIND) && !wanted.contains(Reg::FLAGS_KIND) {
            let none = self.iconst(types::I32, 0);
            self.store_state(none, CpuState::offset_of(Reg::FLAGS_KIND));
        }
    }

    fn store_registers(&mut self, regs: RegSet) {
        for reg in regs.iter() {
            let value = self.read(reg);
            let value = self.whole_of(value);
            self.store_state(value, CpuState::offset_of(reg));
        }
    }

    /// Stores the dirty registers before an access to guest memory, in precise mode (invariant 4).
    pub(super) fn before_access(&mut self) {
        if self.options.state_at_faults != StateAtFaults::PcOnly {
            self.store_dirty(RegSet::ALL);
            self.regs.dirty = RegSet::default();
        }
    }

    pub(super) fn load_state(&mut self, ty: clif::Type, offset: usize) -> clif::Value {
        self.b.ins().load(ty, STATE, self.cpu, offset as i32)
    }

    pub(super) fn store_state(&mut self, value: clif::Value, offset: usize) {
        self.b.ins().store(STATE, value, self.cpu, offset as i32);
    }

    /// The whole register.
    fn read(&mut self, reg: Reg) -> Val {
        if self.regs.forms[reg.index()] == Form::Narrow && self.regs.zero_above.contains(reg) {
            let low = self.low_variable(reg, Type::I32);
            let low = self.b.use_var(low);
            return Val::Plain(self.b.ins().uextend(types::I64, low));
        }
        let rest = self.read_rest(reg);
        match self.regs.forms[reg.index()] {
            Form::Whole | Form::Narrow => Val::Plain(rest),
            Form::Split(ty) => {
                let low = self.low_variable(reg, ty);
                Val::Split(Split { low: self.b.use_var(low), rest, zero_above: false })
            }
        }
    }

    /// The variable of the whole register, or of the lanes above the lowest.
    fn read_rest(&mut self, reg: Reg) -> clif::Value {
        let variable = self.variable(reg);
        let rest = self.b.use_var(variable);
        self.regs.rest[reg.index()] = Some(rest);
        rest
    }

    /// Sets the whole register.
    fn define(&mut self, reg: Reg, value: Val) {
        let variable = self.variable(reg);
        let Form::Split(ty) = self.regs.forms[reg.index()] else {
            let whole = self.whole_of(value);
            if self.regs.forms[reg.index()] == Form::Narrow {
                let low = self.b.ins().ireduce(types::I32, whole);
                let low_variable = self.low_variable(reg, Type::I32);
                self.b.def_var(low_variable, low);
                self.regs.zero_above.remove(reg);
            }
            let whole = if reg.ty().is_vector() { self.view(whole, types::I8X16) } else { whole };
            return self.b.def_var(variable, whole);
        };
        let (low, rest) = match value {
            Val::Split(split) if self.b.func.dfg.value_type(split.low) == clif_type(ty) => (split.low, split.rest),
            other => {
                let whole = self.whole_of(other);
                let lanes = self.view(whole, if ty == Type::F32 { types::F32X4 } else { types::F64X2 });
                (self.b.ins().extractlane(lanes, 0), whole)
            }
        };
        let low_variable = self.low_variable(reg, ty);
        self.b.def_var(low_variable, low);
        self.note_low(reg, ty, low);
        let rest = self.view(rest, types::I8X16);
        if self.regs.rest[reg.index()].replace(rest) != Some(rest) {
            self.b.def_var(variable, rest);
        }
    }

    fn whole_of(&mut self, value: Val) -> clif::Value {
        match value {
            Val::Plain(whole) => whole,
            Val::Split(split) => self.join(split),
        }
    }

    /// `Op::Get`.
    pub(super) fn get(&mut self, inst: &Inst) -> Val {
        let reg = register(inst);
        if !is_variable(reg) {
            return Val::Plain(self.get_fp_control());
        }
        if inst.ty == reg.ty() {
            // Not reading the lowest lane keeps it from travelling through blocks where nobody wants it.
            return if self.low_is_replaced(reg) { Val::Plain(self.read_rest(reg)) } else { self.read(reg) };
        }
        let ty = clif_type(inst.ty);
        if let Some(low) = self.regs.low[reg.index()].filter(|&v| self.b.func.dfg.value_type(v).bits() == ty.bits()) {
            return Val::Plain(self.bits_of(low, ty));
        }
        Val::Plain(if reg.ty().is_vector() { self.get_lowest_lane(reg, inst.ty) } else { self.get_low_bits(reg, ty) })
    }

    /// A scalar as one of another type and the same size.
    pub(super) fn bits_of(&mut self, scalar: clif::Value, ty: clif::Type) -> clif::Value {
        if self.b.func.dfg.value_type(scalar) == ty {
            return scalar;
        }
        let scalar = self.settled(scalar);
        self.b.ins().bitcast(ty, LANES, scalar)
    }

    /// Whether the only use of the vector that is being read replaces the lowest lane that the register keeps apart.
    fn low_is_replaced(&self, reg: Reg) -> bool {
        let Form::Split(low) = self.regs.forms[reg.index()] else { return false };
        let user = self.users.only(self.at).map(|user| &self.region.insts[user]);
        user.is_some_and(|user| replaces_low(user, self.at) && low.bits() <= user.ty.lane().bits())
    }

    fn get_lowest_lane(&mut self, reg: Reg, ty: Type) -> clif::Value {
        if let Form::Split(low) = self.regs.forms[reg.index()]
            && low.bits() == ty.bits()
        {
            let variable = self.low_variable(reg, low);
            let low = self.b.use_var(variable);
            return self.bits_of(low, clif_type(ty));
        }
        let value = self.read(reg);
        let whole = self.whole_of(value);
        let shape = match ty {
            Type::I32 => types::I32X4,
            Type::I64 => types::I64X2,
            Type::F32 => types::F32X4,
            _ => types::F64X2,
        };
        let lanes = self.view(whole, shape);
        self.b.ins().extractlane(lanes, 0)
    }

    fn get_low_bits(&mut self, reg: Reg, ty: clif::Type) -> clif::Value {
        let low = self.regs.low[reg.index()].filter(|&low| self.b.func.dfg.value_type(low).bits() >= ty.bits());
        let from = low.unwrap_or_else(|| {
            let variable = match self.regs.forms[reg.index()] {
                Form::Narrow => self.low_variable(reg, Type::I32),
                _ => self.variable(reg),
            };
            self.b.use_var(variable)
        });
        self.narrow(from, ty)
    }

    /// `Op::Put`.
    pub(super) fn put(&mut self, inst: &Inst) {
        let reg = register(inst);
        let v = IrValue(inst.args[0]);
        if !is_variable(reg) {
            let value = self.value(v);
            return self.put_fp_control(value);
        }
        let mut value = match self.val(v) {
            Val::Plain(_) => Val::Plain(self.value(v)), // checked
            split => split,
        };
        let mut low = None;
        if reg.ty().is_vector() {
            low = self.low_lane(inst.args[0]);
        } else if inst.ty == Type::I32 && reg.ty() == Type::I64 {
            let narrow = self.value(v);
            (value, low) = (Val::Plain(self.zero_extended(narrow, types::I64)), Some(narrow));
        }
        self.define(reg, value);
        let zeroed = zeroes_upper_half(self.region, inst);
        self.regs.zero.set(reg, zeroed);
        self.regs.zero_or_kept.set(reg, zeroed);
        if let (Form::Narrow, Some(low)) = (self.regs.forms[reg.index()], low) {
            let variable = self.low_variable(reg, Type::I32);
            self.b.def_var(variable, low);
            self.regs.zero_above.insert(reg);
        }
        self.regs.low[reg.index()] = low;
        self.regs.dirty.insert(reg);
    }

    /// What `reg` holds in its lowest lane has been checked, and is this.
    pub(super) fn checked_low(&mut self, reg: Reg, raw: clif::Value, checked: clif::Value) {
        let low = &mut self.regs.low[reg.index()];
        if *low == Some(raw) {
            *low = Some(checked);
        }
    }

    /// The scalar that was just put into the lowest lane of a vector.
    fn low_lane(&self, v: u32) -> Option<clif::Value> {
        if let Val::Split(split) = self.val(IrValue(v)) {
            return Some(split.low);
        }
        let def = self.def(v);
        let slot = match def.op {
            Op::ScalarToVector => 0,
            Op::InsertLane if def.aux == 0 => 1,
            _ => return None,
        };
        match self.val(IrValue(def.args[slot])) {
            Val::Plain(scalar) => Some(scalar),
            Val::Split(_) => None,
        }
    }

    /// A value of `ty` whose bits are those of `v`, in the same kind of host register.
    pub(super) fn opaque(&mut self, v: clif::Value) -> clif::Value {
        let ty = self.b.func.dfg.value_type(v);
        self.b.ins().bitcast(ty, LANES, v)
    }
}
