//! Between Rust and units: entering, leaving, and the way from a signal handler out of a unit.
//!
//! # Safety
//! 1. [`enter`] is called with the GS base of its area set on this thread ([`install`]), and with the entry of a unit whose code memory is not
//!    reset meanwhile.
//! 2. Inside, every register is the guest's; the FS base, too. Every way out arrives at `calque_unit_leave`, which restores Rust's
//!    callee-saved registers, stack, FS base and MXCSR from the area before anything of Rust's runs.
//! 3. A signal handler begins at [`signal_entry`], which gives Rust's FS base to the handler and the guest's back to the
//!    code that it returns to. For that it looks into the area, so the GS base is that of a live one, or 0 ([`uninstall`]).
//! 4. Between `calque_unit_window` and its end, guest registers are being loaded, and the interrupt word has been looked at: a handler that
//!    interrupts it sends it to `calque_unit_abort` ([`leave_at`]), which has nothing to save.
//! 5. Where units count in XMM16 ([`super::Sum`]), that is loaded on the way in and stored on the way out, through the area.
//! 6. Where the area says so, the state of AVX-512 is loaded on the way in and stored on the way out, too. Then nothing is counted in XMM16.
//! 7. x87 and MMX registers stay in the host's registers while Rust runs: Rust uses none on this host.
#![allow(unsafe_code)]

use super::area::{self, Area, Fx, Words};
use super::blocks::{Blocks, Interruption};
use super::sites::Away;
use calque_ir::CpuState;
use calque_ir::state::X87;
use std::arch::{asm, global_asm, is_x86_feature_detected};
use std::mem::offset_of;
use std::sync::OnceLock;

/// Why a unit was left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// By a direct exit that is not joined: [`Blocks::follow`] knows its target. RIP is stale.
    Link(u32),
    /// To RIP, which has no landing on this thread.
    Indirect,
    /// SYSCALL; RIP is behind it.
    Syscall,
    /// The instruction at RIP is the interpreter's.
    Odd,
    /// In front of the instruction at RIP, which the budget does not allow.
    Stop,
    /// In front of the instruction at RIP: its checked unit was made of other bytes, or its bytes cannot be read.
    Changed,
    /// In front of the instruction at RIP, which has a checked unit: as many checks were made as the area allows.
    CheckedOften,
    /// By a signal handler, which has recorded why; the guest goes on at RIP.
    Interrupted,
}

/// `Words::reason`.
#[derive(Clone, Copy)]
#[repr(u32)]
enum Leave {
    Link,
    Indirect,
    Syscall,
    Odd,
    Stop,
    Changed,
    CheckedOften,
    Interrupted,
}

