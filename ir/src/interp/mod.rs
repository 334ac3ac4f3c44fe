//! The interpreter: the meaning of the IR.
//!
//! One arm per operation; passes and backend are tested against it, and cold code runs on it. Guest memory, time
//! and CPUID come from a [`Host`].
//!
//! # How it is fast enough
//! A block's values live in a [`Frame`] of 16-byte slots indexed by their number in the block; nothing is allocated
//! per run. A scalar lies zero-extended in the low word of its slot (invariant S1), so that extensions are moves and
//! narrow arithmetic is 64-bit arithmetic and a mask.
//!
//! # Leaving
//! Control leaves a region at an exit to a guest pc, at a fault, and at a backward edge inside the region when
//! `rt.interrupt` asks for it: every block's `pc` is a place where the guest can go on (discipline 3 of `region.rs`).

mod float;
mod int;
mod lanes;
pub(crate) mod pure;

use crate::addr::GuestAddr;
use crate::helper::{Helper, HelperEffect};
use crate::op::Op;
use crate::reg::{Reg, RegKind};
use crate::region::{Block, BlockId, Exit, FaultKind, Inst, Region, RmwOp, Target, Value};
use crate::state::{CpuState, V128};
use crate::types::Type;
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

    /// Sequentially consistent read-modify-write of an integer; yields the old value.
    fn rmw(&mut self, op: RmwOp, ty: Type, addr: u64, value: u64) -> Result<u64, Self::Fault>;

    /// Sequentially consistent compare-and-swap of an integer (in the low word) or `v128`; yields the old value.
    fn cas(&mut self, ty: Type, addr: u64, expected: V128, new: V128) -> Result<V128, Self::Fault>;

    /// Full memory fence.
    fn fence(&mut self);

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

/// How a block ended early.
enum Stop<F> {
    Fault(FaultKind),
    Host(F),
}

impl<F> From<F> for Stop<F> {
    fn from(fault: F) -> Self {
        Stop::Host(fault)
    }
}

