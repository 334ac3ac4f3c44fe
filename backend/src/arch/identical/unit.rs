//! From guest bytes to the host code of one unit.
//!
//! A unit begins at a guest pc and goes on through conditional branches that are not taken, through direct jumps and behind calls, as long
//! as what is there has no unit yet, up to [`MAX_INSNS`]. Calls and what follows them can be come to from elsewhere, too ([`Entry`]). Every way out is a direct exit, a computed jump, or one of the exits that say
//! what the dispatcher is to do.

mod checked;
mod clock;
mod guarded;
mod linkage;
mod profiled;

use super::area::{TransferKind, return_slot};
use super::classify::{Avx512, Kind, Kinds};
use super::emit::{BELOW, BUDGET, Code, GUEST_R11, R11, RCX, RIP, SPILL, X87_USED, counter};
use super::evex::{self, Evex};
use super::sites::{self, Phase, Rule, Sequence};
pub(super) use checked::Check;
pub use checked::Source;
pub use clock::Clocks;
use iced_x86::{Decoder, DecoderOptions, Encoder, Instruction, InstructionInfoFactory, OpAccess, OpKind, Register};

/// Most guest instructions of a unit.
const MAX_INSNS: u32 = 64;
/// Most conditional branches and jumps that a unit goes on through.
const MAX_BRANCHES: u32 = 6;
/// Longest instruction (SDM vol. 2 2.3.11).
const MAX_INSN: usize = 15;

/// Where units can go that are not units: offsets in the header of code memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exits {
    /// By the exit whose number is in R11.
    pub(super) link: u64,
    pub(super) syscall: u64,
    pub(super) odd: u64,
    pub(super) stop: u64,
    pub(super) changed: u64,
    pub(super) often: u64,
    /// Behind a return whose return point is another's: to the pc at `Area::rip`, with RCX in R11.
    pub(super) no_return: u64,
    /// Where units are profiled: the same, and where a host's return goes that no unit's call belongs to.
    pub(super) strayed: u64,
    pub(super) no_point: u64,
    /// See `calls`.
    pub(super) look_up: u64,
    pub(super) jump: u64,
    pub(super) ret: u64,
    /// Leaves for the recorder, with RCX and R10 spilled.
    pub(super) tell: u64,
}

/// Which instructions units count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Counted {
    Nothing,
    /// Jumps, calls and returns, taken or not.
    Branches,
    Instructions,
}

/// Who wants to know what units execute.
pub trait Profiler {
    /// The counter of the instructions of these lengths from `pc` on.
    fn counter(&mut self, pc: u64, lengths: &[u8]) -> u32;
    /// The number, from 1, of the transfer of control at `site`, to `target` if that is not computed, that ends the part with this counter.
    fn transfer(&mut self, kind: TransferKind, site: u64, target: Option<u64>, counter: u32) -> u32;
    /// What certainly is in the function around `pc`, from where to where, and whether it is a linkage stub.
    fn extent(&mut self, pc: u64) -> (u64, u64, bool);
    /// Whether `to` belongs to another function than `from`.
    fn leaves(&mut self, from: u64, to: u64) -> bool;
}

/// A direct exit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct UnitExit {
    /// Offset in the code of the displacement that leads out.
    pub(super) at: u32,
    pub(super) target: u64,
}

/// How control comes to a part of a unit, beside from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Way {
    /// It is the unit's first.
    Start,
    /// From the part before.
    Falls,
    /// From the return point that ends right before it.
    Returns,
}

/// How far before what a return point leads to the displacement of its last JRCXZ is: without it, every return goes on elsewhere.
pub(super) const BEFORE_POINT: u32 = 9;

/// What becomes of a call behind its host's: see `Pass::push_return`.
#[derive(Clone, Copy)]
struct Thunk {
    /// Offset of what is behind the host's call.
    point: u32,
    call: u64,
    next: u64,
    to: Callee,
    block: profiled::Block,
}

#[derive(Clone, Copy)]
enum Callee {
    At(u64),
    /// At `Area::rip`, whose low 16 bits are in this register, too, if given.
    Computed(Option<u8>),
}

/// A guest pc that others can come to inside the unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) pc: u64,
    pub(super) way: Way,
    /// Offset in the code, and of its first item.
    pub(super) at: u32,
    pub(super) items: u32,
    /// See `Unit::counter`.
    pub(super) counter: u32,
}

