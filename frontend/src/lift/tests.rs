//! Bytes to IR, as invariants of the result (golden text stands in `tests/`).

use super::*;
use crate::decode::Bytes;
use calque_ir::{Cc, Reg, Target};

const PC: GuestAddr = GuestAddr(0x40_1000);

fn lift(bytes: &[u8]) -> Region {
    lift_block(&Bytes { pc: PC, bytes }, PC, &LiftOptions::default())
}

/// Operations of block 0, without marks.
fn ops(region: &Region) -> Vec<Op> {
    region.block_insts(BlockId(0)).iter().map(|i| i.op).filter(|op| *op != Op::Insn).collect()
}

#[test]
fn add_leaves_flags_to_whoever_asks() {
    // add rax,rbx; add rax,rbx; jmp to an xor that overwrites all flags
    let r = lift(&[0x48, 0x01, 0xd8, 0x48, 0x01, 0xd8, 0xeb, 0x00, 0x48, 0x31, 0xc0]);
    assert_eq!(ops(&r), [Op::Get, Op::Get, Op::Iadd, Op::Put, Op::Iadd, Op::Put]);
    assert_eq!(r.source[..], [(PC, 8)]);
    assert_eq!(r.guest_insns, 3);
}

#[test]
fn cmp_and_branch_is_one_compare() {
    // cmp eax,ebx; jl +0; (xor eax,eax)
    let r = lift(&[0x39, 0xd8, 0x7c, 0x00, 0x31, 0xc0]);
    assert_eq!(ops(&r), [Op::Get, Op::Get, Op::Icmp]);
    assert_eq!(r.insts.last().unwrap().aux, Cc::SignedLessThan as u16);
    let next = Target::Pc(GuestAddr(PC.0 + 4));
    assert!(
        matches!(r.blocks[0].exit, Exit::Branch { taken, fallthrough, .. } if taken == next && fallthrough == next)
    );
}

#[test]
fn flags_are_put_where_they_may_be_read() {
    // add rax,rbx; ret
    let r = lift(&[0x48, 0x01, 0xd8, 0xc3]);
    let put: Vec<_> = r.insts.iter().filter(|i| i.op == Op::Put).map(|i| i.aux as usize).collect();
    assert!(Reg::STATUS.iter().all(|f| put.contains(&f.index())), "{put:?}");
}

/// The registers that a block puts, lifted to be emitted.
fn puts(bytes: &[u8]) -> Vec<usize> {
    let mut lifted = Lifted::default();
    lifted.block(&Bytes { pc: PC, bytes }, PC, &LiftOptions { defers: true, ..LiftOptions::default() });
    lifted.region().insts.iter().filter(|i| i.op == Op::Put).map(|i| i.aux as usize).collect()
}

#[test]
fn flags_that_only_unknown_places_may_read_are_deferred() {
    let deferred = [Reg::FLAGS_KIND, Reg::FLAGS_A, Reg::FLAGS_B].map(Reg::index);
    assert_eq!(puts(&[0x48, 0x39, 0xd8, 0xff, 0xe1]), deferred); // cmp rax,rbx; jmp rcx
    assert_eq!(puts(&[0x48, 0x39, 0xd8, 0xeb, 0x00, 0x90, 0xff, 0xe1]), deferred); // cmp rax,rbx; jmp +0; nop; jmp rcx
    let zeroed = [Reg::RAX, Reg::FLAGS_KIND, Reg::FLAGS_A].map(Reg::index);
    assert_eq!(puts(&[0x31, 0xc0, 0xff, 0xe1]), zeroed, "AF is 0, as after any logic operation that is deferred"); // xor eax,eax; jmp rcx
    // cmp rax,rbx; jmp +0; setb al; jmp rcx: CF is read, so it is put as well.
    let read = puts(&[0x48, 0x39, 0xd8, 0xeb, 0x00, 0x0f, 0x92, 0xc0, 0xff, 0xe1]);
    assert!(read.contains(&Reg::CF.index()), "{read:?}");
    // cmp rax,rbx; sbb ecx,ecx; jmp rdx: CF comes from elsewhere than the others.
    let mixed = puts(&[0x48, 0x39, 0xd8, 0x19, 0xc9, 0xff, 0xe2]);
    assert!(Reg::STATUS.iter().all(|f| mixed.contains(&f.index())), "{mixed:?}");
}

