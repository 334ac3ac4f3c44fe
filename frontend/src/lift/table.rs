//! All of x86-64 as rows: mnemonic, family, what differs. The only place that mentions every instruction.
//!
//! A row `Add => binary(Add, Writeback)` says that ADD is lifted by the function `binary` with these arguments. The order is
//! that of the SDM's chapters (vol. 1 chapter 5). A mnemonic without a row is unimplemented: the guest gets SIGILL and
//! the runtime names the instruction.

use super::alu::{BinaryOp::*, Carry, Dest::*, UnaryOp::*, *};
use super::control::*;
use super::flags::Cond;
use super::mov::{Extend::*, *};
use super::{Insn, Lifter};
use calque_ir::FaultKind;
use iced_x86::Mnemonic;

/// What the lifter makes of a mnemonic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// Lifted by this family with these arguments (as written in the table).
    Lifted { family: &'static str, args: &'static str },
    /// SIGILL, with a line that names it.
    Unimplemented,
}

/// One row: a mnemonic and what becomes of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    pub mnemonic: Mnemonic,
    pub status: Status,
}

macro_rules! table {
    ($( $mnemonic:ident => $family:ident ( $($arg:expr),* $(,)? ), )*) => {
        /// Lifts one instruction.
        pub(super) fn lift(l: &mut Lifter<'_>, i: &Insn) {
            match i.mnemonic() {
                $( Mnemonic::$mnemonic => $family(l, i, $($arg),*), )*
                _ => l.fault(FaultKind::Unimplemented),
            }
        }

        const LIFTED: &[Row] = &[ $( Row {
            mnemonic: Mnemonic::$mnemonic,
            status: Status::Lifted { family: stringify!($family), args: stringify!($($arg),*) },
        }, )* ];
    };
}

/// Every mnemonic of x86: the table's rows in its order, then those without one.
pub fn rows() -> impl Iterator<Item = Row> {
    let lifted = |m: Mnemonic| LIFTED.iter().any(|row| row.mnemonic == m);
    let missing = Mnemonic::values().filter(move |m| *m != Mnemonic::INVALID && !lifted(*m));
    LIFTED.iter().copied().chain(missing.map(|mnemonic| Row { mnemonic, status: Status::Unimplemented }))
}

#[rustfmt::skip]
table! {
//  mnemonic       family            what differs
    // Data transfer
    Mov         => mov              (),
    Movzx       => extend           (Zero),
    Movsx       => extend           (Sign),
    Movsxd      => extend           (Sign),
    Lea         => lea              (),
    Push        => push             (),
    Pop         => pop              (),
    Cmovo       => cmov             (Cond::O),
    Cmovno      => cmov             (Cond::No),
    Cmovb       => cmov             (Cond::B),
    Cmovae      => cmov             (Cond::Ae),
    Cmove       => cmov             (Cond::E),
    Cmovne      => cmov             (Cond::Ne),
    Cmovbe      => cmov             (Cond::Be),
    Cmova       => cmov             (Cond::A),
    Cmovs       => cmov             (Cond::S),
    Cmovns      => cmov             (Cond::Ns),
    Cmovp       => cmov             (Cond::P),
    Cmovnp      => cmov             (Cond::Np),
    Cmovl       => cmov             (Cond::L),
    Cmovge      => cmov             (Cond::Ge),
    Cmovle      => cmov             (Cond::Le),
    Cmovg       => cmov             (Cond::G),

    // Binary arithmetic and logic
    Add         => binary           (Add, Writeback),
    Or          => binary           (Or,  Writeback),
    Adc         => carrying         (Carry::Adc),
    Sbb         => carrying         (Carry::Sbb),
    And         => binary           (And, Writeback),
    Sub         => binary           (Sub, Writeback),
    Xor         => binary           (Xor, Writeback),
    Cmp         => binary           (Sub, FlagsOnly),
    Test        => binary           (And, FlagsOnly),
    Inc         => unary            (Inc),
    Dec         => unary            (Dec),
    Neg         => unary            (Neg),
    Not         => unary            (Not),

    // Control transfer
    Jmp         => jmp              (),
    Jo          => jcc              (Cond::O),
    Jno         => jcc              (Cond::No),
    Jb          => jcc              (Cond::B),
    Jae         => jcc              (Cond::Ae),
    Je          => jcc              (Cond::E),
    Jne         => jcc              (Cond::Ne),
    Jbe         => jcc              (Cond::Be),
    Ja          => jcc              (Cond::A),
    Js          => jcc              (Cond::S),
    Jns         => jcc              (Cond::Ns),
    Jp          => jcc              (Cond::P),
    Jnp         => jcc              (Cond::Np),
    Jl          => jcc              (Cond::L),
    Jge         => jcc              (Cond::Ge),
    Jle         => jcc              (Cond::Le),
    Jg          => jcc              (Cond::G),
    Call        => call             (),
    Ret         => ret              (),
    Seto        => setcc            (Cond::O),
    Setno       => setcc            (Cond::No),
    Setb        => setcc            (Cond::B),
    Setae       => setcc            (Cond::Ae),
    Sete        => setcc            (Cond::E),
    Setne       => setcc            (Cond::Ne),
    Setbe       => setcc            (Cond::Be),
    Seta        => setcc            (Cond::A),
    Sets        => setcc            (Cond::S),
    Setns       => setcc            (Cond::Ns),
    Setp        => setcc            (Cond::P),
    Setnp       => setcc            (Cond::Np),
    Setl        => setcc            (Cond::L),
    Setge       => setcc            (Cond::Ge),
    Setle       => setcc            (Cond::Le),
    Setg        => setcc            (Cond::G),
    Syscall     => syscall          (),
    Nop         => nop              (),
    Endbr64     => nop              (),
    Ud2         => trap             (FaultKind::InvalidOpcode),
}
