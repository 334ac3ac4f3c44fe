//! Submission entries: what each operation makes the kernel do, and what it must not get as the guest has written it.
//!
//! A row an operation says which fields are descriptors, which are addresses and what lies there. What is left is done by a function.
//! An entry that may not be carried out fails in the kernel, in its turn and with its completion: a descriptor of Calque's own becomes
//! none (EBADF), an address that is not the guest's one that nobody has (EFAULT), an operation one that no kernel knows (EINVAL).

use crate::abi::epoll::EpollEvent;
use crate::abi::fcntl::open_flags_to_host;
use crate::abi::uring::{BUFFER_SELECT, Entry, FIXED_FILE};
use crate::call::{Call, each_in_iov, each_in_msg, guests_own, text_at};
use crate::proc;
use crate::row::{Dir, MSGHDR};
use crate::strace;
use crate::{file, host, tasks};
use calque_runtime::{GuestAddr, access, hidden};
use libc::{AT_FDCWD, O_ACCMODE, O_CLOEXEC, O_CREAT, O_NOFOLLOW, O_PATH, O_RDONLY};
use nix::errno::Errno;
use std::any::Any;

type Result<T = ()> = std::result::Result<T, Errno>;

/// What the field `fd` is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Names {
    /// A descriptor, or with [`FIXED_FILE`] the number of a registered file.
    File,
    /// A directory's descriptor, or `AT_FDCWD`.
    Folder,
    /// None.
    Nothing,
}

/// A field with an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    Addr,
    /// `addr2`.
    Off,
    Addr3,
}

/// How long what lies there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Size {
    Bytes(u64),
    /// As the field `len` says.
    Len,
    /// As the field `off` says.
    Off,
    /// As `addr_len` says.
    AddrLen,
    /// So many bytes for each that `len` counts.
    Each(u64),
}

/// What an address leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Memory {
    /// Read.
    In(At, Size),
    /// Written.
    Out(At, Size),
    /// Written, unless the kernel takes a provided buffer instead ([`BUFFER_SELECT`]).
    OutOrProvided(At, Size),
    InIov,
    OutIov,
    InMsg,
    OutMsg,
    /// A socket address written: at `addr`, its length at `addr2`.
    OutSock,
    /// Text, such as the name of something that is made, removed or renamed.
    Str(At),
    /// A path that is looked up: the sysroot is searched first.
    Path(At),
}

/// What is done beyond the row.
type Special = fn(&mut Preparation<'_, '_>, &mut Entry) -> Result;

/// One operation.
struct Op {
    name: &'static str,
    fd: Names,
    memory: &'static [Memory],
    special: Option<Special>,
    /// Whether the kernel gets to see it.
    offered: bool,
}

const fn op(name: &'static str, fd: Names, memory: &'static [Memory]) -> Op {
    Op { name, fd, memory, special: None, offered: true }
}

const fn special(name: &'static str, fd: Names, memory: &'static [Memory], special: Special) -> Op {
    Op { name, fd, memory, special: Some(special), offered: true }
}

/// Not offered to guests.
const fn no(name: &'static str) -> Op {
    Op { name, fd: Names::Nothing, memory: &[], special: None, offered: false }
}

use At::{Addr, Addr3, Off};
use Memory::*;
use Names::{File, Folder, Nothing};
use Size::{AddrLen, Bytes, Each, Len};

/// `struct __kernel_timespec`.
const TIMESPEC: Size = Bytes(16);

