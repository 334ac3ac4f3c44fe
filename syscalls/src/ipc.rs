//! System V shared memory, semaphores and messages.

use crate::arch::{self, HostSemidDs};
use crate::call::Call;
use crate::host;
use calque_ir::addr::GUEST_PAGE;
use calque_runtime::{GuestAddr, access};
use nix::errno::Errno;
use std::collections::BTreeMap;
use std::sync::Mutex;

type Result = std::result::Result<u64, Errno>;

/// Attached segments: address and length.
static ATTACHED: Mutex<BTreeMap<u64, u64>> = Mutex::new(BTreeMap::new());

/// `IPC_64` (linux/ipc.h) is implied on both hosts. Commands whose argument is memory (linux/ipc.h, linux/sem.h).
const IPC_SET: i32 = 1;
const IPC_STAT: i32 = 2;
const IPC_INFO: i32 = 3;
const GETALL: i32 = 13;
const SETALL: i32 = 17;
const SEM_STAT: i32 = 18;
const SEM_INFO: i32 = 19;
const SEM_STAT_ANY: i32 = 20;

/// `void *shmat(int id, const void *addr, int flags)`. The guest's map picks the place: a shared anonymous mapping, over
/// which the segment is then attached.
pub(crate) fn shmat(call: &mut Call<'_>) -> Result {
    let [id, addr, flags, ..] = call.args;
    let len = segment_size(call, id)?.next_multiple_of(GUEST_PAGE);
    let at = place(call, addr, flags as i32, len)?;
    let flags = flags & !(libc::SHM_RND as u64) | libc::SHM_REMAP as u64;
    match call.host(libc::SYS_shmat, [id, at, flags]) {
        Ok(at) => {
            attached().insert(at, len);
            Ok(at)
        }
        Err(errno) => {
            call.process().mem.munmap(GuestAddr(at), len)?;
            Err(errno)
        }
    }
}

/// `int shmdt(const void *addr)`.
pub(crate) fn shmdt(call: &mut Call<'_>) -> Result {
    let Some(len) = attached().remove(&call.args[0]) else { return Err(Errno::EINVAL) };
    call.host(libc::SYS_shmdt, [call.args[0]])?;
    call.process().mem.munmap(call.addr(0), len).map(|()| 0)
}

pub(crate) fn attached() -> std::sync::MutexGuard<'static, BTreeMap<u64, u64>> {
    ATTACHED.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// `shm_segsz`, which follows the 48 bytes of `ipc64_perm`.
fn segment_size(call: &mut Call<'_>, id: u64) -> Result {
    let mut ds = [0u64; 14];
    call.host(libc::SYS_shmctl, [id, IPC_STAT as u64, host::out(&mut ds)])?;
    Ok(ds[6])
}

fn place(call: &Call<'_>, addr: u64, flags: i32, len: u64) -> Result {
    let exact = match addr {
        0 => 0,
        _ if addr.is_multiple_of(GUEST_PAGE) || flags & libc::SHM_RND != 0 => addr - addr % GUEST_PAGE,
        _ => return Err(Errno::EINVAL),
    };
    let how = match (exact, flags & libc::SHM_REMAP) {
        (0, 0) => 0,
        (0, _) => return Err(Errno::EINVAL),
        (_, 0) => libc::MAP_FIXED_NOREPLACE,
        _ => libc::MAP_FIXED,
    };
    let prot = if flags & libc::SHM_RDONLY != 0 { libc::PROT_READ } else { libc::PROT_READ | libc::PROT_WRITE };
    let anonymous = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    let at = call.process().mem.mmap(GuestAddr(exact), len, prot, anonymous | how, -1, 0);
    at.map(|at| at.0).map_err(|errno| if errno == Errno::EEXIST { Errno::EINVAL } else { errno })
}

/// `int semctl(int id, int n, int cmd, union semun arg)`.
pub(crate) fn semctl(call: &mut Call<'_>) -> Result {
    let [id, n, cmd, arg, ..] = call.args;
    // The C library may or in IPC_64 (0x100), which these kernels ignore.
    match call.int(2) & !0x100 {
        IPC_STAT | SEM_STAT | SEM_STAT_ANY => {
            let mut ds = HostSemidDs::default();
            let result = call.host(libc::SYS_semctl, [id, n, cmd, host::out(&mut ds)])?;
            access::write(GuestAddr(arg), &arch::semid_to_guest(ds))?;
            Ok(result)
        }
        IPC_SET => {
            let ds = arch::semid_to_host(access::read(GuestAddr(arg))?);
            call.host(libc::SYS_semctl, [id, n, cmd, host::ptr(&ds)])
        }
        IPC_INFO | SEM_INFO | GETALL | SETALL => {
            access::check(GuestAddr(arg), 1, calque_runtime::thread::Access::Write)?;
            call.host(libc::SYS_semctl, [id, n, cmd, arg])
        }
        _ => call.host(libc::SYS_semctl, [id, n, cmd, arg]),
    }
}

/// `ssize_t msgrcv(int id, struct msgbuf *msg, size_t size, long type, int flags)`: the text follows a `long`.
pub(crate) fn msgrcv(call: &mut Call<'_>) -> Result {
    let [id, msg, size, kind, flags, _] = call.args;
    let len = size.saturating_add(8);
    access::check(GuestAddr(msg), len as usize, calque_runtime::thread::Access::Write)?;
    call.will_be_written(GuestAddr(msg), len);
    call.host(libc::SYS_msgrcv, [id, msg, size, kind, flags])
}
