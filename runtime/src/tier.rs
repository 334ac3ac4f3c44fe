//! Translations of the process, and which tier runs what.
//!
//! Each guest pc where the dispatcher has ever looked has one [`Entry`]: the block lifted for the interpreter, the region
//! compiled from there, and its heat. Threads find entries through a direct-mapped cache of their own, then through the
//! shared map.
//!
//! Heat is counted where loops and calls begin: at targets of backward edges, of calls, returns and indirect jumps, and of exits from
//! generated code. Blocks inside a loop body do not get hot by themselves, so a loop is compiled once and not once a block.

use crate::arch::{self, FrozenUnits, Units};
use crate::cold::{self, ColdMaker};
use crate::compile_gate::CompileGate;
use crate::compile_queue::{self, Queue};
use crate::dispatch::CODE_CHANGED;
use crate::jumps::{FrozenJumps, Jumps};
use crate::memory::{CodePage, GuestMap, Trust};
use crate::options::{Engine, RunOptions};
use crate::process::Process;
use crate::profile::perf::Perf;
use crate::profile::{self, Profile};
use crate::saved::{FrozenSaved, Saved};
use crate::smc::{GuestCode, Origin, Pages};
use crate::stats::{self, Stats};
use crate::trial::{self, Trial};
use crate::unaligned::{FrozenUnaligned, Unaligned};
use crate::world::{Member, SHORT_STOP, World};
use arc_swap::ArcSwapOption;
use calque_backend::sync::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Mutex, MutexGuard};
use calque_backend::{
    Arch, Budget, CacheError, CodeCache, CodeKind, CompileOptions, Compiler, HostCode, HostIsa, MemoryOrder,
    StateAtFaults, Translation,
};
use calque_frontend::lift::{self, EveryBlock};
use calque_frontend::{Constants, LiftOptions, Lifted};
use calque_ir::helper::{HelperEffect, HelperEntry};
use calque_ir::pass;
use calque_ir::state::XCR0_AVX2;
use calque_ir::{CpuState, Exit, GuestAddr, Helper, Op, Region};
use hashbrown::HashMap;
use once_cell::race::OnceBool;
use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Instant;

/// What is known of one guest pc. The dispatcher's fields come first: programs have more entries than caches have room.
#[repr(C)]
pub(crate) struct Entry {
    pub(crate) pc: GuestAddr,
    /// Entry of the compiled region, 0 if there is none.
    code: AtomicUsize,
    heat: AtomicU32,
    /// Executions by the interpreter.
    runs: AtomicU32,
    /// Where it stands with the compiler: `IDLE`, `REQUESTED` or `HOPELESS`.
    request: AtomicU8,
    failed_trials: AtomicU8,
    /// Its translations are made from bytes that have changed; it is no longer in the map.
    dropped: AtomicBool,
    /// Entry of the code that tier 0 emitted, 0 if there is none.
    tier0: AtomicUsize,
    cold: OnceLock<ColdBlock>,
    translation: ArcSwapOption<Translation>,
    /// What tier 0 emitted: a block, or a region in its place.
    emitted: ArcSwapOption<Translation>,
    /// What its translations are made from may have changed (`smc.rs`).
    shelved: AtomicBool,
    /// Whether `Pages` may know it.
    registered: AtomicBool,
    /// What its translations were made from, as far as that may change.
    origin: ArcSwapOption<Origin>,
    /// Some of them were made from fixed bytes, of which there is no copy.
    partly_fixed: AtomicBool,
    /// Generated code has left for floats soon behind here.
    left_soon: AtomicBool,
    /// How often the bytes here were found changed while somebody had a translation of them.
    changes: AtomicU8,
}

/// Changes after which constants are read where they stand: the next function in the same place is one change.
const READ_AFTER: u8 = 2;

/// Floats within so many bytes may be in the same block: the interpreter's block then tells.
const SOON: u64 = 64;

const IDLE: u8 = 0;
/// Waits for the compiler, or is compiled.
const REQUESTED: u8 = 1;
/// Cannot be compiled, or would lose by it: stays as it is for good.
const HOPELESS: u8 = 2;

/// A block for the interpreter.
pub(crate) struct ColdBlock {
    pub(crate) region: Region,
    /// Whether its exit is a call, a return or an indirect jump, whose target counts as warm.
    far_exit: bool,
    /// Whether generated code of it would leave for floats (`LiftOptions::guarded_floats`).
    computes: bool,
}

impl ColdBlock {
    pub(crate) fn new(mut region: Region) -> Self {
        // There are many, most run a few times: no spare room, and no ranges that `Pages` has got already.
        region.source.clear();
        region.blocks.shrink_to_fit();
        region.insts.shrink_to_fit();
        region.pool.shrink_to_fit();
        let near = |exit: &Exit| matches!(exit, Exit::Goto(_) | Exit::Branch { .. });
        let far_exit = !region.blocks.iter().all(|b| near(&b.exit));
        let computes = region.blocks.len() > 1 && region.insts.iter().any(|i| i.op == Op::Uncarried);
        Self { region, far_exit, computes }
    }

    /// Whether going on at `next` from here is where loops and functions begin.
    #[inline]
    pub(crate) fn warms(&self, next: GuestAddr) -> bool {
        self.far_exit || next <= self.region.blocks[0].pc
    }
}

