//! Starting programs with a time limit, natively and under calque.

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::fmt;
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// How long one program may take: far more than any needs under an emulated translator.
const LIMIT: Duration = Duration::from_secs(240);

/// What came out of a run.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// `exit N`, `signal N` or `timeout`.
    pub(crate) end: String,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.stdout, self.end)
    }
}

impl Outcome {
    /// The count in the row `name` of what `--stats` prints.
    pub(crate) fn stat(&self, name: &str) -> Option<u32> {
        self.stats(name).next()
    }

    /// The same of each process that has printed some.
    pub(crate) fn stats(&self, name: &str) -> impl Iterator<Item = u32> {
        let rows = self.stderr.lines().filter(move |line| line.split_whitespace().nth(1) == Some(name));
        rows.filter_map(|row| row.split_whitespace().next()?.parse().ok())
    }
}

/// Whether calque has to be started through an emulator.
pub(crate) fn emulated() -> bool {
    std::env::var_os("CALQUE_TEST_RUNNER").is_some()
}

/// The x86-64 sysroot, if there is one.
pub(crate) fn sysroot() -> Option<PathBuf> {
    std::env::var_os("CALQUE_TEST_SYSROOT").map(PathBuf::from)
}

/// `calque` with arguments, which keeps no code for the next run.
pub(crate) fn calque<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let binary = std::env::var_os("CALQUE_TEST_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_calque").into());
    let mut words = std::env::var_os("CALQUE_TEST_RUNNER").into_iter().chain([binary]);
    let mut command = Command::new(words.next().expect("there is a binary"));
    command.args(words).args(args).env_remove("CALQUE_SYSROOT").env("CALQUE_CACHE_DIR", "");
    command
}

/// Runs a command to its end or to the time limit, without standard input.
pub(crate) fn run(command: &mut Command) -> Outcome {
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn();
    let mut child = spawned.unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let group = Pid::from_raw(child.id() as i32);
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let (done, wait) = mpsc::channel();
    let watchdog = thread::spawn(move || {
        let late = wait.recv_timeout(LIMIT).is_err();
        if late {
            let _ = killpg(group, Signal::SIGKILL);
        }
        late
    });
    let status = child.wait().expect("the child can be waited for");
    let _ = done.send(());
    let late = watchdog.join().expect("the watchdog ends");
    let text = |t: thread::JoinHandle<Vec<u8>>| String::from_utf8_lossy(&t.join().expect("reading ends")).into_owned();
    Outcome { stdout: text(stdout), stderr: text(stderr), end: if late { "timeout".into() } else { describe(status) } }
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.map(|mut p| p.read_to_end(&mut bytes));
        bytes
    })
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit {code}"),
        (_, Some(signal)) => format!("signal {signal}"),
        _ => format!("{status}"),
    }
}

/// The message of a failed comparison: both sides with the first difference marked, and how to run it alone.
pub(crate) fn difference(command: &Command, expected: &str, got: &Outcome) -> String {
    let text = got.to_string();
    let mut report = String::new();
    let (mut left, mut right) = (expected.lines(), text.lines());
    for number in 1.. {
        match (left.next(), right.next()) {
            (Some(a), Some(b)) if a == b => {}
            (None, None) => break,
            (a, b) => {
                report = format!("line {number}:\n- {}\n+ {}\n", a.unwrap_or("(end)"), b.unwrap_or("(end)"));
                break;
            }
        }
    }
    let stderr: String = got.stderr.lines().take(60).map(|l| format!("  | {l}\n")).collect();
    format!("{report}stderr:\n{stderr}reproduce: {}", line(command))
}

/// A command as one types it.
pub(crate) fn line(command: &Command) -> String {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    let quote = |w: &OsStr| {
        let word = w.to_string_lossy();
        if word.contains([' ', '$', ';', '|', '\'', '*']) {
            format!("'{}'", word.replace('\'', r"'\''"))
        } else {
            word.into()
        }
    };
    words.map(quote).collect::<Vec<String>>().join(" ")
}
