//! From a path to a thread that stands before its first instruction: what `execve` does
//! (`fs/exec.c`, `fs/binfmt_script.c`, `fs/binfmt_elf.c`).

use crate::access;
use crate::memory::{GUEST_END, PIE_BASE, PIE_BRK};
use crate::process::{ExeInfo, Process};
use crate::stack;
use crate::thread::Thread;
use crate::vdso;
use calque_frontend::elf::{ElfError, ImageKind, LoadPlan, Segment, StackKind};
use calque_ir::GuestAddr;
use calque_ir::addr::GUEST_PAGE;
use nix::errno::Errno;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

/// Why a program cannot be started: one line for the user behind "calque: ".
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("{}: {}", .0.display(), .1.desc())]
    Open(PathBuf, Errno),
    #[error("{}: is a directory", .0.display())]
    Directory(PathBuf),
    #[error("{}: not executable (no x permission)", .0.display())]
    NotExecutable(PathBuf),
    #[error("{}: {}", .0.display(), .1)]
    Elf(PathBuf, ElfError),
    #[error("{}: its '#!' line names no interpreter", .0.display())]
    EmptyScript(PathBuf),
    #[error("{}: the script's interpreter cannot be run: {}", .0.display(), .1)]
    ScriptInterpreter(PathBuf, Box<LoadError>),
    #[error("{}: too many levels of '#!' interpreters", .0.display())]
    ScriptDepth(PathBuf),
    #[error("{}: needs the dynamic linker {}, which is not here; give a directory that holds x86-64 libraries with --sysroot DIR (or CALQUE_SYSROOT)", .program.display(), .interpreter.display())]
    NoInterpreter { program: PathBuf, interpreter: PathBuf },
    #[error("{}: cannot be mapped: {}", .0.display(), .1.desc())]
    Map(PathBuf, Errno),
    #[error("arguments and environment are too long")]
    TooLong,
    #[error("argument holds a NUL byte")]
    Nul,
}

impl LoadError {
    /// What a shell would exit with: 127 for what does not exist, 126 for what cannot be run.
    pub fn exit_code(&self) -> i32 {
        match self {
            LoadError::Open(_, Errno::ENOENT | Errno::ENOTDIR) => 127,
            _ => 126,
        }
    }

    /// What `execve` would fail with.
    pub fn errno(&self) -> Errno {
        match self {
            LoadError::Open(_, errno) | LoadError::Map(_, errno) => *errno,
            LoadError::Directory(_) | LoadError::NotExecutable(_) => Errno::EACCES,
            LoadError::Elf(..) | LoadError::EmptyScript(_) => Errno::ENOEXEC,
            LoadError::ScriptDepth(_) => Errno::ELOOP,
            LoadError::NoInterpreter { .. } => Errno::ENOENT,
            LoadError::ScriptInterpreter(_, inner) => inner.errno(),
            LoadError::TooLong => Errno::E2BIG,
            LoadError::Nul => Errno::EINVAL,
        }
    }
}

/// One opened ELF file.
#[derive(Debug)]
pub struct Image {
    pub path: PathBuf,
    pub file: File,
    pub plan: LoadPlan,
}

/// A program ready to be mapped.
#[derive(Debug)]
pub struct Program {
    pub image: Image,
    pub interpreter: Option<Image>,
    /// Arguments; for scripts as the kernel rewrites them.
    pub argv: Vec<CString>,
    /// AT_EXECFN: the path that was executed, a script's own.
    pub execfn: CString,
}

/// Longest `#!` line that is looked at (`BINPRM_BUF_SIZE`, uapi/linux/binfmts.h).
const SCRIPT_HEAD: usize = 256;
/// Interpreters of interpreters (`exec_binprm`).
const SCRIPT_DEPTH: usize = 5;

