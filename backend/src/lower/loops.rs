//! Which edges of a region close a loop, those that a poll must stand on, and which blocks a loop runs through.

use calque_ir::{BlockId, Region};

/// The edges that close a loop: every cycle contains one of them.
pub(super) struct LoopEdges {
    /// (from, to), sorted.
    edges: Vec<(BlockId, BlockId)>,
    /// Whether a block lies in a loop.
    inside: Vec<bool>,
}

/// State of a block in the depth-first search.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Visit {
    New,
    /// On the path from the entry to here.
    Open,
    Done,
}

impl LoopEdges {
    /// Finds the edges that lead back to a block on the path of a depth-first search. Block numbers do not tell: the frontend numbers
    /// blocks in the order in which it finds them.
    pub(super) fn of(region: &Region) -> LoopEdges {
        let mut visits = vec![Visit::New; region.blocks.len()];
        let mut edges = Vec::new();
        // A block, and how many of its targets have been followed.
        let mut path = vec![(BlockId(0), 0)];
        visits[0] = Visit::Open;
        while let Some((from, followed)) = path.last_mut() {
            let from = *from;
            let to = region.successors(from).nth(*followed);
            *followed += 1;
            match to {
                None => {
                    visits[from.0 as usize] = Visit::Done;
                    path.pop();
                }
                Some(to) => match visits[to.0 as usize] {
                    Visit::New => {
                        visits[to.0 as usize] = Visit::Open;
                        path.push((to, 0));
                    }
                    Visit::Open => edges.push((from, to)),
                    Visit::Done => {}
                },
            }
        }
        edges.sort_unstable();
        let inside = inside(region, &edges);
        LoopEdges { edges, inside }
    }

    /// Whether a loop runs through the block.
    pub(super) fn contain(&self, block: BlockId) -> bool {
        self.inside[block.0 as usize]
    }

    /// Whether the edge closes a loop.
    pub(super) fn closes(&self, from: BlockId, to: BlockId) -> bool {
        self.edges.binary_search(&(from, to)).is_ok()
    }
}

/// The blocks from which a loop's last block is reached without passing its first. If the loop has a second entry, what leads there
/// counts, too.
fn inside(region: &Region, edges: &[(BlockId, BlockId)]) -> Vec<bool> {
    let mut predecessors = vec![Vec::new(); region.blocks.len()];
    for from in region.block_ids() {
        for to in region.successors(from) {
            predecessors[to.0 as usize].push(from);
        }
    }
    let mut inside = vec![false; region.blocks.len()];
    for &(last, first) in edges {
        let mut seen = vec![false; region.blocks.len()];
        seen[first.0 as usize] = true;
        let mut open = vec![last];
        while let Some(block) = open.pop() {
            if !std::mem::replace(&mut seen[block.0 as usize], true) {
                open.extend(&predecessors[block.0 as usize]);
            }
        }
        inside.iter_mut().zip(seen).for_each(|(inside, seen)| *inside |= seen);
    }
    inside
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_before_and_behind_a_loop_is_outside() {
        let text = "block0 @0x10:\n  goto block1\nblock1 @0x20:\n  v0 = get.i1 cf\n  branch v0, block1, block2\n\
                    block2 @0x30:\n  goto 0x40\n";
        let region = calque_ir::parse::parse_region(text).unwrap_or_else(|e| panic!("{e}"));
        let loops = LoopEdges::of(&region);
        assert_eq!([0, 1, 2].map(|b| loops.contain(BlockId(b))), [false, true, false]);
    }

    #[test]
    fn one_edge_of_every_cycle() {
        let text = "block0 @0x10:\n  v0 = get.i1 cf\n  branch v0, block2, block1\nblock1 @0x20:\n  goto block3\n\
                    block2 @0x30:\n  goto block1\nblock3 @0x40:\n  v1 = get.i1 zf\n  branch v1, block2, 0x50\n";
        let region = calque_ir::parse::parse_region(text).unwrap_or_else(|e| panic!("{e}"));
        let loops = LoopEdges::of(&region);
        let [b0, b1, b2, b3] = [0, 1, 2, 3].map(BlockId);
        assert!(!loops.closes(b0, b2) && !loops.closes(b2, b1), "a smaller number is not a loop");
        assert_eq!([b1, b2, b3].map(|b| loops.contain(b)), [true, true, true]);
        assert_eq!([(b1, b3), (b3, b2), (b2, b1)].map(|(f, t)| loops.closes(f, t)), [false, true, false]);
    }
}
