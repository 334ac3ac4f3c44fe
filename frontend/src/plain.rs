//! Decodes the encodings that nearly all code is made of, as the decoder does, at half its cost: at first without prefix but REX, operands
//! of 8, 32 and 64 bits, the common rows of the opcode maps (SDM vol. 2 appendix A); then with prefixes and VEX (`rare.rs`), and SSE, AVX
//! and BMI (`vectors.rs`). Of whatever else [`decode`] says no, and the decoder is asked. A test compares every answer with the
//! decoder's, bit by bit.

mod rare;
mod vectors;

use crate::decode::MAX_INSN;
use iced_x86::Code::{self, *};
use iced_x86::{CodeSize, Instruction, OpKind, Register};

/// Where an operand stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Absent,
    First,
    Second,
}

/// Width of the r/m operand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Width {
    /// The instruction's.
    Own,
    Byte,
    Word,
    Dword,
    Qword,
    /// None: only its address counts.
    Address,
}

/// What is not in ModRM.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    Nothing,
    /// An immediate of the operand size, 4 bytes at most.
    Imm,
    /// One of a byte that is extended.
    Extended,
    /// The same two as third operand.
    ThirdImm,
    ThirdExtended,
    /// A count in a byte; of 1; in CL.
    Count,
    One,
    Cl,
    /// An immediate of 1 or 4 bytes that is pushed.
    Push8,
    Push32,
    /// A displacement of 1 or 4 bytes.
    Rel8,
    Rel32,
    /// The register in the opcode, always of 64 bits.
    Short,
    /// That register and an immediate of its size.
    ShortImm,
    /// AL, EAX or RAX, and an immediate.
    Accumulator,
}

/// Operands of an encoding.
#[derive(Clone, Copy)]
struct Form {
    rm: Place,
    width: Width,
    reg: Place,
    rest: Rest,
}

const fn without_modrm(rest: Rest) -> Form {
    Form { rm: Place::Absent, width: Width::Own, reg: Place::Absent, rest }
}

const fn with_rm(width: Width, rest: Rest) -> Form {
    Form { rm: Place::First, width, reg: Place::Absent, rest }
}

const fn with_reg(width: Width) -> Form {
    Form { rm: Place::Second, width, reg: Place::First, rest: Rest::Nothing }
}

const RM_REG: Form = Form { rm: Place::First, width: Width::Own, reg: Place::Second, rest: Rest::Nothing };
const REG_RM: Form = with_reg(Width::Own);
const RM: Form = with_rm(Width::Own, Rest::Nothing);
const RM_IMM: Form = with_rm(Width::Own, Rest::Imm);
const BARE: Form = without_modrm(Rest::Nothing);
const REL8: Form = without_modrm(Rest::Rel8);
const REL32: Form = without_modrm(Rest::Rel32);
const ACCUMULATOR_IMM: Form = without_modrm(Rest::Accumulator);

/// An opcode.
#[derive(Clone, Copy)]
struct Row {
    form: Form,
    /// Its operands are bytes.
    byte: bool,
    /// Which of [`GROUPS`] it stands for, by the middle bits of ModRM; 0 for none.
    group: u8,
    /// Its code without REX.W, and with; none if it is not plain.
    codes: [Code; 2],
}

const fn row(form: Form, narrow: Code, wide: Code) -> Row {
    Row { form, byte: false, group: 0, codes: [narrow, wide] }
}

const NO: Row = row(BARE, INVALID, INVALID);

const fn byte(form: Form, code: Code) -> Row {
    Row { byte: true, ..row(form, code, code) }
}

const fn group(group: u8) -> Row {
    Row { group, ..NO }
}

type Map = [Row; 256];

/// Six rows of arithmetic: operands both ways, and an immediate.
const fn arithmetic(mut map: Map, at: usize, bytes: [Code; 3], narrow: [Code; 3], wide: [Code; 3]) -> Map {
    map[at] = byte(RM_REG, bytes[0]);
    map[at + 1] = row(RM_REG, narrow[0], wide[0]);
    map[at + 2] = byte(REG_RM, bytes[1]);
    map[at + 3] = row(REG_RM, narrow[1], wide[1]);
    map[at + 4] = byte(ACCUMULATOR_IMM, bytes[2]);
    map[at + 5] = row(ACCUMULATOR_IMM, narrow[2], wide[2]);
    map
}

/// Rows that differ in nothing but their codes.
const fn alike<const N: usize>(mut map: Map, at: usize, form: Form, narrow: [Code; N], wide: [Code; N]) -> Map {
    let mut n = 0;
    while n < N {
        map[at + n] = row(form, narrow[n], wide[n]);
        n += 1;
    }
    map
}

/// The arithmetic group.
const fn group1(form: Form, narrow: [Code; 8], wide: [Code; 8]) -> [Row; 8] {
    let (mut rows, mut n) = ([NO; 8], 0);
    while n < 8 {
        rows[n] = row(form, narrow[n], wide[n]);
        n += 1;
    }
    rows
}

