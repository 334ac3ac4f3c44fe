//! Control flow of generated code: loops, links, indirect jumps, faults, polls, removal, and finding the guest pc of a fault.
#![allow(unsafe_code)]

mod common;

use calque_backend::{ExitReason, FlagsAtEntry, StateAtFaults, abi};
use calque_ir::{
    BlockId, Builder, Cc, CpuState, Exit, FaultKind, GuestAddr, Inst, Mem, Op, Reg, Region, Target, Type, Value,
};
use common::{Random, Runner};
use std::sync::atomic::Ordering;

const NEXT: GuestAddr = GuestAddr(0x2000);

/// A region of one block at `pc`.
fn block(pc: u64, body: impl FnOnce(&mut Builder) -> Exit) -> Region {
    let mut b = Builder::new();
    let id = b.create_block(GuestAddr(pc));
    b.switch_to(id);
    b.insn(GuestAddr(pc), 4);
    let exit = body(&mut b);
    b.exit(exit);
    let mut region = b.finish();
    region.source = [(GuestAddr(pc), 4)].into();
    region
}

/// rax += 1, then to `to`.
fn step(pc: u64, to: u64) -> Region {
    block(pc, |b| {
        add(b, Reg::RAX, 1);
        Exit::Goto(Target::Pc(GuestAddr(to)))
    })
}

fn add(b: &mut Builder, reg: Reg, n: u64) -> Value {
    let (old, n) = (b.get(Type::I64, reg), b.iconst(Type::I64, n));
    let new = b.binary(Op::Iadd, Type::I64, old, n);
    b.put(reg, new);
    new
}

/// A loop nest that reads and writes registers of all kinds, conditionally: block 0 enters, 1 and 2 are loops, 3 leaves.
fn nest() -> Region {
    let mut b = Builder::new();
    let blocks: Vec<BlockId> = (0..4).map(|i| b.create_block(GuestAddr(0x1000 + 16 * i))).collect();
    let to = |i: usize| Target::Block(blocks[i]);
    b.switch_to(blocks[0]);
    b.insn(GuestAddr(0x1000), 4);
    let low = b.get(Type::I32, Reg::RCX);
    let mask = b.iconst(Type::I32, 15);
    let low = b.binary(Op::Band, Type::I32, low, mask);
    b.put(Reg::RCX, low);
    b.exit(Exit::Goto(to(1)));

    b.switch_to(blocks[1]);
    b.insn(GuestAddr(0x1010), 4);
    let (x, y) = (b.get(Type::V128, Reg::xmm(0)), b.get(Type::V128, Reg::xmm(1)));
    let sum = b.binary(Op::Iadd, Type::I32x4, x, y);
    b.put(Reg::xmm(0), sum);
    let rcx = add(&mut b, Reg::RCX, u64::MAX);
    let zero = b.iconst(Type::I64, 0);
    let negative = b.icmp(Cc::SignedLessThan, Type::I64, rcx, zero);
    b.put(Reg::SF, negative);
    b.exit(Exit::Branch { cond: negative, taken: to(3), fallthrough: to(2) });

    b.switch_to(blocks[2]);
    b.insn(GuestAddr(0x1020), 4);
    add(&mut b, Reg::RBX, 3);
    let odd = b.get(Type::I8, Reg::RBX);
    let odd = b.unary(Op::Parity, Type::I8, odd);
    b.put(Reg::PF, odd);
    b.exit(Exit::Branch { cond: odd, taken: to(2), fallthrough: to(1) });

    b.switch_to(blocks[3]);
    b.insn(GuestAddr(0x1030), 4);
    let rsi = b.get(Type::I64, Reg::RSI);
    let v = b.get(Type::V128, Reg::xmm(0));
    b.store(Type::V128, Mem::base(rsi), v);
    let back = b.load(Type::I64, Mem::base(rsi));
    b.put(Reg::R9, back);
    b.exit(Exit::Indirect(back));
    b.finish()
}

#[test]
fn loops_agree_with_the_interpreter() {
    for state_at_faults in [StateAtFaults::PcOnly, StateAtFaults::Precise] {
        let mut runner = Runner::new();
        runner.options.state_at_faults = state_at_faults;
        runner.compare(&nest(), 200, &mut Random::new(7)).unwrap_or_else(|e| panic!("{e}"));
    }
}

