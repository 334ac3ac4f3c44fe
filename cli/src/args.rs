//! The command line. `calque PROGRAM` is short for `calque run PROGRAM`.

use crate::profile::Format;
use calque_runtime::emit::Emit;
use calque_runtime::lockstep::{Place, Sabotage};
use calque_runtime::{Engine, RunOptions};
use clap::builder::{OsStringValueParser, PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Runs x86-64 Linux programs on x86-64 and AArch64 Linux, without root and without an image.
#[derive(Parser, Debug)]
#[command(name = "calque", version, max_term_width = 100)]
#[command(after_help = "`calque PROGRAM [ARGS]...` is short for `calque run PROGRAM [ARGS]...`.")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Run a program
    Run(RunArgs),
    /// Compare a program's execution with the processor's, or one engine's with another's
    Diff(DiffArgs),
    /// Run a program and count what it executes
    Profile(ProfileArgs),
    /// Show instructions on their way from bytes to host code
    Lift(LiftArgs),
    /// Compare translated instructions with this machine's processor
    Difftest(DifftestArgs),
    /// Run the small guest program that calque carries inside
    Demo(DemoArgs),
}

/// How to run; what [`RunOptions`] holds.
#[derive(Args, Debug)]
pub(crate) struct EngineArgs {
    /// Engines that may run guest code
    #[arg(long, value_name = "ENGINE", default_value = "auto", hide_possible_values = true,
          value_parser = PossibleValuesParser::new(ENGINES.map(Engine::name)).map(|name| engine(&name)),
          help = "Engines that may run guest code: interp, tier0, tiered (interp and jit), jit or auto, the best of this machine")]
    engine: Engine,
    /// Executions after which code is compiled
    #[arg(long, value_name = "N")]
    hot: Option<u32>,
    /// Compile hot code at once instead of in the background
    #[arg(long)]
    sync_compile: bool,
    /// Bytes of translated code to keep (K, M and G may follow the number)
    #[arg(long, value_name = "BYTES", value_parser = size)]
    cache_size: Option<usize>,
    /// Where code translated on AArch64 is kept for a program's next run; empty: nowhere
    /// [default: calque in $XDG_CACHE_HOME or in ~/.cache]
    #[arg(long, value_name = "DIR", env = "CALQUE_CACHE_DIR", hide_env_values = true, value_parser = OsStringValueParser::new())]
    cache_dir: Option<OsString>,
    /// Print every system call on stderr
    #[arg(long)]
    strace: bool,
    /// Print counters on stderr at exit
    #[arg(long)]
    stats: bool,
    /// Print translations: asm,ir,opt,clif,host (some of them), of all code or of the code at =PC or in =FUNCTION
    #[arg(long, value_name = "FORMS[=PLACE]", value_parser = Emit::parse)]
    emit: Option<Emit>,
    /// Append them to a file instead of stderr
    #[arg(long, value_name = "FILE", requires = "emit")]
    emit_to: Option<PathBuf>,
    /// Let Linux's perf name translated code: /tmp/perf-PID.map and /tmp/jit-PID.dump
    #[arg(long)]
    perf: bool,
    /// Where separate debug files are, for the names of functions: directories as in gdb's debug-file-directory, with colons between them
    /// [default: /usr/lib/debug]
    #[arg(long, value_name = "DIRS", env = "CALQUE_DEBUG_DIR", hide_env_values = true)]
    debug_dir: Option<OsString>,
    /// Print no report when the program dies by a fault
    #[arg(long)]
    no_crash_report: bool,
}

