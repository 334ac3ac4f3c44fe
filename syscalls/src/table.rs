//! The table: one row per x86-64 system call, in number order (arch/x86/entry/syscalls/syscall_64.tbl).
//!
//! From a row come dispatch, `--strace`, the memory the kernel reads and writes, and docs/SYSCALLS.md.
//! `Pass` rows go to the host's call of the same name; the arguments are the same on both hosts then.
//! How to add one: docs/ADD-A-SYSCALL.md.

use crate::row::Arg::*;
use crate::row::How::*;
use crate::row::Level::*;
use crate::row::Restart::*;
use crate::row::Struct::*;
use crate::row::{Arg, How, Level, Restart, Row};
use crate::strace::names::*;
use crate::{arch, file, ipc, memory, misc, net, poll, process, signal, time, trace, uring, userfault};
use nix::errno::Errno::{EINTR, EINVAL, ENOSPC, EPERM};
use once_cell::race::OnceBox;

/// Numbers end below this.
const LIMIT: usize = 512;

/// The table by number: looked at for every system call.
static BY_NUMBER: [Option<&'static Row>; LIMIT] = {
    let mut index = [None; LIMIT];
    let mut row = 0;
    while row < TABLE.len() {
        index[TABLE[row].nr as usize] = Some(&TABLE[row]);
        row += 1;
    }
    index
};

/// Numbers of the host's calls, by the guest's. They are looked for by name, so only those that a program makes.
static HOST_NUMBERS: [OnceBox<Option<u32>>; LIMIT] = [const { OnceBox::new() }; LIMIT];

/// The row of a number.
pub(crate) fn row(nr: u64) -> Option<&'static Row> {
    *BY_NUMBER.get(usize::try_from(nr).ok()?)?
}

/// The host's number of the row's call, if it has it.
pub(crate) fn host_number(row: &Row) -> Option<libc::c_long> {
    let host = HOST_NUMBERS[row.nr as usize].get_or_init(|| Box::new(arch::host_number(row.name, row.nr)));
    host.map(libc::c_long::from)
}

const fn r(
    nr: u32,
    name: &'static str,
    how: How,
    restart: Restart,
    level: Level,
    args: &'static [Arg],
    note: &'static str,
) -> Row {
    Row { nr, name, how, restart, level, args, note }
}

