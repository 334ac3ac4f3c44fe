//! `GuestMap`.
//!
//! # Safety
//! The mapping calls are unsafe because they can pull memory away from under Rust. Here they only ever name addresses
//! that the map knows to be the guest's, or claim free ones with MAP_FIXED_NOREPLACE (M1).

#![allow(unsafe_code)]

use super::layout::{GUEST_END, GUEST_START, IMAGES_TOP, LOW_END, LOW_START, PIE_BASE, is_guests, tops};
use crate::arch;
use calque_backend::sync::{AtomicBool, Mutex, MutexGuard};
use calque_ir::{GuestAddr, GuestRange};
use nix::errno::Errno;
use rangemap::{RangeMap, RangeSet};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

bitflags::bitflags! {
    /// Protection as the guest asked for it, with the values of PROT_*.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Prot: i32 {
        const READ = libc::PROT_READ;
        const WRITE = libc::PROT_WRITE;
        const EXEC = libc::PROT_EXEC;
    }
}

impl Prot {
    /// What the host's page tables get (M2), code pages aside.
    fn host(self) -> Prot {
        let readable = if self.contains(Prot::EXEC) { Prot::READ } else { Prot::empty() };
        (self | readable) - Prot::EXEC
    }
}

/// What one interval of guest memory is.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Kind {
    prot: Prot,
    shared: bool,
    backing: Backing,
}

/// Where contents come from.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Backing {
    Anonymous,
    /// "[stack]", "[heap]".
    Named(&'static str),
    File {
        file: Arc<FileId>,
        /// File offset minus address, wrapping: equal for neighbours that continue each other.
        delta: u64,
    },
}

/// A mapped file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileId {
    pub path: PathBuf,
    pub dev: u64,
    pub ino: u64,
}

/// A change of mappings, to be made again in another process: kind, address, length, protection (or advice), descriptor,
/// offset, new address, new length. Shared mappings become private ones there: what is written happens once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MapOp(pub(crate) [u64; Self::WORDS]);

impl MapOp {
    pub(crate) const WORDS: usize = 8;
    pub(crate) const MAP: u64 = 0;
    pub(crate) const UNMAP: u64 = 1;
    pub(crate) const PROTECT: u64 = 2;
    pub(crate) const REMAP: u64 = 3;
    pub(crate) const ADVISE: u64 = 4;

    fn map(at: u64, len: u64, prot: Prot, fd: RawFd, offset: u64) -> Self {
        Self([Self::MAP, at, len, prot.bits() as u64, fd as u64, offset, 0, 0])
    }

    fn unmap(at: u64, len: u64) -> Self {
        Self([Self::UNMAP, at, len, 0, 0, 0, 0, 0])
    }

    fn protect(at: u64, len: u64, prot: Prot) -> Self {
        Self([Self::PROTECT, at, len, prot.bits() as u64, 0, 0, 0, 0])
    }

    fn remap(at: u64, len: u64, to: u64, new_len: u64) -> Self {
        Self([Self::REMAP, at, len, 0, 0, 0, to, new_len])
    }

    fn advise(at: u64, len: u64, advice: i32) -> Self {
        Self([Self::ADVISE, at, len, advice as u64, 0, 0, 0, 0])
    }

    /// The descriptor of a mapped file.
    pub(crate) fn file(&self) -> Option<RawFd> {
        (self.0[0] == Self::MAP).then_some(self.0[4] as RawFd).filter(|&fd| fd >= 0)
    }
}

/// One mapping, as `/proc/self/maps` and crash reports show it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mapping {
    pub range: GuestRange,
    pub prot: Prot,
    pub shared: bool,
    /// The mapped file and the offset of `range.start` in it.
    pub file: Option<(Arc<FileId>, u64)>,
    /// "[heap]", "[stack]".
    pub name: Option<&'static str>,
}

/// The guest's address space. All methods may be called from any thread.
pub struct GuestMap {
    state: Mutex<State>,
    /// Whether there is something in `State::stale`, or has been and is not yet dropped: checked by the dispatcher without locking.
    any_stale: AtomicBool,
    /// Whether memory has been mapped whose changes other processes may see, or make.
    shared: AtomicBool,
    /// Whether the guest may serve faults itself.
    serves_faults: AtomicBool,
    /// Counts changes of what is executable or readable as code; caches of lookups compare it.
    generation: AtomicU64,
}

/// How the code of a page may change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum CodePage {
    /// Only by being mapped or protected anew: a file's.
    Fixed,
    /// Memory that has been or will be written, but not now.
    Changing,
    /// The guest may write to it at any time, and it faults.
    Writable,
    /// At any time, unnoticed.
    Checked,
}

/// Writes to a page with code after which its translations are checked instead of its protection changed: filling a page with functions
/// writes a dozen times.
pub(crate) const CHECKED_AFTER: u32 = 16;

/// The same where checks cost little and pages are trusted again.
const CHECKED_EARLY: u32 = 2;

/// What came of the wish to have a page protected whose code is checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Trust {
    /// It is, until the next write to it.
    Given,
    /// It has been protected before, and was written to: worth asking again after as many checks.
    NotYet,
    /// Its code changes without a write to it.
    Never,
}

/// log2 of how often protection must be asked for at most: then checks have cost far more than a fault and new translations of the page.
const LEAST_TRUST: u8 = 6;

/// What is known of writes to a page with code.
#[derive(Default)]
struct Writes {
    /// How many; from [`State::checked_after`] on its translations compare their bytes, too.
    count: u32,
    /// How often it was protected again.
    trusted: u8,
    /// How often that was asked for since.
    asked: u8,
}

/// A map that nobody else can use for the moment.
pub(crate) struct Frozen<'a> {
    _state: MutexGuard<'a, State>,
}

