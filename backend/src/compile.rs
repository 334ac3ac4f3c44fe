//! `Compiler`: from a region to position-independent machine code.

use crate::frame;
use crate::isa::{Arch, HostIsa};
use crate::jump_cache::FlagsAtEntry;
use crate::link_stub;
use crate::lower::{self, Lowered};
use crate::order::{self, NoOrderedForm, Scalars};
use crate::respell::{Respell, respell};
use calque_ir::{GuestAddr, Region, Target};
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::isa::OwnedTargetIsa;
use cranelift_codegen::{CompiledCode, Context, Final, MachBufferFinalized};
use cranelift_frontend::FunctionBuilderContext;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What accesses to guest memory promise about their order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum MemoryOrder {
    /// The host's own order: right for one guest thread without shared memory, and always on x86-64.
    #[default]
    Plain,
    /// Total store order, as x86-64 programs expect between threads.
    Tso,
}

/// What a host fault at a guest access finds in `CpuState`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum StateAtFaults {
    /// The guest pc can be found; registers may be stale.
    #[default]
    PcOnly,
    /// All registers as before the instruction: dirty ones are stored before each access.
    Precise,
}

/// Choices of one compilation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct CompileOptions {
    pub memory_order: MemoryOrder,
    pub state_at_faults: StateAtFaults,
    pub budget: Budget,
    /// First of [`Compiler::cells_needed`] cells in a row that the exits use (`CodeCache::translate` fills it in).
    pub first_cell: u32,
}

/// What besides the interrupt word makes code leave at a poll.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Budget {
    #[default]
    None,
    /// `cpu.rt.insns` is negative: it counts up to the sign.
    Instructions,
}

/// A direct exit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExitSite {
    /// Its cell.
    pub cell: u32,
    /// Where it goes.
    pub target: GuestAddr,
    /// Offset in the code of what it jumps to while it is not linked.
    pub stub: u32,
}

/// A region's code, ready to be published.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// Guest pc of the entry.
    pub pc: GuestAddr,
    /// Position-independent machine code with its constants.
    pub code: Vec<u8>,
    /// Offset of the entry in `code`.
    pub entry: u32,
    /// Direct exits.
    pub exits: Vec<ExitSite>,
    /// (code offset, guest pc): from this offset on code belongs to the guest instruction at that pc. Sorted.
    pub pcs: Vec<(u32, GuestAddr)>,
    /// Offsets of the instructions that access guest memory: where a host fault is a guest fault. Sorted.
    pub accesses: Vec<u32>,
    /// The guest bytes that were translated.
    pub source: Vec<(GuestAddr, u32)>,
    /// Number of guest instructions.
    pub guest_insns: u32,
    /// Whether the region may read the flags that it is entered with.
    pub flags_at_entry: FlagsAtEntry,
}

/// Why a region does not compile: a limit of Cranelift, or our bug.
#[derive(Debug, thiserror::Error)]
#[error("region at {pc:?} does not compile: {message}")]
pub struct CompileError {
    /// Guest pc of the region.
    pub pc: GuestAddr,
    /// Cranelift's words.
    pub message: String,
    /// The region, printed, and its CLIF.
    pub dump: String,
}

/// Text of a compilation, for people and golden files.
#[derive(Clone, Debug)]
pub struct Listing {
    /// Cranelift's IR.
    pub clif: String,
    /// Host assembly as Cranelift prints it, before frames are reduced (`frame.rs`).
    pub host: String,
}

/// Whether Cranelift checks the functions it is given: costs 1.4-1.8x, for tests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verify {
    On,
    Off,
}

/// Turns regions into code; keeps its memory between them. One for each thread that compiles.
pub struct Compiler {
    host: HostIsa,
    isa: OwnedTargetIsa,
    verify: Verify,
    context: Context,
    builder: FunctionBuilderContext,
}

impl Compiler {
    /// A compiler for `host`.
    pub fn new(host: HostIsa) -> Self {
        Self::with_verifier(host, Verify::Off)
    }

    /// A compiler that has Cranelift check what it is given, if `verify` says so.
    pub fn with_verifier(host: HostIsa, verify: Verify) -> Self {
        let isa = host.cranelift();
        Self { host, isa, verify, context: Context::new(), builder: FunctionBuilderContext::new() }
    }

    /// The host that code is made for.
    pub fn host(&self) -> &HostIsa {
        &self.host
    }

    /// How many exit cells the code of `region` uses.
    pub fn cells_needed(&self, region: &Region) -> u32 {
        let targets = region.blocks.iter().flat_map(|b| b.exit.targets());
        targets.filter(|t| matches!(t, Target::Pc(_))).count() as u32
    }

    /// Compiles a region. A panic on the way, which is a bug of Cranelift or of ours, is an error, too: the guest can go on in the
    /// interpreter.
    pub fn compile(&mut self, region: &Region, options: &CompileOptions) -> Result<Compiled, CompileError> {
        match catch_unwind(AssertUnwindSafe(|| self.try_compile(region, options))) {
            Ok(result) => result,
            Err(panic) => {
                // What was being built may be in any state.
                (self.context, self.builder) = (Context::new(), FunctionBuilderContext::new());
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("panic");
                Err(error(region, text, String::new()))
            }
        }
    }

    fn try_compile(&mut self, region: &Region, options: &CompileOptions) -> Result<Compiled, CompileError> {
        let scalars = Scalars::of(options.memory_order, &self.host);
        match self.attempt(region, options, scalars)? {
            Ok(compiled) => Ok(compiled),
            Err(NoOrderedForm(word)) => {
                self.attempt(region, options, Scalars::Acquire)?.map_err(|_| no_ordered_form(region, word))
            }
        }
    }

