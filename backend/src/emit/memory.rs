//! Accesses to guest memory. Each is one instruction.
//!
//! **Order.** Plain accesses promise the host's order. In total store order a load is a load-acquire (of the weaker kind, and with a displacement,
//! where the host has it: `docs/MEMORY-MODEL.md`) and a store a store-release; floats
//! go through integers; vectors, which have no such forms, and what has been seen not to be aligned, which those forms must be
//! ([`Inst::UNALIGNED`]), are loaded with a barrier behind (loads before everything) and stored with one before (stores before stores;
//! earlier loads are ordered already). Read-modify-writes are sequentially consistent always.

use super::encode::{self as e, Access, At, Ordered, Size, X};
use super::regs::{Held, Loc};
use super::{Bug, EmitError, Emitter, Reach, log2_of, size_of};
use crate::compile::MemoryOrder;
use calque_ir::{Inst, Mem, Op, RmwOp, Type, Value};

/// How an access is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Plain,
    /// Load-acquire, store-release.
    Ordered,
    /// Plain, with a barrier behind a load or before a store.
    Fenced,
}

impl Emitter {
    /// The next word is an access to guest memory.
    fn access(&mut self, word: u32) {
        let at = 4 * self.code.len() as u32;
        if self.pcs.last().is_none_or(|&(_, pc)| pc != self.pc) {
            self.pcs.push((at, self.pc));
        }
        self.accesses = [Some(self.code.len()), self.accesses[0]];
        self.word(word);
    }

    fn how(&self, inst: &Inst) -> How {
        match self.options.memory_order {
            MemoryOrder::Plain => How::Plain,
            MemoryOrder::Tso if inst.ty.is_vector() || inst.is_unaligned() => How::Fenced,
            MemoryOrder::Tso => How::Ordered,
        }
    }

    /// The memory operand as an addressing mode for an access of `1 << log2` bytes.
    fn address(&mut self, mem: Mem, what: Access) -> Result<At, EmitError> {
        let (base, disp) = self.base_and_disp(mem, what)?;
        let index = match mem.index {
            None => None,
            Some(v) => Some(self.x(v)?),
        };
        match (base, index) {
            (Some(base), None) => self.displaced(base, disp, what),
            (Some(base), Some(index)) => {
                let scaled = mem.scale == what.log2;
                if disp == 0 && (mem.scale == 0 || scaled) {
                    return Ok(At::Index(base, index, mem.scale != 0));
                }
                let sum = self.sum_of(mem);
                if self.held == sum && sum != Held::Nothing {
                    let s = self.take_held();
                    return self.displaced(s, disp, what);
                }
                let s = self.scratch();
                self.word(e::op3_lsl(e::ADD, Size::X, s, base, index, u32::from(mem.scale)));
                self.hold(s, sum);
                self.displaced(s, disp, what)
            }
            (None, Some(index)) => {
                let s = self.scratch();
                self.word(e::op_field(
                    e::UBFM,
                    Size::X,
                    s,
                    index,
                    (64 - u32::from(mem.scale)) & 63,
                    63 - u32::from(mem.scale),
                ));
                self.displaced(s, disp, what)
            }
            (None, None) => Err(EmitError::Internal(Bug::NoBase)),
        }
    }

    /// The sum of base and index as what may be held: neighbours in an array share it. Not of a base that is put together from others.
    fn sum_of(&self, mem: Mem) -> Held {
        match (mem.base, mem.index) {
            (Some(base), Some(index)) if matches!(self.val(base).loc, Loc::X(_)) => {
                Held::Sum { base, index, scale: mem.scale }
            }
            _ => Held::Nothing,
        }
    }

    /// Base register and displacement, with what the base itself is put together from.
    fn base_and_disp(&mut self, mem: Mem, what: Access) -> Result<(Option<X>, i32), EmitError> {
        if let Some(at) = self.constant_base(mem) {
            let (base, disp) = self.near_constant(at, what);
            return Ok((Some(base), disp));
        }
        let Some(v) = mem.base else { return Ok((None, mem.disp)) };
        if let Loc::Sum(r, before) = self.val(v).loc
            && let Some(disp) = before.checked_add(mem.disp)
        {
            return Ok((Some(r), disp));
        }
        Ok((Some(self.x(v)?), mem.disp))
    }

