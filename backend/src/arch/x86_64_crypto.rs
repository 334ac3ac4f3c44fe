//! Helpers that this processor has an instruction for: the same results as the portable bodies in
//! `ir/src/helper/crypto.rs`, an order of magnitude faster.
//!
//! # Safety
//! Functions with a target feature are only reached through [`accelerated`], which asks for the feature. Vectors are
//! copied from and to `cpu.scratch` by value.

#![allow(unsafe_code)]

use calque_ir::helper::HelperEntry;
use calque_ir::{CpuState, Helper};
use std::arch::is_x86_feature_detected;
use std::arch::x86_64::*;

#[inline]
fn get(cpu: &CpuState, slot: usize) -> __m128i {
    // SAFETY: 16 bytes of plain data both ways.
    unsafe { std::mem::transmute(cpu.scratch[slot]) }
}

#[inline]
fn put(cpu: &mut CpuState, v: __m128i) -> u64 {
    // SAFETY: 16 bytes of plain data both ways.
    cpu.scratch[0] = unsafe { std::mem::transmute::<__m128i, [u64; 2]>(v) };
    0
}

/// Entry points of one instruction each.
macro_rules! entries {
    ($( $name:ident $feature:literal |$cpu:ident, $imm:ident| $value:expr; )*) => { $(
        extern "C" fn $name(cpu: &mut CpuState, _: u64, _: u64, imm: u64) -> u64 {
            #[target_feature(enable = $feature)]
            fn compute($cpu: &CpuState, $imm: u64) -> __m128i {
                $value
            }
            // SAFETY: the processor has the feature, see the header.
            let v = unsafe { compute(cpu, imm) };
            put(cpu, v)
        }
    )* };
}

entries! {
    aesenc     "aes" |cpu, _imm| _mm_aesenc_si128(get(cpu, 0), get(cpu, 1));
    aesenclast "aes" |cpu, _imm| _mm_aesenclast_si128(get(cpu, 0), get(cpu, 1));
    aesdec     "aes" |cpu, _imm| _mm_aesdec_si128(get(cpu, 0), get(cpu, 1));
    aesdeclast "aes" |cpu, _imm| _mm_aesdeclast_si128(get(cpu, 0), get(cpu, 1));
    aesimc     "aes" |cpu, _imm| _mm_aesimc_si128(get(cpu, 0));
    pclmulqdq  "pclmulqdq" |cpu, imm| match imm & 0x11 {
        0x00 => _mm_clmulepi64_si128::<0x00>(get(cpu, 0), get(cpu, 1)),
        0x01 => _mm_clmulepi64_si128::<0x01>(get(cpu, 0), get(cpu, 1)),
        0x10 => _mm_clmulepi64_si128::<0x10>(get(cpu, 0), get(cpu, 1)),
        _    => _mm_clmulepi64_si128::<0x11>(get(cpu, 0), get(cpu, 1)),
    };
    sha1msg1   "sha" |cpu, _imm| _mm_sha1msg1_epu32(get(cpu, 0), get(cpu, 1));
    sha1msg2   "sha" |cpu, _imm| _mm_sha1msg2_epu32(get(cpu, 0), get(cpu, 1));
    sha1nexte  "sha" |cpu, _imm| _mm_sha1nexte_epu32(get(cpu, 0), get(cpu, 1));
    sha1rnds4  "sha" |cpu, imm| match imm & 3 {
        0 => _mm_sha1rnds4_epu32::<0>(get(cpu, 0), get(cpu, 1)),
        1 => _mm_sha1rnds4_epu32::<1>(get(cpu, 0), get(cpu, 1)),
        2 => _mm_sha1rnds4_epu32::<2>(get(cpu, 0), get(cpu, 1)),
        _ => _mm_sha1rnds4_epu32::<3>(get(cpu, 0), get(cpu, 1)),
    };
    sha256msg1 "sha" |cpu, _imm| _mm_sha256msg1_epu32(get(cpu, 0), get(cpu, 1));
    sha256msg2 "sha" |cpu, _imm| _mm_sha256msg2_epu32(get(cpu, 0), get(cpu, 1));
    sha256rnds2 "sha" |cpu, _imm| _mm_sha256rnds2_epu32(get(cpu, 0), get(cpu, 1), get(cpu, 2));
}

/// The entry point of a helper that this processor accelerates.
pub(crate) fn accelerated(helper: Helper) -> Option<HelperEntry> {
    let (aes, sha) = (is_x86_feature_detected!("aes"), is_x86_feature_detected!("sha"));
    let entry = match helper {
        Helper::Aesenc if aes => aesenc,
        Helper::Aesenclast if aes => aesenclast,
        Helper::Aesdec if aes => aesdec,
        Helper::Aesdeclast if aes => aesdeclast,
        Helper::Aesimc if aes => aesimc,
        Helper::Pclmulqdq if is_x86_feature_detected!("pclmulqdq") => pclmulqdq,
        Helper::Sha1msg1 if sha => sha1msg1,
        Helper::Sha1msg2 if sha => sha1msg2,
        Helper::Sha1nexte if sha => sha1nexte,
        Helper::Sha1rnds4 if sha => sha1rnds4,
        Helper::Sha256msg1 if sha => sha256msg1,
        Helper::Sha256msg2 if sha => sha256msg2,
        Helper::Sha256rnds2 if sha => sha256rnds2,
        _ => return None,
    };
    Some(entry as HelperEntry)
}
