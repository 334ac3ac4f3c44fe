//! Ways out of a block: to other blocks, to the dispatcher, to a fault.
//!
//! A direct exit is a branch to its *way out* behind the block, which goes on through the exit's cell; once the target is known and near, the
//! cache makes the branch itself go there (`cache`, I5). Computed jumps probe the thread's jump cache, which knows code that takes deferred
//! flags; the way out of a probe that fails looks for code that wants them ready.
//!
//! Every cycle of guest code passes a **countdown**: backward jumps, calls, computed jumps and returns decrement a register and take the
//! slow way out when it turns negative. So an interrupted thread gets to a safepoint soon without looking at memory each time,
//! and the dispatcher, which starts the countdown again, samples which loops and functions are hot.

use super::encode::{self as e, Cond, Size, V, X};
use super::entry::Stub;
use super::regs::{CELLS, COUNTDOWN, Held, JUMPS, Loc};
use super::{Bug, Cold, EmitError, EmittedExit, Emitter, Label, Reach, plan};
use crate::abi::{self, Leave};
use crate::jump_cache;
use calque_ir::{BlockId, CpuState, Exit, FaultKind, GuestAddr, Inst, Op, Target, Type, Value};
use std::mem::offset_of;

/// What stands behind the block.
#[derive(Clone, Copy)]
pub(super) enum ColdPath {
    /// To the dispatcher with this word, at the path's pc.
    Leave(u64),
    /// To where a computed jump's target, in this register, is looked for.
    Resolve(X),
    /// To the dispatcher with the number of an exit's cell, linked or not.
    Tick(u32),
    /// A direct exit of a region; whether it may close a cycle.
    Exit { to: GuestAddr, counted: bool },
    /// Gives a scalar NaN x86's payload and sign: result, operands, how many of them count.
    Nan { double: bool, r: V, operands: [V; 3], count: u8 },
    /// The same for lanes.
    LaneNans { double: bool, r: V, operands: [V; 3], count: u8 },
}

impl Emitter {
    /// The exit of the current block; block `next` is emitted behind it.
    pub(super) fn exit(&mut self, exit: Exit, next: u32) -> Result<(), EmitError> {
        match exit {
            Exit::Goto(target) | Exit::Call { target: target @ Target::Block(_), .. } => {
                self.leave_to(target, next);
                Ok(())
            }
            Exit::Call { target: Target::Pc(pc), .. } => {
                self.goto(pc, true);
                Ok(())
            }
            Exit::Branch { cond, taken, fallthrough } => self.conditional(cond, taken, fallthrough, next),
            Exit::Indirect(v) | Exit::Return(v) | Exit::CallIndirect { target: v, .. } => self.computed(v, next),
            Exit::Syscall { next } => self.leave_at(Leave::Syscall as u64, next),
            Exit::Fault { kind, pc } => self.leave_at(abi::leave_fault(kind, 0), pc),
            Exit::None => Err(EmitError::Internal(Bug::NoExit)),
        }
    }

    /// A known way out of the current block; block `next` is emitted behind it.
    fn leave_to(&mut self, target: Target, next: u32) {
        match target {
            Target::Block(to) if to.0 < next => self.go_back_to(to),
            Target::Block(to) if to.0 == next => {}
            Target::Block(to) => {
                let label = self.block_label(to.0);
                self.branch(e::b(0), Reach::Bits26, label);
            }
            Target::Pc(pc) => self.goto(pc, self.may_close(pc)),
        }
    }

    /// Whether a jump from the current instruction to `pc` may close a cycle.
    fn may_close(&self, pc: GuestAddr) -> bool {
        pc.0 <= self.pc.0
    }

    /// A direct exit; `counted` if it may close a cycle.
    fn goto(&mut self, pc: GuestAddr, counted: bool) {
        if counted && pc == self.entry_pc {
            return self.go_back_to(BlockId(0));
        }
        if counted {
            let tick = self.cold(ColdPath::Tick(self.next_cell()));
            self.word(e::op_imm(e::SUBS_IMM, Size::W, X(COUNTDOWN), X(COUNTDOWN), 1).expect("one"));
            self.branch(e::b_cond(Cond::Mi, 0), Reach::Bits19, tick);
        }
        self.exits.push(EmittedExit { target: pc, branch: Some(self.code.len() as u32) });
        self.word(e::b(0));
    }

