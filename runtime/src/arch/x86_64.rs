//! x86-64 hosts.
//!
//! # Safety
//! The access primitives touch one guest location with one instruction, listed in the section `calque_fixup`; if
//! it faults, the signal handler sets R11 to 1 and resumes at the landing (`fault.rs`). They are unsafe because the
//! address must not be the translator's: callers check it against `GUEST_END`.

#![allow(unsafe_code)]

use super::CarriedOut;
use crate::thread::Access;
use calque_ir::CpuState;
use once_cell::race::OnceBool;
use std::arch::asm;
use std::arch::x86_64::{__cpuid, __rdtscp};

/// The host's order is the guest's.
pub(crate) const WEAK_ORDER: bool = false;

#[inline(always)]
pub(crate) fn fence_after_load() {}

#[inline(always)]
pub(crate) fn fence_before_store() {}

/// The instruction at label 2 may fault; execution then resumes at label 3 with R11 = 1.
macro_rules! guarded {
    ($($line:expr),+) => {
        concat!(
            "xor r11d, r11d\n",
            "2:\n", $($line, "\n",)+
            "3:\n",
            ".pushsection calque_fixup, \"aR\", @progbits\n",
            ".balign 4\n",
            ".long 2b - .\n",
            ".long 3b - .\n",
            ".popsection\n",
        )
    };
}

fn outcome<T>(fault: u64, value: T) -> Result<T, ()> {
    if fault == 0 { Ok(value) } else { Err(()) }
}

macro_rules! primitives {
    ($($ty:ty, $class:ident, $operand:literal, $acc:tt, $load:ident $store:ident $cas:ident $xchg:ident $add:ident;)*) => { $(
        #[inline(always)]
        pub(crate) unsafe fn $load(addr: u64) -> Result<$ty, ()> {
            let (value, fault);
            // SAFETY: guarded; see the module.
            unsafe {
                asm!(guarded!(concat!("mov {v", $operand, "}, [{a}]")), v = out($class) value, a = in(reg) addr,
                    out("r11") fault, options(nostack, readonly));
            }
            outcome(fault, value)
        }

        #[inline(always)]
        pub(crate) unsafe fn $store(addr: u64, value: $ty) -> Result<(), ()> {
            let fault;
            // SAFETY: guarded; see the module.
            unsafe {
                asm!(guarded!(concat!("mov [{a}], {v", $operand, "}")), v = in($class) value, a = in(reg) addr,
                    out("r11") fault, options(nostack));
            }
            outcome(fault, ())
        }

        #[inline]
        pub(crate) unsafe fn $cas(addr: u64, expected: $ty, new: $ty) -> Result<$ty, ()> {
            let (old, fault): ($ty, u64);
            // SAFETY: guarded; see the module.
            unsafe {
                asm!(guarded!(concat!("lock cmpxchg [{a}], {v", $operand, "}")), v = in($class) new, a = in(reg) addr,
                    inout($acc) expected => old, out("r11") fault, options(nostack));
            }
            outcome(fault, old)
        }

        #[inline]
        pub(crate) unsafe fn $xchg(addr: u64, new: $ty) -> Result<$ty, ()> {
            let (old, fault): ($ty, u64);
            // SAFETY: guarded; see the module.
            unsafe {
                asm!(guarded!(concat!("xchg [{a}], {v", $operand, "}")), v = inout($class) new => old,
                    a = in(reg) addr, out("r11") fault, options(nostack));
            }
            outcome(fault, old)
        }

        #[inline]
        pub(crate) unsafe fn $add(addr: u64, addend: $ty) -> Result<$ty, ()> {
            let (old, fault): ($ty, u64);
            // SAFETY: guarded; see the module.
            unsafe {
                asm!(guarded!(concat!("lock xadd [{a}], {v", $operand, "}")), v = inout($class) addend => old,
                    a = in(reg) addr, out("r11") fault, options(nostack));
            }
            outcome(fault, old)
        }
    )* };
}

primitives! {
    u8,  reg_byte, "",   "al",  load8  store8  cas8  xchg8  add8;
    u16, reg,      ":x", "ax",  load16 store16 cas16 xchg16 add16;
    u32, reg,      ":e", "eax", load32 store32 cas32 xchg32 add32;
    u64, reg,      "",   "rax", load64 store64 cas64 xchg64 add64;
}

#[inline(always)]
pub(crate) unsafe fn load128(addr: u64) -> Result<[u64; 2], ()> {
    let (low, high, fault): (u64, u64, u64);
    // SAFETY: guarded; see the module.
    unsafe {
        asm!(guarded!("movdqu {v}, [{a}]"), "movq {low}, {v}", "punpckhqdq {v}, {v}", "movq {high}, {v}",
            v = out(xmm_reg) _, a = in(reg) addr, low = out(reg) low, high = out(reg) high,
            out("r11") fault, options(nostack, readonly));
    }
    outcome(fault, [low, high])
}

#[inline(always)]
pub(crate) unsafe fn store128(addr: u64, value: [u64; 2]) -> Result<(), ()> {
    let fault: u64;
    // SAFETY: guarded; see the module.
    unsafe {
        asm!("movq {v}, {low}", "movq {w}, {high}", "punpcklqdq {v}, {w}", guarded!("movdqu [{a}], {v}"),
            v = out(xmm_reg) _, w = out(xmm_reg) _, a = in(reg) addr, low = in(reg) value[0], high = in(reg) value[1],
            out("r11") fault, options(nostack));
    }
    outcome(fault, ())
}