#[derive(Default)]
struct State {
    map: RangeMap<u64, Kind>,
    /// Pages that hold translated code, write-protected on the host where the guest may write, unless checked.
    code: RangeSet<u64>,
    /// Pages that are written by ways that nobody notices.
    checked: RangeSet<u64>,
    /// Pages with code that have been written to; forgotten when they are mapped anew.
    writes: BTreeMap<u64, Writes>,
    /// See [`GuestMap::check_early`].
    checks_early: bool,
    /// Pages that are no longer code, but still write-protected until their translations are dropped.
    given_up: RangeSet<u64>,
    /// All memory may be written by a way that nobody notices: through a file that is the memory.
    is_a_file: bool,
    /// What the kernel may be writing to in this moment.
    kernel_writes: Vec<std::ops::Range<u64>>,
    /// See [`GuestMap::leave_all_to_kernel`].
    kernel_writes_anywhere: bool,
    /// Ranges whose translations are no longer valid.
    stale: Vec<GuestRange>,
    /// A process may have been forked that shares what is shared.
    forked: bool,
    brk_start: u64,
    brk: u64,
    /// Changes since they were last taken, if somebody wants to know.
    changes: Option<Vec<MapOp>>,
}

/// Guest page size, as a mask of the offset bits.
const OFFSET: u64 = calque_ir::addr::GUEST_PAGE - 1;

/// Bytes of a guest page.
const PAGE_BYTES: usize = calque_ir::addr::GUEST_PAGE as usize;

fn page_up(n: u64) -> Option<u64> {
    n.checked_add(OFFSET).map(|n| n & !OFFSET)
}

/// The pages of the guest's that `len` bytes at `addr` lie in.
fn pages_of(addr: GuestAddr, len: u64) -> std::ops::Range<u64> {
    let end = addr.0.saturating_add(len).min(GUEST_END);
    addr.page().0..page_up(end).unwrap_or(GUEST_END)
}

/// A page-aligned, nonempty range inside the guest's part of the address space.
fn checked_range(addr: GuestAddr, len: u64, on_error: Errno) -> Result<std::ops::Range<u64>, Errno> {
    if addr.0 & OFFSET != 0 {
        return Err(Errno::EINVAL);
    }
    let end = page_up(len).and_then(|len| addr.0.checked_add(len)).ok_or(on_error)?;
    if end > GUEST_END { Err(on_error) } else { Ok(addr.0..end) }
}

fn host_result(result: *mut libc::c_void) -> Result<u64, Errno> {
    if result == libc::MAP_FAILED { Err(Errno::last()) } else { Ok(result as u64) }
}

