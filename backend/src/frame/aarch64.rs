//! AArch64: a function that needs a callee-saved register or the stack begins with
//!
//! ```text
//! stp x29, x30, [sp, #-16]!; mov x29, sp; stp x27, x28, [sp, #-16]!; ...; stp d14, d15, [sp, #-16]!; ...
//! ```
//!
//! and what it keeps on the stack lies below. Each tail jump is the opposite and a `br` (cranelift-codegen, isa/aarch64/abi.rs). The
//! entry moves behind the saves, and the `br` to the place of the first restore. The frame record stays where helpers are called:
//! they change the link register, by which generated code is left (`arch/aarch64.rs`). X29 is not used for anything else.
//!
//! Encodings: Arm Architecture Reference Manual for A-profile, C6.2, C7.2.

/// `stp x29, x30, [sp, #-16]!; mov x29, sp`.
const PUSH_FRAME: [u32; 2] = [0xa9bf_7bfd, 0x9100_03fd];
/// `ldp x29, x30, [sp], #16`.
const POP_FRAME: u32 = 0xa8c1_7bfd;

/// Saves by one register or two, before the address: mask of the fixed bits, save, restore.
const SAVES: [(u32, u32, u32); 4] = [
    (0xffff_83e0, 0xa9bf_03e0, 0xa8c1_03e0), // stp x, x; ldp
    (0xffff_ffe0, 0xf81f_0fe0, 0xf841_07e0), // str x; ldr
    (0xffff_83e0, 0x6dbf_03e0, 0x6cc1_03e0), // stp d, d; ldp
    (0xffff_ffe0, 0xfc1f_0fe0, 0xfc41_07e0), // str d; ldr
];

/// See `frame::reduce`.
pub(super) fn reduce(code: &mut [u8], call_ends: impl Iterator<Item = u32>, calls_helpers: bool) -> u32 {
    let (words, _) = code.as_chunks_mut::<4>();
    let word = |words: &[[u8; 4]], i: usize| words.get(i).map_or(0, |w| u32::from_le_bytes(*w));
    if [word(words, 0), word(words, 1)] != PUSH_FRAME {
        return 0;
    }
    let restores: Vec<u32> = (PUSH_FRAME.len()..).map_while(|i| restore(word(words, i))).collect();
    let inverse: Vec<u32> = restores.iter().rev().copied().chain([POP_FRAME]).collect();
    let mut jumps = Vec::new();
    for end in call_ends {
        let at = end as usize / 4 - 1;
        let start = at.checked_sub(inverse.len());
        match (word(words, at), start) {
            (jump, Some(start)) if is_br(jump) && (0..inverse.len()).all(|i| word(words, start + i) == inverse[i]) => {
                jumps.push((start, jump));
            }
            (call, _) if is_blr(call) && calls_helpers => {}
            _ => return 0,
        }
    }
    for (start, jump) in jumps {
        let kept = if calls_helpers { &[POP_FRAME, jump][..] } else { &[jump] };
        // Without saves the frame record is all there is.
        for (i, word) in kept.iter().enumerate() {
            words[start + i] = word.to_le_bytes();
        }
    }
    if !calls_helpers {
        return 4 * (PUSH_FRAME.len() + restores.len()) as u32;
    }
    words.copy_within(..PUSH_FRAME.len(), restores.len());
    4 * restores.len() as u32
}

/// What undoes a save.
fn restore(word: u32) -> Option<u32> {
    SAVES.iter().find(|(mask, save, _)| word & mask == *save).map(|(mask, _, restore)| restore | word & !mask)
}

fn is_br(word: u32) -> bool {
    word & 0xffff_fc1f == 0xd61f_0000
}

fn is_blr(word: u32) -> bool {
    word & 0xffff_fc1f == 0xd63f_0000
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOP: u32 = 0xd503_201f;
    const BR_X1: u32 = 0xd61f_0020;
    const BLR_X1: u32 = 0xd63f_0020;
    /// `stp x19, x20, [sp, #-16]!; str d8, [sp, #-16]!` and their opposite.
    const SAVED: [u32; 2] = [0xa9bf_53f3, 0xfc1f_0fe8];
    const RESTORED: [u32; 2] = [0xfc41_07e8, 0xa8c1_53f3];

    /// Reduces `before`; the words from the entry to the first jump.
    fn reduced(before: &[u32], calls_helpers: bool) -> Vec<u32> {
        let mut code: Vec<u8> = before.iter().flat_map(|w| w.to_le_bytes()).collect();
        let ends = (1..=before.len()).filter(|&i| is_br(before[i - 1]) || is_blr(before[i - 1]));
        let ends: Vec<u32> = ends.map(|i| 4 * i as u32).collect();
        let entry = reduce(&mut code, ends.into_iter(), calls_helpers) as usize;
        let words = code[entry..].chunks(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]]));
        let mut jumped = false;
        words.take_while(|w| !std::mem::replace(&mut jumped, is_br(*w))).collect()
    }

    fn function(body: &[u32]) -> Vec<u32> {
        [&PUSH_FRAME[..], &SAVED, body, &RESTORED, &[POP_FRAME, BR_X1]].concat()
    }

    #[test]
    fn saves_go_and_the_frame_with_them() {
        assert_eq!(reduced(&function(&[NOP]), false), [NOP, BR_X1]);
        let record = [&PUSH_FRAME[..], &[NOP, POP_FRAME, BR_X1]].concat();
        assert_eq!(reduced(&record, false), [NOP, BR_X1]);
    }

    #[test]
    fn a_function_that_calls_keeps_its_link_register() {
        let body = [NOP, BLR_X1];
        assert_eq!(reduced(&function(&body), true), [&PUSH_FRAME[..], &body, &[POP_FRAME, BR_X1]].concat());
    }

    #[test]
    fn what_is_not_understood_stays() {
        assert_eq!(reduced(&[NOP, BR_X1], false), [NOP, BR_X1]);
        let mut odd = function(&[NOP]);
        odd[5] = RESTORED[1];
        assert_eq!(reduced(&odd, false), odd);
        assert_eq!(reduced(&function(&[BLR_X1]), false), function(&[BLR_X1]));
    }
}