/// `IORING_OP_*` by number, up to Linux 6.18.
#[rustfmt::skip]
static OPS: &[Op] = &[
    op("NOP",               File,    &[]),
    op("READV",             File,    &[OutIov]),
    op("WRITEV",            File,    &[InIov]),
    op("FSYNC",             File,    &[]),
    op("READ_FIXED",        File,    &[]), // registered memory
    op("WRITE_FIXED",       File,    &[]),
    op("POLL_ADD",          File,    &[]),
    op("POLL_REMOVE",       Nothing, &[]),
    op("SYNC_FILE_RANGE",   File,    &[]),
    op("SENDMSG",           File,    &[InMsg]),
    op("RECVMSG",           File,    &[OutMsg]),
    op("TIMEOUT",           Nothing, &[In(Addr, TIMESPEC)]),
    op("TIMEOUT_REMOVE",    Nothing, &[In(Off, TIMESPEC)]),
    op("ACCEPT",            File,    &[OutSock]),
    op("ASYNC_CANCEL",      File,    &[]),
    op("LINK_TIMEOUT",      Nothing, &[In(Addr, TIMESPEC)]),
    op("CONNECT",           File,    &[In(Addr, Size::Off)]),
    op("FALLOCATE",         File,    &[]),
    special("OPENAT",       Folder,  &[], open),
    op("CLOSE",             File,    &[]),
    special("FILES_UPDATE", Nothing, &[In(Addr, Each(4))], files_update),
    special("STATX",        Folder,  &[Path(Addr), Out(Off, Bytes(256))], statx),
    op("READ",              File,    &[OutOrProvided(Addr, Len)]),
    op("WRITE",             File,    &[In(Addr, Len)]),
    op("FADVISE",           File,    &[]),
    special("MADVISE",      Nothing, &[], madvise),
    op("SEND",              File,    &[In(Addr, Len), In(Off, AddrLen)]),
    op("RECV",              File,    &[OutOrProvided(Addr, Len)]),
    special("OPENAT2",      Folder,  &[], open2),
    special("EPOLL_CTL",    File,    &[], epoll_ctl),
    special("SPLICE",       File,    &[], second_file),
    special("PROVIDE_BUFFERS", Nothing, &[], provide_buffers),
    op("REMOVE_BUFFERS",    Nothing, &[]),
    special("TEE",          File,    &[], second_file),
    op("SHUTDOWN",          File,    &[]),
    special("RENAMEAT",     Folder,  &[Str(Addr), Str(Off)], second_folder),
    op("UNLINKAT",          Folder,  &[Str(Addr)]),
    op("MKDIRAT",           Folder,  &[Str(Addr)]),
    op("SYMLINKAT",         Folder,  &[Str(Addr), Str(Off)]),
    special("LINKAT",       Folder,  &[Str(Addr), Str(Off)], second_folder),
    op("MSG_RING",          File,    &[]),
    op("FSETXATTR",         File,    &[Str(Addr), In(Off, Len)]),
    op("SETXATTR",          Nothing, &[Str(Addr), In(Off, Len), Str(Addr3)]),
    op("FGETXATTR",         File,    &[Str(Addr), Out(Off, Len)]),
    op("GETXATTR",          Nothing, &[Str(Addr), Out(Off, Len), Path(Addr3)]),
    op("SOCKET",            Nothing, &[]),
    no("URING_CMD"),        // as ioctl, in layouts of the driver's
    op("SEND_ZC",           File,    &[In(Addr, Len), In(Off, AddrLen)]),
    op("SENDMSG_ZC",        File,    &[InMsg]),
    op("READ_MULTISHOT",    File,    &[]), // provided memory
    op("WAITID",            Nothing, &[Out(Off, Bytes(128))]),
    op("FUTEX_WAIT",        Nothing, &[In(Addr, Bytes(4))]),
    op("FUTEX_WAKE",        Nothing, &[In(Addr, Bytes(4))]),
    op("FUTEX_WAITV",       Nothing, &[In(Addr, Each(24))]),
    op("FIXED_FD_INSTALL",  File,    &[]),
    op("FTRUNCATE",         File,    &[]),
    op("BIND",              File,    &[In(Addr, Size::Off)]),
    op("LISTEN",            File,    &[]),
    no("RECV_ZC"),          // wants an interface queue, which guests cannot register
    no("EPOLL_WAIT"),       // events in the host's layout
    op("READV_FIXED",       File,    &[OutIov]),
    op("WRITEV_FIXED",      File,    &[InIov]),
    special("PIPE",         Nothing, &[Out(Addr, Bytes(8))], pipe),
];

