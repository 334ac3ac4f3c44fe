//! Safepoints: what becomes of recorded signals and of faults.
//!
//! The order of things is `arch/x86/kernel/signal.c`'s: frames of several signals stack, each on top of the state that the
//! one before has reached. What becomes of an interrupted system call is decided before (`mod.rs`): it has returned EINTR, or RIP
//! stands at its instruction again.

use super::actions::{SA_RESTORER, SIG_DFL, SIG_IGN};
use super::error_code;
use super::frame::{FpImage, FpLayout, KernelSigaction, Placement, RtSigFrame, SigContext, UContext};
use super::host::{self, Inbox};
use super::set::{HARMLESS, SYNCHRONOUS};
use super::{AltStack, SigInfo, SigSet, SignalActions, inherit};
use crate::access::{self, Fault};
use crate::fork;
use crate::memory::Prot;
use crate::profile::Ends;
use crate::thread::{Access, GuestFault, MemoryCause, Thread};
use calque_ir::addr::GUEST_PAGE;
use calque_ir::{CpuState, FaultKind, GuestAddr, GuestRange};
use libc::{SA_NODEFER, SA_ONSTACK, SA_RESETHAND};
use libc::{SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGTRAP};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Signal state of one thread.
pub struct ThreadSignals {
    /// Dispositions; threads share them, children have their own.
    pub actions: Arc<SignalActions>,
    /// Signals that the guest blocks.
    pub(super) mask: SigSet,
    /// Mask to go back to when `mask` is that of a `sigsuspend`-like call (S4).
    pub(super) saved_mask: Option<SigSet>,
    pub(crate) alt: AltStack,
    /// Boxed: host handlers know its address.
    inbox: Box<Inbox>,
    /// Synchronous signals that somebody sent while the guest blocks them.
    held: Vec<SigInfo>,
    /// What frames show of the thread's last exception.
    trap: TrapInfo,
    /// Frames pushed since somebody emptied the list: the controller of a comparison copies them.
    pub(crate) frames: Vec<GuestRange>,
    /// Where host handlers of this thread run; empty until it is attached.
    handler_stack: Vec<u8>,
}

/// The last exception, as `struct thread_struct` keeps it for signal frames.
#[derive(Clone, Copy, Default)]
struct TrapInfo {
    /// Exception vector (SDM vol. 3 table 6-1).
    vector: u64,
    /// Its error code.
    error: u64,
    /// Address of the last page fault.
    cr2: u64,
}

impl TrapInfo {
    /// How a report begins to speak of the address; `None` if there is none.
    fn access(&self) -> Option<&'static str> {
        match (self.vector, self.error) {
            (14, error) if error & 0x10 != 0 => Some("jump to"),
            (14, error) if error & 2 != 0 => Some("write to"),
            (14, _) => Some("read of"),
            _ => None,
        }
    }
}

impl Default for ThreadSignals {
    /// State of a program's first thread.
    fn default() -> Self {
        Self::new(Arc::default(), inherit::blocked())
    }
}

impl ThreadSignals {
    /// A thread with this mask and no alternate stack.
    fn new(actions: Arc<SignalActions>, mask: SigSet) -> Self {
        Self {
            actions,
            mask,
            saved_mask: None,
            alt: AltStack::NONE,
            inbox: Box::default(),
            held: Vec::new(),
            trap: TrapInfo::default(),
            frames: Vec::new(),
            handler_stack: Vec::new(),
        }
    }

    /// State of a new thread beside this one (`copy_process`): same mask and dispositions, no alternate stack.
    pub fn beside(&self) -> Self {
        Self { trap: self.trap, ..Self::new(Arc::clone(&self.actions), self.mask) }
    }

    /// State of the thread of a child process: a copy but for what is pending.
    pub fn forked(&self) -> Self {
        let actions = Arc::new(self.actions.duplicate());
        Self { trap: self.trap, alt: self.alt, ..Self::new(actions, self.mask) }
    }

    /// In the child of a fork: takes over `child`'s state on the same host thread.
    pub fn become_forked(&mut self, child: Self) {
        let handler_stack = std::mem::take(&mut self.handler_stack);
        *self = Self { handler_stack, ..child };
    }

