//! `--strace`: each call as one line on stderr, in strace's manner.
//!
//! A line begins when the call does (so that a call that never returns is seen) and ends with its result. Where another
//! thread prints in between, the line is broken off as `<unfinished ...>` and taken up as `<... NAME resumed>`. Lines are
//! prefixed `[pid N]` from the moment there is more than one thread, and in every process that has a Calque as parent.
//! Processes do not know of each other's lines: once there are several, each line is written as a whole, at its end.
//!
//! Output goes to a hidden duplicate of the descriptor 2 that Calque was started with: the guest may close its own.

pub(crate) mod names;
mod structs;
mod value;

use crate::call::Call;
use crate::row::{Arg, Dir, Level, Row, Struct};
use calque_runtime::signal::{SigInfo, signal_name};
use calque_runtime::{Outcome, Thread, hidden};
use nix::errno::Errno;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::sync::{Mutex, MutexGuard};
use value::When;

/// Where lines go, and whose line is open.
struct Output {
    file: Option<File>,
    /// Thread whose line has begun and not ended.
    open: Option<i32>,
    /// Thread that printed first.
    first: Option<i32>,
    prefixed: bool,
    /// Whether other processes may print, too.
    shared: bool,
}

static OUTPUT: Mutex<Output> =
    Mutex::new(Output { file: None, open: None, first: None, prefixed: false, shared: false });

fn output() -> MutexGuard<'static, Output> {
    OUTPUT.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Carries `call` out and prints it.
pub(crate) fn run(call: &mut Call<'_>) -> Outcome {
    match call.row.name {
        "execve" | "execveat" => run_exec(call),
        "fork" | "vfork" | "clone" | "clone3" => run_clone(call),
        _ => run_plain(call),
    }
}

fn run_plain(call: &mut Call<'_>) -> Outcome {
    let (tid, name) = (call.thread.tid, call.row.name);
    let before = value::arguments(call, When::Before);
    let start = format!("{name}({}", before.text);
    let whole = output().begin(tid, &start);
    let outcome = call.run();
    let mut rest = if whole { start } else { String::new() };
    let end = ended(call, outcome);
    if let (true, Ending::Value(result)) = (before.rest, &end) {
        rest.push_str(&value::arguments(call, When::After { from: before.count, result: *result }).text);
    } else if before.rest {
        rest.push_str("...");
    }
    let _ = write!(rest, ") = {}", result_text(call, &end));
    if whole {
        output().line(tid, &rest)
    } else {
        output().end(tid, name, &rest)
    }
    if let Outcome::ExitProcess(code) | Outcome::ExitThread(code) = outcome {
        output().line(tid, &format!("+++ exited with {} +++", code & 0xff));
    }
    outcome
}

/// A call that has been made, as one line; buffers as they are now.
pub(crate) fn describe(call: &Call<'_>, result: Option<u64>) -> String {
    let end = result.map_or(Ending::None("?"), Ending::of);
    let shown = value::arguments(call, When::Before);
    let mut text = format!("{}({}", call.row.name, shown.text);
    if let (true, Ending::Value(result)) = (shown.rest, &end) {
        text.push_str(&value::arguments(call, When::After { from: shown.count, result: *result }).text);
    }
    let _ = write!(text, ") = {}", result_text(call, &end));
    text
}

/// A call that returns twice, or whose child runs first: printed by the parent, as a whole.
fn run_clone(call: &mut Call<'_>) -> Outcome {
    let tid = call.thread.tid;
    let line = format!("{}({})", call.row.name, value::arguments(call, When::Before).text);
    let shares_memory = value::clones_memory(call);
    // A forked child gets a copy of the lock, so nobody else may hold it then.
    let mut guard = output();
    guard.share();
    let held = (!shares_memory).then_some(guard);
    let outcome = call.run();
    drop(held);
    if call.thread.tid == tid {
        output().line(tid, &format!("{line} = {}", result_text(call, &ended(call, outcome))));
    }
    outcome
}

/// `execve`, which returns only if it fails: a file that can be executed is reported as a success beforehand.
fn run_exec(call: &mut Call<'_>) -> Outcome {
    let tid = call.thread.tid;
    let line = format!("{}({})", call.row.name, value::arguments(call, When::Before).text);
    if value::is_executable(call) {
        output().line(tid, &format!("{line} = 0"));
    }
    let outcome = call.run();
    output().line(tid, &format!("{line} = {}", result_text(call, &ended(call, outcome))));
    outcome
}

