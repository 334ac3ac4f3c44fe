//! `tests/insn/*.case`: what single instructions do, a line each, the same on every host and in every engine.
//!
//! ```text
//! add rax,rbx [48 01 d8] | rax=0x1 rbx=0xff flags=cf => rax=0x100 flags=pf,af
//! ```
//!
//! Assembly (`;` between instructions), its bytes, what matters of the state before, and everything that has changed behind it. The rest of the
//! initial state is random with the assembly as seed: **what is not named after `=>` must not change**, except for
//! `undef=` flags. General registers that [`crate::generate`] uses as pointers point into the data pages.
//!
//! | name                      | what                                                             |
//! |---------------------------|------------------------------------------------------------------|
//! | `rax` .. `r15`            | general registers                                                |
//! | `flags`, `undef`          | the status flags and DF that are set; those that are undefined   |
//! | `xmm0` .. `xmm15`         | `high_low`                                                       |
//! | `ymmh0` .. `ymmh15`       | bits 128 to 256, likewise                                        |
//! | `mxcsr`                   | control and sticky flags                                         |
//! | `data`                    | before `=>`: number of random contents for all of the memory     |
//! | `fcw`, `fsw`, `ftop`, `fempty` | x87 control, status, top, empty registers as a mask |
//! | `fop`, `fip`, `fdp`       | x87 opcode, instruction and operand pointers; behind `=>` only while an exception is pending |
//! | `r0` .. `r7` of x87 as `f0` .. `f7` | `exponent_mantissa`                                    |
//! | `[0x45779000]`            | eight bytes of memory                                            |
//! | `end`                     | `signalN`: a fault; without a number, going on behind it        |
//!
//! With `BLESS=1` on an x86-64 host the processor itself fills in what stands behind `=>`, and the assembler (`as`)
//! missing bytes.

use crate::guest::{Engine, Guest, Outcome};
#[cfg(not(target_arch = "x86_64"))]
use crate::pages::Pages;
use crate::pages::{DATA, DATA_SIZE};
use crate::{Case, End, copy, generate};
use calque_backend::HostIsa;
use calque_ir::CpuState;
use std::fmt::Write;

/// A line that says something wrong.
type Result<T> = std::result::Result<T, String>;

/// A parsed line.
pub struct Line {
    pub assembly: String,
    pub before: Vec<(String, String)>,
    pub after: Vec<(String, String)>,
    pub case: Case,
}

/// Whether the processor's answers replace those of the lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bless {
    Yes,
    No,
}

/// The runner of case files: the engines and, to bless, the processor.
pub struct Runner {
    bless: Bless,
    #[cfg(target_arch = "x86_64")]
    native: crate::native::Native,
    #[cfg(not(target_arch = "x86_64"))]
    pages: Pages,
    guest: Guest,
}

impl Runner {
    /// Maps the pages that cases work on.
    pub fn new(bless: Bless) -> Self {
        Self {
            bless,
            #[cfg(target_arch = "x86_64")]
            native: crate::native::Native::take(),
            #[cfg(not(target_arch = "x86_64"))]
            pages: Pages::take(),
            guest: Guest::new(),
        }
    }

    /// The text that a file should be: lines that do not hold get a comment that says how.
    pub fn expected(&mut self, text: &str) -> String {
        let mut out = String::new();
        for line in text.lines().filter(|line| !line.starts_with("; error: ")) {
            if line.trim().is_empty() || line.starts_with(';') {
                out.push_str(line);
            } else {
                match self.line(line) {
                    Ok(wanted) => out.push_str(&wanted),
                    Err(e) => write!(out, "{line}\n; error: {e}").expect("to a string"),
                }
            }
            out.push('\n');
        }
        out
    }

