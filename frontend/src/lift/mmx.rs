//! Vector operands that are XMM or MMX registers, and what only MMX has.
//!
//! Most SSE2 integer instructions are MMX instructions with wider registers and the same mnemonics, so families
//! read and write through [`Lifter::read_vec`] and [`Lifter::write_vec`]: an MMX operand is a vector whose upper
//! half is zero on reading and dropped on writing. Where 64 bits are not the low half of the 128-bit answer (unpack
//! high, pack, shuffles with wrapping indices), the family asks [`is_mmx`].
//!
//! MMX registers alias the x87 significands and live behind helpers: nobody writes new MMX code.

use super::operand::Alignment;
use super::{Insn, Lifter};
use calque_ir::{FaultKind, Helper, Op, Type, Value};
use iced_x86::{OpKind, Register};

/// Whether one of the operands is an MMX register.
pub(super) fn is_mmx(i: &Insn) -> bool {
    (0..i.op_count()).any(|op| i.op_kind(op) == OpKind::Register && i.op_register(op).is_mm())
}

impl Lifter<'_> {
    /// #MF if an unmasked x87 exception is pending.
    pub(super) fn check_x87(&mut self) {
        let pending = self.b.call(Helper::X87Pending, &[]);
        self.b.fault_if(FaultKind::X87Float, pending);
    }

    /// The same before the memory operand of an MMX instruction is touched, which matters where exceptions can be unmasked.
    pub(super) fn check_mmx_first(&mut self, i: &Insn) {
        if is_mmx(i) && (0..i.op_count()).any(|op| i.op_kind(op) == OpKind::Memory) {
            self.check_x87();
        }
    }

    fn mm_number(&mut self, r: Register) -> Value {
        self.b.iconst(Type::I32, r as u64 - Register::MM0 as u64)
    }

    /// The 64 bits of an MMX register. Families that write no MMX register end with [`Lifter::enter_mmx`].
    pub(super) fn read_mm(&mut self, r: Register) -> Value {
        self.check_x87();
        let n = self.mm_number(r);
        self.b.call(Helper::MmxGet, &[n])
    }

    /// Writes an MMX register.
    pub(super) fn write_mm(&mut self, r: Register, v: Value) {
        self.check_x87();
        let n = self.mm_number(r);
        self.b.call(Helper::MmxSet, &[n, v]);
    }

    /// Behind everything that may fault: the unit is in MMX mode, if the instruction is an MMX one.
    pub(super) fn enter_mmx(&mut self, i: &Insn) {
        if is_mmx(i) {
            self.b.call(Helper::MmxEnter, &[]);
        }
    }

    /// A vector operand: register, or memory of the operand's size with zeros above.
    pub(super) fn read_vec(&mut self, i: &Insn, op: u32, alignment: Alignment) -> Value {
        if i.op_kind(op) == OpKind::Register {
            let r = i.op_register(op);
            if !r.is_mm() {
                return self.read_xmm(i, op);
            }
            let v = self.read_mm(r);
            return self.b.unary(Op::ScalarToVector, Type::I64x2, v);
        }
        match i.memory_size().size() {
            16 | 32 => self.read_xmm_or_mem(i, op, alignment),
            8 => self.load_scalar_to_vec(i, Type::I64),
            4 => self.load_scalar_to_vec(i, Type::I32),
            _ => {
                let m = self.addr(i);
                let v = self.b.load(Type::I16, m);
                let v = self.b.unary(Op::Uextend, Type::I32, v);
                self.b.unary(Op::ScalarToVector, Type::I32x4, v)
            }
        }
    }

    /// A scalar memory operand in lane 0, zeros above.
    pub(super) fn load_scalar_to_vec(&mut self, i: &Insn, ty: Type) -> Value {
        let m = self.addr(i);
        let v = self.b.load(ty, m);
        self.b.unary(Op::ScalarToVector, super::operand::vector_of(ty), v)
    }

    /// Writes a vector register operand; an MMX register takes the low half.
    pub(super) fn write_vec(&mut self, i: &Insn, op: u32, v: Value) {
        let r = i.op_register(op);
        if r.is_mm() {
            let low = self.b.extract_lane(Type::I64x2, v, 0);
            self.write_mm(r, low);
        } else {
            self.write_xmm(i, op, v);
            self.enter_mmx(i);
        }
    }
}

/// EMMS.
pub(super) fn emms(l: &mut Lifter<'_>, _: &Insn) {
    l.check_x87();
    l.b.call(Helper::Emms, &[]);
}

/// MOVQ2DQ, MOVDQ2Q: between the low half of an XMM register and an MMX register.
pub(super) fn movq2dq(l: &mut Lifter<'_>, i: &Insn) {
    let v = l.read_vec(i, 1, Alignment::Any);
    let low = l.b.extract_lane(Type::I64x2, v, 0);
    let v = l.b.unary(Op::ScalarToVector, Type::I64x2, low);
    l.write_vec(i, 0, v);
}