/// The shift group without rotations through CF, which are rare.
const fn group2(form: Form, narrow: [Code; 5], wide: [Code; 5]) -> [Row; 8] {
    let mut rows = [NO; 8];
    let (mut n, places) = (0, [0, 1, 4, 5, 7]);
    while n < places.len() {
        rows[places[n]] = row(form, narrow[n], wide[n]);
        n += 1;
    }
    rows
}

/// The same of bytes, without rotations.
const fn group2_bytes(form: Form, codes: [Code; 3]) -> [Row; 8] {
    let [shl, shr, sar] = codes;
    [NO, NO, NO, NO, byte(form, shl), byte(form, shr), NO, byte(form, sar)]
}

#[rustfmt::skip]
const GROUP1_BYTES: [Row; 8] = [
    byte(RM_IMM, Add_rm8_imm8), byte(RM_IMM, Or_rm8_imm8), byte(RM_IMM, Adc_rm8_imm8), byte(RM_IMM, Sbb_rm8_imm8),
    byte(RM_IMM, And_rm8_imm8), byte(RM_IMM, Sub_rm8_imm8), byte(RM_IMM, Xor_rm8_imm8), byte(RM_IMM, Cmp_rm8_imm8),
];
#[rustfmt::skip]
const GROUP1_IMM: [Row; 8] = group1(
    RM_IMM,
    [Add_rm32_imm32, Or_rm32_imm32, Adc_rm32_imm32, Sbb_rm32_imm32, And_rm32_imm32, Sub_rm32_imm32, Xor_rm32_imm32, Cmp_rm32_imm32],
    [Add_rm64_imm32, Or_rm64_imm32, Adc_rm64_imm32, Sbb_rm64_imm32, And_rm64_imm32, Sub_rm64_imm32, Xor_rm64_imm32, Cmp_rm64_imm32],
);
#[rustfmt::skip]
const GROUP1_IMM8: [Row; 8] = group1(
    with_rm(Width::Own, Rest::Extended),
    [Add_rm32_imm8, Or_rm32_imm8, Adc_rm32_imm8, Sbb_rm32_imm8, And_rm32_imm8, Sub_rm32_imm8, Xor_rm32_imm8, Cmp_rm32_imm8],
    [Add_rm64_imm8, Or_rm64_imm8, Adc_rm64_imm8, Sbb_rm64_imm8, And_rm64_imm8, Sub_rm64_imm8, Xor_rm64_imm8, Cmp_rm64_imm8],
);
#[rustfmt::skip]
const GROUP2_COUNT: [Row; 8] = group2(
    with_rm(Width::Own, Rest::Count),
    [Rol_rm32_imm8, Ror_rm32_imm8, Shl_rm32_imm8, Shr_rm32_imm8, Sar_rm32_imm8],
    [Rol_rm64_imm8, Ror_rm64_imm8, Shl_rm64_imm8, Shr_rm64_imm8, Sar_rm64_imm8],
);
#[rustfmt::skip]
const GROUP2_ONE: [Row; 8] = group2(
    with_rm(Width::Own, Rest::One),
    [Rol_rm32_1, Ror_rm32_1, Shl_rm32_1, Shr_rm32_1, Sar_rm32_1],
    [Rol_rm64_1, Ror_rm64_1, Shl_rm64_1, Shr_rm64_1, Sar_rm64_1],
);
#[rustfmt::skip]
const GROUP2_CL: [Row; 8] = group2(
    with_rm(Width::Own, Rest::Cl),
    [Rol_rm32_CL, Ror_rm32_CL, Shl_rm32_CL, Shr_rm32_CL, Sar_rm32_CL],
    [Rol_rm64_CL, Ror_rm64_CL, Shl_rm64_CL, Shr_rm64_CL, Sar_rm64_CL],
);
#[rustfmt::skip]
const GROUP2_BYTES: [Row; 8] = group2_bytes(with_rm(Width::Own, Rest::Count), [Shl_rm8_imm8, Shr_rm8_imm8, Sar_rm8_imm8]);
#[rustfmt::skip]
const GROUP2_BYTES_ONE: [Row; 8] = group2_bytes(with_rm(Width::Own, Rest::One), [Shl_rm8_1, Shr_rm8_1, Sar_rm8_1]);
#[rustfmt::skip]
const GROUP3_BYTES: [Row; 8] = [
    byte(RM_IMM, Test_rm8_imm8), NO, byte(RM, Not_rm8), byte(RM, Neg_rm8), byte(RM, Mul_rm8), byte(RM, Imul_rm8), byte(RM, Div_rm8), byte(RM, Idiv_rm8),
];
#[rustfmt::skip]
const GROUP3: [Row; 8] = [
    row(RM_IMM, Test_rm32_imm32, Test_rm64_imm32), NO, row(RM, Not_rm32, Not_rm64), row(RM, Neg_rm32, Neg_rm64),
    row(RM, Mul_rm32, Mul_rm64), row(RM, Imul_rm32, Imul_rm64), row(RM, Div_rm32, Div_rm64), row(RM, Idiv_rm32, Idiv_rm64),
];
const GROUP4: [Row; 8] = [byte(RM, Inc_rm8), byte(RM, Dec_rm8), NO, NO, NO, NO, NO, NO];
#[rustfmt::skip]
const GROUP5: [Row; 8] = [
    row(RM, Inc_rm32, Inc_rm64), row(RM, Dec_rm32, Dec_rm64),
    row(with_rm(Width::Qword, Rest::Nothing), Call_rm64, Call_rm64), NO, row(with_rm(Width::Qword, Rest::Nothing), Jmp_rm64, Jmp_rm64), NO,
    row(with_rm(Width::Qword, Rest::Nothing), Push_rm64, Push_rm64), NO,
];
const GROUP11_BYTES: [Row; 8] = [byte(RM_IMM, Mov_rm8_imm8), NO, NO, NO, NO, NO, NO, NO];
#[rustfmt::skip]
const GROUP8: [Row; 8] = {
    const COUNT: Form = with_rm(Width::Own, Rest::Count);
    [
        NO, NO, NO, NO, row(COUNT, Bt_rm32_imm8, Bt_rm64_imm8), row(COUNT, Bts_rm32_imm8, Bts_rm64_imm8), row(COUNT, Btr_rm32_imm8, Btr_rm64_imm8),
        row(COUNT, Btc_rm32_imm8, Btc_rm64_imm8),
    ]
};
const NOPS: [Row; 8] = [row(RM, Nop_rm32, Nop_rm64), NO, NO, NO, NO, NO, NO, NO];
const GROUP11: [Row; 8] = [row(RM_IMM, Mov_rm32_imm32, Mov_rm64_imm32), NO, NO, NO, NO, NO, NO, NO];

