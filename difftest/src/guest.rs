//! The engines under test, on the same code, registers and data as the processor.

use crate::End;
use crate::jit::Jit;
use crate::pages::{CODE, DATA, DATA_SIZE, Pages, TAKEN};
use calque_backend::{StateAtFaults, abi};
use calque_frontend::decode::{Bytes, MAX_INSN};
use calque_frontend::{CodeReader, LiftOptions, Profile, lift_block, lift_region};
use calque_ir::interp::{self, Frame, Host, Next};
use calque_ir::pass::{Optimizer, Options, Precise};
use calque_ir::state::V128;
use calque_ir::{CpuState, FaultKind, GuestAddr, Helper, Region, RmwOp, Type, verify};

/// What runs the lifted code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Engine {
    /// The interpreter on what the lifter gives, block by block.
    Interp,
    /// The interpreter behind all passes.
    Optimized,
    /// Compiled code, block by block, registers exact at faults.
    Jit,
    /// Compiled regions as hot code runs: nothing exact at faults.
    Hot,
}

impl Engine {
    /// All of them.
    pub const ALL: [Engine; 4] = [Engine::Interp, Engine::Optimized, Engine::Jit, Engine::Hot];
}

/// How the guest's code ended, in the terms of [`End`]; `Unimplemented` is no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    Ended(End),
    Unimplemented,
    /// The verifier's problems: our bug.
    Invalid(String),
}

/// The engines, with what they keep from one case to the next.
pub struct Guest {
    optimizer: Optimizer,
    frame: Frame,
    jit: Jit,
}

impl Guest {
    /// Fresh engines.
    pub fn new() -> Self {
        Self { optimizer: Optimizer::default(), frame: Frame::default(), jit: Jit::new() }
    }

    /// Runs `code` at [`CODE`] from `cpu` and `data`.
    pub fn run(
        &mut self,
        engine: Engine,
        pages: &mut Pages,
        code: &[u8],
        cpu: &mut CpuState,
        data: &mut [u8],
    ) -> Outcome {
        let reader = Code(Bytes { pc: GuestAddr(CODE), bytes: code });
        let end = CODE + code.len() as u64;
        let mut pc = CODE;
        for _ in 0..10_000 {
            if pc == end {
                return Outcome::Ended(End::Through);
            }
            if pc == TAKEN {
                return Outcome::Ended(End::Taken);
            }
            let opts = LiftOptions { precise: true, block_insns: remaining(code, pc), ..LiftOptions::default() };
            let region = match self.translate(engine, &reader, pc, &opts) {
                Ok(region) => region,
                Err(problems) => return Outcome::Invalid(problems),
            };
            let next = match engine {
                Engine::Jit => self.jit.run(&region, StateAtFaults::Precise, pages, cpu, data),
                Engine::Hot => self.jit.run(&region, StateAtFaults::PcOnly, pages, cpu, data),
                Engine::Interp | Engine::Optimized => {
                    let mut memory = Memory { data, code };
                    abi::under_guest_rounding(cpu, |cpu| interp::run(&region, cpu, &mut memory, &mut self.frame))
                }
            };
            match next {
                Ok(Next::Pc(to)) => pc = to.0,
                Ok(Next::Fault { kind: FaultKind::Unimplemented, .. } | Next::Syscall { .. }) => {
                    return Outcome::Unimplemented;
                }
                Ok(Next::Fault { kind, pc }) => {
                    return Outcome::Ended(End::Signal { number: signal_of(kind), pc: pc.0 });
                }
                Err(trap) => return Outcome::Ended(End::Signal { number: libc::SIGSEGV, pc: trap.pc.0 }),
            }
        }
        Outcome::Invalid("10000 blocks and no end".into())
    }

    /// The region that an engine runs at `pc`.
    pub fn translate(
        &mut self,
        engine: Engine,
        reader: &Code<'_>,
        pc: u64,
        opts: &LiftOptions,
    ) -> Result<Region, String> {
        if engine == Engine::Hot {
            let mut region = lift_region(reader, GuestAddr(pc), reader, &LiftOptions::default());
            check(&region)?;
            self.optimizer.optimize(&mut region, &Options::default());
            check(&region)?;
            return Ok(region);
        }
        let mut region = lift_block(reader, GuestAddr(pc), opts);
        check(&region)?;
        if engine != Engine::Interp {
            let precise = Options { precise: Precise::Yes, ..Options::default() };
            self.optimizer.optimize(&mut region, &precise);
            check(&region)?;
        }
        Ok(region)
    }
}

