//! What the tests and measurements need beside Rust: found, fetched or reported missing.
//!
//! | tool             | for                                       | from                                   |
//! |------------------|-------------------------------------------|----------------------------------------|
//! | C compilers      | guest programs, glibc and musl            | apt-get install                        |
//! | valgrind         | callgrind, beside which profiles are held | apt-get install                        |
//! | AArch64 Rust     | building Calque for the other host        | rustup's target, or Debian's rustc-web |
//! | qemu-aarch64     | running it (11: 10.0 has no `esr_context` in signal frames) | unpacked, sid |
//! | qemu-x86_64      | measuring beside it: the newest there is  | unpacked, sid                          |
//! | busybox, sysroot | x86-64 guests for any host                | unpacked, trixie                       |

use crate::apt::{self, Store};
use crate::shell::{cargo, command, output, run, target, which};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

/// The Rust target of the AArch64 build.
pub(crate) const AARCH64: &str = "aarch64-unknown-linux-gnu";
/// Oldest Rust that builds the workspace (`rust-version` in Cargo.toml).
const OLDEST_RUST: (u32, u32) = (1, 95);

/// What the sysroot holds; dependencies come with it.
const SYSROOT: [&str; 12] = [
    "base-files",
    "bash",
    "coreutils",
    "findutils",
    "grep",
    "gzip",
    "perl",
    "python3",
    "sed",
    "sqlite3",
    "tar",
    "xz-utils",
];

/// A tool, or why it is missing.
type Tool<T> = Result<T, String>;

/// Everything that could be had on this machine.
pub(crate) struct Tools {
    pub(crate) compilers: Tool<()>,
    pub(crate) musl: Tool<()>,
    pub(crate) valgrind: Tool<()>,
    pub(crate) aarch64: Tool<CrossRust>,
    pub(crate) qemu_aarch64: Tool<PathBuf>,
    pub(crate) qemu_x86_64: Tool<PathBuf>,
    pub(crate) busybox: Tool<PathBuf>,
    pub(crate) sysroot: Tool<PathBuf>,
}

/// Which Rust builds for AArch64.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum CrossRust {
    /// The one in use, with rustup's target.
    Rustup,
    /// Debian's in /usr/bin.
    Debian,
    /// This is an AArch64 machine.
    Native,
}

impl Tools {
    /// Finds or fetches everything.
    pub(crate) fn fetch() -> Tools {
        let native_arm = cfg!(target_arch = "aarch64");
        Tools {
            compilers: if native_arm { has_cross_gcc() } else { apt::install(&["gcc", "g++", "libc6-dev"]) },
            musl: if native_arm { Err("no x86-64 musl-gcc on AArch64".into()) } else { apt::install(&["musl-tools"]) },
            valgrind: if native_arm {
                Err("it would not run x86-64 programs".into())
            } else {
                apt::install(&["valgrind"])
            },
            aarch64: if native_arm { Ok(CrossRust::Native) } else { aarch64_rust() },
            qemu_aarch64: unpacked("qemu-newest", "sid", native_arch(), "qemu-user", "usr/bin/qemu-aarch64"),
            qemu_x86_64: unpacked("qemu-newest", "sid", native_arch(), "qemu-user", "usr/bin/qemu-x86_64"),
            busybox: unpacked("busybox", "trixie", "amd64", "busybox-static", "usr/bin/busybox"),
            sysroot: sysroot(),
        }
    }

    /// Says what there is; false if anything is missing.
    pub(crate) fn report(&self) -> bool {
        let rows = [
            ("C and C++ compilers", self.compilers.clone().err()),
            ("musl compiler", self.musl.clone().err()),
            ("valgrind", self.valgrind.clone().err()),
            ("Rust for AArch64", self.aarch64.clone().err()),
            ("qemu-aarch64", self.qemu_aarch64.clone().err()),
            ("qemu-x86_64", self.qemu_x86_64.clone().err()),
            ("busybox", self.busybox.clone().err()),
            ("x86-64 sysroot", self.sysroot.clone().err()),
        ];
        for (name, missing) in &rows {
            println!("{name:20} {}", missing.as_deref().map_or("ready".into(), |why| format!("MISSING: {why}")));
        }
        rows.iter().all(|(_, missing)| missing.is_none())
    }

