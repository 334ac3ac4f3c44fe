//! Accesses to guest memory. All of them carry [`GUEST_ACCESS`] or [`FENCED_ACCESS`], which puts their places into the list of traps.
//!
//! The order they promise is decided here and in `order.rs` (`MemoryOrder`); `docs/MEMORY-MODEL.md` argues it, and
//! `tests/lower/order/` pins it. On x86-64 hosts plain accesses are in total store order. On AArch64 under `Tso`, integers up to
//! 64 bits are load-acquire and store-release ([`Scalars`]); floats go through integers; vectors, and what has been seen not to be
//! aligned ([`Inst::UNALIGNED`]), use a barrier behind each load and before each store. Read-modify-writes are full barriers, as LOCK is,
//! also where a compare-and-swap fails.

use super::regs::accesses_guest;
use super::{FENCED_ACCESS, GUEST_ACCESS, LANES, LOOK_BACK, Lowering, clif_type};
use crate::compile::StateAtFaults;
use crate::helpers::Own;
use crate::isa::Arch;
use crate::order::{OFFSETS, Scalars};
use calque_ir::{CpuState, Inst, Mem, Op, RmwOp, Type, Value as IrValue};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{self as clif, AtomicRmwOp, InstBuilder, MemFlagsData, types};
use std::mem::offset_of;

/// Guest memory: may fault, need not be aligned.
const GUEST: MemFlagsData = MemFlagsData::new().with_trap_code(Some(GUEST_ACCESS));

/// How an access is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Plain,
    /// Load-acquire, store-release.
    Ordered,
    /// Plain, of base and offset: `order.rs` makes it ordered.
    Rewritten,
    /// Plain, with a barrier behind a load or before a store.
    Fenced,
}

impl Access {
    fn flags(self) -> MemFlagsData {
        if self == Access::Fenced { GUEST.with_trap_code(Some(FENCED_ACCESS)) } else { GUEST }
    }
}

/// The part of a displacement that an AArch64 access of so many bytes has room for: 9 bits with a sign, unless the access is ordered also
/// 12 bits in units of its size (Arm ARM C3.2). Of one that does not fit, the offset in a page, so that neighbours have the rest in common.
fn near_part(disp: i32, bytes: u32, ordered: bool) -> i32 {
    let bytes = bytes as i32;
    let is_scaled = |disp: i32| !ordered && disp >= 0 && disp % bytes == 0 && disp / bytes < 4096;
    let fits = |disp: &i32| OFFSETS.contains(disp) || is_scaled(*disp);
    [disp, disp & 0xfff, disp & 0xff].into_iter().find(fits).expect("8 bits fit")
}

