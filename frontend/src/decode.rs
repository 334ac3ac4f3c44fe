//! Guest bytes to iced-x86 instructions.
//!
//! Bytes come through [`CodeReader`], so the frontend never touches guest memory itself. [`Window`] holds a run
//! of them. Most instructions are plain ones ([`plain`]); for the others one iced decoder is set up a run, as that costs
//! about as much as decoding two instructions, and the first in a process sets up tables, which costs a million.

use crate::lift::FlagMemo;
use crate::plain;
use calque_ir::GuestAddr;
use iced_x86::{Decoder, DecoderError, DecoderOptions, Instruction, RflagsBits};

/// Longest instruction (SDM vol. 2 2.3.11).
pub const MAX_INSN: usize = 15;

/// Executable guest bytes.
pub trait CodeReader {
    /// Copies bytes from `pc` on, as far as they are mapped and executable, and returns how many; 0 if the first isn't.
    fn read(&self, pc: GuestAddr, buf: &mut [u8; MAX_INSN]) -> usize;

    /// For profiles: whether `to` belongs to another function than `from`.
    fn leaves_function(&self, _from: GuestAddr, _to: GuestAddr) -> bool {
        false
    }

    /// What look-aheads have found so far, where all that they have read is good as long as that.
    fn memo(&self) -> Option<&FlagMemo> {
        None
    }

    /// The same as `read` for a buffer of any length: fewer bytes than asked for say nothing about the bytes behind them
    /// unless there are fewer than 15. Worth overriding where a long copy costs no more than a short one.
    fn read_run(&self, pc: GuestAddr, buf: &mut [u8]) -> usize {
        let mut insn = [0; MAX_INSN];
        let n = self.read(pc, &mut insn).min(buf.len());
        buf[..n].copy_from_slice(&insn[..n]);
        n
    }
}

/// Bytes at a fixed address, for tests and `calque lift`.
pub struct Bytes<'a> {
    pub pc: GuestAddr,
    pub bytes: &'a [u8],
}

impl CodeReader for Bytes<'_> {
    fn read(&self, pc: GuestAddr, buf: &mut [u8; MAX_INSN]) -> usize {
        self.read_run(pc, buf)
    }

    fn read_run(&self, pc: GuestAddr, buf: &mut [u8]) -> usize {
        let rest = pc.0.checked_sub(self.pc.0).and_then(|at| self.bytes.get(at as usize..)).unwrap_or(&[]);
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        n
    }
}

/// What stands at a pc.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decoded {
    /// A valid instruction.
    Insn,
    /// Bytes that are no instruction in 64-bit mode: #UD.
    Invalid,
    /// The instruction's bytes are not all executable: #PF.
    Unfetchable,
}

/// A run of at most `N` guest bytes, refilled as decoding passes its end.
pub struct Window<const N: usize = 128> {
    bytes: [u8; N],
}

impl<const N: usize> Window<N> {
    /// An empty window.
    pub fn new() -> Self {
        const { assert!(N > MAX_INSN) };
        Self { bytes: [0; N] }
    }

    /// Decodes from `pc` on and hands each result to `step` until that returns `false`. The pc is the instruction's
    /// `ip`, also for the two failures, after which `step` must return `false`.
    pub fn walk(&mut self, code: &dyn CodeReader, pc: GuestAddr, mut step: impl FnMut(Decoded, &Instruction) -> bool) {
        let mut insn = Instruction::default();
        let mut at = pc.0;
        loop {
            let len = code.read_run(GuestAddr(at), &mut self.bytes);
            let (bytes, mut offset, mut decoder) = (&self.bytes[..len], 0, None);
            loop {
                let ip = at.wrapping_add(offset as u64);
                let what = if plain::decode(&bytes[offset..], ip, &mut insn) {
                    Decoded::Insn
                } else if offset > 0 && len - offset < MAX_INSN {
                    // Perhaps it is only cut off.
                    at = ip;
                    break;
                } else {
                    let decoder = decoder.get_or_insert_with(|| Decoder::with_ip(64, bytes, at, DecoderOptions::NONE));
                    decoder.set_ip(ip);
                    decoder.set_position(offset).expect("inside the bytes");
                    decoder.decode_out(&mut insn);
                    outcome(decoder, &insn)
                };
                if what == Decoded::Unfetchable && ip != at {
                    at = ip;
                    break;
                }
                if !step(what, &insn) {
                    return;
                }
                offset += insn.len();
            }
        }
    }

    /// Decodes the one instruction at `pc`.
    pub fn one(&mut self, code: &dyn CodeReader, pc: GuestAddr) -> (Decoded, Instruction) {
        let mut out = (Decoded::Unfetchable, Instruction::default());
        self.walk(code, pc, |what, insn| {
            out = (what, *insn);
            false
        });
        out
    }
}

impl<const N: usize> Default for Window<N> {
    fn default() -> Self {
        Self::new()
    }
}

fn outcome(decoder: &Decoder<'_>, insn: &Instruction) -> Decoded {
    match decoder.last_error() {
        DecoderError::None if !insn.is_invalid() => Decoded::Insn,
        DecoderError::NoMoreBytes => Decoded::Unfetchable,
        _ => Decoded::Invalid,
    }
}

/// The status flags that iced's bits name, as RFLAGS bits (SDM vol. 1 figure 3-8).
pub fn rflags_of(bits: u32) -> u64 {
    const PLACES: [(u32, u32); 6] = [
        (RflagsBits::CF, 0),
        (RflagsBits::PF, 2),
        (RflagsBits::AF, 4),
        (RflagsBits::ZF, 6),
        (RflagsBits::SF, 7),
        (RflagsBits::OF, 11),
    ];
    PLACES.into_iter().filter(|(bit, _)| bits & bit != 0).map(|(_, n)| 1 << n).sum()
}
