//! Processes and threads: identity, limits, children, programs.

use crate::call::{AT_FDCWD, Call};
use crate::host;
use crate::proc;
use calque_runtime::memory::{GUEST_END, is_guest_address, is_guests};
use calque_runtime::spawn::CloneArgs;
use calque_runtime::{GuestAddr, Outcome, access, exec};
use nix::errno::Errno;
use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

type Result = std::result::Result<u64, Errno>;

/// `void exit(int code)`: ends the thread.
pub(crate) fn exit(call: &mut Call<'_>) -> Outcome {
    Outcome::ExitThread(call.int(0))
}

/// `void exit_group(int code)`.
pub(crate) fn exit_group(call: &mut Call<'_>) -> Outcome {
    Outcome::ExitProcess(call.int(0))
}

/// `long clone(unsigned long flags, void *stack, int *parent_tid, int *child_tid, unsigned long tls)`: x86-64's order.
pub(crate) fn clone(call: &mut Call<'_>) -> Outcome {
    let args = CloneArgs::from_clone(call.args);
    call.thread.clone_guest(&args)
}

/// `pid_t fork(void)`.
pub(crate) fn fork(call: &mut Call<'_>) -> Outcome {
    call.thread.clone_guest(&CloneArgs { exit_signal: libc::SIGCHLD, ..CloneArgs::default() })
}

/// `pid_t vfork(void)`.
pub(crate) fn vfork(call: &mut Call<'_>) -> Outcome {
    let flags = (libc::CLONE_VM | libc::CLONE_VFORK) as u64;
    call.thread.clone_guest(&CloneArgs { flags, exit_signal: libc::SIGCHLD, ..CloneArgs::default() })
}

/// `long clone3(struct clone_args *args, size_t size)`.
pub(crate) fn clone3(call: &mut Call<'_>) -> Outcome {
    match clone3_args(call) {
        Ok(args) => call.thread.clone_guest(&args),
        Err(errno) => call.finish(Err(errno)),
    }
}

/// `struct clone_args` (linux/sched.h): flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, and in
/// later versions set_tid, set_tid_size, cgroup.
fn clone3_args(call: &Call<'_>) -> std::result::Result<CloneArgs, Errno> {
    const FIRST_VERSION: u64 = 64;
    let size = call.args[1];
    if size < FIRST_VERSION {
        return Err(Errno::EINVAL);
    }
    if size > 4096 {
        return Err(Errno::E2BIG);
    }
    let mut words = access::read_slice::<u64>(call.addr(0), (size / 8) as usize)?;
    let later = words.split_off(8);
    if later.iter().skip(3).any(|&w| w != 0) {
        return Err(Errno::E2BIG);
    }
    let [flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls] = words[..] else { unreachable!() };
    // Tids of one's choice need privilege, and cgroups are for the kernel to enter: neither can be had here.
    let special = later.iter().any(|&w| w != 0) || exit_signal > 64 || (stack == 0) != (stack_size == 0);
    // kernel/fork.c, clone3_args_valid. The low byte is clone's exit signal.
    const CLEAR_SIGHAND: u64 = 1 << 32;
    const KNOWN: u64 = 0xffff_ff00 & !(libc::CLONE_DETACHED as u64) | CLEAR_SIGHAND;
    const WITHOUT_SIGNAL: u64 = (libc::CLONE_THREAD | libc::CLONE_PARENT) as u64;
    if special || flags & !KNOWN != 0 || flags & WITHOUT_SIGNAL != 0 && exit_signal != 0 {
        return Err(Errno::EINVAL);
    }
    let (stack, exit_signal) = (stack.wrapping_add(stack_size), exit_signal as i32);
    Ok(CloneArgs { flags, exit_signal, stack, parent_tid, child_tid, tls, pidfd })
}

/// `int execve(const char *path, char *const argv[], char *const envp[])`.
pub(crate) fn execve(call: &mut Call<'_>) -> Outcome {
    let result = exec_path(call, AT_FDCWD as i32, 0, 0).and_then(|path| execute(call, path, 1));
    call.finish(result)
}

/// `int execveat(int dirfd, const char *path, char *const argv[], char *const envp[], int flags)`.
pub(crate) fn execveat(call: &mut Call<'_>) -> Outcome {
    let result = exec_path(call, call.int(0), 1, call.int(4)).and_then(|path| execute(call, path, 2));
    call.finish(result)
}