    /// Where host handlers record.
    pub(super) fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    /// The stack for host handlers, made at the first call.
    pub(super) fn handler_stack(&mut self) -> &mut [u8] {
        self.handler_stack.resize(host::HANDLER_STACK, 0);
        &mut self.handler_stack
    }

    /// Signals that the guest blocks.
    pub fn mask(&self) -> SigSet {
        self.mask
    }

    /// Sets the guest's mask, and the host's with it.
    pub(super) fn set_mask(&mut self, mask: SigSet) {
        self.mask = mask.blockable();
        host::set_mask(self.mask);
    }

    /// The next signal to deliver.
    fn next(&mut self) -> Option<SigInfo> {
        let ready = self.held.iter().position(|info| !self.mask.contains(info.signo));
        ready.map(|i| self.held.remove(i)).or_else(|| self.inbox.take())
    }

    /// Whether anything waits that the mask lets through.
    pub(crate) fn is_due(&self) -> bool {
        !self.inbox.is_empty() || self.held.iter().any(|info| !self.mask.contains(info.signo))
    }

    /// Gives held signals to the kernel, which keeps them across `execve`. The host blocks what the guest blocks, for the
    /// moment; when it no longer does, they come back.
    pub(crate) fn hand_back_held(&mut self) {
        self.held.drain(..).for_each(|info| host::requeue(&info));
    }

    /// Synchronous signals that wait for the guest to unblock them.
    pub(super) fn held(&self) -> SigSet {
        SigSet(self.held.iter().map(|info| 1 << (info.signo - 1)).fold(0, |a, b| a | b))
    }
}

/// The floating point image that frames carry: an extended one if CPUID announces OSXSAVE (leaf 1, ECX bit 27).
fn fp_layout(cpu: &CpuState) -> FpLayout {
    if crate::cpuid::announces_osxsave() { FpLayout::Xsave(cpu.xcr0) } else { FpLayout::Fxsave }
}

/// Length of the SYSCALL instruction in bytes.
const SYSCALL_LEN: u64 = 2;

/// Delivers what has arrived: to be called outside generated code with exact registers, whenever the interrupt
/// word has [`host::SIGNAL`] set.
pub fn deliver_pending(thread: &mut Thread) {
    thread.deliver_due();
}

/// Sets RIP, which stands behind a SYSCALL instruction that has not begun its call, back to it; then delivers.
pub fn restart_call(thread: &mut Thread) {
    thread.cpu.rip = thread.cpu.rip.wrapping_sub(SYSCALL_LEN);
    thread.deliver_due();
}

/// Raises the signal of an exception at RIP: runs the guest's handler or dies.
pub fn raise(thread: &mut Thread, fault: GuestFault) {
    thread.raise_fault(fault);
}

/// What [`raise`] would do: signal number, code, address, and whether the guest has a handler that runs.
pub(crate) fn preview(thread: &Thread, fault: GuestFault) -> (i32, i32, u64, bool) {
    let fault = if fault == GuestFault::Trap(FaultKind::Fetch) { thread.fetch_fault() } else { fault };
    let info = Exception::of(fault, &thread.cpu).info;
    let action = thread.signals.actions.get(info.signo);
    let handled = action.handler > SIG_IGN && !thread.signals.mask.contains(info.signo);
    (info.signo, info.code, info.addr(), handled)
}

impl Thread {
    fn deliver_due(&mut self) {
        self.cpu.rt.interrupt.fetch_and(!host::SIGNAL, Relaxed);
        while let Some(info) = self.signals.next() {
            self.deliver(&info);
        }
        if let Some(mask) = self.signals.saved_mask.take() {
            self.signals.mask = mask;
        }
        host::set_mask(self.signals.mask);
    }

    fn deliver(&mut self, info: &SigInfo) {
        let action = self.signals.actions.get(info.signo);
        let synchronous = SYNCHRONOUS.contains(info.signo);
        match action.handler {
            _ if self.signals.mask.contains(info.signo) && synchronous => self.signals.held.push(*info),
            // The guest's mask or action changed since the host handler took it: the kernel decides anew.
            _ if self.signals.mask.contains(info.signo) => host::requeue(info),
            SIG_IGN => {}
            SIG_DFL if synchronous => self.die(info),
            // Only caught for this: the profile is written first.
            SIG_DFL if self.process.options.profile.is_some() && !HARMLESS.contains(info.signo) => self.die(info),
            SIG_DFL => host::requeue(info),
            _ => self.run_handler(info, &action),
        }
    }

