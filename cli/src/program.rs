//! From the name that the user typed to the path of a program, as a shell finds it.

use calque_runtime::load::in_sysroot;
use nix::unistd::{AccessFlags, access};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why `PATH` has no such program.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum NotFound {
    #[error("{}: command not found{}", .0.display(), hint(.0))]
    Nowhere(OsString),
    #[error("{file}: not executable (chmod +x {file})", file = .0.display())]
    NotExecutable(PathBuf),
}

impl NotFound {
    /// The exit status that shells give.
    pub(crate) fn status(&self) -> u8 {
        match self {
            NotFound::Nowhere(_) => 127,
            NotFound::NotExecutable(_) => 126,
        }
    }
}

fn hint(name: &OsStr) -> String {
    let here = Path::new(name);
    if here.is_file() { format!(" (there is one here: ./{})", here.display()) } else { String::new() }
}

/// The program that `name` means: a path if it has a slash, else the first executable file of that name in the
/// directories of `search`. Absolute paths are looked for in the sysroot first.
pub(crate) fn find(name: &OsStr, search: &OsStr, sysroot: Option<&Path>) -> Result<PathBuf, NotFound> {
    if name.as_bytes().contains(&b'/') {
        return Ok(in_sysroot(Path::new(name), sysroot));
    }
    let mut denied = None;
    for dir in std::env::split_paths(search) {
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { &dir };
        let file = in_sysroot(&dir.join(name), sysroot);
        match file.is_file() {
            true if access(&file, AccessFlags::X_OK).is_ok() => return Ok(file),
            true => denied = denied.or(Some(file)),
            false => {}
        }
    }
    Err(denied.map_or_else(|| NotFound::Nowhere(name.into()), NotFound::NotExecutable))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn searches_like_a_shell() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, mode| {
            let file = dir.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, "").unwrap();
            fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            file
        };
        let (plain, second, inside) = (put("a/tool", 0o644), put("b/tool", 0o755), put("root/b/tool", 0o755));
        let other = put("a/other", 0o600);
        let search = std::env::join_paths([dir.path().join("a"), dir.path().join("b")]).unwrap();
        let find = |name: &str| find(OsStr::new(name), &search, None);
        assert_eq!(find("tool"), Ok(second.clone()), "{} is no program", plain.display());
        assert_eq!(find("other"), Err(NotFound::NotExecutable(other)));
        assert_eq!(find("none").unwrap_err().to_string(), "none: command not found");
        assert_eq!(find("./tool"), Ok("./tool".into()));
        let root = dir.path().join("root");
        assert_eq!(super::find(OsStr::new("/b/tool"), &search, Some(&root)), Ok(inside));
        assert_eq!(super::find(second.as_os_str(), &search, Some(&root)), Ok(second));
    }
}
