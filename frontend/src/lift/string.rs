//! String instructions, with and without REP.
//!
//! One step is straight-line code; REP makes a loop of blocks that all carry the instruction's pc and each leave the
//! architectural state between two steps, so a fault or an interrupt in the middle resumes correctly (SDM vol. 2 REP):
//!
//! ```text
//!     head:  rcx == 0 ? done : bulk or step
//!     bulk:  64 bytes, or 16, if that cannot be told from single steps, else step
//!     step:  one element; CMPS and SCAS leave for done when ZF says so
//!     done:  the next instruction
//! ```
//!
//! Bulk steps (MOVS, STOS, forward only) copy 64 or 16 bytes at once where neither pointer's bytes cross a page, so that
//! a fault would have hit the first of them, and where the destination doesn't start inside the source's bytes. The larger ones are tried only while
//! there is enough to do: a string of a few elements pays one comparison for them.

use super::flags::{Cond, FlagSet, Recipe};
use super::operand::Gpr;
use super::operand::gpr::*;
use super::{Insn, Lifter};
use calque_ir::{BlockId, Cc, Exit, Mem, Op, Reg, Target, Type, Value};
use iced_x86::{OpKind, Register};

/// What one step does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum StringOp {
    Movs,
    Stos,
    Lods,
    Scas,
    Cmps,
}

/// Bytes of a bulk step, the larger first.
const BULK: [u64; 2] = [64, 16];
/// Bytes of each access of one.
const ACCESS: u64 = 16;

pub(super) fn string(l: &mut Lifter<'_>, i: &Insn, op: StringOp, ty: Type) {
    let repeat = match op {
        StringOp::Scas | StringOp::Cmps if i.has_repne_prefix() => Some(Some(Cond::E)),
        StringOp::Scas | StringOp::Cmps if i.has_rep_prefix() => Some(Some(Cond::Ne)),
        _ if i.has_rep_prefix() || i.has_repne_prefix() => Some(None),
        _ => None,
    };
    match repeat {
        None => {
            let df = l.b.get(Type::I1, Reg::DF);
            step(l, i, op, ty, df);
        }
        Some(leave) => repeated(l, i, op, ty, leave),
    }
}

/// Width of the pointers and of the counter: 32 bits with a 0x67 prefix.
fn pointer_type(i: &Insn) -> Type {
    let narrow = |n| matches!(i.op_kind(n), OpKind::MemorySegESI | OpKind::MemoryESEDI);
    if (0..i.op_count()).any(narrow) { Type::I32 } else { Type::I64 }
}

/// A pointer or the counter, as 64 bits.
fn pointer(l: &mut Lifter<'_>, i: &Insn, n: usize) -> Value {
    match pointer_type(i) {
        Type::I64 => l.gpr64(n),
        ty => {
            let low = l.read_gpr(Gpr::of(n, ty));
            l.b.unary(Op::Uextend, Type::I64, low)
        }
    }
}

/// Adds to a pointer or the counter.
fn add_to_pointer(l: &mut Lifter<'_>, i: &Insn, n: usize, delta: Value) {
    let old = pointer(l, i, n);
    let new = l.b.binary(Op::Iadd, Type::I64, old, delta);
    match pointer_type(i) {
        Type::I64 => l.write_gpr(Gpr::R64(n), new),
        ty => {
            let low = l.b.unary(Op::Ireduce, ty, new);
            l.write_gpr(Gpr::of(n, ty), low);
        }
    }
}

/// One step: memory first, then registers and flags.
fn step(l: &mut Lifter<'_>, i: &Insn, op: StringOp, ty: Type, df: Value) {
    let accumulator = Gpr::of(RAX, ty);
    let first = match op {
        StringOp::Movs | StringOp::Lods | StringOp::Cmps => load_source(l, i, ty),
        StringOp::Stos | StringOp::Scas => l.read_gpr(accumulator),
    };
    if op != StringOp::Lods {
        let destination = Mem::base(pointer(l, i, RDI));
        match op {
            StringOp::Movs | StringOp::Stos => l.b.store(ty, destination, first),
            _ => {
                let b = l.b.load(ty, destination);
                l.set_flags(Recipe::Cmp { a: first, b }, ty);
            }
        }
    }
    let (up, down) =
        (l.b.iconst(Type::I64, u64::from(ty.bytes())), l.b.iconst(Type::I64, u64::from(ty.bytes()).wrapping_neg()));
    let delta = l.b.select(Type::I64, df, down, up);
    advance(l, i, op, delta);
    if op == StringOp::Lods {
        l.write_gpr(accumulator, first);
    }
}

