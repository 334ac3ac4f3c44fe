//! `Process`: what all guest threads share. There is one in a host process, because guest addresses are host
//! addresses and signal dispositions are the process's.
//!
//! # Safety
//! `exit` ends the process without destructors.

#![allow(unsafe_code)]

use crate::arch;
use crate::group::{self, ThreadGroup};
use crate::hidden;
use crate::memory::GuestMap;
use crate::options::RunOptions;
use crate::profile::{self, Ends};
use crate::stats::Stats;
use crate::syscall::Syscalls;
use crate::threads::{self, Threads};
use crate::tier::Code;
use crate::trace::Registers;
use calque_ir::{CpuState, GuestAddr, GuestRange};
use std::any::Any;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

/// The guest process of this host process, for signal handlers.
static CURRENT: OnceLock<Process> = OnceLock::new();

/// The guest process of this host process.
pub fn current() -> Option<&'static Process> {
    CURRENT.get()
}

/// A guest process.
pub struct Process {
    pub mem: GuestMap,
    pub options: RunOptions,
    pub syscalls: Box<dyn Syscalls>,
    pub stats: Stats,
    /// Where `--stats` prints: our own standard error, which the guest may have closed by then.
    stats_output: Option<File>,
    pub threads: Threads,
    /// The host threads of the process that the memory belongs to; one that lodges in it (`fork.rs`) has a group of its own.
    pub(crate) home: Arc<ThreadGroup>,
    pub(crate) code: Code,
    /// Known once the program is loaded.
    exe: OnceLock<ExeInfo>,
}

/// The translator at rest. Locks in their order: a split lock may fault and so get to all that follow; those of the profile; code before
/// memory (`smc.rs`).
///
/// Every lock that outlives a call is held here, or is never waited for: what is changed alone is swapped (`ArcSwapOption`), what is found out
/// once is found out by whoever wants it (`once_cell::race`). A lock that another thread holds when the process forks is held in the
/// child for ever.
pub(crate) struct Quiet<'a> {
    _syscalls: Box<dyn Any>,
    _threads: threads::Frozen<'a>,
    _home: group::Frozen<'a>,
    _split: arch::FrozenSplits,
    _profile: Option<profile::Frozen<'a>>,
    _perf: Option<profile::perf::Frozen<'a>>,
    _code: crate::tier::Frozen<'a>,
    _mem: crate::memory::Frozen<'a>,
}

/// The running program, as `/proc/self/*` and children need it.
#[derive(Clone, Debug)]
pub struct ExeInfo {
    /// Absolute path of the executable on the host.
    pub path: PathBuf,
    /// Arguments and environment it was started with.
    pub argv: Vec<CString>,
    pub envp: Vec<CString>,
    /// Auxiliary vector as the guest's stack holds it: type, value.
    pub auxv: Vec<(u64, u64)>,
    /// Pc of the first instruction of the program itself, not of its interpreter.
    pub entry: GuestAddr,
    /// Added to the addresses in the executable's file.
    pub bias: u64,
    /// The initial stack.
    pub stack: GuestRange,
}

impl Process {
    /// State components that CPUID announces to the guest's threads.
    pub fn xcr0(&self) -> u64 {
        self.code.xcr0
    }

