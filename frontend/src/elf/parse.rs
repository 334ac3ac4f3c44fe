//! Reading and checking: from bytes to a [`LoadPlan`], one function a question.

use super::error::{ElfError, FileType, Machine, Part};
use super::{ImageKind, LoadPlan, Prot, Segment, StackKind, USER_END};
use calque_ir::GuestAddr;
use calque_ir::addr::GUEST_PAGE;
use goblin::container::{Container, Ctx, Endian};
use goblin::elf::Elf;
use goblin::elf::header::*;
use goblin::elf::program_header::*;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// How much of a file tells what it is.
const HEAD_SIZE: u64 = 256;
/// Size of the 64-bit ELF header and of one program header (gABI, chapter 4 and 5).
const EHDR_SIZE: u64 = 64;
const PHDR_SIZE: u64 = 56;
/// Largest program header table that Linux reads (`load_elf_phdrs`).
const MAX_PHDRS: u64 = 65536;
/// Longest path with its NUL (`linux/limits.h`).
const PATH_MAX: u64 = 4096;
/// Address space that one image may take: more than any program has, little enough to leave room for the rest.
const MAX_SPAN: u64 = 1 << 46;

/// Where the bytes come from. Reads are small and bounded, however large the file claims to be (I4).
trait Source {
    fn size(&self) -> u64;
    /// `len` bytes at `offset`, which the caller knows to lie inside.
    fn get(&self, offset: u64, len: usize) -> Result<Vec<u8>, ElfError>;
}

impl Source for [u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn get(&self, offset: u64, len: usize) -> Result<Vec<u8>, ElfError> {
        let rest = self.get(offset as usize..).and_then(|rest| rest.get(..len));
        rest.map(<[u8]>::to_vec).ok_or(ElfError::Unreadable(io::ErrorKind::UnexpectedEof))
    }
}

/// An open file and its size.
struct OpenFile<'a>(&'a File, u64);

impl Source for OpenFile<'_> {
    fn size(&self) -> u64 {
        self.1
    }

    fn get(&self, offset: u64, len: usize) -> Result<Vec<u8>, ElfError> {
        let mut bytes = vec![0; len];
        self.0.read_exact_at(&mut bytes, offset).map_err(|e| ElfError::Unreadable(e.kind()))?;
        Ok(bytes)
    }
}

impl LoadPlan {
    /// Reads an ELF file that lies in memory.
    pub fn parse(bytes: &[u8]) -> Result<LoadPlan, ElfError> {
        plan(bytes)
    }

    /// Reads as much of an open file as the plan needs: a few hundred bytes.
    pub fn read(file: &File) -> Result<LoadPlan, ElfError> {
        let size = file.metadata().map_err(|e| ElfError::Unreadable(e.kind()))?.len();
        plan(&OpenFile(file, size))
    }
}

fn plan<S: Source + ?Sized>(file: &S) -> Result<LoadPlan, ElfError> {
    let header = header(&file.get(0, file.size().min(HEAD_SIZE) as usize)?, file.size())?;
    let phdrs = program_headers(file, &header)?;
    let segments = segments(&phdrs, file.size())?;
    Ok(LoadPlan {
        kind: if header.e_type == ET_DYN { ImageKind::PositionIndependent } else { ImageKind::Fixed },
        entry: entry(header.e_entry, &segments)?,
        phdr: phdr_address(&header, &phdrs, &segments),
        phnum: header.e_phnum,
        phentsize: header.e_phentsize,
        interpreter: interpreter(&phdrs, file)?,
        stack: stack(&phdrs),
        align: alignment(&phdrs),
        segments,
    })
}

/// The header of a 64-bit little-endian x86-64 program; `bytes` is the start of a file of `size` bytes.
fn header(bytes: &[u8], size: u64) -> Result<Header, ElfError> {
    if !bytes.starts_with(ELFMAG) {
        return Err(foreign(bytes));
    }
    let short = ElfError::Truncated { what: Part::Header, end: EHDR_SIZE, size };
    let Some(ident) = bytes.get(..20) else { return Err(short) };
    machine(ident)?;
    if bytes.len() < EHDR_SIZE as usize {
        return Err(short);
    }
    let header = Elf::parse_header(bytes).map_err(|_| ElfError::BadHeader("it cannot be read"))?;
    match ident[EI_OSABI] {
        ELFOSABI_NONE | ELFOSABI_GNU => {}
        ELFOSABI_FREEBSD => return Err(ElfError::OtherSystem("FreeBSD")),
        ELFOSABI_NETBSD => return Err(ElfError::OtherSystem("NetBSD")),
        ELFOSABI_OPENBSD => return Err(ElfError::OtherSystem("OpenBSD")),
        ELFOSABI_SOLARIS => return Err(ElfError::OtherSystem("Solaris")),
        // Linux does not look; nor do we where no other system is named.
        _ => {}
    }
    match header.e_type {
        ET_EXEC | ET_DYN => Ok(header),
        other => Err(ElfError::Type(FileType(other))),
    }
}

