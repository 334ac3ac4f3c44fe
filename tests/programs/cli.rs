//! The command line: what calque says when a program cannot be started, and its smaller commands.

use crate::command::{Outcome, calque, difference, emulated, run};
use libtest_mimic::{Failed, Trial};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Contents and mode of a file, and what calque says when asked to run it.
struct Refused {
    name: &'static str,
    contents: Vec<u8>,
    mode: u32,
    /// Words in the one line on stderr.
    says: &'static str,
    status: u8,
}

fn refused() -> Vec<Refused> {
    let file =
        |name, contents: &[u8], says| Refused { name, contents: contents.to_vec(), mode: 0o755, says, status: 126 };
    let elf = fs::read(demo_file("demo.elf")).unwrap_or_default();
    let patched = |at: usize, bytes: &[u8]| {
        let mut copy = elf.clone();
        copy[at..at + bytes.len()].copy_from_slice(bytes);
        copy
    };
    vec![
        file("empty", b"", "the file is empty"),
        file("text", b"echo hello\n", "a text file without a '#!' line"),
        file("windows", b"MZ\x90\0\x03", "a Windows or DOS program"),
        file("script", b"#!/no/such/interpreter\n", "/no/such/interpreter"),
        file("script-of-nothing", b"#!  \n", "names no interpreter"),
        file("aarch64", &patched(18, &[183, 0]), "an AArch64 program, not an x86-64 one"),
        file("riscv", &patched(18, &[243, 0]), "a 64-bit RISC-V program"),
        file("object", &patched(16, &[1, 0]), "relocatable object file"),
        file("truncated", &elf[..elf.len().min(500)], "truncated ELF file: "),
        file("headless", &elf[..elf.len().min(40)], "truncated ELF file: the ELF header"),
        Refused { mode: 0o644, ..file("plain", &elf, "not executable") },
    ]
}

/// All tests of this file.
pub(crate) fn collect(trials: &mut Vec<Trial>, skipped: &mut Vec<String>) {
    for case in refused() {
        trials.push(Trial::test(format!("cli::refuses::{}", case.name), move || refuses(&case)));
    }
    let mut add = |name: &str, test: fn() -> Result<(), Failed>| trials.push(Trial::test(format!("cli::{name}"), test));
    add("not_found", || says(calque(["no-such-program-anywhere"]), "command not found", 127));
    add("no_such_file", || says(calque(["./no/such/file"]), "No such file", 127));
    #[cfg(target_arch = "x86_64")]
    add("no_such_file_to_compare", || says(calque(["diff", "./no/such/file"]), "No such file", 2));
    add("directory", || says(calque(["/tmp"]), "is a directory", 126));
    add("unknown_option", || says_somewhere(calque(["--no-such-option"]), "--no-such-option", 2));
    add("version", || {
        let got = run(&mut calque(["--version"]));
        expect(&calque(["--version"]), &format!("calque {}\n[exit 0]", env!("CARGO_PKG_VERSION")), &got)
    });
    add("missing_linker", missing_linker);
    add("strace", strace);
    add("ptrace", ptrace);
    if cfg!(target_arch = "aarch64") {
        add("first_runs", first_runs);
    }
    for engine in ["interp", "tiered", "jit", "auto"] {
        trials.push(Trial::test(format!("cli::demo::{engine}"), move || demo(engine)));
    }
    if emulated() || !cfg!(target_arch = "x86_64") {
        skipped.push("the demo's source against its binary, date's system calls: need the processor itself".into());
    } else {
        trials.push(Trial::test("cli::demo::source", demo_source));
        trials.push(Trial::test("cli::vdso", vdso));
    }
}

fn demo_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("demo").join(name)
}

fn scratch(name: &str) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cli");
    fs::create_dir_all(&dir).expect("the target directory can be written");
    dir.join(name)
}

fn refuses(case: &Refused) -> Result<(), Failed> {
    let file = scratch(case.name);
    fs::write(&file, &case.contents)?;
    fs::set_permissions(&file, Permissions::from_mode(case.mode))?;
    says(calque([file]), case.says, case.status)
}

/// One clean line on stderr, nothing on stdout, and the status of a shell.
fn says(mut command: Command, words: &str, status: u8) -> Result<(), Failed> {
    let got = run(&mut command);
    let clean = got.stderr.lines().count() == 1 && got.stderr.starts_with("calque: ");
    if clean && got.stderr.contains(words) {
        expect(&command, &format!("[exit {status}]"), &got)
    } else {
        Err(wrong(&command, words, &got))
    }
}

fn says_somewhere(mut command: Command, words: &str, status: u8) -> Result<(), Failed> {
    let got = run(&mut command);
    if got.stderr.contains(words) {
        expect(&command, &format!("[exit {status}]"), &got)
    } else {
        Err(wrong(&command, words, &got))
    }
}

fn wrong(command: &Command, words: &str, got: &Outcome) -> Failed {
    format!("stderr should be one line with {words:?}:\n{}", difference(command, "", got)).into()
}