impl Entry {
    pub(crate) fn new(pc: GuestAddr) -> Self {
        Self {
            pc,
            tier0: AtomicUsize::new(0),
            cold: OnceLock::new(),
            emitted: ArcSwapOption::empty(),
            heat: AtomicU32::new(0),
            runs: AtomicU32::new(0),
            code: AtomicUsize::new(0),
            translation: ArcSwapOption::empty(),
            request: AtomicU8::new(IDLE),
            failed_trials: AtomicU8::new(0),
            dropped: AtomicBool::new(false),
            shelved: AtomicBool::new(false),
            registered: AtomicBool::new(false),
            origin: ArcSwapOption::empty(),
            partly_fixed: AtomicBool::new(false),
            left_soon: AtomicBool::new(false),
            changes: AtomicU8::new(0),
        }
    }

    /// The interpreter's block, if it has been lifted.
    #[inline]
    pub(crate) fn cold(&self) -> Option<&ColdBlock> {
        self.cold.get()
    }

    /// Counts an arrival over a warm edge; the new count. Exact enough where threads race.
    #[inline]
    pub(crate) fn warm(&self) -> u32 {
        let heat = self.heat.load(Ordering::Relaxed).saturating_add(1);
        self.heat.store(heat, Ordering::Relaxed);
        heat
    }

    /// Counts an execution by the interpreter; the new count. Exact enough where threads race.
    #[inline]
    pub(crate) fn count_run(&self) -> u32 {
        let runs = self.runs.load(Ordering::Relaxed).saturating_add(1);
        self.runs.store(runs, Ordering::Relaxed);
        runs
    }

    /// What its translations do with constants, if they compare their bytes.
    pub(crate) fn constants(&self) -> Constants {
        if self.changes.load(Ordering::Relaxed) < READ_AFTER { Constants::Compared } else { Constants::Read }
    }

    /// Whether its translations compare their bytes.
    pub(crate) fn is_checked(&self) -> bool {
        self.origin().kind() == CodePage::Checked
    }

    /// Arrivals so far.
    pub(crate) fn heat(&self) -> u32 {
        self.heat.load(Ordering::Relaxed)
    }

    /// The compiled region's entry.
    #[inline]
    pub(crate) fn code(&self) -> Option<HostCode> {
        let code = self.code.load(Ordering::Acquire);
        (code != 0).then_some(HostCode(code))
    }

    /// The best code there is, and its kind.
    #[inline]
    pub(crate) fn runnable(&self) -> Option<(HostCode, CodeKind)> {
        if let Some(code) = self.code() {
            return Some((code, CodeKind::Tail));
        }
        let code = self.tier0.load(Ordering::Acquire);
        (code != 0).then_some((HostCode(code), CodeKind::Tier0))
    }

    /// Generated code has been entered here and left at `pc` for the floats there.
    pub(crate) fn left_for_floats(&self, pc: GuestAddr) {
        if pc.0.wrapping_sub(self.pc.0) < SOON {
            self.left_soon.store(true, Ordering::Relaxed);
        }
    }

    /// Whether its block computes with floats, as far as is known.
    pub(crate) fn computes(&self) -> bool {
        self.cold().map_or_else(|| self.left_soon.load(Ordering::Relaxed), |block| block.computes)
    }

    /// Whether the compiler, or the emitter, has nothing for it, for good.
    #[inline]
    pub(crate) fn is_hopeless(&self) -> bool {
        self.request.load(Ordering::Relaxed) == HOPELESS
    }

    /// The interpreter is to run it for good.
    pub(crate) fn give_up(&self) {
        self.request.store(HOPELESS, Ordering::Relaxed);
    }

    /// Calls `f` on the best code there is.
    pub(crate) fn with_translation<R>(&self, f: impl FnOnce(&Translation) -> R) -> Option<R> {
        let code = if self.code().is_some() { &self.translation } else { &self.emitted };
        code.load().as_deref().map(f)
    }

    /// Gives it a block for the interpreter.
    pub(crate) fn set_cold(&self, block: ColdBlock) {
        // Another thread may have been faster: then its block is the same.
        let _ = self.cold.set(block);
    }

    /// Gives it code that tier 0 emitted. Under the lock of `Pages`.
    pub(crate) fn set_tier0(&self, translation: Arc<Translation>) {
        // The same, or its region.
        if self.emitted.load().is_none() {
            self.replace_tier0(translation);
        }
    }

    /// Gives it other code that tier 0 emitted; what it had before. Under the lock of `Pages`.
    pub(crate) fn replace_tier0(&self, translation: Arc<Translation>) -> Option<Arc<Translation>> {
        self.tier0.store(translation.code.0, Ordering::Release);
        self.emitted.swap(Some(translation))
    }

    /// Counts arrivals that were not counted one by one; whether they took the count to `threshold` or past it.
    pub(crate) fn warm_by(&self, arrivals: u32, threshold: u32) -> bool {
        let before = self.heat.load(Ordering::Relaxed);
        let after = before.saturating_add(arrivals);
        self.heat.store(after, Ordering::Relaxed);
        before < threshold && threshold <= after
    }

    fn failed_trials(&self) -> u8 {
        self.failed_trials.load(Ordering::Relaxed)
    }

    /// Its region would not have kept a thread (`trial.rs`): counts from the start again, for longer.
    fn fail_trial(&self) {
        self.failed_trials.store(self.failed_trials().saturating_add(1), Ordering::Relaxed);
        self.cool();
    }

    /// Counts arrivals from the start again.
    fn cool(&self) {
        self.heat.store(0, Ordering::Relaxed);
    }

    /// The compiler has not got to the end: counts from the start again.
    fn put_off(&self) {
        self.cool();
        self.request.store(IDLE, Ordering::Release);
    }

    pub(crate) fn is_dropped(&self) -> bool {
        self.dropped.load(Ordering::Acquire)
    }

    /// Whether its translations are good as far as is known.
    pub(crate) fn is_usable(&self) -> bool {
        !self.is_dropped() && !self.shelved.load(Ordering::Acquire)
    }

