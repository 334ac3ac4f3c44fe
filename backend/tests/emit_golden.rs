//! Code of tier 0 on AArch64 as reviewed text: `tests/lower/*.ir` against `tests/lower/tier0/*.txt`. `BLESS=1` accepts what comes out.

#[path = "common/a64.rs"]
mod a64;

use calque_backend::{EmitOptions, Emitter, HostIsa, MemoryOrder};
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/lower")
}

#[test]
fn emitted_code_is_as_reviewed() {
    let mut sources: Vec<PathBuf> =
        std::fs::read_dir(folder()).expect("tests/lower").map(|entry| entry.expect("an entry").path()).collect();
    sources.retain(|path| path.extension().is_some_and(|e| e == "ir"));
    sources.sort();
    assert!(!sources.is_empty());
    let mut changed = Vec::new();
    for path in sources {
        let source = std::fs::read_to_string(&path).expect("readable");
        let region = calque_ir::parse::parse_region(&source).unwrap_or_else(|e| panic!("{e}"));
        let mut sections = Vec::new();
        for (host, memory_order) in [
            ("aarch64", MemoryOrder::Plain),
            ("aarch64", MemoryOrder::Tso),
            ("aarch64-v8.4", MemoryOrder::Tso),
            ("aarch64-v8.7", MemoryOrder::Plain),
        ] {
            let mut emitter = Emitter::new(HostIsa::parse(host).expect("a host"));
            let code = emitter
                .emit(&region, &EmitOptions { memory_order, first_cell: 8, ..EmitOptions::default() })
                .unwrap_or_else(|e| panic!("{e}"));
            let words = code.code.to_vec();
            let title = format!(
                "; {host}, {memory_order:?}: {} guest instructions, {} words, {} of them before what is rarely needed",
                region.guest_insns,
                words.len(),
                code.hot_words
            );
            sections.push((title, words));
        }
        let golden = folder().join("tier0").join(path.with_extension("txt").file_name().expect("a name"));
        changed.extend(a64::check(&golden, &sections));
    }
    assert!(
        changed.is_empty(),
        "{}\nAccept with: BLESS=1 cargo test -p calque-backend --test emit_golden",
        changed.join("\n")
    );
}
