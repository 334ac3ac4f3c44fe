//! The few host instructions that rewritten sequences are made of. None changes a flag (SDM vol. 2: MOV, MOVZX, LEA, PUSH, POP, JMP, JRCXZ, NOT,
//! BSWAP, CRC32, VMOVQ, VMOVDQU64, VMOVHPD, VPINSRQ, VPADDQ, VPSUBQ, KMOVQ).

use super::area::{COUNTERS, RETURN_TABLE, SLOT_TABLE, TABLE, Way, Words, addend};
use crate::shadow::{Edge, Frame};
use std::mem::offset_of;

/// RCX: the one register that can be compared without flags (JRCXZ).
pub(super) const RCX: u8 = 1;
/// RSP.
pub(super) const RSP: u8 = 4;
/// R10, for what needs one more register.
pub(super) const R10: u8 = 10;
/// R11: the host's is free for sequences; the guest's is in the area (see `mod.rs`).
pub(super) const R11: u8 = 11;

/// Displacements of words from the GS base.
pub(super) const GUEST_R11: u32 = offset_of!(Words, r11) as u32;
pub(super) const SPILL: u32 = offset_of!(Words, spill) as u32;
pub(super) const CPU: u32 = offset_of!(Words, cpu) as u32;
pub(super) const RIP: u32 = offset_of!(Words, rip) as u32;
pub(super) const BELOW: u32 = offset_of!(Words, below) as u32;
pub(super) const X87_USED: u32 = offset_of!(Words, x87_used) as u32;
pub(super) const BUDGET: u32 = offset_of!(Words, budget) as u32;
pub(super) const CHECKS: u32 = offset_of!(Words, checks) as u32;
pub(super) const SPILL_R10: u32 = offset_of!(Words, spills) as u32;
pub(super) const SPILL_RAX: u32 = SPILL_R10 + 8;
pub(super) const SPILL_RDX: u32 = SPILL_R10 + 16;
pub(super) const FLAGS: u32 = SPILL_R10 + 24;
pub(super) const HANDLERS: u32 = offset_of!(Words, handlers) as u32;
pub(super) const SUM: u32 = offset_of!(Words, sum) as u32;
pub(super) const FRAME: u32 = offset_of!(Words, frame) as u32;
pub(super) const POINT: u32 = offset_of!(Words, point) as u32;
pub(super) const FOUND: u32 = offset_of!(Words, found) as u32;
pub(super) const SP: u32 = offset_of!(Words, sp) as u32;
pub(super) const TRANSFER: u32 = offset_of!(Words, transfer) as u32;
pub(super) const LAST_RETURN: u32 = offset_of!(Words, last_return) as u32;
pub(super) const STRAYED: u32 = offset_of!(Words, strayed) as u32;

/// From the last frame, the edge of the one that is being made behind it.
pub(super) const NEW_EDGE: usize = size_of::<Frame>() + offset_of!(Frame, edge);

/// Displacement of a counter.
pub(super) fn counter(number: u32) -> u32 {
    COUNTERS as u32 + 8 * number
}

/// Where profiled units have the address of the last frame and the thread's sum of instructions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sum {
    /// In `Words::frame` and `Words::sum`: each change waits for the one before to go through memory.
    InMemory,
    /// In XMM16, as a pair, which guests do not have: no host announces AVX-512 to them.
    InRegister,
}

impl Sum {
    /// What is faster on this host.
    pub fn of_host() -> Sum {
        let has_all = std::arch::is_x86_feature_detected!("avx512vl")
            && std::arch::is_x86_feature_detected!("avx512dq")
            && std::arch::is_x86_feature_detected!("avx512bw");
        if has_all { Sum::InRegister } else { Sum::InMemory }
    }
}

/// Code being written, to run at a known address.
pub(super) struct Code {
    pub(super) bytes: Vec<u8>,
    pub(super) sum: Sum,
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

