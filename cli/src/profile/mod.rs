//! `calque profile`: runs a program and writes down what it has executed.
//!
//! | file           | what                                                  |
//! |----------------|-------------------------------------------------------|
//! | `names.rs`     | demangled functions, source lines, inlined functions  |
//! | `sums.rs`      | instructions by function, line and block              |
//! | `summary.rs`   | the text on the terminal                              |
//! | `callgrind.rs` | `callgrind.out`                                       |
//! | `stacks.rs`    | folded stacks, flame graphs                           |
//! | `json.rs`      | everything, for programs                              |
//!
//! The runtime calls [`write`] once in a process, when it ends; each process of the guest's makes a file of its own.

mod callgrind;
mod json;
mod names;
mod stacks;
mod summary;
mod sums;

use crate::args::ProfileArgs;
use crate::{refuse, run};
use calque_runtime::hidden;
use calque_runtime::profile::report::Report;
use calque_runtime::profile::{self as runtime, Ends, ProfileOptions, Registers, Wanted};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::OnceLock;
use sums::Sums;

/// A form that a profile can have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    Summary,
    Callgrind,
    Folded,
    Svg,
    Json,
}

impl Format {
    pub(crate) const ALL: [Format; 5] = [Format::Summary, Format::Callgrind, Format::Folded, Format::Svg, Format::Json];

    /// The name that `--format` takes.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Format::Summary => "summary",
            Format::Callgrind => "callgrind",
            Format::Folded => "folded",
            Format::Svg => "svg",
            Format::Json => "json",
        }
    }

    /// What a file name asks for.
    fn of(path: &Path) -> Option<Format> {
        let name = path.file_name()?.to_string_lossy().into_owned();
        let extension = path.extension().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("callgrind.out") || extension == "callgrind" {
            return Some(Format::Callgrind);
        }
        match &*extension {
            "svg" => Some(Format::Svg),
            "json" => Some(Format::Json),
            "folded" => Some(Format::Folded),
            "txt" => Some(Format::Summary),
            _ => None,
        }
    }
}

/// What to write, and where.
struct Plan {
    format: Format,
    /// Absolute; none: standard error.
    output: Option<PathBuf>,
    /// Where processes add up their instructions, with `--count`.
    totals: Option<PathBuf>,
    /// Calque's own standard error, which the guest may have closed by then.
    stderr: File,
}

static PLAN: OnceLock<Plan> = OnceLock::new();

/// Runs the program; comes back only if it cannot be started.
pub(crate) fn profile(args: &ProfileArgs) -> ExitCode {
    let plan = match Plan::new(args) {
        Ok(plan) => plan,
        Err(message) => return refuse(&message, 2),
    };
    let options = ProfileOptions {
        arguments: plan.arguments(),
        registers: if args.narrow { Registers::WithoutAvx512 } else { Registers::All },
        root: args.root.unwrap_or(std::process::id()),
        images: args.image.unwrap_or(0),
        wanted: if plan.totals.is_some() { Wanted::Total } else { Wanted::Everything },
    };
    if PLAN.set(plan).is_err() {
        unreachable!("one command in a process");
    }
    runtime::set_writer(write);
    run::run(&args.run, Some(options))
}

impl Plan {
    fn new(args: &ProfileArgs) -> Result<Plan, String> {
        let by_name = args.output.as_deref().and_then(Format::of);
        let format = match (args.format, by_name, &args.output) {
            (Some(format), ..) | (None, Some(format), _) => format,
            (None, None, None) => Format::Summary,
            (None, None, Some(_)) if args.count => Format::Summary,
            (None, None, Some(path)) => {
                return Err(format!("--format says what {} is to hold: its name does not", path.display()));
            }
        };
        let output = match (&args.output, format) {
            (Some(path), _) => Some(std::path::absolute(path).map_err(|e| format!("{}: {e}", path.display()))?),
            (None, Format::Summary) => None,
            (None, _) => return Err(format!("--format {} needs a file: -o FILE", format.name())),
        };
        if let Some(path) = &output {
            let dir = path.parent().unwrap_or(Path::new("/"));
            if !dir.is_dir() {
                return Err(format!("{} is no directory to write to", dir.display()));
            }
        }
        let totals = match &args.totals {
            Some(path) => Some(path.clone()),
            None if args.count => Some(new_totals().map_err(|e| format!("--count: {e}"))?),
            None => None,
        };
        let stderr = hidden::hide(io::stderr()).map_err(|e| format!("standard error: {e}"))?;
        Ok(Plan { format, output, totals, stderr: File::from(stderr) })
    }

    /// The arguments that give the same plan.
    fn arguments(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = vec![format!("--format={}", self.format.name()).into()];
        if let Some(path) = &self.output {
            args.extend(["-o".into(), path.into()]);
        }
        if let Some(path) = &self.totals {
            args.extend(["--count".into(), "--totals".into(), path.into()]);
        }
        args
    }

