//! Which host register holds what, and where values of the IR live while a block is emitted.
//!
//! | register            | holds                                                                         |
//! |---------------------|-------------------------------------------------------------------------------|
//! | x2                  | `CpuState`                                                                    |
//! | x3..x7              | RSP RAX RDI RSI RDX, where the `Tail` convention of tier 1 passes them        |
//! | x19..x28, x29       | RCX RBX RBP R8..R14, R15                                                      |
//! | v16..v31            | XMM0..XMM15                                                                   |
//! | x1                  | countdown of backward jumps, calls and returns: negative leaves (`exit.rs`)   |
//! | x8                  | jump cache; bits 4..16 are whatever the last probe put there                  |
//! | x9                  | table of cells                                                                |
//! | x10..x15            | values of the IR                                                              |
//! | v4..v15             | vector and floating-point values of the IR                                    |
//! | x0 x16 x17 x30, v0..v3 | scratch within one operation                                               |
//!
//! Between operations x16 may hold a constant that addresses near it are made of ([`Emitter::hold`]).
//! x18 is the platform's. Frames of the host are not touched: SP is that of `enter`, above which lie [`SLOTS`] spill slots.
//!
//! Invariants:
//! 1. At the start and end of every IR block all guest registers are in their homes and no value is live.
//! 2. A value in a home register is an alias: whoever writes the home first moves the values that are still wanted
//!    ([`Emitter::vacate`]).
//! 3. `x_refs[r]` and `v_refs[r]` count the live values in register r; a temporary with none is free.

use super::encode::{self as e, Access, At, Cond, Size, V, X};
use super::plan::{Fate, NO_HOME, VECTOR, What};
use super::{Bug, EmitError, Emitter};
use calque_ir::{Type, Value};

/// Host register of each guest general register.
pub const GPR_HOME: [u8; 16] = [4, 19, 7, 20, 3, 21, 6, 5, 22, 23, 24, 25, 26, 27, 28, 29];
/// Host register of XMM0; the others follow.
pub const XMM_HOME: u8 = 16;

/// Register of the countdown.
pub const COUNTDOWN: u8 = 1;

pub(super) const CPU: X = X(2);
pub(super) const JUMPS: X = X(8);
pub(super) const CELLS: X = X(9);

const X_TEMPS: u32 = 0b1111_1100_0000_0000;
const V_TEMPS: u32 = 0xfff0;
const SCRATCH: [X; 4] = [X(16), X(17), X(0), X(30)];
const V_SCRATCH: [V; 4] = [V(0), V(1), V(2), V(3)];

/// Spill slots of 16 bytes in the frame of `enter`.
pub(crate) const SLOTS: usize = 16;
/// Offset of the first from SP.
pub(crate) const SLOTS_AT: usize = 176;

/// Where a value is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Loc {
    /// Nowhere: not defined, or no longer wanted.
    None,
    /// A constant, not in any register; of vectors zero.
    Imm(Imm),
    X(X),
    V(V),
    /// A home register plus a constant, not computed yet.
    Sum(X, i32),
    /// In the host's flags once its instruction is emitted, where it is used.
    Flags,
    /// Spilled.
    Slot(u8),
}

/// A constant of 64 bits that asks for no alignment: a [`Val`] is 16 bytes, and there is one for each instruction.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Imm([u32; 2]);

impl Imm {
    #[inline]
    pub(super) fn new(bits: u64) -> Self {
        Imm([bits as u32, (bits >> 32) as u32])
    }

    #[inline]
    pub(super) fn bits(self) -> u64 {
        u64::from(self.0[0]) | u64::from(self.0[1]) << 32
    }
}

const _: () = assert!(size_of::<Val>() == 16);

/// What a scratch register is known to hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Held {
    Nothing,
    Constant(u64),
    /// `base + (index << scale)`.
    Sum {
        base: Value,
        index: Value,
        scale: u8,
    },
}

