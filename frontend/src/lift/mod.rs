//! The lifter: guest bytes to IR.
//!
//! `table.rs` maps each mnemonic to a *family* with arguments; a family is one function that speaks about operands
//! (`operand.rs`: read, write, modify, addr) and flags (`flags.rs`: recipes, conditions) and nothing else of the
//! encoding. [`lift_block`] lifts one guest block (for cold code, so it must be fast: no passes, no maps);
//! [`lift_region`] lifts the blocks that are reached from a pc over direct edges (`region.rs`).
//!
//! | file        | what                                                       |
//! |-------------|------------------------------------------------------------|
//! | `table.rs`  | all of x86 as rows                                         |
//! | `operand.rs`| operands, register widths, addresses                       |
//! | `flags.rs`  | deferred flags and conditions                              |
//! | `ahead.rs`  | which flags are still read behind an exit                  |
//! | `glance.rs` | what plain instructions do to flags, from their bytes      |
//! | `flow.rs`   | the same, exact for the blocks of a region                 |
//! | `edge.rs`   | flags that only one side of a branch reads                 |
//! | `region.rs` | discovery of a region's blocks                             |
//! | `unroll.rs` | several rounds of tiny loops                               |
//! | `floats.rs` | what depends on the control words of floating point        |
//! | `check.rs`  | blocks that compare their bytes first                      |
//! | the others  | the families by subject                                    |
//!
//! Invariants, besides those of `ir/src/region.rs`:
//! 1. A family either leaves a block open (control goes on at the next instruction) or closes it with
//!    [`Lifter::close`].
//! 2. Everything that may fault is emitted before the first `put` of the instruction; flags are deferred and so are
//!    always behind.
//! 3. In precise mode no flag is pending when an instruction that may fault starts: a fault finds all six in their registers, or
//!    deferred (`ir/src/deferred.rs`). Where only going on must be possible behind a fault, no flag is that may still be read.
//! 4. Nothing is silent: bytes that are no instruction raise #UD, instructions without a row
//!    [`FaultKind::Unimplemented`].

mod ahead;
mod align;
mod alu;
mod atomic;
mod avx;
mod bits;
mod calls;
mod check;
mod control;
mod edge;
mod flags;
mod floats;
mod flow;
mod glance;
mod mmx;
mod mov;
mod muldiv;
mod operand;
mod probe;
mod region;
mod selectors;
mod shift;
mod sse_float;
mod sse_int;
mod sse_move;
mod sse_shuffle;
mod sse_string;
mod string;
mod switches;
mod system;
pub mod table;
mod unroll;
mod vex;
mod x87;
mod xsave;

pub use ahead::{FlagMemo, takes_deferred};
pub use check::{Constants, MOST as MOST_CHECKED, extent as checked_extent, lift_checked};
pub use region::{EveryBlock, Profile, lift_region};

use crate::decode::{CodeReader, Decoded, Window};
use calque_ir::state::XCR0_AVX2;
use calque_ir::{BlockId, Builder, Exit, FaultKind, GuestAddr, Helper, Inst, Op, Region, Target, Type, Value};
pub(crate) use flags::Cond;
use flags::{FlagSet, Flags};
use flow::{FlagFlow, Live};
pub(crate) use operand::Gpr;
use operand::RegCache;

/// A decoded guest instruction.
pub(crate) type Insn = iced_x86::Instruction;

