//! Floating-point operations that nobody needs the result of. CLIF's are pure, so Cranelift leaves out what leads to nothing
//! that the guest sees; but the exceptions that they raise, it does see. Their results are stored to scratch memory.

use calque_ir::CpuState;
use cranelift_codegen::cursor::{Cursor, FuncCursor};
use cranelift_codegen::ir::{Function, Inst, InstBuilder, MemFlagsData, Opcode, Value, ValueDef};
use std::mem::offset_of;

/// Uses those of `values` that nothing with an effect depends on.
pub(super) fn keep(func: &mut Function, cpu: Value, values: &[Value]) {
    if values.is_empty() {
        return;
    }
    let needed = needed(func);
    for &value in values {
        let ValueDef::Result(inst, _) = func.dfg.value_def(func.dfg.resolve_aliases(value)) else { continue };
        if !needed[inst.as_u32() as usize] {
            let loc = func.srcloc(inst);
            let mut cursor = FuncCursor::new(func).after_inst(inst);
            cursor.set_srcloc(loc);
            cursor.ins().store(MemFlagsData::trusted(), value, cpu, offset_of!(CpuState, scratch) as i32);
        }
    }
}

/// By instruction, whether something with an effect depends on it.
fn needed(func: &Function) -> Vec<bool> {
    let mut needed = vec![false; func.dfg.num_insts()];
    let mut work: Vec<Inst> = Vec::new();
    for block in func.layout.blocks() {
        work.extend(func.layout.block_insts(block).filter(|inst| has_effect(func.dfg.insts[*inst].opcode())));
    }
    while let Some(inst) = work.pop() {
        if std::mem::replace(&mut needed[inst.as_u32() as usize], true) {
            continue;
        }
        for value in func.dfg.inst_values(inst) {
            if let ValueDef::Result(from, _) = func.dfg.value_def(func.dfg.resolve_aliases(value)) {
                work.push(from);
            }
        }
    }
    needed
}

fn has_effect(op: Opcode) -> bool {
    op.is_terminator() || op.is_call() || op.can_store() || op.can_load() || op.can_trap() || op.other_side_effects()
}
