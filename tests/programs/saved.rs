//! Code that is kept from one run to the next (`runtime/src/saved`), on AArch64 hosts: when it is used, and when it must not be.

use crate::command::{Outcome, calque, run};
use libtest_mimic::{Failed, Trial};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// All tests of this file.
pub(crate) fn collect(trials: &mut Vec<Trial>) {
    let mut add =
        |name: &str, test: fn() -> Result<(), Failed>| trials.push(Trial::test(format!("saved::{name}"), test));
    if cfg!(target_arch = "x86_64") {
        return add("not_on_x86_64", nothing_is_saved_where_code_is_copied);
    }
    if !Command::new("gcc").arg("-dumpmachine").output().is_ok_and(|out| out.stdout.starts_with(b"x86_64")) {
        return;
    }
    add("twice", a_third_run_emits_nothing);
    add("changed_program", other_bytes_are_other_code);
    add("damaged_file", what_is_damaged_is_not_used);
    add("somebody_elses", only_the_users_own_files_are_used);
    add("nowhere_to_put_it", a_run_that_cannot_save_is_no_other);
    add("other_engines", only_emitted_code_is_saved);
}

/// A program that returns 41, and where its cache is.
struct Program {
    dir: tempfile::TempDir,
}

impl Program {
    fn new() -> Result<Self, Failed> {
        let program = Self { dir: tempfile::tempdir()? };
        let source = program.path("answer.c");
        fs::write(&source, "int main(void) { return 41; }")?;
        let compiled =
            Command::new("gcc").args(["-O0", "-static", "-o"]).arg(program.path("answer")).arg(source).status()?;
        if compiled.success() { Ok(program) } else { Err("gcc fails".into()) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self) -> Command {
        let mut command = calque(["run", "--stats", "--cache-dir"]);
        command.arg(self.path("cache")).arg("--").arg(self.path("answer"));
        command
    }

    /// Runs it; how many blocks of earlier runs were used.
    fn run(&self, command: &mut Command, answer: u8) -> Result<u32, Failed> {
        let got = run(command);
        if got.end != format!("exit {answer}") {
            return Err(format!("{command:?}: {got}\n{}", got.stderr).into());
        }
        stat(&got, "saved_blocks")
    }

    /// The same twice: afterwards its code is saved.
    fn save(&self, answer: u8) -> Result<(), Failed> {
        (0..2).try_for_each(|_| expect("another program's code is used", self.run(&mut self.command(), answer)? == 0))
    }

    /// The files of saved code.
    fn files(&self) -> Vec<PathBuf> {
        fs::read_dir(self.path("cache")).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    }

    fn file(&self) -> Result<PathBuf, Failed> {
        match &self.files()[..] {
            [file] => Ok(file.clone()),
            files => Err(format!("files of saved code: {files:?}").into()),
        }
    }
}

fn stat(got: &Outcome, name: &str) -> Result<u32, Failed> {
    got.stat(name).ok_or_else(|| format!("no {name} in {}", got.stderr).into())
}

fn expect(what: &str, holds: bool) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(what.into()) }
}

fn nothing_is_saved_where_code_is_copied() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    run(calque(["run", "--cache-dir"]).arg(dir.path()).args(["--", "/bin/true"]));
    expect("a file", fs::read_dir(dir.path())?.next().is_none())
}

fn a_third_run_emits_nothing() -> Result<(), Failed> {
    let program = Program::new()?;
    program.run(&mut program.command(), 41)?;
    expect("the first run has saved its code", program.file()?.metadata()?.len() < 100)?;
    expect("it is used", program.run(&mut program.command(), 41)? == 0)?;
    let mode = |path: &Path| fs::metadata(path).map(|meta| meta.permissions().mode() & 0o777);
    expect("others can read it", (mode(&program.path("cache"))?, mode(&program.file()?)?) == (0o700, 0o600))?;
    let size = program.file()?.metadata()?.len();
    let got = run(&mut program.command());
    expect("most is used again", stat(&got, "saved_blocks")? > 20 * stat(&got, "emitted_blocks")?)?;
    expect("nothing new is worth saving", program.file()?.metadata()?.len() == size)
}