/// What may differ between translations of the same bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LiftOptions {
    /// All registers, flags too, are exact at every instruction that may fault.
    pub precise: bool,
    /// Of the flags, those that may still be read are: execution may go on at an instruction that has faulted.
    pub resumable: bool,
    /// All other code is precise, too: it keeps what says that flags are deferred true, so that they may be deferred wherever this code
    /// goes on or stops.
    pub precise_everywhere: bool,
    /// The same at instructions that compute with floats: where exceptions are unmasked.
    pub precise_floats: bool,
    /// Code that computes with floats asks first whether generated code can, and leaves if not (`floats.rs`).
    pub guarded_floats: bool,
    /// Minima and maxima flush denormals where comparisons do: for hosts that choose an operand as it is, where MXCSR has DAZ set.
    pub flushing: bool,
    /// Count executed guest instructions (`Op::Count`), and tell of calls, returns and jumps (`Helper::ProfileCall`...).
    pub profile: bool,
    /// Count blocks as profiles do, and tell of nothing.
    pub count: bool,
    /// Blocks end behind instructions that may store: those may change what follows.
    pub end_at_stores: bool,
    /// Where MOV's constants come from.
    pub constants: Constants,
    /// Most guest instructions of a block.
    pub block_insns: u32,
    /// Most guest instructions of a region.
    pub max_insns: u32,
    /// Most blocks of a region.
    pub max_blocks: u32,
    /// Regions take in the small functions that they call (`calls.rs`) and the cases of switches (`switches.rs`).
    pub into_calls: bool,
    /// Flags that a single block leaves to an unknown place are deferred, as those of a region are: whoever runs it must know
    /// which places take them so ([`takes_deferred`]).
    pub defers: bool,
    /// The state components that XGETBV shows, and that XSAVE and XRSTOR know.
    pub xcr0: u64,
}

impl LiftOptions {
    /// Whether calls may be edges of a region: not where each is told of, nor where flags must be exact.
    fn enters_calls(&self) -> bool {
        self.into_calls && !self.precise && !self.profile
    }

    /// Whether somebody sees how far an instruction has got that faults.
    fn shows_faults(&self) -> bool {
        self.precise || self.resumable
    }
}

impl Default for LiftOptions {
    /// Limits from the compile times of `docs/ARCHITECTURE.md`: regions beyond about 100 blocks cost more than they gain.
    fn default() -> Self {
        Self {
            precise: false,
            resumable: false,
            precise_everywhere: false,
            precise_floats: false,
            guarded_floats: false,
            flushing: false,
            profile: false,
            count: false,
            end_at_stores: false,
            constants: Constants::Compared,
            block_insns: 64,
            max_insns: 800,
            max_blocks: 100,
            into_calls: true,
            defers: false,
            xcr0: XCR0_AVX2,
        }
    }
}

/// Lifts the guest block at `pc`: up to the first instruction that transfers control.
pub fn lift_block(code: &dyn CodeReader, pc: GuestAddr, opts: &LiftOptions) -> Region {
    let mut lifted = Lifted::default();
    lifted.block(code, pc, opts);
    lifted.take()
}

/// A lifted block, whose memory the next one reuses: many blocks are lifted only to be emitted.
#[derive(Default)]
pub struct Lifted {
    b: Builder,
}

impl Lifted {
    /// Lifts the guest block at `pc`, as [`lift_block`] does.
    pub fn block(&mut self, code: &dyn CodeReader, pc: GuestAddr, opts: &LiftOptions) {
        self.b.clear();
        // At first as much as most blocks take: growing step by step costs more than lifting does.
        let insts = &mut self.b.region_mut().insts;
        if insts.capacity() == 0 {
            insts.reserve(64);
        }
        let mut l = Lifter::new(&mut self.b, code, opts);
        let block = l.b.create_block(pc);
        let end = l.lift_run(pc, block, opts.block_insns, |_| false);
        l.b.region_mut().source.push((pc, (end.0 - pc.0) as u32));
    }

    /// The block lifted last.
    pub fn region(&self) -> &Region {
        self.b.region()
    }

    /// The same, to be changed.
    pub fn region_mut(&mut self) -> &mut Region {
        self.b.region_mut()
    }

    /// The same for good.
    pub fn take(&mut self) -> Region {
        std::mem::take(&mut self.b).finish()
    }

    /// Instead, a block that was lifted otherwise.
    pub fn set(&mut self, region: Region) -> &mut Region {
        let own = self.b.region_mut();
        *own = region;
        own
    }
}

/// State of lifting one region.
pub(crate) struct Lifter<'a> {
    pub(crate) b: &'a mut Builder,
    pub(crate) regs: RegCache,
    pub(crate) flags: Flags,
    pub(crate) opts: &'a LiftOptions,
    /// Of the options, what is asked of each instruction: whether faults show state, whether something is counted, and whether more is to be
    /// done than to lift it, these two or other.
    shows: bool,
    counts: bool,
    attends: bool,
    /// Whether the open block computes with floats only if generated code can.
    guarded: bool,
    code: &'a dyn CodeReader,
    /// The block's bytes; it is seldom longer.
    window: ahead::Near,
    /// Which flags the region's blocks read; flags are deferred only where this is known.
    flow: Option<FlagFlow>,
    /// The instruction being lifted, and the one behind it.
    pub(crate) pc: GuestAddr,
    pub(crate) next: GuestAddr,
    count: Uncounted,
}

