//! The guest's call stack, for crash reports.
//!
//! `.eh_frame` as the guest has it in memory is the truth where there is one: it also leads through signal handlers (the C
//! library describes its `sa_restorer`) and through functions without a frame pointer. Elsewhere the
//! frame pointer is tried, and at a wild pc (a call through a bad pointer) the return address on top of the stack. A frame says how
//! it was found, since the last two are guesses.

use crate::access;
use crate::memory::Prot;
use crate::symbols::{Module, Symbols};
use addr2line::gimli::Encoding;
use addr2line::gimli::{
    BaseAddresses, CfaRule, EhFrame, EhFrameHdr, EndianSlice, EvaluationResult, LittleEndian, Location, Register,
    RegisterRule, UnwindContext, UnwindExpression, UnwindSection, Value, X86_64,
};
use calque_ir::{CpuState, GuestAddr};

/// How a frame was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Found {
    /// Where the thread is.
    Here,
    /// Unwind tables: certain.
    Tables,
    /// RBP chain: a guess.
    FramePointer,
    /// A return address on top of the stack: a guess.
    StackTop,
}

/// A function that has not returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Frame {
    /// Where it goes on.
    pub pc: GuestAddr,
    pub found: Found,
}

/// Registers by their DWARF numbers (System V ABI figure 3.36): RAX RDX RCX RBX RSI RDI RBP RSP R8..R15, return address.
#[derive(Clone, Copy)]
struct Registers([u64; 17]);

const BP: usize = 6;
const SP: usize = 7;
const RA: usize = 16;

type Slice<'a> = EndianSlice<'a, LittleEndian>;

impl Registers {
    fn of(cpu: &CpuState) -> Self {
        let [ax, cx, dx, bx, sp, bp, si, di, r8, r9, r10, r11, r12, r13, r14, r15] = cpu.gpr;
        Self([ax, dx, cx, bx, si, di, bp, sp, r8, r9, r10, r11, r12, r13, r14, r15, cpu.rip])
    }

    fn get(&self, register: Register) -> Option<u64> {
        self.0.get(usize::from(register.0)).copied()
    }
}

/// Frames that a report shows at most.
const MAX_FRAMES: usize = 64;

/// The call stack of a thread with these registers, innermost first.
pub(crate) fn backtrace(cpu: &CpuState, symbols: &Symbols) -> Vec<Frame> {
    let mut registers = Registers::of(cpu);
    let mut frames = vec![Frame { pc: GuestAddr(cpu.rip), found: Found::Here }];
    while frames.len() < MAX_FRAMES {
        let innermost = frames.len() == 1;
        let Some((next, found)) = caller(&registers, symbols, innermost) else { break };
        if next.0[RA] == 0 || next.0[SP] <= registers.0[SP] {
            break;
        }
        frames.push(Frame { pc: GuestAddr(next.0[RA]), found });
        registers = next;
    }
    frames
}

fn caller(registers: &Registers, symbols: &Symbols, innermost: bool) -> Option<(Registers, Found)> {
    // A return address may be the first byte of the next function: look one byte before it.
    let pc = registers.0[RA] - u64::from(!innermost);
    if let Some(module) = symbols.module(GuestAddr(pc))
        && let Some(next) = by_tables(registers, &module, pc)
    {
        return Some((next, Found::Tables));
    }
    let executable = |pc: u64| symbols.mapping(GuestAddr(pc)).is_some_and(|m| m.prot.contains(Prot::EXEC));
    if innermost && !executable(pc) {
        let top = word(registers.0[SP]).filter(|&pc| executable(pc))?;
        return Some((returned(registers, registers.0[BP], registers.0[SP], top), Found::StackTop));
    }
    let bp = registers.0[BP];
    let (saved, pc) = (word(bp)?, word(bp.wrapping_add(8))?);
    executable(pc).then(|| (returned(registers, saved, bp.wrapping_add(8), pc), Found::FramePointer))
}

/// Registers after returning to `pc`, which lay at `slot`.
fn returned(registers: &Registers, bp: u64, slot: u64, pc: u64) -> Registers {
    let mut next = *registers;
    (next.0[BP], next.0[SP], next.0[RA]) = (bp, slot.wrapping_add(8), pc);
    next
}

