//! Flags that only one side of a branch still reads.
//!
//! A loop that ends in `cmp rdi,rsi; jne` and leaves to a `ret` has flags that are dead on the back edge and alive on the
//! way out (nothing is known of what follows a return). Putting them before the branch would cost a dozen
//! operations per iteration; so they are put in a block of their own on that edge.
//!
//! Values don't cross blocks, so the edge block computes its recipe's operands again: from the registers that still hold
//! them, from constants, by pure operations on such, or backwards (`a = r - b`). Where that is impossible (an operand
//! was loaded), the flags are put before the branch after all.
//!
//! Invariant: an edge block has a higher number than the block that branches to it, so that engines do not take the
//! edge for a backward one, where they may leave with the flags not yet put.

use super::Lifter;
use super::flags::{FlagSet, Recipe, Source};
use super::flow::Live;
use super::operand::{Held, RegCache};
use calque_ir::op::Effect;
use calque_ir::{BlockId, Exit, Format, GuestAddr, Inst, Op, Reg, Target, Type, Value};
use smallvec::SmallVec;

/// How deep an operand's expression is computed again.
const DEPTH: u32 = 3;

/// A recipe whose operands are to be computed again.
#[derive(Clone, Copy)]
struct Plan {
    recipe: Recipe,
    ty: Type,
}

/// The state at the end of a block that its edge blocks start from.
struct Origin {
    regs: RegCache,
    end: u32,
}

