//! Operands: `read`, `write`, `modify`, `addr`.
//!
//! Everything about operands that isn't the same for all widths is here: the high-byte registers AH..BH, the zero
//! extension of 32-bit register writes and the preservation of the rest by narrower ones (SDM vol. 1 3.4.1.1), FS
//! and GS bases, RIP-relative and 32-bit addresses, LOCK.
//!
//! Values of registers are remembered within a block ([`RegCache`]), so that a register is fetched once however
//! often it is read; `put`s are emitted as they come.
//!
//! Invariant: the cache holds what the registers hold *architecturally now*; it is emptied when a block opens and
//! by whoever changes registers behind its back.

use super::align::Alignments;
use super::vex::{first_source, is_vex};
use super::{Insn, Lifter};
use calque_ir::{GuestAddr, Mem, Op, Reg, RmwOp, Type, Value};
use iced_x86::{OpKind, Register};

/// What is known of the general and vector registers' values.
#[derive(Default)]
pub(crate) struct RegCache {
    /// All 64 bits.
    pub(super) full: Held,
    /// The low 32 bits.
    pub(super) low: Held,
    /// Bit n: the upper half of register n is known to be zero (and `low[n]` is set).
    zero_extended: u16,
    /// All 128 bits.
    pub(super) xmm: Held,
    /// Bit n: bits 128 and up of vector register n are known to be zero.
    pub(super) clear_above: u16,
    /// 128 zero bits.
    pub(super) vector_zero: Option<Value>,
    pub(super) alignments: Alignments,
}

/// Values that 16 registers hold, as far as they are known.
pub(super) struct Held(pub(super) [Value; 16]);

impl Default for Held {
    fn default() -> Self {
        Self([Value::NONE; 16])
    }
}

impl Held {
    #[inline]
    fn get(&self, n: usize) -> Option<Value> {
        self.0[n].expand()
    }

    #[inline]
    fn set(&mut self, n: usize, v: Value) {
        self.0[n] = v;
    }

    #[inline]
    fn forget(&mut self, n: usize) {
        self.0[n] = Value::NONE;
    }
}

impl RegCache {
    /// Forgets everything.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }
}

/// Whether an access of a vector operand must be aligned to its size (#GP), as in most legacy SSE instructions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Alignment {
    Required,
    Any,
}

/// General register of any width: number, and where in it the value is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Gpr {
    R8(usize),
    /// AH, CH, DH, BH as 0..4.
    High8(usize),
    R16(usize),
    R32(usize),
    R64(usize),
}

impl Gpr {
    /// The register, if it is a general one.
    #[inline]
    pub(crate) fn from_iced(r: Register) -> Option<Gpr> {
        GPRS.get(r as usize).copied().flatten()
    }

    /// The same by iced's number.
    pub(crate) const fn of_register(r: usize) -> Option<Gpr> {
        use Register::{AH, AL, AX, BH, EAX, R15, R15D, R15L, R15W, RAX, SPL};
        const fn place(r: usize, first: Register, last: Register) -> Option<usize> {
            if first as usize <= r && r <= last as usize { Some(r - first as usize) } else { None }
        }
        // AL CL DL BL, then AH CH DH BH, then SPL BPL SIL DIL R8L...
        if let Some(n) = place(r, AH, BH) {
            Some(Gpr::High8(n))
        } else if let Some(n) = place(r, SPL, R15L) {
            Some(Gpr::R8(n + 4))
        } else if let Some(n) = place(r, AL, BH) {
            Some(Gpr::R8(n))
        } else if let Some(n) = place(r, AX, R15W) {
            Some(Gpr::R16(n))
        } else if let Some(n) = place(r, EAX, R15D) {
            Some(Gpr::R32(n))
        } else if let Some(n) = place(r, RAX, R15) {
            Some(Gpr::R64(n))
        } else {
            None
        }
    }

    /// Width of the value.
    pub(crate) fn ty(self) -> Type {
        match self {
            Gpr::R8(_) | Gpr::High8(_) => Type::I8,
            Gpr::R16(_) => Type::I16,
            Gpr::R32(_) => Type::I32,
            Gpr::R64(_) => Type::I64,
        }
    }