/// Opens `path`, follows `#!` lines, and finds the dynamic linker.
pub fn resolve(path: &Path, argv: Vec<CString>, sysroot: Option<&Path>) -> Result<Program, LoadError> {
    let execfn = c_string(path.as_os_str())?;
    let (mut path, mut argv) = (path.to_owned(), argv);
    let mut script: Option<PathBuf> = None;
    for _ in 0..=SCRIPT_DEPTH {
        let file = open_executable(&path).map_err(|e| match script.take() {
            Some(script) => LoadError::ScriptInterpreter(script, Box::new(e)),
            None => e,
        })?;
        let mut head = [0; SCRIPT_HEAD];
        let len = file.read_at(&mut head, 0).unwrap_or(0);
        if let Some(line) = head[..len].strip_prefix(b"#!") {
            let (interpreter, argument) = script_line(line).ok_or_else(|| LoadError::EmptyScript(path.clone()))?;
            let mut rewritten = vec![c_string(&interpreter)?];
            if let Some(argument) = argument {
                rewritten.push(c_string(&argument)?);
            }
            rewritten.push(c_string(path.as_os_str())?);
            rewritten.extend(argv.into_iter().skip(1));
            argv = rewritten;
            script = Some(std::mem::replace(&mut path, in_sysroot(Path::new(&interpreter), sysroot)));
            continue;
        }
        let plan = LoadPlan::read(&file).map_err(|e| LoadError::Elf(path.clone(), e))?;
        let interpreter = plan.interpreter.as_ref().map(|i| open_interpreter(&path, i, sysroot)).transpose()?;
        let path = real_path(&file, path);
        return Ok(Program { image: Image { path, file, plan }, interpreter, argv, execfn });
    }
    Err(LoadError::ScriptDepth(path))
}

fn open_executable(path: &Path) -> Result<File, LoadError> {
    let errno = |e: std::io::Error| LoadError::Open(path.to_owned(), Errno::from_raw(e.raw_os_error().unwrap_or(0)));
    let metadata = std::fs::metadata(path).map_err(errno)?;
    if metadata.is_dir() {
        return Err(LoadError::Directory(path.to_owned()));
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err(LoadError::NotExecutable(path.to_owned()));
    }
    File::open(path).map_err(errno)
}

/// Interpreter and optional argument of what follows `#!` (`fs/binfmt_script.c`: everything behind the first blank is
/// *one* argument).
fn script_line(line: &[u8]) -> Option<(OsString, Option<OsString>)> {
    let line = line.split(|&b| b == b'\n').next().unwrap_or_default();
    let line = line.trim_ascii();
    let end = line.iter().position(|b| matches!(b, b' ' | b'\t')).unwrap_or(line.len());
    let (interpreter, argument) = line.split_at(end);
    let argument = argument.trim_ascii();
    let os = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    (!interpreter.is_empty()).then(|| (os(interpreter), (!argument.is_empty()).then(|| os(argument))))
}

fn open_interpreter(program: &Path, interpreter: &Path, sysroot: Option<&Path>) -> Result<Image, LoadError> {
    let path = in_sysroot(interpreter, sysroot);
    let Ok(file) = File::open(&path) else {
        return Err(LoadError::NoInterpreter { program: program.to_owned(), interpreter: interpreter.to_owned() });
    };
    let plan = LoadPlan::read(&file).map_err(|e| LoadError::Elf(path.clone(), e))?;
    let path = real_path(&file, path);
    Ok(Image { path, file, plan })
}

/// The path of an open file without symbolic links: what the kernel knows, in one system call.
fn real_path(file: &File, path: PathBuf) -> PathBuf {
    let known = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
    known.or_else(|_| std::fs::canonicalize(&path)).unwrap_or(path)
}

/// The file that an absolute path means to a guest with this sysroot: the sysroot's, if it has one, else the host's.
pub fn in_sysroot(path: &Path, sysroot: Option<&Path>) -> PathBuf {
    let inside = sysroot.filter(|_| path.is_absolute()).map(|root| resolve_links(root, path));
    inside.filter(|p| p.exists()).unwrap_or_else(|| path.to_owned())
}

/// Most symbolic links in one path (`MAXSYMLINKS`, linux/namei.h).
const MAX_LINKS: u32 = 40;

/// `path` below `root`, with symbolic links followed as if `root` were `/`.
fn resolve_links(root: &Path, path: &Path) -> PathBuf {
    let mut links = 0;
    let mut todo: Vec<OsString> = reversed(path);
    let mut inside = PathBuf::new();
    while let Some(name) = todo.pop() {
        if name == ".." {
            inside.pop();
            continue;
        }
        match std::fs::read_link(root.join(&inside).join(&name)) {
            Ok(target) if links < MAX_LINKS => {
                links += 1;
                if target.is_absolute() {
                    inside = PathBuf::new();
                }
                todo.extend(reversed(&target));
            }
            _ => inside.push(name),
        }
    }
    root.join(inside)
}

