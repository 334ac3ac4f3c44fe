//! From guest bytes to the host code of one unit.
//!
//! A unit begins at a guest pc and goes on through conditional branches that are not taken and through direct jumps, as long as what is
//! there has no unit yet, up to [`MAX_INSNS`]. Every way out is a direct exit, a computed jump, or one of the exits that say
//! what the dispatcher is to do.

use super::classify::{Kind, Kinds};
use super::emit::{BUDGET, Code, EXIT, RCX, RIP, SPILL, X87_USED, counter};
use super::sites::{self, Phase, Rule};
use iced_x86::{Decoder, DecoderOptions, Encoder, Instruction, InstructionInfoFactory, OpKind, Register};

/// Most guest instructions of a unit.
const MAX_INSNS: u32 = 64;
/// Most conditional branches and jumps that a unit goes on through.
const MAX_BRANCHES: u32 = 6;
/// Longest instruction (SDM vol. 2 2.3.11).
const MAX_INSN: usize = 15;

/// Where units can go that are not units: offsets in the header of code memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exits {
    pub(super) link: u64,
    pub(super) syscall: u64,
    pub(super) odd: u64,
    pub(super) stop: u64,
}

/// Which instructions units count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Counted {
    Nothing,
    /// Jumps, calls and returns, taken or not.
    Branches,
    Instructions,
}

/// A direct exit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct UnitExit {
    /// Offset in the code of the displacement that leads out.
    pub(super) at: u32,
    /// Offset of its stub.
    pub(super) stub: u32,
    pub(super) target: u64,
}

/// The code of one unit.
#[derive(Default)]
pub(super) struct Unit {
    pub(super) exits: Vec<UnitExit>,
    /// See `sites`.
    pub(super) items: Vec<u8>,
    /// Guest ranges it was made from: start and bytes.
    pub(super) source: Vec<(u64, u32)>,
    pub(super) insns: u32,
}

/// What translation needs from outside.
pub(super) struct World<'a> {
    /// Copies guest code from a pc on, and returns how many bytes; 0 if it is not executable.
    pub(super) read: &'a mut dyn FnMut(u64, &mut [u8]) -> usize,
    /// Whether there is a unit for a pc already.
    pub(super) known: &'a dyn Fn(u64) -> bool,
    /// The counter of the instruction at a pc.
    pub(super) counter: &'a mut dyn FnMut(u64) -> u32,
    pub(super) exits: Exits,
    /// Number of the unit's first exit.
    pub(super) first_exit: u32,
}

/// How a unit's translation goes on behind an instruction.
enum Next {
    On,
    At(u64),
    End,
}

/// Translates units; keeps its memory between them.
pub(super) struct Translator {
    kinds: Kinds,
    window: [u8; 256],
    pub(super) unit: Unit,
    pub(super) counted: Counted,
}

impl Translator {
    pub(super) fn new() -> Self {
        Self { kinds: Kinds::new(), window: [0; 256], unit: Unit::default(), counted: Counted::Nothing }
    }

    /// See [`Kinds::gate`].
    pub(super) fn gate(&mut self) {
        self.kinds.gate();
    }

    /// Appends the unit at `pc` to `code`. False if its first instruction is the interpreter's, or cannot be read.
    pub(super) fn translate(&mut self, pc: u64, code: &mut Code, world: &mut World<'_>) -> bool {
        let unit = std::mem::take(&mut self.unit);
        let mut pass = Pass {
            kinds: &mut self.kinds,
            unit: unit.emptied(),
            code,
            world,
            pc,
            branches: 0,
            x87: false,
            start: pc,
            counted: self.counted,
            list: Vec::new(),
            is_counted: false,
        };
        pass.run(&mut self.window);
        self.unit = pass.unit;
        self.unit.insns != 0
    }
}

