//! Many cases against the processor: which ones, in what order, and what came of them.
//!
//! A *batch* is one piece of random code with [`Plan::states`] random states: the processor answers it in one round trip and
//! each engine translates it once. Batch `k` of a row is a function of the seed, the row's name and `k`, whatever other
//! rows run, so that a case is found again by (seed, row, index), index being `k * states` and its place in the batch.

use crate::compare::{Report, Side, compare};
use crate::generate::Generator;
use crate::guest::{AtFaults, Engine, Guest, Outcome};
use crate::native::{Answer, BATCH, Native};
use crate::pages::CODE;
use crate::{Case, End, copy, line};
use calque_ir::CpuState;
use iced_x86::{Code, Decoder, DecoderOptions};
use std::time::{Duration, Instant};

/// Rows that are shown in full.
const REPORTS: usize = 5;

/// What a row makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Single instructions.
    Single,
    /// 2 to 20 instructions and more, with branches and loops.
    Sequence,
}

/// A source of cases.
pub struct Row {
    /// Of the mnemonic, or `sequence`.
    pub name: String,
    pub kind: Kind,
    /// Encodings to choose from.
    pub codes: Vec<Code>,
}

/// What to run.
pub struct Plan {
    pub rows: Vec<Row>,
    pub seed: u64,
    /// Cases in all, spread evenly over the rows.
    pub count: u64,
    /// States for each piece of code, up to [`BATCH`].
    pub states: usize,
    pub engines: Vec<Engine>,
    /// Only this case of every row.
    pub only: Option<u64>,
}

/// A case that differs.
pub struct Failure {
    pub row: String,
    pub index: u64,
    pub report: Report,
    /// The case as a line of `tests/insn/*.case`.
    pub line: String,
}

/// How a campaign went.
#[derive(Default)]
pub struct Summary {
    /// Cases that ran on the processor and in every engine.
    pub cases: u64,
    /// Cases that an engine does not implement.
    pub unimplemented: u64,
    /// The first failures, one a row.
    pub failures: Vec<Failure>,
    /// Rows with failures, and how many.
    pub differ: Vec<(String, u64)>,
    pub elapsed: Duration,
}

/// Rows of single instructions whose name matches.
pub fn singles(matches: impl Fn(&str) -> bool) -> Vec<Row> {
    let named = crate::subjects().into_iter().map(|(m, codes)| (format!("{m:?}").to_lowercase(), codes));
    let rows = named.map(|(name, codes)| Row { name, kind: Kind::Single, codes });
    rows.filter(|row| matches(&row.name)).collect()
}

/// The row of sequences of these instructions.
pub fn sequences(singles: Vec<Row>) -> Row {
    let codes = singles.into_iter().flat_map(|row| row.codes).collect();
    Row { name: "sequence".into(), kind: Kind::Sequence, codes }
}

/// A piece of code with what it runs on.
struct Batch {
    code: Vec<u8>,
    /// Number of the memory's contents: `Generator::data_of`.
    data_seed: u64,
    states: Vec<CpuState>,
}

impl Row {
    /// Batch `k`. `None` if the encodings make no code that can be tested.
    fn batch(&self, seed: u64, k: u64, states: usize) -> Option<Batch> {
        // FNV-1a over the name: the same on every host and for all time.
        let name =
            self.name.bytes().fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        let mix = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ k.wrapping_mul(0xd134_2543_de82_ef95);
        let data_seed = name ^ mix;
        let mut g = Generator::new(data_seed.rotate_left(32));
        let code = match self.kind {
            Kind::Single => (0..50).find_map(|_| crate::single(&mut g, &self.codes))?,
            Kind::Sequence => match k % 4 {
                0 => crate::looped(&mut g, &self.codes, 1 + (k / 4 % 4) as usize),
                1 => crate::sequence(&mut g, &self.codes, 2 + (k / 4 % 19) as usize),
                _ => crate::sequence(&mut g, &self.codes, 2 + (k / 4 % 4) as usize),
            },
        };
        let insns: Vec<_> = Decoder::with_ip(64, &code, CODE, DecoderOptions::NONE).into_iter().collect();
        let rounds = |cpu: &mut CpuState| cpu.gpr[15] = cpu.gpr[15] & !0xffff_ffff | (1 + cpu.gpr[14] % 5);
        let state = |_| {
            let mut cpu = g.state_for(&insns);
            if self.kind == Kind::Sequence && k.is_multiple_of(4) {
                rounds(&mut cpu);
            }
            cpu
        };
        let states = (0..states).map(state).collect();
        Some(Batch { code, data_seed, states })
    }
}

/// Engines and the processor at work on a plan.
struct Run<'a> {
    plan: &'a Plan,
    native: Native,
    guest: Guest,
    /// Memory for the two sides of a comparison.
    expected: Vec<u8>,
    got: Vec<u8>,
    summary: Summary,
}