fn expect(command: &Command, expected: &str, got: &Outcome) -> Result<(), Failed> {
    if got.to_string() == expected { Ok(()) } else { Err(difference(command, expected, got).into()) }
}

/// System calls are printed as they are made, down to the last.
fn strace() -> Result<(), Failed> {
    let mut command = calque(["run".into(), "--strace".into(), demo_file("demo.elf").into_os_string()]);
    let got = run(&mut command);
    let last = "exit_group(0) = ?\n+++ exited with 0 +++\n";
    let complete = got.stderr.contains("write(1, \"78498\", 5) = 5\n") && got.stderr.ends_with(last);
    if complete { Ok(()) } else { Err(wrong(&command, last, &got)) }
}

/// A debugger or leak checker is told what does not work, and what does.
fn ptrace() -> Result<(), Failed> {
    let mut elf = fs::read(demo_file("demo.elf"))?;
    let word = |at: usize| u64::from_le_bytes(elf[at..at + 8].try_into().expect("eight bytes")) as usize;
    let entry = word(24);
    let segments = (64..).step_by(56).take(usize::from(elf[56]));
    let holds_entry = |header: &usize| (word(header + 16)..word(header + 16) + word(header + 32)).contains(&entry);
    let header = segments.into_iter().find(holds_entry).ok_or("the demo's entry is in none of its segments")?;
    let at = entry - word(header + 16) + word(header + 8);
    // mov eax,101; xor edi,edi; syscall; neg eax; mov edi,eax; mov eax,231; syscall
    let code = b"\xb8\x65\0\0\0\x31\xff\x0f\x05\xf7\xd8\x89\xc7\xb8\xe7\0\0\0\x0f\x05";
    elf[at..at + code.len()].copy_from_slice(code);
    let file = scratch("ptrace");
    fs::write(&file, elf)?;
    fs::set_permissions(&file, Permissions::from_mode(0o755))?;
    says(calque([&file]), "ptrace is refused", libc::EPERM as u8)
}

/// What runs once is interpreted, and only what runs again is emitted; with tier 0 alone, all is emitted.
fn first_runs() -> Result<(), Failed> {
    for (engine, interprets) in [("auto", true), ("tier0", false)] {
        let mut command = calque([
            "run".into(),
            "--stats".into(),
            "--engine".into(),
            engine.into(),
            demo_file("demo.elf").into_os_string(),
        ]);
        let got = run(&mut command);
        let fits = match (got.stat("first_runs"), got.stat("emitted_blocks")) {
            (Some(first), Some(emitted)) if interprets => 0 < emitted && emitted < first,
            (Some(first), Some(emitted)) => first == 0 && 0 < emitted,
            _ => false,
        };
        if !fits {
            return Err(wrong(&command, "fewer emitted_blocks than first_runs", &got));
        }
    }
    Ok(())
}

/// Reading a clock is no system call.
fn vdso() -> Result<(), Failed> {
    let mut command = calque(["run", "--strace", "/bin/date"]);
    let got = run(&mut command);
    let read = got.stderr.contains("+++ exited with 0 +++") && !got.stderr.contains("clock_gettime");
    if read { Ok(()) } else { Err(wrong(&command, "date without clock_gettime", &got)) }
}

/// A dynamic program whose linker is nowhere: named, with the way out.
fn missing_linker() -> Result<(), Failed> {
    let mut elf = fs::read(demo_file("demo.elf"))?;
    // The second program header becomes PT_INTERP (3), its text the last bytes of the file.
    let name = b"/no/ld.so\0";
    let at = elf.len() as u64;
    elf.extend(name);
    let header = 64 + 56;
    elf[header..header + 4].copy_from_slice(&3u32.to_le_bytes());
    elf[header + 8..header + 16].copy_from_slice(&at.to_le_bytes());
    elf[header + 32..header + 40].copy_from_slice(&(name.len() as u64).to_le_bytes());
    let file = scratch("missing-linker");
    fs::write(&file, elf)?;
    fs::set_permissions(&file, Permissions::from_mode(0o755))?;
    says(calque([&file]), "needs the dynamic linker /no/ld.so", 126)?;
    says(calque([&file]), "--sysroot DIR", 126)
}

fn demo(engine: &str) -> Result<(), Failed> {
    let mut command = calque(["demo", "--engine", engine]);
    let got = run(&mut command);
    let expected = fs::read_to_string(demo_file("expected"))?;
    expect(&command, &expected, &got)
}

/// The binary in the repository does what its source does.
fn demo_source() -> Result<(), Failed> {
    let built = scratch("demo-rebuilt");
    let mut compile = Command::new("gcc");
    compile.args(["-nostdlib", "-static", "-no-pie", "-s", "-o"]).arg(&built).arg(demo_file("demo.s"));
    if !compile.status()?.success() {
        return Err("gcc cannot assemble demo.s".into());
    }
    let mut command = Command::new(&built);
    let got = run(&mut command);
    if std::env::var_os("BLESS").is_some() {
        fs::write(demo_file("expected"), got.to_string())?;
    }
    expect(&command, &fs::read_to_string(demo_file("expected"))?, &got)
}
