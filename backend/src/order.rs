//! Ordered accesses on AArch64 that Cranelift has no instruction for: words of machine code, replaced by stronger or cheaper ones.
//!
//! Why each form is right stands in `docs/MEMORY-MODEL.md`. Cranelift's places of traps say which words access guest memory:
//!
//! | host                | lowering makes                        | becomes                      |
//! |---------------------|---------------------------------------|------------------------------|
//! | any                 | fenced load and `dmb ish` behind it   | the load, `dmb ishld`        |
//! | any                 | `dmb ish` and fenced store behind it  | `dmb ishst`, the store       |
//! | FEAT_LRCPC          | `ldar`                                | `ldapr`                      |
//! | FEAT_LRCPC2         | `ldr`, `str` of base and offset       | `ldapur`, `stlur`            |
//!
//! *Fenced* accesses, of vectors and of what need not be aligned, are plain and stay so: barriers order them.
//!
//! Invariant: under FEAT_LRCPC2 a scalar access that has no such form must not stay plain. [`strengthen`] then refuses, and the
//! region is compiled with `ldar` and `stlr` instead.
//!
//! Encodings: Arm Architecture Reference Manual for A-profile, C4.1.94 "Loads and Stores", C4.1.93 "Barriers".

use crate::compile::MemoryOrder;
use crate::isa::{Arch, HostIsa};

/// How scalar accesses keep the guest's order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scalars {
    /// As the host does it: nobody can observe, or the host is x86-64.
    Plain,
    /// Load-acquire, store-release, of a register's address only.
    Acquire,
    /// Plain for Cranelift, of base and offset; [`strengthen`] makes them load-acquire and store-release.
    Rewritten,
}

impl Scalars {
    /// The form for code that promises `order` on `host`.
    pub(crate) fn of(order: MemoryOrder, host: &HostIsa) -> Scalars {
        match (order, host.arch) {
            (MemoryOrder::Plain, _) | (_, Arch::X86_64) => Scalars::Plain,
            _ if host.has("lrcpc2") => Scalars::Rewritten,
            _ => Scalars::Acquire,
        }
    }
}

/// Offsets of `ldapur` and `stlur`.
pub(crate) const OFFSETS: std::ops::RangeInclusive<i32> = -256..=255;

/// An access of generated code that has no ordered form; its word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NoOrderedForm(pub(crate) u32);

/// Rewrites the guest accesses at `sites` (offsets in `code`, and whether barriers order them), which was lowered with `scalars`.
pub(crate) fn strengthen(
    code: &mut [u8],
    sites: impl Iterator<Item = (u32, bool)>,
    scalars: Scalars,
    host: &HostIsa,
) -> Result<(), NoOrderedForm> {
    if scalars == Scalars::Plain {
        return Ok(());
    }
    let (words, _) = code.as_chunks_mut::<4>();
    for (site, fenced) in sites {
        let at = site as usize / 4;
        let word = u32::from_le_bytes(words[at]);
        if fenced {
            relax_barrier(word, at, words);
        } else if let Some(strong) = scalar(word, scalars, host)? {
            words[at] = strong.to_le_bytes();
        }
    }
    Ok(())
}

/// The ordered form of a scalar load or store; `None` for what is ordered or atomic already.
fn scalar(word: u32, scalars: Scalars, host: &HostIsa) -> Result<Option<u32>, NoOrderedForm> {
    let fields = |bits: u32| word & bits;
    // Size (31:30), Rn (9:5), Rt (4:0).
    let common = fields(0xc000_03ff);
    // Load/store register (unsigned immediate): x x 111 0 01 opc imm12 Rn Rt.
    if fields(0x3f00_0000) == 0x3900_0000 {
        let offset = fields(0x003f_fc00) >> 10 << (word >> 30);
        let fits = OFFSETS.contains(&(offset as i32));
        return if fits { Ok(Some(unscaled(common, word, offset))) } else { Err(NoOrderedForm(word)) };
    }
    // Load/store register (unscaled immediate): x x 111 0 00 opc 0 imm9 00 Rn Rt.
    if fields(0x3f20_0c00) == 0x3800_0000 {
        return Ok(Some(unscaled(common, word, fields(0x001f_f000) >> 12)));
    }
    // Any other addressing of a plain load or store.
    if fields(0x3f00_0000) == 0x3800_0000 && fields(0x0020_0c00) != 0x0020_0000 {
        return Err(NoOrderedForm(word));
    }
    let relaxes = scalars == Scalars::Acquire && host.has("lrcpc") && fields(0x3fff_fc00) == 0x08df_fc00;
    Ok(relaxes.then_some(common | 0x38bf_c000))
}

/// LDAPUR, STLUR and the sign-extending forms: x x 011 0 01 opc 0 imm9 00 Rn Rt, with `opc` as in the plain form.
fn unscaled(common: u32, word: u32, offset: u32) -> u32 {
    0x1900_0000 | common | word & 0x00c0_0000 | (offset & 0x1ff) << 12
}

/// A load, with any addressing: x x 111 V 0x opc. Of SIMD registers the low bit of opc says so, of others either.
fn is_load(word: u32) -> bool {
    let opc = if word & 1 << 26 == 0 { 0x00c0_0000 } else { 0x0040_0000 };
    word & 0x3a00_0000 == 0x3800_0000 && word & opc != 0
}

const DMB_ISH: u32 = 0xd503_3bbf;
const DMB_ISHLD: u32 = 0xd503_39bf;
const DMB_ISHST: u32 = 0xd503_3abf;

