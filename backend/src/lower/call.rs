//! Calls of helpers, through the table at `cpu.rt.helpers`; the ABI is that of `ir/src/helper.rs`.

use super::{Lowering, clif_type};
use crate::helpers::Own;
use calque_ir::helper::HelperEffect;
use calque_ir::{CpuState, Helper, Inst, Reg, Type, Value as IrValue};
use cranelift_codegen::ir::{self as clif, AbiParam, InstBuilder, Signature, types};
use cranelift_codegen::isa::CallConv;
use std::mem::offset_of;

impl Lowering<'_> {
    /// `Op::Call`.
    pub(super) fn call(&mut self, inst: &Inst) -> Option<clif::Value> {
        let helper = Helper::from_code(inst.aux);
        if let Some(v) = self.instead_of_call(helper, inst) {
            return Some(v);
        }
        let mut words = Vec::new();
        for (i, &ty) in helper.args().iter().enumerate() {
            let value = self.value(IrValue(inst.args[i]));
            words.push(self.argument(i, ty, value));
        }
        let result = self.call_helper(helper, &words);
        self.result(helper.ret(), result)
    }

    /// Calls a helper. One that computes under MXCSR finds it there with all flags, and what it raises becomes the host's.
    fn call_helper(&mut self, helper: Helper, words: &[clif::Value]) -> clif::Value {
        if helper.effect() != HelperEffect::Mxcsr {
            return self.call_table(helper as usize, words);
        }
        self.call_table(Own::SaveFpControl.index(), &[]);
        let result = self.call_table(helper as usize, words);
        self.call_table(Own::LoadFpControl.index(), &[]);
        result
    }

    /// Calls a helper of scalars from within the lowering of another operation.
    pub(super) fn call_scalars(&mut self, helper: Helper, args: &[clif::Value]) -> clif::Value {
        let words: Vec<_> = helper.args().iter().zip(args).map(|(&ty, &v)| self.argument(0, ty, v)).collect();
        let word = self.call_helper(helper, &words);
        self.result(helper.ret(), word).expect("a helper with a result")
    }

    /// One argument as a word; vectors go through `cpu.scratch`.
    fn argument(&mut self, i: usize, ty: Type, value: clif::Value) -> clif::Value {
        match ty {
            Type::F32 => {
                let bits = self.view(value, types::I32);
                self.b.ins().uextend(types::I64, bits)
            }
            Type::F64 => self.view(value, types::I64),
            Type::I64 => value,
            _ if ty.is_vector() => {
                self.store_state(value, offset_of!(CpuState, scratch) + 16 * i);
                self.iconst(types::I64, 0)
            }
            _ => self.b.ins().uextend(types::I64, value),
        }
    }

    fn result(&mut self, ty: Type, word: clif::Value) -> Option<clif::Value> {
        Some(match ty {
            Type::None => return None,
            Type::I64 => word,
            Type::F64 => self.view(word, types::F64),
            Type::F32 => {
                let bits = self.b.ins().ireduce(types::I32, word);
                self.view(bits, types::F32)
            }
            _ if ty.is_vector() => self.load_state(types::I8X16, offset_of!(CpuState, scratch)),
            _ => self.b.ins().ireduce(clif_type(ty), word),
        })
    }

    /// Calls the entry of this index with up to three words.
    pub(super) fn call_table(&mut self, index: usize, words: &[clif::Value]) -> clif::Value {
        self.out.calls = true;
        let signature = match self.helper {
            Some(signature) => signature,
            None => {
                let mut signature = Signature::new(CallConv::SystemV);
                signature.params = vec![AbiParam::new(types::I64); 4];
                signature.returns = vec![AbiParam::new(types::I64)];
                *self.helper.insert(self.b.import_signature(signature))
            }
        };
        let table = self.load_state(types::I64, offset_of!(CpuState, rt.helpers));
        let entry = self.b.ins().load(types::I64, super::regs::STATE, table, 8 * index as i32);
        let mut args = vec![self.cpu];
        args.extend_from_slice(words);
        while args.len() < 4 {
            let zero = self.iconst(types::I64, 0);
            args.push(zero);
        }
        let call = self.b.ins().call_indirect(signature, entry, &args);
        self.b.inst_results(call)[0]
    }

    /// MXCSR, with the flags that were raised since the region was entered.
    pub(super) fn get_fp_control(&mut self) -> clif::Value {
        self.call_table(Own::SaveFpControl.index(), &[]);
        self.load_state(types::I32, CpuState::offset_of(Reg::MXCSR))
    }

    /// Sets MXCSR for what follows.
    pub(super) fn put_fp_control(&mut self, value: clif::Value) {
        self.store_state(value, CpuState::offset_of(Reg::MXCSR));
        self.call_table(Own::LoadFpControl.index(), &[]);
    }
}
