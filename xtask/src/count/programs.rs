//! Debian's programs: large ones, flat ones and short ones, of which kernels tell nothing. What costs there is translation, and whatever brings
//! threads back to the dispatcher.

#[path = "../../../bench/src/scripts.rs"]
mod scripts;

use super::{Session, translator};
use crate::counting::Emulated;
use crate::shell::{command, run, target};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// What the command line calls them.
pub(super) const PROGRAMS: &str = "programs";

/// Name, and the command.
fn rows() -> Result<[(&'static str, Vec<String>); 12], String> {
    let (text, source) = (text()?.display().to_string(), source()?.display().to_string());
    let installed = |name: &str, args: &[&str]| {
        let program = format!("/usr/bin/{name}");
        std::iter::once(program).chain(args.iter().map(|arg| (*arg).to_string())).collect::<Vec<_>>()
    };
    let out = command("gcc", ["-print-prog-name=cc1"]).output().map_err(|e| format!("gcc: {e}"))?;
    let cc1 = String::from_utf8_lossy(&out.stdout).trim().to_string();
    let cc1 = [&cc1, "-quiet", "-fpreprocessed", "-O2", &source, "-o", "-"].map(String::from).to_vec();
    Ok([
        ("gzip", installed("gzip", &["-n6", "-c", &text])),
        ("bzip2", installed("bzip2", &["-1", "-c", &text])),
        ("xz", installed("xz", &["-1", "-T1", "-c", &text])),
        ("zstd", installed("zstd", &["-9", "-q", "--single-thread", "-c", &text])),
        ("sqlite3", installed("sqlite3", &[":memory:", &scripts::sql(40000)])),
        ("perl", installed("perl", &["-e", &scripts::perl(200_000, 20000)])),
        ("python3", installed("python3", &["-c", &scripts::python(15000, 200_000)])),
        ("jq", installed("jq", &["-n", &scripts::jq(15000)])),
        ("gawk", installed("gawk", &[&scripts::gawk(300_000)])),
        ("luajit", installed("luajit", &["-e", &scripts::luajit("6e6")])),
        ("bash -c :", installed("bash", &["-c", ":"])),
        ("cc1 -O2", cc1),
    ])
}

impl Session {
    /// The table: nothing is saved from one run to the next.
    pub(super) fn programs(&self) -> Result<String, String> {
        let mut table = String::from(
            "## Programs\n\nDebian's, dynamically linked, whole runs of a tenth of a second or two natively: start-up and translation weigh more than in long ones.\n\n\
             | program | 10^6 guest instructions | 10^6 instructions of Calque | ratio |\n|---|---|---|---|\n",
        );
        for (name, words) in rows()? {
            if !Path::new(&words[0]).exists() {
                println!("count: {}: not installed", words[0]);
                continue;
            }
            let words: Vec<PathBuf> = words.into_iter().map(PathBuf::from).collect();
            let guest = [&["-cpu".into(), "max".into()], &words[..]].concat();
            let (guest, expected) = self.counters.count(Emulated::X86_64, &guest)?;
            let unsaved = ["--cache-dir".into(), PathBuf::new(), "--".into()];
            let translated = [&translator(&self.calque, &self.engine)[..], &unsaved, &words].concat();
            let (calque, output) = self.counters.count(Emulated::Aarch64, &translated)?;
            if output != expected {
                return Err(format!("{name} prints something else than natively"));
            }
            let millions = |count: u64| count as f64 / 1e6;
            let ratio = calque as f64 / guest.max(1) as f64;
            let _ = writeln!(table, "| {name} | {:.0} | {:.0} | {ratio:.2} |", millions(guest), millions(calque));
        }
        Ok(table + "\n")
    }
}

/// A program in C, preprocessed.
fn source() -> Result<PathBuf, String> {
    let path = target().join("bench/preprocessed.c");
    let mut gcc = command("gcc", ["-E", "-P", "bench/guests/integer_mix.c", "-o"]);
    if run(gcc.arg(&path)) { Ok(path) } else { Err("gcc cannot preprocess integer_mix.c".into()) }
}

/// A megabyte of text that compresses somewhat, the same everywhere.
fn text() -> Result<PathBuf, String> {
    let (mut text, mut random) = (String::new(), 1u32);
    while text.len() < 1 << 20 {
        // Knuth, "The Art of Computer Programming", vol. 2, 3.3.4, table 1.
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let word = random >> 22;
        let end = if random >> 28 == 0 { '\n' } else { ' ' };
        let _ = write!(text, "{} {word:x}{end}", word * word % 7919);
    }
    let path = target().join("bench/text");
    fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(path)
}