/// Checks class, byte order and machine. `ident` is the first 20 bytes: they read alike in both classes.
fn machine(ident: &[u8]) -> Result<(), ElfError> {
    let number = [ident[18], ident[19]];
    let (number, big) = match ident[EI_DATA] {
        ELFDATA2LSB => (u16::from_le_bytes(number), false),
        ELFDATA2MSB => (u16::from_be_bytes(number), true),
        _ => return Err(ElfError::BadHeader("it names no byte order")),
    };
    let bits = match ident[EI_CLASS] {
        ELFCLASS32 => 32,
        ELFCLASS64 => 64,
        _ => return Err(ElfError::BadHeader("it is neither 32-bit nor 64-bit")),
    };
    match (number, bits) {
        (EM_X86_64, 64) if big => Err(ElfError::BadHeader("big-endian x86-64 does not exist")),
        (EM_X86_64, 64) => Ok(()),
        (EM_X86_64, _) => Err(ElfError::X32),
        (number, bits) => Err(ElfError::Machine(Machine { number, bits })),
    }
}

/// What a file is that does not start like an ELF file.
fn foreign(bytes: &[u8]) -> ElfError {
    #[rustfmt::skip]
    const FORMATS: [(&[u8], &str); 9] = [
        (b"MZ",               "a Windows or DOS program"),
        (b"\xcf\xfa\xed\xfe", "a macOS program"),
        (b"\xca\xfe\xba\xbe", "a macOS universal program or a Java class"),
        (b"PK\x03\x04",       "a zip or jar archive"),
        (b"!<arch>\n",        "a static library or Debian package"),
        (b"\x1f\x8b",         "a gzip archive"),
        (b"\xfd7zXZ\0",       "an xz archive"),
        (b"\x28\xb5\x2f\xfd", "a zstd archive"),
        (b"\0asm",            "a WebAssembly module"),
    ];
    let text = |b: &u8| matches!(b, b'\t' | b'\n' | b'\r' | 0x20..=0x7e | 0x80..);
    if bytes.is_empty() {
        ElfError::Empty
    } else if bytes.starts_with(b"#!") {
        ElfError::Script
    } else if ELFMAG.starts_with(bytes) {
        ElfError::Truncated { what: Part::Header, end: EHDR_SIZE, size: bytes.len() as u64 }
    } else if let Some((_, name)) = FORMATS.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        ElfError::OtherFormat(name)
    } else if bytes.iter().all(text) {
        ElfError::Text
    } else {
        ElfError::NotElf
    }
}

fn program_headers<S: Source + ?Sized>(file: &S, header: &Header) -> Result<Vec<ProgramHeader>, ElfError> {
    if header.e_phnum == 0 {
        return Err(ElfError::NothingToLoad);
    }
    let table = u64::from(header.e_phnum) * PHDR_SIZE;
    if u64::from(header.e_phentsize) != PHDR_SIZE || table > MAX_PHDRS {
        return Err(ElfError::BadHeader("program headers of a wrong size or number"));
    }
    let size = file.size();
    let end = header.e_phoff.saturating_add(table);
    if end > size {
        return Err(ElfError::Truncated { what: Part::ProgramHeaders, end, size });
    }
    let ctx = Ctx::new(Container::Big, Endian::Little);
    ProgramHeader::parse(&file.get(header.e_phoff, table as usize)?, 0, usize::from(header.e_phnum), ctx)
        .map_err(|_| ElfError::BadHeader("the program headers cannot be read"))
}

