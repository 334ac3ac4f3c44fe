//! Which function a guest address is in: symbols of the mapped files, read when code of a file is first met.
//!
//! Code that no symbol covers is divided by the addresses that are called: a function reaches from one to the next.

use super::elf::ModuleSymbols;
use crate::memory::GuestMap;
use crate::symbols::Symbols;
use calque_ir::GuestAddr;
use hashbrown::HashMap;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Number of a function in a [`FunctionTable`].
pub(super) type FunctionId = u32;

/// What an address belongs to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Place {
    /// A mapped file: its number.
    Module(u32),
    /// Memory that the program has filled itself.
    Memory,
}

/// A file that the guest has mapped somewhere.
pub(super) struct Module {
    pub(super) path: PathBuf,
    pub(super) bias: u64,
    start: u64,
    end: u64,
    pub(super) symbols: ModuleSymbols,
}

/// A function that has been executed.
#[derive(Clone, Debug)]
pub(super) struct Function {
    pub(super) place: Place,
    /// Guest address of its first byte; 0 for [`ROOT`].
    pub(super) start: u64,
    /// As in the symbol table.
    pub(super) name: Option<String>,
}

/// No function: where threads begin.
pub(super) const ROOT: FunctionId = 0;

/// What an address is part of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Found {
    pub(super) function: FunctionId,
    /// Addresses around it that certainly are in the same function.
    pub(super) low: u64,
    pub(super) high: u64,
    /// A linkage stub: part of whoever calls it.
    pub(super) stub: bool,
}

impl Found {
    /// Nothing is known.
    pub(super) const NOTHING: Found = Found { function: ROOT, low: 0, high: u64::MAX, stub: false };
}

pub(super) struct FunctionTable {
    pub(super) modules: Vec<Module>,
    pub(super) functions: Vec<Function>,
    numbers: Numbers,
    /// Functions without symbols.
    unnamed: BTreeMap<(Place, u64), FunctionId>,
    debug_dirs: Vec<PathBuf>,
}

impl FunctionTable {
    /// No functions yet; separate debug files are in `debug_dirs`.
    pub(super) fn new(debug_dirs: Vec<PathBuf>) -> Self {
        let root = Function { place: Place::Memory, start: 0, name: None };
        let (numbers, unnamed) = (HashMap::new(), BTreeMap::new());
        Self { modules: Vec::new(), functions: vec![root], numbers, unnamed, debug_dirs }
    }

    /// What is mapped at `pc` now.
    pub(super) fn place(&mut self, pc: GuestAddr) -> Place {
        let Some(map) = crate::process::current().map(|process| &process.mem) else { return Place::Memory };
        self.place_in(map, pc)
    }

    fn place_in(&mut self, map: &GuestMap, pc: GuestAddr) -> Place {
        let Some((file, _)) = map.mapping(pc).and_then(|m| m.file) else { return Place::Memory };
        let known = self.modules.iter().rposition(|m| (m.start..m.end).contains(&pc.0) && m.path == file.path);
        if let Some(known) = known {
            return Place::Module(known as u32);
        }
        let Some(module) = Symbols::new(map).module(pc) else { return Place::Memory };
        let symbols = ModuleSymbols::load(&module.path, &self.debug_dirs);
        let end = symbols.end.wrapping_add(module.bias).max(pc.0 + 1);
        self.modules.push(Module { path: module.path, bias: module.bias, start: module.base.0, end, symbols });
        Place::Module(self.modules.len() as u32 - 1)
    }

    /// The function at `pc`. `entered`: control came there by a call, so that a function without a name begins there.
    pub(super) fn at(&mut self, pc: GuestAddr, entered: bool) -> Found {
        let place = self.place(pc);
        self.in_place(place, pc, entered)
    }

    fn in_place(&mut self, place: Place, pc: GuestAddr, entered: bool) -> Found {
        let Place::Module(number) = place else {
            let function = self.unnamed(place, pc.0, 0, entered);
            return Found { function, low: 0, high: u64::MAX, stub: false };
        };
        let module = &self.modules[number as usize];
        let (bias, at) = (module.bias, pc.0.wrapping_sub(module.bias));
        let guest = |addr: u64| addr.saturating_add(bias);
        if let Some((low, high)) = module.symbols.stub(at) {
            let (low, high) = (guest(low), guest(high));
            return Found {
                function: named(&mut self.functions, &mut self.numbers, place, low, "[linkage stubs]"),
                low,
                high,
                stub: true,
            };
        }
        if let Some((symbol, low, high)) = module.symbols.find(at) {
            let name = module.symbols.name(symbol);
            let function = named(&mut self.functions, &mut self.numbers, place, guest(symbol.start), name);
            return Found { function, low: guest(low), high: guest(high), stub: false };
        }
        let (low, high) = module.symbols.gap(at);
        let (low, high) = (guest(low), guest(high));
        Found { function: self.unnamed(place, pc.0, low, entered), low, high, stub: false }
    }

    /// The function without a name that `pc` is in; none starts below `low`.
    fn unnamed(&mut self, place: Place, pc: u64, low: u64, entered: bool) -> FunctionId {
        let before = self.unnamed.range((place, low)..=(place, pc)).next_back();
        match before {
            Some((&(_, start), &function)) if start == pc || !entered => function,
            _ => {
                let function = add(&mut self.functions, &mut self.numbers, place, pc, None);
                self.unnamed.insert((place, pc), function);
                function
            }
        }
    }

    /// Name of the mapped file, without its directory.
    pub(super) fn file_name(&self, place: Place) -> Option<String> {
        let Place::Module(number) = place else { return None };
        let path = &self.modules[number as usize].path;
        Some(path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned())
    }

    /// The function of an instruction that has been executed in `place`.
    pub(super) fn of(&mut self, place: Place, pc: u64) -> FunctionId {
        self.in_place(place, GuestAddr(pc), false).function
    }
}

type Numbers = HashMap<(Place, u64), FunctionId>;

fn named(functions: &mut Vec<Function>, numbers: &mut Numbers, place: Place, start: u64, name: &str) -> FunctionId {
    match numbers.get(&(place, start)) {
        Some(known) => *known,
        None => add(functions, numbers, place, start, Some(name.to_owned())),
    }
}

fn add(
    functions: &mut Vec<Function>,
    numbers: &mut Numbers,
    place: Place,
    start: u64,
    name: Option<String>,
) -> FunctionId {
    let number = functions.len() as FunctionId;
    functions.push(Function { place, start, name });
    numbers.insert((place, start), number);
    number
}