#[test]
fn memory_is_reused_from_block_to_block() {
    let code = Bytes { pc: PC, bytes: &[0x48, 0x01, 0xd8, 0xc3, 0x90, 0xeb, 0x00] }; // add rax,rbx; ret; nop; jmp +0
    let options = LiftOptions::default();
    let mut lifted = Lifted::default();
    for at in [0, 4, 0] {
        let pc = GuestAddr(PC.0 + at);
        lifted.block(&code, pc, &options);
        assert_eq!(*lifted.region(), lift_block(&code, pc, &options));
    }
}

#[test]
fn unknown_and_invalid_end_the_block() {
    let kind = |bytes: &[u8]| match lift(bytes).blocks[0].exit {
        Exit::Fault { kind, .. } => kind,
        exit => panic!("{exit:?}"),
    };
    assert_eq!(kind(&[0x06, 0x90]), FaultKind::InvalidOpcode); // push es
    assert_eq!(kind(&[0xc5, 0xf8]), FaultKind::Fetch); // half a vzeroupper
    assert_eq!(kind(&[0x62, 0xf1, 0x7c, 0x48, 0x58, 0xc0]), FaultKind::InvalidOpcode); // vaddps zmm0,zmm0,zmm0: no AVX-512
    assert_eq!(kind(&[0x0f, 0x01, 0xe8]), FaultKind::Unimplemented); // serialize
}

#[test]
fn regions_end_where_nothing_can_be_fetched() {
    // 0: test eax,eax  2: jne 0x40  4: jmp 0; nothing is at 0x40
    let bytes = [0x85, 0xc0, 0x75, 0x3c, 0xeb, 0xfa];
    let code = Bytes { pc: PC, bytes: &bytes };
    let r = lift_region(&code, PC, &EveryBlock, &LiftOptions::default());
    let outside = Target::Pc(GuestAddr(PC.0 + 0x40));
    assert!(r.blocks.iter().any(|block| block.exit.targets().any(|target| target == outside)));
    assert!(!r.blocks.iter().any(|block| matches!(block.exit, Exit::Fault { .. })));
    // Its entry is what it is asked for.
    let r = lift_region(&code, GuestAddr(PC.0 + 0x40), &EveryBlock, &LiftOptions::default());
    assert!(matches!(r.blocks[0].exit, Exit::Fault { kind: FaultKind::Fetch, .. }));
}

#[test]
fn regions_split_blocks_and_close_loops() {
    // 0: xor eax,eax  2: inc eax  4: cmp eax,ebx  6: jne 2  8: ret
    let bytes = [0x31, 0xc0, 0xff, 0xc0, 0x39, 0xd8, 0x75, 0xfa, 0xc3];
    let r = lift_region(&Bytes { pc: PC, bytes: &bytes }, PC, &EveryBlock, &LiftOptions::default());
    let pcs: Vec<_> = r.blocks.iter().map(|b| b.pc.0 - PC.0).collect();
    // Four rounds of the loop; then the edge out of it, where RET makes the flags live.
    assert_eq!(pcs, [0, 2, 2, 2, 2, 8, 8]);
    assert_eq!(r.blocks[0].exit, Exit::Goto(Target::Block(BlockId(1))));
    for (round, next) in [(1, 2), (2, 3), (3, 4), (4, 1)] {
        let targets: Vec<_> = r.blocks[round].exit.targets().collect();
        assert_eq!(targets, [next, 5].map(|id| Target::Block(BlockId(id))));
    }
    assert_eq!(r.blocks[5].exit, Exit::Goto(Target::Block(BlockId(6))));
    let puts = |block| r.block_insts(BlockId(block)).iter().filter(|i| i.op == Op::Put).count();
    assert_eq!((puts(1), puts(5)), (1, 3), "the loop puts EAX, the edge what the flags come from");
    assert_eq!(r.source[..], [(PC, 9)]);
    assert_eq!(r.guest_insns, 5);
}

