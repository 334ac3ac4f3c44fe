//! The counting emulators: qemu-aarch64 and qemu-x86_64 built from Debian's source with TCG plugins, which its packages
//! leave out, and a plugin of our own that counts instructions (`count_plugin.c`). Built once, into
//! `target/tools/counting`: about four minutes of processor time.

use crate::apt::{self, Store};
use crate::shell::{command, run, target};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Which processor is emulated.
#[derive(Clone, Copy)]
pub(crate) enum Emulated {
    Aarch64,
    X86_64,
}

/// Both emulators with the plugin.
pub(crate) struct Counters {
    dir: PathBuf,
}

/// What building needs beside a C compiler and Python 3.
const PACKAGES: [&str; 7] =
    ["libglib2.0-dev", "ninja-build", "bison", "flex", "dpkg-dev", "python3-venv", "gcc-aarch64-linux-gnu"];

/// QEMU 10's configure wants this much of Meson and these modules.
const PYTHON_MODULES: [&str; 5] = ["meson>=1.5,<1.9", "distlib", "pycotap", "setuptools", "wheel"];

/// User-mode emulation with plugins and nothing else.
const CONFIGURE: [&str; 9] = [
    "--target-list=aarch64-linux-user,x86_64-linux-user",
    "--without-default-features",
    "--enable-linux-user",
    "--enable-tcg",
    "--enable-plugins",
    "--disable-werror",
    "--disable-download",
    "--disable-install-blobs",
    "--disable-docs",
];

impl Counters {
    /// Builds what is not there yet.
    pub(crate) fn build() -> Result<Counters, String> {
        let dir = target().join("tools/counting");
        fs::create_dir_all(dir.join("src")).map_err(|e| format!("{}: {e}", dir.display()))?;
        let counters = Counters { dir };
        if !(counters.emulator(Emulated::Aarch64).exists() && counters.emulator(Emulated::X86_64).exists()) {
            apt::install(&PACKAGES)?;
            counters.build_emulators()?;
        }
        counters.build_plugin()?;
        Ok(counters)
    }

    fn emulator(&self, emulated: Emulated) -> PathBuf {
        let name = match emulated {
            Emulated::Aarch64 => "qemu-aarch64",
            Emulated::X86_64 => "qemu-x86_64",
        };
        self.dir.join("build").join(name)
    }

    fn build_emulators(&self) -> Result<(), String> {
        let (source, tree, build) = (self.dir.join("src"), self.dir.join("src/tree"), self.dir.join("build"));
        for old in [&tree, &build] {
            if old.exists() {
                fs::remove_dir_all(old).map_err(|e| format!("{}: {e}", old.display()))?;
            }
        }
        fs::create_dir_all(&build).map_err(|e| format!("{}: {e}", build.display()))?;
        Store::open_sources(target().join("tools/apt-trixie-source"), "trixie")?.download_source("qemu", &source)?;
        let dsc = files(&source, "dsc").pop().ok_or("the source package has no .dsc file")?;
        step("unpack", command("dpkg-source", ["--no-check", "-x"]).arg(dsc).arg(&tree))?;
        let venv = self.dir.join("venv");
        step("make a Python environment", command("python3", ["-m", "venv"]).arg(&venv))?;
        let mut pip = Command::new(venv.join("bin/pip"));
        step("install Meson", pip.args(["-q", "install"]).args(PYTHON_MODULES))?;
        let mut configure = Command::new(tree.join("configure"));
        configure.arg(format!("--python={}", venv.join("bin/python3").display())).args(CONFIGURE);
        step("configure", configure.current_dir(&build).stdout(Stdio::null()))?;
        step("build", command("ninja", ["qemu-aarch64", "qemu-x86_64"]).current_dir(&build).stdout(Stdio::null()))
    }

    fn build_plugin(&self) -> Result<(), String> {
        let flags = crate::shell::output(&mut command("pkg-config", ["--cflags", "glib-2.0"]));
        let flags = flags.ok_or("pkg-config does not know glib-2.0")?;
        let mut gcc = command("gcc", ["-O2", "-shared", "-fPIC", "-o"]);
        gcc.arg(self.dir.join("libcount.so")).arg("xtask/src/count_plugin.c");
        gcc.arg("-I").arg(self.dir.join("src/tree/include/qemu")).args(flags.split_whitespace());
        step("build the plugin", &mut gcc)
    }

    /// Runs a program; the instructions that it executed, and what it printed.
    pub(crate) fn count<S: AsRef<OsStr>>(&self, emulated: Emulated, words: &[S]) -> Result<(u64, Vec<u8>), String> {
        let file = self.dir.join("count.out");
        let _ = fs::remove_file(&file);
        let mut qemu = Command::new(self.emulator(emulated));
        qemu.arg("-plugin").arg(format!("{},out={}", self.dir.join("libcount.so").display(), file.display()));
        // Loaders and C libraries go through the whole environment, which may even get their loops compiled.
        let out = qemu.args(words).env_clear().stdin(Stdio::null()).stderr(Stdio::inherit()).output();
        let out = out.map_err(|e| format!("{}: {e}", self.emulator(emulated).display()))?;
        if !out.status.success() {
            return Err(format!("{qemu:?}: {}", out.status));
        }
        let text = fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
        let counts = text.lines().map(str::parse::<u64>).collect::<Result<Vec<_>, _>>();
        Ok((counts.map_err(|e| format!("{}: {e}", file.display()))?.iter().sum(), out.stdout))
    }
}

fn step(what: &str, command: &mut Command) -> Result<(), String> {
    if run(command) { Ok(()) } else { Err(format!("counting emulators: cannot {what}")) }
}

/// Files of a directory with an extension.
fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path());
    entries.filter(|p| p.extension().is_some_and(|e| e == extension)).collect()
}
