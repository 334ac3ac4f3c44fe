//! What profiled units share: the ways of calls, jumps and returns that are not the usual ones, but known.
//!
//! A unit comes here with RCX and R10 spilled (`Code::spill`), the last frame in R10, and the number of the transfer in `Words::transfer`. Flags are saved,
//! so that these ways may compare, and the sum is in memory. What they cannot do either is left to the recorder, whose rules they follow (`runtime::profile::recorder`).

use super::emit::{
    Code, FLAGS, FOUND, FRAME, HANDLERS, LAST_RETURN, NEW_EDGE, RIP, SP, SPILL, SPILL_R10, SPILL_RAX, SPILL_RDX, SUM,
    Sum, TRANSFER,
};
use crate::shadow::{Context, Edge, Frame, Leads};
use iced_x86::code_asm::{
    AsmMemoryOperand, CodeAssembler, CodeLabel, al, dword_ptr, eax, edx, qword_ptr, r10, r11, rax, rcx, rdx, rsp,
};
use iced_x86::{BlockEncoderOptions, IcedError};
use std::mem::offset_of;

const FRAME_SIZE: i32 = size_of::<Frame>() as i32;

/// A word of the area.
fn word(at: u32) -> AsmMemoryOperand {
    qword_ptr(u64::from(at)).gs()
}

fn word32(at: u32) -> AsmMemoryOperand {
    dword_ptr(u64::from(at)).gs()
}

/// One of the ways, being written.
struct Writer {
    asm: CodeAssembler,
    sum: Sum,
    fail: CodeLabel,
}

impl Writer {
    /// Begins with RAX, RDX and the flags saved.
    fn new(sum: Sum) -> Result<Writer, IcedError> {
        let mut asm = CodeAssembler::new(64)?;
        let fail = asm.create_label();
        asm.mov(word(SPILL_RAX), rax)?;
        asm.mov(word(SPILL_RDX), rdx)?;
        asm.lahf()?;
        asm.seto(al)?;
        asm.mov(word(FLAGS), rax)?;
        if sum == Sum::InRegister {
            asm.db(&Code::SAVE_SUM)?;
        }
        Ok(Writer { asm, sum, fail })
    }

    /// Puts RAX, RDX and the flags back.
    fn restore(&mut self) -> Result<(), IcedError> {
        self.asm.mov(rax, word(FLAGS))?;
        self.asm.add(al, 0x7f)?;
        self.asm.sahf()?;
        self.asm.mov(rdx, word(SPILL_RDX))?;
        self.asm.mov(rax, word(SPILL_RAX))
    }

    fn unspill(&mut self) -> Result<(), IcedError> {
        match self.sum {
            Sum::InMemory => {
                self.asm.mov(r10, word(SPILL_R10))?;
                self.asm.mov(rcx, word(SPILL))
            }
            Sum::InRegister => self.asm.db(&Code::UNSPILL),
        }
    }

    /// Ends with what leaves for the recorder by `stop`; the code, to run at `at`, and the offset of `label`.
    fn end_with(mut self, at: u64, stop: u64, label: Option<&CodeLabel>) -> Result<(Vec<u8>, usize), IcedError> {
        self.asm.set_label(&mut self.fail)?;
        self.restore()?;
        self.unspill()?;
        self.asm.mov(word(SP), rsp)?;
        self.asm.jmp(stop)?;
        let done = self.asm.assemble_options(at, BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS)?;
        let offset = label.map_or(Ok(at), |label| done.label_ip(label))? - at;
        Ok((done.inner.code_buffer, offset as usize))
    }

    fn end(self, at: u64, stop: u64) -> Result<Vec<u8>, IcedError> {
        self.end_with(at, stop, None).map(|(code, _)| code)
    }

    /// Finds the edge of the transfer to the pc at `Area::rip` in the chain that the frame behind the last one has: R11.
    fn find(&mut self) -> Result<(), IcedError> {
        let asm = &mut self.asm;
        let (mut again, mut next, mut found) = (asm.create_label(), asm.create_label(), asm.create_label());
        asm.mov(rcx, word(RIP))?;
        asm.not(rcx)?;
        asm.mov(eax, word32(TRANSFER))?;
        asm.mov(r11, qword_ptr(r10 + NEW_EDGE))?;
        asm.set_label(&mut again)?;
        asm.cmp(dword_ptr(r11 + offset_of!(Edge, leads)), Leads::Nowhere as i32)?;
        asm.je(self.fail)?;
        asm.cmp(dword_ptr(r11 + offset_of!(Edge, number)), eax)?;
        asm.jne(next)?;
        asm.cmp(qword_ptr(r11 + offset_of!(Edge, target)), rcx)?;
        asm.je(found)?;
        asm.set_label(&mut next)?;
        asm.mov(r11, qword_ptr(r11 + offset_of!(Edge, next)))?;
        asm.jmp(again)?;
        asm.set_label(&mut found)?;
        asm.mov(qword_ptr(r10 + NEW_EDGE), r11)
    }

    /// Adds the call of the frame at R10, and what has been executed since, to its edge, and takes the one below.
    fn pop(&mut self) -> Result<(), IcedError> {
        let asm = &mut self.asm;
        asm.mov(r11, qword_ptr(r10 + offset_of!(Frame, edge)))?;
        asm.mov(rax, word(SUM))?;
        asm.sub(rax, qword_ptr(r10 + offset_of!(Frame, entered)))?;
        asm.add(qword_ptr(r11 + offset_of!(Edge, insns)), rax)?;
        asm.sub(qword_ptr(r11 + offset_of!(Edge, calls)), FRAME_SIZE)?;
        asm.sub(r10, FRAME_SIZE)
    }

