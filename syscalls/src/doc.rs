//! docs/SYSCALLS.md, from the table. `BLESS=1 cargo test -p calque-syscalls` writes it.

use crate::row::{Arg, How, Level, Restart, Row, Struct};
use crate::table::TABLE;
use std::fmt::Write;

const HEAD: &str = "\
# System calls

Generated from `syscalls/src/table.rs`; `BLESS=1 cargo test -p calque-syscalls` brings it up to date.

**Support**: *full*, as on Linux; *part*, but for what the note says; *no*, refused or missing.
**By**: *host*, the host's call of the same name; *Calque*, a handler.
**Restart** after a signal handler: *SA_RESTART*, if the handler's flags say so; *never*, EINTR; empty, does not sleep.
**Arguments** count from 0: `out[2]` is a buffer that the kernel writes, as many bytes as argument 2 says; `in`, one that
it reads; `stat` and the like are structures.

";

/// The page.
fn page() -> String {
    let mut page = HEAD.to_owned();
    for level in [Level::Full, Level::Part, Level::No] {
        let count = TABLE.iter().filter(|row| row.level == level).count();
        let _ = writeln!(page, "- {}: {count}", level_name(level));
    }
    page.push_str("\n| nr | name | arguments | support | by | restart | note |\n|---:|---|---|---|---|---|---|\n");
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
    let args = row.args.iter().map(|&arg| argument(arg)).collect::<Vec<_>>().join(", ");
    let (nr, name, level, note) = (row.nr, row.name, level_name(row.level), row.note);
    format!("| {nr} | `{name}` | {args} | {level} | {by} | {restart} | {note} |\n")
}

/// An argument's type in a word.
fn argument(arg: Arg) -> String {
    use Arg::*;
    match arg {
        In(n) => format!("in[{n}]"),
        Out(n) | OutAll(n) => format!("out[{n}]"),
        InIov(n) => format!("in iovec[{n}]"),
        OutIov(n) => format!("out iovec[{n}]"),
        InMsg => "in msghdr".to_owned(),
        OutMsg => "out msghdr".to_owned(),
        InMmsg(n) => format!("in mmsghdr[{n}]"),
        OutMmsg(n) => format!("out mmsghdr[{n}]"),
        InSock(n) => format!("in sockaddr[{n}]"),
        OutSock(n) => format!("out sockaddr[*{n}]"),
        InS(s) => format!("in {}", structure(s)),
        OutS(s) => format!("out {}", structure(s)),
        IoS(s) => format!("in out {}", structure(s)),
        InA(s, n) => format!("in {}[{n}]", structure(s)),
        OutA(s, n) => format!("out {}[{n}]", structure(s)),
        IoA(s, n) => format!("in out {}[{n}]", structure(s)),
        FdSet => "in out fd_set".to_owned(),
        Bits(_) | CloneFlags => "flags".to_owned(),
        One(_) | SockOpt | Request => "value".to_owned(),
        Ioctl | Fcntl => "by request".to_owned(),
        Ptr => "address".to_owned(),
        Argv => "texts".to_owned(),
        Str => "text".to_owned(),
        NewPath => "path".to_owned(),
        plain => format!("{plain:?}").to_lowercase(),
    }
}

fn structure(kind: Struct) -> String {
    match kind {
        Struct::Blob(size) => format!("{size} bytes"),
        named => format!("{named:?}").to_lowercase(),
    }
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