#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    /// Root of an x86-64 system: where dynamic linker, libraries and programs are looked for first
    #[arg(short = 'L', long, value_name = "DIR", env = "CALQUE_SYSROOT")]
    pub(crate) sysroot: Option<PathBuf>,
    /// Set a variable in the program's environment; VAR alone removes it
    #[arg(short = 'E', long = "env", value_name = "VAR=VALUE")]
    pub(crate) env: Vec<OsString>,
    /// The program's argv[0]
    #[arg(long, value_name = "NAME")]
    pub(crate) argv0: Option<OsString>,
    /// Place under the controller of a comparison
    #[arg(long, hide = true, value_parser = under)]
    pub(crate) under: Option<Place>,
    /// The program, and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "PROGRAM")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Args, Debug)]
#[command(after_help = "Exit status: 0 the executions are the same, 1 they differ, 2 they cannot be compared. \
                        docs/DIFF.md says what is compared and how to read the report.")]
pub(crate) struct DiffArgs {
    /// What to compare with: native (the processor) or interp (the interpreter)
    #[arg(long, value_enum, default_value_t = Against::default())]
    pub(crate) against: Against,
    /// Compare child processes, too
    #[arg(long)]
    pub(crate) follow_forks: bool,
    /// Compare also between system calls, after about so many branches (jit, tiered and interp: instructions); 0: never
    /// [default: 20000000]
    #[arg(long, value_name = "N")]
    pub(crate) branches: Option<u64>,
    /// Break something, for tests of this command
    #[arg(long = "break", hide = true, value_name = "WHAT",
          value_parser = PossibleValuesParser::new(Sabotage::TABLE.map(|row| row.0)).map(|name| switch(&name)))]
    pub(crate) sabotage: Option<Sabotage>,
    /// Print nothing if the executions are the same
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "Children are profiled, too: a file each, with the process id in its name.")]
pub(crate) struct ProfileArgs {
    /// File to write: *.svg, *.json, *.folded, *.txt, callgrind.out*; without one a summary goes to stderr
    #[arg(short = 'o', long = "output", value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// What to write
    #[arg(long, value_name = "FORMAT", hide_possible_values = true,
          value_parser = PossibleValuesParser::new(Format::ALL.map(Format::name)).map(|name| format(&name)),
          help = "What to write: summary, callgrind, folded (stacks), svg (flame graph) or json")]
    pub(crate) format: Option<Format>,
    /// Write nothing but the number of instructions, those of children included
    #[arg(long)]
    pub(crate) count: bool,
    /// Process that was profiled first (for programs that it executes)
    #[arg(long, value_name = "PID", hide = true)]
    pub(crate) root: Option<u32>,
    /// Programs that this process has executed before
    #[arg(long, value_name = "N", hide = true)]
    pub(crate) image: Option<u32>,
    /// Where processes add up their instructions
    #[arg(long, value_name = "FILE", hide = true)]
    pub(crate) totals: Option<PathBuf>,
    /// Count as on a host without AVX-512, for tests
    #[arg(long, hide = true)]
    pub(crate) narrow: bool,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// What an execution is compared with.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Against {
    Native,
    Interp,
}

impl Default for Against {
    /// The processor, on machines that have an x86-64 one.
    fn default() -> Self {
        if cfg!(target_arch = "x86_64") { Against::Native } else { Against::Interp }
    }
}

#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

#[derive(Args, Debug)]
pub(crate) struct DifftestArgs {
    #[command(subcommand)]
    pub(crate) what: Difftest,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Difftest {
    /// Random instructions with random registers and memory, on the processor and in the engines
    Insn(InsnArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "Only on x86-64 machines. Exit status: 0 if nothing differs, 1 if something does.")]
pub(crate) struct InsnArgs {
    /// Mnemonics to test, as a pattern with * and ?, such as 'add' or 'v*ps'
    #[arg(long, value_name = "GLOB", default_value = "*")]
    pub(crate) rows: String,
    /// Cases in all
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    pub(crate) count: u64,
    /// Number that all random choices follow from
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Engine to test (repeat for more): interp, opt (interpreter behind the passes), jit, hot (regions), auto; all by default
    #[arg(long, value_name = "ENGINE", hide_possible_values = true,
          value_parser = PossibleValuesParser::new(TESTED.iter().map(|e| e.name())))]
    pub(crate) engine: Vec<String>,
    /// Sequences of 2 to 20 instructions with branches and loops, made of the chosen rows
    #[arg(long)]
    pub(crate) sequences: bool,
    /// Random states for each piece of code (1 to 64)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) states: Option<u8>,
    /// Only the case of this number, as a report says
    #[arg(long, value_name = "N")]
    pub(crate) index: Option<u64>,
    /// Print the cases as lines for tests/insn/*.case instead of running them in engines
    #[arg(long)]
    pub(crate) print: bool,
}

