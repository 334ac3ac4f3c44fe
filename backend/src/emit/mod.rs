//! Tier 0 on AArch64: machine code from the IR of a block or a region in one pass.
//!
//! Cold code must cost next to nothing to translate and still run well from its first execution. So there is no register
//! allocator and no second look at what was emitted: all 16 general and 16 vector registers of the guest stay in fixed host
//! registers (`regs.rs`) from block to block, values of the IR live in a few temporaries or right in the guest register that
//! they will be put into, and each operation becomes its instructions as it comes by. One backward scan before (`plan.rs`)
//! tells where values are used last, which conditions can become compare-and-branch where they are used, and where results go.
//!
//! | file         | what                                                                   |
//! |--------------|------------------------------------------------------------------------|
//! | `plan.rs`    | the scan: last uses, deferred conditions, destinations                 |
//! | `regs.rs`    | register mapping, temporaries, spilling                                |
//! | `facts.rs`   | what is known of registers where blocks begin                          |
//! | `encode.rs`  | instruction words                                                      |
//! | `state.rs`   | `get`, `put`, constants, helper calls                                  |
//! | `int.rs`     | scalar integers                                                        |
//! | `division.rs`| division with x86's faults                                             |
//! | `flags.rs`   | conditions: instructions that set the host's flags                     |
//! | `memory.rs`  | guest loads, stores, atomics, in plain and in total store order        |
//! | `stack.rs`   | PUSH and POP in one instruction, and in pairs                          |
//! | `vector.rs`  | 128-bit integer and lane operations                                    |
//! | `inline.rs`  | AES, SHA and their like in place of helper calls                       |
//! | `float.rs`   | floating point with x86's NaN, minimum and conversion rules            |
//! | `exit.rs`    | ways out: links, leaves, faults, countdowns                            |
//! | `entry.rs`   | what is agreed with the stubs: fixed cells, calls, adapters            |
//! | `saved.rs`   | emitted blocks as words, for a later run of the program                |
//!
//! The emitter runs on every host (golden text and its cost are checked on x86-64); the code it makes is entered and left through
//! the stubs of `arch/aarch64_tier0.rs`.
//!
//! Invariants:
//! 1. Whenever an instruction may fault, all guest registers are in their homes as before the guest instruction: `put`s are
//!    carried out where they stand, and a result is computed in its home only if nothing can stop in between. So a fault
//!    handler finds the registers in the interrupted context (`docs/ARCHITECTURE.md`, "Tier 0 on AArch64").
//! 2. Guest accesses are in the order of the IR, one instruction each, but for PUSHes and POPs in pairs (`stack.rs`).
//! 3. No host address is in the code; everything outside is reached through `CpuState` and the cells.
//! 4. What cannot be emitted is an [`EmitError`]; its list is the list of what the interpreter or tier 1 is needed for.

mod division;
pub(crate) mod encode;
pub(crate) mod entry;
mod exit;
mod facts;
mod flags;
mod float;
mod inline;
mod int;
mod memory;
mod plan;
pub mod regs;
mod saved;
mod stack;
mod state;
mod vector;

use crate::compile::MemoryOrder;
use crate::isa::HostIsa;
use calque_ir::{BlockId, Exit, GuestAddr, Helper, Inst, Op, Reg, Region, Target, Type};
use encode::{self as e, Size, V, X};
use facts::{Joins, UpperHalves};
use plan::{Plan, What};
use regs::{Held, Loc, Regs, Val};
pub use saved::{SAVED_CELLS, SavedBlock};
pub use stack::is_stack_pair;

/// Why a block cannot be emitted. It runs in the interpreter, or in tier 1, then. Small, because nearly every function of the
/// emitter returns it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EmitError {
    /// More values live at once than registers and spill slots hold.
    #[error("more live values than registers")]
    Registers,
    /// A branch inside the block is out of reach: the block is far larger than guest code makes them.
    #[error("a branch within the block is out of reach")]
    Reach,
    /// An operation in a type that no lifter makes.
    #[error("{} of this type has no code", .0.name())]
    NoCode(Op),
    /// Our bug.
    #[error("internal: {0}")]
    Internal(Bug),
}

