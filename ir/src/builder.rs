//! `Builder`: appends blocks and instructions to a region; one method a group of operations.

use crate::addr::GuestAddr;
use crate::helper::Helper;
use crate::op::Op;
use crate::reg::Reg;
use crate::region::{Block, BlockId, Cc, Exit, FaultKind, FloatCc, Inst, Mem, Region, RmwOp, Value};
use crate::types::Type;

/// Builds one [`Region`]. A block must be closed with [`Builder::exit`] before the next is opened.
#[derive(Default)]
pub struct Builder {
    region: Region,
    current: Option<BlockId>,
}

impl Builder {
    /// An empty region.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins anew, in the same memory.
    pub fn clear(&mut self) {
        let region = &mut self.region;
        region.blocks.clear();
        region.insts.clear();
        region.pool.clear();
        region.source.clear();
        region.predicted.clear();
        (region.guest_insns, region.flags_dead) = (0, false);
        self.current = None;
    }

    /// Reserves a block, so that exits can name it before it is filled. The first one is the entry.
    pub fn create_block(&mut self, pc: GuestAddr) -> BlockId {
        self.region.blocks.push(Block { pc, start: 0, end: 0, exit: Exit::None });
        BlockId(self.region.blocks.len() as u32 - 1)
    }

    /// Starts filling `block`.
    ///
    /// # Panics
    /// If another block is open.
    pub fn switch_to(&mut self, block: BlockId) {
        assert!(self.current.is_none(), "{:?} is still open", self.current);
        let at = self.region.insts.len() as u32;
        let b = &mut self.region.blocks[block.0 as usize];
        (b.start, b.end) = (at, at);
        self.current = Some(block);
    }

    /// The block being filled, if any.
    #[inline]
    pub fn current(&self) -> Option<BlockId> {
        self.current
    }

    /// Closes the open block.
    pub fn exit(&mut self, exit: Exit) {
        let block = self.current.take().expect("no open block");
        let at = self.region.insts.len() as u32;
        let b = &mut self.region.blocks[block.0 as usize];
        (b.end, b.exit) = (at, exit);
    }

    /// The region so far.
    #[inline]
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// The region so far, for its `source` and `guest_insns`.
    #[inline]
    pub fn region_mut(&mut self) -> &mut Region {
        &mut self.region
    }

    /// The finished region.
    pub fn finish(self) -> Region {
        debug_assert!(self.current.is_none());
        self.region
    }

    /// Appends any instruction; the value is meaningful if the operation has a result.
    #[inline]
    pub fn inst(&mut self, op: Op, ty: Type, aux: u16, args: [u32; 4]) -> Value {
        debug_assert!(self.current.is_some(), "no open block");
        self.region.insts.push(Inst { op, ty, aux, args });
        Value(self.region.insts.len() as u32 - 1)
    }

    /// Type of a value.
    #[inline]
    pub fn ty(&self, v: Value) -> Type {
        self.region.insts[v.0 as usize].result_type()
    }

    /// The instruction that defines a value.
    #[inline]
    pub fn def(&self, v: Value) -> &Inst {
        &self.region.insts[v.0 as usize]
    }

    /// The constant that a value is, if `iconst` defines it.
    #[inline]
    pub fn as_const(&self, v: Value) -> Option<u64> {
        let def = self.def(v);
        (def.op == Op::Iconst).then(|| def.imm())
    }

    /// Marks the start of a guest instruction.
    #[inline]
    pub fn insn(&mut self, pc: GuestAddr, len: u32) {
        self.region.guest_insns += 1;
        self.inst(Op::Insn, Type::None, len as u16, Inst::imm_args(pc.0));
    }

    /// Integer constant, truncated to `ty`.
    #[inline]
    pub fn iconst(&mut self, ty: Type, imm: u64) -> Value {
        let imm = if ty.bits() < 64 { imm & ((1 << ty.bits()) - 1) } else { imm };
        self.inst(Op::Iconst, ty, 0, Inst::imm_args(imm))
    }

    /// Index of a 128-bit constant in the pool.
    pub fn pool(&mut self, v: [u64; 2]) -> u32 {
        let pool = &mut self.region.pool;
        pool.iter().position(|p| *p == v).unwrap_or_else(|| {
            pool.push(v);
            pool.len() - 1
        }) as u32
    }

    /// 128-bit constant.
    pub fn vconst(&mut self, v: [u64; 2]) -> Value {
        let k = self.pool(v);
        self.inst(Op::Vconst, Type::V128, 0, [k, 0, 0, 0])
    }

    /// Reads a register, whole or (see `Op::Get`) its low part.
    #[inline]
    pub fn get(&mut self, ty: Type, reg: Reg) -> Value {
        self.inst(Op::Get, ty, reg.index() as u16, [0; 4])
    }

    /// Writes a register with a value of its type, or a general register with an `i32`.
    #[inline]
    pub fn put(&mut self, reg: Reg, v: Value) {
        self.put_as(reg, self.ty(v), v);
    }

    /// The same, where the type is known.
    #[inline]
    pub fn put_as(&mut self, reg: Reg, ty: Type, v: Value) {
        debug_assert_eq!(ty, self.ty(v));
        self.inst(Op::Put, ty, reg.index() as u16, [v.0, 0, 0, 0]);
    }

