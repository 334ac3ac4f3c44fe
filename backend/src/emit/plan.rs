//! What is known of a block's values before its first instruction is emitted: one scan from its end to its start.
//!
//! For each value: how often it is used and where last (so that its register can be given away), whether its code can wait
//! until the one place where it is used (conditions, which become compare-and-branch there), and which guest register it is
//! put into next, so that it can be computed in place.
//!
//! Invariant: a value with a [`Fate::home`] may be written there at its definition, as far as this block's *instructions* are
//! concerned: between definition and `put` nobody reads the register and nothing can stop. Whether another live value still
//! sits in that register only the emitter knows.

use super::Host;
use super::encode::V;
use super::inline;
use super::regs::{GPR_HOME, XMM_HOME};
use calque_ir::op::Effect;
use calque_ir::reg::RegKind;
use calque_ir::{Block, Cc, Helper, Inst, Op, Reg, Region, Type, Value};

/// What becomes of a value.
#[derive(Clone, Copy)]
pub(super) struct Fate {
    /// Index of the last instruction that uses it; the block's end for its exit.
    pub(super) last: u32,
    /// The only user, if `uses` is 1.
    pub(super) user: u32,
    pub(super) uses: u16,
    /// Host register of the guest register that it is put into, or `NO_HOME`; with [`VECTOR`] a vector register.
    pub(super) home: u8,
    pub(super) what: What,
    /// The operands, by slot, that are used here for the last time as far as the instructions behind show.
    pub(super) ends: u8,
}

/// What is done for an instruction where it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum What {
    /// It is emitted.
    Emit,
    /// Nothing: it is emitted where it is used.
    Defer,
    /// Nothing at all.
    Drop,
}

pub(super) const NO_HOME: u8 = 0xff;
/// Bit of a home: it is a vector register.
pub(super) const VECTOR: u8 = 0x20;

/// Of a value that nothing is known of yet; of an exit.
pub(super) const NEW: Fate = Fate { last: 0, user: 0, uses: 0, home: NO_HOME, what: What::Emit, ends: 0 };

/// The fates of a region's values, by index. Kept from region to region for its memory.
pub(super) struct Plan {
    pub(super) fates: Vec<Fate>,
    /// Whether the host's scalar operations keep the other lanes.
    pub(super) merges: bool,
    host: Host,
    homes: Homes,
}

/// Values that wait for their definition with a home, by the home; of the others `value` is stale.
struct Homes {
    value: [u32; 64],
    waiting: u64,
}

impl Default for Homes {
    fn default() -> Self {
        Self { value: [0; 64], waiting: 0 }
    }
}

impl Homes {
    #[inline]
    fn clear(&mut self, home: u8, fates: &mut [Fate]) {
        if self.waiting >> home & 1 != 0 {
            fates[self.value[usize::from(home & 63)] as usize].home = NO_HOME;
            self.waiting &= !(1 << home);
        }
    }

    /// Value `v` is to be computed in `home`, and not elsewhere.
    #[inline]
    fn wait(&mut self, home: u8, v: u32, fates: &mut [Fate]) {
        let before = std::mem::replace(&mut fates[v as usize].home, home);
        if before != NO_HOME {
            self.arrive(before, v);
        }
        self.value[usize::from(home & 63)] = v;
        self.waiting |= 1 << home;
    }

    /// Value `v`, whose home is `home`, is defined here.
    #[inline]
    fn arrive(&mut self, home: u8, v: u32) {
        if self.value[usize::from(home & 63)] == v {
            self.waiting &= !(1 << home);
        }
    }

    fn clear_all(&mut self, fates: &mut [Fate]) {
        while self.waiting != 0 {
            let slot = self.waiting.trailing_zeros() as usize;
            fates[self.value[slot] as usize].home = NO_HOME;
            self.waiting &= self.waiting - 1;
        }
    }
}

/// The home of what is put into a register, by its number; `NO_HOME` if that does not live in a host register.
static HOMES: [u8; Reg::COUNT] = {
    let (mut table, mut n) = ([NO_HOME; Reg::COUNT], 0);
    while n < 16 {
        table[Reg::RAX.number() as usize + n] = GPR_HOME[n];
        table[Reg::XMM0.number() as usize + n] = (XMM_HOME + n as u8) | VECTOR;
        n += 1;
    }
    table
};

/// The home of this register, `NO_HOME` if it has none.
#[inline]
pub(super) fn home_of(reg: u16) -> u8 {
    HOMES.get(reg as usize).copied().unwrap_or(NO_HOME)
}

