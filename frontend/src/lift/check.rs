//! Blocks of code that changes.
//!
//! A *checked* block compares the bytes that it was made of with what stands there now before it does anything else, and leaves
//! with [`FaultKind::Stale`] if they differ. So nobody has to notice the change: for pages where code and data are mixed,
//! or that others write to.
//!
//! Invariants:
//! 1. The bytes that are decoded are the ones that are compared: both come from one copy, which ends with the block. So
//!    nothing behind the block counts, the look-ahead for flags included.
//! 2. A block of code that may be written ends behind an instruction that stores (`LiftOptions::end_at_stores`): what that has changed is
//!    seen by the next block.

use super::{Insn, LiftOptions, Lifter};
use crate::decode::{Bytes, CodeReader, Decoded, Window};
use calque_ir::{Cc, Exit, FaultKind, GuestAddr, Mem, Op, Region, Target, Type};
use iced_x86::{FlowControl, Mnemonic, OpKind};

/// Bytes of a checked block at most: comparing them is all that running them costs more.
pub const MOST: usize = 64;

/// Lifts the block at `pc` with a comparison of its bytes in front.
pub fn lift_checked(code: &dyn CodeReader, pc: GuestAddr, opts: &LiftOptions) -> Region {
    let opts = &LiftOptions { end_at_stores: true, ..*opts };
    let mut bytes = [0; MOST];
    let readable = code.read_run(pc, &mut bytes);
    let len = extent(pc, &bytes[..readable]);
    let copy = Bytes { pc, bytes: &bytes[..len] };
    let mut l = Lifter::new(&copy, opts);
    let (check, body) = (l.b.create_block(pc), l.b.create_block(pc));
    l.b.switch_to(check);
    l.b.insn(pc, 0);
    l.b.region_mut().guest_insns -= 1;
    if len > 0 {
        compare(&mut l, pc, &bytes[..len]);
    }
    l.b.exit(Exit::Goto(Target::Block(body)));
    let end = l.lift_run(&mut Window::<128>::new(), pc, body, opts.block_insns, |_| false);
    l.finish(vec![(pc, end)])
}

/// Length of the checked block at `pc`, up to [`MOST`]: all of `bytes` where they are no whole instruction.
pub fn extent(pc: GuestAddr, bytes: &[u8]) -> usize {
    let mut len = 0;
    Window::<{ MOST + 16 }>::new().walk(&Bytes { pc, bytes }, pc, |what, i| {
        if what != Decoded::Insn {
            return false;
        }
        len = (i.next_ip() - pc.0) as usize;
        i.flow_control() == FlowControl::Next && !stores(i)
    });
    if len == 0 { bytes.len().min(crate::decode::MAX_INSN) } else { len }
}

/// Leaves if guest memory at `pc` is not `bytes`.
fn compare(l: &mut Lifter<'_>, pc: GuestAddr, bytes: &[u8]) {
    let base = l.b.iconst(Type::I64, pc.0);
    let mut differs = l.b.iconst(Type::I64, 0);
    let mut at = 0;
    while at < bytes.len() {
        let (ty, width) = match bytes.len() - at {
            8.. => (Type::I64, 8),
            4.. => (Type::I32, 4),
            2.. => (Type::I16, 2),
            _ => (Type::I8, 1),
        };
        let mut word = [0; 8];
        word[..width].copy_from_slice(&bytes[at..at + width]);
        let mut now = l.b.load(ty, Mem { disp: at as i32, ..Mem::base(base) });
        if ty != Type::I64 {
            now = l.b.unary(Op::Uextend, Type::I64, now);
        }
        let then = l.b.iconst(Type::I64, u64::from_le_bytes(word));
        let difference = l.b.binary(Op::Bxor, Type::I64, now, then);
        differs = l.b.binary(Op::Bor, Type::I64, differs, difference);
        at += width;
    }
    let zero = l.b.iconst(Type::I64, 0);
    let changed = l.b.icmp(Cc::NotEqual, Type::I64, differs, zero);
    l.b.fault_if(FaultKind::Stale, changed);
}

/// Whether an instruction may write to memory; true as well for some that only read.
pub(super) fn stores(i: &Insn) -> bool {
    let written = |n: u32| match i.op_kind(n) {
        OpKind::Memory => n == 0 || i.mnemonic() == Mnemonic::Xchg,
        OpKind::MemoryESDI | OpKind::MemoryESEDI | OpKind::MemoryESRDI => true,
        OpKind::MemorySegDI | OpKind::MemorySegEDI | OpKind::MemorySegRDI => true,
        _ => false,
    };
    i.is_stack_instruction() || (0..i.op_count()).any(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PC: GuestAddr = GuestAddr(0x1000);

    fn len(bytes: &[u8]) -> usize {
        extent(PC, bytes)
    }

    #[test]
    fn blocks_end_at_stores_and_jumps() {
        assert_eq!(len(&[0x90, 0x89, 0x07, 0x90]), 3); // nop; mov [rdi],eax; nop
        assert_eq!(len(&[0x90, 0x8b, 0x07, 0xc3, 0x90]), 4); // nop; mov eax,[rdi]; ret; nop
        assert_eq!(len(&[0x50, 0x90]), 1); // push rax; nop
        assert_eq!(len(&[0x87, 0x07, 0x90]), 2); // xchg eax,[rdi]; nop
        assert_eq!(len(&[0xaa, 0x90]), 1); // stosb; nop
        assert_eq!(len(&[0x90, 0xe8]), 1); // nop; half a call
        assert_eq!(len(&[0xe8, 0x00]), 2); // half a call
        assert_eq!(len(&[]), 0);
    }

    #[test]
    fn a_checked_block_begins_with_the_comparison() {
        let bytes = [0x48, 0x01, 0xd8, 0x48, 0x89, 0x07, 0xc3]; // add rax,rbx; mov [rdi],rax; ret
        let region = lift_checked(&Bytes { pc: PC, bytes: &bytes }, PC, &LiftOptions::default());
        calque_ir::verify::verify(&region).unwrap_or_else(|problems| panic!("{problems:?}\n{region}"));
        assert_eq!((region.guest_insns, &region.source[..]), (2, &[(PC, 6)][..]));
        let text = region.to_string();
        assert!(text.contains("fault_if stale"), "{text}");
        assert!(text.contains("0x1006"), "goes on behind the store: {text}");
    }
}