impl Default for Guest {
    fn default() -> Self {
        Self::new()
    }
}

/// Instructions of `code` from `pc` on.
fn remaining(code: &[u8], pc: u64) -> u32 {
    let Some(rest) = pc.checked_sub(CODE).and_then(|at| code.get(at as usize..)) else { return 1 };
    iced_x86::Decoder::with_ip(64, rest, pc, 0).into_iter().count() as u32
}

fn check(region: &Region) -> Result<(), String> {
    verify::verify(region).map_err(|problems| problems.iter().map(|p| format!("{p}\n")).collect())
}

fn signal_of(kind: FaultKind) -> i32 {
    match kind {
        FaultKind::DivideError | FaultKind::SimdFloat | FaultKind::X87Float => libc::SIGFPE,
        FaultKind::InvalidOpcode | FaultKind::Unimplemented => libc::SIGILL,
        FaultKind::GeneralProtection | FaultKind::Fetch => libc::SIGSEGV,
        FaultKind::Breakpoint | FaultKind::Debug => libc::SIGTRAP,
    }
}

/// The code under test; a region ends where it ends.
pub struct Code<'a>(Bytes<'a>);

impl CodeReader for Code<'_> {
    fn read(&self, pc: GuestAddr, buf: &mut [u8; MAX_INSN]) -> usize {
        self.0.read(pc, buf)
    }
}

impl Profile for Code<'_> {
    fn executed(&self, pc: GuestAddr) -> bool {
        (CODE..CODE + self.0.bytes.len() as u64).contains(&pc.0)
    }
}

/// The data pages and the code, as a host of the interpreter.
struct Memory<'a> {
    data: &'a mut [u8],
    code: &'a [u8],
}

impl Memory<'_> {
    fn at(&mut self, addr: u64, len: usize) -> Result<&mut [u8], ()> {
        let at = addr.checked_sub(DATA).ok_or(())?;
        let end = at.checked_add(len as u64).filter(|end| *end <= DATA_SIZE).ok_or(())?;
        Ok(&mut self.data[at as usize..end as usize])
    }
}

impl Host for Memory<'_> {
    type Fault = ();

    fn load(&mut self, addr: u64, bytes: u32) -> Result<u64, ()> {
        let mut word = [0; 8];
        let code = addr.checked_sub(CODE).and_then(|at| self.code.get(at as usize..at as usize + bytes as usize));
        word[..bytes as usize].copy_from_slice(match code {
            Some(bytes) => bytes,
            None => self.at(addr, bytes as usize)?,
        });
        Ok(u64::from_le_bytes(word))
    }

    fn load128(&mut self, addr: u64) -> Result<V128, ()> {
        Ok([self.load(addr, 8)?, self.load(addr + 8, 8)?])
    }

    fn store(&mut self, addr: u64, bytes: u32, value: u64) -> Result<(), ()> {
        self.at(addr, bytes as usize)?.copy_from_slice(&value.to_le_bytes()[..bytes as usize]);
        Ok(())
    }

    fn store128(&mut self, addr: u64, value: V128) -> Result<(), ()> {
        self.at(addr, 16)?;
        self.store(addr, 8, value[0])?;
        self.store(addr + 8, 8, value[1])
    }

    fn rmw(&mut self, op: RmwOp, ty: Type, addr: u64, value: u64) -> Result<u64, ()> {
        let old = self.load(addr, ty.bytes())?;
        let new = match op {
            RmwOp::Add => old.wrapping_add(value),
            RmwOp::Sub => old.wrapping_sub(value),
            RmwOp::And => old & value,
            RmwOp::Or => old | value,
            RmwOp::Xor => old ^ value,
            RmwOp::Xchg => value,
        };
        self.store(addr, ty.bytes(), new)?;
        Ok(old)
    }

    fn cas(&mut self, ty: Type, addr: u64, expected: V128, new: V128) -> Result<V128, ()> {
        if ty.is_vector() {
            let old = self.load128(addr)?;
            self.store128(addr, if old == expected { new } else { old })?;
            return Ok(old);
        }
        let old = self.load(addr, ty.bytes())?;
        self.store(addr, ty.bytes(), if old == expected[0] { new[0] } else { old })?;
        Ok([old, 0])
    }

    fn fence(&mut self) {}

    fn helper(&mut self, _: &mut CpuState, helper: Helper, _: u64, _: u64, _: u64) -> u64 {
        panic!("{} has no place in a comparison", helper.name())
    }
}
