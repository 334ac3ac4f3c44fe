//! SSE operations that no host does in a few instructions, or that are rare enough not to deserve an IR operation.
//! Vector arguments and results are in `cpu.scratch` (see `helper.rs`).

use crate::state::{CpuState, V128};

/// The eight lanes of 16 bits.
type Words = [u16; 8];

pub(super) fn bytes(v: V128) -> [u8; 16] {
    (u128::from(v[0]) | u128::from(v[1]) << 64).to_le_bytes()
}

pub(super) fn from_bytes(b: [u8; 16]) -> V128 {
    let v = u128::from_le_bytes(b);
    [v as u64, (v >> 64) as u64]
}

pub(super) fn words(v: V128) -> Words {
    let b = bytes(v);
    std::array::from_fn(|i| u16::from_le_bytes([b[2 * i], b[2 * i + 1]]))
}

fn from_words(w: Words) -> V128 {
    from_bytes(std::array::from_fn(|i| w[i / 2].to_le_bytes()[i % 2]))
}

/// The four lanes as bits.
pub(super) fn singles(v: V128) -> [u32; 4] {
    [v[0] as u32, (v[0] >> 32) as u32, v[1] as u32, (v[1] >> 32) as u32]
}

pub(super) fn from_singles(s: [u32; 4]) -> V128 {
    [u64::from(s[0]) | u64::from(s[1]) << 32, u64::from(s[2]) | u64::from(s[3]) << 32]
}

/// Leaves a vector result.
pub(super) fn give(cpu: &mut CpuState, v: V128) -> u64 {
    cpu.scratch[0] = v;
    0
}

const F32_SIGN: u32 = 1 << 31;
const F32_INFINITY: u32 = 0x7f80_0000;
const F32_QUIET: u32 = 1 << 22;

fn is_nan32(bits: u32) -> bool {
    bits & !F32_SIGN > F32_INFINITY
}

/// Rounds to an integral number by the two bits of a rounding mode (SDM vol. 1 table 4-9). On the bits: the host may
/// be in any rounding mode itself.
pub(crate) fn round_integral(v: f64, mode: u64) -> f64 {
    const FRACTION: u32 = 52;
    let bits = v.to_bits();
    let sign = bits & 1 << 63;
    // Number of bits right of the point.
    let below = 1023 + FRACTION as i32 - (bits >> FRACTION & 0x7ff) as i32;
    if below <= 0 || bits == sign {
        return v;
    }
    // Whole part and fraction in units of 2^-64; below 2^-12 only that there is a fraction matters.
    let significand = u128::from(bits & ((1 << FRACTION) - 1) | 1 << FRACTION);
    let fixed = if below <= 64 { significand << 64 >> below } else { 1 };
    let (whole, rest) = ((fixed >> 64) as u64, fixed as u64);
    const HALF: u64 = 1 << 63;
    let up = match mode & 3 {
        0 => rest > HALF || rest == HALF && whole & 1 != 0,
        1 => sign != 0 && rest != 0,
        2 => sign == 0 && rest != 0,
        _ => false,
    };
    f64::from_bits(((whole + u64::from(up)) as f64).to_bits() | sign)
}

/// ROUNDPS by mode b.
pub(super) fn round_f32x4(cpu: &mut CpuState, _: u64, mode: u64, _: u64) -> u64 {
    let r = singles(cpu.scratch[0]).map(|x| match is_nan32(x) {
        true => x | F32_QUIET,
        false => (round_integral(f64::from(f32::from_bits(x)), mode) as f32).to_bits(),
    });
    give(cpu, from_singles(r))
}

/// ROUNDPD by mode b.
pub(super) fn round_f64x2(cpu: &mut CpuState, _: u64, mode: u64, _: u64) -> u64 {
    const QUIET: u64 = 1 << 51;
    let r = cpu.scratch[0].map(|x| {
        let v = f64::from_bits(x);
        if v.is_nan() { x | QUIET } else { round_integral(v, mode).to_bits() }
    });
    give(cpu, r)
}

/// CRC32 of `n` bytes of `data`, by the reflected polynomial 0x82f63b78.
pub(super) fn crc32(_: &mut CpuState, crc: u64, data: u64, n: u64) -> u64 {
    let mut crc = crc as u32;
    for byte in &data.to_le_bytes()[..n as usize] {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 != 0 { 0x82f6_3b78 } else { 0 };
        }
    }
    u64::from(crc)
}

/// PHMINPOSUW: the least word and its position.
pub(super) fn phminposuw(cpu: &mut CpuState, _: u64, _: u64, _: u64) -> u64 {
    let lanes = words(cpu.scratch[0]);
    let (at, least) = lanes.iter().enumerate().min_by_key(|(at, v)| (**v, *at)).expect("eight lanes");
    let r = [u64::from(*least) | (at as u64) << 16, 0];
    give(cpu, r)
}

/// MPSADBW: sums of absolute differences of four bytes of b with eight overlapping groups of a.
pub(super) fn mpsadbw(cpu: &mut CpuState, _: u64, _: u64, imm: u64) -> u64 {
    let (a, b) = (bytes(cpu.scratch[0]), bytes(cpu.scratch[1]));
    let (from_a, from_b) = ((imm >> 2 & 1) as usize * 4, (imm & 3) as usize * 4);
    let sum = |i: usize| (0..4).map(|k| u16::from(a[from_a + i + k].abs_diff(b[from_b + k]))).sum();
    give(cpu, from_words(std::array::from_fn(sum)))
}

