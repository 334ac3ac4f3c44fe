//! Constants of loops on AArch64, where a wide one takes several instructions and Cranelift makes it anew at each use, as it does with
//! those that have to be in a register to be stored or multiplied by.
//!
//! Such a constant is put together at the region's entry from two parts, which Cranelift without optimization leaves alone: it
//! stays in a register. Few of them are worth registers; x86-64 has immediates instead.

use super::{LOOK_BACK, Lowering, clif_type};
use crate::isa::Arch;
use calque_ir::{GuestAddr, Inst, Op, Type, Value as IrValue};
use cranelift_codegen::ir::{self as clif, InstBuilder, types};

/// Registers that a region spends on constants.
const MOST: usize = 8;

/// Whether AArch64 needs more than one `movz` or `movn` for the constant: more than one 16-bit part that is not all zeros, and
/// more than one that is not all ones.
fn is_wide(ty: Type, bits: u64) -> bool {
    let parts = || (0..ty.bits() / 16).map(|i| bits >> (16 * i) & 0xffff);
    parts().filter(|&part| part != 0).count() > 1 && parts().filter(|&part| part != 0xffff).count() > 1
}

impl Lowering<'_> {
    /// Makes the wide constants of loops ready. At the region's entry.
    pub(super) fn hoist_constants(&mut self) {
        if self.on(Arch::X86_64) {
            return;
        }
        let region = self.region;
        for id in region.block_ids().filter(|&id| self.loops.contain(id)).collect::<Vec<_>>() {
            let block = &region.blocks[id.0 as usize];
            for at in (block.start..block.end).filter(|at| region.insts[*at as usize].op == Op::Iconst) {
                let inst = &region.insts[at as usize];
                if is_wide(inst.ty, inst.imm()) || self.wanted_in_register(at) {
                    self.hoist(inst.ty, inst.imm());
                }
            }
            if let Some(slots) = self.slots(id) {
                self.hoist(Type::I64, slots.base);
            }
        }
    }

    fn hoist(&mut self, ty: Type, bits: u64) {
        if self.hoisted.len() < MOST && self.hoisted(ty, bits).is_none() {
            let clif_ty = clif_type(ty);
            let low = self.iconst(clif_ty, (bits & 0xffff) as i64);
            let high = self.iconst(clif_ty, (bits & !0xffff) as i64);
            let value = self.b.ins().bor(low, high);
            self.hoisted.push((ty, bits, value));
        }
    }

    /// Whether one of the next instructions of the block stores the constant or multiplies by it.
    fn wanted_in_register(&self, at: u32) -> bool {
        let mut next = self.region.insts[at as usize + 1..].iter().take(LOOK_BACK);
        next.any(|inst| match inst.op {
            Op::Store => inst.args[3] == at,
            Op::Imul => inst.args[..2].contains(&at),
            _ => false,
        })
    }

    fn hoisted(&self, ty: Type, bits: u64) -> Option<clif::Value> {
        self.hoisted.iter().find(|known| (known.0, known.1) == (ty, bits)).map(|(_, _, value)| *value)
    }

    /// `Op::Iconst`.
    pub(super) fn constant_of(&mut self, inst: &Inst) -> clif::Value {
        // As an immediate operand, a narrow one costs nothing.
        match self
            .hoisted(inst.ty, inst.imm())
            .filter(|_| self.loops.contain(self.block) && is_wide(inst.ty, inst.imm()))
        {
            Some(value) => value,
            None => self.iconst(clif_type(inst.ty), inst.imm() as i64),
        }
    }

    /// The value of an operand that has to be in a register.
    pub(super) fn in_register(&mut self, v: IrValue) -> clif::Value {
        let def = self.region.insts[v.0 as usize];
        let ready =
            (def.op == Op::Iconst && self.loops.contain(self.block)).then(|| self.hoisted(def.ty, def.imm())).flatten();
        ready.unwrap_or_else(|| self.value(v))
    }

    /// A guest pc as a value.
    pub(super) fn pc_value(&mut self, pc: GuestAddr) -> clif::Value {
        match self.hoisted(Type::I64, pc.0).filter(|_| self.loops.contain(self.block)) {
            Some(value) => value,
            None => self.iconst(types::I64, pc.0 as i64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_part_is_not_wide() {
        for bits in [0, 1, 0xffff, 0xabcd_0000, 0xffff_fffe, 0x1234_ffff] {
            assert!(!is_wide(Type::I32, bits), "{bits:#x}");
        }
        assert!(is_wide(Type::I32, 0xedb8_8320));
        assert!(!is_wide(Type::I64, 0xffff_ffff_1234_ffff));
        assert!(is_wide(Type::I64, 0x7f00_1234_5678));
        assert!(!is_wide(Type::I8, 0xab));
    }
}
