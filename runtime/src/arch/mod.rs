//! What differs between hosts; each item has its documentation here.

#[cfg(any(target_arch = "aarch64", test))]
mod a64;
#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "aarch64")]
use aarch64 as host;
#[cfg(not(target_arch = "x86_64"))]
#[path = "no_units.rs"]
mod units;
#[cfg(target_arch = "x86_64")]
mod units;
#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
use x86_64 as host;

/// `unsafe fn copy(dst, src, len) -> usize`: copies forwards, either side may be guest memory; returns the number of
/// bytes *not* copied because of a fault, which is at most 8 bytes coarse.
pub(crate) use host::copy;

/// `unsafe fn load8(addr: u64) -> Result<u8, ()>` and wider: one access of that width, as the processor would.
pub(crate) use host::{load8, load16, load32, load64, load128};

/// `unsafe fn store8(addr: u64, value) -> Result<(), ()>` and wider.
pub(crate) use host::{store8, store16, store32, store64, store128};

/// `unsafe fn cas8(addr, expected, new) -> Result<old, ()>` and wider: sequentially consistent, any alignment the
/// host can do.
pub(crate) use host::{cas8, cas16, cas32, cas64, cas128};

/// `unsafe fn xchg8(addr, new) -> Result<old, ()>` and wider, sequentially consistent.
pub(crate) use host::{xchg8, xchg16, xchg32, xchg64};

/// `unsafe fn add8(addr, addend) -> Result<old, ()>` and wider, sequentially consistent.
pub(crate) use host::{add8, add16, add32, add64};

/// Whether loads and stores of several guest threads need fences, and those fences.
pub(crate) use host::{WEAK_ORDER, fence_after_load, fence_before_store};

/// `fn freeze_splits() -> FrozenSplits`: keeps other threads out of atomic operations that take a lock until the guard is dropped.
pub(crate) use host::{FrozenSplits, freeze_splits};

/// `const EMITS: bool`: whether tier 0 is code that `backend::Emitter` emits.
pub(crate) use host::EMITS;

/// `const EXACT_MXCSR: bool`: whether every engine keeps the exception flags of MXCSR as an x86-64 processor does.
pub(crate) use host::EXACT_MXCSR;

/// `fn take_emitted_registers(&ucontext_t, &mut CpuState)`: the guest's registers out of a context that was interrupted in emitted code.
pub(crate) use host::take_emitted_registers;

/// `fn end_countdown(&mut ucontext_t)`: makes emitted code that was interrupted leave at its next backward or computed jump.
pub(crate) use host::end_countdown;

/// `fn context_pc(&ucontext_t) -> u64`: pc at which the host was interrupted.
pub(crate) use host::context_pc;

/// `fn context_set_pc(&mut ucontext_t, u64)`.
pub(crate) use host::context_set_pc;

/// `fn context_set_sp(&mut ucontext_t, u64)`.
pub(crate) use host::context_set_sp;

/// `fn context_set_fault(&mut ucontext_t)`: tells the primitive at whose landing the context will resume that it
/// has failed.
pub(crate) use host::context_set_fault;

/// `fn context_is_write(&ucontext_t) -> bool`: whether the memory access that faulted was a write.
pub(crate) use host::context_is_write;

/// `fn emulate_unaligned(&mut ucontext_t, may: impl Fn(addr, bytes, Access) -> bool) -> CarriedOut`: generated code has faulted
/// because an ordered or atomic access was not aligned, which x86-64 allows: carries it out and steps over it, unless
/// that is not what has happened. `may` says whether the guest has that access there.
pub(crate) use host::emulate_unaligned;

/// Identical translation: `Units` of a process, `UnitThread` of a thread, `Thread::run_units`;
/// `signal_entry(handler) -> usize`, what the kernel gets as the address of a signal's handler; `copies_sha() -> bool`; and
/// `copies_avx512(name) -> bool`, for a feature of AVX-512 by its name in /proc/cpuinfo.
pub(crate) use units::{Counted, FrozenUnits, Transfer, UnitThread, Units, copies_avx512, copies_sha, signal_entry};

/// `fn context_trap(&ucontext_t) -> Option<u64>`: the vector of the exception, where the host says so.
pub(crate) use host::context_trap;
/// `fn time_stamp() -> u64`: the time stamp counter, and `TSC_HZ`, its frequency, where it is known: CPUID leaf 0x15 says so.
pub(crate) use host::{TSC_HZ, time_stamp};

/// `fn cpu_and_node() -> u32`: where this thread runs, the cpu in the low 12 bits, the node above, as Linux sets TSC_AUX
/// (`arch/x86/include/asm/segment.h`, `vdso_encode_cpunode`).
pub(crate) use host::cpu_and_node;

/// The cpu and the node from the kernel, in that form.
#[allow(unsafe_code)]
pub(crate) fn cpu_and_node_by_call() -> u32 {
    let (mut cpu, mut node) = (0u32, 0u32);
    // SAFETY: both words are ours.
    unsafe { libc::syscall(libc::SYS_getcpu, &raw mut cpu, &raw mut node, 0) };
    cpu & 0xfff | node << 12
}

/// `fn whole_address(&ucontext_t, u64) -> u64`: the address that generated code has accessed, of which the host has reported this. AArch64
/// neither looks at the topmost byte nor reports it.
pub(crate) use host::whole_address;

/// `fn is_at_pair(&ucontext_t) -> bool`: whether generated code has faulted in an instruction that executes two of the guest's, of which the
/// first may be executed by itself.
pub(crate) use host::is_at_pair;

/// The address that a memory fault was about.
#[allow(unsafe_code)]
pub(crate) fn fault_address(info: &libc::siginfo_t) -> u64 {
    // SAFETY: callers ask for SIGSEGV and SIGBUS only, whose siginfo holds an address.
    unsafe { info.si_addr() as u64 }
}

/// One access that may fault: where it is and where to go on. Both relative to the field's own address.
#[repr(C)]
struct Fixup {
    access: i32,
    landing: i32,
}

/// The landing pad of the access primitive whose faulting instruction is at `pc`.
#[allow(unsafe_code)]
pub(crate) fn fixup(pc: u64) -> Option<u64> {
    unsafe extern "C" {
        static __start_calque_fixup: Fixup;
        static __stop_calque_fixup: Fixup;
    }
    let (start, end) = (&raw const __start_calque_fixup, &raw const __stop_calque_fixup);
    let count = (end as usize - start as usize) / size_of::<Fixup>();
    // SAFETY: the linker puts the two symbols around the section that the primitives fill with `Fixup`s.
    let table = unsafe { std::slice::from_raw_parts(start, count) };
    let absolute = |field: &i32| (std::ptr::from_ref(field) as u64).wrapping_add_signed(i64::from(*field));
    table.iter().find(|f| absolute(&f.access) == pc).map(|f| absolute(&f.landing))
}

/// What `emulate_unaligned` has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(not(target_arch = "aarch64"), expect(dead_code, reason = "the host minds no alignment"))]
pub(crate) enum CarriedOut {
    Not,
    /// A load or a store.
    Plain,
    /// A LOCK operation.
    Atomic,
}

/// Whose a fault at a host pc is, as far as units are concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "there are no units"))]
pub(crate) enum FaultOf {
    /// Not in a unit.
    NoUnit,
    /// An instruction of the guest's.
    Guest,
    /// What is left of the sequence of one that is done: the thread has left, and goes on behind it.
    Sequence,
}
