//! Folded stacks, one context a line, and the flame graph that is drawn from them.

use super::sums::Sums;
use calque_runtime::profile::report::Report;
use inferno::flamegraph;
use std::fmt::Write;

/// `main;work;leaf 1234`, a line for each context that has executed anything, sorted.
pub(super) fn folded(report: &Report, sums: &Sums<'_>) -> String {
    let mut lines = lines(report, sums);
    lines.sort_unstable();
    let mut text = String::new();
    for line in lines {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{line}");
    }
    text
}

fn lines(report: &Report, sums: &Sums<'_>) -> Vec<String> {
    let mut paths: Vec<String> = Vec::with_capacity(report.contexts.len());
    let mut lines = Vec::new();
    for (i, context) in report.contexts.iter().enumerate() {
        // What separates functions and counts cannot be part of a name.
        let name = sums.names[context.function as usize].replace(';', ":");
        let path = match (i, context.parent) {
            (0, _) => String::new(),
            (_, 0) => name.clone(),
            (_, parent) => format!("{};{name}", paths[parent as usize]),
        };
        if context.insns != 0 {
            lines.push(format!("{} {}", if i == 0 { &name } else { &path }, context.insns));
        }
        paths.push(path);
    }
    lines
}

/// A flame graph that browsers show, with search and zoom.
pub(super) fn svg(report: &Report, sums: &Sums<'_>) -> Result<String, String> {
    let mut options = flamegraph::Options::default();
    options.title = report.command.join(" ");
    options.subtitle = Some(format!("{} instructions", report.total));
    options.count_name = "instructions".to_owned();
    // The same picture for the same numbers.
    options.deterministic = true;
    options.notes = "calque profile".to_owned();
    let folded = folded(report, sums);
    let mut svg = Vec::new();
    flamegraph::from_lines(&mut options, folded.lines(), &mut svg).map_err(|e| e.to_string())?;
    String::from_utf8(svg).map_err(|e| e.to_string())
}