impl Unit {
    /// Itself with nothing in it, for its memory.
    fn emptied(mut self) -> Unit {
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
    start: u64,
    counted: Counted,
    /// Lengths and rules of the host instructions of the guest instruction at hand.
    list: Vec<(usize, Rule)>,
    /// It has been counted.
    is_counted: bool,
}

impl Pass<'_, '_> {
    fn run(&mut self, window: &mut [u8; 256]) {
        'run: loop {
            let (from, len) = (self.pc, (self.world.read)(self.pc, window));
            let mut decoder = Decoder::with_ip(64, &window[..len], from, DecoderOptions::NONE);
            let mut insn = Instruction::default();
            loop {
                if self.unit.insns == MAX_INSNS {
                    return self.leave_to(self.pc);
                }
                let at = decoder.position();
                decoder.decode_out(&mut insn);
                if insn.is_invalid() {
                    if decoder.last_error() == iced_x86::DecoderError::NoMoreBytes && at != 0 && len - at < MAX_INSN {
                        // Perhaps only the window ends here.
                        continue 'run;
                    }
                    return self.leave_odd();
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
        let kind = self.kinds.of(insn);
        if kind == Kind::Odd {
            self.leave_odd();
            return Next::End;
        }
        self.read_from(insn);
        self.unit.insns += 1;
        self.list.clear();
        self.is_counted = false;
        let is_copied = matches!(kind, Kind::Copy | Kind::CopyX87);
        let counts = match self.counted {
            Counted::Nothing => false,
            Counted::Branches => !is_copied && kind != Kind::Syscall,
            Counted::Instructions => true,
        };
        if counts {
            self.count();
        }
        let begin = self.code.len();
        match kind {
            Kind::Copy => self.copy(insn, bytes, displacement, begin),
            Kind::CopyX87 => {
                if !self.x87 {
                    self.x87 = true;
                    self.code.store32(X87_USED, 1);
                }
                self.copy(insn, bytes, displacement, begin);
            }
            Kind::Jcc => return self.jcc(insn),
            Kind::ShortOnly => self.short_only(insn, bytes),
            Kind::Jump => return self.jump(insn),
            Kind::Call => self.call(insn),
            Kind::JumpIndirect => self.jump_indirect(insn, bytes),
            Kind::CallIndirect => self.call_indirect(insn, bytes),
            Kind::Return => self.ret(insn),
            Kind::Syscall => self.syscall(insn),
            Kind::Odd | Kind::Unknown | Kind::CopyMaybeMmx => unreachable!("`of` gives none, or handled above"),
        }
        if is_copied { Next::On } else { Next::End }
    }

    /// Notes the host instructions from `begin` on, a part of the guest instruction at hand.
    fn part(&mut self, begin: usize, rule: Rule) {
        let counted = self.is_counted && rule.phase == Phase::Before;
        self.list.push((self.code.len() - begin, Rule { counted, ..rule }));
    }

    /// Ends the guest instruction, of so many bytes.
    fn end(&mut self, guest: usize) {
        match self.list[..] {
            [(host, Rule::BEFORE)] => sites::put(&mut self.unit.items, guest, host),
            _ => sites::put_sequence(&mut self.unit.items, guest, &self.list),
        }
    }

    /// Counts the instruction at hand, or leaves in front of it if the budget is used up.
    fn count(&mut self) {
        let number = counter((self.world.counter)(self.pc));
        let (spilled, pc, stop) = (Rule::before_spilled(RCX), self.pc, self.world.exits.stop);
        self.step(Rule::BEFORE, |code| code.save(SPILL, RCX));
        self.step(spilled, |code| code.restore(RCX, BUDGET));
        // jrcxz over the jump over what leaves
        self.step(spilled, |code| code.put(&[0xe3, 2]));
        self.step(spilled, |code| code.put(&[0xeb, 0]));
        let over = self.code.len();
        self.step(spilled, |code| code.restore(RCX, SPILL));
        self.step(Rule::BEFORE, |code| {
            code.store64(RIP, pc);
            code.jump(stop);
        });
        self.code.bytes[over - 1] = (self.code.len() - over) as u8;
        self.step(spilled, |code| code.add_rcx(u32::MAX));
        self.step(spilled, |code| code.save(BUDGET, RCX));
        self.step(Rule::STEP, |code| code.restore(RCX, number));
        self.step(Rule::STEP, |code| code.add_rcx(1));
        self.step(Rule::STEP, |code| code.save(number, RCX));
        self.is_counted = true;
        self.step(spilled, |code| code.restore(RCX, SPILL));
    }

    /// Writes a host instruction, a part of the guest instruction at hand.
    fn step(&mut self, rule: Rule, write: impl FnOnce(&mut Code)) {
        let begin = self.code.len();
        write(self.code);
        self.part(begin, rule);
    }

    /// Notes that the instruction's bytes are part of the unit.
    fn read_from(&mut self, insn: &Instruction) {
        match self.unit.source.last_mut() {
            Some((start, len)) if *start + u64::from(*len) == insn.ip() => *len += insn.len() as u32,
            _ => self.unit.source.push((insn.ip(), insn.len() as u32)),
        }
    }

    fn copy(&mut self, insn: &Instruction, bytes: &[u8], displacement: Option<usize>, begin: usize) {
        let Some(at) = displacement else {
            self.code.put(bytes);
            self.part(begin, Rule::BEFORE);
            return self.end(bytes.len());
        };
        let end = self.code.here() + bytes.len() as u64;
        let moved = insn.ip_rel_memory_address().wrapping_sub(end) as i64;
        let short = insn.memory_base() == Register::RIP && moved == i64::from(moved as i32);
        if short {
            let start = self.code.len();
            self.code.put(bytes);
            self.code.bytes[start + at..start + at + 4].copy_from_slice(&(moved as i32).to_le_bytes());
            self.part(begin, Rule::BEFORE);
            self.end(bytes.len());
        } else {
            self.far_operand(insn, begin);
        }
    }

    /// An operand that RIP-relative addressing does not reach from here: through a register that the instruction does not use.
    fn far_operand(&mut self, insn: &Instruction, begin: usize) {
        let scratch = unused_register(insn);
        let reg = scratch as u8 - Register::RAX as u8;
        let spilled = Rule::before_spilled(reg);
        self.code.save(SPILL, reg);
        self.part(begin, Rule::BEFORE);
        let begin = self.code.len();
        self.code.load_constant(reg, insn.ip_rel_memory_address());
        self.part(begin, spilled);
        let mut rebased = *insn;
        rebased.set_memory_base(scratch);
        rebased.set_memory_displ_size(0);
        rebased.set_memory_displacement64(0);
        let mut encoder = Encoder::new(64);
        encoder.encode(&rebased, self.code.here()).expect("an instruction with another base encodes");
        let begin = self.code.len();
        self.code.put(&encoder.take_buffer());
        self.part(begin, spilled);
        let begin = self.code.len();
        self.code.restore(reg, SPILL);
        self.part(begin, Rule::STEP);
        self.end(insn.len());
    }

    /// The displacement of a patchable branch, with its stub to be made by `stubs`; `opcode` is in front of it.
    fn exit(&mut self, opcode: &[u8], target: u64) {
        self.code.align_patch(opcode.len());
        self.code.put(opcode);
        self.unit.exits.push(UnitExit { at: self.code.len() as u32, stub: 0, target });
        self.code.put(&[0; 4]);
    }

    /// Ends the unit with a jump to `target`, then writes the stubs of its exits.
    fn leave_to(&mut self, target: u64) {
        let begin = self.code.len();
        self.exit(&[0xe9], target);
        sites::put_sequence(&mut self.unit.items, 0, &[(self.code.len() - begin, Rule::BEFORE)]);
        self.stubs();
    }

    /// Ends the unit in front of an instruction that is the interpreter's.
    fn leave_odd(&mut self) {
        if self.unit.insns == 0 {
            return;
        }
        let begin = self.code.len();
        self.code.store64(RIP, self.pc);
        self.code.jump(self.world.exits.odd);
        sites::put_sequence(&mut self.unit.items, 0, &[(self.code.len() - begin, Rule::BEFORE)]);
        self.stubs();
    }

    fn stubs(&mut self) {
        let first = self.world.first_exit;
        for (i, exit) in self.unit.exits.iter_mut().enumerate() {
            exit.stub = self.code.len() as u32;
            self.code.patch(exit.at as usize, self.code.here());
            self.code.store32(EXIT, first + i as u32);
            self.code.jump(self.world.exits.link);
        }
    }

    fn jcc(&mut self, insn: &Instruction) -> Next {
        let begin = self.code.len();
        let condition = insn.condition_code() as u8 - 1;
        self.exit(&[0x0f, 0x80 | condition], insn.near_branch_target());
        self.part(begin, Rule::BEFORE);
        self.end(insn.len());
        self.branches += 1;
        if self.branches < MAX_BRANCHES && !(self.world.known)(insn.next_ip()) {
            return Next::On;
        }
        self.leave_to(insn.next_ip());
        Next::End
    }

    fn jump(&mut self, insn: &Instruction) -> Next {
        let target = insn.near_branch_target();
        self.branches += 1;
        if self.branches < MAX_BRANCHES && target != self.start && !self.has_read(target) && !(self.world.known)(target)
        {
            self.end(insn.len());
            return Next::At(target);
        }
        let begin = self.code.len();
        self.exit(&[0xe9], target);
        self.part(begin, Rule::BEFORE);
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
        let begin = self.code.len();
        self.code.put(bytes);
        self.part(begin, Rule::BEFORE);
        let displacement = self.code.len() - 1;
        let branch = self.code.len();
        self.exit(&[0xe9], insn.next_ip());
        self.code.bytes[displacement] = (self.code.len() - branch) as u8;
        self.exit(&[0xe9], insn.near_branch_target());
        self.part(branch, Rule::STEP);
        self.end(insn.len());
        self.stubs();
    }

    /// Pushes the guest's return address, by instructions of which the first has `rule`.
    fn push_return(&mut self, pc: u64, rule: Rule) {
        let begin = self.code.len();
        self.code.push32(pc as u32);
        self.part(begin, rule);
        if pc as i64 != i64::from(pc as i32) {
            let begin = self.code.len();
            self.code.store_pushed_high((pc >> 32) as u32);
            self.part(begin, Rule::STEP);
        }
    }

    fn call(&mut self, insn: &Instruction) {
        self.push_return(insn.next_ip(), Rule::BEFORE);
        let begin = self.code.len();
        self.exit(&[0xe9], insn.near_branch_target());
        self.part(begin, Rule::STEP);
        self.end(insn.len());
        self.stubs();
    }

    /// Ends the unit with a jump to the pc at `Area::rip`; RCX is spilled.
    fn jump_landing(&mut self, insn: &Instruction) {
        let done = Rule::done_spilled(RCX);
        let begin = self.code.len();
        self.code.load_index();
        self.part(begin, done);
        let begin = self.code.len();
        self.code.jump_landing();
        self.part(begin, done);
        self.end(insn.len());
        self.stubs();
    }

    fn ret(&mut self, insn: &Instruction) {
        let begin = self.code.len();
        self.code.save(SPILL, RCX);
        self.part(begin, Rule::BEFORE);
        let begin = self.code.len();
        self.code.pop_rip();
        self.part(begin, Rule::BEFORE);
        if insn.op_count() == 1 {
            let begin = self.code.len();
            self.code.adjust_rsp(u32::from(insn.immediate16()));
            self.part(begin, Rule::STEP);
        }
        self.jump_landing(insn);
    }

    /// Stores the target of a computed jump or call to `Area::rip`; whether RCX has been overwritten.
    fn target(&mut self, insn: &Instruction, bytes: &[u8]) -> bool {
        let begin = self.code.len();
        self.code.save(SPILL, RCX);
        self.part(begin, Rule::BEFORE);
        let begin = self.code.len();
        if insn.op0_kind() == OpKind::Register {
            self.code.save(RIP, insn.op0_register() as u8 - Register::RAX as u8);
            self.part(begin, Rule::BEFORE);
            return false;
        }
        self.load_target(insn, bytes);
        self.part(begin, Rule::BEFORE);
        let begin = self.code.len();
        self.code.save(RIP, RCX);
        self.part(begin, Rule::before_spilled(RCX));
        true
    }

    /// `mov rcx, operand`, of the memory operand of a `jmp` or `call` with these bytes.
    fn load_target(&mut self, insn: &Instruction, bytes: &[u8]) {
        if insn.is_ip_rel_memory_operand() {
            let address = insn.ip_rel_memory_address();
            self.code.load_constant(RCX, address);
            if insn.segment_prefix() == Register::FS {
                self.code.put(&[0x64]);
            }
            self.code.put(&[0x48, 0x8b, 0x09]);
            return;
        }
        // FF /4 or /2 becomes REX.W 8B /1, with the operand as it is.
        let is_prefix = |b: &u8| matches!(b, 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0x66 | 0x67 | 0xf2 | 0xf3);
        let prefixes = bytes.iter().take_while(|b| is_prefix(b)).count();
        self.code.bytes.extend(bytes[..prefixes].iter().filter(|b| matches!(b, 0x64 | 0x67)));
        let rest = &bytes[prefixes..];
        let (rex, rest) = if rest[0] & 0xf0 == 0x40 { (rest[0] & 0x43, &rest[1..]) } else { (0x40, rest) };
        self.code.put(&[rex | 0x48, 0x8b, rest[1] & !0x38 | RCX << 3]);
        self.code.put(&rest[2..]);
    }

    fn jump_indirect(&mut self, insn: &Instruction, bytes: &[u8]) {
        self.target(insn, bytes);
        self.jump_landing(insn);
    }

    fn call_indirect(&mut self, insn: &Instruction, bytes: &[u8]) {
        let overwritten = self.target(insn, bytes);
        let rule = if overwritten { Rule::before_spilled(RCX) } else { Rule::BEFORE };
        self.push_return(insn.next_ip(), rule);
        self.jump_landing(insn);
    }

    fn syscall(&mut self, insn: &Instruction) {
        let begin = self.code.len();
        self.code.store64(RIP, insn.next_ip());
        self.code.jump(self.world.exits.syscall);
        self.part(begin, Rule::BEFORE);
        self.end(insn.len());
        self.stubs();
    }
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
