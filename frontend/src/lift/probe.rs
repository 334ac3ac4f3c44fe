//! Stores that must not be half done: a processor stores all of an operand or nothing, also where one of its two pages
//! cannot be written.
//!
//! What the IR stores in parts, and what raises floating-point exceptions before it stores, first makes sure of both pages, by
//! adding zero to what is there. So it is only done where somebody may look ([`super::LiftOptions::shows_faults`]), and at operands
//! in parts only in a block for those that cross a page.

use super::{Insn, Lifter};
use calque_ir::addr::GUEST_PAGE;
use calque_ir::{Cc, Mem, Op, RmwOp, Type, Value};
use iced_x86::OpKind;

impl Lifter<'_> {
    /// Whether `bytes` bytes at `at` lie in two pages.
    pub(super) fn crosses_page(&mut self, at: Value, bytes: u32) -> Value {
        let in_page = self.b.iconst(Type::I64, GUEST_PAGE - 1);
        let offset = self.b.binary(Op::Band, Type::I64, at, in_page);
        let last = self.b.iconst(Type::I64, GUEST_PAGE - u64::from(bytes));
        self.b.icmp(Cc::UnsignedGreaterThan, Type::I64, offset, last)
    }

    /// Faults if the value of this type at `at` cannot be written.
    pub(super) fn probe(&mut self, ty: Type, at: Value) {
        let zero = self.b.iconst(ty, 0);
        self.b.rmw(RmwOp::Add, ty, Mem::base(at), zero);
    }

    /// Before the memory operand is stored in parts, from its start on: the second page. The first part finds the first one.
    pub(super) fn probe_parts(&mut self, i: &Insn) {
        let bytes = i.memory_size().size() as u32;
        if !self.opts.shows_faults() || bytes <= 8 || bytes == 16 {
            return;
        }
        let address = |l: &mut Self| {
            let m = l.addr(i);
            l.addr_value(m)
        };
        let at = address(self);
        let crosses = self.crosses_page(at, bytes);
        self.section(crosses, |l| {
            let at = address(l);
            let second = l.last_page(at, bytes);
            l.probe(Type::I8, second);
        });
    }

    /// The start of the page that the last of `bytes` bytes at `at` is in.
    fn last_page(&mut self, at: Value, bytes: u32) -> Value {
        let last = self.add_imm(at, i64::from(bytes) - 1);
        let page = self.b.iconst(Type::I64, !(GUEST_PAGE - 1));
        self.b.binary(Op::Band, Type::I64, last, page)
    }

    /// Before anything is computed that the memory operand is to hold, if there is one: its pages.
    pub(super) fn probe_ends(&mut self, i: &Insn) {
        if !self.opts.shows_faults() || i.op0_kind() != OpKind::Memory {
            return;
        }
        let m = self.addr(i);
        let at = self.addr_value(m);
        let page = self.last_page(at, i.memory_size().size() as u32);
        let second = self.b.icmp(Cc::UnsignedGreaterThan, Type::I64, page, at);
        let last = self.b.select(Type::I64, second, page, at);
        self.probe(Type::I8, at);
        self.probe(Type::I8, last);
    }
}
