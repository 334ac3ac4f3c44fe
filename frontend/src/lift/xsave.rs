//! XSAVE, XRSTOR: the standard form, components x87 (bit 0), SSE (1) and AVX (2) (SDM vol. 1 chapter 13).
//!
//! EDX:EAX chooses components at run time, so each component is a block of its own that is jumped over if it is not
//! asked for. Components always count as in use (XINUSE), as processors may report. Those of AVX-512 are moved behind the others by the runtime
//! ([`FaultKind::ExtendedState`]).

use super::operand::{Gpr, gpr::RAX};
use super::sse_move::{MXCSR_MASK, set_mxcsr, unusual_mxcsr};
use super::x87::{LoadedX87, fxsave, init, offset, store_x87, unusual_x87};
use super::{Insn, Lifter};
use calque_ir::state::XCR0_AVX512;
use calque_ir::{Cc, Exit, FaultKind, Helper, Mem, Op, Reg, Target, Type, Value};

/// Bits of EAX and of XSTATE_BV.
mod component {
    pub(super) const X87: u64 = 1;
    pub(super) const SSE: u64 = 2;
    pub(super) const AVX: u64 = 4;
    pub(super) const ALL: u64 = X87 | SSE | AVX;
}

/// Offsets in the area (SDM vol. 1 13.4); the AVX component is where CPUID leaf 0xd says.
const XSTATE_BV: i32 = 512;
const XCOMP_BV: i32 = 520;
const AVX_STATE: i32 = 576;

/// The components that are 16 halves of vector registers, and where they begin.
const VECTORS: [(u64, i32); 2] = [(component::SSE, fxsave::XMM0), (component::AVX, AVX_STATE)];

/// XSAVE.
pub(super) fn xsave(l: &mut Lifter<'_>, i: &Insn) {
    let m = aligned_area(l, i);
    let old = l.b.load(Type::I64, offset(m, XSTATE_BV));
    let asked = requested(l, component::ALL);
    let asked = l.b.unary(Op::Uextend, Type::I64, asked);
    let new = l.b.binary(Op::Bor, Type::I64, old, asked);
    l.b.store(Type::I64, offset(m, XSTATE_BV), new);
    section(
        l,
        |l| requested(l, component::X87),
        |l| {
            let m = l.base_of(i);
            store_x87(l, i, m);
        },
    );
    let any = component::SSE | component::AVX;
    section(
        l,
        |l| requested(l, any),
        |l| {
            let m = l.base_of(i);
            let mxcsr = l.b.get(Type::I32, Reg::MXCSR);
            l.b.store(Type::I32, offset(m, fxsave::MXCSR), mxcsr);
            let mask = l.b.iconst(Type::I32, u64::from(MXCSR_MASK));
            l.b.store(Type::I32, offset(m, fxsave::MXCSR_MASK), mask);
        },
    );
    for (which, first) in VECTORS {
        section(
            l,
            |l| requested(l, which),
            |l| {
                let m = l.base_of(i);
                for n in 0..16 {
                    let v = if which == component::SSE { l.xmm(n) } else { l.ymmh(n) };
                    l.b.store(Type::V128, offset(m, first + 16 * n as i32), v);
                }
            },
        );
    }
    close(l);
}