    /// Runs one line; yields it as it should be.
    fn line(&mut self, text: &str) -> Result<String> {
        let line = parse(text)?;
        let blessed = if self.bless == Bless::Yes { self.bless(&line)? } else { text.to_owned() };
        let line = parse(&blessed)?;
        for &engine in Engine::ALL {
            let faults = line.after.iter().any(|(name, _)| name == "end");
            let caught = matches!(engine, Engine::Jit | Engine::Auto) && cfg!(target_arch = "x86_64");
            let compiled =
                matches!(engine, Engine::Jit | Engine::Hot) || engine == Engine::Auto && cfg!(target_arch = "aarch64");
            if engine == Engine::Hot && line.case.insns().len() == 1 {
                continue; // a region of one instruction is a block
            }
            if compiled && (faults && !caught || is_atomic(&line.case) && cfg!(not(target_arch = "x86_64"))) {
                continue; // faults of compiled code, and unaligned atomics on AArch64, are the runtime's signal handler's
            }
            let (mut cpu, mut data) = (copy(&line.case.cpu), line.case.data.clone());
            let outcome = {
                #[cfg(target_arch = "x86_64")]
                let pages = self.native.pages();
                #[cfg(not(target_arch = "x86_64"))]
                let pages = &mut self.pages;
                self.guest.run(engine, pages, &line.case.code, &mut cpu, &mut data)
            };
            let undefined = undefined_flags(&line.after)?;
            if compiled && cfg!(not(target_arch = "x86_64")) {
                cpu.mxcsr = forgiven(cpu.mxcsr, mxcsr_behind(&line)?, &line.case);
            }
            let got = changes(&line.case, &cpu, &data, &outcome, undefined);
            let mut wanted = line.after.clone();
            wanted.retain(|(name, _)| name != "undef");
            if got != wanted {
                return Err(format!("{engine:?} gives {}", fields(&got)));
            }
        }
        Ok(blessed)
    }

