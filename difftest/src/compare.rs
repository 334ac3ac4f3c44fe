//! What differs between the processor and an engine, on one screen.

use crate::Case;
use crate::End;
use crate::guest::{Engine, Outcome};
use crate::pages::{DATA, MISALIGNED};
use calque_ir::CpuState;
use iced_x86::{Formatter, NasmFormatter};
use std::fmt::{self, Write};

/// One side of a comparison.
pub struct Side<'a> {
    pub cpu: &'a CpuState,
    pub data: &'a [u8],
    pub outcome: &'a Outcome,
}

/// A difference, ready to print.
#[derive(Debug)]
pub struct Report {
    /// First instruction's assembly: what to sort by.
    pub title: String,
    pub text: String,
}

impl Report {
    /// A report of something else than different results.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only campaigns on the processor use it"))]
    pub(crate) fn of_text(case: &Case, text: &str) -> Report {
        let title = case.insns().first().map(assembly).unwrap_or_default();
        Report { title, text: format!("{}  {text}\n", listing(case)) }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Status flags and DF.
const RFLAGS: u64 = 0xcd5;

/// Compares everything that the code leaves defined. The SDM leaves most condition codes of x87 undefined; they are compared as this
/// processor has them.
pub fn compare(case: &Case, engine: Engine, end: End, expected: &Side<'_>, got: &Side<'_>) -> Result<(), Report> {
    if same(0, expected, got) || expected.cpu.mxcsr & MISALIGNED != 0 {
        return Ok(());
    }
    let undefined = case.undefined(end);
    if same(undefined, expected, got) {
        return Ok(());
    }
    let rows = differences(case, undefined, expected, got);
    if rows.is_empty() { Ok(()) } else { Err(report(case, engine, &rows)) }
}

/// Whether nothing differs at all: the usual case, without the text.
fn same(undefined: u64, expected: &Side<'_>, got: &Side<'_>) -> bool {
    let (e, g) = (expected.cpu, got.cpu);
    expected.outcome == got.outcome
        && e.gpr == g.gpr
        && (e.rflags() ^ g.rflags()) & RFLAGS & !undefined == 0
        && e.xmm == g.xmm
        && e.ymmh == g.ymmh
        && e.mxcsr == g.mxcsr
        && (e.x87.control, e.x87.status, e.x87.top, e.x87.empty)
            == (g.x87.control, g.x87.status, g.x87.top, g.x87.empty)
        && e.x87.regs == g.x87.regs
        && shown_pointers(e) == shown_pointers(g)
        && expected.data == got.data
}

/// Whether recorded results, or this processor's, have AMD's pointers: an AArch64 host has only recorded ones.
fn shows_amds() -> bool {
    cfg!(not(target_arch = "x86_64")) || crate::generate::is_amd()
}

/// The x87 unit's opcode, instruction and operand pointers, as far as FXSAVE64 shows them: zero but while an exception is pending, and where
/// that shows other things, as not on AMD's processors.
pub(crate) fn shown_pointers(cpu: &CpuState) -> (u16, u64, u64) {
    let pointers = cpu.x87.pointers();
    if cpu.x87.pending() && shows_amds() {
        (pointers.opcode, pointers.instruction, pointers.operand)
    } else {
        (0, 0, 0)
    }
}

struct Row {
    name: String,
    before: String,
    expected: String,
    got: String,
}

fn differences(case: &Case, undefined: u64, expected: &Side<'_>, got: &Side<'_>) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row = |name: String, before: String, e: String, g: String| {
        if e != g {
            rows.push(Row { name, before, expected: e, got: g });
        }
    };
    row("end".into(), String::new(), end_text(expected.outcome), end_text(got.outcome));
    let (before, e, g) = (&case.cpu, expected.cpu, got.cpu);
    for (n, reg) in calque_ir::Reg::all().take(16).enumerate() {
        let text = |cpu: &CpuState| format!("{:#018x}", cpu.gpr[n]);
        row(reg.name().into(), text(before), text(e), text(g));
    }
    let mask = RFLAGS & !undefined;
    let flags = |cpu: &CpuState| flags_text(cpu.rflags() & mask);
    row("flags".into(), flags(before), flags(e), flags(g));
    for n in 0..16 {
        let text = |cpu: &CpuState| format!("{:016x}_{:016x}", cpu.xmm[n][1], cpu.xmm[n][0]);
        row(format!("xmm{n}"), text(before), text(e), text(g));
    }
    for n in 0..16 {
        let text = |cpu: &CpuState| format!("{:016x}_{:016x}", cpu.ymmh[n][1], cpu.ymmh[n][0]);
        row(format!("ymmh{n}"), text(before), text(e), text(g));
    }
    let mxcsr = |cpu: &CpuState| format!("{:#x}", cpu.mxcsr);
    row("mxcsr".into(), mxcsr(before), mxcsr(e), mxcsr(g));
    let faulted = matches!(expected.outcome, Outcome::Ended(End::Signal { .. }));
    let x87 = |cpu: &CpuState| {
        let x = &cpu.x87;
        format!("control={:04x} status={:04x} top={} empty={:08b}", x.control, x.status, x.top, x.empty)
    };
    // An x87 store converts, and an MMX store enters MMX mode, before either finds that its memory is not there.
    if !faulted {
        row("x87".into(), x87(before), x87(e), x87(g));
        let pointers = |cpu: &CpuState| format!("{:x?}", shown_pointers(cpu));
        row("x87 pointers".into(), pointers(before), pointers(e), pointers(g));
    }
    for n in 0..8 {
        let text = |cpu: &CpuState| format!("{:04x}_{:016x}", cpu.x87.regs[n][1] & 0xffff, cpu.x87.regs[n][0]);
        if e.x87.empty >> n & 1 == 0 {
            row(format!("r{n} of x87"), text(before), text(e), text(g));
        }
    }
    let differ: Vec<usize> = (0..case.data.len()).filter(|i| expected.data[*i] != got.data[*i]).collect();
    if let Some(first) = differ.first() {
        let at = first & !7;
        let text = |data: &[u8]| format!("{:02x?}", &data[at..at + 16.min(data.len() - at)]);
        row(format!("[{:#x}]", DATA + at as u64), text(&case.data), text(expected.data), text(got.data));
    }
    rows
}

fn end_text(outcome: &Outcome) -> String {
    match outcome {
        // A non-canonical address is #SS and SIGBUS where the base is RSP or RBP: the runtime's to tell apart.
        Outcome::Ended(End::Signal { number: libc::SIGBUS, pc, .. }) => format!("signal {} at {pc:#x}", libc::SIGSEGV),
        Outcome::Ended(End::Signal { number: libc::SIGFPE, code, pc }) => format!("SIGFPE code {code} at {pc:#x}"),
        Outcome::Ended(End::Signal { number, pc, .. }) => format!("signal {number} at {pc:#x}"),
        other => format!("{other:?}"),
    }
}

/// Names of the flags that are set.
pub fn flags_text(rflags: u64) -> String {
    const NAMES: [(u32, &str); 7] = [(0, "cf"), (2, "pf"), (4, "af"), (6, "zf"), (7, "sf"), (10, "df"), (11, "of")];
    let set: Vec<&str> = NAMES.into_iter().filter(|(n, _)| rflags >> n & 1 != 0).map(|(_, name)| name).collect();
    if set.is_empty() { "-".into() } else { set.join(" ") }
}

/// NASM text of one instruction.
pub fn assembly(insn: &iced_x86::Instruction) -> String {
    let mut formatter = NasmFormatter::new();
    let options = formatter.options_mut();
    options.set_hex_prefix("0x");
    options.set_hex_suffix("");
    options.set_space_after_operand_separator(true);
    let mut text = String::new();
    formatter.format(insn, &mut text);
    text
}

/// Address, bytes and assembly of the code, a line an instruction.
fn listing(case: &Case) -> String {
    let mut text = String::new();
    for insn in &case.insns() {
        let at = (insn.ip() - crate::pages::CODE) as usize;
        let bytes: String = case.code[at..at + insn.len()].iter().map(|b| format!("{b:02x}")).collect();
        writeln!(text, "  {:#x}  {bytes:<24} {}", insn.ip(), assembly(insn)).expect("to a string");
    }
    text
}

fn report(case: &Case, engine: Engine, rows: &[Row]) -> Report {
    let mut text = listing(case);
    let r = case.cpu.gpr;
    writeln!(
        text,
        "  engine {}; before: rbx={:#x} rsp={:#x} rsi={:#x} rdi={:#x} r13={:#x} r12={:#x} rcx={:#x} rax={:#x} mxcsr={:#x}",
        engine.name(),
        r[3],
        r[4],
        r[6],
        r[7],
        r[13],
        r[12],
        r[1],
        r[0],
        case.cpu.mxcsr
    )
    .expect("to a string");
    let width = |side: fn(&Row) -> &str| rows.iter().map(|r| side(r).len()).max().unwrap_or(0).max(8);
    let (before, expected) = (width(|r| &r.before), width(|r| &r.expected));
    writeln!(text, "    {:<14} {:<before$}   {:<expected$}   got", "", "before", "expected").expect("to a string");
    for r in rows {
        writeln!(text, "  * {:<14} {:<before$}   {:<expected$}   {}", r.name, r.before, r.expected, r.got)
            .expect("to a string");
    }
    Report { title: case.insns().first().map(assembly).unwrap_or_default(), text }
}
