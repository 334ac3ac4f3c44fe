//! How a guest is run. Users need none of these; tests and measurements do.

use crate::arch::{self, Units};
use crate::emit::Emit;
use crate::profile::ProfileOptions;
use std::ffi::{CStr, OsString};
use std::io;
use std::path::PathBuf;

/// Which engines may run guest code.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Engine {
    /// The IR interpreter only.
    Interp,
    /// Compiled code only: every region is compiled before its first execution.
    Jit,
    /// Tier 0 only, which translates in one pass: on x86-64 hosts, guest instructions copied as they are, on AArch64 hosts code emitted
    /// from a block's IR.
    Tier0,
    /// The interpreter for cold code, compiled regions for hot code.
    Tiered,
    /// What is fastest on this host: tier 0 on x86-64 processors that it can run on, tier 0 for cold code and compiled regions for hot code
    /// on AArch64, else `Tiered`.
    #[default]
    Auto,
}

impl Engine {
    /// The name that `--engine` takes.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Interp => "interp",
            Engine::Jit => "jit",
            Engine::Tier0 => "tier0",
            Engine::Tiered => "tiered",
            Engine::Auto => "auto",
        }
    }

    /// The engine that runs: what `Auto` stands for with these options on this host. An error if the host does not have it.
    pub(crate) fn resolve(self, options: &RunOptions) -> io::Result<Engine> {
        // What is shown is made of IR; what is counted, too, but for units.
        let is_plain = options.emit.is_none() && (Units::is_supported() || options.profile.is_none());
        match self {
            Engine::Auto if Units::is_supported() && is_plain => Ok(Engine::Tier0),
            // There `Auto` is an engine of its own: emitted code first, then compiled regions.
            Engine::Auto if arch::EMITS && is_plain => Ok(Engine::Auto),
            Engine::Auto => Ok(Engine::Tiered),
            Engine::Tier0 if !Units::is_supported() && !arch::EMITS => Err(io::Error::other(
                "this machine cannot run --engine tier0, which needs an x86-64 processor with AVX and FSGSBASE; use --engine auto",
            )),
            Engine::Tier0 if !is_plain => Err(io::Error::other(
                "tier0 does not show or count what it runs, as --emit and profiles ask; use another --engine",
            )),
            engine => Ok(engine),
        }
    }
}

/// Options of one run; children get the same ones ([`RunOptions::to_args`]).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunOptions {
    pub engine: Engine,
    /// Executions of a block by the interpreter after which its region is compiled.
    pub hot: u32,
    /// Compile in the guest's thread when a block gets hot instead of in the background.
    pub sync_compile: bool,
    /// Where the interpreter and libraries of dynamic programs are looked for before the host's root.
    pub sysroot: Option<PathBuf>,
    /// Print every system call on stderr.
    pub strace: bool,
    /// Print counters on stderr at exit.
    pub stats: bool,
    /// Print a report when the guest dies by a fault.
    pub crash_report: bool,
    /// Bytes of host code to keep before evicting.
    pub cache_budget: usize,
    /// Where translated code is kept for the next run; nowhere if there is none.
    pub cache_dir: Option<PathBuf>,
    /// Show translations as they are made.
    pub emit: Option<Emit>,
    /// Tell Linux's `perf` of translations.
    pub perf: bool,
    /// Where separate debug files are.
    pub debug_dirs: Vec<PathBuf>,
    /// Count what the guest executes, and write a profile in the end.
    pub profile: Option<ProfileOptions>,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            engine: Engine::Auto,
            hot: 500,
            sync_compile: false,
            sysroot: None,
            strace: false,
            stats: false,
            crash_report: true,
            cache_budget: 256 << 20,
            cache_dir: None,
            emit: None,
            perf: false,
            debug_dirs: vec!["/usr/lib/debug".into()],
            profile: None,
        }
    }
}

impl RunOptions {
    /// The command of `calque` that children go on under.
    pub fn command(&self) -> &'static CStr {
        if self.profile.is_some() { c"profile" } else { c"run" }
    }

    /// The arguments of [`RunOptions::command`] that give these options, without the program: for children that go on
    /// under Calque.
    pub fn to_args(&self) -> Vec<OsString> {
        let default = Self::default();
        let mut args: Vec<OsString> = Vec::new();
        let mut push = |arg: String| args.push(arg.into());
        if self.engine != default.engine {
            push(format!("--engine={}", self.engine.name()));
        }
        if self.hot != default.hot {
            push(format!("--hot={}", self.hot));
        }
        if self.sync_compile {
            push("--sync-compile".into());
        }
        if self.strace {
            push("--strace".into());
        }
        if self.stats {
            push("--stats".into());
        }
        if !self.crash_report {
            push("--no-crash-report".into());
        }
        if self.cache_budget != default.cache_budget {
            push(format!("--cache-size={}", self.cache_budget));
        }
        // Of children, too, that are given another environment.
        args.push("--cache-dir".into());
        args.push(self.cache_dir.as_deref().map_or(OsString::new(), OsString::from));
        if let Some(emit) = &self.emit {
            args.push(format!("--emit={emit}").into());
            if let Some(file) = &emit.to {
                args.push("--emit-to".into());
                args.push(file.into());
            }
        }
        if let Some(sysroot) = &self.sysroot {
            args.push("--sysroot".into());
            args.push(sysroot.into());
        }
        if self.debug_dirs != default.debug_dirs
            && let Ok(dirs) = std::env::join_paths(&self.debug_dirs)
        {
            args.push("--debug-dir".into());
            args.push(dirs);
        }
        if self.perf {
            args.push("--perf".into());
        }
        if let Some(profile) = &self.profile {
            args.extend(profile.to_args());
        }
        args
    }
}
