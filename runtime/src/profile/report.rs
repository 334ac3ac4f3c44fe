//! A finished profile: numbers with the functions, files and addresses they belong to. Everything is sorted, so that equal runs make
//! equal reports.

use super::Ends;
use super::blocks::{Block, Blocks};
use super::counters::Counters;
use super::functions::{FunctionId, FunctionTable, Place, ROOT};
use super::recorder::{Executed, Recorder};
use hashbrown::HashMap;
use std::path::PathBuf;

/// What a process has executed.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub pid: u32,
    /// Arguments of the program.
    pub command: Vec<String>,
    pub ended: Option<Ends>,
    /// All instructions.
    pub total: u64,
    pub modules: Vec<Module>,
    pub functions: Vec<Function>,
    /// Executed instructions by pc.
    pub instructions: Vec<Instruction>,
    /// Contexts; a parent stands before its children. The first stands for no function.
    pub contexts: Vec<Context>,
    pub calls: Vec<Call>,
}

/// A file that the program has mapped.
#[derive(Clone, Debug)]
pub struct Module {
    pub path: PathBuf,
    /// Added to the addresses in the file.
    pub bias: u64,
    /// The separate debug file, if there is one.
    pub debug_file: Option<PathBuf>,
}

/// A function. Names are as in the symbol table; without one, the address says which it is.
#[derive(Clone, Debug)]
pub struct Function {
    pub name: Option<String>,
    /// Index in `modules`; `None`: code that the program has made.
    pub module: Option<u32>,
    /// Guest address of its first byte.
    pub start: u64,
}

/// An instruction that has been executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Instruction {
    pub pc: u64,
    /// In bytes.
    pub len: u8,
    pub module: Option<u32>,
    /// Index in `functions`.
    pub function: u32,
    pub count: u64,
}

/// A function in the context of its callers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Context {
    /// Index in `functions`; 0 in the first context, which is no function's.
    pub function: u32,
    /// Index in `contexts`.
    pub parent: u32,
    /// Instructions executed here.
    pub insns: u64,
}

/// Calls from one place of one function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call {
    /// Guest address of the calling instruction.
    pub site: u64,
    pub caller: u32,
    pub callee: u32,
    pub calls: u64,
    /// Instructions from calls to returns.
    pub insns: u64,
}

/// The records of several threads, added up.
#[derive(Clone, Default)]
pub(super) struct Merged {
    total: u64,
    /// Counter to count.
    counts: HashMap<u32, u64>,
    partial: HashMap<(u32, u32), u64>,
    nodes: Vec<Context>,
    children: HashMap<(u32, FunctionId), u32>,
    /// (site, function) to calls and instructions.
    calls: HashMap<(u64, FunctionId), (u64, u64)>,
}

impl Merged {
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Adds what a thread has executed so far, in `used` counters.
    pub(super) fn add(&mut self, recorder: &Recorder, counters: &Counters, used: u32, now: u64) {
        let totals = recorder.totals(now);
        self.total += now;
        let counted = (0..used).map(|counter| (counter, counters.get(counter as usize)));
        for (counter, count) in counted.chain(totals.counts) {
            if count != 0 {
                *self.counts.entry(counter).or_default() += count;
            }
        }
        recorder.partial.iter().for_each(|(key, n)| *self.partial.entry(*key).or_default() += n);
        for call in &totals.calls {
            let sum = self.calls.entry((call.site, call.function)).or_default();
            *sum = (sum.0 + call.calls, sum.1 + call.insns);
        }
        self.add_contexts(&totals.contexts);
    }

    fn add_contexts(&mut self, contexts: &[Executed]) {
        if self.nodes.is_empty() {
            self.nodes.push(Context { function: ROOT, parent: 0, insns: 0 });
        }
        let mut here = vec![0u32; contexts.len()];
        for (i, node) in contexts.iter().enumerate().skip(1) {
            let parent = here[node.parent as usize];
            if node.is_stub {
                here[i] = parent;
                continue;
            }
            let nodes = &mut self.nodes;
            here[i] = *self.children.entry((parent, node.function)).or_insert_with(|| {
                nodes.push(Context { function: node.function, parent, insns: 0 });
                nodes.len() as u32 - 1
            });
        }
        for (node, at) in contexts.iter().zip(here) {
            let insns = &mut self.nodes[at as usize].insns;
            *insns = insns.wrapping_add(node.insns);
        }
    }
}

/// Old numbers of functions and modules to new ones, in the order of paths and addresses.
struct Renumbered {
    modules: Vec<u32>,
    functions: HashMap<FunctionId, u32>,
}

impl Report {
    /// One that holds nothing but the number of all instructions.
    pub(super) fn of_total(total: u64) -> Report {
        Report { pid: std::process::id(), total, ..Report::default() }
    }