impl GuestMap {
    /// An empty address space.
    pub fn new() -> io::Result<GuestMap> {
        // SAFETY: a query.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        if page as u64 != OFFSET + 1 {
            return Err(io::Error::other(format!(
                "this kernel has {} KiB pages; x86-64 programs need 4 KiB pages, so use a kernel with those",
                page / 1024
            )));
        }
        Ok(GuestMap {
            state: Mutex::default(),
            any_stale: AtomicBool::new(false),
            shared: AtomicBool::new(false),
            serves_faults: AtomicBool::new(false),
            generation: AtomicU64::new(0),
        })
    }

    /// Keeps every other thread out until the guard is dropped: for `fork`.
    pub(crate) fn freeze(&self) -> Frozen<'_> {
        Frozen { _state: self.lock() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// `mmap(2)`. `flags` are x86-64's MAP_*; those other than the placement ones have the same values on every host.
    pub fn mmap(
        &self,
        addr: GuestAddr,
        len: u64,
        prot: i32,
        flags: i32,
        fd: RawFd,
        offset: u64,
    ) -> Result<GuestAddr, Errno> {
        let fixed = flags & (libc::MAP_FIXED | libc::MAP_FIXED_NOREPLACE) != 0;
        let prot = Prot::from_bits_truncate(prot);
        if len == 0 || offset & OFFSET != 0 {
            return Err(Errno::EINVAL);
        }
        let len = page_up(len).filter(|&len| len < GUEST_END).ok_or(Errno::ENOMEM)?;
        let backing = if flags & libc::MAP_ANONYMOUS != 0 { Backing::Anonymous } else { backing_of(fd)? };
        let host_flags = flags & !(libc::MAP_FIXED | libc::MAP_FIXED_NOREPLACE | MAP_32BIT | libc::MAP_GROWSDOWN);
        let mut state = self.lock();
        let place = |at: u64, how: i32| {
            // SAFETY: claims free addresses (NOREPLACE), or the guest's own (M1).
            host_result(unsafe {
                libc::mmap(at as *mut _, len as usize, prot.host().bits(), host_flags | how, fd, offset as i64)
            })
        };
        let at = if fixed {
            let range = checked_range(addr, len, Errno::ENOMEM)?;
            if range.start < GUEST_START {
                return Err(Errno::EPERM);
            }
            if flags & libc::MAP_FIXED_NOREPLACE != 0 && state.map.overlaps(&range) {
                return Err(Errno::EEXIST);
            }
            state.claim_holes(&range)?;
            self.drop_code(&mut state, &range);
            place(range.start, libc::MAP_FIXED).inspect_err(|_| state.release_holes(&range))?
        } else {
            state.place_free(addr.0, len, Area::of(flags, fd), |at| place(at, libc::MAP_FIXED_NOREPLACE))?
        };
        let backing = match backing {
            Backing::File { file, .. } => Backing::File { file, delta: offset.wrapping_sub(at) },
            other => other,
        };
        let shared = flags & libc::MAP_TYPE != libc::MAP_PRIVATE;
        if shared && may_change(prot, &backing) {
            self.shared.store(true, Ordering::Release);
        }
        let file = if matches!(backing, Backing::File { .. }) { fd } else { -1 };
        state.forget_writes(&(at..at + len));
        if !shared && matches!(backing, Backing::File { .. }) && is_writable(fd) {
            // What is written to the file later shows in pages of it that have not been copied.
            state.checked.insert(at..at + len);
        }
        state.map.insert(at..at + len, Kind { prot, shared, backing });
        state.note(|| MapOp::map(at, len, prot, file, offset));
        self.changed(prot);
        Ok(GuestAddr(at))
    }

    /// `munmap(2)`.
    pub fn munmap(&self, addr: GuestAddr, len: u64) -> Result<(), Errno> {
        let range = checked_range(addr, len, Errno::EINVAL)?;
        if range.is_empty() {
            return Err(Errno::EINVAL);
        }
        let mut state = self.lock();
        self.drop_code(&mut state, &range);
        let mapped: Vec<_> = state.overlaps(&range).map(|(r, _)| r).collect();
        for part in mapped {
            // SAFETY: the guest's own.
            unsafe { libc::munmap(part.start as *mut _, (part.end - part.start) as usize) };
        }
        state.note(|| MapOp::unmap(range.start, range.end - range.start));
        state.forget_writes(&range);
        state.map.remove(range);
        self.changed(Prot::EXEC);
        Ok(())
    }

    /// `mprotect(2)`.
    pub fn mprotect(&self, addr: GuestAddr, len: u64, prot: i32) -> Result<(), Errno> {
        let range = checked_range(addr, len, Errno::ENOMEM)?;
        if range.is_empty() {
            return Ok(());
        }
        let mut state = self.lock();
        let range = if prot & PROT_GROWSDOWN != 0 { state.down_to_mapping_start(range) } else { range };
        let prot = Prot::from_bits_truncate(prot);
        let complete = state.map.gaps(&range).next().is_none();
        self.drop_code(&mut state, &range);
        let parts: Vec<_> = state.overlaps(&range).map(|(r, kind)| (r, kind.clone())).collect();
        for (part, kind) in parts {
            // SAFETY: the guest's own.
            let result =
                unsafe { libc::mprotect(part.start as *mut _, (part.end - part.start) as usize, prot.host().bits()) };
            if result != 0 {
                return Err(Errno::last());
            }
            state.note(|| MapOp::protect(part.start, part.end - part.start, prot));
            if kind.shared && prot.contains(Prot::WRITE) {
                self.shared.store(true, Ordering::Release);
            }
            state.map.insert(part, Kind { prot, ..kind });
        }
        self.changed(Prot::EXEC);
        if complete { Ok(()) } else { Err(Errno::ENOMEM) }
    }

    /// `mremap(2)`.
    pub fn mremap(
        &self,
        old: GuestAddr,
        old_len: u64,
        new_len: u64,
        flags: i32,
        new: GuestAddr,
    ) -> Result<GuestAddr, Errno> {
        let from = checked_range(old, old_len, Errno::EINVAL)?;
        let new_len = page_up(new_len).filter(|&len| len != 0 && len < GUEST_END).ok_or(Errno::EINVAL)?;
        if from.is_empty() || flags & libc::MREMAP_DONTUNMAP != 0 {
            return Err(Errno::EINVAL);
        }
        let mut state = self.lock();
        let mut parts = state.overlaps(&from);
        let kind = match (parts.next(), parts.next()) {
            (Some((part, kind)), None) if part == from => kind.clone(),
            _ => return Err(Errno::EFAULT),
        };
        drop(parts);
        self.drop_code(&mut state, &from);
        let (old_len, at) = (from.end - from.start, from.start);
        let fixed = flags & libc::MREMAP_FIXED != 0;
        let remap = |how: i32, to: u64| {
            // SAFETY: source and destination are the guest's own or just claimed (M1).
            host_result(unsafe {
                libc::mremap(at as *mut _, old_len as usize, new_len as usize, how, to as *mut libc::c_void)
            })
        };
        let to = if fixed {
            let target = checked_range(new, new_len, Errno::EINVAL)?;
            if flags & libc::MREMAP_MAYMOVE == 0 || (target.start < from.end && from.start < target.end) {
                return Err(Errno::EINVAL);
            }
            state.claim_holes(&target)?;
            self.drop_code(&mut state, &target);
            remap(libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, target.start)?
        } else if new_len <= old_len || (state.is_free(&(from.end..at + new_len)) && remap(0, 0).is_ok()) {
            if new_len < old_len {
                remap(0, 0)?;
            }
            at
        } else if flags & libc::MREMAP_MAYMOVE != 0 {
            let to = state.place_free(0, new_len, Area::Any, |to| {
                claim(to, new_len)?;
                Ok(to)
            })?;
            let moved = remap(libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, to);
            moved.inspect_err(|_| release(to, new_len))?
        } else {
            return Err(Errno::ENOMEM);
        };
        let is_checked = state.checked.overlaps(&from);
        state.forget_writes(&from);
        state.forget_writes(&(to..to + new_len));
        if is_checked {
            // Who writes there unnoticed writes to what has moved.
            state.checked.insert(to..to + new_len);
        }
        state.map.remove(from);
        let backing = match kind.backing {
            Backing::File { file, delta } => Backing::File { file, delta: delta.wrapping_add(at).wrapping_sub(to) },
            other => other,
        };
        state.map.insert(to..to + new_len, Kind { backing, ..kind });
        state.note(|| MapOp::remap(at, old_len, to, new_len));
        self.changed(Prot::EXEC);
        Ok(GuestAddr(to))
    }

    /// A second mapping of the shared anonymous memory at `from`; placed as [`GuestMap::mmap`] does.
    pub fn share(&self, from: GuestAddr, addr: GuestAddr, len: u64, prot: i32, flags: i32) -> Result<GuestAddr, Errno> {
        let len = page_up(len).ok_or(Errno::ENOMEM)?;
        let at = self.mmap(addr, len, prot, flags & !libc::MAP_TYPE | libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0)?;
        let (old, new) = (from.0 as *mut libc::c_void, at.0 as *mut libc::c_void);
        // SAFETY: the place is the guest's, and nobody knows of it yet. Moving no bytes of a shared mapping copies the mapping (mremap(2)).
        host_result(unsafe { libc::mremap(old, 0, len as usize, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, new) })?;
        protect(&(at.0..at.0 + len), Prot::from_bits_truncate(prot).host());
        Ok(at)
    }

    /// Sets where the heap starts: the first page behind the program.
    pub fn set_brk_start(&self, addr: GuestAddr) {
        let mut state = self.lock();
        state.brk_start = (addr.0 + OFFSET) & !OFFSET;
        state.brk = state.brk_start;
    }

    /// `brk(2)` as the kernel has it: the new break, or the old one where it cannot be moved.
    pub fn brk(&self, addr: GuestAddr) -> GuestAddr {
        let (old, start) = {
            let state = self.lock();
            (state.brk, state.brk_start)
        };
        let Some((old_end, new_end)) = page_up(old).zip(page_up(addr.0)) else { return GuestAddr(old) };
        if addr.0 < start || new_end >= GUEST_END {
            return GuestAddr(old);
        }
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        let moved = match new_end.cmp(&old_end) {
            std::cmp::Ordering::Equal => true,
            std::cmp::Ordering::Less => self.munmap(GuestAddr(new_end), old_end - new_end).is_ok(),
            std::cmp::Ordering::Greater => {
                let (at, len) = (GuestAddr(old_end), new_end - old_end);
                let mapped = self.mmap(at, len, (Prot::READ | Prot::WRITE).bits(), flags, -1, 0).is_ok();
                if mapped {
                    self.set_name(at, len, "[heap]");
                }
                mapped
            }
        };
        if moved {
            self.lock().brk = addr.0;
            addr
        } else {
            GuestAddr(old)
        }
    }

    /// `madvise(2)`.
    pub fn madvise(&self, addr: GuestAddr, len: u64, advice: i32) -> Result<(), Errno> {
        let range = checked_range(addr, len, Errno::ENOMEM)?;
        if range.is_empty() {
            return Ok(());
        }
        let mut state = self.lock();
        let complete = state.map.gaps(&range).next().is_none();
        let parts: Vec<_> = state.overlaps(&range).map(|(r, _)| r).collect();
        if matches!(advice, libc::MADV_DONTNEED | libc::MADV_FREE | libc::MADV_REMOVE) {
            self.drop_code(&mut state, &range);
        }
        for part in parts {
            // SAFETY: the guest's own.
            if unsafe { libc::madvise(part.start as *mut _, (part.end - part.start) as usize, advice) } != 0 {
                return Err(Errno::last());
            }
            state.note(|| MapOp::advise(part.start, part.end - part.start, advice));
        }
        if complete { Ok(()) } else { Err(Errno::ENOMEM) }
    }

    /// Names an anonymous range for `/proc/self/maps`.
    pub fn set_name(&self, addr: GuestAddr, len: u64, name: &'static str) {
        let mut state = self.lock();
        let range = addr.0..addr.0 + len;
        let parts: Vec<_> = state.overlaps(&range).map(|(r, kind)| (r, kind.clone())).collect();
        for (part, kind) in parts {
            state.map.insert(part, Kind { backing: Backing::Named(name), ..kind });
        }
    }

    /// Whether every byte of the range is mapped.
    pub fn is_mapped(&self, addr: GuestAddr, len: u64) -> bool {
        let Some(range) = GuestRange::new(addr, len) else { return false };
        self.lock().map.gaps(&(range.start.0..range.end.0)).next().is_none()
    }

    /// The mapping around `addr`.
    pub fn mapping(&self, addr: GuestAddr) -> Option<Mapping> {
        self.lock().map.get_key_value(&addr.0).map(|(range, kind)| mapping(range.clone(), kind))
    }

    /// All mappings in order of addresses.
    pub fn mappings(&self) -> Vec<Mapping> {
        self.lock().map.iter().map(|(range, kind)| mapping(range.clone(), kind)).collect()
    }

    /// `/proc/self/maps` as the guest sees it (`fs/proc/task_mmu.c`, `show_map_vma`).
    pub fn proc_maps(&self) -> String {
        self.mappings().iter().map(maps_line).collect()
    }

    /// Counts changes that may concern code; two equal readings mean that nothing has changed between.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn changed(&self, prot: Prot) {
        if prot.contains(Prot::EXEC) {
            self.generation.fetch_add(1, Ordering::Release);
        }
    }

    /// Marks the page of `addr` as holding translated code; from now on writes to it are noticed (M3). False if the
    /// guest may not execute it. Call *before* reading the bytes that are translated.
    pub fn mark_code(&self, addr: GuestAddr) -> bool {
        self.code_page(addr).is_some()
    }

    /// The same; tells how the page may change, unless the guest may not execute it.
    pub(crate) fn code_page(&self, addr: GuestAddr) -> Option<CodePage> {
        let page = addr.page().0;
        let mut state = self.lock();
        let code = state.kind_of_code(page)?;
        if !state.code.contains(&page) {
            if code == CodePage::Writable {
                state.set_protection(&(page..page + OFFSET + 1), |prot| prot - Prot::WRITE);
            }
            state.code.insert(page..page + OFFSET + 1);
        }
        Some(code)
    }

    /// A write to `addr` has faulted: whether that was a write-protected code page, which is now an ordinary
    /// writable page. Called by the host fault handler (M4). `drain` drops what is stale.
    pub fn unprotect_code(&self, addr: GuestAddr, drain: impl Fn()) -> bool {
        let page = addr.page().0;
        let writable = |state: &State| state.map.get(&page).is_some_and(|kind| kind.prot.contains(Prot::WRITE));
        if page >= GUEST_END || !writable(&self.lock()) {
            return false;
        }
        let range = page..page + OFFSET + 1;
        if self.give_up_code(&range, drain) {
            return true;
        }
        // A page that another thread has just unprotected counts, too, or has protected again: the access is simply made again.
        let state = self.lock();
        state.is_protected(&range) || host_writable(page)
    }

    /// The kernel is about to write to guest memory by itself: lifts the write protection of code pages there. `drain` drops what is
    /// stale. If it yields true, nothing there is protected again until [`GuestMap::end_kernel_write`].
    pub fn prepare_kernel_write(&self, addr: GuestAddr, len: u64, drain: impl Fn()) -> bool {
        let range = pages_of(addr, len);
        if range.is_empty() {
            return false;
        }
        let mut state = self.lock();
        let may_be_code = state.overlaps(&range).any(|(_, kind)| kind.prot.contains(Prot::EXEC));
        if may_be_code {
            state.kernel_writes.push(range.clone());
        }
        let is_code = state.code.overlaps(&range) || state.given_up.overlaps(&range);
        drop(state);
        if is_code {
            self.give_up_code(&range, drain);
        }
        may_be_code
    }

    /// The kernel has written, or will not.
    pub fn end_kernel_write(&self, addr: GuestAddr, len: u64) {
        let range = pages_of(addr, len);
        let mut state = self.lock();
        if let Some(i) = state.kernel_writes.iter().position(|writes| *writes == range) {
            state.kernel_writes.swap_remove(i);
            // What was translated meanwhile is checked, and its page not protected.
            self.drop_code(&mut state, &range);
        }
    }

    /// The kernel may write to guest memory there at any time until it is mapped anew, whatever becomes of its protection: code is checked.
    /// `drain` drops what is stale.
    pub fn leave_to_kernel(&self, addr: GuestAddr, len: u64, drain: impl Fn()) {
        let range = pages_of(addr, len);
        let mut state = self.lock();
        if range.is_empty() || state.checked.gaps(&range).next().is_none() {
            return;
        }
        state.checked.insert(range.clone());
        let is_code = state.code.overlaps(&range) || state.given_up.overlaps(&range);
        drop(state);
        if is_code {
            self.give_up_code(&range, drain);
        }
    }

    /// The kernel may write to any memory of the guest's at any time: where the guest may write, code is checked from now on.
    pub fn leave_all_to_kernel(&self, drain: impl Fn()) {
        let mut state = self.lock();
        if std::mem::replace(&mut state.kernel_writes_anywhere, true) {
            return;
        }
        let is_writable_code = |kind: &Kind| kind.prot.contains(Prot::WRITE | Prot::EXEC);
        let writable: Vec<_> =
            state.map.iter().filter(|(_, kind)| is_writable_code(kind)).map(|(range, _)| range.clone()).collect();
        drop(state);
        for range in writable {
            self.give_up_code(&range, &drain);
        }
    }

    /// Makes the pages of `range` writable as the guest has them, after `drain` has dropped the translations that were made from them:
    /// another thread may write there without a fault as soon as that is possible (M3). Whether there was code.
    fn give_up_code(&self, range: &std::ops::Range<u64>, drain: impl Fn()) -> bool {
        let mut known = false;
        loop {
            let mut state = self.lock();
            for page in state.code_pages(range).collect::<Vec<_>>() {
                state.count_write(page);
                known = true;
            }
            let parts = self.forget_code(&mut state, range);
            state.given_up.extend(parts);
            drop(state);
            drain();
            let mut state = self.lock();
            // Others may have made translations meanwhile, and have perhaps given them up again.
            if state.stale.is_empty() && !state.is_protected(range) {
                state.given_up.remove(range.clone());
                state.set_protection(range, |prot| prot);
                return known;
            }
        }
    }

    /// A child is about to be forked, which can write to shared memory: code there is no longer this process's alone.
    pub(crate) fn before_fork(&self) {
        let mut state = self.lock();
        if !std::mem::replace(&mut state.forked, true) {
            let shared: Vec<_> =
                state.map.iter().filter(|(_, kind)| kind.shared).map(|(range, _)| range.clone()).collect();
            shared.iter().for_each(|range| self.drop_code(&mut state, range));
        }
    }

    /// Checked translations cost little, and somebody calls [`GuestMap::trust`]: pages are checked early.
    pub(crate) fn check_early(&self) {
        self.lock().checks_early = true;
    }

    /// Code of the page of `addr` has been checked for long: if only writes to its page change it, it is protected and runs at full speed until
    /// the next one.
    pub(crate) fn trust(&self, addr: GuestAddr) -> Trust {
        let page = addr.page().0;
        let mut state = self.lock();
        let checked_after = state.checked_after();
        let unnoticed = state.map.get(&page).is_none_or(|kind| state.changes_unnoticed(page, kind));
        let written = state.writes.get_mut(&page).filter(|writes| !unnoticed && writes.count >= checked_after);
        let Some(writes) = written else { return Trust::Never };
        writes.asked += 1;
        if writes.asked < 1 << writes.trusted {
            return Trust::NotYet;
        }
        *writes = Writes { count: checked_after - 1, trusted: LEAST_TRUST.min(writes.trusted + 1), asked: 0 };
        self.drop_code(&mut state, &(page..page + OFFSET + 1));
        Trust::Given
    }

    /// The guest has opened this file for writing: code that is mapped from it may change without a write to its page.
    pub fn opened_for_writing(&self, dev: u64, ino: u64) {
        let mut state = self.lock();
        let same =
            |kind: &Kind| matches!(&kind.backing, Backing::File { file, .. } if file.dev == dev && file.ino == ino);
        let mapped: Vec<_> = state
            .map
            .iter()
            .filter(|(_, kind)| kind.prot.contains(Prot::EXEC) && same(kind))
            .map(|(range, _)| range.clone())
            .collect();
        for range in mapped {
            self.drop_code(&mut state, &range);
            state.checked.insert(range);
        }
    }

    /// The guest has opened this memory itself as a file for writing (/proc/self/mem): all code may change without a write to its page.
    pub fn opened_as_file(&self) {
        let mut state = self.lock();
        if !std::mem::replace(&mut state.is_a_file, true) {
            self.drop_code(&mut state, &(0..GUEST_END));
        }
    }

    /// Whether memory has ever been mapped whose changes other processes may see, or make.
    #[inline]
    pub fn is_shared(&self) -> bool {
        self.shared.load(Ordering::Acquire)
    }

    /// From now on the guest may serve faults itself: who touches memory of the guest's may wait for another thread of the guest's, so
    /// nobody does while holding what that needs, unless the memory [is there](GuestMap::is_at_hand).
    pub fn serve_faults(&self) {
        self.serves_faults.store(true, Ordering::Release);
    }

    /// Whether memory in the page of `addr` can be read without waiting for another thread of the guest's.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only units are made under a lock"))]
    pub(crate) fn is_at_hand(&self, addr: GuestAddr) -> bool {
        !self.serves_faults.load(Ordering::Acquire) || is_resident(addr.page().0)
    }

    /// Whether there are translations to be dropped, or somebody is about to drop them.
    #[inline]
    pub fn any_stale(&self) -> bool {
        self.any_stale.load(Ordering::Acquire)
    }

    /// Has `discard` drop the translations of the ranges that have become invalid (M3). Until it has, `any_stale` holds: who asks waits for
    /// it. One thread at a time.
    pub fn drain_stale(&self, discard: impl FnOnce(Vec<GuestRange>)) {
        if self.any_stale.load(Ordering::Acquire) {
            let stale = std::mem::take(&mut self.lock().stale);
            discard(stale);
            let state = self.lock();
            self.any_stale.store(!state.stale.is_empty(), Ordering::Release);
        }
    }

    /// From now on changes are recorded.
    pub(crate) fn record_changes(&self) {
        self.lock().changes = Some(Vec::new());
    }

    /// Takes the recorded changes.
    pub(crate) fn take_changes(&self) -> Vec<MapOp> {
        self.lock().changes.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Makes a change that another process's map has recorded; `fd` is its file, opened here.
    pub(crate) fn repeat(&self, op: &MapOp, fd: Option<RawFd>) -> Result<(), Errno> {
        let [kind, at, len, prot, _, offset, to, new_len] = op.0;
        let at = GuestAddr(at);
        let placed = libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE;
        match (kind, fd) {
            (MapOp::MAP, Some(fd)) => self.mmap(at, len, prot as i32, placed, fd, offset).map(drop),
            (MapOp::MAP, None) => self.mmap(at, len, prot as i32, placed | libc::MAP_ANONYMOUS, -1, 0).map(drop),
            (MapOp::UNMAP, _) => self.munmap(at, len),
            (MapOp::PROTECT, _) => self.mprotect(at, len, prot as i32),
            (MapOp::REMAP, _) => {
                let fixed = if to == at.0 { 0 } else { libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED };
                self.mremap(at, len, new_len, fixed, GuestAddr(to)).map(drop)
            }
            _ => self.madvise(at, len, prot as i32),
        }
    }

    /// Forgets the code marks in `range`, gives its pages their full protection back, and reports it as stale.
    fn drop_code(&self, state: &mut State, range: &std::ops::Range<u64>) {
        for part in self.forget_code(state, range) {
            state.set_protection(&part, |prot| prot);
        }
    }

    /// Forgets the code marks in `range` and reports it as stale; the parts that had some.
    fn forget_code(&self, state: &mut State, range: &std::ops::Range<u64>) -> Vec<std::ops::Range<u64>> {
        let marked: Vec<_> =
            state.code.overlapping(range).map(|r| r.start.max(range.start)..r.end.min(range.end)).collect();
        for part in &marked {
            state.stale.push(GuestRange { start: GuestAddr(part.start), end: GuestAddr(part.end) });
            state.code.remove(part.clone());
            self.any_stale.store(true, Ordering::Release);
        }
        marked
    }
}

