//! The report: one screen about a difference.

use super::control::{Mismatch, Pair};
use super::narrow::{Found, How};
use super::rules::Difference;
use super::state::State;
use std::fmt::Write;

/// Rows of registers that are shown.
const MOST_ROWS: usize = 12;
/// Lines of IR and host code that are shown.
const MOST_LINES: usize = 40;

/// The text.
pub(super) fn text(pair: &Pair, mismatch: &Mismatch, found: Option<&Found>) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut out, pair, mismatch, found);
    out
}

fn write(out: &mut String, pair: &Pair, mismatch: &Mismatch, found: Option<&Found>) -> std::fmt::Result {
    writeln!(out, "calque: the executions differ")?;
    match found {
        Some(found) => {
            instruction(out, found)?;
            writeln!(out, "  seen as: {}", mismatch.what)?;
        }
        None => {
            writeln!(out, "  seen as: {}", mismatch.what)?;
            rows(out, &mismatch.rows)?;
            writeln!(
                out,
                "  re-execution from the last checkpoint did not show it again, so no instruction can be named"
            )?;
        }
    }
    writeln!(out, "  reproduce: {}", pair.shared.options.command)
}

fn instruction(out: &mut String, found: &Found) -> std::fmt::Result {
    let mut lines = found.words.lines();
    let (place, assembly) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let how = match found.how {
        How::Alone => "first at",
        How::LastWriter => "behind a block in which this wrote last what differs:",
    };
    writeln!(out, "  {how} {:#x} {place}", found.pc)?;
    writeln!(out, "    {assembly}")?;
    if let Some(what) = &found.what {
        writeln!(out, "  {what}")?;
    }
    rows(out, &found.rows)?;
    state(out, &found.before)?;
    for line in lines.by_ref().take(MOST_LINES) {
        writeln!(out, "  {line}")?;
    }
    let left = lines.count();
    if left > 0 { writeln!(out, "  ... {left} lines more: calque lift shows them") } else { Ok(()) }
}

fn rows(out: &mut String, rows: &[Difference]) -> std::fmt::Result {
    for row in rows.iter().take(MOST_ROWS) {
        writeln!(out, "  * {:<10} expected {} | got {}", row.name, row.expected, row.got)?;
        if !row.before.is_empty() {
            writeln!(out, "    {:<10} before   {}", "", row.before)?;
        }
    }
    if rows.len() > MOST_ROWS { writeln!(out, "    and {} more", rows.len() - MOST_ROWS) } else { Ok(()) }
}

/// Registers before the instruction.
fn state(out: &mut String, state: &State) -> std::fmt::Result {
    writeln!(out, "  before:")?;
    for row in 0..4 {
        let regs = calque_ir::Reg::all().skip(4 * row).take(4).enumerate();
        let cells: Vec<String> =
            regs.map(|(i, reg)| format!("{:<3} {:016x}", reg.name(), state.gpr[4 * row + i])).collect();
        writeln!(out, "    {}", cells.join("  "))?;
    }
    writeln!(out, "    flags {}  mxcsr {:x}", super::rules::flags_text(state.rflags), state.mxcsr)
}
