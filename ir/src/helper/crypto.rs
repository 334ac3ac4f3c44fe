//! AES-NI, PCLMULQDQ, GFNI and SHA: one helper an instruction, portable arithmetic. Vector arguments and results are in
//! `cpu.scratch` (see `helper.rs`).
//!
//! The S-boxes are computed when this is compiled, from their definition (FIPS 197 5.1.1).

use super::simd::{bytes, from_bytes, from_singles, give, singles};
use crate::state::CpuState;

/// Product in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1.
const fn gf_mul(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    while b != 0 {
        if b & 1 != 0 {
            product ^= a;
        }
        a = a << 1 ^ if a & 0x80 != 0 { 0x1b } else { 0 };
        b >>= 1;
    }
    product
}

/// The multiplicative inverse: x^254.
const fn gf_inverse(x: u8) -> u8 {
    let (mut result, mut power, mut n) = (1, x, 254);
    while n != 0 {
        if n & 1 != 0 {
            result = gf_mul(result, power);
        }
        power = gf_mul(power, power);
        n >>= 1;
    }
    result
}

const SBOX: [u8; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let b = gf_inverse(i as u8);
        table[i] = b ^ b.rotate_left(1) ^ b.rotate_left(2) ^ b.rotate_left(3) ^ b.rotate_left(4) ^ 0x63;
        i += 1;
    }
    table
};

const INVERSE_SBOX: [u8; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        table[SBOX[i] as usize] = i as u8;
        i += 1;
    }
    table
};

type Block = [u8; 16];

fn xor(a: Block, b: Block) -> Block {
    std::array::from_fn(|i| a[i] ^ b[i])
}

/// ShiftRows and SubBytes: byte (row, column) comes from column + row.
fn sub_shift(s: Block) -> Block {
    std::array::from_fn(|i| SBOX[usize::from(s[(i + 4 * (i % 4)) % 16])])
}

/// The inverses of both.
fn inverse_sub_shift(s: Block) -> Block {
    std::array::from_fn(|i| INVERSE_SBOX[usize::from(s[(i + 16 - 4 * (i % 4)) % 16])])
}

/// Four bytes doubled in GF(2^8).
fn double(w: u32) -> u32 {
    ((w & 0x7f7f_7f7f) << 1) ^ ((w >> 7 & 0x0101_0101) * 0x1b)
}

/// One column times the circulant matrix 2 3 1 1; rotating right brings the next byte down.
fn mix_column(w: u32) -> u32 {
    let doubled = double(w);
    doubled ^ (doubled ^ w).rotate_right(8) ^ w.rotate_right(16) ^ w.rotate_right(24)
}

/// The same for the inverse matrix 14 11 13 9, which is 2 3 1 1 times 5 0 4 0.
fn inverse_mix_column(w: u32) -> u32 {
    let quadrupled = double(double(w));
    mix_column(w ^ quadrupled ^ quadrupled.rotate_right(16))
}

/// Applies a function to each column.
fn columns(s: Block, f: fn(u32) -> u32) -> Block {
    bytes(from_singles(singles(from_bytes(s)).map(f)))
}

/// State and round key.
fn operands(cpu: &CpuState) -> (Block, Block) {
    (bytes(cpu.scratch[0]), bytes(cpu.scratch[1]))
}

/// AESENC.
pub(super) fn aesenc(cpu: &mut CpuState, _: u64, _: u64, _: u64) -> u64 {
    let (state, key) = operands(cpu);
    give(cpu, from_bytes(xor(columns(sub_shift(state), mix_column), key)))
}

/// AESENCLAST.
pub(super) fn aesenclast(cpu: &mut CpuState, _: u64, _: u64, _: u64) -> u64 {
    let (state, key) = operands(cpu);
    give(cpu, from_bytes(xor(sub_shift(state), key)))
}

/// AESDEC.
pub(super) fn aesdec(cpu: &mut CpuState, _: u64, _: u64, _: u64) -> u64 {
    let (state, key) = operands(cpu);
    give(cpu, from_bytes(xor(columns(inverse_sub_shift(state), inverse_mix_column), key)))
}

