//! `calque profile`: its numbers against callgrind's, engine against engine, and what is left of guests that die.

use crate::command::{Outcome, calque, line, run};
use calque_difftest::generate::is_amd;
use libtest_mimic::{Failed, Trial};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// Instructions of the program inside `calque demo`, wherever it runs.
const DEMO: u64 = 17_694_989;

/// How often its one REP repeats.
const DEMO_REPEATS: u64 = 1_000_000;

/// Repetitions that QEMU counts as one instruction (`target/i386/tcg/translate.c`, `do_gen_rep`).
const QEMU_REPEATS: u64 = 1 << 16;

/// Instructions that callgrind leaves out: the block that ends in `exit_group` never ends.
const LAST_BLOCK: u64 = 3;

/// Engines that count.
const ENGINES: [&str; 4] = ["interp", "jit", "tiered", "auto"];

/// All tests of this file.
pub(crate) fn collect(trials: &mut Vec<Trial>, skipped: &mut Vec<String>) {
    let mut add = |name: &str, test: fn() -> Result<(), Failed>| {
        trials.push(Trial::test(format!("profile::{name}"), test));
    };
    add("demo", demo);
    add("refusals", refusals);
    if guest("calls", &[]).is_err() {
        skipped.push("profiles of C programs: no x86-64 gcc here".into());
        return;
    }
    add("engines", engines);
    add("left_early", left_early);
    add("formats", formats);
    add("perf", perf);
    if ["objcopy", "readelf", "xz"].iter().all(|tool| Command::new(tool).arg("--version").output().is_ok()) {
        add("separate_names", separate_names);
        add("compressed_names", compressed_names);
    } else {
        skipped.push("names from separate debug files: no binutils or xz here".into());
    }
    add("rep", rep);
    add("longjmp", longjmp);
    add("tail_calls", tail_calls);
    add("signals", signals);
    add("storm", storm);
    add("threads", threads);
    add("exceptions", exceptions);
    add("deaths", deaths);
    if std::env::var_os("CALQUE_TEST_NO_EXEC").is_none() {
        add("children", children);
    }
    if cfg!(target_arch = "x86_64") && counting(Path::new("")).is_some() {
        add("counting_emulator", counting_emulator);
    } else {
        skipped.push(
            "profiles against the counting emulator: it is not built (cargo xtask count) or not for this host".into(),
        );
    }
    if Command::new("valgrind").arg("--version").output().is_ok_and(|out| out.status.success()) {
        add("callgrind", callgrind);
        add("callgrind_total", callgrind_total);
    } else {
        skipped.push("profiles against callgrind: no valgrind (Debian: valgrind)".into());
    }
}

fn scratch(name: &str) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("profile");
    fs::create_dir_all(&dir).expect("the target directory can be written");
    dir.join(name)
}

/// Guests that have been compiled.
static BUILT: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// A static guest from `tests/profile`, or one of `tests/prog`.
fn guest(name: &str, flags: &[&str]) -> Result<PathBuf, Failed> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests");
    let (compiler, source) = match name {
        "exceptions" => ("g++", tests.join("prog/exceptions/main.cc")),
        "integers" | "ownblock" | "protection" => ("gcc", tests.join(format!("prog/{name}/main.c"))),
        _ => ("gcc", tests.join(format!("profile/{name}.c"))),
    };
    let file = scratch(&format!("{name}{}", flags.concat()));
    // Once: another test may run it already, and a file that is replaced meanwhile has no symbols.
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if built.contains(&file) {
        return Ok(file);
    }
    let own = if name == "calls" { vec!["-nostdlib", "-fno-optimize-sibling-calls"] } else { vec![] };
    let temporary = file.with_extension(format!("{:?}", std::thread::current().id()));
    let mut compile = Command::new(compiler);
    compile.args(["-O2", "-g", "-static", "-fcf-protection=none", "-fno-stack-protector", "-pthread"]);
    compile.args(own).args(flags).arg("-o").arg(&temporary).arg(source);
    let out = compile.output()?;
    if !out.status.success() {
        return Err(String::from_utf8_lossy(&out.stderr).into_owned().into());
    }
    fs::rename(temporary, &file)?;
    built.insert(file.clone());
    Ok(file)
}

