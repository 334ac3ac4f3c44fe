//! Linkage stubs, `jmp [rip + slot]`: a dynamic linker changes the slot once, if at all, and every call of a library's function comes
//! through one. So its unit goes straight to the target that the slot has when the unit is made, after a look at whether it still has that. If not,
//! it leaves, and is made anew. A stub whose slot was found changed a few times jumps as other computed jumps do.

use super::super::emit::{Code, RIP};
use super::super::sites::Rule;
use super::{Counted, Pass, Source};
use iced_x86::{Instruction, Register};

/// What may stand in front of the jump.
const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];

impl Pass<'_, '_> {
    /// Where the jump at hand leads, if it is all of a linkage stub and its slot can be looked at.
    pub(super) fn linkage_target(&mut self, insn: &Instruction) -> Option<u64> {
        let is_all = self.unit.insns == 1 || self.unit.insns == 2 && self.code.bytes == ENDBR64;
        let slot = insn.ip_rel_memory_address();
        let is_slot = insn.is_ip_rel_memory_operand() && insn.segment_prefix() == Register::None;
        let is_told = self.is_profiled() || self.counted != Counted::Nothing;
        if !is_all || !is_slot || is_told || self.world.changes_often || !self.code.reaches_far(slot) {
            return None;
        }
        let Source::Noticed { word, .. } = &self.world.source else { return None };
        word(slot).filter(|&target| Code::is_near(target))
    }

    /// A linkage stub's jump to `target`. As long as it is that, nothing but RCX is touched.
    pub(super) fn jump_linked(&mut self, insn: &Instruction, target: u64) {
        self.code.move_rcx_away();
        self.code.load_rcx_from(insn.ip_rel_memory_address());
        self.rule(Rule::BEFORE);
        let other = self.code.skip_if_rcx_is(target);
        self.code.move_rcx_back();
        self.rule(Rule::BEFORE_RCX_AWAY);
        self.exit(&[0xe9], target);
        self.rule(Rule::BEFORE);
        self.end(insn.len());
        let here = self.code.here();
        self.code.patch(other, here);
        self.code.move_rcx_back();
        self.code.store64(RIP, self.start);
        self.code.jump(self.world.exits.changed);
        self.stubs();
    }
}

#[cfg(test)]
mod tests {
    use crate::identical::{Blocks, Found, Made, Source, Sum};

    fn make(blocks: &Blocks, stub: u64, target: u64) {
        // endbr64; jmp [rip + 0x20]
        let bytes = [0xf3, 0x0f, 0x1e, 0xfa, 0xff, 0x25, 0x20, 0, 0, 0];
        let mut code = |pc: u64, buf: &mut [u8]| {
            let left = &bytes[(pc - stub) as usize..];
            buf[..left.len()].copy_from_slice(left);
            left.len()
        };
        let source = Source::Noticed { code: &mut code, word: &|at| (at == stub + 10 + 0x20).then_some(target) };
        let made = blocks.translate(stub, None, source, &mut || true);
        assert!(matches!(made, Ok(Some(Made { found: Found::Unit(_), insns: 2, .. }))));
    }

    #[test]
    fn goes_straight_to_the_target_until_that_has_changed_often() {
        let blocks = Blocks::new(1 << 20, Sum::InMemory).expect("there is memory");
        // Other tests' code memory may lie where this one's would be, so the stub goes where the slot is within reach of it.
        let stub = blocks.no_point() - 0x10000;
        for (exits, target) in [(0, 0x2000), (1, 0x3000)] {
            make(&blocks, stub, target);
            assert_eq!((blocks.exits(), blocks.target(exits)), (exits + 1, target));
            blocks.changed(stub);
            assert_eq!(blocks.find(stub), None);
        }
        make(&blocks, stub, 0x4000);
        assert_eq!(blocks.exits(), 2, "a computed jump has no exit of its own");
    }
}
