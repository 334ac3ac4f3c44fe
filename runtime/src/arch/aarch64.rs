//! AArch64 hosts.
//!
//! # Safety
//! The access primitives touch guest memory with the instructions that they list in the section `calque_fixup`; if one
//! faults, the signal handler sets X9 to 1 and resumes at the landing (`fault.rs`). They are unsafe because the address must not
//! be the translator's.
//!
//! # Atomics
//! Exclusive pairs (load-acquire, store-release, between full fences where x86's LOCK is stronger) work on every core. They need
//! natural alignment, x86 does not: an access that lies within 16 aligned bytes is done as a part of those, and one that crosses
//! them, which is slow and rare on x86 too ("split lock"), by one compare-and-swap on either side under a lock of ours.
//! A comparison that fails stores the old value: CMPXCHG is a write either way (SDM vol. 2, CMPXCHG), and faults as one.

#![allow(unsafe_code)]

use super::CarriedOut;
use super::a64::{self, Instruction, LoopOp, Ordered};
use crate::cold;
use crate::thread::Access;
use calque_backend::emit::regs;
use calque_ir::CpuState;
use std::arch::asm;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Loads and stores of several guest threads need fences to keep x86-64's order.
pub(crate) const WEAK_ORDER: bool = true;

/// Orders a load before everything behind it.
#[inline(always)]
pub(crate) fn fence_after_load() {
    // SAFETY: a barrier.
    unsafe { asm!("dmb ishld", options(nostack)) };
}

/// Orders everything before a store.
#[inline(always)]
pub(crate) fn fence_before_store() {
    // SAFETY: a barrier.
    unsafe { asm!("dmb ish", options(nostack)) };
}

