//! Helpers that this processor has instructions for: the same results as the portable bodies in
//! `ir/src/helper/crypto.rs`, an order of magnitude faster.
//!
//! AESE and AESD add their key first, x86's last: they get a zero key here, and the round key is added behind.
//!
//! # Safety
//! Functions with a target feature are only reached through [`accelerated`], which asks for the feature. Vectors are
//! copied from and to `cpu.scratch` by value.

#![allow(unsafe_code)]

use calque_ir::helper::HelperEntry;
use calque_ir::{CpuState, Helper};
use std::arch::aarch64::*;
use std::arch::is_aarch64_feature_detected;

#[inline]
fn get(cpu: &CpuState, slot: usize) -> uint8x16_t {
    // SAFETY: 16 bytes of plain data both ways.
    unsafe { std::mem::transmute(cpu.scratch[slot]) }
}

#[inline]
fn put(cpu: &mut CpuState, v: uint8x16_t) -> u64 {
    // SAFETY: 16 bytes of plain data both ways.
    cpu.scratch[0] = unsafe { std::mem::transmute::<uint8x16_t, [u64; 2]>(v) };
    0
}

/// Lanes of 32 bits.
#[inline]
fn lanes(cpu: &CpuState, slot: usize) -> uint32x4_t {
    // SAFETY: 16 bytes of plain data both ways.
    unsafe { std::mem::transmute(cpu.scratch[slot]) }
}

/// The same in the opposite order, as SHA-1 has them.
#[target_feature(enable = "neon")]
fn reversed(v: uint32x4_t) -> uint32x4_t {
    let v = vrev64q_u32(v);
    vextq_u32::<2>(v, v)
}

/// SHA256RNDS2; see `lower/inline.rs`.
#[target_feature(enable = "neon,sha2")]
fn two_rounds(cdgh: uint32x4_t, abef: uint32x4_t, words: uint32x4_t) -> uint32x4_t {
    let pairs = |v| vreinterpretq_u64_u32(vrev64q_u32(v));
    let lanes = vreinterpretq_u32_u64;
    let (ghcd, efab) = (pairs(cdgh), pairs(abef));
    let (abcd, efgh) = (lanes(vzip2q_u64(efab, ghcd)), lanes(vzip1q_u64(efab, ghcd)));
    let new_abcd = vreinterpretq_u64_u32(vsha256hq_u32(abcd, efgh, words));
    let new_efgh = vreinterpretq_u64_u32(vsha256h2q_u32(efgh, abcd, words));
    vrev64q_u32(lanes(vzip2q_u64(new_efgh, new_abcd)))
}

/// SHA256MSG2.
#[target_feature(enable = "neon,sha2")]
fn message_2(a: uint32x4_t, b: uint32x4_t) -> uint32x4_t {
    let zero = vdupq_n_u64(0);
    let upper = vzip2q_u64(zero, vreinterpretq_u64_u32(b));
    vsha256su1q_u32(a, vreinterpretq_u32_u64(zero), vreinterpretq_u32_u64(upper))
}

/// SHA1RNDS4: the first word has E in it; functions and constants of FIPS 180-4 4.1.1, 4.2.1.
#[target_feature(enable = "neon,sha2")]
fn four_rounds(dcba: uint32x4_t, words: uint32x4_t, imm: u64) -> uint32x4_t {
    const CONSTANTS: [u32; 4] = [0x5a82_7999, 0x6ed9_eba1, 0x8f1b_bcdc, 0xca62_c1d6];
    let which = (imm & 3) as usize;
    let (abcd, words) = (reversed(dcba), vaddq_u32(reversed(words), vdupq_n_u32(CONSTANTS[which])));
    reversed(match which {
        0 => vsha1cq_u32(abcd, 0, words),
        2 => vsha1mq_u32(abcd, 0, words),
        _ => vsha1pq_u32(abcd, 0, words),
    })
}

/// Entry points of one x86 instruction each.
macro_rules! entries {
    ($( $name:ident $feature:literal |$cpu:ident, $imm:ident| $value:expr; )*) => { $(
        extern "C" fn $name(cpu: &mut CpuState, _: u64, _: u64, imm: u64) -> u64 {
            #[target_feature(enable = $feature)]
            fn compute($cpu: &CpuState, $imm: u64) -> uint8x16_t {
                $value
            }
            // SAFETY: the processor has the feature, see the header.
            let v = unsafe { compute(cpu, imm) };
            put(cpu, v)
        }
    )* };
}

#[rustfmt::skip]
entries! {
    aesenc      "neon,aes"  |cpu, _imm| veorq_u8(vaesmcq_u8(vaeseq_u8(get(cpu, 0), vdupq_n_u8(0))), get(cpu, 1));
    aesenclast  "neon,aes"  |cpu, _imm| veorq_u8(vaeseq_u8(get(cpu, 0), vdupq_n_u8(0)), get(cpu, 1));
    aesdec      "neon,aes"  |cpu, _imm| veorq_u8(vaesimcq_u8(vaesdq_u8(get(cpu, 0), vdupq_n_u8(0))), get(cpu, 1));
    aesdeclast  "neon,aes"  |cpu, _imm| veorq_u8(vaesdq_u8(get(cpu, 0), vdupq_n_u8(0)), get(cpu, 1));
    aesimc      "neon,aes"  |cpu, _imm| vaesimcq_u8(get(cpu, 0));
    pclmulqdq   "neon,aes"  |cpu, imm| {
        let (a, b) = (cpu.scratch[0][(imm & 1) as usize], cpu.scratch[1][(imm >> 4 & 1) as usize]);
        vreinterpretq_u8_p128(vmull_p64(a, b))
    };
    sha1rnds4   "neon,sha2" |cpu, imm| vreinterpretq_u8_u32(four_rounds(lanes(cpu, 0), lanes(cpu, 1), imm));
    sha256msg1  "neon,sha2" |cpu, _imm| vreinterpretq_u8_u32(vsha256su0q_u32(lanes(cpu, 0), lanes(cpu, 1)));
    sha256msg2  "neon,sha2" |cpu, _imm| vreinterpretq_u8_u32(message_2(lanes(cpu, 0), lanes(cpu, 1)));
    sha256rnds2 "neon,sha2" |cpu, _imm| vreinterpretq_u8_u32(two_rounds(lanes(cpu, 0), lanes(cpu, 1), lanes(cpu, 2)));
}

/// The entry point of a helper that this processor accelerates.
pub(crate) fn accelerated(helper: Helper) -> Option<HelperEntry> {
    let aes = is_aarch64_feature_detected!("aes") && is_aarch64_feature_detected!("pmull");
    let sha = is_aarch64_feature_detected!("sha2");
    let entry = match helper {
        Helper::Aesenc if aes => aesenc,
        Helper::Aesenclast if aes => aesenclast,
        Helper::Aesdec if aes => aesdec,
        Helper::Aesdeclast if aes => aesdeclast,
        Helper::Aesimc if aes => aesimc,
        Helper::Pclmulqdq if aes => pclmulqdq,
        Helper::Sha1rnds4 if sha => sha1rnds4,
        Helper::Sha256msg1 if sha => sha256msg1,
        Helper::Sha256msg2 if sha => sha256msg2,
        Helper::Sha256rnds2 if sha => sha256rnds2,
        _ => return None,
    };
    Some(entry as HelperEntry)
}