/// Profiles a guest into `output`; how it ended.
fn profile(options: &[&str], output: &Path, guest: &Path, args: &[&str]) -> Result<Outcome, Failed> {
    let mut command = calque(["profile"]);
    command.args(options).arg("-o").arg(output).arg("--").arg(guest).args(args);
    let _ = fs::remove_file(output);
    let got = run(&mut command);
    if output.exists() {
        return Ok(got);
    }
    Err(format!("no profile\n{}[{}]\nreproduce: {}", got.stderr, got.end, line(&command)).into())
}

fn json(options: &[&str], guest: &Path, args: &[&str]) -> Result<Value, Failed> {
    let file =
        scratch(&format!("{}.json", args.concat().replace('/', "-") + &options.concat().replace(['=', '/', ':'], "-")));
    let file = file.with_file_name(format!(
        "{}-{}",
        guest.file_name().unwrap_or_default().to_string_lossy(),
        file.file_name().unwrap_or_default().to_string_lossy()
    ));
    profile(options, &file, guest, args)?;
    Ok(serde_json::from_str(&fs::read_to_string(&file)?)?)
}

/// Folded stacks as a map from stack to instructions.
fn folded(guest: &Path, args: &[&str]) -> Result<BTreeMap<String, u64>, Failed> {
    let name = guest.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let file = scratch(&format!("{name}{}.folded", args.concat()));
    profile(&["--no-crash-report"], &file, guest, args)?;
    let text = fs::read_to_string(&file)?;
    let stack = |line: &str| {
        let (stack, n) = line.rsplit_once(' ')?;
        Some((stack.to_owned(), n.parse().ok()?))
    };
    Ok(text.lines().filter_map(stack).collect())
}

fn check(holds: bool, what: impl std::fmt::Debug) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(format!("{what:#?}").into()) }
}

/// The last line of stderr as a number.
fn counted(command: &mut Command) -> Result<u64, Failed> {
    let got = run(command);
    let last = got.stderr.lines().last().unwrap_or_default();
    last.parse().map_err(|_| format!("no number: {}\nreproduce: {}", got.stderr, line(command)).into())
}

fn demo() -> Result<(), Failed> {
    let elf = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/demo.elf");
    for engine in ENGINES {
        let mut command = calque(["profile", "--count", "--engine", engine]);
        let total = counted(command.arg(&elf))?;
        check(total == DEMO, (engine, total))?;
    }
    Ok(())
}

fn refusals() -> Result<(), Failed> {
    for (args, says) in [
        (&["-o", "/tmp/out"][..], "--format"),
        (&["--format", "json"], "-o FILE"),
        (&["-o", "/no/such/dir/x.json"], "/no/such/dir"),
        (&["--format", "nonsense"], "nonsense"),
    ] {
        let mut command = calque(["profile"]);
        let got = run(command.args(args).arg("/bin/true"));
        check(got.end == "exit 2" && got.stderr.contains(says), (args, got.stderr, got.end))?;
    }
    Ok(())
}

/// Without what differs from run to run.
fn stable(mut report: Value) -> Value {
    report["pid"] = Value::Null;
    report
}