#[test]
fn exits_agree_with_the_interpreter() {
    let pc = GuestAddr(0x1004);
    let exits = [
        Exit::Syscall { next: pc },
        Exit::Fault { kind: FaultKind::Breakpoint, pc },
        Exit::Goto(Target::Pc(pc)),
        Exit::Call { target: Target::Pc(NEXT), ret: pc },
    ];
    let mut runner = Runner::new();
    for exit in exits {
        let region = block(0x1000, |b| {
            add(b, Reg::RDX, 9);
            exit
        });
        runner.compare(&region, 5, &mut Random::new(3)).unwrap_or_else(|e| panic!("{e}"));
    }
    for kind in FaultKind::ALL {
        let region = block(0x1000, |b| {
            let cond = b.get(Type::I1, Reg::CF);
            b.fault_if(*kind, cond);
            add(b, Reg::RDX, 9);
            Exit::Goto(Target::Pc(pc))
        });
        runner.compare(&region, 20, &mut Random::new(3)).unwrap_or_else(|e| panic!("{e}"));
    }
}

#[test]
fn linked_regions_run_without_the_dispatcher() {
    let mut runner = Runner::new();
    let mut cpu = runner.state(&mut Random::new(1));
    cpu.gpr[0] = 0;
    let (options, regions) = (runner.options, [step(0x1000, 0x1010), step(0x1010, 0x1020), step(0x1020, 0x1030)]);
    let code = regions.map(|r| runner.cache.translate(&mut runner.compiler, &r, &options).expect("compiles"));
    if cfg!(target_arch = "x86_64") {
        assert_ne!(code[0].code, code[0].host_range().0, "small regions need no frame");
    }
    runner.cache.link(code[0].cells.start, &code[1]);
    runner.cache.link(code[1].cells.start, &code[2]);
    // SAFETY: code of this cache, with its tables.
    let enter = |cpu: &mut CpuState| unsafe { abi::enter(cpu, code[0].code) };
    let ExitReason::Link { cell } = enter(&mut cpu) else { panic!("the last exit is not linked") };
    assert_eq!((runner.cache.cell_target(cell), cpu.gpr[0]), (GuestAddr(0x1030), 3));

    runner.cache.remove(&code[1]);
    let ExitReason::Link { cell } = enter(&mut cpu) else { panic!("nothing leads to what was removed") };
    assert_eq!((runner.cache.cell_target(cell), cpu.gpr[0]), (GuestAddr(0x1010), 4));
    runner.cache.link(cell, &code[1]);
    assert_eq!(enter(&mut cpu), ExitReason::Link { cell }, "a removed translation is not linked again");

    runner.cache.reset();
    assert_eq!(runner.cache.stats().code_bytes, 0);
}

#[test]
fn indirect_jumps_use_the_jump_cache() {
    let mut runner = Runner::new();
    let mut cpu = runner.state(&mut Random::new(1));
    (cpu.gpr[0], cpu.gpr[2]) = (0, 0x5010);
    let options = runner.options;
    let jump = block(0x5000, |b| Exit::Indirect(b.get(Type::I64, Reg::RDX)));
    let jump = runner.cache.translate(&mut runner.compiler, &jump, &options).expect("compiles");
    let target = runner.cache.translate(&mut runner.compiler, &step(0x5010, 0x5020), &options).expect("compiles");
    // SAFETY: code of this cache, with its tables.
    let mut enter = || unsafe { abi::enter(&mut cpu, jump.code) };
    assert_eq!(enter(), ExitReason::Indirect);
    runner.jump_cache().insert(GuestAddr(0x5010), target.code, FlagsAtEntry::Dead);
    assert_eq!(enter(), ExitReason::Link { cell: target.cells.start });
    runner.jump_cache().remove(GuestAddr(0x5010));
    assert_eq!(enter(), ExitReason::Indirect);
    assert_eq!((cpu.rip, cpu.gpr[0]), (0x5010, 1));
}

#[test]
fn jumps_find_what_others_have_pushed_out_of_the_first_level() {
    let mut runner = Runner::new();
    let mut cpu = runner.state(&mut Random::new(1));
    let options = runner.options;
    let jump = block(0x5000, |b| Exit::Indirect(b.get(Type::I64, Reg::RDX)));
    let jump = runner.cache.translate(&mut runner.compiler, &jump, &options).expect("compiles");
    let pcs = common::SAME_SLOT;
    let to = pcs.map(|pc| runner.cache.translate(&mut runner.compiler, &step(pc, 0x5020), &options).expect("compiles"));
    for flags in [FlagsAtEntry::Dead, FlagsAtEntry::Wanted] {
        runner.jump_cache().clear();
        for (pc, to) in pcs.iter().zip(&to).cycle().take(3000) {
            runner.jump_cache().insert(GuestAddr(*pc), to.code, flags);
        }
        let mut arrive = |pc| {
            cpu.gpr[2] = pc;
            // SAFETY: code of this cache, with its tables.
            unsafe { abi::enter(&mut cpu, jump.code) }
        };
        for (pc, to) in pcs.iter().zip(&to).cycle().take(8) {
            assert_eq!(arrive(*pc), ExitReason::Link { cell: to.cells.start }, "{flags:?}");
        }
        for removed in 0..pcs.len() {
            runner.jump_cache().remove(GuestAddr(pcs[removed]));
            assert_eq!(arrive(pcs[removed]), ExitReason::Indirect);
            for other in removed + 1..pcs.len() {
                assert_eq!(arrive(pcs[other]), ExitReason::Link { cell: to[other].cells.start });
            }
        }
    }
}

