//! Flags that are computed late: behind the probe of the jump cache, where it has failed.
//!
//! A block that ends in a computed jump or a return has put the flags that are alive there, and computing them can be most of its work
//! (after SBB, INC or a shift they cannot be deferred, `ir/src/deferred.rs`). But a region that the inline probe finds wants no flags.
//! So the `put`s of flags at the end of such a block, and what only they use, are lowered in the cold block of the probe's miss.
//!
//! Invariants:
//! 1. Only pure operations are late, and `put`s of flags that nothing in the block stands behind but other late instructions, `put`s and
//!    pure operations: nobody can see the registers before the block's end.
//! 2. What uses a late value is late.

use super::regs::{DEFERRED, STATUS};
use calque_ir::op::Effect;
use calque_ir::{BlockId, Exit, Inst, Op, Reg, Region};

/// The late instructions of a block, ascending.
pub(super) fn of(region: &Region, block: BlockId) -> Vec<u32> {
    let b = &region.blocks[block.0 as usize];
    let (Exit::Indirect(target) | Exit::Return(target) | Exit::CallIndirect { target, .. }) = b.exit else {
        return Vec::new();
    };
    let start = b.start as usize;
    let mut wanted = vec![false; (b.end - b.start) as usize];
    wanted[target.0 as usize - start] = true;
    let mut late = Vec::new();
    let mut unseen = true;
    for at in (start..b.end as usize).rev() {
        let inst = &region.insts[at];
        let is_late = match inst.op.effect() {
            Effect::WritesReg => unseen && is_flag(inst),
            Effect::Pure => !wanted[at - start],
            Effect::ReadsReg | Effect::Marker => false,
            _ => {
                unseen = false;
                false
            }
        };
        unseen &= !(inst.op == Op::Get && is_flag(inst));
        if is_late {
            late.push(at as u32);
        } else {
            inst.uses().for_each(|v| wanted[v.0 as usize - start] = true);
        }
    }
    late.reverse();
    late
}

/// Whether a `get` or `put` is of a status flag, or of what it can be computed from.
fn is_flag(inst: &Inst) -> bool {
    Reg::from_index(inst.aux as usize).is_some_and(|reg| STATUS.union(DEFERRED).contains(reg))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn late(body: &str) -> Vec<u32> {
        let region =
            calque_ir::parse::parse_region(&format!("block0 @0x10:\n{body}")).unwrap_or_else(|e| panic!("{e}"));
        of(&region, BlockId(0))
    }

    #[test]
    fn flags_before_a_return_and_what_only_they_use() {
        let body = "  v0 = get.i64 rax\n  v1 = ineg.i64 v0\n  v2 = get.i64 rsp\n  v3 = load.i64 [v2]\n  put.i64 rax, v1\n  \
            v5 = bnot.i64 v0\n  v6 = parity.i64 v5\n  put.i1 pf, v6\n";
        assert_eq!(late(&format!("{body}  return v3\n")), [5, 6, 7]);
        assert_eq!(late(&format!("{body}  goto 0x20\n")), [0; 0], "a known place may want them");
    }

    #[test]
    fn not_what_a_fault_shows() {
        let body = "  v0 = get.i64 rax\n  v1 = parity.i64 v0\n  put.i1 pf, v1\n  v3 = load.i64 [v0]\n  return v3\n";
        assert_eq!(late(body), [0; 0]);
        let read = "  v0 = get.i64 rax\n  v1 = parity.i64 v0\n  put.i1 pf, v1\n  v3 = get.i1 pf\n  put.i1 cf, v3\n  return v0\n";
        assert_eq!(late(read), [4]);
    }
}