/// XRSTOR: components asked for and present in the area are loaded, those asked for and absent initialized.
pub(super) fn xrstor(l: &mut Lifter<'_>, i: &Insn) {
    let m = aligned_area(l, i);
    let present = l.b.load(Type::I64, offset(m, XSTATE_BV));
    let compacted = l.b.load(Type::I64, offset(m, XCOMP_BV));
    let unknown = l.b.iconst(Type::I64, !l.opts.xcr0);
    let unknown = l.b.binary(Op::Band, Type::I64, present, unknown);
    let bad = l.b.binary(Op::Bor, Type::I64, unknown, compacted);
    let bad = l.compare_zero(Cc::NotEqual, Type::I64, bad);
    l.b.fault_if(FaultKind::GeneralProtection, bad);
    let any = component::SSE | component::AVX;
    section(
        l,
        |l| requested(l, any),
        |l| {
            let m = l.base_of(i);
            let mxcsr = l.b.load(Type::I32, offset(m, fxsave::MXCSR));
            set_mxcsr(l, mxcsr);
        },
    );
    restore(l, i, component::X87, |l, m| LoadedX87::load(l, m).set(l, i), init);
    for (which, first) in VECTORS {
        let write = |l: &mut Lifter<'_>, n, v| match which {
            component::SSE => l.set_xmm(n, v),
            _ => l.set_ymmh(n, v),
        };
        restore(
            l,
            i,
            which,
            |l, m| {
                let values: [Value; 16] =
                    std::array::from_fn(|n| l.b.load(Type::V128, offset(m, first + 16 * n as i32)));
                values.into_iter().enumerate().for_each(|(n, v)| write(l, n, v));
            },
            |l| {
                let zero = l.b.vconst([0, 0]);
                (0..16).for_each(|n| write(l, n, zero));
            },
        );
    }
    if has_avx512(l) {
        // Only the interpreter is here, and whoever runs it has the processor's own control words.
        return close(l);
    }
    let mxcsr = l.b.get(Type::I32, Reg::MXCSR);
    let control = l.b.call(Helper::X87Control, &[]);
    let unusual = [unusual_mxcsr(l, mxcsr), unusual_x87(l, control)];
    let unusual = l.b.binary(Op::Bor, Type::I32, unusual[0], unusual[1]);
    l.leave_if_unusual(unusual);
    l.close(Exit::Goto(Target::Pc(l.next)));
}

fn has_avx512(l: &Lifter<'_>) -> bool {
    l.opts.xcr0 == XCR0_AVX512
}

/// Goes on behind the instruction, or has the runtime do the rest of it.
fn close(l: &mut Lifter<'_>) {
    l.close(match has_avx512(l) {
        true => Exit::Fault { kind: FaultKind::ExtendedState, pc: l.pc },
        false => Exit::Goto(Target::Pc(l.next)),
    });
}

/// The memory operand; #GP unless it is aligned to 64 bytes.
fn aligned_area(l: &mut Lifter<'_>, i: &Insn) -> Mem {
    let m = l.base_of(i);
    l.require_multiple(m, 64);
    m
}

/// The bits of EAX among `components`, as an `i32`. EDX has none.
fn requested(l: &mut Lifter<'_>, components: u64) -> Value {
    let eax = l.read_gpr(Gpr::R32(RAX));
    let mask = l.b.iconst(Type::I32, components);
    l.b.binary(Op::Band, Type::I32, eax, mask)
}

/// A part that is done if `chosen` (an `i32`) is not zero.
fn section(l: &mut Lifter<'_>, chosen: impl FnOnce(&mut Lifter<'_>) -> Value, body: impl FnOnce(&mut Lifter<'_>)) {
    let chosen = chosen(l);
    let cond = l.compare_zero(Cc::NotEqual, Type::I32, chosen);
    l.section(cond, body);
}

/// Loads a component or initializes it, if it is asked for.
fn restore(
    l: &mut Lifter<'_>,
    i: &Insn,
    which: u64,
    load: impl FnOnce(&mut Lifter<'_>, Mem),
    init: impl FnOnce(&mut Lifter<'_>),
) {
    section(
        l,
        |l| present(l, i, which, 0),
        |l| {
            let m = l.base_of(i);
            load(l, m);
        },
    );
    section(l, |l| present(l, i, which, which), init);
}

/// Not zero if the component is asked for and its bit in XSTATE_BV, flipped by `flip`, is set.
fn present(l: &mut Lifter<'_>, i: &Insn, which: u64, flip: u64) -> Value {
    let m = l.base_of(i);
    let bits = l.b.load(Type::I32, offset(m, XSTATE_BV));
    let flip = l.b.iconst(Type::I32, flip);
    let bits = l.b.binary(Op::Bxor, Type::I32, bits, flip);
    let asked = requested(l, which);
    l.b.binary(Op::Band, Type::I32, bits, asked)
}
