//! x86-64: Cranelift's tail calls ask for frame pointers, too, so a function begins with
//!
//! ```text
//! push rbp; mov rbp, rsp; sub rsp, N; mov [rsp+a], rbx; mov [rsp+b], r12...
//! ```
//!
//! and each tail jump with the opposite. Between short regions the frame's chain of store and load through RSP is 1.6 to 3.4
//! times slower than the work itself. So the saves are dropped; if then nothing is left on the stack and nobody is called, the
//! whole frame is, too. A tail jump has the one form that `emit_return_call_common_sequence` produces (cranelift-codegen,
//! isa/x64/inst/emit.rs). Of what is on the stack everything stays where it is if the frame stays, and there is none otherwise: the
//! frame is no larger than the saves.

/// `push rbp; mov rbp, rsp`.
const PUSH_FRAME: [u8; 4] = [0x55, 0x48, 0x89, 0xe5];
/// `mov rsp, rbp; pop rbp`.
const POP_FRAME: [u8; 4] = [0x48, 0x89, 0xec, 0x5d];
/// `int3`, where code was: never executed.
const PADDING: u8 = 0xcc;

/// A function's prologue.
struct Prologue {
    /// Length up to and with `sub rsp`.
    frame_len: usize,
    /// Length of the saves behind it.
    saves_len: usize,
    /// What each epilogue looks like: restores, `add rsp`, [`POP_FRAME`].
    inverse: Vec<u8>,
    /// Whether there is room for more than the saves.
    has_slots: bool,
}

/// Reduces the frame of `code`, whose calls and tail jumps end at `call_ends`. Yields the offset of the entry.
pub(super) fn reduce(code: &mut [u8], call_ends: impl Iterator<Item = u32>, calls_helpers: bool) -> u32 {
    let Some(prologue) = Prologue::parse(code) else { return 0 };
    let mut tails = Vec::new();
    for end in call_ends {
        match tail_jump(code, end as usize) {
            Some(jump) if code[..jump.start].ends_with(&prologue.inverse) => tails.push(jump),
            None if calls_helpers => {}
            _ => return 0,
        }
    }
    let keeps_frame = prologue.has_slots || calls_helpers;
    for jump in tails {
        let start = jump.start - prologue.inverse.len();
        let frame: &[u8] = if keeps_frame { &POP_FRAME } else { &[] };
        let jump_bytes = code[jump.clone()].to_vec();
        let (kept, padding) = code[start..jump.end].split_at_mut(frame.len() + jump_bytes.len());
        kept[..frame.len()].copy_from_slice(frame);
        kept[frame.len()..].copy_from_slice(&jump_bytes);
        padding.fill(PADDING);
    }
    let body = prologue.frame_len + prologue.saves_len;
    if !keeps_frame {
        return body as u32;
    }
    code.copy_within(..prologue.frame_len, prologue.saves_len);
    prologue.saves_len as u32
}

/// The bytes of the tail jump that ends at `end`: `jmp reg`.
fn tail_jump(code: &[u8], end: usize) -> Option<std::ops::Range<usize>> {
    match *code.get(..end)? {
        [.., 0x41, 0xff, 0xe0..=0xe7] => Some(end - 3..end),
        [.., 0xff, 0xe0..=0xe7] => Some(end - 2..end),
        _ => None,
    }
}

impl Prologue {
    fn parse(code: &[u8]) -> Option<Prologue> {
        let rest = code.strip_prefix(&PUSH_FRAME)?;
        let (sub_len, size) = match *rest {
            [0x48, 0x83, 0xec, size, ..] => (4, u32::from(size)),
            [0x48, 0x81, 0xec, a, b, c, d, ..] => (7, u32::from_le_bytes([a, b, c, d])),
            _ => (0, 0),
        };
        let frame_len = PUSH_FRAME.len() + sub_len;
        let mut inverse = Vec::new();
        let mut saves = 0;
        while let Some(len) = save(&code[frame_len + inverse.len()..]) {
            inverse.extend_from_slice(&code[frame_len + inverse.len()..][..len]);
            let opcode = inverse.len() - len + 1;
            inverse[opcode] = LOAD;
            saves += 1;
        }
        let saves_len = inverse.len();
        if sub_len > 0 {
            inverse.extend_from_slice(&rest[..sub_len]);
            inverse[saves_len + 2] = ADD_RSP;
        }
        inverse.extend_from_slice(&POP_FRAME);
        Some(Prologue { frame_len, saves_len, inverse, has_slots: size > u32::next_multiple_of(8 * saves, 16) })
    }
}

