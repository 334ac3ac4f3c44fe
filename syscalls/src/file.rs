//! Files: opening, looking up, naming, and the guest's view of its own /proc entries.

use crate::abi::fcntl::{F_GETFL, F_SETFL, open_flags_to_guest, open_flags_to_host};
use crate::abi::stat::Stat;
use crate::call::{AT_FDCWD, Call, PATH_MAX};
use crate::host::{self, Zeroed};
use crate::{proc, tasks};
use calque_runtime::{GuestAddr, Process, access, hidden};
use libc::{O_CREAT, O_TRUNC, O_WRONLY};
use nix::errno::Errno;

type Result = std::result::Result<u64, Errno>;

/// `int open(const char *path, int flags, mode_t mode)`.
pub(crate) fn open(call: &mut Call<'_>) -> Result {
    open_at(call, AT_FDCWD, 0, call.uint(1), call.args[2])
}

/// `int openat(int dirfd, const char *path, int flags, mode_t mode)`.
pub(crate) fn openat(call: &mut Call<'_>) -> Result {
    open_at(call, call.args[0], 1, call.uint(2), call.args[3])
}

/// `int creat(const char *path, mode_t mode)`.
pub(crate) fn creat(call: &mut Call<'_>) -> Result {
    open_at(call, AT_FDCWD, 0, (O_CREAT | O_WRONLY | O_TRUNC) as u32, call.args[1])
}

/// Opens the path at argument `path`. Entries of /proc/self that would show Calque show the guest.
fn open_at(call: &mut Call<'_>, dirfd: u64, path: usize, flags: u32, mode: u64) -> Result {
    if let Some(fd) = proc::open(call, path, flags)? {
        return Ok(fd);
    }
    // What is created is created on the host; only what exists is looked for in the sysroot.
    let creates = flags & O_CREAT as u32 != 0;
    let path = if creates { call.args[path] } else { call.path(path)? };
    let fd = call.host(libc::SYS_openat, [dirfd, path, u64::from(open_flags_to_host(flags)), mode])?;
    note_writer(call, fd, flags);
    Ok(fd)
}

/// See [`opened_for_writing`].
fn note_writer(call: &Call<'_>, fd: u64, flags: u32) {
    if flags & libc::O_ACCMODE as u32 != libc::O_RDONLY as u32 {
        opened_for_writing(call.process(), fd);
    }
}

/// Code that is mapped from a file which the guest may write to from now on may change; all code, if the file is the memory.
pub(crate) fn opened_for_writing(process: &Process, fd: u64) {
    let mut found = libc::stat::zeroed();
    if host::quick(libc::SYS_fstat, [fd, host::out(&mut found)]).is_err() {
        // Another thread has closed it again.
        return;
    }
    process.mem.opened_for_writing(found.st_dev, found.st_ino);
    if proc::is_own_memory(fd, &found) {
        process.mem.opened_as_file();
    }
}

/// `int openat2(int dirfd, const char *path, struct open_how *how, size_t size)`. Fields of a later kernel's `open_how`
/// are E2BIG unless zero, as a kernel says that does not know them.
pub(crate) fn openat2(call: &mut Call<'_>) -> Result {
    const HOW: usize = 24;
    let size = call.args[3] as usize;
    if size < HOW {
        return Err(Errno::EINVAL);
    }
    let extra = access::read_slice::<u8>(GuestAddr(call.args[2] + HOW as u64), (size - HOW).min(PATH_MAX))?;
    if size > PATH_MAX || extra.iter().any(|&b| b != 0) {
        return Err(Errno::E2BIG);
    }
    let [flags, mode, resolve] = call.read::<[u64; 3]>(2)?;
    if flags >> 32 != 0 {
        return Err(Errno::EINVAL);
    }
    if let Some(fd) = proc::open(call, 1, flags as u32)? {
        return Ok(fd);
    }
    let how = [u64::from(open_flags_to_host(flags as u32)), mode, resolve];
    let path = call.path(1)?;
    let fd = call.host(libc::SYS_openat2, [call.args[0], path, host::ptr(&how), HOW as u64])?;
    note_writer(call, fd, flags as u32);
    Ok(fd)
}

/// `int open_by_handle_at(int mount_fd, struct file_handle *handle, int flags)`.
pub(crate) fn open_by_handle_at(call: &mut Call<'_>) -> Result {
    let flags = open_flags_to_host(call.uint(2));
    call.host(libc::SYS_open_by_handle_at, [call.args[0], call.args[1], u64::from(flags)])
}