/// Blocks by offset, and the predicted ones of each.
fn flow_of(region: &Region) -> Vec<(u64, Vec<u64>)> {
    let offset = |id: BlockId| region.blocks[id.0 as usize].pc.0 - PC.0;
    region.block_ids().map(|id| (offset(id), region.predicted_of(id).map(offset).collect())).collect()
}

#[test]
fn small_functions_are_part_of_what_calls_them() {
    // 0: call 0x10  5: add eax,ebx  7: call 0x10  c: xor eax,eax  e: ret    10: inc eax  12: ret
    let mut bytes = [0x90; 0x13];
    bytes[..15].copy_from_slice(&[0xe8, 0x0b, 0, 0, 0, 0x01, 0xd8, 0xe8, 4, 0, 0, 0, 0x31, 0xc0, 0xc3]);
    bytes[16..].copy_from_slice(&[0xff, 0xc0, 0xc3]);
    let code = Bytes { pc: PC, bytes: &bytes };
    let region = lift_region(&code, PC, &EveryBlock, &LiftOptions::default());
    let flow = flow_of(&region);
    assert_eq!(flow.iter().filter(|(_, to)| *to == [5, 12]).map(|(at, _)| *at).collect::<Vec<_>>(), [0x10]);
    assert_eq!(flow.len(), 4, "the function is there once: {flow:?}");
    let calls = region.blocks.iter().filter(|b| matches!(b.exit, Exit::Call { target: Target::Block(_), .. }));
    assert_eq!(calls.count(), 2);
    assert_eq!(region.source[..], [(PC, 15), (GuestAddr(PC.0 + 16), 3)]);
    for alone in [
        LiftOptions { into_calls: false, ..LiftOptions::default() },
        LiftOptions { precise: true, ..LiftOptions::default() },
        LiftOptions { profile: true, ..LiftOptions::default() },
    ] {
        let region = lift_region(&code, PC, &EveryBlock, &alone);
        assert_eq!((region.predicted.len(), &region.source[..]), (0, &[(PC, 5)][..]), "{alone:?}");
    }
}

#[test]
fn no_return_is_predicted_where_flags_are_wanted() {
    // 0: call 7  5: setb al  8: ret    9: inc eax  b: ret
    let bytes = [0xe8, 4, 0, 0, 0, 0x0f, 0x92, 0xc0, 0xc3, 0xff, 0xc0, 0xc3];
    let region = lift_region(&Bytes { pc: PC, bytes: &bytes }, PC, &EveryBlock, &LiftOptions::default());
    assert_eq!((&region.predicted[..], &region.source[..]), (&[][..], &[(PC, 5)][..]));
}

#[test]
fn no_return_is_predicted_to_a_block_that_wants_flags() {
    // 0: je 0xe  2: call 0x18  7: xor eax,eax  9: call 0x18  e: setb al  11: dec ecx  13: jne 0xe  15: ret    18: cmp edi,esi  1a: ret
    let mut bytes = [0x90; 0x1b];
    bytes[..14].copy_from_slice(&[0x74, 0x0c, 0xe8, 0x11, 0, 0, 0, 0x31, 0xc0, 0xe8, 0x0a, 0, 0, 0]);
    bytes[14..22].copy_from_slice(&[0x0f, 0x92, 0xc0, 0xff, 0xc9, 0x75, 0xf7, 0xc3]);
    bytes[24..].copy_from_slice(&[0x39, 0xf7, 0xc3]);
    let region = lift_region(&Bytes { pc: PC, bytes: &bytes }, PC, &EveryBlock, &LiftOptions::default());
    let flow = flow_of(&region);
    assert!(flow.iter().any(|(at, _)| *at == 14), "the place behind the second call is a block: {region}");
    assert_eq!(flow.iter().find(|(at, _)| *at == 24), Some(&(24, vec![7])), "{region}");
}

