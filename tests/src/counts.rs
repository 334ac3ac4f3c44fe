//! Host instructions for each row of the lifter's table, as text that is reviewed: `tests/lower/counts-<host>.txt`.
//!
//! A row stands for its widest form on registers. *alone* is the region of that one instruction, with the loads of what
//! it reads, the stores of what it writes, all flags, and the exit; *more* is what a second one behind it adds: its cost
//! in the middle of hot code, where registers are in registers and flags that nobody reads are dead (a move that only
//! repeats the one before costs nothing). Code for rare cases counts, though it does not run. *calls* counts calls of helpers in *alone*.

use calque_backend::{CompileOptions, Compiler, HostIsa};
use calque_frontend::decode::Bytes;
use calque_frontend::lift::EveryBlock;
use calque_frontend::lift::table::{self, Status};
use calque_frontend::{LiftOptions, lift_region};
use calque_ir::GuestAddr;
use calque_ir::pass::{Optimizer, Options};
use iced_x86::{Code, CodeSize, Encoder, EncodingKind, Formatter, Instruction, Mnemonic, NasmFormatter};
use iced_x86::{OpCodeOperandKind, OpKind, Register};
use std::fmt::Write;

/// Where the code stands.
const PC: u64 = 0x1000;
/// Target of branches.
const TARGET: u64 = 0x2000;

/// The text for a host.
///
/// # Panics
/// If a row cannot be compiled, or this file cannot make a form of it: our bug.
pub fn document(host: &str) -> String {
    let mut out = format!(
        "; Host instructions of a region on {host}: one guest instruction alone, what a second adds, calls of helpers in the\n\
         ; first. Written by BLESS=1 cargo test -p calque-tests --test golden counts; what it means: tests/src/counts.rs.\n\
         ; {:45} alone   more  calls\n",
        "instruction"
    );
    let mut counter = Counter::new(host);
    let lifted = table::rows().filter(|row| row.status != Status::Unimplemented);
    for row in lifted {
        let insn = representative(row.mnemonic).unwrap_or_else(|| panic!("no form of {:?} can be made", row.mnemonic));
        let once = counter.count(&bytes(&insn, 1));
        let more = match ends_block(&insn) {
            true => "-".to_owned(),
            false => (counter.count(&bytes(&insn, 2)).0 as i64 - once.0 as i64).to_string(),
        };
        let calls = if once.1 == 0 { String::new() } else { once.1.to_string() };
        let line = format!("{:47} {:5} {more:>6} {calls:>6}", assembly(&insn, row.mnemonic), once.0);
        writeln!(out, "{}", line.trim_end()).expect("to a string");
    }
    out
}

fn ends_block(insn: &Instruction) -> bool {
    insn.flow_control() != iced_x86::FlowControl::Next
}

fn assembly(insn: &Instruction, mnemonic: Mnemonic) -> String {
    let mut text = String::new();
    NasmFormatter::new().format(insn, &mut text);
    // The formatter may prefer another name of the same encoding.
    let name = format!("{mnemonic:?}").to_lowercase();
    if text.contains(&name) { text } else { format!("{text} ({name})") }
}

/// `n` times the instruction.
fn bytes(insn: &Instruction, n: usize) -> Vec<u8> {
    let mut encoder = Encoder::new(64);
    let mut at = PC;
    for _ in 0..n {
        at += encoder.encode(insn, at).expect("a form that encodes") as u64;
    }
    encoder.take_buffer()
}

/// Compiles for one host.
struct Counter {
    compiler: Compiler,
    optimizer: Optimizer,
}

impl Counter {
    fn new(host: &str) -> Self {
        let isa = HostIsa::parse(host).expect("a host");
        Self { compiler: Compiler::new(isa), optimizer: Optimizer::default() }
    }

    /// Instructions of the region that `code` is, and calls among them.
    fn count(&mut self, code: &[u8]) -> (usize, usize) {
        let reader = Bytes { pc: GuestAddr(PC), bytes: code };
        let options = LiftOptions { max_insns: 2, ..LiftOptions::default() };
        let mut region = lift_region(&reader, GuestAddr(PC), &EveryBlock, &options);
        self.optimizer.optimize(&mut region, &Options::default());
        let options = CompileOptions { first_cell: 1, ..CompileOptions::default() };
        let (_, listing) = self.compiler.explain(&region, &options).unwrap_or_else(|e| panic!("{e}\n{region}"));
        let instructions = listing.host.lines().filter(|line| is_instruction(line));
        let calls = instructions.clone().filter(|line| is_call(line)).count();
        (instructions.count(), calls)
    }
}

/// Labels and register allocation's own marks are none.
fn is_instruction(line: &str) -> bool {
    line.starts_with("  ") && !line.trim_start().starts_with("uninit")
}

fn is_call(line: &str) -> bool {
    line.trim_start().starts_with("call") || line.trim_start().starts_with("blr")
}

/// The widest register form of a mnemonic; `None` if it has none that can be made here.
fn representative(mnemonic: Mnemonic) -> Option<Instruction> {
    let made = |code: Code| {
        let op = code.op_code();
        let encoding = matches!(op.encoding(), EncodingKind::Legacy | EncodingKind::VEX);
        let fits = code.mnemonic() == mnemonic && op.mode64() && op.is_instruction() && encoding;
        let insn = make(code).filter(|_| fits)?;
        Encoder::new(64).encode(&insn, PC).ok()?;
        Some((width(&insn), insn))
    };
    // The first of the widest: the plainest form.
    let mut best: Option<(u32, Instruction)> = None;
    for (width, insn) in Code::values().filter_map(made) {
        if best.as_ref().is_none_or(|(w, _)| width > *w) {
            best = Some((width, insn));
        }
    }
    best.map(|(_, insn)| insn)
}

