//! Names for guest addresses: module, function, source line.
//!
//! Everything is looked up when it is needed, in the files that the guest has mapped: nothing here costs a run that needs no
//! names.

use crate::access;
use crate::memory::{GuestMap, Mapping};
use addr2line::{Loader, demangle_auto};
use bytemuck::{AnyBitPattern, NoUninit};
use calque_ir::GuestAddr;
use hashbrown::HashMap;
use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// An ELF file that the guest has mapped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Module {
    /// The file.
    pub path: PathBuf,
    /// Guest address of its first byte.
    pub base: GuestAddr,
    /// Added to the addresses in the file.
    pub bias: u64,
    /// `.eh_frame_hdr`: guest address and length.
    pub unwind: Option<(GuestAddr, u64)>,
}

/// What an address is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Place {
    /// File name of the module, and distance from its first byte.
    pub module: Option<(String, u64)>,
    /// Demangled function and distance from its first byte.
    pub function: Option<(String, u64)>,
    /// Source file and line.
    pub line: Option<(String, u32)>,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.function, &self.module) {
            (Some((function, offset)), Some((module, _))) => write!(f, "{function}+{offset:#x} in {module}")?,
            (None, Some((module, offset))) => write!(f, "{module}+{offset:#x}")?,
            _ => write!(f, "(no file is mapped there)")?,
        }
        match &self.line {
            Some((file, line)) => write!(f, " at {file}:{line}"),
            None => Ok(()),
        }
    }
}

/// A snapshot of the guest's mappings, with the symbols of those that were asked about.
pub struct Symbols {
    mappings: Vec<Mapping>,
    loaders: HashMap<PathBuf, Option<Loader>>,
}

/// `Elf64_Ehdr` (elf.h).
#[repr(C)]
#[derive(Clone, Copy, AnyBitPattern, NoUninit)]
struct FileHeader {
    ident: [u8; 16],
    kind: u16,
    machine: u16,
    version: u32,
    entry: u64,
    phoff: u64,
    shoff: u64,
    flags: u32,
    ehsize: u16,
    phentsize: u16,
    phnum: u16,
    shentsize: u16,
    shnum: u16,
    shstrndx: u16,
}

/// `Elf64_Phdr`.
#[repr(C)]
#[derive(Clone, Copy, AnyBitPattern, NoUninit)]
struct ProgramHeader {
    kind: u32,
    flags: u32,
    offset: u64,
    vaddr: u64,
    paddr: u64,
    filesz: u64,
    memsz: u64,
    align: u64,
}

const PT_LOAD: u32 = 1;
const PT_GNU_EH_FRAME: u32 = 0x6474_e550;

impl Symbols {
    /// Of the guest's mappings as they are now.
    pub fn new(map: &GuestMap) -> Self {
        Self { mappings: map.mappings(), loaders: HashMap::new() }
    }

    /// The mapping that holds `addr`.
    pub fn mapping(&self, addr: GuestAddr) -> Option<&Mapping> {
        self.mappings.iter().find(|m| m.range.contains(addr))
    }

    /// The ELF file mapped at `addr`.
    pub fn module(&self, addr: GuestAddr) -> Option<Module> {
        let (file, _) = self.mapping(addr)?.file.as_ref()?;
        let is_start = |m: &&Mapping| {
            m.file.as_ref().is_some_and(|(f, offset)| f == file && *offset == 0) && m.range.start <= addr
        };
        let base = self.mappings.iter().rfind(is_start)?.range.start;
        let header: FileHeader = access::read(base).ok()?;
        if header.ident[..4] != *b"\x7fELF" {
            return None;
        }
        let headers: Vec<ProgramHeader> =
            access::read_slice(base.checked_add(header.phoff)?, header.phnum.into()).ok()?;
        let first = headers.iter().find(|h| h.kind == PT_LOAD)?;
        let bias = base.0.wrapping_sub(first.vaddr & !0xfff);
        let unwind = headers.iter().find(|h| h.kind == PT_GNU_EH_FRAME);
        let unwind = unwind.map(|h| (GuestAddr(h.vaddr.wrapping_add(bias)), h.memsz));
        Some(Module { path: file.path.clone(), base, bias, unwind })
    }

    /// What `addr` is.
    pub fn place(&mut self, addr: GuestAddr) -> Place {
        let Some(module) = self.module(addr) else { return self.plain_file(addr) };
        let inside = addr.0.wrapping_sub(module.bias);
        let mut place = Place { module: Some((short(&module.path), addr.0 - module.base.0)), ..Place::default() };
        let Some(loader) = self.loader(&module.path) else { return place };
        place.function = loader
            .find_symbol_info(inside)
            .map(|symbol| (demangle_auto(Cow::Borrowed(symbol.name()), None).into_owned(), inside - symbol.address()));
        let location = loader.find_location(inside).ok().flatten();
        place.line = location.and_then(|l| Some((l.file?.to_owned(), l.line?)));
        place
    }

    /// What called: the place before the return address `pc`, which may be the first byte of the next line or function.
    pub fn call_before(&mut self, pc: GuestAddr) -> Place {
        let mut place = self.place(pc.wrapping_add(u64::MAX));
        for (_, offset) in [&mut place.module, &mut place.function].into_iter().flatten() {
            *offset += 1;
        }
        place
    }

    /// A mapped file that is no ELF image.
    fn plain_file(&self, addr: GuestAddr) -> Place {
        let file = self.mapping(addr).and_then(|m| Some((m.range.start, m.file.as_ref()?)));
        let module = file.map(|(start, (file, offset))| (short(&file.path), addr.0 - start.0 + offset));
        Place { module, ..Place::default() }
    }

    fn loader(&mut self, path: &Path) -> Option<&Loader> {
        let load = || Loader::new(path).ok();
        self.loaders.entry(path.to_owned()).or_insert_with(load).as_ref()
    }
}

fn short(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
