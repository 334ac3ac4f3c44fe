//! RCPPS and RSQRTPS, to the bit as an AMD processor of family 26 (Zen 5) gives them, on every host.
//!
//! The SDM only bounds the error (1.5 * 2^-12) and every vendor has bits of its own, so programs cannot rely on them; but
//! a run should give the same on every host. Measured on such a processor over all 2^32 arguments of both instructions:
//! - only the 12 uppermost bits of the fraction count, for RSQRTPS the exponent's lowest bit too;
//! - results have 13 significant bits; scaling the argument by 2 (by 4) scales the result by 1/2, exactly;
//! - denormals count as zeros, results that would be denormal are zeros; MXCSR is neither read nor written.
//!
//! The result is the exact one for the middle of the 2^-12 interval, rounded down, plus a correction of two bits: the
//! tables below. `tests/tests/estimates.rs` compares all intervals with such a processor.

use super::simd::{from_singles, give, singles};
use crate::state::CpuState;

const SIGN: u32 = 1 << 31;
const INFINITY: u32 = 0x7f80_0000;
const QUIET: u32 = 1 << 22;
const INDEFINITE: u32 = 0xffc0_0000;
/// Intervals of a binade.
const INTERVALS: usize = 1 << 12;
/// Bits of the fraction below those that count.
const BELOW: u32 = 23 - 12;

/// Significands (13 bits) of the results for arguments from 1 to 2.
static RCP: [u16; INTERVALS] = {
    let (mut table, mut i) = ([0; INTERVALS], 0);
    while i < INTERVALS {
        table[i] = ((1u64 << 26) / (2 * i as u64 + 8193)) as u16 + correction(&RECIPROCAL, i) - 1;
        i += 1;
    }
    table
};

/// The same for the square root; arguments from 2 to 4 behind those from 1 to 2.
static RSQRT: [[u16; INTERVALS]; 2] = [roots(1, &ROOT_1_TO_2), roots(2, &ROOT_2_TO_4)];

const fn roots(scale: u64, corrections: &[u64; INTERVALS / 32]) -> [u16; INTERVALS] {
    let (mut table, mut i) = ([0; INTERVALS], 0);
    while i < INTERVALS {
        let exact = ((1u64 << 39) / ((2 * i as u64 + 8193) * scale)).isqrt() as u16;
        table[i] = exact + correction(corrections, i);
        i += 1;
    }
    table
}

const fn correction(table: &[u64; INTERVALS / 32], i: usize) -> u16 {
    (table[i / 32] >> (2 * (i % 32)) & 3) as u16
}

fn is_nan(bits: u32) -> bool {
    bits & !SIGN > INFINITY
}

/// Whether it is a zero or a denormal.
fn is_zero(bits: u32) -> bool {
    bits & INFINITY == 0
}

/// The interval of an argument's fraction.
fn interval(x: u32) -> usize {
    (x >> BELOW) as usize % INTERVALS
}

/// A positive float whose significand, between 1/2 and 1, is given in units of 2^-13, times 2^`exponent`; zero if denormal.
fn float(significand: u16, exponent: i32) -> u32 {
    match 126 + exponent {
        biased @ 1.. => (biased as u32) << 23 | (u32::from(significand) << BELOW & 0x7f_ffff),
        _ => 0,
    }
}

/// The reciprocal of one number.
pub fn reciprocal(x: u32) -> u32 {
    match x & !SIGN {
        _ if is_nan(x) => x | QUIET,
        _ if is_zero(x) => x & SIGN | INFINITY,
        INFINITY => x & SIGN,
        magnitude => x & SIGN | float(RCP[interval(x)], 127 - (magnitude >> 23) as i32),
    }
}

/// The reciprocal of the square root of one number.
pub fn reciprocal_root(x: u32) -> u32 {
    match x & !SIGN {
        _ if is_nan(x) => x | QUIET,
        _ if is_zero(x) => x & SIGN | INFINITY,
        _ if x & SIGN != 0 => INDEFINITE,
        INFINITY => 0,
        _ => {
            let exponent = (x >> 23) as i32 - 127;
            float(RSQRT[exponent.rem_euclid(2) as usize][interval(x)], -exponent.div_euclid(2))
        }
    }
}

