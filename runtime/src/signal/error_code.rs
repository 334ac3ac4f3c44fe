//! Error codes of exceptions. Code that has found the fault does not know all of them, so the instruction is looked at once more.
//!
//! #GP (SDM vol. 3 6.13): the selector that was refused, or the vector of a software interrupt; otherwise 0. #PF: SDM vol. 3 4.7.

use crate::access;
use crate::crash;
use crate::thread::{Access, MemoryCause};
use calque_ir::{CpuState, GuestAddr};
use iced_x86::{Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register, UsedMemory};

/// Bits of a page fault's error code: the page is present; the access writes; it is the user's; it fetches an instruction.
const PRESENT: u64 = 1;
const WRITE: u64 = 2;
const USER: u64 = 4;
const FETCH: u64 = 0x10;

/// The error code of the page fault that the instruction at RIP raises.
pub(super) fn of_page(addr: GuestAddr, access: Access, cause: MemoryCause, cpu: &CpuState) -> u64 {
    let wanted = match access {
        Access::Read if is_modified(cpu) => WRITE,
        Access::Read => 0,
        Access::Write => WRITE,
        Access::Execute => FETCH,
    };
    // Of the kernel's half Linux says that all pages are present (arch/x86/mm/fault.c: `sanitize_error_code`).
    let present = cause == MemoryCause::Protection || (addr.0 as i64) < 0;
    USER | wanted | if present { PRESENT } else { 0 }
}

/// Whether the instruction at RIP writes to what it reads from memory: for the processor, its first access is a write.
fn is_modified(cpu: &CpuState) -> bool {
    let Some(insn) = crash::decoded(GuestAddr(cpu.rip)) else { return false };
    let mut factory = InstructionInfoFactory::new();
    let accesses = factory.info(&insn).used_memory().iter().map(|memory| memory.access());
    accesses.into_iter().any(|access| matches!(access, OpAccess::ReadWrite | OpAccess::ReadCondWrite))
}

/// In the error code of an interrupt: its index is one of the interrupt table.
const INTERRUPT: u64 = 2;
/// Bits of a selector that are not its privilege level, which has no place in an error code.
const INDEX_AND_TABLE: u16 = 0xfffc;

/// Whether the #GP that the instruction at RIP raises is a #SS: of an address that is not canonical, in the stack segment (SDM vol. 1 3.3.7.1).
pub(super) fn is_of_stack(cpu: &CpuState) -> bool {
    let Some(insn) = crash::decoded(GuestAddr(cpu.rip)) else { return false };
    let value = |reg| if reg == Register::None { Some(0) } else { register(cpu, reg) };
    let mut factory = InstructionInfoFactory::new();
    let address = |memory: &UsedMemory| {
        let index = value(memory.index())?.wrapping_mul(memory.scale().into());
        Some(value(memory.base())?.wrapping_add(index).wrapping_add(memory.displacement()))
    };
    let memory = factory.info(&insn).used_memory().iter();
    memory
        .filter(|memory| memory.segment() == Register::SS)
        .filter_map(address)
        .any(|at| (at as i64) << 16 >> 16 != at as i64)
}

/// The error code of the #GP that the instruction at RIP raises.
pub(super) fn of_protection(cpu: &CpuState) -> u64 {
    let Some(insn) = crash::decoded(GuestAddr(cpu.rip)) else { return 0 };
    if insn.mnemonic() == Mnemonic::Int {
        return u64::from(insn.immediate8()) << 3 | INTERRUPT;
    }
    u64::from(selector(&insn, cpu).unwrap_or(0) & INDEX_AND_TABLE)
}

/// The selector that an instruction loads.
fn selector(insn: &Instruction, cpu: &CpuState) -> Option<u16> {
    let rsp = GuestAddr(cpu.gpr[4]);
    match insn.mnemonic() {
        Mnemonic::Mov if insn.op0_register().is_segment_register() => match insn.op1_kind() {
            OpKind::Register => register(cpu, insn.op1_register()).map(|v| v as u16),
            _ => access::read(address(insn, 1, cpu)?).ok(),
        },
        Mnemonic::Pop if insn.op0_register().is_segment_register() => access::read(rsp).ok(),
        // The offset comes first.
        Mnemonic::Lss | Mnemonic::Lfs | Mnemonic::Lgs | Mnemonic::Jmp | Mnemonic::Call => {
            let operand = (0..insn.op_count()).find(|op| insn.op_kind(*op) == OpKind::Memory)?;
            let offset = insn.memory_size().size().checked_sub(2)? as u64;
            access::read(address(insn, operand, cpu)?.wrapping_add(offset)).ok()
        }
        Mnemonic::Retf | Mnemonic::Iret | Mnemonic::Iretd | Mnemonic::Iretq => {
            let offset =
                insn.stack_pointer_increment().unsigned_abs() / if insn.mnemonic() == Mnemonic::Retf { 2 } else { 5 };
            access::read(rsp.wrapping_add(u64::from(offset))).ok()
        }
        _ => None,
    }
}

fn address(insn: &Instruction, operand: u32, cpu: &CpuState) -> Option<GuestAddr> {
    insn.virtual_address(operand, 0, |reg, _, _| register(cpu, reg)).map(GuestAddr)
}

/// A general register, RIP, or the base of a segment.
fn register(cpu: &CpuState, reg: Register) -> Option<u64> {
    match reg {
        Register::FS => Some(cpu.fs_base),
        Register::GS => Some(cpu.gs_base),
        reg if reg.is_segment_register() => Some(0),
        reg if reg.is_gpr() => {
            let value = cpu.gpr[reg.full_register() as usize - Register::RAX as usize];
            Some(if reg.is_gpr32() { value & 0xffff_ffff } else { value })
        }
        _ => None,
    }
}