/// An operation that no kernel has.
const UNKNOWN: u8 = 0xff;

/// An address that no program has.
const NOWHERE: u64 = u64::MAX << 16;

/// Whether guests may submit the operation of this number.
pub(super) fn is_offered(number: usize) -> bool {
    OPS.get(number).is_some_and(|op| op.offered)
}

/// The number of the last operation that is known.
pub(super) fn last() -> u8 {
    (OPS.len() - 1) as u8
}

/// Entries being made ready for the kernel, and what they point to (U3).
pub(super) struct Preparation<'a, 'c> {
    call: &'a mut Call<'c>,
    kept: Vec<Box<dyn Any>>,
}

impl<'a, 'c> Preparation<'a, 'c> {
    pub(super) fn new(call: &'a mut Call<'c>) -> Self {
        Preparation { call, kept: Vec::new() }
    }

    /// The entry as the kernel gets it.
    pub(super) fn prepare(&mut self, mut entry: Entry) -> Entry {
        let Some(op) = OPS.get(usize::from(entry.opcode)).filter(|op| op.offered) else {
            return Entry { opcode: UNKNOWN, ..entry };
        };
        if self.call.process().options.strace {
            strace::detail(self.call.thread, &text(op, &entry));
        }
        let is_descriptor = op.fd != Nothing && entry.flags & FIXED_FILE == 0;
        if is_descriptor && hidden::is_hidden(entry.fd) {
            entry.fd = -1;
        }
        for memory in op.memory {
            if self.admit(memory, &mut entry).is_err() {
                *entry.address(memory.at()) = NOWHERE;
            }
        }
        match op.special.map(|special| special(self, &mut entry)) {
            None | Some(Ok(())) => {}
            Some(Err(Errno::EBADF)) => entry.fd = -1,
            Some(Err(Errno::EFAULT)) => entry.addr = NOWHERE,
            Some(Err(_)) => entry.opcode = UNKNOWN,
        }
        entry
    }

    /// Checks what an address leads to. What the kernel writes, it may write at any time from now on (U4).
    fn admit(&mut self, memory: &Memory, entry: &mut Entry) -> Result {
        let (at, selects) = (*entry.address(memory.at()), entry.flags & BUFFER_SELECT != 0);
        if at == 0 {
            return Ok(());
        }
        let mut each = |dir, addr, len| self.buffer(dir, addr, len);
        match *memory {
            OutOrProvided(..) if selects => Ok(()),
            In(_, size) => each(Dir::In, at, size.of(entry)),
            Out(_, size) | OutOrProvided(_, size) => each(Dir::Out, at, size.of(entry)),
            InIov => {
                each(Dir::In, at, 1)?;
                each_in_iov(Dir::In, at, entry.len.into(), &mut each)
            }
            OutIov => {
                each(Dir::In, at, 1)?;
                each_in_iov(Dir::Out, at, entry.len.into(), &mut each)
            }
            InMsg => {
                each(Dir::In, at, MSGHDR)?;
                each_in_msg(Dir::In, at, &mut each)
            }
            OutMsg => {
                each(Dir::Out, at, MSGHDR)?;
                each_in_msg(Dir::Out, at, &mut each)
            }
            OutSock => {
                each(Dir::Out, entry.off, 4)?;
                each(Dir::Out, at, access::read::<u32>(GuestAddr(entry.off)).unwrap_or(0).into())
            }
            Str(_) => each(Dir::In, at, 1),
            Path(_) => {
                each(Dir::In, at, 1)?;
                *entry.address(memory.at()) = self.call.path_at(at).unwrap_or(at);
                Ok(())
            }
        }
    }

    fn buffer(&mut self, dir: Dir, addr: u64, len: u64) -> Result {
        let len = guests_own(addr, len)?;
        if dir == Dir::Out && len != 0 {
            self.call.process().leave_to_kernel(GuestAddr(addr), len);
        }
        Ok(())
    }
}