/// Runs the plan; `progress` hears how many cases are done.
pub fn run(plan: &Plan, mut progress: impl FnMut(u64)) -> Summary {
    let start = Instant::now();
    let (expected, got) = (Vec::new(), Vec::new());
    let (native, guest) = (Native::take(), Guest::new());
    let mut run = Run { plan, native, guest, expected, got, summary: Summary::default() };
    let mut rows: Vec<&Row> = plan.rows.iter().collect();
    let states = plan.states.clamp(1, BATCH) as u64;
    let (mut k, mut asked) = (plan.only.map_or(0, |index| index / states), 0);
    while !rows.is_empty() && asked < plan.count {
        let share = (plan.count - asked).div_ceil(rows.len() as u64).min(states);
        rows.retain(|row| {
            let wanted = share.min(plan.count - asked);
            if wanted == 0 {
                return true;
            }
            let some = run.batch(row, k, wanted as usize);
            asked += if some { wanted } else { 0 };
            progress(asked);
            some
        });
        if plan.only.is_some() {
            break;
        }
        k += 1;
    }
    run.summary.elapsed = start.elapsed();
    run.summary
}

impl Run<'_> {
    /// Runs `wanted` cases of batch `k` of a row; whether there was one.
    fn batch(&mut self, row: &Row, k: u64, wanted: usize) -> bool {
        let states = self.plan.states.clamp(1, BATCH);
        let Some(Batch { code, data_seed, states }) = row.batch(self.plan.seed, k, states) else { return false };
        let data = Generator::data_of(data_seed);
        let index = |n: usize| k * states.len() as u64 + n as u64;
        let chosen: Vec<usize> = match self.plan.only {
            Some(only) => vec![(only % states.len() as u64) as usize],
            None => (0..wanted).collect(),
        };
        let befores: Vec<CpuState> = chosen.iter().map(|n| copy(&states[*n])).collect();
        let answers = self.native.run(&code, &data, &befores);
        let mut case = Case { code, cpu: CpuState::new(), data };
        match answers {
            Ok(answers) => {
                for (n, answer) in chosen.into_iter().zip(answers) {
                    case.cpu.copy_guest_from(&states[n]);
                    self.summary.cases += 1;
                    match self.check(&case, &answer).or_else(|report| self.check_again(&case, report)) {
                        Ok(true) => {}
                        Ok(false) => self.summary.unimplemented += 1,
                        Err(report) => {
                            let line = line::of_case(&case, data_seed, Some(&answer));
                            self.failed(row, index(n), report, line);
                        }
                    }
                }
            }
            Err(died) => {
                let n = chosen[died.index.min(chosen.len() - 1)];
                case.cpu.copy_guest_from(&states[n]);
                let report = Report::of_text(&case, &died.to_string());
                self.failed(row, index(n), report, line::of_case(&case, data_seed, None));
            }
        }
        true
    }

    /// Runs a case on every engine; yields the first difference. `false` if an engine does not implement the code.
    fn check(&mut self, case: &Case, answer: &Answer) -> Result<bool, Report> {
        self.expected.clear();
        self.expected.extend_from_slice(&case.data);
        answer.apply(&mut self.expected);
        let outcome = Outcome::Ended(answer.end);
        for &engine in &self.plan.engines {
            if engine.at_faults() == AtFaults::OnlyPc && matches!(answer.end, End::Signal { .. }) {
                continue; // nobody asked it for its registers
            }
            let mut cpu = copy(&case.cpu);
            self.got.clear();
            self.got.extend_from_slice(&case.data);
            let got = self.guest.run(engine, self.native.pages(), &case.code, &mut cpu, &mut self.got);
            if got == Outcome::Unimplemented {
                return Ok(false);
            }
            let expected = Side { cpu: &answer.cpu, data: &self.expected, outcome: &outcome };
            let got = Side { cpu: &cpu, data: &self.got, outcome: &got };
            compare(case, engine, answer.end, &expected, &got)?;
        }
        Ok(true)
    }

    /// Asks the processor a second time: when another process has run on it in the middle of a case, it has forgotten where the last x87
    /// instruction lay (the kernel's XSAVE stores that only while an exception is pending).
    fn check_again(&mut self, case: &Case, report: Report) -> Result<bool, Report> {
        match self.native.run(&case.code, &case.data, std::slice::from_ref(&case.cpu)) {
            Ok(answers) => answers.iter().try_fold(true, |_, answer| self.check(case, answer)),
            Err(_) => Err(report),
        }
    }

    fn failed(&mut self, row: &Row, index: u64, report: Report, line: String) {
        match self.summary.differ.iter_mut().find(|(name, _)| *name == row.name) {
            Some((_, count)) => *count += 1,
            None => {
                self.summary.differ.push((row.name.clone(), 1));
                if self.summary.failures.len() < REPORTS {
                    self.summary.failures.push(Failure { row: row.name.clone(), index, report, line });
                }
            }
        }
    }
}

/// Makes the plan's cases into lines of `tests/insn/*.case`, with the processor's answers.
pub fn lines(plan: &Plan, mut line: impl FnMut(String)) {
    let mut native = Native::take();
    let states = plan.states.clamp(1, BATCH);
    for row in &plan.rows {
        for k in 0..(plan.count / plan.rows.len() as u64).div_ceil(states as u64) {
            let Some(Batch { code, data_seed, states }) = row.batch(plan.seed, k, states) else { break };
            let data = Generator::data_of(data_seed);
            let Ok(answers) = native.run(&code, &data, &states) else { continue };
            let mut case = Case { code, cpu: CpuState::new(), data };
            for (cpu, answer) in states.iter().zip(answers) {
                case.cpu.copy_guest_from(cpu);
                line(line::of_case(&case, data_seed, Some(&answer)));
            }
        }
    }
}