/// `int fanotify_init(unsigned int flags, unsigned int event_f_flags)`.
pub(crate) fn fanotify_init(call: &mut Call<'_>) -> Result {
    let flags = open_flags_to_host(call.uint(1));
    call.host(libc::SYS_fanotify_init, [call.args[0], u64::from(flags)])
}

/// `int stat(const char *path, struct stat *buf)`.
pub(crate) fn stat(call: &mut Call<'_>) -> Result {
    let path = call.path(0)?;
    stat_at(call, AT_FDCWD, 0, path, 1, 0)
}

/// `int lstat(const char *path, struct stat *buf)`.
pub(crate) fn lstat(call: &mut Call<'_>) -> Result {
    let path = call.path_nofollow(0)?;
    stat_at(call, AT_FDCWD, 0, path, 1, libc::AT_SYMLINK_NOFOLLOW as u64)
}

/// `int fstat(int fd, struct stat *buf)`.
pub(crate) fn fstat(call: &mut Call<'_>) -> Result {
    let mut found = libc::stat::zeroed();
    call.host(libc::SYS_fstat, [call.args[0], host::out(&mut found)])?;
    write_stat(call, 1, &found, call.args[0], None)
}

/// `int newfstatat(int dirfd, const char *path, struct stat *buf, int flags)`.
pub(crate) fn newfstatat(call: &mut Call<'_>) -> Result {
    let nofollow = call.int(3) & libc::AT_SYMLINK_NOFOLLOW != 0;
    let path = if nofollow { call.path_nofollow(1)? } else { call.path(1)? };
    stat_at(call, call.args[0], 1, path, 2, call.args[3])
}

/// Looks up `found_at`, which stands for the path that argument `path` is.
fn stat_at(call: &mut Call<'_>, dirfd: u64, path: usize, found_at: u64, buf: usize, flags: u64) -> Result {
    let mut found = libc::stat::zeroed();
    call.host(libc::SYS_newfstatat, [dirfd, found_at, host::out(&mut found), flags])?;
    write_stat(call, buf, &found, dirfd, Some(path))
}

fn write_stat(call: &Call<'_>, buf: usize, found: &libc::stat, dirfd: u64, path: Option<usize>) -> Result {
    let found = Stat::from(found);
    let path = path.map_or(0, |path| call.args[path]);
    let st_nlink = tasks::links(call, dirfd, path, found.st_mode, found.st_nlink);
    call.write(buf, &Stat { st_nlink, ..found })
}

/// `int statx(int dirfd, const char *path, int flags, unsigned int mask, struct statx *buf)`.
pub(crate) fn statx(call: &mut Call<'_>) -> Result {
    call.pass()?;
    show_links(call, call.args[0], call.args[1], GuestAddr(call.args[4]))?;
    Ok(0)
}

/// Corrects the links of what was found at the path at `path`: the `struct statx` is at `buf`. Whether there was something to correct.
pub(crate) fn show_links(call: &Call<'_>, dirfd: u64, path: u64, buf: GuestAddr) -> std::result::Result<bool, Errno> {
    // include/uapi/linux/stat.h.
    const STX_NLINK: u64 = 16;
    const STX_MODE: u64 = 28;
    let found: u32 = access::read(buf.wrapping_add(STX_NLINK))?;
    let mode: u16 = access::read(buf.wrapping_add(STX_MODE))?;
    let links = tasks::links(call, dirfd, path, mode.into(), found.into());
    if links != found.into() {
        access::write(buf.wrapping_add(STX_NLINK), &(links as u32))?;
    }
    Ok(links != found.into())
}

/// `int access(const char *path, int mode)`.
pub(crate) fn access(call: &mut Call<'_>) -> Result {
    let path = call.path(0)?;
    call.host(libc::SYS_faccessat, [AT_FDCWD, path, call.args[1]])
}

/// `ssize_t readlink(const char *path, char *buf, int size)`.
pub(crate) fn readlink(call: &mut Call<'_>) -> Result {
    readlink_at(call, AT_FDCWD, 0)
}

/// `ssize_t readlinkat(int dirfd, const char *path, char *buf, int size)`.
pub(crate) fn readlinkat(call: &mut Call<'_>) -> Result {
    readlink_at(call, call.args[0], 1)
}

