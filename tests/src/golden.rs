//! Golden files: text that contains both a question and its expected answer.
//!
//! A suite is a directory and a function from a file's text to the text that it should be. Where they differ, the
//! test fails with a unified diff and how to accept it; `BLESS=1` rewrites the files instead. `FILTER=name` runs the
//! files whose name contains it.

use similar::TextDiff;
use std::fs;
use std::path::{Path, PathBuf};

/// The directory `tests/<name>` of the repository.
pub fn dir(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the workspace").to_owned()
}

/// Whether to accept what differs.
pub fn bless() -> bool {
    std::env::var_os("BLESS").is_some_and(|v| v == "1")
}

/// Runs a suite: every file of `tests/<name>` with the extension.
///
/// # Panics
/// If a file differs from what `expected` makes of it, or if there is no file.
pub fn run_suite(name: &str, extension: &str, expected: impl Fn(&Path, &str) -> String) {
    let filter = std::env::var("FILTER").unwrap_or_default();
    let mut files: Vec<PathBuf> = fs::read_dir(dir(name))
        .expect("suite directory")
        .map(|entry| entry.expect("directory entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "tests/{name} has no *.{extension}");
    files.retain(|path| path.to_string_lossy().contains(&filter));
    let failures: Vec<String> = files
        .iter()
        .filter_map(|path| {
            let text = fs::read_to_string(path).expect("golden file");
            let wanted = expected(path, &text);
            check(path, &text, &wanted).err()
        })
        .collect();
    assert!(failures.is_empty(), "{}\n{} of {} files differ", failures.join("\n"), failures.len(), files.len());
}

/// Compares one file with what it should be, or rewrites it.
pub fn check(path: &Path, text: &str, wanted: &str) -> Result<(), String> {
    if text == wanted {
        return Ok(());
    }
    if bless() {
        fs::write(path, wanted).expect("golden file is writable");
        println!("blessed {}", path.display());
        return Ok(());
    }
    Err(difference(path, text, wanted))
}

fn difference(path: &Path, text: &str, wanted: &str) -> String {
    let shown = path.strip_prefix(root()).unwrap_or(path).display().to_string();
    let diff = TextDiff::from_lines(text, wanted);
    let diff = diff.unified_diff().context_radius(3).header(&shown, "what the code gives").to_string();
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    format!("{diff}accept: BLESS=1 FILTER={stem} cargo test -p calque-tests --test golden")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_shown_as_a_diff_with_the_way_to_accept_it() {
        let message = difference(&dir("ir").join("x.ir"), "same\nold\n", "same\nnew\n");
        assert!(message.contains("-old\n+new"), "{message}");
        assert!(message.contains("BLESS=1 FILTER=x"), "{message}");
    }
}