global_asm!(
    ".text",
    ".p2align 4",
    ".hidden calque_unit_enter",
    ".globl calque_unit_enter",
    "calque_unit_enter:",
    "push rbp",
    "push rbx",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "sub rsp, 8",
    "mov gs:[{host_sp}], rsp",
    ".hidden calque_unit_window",
    ".globl calque_unit_window",
    "calque_unit_window:",
    "mov rax, gs:[{cpu}]",
    "cmp dword ptr [rax + {interrupt}], 0",
    "jne calque_unit_abort",
    "ldmxcsr [rax + {mxcsr}]",
    "cmp dword ptr gs:[{upper_clear}], 0",
    "jne 1f",
    ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
    "vmovups xmm\\n, [rax + {xmm} + 16 * \\n]",
    "vinsertf128 ymm\\n, ymm\\n, [rax + {ymmh} + 16 * \\n], 1",
    ".endr",
    "jmp 2f",
    "1:",
    "vzeroupper",
    ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
    "movups xmm\\n, [rax + {xmm} + 16 * \\n]",
    ".endr",
    "2:",
    "cmp dword ptr gs:[{in_registers}], 0",
    "je 6f",
    "vmovdqu64 xmm16, xmmword ptr gs:[{frame}]",
    "6:",
    "cmp dword ptr gs:[{keeps_avx512}], 0",
    "je 8f",
    ".irp n, 0, 1, 2, 3, 4, 5, 6, 7",
    "kmovq k\\n, [rax + {opmask} + 8 * \\n]",
    ".endr",
    ".irp n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31",
    "vmovdqu64 zmm\\n, [rax + {hi16_zmm} + 64 * (\\n - 16)]",
    ".endr",
    "cmp dword ptr gs:[{zmm_clear}], 0",
    "jne 8f",
    ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
    "vinserti64x4 zmm\\n, zmm\\n, [rax + {zmm_hi256} + 32 * \\n], 1",
    ".endr",
    "8:",
    "mov rcx, [rax + {fs_base}]",
    "wrfsbase rcx",
    "bt qword ptr gs:[{flags}], 32",
    "jnc 3f",
    "std",
    "3:",
    "mov rdx, [rax + {gpr} + 8 * 2]",
    "mov rbx, [rax + {gpr} + 8 * 3]",
    "mov rsp, [rax + {gpr} + 8 * 4]",
    "mov rbp, [rax + {gpr} + 8 * 5]",
    "mov rsi, [rax + {gpr} + 8 * 6]",
    "mov rdi, [rax + {gpr} + 8 * 7]",
    ".irp n, 8, 9, 10, 12, 13, 14, 15",
    "mov r\\n, [rax + {gpr} + 8 * \\n]",
    ".endr",
    "mov rcx, [rax + {gpr} + 8 * 11]",
    "mov gs:[{r11}], rcx",
    "mov rcx, [rax]",
    "mov gs:[{scratch}], rcx",
    "mov rcx, [rax + {gpr} + 8]",
    "mov eax, gs:[{flags}]",
    "add al, 0x7f",
    "sahf",
    "mov rax, gs:[{scratch}]",
    "jmp gs:[{target}]",
    ".hidden calque_unit_window_end",
    ".globl calque_unit_window_end",
    "calque_unit_window_end:",
    // Nothing of the guest's is to be saved: CpuState is as it was.
    ".hidden calque_unit_abort",
    ".globl calque_unit_abort",
    "calque_unit_abort:",
    "cld",
    "mov rax, gs:[{host_fs}]",
    "wrfsbase rax",
    "ldmxcsr gs:[{host_mxcsr}]",
    "vzeroupper",
    "mov dword ptr gs:[{reason}], {aborted}",
    "jmp 9f",
    ".hidden calque_unit_link",
    ".globl calque_unit_link",
    "calque_unit_link:",
    "mov gs:[{exit}], r11d",
    "mov dword ptr gs:[{reason}], {link}",
    "jmp calque_unit_leave",
    ".hidden calque_unit_miss",
    ".globl calque_unit_miss",
    "calque_unit_miss:",
    "mov rcx, r11",
    ".hidden calque_unit_gone",
    ".globl calque_unit_gone",
    "calque_unit_gone:",
    "mov dword ptr gs:[{reason}], {indirect}",
    "jmp calque_unit_leave",
    ".hidden calque_unit_syscall",
    ".globl calque_unit_syscall",
    "calque_unit_syscall:",
    "mov dword ptr gs:[{reason}], {syscall}",
    "jmp calque_unit_leave",
    ".hidden calque_unit_stop",
    ".globl calque_unit_stop",
    "calque_unit_stop:",
    "mov dword ptr gs:[{reason}], {stop}",
    "jmp calque_unit_leave",
    ".hidden calque_unit_changed",
    ".globl calque_unit_changed",
    "calque_unit_changed:",
    "mov dword ptr gs:[{reason}], {changed}",
    "jmp calque_unit_leave",
    ".hidden calque_unit_often",
    ".globl calque_unit_often",
    "calque_unit_often:",
    "mov dword ptr gs:[{reason}], {often}",
    "jmp calque_unit_leave",
    ".hidden calque_unit_odd",
    ".globl calque_unit_odd",
    "calque_unit_odd:",
    "mov dword ptr gs:[{reason}], {odd}",
    // All guest registers are live, but for R11, which is in the area.
    ".hidden calque_unit_leave",
    ".globl calque_unit_leave",
    "calque_unit_leave:",
    "mov gs:[{scratch}], rax",
    "mov rax, gs:[{cpu}]",
    "mov [rax + {gpr} + 8 * 1], rcx",
    "mov [rax + {gpr} + 8 * 2], rdx",
    "mov [rax + {gpr} + 8 * 3], rbx",
    "mov [rax + {gpr} + 8 * 4], rsp",
    "mov [rax + {gpr} + 8 * 5], rbp",
    "mov [rax + {gpr} + 8 * 6], rsi",
    "mov [rax + {gpr} + 8 * 7], rdi",
    ".irp n, 8, 9, 10, 12, 13, 14, 15",
    "mov [rax + {gpr} + 8 * \\n], r\\n",
    ".endr",
    "mov rcx, gs:[{r11}]",
    "mov [rax + {gpr} + 8 * 11], rcx",
    "mov rcx, gs:[{scratch}]",
    "mov [rax], rcx",
    "mov rsp, gs:[{host_sp}]",
    "pushfq",
    "pop gs:[{rflags}]",
    "cld",
    "rdfsbase rcx",
    "mov [rax + {fs_base}], rcx",
    "mov rcx, gs:[{host_fs}]",
    "wrfsbase rcx",
    "mov rcx, gs:[{rip}]",
    "mov [rax + {cpu_rip}], rcx",
    "stmxcsr [rax + {mxcsr}]",
    "ldmxcsr gs:[{host_mxcsr}]",
    "mov rsi, rax",
    "cmp dword ptr gs:[{in_registers}], 0",
    "je 7f",
    "vmovdqu64 xmmword ptr gs:[{frame}], xmm16",
    "7:",
    // Bit 2 of XINUSE: whether any upper half is not zero (SDM vol. 1 13.6).
    "cmp dword ptr gs:[{xinuse}], 0",
    "je 4f",
    "mov ecx, 1",
    "xgetbv",
    "cmp dword ptr gs:[{keeps_avx512}], 0",
    "jne 2f",
    "test al, 4",
    "jz 5f",
    "4:",
    ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
    "vmovups [rsi + {xmm} + 16 * \\n], xmm\\n",
    "vextractf128 [rsi + {ymmh} + 16 * \\n], ymm\\n, 1",
    ".endr",
    "mov [rsi + {upper_halves}], rsi",
    "mov dword ptr gs:[{upper_clear}], 0",
    "vzeroupper",
    "jmp 9f",
    "5:",
    ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
    "movups [rsi + {xmm} + 16 * \\n], xmm\\n",
    ".endr",
    "cmp dword ptr gs:[{upper_clear}], 0",
    "jne 9f",
    "xorps xmm0, xmm0",
    ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
    "movups [rsi + {ymmh} + 16 * \\n], xmm0",
    ".endr",
    "mov dword ptr gs:[{upper_clear}], 1",
    "9:",
    "add rsp, 8",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbx",
    "pop rbp",
    "ret",
    "2:",
    ".irp n, 0, 1, 2, 3, 4, 5, 6, 7",
    "kmovq [rsi + {opmask} + 8 * \\n], k\\n",
    ".endr",
    ".irp n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31",
    "vmovdqu64 [rsi + {hi16_zmm} + 64 * (\\n - 16)], zmm\\n",
    ".endr",
    // Bit 6 of XINUSE: whether anything above bit 255 of ZMM0 to ZMM15 is not zero.
    "test al, 0x40",
    "jz 3f",
    ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
    "vextracti64x4 [rsi + {zmm_hi256} + 32 * \\n], zmm\\n, 1",
    ".endr",
    "mov dword ptr gs:[{zmm_clear}], 0",
    "test al, 4",
    "jnz 4b",
    "vzeroupper",
    "jmp 5b",
    "3:",
    "cmp dword ptr gs:[{zmm_clear}], 0",
    "jne 2f",
    "vpxorq zmm16, zmm16, zmm16",
    ".irp n, 0, 1, 2, 3, 4, 5, 6, 7",
    "vmovdqu64 [rsi + {zmm_hi256} + 64 * \\n], zmm16",
    ".endr",
    "mov dword ptr gs:[{zmm_clear}], 1",
    "2:",
    "test al, 4",
    "jnz 4b",
    "jmp 5b",
    // Where the kernel enters for every signal; the arguments are the handler's.
    ".p2align 4",
    ".hidden calque_unit_signal",
    ".globl calque_unit_signal",
    "calque_unit_signal:",
    "rdgsbase rax",
    "test rax, rax",
    "jz 6f",
    "rdfsbase rax",
    "mov rcx, gs:[{host_fs}]",
    "cmp rax, rcx",
    "je 6f",
    "push rax",
    "wrfsbase rcx",
    "call [rip + calque_unit_handler]",
    "pop rax",
    "wrfsbase rax",
    "ret",
    "6:",
    "jmp [rip + calque_unit_handler]",
    ".bss",
    ".p2align 3",
    ".hidden calque_unit_handler",
    ".globl calque_unit_handler",
    "calque_unit_handler:",
    ".zero 8",
    ".text",
    host_sp = const offset_of!(Words, host_sp),
    cpu = const offset_of!(Words, cpu),
    upper_clear = const offset_of!(Words, upper_clear),
    xinuse = const offset_of!(Words, xinuse),
    frame = const offset_of!(Words, frame),
    in_registers = const offset_of!(Words, in_registers),
    keeps_avx512 = const offset_of!(Words, keeps_avx512),
    zmm_clear = const offset_of!(Words, zmm_clear),
    opmask = const offset_of!(CpuState, avx512.opmask),
    zmm_hi256 = const offset_of!(CpuState, avx512.zmm_hi256),
    hi16_zmm = const offset_of!(CpuState, avx512.hi16_zmm),
    flags = const offset_of!(Words, flags),
    rflags = const offset_of!(Words, rflags),
    scratch = const offset_of!(Words, scratch),
    r11 = const offset_of!(Words, r11),
    target = const offset_of!(Words, target),
    host_fs = const offset_of!(Words, host_fs),
    host_mxcsr = const offset_of!(Words, host_mxcsr),
    reason = const offset_of!(Words, reason),
    rip = const offset_of!(Words, rip),
    exit = const offset_of!(Words, exit),
    interrupt = const offset_of!(CpuState, rt.interrupt),
    mxcsr = const offset_of!(CpuState, mxcsr),
    xmm = const offset_of!(CpuState, xmm),
    ymmh = const offset_of!(CpuState, ymmh),
    upper_halves = const offset_of!(CpuState, upper_halves),
    fs_base = const offset_of!(CpuState, fs_base),
    gpr = const offset_of!(CpuState, gpr),
    cpu_rip = const offset_of!(CpuState, rip),
    link = const Leave::Link as u32,
    indirect = const Leave::Indirect as u32,
    syscall = const Leave::Syscall as u32,
    odd = const Leave::Odd as u32,
    stop = const Leave::Stop as u32,
    changed = const Leave::Changed as u32,
    often = const Leave::CheckedOften as u32,
    aborted = const Leave::Interrupted as u32 | ABORTED,
);

