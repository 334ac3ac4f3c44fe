//! Runs of one instruction or one block, in the thread's engine, without links to anything else.

use crate::Fault;
use crate::dispatch::{self, Event};
use crate::memory::Prot;
use crate::smc::GuestCode;
use crate::thread::{Access, Thread};
use crate::tier::ColdBlock;
use crate::world::Member;
use calque_backend::{Budget, CodeKind, CompileOptions, Compiler, HostIsa, StateAtFaults, abi};
use calque_frontend::decode::MAX_INSN;
use calque_frontend::{CodeReader, LiftOptions, lift_block};
use calque_ir::interp::Frame;
use calque_ir::{GuestAddr, Region, pass};

/// Code that ends at an address.
struct Until<'a> {
    code: GuestCode<'a>,
    end: u64,
}

impl CodeReader for Until<'_> {
    fn read(&self, pc: GuestAddr, buf: &mut [u8; MAX_INSN]) -> usize {
        self.read_run(pc, buf)
    }

    fn read_run(&self, pc: GuestAddr, buf: &mut [u8]) -> usize {
        self.code.read_run(pc, buf).min(self.end.saturating_sub(pc.0) as usize)
    }
}

impl Thread {
    /// Runs the block at RIP; with `reach` only the instructions that begin within so many bytes: one, for 1.
    pub(crate) fn run_short(&mut self, member: &Member, reach: Option<u64>) -> Event {
        let pc = GuestAddr(self.cpu.rip);
        let executable = self.process.mem.mapping(pc).is_some_and(|m| m.prot.contains(Prot::EXEC));
        if !executable || !self.process.mem.mark_code(pc) {
            let fault = Fault { addr: pc, access: Access::Execute };
            return Event::Fault(dispatch::memory_fault(self.process, fault));
        }
        // What cannot be read behind one instruction cannot make its flags dead: all of them are stored.
        let reach = if reach == Some(1) { Some(crate::crash::length(pc)) } else { reach };
        let end = reach.map_or(u64::MAX, |reach| pc.0 + reach);
        let code = Until { code: GuestCode::new(&self.process.mem), end };
        let count = self.process.code.budget() != Budget::None;
        let options = LiftOptions { precise: true, count, ..LiftOptions::default() };
        let mut region = lift_block(&code, pc, &options);
        super::lifted(&mut region);
        let event = if self.process.code.compiles() && abi::carries_floats(&self.cpu) {
            pass::optimize(&mut region);
            self.run_compiled(member, &region)
        } else {
            self.run_interpreted(region)
        };
        event.unwrap_or(Event::Safepoint)
    }

    fn run_interpreted(&mut self, region: Region) -> Option<Event> {
        let block = ColdBlock::new(region);
        dispatch::interpret(&mut self.cpu, self.process, &block, &mut Frame::default(), &mut false)
    }

    fn run_compiled(&mut self, member: &Member, region: &Region) -> Option<Event> {
        let process = self.process;
        let jit = process.code.jit.as_ref()?;
        let options = CompileOptions { state_at_faults: StateAtFaults::Precise, ..CompileOptions::default() };
        let mut compiler = Compiler::new(HostIsa::native());
        let Ok(translation) = jit.cache.translate(&mut compiler, region, &options) else {
            return self.run_interpreted(region.clone());
        };
        self.exec.forget_jumps();
        let code = (translation.code, CodeKind::Tail);
        let event = dispatch::enter(&mut self.cpu, process, jit, member, code, &mut self.exec);
        jit.cache.remove(&translation);
        self.exec.left_nowhere();
        event
    }
}
