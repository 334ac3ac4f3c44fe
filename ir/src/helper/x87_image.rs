//! Memory images of the x87 unit, a word at a time: the environment of FNSTENV (SDM vol. 1 figure 8-9), FNSAVE's
//! registers, FXSAVE's area (SDM vol. 1 table 10-2), and the MMX registers, which alias the significands.

use crate::state::{CpuState, X87};

/// Word `i` (0..3) of the 32-bit environment; the others are pointers.
pub(super) fn env_word(cpu: &mut CpuState, i: u64, _: u64, _: u64) -> u64 {
    let x = &cpu.x87;
    const RESERVED: u32 = 0xffff_0000;
    let word = match i {
        0 => u32::from(x.control) | RESERVED,
        1 => u32::from(x.status_word()) | RESERVED,
        _ => u32::from(x.tag_word()) | RESERVED,
    };
    u64::from(word)
}

/// Sets the environment from its words 0, 1 and 2. The pointers are set apart.
pub(super) fn set_env(cpu: &mut CpuState, control: u64, status: u64, tags: u64) -> u64 {
    let x = &mut cpu.x87;
    x.set_control_word(control as u16);
    x.set_status_word(status as u16);
    x.set_tag_word(tags as u16);
    0
}

/// What FNSTENV does after storing: masks all exceptions.
pub(super) fn mask_all(cpu: &mut CpuState, _: u64, _: u64, _: u64) -> u64 {
    let control = cpu.x87.control | 0x3f;
    cpu.x87.set_control_word(control);
    0
}

fn stack_reg(x: &X87, i: u64) -> usize {
    (usize::from(x.top) + i as usize) & 7
}

/// Significand of ST(i), empty or not.
pub(super) fn reg_low(cpu: &mut CpuState, i: u64, _: u64, _: u64) -> u64 {
    cpu.x87.regs[stack_reg(&cpu.x87, i)][0]
}

/// Sign and exponent of ST(i), empty or not.
pub(super) fn reg_high(cpu: &mut CpuState, i: u64, _: u64, _: u64) -> u64 {
    cpu.x87.regs[stack_reg(&cpu.x87, i)][1] & 0xffff
}

/// Sets ST(i), leaving its tag.
pub(super) fn set_reg(cpu: &mut CpuState, i: u64, low: u64, high: u64) -> u64 {
    let p = stack_reg(&cpu.x87, i);
    cpu.x87.regs[p] = [low, high & 0xffff];
    0
}

/// The first 8 bytes of FXSAVE's area: control word, status word, abridged tags, opcode.
pub(super) fn fxsave_head(cpu: &mut CpuState, code: u64, _: u64, _: u64) -> u64 {
    let x = &cpu.x87;
    let opcode = if x.pending() { x.opcode_of(code) } else { 0 };
    u64::from(x.control) | u64::from(x.status_word()) << 16 | u64::from(!x.empty) << 32 | u64::from(opcode) << 48
}

/// Sets what they hold.
pub(super) fn set_fxsave_head(cpu: &mut CpuState, head: u64, _: u64, _: u64) -> u64 {
    let x = &mut cpu.x87;
    x.set_control_word(head as u16);
    x.set_status_word((head >> 16) as u16);
    x.empty = !(head >> 32) as u8;
    x.opcode = (head >> 48) as u16 & 0x7ff;
    0
}

impl X87 {
    /// Writes what is of the x87 unit in the area of FXSAVE64: bytes 0..24 and 32..160, all zero before.
    ///
    /// # Panics
    /// If `area` is shorter.
    pub fn store_fxsave(&self, area: &mut [u8]) {
        let mut put = |at: usize, bytes: &[u8]| area[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.control.to_le_bytes());
        put(2, &self.status_word().to_le_bytes());
        put(4, &[!self.empty]);
        if self.pending() {
            let pointers = self.pointers();
            put(6, &pointers.opcode.to_le_bytes());
            put(8, &pointers.instruction.to_le_bytes());
            put(16, &pointers.operand.to_le_bytes());
        }
        for i in 0..8 {
            let [mantissa, exponent] = self.regs[stack_reg(self, i)];
            put(32 + 16 * i as usize, &mantissa.to_le_bytes());
            put(40 + 16 * i as usize, &(exponent as u16).to_le_bytes());
        }
    }

    /// Reads it, as FXRSTOR does: whether an exception is pending follows from the control and the status word.
    ///
    /// # Panics
    /// If `area` is shorter than 160 bytes.
    pub fn load_fxsave(&mut self, area: &[u8]) {
        let half = |at: usize| u16::from_le_bytes([area[at], area[at + 1]]);
        let word = |at: usize| u64::from_le_bytes(area[at..at + 8].try_into().expect("eight bytes"));
        self.set_control_word(half(0));
        self.set_status_word(half(2));
        self.empty = !area[4];
        self.load_pointers(half(6), word(8), word(16));
        for i in 0..8 {
            let at = 32 + 16 * i as usize;
            self.regs[stack_reg(self, i)] = [word(at), u64::from(half(at + 8))];
        }
    }
}

/// MMX register `i`.
pub(super) fn mmx_get(cpu: &mut CpuState, i: u64, _: u64, _: u64) -> u64 {
    cpu.x87.regs[i as usize & 7][0]
}

/// Writes MMX register `i`; sign and exponent become ones.
pub(super) fn mmx_set(cpu: &mut CpuState, i: u64, v: u64, _: u64) -> u64 {
    cpu.x87.regs[i as usize & 7] = [v, 0xffff];
    mmx_enter(cpu, 0, 0, 0)
}

/// What every MMX instruction does: resets TOP and marks all registers valid (SDM vol. 1 9.5).
pub(super) fn mmx_enter(cpu: &mut CpuState, _: u64, _: u64, _: u64) -> u64 {
    (cpu.x87.top, cpu.x87.empty) = (0, 0);
    0
}

/// EMMS: all registers empty, TOP 0 (SDM vol. 3 table 13-1).
pub(super) fn emms(cpu: &mut CpuState, _: u64, _: u64, _: u64) -> u64 {
    (cpu.x87.top, cpu.x87.empty) = (0, 0xff);
    0
}
