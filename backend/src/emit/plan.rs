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
}

/// Values that wait for their definition with a home: one slot a guest register, general ones first.
struct Homes {
    value: [u32; 32],
    waiting: u32,
}

impl Homes {
    fn clear(&mut self, slot: usize, fates: &mut [Fate]) {
        if self.waiting >> slot & 1 != 0 {
            fates[self.value[slot] as usize].home = NO_HOME;
            self.waiting &= !(1 << slot);
        }
    }

    /// Value `v` has a home and may be where its operand is: that is computed there, too.
    fn pass_on(&mut self, v: u32, operand: u32, fates: &mut [Fate]) {
        let home = fates[v as usize].home;
        let slot = self.value.iter().position(|&value| value == v);
        if let Some(slot) = slot.filter(|_| fates[operand as usize].home == NO_HOME) {
            fates[operand as usize].home = home;
            self.value[slot] = operand;
            self.waiting |= 1 << slot;
        }
    }

    fn clear_all(&mut self, fates: &mut [Fate]) {
        while self.waiting != 0 {
            self.clear(self.waiting.trailing_zeros() as usize, fates);
        }
    }
}

/// Slot in [`Homes`] and host register.
fn slot_of(reg: Reg) -> Option<(usize, u8)> {
    match reg.kind() {
        RegKind::Gpr(n) => Some((n, GPR_HOME[n])),
        RegKind::Xmm(n) => Some((16 + n, XMM_HOME + n as u8)),
        _ => None,
    }
}

/// Whether an instruction may be left out if nobody uses its result.
fn removable(inst: &Inst) -> bool {
    match inst.op.effect() {
        Effect::Pure | Effect::ReadsReg => true,
        Effect::Helper => Helper::from_code(inst.aux).effect() == calque_ir::helper::HelperEffect::Pure,
        _ => false,
    }
}

/// Conditions that are made by an instruction that sets the flags.
fn sets_flags(inst: &Inst) -> bool {
    use Op::*;
    match inst.op {
        Icmp | Fcmp | FcmpSignaling => !inst.ty.is_vector(),
        UaddOverflow | SaddOverflow | SsubOverflow | UmulOverflow | SmulOverflow | UaddOverflowCin
        | SaddOverflowCin | UsubOverflowBin | SsubOverflowBin | HalfCarry | Parity => true,
        Bnot => inst.ty == Type::I1,
        _ => false,
    }
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
        let fates = &mut self.fates;
        let mut homes = Homes { value: [0; 32], waiting: 0 };
        if let Some(Value(v)) = block.exit.value() {
            use_value(fates, v, block.end, block.end);
        }
        for i in (block.start..block.end).rev() {
            let inst = &region.insts[i as usize];
            let fate = fates[i as usize];
            if fate.home != NO_HOME {
                let slot = homes.value.iter().position(|&v| v == i).filter(|&s| homes.waiting >> s & 1 != 0);
                if let Some(slot) = slot {
                    homes.waiting &= !(1 << slot);
                }
            }
            if fate.uses == 0 && removable(inst) {
                continue;
            }
            let passes_on = matches!(inst.op, Op::Uextend | Op::Sextend | Op::Ireduce)
                || inst.op == Op::ScalarToVector && inst.ty.is_float();
            if fate.home != NO_HOME && passes_on {
                homes.pass_on(i, inst.args[0], fates);
            }
            let mut until = i;
            if fate.uses == 1 && (sets_flags(inst) || inst.op == Op::Band) {
                let at_exit = fate.user == block.end;
                let user = region.insts.get(fate.user as usize);
                let takes = if inst.op == Op::Band {
                    !at_exit && user.is_some_and(|u| tests_bits(u, region)) && fates[fate.user as usize].deferred
                } else {
                    at_exit && matches!(block.exit, calque_ir::Exit::Branch { .. })
                        || !at_exit
                            && user.is_some_and(|u| {
                                takes_flags(u)
                                    && u.args[0] == i
                                    && (u.op != Op::Bnot || fates[fate.user as usize].deferred)
                            })
                };
                if takes && !inst.ty.is_vector() {
                    fates[i as usize].deferred = true;
                    until = fate.last;
                }
            }
            if inst.op.may_stop() || inst.op == Op::Call {
                homes.clear_all(fates);
            }
            match inst.op {
                Op::Get => {
                    if let Some((slot, _)) = Reg::from_index(inst.aux as usize).and_then(slot_of) {
                        homes.clear(slot, fates);
                    }
                }
                Op::Put => {
                    if let Some((slot, home)) = Reg::from_index(inst.aux as usize).and_then(slot_of) {
                        homes.clear(slot, fates);
                        let v = inst.args[0] as usize;
                        if fates[v].home == NO_HOME {
                            fates[v].home = home | u8::from(slot >= 16) << 7;
                            homes.value[slot] = v as u32;
                            homes.waiting |= 1 << slot;
                        }
                    }
                }
                _ => {}
            }
            for Value(v) in inst.uses() {
                use_value(fates, v, i, until);
            }
        }
    }
}

fn use_value(fates: &mut [Fate], v: u32, user: u32, until: u32) {
    let fate = &mut fates[v as usize];
    fate.uses = fate.uses.saturating_add(1);
    fate.user = user;
    fate.last = fate.last.max(until);
}