/// What the emitter knows of a value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Val {
    pub(super) loc: Loc,
    /// Bits from this one up are zero in the register; its width if nothing is known. Conditions are always 0 or 1.
    pub(super) zx: u8,
}

impl Val {
    pub(super) const NONE: Val = Val { loc: Loc::None, zx: 64 };
}

/// A value that is in a second register.
#[derive(Clone, Copy)]
struct Copied {
    value: u32,
    /// As [`Val::zx`], there.
    zx: u8,
}

/// State of register allocation.
#[derive(Default)]
pub(super) struct Regs {
    pub(super) values: Vec<Val>,
    x_refs: [u16; 32],
    v_refs: [u16; 32],
    /// Registers that hold operands of the instruction being emitted.
    x_pins: u32,
    v_pins: u32,
    scratch: u8,
    v_scratch: u8,
    /// Operands of the instruction being emitted that have not been given up yet ([`super::plan::Fate::ends`]).
    ends: u8,
    /// Where its result is to go.
    home: u8,
    /// Nobody uses that.
    unused: bool,
    slots: u32,
    /// The value that a guest register holds besides the one that says so, because it was moved from there to another: until it is written.
    copies: [Option<Copied>; 32],
    known: Known,
    /// An operation wanted more scratch registers than there are: the code is of no use.
    pub(super) exhausted: bool,
}

/// What is known of guest registers, by host register, general and vectors: as [`Val::zx`].
#[derive(Clone, Copy)]
pub(super) struct Known {
    x: [u8; 32],
    v: [u8; 32],
}

/// Nothing.
impl Default for Known {
    fn default() -> Self {
        Known { x: [64; 32], v: [WHOLE; 32] }
    }
}

impl Known {
    /// Leaves what `other` knows, too.
    pub(super) fn meet(&mut self, other: &Known) {
        let all = self.x.iter_mut().chain(&mut self.v).zip(other.x.iter().chain(&other.v));
        all.for_each(|(zx, other)| *zx = (*zx).max(*other));
    }
}

/// As [`Val::zx`], of a vector of which nothing is known.
pub(super) const WHOLE: u8 = 128;

impl Regs {
    pub(super) fn start(&mut self, values: usize) {
        self.values.clear();
        self.values.resize(values, Val::NONE);
        self.x_refs = [0; 32];
        self.v_refs = [0; 32];
        self.slots = 0;
        self.copies = [None; 32];
        self.known = Known::default();
        self.exhausted = false;
    }

    /// No value lives across blocks.
    pub(super) fn end_block(&mut self) {
        self.x_refs = [0; 32];
        self.v_refs = [0; 32];
        self.slots = 0;
        self.copies = [None; 32];
    }

    /// This is known of guest registers here, and nothing else.
    pub(super) fn know(&mut self, known: Known) {
        self.known = known;
    }

    /// What is known of all guest registers.
    pub(super) fn known_of_all(&self) -> Known {
        self.known
    }

    /// What is known of the guest register `r`: bits from this one up are zero.
    #[inline]
    pub(super) fn known(&self, r: u8) -> u8 {
        self.known.x[usize::from(r)]
    }

    /// The guest register `r` has been written.
    #[inline]
    pub(super) fn written(&mut self, r: u8, zx: u8) {
        self.known.x[usize::from(r)] = zx;
    }

    /// The same two of a guest vector register, whose upper half is in `CpuState`.
    pub(super) fn v_known(&self, r: V) -> u8 {
        self.known.v[usize::from(r.0)]
    }

    pub(super) fn v_written(&mut self, r: V, zx: u8) {
        self.known.v[usize::from(r.0)] = zx;
    }

    /// Value `v` has been moved out of `r`, which still holds it.
    pub(super) fn stays_in(&mut self, r: X, v: usize, zx: u8) {
        self.copies[r.0 as usize] = Some(Copied { value: v as u32, zx });
    }

    /// `r` is about to be written.
    #[inline]
    pub(super) fn overwritten(&mut self, r: u8) {
        self.copies[usize::from(r)] = None;
    }

