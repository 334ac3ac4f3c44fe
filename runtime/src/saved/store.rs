//! The files of saved code: one for each program, in a directory of the user's.
//!
//! - A file begins with the [`identity`] of what its code is for; one with another identity is replaced. It only grows, by whole appends under a lock,
//!   until it is replaced: so what is read is what was written, but for an append that a crash has cut short.
//! - It is executed, so directory and file must belong to who runs the program, and nobody else may write to them.
//! - The guest knows nothing of it: the directory is held open under a hidden descriptor from before it runs, as it may change its root or its
//!   working directory. Nothing is saved that its limit on the size of files would forbid, which is a signal.
//! - Whatever fails is no failure of the program: there is nothing saved then. `--stats` shows how much was used.

use crate::hidden;
use calque_backend::HostIsa;
use nix::dir::Dir;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag, openat, renameat};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};
use std::fs::{DirBuilder, File, Metadata};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;
use twox_hash::XxHash64;

/// What a file begins with.
const MAGIC: u64 = u64::from_le_bytes(*b"calque01");

/// Words of the head: [`MAGIC`] and identity.
const HEAD: usize = 4;

/// Bytes above which a file does not grow.
const LARGEST: u64 = 16 << 20;

/// Bytes of all files above which those go that were written to first, until there is a quarter less.
const MOST: u64 = 512 << 20;

/// A program's file.
pub(super) struct Store {
    dir: OwnedFd,
    name: String,
    identity: u64,
    /// Bytes of the file when it was read; 0 if there was none of use.
    size: u64,
}

impl Store {
    /// The file for `program` in `dir`, and its words behind the head; `None` if there can be none.
    pub(super) fn open(dir: &Path, program: &Path, host: &HostIsa) -> Option<(Store, Vec<u32>)> {
        // What takes a number that the guest would get is not worth it.
        if !hidden::has_high_numbers() {
            return None;
        }
        // Mode 700, as the XDG Base Directory Specification has it.
        DirBuilder::new().recursive(true).mode(0o700).create(dir).ok()?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = nix::fcntl::open(dir, flags, Mode::empty()).ok()?;
        if !is_ours(&fstat(&dir).ok()?) {
            return None;
        }
        let mut store = Store { dir, name: name(program), identity: identity(program, host)?, size: 0 };
        let words = store.read().unwrap_or_default();
        store.dir = hidden::hide(&store.dir).ok()?;
        Some((store, words))
    }

    fn open_file(&self, flags: OFlag) -> nix::Result<File> {
        let flags = flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        Ok(openat(&self.dir, self.name.as_str(), flags, Mode::empty())?.into())
    }

    /// The words behind the head of a file that is of use.
    fn read(&mut self) -> Option<Vec<u32>> {
        let mut file = self.open_file(OFlag::O_RDONLY).ok()?;
        let stat = fstat(&file).ok()?;
        let size = stat.st_size as u64;
        if !is_ours(&stat) || !is_file(&stat) || size > 2 * LARGEST {
            return None;
        }
        let mut words = vec![0u32; size as usize / 4];
        file.read_exact(bytemuck::cast_slice_mut(&mut words)).ok()?;
        if words.get(..HEAD)? != self.head() {
            return None;
        }
        self.size = size;
        words.drain(..HEAD);
        Some(words)
    }

    fn head(&self) -> [u32; HEAD] {
        [MAGIC as u32, (MAGIC >> 32) as u32, self.identity as u32, (self.identity >> 32) as u32]
    }

    /// Whether there is a file of use, be it without any block.
    pub(super) fn is_begun(&self) -> bool {
        self.size != 0
    }

    /// Puts a file without blocks in the place of what is there.
    pub(super) fn begin(&self) {
        self.make_room();
        if fits(4 * HEAD as u64) {
            // Nobody is to be told.
            let _ = self.replace();
        }
    }

