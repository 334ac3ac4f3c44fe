//! The interpreter: the meaning of the IR.
//!
//! One arm per operation (`exec.rs`); passes and backend are tested against it, and cold code runs on it. Guest memory, time
//! and CPUID come from a [`Host`].
//!
//! # How it is fast enough
//! A block's values live in a [`Frame`] of 16-byte slots indexed by their number in the block; nothing is allocated
//! per run. A scalar lies zero-extended in the low word of its slot (invariant S1), so that extensions are moves and
//! narrow arithmetic is 64-bit arithmetic and a mask.
//!
//! # Floating point
//! `crate::sse` computes results and flags; the host's own modes have no part in it, but must be its defaults.
//!
//! # Leaving
//! Control leaves a region at an exit to a guest pc, at a fault, and at a backward edge inside the region when
//! `rt.interrupt` asks for it: every block's `pc` is a place where the guest can go on (discipline 3 of `region.rs`).

mod exec;
mod int;
mod lanes;
mod vector;

use crate::addr::GuestAddr;
use crate::helper::Helper;
use crate::op::Op;
use crate::region::{Block, BlockId, Body, Exit, FaultKind, Inst, Region, RmwOp, Target, Value};
use crate::state::{CpuState, V128};
use crate::types::Type;
use exec::{Code, Stop, run_block};
pub(crate) use int::mask;
use std::sync::atomic::Ordering;

/// What the interpreter asks of its surroundings. Addresses are linear; values are zero-extended.
pub trait Host {
    /// A memory access that failed.
    type Fault;

    /// Loads 1, 2, 4 or 8 bytes.
    fn load(&mut self, addr: u64, bytes: u32) -> Result<u64, Self::Fault>;

    /// Loads 16 bytes.
    fn load128(&mut self, addr: u64) -> Result<V128, Self::Fault>;

    /// Stores the low 1, 2, 4 or 8 bytes.
    fn store(&mut self, addr: u64, bytes: u32, value: u64) -> Result<(), Self::Fault>;

    /// Stores 16 bytes.
    fn store128(&mut self, addr: u64, value: V128) -> Result<(), Self::Fault>;

    /// Sequentially consistent read-modify-write of an integer; yields the old value. As given here for memory that nobody else
    /// accesses meanwhile; where there are threads, the host has its own.
    fn rmw(&mut self, op: RmwOp, ty: Type, addr: u64, value: u64) -> Result<u64, Self::Fault> {
        let old = self.load(addr, ty.bytes())?;
        self.store(addr, ty.bytes(), op.apply(old, value))?;
        Ok(old)
    }

    /// Sequentially consistent compare-and-swap of an integer (in the low word) or `v128`; yields the old value, which it writes
    /// back where it is not the expected one (SDM vol. 2, CMPXCHG). As given here for memory as in [`Host::rmw`].
    fn cas(&mut self, ty: Type, addr: u64, expected: V128, new: V128) -> Result<V128, Self::Fault> {
        if ty.is_vector() {
            let old = self.load128(addr)?;
            self.store128(addr, if old == expected { new } else { old })?;
            return Ok(old);
        }
        let old = self.load(addr, ty.bytes())?;
        self.store(addr, ty.bytes(), if old == expected[0] { new[0] } else { old })?;
        Ok([old, 0])
    }

    /// Full memory fence.
    fn fence(&mut self);

    /// Adds 1 to a counter at `cpu.rt.counters`; a host without counters has nothing to do.
    fn count(&mut self, _cpu: &mut CpuState, _counter: u32) {}

    /// A helper of [`HelperEffect::Host`], under the ABI of `helper.rs`.
    fn helper(&mut self, cpu: &mut CpuState, helper: Helper, a: u64, b: u64, c: u64) -> u64;
}

/// Where the guest goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// At this pc.
    Pc(GuestAddr),
    /// In the kernel: SYSCALL, with the pc behind it.
    Syscall { next: GuestAddr },
    /// With a fault, registers as before the instruction; `pc` is what the signal frame shows.
    Fault { kind: FaultKind, pc: GuestAddr },
}

/// A memory access failed; registers are as before the instruction at `pc`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trap<F> {
    pub pc: GuestAddr,
    pub fault: F,
}

/// Value slots of the block that runs. One per thread, reused.
#[derive(Default)]
pub struct Frame {
    slots: Vec<V128>,
}

/// Runs `region` from block 0 until control leaves it.
pub fn run<H: Host>(
    region: &Region,
    cpu: &mut CpuState,
    host: &mut H,
    frame: &mut Frame,
) -> Result<Next, Trap<H::Fault>> {
    run_body(region.body(), cpu, host, frame)
}