fn word(addr: u64) -> Option<u64> {
    access::read(GuestAddr(addr)).ok()
}

/// Longest `.eh_frame` that is read, in bytes.
const MAX_TABLE: usize = 64 << 20;

fn by_tables(registers: &Registers, module: &Module, pc: u64) -> Option<Registers> {
    let (at, len) = module.unwind?;
    let mut header = vec![0; usize::try_from(len).ok().filter(|&len| len < MAX_TABLE)?];
    access::read_bytes(at, &mut header).ok()?;
    let bases = BaseAddresses::default().set_eh_frame_hdr(at.0);
    let header = EhFrameHdr::new(&header, LittleEndian).parse(&bases, 8).ok()?;
    let start = header.eh_frame_ptr().pointer();
    let section = readable_from(GuestAddr(start));
    let eh_frame = EhFrame::new(&section, LittleEndian);
    let bases = bases.set_eh_frame(start);
    let mut context = UnwindContext::new();
    let row =
        header.table()?.unwind_info_for_address(&eh_frame, &bases, &mut context, pc, EhFrame::cie_from_offset).ok()?;
    let cfa = match row.cfa() {
        CfaRule::RegisterAndOffset { register, offset } => registers.get(*register)?.wrapping_add_signed(*offset),
        CfaRule::Expression(e) => evaluate(e, &eh_frame, registers, None)?,
    };
    let mut next = *registers;
    next.0[SP] = cfa;
    for number in 0..=RA {
        let register = if number == RA { X86_64::RA } else { Register(number as u16) };
        let value = match row.register(register) {
            Some(RegisterRule::Undefined) if number == RA => return None,
            Some(RegisterRule::Offset(offset)) => word(cfa.wrapping_add_signed(offset))?,
            Some(RegisterRule::ValOffset(offset)) => cfa.wrapping_add_signed(offset),
            Some(RegisterRule::Register(other)) => registers.get(other)?,
            Some(RegisterRule::Expression(e)) => word(evaluate(&e, &eh_frame, registers, Some(cfa))?)?,
            Some(RegisterRule::ValExpression(e)) => evaluate(&e, &eh_frame, registers, Some(cfa))?,
            _ => continue,
        };
        next.0[number] = value;
    }
    Some(next)
}

/// Guest memory from `start` to the end of its mapping: `.eh_frame` ends with a zero word before that.
fn readable_from(start: GuestAddr) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut page = [0; 4096];
    let mut at = start;
    while bytes.len() < MAX_TABLE {
        let room = (4096 - at.0 % 4096) as usize;
        if access::read_bytes(at, &mut page[..room]).is_err() {
            break;
        }
        bytes.extend_from_slice(&page[..room]);
        at = at.wrapping_add(room as u64);
    }
    bytes
}

/// A DWARF expression: those of signal trampolines and PLT entries use registers, memory and the CFA.
fn evaluate(
    expression: &UnwindExpression<usize>,
    section: &EhFrame<Slice<'_>>,
    registers: &Registers,
    cfa: Option<u64>,
) -> Option<u64> {
    let encoding = Encoding { address_size: 8, format: addr2line::gimli::Format::Dwarf32, version: 4 };
    let mut evaluation = expression.get(section).ok()?.evaluation(encoding);
    if let Some(cfa) = cfa {
        evaluation.set_initial_value(cfa);
    }
    let mut state = evaluation.evaluate().ok()?;
    loop {
        state = match state {
            EvaluationResult::Complete => break,
            EvaluationResult::RequiresRegister { register, .. } => {
                evaluation.resume_with_register(Value::Generic(registers.get(register)?)).ok()?
            }
            EvaluationResult::RequiresMemory { address, .. } => {
                evaluation.resume_with_memory(Value::Generic(word(address)?)).ok()?
            }
            EvaluationResult::RequiresCallFrameCfa => evaluation.resume_with_call_frame_cfa(cfa?).ok()?,
            _ => return None,
        };
    }
    match evaluation.result().first()?.location {
        Location::Address { address } => Some(address),
        Location::Value { value } => value.to_u64(!0).ok(),
        _ => None,
    }
}
