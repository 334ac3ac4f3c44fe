//! Takes the frame out of x86-64 functions that do not need one.
//!
//! Cranelift's x86-64 tail calls ask for frame pointers, so each function begins with `push rbp; mov rbp, rsp` and each tail
//! call ends with `mov rsp, rbp; pop rbp; jmp reg`. Between short regions that chain of store and load is 1.6 to 3.4 times
//! slower than the work itself. A function that keeps nothing on the stack and calls nobody is entered behind its prologue
//! instead, and its epilogues become bare jumps. Functions with and without a frame may then jump to each other freely: each
//! leaves the stack pointer as it found it.
//!
//! The rewriting is an argument about bytes, so it checks all of them and leaves the function alone at any doubt:
//! 1. The frame layout says that nothing lies below the frame pointer, and the first bytes are the prologue.
//! 2. Each recorded call site is a tail jump in the one form that `emit_return_call_common_sequence` produces (cranelift-codegen
//!    isa/x64/inst/emit.rs). Generated code has no other calls and no returns (`abi.rs`), so these are all uses of RBP.
//! 3. No jump leads into the middle of an epilogue: it is one instruction to Cranelift.

/// `push rbp; mov rbp, rsp`.
const PROLOGUE: [u8; 4] = [0x55, 0x48, 0x89, 0xe5];
/// `mov rsp, rbp; pop rbp`.
const EPILOGUE: [u8; 4] = [0x48, 0x89, 0xec, 0x5d];
/// `int3`, behind the jumps: never executed.
const PADDING: u8 = 0xcc;

/// Removes the frame of `code`, whose tail jumps end at `jump_ends`. Yields the offset of the entry: behind the prologue, or 0
/// if the frame has to stay.
pub(crate) fn remove(code: &mut [u8], jump_ends: impl Iterator<Item = u32>) -> u32 {
    if !code.starts_with(&PROLOGUE) {
        return 0;
    }
    let Some(tails) = jump_ends.map(|end| tail(code, end as usize)).collect::<Option<Vec<_>>>() else { return 0 };
    for (start, end) in tails {
        code.copy_within(start + EPILOGUE.len()..end, start);
        code[end - EPILOGUE.len()..end].fill(PADDING);
    }
    PROLOGUE.len() as u32
}

/// Start and end of the epilogue and jump that end at `end`.
fn tail(code: &[u8], end: usize) -> Option<(usize, usize)> {
    let before = code.get(..end)?;
    let jump = match *before {
        [.., 0x41, 0xff, 0xe0..=0xe7] => 3,
        [.., 0xff, 0xe0..=0xe7] => 2,
        _ => return None,
    };
    let start = end.checked_sub(jump + EPILOGUE.len())?;
    code[start..].starts_with(&EPILOGUE).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_the_jump_move_up() {
        // push rbp; mov rbp,rsp; nop; mov rsp,rbp; pop rbp; jmp rax; mov rsp,rbp; pop rbp; jmp r9
        let mut code = hex("55 4889e5 90 4889ec5d ffe0 4889ec5d 41ffe1");
        assert_eq!(remove(&mut code, [11, 18].into_iter()), 4);
        assert_eq!(code, hex("55 4889e5 90 ffe0 cccccccc 41ffe1 cccccccc"));
    }

    #[test]
    fn what_is_not_understood_stays() {
        for text in ["4889e5 4889ec5d ffe0", "55 4889e5 4889ec5d ffd0", "55 4889e5 90904889ec ffe0"] {
            let (mut code, before) = (hex(text), hex(text));
            let end = code.len() as u32;
            assert_eq!(remove(&mut code, [end].into_iter()), 0);
            assert_eq!(code, before);
        }
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(|b| *b != b' ').collect();
        digits.chunks(2).map(|p| u8::from_str_radix(std::str::from_utf8(p).unwrap(), 16).unwrap()).collect()
    }
}
