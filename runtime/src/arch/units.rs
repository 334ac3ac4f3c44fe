//! Identical translation in the runtime: the tier that x86-64 hosts run guest code on (`backend::identical`).
//!
//! Units take the place of interpreter and compiled regions. What a unit leaves to the interpreter (`Found::Odd`) it runs one
//! instruction at a time. Translations become stale as everywhere (`smc.rs`), but no thread needs to be told: a removed unit has no way in.
//!
//! # Safety
//! Enters units under the invariants of `identical::enter`: `run_units` has installed its thread's area, and code memory is only reset
//! while no member of the world is inside. `interrupt` is called by signal handlers and follows their rules.

#![allow(unsafe_code)]

use super::FaultOf;
use crate::access;
use crate::cpuid::CLOCK_LEAF;
use crate::crash;
use crate::dispatch::{Event, interpret_recorded};
use crate::fault;
use crate::lockstep;
use crate::memory::{CodePage, GuestMap, LOW_START, VDSO_BASE};
use crate::options::RunOptions;
use crate::profile::{Counters, Place, Profile, Registers};
use crate::smc::GuestCode;
use crate::stats;
use crate::thread::{GuestFault, Thread};
use crate::tier::Code;
use crate::world::{Member, SHORT_STOP};
use calque_backend::CacheError;
use calque_backend::identical::{
    self, Area, Back, Blocks, Cause, Clocks, Exit, Found, MOST_COUNTERS, Made, Profiler, Redirect, Source, Standing,
    Sum, TransferKind, TranslateError,
};
pub(crate) use calque_backend::identical::{Counted, Transfer};
use calque_frontend::decode::{CodeReader, Decoded, Window};
use calque_frontend::lift::MOST_CHECKED;
use calque_ir::addr::GUEST_PAGE;
use calque_ir::state::{XCR0_AVX2, XCR0_AVX512};
use calque_ir::{CpuState, FaultKind, GuestAddr, GuestRange, Helper, Op};
use iced_x86::{Decoder, DecoderOptions, Mnemonic};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

/// As much of `buf` as code at `pc` fills without waiting for a guest that serves its own faults.
fn at_hand<'b>(map: &GuestMap, pc: u64, buf: &'b mut [u8]) -> &'b mut [u8] {
    let left = (GUEST_PAGE - pc % GUEST_PAGE) as usize;
    let len = match buf.len() {
        _ if !map.is_at_hand(GuestAddr(pc)) => 0,
        len if left < len && !map.is_at_hand(GuestAddr(pc).wrapping_add(left as u64)) => left,
        len => len,
    };
    &mut buf[..len]
}

/// Units that nobody else can look up, make or drop for the moment.
pub(crate) type FrozenUnits<'a> = identical::Frozen<'a>;

/// The units of a process.
pub(crate) struct Units {
    blocks: Blocks,
    xcr0: u64,
    /// Code memory is used up: the next safepoint resets it.
    full: AtomicBool,
}

/// What a thread needs to run units.
#[derive(Default)]
pub(crate) struct UnitThread {
    area: Option<Area>,
    /// Resets of code memory that the area has seen.
    generation: u64,
    /// What the interpreter counts for units.
    counted: Option<Counted>,
}

/// How the thread came to RIP.
#[derive(Clone, Copy)]
enum Came {
    FromElsewhere,
    /// To RIP through this exit, which was not joined, of the code memory that the area belongs to.
    ByExit(u32),
    ByComputedJump,
}

impl Units {
    /// Whether this host runs units.
    pub(crate) fn is_supported() -> bool {
        identical::is_supported()
    }

