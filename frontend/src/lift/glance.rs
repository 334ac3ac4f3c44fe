//! What an instruction does to the status flags, seen from its bytes alone: for the look-ahead, which asks this of more instructions
//! than are ever lifted and wants to know nothing else of them.
//!
//! Only plain encodings are known here (SDM vol. 2 appendix A: moves, arithmetic, branches, the common SSE moves and arithmetic); for any other
//! [`glance`] has no answer and the decoder is asked. A test compares all answers with the decoder's.

use super::flags::{FlagSet, READS};
use calque_ir::GuestAddr;

/// An instruction's length and what it does to flags.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Glance {
    pub(super) len: usize,
    pub(super) reads: FlagSet,
    /// Always overwritten, or left undefined.
    pub(super) kills: FlagSet,
    /// Whether it changes any.
    pub(super) changes: bool,
    pub(super) next: Next,
}

/// Where control goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    Behind,
    /// At a computed pc.
    Computed,
    /// In the kernel, or in a signal handler.
    Outside,
    At(GuestAddr),
    Called(GuestAddr),
    Both(GuestAddr, GuestAddr),
}

/// Operand bytes behind an opcode.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    None,
    /// An immediate of so many bytes.
    Imm(usize),
    /// 4 bytes, 2 with a 0x66 prefix.
    Immz,
    /// ModRM and what it asks for, then an immediate of so many bytes.
    Modrm(usize),
    /// The same with `Immz`.
    ModrmImmz,
}

const NO_CARRY: FlagSet = FlagSet::ALL.without(FlagSet::CF);

/// The instruction at `pc`, whose bytes are the first of `bytes`; `None` if it is not plain, or not all there.
#[inline]
pub(super) fn glance(bytes: &[u8], pc: GuestAddr) -> Option<Glance> {
    let (mut at, mut narrow, mut wide, mut repeat) = (0, false, false, 0);
    let mut op = loop {
        let byte = *bytes.get(at)?;
        at += 1;
        match byte {
            0x64 | 0x65 => {}
            0x66 => narrow = true,
            0xf2 | 0xf3 if repeat == 0 => repeat = byte,
            // REX counts only right in front of the opcode.
            0x40..=0x4f => {
                wide = byte & 8 != 0;
                let op = *bytes.get(at)?;
                at += 1;
                break op;
            }
            op => break op,
        }
    };
    if op == 0x0f {
        op = *bytes.get(at)?;
        return two_byte(bytes, at + 1, op, pc, narrow, repeat);
    }
    if repeat != 0 {
        return None;
    }
    let modrm = bytes.get(at).copied();
    let reg = modrm.map_or(0, |m| m >> 3 & 7);
    let arithmetic = |n: u8| if n == 2 || n == 3 { FlagSet::CF } else { FlagSet::NONE };
    let (all, none) = (FlagSet::ALL, FlagSet::NONE);
    let (shape, reads, kills) = match op {
        0x00..=0x3f => {
            let shape = match op & 7 {
                0..=3 => Shape::Modrm(0),
                4 => Shape::Imm(1),
                5 => Shape::Immz,
                _ => return None,
            };
            (shape, arithmetic(op >> 3), all)
        }
        0x50..=0x5f | 0x98 | 0x99 => (Shape::None, none, none),
        0x63 | 0x88..=0x8b => (Shape::Modrm(0), none, none),
        0x8d if modrm? < 0xc0 => (Shape::Modrm(0), none, none),
        0x68 => (Shape::Immz, none, none),
        0x6a | 0xb0..=0xb7 => (Shape::Imm(1), none, none),
        0x69 => (Shape::ModrmImmz, none, all),
        0x6b => (Shape::Modrm(1), none, all),
        0x80 | 0x83 => (Shape::Modrm(1), arithmetic(reg), all),
        0x81 => (Shape::ModrmImmz, arithmetic(reg), all),
        0x84 | 0x85 => (Shape::Modrm(0), none, all),
        0xa8 => (Shape::Imm(1), none, all),
        0xa9 => (Shape::Immz, none, all),
        0xb8..=0xbf if wide => (Shape::Imm(8), none, none),
        0xb8..=0xbf => (Shape::Immz, none, none),
        0xc6 if reg == 0 => (Shape::Modrm(1), none, none),
        0xc7 if reg == 0 => (Shape::ModrmImmz, none, none),
        0xf6 if reg < 2 => (Shape::Modrm(1), none, all),
        0xf7 if reg < 2 => (Shape::ModrmImmz, none, all),
        0xf6 | 0xf7 if reg == 2 => (Shape::Modrm(0), none, none),
        0xf6 | 0xf7 => (Shape::Modrm(0), none, all),
        0xfe | 0xff if reg < 2 => (Shape::Modrm(0), none, NO_CARRY),
        0x70..=0x7f if !narrow => return branch(bytes, at, op, pc, 1),
        0xe8 | 0xe9 | 0xeb if !narrow => {
            let (len, target) = target(bytes, at, pc, if op == 0xeb { 1 } else { 4 })?;
            let next = if op == 0xe8 { Next::Called(target) } else { Next::At(target) };
            return Some(Glance { len, reads: none, kills: none, changes: false, next });
        }
        0xc3 if !narrow => {
            return Some(Glance { len: at, reads: none, kills: none, changes: false, next: Next::Computed });
        }
        _ => return None,
    };
    sized(bytes, at, shape, wide, narrow, reads, kills)
}

