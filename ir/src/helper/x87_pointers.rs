//! Where the last x87 instruction lies, what its opcode was, and where its operand (SDM vol. 1 8.1.8): FNSTENV and FNSAVE show
//! it, FXSAVE and XSAVE only while an exception is pending, as AMD's processors do.
//!
//! All but control instructions are recorded, and that must cost next to nothing: the lifter puts one constant into
//! `Reg::X87_CODE` and the effective address, flipped by a constant, into `Reg::X87_DATA`. Of several such `put`s in a row only the last
//! is left. So both registers hold a 57-bit address (with five levels of page tables, that is what a processor keeps), sign-extended, whose
//! topmost seven bits are flipped by a [`Form`], which tells how to read it.

use crate::state::{CpuState, X87};

/// How `Reg::X87_CODE` or `Reg::X87_DATA` is to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Form {
    /// A pointer without a selector: loaded by FXRSTOR64 or XRSTOR64, or none yet.
    Loaded64,
    /// 32 bits of pointer, then 16 of selector: loaded by another instruction.
    Loaded32,
    /// Of an executed instruction. Code: its pc, the opcode above. Data: an effective address, with a null selector.
    Recorded,
    /// Data: an effective address, with the stack's selector.
    RecordedStack,
}

/// Bits of a pointer.
const POINTER_BITS: u32 = 57;
/// Bits of a guest's pc: user space ends there. The last of the opcode's eleven above it shares bit 57 with the form, so where code is
/// meant, [`Form::Recorded`] and [`Form::RecordedStack`] are one.
const PC_BITS: u32 = 47;
/// Selectors of user code and of its stack on Linux (`arch/x86/include/asm/segment.h`).
const USER_CS: u16 = 0x33;
const USER_SS: u16 = 0x2b;

impl Form {
    /// What a pointer is flipped by.
    pub const fn flip(self) -> u64 {
        (self as u64) << POINTER_BITS
    }

    /// Form and pointer of a register.
    fn split(word: u64) -> (Form, u64) {
        let top = (word as i64 >> POINTER_BITS) as i8;
        let form = match top ^ (top >> 7) {
            0 => Form::Loaded64,
            1 => Form::Loaded32,
            3 => Form::RecordedStack,
            _ => Form::Recorded,
        };
        (form, word ^ form.flip())
    }
}

/// `Reg::X87_CODE` of an instruction.
pub fn recorded_code(pc: u64, opcode: u16) -> u64 {
    Form::Recorded.flip() | u64::from(opcode) << PC_BITS | pc & ((1 << PC_BITS) - 1)
}

/// `pointer` as a processor keeps it.
fn canonical(pointer: u64) -> u64 {
    const UNUSED: u32 = 64 - POINTER_BITS;
    ((pointer << UNUSED) as i64 >> UNUSED) as u64
}

/// Where an image has pointer and selector.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Image {
    /// Words 3 and 4, or 5 and 6, of the 32-bit environment: the opcode stands above the code's selector.
    Env32,
    /// The same of the 16-bit environment, without the opcode.
    Env16,
    /// Eight bytes of FXSAVE's area: 32 bits, then the selector.
    Fxsave,
    /// Eight bytes of FXSAVE64's area.
    Fxsave64,
}

impl Image {
    const ALL: [Image; 4] = [Image::Env32, Image::Env16, Image::Fxsave, Image::Fxsave64];

    /// The bytes; `above` stands above the selector in the 32-bit environment.
    fn bytes(self, (pointer, selector): (u64, u16), above: u16, pending: bool) -> u64 {
        let selector = u64::from(selector);
        match self {
            Image::Env32 => pointer & 0xffff_ffff | selector << 32 | u64::from(above) << 48,
            Image::Env16 => pointer & 0xffff | selector << 16,
            Image::Fxsave | Image::Fxsave64 if !pending => 0,
            Image::Fxsave => pointer & 0xffff_ffff | selector << 32,
            Image::Fxsave64 => pointer,
        }
    }
}

/// All that is known of the last instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pointers {
    /// The low three bits of its first byte, then ModRM.
    pub opcode: u16,
    pub instruction: u64,
    pub code_selector: u16,
    pub operand: u64,
    pub data_selector: u16,
}

/// Pointer and selector of a register.
fn pointer_of(word: u64) -> (u64, u16) {
    match Form::split(word) {
        (Form::Loaded64, pointer) => (pointer, 0),
        (Form::Loaded32, both) => (both & 0xffff_ffff, (both >> 32) as u16),
        (Form::Recorded, pointer) => (pointer, 0),
        (Form::RecordedStack, pointer) => (pointer, USER_SS),
    }
}

