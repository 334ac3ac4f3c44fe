//! Random regions with loops: what one-operation tests cannot show is how registers travel between blocks.
#![allow(unsafe_code)]

mod common;

use calque_backend::{Emitter, HostIsa, StateAtFaults};
use calque_ir::{BlockId, Builder, Cc, Exit, GuestAddr, Mem, Op, Reg, Region, Target, Type, Value};
use common::{Random, Runner};

/// A region of up to ten blocks. Edges lead forward, except that a block may close a loop by counting R15 down. Computed exits may lead to
/// blocks that overwrite all flags, by comparing or, to many, as switches do.
fn region(random: &mut Random) -> Region {
    let mut b = Builder::new();
    let count = 2 + below(random, 9);
    let blocks: Vec<BlockId> = (0..count).map(|i| b.create_block(GuestAddr(0x1000 + 16 * i))).collect();
    let landings = random.word() | random.word();
    let lands = |i: u64| landings >> i & 1 != 0;
    let mut predicted = Vec::new();
    for i in 0..count {
        b.switch_to(blocks[i as usize]);
        b.insn(GuestAddr(0x1000 + 16 * i), 4);
        if lands(i) {
            for flag in Reg::STATUS {
                let v = b.iconst(Type::I1, random.word() & 1);
                b.put(flag, v);
            }
        }
        for _ in 0..below(random, 8) {
            operation(&mut b, random);
            b.insn(GuestAddr(0x1000 + 16 * i + 1), 4);
        }
        let forward = |random: &mut Random| match below(random, 4) {
            0 => Target::Pc(GuestAddr(0x2000 + 16 * i)),
            _ if i + 1 == count => Target::Pc(GuestAddr(0x3000)),
            _ => Target::Block(blocks[(i + 1 + below(random, count - i - 1)) as usize]),
        };
        let exit = match below(random, 5) {
            0 => Exit::Goto(forward(random)),
            1 => {
                let cond = b.get(Type::I1, Reg::STATUS[below(random, 6) as usize]);
                Exit::Branch { cond, taken: forward(random), fallthrough: forward(random) }
            }
            2 => {
                let mut here = (i + 1..count).filter(|to| lands(*to)).map(|to| blocks[to as usize]);
                predicted.extend(here.clone().map(|to| (blocks[i as usize], to)));
                let chosen = below(random, 1 + here.clone().count() as u64) as usize;
                let known = here.nth(chosen).map(|to| b.iconst(Type::I64, 0x1000 + 16 * u64::from(to.0)));
                match known.filter(|_| below(random, 4) != 0) {
                    Some(pc) => Exit::Return(pc),
                    None => Exit::Indirect(b.get(Type::I64, gpr(random))),
                }
            }
            _ => {
                let (left, one) = (b.get(Type::I32, Reg::gpr(15)), b.iconst(Type::I32, 1));
                let left = b.binary(Op::Isub, Type::I32, left, one);
                b.put(Reg::gpr(15), left);
                let zero = b.iconst(Type::I32, 0);
                let cond = b.icmp(Cc::SignedGreaterThan, Type::I32, left, zero);
                let back = Target::Block(blocks[below(random, i + 1) as usize]);
                Exit::Branch { cond, taken: back, fallthrough: forward(random) }
            }
        };
        b.exit(exit);
    }
    let mut region = b.finish();
    region.predicted = predicted;
    region
}

fn below(random: &mut Random, n: u64) -> u64 {
    (random.next() >> 20) % n
}

/// One of few registers, so that they meet again; not those that make addresses.
fn gpr(random: &mut Random) -> Reg {
    Reg::gpr(below(random, 4) as usize)
}

fn xmm(random: &mut Random) -> Reg {
    Reg::xmm(below(random, 3) as usize)
}

