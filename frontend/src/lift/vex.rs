//! What the VEX encoding changes for the SSE families (SDM vol. 2A 2.3), and how they serve it.
//!
//! A VEX instruction is its SSE ancestor with three differences: the first source is an operand of its own, bits 128
//! and up of the destination become zero, and with VEX.256 the operation is done on both 128-bit halves alike. So the
//! families are written for one half, read their operands through [`first_source`] and [`second_source`] and as
//! [`Halves`], and write through `write_halves`; a row of the table serves both encodings. Memory operands need no
//! alignment, except for the instructions whose name says so.
//!
//! Instructions that move data between the halves, or exist only with VEX, are in `avx.rs`.

use super::operand::Alignment;
use super::{Insn, Lifter};
use calque_ir::{Mem, Op, Reg, Type, Value};
use iced_x86::{EncodingKind, OpKind};

/// Whether the instruction is VEX-encoded.
pub(super) fn is_vex(i: &Insn) -> bool {
    i.code().encoding() == EncodingKind::VEX
}

/// Whether an operand is a YMM register: the operation is on 256 bits.
pub(super) fn is_wide(i: &Insn) -> bool {
    (0..i.op_count()).any(|op| i.op_kind(op) == OpKind::Register && i.op_register(op).is_ymm())
}

/// Whether the first source is not the destination ("NDS" in the SDM's opcode column).
fn has_own_first_source(i: &Insn) -> bool {
    i.op_count() >= 3 && i.op_kind(2) != OpKind::Immediate8 && is_vex(i)
}

/// Operand number of the first source, which in SSE is the destination.
pub(super) fn first_source(i: &Insn) -> u32 {
    u32::from(has_own_first_source(i))
}

/// Operand number of the second source.
pub(super) fn second_source(i: &Insn) -> u32 {
    1 + first_source(i)
}

/// Alignment that a memory operand needs where SSE asks for one.
pub(super) fn sse_alignment(i: &Insn) -> Alignment {
    if is_vex(i) { Alignment::Any } else { Alignment::Required }
}

/// The 128-bit halves of a vector operand; only 256-bit ones have a high one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Halves {
    pub(super) low: Value,
    pub(super) high: Option<Value>,
}

impl Halves {
    /// Both halves.
    pub(super) fn pair(low: Value, high: Value) -> Halves {
        Halves { low, high: Some(high) }
    }

    /// `f` of each half, with the half's number.
    pub(super) fn map(self, l: &mut Lifter<'_>, f: impl Fn(&mut Lifter<'_>, u8, Value) -> Value) -> Halves {
        Halves { low: f(l, 0, self.low), high: self.high.map(|v| f(l, 1, v)) }
    }

    /// `f` of each half of two operands.
    pub(super) fn zip(
        self,
        l: &mut Lifter<'_>,
        other: Halves,
        f: impl Fn(&mut Lifter<'_>, u8, Value, Value) -> Value,
    ) -> Halves {
        let low = f(l, 0, self.low, other.low);
        let high = self.high.zip(other.high).map(|(a, b)| f(l, 1, a, b));
        Halves { low, high }
    }

    /// The high half of an operand known to be 256 bits wide.
    pub(super) fn upper(self) -> Value {
        self.high.expect("a 256-bit operand")
    }
}