/// Bit of `Words::reason`: nothing has run, and `CpuState` is as it was.
const ABORTED: u32 = 0x100;

const _: () = assert!(offset_of!(CpuState, gpr) == 0, "the assembly takes RAX from the start of CpuState");

unsafe extern "C" {
    fn calque_unit_enter();
    fn calque_unit_window();
    fn calque_unit_window_end();
    fn calque_unit_abort();
    fn calque_unit_link();
    fn calque_unit_miss();
    fn calque_unit_gone();
    fn calque_unit_syscall();
    fn calque_unit_odd();
    fn calque_unit_stop();
    fn calque_unit_changed();
    fn calque_unit_often();
    fn calque_unit_leave();
    fn calque_unit_signal();
    static mut calque_unit_handler: usize;
}

fn address(f: unsafe extern "C" fn()) -> u64 {
    f as *const () as u64
}

pub(super) fn exit_link() -> u64 {
    address(calque_unit_link)
}

pub(super) fn exit_syscall() -> u64 {
    address(calque_unit_syscall)
}

pub(super) fn exit_odd() -> u64 {
    address(calque_unit_odd)
}

pub(super) fn exit_stop() -> u64 {
    address(calque_unit_stop)
}

pub(super) fn exit_changed() -> u64 {
    address(calque_unit_changed)
}

