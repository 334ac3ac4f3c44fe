//! What units reach through the GS base: one thread's words, its return table, its table of landings, and its counters.
//!
//! # Safety
//! An area is a mapping of its own, zero at first, which lives as long as the [`Area`].
#![allow(unsafe_code)]

use super::emit::Sum;
use super::enter;
use crate::shadow::{Frame, slot_of};
use calque_ir::CpuState;
use calque_ir::state::X87;
use std::io;
use std::ptr::NonNull;

/// Landings of a thread, indexed by the low 16 bits of a guest pc.
pub(super) const LANDINGS: usize = 1 << 16;
/// Return points of a thread, indexed by the low 8 bits of a return address.
const RETURNS: usize = 1 << 8;

/// The words. All addresses are host addresses.
#[repr(C)]
pub(super) struct Words {
    /// FS base of Rust code on this thread.
    pub(super) host_fs: u64,
    /// The `CpuState` that registers are taken from and left in.
    pub(super) cpu: u64,
    /// Stack pointer of `enter`.
    pub(super) host_sp: u64,
    /// The guest's R11.
    pub(super) r11: u64,
    /// Where a rewritten sequence keeps the one register that it uses beside R11.
    pub(super) spill: u64,
    /// Target of a computed jump; where the guest goes on after most exits.
    pub(super) rip: u64,
    /// At a return, what belongs below the stack pointer behind it, where the host's return address is meanwhile.
    pub(super) below: u64,
    /// The guest's RFLAGS at the last exit.
    pub(super) rflags: u64,
    /// Status flags for `enter`: what SAHF loads in bits 8..16, OF in bit 0, DF in bit 32.
    pub(super) flags: u64,
    /// Where `enter` jumps to.
    pub(super) target: u64,
    /// For the assembly's own use.
    pub(super) scratch: [u64; 2],
    /// Why the last unit was left: a `Leave`.
    pub(super) reason: u32,
    /// The exit that was taken.
    pub(super) exit: u32,
    /// MXCSR of Rust code.
    pub(super) host_mxcsr: u32,
    /// Nonzero once x87 or MMX registers have been used: they stay in the host's registers then.
    pub(super) x87_used: u32,
    /// Nonzero if the upper halves of all vector registers were zero at the last exit.
    pub(super) upper_clear: u32,
    /// Nonzero if XGETBV tells which state is in use.
    pub(super) xinuse: u32,
    /// Nonzero if the state of AVX-512 is kept, which takes `xinuse`; and if bits 256 and up of ZMM0 to ZMM15 were zero at the last exit.
    pub(super) keeps_avx512: u32,
    pub(super) zmm_clear: u32,
    /// Counted instructions that may still run.
    pub(super) budget: u64,
    /// Checks of units that may still be made.
    pub(super) checks: u64,
    /// Where the profile's sequences keep R10, RAX, RDX, and the flags.
    pub(super) spills: [u64; 4],
    /// The last frame of the shadow stack.
    pub(super) frame: u64,
    /// Profiled instructions that have run: the thread's sum.
    pub(super) sum: u64,
    /// The return point of the call at hand, and where to go on when its edge has been found.
    pub(super) point: u64,
    pub(super) found: u64,
    /// The stack pointer at a transfer that is left to the recorder.
    pub(super) sp: u64,
    /// Number of the transfer that is being looked up, or left to the recorder; 0 if there is none.
    pub(super) transfer: u32,
    /// Number of the last return.
    pub(super) last_return: u32,
    /// Nonzero if frame and sum are in XMM16 inside units, and what the profile's sequences spill in K1 and K2.
    pub(super) in_registers: u32,
    /// Nonzero while a signal handler runs.
    pub(super) handlers: u32,
    /// Nonzero if the transfer is a return whose frame has been popped, and which has gone elsewhere than its call said.
    pub(super) strayed: u32,
    /// Where a part was interrupted: its counter, and how many of its instructions have run.
    pub(super) interrupted: [u32; 2],
}