    /// The line with what the processor does.
    #[cfg(target_arch = "x86_64")]
    fn bless(&mut self, line: &Line) -> Result<String> {
        let (mut cpu, mut data) = (copy(&line.case.cpu), line.case.data.clone());
        let end = self.native.run_one(&line.case.code, &mut cpu, &mut data).map_err(|e| e.to_string())?;
        let undefined = line.case.undefined(end);
        let mut after = changes(&line.case, &cpu, &data, &Outcome::Ended(end), undefined);
        if undefined != 0 {
            after.push(("undef".into(), flags_text(undefined)));
        }
        Ok(line_text(&line.assembly, &line.case.code, &line.before, &after))
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn bless(&mut self, line: &Line) -> Result<String> {
        Ok(line_text(&line.assembly, &line.case.code, &line.before, &line.after))
    }
}

/// MXCSR as a line wants it in the end.
fn mxcsr_behind(line: &Line) -> Result<u32> {
    let mut case = line.case.clone();
    line.after.iter().filter(|(name, _)| name == "mxcsr").try_for_each(|(name, v)| set(&mut case, name, v))?;
    Ok(case.cpu.mxcsr)
}

/// MXCSR after compiled code on AArch64, without what is known to deviate there, by its name in docs/ISA.md, "Deviations".
fn forgiven(got: u32, wanted: u32, case: &Case) -> u32 {
    const IE: u32 = 1 << 0;
    const DE: u32 = 1 << 1;
    const UE: u32 = 1 << 4;
    const PE: u32 = 1 << 5;
    let alternate = HostIsa::native().has("afp");
    let fused = case.insns().iter().any(|i| i.cpuid_features().contains(&iced_x86::CpuidFeature::FMA));
    let only_if = |deviates: bool, flag: u32| if deviates { flag } else { 0 };
    let denormal_flag = only_if(!alternate, DE & wanted);
    let early_underflow = only_if(!alternate && wanted & PE != 0, UE & !wanted);
    let fused_invalid = only_if(fused, IE & !wanted);
    let fused_denormal = only_if(fused && alternate, DE & !wanted);
    (got | denormal_flag) & !(early_underflow | fused_invalid | fused_denormal)
}

/// Whether the code has an instruction that is lifted as an atomic operation.
fn is_atomic(case: &Case) -> bool {
    use iced_x86::Mnemonic::{Cmpxchg, Cmpxchg8b, Cmpxchg16b, Xadd, Xchg};
    let exchanges = |m| matches!(m, Cmpxchg | Cmpxchg8b | Cmpxchg16b | Xadd | Xchg);
    case.insns().iter().any(|i| i.has_lock_prefix() || exchanges(i.mnemonic()))
}

/// The line of a case: what its code reads stands before `=>`, what the processor made of it behind.
#[cfg(target_arch = "x86_64")]
pub fn of_case(case: &Case, data_seed: u64, answer: Option<&crate::native::Answer>) -> String {
    let insns = case.insns();
    let texts: Vec<String> = insns.iter().map(crate::compare::assembly).collect();
    let assembly = texts.join("; ");
    let mut before = vec![("data".to_owned(), format!("{data_seed:#x}"))];
    let mut note = |name: String| {
        if let Some(value) = get(&case.cpu, &case.data, &name).filter(|_| before.iter().all(|(n, _)| *n != name)) {
            before.push((name, value));
        }
    };
    let mut factory = iced_x86::InstructionInfoFactory::new();
    let mut fpu = false;
    for insn in &insns {
        for used in factory.info(insn).used_registers() {
            let name = format!("{:?}", used.register().full_register()).to_lowercase();
            match name.strip_prefix("zmm").or_else(|| name.strip_prefix("ymm")) {
                Some(n) => [format!("xmm{n}"), format!("ymmh{n}")].into_iter().for_each(&mut note),
                None => note(name),
            }
            fpu |= used.register().is_mm() || used.register().is_st();
        }
        fpu |= insn.cpuid_features().contains(&iced_x86::CpuidFeature::FPU);
    }
    ["flags", "mxcsr"].into_iter().map(str::to_owned).for_each(&mut note);
    if fpu {
        names().filter(|name| name.starts_with('f')).for_each(&mut note);
    }
    let mut after = Vec::new();
    if let Some(answer) = answer {
        let mut data = case.data.clone();
        answer.apply(&mut data);
        let undefined = case.undefined(answer.end);
        after = changes(case, &answer.cpu, &data, &Outcome::Ended(answer.end), undefined);
        if undefined != 0 {
            after.push(("undef".into(), flags_text(undefined)));
        }
    }
    line_text(&assembly, &case.code, &before, &after)
}

fn line_text(assembly: &str, code: &[u8], before: &[(String, String)], after: &[(String, String)]) -> String {
    let bytes: Vec<String> = code.iter().map(|b| format!("{b:02x}")).collect();
    let arrow = if after.is_empty() { "=>".to_owned() } else { format!("=> {}", fields(after)) };
    let before = if before.is_empty() { String::new() } else { format!("{} ", fields(before)) };
    format!("{assembly} [{}] | {before}{arrow}", bytes.join(" "))
}

fn fields(fields: &[(String, String)]) -> String {
    let texts: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
    texts.join(" ")
}

fn parse(text: &str) -> Result<Line> {
    let (code, states) = text.split_once(" | ").ok_or("no ` | `")?;
    let (before, after) = states.split_once("=>").ok_or("no `=>`")?;
    let (assembly, bytes) = match code.rsplit_once(" [").and_then(|(head, tail)| Some((head, bytes_of(tail)?))) {
        Some((assembly, bytes)) => (assembly, bytes),
        None => (code, assemble(code)?),
    };
    let (before, after) = (parse_fields(before)?, parse_fields(after)?);
    let mut case = initial(assembly.trim(), bytes);
    for (name, value) in &before {
        set(&mut case, name, value)?;
    }
    Ok(Line { assembly: assembly.trim().to_owned(), before, after, case })
}

/// Bytes in hexadecimal before a `]`; `None` for a memory operand.
fn bytes_of(text: &str) -> Option<Vec<u8>> {
    text.strip_suffix(']')?
        .split_whitespace()
        .map(|b| u8::from_str_radix(b, 16).ok().filter(|_| b.len() == 2))
        .collect()
}

fn parse_fields(text: &str) -> Result<Vec<(String, String)>> {
    let field = |f: &str| {
        f.split_once('=').map(|(n, v)| (n.to_owned(), v.to_owned())).ok_or(format!("`{f}` is not name=value"))
    };
    text.split_whitespace().map(field).collect()
}

/// Bytes from GNU as, for lines that people write.
fn assemble(assembly: &str) -> Result<Vec<u8>> {
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let (source, object, binary) = (dir.path().join("a.s"), dir.path().join("a.o"), dir.path().join("a.bin"));
    let text = format!(".intel_syntax noprefix\n{}\n", assembly.replace(';', "\n"));
    std::fs::write(&source, text).map_err(|e| e.to_string())?;
    let run = |command: &mut std::process::Command| match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().replace('\n', " ")),
        Err(e) => Err(format!("`{assembly}` has no bytes and the assembler does not run: {e}")),
    };
    run(std::process::Command::new("as").arg("--64").arg(&source).arg("-o").arg(&object))?;
    run(std::process::Command::new("objcopy").args(["-O", "binary", "-j", ".text"]).arg(&object).arg(&binary))?;
    std::fs::read(&binary).map_err(|e| e.to_string())
}