pub(super) fn exit_often() -> u64 {
    address(calque_unit_often)
}

pub(super) fn exit_miss() -> u64 {
    address(calque_unit_miss)
}

pub(super) fn exit_gone() -> u64 {
    address(calque_unit_gone)
}

/// Whether this processor and kernel have what identical translation needs: bases of FS and GS that programs may change
/// (`HWCAP2_FSGSBASE`, asm/hwcap2.h), and AVX.
pub fn is_supported() -> bool {
    const HWCAP2_FSGSBASE: libc::c_ulong = 1 << 1;
    // SAFETY: a query.
    let hwcap2 = unsafe { libc::getauxval(libc::AT_HWCAP2) };
    hwcap2 & HWCAP2_FSGSBASE != 0 && is_x86_feature_detected!("avx")
}

/// Whether units can copy the instructions of AVX-512: all that x86-64-v4 asks for.
pub fn has_avx512() -> bool {
    is_supported()
        && has_xinuse()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512cd")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
}

/// Whether XGETBV with ECX = 1 tells which state is in use (SDM vol. 1 13.2). Asked once: under a hypervisor CPUID is slow.
pub(super) fn has_xinuse() -> bool {
    static HAS_XINUSE: OnceLock<bool> = OnceLock::new();
    *HAS_XINUSE.get_or_init(|| std::arch::x86_64::__cpuid_count(0xd, 1).eax & 4 != 0)
}

