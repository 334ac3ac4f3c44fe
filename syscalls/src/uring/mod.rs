//! io_uring: system calls that the kernel reads from memory and answers in memory.
//!
//! Problem: what a guest submits so reaches the host's kernel past the table of system calls. Paths, flags, structures and memory
//! need the same care there, and some entries what only Calque knows.
//!
//! Approach: the rings are the kernel's own, but of the submission entries there are two copies. The guest fills one; at
//! `io_uring_enter` the entries about to be submitted are prepared (`entry.rs`) and written to the other, which only the kernel reads.
//!
//! ```text
//! guest's mappings:  rings <--------- one memory ---------> kernel     heads, tails, array of indices, completions
//!                    entries --- io_uring_enter: prepare --> entries    kernel
//! ```
//!
//! So the kernel does all the work, asynchronously, and completions cost nothing. It takes memory for its rings from the program
//! (`IORING_SETUP_NO_MMAP`, Linux 6.5; of more than a page since 6.10), and has no say in where the guest maps it, which it
//! else insists on.
//!
//! Invariants:
//! - **U1** The kernel only reads entries that Calque has written. So there is no kernel thread that takes entries by itself
//!   (`IORING_SETUP_SQPOLL`: EPERM, as for a user without the right).
//! - **U2** Preparing reads guest memory, which may wait for a thread of the guest's (userfaultfd), so it is done without a lock. Under the
//!   lock of the ring the entries are only used if nobody has submitted them meanwhile.
//! - **U3** What an entry points to in Calque's memory lives until the call returns: the kernel has copied it by then
//!   (`IORING_FEAT_SUBMIT_STABLE`).
//! - **U4** The kernel writes to the guest's memory when it pleases: pages that it has been told of are checked code from then on, never
//!   write-protected (`GuestMap::leave_to_kernel`).
//!
//! Which ring a descriptor is, its inode says, of which each ring has one; numbers are closed and given anew behind our back.

mod entry;
mod register;

pub(crate) use register::register;

use crate::abi::uring::{
    Entry, FEATURES, GetEvents, OFF_CQ_RING, OFF_SQ_RING, OFF_SQES, Params, enter as flag, setup as option,
};
use crate::call::Call;
use crate::host::{self, Zeroed};
use crate::poll;
use calque_ir::addr::GUEST_PAGE;
use calque_runtime::memory::is_guest_address;
use calque_runtime::{GuestAddr, access, hidden, lockstep};
use entry::Preparation;
use nix::errno::Errno;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

type Result<T = u64> = std::result::Result<T, Errno>;

/// Device and inode.
type File = (u64, u64);

/// A ring of this process's.
pub(crate) struct Ring {
    file: File,
    memory: Memory,
    /// Held by who submits.
    submitting: Mutex<()>,
}

/// Where a ring's memory lies: the rings, the guest's entries, the kernel's.
#[derive(Clone, Copy)]
struct Memory {
    start: GuestAddr,
    rings_len: u64,
    entries_len: u64,
    entry_len: u64,
    /// Number of submission entries, a power of two.
    count: u32,
    /// Offsets in the rings.
    head: u32,
    tail: u32,
    /// The indices of submitted entries, unless they are submitted in order.
    array: Option<u32>,
}

/// What /proc/self/maps calls it.
const NAME: &str = "anon_inode:[io_uring]";

/// The rings. Submitting is reading here: `fork` keeps all out by writing.
static RINGS: RwLock<Vec<Ring>> = RwLock::new(Vec::new());

fn rings() -> RwLockReadGuard<'static, Vec<Ring>> {
    RINGS.read().unwrap_or_else(PoisonError::into_inner)
}

/// The rings, while nobody submits.
pub(crate) fn at_rest() -> RwLockWriteGuard<'static, Vec<Ring>> {
    RINGS.write().unwrap_or_else(PoisonError::into_inner)
}