/// The names in a path, last first.
fn reversed(path: &Path) -> Vec<OsString> {
    let names = path.components().filter_map(|c| match c {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    let mut names: Vec<_> = names.collect();
    names.reverse();
    names
}

fn c_string(text: &OsStr) -> Result<CString, LoadError> {
    CString::new(text.as_bytes()).map_err(|_| LoadError::Nul)
}

/// Maps a program into the (empty) process and makes its first thread, for the calling host thread.
pub fn load(process: &'static Process, program: Program, envp: Vec<CString>) -> Result<Thread, LoadError> {
    let bias = map_image(process, &program.image, Placement::Program)?;
    let (_, end) = program.image.plan.span();
    let relocatable = program.image.plan.kind != ImageKind::Fixed;
    process.mem.set_brk_start(GuestAddr(if relocatable { PIE_BRK } else { end.0 }));
    let plan = &program.image.plan;
    let (entry, base) = match &program.interpreter {
        Some(image) => {
            let base = map_image(process, image, Placement::Interpreter)?;
            (image.plan.entry.0 + base, base)
        }
        None => (plan.entry.0 + bias, 0),
    };
    let Program { image, argv, execfn, .. } = program;
    let vdso = vdso::map(&process.mem).map_err(|errno| LoadError::Map("the vDSO".into(), errno))?;
    let facts = stack::Facts {
        phdr: image.plan.phdr.map_or(0, |phdr| phdr.0 + bias),
        phent: u64::from(image.plan.phentsize),
        phnum: u64::from(image.plan.phnum),
        base,
        entry: image.plan.entry.0 + bias,
        vdso: vdso.0,
        executable: image.plan.stack == StackKind::Executable,
        xcr0: process.code.xcr0,
    };
    let map_error = |errno| LoadError::Map(image.path.clone(), errno);
    let stack = stack::map(process, facts.executable).map_err(map_error)?;
    let (sp, auxv) = stack::fill(stack, &argv, &envp, &execfn, &facts).map_err(|errno| match errno {
        Errno::E2BIG => LoadError::TooLong,
        other => map_error(other),
    })?;
    let mut thread = Thread::new(process);
    thread.cpu.gpr[4] = sp.0;
    thread.cpu.rip = entry;
    name_process(&image.path);
    let entry = GuestAddr(image.plan.entry.0 + bias);
    process.set_exe(ExeInfo { path: image.path, argv, envp, auxv, entry, bias, stack });
    Ok(thread)
}

/// Lets `ps` and `/proc/self/comm` show the guest's name instead of ours.
fn name_process(path: &Path) {
    let name = path.file_name().and_then(|name| CString::new(name.as_bytes()).ok()).unwrap_or_default();
    // A process with an odd name runs as well.
    let _ = nix::sys::prctl::set_name(&name);
}

/// Where a position-independent image goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Placement {
    /// At `PIE_BASE`.
    Program,
    /// Where `mmap` puts it.
    Interpreter,
}

/// Maps an ELF file; returns its bias.
fn map_image(process: &Process, image: &Image, placement: Placement) -> Result<u64, LoadError> {
    let failed = |errno| LoadError::Map(image.path.clone(), errno);
    let bias = place(process, &image.plan, placement).map_err(failed)?;
    for segment in &image.plan.segments {
        map_segment(process, &image.file, segment, bias).map_err(failed)?;
    }
    Ok(bias)
}

/// Reserves the span of a position-independent image and returns its bias, 0 for a fixed one.
fn place(process: &Process, plan: &LoadPlan, placement: Placement) -> Result<u64, Errno> {
    let (low, high) = plan.span();
    if plan.kind == ImageKind::Fixed {
        return if high.0 <= GUEST_END { Ok(0) } else { Err(Errno::ENOMEM) };
    }
    let low = low.page().0;
    let size = high.0 - low;
    // Room to align within what mmap chooses.
    let slack = if placement == Placement::Interpreter { plan.align - GUEST_PAGE } else { 0 };
    let hint = match placement {
        Placement::Program => PIE_BASE.next_multiple_of(plan.align),
        Placement::Interpreter => 0,
    };
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_DENYWRITE;
    let got = process.mem.mmap(GuestAddr(hint), size + slack, libc::PROT_NONE, flags, -1, 0)?;
    let start = got.0.next_multiple_of(plan.align);
    let end = got.0 + (size + slack).next_multiple_of(GUEST_PAGE);
    let kept_end = start + size.next_multiple_of(GUEST_PAGE);
    for (from, to) in [(got.0, start), (kept_end, end)] {
        if from < to {
            process.mem.munmap(GuestAddr(from), to - from)?;
        }
    }
    // Holes between segments stay reserved, without access, as with Linux's own loader.
    Ok(start - low)
}

fn map_segment(process: &Process, file: &File, segment: &Segment, bias: u64) -> Result<(), Errno> {
    let prot = [
        (segment.prot.read, libc::PROT_READ),
        (segment.prot.write, libc::PROT_WRITE),
        (segment.prot.exec, libc::PROT_EXEC),
    ];
    let prot = prot.iter().filter(|(wanted, _)| *wanted).fold(0, |all, (_, bit)| all | bit);
    let start = segment.vaddr.0 + bias;
    let page = GuestAddr(start).page();
    let lead = start - page.0;
    let file_end = start + segment.filesz;
    let mapped_end = file_end.next_multiple_of(GUEST_PAGE);
    let fixed = libc::MAP_PRIVATE | libc::MAP_FIXED;
    let mut zero_from = page.0;
    if segment.filesz > 0 {
        process.mem.mmap(page, segment.filesz + lead, prot, fixed, file.as_raw_fd(), segment.offset - lead)?;
        zero_from = mapped_end;
        if segment.memsz > segment.filesz && segment.prot.write {
            access::write_bytes(GuestAddr(file_end), &vec![0; (mapped_end - file_end) as usize])?;
        }
    }
    let end = (start + segment.memsz).next_multiple_of(GUEST_PAGE);
    if end > zero_from {
        process.mem.mmap(GuestAddr(zero_from), end - zero_from, prot, fixed | libc::MAP_ANONYMOUS, -1, 0)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line, and the interpreter and argument in it.
    type Case = (&'static [u8], Option<(&'static str, Option<&'static str>)>);

    #[test]
    fn script_lines_as_the_kernel_splits_them() {
        #[rustfmt::skip]
        let cases: [Case; 7] = [
            (b"/bin/sh\nrest",           Some(("/bin/sh", None))),
            (b" /bin/sh\n",              Some(("/bin/sh", None))),
            (b"/usr/bin/env  a b c \n",  Some(("/usr/bin/env", Some("a b c")))),
            (b"/bin/sh\t-e\n",           Some(("/bin/sh", Some("-e")))),
            (b"/bin/sh",                 Some(("/bin/sh", None))),
            (b"\n",                      None),
            (b"   ",                     None),
        ];
        for (line, expected) in cases {
            let got = script_line(line);
            let expected = expected.map(|(i, a)| (OsString::from(i), a.map(OsString::from)));
            assert_eq!(got, expected, "{:?}", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn links_in_a_sysroot_stay_inside() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        std::fs::create_dir_all(root.join("lib/x86_64")).unwrap();
        std::fs::create_dir(root.join("lib64")).unwrap();
        std::fs::write(root.join("lib/x86_64/ld.so"), "").unwrap();
        std::os::unix::fs::symlink("/lib/x86_64/ld.so", root.join("lib64/absolute")).unwrap();
        std::os::unix::fs::symlink("../../../lib/x86_64/ld.so", root.join("lib64/relative")).unwrap();
        std::os::unix::fs::symlink("loop", root.join("loop")).unwrap();
        for name in ["/lib64/absolute", "/lib64/relative", "/lib/x86_64/ld.so"] {
            assert_eq!(in_sysroot(Path::new(name), Some(root)), root.join("lib/x86_64/ld.so"), "{name}");
        }
        assert_eq!(in_sysroot(Path::new("/loop"), Some(root)), Path::new("/loop"));
        assert_eq!(in_sysroot(Path::new("/bin/only-here"), Some(root)), Path::new("/bin/only-here"));
        assert_eq!(in_sysroot(Path::new("relative"), Some(root)), Path::new("relative"));
    }

    #[test]
    fn refusals_have_shell_statuses() {
        let status = |path: &str| resolve(Path::new(path), vec![c"x".into()], None).unwrap_err().exit_code();
        assert_eq!(status("/nonexistent/program"), 127);
        assert_eq!(status("/"), 126);
        assert_eq!(status("/etc/passwd"), 126);
    }
}
