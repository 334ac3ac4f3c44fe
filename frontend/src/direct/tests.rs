use super::table::KNOWN;
use super::{Direct, End, Source};
use crate::decode::{Bytes, MAX_INSN};
use crate::lift::{Insn, LiftOptions, lift_block};
use crate::plain;
use calque_ir::interp::{self, Frame, Host, Next, Trap};
use calque_ir::state::V128;
use calque_ir::{CpuState, GuestAddr, Helper};
use iced_x86::Mnemonic;
use std::collections::{BTreeMap, HashSet};

const PC: GuestAddr = GuestAddr(0x40_0000);

/// Memory everywhere but on each third page; what was not written is made up.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
struct Memory(BTreeMap<u64, u8>);

impl Memory {
    fn check(addr: u64, bytes: u64) -> Result<(), u64> {
        let fails = |addr: &u64| (addr >> 12).is_multiple_of(3);
        [addr, addr.wrapping_add(bytes - 1)].into_iter().find(fails).map_or(Ok(()), Err)
    }
}

impl Host for Memory {
    type Fault = u64;

    fn load(&mut self, addr: u64, bytes: u32) -> Result<u64, u64> {
        Self::check(addr, bytes.into())?;
        let byte = |n: u32| {
            let at = addr.wrapping_add(n.into());
            self.0.get(&at).copied().unwrap_or((at ^ at >> 7).wrapping_mul(0x3d) as u8)
        };
        Ok((0..bytes).map(|n| u64::from(byte(n)) << (8 * n)).sum())
    }

    fn load128(&mut self, addr: u64) -> Result<V128, u64> {
        Self::check(addr, 16)?;
        Ok([self.load(addr, 8)?, self.load(addr.wrapping_add(8), 8)?])
    }

    fn store(&mut self, addr: u64, bytes: u32, value: u64) -> Result<(), u64> {
        Self::check(addr, bytes.into())?;
        self.0.extend((0..bytes).map(|n| (addr.wrapping_add(n.into()), (value >> (8 * n)) as u8)));
        Ok(())
    }

    fn store128(&mut self, addr: u64, value: V128) -> Result<(), u64> {
        Self::check(addr, 16)?;
        self.store(addr, 8, value[0])?;
        self.store(addr.wrapping_add(8), 8, value[1])
    }

    fn fence(&mut self) {}

    fn helper(&mut self, _: &mut CpuState, _: Helper, _: u64, _: u64, _: u64) -> u64 {
        unreachable!("nothing that is carried out directly calls one")
    }
}

/// Registers that are numbers and addresses of all kinds.
fn state(seed: u64) -> CpuState {
    let mut random = seed;
    let mut next = || {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        random ^ random >> 33
    };
    let mut cpu = CpuState::new();
    let widths = [64, 32, 16, 8, 1];
    cpu.gpr = std::array::from_fn(|n| next() >> (64 - widths[(n + seed as usize) % widths.len()]));
    cpu.xmm = std::array::from_fn(|_| [next(), next()]);
    cpu.flags[..6].iter_mut().for_each(|flag| *flag = (next() >> 40) as u8 & 1);
    (cpu.rip, cpu.fs_base) = (PC.0, next());
    cpu
}

/// What a guest can see; AF only where it is defined.
fn seen(cpu: &CpuState, mnemonic: Mnemonic) -> impl PartialEq + std::fmt::Debug + use<> {
    let mut flags = cpu.flags;
    if matches!(mnemonic, Mnemonic::And | Mnemonic::Or | Mnemonic::Xor | Mnemonic::Test) {
        flags[2] = 0;
    }
    (cpu.gpr, cpu.xmm, flags)
}