#[inline]
pub(crate) unsafe fn cas128(addr: u64, expected: [u64; 2], new: [u64; 2]) -> Result<[u64; 2], ()> {
    let (low, high, fault): (u64, u64, u64);
    // SAFETY: guarded; RBX, which LLVM keeps for itself, is put back. The address is in a register of our choice: of its own, LLVM may choose RBX.
    unsafe {
        asm!("xchg {b}, rbx", guarded!("lock cmpxchg16b [rdi]"), "mov rbx, {b}",
            b = inout(reg) new[0] => _, in("rdi") addr, in("rcx") new[1],
            inout("rax") expected[0] => low, inout("rdx") expected[1] => high,
            out("r11") fault, options(nostack));
    }
    outcome(fault, [low, high])
}

pub(crate) unsafe fn copy(dst: *mut u8, src: *const u8, len: usize) -> usize {
    let left: usize;
    // SAFETY: every access is listed in the fixup table; RCX counts the bytes not yet copied.
    unsafe {
        asm!(
            "cmp rcx, 512",
            "jae 5f",
            "4: cmp rcx, 8",
            "jb 5f",
            "20: mov {t}, [rsi]",
            "21: mov [rdi], {t}",
            "add rsi, 8",
            "add rdi, 8",
            "sub rcx, 8",
            "jmp 4b",
            "5:",
            "22: rep movsb",
            "6:",
            ".pushsection calque_fixup, \"aR\", @progbits",
            ".balign 4",
            ".long 20b - .", ".long 6b - .",
            ".long 21b - .", ".long 6b - .",
            ".long 22b - .", ".long 6b - .",
            ".popsection",
            t = out(reg) _,
            inout("rdi") dst => _, inout("rsi") src => _, inout("rcx") len => left,
            out("r11") _, options(nostack));
    }
    left
}

const RIP: usize = libc::REG_RIP as usize;

pub(crate) fn cpu_and_node() -> u32 {
    /// CPUID 8000_0001H, EDX bit 27: RDTSCP (SDM vol. 2A CPUID). Asked once: under a hypervisor CPUID is slow.
    static HAS_RDTSCP: OnceBool = OnceBool::new();
    if !HAS_RDTSCP.get_or_init(|| __cpuid(0x8000_0001).edx & 1 << 27 != 0) {
        return super::cpu_and_node_by_call();
    }
    let mut aux = 0;
    // SAFETY: the processor has the instruction, and the word is ours.
    unsafe { __rdtscp(&raw mut aux) };
    aux
}

/// The processor locks.
pub(crate) struct FrozenSplits;

pub(crate) fn freeze_splits() -> FrozenSplits {
    FrozenSplits
}

pub(crate) const EMITS: bool = false;
pub(crate) const EXACT_MXCSR: bool = true;

pub(crate) fn context_pc(context: &libc::ucontext_t) -> u64 {
    context.uc_mcontext.gregs[RIP] as u64
}

pub(crate) fn context_set_pc(context: &mut libc::ucontext_t, pc: u64) {
    context.uc_mcontext.gregs[RIP] = pc as i64;
}

pub(crate) fn context_set_fault(context: &mut libc::ucontext_t) {
    context.uc_mcontext.gregs[libc::REG_R11 as usize] = 1;
}

/// See `arch/mod.rs`.
pub(crate) fn is_at_pair(_: &libc::ucontext_t) -> bool {
    false
}

/// See `arch/mod.rs`.
pub(crate) fn whole_address(_: &libc::ucontext_t, reported: u64) -> u64 {
    reported
}

pub(crate) fn context_is_write(context: &libc::ucontext_t) -> bool {
    // Bit 1 of the page fault error code: W/R (SDM vol. 3 4.7).
    context.uc_mcontext.gregs[libc::REG_ERR as usize] & 2 != 0
}

/// The processor's own, which copied code reads, too.
pub(crate) fn time_stamp() -> u64 {
    // SAFETY: every x86-64 processor has it.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// Processors that say so say it in the same leaf, but hypervisors hide it.
pub(crate) const TSC_HZ: Option<u32> = None;

pub(crate) fn context_trap(context: &libc::ucontext_t) -> Option<u64> {
    Some(context.uc_mcontext.gregs[libc::REG_TRAPNO as usize] as u64)
}

/// See `arch/mod.rs`.
pub(crate) fn take_emitted_registers(_: &libc::ucontext_t, _: &mut CpuState) {
    unreachable!("the emitter's code does not run on this host");
}

/// See `arch/mod.rs`.
pub(crate) fn end_countdown(_: &mut libc::ucontext_t) {
    unreachable!("the emitter's code does not run on this host");
}

pub(crate) fn context_set_sp(context: &mut libc::ucontext_t, sp: u64) {
    context.uc_mcontext.gregs[libc::REG_RSP as usize] = sp as i64;
}

pub(crate) fn emulate_unaligned(_: &mut libc::ucontext_t, _: impl Fn(u64, usize, Access) -> bool) -> CarriedOut {
    CarriedOut::Not
}
