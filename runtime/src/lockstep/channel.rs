//! The shared memory through which the controller talks to its agents.
//!
//! A memory file of [`SEATS`] seats, one for each process that runs guest code under control. Controller and agent take turns: who
//! has the turn owns the seat's words, the other sleeps on its futex. So no descriptor of the guest's is in the way, and an
//! agent that has called `execve` finds its seat again through `/proc/CONTROLLER/fd`.
//!
//! # Safety
//! The mapping is as long as all seats and is never unmapped. A seat's words are only touched by the side that has the turn,
//! which passes with release and acquire order; `turn`, `born` and the counter of seats are atomic.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::{NonNull, null, null_mut};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Processes that may take part, dead ones included.
const SEATS: u32 = 4096;
/// Bytes of one seat; only what is used takes memory.
const SEAT_SIZE: usize = 8 << 20;
/// Bytes of a seat before its words.
const HEAD: usize = 64;

/// Who may write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Turn {
    Agent = 1,
    Controller = 2,
}

/// First words of a seat.
#[repr(C)]
struct Head {
    turn: AtomicU32,
    /// Process that the agent has made last, 0 if none is ready.
    born: AtomicU32,
    /// Number of seats given out; in seat 0 only.
    given: AtomicU32,
    _unused: u32,
    /// Number of words in the message.
    len: u64,
}

/// The memory file, in the controller.
pub(crate) struct Channel {
    file: File,
    base: NonNull<u8>,
}

/// One seat.
#[derive(Clone, Copy)]
pub(crate) struct Seat {
    base: NonNull<u8>,
    index: u32,
}

// SAFETY: shared memory that lives as long as the process, under the protocol above.
unsafe impl Send for Seat {}
// SAFETY: as above.
unsafe impl Sync for Seat {}
// SAFETY: as above.
unsafe impl Sync for Channel {}
// SAFETY: as above.
unsafe impl Send for Channel {}

fn map(file: &File) -> io::Result<NonNull<u8>> {
    let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_NORESERVE);
    // SAFETY: a new mapping of the whole file.
    let at = unsafe { libc::mmap(null_mut(), SEATS as usize * SEAT_SIZE, prot, flags, file.as_raw_fd(), 0) };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(NonNull::new(at.cast()).expect("mappings are not at 0"))
}

impl Channel {
    /// What its memory is called in `/proc/PID/maps`.
    pub(crate) const NAME: &str = "calque diff";

    /// An empty channel, whose first seat is taken.
    pub(crate) fn new() -> io::Result<Channel> {
        use nix::sys::memfd::{MFdFlags, memfd_create};
        let file = File::from(memfd_create(Self::NAME, MFdFlags::MFD_CLOEXEC)?);
        file.set_len(SEATS as u64 * SEAT_SIZE as u64)?;
        let channel = Channel { base: map(&file)?, file };
        channel.seat(0).head().given.store(1, Ordering::Relaxed);
        Ok(channel)
    }

    /// The descriptor, for agents that open `/proc/CONTROLLER/fd/N`.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// A seat by number.
    pub(crate) fn seat(&self, index: u32) -> Seat {
        assert!(index < SEATS);
        Seat { base: self.base, index }
    }

    /// A seat that nobody has had.
    pub(crate) fn free_seat(&self) -> Option<u32> {
        self.seat(0).claim()
    }
}

impl Seat {
    /// The seat of an agent whose controller is another process.
    pub(crate) fn open(controller: i32, descriptor: RawFd, index: u32) -> io::Result<Seat> {
        let file = File::options().read(true).write(true).open(format!("/proc/{controller}/fd/{descriptor}"))?;
        Ok(Seat { base: map(&file)?, index })
    }

    /// Another seat of the same channel.
    pub(crate) fn other(self, index: u32) -> Seat {
        Seat { index, ..self }
    }

    /// Takes a seat that nobody has had.
    pub(crate) fn claim(self) -> Option<u32> {
        let given = self.other(0).head().given.fetch_add(1, Ordering::Relaxed);
        (given < SEATS).then_some(given)
    }

    fn address(&self) -> NonNull<u8> {
        // SAFETY: within the mapping.
        unsafe { self.base.add(self.index as usize * SEAT_SIZE) }
    }

    fn head(&self) -> &Head {
        // SAFETY: aligned memory of the mapping, of which only the atomics are used by both sides at once.
        unsafe { self.address().cast().as_ref() }
    }

    /// Gives the other side this message and the turn.
    pub(crate) fn send(&self, to: Turn, words: &[u64]) {
        assert!(HEAD + 8 * words.len() <= SEAT_SIZE, "a message of {} words", words.len());
        // SAFETY: it is our turn, and the message fits.
        unsafe {
            (&raw mut (*self.address().cast::<Head>().as_ptr()).len).write(words.len() as u64);
            let to = self.address().add(HEAD).cast::<u64>().as_ptr();
            std::ptr::copy_nonoverlapping(words.as_ptr(), to, words.len());
        }
        self.head().turn.store(to as u32, Ordering::Release);
        futex(&self.head().turn, libc::FUTEX_WAKE, 1, None);
    }

    /// Waits for a message to `me`; `None` when the time is up.
    pub(crate) fn receive(&self, me: Turn, limit: Duration) -> Option<Vec<u64>> {
        let deadline = Instant::now() + limit;
        loop {
            let turn = self.head().turn.load(Ordering::Acquire);
            if turn == me as u32 {
                return Some(self.take());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            futex(&self.head().turn, libc::FUTEX_WAIT, turn, Some(left));
        }
    }

    fn take(&self) -> Vec<u64> {
        // SAFETY: it is our turn.
        unsafe {
            let len = (&raw const (*self.address().cast::<Head>().as_ptr()).len).read() as usize;
            let from = self.address().add(HEAD).cast::<u64>().as_ptr();
            std::slice::from_raw_parts(from, len.min((SEAT_SIZE - HEAD) / 8)).to_vec()
        }
    }

    /// Announces a new process, or with 0 that there is none yet.
    pub(crate) fn announce(&self, pid: u32) {
        self.head().born.store(pid, Ordering::Release);
    }

    /// The process announced last; waits for it.
    pub(crate) fn announced(&self, limit: Duration) -> Option<i32> {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            match self.head().born.load(Ordering::Acquire) {
                0 => std::thread::yield_now(),
                pid => return Some(pid as i32),
            }
        }
        None
    }
}

/// `futex(2)` on a word that processes share.
fn futex(word: &AtomicU32, op: i32, value: u32, limit: Option<Duration>) {
    let limit = limit.map(|d| libc::timespec { tv_sec: d.as_secs() as i64, tv_nsec: i64::from(d.subsec_nanos()) });
    let limit = limit.as_ref().map_or(null(), std::ptr::from_ref);
    // SAFETY: the word is mapped; every outcome (EAGAIN, EINTR, a time-out) makes the caller look again.
    unsafe { libc::syscall(libc::SYS_futex, std::ptr::from_ref(word), op, value, limit, null::<u32>(), 0) };
}

/// Whether a process exists and has not ended: field 3 of `/proc/PID/stat` (proc(5)).
pub(crate) fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}
