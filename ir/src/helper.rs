//! `Helper`: operations that run out of line, as data; bodies in `helper/`.
//!
//! ABI, the same in every engine: `fn(&mut CpuState, a, b, c: u64) -> u64`. Integer arguments come zero-extended,
//! floats as their bits; a `v128` argument with index i comes in `cpu.scratch[i]`; a `v128` result is left in
//! `cpu.scratch[0]`.
//!
//! Invariants: helpers never touch guest memory (the lifter loads and stores around them), never fault, and of the
//! guest's registers only see what their effect says.

mod crypto;
mod elementary;
pub mod estimates;
mod f80;
pub(crate) mod simd;
pub mod strings;
pub mod x87;
mod x87_image;
pub mod x87_pointers;

use crate::state::CpuState;
use crate::types::Type;

/// What part of the guest state a helper sees besides its arguments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HelperEffect {
    /// Nothing: a function of its arguments.
    Pure,
    /// Reads or writes the x87 state.
    X87,
    /// Computes under MXCSR and raises its flags. An engine that lets exceptions be unmasked clears the flags before and looks at
    /// them behind.
    Mxcsr,
    /// Asks the host (time, random numbers): goes through the gate for nondeterminism.
    Host,
}

/// A helper's body, for those that need nothing but [`CpuState`].
pub type HelperFn = fn(&mut CpuState, u64, u64, u64) -> u64;

/// A helper as generated code calls it.
pub type HelperEntry = extern "C" fn(&mut CpuState, u64, u64, u64) -> u64;