    /// Says that value `v` is in another guest register, if it is in one besides.
    fn fall_back(&mut self, v: usize) -> bool {
        let found = self.copies.iter().position(|copy| copy.is_some_and(|copy| copy.value == v as u32));
        let Some(r) = found else { return false };
        let zx = self.copies[r].take().map_or(64, |copy| copy.zx);
        self.relocate(v, Loc::X(X(r as u8)));
        self.values[v].zx = zx;
        true
    }

    /// Forgets what belonged to the instruction before. This one uses the operands of `ends` for the last time.
    #[inline]
    pub(super) fn next_inst(&mut self, ends: u8, home: u8, unused: bool) {
        (self.x_pins, self.v_pins, self.scratch, self.v_scratch) = (0, 0, 0, 0);
        (self.ends, self.home, self.unused) = (ends, home, unused);
    }

    #[inline]
    fn retain(&mut self, loc: Loc) {
        match loc {
            Loc::X(r) | Loc::Sum(r, _) => self.x_refs[r.0 as usize] += 1,
            Loc::V(r) => self.v_refs[r.0 as usize] += 1,
            Loc::Slot(n) => self.slots |= 1 << n,
            Loc::None | Loc::Imm(_) | Loc::Flags => {}
        }
    }

    #[inline]
    fn release(&mut self, loc: Loc) {
        match loc {
            Loc::X(r) | Loc::Sum(r, _) => self.x_refs[r.0 as usize] -= 1,
            Loc::V(r) => self.v_refs[r.0 as usize] -= 1,
            Loc::Slot(n) => self.slots &= !(1 << n),
            Loc::None | Loc::Imm(_) | Loc::Flags => {}
        }
    }

    /// How many values are in this register.
    pub(super) fn v_refs(&self, r: V) -> u16 {
        self.v_refs[r.0 as usize]
    }

    /// Whether nobody uses the result.
    pub(super) fn is_unused(&self) -> bool {
        self.unused
    }

    /// How many values are in this register.
    pub(super) fn x_refs(&self, r: X) -> u16 {
        self.x_refs[r.0 as usize]
    }

    /// The result goes to no guest register for now.
    pub(super) fn no_home(&mut self) {
        self.home = NO_HOME;
    }

    /// The guest register that the result is to go to, if it is a vector register.
    pub(super) fn vector_home(&self) -> Option<V> {
        (self.home != NO_HOME && self.home & VECTOR != 0).then_some(V(self.home & 31))
    }

    /// Moves value `v` to another place.
    fn relocate(&mut self, v: usize, to: Loc) {
        self.retain(to);
        self.release(self.values[v].loc);
        self.values[v].loc = to;
    }
}

impl Emitter {
    /// A register for the rest of this operation.
    pub(super) fn scratch(&mut self) -> X {
        let n = usize::from(self.regs.scratch);
        if n == 0 {
            self.held = Held::Nothing;
        }
        self.regs.scratch += 1;
        self.regs.exhausted |= n >= SCRATCH.len();
        SCRATCH[n % SCRATCH.len()]
    }

    /// A scratch register for what is made of `r`: that itself, if it is one, and then it does not hold any more what it held.
    pub(super) fn scratch_from(&mut self, r: X) -> X {
        if !SCRATCH.contains(&r) {
            return self.scratch();
        }
        if r == SCRATCH[0] {
            self.held = Held::Nothing;
        }
        r
    }

    /// A scratch register with a constant, not to be written.
    pub(super) fn scratch_constant(&mut self, imm: u64) -> X {
        if self.held == Held::Constant(imm) && self.regs.scratch == 0 {
            return self.take_held();
        }
        let s = self.scratch();
        self.mov_imm(s, imm);
        self.hold(s, Held::Constant(imm));
        s
    }

    /// A scratch register holds this, until it is taken for something else.
    pub(super) fn hold(&mut self, s: X, what: Held) {
        if s == SCRATCH[0] {
            self.held = what;
        }
    }

