//! Guest state: `get`, `put`, the counter, and helper calls.

use super::encode::{self as e, Access, At, Size, V, X};
use super::entry::{CALL_ARGS, CALL_RESULT, Stub};
use super::facts;
use super::inline;
use super::int::is_home;
use super::plan::{NO_HOME, VECTOR, home_of};
use super::regs::{CELLS, CPU, GPR_HOME, Held, JUMPS, Loc, XMM_HOME};
use super::{Bug, EmitError, Emitter};
use crate::helpers::Own;
use calque_ir::helper::HelperEffect;
use calque_ir::reg::RegKind;
use calque_ir::{CpuState, Helper, Inst, Op, Reg, Type, Value};
use std::mem::offset_of;

impl Emitter {
    /// Most reads and writes of guest registers take no code: the value is in the register's home, or has been computed there. Whether
    /// this is one, which is then done.
    #[inline]
    pub(super) fn stays_home(&mut self, inst: &Inst, ends: u8) -> bool {
        if !matches!(inst.op, Op::Get | Op::Put) {
            return false;
        }
        let home = home_of(inst.aux);
        let (place, zx) = match home {
            NO_HOME => return false,
            // An integer is moved from there.
            _ if home & VECTOR != 0 && matches!(inst.ty, Type::I32 | Type::I64) => return false,
            _ if home & VECTOR != 0 => (Loc::V(V(home & 31)), self.regs.v_known(V(home & 31))),
            _ => (Loc::X(X(home)), self.regs.known(home)),
        };
        if inst.op == Op::Get {
            self.define(place, zx);
            return true;
        }
        let v = Value(inst.args[0]);
        let val = self.val(v);
        let there = val.loc == place && (inst.ty != Type::I32 || val.zx <= 32);
        match place {
            Loc::V(home) if there => self.regs.v_written(home, val.zx),
            _ if there => self.regs.written(home, val.zx),
            _ => {}
        }
        if there && ends != 0 {
            self.release_value(v.0 as usize);
        }
        there
    }

    /// `Op::Get`.
    #[inline(never)]
    pub(super) fn get(&mut self, inst: &Inst) -> Result<(), EmitError> {
        let reg = Reg::from_index(inst.aux as usize).ok_or(EmitError::Internal(Bug::NoRegister))?;
        match reg.kind() {
            RegKind::Gpr(n) => self.define(Loc::X(X(GPR_HOME[n])), self.regs.known(GPR_HOME[n])),
            RegKind::Xmm(n) => {
                let home = V(XMM_HOME + n as u8);
                match inst.ty {
                    Type::I32 | Type::I64 => {
                        let d = self.dest()?;
                        let size = super::size_of(inst.ty);
                        self.word(e::fmov_to_x(size, d, home));
                        self.known_zero(size.bits());
                    }
                    _ => self.define(Loc::V(home), self.regs.v_known(home)),
                }
            }
            RegKind::YmmHi(_) => {
                let d = self.v_dest()?;
                self.load_state(Access::LDRQ, d.0, CpuState::offset_of(reg));
            }
            RegKind::Flag(_) => {
                let d = self.dest()?;
                self.load_state(Access::LDRB, d.0, CpuState::offset_of(reg));
                self.known_zero(1);
            }
            RegKind::Special if reg == Reg::MXCSR => {
                let d = self.dest()?;
                self.load_state(Access::LDRW, d.0, CpuState::offset_of(reg));
                self.add_raised(d);
                self.known_zero(32);
            }
            RegKind::Special => {
                let d = self.dest()?;
                let wide = reg.ty() == Type::I64;
                self.load_state(if wide { Access::LDRX } else { Access::LDRW }, d.0, CpuState::offset_of(reg));
                self.known_zero(if wide { 64 } else { 32 });
            }
        }
        Ok(())
    }

    /// `Op::Uncarried`.
    pub(super) fn uncarried(&mut self) -> Result<(), EmitError> {
        let d = self.dest()?;
        self.load_state(Access::LDRW, d.0, offset_of!(CpuState, rt.uncarried));
        self.known_zero(32);
        Ok(())
    }

