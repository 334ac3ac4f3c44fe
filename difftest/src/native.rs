//! Running guest instructions on the processor itself, with every register theirs.
//!
//! [`Native::run`] loads all general registers, RFLAGS, the FXSAVE state and the upper halves of the vector registers, jumps to code at [`CODE`] and takes
//! everything back where the code ends: behind its last instruction stands a jump to the way out. A fault becomes
//! the same way out through a signal handler on an alternate stack, with registers as the processor reports them.
//!
//! # Safety
//! The code under test runs unconfined. What makes that bearable:
//! - It is short, comes from the generator or a checked-in case, and its pointers lie in the data pages or are random 64-bit
//!   numbers; no register holds an address of this process.
//! - It contains no system call and no control transfer except to the two ways out.
//! - One thread at a time: the state it swaps with is one static behind a lock.

#![allow(unsafe_code)]

use crate::compare::{Report, Side, compare};
use crate::guest::{Engine, Guest, Outcome};
use crate::pages::{CODE, CODE_SIZE, Pages, TAKEN};
use crate::{Case, End, copy};
use calque_ir::CpuState;
use std::arch::global_asm;
use std::cell::UnsafeCell;

/// What the assembly swaps with; offsets are in the assembly below.
#[repr(C, align(64))]
struct Swap {
    gpr: [u64; 16],       // 0
    rflags: u64,          // 128
    code: u64,            // 136
    host_rsp: u64,        // 144
    taken: u64,           // 152
    fault: u64,           // 160
    fault_pc: u64,        // 168
    pad: [u64; 2],        // 176
    fx: [u8; 512],        // 192
    host_fx: [u8; 512],   // 704
    ymmh: [[u64; 2]; 16], // 1216
}

#[repr(transparent)]
struct SwapCell(UnsafeCell<Swap>);

// SAFETY: only accessed by the thread that holds the pages' lock and by its signal handler.
unsafe impl Sync for SwapCell {}

impl Swap {
    const EMPTY: Swap = Swap {
        gpr: [0; 16],
        rflags: 0,
        code: 0,
        host_rsp: 0,
        taken: 0,
        fault: 0,
        fault_pc: 0,
        pad: [0; 2],
        fx: [0; 512],
        host_fx: [0; 512],
        ymmh: [[0; 2]; 16],
    };
}

static SWAP: SwapCell = SwapCell(UnsafeCell::new(Swap::EMPTY));

