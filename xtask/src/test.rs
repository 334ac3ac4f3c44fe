//! `cargo xtask test`: every check that the project has, on this machine and on an emulated AArch64.
//!
//! A step that cannot run is skipped with its reason, never silently; a step that fails does not stop the others.
//! Numbers come from the `test result:` lines of `cargo test` and of the guest-program runner; format and lints count as
//! one test each. What failed is told again at the end, where whoever sees only the last lines of a long log finds it.

use crate::setup::{AARCH64, CrossRust, Tools};
use crate::shell::{cargo, command, run, target, which};
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// What to test.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this host: x86_64 (the machine itself) or aarch64
    #[arg(long)]
    host: Option<String>,
    /// Leave format and lints out
    #[arg(long)]
    no_lint: bool,
    /// Only tests whose name contains this
    filter: Option<String>,
}

/// Random instructions for each engine of the release build.
const RELEASE_CASES: &str = "400000";

#[derive(Default)]
struct Totals {
    passed: u64,
    failed: u64,
    skipped: Vec<String>,
    /// What failing steps printed of their failures.
    failures: Vec<String>,
}

/// Runs everything; true if nothing failed.
pub(crate) fn test(args: &Args) -> bool {
    let tools = Tools::fetch();
    tools.report();
    let mut totals = Totals::default();
    let on = |host: &str| args.host.as_deref().is_none_or(|only| only == host);
    if on("x86_64") {
        if !args.no_lint {
            totals.one("format", &mut cargo(&["fmt", "--all", "--check"]));
            let clippy = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
            totals.one("clippy", &mut cargo(&clippy));
        }
        totals.host_tests(args, &tools);
    }
    if on("aarch64") && !cfg!(target_arch = "aarch64") {
        match (&tools.aarch64, &tools.qemu_aarch64) {
            (Ok(rust), Ok(qemu)) => totals.aarch64_tests(args, &tools, *rust, qemu),
            (Err(why), _) => totals.skip("AArch64", why),
            (_, Err(why)) => totals.skip("AArch64", why),
        }
    }
    totals.summary()
}

impl Totals {
    fn one(&mut self, name: &str, command: &mut Command) {
        let start = Instant::now();
        let passed = run(command);
        println!("{name}: {} in {:.0?}", if passed { "ok" } else { "FAILED" }, start.elapsed());
        *(if passed { &mut self.passed } else { &mut self.failed }) += 1;
        if !passed {
            self.failures.push(format!("{name}: FAILED"));
        }
    }

    fn skip(&mut self, what: &str, why: &str) {
        println!("{what}: skipped: {why}");
        self.skipped.push(format!("{what}: {why}"));
    }

    /// All tests of the workspace on this machine.
    fn host_tests(&mut self, args: &Args, tools: &Tools) {
        let mut test = cargo(&["test", "--workspace", "--no-fail-fast"]);
        describe(&mut test, tools);
        self.counted("tests on this machine", &mut with_filter(test, args));
        // With loom's atomics in place of the processor's, a build of its own.
        let models = ["test", "-p", "calque-backend", "-p", "calque-runtime", "--features", "calque-runtime/models"];
        if args.filter.as_deref().is_none_or(|filter| filter == "models") {
            self.counted("models", cargo(&models).args(["--lib", "models"]));
        }
        if args.filter.is_none() {
            self.real_programs();
            self.gcc_tests();
        }
        if args.filter.as_deref().is_none_or(|filter| filter == "release") {
            self.release_tests(tools);
        }
    }

    /// What users run: a build in which the compiler has put everything into other registers. Guest programs in every engine, and on x86-64
    /// random instructions.
    fn release_tests(&mut self, tools: &Tools) {
        self.one("release build", &mut cargo(&["build", "--release", "-p", "calque"]));
        let calque = target().join("release/calque");
        let mut programs = cargo(&["test", "-p", "calque", "--test", "programs", "--", "dynamic::"]);
        describe(&mut programs, tools);
        self.counted("guest programs, release build", programs.env("CALQUE_TEST_BINARY", &calque));
        if cfg!(target_arch = "x86_64") {
            let random = ["difftest", "insn", "--count", RELEASE_CASES];
            self.one("random instructions, release build", Command::new(&calque).args(random));
        }
    }

