//! Status flags as deferred recipes.
//!
//! Nearly every x86 instruction writes flags and nearly no flag is read. So a flag-setting instruction emits
//! nothing for them: it leaves a *recipe* (what was computed from what), and each of the six flags remembers which
//! recipe it comes from. A consumer asks for a condition ([`Lifter::cond`]) or for one flag ([`Lifter::flag`]);
//! with a known recipe a condition becomes one compare of operands or result, else it is put together from flags.
//!
//! Invariants:
//! 1. A flag whose bit in `dirty` is clear has its register (`Reg::CF`...) up to date.
//! 2. Recipes and their values live in the open block only. Before it closes, the dirty flags that may still be
//!    read are put ([`Lifter::flush_flags`]); `ahead.rs` decides which those are.
//! 3. A flag that the SDM leaves undefined is [`Source::Undefined`]: its register keeps what it held.
//!
//! Compares follow what the hosts do best (one instruction each): equality after a subtraction that is kept asks the
//! *result*, so that the old value need not stay alive; order asks the operands.

use super::Lifter;
use super::flow::{self, Live};
use calque_ir::deferred::{self, Setter};
use calque_ir::{Cc, FloatCc, Op, Reg, Type, Value};
use smallvec::SmallVec;

/// A set of status flags: bit i is `Reg::STATUS[i]` (CF PF AF ZF SF OF).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct FlagSet(pub(crate) u8);

#[allow(missing_docs)]
impl FlagSet {
    pub(crate) const NONE: FlagSet = FlagSet(0);
    pub(crate) const CF: FlagSet = FlagSet(1 << 0);
    pub(crate) const PF: FlagSet = FlagSet(1 << 1);
    pub(crate) const AF: FlagSet = FlagSet(1 << 2);
    pub(crate) const ZF: FlagSet = FlagSet(1 << 3);
    pub(crate) const SF: FlagSet = FlagSet(1 << 4);
    pub(crate) const OF: FlagSet = FlagSet(1 << 5);
    pub(crate) const ALL: FlagSet = FlagSet(0x3f);

    pub(crate) const fn or(self, other: FlagSet) -> FlagSet {
        FlagSet(self.0 | other.0)
    }

    pub(crate) const fn and(self, other: FlagSet) -> FlagSet {
        FlagSet(self.0 & other.0)
    }

    pub(crate) const fn without(self, other: FlagSet) -> FlagSet {
        FlagSet(self.0 & !other.0)
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn contains(self, flag: Flag) -> bool {
        self.0 >> flag as u8 & 1 != 0
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Flag> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let flag = *Flag::ALL.get(rest.trailing_zeros() as usize)?;
            rest &= rest - 1;
            Some(flag)
        })
    }
}

/// A status flag: its place in `Reg::STATUS` and [`FlagSet`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub(crate) enum Flag {
    Cf,
    Pf,
    Af,
    Zf,
    Sf,
    Of,
}

impl Flag {
    /// In the order of `Reg::STATUS`.
    pub(crate) const ALL: [Flag; 6] = [Flag::Cf, Flag::Pf, Flag::Af, Flag::Zf, Flag::Sf, Flag::Of];

    /// The register that holds it.
    pub(crate) fn reg(self) -> Reg {
        Reg::STATUS[self as usize]
    }

    /// The set of just this flag.
    pub(crate) fn set(self) -> FlagSet {
        FlagSet(1 << self as u8)
    }
}

/// A condition of Jcc, SETcc, CMOVcc, in the order of its encoding (SDM vol. 1 appendix B); odd ones are the negated even ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
#[allow(missing_docs)]
pub(crate) enum Cond {
    O,
    No,
    B,
    Ae,
    E,
    Ne,
    Be,
    A,
    S,
    Ns,
    P,
    Np,
    L,
    Ge,
    Le,
    G,
}

impl Cond {
    /// The condition without its negation, and whether it is negated.
    fn split(self) -> (Cond, bool) {
        use Cond::*;
        let base = [O, B, E, Be, S, P, L, Le][self as usize >> 1];
        (base, self as u8 & 1 != 0)
    }