/// The file of a descriptor.
fn file_of(fd: u64) -> Result<File> {
    let mut found = libc::stat::zeroed();
    host::quick(libc::SYS_fstat, [fd, host::out(&mut found)])?;
    Ok((found.st_dev, found.st_ino))
}

/// The memory of the ring that `file` is.
fn memory_of(file: File) -> Option<Memory> {
    rings().iter().find(|ring| ring.file == file).map(|ring| ring.memory)
}

/// `int io_uring_setup(unsigned entries, struct io_uring_params *params)`.
pub(crate) fn setup(call: &mut Call<'_>) -> Result {
    let wanted = call.read::<Params>(1)?;
    check_setup(&wanted)?;
    forget_closed(call);
    let mut params = wanted;
    let mut memory = Memory::for_ring(call.uint(0), &wanted);
    memory.start = map(call, memory.len())?;
    params.flags |= option::NO_MMAP;
    params.cq.user_addr = memory.start.0;
    params.sq.user_addr = memory.kernels_entries().0;
    let made = host::quick(libc::SYS_io_uring_setup, [call.args[0], host::out(&mut params)]);
    let kept = made.map_err(|_| why_refused(call, wanted)).and_then(|fd| {
        memory.learn(&params);
        let shown = params.as_shown();
        let known = file_of(fd).and_then(|file| call.write(1, &shown).map(|_| (fd, file)));
        if known.is_err() {
            close(fd);
        }
        known
    });
    if kept.is_err() {
        call.process().mem.munmap(memory.start, memory.len())?;
    }
    let (fd, file) = kept?;
    at_rest().push(Ring { file, memory, submitting: Mutex::new(()) });
    Ok(fd)
}

/// Refuses what Calque does not hand on.
fn check_setup(wanted: &Params) -> Result<()> {
    if lockstep::is_compared() {
        // What the kernel writes on its own, no other execution can be given in time.
        return Err(Errno::ENOSYS);
    }
    if wanted.flags & !option::KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    if wanted.flags & option::SQPOLL != 0 {
        return Err(Errno::EPERM);
    }
    if wanted.flags & option::ATTACH_WQ != 0 && hidden::is_hidden(wanted.wq_fd) {
        return Err(Errno::EBADF);
    }
    Ok(())
}

/// Why the kernel has refused a ring: for what the guest has asked for, or because it wants to find memory for it by itself.
fn why_refused(call: &Call<'_>, mut wanted: Params) -> Errno {
    match host::quick(libc::SYS_io_uring_setup, [call.args[0], host::out(&mut wanted)]) {
        Ok(fd) => {
            close(fd);
            Errno::ENOSYS
        }
        Err(errno) => errno,
    }
}

/// Closes a descriptor that the guest has never seen.
fn close(fd: u64) {
    // Nothing was written to it that could fail.
    let _ = host::quick(libc::SYS_close, [fd]);
}

/// Shared memory for a ring.
fn map(call: &Call<'_>, len: u64) -> Result<GuestAddr> {
    let mem = &call.process().mem;
    let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    let start = mem.mmap(GuestAddr(0), len, prot, flags, -1, 0)?;
    mem.set_name(start, len, NAME);
    Ok(start)
}

/// Gives the memory of rings back that no descriptor leads to: looked for when there are many.
fn forget_closed(call: &Call<'_>) {
    const MANY: usize = 16;
    let mut rings = at_rest();
    if rings.len() < MANY || !rings.len().is_power_of_two() {
        return;
    }
    let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") else { return };
    let open: Vec<File> = descriptors
        .flatten()
        .filter_map(|descriptor| descriptor.path().metadata().ok())
        .map(|found| (found.dev(), found.ino()))
        .collect();
    for ring in rings.extract_if(.., |ring| !open.contains(&ring.file)) {
        let _ = call.process().mem.munmap(ring.memory.start, ring.memory.len());
    }
}

