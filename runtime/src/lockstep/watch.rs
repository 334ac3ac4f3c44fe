//! What an agent notices while code is translated and run: instructions whose outcome is the translator's own, and the time
//! stamps that it gave out.
//!
//! A process without a controller pays one relaxed load for each translation and each time stamp.

use crate::access;
use calque_ir::GuestAddr;
use iced_x86::{Decoder, DecoderOptions, Mnemonic};
use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

static WATCHING: AtomicBool = AtomicBool::new(false);
static NOTES: Mutex<Option<Notes>> = Mutex::new(None);

#[derive(Default)]
struct Notes {
    /// Pcs that have been reported.
    known: HashSet<u64>,
    /// Pcs that have not.
    special: Vec<u64>,
    /// Time stamps and such given out.
    times: Vec<u64>,
    /// Those to give out: a replay's.
    fed: VecDeque<u64>,
}

fn notes() -> MutexGuard<'static, Option<Notes>> {
    NOTES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on notes are taken.
pub(super) fn start() {
    *notes() = Some(Notes::default());
    WATCHING.store(true, Relaxed);
}

/// Notes the special instructions of a new translation of the guest ranges `source`.
#[inline]
pub(super) fn translated(source: &[(GuestAddr, u32)]) {
    if WATCHING.load(Relaxed) {
        source.iter().for_each(|&(start, len)| look(start, len));
    }
}

#[cold]
fn look(start: GuestAddr, len: u32) {
    let mut bytes = vec![0; len as usize];
    if access::read_bytes(start, &mut bytes).is_err() {
        return;
    }
    let mut notes = notes();
    let Some(notes) = notes.as_mut() else { return };
    for insn in Decoder::with_ip(64, &bytes, start.0, DecoderOptions::NONE) {
        if is_special(insn.mnemonic()) && notes.known.insert(insn.ip()) {
            notes.special.push(insn.ip());
        }
    }
}

/// Special instructions and time stamps since the last call.
pub(super) fn take() -> (Vec<u64>, Vec<u64>) {
    let mut notes = notes();
    let Some(notes) = notes.as_mut() else { return Default::default() };
    (std::mem::take(&mut notes.special), std::mem::take(&mut notes.times))
}

/// Time stamps to give out instead of the host's.
pub(super) fn feed(times: Vec<u64>) {
    if let Some(notes) = notes().as_mut() {
        notes.fed.extend(times);
    }
}

/// The value that the guest gets where the host would give `fresh`.
#[inline]
pub(crate) fn value(fresh: impl FnOnce() -> u64) -> u64 {
    if !WATCHING.load(Relaxed) {
        return fresh();
    }
    let mut notes = notes();
    let Some(notes) = notes.as_mut() else { return fresh() };
    let value = notes.fed.pop_front().unwrap_or_else(fresh);
    notes.times.push(value);
    value
}

/// Whether only the translator can say what an instruction does: its results depend on the processor model or on time, or hold
/// bits that Calque does not keep. `docs/DIFF.md` names the rules.
pub(super) fn is_special(mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(
        mnemonic,
        // The processor model, and time.
        Cpuid | Xgetbv | Rdtsc | Rdtscp | Rdpid | Rdrand | Rdseed
        // Images with exception flags of MXCSR, x87 pointers, and components that the guest's processor does not have.
        | Stmxcsr | Vstmxcsr | Fxsave | Fxsave64 | Fxrstor | Fxrstor64 | Xsave | Xsave64 | Xsavec | Xsavec64 | Xsaveopt
        | Xsaveopt64 | Xrstor | Xrstor64 | Fnstenv | Fnsave | Fnstsw
        // Approximations, different in every processor.
        | Rcpps | Rcpss | Rsqrtps | Rsqrtss | Vrcpps | Vrcpss | Vrsqrtps | Vrsqrtss
        // Transcendental functions, exact to a bit or so.
        | Fsin | Fcos | Fsincos | Fptan | Fpatan | F2xm1 | Fyl2x | Fyl2xp1
    )
}
