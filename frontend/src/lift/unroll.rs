//! Several rounds of a tiny loop in a row.
//!
//! Engines poll for signals where a loop closes. In a loop of three instructions that costs as much as the loop itself, and the way
//! out that a poll needs keeps registers apart that could be one. So a loop of one small block becomes a loop of several copies of
//! it, of which only the last closes it: one poll for them all. A copy is left as the block itself is; nothing else changes.
//!
//! Where the block checks alignments, the first copy stays outside the circle: what it has found need not be checked again
//! (`ir/src/pass/aligned.rs`).

use calque_ir::{BlockId, Exit, Inst, Op, Region, Target, Value};

/// Guest instructions of a loop that is worth it, and of all its copies.
const LONGEST: usize = 20;
const TOGETHER: usize = 40;
/// Most copies.
const MOST: usize = 4;

/// Unrolls the region's loops of one small block.
pub(super) fn unroll(region: &mut Region) {
    for id in region.block_ids() {
        let guest_insns = region.block_insts(id).iter().filter(|i| i.op == Op::Insn).count();
        if closes_itself(&region.blocks[id.0 as usize].exit, id) && (1..=LONGEST).contains(&guest_insns) {
            let checks = region.block_insts(id).iter().any(|i| i.op == Op::FaultIf);
            let rounds = (TOGETHER / guest_insns).min(MOST);
            if checks {
                copy(region, id, rounds.max(1), First::Outside)
            } else {
                copy(region, id, rounds, First::Inside)
            }
        }
    }
}

/// Whether a block is a loop by itself, with a way out.
fn closes_itself(exit: &Exit, id: BlockId) -> bool {
    let own = Target::Block(id);
    matches!(exit, Exit::Branch { taken, fallthrough, .. } if (*taken == own) != (*fallthrough == own))
}

/// Whether the block itself is part of the circle.
#[derive(Clone, Copy, PartialEq, Eq)]
enum First {
    Inside,
    Outside,
}

/// Makes a circle of `rounds` of the block.
fn copy(region: &mut Region, id: BlockId, rounds: usize, place: First) {
    let original = region.blocks[id.0 as usize];
    let first = region.blocks.len() as u32;
    let insts: Vec<Inst> = region.block_insts(id).to_vec();
    let (rounds, start) = if place == First::Outside { (rounds + 1, BlockId(first)) } else { (rounds, id) };
    let next = |round: usize| if round == rounds { start } else { BlockId(first + round as u32 - 1) };
    redirect(&mut region.blocks[id.0 as usize].exit, id, next(1));
    for round in 1..rounds {
        let mut block = original;
        let start = region.insts.len() as u32;
        let moved = start - original.start;
        region.insts.extend(insts.iter().map(|inst| moved_by(*inst, moved)));
        (block.start, block.end) = (start, start + insts.len() as u32);
        block.exit.map_value(|v| Value(v.0 + moved));
        redirect(&mut block.exit, id, next(round + 1));
        region.blocks.push(block);
    }
}

fn redirect(exit: &mut Exit, from: BlockId, to: BlockId) {
    exit.for_each_target(|target| {
        if *target == Target::Block(from) {
            *target = Target::Block(to);
        }
    });
}

/// The instruction with its operands `by` values further down.
fn moved_by(mut inst: Inst, by: u32) -> Inst {
    let slots = inst.value_slots();
    for slot in (0..4).filter(|slot| slots >> slot & 1 != 0) {
        if let Some(v) = Value(inst.args[slot]).expand() {
            inst.args[slot] = v.0 + by;
        }
    }
    inst
}

#[cfg(test)]
mod tests {
    use super::*;
    use calque_ir::parse::parse_region;
    use calque_ir::verify::verify;

    const LOOP: &str = "block0 @0x10:\n  insn 0x10 1\n  goto block1\nblock1 @0x11:\n  insn 0x11 3\n  v2 = get.i64 rax\n  \
        v3 = iconst.i64 0x1\n  v4 = iadd.i64 v2, v3\n  put.i64 rax, v4\n  insn 0x14 2\n  v7 = get.i1 zf\n  \
        branch v7, block1, 0x16\n";

    #[test]
    fn a_small_loop_goes_round_in_copies() {
        let mut region = parse_region(LOOP).unwrap_or_else(|e| panic!("{e}"));
        unroll(&mut region);
        assert_eq!(verify(&region).map_err(|p| format!("{p:?}")), Ok(()));
        let next = |id: u32| region.blocks[id as usize].exit.targets().next();
        let circle: Vec<_> = [1, 2, 3, 4].map(next).into_iter().flatten().collect();
        assert_eq!(circle, [2, 3, 4, 1].map(|id| Target::Block(BlockId(id))));
        assert_eq!(region.guest_insns, 3, "the guest's instructions are not more");
    }

    #[test]
    fn a_round_that_checks_alignments_stays_outside() {
        let check = "  v4 = iadd.i64 v2, v3\n  v5 = icmp.i64 ne, v4, v3\n  fault_if gp, v5\n  put.i64 rax, v4\n";
        let text = LOOP.replace("  v4 = iadd.i64 v2, v3\n  put.i64 rax, v4\n", check).replace("v7", "v9");
        let mut region = parse_region(&text).unwrap_or_else(|e| panic!("{e}"));
        unroll(&mut region);
        let next = |id: u32| region.blocks[id as usize].exit.targets().next();
        let circle: Vec<_> = [1, 2, 3, 4, 5].map(next).into_iter().flatten().collect();
        assert_eq!(circle, [2, 3, 4, 5, 2].map(|id| Target::Block(BlockId(id))));
    }

    #[test]
    fn other_blocks_stay() {
        let text = LOOP.replace("branch v7, block1, 0x16", "branch v7, block0, 0x16");
        let mut region = parse_region(&text).unwrap_or_else(|e| panic!("{e}"));
        let before = region.clone();
        unroll(&mut region);
        assert_eq!(region, before);
    }
}
