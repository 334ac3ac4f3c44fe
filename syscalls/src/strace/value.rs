//! Arguments and results as text.

use super::{is_output, structs};
use crate::abi::{ioctl, userfault};
use crate::call::{Call, PATH_MAX};
use crate::row::{Arg, IOV_MAX, MMSGHDR, Struct};
use crate::strace::names::{self, Names};
use calque_runtime::signal::signal_name;
use calque_runtime::{GuestAddr, access};
use nix::errno::Errno;
use std::fmt::Write;

/// Bytes shown of a buffer, and elements of an array: strace's defaults.
const MAX_BYTES: usize = 32;
const MAX_ELEMENTS: u64 = 16;

/// When arguments are printed.
#[derive(Clone, Copy)]
pub(crate) enum When {
    /// As far as they are known before the call.
    Before,
    /// From the first one that the call decides.
    After { from: usize, result: Result<u64, Errno> },
}

/// Some of a call's arguments as text.
pub(crate) struct Arguments {
    pub text: String,
    /// How many have been printed.
    pub count: usize,
    /// Whether there are more.
    pub rest: bool,
}

/// The arguments that can be printed at this time.
pub(crate) fn arguments(call: &Call<'_>, when: When) -> Arguments {
    let all = &call.row.args[..shown(call)];
    let (from, to) = match when {
        When::Before => (0, (0..all.len()).find(|&i| is_output(call, i)).unwrap_or(all.len())),
        When::After { from, .. } => (from, all.len()),
    };
    let mut text = String::new();
    for i in from..to {
        if i != 0 && !(i == from && from != 0) {
            text.push_str(", ");
        }
        text.push_str(&argument(call, i, when));
    }
    let rest = to < all.len();
    if rest && to != 0 {
        text.push_str(", ");
    }
    Arguments { text, count: to, rest }
}

/// How many arguments mean something: a mode only where a file may be made.
fn shown(call: &Call<'_>) -> usize {
    const MAKES: u64 = 0o100 | 0o20000000;
    let all = call.row.args.len();
    let flags = match call.row.name {
        "open" => call.args[1],
        "openat" => call.args[2],
        "fcntl" if matches!(call.args[1], 1 | 3 | 9 | 11 | 1025 | 1032 | 1034) => return 2,
        _ => return all,
    };
    if flags & MAKES == 0 { all - 1 } else { all }
}

fn argument(call: &Call<'_>, i: usize, when: When) -> String {
    let value = call.args[i];
    let n = |k: u8| call.args[k as usize];
    let (result, failed) = match when {
        When::Before => (0, false),
        When::After { result, .. } => (result.unwrap_or(0), result.is_err()),
    };
    let arg = call.row.args[i];
    if failed && is_output(call, i) && !matches!(arg, Arg::IoS(_)) {
        return address(value);
    }
    match arg {
        Arg::Int | Arg::Pid | Arg::Fd | Arg::Id => (value as i32).to_string(),
        Arg::Uint => (value as u32).to_string(),
        Arg::Long | Arg::Off => (value as i64).to_string(),
        Arg::Size => value.to_string(),
        Arg::Hex | Arg::Dev => format!("{value:#x}"),
        Arg::Mode => format!("{:#05o}", value as u32).replacen("0o", "0", 1),
        Arg::Sig => signal_name(value as i32),
        Arg::DirFd if value as i32 == libc::AT_FDCWD => "AT_FDCWD".to_owned(),
        Arg::DirFd => (value as i32).to_string(),
        Arg::Ptr => address(value),
        Arg::Path | Arg::NewPath | Arg::Str => text(value),
        Arg::Argv if call.row.args[i - 1..i].iter().any(|a| matches!(a, Arg::Argv)) => variables(value),
        Arg::Argv => vector(value),
        Arg::Bits(names) => flags(names, value as u32 as u64),
        Arg::One(names) => one(names, value as u32 as u64),
        Arg::SockOpt if call.args[i - 1] == libc::SOL_SOCKET as u64 => one(&names::SO, value),
        Arg::SockOpt => (value as i32).to_string(),
        Arg::CloneFlags => clone_flags(value),
        Arg::Request => request(value as u32),
        Arg::Ioctl => ioctl_argument(call, i),
        Arg::Fcntl => fcntl_argument(call, i),
        Arg::In(k) => bytes(value, n(k)),
        Arg::Out(_) if call.row.name.starts_with("getdents") => dirents(value, result),
        Arg::Out(k) => bytes(value, result.min(n(k))),
        Arg::OutAll(k) => bytes(value, n(k)),
        Arg::InIov(k) => iov(value, n(k), u64::MAX),
        Arg::OutIov(k) => iov(value, n(k), result),
        Arg::InMsg => msg(value, u64::MAX),
        Arg::OutMsg => msg(value, result),
        Arg::InMmsg(_) => mmsg(value, n(2).min(IOV_MAX)),
        Arg::OutMmsg(_) => mmsg(value, result),
        Arg::InSock(k) => sockaddr(value, n(k)),
        Arg::OutSock(k) => match access::read::<u32>(GuestAddr(n(k))) {
            Ok(len) => sockaddr(value, len.into()),
            Err(_) => address(value),
        },
        Arg::InS(s) | Arg::OutS(s) | Arg::IoS(s) => structure(s, value),
        Arg::InA(s, k) | Arg::IoA(s, k) => array(s, value, n(k)),
        Arg::OutA(s, _) => array(s, value, result),
        Arg::FdSet => fd_set(value, call.args[0]),
    }
}