    /// The flags it reads.
    pub(crate) fn reads(self) -> FlagSet {
        READS[self as usize >> 1]
    }
}

/// The flags that a condition reads, by the upper three bits of its encoding.
pub(super) static READS: [FlagSet; 8] = {
    let sf_of = FlagSet::SF.or(FlagSet::OF);
    let be = FlagSet::CF.or(FlagSet::ZF);
    [FlagSet::OF, FlagSet::CF, FlagSet::ZF, be, FlagSet::SF, FlagSet::PF, sf_of, sf_of.or(FlagSet::ZF)]
};

/// What an instruction computed, as far as flags are concerned. `r` is the result, of the operation's width.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Recipe {
    /// a + b.
    Add { a: Value, b: Value, r: Value },
    /// a + b + carry (`i1`).
    Adc { a: Value, b: Value, c: Value, r: Value },
    /// a - b, the result written somewhere: SUB, NEG (a = 0), CMPXCHG.
    Sub { a: Value, b: Value, r: Value },
    /// a - b for the flags only: CMP, SCAS.
    Cmp { a: Value, b: Value },
    /// a - b - borrow (`i1`).
    Sbb { a: Value, b: Value, c: Value, r: Value },
    /// AND, OR, XOR, TEST: CF = OF = AF = 0.
    Logic { r: Value },
    /// a + 1 without CF.
    Inc { a: Value, r: Value },
    /// a - 1 without CF.
    Dec { a: Value, r: Value },
    /// a shifted left by n, 1 <= n; `n` is of a's width and may pass it for narrow operands.
    Shl { a: Value, n: Value, r: Value },
    /// a shifted right by n, zeros in.
    Shr { a: Value, n: Value, r: Value },
    /// a shifted right by n, sign bits in.
    Sar { a: Value, n: Value, r: Value },
    /// As `Shr` with other bits coming in: OF is a change of sign.
    Shrd { a: Value, n: Value, r: Value },
    /// Rotated left: CF and OF only.
    Rol { r: Value },
    /// Rotated right: CF and OF only.
    Ror { r: Value },
    /// Comparison of floats as UCOMISS leaves it (SDM vol. 2 UCOMISD): ZF PF CF, the others 0.
    Float { a: Value, b: Value },
    /// The last recipe if `is_zero` is 0, else the flags as they were: a shift whose count may be zero.
    /// `then` is a recipe's index, `old` that of the sources before.
    Unless { is_zero: Value, then: u32, old: u32 },
}

/// Where a flag's value comes from.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Source {
    /// Its register.
    #[default]
    Stored,
    /// A constant.
    Const(bool),
    /// An `i1` value.
    Known(Value),
    /// A recipe, by index.
    Recipe(u32),
    /// Nothing: undefined, the register is as good as anything.
    Undefined,
}

/// State of the six flags within the open block.
#[derive(Default)]
pub(crate) struct Flags {
    sources: [Source; 6],
    dirty: FlagSet,
    /// Whether the deferred flags' registers say what the flags are.
    deferred: bool,
    recipes: SmallVec<[(Recipe, Type); 4]>,
    /// Sources that flags may still come from, where a recipe only counts sometimes.
    kept: Vec<[Source; 6]>,
}

impl Flags {
    /// All flags in their registers: the state at the start of a block.
    pub(crate) fn reset(&mut self) {
        self.sources = [Source::Stored; 6];
        (self.dirty, self.deferred) = (FlagSet::NONE, false);
        self.recipes.clear();
        self.kept.clear();
    }

    /// Flags whose registers are out of date.
    pub(crate) fn dirty(&self) -> FlagSet {
        self.dirty
    }

    /// Where a flag comes from.
    pub(crate) fn source(&self, flag: Flag) -> Source {
        self.sources[flag as usize]
    }

    /// A recipe and its operands' type.
    pub(crate) fn recipe(&self, k: u32) -> (Recipe, Type) {
        self.recipes[k as usize]
    }