    /// What a memory operand adds to its index, or to nothing, if that is a constant.
    fn constant_base(&self, mem: Mem) -> Option<u64> {
        let base = match mem.base {
            Some(v) => self.as_imm(v)?,
            None if mem.index.is_some() => return None,
            None => 0,
        };
        Some(base.wrapping_add(i64::from(mem.disp) as u64))
    }

    /// A constant address as a register and a displacement that the access can have. Code reads one constant behind the other, so the first scratch
    /// register's is remembered; a round one is shorter to make, and near more of those that follow.
    fn near_constant(&mut self, at: u64, what: Access) -> (X, i32) {
        if let Held::Constant(held) = self.held
            && let Ok(disp) = i32::try_from(at.wrapping_sub(held) as i64)
            && what.reaches(disp)
        {
            return (self.take_held(), disp);
        }
        let low = [0xffff, 0xfff].map(|mask| (at & mask) as i32).into_iter().find(|&low| what.reaches(low));
        let low = low.unwrap_or(0);
        let base = at.wrapping_sub(low as u64);
        let s = self.scratch();
        self.mov_imm(s, base);
        self.hold(s, Held::Constant(base));
        (s, low)
    }

    fn displaced(&mut self, base: X, disp: i32, what: Access) -> Result<At, EmitError> {
        if what.reaches(disp) {
            return Ok(At::Disp(base, disp));
        }
        // The low bits may stay in the access.
        let low = disp & 0xfff;
        if disp > 0 && disp < 1 << 24 && what.reaches(low) {
            return Ok(At::Disp(self.rebased(base, disp - low), low));
        }
        Ok(At::Disp(self.rebased(base, disp), 0))
    }

    /// `base + disp` in a scratch register: the base itself if it is one.
    fn rebased(&mut self, base: X, disp: i32) -> X {
        let s = self.scratch_from(base);
        self.add_disp(s, base, disp);
        s
    }

    /// The whole address in a register.
    fn flat_address(&mut self, mem: Mem) -> Result<X, EmitError> {
        if let (Some(at), None) = (self.constant_base(mem), mem.index) {
            let s = self.scratch();
            self.mov_imm(s, at);
            return Ok(s);
        }
        match self.address(mem, Access::LDRB)? {
            At::Disp(base, 0) => Ok(base),
            At::Disp(base, disp) => Ok(self.rebased(base, disp)),
            At::Index(base, index, _) => {
                let s = self.scratch();
                self.word(e::op3(e::ADD, Size::X, s, base, index));
                Ok(s)
            }
        }
    }

    /// The address of an ordered access: with FEAT_LRCPC2 a register and a small displacement, else a register.
    fn near_address(&mut self, mem: Mem) -> Result<(X, i32), EmitError> {
        let constant = mem.index.is_none() && self.constant_base(mem).is_some();
        if !constant
            && self.host.lrcpc2
            && let At::Disp(base, disp) = self.address(mem, Access::LDRB)?
        {
            if (-256..256).contains(&disp) {
                return Ok((base, disp));
            }
            return Ok((self.rebased(base, disp), 0));
        }
        Ok((self.flat_address(mem)?, 0))
    }