    fn attempt(
        &mut self,
        region: &Region,
        options: &CompileOptions,
        scalars: Scalars,
    ) -> Result<Result<Compiled, NoOrderedForm>, CompileError> {
        let lowered = self.lower(region, options, scalars)?;
        let code = match self.context.compile(&*self.isa, &mut ControlPlane::default()) {
            Ok(code) => code,
            Err(e) => return Err(error(region, &format!("{:?}", e.inner), e.func.display().to_string())),
        };
        finish(&self.host, region, scalars, lowered, code)
    }

    /// Compiles a region and returns what became of it as text, too: with the accesses that Cranelift made (`order.rs`).
    pub fn explain(&mut self, region: &Region, options: &CompileOptions) -> Result<(Compiled, Listing), CompileError> {
        let scalars = Scalars::of(options.memory_order, &self.host);
        let lowered = self.lower(region, options, scalars)?;
        let clif = self.context.func.display().to_string();
        self.context.set_disasm(true);
        let result = self.context.compile(&*self.isa, &mut ControlPlane::default());
        let compiled = match result {
            Ok(code) => {
                let host = code.vcode.clone().unwrap_or_default();
                let compiled = finish(&self.host, region, scalars, lowered, code);
                let compiled = compiled.and_then(|c| c.map_err(|NoOrderedForm(word)| no_ordered_form(region, word)));
                compiled.map(|compiled| (compiled, Listing { clif, host }))
            }
            Err(e) => Err(error(region, &format!("{:?}", e.inner), clif)),
        };
        self.context.set_disasm(false);
        compiled
    }

    fn lower(&mut self, region: &Region, options: &CompileOptions, scalars: Scalars) -> Result<Lowered, CompileError> {
        self.context.clear();
        let frontend = self.isa.frontend_config();
        let func = &mut self.context.func;
        let lowered = lower::lower(region, &self.host, options, scalars, frontend, func, &mut self.builder);
        if self.verify == Verify::On {
            let checked = cranelift_codegen::verify_function(func, &*self.isa);
            checked.map_err(|e| error(region, &e.to_string(), func.display().to_string()))?;
        }
        Ok(lowered)
    }
}

fn error(region: &Region, message: &str, clif: String) -> CompileError {
    CompileError { pc: region.pc(), message: message.to_owned(), dump: format!("{region}\n{clif}") }
}

fn no_ordered_form(region: &Region, word: u32) -> CompileError {
    error(region, &format!("an access has no ordered form: {word:#x}"), String::new())
}

/// Puts the instructions that were meant in the place of their stand-ins.
fn respell_all(
    arch: Arch,
    bytes: &mut [u8],
    lowered: &Lowered,
    buffer: &MachBufferFinalized<Final>,
) -> Result<(), String> {
    if lowered.respelled.is_empty() && !lowered.comis {
        return Ok(());
    }
    // Blocks that nothing leads to have no code.
    let mut found: Vec<Option<usize>> = vec![None; lowered.respelled.len()];
    for range in buffer.get_srclocs_sorted() {
        let place = range.start as usize..range.end as usize;
        if lowered.comis {
            respell(bytes, place.clone(), if arch == Arch::X86_64 { Respell::Comis } else { Respell::Fcmpe })?;
        }
        if let Ok(n) = lowered.respelled.binary_search_by_key(&range.loc.bits(), |(loc, _)| *loc) {
            *found[n].get_or_insert(0) += respell(bytes, place, lowered.respelled[n].1)?;
        }
    }
    let missing = |(n, found): (usize, &Option<usize>)| *found == Some(0) && !lowered.respelled[n].1.may_be_missing();
    match found.iter().enumerate().position(missing) {
        Some(n) => Err(format!("no stand-in for {:?}", lowered.respelled[n].1)),
        None => Ok(()),
    }
}

fn finish(
    host: &HostIsa,
    region: &Region,
    scalars: Scalars,
    lowered: Lowered,
    code: &CompiledCode,
) -> Result<Result<Compiled, NoOrderedForm>, CompileError> {
    let buffer = &code.buffer;
    if !buffer.relocs().is_empty() {
        return Err(error(region, "the code is not position-independent", String::new()));
    }
    let mut bytes = code.code_buffer().to_vec();
    respell_all(host.arch, &mut bytes, &lowered, buffer).map_err(|e| error(region, &e, String::new()))?;
    let call_ends = buffer.call_sites().map(|site| site.ret_addr);
    let entry = frame::reduce(host.arch, &mut bytes, call_ends, lowered.calls);
    let mut exits = lowered.exits;
    exits.iter_mut().for_each(|exit| exit.stub = link_stub::append(&mut bytes, host.arch, exit.cell));
    let pcs = buffer.get_srclocs_sorted().iter().filter(|l| !l.loc.is_default());
    let pcs = pcs.map(|l| (l.start, lowered.pcs[l.loc.bits() as usize])).collect();
    let is_access = |code| code == lower::GUEST_ACCESS || code == lower::FENCED_ACCESS;
    let traps = || buffer.traps().iter().filter(|trap| is_access(trap.code));
    let sites = traps().map(|trap| (trap.offset, trap.code == lower::FENCED_ACCESS));
    if let Err(refused) = order::strengthen(&mut bytes, sites, scalars, host) {
        return Ok(Err(refused));
    }
    let accesses = traps().map(|trap| trap.offset).collect();
    Ok(Ok(Compiled {
        pc: region.pc(),
        code: bytes,
        entry,
        exits,
        pcs,
        accesses,
        source: region.source.to_vec(),
        guest_insns: region.guest_insns,
        flags_at_entry: if region.flags_dead { FlagsAtEntry::Dead } else { FlagsAtEntry::Wanted },
    }))
}
