//! The guest's own entries in /proc, which on the host are Calque's.
//!
//! Served from what the runtime knows: `exe`, `maps`, `smaps` (without the counters), `cmdline`, `environ`, `auxv`. All other
//! entries are the host's. Reached as /proc/self, /proc/thread-self or /proc/PID of the process itself; not through
//! a descriptor of the directory.

use crate::call::Call;
use calque_runtime::{ExeInfo, Process};
use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::ffi::CString;
use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::{IntoRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// The entry that `path` names in this process's directory: "exe" of "/proc/self/exe".
pub(crate) fn entry(path: &[u8]) -> Option<&str> {
    let path = std::str::from_utf8(path).ok()?.strip_prefix("/proc/")?;
    let (who, rest) = path.split_once('/')?;
    let ours = who == "self" || who == "thread-self" || who.parse() == Ok(std::process::id());
    let name = match rest.strip_prefix("task/") {
        Some(task) => task.split_once('/')?.1,
        None => rest,
    };
    ours.then_some(name)
}

/// Opens the entry at argument `path` if it is one that is ours to show.
pub(crate) fn open(call: &mut Call<'_>, path: usize, flags: u32) -> Result<Option<u64>, Errno> {
    let text = call.text(path)?;
    let Some(content) = entry(&text).and_then(|name| content(name, call.process())) else { return Ok(None) };
    let close = if flags & libc::O_CLOEXEC as u32 != 0 { MFdFlags::MFD_CLOEXEC } else { MFdFlags::empty() };
    let name = CString::new(text).expect("read up to its NUL");
    let mut file = File::from(memfd_create(name.as_c_str(), close)?);
    file.write_all(&content).and_then(|()| file.rewind()).map_err(|_| Errno::EIO)?;
    Ok(Some(OwnedFd::from(file).into_raw_fd() as u64))
}

fn content(name: &str, process: &Process) -> Option<Vec<u8>> {
    match name {
        "maps" => Some(process.mem.proc_maps().into_bytes()),
        "smaps" => Some(process.mem.proc_maps().into_bytes()),
        "cmdline" => Some(strings(&process.exe().argv)),
        "environ" => Some(strings(&process.exe().envp)),
        "auxv" => Some(auxv(process.exe())),
        _ => None,
    }
}

fn strings(list: &[CString]) -> Vec<u8> {
    list.iter().flat_map(|s| s.as_bytes_with_nul()).copied().collect()
}

/// The auxiliary vector's bytes, with its terminator.
pub(crate) fn auxv(exe: &ExeInfo) -> Vec<u8> {
    let end = (exe.auxv.last().map(|last| last.0) != Some(0)).then_some((0, 0));
    exe.auxv.iter().copied().chain(end).flat_map(|(kind, value)| [kind, value]).flat_map(u64::to_le_bytes).collect()
}

/// The path of the guest's program, if `path` is /proc/self/exe.
pub(crate) fn exe(path: &[u8], process: &Process) -> Option<CString> {
    (entry(path) == Some("exe"))
        .then(|| CString::new(process.exe().path.as_os_str().as_bytes()).expect("a path has no NUL"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries() {
        assert_eq!(entry(b"/proc/self/exe"), Some("exe"));
        assert_eq!(entry(b"/proc/thread-self/maps"), Some("maps"));
        assert_eq!(entry(b"/proc/self/task/17/maps"), Some("maps"));
        assert_eq!(entry(format!("/proc/{}/exe", std::process::id()).as_bytes()), Some("exe"));
        assert_eq!(entry(b"/proc/1/exe"), None);
        assert_eq!(entry(b"/proc/self"), None);
        assert_eq!(entry(b"/etc/passwd"), None);
    }
}
