//! PCMPESTRx and PCMPISTRx (SDM vol. 2B 4.1): comparison of two short strings.

use super::simd::{bytes, from_bytes, give, words};
use crate::state::{CpuState, V128};

/// Bit 24 of the argument c: the lengths in bits 8..24 count, else strings end at the first zero.
pub const EXPLICIT: u64 = 1 << 24;
/// Where the result has its flags and the index; the mask (IntRes2) is below.
pub const CARRY_BIT: u32 = 16;
pub const ZERO_BIT: u32 = 17;
pub const SIGN_BIT: u32 = 18;
pub const OVERFLOW_BIT: u32 = 19;
pub const INDEX_SHIFT: u32 = 24;

/// A string: elements as numbers that compare as the immediate says, and how many are valid.
struct Text {
    elements: [i32; 16],
    valid: usize,
}

impl Text {
    /// `count` elements of a register; `length` is the explicit one.
    fn new(v: V128, imm: u64, count: usize, length: Option<i8>) -> Self {
        let mut elements = [0; 16];
        for (i, e) in elements[..count].iter_mut().enumerate() {
            *e = match imm & 3 {
                0 => i32::from(bytes(v)[i]),
                1 => i32::from(words(v)[i]),
                2 => i32::from(bytes(v)[i] as i8),
                _ => i32::from(words(v)[i] as i16),
            };
        }
        let valid = match length {
            Some(n) => usize::from(n.unsigned_abs()).min(count),
            None => elements[..count].iter().position(|e| *e == 0).unwrap_or(count),
        };
        Self { elements, valid }
    }

    fn valid(&self) -> &[i32] {
        &self.elements[..self.valid]
    }
}

/// IntRes1, bit j: by the aggregation operation.
fn aggregate(imm: u64, a: &Text, b: &Text, count: usize, j: usize) -> bool {
    let element = b.valid().get(j);
    match imm >> 2 & 3 {
        0 => element.is_some_and(|e| a.valid().contains(e)),
        1 => element.is_some_and(|e| a.valid().chunks_exact(2).any(|range| (range[0]..=range[1]).contains(e))),
        2 => element == a.valid().get(j),
        _ => a.valid().iter().take(count - j).enumerate().all(|(i, e)| b.valid().get(i + j) == Some(e)),
    }
}

/// The comparison: mask, flags and index as one word.
pub(super) fn pcmpstr(cpu: &mut CpuState, _: u64, _: u64, arg: u64) -> u64 {
    let imm = arg & 0xff;
    let count = if imm & 1 != 0 { 8 } else { 16 };
    let length = |shift: u32| (arg & EXPLICIT != 0).then_some((arg >> shift) as i8);
    let a = Text::new(cpu.scratch[0], imm, count, length(8));
    let b = Text::new(cpu.scratch[1], imm, count, length(16));
    let all = (1u64 << count) - 1;
    let mask = (0..count).fold(0, |mask, j| mask | u64::from(aggregate(imm, &a, &b, count, j)) << j);
    let mask = match imm >> 4 & 3 {
        1 => mask ^ all,
        3 => mask ^ ((1 << b.valid) - 1),
        _ => mask,
    };
    let index = match (mask, imm >> 6 & 1) {
        (0, _) => count as u32,
        (_, 0) => mask.trailing_zeros(),
        _ => 63 - mask.leading_zeros(),
    };
    let flag = |set: bool, bit: u32| u64::from(set) << bit;
    mask | flag(mask != 0, CARRY_BIT)
        | flag(b.valid < count, ZERO_BIT)
        | flag(a.valid < count, SIGN_BIT)
        | flag(mask & 1 != 0, OVERFLOW_BIT)
        | u64::from(index) << INDEX_SHIFT
}

/// The mask as PCMPxSTRM leaves it in XMM0: bits, or bytes or words of ones if the immediate's bit 6 is set.
pub(super) fn pcmpstr_mask(cpu: &mut CpuState, mask: u64, imm: u64, _: u64) -> u64 {
    let width = if imm & 1 != 0 { 2 } else { 1 };
    let r = match imm >> 6 & 1 {
        0 => [mask & 0xffff, 0],
        _ => from_bytes(std::array::from_fn(|i| if mask >> (i / width) & 1 != 0 { 0xff } else { 0 })),
    };
    give(cpu, r)
}