/// The code of one unit.
#[derive(Default)]
pub(super) struct Unit {
    /// Beside its start, in order.
    pub(super) entries: Vec<Entry>,
    /// For profiles: the counter of all instructions before the first entry.
    pub(super) counter: u32,
    thunks: Vec<Thunk>,
    unusual: Vec<profiled::Unusual>,
    taken: Vec<profiled::Taken>,
    checked: checked::WaysOut,
    pub(super) exits: Vec<UnitExit>,
    /// See `sites`.
    pub(super) items: Vec<u8>,
    /// Guest ranges it was made from: start and bytes.
    pub(super) source: Vec<(u64, u32)>,
    pub(super) insns: u32,
}

/// What translation needs from outside.
pub(super) struct World<'a> {
    pub(super) source: Source<'a>,
    /// What is compared before the unit runs, if its source may change unnoticed.
    pub(super) check: Option<Check>,
    /// The unit at this pc was found changed a few times.
    pub(super) changes_often: bool,
    /// Whether there is a unit for a pc already.
    pub(super) known: &'a dyn Fn(u64) -> bool,
    /// Whether the division at a pc has faulted.
    pub(super) guarded: &'a dyn Fn(u64) -> bool,
    /// The counter of the instruction at a pc.
    pub(super) counter: &'a mut dyn FnMut(u64) -> u32,
    pub(super) profiler: Option<&'a mut dyn Profiler>,
    pub(super) exits: Exits,
    /// Number of the unit's first exit.
    pub(super) first_exit: u32,
    /// Host address of an exit's stub.
    pub(super) stub: &'a dyn Fn(u32) -> u64,
}

/// How a unit's translation goes on behind an instruction.
enum Next {
    On,
    At(u64),
    End,
}

/// What stands at a pc.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Translated {
    Unit,
    /// What is the interpreter's, or cannot be read.
    Odd,
    /// An instruction of AVX-512, which is [`Avx512::Awaited`].
    Avx512,
}

/// Translates units; keeps its memory between them.
pub(super) struct Translator {
    kinds: Kinds,
    window: [u8; 256],
    pub(super) unit: Unit,
    pub(super) counted: Counted,
    clocks: Option<Clocks>,
}

impl Translator {
    pub(super) fn new() -> Self {
        Self { kinds: Kinds::new(), window: [0; 256], unit: Unit::default(), counted: Counted::Nothing, clocks: None }
    }

    /// See [`Kinds::gate`].
    pub(super) fn gate(&mut self) {
        self.kinds.gate();
        self.clocks = None;
    }

    /// From now on units read these clocks themselves, if the host's can be read so.
    pub(super) fn read(&mut self, clocks: Clocks) {
        self.clocks = clocks.on_this_host();
    }

    /// See [`Kinds::set_avx512`].
    pub(super) fn set_avx512(&mut self, avx512: Avx512) {
        self.kinds.set_avx512(avx512);
    }

    /// Appends the unit at `pc` to `code`.
    pub(super) fn translate(&mut self, pc: u64, code: &mut Code, world: &mut World<'_>) -> Translated {
        let unit = std::mem::take(&mut self.unit);
        let mut pass = Pass {
            kinds: &mut self.kinds,
            unit: unit.emptied(),
            code,
            world,
            pc,
            branches: 0,
            x87: false,
            r11: false,
            start: pc,
            counted: self.counted,
            sequence: Sequence::default(),
            is_counted: false,
            part: profiled::Part::default(),
            first_of_avx512: false,
            clocks: self.clocks.as_ref(),
            chosen: None,
        };
        pass.run(&mut self.window);
        let first_of_avx512 = pass.first_of_avx512;
        self.unit = pass.unit;
        match self.unit.insns {
            0 if first_of_avx512 => Translated::Avx512,
            0 => Translated::Odd,
            _ => Translated::Unit,
        }
    }
}

impl Unit {
    /// Itself with nothing in it, for its memory.
    fn emptied(mut self) -> Unit {
        self.entries.clear();
        self.counter = 0;
        self.thunks.clear();
        self.unusual.clear();
        self.taken.clear();
        self.checked.clear();
        self.exits.clear();
        self.items.clear();
        self.source.clear();
        self.insns = 0;
        self
    }
}

