//! Reading a clock without leaving the unit.
//!
//! The guest's vDSO asks for the time by a leaf of CPUID, which is the interpreter's like any other CPUID, and so costs more than a system
//! call. But the vDSO's own CPUIDs belong to functions, which may change every register that calls may change (psABI 3.2.1), and keep
//! nothing below the stack pointer. There units call the host's vDSO, which needs no thread-local data.
//!
//! # Safety
//! 1. `calque_unit_clock` is called on the guest's stack, with the GS base of the thread's area. It runs on the stack of `enter`, with the guest's FS
//!    base, and returns with all registers that calls keep but RBX, and with RSI, RDI and R8 as they were.
//! 2. To a signal handler that interrupts it, the thread is not inside a unit: so the unit looks at the interrupt word behind the call.
#![allow(unsafe_code)]

use super::super::area::Words;
use super::super::emit::{CPU, R11, RIP};
use super::super::sites::Rule;
use super::{Counted, Pass};
use calque_ir::CpuState;
use iced_x86::{Code, Instruction, Register};
use std::arch::global_asm;
use std::mem::offset_of;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Where CPUID reads a clock.
#[derive(Clone, Debug)]
pub struct Clocks {
    /// The code of the guest's vDSO.
    pub code: Range<u64>,
    /// The leaf that `mov eax` in front of CPUID chooses, with the clock's number in ECX. It answers with seconds in EAX and EBX,
    /// nanoseconds in ECX, and 1 in EDX if it knows that clock, else 0.
    pub leaf: u32,
}

/// `__vdso_clock_gettime` of the host.
static HOST_CLOCK: AtomicUsize = AtomicUsize::new(0);

global_asm!(
    ".text",
    ".p2align 4",
    ".hidden calque_unit_clock",
    ".globl calque_unit_clock",
    "calque_unit_clock:",
    "mov r10, rsp",
    "mov rsp, gs:[{host_sp}]",
    "push r10",
    "push rsi",
    "push rdi",
    "push r8",
    "sub rsp, 16",
    "mov edi, ecx",
    "mov rsi, rsp",
    "call [rip + {host_clock}]",
    "xor edx, edx",
    "test eax, eax",
    "sete dl",
    "mov eax, [rsp]",
    "mov ebx, [rsp + 4]",
    "mov rcx, [rsp + 8]",
    "add rsp, 16",
    "pop r8",
    "pop rdi",
    "pop rsi",
    "pop rsp",
    "ret",
    host_sp = const offset_of!(Words, host_sp),
    host_clock = sym HOST_CLOCK,
);

unsafe extern "C" {
    fn calque_unit_clock();
}

impl Clocks {
    /// Itself, if the host has such a vDSO.
    pub(in super::super) fn on_this_host(self) -> Option<Clocks> {
        // SAFETY: names an object that is in every process whose kernel has one; nothing is loaded.
        let found = unsafe {
            let object = libc::dlopen(c"linux-vdso.so.1".as_ptr(), libc::RTLD_NOLOAD | libc::RTLD_NOW);
            if object.is_null() { object } else { libc::dlsym(object, c"__vdso_clock_gettime".as_ptr()) }
        };
        HOST_CLOCK.store(found as usize, Ordering::Relaxed);
        (!found.is_null()).then_some(self)
    }
}

impl Pass<'_, '_> {
    /// Whether the instruction at hand reads a clock that nobody has to know of; `chosen` is what EAX is known to hold.
    pub(super) fn reads_clock(&self, insn: &Instruction, chosen: Option<u32>) -> bool {
        let is_of = |clocks: &Clocks| clocks.code.contains(&insn.ip()) && chosen == Some(clocks.leaf);
        let is_told = self.counted != Counted::Nothing || self.is_profiled();
        insn.code() == Code::Cpuid && !is_told && self.clocks.is_some_and(is_of)
    }

    /// Calls what reads the clock.
    pub(super) fn read_clock(&mut self, insn: &Instruction) {
        const INTERRUPT: u32 = offset_of!(CpuState, rt.interrupt) as u32;
        self.code.load_constant(R11, calque_unit_clock as *const () as u64);
        // call r11
        self.code.put(&[0x41, 0xff, 0xd3]);
        self.rule(Rule::BEFORE);
        self.r11 = false;
        self.code.restore(R11, CPU);
        // cmp dword ptr [r11 + INTERRUPT], 0; je over what leaves
        self.code.put(&[0x41, 0x83, 0xbb]);
        self.code.put(&INTERRUPT.to_le_bytes());
        self.code.put(&[0, 0x74, 0]);
        let over = self.code.len();
        self.code.store64(RIP, insn.next_ip());
        self.rule(Rule::STEP);
        self.code.jump(self.world.exits.stop);
        self.rule(Rule::DONE);
        self.code.land_short(over - 1);
        self.end(insn.len());
    }
}

/// What a `mov` of a constant leaves in EAX.
pub(super) fn chosen_leaf(insn: &Instruction) -> Option<u32> {
    let loads = insn.code() == Code::Mov_r32_imm32 && insn.op0_register() == Register::EAX;
    loads.then(|| insn.immediate32())
}
