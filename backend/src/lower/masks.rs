//! The highest bits of bytes on AArch64 (PMOVMSKB), which has no instruction for them.
//!
//! Each byte becomes 0 or its place's bit, 1 << i % 8, and three pairwise sums bring the eight bits of each half together; those of two
//! vectors, as VPMOVMSKB wants them, take no more sums than those of one. Bytes that come from comparisons are 0 or all ones already.

use super::Lowering;
use crate::isa::Arch;
use calque_ir::{CpuState, Inst, Op, Type, Value as IrValue};
use cranelift_codegen::ir::{self as clif, InstBuilder, types};
use std::mem::offset_of;

/// How deep logic of comparisons is looked into.
const DEEPEST: u32 = 4;

impl Lowering<'_> {
    /// `Op::HighBits`.
    pub(super) fn high_bits(&mut self, inst: &Inst) -> clif::Value {
        let x = self.vector(inst, 0, inst.ty);
        let ints = self.b.func.dfg.value_type(x).as_int();
        if self.on(Arch::X86_64) || ints != types::I8X16 {
            let x = self.view(x, ints);
            return self.b.ins().vhigh_bits(types::I32, x);
        }
        let bits = self.place_bits(inst.args[0]);
        let sums = self.sums_of_halves(bits, bits);
        let sums = self.view(sums, types::I16X8);
        let bits = self.b.ins().extractlane(sums, 0);
        self.b.ins().uextend(types::I32, bits)
    }

    /// The highest bits of the bytes of two vectors at once, if `inst` puts those of one above those of another.
    pub(super) fn high_bits_of_two(&mut self, inst: &Inst) -> Option<clif::Value> {
        let shift = self.def(inst.args[1]);
        if self.on(Arch::X86_64) || shift.op != Op::Ishl || self.as_const(shift.args[1]) != Some(16) {
            return None;
        }
        let [low, high] = [*self.def(inst.args[0]), *self.def(shift.args[0])];
        if [low, high].iter().any(|def| def.op != Op::HighBits || def.ty != Type::I8x16) {
            return None;
        }
        let (low, high) = (self.place_bits(low.args[0]), self.place_bits(high.args[0]));
        let sums = self.sums_of_halves(low, high);
        let sums = self.view(sums, types::I32X4);
        Some(self.b.ins().extractlane(sums, 0))
    }

    /// The sums of the bytes of each half of two vectors, in the lowest four bytes.
    fn sums_of_halves(&mut self, low: clif::Value, high: clif::Value) -> clif::Value {
        let pairs = self.b.ins().iadd_pairwise(low, high);
        let fours = self.b.ins().iadd_pairwise(pairs, pairs);
        self.b.ins().iadd_pairwise(fours, fours)
    }

    /// Of each byte whose highest bit is set, the bit of its place, otherwise 0.
    fn place_bits(&mut self, v: u32) -> clif::Value {
        let whole = self.value(IrValue(v));
        let mut mask = self.view(whole, types::I8X16);
        if !self.is_mask(v, DEEPEST) {
            mask = self.b.ins().sshr_imm_u(mask, 7);
        }
        let places = match self.place_bits {
            Some(places) => places,
            None => self.load_state(types::I8X16, offset_of!(CpuState, place_bits)),
        };
        self.place_bits = Some(places);
        self.b.ins().band(mask, places)
    }

    /// Whether each byte of a vector is known to be 0 or all ones.
    fn is_mask(&self, v: u32, depth: u32) -> bool {
        let def = self.def(v);
        match def.op {
            Op::Icmp => def.ty.is_vector(),
            Op::Band | Op::Bor | Op::Bxor if depth > 0 => def.args[..2].iter().all(|&v| self.is_mask(v, depth - 1)),
            _ => false,
        }
    }
}
