//! CPUID as the guest sees it (SDM vol. 2A CPUID): exactly what the lifter can do, whatever the host.
//!
//! The part is an Intel one of the Haswell generation (06_3C), which is what x86-64-v3 looks like: C libraries and crypto
//! libraries know it and pick 32-byte loops with unaligned loads. ERMS and FSRM stay off, so that they do not pick REP
//! MOVSB instead. XSAVE has its standard form only (no XSAVEC): signal frames and lazy binding use that.
//!
//! Where instructions are copied, AVX-512 is announced, too, with what the host has of it, to threads whose XCR0 has its state components; the part
//! has a number then that libraries which go by it (OpenBLAS) know to have AVX-512.
//!
//! The extra features (ADX...) are newer than such a part. Programs ask for bits, not for years.

use crate::arch::copies_avx512;
use crate::xstate;
use calque_ir::state::XCR0_AVX512;

/// Feature bits as (bit number, name in `/proc/cpuinfo`), one list a register.
type Features = &'static [(u32, &'static str)];

const LEAF_1_ECX: Features = &[
    (0, "pni"),
    (1, "pclmulqdq"),
    (9, "ssse3"),
    (12, "fma"),
    (13, "cx16"),
    (19, "sse4_1"),
    (20, "sse4_2"),
    (22, "movbe"),
    (23, "popcnt"),
    (25, "aes"),
    (26, "xsave"),
    (27, "osxsave"),
    (28, "avx"),
    (29, "f16c"),
    (30, "rdrand"),
    (31, "hypervisor"),
];

const LEAF_1_EDX: Features = &[
    (0, "fpu"),
    (1, "vme"),
    (2, "de"),
    (3, "pse"),
    (4, "tsc"),
    (5, "msr"),
    (6, "pae"),
    (8, "cx8"),
    (9, "apic"),
    (11, "sep"),
    (13, "pge"),
    (15, "cmov"),
    (16, "pat"),
    (17, "pse36"),
    (19, "clflush"),
    (23, "mmx"),
    (24, "fxsr"),
    (25, "sse"),
    (26, "sse2"),
];

const LEAF_7_EBX: Features = &[
    (0, "fsgsbase"),
    (3, "bmi1"),
    (5, "avx2"),
    (8, "bmi2"),
    (18, "rdseed"),
    (19, "adx"),
    (23, "clflushopt"),
    (24, "clwb"),
    (29, "sha_ni"),
];

/// More of EBX where instructions are copied. Elsewhere they are lifted, but a crypto library's plain code is twice as fast as one helper
/// call for two rounds.
const LEAF_7_EBX_COPIED: Features = &[(29, "sha_ni")];

const LEAF_7_ECX: Features = &[(2, "umip"), (8, "gfni"), (9, "vaes"), (10, "vpclmulqdq"), (22, "rdpid")];

/// AVX-512: leaf 7's EBX, ECX and EDX, and subleaf 1's EAX.
const AVX512_EBX: Features =
    &[(16, "avx512f"), (17, "avx512dq"), (21, "avx512ifma"), (28, "avx512cd"), (30, "avx512bw"), (31, "avx512vl")];

const AVX512_ECX: Features =
    &[(1, "avx512vbmi"), (6, "avx512_vbmi2"), (11, "avx512_vnni"), (12, "avx512_bitalg"), (14, "avx512_vpopcntdq")];

const AVX512_EDX: Features = &[(8, "avx512_vp2intersect"), (23, "avx512_fp16")];

const AVX512_1_EAX: Features = &[(5, "avx512_bf16")];

const EXTENDED_1_ECX: Features = &[(0, "lahf_lm"), (5, "abm"), (8, "3dnowprefetch")];

const EXTENDED_1_EDX: Features = &[(11, "syscall"), (20, "nx"), (27, "rdtscp"), (29, "lm")];

const VENDOR: &[u8; 12] = b"GenuineIntel";
const HYPERVISOR: &[u8; 12] = b"CalqueCalque";
const BRAND: &[u8; 48] = b"Calque x86-64-v3 translated processor\0\0\0\0\0\0\0\0\0\0\0";
const BRAND_AVX512: &[u8; 48] = b"Calque x86-64-v4 translated processor\0\0\0\0\0\0\0\0\0\0\0";

/// The leaf that reads a clock, the last of those that hypervisors have to themselves: the clock's number (linux/time.h) as
/// subleaf; seconds in EBX:EAX, nanoseconds in ECX; EDX is 0 if there is no such clock here (`gate.rs`).
pub const CLOCK_LEAF: u32 = 0x4000_0001;