/// The state that an assembly text stands for.
fn initial(assembly: &str, code: Vec<u8>) -> Case {
    // FNV-1a: the same on every host and for all time.
    let seed = assembly.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let mut g = generate::Generator::new(seed);
    Case { code, cpu: g.state(), data: g.data() }
}

/// Every name, in the order of a line.
fn names() -> impl Iterator<Item = String> {
    let gprs = calque_ir::Reg::all().take(16).map(|reg| reg.name().to_owned());
    let xmms = (0..16).flat_map(|n| [format!("xmm{n}"), format!("ymmh{n}")]);
    let x87 = ["fcw", "fsw", "ftop", "fempty", "fop", "fip", "fdp"]
        .into_iter()
        .map(str::to_owned)
        .chain((0..8).map(|n| format!("f{n}")));
    let memory = (DATA..DATA + DATA_SIZE).step_by(8).map(|at| format!("[{at:#x}]"));
    gprs.chain(["flags".to_owned()]).chain(xmms).chain(["mxcsr".to_owned()]).chain(x87).chain(memory)
}

const STATUS: u64 = 0xcd5;

/// The value of a name.
fn get(cpu: &CpuState, data: &[u8], name: &str) -> Option<String> {
    let numbered = |prefix: &str, count: usize| {
        name.strip_prefix(prefix).and_then(|n| n.parse::<usize>().ok()).filter(|n| *n < count)
    };
    if let Some(at) = memory_offset(name) {
        let word = data.get(at..at + 8)?;
        return Some(format!("{:#x}", u64::from_le_bytes(word.try_into().ok()?)));
    }
    if let Some(n) = calque_ir::Reg::all().take(16).position(|reg| reg.name() == name) {
        return Some(format!("{:#x}", cpu.gpr[n]));
    }
    if let Some(n) = numbered("xmm", 16) {
        return Some(format!("{:x}_{:016x}", cpu.xmm[n][1], cpu.xmm[n][0]));
    }
    if let Some(n) = numbered("ymmh", 16) {
        return Some(format!("{:x}_{:016x}", cpu.ymmh[n][1], cpu.ymmh[n][0]));
    }
    if let Some(n) = numbered("f", 8) {
        return Some(format!("{:x}_{:016x}", cpu.x87.regs[n][1] & 0xffff, cpu.x87.regs[n][0]));
    }
    match name {
        "flags" => Some(flags_text(cpu.rflags() & STATUS)),
        "mxcsr" => Some(format!("{:#x}", cpu.mxcsr)),
        "fcw" => Some(format!("{:#x}", cpu.x87.control)),
        "fsw" => Some(format!("{:#x}", cpu.x87.status)),
        "ftop" => Some(format!("{}", cpu.x87.top)),
        "fempty" => Some(format!("{:#x}", cpu.x87.empty)),
        "fop" => Some(format!("{:#x}", cpu.x87.pointers().opcode)),
        "fip" => Some(format!("{:#x}", cpu.x87.pointers().instruction)),
        "fdp" => Some(format!("{:#x}", cpu.x87.pointers().operand)),
        _ => None,
    }
}

fn memory_offset(name: &str) -> Option<usize> {
    let addr = u64::from_str_radix(name.strip_prefix("[0x")?.strip_suffix(']')?, 16).ok()?;
    addr.checked_sub(DATA).filter(|at| at + 8 <= DATA_SIZE).map(|at| at as usize)
}