/// Sets the GS base of the calling thread to `area`'s, and tells it which CPU state to use.
pub(super) fn install(area: &Area, cpu: &mut CpuState) {
    let words = area.words();
    // SAFETY: the area is this thread's; nothing of Rust's uses GS on this host.
    unsafe {
        (*words).cpu = std::ptr::from_mut(cpu) as u64;
        // A thread inherits its creator's x87 state.
        asm!("fninit", options(nomem, nostack, preserves_flags));
        asm!("rdfsbase {}", out(reg)(*words).host_fs, options(nomem, nostack, preserves_flags));
        asm!("wrgsbase {}", in(reg) words as u64, options(nostack, preserves_flags));
    }
}

/// Undoes [`install`] if `area` is the calling thread's.
pub(super) fn uninstall(area: &Area) {
    if current_words() == area.words() {
        // SAFETY: nothing of Rust's uses GS on this host, and signal handlers know 0 as none.
        unsafe { asm!("wrgsbase {}", in(reg) 0u64, options(nostack, preserves_flags)) };
    }
}

/// Runs the unit at host code `unit` with the guest's registers in `cpu`, which is the area's; then they are there again.
///
/// # Safety
/// The invariants of this file.
pub unsafe fn enter(area: &mut Area, cpu: &mut CpuState, unit: u64) -> Exit {
    let words = area.words();
    // SAFETY: the words are this thread's, and nobody else looks at them now.
    unsafe {
        (*words).flags = flags_to_load(cpu);
        (*words).upper_clear = u32::from(are_clear(&cpu.ymmh));
        if (*words).keeps_avx512 != 0 {
            (*words).zmm_clear = u32::from(are_clear(&cpu.avx512.zmm_hi256));
        }
        (*words).target = unit;
    }
    area.load_x87(&cpu.x87);
    // SAFETY: the invariants.
    unsafe { asm!("call {}", sym calque_unit_enter, clobber_abi("C")) };
    // SAFETY: as above.
    let (reason, exit, rflags) = unsafe { ((*words).reason, (*words).exit, (*words).rflags) };
    if reason & ABORTED == 0 {
        set_status_flags(cpu, rflags);
        area.save_x87(&mut cpu.x87);
    }
    match reason & 0xff {
        0 => Exit::Link(exit),
        1 => Exit::Indirect,
        2 => Exit::Syscall,
        3 => Exit::Odd,
        4 => Exit::Stop,
        5 => Exit::Changed,
        6 => Exit::CheckedOften,
        _ => Exit::Interrupted,
    }
}

/// Whether all halves are zero. Without a look at each by itself, of which there are up to 64 at every system call.
fn are_clear<const WORDS: usize>(halves: &[[u64; WORDS]]) -> bool {
    halves.iter().flatten().fold(0, |all, word| all | word) == 0
}

/// As [`enter`], at RIP, by the way that computed jumps take: nothing is locked or looked up. [`Exit::Indirect`] if it leads elsewhere.
///
/// # Safety
/// The invariants of this file.
pub unsafe fn resume(area: &mut Area, cpu: &mut CpuState) -> Exit {
    let landing = area.landing(cpu.rip);
    // SAFETY: the words are this thread's, and nobody else looks at them now. Landings find the target there.
    unsafe { (*area.words()).rip = cpu.rip };
    // SAFETY: landings stay until code memory is reset.
    unsafe { enter(area, cpu, landing) }
}