/// What only our bugs can bring about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Bug {
    #[error("no such register")]
    NoRegister,
    #[error("a block without exit")]
    NoExit,
    #[error("a value is not where an integer belongs")]
    NotAnInteger,
    #[error("a value is not where a vector belongs")]
    NotAVector,
    #[error("no shift")]
    NoShift,
    #[error("an address without base")]
    NoBase,
}

/// Choices of one emission.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EmitOptions {
    pub memory_order: MemoryOrder,
    /// First of the cells in a row that the exits use.
    pub first_cell: u32,
    /// Code that the jump cache knows may let deferred flags through; else they are dead there (`LiftOptions::precise_everywhere`).
    pub precise_everywhere: bool,
}

/// A block's code, ready to be published. It is in the emitter's memory.
#[derive(Clone, Copy, Debug)]
pub struct Emitted<'a> {
    /// Guest pc of the block.
    pub pc: GuestAddr,
    /// Position-independent machine code with its constants; the entry is its first word.
    pub code: &'a [u32],
    /// Number of words before the code that is rarely needed.
    pub hot_words: u32,
    /// First of the cells in a row that the exits use.
    pub first_cell: u32,
    /// Places in the code where the number of a cell is moved to a register.
    pub numbers: &'a [u32],
    /// Direct exits.
    pub exits: &'a [EmittedExit],
    /// (code offset, guest pc): from this offset on accesses belong to the guest instruction at that pc. Sorted.
    pub pcs: &'a [(u32, GuestAddr)],
    /// Number of guest instructions.
    pub guest_insns: u32,
}

/// A direct exit; its cell is that of its place in the list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EmittedExit {
    /// Where it goes.
    pub target: GuestAddr,
    /// Place in the code of the branch that may be replaced by one to the target; `None` for an exit that is left only to be counted.
    pub branch: Option<u32>,
}

/// A place in the code that branches go to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Label(u32);

/// How a branch holds its distance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reach {
    /// `b`.
    Bits26,
    /// `b.cond`, `cbz`, literals.
    Bits19,
    /// `tbz`.
    Bits14,
}

/// A branch or literal load whose distance is filled in at the end.
#[derive(Clone, Copy)]
struct Fixup {
    at: u32,
    label: Label,
    reach: Reach,
}

/// A constant behind the code.
#[derive(Clone, Copy)]
struct Literal {
    label: Label,
    bits: [u64; 2],
    /// 8 or 16.
    bytes: u8,
}

/// Code that is rarely needed, emitted behind the block.
#[derive(Clone, Copy)]
struct Cold {
    label: Label,
    /// Where it goes on.
    back: Option<Label>,
    pc: GuestAddr,
    what: exit::ColdPath,
}

/// The optional features that code is made with.
#[derive(Clone, Copy)]
struct Host {
    lse: bool,
    lrcpc: bool,
    lrcpc2: bool,
    afp: bool,
    aes: bool,
    pmull: bool,
    sha2: bool,
}

impl Host {
    fn of(isa: &HostIsa) -> Self {
        Self {
            lse: isa.has("has_lse"),
            lrcpc: isa.has("lrcpc"),
            lrcpc2: isa.has("lrcpc2"),
            afp: isa.has("afp"),
            aes: isa.has("aes"),
            pmull: isa.has("pclmulqdq"),
            sha2: isa.has("sha2"),
        }
    }
}