/// The same report, down to the last number, from every engine.
fn engines() -> Result<(), Failed> {
    // Programs of one thread: what a thread that waits executes depends on when the other one is done.
    let stacks = guest("stacks", &[])?;
    let mut cases: Vec<(PathBuf, &[&str])> = vec![(guest("calls", &[])?, &[]), (guest("integers", &[])?, &[])];
    cases.extend([&["jumps"], &["tail"], &["signals"], &["unusual"]].map(|args| (stacks.clone(), &args[..])));
    let dynamic = Path::new("/bin/ls");
    if cfg!(target_arch = "x86_64") && dynamic.exists() {
        // Linkage stubs, functions without names.
        cases.push((dynamic.to_owned(), &["/usr"]));
    }
    for (guest, args) in cases {
        let interp = stable(json(&["--engine", "interp"], &guest, args)?);
        check(interp["instructions"].as_u64() > Some(40_000), &interp["instructions"])?;
        let others = ENGINES[1..].iter().map(|engine| vec!["--engine", engine]);
        // As on a host without AVX-512.
        for options in others.chain([vec!["--narrow"]]) {
            let other = stable(json(&options, &guest, args)?);
            check(interp == other, (&guest, options, "see the reports beside it"))?;
        }
        consistent(&interp)?;
    }
    Ok(())
}

/// The same totals and functions where blocks are left in the middle: by stores into the code behind them, and by faults of
/// instructions that are made of several blocks.
fn left_early() -> Result<(), Failed> {
    // How the second goes on depends on what the processor leaves behind of a store that faults.
    let same_everywhere = cfg!(not(target_arch = "x86_64")) || is_amd();
    for name in ["ownblock", "protection"].into_iter().filter(|name| same_everywhere || *name == "ownblock") {
        let guest = guest(name, &[])?;
        // Every store has a region compiled anew by `jit`: minutes under emulation.
        let mut engines = ENGINES.to_vec();
        engines.retain(|engine| cfg!(target_arch = "x86_64") || (name, *engine) != ("ownblock", "jit"));
        let reports = engines.iter().map(|engine| json(&["--engine", engine], &guest, &[]));
        let reports: Vec<Value> = reports.collect::<Result<_, _>>()?;
        for (engine, report) in engines.iter().zip(&reports) {
            consistent(report)?;
            let [total, expected] = [report, &reports[0]].map(|report| &report["instructions"]);
            check(total == expected, (name, engine, total, expected))?;
            check(report["functions"] == reports[0]["functions"], (name, engine, "functions: see the reports"))?;
        }
    }
    Ok(())
}

/// Functions, contexts, lines and blocks add up to the total.
fn consistent(report: &Value) -> Result<(), Failed> {
    let sum = |list: &str, field: &str| -> u64 {
        let all = report[list].as_array().into_iter().flatten();
        all.filter_map(|entry| entry[field].as_u64()).sum()
    };
    let total = report["instructions"].as_u64();
    let blocks = report["blocks"].as_array().into_iter().flatten();
    let in_blocks: u64 = blocks.filter_map(|b| Some(b["instructions"].as_u64()? * b["executions"].as_u64()?)).sum();
    let sums = [sum("functions", "self"), sum("contexts", "self"), in_blocks];
    check(sums.iter().all(|sum| Some(*sum) == total), (total, sums))
}

fn formats() -> Result<(), Failed> {
    let guest = guest("calls", &[])?;
    let svg = scratch("calls.svg");
    profile(&[], &svg, &guest, &[])?;
    let text = fs::read_to_string(&svg)?;
    check(text.contains("<svg") && text.contains("fib (27,619 instructions"), &svg)?;
    let text = scratch("calls.txt");
    profile(&[], &text, &guest, &[])?;
    let text = fs::read_to_string(&text)?;
    check(text.contains("1,973  fib [calls]") && text.contains("calls.c:"), &text)?;
    let mut command = calque(["profile"]);
    let got = run(command.arg(&guest));
    check(got.stdout == "3333333333333332\n" && got.stderr.contains(" sort [calls]"), got.stderr)?;
    let file = scratch("callgrind.out");
    profile(&[], &file, &guest, &[])?;
    let mut annotate = Command::new("callgrind_annotate");
    if let Ok(out) = annotate.arg(&file).output() {
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        check(out.status.success() && text.contains("PROGRAM TOTALS") && text.contains(":fib"), text)?;
    }
    Ok(())
}

