//! Code of tier 0 on AArch64 as reviewed text: `tests/lower/*.ir` against `tests/lower/tier0/*.txt`. `BLESS=1` accepts what comes out.

#[path = "common/a64.rs"]
mod a64;

use calque_backend::{EmitOptions, Emitter, HostIsa, MemoryOrder, SAVED_CELLS, SavedBlock};
use calque_ir::Region;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/lower")
}

fn sources() -> Vec<PathBuf> {
    let mut sources: Vec<PathBuf> =
        std::fs::read_dir(folder()).expect("tests/lower").map(|entry| entry.expect("an entry").path()).collect();
    sources.retain(|path| path.extension().is_some_and(|e| e == "ir"));
    sources.sort();
    assert!(!sources.is_empty());
    sources
}

fn parse(path: &Path) -> Region {
    let source = std::fs::read_to_string(path).expect("readable");
    calque_ir::parse::parse_region(&source).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn emitted_code_is_as_reviewed() {
    let mut changed = Vec::new();
    for path in sources() {
        let region = parse(&path);
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

/// A saved block with other cells is what is emitted with those.
#[test]
fn saved_blocks_are_restored_with_other_cells() {
    let mut emitter = Emitter::new(HostIsa::parse("aarch64-v8.7").expect("a host"));
    let mut exits = 0;
    for path in sources() {
        let region = parse(&path);
        let mut emit = |first_cell| {
            let options = EmitOptions { first_cell, ..EmitOptions::default() };
            let emitted = emitter.emit(&region, &options).unwrap_or_else(|e| panic!("{e}"));
            let mut words = Vec::new();
            if first_cell == SAVED_CELLS {
                emitted.save(&mut words);
            }
            (emitted.code.to_vec(), emitted.exits.to_vec(), emitted.pcs.to_vec(), words)
        };
        let (.., words) = emit(SAVED_CELLS);
        let (code, its_exits, pcs, _) = emit(0x12_3456);
        let saved = SavedBlock::read(&words).expect("a block");
        assert_eq!(saved.cells_needed() as usize, its_exits.len());
        let restored = emitter.restore(&saved, 0x12_3456);
        assert_eq!(
            (restored.pc, restored.guest_insns, restored.first_cell),
            (region.pc(), region.guest_insns, 0x12_3456)
        );
        assert_eq!((restored.code, restored.exits, restored.pcs), (&code[..], &its_exits[..], &pcs[..]), "{path:?}");
        // Small numbers are the same, if in more words.
        let small = emitter.restore(&saved, 8);
        assert_eq!((small.code.len(), small.first_cell), (code.len(), 8));
        assert!(small.numbers.iter().all(|&at| small.code[at as usize + 1] >> 5 & 0xffff == 0), "{path:?}");
        exits += usize::from(!its_exits.is_empty());
        for len in 0..words.len() {
            assert!(SavedBlock::read(&words[..len]).is_none(), "{path:?}, {len} words");
        }
    }
    assert!(exits > 10, "{exits} blocks with exits");
}
