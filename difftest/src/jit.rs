//! Compiled code as an engine under test: on the processor's own data pages, faults and all.
//!
//! # Safety
//! Generated code is entered under the invariants of `calque_backend::abi`: its tables are this module's own, live as
//! long as [`Jit`], and hold only translations of its cache. A host fault inside it leaves through `fault_return`, as
//! in the runtime; the handler only stores words.

#![allow(unsafe_code)]

use crate::guest::FPE_INTDIV;
use crate::pages::Pages;
use calque_backend::abi::{self, ExitReason};
use calque_backend::{
    CodeCache, CodeKind, CompileOptions, Compiler, EmitError, EmitOptions, Emitter, HostIsa, JumpCache, StateAtFaults,
    Translation, helpers,
};
use calque_ir::interp::{Next, Trap};
use calque_ir::{CpuState, FaultKind, GuestAddr, Region};
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicUsize, Ordering};

/// Registers of the generated code that runs, for the fault handler.
static RUNNING: AtomicPtr<CpuState> = AtomicPtr::new(null_mut());
/// Host pc of the last fault in it.
static FAULT_PC: AtomicUsize = AtomicUsize::new(0);
/// Its signal and `si_code`.
static FAULT_SIGNAL: AtomicI32 = AtomicI32::new(0);
static FAULT_CODE: AtomicI32 = AtomicI32::new(0);

/// Bytes of code after which the cache is emptied.
const BUDGET: usize = 64 << 20;
/// Regions after which the cache is emptied.
const REGIONS: u32 = 20_000;

/// The compiler, the emitter, and their code.
pub struct Jit {
    compiler: Compiler,
    emitter: Emitter,
    cache: CodeCache,
    jumps: JumpCache,
    emitted_jumps: JumpCache,
    helpers: u64,
    regions: u32,
}

impl Jit {
    /// An empty cache.
    pub fn new() -> Self {
        Self {
            compiler: Compiler::new(HostIsa::native()),
            emitter: Emitter::new(HostIsa::native()),
            cache: CodeCache::new(BUDGET).expect("code memory"),
            jumps: JumpCache::new(),
            emitted_jumps: JumpCache::new(),
            helpers: helpers::table(|_| None).as_ptr() as u64,
            regions: 0,
        }
    }

    /// Drops old code if there is much of it. Nothing translated before may be used any more.
    pub(crate) fn make_room(&mut self) {
        if self.regions >= REGIONS {
            self.cache.reset();
            self.regions = 0;
        }
    }

    /// Compiles a region.
    pub(crate) fn translate(
        &mut self,
        region: &Region,
        state_at_faults: StateAtFaults,
    ) -> Result<Arc<Translation>, String> {
        self.regions += 1;
        let options = CompileOptions { state_at_faults, ..CompileOptions::default() };
        let translation = self.cache.translate(&mut self.compiler, region, &options);
        translation.map_err(|e| format!("{e}\n{region}"))
    }

    /// Emits a block as tier 0 on AArch64 does; `None` if that leaves it to the interpreter.
    pub(crate) fn emit(&mut self, region: &Region) -> Result<Option<Arc<Translation>>, String> {
        self.regions += 1;
        let first_cell = self.cache.reserve_cells(Emitter::cells_needed(region), CodeKind::Tier0).expect("cells");
        let options = EmitOptions { first_cell, ..EmitOptions::default() };
        match self.emitter.emit(region, &options) {
            Ok(emitted) => self.cache.publish_emitted(&emitted).map(Some).map_err(|e| e.to_string()),
            Err(e @ EmitError::Internal(_)) => Err(format!("{e}\n{region}")),
            Err(_) => Ok(None),
        }
    }

    /// Runs code until control leaves it.
    pub(crate) fn run(
        &mut self,
        code: &Translation,
        pages: &mut Pages,
        cpu: &mut CpuState,
        data: &mut [u8],
    ) -> Result<Next, Trap<()>> {
        pages.set_data(data);
        let reason = self.enter(cpu, code);
        pages.get_data(data);
        match reason {
            ExitReason::Link { cell } => Ok(Next::Pc(self.cache.cell_target(cell))),
            ExitReason::Indirect | ExitReason::Interrupt => Ok(Next::Pc(GuestAddr(cpu.rip))),
            ExitReason::Arrived(_) => unreachable!("there is no code of tier 0"),
            ExitReason::Syscall => Ok(Next::Syscall { next: GuestAddr(cpu.rip) }),
            ExitReason::Fault(kind) => Ok(Next::Fault { kind, pc: GuestAddr(cpu.rip) }),
            ExitReason::HostFault => {
                let found = self.cache.find_by_host_pc(FAULT_PC.load(Ordering::Relaxed));
                let (_, pc) = found.expect("faults in generated code have a guest pc");
                match (FAULT_SIGNAL.load(Ordering::Relaxed), FAULT_CODE.load(Ordering::Relaxed)) {
                    (libc::SIGFPE, FPE_INTDIV) => Ok(Next::Fault { kind: FaultKind::DivideError, pc }),
                    (libc::SIGFPE, _) => Ok(Next::Fault { kind: FaultKind::SimdFloat, pc }),
                    _ => Err(Trap { pc, fault: () }),
                }
            }
        }
    }

    fn enter(&mut self, cpu: &mut CpuState, code: &Translation) -> ExitReason {
        cpu.rt.cells = self.cache.cells_address();
        cpu.rt.helpers = self.helpers;
        cpu.rt.jump_cache = self.jumps.address();
        cpu.rt.tier0_jumps = self.emitted_jumps.address();
        cpu.rt.countdown = 1 << 20;
        RUNNING.store(cpu, Ordering::Relaxed);
        // SAFETY: the tables above are live, `code` was just published by the same cache.
        let reason = unsafe {
            match code.kind {
                CodeKind::Tail => abi::enter(cpu, code.code),
                CodeKind::Tier0 => abi::enter_tier0(cpu, code.code),
            }
        };
        RUNNING.store(null_mut(), Ordering::Relaxed);
        reason
    }
}

impl Default for Jit {
    fn default() -> Self {
        Self::new()
    }
}

/// In the fault handler: leaves generated code if it runs.
///
/// # Safety
/// `context` is that of a synchronous fault on the thread that runs the case.
#[cfg(target_arch = "x86_64")]
pub(crate) unsafe fn leave(signal: i32, code: i32, context: &mut libc::ucontext_t) -> bool {
    let cpu = RUNNING.swap(null_mut(), Ordering::Relaxed);
    if cpu.is_null() {
        return false;
    }
    let gregs = &mut context.uc_mcontext.gregs;
    FAULT_SIGNAL.store(signal, Ordering::Relaxed);
    FAULT_CODE.store(code, Ordering::Relaxed);
    FAULT_PC.store(gregs[libc::REG_RIP as usize] as usize, Ordering::Relaxed);
    // SAFETY: the pointer was stored by `enter`, whose frame is still there.
    unsafe {
        (*cpu).rt.exit_reason = abi::REASON_HOST_FAULT;
        gregs[libc::REG_RSP as usize] = (*cpu).rt.host_sp as i64;
    }
    gregs[libc::REG_RIP as usize] = abi::fault_return().0 as i64;
    true
}