/// A transfer of control that a unit leaves to the recorder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transfer {
    /// Which one it is (`Profiler::transfer`).
    pub number: u32,
    /// The stack pointer; for a return, when the address is off the stack.
    pub sp: u64,
    /// For a call: where the host's return goes.
    pub point: u64,
    /// Only where it has gone to is to be looked at: its frame has been popped.
    pub strayed: bool,
}

/// How control is transferred.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TransferKind {
    Call,
    Return,
    Jump,
}

/// An FXSAVE image.
#[repr(C, align(64))]
pub(super) struct Fx(pub(super) [u8; 512]);

/// Where a table begins, from the GS base, that has the slot of a context for each low byte of a hash.
pub(super) const SLOT_TABLE: usize = 1024;
/// Where the return table begins, from the GS base.
pub(super) const RETURN_TABLE: usize = 2048;
/// Where the pairs begin that are added to the last frame and the sum: by way of the frame, then by number of instructions.
const ADDENDS: usize = 4096;
const MOST_ADDED: usize = 64;
/// Where the table of landings begins, from the GS base.
pub(super) const TABLE: usize = 8192;

/// Where the last frame goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    Nowhere,
    ToNext,
    ToPrevious,
}

impl Way {
    const ALL: [Way; 3] = [Way::Nowhere, Way::ToNext, Way::ToPrevious];

    /// By how many bytes.
    pub(super) const fn bytes(self) -> i8 {
        let by = size_of::<Frame>() as i8;
        match self {
            Way::Nowhere => 0,
            Way::ToNext => by,
            Way::ToPrevious => -by,
        }
    }
}

/// Displacement from the GS base of what is added to the last frame and the sum.
pub(super) const fn addend(way: Way, n: u32) -> u32 {
    assert!(n as usize <= MOST_ADDED);
    (ADDENDS + 16 * (way as usize * (MOST_ADDED + 1) + n as usize)) as u32
}

const _: () = assert!(
    size_of::<Words>() <= SLOT_TABLE
        && SLOT_TABLE + 256 <= RETURN_TABLE
        && RETURN_TABLE + RETURNS * 8 <= ADDENDS
        && ADDENDS + 16 * Way::ALL.len() * (MOST_ADDED + 1) <= TABLE
        && size_of::<Frame>() <= i8::MAX as usize,
    "the tables overlap"
);

/// Displacement from the GS base of the return table's slot for return address `pc`.
pub(super) fn return_slot(pc: u64) -> u32 {
    (RETURN_TABLE + (pc as usize & (RETURNS - 1)) * 8) as u32
}

/// MXCSR of Rust code: its value at reset (SDM vol. 1 10.2.3).
const MXCSR_DEFAULT: u32 = 0x1f80;

/// Where the counters begin, from the GS base: at a page.
pub(super) const COUNTERS: usize = TABLE + LANDINGS * 8;
/// Counters of a thread. Number 0 stands for what there is no room for.
pub const MOST_COUNTERS: usize = 1 << 22;

const _: () = assert!(COUNTERS.is_multiple_of(4096));

const SIZE: usize = COUNTERS + MOST_COUNTERS * 8;

/// One thread's words and landings, at a fixed address.
pub struct Area {
    words: NonNull<Words>,
    /// Indices of the landings that differ from `empty`.
    used: Vec<u16>,
    empty: u64,
    /// What the return table holds where no call has been.
    no_return: u64,
    /// What the host's x87 unit holds, but for what units have done to it.
    pub(super) loaded: X87,
    /// Units have used it since its pointers were taken.
    pub(super) pointers_differ: bool,
    sum: Sum,
}

// SAFETY: the mapping belongs to the value.
unsafe impl Send for Area {}