    /// The register of what is held, for the rest of this operation.
    pub(super) fn take_held(&mut self) -> X {
        self.regs.scratch = self.regs.scratch.max(1);
        SCRATCH[0]
    }

    /// A vector register for the rest of this operation.
    pub(super) fn v_scratch(&mut self) -> V {
        let n = usize::from(self.regs.v_scratch);
        self.holds_zero &= n + 1 < V_SCRATCH.len();
        self.regs.v_scratch += 1;
        self.regs.exhausted |= n >= V_SCRATCH.len();
        V_SCRATCH[n % V_SCRATCH.len()]
    }

    /// Gives scratch registers back: what an operation took since `mark` is no longer needed.
    pub(super) fn scratch_mark(&self) -> u8 {
        self.regs.scratch
    }

    pub(super) fn scratch_reset(&mut self, mark: u8) {
        self.regs.scratch = mark;
    }

    pub(super) fn val(&self, v: Value) -> Val {
        self.regs.values[v.0 as usize]
    }

    /// A constant value.
    pub(super) fn as_imm(&self, v: Value) -> Option<u64> {
        match self.val(v).loc {
            Loc::Imm(imm) => Some(imm.bits()),
            _ => None,
        }
    }

    /// An integer value in a register; bits above its type are arbitrary unless `zx` says otherwise.
    #[inline]
    pub(super) fn x(&mut self, v: Value) -> Result<X, EmitError> {
        if let Loc::X(r) = self.val(v).loc {
            self.regs.x_pins |= 1 << r.0;
            return Ok(r);
        }
        self.x_elsewhere(v)
    }

    /// The same of a value that is not in a register yet.
    #[inline(never)]
    fn x_elsewhere(&mut self, v: Value) -> Result<X, EmitError> {
        let i = v.0 as usize;
        let r = match self.regs.values[i].loc {
            Loc::Imm(imm) => return Ok(self.scratch_constant(imm.bits())),
            Loc::Sum(base, 0) => {
                self.regs.relocate(i, Loc::X(base));
                base
            }
            Loc::Sum(base, disp) => {
                let r = self.temp()?;
                self.add_disp(r, base, disp);
                self.regs.relocate(i, Loc::X(r));
                r
            }
            Loc::Slot(n) => {
                let r = self.temp()?;
                self.word(e::access(Access::LDRX, r.0, slot(n)));
                self.regs.relocate(i, Loc::X(r));
                r
            }
            Loc::Flags => {
                let r = self.temp()?;
                let cond = self.flags(v)?;
                self.cset(r, cond);
                self.regs.values[i].loc = Loc::None;
                self.regs.relocate(i, Loc::X(r));
                self.regs.values[i].zx = 1;
                r
            }
            Loc::X(_) | Loc::None | Loc::V(_) => return Err(EmitError::Internal(Bug::NotAnInteger)),
        };
        self.regs.x_pins |= 1 << r.0;
        Ok(r)
    }

    /// The same, with the zero register for 0: for instructions that take it.
    pub(super) fn xz(&mut self, v: Value) -> Result<X, EmitError> {
        if self.as_imm(v) == Some(0) { Ok(e::ZR) } else { self.x(v) }
    }

    /// A vector or floating-point value.
    pub(super) fn v(&mut self, v: Value) -> Result<V, EmitError> {
        let i = v.0 as usize;
        let r = match self.regs.values[i].loc {
            Loc::V(r) => r,
            Loc::Imm(_) => {
                let r = self.v_temp()?;
                self.word(e::movi_bytes(r, 0));
                self.regs.relocate(i, Loc::V(r));
                r
            }
            Loc::Slot(n) => {
                let r = self.v_temp()?;
                self.word(e::access(Access::LDRQ, r.0, slot(n)));
                self.regs.relocate(i, Loc::V(r));
                r
            }
            _ => return Err(EmitError::Internal(Bug::NotAVector)),
        };
        self.regs.v_pins |= 1 << r.0;
        Ok(r)
    }

