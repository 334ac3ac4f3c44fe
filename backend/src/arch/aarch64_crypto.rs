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

/// Entry points of one x86 instruction each.
macro_rules! entries {
    ($( $name:ident |$cpu:ident, $imm:ident| $value:expr; )*) => { $(
        extern "C" fn $name(cpu: &mut CpuState, _: u64, _: u64, imm: u64) -> u64 {
            #[target_feature(enable = "neon,aes")]
            fn compute($cpu: &CpuState, $imm: u64) -> uint8x16_t {
                $value
            }
            // SAFETY: the processor has the feature, see the header.
            let v = unsafe { compute(cpu, imm) };
            put(cpu, v)
        }
    )* };
}

entries! {
    aesenc     |cpu, _imm| veorq_u8(vaesmcq_u8(vaeseq_u8(get(cpu, 0), vdupq_n_u8(0))), get(cpu, 1));
    aesenclast |cpu, _imm| veorq_u8(vaeseq_u8(get(cpu, 0), vdupq_n_u8(0)), get(cpu, 1));
    aesdec     |cpu, _imm| veorq_u8(vaesimcq_u8(vaesdq_u8(get(cpu, 0), vdupq_n_u8(0))), get(cpu, 1));
    aesdeclast |cpu, _imm| veorq_u8(vaesdq_u8(get(cpu, 0), vdupq_n_u8(0)), get(cpu, 1));
    aesimc     |cpu, _imm| vaesimcq_u8(get(cpu, 0));
    pclmulqdq  |cpu, imm| {
        let (a, b) = (cpu.scratch[0][(imm & 1) as usize], cpu.scratch[1][(imm >> 4 & 1) as usize]);
        vreinterpretq_u8_p128(vmull_p64(a, b))
    };
}

/// The entry point of a helper that this processor accelerates.
pub(crate) fn accelerated(helper: Helper) -> Option<HelperEntry> {
    if !is_aarch64_feature_detected!("aes") || !is_aarch64_feature_detected!("pmull") {
        return None;
    }
    let entry = match helper {
        Helper::Aesenc => aesenc,
        Helper::Aesenclast => aesenclast,
        Helper::Aesdec => aesdec,
        Helper::Aesdeclast => aesdeclast,
        Helper::Aesimc => aesimc,
        Helper::Pclmulqdq => pclmulqdq,
        _ => return None,
    };
    Some(entry as HelperEntry)
}
