//! Audits every row of the table against iced-x86's own knowledge of the instruction: which registers, flags and memory it
//! reads and writes. It does not look at what is computed; that is compared with the processor in `tests/`.
//!
//! Encodings are random bytes from a fixed seed, some thousands for each opcode map.

use super::flags::FlagSet;
use super::table::{self, Status};
use super::{LiftOptions, ahead, lift_block};
use crate::decode::{Bytes, Decoded, Window};
use calque_ir::helper::HelperEffect;
use calque_ir::op::Effect;
use calque_ir::{Exit, FaultKind, GuestAddr, Helper, Op, Reg, Region};
use hashbrown::{HashMap, HashSet};
use iced_x86::{Instruction, InstructionInfoFactory, Mnemonic, OpAccess, Register};
use std::fmt::Write;

const PC: GuestAddr = GuestAddr(0x1000);

/// What an instruction touches. Registers whole, flags as registers.
#[derive(Default, Debug)]
struct Touched {
    reads: HashSet<Reg>,
    writes: HashSet<Reg>,
    loads: bool,
    stores: bool,
}

/// The same as iced knows it: what happens on each execution and what only may happen.
#[derive(Default, Debug)]
struct Known {
    reads: HashSet<Reg>,
    maybe_reads: HashSet<Reg>,
    writes: HashSet<Reg>,
    maybe_writes: HashSet<Reg>,
    loads: bool,
    stores: bool,
    memory: bool,
}

fn lifted(region: &Region) -> Touched {
    let mut t = Touched::default();
    for i in &region.insts {
        let reg = || Reg::from_index(i.aux as usize).unwrap();
        match i.op {
            Op::Get => drop(t.reads.insert(reg())),
            Op::Put => drop(t.writes.insert(reg())),
            Op::Load => t.loads = true,
            Op::Store => t.stores = true,
            Op::Rmw | Op::Cas => (t.loads, t.stores) = (true, true),
            _ => {}
        }
    }
    t
}

/// The IR's registers that make up one of iced's, which calls what VEX writes YMM or ZMM.
fn regs_of(r: Register) -> Vec<Reg> {
    let full = r.full_register();
    if full.is_gpr64() {
        return vec![Reg::gpr(full.number())];
    }
    match r {
        _ if r.is_xmm() => vec![Reg::xmm(r.number())],
        _ if r.is_vector_register() => vec![Reg::xmm(r.number()), Reg::ymmh(r.number())],
        _ => vec![],
    }
}

fn known(i: &Instruction, factory: &mut InstructionInfoFactory) -> Known {
    let info = factory.info(i);
    let mut k = Known::default();
    let parts =
        info.used_registers().iter().flat_map(|used| regs_of(used.register()).into_iter().map(move |r| (used, r)));
    for (used, reg) in parts {
        let (read, write) = access(used.access());
        // Writing a part of a register reads the rest; a 32-bit part does not.
        let partial = write.is_some() && used.register().size() < 4;
        let whole = used.register().is_gpr32()
            || used.register() == used.register().full_register()
            || used.register().is_xmm();
        if read == Some(true) {
            k.reads.insert(reg);
        }
        if read.is_some() || partial || !whole || write == Some(false) {
            k.maybe_reads.insert(reg);
        }
        if write == Some(true) {
            k.writes.insert(reg);
        }
        if write.is_some() {
            k.maybe_writes.insert(reg);
        }
        // An XMM register written in part.
        if write.is_some() && reg.ty().is_vector() {
            k.maybe_reads.insert(reg);
        }
    }
    for m in info.used_memory() {
        let (read, write) = access(m.access());
        k.loads |= read.is_some();
        k.stores |= write.is_some();
        k.memory |= read.is_some() || write.is_some();
    }
    let defined = i.rflags_modified() & !i.rflags_undefined();
    for (set, bits) in
        [(&mut k.reads, i.rflags_read()), (&mut k.writes, defined), (&mut k.maybe_writes, i.rflags_modified())]
    {
        set.extend(ahead::from_rflags(bits).iter().map(|f| f.reg()));
    }
    let by_count = ahead::kills(i) == FlagSet::NONE && defined != 0;
    if by_count {
        k.maybe_reads.extend(ahead::from_rflags(i.rflags_modified()).iter().map(|f| f.reg()));
    }
    let reads = k.reads.clone();
    k.maybe_reads.extend(reads);
    k
}