const IN_GROUP1_BYTES: u8 = 1;
const IN_GROUP1_IMM: u8 = 2;
const IN_GROUP1_IMM8: u8 = 3;
const IN_GROUP2_COUNT: u8 = 4;
const IN_GROUP2_ONE: u8 = 5;
const IN_GROUP2_CL: u8 = 6;
const IN_GROUP3_BYTES: u8 = 7;
const IN_GROUP3: u8 = 8;
const IN_GROUP5: u8 = 9;
const IN_GROUP11_BYTES: u8 = 10;
const IN_GROUP11: u8 = 11;
const IN_NOPS: u8 = 12;
const IN_GROUP2_BYTES: u8 = 13;
const IN_GROUP4: u8 = 14;
const IN_GROUP8: u8 = 15;
const IN_GROUP2_BYTES_ONE: u8 = 16;

/// By the number in [`Row::group`].
#[rustfmt::skip]
static GROUPS: [[Row; 8]; 17] = [
    [NO; 8], GROUP1_BYTES, GROUP1_IMM, GROUP1_IMM8, GROUP2_COUNT, GROUP2_ONE, GROUP2_CL, GROUP3_BYTES, GROUP3, GROUP5, GROUP11_BYTES, GROUP11, NOPS,
    GROUP2_BYTES, GROUP4, GROUP8, GROUP2_BYTES_ONE,
];