impl State {
    fn note(&mut self, op: impl FnOnce() -> MapOp) {
        if let Some(changes) = &mut self.changes {
            changes.push(op());
        }
    }

    /// Gives the pages in `range` that the guest may write to the protection on the host that `prot` makes of their own.
    fn set_protection(&self, range: &std::ops::Range<u64>, prot: impl Fn(Prot) -> Prot) {
        for (pages, kind) in self.overlaps(range).filter(|(_, kind)| kind.prot.contains(Prot::WRITE)) {
            protect(&pages, prot(kind.prot.host()));
        }
    }

    /// How code in `page` may change, if the guest may execute it.
    fn kind_of_code(&self, page: u64) -> Option<CodePage> {
        let kind = self.map.get(&page).filter(|kind| kind.prot.contains(Prot::EXEC))?;
        Some(match kind.backing {
            _ if self.changes_unnoticed(page, kind) || self.is_written_often(page) => CodePage::Checked,
            _ if self.kernel_writes.iter().any(|range| range.contains(&page)) => CodePage::Checked,
            _ if kind.prot.contains(Prot::WRITE) => CodePage::Writable,
            Backing::File { .. } => CodePage::Fixed,
            _ => CodePage::Changing,
        })
    }

    /// The pages in `range` that hold translated code.
    fn code_pages<'a>(&'a self, range: &'a std::ops::Range<u64>) -> impl Iterator<Item = u64> + 'a {
        let pages = self.code.overlapping(range).flat_map(|r| r.clone().step_by(PAGE_BYTES));
        pages.filter(|page| range.contains(page))
    }