/// Reads the link at argument `path` into the buffer that follows it. /proc/self/exe is the guest's program.
fn readlink_at(call: &mut Call<'_>, dirfd: u64, path: usize) -> Result {
    use std::os::unix::ffi::OsStrExt;
    let (buf, size) = (call.args[path + 1], call.args[path + 2]);
    if proc::entry(&call.text(path)?) == Some("exe") {
        if call.int(path + 2) <= 0 {
            return Err(Errno::EINVAL);
        }
        let exe = call.process().exe().path.as_os_str().as_bytes();
        let shown = &exe[..exe.len().min(size as usize)];
        access::write_bytes(GuestAddr(buf), shown)?;
        return Ok(shown.len() as u64);
    }
    let path = call.path_nofollow(path)?;
    call.host(libc::SYS_readlinkat, [dirfd, path, buf, size])
}

/// `int pipe(int fds[2])`.
pub(crate) fn pipe(call: &mut Call<'_>) -> Result {
    call.host(libc::SYS_pipe2, [call.args[0], 0])
}

/// `int pipe2(int fds[2], int flags)`.
pub(crate) fn pipe2(call: &mut Call<'_>) -> Result {
    let flags = open_flags_to_host(call.uint(1));
    call.host(libc::SYS_pipe2, [call.args[0], u64::from(flags)])
}

/// `int dup2(int old, int new)`.
pub(crate) fn dup2(call: &mut Call<'_>) -> Result {
    let [old, new, ..] = call.args;
    if old as u32 == new as u32 {
        call.host(libc::SYS_fcntl, [old, libc::F_GETFD as u64])?;
        return Ok(u64::from(new as u32));
    }
    call.host(libc::SYS_dup3, [old, new, 0])
}

/// `int fcntl(int fd, int cmd, unsigned long arg)`.
pub(crate) fn fcntl(call: &mut Call<'_>) -> Result {
    let [fd, cmd, arg, ..] = call.args;
    match call.uint(1) {
        F_GETFL => {
            let flags = call.host(libc::SYS_fcntl, [fd, cmd, arg])?;
            Ok(u64::from(open_flags_to_guest(flags as u32)))
        }
        F_SETFL => call.host(libc::SYS_fcntl, [fd, cmd, u64::from(open_flags_to_host(arg as u32))]),
        _ => call.host(libc::SYS_fcntl, [fd, cmd, arg]),
    }
}

/// `int close_range(unsigned int first, unsigned int last, unsigned int flags)`. Calque's own descriptors stay open.
pub(crate) fn close_range(call: &mut Call<'_>) -> Result {
    let (mut first, last) = (call.uint(0), call.uint(1));
    if first > last {
        return Err(Errno::EINVAL);
    }
    for own in
        hidden::all().into_iter().map(|fd| fd as u32).filter(|fd| (first..=last).contains(fd)).collect::<Vec<_>>()
    {
        if own > first {
            call.host(libc::SYS_close_range, [first.into(), (own - 1).into(), call.args[2]])?;
        }
        first = own + 1;
    }
    if first > last {
        return Ok(0);
    }
    call.host(libc::SYS_close_range, [first.into(), last.into(), call.args[2]])
}

/// `ssize_t getdents64(int fd, struct linux_dirent64 *buf, unsigned int size)`.
pub(crate) fn getdents64(call: &mut Call<'_>) -> Result {
    let records = dirents(call)?;
    access::write_bytes(call.addr(1), &records)?;
    Ok(records.len() as u64)
}

/// The next records of `getdents64`, as many as the guest has room for, without what it is not to see.
fn dirents(call: &mut Call<'_>) -> std::result::Result<Vec<u8>, Errno> {
    loop {
        let mut records = vec![0u8; (call.uint(2) as usize).min(1 << 20)];
        let len = call.host(libc::SYS_getdents64, [call.args[0], host::out(&mut records[..]), records.len() as u64])?;
        records.truncate(len as usize);
        let shown = tasks::entries(call, call.args[0], records);
        // None is the end.
        if len == 0 || !shown.is_empty() {
            return Ok(shown);
        }
    }
}

