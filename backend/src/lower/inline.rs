//! Helpers, and some operations, that are an instruction or a few of the host: AES, carry-less products, shifts of each lane by its own
//! count, permutations, products and sums. Those that Cranelift does not know get a stand-in (`respell.rs`).

use super::Lowering;
use crate::emit::encode as e;
use crate::isa::Arch;
use crate::respell::Respell;
use crate::words::{Like, Word};
use calque_ir::{Helper, Inst, Type, Value as IrValue};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{self as clif, InstBuilder, types};
use iced_x86::Code;

/// A product of even lanes, whose widening CLIF has no instruction for on AArch64.
pub(super) const UMULL: u32 = 0x2ea0_c000;

impl Lowering<'_> {
    /// A helper's result without calling it.
    pub(super) fn instead_of_call(&mut self, helper: Helper, inst: &Inst) -> Option<clif::Value> {
        if !self.has_stand_ins() {
            return None;
        }
        match helper {
            Helper::Pmulhrsw => {
                let (x, y) = (self.operand_bytes(inst, 0), self.operand_bytes(inst, 1));
                Some(self.rounded_products(x, y))
            }
            Helper::Permute8 => {
                let [low, high, indices] = [0, 1, 2].map(|slot| self.operand_bytes(inst, slot));
                Some(self.permute_lanes(low, high, indices))
            }
            Helper::Aesenc | Helper::Aesenclast | Helper::Aesdec | Helper::Aesdeclast if self.host.has("aes") => {
                let (state, key) = (self.operand_bytes(inst, 0), self.operand_bytes(inst, 1));
                Some(self.aes_round(helper, state, key))
            }
            Helper::Aesimc if self.host.has("aes") && self.on(Arch::Aarch64) => {
                let x = self.operand_bytes(inst, 0);
                Some(self.aes_columns(AESIMC, x))
            }
            Helper::Pclmulqdq if self.host.has("pclmulqdq") => {
                let (x, y) = (self.operand_bytes(inst, 0), self.operand_bytes(inst, 1));
                let imm = self.as_const(inst.args[2])? as u8;
                Some(self.carry_less_product(x, y, imm & 1, imm >> 4 & 1))
            }
            Helper::Sha256msg1 | Helper::Sha256msg2 if self.has_sha() => {
                let (x, y) = (self.operand_bytes(inst, 0), self.operand_bytes(inst, 1));
                Some(if helper == Helper::Sha256msg1 { self.tied(SHA256SU0, x, y) } else { self.sha256_msg2(x, y) })
            }
            Helper::Sha256rnds2 if self.has_sha() => {
                let [cdgh, abef, words] = [0, 1, 2].map(|slot| self.operand_bytes(inst, slot));
                Some(self.sha256_rounds(cdgh, abef, words))
            }
            Helper::ShiftLanes => {
                let (x, counts) = (self.operand_bytes(inst, 0), self.operand_bytes(inst, 1));
                let how = self.as_const(inst.args[2])?;
                let shape = if how & 0xff == 32 { types::I32X4 } else { types::I64X2 };
                Some(self.shift_by_lanes(x, counts, shape, how >> 8))
            }
            _ => None,
        }
    }

    /// A vector operand of a call.
    fn operand_bytes(&mut self, inst: &Inst, slot: usize) -> clif::Value {
        let v = self.value(IrValue(inst.args[slot]));
        self.view(v, types::I8X16)
    }

    /// Whether stand-ins can be made: on x86-64 they need VEX.
    fn has_stand_ins(&self) -> bool {
        self.on(Arch::Aarch64) || self.host.has("has_avx2")
    }

    /// A VEX instruction whose second source may be in memory.
    fn vex(&mut self, code: Code, x: clif::Value, y: clif::Value) -> clif::Value {
        self.respelled(Respell::Pshufb(code), |l| l.b.ins().x86_pshufb(x, y))
    }

    /// An operation that is this VEX instruction, whose sources may be exchanged, on hosts that have it.
    pub(super) fn by_vex(&mut self, inst: &Inst, code: Code) -> Option<clif::Value> {
        if !self.on(Arch::X86_64) || !self.has_stand_ins() {
            return None;
        }
        let (x, y) = (self.vector(inst, 0, Type::V128), self.vector(inst, 1, Type::V128));
        Some(self.respelled(Respell::Pavgb(code), |l| l.b.ins().avg_round(x, y)))
    }

    /// An AArch64 instruction of three vector registers.
    pub(super) fn three_registers(&mut self, word: u32, x: clif::Value, y: clif::Value) -> clif::Value {
        let (x, y) = (self.view(x, types::I16X8), self.view(y, types::I16X8));
        let r = self.respelled(Respell::Word(Word { like: Like::Sqrdmulh, word }), |l| l.b.ins().sqmul_round_sat(x, y));
        self.view(r, types::I8X16)
    }

    /// AESENC and kin. AArch64's AESE adds its key before the substitution, x86's behind the columns: the first is zero.
    fn aes_round(&mut self, helper: Helper, state: clif::Value, key: clif::Value) -> clif::Value {
        if self.on(Arch::X86_64) {
            let code = match helper {
                Helper::Aesenc => Code::VEX_Vaesenc_xmm_xmm_xmmm128,
                Helper::Aesenclast => Code::VEX_Vaesenclast_xmm_xmm_xmmm128,
                Helper::Aesdec => Code::VEX_Vaesdec_xmm_xmm_xmmm128,
                _ => Code::VEX_Vaesdeclast_xmm_xmm_xmmm128,
            };
            return self.vex(code, state, key);
        }
        let (substitute, columns) = match helper {
            Helper::Aesenc => (AESE, Some(AESMC)),
            Helper::Aesenclast => (AESE, None),
            Helper::Aesdec => (AESD, Some(AESIMC)),
            _ => (AESD, None),
        };
        let zero = self.zero();
        let s = self.tied(substitute, state, zero);
        let s = match columns {
            Some(columns) => self.aes_columns(columns, s),
            None => s,
        };
        self.b.ins().bxor(s, key)
    }

    /// An AArch64 instruction of two vector registers, of which the first is read and written.
    fn tied(&mut self, word: u32, d: clif::Value, n: clif::Value) -> clif::Value {
        let (d, n) = (self.view(d, types::F32X4), self.view(n, types::F32X4));
        let r = self.respelled(Respell::Word(Word { like: Like::Fmla, word }), |l| l.b.ins().fma(n, n, d));
        self.view(r, types::I8X16)
    }

    /// The same of three.
    fn tied_of_three(&mut self, word: u32, d: clif::Value, n: clif::Value, m: clif::Value) -> clif::Value {
        let [d, n, m] = [d, n, m].map(|v| self.view(v, types::F32X4));
        let r = self.respelled(Respell::Word(Word { like: Like::FmlaOfThree, word }), |l| l.b.ins().fma(n, m, d));
        self.view(r, types::I8X16)
    }

    /// Whether the host has SHA-256 in a form that can be used.
    fn has_sha(&self) -> bool {
        self.on(Arch::Aarch64) && self.host.has("sha2")
    }

    /// SHA256RNDS2. AArch64's SHA256H makes four rounds, after which half of the state is what it was after two: A and B have become C and
    /// D, E and F G and H. So what the last two words are does not matter.
    fn sha256_rounds(&mut self, cdgh: clif::Value, abef: clif::Value, words: clif::Value) -> clif::Value {
        let [ghcd, efab] = [cdgh, abef].map(|v| self.two_registers(REV64, v));
        let abcd = self.three_registers(ZIP2, efab, ghcd);
        let efgh = self.three_registers(ZIP1, efab, ghcd);
        let new_abcd = self.tied_of_three(SHA256H, abcd, efgh, words);
        let new_efgh = self.tied_of_three(SHA256H2, efgh, abcd, words);
        let efab = self.three_registers(ZIP2, new_efgh, new_abcd);
        self.two_registers(REV64, efab)
    }

    /// SHA256MSG2: SHA256SU1 without the words that SHA256MSG1's users have added before.
    fn sha256_msg2(&mut self, x: clif::Value, y: clif::Value) -> clif::Value {
        let zero = self.zero();
        let upper = self.three_registers(ZIP2, zero, y);
        self.tied_of_three(SHA256SU1, x, zero, upper)
    }

    /// AESMC, AESIMC.
    fn aes_columns(&mut self, word: u32, x: clif::Value) -> clif::Value {
        self.two_registers(word, x)
    }

    /// An AArch64 instruction of two vector registers.
    fn two_registers(&mut self, word: u32, x: clif::Value) -> clif::Value {
        let x = self.view(x, types::I8X16);
        self.respelled(Respell::Word(Word { like: Like::Cnt, word }), |l| l.b.ins().popcnt(x))
    }

    /// The product of half `i` of x and half `j` of y.
    fn carry_less_product(&mut self, x: clif::Value, y: clif::Value, i: u8, j: u8) -> clif::Value {
        if self.on(Arch::X86_64) {
            // VPALIGNR's first source is the upper part, CLIF's second operand.
            const BY_ONE: [u8; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
            let wanted = Respell::Palignr { immediate: i | j << 4 };
            let mask = self.b.func.dfg.immediates.push(BY_ONE.to_vec().into());
            return self.respelled(wanted, |l| l.b.ins().shuffle(y, x, mask));
        }
        let (x, y, high) = match (i, j) {
            (0, 1) => (x, self.swap_halves(y), false),
            (1, 0) => (self.swap_halves(x), y, false),
            (i, _) => (x, y, i == 1),
        };
        self.three_registers(if high { PMULL2 } else { PMULL }, x, y)
    }

    fn swap_halves(&mut self, x: clif::Value) -> clif::Value {
        const SWAPPED: [u8; 16] = [8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23];
        let mask = self.b.func.dfg.immediates.push(SWAPPED.to_vec().into());
        self.b.ins().shuffle(x, x, mask)
    }

    /// VPSLLVD and kin; `kind` is that of `Helper::ShiftLanes`: left, right, right with signs.
    fn shift_by_lanes(&mut self, x: clif::Value, counts: clif::Value, shape: clif::Type, kind: u64) -> clif::Value {
        if self.on(Arch::X86_64) {
            let code = match (shape == types::I64X2, kind) {
                (false, 0) => Code::VEX_Vpsllvd_xmm_xmm_xmmm128,
                (false, 1) => Code::VEX_Vpsrlvd_xmm_xmm_xmmm128,
                (false, _) => Code::VEX_Vpsravd_xmm_xmm_xmmm128,
                (true, 0) => Code::VEX_Vpsllvq_xmm_xmm_xmmm128,
                (true, _) => Code::VEX_Vpsrlvq_xmm_xmm_xmmm128,
            };
            return self.vex(code, x, counts);
        }
        // USHL and SSHL take the lowest byte of each lane as a signed count, negative to the right.
        let width = i64::from(shape.lane_bits());
        let counts = self.view(counts, shape);
        let limit = self.b.ins().iconst(shape.lane_type(), width);
        let limit = self.b.ins().splat(shape, limit);
        let below = self.b.ins().icmp(IntCC::UnsignedLessThan, counts, limit);
        let counts = self.b.ins().bitselect(below, counts, limit);
        let counts = if kind == 0 { counts } else { self.b.ins().ineg(counts) };
        let word = match (shape == types::I64X2, kind) {
            (false, 0 | 1) => 0x6ea0_4400,
            (false, _) => 0x4ea0_4400,
            (true, 0 | 1) => 0x6ee0_4400,
            (true, _) => 0x4ee0_4400,
        };
        self.three_registers(word, x, counts)
    }

    /// PMULHRSW. SQRDMULH is the same, but for the product of the two least numbers, which it saturates.
    fn rounded_products(&mut self, x: clif::Value, y: clif::Value) -> clif::Value {
        let (x, y) = (self.view(x, types::I16X8), self.view(y, types::I16X8));
        if self.on(Arch::X86_64) {
            return self.b.ins().x86_pmulhrsw(x, y);
        }
        let r = self.b.ins().sqmul_round_sat(x, y);
        let least = self.b.ins().iconst(types::I16, 0x8000);
        let least = self.b.ins().splat(types::I16X8, least);
        let is_least = |l: &mut Self, v| l.b.ins().icmp(IntCC::Equal, v, least);
        let (a, b) = (is_least(self, x), is_least(self, y));
        let both = self.b.ins().band(a, b);
        self.b.ins().bxor(r, both)
    }

    /// VPERMD, one half of the result: lanes of low and high chosen by three bits.
    fn permute_lanes(&mut self, low: clif::Value, high: clif::Value, indices: clif::Value) -> clif::Value {
        if self.on(Arch::X86_64) {
            // VPERMILPS takes the low two bits; the third, moved to the top, chooses between its results.
            let of_low = self.vex(Code::VEX_Vpermilps_xmm_xmm_xmmm128, low, indices);
            let of_high = self.vex(Code::VEX_Vpermilps_xmm_xmm_xmmm128, high, indices);
            let (of_low, of_high) = (self.view(of_low, types::I32X4), self.view(of_high, types::I32X4));
            let indices = self.view(indices, types::I32X4);
            let count = self.b.ins().iconst(types::I32, 29);
            let upper = self.b.ins().ishl(indices, count);
            return self.b.ins().blendv(upper, of_high, of_low);
        }
        // Numbers of bytes; TBL gives 0 for those that are not of its table.
        let splat = |l: &mut Self, v: i64| {
            let v = l.b.ins().iconst(types::I32, v);
            l.b.ins().splat(types::I32X4, v)
        };
        let indices = self.view(indices, types::I32X4);
        let seven = splat(self, 7);
        let indices = self.b.ins().band(indices, seven);
        let (scale, offsets) = (splat(self, 0x0404_0404), splat(self, 0x0302_0100));
        let bytes = self.b.ins().imul(indices, scale);
        let bytes = self.b.ins().iadd(bytes, offsets);
        let bytes = self.view(bytes, types::I8X16);
        let of_low = self.b.ins().swizzle(low, bytes);
        let sixteen = self.constant([16; 16]);
        let bytes = self.b.ins().isub(bytes, sixteen);
        let of_high = self.b.ins().swizzle(high, bytes);
        self.b.ins().bor(of_low, of_high)
    }

    /// PSADBW on AArch64: absolute differences, then sums of neighbours three times.
    pub(super) fn sums_of_differences(&mut self, x: clif::Value, y: clif::Value) -> clif::Value {
        const UABD: u32 = 0x6e20_7400;
        /// UADDLP to 16, 32 and 64 bits.
        const SUMS: [u32; 3] = [0x6e20_2800, 0x6e60_2800, 0x6ea0_2800];
        let differences = self.three_registers(UABD, x, y);
        SUMS.into_iter().fold(differences, |v, word| self.two_registers(word, v))
    }

    /// PMULUDQ on AArch64: the even lanes side by side, then their products.
    pub(super) fn even_products(&mut self, inst: &Inst) -> clif::Value {
        const EVEN: [u8; 16] = [0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27];
        let [x, y] = [0, 1].map(|slot| {
            let v = self.vector(inst, slot, Type::V128);
            let mask = self.b.func.dfg.immediates.push(EVEN.to_vec().into());
            self.b.ins().shuffle(v, v, mask)
        });
        self.three_registers(UMULL, x, y)
    }
}

/// Words without registers, as the emitter has them.
const AESE: u32 = e::AESE.0;
const AESD: u32 = e::AESD.0;
const AESMC: u32 = e::AESMC.0;
const AESIMC: u32 = e::AESIMC.0;
const SHA256H: u32 = e::SHA256H.0;
const SHA256H2: u32 = e::SHA256H2.0;
const SHA256SU0: u32 = e::SHA256SU0.0;
const SHA256SU1: u32 = e::SHA256SU1.0;
const PMULL: u32 = e::PMULL.0;
const PMULL2: u32 = e::PMULL2.0;
/// Of four lanes.
const REV64: u32 = e::VREV64.0 | 2 << 22;
/// Of two lanes.
const ZIP1: u32 = e::ZIP1.0 | 3 << 22;
const ZIP2: u32 = e::ZIP2.0 | 3 << 22;
