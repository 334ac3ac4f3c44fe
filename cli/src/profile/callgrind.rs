//! `callgrind.out`, for callgrind_annotate and KCachegrind (valgrind's manual, "Callgrind Format Specification").
//!
//! Objects, files and functions are written as `(number) name` where they first appear, then as `(number)`.

use super::names::Line;
use super::sums::Sums;
use calque_runtime::profile::report::{Call, Report};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

/// Stands for what is not known.
const UNKNOWN: &str = "???";

pub(super) fn text(report: &Report, sums: &Sums<'_>) -> String {
    let mut out = Output { text: String::new(), numbers: HashMap::new() };
    out.header(report);
    for number in 0..report.functions.len() as u32 {
        out.function(report, sums, number);
    }
    let _ = writeln!(out.text, "totals: {}", report.total);
    out.text
}

/// The text so far. Writing to it does not fail.
struct Output {
    text: String,
    /// Numbers of names, by kind of name.
    numbers: HashMap<&'static str, HashMap<String, usize>>,
}

impl Output {
    fn header(&mut self, report: &Report) {
        let _ = writeln!(self.text, "# callgrind format\nversion: 1\ncreator: calque {}", env!("CARGO_PKG_VERSION"));
        let _ = writeln!(self.text, "pid: {}\ncmd: {}\npart: 1", report.pid, report.command.join(" "));
        let _ = writeln!(self.text, "positions: line\nevents: Ir\nsummary: {}\n", report.total);
    }

    /// A function's own lines, then its calls.
    fn function(&mut self, report: &Report, sums: &Sums<'_>, number: u32) {
        let lines = sums.lines.range((number, None)..=(number, Some(last_line())));
        let lines: Vec<(&Option<Line>, u64)> = lines.map(|((_, line), count)| (line, *count)).collect();
        let calls = calls_of(report, number);
        if lines.is_empty() && calls.is_empty() {
            return;
        }
        let file = self.open(report, sums, number);
        let mut current = file.clone();
        let mut by_line: BTreeMap<(String, u32), (u64, Vec<&Call>)> = BTreeMap::new();
        for (line, count) in lines {
            by_line.entry(place(line.as_ref())).or_default().0 += count;
        }
        for call in calls {
            let module = report.functions[call.caller as usize].module;
            by_line.entry(place(sums.line(module, call.site))).or_default().1.push(call);
        }
        for ((source, line), (count, calls)) in by_line {
            if source != current {
                let key = if source == file { "fe" } else { "fi" };
                self.name(key, "file", &source);
                current = source;
            }
            if count != 0 {
                let _ = writeln!(self.text, "{line} {count}");
            }
            self.calls(report, sums, line, &calls);
        }
        self.text.push('\n');
    }

    /// Names object, file and function; the file.
    fn open(&mut self, report: &Report, sums: &Sums<'_>, number: u32) -> String {
        let (object, file) = origin(report, sums, number);
        self.name("ob", "object", &object);
        self.name("fl", "file", &file);
        self.name("fn", "function", &sums.names[number as usize]);
        file
    }

    fn calls(&mut self, report: &Report, sums: &Sums<'_>, line: u32, calls: &[&Call]) {
        for call in calls {
            let (object, file) = origin(report, sums, call.callee);
            let callee = &report.functions[call.callee as usize];
            let start = sums.sources.line(callee.module, callee.start).map_or(0, |line| line.line);
            self.name("cob", "object", &object);
            self.name("cfi", "file", &file);
            self.name("cfn", "function", &sums.names[call.callee as usize]);
            let _ = writeln!(self.text, "calls={} {start}\n{line} {}", call.calls, call.insns);
        }
    }

    fn name(&mut self, key: &str, kind: &'static str, name: &str) {
        let numbers = self.numbers.entry(kind).or_default();
        let next = numbers.len() + 1;
        let _ = match numbers.get(name) {
            Some(number) => writeln!(self.text, "{key}=({number})"),
            None => {
                numbers.insert(name.to_owned(), next);
                writeln!(self.text, "{key}=({next}) {name}")
            }
        };
    }
}

/// Behind all lines of a function.
fn last_line() -> Line {
    Line { file: char::MAX.to_string(), line: u32::MAX }
}

/// File and line, as the format has them.
fn place(line: Option<&Line>) -> (String, u32) {
    line.map_or((UNKNOWN.to_owned(), 0), |line| (line.file.clone(), line.line))
}

/// Object and source file of a function.
fn origin(report: &Report, sums: &Sums<'_>, number: u32) -> (String, String) {
    let function = &report.functions[number as usize];
    let object = function.module.map(|m| report.modules[m as usize].path.to_string_lossy().into_owned());
    let line = sums.sources.line(function.module, function.start);
    (object.unwrap_or_else(|| UNKNOWN.to_owned()), place(line.as_ref()).0)
}

fn calls_of(report: &Report, caller: u32) -> Vec<&Call> {
    let from = report.calls.partition_point(|call| call.caller < caller);
    report.calls[from..].iter().take_while(|call| call.caller == caller).collect()
}
