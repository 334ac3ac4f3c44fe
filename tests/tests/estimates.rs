//! RCPPS and RSQRTPS give what the documented processor gives (`ir/src/helper/estimates.rs`), on every host.
//!
//! # Safety
//! Executes RCPSS and RSQRTSS, which every x86-64 processor has.

#![allow(unsafe_code)]

use calque_ir::helper::estimates::{reciprocal, reciprocal_root};

/// Zeros, denormals, the ends of the range, infinities, NaNs; both signs.
const SPECIAL: [u32; 12] = [
    0,
    1,
    0x7f_ffff,
    0x80_0000,
    0x7e7f_ffff,
    0x7e80_0000,
    0x7f00_0000,
    0x7f7f_ffff,
    0x7f80_0000,
    0x7f80_0001,
    0x7fc0_0000,
    0x7fff_ffff,
];

/// Both ends of every interval of the exponents given, and the special numbers.
fn arguments(exponents: impl Iterator<Item = u32> + Clone) -> impl Iterator<Item = u32> {
    let of = |exponent: u32| (0..1u32 << 12).flat_map(move |i| [i << 11, i << 11 | 0x7ff].map(|f| exponent << 23 | f));
    SPECIAL.into_iter().chain(exponents.flat_map(of)).flat_map(|x| [x, x | 1 << 31])
}

#[test]
fn estimates_are_the_recorded_ones() {
    // FNV-1a over the results.
    let hash = arguments([1, 127, 128, 253, 254].into_iter()).fold(0xcbf2_9ce4_8422_2325u64, |h, x| {
        [reciprocal(x), reciprocal_root(x)].into_iter().fold(h, |h, r| (h ^ u64::from(r)).wrapping_mul(0x100_0000_01b3))
    });
    assert_eq!(hash, 0x7a35_3780_c51f_0365, "hash {hash:#x}");
}

#[cfg(target_arch = "x86_64")]
#[test]
fn estimates_are_the_processors() {
    use std::arch::x86_64::{__cpuid, _mm_cvtss_f32, _mm_rcp_ss, _mm_rsqrt_ss, _mm_set_ss};
    let signature = __cpuid(1).eax;
    let family = (signature >> 8 & 0xf) + (signature >> 20 & 0xff);
    if !calque_difftest::generate::is_amd() || family != 26 {
        return println!("skipped: estimates are those of AMD's family 26, and this processor is another");
    }
    for x in arguments(1..255) {
        // SAFETY: SSE is part of x86-64.
        let [rcp, rsqrt] = unsafe {
            let v = _mm_set_ss(f32::from_bits(x));
            [_mm_cvtss_f32(_mm_rcp_ss(v)), _mm_cvtss_f32(_mm_rsqrt_ss(v))].map(f32::to_bits)
        };
        assert_eq!(reciprocal(x), rcp, "1 / {x:#x}");
        assert_eq!(reciprocal_root(x), rsqrt, "1 / sqrt {x:#x}");
    }
}