    /// Whether a page in `range` is write-protected because it holds translated code.
    fn is_protected(&self, range: &std::ops::Range<u64>) -> bool {
        self.code_pages(range).any(|page| self.kind_of_code(page) == Some(CodePage::Writable))
    }

    /// A page with code has been written to.
    fn count_write(&mut self, page: u64) {
        self.writes.entry(page).or_default().count += 1;
    }

    /// Writes to a page with code after which its translations are checked.
    fn checked_after(&self) -> u32 {
        if self.checks_early { CHECKED_EARLY } else { CHECKED_AFTER }
    }

    fn is_written_often(&self, page: u64) -> bool {
        self.writes.get(&page).is_some_and(|writes| writes.count >= self.checked_after())
    }

    /// Whether a page of this kind may be written to by ways that nobody notices.
    fn changes_unnoticed(&self, page: u64, kind: &Kind) -> bool {
        // Other processes have a shared file's memory, or may have; anonymous memory is shared with children only.
        let by_others = kind.shared && (self.forked || kind.backing != Backing::Anonymous);
        let by_the_kernel = self.kernel_writes_anywhere && kind.prot.contains(Prot::WRITE);
        by_others || by_the_kernel || self.is_a_file || self.checked.contains(&page)
    }

    /// Other memory is mapped in `range`, or none.
    fn forget_writes(&mut self, range: &std::ops::Range<u64>) {
        self.checked.remove(range.clone());
        let pages: Vec<u64> = self.writes.range(range.clone()).map(|(page, _)| *page).collect();
        for page in pages {
            self.writes.remove(&page);
        }
    }

