//! The functions of an ELF file, from wherever their names are: `.symtab`, `.dynsym`, `.gnu_debugdata` (a compressed ELF file
//! inside the file), and the separate debug file that the build-id names.

use object::elf::{SHF_EXECINSTR, STB_LOCAL, STT_FUNC, STT_GNU_IFUNC, STT_NOTYPE};
use object::read::StringTable;
use object::read::elf::{ElfFile64, Sym};
use object::{Endianness, Object, ObjectSection, ObjectSegment, ReadCache, ReadRef, SectionFlags};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

type Elf<'a, R> = ElfFile64<'a, Endianness, R>;

/// A function of a file; addresses are the file's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Symbol {
    pub(super) start: u64,
    end: u64,
    name: Range<usize>,
}

/// What a file says of its code.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct ModuleSymbols {
    /// By start; none starts where another does.
    functions: Vec<Symbol>,
    /// Their names as in the file, not demangled, one behind the other.
    names: String,
    /// Linkage stubs: `.plt`, `.plt.sec`, `.plt.got`, `.iplt`.
    stubs: Vec<(u64, u64)>,
    /// Highest address of a segment.
    pub(super) end: u64,
    /// The separate debug file, if there is one.
    pub(super) debug_file: Option<PathBuf>,
}

impl ModuleSymbols {
    /// Of the file at `path` and its separate debug file in one of `debug_dirs`; nothing if it cannot be read. Of both, only what is looked at
    /// is read: a tenth of most.
    pub(super) fn load(path: &Path, debug_dirs: &[PathBuf]) -> ModuleSymbols {
        let Ok(file) = File::open(path) else { return ModuleSymbols::default() };
        Self::parse(&ReadCache::new(file), debug_dirs).unwrap_or_default()
    }

    fn parse(file: &ReadCache<File>, debug_dirs: &[PathBuf]) -> Option<ModuleSymbols> {
        let elf = Elf::parse(file).ok()?;
        let mut out = ModuleSymbols { end: elf.segments().map(|s| s.address() + s.size()).max()?, ..Self::default() };
        let is_stub = |name: &str| name.starts_with(".plt") || name == ".iplt";
        for section in elf.sections().filter(|s| s.name().is_ok_and(is_stub)) {
            out.stubs.push((section.address(), section.address() + section.size()));
        }
        let inner = elf.section_by_name(".gnu_debugdata").and_then(|s| decompress(s.data().ok()?));
        out.debug_file = elf.build_id().ok().flatten().and_then(|id| debug_file(id, debug_dirs));
        let debug = out.debug_file.as_ref().and_then(|path| File::open(path).ok()).map(ReadCache::new);
        let mut found = Vec::new();
        collect(&elf, &mut found);
        inner.iter().filter_map(|inner| Elf::parse(&**inner).ok()).for_each(|inner| collect(&inner, &mut found));
        debug.iter().filter_map(|debug| Elf::parse(debug).ok()).for_each(|debug| collect(&debug, &mut found));
        out.add(found);
        Some(out)
    }

    /// One function an address: the best name. Labels inside functions are no functions.
    fn add(&mut self, mut found: Vec<Found<'_>>) {
        found.sort_unstable();
        found.dedup_by_key(|found| found.start);
        let mut covered = 0;
        for (i, &Found { start, rank: Rank { is_vague, .. }, name, mut end }) in found.iter().enumerate() {
            if is_vague {
                if start < covered {
                    continue;
                }
                end = found.get(i + 1).map_or(end, |next| end.min(next.start));
            } else {
                covered = covered.max(end);
            }
            if start < end {
                let at = self.names.len();
                self.names.push_str(name);
                self.functions.push(Symbol { start, end, name: at..self.names.len() });
            }
        }
    }

    /// The name of one of the functions.
    pub(super) fn name(&self, symbol: &Symbol) -> &str {
        &self.names[symbol.name.clone()]
    }