    /// Adds to MXCSR, in `d`, the flags that FPSR has: as `arch/aarch64.rs: mxcsr_flags_of`, in parallel.
    fn add_raised(&mut self, d: X) {
        let (fpsr, s) = (self.scratch(), self.scratch());
        let masked = |s: X, n: X, mask: u64| e::op_mask(e::AND_MASK, Size::W, s, n, mask).expect("ones in a row");
        let or = |d: X, s: X, shift: u32| e::op3_lsl(e::ORR, Size::W, d, d, s, shift);
        // DZC OFC UFC IXC are one below ZE OE UE PE.
        self.words(&[e::mrs_fpsr(fpsr), masked(s, fpsr, 1), or(d, s, 0), masked(s, fpsr, 0x1e), or(d, s, 1)]);
        // FPCR.FZ is MXCSR's FTZ (15): where results are flushed, UFC (3) is also PE (5).
        let underflow = e::op3_lsl(e::ORR, Size::W, s, e::ZR, fpsr, 2);
        let flushed = e::op3_lsr(e::AND, Size::W, s, s, d, 10);
        self.words(&[underflow, flushed, masked(s, s, 1 << 5), or(d, s, 0)]);
        if self.host.afp {
            // IDC (7) is DE (1).
            self.words(&[e::op_field(e::UBFM, Size::W, s, fpsr, 7, 7), or(d, s, 1)]);
        }
    }

    /// `Op::Put`.
    #[inline(never)]
    pub(super) fn put(&mut self, inst: &Inst) -> Result<(), EmitError> {
        let (v, home) = (Value(inst.args[0]), home_of(inst.aux));
        if home & VECTOR == 0 {
            return self.put_gpr(X(home), inst.ty, v);
        }
        let reg = Reg::from_index(inst.aux as usize).ok_or(EmitError::Internal(Bug::NoRegister))?;
        let at = CpuState::offset_of(reg);
        match reg.kind() {
            RegKind::Gpr(_) => unreachable!("general registers have homes"),
            RegKind::Xmm(n) => {
                let home = V(XMM_HOME + n as u8);
                let from = self.v(v)?;
                let zx = self.val(v).zx;
                if from != home {
                    self.v_vacate(home, v.0 as usize)?;
                    self.v_mov(home, from);
                    self.settle(v.0 as usize, Loc::V(home), zx);
                }
                self.regs.v_written(home, zx);
                Ok(())
            }
            RegKind::YmmHi(n) => {
                let is_zero = self.is_zero_vector(v);
                if self.zeroed >> n & 1 == 0 || !is_zero {
                    let from = if is_zero { self.v_zero() } else { self.v(v)? };
                    self.store_state(Access::STRQ, from.0, at);
                    self.note_upper_half(n, v);
                }
                Ok(())
            }
            RegKind::Flag(_) => {
                let from = if self.val(v).loc == Loc::Flags {
                    match self.flag_without_flags(v)? {
                        Some(s) => s,
                        None => {
                            let cond = self.flags(v)?;
                            let s = self.scratch();
                            self.cset(s, cond);
                            s
                        }
                    }
                } else {
                    self.xz(v)?
                };
                self.store_state(Access::STRB, from.0, at);
                Ok(())
            }
            RegKind::Special => {
                let from = self.xz(v)?;
                let wide = reg.ty() == Type::I64;
                self.store_state(if wide { Access::STRX } else { Access::STRW }, from.0, at);
                if reg == Reg::MXCSR {
                    self.spill_vectors()?;
                    self.call_table(Own::LoadFpControl.index());
                }
                Ok(())
            }
        }
    }

    fn put_gpr(&mut self, home: X, ty: Type, v: Value) -> Result<(), EmitError> {
        let i = v.0 as usize;
        let narrow = ty == Type::I32;
        match self.val(v).loc {
            Loc::Sum(base, disp) if base == home && !narrow => self.rebase(home, disp, i)?,
            _ => self.vacate(home, i)?,
        }
        self.regs.overwritten(home.0);
        match self.val(v).loc {
            Loc::Imm(imm) => {
                self.mov_imm(home, imm.bits());
                self.regs.written(home.0, 64 - imm.bits().leading_zeros() as u8);
                return Ok(());
            }
            Loc::Sum(base, disp) => {
                let size = if narrow { Size::W } else { Size::X };
                if narrow || !self.fold_index(home, base, disp) {
                    self.add_sized(size, home, base, i64::from(disp));
                }
                self.regs.written(home.0, size.bits() as u8);
                self.settle(i, Loc::X(home), size.bits() as u8);
                return Ok(());
            }
            _ => {}
        }
        let from = self.x(v)?;
        let zx = self.val(v).zx;
        if from != home && is_home(from) {
            self.regs.stays_in(from, i, zx);
        }
        if narrow && zx > 32 {
            if from != home || !self.narrow_last(home) {
                self.mov(Size::W, home, from);
            }
            self.regs.written(home.0, 32);
            self.settle(i, Loc::X(home), 32);
        } else {
            if from != home {
                self.mov(Size::X, home, from);
            }
            self.regs.written(home.0, zx);
            self.settle(i, Loc::X(home), zx);
        }
        Ok(())
    }

