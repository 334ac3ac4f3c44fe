//! `tests/prog/NAME/main.{c,cc}`: guest programs, compiled at test time and run with every engine.
//!
//! `expected` beside the source is their output and how they end, recorded on a processor (`BLESS=1`) and checked on it
//! wherever there is one. Words in a `// links:` line of the source choose how they are linked: `dynamic`, `static`,
//! `musl` (static, against musl). A line `// needs: a real kernel` marks what an emulated host cannot do,
//! `// needs: userfaultfd` and `// needs: io_uring` what not every kernel can; `// needs: an AMD processor` what processors of other vendors do in
//! another way, and so does code that is copied for them.

use crate::command::{Outcome, calque, difference, emulated, run, sysroot};
use calque_difftest::generate::is_amd;
use libtest_mimic::{Failed, Trial};
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

const ENGINES: [&str; 5] = ["interp", "tiered", "jit", "tier0", "auto"];

/// The engines of this host: on x86-64, `auto` is `tier0` where the processor has it.
fn engines() -> impl Iterator<Item = &'static str> {
    ENGINES.into_iter().filter(|engine| *engine != "tier0" || cfg!(target_arch = "aarch64"))
}

/// How a guest is linked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Link {
    Dynamic,
    Static,
    Musl,
}

impl Link {
    const ALL: [Link; 3] = [Link::Dynamic, Link::Static, Link::Musl];

    fn name(self) -> &'static str {
        match self {
            Link::Dynamic => "dynamic",
            Link::Static => "static",
            Link::Musl => "musl",
        }
    }
}

/// A guest program, built once for all its tests.
struct Guest {
    name: String,
    source: PathBuf,
    built: [OnceLock<Result<PathBuf, String>>; 3],
}

impl Guest {
    fn expected(&self) -> PathBuf {
        self.source.with_file_name("expected")
    }

    /// The program's file, compiled on first use.
    fn build(&self, link: Link) -> Result<&Path, Failed> {
        let built = self.built[link as usize].get_or_init(|| {
            let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("guests");
            fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
            let file = dir.join(format!("{}-{}", self.name, link.name()));
            let mut compile = Command::new(self.compiler(link));
            compile
                .args(["-O2", "-g", "-fno-omit-frame-pointer", "-pthread", "-Wall", "-o"])
                .arg(&file)
                .arg(&self.source);
            if link != Link::Dynamic {
                compile.arg("-static");
            }
            compile.arg("-lm");
            let out = compile.output().map_err(|e| format!("{compile:?}: {e}"))?;
            if out.status.success() { Ok(file) } else { Err(String::from_utf8_lossy(&out.stderr).into_owned()) }
        });
        built.as_deref().map_err(Failed::from)
    }

    fn compiler(&self, link: Link) -> &'static str {
        match (link, self.source.extension().is_some_and(|e| e == "cc")) {
            (Link::Musl, _) => "musl-gcc",
            (_, true) => "g++",
            (_, false) => "gcc",
        }
    }
}

/// One test for every guest, linkage and engine, and one for the processor itself.
pub(crate) fn collect(trials: &mut Vec<Trial>, skipped: &mut Vec<String>) {
    if !works("gcc") || !machine_is_x86_64() {
        skipped.push("guest programs: no x86-64 gcc here".into());
        return;
    }
    if !works("musl-gcc") {
        skipped.push("musl guest programs: no musl-gcc (Debian: musl-tools)".into());
    }
    if emulated() && sysroot().is_none() {
        skipped.push("dynamic guest programs: no x86-64 sysroot".into());
    }
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/prog");
    let mut sources: Vec<PathBuf> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .flat_map(|entry| ["main.c", "main.cc"].map(|file| entry.path().join(file)))
        .filter(|file| file.exists())
        .collect();
    sources.sort();
    for source in sources {
        guest_trials(&source, trials);
    }
}

