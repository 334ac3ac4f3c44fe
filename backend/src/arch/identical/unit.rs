//! From guest bytes to the host code of one unit.
//!
//! A unit begins at a guest pc and goes on through conditional branches that are not taken and through direct jumps, as long as what is
//! there has no unit yet, up to [`MAX_INSNS`]. Every way out is a direct exit, a computed jump, or one of the exits that say
//! what the dispatcher is to do.

use super::classify::{Kind, Kinds};
use super::emit::{Code, EXIT, RCX, RIP, SPILL, X87_USED};
use super::sites::{self, Rule};
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
}

impl Translator {
    pub(super) fn new() -> Self {
        Self { kinds: Kinds::new(), window: [0; 256], unit: Unit::default() }
    }

    /// See [`Kinds::gate`].
    pub(super) fn gate(&mut self) {
        self.kinds.gate();
    }

    /// Appends the unit at `pc` to `code`. False if its first instruction is the interpreter's, or cannot be read.
    pub(super) fn translate(&mut self, pc: u64, code: &mut Code, world: &mut World<'_>) -> bool {
        let unit = std::mem::take(&mut self.unit);
        let mut pass =
            Pass { kinds: &mut self.kinds, unit: unit.emptied(), code, world, pc, branches: 0, x87: false, start: pc };
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
        if matches!(kind, Kind::Copy | Kind::CopyX87) { Next::On } else { Next::End }
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
            sites::put(&mut self.unit.items, bytes.len(), self.code.len() - begin);
            return;
        };
        let end = self.code.here() + bytes.len() as u64;
        let moved = insn.ip_rel_memory_address().wrapping_sub(end) as i64;
        let short = insn.memory_base() == Register::RIP && moved == i64::from(moved as i32);
        if short {
            let start = self.code.len();
            self.code.put(bytes);
            self.code.bytes[start + at..start + at + 4].copy_from_slice(&(moved as i32).to_le_bytes());
            sites::put(&mut self.unit.items, bytes.len(), self.code.len() - begin);
        } else {
            self.far_operand(insn, begin);
        }
    }

    /// An operand that RIP-relative addressing does not reach from here: through a register that the instruction does not use.
    fn far_operand(&mut self, insn: &Instruction, begin: usize) {
        let scratch = unused_register(insn);
        let reg = scratch as u8 - Register::RAX as u8;
        self.code.save(SPILL, reg);
        let saved = self.code.len();
        self.code.load_constant(reg, insn.ip_rel_memory_address());
        let loaded = self.code.len();
        let mut rebased = *insn;
        rebased.set_memory_base(scratch);
        rebased.set_memory_displ_size(0);
        rebased.set_memory_displacement64(0);
        let mut encoder = Encoder::new(64);
        encoder.encode(&rebased, self.code.here()).expect("an instruction with another base encodes");
        self.code.put(&encoder.take_buffer());
        let done = self.code.len();
        self.code.restore(reg, SPILL);
        let spilled = Rule::before_spilled(reg);
        sites::put_sequence(
            &mut self.unit.items,
            insn.len(),
            &[
                (saved - begin, Rule::BEFORE),
                (loaded - saved, spilled),
                (done - loaded, spilled),
                (self.code.len() - done, Rule::STEP),
            ],
        );
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
        sites::put(&mut self.unit.items, insn.len(), self.code.len() - begin);
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
            put_nothing(&mut self.unit.items, insn.len());
            return Next::At(target);
        }
        let begin = self.code.len();
        self.exit(&[0xe9], target);
        sites::put(&mut self.unit.items, insn.len(), self.code.len() - begin);
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
        let displacement = self.code.len() - 1;
        let branch = self.code.len();
        self.exit(&[0xe9], insn.next_ip());
        self.code.bytes[displacement] = (self.code.len() - branch) as u8;
        self.exit(&[0xe9], insn.near_branch_target());
        sites::put_sequence(
            &mut self.unit.items,
            insn.len(),
            &[(branch - begin, Rule::BEFORE), (self.code.len() - branch, Rule::STEP)],
        );
        self.stubs();
    }

    /// Pushes the guest's return address; the lengths and rules of the instructions, of which the first has `rule`.
    fn push_return(&mut self, pc: u64, rule: Rule, list: &mut Vec<(usize, Rule)>) {
        let begin = self.code.len();
        self.code.push32(pc as u32);
        list.push((self.code.len() - begin, rule));
        if pc as i64 != i64::from(pc as i32) {
            let begin = self.code.len();
            self.code.store_pushed_high((pc >> 32) as u32);
            list.push((self.code.len() - begin, Rule::STEP));
        }
    }

    fn call(&mut self, insn: &Instruction) {
        let mut list = Vec::with_capacity(4);
        self.push_return(insn.next_ip(), Rule::BEFORE, &mut list);
        let begin = self.code.len();
        self.exit(&[0xe9], insn.near_branch_target());
        list.push((self.code.len() - begin, Rule::STEP));
        sites::put_sequence(&mut self.unit.items, insn.len(), &list);
        self.stubs();
    }

    /// Ends the unit with a jump to the pc at `Area::rip`; RCX is spilled.
    fn jump_landing(&mut self, insn: &Instruction, mut list: Vec<(usize, Rule)>) {
        let done = Rule::done_spilled(RCX);
        let begin = self.code.len();
        self.code.load_index();
        list.push((self.code.len() - begin, done));
        let begin = self.code.len();
        self.code.jump_landing();
        list.push((self.code.len() - begin, done));
        sites::put_sequence(&mut self.unit.items, insn.len(), &list);
        self.stubs();
    }

    fn ret(&mut self, insn: &Instruction) {
        let mut list = Vec::with_capacity(5);
        let begin = self.code.len();
        self.code.save(SPILL, RCX);
        list.push((self.code.len() - begin, Rule::BEFORE));
        let begin = self.code.len();
        self.code.pop_rip();
        list.push((self.code.len() - begin, Rule::BEFORE));
        if insn.op_count() == 1 {
            let begin = self.code.len();
            self.code.adjust_rsp(u32::from(insn.immediate16()));
            list.push((self.code.len() - begin, Rule::STEP));
        }
        self.jump_landing(insn, list);
    }

    /// Stores the target of a computed jump or call to `Area::rip`; whether RCX has been overwritten.
    fn target(&mut self, insn: &Instruction, bytes: &[u8], list: &mut Vec<(usize, Rule)>) -> bool {
        let begin = self.code.len();
        self.code.save(SPILL, RCX);
        list.push((self.code.len() - begin, Rule::BEFORE));
        let begin = self.code.len();
        if insn.op0_kind() == OpKind::Register {
            self.code.save(RIP, insn.op0_register() as u8 - Register::RAX as u8);
            list.push((self.code.len() - begin, Rule::BEFORE));
            return false;
        }
        self.load_target(insn, bytes);
        list.push((self.code.len() - begin, Rule::BEFORE));
        let begin = self.code.len();
        self.code.save(RIP, RCX);
        list.push((self.code.len() - begin, Rule::before_spilled(RCX)));
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
        let mut list = Vec::with_capacity(5);
        self.target(insn, bytes, &mut list);
        self.jump_landing(insn, list);
    }

    fn call_indirect(&mut self, insn: &Instruction, bytes: &[u8]) {
        let mut list = Vec::with_capacity(6);
        let overwritten = self.target(insn, bytes, &mut list);
        let rule = if overwritten { Rule::before_spilled(RCX) } else { Rule::BEFORE };
        self.push_return(insn.next_ip(), rule, &mut list);
        self.jump_landing(insn, list);
    }

    fn syscall(&mut self, insn: &Instruction) {
        let begin = self.code.len();
        self.code.store64(RIP, insn.next_ip());
        self.code.jump(self.world.exits.syscall);
        sites::put_sequence(&mut self.unit.items, insn.len(), &[(self.code.len() - begin, Rule::BEFORE)]);
        self.stubs();
    }
}

/// An instruction that needs no host code.
fn put_nothing(items: &mut Vec<u8>, guest: usize) {
    sites::put_sequence(items, guest, &[]);
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
