//! Accesses to guest memory. All of them carry [`GUEST_ACCESS`], which puts their places into the list of traps.
//!
//! The order they promise is decided here and nowhere else ([`MemoryOrder`]). On x86-64 hosts plain accesses are in total
//! store order. On AArch64 under `Tso`, integers up to 64 bits use `ldar`/`stlr`; floats go through integers; vectors use a
//! barrier behind each load and before each store. Read-modify-writes are sequentially consistent everywhere.

use super::{GUEST_ACCESS, LANES, Lowering, clif_type};
use crate::compile::{MemoryOrder, StateAtFaults};
use crate::helpers::Own;
use crate::isa::Arch;
use calque_ir::{CpuState, Inst, Mem, Op, RmwOp, Type, Value as IrValue};
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
    /// Plain, with a barrier behind a load or before a store.
    Fenced,
}

impl Lowering<'_> {
    fn access(&self, ty: Type) -> Access {
        if self.options.memory_order == MemoryOrder::Plain || self.on(Arch::X86_64) {
            Access::Plain
        } else if ty.is_vector() {
            Access::Fenced
        } else {
            Access::Ordered
        }
    }

    /// Base and displacement of a memory operand, shaped so that Cranelift finds an addressing mode.
    fn address(&mut self, mem: Mem) -> (clif::Value, i32) {
        let base = mem.base.map(|v| self.value(v));
        let index = mem.index.map(|v| self.value(v)).map(|index| {
            if mem.scale == 0 {
                return index;
            }
            let scale = self.iconst(types::I64, i64::from(mem.scale));
            self.b.ins().ishl(index, scale)
        });
        match (base, index) {
            (Some(base), Some(index)) => (self.b.ins().iadd(base, index), mem.disp),
            (Some(part), None) | (None, Some(part)) => (part, mem.disp),
            (None, None) => (self.iconst(types::I64, i64::from(mem.disp)), 0),
        }
    }

    /// The whole address of a memory operand.
    fn flat_address(&mut self, mem: Mem) -> clif::Value {
        let (base, disp) = self.address(mem);
        if disp == 0 {
            return base;
        }
        let disp = self.iconst(types::I64, i64::from(disp));
        self.b.ins().iadd(base, disp)
    }

    /// `Op::Load`.
    pub(super) fn load(&mut self, inst: &Inst) -> clif::Value {
        self.before_access();
        let ty = clif_type(inst.ty);
        let access = self.access(inst.ty);
        if access == Access::Ordered {
            let address = self.flat_address(inst.mem());
            let bits = clif::Type::int(ty.bits() as u16).expect("a scalar");
            let value = self.b.ins().atomic_load(bits, GUEST, address);
            return if bits == ty { value } else { self.b.ins().bitcast(ty, LANES, value) };
        }
        let (base, disp) = self.address(inst.mem());
        if let Some(extended) = self.load_extended(inst, base, disp) {
            return extended;
        }
        let value = self.b.ins().load(ty, GUEST, base, disp);
        if access == Access::Fenced {
            self.b.ins().fence();
        }
        // A fault must not move to the instruction that uses the value, which Cranelift may fold the load into.
        if self.options.state_at_faults == StateAtFaults::Precise { self.opaque(value) } else { value }
    }

    /// A byte or word that is only wanted extended: one instruction. The extension then finds the value in its own type.
    fn load_extended(&mut self, inst: &Inst, base: clif::Value, disp: i32) -> Option<clif::Value> {
        let user = self.region.insts[self.users.only(self.at)?];
        if !matches!(user.ty, Type::I32 | Type::I64) {
            return None;
        }
        let to = clif_type(user.ty);
        let ins = self.b.ins();
        Some(match (user.op, inst.ty) {
            (Op::Uextend, Type::I8) => ins.uload8(to, GUEST, base, disp),
            (Op::Uextend, Type::I16) => ins.uload16(to, GUEST, base, disp),
            (Op::Sextend, Type::I8) => ins.sload8(to, GUEST, base, disp),
            (Op::Sextend, Type::I16) => ins.sload16(to, GUEST, base, disp),
            (Op::Sextend, Type::I32) if user.ty == Type::I64 => ins.sload32(GUEST, base, disp),
            _ => return None,
        })
    }

    /// `Op::Store`.
    pub(super) fn store(&mut self, inst: &Inst) {
        self.before_access();
        let value = self.value(IrValue(inst.args[3]));
        match self.access(inst.ty) {
            Access::Plain => {}
            Access::Fenced => {
                self.b.ins().fence();
            }
            Access::Ordered => {
                let bits = clif::Type::int(inst.ty.bits() as u16).expect("a scalar");
                let value = self.view(value, bits);
                let address = self.flat_address(inst.mem());
                self.b.ins().atomic_store(GUEST, value, address);
                return;
            }
        }
        let (base, disp) = self.address(inst.mem());
        self.b.ins().store(GUEST, value, base, disp);
    }

    /// `Op::Rmw`.
    pub(super) fn rmw(&mut self, inst: &Inst) -> clif::Value {
        self.before_access();
        let value = self.value(IrValue(inst.args[3]));
        let address = self.flat_address(inst.mem());
        let op = match inst.rmw_op() {
            RmwOp::Add => AtomicRmwOp::Add,
            RmwOp::Sub => AtomicRmwOp::Sub,
            RmwOp::And => AtomicRmwOp::And,
            RmwOp::Or => AtomicRmwOp::Or,
            RmwOp::Xor => AtomicRmwOp::Xor,
            RmwOp::Xchg => AtomicRmwOp::Xchg,
        };
        self.b.ins().atomic_rmw(clif_type(inst.ty), GUEST, op, address, value)
    }

    /// `Op::Cas`.
    pub(super) fn cas(&mut self, inst: &Inst) -> clif::Value {
        self.before_access();
        let address = self.flat_address(inst.mem());
        let expected = self.value(IrValue(inst.args[1]));
        let new = self.value(IrValue(inst.args[3]));
        if !inst.ty.is_vector() {
            return self.b.ins().atomic_cas(GUEST, address, expected, new);
        }
        if self.on(Arch::Aarch64) {
            return self.cas_out_of_line(address, expected, new);
        }
        let (expected, new) = (self.wide(expected), self.wide(new));
        let old = self.b.ins().atomic_cas(GUEST, address, expected, new);
        let (low, high) = self.b.ins().isplit(old);
        self.concat(low, high)
    }

    /// 16 bytes on a host where Cranelift has no instruction for them. The two additions of nothing raise the faults of the
    /// access here, where the guest pc is known; then the helper does the work.
    fn cas_out_of_line(&mut self, address: clif::Value, expected: clif::Value, new: clif::Value) -> clif::Value {
        let zero = self.iconst(types::I64, 0);
        let upper = self.b.ins().iadd_imm_s(address, 8);
        for half in [address, upper] {
            self.b.ins().atomic_rmw(types::I64, GUEST, AtomicRmwOp::Add, half, zero);
        }
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

    /// `Op::Count`.
    pub(super) fn count(&mut self, n: u64) {
        let at = offset_of!(CpuState, rt.counters);
        let old = self.load_state(types::I64, at);
        let n = self.iconst(types::I64, n as i64);
        let new = self.b.ins().iadd(old, n);
        self.store_state(new, at);
    }
}