    /// Low part of register `n` of an integer type.
    pub(crate) fn of(n: usize, ty: Type) -> Gpr {
        match ty {
            Type::I8 => Gpr::R8(n),
            Type::I16 => Gpr::R16(n),
            Type::I32 => Gpr::R32(n),
            _ => Gpr::R64(n),
        }
    }
}

/// The general registers by iced's numbers.
static GPRS: [Option<Gpr>; Register::R15 as usize + 1] = {
    let (mut table, mut n) = ([None; Register::R15 as usize + 1], 0);
    while n < table.len() {
        table[n] = Gpr::of_register(n);
        n += 1;
    }
    table
};

/// Numbers of the general registers that instructions name implicitly.
pub(crate) mod gpr {
    #![allow(missing_docs)]
    pub(crate) const RAX: usize = 0;
    pub(crate) const RCX: usize = 1;
    pub(crate) const RDX: usize = 2;
    pub(crate) const RBX: usize = 3;
    pub(crate) const RSP: usize = 4;
    pub(crate) const RBP: usize = 5;
    pub(crate) const RSI: usize = 6;
    pub(crate) const RDI: usize = 7;
}

/// General registers.
impl Lifter<'_> {
    /// All 64 bits of register `n`.
    #[inline(always)]
    pub(crate) fn gpr64(&mut self, n: usize) -> Value {
        match self.regs.full.get(n) {
            Some(v) => v,
            None => self.fetch64(n),
        }
    }

    /// The same, where they are not held.
    #[inline(never)]
    fn fetch64(&mut self, n: usize) -> Value {
        let v = match self.regs.low.get(n) {
            Some(low) if self.regs.zero_extended >> n & 1 != 0 => self.b.unary(Op::Uextend, Type::I64, low),
            _ => self.b.get(Type::I64, Reg::gpr(n)),
        };
        self.regs.full.set(n, v);
        v
    }

    #[inline(always)]
    fn gpr32(&mut self, n: usize) -> Value {
        match self.regs.low.get(n) {
            Some(v) => v,
            None => self.fetch32(n),
        }
    }

    #[inline(never)]
    fn fetch32(&mut self, n: usize) -> Value {
        let v = match self.regs.full.get(n) {
            Some(full) => self.b.unary(Op::Ireduce, Type::I32, full),
            None => self.b.get(Type::I32, Reg::gpr(n)),
        };
        self.regs.low.set(n, v);
        v
    }

    /// Low `ty` part (`i8`, `i16`) of register `n`.
    fn gpr_narrow(&mut self, ty: Type, n: usize) -> Value {
        match self.regs.full.get(n).or(self.regs.low.get(n)) {
            Some(v) => self.low_part(ty, v),
            None => self.b.get(ty, Reg::gpr(n)),
        }
    }

    /// The low `ty` part of `v`: what was widened or inserted to make it, where that is all of the part.
    fn low_part(&mut self, ty: Type, v: Value) -> Value {
        let def = *self.b.def(v);
        match def.op {
            Op::Uextend | Op::Sextend if self.b.ty(Value(def.args[0])) == ty => Value(def.args[0]),
            Op::InsertLow8 if ty == Type::I8 => Value(def.args[1]),
            Op::InsertLow16 if ty == Type::I16 => Value(def.args[1]),
            _ => self.b.unary(Op::Ireduce, ty, v),
        }
    }

    /// Reads a general register at its width.
    #[inline(always)]
    pub(crate) fn read_gpr(&mut self, r: Gpr) -> Value {
        match r {
            Gpr::R64(n) => self.gpr64(n),
            Gpr::R32(n) => self.gpr32(n),
            narrow => self.read_narrow(narrow),
        }
    }

    #[inline(never)]
    fn read_narrow(&mut self, r: Gpr) -> Value {
        match r {
            Gpr::R64(_) | Gpr::R32(_) => self.read_gpr(r),
            Gpr::R16(n) => self.gpr_narrow(Type::I16, n),
            Gpr::R8(n) => self.gpr_narrow(Type::I8, n),
            Gpr::High8(n) => {
                let full = self.gpr64(n);
                let eight = self.b.iconst(Type::I64, 8);
                let shifted = self.b.binary(Op::Ushr, Type::I64, full, eight);
                self.b.unary(Op::Ireduce, Type::I8, shifted)
            }
        }
    }

    /// Writes a general register at its width.
    #[inline(always)]
    pub(crate) fn write_gpr(&mut self, r: Gpr, v: Value) {
        debug_assert_eq!(self.b.ty(v), r.ty());
        match r {
            Gpr::R64(n) => self.put_gpr64(n, v),
            Gpr::R32(n) => self.put_gpr32(n, v),
            narrow => self.write_narrow(narrow, v),
        }
    }

    #[inline(never)]
    fn write_narrow(&mut self, r: Gpr, v: Value) {
        match r {
            Gpr::R64(_) | Gpr::R32(_) => self.write_gpr(r, v),
            Gpr::R16(n) => self.insert_gpr(Op::InsertLow16, n, v),
            Gpr::R8(n) => self.insert_gpr(Op::InsertLow8, n, v),
            Gpr::High8(n) => self.insert_gpr(Op::InsertHigh8, n, v),
        }
    }

    fn put_gpr64(&mut self, n: usize, v: Value) {
        self.b.put_as(Reg::gpr(n), Type::I64, v);
        self.regs.full.set(n, v);
        self.regs.low.forget(n);
        self.regs.zero_extended &= !(1 << n);
    }

    /// Writes 32 bits, which clears those above.
    fn put_gpr32(&mut self, n: usize, v: Value) {
        self.b.put_as(Reg::gpr(n), Type::I32, v);
        self.regs.full.forget(n);
        self.regs.low.set(n, v);
        self.regs.zero_extended |= 1 << n;
    }

    /// Makes later reads of register `n` see `v` without writing the register; yields what they saw before.
    pub(crate) fn replace_gpr64(&mut self, n: usize, v: Value) -> Value {
        let old = self.gpr64(n);
        self.regs.full.set(n, v);
        self.regs.low.forget(n);
        self.regs.zero_extended &= !(1 << n);
        old
    }

    /// Whether register `n` is known to be zero.
    fn is_zero(&self, n: usize) -> bool {
        let low = self.regs.low.get(n).and_then(|v| self.b.as_const(v));
        low == Some(0) && self.regs.zero_extended >> n & 1 != 0
    }

    fn insert_gpr(&mut self, op: Op, n: usize, v: Value) {
        if op != Op::InsertHigh8 && self.is_zero(n) {
            // XOR EAX,EAX; SETcc AL.
            let wide = self.b.unary(Op::Uextend, Type::I32, v);
            return self.write_gpr(Gpr::R32(n), wide);
        }
        let old = self.gpr64(n);
        let new = self.b.binary(op, Type::I64, old, v);
        self.put_gpr64(n, new);
    }
}

