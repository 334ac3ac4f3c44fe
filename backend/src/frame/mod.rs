//! Takes from generated functions the frame and the saved registers that they do not need.
//!
//! Cranelift's `Tail` convention has callee-saved registers, which a function saves where it begins and restores at each tail jump.
//! Nobody wants them kept: generated code is entered through `abi::enter`, which saves them all. Functions with and without a
//! frame may jump to each other: each leaves the stack pointer as it found it.
//!
//! The rewriting is an argument about machine code, so it checks all that it relies on and leaves the function alone at any doubt:
//! 1. The prologue is parsed; every epilogue must be exactly its inverse. A store of a callee-saved register to the stack in the
//!    prologue is a save: nothing has defined the register for another purpose.
//! 2. Each recorded call site is a call of a helper or a tail jump. Generated code has no returns (`abi.rs`).
//! 3. Whatever the body keeps on the stack is addressed from the stack pointer, and its place is not touched.
//! 4. No jump leads into the middle of a prologue or epilogue: each is one instruction to Cranelift.

mod aarch64;
mod x86_64;

use crate::isa::Arch;

/// Reduces the frame of `code`, whose calls and tail jumps end at `call_ends`. Yields the offset of the entry.
pub(crate) fn reduce(arch: Arch, code: &mut [u8], call_ends: impl Iterator<Item = u32>, calls_helpers: bool) -> u32 {
    match arch {
        Arch::X86_64 => x86_64::reduce(code, call_ends, calls_helpers),
        Arch::Aarch64 => aarch64::reduce(code, call_ends, calls_helpers),
    }
}