impl Params {
    /// As a kernel without the rest would say it.
    fn as_shown(mut self) -> Params {
        self.flags &= !option::NO_MMAP;
        self.features &= FEATURES;
        self.sq.user_addr = 0;
        self.cq.user_addr = 0;
        self
    }
}

impl Memory {
    /// Room for a ring of `entries`, as many as the kernel may need.
    fn for_ring(entries: u32, wanted: &Params) -> Memory {
        /// `IORING_MAX_ENTRIES`, `IORING_MAX_CQ_ENTRIES` (io_uring/io_uring.h).
        const MAX: (u32, u32) = (32768, 65536);
        let is = |option: u32| u64::from(wanted.flags & option != 0);
        let power = |n: u32, max: u32| n.clamp(1, max).next_power_of_two();
        let count = power(entries, MAX.0);
        let completions = if is(option::CQSIZE) != 0 { power(wanted.cq_entries, MAX.1) } else { 2 * count };
        let entry_len = (size_of::<Entry>() as u64) << is(option::SQE128);
        // A page for heads, tails and gaps; a completion has 16 bytes or twice that, an index 4.
        let rings_len = GUEST_PAGE + (16 << is(option::CQE32)) * u64::from(completions) + 4 * u64::from(count);
        Memory {
            start: GuestAddr(0),
            rings_len: rings_len.next_multiple_of(GUEST_PAGE),
            entries_len: (u64::from(count) * entry_len).next_multiple_of(GUEST_PAGE),
            entry_len,
            count,
            head: 0,
            tail: 0,
            array: None,
        }
    }

    /// Takes what the kernel says of the ring that it has made.
    fn learn(&mut self, params: &Params) {
        self.count = params.sq_entries;
        self.head = params.sq.head;
        self.tail = params.sq.tail;
        self.array = (params.flags & option::NO_SQARRAY == 0).then_some(params.sq.array);
    }

    fn len(&self) -> u64 {
        self.rings_len + 2 * self.entries_len
    }

    fn guests_entries(&self) -> GuestAddr {
        self.start.wrapping_add(self.rings_len)
    }

    fn kernels_entries(&self) -> GuestAddr {
        self.guests_entries().wrapping_add(self.entries_len)
    }

    /// A word of the rings.
    fn word(&self, offset: u64) -> Result<u32> {
        Ok(access::read::<u32>(self.start.wrapping_add(offset))?)
    }

    /// The number of the entry that stands at `position` of the submission ring; none if the kernel is going to drop it.
    fn index(&self, position: u32) -> Result<Option<u32>> {
        let slot = position & (self.count - 1);
        let Some(array) = self.array else { return Ok(Some(slot)) };
        let index = self.word(u64::from(array) + 4 * u64::from(slot))?;
        Ok((index < self.count).then_some(index))
    }
}

/// What `mmap` of a ring's descriptor maps; none where the descriptor is none of a ring.
pub(crate) fn mmap(call: &Call<'_>) -> Result<Option<u64>> {
    let [addr, len, _, _, fd, offset] = call.args;
    if call.int(3) & libc::MAP_ANONYMOUS != 0 || rings().is_empty() {
        return Ok(None);
    }
    let Some(memory) = file_of(fd).ok().and_then(memory_of) else { return Ok(None) };
    let (from, most) = match offset {
        OFF_SQ_RING | OFF_CQ_RING => (memory.start, memory.rings_len),
        OFF_SQES => (memory.guests_entries(), memory.entries_len),
        _ => return Err(Errno::EINVAL),
    };
    if len == 0 || len > most || call.int(3) & libc::MAP_TYPE == libc::MAP_PRIVATE {
        return Err(Errno::EINVAL);
    }
    let mem = &call.process().mem;
    let at = mem.share(from, GuestAddr(addr), len, call.int(2), call.int(3))?;
    mem.set_name(at, len.next_multiple_of(GUEST_PAGE), NAME);
    Ok(Some(at.0))
}

