//! What is known of a block's values before its first instruction is emitted: one scan from its end to its start.
//!
//! For each value: how often it is used and where last (so that its register can be given away), whether its code can wait
//! until the one place where it is used (conditions, which become compare-and-branch there), and which guest register it is
//! put into next, so that it can be computed in place.
//!
//! Invariant: a value with a [`Fate::home`] may be written there at its definition, as far as this block's *instructions* are
//! concerned: between definition and `put` nobody reads the register and nothing can stop. Whether another live value still
//! sits in that register only the emitter knows.

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
    /// Host register of the guest register that it is put into, or `NO_HOME`.
    pub(super) home: u8,
    /// Emitted where it is used.
    pub(super) deferred: bool,
}

pub(super) const NO_HOME: u8 = 0xff;

const NEW: Fate = Fate { last: 0, user: 0, uses: 0, home: NO_HOME, deferred: false };

/// The fates of a region's values, by index. Kept from region to region for its memory.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) fates: Vec<Fate>,
    homes: Homes,
}

/// Bit of a home: it is a vector register.
const VECTOR: u8 = 0x80;

/// Values that wait for their definition with a home, by the home's [`slot_of`]; of the others `value` is stale.
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
    fn clear(&mut self, home: u8, fates: &mut [Fate]) {
        let slot = slot_of(home);
        if self.waiting >> slot & 1 != 0 {
            fates[self.value[slot] as usize].home = NO_HOME;
            self.waiting &= !(1 << slot);
        }
    }

    /// Value `v` is to be computed in `home`.
    fn wait(&mut self, home: u8, v: u32, fates: &mut [Fate]) {
        fates[v as usize].home = home;
        self.value[slot_of(home)] = v;
        self.waiting |= 1 << slot_of(home);
    }

    /// Value `v`, whose home is `home`, is defined here.
    fn arrive(&mut self, home: u8, v: u32) {
        let slot = slot_of(home);
        if self.value[slot] == v {
            self.waiting &= !(1 << slot);
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

/// Place of a home in [`Homes`].
fn slot_of(home: u8) -> usize {
    usize::from(home & 31 | (home & VECTOR) >> 2)
}

/// The home of what is put into a register, if that lives in a host register.
fn home_of(reg: usize) -> Option<u8> {
    match Reg::from_index(reg)?.kind() {
        RegKind::Gpr(n) => Some(GPR_HOME[n]),
        RegKind::Xmm(n) => Some((XMM_HOME + n as u8) | VECTOR),
        _ => None,
    }
}

/// What the scan asks of an operation, by its number: bits of `Traits`.
static TRAITS: [u8; Op::ALL.len()] = {
    let (mut table, mut n) = ([0; Op::ALL.len()], 0);
    while n < table.len() {
        table[n] = traits(Op::ALL[n]);
        n += 1;
    }
    table
};

/// May be left out if nobody uses its result.
const REMOVABLE: u8 = 1 << 0;
/// A condition that is made by an instruction that sets the flags, unless its type is a vector's; or a test of bits.
const DEFERRABLE: u8 = 1 << 1;
/// No home may wait across it.
const STOPS: u8 = 1 << 2;
/// Where the result is, the operand may be.
const PASSES_ON: u8 = 1 << 3;
/// Reads or writes a guest register.
const REGISTER: u8 = 1 << 4;
/// A helper call, which says itself whether it is removable.
const HELPER: u8 = 1 << 5;

const fn traits(op: Op) -> u8 {
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
        _ => 0,
    };
    effect | more
}

/// Whether an instruction may be left out if nobody uses its result.
fn removable(inst: &Inst) -> bool {
    let traits = TRAITS[inst.op as usize];
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

/// Whether an `icmp` asks if a `band` is zero.
fn tests_bits(inst: &Inst, region: &Region) -> bool {
    let zero = |v: u32| region.insts[v as usize].op == Op::Iconst && region.insts[v as usize].imm() == 0;
    inst.op == Op::Icmp
        && matches!(Cc::from_code(inst.aux), Cc::Equal | Cc::NotEqual)
        && !inst.ty.is_vector()
        && zero(inst.args[1])
}

impl Plan {
    /// Makes room for a region's values.
    pub(super) fn start(&mut self, region: &Region) {
        self.fates.clear();
        self.fates.resize(region.insts.len(), NEW);
    }

    /// Whether value `v` has no use and its code may be left out.
    pub(super) fn is_dead(&self, v: usize, inst: &Inst) -> bool {
        self.fates[v].uses == 0 && removable(inst)
    }

    /// Looks at one block.
    pub(super) fn block(&mut self, region: &Region, block: &Block) {
        let Plan { fates, homes } = self;
        homes.waiting = 0;
        if let Some(Value(v)) = block.exit.value() {
            use_value(fates, v, block.end, block.end);
        }
        for i in (block.start..block.end).rev() {
            let inst = &region.insts[i as usize];
            if inst.op == Op::Insn {
                continue;
            }
            let fate = fates[i as usize];
            if fate.home != NO_HOME {
                homes.arrive(fate.home, i);
            }
            let traits = TRAITS[inst.op as usize];
            if fate.uses == 0 && removable(inst) {
                continue;
            }
            // It may be where its operand is: that is computed there, too.
            if fate.home != NO_HOME
                && traits & PASSES_ON != 0
                && (inst.op != Op::ScalarToVector || inst.ty.is_float())
                && fates[inst.args[0] as usize].home == NO_HOME
            {
                homes.wait(fate.home, inst.args[0], fates);
            }
            let mut until = i;
            if traits & DEFERRABLE != 0 && fate.uses == 1 && waits(region, block, fates, i) {
                fates[i as usize].deferred = true;
                until = fate.last;
            }
            if traits & STOPS != 0 {
                homes.clear_all(fates);
            }
            if traits & REGISTER != 0
                && let Some(home) = home_of(inst.aux as usize)
            {
                homes.clear(home, fates);
                if inst.op == Op::Put && fates[inst.args[0] as usize].home == NO_HOME {
                    homes.wait(home, inst.args[0], fates);
                }
            }
            for Value(v) in inst.uses() {
                use_value(fates, v, i, until);
            }
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
    let (user, deferred) = (&region.insts[fate.user as usize], fates[fate.user as usize].deferred);
    match inst.op {
        Op::Band => deferred && tests_bits(user, region),
        _ => takes_flags(user) && user.args[0] == i && (user.op != Op::Bnot || deferred),
    }
}

fn use_value(fates: &mut [Fate], v: u32, user: u32, until: u32) {
    let fate = &mut fates[v as usize];
    fate.uses = fate.uses.saturating_add(1);
    fate.user = user;
    fate.last = fate.last.max(until);
}