    fn set(&mut self, flags: FlagSet, source: Source) {
        if flags == FlagSet::ALL {
            self.sources = [source; 6];
        } else {
            flags.iter().for_each(|f| self.sources[f as usize] = source);
        }
        self.dirty = match source {
            Source::Stored | Source::Undefined => self.dirty.without(flags),
            _ => self.dirty.or(flags),
        };
        self.deferred = false;
    }

    fn push(&mut self, recipe: Recipe, ty: Type) -> u32 {
        self.recipes.push((recipe, ty));
        self.recipes.len() as u32 - 1
    }
}

impl Recipe {
    /// The flags it defines, and those it leaves undefined.
    fn writes(&self) -> (FlagSet, FlagSet) {
        let no_cf = FlagSet::ALL.without(FlagSet::CF);
        match self {
            Recipe::Inc { .. } | Recipe::Dec { .. } => (no_cf, FlagSet::NONE),
            Recipe::Logic { .. }
            | Recipe::Shl { .. }
            | Recipe::Shr { .. }
            | Recipe::Sar { .. }
            | Recipe::Shrd { .. } => (FlagSet::ALL.without(FlagSet::AF), FlagSet::AF),
            Recipe::Rol { .. } | Recipe::Ror { .. } => (FlagSet::CF.or(FlagSet::OF), FlagSet::NONE),
            _ => (FlagSet::ALL, FlagSet::NONE),
        }
    }
}

/// What flags that are deferred can be computed from.
pub(super) struct Deferrable {
    setter: Setter,
    ty: Type,
    a: Value,
    b: Option<Value>,
    carry: Option<Value>,
}

const CARRY: u64 = deferred::CARRY_SHIFT as u64;