/// Family 6, model 0x3c, stepping 3: what programs that choose by model know to have AVX2.
const HASWELL: u32 = 0x0003_06c3;
/// Model 0x6a, stepping 6: the same for AVX-512 with VBMI2.
const ICE_LAKE: u32 = 0x0006_06a6;
/// Model 0x55, stepping 7: the same without.
const CASCADE_LAKE: u32 = 0x0005_0657;
const LAST_BASIC: u32 = 0x15;
const LAST_EXTENDED: u32 = 0x8000_0008;

fn bits(features: Features) -> u32 {
    features.iter().fold(0, |bits, (bit, _)| bits | 1 << bit)
}

/// Whether the system saves extended state (leaf 1, ECX bit 27).
pub(crate) fn announces_osxsave() -> bool {
    LEAF_1_ECX.iter().any(|(bit, _)| *bit == 27)
}

fn has_avx512(xcr0: u64) -> bool {
    xcr0 == XCR0_AVX512
}

/// Of these features of AVX-512, those that the processor with this XCR0 has.
fn avx512(features: Features, xcr0: u64) -> impl Iterator<Item = &'static (u32, &'static str)> {
    features.iter().filter(move |(_, name)| has_avx512(xcr0) && copies_avx512(name))
}

fn avx512_bits(features: Features, xcr0: u64) -> u32 {
    avx512(features, xcr0).fold(0, |bits, (bit, _)| bits | 1 << bit)
}

fn copied_features() -> Features {
    if crate::arch::copies_sha() { LEAF_7_EBX_COPIED } else { &[] }
}

/// Names of all features, in the order of `/proc/cpuinfo`'s words.
pub fn feature_names(xcr0: u64) -> impl Iterator<Item = &'static str> {
    let words = [LEAF_1_EDX, EXTENDED_1_EDX, LEAF_1_ECX, EXTENDED_1_ECX, LEAF_7_EBX, copied_features()];
    let wide = [AVX512_EBX, AVX512_1_EAX, AVX512_ECX, AVX512_EDX];
    let wide = wide.into_iter().flat_map(move |features| avx512(features, xcr0));
    words.into_iter().flatten().chain(LEAF_7_ECX).chain(wide).map(|(_, name)| *name)
}

/// The brand string, without padding.
pub fn brand(xcr0: u64) -> &'static str {
    std::str::from_utf8(brand_bytes(xcr0)).expect("ASCII").trim_end_matches('\0')
}

fn brand_bytes(xcr0: u64) -> &'static [u8; 48] {
    if has_avx512(xcr0) { BRAND_AVX512 } else { BRAND }
}

/// EAX, EBX, ECX, EDX of a leaf, for a thread with these state components.
pub fn cpuid(leaf: u32, subleaf: u32, xcr0: u64) -> [u32; 4] {
    let [v0, v1, v2] = words(VENDOR);
    match leaf {
        0 => [LAST_BASIC, v0, v2, v1],
        // CLFLUSH lines of 8 quadwords, one logical processor.
        1 => [signature(xcr0), 8 << 8 | 1 << 16, bits(LEAF_1_ECX), bits(LEAF_1_EDX)],
        // "See leaf 4."
        2 => [0x00ff_ff01, 0, 0, 0],
        4 => cache(subleaf),
        7 => structured(subleaf, xcr0),
        0xd => extended_state(subleaf, xcr0),
        0x15 => crate::arch::TSC_HZ.map_or([0; 4], |hz| [1, 1, hz, 0]),
        0x4000_0000 => {
            let [h0, h1, h2] = words(HYPERVISOR);
            [CLOCK_LEAF, h0, h1, h2]
        }
        0x8000_0000 => [LAST_EXTENDED, 0, 0, 0],
        0x8000_0001 => [0, 0, bits(EXTENDED_1_ECX), bits(EXTENDED_1_EDX)],
        0x8000_0002..=0x8000_0004 => brand_part(leaf - 0x8000_0002, brand_bytes(xcr0)),
        // 256 KiB of L2 in 64-byte lines, 8 ways.
        0x8000_0006 => [0, 0, 256 << 16 | 6 << 12 | 64, 0],
        // The time stamp counter runs at a constant rate.
        0x8000_0007 => [0, 0, 0, 1 << 8],
        // 48 bits of linear address, 40 of physical.
        0x8000_0008 => [48 << 8 | 40, 0, 0, 0],
        _ => [0; 4],
    }
}

