//! Running guest instructions on the processor itself, with every register theirs.
//!
//! [`Native::run`] loads all general registers, RFLAGS, the FXSAVE state and the upper halves of the vector registers, jumps to code at [`CODE`] and takes
//! everything back where the code ends: behind its last instruction stands a jump to the way out. A fault becomes
//! the same way out through a signal handler on an alternate stack, with registers as the processor reports them.
//!
//! # Safety
//! The code under test runs unconfined. What makes that bearable:
//! - It is short, comes from the generator or a checked-in case, and its pointers lie in [`DATA`] or are random 64-bit
//!   numbers; no register holds an address of this process.
//! - It contains no system call and no control transfer except to the two ways out.
//! - One thread at a time: the state it swaps with is one static behind a lock.

#![allow(unsafe_code)]

use calque_ir::CpuState;
use std::arch::global_asm;
use std::cell::UnsafeCell;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where code under test stands: below 2 GiB, so that 32-bit addresses reach code and data, and no power of two.
pub const CODE: u64 = 0x4567_8000;
/// Bytes for code.
pub const CODE_SIZE: u64 = 4096;
/// Memory that code under test works on; what lies around it is unmapped.
pub const DATA: u64 = 0x4577_8000;
/// Bytes of it.
pub const DATA_SIZE: u64 = 3 * 4096;
/// Where a taken branch at the end of the code goes.
pub const TAKEN: u64 = CODE + CODE_SIZE - 32;

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

// SAFETY: only accessed under `LOCK`, by the thread that holds it and by its signal handler.
unsafe impl Sync for SwapCell {}

static SWAP: SwapCell = SwapCell(UnsafeCell::new(Swap {
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
}));

static LOCK: Mutex<()> = Mutex::new(());

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

/// How native execution ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Behind the last instruction.
    Through,
    /// At [`TAKEN`].
    Taken,
    /// With this signal at this pc; registers as the processor reported them.
    Signal { number: i32, pc: u64 },
}

/// The processor, for one user at a time.
pub struct Native {
    _lock: MutexGuard<'static, ()>,
}

impl Native {
    /// Maps the code and data pages and installs the fault handlers.
    pub fn take() -> Native {
        let lock = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
        map(CODE, CODE_SIZE, libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC);
        map(DATA, DATA_SIZE, libc::PROT_READ | libc::PROT_WRITE);
        install_handlers();
        Native { _lock: lock }
    }

    /// Runs `code` (at [`CODE`]) from the state in `cpu` and leaves the resulting state there; `data` likewise.
    pub fn run(&mut self, code: &[u8], cpu: &mut CpuState, data: &mut [u8]) -> End {
        self.place(code);
        self.set_data(data);
        let swap = SWAP.0.get();
        // SAFETY: `self` holds the lock; nothing else touches the static while `swap` is used.
        let swap = unsafe { &mut *swap };
        *swap = Swap {
            gpr: cpu.gpr,
            rflags: cpu.rflags(),
            code: CODE,
            host_rsp: 0,
            taken: 0,
            fault: 0,
            fault_pc: 0,
            pad: [0; 2],
            fx: fx_of(cpu),
            host_fx: [0; 512],
            ymmh: cpu.ymmh,
        };
        // SAFETY: see the module's header; the assembly saves and restores every callee-saved register, RFLAGS,
        // MXCSR and the x87 state.
        unsafe { calque_difftest_enter() };
        let swap = std::hint::black_box(swap);
        cpu.gpr = swap.gpr;
        cpu.set_rflags(swap.rflags);
        set_fx(cpu, &swap.fx);
        cpu.ymmh = swap.ymmh;
        self.get_data(data);
        match (swap.fault, swap.taken) {
            (0, 0) => End::Through,
            (0, _) => End::Taken,
            (number, _) => End::Signal { number: number as i32, pc: swap.fault_pc },
        }
    }

    /// Writes the code and the two ways out.
    fn place(&mut self, code: &[u8]) {
        assert!(code.len() as u64 <= TAKEN - CODE - 32);
        let page = CODE as *mut u8;
        let way_out = |to: unsafe extern "C" fn()| {
            let mut jump = vec![0xff, 0x25, 0, 0, 0, 0]; // jmp [rip+0]
            jump.extend((to as usize as u64).to_le_bytes());
            jump
        };
        let (leave, taken) = (way_out(calque_difftest_leave), way_out(calque_difftest_taken));
        // SAFETY: the code page is mapped, ours, and the lengths were checked above.
        unsafe {
            page.copy_from_nonoverlapping(code.as_ptr(), code.len());
            page.add(code.len()).copy_from_nonoverlapping(leave.as_ptr(), leave.len());
            page.add((TAKEN - CODE) as usize).copy_from_nonoverlapping(taken.as_ptr(), taken.len());
        }
    }

    /// Sets the data pages.
    pub fn set_data(&mut self, data: &[u8]) {
        assert_eq!(data.len() as u64, DATA_SIZE);
        // SAFETY: the data pages are mapped and ours.
        unsafe { (DATA as *mut u8).copy_from_nonoverlapping(data.as_ptr(), data.len()) };
    }

    /// Reads the data pages.
    pub fn get_data(&mut self, data: &mut [u8]) {
        assert_eq!(data.len() as u64, DATA_SIZE);
        // SAFETY: the data pages are mapped and ours.
        unsafe { data.as_mut_ptr().copy_from_nonoverlapping(DATA as *const u8, data.len()) };
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        for (at, size) in [(CODE, CODE_SIZE), (DATA, DATA_SIZE)] {
            // SAFETY: mapped by `take`, and nothing else refers to it.
            unsafe { libc::munmap(at as *mut _, size as usize) };
        }
    }
}

fn map(at: u64, size: u64, prot: i32) {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: MAP_FIXED_NOREPLACE never replaces a mapping.
    let got = unsafe { libc::mmap(at as *mut _, size as usize, prot, flags, -1, 0) };
    assert_eq!(got as u64, at, "cannot map {at:#x}: {}", std::io::Error::last_os_error());
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
            if !super::jit::leave(context) {
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

/// Runs `f` with the guest's rounding mode and masks in MXCSR, as the runtime does around guest code.
pub fn with_mxcsr<R>(mxcsr: u32, f: impl FnOnce() -> R) -> R {
    let mut host = 0u32;
    // SAFETY: MXCSR is set back below; `mxcsr` has all exceptions masked, so nothing in between can trap.
    unsafe {
        std::arch::asm!("stmxcsr [{}]", in(reg) &mut host);
        std::arch::asm!("ldmxcsr [{}]", in(reg) &(mxcsr | 0x1f80));
    }
    let result = f();
    // SAFETY: restores what was there.
    unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &host) };
    result
}