/// The same of a region's body.
pub fn run_body<H: Host>(
    body: Body<'_>,
    cpu: &mut CpuState,
    host: &mut H,
    frame: &mut Frame,
) -> Result<Next, Trap<H::Fault>> {
    let next = run_blocks(body, cpu, host, frame);
    cpu.settle_flags();
    next
}

#[inline]
fn run_blocks<H: Host>(
    body: Body<'_>,
    cpu: &mut CpuState,
    host: &mut H,
    frame: &mut Frame,
) -> Result<Next, Trap<H::Fault>> {
    let mut id = BlockId(0);
    loop {
        let block = &body.blocks[id.0 as usize];
        let insts = &body.insts[block.start as usize..block.end as usize];
        if frame.slots.len() < insts.len() {
            frame.slots.resize(insts.len().next_power_of_two(), [0, 0]);
        }
        let slots = &mut frame.slots[..insts.len()];
        let code = Code { pool: body.pool, start: block.start, insts };
        if let Err((at, stop)) = run_block(&code, slots, cpu, host) {
            let pc = insn_pc(block, insts, at);
            return match stop {
                Stop::Fault(kind) => Ok(Next::Fault { kind, pc }),
                Stop::Host(fault) => Err(Trap { pc, fault }),
            };
        }
        let value = |v: Value| slots[(v.0 - block.start) as usize][0];
        let target = match block.exit {
            Exit::Goto(target) | Exit::Call { target, .. } => target,
            Exit::Branch { cond, taken, fallthrough } => {
                if value(cond) != 0 {
                    taken
                } else {
                    fallthrough
                }
            }
            Exit::Indirect(v) | Exit::Return(v) | Exit::CallIndirect { target: v, .. } => {
                let pc = GuestAddr(value(v));
                let predicted = body.predicted_of(id).find(|to| body.blocks[to.0 as usize].pc == pc);
                predicted.map_or(Target::Pc(pc), Target::Block)
            }
            Exit::Syscall { next } => return Ok(Next::Syscall { next }),
            Exit::Fault { kind, pc } => return Ok(Next::Fault { kind, pc }),
            Exit::None => unreachable!("{id} has no exit"),
        };
        match target {
            Target::Pc(pc) => return Ok(Next::Pc(pc)),
            Target::Block(to) => {
                if to <= id && cpu.rt.interrupt.load(Ordering::Relaxed) != 0 {
                    return Ok(Next::Pc(body.blocks[to.0 as usize].pc));
                }
                id = to;
            }
        }
    }
}

/// Guest pc of instruction `at` of a block: the nearest mark above, or the block's own.
fn insn_pc(block: &Block, insts: &[Inst], at: usize) -> GuestAddr {
    insts[..at].iter().rev().find(|i| i.op == Op::Insn).map_or(block.pc, |i| GuestAddr(i.imm()))
}

/// The result of a pure scalar operation on constants, for the passes: by the same arms, so that folding cannot mean
/// something else than running. `args` are the operands' defining instructions.
pub(crate) fn fold(cpu: &mut CpuState, args: &[Inst], op: Inst) -> u64 {
    let mut insts = [op; 4];
    insts[..args.len()].copy_from_slice(args);
    insts[args.len()].args = [0, 1, 2, 0];
    let mut slots = [[0; 2]; 4];
    let code = Code { pool: &[], start: 0, insts: &insts[..=args.len()] };
    let ran = run_block(&code, &mut slots[..=args.len()], cpu, &mut NoHost);
    assert!(ran.is_ok(), "{} is not pure", op.op.name());
    slots[args.len()][0]
}

/// Surroundings of what needs none.
struct NoHost;

impl Host for NoHost {
    type Fault = ();

    fn load(&mut self, _: u64, _: u32) -> Result<u64, ()> {
        Err(())
    }
    fn load128(&mut self, _: u64) -> Result<V128, ()> {
        Err(())
    }
    fn store(&mut self, _: u64, _: u32, _: u64) -> Result<(), ()> {
        Err(())
    }
    fn store128(&mut self, _: u64, _: V128) -> Result<(), ()> {
        Err(())
    }
    fn fence(&mut self) {}
    fn helper(&mut self, _: &mut CpuState, helper: Helper, _: u64, _: u64, _: u64) -> u64 {
        unreachable!("{} is not pure", helper.name())
    }
}

#[cfg(test)]
mod tests;