struct Pass<'a, 'w> {
    kinds: &'a mut Kinds,
    unit: Unit,
    code: &'a mut Code,
    world: &'a mut World<'w>,
    /// Guest pc of the instruction at hand.
    pc: u64,
    branches: u32,
    x87: bool,
    /// R11 of the host holds the guest's.
    r11: bool,
    start: u64,
    counted: Counted,
    /// The host instructions of the guest instruction at hand.
    sequence: Sequence,
    /// It has been counted.
    is_counted: bool,
    part: profiled::Part,
    /// See [`Translated::Avx512`].
    first_of_avx512: bool,
    clocks: Option<&'a Clocks>,
    /// What the instruction before has loaded into EAX, if that is a constant.
    chosen: Option<u32>,
}

impl Pass<'_, '_> {
    fn run(&mut self, window: &mut [u8; 256]) {
        'run: loop {
            let (from, len) = (self.pc, self.read(window));
            if self.unit.insns == 0 {
                self.check(&window[..len]);
            }
            let mut decoder = Decoder::with_ip(64, &window[..len], from, DecoderOptions::NONE);
            let mut insn = Instruction::default();
            loop {
                if self.falls_out() {
                    return;
                }
                if self.unit.insns == MAX_INSNS {
                    return self.leave_to(self.pc);
                }
                let at = decoder.position();
                match evex::find(&window[at..len]) {
                    evex::Found::Other => {}
                    evex::Found::Cut if at != 0 => continue 'run,
                    evex::Found::Cut => return self.leave_unread(true),
                    evex::Found::Whole(evex) => {
                        if !self.evex(&evex, &window[at..at + evex.len]) {
                            return;
                        }
                        decoder.set_ip(self.pc);
                        decoder.set_position(at + evex.len).expect("inside the window");
                        continue;
                    }
                }
                decoder.decode_out(&mut insn);
                if insn.is_invalid() {
                    let cut = decoder.last_error() == iced_x86::DecoderError::NoMoreBytes;
                    if cut && at != 0 && len - at < MAX_INSN {
                        // Perhaps only the window ends here.
                        continue 'run;
                    }
                    return self.leave_unread(cut);
                }
                let bytes = &window[at..at + insn.len()];
                let displacement =
                    insn.is_ip_rel_memory_operand().then(|| decoder.get_constant_offsets(&insn).displacement_offset());
                match self.instruction(&insn, bytes, displacement) {
                    Next::On => {}
                    Next::At(pc) if pc == insn.next_ip() => {}
                    Next::At(pc) => {
                        self.pc = pc;
                        sites::put_pc(&mut self.unit.items, pc);
                        continue 'run;
                    }
                    Next::End => return,
                }
                self.pc = insn.next_ip();
            }
        }
    }

    fn instruction(&mut self, insn: &Instruction, bytes: &[u8], displacement: Option<usize>) -> Next {
        let chosen = std::mem::replace(&mut self.chosen, clock::chosen_leaf(insn));
        let kind = match self.kinds.of(insn) {
            Kind::Odd if self.reads_clock(insn, chosen) => Kind::Clock,
            kind => kind,
        };
        if matches!(kind, Kind::Odd | Kind::Avx512) {
            self.leave_in_front(kind);
            return Next::End;
        }
        if matches!(kind, Kind::Call | Kind::CallIndirect) && !self.enter_call() {
            return Next::End;
        }
        self.begin(insn.ip(), insn.len());
        let is_copied = matches!(kind, Kind::Copy | Kind::CopyX87);
        self.note(insn, is_copied);
        let counts = match self.counted {
            Counted::Nothing => false,
            Counted::Branches => !is_copied && kind != Kind::Syscall,
            Counted::Instructions => true,
        };
        if counts {
            self.count();
        }
        match kind {
            Kind::Copy => self.copy(insn, bytes, displacement),
            Kind::CopyX87 => {
                if !self.x87 {
                    self.x87 = true;
                    self.code.store32(X87_USED, 1);
                }
                self.copy(insn, bytes, displacement);
            }
            Kind::Jcc => return self.jcc(insn),
            Kind::ShortOnly => self.short_only(insn, bytes),
            Kind::Jump => return self.jump(insn),
            Kind::Call => {
                let to = Callee::At(insn.near_branch_target());
                return self.push_return(insn, to);
            }
            Kind::JumpIndirect => self.jump_indirect(insn, bytes),
            Kind::CallIndirect => return self.call_indirect(insn, bytes),
            Kind::Return => self.ret(insn),
            Kind::Syscall => self.syscall(insn),
            Kind::Clock => {
                self.read_clock(insn);
                return Next::On;
            }
            Kind::Odd | Kind::Avx512 | Kind::Unknown | Kind::CopyMaybeMmx => {
                unreachable!("`of` gives none, or handled above")
            }
        }
        if is_copied { Next::On } else { Next::End }
    }

    /// Copies an EVEX-encoded instruction; false if it ends the unit. None is counted: where anything is, CPUID does not announce them.
    fn evex(&mut self, evex: &Evex, bytes: &[u8]) -> bool {
        let kind = self.kinds.of_evex(evex);
        if kind != Kind::Copy {
            self.leave_in_front(kind);
            return false;
        }
        self.begin(self.pc, evex.len);
        if evex.reads_r11 {
            self.load_r11();
        }
        self.put_evex(evex, bytes);
        self.rule(Rule::BEFORE);
        if evex.writes_r11 {
            self.code.save(GUEST_R11, R11);
            self.rule(Rule::STEP);
            self.r11 = true;
        }
        self.end(evex.len);
        self.pc += evex.len as u64;
        // It may store: `Check`.
        let goes_on = self.world.check.is_none();
        if !goes_on {
            self.leave_to(self.pc);
        }
        goes_on
    }

    /// Appends an EVEX-encoded instruction as it is, but for an operand relative to RIP: with another displacement, or, where that does not
    /// reach, by R11.
    fn put_evex(&mut self, evex: &Evex, bytes: &[u8]) {
        let Some(at) = evex.displacement else { return self.code.put(bytes) };
        let displacement = i32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let target = (self.pc + bytes.len() as u64).wrapping_add_signed(displacement.into());
        let end = self.code.here() + bytes.len() as u64;
        let moved = target.wrapping_sub(end) as i64;
        let near = i32::try_from(moved).ok().filter(|_| !evex.short_addresses);
        if near.is_none() {
            self.code.load_constant(R11, target);
            self.r11 = false;
        }
        let start = self.code.len();
        self.code.put(bytes);
        let insn = &mut self.code.bytes[start..];
        if near.is_none() {
            // Mode 2, a displacement of 32 bits, from the register with B, which is inverted.
            insn[evex.modrm] = insn[evex.modrm] & 0x38 | 0x80 | R11 & 7;
            insn[evex.modrm - 4] &= !0x20;
        }
        insn[at..at + 4].copy_from_slice(&near.unwrap_or(0).to_le_bytes());
    }

    /// Begins the translation of the instruction of `len` bytes at `ip`.
    fn begin(&mut self, ip: u64, len: usize) {
        self.read_from(ip, len);
        self.unit.insns += 1;
        self.is_counted = false;
        self.sequence.begin(self.code.len());
    }

    /// What was written since the last rule, a part of the guest instruction at hand, has this one.
    fn rule(&mut self, rule: Rule) {
        let counted = self.is_counted && rule.phase == Phase::Before;
        self.sequence.rule(self.code.len(), Rule { counted, ..rule });
    }

    /// Ends the guest instruction, of so many bytes.
    fn end(&mut self, guest: usize) {
        match *self.sequence.list() {
            [(host, Rule::BEFORE)] => sites::put(&mut self.unit.items, guest, host),
            ref list => sites::put_sequence(&mut self.unit.items, guest, list),
        }
    }

    /// Counts the instruction at hand, or leaves in front of it if the budget is used up.
    fn count(&mut self) {
        let number = counter((self.world.counter)(self.pc));
        let spilled = Rule::before_spilled(RCX);
        self.code.save(SPILL, RCX);
        self.rule(Rule::BEFORE);
        self.code.restore(RCX, BUDGET);
        // jrcxz over the jump over what leaves
        self.code.put(&[0xe3, 2, 0xeb, 0]);
        let over = self.code.len();
        self.code.restore(RCX, SPILL);
        self.rule(spilled);
        self.code.store64(RIP, self.pc);
        self.code.jump(self.world.exits.stop);
        self.rule(Rule::BEFORE);
        self.code.bytes[over - 1] = (self.code.len() - over) as u8;
        self.code.add_rcx(u32::MAX);
        self.code.save(BUDGET, RCX);
        self.rule(spilled);
        self.code.restore(RCX, number);
        self.code.add_rcx(1);
        self.code.save(number, RCX);
        self.rule(Rule::STEP);
        self.is_counted = true;
        self.code.restore(RCX, SPILL);
        self.rule(spilled);
    }

    /// Notes that the instruction's bytes are part of the unit.
    fn read_from(&mut self, ip: u64, more: usize) {
        match self.unit.source.last_mut() {
            Some((start, len)) if *start + u64::from(*len) == ip => *len += more as u32,
            _ => self.unit.source.push((ip, more as u32)),
        }
    }

    fn copy(&mut self, insn: &Instruction, bytes: &[u8], displacement: Option<usize>) {
        if self.loose(insn) {
            return;
        }
        let r11 = use_of_r11(insn);
        if r11.reads {
            self.load_r11();
        }
        self.guard(insn);
        if self.copied(insn, bytes, displacement) {
            self.rule(Rule::BEFORE);
        } else {
            self.far_operand(insn);
        }
        if r11.writes {
            self.code.save(GUEST_R11, R11);
            self.rule(Rule::STEP);
            self.r11 = true;
        }
        self.end(insn.len());
    }

    /// Makes R11 of the host hold the guest's.
    fn load_r11(&mut self) {
        if !std::mem::replace(&mut self.r11, true) {
            self.code.restore(R11, GUEST_R11);
            self.rule(Rule::BEFORE);
        }
    }

    /// Appends the instruction as it is but for a displacement from RIP; false if that does not reach.
    fn copied(&mut self, insn: &Instruction, bytes: &[u8], displacement: Option<usize>) -> bool {
        let Some(at) = displacement else {
            self.code.put(bytes);
            return true;
        };
        let end = self.code.here() + bytes.len() as u64;
        let moved = insn.ip_rel_memory_address().wrapping_sub(end) as i64;
        if insn.memory_base() != Register::RIP || moved != i64::from(moved as i32) {
            return false;
        }
        let start = self.code.len();
        self.code.put(bytes);
        self.code.bytes[start + at..start + at + 4].copy_from_slice(&(moved as i32).to_le_bytes());
        true
    }

    /// An operand that RIP-relative addressing does not reach from here: through a register that the instruction does not use.
    fn far_operand(&mut self, insn: &Instruction) {
        let scratch = unused_register(insn);
        let reg = scratch as u8 - Register::RAX as u8;
        self.code.save(SPILL, reg);
        self.rule(Rule::BEFORE);
        self.code.load_constant(reg, insn.ip_rel_memory_address());
        let mut rebased = *insn;
        rebased.set_memory_base(scratch);
        rebased.set_memory_displ_size(0);
        rebased.set_memory_displacement64(0);
        let mut encoder = Encoder::new(64);
        encoder.encode(&rebased, self.code.here()).expect("an instruction with another base encodes");
        self.code.put(&encoder.take_buffer());
        self.rule(Rule::before_spilled(reg));
        self.code.restore(reg, SPILL);
        self.rule(Rule::STEP);
    }

    /// The displacement of a patchable branch, which `stubs` leads to its stub; `opcode` is in front of it.
    fn exit(&mut self, opcode: &[u8], target: u64) {
        self.code.align_patch(opcode.len());
        self.code.put(opcode);
        self.unit.exits.push(UnitExit { at: self.code.len() as u32, target });
        self.code.put(&[0; 4]);
    }

    /// Ends the unit with a jump to `target`.
    fn leave_to(&mut self, target: u64) {
        self.settle(target);
        let begin = self.code.len();
        self.exit(&[0xe9], target);
        sites::put_sequence(&mut self.unit.items, 0, &[(self.code.len() - begin, Rule::BEFORE)]);
        self.stubs();
    }

    /// Ends the unit in front of an instruction that is not copied.
    fn leave_in_front(&mut self, kind: Kind) {
        match kind {
            Kind::Avx512 if self.unit.insns == 0 => self.first_of_avx512 = true,
            Kind::Avx512 if !self.is_at_entry() => self.leave_to(self.pc),
            // What begins here is made anew, by itself.
            Kind::Avx512 => self.leave_by(self.world.exits.changed),
            _ => self.leave_odd(),
        }
    }

    /// Whether nothing has been translated since the last entry.
    fn is_at_entry(&self) -> bool {
        self.unit.entries.last().is_some_and(|entry| entry.at == self.code.len() as u32)
    }

    /// Ends the unit in front of what is no instruction, or, where it is `cut`, not all there. What cannot be read, or is checked, need not be
    /// so for ever, and the unit is not told.
    fn leave_unread(&mut self, cut: bool) {
        // An exit to what begins here would lead to itself.
        if cut && self.unit.insns > 0 && !self.is_at_entry() {
            return self.leave_to(self.pc);
        }
        self.leave_odd();
    }

    /// Ends the unit in front of an instruction that is the interpreter's.
    fn leave_odd(&mut self) {
        if self.unit.insns != 0 {
            self.leave_by(self.world.exits.odd);
        }
    }

    /// Ends the unit with RIP at hand, by this exit.
    fn leave_by(&mut self, exit: u64) {
        self.settle(self.pc);
        let begin = self.code.len();
        self.code.store64(RIP, self.pc);
        self.code.jump(exit);
        sites::put_sequence(&mut self.unit.items, 0, &[(self.code.len() - begin, Rule::BEFORE)]);
        self.stubs();
    }

    /// Ends the unit: thunks of calls, and what else is out of line; exits lead to their stubs.
    fn stubs(&mut self) {
        for i in 0..self.unit.thunks.len() {
            let thunk = self.unit.thunks[i];
            self.thunk(&thunk);
        }
        self.count_taken();
        self.unusual_ways();
        for (number, exit) in (self.world.first_exit..).zip(&self.unit.exits) {
            self.code.patch(exit.at as usize, (self.world.stub)(number));
        }
        self.checked_stubs();
    }

    fn jcc(&mut self, insn: &Instruction) -> Next {
        let condition = insn.condition_code() as u8 - 1;
        self.way_out(&[0x0f, 0x80 | condition], insn, insn.near_branch_target());
        self.rule(Rule::BEFORE);
        self.end(insn.len());
        self.branches += 1;
        if self.world.check.is_none() && self.branches < MAX_BRANCHES && !(self.world.known)(insn.next_ip()) {
            return Next::On;
        }
        self.leave_to(insn.next_ip());
        Next::End
    }

    fn jump(&mut self, insn: &Instruction) -> Next {
        let target = insn.near_branch_target();
        if self.is_profiled() {
            self.end(insn.len());
            self.count_jump(insn.ip(), target);
            return Next::End;
        }
        self.branches += 1;
        let goes_on = self.world.check.is_none() && self.branches < MAX_BRANCHES;
        if goes_on && target != self.start && !self.has_read(target) && !(self.world.known)(target) {
            self.end(insn.len());
            return Next::At(target);
        }
        self.exit(&[0xe9], target);
        self.rule(Rule::BEFORE);
        self.end(insn.len());
        self.stubs();
        Next::End
    }

    /// Whether the unit goes through `pc` already: a loop, which gets a unit of its own.
    fn has_read(&self, pc: u64) -> bool {
        self.unit.source.iter().any(|&(start, len)| (start..start + u64::from(len)).contains(&pc))
    }

    /// JRCXZ, LOOP: the short branch jumps over the exit of the other way.
    fn short_only(&mut self, insn: &Instruction, bytes: &[u8]) {
        self.code.put(bytes);
        self.rule(Rule::BEFORE);
        let branch = self.code.len();
        self.way_out(&[0xe9], insn, insn.next_ip());
        self.code.bytes[branch - 1] = (self.code.len() - branch) as u8;
        self.way_out(&[0xe9], insn, insn.near_branch_target());
        self.rule(Rule::STEP);
        self.end(insn.len());
        self.stubs();
    }

    /// Makes the call at hand an entry; ends the unit with a jump to it if it is one elsewhere. There is one copy of every call: the host's
    /// return stack and the return table agree on its return point only then. Where units are profiled there may be more, because a frame
    /// says which return point is its; so what precedes a call is counted together with it.
    fn enter_call(&mut self) -> bool {
        if self.is_profiled() || self.unit.insns == 0 || self.is_at_entry() {
            return true;
        }
        if self.world.check.is_some() || self.is_entry(self.pc) {
            self.leave_to(self.pc);
            return false;
        }
        self.settle(self.pc);
        self.enter(self.pc, Way::Falls);
        true
    }

    /// Whether there is a way in at `pc`.
    fn is_entry(&self, pc: u64) -> bool {
        (self.world.known)(pc) || self.unit.entries.iter().any(|entry| entry.pc == pc)
    }

    /// Makes what follows, the code of `pc`, an entry.
    fn enter(&mut self, pc: u64, way: Way) {
        (self.r11, self.x87) = (false, false);
        let (at, items) = (self.code.len() as u32, self.unit.items.len() as u32);
        self.unit.entries.push(Entry { pc, way, at, items, counter: 0 });
    }

    /// A call of the host, so that the host's return stack knows of it, over the point where the guest's return comes back to; behind it goes
    /// on what follows the guest's call. The rest of the call is a thunk at the end of the unit, which puts the guest's return address in place
    /// of the host's, and the return point in its slot of the return table.
    fn push_return(&mut self, insn: &Instruction, to: Callee) -> Next {
        let next = insn.next_ip();
        self.code.put(&[0xe8, 0, 0, 0, 0]);
        self.rule(Rule::BEFORE);
        let (point, block) = (self.code.len() as u32, self.take_block());
        self.unit.thunks.push(Thunk { point, call: insn.ip(), next, to, block });
        self.code.put_back_below();
        self.rule(Rule::STEP);
        self.code.move_rcx_away();
        self.code.restore(RCX, RIP);
        self.rule(Rule::DONE);
        let other = if self.is_profiled() { self.world.exits.strayed } else { self.world.exits.no_return };
        self.code.check_rip(next, other);
        self.code.move_rcx_back();
        self.rule(Rule::DONE_RCX_AWAY);
        self.end(insn.len());
        if self.world.check.is_none() && self.unit.insns < MAX_INSNS && !self.is_entry(next) {
            self.enter(next, Way::Returns);
            return Next::On;
        }
        self.leave_to(next);
        Next::End
    }

    fn thunk(&mut self, thunk: &Thunk) {
        let here = self.code.here();
        self.code.patch(thunk.point as usize - 4, here);
        sites::put_pc(&mut self.unit.items, thunk.call);
        let mut sequence = Sequence::at(self.code.len());
        let is_r11_lost = self.code.store_pushed(thunk.next);
        if self.is_profiled() {
            self.call(&mut sequence, thunk);
        } else {
            self.code.store64(return_slot(thunk.next), self.code.base + u64::from(thunk.point));
            sequence.rule(self.code.len(), Rule::STEP);
            match thunk.to {
                Callee::At(target) => {
                    self.exit(&[0xe9], target);
                    sequence.rule(self.code.len(), Rule::STEP);
                }
                Callee::Computed(index) => {
                    self.take_landing(index.filter(|&reg| reg != R11 || !is_r11_lost));
                    sequence.rule(self.code.len(), Rule::DONE);
                }
            }
        }
        sites::put_sequence(&mut self.unit.items, 0, sequence.list());
    }

    fn take_landing(&mut self, index: Option<u8>) {
        match index {
            Some(reg) => self.code.take_index(reg),
            None => self.code.load_index(),
        }
        self.code.jump_landing();
    }

    /// Ends the unit with a jump to the pc at `Area::rip`, whose low 16 bits are in `index`, too.
    fn jump_landing(&mut self, insn: &Instruction, index: u8) {
        self.take_landing(Some(index));
        self.rule(Rule::DONE);
        self.end(insn.len());
        self.stubs();
    }

    /// To where the return table says, by a return of the host. The host's address is below RSP for a moment, where the return point puts
    /// back what has been there: the guest's, or, where arguments have been popped, the last of these.
    fn ret(&mut self, insn: &Instruction) {
        self.code.pop_r11();
        self.rule(Rule::BEFORE);
        self.code.save(RIP, R11);
        self.rule(Rule::STEP);
        if self.is_profiled() {
            self.code.save(BELOW, R11);
            return self.return_told(insn);
        }
        if insn.op_count() == 1 {
            self.code.adjust_rsp(u32::from(insn.immediate16()));
            self.rule(Rule::STEP);
            self.code.load_r11_below_rsp();
            self.code.save(BELOW, R11);
            self.code.load_return_index();
        } else {
            self.code.save(BELOW, R11);
            self.code.take_return_index();
        }
        self.code.push_return_point();
        self.rule(Rule::DONE);
        self.code.ret();
        self.rule(Rule::STEP);
        self.end(insn.len());
        self.stubs();
    }

    /// Stores the target of a computed jump or call to `Area::rip`; the register that it is in, too.
    fn target(&mut self, insn: &Instruction, bytes: &[u8]) -> u8 {
        if use_of_r11(insn).reads {
            self.load_r11();
        }
        let reg = if insn.op0_kind() == OpKind::Register {
            insn.op0_register() as u8 - Register::RAX as u8
        } else {
            self.load_target(insn, bytes);
            R11
        };
        self.code.save(RIP, reg);
        self.rule(Rule::BEFORE);
        reg
    }

    /// `mov r11, operand`, of the memory operand of a `jmp` or `call` with these bytes.
    fn load_target(&mut self, insn: &Instruction, bytes: &[u8]) {
        if insn.is_ip_rel_memory_operand() {
            return self.code.load_r11_from(insn.ip_rel_memory_address(), insn.segment_prefix() == Register::FS);
        }
        // FF /4 or /2 becomes REX.WR 8B /3, with the operand as it is.
        let is_prefix = |b: &u8| matches!(b, 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0x66 | 0x67 | 0xf2 | 0xf3);
        let prefixes = bytes.iter().take_while(|b| is_prefix(b)).count();
        self.code.bytes.extend(bytes[..prefixes].iter().filter(|b| matches!(b, 0x64 | 0x67)));
        let rest = &bytes[prefixes..];
        let (rex, rest) = if rest[0] & 0xf0 == 0x40 { (rest[0] & 0x43, &rest[1..]) } else { (0x40, rest) };
        self.code.put(&[rex | 0x4c, 0x8b, rest[1] & !0x38 | (R11 & 7) << 3]);
        self.code.put(&rest[2..]);
    }

    fn jump_indirect(&mut self, insn: &Instruction, bytes: &[u8]) {
        if let Some(target) = self.linkage_target(insn) {
            return self.jump_linked(insn, target);
        }
        let index = self.target(insn, bytes);
        if self.is_profiled() {
            return self.jump_told(insn);
        }
        self.jump_landing(insn, index);
    }

    fn call_indirect(&mut self, insn: &Instruction, bytes: &[u8]) -> Next {
        const RSP: u8 = 4;
        let index = self.target(insn, bytes);
        self.push_return(insn, Callee::Computed((index != RSP).then_some(index)))
    }

    fn syscall(&mut self, insn: &Instruction) {
        let rule = self.count_here();
        self.code.store64(RIP, insn.next_ip());
        self.code.jump(self.world.exits.syscall);
        self.rule(rule);
        self.end(insn.len());
        self.stubs();
    }
}