    /// What its translations were made from.
    pub(crate) fn origin(&self) -> Arc<Origin> {
        self.origin.load_full().unwrap_or_default()
    }

    /// Whether there is a copy of all the bytes that its translations were made from.
    fn can_be_compared(&self) -> bool {
        // Under the lock of `Pages`.
        !self.partly_fixed.load(Ordering::Relaxed)
    }

    /// Notes what one more translation was made from.
    pub(crate) fn made_from(&self, origin: Origin) {
        if origin.kind() == CodePage::Fixed {
            // Under the lock of `Pages`.
            return self.partly_fixed.store(true, Ordering::Relaxed);
        }
        let known = self.origin.load();
        self.origin.store(Some(Arc::new(match &*known {
            None => origin,
            Some(known) => known.with(origin),
        })));
    }

    /// Notes that `Pages` may know it from now on; whether that is so already.
    pub(crate) fn register(&self) -> bool {
        // Under the lock of `Pages`.
        self.registered.load(Ordering::Relaxed) || {
            self.registered.store(true, Ordering::Relaxed);
            false
        }
    }
}

/// Number of maps that entries are spread over, a power of two.
const SHARDS: usize = 16;

/// All translations of a process.
pub(crate) struct Code {
    shards: [Mutex<HashMap<u64, Arc<Entry>>>; SHARDS],
    pages: Mutex<Pages>,
    /// Raised at each invalidation (I2 of `smc.rs`).
    epoch: AtomicU64,
    /// Registers must be exact wherever the guest may fault.
    precise: AtomicBool,
    /// The same but for flags that the guest overwrites before it reads them: no handler has seen a fault yet.
    resumable: AtomicBool,
    /// Nothing is compiled any more.
    interpret: AtomicBool,
    /// Blocks are counted.
    counting: AtomicBool,
    /// Flags are exact also where floating-point operations may trap.
    precise_floats: AtomicBool,
    /// The control words have been seen to say what generated code cannot do.
    guarded_floats: AtomicBool,
    /// MXCSR has been seen with DAZ set.
    flushing: AtomicBool,
    /// Several threads, or shared memory: accesses keep the guest's order.
    ordered: AtomicBool,
    pub(crate) engine: Engine,
    pub(crate) hot: u32,
    /// Cold code is emitted, not interpreted (`cold.rs`).
    pub(crate) emits: bool,
    /// Identical translation, where the host and the engine have it.
    pub(crate) units: Option<Units>,
    /// State components that CPUID announces to the guest's threads.
    pub(crate) xcr0: u64,
    /// What compiled code needs; none if only the interpreter runs.
    pub(crate) jit: Option<Jit>,
    pub(crate) jumps: Jumps,
    pub(crate) unaligned: Unaligned,
    /// Code of earlier runs, if this one keeps any; known once the program is loaded.
    pub(crate) saved: OnceLock<Saved>,
    pub(crate) world: World,
    pub(crate) profile: Option<Profile>,
    pub(crate) perf: Option<Perf>,
}

/// Compiled code.
pub(crate) struct Jit {
    pub(crate) host: HostIsa,
    pub(crate) cache: CodeCache,
    pub(crate) queue: Queue,
    /// Table for `cpu.rt.helpers`.
    pub(crate) helpers: &'static [HelperEntry],
    /// Compile in the guest's threads.
    synchronous: bool,
    /// Compilations under way; a reset of the cache waits for them.
    pub(crate) compiling: CompileGate,
    /// The cache is full: the next safepoint resets it.
    pub(crate) full: AtomicBool,
}

impl Jit {
    fn new(options: &RunOptions) -> Result<Jit, CacheError> {
        Ok(Jit {
            host: HostIsa::native(),
            cache: CodeCache::new(options.cache_budget)?,
            queue: Queue::new(),
            helpers: calque_backend::helpers::table(host_helper),
            synchronous: options.sync_compile,
            compiling: CompileGate::default(),
            full: AtomicBool::new(false),
        })
    }
}

impl Jit {
    /// In the child of a fork: the compile thread and what it was doing stayed in the parent.
    fn after_fork_in_child(&self) -> Result<(), CacheError> {
        self.compiling.after_fork_in_child();
        self.queue.after_fork_in_child();
        self.cache.after_fork_in_child()
    }
}

/// Whether there is no core to spare for a compile thread. Asked for when it first matters: the answer takes a dozen system calls.
fn one_core() -> bool {
    static ONE: OnceBool = OnceBool::new();
    ONE.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from) == 1)
}

/// Entry points of the helpers that ask the host.
fn host_helper(helper: Helper) -> Option<HelperEntry> {
    extern "C" fn cpuid(cpu: &mut CpuState, a: u64, b: u64, c: u64) -> u64 {
        crate::gate::helper(cpu, Helper::Cpuid, a, b, c)
    }
    extern "C" fn rdtsc(cpu: &mut CpuState, a: u64, b: u64, c: u64) -> u64 {
        crate::gate::helper(cpu, Helper::Rdtsc, a, b, c)
    }
    extern "C" fn tsc_aux(cpu: &mut CpuState, a: u64, b: u64, c: u64) -> u64 {
        crate::gate::helper(cpu, Helper::TscAux, a, b, c)
    }
    extern "C" fn random(cpu: &mut CpuState, a: u64, b: u64, c: u64) -> u64 {
        crate::gate::helper(cpu, Helper::Random, a, b, c)
    }
    match helper {
        Helper::Cpuid => Some(cpuid),
        Helper::Rdtsc => Some(rdtsc),
        Helper::TscAux => Some(tsc_aux),
        Helper::Random => Some(random),
        Helper::ProfileCall => Some(profile::call),
        Helper::ProfileReturn => Some(profile::ret),
        Helper::ProfileJump => Some(profile::jump),
        _ => {
            debug_assert!(helper.effect() != HelperEffect::Host, "{} has no entry", helper.name());
            None
        }
    }
}

