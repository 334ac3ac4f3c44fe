//! What has to be equal. Each rule has a name, under which `docs/DIFF.md` explains it.

use super::state::State;
use crate::arch;
use calque_frontend::decode::rflags_of;
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, Register};

/// The six status flags and DF.
const FLAGS: u64 = 0xcd5;
/// The six status flags.
pub(crate) const STATUS: u64 = 0x8d5;
/// Rule `mxcsr-flags`: sticky exception flags count where compiled code keeps the processor's.
const MXCSR: u64 = if arch::EXACT_MXCSR { !0 } else { !0x3f };

/// One thing that differs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Difference {
    pub(crate) name: String,
    pub(crate) before: String,
    pub(crate) expected: String,
    pub(crate) got: String,
}

/// How far two states have to be equal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mask {
    /// Status flags that count.
    pub(crate) flags: u64,
    /// RCX and R11 hold RIP and RFLAGS: behind SYSCALL.
    pub(crate) syscall: bool,
    /// Only RIP counts: the state at a fault of code that keeps no exact state.
    pub(crate) pc_only: bool,
}

impl Mask {
    pub(crate) const ALL: Mask = Mask { flags: STATUS, syscall: false, pc_only: false };
}

/// What differs between the follower's state (`expected`) and the leader's (`got`).
pub(crate) fn differences(before: Option<&State>, expected: &State, got: &State, mask: Mask) -> Vec<Difference> {
    let mut rows = Vec::new();
    let mut row = |name: &str, text: &dyn Fn(&State) -> String| {
        let (e, g) = (text(expected), text(got));
        if e != g {
            let before = before.map(text).unwrap_or_default();
            rows.push(Difference { name: name.into(), before, expected: e, got: g });
        }
    };
    row("rip", &|s| format!("{:#018x}", s.rip));
    if mask.pc_only {
        return rows;
    }
    for (n, reg) in calque_ir::Reg::all().take(16).enumerate() {
        // Rule `syscall-flags`: R11 is RFLAGS.
        if !(mask.syscall && n == 11) {
            row(reg.name(), &|s| format!("{:#018x}", s.gpr[n]));
        }
    }
    row("flags", &|s| flags_text(s.rflags & (mask.flags | FLAGS & !STATUS)));
    row("fs base", &|s| format!("{:#x}", s.fs_base));
    row("gs base", &|s| format!("{:#x}", s.gs_base));
    row("mxcsr", &|s| format!("{:#x}", s.mxcsr & MXCSR));
    for n in 0..16 {
        row(&format!("xmm{n}"), &|s| vector(s.xmm[n]));
        row(&format!("ymmh{n}"), &|s| vector(s.ymmh[n]));
    }
    x87(&mut row, expected);
    rows
}

/// Whether two states differ in the row of this name.
pub(crate) fn differs_in(a: &State, b: &State, name: &str) -> bool {
    differences(None, a, b, Mask::ALL).iter().any(|row| row.name == name)
}

/// Takes a row: its name, and what a state shows in it.
type Rows<'a> = dyn FnMut(&str, &dyn Fn(&State) -> String) + 'a;

/// Rule `x87-status`: C1, and behind an invalid operation all condition codes, are the vendor's.
/// Rule `x87-empty`: what an empty register holds does not count.
fn x87(row: &mut Rows<'_>, expected: &State) {
    let vendors = if expected.fsw & 1 != 0 { 0x4700 } else { 0x200 };
    row("x87 control", &|s| format!("{:#06x}", s.fcw));
    row("x87 status", &|s| format!("{:#06x}", s.fsw & !vendors));
    row("x87 in use", &|s| format!("{:08b}", s.ftw));
    for n in 0..8 {
        if expected.ftw >> n & 1 != 0 {
            let st = (n + 8 - expected.top()) % 8;
            row(&format!("st({st})"), &|s| format!("{:04x}_{:016x}", s.st[n][1], s.st[n][0]));
        }
    }
}

fn vector([low, high]: [u64; 2]) -> String {
    format!("{high:016x}_{low:016x}")
}

/// Names of the flags that are set.
pub(crate) fn flags_text(rflags: u64) -> String {
    const NAMES: [(u32, &str); 7] = [(0, "cf"), (2, "pf"), (4, "af"), (6, "zf"), (7, "sf"), (10, "df"), (11, "of")];
    let set: Vec<&str> = NAMES.into_iter().filter(|(n, _)| rflags >> n & 1 != 0).map(|(_, name)| name).collect();
    if set.is_empty() { "-".into() } else { set.join(" ") }
}

/// Rule `undefined-flags`: status flags whose value behind `insn` is known, given those known before.
pub(crate) fn known_after(before: u64, insn: &Instruction) -> u64 {
    let written = rflags_of(insn.rflags_written() | insn.rflags_cleared() | insn.rflags_set());
    let undefined = rflags_of(insn.rflags_undefined());
    // Shifts by CL and string instructions may do nothing.
    let conditional = insn.has_rep_prefix()
        || insn.has_repne_prefix()
        || (0..insn.op_count()).any(|n| insn.op_register(n) == Register::CL);
    if conditional {
        before & !undefined & !written | before & written & !undefined
    } else {
        (before | written) & !undefined
    }
}

/// Rule `syscall-flags`: status flags that count at a SYSCALL at the end of `code`: those that the instructions in a straight line
/// before it have given a defined value. The bytes may begin inside an instruction: the decoder finds its
/// step after a few.
pub(crate) fn flags_at_syscall(code: &[u8], end: u64) -> u64 {
    const SETTLED: usize = 4;
    let start = end - code.len() as u64;
    for skip in 0..code.len().min(15) {
        let insns: Vec<Instruction> =
            Decoder::with_ip(64, &code[skip..], start + skip as u64, DecoderOptions::NONE).into_iter().collect();
        let meets = insns.last().is_some_and(|i| i.next_ip() == end && i.mnemonic() == Mnemonic::Syscall);
        if !meets || insns.len() <= SETTLED || insns.iter().any(Instruction::is_invalid) {
            continue;
        }
        let mut known = 0;
        for insn in &insns[SETTLED..] {
            known = if insn.flow_control() == FlowControl::Next { known_after(known, insn) } else { 0 };
        }
        return known;
    }
    0
}

/// Rule `dead-flags`: status flags that count at `pc`: those that are read before they are written.
pub(crate) fn flags_live_at(code: &[u8], pc: u64) -> u64 {
    let (mut live, mut open) = (0, STATUS);
    for insn in Decoder::with_ip(64, code, pc, DecoderOptions::NONE) {
        if insn.is_invalid() || open == 0 {
            break;
        }
        live |= rflags_of(insn.rflags_read()) & open;
        open &= !rflags_of(insn.rflags_modified());
        if insn.flow_control() != FlowControl::Next {
            break;
        }
    }
    live
}