fn guest_trials(source: &Path, trials: &mut Vec<Trial>) {
    let name = source.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
    let text = fs::read_to_string(source).unwrap_or_default();
    let links = text.lines().find_map(|l| l.strip_prefix("// links:")).unwrap_or("dynamic static musl").to_owned();
    let starts_programs = text.contains("exec");
    let other_processor = text.contains("// needs: an AMD processor") && cfg!(target_arch = "x86_64") && !is_amd();
    let impossible = text.contains("// needs: userfaultfd") && !has_userfaultfd()
        || text.contains("// needs: io_uring") && !has_io_uring();
    // Under Calque, and not on the processor itself.
    let cannot = impossible
        || starts_programs && std::env::var_os("CALQUE_TEST_NO_EXEC").is_some()
        || text.contains("// needs: a real kernel") && emulated();
    let guest = Arc::new(Guest { name: name.clone(), source: source.into(), built: Default::default() });
    if !emulated() {
        let guest = Arc::clone(&guest);
        let trial = Trial::test(format!("prog::{name}::processor"), move || processor(&guest));
        trials.push(trial.with_ignored_flag(impossible || other_processor));
    }
    for link in Link::ALL.into_iter().filter(|l| links.contains(l.name()) && possible(*l)) {
        // Every engine once; the other linkages differ in libc only, and take the default engine.
        let first = if emulated() { Link::Static } else { Link::Dynamic };
        for engine in engines().filter(|e| link == first || *e == "auto") {
            let guest = Arc::clone(&guest);
            let test = move || under_calque(&guest, link, engine);
            let cannot = cannot || other_processor && engine == "auto";
            let test_name = format!("prog::{name}::{}::{engine}", link.name());
            trials.push(Trial::test(test_name, test).with_ignored_flag(cannot));
        }
    }
    if cfg!(target_arch = "aarch64") {
        let guest = Arc::clone(&guest);
        let test = move || again_with_saved_code(&guest);
        trials.push(Trial::test(format!("prog::{name}::saved"), test).with_ignored_flag(cannot));
    }
    if name == "jitstress" {
        let test = move || with_little_code_memory(&guest);
        trials.push(Trial::test("prog::jitstress::little_code_memory", test));
    } else if name == "lodgers" {
        let test = move || hot_in_a_child_first(&guest);
        trials.push(Trial::test("prog::lodgers::hot_in_a_child_first", test).with_ignored_flag(emulated()));
    } else if name == "unaligned" && cfg!(target_arch = "aarch64") {
        for engine in ["tier0", "jit"] {
            let guest = Arc::clone(&guest);
            let test = move || is_rarely_refused(&guest, engine);
            trials.push(Trial::test(format!("prog::unaligned::rarely_refused::{engine}"), test));
        }
    } else if name == "rewritten" {
        let test = move || checks_what_is_written_often(&guest);
        trials.push(Trial::test("prog::rewritten::counts", test));
    } else if name == "unmasked" {
        for engine in engines()
            .filter(|engine| !["interp", "auto"].contains(engine) || *engine == "auto" && cfg!(target_arch = "aarch64"))
        {
            let guest = Arc::clone(&guest);
            let test = move || interprets_floats_alone(&guest, engine);
            trials.push(Trial::test(format!("prog::unmasked::counts::{engine}"), test));
        }
    } else if name == "avx512" {
        let test = move || announces_what_is_copied(&guest);
        trials.push(Trial::test("prog::avx512::announced", test).with_ignored_flag(!copies_avx512()));
    } else if name == "evex" {
        let test = move || runs_as_on_the_processor(&guest);
        trials.push(Trial::test("prog::evex::random", test).with_ignored_flag(!copies_avx512()));
    } else if name == "staying" && cfg!(target_arch = "aarch64") {
        let test = move || compiles_what_threads_stay_in(&guest);
        trials.push(Trial::test("prog::staying::regions", test));
    }
}

/// Whether this machine's kernel can let programs serve their page faults.
fn has_userfaultfd() -> bool {
    !emulated() && Path::new("/proc/sys/vm/unprivileged_userfaultfd").exists()
}