/// The instruction at label 2 may fault; execution then resumes at label 3 with X9 = 1.
macro_rules! guarded {
    ($line:expr) => {
        concat!(
            "mov x9, xzr\n",
            "2:\n",
            $line,
            "\n",
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

macro_rules! plain {
    ($($ty:ty, $wide:ty, $suffix:literal, $operand:literal, $load:ident $store:ident;)*) => { $(
        #[inline(always)]
        pub(crate) unsafe fn $load(addr: u64) -> Result<$ty, ()> {
            let (value, fault): ($wide, u64);
            // SAFETY: guarded; see the module.
            unsafe {
                asm!(guarded!(concat!("ldr", $suffix, " {v", $operand, "}, [{a}]")), v = out(reg) value,
                    a = in(reg) addr, out("x9") fault, options(nostack, readonly));
            }
            outcome(fault, value as $ty)
        }

        #[inline(always)]
        pub(crate) unsafe fn $store(addr: u64, value: $ty) -> Result<(), ()> {
            let fault: u64;
            // SAFETY: guarded; see the module.
            unsafe {
                asm!(guarded!(concat!("str", $suffix, " {v", $operand, "}, [{a}]")), v = in(reg) value as $wide,
                    a = in(reg) addr, out("x9") fault, options(nostack));
            }
            outcome(fault, ())
        }
    )* };
}

plain! {
    u8,  u32, "b", ":w", load8  store8;
    u16, u32, "h", ":w", load16 store16;
    u32, u32, "",  ":w", load32 store32;
    u64, u64, "",  "",   load64 store64;
}

#[inline(always)]
pub(crate) unsafe fn load128(addr: u64) -> Result<[u64; 2], ()> {
    let (low, high, fault): (u64, u64, u64);
    // SAFETY: guarded; see the module.
    unsafe {
        asm!(guarded!("ldr {v:q}, [{a}]"), "fmov {low}, {v:d}", "mov {high}, {v}.d[1]",
            v = out(vreg) _, a = in(reg) addr, low = out(reg) low, high = out(reg) high,
            out("x9") fault, options(nostack, readonly));
    }
    outcome(fault, [low, high])
}

#[inline(always)]
pub(crate) unsafe fn store128(addr: u64, value: [u64; 2]) -> Result<(), ()> {
    let fault: u64;
    // SAFETY: guarded; see the module.
    unsafe {
        asm!("fmov {v:d}, {low}", "mov {v}.d[1], {high}", guarded!("str {v:q}, [{a}]"),
            v = out(vreg) _, a = in(reg) addr, low = in(reg) value[0], high = in(reg) value[1],
            out("x9") fault, options(nostack));
    }
    outcome(fault, ())
}

/// Exclusive load, a computation, exclusive store; both accesses may fault. Fences around: LOCK orders everything.
macro_rules! exclusive {
    ($load:expr, $compute:expr, $store:expr) => {
        concat!(
            "mov x9, xzr\n",
            "dmb ish\n",
            "2:\n",
            $load,
            "\n",
            $compute,
            "\n",
            "4:\n",
            $store,
            "\n",
            "cbnz {s:w}, 2b\n",
            "3:\n",
            "dmb ish\n",
            ".pushsection calque_fixup, \"aR\", @progbits\n",
            ".balign 4\n",
            ".long 2b - .\n",
            ".long 3b - .\n",
            ".long 4b - .\n",
            ".long 3b - .\n",
            ".popsection\n",
        )
    };
}

macro_rules! atomics {
    ($($ty:ty, $wide:ty, $suffix:literal, $operand:literal, $extend:literal, $cas:ident $xchg:ident $add:ident;)*) => { $(
        pub(crate) unsafe fn $cas(addr: u64, expected: $ty, new: $ty) -> Result<$ty, ()> {
            if addr % size_of::<$ty>() as u64 != 0 {
                // SAFETY: as for this function.
                return unsafe { unaligned(addr, size_of::<$ty>(), |old| if old as $ty == expected { new as u64 } else { old }) }
                    .map(|old| old as $ty);
            }
            let (old, fault): ($wide, u64);
            // SAFETY: guarded; see the module.
            unsafe {
                asm!(exclusive!(
                        concat!("ldaxr", $suffix, " {o", $operand, "}, [{a}]"),
                        concat!("cmp {o", $operand, "}, {e", $operand, "}", $extend, "\ncsel {t", $operand, "}, {v", $operand, "}, {o",
                            $operand, "}, eq"),
                        concat!("stlxr", $suffix, " {s:w}, {t", $operand, "}, [{a}]")),
                    o = out(reg) old, e = in(reg) expected as $wide, v = in(reg) new as $wide, t = out(reg) _, s = out(reg) _,
                    a = in(reg) addr, out("x9") fault, options(nostack));
            }
            outcome(fault, old as $ty)
        }

        pub(crate) unsafe fn $xchg(addr: u64, new: $ty) -> Result<$ty, ()> {
            if addr % size_of::<$ty>() as u64 != 0 {
                // SAFETY: as for this function.
                return unsafe { unaligned(addr, size_of::<$ty>(), |_| new as u64) }.map(|old| old as $ty);
            }
            let (old, fault): ($wide, u64);
            // SAFETY: guarded; see the module.
            unsafe {
                asm!(exclusive!(
                        concat!("ldaxr", $suffix, " {o", $operand, "}, [{a}]"),
                        "",
                        concat!("stlxr", $suffix, " {s:w}, {v", $operand, "}, [{a}]")),
                    o = out(reg) old, v = in(reg) new as $wide, s = out(reg) _,
                    a = in(reg) addr, out("x9") fault, options(nostack));
            }
            outcome(fault, old as $ty)
        }

        pub(crate) unsafe fn $add(addr: u64, addend: $ty) -> Result<$ty, ()> {
            if addr % size_of::<$ty>() as u64 != 0 {
                // SAFETY: as for this function.
                return unsafe { unaligned(addr, size_of::<$ty>(), |old| (old as $ty).wrapping_add(addend) as u64) }
                    .map(|old| old as $ty);
            }
            let (old, fault): ($wide, u64);
            // SAFETY: guarded; see the module.
            unsafe {
                asm!(exclusive!(
                        concat!("ldaxr", $suffix, " {o", $operand, "}, [{a}]"),
                        concat!("add {t", $operand, "}, {o", $operand, "}, {v", $operand, "}"),
                        concat!("stlxr", $suffix, " {s:w}, {t", $operand, "}, [{a}]")),
                    o = out(reg) old, v = in(reg) addend as $wide, t = out(reg) _, s = out(reg) _,
                    a = in(reg) addr, out("x9") fault, options(nostack));
            }
            outcome(fault, old as $ty)
        }
    )* };
}

atomics! {
    u8,  u32, "b", ":w", ", uxtb", cas8  xchg8  add8;
    u16, u32, "h", ":w", ", uxth", cas16 xchg16 add16;
    u32, u32, "",  ":w", "",       cas32 xchg32 add32;
    u64, u64, "",  "",   "",       cas64 xchg64 add64;
}

/// `addr` must be a multiple of 16, as CMPXCHG16B demands. The loaded pair is one access because it is always stored (Arm ARM B2.2.1).
pub(crate) unsafe fn cas128(addr: u64, expected: [u64; 2], new: [u64; 2]) -> Result<[u64; 2], ()> {
    let (low, high, fault): (u64, u64, u64);
    // SAFETY: guarded; see the module.
    unsafe {
        asm!(exclusive!(
                "ldaxp {o0}, {o1}, [{a}]",
                "cmp {o0}, {e0}\nccmp {o1}, {e1}, #0, eq\ncsel {t0}, {v0}, {o0}, eq\ncsel {t1}, {v1}, {o1}, eq",
                "stlxp {s:w}, {t0}, {t1}, [{a}]"),
            o0 = out(reg) low, o1 = out(reg) high, e0 = in(reg) expected[0], e1 = in(reg) expected[1],
            v0 = in(reg) new[0], v1 = in(reg) new[1], t0 = out(reg) _, t1 = out(reg) _, s = out(reg) _,
            a = in(reg) addr, out("x9") fault, options(nostack));
    }
    outcome(fault, [low, high])
}

/// Read-modify-write of `bytes` (2, 4, 8) at an address that is not a multiple of that; the old value.
unsafe fn unaligned(addr: u64, bytes: usize, compute: impl Fn(u64) -> u64) -> Result<u64, ()> {
    let (base, offset) = (addr & !15, (addr & 15) as usize);
    if offset + bytes > 16 {
        // SAFETY: as for this function.
        return unsafe { split(addr, bytes, compute) };
    }
    let mask = (u64::MAX >> (64 - 8 * bytes)) as u128;
    let shift = 8 * offset;
    // SAFETY: the 16 bytes around lie in the same page.
    let mut words = unsafe { load128(base)? };
    loop {
        let all = u128::from(words[0]) | u128::from(words[1]) << 64;
        let old = (all >> shift & mask) as u64;
        let new = all & !(mask << shift) | (u128::from(compute(old)) & mask) << shift;
        // SAFETY: as above.
        let seen = unsafe { cas128(base, words, [new as u64, (new >> 64) as u64])? };
        if seen == words {
            return Ok(old);
        }
        words = seen;
    }
}

static SPLIT: Mutex<()> = Mutex::new(());

/// What keeps other threads' split locks waiting.
pub(crate) type FrozenSplits = MutexGuard<'static, ()>;

/// Keeps other threads' split locks waiting until the guard is dropped.
pub(crate) fn freeze_splits() -> FrozenSplits {
    SPLIT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The same across 16 aligned bytes: a compare-and-swap on either side, under a lock of ours. So it is atomic against its like, and loses
/// no store of others to these bytes or their neighbours.
unsafe fn split(addr: u64, bytes: usize, compute: impl Fn(u64) -> u64) -> Result<u64, ()> {
    let upper = (addr | 15).wrapping_add(1);
    let halves = [Part { base: addr & !15, shift: 8 * (addr & 15) as u32 }, Part { base: upper, shift: 0 }];
    let first_bits = 8 * (upper - addr) as u32;
    let mask = u64::MAX >> (64 - 8 * bytes as u32);
    let first_mask = (1 << first_bits) - 1;
    // A guest that serves its own faults may do so in a thread that wants the lock.
    // SAFETY: as below.
    unsafe { (halves[0].load()?, halves[1].load()?) };
    let _guard = freeze_splits();
    loop {
        // SAFETY: as for this function; either side lies in the page of its bytes.
        let (low, high) = unsafe { (halves[0].load()?, halves[1].load()?) };
        let old = (low & first_mask | high << first_bits) & mask;
        let new = compute(old) & mask;
        let (old_high, new_high) = (old >> first_bits, new >> first_bits);
        // SAFETY: as above.
        unsafe {
            if !halves[0].swap(first_mask, old & first_mask, new & first_mask)? {
                continue;
            }
            match halves[1].swap(mask >> first_bits, old_high, new_high) {
                Ok(true) => return Ok(old),
                // Somebody else's value stays; ours goes, unless it has been overwritten meanwhile.
                Ok(false) => drop(halves[0].swap(first_mask, new & first_mask, old & first_mask)?),
                Err(()) => {
                    halves[0].swap(first_mask, new & first_mask, old & first_mask)?;
                    return Err(());
                }
            }
        }
    }
}

/// The part of a split operand within 16 aligned bytes at `base`, from bit `shift` on.
struct Part {
    base: u64,
    shift: u32,
}

impl Part {
    /// The bits from `shift` on.
    unsafe fn load(&self) -> Result<u64, ()> {
        // SAFETY: as for `split`.
        let words = unsafe { load128(self.base)? };
        fence_after_load();
        Ok(((u128::from(words[0]) | u128::from(words[1]) << 64) >> self.shift) as u64)
    }

    /// Replaces the bits of `mask` if they are `old`; whether they were.
    unsafe fn swap(&self, mask: u64, old: u64, new: u64) -> Result<bool, ()> {
        // SAFETY: as for `split`.
        let mut words = unsafe { load128(self.base)? };
        loop {
            let all = u128::from(words[0]) | u128::from(words[1]) << 64;
            if (all >> self.shift) as u64 & mask != old {
                return Ok(false);
            }
            let all = all & !(u128::from(mask) << self.shift) | u128::from(new) << self.shift;
            // SAFETY: as above.
            let seen = unsafe { cas128(self.base, words, [all as u64, (all >> 64) as u64])? };
            if seen == words {
                return Ok(true);
            }
            words = seen;
        }
    }
}

pub(crate) unsafe fn copy(dst: *mut u8, src: *const u8, len: usize) -> usize {
    let left: usize;
    // SAFETY: every access is listed in the fixup table; `n` counts the bytes not yet copied. What faults in a long step is tried again
    // in shorter ones.
    unsafe {
        asm!(
            "3: cmp {n}, #32",
            "b.lo 4f",
            "18: ldp {v:q}, {w:q}, [{s}]",
            "19: stp {v:q}, {w:q}, [{d}]",
            "add {s}, {s}, #32",
            "add {d}, {d}, #32",
            "sub {n}, {n}, #32",
            "b 3b",
            "4: cmp {n}, #8",
            "b.lo 5f",
            "20: ldr {t}, [{s}]",
            "21: str {t}, [{d}]",
            "add {s}, {s}, #8",
            "add {d}, {d}, #8",
            "sub {n}, {n}, #8",
            "b 4b",
            "5: cbz {n}, 6f",
            "22: ldrb {t:w}, [{s}]",
            "23: strb {t:w}, [{d}]",
            "add {s}, {s}, #1",
            "add {d}, {d}, #1",
            "sub {n}, {n}, #1",
            "b 5b",
            "6:",
            ".pushsection calque_fixup, \"aR\", @progbits",
            ".balign 4",
            ".long 18b - .", ".long 4b - .",
            ".long 19b - .", ".long 4b - .",
            ".long 20b - .", ".long 6b - .",
            ".long 21b - .", ".long 6b - .",
            ".long 22b - .", ".long 6b - .",
            ".long 23b - .", ".long 6b - .",
            ".popsection",
            t = out(reg) _, v = out(vreg) _, w = out(vreg) _, d = inout(reg) dst => _, s = inout(reg) src => _, n = inout(reg) len => left,
            out("x9") _, options(nostack));
    }
    left
}

pub(crate) use super::cpu_and_node_by_call as cpu_and_node;

pub(crate) const EMITS: bool = true;
pub(crate) const EXACT_MXCSR: bool = false;

pub(crate) fn context_pc(context: &libc::ucontext_t) -> u64 {
    context.uc_mcontext.pc
}

pub(crate) fn context_set_pc(context: &mut libc::ucontext_t, pc: u64) {
    context.uc_mcontext.pc = pc;
}

/// Nanoseconds since boot.
pub(crate) fn time_stamp() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).expect("there is a monotonic clock");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

pub(crate) const TSC_HZ: Option<u32> = Some(1_000_000_000);

pub(crate) fn context_trap(_: &libc::ucontext_t) -> Option<u64> {
    None
}

/// See `arch/mod.rs`.
pub(crate) fn take_emitted_registers(context: &libc::ucontext_t, cpu: &mut CpuState) {
    let registers = &context.uc_mcontext.regs;
    for (gpr, &home) in cpu.gpr.iter_mut().zip(&regs::GPR_HOME) {
        *gpr = registers[usize::from(home)];
    }
    cpu.rt.countdown = registers[usize::from(regs::COUNTDOWN)] as i32;
    let Some(record) = context_record(context, FPSIMD_MAGIC) else { return };
    // `struct fpsimd_context`: the record's head, FPSR and FPCR, then the registers.
    for (n, xmm) in cpu.xmm.iter_mut().enumerate() {
        let at = record.wrapping_add(16 + 16 * (usize::from(regs::XMM_HOME) + n)).cast::<[u64; 2]>();
        // SAFETY: inside the kernel's record of 32 registers.
        *xmm = unsafe { at.read_unaligned() };
    }
}

/// See `arch/mod.rs`.
pub(crate) fn end_countdown(context: &mut libc::ucontext_t) {
    context.uc_mcontext.regs[usize::from(regs::COUNTDOWN)] = cold::ENDED as u32 as u64;
}

pub(crate) fn context_set_sp(context: &mut libc::ucontext_t, sp: u64) {
    context.uc_mcontext.sp = sp;
}

pub(crate) fn context_set_fault(context: &mut libc::ucontext_t) {
    context.uc_mcontext.regs[9] = 1;
}

/// The host instruction that a fault has interrupted.
fn interrupted_word(context: &libc::ucontext_t) -> u32 {
    // SAFETY: the pc of code that has just been executed.
    unsafe { (context.uc_mcontext.pc as *const u32).read() }
}

/// See `arch/mod.rs`.
pub(crate) fn emulate_unaligned(
    context: &mut libc::ucontext_t,
    may: impl Fn(u64, usize, Access) -> bool,
) -> CarriedOut {
    let word = interrupted_word(context);
    let registers = &mut context.uc_mcontext;
    let Some(insn) = a64::decode(word) else { return CarriedOut::Not };
    let Instruction { op, bytes, offset, rs, rn, rt } = insn;
    let base = if rn == 31 { registers.sp } else { registers.regs[rn] };
    let addr = base.wrapping_add_signed(offset);
    let access = if matches!(op, Ordered::Load(_)) { Access::Read } else { Access::Write };
    if !may(addr, bytes, access) {
        return CarriedOut::Not;
    }
    let mask = u64::MAX >> (64 - 8 * bytes);
    let get = |n: usize| if n == 31 { 0 } else { registers.regs[n] & mask };
    let (source, operand) = (get(rt), get(rs));
    let mut words = 1;
    // SAFETY: the guest may access these bytes; another thread that unmaps them now is answered by `Err`.
    let old = unsafe {
        match op {
            Ordered::Load(_) => load_unaligned(addr, bytes),
            Ordered::Store => unaligned(addr, bytes, |_| source),
            Ordered::LoadExclusive => {
                // SAFETY: generated code is followed by its own padding and constants, so five words can be read.
                let code = (registers.pc as *const [u32; a64::LOOP_WORDS]).read();
                let Some(whole) = a64::decode_loop(&code) else { return CarriedOut::Not };
                words = whole.words;
                let (operand, source) = (get(whole.operand), get(whole.source));
                match whole.op {
                    LoopOp::Fetch(fetch) => unaligned(addr, bytes, |old| fetch.apply(old, operand)),
                    LoopOp::CompareSwap => unaligned(addr, bytes, |old| if old == operand { source } else { old }),
                }
            }
            Ordered::CompareSwap => unaligned(addr, bytes, |old| if old == operand { source } else { old }),
            Ordered::Fetch(fetch) => unaligned(addr, bytes, |old| fetch.apply(old, operand)),
        }
    };
    let Ok(old) = old else { return CarriedOut::Not };
    let result = match op {
        Ordered::Load(extend) => Some((rt, extend.apply(old, bytes))),
        Ordered::LoadExclusive | Ordered::Fetch(_) => Some((rt, old)),
        Ordered::Store => None,
        Ordered::CompareSwap => Some((rs, old)),
    };
    if let Some((register, value)) = result.filter(|(register, _)| *register != 31) {
        registers.regs[register] = value;
    }
    registers.pc += 4 * words;
    if matches!(op, Ordered::Load(_) | Ordered::Store) { CarriedOut::Plain } else { CarriedOut::Atomic }
}

/// Loads `bytes` at an address that is not a multiple of that, before everything behind it: as one access within 8 aligned bytes.
unsafe fn load_unaligned(addr: u64, bytes: usize) -> Result<u64, ()> {
    let (base, offset) = (addr & !7, (addr & 7) as usize);
    let value = if offset + bytes <= 8 {
        // SAFETY: as for this function; the 8 bytes around lie in the same page.
        unsafe { load64(base) }.map(|word| word >> (8 * offset) & u64::MAX >> (64 - 8 * bytes))
    } else {
        let mut value = [0; 8];
        // SAFETY: `value` is ours, the guest's side guarded.
        let left = unsafe { copy(value.as_mut_ptr(), addr as *const u8, bytes) };
        if left == 0 { Ok(u64::from_le_bytes(value)) } else { Err(()) }
    };
    fence_after_load();
    value
}

/// Magic number of the record that holds ESR_EL1 (asm/sigcontext.h, `struct esr_context`).
const ESR_MAGIC: u32 = 0x4553_5201;

/// Magic number of the record that holds the vector registers (asm/sigcontext.h, `struct fpsimd_context`).
const FPSIMD_MAGIC: u32 = 0x4650_8001;

/// The record with this magic number among those behind the general registers.
fn context_record(context: &libc::ucontext_t, wanted: u32) -> Option<*const u8> {
    // The registers are followed by tagged records: magic, size, contents.
    let records = (&raw const context.uc_mcontext).wrapping_add(1).cast::<u8>();
    // SAFETY: the kernel (and qemu-user from 10 on) ends the list with a record of size 0 within 4 KiB.
    unsafe {
        // `__reserved` starts at the last 4096 bytes of `uc_mcontext`, 16-aligned.
        let mut at = records.wrapping_sub(4096);
        loop {
            let (magic, size) = (at.cast::<u32>().read_unaligned(), at.wrapping_add(4).cast::<u32>().read_unaligned());
            match (magic, size) {
                (_, 0) => return None,
                (magic, _) if magic == wanted => return Some(at),
                (_, size) => at = at.wrapping_add(size as usize),
            }
        }
    }
}

/// See `arch/mod.rs`.
pub(crate) fn whole_address(context: &libc::ucontext_t, reported: u64) -> u64 {
    const TOP_BYTE: u64 = 0xff << 56;
    let registers = &context.uc_mcontext;
    let word = interrupted_word(context);
    let register = |n: usize| if n == 31 { registers.sp } else { registers.regs[n] };
    // What crosses a page may be reported in the second.
    let same = |address: &u64| (reported.wrapping_sub(*address) << 8) >> 8 < 64;
    let top = a64::address(word, register).filter(same).map_or(reported, |address| address) & TOP_BYTE;
    reported & !TOP_BYTE | top
}

/// See `arch/mod.rs`.
pub(crate) fn is_at_pair(context: &libc::ucontext_t) -> bool {
    calque_backend::is_stack_pair(interrupted_word(context))
}

pub(crate) fn context_is_write(context: &libc::ucontext_t) -> bool {
    let word = interrupted_word(context);
    // An atomic access that could not even read is a write to x86 (SDM vol. 3 4.7), and a read in the syndrome.
    if a64::decode(word).is_some_and(|insn| !matches!(insn.op, Ordered::Load(_))) {
        return true;
    }
    let Some(record) = context_record(context, ESR_MAGIC) else { return false };
    // SAFETY: inside the kernel's record.
    let syndrome = unsafe { record.wrapping_add(8).cast::<u64>().read_unaligned() };
    // Bit 6 of a data abort's syndrome: WnR (Arm ARM, ESR_EL1).
    syndrome & 1 << 6 != 0
}
