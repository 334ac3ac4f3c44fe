//! Guest bytes to iced-x86 instructions.
//!
//! Bytes come through [`CodeReader`], so the frontend never touches guest memory itself. [`Window`] holds a run
//! of them. Nearly all instructions are plain ones ([`plain`]); the others are iced-x86's, whose first decoder in a process sets up
//! tables, which costs a million instructions.

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

/// A run of at most `N` guest bytes, those read last.
pub struct Window<const N: usize = 128> {
    start: GuestAddr,
    len: usize,
    bytes: [u8; N],
}

impl<const N: usize> Window<N> {
    /// An empty window.
    pub const fn new() -> Self {
        const { assert!(N > MAX_INSN) };
        Self { start: GuestAddr(0), len: 0, bytes: [0; N] }
    }

    /// The bytes from `pc` on, if as many as any instruction has are here.
    #[inline]
    pub(crate) fn held(&self, pc: GuestAddr) -> Option<&[u8]> {
        let at = pc.0.wrapping_sub(self.start.0);
        (at.saturating_add(MAX_INSN as u64) <= self.len as u64).then(|| &self.bytes[at as usize..self.len])
    }

    /// The bytes from `pc` on: fewer than an instruction's only if there are no more.
    #[inline]
    pub(crate) fn read(&mut self, code: &dyn CodeReader, pc: GuestAddr) -> &[u8] {
        if self.held(pc).is_none() {
            (self.start, self.len) = (pc, code.read_run(pc, &mut self.bytes));
        }
        &self.bytes[(pc.0 - self.start.0) as usize..self.len]
    }

    /// Decodes the instruction at `pc`, which is its `ip`, also for the two failures.
    #[inline]
    pub fn decode(&mut self, code: &dyn CodeReader, pc: GuestAddr, insn: &mut Instruction) -> Decoded {
        let bytes = self.read(code, pc);
        if plain::decode(bytes, pc.0, insn) { Decoded::Insn } else { decode_any(bytes, pc, insn) }
    }

    /// Decodes what stands from `pc` on now, and hands each result to `step` until that returns `false`, as it must after a failure.
    pub fn walk(&mut self, code: &dyn CodeReader, pc: GuestAddr, mut step: impl FnMut(Decoded, &Instruction) -> bool) {
        let (mut at, mut insn) = (pc, Instruction::default());
        self.len = 0;
        loop {
            let what = self.decode(code, at, &mut insn);
            if !step(what, &insn) {
                return;
            }
            at = at.wrapping_add(insn.len() as u64);
        }
    }

    /// Decodes the one instruction that stands at `pc` now.
    pub fn one(&mut self, code: &dyn CodeReader, pc: GuestAddr) -> (Decoded, Instruction) {
        let mut insn = Instruction::default();
        self.len = 0;
        (self.decode(code, pc, &mut insn), insn)
    }
}

impl<const N: usize> Default for Window<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// By iced-x86: `bytes` are those at `pc`.
#[cold]
#[inline(never)]
fn decode_any(bytes: &[u8], pc: GuestAddr, insn: &mut Instruction) -> Decoded {
    let mut decoder = Decoder::with_ip(64, bytes, pc.0, DecoderOptions::NONE);
    decoder.decode_out(insn);
    outcome(&decoder, insn)
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
