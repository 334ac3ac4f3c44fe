//! x86-64 instructions that Cranelift has no operation for: it emits a stand-in with the same operands, and here its bytes
//! are written anew. A stand-in is marked by a source location of its own (`lower::Lowering::respelled`), and never shorter
//! than what replaces it, so that no offset changes.
//!
//! What this buys: AES, carry-less products, shifts by lanes in one instruction instead of a call (on AArch64 by `words.rs`); and
//! exact exception flags. CLIF has no conversion to integers by MXCSR's rounding mode or without checks around it,
//! no comparison that takes a quiet NaN for an invalid operation, and no rounding that spares the precision flag.

use crate::words::{Word, signal_quiet_nans};
use iced_x86::{Code, Decoder, DecoderOptions, Encoder, EncodingKind, Instruction, Mnemonic, Register};
use std::ops::Range;

/// What becomes of the stand-ins at a source location.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Respell {
    /// ROUNDSS and kin spare the precision flag.
    RoundQuietly,
    /// CMPPS and kin (with VEX) raise the invalid flag for quiet NaNs, or do not.
    Compare { signaling: bool },
    /// UCOMISS and UCOMISD become COMISS and COMISD.
    Comis,
    /// The same on AArch64.
    Fcmpe,
    /// A move of a vector register's low word becomes a conversion of the float there.
    ToInt { from_double: bool, to_long: bool, truncate: bool },
    /// CVTTPS2DQ becomes CVTPS2DQ.
    RoundedLanes,
    /// CVTPD2PS becomes CVTPD2DQ or CVTTPD2DQ.
    LowLanes { truncate: bool },
    /// VPSHUFB becomes another instruction of two sources, of which the second may be in memory.
    Pshufb(Code),
    /// VPAVGB, the same where the sources may be exchanged.
    Pavgb(Code),
    /// VPALIGNR becomes VPCLMULQDQ with this immediate.
    Palignr { immediate: u8 },
    /// An AArch64 stand-in.
    Word(Word),
}

impl Respell {
    /// Whether it may have no code: where nobody uses its result, or Cranelift compares otherwise. The others' results would be
    /// wrong.
    pub(crate) fn may_be_missing(self) -> bool {
        let only_flags = matches!(self, Respell::RoundQuietly | Respell::Compare { .. } | Respell::Comis);
        only_flags
            || matches!(self, Respell::Pshufb(_) | Respell::Pavgb(_) | Respell::Palignr { .. } | Respell::Word(_))
    }
}

/// Respells the stand-ins in `range`; how many there were.
pub(crate) fn respell(code: &mut [u8], range: Range<usize>, how: Respell) -> Result<usize, String> {
    if let Respell::Word(word) = how {
        return Ok(word.replace(&mut code[range]));
    }
    if how == Respell::Fcmpe {
        signal_quiet_nans(&mut code[range]);
        return Ok(1);
    }
    let text = code[range.clone()].to_vec();
    let mut found = 0;
    for old in &mut Decoder::with_ip(64, &text, range.start as u64, DecoderOptions::NONE) {
        let Some(new) = replacement(&old, how) else { continue };
        found += 1;
        if new == old {
            continue;
        }
        let mut encoder = Encoder::new(64);
        encoder.encode(&new, old.ip()).map_err(|e| e.to_string())?;
        let mut bytes = encoder.take_buffer();
        if bytes.len() > old.len() {
            return Err(format!("{how:?} of {:?} does not fit", old.code()));
        }
        bytes.resize(old.len(), NOP);
        code[old.ip() as usize..old.next_ip() as usize].copy_from_slice(&bytes);
    }
    Ok(found)
}

const NOP: u8 = 0x90;