    /// The frame at R10 is the last.
    fn set_frame(&mut self) -> Result<(), IcedError> {
        match self.sum {
            Sum::InMemory => self.asm.mov(word(FRAME), r10),
            Sum::InRegister => self.asm.db(&Code::SET_FRAME),
        }
    }

    /// Goes on at `Words::found`.
    fn go_on(&mut self) -> Result<(), IcedError> {
        self.asm.mov(word32(TRANSFER), 0)?;
        self.restore()?;
        self.asm.jmp(word(FOUND))
    }
}

/// Of calls and stubs' jumps whose edge is not the first of its chain: on at `Words::found` with the edge in R11.
pub(super) fn look_up(at: u64, stop: u64, sum: Sum) -> Result<Vec<u8>, IcedError> {
    let mut way = Writer::new(sum)?;
    way.find()?;
    way.go_on()?;
    way.end(at, stop)
}

/// Of jumps that leave their function: tail calls, jumps between its parts, and those back from there. On at `Words::found`.
pub(super) fn jump(at: u64, stop: u64, sum: Sum) -> Result<Vec<u8>, IcedError> {
    let mut way = Writer::new(sum)?;
    way.asm.cmp(word32(HANDLERS), 0)?;
    way.asm.jne(way.fail)?;
    way.find()?;
    let fail = way.fail;
    let asm = &mut way.asm;
    let [mut push, mut pop, mut done, mut below] = std::array::from_fn(|_| asm.create_label());
    asm.cmp(dword_ptr(r11 + offset_of!(Edge, leads)), Leads::Inside as i32)?;
    asm.je(done)?;
    asm.cmp(dword_ptr(r11 + offset_of!(Edge, leads)), Leads::ByJump as i32)?;
    asm.jne(fail)?;
    // A call whose place the stack pointer is above has ended.
    asm.mov(rax, qword_ptr(r10 + offset_of!(Frame, place)))?;
    asm.mov(rcx, rax)?;
    asm.not(rax)?;
    asm.shr(rax, 1)?;
    asm.cmp(rsp, rax)?;
    asm.ja(fail)?;
    asm.bt(rcx, 0)?;
    asm.jc(push)?;
    // Behind tail calls: if the function is that of one of the callers, it goes on.
    asm.mov(rdx, qword_ptr(r11 + offset_of!(Edge, context)))?;
    asm.mov(edx, dword_ptr(rdx + offset_of!(Context, function)))?;
    asm.mov(rcx, r10)?;
    asm.set_label(&mut below)?;
    asm.sub(rcx, FRAME_SIZE)?;
    asm.mov(rax, qword_ptr(rcx + offset_of!(Frame, context)))?;
    asm.cmp(edx, dword_ptr(rax + offset_of!(Context, function)))?;
    asm.je(pop)?;
    asm.mov(rax, qword_ptr(rcx + offset_of!(Frame, place)))?;
    asm.bt(rax, 0)?;
    asm.jnc(below)?;
    asm.set_label(&mut push)?;
    asm.mov(rax, qword_ptr(r11 + offset_of!(Edge, context)))?;
    asm.add(r10, FRAME_SIZE)?;
    asm.mov(qword_ptr(r10 + offset_of!(Frame, context)), rax)?;
    asm.mov(rax, rsp)?;
    asm.add(rax, rax)?;
    asm.inc(rax)?;
    asm.not(rax)?;
    asm.mov(qword_ptr(r10 + offset_of!(Frame, place)), rax)?;
    asm.mov(rax, word(SUM))?;
    asm.mov(qword_ptr(r10 + offset_of!(Frame, entered)), rax)?;
    way.set_frame()?;
    let asm = &mut way.asm;
    asm.jmp(done)?;
    asm.set_label(&mut pop)?;
    asm.add(rcx, FRAME_SIZE)?;
    asm.cmp(rcx, r10)?;
    asm.jne(fail)?;
    way.pop()?;
    way.set_frame()?;
    way.asm.set_label(&mut done)?;
    way.unspill()?;
    way.go_on()?;
    way.end(at, stop)
}

/// Of returns that the last frame does not know: those of tail calls. Offset of the PUSH of the host's return address in the code.
pub(super) fn ret(at: u64, stop: u64, sum: Sum) -> Result<(Vec<u8>, usize), IcedError> {
    let mut way = Writer::new(sum)?;
    way.asm.cmp(word32(HANDLERS), 0)?;
    way.asm.jne(way.fail)?;
    let fail = way.fail;
    let asm = &mut way.asm;
    let [mut again, mut call] = std::array::from_fn(|_| asm.create_label());
    asm.lea(rcx, qword_ptr(rsp - 8))?;
    asm.set_label(&mut again)?;
    asm.mov(rax, qword_ptr(r10 + offset_of!(Frame, place)))?;
    asm.not(rax)?;
    asm.shr(rax, 1)?;
    asm.jnc(call)?;
    asm.cmp(rax, rcx)?;
    asm.ja(fail)?;
    way.pop()?;
    way.set_frame()?;
    let asm = &mut way.asm;
    asm.jmp(again)?;
    asm.set_label(&mut call)?;
    asm.cmp(rax, rcx)?;
    asm.jne(fail)?;
    way.pop()?;
    way.set_frame()?;
    let asm = &mut way.asm;
    asm.mov(eax, word32(TRANSFER))?;
    asm.mov(word32(LAST_RETURN), eax)?;
    asm.mov(word32(TRANSFER), 0)?;
    asm.mov(r11, qword_ptr(r10 + (FRAME_SIZE as usize + offset_of!(Frame, point))))?;
    way.restore()?;
    way.unspill()?;
    let mut push = way.asm.create_label();
    way.asm.set_label(&mut push)?;
    way.asm.push(r11)?;
    way.asm.ret()?;
    way.end_with(at, stop, Some(&push))
}