    /// The mapped parts of `range`.
    fn overlaps<'a>(
        &'a self,
        range: &'a std::ops::Range<u64>,
    ) -> impl Iterator<Item = (std::ops::Range<u64>, &'a Kind)> + 'a {
        self.map.overlapping(range).map(|(r, kind)| (r.start.max(range.start)..r.end.min(range.end), kind))
    }

    /// The range with its start moved down to that of the mapping it begins in.
    fn down_to_mapping_start(&self, range: std::ops::Range<u64>) -> std::ops::Range<u64> {
        let start = self.map.get_key_value(&range.start).map_or(range.start, |(mapping, _)| mapping.start);
        start..range.end
    }

    fn is_free(&self, range: &std::ops::Range<u64>) -> bool {
        is_guests(range.start, range.end) && !self.map.overlaps(range)
    }

    /// Reserves the unmapped parts of `range`, so that MAP_FIXED over the whole cannot hit the translator (M1).
    fn claim_holes(&self, range: &std::ops::Range<u64>) -> Result<(), Errno> {
        let mut claimed: Vec<std::ops::Range<u64>> = Vec::new();
        for hole in self.map.gaps(range) {
            if let Err(error) = claim(hole.start, hole.end - hole.start) {
                claimed.iter().for_each(|hole| release(hole.start, hole.end - hole.start));
                return Err(if error == Errno::EEXIST { Errno::ENOMEM } else { error });
            }
            claimed.push(hole);
        }
        Ok(())
    }

    fn release_holes(&self, range: &std::ops::Range<u64>) {
        self.map.gaps(range).for_each(|hole| release(hole.start, hole.end - hole.start));
    }

    /// Finds room for `len` bytes: at `hint` if that is free, else as high as possible, and places it.
    fn place_free(
        &self,
        hint: u64,
        len: u64,
        area: Area,
        place: impl Fn(u64) -> Result<u64, Errno>,
    ) -> Result<u64, Errno> {
        let hint = hint & !OFFSET;
        if hint >= GUEST_START && hint.checked_add(len).is_some_and(|end| self.is_free(&(hint..end))) {
            match place(hint) {
                Err(Errno::EEXIST) => {}
                other => return other,
            }
        }
        for range in area.ranges() {
            let mut top = range.end;
            while let Some(at) = self.highest_gap(range.start, top, len) {
                match if is_guests(at, at + len) { place(at) } else { Err(Errno::EEXIST) } {
                    // The translator lives there: further down.
                    Err(Errno::EEXIST) => top = at.saturating_sub(OBSTACLE_STEP),
                    other => return other,
                }
            }
        }
        Err(Errno::ENOMEM)
    }

    /// The highest start of `len` free bytes in `bottom..top`. One walk from the top down: the map finds the last mapping of a range only by passing
    /// all that are above.
    fn highest_gap(&self, bottom: u64, mut top: u64, len: u64) -> Option<u64> {
        for (range, _) in self.map.overlapping(bottom..top).rev() {
            if range.end.checked_add(len).is_some_and(|end| end <= top) {
                break;
            }
            top = range.start;
        }
        top.checked_sub(len).filter(|&start| start >= bottom)
    }
}