macro_rules! helpers {
    ($( $(#[doc = $doc:literal])* $variant:ident $name:literal ($($arg:ident),*) -> $ret:ident, $effect:ident, $body:expr; )*) => {
        /// An out-of-line operation.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u16)]
        pub enum Helper { $( $(#[doc = $doc])* $variant, )* }

        impl Helper {
            /// Every helper: the order of the table in `Rt::helpers`.
            pub const ALL: &'static [Helper] = &[ $( Helper::$variant, )* ];

            /// Text form.
            pub fn name(self) -> &'static str { match self { $( Helper::$variant => $name, )* } }

            /// Argument types.
            pub fn args(self) -> &'static [Type] { match self { $( Helper::$variant => &[$(Type::$arg),*], )* } }

            /// Result type, `Type::None` for none.
            pub fn ret(self) -> Type { match self { $( Helper::$variant => Type::$ret, )* } }

            /// What else it sees.
            pub fn effect(self) -> HelperEffect { match self { $( Helper::$variant => HelperEffect::$effect, )* } }

            /// The body; `None` for those of [`HelperEffect::Host`], which the runtime provides.
            pub fn body(self) -> Option<HelperFn> { match self { $( Helper::$variant => $body, )* } }

            /// The body with the C convention, for the table that generated code calls through.
            pub fn entry(self) -> Option<HelperEntry> {
                match self {
                    $( Helper::$variant => {
                        const BODY: Option<HelperFn> = $body;
                        extern "C" fn entry(cpu: &mut CpuState, a: u64, b: u64, c: u64) -> u64 {
                            BODY.map_or(0, |body| body(cpu, a, b, c))
                        }
                        BODY.is_some().then_some(entry as HelperEntry)
                    } )*
                }
            }
        }
    };
}

impl Helper {
    /// The helper with this discriminant.
    pub fn from_code(code: u16) -> Helper {
        Self::ALL[code as usize]
    }

    /// The helper with this text form.
    pub fn from_name(name: &str) -> Option<Helper> {
        Self::ALL.iter().copied().find(|h| h.name() == name)
    }
}

helpers! {
    /// Quotient of the unsigned 128-bit a:b by c; the caller has checked that it fits.
    Udiv128 "udiv128" (I64, I64, I64) -> I64, Pure, Some(|_, hi, lo, d| ((u128::from(hi) << 64 | u128::from(lo)) / u128::from(d)) as u64);
    /// Remainder of the same.
    Urem128 "urem128" (I64, I64, I64) -> I64, Pure, Some(|_, hi, lo, d| ((u128::from(hi) << 64 | u128::from(lo)) % u128::from(d)) as u64);
    /// Quotient of the signed 128-bit a:b by c; the caller has checked that it fits.
    Sdiv128 "sdiv128" (I64, I64, I64) -> I64, Pure, Some(|_, hi, lo, d| ((u128::from(hi) << 64 | u128::from(lo)) as i128).wrapping_div(i128::from(d as i64)) as u64);
    /// Remainder of the same.
    Srem128 "srem128" (I64, I64, I64) -> I64, Pure, Some(|_, hi, lo, d| ((u128::from(hi) << 64 | u128::from(lo)) as i128).wrapping_rem(i128::from(d as i64)) as u64);
    /// `i1`: whether signed a:b / c raises #DE (c = 0, or the quotient does not fit 64 bits).
    SdivFaults "sdiv_faults" (I64, I64, I64) -> I1, Pure, Some(sdiv_faults);
    /// PDEP: the low bits of a where b has ones, in order.
    Pdep "pdep" (I64, I64) -> I64, Pure, Some(pdep);
    /// PEXT: the bits of a where b has ones, gathered at the low end.
    Pext "pext" (I64, I64) -> I64, Pure, Some(pext);
    /// CPUID of leaf a, subleaf b: EAX, EBX, ECX, EDX as `i32x4`.
    Cpuid "cpuid" (I32, I32) -> V128, Host, None;
    /// Time stamp counter.
    Rdtsc "rdtsc" () -> I64, Host, None;
    /// TSC_AUX: node and cpu, as Linux sets it for RDTSCP and RDPID.
    TscAux "tsc_aux" () -> I32, Host, None;
    /// 64 random bits for RDRAND and RDSEED.
    Random "random" () -> I64, Host, None;
    /// For profiles: the CALL at pc a is about to go to b, with the return address at c on the stack.
    ProfileCall "profile_call" (I64, I64, I64) -> None, Host, None;
    /// For profiles: the RET at pc a is about to go to b, having found that at c on the stack.
    ProfileReturn "profile_return" (I64, I64, I64) -> None, Host, None;
    /// For profiles: the jump at pc a is about to go to b, perhaps out of the function, with stack pointer c.
    ProfileJump "profile_jump" (I64, I64, I64) -> None, Host, None;

    /// `i1`: whether an unmasked x87 exception is pending; see `helper/x87.rs` for "waiting" helpers, whose `i1` result says the same.
    X87Pending "x87_pending" () -> I1, X87, Some(x87::pending);
    /// Waiting: pushes an `f32`.
    X87LoadF32 "x87_load_f32" (I32) -> I1, X87, Some(x87::load_f32);
    /// Waiting: pushes an `f64`.
    X87LoadF64 "x87_load_f64" (I64) -> I1, X87, Some(x87::load_f64);
    /// Waiting: pushes an 80-bit number: significand, sign and exponent.
    X87LoadF80 "x87_load_f80" (I64, I16) -> I1, X87, Some(x87::load_f80);
    /// Waiting: pushes a sign-extended integer.
    X87LoadInt "x87_load_int" (I64) -> I1, X87, Some(x87::load_int);
    /// Waiting: pushes a packed decimal.
    X87LoadBcd "x87_load_bcd" (I64, I16) -> I1, X87, Some(x87::load_bcd);
    /// Waiting: pushes ST(a).
    X87LoadSt "x87_load_st" (I32) -> I1, X87, Some(x87::load_st);
    /// Waiting: pushes constant a (order of FLD1..FLDZ).
    X87LoadConst "x87_load_const" (I32) -> I1, X87, Some(x87::load_const);
    /// ST(0) as `f32` bits; like all `x87_store_*` it changes nothing: `x87_store_done` does.
    X87StoreF32 "x87_store_f32" () -> I32, X87, Some(x87::store_f32);
    /// ST(0) as `f64` bits.
    X87StoreF64 "x87_store_f64" () -> I64, X87, Some(x87::store_f64);
    /// Significand of ST(0).
    X87StoreF80Low "x87_store_f80_low" () -> I64, X87, Some(x87::store_f80_low);
    /// Sign and exponent of ST(0).
    X87StoreF80High "x87_store_f80_high" () -> I16, X87, Some(x87::store_f80_high);
    /// ST(0) as an integer of a bits, truncated if b is 1, else rounded by the control word.
    X87StoreInt "x87_store_int" (I32, I32) -> I64, X87, Some(x87::store_int);
    /// Low 16 digits of ST(0) as packed decimal.
    X87StoreBcdLow "x87_store_bcd_low" () -> I64, X87, Some(x87::store_bcd_low);
    /// High two digits and sign.
    X87StoreBcdHigh "x87_store_bcd_high" () -> I16, X87, Some(x87::store_bcd_high);
    /// Waiting: copies ST(0) to ST(a & 7); a + 256 pops.
    X87StoreSt "x87_store_st" (I32) -> I1, X87, Some(x87::store_st);
    /// `i1`: whether the conversion that has just been made raises no unmasked exception that keeps the result from memory.
    X87StoreAllowed "x87_store_allowed" () -> I1, X87, Some(x87::store_allowed);
    /// Behind the store of an `x87_store_*` result: raises what the conversion did; a = 256 pops.
    X87StoreDone "x87_store_done" (I32) -> None, X87, Some(x87::store_done);
    /// Waiting: ST(b & 7) = ST(b & 7) op ST(c), a the `Arith` code; b + 256 pops.
    X87ArithSt "x87_arith_st" (I32, I32, I32) -> I1, X87, Some(x87::arith_st);
    /// Waiting: ST(0) = ST(0) op the `f32` b.
    X87ArithF32 "x87_arith_f32" (I32, I32) -> I1, X87, Some(x87::arith_f32);
    /// Waiting: ST(0) = ST(0) op the `f64` b.
    X87ArithF64 "x87_arith_f64" (I32, I64) -> I1, X87, Some(x87::arith_f64);
    /// Waiting: ST(0) = ST(0) op the sign-extended integer b.
    X87ArithInt "x87_arith_int" (I32, I64) -> I1, X87, Some(x87::arith_int);
    /// Waiting: compares ST(0) with ST(a) into C3 C2 C0; b: 1 for quiet, + 256 a pop.
    X87CompareSt "x87_compare_st" (I32, I32) -> I1, X87, Some(x87::compare_st);
    /// Waiting: compares ST(0) with the `f32` a.
    X87CompareF32 "x87_compare_f32" (I32, I32) -> I1, X87, Some(x87::compare_f32);
    /// Waiting: compares ST(0) with the `f64` a.
    X87CompareF64 "x87_compare_f64" (I64, I32) -> I1, X87, Some(x87::compare_f64);
    /// Waiting: compares ST(0) with the sign-extended integer a.
    X87CompareInt "x87_compare_int" (I64, I32) -> I1, X87, Some(x87::compare_int);
    /// Compares ST(0) with ST(a), b as above; ZF, PF and CF in their places in RFLAGS.
    X87CompareFlags "x87_compare_flags" (I32, I32) -> I32, X87, Some(x87::compare_flags);
    /// Waiting: exchanges ST(0) and ST(a).
    X87Exchange "x87_exchange" (I32) -> I1, X87, Some(x87::exchange);
    /// Waiting: empties ST(a & 7); a + 256 pops.
    X87Free "x87_free" (I32) -> I1, X87, Some(x87::free);
    /// Waiting: ST(0) = ST(a) if b.
    X87Cmov "x87_cmov" (I32, I1) -> I1, X87, Some(x87::cmov);
    /// Waiting: the `StackOp` of code a.
    X87Op "x87_op" (I32) -> I1, X87, Some(x87::stack_op);
    /// FNINIT.
    X87Init "x87_init" () -> None, X87, Some(x87::init);
    /// FNCLEX.
    X87ClearExceptions "x87_clear_exceptions" () -> None, X87, Some(x87::clear_exceptions);
    /// The control word.
    X87Control "x87_control" () -> I16, X87, Some(x87::control);
    /// Waiting: sets the control word.
    X87SetControl "x87_set_control" (I16) -> I1, X87, Some(x87::set_control);
    /// The status word.
    X87Status "x87_status" () -> I16, X87, Some(x87::status);
    /// Word a (0..3) of the FNSTENV image: control, status, tags.
    X87EnvWord "x87_env_word" (I32) -> I32, X87, Some(x87_image::env_word);
    /// Sets control, status and tag word.
    X87SetEnv "x87_set_env" (I16, I16, I16) -> None, X87, Some(x87_image::set_env);
    /// Masks all exceptions.
    X87MaskAll "x87_mask_all" () -> None, X87, Some(x87_image::mask_all);
    /// Significand of ST(a), whatever its tag.
    X87RegLow "x87_reg_low" (I32) -> I64, X87, Some(x87_image::reg_low);
    /// Sign and exponent of ST(a).
    X87RegHigh "x87_reg_high" (I32) -> I16, X87, Some(x87_image::reg_high);
    /// Sets ST(a) to significand b, sign and exponent c, leaving its tag.
    X87SetReg "x87_set_reg" (I32, I64, I16) -> None, X87, Some(x87_image::set_reg);
    /// The first 8 bytes of FXSAVE's image; a is `Reg::X87_CODE`.
    X87FxsaveHead "x87_fxsave_head" (I64) -> I64, X87, Some(x87_image::fxsave_head);
    /// Sets what they hold.
    X87SetFxsaveHead "x87_set_fxsave_head" (I64) -> None, X87, Some(x87_image::set_fxsave_head);
    /// What image a (an `Image`) shows of `Reg::X87_CODE`, b.
    X87CodePointer "x87_code_pointer" (I32, I64) -> I64, X87, Some(x87_pointers::code_pointer);
    /// What image a shows of `Reg::X87_DATA`, b.
    X87DataPointer "x87_data_pointer" (I32, I64) -> I64, X87, Some(x87_pointers::data_pointer);
    /// What the bytes b of image a make either.
    X87LoadedPointer "x87_loaded_pointer" (I32, I64) -> I64, Pure, Some(x87_pointers::loaded_pointer);
    /// Sets the opcode that was loaded.
    X87SetOpcode "x87_set_opcode" (I16) -> None, X87, Some(x87_pointers::set_opcode);
    /// MMX register a; see `mmx_enter`.
    MmxGet "mmx_get" (I32) -> I64, X87, Some(x87_image::mmx_get);
    /// Writes b to MMX register a.
    MmxSet "mmx_set" (I32, I64) -> None, X87, Some(x87_image::mmx_set);
    /// What every MMX instruction does to TOP and tags.
    MmxEnter "mmx_enter" () -> None, X87, Some(x87_image::mmx_enter);
    /// EMMS.
    Emms "emms" () -> None, X87, Some(x87_image::emms);

    /// a * b + c in `f32`, rounded once: for hosts without such an instruction.
    FmaF32 "fma_f32" (F32, F32, F32) -> F32, Mxcsr, Some(simd::fma_f32);
    /// The same in `f64`.
    FmaF64 "fma_f64" (F64, F64, F64) -> F64, Mxcsr, Some(simd::fma_f64);
    /// Four half-precision floats in the low 64 bits to `f32x4`.
    HalfToF32x4 "half_to_f32x4" (V128) -> V128, Mxcsr, Some(simd::half_to_f32x4);
    /// `f32x4` to four half-precision floats in the low 64 bits, rounded as the immediate b of VCVTPS2PH says.
    F32x4ToHalf "f32x4_to_half" (V128, I32) -> V128, Mxcsr, Some(simd::f32x4_to_half);
    /// 32-bit lanes of the 256-bit a (low), b (high) chosen by the low three bits of c's lanes (VPERMD).
    Permute8 "permute8" (V128, V128, V128) -> V128, Pure, Some(simd::permute8);
    /// a's lanes shifted by b's: lanes of c & 0xff bits, to the left (c >> 8 = 0), right (1), right with signs (2).
    ShiftLanes "shift_lanes" (V128, V128, I32) -> V128, Pure, Some(simd::shift_lanes);
    /// RCPPS: estimates of 1/x.
    Rcp "rcp" (V128) -> V128, Pure, Some(estimates::rcp);
    /// RSQRTPS: estimates of 1/sqrt(x).
    Rsqrt "rsqrt" (V128) -> V128, Pure, Some(estimates::rsqrt);
    /// Four `f32` rounded to integral numbers as the immediate b of ROUNDPS says.
    RoundF32x4 "round_f32x4" (V128, I32) -> V128, Mxcsr, Some(simd::round_f32x4);
    /// Two `f64`, likewise.
    RoundF64x2 "round_f64x2" (V128, I32) -> V128, Mxcsr, Some(simd::round_f64x2);
    /// CRC-32C a continued with the low c bytes of b.
    Crc32 "crc32" (I32, I64, I32) -> I32, Pure, Some(simd::crc32);
    /// PMULHRSW: products of 16-bit lanes, their bits 15 to 30 rounded.
    Pmulhrsw "pmulhrsw" (V128, V128) -> V128, Pure, Some(simd::pmulhrsw);
    /// PHMINPOSUW.
    Phminposuw "phminposuw" (V128) -> V128, Pure, Some(simd::phminposuw);
    /// MPSADBW with immediate c.
    Mpsadbw "mpsadbw" (V128, V128, I32) -> V128, Pure, Some(simd::mpsadbw);

    /// PCMPxSTRx: c holds the immediate (bits 0..8), the explicit lengths of a and b (8..16, 16..24) and whether they count (24); the result is described in `helper/strings.rs`.
    Pcmpstr "pcmpstr" (V128, V128, I64) -> I64, Pure, Some(strings::pcmpstr);
    /// The mask a of `pcmpstr` as PCMPxSTRM with immediate b leaves it in XMM0.
    PcmpstrMask "pcmpstr_mask" (I64, I32) -> V128, Pure, Some(strings::pcmpstr_mask);

    /// AESENC: state a, round key b.
    Aesenc "aesenc" (V128, V128) -> V128, Pure, Some(crypto::aesenc);
    /// AESENCLAST.
    Aesenclast "aesenclast" (V128, V128) -> V128, Pure, Some(crypto::aesenclast);
    /// AESDEC.
    Aesdec "aesdec" (V128, V128) -> V128, Pure, Some(crypto::aesdec);
    /// AESDECLAST.
    Aesdeclast "aesdeclast" (V128, V128) -> V128, Pure, Some(crypto::aesdeclast);
    /// AESIMC.
    Aesimc "aesimc" (V128) -> V128, Pure, Some(crypto::aesimc);
    /// AESKEYGENASSIST with round constant b.
    Aeskeygenassist "aeskeygenassist" (V128, I32) -> V128, Pure, Some(crypto::aeskeygenassist);
    /// PCLMULQDQ with immediate c.
    Pclmulqdq "pclmulqdq" (V128, V128, I32) -> V128, Pure, Some(crypto::pclmulqdq);
    /// GF2P8MULB: products of bytes in AES's field.
    Gf2p8mulb "gf2p8mulb" (V128, V128) -> V128, Pure, Some(crypto::gf2p8mulb);
    /// GF2P8AFFINEQB: each byte of a times the bit matrix in that half of b, plus the constant c.
    Gf2p8affineqb "gf2p8affineqb" (V128, V128, I32) -> V128, Pure, Some(crypto::gf2p8affineqb);
    /// GF2P8AFFINEINVQB: the same of the bytes' inverses in AES's field.
    Gf2p8affineinvqb "gf2p8affineinvqb" (V128, V128, I32) -> V128, Pure, Some(crypto::gf2p8affineinvqb);
    /// SHA1MSG1.
    Sha1msg1 "sha1msg1" (V128, V128) -> V128, Pure, Some(crypto::sha1msg1);
    /// SHA1MSG2.
    Sha1msg2 "sha1msg2" (V128, V128) -> V128, Pure, Some(crypto::sha1msg2);
    /// SHA1NEXTE.
    Sha1nexte "sha1nexte" (V128, V128) -> V128, Pure, Some(crypto::sha1nexte);
    /// SHA1RNDS4 with immediate c.
    Sha1rnds4 "sha1rnds4" (V128, V128, I32) -> V128, Pure, Some(crypto::sha1rnds4);
    /// SHA256MSG1.
    Sha256msg1 "sha256msg1" (V128, V128) -> V128, Pure, Some(crypto::sha256msg1);
    /// SHA256MSG2.
    Sha256msg2 "sha256msg2" (V128, V128) -> V128, Pure, Some(crypto::sha256msg2);
    /// SHA256RNDS2; c is XMM0.
    Sha256rnds2 "sha256rnds2" (V128, V128, V128) -> V128, Pure, Some(crypto::sha256rnds2);
}

fn sdiv_faults(_: &mut CpuState, hi: u64, lo: u64, d: u64) -> u64 {
    let dividend = (u128::from(hi) << 64 | u128::from(lo)) as i128;
    let fits = dividend.checked_div(i128::from(d as i64)).is_some_and(|q| i64::try_from(q).is_ok());
    u64::from(!fits)
}

/// The places of a mask's one bits, from the lowest up.
fn ones(mask: u64) -> impl Iterator<Item = u32> {
    std::iter::successors(Some(mask), |m| Some(m & m.wrapping_sub(1))).take_while(|m| *m != 0).map(u64::trailing_zeros)
}

fn pdep(_: &mut CpuState, v: u64, mask: u64, _: u64) -> u64 {
    ones(mask).zip(0u32..).fold(0, |r, (at, n)| r | (v >> n & 1) << at)
}

fn pext(_: &mut CpuState, v: u64, mask: u64, _: u64) -> u64 {
    ones(mask).zip(0u32..).fold(0, |r, (at, n)| r | (v >> at & 1) << n)
}