/// `int io_uring_enter(unsigned fd, unsigned to_submit, unsigned min_complete, unsigned flags, const void *arg, size_t size)`.
pub(crate) fn enter(call: &mut Call<'_>) -> Result {
    let (to_submit, flags) = (call.uint(1), call.uint(3));
    if flags & !flag::KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    let waits = flags & flag::GETEVENTS != 0;
    let mut submitted = 0;
    if to_submit != 0 || !waits {
        submitted = submit(call, to_submit)?;
        if submitted != u64::from(to_submit) || !waits {
            return Ok(submitted);
        }
    }
    let waited = wait(call, flags);
    if submitted == 0 {
        return waited;
    }
    // What was submitted is the result, whatever became of the wait (io_uring/io_uring.c).
    call.has_started();
    Ok(submitted)
}

/// Hands up to `most` entries to the kernel; how many.
fn submit(call: &mut Call<'_>, most: u32) -> Result {
    let fd = call.args[0];
    let file = file_of(fd)?;
    let hand_over = |count: usize| host::quick(libc::SYS_io_uring_enter, [fd, count as u64, 0, 0, 0, 0]);
    loop {
        let Some(memory) = memory_of(file) else {
            hand_over(0)?;
            eprintln!("calque: entries of an io_uring that another program has set up are not submitted: EOPNOTSUPP");
            return Err(Errno::EOPNOTSUPP);
        };
        let head = memory.word(memory.head.into())?;
        let tail = memory.word(memory.tail.into())?;
        // The entries were written before the tail.
        fence(Ordering::Acquire);
        let count = tail.wrapping_sub(head).min(most).min(memory.count);
        let mut preparation = Preparation::new(call);
        let mut entries = Vec::with_capacity(count as usize);
        for position in 0..count {
            if let Some(index) = memory.index(head.wrapping_add(position))? {
                let offset = u64::from(index) * memory.entry_len;
                let mut bytes =
                    access::read_slice::<u8>(memory.guests_entries().wrapping_add(offset), memory.entry_len as usize)?;
                let (entry, _) = bytes.split_at_mut(size_of::<Entry>());
                let prepared = preparation.prepare(bytemuck::pod_read_unaligned(entry));
                entry.copy_from_slice(bytemuck::bytes_of(&prepared));
                entries.push((memory.kernels_entries().wrapping_add(offset), bytes));
            }
        }
        let rings = rings();
        let Some(ring) = rings.iter().find(|ring| ring.file == file) else { return Err(Errno::EBADF) };
        let _one = ring.submitting.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.word(memory.head.into())? != head {
            continue; // U2
        }
        for (at, bytes) in &entries {
            access::write_bytes(*at, bytes)?;
        }
        return hand_over(count as usize);
    }
}

/// Waits for completions, with the signal mask and up to the time that the arguments say.
fn wait(call: &mut Call<'_>, flags: u32) -> Result {
    let [fd, _, least, _, arg, size] = call.args;
    let nr = libc::SYS_io_uring_enter;
    if flags & flag::EXT_ARG == 0 {
        let mask = poll::sigset(GuestAddr(arg), size)?;
        return poll::masked(call, mask, nr, |mask| [fd, 0, least, flags.into(), mask, 8]);
    }
    if size != size_of::<GetEvents>() as u64 {
        return Err(Errno::EINVAL);
    }
    let wanted = call.read::<GetEvents>(4)?;
    if !is_guest_address(wanted.limit) {
        return Err(Errno::EFAULT);
    }
    let mask = poll::sigset(GuestAddr(wanted.sigmask), wanted.sigmask_size.into())?;
    let mut events = GetEvents { sigmask_size: 8, ..wanted };
    let at = host::out(&mut events);
    poll::masked(call, mask, nr, |mask| {
        events.sigmask = mask;
        [fd, 0, least, flags.into(), at, size]
    })
}