/// RCPPS.
pub(super) fn rcp(cpu: &mut CpuState, _: u64, _: u64, _: u64) -> u64 {
    give(cpu, from_singles(singles(cpu.scratch[0]).map(reciprocal)))
}

/// RSQRTPS.
pub(super) fn rsqrt(cpu: &mut CpuState, _: u64, _: u64, _: u64) -> u64 {
    give(cpu, from_singles(singles(cpu.scratch[0]).map(reciprocal_root)))
}

/// Corrections to [`RCP`], plus one, two bits an interval from the lowest up.
#[rustfmt::skip]
const RECIPROCAL: [u64; 128] = [
    0xaaa5_5550_aaa5_5550, 0xaaa5_5550_affa_aaa5, 0xaafa_aaa5_bffa_aaa6, 0xaaa6_aaa5_aaa5_5aa5, 0xaaa6_aaaa_aaaa_aaaa,
    0x6aa6_aaba_56a5_5aa5, 0x6aaa_abfa_6aaa_abfa, 0x1565_6aaa_56a6_aafa, 0xaaa6_9655_a9a5_9554, 0xbeba_aaa9_a9a5_9655,
    0xaeaa_aaa9_aaa6_9a59, 0xaaaa_aaaa_aeba_aaaa, 0x5965_9659_6aaa_aaaa, 0x69aa_aaae_69a6_9aaa, 0x59a6_aaaa_69aa_aaae,
    0x59a6_abae_5565_9a6a, 0xbaaa_aa55_baaa_a655, 0xaaa6_6655_aaaa_aa55, 0xaa66_6655_bbbb_aa99, 0xaaaa_aa99_aaaa_aa99,
    0x6666_aa99_aaaa_aa99, 0x666a_aa99_aabb_bbaa, 0xaaaa_bbaa_6aaa_abaa, 0x66aa_abaa_6aaa_bbaa, 0xbeeb_aaa9_aaa6_9965,
    0xaaaa_9a65_aaa6_9965, 0xaaaa_aa69_baaa_aa69, 0x6596_5965_a9a6_9a69, 0x6596_5965_aaaa_aaaa, 0x69a6_9a6a_69a6_9a69,
    0x65a6_9a6a_69a6_9aaa, 0x69aa_aaba_5596_5a69, 0xaaa6_a695_9a96_5655, 0xaeaa_aaa9_aeaa_aaa9, 0xaaa6_aaa9_aeaa_aaa9,
    0xaeab_abaa_9a96_a6a5, 0xaaaa_abaa_9aa6_a6a9, 0x5a56_96a5_5a56_96a5, 0x5956_96a9_5a56_96a9, 0x5aa6_abaa_5556_56a5,
    0xaafa_aaaa_a9aa_a56a, 0xa9aa_a56a_95aa_9569, 0xaaaa_aa6a_aaaa_aa6a, 0x95aa_a56a_a9aa_aa6a, 0xaaaa_aaba_55aa_556a,
    0xa5aa_aaba_55aa_956a, 0x55aa_956a_55a5_556a, 0x55aa_a96a_55aa_a96a, 0xaaa9_5555_aaaa_a555, 0xaaaa_aaaa_eaaa_aaaa,
    0xaaaa_aaaa_aa55_5555, 0xaaa5_5555_aaaa_aaaa, 0xaaaa_aaaa_aaaa_aaaa, 0xaaaa_aaaa_aaaa_aaaa, 0xaaaa_aaaa_5555_aaaa,
    0x5555_6aaa_aaaa_aaaa, 0xaaaa_a5aa_aaaa_a555, 0xaaaa_a555_55aa_a555, 0xaaaa_a55a_aaaa_a555, 0xaaaa_a556_aaaa_a55a,
    0x555a_a555_56aa_a555, 0x56aa_a556_aaaa_aaaa, 0x55aa_a55a_aaaa_baaa, 0x5555_a555_6aaa_aaaa, 0xaafa_aaaa_aaaa_aa96,
    0x55a5_5595_55a5_5595, 0xaaaa_aaaa_aaba_aaea, 0x56a5_6a95_aaa6_aa96, 0x6aa5_aa9a_aaba_aaea, 0x5aa5_aa9a_5565_5695,
    0x55a5_5a95_aaaa_aaea, 0x5aa5_aaaa_56a5_6a9a, 0x5a56_95a5_5a56_9565, 0x5a55_9565_5a56_95a5, 0xaaaa_aaaa_abaa_eaba,
    0x5656_95a5_6a5a_96a5, 0x5a56_96a5_aa6a_aaaa, 0x5656_95a5_aa6a_aaaa, 0xaa6a_aaba_5a5a_9aa6, 0x5656_96a6_5555_95a5,
    0xaaaa_aa96_a6a6_a696, 0xa6a6_a696_a6aa_aa9a, 0xa5a5_a596_a6a6_a696, 0xaaaa_aaaa_6565_6595, 0x6565_6595_a5a6_a696,
    0x6565_a595_a6a6_aa9a, 0x5565_6595_a6a6_aa9a, 0xa6a6_aa9a_65a5_a696, 0xaaaa_69a6_a69a_6965, 0xaaaa_aaa6_aaaa_a9a6,
    0xaaaa_aaaa_aaaa_aaaa, 0xaaaa_69a6_aaaa_aaaa, 0x6596_5965_a69a_69a6, 0xaaaa_aaaa_6596_5555, 0xaaaa_aaaa_6596_69a6,
    0x5555_5565_a69a_69a6, 0xaa69_a659_6659_6555, 0x6659_6555_baaa_aa69, 0xaa69_aa69_a669_a659, 0xbaaa_aaaa_aaaa_aa6a,
    0x6559_6555_6555_6555, 0x6555_6555_6555_6559, 0xaa6a_aaaa_aaaa_aaaa, 0x6659_a669_a669_aa6a, 0xaaaa_aaaa_6599_6659,
    0x6599_6659_a6a9_a669, 0x6599_6659_a6a9_aa6a, 0x5599_6659_a6aa_aaaa, 0x5595_6559_66a9_aa6a, 0x66a9_aa6a_6599_6669,
    0x5595_6659_aaaa_aaae, 0x6599_a66a_5599_6669, 0x6655_9955_6655_9955, 0x6655_9995_6655_9995, 0x6555_9955_6655_9955,
    0xaaa6_aaaa_aaaa_eaaa, 0x6665_9999_a666_aa99, 0xaaa6_aaaa_5555_9995, 0x5555_9995_6666_a999, 0x6655_9999_a666_aaaa,
    0x6655_5999_aa66_6aaa, 0x5555_5999_a666_6aaa, 0xaaaa_6aaa_6666_6aa9, 0x6666_6aa9_5555_5999, 0xaaaa_aeea_6666_6aaa,
    0x5555_5999_5555_5999, 0x6666_6aaa_6666_6aaa, 0x6666_6aaa_6666_6aaa,
];