/// The result, in the base that suits it.
pub(crate) fn result(call: &Call<'_>, value: u64) -> String {
    match call.row.name {
        "mmap" | "mremap" | "brk" | "shmat" => format!("{value:#x}"),
        "umask" => format!("{value:#05o}").replacen("0o", "0", 1),
        "fcntl" if call.args[1] == 3 => format!("{value:#x} (flags {})", flags(&names::OPEN, value)),
        "poll" | "ppoll" if value != 0 => format!("{value} ({})", ready(call.args[0], call.args[1])),
        "poll" | "ppoll" | "select" | "pselect6" if value == 0 => "0 (Timeout)".to_owned(),
        _ => (value as i64).to_string(),
    }
}

/// Whether the child of a `clone` shares this memory: a thread, or one of vfork.
pub(crate) fn clones_memory(call: &Call<'_>) -> bool {
    let flags = match call.row.name {
        "fork" => 0,
        "vfork" => libc::CLONE_VM as u64,
        "clone3" => call.read::<u64>(0).unwrap_or(0),
        _ => call.args[0],
    };
    flags & libc::CLONE_VM as u64 != 0
}

/// Whether the file that an `execve` names can be executed, as far as its mode says.
pub(crate) fn is_executable(call: &Call<'_>) -> bool {
    use std::os::unix::ffi::OsStringExt;
    let path = call.row.args.iter().position(|a| matches!(a, Arg::Path)).expect("execve has a path");
    let Ok(path) = access::read_cstr(call.addr(path), PATH_MAX) else { return false };
    let path = std::path::PathBuf::from(std::ffi::OsString::from_vec(path));
    path.is_file() && nix::unistd::access(&path, nix::unistd::AccessFlags::X_OK).is_ok()
}

fn address(value: u64) -> String {
    if value == 0 { "NULL".to_owned() } else { format!("{value:#x}") }
}

/// `A|B|0x40`.
pub(crate) fn flags(names: &Names, value: u64) -> String {
    let mut parts = Vec::new();
    let mut left = value;
    if names.mask != 0 {
        let part = value & names.mask;
        left &= !names.mask;
        match names.rows.iter().find(|row| row.0 & !names.mask == 0 && row.0 == part) {
            Some(row) => parts.push(row.1.to_owned()),
            None if part != 0 => parts.push(format!("{part:#x}")),
            None => {}
        }
    }
    for &(bits, name) in names.rows.iter().filter(|row| row.0 & !names.mask != 0) {
        if bits & left == bits {
            parts.push(name.to_owned());
            left &= !bits;
        }
    }
    if left != 0 {
        parts.push(format!("{left:#x}"));
    }
    let zero = || names.rows.iter().find(|row| row.0 == 0).map_or("0", |row| row.1).to_owned();
    if parts.is_empty() { zero() } else { parts.join("|") }
}

/// The name of a value, or its number.
pub(crate) fn one(names: &Names, value: u64) -> String {
    names.rows.iter().find(|row| row.0 == value).map_or_else(|| format!("{value:#x}"), |row| row.1.to_owned())
}

fn clone_flags(value: u64) -> String {
    let (high, signal) = (value & !0xff, value & 0xff);
    match (high, signal) {
        (_, 0) => flags(&names::CLONE, high),
        (0, signal) => signal_name(signal as i32),
        (_, signal) => format!("{}|{}", flags(&names::CLONE, high), signal_name(signal as i32)),
    }
}

/// Bytes as a C string, cut off after `limit`.
pub(crate) fn quote(bytes: &[u8], limit: usize) -> String {
    let mut out = String::from("\"");
    let shown = &bytes[..bytes.len().min(limit)];
    for (i, &byte) in shown.iter().enumerate() {
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\t' => out.push_str("\\t"),
            b'\r' => out.push_str("\\r"),
            0x0b => out.push_str("\\v"),
            0x0c => out.push_str("\\f"),
            0x20..0x7f => out.push(byte as char),
            // Three digits only where a digit follows, which would be read as one more.
            _ if shown.get(i + 1).is_some_and(u8::is_ascii_digit) => {
                let _ = write!(out, "\\{byte:03o}");
            }
            _ => {
                let _ = write!(out, "\\{byte:o}");
            }
        }
    }
    out.push('"');
    if bytes.len() > limit {
        out.push_str("...");
    }
    out
}