/// Whether the memory operand's address is computed modulo 2^32: a 0x67 prefix.
pub(super) fn has_narrow_address(i: &Insn) -> bool {
    let (base, index) = (i.memory_base(), i.memory_index());
    base.is_gpr32()
        || index.is_gpr32()
        || i.memory_displ_size() == 4 && base == Register::None && index == Register::None
}

/// Memory.
impl Lifter<'_> {
    /// The memory operand as an IR address, segment base included.
    pub(crate) fn addr(&mut self, i: &Insn) -> Mem {
        let flat = self.effective_addr(i);
        match i.segment_prefix() {
            Register::FS => self.add_base(Reg::FS_BASE, flat),
            Register::GS => self.add_base(Reg::GS_BASE, flat),
            _ => flat,
        }
    }

    /// The memory operand without its segment base: what LEA computes.
    pub(crate) fn effective_addr(&mut self, i: &Insn) -> Mem {
        let (base, index) = (i.memory_base(), i.memory_index());
        if base == Register::RIP || base == Register::EIP {
            return self.constant_addr(i.memory_displacement64());
        }
        let (based, indexed) = (Gpr::from_iced(base), Gpr::from_iced(index));
        if based.is_none_or(|base| matches!(base, Gpr::R32(_))) && has_narrow_address(i) {
            return self.effective_addr32(i, base, index);
        }
        let disp = i.memory_displacement64();
        let scale = i.memory_index_scale().trailing_zeros() as u8;
        let base = based.map(|r| self.read_gpr(r));
        let index = indexed.map(|r| self.read_gpr(r));
        match i32::try_from(disp as i64) {
            Ok(disp) => Mem { base, index, scale, disp },
            // MOV AL/EAX/RAX, moffs: no base, no index.
            Err(_) => self.constant_addr(disp),
        }
    }

    /// Address computed modulo 2^32: a 0x67 prefix.
    fn effective_addr32(&mut self, i: &Insn, base: Register, index: Register) -> Mem {
        let disp = i.memory_displacement32();
        if base == Register::None && index == Register::None {
            return self.constant_addr(i.memory_displacement64());
        }
        let mut sum = self.b.iconst(Type::I32, u64::from(disp));
        if let Some(r) = Gpr::from_iced(base) {
            let v = self.read_gpr(r);
            sum = self.b.binary(Op::Iadd, Type::I32, v, sum);
        }
        if let Some(r) = Gpr::from_iced(index) {
            let v = self.read_gpr(r);
            let scale = self.b.iconst(Type::I32, u64::from(i.memory_index_scale().trailing_zeros()));
            let scaled = self.b.binary(Op::Ishl, Type::I32, v, scale);
            sum = self.b.binary(Op::Iadd, Type::I32, sum, scaled);
        }
        Mem::base(self.b.unary(Op::Uextend, Type::I64, sum))
    }

    fn constant_addr(&mut self, addr: u64) -> Mem {
        match i32::try_from(addr as i64) {
            Ok(disp) => Mem { base: None, index: None, scale: 0, disp },
            Err(_) => Mem::base(self.b.iconst(Type::I64, addr)),
        }
    }

    fn add_base(&mut self, segment: Reg, m: Mem) -> Mem {
        let segment = self.b.get(Type::I64, segment);
        let base = match m.base {
            None => segment,
            Some(base) if m.index.is_none() => return Mem { base: Some(segment), index: Some(base), scale: 0, ..m },
            Some(base) => self.b.binary(Op::Iadd, Type::I64, segment, base),
        };
        Mem { base: Some(base), ..m }
    }

    /// An IR address as one value.
    pub(crate) fn addr_value(&mut self, m: Mem) -> Value {
        let mut sum = m.base;
        if let Some(index) = m.index {
            let scaled = match m.scale {
                0 => index,
                n => {
                    let n = self.b.iconst(Type::I64, u64::from(n));
                    self.b.binary(Op::Ishl, Type::I64, index, n)
                }
            };
            sum = Some(match sum {
                Some(base) => self.b.binary(Op::Iadd, Type::I64, base, scaled),
                None => scaled,
            });
        }
        match sum {
            Some(sum) if m.disp == 0 => sum,
            Some(sum) => self.add_imm(sum, i64::from(m.disp)),
            None => self.b.iconst(Type::I64, i64::from(m.disp) as u64),
        }
    }

    /// `v + imm`, 64 bits.
    pub(crate) fn add_imm(&mut self, v: Value, imm: i64) -> Value {
        let (op, k) = if imm < 0 { (Op::Isub, imm.unsigned_abs()) } else { (Op::Iadd, imm as u64) };
        let k = self.b.iconst(Type::I64, k);
        self.b.binary(op, Type::I64, v, k)
    }

    /// The pc as a constant.
    pub(crate) fn pc_const(&mut self, pc: GuestAddr) -> Value {
        self.b.iconst(Type::I64, pc.0)
    }
}

