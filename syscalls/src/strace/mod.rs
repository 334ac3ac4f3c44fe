//! `--strace`: each call as one line on stderr, in strace's manner.
//!
//! A line begins when the call does (so that a call that never returns is seen) and ends with its result. Where another
//! thread prints in between, the line is broken off as `<unfinished ...>` and taken up as `<... NAME resumed>`. Lines are
//! prefixed `[pid N]` from the moment there is more than one thread, and in every process that has a Calque as parent.
//!
//! Output goes to a hidden duplicate of the descriptor 2 that Calque was started with: the guest may close its own.

pub(crate) mod names;
mod structs;
mod value;

use crate::call::Call;
use crate::row::{Arg, Struct};
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
    /// Thread that printed first, until another one does.
    only: Option<i32>,
    prefixed: bool,
}

static OUTPUT: Mutex<Output> = Mutex::new(Output { file: None, open: None, only: None, prefixed: false });

fn output() -> MutexGuard<'static, Output> {
    OUTPUT.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Carries `call` out and prints it.
pub(crate) fn run(call: &mut Call<'_>) -> Outcome {
    let (tid, name) = (call.thread.tid, call.row.name);
    if matches!(name, "execve" | "execveat") {
        return run_exec(call);
    }
    let before = value::arguments(call, When::Before);
    let mut line = format!("{name}(");
    line.push_str(&before.text);
    output().begin(tid, &line);
    let outcome = call.run();
    if call.thread.tid != tid {
        // The child of a fork: its parent prints the call.
        output().forget();
        return outcome;
    }
    let mut rest = String::new();
    let end = ended(call, outcome);
    if let (true, Ending::Value(result)) = (before.rest, &end) {
        rest.push_str(&value::arguments(call, When::After { from: before.count, result: *result }).text);
    } else if before.rest {
        rest.push_str("...");
    }
    let _ = write!(rest, ") = {}", result_text(call, &end));
    output().end(tid, name, &rest);
    if let Outcome::ExitProcess(code) | Outcome::ExitThread(code) = outcome {
        output().line(tid, &format!("+++ exited with {} +++", code & 0xff));
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

fn ended(call: &Call<'_>, outcome: Outcome) -> Ending {
    let rax = call.thread.cpu.gpr[0];
    match outcome {
        Outcome::Interrupted(_) => Ending::None("? ERESTARTNOINTR (To be restarted)"),
        Outcome::Continue if (rax as i64) < 0 && rax as i64 >= -4095 => {
            Ending::Value(Err(Errno::from_raw(-(rax as i64) as i32)))
        }
        Outcome::Continue => Ending::Value(Ok(rax)),
        Outcome::ExitThread(_) | Outcome::ExitProcess(_) => Ending::None("?"),
    }
}

fn result_text(call: &Call<'_>, end: &Ending) -> String {
    match *end {
        Ending::None(text) => text.to_owned(),
        Ending::Value(Err(errno)) => format!("-1 {errno:?} ({})", description(errno)),
        Ending::Value(Ok(value)) => value::result(call, value),
    }
}

/// The C library's text for an error, without the number that Rust adds.
fn description(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

impl Output {
    fn begin(&mut self, tid: i32, text: &str) {
        let text = format!("{}{}{text}", self.interrupt(), self.prefix(tid));
        self.open = Some(tid);
        self.write(&text);
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
        if self.only.is_none() {
            self.prefixed = is_child_of_calque();
        }
        if *self.only.get_or_insert(tid) != tid {
            self.prefixed = true;
        }
        if self.prefixed { format!("[pid {tid}] ") } else { String::new() }
    }

    /// In a forked child: the parent's open line is not ours.
    fn forget(&mut self) {
        self.open = None;
        self.prefixed = true;
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

/// Whether the kernel decides at the end of the call what the argument shows.
fn is_output(arg: Arg) -> bool {
    use Arg::*;
    matches!(arg, Out(_) | OutAll(_) | OutS(_) | IoS(_) | OutA(..) | OutIov(_) | OutMsg | OutMmsg(_) | OutSock(_))
}