#[rustfmt::skip]
static ONE_BYTE: Map = {
    let map = [NO; 256];
    let map = arithmetic(map, 0x00, [Add_rm8_r8, Add_r8_rm8, Add_AL_imm8], [Add_rm32_r32, Add_r32_rm32, Add_EAX_imm32], [Add_rm64_r64, Add_r64_rm64, Add_RAX_imm32]);
    let map = arithmetic(map, 0x08, [Or_rm8_r8, Or_r8_rm8, Or_AL_imm8], [Or_rm32_r32, Or_r32_rm32, Or_EAX_imm32], [Or_rm64_r64, Or_r64_rm64, Or_RAX_imm32]);
    let map = arithmetic(map, 0x10, [Adc_rm8_r8, Adc_r8_rm8, Adc_AL_imm8], [Adc_rm32_r32, Adc_r32_rm32, Adc_EAX_imm32], [Adc_rm64_r64, Adc_r64_rm64, Adc_RAX_imm32]);
    let map = arithmetic(map, 0x18, [Sbb_rm8_r8, Sbb_r8_rm8, Sbb_AL_imm8], [Sbb_rm32_r32, Sbb_r32_rm32, Sbb_EAX_imm32], [Sbb_rm64_r64, Sbb_r64_rm64, Sbb_RAX_imm32]);
    let map = arithmetic(map, 0x20, [And_rm8_r8, And_r8_rm8, And_AL_imm8], [And_rm32_r32, And_r32_rm32, And_EAX_imm32], [And_rm64_r64, And_r64_rm64, And_RAX_imm32]);
    let map = arithmetic(map, 0x28, [Sub_rm8_r8, Sub_r8_rm8, Sub_AL_imm8], [Sub_rm32_r32, Sub_r32_rm32, Sub_EAX_imm32], [Sub_rm64_r64, Sub_r64_rm64, Sub_RAX_imm32]);
    let map = arithmetic(map, 0x30, [Xor_rm8_r8, Xor_r8_rm8, Xor_AL_imm8], [Xor_rm32_r32, Xor_r32_rm32, Xor_EAX_imm32], [Xor_rm64_r64, Xor_r64_rm64, Xor_RAX_imm32]);
    let map = arithmetic(map, 0x38, [Cmp_rm8_r8, Cmp_r8_rm8, Cmp_AL_imm8], [Cmp_rm32_r32, Cmp_r32_rm32, Cmp_EAX_imm32], [Cmp_rm64_r64, Cmp_r64_rm64, Cmp_RAX_imm32]);
    let map = alike(map, 0x50, without_modrm(Rest::Short), [Push_r64; 8], [Push_r64; 8]);
    let map = alike(map, 0x58, without_modrm(Rest::Short), [Pop_r64; 8], [Pop_r64; 8]);
    let jcc = [Jo_rel8_64, Jno_rel8_64, Jb_rel8_64, Jae_rel8_64, Je_rel8_64, Jne_rel8_64, Jbe_rel8_64, Ja_rel8_64, Js_rel8_64, Jns_rel8_64, Jp_rel8_64, Jnp_rel8_64, Jl_rel8_64, Jge_rel8_64, Jle_rel8_64, Jg_rel8_64];
    let map = alike(map, 0x70, REL8, jcc, jcc);
    let mut map = alike(map, 0xb8, without_modrm(Rest::ShortImm), [Mov_r32_imm32; 8], [Mov_r64_imm64; 8]);
    map[0x63] = row(with_reg(Width::Dword), INVALID, Movsxd_r64_rm32);
    map[0x68] = row(without_modrm(Rest::Push32), Pushq_imm32, Pushq_imm32);
    map[0x69] = row(Form { rest: Rest::ThirdImm, ..REG_RM }, Imul_r32_rm32_imm32, Imul_r64_rm64_imm32);
    map[0x6b] = row(Form { rest: Rest::ThirdExtended, ..REG_RM }, Imul_r32_rm32_imm8, Imul_r64_rm64_imm8);
    map[0x6a] = row(without_modrm(Rest::Push8), Pushq_imm8, Pushq_imm8);
    map[0x80] = group(IN_GROUP1_BYTES);
    map[0x81] = group(IN_GROUP1_IMM);
    map[0x83] = group(IN_GROUP1_IMM8);
    map[0x84] = byte(RM_REG, Test_rm8_r8);
    map[0x85] = row(RM_REG, Test_rm32_r32, Test_rm64_r64);
    map[0x86] = byte(RM_REG, Xchg_rm8_r8);
    map[0x87] = row(RM_REG, Xchg_rm32_r32, Xchg_rm64_r64);
    map[0x88] = byte(RM_REG, Mov_rm8_r8);
    map[0x89] = row(RM_REG, Mov_rm32_r32, Mov_rm64_r64);
    map[0x8a] = byte(REG_RM, Mov_r8_rm8);
    map[0x8b] = row(REG_RM, Mov_r32_rm32, Mov_r64_rm64);
    map[0x8d] = row(with_reg(Width::Address), Lea_r32_m, Lea_r64_m);
    map[0x98] = row(BARE, Cwde, Cdqe);
    map[0x99] = row(BARE, Cdq, Cqo);
    map[0xa8] = byte(ACCUMULATOR_IMM, Test_AL_imm8);
    map[0xa9] = row(ACCUMULATOR_IMM, Test_EAX_imm32, Test_RAX_imm32);
    map[0xc0] = group(IN_GROUP2_BYTES);
    map[0xd0] = group(IN_GROUP2_BYTES_ONE);
    map[0xc1] = group(IN_GROUP2_COUNT);
    map[0xc3] = row(BARE, Retnq, Retnq);
    map[0xc6] = group(IN_GROUP11_BYTES);
    map[0xc7] = group(IN_GROUP11);
    map[0xc9] = row(BARE, Leaveq, Leaveq);
    map[0xd1] = group(IN_GROUP2_ONE);
    map[0xd3] = group(IN_GROUP2_CL);
    map[0xe8] = row(REL32, Call_rel32_64, Call_rel32_64);
    map[0xe9] = row(REL32, Jmp_rel32_64, Jmp_rel32_64);
    map[0xeb] = row(REL8, Jmp_rel8_64, Jmp_rel8_64);
    map[0xf6] = group(IN_GROUP3_BYTES);
    map[0xf7] = group(IN_GROUP3);
    map[0xfe] = group(IN_GROUP4);
    map[0xff] = group(IN_GROUP5);
    map
};