/// `ssize_t getdents(int fd, struct linux_dirent *buf, unsigned int size)`: the same records as `getdents64`'s, but
/// the type stands in the last byte instead of before the name (fs/readdir.c).
pub(crate) fn getdents(call: &mut Call<'_>) -> Result {
    let mut records = dirents(call)?;
    to_old_dirents(&mut records);
    access::write_bytes(call.addr(1), &records)?;
    Ok(records.len() as u64)
}

/// Rewrites `linux_dirent64` records as `linux_dirent`. Both have the record length at 16; type and name stand at 18 and 19
/// in the former, the name at 18 in the latter. Record lengths are equal: 20 bytes and the name, rounded up to 8.
fn to_old_dirents(mut records: &mut [u8]) {
    while records.len() >= 20 {
        let len = usize::from(u16::from_ne_bytes([records[16], records[17]]));
        let (record, rest) = std::mem::take(&mut records).split_at_mut(len);
        let kind = record[18];
        record.copy_within(19.., 18);
        record[len - 1] = kind;
        records = rest;
    }
}

/// `int rename(const char *from, const char *to)`.
pub(crate) fn rename(call: &mut Call<'_>) -> Result {
    call.host(libc::SYS_renameat2, [AT_FDCWD, call.args[0], AT_FDCWD, call.args[1], 0])
}

/// `int mkdir(const char *path, mode_t mode)`.
pub(crate) fn mkdir(call: &mut Call<'_>) -> Result {
    call.host(libc::SYS_mkdirat, [AT_FDCWD, call.args[0], call.args[1]])
}

/// `int rmdir(const char *path)`.
pub(crate) fn rmdir(call: &mut Call<'_>) -> Result {
    call.host(libc::SYS_unlinkat, [AT_FDCWD, call.args[0], libc::AT_REMOVEDIR as u64])
}

/// `int unlink(const char *path)`.
pub(crate) fn unlink(call: &mut Call<'_>) -> Result {
    call.host(libc::SYS_unlinkat, [AT_FDCWD, call.args[0], 0])
}

/// `int link(const char *from, const char *to)`.
pub(crate) fn link(call: &mut Call<'_>) -> Result {
    call.host(libc::SYS_linkat, [AT_FDCWD, call.args[0], AT_FDCWD, call.args[1], 0])
}

/// `int symlink(const char *target, const char *path)`.
pub(crate) fn symlink(call: &mut Call<'_>) -> Result {
    call.host(libc::SYS_symlinkat, [call.args[0], AT_FDCWD, call.args[1]])
}

/// `int chmod(const char *path, mode_t mode)`.
pub(crate) fn chmod(call: &mut Call<'_>) -> Result {
    call.host(libc::SYS_fchmodat, [AT_FDCWD, call.args[0], call.args[1]])
}

/// `int chown(const char *path, uid_t owner, gid_t group)`.
pub(crate) fn chown(call: &mut Call<'_>) -> Result {
    call.host(libc::SYS_fchownat, [AT_FDCWD, call.args[0], call.args[1], call.args[2], 0])
}

/// `int lchown(const char *path, uid_t owner, gid_t group)`.
pub(crate) fn lchown(call: &mut Call<'_>) -> Result {
    let nofollow = libc::AT_SYMLINK_NOFOLLOW as u64;
    call.host(libc::SYS_fchownat, [AT_FDCWD, call.args[0], call.args[1], call.args[2], nofollow])
}

/// `int mknod(const char *path, mode_t mode, dev_t dev)`.
pub(crate) fn mknod(call: &mut Call<'_>) -> Result {
    call.host(libc::SYS_mknodat, [AT_FDCWD, call.args[0], call.args[1], call.args[2]])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `linux_dirent64` record: inode, offset, length, type, name.
    fn record(name: &str, kind: u8) -> Vec<u8> {
        let len = (20 + name.len()).next_multiple_of(8);
        let mut bytes = vec![0; len];
        bytes[0] = 7;
        bytes[16] = len as u8;
        bytes[18] = kind;
        bytes[19..19 + name.len()].copy_from_slice(name.as_bytes());
        bytes
    }

    #[test]
    fn old_dirents() {
        let mut records = [record("a", 4), record("longer-name", 8)].concat();
        to_old_dirents(&mut records);
        assert_eq!(&records[18..20], b"a\0");
        assert_eq!(records[23], 4);
        assert_eq!(&records[24 + 18..24 + 30], b"longer-name\0");
        assert_eq!(records[24 + 31], 8);
    }
}