    /// Larger programs that are installed here, natively and translated.
    fn real_programs(&mut self) {
        if which("python3").is_none() {
            return self.skip("real programs", "no python3");
        }
        if !cfg!(target_arch = "x86_64") {
            return self.skip("real programs", "compared with native runs, which need an x86-64 machine");
        }
        let mut test = command("python3", ["tests/real-programs.py", "--timeout", "300", "--"]);
        self.counted("real programs", test.arg(target().join("debug/calque")).args(["run", "--"]));
    }

    /// A sample of gcc's own execution tests, where their source has been fetched (`tests/torture.py` without arguments).
    fn gcc_tests(&mut self) {
        if which("python3").is_none() || which("gcc").is_none() || !cfg!(target_arch = "x86_64") {
            return self.skip("gcc's tests", "they need python3, gcc and an x86-64 machine");
        }
        let mut test = command("python3", ["tests/torture.py", "--sample", "--calque"]);
        self.counted("gcc's tests", test.arg(target().join("debug/calque")));
    }

    /// The same tests built for AArch64, under qemu-aarch64.
    fn aarch64_tests(&mut self, args: &Args, tools: &Tools, rust: CrossRust, qemu: &Path) {
        let packages = ["test", "-p", "calque", "-p", "calque-ir", "-p", "calque-frontend", "-p", "calque-backend"];
        let more = [
            "-p",
            "calque-runtime",
            "-p",
            "calque-syscalls",
            "-p",
            "calque-difftest",
            "-p",
            "calque-tests",
            "--no-fail-fast",
        ];
        let mut test = rust.cargo(packages[0]);
        test.args(&packages[1..]).args(more);
        test.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", qemu).env("CALQUE_TEST_RUNNER", qemu);
        describe(&mut test, tools);
        let test = with_filter(test, args);
        let mut test = match binfmt_prefix(qemu) {
            Ok(prefix) => prefixed(&prefix, &test),
            Err(why) => {
                self.skip("AArch64 programs that start others", &why);
                let mut plain = test;
                plain.env("CALQUE_TEST_NO_EXEC", "1");
                plain
            }
        };
        self.counted(&format!("tests on {AARCH64}"), &mut test);
        // The others run on `-cpu max`, which has every extension; the processors of many servers do not.
        let mut test = rust.cargo(packages[0]);
        test.args(&packages[1..]).args(more).args(["--test", "golden", "--test", "ops", "--test", "flow"]);
        test.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", qemu).env("QEMU_CPU", "cortex-a72");
        self.counted("generated code on Armv8.0 (-cpu cortex-a72)", &mut with_filter(test, args));
        if args.filter.is_none() {
            let mut test = rust.cargo(packages[0]);
            test.args(["-p", "calque", "--test", "programs", "exchanges"]).env("CALQUE_TEST_RUNNER", qemu);
            test.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", qemu).env("QEMU_CPU", "cortex-a72");
            self.counted("LOCK without LSE (-cpu cortex-a72)", &mut test);
        }
    }

    /// Runs a test command, shows what it prints, and adds up its `test result:` lines.
    fn counted(&mut self, name: &str, command: &mut Command) {
        println!("$ {command:?}");
        let start = Instant::now();
        let (before, mut results) = (self.failed, 0);
        let mut failures = Failures::default();
        let status = command.stdout(Stdio::piped()).spawn().and_then(|mut child| {
            let out = child.stdout.take().expect("stdout is piped");
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                println!("{line}");
                failures.line(&line);
                if let Some((passed, failed)) = result_line(&line) {
                    self.passed += passed;
                    self.failed += failed;
                    results += 1;
                }
                if let Some(why) = line.trim_start().strip_prefix("skipped: ") {
                    self.skipped.push(why.to_owned());
                }
            }
            child.wait()
        });
        // A crash or a failed build prints no result line.
        let passed = status.is_ok_and(|s| s.success());
        if !passed && self.failed == before {
            self.failed += 1;
        }
        let verdict = if passed { "ok" } else { "FAILED" };
        println!("{name}: {verdict} ({results} test binaries) in {:.0?}", start.elapsed());
        if !passed {
            self.failures.push(format!("{name}: FAILED"));
            self.failures.append(&mut failures.lines);
        }
    }

    fn summary(&self) -> bool {
        println!();
        for line in &self.failures {
            println!("{line}");
        }
        for skipped in &self.skipped {
            println!("skipped: {skipped}");
        }
        println!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped.len());
        self.failed == 0
    }
}