/// Behind the byte 0x0f.
#[rustfmt::skip]
static TWO_BYTE: Map = {
    let map = [NO; 256];
    let map = alike(map, 0x40, REG_RM,
        [Cmovo_r32_rm32, Cmovno_r32_rm32, Cmovb_r32_rm32, Cmovae_r32_rm32, Cmove_r32_rm32, Cmovne_r32_rm32, Cmovbe_r32_rm32, Cmova_r32_rm32, Cmovs_r32_rm32, Cmovns_r32_rm32, Cmovp_r32_rm32, Cmovnp_r32_rm32, Cmovl_r32_rm32, Cmovge_r32_rm32, Cmovle_r32_rm32, Cmovg_r32_rm32],
        [Cmovo_r64_rm64, Cmovno_r64_rm64, Cmovb_r64_rm64, Cmovae_r64_rm64, Cmove_r64_rm64, Cmovne_r64_rm64, Cmovbe_r64_rm64, Cmova_r64_rm64, Cmovs_r64_rm64, Cmovns_r64_rm64, Cmovp_r64_rm64, Cmovnp_r64_rm64, Cmovl_r64_rm64, Cmovge_r64_rm64, Cmovle_r64_rm64, Cmovg_r64_rm64]);
    let jcc = [Jo_rel32_64, Jno_rel32_64, Jb_rel32_64, Jae_rel32_64, Je_rel32_64, Jne_rel32_64, Jbe_rel32_64, Ja_rel32_64, Js_rel32_64, Jns_rel32_64, Jp_rel32_64, Jnp_rel32_64, Jl_rel32_64, Jge_rel32_64, Jle_rel32_64, Jg_rel32_64];
    let map = alike(map, 0x80, REL32, jcc, jcc);
    let setcc = [Seto_rm8, Setno_rm8, Setb_rm8, Setae_rm8, Sete_rm8, Setne_rm8, Setbe_rm8, Seta_rm8, Sets_rm8, Setns_rm8, Setp_rm8, Setnp_rm8, Setl_rm8, Setge_rm8, Setle_rm8, Setg_rm8];
    let mut map = alike(map, 0x90, with_rm(Width::Byte, Rest::Nothing), setcc, setcc);
    map[0x05] = row(BARE, Syscall, Syscall);
    map[0x31] = row(BARE, Rdtsc, Rdtsc);
    map[0xa2] = row(BARE, Cpuid, Cpuid);
    map[0xa3] = row(RM_REG, Bt_rm32_r32, Bt_rm64_r64);
    map[0xab] = row(RM_REG, Bts_rm32_r32, Bts_rm64_r64);
    map[0xb0] = byte(RM_REG, Cmpxchg_rm8_r8);
    map[0xb1] = row(RM_REG, Cmpxchg_rm32_r32, Cmpxchg_rm64_r64);
    map[0xb3] = row(RM_REG, Btr_rm32_r32, Btr_rm64_r64);
    map[0xba] = group(IN_GROUP8);
    map[0xbb] = row(RM_REG, Btc_rm32_r32, Btc_rm64_r64);
    map[0xbc] = row(REG_RM, Bsf_r32_rm32, Bsf_r64_rm64);
    map[0xbd] = row(REG_RM, Bsr_r32_rm32, Bsr_r64_rm64);
    map[0xc0] = byte(RM_REG, Xadd_rm8_r8);
    map[0xc1] = row(RM_REG, Xadd_rm32_r32, Xadd_rm64_r64);
    map[0x1f] = group(IN_NOPS);
    map[0xaf] = row(REG_RM, Imul_r32_rm32, Imul_r64_rm64);
    map[0xb6] = row(with_reg(Width::Byte), Movzx_r32_rm8, Movzx_r64_rm8);
    map[0xb7] = row(with_reg(Width::Word), Movzx_r32_rm16, Movzx_r64_rm16);
    map[0xbe] = row(with_reg(Width::Byte), Movsx_r32_rm8, Movsx_r64_rm8);
    map[0xbf] = row(with_reg(Width::Word), Movsx_r32_rm16, Movsx_r64_rm16);
    map
};

type Registers = [Register; 16];

#[rustfmt::skip]
static R64: Registers = {
    use Register::*;
    [RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15]
};
#[rustfmt::skip]
static R32: Registers = {
    use Register::*;
    [EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI, R8D, R9D, R10D, R11D, R12D, R13D, R14D, R15D]
};
#[rustfmt::skip]
static R16: Registers = {
    use Register::*;
    [AX, CX, DX, BX, SP, BP, SI, DI, R8W, R9W, R10W, R11W, R12W, R13W, R14W, R15W]
};
#[rustfmt::skip]
static R8_REX: Registers = {
    use Register::*;
    [AL, CL, DL, BL, SPL, BPL, SIL, DIL, R8L, R9L, R10L, R11L, R12L, R13L, R14L, R15L]
};
/// Without REX.
#[rustfmt::skip]
static R8_OLD: Registers = {
    use Register::*;
    [AL, CL, DL, BL, AH, CH, DH, BH, AL, AL, AL, AL, AL, AL, AL, AL]
};

/// What has been read of an instruction.
struct Reader<'a> {
    bytes: &'a [u8; MAX_INSN],
    at: usize,
    /// 0 if there is none.
    rex: u8,
    /// Operands are of 16 bits.
    narrow: bool,
}

/// Bits of REX.
const W: u8 = 8;
const R: u8 = 4;
const X: u8 = 2;
const B: u8 = 1;

impl Reader<'_> {
    #[inline(always)]
    fn byte(&mut self) -> u8 {
        let byte = self.bytes[self.at];
        self.at += 1;
        byte
    }

    #[inline(always)]
    fn signed_byte(&mut self) -> i64 {
        i64::from(self.byte() as i8)
    }

    #[inline(always)]
    fn word(&mut self) -> u32 {
        let word = self.bytes[self.at..self.at + 4].try_into().map(u32::from_le_bytes);
        self.at += 4;
        word.unwrap_or(0)
    }

    #[inline(always)]
    fn wide(&self) -> bool {
        self.rex & W != 0
    }

    /// The registers of the operand size.
    #[inline(always)]
    fn registers(&self, byte: bool) -> &'static Registers {
        match (byte, self.rex) {
            (true, 0) => &R8_OLD,
            (true, _) => &R8_REX,
            (false, rex) if rex & W != 0 => &R64,
            (false, _) if self.narrow => &R16,
            (false, _) => &R32,
        }
    }

    /// The register number in the low bits, with a bit of REX.
    #[inline(always)]
    fn number(&self, low: u8, bit: u8) -> usize {
        usize::from(low & 7) | if self.rex & bit != 0 { 8 } else { 0 }
    }
}