/// `dmb ish` right behind a fenced load, or right before a fenced store, is that access's own: it has to keep back loads, or stores.
fn relax_barrier(access: u32, at: usize, words: &mut [[u8; 4]]) {
    let (barrier, enough) = if is_load(access) { (at + 1, DMB_ISHLD) } else { (at.wrapping_sub(1), DMB_ISHST) };
    if let Some(word) = words.get_mut(barrier).filter(|word| u32::from_le_bytes(**word) == DMB_ISH) {
        *word = enough.to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rewrites `code` with a guest access at its first word.
    fn rewritten(code: &[u32], host: &str) -> Result<Vec<u32>, NoOrderedForm> {
        strengthened(code, (0, false), host)
    }

    fn strengthened(code: &[u32], site: (u32, bool), host: &str) -> Result<Vec<u32>, NoOrderedForm> {
        let host = HostIsa::parse(host).expect("a host");
        let mut bytes: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
        strengthen(&mut bytes, [site].into_iter(), Scalars::of(MemoryOrder::Tso, &host), &host)?;
        Ok(bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect())
    }

    #[test]
    fn lrcpc2_makes_plain_accesses_ordered() {
        #[rustfmt::skip]
        let cases = [
            (0xf940_0041, 0xd940_0041), // ldr x1, [x2]            ldapur x1, [x2]
            (0xb940_0441, 0x9940_4041), // ldr w1, [x2, #4]        ldapur w1, [x2, #4]
            (0xf85f_8041, 0xd95f_8041), // ldur x1, [x2, #-8]      ldapur x1, [x2, #-8]
            (0x3940_0441, 0x1940_1041), // ldrb w1, [x2, #1]       ldapurb w1, [x2, #1]
            (0x7940_0441, 0x5940_2041), // ldrh w1, [x2, #2]       ldapurh w1, [x2, #2]
            (0x3980_0041, 0x1980_0041), // ldrsb x1, [x2]          ldapursb x1, [x2]
            (0x39c0_0041, 0x19c0_0041), // ldrsb w1, [x2]          ldapursb w1, [x2]
            (0xb980_0041, 0x9980_0041), // ldrsw x1, [x2]          ldapursw x1, [x2]
            (0xf900_0041, 0xd900_0041), // str x1, [x2]            stlur x1, [x2]
            (0x3800_1041, 0x1900_1041), // sturb w1, [x2, #1]      stlurb w1, [x2, #1]
        ];
        for (plain, ordered) in cases {
            assert_eq!(rewritten(&[plain], "aarch64-v8.4"), Ok(vec![ordered]), "{plain:#x}");
        }
        for atomic in [0xc8df_fc41u32, 0xf8e3_0041, 0xc8e3_fc41, 0x38e3_3041] {
            assert_eq!(rewritten(&[atomic], "aarch64-v8.4"), Ok(vec![atomic]), "{atomic:#x}");
        }
    }

    #[test]
    fn what_has_no_ordered_form_is_refused() {
        // ldr x1, [x2, #256]; ldr x1, [x2, x3]; ldr x1, [x2], #8
        for word in [0xf940_8041, 0xf863_6841, 0xf840_8441] {
            assert_eq!(rewritten(&[word], "aarch64-v8.4"), Err(NoOrderedForm(word)));
        }
    }

    #[test]
    fn lrcpc_makes_acquires_cheaper() {
        // ldar x1, [x2] -> ldapr x1, [x2]; ldarb; stlr and ldaxr stay.
        let cases = [
            (0xc8df_fc41, 0xf8bf_c041),
            (0x08df_fc41, 0x38bf_c041),
            (0xc89f_fc41, 0xc89f_fc41),
            (0xc85f_fc41, 0xc85f_fc41),
        ];
        for (before, after) in cases {
            assert_eq!(rewritten(&[before], "aarch64-v8.3"), Ok(vec![after]), "{before:#x}");
            assert_eq!(rewritten(&[before], "aarch64"), Ok(vec![before]), "{before:#x}");
        }
    }

    #[test]
    fn a_fenced_accesses_barrier_is_no_stronger_than_it_must_be() {
        #[rustfmt::skip]
        let loads = [
            0x3dc0_0041, // ldr q1, [x2]
            0x3cdf_0041, // ldur q1, [x2, #-16]
            0x3ce3_6841, // ldr q1, [x2, x3]
            0xfd40_0041, // ldr d1, [x2]
            0xf863_6841, // ldr x1, [x2, x3]
            0xb980_0041, // ldrsw x1, [x2]
            0x3940_0441, // ldrb w1, [x2, #1]
        ];
        // The second of two barriers is somebody else's.
        for load in loads {
            let expected = Ok(vec![load, DMB_ISHLD, DMB_ISH]);
            assert_eq!(strengthened(&[load, DMB_ISH, DMB_ISH], (0, true), "aarch64-v8.4"), expected, "{load:#x}");
        }
        // str q1, [x2]; str x1, [x2]; strb w1, [x2, #1]; str d1, [x2]
        for store in [0x3d80_0041, 0xf900_0041, 0x3900_0441, 0xfd00_0041] {
            let expected = Ok(vec![DMB_ISH, DMB_ISHST, store, DMB_ISH]);
            assert_eq!(
                strengthened(&[DMB_ISH, DMB_ISH, store, DMB_ISH], (8, true), "aarch64-v8.4"),
                expected,
                "{store:#x}"
            );
        }
    }
}