impl Memory {
    /// The field that the address stands in.
    fn at(&self) -> At {
        match *self {
            In(at, _) | Out(at, _) | OutOrProvided(at, _) | Str(at) | Path(at) => at,
            InIov | OutIov | InMsg | OutMsg | OutSock => Addr,
        }
    }
}

impl Size {
    fn of(self, entry: &Entry) -> u64 {
        match self {
            Bytes(n) => n,
            Len => entry.len.into(),
            Size::Off => entry.off,
            AddrLen => (entry.second_fd as u32 & 0xffff).into(),
            Each(n) => n * u64::from(entry.len),
        }
    }
}

impl Entry {
    fn address(&mut self, at: At) -> &mut u64 {
        match at {
            Addr => &mut self.addr,
            Off => &mut self.off,
            Addr3 => &mut self.addr3,
        }
    }
}

/// An entry in words, as the guest has written it.
fn text(op: &Op, entry: &Entry) -> String {
    let Entry { flags, fd, off, addr, len, op_flags, user_data, .. } = entry;
    format!(
        "{} fd {fd}, addr {addr:#x}, len {len}, off {off:#x}, flags {op_flags:#x} {flags:#x}, data {user_data:#x}",
        op.name
    )
}

/// `openat`: the path is at `addr`.
fn open(preparation: &mut Preparation<'_, '_>, entry: &mut Entry) -> Result {
    entry.addr = preparation.path_to_open(entry.fd, entry.addr, entry.op_flags)?;
    entry.op_flags = open_flags_to_host(entry.op_flags);
    Ok(())
}

/// `openat2`: the path is at `addr`, `struct open_how` at `addr2`, as long as `len` says.
fn open2(preparation: &mut Preparation<'_, '_>, entry: &mut Entry) -> Result {
    const HOW: u32 = 24;
    if entry.len != HOW {
        // That of a later kernel, or of none.
        return Err(Errno::EINVAL);
    }
    let [flags, mode, resolve] = access::read::<[u64; 3]>(GuestAddr(entry.off))?;
    entry.addr = preparation.path_to_open(entry.fd, entry.addr, flags as u32)?;
    let high = flags >> 32 << 32;
    let how = Box::new([high | u64::from(open_flags_to_host(flags as u32)), mode, resolve]);
    entry.off = host::ptr(&*how);
    preparation.kept.push(how);
    Ok(())
}

impl Preparation<'_, '_> {
    /// What to open for the path at `at`, as `openat` does. Files whose contents Calque would have to make are not opened so.
    fn path_to_open(&mut self, folder: i32, at: u64, flags: u32) -> Result<u64> {
        self.buffer(Dir::In, at, 1)?;
        let Ok(text) = text_at(at) else { return Ok(at) };
        if proc::content(&text, self.call.process()).is_some() {
            return Err(Errno::EINVAL);
        }
        let path = if flags & O_CREAT as u32 != 0 { at } else { self.call.path_at(at)? };
        if flags & O_ACCMODE as u32 != O_RDONLY as u32 {
            self.note_writer(folder, path, flags);
        }
        Ok(path)
    }

    /// Code that is mapped from a file which the guest opens for writing may change.
    fn note_writer(&self, folder: i32, path: u64, flags: u32) {
        let host_flags = open_flags_to_host(flags) as i32 & O_NOFOLLOW | O_PATH | O_CLOEXEC;
        let folder = if folder == AT_FDCWD { AT_FDCWD as u64 } else { folder as u64 };
        if let Ok(fd) = host::quick(libc::SYS_openat, [folder, path, host_flags as u64, 0]) {
            file::opened_for_writing(self.call.process(), fd);
            super::close(fd);
        }
    }
}

