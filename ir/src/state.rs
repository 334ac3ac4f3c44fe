//! `CpuState`: one guest thread's register file, and beside it what generated code reaches through the same
//! pointer. Layout is fixed (`repr(C)`): the backend addresses fields by `offset_of!`.

use crate::deferred::Deferred;
use crate::reg::{Reg, RegKind};
use std::mem::offset_of;
use std::sync::atomic::AtomicU32;

/// A 128-bit register as two 64-bit words, low first.
pub type V128 = [u64; 2];

/// Registers of one guest thread, and the words of the runtime that generated code uses.
#[repr(C, align(64))]
pub struct CpuState {
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8..R15.
    pub gpr: [u64; 16],
    /// Guest pc: of the next instruction while outside generated code.
    pub rip: u64,
    /// Linear address that FS: is relative to.
    pub fs_base: u64,
    /// Linear address that GS: is relative to.
    pub gs_base: u64,
    /// CF PF AF ZF SF OF DF as bytes of 0 or 1 (order of `Reg::CF..=Reg::DF`), one byte unused.
    pub flags: [u8; 8],
    /// The other bits of RFLAGS, in place (TF, AC, ID; bit 1 and IF are added when RFLAGS is read).
    pub flags_rest: u32,
    /// SSE control and status (SDM vol. 1 10.2.3).
    pub mxcsr: u32,
    /// 0 if `ymmh` is all zeros, as behind VZEROUPPER; anything else if it need not be. Whoever writes something else there says so
    /// ([`CpuState::set_ymmh`]). It also puts the vectors at multiples of 16 bytes, where AArch64's loads of 16 bytes reach them.
    pub upper_halves: u64,
    /// Low 128 bits of the vector registers.
    pub xmm: [V128; 16],
    /// Bits 128..256 of the vector registers. An instruction that writes them makes the bits above zero (`avx512`).
    pub ymmh: [V128; 16],
    /// Where helpers take vector arguments (by argument index) and leave a vector result (slot 0).
    pub scratch: [V128; 4],
    /// The x87 unit.
    pub x87: X87,
    /// Status flags that are still to be computed. None outside engines.
    pub deferred: Deferred,
    /// What generated code needs of the runtime.
    pub rt: Rt,
    /// A constant for generated code: byte i is 1 << i % 8.
    pub place_bits: V128,
    /// Which state components the thread has, by what CPUID announces (XCR0, SDM vol. 1 13.3): [`XCR0_AVX2`] or [`XCR0_AVX512`].
    pub xcr0: u64,
    /// What AVX-512 adds.
    pub avx512: Avx512,
    /// Whether `avx512` need not be all zeros, as it is where AVX-512 is not announced, or has not been used so far.
    pub avx512_in_use: bool,
}

const _: () = assert!(offset_of!(CpuState, place_bits).is_multiple_of(16), "AArch64's loads of 16 bytes reach it");

/// XCR0: x87, SSE and AVX state.
pub const XCR0_AVX2: u64 = 0b111;
/// The same, and opmask, ZMM_Hi256 and Hi16_ZMM.
pub const XCR0_AVX512: u64 = XCR0_AVX2 | 0b111 << 5;

/// The state components of AVX-512, each as XSAVE has it (SDM vol. 1 13.5.5). Only x86-64 hosts run instructions that change it, as they are.
#[repr(C, align(64))]
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Avx512 {
    /// K0 to K7.
    pub opmask: [u64; 8],
    /// Bits 256..512 of ZMM0 to ZMM15.
    pub zmm_hi256: [[u64; 4]; 16],
    /// ZMM16 to ZMM31.
    pub hi16_zmm: [[u64; 8]; 16],
}

/// The x87 register stack. `regs[i]` is *physical* register i (R0..R7): mantissa and sign+exponent.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct X87 {
    /// 80-bit registers: `[mantissa, sign and exponent in the low 16 bits]`.
    pub regs: [V128; 8],
    /// Control word; 0x37f after FNINIT.
    pub control: u16,
    /// Status word without TOP (bits 11..13 are kept in `top`).
    pub status: u16,
    /// One bit a physical register: 1 = empty (the complement of FXSAVE's abridged tag).
    pub empty: u8,
    /// Physical number of ST(0), 0..8.
    pub top: u8,
    /// The opcode that was loaded with `code`.
    pub opcode: u16,
    /// `Reg::X87_CODE` and `Reg::X87_DATA`: [`crate::helper::x87_pointers`].
    pub code: u64,
    pub data: u64,
}