/// Decodes the instruction at `ip`, whose bytes are the first of `bytes`, into `out`, if it is plain; `out` is undefined if not. Where fewer
/// than the longest instruction's bytes are known, none is.
#[inline]
pub(crate) fn decode(bytes: &[u8], ip: u64, out: &mut Instruction) -> bool {
    let Some(bytes) = bytes.first_chunk() else { return decode_short(bytes, ip, out) };
    let mut r = Reader { bytes, at: 0, rex: 0, narrow: false };
    let mut op = r.byte();
    if op & 0xf0 == 0x40 {
        r.rex = op;
        op = r.byte();
    }
    let row = if op == 0x0f {
        op = r.byte();
        &TWO_BYTE[op as usize]
    } else {
        &ONE_BYTE[op as usize]
    };
    let row = grouped(row, &r);
    let code = row.codes[usize::from(r.wide())];
    if code == INVALID {
        return rare::decode(bytes, ip, out);
    }
    *out = Instruction::default();
    if !operands(&mut r, row, op, ip, out) {
        return false;
    }
    finish(&r, code, ip, out);
    true
}

/// The same of fewer bytes than the longest instruction has: it may be a shorter one.
#[cold]
#[inline(never)]
fn decode_short(bytes: &[u8], ip: u64, out: &mut Instruction) -> bool {
    let mut all = [0; MAX_INSN];
    all[..bytes.len()].copy_from_slice(bytes);
    decode(&all, ip, out) && out.len() <= bytes.len()
}

/// The row that the middle bits of ModRM, which is read next, choose.
#[inline(always)]
fn grouped(row: &'static Row, r: &Reader<'_>) -> &'static Row {
    match row.group {
        0 => row,
        group => &GROUPS[group as usize][usize::from(r.bytes[r.at] >> 3 & 7)],
    }
}

/// What is the same for all instructions, behind their operands.
#[inline(always)]
fn finish(r: &Reader<'_>, code: Code, ip: u64, out: &mut Instruction) {
    out.set_code(code);
    out.set_code_size(CodeSize::Code64);
    out.set_len(r.at);
    let next = ip.wrapping_add(r.at as u64);
    out.set_next_ip(next);
    if out.memory_base() == Register::RIP {
        out.set_memory_displacement64(out.memory_displacement64().wrapping_add(next));
    }
}

/// The operands of a row; false if there is no such instruction.
#[inline(always)]
fn operands(r: &mut Reader<'_>, row: &Row, op: u8, ip: u64, out: &mut Instruction) -> bool {
    let (form, registers) = (row.form, r.registers(row.byte));
    if form.rm != Place::Absent {
        let modrm = r.byte();
        match form.reg {
            Place::Absent => {}
            Place::First => out.set_op0_register(registers[r.number(modrm >> 3, R)]),
            Place::Second => out.set_op1_register(registers[r.number(modrm >> 3, R)]),
        }
        if modrm < 0xc0 {
            if form.rm == Place::First {
                out.set_op0_kind(OpKind::Memory)
            } else {
                out.set_op1_kind(OpKind::Memory)
            }
            memory(r, modrm, out);
        } else {
            let registers = match form.width {
                Width::Own => registers,
                Width::Byte => r.registers(true),
                Width::Word => &R16,
                Width::Dword => &R32,
                Width::Qword => &R64,
                Width::Address => return false,
            };
            let register = registers[r.number(modrm, B)];
            if form.rm == Place::First { out.set_op0_register(register) } else { out.set_op1_register(register) }
        }
    }
    if form.rest != Rest::Nothing {
        rest(r, row, op, ip, out);
    }
    true
}

