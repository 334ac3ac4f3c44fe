//! #GP of misaligned SSE operands, checked as seldom as possible.
//!
//! A compiler's 16-byte accesses come in groups off one pointer: `[rsp+0x10]`, `[rsp+0x20]`... After the first check
//! the others follow from it. An address is taken apart into its *origin* (the values it is a sum of, looking through
//! additions of constants) and a displacement; for an origin that was checked its value modulo 16 is known.
//!
//! Invariant: what is known holds for the rest of the open block, because values are SSA and `fault_if` has passed.

use super::Lifter;
use calque_ir::{Cc, FaultKind, Mem, Op, Type, Value};

const BYTES: u64 = 16;

/// What an address is relative to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Origin {
    base: Option<Value>,
    index: Option<Value>,
    scale: u8,
}

/// Origins whose value modulo 16 is known.
#[derive(Default)]
pub(crate) struct Alignments(Vec<(Origin, u64)>);

impl Lifter<'_> {
    /// #GP unless the address is a multiple of 16.
    pub(crate) fn require_alignment(&mut self, m: Mem) {
        let (origin, disp) = self.origin(m);
        if self.residue(origin).is_some_and(|known| known.wrapping_add(disp) % BYTES == 0) {
            return;
        }
        self.require_multiple(m, BYTES);
        self.regs.alignments.0.push((origin, disp.wrapping_neg() % BYTES));
    }

    /// #GP unless the address is a multiple of `bytes`, a power of two.
    pub(crate) fn require_multiple(&mut self, m: Mem, bytes: u64) {
        let at = self.addr_value(m);
        let mask = self.b.iconst(Type::I64, bytes - 1);
        let low = self.b.binary(Op::Band, Type::I64, at, mask);
        let odd = self.compare_zero(Cc::NotEqual, Type::I64, low);
        self.b.fault_if(FaultKind::GeneralProtection, odd);
    }

    /// The origin of an address and what is added to it.
    fn origin(&self, m: Mem) -> (Origin, u64) {
        let (mut base, mut disp) = (m.base, i64::from(m.disp) as u64);
        while let Some(v) = base {
            let def = self.b.def(v);
            match (def.op, self.second_const(v)) {
                (Op::Iadd, Some(k)) => disp = disp.wrapping_add(k),
                (Op::Isub, Some(k)) => disp = disp.wrapping_sub(k),
                _ => break,
            }
            base = Some(Value(def.args[0]));
        }
        (Origin { base, index: m.index, scale: m.scale }, disp)
    }

    /// The second operand of an addition, subtraction or AND, if constant.
    fn second_const(&self, v: Value) -> Option<u64> {
        let def = self.b.def(v);
        let binary = matches!(def.op, Op::Iadd | Op::Isub | Op::Band);
        binary.then(|| self.b.as_const(Value(def.args[1]))).flatten()
    }

    /// The value of an origin modulo 16, if known.
    fn residue(&self, origin: Origin) -> Option<u64> {
        match origin {
            Origin { base: None, index: None, .. } => return Some(0),
            Origin { base: Some(v), index: None, .. } => {
                let def = self.b.def(v);
                match (def.op, self.second_const(v)) {
                    (Op::Iconst, _) => return Some(def.imm() % BYTES),
                    // AND RSP, -16.
                    (Op::Band, Some(mask)) if mask % BYTES == 0 => return Some(0),
                    _ => {}
                }
            }
            _ => {}
        }
        self.regs.alignments.0.iter().find(|(known, _)| *known == origin).map(|(_, residue)| *residue)
    }
}