    fn write(&self, report: &Report, options: &ProfileOptions) -> Result<(), String> {
        let path = self.output.as_ref().map(|path| file_of(path, self.format, report, options));
        let text = match &self.totals {
            Some(totals) => match add_up(totals, report, options) {
                Ok(Some(total)) => format!("{total}\n"),
                Ok(None) => return Ok(()),
                Err(e) => return Err(format!("{}: {e}", totals.display())),
            },
            None => self.text(report)?,
        };
        match path {
            None => {
                // Nobody is left to hear of an error.
                let _ = (&self.stderr).write_all(text.as_bytes());
                Ok(())
            }
            Some(path) => fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display())),
        }
    }

    fn text(&self, report: &Report) -> Result<String, String> {
        let sums = Sums::of(report);
        match self.format {
            Format::Summary => Ok(summary::text(report, &sums)),
            Format::Callgrind => Ok(callgrind::text(report, &sums)),
            Format::Folded => Ok(stacks::folded(report, &sums)),
            Format::Svg => stacks::svg(report, &sums),
            Format::Json => Ok(json::text(report, &sums)),
        }
    }
}

/// The process ends, or executes another program.
fn write(report: &Report, options: &ProfileOptions) {
    let Some(plan) = PLAN.get() else { return };
    if let Err(message) = plan.write(report, options) {
        let _ = writeln!(&plan.stderr, "calque: the profile cannot be written: {message}");
    }
}

/// The file for a process: the name that was asked for belongs to the program that was asked for, or the last one that it became by `execve`;
/// its children and what they have been before have their process id in the name.
fn file_of(path: &Path, format: Format, report: &Report, options: &ProfileOptions) -> PathBuf {
    let mark = match (report.ended, options.is_root(report)) {
        (Some(Ends::Executes), _) => format!("{}-{}", report.pid, options.images),
        (_, true) => return path.to_owned(),
        (_, false) => report.pid.to_string(),
    };
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    match path.extension() {
        // Tools look for `callgrind.out.*`.
        Some(extension) if format != Format::Callgrind => {
            name.push(format!(".{mark}."));
            name.push(extension);
        }
        _ => {
            name = path.file_name().unwrap_or_default().to_owned();
            name.push(format!(".{mark}"));
        }
    }
    path.with_file_name(name)
}

/// A file in which processes add up their totals.
fn new_totals() -> io::Result<PathBuf> {
    let path = std::env::temp_dir().join(format!("calque-count-{}", std::process::id()));
    // A file that is there already was left behind by a process that was killed.
    File::create(&path)?;
    Ok(path)
}

/// Adds the total of this process; for the one that was asked for, the sum of all that have ended by now.
fn add_up(totals: &Path, report: &Report, options: &ProfileOptions) -> io::Result<Option<u64>> {
    let mut file = File::options().append(true).open(totals)?;
    file.write_all(&report.total.to_le_bytes())?;
    if !options.is_root(report) || report.ended == Some(Ends::Executes) {
        return Ok(None);
    }
    let bytes = fs::read(totals)?;
    fs::remove_file(totals)?;
    let (words, _) = bytes.as_chunks::<8>();
    Ok(Some(words.iter().map(|word| u64::from_le_bytes(*word)).sum()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(root: u32, images: u32) -> ProfileOptions {
        let (wanted, registers) = (Wanted::Everything, Registers::All);
        ProfileOptions { arguments: Vec::new(), root, images, wanted, registers }
    }

    #[test]
    fn names_ask_for_formats() {
        let format = |name: &str| Format::of(Path::new(name)).map(Format::name);
        assert_eq!(format("x.svg"), Some("svg"));
        assert_eq!(format("dir/x.json"), Some("json"));
        assert_eq!(format("stacks.folded"), Some("folded"));
        assert_eq!(format("callgrind.out"), Some("callgrind"));
        assert_eq!(format("callgrind.out.7"), Some("callgrind"));
        assert_eq!(format("out"), None);
    }

    #[test]
    fn each_process_has_a_file() {
        let file = |path: &str, format, ended, root| {
            let report = Report { pid: 7, ended: Some(ended), ..Report::default() };
            file_of(Path::new(path), format, &report, &options(root, 2)).to_string_lossy().into_owned()
        };
        assert_eq!(file("/d/x.svg", Format::Svg, Ends::Exits(0), 7), "/d/x.svg");
        assert_eq!(file("/d/x.svg", Format::Svg, Ends::Exits(0), 5), "/d/x.7.svg");
        assert_eq!(file("/d/x.svg", Format::Svg, Ends::Executes, 7), "/d/x.7-2.svg");
        assert_eq!(file("/callgrind.out", Format::Callgrind, Ends::Exits(0), 5), "/callgrind.out.7");
        assert_eq!(file("/d/x", Format::Json, Ends::Exits(0), 5), "/d/x.7");
    }
}
