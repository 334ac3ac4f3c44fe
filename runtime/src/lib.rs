//! The runtime: a guest process inside the host process.
//!
//! | file                | what                                                                              |
//! |---------------------|-----------------------------------------------------------------------------------|
//! | `process.rs`        | `Process`: what all guest threads share                                           |
//! | `thread.rs`         | `Thread`: registers, signal state, ids of one guest thread                        |
//! | `threads.rs`        | which host threads are the guest's                                                |
//! | `group.rs`          | all host threads of a process, brought to rest before it ends                     |
//! | `trace.rs`          | guest threads stopped by a tracer                                                 |
//! | `options.rs`        | `RunOptions`, and the arguments that hand them to a re-executed child             |
//! | `access.rs`         | the only place that turns a guest address into a pointer                          |
//! | `memory/`           | `GuestMap`: layout, interval map, mmap and friends with Linux semantics           |
//! | `load.rs`, `stack.rs` | from an ELF file to a thread at its entry                                       |
//! | `dispatch.rs`       | `Thread::run`: picks the engine, delivers signals, makes system calls             |
//! | `tier.rs`, `compile_queue.rs`, `compile_gate.rs` | translations, heat, background compilation           |
//! | `cold.rs`, `trial.rs` | cold code by the emitter, on AArch64; which of it is worth compiling            |
//! | `smc.rs`            | pages with translated code: write protection and invalidation                     |
//! | `unaligned.rs`      | guest instructions whose ordered accesses the host refuses for their alignment    |
//! | `world.rs`          | who is inside generated code, and waiting until nobody is                         |
//! | `fault.rs`          | whose a host fault is: an access window's, generated code's, or our own bug       |
//! | `gate.rs`           | time, cpuid, random numbers: everything that is not a function of guest state     |
//! | `vdso/`             | the shared object whose functions read clocks without system calls                |
//! | `signal/`, `spawn.rs`, `fork.rs`, `exec.rs`, `crash.rs` | signals, threads, children, crash reports     |
//! | `lockstep/`         | `calque diff`: two executions of one program, compared                            |
//! | `hidden.rs`         | descriptors of Calque's own                                                       |
//! | `profile/`          | `calque profile`: counts, shadow call stacks; `--perf`                            |
//! | `emit.rs`           | `--emit`: translations as text                                                    |
//! | `stats.rs`          | the counters of `--stats`                                                         |
//! | `arch/`             | what differs between hosts                                                        |

pub mod access;
mod arch;
mod cold;
mod compile_gate;
mod compile_queue;
pub mod cpuid;
pub mod crash;
mod dispatch;
pub mod emit;
pub mod exec;
mod fault;
mod fork;
pub mod gate;
mod group;
pub mod hidden;
mod jumps;
mod killed;
pub mod load;
pub mod lockstep;
pub mod memory;
#[cfg(all(test, feature = "models"))]
mod models;
pub mod options;
pub mod process;
pub mod profile;
mod saved;
pub mod signal;
mod smc;
pub mod spawn;
mod stack;
pub mod stats;
pub mod symbols;
pub mod syscall;
pub mod thread;
pub mod threads;
mod tier;
mod trace;
mod trial;
mod unaligned;
mod unwind;
mod vdso;
mod world;
mod xstate;

pub use access::Fault;
pub use calque_ir::{CpuState, GuestAddr, GuestRange};
pub use memory::{GuestMap, Mapping, Prot};
pub use nix::errno::Errno;
pub use options::{Engine, RunOptions};
pub use process::{ExeInfo, Process};
pub use syscall::{Outcome, Syscalls};
pub use thread::{GuestFault, Thread};
