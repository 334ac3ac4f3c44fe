//! `calque lift`: what becomes of a few instructions, step by step.

use crate::args::{HostName, LiftArgs};
use crate::refuse;
use calque_backend::{CompileOptions, Compiler, HostIsa};
use calque_frontend::decode::Bytes;
use calque_frontend::lift::{EveryBlock, LiftOptions, lift_region};
use calque_ir::{GuestAddr, pass};
use calque_runtime::emit::{Form, assembly, sections};
use std::process::ExitCode;

/// Prints assembly, IR, optimised IR, CLIF and host assembly of the given bytes.
pub(crate) fn lift(args: &LiftArgs) -> ExitCode {
    match hex(&args.bytes.concat()).and_then(|bytes| explain(&bytes, args.pc, args.host)) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(message) => refuse(&message, 2),
    }
}

/// Bytes from hexadecimal digits; blanks, commas and `0x` do not count.
fn hex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<u8> = text.replace("0x", "").bytes().filter(|b| !b.is_ascii_whitespace() && *b != b',').collect();
    let byte = |pair: &[u8]| {
        let digit = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
        Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)
    };
    let bytes: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
    bytes
        .filter(|b| !b.is_empty())
        .ok_or_else(|| format!("'{text}' is not machine code in hexadecimal, such as '48 01 d8'"))
}

fn explain(bytes: &[u8], pc: u64, host: HostName) -> Result<String, String> {
    let pc = GuestAddr(pc);
    let code = Bytes { pc, bytes };
    let lifted = lift_region(&code, pc, &EveryBlock, &LiftOptions::default());
    let mut optimised = lifted.clone();
    pass::optimize(&mut optimised);
    let source = assembly(&code, pc, bytes.len() as u32);
    let mut compiler = Compiler::new(HostIsa::parse(host.name()).expect("every host has a description"));
    sections(&Form::ALL, &source, &lifted, &optimised, &mut compiler, &CompileOptions::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_hexadecimal() {
        assert_eq!(hex("48 01 d8"), Ok(vec![0x48, 0x01, 0xd8]));
        assert_eq!(hex("0x48,0x01,0xD8"), Ok(vec![0x48, 0x01, 0xd8]));
        for bad in ["", "4", "48 0", "4g", "add"] {
            assert!(hex(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn explains_for_either_host() {
        for host in [HostName::X86_64, HostName::Aarch64] {
            let text = explain(&[0x48, 0x01, 0xd8], 0x40_1000, host).unwrap();
            for part in ["add rax,rbx", "iadd.i64", "iadd", host.name()] {
                assert!(text.contains(part), "no {part} in\n{text}");
            }
        }
    }
}
