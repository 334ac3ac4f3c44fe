//! Words about a guest instruction, from the process that has it mapped.

use crate::emit::{Form, assembly, sections};
use crate::smc::GuestCode;
use crate::symbols::Symbols;
use crate::thread::Thread;
use calque_backend::{CompileOptions, Compiler, HostIsa};
use calque_frontend::{LiftOptions, lift_block};
use calque_ir::{GuestAddr, pass};

/// Place and disassembly on the first two lines, IR and host code of the instruction alone on the following ones; where instructions are copied,
/// the host code of a unit.
pub(super) fn describe(thread: &mut Thread, pc: GuestAddr) -> String {
    let unit = thread.unit_listing(pc);
    let place = Symbols::new(&thread.process.mem).place(pc);
    let mut text = format!("{place}\n{}\n", crate::crash::instruction(pc));
    let options = LiftOptions { block_insns: 1, ..LiftOptions::default() };
    let code = GuestCode::new(&thread.process.mem);
    let lifted = lift_block(&code, pc, &options);
    let mut optimised = lifted.clone();
    pass::optimize(&mut optimised);
    let source = assembly(&code, pc, 1);
    let mut compiler = Compiler::new(HostIsa::native());
    let forms: &[Form] = if unit.is_some() { &[Form::Opt] } else { &[Form::Opt, Form::Host] };
    let body = sections(forms, &source, &lifted, &optimised, &mut compiler, &CompileOptions::default());
    text.push_str(&body.unwrap_or_else(|e| e));
    if let Some(unit) = unit {
        text.push_str("--- host: the unit that begins here\n");
        text.push_str(&unit);
    }
    text
}