    /// PATH with the fetched translators behind what the machine has.
    pub(crate) fn search_path(&self) -> OsString {
        let old = std::env::var_os("PATH").unwrap_or_default();
        let newest = self.qemu_x86_64.as_ref().ok().and_then(|q| q.parent()).map(PathBuf::from);
        std::env::join_paths(newest.into_iter().chain(std::env::split_paths(&old))).unwrap_or(old)
    }
}

impl CrossRust {
    /// `cargo` for the AArch64 build, with its own target directory.
    pub(crate) fn cargo(self, verb: &str) -> Command {
        let mut cargo = match self {
            CrossRust::Debian => command("/usr/bin/cargo", [verb]),
            CrossRust::Rustup | CrossRust::Native => cargo(&[verb]),
        };
        if self == CrossRust::Debian {
            // A cargo started by rustup's leaves its own tools in the environment.
            for name in ["CARGO", "RUSTUP_TOOLCHAIN", "RUSTC_WORKSPACE_WRAPPER"] {
                cargo.env_remove(name);
            }
            let path = std::env::var("PATH").unwrap_or_default();
            cargo
                .env("PATH", format!("/usr/bin:{path}"))
                .env("RUSTC", "/usr/bin/rustc")
                .env("RUSTDOC", "/usr/bin/rustdoc");
        }
        cargo.args(["--target", AARCH64, "--target-dir"]).arg(target().join("aarch64"));
        cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc");
        cargo
    }
}

fn native_arch() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// A file of a package that is unpacked, not installed.
fn unpacked(name: &str, suite: &str, arch: &str, package: &str, file: &str) -> Tool<PathBuf> {
    let tools = target().join("tools");
    let dest = tools.join(name);
    Store::open(tools.join(format!("apt-{suite}-{arch}")), suite, arch)?.unpack(&[package], &dest)?;
    let file = dest.join(file);
    if file.exists() { Ok(file) } else { Err(format!("{package} of {suite} has no {}", file.display())) }
}

/// The root of a small x86-64 Debian, made of unpacked packages.
fn sysroot() -> Tool<PathBuf> {
    let tools = target().join("tools");
    let dest = tools.join("sysroot");
    Store::open(tools.join("apt-trixie-amd64"), "trixie", "amd64")?.unpack_with_dependencies(&SYSROOT, &dest)?;
    Ok(dest)
}

fn has_cross_gcc() -> Tool<()> {
    which("x86_64-linux-gnu-gcc")
        .map(drop)
        .ok_or("no x86_64-linux-gnu-gcc: apt-get install gcc-x86-64-linux-gnu".into())
}

/// A Rust that builds for AArch64, with linker and C library.
fn aarch64_rust() -> Tool<CrossRust> {
    let installed = output(&mut command("rustup", ["target", "list", "--installed"])).unwrap_or_default();
    if installed.lines().any(|t| t == AARCH64) {
        apt::install(&["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"])?;
        apt::add_architecture("arm64")?;
        apt::install(&["libc6:arm64", "libgcc-s1:arm64"])?;
        return Ok(CrossRust::Rustup);
    }
    apt::add_architecture("arm64")?;
    let libc = ["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross", "libc6:arm64", "libgcc-s1:arm64"];
    apt::install(&libc)?;
    let debian = apt::install(&["rustc-web", "cargo-web", "libstd-rust-web-dev:arm64"]);
    if debian.is_ok() && debian_rust().is_some_and(|version| version >= OLDEST_RUST) {
        return Ok(CrossRust::Debian);
    }
    if run(&mut command("rustup", ["target", "add", AARCH64])) {
        return Ok(CrossRust::Rustup);
    }
    Err(format!("neither Debian's rustc-web nor rustup has Rust for {AARCH64}"))
}

/// Version of /usr/bin/rustc.
fn debian_rust() -> Option<(u32, u32)> {
    let text = output(&mut command("/usr/bin/rustc", ["--version"]))?;
    let mut numbers = text.split_whitespace().nth(1)?.split('.').map_while(|n| n.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}