/// Setting flags.
impl Lifter<'_> {
    /// All status flags now come from `recipe`, whose operands have type `ty`.
    pub(crate) fn set_flags(&mut self, recipe: Recipe, ty: Type) {
        let (defined, undefined) = recipe.writes();
        let written = defined.or(undefined);
        if written == FlagSet::ALL {
            self.flags.recipes.clear();
        }
        let k = self.flags.push(recipe, ty);
        self.flags.set(written, Source::Recipe(k));
        if !undefined.is_empty() {
            self.flags.set(undefined, Source::Undefined);
        }
    }

    /// Only `flags` come from `recipe`, the other status flags become undefined.
    pub(crate) fn set_flags_only(&mut self, flags: FlagSet, recipe: Recipe, ty: Type) {
        self.flags.recipes.clear();
        let k = self.flags.push(recipe, ty);
        self.flags.set(flags, Source::Recipe(k));
        self.flags.set(FlagSet::ALL.without(flags), Source::Undefined);
    }

    /// As [`Lifter::set_flags`], but the flags stay as they were where `is_zero` (`i1`) holds.
    pub(crate) fn set_flags_unless(&mut self, is_zero: Value, recipe: Recipe, ty: Type) {
        let (defined, _) = recipe.writes();
        let then = self.flags.push(recipe, ty);
        let old = self.flags.kept.len() as u32;
        self.flags.kept.push(self.flags.sources);
        let k = self.flags.push(Recipe::Unless { is_zero, then, old }, ty);
        self.flags.set(defined, Source::Recipe(k));
    }

    /// One flag becomes an `i1` value.
    pub(crate) fn set_flag(&mut self, flag: Flag, value: Value) {
        self.flags.set(flag.set(), Source::Known(value));
    }

    /// Flags become a constant.
    pub(crate) fn set_flags_const(&mut self, flags: FlagSet, value: bool) {
        self.flags.set(flags, Source::Const(value));
    }

    /// Flags become undefined.
    pub(crate) fn set_flags_undefined(&mut self, flags: FlagSet) {
        self.flags.set(flags, Source::Undefined);
    }

    /// Puts the dirty flags among `live`. They may go on being asked for from their recipes.
    pub(crate) fn flush_flags(&mut self, live: FlagSet) {
        let flags = self.flags.dirty.and(live);
        for f in flags.iter() {
            let v = self.flag(f);
            self.b.put(f.reg(), v);
            self.flags.dirty = self.flags.dirty.without(f.set());
        }
        if !flags.is_empty() && self.defers() {
            let none = self.b.iconst(Type::I32, 0);
            self.b.put(Reg::FLAGS_KIND, none);
            self.flags.deferred = false;
        }
    }

    /// A signal handler may look at the flags next: makes them be in their registers, or deferred.
    pub(crate) fn show_flags(&mut self) {
        let live = if self.shows_deferred() { flow::UNKNOWN } else { Live::read(FlagSet::ALL) };
        self.put_flags(live);
    }

    /// Puts the dirty flags that are read behind the block, and defers those that only an unknown place may read.
    pub(super) fn put_flags(&mut self, live: Live) {
        let deferred = live.unknown.and(self.flags.dirty).without(live.read);
        let setter = if deferred.is_empty() { None } else { self.deferrable() };
        self.flush_flags(if setter.is_some() { live.read } else { live.read.or(live.unknown) });
        if let Some(Deferrable { setter, ty, a, b, carry }) = setter.filter(|_| !self.flags.deferred) {
            self.flags.deferred = true;
            let mut kind = self.b.iconst(Type::I32, u64::from(deferred::kind_of(setter, ty)));
            if let Some(carry) = carry {
                let (wide, n) = (self.b.unary(Op::Uextend, Type::I32, carry), self.b.iconst(Type::I32, CARRY));
                let carry = self.b.binary(Op::Ishl, Type::I32, wide, n);
                kind = self.b.binary(Op::Bor, Type::I32, carry, kind);
            }
            self.b.put(Reg::FLAGS_KIND, kind);
            self.put_operand(Reg::FLAGS_A, ty, a);
            if let Some(b) = b {
                self.put_operand(Reg::FLAGS_B, ty, b);
            }
        }
    }

    /// How the six flags can be deferred, if they come from one recipe that can be.
    pub(super) fn deferrable(&self) -> Option<Deferrable> {
        let (mut common, mut clears_af) = (None, false);
        for flag in Flag::ALL {
            match self.flags.source(flag) {
                Source::Recipe(k) if common.is_none_or(|c| c == k) => common = Some(k),
                Source::Undefined => {}
                Source::Const(false) if flag == Flag::Af => clears_af = true,
                _ => return None,
            }
        }
        let (recipe, ty) = self.flags.recipe(common?);
        let (setter, a, b, carry) = match recipe {
            Recipe::Logic { r } => (Setter::Logic, r, None, None),
            _ if clears_af => return None,
            Recipe::Add { a, b, .. } => (Setter::Add, a, Some(b), None),
            Recipe::Sub { a, b, .. } | Recipe::Cmp { a, b } => (Setter::Sub, a, Some(b), None),
            Recipe::Adc { a, b, c, .. } => (Setter::Adc, a, Some(b), Some(c)),
            Recipe::Sbb { a, b, c, .. } => (Setter::Sbb, a, Some(b), Some(c)),
            _ => return None,
        };
        Some(Deferrable { setter, ty, a, b, carry })
    }

    fn put_operand(&mut self, reg: Reg, ty: Type, v: Value) {
        let wide = if ty.bits() < 32 { self.b.unary(Op::Uextend, Type::I32, v) } else { v };
        let ty = if ty == Type::I64 { ty } else { Type::I32 };
        self.b.inst(Op::Put, ty, reg.index() as u16, [wide.0, 0, 0, 0]);
    }
}

