//! `Helper`: operations that run out of line, as data; bodies in `helper/`.
//!
//! ABI, the same in every engine: `fn(&mut CpuState, a, b, c: u64) -> u64`. Integer arguments come zero-extended,
//! floats as their bits; a `v128` argument with index i comes in `cpu.scratch[i]`; a `v128` result is left in
//! `cpu.scratch[0]`.
//!
//! Invariants: helpers never touch guest memory (the lifter loads and stores around them), never fault, and of the
//! guest's registers only see what their effect says.

use crate::state::CpuState;
use crate::types::Type;

/// What part of the guest state a helper sees besides its arguments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HelperEffect {
    /// Nothing: a function of its arguments.
    Pure,
    /// Reads or writes the x87 state.
    X87,
    /// Reads or writes MXCSR.
    Mxcsr,
    /// Asks the host (time, random numbers): goes through the gate for nondeterminism.
    Host,
}

/// A helper's body, for those that need nothing but [`CpuState`].
pub type HelperFn = fn(&mut CpuState, u64, u64, u64) -> u64;

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
    /// CPUID of leaf a, subleaf b: EAX, EBX, ECX, EDX as `i32x4`.
    Cpuid "cpuid" (I32, I32) -> V128, Host, None;
    /// Time stamp counter.
    Rdtsc "rdtsc" () -> I64, Host, None;
    /// TSC_AUX: node and cpu, as Linux sets it for RDTSCP and RDPID.
    TscAux "tsc_aux" () -> I32, Host, None;
}

fn sdiv_faults(_: &mut CpuState, hi: u64, lo: u64, d: u64) -> u64 {
    let dividend = (u128::from(hi) << 64 | u128::from(lo)) as i128;
    let fits = dividend.checked_div(i128::from(d as i64)).is_some_and(|q| i64::try_from(q).is_ok());
    u64::from(!fits)
}
