//! Hosts that cannot run guest instructions as they are: there are no units.

use super::FaultOf;
use crate::dispatch::Event;
use crate::options::RunOptions;
use crate::thread::Thread;
use crate::tier::Code;
use crate::world::Member;
use calque_backend::CacheError;
use calque_ir::{CpuState, GuestAddr, GuestRange};
use std::io;

/// Does not exist.
pub(crate) enum Units {}

/// Nothing.
pub(crate) type FrozenUnits<'a> = &'a Units;

/// What units would leave to the recorder.
#[derive(Clone, Copy)]
#[allow(dead_code, reason = "there are no units")]
pub(crate) struct Transfer {
    pub(crate) number: u32,
    pub(crate) sp: u64,
    pub(crate) point: u64,
    pub(crate) strayed: bool,
}

/// What units would count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(dead_code, reason = "there are no units")]
pub(crate) enum Counted {
    Nothing,
    Branches,
    Instructions,
}

/// Nothing.
#[derive(Default)]
pub(crate) struct UnitThread;

impl Units {
    pub(crate) fn is_supported() -> bool {
        false
    }

    pub(crate) fn new(_: &RunOptions) -> Result<Units, CacheError> {
        unreachable!("the engine is refused on this host")
    }

    pub(crate) fn xcr0(&self) -> u64 {
        match *self {}
    }

    pub(crate) fn gate(&self) {
        match *self {}
    }

    pub(crate) fn count(&self, _: Counted) {
        match *self {}
    }

    pub(crate) fn counted(&self) -> Counted {
        match *self {}
    }

    pub(crate) fn freeze(&self) -> FrozenUnits<'_> {
        match *self {}
    }

    pub(crate) fn after_fork_in_child(&self) -> Result<(), CacheError> {
        match *self {}
    }

    pub(crate) fn remove(&self, _: GuestRange) {
        match *self {}
    }

    pub(crate) fn make_room(&self, _: &Code) {
        match *self {}
    }

    pub(crate) fn sizes(&self) -> [u64; 2] {
        match *self {}
    }

    pub(crate) fn interrupt(&self, _: &mut libc::ucontext_t) {
        match *self {}
    }

    pub(crate) fn fault(&self, _: &mut libc::ucontext_t) -> FaultOf {
        match *self {}
    }

    pub(crate) fn leave_behind(&self, _: &mut libc::ucontext_t) {
        match *self {}
    }
}

pub(crate) fn signal_entry(handler: usize) -> usize {
    handler
}

pub(crate) fn copies_sha() -> bool {
    false
}

pub(crate) fn copies_avx512(_: &str) -> bool {
    false
}

impl UnitThread {
    pub(crate) fn prepare(&mut self, units: &Units, _: &mut CpuState) -> io::Result<()> {
        match *units {}
    }

    pub(crate) fn counters(&self) -> Option<*mut u64> {
        None
    }

    pub(crate) fn no_point(&self, _: &Code) -> u64 {
        0
    }

    pub(crate) fn counts(&mut self, _: Counted) {}

    pub(crate) fn clear_counts(&mut self, _: &Code) {}

    pub(crate) fn set_budget(&mut self, _: u64) {}

    pub(crate) fn budget(&self) -> u64 {
        0
    }

    pub(crate) fn executed(&self, _: &Code, _: u64) -> Option<u64> {
        None
    }
}

impl Thread {
    pub(crate) fn run_units(&mut self, units: &Units, _: &Member) -> Event {
        match *units {}
    }

    pub(crate) fn unit_listing(&mut self, _: GuestAddr) -> Option<String> {
        None
    }
}
