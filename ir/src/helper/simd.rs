//! SSE operations that no host does in a few instructions, or that are rare enough not to deserve an IR operation.
//! Vector arguments and results are in `cpu.scratch` (see `helper.rs`).

use crate::rounding::Rounding;
use crate::sse::{Fp, Precision};
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

/// Runs under MXCSR and keeps what is raised.
fn under_mxcsr<R>(cpu: &mut CpuState, work: impl FnOnce(&mut Fp) -> R) -> R {
    let mut fp = Fp::new(cpu.mxcsr);
    let result = work(&mut fp);
    cpu.mxcsr |= fp.raised;
    result
}

/// The rounding mode that an immediate chooses: its own, or MXCSR's if bit 2 is set.
fn rounding_of(fp: &Fp, imm: u64) -> Rounding {
    if imm & 4 != 0 { fp.rounding() } else { Rounding::from_bits(imm as u32) }
}

/// Whether the immediate of ROUNDPS wants the precision exception (bit 3 clear).
fn precision_of(imm: u64) -> Precision {
    if imm & 8 != 0 { Precision::Suppressed } else { Precision::Raised }
}

/// ROUNDPS by immediate b.
pub(super) fn round_f32x4(cpu: &mut CpuState, _: u64, imm: u64, _: u64) -> u64 {
    let lanes = singles(cpu.scratch[0]);
    let r = under_mxcsr(cpu, |fp| {
        let mode = rounding_of(fp, imm);
        lanes.map(|x| fp.integral(f32::from_bits(x), mode, precision_of(imm)).to_bits())
    });
    give(cpu, from_singles(r))
}

/// ROUNDPD by immediate b.
pub(super) fn round_f64x2(cpu: &mut CpuState, _: u64, imm: u64, _: u64) -> u64 {
    let lanes = cpu.scratch[0];
    let r = under_mxcsr(cpu, |fp| {
        let mode = rounding_of(fp, imm);
        lanes.map(|x| fp.integral(f64::from_bits(x), mode, precision_of(imm)).to_bits())
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

/// PMULHRSW: (a * b + 2^14) >> 15.
pub(super) fn pmulhrsw(cpu: &mut CpuState, _: u64, _: u64, _: u64) -> u64 {
    let [a, b] = [0, 1].map(|i| words(cpu.scratch[i]).map(|w| i32::from(w as i16)));
    give(cpu, from_words(std::array::from_fn(|i| ((a[i] * b[i] + (1 << 14)) >> 15) as u16)))
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
pub(super) fn fma_f32(cpu: &mut CpuState, a: u64, b: u64, c: u64) -> u64 {
    let args = [a, b, c].map(|v| f32::from_bits(v as u32));
    u64::from(under_mxcsr(cpu, |fp| fp.fused(args, false, false)).to_bits())
}

/// `fma` in double precision.
pub(super) fn fma_f64(cpu: &mut CpuState, a: u64, b: u64, c: u64) -> u64 {
    let args = [a, b, c].map(f64::from_bits);
    under_mxcsr(cpu, |fp| fp.fused(args, false, false)).to_bits()
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
    let r = under_mxcsr(cpu, |fp| std::array::from_fn(|i| fp.widen_half(halves[i])));
    give(cpu, from_singles(r))
}

/// VCVTPS2PH, four lanes, zeros above.
pub(super) fn f32x4_to_half(cpu: &mut CpuState, _: u64, imm: u64, _: u64) -> u64 {
    let lanes = singles(cpu.scratch[0]);
    let h = under_mxcsr(cpu, |fp| {
        let mode = rounding_of(fp, imm);
        lanes.map(|x| u64::from(fp.narrow_to_half(x, mode)))
    });
    give(cpu, [h[0] | h[1] << 16 | h[2] << 32 | h[3] << 48, 0])
}
