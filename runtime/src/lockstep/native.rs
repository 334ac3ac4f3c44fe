//! The processor as a follower: a copy of the leader under `ptrace`, at native speed between stops.
//!
//! System calls are never executed on its own behalf (`PTRACE_SYSEMU`); signals never reach it. Mappings are changed by calls
//! that the controller makes it execute, at a SYSCALL instruction of its own. Instructions that only the translator can run, and
//! the place to run to, have breakpoints (INT3).
//!
//! # Safety
//! `ptrace` requests with buffers of the size that they are told, on a process of our own that is stopped.

#![allow(unsafe_code)]

use super::birth::STUB;
use super::follower::{Stop, Target, When};
use super::remote::{Remote, interpret};
use super::state::State;
use crate::memory::MapOp;
use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::mem::offset_of;
use std::time::{Duration, Instant};

/// `PTRACE_SYSEMU` and `PTRACE_SYSEMU_SINGLESTEP` (asm/ptrace-abi.h).
const SYSEMU: libc::c_uint = 31;
const SYSEMU_SINGLESTEP: libc::c_uint = 32;
/// Register set of the extended state (linux/elf.h).
const NT_X86_XSTATE: usize = 0x202;
const INT3: u8 = 0xcc;
/// Room for the extended state of any processor (bytes).
const XSTATE_ROOM: usize = 16 << 10;
/// Offsets in the extended state (SDM vol. 1 13.4).
mod xsave {
    pub(super) const FCW: usize = 0;
    pub(super) const FSW: usize = 2;
    pub(super) const FTW: usize = 4;
    pub(super) const MXCSR: usize = 24;
    pub(super) const ST0: usize = 32;
    pub(super) const XMM0: usize = 160;
    pub(super) const XSTATE_BV: usize = 512;
    pub(super) const YMMH0: usize = 576;
}
/// `si_code` of signals that a process sent are not positive; SIGTRAP's own stops have these (asm-generic/siginfo.h).
const SI_KERNEL: i32 = 0x80;
/// `si_code` of a breakpoint in a debug register.
const TRAP_HWBKPT: i32 = 4;

/// How long a run may come by its target before it is given up.
const LIMIT: Duration = Duration::from_millis(1500);

/// The traced process.
pub(crate) struct Native {
    pid: Pid,
    pub(crate) remote: Remote,
    /// Breakpoints: the bytes that they stand for.
    patches: HashMap<u64, u8>,
    /// An image of the extended state, for its layout and what is not the guest's in it.
    xstate: Vec<u8>,
    pub(crate) times: VecDeque<u64>,
    /// Instructions that only the translator can run.
    special: HashSet<u64>,
    /// Stopped at a system call that is not executed: the next single step is reported before it is made.
    at_call: bool,
}

impl Drop for Native {
    fn drop(&mut self) {
        // A process that is gone already is no trouble.
        let _ = nix::sys::signal::kill(self.pid, Signal::SIGKILL);
        let _ = waitpid(self.pid, Some(WaitPidFlag::__WALL));
    }
}

impl Native {
    /// Takes over process `pid`, which sleeps, and gives it this state.
    pub(crate) fn attach(pid: i32, state: &State) -> io::Result<Native> {
        let pid = Pid::from_raw(pid);
        ptrace::seize(pid, ptrace::Options::PTRACE_O_EXITKILL | ptrace::Options::PTRACE_O_TRACESYSGOOD)?;
        ptrace::interrupt(pid)?;
        let remote = Remote::open(pid.as_raw())?;
        let mut native = Native {
            pid,
            remote,
            patches: HashMap::new(),
            xstate: Vec::new(),
            times: VecDeque::new(),
            special: HashSet::new(),
            at_call: false,
        };
        native.wait()?;
        native.xstate = native.read_xstate()?;
        native.set_state(state)?;
        Ok(native)
    }

    /// Makes the process execute a system call; its result.
    fn execute(&mut self, nr: libc::c_long, args: [u64; 6]) -> io::Result<u64> {
        let saved = ptrace::getregs(self.pid)?;
        let mut regs = saved;
        regs.rip = STUB;
        (regs.rax, regs.orig_rax) = (nr as u64, u64::MAX);
        [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9] = args;
        ptrace::setregs(self.pid, regs)?;
        // A real single step: the one instruction is SYSCALL. Out of a system call that was not executed, the kernel reports a
        // step before there was one.
        self.at_call = false;
        while ptrace::getregs(self.pid)?.rip == STUB {
            ptrace::step(self.pid, None)?;
            self.wait()?;
        }
        let result = ptrace::getregs(self.pid)?.rax;
        ptrace::setregs(self.pid, saved)?;
        if result > -4096i64 as u64 {
            return Err(io::Error::other(format!(
                "system call {nr} {args:x?}: {}",
                Errno::from_raw(-(result as i64) as i32).desc()
            )));
        }
        Ok(result)
    }

