//! Instructions added up by function, by line and by block.

use super::names::{self, Line, Sources};
use calque_runtime::profile::report::Report;
use std::collections::{BTreeMap, HashMap};

/// What one function has executed.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct FunctionSum {
    /// Itself.
    pub(super) own: u64,
    /// With what it has called.
    pub(super) inclusive: u64,
    /// How often it was called.
    pub(super) calls: u64,
}

/// Instructions one behind the other that were executed equally often.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Block {
    pub(super) pc: u64,
    /// Address behind the last.
    pub(super) end: u64,
    pub(super) module: Option<u32>,
    pub(super) function: u32,
    pub(super) insns: u64,
    /// How often.
    pub(super) count: u64,
}

/// Where instructions of a function come from.
pub(super) type Place = (u32, Option<Line>);

pub(super) struct Sums<'a> {
    pub(super) sources: Sources<'a>,
    /// Names of the report's functions.
    pub(super) names: Vec<String>,
    /// By index in the report.
    pub(super) functions: Vec<FunctionSum>,
    /// Instructions by function and line.
    pub(super) lines: BTreeMap<Place, u64>,
    pub(super) blocks: Vec<Block>,
    /// Lines by module and pc, for all that was executed.
    by_pc: HashMap<(Option<u32>, u64), Option<Line>>,
}

impl<'a> Sums<'a> {
    pub(super) fn of(report: &'a Report) -> Self {
        let sources = Sources::of(report);
        let mut functions = vec![FunctionSum::default(); report.functions.len()];
        let (mut lines, mut by_pc) = (BTreeMap::new(), HashMap::new());
        for i in &report.instructions {
            functions[i.function as usize].own += i.count;
            let line = sources.line(i.module, i.pc);
            *lines.entry((i.function, line.clone())).or_default() += i.count;
            by_pc.insert((i.module, i.pc), line);
        }
        for call in &report.calls {
            functions[call.callee as usize].calls += call.calls;
        }
        let mut inclusive = contexts_inclusive(report);
        for (context, sum) in report.contexts.iter().zip(inclusive.drain(..)) {
            functions[context.function as usize].inclusive += sum;
        }
        for function in &mut functions {
            // Code that is run through without a call or jump has no context of its own.
            function.inclusive = function.inclusive.max(function.own);
        }
        Self { sources, names: names::functions(report), functions, lines, blocks: blocks(report), by_pc }
    }

    /// The line of an executed instruction.
    pub(super) fn line(&self, module: Option<u32>, pc: u64) -> Option<&Line> {
        self.by_pc.get(&(module, pc))?.as_ref()
    }
}

/// Instructions of each context with those below it. No function is twice on a path, so they can be added up by function.
fn contexts_inclusive(report: &Report) -> Vec<u64> {
    let mut sums: Vec<u64> = report.contexts.iter().map(|context| context.insns).collect();
    for (i, context) in report.contexts.iter().enumerate().skip(1).rev() {
        sums[context.parent as usize] += sums[i];
    }
    sums
}

fn blocks(report: &Report) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for i in &report.instructions {
        let end = i.pc + u64::from(i.len);
        match blocks.last_mut() {
            Some(b) if (b.end, b.module, b.function, b.count) == (i.pc, i.module, i.function, i.count) => {
                (b.end, b.insns) = (end, b.insns + 1);
            }
            _ => blocks.push(Block { pc: i.pc, end, module: i.module, function: i.function, insns: 1, count: i.count }),
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;
    use calque_runtime::profile::report::{Context, Function, Instruction};

    #[test]
    fn contexts_add_up_to_functions() {
        let function = |start| Function { name: Some(format!("f{start}")), module: None, start };
        let context = |function, parent, insns| Context { function, parent, insns };
        let instruction = |pc, function, count| Instruction { pc, len: 2, module: None, function, count };
        let report = Report {
            functions: [0, 1, 2].map(function).into(),
            // f1 calls f2, and f2 is also called by nobody.
            contexts: vec![context(0, 0, 0), context(1, 0, 10), context(2, 1, 5), context(2, 0, 7)],
            instructions: vec![instruction(8, 1, 5), instruction(10, 1, 5), instruction(12, 2, 12)],
            ..Report::default()
        };
        let sums = Sums::of(&report);
        assert_eq!(sums.functions[1], FunctionSum { own: 10, inclusive: 15, calls: 0 });
        assert_eq!(sums.functions[2], FunctionSum { own: 12, inclusive: 12, calls: 0 });
        assert_eq!(sums.functions[0].inclusive, 22);
        let blocks: Vec<_> = sums.blocks.iter().map(|b| (b.pc, b.end, b.insns, b.count)).collect();
        assert_eq!(blocks, [(8, 12, 2, 5), (12, 14, 1, 12)]);
    }
}