    /// Adds words to what was read, unless somebody else has meanwhile or they do not fit.
    pub(super) fn append(&self, words: &[u32]) {
        let bytes = bytemuck::cast_slice(words);
        if fits(self.size + bytes.len() as u64) {
            let _ = self.grow(bytes);
        }
    }

    fn grow(&self, bytes: &[u8]) -> io::Result<()> {
        let file = self.open_file(OFlag::O_WRONLY | OFlag::O_APPEND)?;
        let mut file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno)?;
        if file.metadata()?.len() != self.size {
            return Ok(());
        }
        file.write_all(bytes).inspect_err(|_| {
            let _ = file.set_len(self.size);
        })
    }

    fn replace(&self) -> io::Result<()> {
        let new = format!("{}.{}", self.name, std::process::id());
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let mut file: File = openat(&self.dir, new.as_str(), flags, Mode::from_bits_truncate(0o600))?.into();
        let place = |()| Ok(renameat(&self.dir, new.as_str(), &self.dir, self.name.as_str())?);
        file.write_all(bytemuck::cast_slice(&self.head())).and_then(place).inspect_err(|_| {
            let _ = unlinkat(&self.dir, new.as_str(), UnlinkatFlags::NoRemoveDir);
        })
    }

    /// Removes files, the longest unchanged first, if all together are too large.
    fn make_room(&self) {
        let Ok(mut dir) = Dir::openat(&self.dir, ".", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()) else {
            return;
        };
        let names = dir.iter().flatten().map(|entry| entry.file_name().to_owned());
        let stat = |name| {
            fstatat(&self.dir, AsRef::<std::ffi::CStr>::as_ref(&name), AtFlags::AT_SYMLINK_NOFOLLOW)
                .ok()
                .map(|stat| (stat, name))
        };
        let mut files: Vec<_> = names.filter_map(stat).filter(|(stat, _)| is_file(stat)).collect();
        let mut total: u64 = files.iter().map(|(stat, _)| stat.st_size as u64).sum();
        if total <= MOST {
            return;
        }
        files.sort_by_key(|(stat, _)| (stat.st_mtime, stat.st_mtime_nsec));
        for (stat, name) in files {
            if total > MOST / 4 * 3 && unlinkat(&self.dir, name.as_c_str(), UnlinkatFlags::NoRemoveDir).is_ok() {
                total -= stat.st_size as u64;
            }
        }
    }
}

/// Whether a file may have this size, without a signal.
fn fits(size: u64) -> bool {
    getrlimit(Resource::RLIMIT_FSIZE).is_ok_and(|(limit, _)| size <= limit.min(LARGEST))
}

/// Whether it is a regular file.
fn is_file(stat: &FileStat) -> bool {
    stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits()
}

/// Whether a file or directory is the user's, and nobody else can change it.
fn is_ours(stat: &FileStat) -> bool {
    stat.st_uid == geteuid().as_raw() && stat.st_mode & 0o022 == 0
}

/// The name of a program's file: readable, and one for each path.
fn name(program: &Path) -> String {
    let base = program.file_name().unwrap_or_default().to_string_lossy();
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-+".contains(c) { c } else { '_' };
    let base: String = base.chars().take(40).map(plain).collect();
    format!("{base}-{:016x}", XxHash64::oneshot(0, program.as_os_str().as_bytes()))
}

/// What the code in a file is for: this Calque, this kind of processor, this program.
fn identity(program: &Path, host: &HostIsa) -> Option<u64> {
    let mut hasher = XxHash64::with_seed(0);
    for path in [Path::new("/proc/self/exe"), program] {
        let meta = path.metadata().ok()?;
        let of: [fn(&Metadata) -> u64; 3] = [Metadata::dev, Metadata::ino, Metadata::size];
        of.map(|part| part(&meta)).hash(&mut hasher);
        (meta.mtime(), meta.mtime_nsec()).hash(&mut hasher);
    }
    host.hash(&mut hasher);
    Some(hasher.finish())
}