const TESTED: &[calque_difftest::guest::Engine] = calque_difftest::guest::Engine::ALL;

#[derive(Args, Debug)]
pub(crate) struct LiftArgs {
    /// Machine code in hexadecimal, such as '48 01 d8'
    #[arg(required = true, value_name = "BYTES")]
    pub(crate) bytes: Vec<String>,
    /// Processor to make code for
    #[arg(long, value_enum, default_value_t = HostName::native())]
    pub(crate) host: HostName,
    /// Guest address of the first byte
    #[arg(long, value_name = "ADDR", default_value = "0x401000", value_parser = address)]
    pub(crate) pc: u64,
}

/// A processor that calque makes code for.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HostName {
    #[value(name = "x86_64")]
    X86_64,
    #[value(name = "aarch64")]
    Aarch64,
}

impl HostName {
    /// As [`calque_backend::HostIsa::parse`] takes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            HostName::X86_64 => "x86_64",
            HostName::Aarch64 => "aarch64",
        }
    }

    fn native() -> HostName {
        match std::env::consts::ARCH {
            "aarch64" => HostName::Aarch64,
            _ => HostName::X86_64,
        }
    }
}

const ENGINES: [Engine; 5] = [Engine::Interp, Engine::Tier0, Engine::Tiered, Engine::Jit, Engine::Auto];

fn format(name: &str) -> Format {
    Format::ALL.into_iter().find(|f| f.name() == name).unwrap_or(Format::Summary)
}

fn engine(name: &str) -> Engine {
    ENGINES.into_iter().find(|e| e.name() == name).unwrap_or_default()
}

impl EngineArgs {
    /// The options for the runtime.
    pub(crate) fn options(&self, sysroot: Option<PathBuf>) -> RunOptions {
        let default = RunOptions::default();
        RunOptions {
            engine: self.engine,
            hot: self.hot.unwrap_or(default.hot),
            sync_compile: self.sync_compile,
            sysroot,
            strace: self.strace,
            stats: self.stats,
            crash_report: !self.no_crash_report,
            cache_budget: self.cache_size.unwrap_or(default.cache_budget),
            cache_dir: self.cache_dir.clone().map_or_else(default_cache_dir, non_empty),
            emit: self.emit.clone().map(|emit| Emit { to: self.emit_to.clone(), ..emit }),
            perf: self.perf,
            debug_dirs: self
                .debug_dir
                .as_ref()
                .map_or(default.debug_dirs, |dirs| std::env::split_paths(dirs).collect()),
            profile: None,
        }
    }
}

/// Where the XDG Base Directory Specification has what can be made again.
fn default_cache_dir() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(cache.join("calque"))
}

fn non_empty(dir: OsString) -> Option<PathBuf> {
    (!dir.is_empty()).then(|| dir.into())
}

/// A number of bytes, with a suffix of powers of 1024 if wanted.
fn size(text: &str) -> Result<usize, String> {
    let (digits, shift) = match text.char_indices().next_back() {
        Some((at, 'k' | 'K')) => (&text[..at], 10),
        Some((at, 'm' | 'M')) => (&text[..at], 20),
        Some((at, 'g' | 'G')) => (&text[..at], 30),
        _ => (text, 0),
    };
    let number: usize = digits.parse().map_err(|_| "not a number of bytes, such as 67108864 or 64M".to_string())?;
    number.checked_mul(1 << shift).ok_or_else(|| "too large".to_string())
}