fn bytes(at: u64, len: u64) -> String {
    // One more than is shown: that there is more.
    let mut buf = vec![0; len.min(MAX_BYTES as u64 + 1) as usize];
    match access::read_bytes(GuestAddr(at), &mut buf) {
        Ok(()) if at != 0 => quote(&buf, MAX_BYTES),
        _ => address(at),
    }
}

fn text(at: u64) -> String {
    match access::read_cstr(GuestAddr(at), PATH_MAX) {
        Ok(text) if at != 0 => quote(&text, PATH_MAX),
        _ => address(at),
    }
}

/// The pointers of a NULL-terminated vector.
fn pointers(at: u64) -> Option<Vec<u64>> {
    let mut list = Vec::new();
    loop {
        match access::read::<u64>(GuestAddr(at).wrapping_add(8 * list.len() as u64)).ok()? {
            0 => return Some(list),
            pointer => list.push(pointer),
        }
    }
}

fn vector(at: u64) -> String {
    match pointers(at) {
        Some(list) if at != 0 => format!("[{}]", list.iter().map(|&p| text(p)).collect::<Vec<_>>().join(", ")),
        _ => address(at),
    }
}

/// An environment: its size only, as strace shows it.
fn variables(at: u64) -> String {
    match pointers(at) {
        Some(list) if at != 0 => format!("{at:#x} /* {} vars */", list.len()),
        _ => address(at),
    }
}

fn request(request: u32) -> String {
    match ioctl::OLD.iter().find(|row| row.0 == request) {
        Some(row) => row.1.to_owned(),
        None if userfault::name(request).is_some() => userfault::name(request).unwrap_or_default().to_owned(),
        None => {
            let dir = ["_IOC_NONE", "_IOC_WRITE", "_IOC_READ", "_IOC_READ|_IOC_WRITE"][(request >> 30) as usize];
            let (kind, number, size) = (request >> 8 & 0xff, request & 0xff, request >> 16 & 0x3fff);
            format!("_IOC({dir}, {kind:#x}, {number:#x}, {size:#x})")
        }
    }
}

fn ioctl_argument(call: &Call<'_>, i: usize) -> String {
    match (call.args[1] as u32, call.args[i]) {
        // TIOCGPGRP, TIOCSPGRP, FIONREAD, FIONBIO: an int.
        (0x540f | 0x5410 | 0x541b | 0x5421, at) => structure(Struct::I32, at),
        (0x5413 | 0x5414, at) => match access::read::<[u16; 4]>(GuestAddr(at)) {
            Ok([rows, columns, x, y]) => format!("{{ws_row={rows}, ws_col={columns}, ws_xpixel={x}, ws_ypixel={y}}}"),
            Err(_) => address(at),
        },
        (_, value) => address(value),
    }
}

fn fcntl_argument(call: &Call<'_>, i: usize) -> String {
    match (call.args[1], call.args[i]) {
        (2, 1) => "FD_CLOEXEC".to_owned(),
        (4, value) => flags(&names::OPEN, value),
        (0 | 2 | 8 | 10 | 1024 | 1030 | 1031, value) => (value as i64).to_string(),
        (_, value) => address(value),
    }
}

fn dirents(at: u64, len: u64) -> String {
    let (mut count, mut offset) = (0, 0);
    while offset < len {
        match access::read::<u16>(GuestAddr(at + offset + 16)) {
            Ok(record) if record != 0 => offset += u64::from(record),
            _ => break,
        }
        count += 1;
    }
    format!("{at:#x} /* {count} entries */")
}

/// `[{iov_base="...", iov_len=5}, ...]`; of what was received, `limit` bytes in all.
fn iov(at: u64, count: u64, mut limit: u64) -> String {
    let Ok(list) = access::read_slice::<[u64; 2]>(GuestAddr(at), count.min(MAX_ELEMENTS) as usize) else {
        return address(at);
    };
    let mut items = Vec::new();
    for [base, len] in list {
        let valid = len.min(limit);
        limit -= valid;
        items.push(format!("{{iov_base={}, iov_len={len}}}", bytes(base, valid)));
    }
    listed(items, count)
}

fn listed(mut items: Vec<String>, count: u64) -> String {
    if count > items.len() as u64 {
        items.push("...".to_owned());
    }
    format!("[{}]", items.join(", "))
}

