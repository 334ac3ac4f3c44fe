//! `calque lift`: what becomes of a few instructions, step by step.

use crate::args::{HostName, LiftArgs};
use crate::refuse;
use calque_backend::{CompileOptions, Compiler, HostIsa};
use calque_frontend::decode::Bytes;
use calque_frontend::lift::{EveryBlock, LiftOptions, lift_region};
use calque_ir::{GuestAddr, pass};
use iced_x86::{Decoder, DecoderOptions, Formatter, Instruction, NasmFormatter};
use std::fmt::Write;
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
    let code = Bytes { pc: GuestAddr(pc), bytes };
    let lifted = lift_region(&code, GuestAddr(pc), &EveryBlock, &LiftOptions::default());
    let mut optimised = lifted.clone();
    pass::optimize(&mut optimised);
    let host = HostIsa::parse(host.name()).expect("every host has a description");
    let (compiled, listing) =
        Compiler::new(host.clone()).explain(&optimised, &CompileOptions::default()).map_err(|e| e.to_string())?;
    let mut text = String::new();
    let mut section = |title: &str, body: &str| {
        let _ = writeln!(text, "--- {title}\n{}\n", body.trim_end());
    };
    section("x86-64", &assembly(bytes, pc));
    section("IR, as lifted", &lifted.to_string());
    section("IR, optimised", &optimised.to_string());
    section("CLIF", &listing.clif);
    section(&format!("{} ({} bytes)", host.arch.name(), compiled.code.len()), &listing.host);
    Ok(text)
}

/// Address, bytes and instruction, one a line.
fn assembly(bytes: &[u8], pc: u64) -> String {
    let mut decoder = Decoder::with_ip(64, bytes, pc, DecoderOptions::NONE);
    let (mut formatter, mut insn, mut text) = (NasmFormatter::new(), Instruction::default(), String::new());
    while decoder.can_decode() {
        let start = decoder.position();
        decoder.decode_out(&mut insn);
        let mut words = String::new();
        formatter.format(&insn, &mut words);
        let raw: Vec<String> = bytes[start..decoder.position()].iter().map(|b| format!("{b:02x}")).collect();
        let _ = writeln!(text, "{:#x}:  {:30}  {words}", insn.ip(), raw.join(" "));
    }
    text
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