fn switch(name: &str) -> Sabotage {
    Sabotage::TABLE.into_iter().find(|row| row.0 == name).expect("one of the table").1
}

/// Where a guest finds its controller.
fn under(text: &str) -> Result<Place, String> {
    Place::parse(text).ok_or_else(|| "not a place under a controller".to_string())
}

/// A guest address, decimal or 0x....
fn address(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| "not an address, such as 0x401000".to_string())
}

impl Cli {
    /// Reads a command line; ends the process if there is nothing to do.
    pub(crate) fn read(args: Vec<OsString>) -> Cli {
        let cli = Cli::parse_from(&args);
        // The program's own arguments may start with a hyphen, its name only behind `--`.
        if let Command::Run(run) | Command::Diff(DiffArgs { run, .. }) | Command::Profile(ProfileArgs { run, .. }) =
            &cli.command
            && run.command[0].as_bytes().starts_with(b"-")
            && !args.iter().any(|a| a == "--")
        {
            let message = format!("unexpected argument '{}'", run.command[0].display());
            Cli::command().error(ErrorKind::UnknownArgument, message).exit();
        }
        cli
    }
}

/// Puts `run` in front of a command line that names no subcommand.
pub(crate) fn with_run(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    const OWN: [&str; 11] =
        ["run", "diff", "profile", "lift", "difftest", "demo", "help", "-h", "--help", "-V", "--version"];
    let mut args: Vec<OsString> = args.collect();
    if args.get(1).is_some_and(|first| !OWN.iter().any(|own| OsStr::new(own) == first)) {
        args.insert(1, "run".into());
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_args(line: &str) -> Result<RunArgs, clap::Error> {
        let words = std::iter::once("calque").chain(line.split(' ')).map(OsString::from);
        match Cli::try_parse_from(with_run(words))?.command {
            Command::Run(args) => Ok(args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_is_understood_with_and_without_its_name() {
        for line in ["run --strace ls -l --strace", "--strace ls -l --strace", "--strace -- ls -l --strace"] {
            let args = run_args(line).unwrap();
            assert!(args.engine.strace, "{line}");
            assert_eq!(args.command, ["ls", "-l", "--strace"], "{line}");
        }
        assert!(!run_args("ls --strace").unwrap().engine.strace);
    }

    #[test]
    fn options_become_run_options() {
        let args = run_args("--engine jit --hot 7 --cache-size 64M -L /x -E A=b -E C ls").unwrap();
        assert_eq!(args.env, ["A=b", "C"]);
        let options = args.engine.options(args.sysroot.clone());
        assert_eq!((options.engine, options.hot, options.cache_budget), (Engine::Jit, 7, 64 << 20));
        assert_eq!(options.sysroot, Some(PathBuf::from("/x")));
    }

    /// Children are started with `RunOptions::to_args`: this crate must understand all that it says.
    #[test]
    fn children_get_the_same_options() {
        let options = RunOptions {
            engine: Engine::Interp,
            hot: 3,
            sync_compile: true,
            sysroot: Some("/x86".into()),
            strace: true,
            stats: true,
            crash_report: false,
            cache_budget: 1 << 20,
            cache_dir: Some("/cache".into()),
            emit: Some(Emit { to: Some("/dump".into()), ..Emit::parse("ir,host=main").unwrap() }),
            perf: true,
            debug_dirs: vec!["/debug".into(), "/more".into()],
            profile: None,
        };
        let mut words: Vec<OsString> = vec!["calque".into(), "run".into()];
        words.extend(options.to_args());
        words.extend(["--".into(), "/bin/true".into()]);
        let Command::Run(args) = Cli::try_parse_from(words).unwrap().command else { panic!() };
        assert_eq!(args.engine.options(args.sysroot.clone()), options);
    }
}