    /// `Op::Load`.
    #[inline(never)]
    pub(super) fn load(&mut self, inst: &Inst) -> Result<(), EmitError> {
        let how = self.how(inst);
        if inst.ty.is_float() && how == How::Ordered {
            let (base, disp) = self.near_address(inst.mem())?;
            let s = self.scratch();
            self.load_acquire(log2_bytes(inst.ty), s, base, disp);
            let d = self.v_dest()?;
            self.word(e::fmov_from_x(float_size(inst.ty), d, s));
            self.known_zero(inst.ty.bits());
            return Ok(());
        }
        if inst.ty.is_vector() || inst.ty.is_float() {
            let what = [Access::LDRS, Access::LDRD, Access::LDRQ][log2_bytes(inst.ty) as usize - 2];
            let at = self.address(inst.mem(), what)?;
            let d = self.v_dest()?;
            self.access(e::access(what, d.0, at));
            self.known_zero(inst.ty.bits());
            self.barrier_behind(how);
            return Ok(());
        }
        let log2 = log2_of(inst.ty);
        if how == How::Ordered {
            let (base, disp) = self.near_address(inst.mem())?;
            let d = self.dest()?;
            self.load_acquire(log2, d, base, disp);
            self.known_zero(inst.ty.bits());
            return Ok(());
        }
        let signed = self.extender(Value(self.at as u32));
        let what = match (inst.ty, signed) {
            (Type::I8, None) => Access::LDRB,
            (Type::I8, Some(Size::W)) => Access::LDRSB,
            (Type::I8, _) => Access::LDRSB_X,
            (Type::I16, None) => Access::LDRH,
            (Type::I16, Some(Size::W)) => Access::LDRSH,
            (Type::I16, _) => Access::LDRSH_X,
            (Type::I32, Some(Size::X)) => Access::LDRSW,
            (Type::I32, _) => Access::LDRW,
            _ => Access::LDRX,
        };
        let at = self.address(inst.mem(), what)?;
        let d = self.dest()?;
        self.access(e::access(what, d.0, at));
        self.barrier_behind(how);
        match signed {
            None => self.known_zero(inst.ty.bits()),
            Some(size) => self.known_zero(size.bits()),
        }
        Ok(())
    }

    fn barrier_behind(&mut self, how: How) {
        if how == How::Fenced {
            self.word(e::DMB_ISHLD);
        }
    }

    fn barrier_before(&mut self, how: How) {
        if how == How::Fenced {
            self.word(e::DMB_ISHST);
        }
    }

    /// The size to which a load extends its value's sign, because that is all it is wanted for.
    fn extender(&self, v: Value) -> Option<Size> {
        let fate = self.plan.fates[v.0 as usize];
        let inst = self.insts[v.0 as usize];
        if fate.uses != 1 || inst.op != Op::Load || self.how(&inst) == How::Ordered {
            return None;
        }
        let user = self.insts.get(fate.user as usize)?;
        (user.op == Op::Sextend && user.args[0] == v.0 && inst.ty.bits() < size_of(user.ty).bits())
            .then(|| size_of(user.ty))
    }

    /// Whether a value has been sign-extended by the load that made it.
    pub(super) fn extended_by_load(&self, v: Value) -> bool {
        self.extender(v).is_some()
    }

    /// A load at what `near_address` gave.
    fn load_acquire(&mut self, log2: u32, d: X, base: X, disp: i32) {
        self.access(if self.host.lrcpc2 {
            e::ordered_at(true, log2, d, base, disp)
        } else {
            let op = if self.host.lrcpc { e::LDAPR } else { e::LDAR };
            e::ordered(op, log2, e::ZR, d, base)
        });
    }

    /// A store there.
    fn store_release(&mut self, log2: u32, from: X, base: X, disp: i32) {
        self.access(if self.host.lrcpc2 {
            e::ordered_at(false, log2, from, base, disp)
        } else {
            e::ordered(e::STLR, log2, e::ZR, from, base)
        });
    }

