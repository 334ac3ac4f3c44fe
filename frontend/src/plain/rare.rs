//! Encodings with prefixes, vector instructions, and what else start-ups are made of: seldom enough not to be looked for first.
//!
//! That these are not left to the decoder is for its tables, which take more than a million instructions to make when first asked for:
//! a small program never needs them.

use super::vectors::{self, Vex};
use super::{B, Form, Map, ONE_BYTE, Place, R, R32, R64, REG_RM, REL32, Reader, Rest, Row, TWO_BYTE, W, Width, X};
use super::{finish, memory, operands, row};
use crate::decode::MAX_INSN;
use iced_x86::Code::{self, *};
use iced_x86::{Instruction, OpKind, Register};

/// Prefixes in front of REX.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Prefixes {
    narrow: bool,
    address: bool,
    lock: bool,
    /// 0xf2, 0xf3, or 0 for neither.
    repeat: u8,
    segment: Register,
}

const BARE_OF_PREFIXES: Prefixes =
    Prefixes { narrow: false, address: false, lock: false, repeat: 0, segment: Register::None };

/// Most prefixes, so that what is read below is no longer than an instruction may be.
const MOST: usize = 2;

impl Prefixes {
    fn read(r: &mut Reader<'_>) -> Prefixes {
        let mut p = BARE_OF_PREFIXES;
        let most = r.at + MOST;
        while r.at < most {
            match r.bytes[r.at] {
                0x66 if !p.narrow => p.narrow = true,
                0x67 if !p.address => p.address = true,
                0xf0 if !p.lock => p.lock = true,
                repeat @ (0xf2 | 0xf3) if p.repeat == 0 => p.repeat = repeat,
                0x2e if p.segment == Register::None => p.segment = Register::CS,
                0x3e if p.segment == Register::None => p.segment = Register::DS,
                0x64 if p.segment == Register::None => p.segment = Register::FS,
                0x65 if p.segment == Register::None => p.segment = Register::GS,
                _ => break,
            }
            r.at += 1;
        }
        p
    }

    /// As a mandatory prefix (SDM vol. 2 table 2-6), if it can be one.
    fn mandatory(self) -> Option<u8> {
        match (self.narrow, self.repeat) {
            _ if self.lock || self.address => None,
            (false, 0) => Some(0),
            (true, 0) => Some(1),
            (false, 0xf3) => Some(2),
            (false, _) => Some(3),
            (true, _) => None,
        }
    }
}

const TZCNT: Row = row(REG_RM, Tzcnt_r32_rm32, Tzcnt_r64_rm64);
const LZCNT: Row = row(REG_RM, Lzcnt_r32_rm32, Lzcnt_r64_rm64);
const POPCNT: Row = row(REG_RM, Popcnt_r32_rm32, Popcnt_r64_rm64);

/// Prefixes that may be passed over: all but the last 0x66 of the long NOP that fills code up.
fn redundant(bytes: &[u8; MAX_INSN]) -> usize {
    const NOP: &[u8] = &[0x2e, 0x0f, 0x1f, 0x84];
    let sizes = bytes.iter().take_while(|&&byte| byte == 0x66).count();
    if (2..=6).contains(&sizes) && bytes[sizes..].starts_with(NOP) { sizes - 1 } else { 0 }
}

/// As [`super::decode`].
#[inline(never)]
pub(super) fn decode(bytes: &[u8; MAX_INSN], ip: u64, out: &mut Instruction) -> bool {
    let mut r = Reader { bytes, at: redundant(bytes), rex: 0, narrow: false };
    let p = Prefixes::read(&mut r);
    *out = Instruction::default();
    out.set_segment_prefix(p.segment);
    let code = match bytes[r.at] {
        0xc4 | 0xc5 => vex(&mut r, p, out),
        byte => {
            if byte & 0xf0 == 0x40 {
                r.rex = r.byte();
            }
            match r.byte() {
                0x0f => behind_0f(&mut r, p, ip, out),
                op => one_byte(&mut r, p, op, ip, out),
            }
        }
    };
    code.inspect(|&code| finish(&r, code, ip, out)).is_some()
}