/// The lines about failures among what a test command prints.
#[derive(Default)]
struct Failures {
    lines: Vec<String>,
    /// Between `failures:` and `test result:`, where test binaries say what their failing tests printed.
    inside: bool,
}

impl Failures {
    /// Lines kept: a test that prints pages must not push the others' failures out of sight.
    const MOST: usize = 300;

    fn line(&mut self, line: &str) {
        self.inside = line == "failures:" || self.inside && !line.starts_with("test result: ");
        if (self.inside || line.starts_with("FAIL ")) && self.lines.len() < Self::MOST {
            self.lines.push(line.to_owned());
        }
    }
}

fn with_filter(mut test: Command, args: &Args) -> Command {
    test.args(&args.filter);
    test
}

/// Tells tests in the environment what there is.
fn describe(test: &mut Command, tools: &Tools) {
    for (name, tool) in [("CALQUE_TEST_BUSYBOX", &tools.busybox), ("CALQUE_TEST_SYSROOT", &tools.sysroot)] {
        if let Ok(path) = tool {
            test.env(name, path);
        }
    }
}

/// Passed and failed of a line such as `test result: ok. 7 passed; 0 failed; ...` or `7 passed, 0 failed, 1 skipped`.
fn result_line(line: &str) -> Option<(u64, u64)> {
    let rest = line.strip_prefix("test result: ").unwrap_or(line);
    if !rest.contains(" passed") || !rest.contains(" failed") {
        return None;
    }
    let number = |word: &str| rest.split(word).next()?.split_whitespace().next_back()?.parse().ok();
    Some((number(" passed")?, number(" failed")?))
}

/// Words to put before a command so that AArch64 programs can be executed by others: a `binfmt_misc` entry in a user
/// namespace of its own (Linux 6.7), which leaves the machine as it is.
fn binfmt_prefix(qemu: &Path) -> Result<Vec<OsString>, String> {
    if Path::new("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists() {
        return Ok(Vec::new());
    }
    if which("unshare").is_none() {
        return Err("neither binfmt_misc for AArch64 nor unshare".into());
    }
    let script = target().join("tools/binfmt-run.sh");
    fs::write(&script, binfmt_script(qemu)).map_err(|e| format!("{}: {e}", script.display()))?;
    let mut prefix: Vec<OsString> = ["unshare", "--user", "--map-root-user", "--mount", "sh"].map(Into::into).into();
    prefix.push(script.into());
    let probe = prefixed(&prefix, &command("true", [""; 0])).stderr(Stdio::null()).status();
    if probe.is_ok_and(|s| s.success()) {
        Ok(prefix)
    } else {
        Err("this kernel gives user namespaces no binfmt_misc (Linux 6.7)".into())
    }
}

/// The same command behind other words.
fn prefixed(prefix: &[OsString], inner: &Command) -> Command {
    let mut words = prefix.iter().map(OsString::as_os_str).chain([inner.get_program()]).chain(inner.get_args());
    let mut outer = Command::new(words.next().expect("there is a program"));
    outer.args(words);
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    outer
}

/// Registers qemu for 64-bit little-endian ELF files of machine 183 (Documentation/admin-guide/binfmt-misc.rst), then
/// runs the arguments.
fn binfmt_script(qemu: &Path) -> String {
    let magic = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00";
    let mask = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff";
    let dir = "/proc/sys/fs/binfmt_misc";
    format!(
        "set -e\nmount -t binfmt_misc none {dir}\n\
         printf '%s' ':calque-a64:M::{magic}:{mask}:{}:F' > {dir}/register\nexec \"$@\"\n",
        qemu.display()
    )
}

#[cfg(test)]
mod tests {
    use super::{Failures, result_line};

    #[test]
    fn reads_result_lines() {
        assert_eq!(result_line("test result: FAILED. 43 passed; 2 failed; 0 ignored; 0 measured"), Some((43, 2)));
        assert_eq!(result_line("16 passed, 1 failed, 1 skipped"), Some((16, 1)));
        assert_eq!(result_line("test that passed, failed"), None);
    }

    #[test]
    fn keeps_what_is_said_of_failures() {
        let mut failures = Failures::default();
        let printed =
            "test a ... ok\nfailures:\n\n---- b ----\nwrong\n\ntest result: FAILED. 1 passed\nok   c\nFAIL d rc=1";
        printed.lines().for_each(|line| failures.line(line));
        assert_eq!(failures.lines, ["failures:", "", "---- b ----", "wrong", "", "FAIL d rc=1"]);
    }
}