/// The same, if that is a vector register.
pub(super) fn vector_home_of(reg: u16) -> Option<V> {
    let home = home_of(reg);
    (home != NO_HOME && home & VECTOR != 0).then_some(V(home & 31))
}

/// What the scan asks of an operation, by its number: the operand slots that hold values, and the bits below.
static TRAITS: [u16; Op::ALL.len()] = {
    let (mut table, mut n) = ([0; Op::ALL.len()], 0);
    while n < table.len() {
        table[n] = traits(Op::ALL[n]) | Op::ALL[n].value_slots() as u16;
        n += 1;
    }
    table
};

/// May be left out if nobody uses its result.
const REMOVABLE: u16 = 1 << 4;
/// A condition that is made by an instruction that sets the flags, unless its type is a vector's; or a test of bits.
const DEFERRABLE: u16 = 1 << 5;
/// No home may wait across it.
const STOPS: u16 = 1 << 6;
/// Where the result is, the operand may be.
const PASSES_ON: u16 = 1 << 7;
/// Reads or writes a guest register.
const REGISTER: u16 = 1 << 8;
/// A helper call, which says itself whether it is removable.
const HELPER: u16 = 1 << 9;
/// A mark or a constant: nothing to plan.
const SILENT: u16 = 1 << 10;
/// A scalar of it can be computed in place in the lowest lane, on hosts whose scalar operations keep the other lanes.
const MERGES: u16 = 1 << 11;

const fn traits(op: Op) -> u16 {
    use Op::*;
    let effect = match op.effect() {
        Effect::Pure => REMOVABLE,
        Effect::ReadsReg => REMOVABLE | REGISTER,
        Effect::WritesReg => REGISTER,
        Effect::Faults => STOPS,
        Effect::Memory if !matches!(op, Fence) => STOPS,
        Effect::Helper => STOPS | HELPER,
        _ => 0,
    };
    let more = match op {
        Icmp | Fcmp | FcmpSignaling | UaddOverflow | SaddOverflow | SsubOverflow | UmulOverflow | SmulOverflow
        | UaddOverflowCin | SaddOverflowCin | UsubOverflowBin | SsubOverflowBin | HalfCarry | Parity | Bnot | Band => {
            DEFERRABLE
        }
        Uextend | Sextend | Ireduce | ScalarToVector => PASSES_ON,
        Insn | Iconst => SILENT,
        Fadd | Fsub | Fmul | Fdiv | Sqrt | Fmadd | Fmsub | Fnmadd | Fnmsub | Ceil | Floor | Trunc | Nearest
        | Fpromote | Fdemote | FcvtFromSint => MERGES,
        _ => 0,
    };
    effect | more
}

/// Whether an instruction of these traits may be left out if nobody uses its result.
#[inline]
fn removable(traits: u16, inst: &Inst) -> bool {
    traits & REMOVABLE != 0
        || traits & HELPER != 0 && Helper::from_code(inst.aux).effect() == calque_ir::helper::HelperEffect::Pure
}

/// Whether an operation takes its first operand as host flags.
fn takes_flags(inst: &Inst) -> bool {
    match inst.op {
        Op::Select | Op::FaultIf => true,
        Op::Bnot => inst.ty == Type::I1,
        Op::Put => matches!(Reg::from_index(inst.aux as usize).map(Reg::kind), Some(RegKind::Flag(_))),
        _ => false,
    }
}

/// Whether a float takes the place of a vector's lowest lane.
#[inline]
pub(super) fn replaces_lowest(inst: &Inst) -> bool {
    inst.op == Op::InsertLane && inst.aux == 0 && inst.ty.is_float()
}

/// Whether the only use of value `i`, whose fate this is, is to have its lowest lane replaced by `scalar`.
fn replaces_lowest_of(insts: &[Inst], fate: &Fate, i: usize, scalar: u32) -> bool {
    let user = insts.get(fate.user as usize);
    user.is_some_and(|user| replaces_lowest(user) && user.args[0] == i as u32 && user.args[1] == scalar)
}

/// Whether an `icmp` asks if a `band` is zero.
fn tests_bits(inst: &Inst, region: &Region) -> bool {
    let zero = |v: u32| region.insts[v as usize].op == Op::Iconst && region.insts[v as usize].imm() == 0;
    inst.op == Op::Icmp
        && matches!(Cc::from_code(inst.aux), Cc::Equal | Cc::NotEqual)
        && !inst.ty.is_vector()
        && zero(inst.args[1])
}

impl Plan {
    pub(super) fn new(host: Host) -> Self {
        Self { fates: Vec::new(), merges: host.afp, host, homes: Homes::default() }
    }