    /// Enters the handler of `action`, or dies trying (`kernel/signal.c: signal_setup_done`).
    fn run_handler(&mut self, info: &SigInfo, action: &KernelSigaction) {
        self.process.syscalls.signal(self, info);
        if action.flags & SA_RESETHAND as u64 != 0 {
            self.signals.actions.reset(info.signo);
        }
        if self.push_frame(info, action).is_err() {
            self.force(
                SigInfo::new(SIGSEGV, SI_KERNEL),
                if info.signo == SIGSEGV { Force::Kill } else { Force::Handle },
            );
            return;
        }
        let own = if action.flags & SA_NODEFER as u64 == 0 { SigSet::of(&[info.signo]) } else { SigSet::EMPTY };
        self.signals.mask = self.signals.mask.union(SigSet(action.mask)).union(own).blockable();
    }

    /// `setup_rt_frame`: builds the frame and points the registers at the handler.
    fn push_frame(&mut self, info: &SigInfo, action: &KernelSigaction) -> Result<(), Fault> {
        let layout = fp_layout(&self.cpu);
        let place = self.place_frame(action, layout)?;
        let alt = self.signals.alt;
        let mcontext = SigContext { fpstate: place.fp, ..self.sigcontext() };
        let sigmask = self.signals.saved_mask.take().unwrap_or(self.signals.mask).0;
        let uc = UContext { flags: layout.uc_flags(), link: 0, stack: alt, mcontext, sigmask };
        let frame = RtSigFrame { pretcode: action.restorer, uc, info: *info };
        for (at, bytes) in FpImage::store(&self.cpu, layout).pieces() {
            access::write_bytes(GuestAddr(place.fp).wrapping_add(at as u64), bytes)?;
        }
        access::write(GuestAddr(place.frame), &frame)?;
        if alt.flags & AltStack::AUTODISARM != 0 {
            self.signals.alt = AltStack::NONE;
        }
        self.signals.frames.push(GuestRange {
            start: GuestAddr(place.frame),
            end: GuestAddr(place.fp.wrapping_add(layout.size() as u64)),
        });
        self.enter_handler(info.signo, action.handler, place.frame);
        self.record_handler(alt);
        Ok(())
    }

    /// `get_sigframe`; a frame that would leave the alternate stack it belongs on is a fault.
    fn place_frame(&self, action: &KernelSigaction, layout: FpLayout) -> Result<Placement, Fault> {
        let fault = |addr| Fault { addr: GuestAddr(addr), access: Access::Write };
        if action.flags & SA_RESTORER == 0 {
            return Err(fault(0));
        }
        let (sp, alt) = (self.cpu.gpr[RSP], self.signals.alt);
        let nested = alt.size != 0 && alt.holds(sp);
        let enters = action.flags & SA_ONSTACK as u64 != 0 && alt.size != 0 && !nested;
        let place = if enters { Placement::on_alt_stack(&alt, layout) } else { Placement::below(sp, layout) };
        let armed = AltStack::new(alt.sp, 0, alt.size);
        if (enters || nested) && !armed.holds(place.frame) { Err(fault(place.frame)) } else { Ok(place) }
    }

    fn sigcontext(&self) -> SigContext {
        let TrapInfo { vector, error, cr2 } = self.signals.trap;
        SigContext { err: error, trapno: vector, oldmask: self.signals.mask.0, cr2, ..SigContext::save(&self.cpu) }
    }

    /// Registers at a handler's first instruction.
    fn enter_handler(&mut self, signo: i32, handler: u64, frame: u64) {
        let cpu = &mut self.cpu;
        cpu.gpr[RDI] = signo as u64;
        cpu.gpr[RSI] = frame + std::mem::offset_of!(RtSigFrame, info) as u64;
        cpu.gpr[RDX] = frame + std::mem::offset_of!(RtSigFrame, uc) as u64;
        cpu.gpr[RAX] = 0;
        cpu.gpr[RSP] = frame;
        cpu.rip = handler;
        cpu.set_rflags(cpu.rflags() & !(DF | TF));
        // As a handler finds them (`fpu__clear_user_states`).
        cpu.reset_floats();
    }