/// `fma` in single precision.
pub(super) fn fma_f32(_: &mut CpuState, a: u64, b: u64, c: u64) -> u64 {
    let [a, b, c] = [a, b, c].map(|v| f32::from_bits(v as u32));
    u64::from(a.mul_add(b, c).to_bits())
}

/// `fma` in double precision.
pub(super) fn fma_f64(_: &mut CpuState, a: u64, b: u64, c: u64) -> u64 {
    let [a, b, c] = [a, b, c].map(f64::from_bits);
    a.mul_add(b, c).to_bits()
}

/// VPERMD, one half of the result.
pub(super) fn permute8(cpu: &mut CpuState, _: u64, _: u64, _: u64) -> u64 {
    let [low, high, indices] = [0, 1, 2].map(|i| singles(cpu.scratch[i]));
    let r = indices.map(|i| if i & 4 == 0 { low } else { high }[i as usize & 3]);
    give(cpu, from_singles(r))
}

/// VPSLLVD and kin: counts of the lane width and more shift everything out.
pub(super) fn shift_lanes(cpu: &mut CpuState, _: u64, _: u64, c: u64) -> u64 {
    let (bits, kind) = (c & 0xff, c >> 8);
    let r = match bits {
        32 => {
            let (v, n) = (singles(cpu.scratch[0]), singles(cpu.scratch[1]));
            from_singles(std::array::from_fn(|i| match kind {
                0 => v[i].checked_shl(n[i]).unwrap_or(0),
                1 => v[i].checked_shr(n[i]).unwrap_or(0),
                _ => (v[i] as i32 >> n[i].min(31)) as u32,
            }))
        }
        _ => {
            let (v, n) = (cpu.scratch[0], cpu.scratch[1]);
            std::array::from_fn(|i| match (n[i] < 64, kind) {
                (false, _) => 0,
                (true, 0) => v[i] << n[i],
                (true, _) => v[i] >> n[i],
            })
        }
    };
    give(cpu, r)
}

/// VCVTPH2PS, four lanes; exact. A NaN becomes quiet.
pub(super) fn half_to_f32x4(cpu: &mut CpuState, _: u64, _: u64, _: u64) -> u64 {
    let halves = words(cpu.scratch[0]);
    let r = std::array::from_fn(|i| half_to_f32(halves[i]));
    give(cpu, from_singles(r))
}

fn half_to_f32(h: u16) -> u32 {
    let sign = u32::from(h & 0x8000) << 16;
    let (exponent, fraction) = (u32::from(h >> 10 & 31), u32::from(h & 0x3ff));
    let magnitude = match (exponent, fraction) {
        (0, f) => (f as f32 * 2f32.powi(-24)).to_bits(),
        (31, 0) => F32_INFINITY,
        (31, f) => F32_INFINITY | F32_QUIET | f << 13,
        (e, f) => (e + 112) << 23 | f << 13,
    };
    sign | magnitude
}

/// VCVTPS2PH, four lanes, zeros above.
pub(super) fn f32x4_to_half(cpu: &mut CpuState, _: u64, mode: u64, _: u64) -> u64 {
    let h = singles(cpu.scratch[0]).map(|x| u64::from(f32_to_half(x, mode as u32 & 3)));
    give(cpu, [h[0] | h[1] << 16 | h[2] << 32 | h[3] << 48, 0])
}

fn f32_to_half(x: u32, mode: u32) -> u16 {
    let sign = (x >> 16 & 0x8000) as u16;
    let magnitude = x & !F32_SIGN;
    if is_nan32(x) {
        return sign | 0x7e00 | (x >> 13 & 0x1ff) as u16;
    }
    if magnitude == F32_INFINITY {
        return sign | 0x7c00;
    }
    // As an integer multiple of 2^-24 (denormals) or with 11 significant bits: `kept` bits, and what is cut off.
    let exponent = (magnitude >> 23) as i32 - 127;
    let significand = if magnitude >> 23 == 0 { 0 } else { u64::from(magnitude & 0x7f_ffff | 0x80_0000) };
    let cut = if exponent < -14 { (13 - 14 - exponent).min(40) } else { 13 } as u32;
    let (kept, rest, half) = (significand >> cut, significand & ((1 << cut) - 1), 1u64 << (cut - 1));
    let inexact = rest != 0 || magnitude != 0 && significand == 0;
    let up = match mode {
        0 => rest > half || rest == half && kept & 1 != 0,
        1 => inexact && sign != 0,
        2 => inexact && sign == 0,
        _ => false,
    };
    let biased = if exponent < -14 { 0 } else { ((exponent + 14) as u64) << 10 };
    let r = biased + kept + u64::from(up);
    let to_infinity = mode == 0 || mode == 1 && sign != 0 || mode == 2 && sign == 0;
    match r {
        0x7c00.. if to_infinity => sign | 0x7c00,
        0x7c00.. => sign | 0x7bff,
        r => sign | r as u16,
    }
}