/// See `Words::flags`.
fn flags_to_load(cpu: &CpuState) -> u64 {
    let [cf, pf, af, zf, sf, of, df, _] = cpu.flags.map(u64::from);
    of | (cf | 2 | pf << 2 | af << 4 | zf << 6 | sf << 7) << 8 | df << 32
}

/// The status flags and DF of an RFLAGS image; the others are not in the host's register.
fn set_status_flags(cpu: &mut CpuState, rflags: u64) {
    let bit = |n: u32| (rflags >> n & 1) as u8;
    cpu.flags = [bit(0), bit(2), bit(4), bit(6), bit(7), bit(11), bit(10), 0];
}

impl Area {
    /// Makes `x87` the state of the host's x87 unit, unless it is.
    fn load_x87(&mut self, x87: &X87) {
        if self.loaded == *x87 {
            return;
        }
        self.loaded = *x87;
        let mut fx = Fx([0; 512]);
        x87.store_fxsave(&mut fx.0);
        fx.0[POINTERS].copy_from_slice(&NO_POINTERS);
        // SAFETY: the image is complete and has a valid MXCSR, that of Rust code; vector registers are declared as lost.
        unsafe {
            asm!("stmxcsr [{0} + 24]", "fxrstor64 [{0}]", in(reg) fx.0.as_mut_ptr(), clobber_abi("sysv64"), options(nostack));
        }
    }

    /// Takes `x87` from the host's x87 unit, if units have used it.
    fn save_x87(&mut self, x87: &mut X87) {
        let words = self.words();
        // SAFETY: the words are this thread's.
        if unsafe { std::mem::take(&mut (*words).x87_used) } == 0 {
            return;
        }
        let mut fx = Fx([0; 512]);
        // SAFETY: FXSAVE writes 512 bytes and changes nothing.
        unsafe { asm!("fxsave64 [{}]", in(reg) fx.0.as_mut_ptr(), options(nostack, preserves_flags)) };
        let (opcode, code, data) = (x87.opcode, x87.code, x87.data);
        x87.load_fxsave(&fx.0);
        // Those are of host code: `take_pointers`.
        (x87.opcode, x87.code, x87.data) = (opcode, code, data);
        self.loaded = *x87;
        self.pointers_differ = true;
    }

    /// Takes what the host's x87 unit knows of the last instruction, if that is one of a unit's, into `x87`: before anything shows it, or
    /// records another. What another process on this processor has made the unit forget stays as it was.
    pub fn take_pointers(&mut self, blocks: &Blocks, x87: &mut X87) {
        if !std::mem::take(&mut self.pointers_differ) {
            return;
        }
        let mut env = [0u32; 7];
        // SAFETY: FNSTENV writes 28 bytes and masks all exceptions, so that FLDCW finds none pending and puts the masks back.
        unsafe { asm!("fnstenv [{0}]", "fldcw [{0}]", in(reg) env.as_mut_ptr(), options(nostack)) };
        let [_, _, _, instruction, opcode, operand, selector] = env;
        let Some(pc) = blocks.guest_pc(instruction) else { return };
        let none = [u32::MAX, 0xffff_0000];
        let operand = ([operand, selector] != none).then(|| {
            let high = if x87.pending() { whole_operand() >> 32 << 32 } else { 0 };
            (high | u64::from(operand), selector as u16 != 0)
        });
        x87.record(pc, (opcode >> 16) as u16 & 0x7ff, operand);
        self.loaded = *x87;
    }
}

/// Where FXSAVE's area has the pointers.
const POINTERS: std::ops::Range<usize> = 8..24;
/// No instruction and no operand of a unit's.
const NO_POINTERS: [u8; 16] = {
    let mut bytes = [0xff; 16];
    let mut n = 0;
    while n < 8 {
        bytes[n] = 0;
        n += 1;
    }
    bytes
};

/// The operand's pointer while an exception is pending: FNSTENV only has its lower half.
fn whole_operand() -> u64 {
    let mut fx = Fx([0; 512]);
    // SAFETY: FXSAVE writes 512 bytes and changes nothing.
    unsafe { asm!("fxsave64 [{}]", in(reg) fx.0.as_mut_ptr(), options(nostack, preserves_flags)) };
    u64::from_le_bytes(fx.0[16..24].try_into().expect("eight bytes"))
}

