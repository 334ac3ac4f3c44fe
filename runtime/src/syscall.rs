//! The seam to the `syscalls` crate.

use crate::signal::SigInfo;
use crate::thread::Thread;
use calque_ir::GuestRange;
use std::any::Any;

/// What a guest SYSCALL instruction does; implemented by the crate `syscalls`.
pub trait Syscalls: Send + Sync {
    /// Carries out the system call in the thread's registers (number in RAX; RDI, RSI, RDX, R10, R8, R9) and
    /// leaves its result in RAX.
    ///
    /// The dispatcher has already done what the instruction itself does: RIP points behind it, RCX = RIP,
    /// R11 = RFLAGS (SDM vol. 2 SYSCALL). Calls that replace the whole state (`rt_sigreturn`) just write it.
    fn syscall(&self, thread: &mut Thread) -> Outcome;

    /// A call that has been made, in words, with buffers as they are now; without a result if it has not returned.
    fn describe(&self, thread: &mut Thread, nr: u64, args: [u64; 6], result: Option<u64>) -> String;

    /// Guest memory that the call has written, to give it to another execution of the same program.
    fn outputs(&self, thread: &mut Thread, nr: u64, args: [u64; 6], result: u64) -> Vec<GuestRange>;

    /// Keeps other threads out of what calls share until the answer is dropped: for `fork`.
    fn freeze(&self) -> Box<dyn Any>;

    /// A signal is about to be delivered to `thread`, or to end it: `--strace` prints it.
    fn signal(&self, thread: &Thread, info: &SigInfo);
}

/// How a thread goes on after a system call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// RAX (or the whole state) is written; go on at RIP.
    Continue,
    /// A signal came before the call began: deliver it, then begin again. RAX still holds the number.
    Interrupted,
    /// This thread ends with this code; others go on.
    ExitThread(i32),
    /// The process ends with this code (`exit_group`).
    ExitProcess(i32),
}