/// Read and write: `Some(true)` always, `Some(false)` on a condition.
fn access(a: OpAccess) -> (Option<bool>, Option<bool>) {
    match a {
        OpAccess::Read => (Some(true), None),
        OpAccess::CondRead => (Some(false), None),
        OpAccess::Write => (None, Some(true)),
        OpAccess::CondWrite => (None, Some(false)),
        OpAccess::ReadWrite => (Some(true), Some(true)),
        OpAccess::ReadCondWrite => (Some(true), Some(false)),
        OpAccess::None | OpAccess::NoMemAccess => (None, None),
    }
}

/// Instructions that are meant to differ.
fn exempt(i: &Instruction) -> bool {
    use Mnemonic::*;
    match i.mnemonic() {
        // Hints: iced says that they read their address.
        Prefetch | Prefetchnta | Prefetcht0 | Prefetcht1 | Prefetcht2 | Prefetchw | Prefetchwt1 | Cldemote => true,
        // Without shadow stacks a no-op (SDM vol. 2 RDSSPD).
        Rdsspd | Rdsspq => true,
        // RCX, R11 and the flags are the system call's to write.
        Syscall => true,
        // At the edge of a page, elements are first written with what they hold.
        Maskmovdqu | Vmaskmovdqu | Vmaskmovps | Vmaskmovpd | Vpmaskmovd | Vpmaskmovq => true,
        // As the kernel answers them: the rest of a 32-bit register stays.
        Sldt | Str | Smsw => true,
        // iced takes a rotate of 9 or 17 bits for none; processors write CF and OF.
        Rcl | Rcr => true,
        // A compare-and-swap that fails keeps the flags.
        Adc | Sbb | Neg => i.has_lock_prefix(),
        _ => false,
    }
}

fn complaints(i: &Instruction, region: &Region, factory: &mut InstructionInfoFactory) -> Vec<String> {
    let (t, k) = (lifted(region), known(i, factory));
    let mut out = Vec::new();
    let mut complain = |what: &str, reg: Option<Reg>| out.push(format!("{what} {}", reg.map_or("", |r| r.name())));
    let own = |r: &&Reg| {
        matches!(r.kind(), calque_ir::reg::RegKind::Gpr(_) | calque_ir::reg::RegKind::Xmm(_)) || Reg::STATUS.contains(r)
    };
    for r in t.reads.iter().filter(own).filter(|r| !k.maybe_reads.contains(*r)) {
        complain("reads, but should not,", Some(*r));
    }
    for r in k.reads.iter().filter(|r| !t.reads.contains(*r)) {
        complain("does not read", Some(*r));
    }
    for r in t.writes.iter().filter(own).filter(|r| !k.maybe_writes.contains(*r)) {
        complain("writes, but should not,", Some(*r));
    }
    for r in k.writes.iter().filter(|r| !t.writes.contains(*r)) {
        complain("does not write", Some(*r));
    }
    if t.loads != k.loads {
        complain(if k.loads { "does not load" } else { "loads" }, None);
    }
    if t.stores != k.stores {
        complain(if k.stores { "does not store" } else { "stores" }, None);
    }
    out
}