impl Area {
    /// An area whose landings all are `empty`, the exit for unknown targets, and whose return points are `no_return`.
    pub(super) fn new(empty: u64, no_return: u64, sum: Sum) -> io::Result<Area> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new anonymous mapping.
        let p = unsafe { libc::mmap(std::ptr::null_mut(), SIZE, protection, flags, -1, 0) };
        let words = NonNull::new(p.cast()).filter(|_| p != libc::MAP_FAILED).ok_or_else(io::Error::last_os_error)?;
        let area = Area {
            words,
            used: Vec::new(),
            empty,
            no_return,
            loaded: CpuState::new().x87,
            pointers_differ: false,
            sum,
        };
        // SAFETY: words and table are ours and nobody else's yet.
        unsafe {
            (*area.words()).host_mxcsr = MXCSR_DEFAULT;
            (*area.words()).xinuse = u32::from(enter::has_xinuse());
            let slots = area.words().cast::<u8>().add(SLOT_TABLE);
            for (way, n) in Way::ALL.into_iter().flat_map(|way| (0..=MOST_ADDED as u32).map(move |n| (way, n))) {
                let pair = [i64::from(way.bytes()), i64::from(n)];
                area.words().cast::<u8>().add(addend(way, n) as usize).cast::<[i64; 2]>().write(pair);
            }
            (0..256).for_each(|hash| slots.add(hash).write(slot_of(hash) as u8));
            std::slice::from_raw_parts_mut(area.slot(0), LANDINGS).fill(empty);
        }
        area.clear_returns();
        Ok(area)
    }

    /// The GS base.
    pub fn address(&self) -> u64 {
        self.words.as_ptr() as u64
    }

    /// Makes the area the calling thread's, with the guest's registers in `cpu`. Both stay where they are while the thread runs units.
    pub fn install(&self, cpu: &mut CpuState) {
        enter::install(self, cpu);
    }

    pub(super) fn words(&self) -> *mut Words {
        self.words.as_ptr()
    }

    fn slot(&self, index: u16) -> *mut u64 {
        // SAFETY: the table follows at `TABLE` and has a slot for each index.
        unsafe { self.words.as_ptr().cast::<u8>().add(TABLE).cast::<u64>().add(usize::from(index)) }
    }

    /// Computed jumps to `pc` go to `landing` from now on.
    pub fn set_landing(&mut self, pc: u64, landing: u64) {
        let slot = self.slot(pc as u16);
        // SAFETY: the owner of the area is not inside a unit.
        unsafe {
            if *slot == self.empty {
                self.used.push(pc as u16);
            }
            *slot = landing;
        }
    }

    /// Where computed jumps to `pc` go.
    pub(super) fn landing(&self, pc: u64) -> u64 {
        // SAFETY: the owner of the area is not inside a unit.
        unsafe { *self.slot(pc as u16) }
    }

    /// Whether computed jumps to `pc` go to a landing, perhaps another's.
    pub fn has_landing(&self, pc: u64) -> bool {
        self.landing(pc) != self.empty
    }

    /// Lets so many counted instructions run; in front of the next one, units are left.
    pub fn set_budget(&mut self, budget: u64) {
        // SAFETY: the owner of the area is not inside a unit; so below.
        unsafe { (*self.words()).budget = budget };
    }

    /// Lets so many checked units be entered; at the next one, it is left with [`super::Exit::CheckedOften`].
    pub fn set_checks(&mut self, checks: u64) {
        // SAFETY: as above.
        unsafe { (*self.words()).checks = checks };
    }

    /// How many counted instructions may still run.
    pub fn budget(&self) -> u64 {
        // SAFETY: as above.
        unsafe { (*self.words()).budget }
    }

    /// The [`MOST_COUNTERS`] counters, at the start of a page.
    pub fn counters(&self) -> *mut u64 {
        // SAFETY: the counters follow at `COUNTERS`.
        unsafe { self.words.as_ptr().cast::<u8>().add(COUNTERS).cast() }
    }

    fn counter(&self, number: u32) -> *mut u64 {
        assert!((number as usize) < MOST_COUNTERS);
        // SAFETY: one of the counters.
        unsafe { self.counters().add(number as usize) }
    }

    /// Lets profiled units count on from this sum, with this last frame of the shadow stack, perhaps in a signal handler.
    pub fn set_profile(&mut self, sum: u64, (frame, in_handler): (u64, bool)) {
        let words = self.words();
        // SAFETY: as above.
        unsafe {
            ((*words).sum, (*words).frame, (*words).handlers) = (sum, frame, u32::from(in_handler));
            (*words).in_registers = u32::from(self.sum == Sum::InRegister);
        }
    }

    /// The thread's sum and the last frame of its shadow stack.
    pub fn profile(&self) -> (u64, u64) {
        // SAFETY: as above.
        unsafe { ((*self.words()).sum, (*self.words()).frame) }
    }

    /// The transfer that the last unit has left to the recorder.
    pub fn take_transfer(&mut self) -> Option<Transfer> {
        let words = self.words();
        // SAFETY: as above.
        unsafe {
            let number = std::mem::take(&mut (*words).transfer);
            let strayed = std::mem::take(&mut (*words).strayed) != 0;
            let (sp, point) = ((*words).sp, (*words).point);
            (number != 0).then_some(Transfer { number, sp, point, strayed })
        }
    }

    /// Where a profiled part was interrupted after its first instruction: its counter, and how many of its instructions have run.
    pub fn take_interrupted(&mut self) -> Option<(u32, u32)> {
        // SAFETY: as above.
        let [counter, run] = unsafe { std::mem::take(&mut (*self.words()).interrupted) };
        (run != 0).then_some((counter, run))
    }

    /// How often the instruction with this counter has run.
    pub fn count(&self, number: u32) -> u64 {
        // SAFETY: as above.
        unsafe { *self.counter(number) }
    }

    /// Counts an instruction that ran elsewhere.
    pub fn add_count(&mut self, number: u32) {
        // SAFETY: as above.
        unsafe { *self.counter(number) += 1 };
        self.set_budget(self.budget().saturating_sub(1));
    }

    /// Sets the first `used` counters to zero.
    pub fn clear_counts(&mut self, used: u32) {
        assert!(used as usize <= MOST_COUNTERS);
        // SAFETY: as above.
        unsafe { self.counter(0).write_bytes(0, used as usize) };
    }

    /// Lets units keep the state of AVX-512 from now on.
    pub fn keep_avx512(&mut self) {
        // SAFETY: as above.
        unsafe { (*self.words()).keeps_avx512 = 1 };
    }

    fn clear_returns(&self) {
        // SAFETY: the table lies behind the words, and the owner of the area is not inside a unit.
        unsafe {
            let table = self.words.as_ptr().cast::<u8>().add(RETURN_TABLE).cast::<u64>();
            std::slice::from_raw_parts_mut(table, RETURNS).fill(self.no_return);
        }
    }

    /// Forgets all landings and return points: after code memory was given back.
    pub fn clear(&mut self) {
        self.clear_returns();
        for index in std::mem::take(&mut self.used) {
            // SAFETY: as in `set_landing`.
            unsafe { *self.slot(index) = self.empty };
        }
    }
}

/// Takes back the count of an instruction that has not run after all.
///
/// # Safety
/// `words` are those of the calling thread's area.
pub(super) unsafe fn take_back(words: *mut Words, number: u32) {
    // SAFETY: the counters of the area, of which `number` is one.
    unsafe {
        (*words).budget += 1;
        *words.cast::<u8>().add(COUNTERS).cast::<u64>().add(number as usize) -= 1;
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // Signals still reach the thread, and their entry looks at what the GS base leads to.
        enter::uninstall(self);
        // SAFETY: the mapping made by `new`; its thread has left, and is not led here any more.
        unsafe { libc::munmap(self.words.as_ptr().cast(), SIZE) };
    }
}