    /// A free temporary, pinned.
    #[inline]
    pub(super) fn temp(&mut self) -> Result<X, EmitError> {
        for n in 10..16 {
            if self.regs.x_refs[n] == 0 && self.regs.x_pins >> n & 1 == 0 {
                self.regs.x_pins |= 1 << n;
                return Ok(X(n as u8));
            }
        }
        self.spilled_temp()
    }

    /// The same, where there is none.
    #[cold]
    #[inline(never)]
    fn spilled_temp(&mut self) -> Result<X, EmitError> {
        let (pins, at) = (self.regs.x_pins, self.at);
        let r = self.spill(
            |loc| match loc {
                Loc::X(r) if X_TEMPS >> r.0 & 1 != 0 && pins >> r.0 & 1 == 0 => Some(r.0),
                _ => None,
            },
            at,
        )?;
        self.regs.x_pins |= 1 << r;
        Ok(X(r))
    }

    /// A free vector temporary, pinned.
    pub(super) fn v_temp(&mut self) -> Result<V, EmitError> {
        for n in 4..16 {
            if self.regs.v_refs[n] == 0 && self.regs.v_pins >> n & 1 == 0 {
                self.regs.v_pins |= 1 << n;
                return Ok(V(n as u8));
            }
        }
        let (pins, at) = (self.regs.v_pins, self.at);
        let r = self.spill(
            |loc| match loc {
                Loc::V(r) if V_TEMPS >> r.0 & 1 != 0 && pins >> r.0 & 1 == 0 => Some(r.0),
                _ => None,
            },
            at,
        )?;
        self.regs.v_pins |= 1 << r;
        Ok(V(r))
    }

    /// Frees the register, among those that `candidate` names, whose value is wanted last.
    fn spill(&mut self, candidate: impl Fn(Loc) -> Option<u8>, at: usize) -> Result<u8, EmitError> {
        let start = self.block_start;
        let last = |i: usize| self.plan.fates[i].last;
        let victim = (start..at)
            .filter_map(|i| candidate(self.regs.values[i].loc).map(|r| (last(i), r)))
            .max()
            .ok_or(EmitError::Registers)?
            .1;
        for i in start..at {
            if candidate(self.regs.values[i].loc) == Some(victim) {
                self.spill_value(i)?;
            }
        }
        Ok(victim)
    }

    /// Moves a value from its register to a slot.
    fn spill_value(&mut self, i: usize) -> Result<(), EmitError> {
        let n = self.regs.slots.trailing_ones() as u8;
        if usize::from(n) >= SLOTS {
            return Err(EmitError::Registers);
        }
        match self.regs.values[i].loc {
            Loc::X(r) => self.word(e::access(Access::STRX, r.0, slot(n))),
            Loc::V(r) => self.word(e::access(Access::STRQ, r.0, slot(n))),
            _ => return Ok(()),
        }
        self.regs.relocate(i, Loc::Slot(n));
        Ok(())
    }

    /// Before a call, which keeps no vector temporary: those that are wanted behind it go to slots.
    pub(super) fn spill_vectors(&mut self) -> Result<(), EmitError> {
        if self.regs.v_refs[4..16].iter().all(|&refs| refs == 0) {
            return Ok(());
        }
        for i in self.block_start..self.at {
            let wanted = self.plan.fates[i].last as usize > self.at;
            if wanted && matches!(self.regs.values[i].loc, Loc::V(r) if V_TEMPS >> r.0 & 1 != 0) {
                self.spill_value(i)?;
            }
        }
        Ok(())
    }

    /// Gives up the operands that are used here for the last time.
    #[inline]
    pub(super) fn release_operands(&mut self) {
        let ends = std::mem::take(&mut self.regs.ends);
        if ends == 0 {
            return;
        }
        let args = self.insts[self.at].args;
        for (slot, v) in args.into_iter().enumerate() {
            if ends >> slot & 1 != 0 {
                self.release_value(v as usize);
            }
        }
    }

