//! Divisions that have faulted: in front of one, units look whether the divisor is zero, and leave it to the interpreter then. A fault of the
//! host's takes some 2 us more than finding out.

use super::super::emit::{RCX, RIP, SPILL};
use super::super::sites::Rule;
use super::Pass;
use iced_x86::{Code, Encoder, Instruction, OpKind, Register};

impl Pass<'_, '_> {
    /// Guards the instruction at hand if it is such a division, whose divisor can be loaded from here. Not where it has been counted.
    pub(super) fn guard(&mut self, insn: &Instruction) {
        if self.is_counted || self.is_profiled() {
            return;
        }
        let Some(load) = load_divisor(insn).filter(|_| (self.world.guarded)(self.pc)) else { return };
        self.code.save(SPILL, RCX);
        self.rule(Rule::BEFORE);
        let mut encoder = Encoder::new(64);
        encoder.encode(&load, self.code.here()).expect("a load of what a division reads encodes");
        self.code.put(&encoder.take_buffer());
        // jrcxz over the jump over what leaves
        self.code.put(&[0xe3, 2, 0xeb, 0]);
        let over = self.code.len();
        self.code.restore(RCX, SPILL);
        self.code.store64(RIP, self.pc);
        self.code.jump(self.world.exits.odd);
        self.code.land_short(over - 1);
        self.code.restore(RCX, SPILL);
        self.rule(Rule::before_spilled(RCX));
    }
}

/// What loads the divisor of a division into RCX, zero-extended; not from an address relative to RIP, which may be out of reach.
fn load_divisor(insn: &Instruction) -> Option<Instruction> {
    let (code, to) = match insn.code() {
        Code::Div_rm8 | Code::Idiv_rm8 => (Code::Movzx_r32_rm8, Register::ECX),
        Code::Div_rm16 | Code::Idiv_rm16 => (Code::Movzx_r32_rm16, Register::ECX),
        Code::Div_rm32 | Code::Idiv_rm32 => (Code::Mov_r32_rm32, Register::ECX),
        Code::Div_rm64 | Code::Idiv_rm64 => (Code::Mov_r64_rm64, Register::RCX),
        _ => return None,
    };
    if insn.is_ip_rel_memory_operand() {
        return None;
    }
    let mut load = *insn;
    load.set_code(code);
    load.set_op1_kind(insn.op0_kind());
    if insn.op0_kind() == OpKind::Register {
        load.set_op1_register(insn.op0_register());
    }
    load.set_op0_kind(OpKind::Register);
    load.set_op0_register(to);
    Some(load)
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions};

    fn loads(bytes: &[u8]) -> Option<String> {
        let insn = Decoder::new(64, bytes, DecoderOptions::NONE).decode();
        let load = load_divisor(&insn)?;
        let mut encoder = Encoder::new(64);
        encoder.encode(&load, 0).unwrap();
        Some(Decoder::new(64, &encoder.take_buffer(), DecoderOptions::NONE).decode().to_string())
    }

    #[test]
    fn divisors_are_loaded_by_their_width() {
        let is = |bytes: &[u8], text: &str| assert_eq!(loads(bytes).as_deref(), Some(text));
        is(&[0xf6, 0xf4], "movzx ecx,ah"); // div ah
        is(&[0x66, 0xf7, 0xfb], "movzx ecx,bx"); // idiv bx
        is(&[0xf7, 0xf1], "mov ecx,ecx"); // div ecx
        is(&[0x49, 0xf7, 0x7b, 8], "mov rcx,[r11+8]"); // idiv qword [r11+8]
        is(&[0x64, 0xf7, 0x34, 0x25, 4, 0, 0, 0], "mov ecx,[fs:4]"); // div dword fs:[4]
        assert_eq!(loads(&[0xf7, 0x35, 0, 0, 0, 0]), None); // div dword [rip]
        assert_eq!(loads(&[0xf7, 0xe1]), None); // mul ecx
    }
}