/// AESDECLAST.
pub(super) fn aesdeclast(cpu: &mut CpuState, _: u64, _: u64, _: u64) -> u64 {
    let (state, key) = operands(cpu);
    give(cpu, from_bytes(xor(inverse_sub_shift(state), key)))
}

/// AESIMC.
pub(super) fn aesimc(cpu: &mut CpuState, _: u64, _: u64, _: u64) -> u64 {
    let state = bytes(cpu.scratch[0]);
    give(cpu, from_bytes(columns(state, inverse_mix_column)))
}

/// AESKEYGENASSIST with round constant b.
pub(super) fn aeskeygenassist(cpu: &mut CpuState, _: u64, constant: u64, _: u64) -> u64 {
    let words = singles(cpu.scratch[0]);
    let substituted = |w: u32| u32::from_le_bytes(w.to_le_bytes().map(|b| SBOX[usize::from(b)]));
    let (x1, x3) = (substituted(words[1]), substituted(words[3]));
    let constant = constant as u32 & 0xff;
    give(cpu, from_singles([x1, x1.rotate_right(8) ^ constant, x3, x3.rotate_right(8) ^ constant]))
}

/// PCLMULQDQ: carry-less product of the halves that c's bits 0 and 4 choose.
pub(super) fn pclmulqdq(cpu: &mut CpuState, _: u64, _: u64, imm: u64) -> u64 {
    let a = u128::from(cpu.scratch[0][(imm & 1) as usize]);
    let b = cpu.scratch[1][(imm >> 4 & 1) as usize];
    let product = (0..64).filter(|i| b >> i & 1 != 0).fold(0u128, |sum, i| sum ^ a << i);
    give(cpu, [product as u64, (product >> 64) as u64])
}

/// GF2P8MULB.
pub(super) fn gf2p8mulb(cpu: &mut CpuState, _: u64, _: u64, _: u64) -> u64 {
    let (a, b) = operands(cpu);
    give(cpu, from_bytes(std::array::from_fn(|i| gf_mul(a[i], b[i]))))
}

/// The bytes of each half of `x` times the bit matrix in that half of `matrices`, plus a constant. Row i of a matrix, which
/// makes bit i, is its byte 7 - i (SDM vol. 2 GF2P8AFFINEQB).
fn affine(x: Block, matrices: [u64; 2], constant: u64) -> [u64; 2] {
    from_bytes(std::array::from_fn(|k| {
        let rows = matrices[k / 8].to_be_bytes();
        let bit = |i: usize| ((rows[i] & x[k]).count_ones() as u8 & 1) << i;
        (0..8).map(bit).sum::<u8>() ^ constant as u8
    }))
}

/// GF2P8AFFINEQB.
pub(super) fn gf2p8affineqb(cpu: &mut CpuState, _: u64, _: u64, constant: u64) -> u64 {
    let x = bytes(cpu.scratch[0]);
    give(cpu, affine(x, cpu.scratch[1], constant))
}

/// GF2P8AFFINEINVQB.
pub(super) fn gf2p8affineinvqb(cpu: &mut CpuState, _: u64, _: u64, constant: u64) -> u64 {
    let x = bytes(cpu.scratch[0]).map(gf_inverse);
    give(cpu, affine(x, cpu.scratch[1], constant))
}

/// Lanes from the most significant down, as the SDM's SHA descriptions name them.
fn down(v: [u64; 2]) -> [u32; 4] {
    let [a, b, c, d] = singles(v);
    [d, c, b, a]
}

fn up([a, b, c, d]: [u32; 4]) -> [u64; 2] {
    from_singles([d, c, b, a])
}

/// SHA1MSG1.
pub(super) fn sha1msg1(cpu: &mut CpuState, _: u64, _: u64, _: u64) -> u64 {
    let [w0, w1, w2, w3] = down(cpu.scratch[0]);
    let [w4, w5, ..] = down(cpu.scratch[1]);
    give(cpu, up([w2 ^ w0, w3 ^ w1, w4 ^ w2, w5 ^ w3]))
}