/// Whether a shared mapping is one that two processes can talk through. The C library maps read-only tables of its own shared
/// (`gconv-modules.cache`): package managers replace such files and never write to them.
fn may_change(prot: Prot, backing: &Backing) -> bool {
    let package_data = matches!(backing, Backing::File { file, .. } if file.path.starts_with("/usr"));
    prot.contains(Prot::WRITE) || !package_data
}

/// Where a mapping goes that has no address of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Area {
    Any,
    /// In the first 2 GiB (`MAP_32BIT`).
    Low,
    /// Where programs and libraries lie, as long as there is room.
    Images,
}

impl Area {
    /// Loaders map a whole image from its file's start first; glibc's says so with MAP_DENYWRITE, which means nothing else any more.
    fn of(flags: i32, fd: RawFd) -> Area {
        if flags & MAP_32BIT != 0 {
            Area::Low
        } else if flags & libc::MAP_DENYWRITE != 0 || (flags & libc::MAP_ANONYMOUS == 0 && is_elf(fd)) {
            Area::Images
        } else {
            Area::Any
        }
    }

    /// Where to look: first, and then.
    fn ranges(self) -> [std::ops::Range<u64>; 2] {
        let (any, nowhere) = (GUEST_START..tops().mmap, 0..0);
        match self {
            Area::Any => [any, nowhere],
            Area::Low => [LOW_START..LOW_END, nowhere],
            Area::Images => [PIE_BASE..IMAGES_TOP, any],
        }
    }
}

