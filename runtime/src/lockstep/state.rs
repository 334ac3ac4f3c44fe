//! `State`: a guest thread's registers as they travel between processes: all words, no padding, no runtime.

use bytemuck::{Pod, Zeroable};
use calque_ir::CpuState;
use calque_ir::state::V128;

/// Registers of a guest thread.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
pub(crate) struct State {
    /// In the order of `CpuState::gpr`.
    pub(crate) gpr: [u64; 16],
    pub(crate) rip: u64,
    pub(crate) rflags: u64,
    pub(crate) fs_base: u64,
    pub(crate) gs_base: u64,
    pub(crate) mxcsr: u64,
    /// x87 control word.
    pub(crate) fcw: u64,
    /// x87 status word, TOP included.
    pub(crate) fsw: u64,
    /// Abridged x87 tag word: bit n is set where physical register n is in use.
    pub(crate) ftw: u64,
    /// Physical x87 registers: mantissa; sign and exponent.
    pub(crate) st: [V128; 8],
    pub(crate) xmm: [V128; 16],
    /// Bits 128..256 of the vector registers.
    pub(crate) ymmh: [V128; 16],
}

/// Words of a [`State`].
pub(crate) const STATE_WORDS: usize = size_of::<State>() / 8;

impl State {
    /// The guest registers of `cpu`.
    pub(crate) fn of(cpu: &CpuState) -> State {
        State {
            gpr: cpu.gpr,
            rip: cpu.rip,
            rflags: cpu.rflags(),
            fs_base: cpu.fs_base,
            gs_base: cpu.gs_base,
            mxcsr: cpu.mxcsr.into(),
            fcw: cpu.x87.control.into(),
            fsw: u64::from(cpu.x87.status & !0x3800) | u64::from(cpu.x87.top & 7) << 11,
            ftw: u64::from(!cpu.x87.empty),
            st: cpu.x87.regs.map(|[low, high]| [low, high & 0xffff]),
            xmm: cpu.xmm,
            ymmh: cpu.ymmh,
        }
    }

    /// Makes these the registers of `cpu`.
    pub(crate) fn load(&self, cpu: &mut CpuState) {
        cpu.gpr = self.gpr;
        cpu.rip = self.rip;
        cpu.set_rflags(self.rflags);
        cpu.fs_base = self.fs_base;
        cpu.gs_base = self.gs_base;
        cpu.mxcsr = self.mxcsr as u32;
        cpu.x87.control = self.fcw as u16;
        cpu.x87.status = self.fsw as u16 & !0x3800;
        cpu.x87.top = (self.fsw >> 11 & 7) as u8;
        cpu.x87.empty = !(self.ftw as u8);
        cpu.x87.regs = self.st;
        cpu.xmm = self.xmm;
        cpu.set_ymmh(self.ymmh);
    }

    /// Whether vectors and x87 state are those of `other`.
    pub(crate) fn same_vectors(&self, other: &State) -> bool {
        let general = |s: &State| (s.mxcsr, s.fcw, s.fsw, s.ftw);
        general(self) == general(other) && self.st == other.st && self.xmm == other.xmm && self.ymmh == other.ymmh
    }

    /// ST(0)'s physical number.
    pub(crate) fn top(&self) -> usize {
        (self.fsw >> 11 & 7) as usize
    }
}

/// A message under construction.
#[derive(Default)]
pub(crate) struct Writer(pub(crate) Vec<u64>);

impl Writer {
    pub(crate) fn word(&mut self, word: u64) -> &mut Self {
        self.0.push(word);
        self
    }

    pub(crate) fn words(&mut self, words: &[u64]) -> &mut Self {
        self.0.push(words.len() as u64);
        self.0.extend_from_slice(words);
        self
    }

    pub(crate) fn state(&mut self, state: &State) -> &mut Self {
        self.0.extend_from_slice(bytemuck::cast_slice(std::slice::from_ref(state)));
        self
    }

    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.0.push(text.len() as u64);
        for chunk in text.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0.push(u64::from_le_bytes(word));
        }
        self
    }
}

/// A message being read. Reading past its end gives zeros: both sides are the same program.
pub(crate) struct Reader<'a>(pub(crate) &'a [u64]);

impl Reader<'_> {
    pub(crate) fn word(&mut self) -> u64 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    pub(crate) fn array<const N: usize>(&mut self) -> [u64; N] {
        std::array::from_fn(|_| self.word())
    }

    pub(crate) fn words(&mut self) -> Vec<u64> {
        let len = self.word() as usize;
        (0..len).map(|_| self.word()).collect()
    }

    pub(crate) fn state(&mut self) -> State {
        let words: [u64; STATE_WORDS] = self.array();
        bytemuck::cast(words)
    }

    pub(crate) fn text(&mut self) -> String {
        let len = self.word() as usize;
        let bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| self.word().to_le_bytes()).take(len).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