    /// Gives up a value if this is its last use; with it the operands of a condition that has waited until here.
    #[inline]
    pub(super) fn release_value(&mut self, v: usize) {
        let Fate { last, what, .. } = self.plan.fates[v];
        if last as usize > self.at {
            return;
        }
        let loc = std::mem::replace(&mut self.regs.values[v].loc, Loc::None);
        self.regs.release(loc);
        if what == What::Defer && loc != Loc::None {
            self.release_condition(v);
        }
    }

    #[cold]
    #[inline(never)]
    fn release_condition(&mut self, v: usize) {
        let inst = self.insts[v];
        for Value(operand) in inst.uses() {
            self.release_value(operand as usize);
        }
    }

    /// What the main loop does behind each instruction.
    #[inline]
    pub(super) fn end_inst(&mut self) {
        self.release_operands();
        if self.regs.unused {
            let loc = std::mem::replace(&mut self.regs.values[self.at].loc, Loc::None);
            self.regs.release(loc);
        }
    }

    /// A register for the result of the instruction being emitted, which may be one of its operands': the guest register that it
    /// is put into, if that is possible.
    pub(super) fn dest(&mut self) -> Result<X, EmitError> {
        self.dest_apart(&[])
    }

    /// The same, but none of these registers.
    #[inline]
    pub(super) fn dest_apart(&mut self, not: &[X]) -> Result<X, EmitError> {
        self.release_operands();
        let home = self.regs.home;
        let r = if home < 32 && !not.contains(&X(home)) && self.is_free(home) {
            self.regs.overwritten(home);
            X(home)
        } else {
            let pins = std::mem::replace(&mut self.regs.x_pins, not.iter().fold(0, |m, r| m | 1 << r.0));
            let r = self.temp()?;
            self.regs.x_pins |= pins;
            r
        };
        self.define(Loc::X(r), 64);
        Ok(r)
    }

    /// Whether no value is in `home`, but for an operand that is in another guest register besides, which it is from now on.
    #[inline]
    fn is_free(&mut self, home: u8) -> bool {
        match self.regs.x_refs[usize::from(home)] {
            0 => true,
            1 => {
                let inst = self.insts[self.at];
                let operand = inst.uses().find(|v| self.val(*v).loc == Loc::X(X(home)));
                operand.is_some_and(|v| self.regs.fall_back(v.0 as usize))
            }
            _ => false,
        }
    }

    /// A vector register for the result.
    pub(super) fn v_dest(&mut self) -> Result<V, EmitError> {
        self.v_dest_apart(&[])
    }

    /// The same, but none of these registers.
    #[inline]
    pub(super) fn v_dest_apart(&mut self, not: &[V]) -> Result<V, EmitError> {
        self.release_operands();
        let home = self.regs.vector_home().filter(|home| self.regs.v_refs[home.0 as usize] == 0 && !not.contains(home));
        let r = match home {
            Some(home) => home,
            None => {
                let pins = std::mem::replace(&mut self.regs.v_pins, not.iter().fold(0, |m, r| m | 1 << r.0));
                let r = self.v_temp();
                self.regs.v_pins |= pins;
                r?
            }
        };
        Ok(self.v_define(r))
    }

    /// The result is made in this register.
    pub(super) fn v_define(&mut self, r: V) -> V {
        self.regs.values[self.at] = Val { loc: Loc::V(r), zx: 128 };
        self.regs.retain(Loc::V(r));
        r
    }

    /// Notes that the result's bits from `zx` up are zero.
    pub(super) fn known_zero(&mut self, zx: u32) {
        self.regs.values[self.at].zx = zx as u8;
    }

    /// The result is where an operand is.
    pub(super) fn alias(&mut self, of: Value, zx: u8) {
        let loc = self.regs.values[of.0 as usize].loc;
        let at = self.at;
        match loc {
            // A slot holds one value.
            Loc::Slot(_) | Loc::Flags => unreachable!("operands of aliases are in registers"),
            _ => self.regs.retain(loc),
        }
        self.regs.values[at] = Val { loc, zx };
    }

