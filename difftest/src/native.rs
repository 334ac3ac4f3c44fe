//! Running guest instructions on the processor itself, with every register theirs.
//!
//! [`Native::run`] hands a batch of states to a child process, which loads for each all general registers, RFLAGS, the FXSAVE
//! state and the upper halves of the vector registers, jumps to the code at [`CODE`] and takes everything back where the
//! code ends: behind its last instruction stands a jump to the way out. A fault becomes the same way out through a signal
//! handler on an alternate stack, with registers as the processor reports them. One round trip through two pipes serves
//! [`BATCH`] cases, and nothing is traced or stepped.
//!
//! # Safety
//! The code under test runs in a child in the kernel's strict seccomp mode: it can read, write to its pipes, return from
//! handlers and exit. The child
//! 1. is forked without `exec` from a process that may have threads, so it takes no lock and allocates nothing: it works on
//!    [`Shared`], mapped before, and on statics of its own copy of the process;
//! 2. sees private copies of the data pages, so that what runs here changes nothing of ours;
//! 3. ends when the pipe does, or with the thread that made it; one that dies or hangs is replaced and its case reported.

#![allow(unsafe_code)]

use crate::End;
use crate::pages::{CODE, CODE_SIZE, DATA, DATA_SIZE, MISALIGNED, Pages, TAKEN};
use calque_ir::CpuState;
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, Register};
use std::arch::global_asm;
use std::cell::UnsafeCell;
use std::ptr::null_mut;

/// States that one round trip runs at most.
pub const BATCH: usize = 64;
/// Changed words of memory that an answer can hold: a string operation may change them all.
const CHANGES: usize = DATA_SIZE as usize / 8;
/// Milliseconds until a batch counts as hung.
const PATIENCE: i32 = 10_000;

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
    fault_code: u64,      // 176
    pad: u64,             // 184
    fx: [u8; 512],        // 192
    host_fx: [u8; 512],   // 704
    ymmh: [[u64; 2]; 16], // 1216
}

#[repr(transparent)]
struct SwapCell(UnsafeCell<Swap>);

// SAFETY: only accessed by the child's one thread and by its signal handler.
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
        fault_code: 0,
        pad: 0,
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

/// What parent and child share: the question and the answers.
#[repr(C)]
struct Shared {
    data: [u8; DATA_SIZE as usize],
    count: usize,
    /// The case that runs, to be named if it kills the child.
    running: usize,
    slots: [Slot; BATCH],
}

/// One case: the state before, then after.
#[repr(C)]
struct Slot {
    swap: Swap,
    changed: usize,
    changes: [(u32, u64); CHANGES],
}

/// What the processor made of a state.
pub struct Answer {
    pub end: End,
    pub cpu: CpuState,
    /// Words of the data pages that have changed: offset, new value.
    pub changes: Vec<(u32, u64)>,
}

impl Answer {
    /// Gives FXSAVE's area the guest's MXCSR_MASK (SDM vol. 1 table 10-2).
    fn hide_misaligned(&mut self, save: &Instruction, before: &CpuState) {
        let value = |register: Register, _: usize, _: usize| {
            let full = register.full_register();
            let of = if full.is_gpr64() { before.gpr[full.number()] } else { 0 };
            Some(if register.size() == 4 { u64::from(of as u32) } else { of })
        };
        let Some(area) = save.virtual_address(0, 0, value) else { return };
        let mask = self.changes.iter_mut().find(|(at, _)| DATA + u64::from(*at) == area + 24);
        if let Some((_, word)) = mask {
            *word &= !(u64::from(MISALIGNED) << 32);
        }
    }

    /// Brings `data`, as it was before, up to date.
    pub fn apply(&self, data: &mut [u8]) {
        for (at, word) in &self.changes {
            data[*at as usize..][..8].copy_from_slice(&word.to_le_bytes());
        }
    }
}

/// A case that the child did not survive.
#[derive(Debug, thiserror::Error)]
#[error("state {index} killed the process that ran it ({how})")]
pub struct Died {
    /// Number in the batch.
    pub index: usize,
    pub how: String,
}

/// The processor, for one user at a time.
pub struct Native {
    pages: Pages,
    shared: *mut Shared,
    child: Child,
}

/// The process that runs cases.
struct Child {
    pid: libc::pid_t,
    ask: libc::c_int,
    answer: libc::c_int,
}

impl Native {
    /// Maps the pages and starts the child.
    pub fn take() -> Native {
        let pages = Pages::take();
        let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: a fresh mapping.
        let shared = unsafe { libc::mmap(null_mut(), size_of::<Shared>(), prot, flags, -1, 0) };
        assert_ne!(shared, libc::MAP_FAILED, "cannot map: {}", std::io::Error::last_os_error());
        install_handlers();
        let shared = shared.cast();
        Native { pages, shared, child: Child::start(shared) }
    }

