//! Guest signals: what a guest installs, blocks, receives and returns from, with Linux's semantics.
//!
//! # Approach
//! The host kernel does the queueing and the routing; Calque only runs the handlers.
//!
//! - **The host's state mirrors the guest's.** Where the guest ignores a signal or leaves it to its default, so does the host
//!   process: the kernel itself stops, continues, kills and dumps core. Where the guest has a handler, the host has
//!   ours ([`host`]). A host thread's signal mask is its guest thread's, so process-directed signals
//!   go to a thread that takes them, `sigpending` is the kernel's, and `execve` hands on the right state.
//! - **Host handlers only record.** The record goes to the thread's [`Inbox`](host::Inbox) and the interrupt word in
//!   `CpuState` is set; on its way back the handler leaves the thread with *every* asynchronous signal blocked. So there is at most one
//!   signal on its way to the guest, and order, merging and queueing of all the others stay with the kernel.
//! - **Guest handlers run at safepoints** ([`deliver_pending`]), where the guest's registers are exact: the frame is built
//!   (`frame.rs`) and the host mask becomes the handler's. What cannot be delivered after all (the mask changed in between) is
//!   handed back to the kernel with its `siginfo` as it was.
//! - **"Arrives" against "blocks"**: a system call that may sleep is made by [`Thread::host_syscall`], whose check of
//!   the interrupt word and call instruction are a *window* that the host handler can rewind (`arch/`). Nothing else needs a
//!   table of restartable calls: the host handler carries the guest's `SA_RESTART`, so the kernel decides. It either returns EINTR,
//!   which is the guest's result, or goes back to the call instruction, which the handler sees as "not begun": [`NOT_STARTED`].
//!
//! Synchronous signals ([`SYNCHRONOUS`]) are different: Calque itself needs them (write-protected code pages, guarded
//! accesses), so they are never blocked on the host and always have our handler. What `kill` sends of them while the guest
//! blocks them waits in `ThreadSignals::held`.
//!
//! # What others call
//! - [`install_host_handlers`] once, before the first guest instruction; [`attach`] where a host thread begins to run a
//!   guest thread.
//! - [`deliver_pending`] at safepoints when the interrupt word is set; [`restart_call`] after `Outcome::Interrupted`.
//! - [`raise`]: a synchronous exception of the instruction at RIP.
//!
//! # Invariants
//! - **S1** While a guest thread runs guest code or translator code, its host mask is the guest's mask without
//!   [`SYNCHRONOUS`], or everything but that, if its inbox is not empty.
//! - **S2** The inbox's owner is its only reader, the owner's host handlers its only writers; they never nest.
//! - **S3** Recording calls nothing that locks or allocates. (Synchronous faults may: see `fault.rs`.)
//! - **S4** `saved_mask` is only set from a `sigsuspend`-like call until the next safepoint.
//!
//! | file         | what                                                                    |
//! |--------------|-------------------------------------------------------------------------|
//! | `set.rs`     | `SigSet`, numbers, names                                                |
//! | `frame.rs`   | the guest's structures                                                  |
//! | `host.rs`    | host handlers, masks, dispositions                                      |
//! | `actions.rs` | `SignalActions`: the guest's dispositions                               |
//! | `deliver.rs` | safepoints: frames, `rt_sigreturn`, faults, death                       |
//! | `calls.rs`   | what the system calls about signals do                                  |
//! | `inherit.rs` | the signal state that Calque was started with                           |
//! | `arch/`      | window, restorer, vfork                                                 |
//!
//! [`Thread::host_syscall`]: crate::Thread::host_syscall

mod actions;
mod arch;
mod calls;
mod deliver;
mod error_code;
pub mod frame;
pub mod host;
pub mod inherit;
mod set;

pub use actions::{SIG_DFL, SIG_IGN, SignalActions};
pub use calls::SignalFirst;
pub(crate) use deliver::preview;
pub use deliver::{ThreadSignals, deliver_pending, raise, restart_call};
pub use frame::{AltStack, KernelSigaction, SigInfo};
pub(crate) use host::move_inbox;
pub use host::{Attachment, attach};
pub use set::{SYNCHRONOUS, SigSet, signal_name};

pub(crate) use arch::clone_vfork;

/// Result of [`Thread::host_syscall`](crate::Thread::host_syscall) when a signal came before the call began:
/// `-ERESTARTSYS` (linux/errno.h), which no call returns to user space.
pub const NOT_STARTED: i64 = -512;

/// Makes the host process ready to run guest code: handlers for what Calque itself needs, and for the rest the
/// dispositions it was started with (Rust's runtime has changed some).
pub fn install_host_handlers() {
    host::init();
    SignalActions::default().mirror_all();
}