impl X87 {
    /// Behind FNINIT.
    const INITIAL: X87 =
        X87 { regs: [[0; 2]; 8], control: 0x37f, status: 0, empty: 0xff, top: 0, opcode: 0, code: 0, data: 0 };
}

/// Words of the runtime that generated code uses; addresses are host addresses.
#[repr(C)]
pub struct Rt {
    /// Nonzero asks the thread to leave generated code at the next safepoint (signals, stop-the-world).
    pub interrupt: AtomicU32,
    /// Why generated code came back: set by the exit stubs (`backend::abi::ExitReason`).
    pub exit_reason: u32,
    /// Detail of the exit: cell index, fault kind, ... as the reason says.
    pub exit_detail: u64,
    /// Host stack pointer at which `enter` was called: a fault in generated code unwinds to it.
    pub host_sp: u64,
    /// Table of exit cells (8 bytes each), shared by all threads.
    pub cells: u64,
    /// Table of helper entry points, indexed by `Helper as usize`.
    pub helpers: u64,
    /// Per-thread direct-mapped table of (guest pc, host code) for indirect jumps.
    pub jump_cache: u64,
    /// The thread's counters (8 bytes each), where counting was asked for.
    pub counters: u64,
    /// Guest instructions executed, where counting was asked for.
    pub insns: u64,
    /// What the runtime's profiling helpers work on.
    pub recorder: u64,
    /// As `jump_cache`, for indirect jumps of tier 0 on AArch64.
    pub tier0_jumps: u64,
    /// Backward jumps, calls and returns that tier 0 may still make before it leaves.
    pub countdown: i32,
    /// Not 0 if generated code cannot compute with floats as the control words say: `Op::Uncarried`.
    pub uncarried: u32,
    /// Guest pc of the computed jump that has missed its cache, in front of `ExitReason::Indirect`.
    pub jump: u64,
}

impl CpuState {
    /// State of a thread as the kernel starts a program: all zero but the control words
    /// (`arch/x86/kernel/fpu`: FCW 0x37f, MXCSR 0x1f80).
    pub fn new() -> Self {
        Self {
            gpr: [0; 16],
            rip: 0,
            fs_base: 0,
            gs_base: 0,
            flags: [0; 8],
            flags_rest: 0,
            mxcsr: MXCSR_MASKS,
            upper_halves: 0,
            xmm: [[0; 2]; 16],
            ymmh: [[0; 2]; 16],
            x87: X87::INITIAL,
            scratch: [[0; 2]; 4],
            deferred: Deferred::default(),
            rt: Rt {
                interrupt: AtomicU32::new(0),
                exit_reason: 0,
                exit_detail: 0,
                host_sp: 0,
                cells: 0,
                helpers: 0,
                jump_cache: 0,
                counters: 0,
                insns: 0,
                recorder: 0,
                tier0_jumps: 0,
                countdown: 0,
                uncarried: 0,
                jump: 0,
            },
            place_bits: [0x8040_2010_0804_0201; 2],
            xcr0: XCR0_AVX2,
            avx512: Avx512::default(),
            avx512_in_use: false,
        }
    }

    /// Copies all guest registers (not the runtime's words) from `other`: what a new thread or a forked child inherits.
    pub fn copy_guest_from(&mut self, other: &CpuState) {
        self.gpr = other.gpr;
        self.rip = other.rip;
        self.fs_base = other.fs_base;
        self.gs_base = other.gs_base;
        self.flags = other.flags;
        self.flags_rest = other.flags_rest;
        self.mxcsr = other.mxcsr;
        self.xmm = other.xmm;
        self.ymmh = other.ymmh;
        self.upper_halves = other.upper_halves;
        self.x87 = other.x87;
        self.xcr0 = other.xcr0;
        self.avx512 = other.avx512;
        self.avx512_in_use = other.avx512_in_use;
    }

    /// Sets x87, vector and opmask registers and their control words to what they are when a program starts.
    pub fn reset_floats(&mut self) {
        (self.x87, self.mxcsr, self.xmm) = (X87::INITIAL, MXCSR_MASKS, [[0; 2]; 16]);
        self.set_ymmh([[0; 2]; 16]);
        if self.avx512_in_use {
            self.avx512 = Avx512::default();
        }
    }