fn load_source(l: &mut Lifter<'_>, i: &Insn, ty: Type) -> Value {
    let rsi = pointer(l, i, RSI);
    let m = source(l, i, rsi);
    l.b.load(ty, m)
}

/// `[rsi]` with the segment override that only the source can have.
fn source(l: &mut Lifter<'_>, i: &Insn, rsi: Value) -> Mem {
    let segment = match i.segment_prefix() {
        Register::FS => Reg::FS_BASE,
        Register::GS => Reg::GS_BASE,
        _ => return Mem::base(rsi),
    };
    let base = l.b.get(Type::I64, segment);
    Mem { base: Some(base), index: Some(rsi), scale: 0, disp: 0 }
}

/// Moves the pointers that `op` uses.
fn advance(l: &mut Lifter<'_>, i: &Insn, op: StringOp, delta: Value) {
    let pointers: &[usize] = match op {
        StringOp::Movs | StringOp::Cmps => &[RSI, RDI],
        StringOp::Lods => &[RSI],
        StringOp::Stos | StringOp::Scas => &[RDI],
    };
    for n in pointers {
        add_to_pointer(l, i, *n, delta);
    }
}

fn repeated(l: &mut Lifter<'_>, i: &Insn, op: StringOp, ty: Type, leave: Option<Cond>) {
    let [head, body, done] = [l.pc, l.pc, l.next].map(|pc| l.b.create_block(pc));
    l.flush_flags(FlagSet::ALL);
    l.close(Exit::Goto(Target::Block(head)));

    let has_bulk = matches!(op, StringOp::Movs | StringOp::Stos) && pointer_type(i) == Type::I64;
    let bulk = has_bulk.then(|| BULK.map(|_| l.b.create_block(l.pc)));
    l.reopen(head);
    let rcx = pointer(l, i, RCX);
    let cond = l.compare_zero(Cc::Equal, Type::I64, rcx);
    let first = Target::Block(bulk.map_or(body, |[large, _]| large));
    l.close(Exit::Branch { cond, taken: Target::Block(done), fallthrough: first });
    if let Some([large, small]) = bulk {
        let (large, small) =
            (Bulk { bytes: BULK[0], from: large, other: small }, Bulk { bytes: BULK[1], from: small, other: body });
        for bulk in [large, small] {
            bulk.lift(l, i, op, ty, head);
        }
    }

    l.reopen(body);
    let df = l.b.get(Type::I1, Reg::DF);
    step(l, i, op, ty, df);
    count_down(l, i, 1);
    let cond = leave.map(|cond| l.cond(cond));
    l.flush_flags(FlagSet::ALL);
    let again = Target::Block(head);
    l.close(match cond {
        None => Exit::Goto(again),
        Some(cond) => Exit::Branch { cond, taken: Target::Block(done), fallthrough: again },
    });
    l.open(done);
}

fn count_down(l: &mut Lifter<'_>, i: &Insn, steps: i64) {
    let steps = l.b.iconst(Type::I64, -steps as u64);
    add_to_pointer(l, i, RCX, steps);
}

/// A step of so many bytes.
struct Bulk {
    bytes: u64,
    /// The block that is taken to it.
    from: BlockId,
    /// The one that does with less what it cannot do.
    other: BlockId,
}