/// `statx`: the path is at `addr`, flags are in `op_flags`, the mask in `len`, the result goes to `addr2`. What may be the directory of threads,
/// of which the guest is not to see all (`tasks.rs`), is looked at here; if it is that, the kernel only completes the entry.
fn statx(preparation: &mut Preparation<'_, '_>, entry: &mut Entry) -> Result {
    /// `IORING_OP_NOP`.
    const NOP: u8 = 0;
    let call = &*preparation.call;
    if !tasks::may_be_of_threads(&text_at(entry.addr).unwrap_or_default()) {
        return Ok(());
    }
    let (folder, buf) = (entry.fd as u64, GuestAddr(entry.off));
    let found = host::quick(libc::SYS_statx, [folder, entry.addr, entry.op_flags.into(), entry.len.into(), buf.0]);
    if found.is_ok() && file::show_links(call, folder, entry.addr, buf)? {
        *entry = Entry { opcode: NOP, flags: entry.flags, fd: -1, user_data: entry.user_data, ..Entry::default() };
    }
    Ok(())
}

/// `epoll_ctl`: the operation is in `len`, the descriptor in `off`, `struct epoll_event`, whose layout is x86-64's, at `addr`.
fn epoll_ctl(preparation: &mut Preparation<'_, '_>, entry: &mut Entry) -> Result {
    if hidden::is_hidden(entry.off as i32) {
        entry.off = u32::MAX.into();
    }
    if entry.len == libc::EPOLL_CTL_DEL as u32 {
        return Ok(());
    }
    let event = Box::new(libc::epoll_event::from(access::read::<EpollEvent>(GuestAddr(entry.addr))?));
    entry.addr = host::ptr(&*event);
    preparation.kept.push(event);
    Ok(())
}

/// `splice`, `tee`: `splice_fd_in` is a second descriptor.
fn second_file(_: &mut Preparation<'_, '_>, entry: &mut Entry) -> Result {
    /// `SPLICE_F_FD_IN_FIXED`.
    const FIXED: u32 = 1 << 31;
    if entry.op_flags & FIXED == 0 && hidden::is_hidden(entry.second_fd) {
        entry.second_fd = -1;
    }
    Ok(())
}

/// `renameat2`, `linkat`: `len` is a second directory.
fn second_folder(_: &mut Preparation<'_, '_>, entry: &mut Entry) -> Result {
    if hidden::is_hidden(entry.len as i32) { Err(Errno::EBADF) } else { Ok(()) }
}

/// Registered files are replaced by `len` descriptors at `addr`, which the kernel reads when it gets to them.
fn files_update(_: &mut Preparation<'_, '_>, entry: &mut Entry) -> Result {
    super::register::check_files(entry.addr, entry.len)
}

/// `madvise`: `len` bytes at `addr`, more of them in `off`. The memory may lose its contents.
fn madvise(preparation: &mut Preparation<'_, '_>, entry: &mut Entry) -> Result {
    let len = if entry.off != 0 { entry.off } else { entry.len.into() };
    preparation.buffer(Dir::Out, entry.addr, len)
}

/// `fd` buffers of `len` bytes each, from `addr` on.
fn provide_buffers(preparation: &mut Preparation<'_, '_>, entry: &mut Entry) -> Result {
    let all = u64::from(entry.len) * entry.fd.max(0) as u64;
    preparation.buffer(Dir::Out, entry.addr, all)
}

/// `pipe2`.
fn pipe(_: &mut Preparation<'_, '_>, entry: &mut Entry) -> Result {
    entry.op_flags = open_flags_to_host(entry.op_flags);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of linux/io_uring.h, from the beginning, the middle and the end of the list.
    #[test]
    fn operations_stand_at_their_numbers() {
        for (number, name) in [
            (0, "NOP"),
            (13, "ACCEPT"),
            (22, "READ"),
            (29, "EPOLL_CTL"),
            (38, "SYMLINKAT"),
            (46, "URING_CMD"),
            (50, "WAITID"),
            (55, "FTRUNCATE"),
            (62, "PIPE"),
        ] {
            assert_eq!(OPS[number].name, name);
        }
        assert!(is_offered(0) && !is_offered(46) && !is_offered(63) && last() == 62);
    }
}