    /// Makes the instruction emitted last, if that is a sum or a difference in `home` that nobody wants more than 32 bits of, one of 32 bits.
    fn narrow_last(&mut self, home: X) -> bool {
        let last = self.code.len().wrapping_sub(1);
        if last < self.barrier || last >= self.code.len() || self.regs.x_refs(home) > 1 {
            return false;
        }
        let word = self.code[last];
        // Arm ARM C4.1: ADD and SUB of 64 bits, of a register shifted left by less than 32, and of a constant.
        let of_register = word & 0xbfe0_8000 == 0x8b00_0000;
        let of_constant = word & 0xbf80_0000 == 0x9100_0000;
        let narrows = (of_register || of_constant) && (word & 31) as u8 == home.0;
        if narrows {
            self.code[last] = word & !(1 << 31);
        }
        narrows
    }

    /// Loads a field of `CpuState`.
    pub(super) fn load_state(&mut self, what: Access, rt: u8, at: usize) {
        debug_assert!(what.reaches(at as i32));
        self.word(e::access(what, rt, At::Disp(CPU, at as i32)));
    }

    /// Whether `v` is the vector constant 0.
    fn is_zero_vector(&self, v: Value) -> bool {
        facts::is_zero_vector(&self.insts, &self.pool, v.0)
    }

    /// Keeps `CpuState::upper_halves` true where `v` is put into the upper half of vector register `n`.
    fn note_upper_half(&mut self, n: usize, v: Value) {
        let at = offset_of!(CpuState, upper_halves);
        if !self.is_zero_vector(v) {
            self.zeroed &= !(1 << n);
            if !std::mem::replace(&mut self.upper_noted, true) {
                self.store_state(Access::STRX, CPU.0, at);
            }
            return;
        }
        let before = self.zeroed;
        self.zeroed |= 1 << n;
        if self.zeroed == u16::MAX && before != u16::MAX {
            self.upper_noted = false;
            self.store_state(Access::STRX, e::ZR.0, at);
        }
    }

    /// Stores a field of `CpuState`.
    pub(super) fn store_state(&mut self, what: Access, rt: u8, at: usize) {
        debug_assert!(what.reaches(at as i32));
        if what == Access::STRQ && self.pair_up(rt, at) {
            return;
        }
        self.word(e::access(what, rt, At::Disp(CPU, at as i32)));
    }

    /// Makes a pair of the store emitted last and that of `qt` to the field at `at`, if that is the next one.
    fn pair_up(&mut self, qt: u8, at: usize) -> bool {
        let last = self.code.len().wrapping_sub(1);
        let (Some(before), true) = (at.checked_sub(16), last >= self.barrier) else { return false };
        let Some(&word) = self.code.get(last) else { return false };
        let first = (word & 31) as u8;
        let pair = e::stp_q(V(first), V(qt), CPU, before as i32);
        let is_next = word == e::access(Access::STRQ, first, At::Disp(CPU, before as i32));
        let Some(pair) = pair.filter(|_| is_next) else { return false };
        self.code[last] = pair;
        true
    }

    /// `Op::Count`.
    #[inline(never)]
    pub(super) fn count(&mut self, inst: &Inst) {
        let (n, counter, _) = inst.counted();
        let (table, s) = (self.scratch(), self.scratch());
        self.load_state(Access::LDRX, table.0, offset_of!(CpuState, rt.counters));
        let place = At::Disp(table, 8 * counter as i32);
        let place = if Access::LDRX.reaches(8 * counter as i32) {
            place
        } else {
            self.mov_imm(s, u64::from(counter));
            self.word(e::op3_lsl(e::ADD, Size::X, table, table, s, 3));
            At::Disp(table, 0)
        };
        self.word(e::access(Access::LDRX, s.0, place));
        self.add_sized(Size::X, s, s, 1);
        self.word(e::access(Access::STRX, s.0, place));
        let sum = offset_of!(CpuState, rt.insns);
        self.load_state(Access::LDRX, s.0, sum);
        self.add_sized(Size::X, s, s, i64::from(n));
        self.store_state(Access::STRX, s.0, sum);
    }

