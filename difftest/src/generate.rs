//! Random legal instructions and random states that mean something to them.
//!
//! An instruction is made from iced's description of its encoding: each operand gets a random register, a memory
//! operand over a register that points into [`DATA`], or an immediate. States mix random bits with the values at
//! which instructions change their mind: zeros, signs, carries, NaNs, infinities, denormals.

use crate::pages::{DATA, DATA_SIZE, TAIL_SIZE};
use calque_ir::{CpuState, GuestAddr};
use fastrand::Rng;
use iced_x86::{
    Code, CodeSize, Encoder, EncodingKind, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpCodeOperandKind,
    OpKind, Register,
};

/// General registers that may be pointers in memory operands; RSP is one in its own right.
const POINTERS: [Register; 4] = [Register::RBX, Register::RSI, Register::RDI, Register::R13];

/// Vector registers that hold small numbers, of 32 and of 64 bits: indices of gathers.
const NARROW_INDICES: Register = Register::XMM14;
const WIDE_INDICES: Register = Register::XMM15;

/// Mnemonics that are lifted but have no place in a comparison with this processor.
fn excluded(m: Mnemonic) -> bool {
    use Mnemonic::*;
    // Control transfer and traps, which the harness has its own use for; the host's business; approximations that
    // each vendor rounds in its own way; XSAVE's images, with components that the guest's processor does not have; selectors and
    // tables that the kernel answers for.
    matches!(
        m,
        Call | Jmp
            | Ret
            | Retf
            | Lsl
            | Lss
            | Lfs
            | Lgs
            | Sgdt
            | Sidt
            | Sldt
            | Smsw
            | Str
            | Syscall
            | Ud2
            | Ud0
            | Ud1
            | Int
            | Int1
            | Int3
            | Iretq
            | Iret
            | Iretd
            | Hlt
            | Cli
            | Sti
            | Jrcxz
            | Jecxz
            | Loop
            | Loope
            | Loopne
            | Cpuid
            | Rdtsc
            | Rdtscp
            | Rdpid
            | Rdrand
            | Rdseed
            | Xgetbv
            | Rdfsbase
            | Rdgsbase
            | Wrfsbase
            | Wrgsbase
            | Rcpps
            | Rcpss
            | Rsqrtps
            | Rsqrtss
            | Vrcpps
            | Vrcpss
            | Vrsqrtps
            | Vrsqrtss
            | Vldmxcsr
            | Fsin
            | Fcos
            | Fsincos
            | Fptan
            | Fpatan
            | F2xm1
            | Fyl2x
            | Fyl2xp1
            | Reservednop
            | Monitor
            | Mwait
            | Rdpmc
            | In
            | Out
            | Insb
            | Insw
            | Insd
            | Outsb
            | Outsw
            | Outsd
            | Popfq
            | Popf
            | Xsave
            | Xsave64
            | Xrstor
            | Xrstor64
            | Xsavec
            | Xsavec64
            | Xsaveopt
            | Clflush
            | Clflushopt
            | Clwb
            | Enter
            | Prefetchwt1
            | Pause
            | Ldmxcsr
    ) || is_conditional_jump(m)
}

/// Mnemonics of which processors of other vendors than AMD do something else that the SDM and the APM leave to them: double shifts of 16 bits by
/// more; SYSENTER in 64-bit mode; flags and masks where a repeated instruction or a gather stops at a fault; which of several NaNs a sum has;
/// x87 pointers without an exception; stores over a page's edge; whether an x87 store that raises an unmasked exception touches memory; OF behind rotations through CF by whole turns.
fn is_by_vendor(m: Mnemonic) -> bool {
    use Mnemonic::*;
    #[rustfmt::skip]
    let by_vendor = matches!(
        m,
        Shld | Shrd | Sysenter | Scasb | Scasw | Scasd | Scasq | Cmpsb | Cmpsw | Cmpsd | Cmpsq | Dppd | Dpps | Vdppd | Vdpps | Vgatherdps
            | Vgatherdpd | Vgatherqps | Vgatherqpd | Vpgatherdd | Vpgatherdq | Vpgatherqd | Vpgatherqq | Fxsave | Fxsave64 | Fbstp
            | Vcvtps2ph | Fnstenv | Fnsave | Rcl | Rcr | Fist | Fistp | Fisttp | Fst | Fstp
    );
    by_vendor
}

