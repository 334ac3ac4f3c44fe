//! What an unlinked exit cell leads to: a few instructions behind the region's code that leave the cell's number and go on to `exit_link`.
//! So an exit itself need not say which one it is, which only matters until it is linked.
//!
//! A stub is entered as a region is: `cpu` and `abi::ARGUMENTS` in host registers. It uses one more, which no region expects.

use crate::abi::LINK_CELL;
use crate::isa::Arch;
use calque_ir::CpuState;
use std::mem::offset_of;

/// Appends the stub of `cell` to `code`; its offset.
pub(crate) fn append(code: &mut Vec<u8>, arch: Arch, cell: u32) -> u32 {
    let alignment = if arch == Arch::Aarch64 { 4 } else { 1 };
    code.resize(code.len().next_multiple_of(alignment), 0);
    let start = code.len() as u32;
    match arch {
        Arch::X86_64 => x86_64(code, cell),
        Arch::Aarch64 => aarch64(cell).iter().for_each(|word| code.extend_from_slice(&word.to_le_bytes())),
    }
    start
}

const DETAIL: u32 = offset_of!(CpuState, rt.exit_detail) as u32;
const CELLS: u32 = offset_of!(CpuState, rt.cells) as u32;

/// `mov qword [rdi + DETAIL], cell; mov rax, [rdi + CELLS]; jmp [rax + 8 * LINK_CELL]` (SDM vol. 2: C7 /0, 8B /r, FF /4).
fn x86_64(code: &mut Vec<u8>, cell: u32) {
    let words: [(&[u8], &[u32]); 3] =
        [(&[0x48, 0xc7, 0x87], &[DETAIL, cell]), (&[0x48, 0x8b, 0x87], &[CELLS]), (&[0xff, 0xa0], &[8 * LINK_CELL])];
    for (opcode, operands) in words {
        code.extend_from_slice(opcode);
        operands.iter().for_each(|operand| code.extend_from_slice(&operand.to_le_bytes()));
    }
}

/// `movz w16, #low; movk w16, #high, lsl 16; str x16, [x2, DETAIL]; ldr x17, [x2, CELLS]; ldr x17, [x17, 8 * LINK_CELL]; br x17`
/// (Arm ARM C6.2). AAPCS64 gives X16 and X17 to such code.
fn aarch64(cell: u32) -> [u32; 6] {
    let offset = |bytes: u32| (bytes / 8) << 10;
    [
        0x5280_0010 | (cell & 0xffff) << 5,
        0x72a0_0010 | cell >> 16 << 5,
        0xf900_0050 | offset(DETAIL),
        0xf940_0051 | offset(CELLS),
        0xf940_0231 | offset(8 * LINK_CELL),
        0xd61f_0220,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stubs_are_what_the_comments_say() {
        let mut code = vec![0x90];
        assert_eq!(append(&mut code, Arch::X86_64, 0x1234_5678), 1);
        assert_eq!(code.len(), 1 + 11 + 7 + 6);
        assert_eq!(code[8..12], [0x78, 0x56, 0x34, 0x12]);
        let mut code = vec![0; 5];
        assert_eq!(append(&mut code, Arch::Aarch64, 0x1234_5678), 8);
        assert_eq!(code.len(), 8 + 24);
        assert_eq!(code[8..12], (0x5280_0010u32 | 0x5678 << 5).to_le_bytes());
    }
}