    /// Waits for the next stop; the signal in it.
    fn wait(&self) -> io::Result<i32> {
        loop {
            match waitpid(self.pid, Some(WaitPidFlag::__WALL)) {
                Ok(WaitStatus::PtraceSyscall(_)) => return Ok(libc::SIGTRAP | 0x80),
                Ok(WaitStatus::Stopped(_, signal)) => return Ok(signal as i32),
                Ok(WaitStatus::PtraceEvent(_, signal, _)) => return Ok(signal as i32),
                Ok(_) => return Err(io::Error::other("the native process ended")),
                Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn request(&self, request: libc::c_uint) -> io::Result<()> {
        // SAFETY: resumes the stopped process; no buffers.
        Errno::result(unsafe { libc::ptrace(request, self.pid.as_raw(), 0, 0) })?;
        Ok(())
    }

    fn read_xstate(&self) -> io::Result<Vec<u8>> {
        let mut image = vec![0; XSTATE_ROOM];
        let mut io = libc::iovec { iov_base: image.as_mut_ptr().cast(), iov_len: image.len() };
        // SAFETY: the kernel writes at most `iov_len` bytes.
        Errno::result(unsafe { libc::ptrace(libc::PTRACE_GETREGSET, self.pid.as_raw(), NT_X86_XSTATE, &raw mut io) })?;
        image.truncate(io.iov_len);
        Ok(image)
    }

    /// Registers as they are.
    pub(crate) fn state(&self) -> io::Result<State> {
        let r = ptrace::getregs(self.pid)?;
        let x = self.read_xstate()?;
        let half = |at: usize| u64::from(u16::from_le_bytes([x[at], x[at + 1]]));
        let word = |at: usize| u64::from_le_bytes(x[at..at + 8].try_into().expect("8 bytes"));
        let vector = |at: usize| [word(at), word(at + 8)];
        let (fsw, present) = (half(xsave::FSW), word(xsave::XSTATE_BV));
        let top = (fsw >> 11 & 7) as usize;
        let mut st = [[0; 2]; 8];
        for n in 0..8 {
            let [low, high] = vector(xsave::ST0 + 16 * n);
            st[(n + top) % 8] = [low, high & 0xffff];
        }
        let ymmh = if present & 4 != 0 { std::array::from_fn(|n| vector(xsave::YMMH0 + 16 * n)) } else { [[0; 2]; 16] };
        Ok(State {
            gpr: [
                r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14,
                r.r15,
            ],
            rip: r.rip,
            rflags: r.eflags,
            fs_base: r.fs_base,
            gs_base: r.gs_base,
            mxcsr: word(xsave::MXCSR) & 0xffff_ffff,
            fcw: half(xsave::FCW),
            fsw,
            ftw: x[xsave::FTW].into(),
            st,
            xmm: std::array::from_fn(|n| vector(xsave::XMM0 + 16 * n)),
            ymmh,
        })
    }

    pub(crate) fn set_state(&mut self, state: &State) -> io::Result<()> {
        self.set_general(state)?;
        let mut x = self.xstate.clone();
        let mut put = |at: usize, bytes: &[u8]| x[at..at + bytes.len()].copy_from_slice(bytes);
        put(xsave::FCW, &(state.fcw as u16).to_le_bytes());
        put(xsave::FSW, &(state.fsw as u16).to_le_bytes());
        put(xsave::FTW, &[state.ftw as u8, 0]);
        put(xsave::MXCSR, &(state.mxcsr as u32).to_le_bytes());
        for n in 0..8 {
            put(xsave::ST0 + 16 * n, bytemuck::bytes_of(&state.st[(n + state.top()) % 8]));
        }
        put(xsave::XMM0, bytemuck::bytes_of(&state.xmm));
        put(xsave::YMMH0, bytemuck::bytes_of(&state.ymmh));
        put(xsave::XSTATE_BV, &7u64.to_le_bytes());
        let mut io = libc::iovec { iov_base: x.as_mut_ptr().cast(), iov_len: x.len() };
        // SAFETY: the kernel reads `iov_len` bytes.
        Errno::result(unsafe { libc::ptrace(libc::PTRACE_SETREGSET, self.pid.as_raw(), NT_X86_XSTATE, &raw mut io) })?;
        Ok(())
    }

    /// Sets what is not vectors nor x87.
    pub(crate) fn set_general(&mut self, state: &State) -> io::Result<()> {
        let mut r = ptrace::getregs(self.pid)?;
        [
            r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14,
            r.r15,
        ] = state.gpr;
        r.rip = state.rip;
        r.eflags = state.rflags;
        r.fs_base = state.fs_base;
        r.gs_base = state.gs_base;
        r.orig_rax = u64::MAX;
        Ok(ptrace::setregs(self.pid, r)?)
    }

    /// At a system call: its number.
    pub(crate) fn syscall_number(&self) -> io::Result<u64> {
        Ok(ptrace::getregs(self.pid)?.orig_rax)
    }

    /// The instruction at `pc` is one that only the translator can run.
    pub(crate) fn mark_special(&mut self, pc: u64) {
        self.special.insert(pc);
        self.watch(pc);
    }

    /// Puts a breakpoint at an instruction.
    fn watch(&mut self, pc: u64) {
        let mut old = [0];
        if !self.patches.contains_key(&pc) && self.remote.read(pc, &mut old) && self.remote.write(pc, &[INT3]) {
            self.patches.insert(pc, old[0]);
        }
    }

    /// Takes it away.
    fn unwatch(&mut self, pc: u64) {
        if let Some(old) = self.patches.remove(&pc) {
            self.remote.write(pc, &[old]);
        }
    }

    /// The guest's own bytes of memory that holds breakpoints.
    pub(crate) fn without_breakpoints(&self, at: u64, bytes: &mut [u8]) {
        for (pc, old) in &self.patches {
            if let Some(byte) = pc.checked_sub(at).and_then(|n| bytes.get_mut(n as usize))
                && *byte == INT3
            {
                *byte = *old;
            }
        }
    }

    /// Runs until a system call, a fault, or the target.
    pub(crate) fn run(&mut self, target: Option<&Target>) -> io::Result<Stop> {
        if target.is_some_and(|target| target.when == When::Visits(0)) {
            return Ok(Stop::Reached);
        }
        // The first instruction runs without the breakpoint, which may stand on it.
        if let Some(stop) = self.step()? {
            return Ok(stop);
        }
        let Some(target) = target else { return self.run_on(None) };
        let is_new = !self.patches.contains_key(&target.pc);
        if is_new && !self.watch_register(Some(target.pc)) {
            self.watch(target.pc);
        }
        let stop = self.run_on(Some(target));
        if is_new {
            self.watch_register(None);
            self.unwatch(target.pc);
        }
        stop
    }

    /// The same, with the target's breakpoint in its place.
    fn run_on(&mut self, target: Option<&Target>) -> io::Result<Stop> {
        let (start, mut arrivals) = (Instant::now(), 0);
        loop {
            self.request(SYSEMU)?;
            match self.wait()? {
                signal if signal == libc::SIGTRAP | 0x80 => {
                    self.at_call = true;
                    return Ok(Stop::Syscall);
                }
                libc::SIGTRAP => {
                    let Some((pc, by_register)) = self.breakpoint(target)? else {
                        if let Some(stop) = self.fault()? {
                            return Ok(stop);
                        }
                        continue;
                    };
                    if let Some(target) = target.filter(|target| target.pc == pc) {
                        arrivals += 1;
                        let is_there = match target.when {
                            When::Visits(n) => arrivals == n,
                            _ => self.has_registers(target)?,
                        };
                        if is_there {
                            return Ok(Stop::Reached);
                        }
                        if target.when == When::Registers && start.elapsed() > LIMIT {
                            return Ok(Stop::Lost);
                        }
                    }
                    // The kernel lets a process go on from a breakpoint in a register.
                    if !by_register && let Some(stop) = self.step()? {
                        return Ok(stop);
                    }
                }
                _ => {
                    if let Some(stop) = self.fault()? {
                        return Ok(stop);
                    }
                }
            }
        }
    }

    /// The breakpoint that the process has stopped at by SIGTRAP, with RIP there; whether it is in a register.
    fn breakpoint(&mut self, target: Option<&Target>) -> io::Result<Option<(u64, bool)>> {
        let mut regs = ptrace::getregs(self.pid)?;
        let info = ptrace::getsiginfo(self.pid);
        if info.is_ok_and(|info| info.si_code == TRAP_HWBKPT) && target.is_some_and(|target| target.pc == regs.rip) {
            return Ok(Some((regs.rip, true)));
        }
        let pc = regs.rip.wrapping_sub(1);
        if !self.patches.contains_key(&pc) {
            return Ok(None);
        }
        regs.rip = pc;
        ptrace::setregs(self.pid, regs)?;
        Ok(Some((pc, false)))
    }

    /// Puts the one breakpoint that is in a debug register at an instruction, or nowhere; whether that is possible. It costs one stop
    /// where INT3 costs two.
    fn watch_register(&mut self, pc: Option<u64>) -> bool {
        let at = |n: usize| offset_of!(libc::user, u_debugreg) + 8 * n;
        let poke = |n: usize, value: u64| {
            // SAFETY: writes a debug register of the stopped process.
            unsafe { libc::ptrace(libc::PTRACE_POKEUSER, self.pid.as_raw(), at(n), value) == 0 }
        };
        // DR7 0: off; L0 (SDM vol. 3 17.2.4), instruction, enables DR0.
        poke(7, 0) && pc.is_none_or(|pc| poke(0, pc) && poke(7, 1))
    }

    /// Whether the process has the target's registers.
    fn has_registers(&self, target: &Target) -> io::Result<bool> {
        let r = ptrace::getregs(self.pid)?;
        let gpr = [
            r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14,
            r.r15,
        ];
        Ok(gpr == target.gpr)
    }

    /// The fault that the process has stopped with; `None` for a signal that somebody sent, which is not for it.
    fn fault(&self) -> io::Result<Option<Stop>> {
        let info = match ptrace::getsiginfo(self.pid) {
            Ok(info) => info,
            // A group stop.
            Err(Errno::EINVAL) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let synchronous = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP];
        if info.si_code <= 0 || !synchronous.contains(&info.si_signo) {
            return Ok(None);
        }
        // SAFETY: a fault's siginfo has an address, unless the kernel says that it has none.
        let addr = if info.si_code == SI_KERNEL { 0 } else { unsafe { info.si_addr() as u64 } };
        Ok(Some(Stop::Fault { signo: info.si_signo, code: info.si_code, addr }))
    }

    /// Runs one instruction; what it stopped with, if not just behind it.
    pub(crate) fn step(&mut self) -> io::Result<Option<Stop>> {
        let pc = ptrace::getregs(self.pid)?.rip;
        let mut code = self.remote.bytes(pc, 15);
        self.without_breakpoints(pc, &mut code);
        if self.special.contains(&pc) && self.run_special(&code)? {
            return Ok(None);
        }
        let patch = self.patches.get(&pc).copied();
        if let Some(old) = patch {
            self.remote.write(pc, &[old]);
        }
        let stop = loop {
            self.request(SYSEMU_SINGLESTEP)?;
            match self.wait()? {
                libc::SIGTRAP if std::mem::take(&mut self.at_call) && ptrace::getregs(self.pid)?.rip == pc => {}
                signal if signal == libc::SIGTRAP | 0x80 => {
                    self.at_call = true;
                    break Some(Stop::Syscall);
                }
                libc::SIGTRAP if !matches!(code.first(), Some(&INT3 | &0xcd | &0xf1)) => break None,
                _ => {
                    if let Some(stop) = self.fault()? {
                        break Some(stop);
                    }
                }
            }
        };
        if patch.is_some() {
            self.remote.write(pc, &[INT3]);
        }
        Ok(stop)
    }

    /// Has the interpreter run the instruction, whose bytes are `code`; false if it faults.
    fn run_special(&mut self, code: &[u8]) -> io::Result<bool> {
        let state = self.state()?;
        let Some(next) = interpret(&self.remote, &state, code, &mut self.times) else { return Ok(false) };
        self.set_state(&next)?;
        self.at_call = false;
        Ok(true)
    }

    /// Changes mappings as the leader has. Files come from the controller's descriptor.
    pub(crate) fn repeat(&mut self, op: &MapOp, controller: i32) -> io::Result<()> {
        let [kind, at, len, prot, _, offset, to, new_len] = op.0;
        let placed = (libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE) as u64;
        if kind != MapOp::PROTECT {
            let gone = at..at + len;
            let taken = to..to + if kind == MapOp::REMAP { new_len } else { 0 };
            self.patches.retain(|pc, _| !gone.contains(pc) && !taken.contains(pc));
        }
        match (kind, op.file()) {
            (MapOp::MAP, Some(fd)) => {
                let path = format!("/proc/{controller}/fd/{fd}\0");
                self.remote.write(STUB + 16, path.as_bytes());
                let open = [libc::AT_FDCWD as u64, STUB + 16, libc::O_RDONLY as u64, 0, 0, 0];
                let own = self.execute(libc::SYS_openat, open)?;
                let mapped = self.execute(libc::SYS_mmap, [at, len, prot, placed, own, offset]);
                self.execute(libc::SYS_close, [own, 0, 0, 0, 0, 0])?;
                mapped
            }
            (MapOp::MAP, None) => {
                let flags = placed | libc::MAP_ANONYMOUS as u64;
                self.execute(libc::SYS_mmap, [at, len, prot, flags, u64::MAX, 0])
            }
            (MapOp::UNMAP, _) => self.execute(libc::SYS_munmap, [at, len, 0, 0, 0, 0]),
            (MapOp::PROTECT, _) => self.execute(libc::SYS_mprotect, [at, len, prot, 0, 0, 0]),
            (MapOp::REMAP, _) => {
                let flags = if to == at { 0 } else { (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as u64 };
                self.execute(libc::SYS_mremap, [at, len, new_len, flags, to, 0])
            }
            _ => self.execute(libc::SYS_madvise, [at, len, prot, 0, 0, 0]),
        }
        .map(drop)
    }
}
