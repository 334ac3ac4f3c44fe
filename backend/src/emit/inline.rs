//! Helpers that are an instruction or a few of the host, emitted where they would be called: AES, SHA-256, carry-less products, permutations,
//! shifts of each lane by its own count. The same ones as in compiled regions (`lower/inline.rs`, which says why they are right).

use super::encode::{self as e, V};
use super::{EmitError, Emitter, Host};
use calque_ir::{Helper, Inst, Op, Value};

/// Whether calls of a helper are emitted as instructions; `is_constant` tells of each argument slot whether that is a constant.
pub(super) fn has_code(host: Host, helper: Helper, is_constant: impl Fn(usize) -> bool) -> bool {
    match helper {
        Helper::Aesenc | Helper::Aesenclast | Helper::Aesdec | Helper::Aesdeclast | Helper::Aesimc => host.aes,
        Helper::Pclmulqdq => host.pmull && is_constant(2),
        Helper::Sha256msg1 | Helper::Sha256msg2 | Helper::Sha256rnds2 => host.sha2,
        Helper::ShiftLanes => is_constant(2),
        Helper::Permute8 | Helper::Pmulhrsw => true,
        _ => false,
    }
}

/// Whether an instruction of these is a call that is emitted as instructions.
pub(super) fn is_inline(host: Host, insts: &[Inst], inst: &Inst) -> bool {
    let is_constant = |slot: usize| insts.get(inst.args[slot] as usize).is_some_and(|def| def.op == Op::Iconst);
    inst.op == Op::Call && has_code(host, Helper::from_code(inst.aux), is_constant)
}

/// The register of what the vector scratch registers hold last.
const ZERO: V = V(3);

impl Emitter {
    /// The instructions of a helper that has some.
    pub(super) fn inline(&mut self, helper: Helper, inst: &Inst) -> Result<(), EmitError> {
        let args = [inst.args[0], inst.args[1], inst.args[2]].map(Value);
        let [x, y] = [self.v(args[0])?, if helper.args().len() > 1 { self.v(args[1])? } else { ZERO }];
        let immediate = self.inline_immediate(helper, args[2]);
        match helper {
            Helper::Aesenc => self.aes_round(e::AESE, Some(e::AESMC), x, y),
            Helper::Aesenclast => self.aes_round(e::AESE, None, x, y),
            Helper::Aesdec => self.aes_round(e::AESD, Some(e::AESIMC), x, y),
            Helper::Aesdeclast => self.aes_round(e::AESD, None, x, y),
            Helper::Aesimc => {
                let d = self.v_dest()?;
                self.word(e::vec2(e::AESIMC, 0, d, x));
                Ok(())
            }
            Helper::Pclmulqdq => self.carry_less_product(x, y, immediate & 1, immediate >> 4 & 1),
            Helper::Sha256msg1 => {
                let d = self.v_dest_apart(&[y])?;
                self.v_mov(d, x);
                self.word(e::vec2(e::SHA256SU0, 0, d, y));
                Ok(())
            }
            Helper::Sha256msg2 => self.sha256_msg2(x, y),
            Helper::Sha256rnds2 => {
                let words = self.v(args[2])?;
                self.sha256_rounds(x, y, words)
            }
            Helper::ShiftLanes => self.shift_by_lanes(x, y, immediate & 0xff == 64, immediate >> 8),
            Helper::Permute8 => {
                let indices = self.v(args[2])?;
                self.permute_lanes(x, y, indices)
            }
            _ => self.rounded_products(x, y),
        }
    }

    /// The constant that says what a helper is to do; 0 if it takes none.
    fn inline_immediate(&self, helper: Helper, third: Value) -> u64 {
        match helper.args().get(2) {
            Some(ty) if ty.is_int() => self.as_imm(third).unwrap_or(0),
            _ => 0,
        }
    }

    /// A register of zeros, not to be written.
    pub(super) fn v_zero(&mut self) -> V {
        if !std::mem::replace(&mut self.holds_zero, true) {
            self.word(e::movi_bytes(ZERO, 0));
        }
        ZERO
    }

    /// AESE and AESD add the key in front, x86's instructions behind.
    fn aes_round(&mut self, substitute: e::Vec3, columns: Option<e::Vec3>, x: V, key: V) -> Result<(), EmitError> {
        let d = self.v_dest_apart(&[key])?;
        let zero = self.v_zero();
        self.v_mov(d, x);
        self.word(e::vec2(substitute, 0, d, zero));
        if let Some(columns) = columns {
            self.word(e::vec2(columns, 0, d, d));
        }
        self.word(e::vec3(e::VEOR, 0, d, d, key));
        Ok(())
    }