/// Opcode of `mov [mem], reg` and `mov reg, [mem]`.
const STORE: u8 = 0x89;
const LOAD: u8 = 0x8b;
/// ModRM of `add rsp, imm`, where `sub` has 0xec.
const ADD_RSP: u8 = 0xc4;

/// Length of the `mov [rsp + disp], reg` of a callee-saved register that `code` begins with.
fn save(code: &[u8]) -> Option<usize> {
    let &[rex @ (0x48 | 0x4c), STORE, modrm, 0x24, ..] = code else { return None };
    let reg = (modrm >> 3 & 7) | (rex & 4) << 1;
    let callee_saved = matches!(reg, 3 | 12..=15);
    match (callee_saved, modrm & 0xc7) {
        (true, 0x04) => Some(4),
        (true, 0x44) => Some(5),
        (true, 0x84) => Some(8),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(|b| *b != b' ').collect();
        digits.chunks(2).map(|p| u8::from_str_radix(std::str::from_utf8(p).unwrap(), 16).unwrap()).collect()
    }

    /// Reduces `before`, whose only call ends with it; the code from the entry on.
    fn reduced(before: &str, calls_helpers: bool) -> Vec<u8> {
        let mut code = hex(before);
        let end = code.len() as u32;
        let entry = reduce(&mut code, [end].into_iter(), calls_helpers);
        code.split_off(entry as usize)
    }

    #[test]
    fn a_frame_for_nothing_goes() {
        assert_eq!(reduced("55 4889e5 90 4889ec5d ffe0", false), hex("90 ffe0 cccccccc"));
        assert_eq!(reduced("55 4889e5 90 4889ec5d 41ffe1", false), hex("90 41ffe1 cccccccc"));
    }

    #[test]
    fn saves_go_and_the_frame_with_them() {
        // sub rsp,16; mov [rsp],rbx; mov [rsp+8],r12; nop; mov rbx,[rsp]; mov r12,[rsp+8]; add rsp,16
        let code = "55 4889e5 4883ec10 48891c24 4c89642408 90 488b1c24 4c8b642408 4883c410 4889ec5d 41ffe2";
        let padding = "cccccccc cccccccccc cccccccc cccccccc";
        assert_eq!(reduced(code, false), hex(&format!("90 41ffe2 {padding}")));
    }

    #[test]
    fn a_frame_with_slots_stays_without_the_saves() {
        let code = "55 4889e5 4883ec20 48891c24 90 488b1c24 4883c420 4889ec5d ffe0";
        assert_eq!(reduced(code, false), hex("55 4889e5 4883ec20 90 4889ec5d ffe0 cccccccc cccccccc"));
    }

    #[test]
    fn a_function_that_calls_stays_aligned() {
        assert_eq!(reduced("55 4889e5 90 4889ec5d ffe0", true), hex("55 4889e5 90 4889ec5d ffe0"));
    }

    #[test]
    fn what_is_not_understood_stays() {
        let odd = ["4889e5 4889ec5d ffe0", "55 4889e5 4889ec5d ffd0", "55 4889e5 90904889ec ffe0"];
        let unequal = "55 4889e5 4883ec10 48891c24 90 4c8b2424 4883c410 4889ec5d ffe0";
        for text in odd.into_iter().chain([unequal]) {
            assert_eq!(reduced(text, false), hex(text));
        }
    }
}