/// How a LOCK prefix turns a `modify` into one atomic operation.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Atomic {
    /// The operation is this read-modify-write with this value.
    Rmw(RmwOp, Value),
    /// There is no such read-modify-write: `atomic.rs` handles the locked form before `modify` is reached.
    None,
}

/// Integer operands of an instruction, by operand number.
impl Lifter<'_> {
    /// Type of an integer operand: register or memory width; immediates take the first operand's.
    #[inline(always)]
    pub(crate) fn op_type(&self, i: &Insn, op: u32) -> Type {
        match i.op_kind(op) {
            OpKind::Register => Gpr::from_iced(i.op_register(op)).map_or(Type::I64, Gpr::ty),
            OpKind::Memory => Type::int(i.memory_size().size() as u32 * 8),
            _ if op > 0 => self.first_type(i),
            _ => Type::I64,
        }
    }

    #[inline(never)]
    fn first_type(&self, i: &Insn) -> Type {
        self.op_type(i, 0)
    }

    /// Reads an integer operand at its own width.
    pub(crate) fn read(&mut self, i: &Insn, op: u32) -> Value {
        let ty = self.op_type(i, op);
        self.read_as(i, op, ty)
    }

    /// Reads an operand whose memory and immediate forms have type `ty`.
    #[inline(always)]
    pub(crate) fn read_as(&mut self, i: &Insn, op: u32, ty: Type) -> Value {
        match i.op_kind(op) {
            OpKind::Register => self.read_register(i.op_register(op), ty),
            _ => self.read_elsewhere(i, op, ty),
        }
    }

    #[inline(never)]
    fn read_register(&mut self, r: Register, ty: Type) -> Value {
        match Gpr::from_iced(r) {
            Some(r) => self.read_gpr(r),
            None => self.read_special(r, ty),
        }
    }

    /// The same of an operand that is in no register.
    #[inline(never)]
    fn read_elsewhere(&mut self, i: &Insn, op: u32, ty: Type) -> Value {
        match i.op_kind(op) {
            OpKind::Memory => {
                let m = self.addr(i);
                self.b.load(ty, m)
            }
            _ => self.b.iconst(ty, i.immediate(op)),
        }
    }

    /// Writes an integer operand. A store may fault: write memory before registers.
    #[inline(always)]
    pub(crate) fn write(&mut self, i: &Insn, op: u32, v: Value) {
        match i.op_kind(op) {
            OpKind::Register => self.write_register(i.op_register(op), v),
            _ => self.write_memory(i, v),
        }
    }

    #[inline(never)]
    fn write_register(&mut self, r: Register, v: Value) {
        self.write_gpr(Gpr::from_iced(r).expect("a general register"), v);
    }

    #[inline(never)]
    fn write_memory(&mut self, i: &Insn, v: Value) {
        let m = self.addr(i);
        let ty = self.b.ty(v);
        self.b.store(ty, m, v);
    }

    /// Replaces an operand by a function of its value: yields the old value and the new one.
    pub(crate) fn modify(
        &mut self,
        i: &Insn,
        op: u32,
        atomic: Atomic,
        f: impl FnOnce(&mut Self, Value) -> Value,
    ) -> (Value, Value) {
        let ty = self.op_type(i, op);
        if i.op_kind(op) == OpKind::Register {
            let old = self.read(i, op);
            let new = f(self, old);
            self.write(i, op, new);
            return (old, new);
        }
        let m = self.addr(i);
        if let (true, Atomic::Rmw(rmw, v)) = (i.has_lock_prefix(), atomic) {
            let old = self.b.rmw(rmw, ty, m, v);
            let new = f(self, old);
            return (old, new);
        }
        let old = self.b.load(ty, m);
        let new = f(self, old);
        self.b.store(ty, m, new);
        (old, new)
    }

    /// Segment registers read as the selectors that Linux gives a 64-bit process (`asm/segment.h`).
    fn read_special(&mut self, r: Register, ty: Type) -> Value {
        let selector = match r {
            Register::CS => 0x33,
            Register::SS => 0x2b,
            _ => 0,
        };
        self.b.iconst(ty, selector)
    }
}