/// Enters a region, and interrupts it from another thread soon after.
fn enter_and_interrupt(runner: &mut Runner, region: &Region, cpu: &mut CpuState) -> ExitReason {
    let flag = &raw const cpu.rt.interrupt as usize;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(20));
            // SAFETY: the state outlives the scope, and the word is atomic.
            unsafe { &*(flag as *const std::sync::atomic::AtomicU32) }.store(1, Ordering::Relaxed);
        });
        runner.enter(region, cpu)
    })
}

#[test]
fn an_interrupt_stops_an_endless_loop_with_all_registers_stored() {
    let mut b = Builder::new();
    let (head, body) = (b.create_block(GuestAddr(0x1000)), b.create_block(GuestAddr(0x1004)));
    for (id, pc) in [(head, 0x1000), (body, 0x1004)] {
        b.switch_to(id);
        b.insn(GuestAddr(pc), 4);
        let old = add(&mut b, Reg::RAX, 1);
        b.put(Reg::RBX, old);
        b.exit(Exit::Goto(Target::Block(body)));
    }
    let region = b.finish();
    let mut runner = Runner::new();
    runner.options.state_at_faults = StateAtFaults::Precise;
    let mut cpu = runner.state(&mut Random::new(1));
    cpu.gpr[0] = 0;
    cpu.rt.interrupt.store(1, Ordering::Relaxed);
    assert_eq!(runner.enter(&region, &mut cpu), ExitReason::Interrupt);
    assert_eq!((cpu.rip, cpu.gpr[0]), (0x1000, 0), "the poll at the entry");

    cpu.rt.interrupt.store(0, Ordering::Relaxed);
    let reason = enter_and_interrupt(&mut runner, &region, &mut cpu);
    assert_eq!((reason, cpu.rip), (ExitReason::Interrupt, 0x1004));
    assert!(cpu.gpr[0] > 1000 && cpu.gpr[0] == cpu.gpr[3], "{:?}", cpu.gpr);
}

#[test]
fn computed_exits_go_on_where_they_are_predicted_to_lead() {
    // 0: rax += 1; computed to rbx, predicted 0 and 1. 1: rax += 16, out.
    let mut b = Builder::new();
    let (head, end) = (b.create_block(GuestAddr(0x1000)), b.create_block(GuestAddr(0x1004)));
    b.switch_to(head);
    b.insn(GuestAddr(0x1000), 4);
    add(&mut b, Reg::RAX, 1);
    let to = b.get(Type::I64, Reg::RBX);
    b.exit(Exit::Return(to));
    b.switch_to(end);
    b.insn(GuestAddr(0x1004), 4);
    add(&mut b, Reg::RAX, 16);
    b.exit(Exit::Goto(Target::Pc(NEXT)));
    let mut region = b.finish();
    region.predicted = vec![(head, head), (head, end)];
    let text = region.to_string();
    assert!(text.contains(", block0, block1"), "{text}");
    assert_eq!(calque_ir::parse::parse_region(&text).as_ref(), Ok(&region));

    let mut runner = Runner::new();
    let mut cpu = runner.state(&mut Random::new(1));
    (cpu.gpr[0], cpu.gpr[3]) = (0, 0x1004);
    assert!(matches!(runner.enter(&region, &mut cpu), ExitReason::Link { .. }));
    assert_eq!(cpu.gpr[0], 17);
    (cpu.gpr[0], cpu.gpr[3]) = (0, 0x1008);
    assert_eq!(runner.enter(&region, &mut cpu), ExitReason::Indirect);
    assert_eq!((cpu.rip, cpu.gpr[0], cpu.rt.jump), (0x1008, 1, 0x1000), "elsewhere, and the jump is named");

    // A cycle through a computed exit polls: out of the region, whose entry then sees the interrupt.
    (cpu.gpr[0], cpu.gpr[3]) = (0, 0x1000);
    let reason = enter_and_interrupt(&mut runner, &region, &mut cpu);
    assert_eq!((reason, cpu.rip), (ExitReason::Indirect, 0x1000));
    assert!(cpu.gpr[0] > 1000, "{:?}", cpu.gpr);
}