fn segments(phdrs: &[ProgramHeader], size: u64) -> Result<Vec<Segment>, ElfError> {
    let mut placed = Vec::new();
    for (index, p) in phdrs.iter().enumerate().filter(|(_, p)| p.p_type == PT_LOAD && p.p_memsz != 0) {
        placed.push((index, segment(index, p, size)?));
    }
    placed.sort_by_key(|(_, s)| s.vaddr);
    if let Some([a, b]) = placed.array_windows().find(|[(_, a), (_, b)]| b.vaddr < a.end()) {
        return Err(ElfError::Overlap(a.0, b.0));
    }
    let (Some((_, low)), Some((_, high))) = (placed.first(), placed.last()) else {
        return Err(ElfError::NothingToLoad);
    };
    let span = high.end().0 - low.vaddr.0;
    if span > MAX_SPAN {
        return Err(ElfError::TooLarge(span));
    }
    placed.sort_by_key(|(index, _)| *index);
    Ok(placed.into_iter().map(|(_, s)| s).collect())
}

/// Checks one PT_LOAD entry (I2).
fn segment(index: usize, p: &ProgramHeader, size: u64) -> Result<Segment, ElfError> {
    let bad = |what| Err(ElfError::BadSegment { index, what });
    if p.p_filesz > p.p_memsz {
        return bad("is larger in the file than in memory");
    }
    if p.p_vaddr.checked_add(p.p_memsz).is_none_or(|end| end > USER_END) {
        return bad("reaches past the end of user space");
    }
    if p.p_vaddr % GUEST_PAGE != p.p_offset % GUEST_PAGE {
        return bad("lies differently in its page in memory and in the file");
    }
    let end = p.p_offset.saturating_add(p.p_filesz);
    if p.p_filesz != 0 && end > size {
        return Err(ElfError::Truncated { what: Part::Segment(index), end, size });
    }
    Ok(Segment {
        vaddr: GuestAddr(p.p_vaddr),
        memsz: p.p_memsz,
        offset: p.p_offset,
        filesz: p.p_filesz,
        prot: Prot { read: p.p_flags & PF_R != 0, write: p.p_flags & PF_W != 0, exec: p.p_flags & PF_X != 0 },
    })
}

fn entry(entry: u64, segments: &[Segment]) -> Result<GuestAddr, ElfError> {
    let addr = GuestAddr(entry);
    if segments.iter().any(|s| s.prot.exec && s.vaddr <= addr && addr < s.end()) {
        return Ok(addr);
    }
    Err(if entry == 0 { ElfError::NoEntry } else { ElfError::BadEntry(entry) })
}

/// AT_PHDR: where PT_PHDR says, else the segment that holds that part of the file (`load_elf_binary`).
fn phdr_address(header: &Header, phdrs: &[ProgramHeader], segments: &[Segment]) -> Option<GuestAddr> {
    if let Some(p) = phdrs.iter().find(|p| p.p_type == PT_PHDR) {
        return Some(GuestAddr(p.p_vaddr));
    }
    let holder = segments.iter().find(|s| s.offset <= header.e_phoff && header.e_phoff - s.offset < s.filesz)?;
    holder.vaddr.checked_add(header.e_phoff - holder.offset)
}

/// The path in PT_INTERP: 1 to 4095 bytes and a NUL.
fn interpreter<S: Source + ?Sized>(phdrs: &[ProgramHeader], file: &S) -> Result<Option<PathBuf>, ElfError> {
    let Some(p) = phdrs.iter().find(|p| p.p_type == PT_INTERP) else { return Ok(None) };
    let end = p.p_offset.saturating_add(p.p_filesz);
    if !(2..=PATH_MAX).contains(&p.p_filesz) {
        return Err(ElfError::BadInterpreter);
    }
    if end > file.size() {
        return Err(ElfError::Truncated { what: Part::Interpreter, end, size: file.size() });
    }
    let text = file.get(p.p_offset, p.p_filesz as usize)?;
    match text.split_last() {
        Some((0, path)) => {
            let path = path.split(|b| *b == 0).next().unwrap_or_default();
            Ok(Some(PathBuf::from(OsStr::from_bytes(path))))
        }
        _ => Err(ElfError::BadInterpreter),
    }
}

fn stack(phdrs: &[ProgramHeader]) -> StackKind {
    match phdrs.iter().find(|p| p.p_type == PT_GNU_STACK) {
        Some(p) if p.p_flags & PF_X != 0 => StackKind::Executable,
        _ => StackKind::Data,
    }
}

/// `maximum_alignment` of the kernel: what is no power of two counts for nothing; capped where no layout could hold it.
fn alignment(phdrs: &[ProgramHeader]) -> u64 {
    let loads = phdrs.iter().filter(|p| p.p_type == PT_LOAD && p.p_align.is_power_of_two());
    loads.map(|p| p.p_align).max().unwrap_or(GUEST_PAGE).clamp(GUEST_PAGE, 1 << 40)
}