    /// The process, with nothing loaded.
    ///
    /// # Panics
    /// When called twice in one host process.
    pub fn new(options: RunOptions, syscalls: Box<dyn Syscalls>) -> io::Result<&'static Process> {
        let stats_output = options.stats.then(|| hidden::hide(io::stderr()).map(File::from)).transpose()?;
        let process = Process {
            mem: GuestMap::new()?,
            code: Code::new(&options)?,
            options,
            syscalls,
            stats: Stats::default(),
            threads: Threads::default(),
            home: Arc::default(),
            stats_output,
            exe: OnceLock::new(),
        };
        if process.code.units.is_some() || process.code.emits {
            process.mem.check_early();
        }
        assert!(CURRENT.set(process).is_ok(), "one guest process in a host process");
        Ok(current().expect("set just now"))
    }

    /// Ends the process with this exit code, after whatever `--stats` prints.
    pub fn exit(&self, code: i32) -> ! {
        self.write_profile(Ends::Exits(code));
        self.code.save(self);
        if let Some(stderr) = &self.stats_output {
            self.code.measure(&self.stats);
            // Nobody is left to hear of an error.
            let _ = write!(&mut &*stderr, "{}", self.stats);
        }
        // SAFETY: ends the process; Rust's destructors have nothing to do that the kernel does not.
        unsafe { libc::_exit(code) }
    }

    /// The kernel is about to write `len` bytes at `addr` by itself (`read`, `recv`, ...): translations of code
    /// there are dropped. If it yields true, [`GuestMap::end_kernel_write`] is to be called behind the write.
    #[must_use]
    pub fn prepare_kernel_write(&self, addr: GuestAddr, len: u64) -> bool {
        self.mem.prepare_kernel_write(addr, len, || self.drain_stale())
    }

    /// The kernel may write to guest memory there at any time from now on: see [`GuestMap::leave_to_kernel`].
    pub fn leave_to_kernel(&self, addr: GuestAddr, len: u64) {
        self.mem.leave_to_kernel(addr, len, || self.drain_stale());
    }

    /// The kernel may write to any memory of the guest's from now on: see [`GuestMap::leave_all_to_kernel`].
    pub fn leave_all_to_kernel(&self) {
        self.mem.leave_all_to_kernel(|| self.drain_stale());
    }

    /// Guest memory there is about to be written, or has been, in ways that nobody else notices.
    pub(crate) fn give_up_code(&self, addr: GuestAddr, len: u64) {
        if self.prepare_kernel_write(addr, len) {
            self.mem.end_kernel_write(addr, len);
        }
    }

    /// From now on registers are exact wherever the guest may fault: it has installed a handler that can look at them
    /// for `signo` (SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP).
    pub fn require_precise_faults(&self, signo: i32) {
        self.code.require_precise(signo == libc::SIGFPE);
    }

    /// A guest handler is about to see a fault.
    pub(crate) fn require_exact_flags(&self) {
        self.code.require_exact_flags();
    }

    /// A second thread, or memory that another process sees, is about to exist: from now on accesses keep the order that
    /// x86-64 promises. Call before it exists.
    pub fn require_order(&self) {
        self.code.require_order();
    }

    /// Drops translations of guest code that has changed, or waits until they are. Called at safepoints.
    pub(crate) fn drain_stale(&self) {
        if self.mem.any_stale() {
            self.code.drain_stale(&self.mem, &self.stats);
        }
    }

    /// Whether a thread that knows the code of this epoch must come to a safepoint.
    #[inline]
    pub(crate) fn wants_dispatcher(&self, cpu: &CpuState, epoch: u64) -> bool {
        cpu.rt.interrupt.load(Ordering::Relaxed) != 0 || self.mem.any_stale() || self.code.epoch() != epoch
    }

    /// Waits until no other thread is inside the map or the translations, and keeps them out: for `fork`.
    pub(crate) fn before_fork(&self) -> Quiet<'_> {
        let (syscalls, split) = (self.syscalls.freeze(), arch::freeze_splits());
        let perf = self.code.perf.as_ref().map(profile::perf::Perf::freeze);
        let code = self.code.freeze();
        let profile = self.code.profile.as_ref().map(profile::Profile::freeze);
        Quiet {
            _syscalls: syscalls,
            _threads: self.threads.freeze(),
            _home: self.home.freeze(),
            _split: split,
            _profile: profile,
            _perf: perf,
            _code: code,
            _mem: self.mem.freeze(),
        }
    }

    /// In the child of a fork, whose only thread has these registers.
    pub(crate) fn after_fork_in_child(&self, survivor: &CpuState) {
        self.threads.after_fork_in_child();
        self.home.after_fork_in_child(Registers::of(survivor));
        self.code.after_fork_in_child(&survivor.rt.interrupt);
    }

    /// Records what `load` has loaded.
    pub(crate) fn set_exe(&self, exe: ExeInfo) {
        self.code.use_saved(&self.options, &exe.path);
        assert!(self.exe.set(exe).is_ok(), "one program in a process");
    }

    /// The running program, once there is one.
    pub(crate) fn loaded(&self) -> Option<&ExeInfo> {
        self.exe.get()
    }

    /// The running program.
    ///
    /// # Panics
    /// Before one is loaded.
    pub fn exe(&self) -> &ExeInfo {
        self.exe.get().expect("a program is loaded")
    }
}