/// Corrections to [`RSQRT`].
#[rustfmt::skip]
const ROOT_1_TO_2: [u64; 128] = [
    0x5555_0000_5555_0000, 0x5555_0155_5555_0000, 0x0015_0000_5555_0000, 0x5555_0555_5555_0000, 0x1555_0000_0055_0000,
    0x5555_0000_5555_0000, 0x0055_0000_1555_0000, 0x5555_0155_0001_0000, 0x5500_1500_5555_5501, 0x1500_0100_5555_5505,
    0x5505_5501_5500_5500, 0x5555_5515_5515_5515, 0x5515_5515_5515_5555, 0x1500_5501_5501_5505, 0x5505_5515_0000_0500,
    0x5505_5555_0100_1500, 0x5555_5545_5055_0540, 0x5015_0140_5005_0040, 0x5055_0541_5055_0541, 0x5015_0541_5055_1541,
    0x1005_0140_5015_0540, 0x5055_1545_5155_5555, 0x5055_5555_0005_0140, 0x5055_1555_0005_0141, 0x5555_5541_5151_5040,
    0x5050_5000_1010_1000, 0x5050_5040_5050_5040, 0x5050_5040_5050_5040, 0x1010_1000_5050_5040, 0x5151_5145_5555_5555,
    0x5555_5555_1010_5040, 0x5555_6555_5050_5141, 0x5145_0514_1040_0100, 0x1040_0104_5555_1554, 0x5145_0514_5041_0504,
    0x5545_1555_5145_1554, 0x5545_1555_5545_1555, 0x5145_1554_5145_1555, 0x1041_0504_1041_0514, 0x5145_1555_5555_5659,
    0x5555_5555_1451_0410, 0x5565_5555_1451_0410, 0x5555_1455_1451_0410, 0x1451_0451_0410_0010, 0x5565_5555_5555_1455,
    0x0411_0411_0410_0410, 0x0451_0451_0451_0451, 0x0451_0451_0451_0451, 0x5555_5515_5556_5555, 0x1145_5104_5155_5114,
    0x5556_5555_1041_1004, 0x0041_1004_1145_5114, 0x1045_1104_5155_5515, 0x1045_1104_5556_5555, 0x0041_1104_5155_5555,
    0x5156_5555_1145_5115, 0x5555_1554_4551_1544, 0x0110_0440_5655_5955, 0x4511_1444_4111_0444, 0x4511_1544_4511_1444,
    0x4111_1444_4511_1544, 0x0110_0444_4111_1444, 0x4555_5955_0100_0440, 0x0111_1444_4551_1555, 0x5555_5111_6655_5555,
    0x6555_5555_1111_1100, 0x6655_5555_5511_1111, 0x6655_5555_5551_1111, 0x5555_5555_5111_1111, 0x5555_1111_1111_1100,
    0x1111_1100_5555_5555, 0x5555_5511_1111_1111, 0x4444_4444_4444_4444, 0x5555_5555_5555_5544, 0x5555_5555_5555_5555,
    0x5555_5555_5555_5555, 0x5555_5555_5555_5555, 0x4444_4444_4445_5555, 0x5555_9999_4444_4444, 0x4455_5555_5555_5555,
    0x1111_0444_5555_4444, 0x5555_4444_5666_5555, 0x5555_5555_1111_0044, 0x5556_5555_1111_4444, 0x5556_5555_1115_4444,
    0x5555_4555_1111_4444, 0x1155_4445_1111_0044, 0x1111_0444_5556_5555, 0x5444_5511_1044_4401, 0x6555_5955_5455_5515,
    0x1444_4411_1004_4401, 0x5445_5511_5444_5511, 0x5455_5555_5455_5515, 0x5555_5555_5555_5555, 0x5555_5555_5555_5955,
    0x5455_5555_5455_5555, 0x0444_1100_4445_1104, 0x5559_5555_0044_0100, 0x4555_1544_5555_5545, 0x0044_0100_4445_1104,
    0x4455_1544_5555_5555, 0x5559_5555_0444_1104, 0x0044_1100_4455_1544, 0x0445_1144_4555_5555, 0x5441_1044_6555_5455,
    0x1441_1044_6555_5555, 0x1441_1044_6555_5555, 0x1040_1004_5551_5455, 0x6555_5555_5451_1445, 0x5451_1445_1441_1044,
    0x1040_1044_6555_5555, 0x5551_5455_1451_1445, 0x1044_1104_1004_0100, 0x1455_1545_1445_1145, 0x5555_5655_5455_5555,
    0x1004_1104_5559_5659, 0x1044_1144_1044_1104, 0x1045_1144_1044_1144, 0x1044_1145_1045_1145, 0x1044_1144_1044_1144,
    0x4514_5514_5514_5514, 0x4410_4510_4514_4514, 0x5955_5965_0410_4410, 0x5514_5554_5555_5555, 0x0410_4410_4514_4514,
    0x5554_5555_5555_5965, 0x0410_4410_4514_4514, 0x4514_5514_5555_5555,
];