/// Guest instructions that the next `count` has to count.
#[derive(Default)]
struct Uncounted {
    /// Number of those that are complete, and pc of the first of them.
    done: u32,
    first: GuestAddr,
    /// Whether `Lifter::pc` has begun and is not complete yet.
    begun: bool,
}

impl<'a> Lifter<'a> {
    #[inline(always)]
    fn new(b: &'a mut Builder, code: &'a dyn CodeReader, opts: &'a LiftOptions) -> Self {
        let shows = opts.shows_faults() || opts.precise_floats;
        let counts = opts.profile || opts.count;
        Self {
            b,
            regs: RegCache::default(),
            flags: Flags::default(),
            opts,
            shows,
            counts,
            attends: shows || counts || opts.guarded_floats || opts.end_at_stores,
            guarded: false,
            code,
            window: Window::new(),
            flow: None,
            pc: GuestAddr(0),
            next: GuestAddr(0),
            count: Uncounted::default(),
        }
    }

    /// The region, with the guest ranges (start, end) it was made of.
    fn finish(self, mut runs: Vec<(GuestAddr, GuestAddr)>) -> Region {
        let mut region = std::mem::take(self.b).finish();
        runs.sort_unstable();
        for (start, end) in runs {
            let len = (end.0 - start.0) as u32;
            match region.source.last_mut() {
                Some((s, n)) if s.0 + u64::from(*n) >= start.0 => *n = (*n).max((end.0 - s.0) as u32),
                _ => region.source.push((start, len)),
            }
        }
        region
    }

    /// Fills `block` with the instructions from `pc` to the first that transfers control, at most `limit`, stopping
    /// before the first for which `stop` holds. Yields the pc behind the last.
    fn lift_run(
        &mut self,
        pc: GuestAddr,
        block: BlockId,
        limit: u32,
        mut stop: impl FnMut(GuestAddr) -> bool,
    ) -> GuestAddr {
        self.open(block);
        let (mut insn, mut at, mut lifted) = (Insn::default(), pc, 0);
        loop {
            let what = self.window.decode(self.code, at, &mut insn);
            if lifted > 0 && (lifted == limit || what == Decoded::Unfetchable || stop(at) || self.leaves_function(at)) {
                self.go_on_at(at);
                return at;
            }
            self.lift_insn(what, &insn);
            lifted += 1;
            at = at.wrapping_add(insn.len().max(1) as u64);
            if self.attends && self.b.current().is_some() {
                self.attend_behind(&insn);
            }
            if self.b.current().is_none() {
                return at;
            }
        }
    }

    #[inline(always)]
    fn lift_insn(&mut self, what: Decoded, i: &Insn) {
        self.pc = GuestAddr(i.ip());
        self.next = GuestAddr(i.next_ip());
        // Before the mark: what is done there is of the instructions above.
        if self.attends {
            self.attend_before(i);
        }
        self.b.insn(self.pc, i.len() as u32);
        if self.attends {
            self.attend(i);
        }
        match what {
            Decoded::Insn => table::lift(self, i),
            Decoded::Invalid => self.fault(FaultKind::InvalidOpcode),
            Decoded::Unfetchable => self.fault(FaultKind::Fetch),
        }
    }

    /// What options ask for in front of an instruction.
    #[inline(never)]
    fn attend_before(&mut self, i: &Insn) {
        if self.opts.guarded_floats {
            self.guard_floats(i);
        }
        if self.shows {
            self.show_before(i);
        }
    }

    /// What they ask for before the instruction does anything.
    #[inline(never)]
    fn attend(&mut self, i: &Insn) {
        if self.counts {
            if goes_on_in_blocks(i) {
                self.emit_count();
            }
            self.count.begun = true;
        }
        if self.opts.precise_floats {
            self.check_mmx_first(i);
        }
    }

