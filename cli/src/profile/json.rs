//! Everything as JSON. Addresses are strings in hexadecimal; what refers to a function or module is its index.

use super::sums::Sums;
use calque_runtime::profile::Ends;
use calque_runtime::profile::report::Report;
use serde_json::{Value, json};

/// Raised when a field changes its meaning.
const VERSION: u32 = 1;

pub(super) fn text(report: &Report, sums: &Sums<'_>) -> String {
    let ended = match report.ended {
        Some(Ends::Exits(code)) => json!({ "exit": code }),
        Some(Ends::Dies(signo)) => json!({ "signal": signo }),
        Some(Ends::Executes) => json!("executes"),
        None => Value::Null,
    };
    let value = json!({
        "version": VERSION,
        "command": report.command,
        "pid": report.pid,
        "ended": ended,
        "instructions": report.total,
        "modules": modules(report),
        "functions": functions(report, sums),
        "lines": lines(sums),
        "blocks": blocks(sums),
        "calls": calls(report, sums),
        "contexts": contexts(report),
    });
    format!("{value:#}\n")
}

fn address(pc: u64) -> String {
    format!("{pc:#x}")
}

fn modules(report: &Report) -> Vec<Value> {
    let module = |m: &calque_runtime::profile::report::Module| json!({ "path": m.path, "bias": address(m.bias) });
    report.modules.iter().map(module).collect()
}

fn functions(report: &Report, sums: &Sums<'_>) -> Vec<Value> {
    let all = report.functions.iter().zip(&sums.names).zip(&sums.functions);
    all.map(|((function, name), sum)| {
        let line = sums.sources.line(function.module, function.start);
        json!({
            "name": name,
            "module": function.module,
            "start": address(function.start),
            "file": line.as_ref().map(|line| &line.file),
            "line": line.as_ref().map(|line| line.line),
            "self": sum.own,
            "inclusive": sum.inclusive,
            "calls": sum.calls,
        })
    })
    .collect()
}

fn lines(sums: &Sums<'_>) -> Vec<Value> {
    let known = sums.lines.iter().filter_map(|((function, line), n)| Some((function, line.as_ref()?, n)));
    known
        .map(|(function, line, n)| json!({ "function": function, "file": line.file, "line": line.line, "self": n }))
        .collect()
}

fn blocks(sums: &Sums<'_>) -> Vec<Value> {
    let block = |b: &super::sums::Block| {
        json!({
            "start": address(b.pc),
            "end": address(b.end),
            "function": b.function,
            "inlined": sums.sources.inlined(b.module, b.pc),
            "instructions": b.insns,
            "executions": b.count,
        })
    };
    sums.blocks.iter().map(block).collect()
}

fn calls(report: &Report, sums: &Sums<'_>) -> Vec<Value> {
    let call = |call: &calque_runtime::profile::report::Call| {
        let line = sums.line(report.functions[call.caller as usize].module, call.site);
        json!({
            "caller": call.caller,
            "callee": call.callee,
            "site": address(call.site),
            "file": line.map(|line| &line.file),
            "line": line.map(|line| line.line),
            "calls": call.calls,
            "inclusive": call.insns,
        })
    };
    report.calls.iter().map(call).collect()
}

fn contexts(report: &Report) -> Vec<Value> {
    let context = |c: &calque_runtime::profile::report::Context| json!({ "function": c.function, "parent": c.parent, "self": c.insns });
    report.contexts.iter().map(context).collect()
}