/// Every system call that x86-64 Linux has had, and has up to 6.18.
#[rustfmt::skip]
pub(crate) static TABLE: &[Row] = &[
    //  nr  name                       how                            restart level args  note
    r(  0, "read",                    Pass,                          Sys,    Full, &[Fd, Out(2), Size], ""),
    r(  1, "write",                   Pass,                          Sys,    Full, &[Fd, In(2), Size], ""),
    r(  2, "open",                    Do(file::open),                Sys,    Full, &[Path, Bits(&OPEN), Mode], "as openat"),
    r(  3, "close",                   Pass,                          Quick,  Full, &[Fd], ""),
    r(  4, "stat",                    Do(file::stat),                Quick,  Full, &[Path, OutS(Stat)], "see getdents64"),
    r(  5, "fstat",                   Do(file::fstat),               Quick,  Full, &[Fd, OutS(Stat)], "see getdents64"),
    r(  6, "lstat",                   Do(file::lstat),               Quick,  Full, &[Path, OutS(Stat)], "see getdents64"),
    r(  7, "poll",                    Do(poll::poll),                NoHand, Full, &[IoA(Pollfd, 1), Uint, Int], ""),
    r(  8, "lseek",                   Pass,                          Quick,  Full, &[Fd, Off, One(&SEEK)], ""),
    r(  9, "mmap",                    Do(memory::mmap),              Quick,  Full, &[Ptr, Size, Bits(&PROT), Bits(&MAP), Fd, Hex], ""),
    r( 10, "mprotect",                Do(memory::mprotect),          Quick,  Full, &[Ptr, Size, Bits(&PROT)], ""),
    r( 11, "munmap",                  Do(memory::munmap),            Quick,  Full, &[Ptr, Size], ""),
    r( 12, "brk",                     Do(memory::brk),               Quick,  Full, &[Ptr], ""),
    r( 13, "rt_sigaction",            Do(signal::rt_sigaction),      Quick,  Full, &[Sig, InS(Sigaction), OutS(Sigaction), Size], ""),
    r( 14, "rt_sigprocmask",          Do(signal::rt_sigprocmask),    Quick,  Full, &[One(&SIG_HOW), InS(Sigset), OutS(Sigset), Size], ""),
    r( 15, "rt_sigreturn",            Ctl(signal::rt_sigreturn),     Quick,  Full, &[], ""),
    r( 16, "ioctl",                   Do(userfault::ioctl),          Sys,    Full, &[Fd, Request, Ioctl], "requests whose structures hold pointers to buffers are not checked against the translator's memory"),
    r( 17, "pread64",                 Pass,                          Sys,    Full, &[Fd, Out(2), Size, Off], ""),
    r( 18, "pwrite64",                Pass,                          Sys,    Full, &[Fd, In(2), Size, Off], ""),
    r( 19, "readv",                   Pass,                          Sys,    Full, &[Fd, OutIov(2), Int], ""),
    r( 20, "writev",                  Pass,                          Sys,    Full, &[Fd, InIov(2), Int], ""),
    r( 21, "access",                  Do(file::access),              Quick,  Full, &[Path, Bits(&ACCESS)], ""),
    r( 22, "pipe",                    Do(file::pipe),                Quick,  Full, &[OutS(FdPair)], ""),
    r( 23, "select",                  Do(poll::select),              NoHand, Full, &[Int, FdSet, FdSet, FdSet, IoS(Timeval)], ""),
    r( 24, "sched_yield",             Pass,                          Quick,  Full, &[], ""),
    r( 25, "mremap",                  Do(memory::mremap),            Quick,  Full, &[Ptr, Size, Size, Bits(&MREMAP), Ptr], ""),
    r( 26, "msync",                   Do(memory::msync),             Quick,  Full, &[Ptr, Size, Bits(&MSYNC)], ""),
    r( 27, "mincore",                 Do(memory::mincore),           Quick,  Full, &[Ptr, Size, Ptr], ""),
    r( 28, "madvise",                 Do(memory::madvise),           Quick,  Full, &[Ptr, Size, One(&MADV)], ""),
    r( 29, "shmget",                  Pass,                          Quick,  Full, &[Int, Size, Bits(&IPC)], ""),
    r( 30, "shmat",                   Do(ipc::shmat),                Quick,  Part, &[Int, Ptr, Bits(&SHM)], "segments are never executable"),
    r( 31, "shmctl",                  Pass,                          Quick,  Full, &[Int, One(&IPC_CMD), OutS(Blob(112))], ""),
    r( 32, "dup",                     Pass,                          Quick,  Full, &[Fd], ""),
    r( 33, "dup2",                    Do(file::dup2),                Quick,  Full, &[Fd, Fd], ""),
    r( 34, "pause",                   Do(signal::pause),             NoHand, Full, &[], ""),
    r( 35, "nanosleep",               Pass,                          NoHand, Full, &[InS(Timespec), OutS(Timespec)], ""),
    r( 36, "getitimer",               Pass,                          Quick,  Full, &[One(&ITIMER), OutS(Itimerval)], ""),
    r( 37, "alarm",                   Do(time::alarm),               Quick,  Full, &[Uint], ""),
    r( 38, "setitimer",               Pass,                          Quick,  Full, &[One(&ITIMER), InS(Itimerval), OutS(Itimerval)], ""),
    r( 39, "getpid",                  Pass,                          Quick,  Full, &[], ""),
    r( 40, "sendfile",                Pass,                          Sys,    Full, &[Fd, Fd, IoS(I64), Size], ""),
    r( 41, "socket",                  Pass,                          Quick,  Full, &[One(&AF), Bits(&SOCK), Int], ""),
    r( 42, "connect",                 Pass,                          Sys,    Full, &[Fd, InSock(2), Uint], ""),
    r( 43, "accept",                  Pass,                          Sys,    Full, &[Fd, OutSock(2), Ptr], ""),
    r( 44, "sendto",                  Pass,                          Sys,    Full, &[Fd, In(2), Size, Bits(&MSG), InSock(5), Uint], ""),
    r( 45, "recvfrom",                Pass,                          Sys,    Full, &[Fd, Out(2), Size, Bits(&MSG), OutSock(5), Ptr], ""),
    r( 46, "sendmsg",                 Pass,                          Sys,    Full, &[Fd, InMsg, Bits(&MSG)], ""),
    r( 47, "recvmsg",                 Pass,                          Sys,    Full, &[Fd, OutMsg, Bits(&MSG)], ""),
    r( 48, "shutdown",                Pass,                          Quick,  Full, &[Fd, One(&SHUT)], ""),
    r( 49, "bind",                    Pass,                          Quick,  Full, &[Fd, InSock(2), Uint], ""),
    r( 50, "listen",                  Pass,                          Quick,  Full, &[Fd, Int], ""),
    r( 51, "getsockname",             Pass,                          Quick,  Full, &[Fd, OutSock(2), Ptr], ""),
    r( 52, "getpeername",             Pass,                          Quick,  Full, &[Fd, OutSock(2), Ptr], ""),
    r( 53, "socketpair",              Pass,                          Quick,  Full, &[One(&AF), Bits(&SOCK), Int, OutS(FdPair)], ""),
    r( 54, "setsockopt",              Pass,                          Quick,  Full, &[Fd, One(&SOL), SockOpt, In(4), Uint], ""),
    r( 55, "getsockopt",              Do(net::getsockopt),           Quick,  Full, &[Fd, One(&SOL), SockOpt, Ptr, IoS(U32)], ""),
    r( 56, "clone",                   Ctl(process::clone),           Quick,  Part, &[CloneFlags, Ptr, Ptr, Ptr, Hex], "CLONE_VM alone is EINVAL where the host makes a fork of vfork (user-mode emulators); CLONE_PIDFD of a thread is EINVAL"),
    r( 57, "fork",                    Ctl(process::fork),            Quick,  Full, &[], ""),
    r( 58, "vfork",                   Ctl(process::vfork),           Quick,  Full, &[], ""),
    r( 59, "execve",                  Ctl(process::execve),          Quick,  Full, &[Path, Argv, Argv], "x86-64 programs and scripts go on under Calque; programs of the host run as they are"),
    r( 60, "exit",                    Ctl(process::exit),            Quick,  Full, &[Int], ""),
    r( 61, "wait4",                   Do(trace::wait4),              Sys,    Full, &[Pid, OutS(WaitStatus), Bits(&WAIT), OutS(Rusage)], ""),
    r( 62, "kill",                    Pass,                          Quick,  Full, &[Pid, Sig], ""),
    r( 63, "uname",                   Do(misc::uname),               Quick,  Full, &[OutS(Utsname)], "machine is x86_64"),
    r( 64, "semget",                  Pass,                          Quick,  Full, &[Int, Int, Bits(&IPC)], ""),
    r( 65, "semop",                   Pass,                          NoHand, Full, &[Int, InA(Sembuf, 2), Size], ""),
    r( 66, "semctl",                  Do(ipc::semctl),               Quick,  Full, &[Int, Int, One(&IPC_CMD), Hex], ""),
    r( 67, "shmdt",                   Do(ipc::shmdt),                Quick,  Full, &[Ptr], ""),
    r( 68, "msgget",                  Pass,                          Quick,  Full, &[Int, Bits(&IPC)], ""),
    r( 69, "msgsnd",                  Pass,                          NoHand, Full, &[Int, In(2), Size, Bits(&IPC)], ""),
    r( 70, "msgrcv",                  Do(ipc::msgrcv),               NoHand, Full, &[Int, Ptr, Size, Long, Bits(&IPC)], ""),
    r( 71, "msgctl",                  Pass,                          Quick,  Full, &[Int, One(&IPC_CMD), OutS(Blob(120))], ""),
    r( 72, "fcntl",                   Do(file::fcntl),               Sys,    Full, &[Fd, One(&FCNTL), Fcntl], ""),
    r( 73, "flock",                   Pass,                          Sys,    Full, &[Fd, Bits(&FLOCK)], ""),
    r( 74, "fsync",                   Pass,                          Quick,  Full, &[Fd], ""),
    r( 75, "fdatasync",               Pass,                          Quick,  Full, &[Fd], ""),
    r( 76, "truncate",                Pass,                          Quick,  Full, &[NewPath, Off], ""),
    r( 77, "ftruncate",               Pass,                          Quick,  Full, &[Fd, Off], ""),
    r( 78, "getdents",                Do(file::getdents),            Quick,  Full, &[Fd, Out(2), Uint], "see getdents64"),
    r( 79, "getcwd",                  Pass,                          Quick,  Full, &[Out(1), Size], ""),
    r( 80, "chdir",                   Pass,                          Quick,  Full, &[NewPath], ""),
    r( 81, "fchdir",                  Pass,                          Quick,  Full, &[Fd], ""),
    r( 82, "rename",                  Do(file::rename),              Quick,  Full, &[NewPath, NewPath], ""),
    r( 83, "mkdir",                   Do(file::mkdir),               Quick,  Full, &[NewPath, Mode], ""),
    r( 84, "rmdir",                   Do(file::rmdir),               Quick,  Full, &[NewPath], ""),
    r( 85, "creat",                   Do(file::creat),               Sys,    Full, &[NewPath, Mode], ""),
    r( 86, "link",                    Do(file::link),                Quick,  Full, &[NewPath, NewPath], ""),
    r( 87, "unlink",                  Do(file::unlink),              Quick,  Full, &[NewPath], ""),
    r( 88, "symlink",                 Do(file::symlink),             Quick,  Full, &[Str, NewPath], ""),
    r( 89, "readlink",                Do(file::readlink),            Quick,  Full, &[Path, Out(2), Size], "/proc/self/exe is the guest's program"),
    r( 90, "chmod",                   Do(file::chmod),               Quick,  Full, &[NewPath, Mode], ""),
    r( 91, "fchmod",                  Pass,                          Quick,  Full, &[Fd, Mode], ""),
    r( 92, "chown",                   Do(file::chown),               Quick,  Full, &[NewPath, Id, Id], ""),
    r( 93, "fchown",                  Pass,                          Quick,  Full, &[Fd, Id, Id], ""),
    r( 94, "lchown",                  Do(file::lchown),              Quick,  Full, &[NewPath, Id, Id], ""),
    r( 95, "umask",                   Pass,                          Quick,  Full, &[Mode], ""),
    r( 96, "gettimeofday",            Do(time::gettimeofday),        Quick,  Full, &[OutS(Timeval), OutS(Timezone)], ""),
    r( 97, "getrlimit",               Do(process::getrlimit),        Quick,  Full, &[One(&RLIMIT), OutS(Rlimit)], ""),
    r( 98, "getrusage",               Pass,                          Quick,  Full, &[One(&RUSAGE), OutS(Rusage)], "counts Calque's own work too"),
    r( 99, "sysinfo",                 Pass,                          Quick,  Full, &[OutS(Sysinfo)], ""),
    r(100, "times",                   Pass,                          Quick,  Full, &[OutS(Tms)], ""),
    r(101, "ptrace",                  Do(trace::ptrace),             Quick,  Part, &[Int, Pid, Ptr, Ptr], "of threads in the caller's memory: ATTACH, DETACH, GETREGS, GETREGSET, PEEKDATA, as leak checks use them; else EPERM, and a line on stderr"),
    r(102, "getuid",                  Pass,                          Quick,  Full, &[], ""),
    r(103, "syslog",                  Pass,                          Sys,    Full, &[Int, Out(2), Int], ""),
    r(104, "getgid",                  Pass,                          Quick,  Full, &[], ""),
    r(105, "setuid",                  Pass,                          Quick,  Full, &[Id], "for all threads by the C library, as on Linux"),
    r(106, "setgid",                  Pass,                          Quick,  Full, &[Id], ""),
    r(107, "geteuid",                 Pass,                          Quick,  Full, &[], ""),
    r(108, "getegid",                 Pass,                          Quick,  Full, &[], ""),
    r(109, "setpgid",                 Pass,                          Quick,  Full, &[Pid, Pid], ""),
    r(110, "getppid",                 Pass,                          Quick,  Full, &[], ""),
    r(111, "getpgrp",                 Do(process::getpgrp),          Quick,  Full, &[], ""),
    r(112, "setsid",                  Pass,                          Quick,  Full, &[], ""),
    r(113, "setreuid",                Pass,                          Quick,  Full, &[Id, Id], ""),
    r(114, "setregid",                Pass,                          Quick,  Full, &[Id, Id], ""),
    r(115, "getgroups",               Pass,                          Quick,  Full, &[Int, OutA(U32, 0)], ""),
    r(116, "setgroups",               Pass,                          Quick,  Full, &[Size, InA(U32, 0)], ""),
    r(117, "setresuid",               Pass,                          Quick,  Full, &[Id, Id, Id], ""),
    r(118, "getresuid",               Pass,                          Quick,  Full, &[OutS(U32), OutS(U32), OutS(U32)], ""),
    r(119, "setresgid",               Pass,                          Quick,  Full, &[Id, Id, Id], ""),
    r(120, "getresgid",               Pass,                          Quick,  Full, &[OutS(U32), OutS(U32), OutS(U32)], ""),
    r(121, "getpgid",                 Pass,                          Quick,  Full, &[Pid], ""),
    r(122, "setfsuid",                Pass,                          Quick,  Full, &[Id], ""),
    r(123, "setfsgid",                Pass,                          Quick,  Full, &[Id], ""),
    r(124, "getsid",                  Pass,                          Quick,  Full, &[Pid], ""),
    r(125, "capget",                  Pass,                          Quick,  Full, &[IoS(Blob(8)), OutS(Blob(24))], ""),
    r(126, "capset",                  Pass,                          Quick,  Full, &[IoS(Blob(8)), InS(Blob(24))], ""),
    r(127, "rt_sigpending",           Do(signal::rt_sigpending),     Quick,  Full, &[OutS(Sigset), Size], ""),
    r(128, "rt_sigtimedwait",         Do(signal::rt_sigtimedwait),   NoHand, Full, &[InS(Sigset), OutS(Siginfo), InS(Timespec), Size], ""),
    r(129, "rt_sigqueueinfo",         Pass,                          Quick,  Full, &[Pid, Sig, InS(Siginfo)], ""),
    r(130, "rt_sigsuspend",           Do(signal::rt_sigsuspend),     NoHand, Full, &[InS(Sigset), Size], ""),
    r(131, "sigaltstack",             Do(signal::sigaltstack),       Quick,  Full, &[InS(Stack), OutS(Stack)], ""),
    r(132, "utime",                   Do(time::utime),               Quick,  Full, &[NewPath, InS(Utimbuf)], ""),
    r(133, "mknod",                   Do(file::mknod),               Quick,  Full, &[NewPath, Mode, Dev], ""),
    r(134, "uselib",                  Nosys,                         Quick,  No,   &[Path], "removed from Linux"),
    r(135, "personality",             Do(process::personality),      Quick,  Part, &[Hex], "flags are kept and inherited, READ_IMPLIES_EXEC has no effect"),
    r(136, "ustat",                   Pass,                          Quick,  Full, &[Dev, OutS(Blob(32))], "ENOSYS on AArch64 hosts"),
    r(137, "statfs",                  Pass,                          Quick,  Full, &[Path, OutS(Statfs)], ""),
    r(138, "fstatfs",                 Pass,                          Quick,  Full, &[Fd, OutS(Statfs)], ""),
    r(139, "sysfs",                   Pass,                          Quick,  Full, &[Int, Ptr, Ptr], "ENOSYS on AArch64 hosts"),
    r(140, "getpriority",             Pass,                          Quick,  Full, &[One(&PRIO), Id], ""),
    r(141, "setpriority",             Pass,                          Quick,  Full, &[One(&PRIO), Id, Int], ""),
    r(142, "sched_setparam",          Pass,                          Quick,  Full, &[Pid, InS(SchedParam)], ""),
    r(143, "sched_getparam",          Pass,                          Quick,  Full, &[Pid, OutS(SchedParam)], ""),
    r(144, "sched_setscheduler",      Pass,                          Quick,  Full, &[Pid, Bits(&SCHED), InS(SchedParam)], ""),
    r(145, "sched_getscheduler",      Pass,                          Quick,  Full, &[Pid], ""),
    r(146, "sched_get_priority_max",  Pass,                          Quick,  Full, &[Bits(&SCHED)], ""),
    r(147, "sched_get_priority_min",  Pass,                          Quick,  Full, &[Bits(&SCHED)], ""),
    r(148, "sched_rr_get_interval",   Pass,                          Quick,  Full, &[Pid, OutS(Timespec)], ""),
    r(149, "mlock",                   Do(memory::range_pass),        Quick,  Full, &[Ptr, Size], ""),
    r(150, "munlock",                 Do(memory::range_pass),        Quick,  Full, &[Ptr, Size], ""),
    r(151, "mlockall",                Do(memory::mlockall),          Quick,  Part, &[Bits(&MCL)], "succeeds and locks nothing: Calque's own memory would be locked with the guest's"),
    r(152, "munlockall",              Do(memory::mlockall),          Quick,  Part, &[], "see mlockall"),
    r(153, "vhangup",                 Pass,                          Quick,  Full, &[], ""),
    r(154, "modify_ldt",              Nosys,                         Quick,  No,   &[Int, Ptr, Size], "ENOSYS, as kernels without CONFIG_MODIFY_LDT_SYSCALL"),
    r(155, "pivot_root",              Pass,                          Quick,  Full, &[NewPath, NewPath], ""),
    r(156, "_sysctl",                 Nosys,                         Quick,  No,   &[Ptr], "removed from Linux"),
    r(157, "prctl",                   Do(process::prctl),            Quick,  Part, &[One(&PRCTL), Hex, Hex, Hex, Hex], "PR_SET_SECCOMP, PR_SET_MM, PR_SET_SYSCALL_USER_DISPATCH are EINVAL or EPERM"),
    r(158, "arch_prctl",              Do(process::arch_prctl),       Quick,  Part, &[One(&ARCH_PRCTL), Hex], "FS and GS base, CPUID faulting off; shadow stacks and AMX permissions are EINVAL"),
    r(159, "adjtimex",                Pass,                          Quick,  Full, &[IoS(Timex)], ""),
    r(160, "setrlimit",               Do(process::setrlimit),        Quick,  Part, &[One(&RLIMIT), InS(Rlimit)], "see prlimit64"),
    r(161, "chroot",                  Pass,                          Quick,  Part, &[NewPath], "Calque itself must be found inside by a later execve"),
    r(162, "sync",                    Pass,                          Quick,  Full, &[], ""),
    r(163, "acct",                    Pass,                          Quick,  Full, &[NewPath], ""),
    r(164, "settimeofday",            Pass,                          Quick,  Full, &[InS(Timeval), InS(Timezone)], ""),
    r(165, "mount",                   Pass,                          Quick,  Full, &[Str, NewPath, Str, Hex, Ptr], ""),
    r(166, "umount2",                 Pass,                          Quick,  Full, &[NewPath, Hex], ""),
    r(167, "swapon",                  Pass,                          Quick,  Full, &[NewPath, Hex], ""),
    r(168, "swapoff",                 Pass,                          Quick,  Full, &[NewPath], ""),
    r(169, "reboot",                  Pass,                          Quick,  Full, &[Hex, Hex, Hex, Ptr], ""),
    r(170, "sethostname",             Pass,                          Quick,  Full, &[In(1), Size], ""),
    r(171, "setdomainname",           Pass,                          Quick,  Full, &[In(1), Size], ""),
    r(172, "iopl",                    Fail(EPERM),                   Quick,  No,   &[Int], "EPERM: no port input and output"),
    r(173, "ioperm",                  Fail(EPERM),                   Quick,  No,   &[Hex, Hex, Int], "EPERM: no port input and output"),
    r(174, "create_module",           Nosys,                         Quick,  No,   &[], "removed from Linux"),
    r(175, "init_module",             Fail(EPERM),                   Quick,  No,   &[Ptr, Size, Str], "EPERM: a module for x86-64 does not fit the host"),
    r(176, "delete_module",           Fail(EPERM),                   Quick,  No,   &[Str, Hex], "EPERM"),
    r(177, "get_kernel_syms",         Nosys,                         Quick,  No,   &[], "removed from Linux"),
    r(178, "query_module",            Nosys,                         Quick,  No,   &[], "removed from Linux"),
    r(179, "quotactl",                Pass,                          Quick,  Full, &[Hex, NewPath, Int, Ptr], ""),
    r(180, "nfsservctl",              Nosys,                         Quick,  No,   &[], "removed from Linux"),
    r(181, "getpmsg",                 Nosys,                         Quick,  No,   &[], "never in Linux"),
    r(182, "putpmsg",                 Nosys,                         Quick,  No,   &[], "never in Linux"),
    r(183, "afs_syscall",             Nosys,                         Quick,  No,   &[], "never in Linux"),
    r(184, "tuxcall",                 Nosys,                         Quick,  No,   &[], "never in Linux"),
    r(185, "security",                Nosys,                         Quick,  No,   &[], "never in Linux"),
    r(186, "gettid",                  Pass,                          Quick,  Full, &[], ""),
    r(187, "readahead",               Pass,                          Quick,  Full, &[Fd, Off, Size], ""),
    r(188, "setxattr",                Pass,                          Quick,  Full, &[NewPath, Str, In(3), Size, Bits(&XATTR)], ""),
    r(189, "lsetxattr",               Pass,                          Quick,  Full, &[NewPath, Str, In(3), Size, Bits(&XATTR)], ""),
    r(190, "fsetxattr",               Pass,                          Quick,  Full, &[Fd, Str, In(3), Size, Bits(&XATTR)], ""),
    r(191, "getxattr",                Pass,                          Quick,  Full, &[Path, Str, Out(3), Size], ""),
    r(192, "lgetxattr",               Pass,                          Quick,  Full, &[Path, Str, Out(3), Size], ""),
    r(193, "fgetxattr",               Pass,                          Quick,  Full, &[Fd, Str, Out(3), Size], ""),
    r(194, "listxattr",               Pass,                          Quick,  Full, &[Path, Out(2), Size], ""),
    r(195, "llistxattr",              Pass,                          Quick,  Full, &[Path, Out(2), Size], ""),
    r(196, "flistxattr",              Pass,                          Quick,  Full, &[Fd, Out(2), Size], ""),
    r(197, "removexattr",             Pass,                          Quick,  Full, &[NewPath, Str], ""),
    r(198, "lremovexattr",            Pass,                          Quick,  Full, &[NewPath, Str], ""),
    r(199, "fremovexattr",            Pass,                          Quick,  Full, &[Fd, Str], ""),
    r(200, "tkill",                   Pass,                          Quick,  Full, &[Pid, Sig], ""),
    r(201, "time",                    Do(time::time),                Quick,  Full, &[OutS(I64)], ""),
    r(202, "futex",                   Do(process::futex),            Sys,    Full, &[Ptr, Bits(&FUTEX), Uint, Ptr, Ptr, Uint], ""),
    r(203, "sched_setaffinity",       Pass,                          Quick,  Full, &[Pid, In(1), Size], ""),
    r(204, "sched_getaffinity",       Pass,                          Quick,  Full, &[Pid, Size, Out(1)], ""),
    r(205, "set_thread_area",         Nosys,                         Quick,  No,   &[Ptr], "ENOSYS, as x86-64 Linux for 64-bit programs"),
    r(206, "io_setup",                Nosys,                         Quick,  No,   &[Uint, Ptr], "ENOSYS, as kernels without CONFIG_AIO: the kernel would map its ring where it likes"),
    r(207, "io_destroy",              Nosys,                         Quick,  No,   &[Hex], "see io_setup"),
    r(208, "io_getevents",            Nosys,                         Quick,  No,   &[Hex, Long, Long, Ptr, InS(Timespec)], "see io_setup"),
    r(209, "io_submit",               Nosys,                         Quick,  No,   &[Hex, Long, Ptr], "see io_setup"),
    r(210, "io_cancel",               Nosys,                         Quick,  No,   &[Hex, Ptr, Ptr], "see io_setup"),
    r(211, "get_thread_area",         Nosys,                         Quick,  No,   &[Ptr], "ENOSYS, as x86-64 Linux for 64-bit programs"),
    r(212, "lookup_dcookie",          Nosys,                         Quick,  No,   &[Hex, Ptr, Size], "removed from Linux"),
    r(213, "epoll_create",            Do(poll::epoll_create),        Quick,  Full, &[Int], ""),
    r(214, "epoll_ctl_old",           Nosys,                         Quick,  No,   &[], "never in Linux"),
    r(215, "epoll_wait_old",          Nosys,                         Quick,  No,   &[], "never in Linux"),
    r(216, "remap_file_pages",        Nosys,                         Quick,  No,   &[Ptr, Size, Bits(&PROT), Size, Bits(&MAP)], "ENOSYS: deprecated, unused"),
    r(217, "getdents64",              Do(file::getdents64),          Quick,  Full, &[Fd, Out(2), Uint], "/proc/self/task has the guest's threads only"),
    r(218, "set_tid_address",         Do(process::set_tid_address),  Quick,  Full, &[Ptr], ""),
    r(219, "restart_syscall",         Fail(EINTR),                   Quick,  No,   &[], "EINTR: Calque restarts calls itself"),
    r(220, "semtimedop",              Pass,                          NoHand, Full, &[Int, InA(Sembuf, 2), Size, InS(Timespec)], ""),
    r(221, "fadvise64",               Pass,                          Quick,  Full, &[Fd, Off, Size, One(&FADV)], ""),
    r(222, "timer_create",            Pass,                          Quick,  Full, &[One(&CLOCK), InS(Sigevent), OutS(I32)], ""),
    r(223, "timer_settime",           Pass,                          Quick,  Full, &[Int, Bits(&TIMER), InS(Itimerspec), OutS(Itimerspec)], ""),
    r(224, "timer_gettime",           Pass,                          Quick,  Full, &[Int, OutS(Itimerspec)], ""),
    r(225, "timer_getoverrun",        Pass,                          Quick,  Full, &[Int], ""),
    r(226, "timer_delete",            Pass,                          Quick,  Full, &[Int], ""),
    r(227, "clock_settime",           Pass,                          Quick,  Full, &[One(&CLOCK), InS(Timespec)], ""),
    r(228, "clock_gettime",           Do(time::clock_gettime),       Quick,  Full, &[One(&CLOCK), OutS(Timespec)], ""),
    r(229, "clock_getres",            Pass,                          Quick,  Full, &[One(&CLOCK), OutS(Timespec)], ""),
    r(230, "clock_nanosleep",         Pass,                          NoHand, Full, &[One(&CLOCK), Bits(&TIMER), InS(Timespec), OutS(Timespec)], ""),
    r(231, "exit_group",              Ctl(process::exit_group),      Quick,  Full, &[Int], ""),
    r(232, "epoll_wait",              Do(poll::epoll_wait),          NoHand, Full, &[Fd, OutA(EpollEvent, 2), Int, Int], ""),
    r(233, "epoll_ctl",               Do(poll::epoll_ctl),           Quick,  Full, &[Fd, One(&EPOLL_CTL), Fd, InS(EpollEvent)], ""),
    r(234, "tgkill",                  Pass,                          Quick,  Full, &[Pid, Pid, Sig], ""),
    r(235, "utimes",                  Do(time::utimes),              Quick,  Full, &[NewPath, InS(Itimerval)], ""),
    r(236, "vserver",                 Nosys,                         Quick,  No,   &[], "never in Linux"),
    r(237, "mbind",                   Do(memory::range_pass),        Quick,  Full, &[Ptr, Size, Int, Ptr, Size, Hex], ""),
    r(238, "set_mempolicy",           Pass,                          Quick,  Full, &[Int, Ptr, Size], ""),
    r(239, "get_mempolicy",           Pass,                          Quick,  Full, &[OutS(I32), Ptr, Size, Ptr, Hex], ""),
    r(240, "mq_open",                 Pass,                          Quick,  Full, &[NewPath, Bits(&OPEN), Mode, InS(Blob(64))], ""),
    r(241, "mq_unlink",               Pass,                          Quick,  Full, &[NewPath], ""),
    r(242, "mq_timedsend",            Pass,                          Sys,    Full, &[Fd, In(2), Size, Uint, InS(Timespec)], ""),
    r(243, "mq_timedreceive",         Pass,                          Sys,    Full, &[Fd, Out(2), Size, OutS(U32), InS(Timespec)], ""),
    r(244, "mq_notify",               Pass,                          Quick,  Full, &[Fd, InS(Sigevent)], ""),
    r(245, "mq_getsetattr",           Pass,                          Quick,  Full, &[Fd, InS(Blob(64)), OutS(Blob(64))], ""),
    r(246, "kexec_load",              Fail(EPERM),                   Quick,  No,   &[Ptr, Size, Ptr, Hex], "EPERM"),
    r(247, "waitid",                  Pass,                          Sys,    Full, &[One(&WAITID), Pid, OutS(Siginfo), Bits(&WAIT), OutS(Rusage)], ""),
    r(248, "add_key",                 Pass,                          Quick,  Full, &[Str, Str, In(3), Size, Int], ""),
    r(249, "request_key",             Pass,                          Sys,    Full, &[Str, Str, Str, Int], ""),
    r(250, "keyctl",                  Pass,                          Quick,  Full, &[Int, Hex, Hex, Hex, Hex], ""),
    r(251, "ioprio_set",              Pass,                          Quick,  Full, &[Int, Int, Int], ""),
    r(252, "ioprio_get",              Pass,                          Quick,  Full, &[Int, Int], ""),
    r(253, "inotify_init",            Do(poll::inotify_init),        Quick,  Full, &[], ""),
    r(254, "inotify_add_watch",       Pass,                          Quick,  Full, &[Fd, Path, Bits(&INOTIFY)], ""),
    r(255, "inotify_rm_watch",        Pass,                          Quick,  Full, &[Fd, Int], ""),
    r(256, "migrate_pages",           Pass,                          Quick,  Full, &[Pid, Size, Ptr, Ptr], ""),
    r(257, "openat",                  Do(file::openat),              Sys,    Full, &[DirFd, Path, Bits(&OPEN), Mode], "/proc/self/{exe,maps,smaps,cmdline,environ,auxv,status,stat} and /proc/cpuinfo show the guest"),
    r(258, "mkdirat",                 Pass,                          Quick,  Full, &[DirFd, NewPath, Mode], ""),
    r(259, "mknodat",                 Pass,                          Quick,  Full, &[DirFd, NewPath, Mode, Dev], ""),
    r(260, "fchownat",                Pass,                          Quick,  Full, &[DirFd, NewPath, Id, Id, Bits(&AT)], ""),
    r(261, "futimesat",               Do(time::futimesat),           Quick,  Full, &[DirFd, NewPath, InS(Itimerval)], ""),
    r(262, "newfstatat",              Do(file::newfstatat),          Quick,  Full, &[DirFd, Path, OutS(Stat), Bits(&AT)], "see getdents64"),
    r(263, "unlinkat",                Pass,                          Quick,  Full, &[DirFd, NewPath, Bits(&UNLINK)], ""),
    r(264, "renameat",                Pass,                          Quick,  Full, &[DirFd, NewPath, DirFd, NewPath], ""),
    r(265, "linkat",                  Pass,                          Quick,  Full, &[DirFd, NewPath, DirFd, NewPath, Bits(&AT)], ""),
    r(266, "symlinkat",               Pass,                          Quick,  Full, &[Str, DirFd, NewPath], ""),
    r(267, "readlinkat",              Do(file::readlinkat),          Quick,  Full, &[DirFd, Path, Out(3), Size], "see readlink"),
    r(268, "fchmodat",                Pass,                          Quick,  Full, &[DirFd, NewPath, Mode], ""),
    r(269, "faccessat",               Pass,                          Quick,  Full, &[DirFd, Path, Bits(&ACCESS)], ""),
    r(270, "pselect6",                Do(poll::pselect6),            NoHand, Full, &[Int, FdSet, FdSet, FdSet, IoS(Timespec), InS(Blob(16))], ""),
    r(271, "ppoll",                   Do(poll::ppoll),               NoHand, Full, &[IoA(Pollfd, 1), Uint, IoS(Timespec), InS(Sigset), Size], ""),
    r(272, "unshare",                 Pass,                          Quick,  Full, &[Bits(&CLONE)], ""),
    r(273, "set_robust_list",         Pass,                          Quick,  Full, &[Ptr, Size], ""),
    r(274, "get_robust_list",         Pass,                          Quick,  Full, &[Pid, OutS(U64), OutS(U64)], ""),
    r(275, "splice",                  Pass,                          Sys,    Full, &[Fd, IoS(I64), Fd, IoS(I64), Size, Bits(&SPLICE)], ""),
    r(276, "tee",                     Pass,                          Sys,    Full, &[Fd, Fd, Size, Bits(&SPLICE)], ""),
    r(277, "sync_file_range",         Pass,                          Quick,  Full, &[Fd, Off, Off, Hex], ""),
    r(278, "vmsplice",                Pass,                          Sys,    Full, &[Fd, InIov(2), Size, Bits(&SPLICE)], ""),
    r(279, "move_pages",              Pass,                          Quick,  Full, &[Pid, Size, Ptr, Ptr, Ptr, Hex], ""),
    r(280, "utimensat",               Pass,                          Quick,  Full, &[DirFd, NewPath, InS(Itimerspec), Bits(&AT)], ""),
    r(281, "epoll_pwait",             Do(poll::epoll_pwait),         NoHand, Full, &[Fd, OutA(EpollEvent, 2), Int, Int, InS(Sigset), Size], ""),
    r(282, "signalfd",                Do(signal::signalfd),          Quick,  Full, &[Int, InS(Sigset), Size], ""),
    r(283, "timerfd_create",          Pass,                          Quick,  Full, &[One(&CLOCK), Bits(&TFD)], ""),
    r(284, "eventfd",                 Do(poll::eventfd),             Quick,  Full, &[Uint], ""),
    r(285, "fallocate",               Pass,                          Sys,    Full, &[Fd, Bits(&FALLOC), Off, Off], ""),
    r(286, "timerfd_settime",         Pass,                          Quick,  Full, &[Fd, Bits(&TIMER), InS(Itimerspec), OutS(Itimerspec)], ""),
    r(287, "timerfd_gettime",         Pass,                          Quick,  Full, &[Fd, OutS(Itimerspec)], ""),
    r(288, "accept4",                 Pass,                          Sys,    Full, &[Fd, OutSock(2), Ptr, Bits(&SOCK)], ""),
    r(289, "signalfd4",               Pass,                          Quick,  Full, &[Int, InS(Sigset), Size, Bits(&TFD)], ""),
    r(290, "eventfd2",                Pass,                          Quick,  Full, &[Uint, Bits(&EFD)], ""),
    r(291, "epoll_create1",           Pass,                          Quick,  Full, &[Bits(&TFD)], ""),
    r(292, "dup3",                    Pass,                          Quick,  Full, &[Fd, Fd, Bits(&OPEN)], ""),
    r(293, "pipe2",                   Do(file::pipe2),               Quick,  Full, &[OutS(FdPair), Bits(&OPEN)], ""),
    r(294, "inotify_init1",           Pass,                          Quick,  Full, &[Bits(&TFD)], ""),
    r(295, "preadv",                  Pass,                          Sys,    Full, &[Fd, OutIov(2), Size, Off, Off], ""),
    r(296, "pwritev",                 Pass,                          Sys,    Full, &[Fd, InIov(2), Size, Off, Off], ""),
    r(297, "rt_tgsigqueueinfo",       Pass,                          Quick,  Full, &[Pid, Pid, Sig, InS(Siginfo)], ""),
    r(298, "perf_event_open",         Pass,                          Quick,  Part, &[Ptr, Pid, Int, Fd, Hex], "counts the translated program, not the guest's instructions"),
    r(299, "recvmmsg",                Pass,                          Sys,    Full, &[Fd, OutMmsg(2), Uint, Bits(&MSG), IoS(Timespec)], ""),
    r(300, "fanotify_init",           Do(file::fanotify_init),       Quick,  Full, &[Hex, Bits(&OPEN)], ""),
    r(301, "fanotify_mark",           Pass,                          Quick,  Full, &[Fd, Hex, Hex, DirFd, Path], ""),
    r(302, "prlimit64",               Do(process::prlimit64),        Quick,  Part, &[Pid, One(&RLIMIT), InS(Rlimit), OutS(Rlimit)], "RLIMIT_AS, DATA and STACK are remembered for the guest but do not limit it: they would limit Calque"),
    r(303, "name_to_handle_at",       Pass,                          Quick,  Full, &[DirFd, Path, Ptr, OutS(I32), Bits(&AT)], ""),
    r(304, "open_by_handle_at",       Do(file::open_by_handle_at),   Sys,    Full, &[DirFd, Ptr, Bits(&OPEN)], ""),
    r(305, "clock_adjtime",           Pass,                          Quick,  Full, &[One(&CLOCK), IoS(Timex)], ""),
    r(306, "syncfs",                  Pass,                          Quick,  Full, &[Fd], ""),
    r(307, "sendmmsg",                Pass,                          Sys,    Full, &[Fd, InMmsg(2), Uint, Bits(&MSG)], ""),
    r(308, "setns",                   Pass,                          Quick,  Full, &[Fd, Bits(&CLONE)], ""),
    r(309, "getcpu",                  Pass,                          Quick,  Full, &[OutS(U32), OutS(U32), Hex], ""),
    r(310, "process_vm_readv",        Pass,                          Quick,  Full, &[Pid, OutIov(2), Size, InIov(4), Size, Hex], "own process: the translator's memory is EFAULT"),
    r(311, "process_vm_writev",       Pass,                          Quick,  Full, &[Pid, InIov(2), Size, OutIov(4), Size, Hex], "own process: the translator's memory is EFAULT; another's: so are pages from which it has run code, which are write-protected there"),
    r(312, "kcmp",                    Pass,                          Quick,  Full, &[Pid, Pid, Int, Hex, Hex], ""),
    r(313, "finit_module",            Fail(EPERM),                   Quick,  No,   &[Fd, Str, Hex], "EPERM"),
    r(314, "sched_setattr",           Pass,                          Quick,  Full, &[Pid, InS(Blob(48)), Hex], ""),
    r(315, "sched_getattr",           Pass,                          Quick,  Full, &[Pid, OutAll(2), Uint, Hex], ""),
    r(316, "renameat2",               Pass,                          Quick,  Full, &[DirFd, NewPath, DirFd, NewPath, Bits(&RENAME)], ""),
    r(317, "seccomp",                 Fail(EINVAL),                  Quick,  No,   &[Int, Hex, Ptr], "EINVAL, as kernels without CONFIG_SECCOMP: filters would see Calque's own calls"),
    r(318, "getrandom",               Pass,                          Sys,    Full, &[Out(1), Size, Bits(&GRND)], ""),
    r(319, "memfd_create",            Pass,                          Quick,  Full, &[Str, Bits(&MFD)], ""),
    r(320, "kexec_file_load",         Fail(EPERM),                   Quick,  No,   &[Fd, Fd, Size, Str, Hex], "EPERM"),
    r(321, "bpf",                     Pass,                          Quick,  Part, &[Int, Ptr, Uint], "maps and programs pass; what they see is the host"),
    r(322, "execveat",                Ctl(process::execveat),        Quick,  Full, &[DirFd, Path, Argv, Argv, Bits(&AT)], "see execve"),
    r(323, "userfaultfd",             Do(userfault::userfaultfd),    Quick,  Part, &[Bits(&UFFD)], "without events of fork, mremap, madvise and munmap (UFFD_FEATURE_EVENT_*): UFFDIO_API does not offer them"),
    r(324, "membarrier",              Pass,                          Quick,  Part, &[Int, Hex, Int], "on AArch64 PRIVATE_EXPEDITED_SYNC_CORE needs no registration: Calque has one"),
    r(325, "mlock2",                  Do(memory::range_pass),        Quick,  Full, &[Ptr, Size, Hex], ""),
    r(326, "copy_file_range",         Pass,                          Sys,    Full, &[Fd, IoS(I64), Fd, IoS(I64), Size, Hex], ""),
    r(327, "preadv2",                 Pass,                          Sys,    Full, &[Fd, OutIov(2), Size, Off, Off, Bits(&RWF)], ""),
    r(328, "pwritev2",                Pass,                          Sys,    Full, &[Fd, InIov(2), Size, Off, Off, Bits(&RWF)], ""),
    r(329, "pkey_mprotect",           Do(memory::pkey_mprotect),     Quick,  Part, &[Ptr, Size, Bits(&PROT), Int], "key -1 only; other keys are EINVAL"),
    r(330, "pkey_alloc",              Fail(ENOSPC),                  Quick,  No,  &[Hex, Hex], "ENOSPC, as processors without protection keys"),
    r(331, "pkey_free",               Fail(EINVAL),                  Quick,  No,   &[Int], "EINVAL: none is ever allocated"),
    r(332, "statx",                   Do(file::statx),               Quick,  Full, &[DirFd, Path, Bits(&AT), Bits(&STATX), OutS(Statx)], "see getdents64"),
    r(333, "io_pgetevents",           Nosys,                         Quick,  No,   &[Hex, Long, Long, Ptr, InS(Timespec), Ptr], "see io_setup"),
    r(334, "rseq",                    Nosys,                         Quick,  No,   &[Ptr, Uint, Int, Hex], "ENOSYS: restartable sequences cannot be aborted in translated code; the C library does without"),
    r(335, "uretprobe",               Nosys,                         Quick,  No,   &[], "for the kernel's own trampoline"),
    r(336, "uprobe",                  Nosys,                         Quick,  No,   &[], "for the kernel's own trampoline"),
    r(424, "pidfd_send_signal",       Pass,                          Quick,  Full, &[Fd, Sig, InS(Siginfo), Hex], ""),
    r(425, "io_uring_setup",          Do(uring::setup),              Quick,  Part, &[Uint, IoS(Blob(120))], "ENOSYS before Linux 6.5, for more than one page before 6.10, and under `calque diff`; IORING_SETUP_SQPOLL is EPERM, NO_MMAP and mixed sizes EINVAL"),
    r(426, "io_uring_enter",          Do(uring::enter),              NoHand, Part, &[Fd, Uint, Uint, Hex, Ptr, Size], "URING_CMD, RECV_ZC, EPOLL_WAIT, and opening what openat makes of /proc fail with EINVAL in their completions; no registered rings; rings set up by this process only"),
    r(427, "io_uring_register",       Do(uring::register),           NoHand, Part, &[Fd, Uint, Ptr, Uint], "a probe shows operations that are there; RING_FDS, SEND_MSG_RING, ZCRX_IFQ, RESIZE_RINGS, MEM_REGION and buffer rings in the kernel's memory are EINVAL"),
    r(428, "open_tree",               Pass,                          Quick,  Full, &[DirFd, NewPath, Hex], ""),
    r(429, "move_mount",              Pass,                          Quick,  Full, &[DirFd, NewPath, DirFd, NewPath, Hex], ""),
    r(430, "fsopen",                  Pass,                          Quick,  Full, &[Str, Hex], ""),
    r(431, "fsconfig",                Pass,                          Quick,  Full, &[Fd, Uint, Str, Ptr, Int], ""),
    r(432, "fsmount",                 Pass,                          Quick,  Full, &[Fd, Hex, Hex], ""),
    r(433, "fspick",                  Pass,                          Quick,  Full, &[DirFd, NewPath, Hex], ""),
    r(434, "pidfd_open",              Pass,                          Quick,  Full, &[Pid, Bits(&TFD)], ""),
    r(435, "clone3",                  Ctl(process::clone3),          Quick,  Part, &[InS(CloneArgs), Size], "see clone; set_tid, cgroup, CLONE_INTO_CGROUP and CLONE_NEWTIME are EINVAL"),
    r(436, "close_range",             Do(file::close_range),         Quick,  Full, &[Uint, Uint, Bits(&CLOSE_RANGE)], "Calque's own descriptors stay open"),
    r(437, "openat2",                 Do(file::openat2),             Sys,    Full, &[DirFd, Path, InS(OpenHow), Size], ""),
    r(438, "pidfd_getfd",             Pass,                          Quick,  Full, &[Fd, Int, Hex], ""),
    r(439, "faccessat2",              Pass,                          Quick,  Full, &[DirFd, Path, Bits(&ACCESS), Bits(&AT)], ""),
    r(440, "process_madvise",         Do(memory::process_madvise),   Quick,  Part, &[Fd, InIov(2), Size, One(&MADV), Hex], "advice is taken and ignored"),
    r(441, "epoll_pwait2",            Do(poll::epoll_pwait2),        NoHand, Full, &[Fd, OutA(EpollEvent, 2), Int, InS(Timespec), InS(Sigset), Size], ""),
    r(442, "mount_setattr",           Pass,                          Quick,  Full, &[DirFd, NewPath, Hex, In(4), Size], ""),
    r(443, "quotactl_fd",             Pass,                          Quick,  Full, &[Fd, Hex, Int, Ptr], ""),
    r(444, "landlock_create_ruleset", Pass,                          Quick,  Full, &[In(1), Size, Hex], "binds Calque too: a later execve needs its file"),
    r(445, "landlock_add_rule",       Pass,                          Quick,  Full, &[Fd, Int, Ptr, Hex], ""),
    r(446, "landlock_restrict_self",  Pass,                          Quick,  Full, &[Fd, Hex], ""),
    r(447, "memfd_secret",            Pass,                          Quick,  Full, &[Bits(&TFD)], ""),
    r(448, "process_mrelease",        Pass,                          Quick,  Full, &[Fd, Hex], ""),
    r(449, "futex_waitv",             Pass,                          NoHand, Full, &[Ptr, Uint, Hex, InS(Timespec), One(&CLOCK)], ""),
    r(450, "set_mempolicy_home_node", Do(memory::range_pass),        Quick,  Full, &[Ptr, Size, Hex, Hex], ""),
    r(451, "cachestat",               Pass,                          Quick,  Full, &[Fd, InS(Blob(16)), OutS(Blob(40)), Hex], ""),
    r(452, "fchmodat2",               Pass,                          Quick,  Full, &[DirFd, NewPath, Mode, Bits(&AT)], ""),
    r(453, "map_shadow_stack",        Nosys,                         Quick,  No,   &[Ptr, Size, Hex], "ENOSYS: no shadow stacks"),
    r(454, "futex_wake",              Pass,                          Quick,  Full, &[Ptr, Hex, Int, Hex], ""),
    r(455, "futex_wait",              Pass,                          NoHand, Full, &[Ptr, Hex, Hex, Hex, InS(Timespec), One(&CLOCK)], ""),
    r(456, "futex_requeue",           Pass,                          Quick,  Full, &[Ptr, Hex, Int, Int], ""),
    r(457, "statmount",               Pass,                          Quick,  Full, &[InS(Blob(24)), OutAll(2), Size, Hex], ""),
    r(458, "listmount",               Pass,                          Quick,  Full, &[InS(Blob(24)), OutA(U64, 2), Size, Hex], ""),
    r(459, "lsm_get_self_attr",       Pass,                          Quick,  Full, &[Uint, Ptr, IoS(U32), Hex], ""),
    r(460, "lsm_set_self_attr",       Pass,                          Quick,  Full, &[Uint, In(2), Size, Hex], ""),
    r(461, "lsm_list_modules",        Pass,                          Quick,  Full, &[Ptr, IoS(U32), Hex], ""),
    r(462, "mseal",                   Nosys,                         Quick,  No,   &[Ptr, Size, Hex], "ENOSYS: Calque changes protections itself"),
    r(463, "setxattrat",              Pass,                          Quick,  Full, &[DirFd, NewPath, Bits(&AT), Str, In(5), Size], ""),
    r(464, "getxattrat",              Pass,                          Quick,  Full, &[DirFd, Path, Bits(&AT), Str, In(5), Size], ""),
    r(465, "listxattrat",             Pass,                          Quick,  Full, &[DirFd, Path, Bits(&AT), Out(4), Size], ""),
    r(466, "removexattrat",           Pass,                          Quick,  Full, &[DirFd, NewPath, Bits(&AT), Str], ""),
    r(467, "open_tree_attr",          Pass,                          Quick,  Full, &[DirFd, NewPath, Hex, In(4), Size], ""),
    r(468, "file_getattr",            Pass,                          Quick,  Full, &[DirFd, Path, OutAll(3), Size, Bits(&AT)], ""),
    r(469, "file_setattr",            Pass,                          Quick,  Full, &[DirFd, NewPath, In(3), Size, Bits(&AT)], ""),
    r(470, "listns",                  Pass,                          Quick,  Full, &[InS(Blob(32)), OutA(U64, 2), Size, Hex], ""),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::aarch64;

    /// Numbers that x86-64 Linux leaves out: 337..=423 (387..=423 are kept in step with other architectures).
    fn is_gap(nr: u32) -> bool {
        (337..424).contains(&nr)
    }

    #[test]
    fn the_table_is_complete_and_sorted() {
        let numbers: Vec<u32> = TABLE.iter().map(|row| row.nr).collect();
        let expected: Vec<u32> = (0..=470).filter(|&nr| !is_gap(nr)).collect();
        assert_eq!(numbers, expected);
        let mut names: Vec<_> = TABLE.iter().map(|row| row.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "a name stands twice");
    }

    /// Where the x86-64 kernel headers are installed.
    #[test]
    fn numbers_are_the_kernels() {
        let header = std::fs::read_to_string("/usr/include/x86_64-linux-gnu/asm/unistd_64.h").unwrap_or_default();
        for line in header.lines().filter_map(|line| line.strip_prefix("#define __NR_")) {
            let Some((name, Ok(nr))) = line.split_once(' ').map(|(name, nr)| (name, nr.parse())) else { continue };
            assert_eq!(row(nr).map(|row| row.name), Some(name), "{nr}");
        }
    }

    #[test]
    fn what_passes_exists_on_aarch64() {
        // By their notes, ENOSYS there.
        let x86_only = ["ustat", "sysfs"];
        for row in TABLE.iter().filter(|row| matches!(row.how, Pass) && !x86_only.contains(&row.name)) {
            assert!(aarch64::host_number(row.name, row.nr).is_some(), "{} has no number on AArch64", row.name);
        }
    }

    #[test]
    fn numbers_from_424_on_are_common() {
        for &(name, nr) in aarch64::NUMBERS.iter().filter(|&&(_, nr)| nr >= 424) {
            assert_eq!(row(nr.into()).map(|row| row.name), Some(name));
        }
    }

    #[test]
    fn argument_references_are_in_range() {
        for row in TABLE {
            assert!(row.args.len() <= 6, "{}", row.name);
            let args = [0x1000; 6];
            // Indexing panics where a length argument does not exist.
            for (i, arg) in row.args.iter().enumerate() {
                assert!(arg.buffers(&args, i).iter().all(|(_, at, len)| *at == 0x1000 || *len == 0), "{}", row.name);
            }
        }
    }

    #[test]
    fn what_is_not_full_says_so() {
        for row in TABLE {
            assert!(row.level == Full || !row.note.is_empty(), "{} needs a note", row.name);
            // A handler may refuse as well, with a word to the user.
            let refuses = matches!(row.how, Nosys | Fail(_));
            assert!(
                if refuses { row.level == No } else { row.level != No || matches!(row.how, Do(_)) },
                "{}",
                row.name
            );
        }
    }
}
