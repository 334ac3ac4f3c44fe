//! `calque difftest insn`: random instructions on this machine's processor and in Calque's engines.

use crate::args::{Difftest, DifftestArgs};
use std::process::ExitCode;

/// Runs the comparison; the exit status says whether all is well.
#[cfg(target_arch = "x86_64")]
pub(crate) fn difftest(args: &DifftestArgs) -> ExitCode {
    let Difftest::Insn(args) = &args.what;
    insn::run(args)
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn difftest(args: &DifftestArgs) -> ExitCode {
    let Difftest::Insn(args) = &args.what;
    let what =
        format!("`difftest insn --rows {}` compares with an x86-64 processor, and this machine has none", args.rows);
    crate::refuse(&what, 2)
}

#[cfg(target_arch = "x86_64")]
mod insn {
    use crate::args::InsnArgs;
    use calque_difftest::campaign::{self, Failure, Plan, Summary};
    use calque_difftest::guest::Engine;
    use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
    use std::process::ExitCode;

    /// States for each instruction and for each sequence, unless the command line says.
    const STATES: [u8; 2] = [32, 8];

    pub(super) fn run(args: &InsnArgs) -> ExitCode {
        let mut rows = campaign::singles(|name| matches(&args.rows.to_lowercase(), name));
        if rows.is_empty() {
            return crate::refuse(&format!("no instruction that can be compared is called '{}'", args.rows), 2);
        }
        if args.sequences {
            rows = vec![campaign::sequences(rows)];
        }
        let engines: Vec<Engine> = args.engine.iter().filter_map(|name| Engine::from_name(name)).collect();
        let plan = Plan {
            rows,
            seed: args.seed,
            count: args.count,
            states: usize::from(args.states.unwrap_or(STATES[usize::from(args.sequences)])),
            engines: if engines.is_empty() { Engine::ALL.to_vec() } else { engines },
            only: args.index,
        };
        if args.print {
            campaign::lines(&plan, |line| println!("{line}"));
            return ExitCode::SUCCESS;
        }
        let bar = progress_bar(if args.index.is_some() { 0 } else { args.count });
        let mut shown = 0;
        let summary = campaign::run(&plan, |done| {
            // Drawing costs more than a case.
            if done >= shown + 4096 {
                shown = done;
                bar.set_position(done);
            }
        });
        bar.finish_and_clear();
        report(args, &plan, &summary)
    }

    fn progress_bar(count: u64) -> ProgressBar {
        let bar = if count == 0 { ProgressBar::hidden() } else { ProgressBar::new(count) };
        let style = ProgressStyle::with_template("{wide_bar} {human_pos} of {human_len} cases, {per_sec}, {eta} left");
        bar.set_style(style.expect("a template"));
        bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(4));
        bar
    }

    fn report(args: &InsnArgs, plan: &Plan, summary: &Summary) -> ExitCode {
        for failure in &summary.failures {
            println!("{}, case {}\n{}", failure.row, failure.index, failure.report);
            println!("case: {}", failure.line);
            println!("reproduce: {}\n", command(args, failure));
        }
        let names: Vec<&str> = plan.engines.iter().map(|e| e.name()).collect();
        let seconds = summary.elapsed.as_secs_f64();
        println!(
            "{} rows, {} cases, seed {}, engines {}: {} in {seconds:.1} s ({:.0} a second)",
            plan.rows.len(),
            summary.cases,
            plan.seed,
            names.join(" "),
            verdict(summary),
            summary.cases as f64 / seconds
        );
        if summary.unimplemented > 0 {
            println!("{} cases are not implemented", summary.unimplemented);
        }
        ExitCode::from(u8::from(!summary.differ.is_empty()))
    }

    fn verdict(summary: &Summary) -> String {
        if summary.differ.is_empty() {
            return "no differences".into();
        }
        let rows: Vec<String> = summary.differ.iter().map(|(name, count)| format!("{name} {count}")).collect();
        let cases: u64 = summary.differ.iter().map(|(_, count)| count).sum();
        format!("{cases} cases differ ({})", rows.join(", "))
    }

    /// The command that runs this case alone.
    fn command(args: &InsnArgs, failure: &Failure) -> String {
        let mut words = vec!["calque difftest insn".to_owned()];
        // Sequences are made of all chosen rows, a single instruction of its own.
        let rows = if args.sequences { &args.rows } else { &failure.row };
        if rows != "*" {
            words.push(format!("--rows '{rows}'"));
        }
        if args.sequences {
            words.push("--sequences".into());
        }
        words.extend(args.states.map(|n| format!("--states {n}")));
        words.extend(args.engine.iter().map(|name| format!("--engine {name}")));
        words.push(format!("--seed {} --index {}", args.seed, failure.index));
        words.join(" ")
    }

    /// Whether a name matches a pattern of `*`, `?` and characters.
    fn matches(pattern: &str, name: &str) -> bool {
        match (pattern.chars().next(), name.chars().next()) {
            (None, None) => true,
            (Some('*'), first) => {
                matches(&pattern[1..], name) || first.is_some_and(|c| matches(pattern, &name[c.len_utf8()..]))
            }
            (Some('?'), Some(c)) => matches(&pattern[1..], &name[c.len_utf8()..]),
            (Some(p), Some(c)) if p == c => matches(&pattern[p.len_utf8()..], &name[c.len_utf8()..]),
            _ => false,
        }
    }

    #[cfg(test)]
    mod tests {
        use super::matches;

        #[test]
        fn patterns() {
            assert!(matches("*", "add") && matches("add", "add") && matches("v*ps", "vaddps") && matches("?dd", "add"));
            assert!(!matches("add", "addps") && !matches("v*ps", "vaddpd") && !matches("?", ""));
        }
    }
}