    /// No units yet.
    pub(crate) fn new(options: &RunOptions) -> Result<Units, CacheError> {
        let narrow = options.profile.as_ref().is_some_and(|profile| profile.registers == Registers::WithoutAvx512);
        let sum = if narrow { Sum::InMemory } else { Sum::of_host() };
        let blocks = Blocks::new(options.cache_budget, sum)?;
        // Profiles count in registers of AVX-512, and comparisons do not know them.
        let announces = identical::has_avx512() && options.profile.is_none() && !lockstep::is_compared();
        if announces {
            blocks.await_avx512();
        }
        let xcr0 = if announces { XCR0_AVX512 } else { XCR0_AVX2 };
        blocks.read(Clocks { code: VDSO_BASE..LOW_START, leaf: CLOCK_LEAF });
        Ok(Units { blocks, xcr0, full: AtomicBool::new(false) })
    }

    /// State components that CPUID announces.
    pub(crate) fn xcr0(&self) -> u64 {
        self.xcr0
    }

    /// From now on clocks and random numbers are read through `gate.rs` only: before the guest runs.
    pub(crate) fn gate(&self) {
        self.blocks.gate();
    }

    /// From now on units count these instructions.
    pub(crate) fn count(&self, what: Counted) {
        self.blocks.count(what);
    }

    /// What units count.
    pub(crate) fn counted(&self) -> Counted {
        self.blocks.counted()
    }

    /// Keeps other threads from changing anything until the guard is dropped: for `fork`.
    pub(crate) fn freeze(&self) -> FrozenUnits<'_> {
        self.blocks.freeze()
    }

    pub(crate) fn after_fork_in_child(&self) -> Result<(), CacheError> {
        self.blocks.after_fork_in_child()
    }

    /// Takes units made from this range out of use.
    pub(crate) fn remove(&self, range: GuestRange) {
        self.blocks.remove(range.start.0, range.end.0);
    }

    /// Empties full code memory. Called at safepoints, outside units.
    #[inline]
    pub(crate) fn make_room(&self, code: &Code) {
        if self.full.load(Ordering::Acquire) {
            // If somebody does not leave, the next safepoint tries again.
            code.world.stopped(crate::dispatch::CODE_CHANGED, SHORT_STOP, || {
                if self.full.swap(false, Ordering::AcqRel) {
                    self.blocks.reset();
                }
            });
        }
    }

    /// Keeps the state of AVX-512 from now on, of which the guest has come to the first instruction. Called outside units.
    #[cold]
    fn copy_avx512(&self, code: &Code) {
        // If somebody does not leave, the calling thread comes here again.
        code.world.stopped(crate::dispatch::CODE_CHANGED, SHORT_STOP, || self.blocks.copy_avx512());
    }

    /// Bytes of code, and of tables about it.
    pub(crate) fn sizes(&self) -> [u64; 2] {
        self.blocks.sizes()
    }

    /// In a signal handler: makes the thread, interrupted at `context`, leave the unit it is in, if it is in one.
    pub(crate) fn interrupt(&self, context: &mut libc::ucontext_t) {
        redirect(context, identical::leave_at(&self.blocks, super::context_pc(context), Cause::Signal));
    }

    /// As `interrupt`, at a host instruction that cannot run.
    pub(crate) fn fault(&self, context: &mut libc::ucontext_t) -> FaultOf {
        let change = identical::leave_at(&self.blocks, super::context_pc(context), Cause::Fault);
        redirect(context, change);
        match change {
            Redirect::None => FaultOf::NoUnit,
            Redirect::Step | Redirect::To { at: Standing::Behind | Standing::Fetching, .. } => FaultOf::Sequence,
            Redirect::To { at: Standing::Before, .. } => FaultOf::Guest,
        }
    }

    /// In a signal handler: lets the instruction at which the thread was interrupted inside a unit run, and has the thread leave behind it.
    pub(crate) fn leave_behind(&self, context: &mut libc::ucontext_t) {
        let registers = &mut context.uc_mcontext.gregs;
        if self.blocks.contains(registers[libc::REG_RIP as usize] as u64) {
            registers[libc::REG_EFL as usize] |= TRAP_FLAG;
        }
    }
}