/// Turns blocks into code; keeps its memory between them. One for each thread that translates.
pub struct Emitter {
    host: Host,
    options: EmitOptions,
    code: Vec<u32>,
    insts: Vec<Inst>,
    pool: Vec<[u64; 2]>,
    plan: Plan,
    regs: Regs,
    /// Word offset of each label, `u32::MAX` until it is placed.
    labels: Vec<u32>,
    fixups: Vec<Fixup>,
    literals: Vec<Literal>,
    cold: Vec<Cold>,
    exits: Vec<EmittedExit>,
    numbers: Vec<u32>,
    pcs: Vec<(u32, GuestAddr)>,
    /// Places of the guest accesses emitted last, the last one first.
    accesses: [Option<usize>; 2],
    /// Index of the instruction being emitted, and where its block starts.
    at: usize,
    block_start: usize,
    block_end: usize,
    /// Guest pc of the instruction being emitted, and of the region.
    pc: GuestAddr,
    entry_pc: GuestAddr,
    /// Code before this word may be jumped over: no peephole looks at it.
    barrier: usize,
    /// What the first scratch register is known to hold, for addresses.
    held: Held,
    /// Whether the last vector scratch register holds zeros.
    holds_zero: bool,
    /// Upper halves of vector registers that are known to be zero, a bit each.
    zeroed: u16,
    /// Whether the block has noted that upper halves may be other than zero (`CpuState::upper_halves`), and not yet that they are.
    upper_noted: bool,
    /// Index of the replacement of a lane that has been made together with the lane.
    merged: Option<usize>,
    /// The word that set the host's flags last, as far as that is known.
    flags_at: usize,
    /// Guest pc of each IR block, and where computed jumps are predicted to lead (`Region::predicted`).
    block_pcs: Vec<GuestAddr>,
    predicted: Vec<(BlockId, BlockId)>,
    /// How many edges lead to each IR block.
    ways_in: Vec<u32>,
    joins: Joins,
    upper_halves: UpperHalves,
    /// Instructions of the block that its exit emits.
    sunk: Vec<usize>,
}

impl Emitter {
    /// An emitter for an AArch64 `host`.
    pub fn new(host: HostIsa) -> Self {
        let host = Host::of(&host);
        Self {
            host,
            options: EmitOptions::default(),
            code: Vec::new(),
            insts: Vec::new(),
            pool: Vec::new(),
            plan: Plan::new(host),
            regs: Regs::default(),
            labels: Vec::new(),
            fixups: Vec::new(),
            literals: Vec::new(),
            cold: Vec::new(),
            exits: Vec::new(),
            numbers: Vec::new(),
            pcs: Vec::new(),
            accesses: [None; 2],
            at: 0,
            block_start: 0,
            block_end: 0,
            pc: GuestAddr(0),
            entry_pc: GuestAddr(0),
            barrier: 0,
            held: Held::Nothing,
            holds_zero: false,
            zeroed: 0,
            upper_noted: false,
            merged: None,
            flags_at: usize::MAX,
            block_pcs: Vec::new(),
            predicted: Vec::new(),
            ways_in: Vec::new(),
            joins: Joins::default(),
            upper_halves: UpperHalves::default(),
            sunk: Vec::new(),
        }
    }

    /// Whether calls of a helper are emitted as instructions of the host; of constants, where it takes any.
    pub fn has_code_for(host: &HostIsa, helper: Helper) -> bool {
        inline::has_code(Host::of(host), helper, |_| true)
    }

    /// How many exit cells the code of `region` uses.
    pub fn cells_needed(region: &Region) -> u32 {
        let cells = region.block_ids().map(|from| {
            let exit = &region.blocks[from.0 as usize].exit;
            let out = exit.targets().filter(|target| matches!(target, Target::Pc(_))).count();
            out + region.successors(from).filter(|to| *to <= from).count()
        });
        cells.sum::<usize>() as u32
    }