    /// What they ask for behind an instruction that goes on with the next one.
    #[inline(never)]
    fn attend_behind(&mut self, i: &Insn) {
        if self.counts {
            self.complete();
        }
        if self.opts.end_at_stores && check::stores(i) {
            self.go_on_at(self.next);
        }
    }

    /// Puts the flags that a handler may look at, or go on with, if the instruction faults.
    fn show_before(&mut self, i: &Insn) {
        if ahead::may_stop(i, self.opts) {
            self.show_flags();
        } else if self.opts.resumable && !self.flags.dirty().is_empty() && ahead::may_fault(i) {
            self.put_flags(self.live_at(self.pc));
        }
    }

    /// The current instruction has been executed: the next `count` counts it.
    fn complete(&mut self) {
        if std::mem::take(&mut self.count.begun) {
            if self.count.done == 0 {
                self.count.first = self.pc;
            }
            self.count.done += 1;
        }
    }

    /// Counts what has been executed, if that is asked for.
    fn emit_count(&mut self) {
        let n = std::mem::take(&mut self.count.done);
        if self.counts && n > 0 {
            self.b.inst(Op::Count, Type::None, 0, Inst::count_args(n, 0, self.count.first));
        }
    }

    /// For profiles: tells that the current instruction is about to transfer control to `target`, with this stack pointer.
    pub(crate) fn event(&mut self, helper: Helper, target: Value, sp: Value) {
        if self.opts.profile {
            self.complete();
            self.emit_count();
            let pc = self.b.iconst(Type::I64, self.pc.0);
            self.b.call(helper, &[pc, target, sp]);
        }
    }

    /// [`Helper::ProfileJump`] to a known target.
    pub(crate) fn jump_event(&mut self, target: GuestAddr) {
        if self.opts.profile {
            let sp = self.gpr64(operand::gpr::RSP);
            let target = self.b.iconst(Type::I64, target.0);
            self.event(Helper::ProfileJump, target, sp);
        }
    }

    /// Whether going on from the current instruction at `to` leaves the function, as far as profiles care.
    pub(crate) fn leaves_function(&self, to: GuestAddr) -> bool {
        self.opts.profile && self.code.leaves_function(self.pc, to)
    }

    /// Ends the block behind an instruction that does not transfer control.
    fn go_on_at(&mut self, pc: GuestAddr) {
        if self.leaves_function(pc) {
            self.jump_event(pc);
        }
        self.close(Exit::Goto(Target::Pc(pc)));
    }

    /// Starts filling a block: nothing is known of registers or flags.
    pub(crate) fn open(&mut self, block: BlockId) {
        self.b.switch_to(block);
        self.regs.reset();
        self.flags.reset();
        self.guarded = false;
    }

    /// Starts another block of the current guest instruction.
    pub(crate) fn reopen(&mut self, block: BlockId) {
        self.open(block);
        self.next_step();
    }

    /// Floating-point exceptions of what follows come after those of what stands before in the current instruction.
    pub(crate) fn next_step(&mut self) {
        self.b.insn(self.pc, (self.next.0 - self.pc.0) as u32);
        self.b.region_mut().guest_insns -= 1;
    }

    /// A part of the current instruction that is only done if `cond` holds.
    pub(crate) fn section(&mut self, cond: Value, body: impl FnOnce(&mut Self)) {
        let [inside, behind] = std::array::from_fn(|_| self.b.create_block(self.pc));
        self.close(Exit::Branch { cond, taken: Target::Block(inside), fallthrough: Target::Block(behind) });
        self.reopen(inside);
        body(self);
        self.close(Exit::Goto(Target::Block(behind)));
        self.reopen(behind);
    }

    /// Behind the current instruction: opens a block there to go on in, unless `cond` holds. Then the dispatcher is to look at
    /// what has changed, which is `kind`.
    pub(crate) fn leave_if(&mut self, kind: FaultKind, cond: Value) {
        self.complete();
        self.leave_at_if(self.next, kind, cond);
    }

    /// The same between instructions, in front of or behind the current one, which is at `pc`.
    fn leave_at_if(&mut self, pc: GuestAddr, kind: FaultKind, cond: Value) {
        let [leave, ahead] = std::array::from_fn(|_| self.b.create_block(pc));
        self.close(Exit::Branch { cond, taken: Target::Block(leave), fallthrough: Target::Block(ahead) });
        self.open(leave);
        self.close(Exit::Fault { kind, pc });
        self.open(ahead);
    }