/// Whether this machine's kernel has io_uring, and takes memory of many pages for its rings (Linux 6.10).
fn has_io_uring() -> bool {
    let read = |name: &str| fs::read_to_string(Path::new("/proc/sys/kernel").join(name)).unwrap_or_default();
    let release = read("osrelease");
    let mut version = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (version.next().unwrap_or(0), version.next().unwrap_or(0));
    !emulated() && version >= (6, 10) && read("io_uring_disabled").trim() == "0"
}

/// Whether this machine can build and run guests linked so.
fn possible(link: Link) -> bool {
    match link {
        Link::Dynamic => !emulated() || sysroot().is_some(),
        Link::Static => true,
        Link::Musl => works("musl-gcc"),
    }
}

/// The recorded output is the processor's.
fn processor(guest: &Guest) -> Result<(), Failed> {
    let link =
        if fs::read_to_string(&guest.source)?.contains("// links: static") { Link::Static } else { Link::Dynamic };
    let mut command = Command::new(guest.build(link)?);
    let got = run(in_guest_environment(&mut command));
    if std::env::var_os("BLESS").is_some() {
        fs::write(guest.expected(), got.to_string())?;
    }
    compare(guest, &command, &got)
}

fn under_calque(guest: &Guest, link: Link, engine: &str) -> Result<(), Failed> {
    let mut command = calque(["run", "--engine", engine]);
    if let (Link::Dynamic, true, Some(root)) = (link, emulated(), sysroot()) {
        command.arg("--sysroot").arg(root);
    }
    command.arg("--").arg(guest.build(link)?);
    let got = run(in_guest_environment(&mut command));
    compare(guest, &command, &got)
}

/// The program runs as ever where earlier runs have saved its code, and that is used. Of some there is none: they die, or may have changed all.
fn again_with_saved_code(guest: &Guest) -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    for _ in 0..3 {
        let size = fs::read_dir(dir.path())?.map(|file| Ok(file?.metadata()?.len())).sum::<std::io::Result<u64>>()?;
        let mut command = calque(["run", "--stats", "--cache-dir"]);
        command.arg(dir.path()).arg("--").arg(guest.build(Link::Static)?);
        let got = run(in_guest_environment(&mut command));
        compare(guest, &command, &got)?;
        // A program that dies prints none; of others, one of the processes has found what was saved.
        if size > 1000 && got.stats("saved_blocks").max().is_some_and(|blocks| blocks < 100) {
            return Err(format!("{command:?}: saved code is not used").into());
        }
    }
    Ok(())
}

/// Four seconds in which code memory is given back again and again while threads are on their way from one translation to the next.
fn with_little_code_memory(guest: &Guest) -> Result<(), Failed> {
    let mut command = calque(["run", "--cache-size", "1M", "--"]);
    command.arg(guest.build(Link::Static)?).args(["4", "1"]);
    let got = run(&mut command);
    compare(guest, &command, &got)
}

/// Nothing is hot before a child of vfork gets there: it asks first for compiled code.
fn hot_in_a_child_first(guest: &Guest) -> Result<(), Failed> {
    let mut command = calque(["run", "--engine", "tiered", "--hot", "20000", "--"]);
    command.arg(guest.build(Link::Static)?);
    let got = run(&mut command);
    compare(guest, &command, &got)
}

/// A host that minds alignment refuses some accesses, and not most of the hundred thousands.
fn is_rarely_refused(guest: &Guest, engine: &str) -> Result<(), Failed> {
    let mut command = calque(["run", "--engine", engine, "--stats", "--"]);
    command.arg(guest.build(Link::Static)?);
    counted(command, &[("unaligned", 1..=10_000)])
}

/// A hundred thousand stores into code, and data beside it, cost a handful of faults and translations, and code that is not written to for long is
/// protected again, which the next store's fault tells of.
fn checks_what_is_written_often(guest: &Guest) -> Result<(), Failed> {
    for (part, faults, translations) in [("constants", 2..=12, 24), ("beside", 2..=12, 24), ("phases", 4..=24, 72)] {
        let mut command = calque(["run", "--stats", "--"]);
        command.arg(guest.build(Link::Static)?).arg(part);
        let (made_anew, found_changed) = (0..=translations, 0..=translations);
        counted(command, &[("code_writes", faults), ("retranslations", made_anew), ("changed_units", found_changed)])?;
    }
    Ok(())
}