/// How a call ended.
enum Ending {
    Value(Result<u64, Errno>),
    /// It will be made again, or has no result.
    None(&'static str),
}

impl Ending {
    /// What RAX says.
    fn of(rax: u64) -> Self {
        match rax as i64 {
            errno @ -4095..0 => Ending::Value(Err(Errno::from_raw(-errno as i32))),
            _ => Ending::Value(Ok(rax)),
        }
    }
}

fn ended(call: &Call<'_>, outcome: Outcome) -> Ending {
    let rax = call.thread.cpu.gpr[0];
    match outcome {
        Outcome::Interrupted => Ending::None("? ERESTARTNOINTR (To be restarted)"),
        Outcome::Continue => Ending::of(rax),
        Outcome::ExitThread(_) | Outcome::ExitProcess(_) => Ending::None("?"),
    }
}

fn result_text(call: &Call<'_>, end: &Ending) -> String {
    match *end {
        Ending::None(text) => text.to_owned(),
        Ending::Value(Err(errno)) => format!("-1 {errno:?} ({}){}", description(errno), reason(call.row)),
        Ending::Value(Ok(value)) => value::result(call, value),
    }
}

/// Why Calque refuses a call that it always refuses.
fn reason(row: &Row) -> String {
    if row.level == Level::No { format!(" /* {} */", row.note) } else { String::new() }
}

/// The C library's text for an error, without the number that Rust adds.
fn description(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

impl Output {
    /// Begins a line, unless it has to be written as a whole later.
    fn begin(&mut self, tid: i32, text: &str) -> bool {
        let text = format!("{}{}{text}", self.interrupt(), self.prefix(tid));
        if !self.shared {
            self.open = Some(tid);
            self.write(&text);
        }
        self.shared
    }

    fn end(&mut self, tid: i32, name: &str, text: &str) {
        let mut line = String::new();
        if self.open != Some(tid) {
            line = format!("{}{}<... {name} resumed>", self.interrupt(), self.prefix(tid));
        }
        line.push_str(text);
        line.push('\n');
        self.open = None;
        self.write(&line);
    }

    fn line(&mut self, tid: i32, text: &str) {
        let line = format!("{}{}{text}\n", self.interrupt(), self.prefix(tid));
        self.write(&line);
    }

    /// Ends the line of another thread.
    fn interrupt(&mut self) -> &'static str {
        if self.open.take().is_some() { " <unfinished ...>\n" } else { "" }
    }

    fn prefix(&mut self, tid: i32) -> String {
        if self.first.is_none() {
            self.first = Some(tid);
            self.prefixed = is_child_of_calque();
            self.shared = self.prefixed;
        }
        self.prefixed |= self.first != Some(tid);
        if self.prefixed { format!("[pid {tid}] ") } else { String::new() }
    }

    /// There will be another process.
    fn share(&mut self) {
        let interrupt = self.interrupt();
        self.write(interrupt);
        self.shared = true;
    }

    fn write(&mut self, text: &str) {
        if self.file.is_none() {
            self.file = hidden::hide(std::io::stderr()).ok().map(File::from);
        }
        if let Some(file) = &mut self.file {
            // Nobody to tell if stderr is gone.
            let _ = file.write_all(text.as_bytes());
        }
    }
}

/// Whether the parent process runs the same program as this one.
fn is_child_of_calque() -> bool {
    let parent = format!("/proc/{}/exe", nix::unistd::getppid());
    let (parent, own) = (std::fs::read_link(parent), std::fs::read_link("/proc/self/exe"));
    matches!((parent, own), (Ok(parent), Ok(own)) if parent == own)
}

/// Prints a signal that is about to be delivered.
pub(crate) fn signal(thread: &Thread, info: &SigInfo) {
    let text = structs::text(Struct::Siginfo, bytemuck::bytes_of(info)).unwrap_or_default();
    output().line(thread.tid, &format!("--- {} {text} ---", signal_name(info.signo)));
}

/// Prints what belongs to a call under way.
pub(crate) fn detail(thread: &Thread, text: &str) {
    output().line(thread.tid, &format!("    {text}"));
}

/// Whether the call decides what argument `i` shows.
fn is_output(call: &Call<'_>, i: usize) -> bool {
    use Arg::*;
    match call.row.args[i] {
        Out(_) | OutAll(_) | OutS(_) | IoS(_) | OutA(..) | OutIov(_) | OutMsg | OutMmsg(_) | OutSock(_) => true,
        Ioctl => crate::abi::ioctl::buffer(call.args[1] as u32, call.args[i]).0 == Dir::Out,
        _ => false,
    }
}