fn one_byte(r: &mut Reader<'_>, p: Prefixes, op: u8, ip: u64, out: &mut Instruction) -> Option<Code> {
    let repeats = Prefixes { repeat: p.repeat, ..BARE_OF_PREFIXES } == p;
    match op {
        0x90 if p == BARE_OF_PREFIXES && r.rex == 0 => Some(Nopd),
        0x90 if p == (Prefixes { narrow: true, ..BARE_OF_PREFIXES }) && r.rex == 0 => Some(Nopw),
        0x91..=0x97 if p == BARE_OF_PREFIXES => {
            let (registers, code) = if r.wide() { (&R64, Xchg_r64_RAX) } else { (&R32, Xchg_r32_EAX) };
            out.set_op0_register(registers[r.number(op, B)]);
            out.set_op1_register(registers[0]);
            Some(code)
        }
        // A call that the linker has filled up.
        0xe8 if p == (Prefixes { address: true, ..BARE_OF_PREFIXES }) => {
            integer(r, &row(REL32, Call_rel32_64, Call_rel32_64), BARE_OF_PREFIXES, op, ip, out)
        }
        0xa4 | 0xa5 | 0xaa | 0xab if repeats && p.repeat != 0xf2 => Some(string(r, p, op, out)),
        0xc3 if repeats && p.repeat == 0xf3 => {
            out.set_has_rep_prefix(true);
            Some(Retnq)
        }
        _ => table(r, &ONE_BYTE, p, op, ip, out),
    }
}

/// MOVS and STOS.
fn string(r: &Reader<'_>, p: Prefixes, op: u8, out: &mut Instruction) -> Code {
    out.set_has_rep_prefix(p.repeat != 0);
    out.set_op0_kind(OpKind::MemoryESRDI);
    if op < 0xa8 {
        out.set_op1_kind(OpKind::MemorySegRSI);
    }
    let (code, accumulator) = match (op, r.wide()) {
        (0xa4, _) => return Movsb_m8_m8,
        (0xa5, false) => return Movsd_m32_m32,
        (0xa5, true) => return Movsq_m64_m64,
        (0xaa, _) => (Stosb_m8_AL, Register::AL),
        (_, false) => (Stosd_m32_EAX, Register::EAX),
        (_, true) => (Stosq_m64_RAX, Register::RAX),
    };
    out.set_op1_register(accumulator);
    code
}

fn behind_0f(r: &mut Reader<'_>, p: Prefixes, ip: u64, out: &mut Instruction) -> Option<Code> {
    let op = r.byte();
    let bare = p == BARE_OF_PREFIXES;
    let counts = Prefixes { repeat: 0xf3, segment: p.segment, ..BARE_OF_PREFIXES } == p;
    let counted = |r: &mut Reader<'_>, row: &Row, out: &mut Instruction| {
        integer(r, row, Prefixes { repeat: 0, ..p }, op, ip, out)
    };
    match op {
        0x38 | 0x3a => {
            let op = r.byte();
            vectors::operands(r, None, (1 + usize::from(r.bytes[r.at - 2] == 0x3a), p.mandatory()?, op), out)
        }
        0xae | 0xc7 if bare && r.bytes[r.at] < 0xc0 => {
            let modrm = r.byte();
            out.set_op0_kind(OpKind::Memory);
            memory(r, modrm, out);
            state_image(op, modrm >> 3 & 7, r.wide())
        }
        0xc8..=0xcf if bare => {
            let (registers, code) = if r.wide() { (&R64, Bswap_r64) } else { (&R32, Bswap_r32) };
            out.set_op0_register(registers[r.number(op, B)]);
            Some(code)
        }
        0x01 if bare && r.bytes[r.at] == 0xd0 => {
            r.at += 1;
            Some(Xgetbv)
        }
        0x1e if p == (Prefixes { repeat: 0xf3, ..BARE_OF_PREFIXES }) && r.rex == 0 && r.bytes[r.at] == 0xfa => {
            r.at += 1;
            Some(Endbr64)
        }
        0xb8 if counts => counted(r, &POPCNT, out),
        0xbc if counts => counted(r, &TZCNT, out),
        0xbd if counts => counted(r, &LZCNT, out),
        _ => {
            let start = r.at;
            let vector = p.mandatory().and_then(|prefix| vectors::operands(r, None, (0, prefix, op), out));
            if vector.is_some() {
                return vector;
            }
            r.at = start;
            table(r, &TWO_BYTE, p, op, ip, out)
        }
    }
}