/// One guest instruction's worth of IR.
fn operation(b: &mut Builder, random: &mut Random) {
    let word = random.word();
    match below(random, 17) {
        0 => {
            let (x, y) = (b.get(Type::I64, gpr(random)), b.get(Type::I64, gpr(random)));
            let v = b.binary([Op::Iadd, Op::Isub, Op::Imul, Op::Bxor][word as usize & 3], Type::I64, x, y);
            b.put(gpr(random), v);
        }
        1 | 2 => {
            let (x, y) = (b.get(Type::I32, gpr(random)), b.get(Type::I32, gpr(random)));
            let v = b.binary([Op::Iadd, Op::Isub, Op::Imul, Op::Band][word as usize & 3], Type::I32, x, y);
            let carry = b.binary(Op::UaddOverflow, Type::I32, x, y);
            b.put(gpr(random), v);
            b.put(Reg::CF, carry);
        }
        3 => {
            let to = gpr(random);
            let (x, y) = (b.get(Type::I64, to), b.get(Type::I8, gpr(random)));
            let v = b.binary([Op::InsertLow8, Op::InsertHigh8][word as usize & 1], Type::I64, x, y);
            b.put(to, v);
        }
        4 => {
            let v = b.iconst(Type::I32, word);
            b.put(gpr(random), v);
        }
        5 => {
            let (x, y) = (b.get(Type::V128, xmm(random)), b.get(Type::V128, xmm(random)));
            let v = b.binary(Op::Iadd, Type::I32x4, x, y);
            b.put(xmm(random), v);
        }
        6..9 => {
            let (ty, shape) = if word & 3 == 0 { (Type::F32, Type::F32x4) } else { (Type::F64, Type::F64x2) };
            let (to, from) = (xmm(random), xmm(random));
            let (x, y) = (b.get(ty, to), b.get(ty, from));
            let r = b.binary([Op::Fadd, Op::Fmul][word as usize >> 2 & 1], ty, x, y);
            let old = b.get(Type::V128, to);
            let v = b.insert_lane(shape, old, r, 0);
            b.put(to, v);
        }
        9 | 10 => {
            let rsi = b.get(Type::I64, Reg::RSI);
            let at = Mem { base: Some(rsi), index: None, scale: 0, disp: (word & 31) as i32 };
            let (ty, shape) = if word & 64 == 0 { (Type::F32, Type::F32x4) } else { (Type::F64, Type::F64x2) };
            if word & 128 == 0 {
                let x = b.load(ty, at);
                let v = b.unary(Op::ScalarToVector, shape, x);
                b.put(xmm(random), v);
            } else {
                let v = b.get(ty, xmm(random));
                b.store(ty, at, v);
            }
        }
        11 => {
            let v = b.get(Type::V128, xmm(random));
            b.put(xmm(random), v);
        }
        12 => compare(b, random),
        13 => {
            // ADD, ADC of zero.
            let [x, y, above] = std::array::from_fn(|_| b.get(Type::I64, gpr(random)));
            let sum = b.binary(Op::Iadd, Type::I64, x, y);
            let carry = b.icmp(Cc::UnsignedLessThan, Type::I64, sum, if word & 1 == 0 { x } else { y });
            let carry = b.unary(Op::Uextend, Type::I64, carry);
            let above = b.binary(Op::Iadd, Type::I64, above, carry);
            b.put(gpr(random), sum);
            b.put(gpr(random), above);
        }
        14 => upper_halves(b, random),
        15 => byte_masks(b, random),
        _ => {
            let rsi = b.get(Type::I64, Reg::RSI);
            let v = b.load(Type::I8, Mem::base(rsi));
            let v = b.unary(Op::Uextend, Type::I32, v);
            b.put(gpr(random), v);
        }
    }
}

/// What VZEROUPPER, instructions for VEX with 128 bits, and those with 256 do to upper halves.
fn upper_halves(b: &mut Builder, random: &mut Random) {
    let zero = b.vconst([0; 2]);
    match below(random, 4) {
        0 => (0..16).for_each(|n| b.put(Reg::ymmh(n), zero)),
        1 => (0..4).for_each(|n| b.put(Reg::ymmh(n), zero)),
        2 => {
            let v = b.get(Type::V128, xmm(random));
            b.put(Reg::ymmh(below(random, 4) as usize), v);
        }
        _ => {
            let v = b.get(Type::V128, Reg::ymmh(below(random, 4) as usize));
            b.put(xmm(random), v);
        }
    }
}

/// The highest bits of the bytes of one vector or two, which are comparisons or not.
fn byte_masks(b: &mut Builder, random: &mut Random) {
    let [low, high] = [random.word(), random.word()].map(|word| {
        let (x, y) = (b.get(Type::V128, xmm(random)), b.get(Type::V128, xmm(random)));
        match word & 3 {
            0 => x,
            1 => b.binary(Op::Bor, Type::V128, x, y),
            _ => {
                let mask = b.icmp(Cc::SignedLessThan, [Type::I8x16, Type::I32x4][word as usize >> 2 & 1], x, y);
                let other = b.icmp(Cc::Equal, Type::I8x16, x, y);
                if word & 8 == 0 { mask } else { b.binary(Op::Bor, Type::V128, mask, other) }
            }
        }
    });
    let [low, high] = [low, high].map(|v| b.unary(Op::HighBits, Type::I8x16, v));
    let by = b.iconst(Type::I32, 16);
    let high = b.binary(Op::Ishl, Type::I32, high, by);
    let both = b.binary(Op::Bor, Type::I32, low, high);
    b.put(gpr(random), if random.word() & 1 == 0 { low } else { both });
}

/// Flags of a comparison, and a register chosen by one.
fn compare(b: &mut Builder, random: &mut Random) {
    let (x, y) = (b.get(Type::I64, gpr(random)), b.get(Type::I64, gpr(random)));
    let flags: [Value; 3] = [Cc::Equal, Cc::SignedLessThan, Cc::UnsignedLessThan].map(|cc| b.icmp(cc, Type::I64, x, y));
    let chosen = b.select(Type::I64, flags[1], x, y);
    for (reg, v) in [Reg::ZF, Reg::SF, Reg::CF].into_iter().zip(flags) {
        b.put(reg, v);
    }
    b.put(gpr(random), chosen);
}

#[test]
fn random_regions_agree_with_the_interpreter() {
    for state_at_faults in [StateAtFaults::PcOnly, StateAtFaults::Precise] {
        let mut runner = Runner::new();
        runner.options.state_at_faults = state_at_faults;
        let mut random = Random::new(42);
        for i in 0..1500 {
            let region = region(&mut random);
            if let Err(report) = runner.compare(&region, 3, &mut random) {
                panic!("region {i}, {state_at_faults:?}\n{report}");
            }
        }
    }
}

#[test]
#[cfg_attr(not(target_arch = "aarch64"), ignore = "the emitter makes AArch64 code")]
fn random_regions_are_emitted_right() {
    let mut runner = Runner::new();
    runner.emitter = Some(Emitter::new(HostIsa::native()));
    let mut random = Random::new(43);
    for i in 0..1500 {
        let region = region(&mut random);
        if let Err(report) = runner.compare(&region, 3, &mut random) {
            panic!("region {i}\n{report}");
        }
    }
}