/// Asking for flags.
impl Lifter<'_> {
    /// The value (`i1`) of one flag.
    pub(crate) fn flag(&mut self, flag: Flag) -> Value {
        let v = self.flag_from(self.flags.sources[flag as usize], flag);
        self.flags.sources[flag as usize] = match self.flags.sources[flag as usize] {
            // Keep the recipe: conditions over several flags are cheaper from it.
            kept @ Source::Recipe(_) => kept,
            _ => Source::Known(v),
        };
        v
    }

    fn flag_from(&mut self, source: Source, flag: Flag) -> Value {
        match source {
            Source::Stored | Source::Undefined => self.b.get(Type::I1, flag.reg()),
            Source::Const(v) => self.b.iconst(Type::I1, u64::from(v)),
            Source::Known(v) => v,
            Source::Recipe(k) => self.flag_of_recipe(k, flag),
        }
    }

    fn flag_of_recipe(&mut self, k: u32, flag: Flag) -> Value {
        let (recipe, ty) = self.flags.recipe(k);
        if let Recipe::Unless { is_zero, then, old } = recipe {
            let new = self.flag_of_recipe(then, flag);
            let old = self.flag_from(self.flags.kept[old as usize][flag as usize], flag);
            return self.b.select(Type::I1, is_zero, old, new);
        }
        match flag {
            Flag::Cf => self.carry(recipe, ty),
            Flag::Pf => self.parity(recipe, ty),
            Flag::Af => self.half_carry(recipe, ty),
            Flag::Zf => self.zero(recipe, ty),
            Flag::Sf => self.sign(recipe, ty),
            Flag::Of => self.overflow(recipe, ty),
        }
    }

    fn carry(&mut self, recipe: Recipe, ty: Type) -> Value {
        match recipe {
            // Less than either: the second operand is rarely where the sum goes.
            Recipe::Add { b, r, .. } => self.b.icmp(Cc::UnsignedLessThan, ty, r, b),
            Recipe::Adc { a, b, c, .. } => self.b.ternary(Op::UaddOverflowCin, ty, a, b, c),
            Recipe::Sub { a, b, .. } | Recipe::Cmp { a, b } => self.b.icmp(Cc::UnsignedLessThan, ty, a, b),
            Recipe::Sbb { a, b, c, .. } => self.b.ternary(Op::UsubOverflowBin, ty, a, b, c),
            Recipe::Shl { a, n, .. } => self.shl_carry(a, n, ty),
            Recipe::Shr { a, n, .. } | Recipe::Shrd { a, n, .. } => self.shr_carry(a, n, ty, Op::Ushr),
            Recipe::Rol { r } => self.bit(r, 0, ty),
            Recipe::Ror { r } => self.compare_zero(Cc::SignedLessThan, ty, r),
            Recipe::Sar { a, n, .. } => self.shr_carry(a, n, ty, Op::Sshr),
            Recipe::Float { a, b } => self.b.fcmp(FloatCc::UnorderedOrLessThan, ty, a, b),
            Recipe::Logic { .. } => self.b.iconst(Type::I1, 0),
            Recipe::Inc { .. } | Recipe::Dec { .. } | Recipe::Unless { .. } => unreachable!("no carry in {recipe:?}"),
        }
    }

    /// Bit `width - n` of a: the last one shifted out to the left. Counts past a narrow width give 0, as processors do.
    fn shl_carry(&mut self, a: Value, n: Value, ty: Type) -> Value {
        if let Some(n) = self.b.as_const(n) {
            return match u64::from(ty.bits()).checked_sub(n) {
                Some(at) => self.bit(a, at as u32, ty),
                None => self.b.iconst(Type::I1, 0),
            };
        }
        let (wide, a, n) = self.shift_in_wide(a, n, ty, Op::Uextend);
        let less = self.minus_one(n, wide);
        let r = self.b.binary(Op::Ishl, wide, a, less);
        self.bit(r, ty.bits() - 1, wide)
    }

    /// Bit `n - 1` of a.
    fn shr_carry(&mut self, a: Value, n: Value, ty: Type, shift: Op) -> Value {
        let extend = if shift == Op::Sshr { Op::Sextend } else { Op::Uextend };
        if let Some(n) = self.b.as_const(n).filter(|n| *n <= u64::from(ty.bits())) {
            return self.bit(a, n as u32 - 1, ty);
        }
        let (wide, a, n) = self.shift_in_wide(a, n, ty, extend);
        let less = self.minus_one(n, wide);
        let r = self.b.binary(shift, wide, a, less);
        self.bit(r, 0, wide)
    }

    /// n - 1 as a shift count that is in range for n = 0, too.
    fn minus_one(&mut self, n: Value, ty: Type) -> Value {
        let one = self.b.iconst(ty, 1);
        let less = self.b.binary(Op::Isub, ty, n, one);
        let mask = self.b.iconst(ty, u64::from(ty.bits()) - 1);
        self.b.binary(Op::Band, ty, less, mask)
    }

    /// Operands of a shift whose count (below 32) may pass a narrow width: extended to 32 bits.
    fn shift_in_wide(&mut self, a: Value, n: Value, ty: Type, extend: Op) -> (Type, Value, Value) {
        if ty.bits() >= 32 {
            return (ty, a, n);
        }
        (Type::I32, self.b.unary(extend, Type::I32, a), self.b.unary(Op::Uextend, Type::I32, n))
    }

    fn parity(&mut self, recipe: Recipe, ty: Type) -> Value {
        match recipe {
            Recipe::Float { a, b } => self.b.fcmp(FloatCc::Unordered, ty, a, b),
            _ => {
                let r = self.result(recipe, ty);
                self.b.unary(Op::Parity, ty, r)
            }
        }
    }

    fn half_carry(&mut self, recipe: Recipe, ty: Type) -> Value {
        let (a, b) = match recipe {
            Recipe::Add { a, b, .. } | Recipe::Adc { a, b, .. } => (a, b),
            Recipe::Sub { a, b, .. } | Recipe::Sbb { a, b, .. } | Recipe::Cmp { a, b } => (a, b),
            Recipe::Inc { a, .. } | Recipe::Dec { a, .. } => (a, self.b.iconst(ty, 1)),
            _ => return self.b.iconst(Type::I1, 0),
        };
        let r = self.result(recipe, ty);
        self.b.ternary(Op::HalfCarry, ty, a, b, r)
    }

    fn zero(&mut self, recipe: Recipe, ty: Type) -> Value {
        match recipe {
            Recipe::Cmp { a, b } => self.b.icmp(Cc::Equal, ty, a, b),
            Recipe::Float { a, b } => self.b.fcmp(FloatCc::UnorderedOrEqual, ty, a, b),
            _ => {
                let r = self.result(recipe, ty);
                self.compare_zero(Cc::Equal, ty, r)
            }
        }
    }

    fn sign(&mut self, recipe: Recipe, ty: Type) -> Value {
        if let Recipe::Float { .. } = recipe {
            return self.b.iconst(Type::I1, 0);
        }
        let r = self.result(recipe, ty);
        self.compare_zero(Cc::SignedLessThan, ty, r)
    }

    fn overflow(&mut self, recipe: Recipe, ty: Type) -> Value {
        let top = ty.bits() - 1;
        match recipe {
            Recipe::Add { a, b, .. } => self.b.binary(Op::SaddOverflow, ty, a, b),
            Recipe::Adc { a, b, c, .. } => self.b.ternary(Op::SaddOverflowCin, ty, a, b, c),
            Recipe::Sub { a, b, .. } | Recipe::Cmp { a, b } => self.b.binary(Op::SsubOverflow, ty, a, b),
            Recipe::Sbb { a, b, c, .. } => self.b.ternary(Op::SsubOverflowBin, ty, a, b, c),
            Recipe::Inc { r, .. } => self.equals(ty, r, 1 << top),
            Recipe::Dec { r, .. } => self.equals(ty, r, (1 << top) - 1),
            // Defined for a count of 1 only; what processors do for the others.
            Recipe::Shl { a, n, r } => {
                let cf = self.shl_carry(a, n, ty);
                let sf = self.compare_zero(Cc::SignedLessThan, ty, r);
                self.b.binary(Op::Bxor, Type::I1, cf, sf)
            }
            Recipe::Shr { a, .. } => self.compare_zero(Cc::SignedLessThan, ty, a),
            Recipe::Shrd { a, r, .. } => {
                let changed = self.b.binary(Op::Bxor, ty, a, r);
                self.compare_zero(Cc::SignedLessThan, ty, changed)
            }
            Recipe::Rol { r } => self.top_differs(ty, r, 0),
            Recipe::Ror { r } => self.top_differs(ty, r, top - 1),
            _ => self.b.iconst(Type::I1, 0),
        }
    }

    /// Whether the top bit and bit `n` differ.
    fn top_differs(&mut self, ty: Type, v: Value, n: u32) -> Value {
        let top = self.compare_zero(Cc::SignedLessThan, ty, v);
        let other = self.bit(v, n, ty);
        self.b.binary(Op::Bxor, Type::I1, top, other)
    }

    /// The result of a recipe; CMP computes it only if somebody asks.
    fn result(&mut self, recipe: Recipe, ty: Type) -> Value {
        match recipe {
            Recipe::Cmp { a, b } => self.b.binary(Op::Isub, ty, a, b),
            Recipe::Add { r, .. } | Recipe::Adc { r, .. } | Recipe::Sub { r, .. } | Recipe::Sbb { r, .. } => r,
            Recipe::Logic { r } | Recipe::Inc { r, .. } | Recipe::Dec { r, .. } => r,
            Recipe::Shl { r, .. } | Recipe::Shr { r, .. } | Recipe::Sar { r, .. } | Recipe::Shrd { r, .. } => r,
            Recipe::Rol { r } | Recipe::Ror { r } => r,
            Recipe::Float { .. } | Recipe::Unless { .. } => unreachable!("no result in {recipe:?}"),
        }
    }

    fn equals(&mut self, ty: Type, v: Value, imm: u64) -> Value {
        let k = self.b.iconst(ty, imm);
        self.b.icmp(Cc::Equal, ty, v, k)
    }

    /// `v cc 0`.
    pub(crate) fn compare_zero(&mut self, cc: Cc, ty: Type, v: Value) -> Value {
        let zero = self.b.iconst(ty, 0);
        self.b.icmp(cc, ty, v, zero)
    }

    /// Bit `n` of `v` as an `i1`.
    pub(crate) fn bit(&mut self, v: Value, n: u32, ty: Type) -> Value {
        let mask = self.b.iconst(ty, 1 << n);
        let masked = self.b.binary(Op::Band, ty, v, mask);
        self.compare_zero(Cc::NotEqual, ty, masked)
    }

    /// Logical not of an `i1`.
    pub(crate) fn not(&mut self, v: Value) -> Value {
        self.b.unary(Op::Bnot, Type::I1, v)
    }
}