fn signature(xcr0: u64) -> u32 {
    match has_avx512(xcr0) {
        false => HASWELL,
        true if copies_avx512("avx512_vbmi2") => ICE_LAKE,
        true => CASCADE_LAKE,
    }
}

/// Twelve characters as three registers.
fn words(text: &[u8; 12]) -> [u32; 3] {
    std::array::from_fn(|i| u32::from_le_bytes(text[4 * i..4 * i + 4].try_into().expect("4 bytes")))
}

fn brand_part(part: u32, brand: &[u8; 48]) -> [u32; 4] {
    let at = 16 * part as usize;
    std::array::from_fn(|i| u32::from_le_bytes(brand[at + 4 * i..at + 4 * i + 4].try_into().expect("4 bytes")))
}

/// Leaf 7: extended features.
fn structured(subleaf: u32, xcr0: u64) -> [u32; 4] {
    let wide = |features| avx512_bits(features, xcr0);
    let last = u32::from(has_avx512(xcr0));
    match subleaf {
        0 => {
            let ebx = bits(LEAF_7_EBX) | bits(copied_features()) | wide(AVX512_EBX);
            [last, ebx, bits(LEAF_7_ECX) | wide(AVX512_ECX), wide(AVX512_EDX)]
        }
        1 => [wide(AVX512_1_EAX), 0, 0, 0],
        _ => [0; 4],
    }
}

/// Leaf 0xd: XCR0, and the sizes and offsets of XSAVE's standard form (SDM vol. 1 13.4).
fn extended_state(subleaf: u32, xcr0: u64) -> [u32; 4] {
    let size = xstate::size(xcr0) as u32;
    let component = xstate::COMPONENTS.iter().find(|component| component.number == subleaf && component.is_in(xcr0));
    match (subleaf, component) {
        (0, _) => [xcr0 as u32, size, size, (xcr0 >> 32) as u32],
        (_, Some(component)) => [component.size as u32, component.at as u32, 0, 0],
        _ => [0; 4],
    }
}

/// Leaf 4: L1d, L1i, L2, L3, all with 64-byte lines.
fn cache(index: u32) -> [u32; 4] {
    const DATA: u32 = 1;
    const CODE: u32 = 2;
    const UNIFIED: u32 = 3;
    let (kind, level, ways, sets) = match index {
        0 => (DATA, 1, 8, 64),
        1 => (CODE, 1, 8, 64),
        2 => (UNIFIED, 2, 8, 512),
        3 => (UNIFIED, 3, 16, 8192),
        _ => return [0; 4],
    };
    // Bit 8: needs no initialization by software.
    [kind | level << 5 | 1 << 8, (ways - 1) << 22 | 63, sets - 1, 0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use calque_ir::state::XCR0_AVX2;

    #[test]
    fn caches_have_the_sizes_they_say() {
        let size = |index| {
            let [_, ebx, ecx, _] = cpuid(4, index, XCR0_AVX2);
            ((ebx >> 22) + 1) * ((ebx & 0xfff) + 1) * (ecx + 1)
        };
        assert_eq!([size(0), size(2), size(3)], [32 << 10, 256 << 10, 8 << 20]);
    }

    #[test]
    fn the_part_says_whose_it_is() {
        let text = |leaves: std::ops::RangeInclusive<u32>, registers: [usize; 4]| {
            let words = leaves.flat_map(|leaf| registers.map(|n| cpuid(leaf, 0, XCR0_AVX2)[n]));
            String::from_utf8(words.flat_map(u32::to_le_bytes).collect()).expect("ASCII")
        };
        assert!(text(0x8000_0002..=0x8000_0004, [0, 1, 2, 3]).starts_with("Calque x86-64-v3"));
        assert_eq!(&text(0x4000_0000..=0x4000_0000, [1, 2, 3, 3])[..12], "CalqueCalque");
        assert_eq!(cpuid(1, 0, XCR0_AVX2)[2] >> 31, 1, "the bit of hypervisors");
    }

    #[test]
    fn what_is_not_lifted_is_not_announced() {
        let [_, _, ecx, _] = cpuid(1, 0, XCR0_AVX2);
        assert_eq!(ecx & 1 << 3, 0, "MONITOR");
        let [_, ebx, ..] = cpuid(7, 0, XCR0_AVX2);
        assert_eq!(ebx & (1 << 9 | 1 << 16), 0, "ERMS, AVX512F");
        let [features, ..] = cpuid(0xd, 1, XCR0_AVX2);
        assert_eq!(features, 0, "XSAVEOPT, XSAVEC, XSAVES");
    }
}
