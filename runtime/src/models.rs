//! Every order of steps of threads that translate, run, change and give back code (`backend::sync`). Run by `cargo xtask test`, alone:
//!
//!     cargo test -p calque-runtime --features models --lib models
//!
//! Real locks and atomics of the translator, on real guest memory. What generated code does is played: it is inside, or looks something up.

#![allow(clippy::arc_with_non_send_sync)] // Loom runs the threads of a model in one of the host.

use crate::access;
use crate::compile_gate::CompileGate;
use crate::memory::{GuestMap, Prot};
use crate::options::{Engine, RunOptions};
use crate::signal::host;
use crate::stats::Stats;
use crate::tier::Code;
use crate::world::{Polls, World};
use calque_backend::sync::AtomicBool;
use calque_ir::addr::GUEST_PAGE;
use calque_ir::{Exit, GuestAddr};
use loom::cell::UnsafeCell;
use loom::thread;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Most places in an execution where a thread that could go on is made to wait for another: two are enough for any order of two steps of one
/// thread with one of another.
const PREEMPTIONS: usize = 2;

fn model(preemptions: Option<usize>, run: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.max_branches = 20_000;
    builder.check(run);
}

/// What nobody may change while somebody looks at it; loom finds out.
#[derive(Default)]
struct Memory(UnsafeCell<u32>);

impl Memory {
    fn used(&self) {
        self.0.with(|_| ());
    }

    fn given_back(&self) {
        self.0.with_mut(|_| ());
    }
}

/// Runs guest code once, or finds that the world is stopped.
fn inside(world: &World, memory: &Memory) {
    let interrupt = AtomicU32::new(0);
    let membership = world.join(&interrupt, Vec::new(), Polls::EachCycle);
    if world.enter(&membership.member) {
        memory.used();
        world.leave(&membership.member);
    }
}

#[test]
fn models_of_a_stopped_world() {
    model(None, || {
        let shared = Arc::new((World::default(), Memory::default()));
        let guest = thread::spawn({
            let shared = shared.clone();
            move || inside(&shared.0, &shared.1)
        });
        shared.0.stopped(1, Duration::MAX, || shared.1.given_back());
        inside(&shared.0, &shared.1);
        guest.join().unwrap();
    });
}

#[test]
fn models_of_a_stopped_world_of_two() {
    model(Some(PREEMPTIONS), || {
        let shared = Arc::new((World::default(), Memory::default()));
        let guest = || {
            let shared = shared.clone();
            move || inside(&shared.0, &shared.1)
        };
        let guests = [thread::spawn(guest()), thread::spawn(guest())];
        shared.0.stopped(1, Duration::MAX, || shared.1.given_back());
        guests.into_iter().for_each(|guest| guest.join().unwrap());
    });
}

#[test]
fn models_of_compilations_and_a_reset() {
    model(Some(PREEMPTIONS), || {
        let shared = Arc::new((CompileGate::default(), Memory::default()));
        let compiler = thread::spawn({
            let shared = shared.clone();
            move || {
                let _compiling = shared.0.enter();
                shared.1.used();
            }
        });
        shared.0.shut(|| shared.1.given_back());
        compiler.join().unwrap();
    });
}

/// A process with one function, which is a RET and becomes an INT3.
struct Guest {
    code: Code,
    map: GuestMap,
    stats: Stats,
    pc: GuestAddr,
    written: AtomicBool,
    protections: AtomicBool,
}

const RET: u8 = 0xc3;
const INT3: u8 = 0xcc;
const RWX: Prot = Prot::all();

impl Guest {
    fn new() -> Arc<Guest> {
        host::init();
        let options = RunOptions { engine: Engine::Interp, ..RunOptions::default() };
        let (code, map) = (Code::new(&options).unwrap(), GuestMap::new().unwrap());
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let pc = map.mmap(GuestAddr(0), GUEST_PAGE, RWX.bits(), flags, -1, 0).unwrap();
        access::write(pc, &RET).unwrap();
        let (written, protections) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Guest { code, map, stats: Stats::default(), pc, written, protections })
    }

    /// A safepoint (`Thread::settle`).
    fn settle(&self) {
        if self.map.any_stale() {
            self.code.drain_stale(&self.map, &self.stats);
        }
    }

    /// Translates the function if need be, and runs it: whether it is the INT3 (`Thread::prepare`).
    fn run(&self) -> bool {
        loop {
            self.settle();
            let entry = self.code.entry(self.pc);
            if !entry.is_usable() && !self.code.reclaim(&self.map, &self.stats, &entry) {
                continue;
            }
            if entry.cold().is_some() || self.code.lift_cold(&entry, &self.map, &self.stats) {
                let block = entry.cold().expect("lifted");
                return matches!(block.region.blocks[0].exit, Exit::Fault { .. });
            }
        }
    }

    /// A store of the guest's, with the handler of its fault (`fault.rs`).
    fn write(&self) {
        while !self.kernel(|| access::write(self.pc, &INT3).is_ok()) {
            let drain = || self.kernel(|| self.settle());
            assert!(self.map.unprotect_code(self.pc, drain), "the guest may write there");
        }
        self.written.store(true, Ordering::Release);
    }

    /// What a thread does before it changes the protection of a page comes before what another does behind an access that is possible by
    /// that: the kernel's doing, of which loom knows nothing.
    fn kernel<T>(&self, act: impl FnOnce() -> T) -> T {
        let result = act();
        self.protections.swap(true, Ordering::AcqRel);
        result
    }

    /// Runs it as a thread that may have heard of the write.
    fn run_knowing(&self) {
        let written = self.written.load(Ordering::Acquire);
        assert!(self.run() || !written, "code that has been written is not run");
    }

    fn end(&self) {
        self.map.munmap(self.pc, GUEST_PAGE).unwrap();
    }
}

/// I1 of `smc.rs` and M3 of `memory`: who knows that code was written runs what was written: the writer, and whoever it has told.
#[test]
fn models_of_code_that_is_written() {
    model(Some(PREEMPTIONS), || {
        let guest = Guest::new();
        guest.run();
        let writer = thread::spawn({
            let guest = guest.clone();
            move || {
                guest.write();
                guest.run_knowing();
            }
        });
        guest.run_knowing();
        writer.join().unwrap();
        guest.run_knowing();
        guest.end();
    });
}

/// The same where one thread writes because another has just made it possible, without a fault.
#[test]
fn models_of_two_writers() {
    model(Some(PREEMPTIONS), || {
        let guest = Guest::new();
        guest.run();
        let writer = || {
            let guest = guest.clone();
            move || {
                guest.write();
                guest.run_knowing();
            }
        };
        let writers = [thread::spawn(writer()), thread::spawn(writer())];
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        guest.end();
    });
}

/// Code that one thread takes the right to execute from, while another comes to a safepoint, is not run by the first.
#[test]
fn models_of_code_that_is_protected() {
    model(None, || {
        let guest = Guest::new();
        guest.run();
        let protector = thread::spawn({
            let guest = guest.clone();
            move || {
                guest.map.mprotect(guest.pc, GUEST_PAGE, libc::PROT_READ).unwrap();
                guest.settle();
                let entry = guest.code.entry(guest.pc);
                assert!(!entry.is_usable() || entry.cold().is_none());
            }
        });
        guest.settle();
        protector.join().unwrap();
        guest.end();
    });
}