    /// An operation with one value operand.
    #[inline]
    pub fn unary(&mut self, op: Op, ty: Type, a: Value) -> Value {
        self.inst(op, ty, 0, [a.0, 0, 0, 0])
    }

    /// An operation with two value operands.
    #[inline]
    pub fn binary(&mut self, op: Op, ty: Type, a: Value, b: Value) -> Value {
        self.inst(op, ty, 0, [a.0, b.0, 0, 0])
    }

    /// An operation with three value operands.
    #[inline]
    pub fn ternary(&mut self, op: Op, ty: Type, a: Value, b: Value, c: Value) -> Value {
        self.inst(op, ty, 0, [a.0, b.0, c.0, 0])
    }

    /// Integer comparison; `ty` is the operands' type or shape.
    #[inline]
    pub fn icmp(&mut self, cc: Cc, ty: Type, a: Value, b: Value) -> Value {
        self.inst(Op::Icmp, ty, cc as u16, [a.0, b.0, 0, 0])
    }

    /// Floating comparison; `ty` is the operands' type or shape.
    pub fn fcmp(&mut self, cc: FloatCc, ty: Type, a: Value, b: Value) -> Value {
        self.inst(Op::Fcmp, ty, cc as u16, [a.0, b.0, 0, 0])
    }

    /// The same by the operation [`Op::Fcmp`] or [`Op::FcmpSignaling`].
    pub fn compare_floats(&mut self, op: Op, cc: FloatCc, ty: Type, a: Value, b: Value) -> Value {
        self.inst(op, ty, cc as u16, [a.0, b.0, 0, 0])
    }

    /// `cond ? a : b`.
    pub fn select(&mut self, ty: Type, cond: Value, a: Value, b: Value) -> Value {
        self.ternary(Op::Select, ty, cond, a, b)
    }

    /// Lane of a vector seen as `shape`.
    pub fn extract_lane(&mut self, shape: Type, v: Value, lane: u32) -> Value {
        self.inst(Op::ExtractLane, shape, lane as u16, [v.0, 0, 0, 0])
    }

    /// Vector with a lane replaced.
    pub fn insert_lane(&mut self, shape: Type, v: Value, scalar: Value, lane: u32) -> Value {
        self.inst(Op::InsertLane, shape, lane as u16, [v.0, scalar.0, 0, 0])
    }

    /// Bytes of `a` and `b` by constant indices (0x80 and up: zero).
    pub fn shuffle(&mut self, a: Value, b: Value, bytes: [u8; 16]) -> Value {
        let v = u128::from_le_bytes(bytes);
        let k = self.pool([v as u64, (v >> 64) as u64]);
        self.inst(Op::Shuffle, Type::I8x16, 0, [a.0, b.0, k, 0])
    }

    fn mem_args(m: Mem) -> [u32; 3] {
        [m.base.unwrap_or(Value::NONE).0, m.index.unwrap_or(Value::NONE).0, m.disp as u32]
    }

    /// Load from guest memory.
    #[inline]
    pub fn load(&mut self, ty: Type, m: Mem) -> Value {
        let [base, index, disp] = Self::mem_args(m);
        self.inst(Op::Load, ty, u16::from(m.scale), [base, index, disp, 0])
    }

    /// Store to guest memory.
    #[inline]
    pub fn store(&mut self, ty: Type, m: Mem, v: Value) {
        let [base, index, disp] = Self::mem_args(m);
        self.inst(Op::Store, ty, u16::from(m.scale), [base, index, disp, v.0]);
    }

    /// Atomic read-modify-write; yields the old value.
    pub fn rmw(&mut self, op: RmwOp, ty: Type, m: Mem, v: Value) -> Value {
        let [base, index, disp] = Self::mem_args(m);
        self.inst(Op::Rmw, ty, u16::from(m.scale) | (op as u16) << 4, [base, index, disp, v.0])
    }

    /// Atomic compare-and-swap at `[base + disp]`; yields the old value.
    pub fn cas(&mut self, ty: Type, base: Value, disp: i32, expected: Value, new: Value) -> Value {
        self.inst(Op::Cas, ty, 0, [base.0, expected.0, disp as u32, new.0])
    }

    /// Full fence.
    pub fn fence(&mut self) {
        self.inst(Op::Fence, Type::None, 0, [0; 4]);
    }

    /// Whether generated code cannot compute with floats as the control words say: not 0.
    pub fn uncarried(&mut self) -> Value {
        self.inst(Op::Uncarried, Type::I32, 0, [0; 4])
    }

    /// Calls a helper with as many arguments as it takes.
    pub fn call(&mut self, helper: Helper, args: &[Value]) -> Value {
        debug_assert_eq!(args.len(), helper.args().len());
        let mut slots = [Value::NONE.0, Value::NONE.0, Value::NONE.0, 0];
        for (slot, arg) in slots.iter_mut().zip(args) {
            *slot = arg.0;
        }
        self.inst(Op::Call, helper.ret(), helper as u16, slots)
    }

    /// Raises `kind` if `cond` is 1.
    pub fn fault_if(&mut self, kind: FaultKind, cond: Value) {
        self.inst(Op::FaultIf, Type::None, kind as u16, [cond.0, 0, 0, 0]);
    }
}
