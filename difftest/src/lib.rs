//! Instructions against the real processor.
//!
//! Random legal encodings of every lifted mnemonic, alone and in short sequences (deferred flags only show between
//! instructions), run on the processor and on each engine from the same registers, flags, vectors, x87 state and
//! memory; everything is compared. What the SDM leaves undefined is masked: the flags that iced-x86 lists as
//! undefined, until an instruction sets them again.
//!
//! | file          | what                                      |
//! |---------------|-------------------------------------------|
//! | `generate.rs` | instructions and states                   |
//! | `pages.rs`    | the memory that all of them work on       |
//! | `native.rs`   | the processor                             |
//! | `guest.rs`    | the engines                               |
//! | `jit.rs`      | compiled code as one of them              |
//! | `campaign.rs` | many cases, found again by seed and index  |
//! | `compare.rs`  | what differs, and the report              |
//! | `line.rs`     | cases as lines of `tests/insn/*.case`     |

#[cfg(target_arch = "x86_64")]
pub mod campaign;
pub mod compare;
pub mod generate;
pub mod guest;
pub mod jit;
pub mod line;
#[cfg(target_arch = "x86_64")]
pub mod native;
pub mod pages;

use calque_frontend::decode::rflags_of;
use calque_frontend::lift::table::{self, Status};
use calque_ir::CpuState;
use generate::{Generator, encodings};
use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic, Register};
use pages::{CODE, TAKEN};

/// How the code under test ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Behind the last instruction.
    Through,
    /// At [`pages::TAKEN`].
    Taken,
    /// With this signal at this pc; registers as the processor reported them.
    /// `code` is `si_code`, as far as `number` is SIGFPE.
    Signal { number: i32, code: i32, pc: u64 },
}

/// One test: code, the state before, the memory before.
pub struct Case {
    pub code: Vec<u8>,
    pub cpu: CpuState,
    pub data: Vec<u8>,
}

impl Clone for Case {
    fn clone(&self) -> Self {
        Self { code: self.code.clone(), cpu: copy(&self.cpu), data: self.data.clone() }
    }
}

impl Case {
    /// The instructions.
    pub fn insns(&self) -> Vec<Instruction> {
        Decoder::with_ip(64, &self.code, CODE, DecoderOptions::NONE).into_iter().collect()
    }

    /// RFLAGS bits that the code leaves undefined when it ends so.
    pub fn undefined(&self, end: End) -> u64 {
        let stop = if let End::Signal { pc, .. } = end { pc } else { u64::MAX };
        let insns = self.insns();
        let mut executed = insns.iter().take_while(|i| i.ip() < stop);
        if stop != u64::MAX && executed.clone().any(|i| i.is_jcc_short_or_near()) {
            return executed.map(|i| rflags_of(i.rflags_undefined())).fold(0, |all, bits| all | bits);
        }
        executed.try_fold(0, |undefined, i| Some(undefined_after(undefined, i))).unwrap_or_default()
    }
}

/// RFLAGS bits undefined behind an instruction, given those undefined before it.
fn undefined_after(before: u64, insn: &Instruction) -> u64 {
    let may_do_nothing = insn.has_rep_prefix() || insn.has_repne_prefix() || shifts_by_cl(insn);
    let defined = insn.rflags_written() | insn.rflags_cleared() | insn.rflags_set();
    let defined = if may_do_nothing { 0 } else { defined };
    before & !rflags_of(defined) | rflags_of(insn.rflags_undefined())
}

/// Shifts and rotations by CL leave all flags as they are where the count is 0.
fn shifts_by_cl(insn: &Instruction) -> bool {
    (0..insn.op_count()).any(|n| insn.op_register(n) == Register::CL)
}

/// A copy of the guest's registers.
pub fn copy(cpu: &CpuState) -> CpuState {
    let mut new = CpuState::new();
    new.copy_guest_from(cpu);
    new
}

