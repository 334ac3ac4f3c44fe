//! The report of a guest that dies by a fault: one screen that says where, on what, and how it came there.
//!
//! ```text
//! calque: the guest died by SIGSEGV (address not mapped), write to 0x0
//!   at 0x401136 main+0x10 in a.out at crash.c:4
//!   c7 00 01 00 00 00          mov dword ptr [rax],1
//!   rax ...                    registers
//!   backtrace:                 frames, with a note where one is a guess
//!   memory:                    what pc and fault address are mapped to
//!   last system calls:         oldest first
//! ```
//!
//! Printed by the dying thread at a safepoint, so it may allocate and lock. `--no-crash-report` silences it; a guest
//! that handles the signal is not reported at all.

use crate::access;
use crate::memory::{Mapping, Prot};
use crate::signal::{SigInfo, signal_name};
use crate::symbols::Symbols;
use crate::thread::Thread;
use crate::unwind::{Found, backtrace};
use calque_frontend::CodeReader;
use calque_frontend::decode::{Decoded, MAX_INSN, Window};
use calque_ir::{CpuState, GuestAddr};
use std::fmt::Write;

/// System calls of a thread that a report shows.
const RECENT: usize = 8;

/// The last system calls of a thread.
#[derive(Default)]
pub struct RecentCalls {
    calls: [RecentCall; RECENT],
    count: usize,
}

#[derive(Clone, Copy, Default)]
struct RecentCall {
    nr: u64,
    args: [u64; 6],
    result: Option<u64>,
}

impl RecentCalls {
    /// A call begins: number and arguments as the registers have them (System V ABI A.2.1).
    pub fn begin(&mut self, cpu: &CpuState) {
        let gpr = &cpu.gpr;
        let args = [gpr[7], gpr[6], gpr[2], gpr[10], gpr[8], gpr[9]];
        self.calls[self.count % RECENT] = RecentCall { nr: gpr[0], args, result: None };
        self.count += 1;
    }

    /// The call that began last has returned.
    pub fn end(&mut self, cpu: &CpuState) {
        self.calls[(self.count + RECENT - 1) % RECENT].result = Some(cpu.gpr[0]);
    }

    fn oldest_first(&self) -> impl Iterator<Item = &RecentCall> {
        (self.count.saturating_sub(RECENT)..self.count).map(|i| &self.calls[i % RECENT])
    }
}

/// Prints why the guest dies, unless `--no-crash-report` was given.
pub fn report(thread: &mut Thread, info: &SigInfo, access: Option<&'static str>) {
    if thread.process.options.crash_report {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = write_report(&mut text, thread, info, access);
        eprint!("{text}");
    }
}

fn write_report(
    out: &mut String,
    thread: &mut Thread,
    info: &SigInfo,
    access: Option<&'static str>,
) -> std::fmt::Result {
    let mut symbols = Symbols::new(&thread.process.mem);
    let pc = GuestAddr(thread.cpu.rip);
    write!(out, "calque: the guest died by {} ({})", signal_name(info.signo), code_in_words(info))?;
    match access {
        Some(access) => writeln!(out, ", {access} {:#x}", info.addr())?,
        None => writeln!(out)?,
    }
    writeln!(out, "  at {pc} {}", symbols.place(pc))?;
    writeln!(out, "  {}", instruction(pc))?;
    registers(out, &thread.cpu)?;
    stack(out, &thread.cpu, &mut symbols)?;
    writeln!(out, "  memory:")?;
    writeln!(out, "    pc       {}", mapping(symbols.mapping(pc)))?;
    if access.is_some() {
        writeln!(out, "    address  {}", mapping(symbols.mapping(GuestAddr(info.addr()))))?;
    }
    recent_calls(out, thread)
}

/// `si_code` of a fault (asm-generic/siginfo.h).
fn code_in_words(info: &SigInfo) -> &'static str {
    match (info.signo, info.code) {
        (libc::SIGSEGV, 1) => "address not mapped",
        (libc::SIGSEGV, 2) => "access not permitted",
        (libc::SIGSEGV, _) => "general protection: not a valid address or instruction",
        (libc::SIGBUS, 2) => "behind the end of a mapped file",
        (libc::SIGBUS, _) => "misaligned access",
        (libc::SIGFPE, 1) => "integer division by zero, or the quotient is too large",
        (libc::SIGFPE, 3) => "floating point division by zero",
        (libc::SIGFPE, 4) => "floating point overflow",
        (libc::SIGFPE, 5) => "floating point underflow",
        (libc::SIGFPE, 6) => "floating point result not exact",
        (libc::SIGFPE, _) => "invalid floating point operation",
        (libc::SIGILL, _) => "illegal instruction",
        (libc::SIGTRAP, _) => "breakpoint or trap",
        _ => "fault",
    }
}

/// Guest memory for the disassembler, without the marks that translation leaves.
pub(crate) struct Memory;