/// Translations that nobody else can look up, make or drop for the moment.
/// Locks in the order in which they nest.
pub(crate) struct Frozen<'a> {
    _pages: MutexGuard<'a, Pages>,
    _shards: [MutexGuard<'a, HashMap<u64, Arc<Entry>>>; SHARDS],
    _units: Option<FrozenUnits<'a>>,
    _jit: Option<(compile_queue::Frozen<'a>, MutexGuard<'a, ()>)>,
    _jumps: FrozenJumps<'a>,
    _unaligned: FrozenUnaligned<'a>,
    _saved: Option<FrozenSaved<'a>>,
    _world: MutexGuard<'a, Vec<Arc<Member>>>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Code {
    /// Without compiled code if the host refuses it and nobody insists.
    pub(crate) fn new(options: &RunOptions) -> io::Result<Code> {
        let engine = options.engine.resolve(options)?;
        let units = (engine == Engine::Tier0 && Units::is_supported())
            .then(|| Units::new(options))
            .transpose()
            .map_err(io::Error::other)?;
        let xcr0 = units.as_ref().map_or(XCR0_AVX2, Units::xcr0);
        let jit = match engine {
            Engine::Interp => None,
            Engine::Tier0 if units.is_some() => None,
            Engine::Jit | Engine::Tier0 => Some(Jit::new(options).map_err(io::Error::other)?),
            Engine::Tiered | Engine::Auto => {
                Jit::new(options).inspect_err(|e| eprintln!("calque: {e}; running slowly without")).ok()
            }
        };
        Ok(Code {
            shards: Default::default(),
            pages: Mutex::default(),
            epoch: AtomicU64::new(0),
            precise: AtomicBool::new(false),
            resumable: AtomicBool::new(false),
            interpret: AtomicBool::new(false),
            counting: AtomicBool::new(false),
            precise_floats: AtomicBool::new(false),
            guarded_floats: AtomicBool::new(false),
            flushing: AtomicBool::new(false),
            ordered: AtomicBool::new(false),
            emits: arch::EMITS && matches!(engine, Engine::Tier0 | Engine::Auto) && jit.is_some(),
            engine,
            hot: options.hot.max(1),
            units,
            xcr0,
            jit,
            jumps: Jumps::default(),
            unaligned: Unaligned::default(),
            saved: OnceLock::new(),
            world: World::default(),
            profile: Profile::new(options),
            perf: options.perf.then(|| Perf::new(options.debug_dirs.clone())),
        })
    }

    /// Keeps every other thread out until the guard is dropped: for `fork`.
    pub(crate) fn freeze(&self) -> Frozen<'_> {
        Frozen {
            _pages: lock(&self.pages),
            _shards: self.shards.each_ref().map(lock),
            _units: self.units.as_ref().map(Units::freeze),
            _jit: self.jit.as_ref().map(|jit| (jit.queue.freeze(), jit.cache.freeze())),
            _jumps: self.jumps.freeze(),
            _unaligned: self.unaligned.freeze(),
            _saved: self.saved.get().map(Saved::freeze),
            _world: self.world.lock(),
        }
    }

    /// In the child of a fork, whose only thread has this interrupt word: code memory of its own, no compile thread yet.
    pub(crate) fn after_fork_in_child(&self, survivor: &AtomicU32) {
        self.world.after_fork_in_child(survivor);
        if let Some(profile) = &self.profile {
            profile.after_fork_in_child(survivor);
        }
        if let Some(saved) = self.saved.get() {
            saved.after_fork_in_child();
        }
        let units = self.units.as_ref().map_or(Ok(()), Units::after_fork_in_child);
        let jit = self.jit.as_ref().map_or(Ok(()), Jit::after_fork_in_child);
        if let Err(error) = units.and(jit) {
            // Running on in the parent's code memory would change it under the parent.
            panic!("no code memory for a forked child: {error}");
        }
    }

    /// Locks what says which pages translations were made from, with nothing stale in it.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only units use it"))]
    pub(crate) fn lock_pages(&self, map: &GuestMap) -> impl Sized + '_ {
        let mut pages = lock(&self.pages);
        pages.drain_stale(map, self);
        pages
    }

    /// Notes sizes for `--stats`.
    pub(crate) fn measure(&self, stats: &Stats) {
        if let Some(units) = &self.units {
            let [code, tables] = units.sizes();
            stats.unit_code_bytes.store(code, Ordering::Relaxed);
            stats.unit_table_bytes.store(tables, Ordering::Relaxed);
        }
    }

    /// Higher after each invalidation.
    #[inline]
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    pub(crate) fn advance_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::Release);
        self.world.interrupt_all(CODE_CHANGED);
    }

    /// The entry for `pc`, made if there is none.
    pub(crate) fn entry(&self, pc: GuestAddr) -> Arc<Entry> {
        let mut shard = lock(self.shard(pc));
        Arc::clone(shard.entry(pc.0).or_insert_with(|| Arc::new(Entry::new(pc))))
    }

    /// Whether the region at `pc` is compiled, or waits for that.
    pub(crate) fn is_compiled(&self, pc: GuestAddr) -> bool {
        let shard = lock(self.shard(pc));
        shard.get(&pc.0).is_some_and(|entry| entry.request.load(Ordering::Relaxed) == REQUESTED)
    }

    /// Whether there is an entry for `pc`.
    pub(crate) fn is_known(&self, pc: GuestAddr) -> bool {
        lock(self.shard(pc)).contains_key(&pc.0)
    }

    fn shard(&self, pc: GuestAddr) -> &Mutex<HashMap<u64, Arc<Entry>>> {
        &self.shards[(pc.0 ^ pc.0 >> 7) as usize % SHARDS]
    }

    /// Which entries come from which page; locked.
    pub(crate) fn pages(&self) -> MutexGuard<'_, Pages> {
        lock(&self.pages)
    }

    /// Takes an entry out of use until somebody has compared its bytes; drops it if there are none to compare.
    pub(crate) fn shelve(&self, entry: &Arc<Entry>) {
        if !entry.can_be_compared() {
            return self.drop_entry(entry);
        }
        entry.shelved.store(true, Ordering::Release);
        self.take_out_of_use(entry);
    }

    /// Puts a shelved entry to use again.
    pub(crate) fn unshelve(&self, entry: &Entry) {
        let jit = self.jit.as_ref();
        if let (Some(jit), Some(emitted)) = (jit, &*entry.emitted.load()) {
            jit.cache.restore(emitted);
            entry.tier0.store(emitted.code.0, Ordering::Release);
        }
        if let (Some(jit), Some(compiled)) = (jit, &*entry.translation.load()) {
            jit.cache.restore(compiled);
            entry.code.store(compiled.code.0, Ordering::Release);
        }
        entry.shelved.store(false, Ordering::Release);
    }

    /// Whether code from `pc` on is made for a page that the guest may write to: with exact registers.
    pub(crate) fn is_of_writable_page(&self, pc: GuestAddr) -> bool {
        let shard = lock(self.shard(pc));
        shard.get(&pc.0).is_some_and(|entry| entry.origin().kind() == CodePage::Writable)
    }

    /// Forgets all entries.
    pub(crate) fn drop_entries(&self) {
        for shard in &self.shards {
            let entries: Vec<_> = lock(shard).values().cloned().collect();
            entries.iter().for_each(|entry| self.drop_entry(entry));
        }
    }

    /// Forgets an entry whose bytes have changed.
    pub(crate) fn drop_entry(&self, entry: &Arc<Entry>) {
        if !entry.dropped.swap(true, Ordering::AcqRel) {
            let mut shard = lock(self.shard(entry.pc));
            if shard.get(&entry.pc.0).is_some_and(|known| Arc::ptr_eq(known, entry)) {
                shard.remove(&entry.pc.0);
            }
            drop(shard);
            self.take_out_of_use(entry);
            entry.translation.store(None);
        }
    }

    /// Forgets an entry of which `changes` more were found; the one that takes its place knows of all of them.
    pub(crate) fn replace_entry(&self, entry: &Arc<Entry>, changes: u8) {
        self.drop_entry(entry);
        let changes = entry.changes.load(Ordering::Relaxed).saturating_add(changes);
        self.entry(entry.pc).changes.fetch_max(changes, Ordering::Relaxed);
    }

    /// The host has refused the access of the instruction at `pc` in `translation` for its alignment, and it was carried out by itself. Where
    /// that repeats, the translation goes, for one that minds no alignment there.
    #[cold]
    pub(crate) fn count_unaligned(&self, stats: &Stats, translation: &Translation, pc: GuestAddr) {
        stats::add(&stats.unaligned, 1);
        if !self.unaligned.count(pc) {
            return;
        }
        let entry = lock(self.shard(translation.pc)).get(&translation.pc.0).cloned();
        let is_of = |entry: &Arc<Entry>| {
            let code = [&entry.code, &entry.tier0].map(|code| code.load(Ordering::Acquire));
            code.contains(&translation.code.0)
        };
        if let Some(entry) = entry.filter(is_of) {
            self.drop_entry(&entry);
            self.advance_epoch();
        }
    }

    /// Has places known to be unaligned in a region translated for that.
    pub(crate) fn mark_unaligned(&self, region: &mut Region) {
        self.unaligned.mark(region);
    }

    /// Lets nobody arrive at code of this entry any more.
    fn take_out_of_use(&self, entry: &Entry) {
        entry.code.store(0, Ordering::Release);
        entry.tier0.store(0, Ordering::Release);
        let Some(jit) = &self.jit else { return };
        let (compiled, emitted) = (entry.translation.load(), entry.emitted.load());
        compiled.iter().chain(&*emitted).for_each(|translation| jit.cache.remove(translation));
        if self.emits {
            self.world.forget_jump(entry.pc);
        }
    }

    /// Drops what has become stale.
    pub(crate) fn drain_stale(&self, map: &GuestMap, stats: &Stats) {
        if lock(&self.pages).drain_stale(map, self) {
            stats::add(&stats.invalidations, 1);
        }
    }

    /// From now on registers are exact wherever the guest may fault, with `floats` also where floating-point operations trap, which they
    /// do in the interpreter only: drops translations that were made without. Emitted code always has them exact but for dead
    /// flags, which cost it a third of its speed: those wait for [`Code::require_exact_flags`].
    pub(crate) fn require_precise(&self, floats: bool) {
        let more_floats = floats && !self.precise_floats.swap(true, Ordering::AcqRel);
        let exact = if self.emits { &self.resumable } else { &self.precise };
        if !exact.swap(true, Ordering::AcqRel) || more_floats {
            self.drop_all();
        }
    }

    /// A handler sees a fault, and may do so again: from now on all flags are exact, too.
    pub(crate) fn require_exact_flags(&self) {
        let waited = self.resumable.load(Ordering::Acquire);
        if waited && !self.precise.swap(true, Ordering::AcqRel) {
            self.drop_all();
        }
    }

    /// Whether emitted code is not to be replaced by a region, which has to keep registers `exact` or not: it would store each before the next
    /// access. None must be where a handler may see faults: emitted code alone has registers exact without being told.
    fn stays_emitted(&self, exact: bool) -> bool {
        self.emits && (exact || self.resumable.load(Ordering::Acquire))
    }

    /// From now on code that computes with floats leaves that to the interpreter while generated code cannot do what the control words say;
    /// whether it was such already.
    pub(crate) fn require_guarded_floats(&self) -> bool {
        let required = !self.compiles() || self.guarded_floats.load(Ordering::Acquire);
        if !required {
            // Whoever sees it set finds no old code, and what is being made without is not admitted.
            let mut pages = lock(&self.pages);
            pages.drain_all(self);
            self.guarded_floats.store(true, Ordering::Release);
            // What somebody has found out since, of the epoch that the invalidation began, was found without (`saved::Now`).
            self.advance_epoch();
        }
        required
    }

    /// From now on code is such that denormals may be flushed as operands; whether it was already.
    pub(crate) fn require_flushing(&self) -> bool {
        let foreign = self.jit.as_ref().is_some_and(|jit| jit.host.arch != Arch::X86_64);
        let required = !foreign || self.flushing.swap(true, Ordering::AcqRel);
        if !required {
            self.drop_all();
        }
        required
    }

    /// From now on memory accesses keep the order that x86-64 promises between threads.
    #[inline]
    pub(crate) fn require_order(&self) {
        let weak = self.jit.as_ref().is_some_and(|jit| jit.host.arch != Arch::X86_64);
        if weak && !self.ordered.swap(true, Ordering::AcqRel) {
            self.drop_all();
        }
    }

    /// Whether accesses must keep the guest's order between threads.
    #[inline]
    pub(crate) fn is_ordered(&self) -> bool {
        self.ordered.load(Ordering::Relaxed)
    }

    /// The order that the accesses of generated code keep.
    pub(crate) fn memory_order(&self) -> MemoryOrder {
        if self.is_ordered() { MemoryOrder::Tso } else { MemoryOrder::Plain }
    }

    /// Tells Linux's `perf` of a translation, if that was asked for.
    pub(crate) fn tell_perf(&self, translation: &Translation) {
        if let Some(perf) = &self.perf {
            let (start, len) = translation.host_range();
            perf.published(translation.pc, start.0 as u64, len);
        }
    }

    /// From now on only the interpreter runs: for the reference in a comparison.
    pub(crate) fn only_interpret(&self) {
        self.interpret.store(true, Ordering::Relaxed);
        self.drop_all();
    }

    /// Whether there is something at `entry` to run: if `compiled` code may, no block of the interpreter's that is to be emitted.
    #[inline]
    pub(crate) fn can_run(&self, entry: &Entry, compiled: bool) -> bool {
        compiled && entry.runnable().is_some()
            || entry.cold().is_some() && (!compiled || !self.emits || entry.is_hopeless())
    }

    /// Whether the interpreter runs everything.
    pub(crate) fn interprets(&self) -> bool {
        !self.compiles() && self.running_units().is_none()
    }

    /// Units, if they run.
    pub(crate) fn running_units(&self) -> Option<&Units> {
        self.units.as_ref().filter(|_| !self.interpret.load(Ordering::Relaxed))
    }

    /// Whether compiled code may run.
    pub(crate) fn compiles(&self) -> bool {
        self.jit.is_some() && !self.interpret.load(Ordering::Relaxed)
    }

    fn drop_all(&self) {
        lock(&self.pages).drain_all(self);
    }

    /// Whether blocks are counted from now on (`lockstep::Meter`).
    pub(crate) fn count_blocks(&self, on: bool) {
        self.counting.store(on, Ordering::Relaxed);
        self.drop_all();
    }

    /// What besides the interrupt word makes compiled code leave.
    pub(crate) fn budget(&self) -> Budget {
        if self.counting.load(Ordering::Relaxed) { Budget::Instructions } else { Budget::None }
    }

    /// Whether all code keeps registers and flags exact wherever it may fault.
    pub(crate) fn is_precise(&self) -> bool {
        self.precise.load(Ordering::Acquire)
    }

    /// How to lift now.
    pub(crate) fn lift_options(&self) -> LiftOptions {
        let (default, precise) = (LiftOptions::default(), self.is_precise());
        // Beside units, the interpreter runs single instructions.
        let block_insns = if self.running_units().is_some() { 1 } else { default.block_insns };
        // Exceptions come in the interpreter, in front of which guarded code has left.
        let guarded_floats = self.guarded_floats.load(Ordering::Acquire);
        LiftOptions {
            precise,
            precise_everywhere: precise,
            precise_floats: guarded_floats && self.precise_floats.load(Ordering::Acquire),
            guarded_floats,
            resumable: self.resumable.load(Ordering::Acquire),
            flushing: self.flushing.load(Ordering::Acquire),
            profile: self.profile.is_some(),
            count: self.counting.load(Ordering::Relaxed),
            block_insns,
            xcr0: self.xcr0,
            // Nothing has run before: it would take in whatever may ever be called.
            into_calls: self.engine != Engine::Jit,
            ..default
        }
    }

    /// Lifts the interpreter's block of `entry`; false if the entry was dropped meanwhile.
    pub(crate) fn lift_cold(&self, entry: &Arc<Entry>, map: &GuestMap, stats: &Stats) -> bool {
        loop {
            let before = lock(&self.pages).invalidations;
            let code = GuestCode::profiled(map, self.profile.as_ref()).of(entry);
            let precise_floats = self.precise_floats.load(Ordering::Acquire);
            let mut lifted = Lifted::default();
            code.lift_block(&mut lifted, entry.pc, &LiftOptions { precise_floats, ..self.lift_options() });
            let mut region = lifted.take();
            if let Some(profile) = &self.profile {
                profile.assign(&mut region);
            }
            let origin = code.origin(&region);
            let checked = origin.kind() == CodePage::Checked;
            // Another thread may have been faster: then its block is the same.
            let publish = || drop(entry.cold.set(ColdBlock::new(region.clone())));
            if self.admit(map, entry, &region.source, origin, before, publish) {
                stats::add(&stats.cold_blocks, 1);
                stats::add(&stats.cold_insns, u64::from(region.guest_insns));
                stats::add(&stats.checked_blocks, u64::from(checked));
                return true;
            }
            if !entry.is_usable() {
                return false;
            }
        }
    }
}