/// Whether the processor is AMD's, as the one that Calque is compared with (docs/ISA.md).
pub fn is_amd() -> bool {
    static VENDOR: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    #[cfg(target_arch = "x86_64")]
    let ask = || std::arch::x86_64::__cpuid(0).ebx == u32::from_le_bytes(*b"Auth");
    #[cfg(not(target_arch = "x86_64"))]
    let ask = || false;
    *VENDOR.get_or_init(ask)
}

fn is_conditional_jump(m: Mnemonic) -> bool {
    Code::values().any(|c| c.mnemonic() == m && (c.is_jcc_short() || c.is_jcc_near()))
}

/// The encodings of a mnemonic that 64-bit mode has and this generator can make.
pub fn encodings(m: Mnemonic) -> Vec<Code> {
    if excluded(m) || is_by_vendor(m) && !is_amd() {
        return Vec::new();
    }
    Code::values()
        .filter(|code| {
            let op = code.op_code();
            code.mnemonic() == m
                && op.is_instruction()
                && op.mode64()
                && matches!(op.encoding(), EncodingKind::Legacy | EncodingKind::VEX)
                && (0..op.op_count()).all(|n| can_make(op.op_kind(n)))
        })
        .collect()
}

fn can_make(kind: OpCodeOperandKind) -> bool {
    use OpCodeOperandKind::*;
    matches!(
        kind,
        mem | r8_or_mem
            | r16_or_mem
            | r32_or_mem
            | r64_or_mem
            | mm_or_mem
            | xmm_or_mem
            | r8_reg
            | r8_opcode
            | r16_reg
            | r16_reg_mem
            | r16_rm
            | r16_opcode
            | r32_reg
            | r32_reg_mem
            | r32_rm
            | r32_opcode
            | r64_reg
            | r64_reg_mem
            | r64_rm
            | r64_opcode
            | mm_reg
            | mm_rm
            | xmm_reg
            | xmm_rm
            | xmm_vvvv
            | xmm_is4
            | ymm_or_mem
            | ymm_reg
            | ymm_rm
            | ymm_vvvv
            | ymm_is4
            | r32_vvvv
            | r64_vvvv
            | mem_vsib32x
            | mem_vsib32y
            | mem_vsib64x
            | mem_vsib64y
            | al
            | cl
            | ax
            | dx
            | eax
            | rax
            | st0
            | sti_opcode
            | imm8
            | imm8_const_1
            | imm8sex16
            | imm8sex32
            | imm8sex64
            | imm16
            | imm32
            | imm32sex64
            | imm64
            | seg_rSI
            | es_rDI
            | seg_rDI
            | seg_rBX_al
    )
}

/// Makes instructions and states.
pub struct Generator {
    rng: Rng,
    info: InstructionInfoFactory,
}

impl Generator {
    /// The same seed gives the same sequence.
    pub fn new(seed: u64) -> Self {
        Self { rng: Rng::with_seed(seed), info: InstructionInfoFactory::new() }
    }