    /// The function that `addr` is in, and the part of it around `addr` that is in no other.
    pub(super) fn find(&self, addr: u64) -> Option<(&Symbol, u64, u64)> {
        let next = self.functions.partition_point(|s| s.start <= addr);
        let limit = self.functions.get(next).map_or(u64::MAX, |s| s.start);
        // One that starts further up may reach over a smaller one.
        let (at, symbol) =
            (0..next).rev().take(NESTING).map(|i| (i, &self.functions[i])).find(|(_, s)| addr < s.end)?;
        let low = self.functions[at + 1..next].iter().map(|s| s.end).max().unwrap_or(symbol.start);
        Some((symbol, low.max(symbol.start), limit.min(symbol.end)))
    }

    /// The part around `addr`, which is in no function, that is in no function.
    pub(super) fn gap(&self, addr: u64) -> (u64, u64) {
        let next = self.functions.partition_point(|s| s.start <= addr);
        let low = self.functions[..next].iter().rev().take(NESTING).map(|s| s.end).max().unwrap_or(0);
        (low, self.functions.get(next).map_or(u64::MAX, |s| s.start))
    }

    /// The linkage stubs around `addr`.
    pub(super) fn stub(&self, addr: u64) -> Option<(u64, u64)> {
        self.stubs.iter().copied().find(|(start, end)| (*start..*end).contains(&addr))
    }
}

/// How many functions further up may still reach an address.
const NESTING: usize = 8;

/// A function as a symbol table has it: of those that start at one address the smallest is the best.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Found<'a> {
    start: u64,
    rank: Rank,
    name: &'a str,
    end: u64,
}

/// How good a name is: the smallest wins.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// It may be a label.
    is_vague: bool,
    decorations: usize,
    is_local: bool,
    len: usize,
}

fn collect<'a, R: ReadRef<'a>>(elf: &Elf<'a, R>, out: &mut Vec<Found<'a>>) {
    let is_code = |flags| matches!(flags, SectionFlags::Elf { sh_flags, .. } if sh_flags.contains(SHF_EXECINSTR));
    let endian = elf.endian();
    let code = elf.sections().filter(|s| is_code(s.flags()));
    let code: Vec<_> = code.map(|s| (s.index(), s.address() + s.size())).collect();
    for table in [elf.elf_symbol_table(), elf.elf_dynamic_symbol_table()] {
        // All at once: the table's own way reads the file for each name.
        let strings = elf.section_by_index(table.string_section()).and_then(|section| section.data());
        let strings = strings.unwrap_or_default();
        let strings = StringTable::new(strings, 0, strings.len() as u64);
        for (index, symbol) in table.enumerate() {
            let kind = symbol.st_type();
            if !matches!(kind, STT_FUNC | STT_GNU_IFUNC | STT_NOTYPE) {
                continue;
            }
            let section = table.symbol_section(endian, symbol, index).ok().flatten();
            let Some((_, end)) = code.iter().find(|(index, _)| section == Some(*index)) else { continue };
            let name = strings.get(symbol.st_name(endian)).ok().and_then(|name| str::from_utf8(name).ok());
            let Some(name) = name.filter(|name| !name.is_empty()) else { continue };
            let (start, size) = (symbol.st_value(endian), symbol.st_size(endian));
            let rank = Rank {
                is_vague: size == 0 || kind == STT_NOTYPE,
                decorations: name.bytes().take_while(|b| *b == b'_').count() + 2 * usize::from(name.contains('@')),
                is_local: symbol.st_bind() == STB_LOCAL,
                len: name.len(),
            };
            // Where there is no size, until the next one: `add`.
            out.push(Found { start, rank, name, end: if size == 0 { *end } else { start.saturating_add(size) } });
        }
    }
}

fn decompress(data: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    lzma_rs::xz_decompress(&mut &*data, &mut out).ok()?;
    Some(out)
}

/// The separate debug file for a build-id, if it is in one of `dirs`.
fn debug_file(id: &[u8], dirs: &[PathBuf]) -> Option<PathBuf> {
    let (first, rest) = id.split_first()?;
    let rest: String = rest.iter().map(|b| format!("{b:02x}")).collect();
    let name = format!(".build-id/{first:02x}/{rest}.debug");
    dirs.iter().map(|dir| dir.join(&name)).find(|path| path.exists())
}
