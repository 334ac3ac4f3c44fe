//! Code as reviewed text: `tests/lower/*.ir` against `tests/lower/<host>/*.txt` for its quality, `tests/lower/order/*.ir` against
//! `tests/lower/order/<host>/*.txt` for the order of guest accesses. `BLESS=1` accepts what comes out.

use calque_backend::{CompileOptions, Compiled, Compiler, HostIsa, MemoryOrder};
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
    check(&folder(), &["x86_64", "aarch64"], text);
}

/// Where FPCR.AH makes NaNs x86's, scalar arithmetic compares nothing.
#[test]
fn no_result_is_looked_at_where_nans_are_x86s() {
    let source = std::fs::read_to_string(folder().join("scale_add.ir")).expect("readable");
    let compares = |host: &str| text(host, &source).lines().filter(|line| line.contains("fcmp")).count();
    assert!(compares("aarch64") > 0);
    assert_eq!(compares("aarch64-v8.7"), 0);
}

#[test]
fn guest_accesses_keep_their_order() {
    let hosts = ["aarch64", "aarch64-v8.0", "aarch64-v8.3", "aarch64-v8.4"];
    check(&folder().join("order"), &hosts, ordered_text);
}

/// The instructions that order memory, for code that promises total store order.
fn ordered_text(host: &str, source: &str) -> String {
    let region = calque_ir::parse::parse_region(source).unwrap_or_else(|e| panic!("{e}"));
    let mut compiler = Compiler::new(HostIsa::parse(host).expect("a host"));
    let options = CompileOptions { first_cell: 1, memory_order: MemoryOrder::Tso, ..CompileOptions::default() };
    let compiled = compiler.compile(&region, &options).unwrap_or_else(|e| panic!("{e}\n{}", e.dump));
    memory_instructions(&compiled)
}

/// Accesses of guest memory and barriers, in the order of the code, each behind the address of its guest instruction.
fn memory_instructions(compiled: &Compiled) -> String {
    let (words, _) = compiled.code.as_chunks::<4>();
    let line = |(i, word): (usize, &[u8; 4])| {
        let (offset, word) = (4 * i as u32, u32::from_le_bytes(*word));
        let access = compiled.accesses.contains(&offset);
        let name = a64_name(word).or(access.then_some("NOT ORDERED"))?;
        if !access && !name.starts_with("dmb") {
            return None;
        }
        let next = compiled.pcs.partition_point(|(start, _)| *start <= offset);
        let pc = compiled.pcs[next.checked_sub(1)?].1;
        let size = if name.starts_with("dmb") || name.ends_with(" q") { "" } else { SIZES[(word >> 30) as usize] };
        Some(format!("{pc} {name}{size}\n"))
    };
    words.iter().enumerate().filter_map(line).collect()
}

const SIZES: [&str; 4] = [" b", " h", " w", " x"];

/// The instructions of guest accesses (Arm Architecture Reference Manual for A-profile, C4.1.93 and C4.1.94).
fn a64_name(word: u32) -> Option<&'static str> {
    #[rustfmt::skip]
    const ROWS: [(u32, u32, &str); 33] = [
        // mask        value        name
        (0xffff_ffff, 0xd503_3bbf, "dmb ish"),
        (0xffff_ffff, 0xd503_39bf, "dmb ishld"),
        (0xffff_ffff, 0xd503_3abf, "dmb ishst"),
        (0x3fff_fc00, 0x08df_fc00, "ldar"),
        (0x3fff_fc00, 0x38bf_c000, "ldapr"),
        (0x3fff_fc00, 0x089f_fc00, "stlr"),
        (0x3fe0_0c00, 0x1900_0000, "stlur"),
        (0x3fe0_0c00, 0x1940_0000, "ldapur"),
        (0x3fa0_0c00, 0x1980_0000, "ldapurs"),
        (0x3fff_fc00, 0x085f_fc00, "ldaxr"),
        (0x3fe0_fc00, 0x0800_fc00, "stlxr"),
        (0x3fe0_fc00, 0x08e0_fc00, "casal"),
        (0x3fe0_fc00, 0x38e0_0000, "ldaddal"),
        (0x3fe0_fc00, 0x38e0_1000, "ldclral"),
        (0x3fe0_fc00, 0x38e0_2000, "ldeoral"),
        (0x3fe0_fc00, 0x38e0_3000, "ldsetal"),
        (0x3fe0_fc00, 0x38e0_8000, "swpal"),
        (0xffc0_0000, 0x3dc0_0000, "ldr q"),
        (0xffc0_0000, 0x3cc0_0000, "ldr q"),
        (0xffc0_0000, 0x3d80_0000, "str q"),
        (0xffc0_0000, 0x3c80_0000, "str q"),
        // Right only between barriers.
        (0x3fc0_0000, 0x3940_0000, "ldr"),
        (0x3fc0_0000, 0x3840_0000, "ldr"),
        (0x3fc0_0000, 0x3980_0000, "ldrs"),
        (0x3fc0_0000, 0x3880_0000, "ldrs"),
        (0x3fc0_0000, 0x39c0_0000, "ldrs"),
        (0x3fc0_0000, 0x38c0_0000, "ldrs"),
        (0x3fc0_0000, 0x3900_0000, "str"),
        (0x3fc0_0000, 0x3800_0000, "str"),
        (0x3fc0_0000, 0x3d40_0000, "ldr v"),
        (0x3fc0_0000, 0x3c40_0000, "ldr v"),
        (0x3fc0_0000, 0x3d00_0000, "str v"),
        (0x3fc0_0000, 0x3c00_0000, "str v"),
    ];
    ROWS.into_iter().find(|(mask, value, _)| word & mask == *value).map(|(_, _, name)| name)
}

/// Compares `text` of each source in `folder` with `<host>/<name>.txt`.
fn check(folder: &Path, hosts: &[&str], text: fn(&str, &str) -> String) {
    let bless = std::env::var_os("BLESS").is_some();
    let mut changed = Vec::new();
    let mut sources: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("golden sources").map(|entry| entry.expect("an entry").path()).collect();
    sources.retain(|path| path.extension().is_some_and(|e| e == "ir"));
    sources.sort();
    assert!(!sources.is_empty());
    for path in sources {
        let source = std::fs::read_to_string(&path).expect("readable");
        for host in hosts {
            let golden = folder.join(host).join(path.with_extension("txt").file_name().expect("a name"));
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