/// What a signal handler's context is to be changed to, so that its thread leaves the unit it is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Redirect {
    /// Not in a unit, or about to leave: nothing is to be changed.
    None,
    /// Go on at this host pc, with this stack pointer if given, and with what is away put back.
    To { pc: u64, sp: Option<u64>, back: Back, at: Standing },
    /// Run one host instruction (TF), then ask again.
    Step,
}

/// What puts a register back in its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Back {
    Nothing,
    /// This value belongs into this general register.
    Value(u8, u64),
    /// RCX is in R11.
    Rcx,
}

/// Where the guest stands when its thread leaves a unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// In front of an instruction, whose every fault here is.
    Before,
    /// Behind one whose sequence has host instructions left: what faults here is no access of the guest's.
    Behind,
    /// In front of an instruction whose bytes are read: if that faults, [`enter`] returns [`Exit::Changed`].
    Fetching,
}

/// Why the thread is to leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// A signal has arrived, or a step is done.
    Signal,
    /// The host instruction cannot run.
    Fault,
}

/// How the calling thread leaves units from host pc `pc`, where a signal handler has interrupted it; [`enter`] then returns
/// [`Exit::Interrupted`]. `cpu` is the thread's. Signal-safe as `Blocks::interrupt` is.
pub fn leave_at(blocks: &Blocks, pc: u64, cause: Cause) -> Redirect {
    let words = current_words();
    if words.is_null() {
        return Redirect::None;
    }
    if (address(calque_unit_window)..address(calque_unit_window_end)).contains(&pc) {
        // SAFETY: the area of this thread.
        let sp = unsafe { (*words).host_sp };
        let pc = address(calque_unit_abort);
        return Redirect::To { pc, sp: Some(sp), back: Back::Nothing, at: Standing::Before };
    }
    let interruption = match blocks.interrupt(pc) {
        // A stack that was unmapped under the instruction: the rest of it will not run.
        Interruption::Step { pc } if cause == Cause::Fault => {
            Interruption::At { pc: Some(pc), away: Away::Nothing, counted: None, run: [0; 2], fetches: false }
        }
        interruption => interruption,
    };
    match interruption {
        Interruption::None => Redirect::None,
        Interruption::Step { .. } => Redirect::Step,
        Interruption::At { pc, away, counted, run, fetches } => {
            let at = match pc {
                Some(_) if fetches => Standing::Fetching,
                Some(_) => Standing::Before,
                None => Standing::Behind,
            };
            let reason = if fetches && cause == Cause::Fault { Leave::Changed } else { Leave::Interrupted };
            // SAFETY: the area of this thread, which is inside a unit and so does not look at these words.
            let back = unsafe {
                if let Some(number) = counted {
                    area::take_back(words, number);
                }
                if let Some(pc) = pc {
                    (*words).rip = pc;
                }
                (*words).interrupted = run;
                (*words).reason = reason as u32;
                match away {
                    Away::Nothing => Back::Nothing,
                    Away::Spilled(reg) => Back::Value(reg, (*words).spill),
                    Away::Rcx => Back::Rcx,
                }
            };
            Redirect::To { pc: address(calque_unit_leave), sp: None, back, at }
        }
    }
}

/// The words of the calling thread; null if it has no area.
fn current_words() -> *mut Words {
    let words: u64;
    // SAFETY: reads a register.
    unsafe { asm!("rdgsbase {}", out(reg) words, options(nomem, nostack, preserves_flags)) };
    words as *mut Words
}

/// The address to give to the kernel as the handler of a signal, in place of `handler`.
pub fn signal_entry(handler: usize) -> usize {
    // SAFETY: one value for the life of the process, stored before any handler is installed that reads it.
    unsafe { (&raw mut calque_unit_handler).write(handler) };
    calque_unit_signal as *const () as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identical::Sum;

    #[test]
    fn an_area_that_is_gone_leads_nowhere() {
        if !is_supported() {
            return println!("skipped: this processor runs no units");
        }
        let blocks = Blocks::new(1 << 20, Sum::InMemory).expect("there is memory");
        let [own, anothers] = [blocks.area(), blocks.area()].map(|area| area.expect("there is memory"));
        own.install(&mut CpuState::new());
        drop(anothers);
        assert_eq!(current_words(), own.words());
        drop(own);
        assert!(current_words().is_null());
    }
}
