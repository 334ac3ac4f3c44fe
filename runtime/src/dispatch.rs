//! `Thread::run`: the loop that all guest code runs under.
//!
//! Each turn starts at a safepoint: registers are exact, RIP is where the guest goes on. There signals are delivered and
//! stale code is dropped; then the code at RIP runs in whichever engine has it, until it comes back with an [`Event`].

use crate::access::{Fault, GuestMemory};
use crate::fault;
use crate::memory::Prot;
use crate::process::Process;
use crate::signal;
use crate::stats;
use crate::syscall::Outcome;
use crate::thread::{Access, GuestFault, MemoryCause, Thread};
use crate::tier::Entry;
use calque_ir::interp::{self, Frame, Next};
use calque_ir::{FaultKind, GuestAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Bit of the interrupt word: translations were dropped, look at the epoch.
pub const CODE_CHANGED: u32 = 2;

/// What ends a run of guest code, with RIP where the guest goes on.
enum Event {
    /// Look at the interrupt word and the epoch.
    Safepoint,
    Syscall,
    Fault(GuestFault),
}

/// What a thread needs to find and run code.
pub struct Exec {
    slots: Box<[Slot]>,
    frame: Frame,
    /// The epoch that `slots` is good for.
    epoch: u64,
}

/// One line of the direct-mapped cache of entries.
#[derive(Clone, Default)]
struct Slot {
    pc: u64,
    entry: Option<Arc<Entry>>,
}

/// Lines of a thread's cache, a power of two.
const SLOTS: usize = 4096;

fn slot_of(pc: u64) -> usize {
    (pc ^ pc >> 12) as usize % SLOTS
}

impl Exec {
    pub fn new() -> Self {
        Self { slots: vec![Slot::default(); SLOTS].into_boxed_slice(), frame: Frame::default(), epoch: 0 }
    }
}

impl Thread {
    /// Runs the guest thread on the calling host thread until it exits; its exit code. If the guest ends the whole
    /// process, this does not return.
    pub fn run(&mut self) -> i32 {
        let _attachment = signal::attach(self);
        fault::set_current(&raw mut *self.cpu);
        loop {
            self.poll();
            let event = self.run_code();
            match event {
                Event::Safepoint => {}
                Event::Syscall => {
                    if let Some(code) = self.syscall() {
                        return code;
                    }
                }
                Event::Fault(fault) => self.fault(fault),
            }
        }
    }

    /// Delivers signals and drops stale code. Registers are exact and RIP is where the guest goes on.
    fn poll(&mut self) {
        let interrupt = &self.cpu.rt.interrupt;
        if interrupt.load(Ordering::Relaxed) != 0 {
            interrupt.fetch_and(!CODE_CHANGED, Ordering::Relaxed);
            signal::deliver_pending(self, None);
        }
        self.process.drain_stale();
        let epoch = self.process.code.epoch();
        if epoch != self.exec.epoch {
            self.exec.slots.fill(Slot::default());
            self.exec.epoch = epoch;
        }
    }

    fn syscall(&mut self) -> Option<i32> {
        // SDM vol. 2, SYSCALL.
        self.cpu.gpr[1] = self.cpu.rip;
        self.cpu.gpr[11] = self.cpu.rflags();
        stats::add(&self.process.stats.syscalls, 1);
        let syscalls = Arc::clone(&self.process.syscalls);
        match syscalls.syscall(self) {
            Outcome::Continue => None,
            Outcome::Interrupted(restart) => {
                signal::deliver_pending(self, Some(restart));
                None
            }
            Outcome::ExitThread(code) => Some(code),
            Outcome::ExitProcess(code) => self.process.exit(code),
        }
    }

    fn fault(&mut self, fault: GuestFault) {
        stats::add(&self.process.stats.faults, 1);
        if fault == GuestFault::Trap(FaultKind::Unimplemented) {
            eprintln!("calque: {}", self.describe_unimplemented());
        }
        signal::raise(self, fault);
    }

    /// Runs code from RIP on, in any engine, until something asks for the dispatcher.
    fn run_code(&mut self) -> Event {
        let mut warm = true;
        loop {
            let pc = self.cpu.rip;
            let slot = slot_of(pc);
            if self.exec.slots[slot].pc != pc || self.exec.slots[slot].entry.is_none() {
                if let Some(event) = self.fill_slot(pc, slot) {
                    return event;
                }
            }
            let Thread { exec, cpu, process, .. } = self;
            let Some(entry) = &exec.slots[slot].entry else { return Event::Safepoint };
            if warm {
                entry.warm();
            }
            let Some(block) = entry.cold() else { return Event::Safepoint };
            match interp::run(&block.region, cpu, &mut GuestMemory, &mut exec.frame) {
                Ok(Next::Pc(next)) => {
                    cpu.rip = next.0;
                    warm = block.warms(next);
                }
                Ok(Next::Syscall { next }) => {
                    cpu.rip = next.0;
                    return Event::Syscall;
                }
                Ok(Next::Fault { kind, pc }) => {
                    cpu.rip = pc.0;
                    return Event::Fault(GuestFault::Trap(kind));
                }
                Err(trap) => {
                    cpu.rip = trap.pc.0;
                    return Event::Fault(memory_fault(process, trap.fault));
                }
            }
            if cpu.rt.interrupt.load(Ordering::Relaxed) != 0 || process.mem.any_stale() || process.code.epoch() != exec.epoch {
                return Event::Safepoint;
            }
        }
    }

    /// Finds or makes the entry for `pc`. An event if there is no code to run.
    fn fill_slot(&mut self, pc: u64, slot: usize) -> Option<Event> {
        let process = &self.process;
        let pc = GuestAddr(pc);
        let entry = process.code.entry(pc);
        if entry.cold().is_none() {
            if !process.mem.mark_code(pc) {
                return Some(Event::Fault(memory_fault(process, Fault { addr: pc, access: Access::Execute })));
            }
            if !process.code.lift_cold(&entry, &process.mem, &process.stats) {
                return Some(Event::Safepoint);
            }
        }
        self.exec.slots[slot] = Slot { pc: pc.0, entry: Some(entry) };
        None
    }

    /// One line about the instruction at RIP that the lifter does not know.
    fn describe_unimplemented(&self) -> String {
        let mut bytes = [0u8; 15];
        let pc = GuestAddr(self.cpu.rip);
        let len = calque_frontend::CodeReader::read(&crate::smc::GuestCode::new(&self.process.mem), pc, &mut bytes);
        let hex: Vec<String> = bytes[..len].iter().map(|b| format!("{b:02x}")).collect();
        format!("instruction not implemented at {pc}: {}", hex.join(" "))
    }
}

/// The fault that the processor and Linux make of an access that the host refused.
pub(crate) fn memory_fault(process: &Process, fault: Fault) -> GuestFault {
    let needed = match fault.access {
        Access::Read => Prot::READ,
        Access::Write => Prot::WRITE,
        Access::Execute => Prot::EXEC,
    };
    let cause = match process.mem.mapping(fault.addr) {
        None => MemoryCause::Unmapped,
        Some(mapping) if mapping.prot.contains(needed) => MemoryCause::PastEndOfFile,
        Some(_) => MemoryCause::Protection,
    };
    GuestFault::Memory { addr: fault.addr, access: fault.access, cause }
}