    /// `movzx r11d, byte gs:[RIP]`: the index of a return.
    pub(super) fn load_return_index(&mut self) {
        self.put(&[0x65, 0x44, 0x0f, 0xb6, 0x1c, 0x25]);
        self.put32(RIP);
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

    /// `mov r11, gs:[BELOW]; mov [rsp - 8], r11`: after a return.
    pub(super) fn put_back_below(&mut self) {
        self.restore(R11, BELOW);
        self.put(&[0x4c, 0x89, 0x5c, 0x24, 0xf8]);
    }

    /// `mov r11, [rsp - 8]`
    pub(super) fn load_r11_below_rsp(&mut self) {
        self.put(&[0x4c, 0x8b, 0x5c, 0x24, 0xf8]);
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

    /// Whether displacements from RIP reach `address` from all of the next instructions.
    pub(super) fn reaches_far(&self, address: u64) -> bool {
        let reaches = |at: u64| i32::try_from(address.wrapping_sub(at) as i64).is_ok();
        reaches(self.here()) && reaches(self.here() + 64)
    }

    /// `mov rcx, [address]`
    pub(super) fn load_rcx_from(&mut self, address: u64) {
        self.put(&[0x48, 0x8b, 0x0d]);
        self.relative(address);
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

    /// Bytes of a stub.
    pub(super) const STUB: usize = 11;

    /// `mov r11d, exit; jmp link`
    pub(super) fn stub(&mut self, exit: u32, link: u64) {
        self.put(&[0x41, 0xbb]);
        self.put32(exit);
        self.jump(link);
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

    /// `mov qword [rsp], value`, by R11 if the value is a long one; whether R11 is lost. It is one store, which the return's POP is forwarded
    /// from: after two it would wait for both of them to be in the cache.
    pub(super) fn store_pushed(&mut self, value: u64) -> bool {
        let is_short = value as i64 == i64::from(value as i32);
        if is_short {
            self.put(&[0x48, 0xc7, 0x04, 0x24]);
            self.put32(value as u32);
        } else {
            self.load_constant(R11, value);
            self.put(&[0x4c, 0x89, 0x1c, 0x24]);
        }
        !is_short
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

    /// Adds `n` instructions to the thread's sum.
    pub(super) fn count_insns(&mut self, n: u32) {
        match self.sum {
            Sum::InMemory => self.add(SUM, n),
            Sum::InRegister => self.add_pair(Way::Nowhere, n),
        }
    }

    /// `vpaddq xmm16, xmm16, gs:[the pair]`
    fn add_pair(&mut self, way: Way, n: u32) {
        self.put(&[0x65, 0x62, 0xe1, 0xfd, 0x00, 0xd4, 0x04, 0x25]);
        self.put32(addend(way, n));
    }

    /// Adds `n` instructions to the thread's sum, and makes the frame on this way the last one: R10.
    pub(super) fn count_and_go(&mut self, way: Way, n: u32) {
        match self.sum {
            Sum::InMemory => {
                self.add(SUM, n);
                self.load_frame();
                self.go(way);
            }
            Sum::InRegister => {
                self.add_pair(way, n);
                self.load_frame();
            }
        }
    }

    /// Makes the frame that is on this way from R10 the last one: R10.
    pub(super) fn go(&mut self, way: Way) {
        // lea r10, [r10 + by]
        self.put(&[0x4d, 0x8d, 0x52, way.bytes() as u8]);
        match self.sum {
            Sum::InMemory => self.save(FRAME, R10),
            Sum::InRegister => self.add_pair(way, 0),
        }
    }

    /// Stores the sum to the frame at R10, the last one; RCX is lost.
    pub(super) fn enter_frame(&mut self) {
        match self.sum {
            Sum::InMemory => {
                self.restore(RCX, SUM);
                self.store(R10, offset_of!(Frame, entered), RCX);
            }
            Sum::InRegister => {
                // vmovdqu64 [r10 + own], xmm16
                self.put(&[0x62, 0xc1, 0xfe, 0x08, 0x7f, 0x82]);
                self.put32(offset_of!(Frame, own) as u32);
            }
        }
    }

    /// Adds the call of the frame behind the one at R10, which is the last again, and what has been executed since, to its edge; RCX and R11 are
    /// lost.
    pub(super) fn leave_frame(&mut self) {
        self.load(R11, R10, NEW_EDGE);
        match self.sum {
            Sum::InMemory => {
                self.load(RCX, R11, offset_of!(Edge, calls));
                self.add_rcx(i32::from(Way::ToPrevious.bytes()) as u32);
                self.store(R11, offset_of!(Edge, calls), RCX);
                self.load(RCX, R10, size_of::<Frame>() + offset_of!(Frame, entered));
                self.complement_rcx();
                self.restore(R11, SUM);
                self.subtract_from_r11();
                self.load(R11, R10, NEW_EDGE);
                self.save(SPILL_RAX, R10);
                self.load(R10, R11, offset_of!(Edge, insns));
                self.add_rcx_to_r10();
                self.store(R11, offset_of!(Edge, insns), R10);
                self.restore(R10, SPILL_RAX);
            }
            Sum::InRegister => {
                // vpsubq xmm18, xmm16, [r10 + own of the next]
                self.put(&[0x62, 0xc1, 0xfd, 0x00, 0xfb, 0x92]);
                self.put32((size_of::<Frame>() + offset_of!(Frame, own)) as u32);
                // vpaddq xmm18, xmm18, [r11 + calls]
                self.put(&[0x62, 0xc1, 0xed, 0x00, 0xd4, 0x93]);
                self.put32(offset_of!(Edge, calls) as u32);
                // vmovdqu64 [r11 + calls], xmm18
                self.put(&[0x62, 0xc1, 0xfe, 0x08, 0x7f, 0x93]);
                self.put32(offset_of!(Edge, calls) as u32);
            }
        }
    }

    /// Takes RCX and R10 away from the guest.
    pub(super) fn spill(&mut self) {
        match self.sum {
            Sum::InMemory => {
                self.save(SPILL, RCX);
                self.save(SPILL_R10, R10);
            }
            // kmovq k1, rcx; kmovq k2, r10
            Sum::InRegister => self.put(&[0xc4, 0xe1, 0xfb, 0x92, 0xc9, 0xc4, 0xc1, 0xfb, 0x92, 0xd2]),
        }
    }

    /// Gives them back.
    pub(super) fn unspill(&mut self) {
        match self.sum {
            Sum::InMemory => {
                self.restore(R10, SPILL_R10);
                self.restore(RCX, SPILL);
            }
            Sum::InRegister => self.put(&Self::UNSPILL),
        }
    }

    /// `kmovq r10, k2; kmovq rcx, k1`
    pub(super) const UNSPILL: [u8; 10] = [0xc4, 0x61, 0xfb, 0x93, 0xd2, 0xc4, 0xe1, 0xfb, 0x93, 0xc9];

    /// `vpinsrq xmm16, xmm16, r10, 0`
    pub(super) const SET_FRAME: [u8; 7] = [0x62, 0xc3, 0xfd, 0x00, 0x22, 0xc2, 0];

    /// `vmovhpd gs:[SUM], xmm16`
    pub(super) const SAVE_SUM: [u8; 12] = {
        let [a, b, c, d] = SUM.to_le_bytes();
        [0x65, 0x62, 0xe1, 0xfd, 0x08, 0x17, 0x04, 0x25, a, b, c, d]
    };

    /// `opcode reg, [base + at]` with a 64-bit operand; no base that needs more than its number (RSP, R12).
    fn based(&mut self, opcode: u8, reg: u8, base: u8, at: usize) {
        self.put(&[0x48 | reg >> 3 << 2 | base >> 3, opcode]);
        self.operand(reg, base, at);
    }

    /// ModRM and displacement of `[base + at]`.
    fn operand(&mut self, reg: u8, base: u8, at: usize) {
        let registers = (reg & 7) << 3 | base & 7;
        match i8::try_from(at as isize) {
            Ok(short) => self.put(&[0x40 | registers, short as u8]),
            Err(_) => {
                self.put(&[0x80 | registers]);
                self.put32(at as u32);
            }
        }
    }

    /// `mov reg, [base + at]`
    pub(super) fn load(&mut self, reg: u8, base: u8, at: usize) {
        self.based(0x8b, reg, base, at);
    }

    /// `mov [base + at], reg`
    pub(super) fn store(&mut self, base: u8, at: usize, reg: u8) {
        self.based(0x89, reg, base, at);
    }

    /// `mov qword [r10 + at], value`, in one or two instructions.
    pub(super) fn store64_at_r10(&mut self, at: usize, value: u64) {
        if value as i64 == i64::from(value as i32) {
            self.put(&[0x49, 0xc7]);
            self.operand(0, R10, at);
            return self.put32(value as u32);
        }
        for (at, half) in [(at, value as u32), (at + 4, (value >> 32) as u32)] {
            self.put(&[0x41, 0xc7]);
            self.operand(0, R10, at);
            self.put32(half);
        }
    }

    /// The last frame to R10.
    pub(super) fn load_frame(&mut self) {
        match self.sum {
            Sum::InMemory => self.restore(R10, FRAME),
            // vmovq r10, xmm16
            Sum::InRegister => self.put(&[0x62, 0xc1, 0xfd, 0x08, 0x7e, 0xc2]),
        }
    }

    /// `lea rcx, [r11 + r11]; not rcx`: the place of a call whose return address is at R11.
    pub(super) fn take_place(&mut self) {
        self.put(&[0x4b, 0x8d, 0x0c, 0x1b]);
        self.complement_rcx();
    }

    /// `not rcx`
    fn complement_rcx(&mut self) {
        self.put(&[0x48, 0xf7, 0xd1]);
    }

    /// `mov rcx, [r10 + way + place]; mov r11, rsp; lea rcx, [rcx + r11 * 2 + by]`
    pub(super) fn compare_place(&mut self, way: Way, by: i8) {
        self.load(RCX, R10, offset_of!(Frame, place).wrapping_add_signed(way.bytes().into()));
        self.put(&[0x49, 0x89, 0xe3, 0x4a, 0x8d, 0x4c, 0x59, by as u8]);
    }

    /// `lea rcx, [rcx + r11 + 1]`: less the number whose complement was in RCX.
    pub(super) fn subtract_from_r11(&mut self) {
        self.put(&[0x4a, 0x8d, 0x4c, 0x19, 1]);
    }

    /// `lea r10, [r10 + rcx]`
    pub(super) fn add_rcx_to_r10(&mut self) {
        self.put(&[0x4d, 0x8d, 0x14, 0x0a]);
    }

    /// `push r11`
    pub(super) fn push_r11(&mut self) {
        self.put(&[0x41, 0x53]);
    }

    /// Makes RCX 0 if it is negative, by more than -2^56, and something else if it is not.
    pub(super) fn is_negative(&mut self) {
        // bswap rcx; lea ecx, [rcx + 1]; movzx ecx, cl
        self.put(&[0x48, 0x0f, 0xc9, 0x8d, 0x49, 1, 0x0f, 0xb6, 0xc9]);
    }

    /// Makes RCX 0 if what is in R11 is from `low` to below `high`; R11 is lost.
    pub(super) fn is_between(&mut self, low: u64, high: u64) {
        let signed = |value: u64| value as i64 == i64::from(value as i32);
        if signed(low.wrapping_neg()) && signed(high) {
            // lea rcx, [r11 - low]; not r11; lea r11, [r11 + high]
            self.put(&[0x49, 0x8d, 0x8b]);
            self.put32(low.wrapping_neg() as u32);
            self.put(&[0x49, 0xf7, 0xd3]);
            self.add_r11(high as u32);
        } else {
            // lea rcx, [rcx + r11]; not r11; and the like
            self.load_constant(RCX, low.wrapping_neg());
            self.put(&[0x4a, 0x8d, 0x0c, 0x19]);
            self.put(&[0x49, 0xf7, 0xd3]);
            self.save(FOUND, RCX);
            self.load_constant(RCX, high);
            self.put(&[0x4e, 0x8d, 0x1c, 0x19]);
            self.restore(RCX, FOUND);
        }
        // bswap rcx; movzx ecx, cl; bswap r11; movzx r11d, r11b; lea ecx, [rcx + r11]
        self.put(&[
            0x48, 0x0f, 0xc9, 0x0f, 0xb6, 0xc9, 0x49, 0x0f, 0xcb, 0x45, 0x0f, 0xb6, 0xdb, 0x42, 0x8d, 0x0c, 0x19,
        ]);
    }

    /// The chain of edges in the context of the frame that is on this way from R10 for this transfer, to where R11 says: its first to R11.
    pub(super) fn load_hashed_edge(&mut self, number: u32, way: Way) {
        // mov ecx, number; crc32 rcx, r11; movzx ecx, cl; movzx ecx, byte gs:[rcx + table]
        self.put(&[0xb9]);
        self.put32(number);
        self.put(&[0xf2, 0x49, 0x0f, 0x38, 0xf1, 0xcb, 0x0f, 0xb6, 0xc9, 0x65, 0x0f, 0xb6, 0x89]);
        self.put32(SLOT_TABLE as u32);
        self.load_context(way);
        // mov r11, [r11 + rcx * 8]
        self.put(&[0x4d, 0x8b, 0x1c, 0xcb]);
    }

    /// The chain of a linkage stub's jumps behind the last call, whose frame is at R10: its first to R11.
    pub(super) fn load_edge_behind(&mut self) {
        self.load(R11, R10, offset_of!(Frame, edge));
        self.load(R11, R11, offset_of!(Edge, behind));
    }

    fn load_context(&mut self, way: Way) {
        self.load(R11, R10, offset_of!(Frame, context).wrapping_add_signed(way.bytes().into()));
    }

    /// As `load_hashed_edge`, by a known slot.
    pub(super) fn load_edge(&mut self, slot: usize, way: Way) {
        self.load_context(way);
        self.load(R11, R11, 8 * slot);
    }

    /// Makes RCX 0 if the edge at R11 is of this transfer.
    pub(super) fn is_edge_of(&mut self, number: u32) {
        // mov ecx, [r11]; lea ecx, [rcx - number]
        const _: () = assert!(offset_of!(Edge, number) == 0);
        self.put(&[0x41, 0x8b, 0x0b, 0x8d, 0x89]);
        self.put32(number.wrapping_neg());
    }

    /// Has the JRCXZ with its displacement at `at` lead here.
    pub(super) fn land_short(&mut self, at: usize) {
        self.bytes[at] = i8::try_from(self.len() - at - 1).expect("a short way") as u8;
    }

    /// `mov r11d, gs:[from]; mov gs:[to], r11d`
    pub(super) fn copy32(&mut self, to: u32, from: u32) {
        for (opcode, at) in [(0x8b, from), (0x89, to)] {
            self.put(&[0x65, 0x44, opcode, 0x1c, 0x25]);
            self.put32(at);
        }
    }

    /// A jump unless RCX is 0, to be led somewhere by `patch`; the offset of its displacement.
    pub(super) fn jump_unless_zero(&mut self) -> usize {
        self.put(&[0xe3, 5, 0xe9, 0, 0, 0, 0]);
        self.len() - 4
    }

    /// Goes on behind itself if RCX, which is lost, is `near`; else by a jump to be led somewhere by `patch`: the offset of its displacement.
    pub(super) fn skip_if_rcx_is(&mut self, near: u64) -> usize {
        // A REX prefix: the whole of RCX.
        self.put(&[0x48]);
        self.skip_if_ecx_is(near as u32);
        self.put(&[0xe9, 0, 0, 0, 0]);
        self.len() - 4
    }

    /// Whether RCX is compared with `pc` in one go.
    pub(super) fn is_near(pc: u64) -> bool {
        let minus = pc.wrapping_neg();
        minus as i64 == i64::from(minus as i32)
    }

    /// Goes on behind itself if `Area::rip`, which is in RCX, too, is `pc`, else at `other`. RCX, whose value is in R11 meanwhile, is not moved back.
    pub(super) fn check_rip(&mut self, pc: u64, other: u64) {
        if Self::is_near(pc) {
            let at = self.skip_if_rcx_is(pc);
            self.patch(at, other);
        } else {
            self.skip_if_ecx_is(pc as u32);
            self.jump(other);
            // mov ecx, gs:[RIP + 4]
            self.put(&[0x65, 0x8b, 0x0c, 0x25]);
            self.put32(RIP + 4);
            self.skip_if_ecx_is((pc >> 32) as u32);
            self.jump(other);
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
