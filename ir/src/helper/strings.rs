//! PCMPESTRx and PCMPISTRx (SDM vol. 2B 4.1): comparison of two short strings.
//!
//! C libraries search bytes for equal ones with them (strspn, strcasecmp), so that is done 8 bytes at a time; ranges and words
//! go element by element.

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
    /// `count` elements of a register, of which `valid` are.
    fn new(v: V128, imm: u64, count: usize, valid: usize) -> Self {
        let mut elements = [0; 16];
        for (i, e) in elements[..count].iter_mut().enumerate() {
            *e = match imm & 3 {
                0 => i32::from(bytes(v)[i]),
                1 => i32::from(words(v)[i]),
                2 => i32::from(bytes(v)[i] as i8),
                _ => i32::from(words(v)[i] as i16),
            };
        }
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

/// A bit for each byte that is zero.
fn zero_bytes(v: V128) -> u64 {
    const LOW7: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    // Bit 7 of each byte, gathered in the product's top byte: no carries, as the bits land apart.
    let bits = |w: u64| (!(((w & LOW7) + LOW7) | w | LOW7) >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56;
    bits(v[0]) | bits(v[1]) << 8
}

/// A bit for each byte of `v` that is `byte`.
fn bytes_equal(v: V128, byte: u8) -> u64 {
    let all = u64::from(byte) * 0x0101_0101_0101_0101;
    zero_bytes([v[0] ^ all, v[1] ^ all])
}

/// IntRes1 of bytes for the aggregations that look for equal ones; the lengths are of valid bytes.
fn aggregate_bytes(imm: u64, (a, a_valid): (V128, usize), (b, b_valid): (V128, usize)) -> u64 {
    let (a_mask, b_mask) = ((1u64 << a_valid) - 1, (1u64 << b_valid) - 1);
    let needles = || bytes(a).into_iter().take(a_valid);
    match imm >> 2 & 3 {
        0 => needles().fold(0, |mask, byte| mask | bytes_equal(b, byte)) & b_mask,
        2 => zero_bytes([a[0] ^ b[0], a[1] ^ b[1]]) & a_mask & b_mask | !a_mask & !b_mask & 0xffff,
        // What would have to be compared past the end is not.
        _ => needles()
            .enumerate()
            .fold(0xffff, |mask, (i, byte)| mask & ((bytes_equal(b, byte) & b_mask) >> i | !(0xffff >> i))),
    }
}

/// The comparison: mask, flags and index as one word.
pub(super) fn pcmpstr(cpu: &mut CpuState, _: u64, _: u64, arg: u64) -> u64 {
    let imm = arg & 0xff;
    let count = if imm & 1 != 0 { 8 } else { 16 };
    let (a, b) = (cpu.scratch[0], cpu.scratch[1]);
    let length = |v: V128, shift: u32| match arg & EXPLICIT {
        0 if count == 16 => (zero_bytes(v).trailing_zeros() as usize).min(16),
        0 => words(v).iter().position(|e| *e == 0).unwrap_or(8),
        _ => usize::from(((arg >> shift) as i8).unsigned_abs()).min(count),
    };
    let (a_valid, b_valid) = (length(a, 8), length(b, 16));
    let all = (1u64 << count) - 1;
    let mask = match (imm & 1, imm >> 2 & 3) {
        (0, 0 | 2 | 3) => aggregate_bytes(imm, (a, a_valid), (b, b_valid)),
        _ => {
            let (a, b) = (Text::new(a, imm, count, a_valid), Text::new(b, imm, count, b_valid));
            (0..count).fold(0, |mask, j| mask | u64::from(aggregate(imm, &a, &b, count, j)) << j)
        }
    };
    let mask = match imm >> 4 & 3 {
        1 => mask ^ all,
        3 => mask ^ ((1 << b_valid) - 1),
        _ => mask,
    };
    let index = match (mask, imm >> 6 & 1) {
        (0, _) => count as u32,
        (_, 0) => mask.trailing_zeros(),
        _ => 63 - mask.leading_zeros(),
    };
    let flag = |set: bool, bit: u32| u64::from(set) << bit;
    mask | flag(mask != 0, CARRY_BIT)
        | flag(b_valid < count, ZERO_BIT)
        | flag(a_valid < count, SIGN_BIT)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes at once and element by element, over strings of few letters.
    #[test]
    fn bytes_at_once_are_the_same() {
        let mut seed = 1u64;
        let mut letters = || {
            seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            [seed >> 8 & 0x0101_0301_0101_0301, seed >> 9 & 0x0103_0101_0301_0101]
        };
        for n in 0..20_000 {
            let (a, b, imm) = (letters(), letters(), [0b0000, 0b1000, 0b1100][n % 3]);
            let (a_valid, b_valid) = (n / 3 % 17, n / 51 % 17);
            let fast = aggregate_bytes(imm, (a, a_valid), (b, b_valid));
            let (ta, tb) = (Text::new(a, imm, 16, a_valid), Text::new(b, imm, 16, b_valid));
            let slow = (0..16).fold(0, |mask, j| mask | u64::from(aggregate(imm, &ta, &tb, 16, j)) << j);
            assert_eq!(fast, slow, "{imm:#b} {a:x?}:{a_valid} {b:x?}:{b_valid}");
        }
    }
}
