//! What tier 0 agrees on with its stubs: fixed cells, registers of calls, the countdown.

use super::encode::{self as e, Access, At, X};
use super::regs::{CELLS, CPU};
use calque_ir::CpuState;
use std::mem::offset_of;

/// What generated code reaches through a fixed cell (`arch/aarch64_tier0.rs`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stub {
    /// Out through an exit that is not linked, or to have it counted.
    Link = 1,
    /// Out with a reason.
    Leave,
    /// A helper.
    Call,
    /// From code of the `Tail` convention into tier 0. Counts down, so that what is hot beside a compiled region gets compiled, too.
    Arrive,
    /// The other way.
    ToTail,
    /// A computed jump that has not found its target by itself.
    Resolve = 9,
}

impl Stub {
    /// Every stub.
    pub(crate) const ALL: [Stub; 6] = [Stub::Link, Stub::Leave, Stub::Call, Stub::Arrive, Stub::ToTail, Stub::Resolve];

    /// Its cell.
    pub(crate) const fn cell(self) -> u32 {
        self as u32
    }
}

/// Set in `exit_reason` by the stubs of tier 0.
pub(crate) const FROM_TIER0: u32 = 1 << 8;

/// Where [`Stub::Call`] takes three arguments.
pub(super) const CALL_ARGS: [X; 3] = [X(16), X(17), X(0)];
/// Where it leaves the result.
pub(super) const CALL_RESULT: X = X(16);

/// Words of an adapter.
pub(crate) const ADAPTER_WORDS: usize = 5;

/// What an exit of the one kind of code jumps to if its target, at `target`, is of the other kind: code at `at` that goes there through
/// the stub.
pub(crate) fn adapter(stub: Stub, at: usize, target: usize) -> [u32; ADAPTER_WORDS] {
    let (to, by) = (X(17), X(16));
    // Code of the `Tail` convention has no register for the cells.
    let cells = match stub {
        Stub::Arrive => e::access(Access::LDRX, by.0, At::Disp(CPU, offset_of!(CpuState, rt.cells) as i32)),
        _ => e::op3(e::ORR, e::Size::X, by, e::ZR, CELLS),
    };
    let pages = (target >> 12).wrapping_sub((at + 8) >> 12) as i32;
    [
        cells,
        e::access(Access::LDRX, by.0, At::Disp(by, 8 * stub.cell() as i32)),
        e::adrp(to, pages),
        e::op_imm(e::ADD_IMM, e::Size::X, to, to, target as u64 & 0xfff).expect("twelve bits"),
        e::br(by),
    ]
}