impl Lifter<'_> {
    /// Bits 128..256 of vector register `n`.
    pub(super) fn ymmh(&mut self, n: usize) -> Value {
        self.b.get(Type::V128, Reg::ymmh(n))
    }

    /// A vector or MMX operand in halves.
    pub(super) fn read_halves(&mut self, i: &Insn, op: u32, alignment: Alignment) -> Halves {
        if i.op_kind(op) == OpKind::Register {
            let r = i.op_register(op);
            let low = self.read_vec(i, op, alignment);
            let high = r.is_ymm().then(|| self.ymmh(r.number()));
            return Halves { low, high };
        }
        if i.memory_size().size() < 32 {
            return Halves { low: self.read_vec(i, op, alignment), high: None };
        }
        let (low, high) = self.halves_in_memory(i, alignment);
        Halves::pair(self.b.load(Type::V128, low), self.b.load(Type::V128, high))
    }

    /// Writes a vector or MMX register: what SSE leaves above bit 127, VEX clears.
    pub(super) fn write_halves(&mut self, i: &Insn, op: u32, v: Halves) {
        let r = i.op_register(op);
        match v.high {
            Some(high) => {
                self.set_xmm(r.number(), v.low);
                self.set_ymmh(r.number(), high);
            }
            None => self.write_vec(i, op, v.low),
        }
    }

    /// Stores to the memory operand, of which [`Lifter::probe_parts`] has made sure.
    pub(super) fn store_halves(&mut self, i: &Insn, v: Halves, alignment: Alignment) {
        let Some(upper) = v.high else { return self.store_xmm(i, Type::V128, v.low, alignment) };
        let (low, high) = self.halves_in_memory(i, alignment);
        self.b.store(Type::V128, low, v.low);
        self.b.store(Type::V128, high, upper);
    }

    fn halves_in_memory(&mut self, i: &Insn, alignment: Alignment) -> (Mem, Mem) {
        let low = self.addr(i);
        if alignment == Alignment::Required {
            self.require_multiple(low, 32);
        }
        (low, self.displaced(low, 16))
    }

    /// A memory operand `bytes` further on.
    pub(super) fn displaced(&mut self, m: Mem, bytes: i32) -> Mem {
        match m.disp.checked_add(bytes) {
            Some(disp) => Mem { disp, ..m },
            None => {
                let at = self.addr_value(m);
                Mem { disp: bytes, ..Mem::base(at) }
            }
        }
    }

    /// Writes bits 128..256 of vector register `n`.
    pub(super) fn set_ymmh(&mut self, n: usize, v: Value) {
        self.b.put(Reg::ymmh(n), v);
        self.regs.clear_above &= !(1 << n);
    }

    /// Clears bits 128..256 of register `n`: every scalar and 128-bit instruction of AVX does, most of them again.
    pub(super) fn clear_upper(&mut self, n: usize) {
        if self.regs.clear_above >> n & 1 == 0 {
            let zero = self.vector_zero();
            self.set_ymmh(n, zero);
            self.regs.clear_above |= 1 << n;
        }
    }

    /// 128 zero bits.
    pub(super) fn vector_zero(&mut self) -> Value {
        *self.regs.vector_zero.get_or_insert_with(|| self.b.vconst([0, 0]))
    }
}

/// Destination = f(first source, second source), half by half. The memory operand is read first: it may fault.
pub(super) fn vec_halves(l: &mut Lifter<'_>, i: &Insn, f: impl Fn(&mut Lifter<'_>, u8, Value, Value) -> Value) {
    let b = l.read_halves(i, second_source(i), sse_alignment(i));
    let a = l.read_halves(i, first_source(i), Alignment::Any);
    let r = a.zip(l, b, f);
    l.write_halves(i, 0, r);
}

/// Destination = f(first source, second source), both halves alike.
pub(super) fn vec_with(l: &mut Lifter<'_>, i: &Insn, f: impl Fn(&mut Lifter<'_>, Value, Value) -> Value) {
    vec_halves(l, i, |l, _, a, b| f(l, a, b));
}

/// Destination = f(source), both halves alike.
pub(super) fn vec_unary_with(l: &mut Lifter<'_>, i: &Insn, f: impl Fn(&mut Lifter<'_>, Value) -> Value) {
    let a = l.read_halves(i, second_source(i), sse_alignment(i));
    let r = a.map(l, |l, _, a| f(l, a));
    l.write_halves(i, 0, r);
}

/// The low 64 bits of both: what narrowing conversions leave.
pub(super) fn join_low(l: &mut Lifter<'_>, low: Value, high: Value) -> Value {
    let a = l.b.extract_lane(Type::I64x2, low, 0);
    let b = l.b.extract_lane(Type::I64x2, high, 0);
    l.b.binary(Op::Concat, Type::I64x2, a, b)
}