/// SHA1MSG2.
pub(super) fn sha1msg2(cpu: &mut CpuState, _: u64, _: u64, _: u64) -> u64 {
    let [a0, a1, a2, a3] = down(cpu.scratch[0]);
    let [_, w13, w14, w15] = down(cpu.scratch[1]);
    let w16 = (a0 ^ w13).rotate_left(1);
    let w17 = (a1 ^ w14).rotate_left(1);
    let w18 = (a2 ^ w15).rotate_left(1);
    let w19 = (a3 ^ w16).rotate_left(1);
    give(cpu, up([w16, w17, w18, w19]))
}

/// SHA1NEXTE.
pub(super) fn sha1nexte(cpu: &mut CpuState, _: u64, _: u64, _: u64) -> u64 {
    let [a, ..] = down(cpu.scratch[0]);
    let [w0, w1, w2, w3] = down(cpu.scratch[1]);
    give(cpu, up([w0.wrapping_add(a.rotate_left(30)), w1, w2, w3]))
}

/// SHA1RNDS4: four rounds with the function and constant that c names (FIPS 180-4 4.1.1, 4.2.1).
pub(super) fn sha1rnds4(cpu: &mut CpuState, _: u64, _: u64, imm: u64) -> u64 {
    let [mut a, mut b, mut c, mut d] = down(cpu.scratch[0]);
    let words = down(cpu.scratch[1]);
    let stage = (imm & 3) as usize;
    let constant = [0x5a82_7999, 0x6ed9_eba1, 0x8f1b_bcdc, 0xca62_c1d6u32][stage];
    let mut e = 0u32;
    for w in words {
        let f = match stage {
            0 => b & c ^ !b & d,
            2 => b & c ^ b & d ^ c & d,
            _ => b ^ c ^ d,
        };
        let next = f.wrapping_add(a.rotate_left(5)).wrapping_add(w).wrapping_add(e).wrapping_add(constant);
        (a, b, c, d, e) = (next, a, b.rotate_left(30), c, d);
    }
    give(cpu, up([a, b, c, d]))
}

fn small_sigma0(w: u32) -> u32 {
    w.rotate_right(7) ^ w.rotate_right(18) ^ w >> 3
}

fn small_sigma1(w: u32) -> u32 {
    w.rotate_right(17) ^ w.rotate_right(19) ^ w >> 10
}

/// SHA256MSG1.
pub(super) fn sha256msg1(cpu: &mut CpuState, _: u64, _: u64, _: u64) -> u64 {
    let [w0, w1, w2, w3] = singles(cpu.scratch[0]);
    let [w4, ..] = singles(cpu.scratch[1]);
    let sum = |w: u32, next| w.wrapping_add(small_sigma0(next));
    give(cpu, from_singles([sum(w0, w1), sum(w1, w2), sum(w2, w3), sum(w3, w4)]))
}

/// SHA256MSG2.
pub(super) fn sha256msg2(cpu: &mut CpuState, _: u64, _: u64, _: u64) -> u64 {
    let [a0, a1, a2, a3] = singles(cpu.scratch[0]);
    let [_, _, w14, w15] = singles(cpu.scratch[1]);
    let w16 = a0.wrapping_add(small_sigma1(w14));
    let w17 = a1.wrapping_add(small_sigma1(w15));
    let w18 = a2.wrapping_add(small_sigma1(w16));
    let w19 = a3.wrapping_add(small_sigma1(w17));
    give(cpu, from_singles([w16, w17, w18, w19]))
}

/// SHA256RNDS2: two rounds; a is CDGH, b ABEF, c the two sums of word and constant.
pub(super) fn sha256rnds2(cpu: &mut CpuState, _: u64, _: u64, _: u64) -> u64 {
    let [mut c, mut d, mut g, mut h] = down(cpu.scratch[0]);
    let [mut a, mut b, mut e, mut f] = down(cpu.scratch[1]);
    let [wk0, wk1, ..] = singles(cpu.scratch[2]);
    for wk in [wk0, wk1] {
        let choice = e & f ^ !e & g;
        let majority = a & b ^ a & c ^ b & c;
        let sigma1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let sigma0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let t = choice.wrapping_add(sigma1).wrapping_add(wk).wrapping_add(h);
        let next = t.wrapping_add(majority).wrapping_add(sigma0);
        (a, b, c, d, e, f, g, h) = (next, a, b, c, d.wrapping_add(t), e, f, g);
    }
    give(cpu, up([a, b, e, f]))
}