/// What a stand-in becomes; `None` for any other instruction.
fn replacement(old: &Instruction, how: Respell) -> Option<Instruction> {
    use Mnemonic::*;
    let vex = old.code().op_code().encoding() == EncodingKind::VEX;
    let either = |legacy, with_vex| Some(if vex { with_vex } else { legacy });
    let code = match (how, old.mnemonic()) {
        (Respell::RoundQuietly, Roundss | Roundsd | Roundps | Roundpd | Vroundss | Vroundsd | Vroundps | Vroundpd) => {
            return Some(with_immediate(old, old.immediate8() | 8));
        }
        (Respell::Compare { signaling }, Vcmpps | Vcmppd) => {
            let predicate = old.immediate8() & 7;
            let by_itself = matches!(predicate, 1 | 2 | 5 | 6);
            return Some(with_immediate(old, predicate | u8::from(signaling != by_itself) << 4));
        }
        (Respell::Compare { .. }, Cmpps | Cmppd) => return Some(*old),
        (Respell::Comis, Ucomiss) => either(Code::Comiss_xmm_xmmm32, Code::INVALID),
        (Respell::Comis, Vucomiss) => either(Code::INVALID, Code::VEX_Vcomiss_xmm_xmmm32),
        (Respell::Comis, Ucomisd) => either(Code::Comisd_xmm_xmmm64, Code::INVALID),
        (Respell::Comis, Vucomisd) => either(Code::INVALID, Code::VEX_Vcomisd_xmm_xmmm64),
        (Respell::ToInt { from_double, to_long, truncate }, Movq | Vmovq | Pextrq | Vpextrq) => {
            return conversion(old, vex, from_double, to_long, truncate);
        }
        (Respell::RoundedLanes, Cvttps2dq | Vcvttps2dq) => {
            either(Code::Cvtps2dq_xmm_xmmm128, Code::VEX_Vcvtps2dq_xmm_xmmm128)
        }
        (Respell::LowLanes { truncate: true }, Cvtpd2ps | Vcvtpd2ps) => {
            either(Code::Cvttpd2dq_xmm_xmmm128, Code::VEX_Vcvttpd2dq_xmm_xmmm128)
        }
        (Respell::LowLanes { truncate: false }, Cvtpd2ps | Vcvtpd2ps) => {
            either(Code::Cvtpd2dq_xmm_xmmm128, Code::VEX_Vcvtpd2dq_xmm_xmmm128)
        }
        (Respell::Pshufb(code), Vpshufb) | (Respell::Pavgb(code), Vpavgb) => Some(code),
        (Respell::Palignr { immediate }, Vpalignr) => {
            let mut new = with_immediate(old, immediate);
            new.set_code(Code::VEX_Vpclmulqdq_xmm_xmm_xmmm128_imm8);
            return Some(new);
        }
        _ => None,
    };
    code.map(|code| {
        let mut new = *old;
        new.set_code(code);
        new
    })
}

fn with_immediate(old: &Instruction, immediate: u8) -> Instruction {
    let mut new = *old;
    new.set_immediate8(immediate);
    new
}

