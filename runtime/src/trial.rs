//! Whether a region beside emitted code (`cold.rs`) is worth compiling: what it is made of, and whether threads would stay in it.
//!
//! Emitted regions run as well as Cranelift's where they compute with scalars and vectors of 128 bits (bench/COUNTS.md), and cost a thirtieth to
//! make. They keep the upper halves of wider vectors in memory, and call more helpers. On hosts without FEAT_AFP they look at each floating-point
//! result whether it is a NaN, where Cranelift's look at the last of a chain. So only regions with enough of that are candidates
//! ([`is_candidate`]).
//!
//! Emitted code and regions keep guest registers in different places, so each way from one to the other moves all of them, some fifty
//! instructions; and compiling costs as much as running the region's code some ten thousand times. A loop that goes round for long pays for both, a
//! function or a loop of a few rounds that is called often from elsewhere does not. What is hot is told from how often it is arrived at, which says
//! nothing of that. So a hot place is first put on trial: the thread's next countdowns are short, and if several in a row end inside the code of the
//! region, that is compiled. Where in a stay the trial begins is chance, so it goes on for a while: each thread that stays for as long as [`RUN`] countdowns
//! and one more, and is away for less than the others, passes. If there is no such run, the place has to get hot again, for several times as long.

use crate::tier::Entry;
use calque_backend::{Emitter, HostIsa};
use calque_ir::helper::HelperEffect;
use calque_ir::reg::RegKind;
use calque_ir::{GuestAddr, Helper, Inst, Op, Reg, Region};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Countdowns of a trial.
const COUNTDOWNS: usize = 20;

/// So many of them must end inside, one behind the other. A thread that comes by often, and spends a fifth of its time in the region, passes one
/// of two hundred trials by chance.
const RUN: usize = 5;

/// Backward jumps, calls and returns of each: more than a loop of few rounds has; no multiple of what goes on in a loop's round.
pub(crate) const PERIOD: u32 = 11;

/// log2 of how much more often than for the last one a place must be arrived at for its next trial.
const PATIENCE_SHIFT: u32 = 3;

/// Most of a region lies so near its start, in bytes: to lift one takes a thousand times as long as to ask that first.
const NEAR: u64 = 4096;

/// Guest instructions of a candidate for each that Cranelift has better code for, at most.
const SHARE: u32 = 8;

/// Whether Cranelift's code for a region can be expected to run faster than what is emitted for `host`.
pub(crate) fn is_candidate(region: &Region, host: &HostIsa) -> bool {
    let keeps_nans = host.has("afp");
    // What instructions of 128 bits put into the upper halves is zero, a constant.
    let is_constant = |inst: &Inst| region.insts[inst.args[0] as usize].op == Op::Vconst;
    let is_half = |reg: Reg| matches!(reg.kind(), RegKind::YmmHi(_));
    let gains = |inst: &&Inst| match inst.op {
        Op::Put => Reg::from_index(inst.aux as usize).is_some_and(is_half) && !is_constant(inst),
        Op::Call => {
            let helper = Helper::from_code(inst.aux);
            helper.effect() == HelperEffect::Pure && helper.ret().is_vector() && !Emitter::has_code_for(host, helper)
        }
        Op::Fadd | Op::Fsub | Op::Fmul | Op::Fdiv | Op::Sqrt => !keeps_nans,
        Op::Fmadd | Op::Fmsub | Op::Fnmadd | Op::Fnmsub => !keeps_nans,
        _ => false,
    };
    region.insts.iter().filter(gains).count() as u32 >= region.guest_insns.div_ceil(SHARE).max(1)
}

/// Arrivals after which a place goes on trial that has failed so many trials, where the first takes `hot` ones.
pub(crate) fn threshold(hot: u32, failed: u8) -> u32 {
    hot.saturating_mul(1u32.checked_shl(PATIENCE_SHIFT * u32::from(failed)).unwrap_or(u32::MAX))
}

/// A place on trial, and where the countdowns have ended so far.
pub(crate) struct Trial {
    entry: Arc<Entry>,
    arrivals: Vec<GuestAddr>,
}

impl Trial {
    pub(crate) fn new(entry: &Arc<Entry>) -> Trial {
        Trial { entry: Arc::clone(entry), arrivals: Vec::with_capacity(COUNTDOWNS) }
    }