    /// The memory that cases work on, for engines.
    pub fn pages(&mut self) -> &mut Pages {
        &mut self.pages
    }

    /// Runs `code` (at [`CODE`]) from each of the states, up to [`BATCH`], with the same `data`.
    pub fn run(&mut self, code: &[u8], data: &[u8], states: &[CpuState]) -> Result<Vec<Answer>, Died> {
        assert!(states.len() <= BATCH);
        self.place(code);
        // SAFETY: mapped by `take`; the child reads and writes it only between question and answer.
        let shared = unsafe { &mut *self.shared };
        shared.data.copy_from_slice(data);
        shared.count = states.len();
        for (slot, cpu) in shared.slots.iter_mut().zip(states) {
            slot.swap =
                Swap { gpr: cpu.gpr, rflags: cpu.rflags(), code: CODE, fx: fx_of(cpu), ymmh: cpu.ymmh, ..Swap::EMPTY };
        }
        if let Err(how) = self.child.round_trip() {
            let index = shared.running;
            self.child = Child::start(self.shared);
            return Err(Died { index, how });
        }
        // SAFETY: as above; the child has answered.
        let shared = unsafe { &*self.shared };
        let mut answers: Vec<Answer> =
            shared.slots.iter().zip(states).map(|(slot, before)| slot.answer(before)).collect();
        if let Some(save) = state_saved_by(code) {
            answers.iter_mut().zip(states).for_each(|(answer, before)| answer.hide_misaligned(&save, before));
        }
        Ok(answers)
    }