/// The conversion of the float in the low lane of a move's source.
fn conversion(old: &Instruction, vex: bool, from_double: bool, to_long: bool, truncate: bool) -> Option<Instruction> {
    let (to, from) = (old.op0_register(), old.op1_register());
    if !to.is_gpr64() || !from.is_xmm() {
        return None;
    }
    #[rustfmt::skip]
    let code = match (from_double, to_long, truncate, vex) {
        (false, false, false, false) => Code::Cvtss2si_r32_xmmm32,
        (false, false, false, true)  => Code::VEX_Vcvtss2si_r32_xmmm32,
        (false, false, true,  false) => Code::Cvttss2si_r32_xmmm32,
        (false, false, true,  true)  => Code::VEX_Vcvttss2si_r32_xmmm32,
        (false, true,  false, false) => Code::Cvtss2si_r64_xmmm32,
        (false, true,  false, true)  => Code::VEX_Vcvtss2si_r64_xmmm32,
        (false, true,  true,  false) => Code::Cvttss2si_r64_xmmm32,
        (false, true,  true,  true)  => Code::VEX_Vcvttss2si_r64_xmmm32,
        (true,  false, false, false) => Code::Cvtsd2si_r32_xmmm64,
        (true,  false, false, true)  => Code::VEX_Vcvtsd2si_r32_xmmm64,
        (true,  false, true,  false) => Code::Cvttsd2si_r32_xmmm64,
        (true,  false, true,  true)  => Code::VEX_Vcvttsd2si_r32_xmmm64,
        (true,  true,  false, false) => Code::Cvtsd2si_r64_xmmm64,
        (true,  true,  false, true)  => Code::VEX_Vcvtsd2si_r64_xmmm64,
        (true,  true,  true,  false) => Code::Cvttsd2si_r64_xmmm64,
        (true,  true,  true,  true)  => Code::VEX_Vcvttsd2si_r64_xmmm64,
    };
    let to = if to_long { to } else { Register::EAX + (to as u32 - Register::RAX as u32) };
    Instruction::with2(code, to, from).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(bytes: &[u8], how: Respell) -> String {
        let mut code = bytes.to_vec();
        let len = code.len();
        assert_eq!(respell(&mut code, 0..len, how), Ok(1));
        code.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Expected bytes are GNU as's.
    #[test]
    fn stand_ins_become_what_was_meant() {
        // movq rax, xmm9 -> cvttsd2si eax, xmm9
        let how = Respell::ToInt { from_double: true, to_long: false, truncate: true };
        assert_eq!(one(&[0x66, 0x4c, 0x0f, 0x7e, 0xc8], how), "f2410f2cc1");
        // vmovq r8, xmm1 -> vcvtss2si r8, xmm1
        let how = Respell::ToInt { from_double: false, to_long: true, truncate: false };
        assert_eq!(one(&[0xc4, 0xc1, 0xf9, 0x7e, 0xc8], how), "c461fa2dc1");
        // ucomisd xmm0, xmm1 -> comisd
        assert_eq!(one(&[0x66, 0x0f, 0x2e, 0xc1], Respell::Comis), "660f2fc1");
        // roundsd xmm0, xmm1, 1 -> 9
        assert_eq!(one(&[0x66, 0x0f, 0x3a, 0x0b, 0xc1, 0x01], Respell::RoundQuietly), "660f3a0bc109");
        // cvttps2dq -> cvtps2dq; cvtpd2ps -> cvttpd2dq
        assert_eq!(one(&[0xf3, 0x0f, 0x5b, 0xc1], Respell::RoundedLanes), "660f5bc1");
        assert_eq!(one(&[0x66, 0x0f, 0x5a, 0xc1], Respell::LowLanes { truncate: true }), "660fe6c1");
        // vpshufb xmm9, xmm1, [rsp+16] -> vaesenc; vpalignr xmm1, xmm2, [rbp+256], 1 -> vpclmulqdq
        let aesenc = Respell::Pshufb(Code::VEX_Vaesenc_xmm_xmm_xmmm128);
        assert_eq!(one(&[0xc4, 0x62, 0x71, 0x00, 0x4c, 0x24, 0x10], aesenc), "c46271dc4c2410");
        let product = Respell::Palignr { immediate: 0x11 };
        assert_eq!(one(&[0xc4, 0xe3, 0x69, 0x0f, 0x8d, 0, 1, 0, 0, 1], product), "c4e369448d0001000011");
        // vpshufb xmm1, xmm2, xmm3 -> vpsllvq
        assert_eq!(
            one(&[0xc4, 0xe2, 0x69, 0x00, 0xcb], Respell::Pshufb(Code::VEX_Vpsllvq_xmm_xmm_xmmm128)),
            "c4e2e947cb"
        );
        // vcmpltps -> vcmplt_oqps
        assert_eq!(one(&[0xc5, 0xf0, 0xc2, 0xc2, 0x01], Respell::Compare { signaling: false }), "c5f0c2c211");
    }
}