#[test]
fn a_recursive_function_calls_itself() {
    // 0: dec edi  2: je 0xb  4: call 0  9: xor eax,eax  b: ret
    let bytes = [0xff, 0xcf, 0x74, 7, 0xe8, 0xf7, 0xff, 0xff, 0xff, 0x31, 0xc0, 0xc3];
    let region = lift_region(&Bytes { pc: PC, bytes: &bytes }, PC, &EveryBlock, &LiftOptions::default());
    let back = Target::Block(BlockId(0));
    assert!(region.blocks.iter().any(|b| matches!(b.exit, Exit::Call { target, .. } if target == back)));
    assert!(flow_of(&region).contains(&(11, vec![9])), "{region}");
}

#[test]
fn likely_targets_of_computed_jumps_are_taken_in() {
    struct Likely(GuestAddr);
    impl Profile for Likely {
        fn executed(&self, _: GuestAddr) -> bool {
            true
        }
        fn likely_targets(&self, jump: GuestAddr) -> Vec<GuestAddr> {
            if jump == PC { vec![self.0] } else { vec![] }
        }
        fn all_targets(&self, _: GuestAddr) -> Vec<GuestAddr> {
            vec![]
        }
    }
    // 0: call rax  2: xor eax,eax  4: ret    5: xor ecx,ecx  7: ret    8: setb al  b: ret
    let bytes = [0xff, 0xd0, 0x31, 0xc0, 0xc3, 0x31, 0xc9, 0xc3, 0x0f, 0x92, 0xc0, 0xc3];
    let code = Bytes { pc: PC, bytes: &bytes };
    let flow = |to: u64| flow_of(&lift_region(&code, PC, &Likely(GuestAddr(PC.0 + to)), &LiftOptions::default()));
    assert_eq!(flow(5), [(0, vec![5]), (5, vec![2]), (2, vec![])]);
    assert_eq!(flow(8), [(0, vec![])], "which wants flags");
}

/// A profile in which everything has run and one jump has led to these places.
struct Led(GuestAddr, Vec<GuestAddr>);

impl Profile for Led {
    fn executed(&self, _: GuestAddr) -> bool {
        true
    }
    fn likely_targets(&self, _: GuestAddr) -> Vec<GuestAddr> {
        vec![]
    }
    fn all_targets(&self, jump: GuestAddr) -> Vec<GuestAddr> {
        if jump == self.0 { self.1.clone() } else { vec![] }
    }
}

#[test]
fn cases_of_a_switch_are_taken_in() {
    // 0: xor ecx,ecx  2: jmp rax    4: xor edx,edx  6: jmp 0    8: xor ebx,ebx  a: jmp 0    c: setb al  f: ret
    let bytes = [0x31, 0xc9, 0xff, 0xe0, 0x31, 0xd2, 0xeb, 0xf8, 0x31, 0xdb, 0xeb, 0xf4, 0x0f, 0x92, 0xc0, 0xc3];
    let code = Bytes { pc: PC, bytes: &bytes };
    let flow = |to: &[u64], options: &LiftOptions| {
        let led = Led(GuestAddr(PC.0 + 2), to.iter().map(|to| GuestAddr(PC.0 + to)).collect());
        let mut flow = flow_of(&lift_region(&code, PC, &led, options));
        flow.sort();
        flow
    };
    let default = LiftOptions::default();
    assert_eq!(flow(&[4, 8], &default), [(0, vec![4, 8]), (4, vec![]), (8, vec![])]);
    assert_eq!(flow(&[4, 12], &default), [(0, vec![4]), (4, vec![])], "one wants flags");
    assert_eq!(flow(&[], &default), [(0, vec![])]);
    assert_eq!(flow(&[4, 8], &LiftOptions { max_blocks: 3, ..default }), [(0, vec![])], "all cases or none");
    assert_eq!(flow(&[4, 8], &LiftOptions { profile: true, ..LiftOptions::default() }), [(0, vec![])]);
}

