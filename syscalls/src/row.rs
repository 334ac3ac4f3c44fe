//! `Row`: what the table says about one system call, and what follows from it alone.
//!
//! A row's argument types say which guest memory the kernel reads and writes. [`Arg::buffers`] turns them, with the
//! argument values, into address ranges: these are refused when they touch the translator, made writable when
//! they hold translated code, printed by `--strace`, and are what a recording has to keep.

use crate::call::Call;
use crate::strace::names::Names;
use calque_runtime::Outcome;
use nix::errno::Errno;

/// What answers the call.
#[derive(Clone, Copy)]
pub(crate) enum How {
    /// The host's call of the same name, with the arguments as they are.
    Pass,
    /// A handler with a value or an error number.
    Do(fn(&mut Call<'_>) -> Result<u64, Errno>),
    /// A handler that may end, replace or rewrite the thread.
    Ctl(fn(&mut Call<'_>) -> Outcome),
    /// Fixed error: the call exists for the guest's kernel, but not here (see the note).
    Fail(Errno),
    /// ENOSYS, as from a kernel without it.
    Nosys,
}

/// What a signal handler that runs during the call does to it: signal(7), "Interruption of system calls".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Restart {
    /// Never sleeps interruptibly.
    Quick,
    /// Sleeps; starts again after a handler with `SA_RESTART` (ERESTARTSYS).
    Sys,
    /// Sleeps; EINTR after any handler (ERESTARTNOHAND, ERESTART_RESTARTBLOCK).
    NoHand,
}

/// How far the call is supported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Level {
    /// As on Linux.
    Full,
    /// As on Linux but for what the note says.
    Part,
    /// Refused or missing; the note says what the guest sees.
    No,
}

/// Type of one argument. Numbers inside are positions of other arguments, from 0.
#[derive(Clone, Copy, Debug)]
#[rustfmt::skip]
pub(crate) enum Arg {
    // Plain numbers, by how they read best.
    Int, Uint, Long, Hex, Size, Off, Mode, Dev, Pid, Id, Sig,
    /// Open descriptor.
    Fd,
    /// Descriptor to look paths up from: `AT_FDCWD` or open.
    DirFd,
    /// An address that means something to the guest only (or that nobody needs decoded).
    Ptr,
    /// Path of something that is looked up: the sysroot is searched first.
    Path,
    /// Path of something that is made, removed or renamed; never the sysroot's.
    NewPath,
    /// Other NUL-terminated text.
    Str,
    /// NULL-terminated vector of texts.
    Argv,
    /// Or-ed flags, with at most one name for the bits under a mask.
    Bits(&'static Names),
    /// One of named values.
    One(&'static Names),
    /// Flags of clone(2): the low byte is a signal.
    CloneFlags,
    /// Option of {get,set}sockopt(2), whose level stands before it.
    SockOpt,
    /// Request of ioctl(2).
    Request,
    /// Bytes read; their number is the argument n.
    In(u8),
    /// Bytes written, at most argument n, as many as the result says.
    Out(u8),
    /// Bytes written, all of argument n.
    OutAll(u8),
    /// `struct iovec[n]` whose buffers are read.
    InIov(u8),
    /// `struct iovec[n]` whose buffers are written.
    OutIov(u8),
    /// `struct msghdr` sent.
    InMsg,
    /// `struct msghdr` received.
    OutMsg,
    /// `struct mmsghdr[n]` sent.
    InMmsg(u8),
    /// `struct mmsghdr[n]` received.
    OutMmsg(u8),
    /// Socket address of n bytes.
    InSock(u8),
    /// Socket address written; its length stands where argument n points.
    OutSock(u8),
    /// A structure read, written, or both.
    InS(Struct),
    OutS(Struct),
    IoS(Struct),
    /// n structures read, written, or both.
    InA(Struct, u8),
    OutA(Struct, u8),
    IoA(Struct, u8),
    /// `fd_set` of as many bits as argument 0 says, read and written.
    FdSet,
    /// Third argument of ioctl: the request says what it is.
    Ioctl,
    /// Third argument of fcntl: the command says what it is.
    Fcntl,
}

/// Which way memory goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dir {
    /// The kernel reads it.
    In,
    /// The kernel writes it.
    Out,
}

/// A structure of the guest's kernel interface: size for all, text for those `--strace` decodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[rustfmt::skip]
pub(crate) enum Struct {
    Stat, Statx, Statfs, Timespec, Timeval, Timezone, Itimerspec, Itimerval, Rusage, Sysinfo, Utsname, Tms, Rlimit,
    Sigaction, Sigset, Siginfo, Stack, Pollfd, EpollEvent, FdPair, I32, U32, I64, U64, Utimbuf, CloneArgs, OpenHow,
    SchedParam, Sembuf, Sigevent, Timex, WaitStatus,
    /// So many bytes that nobody decodes.
    Blob(u16),
}

impl Struct {
    /// Size in bytes in the x86-64 ABI.
    pub(crate) const fn size(self) -> u64 {
        use Struct::*;
        match self {
            I32 | U32 | SchedParam | WaitStatus => 4,
            Sembuf => 6,
            I64 | U64 | Sigset | Pollfd | FdPair | Timezone => 8,
            EpollEvent => 12,
            Timespec | Timeval | Rlimit | Utimbuf => 16,
            Stack | OpenHow => 24,
            Itimerspec | Itimerval | Tms | Sigaction => 32,
            Sigevent => 64,
            CloneArgs => 88,
            Sysinfo => 112,
            Statfs => 120,
            Siginfo => 128,
            Stat | Rusage => 144,
            Timex => 208,
            Statx => 256,
            Utsname => 390,
            Blob(n) => n as u64,
        }
    }
}

/// One system call.
pub(crate) struct Row {
    /// x86-64 number.
    pub nr: u32,
    /// Kernel's name.
    pub name: &'static str,
    pub how: How,
    pub restart: Restart,
    pub level: Level,
    pub args: &'static [Arg],
    /// What differs from Linux, for the reader of `docs/SYSCALLS.md`; empty when nothing does.
    pub note: &'static str,
}

impl Arg {
    /// Whether it is a number that no check looks at.
    pub(crate) fn is_number(self) -> bool {
        use Arg::*;
        matches!(
            self,
            Int | Uint | Long | Hex | Size | Off | Mode | Dev | Pid | Id | Sig | Bits(_) | One(_) | CloneFlags
        )
    }

    /// Memory that the kernel reads or writes because of argument `i`: two ranges (direction, address, length), empty where
    /// there is none. Buffers inside that memory are followed by the caller.
    pub(crate) fn buffers(self, args: &[u64; 6], i: usize) -> [(Dir, u64, u64); 2] {
        let at = args[i];
        let n = |k: u8| args[k as usize];
        let none = (Dir::In, 0, 0);
        let (a, b) = match self {
            Arg::In(k) | Arg::InSock(k) => ((Dir::In, at, n(k)), none),
            Arg::Out(k) | Arg::OutAll(k) => ((Dir::Out, at, n(k)), none),
            Arg::InIov(_) | Arg::OutIov(_) => ((Dir::In, at, 1), none),
            Arg::InMsg => ((Dir::In, at, MSGHDR), none),
            Arg::OutMsg => ((Dir::In, at, MSGHDR), (Dir::Out, at, MSGHDR)),
            Arg::InMmsg(k) | Arg::OutMmsg(k) => ((Dir::Out, at, MMSGHDR * n(k).min(IOV_MAX)), none),
            Arg::OutSock(k) => ((Dir::Out, at, SOCKADDR_STORAGE), (Dir::Out, n(k), 4)),
            Arg::InS(s) => ((Dir::In, at, s.size()), none),
            Arg::OutS(s) => ((Dir::Out, at, s.size()), none),
            Arg::IoS(s) => ((Dir::In, at, s.size()), (Dir::Out, at, s.size())),
            Arg::InA(s, k) => ((Dir::In, at, s.size().saturating_mul(n(k) as u32 as u64)), none),
            Arg::OutA(s, k) | Arg::IoA(s, k) => ((Dir::Out, at, s.size().saturating_mul(n(k) as u32 as u64)), none),
            Arg::FdSet => ((Dir::Out, at, (args[0] as u32 as u64).min(1 << 20).div_ceil(64) * 8), none),
            Arg::Path | Arg::NewPath | Arg::Str | Arg::Argv => ((Dir::In, at, 1), none),
            Arg::Ioctl => (crate::abi::ioctl::buffer(args[1] as u32, at), none),
            Arg::Fcntl => (crate::abi::fcntl::buffer(args[1] as u32, at), none),
            _ => (none, none),
        };
        [a, b]
    }
}

/// `UIO_MAXIOV` (linux/uio.h).
pub(crate) const IOV_MAX: u64 = 1024;
/// `sizeof(struct msghdr)` and `struct mmsghdr` (linux/socket.h, 64 bit).
pub(crate) const MSGHDR: u64 = 56;
pub(crate) const MMSGHDR: u64 = 64;
/// `sizeof(struct sockaddr_storage)`.
const SOCKADDR_STORAGE: u64 = 128;