fn msg(at: u64, limit: u64) -> String {
    let Ok([name, namelen, vec, count, _, controllen, flag]) = access::read::<[u64; 7]>(GuestAddr(at)) else {
        return address(at);
    };
    let (namelen, name) = (namelen as u32, sockaddr(name, namelen as u32 as u64));
    let (vec, flag) = (iov(vec, count, limit), flags(&names::MSG, flag as u32 as u64));
    format!(
        "{{msg_name={name}, msg_namelen={namelen}, msg_iov={vec}, msg_iovlen={count}, msg_controllen={controllen}, \
         msg_flags={flag}}}"
    )
}

fn mmsg(at: u64, count: u64) -> String {
    let one = |i| {
        let len = access::read::<u32>(GuestAddr(at + i * MMSGHDR + 56)).unwrap_or(0);
        format!("{{msg_hdr={}, msg_len={len}}}", msg(at + i * MMSGHDR, u64::MAX))
    };
    listed((0..count.min(MAX_ELEMENTS)).map(one).collect(), count)
}

fn sockaddr(at: u64, len: u64) -> String {
    let mut raw = vec![0; len.min(128) as usize];
    match access::read_bytes(GuestAddr(at), &mut raw) {
        Ok(()) if at != 0 => structs::sockaddr(&raw),
        _ => address(at),
    }
}

fn structure(kind: Struct, at: u64) -> String {
    let mut raw = vec![0; kind.size() as usize];
    match access::read_bytes(GuestAddr(at), &mut raw) {
        Ok(()) if at != 0 => structs::text(kind, &raw).unwrap_or_else(|| address(at)),
        _ => address(at),
    }
}

fn array(kind: Struct, at: u64, count: u64) -> String {
    let shown = count.min(MAX_ELEMENTS);
    let mut raw = vec![0; (kind.size() * shown) as usize];
    if at == 0 || access::read_bytes(GuestAddr(at), &mut raw).is_err() {
        return address(at);
    }
    let items: Option<Vec<_>> = raw.chunks_exact(kind.size() as usize).map(|one| structs::element(kind, one)).collect();
    items.map_or_else(|| address(at), |items| listed(items, count))
}

/// The descriptors that poll found ready.
fn ready(at: u64, count: u64) -> String {
    let Ok(list) = access::read_slice::<[u16; 4]>(GuestAddr(at), count.min(IOV_MAX) as usize) else {
        return address(at);
    };
    let found = list.iter().filter(|entry| entry[3] != 0).map(|&[low, high, _, events]| {
        let fd = u32::from(low) | u32::from(high) << 16;
        format!("{{fd={}, revents={}}}", fd as i32, flags(&names::POLL, events.into()))
    });
    format!("[{}]", found.collect::<Vec<_>>().join(", "))
}

fn fd_set(at: u64, bits: u64) -> String {
    let bits = bits.min(1 << 16) as usize;
    match access::read_slice::<u64>(GuestAddr(at), bits.div_ceil(64)) {
        Ok(words) if at != 0 => {
            let set = (0..bits).filter(|fd| words[fd / 64] >> (fd % 64) & 1 != 0);
            format!("[{}]", set.map(|fd| fd.to_string()).collect::<Vec<_>>().join(" "))
        }
        _ => address(at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted_as_in_c() {
        assert_eq!(quote(b"a\"b\\\n\x001\x7f\xff", 32), r#""a\"b\\\n\0001\177\377""#);
        assert_eq!(quote(b"\x01x", 32), r#""\1x""#);
        assert_eq!(quote(b"abcdef", 3), r#""abc"..."#);
    }

    #[test]
    fn flags_are_named() {
        assert_eq!(flags(&names::OPEN, 0), "O_RDONLY");
        assert_eq!(flags(&names::OPEN, 0o2000000 | 0o200000), "O_RDONLY|O_DIRECTORY|O_CLOEXEC");
        assert_eq!(flags(&names::OPEN, 0o101102), "O_RDWR|O_CREAT|O_TRUNC|O_LARGEFILE");
        assert_eq!(flags(&names::OPEN, 0o20200001), "O_WRONLY|O_TMPFILE");
        assert_eq!(flags(&names::MAP, 0x22), "MAP_PRIVATE|MAP_ANONYMOUS");
        assert_eq!(flags(&names::PROT, 0), "PROT_NONE");
        assert_eq!(flags(&names::MSG, 0), "0");
        assert_eq!(flags(&names::MSYNC, 0x40), "0x40");
        assert_eq!(flags(&names::FUTEX, 0x189), "FUTEX_WAIT_BITSET|FUTEX_PRIVATE_FLAG|FUTEX_CLOCK_REALTIME");
        assert_eq!(one(&names::SEEK, 2), "SEEK_END");
        assert_eq!(one(&names::SEEK, 9), "0x9");
        assert_eq!(clone_flags(0x0120_0011), "CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID|SIGCHLD");
        assert_eq!(request(0x5401), "TCGETS");
        assert_eq!(request(0x8004_5430), "_IOC(_IOC_READ, 0x54, 0x30, 0x4)");
    }
}
