//! Ways to run an x86-64 program.

use std::path::{Path, PathBuf};
use std::process::Command;

/// One way to run a program.
pub(crate) struct Runner {
    pub(crate) name: String,
    /// What it says about itself.
    pub(crate) version: String,
    /// Words before the program's.
    prefix: Vec<String>,
}

impl Runner {
    /// The program's words as this runner takes them.
    pub(crate) fn command(&self, words: &[String]) -> Vec<String> {
        self.prefix.iter().chain(words).cloned().collect()
    }

    /// The same with options of Calque's.
    pub(crate) fn with_options(&self, options: &[&str], words: &[String]) -> Vec<String> {
        let options = options.iter().map(|o| (*o).to_string());
        self.prefix.iter().cloned().chain(options).chain(words.iter().cloned()).collect()
    }

    /// Whether it is the translator of this project.
    pub(crate) fn is_calque(&self) -> bool {
        self.name == "calque"
    }
}

/// Other translators, by the names of their programs.
const PEERS: [&str; 5] = ["qemu-x86_64", "box64", "FEXInterpreter", "FEX", "blink"];

/// Native (on x86-64), Calque, and each other translator on PATH.
pub(crate) fn all(calque: &Path) -> Result<Vec<Runner>, String> {
    let missing = |e| format!("{}: {e} (cargo build --release first)", calque.display());
    let calque = calque.canonicalize().map_err(missing)?.display().to_string();
    let mut runners = Vec::new();
    if cfg!(target_arch = "x86_64") {
        runners.push(Runner { name: "native".into(), version: processor(), prefix: Vec::new() });
    }
    let prefix = vec![calque.clone(), "run".into()];
    runners.push(Runner { name: "calque".into(), version: version(&calque), prefix });
    for peer in PEERS {
        if let Some(file) = find(peer) {
            let file = file.display().to_string();
            runners.push(Runner { name: peer.into(), version: version(&file), prefix: vec![file] });
        }
    }
    Ok(runners)
}

/// A program on PATH.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

fn version(program: &str) -> String {
    let out = Command::new(program).arg("--version").output();
    let text = out.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or("?").trim().to_string()
}

/// The processor's name.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|l| l.strip_prefix("model name")).and_then(|l| l.split(": ").nth(1));
    name.unwrap_or(std::env::consts::ARCH).trim().to_string()
}