    /// Puts together what threads have recorded.
    pub(super) fn new(merged: &Merged, functions: &mut FunctionTable, blocks: &Blocks) -> Report {
        let mut report = Report { pid: std::process::id(), total: merged.total, ..Report::default() };
        if let Some(exe) = crate::process::current().and_then(|process| process.loaded()) {
            report.command = exe.argv.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
        }
        let counts = by_instruction(merged, blocks);
        let owners: Vec<FunctionId> = counts.iter().map(|&((place, pc), _)| functions.of(place, pc)).collect();
        let mut calls: Vec<(u64, FunctionId, FunctionId, (u64, u64))> = Vec::new();
        for (&(site, callee), &sums) in &merged.calls {
            if sums != (0, 0) {
                let place = functions.place(calque_ir::GuestAddr(site));
                calls.push((site, functions.of(place, site), callee, sums));
            }
        }
        let used = owners.iter().copied().chain(merged.nodes.iter().map(|node| node.function));
        let used: Vec<FunctionId> = used.chain(calls.iter().flat_map(|call| [call.1, call.2])).collect();
        let new = report.number(functions, used);
        report.instructions = counts
            .iter()
            .zip(&owners)
            .map(|(&((place, pc), (len, count)), owner)| Instruction {
                pc,
                len,
                module: new.module(place),
                function: new.functions[owner],
                count,
            })
            .collect();
        report.instructions.sort_unstable_by_key(|i| (i.module, i.pc));
        report.calls = calls
            .iter()
            .map(|&(site, caller, callee, (calls, insns))| Call {
                site,
                caller: new.functions[&caller],
                callee: new.functions[&callee],
                calls,
                insns,
            })
            .collect();
        report.calls.sort_unstable_by_key(|call| (call.caller, call.site, call.callee));
        report.contexts = sorted_contexts(&merged.nodes, &new);
        report
    }

    /// Takes over the functions that are used and the modules, in an order that does not depend on when they were met.
    fn number(&mut self, table: &FunctionTable, mut used: Vec<FunctionId>) -> Renumbered {
        let mut order: Vec<usize> = (0..table.modules.len()).collect();
        order.sort_by_key(|&i| (&table.modules[i].path, table.modules[i].bias));
        let mut modules = vec![0; order.len()];
        for (new, &old) in order.iter().enumerate() {
            let module = &table.modules[old];
            modules[old] = new as u32;
            self.modules.push(Module {
                path: module.path.clone(),
                bias: module.bias,
                debug_file: module.symbols.debug_file.clone(),
            });
        }
        let mut new = Renumbered { modules, functions: HashMap::new() };
        used.push(ROOT);
        used.sort_by_key(|&id| {
            let function = &table.functions[id as usize];
            (id != ROOT, new.module(function.place), function.start, id)
        });
        used.dedup();
        for id in used {
            let function = &table.functions[id as usize];
            new.functions.insert(id, self.functions.len() as u32);
            let module = new.module(function.place);
            self.functions.push(Function { name: function.name.clone(), module, start: function.start });
        }
        new
    }
}

impl Renumbered {
    fn module(&self, place: Place) -> Option<u32> {
        match place {
            Place::Module(old) => Some(self.modules[old as usize]),
            Place::Memory => None,
        }
    }
}

/// How often each instruction was executed, in the order of addresses.
fn by_instruction(merged: &Merged, blocks: &Blocks) -> Vec<((Place, u64), (u8, u64))> {
    let mut counts: HashMap<(Place, u64), (u8, u64)> = HashMap::new();
    let mut add = |block: Block<'_>, n: usize, count: u64| {
        for (pc, len) in block.insns().take(n) {
            let entry = counts.entry((block.place, pc)).or_insert((len, 0));
            entry.1 += count;
        }
    };
    for (number, block) in blocks.iter() {
        if let Some(&count) = merged.counts.get(&number) {
            add(block, usize::MAX, count);
        }
    }
    for (&(number, n), &count) in &merged.partial {
        if let Some(block) = blocks.get(number) {
            add(block, n as usize, count);
        }
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_unstable();
    counts
}

/// Contexts in preorder, those of one parent in the order of their functions.
fn sorted_contexts(nodes: &[Context], new: &Renumbered) -> Vec<Context> {
    let mut children = vec![Vec::new(); nodes.len()];
    for (i, node) in nodes.iter().enumerate().skip(1) {
        children[node.parent as usize].push(i);
    }
    let mut out = Vec::with_capacity(nodes.len());
    let mut rest = if nodes.is_empty() { Vec::new() } else { vec![(0, 0)] };
    while let Some((i, parent)) = rest.pop() {
        let number = out.len() as u32;
        out.push(Context { function: new.functions[&nodes[i].function], parent, insns: nodes[i].insns });
        children[i].sort_unstable_by_key(|&child| std::cmp::Reverse(new.functions[&nodes[child].function]));
        rest.extend(children[i].iter().map(|&child| (child, number)));
    }
    out
}