impl Lifter<'_> {
    /// Closes the block with a branch; `live` are the dirty flags that are live on the taken and on the other side.
    pub(super) fn close_branch(&mut self, cond: Value, targets: [GuestAddr; 2], live: [Live; 2]) {
        let both = Live { read: live[0].read.and(live[1].read), unknown: live[0].unknown.and(live[1].unknown) };
        self.put_flags(both);
        // All six flags are deferred or none.
        let defers = self.deferrable().is_some();
        let rest = live.map(|side| {
            let side = if defers { side } else { Live::read(side.all()) };
            let read = side.read.without(both.read);
            // Putting some says that none are deferred: those that are must be so once more.
            let deferred = if read.is_empty() { side.unknown.without(both.unknown) } else { side.unknown };
            Live { read, unknown: deferred }.and(self.flags.dirty())
        });
        let plans = rest.map(|side| self.plan(side.read.or(side.unknown)));
        // At once: putting what one side reads would say that nothing is deferred for the other.
        let unplanned = rest.iter().zip(&plans).filter(|(_, plan)| plan.is_none());
        self.put_flags(unplanned.fold(Live::default(), |all, (side, _)| all.or(*side)));
        let mut edges = SmallVec::<[_; 2]>::new();
        let mut exits = targets.map(Target::Pc);
        for side in 0..2 {
            if let (Some(plan), false) = (plans[side], rest[side].and(self.flags.dirty()).is_empty()) {
                let block = self.b.create_block(targets[side]);
                exits[side] = Target::Block(block);
                edges.push((block, plan, rest[side], targets[side]));
            }
        }
        self.end_block(Exit::Branch { cond, taken: exits[0], fallthrough: exits[1] });
        let origin = Origin { regs: std::mem::take(&mut self.regs), end: self.b.region().insts.len() as u32 };
        for (block, plan, live, target) in edges {
            self.fill_edge(block, plan, live, target, &origin);
        }
    }

    /// How to make `flags` on an edge; `None` if that can only be done here.
    fn plan(&self, flags: FlagSet) -> Option<Plan> {
        let mut common = None;
        for f in flags.and(self.flags.dirty()).iter() {
            match self.flags.source(f) {
                Source::Recipe(k) if common.is_none_or(|c| c == k) => common = Some(k),
                _ => return None,
            }
        }
        let (recipe, ty) = self.flags.recipe(common?);
        let end = self.b.region().insts.len() as u32;
        let known = |v| self.again(v, &self.regs, end, DEPTH);
        let possible = match recipe {
            Recipe::Cmp { a, b } | Recipe::Float { a, b } => known(a) && known(b),
            Recipe::Add { a, b, r } | Recipe::Sub { a, b, r } => known(b) && (known(a) || known(r)),
            Recipe::Logic { r } | Recipe::Inc { r, .. } | Recipe::Dec { r, .. } => known(r),
            _ => false,
        };
        possible.then_some(Plan { recipe, ty })
    }

    /// Whether `v` of the block that ends at instruction `end` can be computed again behind it.
    fn again(&self, v: Value, regs: &RegCache, end: u32, depth: u32) -> bool {
        if regs.holder(v).is_some() {
            return true;
        }
        let def = self.b.def(v);
        match def.op {
            Op::Iconst => true,
            Op::Get => !self.put_between(v.0, end, def.aux),
            _ => depth > 0 && is_pure(def) && def.uses().all(|u| self.again(u, regs, end, depth - 1)),
        }
    }

    fn put_between(&self, from: u32, to: u32, reg: u16) -> bool {
        self.b.region().insts[from as usize..to as usize].iter().any(|i| i.op == Op::Put && i.aux == reg)
    }

    fn fill_edge(&mut self, block: BlockId, plan: Plan, live: Live, target: GuestAddr, origin: &Origin) {
        self.open(block);
        let recipe = self.recipe_again(plan, origin);
        self.set_flags(recipe, plan.ty);
        self.put_flags(live);
        self.b.exit(Exit::Goto(Target::Pc(target)));
    }

    fn recipe_again(&mut self, plan: Plan, o: &Origin) -> Recipe {
        let (recipe, ty) = (plan.recipe, plan.ty);
        match recipe {
            Recipe::Cmp { a, b } => Recipe::Cmp { a: self.value_again(a, o), b: self.value_again(b, o) },
            Recipe::Float { a, b } => Recipe::Float { a: self.value_again(a, o), b: self.value_again(b, o) },
            Recipe::Add { a, b, r } => {
                let (a, b, r) = self.three_again([a, b, r], [Op::Iadd, Op::Isub], ty, o);
                Recipe::Add { a, b, r }
            }
            Recipe::Sub { a, b, r } => {
                let (a, b, r) = self.three_again([a, b, r], [Op::Isub, Op::Iadd], ty, o);
                Recipe::Sub { a, b, r }
            }
            Recipe::Logic { r } => Recipe::Logic { r: self.value_again(r, o) },
            Recipe::Inc { r, .. } => {
                let (r, one) = (self.value_again(r, o), self.b.iconst(ty, 1));
                Recipe::Inc { a: self.b.binary(Op::Isub, ty, r, one), r }
            }
            Recipe::Dec { r, .. } => {
                let (r, one) = (self.value_again(r, o), self.b.iconst(ty, 1));
                Recipe::Dec { a: self.b.binary(Op::Iadd, ty, r, one), r }
            }
            _ => unreachable!("{recipe:?} has no plan"),
        }
    }

    /// a, b and r = a op b; one of a and r from the other where need be.
    fn three_again(
        &mut self,
        [a, b, r]: [Value; 3],
        [op, back]: [Op; 2],
        ty: Type,
        o: &Origin,
    ) -> (Value, Value, Value) {
        let known_a = self.again(a, &o.regs, o.end, DEPTH);
        let known_r = self.again(r, &o.regs, o.end, DEPTH);
        let b = self.value_again(b, o);
        if !known_a {
            let r = self.value_again(r, o);
            return (self.b.binary(back, ty, r, b), b, r);
        }
        let a = self.value_again(a, o);
        let r = if known_r { self.value_again(r, o) } else { self.b.binary(op, ty, a, b) };
        (a, b, r)
    }

    fn value_again(&mut self, v: Value, o: &Origin) -> Value {
        if let Some((reg, ty)) = o.regs.holder(v) {
            return self.b.get(ty, reg);
        }
        let mut inst = *self.b.def(v);
        let slots = inst.value_slots();
        for k in (0..4).filter(|k| slots >> k & 1 != 0) {
            if let Some(u) = Value(inst.args[k]).expand() {
                inst.args[k] = self.value_again(u, o).0;
            }
        }
        self.b.inst(inst.op, inst.ty, inst.aux, inst.args)
    }
}

/// An operation that depends on its operands alone.
fn is_pure(i: &Inst) -> bool {
    i.op.effect() == Effect::Pure && matches!(i.op.format(), Format::Unary | Format::Binary | Format::Extract)
}

impl RegCache {
    /// The register that holds `v` now, and the type to read it as.
    fn holder(&self, v: Value) -> Option<(Reg, Type)> {
        let find = |held: &Held| held.0.iter().position(|h| *h == v);
        if let Some(n) = find(&self.full) {
            return Some((Reg::gpr(n), Type::I64));
        }
        if let Some(n) = find(&self.low) {
            return Some((Reg::gpr(n), Type::I32));
        }
        find(&self.xmm).map(|n| (Reg::xmm(n), Type::V128))
    }
}