impl Code {
    /// Number of invalidations so far.
    pub(crate) fn invalidations(&self) -> u64 {
        lock(&self.pages).invalidations
    }

    /// Has the region at a hot entry compiled, now or soon.
    #[cold]
    pub(crate) fn request(&self, process: &'static Process, entry: &Arc<Entry>) {
        let Some(jit) = &self.jit else { return };
        if self.interpret.load(Ordering::Relaxed) || entry.request.swap(REQUESTED, Ordering::AcqRel) != IDLE {
            return;
        }
        if self.compiles_here(jit) {
            jit.queue.compile_now(process, jit, entry);
        } else {
            jit.queue.push(process, Arc::clone(entry));
        }
    }

    /// Whether guest threads compile themselves.
    fn compiles_here(&self, jit: &Jit) -> bool {
        jit.synchronous || one_core() || self.engine == Engine::Jit
    }

    /// A process that may stay for long is about to run in this memory: it has its code compiled by the compile thread of this one.
    pub(crate) fn before_lodger(&self, process: &'static Process) {
        if let Some(jit) = self.jit.as_ref().filter(|jit| !self.compiles_here(jit)) {
            jit.queue.start(process);
        }
    }

    /// A count of arrivals at which something is to be done for an entry that still has no compiled code.
    #[inline]
    pub(crate) fn calls_for_action(&self, heat: u32) -> bool {
        self.engine == Engine::Tiered && (heat == self.hot || heat == self.hot.saturating_mul(OVERDUE))
    }