    /// Straight back to a block of the region; out through a cell only when the countdown ends.
    fn go_back_to(&mut self, to: BlockId) {
        let cell = self.next_cell();
        self.exits.push(EmittedExit { target: self.block_pcs[to.0 as usize], branch: None });
        self.word(e::op_imm(e::SUB_IMM, Size::W, X(COUNTDOWN), X(COUNTDOWN), 1).expect("one"));
        let label = self.block_label(to.0);
        self.branch(e::tb(false, X(COUNTDOWN), 31, 0), Reach::Bits14, label);
        self.tick(cell);
    }

    /// The cell of the exit that is made next.
    fn next_cell(&self) -> u32 {
        self.options.first_cell + self.exits.len() as u32
    }

    fn conditional(&mut self, v: Value, taken: Target, fallthrough: Target, next: u32) -> Result<(), EmitError> {
        match (taken, fallthrough) {
            (Target::Block(to), _) if to.0 < next => {
                let other = self.label();
                self.branch_unless(v, other)?;
                self.go_back_to(to);
                self.place(other);
                self.leave_to(fallthrough, next);
            }
            (Target::Block(to), _) => {
                let then = self.block_label(to.0);
                self.branch_if(v, then)?;
                self.leave_to(fallthrough, next);
            }
            (Target::Pc(to), Target::Block(_)) => {
                let then = self.cold(ColdPath::Exit { to, counted: self.may_close(to) });
                self.branch_if(v, then)?;
                self.leave_to(fallthrough, next);
            }
            (Target::Pc(_), Target::Pc(_)) => {
                let then = self.label();
                self.branch_if(v, then)?;
                self.leave_to(fallthrough, next);
                self.place(then);
                self.leave_to(taken, next);
            }
        }
        Ok(())
    }

    /// Branches to `label` unless the condition holds.
    fn branch_unless(&mut self, v: Value, label: Label) -> Result<(), EmitError> {
        if let Some(imm) = self.as_imm(v) {
            if imm & 1 == 0 {
                self.branch(e::b(0), Reach::Bits26, label);
            }
            return Ok(());
        }
        self.branch_if(v, label)?;
        let branch = self.code.last_mut().ok_or(EmitError::Internal(Bug::NoExit))?;
        *branch = e::inverted(*branch);
        Ok(())
    }

    /// Branches to `label` if the condition holds.
    fn branch_if(&mut self, v: Value, label: Label) -> Result<(), EmitError> {
        if let Some(imm) = self.as_imm(v) {
            if imm & 1 != 0 {
                self.branch(e::b(0), Reach::Bits26, label);
            }
            return Ok(());
        }
        if self.val(v).loc != Loc::Flags {
            let x = self.x(v)?;
            self.branch(e::cb(true, Size::W, x, 0), Reach::Bits19, label);
            return Ok(());
        }
        let inst = self.insts[v.0 as usize];
        if inst.op == Op::Icmp && self.branch_on_zero(&inst, label)? {
            return Ok(());
        }
        if inst.op == Op::Fcmp
            && let Some(s) = self.flag_without_flags(v)?
        {
            self.branch(e::cb(true, Size::W, s, 0), Reach::Bits19, label);
            return Ok(());
        }
        let cond = self.flags(v)?;
        self.branch(e::b_cond(cond, 0), Reach::Bits19, label);
        Ok(())
    }

