//! `docs/IR.md`: the essay is written by hand, the tables between the markers come from `Op` and `Helper`.

use calque_ir::{Helper, Op, Type, verify};
use std::fmt::Write;

/// The document as it should be: each marked table written anew.
pub fn expected(text: &str) -> String {
    let text = replace(text, "operations", &operations());
    replace(&text, "helpers", &helpers())
}

/// Replaces what stands between `<!-- name -->` and `<!-- end -->`.
fn replace(text: &str, name: &str, table: &str) -> String {
    let (start, end) = (format!("<!-- {name} -->\n"), "<!-- end -->");
    let (head, rest) = text.split_once(&start).expect("start marker");
    let (_, tail) = rest.split_once(end).expect("end marker");
    format!("{head}{start}{table}{end}{tail}")
}

fn operations() -> String {
    let mut out = String::from("| operation | types | operands | meaning |\n|---|---|---|---|\n");
    for op in Op::ALL {
        let types: Vec<&str> =
            verify::allowed_types(*op).iter().filter(|t| **t != Type::None).map(|t| t.name()).collect();
        let format = format!("{:?}", op.format()).to_lowercase();
        let doc = op.doc().trim().replace('|', "\\|");
        writeln!(out, "| `{}` | {} | {format} | {doc} |", op.name(), types.join(" ")).expect("to a string");
    }
    out
}

fn helpers() -> String {
    let mut out = String::from("| helper | arguments | result | sees |\n|---|---|---|---|\n");
    for helper in Helper::ALL {
        let args: Vec<&str> = helper.args().iter().map(|t| t.name()).collect();
        let sees = format!("{:?}", helper.effect()).to_lowercase();
        writeln!(out, "| `{}` | {} | {} | {sees} |", helper.name(), args.join(" "), helper.ret().name())
            .expect("to a string");
    }
    out
}