    /// The result is this, which costs nothing yet.
    #[inline]
    pub(super) fn define(&mut self, loc: Loc, zx: u8) {
        self.regs.retain(loc);
        self.regs.values[self.at] = Val { loc, zx };
    }

    /// Moves the values that are still wanted out of a general register that is about to be written, except `but`.
    #[inline]
    pub(super) fn vacate(&mut self, home: X, but: usize) -> Result<(), EmitError> {
        let own = matches!(self.regs.values[but].loc, Loc::X(r) | Loc::Sum(r, _) if r == home);
        if self.regs.x_refs[home.0 as usize] == u16::from(own) { Ok(()) } else { self.move_values(home, but) }
    }

    /// The same for a register that is about to become `disp` more: what it was can be had from what it will be.
    pub(super) fn rebase(&mut self, home: X, disp: i32, but: usize) -> Result<(), EmitError> {
        if self.regs.x_refs[home.0 as usize] == 1 {
            return Ok(());
        }
        for i in self.block_start..self.at {
            let loc = self.regs.values[i].loc;
            let before = match loc {
                _ if i == but => continue,
                Loc::X(r) if r == home && !self.regs.fall_back(i) => 0,
                Loc::Sum(r, before) if r == home => before,
                _ => continue,
            };
            if let Some(after) = before.checked_sub(disp) {
                self.regs.values[i].loc = Loc::Sum(home, after);
            } else {
                let t = self.temp()?;
                self.add_disp(t, home, before);
                self.regs.relocate(i, Loc::X(t));
            }
        }
        Ok(())
    }

    #[inline(never)]
    fn move_values(&mut self, home: X, but: usize) -> Result<(), EmitError> {
        let mut to = None;
        for i in self.block_start..self.at {
            let loc = self.regs.values[i].loc;
            match loc {
                _ if i == but => {}
                Loc::X(r) if r == home && self.regs.fall_back(i) => {}
                Loc::X(r) if r == home => {
                    let t = match to {
                        Some(t) => t,
                        None => {
                            let t = self.temp()?;
                            self.mov(Size::X, t, home);
                            *to.insert(t)
                        }
                    };
                    self.regs.relocate(i, Loc::X(t));
                }
                Loc::Sum(r, disp) if r == home => {
                    let t = self.temp()?;
                    self.add_disp(t, home, disp);
                    self.regs.relocate(i, Loc::X(t));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The same for a vector register.
    pub(super) fn v_vacate(&mut self, home: V, but: usize) -> Result<(), EmitError> {
        let own = self.regs.values[but].loc == Loc::V(home);
        if self.regs.v_refs[home.0 as usize] == u16::from(own) {
            return Ok(());
        }
        let mut to = None;
        for i in self.block_start..self.at {
            if i == but || self.regs.values[i].loc != Loc::V(home) {
                continue;
            }
            let t = match to {
                Some(t) => t,
                None => {
                    let t = self.v_temp()?;
                    self.word(e::vec3(e::VORR, 0, t, home, home));
                    *to.insert(t)
                }
            };
            self.regs.relocate(i, Loc::V(t));
        }
        Ok(())
    }

    /// A value is now (also) in the register it was put into; it is read there from now on.
    pub(super) fn settle(&mut self, v: usize, loc: Loc, zx: u8) {
        if self.plan.fates[v].last as usize > self.at {
            self.regs.relocate(v, loc);
            self.regs.values[v].zx = zx;
        }
    }

    /// Type of a value.
    #[inline]
    pub(super) fn ty(&self, v: Value) -> Type {
        self.insts[v.0 as usize].result_type()
    }

    pub(super) fn cset(&mut self, rd: X, cond: Cond) {
        self.word(e::op_cond(e::CSINC, Size::W, rd, e::ZR, e::ZR, cond.not()));
    }
}

fn slot(n: u8) -> At {
    At::Disp(e::SP, (SLOTS_AT + 16 * n as usize) as i32)
}