    /// A countdown has ended where emitted code goes on at `entry`, and stands for so many arrivals there. If that makes it hot, its region is emitted
    /// in place of its block, or put on `trial` first if it may be worth compiling; or its page is protected, if the code is checked. If that ends a
    /// trial well, the region is compiled. The period of the next countdown.
    #[cold]
    pub(crate) fn sampled(
        &self,
        process: &'static Process,
        entry: &Arc<Entry>,
        arrivals: u32,
        trial: &mut Option<Trial>,
        maker: &mut ColdMaker,
    ) -> u32 {
        match trial.take().map(|trial| trial.arrived(entry.pc)) {
            Some(ControlFlow::Continue(open)) => {
                *trial = Some(open);
                return trial::PERIOD;
            }
            Some(ControlFlow::Break(ended)) => {
                let code = GuestCode::new(&process.mem);
                match ended.stayed(|pc| code.lift_region(pc, self, &self.lift_options()).0) {
                    true => self.request(process, ended.entry()),
                    false => ended.entry().fail_trial(),
                }
                return cold::period(self.hot);
            }
            None => {}
        }
        let counts = entry.request.load(Ordering::Relaxed) == IDLE;
        let failed = entry.failed_trials();
        if !counts || !entry.warm_by(arrivals, trial::threshold(cold::threshold(self.hot), failed)) {
            return cold::next_period(self.hot, arrivals, counts && failed == 0);
        }
        let stays = match entry.origin().kind() {
            // A region of it would be this block, and compare as much.
            CodePage::Checked => match process.mem.trust(entry.pc) {
                Trust::Given => return cold::period(self.hot),
                Trust::NotYet => {
                    entry.cool();
                    return cold::period(self.hot);
                }
                Trust::Never => true,
            },
            kind => {
                let compiles = self.engine == Engine::Auto && !self.stays_emitted(kind == CodePage::Writable);
                // A loop that is better compiled is not to be found in the regions around it: they wait for its trial.
                let waits = compiles && failed == 0;
                let is_candidate = failed > 1 || self.emit_region(process, maker, entry, waits);
                !compiles || !is_candidate
            }
        };
        if stays {
            entry.request.store(HOPELESS, Ordering::Release);
            return cold::period(self.hot);
        }
        *trial = Some(Trial::new(entry));
        trial::PERIOD
    }

