//! The ELF file around the vDSO's functions: as much of one as dynamic linkers, unwinders and debuggers look at
//! (System V ABI, chapters 4 and 5; LSB 5, "Exception Frames"). One read-only, executable segment from offset 0, no sections.

use super::code::{FUNCTIONS, Function};

/// A file that grows; addresses in it are offsets.
#[derive(Default)]
struct Image(Vec<u8>);

impl Image {
    fn here(&self) -> u64 {
        self.0.len() as u64
    }

    fn align(&mut self, to: usize) -> u64 {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
        self.here()
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn u16s(&mut self, values: &[u16]) {
        values.iter().for_each(|v| self.bytes(&v.to_le_bytes()));
    }

    fn u32s(&mut self, values: &[u32]) {
        values.iter().for_each(|v| self.bytes(&v.to_le_bytes()));
    }

    fn u64s(&mut self, values: &[u64]) {
        values.iter().for_each(|v| self.bytes(&v.to_le_bytes()));
    }

    /// `to` as seen from here.
    fn relative(&mut self, to: u64) {
        let delta = to.wrapping_sub(self.here()) as u32;
        self.u32s(&[delta]);
    }

    fn patch(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

/// Names, each once; offset 0 is the empty one.
struct Strings(Vec<u8>);

impl Strings {
    fn add(&mut self, text: &str) -> u32 {
        let at = self.0.len() as u32;
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
        at
    }
}

const SONAME: &str = "linux-vdso.so.1";
const VERSION: &str = "LINUX_2.6";

/// Sizes in bytes of ELF structures.
const EHDR: usize = 64;
const PHDR: usize = 56;
/// LOAD, DYNAMIC, GNU_EH_FRAME.
const PHDRS: usize = 3;

/// A symbol: offset of its name, the name itself, binding and type, address, size.
type Symbol = (u32, String, u8, u64, u64);

/// The whole image, the same each time.
pub(super) fn build() -> Vec<u8> {
    let mut image = Image::default();
    image.bytes(&[0; EHDR + PHDRS * PHDR]);
    let starts = functions(&mut image);
    let mut strings = Strings(vec![0]);
    let symbols = symbols(&starts, &mut strings);
    let (soname, version) = (strings.add(SONAME), strings.add(VERSION));

    let hash = hash_table(&mut image, &symbols);
    let symtab = image.align(8);
    image.bytes(&[0; 24]);
    for (name, _, info, value, size) in &symbols {
        image.u32s(&[*name]);
        // Section 1: any but "undefined" and "absolute" will do.
        image.bytes(&[*info, 0, 1, 0]);
        image.u64s(&[*value, *size]);
    }
    let strtab = image.here();
    image.bytes(&strings.0);
    let versym = image.align(2);
    image.u16s(&[0]);
    symbols.iter().for_each(|_| image.u16s(&[2]));
    let verdef = version_definitions(&mut image, soname, version);

    let dynamic = image.align(8);
    #[rustfmt::skip]
    image.u64s(&[
        DT_SONAME,    u64::from(soname),
        DT_HASH,      hash,
        DT_STRTAB,    strtab,
        DT_SYMTAB,    symtab,
        DT_STRSZ,     strings.0.len() as u64,
        DT_SYMENT,    24,
        DT_VERSYM,    versym,
        DT_VERDEF,    verdef,
        DT_VERDEFNUM, 2,
        DT_NULL,      0,
    ]);
    let dynamic = (dynamic, image.here() - dynamic);
    let eh_frame_hdr = unwind_rows(&mut image, &starts);
    headers(&mut image, dynamic, eh_frame_hdr);
    image.0
}

/// The code; where each function starts.
fn functions(image: &mut Image) -> Vec<(&'static Function, u64)> {
    let mut starts = Vec::new();
    for function in &FUNCTIONS {
        starts.push((function, image.align(16)));
        function.code.iter().for_each(|line| image.bytes(line.0));
    }
    starts
}

/// Each function by both names: `__vdso_` global, the plain one weak.
fn symbols(starts: &[(&'static Function, u64)], strings: &mut Strings) -> Vec<Symbol> {
    const WEAK_FUNCTION: u8 = 2 << 4 | 2;
    const GLOBAL_FUNCTION: u8 = 1 << 4 | 2;
    let mut symbols = Vec::new();
    for (function, start) in starts {
        let size = function.len() as u64;
        for (name, info) in
            [(function.name.to_owned(), WEAK_FUNCTION), (format!("__vdso_{}", function.name), GLOBAL_FUNCTION)]
        {
            symbols.push((strings.add(&name), name, info, *start, size));
        }
    }
    symbols
}

/// System V's hash of a name (System V ABI, "Hash Table").
fn elf_hash(name: &str) -> u32 {
    name.bytes().fold(0u32, |hash, byte| {
        let hash = (hash << 4).wrapping_add(u32::from(byte));
        let high = hash & 0xf000_0000;
        (hash ^ high >> 24) & !high
    })
}

/// DT_HASH: one bucket, a chain through all symbols.
fn hash_table(image: &mut Image, symbols: &[Symbol]) -> u64 {
    let at = image.align(8);
    let count = symbols.len() as u32;
    image.u32s(&[1, count + 1, 1, 0]);
    (1..=count).for_each(|symbol| image.u32s(&[if symbol == count { 0 } else { symbol + 1 }]));
    at
}

/// The two versions: that of the file itself, and that of its symbols.
fn version_definitions(image: &mut Image, soname: u32, version: u32) -> u64 {
    const BASE: u16 = 1;
    let at = image.align(4);
    for (flags, index, name, text, next) in [(BASE, 1, soname, SONAME, 28), (0, 2, version, VERSION, 0)] {
        // Revision 1; one name, 20 bytes further on.
        image.u16s(&[1, flags, index, 1]);
        image.u32s(&[elf_hash(text), 20, next, name, 0]);
    }
    at
}

/// `.eh_frame_hdr` with `.eh_frame` behind it; where the former lies, and how long it is.
fn unwind_rows(image: &mut Image, starts: &[(&'static Function, u64)]) -> (u64, u64) {
    let hdr = image.align(4);
    let hdr_len = 12 + 8 * starts.len() as u64;
    let cie = hdr + hdr_len;
    // Version 1; pointer to .eh_frame relative to itself, count as it is, table relative to this header; all 32 bits.
    image.bytes(&[1, 0x1b, 0x03, 0x3b]);
    image.relative(cie);
    image.u32s(&[starts.len() as u32]);
    let table = image.0.len();
    image.bytes(&vec![0; 8 * starts.len()]);
    common_information(image);
    for (i, (function, start)) in starts.iter().enumerate() {
        let fde = image.here();
        image.patch(table + 8 * i, &(start.wrapping_sub(hdr) as u32).to_le_bytes());
        image.patch(table + 8 * i + 4, &((fde - hdr) as u32).to_le_bytes());
        frame_description(image, cie, function, *start);
    }
    image.u32s(&[0]);
    (hdr, hdr_len)
}

/// DWARF's numbers of registers (psABI, figure 3.36).
const DWARF_RBX: u8 = 3;
const DWARF_RSP: u8 = 7;
const DWARF_R8: u8 = 8;
const DWARF_RETURN: u8 = 16;

/// The CIE: at every instruction the return address is on top of the stack.
fn common_information(image: &mut Image) {
    // Augmentation "zR": pointers are 32 bits, relative to themselves. Factors 1 and -8. CFA = RSP + 8, return address at CFA - 8.
    let body = [
        &[1][..],
        b"zR\0",
        &[1, 0x78, DWARF_RETURN, 1, 0x1b],
        &[DW_CFA_DEF_CFA, DWARF_RSP, 8, DW_CFA_OFFSET | DWARF_RETURN, 1],
    ]
    .concat();
    entry(image, |image| {
        image.u32s(&[0]);
        image.bytes(&body);
    });
}

/// An FDE: a function, and where in it RBX is in R8.
fn frame_description(image: &mut Image, cie: u64, function: &Function, start: u64) {
    entry(image, |image| {
        let back = (image.here() - cie) as u32;
        image.u32s(&[back]);
        image.relative(start);
        image.u32s(&[function.len() as u32]);
        image.bytes(&[0]);
        if let Some((from, to)) = function.rbx_in_r8() {
            let advance = |n: usize| DW_CFA_ADVANCE_LOC | n as u8;
            image.bytes(&[advance(from), DW_CFA_REGISTER, DWARF_RBX, DWARF_R8]);
            image.bytes(&[advance(to - from), DW_CFA_SAME_VALUE, DWARF_RBX]);
        }
    });
}

/// A CIE or FDE: its length, what `body` writes, and padding.
fn entry(image: &mut Image, body: impl FnOnce(&mut Image)) {
    let at = image.0.len();
    image.u32s(&[0]);
    body(image);
    // DW_CFA_nop is 0.
    image.align(4);
    let len = (image.0.len() - at - 4) as u32;
    image.patch(at, &len.to_le_bytes());
}

/// ELF and program headers.
fn headers(image: &mut Image, dynamic: (u64, u64), eh_frame_hdr: (u64, u64)) {
    const READ: u32 = 4;
    const READ_EXECUTE: u32 = 5;
    let mut head = Image::default();
    // 64 bits, little endian, version 1.
    head.bytes(b"\x7fELF\x02\x01\x01");
    head.align(16);
    // A shared object for x86-64.
    head.u16s(&[3, 62]);
    head.u32s(&[1]);
    head.u64s(&[0, EHDR as u64, 0]);
    head.u32s(&[0]);
    head.u16s(&[EHDR as u16, PHDR as u16, PHDRS as u16, 64, 0, 0]);
    let rows = [
        (PT_LOAD, READ_EXECUTE, (0, image.here()), 0x1000),
        (PT_DYNAMIC, READ, dynamic, 8),
        (PT_GNU_EH_FRAME, READ, eh_frame_hdr, 4),
    ];
    for (kind, flags, (at, len), align) in rows {
        head.u32s(&[kind, flags]);
        head.u64s(&[at, at, at, len, len, align]);
    }
    image.patch(0, &head.0);
}

// uapi/linux/elf.h; binutils' include/elf/common.h.
const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_GNU_EH_FRAME: u32 = 0x6474_e550;
const DT_NULL: u64 = 0;
const DT_HASH: u64 = 4;
const DT_STRTAB: u64 = 5;
const DT_SYMTAB: u64 = 6;
const DT_STRSZ: u64 = 10;
const DT_SYMENT: u64 = 11;
const DT_SONAME: u64 = 14;
const DT_VERSYM: u64 = 0x6fff_fff0;
const DT_VERDEF: u64 = 0x6fff_fffc;
const DT_VERDEFNUM: u64 = 0x6fff_fffd;

// DWARF 4, 7.23.
const DW_CFA_ADVANCE_LOC: u8 = 0x40;
const DW_CFA_OFFSET: u8 = 0x80;
const DW_CFA_SAME_VALUE: u8 = 0x08;
const DW_CFA_REGISTER: u8 = 0x09;
const DW_CFA_DEF_CFA: u8 = 0x0c;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_same_each_time_and_fits_a_page() {
        assert_eq!(build(), build());
        assert!(build().len() <= 4096);
    }

    #[test]
    fn hash_is_that_of_the_kernel_and_of_c_libraries() {
        // "LINUX_2.6" as glibc has it (sysdeps/unix/sysv/linux/dl-vdso.h).
        assert_eq!(elf_hash(VERSION), 61_765_110);
    }
}