/// The same of `Reg::X87_CODE`.
fn code_pointer_of(word: u64) -> (u64, u16) {
    match Form::split(word) {
        (Form::Recorded | Form::RecordedStack, _) => (word & ((1 << PC_BITS) - 1), USER_CS),
        _ => pointer_of(word),
    }
}

impl X87 {
    /// What the registers say.
    pub fn pointers(&self) -> Pointers {
        let (instruction, code_selector) = code_pointer_of(self.code);
        let (operand, data_selector) = pointer_of(self.data);
        Pointers { opcode: self.opcode_of(self.code), instruction, code_selector, operand, data_selector }
    }

    /// The opcode that goes with `Reg::X87_CODE`.
    pub(super) fn opcode_of(&self, code: u64) -> u16 {
        match Form::split(code) {
            (Form::Recorded | Form::RecordedStack, _) => (code >> PC_BITS) as u16 & 0x7ff,
            _ => self.opcode,
        }
    }

    /// What FXRSTOR64 loads.
    pub fn load_pointers(&mut self, opcode: u16, instruction: u64, operand: u64) {
        self.opcode = opcode & 0x7ff;
        (self.code, self.data) = (canonical(instruction), canonical(operand));
    }

    /// Records an instruction, and its memory operand if it has one: effective address and whether that is in the stack's segment.
    pub fn record(&mut self, pc: u64, opcode: u16, operand: Option<(u64, bool)>) {
        self.code = recorded_code(pc, opcode);
        if let Some((address, stack)) = operand {
            self.data = canonical(address) ^ if stack { Form::RecordedStack } else { Form::Recorded }.flip();
        }
    }
}

/// What an image shows of `Reg::X87_CODE`.
pub(super) fn code_pointer(cpu: &mut CpuState, image: u64, word: u64, _: u64) -> u64 {
    let x = &cpu.x87;
    Image::ALL[image as usize].bytes(code_pointer_of(word), x.opcode_of(word), x.pending())
}

/// What an image shows of `Reg::X87_DATA`.
pub(super) fn data_pointer(cpu: &mut CpuState, image: u64, word: u64, _: u64) -> u64 {
    const RESERVED: u16 = 0xffff;
    Image::ALL[image as usize].bytes(pointer_of(word), RESERVED, cpu.x87.pending())
}

/// The register that these bytes of an image load.
pub(super) fn loaded_pointer(_: &mut CpuState, image: u64, bytes: u64, _: u64) -> u64 {
    match Image::ALL[image as usize] {
        Image::Env16 => (bytes & 0xffff | (bytes >> 16 & 0xffff) << 32) ^ Form::Loaded32.flip(),
        Image::Env32 | Image::Fxsave => bytes & 0xffff_ffff_ffff ^ Form::Loaded32.flip(),
        Image::Fxsave64 => canonical(bytes),
    }
}

/// The opcode that goes with a loaded `Reg::X87_CODE`.
pub(super) fn set_opcode(cpu: &mut CpuState, opcode: u64, _: u64, _: u64) -> u64 {
    cpu.x87.opcode = opcode as u16 & 0x7ff;
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_round_trip() {
        let mut cpu = CpuState::new();
        for pointer in [0, 0x40_1000, 0x7fff_ffff_efff, !7, 1 << 47, (1 << 56) - 1, !0 << 56] {
            cpu.x87.load_pointers(0x7ff, pointer, pointer);
            let loaded = Pointers { opcode: 0x7ff, instruction: pointer, operand: pointer, ..Pointers::default() };
            assert_eq!(cpu.x87.pointers(), loaded);
            for (stack, data_selector) in [(false, 0), (true, USER_SS)] {
                cpu.x87.record(0x40_1234, 0x5d9, Some((pointer, stack)));
                cpu.x87.record(0x7fff_ffff_effe, 0x7ff, None);
                let recorded = Pointers {
                    opcode: 0x7ff,
                    instruction: 0x7fff_ffff_effe,
                    code_selector: USER_CS,
                    operand: pointer,
                    data_selector,
                };
                assert_eq!(cpu.x87.pointers(), recorded);
            }
        }
    }

    #[test]
    fn what_an_image_loads_it_shows() {
        let mut cpu = CpuState::new();
        cpu.x87.set_control_word(0x37e);
        cpu.x87.set_status_word(1);
        for (image, bytes) in [
            (Image::Env32, 0xffff_4321_9abc_def0),
            (Image::Env16, 0x4321_def0),
            (Image::Fxsave, 0x4321_9abc_def0),
            (Image::Fxsave64, 0xff23_4567_89ab_cdef),
        ] {
            let word = loaded_pointer(&mut cpu, image as u64, bytes, 0);
            assert_eq!(data_pointer(&mut cpu, image as u64, word, 0), bytes, "{image:?}");
        }
    }
}