    /// What is to be done: at first the compile thread gets to know; an entry that has waited there for too long is compiled
    /// here and now.
    #[cold]
    pub(crate) fn act(&self, process: &'static Process, entry: &Arc<Entry>) {
        self.request(process, entry);
        if let Some(jit) = &self.jit
            && entry.heat() > self.hot
            && jit.queue.take(entry)
        {
            jit.queue.compile_now(process, jit, entry);
        }
    }

    /// Compiles the region at `entry` and publishes it, unless the guest changes the code meanwhile.
    pub(crate) fn compile(&self, process: &Process, jit: &Jit, compiler: &mut Compiler, entry: &Arc<Entry>) {
        let start = Instant::now();
        let before = lock(&self.pages).invalidations;
        if !entry.is_usable() {
            return entry.put_off();
        }
        let (map, options) = (&process.mem, self.lift_options());
        let executed: &dyn lift::Profile = if self.engine == Engine::Jit { &EveryBlock } else { self };
        let code = GuestCode::profiled(map, self.profile.as_ref()).of(entry);
        let (mut region, precise) = code.lift_region(entry.pc, executed, &options);
        if self.stays_emitted(precise) {
            return entry.request.store(HOPELESS, Ordering::Release);
        }
        let origin = code.origin(&region);
        self.mark_unaligned(&mut region);
        if let Some(profile) = &self.profile {
            profile.assign(&mut region);
        }
        let lifted = process.options.emit.is_some().then(|| region.clone());
        let (exact, state_at_faults) = match precise {
            false if self.budget() != Budget::None => (pass::Precise::Edges, StateAtFaults::PcOnly),
            false => (pass::Precise::No, StateAtFaults::PcOnly),
            true => (pass::Precise::Yes, StateAtFaults::Precise),
        };
        pass::optimize_with(&mut region, &pass::Options { precise: exact, ..pass::Options::default() });
        let compile_options =
            CompileOptions { memory_order: self.memory_order(), state_at_faults, budget: self.budget(), first_cell: 0 };
        if let (Some(emit), Some(lifted)) = (&process.options.emit, lifted) {
            emit.region(map, &lifted, &region, compiler, &compile_options);
        }
        let compiling = jit.compiling.enter();
        match jit.cache.translate(compiler, &region, &compile_options) {
            Ok(translation) => {
                stats::add(&process.stats.regions, 1);
                stats::add(&process.stats.region_insns, u64::from(region.guest_insns));
                stats::add(&process.stats.checked_blocks, u64::from(origin.kind() == CodePage::Checked));
                if let Some(profile) = &self.profile {
                    profile.compiled(translation.code.0, &region);
                }
                self.tell_perf(&translation);
                self.publish(map, jit, entry, translation, origin, before);
                self.cool(&region);
            }
            Err(CacheError::Full) => {
                entry.put_off();
                jit.full.store(true, Ordering::Release);
                self.world.interrupt_all(CODE_CHANGED);
            }
            Err(error) => {
                stats::add(&process.stats.compile_failures, 1);
                entry.request.store(HOPELESS, Ordering::Release);
                if process.options.stats {
                    eprintln!("calque: {error}");
                }
            }
        }
        drop(compiling);
        stats::add(&process.stats.compile_ns, start.elapsed().as_nanos() as u64);
    }

