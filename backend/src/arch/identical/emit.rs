//! The few host instructions that rewritten sequences are made of. None changes a flag (SDM vol. 2: MOV, MOVZX, LEA, PUSH, POP, JMP, JRCXZ).

use super::area::{COUNTERS, TABLE, Words};
use std::mem::offset_of;

/// RCX: the register that sequences use.
pub(super) const RCX: u8 = 1;

/// Displacements of words from the GS base.
pub(super) const SPILL: u32 = offset_of!(Words, spill) as u32;
pub(super) const RIP: u32 = offset_of!(Words, rip) as u32;
pub(super) const EXIT: u32 = offset_of!(Words, exit) as u32;
pub(super) const X87_USED: u32 = offset_of!(Words, x87_used) as u32;
pub(super) const BUDGET: u32 = offset_of!(Words, budget) as u32;

/// Displacement of a counter.
pub(super) fn counter(number: u32) -> u32 {
    COUNTERS as u32 + 8 * number
}

/// Code being written, to run at a known address.
pub(super) struct Code {
    pub(super) bytes: Vec<u8>,
    /// Where `bytes[0]` will run.
    pub(super) base: u64,
}

impl Code {
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Host address of the next byte.
    pub(super) fn here(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn put32(&mut self, word: u32) {
        self.put(&word.to_le_bytes());
    }

    /// `opcode reg, gs:[at]` with a 64-bit operand.
    fn gs64(&mut self, opcode: u8, reg: u8, at: u32) {
        self.put(&[0x65, 0x48 | reg >> 3 << 2, opcode, (reg & 7) << 3 | 4, 0x25]);
        self.put32(at);
    }

    /// `mov gs:[at], reg`
    pub(super) fn save(&mut self, at: u32, reg: u8) {
        self.gs64(0x89, reg, at);
    }

    /// `mov reg, gs:[at]`
    pub(super) fn restore(&mut self, reg: u8, at: u32) {
        self.gs64(0x8b, reg, at);
    }

    /// `pop qword gs:[RIP]`
    pub(super) fn pop_rip(&mut self) {
        self.put(&[0x65, 0x8f, 0x04, 0x25]);
        self.put32(RIP);
    }

    /// `movzx ecx, word gs:[RIP]`: the index of a computed jump.
    pub(super) fn load_index(&mut self) {
        self.put(&[0x65, 0x0f, 0xb7, 0x0c, 0x25]);
        self.put32(RIP);
    }

    /// `jmp gs:[rcx * 8 + TABLE]`
    pub(super) fn jump_landing(&mut self) {
        self.put(&[0x65, 0xff, 0x24, 0xcd]);
        self.put32(TABLE as u32);
    }

    /// `mov dword gs:[at], value`
    pub(super) fn store32(&mut self, at: u32, value: u32) {
        self.put(&[0x65, 0xc7, 0x04, 0x25]);
        self.put32(at);
        self.put32(value);
    }

    /// `mov qword gs:[at], value`, in one or two instructions.
    pub(super) fn store64(&mut self, at: u32, value: u64) {
        if value as i64 == i64::from(value as i32) {
            self.put(&[0x65, 0x48, 0xc7, 0x04, 0x25]);
            self.put32(at);
            self.put32(value as u32);
        } else {
            self.store32(at, value as u32);
            self.store32(at + 4, (value >> 32) as u32);
        }
    }

    /// `mov reg, value`
    pub(super) fn load_constant(&mut self, reg: u8, value: u64) {
        self.put(&[0x48 | reg >> 3, 0xb8 | reg & 7]);
        self.put(&value.to_le_bytes());
    }

    /// `push value`, sign-extended from 32 bits.
    pub(super) fn push32(&mut self, value: u32) {
        self.put(&[0x68]);
        self.put32(value);
    }

    /// `mov dword [rsp + 4], value`
    pub(super) fn store_pushed_high(&mut self, value: u32) {
        self.put(&[0xc7, 0x44, 0x24, 0x04]);
        self.put32(value);
    }

    /// `lea rsp, [rsp + by]`
    pub(super) fn adjust_rsp(&mut self, by: u32) {
        self.put(&[0x48, 0x8d, 0xa4, 0x24]);
        self.put32(by);
    }

    /// `lea rcx, [rcx + by]`, sign-extended.
    pub(super) fn add_rcx(&mut self, by: u32) {
        self.put(&[0x48, 0x8d, 0x89]);
        self.put32(by);
    }

    /// `lea rcx, [rcx + reg]`
    pub(super) fn add_rcx_reg(&mut self, reg: u8) {
        self.put(&[0x48 | reg >> 3 << 1, 0x8d, 0x0c, (reg & 7) << 3 | 1]);
    }

    /// `jmp to`, not to be patched.
    pub(super) fn jump(&mut self, to: u64) {
        self.put(&[0xe9]);
        self.relative(to);
    }

    /// A 32-bit displacement to `to`, at the end of an instruction.
    pub(super) fn relative(&mut self, to: u64) {
        let from = self.here() + 4;
        self.put32(to.wrapping_sub(from) as u32);
    }

    /// Padding in front of an instruction of `opcode` bytes whose 32-bit displacement will be patched: NOPs until the displacement lies in
    /// one aligned 8-byte word.
    pub(super) fn align_patch(&mut self, opcode: usize) -> usize {
        let at = (self.here() as usize + opcode) % 8;
        let pad = if at <= 4 { 0 } else { 8 - at };
        self.put(&[[0x90, 0x90, 0x90], [0x66, 0x90, 0x90], [0x0f, 0x1f, 0x00]][pad.saturating_sub(1)][..pad]);
        pad
    }

    /// Sets the displacement at `at` to lead to host address `to`.
    pub(super) fn patch(&mut self, at: usize, to: u64) {
        let from = self.base + at as u64 + 4;
        self.bytes[at..at + 4].copy_from_slice(&(to.wrapping_sub(from) as u32).to_le_bytes());
    }
}