    /// Runs one state; `cpu` and `data` become what they are behind the code.
    pub fn run_one(&mut self, code: &[u8], cpu: &mut CpuState, data: &mut [u8]) -> Result<End, Died> {
        let [answer] = <[Answer; 1]>::try_from(self.run(code, data, std::slice::from_ref(cpu))?)
            .unwrap_or_else(|_| unreachable!("one state has one answer"));
        cpu.copy_guest_from(&answer.cpu);
        answer.apply(data);
        Ok(answer.end)
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

impl Drop for Native {
    fn drop(&mut self) {
        // SAFETY: mapped by `take`; the child has its own mapping.
        unsafe { libc::munmap(self.shared.cast(), size_of::<Shared>()) };
    }
}

/// The instruction of FXSAVE's kin in the code, if there is one.
fn state_saved_by(code: &[u8]) -> Option<Instruction> {
    use Mnemonic::{Fxsave, Fxsave64, Xsave, Xsave64};
    let insns = Decoder::with_ip(64, code, CODE, DecoderOptions::NONE);
    insns.into_iter().find(|i| matches!(i.mnemonic(), Fxsave | Fxsave64 | Xsave | Xsave64))
}

impl Slot {
    fn answer(&self, before: &CpuState) -> Answer {
        let swap = &self.swap;
        let mut cpu = crate::copy(before);
        cpu.gpr = swap.gpr;
        cpu.set_rflags(swap.rflags);
        set_fx(&mut cpu, &swap.fx);
        cpu.set_ymmh(swap.ymmh);
        let end = match (swap.fault, swap.taken) {
            (0, 0) => End::Through,
            (0, _) => End::Taken,
            (number, _) => End::Signal { number: number as i32, code: swap.fault_code as i32, pc: swap.fault_pc },
        };
        Answer { end, cpu, changes: self.changes[..self.changed].to_vec() }
    }
}

impl Child {
    fn start(shared: *mut Shared) -> Child {
        let (mut ask, mut answer) = ([0; 2], [0; 2]);
        // SAFETY: plain system calls on arrays of two descriptors.
        unsafe {
            assert_eq!(libc::pipe2(ask.as_mut_ptr(), libc::O_CLOEXEC), 0);
            assert_eq!(libc::pipe2(answer.as_mut_ptr(), libc::O_CLOEXEC), 0);
        }
        // SAFETY: the child does what the header says and never returns.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "cannot fork: {}", std::io::Error::last_os_error());
        if pid == 0 {
            // SAFETY: this is the child; `shared` is mapped and the descriptors are open.
            unsafe { serve(shared, ask[0], answer[1]) }
        }
        // SAFETY: the child's ends, which are not used here.
        unsafe {
            libc::close(ask[0]);
            libc::close(answer[1]);
        }
        Child { pid, ask: ask[1], answer: answer[0] }
    }

    /// Has the child run the batch; how it ended if it did.
    fn round_trip(&mut self) -> Result<(), String> {
        let mut byte = 0u8;
        // SAFETY: one byte from and to a local; `poll` looks at one descriptor.
        let answered = unsafe {
            libc::write(self.ask, (&raw const byte).cast(), 1);
            let mut poll = libc::pollfd { fd: self.answer, events: libc::POLLIN, revents: 0 };
            libc::poll(&mut poll, 1, PATIENCE) == 1 && libc::read(self.answer, (&raw mut byte).cast(), 1) == 1
        };
        if answered { Ok(()) } else { Err(self.end()) }
    }

    /// Ends the child; says how it ended.
    fn end(&mut self) -> String {
        let mut status = 0;
        // SAFETY: our own child; the pid is not reused before it is waited for.
        unsafe {
            let ended = libc::waitpid(self.pid, &mut status, libc::WNOHANG) == self.pid;
            if !ended {
                libc::kill(self.pid, libc::SIGKILL);
                libc::waitpid(self.pid, &mut status, 0);
            }
        }
        match status & 0x7f {
            0 => format!("exit status {}", status >> 8 & 0xff),
            signal => format!("signal {signal}"),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.end();
        // SAFETY: descriptors of our own.
        unsafe {
            libc::close(self.ask);
            libc::close(self.answer);
        }
    }
}

/// The child: answers batches until the pipe closes.
///
/// # Safety
/// In a freshly forked child, with `shared` mapped.
unsafe fn serve(shared: *mut Shared, ask: libc::c_int, answer: libc::c_int) -> ! {
    let mut byte = 0u8;
    // SAFETY: invariants 1 and 2 of the header; the parent does not touch `shared` while we run a batch.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT) != 0 {
            libc::_exit(1);
        }
        while libc::read(ask, (&raw mut byte).cast(), 1) == 1 {
            let shared = &mut *shared;
            for i in 0..shared.count {
                (&raw mut shared.running).write_volatile(i);
                shared.slots[i].run(&shared.data);
            }
            libc::write(answer, (&raw const byte).cast(), 1);
        }
        libc::syscall(libc::SYS_exit, 0);
    }
    unreachable!("exit does not return")
}

impl Slot {
    /// Runs the case on this processor: in the child.
    ///
    /// # Safety
    /// In the child, with code at [`CODE`].
    unsafe fn run(&mut self, data: &[u8; DATA_SIZE as usize]) {
        // SAFETY: the pages are mapped; the static is this thread's, which is the child's only one; the assembly saves and
        // restores every callee-saved register, RFLAGS, MXCSR and the x87 state.
        unsafe {
            let pages = DATA as *mut u8;
            pages.copy_from_nonoverlapping(data.as_ptr(), data.len());
            let swap = SWAP.0.get();
            swap.write(std::ptr::read(&self.swap));
            calque_difftest_enter();
            std::ptr::copy_nonoverlapping(swap, &mut self.swap, 1);
            self.changed = 0;
            for (at, old) in data.chunks_exact(8).enumerate() {
                let old = u64::from_ne_bytes([old[0], old[1], old[2], old[3], old[4], old[5], old[6], old[7]]);
                let new = pages.cast::<u64>().add(at).read_volatile();
                if new != old {
                    self.changes[self.changed] = (8 * at as u32, new);
                    self.changed += 1;
                }
            }
        }
    }
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

/// In the child, takes the way out with the registers as they are; in the parent, leaves generated code. A fault of our own
/// ends the process.
extern "C" fn on_fault(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a ucontext_t; the static is in use by the code that faulted, on this thread.
    unsafe {
        let context = &mut *context.cast::<libc::ucontext_t>();
        let rip = &mut context.uc_mcontext.gregs[libc::REG_RIP as usize];
        if !(CODE..CODE + CODE_SIZE).contains(&(*rip as u64)) {
            if !crate::jit::leave(signal, (*info).si_code, context) {
                libc::signal(signal, libc::SIG_DFL);
            }
            return;
        }
        let swap = SWAP.0.get();
        (*swap).fault = signal as u64;
        (*swap).fault_pc = *rip as u64;
        (*swap).fault_code = (*info).si_code as u64;
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
    let pointers = x87.pointers();
    fx[6..8].copy_from_slice(&pointers.opcode.to_le_bytes());
    fx[8..16].copy_from_slice(&pointers.instruction.to_le_bytes());
    fx[16..24].copy_from_slice(&pointers.operand.to_le_bytes());
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
    x87.load_pointers((word(0) >> 48) as u16, word(8), word(16));
    cpu.mxcsr = word(24) as u32;
    for i in 0..8 {
        x87.regs[(usize::from(x87.top) + i) & 7] = [word(32 + 16 * i), word(40 + 16 * i) & 0xffff];
    }
    for i in 0..16 {
        cpu.xmm[i] = [word(160 + 16 * i), word(168 + 16 * i)];
    }
}