/// Asking for conditions.
impl Lifter<'_> {
    /// The value (`i1`) of a condition.
    pub(crate) fn cond(&mut self, cond: Cond) -> Value {
        if let Some(v) = self.common_recipe(cond.reads()).and_then(|(recipe, ty)| self.cond_of_recipe(cond, recipe, ty))
        {
            return v;
        }
        let (base, negated) = cond.split();
        let v = self.cond_of_flags(base);
        if negated { self.not(v) } else { v }
    }

    /// The one recipe that all of `flags` come from.
    fn common_recipe(&self, flags: FlagSet) -> Option<(Recipe, Type)> {
        let mut common = None;
        for f in flags.iter() {
            match self.flags.sources[f as usize] {
                Source::Recipe(k) if common.is_none_or(|c| c == k) => common = Some(k),
                _ => return None,
            }
        }
        common.map(|k| self.flags.recipe(k))
    }

    fn cond_of_recipe(&mut self, cond: Cond, recipe: Recipe, ty: Type) -> Option<Value> {
        match recipe {
            Recipe::Cmp { a, b } => {
                let cc = order(cond).or(equality(cond))?;
                Some(self.b.icmp(cc, ty, a, b))
            }
            Recipe::Sub { a, b, r } => match order(cond) {
                Some(cc) => Some(self.b.icmp(cc, ty, a, b)),
                None => self.cond_of_result(cond, ty, r),
            },
            Recipe::Logic { r } => match signed(cond) {
                Some(cc) => Some(self.compare_zero(cc, ty, r)),
                None => self.cond_of_result(cond, ty, r),
            },
            Recipe::Add { r, .. }
            | Recipe::Adc { r, .. }
            | Recipe::Sbb { r, .. }
            | Recipe::Inc { r, .. }
            | Recipe::Dec { r, .. }
            | Recipe::Shl { r, .. }
            | Recipe::Shr { r, .. }
            | Recipe::Sar { r, .. }
            | Recipe::Shrd { r, .. } => self.cond_of_result(cond, ty, r),
            Recipe::Float { a, b } => Some(self.b.fcmp(float(cond)?, ty, a, b)),
            Recipe::Rol { .. } | Recipe::Ror { .. } | Recipe::Unless { .. } => None,
        }
    }

    /// Conditions that only look at the result.
    fn cond_of_result(&mut self, cond: Cond, ty: Type, r: Value) -> Option<Value> {
        let cc = match cond {
            Cond::S => Cc::SignedLessThan,
            Cond::Ns => Cc::SignedGreaterThanOrEqual,
            _ => equality(cond)?,
        };
        Some(self.compare_zero(cc, ty, r))
    }

    /// An even condition from single flags (SDM vol. 1 appendix B).
    fn cond_of_flags(&mut self, cond: Cond) -> Value {
        match cond {
            Cond::O => self.flag(Flag::Of),
            Cond::B => self.flag(Flag::Cf),
            Cond::E => self.flag(Flag::Zf),
            Cond::S => self.flag(Flag::Sf),
            Cond::P => self.flag(Flag::Pf),
            Cond::Be => {
                let (cf, zf) = (self.flag(Flag::Cf), self.flag(Flag::Zf));
                self.b.binary(Op::Bor, Type::I1, cf, zf)
            }
            Cond::L => {
                let (sf, of) = (self.flag(Flag::Sf), self.flag(Flag::Of));
                self.b.binary(Op::Bxor, Type::I1, sf, of)
            }
            _ => {
                let less = self.cond(Cond::L);
                let zf = self.flag(Flag::Zf);
                self.b.binary(Op::Bor, Type::I1, less, zf)
            }
        }
    }
}

