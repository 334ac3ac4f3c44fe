//! From samples to tables.

use crate::measure::Sample;
use crate::programs::{Group, Program};
use crate::runner::{Kind, Runner};
use std::fmt::Write;

/// Samples by program and runner.
pub(crate) struct Results(Vec<Vec<Vec<Result<Sample, String>>>>);

/// The best of several runs.
struct Best {
    /// Seconds.
    wall: f64,
    cpu: f64,
    /// Most processor time over least, less 1.
    spread: f64,
    /// Peak memory in KiB, the most of all runs.
    rss: i64,
}

impl Results {
    pub(crate) fn new(programs: usize, runners: usize) -> Results {
        Results(vec![vec![Vec::new(); runners]; programs])
    }

    pub(crate) fn add(&mut self, program: usize, runner: usize, sample: Result<Sample, String>) {
        self.0[program][runner].push(sample);
    }

    /// Whether it has failed: then it is not run again.
    pub(crate) fn is_hopeless(&self, program: usize, runner: usize) -> bool {
        self.0[program][runner].iter().any(Result::is_err)
    }

    /// The best run, if all succeeded and printed what the first runner printed.
    fn best(&self, program: usize, runner: usize) -> Result<Best, String> {
        let samples: Vec<&Sample> =
            self.0[program][runner].iter().map(|s| s.as_ref().map_err(Clone::clone)).collect::<Result<_, _>>()?;
        if let Some(Ok(reference)) = self.0[program][0].first()
            && samples.iter().any(|s| s.output != reference.output)
        {
            return Err("wrong output".into());
        }
        let least = |f: fn(&Sample) -> f64| samples.iter().map(|s| f(s)).fold(f64::INFINITY, f64::min);
        let most = samples.iter().map(|s| s.cpu).fold(0.0, f64::max);
        let (wall, cpu) = (least(|s| s.wall), least(|s| s.cpu));
        let rss = samples.iter().map(|s| s.rss).max().unwrap_or(0);
        Ok(Best { wall, spread: most / cpu - 1.0, cpu, rss })
    }

    /// How many times the time of runner `base` runner `r` takes: processor time, for start-ups wall time.
    fn ratio(&self, program: usize, group: Group, r: usize, base: usize) -> Option<f64> {
        let (a, b) = (self.best(program, r).ok()?, self.best(program, base).ok()?);
        Some(if group == Group::Startup { a.wall / b.wall } else { a.cpu / b.cpu })
    }
}

/// What was measured with what.
pub(crate) fn machine(text: &mut String, runners: &[Runner], rounds: u32) {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    let _ = writeln!(
        text,
        "- machine: {cores} cores, Linux {}, load {load} at the start; best of {rounds}, interleaved",
        kernel.trim()
    );
    for runner in runners {
        let _ = writeln!(text, "- {}: {}", runner.name, runner.version);
    }
}

/// The tables of whole programs, in Markdown.
pub(crate) fn programs(
    text: &mut String,
    programs: &[Program],
    runners: &[Runner],
    results: &Results,
    missing: &[String],
) {
    let _ = writeln!(text, "\n## Whole programs\n");
    ratios(text, programs, runners, results);
    for line in missing {
        let _ = writeln!(text, "\nNot measured: {line}.");
    }
    let _ = writeln!(text, "\n## Times and memory\n");
    let _ = writeln!(
        text,
        "Processor time (user + system) in seconds, least (and spread to the most); least wall time; peak memory.\n"
    );
    header(text, runners.iter());
    for (p, program) in programs.iter().enumerate() {
        let _ = write!(text, "| {} |", program.name);
        for r in 0..runners.len() {
            match results.best(p, r) {
                Ok(b) => {
                    let (spread, rss) = (b.spread * 100.0, b.rss as f64 / 1024.0);
                    let _ = write!(text, " {:.3} (+{spread:.0} %), {:.3}, {rss:.0} MB |", b.cpu, b.wall);
                }
                Err(e) => {
                    let _ = write!(text, " {e} |");
                }
            }
        }
        text.push('\n');
    }
}

fn header<'a>(text: &mut String, runners: impl Iterator<Item = &'a Runner>) {
    let names: Vec<&str> = runners.map(|r| r.name.as_str()).collect();
    let _ = writeln!(text, "| program | {} |", names.join(" | "));
    let _ = writeln!(text, "|---|{}", "---|".repeat(names.len()));
}

/// Every runner's times over native's (else over Calque's), with geometric means by group.
fn ratios(text: &mut String, programs: &[Program], runners: &[Runner], results: &Results) {
    let base = runners.iter().position(|r| r.kind == Kind::Native);
    let base = base.or_else(|| runners.iter().position(|r| r.kind == Kind::Calque)).unwrap_or(0);
    let others: Vec<usize> = (0..runners.len()).filter(|r| *r != base).collect();
    let _ = writeln!(text, "Times {}: processor time, for start-ups wall time.\n", runners[base].name);
    header(text, others.iter().map(|r| &runners[*r]));
    let row = |text: &mut String, name: &str, values: &dyn Fn(usize) -> Option<f64>| {
        let cell = |r: &usize| values(*r).map_or("-".into(), |value| format!("{value:.2}"));
        let cells: Vec<String> = others.iter().map(cell).collect();
        let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
    };
    for (p, program) in programs.iter().enumerate() {
        row(text, program.name, &|r| results.ratio(p, program.group, r, base));
    }
    let mean = |r: usize, which: &dyn Fn(Group) -> bool| {
        let of = programs.iter().enumerate().filter(|(_, program)| which(program.group));
        let logs: Vec<f64> =
            of.filter_map(|(p, program)| results.ratio(p, program.group, r, base)).map(f64::ln).collect();
        (!logs.is_empty()).then(|| (logs.iter().sum::<f64>() / logs.len() as f64).exp())
    };
    for group in Group::ALL {
        row(text, &format!("**mean, {}**", group.name()), &|r| mean(r, &|g| g == group));
    }
    let whole = [Group::Integer, Group::Cpp, Group::Interpreter];
    row(text, "**mean, integer, C++ and interpreters**", &|r| mean(r, &|g| whole.contains(&g)));
    row(text, "**mean, all but start-up**", &|r| mean(r, &|g| g != Group::Startup));
}
