//! What copying an EVEX-encoded instruction takes: its length, and where it names RIP, R11 and GS (SDM vol. 2 2.7).
//!
//! Nothing else is looked at: whether the processor has the instruction, it says itself. iced-x86 is built without its tables for these, which every
//! start would pay for.
//!
//! ```text
//!   segment, 67    62   R X B R' 0 m m m   W v v v v 1 p p   z L'L b V' a a a   opcode   ModRM [SIB] [disp8 | disp32] [imm8]
//! ```
//!
//! R, X, B and R' are inverted. A third and fourth bit of the general registers' numbers (APX) are not there.

/// One instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Evex {
    pub(super) len: usize,
    /// Where the ModRM byte is.
    pub(super) modrm: usize,
    /// Where the displacement is, of an operand relative to RIP; and that it is relative to EIP.
    pub(super) displacement: Option<usize>,
    pub(super) short_addresses: bool,
    /// It names GS.
    pub(super) gs: bool,
    /// It addresses memory by R11, or names it as an operand.
    pub(super) reads_r11: bool,
    pub(super) writes_r11: bool,
}

/// What stands somewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// Another instruction, or none.
    Other,
    /// The beginning of one.
    Cut,
    Whole(Evex),
}

/// Opcode maps (SDM vol. 2 2.7.1).
const MAP_0F: u8 = 1;
const MAP_0F38: u8 = 2;
const MAP_0F3A: u8 = 3;
const MAP_FP16: u8 = 5;
const MAP_FP16_38: u8 = 6;

/// What is at the start of `bytes`.
pub(super) fn find(bytes: &[u8]) -> Found {
    let prefixes =
        bytes.iter().take_while(|byte| matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0x67)).count();
    let (prefixes, rest) = bytes.split_at(prefixes);
    match *rest {
        [0x62, ..] if rest.len() < 6 => Found::Cut,
        [0x62, p0, p1, _, opcode, modrm, ref tail @ ..] => {
            let map = p0 & 7;
            let is_known = matches!(map, MAP_0F | MAP_0F38 | MAP_0F3A | MAP_FP16 | MAP_FP16_38);
            match is_known && p0 & 8 == 0 && p1 & 4 != 0 {
                true => whole(prefixes, [p0, p1, opcode, modrm], map, tail).map_or(Found::Cut, Found::Whole),
                false => Found::Other,
            }
        }
        _ => Found::Other,
    }
}

fn whole(prefixes: &[u8], [p0, p1, opcode, modrm]: [u8; 4], map: u8, tail: &[u8]) -> Option<Evex> {
    let (mode, reg, rm) = (modrm >> 6, modrm >> 3 & 7, modrm & 7);
    let extended = |bit: u8, low: u8| (!p0 >> bit & 1) << 3 | low;
    let (r, x, b) = (7, 6, 5);
    let in_memory = mode != 3;
    let sib = if in_memory && rm == 4 { Some(*tail.first()?) } else { None };
    let base = sib.map_or(rm, |sib| sib & 7);
    // No base, but a displacement of 32 bits: from RIP if there is no SIB byte.
    let baseless = mode == 0 && base == 5;
    let displaced = match mode {
        1 => 1,
        2 => 4,
        _ if in_memory && baseless => 4,
        _ => 0,
    };
    let at = prefixes.len() + 6 + usize::from(sib.is_some());
    let len = at + displaced + usize::from(has_immediate(map, opcode));
    if len > prefixes.len() + 6 + tail.len() {
        return None;
    }
    let based = in_memory && !baseless && extended(b, base) == R11;
    let indexed = sib.is_some_and(|sib| extended(x, sib >> 3 & 7) == R11) && !has_vector_index(map, opcode);
    let named = names_general(map, opcode, p1 & 3) && (!in_memory && extended(b, rm) == R11 || extended(r, reg) == R11);
    Some(Evex {
        len,
        modrm: prefixes.len() + 5,
        displacement: (in_memory && baseless && sib.is_none()).then_some(at),
        short_addresses: prefixes.contains(&0x67),
        gs: prefixes.contains(&0x65),
        reads_r11: based || indexed || named,
        writes_r11: named,
    })
}

const R11: u8 = 11;