/// The same behind the byte 0x0f.
fn two_byte(bytes: &[u8], at: usize, op: u8, pc: GuestAddr, narrow: bool, repeat: u8) -> Option<Glance> {
    let (all, none) = (FlagSet::ALL, FlagSet::NONE);
    let plain = repeat == 0;
    let (shape, reads, kills) = match op {
        0x80..=0x8f if plain && !narrow => return branch(bytes, at, op, pc, 4),
        // ENDBR64.
        0x1e if repeat == 0xf3 && !narrow && *bytes.get(at)? == 0xfa => (Shape::Modrm(0), none, none),
        0x1f | 0xb6 | 0xb7 | 0xbe | 0xbf if plain => (Shape::Modrm(0), none, none),
        0xaf if plain => (Shape::Modrm(0), none, all),
        0x40..=0x4f if plain => (Shape::Modrm(0), condition(op), none),
        0x90..=0x9f if plain => (Shape::Modrm(0), condition(op), none),
        // Moves and arithmetic of SSE that every one of the prefixes leaves in this shape.
        0x10 | 0x11 | 0x51 | 0x58 | 0x59 | 0x5c..=0x5f if !narrow || plain => (Shape::Modrm(0), none, none),
        0x28 | 0x29 | 0x54..=0x57 if plain => (Shape::Modrm(0), none, none),
        0x2e | 0x2f if plain => (Shape::Modrm(0), none, all),
        0x6e | 0xd6 | 0xeb | 0xef | 0xfe | 0xd4 | 0x6c if plain && narrow => (Shape::Modrm(0), none, none),
        0x6f | 0x7f if narrow && plain || repeat == 0xf3 && !narrow => (Shape::Modrm(0), none, none),
        _ => return None,
    };
    sized(bytes, at, shape, false, narrow, reads, kills)
}

/// The flags that a condition reads: the low four bits of an opcode (SDM vol. 1 appendix B).
fn condition(op: u8) -> FlagSet {
    READS[usize::from(op >> 1 & 7)]
}

fn branch(bytes: &[u8], at: usize, op: u8, pc: GuestAddr, width: usize) -> Option<Glance> {
    let (len, target) = target(bytes, at, pc, width)?;
    let next = Next::Both(target, pc.wrapping_add(len as u64));
    Some(Glance { len, reads: condition(op), kills: FlagSet::NONE, changes: false, next })
}