/// The compare of a and b that a condition on a - b is, for the conditions that mean an order.
fn order(cond: Cond) -> Option<Cc> {
    Some(match cond {
        Cond::B => Cc::UnsignedLessThan,
        Cond::Ae => Cc::UnsignedGreaterThanOrEqual,
        Cond::Be => Cc::UnsignedLessThanOrEqual,
        Cond::A => Cc::UnsignedGreaterThan,
        Cond::L => Cc::SignedLessThan,
        Cond::Ge => Cc::SignedGreaterThanOrEqual,
        Cond::Le => Cc::SignedLessThanOrEqual,
        Cond::G => Cc::SignedGreaterThan,
        _ => return None,
    })
}

fn equality(cond: Cond) -> Option<Cc> {
    match cond {
        Cond::E => Some(Cc::Equal),
        Cond::Ne => Some(Cc::NotEqual),
        _ => None,
    }
}

/// The compare of a logic result with 0 that a condition is, given CF = OF = 0.
fn signed(cond: Cond) -> Option<Cc> {
    Some(match cond {
        Cond::L => Cc::SignedLessThan,
        Cond::Ge => Cc::SignedGreaterThanOrEqual,
        Cond::Le => Cc::SignedLessThanOrEqual,
        Cond::G => Cc::SignedGreaterThan,
        Cond::Be => Cc::Equal,
        Cond::A => Cc::NotEqual,
        _ => return None,
    })
}

/// The compare that a condition after UCOMISS is.
fn float(cond: Cond) -> Option<FloatCc> {
    Some(match cond {
        Cond::A => FloatCc::GreaterThan,
        Cond::Ae => FloatCc::GreaterThanOrEqual,
        Cond::B => FloatCc::UnorderedOrLessThan,
        Cond::Be => FloatCc::UnorderedOrLessThanOrEqual,
        Cond::E => FloatCc::UnorderedOrEqual,
        Cond::Ne => FloatCc::OrderedNotEqual,
        Cond::P => FloatCc::Unordered,
        Cond::Np => FloatCc::Ordered,
        _ => return None,
    })
}
