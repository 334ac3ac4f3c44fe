//! AArch64 words as text: golden files hold both, so that people can read them and machines without binutils can compare.

use std::fmt::Write;
use std::process::Command;

/// Disassembles with binutils; `None` where they are not installed.
pub(crate) fn disassemble(words: &[u32]) -> Option<Vec<String>> {
    let dir = tempfile::tempdir().ok()?;
    let file = dir.path().join("code");
    std::fs::write(&file, words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>()).ok()?;
    let objdump = |name: &str| {
        let args = ["-D", "-z", "-b", "binary", "-m", "aarch64", "-M", "no-aliases"];
        Command::new(name).args(args).arg(&file).output().ok().filter(|out| out.status.success())
    };
    let out = objdump("aarch64-linux-gnu-objdump").or_else(|| objdump("objdump"))?;
    let text = String::from_utf8(out.stdout).ok()?;
    // "   0:\t8b130084 \tadd\tx4, x4, x19"
    let lines = text.lines().filter_map(|line| {
        let mut parts = line.split('\t');
        parts.next()?.trim().strip_suffix(':')?;
        parts.next()?;
        let text = parts.collect::<Vec<_>>().join(" ");
        Some(text.split(" //").next().unwrap_or_default().trim().to_owned())
    });
    Some(lines.collect()).filter(|lines: &Vec<String>| lines.len() == words.len())
}

/// A listing: words, and beside them what `texts` says they are.
pub(crate) fn listing(words: &[u32], texts: Option<&[String]>) -> String {
    let mut out = String::new();
    for (n, word) in words.iter().enumerate() {
        let text = texts.map_or("", |texts| &texts[n]);
        let _ = writeln!(out, "  {word:08x}  {text}");
    }
    out
}

/// A listing without the text beside the words.
pub(crate) fn words_only(listing: &str) -> String {
    listing
        .lines()
        .map(|line| if line.starts_with("  ") { &line[..10.min(line.len())] } else { line })
        .collect::<Vec<_>>()
        .join("\n")
}

/// Compares a listing with a golden file; `BLESS=1` writes it. What differs, if anything.
pub(crate) fn check(golden: &std::path::Path, sections: &[(String, Vec<u32>)]) -> Option<String> {
    let all: Vec<u32> = sections.iter().flat_map(|(_, words)| words.iter().copied()).collect();
    let texts = disassemble(&all);
    let (mut got, mut at) = (String::new(), 0);
    for (title, words) in sections {
        let texts = texts.as_ref().map(|texts| &texts[at..at + words.len()]);
        let _ = write!(got, "{title}\n{}", listing(words, texts));
        at += words.len();
    }
    if std::env::var_os("BLESS").is_some() {
        assert!(texts.is_some(), "BLESS=1 needs binutils for AArch64, for the text beside the words");
        std::fs::create_dir_all(golden.parent().expect("a folder")).expect("writable");
        std::fs::write(golden, got).expect("writable");
        return None;
    }
    let expected = std::fs::read_to_string(golden).unwrap_or_default();
    let same = if texts.is_some() { got == expected } else { words_only(&got) == words_only(&expected) };
    if same {
        return None;
    }
    let (line, e, g) = expected
        .lines()
        .zip(got.lines())
        .enumerate()
        .find(|(_, (e, g))| e != g)
        .map_or((0, "(end)", "(more or less lines)"), |(n, (e, g))| (n + 1, e, g));
    Some(format!("{}:{line}\n- {e}\n+ {g}", golden.display()))
}