    /// The state components that are not as at reset, as far as anybody keeps track (XINUSE, SDM vol. 1 13.6).
    pub fn xinuse(&self) -> u64 {
        if self.avx512_in_use { self.xcr0 } else { XCR0_AVX2 }
    }

    /// Sets bits 128..256 of the vector registers.
    pub fn set_ymmh(&mut self, ymmh: [V128; 16]) {
        self.ymmh = ymmh;
        self.upper_halves = 1;
    }

    /// RFLAGS as PUSHF and signal frames show it: reserved bit 1 and IF set (SDM vol. 1 3.4.3).
    pub fn rflags(&self) -> u64 {
        let [cf, pf, af, zf, sf, of, df, _] = self.flags.map(u64::from);
        cf | 1 << 1 | pf << 2 | af << 4 | zf << 6 | sf << 7 | 1 << 9 | df << 10 | of << 11 | u64::from(self.flags_rest)
    }

    /// Sets the flags from an RFLAGS image: status flags, DF, and TF, NT, AC, ID; the rest is not the program's to change.
    pub fn set_rflags(&mut self, rflags: u64) {
        let bit = |n: u32| (rflags >> n & 1) as u8;
        self.flags = [bit(0), bit(2), bit(4), bit(6), bit(7), bit(11), bit(10), 0];
        self.flags_rest = rflags as u32 & FLAGS_REST_MASK;
    }

    /// Byte offset of a register's storage from the start of `CpuState`.
    #[inline]
    pub fn offset_of(reg: Reg) -> usize {
        match reg.kind() {
            RegKind::Gpr(n) => offset_of!(CpuState, gpr) + 8 * n,
            RegKind::Xmm(n) => offset_of!(CpuState, xmm) + 16 * n,
            RegKind::YmmHi(n) => offset_of!(CpuState, ymmh) + 16 * n,
            RegKind::Flag(n) => offset_of!(CpuState, flags) + n,
            RegKind::Special => match reg {
                Reg::FLAGS_REST => offset_of!(CpuState, flags_rest),
                Reg::FS_BASE => offset_of!(CpuState, fs_base),
                Reg::GS_BASE => offset_of!(CpuState, gs_base),
                Reg::FLAGS_KIND => offset_of!(CpuState, deferred.kind),
                Reg::FLAGS_A => offset_of!(CpuState, deferred.a),
                Reg::FLAGS_B => offset_of!(CpuState, deferred.b),
                Reg::X87_CODE => offset_of!(CpuState, x87.code),
                Reg::X87_DATA => offset_of!(CpuState, x87.data),
                _ => offset_of!(CpuState, mxcsr),
            },
        }
    }
}

impl Default for CpuState {
    fn default() -> Self {
        Self::new()
    }
}

/// The exception masks of MXCSR, denormals-are-zero and flush-to-zero (SDM vol. 1 10.2.3).
pub const MXCSR_MASKS: u32 = 0x1f80;
pub const MXCSR_DAZ: u32 = 1 << 6;
pub const MXCSR_FTZ: u32 = 1 << 15;

/// The exception masks of the x87 control word (SDM vol. 1 8.1.5).
pub const X87_MASKS: u16 = 0x3f;

/// Bits of RFLAGS that live in `flags_rest`: TF (8), NT (14), AC (18), ID (21).
pub const FLAGS_REST_MASK: u32 = 1 << 8 | 1 << 14 | 1 << 18 | 1 << 21;

/// `si_code` of the SIGFPE for exceptions that are raised and unmasked, in the order of the status words' low bits
/// (`fpu__exception_code` in `arch/x86/kernel/fpu/core.c`; values of asm-generic/siginfo.h).
pub fn float_code(raised: u32) -> i32 {
    const FPE_FLTDIV: i32 = 3;
    const FPE_FLTOVF: i32 = 4;
    const FPE_FLTUND: i32 = 5;
    const FPE_FLTRES: i32 = 6;
    const FPE_FLTINV: i32 = 7;
    match raised & 0x3f {
        r if r & 1 != 0 => FPE_FLTINV,
        r if r & 4 != 0 => FPE_FLTDIV,
        r if r & 8 != 0 => FPE_FLTOVF,
        r if r & 0x12 != 0 => FPE_FLTUND,
        r if r & 0x20 != 0 => FPE_FLTRES,
        _ => 0,
    }
}