/// Random instructions that have a row.
fn samples(n: usize) -> Vec<([u8; 15], Instruction)> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    };
    let rows: HashSet<Mnemonic> =
        table::rows().filter(|r| r.status != Status::Unimplemented).map(|r| r.mnemonic).collect();
    let mut window = Window::<32>::new();
    let mut out = Vec::new();
    while out.len() < n {
        let mut bytes = [0; 15];
        for b in &mut bytes {
            *b = random() as u8;
        }
        let starts: [&[u8]; 14] = [
            &[],
            &[0x0f],
            &[0x66, 0x0f],
            &[0xf3, 0x0f],
            &[0xf2, 0x0f],
            &[0x48],
            &[0x66, 0x0f, 0x38],
            &[0x66, 0x0f, 0x3a],
            &[0xf0],
            &[0xf3],
            &[0xc5],
            &[0xc4, 0xe1],
            &[0xc4, 0xe2],
            &[0xc4, 0xe3],
        ];
        let start = starts[random() as usize % starts.len()];
        bytes[..start.len()].copy_from_slice(start);
        let (what, i) = window.one(&Bytes { pc: PC, bytes: &bytes }, PC);
        if what == Decoded::Insn && rows.contains(&i.mnemonic()) {
            out.push((bytes, i));
        }
    }
    out
}

/// Whether the code of an instruction depends on the control words of floating point, or may raise their exceptions.
fn depends_on_control(region: &Region) -> bool {
    region.insts.iter().any(|i| match i.op {
        Op::Call => match Helper::from_code(i.aux).effect() {
            HelperEffect::Mxcsr => true,
            HelperEffect::X87 => {
                region.insts.iter().any(|i| i.op == Op::FaultIf && i.aux == FaultKind::X87Float as u16)
            }
            _ => false,
        },
        op => op.raises(),
    })
}

#[test]
fn what_depends_on_the_control_words_is_guarded() {
    let mut found: HashMap<Mnemonic, String> = HashMap::new();
    for (bytes, i) in samples(60_000) {
        let code = Bytes { pc: PC, bytes: &bytes[..i.len()] };
        let lift = |guarded_floats| {
            lift_block(&code, PC, &LiftOptions { block_insns: 1, guarded_floats, ..LiftOptions::default() })
        };
        let asks = matches!(lift(true).insts.first(), Some(first) if first.op == Op::Uncarried);
        if depends_on_control(&lift(false)) && !asks {
            found.insert(i.mnemonic(), i.to_string());
        }
    }
    assert!(found.is_empty(), "{:#?}", found.values());
}

#[test]
fn integers_in_vectors_are_not_guarded() {
    for mnemonic in
        [Mnemonic::Movaps, Mnemonic::Pxor, Mnemonic::Vpaddd, Mnemonic::Xorps, Mnemonic::Pshufb, Mnemonic::Vptest]
    {
        assert!(!table::computes(mnemonic), "{mnemonic:?}");
    }
    for mnemonic in [Mnemonic::Addps, Mnemonic::Vfmadd231sd, Mnemonic::Cvttsd2si, Mnemonic::Vsqrtpd, Mnemonic::Ucomiss]
    {
        assert!(table::computes(mnemonic), "{mnemonic:?}");
    }
}

#[test]
fn rows_touch_what_instructions_touch() {
    let mut factory = InstructionInfoFactory::new();
    let mut found: HashMap<String, String> = HashMap::new();
    for (bytes, i) in samples(60_000) {
        let region = lift_block(
            &Bytes { pc: PC, bytes: &bytes[..i.len()] },
            PC,
            &LiftOptions { block_insns: 1, ..LiftOptions::default() },
        );
        let faults =
            region.blocks.iter().any(|b| matches!(b.exit, Exit::Fault { kind, .. } if kind != FaultKind::Breakpoint));
        let helper = region.insts.iter().any(|i| i.op.effect() == Effect::Helper);
        if faults || helper || exempt(&i) || i.op0_register().is_mm() || i.op1_register().is_mm() {
            continue;
        }
        for c in complaints(&i, &region, &mut factory) {
            let key = format!("{:?} {c}", i.mnemonic());
            found.entry(key).or_insert_with(|| format!("{i} {:02x?}", &bytes[..i.len()]));
        }
    }
    let mut report: Vec<_> = found.into_iter().collect();
    report.sort();
    let mut text = String::new();
    for (complaint, sample) in &report {
        let _ = writeln!(text, "{complaint}: {sample}");
    }
    assert!(report.is_empty(), "{} differences\n{text}", report.len());
}