fn must(command: &mut Command) -> Result<String, Failed> {
    let out = command.output()?;
    if !out.status.success() {
        return Err(format!("{}: {}", line(command), String::from_utf8_lossy(&out.stderr)).into());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// `calls` with a build-id, and beside it in `dir` without symbols.
fn stripped(dir: &Path) -> Result<(PathBuf, PathBuf), Failed> {
    let _ = fs::remove_dir_all(dir);
    fs::create_dir_all(dir)?;
    let (whole, bare) = (guest("calls", &["-Wl,--build-id=sha1"])?, dir.join("bare"));
    must(Command::new("objcopy").arg("--strip-all").args([&whole, &bare]))?;
    Ok((whole, bare))
}

/// The names of the functions in a profile of `guest`, and whether lines of `calls.c` are in it.
fn names(options: &[&str], guest: &Path) -> Result<(Vec<String>, bool), Failed> {
    let report = json(options, guest, &[])?;
    let functions = report["functions"].as_array().into_iter().flatten();
    let names = functions.filter_map(|function| Some(function["name"].as_str()?.to_owned())).collect();
    let mut lines = report["lines"].as_array().into_iter().flatten();
    Ok((names, lines.any(|line| line["file"].as_str().is_some_and(|file| file.ends_with("calls.c")))))
}

/// Functions and lines come from the separate debug file that the build-id names.
fn separate_names() -> Result<(), Failed> {
    let dir = scratch("separate");
    let (whole, bare) = stripped(&dir)?;
    let notes = must(Command::new("readelf").arg("-n").arg(&whole))?;
    let id = notes.lines().find_map(|line| line.trim().strip_prefix("Build ID: ")).ok_or("no build-id")?;
    let debug = dir.join("debug/.build-id").join(&id[..2]).join(format!("{}.debug", &id[2..]));
    fs::create_dir_all(debug.parent().expect("a directory"))?;
    must(Command::new("objcopy").arg("--only-keep-debug").args([&whole, &debug]))?;
    let linked = dir.join("linked");
    must(Command::new("objcopy").arg(format!("--add-gnu-debuglink={}", debug.display())).args([&bare, &linked]))?;
    let without = names(&[], &linked)?;
    check(without.0.iter().all(|name| name != "fib") && !without.1, &without)?;
    let dirs = format!("--debug-dir=/none:{}", dir.join("debug").display());
    let with = names(&[&dirs], &linked)?;
    check(["fib", "sort", "_start"].iter().all(|name| with.0.iter().any(|n| n == name)) && with.1, &with)?;
    let mut command = calque(["profile"]);
    let got = run(command.env("CALQUE_DEBUG_DIR", dir.join("debug")).arg(&linked));
    check(got.stderr.contains(" sort [linked]") && got.stderr.contains("calls.c:"), got.stderr)
}

/// Functions come from the compressed symbol table in the file.
fn compressed_names() -> Result<(), Failed> {
    let dir = scratch("compressed");
    let (whole, bare) = stripped(&dir)?;
    let [mini, linked] = ["mini", "linked"].map(|name| dir.join(name));
    must(Command::new("objcopy").args(["--only-keep-debug"]).args([&whole, &mini]))?;
    must(Command::new("strip").args(["--strip-debug"]).arg(&mini))?;
    must(Command::new("xz").arg(&mini))?;
    let section = format!("--add-section=.gnu_debugdata={}.xz", mini.display());
    must(Command::new("objcopy").arg(section).args([&bare, &linked]))?;
    let with = names(&[], &linked)?;
    check(["fib", "sort", "_start"].iter().all(|name| with.0.iter().any(|n| n == name)), &with)
}

/// What `perf` is told names the guest's functions.
fn perf() -> Result<(), Failed> {
    for engine in ["jit", "tiered", "auto"] {
        perf_with(engine)?;
    }
    Ok(())
}

fn perf_with(engine: &str) -> Result<(), Failed> {
    let mut command = calque(["run", "--perf", "--hot=1", "--sync-compile", "--engine", engine, "--"]);
    let mut child = command.arg(guest("calls", &[])?).stdout(Stdio::null()).spawn()?;
    let pid = child.id();
    check(child.wait()?.success(), engine)?;
    let files = [format!("/tmp/perf-{pid}.map"), format!("/tmp/jit-{pid}.dump")];
    let [map, dump] = files.each_ref().map(fs::read);
    files.iter().for_each(|file| drop(fs::remove_file(file)));
    let (map, dump) = (String::from_utf8_lossy(&map?).into_owned(), dump?);
    check(map.lines().any(|line| line.ends_with(" fib [calls]")), &map)?;
    let loads = jitdump(&dump, pid).map_err(|what| format!("{engine}: {what}"))?;
    check(loads.iter().any(|load| load.name == "fib [calls]"), &loads)?;
    // The map says the same.
    let lines: Vec<String> = loads.iter().map(|l| format!("{:x} {:x} {}", l.start, l.len, l.name)).collect();
    check(map.lines().eq(lines.iter()), (map, lines))
}

/// A record of code in a dump for `perf inject`.
#[derive(Debug)]
struct Load {
    start: u64,
    len: u64,
    name: String,
}

/// Reads a dump as `tools/perf/Documentation/jitdump-specification.txt` in Linux describes it, to its last byte.
fn jitdump(dump: &[u8], pid: u32) -> Result<Vec<Load>, String> {
    fn word(bytes: &mut &[u8]) -> Result<u32, String> {
        let (word, rest) = bytes.split_first_chunk().ok_or("it ends in a word")?;
        *bytes = rest;
        Ok(u32::from_ne_bytes(*word))
    }
    fn long(bytes: &mut &[u8]) -> Result<u64, String> {
        let (word, rest) = bytes.split_first_chunk().ok_or("it ends in a word")?;
        *bytes = rest;
        Ok(u64::from_ne_bytes(*word))
    }
    let machine = if cfg!(target_arch = "x86_64") { 62 } else { 183 };
    let mut rest = dump;
    let header: Vec<u32> = (0..6).map(|_| word(&mut rest)).collect::<Result<_, _>>()?;
    // Magic, version, its size, machine, padding, process.
    if header != [0x4a69_5444, 1, 40, machine, 0, pid] {
        return Err(format!("header {header:x?}"));
    }
    let (mut time, flags) = (long(&mut rest)?, long(&mut rest)?);
    if flags != 0 {
        return Err(format!("flags {flags:#x}"));
    }
    let mut loads = Vec::new();
    while !rest.is_empty() {
        let whole = rest;
        let (kind, size, stamp) = (word(&mut rest)?, word(&mut rest)? as usize, long(&mut rest)?);
        let (process, _thread) = (word(&mut rest)?, word(&mut rest)?);
        let [vma, start, len, index] = [long(&mut rest)?, long(&mut rest)?, long(&mut rest)?, long(&mut rest)?];
        if (kind, process, vma, index) != (0, pid, start, loads.len() as u64) || stamp < time {
            return Err(format!("record {:x?}", &whole[..56]));
        }
        let name = rest.split(|b| *b == 0).next().unwrap_or_default();
        let code = name.len() + 1..name.len() + 1 + len as usize;
        if size != 56 + code.end || rest.len() < code.end || len == 0 || rest[code.clone()].iter().all(|b| *b == 0) {
            return Err(format!("a record of {size} bytes with {len} of code"));
        }
        let name = String::from_utf8(name.to_vec()).map_err(|e| e.to_string())?;
        loads.push(Load { start, len, name });
        (time, rest) = (stamp, &rest[code.end..]);
    }
    Ok(loads)
}

/// What a `callgrind.out` says: instructions by function, and calls and instructions by caller and callee.
#[derive(PartialEq, Eq, Debug, Default)]
struct Callgrind {
    own: BTreeMap<String, u64>,
    calls: BTreeMap<(String, String), (u64, u64)>,
}

impl Callgrind {
    fn read(file: &Path) -> Result<Callgrind, Failed> {
        let mut out = Callgrind::default();
        let mut names: BTreeMap<String, String> = BTreeMap::new();
        let (mut function, mut callee) = (String::new(), String::new());
        let mut calls: Option<u64> = None;
        for line in fs::read_to_string(file)?.lines() {
            if let Some((key, value)) = line.split_once('=') {
                let mut name = || match value.split_once(' ') {
                    Some((id, name)) => {
                        names.insert(id.to_owned(), name.to_owned());
                        name.to_owned()
                    }
                    None => names.get(value).cloned().unwrap_or_default(),
                };
                match key {
                    "fn" => function = name(),
                    "cfn" => callee = name(),
                    "calls" => calls = value.split(' ').next().and_then(|n| n.parse::<u64>().ok()),
                    _ => {}
                }
                continue;
            }
            let is_cost = line.starts_with(|c: char| c.is_ascii_digit() || "+-*".contains(c));
            let Some(cost) = line.split(' ').next_back().filter(|_| is_cost).and_then(|n| n.parse::<u64>().ok()) else {
                continue;
            };
            match calls.take() {
                None => *out.own.entry(plain(&function)).or_default() += cost,
                Some(n) => {
                    let sum = out.calls.entry((plain(&function), plain(&callee))).or_default();
                    *sum = (sum.0 + n, sum.1 + cost);
                }
            }
        }
        Ok(out)
    }

    fn of_valgrind(name: &str, guest: &Path) -> Result<Callgrind, Failed> {
        let file = scratch(name);
        let mut command = Command::new("valgrind");
        command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", file.display())).arg(guest);
        let got = run(&mut command);
        check(got.end == "exit 0", got.stderr)?;
        Self::read(&file)
    }
}

/// Without callgrind's mark of recursive calls, and its own name for what comes before `main`.
fn plain(name: &str) -> String {
    let name = if name == "(below main)" { "_start" } else { name };
    name.split('\'').next().unwrap_or(name).to_owned()
}

/// Every function's instructions and every call are callgrind's.
fn callgrind() -> Result<(), Failed> {
    let guest = guest("calls", &[])?;
    let mut expected = Callgrind::of_valgrind("expected.callgrind", &guest)?;
    *expected.own.entry("_start".to_owned()).or_default() += LAST_BLOCK;
    for engine in ENGINES {
        let file = scratch(&format!("{engine}.callgrind"));
        profile(&["--engine", engine], &file, &guest, &[])?;
        let got = Callgrind::read(&file)?;
        check(got.own.len() == 9 && got.calls.len() == 9, &got)?;
        check(got == expected, (engine, &got, &expected))?;
    }
    Ok(())
}

/// The number that every engine on every host counts, as callgrind has it.
fn callgrind_total() -> Result<(), Failed> {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/demo.elf");
    let total: u64 = Callgrind::of_valgrind("demo.callgrind", &demo)?.own.values().sum();
    check(total == DEMO - LAST_BLOCK + DEMO_REPEATS, total)
}

/// The counting emulator on this guest, and where it writes its number, if it has been built.
fn counting(guest: &Path) -> Option<(Command, PathBuf)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/counting");
    let (qemu, plugin) = (dir.join("build/qemu-x86_64"), dir.join("libcount.so"));
    let file = scratch(&format!("{}.count", guest.file_name().unwrap_or_default().to_string_lossy()));
    let mut command = Command::new(&qemu);
    command.arg("-plugin").arg(format!("{},out={}", plugin.display(), file.display())).arg(guest);
    (qemu.exists() && plugin.exists()).then_some((command, file))
}

/// The same totals as the counting emulator's.
fn counting_emulator() -> Result<(), Failed> {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/demo.elf");
    let guests = [(guest("calls", &[])?, 0), (demo, (DEMO_REPEATS - 1) / QEMU_REPEATS)];
    for (guest, more) in guests {
        let (mut command, file) = counting(&guest).ok_or("no counting emulator")?;
        let _ = fs::remove_file(&file);
        let got = run(&mut command);
        let emulated: u64 = fs::read_to_string(&file).map_err(|_| got.stderr)?.trim().parse()?;
        let total = counted(calque(["profile", "--count", "--"]).arg(&guest))?;
        check(emulated == total + more, (guest, emulated, total))?;
    }
    Ok(())
}

/// The one difference: REP is one instruction here, and as many as it repeats, and one, there.
fn rep() -> Result<(), Failed> {
    let guest = guest("calls", &["-DREP"])?;
    let file = scratch("rep.callgrind");
    profile(&[], &file, &guest, &[])?;
    let got = Callgrind::read(&file)?;
    let own = got.own["fill"];
    check(own < 20, &got)?;
    if Command::new("valgrind").arg("--version").output().is_ok() {
        let expected = Callgrind::of_valgrind("expected-rep.callgrind", &guest)?;
        check(expected.own["fill"] == own + 1000, (&got, &expected))?;
    }
    Ok(())
}

/// Instructions of stacks that end so.
fn below(stacks: &BTreeMap<String, u64>, end: &str) -> u64 {
    stacks.iter().filter(|(stack, _)| stack.ends_with(end)).map(|(_, n)| n).sum()
}

fn longjmp() -> Result<(), Failed> {
    let stacks = folded(&guest("stacks", &[])?, &["jumps"])?;
    check(below(&stacks, "main;jumps;work") > 300 && below(&stacks, "main;jumps;deep") > 20, &stacks)?;
    check(!stacks.keys().any(|stack| stack.contains("deep;work") || stack.contains("longjmp;work")), &stacks)
}

fn tail_calls() -> Result<(), Failed> {
    let stacks = folded(&guest("stacks", &[])?, &["tail"])?;
    check(below(&stacks, "main;tail;last;work") + below(&stacks, "main;tail;work") > 200, &stacks)?;
    check(!stacks.keys().any(|stack| stack.contains("work;")), &stacks)
}

/// Handlers are nobody's callees, and what is interrupted goes on where it was.
fn signals() -> Result<(), Failed> {
    let stacks = folded(&guest("stacks", &[])?, &["signals"])?;
    let handlers = stacks.get("handler;work").copied().unwrap_or(0) + stacks.get("escape;work").copied().unwrap_or(0);
    check(handlers > 50, &stacks)?;
    check(below(&stacks, "main;interrupted;work") > 300, &stacks)?;
    check(!stacks.keys().any(|stack| stack.contains("raise;handler") || stack.contains("escape;work;")), &stacks)
}

/// Signals that come at any time, and faults that are repaired, change nothing of what they interrupt.
fn storm() -> Result<(), Failed> {
    let guest = guest("stacks", &[])?;
    let calls = |report: &Value, caller: &str, callee: &str| -> Vec<(Option<u64>, Option<u64>)> {
        let named =
            |index: &Value, name: &str| report["functions"][index.as_u64().unwrap_or(0) as usize]["name"] == name;
        let all = report["calls"].as_array().into_iter().flatten();
        let these = all.filter(|call| named(&call["caller"], caller) && named(&call["callee"], callee));
        these.map(|call| (call["calls"].as_u64(), call["inclusive"].as_u64())).collect()
    };
    let own = |report: &Value, name: &str| -> Option<u64> {
        let all = report["functions"].as_array()?;
        all.iter().find(|function| function["name"] == name)?["self"].as_u64()
    };
    let calm = json(&["--engine", "interp"], &guest, &["calm"])?;
    for engine in ["jit", "tiered", "auto"] {
        let report = json(&["--engine", engine], &guest, &["storm"])?;
        check(own(&report, "tick") > Some(0) && own(&calm, "tick").is_none(), (engine, "no signals"))?;
        for (caller, callee) in [("storm", "climb"), ("climb", "climb"), ("main", "storm")] {
            let [got, expected] = [&report, &calm].map(|report| calls(report, caller, callee));
            let known = got.iter().all(|(calls, insns)| *calls > Some(0) && *insns > Some(0));
            check(known && !got.is_empty() && got == expected, (engine, caller, callee, got, expected))?;
        }
        for name in ["storm", "climb"] {
            check(own(&report, name) == own(&calm, name), (engine, name, own(&report, name), own(&calm, name)))?;
        }
    }
    Ok(())
}

fn threads() -> Result<(), Failed> {
    let stacks = folded(&guest("stacks", &[])?, &["threads"])?;
    let work = below(&stacks, "start_thread;thread;work");
    check((9_000..60_000).contains(&work) && work.is_multiple_of(3), &stacks)
}

/// What catches is not below what threw.
fn exceptions() -> Result<(), Failed> {
    let stacks = folded(&guest("exceptions", &[])?, &[])?;
    let depth = stacks.keys().map(|stack| stack.split(';').count()).max();
    check(depth < Some(40) && stacks.keys().any(|stack| stack.contains("_Unwind_RaiseException")), &stacks)?;
    check(
        stacks.keys().filter(|s| s.contains("exit_group") || s.ends_with(";_exit")).all(|s| !s.contains("main;")),
        &stacks,
    )
}

/// A guest that dies leaves a profile with all that it has executed.
fn deaths() -> Result<(), Failed> {
    let guest = guest("stacks", &[])?;
    for (how, end) in [("fault", "signal 11"), ("term", "signal 15"), ("abort", "signal 6"), ("thread", "exit 5")] {
        let file = scratch(&format!("{how}.folded"));
        let got = profile(&["--no-crash-report"], &file, &guest, &["", how])?;
        check(got.end == end, (how, got.end, got.stderr))?;
        let text = fs::read_to_string(&file)?;
        let work = text.lines().find(|line| line.contains("main;dies;work ")).and_then(|l| l.rsplit(' ').next());
        check(work.and_then(|n| n.parse().ok()) > Some(12_000u64), text)?;
    }
    Ok(())
}

/// A file for each process and for each program that a process has been.
fn children() -> Result<(), Failed> {
    let guest = guest("stacks", &[])?;
    let dir = scratch("children");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir)?;
    profile(&[], &dir.join("x.folded"), &guest, &["children"])?;
    let mut names: Vec<String> = Vec::new();
    let mut texts = String::new();
    for entry in fs::read_dir(&dir)? {
        let entry = entry?;
        let text = fs::read_to_string(entry.path())?;
        check(text.contains("main"), (entry.path(), &text))?;
        texts += &text;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    check(names.len() == 4 && names.iter().filter(|name| name.ends_with("-0.folded")).count() == 1, &names)?;
    check(texts.contains("tail;") && texts.lines().filter(|l| l.contains("children;work ")).count() == 2, texts)?;
    // Each process counts what it has executed itself.
    fs::remove_dir_all(&dir)?;
    fs::create_dir_all(&dir)?;
    profile(&[], &dir.join("x.json"), &guest, &["children"])?;
    let mut sum = 0;
    for entry in fs::read_dir(&dir)? {
        let report = serde_json::from_str(&fs::read_to_string(entry?.path())?)?;
        consistent(&report)?;
        sum += report["instructions"].as_u64().unwrap_or(0);
    }
    let total = counted(calque(["profile", "--count", "--"]).arg(&guest).arg("children"))?;
    check(total == sum && total > 5000 * 3, (total, sum))
}