    /// What was warm because of arrivals at the places in a region gets there within the region from now on: they count again from the
    /// start.
    pub(crate) fn cool(&self, region: &Region) {
        for block in &region.blocks[1..] {
            let inside = lock(self.shard(block.pc)).get(&block.pc.0).cloned();
            inside.inspect(|entry| entry.cool());
        }
    }

    fn publish(
        &self,
        map: &GuestMap,
        jit: &Jit,
        entry: &Arc<Entry>,
        translation: Arc<Translation>,
        origin: Origin,
        before: u64,
    ) {
        let publish = || {
            if let Some(emitted) = &*entry.emitted.load() {
                jit.cache.redirect(emitted, &translation);
            }
            entry.translation.store(Some(Arc::clone(&translation)));
            entry.code.store(translation.code.0, Ordering::Release);
        };
        if !self.admit(map, entry, &translation.source, origin, before, publish) {
            jit.cache.remove(&translation);
            entry.put_off();
        } else if entry.emitted.load().is_some() {
            // Computed jumps would go on to what was emitted, from regions through a change of all registers each time.
            self.world.forget_jump(entry.pc);
        }
    }

    /// Waits until no compilation is under way, of those that are now.
    pub(crate) fn await_compilations(&self) {
        if let Some(jit) = &self.jit {
            self.world.stopped(CODE_CHANGED, SHORT_STOP, || jit.compiling.shut(|| ()));
        }
    }

    /// Empties a full cache. Called at safepoints, outside generated code.
    #[inline]
    pub(crate) fn make_room(&self) {
        if let Some(units) = &self.units {
            units.make_room(self);
        }
        if let Some(jit) = &self.jit
            && jit.full.load(Ordering::Acquire)
        {
            self.reset(jit);
        }
    }

    #[cold]
    fn reset(&self, jit: &Jit) {
        if !jit.full.swap(false, Ordering::AcqRel) {
            return;
        }
        let done = self.world.stopped(CODE_CHANGED, SHORT_STOP, || {
            jit.compiling.shut(|| {
                self.drop_all();
                jit.cache.reset();
            });
        });
        if !done {
            jit.full.store(true, Ordering::Release);
        }
    }
}

/// Multiple of the threshold at which an entry has waited for the compile thread too long.
const OVERDUE: u32 = 8;

/// A block that has run less than once for so many arrivals at a region's head is left out of it: compiling it costs more
/// than leaving the region for it.
const RARE: u32 = 16;

impl lift::Profile for Code {
    fn executed(&self, pc: GuestAddr) -> bool {
        let enough = self.hot / RARE;
        // Of emitted code it is only known that it has run.
        let runs = |entry: &Arc<Entry>| {
            entry.emitted.load().is_some() || entry.cold().is_some() && entry.runs.load(Ordering::Relaxed) >= enough
        };
        // A checked block is a translation of its own.
        let joins = |entry: &Arc<Entry>| runs(entry) && !entry.is_checked();
        lock(self.shard(pc)).get(&pc.0).is_some_and(joins)
    }

    fn likely_targets(&self, jump: GuestAddr) -> Vec<GuestAddr> {
        self.jumps.likely(jump)
    }

    fn all_targets(&self, jump: GuestAddr) -> Vec<GuestAddr> {
        self.jumps.all(jump)
    }
}