    /// `Op::Store`.
    #[inline(never)]
    pub(super) fn store(&mut self, inst: &Inst) -> Result<(), EmitError> {
        let (v, how) = (Value(inst.args[3]), self.how(inst));
        if inst.ty.is_float() && how == How::Ordered {
            let from = self.v(v)?;
            let (base, disp) = self.near_address(inst.mem())?;
            let s = self.scratch();
            self.word(e::fmov_to_x(float_size(inst.ty), s, from));
            self.store_release(log2_bytes(inst.ty), s, base, disp);
            return Ok(());
        }
        if inst.ty.is_vector() || inst.ty.is_float() {
            let what = [Access::STRS, Access::STRD, Access::STRQ][log2_bytes(inst.ty) as usize - 2];
            let from = self.v(v)?;
            let at = self.address(inst.mem(), what)?;
            self.barrier_before(how);
            self.access(e::access(what, from.0, at));
            return Ok(());
        }
        let from = self.xz(v)?;
        let log2 = log2_of(inst.ty);
        if how == How::Ordered {
            let (base, disp) = self.near_address(inst.mem())?;
            self.store_release(log2, from, base, disp);
            return Ok(());
        }
        let what = [Access::STRB, Access::STRH, Access::STRW, Access::STRX][log2 as usize];
        let at = self.address(inst.mem(), what)?;
        self.barrier_before(how);
        self.access(e::access(what, from.0, at));
        Ok(())
    }

    /// `Op::Rmw`.
    #[inline(never)]
    pub(super) fn rmw(&mut self, inst: &Inst) -> Result<(), EmitError> {
        let log2 = log2_of(inst.ty);
        let base = self.flat_address(inst.mem())?;
        let from = self.xz(Value(inst.args[3]))?;
        if self.host.lse {
            self.rmw_lse(inst, log2, base, from)?;
        } else {
            self.rmw_exclusive(inst, log2, base, from)?;
        }
        self.known_zero(inst.ty.bits());
        Ok(())
    }

    fn rmw_lse(&mut self, inst: &Inst, log2: u32, base: X, from: X) -> Result<(), EmitError> {
        let size = size_of(inst.ty);
        let (op, operand): (Ordered, X) = match inst.rmw_op() {
            RmwOp::Add => (e::LDADDAL, from),
            RmwOp::Or => (e::LDSETAL, from),
            RmwOp::Xor => (e::LDEORAL, from),
            RmwOp::Xchg => (e::SWPAL, from),
            RmwOp::Sub | RmwOp::And => {
                let s = self.scratch();
                let negate = inst.rmw_op() == RmwOp::Sub;
                self.word(e::op3(if negate { e::SUB } else { e::ORN }, size, s, e::ZR, from));
                (if negate { e::LDADDAL } else { e::LDCLRAL }, s)
            }
        };
        let d = self.dest()?;
        self.access(e::ordered(op, log2, operand, d, base));
        Ok(())
    }

    fn rmw_exclusive(&mut self, inst: &Inst, log2: u32, base: X, from: X) -> Result<(), EmitError> {
        let size = size_of(inst.ty);
        // Not in a guest register: the store may fault behind the load.
        let old = self.temp()?;
        let new = if inst.rmw_op() == RmwOp::Xchg { from } else { self.scratch() };
        let failed = self.scratch();
        let again = self.label();
        self.place(again);
        self.access(e::ordered(e::LDAXR, log2, e::ZR, old, base));
        let op = match inst.rmw_op() {
            RmwOp::Add => Some(e::ADD),
            RmwOp::Sub => Some(e::SUB),
            RmwOp::And => Some(e::AND),
            RmwOp::Or => Some(e::ORR),
            RmwOp::Xor => Some(e::EOR),
            RmwOp::Xchg => None,
        };
        if let Some(op) = op {
            self.word(e::op3(op, size, new, old, from));
        }
        self.access(e::ordered(e::STLXR, log2, failed, new, base));
        self.branch(e::cb(true, Size::W, failed, 0), Reach::Bits19, again);
        // The store-release of an exclusive pair does not order later loads.
        self.word(e::DMB_ISH);
        let d = self.dest()?;
        self.mov(Size::X, d, old);
        Ok(())
    }

