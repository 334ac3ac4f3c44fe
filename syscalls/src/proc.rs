//! The guest's view of /proc: entries that on the host are about Calque or about another processor.
//!
//! Served from what the runtime knows: `exe`, `maps`, `smaps` (without the counters), `cmdline`, `environ`, `auxv` of
//! /proc/self, /proc/thread-self or /proc/PID of the process itself, and /proc/cpuinfo, which says what CPUID says; `status` and `stat` if the
//! number of threads there is not the guest's (`tasks.rs`). All
//! other entries are the host's, and so is whatever file is reached through a descriptor of a directory.

use crate::call::Call;
use crate::tasks;
use calque_runtime::{ExeInfo, Process, cpuid};
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

/// Whether `fd`, a file of which this was `found`, is this process's memory as a file, by whatever path it was opened.
pub(crate) fn is_own_memory(fd: u64, found: &libc::stat) -> bool {
    // fs/proc/base.c: `REG("mem", S_IRUSR|S_IWUSR, ...)`, in a file system without a device. Few others look so, and asking for the path costs more
    // than opening the file.
    let may_be = found.st_mode == libc::S_IFREG | 0o600 && found.st_size == 0 && libc::major(found.st_dev) == 0;
    if !may_be {
        return false;
    }
    let path = std::fs::read_link(format!("/proc/self/fd/{fd}"));
    path.is_ok_and(|path| entry(path.as_os_str().as_bytes()) == Some("mem"))
}

/// Opens the entry at argument `path` if it is one that is ours to show.
pub(crate) fn open(call: &mut Call<'_>, path: usize, flags: u32) -> Result<Option<u64>, Errno> {
    let text = call.text(path)?;
    let Some(content) = content(&text, call.process()) else { return Ok(None) };
    let close = if flags & libc::O_CLOEXEC as u32 != 0 { MFdFlags::MFD_CLOEXEC } else { MFdFlags::empty() };
    let name = CString::new(text).expect("read up to its NUL");
    let mut file = File::from(memfd_create(name.as_c_str(), close)?);
    file.write_all(&content).and_then(|()| file.rewind()).map_err(|_| Errno::EIO)?;
    Ok(Some(OwnedFd::from(file).into_raw_fd() as u64))
}

/// What the guest sees in the file of this name, if it is one that is ours to show.
pub(crate) fn content(path: &[u8], process: &Process) -> Option<Vec<u8>> {
    if path == b"/proc/cpuinfo" {
        return Some(cpuinfo(process.xcr0()).into_bytes());
    }
    let name = entry(path)?;
    match name {
        "maps" => Some(process.mem.proc_maps().into_bytes()),
        "smaps" => Some(process.mem.proc_maps().into_bytes()),
        "cmdline" => Some(strings(&process.exe().argv)),
        "environ" => Some(strings(&process.exe().envp)),
        "auxv" => Some(auxv(process.exe())),
        _ => tasks::counts(path, name, process),
    }
}

/// /proc/cpuinfo of x86 (arch/x86/kernel/cpu/proc.c): every processor of the host as the one that CPUID describes.
fn cpuinfo(xcr0: u64) -> String {
    let [signature, ..] = cpuid::cpuid(1, 0, xcr0);
    let (family, model, stepping) =
        (signature >> 8 & 0xf, signature >> 12 & 0xf0 | signature >> 4 & 0xf, signature & 0xf);
    let flags = cpuid::feature_names(xcr0).collect::<Vec<_>>().join(" ");
    let count = nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN).ok().flatten().unwrap_or(1);
    let one = |n| {
        format!(
            "processor\t: {n}\nvendor_id\t: GenuineIntel\ncpu family\t: {family}\nmodel\t\t: {model}\nmodel name\t: {}\n\
             stepping\t: {stepping}\ncpu MHz\t\t: 1000.000\ncache size\t: 256 KB\nphysical id\t: 0\nsiblings\t: {count}\n\
             core id\t\t: {n}\ncpu cores\t: {count}\nfpu\t\t: yes\ncpuid level\t: {}\nflags\t\t: {flags}\n\
             clflush size\t: 64\ncache_alignment\t: 64\naddress sizes\t: 40 bits physical, 48 bits virtual\n\n",
            cpuid::brand(xcr0),
            cpuid::cpuid(0, 0, xcr0)[0],
        )
    };
    (0..count).map(one).collect()
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
    use calque_ir::state::XCR0_AVX2;

    #[test]
    fn processors() {
        let text = cpuinfo(XCR0_AVX2);
        assert!(text.starts_with("processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: "), "{text}");
        assert!(text.contains(" sse2 ") && text.ends_with("\n\n"));
    }

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