/// Rank of a form: registers before memory, wide before narrow.
fn width(insn: &Instruction) -> u32 {
    let registers = (0..insn.op_count()).filter(|n| insn.op_kind(*n) == OpKind::Register);
    let general = registers.clone().all(|n| !insn.op_register(n).is_segment_register());
    let widest = registers.clone().map(|n| insn.op_register(n).size() as u32).max().unwrap_or(0);
    let memory = (0..insn.op_count()).any(|n| insn.op_kind(n) == OpKind::Memory);
    let near = (0..insn.op_count()).any(|n| insn.op_kind(n) == OpKind::NearBranch64);
    u32::from(general) * 1000 + u32::from(near) * 500 + widest + u32::from(!memory) * 100
}

fn make(code: Code) -> Option<Instruction> {
    use OpCodeOperandKind::*;
    let mut insn = Instruction::new();
    insn.set_code(code);
    insn.set_code_size(CodeSize::Code64);
    let op = code.op_code();
    for n in 0..op.op_count() {
        let number = n + 1;
        let register = match op.op_kind(n) {
            r8_or_mem | r8_reg | r8_opcode => Register::AL + n,
            r16_or_mem | r16_reg | r16_reg_mem | r16_rm | r16_opcode => Register::AX + n,
            r32_or_mem | r32_or_mem_mpx | r32_reg | r32_reg_mem | r32_rm | r32_opcode | r32_vvvv => Register::EAX + n,
            r64_or_mem | r64_or_mem_mpx | r64_reg | r64_reg_mem | r64_rm | r64_opcode | r64_vvvv => Register::RAX + n,
            mm_or_mem | mm_reg | mm_rm => Register::MM0 + number,
            xmm_or_mem | xmm_reg | xmm_rm | xmm_vvvv | xmm_is4 => Register::XMM0 + number,
            ymm_or_mem | ymm_reg | ymm_rm | ymm_vvvv | ymm_is4 => Register::YMM0 + number,
            al => Register::AL,
            cl => Register::CL,
            ax => Register::AX,
            dx => Register::DX,
            eax => Register::EAX,
            rax => Register::RAX,
            st0 => Register::ST0,
            sti_opcode => Register::ST2,
            _ => Register::None,
        };
        if register != Register::None {
            insn.set_op_kind(n, OpKind::Register);
            insn.set_op_register(n, register);
            continue;
        }
        match op.op_kind(n) {
            mem => memory(&mut insn, n, Register::None),
            mem_vsib32x | mem_vsib64x => memory(&mut insn, n, Register::XMM7),
            mem_vsib32y | mem_vsib64y => memory(&mut insn, n, Register::YMM7),
            seg_rSI => insn.set_op_kind(n, OpKind::MemorySegRSI),
            es_rDI => insn.set_op_kind(n, OpKind::MemoryESRDI),
            seg_rDI => insn.set_op_kind(n, OpKind::MemorySegRDI),
            seg_rBX_al => {
                insn.set_op_kind(n, OpKind::Memory);
                insn.set_memory_base(Register::RBX);
                insn.set_memory_index(Register::AL);
            }
            br64_4 => {
                insn.set_op_kind(n, OpKind::NearBranch64);
                insn.set_near_branch64(TARGET);
            }
            br64_1 => {
                insn.set_op_kind(n, OpKind::NearBranch64);
                insn.set_near_branch64(PC + 0x40);
            }
            kind => immediate(&mut insn, n, kind)?,
        }
    }
    chain(&mut insn);
    Some(insn)
}

/// Makes a second instruction depend on the first: a destination that is only written is a source, too.
fn chain(insn: &mut Instruction) {
    let mut factory = iced_x86::InstructionInfoFactory::new();
    let written = factory.info(insn).op0_access() == iced_x86::OpAccess::Write;
    let [to, from] =
        [0, 1].map(|n| (insn.op_count() > n && insn.op_kind(n) == OpKind::Register).then(|| insn.op_register(n)));
    if let (true, Some(to), Some(from)) = (written, to, from)
        && (to.is_vector_register() || to.is_mm())
        && to.size() == from.size()
    {
        insn.set_op_register(1, to);
    }
}

fn memory(insn: &mut Instruction, n: u32, index: Register) {
    insn.set_op_kind(n, OpKind::Memory);
    insn.set_memory_base(Register::RSI);
    insn.set_memory_index(index);
    insn.set_memory_index_scale(if index == Register::None { 1 } else { 4 });
    insn.set_memory_displ_size(1);
    insn.set_memory_displacement64(16);
}

fn immediate(insn: &mut Instruction, n: u32, kind: OpCodeOperandKind) -> Option<()> {
    use OpCodeOperandKind::{imm8, imm8_const_1, imm8sex16, imm8sex32, imm8sex64, imm16, imm32, imm32sex64, imm64};
    let second = n > 0 && matches!(insn.op_kind(n - 1), OpKind::Immediate8 | OpKind::Immediate16);
    let (kind, value) = match kind {
        imm8 if second => (OpKind::Immediate8_2nd, 0),
        imm8 => (OpKind::Immediate8, 9),
        imm8_const_1 => (OpKind::Immediate8, 1),
        imm8sex16 => (OpKind::Immediate8to16, 9),
        imm8sex32 => (OpKind::Immediate8to32, 9),
        imm8sex64 => (OpKind::Immediate8to64, 9),
        imm16 => (OpKind::Immediate16, 9),
        imm32 => (OpKind::Immediate32, 9),
        imm32sex64 => (OpKind::Immediate32to64, 9),
        imm64 => (OpKind::Immediate64, 9),
        _ => return None,
    };
    insn.set_op_kind(n, kind);
    insn.set_immediate_i64(n, value);
    Some(())
}
