//! `docs/UNSAFE.md` lists every module that opts into unsafe code.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Sources below `dir`, tests left out: they are not part of the product.
fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn unsafe_modules_are_listed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let mut files = Vec::new();
    for crate_dir in ["ir", "frontend", "backend", "runtime", "syscalls", "difftest", "cli", "bench", "xtask"] {
        sources(&root.join(crate_dir).join("src"), &mut files);
    }
    let opts_in = |path: &PathBuf| fs::read_to_string(path).expect("a source").contains("\n#![allow(unsafe_code)]");
    let found: BTreeSet<String> = files
        .into_iter()
        .filter(opts_in)
        .map(|path| path.strip_prefix(root).expect("below the root").display().to_string())
        .collect();
    let text = fs::read_to_string(root.join("docs/UNSAFE.md")).expect("docs/UNSAFE.md");
    let listed: BTreeSet<String> =
        text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next().map(str::to_owned)).collect();
    assert_eq!(found, listed, "docs/UNSAFE.md is out of date");
}