/// The operands that are not in ModRM.
#[inline(always)]
fn rest(r: &mut Reader<'_>, row: &Row, op: u8, ip: u64, out: &mut Instruction) {
    let registers = r.registers(row.byte);
    match row.form.rest {
        Rest::Nothing => {}
        Rest::Imm | Rest::Accumulator => {
            if row.form.rest == Rest::Accumulator {
                out.set_op0_register(registers[0]);
            }
            if row.byte {
                out.set_op1_kind(OpKind::Immediate8);
                out.set_immediate8(r.byte());
            } else {
                let kind = immediate(r, out);
                out.set_op1_kind(kind);
            }
        }
        Rest::Extended => {
            let kind = extended(r, out);
            out.set_op1_kind(kind);
        }
        Rest::ThirdImm => {
            let kind = immediate(r, out);
            out.set_op2_kind(kind);
        }
        Rest::ThirdExtended => {
            let kind = extended(r, out);
            out.set_op2_kind(kind);
        }
        Rest::Count | Rest::One => {
            out.set_op1_kind(OpKind::Immediate8);
            out.set_immediate8(if row.form.rest == Rest::One { 1 } else { r.byte() });
        }
        Rest::Cl => out.set_op1_register(Register::CL),
        Rest::Push8 => {
            out.set_op0_kind(OpKind::Immediate8to64);
            out.set_immediate8(r.byte());
        }
        Rest::Push32 => {
            out.set_op0_kind(OpKind::Immediate32to64);
            out.set_immediate32(r.word());
        }
        Rest::Rel8 | Rest::Rel32 => {
            let distance = if row.form.rest == Rest::Rel8 { r.signed_byte() } else { i64::from(r.word() as i32) };
            out.set_op0_kind(OpKind::NearBranch64);
            out.set_near_branch64(ip.wrapping_add(r.at as u64).wrapping_add(distance as u64));
        }
        Rest::Short => out.set_op0_register(R64[r.number(op, B)]),
        Rest::ShortImm => {
            out.set_op0_register(registers[r.number(op, B)]);
            if r.narrow {
                let kind = immediate(r, out);
                return out.set_op1_kind(kind);
            }
            let low = r.word();
            if r.wide() {
                out.set_op1_kind(OpKind::Immediate64);
                out.set_immediate64(u64::from(low) | u64::from(r.word()) << 32);
            } else {
                out.set_op1_kind(OpKind::Immediate32);
                out.set_immediate32(low);
            }
        }
    }
}

/// An immediate of the operand size, 4 bytes at most; what kind of operand it is.
#[inline(always)]
fn immediate(r: &mut Reader<'_>, out: &mut Instruction) -> OpKind {
    if r.narrow {
        let [low, high] = [r.byte(), r.byte()];
        out.set_immediate16(u16::from_le_bytes([low, high]));
        return OpKind::Immediate16;
    }
    out.set_immediate32(r.word());
    if r.wide() { OpKind::Immediate32to64 } else { OpKind::Immediate32 }
}

/// The same of a byte that is extended.
#[inline(always)]
fn extended(r: &mut Reader<'_>, out: &mut Instruction) -> OpKind {
    out.set_immediate8(r.byte());
    match (r.wide(), r.narrow) {
        (true, _) => OpKind::Immediate8to64,
        (false, true) => OpKind::Immediate8to16,
        (false, false) => OpKind::Immediate8to32,
    }
}

