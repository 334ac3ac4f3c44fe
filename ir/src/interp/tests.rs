//! Control flow, memory, faults and registers of the interpreter.

use super::*;
use crate::builder::Builder;
use crate::op::Op;
use crate::reg::Reg;
use crate::region::{Cc, Mem};

/// 256 bytes of memory at address 0; anything else is a fault that carries its address.
struct Bytes([u8; 256]);

impl Bytes {
    fn at(&mut self, addr: u64, bytes: usize) -> Result<&mut [u8], u64> {
        let start = usize::try_from(addr).map_err(|_| addr)?;
        self.0.get_mut(start..start.saturating_add(bytes)).ok_or(addr)
    }
}

impl Host for Bytes {
    type Fault = u64;

    fn load(&mut self, addr: u64, bytes: u32) -> Result<u64, u64> {
        let mut word = [0; 8];
        word[..bytes as usize].copy_from_slice(self.at(addr, bytes as usize)?);
        Ok(u64::from_le_bytes(word))
    }
    fn load128(&mut self, addr: u64) -> Result<V128, u64> {
        Ok([self.load(addr, 8)?, self.load(addr + 8, 8)?])
    }
    fn store(&mut self, addr: u64, bytes: u32, value: u64) -> Result<(), u64> {
        self.at(addr, bytes as usize)?.copy_from_slice(&value.to_le_bytes()[..bytes as usize]);
        Ok(())
    }
    fn store128(&mut self, addr: u64, value: V128) -> Result<(), u64> {
        self.store(addr, 8, value[0])?;
        self.store(addr + 8, 8, value[1])
    }
    fn fence(&mut self) {}
    fn helper(&mut self, cpu: &mut CpuState, helper: Helper, a: u64, _: u64, _: u64) -> u64 {
        assert_eq!(helper, Helper::Cpuid);
        cpu.scratch[0] = [a, 7];
        0
    }
}

fn run_on(region: &Region, cpu: &mut CpuState, memory: &mut Bytes) -> Result<Next, Trap<u64>> {
    run(region, cpu, memory, &mut Frame::default())
}

/// `rcx` times `rax += rcx`, as a block that branches to itself.
fn counting_loop() -> Region {
    let mut b = Builder::new();
    let (head, out) = (b.create_block(GuestAddr(0x1000)), Target::Pc(GuestAddr(0x2000)));
    b.switch_to(head);
    b.insn(GuestAddr(0x1000), 3);
    let (rax, rcx) = (b.get(Type::I64, Reg::RAX), b.get(Type::I64, Reg::RCX));
    let sum = b.binary(Op::Iadd, Type::I64, rax, rcx);
    b.put(Reg::RAX, sum);
    let one = b.iconst(Type::I64, 1);
    let less = b.binary(Op::Isub, Type::I64, rcx, one);
    b.put(Reg::RCX, less);
    let zero = b.iconst(Type::I64, 0);
    let more = b.icmp(Cc::NotEqual, Type::I64, less, zero);
    b.exit(Exit::Branch { cond: more, taken: Target::Block(head), fallthrough: out });
    b.finish()
}

#[test]
fn loops_stay_inside_the_region() {
    let (mut cpu, mut memory) = (CpuState::new(), Bytes([0; 256]));
    cpu.gpr[1] = 10;
    let next = run_on(&counting_loop(), &mut cpu, &mut memory);
    assert_eq!(next, Ok(Next::Pc(GuestAddr(0x2000))));
    assert_eq!(cpu.gpr[0], 55);
}

#[test]
fn an_interrupt_leaves_at_a_backward_edge() {
    let (mut cpu, mut memory) = (CpuState::new(), Bytes([0; 256]));
    cpu.gpr[1] = 10;
    cpu.rt.interrupt.store(1, Ordering::Relaxed);
    let next = run_on(&counting_loop(), &mut cpu, &mut memory);
    assert_eq!(next, Ok(Next::Pc(GuestAddr(0x1000))));
    assert_eq!((cpu.gpr[0], cpu.gpr[1]), (10, 9));
}

#[test]
fn memory_faults_name_the_instruction_and_the_access() {
    let mut b = Builder::new();
    let block = b.create_block(GuestAddr(0x1000));
    b.switch_to(block);
    b.insn(GuestAddr(0x1000), 4);
    let base = b.iconst(Type::I64, 16);
    let v = b.load(Type::I32, Mem { base: Some(base), index: Some(base), scale: 2, disp: -8 });
    b.put(Reg::RAX, v);
    b.insn(GuestAddr(0x1004), 4);
    b.store(Type::I64, Mem { base: None, index: None, scale: 0, disp: -1 }, base);
    b.exit(Exit::Goto(Target::Pc(GuestAddr(0x1008))));
    let (mut cpu, mut memory) = (CpuState::new(), Bytes(std::array::from_fn(|i| i as u8)));
    let next = run_on(&b.finish(), &mut cpu, &mut memory);
    assert_eq!(next, Err(Trap { pc: GuestAddr(0x1004), fault: u64::MAX }));
    assert_eq!(cpu.gpr[0], 0x4b4a_4948);
}

#[test]
fn divide_errors_and_fault_if_report_their_kind() {
    for (op, expected) in [(Op::Udiv, FaultKind::DivideError), (Op::FaultIf, FaultKind::SimdFloat)] {
        let mut b = Builder::new();
        let block = b.create_block(GuestAddr(0x10));
        b.switch_to(block);
        b.insn(GuestAddr(0x10), 2);
        let zero = b.iconst(Type::I32, 0);
        let one = b.iconst(Type::I1, 1);
        if op == Op::Udiv {
            b.ternary(op, Type::I32, zero, zero, zero);
        } else {
            b.fault_if(FaultKind::SimdFloat, one);
        }
        b.exit(Exit::Syscall { next: GuestAddr(0x12) });
        let next = run_on(&b.finish(), &mut CpuState::new(), &mut Bytes([0; 256]));
        assert_eq!(next, Ok(Next::Fault { kind: expected, pc: GuestAddr(0x10) }));
    }
}

#[test]
fn partial_registers_flags_and_helpers() {
    let mut b = Builder::new();
    let block = b.create_block(GuestAddr(0));
    b.switch_to(block);
    b.insn(GuestAddr(0), 1);
    let rax = b.get(Type::I64, Reg::RAX);
    let ah = b.iconst(Type::I8, 0xaa);
    let v = b.binary(Op::InsertHigh8, Type::I64, rax, ah);
    let low = b.unary(Op::Ireduce, Type::I32, v);
    let cpuid = b.call(Helper::Cpuid, &[low, low]);
    let even = b.unary(Op::Parity, Type::I8, ah);
    b.put(Reg::RAX, v);
    b.put(Reg::RCX, low);
    b.put(Reg::xmm(3), cpuid);
    b.put(Reg::PF, even);
    b.exit(Exit::Return(v));
    let mut cpu = CpuState::new();
    cpu.gpr[0] = 0x1122_3344_5566_7788;
    let next = run_on(&b.finish(), &mut cpu, &mut Bytes([0; 256]));
    assert_eq!(next, Ok(Next::Pc(GuestAddr(0x1122_3344_5566_aa88))));
    assert_eq!(cpu.gpr[1], 0x5566_aa88);
    assert_eq!(cpu.xmm[3], [0x5566_aa88, 7]);
    assert_eq!(cpu.flags, [0, 1, 0, 0, 0, 0, 0, 0]);
}