    /// `rt_sigreturn`: goes back to what the frame at RSP - 8 says. Writes the whole state, RAX included.
    pub fn sigreturn(&mut self) {
        if self.restore_frame().is_err() {
            self.force(SigInfo::new(SIGSEGV, SI_KERNEL), Force::Handle);
            host::set_mask(self.signals.mask);
        }
    }

    fn restore_frame(&mut self) -> Result<(), Fault> {
        let frame: RtSigFrame = access::read(GuestAddr(self.cpu.gpr[RSP].wrapping_sub(8)))?;
        let context = frame.uc.mcontext;
        if context.fpstate == 0 {
            self.cpu.reset_floats();
        } else {
            let is_extended = frame.uc.flags & super::frame::UC_FP_XSTATE != 0;
            let layout = if is_extended { fp_layout(&self.cpu) } else { FpLayout::Fxsave };
            let image = GuestAddr(context.fpstate);
            let read = |at: usize, buf: &mut [u8]| access::read_bytes(image.wrapping_add(at as u64), buf);
            FpImage::read(layout, read)?.load(&mut self.cpu);
        }
        context.restore(&mut self.cpu);
        self.record_handler_end();
        self.signals.set_mask(SigSet(frame.uc.sigmask));
        let stack = frame.uc.stack;
        // As in the kernel, a stack that sigaltstack would refuse is not set, and that is all.
        let _ = self.set_alt_stack(stack);
        if self.signals.is_due() {
            self.cpu.rt.interrupt.fetch_or(host::SIGNAL, Relaxed);
        }
        Ok(())
    }

    fn raise_fault(&mut self, fault: GuestFault) {
        let fault = if fault == GuestFault::Trap(FaultKind::Fetch) { self.fetch_fault() } else { fault };
        let exception = Exception::of(fault, &self.cpu);
        self.signals.trap.vector = exception.vector;
        self.signals.trap.error = exception.error;
        if let GuestFault::Memory { addr, .. } = fault {
            self.signals.trap.cr2 = addr.0;
        }
        self.force(exception.info, Force::Handle);
        host::set_mask(self.signals.mask);
        self.process.require_exact_flags();
    }

    /// The page fault of an instruction fetch at RIP: of its first byte that cannot be executed.
    fn fetch_fault(&self) -> GuestFault {
        let map = &self.process.mem;
        let executable = |at| map.mapping(at).is_some_and(|m| m.prot.contains(Prot::EXEC));
        let pc = GuestAddr(self.cpu.rip);
        let is_there = executable(pc) && access::read::<u8>(pc).is_ok();
        let addr = if is_there { pc.page().wrapping_add(GUEST_PAGE) } else { pc };
        let cause = match map.mapping(addr) {
            None => MemoryCause::Unmapped,
            Some(_) if executable(addr) => MemoryCause::PastEndOfFile,
            Some(mapping) if mapping.prot.is_empty() => MemoryCause::Inaccessible,
            Some(_) => MemoryCause::Protection,
        };
        GuestFault::Memory { addr, access: Access::Execute, cause }
    }

    /// `force_sig_info`: a signal that cannot be blocked or ignored away.
    fn force(&mut self, info: SigInfo, how: Force) {
        let action = self.signals.actions.get(info.signo);
        let refused = action.handler == SIG_IGN || self.signals.mask.contains(info.signo) || how == Force::Kill;
        if refused || action.handler == SIG_DFL {
            self.die(&info);
        }
        self.run_handler(&info, &action);
    }

    /// Ends the process by a signal; by a fault with a report.
    fn die(&mut self, info: &SigInfo) -> ! {
        self.process.syscalls.signal(self, info);
        if info.code > 0 {
            crate::crash::report(self, info, self.signals.trap.access());
        }
        self.process.write_profile(Ends::Dies(info.signo));
        let _stopped = fork::before_end(self, &self.group);
        host::die(info)
    }
}