global_asm! {
    ".globl calque_difftest_enter",
    "calque_difftest_enter:",
    "push rbx", "push rbp", "push r12", "push r13", "push r14", "push r15",
    "pushfq",
    "mov [rip + {s} + 144], rsp",
    "fxsave64 [rip + {s} + 704]",
    "fxrstor64 [rip + {s} + 192]",
    "vinsertf128 ymm0, ymm0, [rip + {s} + 1216], 1",
    "vinsertf128 ymm1, ymm1, [rip + {s} + 1232], 1",
    "vinsertf128 ymm2, ymm2, [rip + {s} + 1248], 1",
    "vinsertf128 ymm3, ymm3, [rip + {s} + 1264], 1",
    "vinsertf128 ymm4, ymm4, [rip + {s} + 1280], 1",
    "vinsertf128 ymm5, ymm5, [rip + {s} + 1296], 1",
    "vinsertf128 ymm6, ymm6, [rip + {s} + 1312], 1",
    "vinsertf128 ymm7, ymm7, [rip + {s} + 1328], 1",
    "vinsertf128 ymm8, ymm8, [rip + {s} + 1344], 1",
    "vinsertf128 ymm9, ymm9, [rip + {s} + 1360], 1",
    "vinsertf128 ymm10, ymm10, [rip + {s} + 1376], 1",
    "vinsertf128 ymm11, ymm11, [rip + {s} + 1392], 1",
    "vinsertf128 ymm12, ymm12, [rip + {s} + 1408], 1",
    "vinsertf128 ymm13, ymm13, [rip + {s} + 1424], 1",
    "vinsertf128 ymm14, ymm14, [rip + {s} + 1440], 1",
    "vinsertf128 ymm15, ymm15, [rip + {s} + 1456], 1",
    "push qword ptr [rip + {s} + 128]",
    "popfq",
    "mov rax, [rip + {s} + 0]", "mov rcx, [rip + {s} + 8]", "mov rdx, [rip + {s} + 16]", "mov rbx, [rip + {s} + 24]",
    "mov rsp, [rip + {s} + 32]", "mov rbp, [rip + {s} + 40]", "mov rsi, [rip + {s} + 48]", "mov rdi, [rip + {s} + 56]",
    "mov r8, [rip + {s} + 64]", "mov r9, [rip + {s} + 72]", "mov r10, [rip + {s} + 80]", "mov r11, [rip + {s} + 88]",
    "mov r12, [rip + {s} + 96]", "mov r13, [rip + {s} + 104]", "mov r14, [rip + {s} + 112]", "mov r15, [rip + {s} + 120]",
    "jmp qword ptr [rip + {s} + 136]",
    ".globl calque_difftest_taken",
    "calque_difftest_taken:",
    "mov qword ptr [rip + {s} + 152], 1",
    ".globl calque_difftest_leave",
    "calque_difftest_leave:",
    "mov [rip + {s} + 0], rax", "mov [rip + {s} + 8], rcx", "mov [rip + {s} + 16], rdx", "mov [rip + {s} + 24], rbx",
    "mov [rip + {s} + 32], rsp", "mov [rip + {s} + 40], rbp", "mov [rip + {s} + 48], rsi", "mov [rip + {s} + 56], rdi",
    "mov [rip + {s} + 64], r8", "mov [rip + {s} + 72], r9", "mov [rip + {s} + 80], r10", "mov [rip + {s} + 88], r11",
    "mov [rip + {s} + 96], r12", "mov [rip + {s} + 104], r13", "mov [rip + {s} + 112], r14", "mov [rip + {s} + 120], r15",
    "mov rsp, [rip + {s} + 144]",
    "pushfq",
    "pop qword ptr [rip + {s} + 128]",
    "vextractf128 [rip + {s} + 1216], ymm0, 1",
    "vextractf128 [rip + {s} + 1232], ymm1, 1",
    "vextractf128 [rip + {s} + 1248], ymm2, 1",
    "vextractf128 [rip + {s} + 1264], ymm3, 1",
    "vextractf128 [rip + {s} + 1280], ymm4, 1",
    "vextractf128 [rip + {s} + 1296], ymm5, 1",
    "vextractf128 [rip + {s} + 1312], ymm6, 1",
    "vextractf128 [rip + {s} + 1328], ymm7, 1",
    "vextractf128 [rip + {s} + 1344], ymm8, 1",
    "vextractf128 [rip + {s} + 1360], ymm9, 1",
    "vextractf128 [rip + {s} + 1376], ymm10, 1",
    "vextractf128 [rip + {s} + 1392], ymm11, 1",
    "vextractf128 [rip + {s} + 1408], ymm12, 1",
    "vextractf128 [rip + {s} + 1424], ymm13, 1",
    "vextractf128 [rip + {s} + 1440], ymm14, 1",
    "vextractf128 [rip + {s} + 1456], ymm15, 1",
    "vzeroupper",
    "fxsave64 [rip + {s} + 192]",
    "fxrstor64 [rip + {s} + 704]",
    "popfq",
    "pop r15", "pop r14", "pop r13", "pop r12", "pop rbp", "pop rbx",
    "ret",
    s = sym SWAP,
}

unsafe extern "C" {
    fn calque_difftest_enter();
    fn calque_difftest_taken();
    fn calque_difftest_leave();
}

/// The processor, for one user at a time.
pub struct Native {
    pages: Pages,
}

impl Native {
    /// Maps the pages and installs the fault handlers.
    pub fn take() -> Native {
        let pages = Pages::take();
        install_handlers();
        Native { pages }
    }

    /// The memory that cases work on.
    pub fn pages(&mut self) -> &mut Pages {
        &mut self.pages
    }

    /// Runs `code` (at [`CODE`]) from the state in `cpu` and leaves the resulting state there; `data` likewise.
    pub fn run(&mut self, code: &[u8], cpu: &mut CpuState, data: &mut [u8]) -> End {
        self.place(code);
        self.pages.set_data(data);
        let swap = SWAP.0.get();
        // SAFETY: `pages` holds the lock; nothing else touches the static while `swap` is used.
        let swap = unsafe { &mut *swap };
        *swap = Swap { gpr: cpu.gpr, rflags: cpu.rflags(), code: CODE, fx: fx_of(cpu), ymmh: cpu.ymmh, ..Swap::EMPTY };
        // SAFETY: see the module's header; the assembly saves and restores every callee-saved register, RFLAGS,
        // MXCSR and the x87 state.
        unsafe { calque_difftest_enter() };
        let swap = std::hint::black_box(swap);
        cpu.gpr = swap.gpr;
        cpu.set_rflags(swap.rflags);
        set_fx(cpu, &swap.fx);
        cpu.ymmh = swap.ymmh;
        self.pages.get_data(data);
        match (swap.fault, swap.taken) {
            (0, 0) => End::Through,
            (0, _) => End::Taken,
            (number, _) => End::Signal { number: number as i32, pc: swap.fault_pc },
        }
    }

    /// Writes the code and the two ways out.
    fn place(&mut self, code: &[u8]) {
        assert!(code.len() as u64 <= TAKEN - CODE - 32);
        let way_out = |to: unsafe extern "C" fn()| {
            let mut jump = vec![0xff, 0x25, 0, 0, 0, 0]; // jmp [rip+0]
            jump.extend((to as usize as u64).to_le_bytes());
            jump
        };
        self.pages.set_code(0, code);
        self.pages.set_code(code.len() as u64, &way_out(calque_difftest_leave));
        self.pages.set_code(TAKEN - CODE, &way_out(calque_difftest_taken));
    }
}

