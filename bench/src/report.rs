//! From samples to tables.

use crate::measure::Sample;
use crate::programs::{Group, Program};
use crate::runner::Runner;
use std::fmt::Write;

/// Samples by program and runner.
pub(crate) struct Results(Vec<Vec<Vec<Result<Sample, String>>>>);

/// The best and the worst of several runs.
struct Best {
    wall: f64,
    /// Slowest over fastest, less 1.
    spread: f64,
    cpu: f64,
    rss: i64,
}

impl Results {
    pub(crate) fn new(programs: usize, runners: usize) -> Results {
        Results(vec![vec![Vec::new(); runners]; programs])
    }

    pub(crate) fn add(&mut self, program: usize, runner: usize, sample: Result<Sample, String>) {
        self.0[program][runner].push(sample);
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
        let most = samples.iter().map(|s| s.wall).fold(0.0, f64::max);
        let wall = least(|s| s.wall);
        let rss = samples.iter().map(|s| s.rss).max().unwrap_or(0);
        Ok(Best { wall, spread: most / wall - 1.0, cpu: least(|s| s.cpu), rss })
    }
}

/// The whole report, in Markdown.
pub(crate) fn text(
    programs: &[Program],
    runners: &[Runner],
    results: &Results,
    missing: &[String],
    rounds: u32,
) -> String {
    let mut text = String::from("# Measurements\n\nWritten by `cargo xtask bench`.\n\n");
    machine(&mut text, runners, rounds);
    let _ = writeln!(text, "\n## Whole programs\n");
    let _ = writeln!(
        text,
        "Wall time in seconds, best run (spread to the slowest); processor time (user + system); peak memory.\n"
    );
    header(&mut text, runners);
    for (p, program) in programs.iter().enumerate() {
        let _ = write!(text, "| {} |", program.name);
        for r in 0..runners.len() {
            match results.best(p, r) {
                Ok(b) => {
                    let (spread, rss) = (b.spread * 100.0, b.rss as f64 / 1024.0);
                    let _ = write!(text, " {:.3} (+{spread:.0} %), {:.3}, {rss:.0} MB |", b.wall, b.cpu);
                }
                Err(e) => {
                    let _ = write!(text, " {e} |");
                }
            }
        }
        text.push('\n');
    }
    for line in missing {
        let _ = writeln!(text, "\nNot measured: {line}.");
    }
    means(&mut text, programs, runners, results);
    text
}

fn machine(text: &mut String, runners: &[Runner], rounds: u32) {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let _ = writeln!(text, "- machine: {cores} cores, Linux {}, best of {rounds}, interleaved", kernel.trim());
    for runner in runners {
        let _ = writeln!(text, "- {}: {}", runner.name, runner.version);
    }
}

fn header(text: &mut String, runners: &[Runner]) {
    let names: Vec<&str> = runners.iter().map(|r| r.name.as_str()).collect();
    let _ = writeln!(text, "| program | {} |", names.join(" | "));
    let _ = writeln!(text, "|---|{}", "---|".repeat(names.len()));
}

/// Wall times over the first runner's and over each other's, as geometric means by group.
fn means(text: &mut String, programs: &[Program], runners: &[Runner], results: &Results) {
    let Some(calque) = runners.iter().position(Runner::is_calque) else { return };
    let pairs: Vec<(usize, usize)> = (0..runners.len())
        .filter(|r| *r != calque)
        .map(|r| if runners[r].name == "native" { (calque, r) } else { (r, calque) })
        .collect();
    let _ = writeln!(text, "\n## Ratios of wall time (of processor time)\n");
    let title = |(a, b): &(usize, usize)| format!("{} / {}", runners[*a].name, runners[*b].name);
    let names: Vec<String> = pairs.iter().map(title).collect();
    let _ = writeln!(text, "| program | {} |\n|---|{}", names.join(" | "), "---|".repeat(names.len()));
    let ratio = |p: usize, (a, b): (usize, usize)| {
        let (a, b) = (results.best(p, a).ok()?, results.best(p, b).ok()?);
        Some([a.wall / b.wall, a.cpu / b.cpu])
    };
    let cell = |value: Option<[f64; 2]>| value.map_or("-".into(), |[wall, cpu]| format!("{wall:.2} ({cpu:.2})"));
    for (p, program) in programs.iter().enumerate() {
        let cells: Vec<String> = pairs.iter().map(|pair| cell(ratio(p, *pair))).collect();
        let _ = writeln!(text, "| {} | {} |", program.name, cells.join(" | "));
    }
    let mean = |pair: (usize, usize), which: &dyn Fn(Group) -> bool| {
        let of = programs.iter().enumerate().filter(|(_, program)| which(program.group));
        let logs: Vec<[f64; 2]> = of.filter_map(|(p, _)| ratio(p, pair)).map(|r| r.map(f64::ln)).collect();
        let mean = |i: usize| (logs.iter().map(|l| l[i]).sum::<f64>() / logs.len() as f64).exp();
        (!logs.is_empty()).then(|| [mean(0), mean(1)])
    };
    let mut row = |name: &str, which: &dyn Fn(Group) -> bool| {
        let cells: Vec<String> = pairs.iter().map(|pair| cell(mean(*pair, which))).collect();
        let _ = writeln!(text, "| **{name}** | {} |", cells.join(" | "));
    };
    for group in Group::ALL {
        row(&format!("mean, {}", group.name()), &|g| g == group);
    }
    row("mean, all but start-up", &|g| g != Group::Startup);
}