    /// The product of half `i` of x and half `j` of y.
    fn carry_less_product(&mut self, x: V, y: V, i: u64, j: u64) -> Result<(), EmitError> {
        let mut swapped = |v: V| {
            let s = self.v_scratch();
            self.word(e::ext(s, v, v, 8));
            s
        };
        let (op, x, y) = match (i, j) {
            (0, 0) => (e::PMULL, x, y),
            (0, _) => (e::PMULL, x, swapped(y)),
            (_, 0) => (e::PMULL, swapped(x), y),
            _ => (e::PMULL2, x, y),
        };
        let d = self.v_dest()?;
        self.word(e::vec3(op, 0, d, x, y));
        Ok(())
    }

    fn sha256_msg2(&mut self, x: V, y: V) -> Result<(), EmitError> {
        let (upper, zero) = (self.v_scratch(), self.v_zero());
        self.word(e::vec3(e::ZIP2, 3, upper, zero, y));
        let d = self.v_dest()?;
        self.v_mov(d, x);
        self.word(e::vec3(e::SHA256SU1, 0, d, zero, upper));
        Ok(())
    }

    fn sha256_rounds(&mut self, cdgh: V, abef: V, words: V) -> Result<(), EmitError> {
        let (s, t, abcd) = (self.v_scratch(), self.v_scratch(), self.v_scratch());
        let (ghcd, efab) = (s, t);
        self.word(e::vec2(e::VREV64, 2, ghcd, cdgh));
        self.word(e::vec2(e::VREV64, 2, efab, abef));
        self.word(e::vec3(e::ZIP2, 3, abcd, efab, ghcd));
        let (efgh, new_abcd) = (s, t);
        self.word(e::vec3(e::ZIP1, 3, efgh, efab, ghcd));
        self.v_mov(new_abcd, abcd);
        self.word(e::vec3(e::SHA256H, 0, new_abcd, efgh, words));
        self.word(e::vec3(e::SHA256H2, 0, efgh, abcd, words));
        self.word(e::vec3(e::ZIP2, 3, s, efgh, new_abcd));
        let d = self.v_dest()?;
        self.word(e::vec2(e::VREV64, 2, d, s));
        Ok(())
    }

    /// `kind` is that of `Helper::ShiftLanes`: left, right, right with signs.
    fn shift_by_lanes(&mut self, x: V, counts: V, is_wide: bool, kind: u64) -> Result<(), EmitError> {
        let (count, limit) = (self.v_scratch(), self.v_scratch());
        let log2 = if is_wide { 3 } else { 2 };
        self.v_constant(limit, if is_wide { [64; 2] } else { [32 << 32 | 32; 2] });
        if is_wide {
            self.word(e::vec3(e::CMHI, log2, count, limit, counts));
            self.word(e::vec3(e::BSL, 0, count, counts, limit));
        } else {
            self.word(e::vec3(e::UMIN, log2, count, counts, limit));
        }
        if kind != 0 {
            self.word(e::vec2(e::VNEG, log2, count, count));
        }
        let d = self.v_dest()?;
        self.word(e::vec3(if kind == 2 { e::SSHL } else { e::USHL }, log2, d, x, count));
        Ok(())
    }

    fn rounded_products(&mut self, x: V, y: V) -> Result<(), EmitError> {
        let (least, of_x, of_y) = (self.v_scratch(), self.v_scratch(), self.v_scratch());
        self.v_constant(least, [0x8000_8000_8000_8000; 2]);
        self.word(e::vec3(e::CMEQ, 1, of_x, x, least));
        self.word(e::vec3(e::CMEQ, 1, of_y, y, least));
        self.word(e::vec3(e::VAND, 0, of_x, of_x, of_y));
        let d = self.v_dest()?;
        self.word(e::vec3(e::SQRDMULH, 1, d, x, y));
        self.word(e::vec3(e::VEOR, 0, d, d, of_x));
        Ok(())
    }

    /// Numbers of bytes in a table of both halves.
    fn permute_lanes(&mut self, low: V, high: V, indices: V) -> Result<(), EmitError> {
        let [first, second, bytes, constant] = [0; 4].map(|_| self.v_scratch());
        let every = |lane: u64| [lane << 32 | lane; 2];
        self.v_mov(first, low);
        self.v_mov(second, high);
        self.v_constant(constant, every(7));
        self.word(e::vec3(e::VAND, 0, bytes, indices, constant));
        self.v_constant(constant, every(0x0404_0404));
        self.word(e::vec3(e::VMUL, 2, bytes, bytes, constant));
        self.v_constant(constant, every(0x0302_0100));
        self.word(e::vec3(e::VADD, 2, bytes, bytes, constant));
        let d = self.v_dest()?;
        self.word(e::vec3(e::TBL2, 0, d, first, bytes));
        Ok(())
    }
}