impl CodeReader for Memory {
    fn read(&self, pc: GuestAddr, buf: &mut [u8; MAX_INSN]) -> usize {
        let room = (4096 - pc.0 % 4096).min(MAX_INSN as u64) as usize;
        let first = if access::read_bytes(pc, &mut buf[..room]).is_ok() { room } else { 0 };
        let rest = pc.wrapping_add(room as u64);
        if first == room && access::read_bytes(rest, &mut buf[room..]).is_ok() { MAX_INSN } else { first }
    }
}

/// Bytes and disassembly of the instruction at `pc`.
pub(crate) fn instruction(pc: GuestAddr) -> String {
    let mut bytes = [0; MAX_INSN];
    let readable = Memory.read(pc, &mut bytes);
    let (what, insn) = Window::<32>::new().one(&Memory, pc);
    let (len, text) = match what {
        Decoded::Insn => (insn.len(), insn.to_string()),
        Decoded::Invalid => (readable.min(8), "(no instruction)".to_owned()),
        Decoded::Unfetchable => (readable, "(not readable)".to_owned()),
    };
    let hex: Vec<String> = bytes[..len].iter().map(|b| format!("{b:02x}")).collect();
    format!("{:<23} {text}", hex.join(" ")).trim_start().to_owned()
}

/// Length in bytes of the instruction at `pc`.
pub(crate) fn length(pc: GuestAddr) -> u64 {
    Window::<32>::new().one(&Memory, pc).1.len() as u64
}

/// The instruction at `pc`, if there is one.
pub(crate) fn decoded(pc: GuestAddr) -> Option<iced_x86::Instruction> {
    let (what, insn) = Window::<32>::new().one(&Memory, pc);
    (what == Decoded::Insn).then_some(insn)
}

/// Whether the instruction at `pc` is a string instruction that repeats.
pub(crate) fn repeats(pc: GuestAddr) -> bool {
    decoded(pc).is_some_and(|i| i.is_string_instruction() && (i.has_rep_prefix() || i.has_repne_prefix()))
}

fn registers(out: &mut String, cpu: &CpuState) -> std::fmt::Result {
    const NAMES: [&str; 16] =
        ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];
    for row in 0..4 {
        let cells = (4 * row..4 * row + 4).map(|i| format!("{:<3} {:016x}", NAMES[i], cpu.gpr[i]));
        writeln!(out, "  {}", cells.collect::<Vec<_>>().join("  "))?;
    }
    let flags = [(0, "cf"), (2, "pf"), (4, "af"), (6, "zf"), (7, "sf"), (10, "df"), (11, "of")];
    let rflags = cpu.rflags();
    let set: Vec<&str> = flags.iter().filter(|(bit, _)| rflags >> bit & 1 != 0).map(|(_, name)| *name).collect();
    writeln!(
        out,
        "  rflags {rflags:x} [{}]  fs {:x}  gs {:x}  mxcsr {:x}",
        set.join(" "),
        cpu.fs_base,
        cpu.gs_base,
        cpu.mxcsr
    )
}

fn stack(out: &mut String, cpu: &CpuState, symbols: &mut Symbols) -> std::fmt::Result {
    writeln!(out, "  backtrace:")?;
    for (i, frame) in backtrace(cpu, symbols).iter().enumerate() {
        let note = match frame.found {
            Found::Here | Found::Tables => "",
            Found::FramePointer => "  (guessed from the frame pointer)",
            Found::StackTop => "  (guessed from the top of the stack)",
        };
        let place = if i == 0 { symbols.place(frame.pc) } else { symbols.call_before(frame.pc) };
        writeln!(out, "    #{i:<2} {:#014x} {place}{note}", frame.pc.0)?;
    }
    Ok(())
}

fn mapping(mapping: Option<&Mapping>) -> String {
    let Some(m) = mapping else { return "not mapped".to_owned() };
    let flag = |prot, letter| if m.prot.contains(prot) { letter } else { '-' };
    let (r, w, x) = (flag(Prot::READ, 'r'), flag(Prot::WRITE, 'w'), flag(Prot::EXEC, 'x'));
    let name = match (&m.file, m.name) {
        (Some((file, _)), _) => file.path.to_string_lossy().into_owned(),
        (None, name) => name.unwrap_or("anonymous").to_owned(),
    };
    format!("{:#x}-{:#x} {r}{w}{x} {name}", m.range.start.0, m.range.end.0)
}

fn recent_calls(out: &mut String, thread: &mut Thread) -> std::fmt::Result {
    writeln!(out, "  last system calls of thread {} (buffers as they are now):", thread.tid)?;
    let calls: Vec<RecentCall> = thread.recent.oldest_first().copied().collect();
    for call in calls {
        writeln!(out, "    {}", thread.process.syscalls.describe(thread, call.nr, call.args, call.result))?;
    }
    Ok(())
}
