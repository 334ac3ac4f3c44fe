//! One run of one program: wall time, processor time and peak memory of it and its children, and its output.
//!
//! # Safety
//! `wait4` is called with a child of ours that nothing else waits for, and writes into locals.

#![allow(unsafe_code)]

use std::fs::File;
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, BufRead, BufReader, Seek};
use std::mem::MaybeUninit;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What one run took.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// Seconds.
    pub(crate) wall: f64,
    /// User and system time in seconds.
    pub(crate) cpu: f64,
    /// Peak resident memory of the largest process, in KiB.
    pub(crate) rss: i64,
    /// Hash of the standard output.
    pub(crate) output: u64,
    /// Its first line.
    pub(crate) line: String,
}

/// Longest time for one run.
const LIMIT: Duration = Duration::from_secs(300);

/// Runs a command in `dir`; an error if it fails.
pub(crate) fn run(words: &[String], dir: &Path) -> Result<Sample, String> {
    let mut output = tempfile::tempfile().map_err(|e| e.to_string())?;
    let stdout: File = output.try_clone().map_err(|e| e.to_string())?;
    let start = Instant::now();
    let child = Command::new(&words[0])
        .args(&words[1..])
        .current_dir(dir)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| format!("{}: {e}", words[0]))?;
    let watchdog = Watchdog::start(child.id() as i32);
    let (status, usage) = wait(child.id() as i32);
    let wall = start.elapsed().as_secs_f64();
    drop(watchdog);
    if status != 0 {
        return Err(match libc::WIFSIGNALED(status) {
            true => format!("killed by signal {}", libc::WTERMSIG(status)),
            false => format!("exit status {}", libc::WEXITSTATUS(status)),
        });
    }
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    let (output, line) = digest(&mut output).map_err(|e| e.to_string())?;
    Ok(Sample { wall, cpu: seconds(usage.ru_utime) + seconds(usage.ru_stime), rss: usage.ru_maxrss, output, line })
}

/// Hash and first line of a file, without the lines that say how long something took: those differ. A child's peak memory
/// starts from this process's (`setmax_mm_hiwater_rss` in `exec`), so outputs are not kept in memory.
fn digest(file: &mut File) -> io::Result<(u64, String)> {
    file.rewind()?;
    let mut file = BufReader::new(file);
    let mut hasher = DefaultHasher::new();
    let (mut line, mut first) = (Vec::new(), None);
    while file.read_until(b'\n', &mut line)? != 0 {
        if !line.windows(6).any(|w| w == b" time ") {
            hasher.write(&line);
        }
        first.get_or_insert_with(|| String::from_utf8_lossy(&line).trim_end().to_owned());
        line.clear();
    }
    Ok((hasher.finish(), first.unwrap_or_default()))
}

/// Waits for a child; its status and what it used.
fn wait(pid: i32) -> (i32, libc::rusage) {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    loop {
        // SAFETY: `pid` is our child, both pointers are to locals that are large enough.
        let got = unsafe { libc::wait4(pid, &raw mut status, 0, usage.as_mut_ptr()) };
        if got == pid || std::io::Error::last_os_error().kind() != std::io::ErrorKind::Interrupted {
            // SAFETY: all zero is a valid rusage, and so is what the kernel wrote.
            return (status, unsafe { usage.assume_init() });
        }
    }
}

/// Kills a child that takes too long.
struct Watchdog(std::sync::mpsc::Sender<()>);

impl Watchdog {
    fn start(pid: i32) -> Watchdog {
        let (done, wait) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            if wait.recv_timeout(LIMIT) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                // SAFETY: no memory is involved; the child has not been waited for, so the pid is still its own.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
        });
        Watchdog(done)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}