#[test]
fn flags_that_are_put_are_no_longer_deferred() {
    use calque_ir::deferred::{Deferred, Setter, kind_of};
    // As the lifter puts a flag that a known place reads.
    let mut b = Builder::new();
    let head = b.create_block(GuestAddr(0x1000));
    b.switch_to(head);
    b.insn(GuestAddr(0x1000), 4);
    let (carry, none) = (b.iconst(Type::I1, 1), b.iconst(Type::I32, 0));
    b.put(Reg::CF, carry);
    b.put(Reg::FLAGS_KIND, none);
    b.exit(Exit::Goto(Target::Pc(NEXT)));
    let region = b.finish();
    let mut runner = Runner::new();
    let mut cpu = runner.state(&mut Random::new(1));
    cpu.deferred = Deferred { a: 1, b: 1, kind: kind_of(Setter::Sub, Type::I64) };
    assert!(matches!(runner.enter(&region, &mut cpu), ExitReason::Link { .. }));
    assert_eq!((cpu.flags[0], cpu.deferred.kind), (1, 0));
}

#[test]
fn a_switch_leads_to_its_cases_and_out_elsewhere() {
    // The last two share a slot of sixteen bytes.
    const CASES: [u64; 7] = [0x1008, 0x1013, 0x1040, 0x1041, 0x10ff, 0x1200, 0x1206];
    let mut b = Builder::new();
    let head = b.create_block(GuestAddr(0x1000));
    let blocks = CASES.map(|pc| b.create_block(GuestAddr(pc)));
    b.switch_to(head);
    b.insn(GuestAddr(0x1000), 4);
    let to = b.get(Type::I64, Reg::RBX);
    b.exit(Exit::Indirect(to));
    for (i, block) in blocks.into_iter().enumerate() {
        b.switch_to(block);
        add(&mut b, Reg::RAX, 1 + i as u64);
        b.exit(Exit::Goto(Target::Pc(NEXT)));
    }
    let mut region = b.finish();
    region.predicted = blocks.map(|block| (head, block)).to_vec();

    let mut runner = Runner::new();
    let mut cpu = runner.state(&mut Random::new(1));
    for (i, pc) in CASES.into_iter().enumerate() {
        (cpu.gpr[0], cpu.gpr[3]) = (0, pc);
        assert!(matches!(runner.enter(&region, &mut cpu), ExitReason::Link { .. }), "{pc:#x}");
        assert_eq!(cpu.gpr[0], 1 + i as u64, "{pc:#x}");
    }
    for pc in CASES {
        for other in [pc + 2, pc - 1, pc + (1 << 32), pc + (1 << 36), pc | 1 << 63, 0, u64::MAX] {
            if !CASES.contains(&other) {
                (cpu.gpr[0], cpu.gpr[3]) = (0, other);
                assert_eq!(runner.enter(&region, &mut cpu), ExitReason::Indirect, "{other:#x}");
                assert_eq!((cpu.rip, cpu.gpr[0]), (other, 0));
            }
        }
    }
}

/// What the signal handler of the fault test saw.
#[cfg(target_arch = "x86_64")]
static FAULT: std::sync::Mutex<Option<(GuestAddr, [u64; 2])>> = std::sync::Mutex::new(None);
#[cfg(target_arch = "x86_64")]
static CACHE: std::sync::atomic::AtomicPtr<calque_backend::CodeCache> =
    std::sync::atomic::AtomicPtr::new(std::ptr::null_mut());
#[cfg(target_arch = "x86_64")]
static CPU: std::sync::atomic::AtomicPtr<CpuState> = std::sync::atomic::AtomicPtr::new(std::ptr::null_mut());

