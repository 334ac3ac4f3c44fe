//! Guest signals.
//!
//! What the dispatcher asks of this module (all on the guest thread's own host thread):
//! - `install_host_handlers(&Arc<Process>)`, once, before the first guest instruction;
//! - `deliver_pending(&mut Thread, Option<Restart>)` at safepoints when `cpu.rt.interrupt` is set, and after a system
//!   call that came back `Outcome::Interrupted`: clears the word, pushes frames, restarts or fails the call;
//! - `raise(&mut Thread, GuestFault)`: a synchronous exception of the instruction at RIP.
//!
//! Host SIGSEGV, SIGBUS, SIGFPE, SIGILL handlers ask `crate::fault::classify` first.

/// Dispositions of the process.
#[derive(Default)]
pub struct SignalActions {}

/// Signal state of one thread.
#[derive(Default)]
pub struct ThreadSignals {}
