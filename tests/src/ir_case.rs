//! `tests/ir/*.ir`: what passes and verifier make of a region.
//!
//! A file is a sequence of cases. A line `;; <pass>: <what it shows>` starts one; its region follows, then, behind a line
//! `;; becomes`, the region that the pass makes of it. For `;; verify:` each problem is a comment `; error: ...` at the end
//! of the line it is about.
//!
//! | pass       | what runs                                        |
//! |------------|--------------------------------------------------|
//! | `optimize` | all passes                                       |
//! | `precise`  | all passes, registers exact wherever it may fault |
//! | `cold`     | dead code only, marks only where needed          |
//! | `verify`   | the verifier                                     |

use calque_ir::pass::{AllLive, Marks, Optimizer, Options, Precise};
use calque_ir::{Region, Value, parse, verify};

/// The text that a file should be.
pub fn expected(text: &str) -> String {
    let mut out = String::new();
    let mut case = String::new();
    let mut header: Option<&str> = None;
    for line in text.lines() {
        if line.starts_with(";; ") && line != ";; becomes" {
            finish(&mut out, header, &mut case);
            header = Some(line);
        } else {
            case.push_str(line);
            case.push('\n');
        }
    }
    finish(&mut out, header, &mut case);
    out
}

/// Appends a case with its answer; what stands before the first header is copied.
fn finish(out: &mut String, header: Option<&str>, case: &mut String) {
    let text = std::mem::take(case);
    let Some(header) = header else {
        out.push_str(&text);
        return;
    };
    let input = text.split(";; becomes\n").next().unwrap_or_default();
    let (pass, _) = header[3..].split_once(": ").unwrap_or((&header[3..], ""));
    out.push_str(header);
    out.push('\n');
    out.push_str(&answer(pass, input.trim_end()));
    out.push('\n');
}

fn answer(pass: &str, input: &str) -> String {
    let parsed = parse::parse_region(input);
    let mut region = match parsed {
        Ok(region) => region,
        Err(e) => return format!("{input}\n;; becomes\n; {e}\n"),
    };
    let options = match pass {
        "verify" => return annotated(input, &region),
        "optimize" => Options::default(),
        "precise" => Options { precise: Precise::Yes, ..Options::default() },
        "cold" => Options { marks: Marks::FaultsOnly, precise: Precise::No, exits: &AllLive },
        _ => return format!("{input}\n;; becomes\n; no pass `{pass}`\n"),
    };
    let mut optimizer = Optimizer::default();
    if pass == "cold" {
        optimizer.optimize_cold(&mut region, &options);
    } else {
        optimizer.optimize(&mut region, &options);
    }
    let problems = match verify::verify(&region) {
        Ok(()) => String::new(),
        Err(problems) => problems.iter().map(|p| format!("; error: {p}\n")).collect(),
    };
    format!("{input}\n;; becomes\n{}{problems}", without_header(&region))
}

/// The region's text without its first line, which says nothing here.
fn without_header(region: &Region) -> String {
    region.to_string().lines().skip(1).map(|line| format!("{line}\n")).collect()
}

/// The text with each problem behind the line it is about. Instructions and exits are numbered as the parser does:
/// one a line, labels and the header aside.
fn annotated(input: &str, region: &Region) -> String {
    let problems = verify::verify(region).err().unwrap_or_default();
    let mut next = 0;
    let mut out = String::new();
    for line in input.lines() {
        let code = line.split(';').next().unwrap_or_default().trim_end();
        out.push_str(code);
        if !code.trim().is_empty() && !code.starts_with("region") && !code.ends_with(':') {
            let exit_of = region.blocks.iter().position(|b| b.end == next && is_exit(code));
            for problem in &problems {
                let here = match exit_of {
                    Some(block) => problem.inst.is_none() && problem.block.0 as usize == block,
                    None => problem.inst == Some(Value(next)),
                };
                if here {
                    out.push_str(&format!("    ; error: {}", problem.message));
                }
            }
            next += u32::from(exit_of.is_none());
        }
        out.push('\n');
    }
    out
}

fn is_exit(code: &str) -> bool {
    let word = code.split_whitespace().next().unwrap_or_default();
    ["goto", "branch", "indirect", "return", "call", "call_indirect", "syscall", "fault", "open"].contains(&word)
}
