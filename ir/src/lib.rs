//! Calque's intermediate representation: the seam between the x86 frontend and the Cranelift backend.
//!
//! A [`Region`] is a control-flow graph of straight-line [`Block`]s. Inside a block, values are SSA and
//! block-local; between blocks everything travels in guest registers, read by `get` and written by `put`.
//! There are no block parameters: turning guest registers into SSA values across blocks is the
//! backend's business (Cranelift's variables), and the interpreter simply uses [`CpuState`].
//!
//! | file          | what                                                                   |
//! |---------------|------------------------------------------------------------------------|
//! | `addr.rs`     | `GuestAddr`, `GuestRange`                                              |
//! | `types.rs`    | `Type`: scalar types and 128-bit vector shapes                         |
//! | `reg.rs`      | `Reg`: the guest registers that `get`/`put` name                       |
//! | `op.rs`       | `Op`: the one list of operations, with formats and docs                |
//! | `region.rs`   | `Inst`, `Block`, `Exit`, `Region`                                      |
//! | `builder.rs`  | `Builder`: one method an operation                                     |
//! | `state.rs`    | `CpuState`: guest register file and what generated code needs beside   |
//! | `helper.rs`   | `Helper`: the list of out-of-line operations; `helper/*` their bodies  |
//! | `sse.rs`      | floating point as SSE computes it, flags included, in integers          |
//! | `interp/`     | the interpreter: the meaning of the IR                                 |
//! | `print.rs`, `parse.rs`, `verify.rs` | text form and well-formedness                    |
//! | `pass/`       | liveness, dead code, folding                                           |

#![forbid(unsafe_code)]

pub mod addr;
pub mod builder;
pub mod deferred;
pub mod helper;
pub mod interp;
pub mod op;
pub mod parse;
pub mod pass;
mod print;
pub mod reg;
pub mod region;
mod rounding;
mod sse;
pub mod state;
pub mod types;
pub mod verify;

pub use addr::{GuestAddr, GuestRange};
pub use builder::Builder;
pub use helper::Helper;
pub use op::{Format, Op};
pub use reg::Reg;
pub use region::{Block, BlockId, Body, Cc, Exit, FaultKind, FloatCc, Inst, Mem, Region, RmwOp, Target, Value};
pub use state::CpuState;
pub use types::Type;