/// Changes the context of an interrupted thread.
fn redirect(context: &mut libc::ucontext_t, change: Redirect) {
    let registers = &mut context.uc_mcontext.gregs;
    registers[libc::REG_EFL as usize] &= !TRAP_FLAG;
    match change {
        Redirect::None => {}
        Redirect::Step => registers[libc::REG_EFL as usize] |= TRAP_FLAG,
        Redirect::To { pc, sp, back, .. } => {
            registers[libc::REG_RIP as usize] = pc as i64;
            if let Some(sp) = sp {
                registers[libc::REG_RSP as usize] = sp as i64;
            }
            match back {
                Back::Nothing => {}
                Back::Value(reg, value) => registers[GREGS[usize::from(reg)] as usize] = value as i64,
                Back::Rcx => registers[libc::REG_RCX as usize] = registers[libc::REG_R11 as usize],
            }
        }
    }
}

/// Checks of a thread after which the page of the last one is protected again: they take about as long as the fault and the translations that one
/// write costs. So neither pages that are written often nor such as are run often cost more than twice what they must.
const TRUSTED_AFTER: u64 = 4096;

/// TF (SDM vol. 1 3.4.3.3): a trap behind the next instruction.
const TRAP_FLAG: i64 = 1 << 8;

/// Places in `gregs` of the general registers, by number.
const GREGS: [i32; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

/// The address to give to the kernel as a signal's handler, in place of `handler`.
pub(crate) fn signal_entry(handler: usize) -> usize {
    if Units::is_supported() { identical::signal_entry(handler) } else { handler }
}

/// Whether SHA instructions run as they are on this host, by default.
pub(crate) fn copies_sha() -> bool {
    Units::is_supported() && std::arch::is_x86_feature_detected!("sha")
}

/// Whether this host has a feature of AVX-512, by its name in /proc/cpuinfo.
pub(crate) fn copies_avx512(name: &str) -> bool {
    macro_rules! detect {
        ($($name:literal $feature:tt)*) => { match name { $( $name => std::arch::is_x86_feature_detected!($feature), )* _ => false } };
    }
    detect!("avx512f" "avx512f" "avx512dq" "avx512dq" "avx512ifma" "avx512ifma" "avx512cd" "avx512cd" "avx512bw" "avx512bw"
        "avx512vl" "avx512vl" "avx512vbmi" "avx512vbmi" "avx512_vbmi2" "avx512vbmi2" "avx512_vnni" "avx512vnni"
        "avx512_bitalg" "avx512bitalg" "avx512_vpopcntdq" "avx512vpopcntdq" "avx512_vp2intersect" "avx512vp2intersect"
        "avx512_fp16" "avx512fp16" "avx512_bf16" "avx512bf16")
}

/// What a profile knows of the code that units are made from.
struct Parts<'a> {
    profile: &'a Profile,
    code: &'a GuestCode<'a>,
    /// The page of the last part, and what is mapped there.
    last: Option<(GuestAddr, Place)>,
}

impl Profiler for Parts<'_> {
    fn counter(&mut self, pc: u64, lengths: &[u8]) -> u32 {
        let page = GuestAddr(pc).page();
        let place = match self.last {
            Some((known, place)) if known == page => place,
            _ => self.profile.place(GuestAddr(pc)),
        };
        self.last = Some((page, place));
        self.profile.counter_of_part(GuestAddr(pc), lengths, place)
    }

    fn transfer(&mut self, kind: TransferKind, site: u64, target: Option<u64>, counter: u32) -> u32 {
        let event = match kind {
            TransferKind::Call => Helper::ProfileCall,
            TransferKind::Return => Helper::ProfileReturn,
            TransferKind::Jump => Helper::ProfileJump,
        };
        self.profile.transfer(event, site, target, counter)
    }

    fn extent(&mut self, pc: u64) -> (u64, u64, bool) {
        self.profile.extent(GuestAddr(pc))
    }

    fn leaves(&mut self, from: u64, to: u64) -> bool {
        self.code.leaves_function(GuestAddr(from), GuestAddr(to))
    }
}