    /// `Op::Cas`.
    #[inline(never)]
    pub(super) fn cas(&mut self, inst: &Inst) -> Result<(), EmitError> {
        if inst.ty.is_vector() {
            return self.cas_vector(inst);
        }
        let (log2, size) = (log2_of(inst.ty), size_of(inst.ty));
        let base = self.flat_address(inst.mem())?;
        let expected = self.x(Value(inst.args[1]))?;
        let new = self.xz(Value(inst.args[3]))?;
        let old = self.temp()?;
        let done = self.label();
        if self.host.lse {
            self.mov(size, old, expected);
            self.access(e::ordered(e::CASAL, log2, old, new, base));
            // One that fails releases nothing: a barrier, and again.
            self.compare_sized(size, inst.ty, old, expected);
            self.branch(e::b_cond(e::Cond::Eq, 0), Reach::Bits19, done);
            self.word(e::DMB_ISH);
            self.mov(size, old, expected);
            self.access(e::ordered(e::CASAL, log2, old, new, base));
            self.place(done);
        } else {
            let failed = self.scratch();
            let (again, differs) = (self.label(), self.label());
            self.place(again);
            self.access(e::ordered(e::LDAXR, log2, e::ZR, old, base));
            self.compare_sized(size, inst.ty, old, expected);
            self.branch(e::b_cond(e::Cond::Ne, 0), Reach::Bits19, differs);
            self.access(e::ordered(e::STLXR, log2, failed, new, base));
            self.branch(e::cb(true, Size::W, failed, 0), Reach::Bits19, again);
            self.branch(e::b(0), Reach::Bits26, done);
            // CMPXCHG writes either way: it faults as a store and orders as one.
            self.place(differs);
            self.access(e::ordered(e::STLXR, log2, failed, old, base));
            self.branch(e::cb(true, Size::W, failed, 0), Reach::Bits19, again);
            self.place(done);
            self.word(e::DMB_ISH);
        }
        let d = self.dest()?;
        self.mov(size, d, old);
        self.known_zero(inst.ty.bits());
        Ok(())
    }

    /// `cmp old, expected`, where `old` is zero-extended.
    fn compare_sized(&mut self, size: Size, ty: Type, old: X, expected: X) {
        if ty.bits() >= 32 {
            self.word(e::op3(e::SUBS, size, e::ZR, old, expected));
        } else {
            self.compare_widened(old, expected, ty);
        }
    }

    /// 16 bytes, by exclusive pairs: the loaded pair is one access only if the store succeeds (Arm ARM B2.2.1), so the old value is
    /// written back where it differs.
    fn cas_vector(&mut self, inst: &Inst) -> Result<(), EmitError> {
        let base = self.flat_address(inst.mem())?;
        let base = if base.0 == 30 {
            base
        } else {
            self.mov(Size::X, X(30), base);
            X(30)
        };
        let expected = self.v(Value(inst.args[1]))?;
        let new = self.v(Value(inst.args[3]))?;
        let (low, high) = (self.temp()?, self.temp()?);
        let (s, t, failed) = (X(16), X(17), X(0));
        self.held = Held::Nothing;
        let (again, differs, store) = (self.label(), self.label(), self.label());
        self.place(again);
        self.access(e::ldaxp(low, high, base));
        self.word(e::fmov_to_x(Size::X, s, expected));
        self.word(e::umov(3, t, expected, 1));
        self.word(e::op3(e::SUBS, Size::X, e::ZR, low, s));
        self.word(e::ccmp(Size::X, high, t, 0, e::Cond::Eq));
        self.branch(e::b_cond(e::Cond::Ne, 0), Reach::Bits19, differs);
        self.word(e::fmov_to_x(Size::X, s, new));
        self.word(e::umov(3, t, new, 1));
        self.branch(e::b(0), Reach::Bits26, store);
        self.place(differs);
        self.mov(Size::X, s, low);
        self.mov(Size::X, t, high);
        self.place(store);
        self.access(e::stlxp(failed, s, t, base));
        self.branch(e::cb(true, Size::W, failed, 0), Reach::Bits19, again);
        self.word(e::DMB_ISH);
        let d = self.v_dest()?;
        self.word(e::fmov_from_x(Size::X, d, low));
        self.word(e::ins_x(3, d, 1, high));
        Ok(())
    }
}

/// Size of the integer with a scalar float's bits.
fn float_size(ty: Type) -> Size {
    if ty == Type::F64 { Size::X } else { Size::W }
}

fn log2_bytes(ty: Type) -> u32 {
    ty.bytes().trailing_zeros()
}