    /// Makes room for a region's values.
    pub(super) fn start(&mut self, region: &Region) {
        self.fates.clear();
        self.fates.resize(region.insts.len(), NEW);
    }

    /// Looks at one block.
    pub(super) fn block(&mut self, region: &Region, block: &Block) {
        let Plan { fates, merges, host, homes } = self;
        // Of the same length, which is above every index below.
        let insts = &region.insts[..block.end as usize];
        let fates = &mut fates[..insts.len()];
        homes.waiting = 0;
        if let Some(v) = block.exit.value() {
            fates[v.0 as usize].used(block.end, block.end);
        }
        for i in (block.start as usize..insts.len()).rev() {
            let inst = &insts[i];
            let traits = TRAITS[inst.op as usize];
            if traits & SILENT != 0 {
                continue;
            }
            let Fate { home, uses, .. } = fates[i];
            if home != NO_HOME {
                homes.arrive(home, i as u32);
                pass_home_on(inst, traits, home, *merges, homes, fates, insts);
            } else if uses == 0 && removable(traits, inst) {
                fates[i].what = What::Drop;
                continue;
            }
            if traits & (DEFERRABLE | STOPS | REGISTER) != 0 {
                if traits & DEFERRABLE != 0 && uses == 1 && waits(region, block, fates, i as u32) {
                    fates[i].what = What::Defer;
                    let last = fates[i].last;
                    for Value(v) in inst.uses() {
                        fates[v as usize].used(i as u32, last);
                    }
                    continue;
                }
                if traits & STOPS != 0 && !(traits & HELPER != 0 && inline::is_inline(*host, insts, inst)) {
                    homes.clear_all(fates);
                }
                if traits & REGISTER != 0 {
                    let home = home_of(inst.aux);
                    if home != NO_HOME {
                        // The vector whose lowest lane a waiting scalar replaces may be read behind that.
                        let merged = *merges
                            && home & VECTOR != 0
                            && uses == 1
                            && replaces_lowest_of(insts, &fates[i], i, homes.value[usize::from(home & 63)]);
                        if !merged {
                            homes.clear(home, fates);
                        }
                        // The first of several: it is moved from there to the others.
                        if inst.op == Op::Put {
                            homes.wait(home, inst.args[0], fates);
                        }
                    }
                }
            }
            let mut ends = 0;
            for slot in 0..4 {
                // An optional operand that is not there is beyond all values.
                if traits >> slot & 1 != 0
                    && let Some(operand) = fates.get_mut(inst.args[slot] as usize)
                {
                    if operand.uses == 0 {
                        ends |= 1 << slot;
                        operand.last = i as u32;
                    }
                    operand.uses += 1;
                    operand.user = i as u32;
                }
            }
            fates[i].ends = ends;
        }
    }
}

/// Has the operand of a value that waits with a home wait there, too, if its own place may be where the value's is.
#[inline]
fn pass_home_on(
    inst: &Inst,
    traits: u16,
    home: u8,
    merges: bool,
    homes: &mut Homes,
    fates: &mut [Fate],
    insts: &[Inst],
) {
    if traits & PASSES_ON != 0
        && (inst.op != Op::ScalarToVector || inst.ty.is_float())
        && fates[inst.args[0] as usize].home == NO_HOME
    {
        homes.wait(home, inst.args[0], fates);
    }
    if merges && home & VECTOR != 0 && replaces_lowest(inst) {
        let scalar = inst.args[1] as usize;
        if fates[scalar].home == NO_HOME && TRAITS[insts[scalar].op as usize] & MERGES != 0 {
            homes.wait(home, inst.args[1], fates);
        }
    }
}

/// Whether the condition or test of bits `i`, which is used once, is made where it is used.
fn waits(region: &Region, block: &Block, fates: &[Fate], i: u32) -> bool {
    let (inst, fate) = (&region.insts[i as usize], fates[i as usize]);
    if inst.ty.is_vector() || inst.op == Op::Bnot && inst.ty != Type::I1 {
        return false;
    }
    if fate.user == block.end {
        return inst.op != Op::Band && matches!(block.exit, calque_ir::Exit::Branch { .. });
    }
    let (user, deferred) = (&region.insts[fate.user as usize], fates[fate.user as usize].what == What::Defer);
    match inst.op {
        Op::Band => deferred && tests_bits(user, region),
        _ => takes_flags(user) && user.args[0] == i && (user.op != Op::Bnot || deferred),
    }
}

impl Fate {
    /// Notes a use by `user`, until which, or `until`, the value must be kept.
    #[inline]
    fn used(&mut self, user: u32, until: u32) {
        self.uses += 1;
        self.user = user;
        self.last = self.last.max(until);
    }
}
