//! What depends on the control words of floating point, where generated code may not be able to do as they say: exceptions that are not
//! masked, and on some hosts flushing (`backend/src/abi.rs: carries_floats`).
//!
//! Most programs never have such control words. Instructions that set some leave for the dispatcher, which has the process's code made
//! anew, with *guards* ([`LiftOptions::guarded_floats`](super::LiftOptions)): in front of the first instruction of a block that computes with floats, the
//! block asks ([`calque_ir::Op::Uncarried`]), and if the answer is bad leaves, for the interpreter to run the rest of it. One answer is good
//! up to the block's end, as one that changes the control words so that it would be another ends the block.
//!
//! So integer code runs generated whatever the control words are, and floats pay a load and a branch a block in such a process.
//! Whether an instruction computes is its row's ([`table::computes`]); integers in vectors, moves and bits do not. All of
//! the x87 unit and MMX does: they raise what is pending.

use super::ahead::is_of_x87;
use super::{Insn, Lifter, table};
use calque_ir::{Cc, FaultKind, Op, Type, Value};

/// Whether what an instruction does depends on the control words, or may raise an exception that they do not mask.
pub(super) fn computes(i: &Insn) -> bool {
    table::computes(i.mnemonic()) || is_of_x87(i)
}

impl Lifter<'_> {
    /// In front of the current instruction: leaves it to the interpreter if it computes with floats and generated code cannot.
    pub(super) fn guard_floats(&mut self, i: &Insn) {
        if !self.guarded && computes(i) {
            let uncarried = self.b.uncarried();
            let leaves = self.compare_zero(Cc::NotEqual, Type::I32, uncarried);
            self.leave_at_if(self.pc, FaultKind::FloatControl, leaves);
            self.guarded = true;
        }
    }

    /// Behind an instruction that has changed the control words: leaves for the dispatcher if they are unusual, which is that this `i32`
    /// is not zero, or were.
    pub(super) fn leave_if_unusual(&mut self, mut unusual: Value) {
        if self.opts.guarded_floats {
            let uncarried = self.b.uncarried();
            unusual = self.b.binary(Op::Bor, Type::I32, unusual, uncarried);
        }
        let unusual = self.compare_zero(Cc::NotEqual, Type::I32, unusual);
        self.leave_if(FaultKind::FloatControl, unusual);
    }
}