    /// Notes that a countdown has ended where the thread arrives at `pc`, and whether that was the last.
    pub(crate) fn arrived(mut self, pc: GuestAddr) -> ControlFlow<Trial, Trial> {
        self.arrivals.push(pc);
        if self.arrivals.len() < COUNTDOWNS { ControlFlow::Continue(self) } else { ControlFlow::Break(self) }
    }

    /// The place.
    pub(crate) fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }

    /// Whether the thread has stayed in the region that `lift` makes for the place.
    pub(crate) fn stayed(&self, lift: impl FnOnce(GuestAddr) -> Region) -> bool {
        let near = |pc: &GuestAddr| pc.0.abs_diff(self.entry.pc.0) < NEAR;
        if !self.has_run(RUN.div_ceil(2), near) {
            return false;
        }
        let source = lift(self.entry.pc).source;
        self.has_run(RUN, |pc| source.iter().any(|(start, len)| pc.0.wrapping_sub(start.0) < u64::from(*len)))
    }

    /// Whether of so many countdowns in a row as must end inside, `enough` have ended where `is_inside` says.
    fn has_run(&self, enough: usize, is_inside: impl Fn(&GuestAddr) -> bool) -> bool {
        self.arrivals.windows(RUN).any(|run| run.iter().filter(|pc| is_inside(pc)).count() >= enough)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a trial of 0x1000 ends well, and whether its region was lifted for that; one that goes on elsewhere.
    fn verdict(arrivals: &[u64]) -> (bool, bool) {
        let new = Trial::new(&Arc::new(Entry::new(GuestAddr(0x1000))));
        let all = arrivals.iter().copied().chain(std::iter::repeat(0x9_0000)).take(COUNTDOWNS);
        let ended = all.into_iter().try_fold(new, |trial, pc| trial.arrived(GuestAddr(pc)));
        let ControlFlow::Break(trial) = ended else { panic!("{COUNTDOWNS} countdowns are a trial") };
        let mut lifted = false;
        let stayed = trial.stayed(|pc| {
            lifted = true;
            Region { source: [(pc, 0x20), (GuestAddr(0x9000), 8)].into_iter().collect(), ..Region::default() }
        });
        (stayed, lifted)
    }

    #[test]
    fn several_countdowns_in_a_row_must_end_inside() {
        assert_eq!(verdict(&[0x1000, 0x9007, 0x1008, 0x9000, 0x101f]), (true, true));
        assert_eq!(verdict(&[0x1000, 0x1004, 0x1008, 0xfff, 0x1000, 0x1004, 0x1008, 0x100c, 0x1000]), (true, true));
        assert_eq!(verdict(&[0x1000, 0x1004, 0x1008, 0x100c, 0x1020, 0x1000]), (false, true));
        assert_eq!(
            verdict(&[0x1000, 0x1004, 0x9008, 0x9000, 0x9000]),
            (false, false),
            "too far away to be worth lifting"
        );
        assert_eq!(verdict(&[0x1000; COUNTDOWNS]), (true, true));
    }

    #[test]
    fn candidates_are_made_of_wide_vectors_and_helpers_and_unlike_nans() {
        let region = |ops: &str| {
            let text = format!("block0 @0x10:\n  insn 0x10 1\n{ops}  goto 0x11\n");
            calque_ir::parse::parse_region(&text).unwrap_or_else(|e| panic!("{e}"))
        };
        let scalar = "  v1 = get.i64 rax\n  put.i64 rbx, v1\n";
        let wide = "  v1 = get.v128 ymmh0\n  put.v128 ymmh1, v1\n";
        let cleared = "  v1 = vconst.v128 0x0000000000000000_0000000000000000\n  put.v128 ymmh1, v1\n";
        let float = "  v1 = get.f64 xmm0\n  v2 = fmul.f64 v1, v1\n  put.f64 xmm0, v2\n";
        let call = |helper| format!("  v1 = get.v128 xmm0\n  v2 = call.v128 {helper}(v1, v1)\n  put.v128 xmm0, v2\n");
        let regions = [scalar, wide, cleared, float, &call("aesenc"), &call("mpsadbw")];
        let candidates = |host| regions.map(|ops| is_candidate(&region(ops), &HostIsa::parse(host).expect("a host")));
        assert_eq!(candidates("aarch64-v8.7"), [false, true, false, false, true, true]);
        assert_eq!(candidates("aarch64"), [false, true, false, true, false, true]);
    }

    #[test]
    fn failures_make_places_wait() {
        assert_eq!([0, 1, 2, 200].map(|failed| threshold(2000, failed)), [2000, 16000, 128_000, u32::MAX]);
    }
}