    /// Comparisons with zero that are one instruction with their branch: equality, and the sign. Whether it was one.
    fn branch_on_zero(&mut self, inst: &Inst, label: Label) -> Result<bool, EmitError> {
        use calque_ir::Cc;
        let (a, cc) = (Value(inst.args[0]), Cc::from_code(inst.aux));
        if self.as_imm(Value(inst.args[1])) != Some(0) || self.as_imm(a).is_some() {
            return Ok(false);
        }
        let size = super::size_of(inst.ty);
        match cc {
            Cc::Equal | Cc::NotEqual if self.val(a).loc == Loc::Flags => {
                self.branch_on_bit(a, cc == Cc::NotEqual, label)
            }
            Cc::Equal | Cc::NotEqual if inst.ty.bits() >= 32 || u32::from(self.val(a).zx) <= inst.ty.bits() => {
                let x = self.x(a)?;
                self.branch(e::cb(cc == Cc::NotEqual, size, x, 0), Reach::Bits19, label);
                Ok(true)
            }
            Cc::SignedLessThan | Cc::SignedGreaterThanOrEqual if self.val(a).loc != Loc::Flags => {
                let x = self.x(a)?;
                let bit = inst.ty.bits() - 1;
                self.branch(e::tb(cc == Cc::SignedLessThan, x, bit, 0), Reach::Bits14, label);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// A test of one bit of a deferred `band`.
    fn branch_on_bit(&mut self, v: Value, nonzero: bool, label: Label) -> Result<bool, EmitError> {
        let inst = self.insts[v.0 as usize];
        let (mut a, mut b) = (Value(inst.args[0]), Value(inst.args[1]));
        if self.as_imm(a).is_some() {
            std::mem::swap(&mut a, &mut b);
        }
        if a == b && matches!(inst.ty, Type::I32 | Type::I64) {
            let x = self.x(a)?;
            self.branch(e::cb(nonzero, super::size_of(inst.ty), x, 0), Reach::Bits19, label);
            return Ok(true);
        }
        let Some(imm) = self.as_imm(b).filter(|imm| imm.is_power_of_two()) else { return Ok(false) };
        let x = self.x(a)?;
        self.branch(e::tb(nonzero, x, imm.trailing_zeros(), 0), Reach::Bits14, label);
        Ok(true)
    }

    /// A jump to a computed pc, which is compared with those of the blocks that it is predicted to lead to; block `next` is emitted behind this.
    fn computed(&mut self, v: Value, next: u32) -> Result<(), EmitError> {
        let pc = self.x(v)?;
        let known_pc = if pc == X(16) { X(17) } else { X(16) };
        self.held = Held::Nothing;
        let from = BlockId(next - 1);
        let first = self.predicted.partition_point(|edge| edge.0 < from);
        for n in first..self.predicted.len() {
            let (_, to) = self.predicted[n];
            if self.predicted[n].0 != from {
                break;
            }
            let known = self.literal([self.block_pcs[to.0 as usize].0, 0], 8);
            self.branch(e::ldr_literal(known_pc, 0), Reach::Bits19, known);
            self.word(e::op3(e::SUBS, Size::X, e::ZR, known_pc, pc));
            if to.0 < next {
                let another = self.label();
                self.branch(e::b_cond(Cond::Ne, 0), Reach::Bits19, another);
                self.go_back_to(to);
                self.place(another);
            } else {
                let there = self.block_label(to.0);
                self.branch(e::b_cond(Cond::Eq, 0), Reach::Bits19, there);
            }
        }
        if self.options.precise_everywhere {
            self.put_sunk()?;
        }
        self.indirect(v)
    }

    /// Defers the flags of a block whose exit has not needed that so far.
    fn put_sunk(&mut self) -> Result<(), EmitError> {
        for n in 0..self.sunk.len() {
            self.at = self.sunk[n];
            let (inst, fate) = (self.insts[self.at], self.plan.fates[self.at]);
            self.regs.next_inst(fate.ends, fate.home, false);
            self.put(&inst)?;
            self.end_inst();
        }
        self.sunk.clear();
        self.regs.next_inst(0, plan::NO_HOME, true);
        Ok(())
    }

    /// A jump to a computed pc: straight to its code if the thread's jump cache knows it. Flags are dead there, but for what lets deferred ones
    /// through where all code is precise.
    fn indirect(&mut self, v: Value) -> Result<(), EmitError> {
        self.regs.next_inst(0, plan::NO_HOME, true);
        let pc = self.x(v)?;
        let (s, t) = if pc == X(16) { (X(17), X(0)) } else { (X(16), X(17)) };
        let miss = if self.sunk.is_empty() { self.cold(ColdPath::Resolve(pc)) } else { self.label() };
        self.word(e::op_imm(e::SUBS_IMM, Size::W, X(COUNTDOWN), X(COUNTDOWN), 1).expect("one"));
        self.branch(e::b_cond(Cond::Mi, 0), Reach::Bits19, miss);
        self.word(e::op3_lsr(e::EOR, Size::X, s, pc, pc, jump_cache::SHIFT));
        // Bits 4..16 of the table's address, which is a multiple of its size.
        self.word(e::op_field(e::BFM, Size::X, JUMPS, s, 60, jump_cache::ENTRIES.ilog2() - 1));
        self.word(e::ldp(s, t, JUMPS));
        self.word(e::op3(e::SUBS, Size::X, e::ZR, s, pc));
        self.branch(e::b_cond(Cond::Ne, 0), Reach::Bits19, miss);
        self.word(e::br(t));
        if !self.sunk.is_empty() {
            self.place(miss);
            self.put_sunk()?;
            let pc = self.x(v)?;
            self.resolve(pc, self.pc);
        }
        Ok(())
    }

    /// To where the target of the jump at `from`, in register `pc`, is looked for.
    fn resolve(&mut self, pc: X, from: GuestAddr) {
        if pc != X(16) {
            self.mov(Size::X, X(16), pc);
        }
        self.mov_imm(X(17), from.0);
        self.store_state(e::Access::STRX, 17, offset_of!(CpuState, rt.jump));
        self.through(Stub::Resolve.cell());
    }

    /// Back to the dispatcher, which goes on at `pc`.
    fn leave_at(&mut self, word: u64, pc: GuestAddr) -> Result<(), EmitError> {
        self.mov_imm(X(16), pc.0);
        self.leave(word);
        Ok(())
    }

    /// The same, with the pc in x16.
    fn leave(&mut self, word: u64) {
        self.mov_imm(X(17), word);
        self.through(Stub::Leave.cell());
    }

    /// Out to have an exit counted.
    fn tick(&mut self, cell: u32) {
        self.cell_number(cell);
        self.through(Stub::Link.cell());
    }

    /// Puts the number of a cell into x17.
    fn cell_number(&mut self, cell: u32) {
        self.numbers.push(self.code.len() as u32);
        self.mov_imm(X(17), u64::from(cell));
    }

    /// Jumps through one of the fixed cells.
    fn through(&mut self, cell: u32) {
        self.word(e::access(e::Access::LDRX, 0, e::At::Disp(CELLS, 8 * cell as i32)));
        self.word(e::br(X(0)));
    }

    /// `Op::FaultIf`.
    #[inline(never)]
    pub(super) fn fault_if(&mut self, inst: &Inst) -> Result<(), EmitError> {
        let label = self.fault_label(FaultKind::from_code(inst.aux));
        self.branch_if(Value(inst.args[0]), label)
    }

    /// Raises a fault of the current instruction if `cond` holds now.
    pub(super) fn fault_on(&mut self, cond: Cond, kind: FaultKind) -> Result<(), EmitError> {
        let label = self.fault_label(kind);
        self.branch(e::b_cond(cond, 0), Reach::Bits19, label);
        Ok(())
    }

    /// Where the current instruction's fault is raised.
    pub(super) fn fault_label(&mut self, kind: FaultKind) -> Label {
        self.cold(ColdPath::Leave(abi::leave_fault(kind, self.counter_ahead())))
    }

    /// Code of the current instruction behind the block.
    pub(super) fn cold(&mut self, what: ColdPath) -> Label {
        let label = self.label();
        self.cold.push(Cold { label, back: None, pc: self.pc, what });
        label
    }

    /// The same, for a path that comes back here, with all general registers as they were, and those of vectors but what a look at lanes takes.
    pub(super) fn cold_and_back(&mut self, what: ColdPath, cond: Cond) {
        let (label, back) = (self.label(), self.label());
        self.cold.push(Cold { label, back: Some(back), pc: self.pc, what });
        self.branch(e::b_cond(cond, 0), Reach::Bits19, label);
        let (held, holds_zero) = (self.held, self.holds_zero && matches!(what, ColdPath::Nan { .. }));
        self.place(back);
        (self.held, self.holds_zero) = (held, holds_zero);
    }

    /// The ways out of the direct exits, through their cells.
    pub(super) fn finish_exits(&mut self) {
        for n in 0..self.exits.len() {
            let Some(branch) = self.exits[n].branch else { continue };
            let distance = self.code.len() as i32 - branch as i32;
            self.code[branch as usize] = e::b(distance);
            let (number, code) = (X(17), X(16));
            self.cell_number(self.options.first_cell + n as u32);
            self.word(e::access(e::Access::LDRX, code.0, e::At::Index(CELLS, number, true)));
            self.word(e::br(code));
        }
    }

    pub(super) fn finish_cold(&mut self) -> Result<(), EmitError> {
        let mut n = 0;
        while n < self.cold.len() {
            let cold = self.cold[n];
            n += 1;
            self.place(cold.label);
            match cold.what {
                ColdPath::Leave(word) => self.leave_at(word, cold.pc)?,
                ColdPath::Resolve(pc) => self.resolve(pc, cold.pc),
                ColdPath::Tick(cell) => self.tick(cell),
                ColdPath::Exit { to, counted } => self.goto(to, counted),
                ColdPath::Nan { double, r, operands, count } => self.nan(double, r, &operands[..count as usize]),
                ColdPath::LaneNans { double, r, operands, count } => {
                    self.lane_nans(double, r, &operands[..count as usize]);
                }
            }
            if let Some(back) = cold.back {
                self.branch(e::b(0), Reach::Bits26, back);
            }
        }
        Ok(())
    }
}