/// What `count`s of a region lifted for profiling say: instructions, offset of the first.
fn counts(region: &Region) -> Vec<(u32, u64)> {
    let counted = region.insts.iter().filter(|i| i.op == Op::Count).map(Inst::counted);
    counted.map(|(n, _, pc)| (n, pc.0 - PC.0)).collect()
}

#[test]
fn profiling_counts_what_completes() {
    let opts = LiftOptions { profile: true, ..LiftOptions::default() };
    let block = |bytes: &[u8]| lift_block(&Bytes { pc: PC, bytes }, PC, &opts);
    // inc eax; call +0
    let call = block(&[0xff, 0xc0, 0xe8, 0, 0, 0, 0]);
    assert_eq!(counts(&call), [(2, 0)]);
    let place = |op| call.insts.iter().position(|i| i.op == op).unwrap();
    assert!(place(Op::Count) < place(Op::Call), "what is told of counts already");
    assert_eq!(call.insts[place(Op::Call)].aux, Helper::ProfileCall as u16);
    // inc eax; ud2: that one is not executed. int3 is.
    assert_eq!(counts(&block(&[0xff, 0xc0, 0x0f, 0x0b])), [(1, 0)]);
    assert_eq!(counts(&block(&[0xff, 0xc0, 0xcc])), [(2, 0)]);
    // inc eax; rep stosb; inc eax; ret: REP is complete in the block behind its loop.
    assert_eq!(counts(&block(&[0xff, 0xc0, 0xf3, 0xaa, 0xff, 0xc0, 0xc3])), [(1, 0), (3, 2)]);
    assert_eq!(counts(&lift(&[0xff, 0xc0, 0xc3])), [], "only where it is asked for");
}

/// Where an instruction goes on in blocks of its own, a fault before it branches leaves nothing uncounted: in any encoding with a memory operand.
#[test]
fn what_precedes_a_fault_is_counted() {
    let opts =
        LiftOptions { profile: true, precise: true, precise_floats: true, block_insns: 2, ..LiftOptions::default() };
    let legacy = [&[][..], &[0x66], &[0xf3], &[0xf2]].into_iter().flat_map(|prefix| {
        let maps = [&[][..], &[0x48], &[0x0f], &[0x48, 0x0f], &[0x0f, 0x38], &[0x0f, 0x3a]];
        maps.map(|map| [prefix, map].concat())
    });
    let vex =
        (1..4u8).flat_map(|map| (0..16u8).map(move |form| vec![0xc4, 0xe0 | map, 0x78 | form & 7 | (form & 8) << 4]));
    for head in legacy.chain(vex) {
        for (opcode, reg) in (0..=255u8).flat_map(|opcode| (0..8u8).map(move |reg| (opcode, reg))) {
            let bytes = [&[0xff, 0xc0], &head[..], &[opcode, reg << 3], &[0; 8]].concat();
            let region = lift_block(&Bytes { pc: PC, bytes: &bytes }, PC, &opts);
            let (mut at, mut may_stop) = (PC, false);
            for inst in &region.insts {
                match inst.op {
                    Op::Insn => (at, may_stop) = (GuestAddr(inst.imm()), false),
                    Op::Count if inst.counted().2 == PC && inst.counted().0 == 1 && at != PC => {
                        assert!(!may_stop, "{bytes:02x?}\n{region}");
                    }
                    op => may_stop |= op.may_stop(),
                }
            }
        }
    }
}