/// The same file by all that its inode says, with another constant in an instruction.
fn other_bytes_are_other_code() -> Result<(), Failed> {
    let program = Program::new()?;
    program.save(41)?;
    let bytes = fs::read(program.path("answer"))?;
    let mov = bytes.windows(5).position(|window| window == [0xb8, 41, 0, 0, 0]).ok_or("no mov eax, 41")?;
    let modified = fs::metadata(program.path("answer"))?.modified()?;
    let file = File::options().write(true).open(program.path("answer"))?;
    file.write_all_at(&[42], mov as u64 + 1)?;
    file.set_modified(modified)?;
    drop(file);
    expect("the rest is used", program.run(&mut program.command(), 42)? > 100)?;
    // Now it is another program by its inode, too.
    fs::copy(program.path("answer"), program.path("copy"))?;
    fs::rename(program.path("copy"), program.path("answer"))?;
    program.save(42)?;
    expect("it was not replaced", program.run(&mut program.command(), 42)? > 100)
}

fn what_is_damaged_is_not_used() -> Result<(), Failed> {
    let program = Program::new()?;
    program.save(41)?;
    let file = program.file()?;
    let whole = fs::read(&file)?;
    let used = program.run(&mut program.command(), 41)?;
    // One word in the middle of each block, as far as blocks are this large.
    let mut damaged = whole.clone();
    damaged.iter_mut().skip(100).step_by(64).for_each(|byte| *byte ^= 0x55);
    for (what, contents, least) in [
        ("damaged", &damaged[..], 0),
        ("cut short", &whole[..whole.len() - 100], used * 9 / 10),
        ("hardly begun", &whole[..17], 0),
        ("empty", &[], 0),
        ("of zeros", &[0; 4096], 0),
    ] {
        fs::write(&file, contents)?;
        let now = program.run(&mut program.command(), 41).map_err(|e| format!("{what}: {:?}", e.message()))?;
        expect(what, (least..used).contains(&now))?;
    }
    Ok(())
}

fn only_the_users_own_files_are_used() -> Result<(), Failed> {
    let program = Program::new()?;
    program.save(41)?;
    let (file, dir) = (program.file()?, program.path("cache"));
    for (path, ours) in [(&file, 0o600), (&dir, 0o700)] {
        fs::set_permissions(path, Permissions::from_mode(ours | 0o022))?;
        expect("others may have written it", program.run(&mut program.command(), 41)? == 0)?;
        fs::set_permissions(path, Permissions::from_mode(ours))?;
        if path == &file {
            // Replaced.
            program.run(&mut program.command(), 41)?;
            expect("the new one is used", program.run(&mut program.command(), 41)? > 100)?;
        }
    }
    expect("all is well again", program.run(&mut program.command(), 41)? > 100)?;
    fs::rename(&file, program.path("elsewhere"))?;
    std::os::unix::fs::symlink(program.path("elsewhere"), &file)?;
    expect("a link is not followed", program.run(&mut program.command(), 41)? == 0)
}

fn a_run_that_cannot_save_is_no_other() -> Result<(), Failed> {
    let program = Program::new()?;
    for limit in ["ulimit -n 64", "ulimit -f 8"] {
        for _ in 0..3 {
            let command = program.command();
            let mut small = Command::new("sh");
            small.args(["-c", &format!("{limit} && exec \"$@\""), "sh"]);
            small.arg(command.get_program()).args(command.get_args());
            program.run(&mut small, 41)?;
            let size = program.files().iter().map(|file| Ok(file.metadata()?.len())).sum::<std::io::Result<u64>>()?;
            expect(limit, size < 100)?;
        }
    }
    fs::write(program.path("file"), "no directory")?;
    for dir in [program.path("file"), program.path("file/below"), "/proc/nowhere".into()] {
        let mut command = calque(["run", "--stats", "--cache-dir"]);
        command.arg(dir).arg("--").arg(program.path("answer"));
        program.run(&mut command, 41)?;
    }
    Ok(())
}

fn only_emitted_code_is_saved() -> Result<(), Failed> {
    let program = Program::new()?;
    for engine in ["interp", "tiered", "jit"] {
        let mut command = calque(["run", "--stats", "--engine", engine, "--cache-dir"]);
        command.arg(program.path("cache")).arg("--").arg(program.path("answer"));
        program.run(&mut command, 41)?;
        expect(engine, program.files().is_empty())?;
    }
    Ok(())
}