impl Bulk {
    /// Fills its blocks; `head` comes behind it.
    fn lift(&self, l: &mut Lifter<'_>, i: &Insn, op: StringOp, ty: Type, head: BlockId) {
        let elements = self.bytes / u64::from(ty.bytes());
        l.reopen(self.from);
        let (rcx, least) = (l.gpr64(RCX), l.b.iconst(Type::I64, elements));
        let too_few = l.b.icmp(Cc::UnsignedLessThan, Type::I64, rcx, least);
        let enough = self.branch(l, too_few);

        l.reopen(enough);
        let differs = self.differs(l, i, op);
        let copy = self.branch(l, differs);

        l.reopen(copy);
        self.copy(l, i, op, ty);
        let delta = l.b.iconst(Type::I64, self.bytes);
        advance(l, i, op, delta);
        count_down(l, i, elements as i64);
        l.close(Exit::Goto(Target::Block(head)));
    }

    /// Ends the block: to `other` if `cond`, else to one that is made.
    fn branch(&self, l: &mut Lifter<'_>, cond: Value) -> BlockId {
        let on = l.b.create_block(l.pc);
        l.close(Exit::Branch { cond, taken: Target::Block(self.other), fallthrough: Target::Block(on) });
        on
    }

    /// Whether single steps might do something else.
    fn differs(&self, l: &mut Lifter<'_>, i: &Insn, op: StringOp) -> Value {
        let t = Type::I64;
        let rdi = l.gpr64(RDI);
        let df = l.b.get(Type::I1, Reg::DF);
        let differs = self.or_crosses_page(l, df, Mem::base(rdi));
        if op != StringOp::Movs {
            return differs;
        }
        let rsi = l.gpr64(RSI);
        let m = source(l, i, rsi);
        let differs = self.or_crosses_page(l, differs, m);
        let at = l.addr_value(m);
        let distance = l.b.binary(Op::Isub, t, rdi, at);
        let bytes = l.b.iconst(t, self.bytes);
        let overlaps = l.b.icmp(Cc::UnsignedLessThan, t, distance, bytes);
        l.b.binary(Op::Bor, Type::I1, differs, overlaps)
    }

    /// `cond` or its bytes at `m` cross a page.
    fn or_crosses_page(&self, l: &mut Lifter<'_>, cond: Value, m: Mem) -> Value {
        let at = l.addr_value(m);
        let mask = l.b.iconst(Type::I64, calque_ir::addr::GUEST_PAGE - 1);
        let offset = l.b.binary(Op::Band, Type::I64, at, mask);
        let last = l.b.iconst(Type::I64, calque_ir::addr::GUEST_PAGE - self.bytes);
        let crosses = l.b.icmp(Cc::UnsignedGreaterThan, Type::I64, offset, last);
        l.b.binary(Op::Bor, Type::I1, cond, crosses)
    }

    /// Its accesses: all loads first, for the destination may lie closely below the source.
    fn copy(&self, l: &mut Lifter<'_>, i: &Insn, op: StringOp, ty: Type) {
        let at = |n: u64, m: Mem| Mem { disp: (n * ACCESS) as i32, ..m };
        let accesses = self.bytes / ACCESS;
        let values: Vec<Value> = match op {
            StringOp::Movs => {
                let rsi = l.gpr64(RSI);
                let m = source(l, i, rsi);
                (0..accesses).map(|n| l.b.load(Type::V128, at(n, m))).collect()
            }
            _ => {
                let v = l.read_gpr(Gpr::of(RAX, ty));
                let v = l.b.unary(Op::Splat, super::operand::vector_of(ty), v);
                vec![v; accesses as usize]
            }
        };
        let rdi = l.gpr64(RDI);
        for (n, v) in (0..accesses).zip(values) {
            l.b.store(Type::V128, at(n, Mem::base(rdi)), v);
        }
    }
}

/// XLATB: AL = [rBX + AL].
pub(super) fn xlat(l: &mut Lifter<'_>, i: &Insn) {
    let rbx = if i.memory_base() == Register::EBX {
        let low = l.read_gpr(Gpr::R32(RBX));
        l.b.unary(Op::Uextend, Type::I64, low)
    } else {
        l.gpr64(RBX)
    };
    let al = l.read_gpr(Gpr::R8(RAX));
    let index = l.b.unary(Op::Uextend, Type::I64, al);
    let at = l.b.binary(Op::Iadd, Type::I64, rbx, index);
    let m = source(l, i, at);
    let v = l.b.load(Type::I8, m);
    l.write_gpr(Gpr::R8(RAX), v);
}
