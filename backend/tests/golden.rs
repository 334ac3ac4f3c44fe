//! Code quality as reviewed text: `tests/lower/*.ir` against `tests/lower/<host>/*.txt`. `BLESS=1` accepts what comes out.

use calque_backend::{CompileOptions, Compiler, HostIsa};
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/lower")
}

/// Listing under a line with the numbers of guest and host instructions.
fn text(host: &str, source: &str) -> String {
    let region = calque_ir::parse::parse_region(source).unwrap_or_else(|e| panic!("{e}"));
    let mut compiler = Compiler::new(HostIsa::parse(host).expect("a host"));
    let options = CompileOptions { first_cell: 1, ..CompileOptions::default() };
    let (_, listing) = compiler.explain(&region, &options).unwrap_or_else(|e| panic!("{e}\n{}", e.dump));
    let instructions = listing.host.lines().filter(|line| is_instruction(line)).count();
    format!("; {} guest instructions, {instructions} host instructions\n{}", region.guest_insns, listing.host)
}

/// Labels and register allocation's own marks are none.
fn is_instruction(line: &str) -> bool {
    line.starts_with("  ") && !line.trim_start().starts_with("uninit")
}

#[test]
fn host_code_is_as_reviewed() {
    let bless = std::env::var_os("BLESS").is_some();
    let mut changed = Vec::new();
    let mut sources: Vec<PathBuf> =
        std::fs::read_dir(folder()).expect("tests/lower").map(|entry| entry.expect("an entry").path()).collect();
    sources.retain(|path| path.extension().is_some_and(|e| e == "ir"));
    sources.sort();
    assert!(!sources.is_empty());
    for path in sources {
        let source = std::fs::read_to_string(&path).expect("readable");
        for host in ["x86_64", "aarch64"] {
            let golden = folder().join(host).join(path.with_extension("txt").file_name().expect("a name"));
            let got = text(host, &source);
            let expected = std::fs::read_to_string(&golden).unwrap_or_default();
            if bless {
                std::fs::write(&golden, got).expect("writable");
            } else if got != expected {
                changed.push(difference(&golden, &expected, &got));
            }
        }
    }
    assert!(
        changed.is_empty(),
        "{}\nAccept with: BLESS=1 cargo test -p calque-backend --test golden",
        changed.join("\n")
    );
}

/// The first lines that differ.
fn difference(path: &Path, expected: &str, got: &str) -> String {
    let mut lines = expected.lines().zip(got.lines()).filter(|(e, g)| e != g);
    let (e, g) = lines.next().unwrap_or(("(end)", "(more or less lines)"));
    let count = |text: &str| text.lines().next().unwrap_or_default().to_owned();
    format!("{}: was {}, is {}\n- {e}\n+ {g}", path.display(), count(expected), count(got))
}
