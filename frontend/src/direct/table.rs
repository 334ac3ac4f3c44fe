//! The instructions that are carried out directly, as rows: mnemonic, family, what differs. Forms of these that are rare are refused
//! by the family, and all with a LOCK prefix.

use super::family::{Binary::*, Dest::*, Extend, First::*, RAX, RDX, Shift::*, Unary::*};
use super::operand::Aligned;
use super::{Machine, Outcome, Refusal};
use crate::lift::{Cond, Gpr, Insn};
use calque_ir::interp::Host;
use iced_x86::Mnemonic;

macro_rules! table {
    ($( $mnemonic:ident => $family:ident ( $($arg:expr),* $(,)? ), )*) => {
        /// Carries out one instruction.
        #[inline]
        pub(super) fn carry_out<H: Host>(m: &mut Machine<'_, H>, i: &Insn) -> Outcome {
            if i.has_lock_prefix() {
                return Err(Refusal::Unknown);
            }
            match i.mnemonic() {
                $( Mnemonic::$mnemonic => m.$family(i, $($arg),*), )*
                _ => Err(Refusal::Unknown),
            }
        }

        /// All of them.
        #[cfg(test)]
        pub(super) const KNOWN: &[Mnemonic] = &[ $( Mnemonic::$mnemonic, )* ];
    };
}

#[rustfmt::skip]
table! {
//  mnemonic       family             what differs
    // Data transfer
    Mov         => mov               (),
    Movzx       => extend            (Extend::Zero),
    Movsx       => extend            (Extend::Sign),
    Movsxd      => extend            (Extend::Sign),
    Lea         => lea               (),
    Xchg        => xchg              (),
    Push        => push              (),
    Pop         => pop               (),
    Leave       => leave             (),
    Cwde        => extend_accumulator(Gpr::R16(RAX), Gpr::R32(RAX)),
    Cdqe        => extend_accumulator(Gpr::R32(RAX), Gpr::R64(RAX)),
    Cdq         => sign_to_rdx       (Gpr::R32(RAX), Gpr::R32(RDX)),
    Cqo         => sign_to_rdx       (Gpr::R64(RAX), Gpr::R64(RDX)),
    Cmovo       => cmov              (Cond::O),
    Cmovno      => cmov              (Cond::No),
    Cmovb       => cmov              (Cond::B),
    Cmovae      => cmov              (Cond::Ae),
    Cmove       => cmov              (Cond::E),
    Cmovne      => cmov              (Cond::Ne),
    Cmovbe      => cmov              (Cond::Be),
    Cmova       => cmov              (Cond::A),
    Cmovs       => cmov              (Cond::S),
    Cmovns      => cmov              (Cond::Ns),
    Cmovp       => cmov              (Cond::P),
    Cmovnp      => cmov              (Cond::Np),
    Cmovl       => cmov              (Cond::L),
    Cmovge      => cmov              (Cond::Ge),
    Cmovle      => cmov              (Cond::Le),
    Cmovg       => cmov              (Cond::G),

    // Arithmetic and logic
    Add         => binary            (Add, Writeback),
    Or          => binary            (Or,  Writeback),
    Adc         => binary            (Adc, Writeback),
    Sbb         => binary            (Sbb, Writeback),
    And         => binary            (And, Writeback),
    Sub         => binary            (Sub, Writeback),
    Xor         => binary            (Xor, Writeback),
    Cmp         => binary            (Sub, FlagsOnly),
    Test        => binary            (And, FlagsOnly),
    Inc         => unary             (Inc),
    Dec         => unary             (Dec),
    Neg         => unary             (Neg),
    Not         => unary             (Not),
    Mul         => mul               (),
    Imul        => imul              (),
    Div         => div               (),
    Shl         => shift             (Left),
    Shr         => shift             (Right),
    Sar         => shift             (Arithmetic),
    Rol         => shift             (RotateLeft),
    Ror         => shift             (RotateRight),
    Bt          => bit_test          (),
    Bsf         => bit_scan          (Lowest),
    Bsr         => bit_scan          (Highest),

    // Control transfer
    Jmp         => jmp               (),
    Jo          => jcc               (Cond::O),
    Jno         => jcc               (Cond::No),
    Jb          => jcc               (Cond::B),
    Jae         => jcc               (Cond::Ae),
    Je          => jcc               (Cond::E),
    Jne         => jcc               (Cond::Ne),
    Jbe         => jcc               (Cond::Be),
    Ja          => jcc               (Cond::A),
    Js          => jcc               (Cond::S),
    Jns         => jcc               (Cond::Ns),
    Jp          => jcc               (Cond::P),
    Jnp         => jcc               (Cond::Np),
    Jl          => jcc               (Cond::L),
    Jge         => jcc               (Cond::Ge),
    Jle         => jcc               (Cond::Le),
    Jg          => jcc               (Cond::G),
    Call        => call              (),
    Ret         => ret               (),
    Seto        => setcc             (Cond::O),
    Setno       => setcc             (Cond::No),
    Setb        => setcc             (Cond::B),
    Setae       => setcc             (Cond::Ae),
    Sete        => setcc             (Cond::E),
    Setne       => setcc             (Cond::Ne),
    Setbe       => setcc             (Cond::Be),
    Seta        => setcc             (Cond::A),
    Sets        => setcc             (Cond::S),
    Setns       => setcc             (Cond::Ns),
    Setp        => setcc             (Cond::P),
    Setnp       => setcc             (Cond::Np),
    Setl        => setcc             (Cond::L),
    Setge       => setcc             (Cond::Ge),
    Setle       => setcc             (Cond::Le),
    Setg        => setcc             (Cond::G),
    Nop         => nop               (),
    Endbr64     => nop               (),

    // Vectors
    Movaps      => move_vector       (Aligned::Yes),
    Movapd      => move_vector       (Aligned::Yes),
    Movdqa      => move_vector       (Aligned::Yes),
    Movups      => move_vector       (Aligned::No),
    Movupd      => move_vector       (Aligned::No),
    Movdqu      => move_vector       (Aligned::No),
    Movd        => move_low          (32),
    Movq        => move_low          (64),
    Pxor        => xor_vectors       (),
    Xorps       => xor_vectors       (),
    Punpcklqdq  => unpack_low_quadwords(),
}