impl Lowering<'_> {
    /// Whether accesses promise more than the host's instructions do.
    fn must_order(&self) -> bool {
        self.scalars != Scalars::Plain
    }

    fn access(&self, inst: &Inst) -> Access {
        match self.scalars {
            Scalars::Plain => Access::Plain,
            _ if inst.ty.is_vector() || inst.is_unaligned() => Access::Fenced,
            Scalars::Acquire => Access::Ordered,
            Scalars::Rewritten => Access::Rewritten,
        }
    }

    /// Base and displacement of a memory operand, shaped so that Cranelift finds an addressing mode.
    fn address(&mut self, mem: Mem, bytes: u32) -> (clif::Value, i32) {
        if mem.disp != 0
            && self.is_summed(mem)
            && let Some(sum) = self.shared_sum(mem, bytes)
        {
            return (sum, mem.disp);
        }
        let (base, disp) = self.base(mem, bytes);
        let index = self.scaled_index(mem);
        match (base, index) {
            (Some(base), Some(index)) => (self.b.ins().iadd(base, index), disp),
            (Some(part), None) | (None, Some(part)) => (part, disp),
            (None, None) => (self.iconst(types::I64, i64::from(disp)), 0),
        }
    }

    fn scaled_index(&mut self, mem: Mem) -> Option<clif::Value> {
        let index = self.value(mem.index?);
        if mem.scale == 0 {
            return Some(index);
        }
        let scale = self.iconst(types::I64, i64::from(mem.scale));
        Some(self.b.ins().ishl(index, scale))
    }

    /// Whether a sum of the operand's base and index serves several of the block's accesses: no access with a displacement can have both
    /// on AArch64, but neighbours in an array differ only by that.
    fn is_summed(&self, mem: Mem) -> bool {
        let (Some(base), Some(index)) = (mem.base, mem.index) else { return false };
        let shares = |other: Mem| (other.base, other.index, other.scale) == (mem.base, mem.index, mem.scale);
        let mut next = self.region.insts[self.at + 1..].iter().take(LOOK_BACK);
        self.sums.contains_key(&(base, index, mem.scale))
            || next.any(|inst| accesses_guest(inst.op) && shares(inst.mem()))
    }

    /// That sum, if the access has room for the displacement.
    fn shared_sum(&mut self, mem: Mem, bytes: u32) -> Option<clif::Value> {
        let (base, index) = (mem.base?, mem.index?);
        if self.on(Arch::X86_64) || near_part(mem.disp, bytes, self.must_order()) != mem.disp {
            return None;
        }
        if let Some(&shared) = self.sums.get(&(base, index, mem.scale)) {
            return Some(shared);
        }
        let (first, second) = (self.value(base), self.scaled_index(mem)?);
        let sum = self.b.ins().iadd(first, second);
        let shared = self.opaque(sum);
        self.sums.insert((base, index, mem.scale), shared);
        Some(shared)
    }

    /// A memory operand's base, and a displacement that an access to so many bytes has room for. AArch64 takes up to three instructions for
    /// another: those put the rest of it into the base, which the block's later accesses share.
    fn base(&mut self, mem: Mem, bytes: u32) -> (Option<clif::Value>, i32) {
        let near = match mem.index.and(mem.base) {
            _ if self.on(Arch::X86_64) => mem.disp,
            Some(_) => 0,
            None => near_part(mem.disp, bytes, self.must_order()),
        };
        let base = mem.base.map(|v| self.value(v));
        let far = mem.disp - near;
        if far == 0 {
            return (base, near);
        }
        if let Some(&shared) = self.bases.get(&(mem.base, far)) {
            return (Some(shared), near);
        }
        let far_part = self.iconst(types::I64, i64::from(far));
        let sum = base.map_or(far_part, |base| self.b.ins().iadd(base, far_part));
        let shared = self.opaque(sum);
        self.bases.insert((mem.base, far), shared);
        (Some(shared), near)
    }

    /// The whole address of a memory operand.
    fn flat_address(&mut self, mem: Mem, bytes: u32) -> clif::Value {
        let (base, disp) = self.address(mem, bytes);
        if disp == 0 {
            return base;
        }
        let disp = self.iconst(types::I64, i64::from(disp));
        self.b.ins().iadd(base, disp)
    }

    /// Base and displacement in the form that `order.rs` has instructions for.
    fn unscaled_address(&mut self, mem: Mem, bytes: u32) -> (clif::Value, i32) {
        if let Some(sum) = self.shared_sum(mem, bytes) {
            return (sum, mem.disp);
        }
        let (base, disp) = self.address(mem, bytes);
        if OFFSETS.contains(&disp) {
            return (self.opaque(base), disp);
        }
        let flat = self.flat_address(mem, bytes);
        (self.opaque(flat), 0)
    }

    /// `Op::Load`.
    pub(super) fn load(&mut self, inst: &Inst) -> clif::Value {
        self.before_access();
        let ty = clif_type(inst.ty);
        let access = self.access(inst);
        let bits = clif::Type::int(ty.bits() as u16);
        if access == Access::Ordered {
            let address = self.flat_address(inst.mem(), ty.bytes());
            let bits = bits.expect("a scalar");
            let value = self.b.ins().atomic_load(bits, GUEST, address);
            return if bits == ty { value } else { self.b.ins().bitcast(ty, LANES, value) };
        }
        let rewritten = access == Access::Rewritten;
        let (mem, bytes) = (inst.mem(), ty.bytes());
        let (base, disp) = if rewritten { self.unscaled_address(mem, bytes) } else { self.address(mem, bytes) };
        let extended = self.load_extended(inst, access.flags(), base, disp);
        if extended.is_none() && rewritten && ty.is_float() {
            let value = self.b.ins().load(bits.expect("a scalar"), GUEST, base, disp);
            return self.b.ins().bitcast(ty, LANES, value);
        }
        let value = extended.unwrap_or_else(|| self.b.ins().load(ty, access.flags(), base, disp));
        if access == Access::Fenced {
            self.b.ins().fence();
        }
        if extended.is_some() {
            return value;
        }
        // A fault must not move to the instruction that uses the value, which Cranelift may fold the load into.
        if self.options.state_at_faults != StateAtFaults::PcOnly || rewritten { self.opaque(value) } else { value }
    }

    /// An integer that is wanted extended: the load does it. Where nothing else is wanted, the extension finds the value in its own type.
    fn load_extended(&mut self, inst: &Inst, flags: MemFlagsData, base: clif::Value, disp: i32) -> Option<clif::Value> {
        let only = self.users.only(self.at).map(|user| self.region.insts[user]);
        if let Some(user) = only.filter(|user| user.op == Op::Sextend && matches!(user.ty, Type::I32 | Type::I64)) {
            let (to, ins) = (clif_type(user.ty), self.b.ins());
            return Some(match inst.ty {
                Type::I8 => ins.sload8(to, flags, base, disp),
                Type::I16 => ins.sload16(to, flags, base, disp),
                _ => ins.sload32(flags, base, disp),
            });
        }
        let to = only.filter(|user| user.op == Op::Uextend).map_or(inst.ty, |user| user.ty);
        if only.is_some() && to == inst.ty || only.is_none() && !self.is_extended_soon() {
            return None;
        }
        let ins = self.b.ins();
        let wide = match inst.ty {
            Type::I8 => ins.uload8(types::I64, flags, base, disp),
            Type::I16 => ins.uload16(types::I64, flags, base, disp),
            Type::I32 => ins.uload32(flags, base, disp),
            _ => return None,
        };
        Some(self.part_of(wide, clif_type(to)))
    }

    /// Whether the value at hand is zero-extended by one of the next instructions.
    fn is_extended_soon(&self) -> bool {
        let mut next = self.region.insts[self.at + 1..].iter().take(LOOK_BACK);
        next.any(|inst| inst.op == Op::Uextend && inst.args[0] as usize == self.at)
    }

    /// `Op::Store`.
    pub(super) fn store(&mut self, inst: &Inst) {
        self.before_access();
        let value = self.in_register(IrValue(inst.args[3]));
        let access = self.access(inst);
        if access == Access::Fenced {
            self.b.ins().fence();
        }
        let bytes = clif_type(inst.ty).bytes();
        if !matches!(access, Access::Ordered | Access::Rewritten) {
            let (base, disp) = self.address(inst.mem(), bytes);
            self.b.ins().store(access.flags(), value, base, disp);
            return;
        }
        let bits = clif::Type::int(inst.ty.bits() as u16).expect("a scalar");
        let value = self.view(value, bits);
        if access == Access::Ordered {
            let address = self.flat_address(inst.mem(), bytes);
            self.b.ins().atomic_store(GUEST, value, address);
        } else {
            let (base, disp) = self.unscaled_address(inst.mem(), bytes);
            self.b.ins().store(GUEST, value, base, disp);
        }
    }

    /// `Op::Rmw`.
    pub(super) fn rmw(&mut self, inst: &Inst) -> clif::Value {
        self.before_access();
        let value = self.value(IrValue(inst.args[3]));
        let address = self.flat_address(inst.mem(), clif_type(inst.ty).bytes());
        let op = match inst.rmw_op() {
            RmwOp::Add => AtomicRmwOp::Add,
            RmwOp::Sub => AtomicRmwOp::Sub,
            RmwOp::And => AtomicRmwOp::And,
            RmwOp::Or => AtomicRmwOp::Or,
            RmwOp::Xor => AtomicRmwOp::Xor,
            RmwOp::Xchg => AtomicRmwOp::Xchg,
        };
        let old = self.b.ins().atomic_rmw(clif_type(inst.ty), GUEST, op, address, value);
        // Cranelift makes a loop of an exchange on every host.
        let in_a_loop = !self.host.has("has_lse") || op == AtomicRmwOp::Xchg;
        if self.must_order() && in_a_loop {
            // Its exclusive store is no barrier for what comes behind it.
            self.b.ins().fence();
        }
        old
    }

    /// `Op::Cas`.
    pub(super) fn cas(&mut self, inst: &Inst) -> clif::Value {
        self.before_access();
        let address = self.flat_address(inst.mem(), clif_type(inst.ty).bytes());
        let expected = self.value(IrValue(inst.args[1]));
        let new = self.value(IrValue(inst.args[3]));
        if !inst.ty.is_vector() {
            return if self.must_order() {
                self.ordered_cas(address, expected, new)
            } else {
                self.scalar_cas(address, expected, new)
            };
        }
        if self.on(Arch::Aarch64) {
            return self.cas_out_of_line(address, expected, new);
        }
        let (expected, new) = (self.wide(expected), self.wide(new));
        let old = self.b.ins().atomic_cas(GUEST, address, expected, new);
        let (low, high) = self.b.ins().isplit(old);
        self.concat(low, high)
    }

    fn scalar_cas(&mut self, address: clif::Value, expected: clif::Value, new: clif::Value) -> clif::Value {
        let ty = self.b.func.dfg.value_type(expected);
        let mut expected = expected;
        if self.on(Arch::Aarch64) && !self.host.has("has_lse") && ty == types::I32 {
            // Cranelift's loop compares all 64 bits of the register (aarch64/inst/emit.rs, AtomicCASLoop).
            let wide = self.b.ins().uextend(types::I64, expected);
            expected = self.b.ins().ireduce(types::I32, wide);
        }
        let old = self.b.ins().atomic_cas(GUEST, address, expected, new);
        if !self.on(Arch::Aarch64) || self.host.has("has_lse") {
            return old;
        }
        // Nor does that loop store where the comparison fails, and CMPXCHG is a write either way (SDM vol. 2): this faults as one.
        self.where_cas_failed(old, expected, |l| {
            l.add_nothing(ty, &[address]);
            old
        })
    }

    /// `old`, or what `then` makes where that is not what a compare-and-swap has expected.
    fn where_cas_failed(
        &mut self,
        old: clif::Value,
        expected: clif::Value,
        then: impl FnOnce(&mut Self) -> clif::Value,
    ) -> clif::Value {
        let ty = self.b.func.dfg.value_type(old);
        let (failed, done) = (self.b.create_block(), self.b.create_block());
        let result = self.b.append_block_param(done, ty);
        let differs = self.b.ins().icmp(IntCC::NotEqual, old, expected);
        self.b.ins().brif(differs, failed, &[], done, &[old.into()]);
        self.b.set_cold_block(failed);
        self.b.switch_to_block(failed);
        let other = then(self);
        self.b.ins().jump(done, &[other.into()]);
        self.b.switch_to_block(done);
        result
    }

    /// Raises the faults of writes, and changes nothing.
    fn add_nothing(&mut self, ty: clif::Type, addresses: &[clif::Value]) {
        let zero = self.iconst(ty, 0);
        for &address in addresses {
            self.b.ins().atomic_rmw(ty, GUEST, AtomicRmwOp::Add, address, zero);
        }
    }

    /// Compare-and-swap as a full barrier. One that succeeds with LSE is one by itself. One that fails has only loaded, which earlier
    /// stores may be behind: it is tried again behind a barrier, and whatever comes out then is in order.
    fn ordered_cas(&mut self, address: clif::Value, expected: clif::Value, new: clif::Value) -> clif::Value {
        if !self.host.has("has_lse") {
            self.b.ins().fence();
            let old = self.scalar_cas(address, expected, new);
            self.b.ins().fence();
            return old;
        }
        let first = self.scalar_cas(address, expected, new);
        self.where_cas_failed(first, expected, |l| {
            l.b.ins().fence();
            l.scalar_cas(address, expected, new)
        })
    }

    /// 16 bytes on a host where Cranelift has no instruction for them. The two additions of nothing raise the faults of the
    /// access here, where the guest pc is known; then the helper does the work.
    fn cas_out_of_line(&mut self, address: clif::Value, expected: clif::Value, new: clif::Value) -> clif::Value {
        let upper = self.b.ins().iadd_imm_s(address, 8);
        self.add_nothing(types::I64, &[address, upper]);
        self.store_state(expected, offset_of!(CpuState, scratch));
        self.store_state(new, offset_of!(CpuState, scratch) + 16);
        self.call_table(Own::Cas128.index(), &[address]);
        self.load_state(types::I8X16, offset_of!(CpuState, scratch))
    }

    /// A vector as `i128`.
    fn wide(&mut self, v: clif::Value) -> clif::Value {
        let v = self.view(v, types::I64X2);
        let low = self.b.ins().extractlane(v, 0);
        let high = self.b.ins().extractlane(v, 1);
        self.b.ins().iconcat(low, high)
    }
}
