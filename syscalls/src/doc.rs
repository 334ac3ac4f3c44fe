//! docs/SYSCALLS.md, from the table. `BLESS=1 cargo test -p calque-syscalls` writes it.

use crate::row::{How, Level, Restart, Row};
use crate::table::TABLE;
use std::fmt::Write;

const HEAD: &str = "\
# System calls

Generated from `syscalls/src/table.rs`; `BLESS=1 cargo test -p calque-syscalls` brings it up to date.

**Support**: *full*, as on Linux; *part*, but for what the note says; *no*, refused or missing.
**By**: *host*, the host's call of the same name; *Calque*, a handler.
**Restart** after a signal handler: *SA_RESTART*, if the handler's flags say so; *never*, EINTR; empty, does not sleep.

";

/// The page.
fn page() -> String {
    let mut page = HEAD.to_owned();
    for level in [Level::Full, Level::Part, Level::No] {
        let count = TABLE.iter().filter(|row| row.level == level).count();
        let _ = writeln!(page, "- {}: {count}", level_name(level));
    }
    page.push_str("\n| nr | name | support | by | restart | note |\n|---:|------|---------|----|---------|------|\n");
    for row in TABLE {
        page.push_str(&line(row));
    }
    page
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::Full => "full",
        Level::Part => "part",
        Level::No => "no",
    }
}

fn line(row: &Row) -> String {
    let by = match row.how {
        How::Pass => "host",
        How::Do(_) | How::Ctl(_) => "Calque",
        How::Fail(_) | How::Nosys => "",
    };
    let restart = match row.restart {
        Restart::Quick => "",
        Restart::Sys => "SA_RESTART",
        Restart::NoHand => "never",
    };
    format!("| {} | `{}` | {} | {by} | {restart} | {} |\n", row.nr, row.name, level_name(row.level), row.note)
}

#[test]
fn the_page_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/SYSCALLS.md");
    let page = page();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, &page).expect("docs/ can be written");
    }
    let on_disk = std::fs::read_to_string(path).unwrap_or_default();
    let differs = page.lines().zip(on_disk.lines()).find(|(new, old)| new != old);
    assert!(page == on_disk, "docs/SYSCALLS.md is out of date (BLESS=1 accepts): {differs:?}");
}