/// Hot code is emitted as regions; a loop of wide vectors is compiled besides, each of the 48 functions of such that are left soon is not.
fn compiles_what_threads_stay_in(guest: &Guest) -> Result<(), Failed> {
    for (part, emitted, compiled) in [("rounds", 1..=20, 0..=0), ("wide", 0..=20, 1..=3), ("calls", 1..=20, 0..=8)] {
        let mut command = calque(["run", "--sync-compile", "--stats", "--"]);
        command.arg(guest.build(Link::Static)?).arg(part);
        counted(command, &[("emitted_regions", emitted), ("regions", compiled)])?;
    }
    Ok(())
}

/// Of half a million rounds with an exception unmasked, the interpreter gets those five hundred that have floats.
fn interprets_floats_alone(guest: &Guest, engine: &str) -> Result<(), Failed> {
    let mut command = calque(["run", "--engine", engine, "--sync-compile", "--stats", "--"]);
    command.arg(guest.build(Link::Static)?).arg("integers");
    counted(command, &[("uncarried_floats", 490..=600)])
}

/// Whether this machine has AVX-512, which copied code uses.
#[cfg(target_arch = "x86_64")]
fn copies_avx512() -> bool {
    let has = std::arch::is_x86_feature_detected!("avx512bw") && std::arch::is_x86_feature_detected!("avx512vl");
    has && !emulated()
}

#[cfg(not(target_arch = "x86_64"))]
fn copies_avx512() -> bool {
    false
}

/// The default engine does not leave the program out.
fn announces_what_is_copied(guest: &Guest) -> Result<(), Failed> {
    let mut command = calque(["run", "--"]);
    command.arg(guest.build(Link::Static)?);
    let got = run(&mut command);
    compare(guest, &command, &got)?;
    if got.stderr.is_empty() { Ok(()) } else { Err(format!("{command:?}: {}", got.stderr).into()) }
}

/// The same random instructions have the same results on the processor and in copied code.
fn runs_as_on_the_processor(guest: &Guest) -> Result<(), Failed> {
    for seed in ["1", "2", "3"] {
        let (mut native, mut translated) = (Command::new(guest.build(Link::Static)?), calque(["run", "--"]));
        let expected = run(native.args(["20000", seed])).to_string();
        let got = run(translated.arg(guest.build(Link::Static)?).args(["20000", seed]));
        if expected != got.to_string() {
            return Err(difference(&translated, &expected, &got).into());
        }
    }
    Ok(())
}

/// Whether rows of what `--stats` prints are in their ranges.
fn counted(mut command: Command, rows: &[(&str, RangeInclusive<u32>)]) -> Result<(), Failed> {
    let got = run(&mut command);
    for (name, range) in rows {
        let count = got.stat(name);
        if !count.is_some_and(|count| range.contains(&count)) {
            return Err(format!("{command:?}: {name} {count:?}, not in {range:?}\n{}", got.stderr).into());
        }
    }
    Ok(())
}

fn in_guest_environment(command: &mut Command) -> &mut Command {
    command.args(["one", "two words"]).env("GUEST_VARIABLE", "its value")
}

fn compare(guest: &Guest, command: &Command, got: &Outcome) -> Result<(), Failed> {
    let expected = fs::read_to_string(guest.expected()).map_err(|e| format!("{}: {e}", guest.expected().display()))?;
    if expected == got.to_string() { Ok(()) } else { Err(difference(command, &expected, got).into()) }
}

fn works(compiler: &str) -> bool {
    Command::new(compiler).arg("--version").output().is_ok_and(|out| out.status.success())
}

/// Whether gcc makes programs for x86-64 (the host may be AArch64, or emulate it).
fn machine_is_x86_64() -> bool {
    let out = Command::new("gcc").arg("-dumpmachine").output();
    out.is_ok_and(|out| String::from_utf8_lossy(&out.stdout).starts_with("x86_64"))
}