/// SDM vol. 2 tables 2-2 and 2-3, 2.2.1.6.
#[inline(always)]
fn memory(r: &mut Reader<'_>, modrm: u8, out: &mut Instruction) {
    let (mut base, mut based, mut long) = (Register::None, true, modrm >= 0x80);
    if modrm & 7 == 4 {
        let sib = r.byte();
        let index = r.number(sib >> 3, X);
        if index != 4 {
            out.set_memory_index(R64[index]);
        }
        out.set_memory_index_scale(1 << (sib >> 6));
        based = sib & 7 != 5 || modrm >= 0x40;
        if based {
            base = R64[r.number(sib, B)];
        }
    } else if modrm & 0xc7 == 5 {
        // Relative to the end of the instruction, which is not known yet.
        (base, based) = (Register::RIP, false);
    } else {
        base = R64[r.number(modrm, B)];
    }
    long |= !based;
    out.set_memory_base(base);
    if long {
        out.set_memory_displ_size(8);
        out.set_memory_displacement64(i64::from(r.word() as i32) as u64);
    } else if modrm >= 0x40 {
        out.set_memory_displ_size(1);
        out.set_memory_displacement64(r.signed_byte() as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions};

    /// Every byte that decides something, before two kinds of others.
    fn each_encoding(mut check: impl FnMut(&[u8])) {
        let rexes = (0x3f..=0x4f).map(|rex| (rex != 0x3f).then_some(rex));
        for (rex, map) in rexes.flat_map(|rex| [(rex, None), (rex, Some(0x0f))]) {
            for (op, modrm) in (0..=255u8).flat_map(|op| (0..=255u8).map(move |modrm| (op, modrm))) {
                for (sib, fill) in [(0x24, 0xf1), (0x65, 0x12), (0xd8, 0x83)] {
                    let mut bytes: Vec<u8> = rex.into_iter().chain(map).chain([op, modrm, sib]).collect();
                    bytes.extend((0..).map(|n: u8| n.wrapping_mul(0x35) ^ fill).take(MAX_INSN - bytes.len()));
                    check(&bytes);
                }
            }
        }
    }

    /// The same with legacy prefixes, and with VEX.
    fn each_prefixed(mut check: impl FnMut(&[u8])) {
        let prefixes: [&[u8]; 17] = [
            &[],
            &[0x66],
            &[0xf2],
            &[0xf3],
            &[0xf0],
            &[0x64],
            &[0x65],
            &[0x67],
            &[0x2e],
            &[0x3e],
            &[0x66, 0x64],
            &[0x64, 0xf3],
            &[0xf0, 0x64],
            &[0x66, 0xf0],
            &[0x66, 0x2e],
            &[0x66, 0x66, 0x2e],
            &[0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x2e],
        ];
        let rexes: [&[u8]; 6] = [&[], &[0x40], &[0x41], &[0x44], &[0x48], &[0x4e]];
        let maps: [&[u8]; 4] = [&[], &[0x0f], &[0x0f, 0x38], &[0x0f, 0x3a]];
        let mut heads: Vec<Vec<u8>> = Vec::new();
        for prefix in prefixes {
            heads.extend(rexes.iter().flat_map(|rex| maps.map(|map| [prefix, rex, map].concat())));
        }
        // First sources 0 and 10, both lengths, all mandatory prefixes; W.
        let ends = (0..16).map(|n| [0x78, 0x28][n >> 3] | (n & 7) as u8);
        heads.extend(
            ends.clone().flat_map(|end| [vec![0xc5, end], vec![0xc5, end | 0x80], vec![0x64, 0xc5, end | 0x80]]),
        );
        for (end, map, bits) in
            ends.flat_map(|end| (0..4).flat_map(move |map| [0xe0, 0x40, 0x80].map(|bits| (end, map, bits))))
        {
            heads.extend([end, end | 0x80].map(|end| vec![0xc4, bits | map, end]));
        }
        for (head, op, modrm) in
            heads.iter().flat_map(|head| (0..=255u8).flat_map(move |op| (0..64u8).map(move |n| (head, op, n))))
        {
            // All of the middle bits; with and without SIB, relative to RIP, registers.
            let modrm = modrm << 3 & 0x38 | [0x01, 0x04, 0x05, 0x43, 0x84, 0xc2, 0xc7, 0xc0][usize::from(modrm >> 3)];
            let mut bytes = [&head[..], &[op, modrm, 0x5d]].concat();
            bytes.extend((0..).map(|n: u8| n.wrapping_mul(0x35) ^ 0xd1).take(MAX_INSN - bytes.len()));
            check(&bytes);
        }
    }

    #[test]
    fn plain_instructions_are_the_decoders() {
        let (ip, mut plain, mut out) = (0x40_0000, 0, Instruction::default());
        let mut each = |bytes: &[u8]| {
            if decode(bytes, ip, &mut out) {
                let expected = Decoder::with_ip(64, bytes, ip, DecoderOptions::NONE).decode();
                let same =
                    out.eq_all_bits(&expected) && out.len() == expected.len() && out.next_ip() == expected.next_ip();
                assert!(same, "{bytes:02x?}: {out:?} is {expected:?}");
                plain += 1;
            }
        };
        each_encoding(&mut each);
        each_prefixed(&mut each);
        assert!(plain > 1_500_000, "{plain} are plain");
    }

    /// What loaders and C libraries start with, so that the decoder's tables are never made for a small program.
    #[test]
    fn what_programs_start_with_is_plain() {
        let encodings: [&[u8]; 22] = [
            &[0x0f, 0xc9],                                                                // bswap ecx
            &[0x91],                                                                      // xchg ecx, eax
            &[0x66, 0x90],                                                                // xchg ax, ax
            &[0xd0, 0xea],                                                                // shr dl, 1
            &[0x0f, 0x94, 0xc0],                                                          // sete al
            &[0xf0, 0x0f, 0xb1, 0x0e],                                                    // lock cmpxchg [rsi], ecx
            &[0x64, 0x48, 0x8b, 0x14, 0x25, 0x28, 0, 0, 0],                               // mov rdx, fs:[0x28]
            &[0xf3, 0x0f, 0x1e, 0xfa],                                                    // endbr64
            &[0xf3, 0x48, 0xab],                                                          // rep stosq
            &[0xf3, 0x0f, 0xbc, 0xc9],                                                    // tzcnt ecx, ecx
            &[0x3e, 0xff, 0xe0],                                                          // notrack jmp rax
            &[0x67, 0xe8, 0, 0, 0, 0],                                                    // addr32 call
            &[0x0f, 0xa2],                                                                // cpuid
            &[0x0f, 0x01, 0xd0],                                                          // xgetbv
            &[0x0f, 0xae, 0x64, 0x24, 0x40],                                              // xsave [rsp + 0x40]
            &[0x0f, 0xc7, 0x64, 0x24, 0x40],                                              // xsavec [rsp + 0x40]
            &[0x0f, 0x12, 0xf3],                                                          // movhlps xmm6, xmm3
            &[0x66, 0x0f, 0x73, 0xd9, 0x08],                                              // psrldq xmm1, 8
            &[0xc5, 0xfd, 0xd7, 0xc8],                                                    // vpmovmskb ecx, ymm0
            &[0xc4, 0xe2, 0x70, 0xf3, 0xd1],                                              // blsmsk ecx, ecx
            &[0xc5, 0xf8, 0x77],                                                          // vzeroupper
            &[0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0], // nop
        ];
        for bytes in encodings {
            assert!(decode(bytes, 0, &mut Instruction::default()), "{bytes:02x?}");
        }
    }

    #[test]
    fn what_is_cut_off_is_left_to_the_decoder() {
        let mut out = Instruction::default();
        let add = [0x48, 0x81, 0xc0, 1, 2, 3, 4]; // add rax, imm32
        assert!(decode(&add, 0, &mut out));
        assert!((0..add.len()).all(|n| !decode(&add[..n], 0, &mut out)));
    }
}