/// Whether a forced signal may run a handler.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Force {
    Handle,
    Kill,
}

const RAX: usize = 0;
const RDX: usize = 2;
const RSP: usize = 4;
const RSI: usize = 6;
const RDI: usize = 7;
/// Direction flag and trap flag in RFLAGS.
const DF: u64 = 1 << 10;
const TF: u64 = 1 << 8;

/// `SI_KERNEL`: a fault without an address (asm-generic/siginfo.h).
const SI_KERNEL: i32 = 0x80;

/// An exception as the kernel reports it.
struct Exception {
    info: SigInfo,
    vector: u64,
    error: u64,
}

impl Exception {
    /// Signals and codes of `arch/x86/kernel/traps.c` and `arch/x86/mm/fault.c`.
    fn of(fault: GuestFault, cpu: &CpuState) -> Exception {
        let rip = cpu.rip;
        let trap = |signo, code, addr, vector| Exception { info: SigInfo::fault(signo, code, addr), vector, error: 0 };
        match fault {
            GuestFault::Memory { addr, access, cause } => Self::memory(addr, access, cause, cpu),
            GuestFault::Trap(kind) => match kind {
                FaultKind::DivideError => trap(SIGFPE, FPE_INTDIV, rip, 0),
                FaultKind::Debug => trap(SIGTRAP, TRAP_BRKPT, rip, 1),
                FaultKind::Breakpoint => trap(SIGTRAP, SI_KERNEL, 0, 3),
                FaultKind::InvalidOpcode | FaultKind::Unimplemented => trap(SIGILL, ILL_ILLOPN, rip, 6),
                FaultKind::SingleStep => trap(SIGTRAP, TRAP_TRACE, rip, 1),
                FaultKind::Stale | FaultKind::FloatControl | FaultKind::ExtendedState => {
                    unreachable!("the dispatcher's own")
                }
                FaultKind::Overflow => trap(SIGSEGV, SI_KERNEL, 0, 4),
                FaultKind::GeneralProtection if error_code::is_of_stack(cpu) => trap(SIGBUS, SI_KERNEL, 0, 12),
                FaultKind::GeneralProtection => {
                    Exception { error: error_code::of_protection(cpu), ..trap(SIGSEGV, SI_KERNEL, 0, 13) }
                }
                FaultKind::Compatibility => trap(SIGSEGV, SI_KERNEL, 0, 13),
                FaultKind::Fetch => trap(SIGSEGV, SEGV_MAPERR, rip, 14),
                FaultKind::X87Float => {
                    trap(SIGFPE, calque_ir::state::float_code(u32::from(cpu.x87.status & !cpu.x87.control)), rip, 16)
                }
                FaultKind::SimdFloat => {
                    trap(SIGFPE, calque_ir::state::float_code(cpu.mxcsr & !(cpu.mxcsr >> 7)), rip, 19)
                }
            },
        }
    }

    /// #PF, or #GP for an address that is not canonical.
    fn memory(addr: GuestAddr, access: Access, cause: MemoryCause, cpu: &CpuState) -> Exception {
        if (addr.0 as i64) << 16 >> 16 != addr.0 as i64 {
            return Exception { info: SigInfo::fault(SIGSEGV, SI_KERNEL, 0), vector: 13, error: 0 };
        }
        let (signo, code) = match cause {
            MemoryCause::Unmapped => (SIGSEGV, SEGV_MAPERR),
            MemoryCause::Protection | MemoryCause::Inaccessible => (SIGSEGV, SEGV_ACCERR),
            MemoryCause::PastEndOfFile => (SIGBUS, BUS_ADRERR),
        };
        let error = error_code::of_page(addr, access, cause, cpu);
        Exception { info: SigInfo::fault(signo, code, addr.0), vector: 14, error }
    }
}

// asm-generic/siginfo.h
const ILL_ILLOPN: i32 = 2;
const FPE_INTDIV: i32 = 1;
const SEGV_MAPERR: i32 = 1;
const SEGV_ACCERR: i32 = 2;
const BUS_ADRERR: i32 = 2;
const TRAP_BRKPT: i32 = 1;
const TRAP_TRACE: i32 = 2;