/// The file to execute: the path at argument `path`, looked up from `dirfd`.
fn exec_path(call: &Call<'_>, dirfd: i32, path: usize, flags: i32) -> std::result::Result<PathBuf, Errno> {
    let text = call.text(path)?;
    if let Some(exe) = proc::exe(&text, call.process()) {
        return Ok(OsString::from_vec(exe.into_bytes()).into());
    }
    match text[..] {
        [] if flags & libc::AT_EMPTY_PATH != 0 => Ok(exec::path_of_descriptor(dirfd)),
        [] => Err(Errno::ENOENT),
        [b'/', ..] => Ok(OsString::from_vec(text).into()),
        _ if dirfd == libc::AT_FDCWD => Ok(OsString::from_vec(text).into()),
        _ => Ok(exec::path_of_descriptor(dirfd).join(OsString::from_vec(text))),
    }
}

/// Executes `path` with the vectors at argument `vectors` and the next one.
fn execute(call: &mut Call<'_>, path: PathBuf, vectors: usize) -> Result {
    let argv = strings(call.addr(vectors))?;
    let envp = strings(call.addr(vectors + 1))?;
    Err(exec::exec(call.thread, &path, argv, envp))
}

/// Longest single argument (`MAX_ARG_STRLEN`, linux/binfmts.h) and most bytes of all (`_STK_LIM / 4 * 3`, fs/exec.c).
const MAX_ARG: usize = 128 << 10;
const MAX_ARGS: usize = 6 << 20;

/// A NULL-terminated vector of strings; a null pointer is an empty one.
fn strings(vector: GuestAddr) -> std::result::Result<Vec<CString>, Errno> {
    let (mut list, mut total) = (Vec::new(), 0);
    if vector.0 == 0 {
        return Ok(list);
    }
    for i in 0.. {
        let at = access::read::<u64>(vector.wrapping_add(8 * i))?;
        if at == 0 {
            break;
        }
        let text = access::read_cstr(GuestAddr(at), MAX_ARG - 1)
            .map_err(|e| if e == Errno::ENAMETOOLONG { Errno::E2BIG } else { e })?;
        total += text.len() + 9;
        if total > MAX_ARGS {
            return Err(Errno::E2BIG);
        }
        list.push(CString::new(text).expect("read up to its NUL"));
    }
    Ok(list)
}

/// `pid_t set_tid_address(int *word)`.
pub(crate) fn set_tid_address(call: &mut Call<'_>) -> Result {
    let word = call.addr(0);
    call.thread.set_tid_address(word);
    Ok(call.thread.tid as u64)
}

/// `FUTEX_CMD_MASK` (linux/futex.h): without the flags for private words and the realtime clock.
const FUTEX_CMD_MASK: i32 = 0x7f;
/// Operations that take a timeout (kernel/futex/syscalls.c, `futex_cmd_has_timeout`); for others that argument is a number or nothing.
const FUTEX_TIMED: [i32; 5] =
    [libc::FUTEX_WAIT, libc::FUTEX_LOCK_PI, libc::FUTEX_WAIT_BITSET, libc::FUTEX_WAIT_REQUEUE_PI, libc::FUTEX_LOCK_PI2];
/// Operations that take a second word (`do_futex`).
const FUTEX_OF_TWO: [i32; 5] = [
    libc::FUTEX_REQUEUE,
    libc::FUTEX_CMP_REQUEUE,
    libc::FUTEX_WAKE_OP,
    libc::FUTEX_WAIT_REQUEUE_PI,
    libc::FUTEX_CMP_REQUEUE_PI,
];

/// `long futex(u32 *uaddr, int op, u32 val, const struct timespec *timeout, u32 *uaddr2, u32 val3)`: what an
/// operation does not take may be anything: C libraries leave in the registers what happens to be there.
pub(crate) fn futex(call: &mut Call<'_>) -> Result {
    let op = call.args[1] as i32 & FUTEX_CMD_MASK;
    let mut args = call.args;
    if !FUTEX_OF_TWO.contains(&op) {
        args[4] = 0;
    }
    let pointers = [(0, true), (3, FUTEX_TIMED.contains(&op)), (4, true)];
    if pointers.iter().any(|&(i, is_pointer)| is_pointer && !is_guest_address(args[i])) {
        return Err(Errno::EFAULT);
    }
    call.host(libc::SYS_futex, args)
}