/// An immediate byte follows.
fn has_immediate(map: u8, opcode: u8) -> bool {
    // VPSHUF*, shifts by constants, VCMP*, VPINSRW, VPEXTRW, VSHUFP*.
    map == MAP_0F3A || map == MAP_0F && matches!(opcode, 0x70..=0x73 | 0xc2 | 0xc4..=0xc6)
}

/// Gathers, scatters, and their prefetches.
fn has_vector_index(map: u8, opcode: u8) -> bool {
    map == MAP_0F38 && matches!(opcode, 0x90..=0x93 | 0xa0..=0xa3 | 0xc6 | 0xc7)
}

/// One of its two operands is a general register, if it is a register; so it may be with other prefixes `pp`.
fn names_general(map: u8, opcode: u8, pp: u8) -> bool {
    match (map, opcode) {
        // VMOVD, VMOVQ, VMOVW; VCVTSI2S*, VCVTS*2SI; VPEXTRW, VPINSRW.
        (MAP_0F | MAP_FP16, 0x2a | 0x2c | 0x2d | 0x6e | 0x7e) | (MAP_0F, 0xc4 | 0xc5) => true,
        // VCVTS*2USI, VCVTUSI2S*: with F3 or F2; others are of vectors.
        (MAP_0F | MAP_FP16, 0x78 | 0x79 | 0x7b) => pp >= 2,
        // VPBROADCAST*.
        (MAP_0F38, 0x7a..=0x7c) => true,
        // VPEXTR*, VEXTRACTPS, VPINSR*.
        (MAP_0F3A, 0x14..=0x17 | 0x20 | 0x22) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As GNU as encodes them, in hexadecimal, with what is found: `rip`, `gs`, `reads`, `writes` R11.
    const INSTRUCTIONS: &[(&str, &str, &str)] = &[
        ("vaddps zmm0,zmm1,zmm2", "62f1744858c2", ""),
        ("vaddps zmm11,zmm27,zmm3", "6271244058db", ""),
        ("vaddps zmm11{k1}{z},zmm27,[rax+64]", "627124c1585801", ""),
        ("vaddps zmm11,zmm27,[r11+rcx*4+0x12345]", "62512440589c8b45230100", "reads"),
        ("vaddps zmm1,zmm2,[rax+r11*8]", "62b16c48580cd8", "reads"),
        ("vaddps zmm1,zmm2,dword ptr [rsp+4]{1to16}", "62f16c58584c2401", ""),
        ("vmovdqu64 zmm31,[rip+0x1000]", "6261fe486f3d00100000", "rip"),
        ("vmovdqu64 [rip+0x1000]{k3},zmm11", "6271fe4b7f1d00100000", "rip"),
        ("vmovdqu8 zmm1,[rbp]", "62f17f486f4d00", ""),
        ("vmovdqu8 zmm1,[r13+0]", "62d17f486f4d00", ""),
        ("vmovdqu8 zmm1,[0x1000]", "62f17f486f0c2500100000", ""),
        ("vmovdqu8 zmm1,gs:[0x1000]", "6562f17f486f0c2500100000", "gs"),
        ("vmovdqu8 zmm1,fs:[rax+rax]", "6462f17f486f0c00", ""),
        ("vmovdqu8 zmm1,[eax+0x40]", "6762f17f486f4801", ""),
        ("vmovdqu64 zmm16,[eip+0x40]", "6762e1fe486f0540000000", "rip"),
        ("vgatherdps zmm1{k1},[rax+zmm11*4+4]", "62b27d49924c9801", ""),
        ("vgatherdps zmm1{k1},[r11+zmm11*4+4]", "62927d49924c9b01", "reads"),
        ("vpscatterqq [rax+zmm27*8+0x12345]{k2},zmm1", "62b2fd42a18cd845230100", ""),
        ("vpbroadcastd zmm1,r11d", "62d27d487ccb", "reads writes"),
        ("vpbroadcastq zmm11,rax", "6272fd487cd8", "reads writes"),
        ("vpbroadcastq zmm1,rax", "62f2fd487cc8", ""),
        ("vpbroadcastq zmm11,[rax]", "6272fd485918", ""),
        ("vpcmpeqb k1,zmm16,[r11]", "62d17d40740b", "reads"),
        ("vpternlogd zmm1,zmm2,[rip+4],0x96", "62f36d48250d0400000096", "rip"),
        ("vpshufd zmm1,zmm2,5", "62f17d4870ca05", ""),
        ("vpsrld zmm11,[rax],5", "62f12548721005", ""),
        ("vpsraq zmm1,zmm2,5", "62f1f54872e205", ""),
        ("vshufps zmm1,zmm2,zmm3,5", "62f16c48c6cb05", ""),
        ("vcmpps k2,zmm1,zmm2,3", "62f17448c2d203", ""),
        ("vpinsrw xmm17,xmm2,r11d,5", "62c16d08c4cb05", "reads writes"),
        ("vpextrq r11,xmm17,1", "62c3fd0816cb01", "reads writes"),
        ("vpextrq [r11],xmm17,1", "62c3fd08160b01", "reads"),
        ("{evex} vmovd xmm1,r11d", "62d17d086ecb", "reads writes"),
        ("{evex} vmovq r11,xmm1", "62d1fd087ecb", "reads writes"),
        ("{evex} vmovq xmm11,xmm1", "6271fe087ed9", "reads writes"),
        ("{evex} vcvttsd2si r11,xmm1", "6271ff082cd9", "reads writes"),
        ("vcvtusi2sd xmm1,xmm2,r11", "62d1ef087bcb", "reads writes"),
        ("vcvttsd2usi r11d,xmm1", "62717f0878d9", "reads writes"),
        ("vcvttpd2udq ymm11,zmm27", "6211fc4878db", ""),
        ("vcvtps2qq zmm11,ymm27", "62117d487bdb", ""),
        ("vaddph zmm1,zmm2,[rip+4]", "62f56c48580d04000000", "rip"),
        ("vcmpph k1,zmm1,zmm2,3", "62f37448c2ca03", ""),
        ("vfmadd132ph zmm11,zmm2,[rax+64]", "62766d48985801", ""),
        ("vmovw xmm1,r11d", "62d57d086ecb", "reads writes"),
        ("vpopcntb zmm11,zmm2", "62727d4854da", ""),
    ];

    fn bytes_of(hex: &str) -> Vec<u8> {
        (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).expect("hexadecimal")).collect()
    }

    #[test]
    fn instructions_are_as_long_as_they_are() {
        for (text, hex, found) in INSTRUCTIONS {
            let mut bytes = bytes_of(hex);
            let len = bytes.len();
            let begun = bytes.iter().position(|byte| *byte == 0x62).expect("the first byte of EVEX") + 1;
            (begun..len).for_each(|cut| assert_eq!(find(&bytes[..cut]), Found::Cut, "{text}"));
            bytes.extend([0x90; 15]);
            let Found::Whole(evex) = find(&bytes) else { panic!("{text}") };
            assert_eq!(evex.len, len, "{text}");
            let facts = [
                (evex.displacement.is_some(), "rip"),
                (evex.gs, "gs"),
                (evex.reads_r11, "reads"),
                (evex.writes_r11, "writes"),
            ];
            let facts: Vec<&str> = facts.iter().filter(|(is_so, _)| *is_so).map(|(_, name)| *name).collect();
            assert_eq!(facts.join(" "), *found, "{text}");
        }
    }

    #[test]
    fn what_is_not_evex_is_another() {
        // add eax, ebx; lock; 66; REX; APX's map; a reserved bit.
        let others: [&[u8]; 6] = [
            &[0x01, 0xd8],
            &[0xf0, 0x62, 0xf1, 0x7c, 0x48, 0x58, 0xc0],
            &[0x66, 0x62, 0xf1, 0x7c, 0x48, 0x58, 0xc0],
            &[0x48, 0x62, 0xf1, 0x7c, 0x48, 0x58, 0xc0],
            &[0x62, 0xf4, 0x7c, 0x48, 0x58, 0xc0],
            &[0x62, 0xf9, 0x7c, 0x48, 0x58, 0xc0],
        ];
        others.iter().for_each(|bytes| assert_eq!(find(bytes), Found::Other, "{bytes:x?}"));
    }
}