/// What an instruction does with R11.
#[derive(Clone, Copy, Default)]
struct Use {
    reads: bool,
    writes: bool,
}

fn use_of_r11(insn: &Instruction) -> Use {
    let is_r11 =
        |register: Register| matches!(register, Register::R11 | Register::R11D | Register::R11W | Register::R11L);
    let named = is_r11(insn.op0_register())
        || is_r11(insn.op1_register())
        || is_r11(insn.op2_register())
        || is_r11(insn.memory_base())
        || is_r11(insn.memory_index());
    if !named {
        return Use::default();
    }
    let mut info = InstructionInfoFactory::new();
    let mut found = Use::default();
    for used in info.info(insn).used_registers().iter().filter(|used| is_r11(used.register())) {
        let whole = matches!(used.register(), Register::R11 | Register::R11D);
        match used.access() {
            OpAccess::Write if whole => found.writes = true,
            OpAccess::Read | OpAccess::CondRead => found.reads = true,
            OpAccess::None | OpAccess::NoMemAccess => {}
            OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite => {
                found = Use { reads: true, writes: true };
            }
        }
    }
    found
}

/// A general register that `insn` does not use, other than RSP.
fn unused_register(insn: &Instruction) -> Register {
    const CHOICE: [Register; 8] = [
        Register::RCX,
        Register::RAX,
        Register::RDX,
        Register::RBX,
        Register::RSI,
        Register::RDI,
        Register::R8,
        Register::R9,
    ];
    let mut factory = InstructionInfoFactory::new();
    let used = factory.info(insn).used_registers();
    let is_free = |reg: &&Register| !used.iter().any(|u| u.register().full_register() == **reg);
    *CHOICE.iter().find(is_free).expect("no instruction uses eight registers")
}