/// `pid_t getpgrp(void)`.
pub(crate) fn getpgrp(call: &mut Call<'_>) -> Result {
    call.host(libc::SYS_getpgid, [0])
}

/// Commands of arch_prctl (arch/x86/include/uapi/asm/prctl.h).
const ARCH_SET_GS: u32 = 0x1001;
const ARCH_SET_FS: u32 = 0x1002;
const ARCH_GET_FS: u32 = 0x1003;
const ARCH_GET_GS: u32 = 0x1004;
const ARCH_GET_CPUID: u32 = 0x1011;
const ARCH_SET_CPUID: u32 = 0x1012;

/// `int arch_prctl(int op, unsigned long addr)`.
pub(crate) fn arch_prctl(call: &mut Call<'_>) -> Result {
    let value = call.args[1];
    match call.uint(0) {
        ARCH_SET_FS | ARCH_SET_GS if value >= GUEST_END => return Err(Errno::EPERM),
        ARCH_SET_FS => call.thread.cpu.fs_base = value,
        ARCH_SET_GS => call.thread.cpu.gs_base = value,
        ARCH_GET_FS => return call.write(1, &call.thread.cpu.fs_base),
        ARCH_GET_GS => return call.write(1, &call.thread.cpu.gs_base),
        ARCH_GET_CPUID => return Ok(1),
        ARCH_SET_CPUID => return if value == 0 { Err(Errno::ENODEV) } else { Ok(0) },
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

/// Flags of personality(2) that would move Calque itself or change its own mappings (linux/personality.h):
/// READ_IMPLIES_EXEC, ADDR_COMPAT_LAYOUT, ADDR_LIMIT_32BIT, ADDR_LIMIT_3GB.
const NOT_FOR_US: u32 = 0x0040_0000 | 0x0020_0000 | 0x0080_0000 | 0x0800_0000;

/// `int personality(unsigned long persona)`: 0xffffffff asks only.
pub(crate) fn personality(call: &mut Call<'_>) -> Result {
    match call.uint(0) {
        0xffff_ffff => call.host(libc::SYS_personality, [0xffff_ffff]),
        persona if persona & 0xff != 0 => Err(Errno::EINVAL),
        persona => call.host(libc::SYS_personality, [u64::from(persona & !NOT_FOR_US)]),
    }
}

/// How an option of prctl(2) is treated.
enum Prctl {
    /// Handed on.
    Number,
    /// Handed on; the second argument points to guest memory.
    Pointer,
}

/// Options that may be handed on (linux/prctl.h). The others would concern Calque itself (its maps, its system calls, its
/// right to make memory executable) or the processor of the host: EINVAL, as from a kernel without them.
fn prctl_kind(option: i32) -> Option<Prctl> {
    match option {
        // PDEATHSIG, DUMPABLE, KEEPCAPS, TIMING, CAPBSET, SECUREBITS, TIMERSLACK, PERF_EVENTS, MCE, SUBREAPER, NO_NEW_PRIVS,
        // THP, CAP_AMBIENT, SPECULATION_CTRL, IO_FLUSHER, PTRACER.
        1 | 3 | 4 | 7 | 8 | 13 | 14 | 21 | 23 | 24 | 27..=34 | 36 | 38 | 39 | 41 | 42 | 47 | 52 | 53 | 57 | 58 => {
            Some(Prctl::Number)
        }
        0x5961_6d61 => Some(Prctl::Number),
        // GET_PDEATHSIG, SET_NAME, GET_NAME, GET_CHILD_SUBREAPER.
        2 | 15 | 16 | 37 => Some(Prctl::Pointer),
        _ => None,
    }
}

const PR_GET_TSC: i32 = 25;
const PR_SET_TSC: i32 = 26;
const PR_GET_TID_ADDRESS: i32 = 40;
const PR_SET_VMA: i32 = 0x5356_4d41;
const PR_GET_AUXV: i32 = 0x4155_5856;
/// `PR_TSC_ENABLE`.
const TSC_ENABLE: u32 = 1;

/// `int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d)`.
pub(crate) fn prctl(call: &mut Call<'_>) -> Result {
    match call.int(0) {
        PR_GET_TSC => return call.write(1, &TSC_ENABLE),
        PR_SET_TSC if call.uint(1) == TSC_ENABLE => return Ok(0),
        PR_GET_TID_ADDRESS => return call.write(1, &call.thread.clear_child_tid.map_or(0, |a| a.0)),
        PR_SET_VMA => return set_vma(call),
        PR_GET_AUXV => return get_auxv(call),
        _ => {}
    }
    match prctl_kind(call.int(0)) {
        None => return Err(Errno::EINVAL),
        Some(Prctl::Pointer) if !is_guest_address(call.args[1]) => return Err(Errno::EFAULT),
        Some(Prctl::Pointer) => call.will_be_written(call.addr(1), 16),
        Some(Prctl::Number) => {}
    }
    let [option, a, b, c, d, _] = call.args;
    call.host(libc::SYS_prctl, [option, a, b, c, d])
}

/// `PR_SET_VMA`: names a range of anonymous memory, in the host's maps only.
fn set_vma(call: &mut Call<'_>) -> Result {
    let [option, what, addr, len, name, _] = call.args;
    let inside = addr.checked_add(len).is_some_and(|end| is_guests(addr, end)) && is_guest_address(name);
    if !inside {
        return Err(Errno::ENOMEM);
    }
    call.host(libc::SYS_prctl, [option, what, addr, len, name])
}

/// `PR_GET_AUXV`: the guest's auxiliary vector; returns its whole length.
fn get_auxv(call: &mut Call<'_>) -> Result {
    if call.args[3] != 0 || call.args[4] != 0 {
        return Err(Errno::EINVAL);
    }
    let auxv = proc::auxv(call.process().exe());
    let shown = auxv.len().min(call.args[2] as usize);
    access::write_bytes(call.addr(1), &auxv[..shown])?;
    Ok(auxv.len() as u64)
}

/// Limits of the guest that are not the host's: those that would bind Calque's own memory with the guest's.
static OWN_LIMITS: Mutex<OwnLimits> = Mutex::new([None; 16]);
pub(crate) type OwnLimits = [Option<[u64; 2]>; 16];

pub(crate) fn own_limits() -> MutexGuard<'static, OwnLimits> {
    OWN_LIMITS.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Whether a limit is remembered only (asm-generic/resource.h): DATA, STACK, AS.
fn is_own(resource: u32) -> bool {
    matches!(resource, 2 | 3 | 9)
}

/// `int getrlimit(unsigned resource, struct rlimit *limit)`.
pub(crate) fn getrlimit(call: &mut Call<'_>) -> Result {
    let limit = limit(call, 0, call.uint(0), None)?;
    call.write(1, &limit)
}

/// `int setrlimit(unsigned resource, const struct rlimit *limit)`.
pub(crate) fn setrlimit(call: &mut Call<'_>) -> Result {
    let new = call.read::<[u64; 2]>(1)?;
    limit(call, 0, call.uint(0), Some(new)).map(|_| 0)
}

/// `int prlimit64(pid_t pid, unsigned resource, const struct rlimit64 *new, struct rlimit64 *old)`.
pub(crate) fn prlimit64(call: &mut Call<'_>) -> Result {
    let new = call.read_opt::<[u64; 2]>(2)?;
    let old = limit(call, call.args[0], call.uint(1), new)?;
    if call.args[3] != 0 { call.write(3, &old) } else { Ok(0) }
}

/// Sets a limit (soft, hard) if there is a new one; the old one.
fn limit(call: &mut Call<'_>, pid: u64, resource: u32, new: Option<[u64; 2]>) -> std::result::Result<[u64; 2], Errno> {
    let ours = pid == 0 || pid == u64::from(std::process::id());
    let host_new = new.filter(|_| !(ours && is_own(resource)));
    let mut old = [0u64; 2];
    let new_ptr = host_new.as_ref().map_or(0, host::ptr);
    call.host(libc::SYS_prlimit64, [pid, resource.into(), new_ptr, host::out(&mut old)])?;
    if ours && is_own(resource) {
        let mut limits = own_limits();
        let mine = &mut limits[resource as usize];
        old = mine.unwrap_or(old);
        if let Some([soft, hard]) = new {
            if soft > hard {
                return Err(Errno::EINVAL);
            }
            if hard > old[1] {
                return Err(Errno::EPERM);
            }
            *mine = Some([soft, hard]);
        }
    }
    Ok(old)
}
