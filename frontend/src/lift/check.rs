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
//!
//! Where only constants change, as in code that is patched with every call, a new block for each would cost hundreds of times what the store
//! costs. So of code that was found changed a few times, MOV takes its constants from guest memory, and the comparison leaves them out
//! ([`Constants::Read`]). (The idea is Transmeta's: Dehnert et al., "The Transmeta Code Morphing Software", CGO 2003.)

use super::{Insn, LiftOptions, Lifter};
use crate::decode::{Bytes, CodeReader, Decoded, Window};
use calque_ir::{Builder, Cc, Exit, FaultKind, GuestAddr, Mem, Op, Region, Target, Type};
use iced_x86::{Code, FlowControl, Mnemonic, OpKind};
use std::ops::Range;

/// Bytes of a checked block at most: comparing them is all that running them costs more.
pub const MOST: usize = 64;

/// What becomes of the constants of MOV in a checked block.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Constants {
    /// They are part of the translation, and of what is compared.
    Compared,
    /// They are taken from guest memory each time.
    Read,
}

/// Lifts the block at `pc` with a comparison of its bytes in front.
pub fn lift_checked(code: &dyn CodeReader, pc: GuestAddr, constants: Constants, opts: &LiftOptions) -> Region {
    let opts = &LiftOptions { end_at_stores: true, constants, ..*opts };
    let mut bytes = [0; MOST];
    let readable = code.read_run(pc, &mut bytes);
    let len = extent(pc, &bytes[..readable]);
    let copy = Bytes { pc, bytes: &bytes[..len] };
    let mut b = Builder::new();
    let mut l = Lifter::new(&mut b, &copy, opts);
    let (check, body) = (l.b.create_block(pc), l.b.create_block(pc));
    l.b.switch_to(check);
    l.b.insn(pc, 0);
    l.b.region_mut().guest_insns -= 1;
    if len > 0 {
        compare(&mut l, &copy, &compared(&copy, constants));
    }
    l.b.exit(Exit::Goto(Target::Block(body)));
    let end = l.lift_run(pc, body, opts.block_insns, |_| false);
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

/// Where an instruction has to read its constant when it runs, if it has to.
pub(super) fn constant_read(i: &Insn, opts: &LiftOptions) -> Option<GuestAddr> {
    let constant = if opts.constants == Constants::Read { constant_of(i) } else { None };
    constant.map(|constant| GuestAddr(i.ip()).wrapping_add(constant.start as u64))
}

/// Which bytes of a MOV are its constant, if that is as wide as the register.
fn constant_of(i: &Insn) -> Option<Range<usize>> {
    let width = match i.code() {
        Code::Mov_r32_imm32 => 4,
        Code::Mov_r64_imm64 => 8,
        _ => return None,
    };
    Some(i.len() - width..i.len())
}

/// What is compared of a block.
fn compared(block: &Bytes<'_>, constants: Constants) -> Vec<Range<usize>> {
    let (mut ranges, mut from) = (Vec::new(), 0);
    if constants == Constants::Read {
        Window::<{ MOST + 16 }>::new().walk(block, block.pc, |what, i| {
            let at = (i.ip() - block.pc.0) as usize;
            if let Some(constant) = constant_of(i).filter(|_| what == Decoded::Insn) {
                ranges.push(from..at + constant.start);
                from = at + constant.end;
            }
            what == Decoded::Insn
        });
    }
    ranges.push(from..block.bytes.len());
    ranges
}

/// Where to load which integers, so that they cover a range.
fn words(mut range: Range<usize>) -> impl Iterator<Item = (usize, Type)> {
    std::iter::from_fn(move || {
        let ty = match range.len() {
            8.. => Type::I64,
            4.. => Type::I32,
            2.. => Type::I16,
            1 => Type::I8,
            0 => return None,
        };
        let at = range.start;
        range.start += ty.bytes() as usize;
        Some((at, ty))
    })
}

/// Leaves if guest memory in the ranges `compared` of `block` is not what it was.
fn compare(l: &mut Lifter<'_>, block: &Bytes<'_>, compared: &[Range<usize>]) {
    let base = l.b.iconst(Type::I64, block.pc.0);
    let mut differs = l.b.iconst(Type::I64, 0);
    for (at, ty) in compared.iter().cloned().flat_map(words) {
        let width = ty.bytes() as usize;
        let mut word = [0; 8];
        word[..width].copy_from_slice(&block.bytes[at..at + width]);
        let mut now = l.b.load(ty, Mem { disp: at as i32, ..Mem::base(base) });
        if ty != Type::I64 {
            now = l.b.unary(Op::Uextend, Type::I64, now);
        }
        let then = l.b.iconst(Type::I64, u64::from_le_bytes(word));
        let difference = l.b.binary(Op::Bxor, Type::I64, now, then);
        differs = l.b.binary(Op::Bor, Type::I64, differs, difference);
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

    fn checked(bytes: &[u8], constants: Constants) -> Region {
        let region = lift_checked(&Bytes { pc: PC, bytes }, PC, constants, &LiftOptions::default());
        calque_ir::verify::verify(&region).unwrap_or_else(|problems| panic!("{problems:?}\n{region}"));
        region
    }

    #[test]
    fn constants_that_are_read_are_not_compared() {
        // mov r8d,0x44332211; mov rax,0x8877665544332211; mov ecx,1; ret
        let bytes = b"\x41\xb8\x11\x22\x33\x44\x48\xb8\x11\x22\x33\x44\x55\x66\x77\x88\xb9\x01\0\0\0\xc3";
        let text = |constants| checked(bytes, constants).to_string();
        for constant in ["0x44332211", "0x8877665544332211"] {
            assert!(text(Constants::Compared).contains(constant), "{}", text(Constants::Compared));
            assert!(!text(Constants::Read).contains(constant), "{}", text(Constants::Read));
        }
        for place in ["0x1002", "0x1008", "0x1011"] {
            assert!(text(Constants::Read).contains(place), "{}", text(Constants::Read));
        }
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
        let region = checked(&bytes, Constants::Compared);
        assert_eq!((region.guest_insns, &region.source[..]), (2, &[(PC, 6)][..]));
        let text = region.to_string();
        assert!(text.contains("fault_if stale"), "{text}");
        assert!(text.contains("0x1006"), "goes on behind the store: {text}");
    }
}