impl UnitThread {
    /// Makes ready to run units on the calling thread, with the guest's registers in `cpu`.
    pub(crate) fn prepare(&mut self, units: &Units, cpu: &mut CpuState) -> io::Result<()> {
        if self.area.is_none() {
            self.area = Some(units.blocks.area()?);
            self.start_checks();
        }
        if let Some(area) = &self.area {
            area.install(cpu);
        }
        Ok(())
    }

    /// Room for the counters of a profile.
    pub(crate) fn counters(&self) -> Option<*mut u64> {
        const _: () = assert!(Counters::MOST as usize == MOST_COUNTERS);
        self.area.as_ref().map(Area::counters)
    }

    /// See [`Blocks::no_point`].
    pub(crate) fn no_point(&self, code: &Code) -> u64 {
        code.units.as_ref().map_or(0, |units| units.blocks.no_point())
    }

    /// What is counted of the instructions that the interpreter runs in between.
    pub(crate) fn counts(&mut self, what: Counted) {
        self.counted = (what != Counted::Nothing).then_some(what);
    }

    /// Sets all counts to zero.
    pub(crate) fn clear_counts(&mut self, code: &Code) {
        if let (Some(area), Some(units)) = (&mut self.area, &code.units) {
            area.clear_counts(units.blocks.counters());
        }
    }

    /// Lets the thread make [`TRUSTED_AFTER`] checks.
    fn start_checks(&mut self) {
        self.area.iter_mut().for_each(|area| area.set_checks(TRUSTED_AFTER));
    }

    /// See [`Area::set_budget`].
    pub(crate) fn set_budget(&mut self, budget: u64) {
        self.area.iter_mut().for_each(|area| area.set_budget(budget));
    }

    /// See [`Area::budget`].
    pub(crate) fn budget(&self) -> u64 {
        self.area.as_ref().map_or(0, Area::budget)
    }

    /// How often the instruction at `pc` has run since the counts were zero; `None` if it is not counted.
    pub(crate) fn executed(&self, code: &Code, pc: u64) -> Option<u64> {
        let (area, units) = (self.area.as_ref()?, code.units.as_ref()?);
        let number = units.blocks.counter(pc);
        (self.is_counted(GuestAddr(pc)) && number != 0).then(|| area.count(number))
    }

    /// Whether the instruction at `pc` is one that is counted.
    fn is_counted(&self, pc: GuestAddr) -> bool {
        match self.counted {
            Some(Counted::Branches) => is_branch(pc),
            counted => counted == Some(Counted::Instructions),
        }
    }

    /// Counts the instruction at `pc`, which the interpreter has run.
    fn count(&mut self, units: &Units, pc: GuestAddr) {
        if self.is_counted(pc)
            && let Some(area) = &mut self.area
        {
            area.add_count(units.blocks.counter(pc.0));
        }
    }
}

/// Whether the instruction at `pc` is a jump, a call or a return.
fn is_branch(pc: GuestAddr) -> bool {
    use iced_x86::FlowControl::{Call, ConditionalBranch, IndirectBranch, IndirectCall, Return, UnconditionalBranch};
    let (what, insn) = Window::<32>::new().one(&crash::Memory, pc);
    let transfers = matches!(
        insn.flow_control(),
        Call | ConditionalBranch | IndirectBranch | IndirectCall | Return | UnconditionalBranch
    );
    what == Decoded::Insn && transfers && !matches!(insn.mnemonic(), Mnemonic::Syscall | Mnemonic::Sysenter)
}