#[test]
fn profiled_regions_count_each_instruction_once() {
    // 0: inc ecx  2: jne 5  4: f0 (lock)  5: inc [rax]  7: ret; the two ways decode the bytes differently.
    let bytes = [0xff, 0xc1, 0x75, 0x01, 0xf0, 0xff, 0x00, 0xc3];
    let opts = LiftOptions { profile: true, ..LiftOptions::default() };
    let region = lift_region(&Bytes { pc: PC, bytes: &bytes }, PC, &EveryBlock, &opts);
    let mut all = counts(&region);
    all.sort_by_key(|&(n, at)| (at, n));
    assert_eq!(all, [(2, 0), (1, 4), (1, 5), (1, 7)]);
}

#[test]
fn flags_that_may_still_be_read_are_put_before_a_fault_from_which_execution_goes_on() {
    // 0: cmp rax,rbx  3: mov rcx,[rdx]  6: je 0xc  8: add rax,rbx  b: ret  c: add rbx,rax  f: ret
    let bytes = [0x48, 0x39, 0xd8, 0x48, 0x8b, 0x0a, 0x74, 0x04, 0x48, 1, 0xd8, 0xc3, 0x48, 1, 0xc3, 0xc3];
    let put_before_load = |opts: &LiftOptions| {
        let region = lift_block(&Bytes { pc: PC, bytes: &bytes }, PC, opts);
        let before = region.insts.iter().take_while(|inst| inst.op != Op::Load);
        before.filter(|inst| inst.op == Op::Put).map(|inst| inst.aux as usize).collect::<Vec<_>>()
    };
    assert_eq!(put_before_load(&LiftOptions::default()), [0; 0]);
    assert_eq!(put_before_load(&LiftOptions { resumable: true, ..LiftOptions::default() }), [Reg::ZF.index()]);
    let all = put_before_load(&LiftOptions { precise: true, ..LiftOptions::default() });
    assert_eq!(all, Reg::STATUS.map(Reg::index));
}

#[test]
fn a_function_that_is_not_taken_in_leaves_nothing_behind() {
    // 0: test edi,edi  2: je 9  4: call 0x20  9: call 0  e: test edi,edi  10: je 0  12: xor eax,eax  14: ret
    // 20: test edi,edi  22: je 0x26  24: xor eax,eax  26: jmp [rip], which leads to  30: xor eax,eax  32: jmp 0x32
    let mut bytes = [0x90; 0x34];
    bytes[..9].copy_from_slice(&[0x85, 0xff, 0x74, 0x05, 0xe8, 0x17, 0, 0, 0]);
    bytes[9..0x15].copy_from_slice(&[0xe8, 0xf2, 0xff, 0xff, 0xff, 0x85, 0xff, 0x74, 0xee, 0x31, 0xc0, 0xc3]);
    bytes[0x20..0x2c].copy_from_slice(&[0x85, 0xff, 0x74, 0x02, 0x31, 0xc0, 0xff, 0x25, 0, 0, 0, 0]);
    bytes[0x30..].copy_from_slice(&[0x31, 0xc0, 0xeb, 0xfe]);
    struct Stub;
    impl Profile for Stub {
        fn executed(&self, _: GuestAddr) -> bool {
            true
        }
        fn likely_targets(&self, jump: GuestAddr) -> Vec<GuestAddr> {
            if jump.0 == PC.0 + 0x26 { vec![GuestAddr(PC.0 + 0x30)] } else { Vec::new() }
        }
        fn all_targets(&self, _: GuestAddr) -> Vec<GuestAddr> {
            Vec::new()
        }
    }
    let region = lift_region(&Bytes { pc: PC, bytes: &bytes }, PC, &Stub, &LiftOptions::default());
    assert_eq!(region.source[..], [(PC, 0x15)], "what never returns is no part of it");
}