/// Vector operands.
impl Lifter<'_> {
    /// All 128 bits of XMM register `n`.
    pub(crate) fn xmm(&mut self, n: usize) -> Value {
        if let Some(v) = self.regs.xmm.get(n) {
            return v;
        }
        let v = self.b.get(Type::V128, Reg::xmm(n));
        self.regs.xmm.set(n, v);
        v
    }

    /// Lowest lane of XMM register `n` as `i32`, `i64`, `f32` or `f64`.
    pub(crate) fn xmm_low(&mut self, n: usize, ty: Type) -> Value {
        let shape = vector_of(ty);
        let Some(v) = self.regs.xmm.get(n) else { return self.b.get(ty, Reg::xmm(n)) };
        let def = *self.b.def(v);
        match def.op {
            Op::InsertLane if def.ty == shape && def.aux == 0 => Value(def.args[1]),
            Op::ScalarToVector if def.ty == shape => Value(def.args[0]),
            _ => self.b.extract_lane(shape, v, 0),
        }
    }

    /// Writes XMM register `n` whole; bits 128 and up stay (legacy SSE).
    pub(crate) fn set_xmm(&mut self, n: usize, v: Value) {
        self.b.put_as(Reg::xmm(n), Type::V128, v);
        self.regs.xmm.set(n, v);
    }

    /// Number of the XMM register that operand `op` is.
    pub(crate) fn xmm_number(i: &Insn, op: u32) -> usize {
        i.op_register(op).number()
    }

    /// XMM register operand.
    pub(crate) fn read_xmm(&mut self, i: &Insn, op: u32) -> Value {
        self.xmm(Self::xmm_number(i, op))
    }

    /// Writes an XMM register operand whole; VEX clears what is above.
    pub(crate) fn write_xmm(&mut self, i: &Insn, op: u32, v: Value) {
        let n = Self::xmm_number(i, op);
        self.set_xmm(n, v);
        if is_vex(i) {
            self.clear_upper(n);
        }
    }

    /// XMM register or 16 bytes of memory.
    pub(crate) fn read_xmm_or_mem(&mut self, i: &Insn, op: u32, alignment: Alignment) -> Value {
        if i.op_kind(op) == OpKind::Register {
            return self.read_xmm(i, op);
        }
        let m = self.addr(i);
        if alignment == Alignment::Required {
            self.require_alignment(m);
        }
        self.b.load(Type::V128, m)
    }

    /// Lowest lane of an XMM register, or a scalar in memory; `ty` is `i32`, `i64`, `f32` or `f64`.
    pub(crate) fn read_xmm_low_or_mem(&mut self, i: &Insn, op: u32, ty: Type) -> Value {
        if i.op_kind(op) == OpKind::Register {
            return self.xmm_low(Self::xmm_number(i, op), ty);
        }
        let m = self.addr(i);
        self.b.load(ty, m)
    }

    /// Writes the destination of a scalar operation: the first source with its lowest lane replaced.
    pub(crate) fn write_xmm_low(&mut self, i: &Insn, ty: Type, v: Value) {
        let old = self.read_xmm(i, first_source(i));
        let new = self.b.insert_lane(vector_of(ty), old, v, 0);
        self.write_xmm(i, 0, new);
    }

    /// Stores an XMM-sized or scalar value to the memory operand.
    pub(crate) fn store_xmm(&mut self, i: &Insn, ty: Type, v: Value, alignment: Alignment) {
        let m = self.addr(i);
        if alignment == Alignment::Required {
            debug_assert_eq!(ty, Type::V128);
            self.require_alignment(m);
        }
        self.b.store(ty, m, v);
    }
}

/// The shape whose lanes are `ty`.
pub(crate) fn vector_of(ty: Type) -> Type {
    match ty {
        Type::I8 => Type::I8x16,
        Type::I16 => Type::I16x8,
        Type::I32 => Type::I32x4,
        Type::F32 => Type::F32x4,
        Type::F64 => Type::F64x2,
        _ => Type::I64x2,
    }
}