    /// Emits one guest block, or a region. The state at faults is always exact: see invariant 1.
    pub fn emit(&mut self, region: &Region, options: &EmitOptions) -> Result<Emitted<'_>, EmitError> {
        self.start(region, options);
        for (n, block) in region.blocks.iter().enumerate() {
            self.plan.block(region, block);
            let label = self.block_label(n as u32);
            let held = self.held;
            self.place(label);
            let is_only_behind_last = self.is_only_behind_last(region, n);
            if let (true, Held::Constant(_)) = (is_only_behind_last, held) {
                self.held = held;
            }
            self.begin_with_facts(n, is_only_behind_last);
            (self.block_start, self.block_end) = (block.start as usize, block.end as usize);
            self.pc = block.pc;
            self.upper_noted = false;
            self.at = self.block_start;
            let sunk_from = self.sunk_from(region, BlockId(n as u32));
            for inst in &region.insts[self.block_start..self.block_end] {
                // A third of all instructions are marks and constants, which take no code.
                if self.at >= sunk_from && defers_flags(inst) {
                    self.sunk.push(self.at);
                } else if inst.op == Op::Insn {
                    self.pc = GuestAddr(inst.imm());
                } else if inst.op == Op::Iconst {
                    self.constant(inst);
                } else {
                    let plan::Fate { what, ends, home, uses, .. } = self.plan.fates[self.at];
                    match what {
                        What::Emit if self.stays_home(inst, ends) => {}
                        What::Emit => {
                            self.regs.next_inst(ends, home, uses == 0);
                            self.inst(inst)?;
                            self.end_inst();
                        }
                        What::Defer => self.regs.values[self.at] = Val { loc: Loc::Flags, zx: 1 },
                        What::Drop => {}
                    }
                }
                self.at += 1;
            }
            self.regs.next_inst(0, plan::NO_HOME, true);
            self.exit(block.exit, n as u32 + 1)?;
            self.pass_facts_on(region, n);
            self.regs.end_block();
        }
        if self.regs.exhausted {
            return Err(EmitError::Registers);
        }
        let hot_words = self.code.len() as u32;
        self.finish_cold()?;
        self.finish_exits();
        self.finish_literals();
        self.fill_in()?;
        Ok(self.emitted(region.pc(), region.guest_insns, hot_words, options.first_cell))
    }

    /// What the emitter's memory holds.
    fn emitted(&self, pc: GuestAddr, guest_insns: u32, hot_words: u32, first_cell: u32) -> Emitted<'_> {
        let Self { code, exits, numbers, pcs, .. } = self;
        Emitted { pc, code, hot_words, first_cell, numbers, exits, pcs, guest_insns }
    }

    /// Forgets the code of the last block.
    fn clear(&mut self) {
        self.code.clear();
        self.exits.clear();
        self.numbers.clear();
        self.pcs.clear();
    }

    /// Whether nothing leads to this block but the one that is emitted before it.
    fn is_only_behind_last(&self, region: &Region, n: usize) -> bool {
        let behind = |last: usize| region.successors(BlockId(last as u32)).any(|to| to.0 as usize == n);
        self.ways_in[n] == 1 && n.checked_sub(1).is_some_and(behind)
    }

    /// Where the block's last `put`s begin that defer flags: a computed jump has them wait until it leads to code that wants any, which
    /// predicted blocks and what the jump cache knows do not.
    fn sunk_from(&mut self, region: &Region, block: BlockId) -> usize {
        self.sunk.clear();
        let exit = region.blocks[block.0 as usize].exit;
        let is_computed = matches!(exit, Exit::Indirect(_) | Exit::Return(_) | Exit::CallIndirect { .. });
        if !is_computed || self.options.precise_everywhere && region.predicted_of(block).next().is_none() {
            return usize::MAX;
        }
        let insts = &region.insts[self.block_start..self.block_end];
        let waits =
            |inst: &Inst| defers_flags(inst) || matches!(inst.op, Op::Iconst | Op::Uextend | Op::Ishl | Op::Bor);
        self.block_end - insts.iter().rev().take_while(|inst| waits(inst)).count()
    }

    fn start(&mut self, region: &Region, options: &EmitOptions) {
        self.options = *options;
        self.insts.clone_from(&region.insts);
        self.pool.clone_from(&region.pool);
        self.plan.start(region);
        self.regs.start(region.insts.len());
        self.clear();
        self.fixups.clear();
        self.literals.clear();
        self.cold.clear();
        self.accesses = [None; 2];
        self.labels.clear();
        self.labels.resize(region.blocks.len(), u32::MAX);
        self.block_pcs.clear();
        self.block_pcs.extend(region.blocks.iter().map(|b| b.pc));
        self.predicted.clone_from(&region.predicted);
        self.ways_in.clear();
        self.ways_in.resize(region.blocks.len(), 0);
        for target in region.blocks.iter().flat_map(|block| block.exit.targets()) {
            if let Target::Block(to) = target {
                self.ways_in[to.0 as usize] += 1;
            }
        }
        for (_, to) in &region.predicted {
            self.ways_in[to.0 as usize] += 1;
        }
        self.joins.start(region.blocks.len());
        self.upper_halves.start(region);
        self.entry_pc = region.pc();
        self.barrier = 0;
        self.flags_at = usize::MAX;
        self.merged = None;
    }

    fn inst(&mut self, inst: &Inst) -> Result<(), EmitError> {
        match inst.op {
            Op::Nop => Ok(()),
            Op::Count => {
                self.count(inst);
                Ok(())
            }
            Op::Get => self.get(inst),
            Op::Put => self.put(inst),
            Op::Load => self.load(inst),
            Op::Store => self.store(inst),
            Op::Rmw => self.rmw(inst),
            Op::Cas => self.cas(inst),
            Op::Fence => {
                self.word(e::DMB_ISH);
                Ok(())
            }
            Op::FaultIf => self.fault_if(inst),
            Op::Uncarried => self.uncarried(),
            Op::Call => self.call(inst),
            _ if inst.ty.is_float() || float::is_float(inst.op) => self.float(inst),
            _ if inst.ty.is_vector() || vector::is_vector(inst.op) => self.vector(inst),
            _ => self.int(inst),
        }
    }

    // ---- words, labels, constants

    fn word(&mut self, word: u32) {
        self.code.push(word);
    }

    fn words(&mut self, words: &[u32]) {
        self.code.extend_from_slice(words);
    }

    fn label(&mut self) -> Label {
        self.labels.push(u32::MAX);
        Label(self.labels.len() as u32 - 1)
    }

    fn block_label(&self, block: u32) -> Label {
        Label(block)
    }

    /// The label is here.
    fn place(&mut self, label: Label) {
        self.labels[label.0 as usize] = self.code.len() as u32;
        self.barrier = self.code.len();
        self.held = Held::Nothing;
        self.holds_zero = false;
    }

    /// A branch to a label, encoded with distance 0.
    fn branch(&mut self, word: u32, reach: Reach, label: Label) {
        self.fixups.push(Fixup { at: self.code.len() as u32, label, reach });
        self.word(word);
    }

    /// Fills in the distances.
    fn fill_in(&mut self) -> Result<(), EmitError> {
        for fixup in &self.fixups {
            let to = self.labels[fixup.label.0 as usize];
            let distance = to.wrapping_sub(fixup.at) as i32;
            let (bits, shift) = match fixup.reach {
                Reach::Bits26 => (26, 0),
                Reach::Bits19 => (19, 5),
                Reach::Bits14 => (14, 5),
            };
            if distance >> (bits - 1) != 0 && distance >> (bits - 1) != -1 {
                return Err(EmitError::Reach);
            }
            let mask = (1u32 << bits) - 1;
            self.code[fixup.at as usize] |= (distance as u32 & mask) << shift;
        }
        Ok(())
    }

    /// A constant of 8 or 16 bytes behind the code.
    fn literal(&mut self, bits: [u64; 2], bytes: u8) -> Label {
        if let Some(known) = self.literals.iter().find(|l| l.bits == bits && l.bytes == bytes) {
            return known.label;
        }
        let label = self.label();
        self.literals.push(Literal { label, bits, bytes });
        label
    }

    fn finish_literals(&mut self) {
        for bytes in [16, 8] {
            for i in 0..self.literals.len() {
                let literal = self.literals[i];
                if literal.bytes != bytes {
                    continue;
                }
                while !self.code.len().is_multiple_of(bytes as usize / 4) {
                    self.word(0);
                }
                self.place(literal.label);
                for word in &literal.bits[..bytes as usize / 8] {
                    self.words(&[*word as u32, (*word >> 32) as u32]);
                }
            }
        }
    }

    /// `rd = imm`, in at most two instructions, else from memory behind the code.
    #[inline]
    fn mov_imm(&mut self, rd: X, imm: u64) {
        if imm < 0x1_0000 {
            return self.word(e::mov_imm(e::Mov::Z, Size::W, rd, imm as u16, 0));
        }
        self.mov_wide(rd, imm);
    }

    /// The same for what does not fit 16 bits.
    fn mov_wide(&mut self, rd: X, imm: u64) {
        let half = |n: u32| (imm >> (16 * n)) as u16;
        let size = if imm >> 32 == 0 { Size::W } else { Size::X };
        // Bit n: half n is not all zeros; not all ones, of those that count.
        let (mut filled, mut holed) = (0u32, 0u32);
        for n in 0..4 {
            filled |= u32::from(half(n) != 0) << n;
            holed |= u32::from(half(n) != 0xffff) << n;
        }
        if size == Size::W {
            holed &= 3;
        }
        let several = |bits: u32| bits & bits.wrapping_sub(1) != 0;
        if !several(holed) && several(filled) {
            let n = holed & if size == Size::X { 15 } else { filled };
            let n = if n == 0 { 0 } else { n.trailing_zeros() };
            return self.word(e::mov_imm(e::Mov::N, size, rd, !half(n), n));
        }
        if several(filled)
            && let Some(word) = e::op_mask(e::ORR_MASK, size, rd, e::ZR, imm)
        {
            return self.word(word);
        }
        let at_most_two = |bits: u32| !several(bits & bits.wrapping_sub(1));
        if at_most_two(filled) {
            return self.mov_halves(e::Mov::Z, size, rd, imm, filled);
        }
        if at_most_two(holed) {
            return self.mov_halves(e::Mov::N, size, rd, imm, holed);
        }
        let label = self.literal([imm, 0], 8);
        self.branch(e::ldr_literal(rd, 0), Reach::Bits19, label);
    }

    /// `rd = imm` by its halves number n with bit n set; `first` makes what the others are.
    fn mov_halves(&mut self, first: e::Mov, size: Size, rd: X, imm: u64, mut bits: u32) {
        let mut op = first;
        while bits != 0 {
            let n = bits.trailing_zeros();
            bits &= bits - 1;
            let half = (imm >> (16 * n)) as u16;
            self.word(e::mov_imm(op, size, rd, if op == e::Mov::N { !half } else { half }, n));
            op = e::Mov::K;
        }
    }

    /// `rd = rn`.
    fn mov(&mut self, size: Size, rd: X, rn: X) {
        self.word(e::op3(e::ORR, size, rd, e::ZR, rn));
    }

    fn v_mov(&mut self, rd: V, rn: V) {
        if rd != rn {
            self.word(e::vec3(e::VORR, 0, rd, rn, rn));
        }
    }

    /// `rd = rn + disp`; `rd` may be `rn`.
    fn add_disp(&mut self, rd: X, rn: X, disp: i32) {
        self.add_sized(Size::X, rd, rn, i64::from(disp));
    }

    /// `rd = rn + k`.
    fn add_sized(&mut self, size: Size, rd: X, rn: X, k: i64) {
        let (op, op3, magnitude) =
            if k < 0 { (e::SUB_IMM, e::SUB, k.unsigned_abs()) } else { (e::ADD_IMM, e::ADD, k as u64) };
        if let Some(word) = e::op_imm(op, size, rd, rn, magnitude) {
            return self.word(word);
        }
        if magnitude < 1 << 24 {
            let high = e::op_imm(op, size, rd, rn, magnitude & 0xff_f000).expect("twelve bits");
            let low = e::op_imm(op, size, rd, rd, magnitude & 0xfff).expect("twelve bits");
            return self.words(&[high, low]);
        }
        let mark = self.scratch_mark();
        let s = self.scratch();
        self.mov_imm(s, magnitude);
        self.word(e::op3(op3, size, rd, rn, s));
        self.scratch_reset(mark);
    }
}

/// Whether an instruction is a part of deferring flags.
fn defers_flags(inst: &Inst) -> bool {
    inst.op == Op::Put && Reg::from_index(inst.aux as usize).is_some_and(|reg| Reg::DEFERRED.contains(&reg))
}

/// Width of integer instructions for a type.
fn size_of(ty: Type) -> Size {
    if ty == Type::I64 { Size::X } else { Size::W }
}

/// log2 of a scalar type's or of a lane's bytes.
fn log2_of(ty: Type) -> u32 {
    ty.lane().bytes().max(1).trailing_zeros()
}