    /// One of `items`.
    pub fn choose<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.rng.usize(..items.len())]
    }

    /// A random instance of an encoding, as bytes for `pc`; `None` where the choices don't go together.
    pub fn instruction(&mut self, code: Code, pc: u64) -> Option<Vec<u8>> {
        let mut insn = Instruction::new();
        insn.set_code(code);
        insn.set_code_size(CodeSize::Code64);
        let op = code.op_code();
        let wide = (0..op.op_count()).all(|n| op.op_kind(n) != OpCodeOperandKind::r8_reg);
        for n in 0..op.op_count() {
            self.operand(&mut insn, n, op.op_kind(n), wide);
        }
        let memory = (0..op.op_count()).any(|n| insn.op_kind(n) == OpKind::Memory);
        if memory && code.cpuid_features().contains(&iced_x86::CpuidFeature::SHA) {
            return None; // AMD does not insist on alignment here, Intel does
        }
        if memory && op.can_use_lock_prefix() && insn.op0_kind() == OpKind::Memory && self.rng.u8(..4) == 0 {
            insn.set_has_lock_prefix(true);
        }
        if op.can_use_rep_prefix() && self.rng.bool() {
            insn.set_has_rep_prefix(true);
        } else if op.can_use_repne_prefix() && self.rng.bool() {
            insn.set_has_repne_prefix(true);
        }
        let mut encoder = Encoder::new(64);
        encoder.encode(&insn, pc).ok()?;
        let bytes = encoder.take_buffer();
        let decoded = iced_x86::Decoder::with_ip(64, &bytes, pc, 0).decode();
        (decoded.code() == code && decoded.len() == bytes.len() && self.safe(&decoded)).then_some(bytes)
    }

    /// Memory may only be touched through pointers: a register that the operand also changes the width of is none.
    fn safe(&mut self, insn: &Instruction) -> bool {
        let info = self.info.info(insn);
        info.used_memory().iter().all(|m| m.base() != Register::None && m.segment() != Register::FS)
            || info.used_memory().is_empty()
            || insn.is_ip_rel_memory_operand()
            || insn.memory_base() == Register::None
    }

    fn operand(&mut self, insn: &mut Instruction, n: u32, kind: OpCodeOperandKind, wide: bool) {
        use OpCodeOperandKind::*;
        let memory = match kind {
            mem | mem_vsib32x | mem_vsib32y | mem_vsib64x | mem_vsib64y => true,
            r8_or_mem | r16_or_mem | r32_or_mem | r64_or_mem | mm_or_mem | xmm_or_mem | ymm_or_mem => {
                self.rng.u8(..3) == 0
            }
            _ => false,
        };
        if memory {
            insn.set_op_kind(n, OpKind::Memory);
            match kind {
                mem_vsib32x => self.gathered_operand(insn, NARROW_INDICES),
                mem_vsib32y => self.gathered_operand(insn, NARROW_INDICES + 32),
                mem_vsib64x => self.gathered_operand(insn, WIDE_INDICES),
                mem_vsib64y => self.gathered_operand(insn, WIDE_INDICES + 32),
                _ => self.memory_operand(insn),
            }
            return;
        }
        let fixed = match kind {
            al => Register::AL,
            cl => Register::CL,
            ax => Register::AX,
            dx => Register::DX,
            eax => Register::EAX,
            rax => Register::RAX,
            st0 => Register::ST0,
            _ => Register::None,
        };
        if fixed != Register::None {
            return set_register(insn, n, fixed);
        }
        let number = self.rng.u32(..16);
        match kind {
            r8_reg | r8_opcode | r8_or_mem => set_register(insn, n, self.byte_register(wide)),
            r16_reg | r16_reg_mem | r16_rm | r16_opcode | r16_or_mem => set_register(insn, n, Register::AX + number),
            r32_reg | r32_reg_mem | r32_rm | r32_opcode | r32_or_mem | r32_vvvv => {
                set_register(insn, n, Register::EAX + number)
            }
            r64_reg | r64_reg_mem | r64_rm | r64_opcode | r64_or_mem | r64_vvvv => {
                set_register(insn, n, Register::RAX + number)
            }
            xmm_reg | xmm_rm | xmm_or_mem | xmm_vvvv | xmm_is4 => set_register(insn, n, Register::XMM0 + number),
            ymm_reg | ymm_rm | ymm_or_mem | ymm_vvvv | ymm_is4 => set_register(insn, n, Register::YMM0 + number),
            mm_reg | mm_rm | mm_or_mem => set_register(insn, n, Register::MM0 + number % 8),
            sti_opcode => set_register(insn, n, Register::ST0 + number % 8),
            seg_rSI => insn.set_op_kind(n, OpKind::MemorySegRSI),
            es_rDI => insn.set_op_kind(n, OpKind::MemoryESRDI),
            seg_rDI => insn.set_op_kind(n, OpKind::MemorySegRDI),
            seg_rBX_al => {
                insn.set_op_kind(n, OpKind::Memory);
                insn.set_memory_base(Register::RBX);
                insn.set_memory_index(Register::AL);
            }
            _ => self.immediate(insn, n, kind),
        }
    }

    /// AL to R15B, or one of the high bytes.
    fn byte_register(&mut self, wide: bool) -> Register {
        if wide || self.rng.u8(..4) > 0 { Register::AL + self.rng.u32(..20) } else { Register::AH + self.rng.u32(..4) }
    }

    fn immediate(&mut self, insn: &mut Instruction, n: u32, kind: OpCodeOperandKind) {
        use OpCodeOperandKind::*;
        let v = self.number() as i64;
        let (op_kind, v) = match kind {
            imm8 => (OpKind::Immediate8, i64::from(v as u8)),
            imm8_const_1 => (OpKind::Immediate8, 1),
            imm8sex16 => (OpKind::Immediate8to16, i64::from(v as i8)),
            imm8sex32 => (OpKind::Immediate8to32, i64::from(v as i8)),
            imm8sex64 => (OpKind::Immediate8to64, i64::from(v as i8)),
            imm16 => (OpKind::Immediate16, i64::from(v as u16)),
            imm32 => (OpKind::Immediate32, i64::from(v as u32)),
            imm32sex64 => (OpKind::Immediate32to64, i64::from(v as i32)),
            _ => (OpKind::Immediate64, v),
        };
        // ENTER, EXTRQ and INSERTQ have a second 8-bit immediate in a place of its own.
        let second = kind == imm8 && n > 0 && insn.op_kind(n - 1) == OpKind::Immediate8;
        insn.set_op_kind(n, if second { OpKind::Immediate8_2nd } else { op_kind });
        insn.set_immediate_i64(n, v);
    }

    /// `[pointer + indices*scale + disp]`: a gather.
    fn gathered_operand(&mut self, insn: &mut Instruction, index: Register) {
        insn.set_memory_base(self.choose(&POINTERS));
        insn.set_memory_index(index);
        insn.set_memory_index_scale(1 << self.rng.u32(..4));
        insn.set_memory_displ_size(1);
        insn.set_memory_displacement64(self.rng.i64(-128..128) as u64);
    }

    /// `[pointer + disp]`, `[pointer + index*scale + disp]`, `[rip + disp]`, `[disp]`, or one with 32-bit registers.
    fn memory_operand(&mut self, insn: &mut Instruction) {
        let offset = 512 + self.rng.u64(..DATA_SIZE / 2) as i64;
        let narrow = self.rng.u8(..16) == 0;
        let as_wide = |r: Register| if narrow { r.full_register32() } else { r };
        match self.rng.u8(..8) {
            0 => {
                insn.set_memory_base(Register::RIP);
                insn.set_memory_displ_size(8);
                insn.set_memory_displacement64((DATA as i64 + offset) as u64);
            }
            1 => {
                insn.set_memory_displ_size(4);
                insn.set_memory_displacement64((DATA as i64 + offset) as u64);
                insn.set_memory_base(Register::None);
            }
            with_index => {
                insn.set_memory_base(as_wide(self.choose(&POINTERS)));
                if with_index > 4 {
                    insn.set_memory_index(as_wide(Register::R12)); // small: see `state`
                    insn.set_memory_index_scale(1 << self.rng.u32(..4));
                }
                let disp = self.rng.i64(-256..256);
                let aligned = if self.rng.u8(..4) > 0 { disp & !15 } else { disp };
                insn.set_memory_displ_size(if (-128..128).contains(&aligned) {
                    1
                } else if narrow {
                    4
                } else {
                    8
                });
                insn.set_memory_displacement64(if narrow { aligned as i32 as u32 as u64 } else { aligned as u64 });
            }
        }
    }

    /// A 64-bit number, often near where something happens.
    pub fn number(&mut self) -> u64 {
        let v = match self.rng.u8(..10) {
            0 => 0,
            1 => 1,
            2 => u64::MAX,
            3 => 1 << self.rng.u32(..64),
            4 => (1 << self.rng.u32(..64)) - 1,
            5 => self.rng.u64(..256),
            6 => i64::from(self.rng.i8(..)) as u64,
            7 => u64::from(self.rng.u32(..)) | u64::from(self.rng.u32(..)) << 32,
            8 => i64::from(self.rng.i32(..)) as u64,
            _ => self.rng.u64(..),
        };
        if self.rng.u8(..8) == 0 { v ^ 1 << self.rng.u32(..64) } else { v }
    }

    /// A vector whose lanes mean something as bytes, words or floats.
    fn vector(&mut self) -> [u64; 2] {
        match self.rng.u8(..4) {
            0 => [self.number(), self.number()],
            1 => [self.double().to_bits(), self.double().to_bits()],
            2 => std::array::from_fn(|_| u64::from(self.single().to_bits()) | u64::from(self.single().to_bits()) << 32),
            _ => [self.rng.u64(..), self.rng.u64(..)],
        }
    }

    fn single(&mut self) -> f32 {
        const SPECIAL: [u32; 14] = [
            0,
            0x8000_0000,
            0x3f80_0000,
            0xbf80_0000,
            0x7f80_0000,
            0xff80_0000,
            0x7fc0_0000,
            0xffc0_1234,
            0x7f80_0001,
            0x0000_0001,
            0x807f_ffff,
            0x7f7f_ffff,
            0x4f00_0000,
            0xcf00_0000,
        ];
        match self.rng.u8(..3) {
            0 => f32::from_bits(self.choose(&SPECIAL)),
            1 => f32::from(self.rng.i16(..)) / 8.0,
            _ => f32::from_bits(self.rng.u32(..)),
        }
    }

    fn double(&mut self) -> f64 {
        const SPECIAL: [u64; 16] = [
            0,
            1 << 63,
            0x3ff0_0000_0000_0000,
            0xbff0_0000_0000_0000,
            0x7ff0_0000_0000_0000,
            0xfff0_0000_0000_0000,
            0x7ff8_0000_0000_0000,
            0xfff8_0000_0000_1234,
            0x7ff0_0000_0000_0001,
            1,
            0x800f_ffff_ffff_ffff,
            0x7fef_ffff_ffff_ffff,
            0x41e0_0000_0000_0000,
            0xc1e0_0000_0020_0000,
            0x43e0_0000_0000_0000,
            0x36a0_0000_0000_0000,
        ];
        match self.rng.u8(..3) {
            0 => f64::from_bits(self.choose(&SPECIAL)),
            1 => f64::from(self.rng.i32(..)) / 16.0,
            _ => f64::from_bits(self.rng.u64(..)),
        }
    }

    /// A state: pointers where `memory_operand` expects them, anything elsewhere.
    pub fn state(&mut self) -> CpuState {
        let mut cpu = CpuState::new();
        cpu.gpr = std::array::from_fn(|_| self.number());
        for n in [3, 4, 6, 7, 13] {
            let unaligned = if self.rng.u8(..4) == 0 { self.rng.u64(..16) } else { 0 };
            cpu.gpr[n] = DATA + DATA_SIZE / 2 + self.rng.u64(..64) * 16 + unaligned;
        }
        cpu.gpr[12] = self.rng.u64(..32);
        if self.rng.bool() {
            cpu.gpr[1] = self.rng.u64(..66); // shift and repeat counts
        }
        cpu.set_rflags(self.rng.u64(..) & 0x8d5 | 0x202);
        cpu.xmm = std::array::from_fn(|_| self.vector());
        cpu.set_ymmh(std::array::from_fn(|_| self.vector()));
        for halves in [&mut cpu.xmm, &mut cpu.ymmh] {
            let small = |rng: &mut Rng| rng.u64(..128);
            halves[14] = std::array::from_fn(|_| small(&mut self.rng) | small(&mut self.rng) << 32);
            halves[15] = std::array::from_fn(|_| small(&mut self.rng));
        }
        if self.rng.u8(..4) == 0 {
            cpu.mxcsr |= self.rng.u32(..4) << 13;
        }
        self.x87(&mut cpu);
        cpu.rip = GuestAddr(crate::pages::CODE).0;
        cpu
    }

    /// A state for this code: like [`Generator::state`], but now and then a memory operand lies across an edge of the data
    /// pages, at their start, where the part begins that cannot be written, or at their end.
    pub fn state_for(&mut self, insns: &[Instruction]) -> CpuState {
        let mut cpu = self.state();
        if self.rng.u8(..8) == 0 {
            cpu.set_rflags(cpu.rflags() | 1 << 10);
        }
        self.control(&mut cpu);
        if let [insn] = insns
            && self.rng.u8(..8) == 0
        {
            self.move_to_edge(insn, &mut cpu);
        }
        cpu
    }

    /// Control and status of SSE and x87: any rounding, flushing and denormal mode, exceptions raised before, and one time in
    /// eight some of them unmasked.
    fn control(&mut self, cpu: &mut CpuState) {
        cpu.mxcsr = 0x1f80 | self.rng.u32(..) & 0x3f;
        if self.rng.u8(..2) == 0 {
            cpu.mxcsr |= self.rng.u32(..) & 0xe040;
        }
        if self.rng.u8(..8) == 0 {
            cpu.mxcsr ^= self.rng.u32(..) & 0x1f80;
        }
        if self.rng.u8(..8) == 0 {
            cpu.x87.control ^= self.rng.u16(..) & 0x3f;
        }
        cpu.x87.status |= self.rng.u16(..) & 0x3f;
        // ES and B say that an unmasked exception is pending (SDM vol. 1 8.1.3.3).
        if cpu.x87.status & !cpu.x87.control & 0x3f != 0 {
            cpu.x87.status |= 0x8080;
        }
        let address = |g: &mut Self| g.rng.u64(..1 << 47) | if g.rng.bool() { 0 } else { !0 << 47 };
        let (instruction, operand) = (address(self), address(self));
        cpu.x87.load_pointers(self.rng.u16(..1 << 11), instruction, operand);
    }

    /// Moves a pointer of the instruction.
    fn move_to_edge(&mut self, insn: &Instruction, cpu: &mut CpuState) {
        let used: Vec<_> = self.info.info(insn).used_memory().to_vec();
        let Some(memory) = used.first().copied() else { return };
        let Some(base) = POINTERS.iter().chain(&[Register::RSP]).find(|r| **r == memory.base().full_register()) else {
            return;
        };
        let number = |r: Register| (r.full_register() as u32 - Register::RAX as u32) as usize;
        let index = match memory.index() {
            Register::None => 0,
            index if index.is_gpr() => cpu.gpr[number(index)].wrapping_mul(memory.scale() as u64),
            _ => 0,
        };
        let size = memory.memory_size().size().max(1) as i64;
        // Processors may touch the bytes that a mask leaves out (SDM vol. 2, MASKMOVDQU).
        // MOVSXD to 16 bits reads 16 or 32 by vendor. XLATB's index would lead into the code.
        let by_vendor = matches!(insn.mnemonic(), Mnemonic::Maskmovdqu | Mnemonic::Maskmovq | Mnemonic::Vmaskmovdqu)
            || insn.mnemonic() == Mnemonic::Movsxd && size == 2;
        if by_vendor || insn.mnemonic() == Mnemonic::Xlatb {
            return;
        }
        let writes = !matches!(memory.access(), OpAccess::Read | OpAccess::CondRead);
        // The images of FNSAVE and kin are stored in parts by processors, too.
        let in_parts = writes && size > 32;
        let edges = [DATA + DATA_SIZE, DATA + DATA_SIZE + TAIL_SIZE, DATA];
        let edge = self.choose(&edges[..if in_parts { 2 } else { 3 }]);
        let start = edge.wrapping_add_signed(self.rng.i64(-size - 1..=1));
        let address = if self.rng.bool() { start } else { start & !15 };
        cpu.gpr[number(*base)] = address.wrapping_sub(index).wrapping_sub(memory.displacement());
    }

    /// A few values on the x87 stack, in one of the precisions.
    fn x87(&mut self, cpu: &mut CpuState) {
        let depth = self.rng.u8(..9);
        cpu.x87.top = self.rng.u8(..8);
        for i in 0..depth {
            let at = (cpu.x87.top + i) & 7;
            cpu.x87.regs[usize::from(at)] = self.extended();
            cpu.x87.empty &= !(1 << at);
        }
        if self.rng.u8(..4) == 0 {
            cpu.x87.control = 0x7f | self.choose(&[0, 2, 3]) << 8 | self.rng.u16(..4) << 10;
        }
        cpu.x87.status = self.rng.u16(..) & 0x4700;
    }

    fn extended(&mut self) -> [u64; 2] {
        let sign = u64::from(self.rng.bool()) << 15;
        match self.rng.u8(..6) {
            0 => [0, sign],
            1 => [1 << 63, 0x7fff | sign],
            2 => [0xc000_0000_0000_0000 | self.rng.u64(..1 << 62), 0x7fff | sign],
            3 => [1 << 63 | self.rng.u64(..), self.rng.u64(0..0x7fff) | sign],
            _ => [1 << 63 | self.rng.u64(..), self.rng.u64(0x3fff - 70..0x3fff + 70) | sign],
        }
    }

    /// Contents of the data pages by number.
    pub fn data_of(seed: u64) -> Vec<u8> {
        Self::new(seed).data()
    }

    /// Contents of the data pages.
    pub fn data(&mut self) -> Vec<u8> {
        let mut data = Vec::with_capacity(DATA_SIZE as usize);
        while data.len() < DATA_SIZE as usize {
            for word in self.vector() {
                data.extend(word.to_le_bytes());
            }
        }
        data
    }

    /// Whether an instruction writes a general register or a part of it.
    pub fn writes(&mut self, insn: &Instruction, register: Register) -> bool {
        let write =
            |access| !matches!(access, OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess);
        let used = self.info.info(insn).used_registers();
        used.iter().any(|r| r.register().full_register() == register && write(r.access()))
    }

    /// A random conditional jump, six bytes at `pc`.
    pub fn conditional_jump(&mut self, pc: u64, to: u64) -> Vec<u8> {
        let disp = to.wrapping_sub(pc + 6) as u32;
        let mut bytes = vec![0x0f, 0x80 + self.rng.u8(..16)];
        bytes.extend(disp.to_le_bytes());
        bytes
    }
}

fn set_register(insn: &mut Instruction, n: u32, register: Register) {
    insn.set_op_kind(n, OpKind::Register);
    insn.set_op_register(n, register);
}
