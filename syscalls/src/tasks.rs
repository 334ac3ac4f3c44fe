//! The guest's threads in /proc: the host process has more (`runtime/src/threads.rs`).
//!
//! | what shows threads                      | how                                                    |
//! |-----------------------------------------|--------------------------------------------------------|
//! | entries of /proc/PID/task               | [`entries`] takes the others' out                      |
//! | links of that directory                 | [`links`]: two, and one for each thread                |
//! | `Threads:` of /proc/PID/status          | [`status`], with the guest's number                    |
//! | `num_threads`, field 20 of /proc/PID/stat | [`stat`], likewise                                   |
//!
//! The directory is known by what is in it, not by a path: programs reach it through descriptors, and where they have changed their root.

use crate::call::{Call, text_at};
use crate::host;
use calque_runtime::Process;
use std::ffi::CString;

/// Mode of the directory, as of few others (fs/proc/base.c: `DIR("task", S_IRUGO|S_IXUGO, ...)`).
const MODE: u32 = libc::S_IFDIR | 0o555;

/// Links of a directory without directories in it.
const NO_THREADS: u64 = 2;

/// Whether the directory at `path` from `dirfd`, or `dirfd` itself without one, is that of this process's threads: it has an entry for the
/// calling one, and none of those that are beside processes.
fn is_of_threads(call: &Call<'_>, dirfd: u64, path: &[u8]) -> bool {
    let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
    let has = |entry: &str| {
        let path = CString::new([path, slash, entry.as_bytes()].concat()).expect("a path has no NUL");
        host::quick(libc::SYS_faccessat, [dirfd, host::ptr(path.as_bytes_with_nul()), 0]).is_ok()
    };
    has(&format!("{}/comm", call.thread.tid)) && !has("self")
}

/// Whether the directory may be known by this path, unless a symbolic link of another name leads to it.
pub(crate) fn may_be_of_threads(path: &[u8]) -> bool {
    let name = path.split(|byte| *byte == b'/').rfind(|name| !name.is_empty()).unwrap_or_default();
    [&b""[..], b".", b"..", b"task"].contains(&name)
}

/// Links of what was found at the path at `path`, from `dirfd`, or at `dirfd` itself, as the guest is to see them.
pub(crate) fn links(call: &Call<'_>, dirfd: u64, path: u64, mode: u32, links: u64) -> u64 {
    if mode != MODE || links <= NO_THREADS {
        return links;
    }
    // Null stands for an empty path.
    let path = text_at(path).unwrap_or_default();
    if is_of_threads(call, dirfd, &path) { NO_THREADS + call.process().threads.here().len() as u64 } else { links }
}

/// The `linux_dirent64` records that were read from the directory `fd`, without those that the guest is not to see.
pub(crate) fn entries(call: &Call<'_>, fd: u64, records: Vec<u8>) -> Vec<u8> {
    if split(&records).filter_map(number).next().is_none() || !is_of_threads(call, fd, b"") {
        return records;
    }
    let threads = call.process().threads.here();
    let shown = |record: &&[u8]| number(record).is_none_or(|thread| threads.contains(&thread));
    split(&records).filter(shown).collect::<Vec<_>>().concat()
}

/// Single records; their length stands at 16.
fn split(mut records: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let len = u16::from_ne_bytes(records.get(16..18)?.try_into().ok()?);
        let (record, rest) = records.split_at_checked(usize::from(len))?;
        records = rest;
        Some(record)
    })
}

/// The name of a record, if it is a number; names stand at 19.
fn number(record: &[u8]) -> Option<i32> {
    let name = record.get(19..)?.split(|byte| *byte == 0).next()?;
    std::str::from_utf8(name).ok()?.parse().ok()
}

/// What is to be shown of the file `path`, if it is one that tells the number of threads, `name`, and tells another.
pub(crate) fn counts(path: &[u8], name: &str, process: &Process) -> Option<Vec<u8>> {
    use std::os::unix::ffi::OsStrExt;
    let with: fn(&str, usize) -> Option<String> = match name {
        "status" => status,
        "stat" => stat,
        _ => return None,
    };
    let text = std::fs::read(std::ffi::OsStr::from_bytes(path)).ok()?;
    let text = String::from_utf8_lossy(&text);
    let shown = with(&text, process.threads.here().len())?;
    (shown != text).then(|| shown.into_bytes())
}

fn status(text: &str, threads: usize) -> Option<String> {
    let (before, rest) = text.split_once("\nThreads:\t")?;
    let (_, after) = rest.split_once('\n')?;
    Some(format!("{before}\nThreads:\t{threads}\n{after}"))
}

/// The third field is the first behind the program's name, which may contain anything.
fn stat(text: &str, threads: usize) -> Option<String> {
    let (name, rest) = text.rsplit_once(") ")?;
    let mut fields: Vec<&str> = rest.split(' ').collect();
    let threads = threads.to_string();
    *fields.get_mut(20 - 3)? = &threads;
    Some(format!("{name}) {}", fields.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_threads() {
        assert_eq!(status("Name:\ta\nThreads:\t5\nSigQ:\t1\n", 2).unwrap(), "Name:\ta\nThreads:\t2\nSigQ:\t1\n");
        assert_eq!(status("Name:\ta\n", 2), None);
        let text = "7 (a) b) S 1 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 99 21 22\n";
        assert_eq!(stat(text, 3).unwrap(), text.replace(" 99 ", " 3 "));
        assert_eq!(stat("7 (a) S 1\n", 3), None);
    }

    #[test]
    fn paths_of_the_directory() {
        for path in [&b""[..], b".", b"/proc/self/task", b"/proc/7/task/", b"task", b"7/.."] {
            assert!(may_be_of_threads(path));
        }
        for path in [&b"/proc/self/task/7"[..], b"tasks", b"/usr/bin/task.."] {
            assert!(!may_be_of_threads(path));
        }
    }

    #[test]
    fn names_of_records() {
        let record = |name: &str| {
            let mut record = vec![0u8; 24 + name.len() / 8 * 8];
            record[16] = record.len() as u8;
            record[19..19 + name.len()].copy_from_slice(name.as_bytes());
            record
        };
        let records = [record("."), record("123"), record("12a"), record("12345678")].concat();
        assert_eq!(split(&records).map(number).collect::<Vec<_>>(), [None, Some(123), None, Some(12_345_678)]);
    }
}