/// Runs a case on the processor and on every engine; yields the first difference.
pub fn check(native: &mut Native, guest: &mut Guest, case: &Case) -> Result<(), Report> {
    let (mut cpu, mut data) = (copy(&case.cpu), case.data.clone());
    let end = native.run(&case.code, &mut cpu, &mut data);
    for engine in Engine::ALL {
        if engine == Engine::Hot && matches!(end, End::Signal { .. }) {
            continue; // hot code owes nobody its registers at a fault
        }
        let (mut got, mut got_data) = (copy(&case.cpu), case.data.clone());
        let outcome = guest.run(engine, native.pages(), &case.code, &mut got, &mut got_data);
        if outcome == Outcome::Unimplemented {
            return Ok(());
        }
        let expected = Side { cpu: &cpu, data: &data, outcome: &Outcome::Ended(end) };
        let undefined = case.undefined(end);
        let got = Side { cpu: &got, data: &got_data, outcome: &outcome };
        compare(case, engine, undefined, &expected, &got)?;
    }
    Ok(())
}

/// Fault handlers on an alternate stack, because the code under test may point RSP anywhere.
fn install_handlers() {
    let stack = Box::leak(vec![0u8; 64 * 1024].into_boxed_slice());
    let alternate = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: stack.len() };
    // SAFETY: the stack is leaked, so it outlives its use; the handler is async-signal-safe (it only copies words).
    unsafe {
        assert_eq!(libc::sigaltstack(&alternate, std::ptr::null_mut()), 0);
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_fault as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP] {
            assert_eq!(libc::sigaction(signal, &action, std::ptr::null_mut()), 0);
        }
    }
}

/// Takes the way out with the registers as they are; a fault of our own ends the process.
extern "C" fn on_fault(signal: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a ucontext_t; the static is in use by the code that faulted, on this thread.
    unsafe {
        let context = &mut *context.cast::<libc::ucontext_t>();
        let rip = &mut context.uc_mcontext.gregs[libc::REG_RIP as usize];
        if !(CODE..CODE + CODE_SIZE).contains(&(*rip as u64)) {
            if !crate::jit::leave(context) {
                libc::signal(signal, libc::SIG_DFL);
            }
            return;
        }
        let swap = SWAP.0.get();
        (*swap).fault = signal as u64;
        (*swap).fault_pc = *rip as u64;
        *rip = calque_difftest_leave as *const () as i64;
        context.uc_mcontext.gregs[libc::REG_EFL as usize] &= !(1 << 16); // RF is the kernel's business
    }
}

/// FXSAVE image (SDM vol. 1 table 10-2) of a state.
fn fx_of(cpu: &CpuState) -> [u8; 512] {
    let mut fx = [0; 512];
    let x87 = &cpu.x87;
    fx[0..2].copy_from_slice(&x87.control.to_le_bytes());
    fx[2..4].copy_from_slice(&(x87.status & !(7 << 11) | u16::from(x87.top) << 11).to_le_bytes());
    fx[4] = !x87.empty;
    fx[24..28].copy_from_slice(&cpu.mxcsr.to_le_bytes());
    for i in 0..8 {
        let [mantissa, exponent] = x87.regs[(usize::from(x87.top) + i) & 7];
        fx[32 + 16 * i..][..8].copy_from_slice(&mantissa.to_le_bytes());
        fx[40 + 16 * i..][..2].copy_from_slice(&(exponent as u16).to_le_bytes());
    }
    for (i, [low, high]) in cpu.xmm.iter().enumerate() {
        fx[160 + 16 * i..][..8].copy_from_slice(&low.to_le_bytes());
        fx[168 + 16 * i..][..8].copy_from_slice(&high.to_le_bytes());
    }
    fx
}

/// The inverse of [`fx_of`].
fn set_fx(cpu: &mut CpuState, fx: &[u8; 512]) {
    let word = |at: usize| u64::from_le_bytes(fx[at..at + 8].try_into().expect("8 bytes"));
    let x87 = &mut cpu.x87;
    x87.control = word(0) as u16;
    let status = (word(0) >> 16) as u16;
    (x87.status, x87.top) = (status & !(7 << 11), (status >> 11 & 7) as u8);
    x87.empty = !fx[4];
    cpu.mxcsr = word(24) as u32;
    for i in 0..8 {
        x87.regs[(usize::from(x87.top) + i) & 7] = [word(32 + 16 * i), word(40 + 16 * i) & 0xffff];
    }
    for i in 0..16 {
        cpu.xmm[i] = [word(160 + 16 * i), word(168 + 16 * i)];
    }
}
