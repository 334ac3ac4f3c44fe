//! The few host instructions that rewritten sequences are made of. None changes a flag (SDM vol. 2: MOV, MOVZX, LEA, PUSH, POP, JMP, JRCXZ).

use super::area::{COUNTERS, LOG, RETURN_TABLE, TABLE, Transfer, Words};
use std::mem::offset_of;

/// RCX: the one register that can be compared without flags (JRCXZ).
pub(super) const RCX: u8 = 1;
/// RSP.
const RSP: u8 = 4;
/// R11: the host's is free for sequences; the guest's is in the area (see `mod.rs`).
pub(super) const R11: u8 = 11;

/// Displacements of words from the GS base.
pub(super) const GUEST_R11: u32 = offset_of!(Words, r11) as u32;
pub(super) const SPILL: u32 = offset_of!(Words, spill) as u32;
pub(super) const RIP: u32 = offset_of!(Words, rip) as u32;
pub(super) const EXIT: u32 = offset_of!(Words, exit) as u32;
pub(super) const X87_USED: u32 = offset_of!(Words, x87_used) as u32;
pub(super) const BUDGET: u32 = offset_of!(Words, budget) as u32;
pub(super) const CHECKS: u32 = offset_of!(Words, checks) as u32;
const PENDING: u32 = offset_of!(Words, pending) as u32;
const LOG_LEFT: u32 = offset_of!(Words, log_left) as u32;

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

    /// `pop r11`
    pub(super) fn pop_r11(&mut self) {
        self.put(&[0x41, 0x5b]);
    }

    /// `mov r11, rcx`
    pub(super) fn move_rcx_away(&mut self) {
        self.put(&Self::MOVE_RCX_AWAY);
    }

    pub(super) const MOVE_RCX_AWAY: [u8; 3] = [0x49, 0x89, 0xcb];

    /// `mov rcx, r11`
    pub(super) fn move_rcx_back(&mut self) {
        self.put(&[0x4c, 0x89, 0xd9]);
    }

    /// `movzx r11d, r11b`: the index of a return.
    pub(super) fn take_return_index(&mut self) {
        self.put(&[0x45, 0x0f, 0xb6, 0xdb]);
    }

    /// `push gs:[r11 * 8 + RETURN_TABLE]`
    pub(super) fn push_return_point(&mut self) {
        self.put(&[0x65, 0x42, 0xff, 0x34, 0xdd]);
        self.put32(RETURN_TABLE as u32);
    }

    /// `ret`
    pub(super) fn ret(&mut self) {
        self.put(&[0xc3]);
    }

    /// `mov [rsp - 8], reg`
    pub(super) fn store_below_rsp(&mut self, reg: u8) {
        self.put(&[0x48 | reg >> 3 << 2, 0x89, (reg & 7) << 3 | 0x44, 0x24, 0xf8]);
    }

    /// `movzx r11d, reg` of 16 bits: the index of a computed jump to what it holds.
    pub(super) fn take_index(&mut self, reg: u8) {
        self.put(&[0x44 | reg >> 3, 0x0f, 0xb7, 0xd8 | reg & 7]);
    }

    /// `movzx r11d, word gs:[RIP]`: the index of a computed jump.
    pub(super) fn load_index(&mut self) {
        self.put(&[0x65, 0x44, 0x0f, 0xb7, 0x1c, 0x25]);
        self.put32(RIP);
    }

    /// `jmp gs:[r11 * 8 + TABLE]`
    pub(super) fn jump_landing(&mut self) {
        self.put(&[0x65, 0x42, 0xff, 0x24, 0xdd]);
        self.put32(TABLE as u32);
    }

    /// `mov r11, [address]`, or with FS.
    pub(super) fn load_r11_from(&mut self, address: u64, fs: bool) {
        let moved = address.wrapping_sub(self.here() + 7) as i64;
        if !fs && moved == i64::from(moved as i32) {
            self.put(&[0x4c, 0x8b, 0x1d]);
            return self.put32(moved as u32);
        }
        self.load_constant(R11, address);
        if fs {
            self.put(&[0x64]);
        }
        self.put(&[0x4d, 0x8b, 0x1b]);
    }

    /// `mov reg, [r11]` of so many bytes: 4, zero-extended, or 8.
    pub(super) fn load_at_r11(&mut self, reg: u8, bytes: usize) {
        let wide = if bytes == 8 { 0x08 } else { 0 };
        self.put(&[0x41 | wide | reg >> 3 << 2, 0x8b, (reg & 7) << 3 | 3]);
    }

    /// `mov ecx, [r11 + at]` of 4 bytes, or `movzx` of 2 or 1; `at` is less than 128.
    pub(super) fn load_ecx_at_r11(&mut self, at: u8, bytes: usize) {
        match bytes {
            4 => self.put(&[0x41, 0x8b, 0x4b, at]),
            2 => self.put(&[0x41, 0x0f, 0xb7, 0x4b, at]),
            _ => self.put(&[0x41, 0x0f, 0xb6, 0x4b, at]),
        }
    }

    /// Goes on behind the `jmp` that follows if ECX is `value`: `lea ecx, [rcx - value]` and `jrcxz`.
    pub(super) fn skip_if_ecx_is(&mut self, value: u32) {
        self.put(&[0x8d, 0x89]);
        self.put32(value.wrapping_neg());
        self.put(&[0xe3, 5]);
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

    /// `mov qword [rsp], value`, in one or two instructions.
    pub(super) fn store_pushed(&mut self, value: u64) {
        if value as i64 == i64::from(value as i32) {
            self.put(&[0x48, 0xc7, 0x04, 0x24]);
            self.put32(value as u32);
        } else {
            self.put(&[0xc7, 0x04, 0x24]);
            self.put32(value as u32);
            self.put(&[0xc7, 0x44, 0x24, 0x04]);
            self.put32((value >> 32) as u32);
        }
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

    /// `lea r11, [r11 + by]`, sign-extended.
    fn add_r11(&mut self, by: u32) {
        self.put(&[0x4d, 0x8d, 0x9b]);
        self.put32(by);
    }

    /// Adds to a word, through R11.
    fn add(&mut self, at: u32, by: u32) {
        self.restore(R11, at);
        self.add_r11(by);
        self.save(at, R11);
    }

    /// Counts in a counter.
    pub(super) fn count_in(&mut self, number: u32) {
        self.add(counter(number), 1);
    }

    /// Adds `n` instructions to what the next transfer in the log is told of.
    pub(super) fn count_insns(&mut self, n: u32) {
        self.add(PENDING, n);
    }

    /// Writes a transfer into the log with `n` instructions up to it; the offset of the displacement of a JRCXZ that is taken if the log
    /// is full now. RCX is spilled. If the target is computed, it is at `Area::rip`, and then in R11.
    pub(super) fn log(&mut self, n: u32, number: u32, is_computed: bool) -> usize {
        self.restore(R11, PENDING);
        self.add_r11(n);
        self.store64(PENDING, 0);
        self.save(SPILL, RCX);
        self.restore(RCX, LOG_LEFT);
        self.save_to_log(offset_of!(Transfer, insns), R11);
        self.save_to_log(offset_of!(Transfer, sp), RSP);
        // mov dword gs:[rcx + number's], number
        self.put(&[0x65, 0xc7, 0x81]);
        self.put32(Self::in_log(offset_of!(Transfer, number)));
        self.put32(number);
        if is_computed {
            self.restore(R11, RIP);
            self.save_to_log(offset_of!(Transfer, target), R11);
        }
        self.add_rcx((size_of::<Transfer>() as u32).wrapping_neg());
        self.save(LOG_LEFT, RCX);
        self.put(&[0xe3, 0]);
        self.len() - 1
    }

    /// Displacement of a field of the next entry from RCX.
    fn in_log(field: usize) -> u32 {
        (LOG + field - size_of::<Transfer>()) as u32
    }

    /// `mov gs:[rcx + entry's field], reg`
    fn save_to_log(&mut self, field: usize, reg: u8) {
        self.put(&[0x65, 0x48 | reg >> 3 << 2, 0x89, (reg & 7) << 3 | 0x81]);
        self.put32(Self::in_log(field));
    }

    /// Has the JRCXZ with its displacement at `at` lead here.
    pub(super) fn land_short(&mut self, at: usize) {
        self.bytes[at] = i8::try_from(self.len() - at - 1).expect("a short way") as u8;
    }

    /// Goes on behind itself if `Area::rip` is `pc`, else at `other`. RCX, which is in R11 meanwhile, is not moved back.
    pub(super) fn check_rip(&mut self, pc: u64, other: u64) {
        let minus = pc.wrapping_neg();
        if minus as i64 == i64::from(minus as i32) {
            self.restore(RCX, RIP);
            // A REX prefix: the whole of RCX.
            self.put(&[0x48]);
            self.skip_if_ecx_is(pc as u32);
            self.jump(other);
        } else {
            for (at, half) in [(RIP + 4, (pc >> 32) as u32), (RIP, pc as u32)] {
                // mov ecx, gs:[at]
                self.put(&[0x65, 0x8b, 0x0c, 0x25]);
                self.put32(at);
                self.skip_if_ecx_is(half);
                self.jump(other);
            }
        }
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