/// Runs `region` from block 0 until control leaves it.
pub fn run<H: Host>(
    region: &Region,
    cpu: &mut CpuState,
    host: &mut H,
    frame: &mut Frame,
) -> Result<Next, Trap<H::Fault>> {
    let mut id = BlockId(0);
    loop {
        let block = &region.blocks[id.0 as usize];
        let insts = &region.insts[block.start as usize..block.end as usize];
        if frame.slots.len() < insts.len() {
            frame.slots.resize(insts.len().next_power_of_two(), [0, 0]);
        }
        let slots = &mut frame.slots[..insts.len()];
        if let Err((at, stop)) = run_block(region, block.start, insts, slots, cpu, host) {
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
                return Ok(Next::Pc(GuestAddr(value(v))));
            }
            Exit::Syscall { next } => return Ok(Next::Syscall { next }),
            Exit::Fault { kind, pc } => return Ok(Next::Fault { kind, pc }),
            Exit::None => unreachable!("{id} has no exit"),
        };
        match target {
            Target::Pc(pc) => return Ok(Next::Pc(pc)),
            Target::Block(to) => {
                if to <= id && cpu.rt.interrupt.load(Ordering::Relaxed) != 0 {
                    return Ok(Next::Pc(region.blocks[to.0 as usize].pc));
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

/// Operands out of the frame.
struct FrameOperands<'a> {
    region: &'a Region,
    start: u32,
    insts: &'a [Inst],
    slots: &'a [V128],
    inst: &'a Inst,
    mxcsr: u32,
}

impl FrameOperands<'_> {
    /// The low word of an optional operand, 0 if absent.
    #[inline(always)]
    fn optional(&self, slot: usize) -> u64 {
        match Value(self.inst.args[slot]).expand() {
            Some(_) => pure::Operands::arg(self, slot)[0],
            None => 0,
        }
    }

    /// Linear address of the memory operand.
    #[inline(always)]
    fn addr(&self) -> u64 {
        let index = self.optional(1) << (self.inst.aux & 3);
        self.optional(0).wrapping_add(index).wrapping_add(self.inst.args[2] as i32 as u64)
    }
}

impl pure::Operands for FrameOperands<'_> {
    #[inline(always)]
    fn arg(&self, slot: usize) -> V128 {
        self.slots[self.inst.args[slot].wrapping_sub(self.start) as usize]
    }
    #[inline(always)]
    fn arg_type(&self) -> Type {
        self.insts[self.inst.args[0].wrapping_sub(self.start) as usize].result_type()
    }
    #[inline(always)]
    fn pool(&self, slot: usize) -> V128 {
        self.region.pool[self.inst.args[slot] as usize]
    }
    #[inline(always)]
    fn imm(&self) -> u64 {
        self.inst.imm()
    }
    #[inline(always)]
    fn mxcsr(&self) -> u32 {
        self.mxcsr
    }
}

/// Runs a block's instructions; an error carries the index of the instruction that stopped.
fn run_block<H: Host>(
    region: &Region,
    start: u32,
    insts: &[Inst],
    slots: &mut [V128],
    cpu: &mut CpuState,
    host: &mut H,
) -> Result<(), (usize, Stop<H::Fault>)> {
    use pure::Operands;
    assert_eq!(insts.len(), slots.len());
    for (at, inst) in insts.iter().enumerate() {
        let (op, ty) = (inst.op, inst.ty);
        let o = FrameOperands { region, start, insts, slots, inst, mxcsr: cpu.mxcsr };
        let result = match op {
            Op::Nop | Op::Insn => continue,
            Op::Count => {
                cpu.rt.counters = cpu.rt.counters.wrapping_add(inst.imm());
                continue;
            }
            Op::Get => read_reg(cpu, ty, inst.aux),
            Op::Put => {
                write_reg(cpu, inst.aux, o.arg(0));
                continue;
            }
            Op::Udiv | Op::Urem | Op::Sdiv | Op::Srem => {
                let (high, low, divisor) = (o.arg(0)[0], o.arg(1)[0], o.arg(2)[0]);
                match divide(op, ty, high, low, divisor) {
                    Some(v) => pure::scalar(v),
                    None => return Err((at, Stop::Fault(FaultKind::DivideError))),
                }
            }
            Op::Load if ty.is_vector() => host.load128(o.addr()).map_err(|f| (at, f.into()))?,
            Op::Load => pure::scalar(host.load(o.addr(), ty.bytes()).map_err(|f| (at, f.into()))?),
            Op::Store => {
                let (addr, v) = (o.addr(), o.arg(3));
                let done = if ty.is_vector() { host.store128(addr, v) } else { host.store(addr, ty.bytes(), v[0]) };
                done.map_err(|f| (at, f.into()))?;
                continue;
            }
            Op::Rmw => {
                let (addr, v) = (o.addr(), o.arg(3)[0]);
                pure::scalar(host.rmw(inst.rmw_op(), ty, addr, v).map_err(|f| (at, f.into()))?)
            }
            Op::Cas => {
                let addr = o.arg(0)[0].wrapping_add(inst.args[2] as i32 as u64);
                host.cas(ty, addr, o.arg(1), o.arg(3)).map_err(|f| (at, f.into()))?
            }
            Op::Fence => {
                host.fence();
                continue;
            }
            Op::Call => {
                let args = std::array::from_fn(|i| Value(inst.args[i]).expand().map(|_| o.arg(i)));
                call(cpu, host, Helper::from_code(inst.aux), args)
            }
            Op::FaultIf => {
                if o.arg(0)[0] != 0 {
                    return Err((at, Stop::Fault(FaultKind::from_code(inst.aux))));
                }
                continue;
            }
            _ => pure::eval(op, ty, inst.aux, &o),
        };
        slots[at] = result;
    }
    Ok(())
}

/// Reads a register, or the low part of it that `ty` says.
#[inline(always)]
fn read_reg(cpu: &CpuState, ty: Type, index: u16) -> V128 {
    match index >> 4 {
        0 => pure::scalar(cpu.gpr[index as usize & 15] & int::mask(ty)),
        1 => low_part(ty, cpu.xmm[index as usize & 15]),
        2 => low_part(ty, cpu.ymmh[index as usize & 15]),
        _ => pure::scalar(read_rest(cpu, index)),
    }
}

#[inline(always)]
fn low_part(ty: Type, v: V128) -> V128 {
    if ty.is_vector() { v } else { pure::scalar(v[0] & int::mask(ty)) }
}

fn read_rest(cpu: &CpuState, index: u16) -> u64 {
    let reg = Reg::from_index(index as usize).expect("register number");
    match reg.kind() {
        RegKind::Flag(n) => u64::from(cpu.flags[n]),
        _ if reg == Reg::FLAGS_REST => u64::from(cpu.flags_rest),
        _ if reg == Reg::FS_BASE => cpu.fs_base,
        _ if reg == Reg::GS_BASE => cpu.gs_base,
        _ => u64::from(cpu.mxcsr),
    }
}

/// Writes a register whole: by S1 an `i32` for a general register is zero-extended already.
#[inline(always)]
fn write_reg(cpu: &mut CpuState, index: u16, v: V128) {
    match index >> 4 {
        0 => cpu.gpr[index as usize & 15] = v[0],
        1 => cpu.xmm[index as usize & 15] = v,
        2 => cpu.ymmh[index as usize & 15] = v,
        _ => write_rest(cpu, index, v[0]),
    }
}

fn write_rest(cpu: &mut CpuState, index: u16, v: u64) {
    let reg = Reg::from_index(index as usize).expect("register number");
    match reg.kind() {
        RegKind::Flag(n) => cpu.flags[n] = v as u8,
        _ if reg == Reg::FLAGS_REST => cpu.flags_rest = v as u32,
        _ if reg == Reg::FS_BASE => cpu.fs_base = v,
        _ if reg == Reg::GS_BASE => cpu.gs_base = v,
        _ => cpu.mxcsr = v as u32,
    }
}

fn divide(op: Op, ty: Type, high: u64, low: u64, divisor: u64) -> Option<u64> {
    let (quotient, remainder) = match op {
        Op::Udiv | Op::Urem => int::udivrem(ty, high, low, divisor)?,
        _ => int::sdivrem(ty, high, low, divisor)?,
    };
    Some(if matches!(op, Op::Udiv | Op::Sdiv) { quotient } else { remainder })
}

/// Calls a helper under the ABI of `helper.rs`.
fn call<H: Host>(cpu: &mut CpuState, host: &mut H, helper: Helper, args: [Option<V128>; 3]) -> V128 {
    let mut words = [0; 3];
    for (i, (arg, ty)) in args.into_iter().zip(helper.args()).enumerate() {
        let v = arg.expect("argument of a helper");
        if ty.is_vector() {
            cpu.scratch[i] = v;
        } else {
            words[i] = v[0];
        }
    }
    let [a, b, c] = words;
    let result = match helper.body() {
        Some(body) => body(cpu, a, b, c),
        None => {
            debug_assert_eq!(helper.effect(), HelperEffect::Host);
            host.helper(cpu, helper, a, b, c)
        }
    };
    if helper.ret().is_vector() { cpu.scratch[0] } else { pure::scalar(result & int::mask(helper.ret())) }
}

#[cfg(test)]
mod tests;
