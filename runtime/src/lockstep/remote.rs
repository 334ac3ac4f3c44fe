//! Another process's guest memory, through `/proc/PID/mem`.

use super::state::State;
use crate::thread::Access;
use crate::{Fault, cpuid};
use calque_frontend::decode::Bytes;
use calque_frontend::{LiftOptions, lift_block};
use calque_ir::interp::{self, Frame, Host, Next};
use calque_ir::state::V128;
use calque_ir::{CpuState, GuestAddr, Helper};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Memory of a process.
pub(crate) struct Remote {
    pub(crate) pid: i32,
    mem: File,
    pagemap: File,
}

/// Page size.
pub(crate) const PAGE: u64 = 4096;

impl Remote {
    pub(crate) fn open(pid: i32) -> io::Result<Remote> {
        let mem = File::options().read(true).write(true).open(format!("/proc/{pid}/mem"))?;
        Ok(Remote { pid, mem, pagemap: File::open(format!("/proc/{pid}/pagemap"))? })
    }

    /// Fills `buf` from `at` on; false if that is not all mapped.
    pub(crate) fn read(&self, at: u64, buf: &mut [u8]) -> bool {
        self.mem.read_exact_at(buf, at).is_ok()
    }

    pub(crate) fn write(&self, at: u64, bytes: &[u8]) -> bool {
        self.mem.write_all_at(bytes, at).is_ok()
    }

    /// Bytes from `at` on, as far as they can be read.
    pub(crate) fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let mut got = 0;
        while got < len {
            let end = len.min(got + (PAGE - (at + got as u64) % PAGE) as usize);
            if !self.read(at + got as u64, &mut bytes[got..end]) {
                break;
            }
            got = end;
        }
        bytes.truncate(got);
        bytes
    }

    pub(crate) fn word(&self, at: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.read(at, &mut bytes).then(|| u64::from_le_bytes(bytes))
    }

    /// For each page of the range, whether the process has one of its own there (`Documentation/admin-guide/mm/pagemap.rst`:
    /// bit 63 present, 62 swapped, 61 the page of a file).
    pub(crate) fn own_pages(&self, start: u64, end: u64) -> Vec<bool> {
        let count = ((end - start) / PAGE) as usize;
        let mut bytes = vec![0; 8 * count];
        let got = self.pagemap.read_at(&mut bytes, start / PAGE * 8).unwrap_or(0);
        bytes[got..].fill(0);
        let entries = bytes.chunks_exact(8).map(|e| u64::from_le_bytes(e.try_into().expect("8 bytes")));
        entries.map(|e| e >> 62 != 0 && e >> 61 & 1 == 0).collect()
    }
}

/// What the interpreter sees of another process.
struct Surroundings<'a> {
    remote: &'a Remote,
    times: &'a mut VecDeque<u64>,
}

/// Runs the instruction at `state.rip` of another process on the interpreter. Time stamps come from `times`.
/// `None` if it faults.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only a native follower uses it"))]
pub(crate) fn interpret(remote: &Remote, state: &State, code: &[u8], times: &mut VecDeque<u64>) -> Option<State> {
    let pc = GuestAddr(state.rip);
    let options = LiftOptions { block_insns: 1, precise: true, ..LiftOptions::default() };
    let region = lift_block(&Bytes { pc, bytes: code }, pc, &options);
    let mut cpu = CpuState::new();
    state.load(&mut cpu);
    let mut host = Surroundings { remote, times };
    let mut frame = Frame::default();
    match interp::run(&region, &mut cpu, &mut host, &mut frame) {
        Ok(Next::Pc(next)) => {
            cpu.rip = next.0;
            Some(State { rflags: cpu.rflags() | state.rflags & !0x3f_ffff, ..State::of(&cpu) })
        }
        _ => None,
    }
}

impl Host for Surroundings<'_> {
    type Fault = Fault;

    fn load(&mut self, addr: u64, bytes: u32) -> Result<u64, Fault> {
        let mut word = [0; 8];
        let ok = self.remote.read(addr, &mut word[..bytes as usize]);
        if ok { Ok(u64::from_le_bytes(word)) } else { Err(fault(addr, Access::Read)) }
    }

    fn load128(&mut self, addr: u64) -> Result<V128, Fault> {
        Ok([self.load(addr, 8)?, self.load(addr.wrapping_add(8), 8)?])
    }

    fn store(&mut self, addr: u64, bytes: u32, value: u64) -> Result<(), Fault> {
        let ok = self.remote.write(addr, &value.to_le_bytes()[..bytes as usize]);
        if ok { Ok(()) } else { Err(fault(addr, Access::Write)) }
    }

    fn store128(&mut self, addr: u64, value: V128) -> Result<(), Fault> {
        self.store(addr, 8, value[0])?;
        self.store(addr.wrapping_add(8), 8, value[1])
    }

    fn fence(&mut self) {}

    fn helper(&mut self, cpu: &mut CpuState, helper: Helper, a: u64, b: u64, _: u64) -> u64 {
        if helper == Helper::Cpuid && a as u32 == cpuid::CLOCK_LEAF {
            cpu.scratch[0] = [(); 2].map(|()| self.times.pop_front().unwrap_or(0));
            return 0;
        }
        if helper == Helper::Cpuid {
            let [eax, ebx, ecx, edx] = cpuid::cpuid(a as u32, b as u32, cpu.xcr0).map(u64::from);
            cpu.scratch[0] = [eax | ebx << 32, ecx | edx << 32];
            return 0;
        }
        // The leader came here before; a follower that asks more often has gone another way, which will show.
        self.times.pop_front().unwrap_or(0)
    }
}

fn fault(addr: u64, access: Access) -> Fault {
    Fault { addr: GuestAddr(addr), access }
}