/// Corrections to [`RSQRT`].
#[rustfmt::skip]
const ROOT_2_TO_4: [u64; 128] = [
    0x5555_1451_5145_0410, 0x1040_0000_5555_5551, 0x6595_5555_1040_0000, 0x5555_5555_5555_5555, 0x1041_0410_5145_1451,
    0x5145_1451_5555_5555, 0x5145_5555_1041_0410, 0x5145_1451_1041_0410, 0x4555_5514_4514_5104, 0x0004_1004_5555_6555,
    0x0104_1104_0104_1104, 0x0104_1104_0104_1104, 0x4555_6555_0004_1004, 0x4114_5114_4515_5555, 0x4515_5555_0004_1104,
    0x4515_6559_0104_5114, 0x4401_0004_5545_5114, 0x5555_5515_5445_1104, 0x4441_1104_4401_0004, 0x5445_5115_4445_1114,
    0x5545_5555_5545_5515, 0x5545_5555_5545_5555, 0x4445_5115_5445_5515, 0x4001_1104_4441_1115, 0x5555_5515_1110_0004,
    0x1110_0004_5511_1114, 0x1111_0004_5555_1115, 0x1110_0004_5555_1115, 0x5555_5559_5511_1115, 0x1111_1115_1111_1004,
    0x0000_0004_5555_5559, 0x1111_1115_1110_0004, 0x5555_5555_5555_5555, 0x5555_5555_5555_5555, 0x5555_5555_5555_5555,
    0x4444_4444_4445_5555, 0x0000_0004_4444_4444, 0x4444_4444_5555_5555, 0x4555_5555_0000_4444, 0x5555_5555_4444_4444,
    0x6555_5551_5444_4441, 0x5555_5551_1444_4441, 0x5444_4551_1004_4440, 0x1000_4440_5555_5555, 0x5445_5551_1444_4451,
    0x1000_0440_5555_5555, 0x1004_4441_1000_4440, 0x1044_4451_1044_4451, 0x5555_5555_5555_5555, 0x5515_5455_5555_5455,
    0x4511_1444_5511_5445, 0x4401_1004_4411_1044, 0x5515_5455_5555_5555, 0x0401_1004_4411_1444, 0x4411_1445_5515_5555,
    0x5511_5455_0400_1004, 0x5555_5555_0441_1044, 0x5555_5555_0441_1044, 0x4551_5455_0441_1044, 0x4451_1445_0040_1004,
    0x0040_1044_5555_5555, 0x4551_5555_4451_1445, 0x0441_1044_0040_1004, 0x4451_5455_0451_1445, 0x5114_4114_4110_4110,
    0x5154_5154_5154_5114, 0x5155_5155_5155_5154, 0x5155_5155_5155_5155, 0x5154_5155_5155_5155, 0x5114_5114_5154_5154,
    0x4010_4110_4114_4114, 0x5155_5565_0010_4010, 0x4514_5104_5554_5145, 0x5955_5555_4410_4100, 0x4510_4104_5514_5145,
    0x5514_5145_0400_0000, 0x5555_5555_0410_4104, 0x0400_0000_4514_5104, 0x0410_4000_4514_5145, 0x0410_0000_4514_5145,
    0x5555_5555_4514_5145, 0x5555_5555_4510_4104, 0x4514_5145_0410_4104, 0x0410_4104_5555_5555, 0x5555_5555_4514_5145,
    0x0410_4104_0010_4104, 0x4555_5555_4514_5145, 0x0410_4104_5555_5555, 0x0504_1041_0400_0001, 0x4504_1051_4504_1041,
    0x5545_1451_4505_1451, 0x5545_1455_5545_1451, 0x5545_1455_5545_1455, 0x5545_1455_5545_1455, 0x4545_1451_4545_1451,
    0x4504_1051_4504_1451, 0x5555_5555_0104_0000, 0x5145_4514_5555_4515, 0x4104_0410_4145_0414, 0x5555_4555_0004_0000,
    0x4105_0410_5145_4514, 0x5155_4555_0004_0000, 0x0104_0010_4145_0514, 0x4145_0514_5155_4555, 0x5155_4515_0004_0010,
    0x5555_5555_4105_0414, 0x0004_0010_4145_0514, 0x0004_0410_5145_4515, 0x0004_0410_5145_4515, 0x0004_0410_5145_4515,
    0x0004_0010_4145_4515, 0x5155_5555_4145_0514, 0x5545_4545_0505_0404, 0x4505_0504_0404_0000, 0x0404_0400_5555_4545,
    0x5555_4545_4505_0504, 0x0505_0404_0404_0000, 0x5555_5545_4545_4505, 0x0505_0504_0404_0400, 0x5555_4545_4545_4505,
    0x0404_0404_0000_0000, 0x4505_0505_0505_0404, 0x5545_4545_4545_4545, 0x0000_0000_5555_5555, 0x0404_0404_0404_0404,
    0x0505_0404_0404_0404, 0x0505_0505_0505_0505, 0x0505_0505_0505_0505,
];