/// XSAVE and its like, which lazy binding uses.
fn state_image(op: u8, digit: u8, wide: bool) -> Option<Code> {
    let codes = match (op, digit) {
        (0xae, 4) => [Xsave_mem, Xsave64_mem],
        (0xae, 5) => [Xrstor_mem, Xrstor64_mem],
        (0xc7, 4) => [Xsavec_mem, Xsavec64_mem],
        _ => return None,
    };
    Some(codes[usize::from(wide)])
}

/// An instruction of the tables of integers, with prefixes.
fn table(r: &mut Reader<'_>, map: &'static Map, p: Prefixes, op: u8, ip: u64, out: &mut Instruction) -> Option<Code> {
    let row = super::grouped(&map[op as usize], r);
    let modrm = r.bytes[r.at];
    // Before indirect jumps DS says that no landing is marked, before NOPs CS says nothing; elsewhere both are hints.
    let hint = match p.segment {
        Register::CS => map[op as usize].group != super::IN_NOPS,
        Register::DS => map[op as usize].group != super::IN_GROUP5,
        _ => false,
    };
    if p.repeat != 0 || p.address || hint {
        return None;
    }
    let two_bytes = std::ptr::eq(map, &TWO_BYTE);
    if p.lock && !(modrm < 0xc0 && lockable(two_bytes, op, modrm >> 3 & 7)) {
        return None;
    }
    out.set_has_lock_prefix(p.lock);
    integer(r, row, p, op, ip, out)
}

/// Whether an opcode with memory for its first operand may be locked (SDM vol. 2, LOCK).
fn lockable(two_bytes: bool, op: u8, group: u8) -> bool {
    match (two_bytes, op) {
        (false, 0x00..=0x37) => op & 7 < 2,
        (false, 0x80 | 0x81 | 0x83) => group != 7,
        (false, 0x86 | 0x87) => true,
        (false, 0xf6 | 0xf7) => matches!(group, 2 | 3),
        (false, 0xfe | 0xff) => group < 2,
        (true, 0xab | 0xb0 | 0xb1 | 0xb3 | 0xbb | 0xc0 | 0xc1) => true,
        (true, 0xba) => group > 4,
        _ => false,
    }
}

/// The code of a row, with its operands in `out`. Of its prefixes only the operand size is still to be looked at.
fn integer(r: &mut Reader<'_>, row: &Row, p: Prefixes, op: u8, ip: u64, out: &mut Instruction) -> Option<Code> {
    let mut code = row.codes[usize::from(r.wide())];
    if code == INVALID {
        return None;
    }
    if p.narrow && !r.wide() {
        let Form { reg, rm, width, rest } = row.form;
        let sized = match (rm, width) {
            (Place::Absent, _) => matches!(rest, Rest::Accumulator | Rest::ShortImm),
            // MOVZX and MOVSX have a register of that size, SETcc has nothing.
            (_, Width::Byte) => reg != Place::Absent,
            (_, width) => !matches!(width, Width::Dword | Width::Qword),
        };
        if row.byte || !sized {
            return None;
        }
        // The decoder numbers the three widths of an instruction in a row.
        code = Code::try_from(code as usize - 1).ok()?;
        r.narrow = true;
    } else if p.narrow && row.form.rm == Place::Absent && row.form.rest != Rest::ShortImm {
        return None;
    }
    operands(r, row, op, ip, out).then_some(code)
}

/// An instruction with a VEX prefix (SDM vol. 2 2.3.5).
fn vex(r: &mut Reader<'_>, p: Prefixes, out: &mut Instruction) -> Option<Code> {
    if p != (Prefixes { segment: p.segment, ..BARE_OF_PREFIXES }) {
        return None;
    }
    let long_form = r.byte() == 0xc4;
    let first = r.byte();
    let (map, last) = if long_form { (first & 31, r.byte()) } else { (1, first) };
    r.rex = if first & 0x80 == 0 { R } else { 0 };
    if long_form {
        let bit = |mask: u8, rex: u8| if first & mask == 0 { rex } else { 0 };
        r.rex |= bit(0x40, X) | bit(0x20, B) | if last & 0x80 != 0 { W } else { 0 };
    }
    let (vex, prefix) = (Vex { first: usize::from(!last >> 3 & 15), long: last & 4 != 0 }, last & 3);
    let op = r.byte();
    match (map, prefix, op) {
        (1, 0, 0x77) => (vex.first == 0 && !vex.long).then_some(VEX_Vzeroupper),
        (1..=3, ..) => vectors::operands(r, Some(vex), (usize::from(map) - 1, prefix, op), out),
        _ => None,
    }
}