impl Thread {
    /// Runs code from RIP on until something asks for the dispatcher. The thread's area is installed.
    pub(crate) fn run_units(&mut self, units: &Units, member: &Member) -> Event {
        let mut came = Came::FromElsewhere;
        loop {
            let event = match came {
                Came::FromElsewhere if self.has_way() => self.enter_unit(units, member, None, &mut came),
                Came::FromElsewhere | Came::ByComputedJump if self.exec.knows(self.cpu.rip) => {
                    came = Came::FromElsewhere;
                    self.interpret_odd(units, member)
                }
                _ => match self.find_unit(units, came) {
                    Ok(Found::Unit(code)) => self.enter_unit(units, member, Some(code), &mut came),
                    Ok(Found::Odd) => {
                        came = Came::FromElsewhere;
                        self.interpret_odd(units, member)
                    }
                    Err(event) => return event,
                },
            };
            if let Some(event) = event {
                return event;
            }
            if self.cpu.rt.interrupt.load(Ordering::Relaxed) != 0 || self.process.mem.any_stale() {
                return Event::Safepoint;
            }
        }
    }

    /// Whether computed jumps have a way that may lead to RIP: the one back from a system call.
    fn has_way(&self) -> bool {
        self.exec.units.area.as_ref().is_some_and(|area| area.has_landing(self.cpu.rip))
    }

    /// What there is at RIP, made if need be, and joined with where the thread came from.
    fn find_unit(&mut self, units: &Units, came: Came) -> Result<Found, Event> {
        let (pc, generation) = (self.cpu.rip, self.exec.units.generation);
        let find = || match came {
            Came::ByExit(exit) => units.blocks.follow(exit, pc, generation),
            _ => units.blocks.find(pc),
        };
        let mut found = find();
        if found.is_none() {
            found = Some(self.translate_unit(units)?);
            if let Came::ByExit(_) = came {
                find();
            }
        }
        if let (Some(Found::Unit(_)), Came::ByComputedJump | Came::FromElsewhere) = (found, came)
            && let (Some(landing), Some(area)) = (units.blocks.landing(self.cpu.rip), &mut self.exec.units.area)
        {
            area.set_landing(self.cpu.rip, landing);
        }
        Ok(found.expect("found or made"))
    }

    /// The host code of the unit at `pc`, an instruction a line.
    pub(crate) fn unit_listing(&mut self, pc: GuestAddr) -> Option<String> {
        let process = self.process;
        let units = process.code.running_units()?;
        let rip = std::mem::replace(&mut self.cpu.rip, pc.0);
        // What cannot be translated is the interpreter's, and has no host code.
        let _ = units.blocks.find(pc.0).map_or_else(|| self.translate_unit(units), Ok);
        self.cpu.rip = rip;
        let (start, len) = units.blocks.place(pc.0)?;
        // SAFETY: the code of a unit; memory is only reset by threads of this process, which has one.
        let code = unsafe { std::slice::from_raw_parts(start as *const u8, len) };
        let insns = Decoder::with_ip(64, code, start, DecoderOptions::NONE);
        Some(insns.into_iter().map(|insn| format!("{:#x}  {insn}\n", insn.ip())).collect())
    }