#[cfg(target_arch = "x86_64")]
extern "C" fn on_fault(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel's context; cache and state are alive while the test runs.
    unsafe {
        let context = &mut *context.cast::<libc::ucontext_t>();
        let pc = context.uc_mcontext.gregs[libc::REG_RIP as usize] as usize;
        let cpu = &mut *CPU.load(Ordering::Relaxed);
        let (_, guest) = (*CACHE.load(Ordering::Relaxed)).find_by_host_pc(pc).expect("generated code");
        *FAULT.lock().expect("not poisoned") = Some((guest, [cpu.gpr[0], cpu.gpr[3]]));
        cpu.rt.exit_reason = abi::REASON_HOST_FAULT;
        context.uc_mcontext.gregs[libc::REG_RIP as usize] = abi::fault_return().0 as i64;
        context.uc_mcontext.gregs[libc::REG_RSP as usize] = cpu.rt.host_sp as i64;
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_fault_finds_its_guest_pc_and_in_precise_mode_the_registers() {
    // SAFETY: installs a handler for this process, which no other test of this file needs.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_fault as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGSEGV, &action, std::ptr::null_mut());
    }
    let region = {
        let mut b = Builder::new();
        let id = b.create_block(GuestAddr(0x1000));
        b.switch_to(id);
        b.insn(GuestAddr(0x1000), 4);
        add(&mut b, Reg::RAX, 1);
        b.insn(GuestAddr(0x1004), 3);
        let rdx = b.get(Type::I64, Reg::RDX);
        let v = b.load(Type::I64, Mem::base(rdx));
        b.put(Reg::R8, v);
        b.insn(GuestAddr(0x1007), 3);
        let (rbx, r8) = (b.get(Type::I64, Reg::RBX), b.get(Type::I64, Reg::R8));
        let sum = b.binary(Op::Iadd, Type::I64, rbx, r8);
        b.put(Reg::RBX, sum);
        let zero = b.iconst(Type::I64, 0);
        b.put(Reg::R8, zero);
        b.exit(Exit::Goto(Target::Pc(NEXT)));
        b.finish()
    };
    let mut runner = Runner::new();
    runner.options.state_at_faults = StateAtFaults::Precise;
    let mut cpu = runner.state(&mut Random::new(1));
    (cpu.gpr[0], cpu.gpr[2], cpu.gpr[3]) = (41, 8, 5);
    CACHE.store(&raw mut runner.cache, Ordering::Relaxed);
    CPU.store(&raw mut cpu, Ordering::Relaxed);
    assert_eq!(runner.enter(&region, &mut cpu), ExitReason::HostFault);
    assert_eq!(*FAULT.lock().expect("not poisoned"), Some((GuestAddr(0x1004), [42, 5])));
}

#[test]
fn rounding_and_exception_flags_are_the_guests() {
    let divide = |b: &mut Builder| {
        let (x, y) = (b.get(Type::F64, Reg::xmm(0)), b.get(Type::F64, Reg::xmm(1)));
        let q = b.binary(Op::Fdiv, Type::F64, x, y);
        let v = b.unary(Op::ScalarToVector, Type::F64x2, q);
        b.put(Reg::xmm(2), v);
    };
    let region = block(0x1000, |b| {
        divide(b);
        let mxcsr = b.get(Type::I32, Reg::MXCSR);
        b.put(Reg::RAX, mxcsr);
        Exit::Goto(Target::Pc(NEXT))
    });
    let mut runner = Runner::new();
    let mut cpu = runner.state(&mut Random::new(1));
    (cpu.xmm[0], cpu.xmm[1]) = ([1f64.to_bits(), 0], [3f64.to_bits(), 0]);
    let mut quotient = |mxcsr: u32| {
        cpu.mxcsr = mxcsr;
        runner.enter(&region, &mut cpu);
        (cpu.xmm[2][0], cpu.gpr[0] as u32, cpu.mxcsr)
    };
    let down = (1.0f64 / 3.0).to_bits();
    assert_eq!(quotient(0x1f80), (down, 0x1fa0, 0x1fa0), "nearest, which is below; inexact is raised");
    assert_eq!(quotient(0x1f80 | 2 << 13).0, down + 1, "upwards");
    assert_eq!(1.0f64 / std::hint::black_box(3.0), f64::from_bits(down), "the host's own mode is back");
}

#[test]
fn counts_what_has_run_and_names_what_has_not() {
    let region = block(0x1000, |b| {
        let zf = b.get(Type::I1, Reg::ZF);
        b.fault_if(FaultKind::InvalidOpcode, zf);
        b.inst(Op::Count, Type::None, 0, Inst::count_args(5, 3, GuestAddr(0x1000)));
        Exit::Goto(Target::Pc(NEXT))
    });
    let mut runner = Runner::new();
    let mut cpu = runner.state(&mut Random::new(1));
    for zf in [0, 0, 1] {
        cpu.flags[3] = zf;
        runner.enter(&region, &mut cpu);
    }
    assert_eq!((cpu.rt.insns, runner.counters[3]), (10, 2));
    assert_eq!(calque_backend::abi::counter_ahead(&cpu), 3, "the third time it was left before");
}