    /// Ends the open block: puts the flags that are still read behind it.
    pub(crate) fn close(&mut self, exit: Exit) {
        // Exits to blocks of the region are made in the middle of an instruction; one that faults is not complete.
        let within = exit.targets().any(|target| matches!(target, Target::Block(_)));
        let trap = |kind| matches!(kind, FaultKind::Breakpoint | FaultKind::Debug);
        if !within && !matches!(exit, Exit::Fault { kind, .. } if !trap(kind)) {
            self.complete();
        }
        let dirty = self.flags.dirty();
        if dirty.is_empty() {
            return self.end_block(exit);
        }
        if let Exit::Branch { cond, taken: Target::Pc(taken), fallthrough: Target::Pc(other) } = exit {
            let live = [taken, other].map(|pc| self.live_at(pc).and(dirty));
            if live.iter().all(|side| side.is_empty()) {
                return self.end_block(exit);
            }
            return self.close_branch(cond, [taken, other], live);
        }
        let live = match exit {
            Exit::Goto(Target::Pc(pc)) => self.live_at(pc),
            Exit::Call { target: Target::Pc(pc), .. } => self.live_at_call(pc),
            Exit::Return(_) | Exit::Indirect(_) | Exit::CallIndirect { .. } if self.defers() => flow::UNKNOWN,
            _ => Live::read(FlagSet::ALL),
        };
        self.put_flags(live);
        self.end_block(exit);
    }

    /// Whether flags that only an unknown place may read are deferred.
    fn defers(&self) -> bool {
        self.flow.is_some() || self.opts.defers
    }

    /// Whether flags may be deferred where a signal handler looks, and at links to other code.
    fn shows_deferred(&self) -> bool {
        self.defers() && self.opts.precise && self.opts.precise_everywhere
    }

    /// The flags that are live at a place that the open block may go on at.
    fn live_at(&self, pc: GuestAddr) -> Live {
        let known = self.flow.as_ref().and_then(|flow| flow.at(pc));
        known.unwrap_or_else(|| self.outside(ahead::live_at(self.code, &self.window, pc, self.opts)))
    }

    fn live_at_call(&self, pc: GuestAddr) -> Live {
        let known = self.flow.as_ref().and_then(|flow| flow.at_call(pc));
        known.unwrap_or_else(|| self.outside(ahead::live_at_call(self.code, &self.window, pc, self.opts)))
    }

    /// What the look-ahead says of a place outside. A single block may leave to it with deferred flags: whatever is there lets them through.
    fn outside(&self, live: Live) -> Live {
        if self.opts.defers && !self.opts.precise || self.shows_deferred() { live } else { Live::read(live.all()) }
    }

    /// Ends the open block as it is.
    fn end_block(&mut self, exit: Exit) {
        self.emit_count();
        self.b.exit(exit);
    }

    /// Ends the block with a fault of the current instruction.
    pub(crate) fn fault(&mut self, kind: FaultKind) {
        self.close(Exit::Fault { kind, pc: self.pc });
    }
}

/// Whether an instruction may fault before it branches inside. What stands before it is counted first then: a fault only tells the guest pc, which
/// says in front of which `count` a block was left.
fn goes_on_in_blocks(i: &Insn) -> bool {
    use iced_x86::Mnemonic::{Fbstp, Fist, Fistp, Fisttp, Fst, Fstp, Lar, Lsl, Maskmovdqu, Maskmovq, Verr, Verw};
    let is_memory = i.op0_kind() == iced_x86::OpKind::Memory;
    match i.mnemonic() {
        Lar | Lsl | Maskmovdqu | Maskmovq | Verr | Verw => true,
        Fbstp | Fist | Fistp | Fisttp | Fst | Fstp => is_memory,
        // State images, which are stored in parts.
        _ => is_memory && !matches!(i.memory_size().size(), 1..=8 | 16 | 32),
    }
}

#[cfg(test)]
mod audit;
#[cfg(test)]
mod coverage;
#[cfg(test)]
mod tests;
