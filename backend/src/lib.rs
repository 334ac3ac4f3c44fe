//! Calque's backend: IR regions become machine code through Cranelift, and the code lives in our own cache.
//!
//! | file            | what                                                                       |
//! |-----------------|----------------------------------------------------------------------------|
//! | `isa.rs`        | `HostIsa`: which machine code is made for, a value                         |
//! | `compile.rs`    | `Compiler`: a region in, `Compiled` (code, exits, pc table) out            |
//! | `order.rs`      | ordered accesses on AArch64 that Cranelift has no instruction for          |
//! | `respell.rs`    | x86-64 instructions that Cranelift has no operation for                    |
//! | `frame.rs`      | takes from x86-64 code the frames and saved registers it does not need     |
//! | `link_stub.rs`  | what an exit leads to until it is linked                                   |
//! | `lower/`        | `ir::Region` -> CLIF, one arm per IR operation                             |
//! | `abi.rs`        | how generated code is entered and left: `enter`, `ExitReason`              |
//! | `jump_cache.rs` | where computed jumps find their targets                                    |
//! | `helpers.rs`    | the table of out-of-line operations that generated code calls              |
//! | `cache/`        | `CodeCache`: code memory, exit cells, lookup by host pc                    |
//! | `shadow.rs`     | the shadow call stack of profiled threads                                  |
//! | `sync.rs`       | atomics and locks, which models replace                                    |
//! | `arch/`         | what differs by host: trampolines, instruction caches, detected features   |
//!
//! A translation is entered by [`abi::enter`], jumps from region to region through exit cells without coming back
//! (`docs/ARCHITECTURE.md`, "The code cache"), and returns to the dispatcher with an [`ExitReason`].

pub mod abi;
mod arch;
pub mod cache;
mod compile;
pub mod emit;
mod frame;
pub mod helpers;
mod isa;
mod jump_cache;
mod link_stub;
mod lower;
mod order;
mod respell;
pub mod shadow;
pub mod sync;
mod words;

pub use abi::{CodeKind, ExitReason, HostCode};
#[cfg(target_arch = "x86_64")]
pub use arch::identical;
pub use cache::{CacheError, CodeCache, Translation};
pub use compile::{
    Budget, CompileError, CompileOptions, Compiled, Compiler, ExitSite, MemoryOrder, StateAtFaults, Verify,
};
pub use emit::{EmitError, EmitOptions, Emitted, EmittedExit, Emitter, SAVED_CELLS, SavedBlock, is_stack_pair};
pub use isa::{Arch, HostIsa};
pub use jump_cache::{FlagsAtEntry, JumpCache};