/// Whether a file begins as ELF files do.
fn is_elf(fd: RawFd) -> bool {
    let mut magic = [0u8; 4];
    // SAFETY: reads into a buffer of that size.
    let got = unsafe { libc::pread(fd, magic.as_mut_ptr().cast(), magic.len(), 0) };
    got == 4 && magic == *b"\x7fELF"
}

/// How far to move down past a host mapping that the map does not know (bytes).
const OBSTACLE_STEP: u64 = 16 << 20;

/// `MAP_32BIT` (arch/x86/include/uapi/asm/mman.h).
const MAP_32BIT: i32 = 0x40;

/// `mprotect` from the start of a mapping that grows down, the stack's, on (asm-generic/mman-common.h).
const PROT_GROWSDOWN: i32 = 0x0100_0000;

/// An address at which the kernel maps memory of Calque's.
pub(super) fn probe() -> u64 {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a mapping of our own, given back at once.
    unsafe {
        let at = libc::mmap(std::ptr::null_mut(), PAGE_BYTES, libc::PROT_NONE, flags, -1, 0);
        libc::munmap(at, PAGE_BYTES);
        at as u64
    }
}

fn claim(at: u64, len: u64) -> Result<(), Errno> {
    if !is_guests(at, at.saturating_add(len)) {
        return Err(Errno::EEXIST);
    }
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: NOREPLACE touches nothing that exists.
    host_result(unsafe { libc::mmap(at as *mut _, len as usize, libc::PROT_NONE, flags, -1, 0) }).map(drop)
}

fn release(at: u64, len: u64) {
    // SAFETY: what `claim` has just reserved.
    unsafe { libc::munmap(at as *mut _, len as usize) };
}

fn protect(range: &std::ops::Range<u64>, prot: Prot) {
    // SAFETY: a guest mapping; the protection is at most the guest's.
    unsafe { libc::mprotect(range.start as *mut _, (range.end - range.start) as usize, prot.bits()) };
}

/// Whether the host lets us write to a page of the guest's: rewrites a byte with itself, atomically.
fn host_writable(page: u64) -> bool {
    // SAFETY: a guest address; a fault is an error.
    unsafe { arch::add8(page, 0).is_ok() }
}

/// Whether a page has contents.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "as `is_at_hand`"))]
fn is_resident(page: u64) -> bool {
    let mut resident = 0u8;
    // SAFETY: the kernel writes one byte.
    let asked = unsafe { libc::mincore(page as *mut libc::c_void, PAGE_BYTES, &raw mut resident) };
    asked == 0 && resident & 1 != 0
}

/// Whether the guest can write through this descriptor.
fn is_writable(fd: RawFd) -> bool {
    // SAFETY: a query.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    flags >= 0 && flags & libc::O_ACCMODE != libc::O_RDONLY
}

fn backing_of(fd: RawFd) -> Result<Backing, Errno> {
    // SAFETY: `stat` is plain data and written by the call.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    if unsafe { libc::fstat(fd, &mut stat) } != 0 {
        return Err(Errno::last());
    }
    let (dev, ino) = (stat.st_dev, stat.st_ino);
    let path = std::fs::read_link(Path::new("/proc/self/fd").join(fd.to_string())).unwrap_or_default();
    Ok(Backing::File { file: Arc::new(FileId { path, dev, ino }), delta: 0 })
}

fn mapping(range: std::ops::Range<u64>, kind: &Kind) -> Mapping {
    let (file, name) = match &kind.backing {
        Backing::Anonymous => (None, None),
        Backing::Named(name) => (None, Some(*name)),
        Backing::File { file, delta } => (Some((Arc::clone(file), range.start.wrapping_add(*delta))), None),
    };
    let range = GuestRange { start: GuestAddr(range.start), end: GuestAddr(range.end) };
    Mapping { range, prot: kind.prot, shared: kind.shared, file, name }
}

fn maps_line(m: &Mapping) -> String {
    let flag = |prot, letter| if m.prot.contains(prot) { letter } else { '-' };
    let (r, w, x) = (flag(Prot::READ, 'r'), flag(Prot::WRITE, 'w'), flag(Prot::EXEC, 'x'));
    let p = if m.shared { 's' } else { 'p' };
    let (offset, dev, ino) = m.file.as_ref().map_or((0, 0, 0), |(file, offset)| (*offset, file.dev, file.ino));
    let (major, minor) = (nix::sys::stat::major(dev), nix::sys::stat::minor(dev));
    let (start, end) = (m.range.start.0, m.range.end.0);
    let fields = format!("{start:08x}-{end:08x} {r}{w}{x}{p} {offset:08x} {major:02x}:{minor:02x} {ino}");
    let name = match (&m.file, m.name) {
        (Some((file, _)), _) => file.path.to_string_lossy().into_owned(),
        (None, name) => name.unwrap_or("").to_owned(),
    };
    if name.is_empty() { format!("{fields} \n") } else { format!("{fields:<72} {name}\n") }
}
