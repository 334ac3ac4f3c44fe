//! Switches inside a region: where a computed jump has led so far are blocks of it ([`Region::predicted`](calque_ir::Region)), guest
//! registers stay in host registers on the way there. Tables of jumps are not looked at: the guest computes the place as ever, and
//! any other place leaves the region. That serves computed gotos and jumps through any kind of table alike, and needs no watch on the table.
//!
//! A region has all known cases of a switch or none: each case is where a region of its own would begin, and it would hold the
//! others again.

use super::region::Discovery;
use crate::decode::Window;
use calque_ir::GuestAddr;

/// Most guest instructions of a region that has a switch: the loop of a small interpreter.
const MOST_INSNS: u32 = 300;

impl Discovery<'_> {
    /// Takes in the cases of the switches found so far, and of those that they lead to.
    pub(super) fn enter_switches(&mut self, window: &mut Window) {
        let mut next = 0;
        while let Some(&jump) = self.switches.get(next) {
            next += 1;
            self.attempt(|discovery| discovery.enter_switch(jump, window));
        }
    }

    /// One switch; false if no case is known or they are more than the region may have.
    fn enter_switch(&mut self, jump: GuestAddr, window: &mut Window) -> bool {
        let cases = self.without_flags(self.profile.all_targets(jump));
        let known = self.starts.len();
        cases.iter().for_each(|case| self.follow(*case));
        self.explore(known, window);
        let taken = !cases.is_empty() && self.insns <= MOST_INSNS && self.starts.len() < self.opts.max_blocks as usize;
        self.targets.insert(jump, if taken { cases } else { Vec::new() });
        taken
    }
}