    /// Makes the unit at RIP.
    #[cold]
    fn translate_unit(&mut self, units: &Units) -> Result<Found, Event> {
        let (process, pc) = (self.process, GuestAddr(self.cpu.rip));
        if !process.mem.mark_code(pc) {
            return Err(Event::fetch_fault(process, pc));
        }
        let profile = process.code.profile.as_ref();
        let code = GuestCode::profiled(&process.mem, profile);
        let mut bytes = [0; MOST_CHECKED];
        let checked = (process.mem.code_page(pc) == Some(CodePage::Checked)).then(|| code.read_block(pc, &mut bytes));
        // The guest may have to fetch this page; of others, what is there is read below.
        let _ = access::read::<u8>(pc);
        let mut read = |pc: u64, buf: &mut [u8]| {
            let buf = at_hand(&process.mem, pc, buf);
            let len = code.read_unchecked(GuestAddr(pc), buf);
            lockstep::corrupt_bytes(pc, &mut buf[..len]);
            len
        };
        // I1: nothing is taken out of use while the pages are locked, and what changes after the look is found registered.
        let pages = process.code.lock_pages(&process.mem);
        let mut profiler = profile.map(|profile| Parts { profile, code: &code, last: None });
        let profiler = profiler.as_mut().map(|parts| -> &mut dyn Profiler { parts });
        let word = |at: u64| {
            let is_at_hand = at_hand(&process.mem, at, &mut [0; 8]).len() == 8;
            is_at_hand.then(|| access::read(GuestAddr(at)).ok()).flatten()
        };
        let noticed = Source::Noticed { code: &mut read, word: &word };
        let source = checked.map_or(noticed, |len| Source::Checked(&bytes[..len]));
        let made = units.blocks.translate(pc.0, profiler, source, &mut || !process.mem.any_stale());
        drop(pages);
        match made {
            Ok(Some(Made { found, insns, len })) => {
                if let (Some(perf), Found::Unit(start)) = (&process.code.perf, found) {
                    perf.published(pc, start, len);
                }
                stats::add(&process.stats.units, 1);
                stats::add(&process.stats.checked_units, u64::from(checked.is_some()));
                stats::add(&process.stats.unit_insns, u64::from(insns));
                Ok(found)
            }
            Ok(None) => Err(Event::Safepoint),
            Err(TranslateError::Full) => {
                units.full.store(true, Ordering::Release);
                Err(Event::Safepoint)
            }
            Err(TranslateError::Avx512) => {
                units.copy_avx512(&process.code);
                Err(Event::Safepoint)
            }
        }
    }

    /// Runs units from `code` on, or from where computed jumps to RIP go; `None` goes on at RIP.
    fn enter_unit(&mut self, units: &Units, member: &Member, code: Option<u64>, came: &mut Came) -> Option<Event> {
        *came = Came::FromElsewhere;
        let Thread { exec, cpu, process, recording, .. } = self;
        let UnitThread { area: Some(area), generation, .. } = &mut exec.units else { return Some(Event::Safepoint) };
        if !process.code.world.enter(member) {
            std::thread::yield_now();
            return Some(Event::Safepoint);
        }
        let now = units.blocks.generation();
        if *generation != now {
            // `code` may be older, too: look again.
            *generation = now;
            area.clear();
            if let Some(recording) = recording {
                // SAFETY: the thread counts as inside generated code; so below.
                unsafe { recording.forget_points() };
            }
            process.code.world.leave(member);
            return None;
        }
        stats::add(&process.stats.enters, 1);
        if units.blocks.keeps_avx512() {
            area.keep_avx512();
            cpu.avx512_in_use = true;
        }
        if let Some(recording) = recording {
            // SAFETY: as above.
            area.set_profile(cpu.rt.insns, unsafe { recording.before_units() });
        }
        // SAFETY: `run` has installed the area; the unit's memory stays while this member is inside.
        let exit = unsafe {
            match code {
                Some(code) => identical::enter(area, cpu, code),
                None => identical::resume(area, cpu),
            }
        };
        // A signal frame shows them, and in a moment their unit may be gone.
        if cpu.x87.pending() {
            area.take_pointers(&units.blocks, &mut cpu.x87);
        }
        let mut left = None;
        if let Some(recording) = recording {
            let (sum, frame) = area.profile();
            (cpu.rt.insns, left) = (sum, area.take_transfer());
            // SAFETY: as above.
            unsafe { recording.after_units(frame, sum, left, cpu.rip) };
            if let Some((counter, n)) = area.take_interrupted() {
                self.left_after(counter, n);
            }
        }
        let process = &self.process;
        if let Exit::Link(exit) = exit {
            // Outside, code memory may be reset, and its exits be others.
            self.cpu.rip = units.blocks.target(exit);
        }
        process.code.world.leave(member);
        match exit {
            Exit::Link(exit) => {
                stats::add(&process.stats.unlinked_exits, 1);
                *came = Came::ByExit(exit);
                None
            }
            Exit::Indirect => {
                stats::add(&process.stats.missed_jumps, 1);
                *came = Came::ByComputedJump;
                None
            }
            Exit::Syscall => Some(Event::Syscall),
            Exit::Odd => self.interpret_odd(units, member),
            // The recorder has been told; the guest goes on.
            Exit::Stop if left.is_some() => None,
            Exit::Stop => Some(Event::Safepoint),
            Exit::Changed => {
                stats::add(&process.stats.changed_units, 1);
                units.blocks.changed(self.cpu.rip);
                *came = Came::ByComputedJump;
                None
            }
            Exit::CheckedOften => {
                process.mem.trust(GuestAddr(self.cpu.rip));
                self.exec.units.start_checks();
                None
            }
            Exit::Interrupted => {
                let Some(pending) = fault::try_take_pending() else { return Some(Event::Safepoint) };
                let fault = crate::dispatch::host_fault(process, pending);
                if fault == GuestFault::Trap(FaultKind::DivideError) {
                    units.blocks.guard(self.cpu.rip);
                }
                Some(Event::Fault(fault))
            }
        }
    }