/// Sets a name.
fn set(case: &mut Case, name: &str, value: &str) -> Result<()> {
    let bad = || format!("`{name}={value}`");
    let number = || match value.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).map_err(|_| bad()),
        None => value.parse().map_err(|_| bad()),
    };
    let pair = || -> Result<[u64; 2]> {
        let (high, low) = value.split_once('_').ok_or_else(bad)?;
        let hex = |t: &str| u64::from_str_radix(t, 16).map_err(|_| bad());
        Ok([hex(low)?, hex(high)?])
    };
    let numbered = |prefix: &str| name.strip_prefix(prefix).and_then(|n| n.parse::<usize>().ok());
    let cpu = &mut case.cpu;
    if let Some(at) = memory_offset(name) {
        case.data[at..at + 8].copy_from_slice(&number()?.to_le_bytes());
    } else if let Some(n) = calque_ir::Reg::all().take(16).position(|reg| reg.name() == name) {
        cpu.gpr[n] = number()?;
    } else if let Some(n) = numbered("xmm").filter(|n| *n < 16) {
        cpu.xmm[n] = pair()?;
    } else if let Some(n) = numbered("ymmh").filter(|n| *n < 16) {
        let mut ymmh = cpu.ymmh;
        ymmh[n] = pair()?;
        cpu.set_ymmh(ymmh);
    } else if let Some(n) = numbered("f").filter(|n| *n < 8) {
        cpu.x87.regs[n] = pair()?;
    } else {
        match name {
            "flags" => cpu.set_rflags(cpu.rflags() & !STATUS | flags_of(value)?),
            "data" => case.data = generate::Generator::data_of(number()?),
            "mxcsr" => cpu.mxcsr = number()? as u32,
            "fcw" => cpu.x87.control = number()? as u16,
            "fsw" => cpu.x87.status = number()? as u16,
            "ftop" => cpu.x87.top = number()? as u8 & 7,
            "fempty" => cpu.x87.empty = number()? as u8,
            "fop" | "fip" | "fdp" => {
                let (n, old) = (number()?, cpu.x87.pointers());
                let choose = |this: &str, old: u64| if name == this { n } else { old };
                let opcode = choose("fop", old.opcode.into()) as u16;
                cpu.x87.load_pointers(opcode, choose("fip", old.instruction), choose("fdp", old.operand));
            }
            _ => return Err(bad()),
        }
    }
    Ok(())
}

const FLAGS: [(u32, &str); 7] = [(0, "cf"), (2, "pf"), (4, "af"), (6, "zf"), (7, "sf"), (10, "df"), (11, "of")];

fn flags_text(rflags: u64) -> String {
    let set: Vec<&str> = FLAGS.into_iter().filter(|(n, _)| rflags >> n & 1 != 0).map(|(_, name)| name).collect();
    if set.is_empty() { "-".into() } else { set.join(",") }
}

fn flags_of(text: &str) -> Result<u64> {
    let one =
        |name: &str| FLAGS.iter().find(|(_, n)| *n == name).map(|(n, _)| 1 << n).ok_or(format!("no flag `{name}`"));
    if text == "-" { Ok(0) } else { text.split(',').map(one).try_fold(0, |all, bit| Ok(all | bit?)) }
}

fn undefined_flags(after: &[(String, String)]) -> Result<u64> {
    after.iter().find(|(name, _)| name == "undef").map_or(Ok(0), |(_, value)| flags_of(value))
}

/// What has changed, by name; undefined flags count as they were.
fn changes(case: &Case, cpu: &CpuState, data: &[u8], outcome: &Outcome, undefined: u64) -> Vec<(String, String)> {
    let mut masked = copy(cpu);
    masked.set_rflags(cpu.rflags() & !undefined | case.cpu.rflags() & undefined);
    let mut out = Vec::new();
    match outcome {
        Outcome::Ended(End::Through) => {}
        // A stack fault is SIGBUS, which the runtime tells apart.
        Outcome::Ended(End::Signal { number: libc::SIGBUS, .. }) => out.push(("end".into(), "signal11".into())),
        Outcome::Ended(End::Signal { number, .. }) => out.push(("end".into(), format!("signal{number}"))),
        other => out.push(("end".into(), format!("{other:?}").replace(' ', ""))),
    }
    for name in names() {
        // What an empty register of the x87 holds is nobody's business.
        let empty =
            name.strip_prefix('f').and_then(|n| n.parse::<u8>().ok()).is_some_and(|n| cpu.x87.empty >> n & 1 != 0);
        // Without a pending exception the processor does not tell.
        let hidden = matches!(&*name, "fop" | "fip" | "fdp") && !cpu.x87.pending();
        let (before, after) = (get(&case.cpu, &case.data, &name), get(&masked, data, &name));
        if before != after && !empty && !hidden {
            out.push((name, after.unwrap_or_default()));
        }
    }
    out
}