/// Length of an instruction that ends in a displacement at `at`, and where that leads.
fn target(bytes: &[u8], at: usize, pc: GuestAddr, width: usize) -> Option<(usize, GuestAddr)> {
    let field = bytes.get(at..at + width)?;
    let displacement = match field {
        &[byte] => i64::from(byte as i8),
        _ => i64::from(i32::from_le_bytes(field.try_into().ok()?)),
    };
    Some((at + width, pc.wrapping_add((at + width) as u64).wrapping_add(displacement as u64)))
}

fn sized(
    bytes: &[u8],
    at: usize,
    shape: Shape,
    wide: bool,
    narrow: bool,
    reads: FlagSet,
    kills: FlagSet,
) -> Option<Glance> {
    let immz = if narrow && !wide { 2 } else { 4 };
    let len = at
        + match shape {
            Shape::None => 0,
            Shape::Imm(n) => n,
            Shape::Immz => immz,
            Shape::Modrm(n) => modrm_len(bytes, at)? + n,
            Shape::ModrmImmz => modrm_len(bytes, at)? + immz,
        };
    // Longer ones are none, and bytes that are not there cannot be fetched.
    let here = len <= bytes.len() && len <= crate::decode::MAX_INSN;
    here.then_some(Glance { len, reads, kills, changes: !kills.is_empty(), next: Next::Behind })
}

/// Length of ModRM, SIB and displacement (SDM vol. 2 table 2-2).
fn modrm_len(bytes: &[u8], at: usize) -> Option<usize> {
    let modrm = *bytes.get(at)?;
    let (mode, rm) = (modrm >> 6, modrm & 7);
    if mode == 3 {
        return Some(1);
    }
    let sib = usize::from(rm == 4);
    let base = if rm == 4 { *bytes.get(at + 1)? & 7 } else { rm };
    let displacement = match mode {
        0 if base == 5 => 4,
        0 => 0,
        1 => 1,
        _ => 4,
    };
    Some(1 + sib + displacement)
}

#[cfg(test)]
mod tests {
    use super::super::ahead;
    use super::*;
    use iced_x86::{Decoder, DecoderOptions};

    /// Whatever there is an answer for: is it the decoder's?
    #[test]
    fn answers_are_the_decoders() {
        let pc = GuestAddr(0x40_0000);
        let prefixes: [&[u8]; 11] = [
            &[],
            &[0x66],
            &[0x48],
            &[0x41],
            &[0x66, 0x48],
            &[0xf2],
            &[0xf3],
            &[0xf3, 0x48],
            &[0x64],
            &[0x66, 0xf2],
            &[0x4f],
        ];
        let mut answers = 0;
        for prefix in prefixes {
            for map in [&[][..], &[0x0f]] {
                for op in 0..=255u8 {
                    for modrm in (0..=255u8).step_by(3).chain([0x04, 0x05, 0x44, 0x84, 0xf8, 0xfa]) {
                        for sib in [0x24, 0x25, 0x90] {
                            let mut bytes = [prefix, map, &[op, modrm, sib]].concat();
                            bytes.extend([0x12, 0xf0, 0x34, 0x80, 0x56, 0x78, 0x9a, 0xbc, 0x11, 0x22, 0x33]);
                            let Some(known) = glance(&bytes, pc) else { continue };
                            let insn = Decoder::with_ip(64, &bytes, pc.0, DecoderOptions::NONE).decode();
                            let decoded = ahead::look(&insn);
                            assert_eq!(Some(known), (!insn.is_invalid()).then_some(decoded), "{bytes:02x?}: {insn}");
                            answers += 1;
                        }
                    }
                }
            }
        }
        assert!(answers > 100_000, "{answers}");
    }

    #[test]
    fn what_is_cut_off_has_no_answer() {
        let add = [0x48, 0x81, 0xc0, 1, 2, 3, 4]; // add rax, imm32
        assert!(glance(&add, GuestAddr(0)).is_some());
        for n in 0..add.len() {
            assert_eq!(glance(&add[..n], GuestAddr(0)), None);
        }
    }
}
