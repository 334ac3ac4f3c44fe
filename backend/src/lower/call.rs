//! Calls of helpers, through the table at `cpu.rt.helpers`; the ABI is that of `ir/src/helper.rs`.

use super::{Lowering, clif_type};
use crate::helpers::Own;
use crate::isa::Arch;
use crate::respell::Respell;
use crate::words;
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
        if self.on(Arch::X86_64) {
            self.call_table(Own::SaveFpControl.index(), &[]);
            return self.load_state(types::I32, CpuState::offset_of(Reg::MXCSR));
        }
        let mxcsr = self.load_state(types::I32, CpuState::offset_of(Reg::MXCSR));
        let cpu = self.cpu;
        let fpsr = self.respelled(Respell::Word(words::MRS_FPSR), |l| l.b.ins().bitrev(cpu));
        let fpsr = self.b.ins().ireduce(types::I32, fpsr);
        self.with_raised(mxcsr, fpsr)
    }

    /// MXCSR with the flags that FPSR has in addition: as `arch/aarch64.rs: mxcsr_flags_of`, in parallel.
    fn with_raised(&mut self, mxcsr: clif::Value, fpsr: clif::Value) -> clif::Value {
        let invalid = self.b.ins().band_imm_u(fpsr, 1);
        // DZC OFC UFC IXC are one below ZE OE UE PE.
        let others = self.b.ins().band_imm_u(fpsr, 0x1e);
        let others = self.b.ins().ishl_imm_u(others, 1);
        // FPCR.FZ is MXCSR's FTZ (15): where results are flushed, UFC (3) is also PE (5).
        let (flushes, underflow) = (self.b.ins().ushr_imm_u(mxcsr, 10), self.b.ins().ishl_imm_u(fpsr, 2));
        let flushed = self.b.ins().band(flushes, underflow);
        let flushed = self.b.ins().band_imm_u(flushed, 1 << 5);
        let mut raised = vec![invalid, others, flushed];
        if self.host.has("afp") {
            // IDC (7) is DE (1).
            let denormal = self.b.ins().ushr_imm_u(fpsr, 6);
            raised.push(self.b.ins().band_imm_u(denormal, 1 << 1));
        }
        raised.into_iter().fold(mxcsr, |all, flags| self.b.ins().bor(all, flags))
    }

    /// Sets MXCSR for what follows.
    pub(super) fn put_fp_control(&mut self, value: clif::Value) {
        self.store_state(value, CpuState::offset_of(Reg::MXCSR));
        self.call_table(Own::LoadFpControl.index(), &[]);
    }
}