    /// The counter of the next count in this block; 0 if nothing is counted here.
    pub(super) fn counter_ahead(&self) -> u32 {
        let rest = self.insts.get(self.at..self.block_end).unwrap_or_default();
        rest.iter().find(|inst| inst.op == Op::Count).map_or(0, |inst| inst.counted().1)
    }

    /// `Op::Call`.
    #[inline(never)]
    pub(super) fn call(&mut self, inst: &Inst) -> Result<(), EmitError> {
        let helper = Helper::from_code(inst.aux);
        if inline::is_inline(self.host, &self.insts, inst) {
            return self.inline(helper, inst);
        }
        // The unit's own flags are in the host's control and status registers while generated code runs.
        if helper.effect() != HelperEffect::Pure {
            self.zeroed = 0;
        }
        let syncs = helper.effect() == HelperEffect::Mxcsr;
        if syncs {
            self.spill_vectors()?;
            self.call_table(Own::SaveFpControl.index());
        }
        self.call_with(helper, &[inst.args[0], inst.args[1], inst.args[2]].map(Value))?;
        if syncs {
            let kept = self.temp()?;
            self.mov(Size::X, kept, CALL_RESULT);
            self.call_table(Own::LoadFpControl.index());
            self.mov(Size::X, CALL_RESULT, kept);
        }
        self.take_result(helper.ret())
    }

    /// Spills what must be kept, passes the arguments, calls. The result word is in the first scratch register.
    pub(super) fn call_with(&mut self, helper: Helper, args: &[Value]) -> Result<(), EmitError> {
        self.spill_vectors()?;
        let words = CALL_ARGS;
        for (i, &ty) in helper.args().iter().enumerate() {
            let v = args[i];
            if ty.is_vector() {
                let from = self.v(v)?;
                self.store_state(Access::STRQ, from.0, offset_of!(CpuState, scratch) + 16 * i);
                continue;
            }
            match ty {
                Type::F32 | Type::F64 => {
                    let from = self.v(v)?;
                    let size = if ty == Type::F64 { Size::X } else { Size::W };
                    self.word(e::fmov_to_x(size, words[i], from));
                }
                _ => self.pass_int(words[i], ty, v)?,
            }
        }
        self.call_table(helper as usize);
        Ok(())
    }

    /// A zero-extended integer argument.
    fn pass_int(&mut self, to: X, ty: Type, v: Value) -> Result<(), EmitError> {
        if let Some(imm) = self.as_imm(v) {
            self.mov_imm(to, imm);
            return Ok(());
        }
        if self.val(v).loc == Loc::Flags {
            let cond = self.flags(v)?;
            self.cset(to, cond);
            return Ok(());
        }
        let from = self.x(v)?;
        self.zero_extend_into(to, from, ty, self.val(v).zx);
        Ok(())
    }

    /// Calls the entry of this index of the helper table through the stub that saves what the C convention does not
    /// (`arch/aarch64_tier0.rs`).
    pub(super) fn call_table(&mut self, index: usize) {
        self.load_state(Access::LDRX, JUMPS.0, offset_of!(CpuState, rt.helpers));
        self.word(e::access(Access::LDRX, JUMPS.0, At::Disp(JUMPS, 8 * index as i32)));
        (self.held, self.holds_zero, self.upper_noted) = (Held::Nothing, false, false);
        let link = X(30);
        self.word(e::access(Access::LDRX, link.0, At::Disp(CELLS, 8 * Stub::Call.cell() as i32)));
        self.word(e::blr(link));
    }

    /// The result word of a call becomes the instruction's value.
    fn take_result(&mut self, ty: Type) -> Result<(), EmitError> {
        let word = CALL_RESULT;
        match ty {
            Type::None => {}
            Type::F32 | Type::F64 => {
                let d = self.v_dest()?;
                let size = if ty == Type::F64 { Size::X } else { Size::W };
                self.word(e::fmov_from_x(size, d, word));
            }
            _ if ty.is_vector() => {
                let d = self.v_dest()?;
                self.load_state(Access::LDRQ, d.0, offset_of!(CpuState, scratch));
            }
            _ => {
                let d = self.dest()?;
                self.mov(Size::X, d, word);
                self.known_zero(if ty == Type::I1 { 1 } else { 64 });
            }
        }
        Ok(())
    }
}
