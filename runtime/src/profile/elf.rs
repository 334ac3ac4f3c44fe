//! The functions of an ELF file, from wherever their names are: `.symtab`, `.dynsym`, `.gnu_debugdata` (a compressed ELF file
//! inside the file), and the separate debug file that the build-id names.

use object::elf::{SHF_EXECINSTR, STT_FUNC, STT_GNU_IFUNC, STT_NOTYPE};
use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol, ObjectSymbolTable, SectionFlags, SymbolFlags};
use std::path::{Path, PathBuf};

type Elf<'a> = object::read::elf::ElfFile64<'a>;

/// A function of a file; addresses are the file's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Symbol {
    pub start: u64,
    pub end: u64,
    /// As in the file: not demangled.
    pub name: String,
}

/// What a file says of its code.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ModuleSymbols {
    /// By start; none starts where another does.
    pub functions: Vec<Symbol>,
    /// Linkage stubs: `.plt`, `.plt.sec`, `.plt.got`, `.iplt`.
    pub stubs: Vec<(u64, u64)>,
    /// Highest address of a segment.
    pub end: u64,
    /// The separate debug file, if there is one.
    pub debug_file: Option<PathBuf>,
}

impl ModuleSymbols {
    /// Of the file at `path` and its separate debug file in one of `debug_dirs`; nothing if it cannot be read.
    pub fn load(path: &Path, debug_dirs: &[PathBuf]) -> ModuleSymbols {
        let Ok(bytes) = std::fs::read(path) else { return ModuleSymbols::default() };
        Self::parse(&bytes, debug_dirs).unwrap_or_default()
    }

    fn parse(bytes: &[u8], debug_dirs: &[PathBuf]) -> Option<ModuleSymbols> {
        let elf = Elf::parse(bytes).ok()?;
        let mut out = ModuleSymbols { end: elf.segments().map(|s| s.address() + s.size()).max()?, ..Self::default() };
        let is_stub = |name: &str| name.starts_with(".plt") || name == ".iplt";
        for section in elf.sections().filter(|s| s.name().is_ok_and(is_stub)) {
            out.stubs.push((section.address(), section.address() + section.size()));
        }
        let mut found = Vec::new();
        collect(&elf, &mut found);
        if let Some(inner) = elf.section_by_name(".gnu_debugdata").and_then(|s| decompress(s.data().ok()?)) {
            Elf::parse(&*inner).iter().for_each(|inner| collect(inner, &mut found));
        }
        out.debug_file = elf.build_id().ok().flatten().and_then(|id| debug_file(id, debug_dirs));
        if let Some(bytes) = out.debug_file.as_ref().and_then(|path| std::fs::read(path).ok()) {
            Elf::parse(&*bytes).iter().for_each(|debug| collect(debug, &mut found));
        }
        out.functions = tidy(found);
        Some(out)
    }

    /// The function that `addr` is in, and the part of it around `addr` that is in no other.
    pub fn find(&self, addr: u64) -> Option<(&Symbol, u64, u64)> {
        let next = self.functions.partition_point(|s| s.start <= addr);
        let limit = self.functions.get(next).map_or(u64::MAX, |s| s.start);
        // One that starts further up may reach over a smaller one.
        let (at, symbol) =
            (0..next).rev().take(NESTING).map(|i| (i, &self.functions[i])).find(|(_, s)| addr < s.end)?;
        let low = self.functions[at + 1..next].iter().map(|s| s.end).max().unwrap_or(symbol.start);
        Some((symbol, low.max(symbol.start), limit.min(symbol.end)))
    }

    /// The part around `addr`, which is in no function, that is in no function.
    pub fn gap(&self, addr: u64) -> (u64, u64) {
        let next = self.functions.partition_point(|s| s.start <= addr);
        let low = self.functions[..next].iter().rev().take(NESTING).map(|s| s.end).max().unwrap_or(0);
        (low, self.functions.get(next).map_or(u64::MAX, |s| s.start))
    }

    /// The linkage stubs around `addr`.
    pub fn stub(&self, addr: u64) -> Option<(u64, u64)> {
        self.stubs.iter().copied().find(|(start, end)| (*start..*end).contains(&addr))
    }
}

/// How many functions further up may still reach an address.
const NESTING: usize = 8;

/// A function as a symbol table has it, and how good its name is: the smallest wins.
type Found = (Symbol, (bool, usize, bool, usize));

fn collect(elf: &Elf<'_>, out: &mut Vec<Found>) {
    type Section<'a, 'b> = object::read::elf::ElfSection64<'a, 'b>;
    let executable = |s: &Section<'_, '_>| match s.flags() {
        SectionFlags::Elf { sh_flags, .. } => sh_flags.contains(SHF_EXECINSTR),
        _ => false,
    };
    let code: Vec<_> = elf.sections().filter(executable).map(|s| (s.index(), s.address() + s.size())).collect();
    let tables = [elf.symbol_table(), elf.dynamic_symbol_table()];
    for symbol in tables.iter().flatten().flat_map(|table| table.symbols()) {
        let SymbolFlags::Elf { st_info, .. } = symbol.flags() else { continue };
        let kind = st_info.st_type();
        let Some((_, end)) = code.iter().find(|(index, _)| symbol.section_index() == Some(*index)) else { continue };
        let name = symbol.name().unwrap_or_default();
        if name.is_empty() || !matches!(kind, STT_FUNC | STT_GNU_IFUNC | STT_NOTYPE) {
            continue;
        }
        // Where there is no size, until the next one: `tidy`.
        let end = if symbol.size() == 0 { *end } else { symbol.address() + symbol.size() };
        let rank = (
            symbol.size() == 0 || kind == STT_NOTYPE,
            name.bytes().take_while(|b| *b == b'_').count() + 2 * usize::from(name.contains('@')),
            symbol.is_local(),
            name.len(),
        );
        out.push((Symbol { start: symbol.address(), end, name: name.to_owned() }, rank));
    }
}

/// One function an address: the best name. Labels inside functions are no functions.
fn tidy(mut found: Vec<Found>) -> Vec<Symbol> {
    found.sort_by(|(a, x), (b, y)| (a.start, x, &a.name).cmp(&(b.start, y, &b.name)));
    found.dedup_by_key(|(symbol, _)| symbol.start);
    let mut out: Vec<Symbol> = Vec::new();
    let mut covered = 0;
    for i in 0..found.len() {
        let (mut symbol, (vague, ..)) = found[i].clone();
        if vague {
            if symbol.start < covered {
                continue;
            }
            symbol.end = found.get(i + 1).map_or(symbol.end, |(next, _)| symbol.end.min(next.start));
        } else {
            covered = covered.max(symbol.end);
        }
        if symbol.start < symbol.end {
            out.push(symbol);
        }
    }
    out
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