/// Both carry out the instruction; whether it was done directly.
fn compare(bytes: &[u8], mnemonic: Mnemonic, seed: u64) -> bool {
    let code = Bytes { pc: PC, bytes };
    let (mut cpu, mut memory) = (state(seed), Memory::default());
    let (end, _) = Direct::default().run(&mut Source::new(&code, 0), &mut cpu, &mut memory, 1);
    let what = || format!("{bytes:02x?} {mnemonic:?}, state {seed}");
    if end == End::Before || matches!(end, End::Fault(_)) {
        let before = (seen(&state(seed), mnemonic), Memory::default(), PC.0);
        assert!(
            (seen(&cpu, mnemonic), &memory, cpu.rip) == (before.0, &before.1, before.2),
            "{}: not as before",
            what()
        );
    }
    if end == End::Before {
        return false;
    }
    let options = LiftOptions { block_insns: 1, precise: true, ..LiftOptions::default() };
    let (mut lifted, mut its_memory) = (state(seed), Memory::default());
    let next = interp::run(&lift_block(&code, PC, &options), &mut lifted, &mut its_memory, &mut Frame::default());
    let expected = match end {
        End::Fault(fault) => Err(Trap { pc: PC, fault }),
        _ => Ok(Next::Pc(GuestAddr(cpu.rip))),
    };
    assert_eq!(next, expected, "{}", what());
    assert_eq!(seen(&cpu, mnemonic), seen(&lifted, mnemonic), "{}", what());
    assert_eq!(memory, its_memory, "{}", what());
    true
}

#[test]
fn what_is_carried_out_directly_is_what_the_interpreter_does() {
    let prefixes: [&[u8]; 4] = [&[], &[0x66], &[0xf3], &[0x64]];
    let rexes: [&[u8]; 4] = [&[], &[0x41], &[0x48], &[0x4c]];
    let (mut done, mut insn) = (HashSet::new(), Insn::default());
    let heads = prefixes.iter().flat_map(|prefix| rexes.iter().map(move |rex| (prefix, rex)));
    for (prefix, rex) in heads {
        for (map, op) in [&[][..], &[0x0f]].into_iter().flat_map(|map| (0..=255u8).map(move |op| (map, op))) {
            // Every register of ModRM's middle; memory with and without displacement, by base and index, relative to RIP; registers.
            for modrm in
                [0x03, 0x46, 0x84, 0x05, 0xc2, 0xc6].iter().flat_map(|rm| (0..8).map(move |reg| rm | reg << 3 & 0x38))
            {
                let mut bytes = [prefix, rex, map, &[op, modrm, 0x4b]].concat();
                bytes.resize(MAX_INSN, op.wrapping_mul(0x35) ^ 0x11);
                let bytes: &[u8; MAX_INSN] = bytes[..].try_into().expect("so long");
                if !plain::decode(bytes, PC.0, &mut insn) || !KNOWN.contains(&insn.mnemonic()) {
                    continue;
                }
                // Nothing is known of what follows, so that it may read all flags.
                let bytes = &bytes[..insn.len()];
                for seed in 0..6 {
                    if compare(bytes, insn.mnemonic(), seed) {
                        done.insert(insn.mnemonic());
                    }
                }
            }
        }
    }
    let missing: Vec<_> = KNOWN.iter().filter(|mnemonic| !done.contains(mnemonic)).collect();
    assert!(missing.is_empty(), "{missing:?}: in no form");
}

#[test]
fn a_block_ends_where_control_is_transferred() {
    // add rax, rbx; push rax; jmp +2
    let bytes = [0x48, 0x01, 0xd8, 0x50, 0xeb, 0x02, 0xcc, 0xcc, 0x90, 0x0f, 0xa2];
    let code = Bytes { pc: PC, bytes: &bytes };
    let (mut cpu, mut memory) = (CpuState::new(), Memory::default());
    (cpu.gpr[0], cpu.gpr[3], cpu.gpr[4], cpu.rip) = (1, 2, 0x2000, PC.0);
    let (mut direct, mut code) = (Direct::default(), Source::new(&code, 0));
    assert_eq!(direct.run(&mut code, &mut cpu, &mut memory, 2), (End::Behind, 2));
    assert_eq!((cpu.rip, memory.load(0x1ff8, 8)), (PC.0 + 4, Ok(3)));
    assert_eq!(direct.run(&mut code, &mut cpu, &mut memory, 64), (End::Behind, 1));
    assert_eq!(cpu.rip, PC.0 + 8);
    assert_eq!(direct.run(&mut code, &mut cpu, &mut memory, 64), (End::Before, 1), "in front of CPUID");
    assert_eq!(cpu.rip, PC.0 + 9);
}
