//! The summary on the terminal: what a look at a profile begins with.

use super::names;
use super::sums::Sums;
use calque_runtime::profile::Ends;
use calque_runtime::profile::report::Report;
use std::cmp::Reverse;
use std::fmt::Write;

/// Rows of each table.
const FUNCTIONS: usize = 25;
const LINES: usize = 10;
const BLOCKS: usize = 10;

pub(super) fn text(report: &Report, sums: &Sums<'_>) -> String {
    let mut out = String::new();
    let ended = match report.ended {
        Some(Ends::Exits(code)) => format!("exit {code}"),
        Some(Ends::Dies(signo)) => format!("died by {}", calque_runtime::signal::signal_name(signo)),
        Some(Ends::Executes) => "executes another program".to_owned(),
        None => "still running".to_owned(),
    };
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "calque profile: {} (pid {}, {ended}): {} instructions",
        report.command.join(" "),
        report.pid,
        grouped(report.total)
    );
    functions(&mut out, report, sums);
    lines(&mut out, report, sums);
    blocks(&mut out, report, sums);
    out
}

fn functions(out: &mut String, report: &Report, sums: &Sums<'_>) {
    let mut order: Vec<usize> = (1..sums.functions.len()).collect();
    order.sort_by_key(|&i| (Reverse(sums.functions[i].own), Reverse(sums.functions[i].inclusive), i));
    let _ = writeln!(out, "\n{:>16} {:>6} {:>16} {:>6} {:>12}  function", "self", "%", "inclusive", "%", "calls");
    for &i in order.iter().take(FUNCTIONS) {
        let sum = sums.functions[i];
        let _ = writeln!(
            out,
            "{:>16} {:>6} {:>16} {:>6} {:>12}  {}{}",
            grouped(sum.own),
            percent(sum.own, report.total),
            grouped(sum.inclusive),
            percent(sum.inclusive, report.total),
            grouped(sum.calls),
            sums.names[i],
            module(report, report.functions[i].module),
        );
    }
    rest(out, order.len(), FUNCTIONS, "functions");
}

fn lines(out: &mut String, report: &Report, sums: &Sums<'_>) {
    let mut known: Vec<_> =
        sums.lines.iter().filter_map(|((function, line), n)| Some((line.as_ref()?, *function, *n))).collect();
    if known.is_empty() {
        return;
    }
    known.sort_by_key(|&(line, function, n)| (Reverse(n), line, function));
    let _ = writeln!(out, "\n{:>16} {:>6}  line", "self", "%");
    for (line, function, n) in known.iter().take(LINES) {
        let name = &sums.names[*function as usize];
        let _ = writeln!(
            out,
            "{:>16} {:>6}  {}:{} in {name}",
            grouped(*n),
            percent(*n, report.total),
            line.file,
            line.line
        );
    }
    rest(out, known.len(), LINES, "lines");
}

fn blocks(out: &mut String, report: &Report, sums: &Sums<'_>) {
    let mut order: Vec<_> = sums.blocks.iter().collect();
    order.sort_by_key(|b| (Reverse(b.insns * b.count), b.module, b.pc));
    let _ = writeln!(out, "\n{:>16} {:>6} {:>16}  block", "self", "%", "executions");
    for b in order.iter().take(BLOCKS) {
        let inlined = sums.sources.inlined(b.module, b.pc);
        let from = if inlined.is_empty() { String::new() } else { format!(" (inlined: {})", inlined.join(" > ")) };
        let _ = writeln!(
            out,
            "{:>16} {:>6} {:>16}  {:#x}..{:#x} ({} instructions) in {}{from}",
            grouped(b.insns * b.count),
            percent(b.insns * b.count, report.total),
            grouped(b.count),
            b.pc,
            b.end,
            b.insns,
            sums.names[b.function as usize],
        );
    }
    rest(out, order.len(), BLOCKS, "blocks");
}

fn rest(out: &mut String, all: usize, shown: usize, what: &str) {
    if all > shown {
        let _ = writeln!(out, "  ... and {} more {what}", all - shown);
    }
}

fn module(report: &Report, module: Option<u32>) -> String {
    module.map_or(String::new(), |m| format!(" [{}]", names::file_name(&report.modules[m as usize])))
}

/// With a comma every three digits.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn percent(part: u64, whole: u64) -> String {
    format!("{:.1}%", 100.0 * part as f64 / whole.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!([0, 999, 1000, 1234567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(percent(1, 3), "33.3%");
    }
}
