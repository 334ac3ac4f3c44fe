//! The guest's system calls: one table row each, handlers by subject, the x86-64 ABI where the host's differs.
//!
//! | file            | what                                                                               |
//! |-----------------|------------------------------------------------------------------------------------|
//! | `table.rs`      | one row a call: number, name, handler, restart class, support, typed arguments, note |
//! | `row.rs`        | what a row is, and the memory it makes the kernel touch                            |
//! | `call.rs`       | `Call`: a call under way: admits its arguments, reaches the host                   |
//! | `file.rs`, `proc.rs`, `memory.rs`, `process.rs`, `signal.rs`, `time.rs`, `net.rs`, `poll.rs`, `ipc.rs`, `misc.rs`, `trace.rs`, `userfault.rs`, `uring/` | handlers |
//! | `abi/`          | x86-64 structures and flags, and conversions                                       |
//! | `arch/`         | the host's numbers                                                                 |
//! | `host.rs`       | raw system calls                                                                   |
//! | `outputs.rs`    | the memory that a call has written, for `calque diff`                              |
//! | `strace/`       | `--strace`                                                                         |
//! | `doc.rs`        | docs/SYSCALLS.md                                                                   |

mod abi;
mod arch;
mod call;
#[cfg(test)]
mod doc;
mod file;
mod host;
mod ipc;
mod memory;
mod misc;
mod net;
mod outputs;
mod poll;
mod proc;
mod process;
mod row;
mod signal;
mod strace;
mod table;
mod tasks;
mod time;
mod trace;
mod uring;
mod userfault;

use call::Call;
use calque_runtime::signal::SigInfo;
use calque_runtime::{GuestRange, Outcome, Syscalls, Thread};
use nix::errno::Errno;
use std::any::Any;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The x86-64 Linux system call interface.
pub struct LinuxSyscalls;

impl Syscalls for LinuxSyscalls {
    fn syscall(&self, thread: &mut Thread) -> Outcome {
        let gpr = &thread.cpu.gpr;
        // RDI, RSI, RDX, R10, R8, R9 (System V ABI, appendix A.2.1).
        let (nr, args) = (gpr[0], [gpr[7], gpr[6], gpr[2], gpr[10], gpr[8], gpr[9]]);
        let Some(row) = table::row(nr) else { return unknown(thread, nr) };
        let traced = thread.process.options.strace;
        let mut call = Call::new(thread, row, args);
        if traced { strace::run(&mut call) } else { call.run() }
    }

    fn describe(&self, thread: &mut Thread, nr: u64, args: [u64; 6], result: Option<u64>) -> String {
        match table::row(nr) {
            Some(row) => strace::describe(&Call::new(thread, row, args), result),
            None => format!("syscall_{nr}()"),
        }
    }

    fn outputs(&self, thread: &mut Thread, nr: u64, args: [u64; 6], result: u64) -> Vec<GuestRange> {
        table::row(nr).map(|row| outputs::of(&Call::new(thread, row, args), result)).unwrap_or_default()
    }

    fn freeze(&self) -> Box<dyn Any> {
        Box::new((uring::at_rest(), process::own_limits(), ipc::attached()))
    }

    fn signal(&self, thread: &Thread, info: &SigInfo) {
        if thread.process.options.strace {
            strace::signal(thread, info);
        }
    }
}

/// A number that no kernel up to the table's has: ENOSYS, and one line that says so.
fn unknown(thread: &mut Thread, nr: u64) -> Outcome {
    /// Bit n: number n has been warned about; the last bit is for all numbers from 1023 on.
    static WARNED: [AtomicU64; 16] = [const { AtomicU64::new(0) }; 16];
    let slot = nr.min(1023) as usize;
    let bit = 1 << (slot % 64);
    if WARNED[slot / 64].fetch_or(bit, Relaxed) & bit == 0 {
        eprintln!("calque: system call {nr} is unknown: ENOSYS");
    }
    thread.cpu.gpr[0] = -(Errno::ENOSYS as i64) as u64;
    Outcome::Continue
}
