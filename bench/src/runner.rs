//! Ways to run an x86-64 program.

use std::path::{Path, PathBuf};
use std::process::Command;

/// One way to run a program.
pub(crate) struct Runner {
    pub(crate) name: String,
    /// What it says about itself.
    pub(crate) version: String,
    pub(crate) kind: Kind,
    /// Words before the program's.
    prefix: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Native,
    Calque,
    Peer,
}

impl Runner {
    /// The program's words as this runner takes them.
    pub(crate) fn command(&self, words: &[String]) -> Vec<String> {
        self.prefix.iter().chain(words).cloned().collect()
    }
}

/// Other translators: the program's name, and what stands between it and the guest's words.
const PEERS: [(&str, &[&str]); 7] = [
    ("qemu-x86_64", &[]),
    ("box64", &[]),
    ("FEXInterpreter", &[]),
    ("FEX", &[]),
    ("blink", &[]),
    ("drrun", &["--"]),
    ("valgrind", &["-q", "--tool=none"]),
];

/// Peers that are only measured on request: their purpose is another one than speed.
const ON_REQUEST: [&str; 1] = ["valgrind"];

/// Native (on x86-64), Calque with each of `engines`, and the translators on PATH that `peers` names.
pub(crate) fn all(calque: &Path, engines: &[String], peers: &[String]) -> Result<Vec<Runner>, String> {
    let missing = |e| format!("{}: {e} (cargo build --release first)", calque.display());
    let calque = calque.canonicalize().map_err(missing)?.display().to_string();
    let mut runners = Vec::new();
    if cfg!(target_arch = "x86_64") {
        runners.push(Runner { name: "native".into(), version: processor(), kind: Kind::Native, prefix: Vec::new() });
    }
    for engine in engines {
        let name = if engine == "auto" { "calque".into() } else { format!("calque {engine}") };
        let prefix = vec![calque.clone(), "run".into(), format!("--engine={engine}")];
        runners.push(Runner { name, version: version(&calque), kind: Kind::Calque, prefix });
    }
    for (peer, args) in PEERS {
        let wanted = peers.iter().any(|name| name == peer || (name == "all" && !ON_REQUEST.contains(&peer)));
        if wanted && let Some(file) = find(peer) {
            let file = file.display().to_string();
            let version = version(&file);
            let prefix = std::iter::once(file).chain(args.iter().map(|a| (*a).to_string())).collect();
            runners.push(Runner { name: peer.into(), version, kind: Kind::Peer, prefix });
        }
    }
    Ok(runners)
}

/// Where `cargo xtask setup` unpacks a newer qemu than the distribution's.
const UNPACKED: &str = "target/tools/qemu-newest/usr/bin";

/// A program of `cargo xtask setup`, or on PATH.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let unpacked = Path::new(UNPACKED).canonicalize().ok();
    unpacked.into_iter().chain(std::env::split_paths(&path)).map(|dir| dir.join(name)).find(|file| file.is_file())
}

fn version(program: &str) -> String {
    let option = if program.ends_with("drrun") { "-version" } else { "--version" };
    let out = Command::new(program).arg(option).output();
    let text = out.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or("?").trim().to_string()
}

/// The processor's name.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|l| l.strip_prefix("model name")).and_then(|l| l.split(": ").nth(1));
    name.unwrap_or(std::env::consts::ARCH).trim().to_string()
}