    /// Runs what units leave to the interpreter, and counts it where units count.
    fn interpret_odd(&mut self, units: &Units, member: &Member) -> Option<Event> {
        if let Some(area) = &mut self.exec.units.area {
            area.take_pointers(&units.blocks, &mut self.cpu.x87);
        }
        let Some(counted) = self.exec.units.counted else { return self.interpret_one() };
        let pc = GuestAddr(self.cpu.rip);
        let is_spent = self.exec.units.budget() == 0;
        if is_spent && self.exec.units.is_counted(pc) {
            return Some(Event::Safepoint);
        }
        let whole =
            counted == Counted::Branches && !is_spent && self.process.mem.code_page(pc) == Some(CodePage::Checked);
        let event = if whole {
            self.interpret_one()
        } else {
            Some(self.run_short(member, Some(1))).filter(|event| !matches!(event, Event::Safepoint))
        };
        if event.is_none() {
            let last = if whole { self.last_of_block(pc) } else { pc };
            self.exec.units.count(units, last);
        }
        event
    }

    /// The last instruction of the checked block at `pc`, which is the only one that can be a branch.
    fn last_of_block(&mut self, pc: GuestAddr) -> GuestAddr {
        let block = self.exec.known(pc.0).and_then(|(entry, _)| entry.cold());
        let mut marks = block.into_iter().flat_map(|block| &block.region.insts).filter(|inst| inst.op == Op::Insn);
        marks.next_back().map_or(pc, |inst| GuestAddr(inst.imm()))
    }

    /// Runs the instruction at RIP in the interpreter; of a page whose code is checked, a block.
    fn interpret_one(&mut self) -> Option<Event> {
        stats::add(&self.process.stats.odd_insns, 1);
        let pc = GuestAddr(self.cpu.rip);
        if !self.exec.knows(pc.0)
            && let Some(event) = self.lift_odd(pc)
        {
            return Some(event);
        }
        let Thread { exec, cpu, process, recording, .. } = self;
        let Some((entry, frame)) = exec.known(pc.0) else { return Some(Event::Safepoint) };
        let Some(block) = entry.cold() else { return Some(Event::Safepoint) };
        let recording = recording.as_ref();
        let (event, unreached) = interpret_recorded(cpu, process, recording, block, frame, &mut false);
        if unreached != 0 {
            self.left_early(unreached, GuestAddr(self.cpu.rip));
        }
        event
    }

    /// Makes what the interpreter runs at `pc`; an event if that cannot be now.
    #[cold]
    fn lift_odd(&mut self, pc: GuestAddr) -> Option<Event> {
        let process = &self.process;
        let entry = process.code.entry(pc);
        if !entry.is_usable() && !process.code.reclaim(&process.mem, &process.stats, &entry) {
            return Some(Event::Safepoint);
        }
        if entry.cold().is_none() && !process.code.lift_cold(&entry, &process.mem, &process.stats) {
            return Some(Event::Safepoint);
        }
        self.exec.remember(&entry);
        None
    }
}