/// The lifted mnemonics that can be tested, with their encodings.
pub fn subjects() -> Vec<(Mnemonic, Vec<Code>)> {
    table::rows()
        .filter(|row| matches!(row.status, Status::Lifted { .. }))
        .map(|row| (row.mnemonic, encodings(row.mnemonic)))
        .filter(|(_, codes)| !codes.is_empty())
        .collect()
}

/// One instruction.
pub fn single(g: &mut Generator, codes: &[Code]) -> Option<Vec<u8>> {
    let code = g.choose(codes);
    g.instruction(code, CODE)
}

/// Appends `len` instructions, none of which reads a flag that is undefined there or writes R15; yields the flags
/// undefined behind them.
fn append(g: &mut Generator, codes: &[Code], len: usize, code: &mut Vec<u8>, mut undefined: u64) -> u64 {
    let mut left = len;
    while left > 0 {
        let pc = CODE + code.len() as u64;
        let kind = g.choose(codes);
        let Some(bytes) = g.instruction(kind, pc) else { continue };
        let insn = Decoder::with_ip(64, &bytes, pc, DecoderOptions::NONE).decode();
        // Images show undefined and sticky bits, and bits of MXCSR that only AMD has; a random x87 control word unmasks exceptions.
        let images = matches!(
            insn.mnemonic(),
            Mnemonic::Pushfq
                | Mnemonic::Pushf
                | Mnemonic::Stmxcsr
                | Mnemonic::Vstmxcsr
                | Mnemonic::Fldcw
                | Mnemonic::Fldenv
                | Mnemonic::Frstor
                | Mnemonic::Fxrstor
                | Mnemonic::Fxrstor64
                | Mnemonic::Fxsave
                | Mnemonic::Fxsave64
        );
        // Whether an address is looked at whose bytes are masked out is the processor's choice (SDM vol. 2, MASKMOVDQU), and RDI may
        // point anywhere.
        let masked = matches!(insn.mnemonic(), Mnemonic::Maskmovq | Mnemonic::Maskmovdqu | Mnemonic::Vmaskmovdqu);
        if rflags_of(insn.rflags_read()) & undefined != 0 || images || masked || g.writes(&insn, Register::R15) {
            continue;
        }
        undefined = undefined_after(undefined, &insn);
        code.extend(bytes);
        left -= 1;
    }
    undefined
}

/// Several instructions that may end in a conditional jump.
pub fn sequence(g: &mut Generator, codes: &[Code], len: usize) -> Vec<u8> {
    let mut code = Vec::new();
    let undefined = append(g, codes, len, &mut code, 0);
    if undefined == 0 {
        let jump = g.conditional_jump(CODE + code.len() as u64, TAKEN);
        code.extend(jump);
    }
    code
}

/// A loop of R15D rounds with a conditional part inside.
pub fn looped(g: &mut Generator, codes: &[Code], len: usize) -> Vec<u8> {
    const DEFINE_FLAGS: [u8; 3] = [0x45, 0x39, 0xc8]; // cmp r8d, r9d
    const NEXT_ROUND: [u8; 5] = [0x41, 0xff, 0xcf, 0x0f, 0x85]; // dec r15d; jnz
    let mut code = Vec::new();
    let undefined = append(g, codes, len, &mut code, 0);
    if undefined != 0 {
        code.extend(DEFINE_FLAGS);
    }
    let at = code.len();
    code.extend([0; 6]);
    let undefined = append(g, codes, len, &mut code, 0);
    let jump = g.conditional_jump(CODE + at as u64, CODE + code.len() as u64);
    code[at..at + 6].copy_from_slice(&jump);
    append(g, codes, len, &mut code, undefined);
    code.extend(DEFINE_FLAGS);
    code.extend(NEXT_ROUND);
    let back = -(code.len() as i32 + 4);
    code.extend(back.to_le_bytes());
    code
}
