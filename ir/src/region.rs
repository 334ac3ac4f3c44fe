//! `Region`, `Block`, `Inst`, `Exit`: the containers.
//!
//! A value is named by the index of the instruction that defines it, in the whole region's list; it may only be
//! used further down in the same block. Discipline of the lifter that passes and engines rely on:
//!
//! 1. Each guest instruction starts with `insn`.
//! 2. Within a guest instruction everything that may fault stands before the first `put`, so a fault finds
//!    the registers as before the instruction. (A store stands before the puts, too.)
//! 3. Conditional or repeated work inside one guest instruction (REP) is made of several blocks; each of them
//!    leaves the architectural state as the processor would between two iterations.

use crate::addr::GuestAddr;
use crate::op::{Format, Op};
use crate::types::Type;
use smallvec::SmallVec;

/// A value: index of its defining instruction in `Region::insts`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Value(pub u32);

impl Value {
    /// In an optional operand slot: no value.
    pub const NONE: Value = Value(u32::MAX);

    /// `None` for [`Value::NONE`].
    #[inline]
    pub fn expand(self) -> Option<Value> {
        (self != Self::NONE).then_some(self)
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "v{}", self.0)
    }
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// A block of the region: index into `Region::blocks`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct BlockId(pub u32);

impl std::fmt::Display for BlockId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "block{}", self.0)
    }
}

impl std::fmt::Debug for BlockId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

macro_rules! named_codes {
    ($(#[$meta:meta])* $ty:ident { $( $(#[$doc:meta])* $variant:ident $name:literal, )* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum $ty { $( $(#[$doc])* $variant, )* }

        impl $ty {
            /// Every code, in the order of the discriminants.
            pub const ALL: &'static [$ty] = &[ $( $ty::$variant, )* ];

            /// Text form.
            pub fn name(self) -> &'static str { match self { $( $ty::$variant => $name, )* } }

            /// The code with this discriminant.
            #[inline]
    pub fn from_code(code: u16) -> $ty { Self::ALL[code as usize] }

            /// The code with this text form.
            pub fn from_name(name: &str) -> Option<$ty> { Self::ALL.iter().copied().find(|c| c.name() == name) }
        }
    };
}

named_codes! {
    /// Integer comparison, with Cranelift's names.
    Cc {
        Equal "eq", NotEqual "ne",
        SignedLessThan "slt", SignedGreaterThanOrEqual "sge", SignedGreaterThan "sgt", SignedLessThanOrEqual "sle",
        UnsignedLessThan "ult", UnsignedGreaterThanOrEqual "uge", UnsignedGreaterThan "ugt", UnsignedLessThanOrEqual "ule",
    }
}

named_codes! {
    /// Floating comparison, with Cranelift's names.
    FloatCc {
        Ordered "ord", Unordered "uno", Equal "eq", NotEqual "ne", OrderedNotEqual "one", UnorderedOrEqual "ueq",
        LessThan "lt", LessThanOrEqual "le", GreaterThan "gt", GreaterThanOrEqual "ge",
        UnorderedOrLessThan "ult", UnorderedOrLessThanOrEqual "ule",
        UnorderedOrGreaterThan "ugt", UnorderedOrGreaterThanOrEqual "uge",
    }
}

named_codes! {
    /// What a read-modify-write does to the old value.
    RmwOp { Add "add", Sub "sub", And "and", Or "or", Xor "xor", Xchg "xchg", }
}

impl RmwOp {
    /// What becomes of `old`, in the width of the operation.
    pub fn apply(self, old: u64, value: u64) -> u64 {
        match self {
            RmwOp::Add => old.wrapping_add(value),
            RmwOp::Sub => old.wrapping_sub(value),
            RmwOp::And => old & value,
            RmwOp::Or => old | value,
            RmwOp::Xor => old ^ value,
            RmwOp::Xchg => value,
        }
    }
}

named_codes! {
    /// A guest fault other than a page fault, which the memory access itself raises.
    FaultKind {
        /// #DE: SIGFPE, FPE_INTDIV.
        DivideError "de",
        /// #UD: SIGILL.
        InvalidOpcode "ud",
        /// #GP: SIGSEGV, SI_KERNEL.
        GeneralProtection "gp",
        /// #BP of INT3: SIGTRAP, pc behind the instruction.
        Breakpoint "bp",
        /// #OF of INT 4: SIGSEGV, pc behind the instruction.
        Overflow "of",
        /// #XM: unmasked SSE exception, SIGFPE.
        SimdFloat "xm",
        /// #MF: unmasked x87 exception, SIGFPE.
        X87Float "mf",
        /// #DB of INT1: SIGTRAP.
        Debug "db",
        /// #PF of the instruction fetch: SIGSEGV; the address is the first byte from the pc on that cannot be executed.
        Fetch "fetch",
        /// The lifter does not know the instruction: SIGILL, with a line on stderr that names it.
        Unimplemented "unimplemented",
        /// Entry into 32-bit code or a 32-bit system call, which Calque does not have: SIGSEGV, as on a kernel without
        /// IA32 emulation, with a line on stderr.
        Compatibility "compatibility",
        /// The guest bytes that the code was made of have changed: no fault of the guest's, which goes on at the pc with new code.
        Stale "stale",
        /// TF has just been set: from here on each instruction traps behind itself (#DB: SIGTRAP, TRAP_TRACE).
        SingleStep "step",
        /// A control word of floating point has just been set to something unusual: an exception is not masked, or denormals are
        /// flushed. No fault, but other code or another engine may have to go on at the pc.
        FloatControl "float_control",
        /// XSAVE or XRSTOR at the pc, which is done but for the components of AVX-512: the runtime's to move. No fault.
        ExtendedState "extended_state",
    }
}

/// One operation with its operands; see [`Format`] for what the fields hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inst {
    pub op: Op,
    pub ty: Type,
    pub aux: u16,
    pub args: [u32; 4],
}

/// A decoded memory operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mem {
    /// Base address value, if any.
    pub base: Option<Value>,
    /// Index value, if any.
    pub index: Option<Value>,
    /// log2 of the index's scale, 0..4.
    pub scale: u8,
    /// Signed displacement.
    pub disp: i32,
}

impl Mem {
    /// `[base]`.
    #[inline]
    pub fn base(base: Value) -> Mem {
        Mem { base: Some(base), index: None, scale: 0, disp: 0 }
    }
}

impl Inst {
    /// The 64-bit immediate of [`Format::Imm`] and the pc of [`Format::Insn`].
    #[inline]
    pub fn imm(&self) -> u64 {
        u64::from(self.args[0]) | u64::from(self.args[1]) << 32
    }

    /// Splits a 64-bit immediate into operand slots.
    #[inline]
    pub fn imm_args(imm: u64) -> [u32; 4] {
        [imm as u32, (imm >> 32) as u32, 0, 0]
    }

    /// What a `count` counts: number of guest instructions, counter, guest pc of the first.
    #[inline]
    pub fn counted(&self) -> (u32, u32, GuestAddr) {
        let [n, counter, low, high] = self.args;
        (n, counter, GuestAddr(u64::from(low) | u64::from(high) << 32))
    }

    /// Operand slots of a `count`.
    pub fn count_args(n: u32, counter: u32, pc: GuestAddr) -> [u32; 4] {
        [n, counter, pc.0 as u32, (pc.0 >> 32) as u32]
    }

    /// The memory operand of `load`, `store`, `rmw` and `cas`.
    #[inline]
    pub fn mem(&self) -> Mem {
        match self.op.format() {
            Format::Cas => Mem { base: Some(Value(self.args[0])), index: None, scale: 0, disp: self.args[2] as i32 },
            _ => Mem {
                base: Value(self.args[0]).expand(),
                index: Value(self.args[1]).expand(),
                scale: (self.aux & 3) as u8,
                disp: self.args[2] as i32,
            },
        }
    }

    /// In `aux` of a load or store: on hosts that keep the guest's order by accesses that must be aligned, this one has been seen not to be.
    pub const UNALIGNED: u16 = 1 << 2;

    /// Whether this is a load or store that had better not depend on the alignment of its address.
    #[inline]
    pub fn is_unaligned(&self) -> bool {
        matches!(self.op, Op::Load | Op::Store) && self.aux & Self::UNALIGNED != 0
    }

    /// The operation of an `rmw`.
    pub fn rmw_op(&self) -> RmwOp {
        RmwOp::from_code(self.aux >> 4 & 15)
    }

    /// The operand slots of `args` that hold values, in order (bit i = slot i); absent optional ones included.
    #[inline]
    pub fn value_slots(&self) -> u8 {
        self.op.value_slots()
    }

    /// The values used.
    #[inline]
    pub fn uses(&self) -> impl Iterator<Item = Value> + '_ {
        let mut slots = self.value_slots();
        std::iter::from_fn(move || {
            while slots != 0 {
                let v = Value(self.args[slots.trailing_zeros() as usize & 3]);
                slots &= slots - 1;
                if v != Value::NONE {
                    return Some(v);
                }
            }
            None
        })
    }

    /// Type of the value that this instruction defines, `Type::None` if it defines none.
    #[inline]
    pub fn result_type(&self) -> Type {
        match RESULTS[self.op as usize] {
            Yields::Own => self.ty.value_type(),
            Yields::None => Type::None,
            Yields::Condition => Type::I1,
            Yields::Comparison if self.ty.is_vector() => Type::V128,
            Yields::Comparison => Type::I1,
            Yields::Lane => self.ty.lane(),
            Yields::Bits => Type::I32,
        }
    }
}

/// What an operation yields.
#[derive(Clone, Copy)]
enum Yields {
    None,
    /// A value of its type.
    Own,
    Condition,
    /// A condition, or lane masks.
    Comparison,
    /// A lane of its shape.
    Lane,
    /// The lanes' top bits.
    Bits,
}

const fn result(op: Op) -> Yields {
    use Op::*;
    match op {
        Nop | Insn | Count | Put | Store | Fence | FaultIf => Yields::None,
        Icmp | Fcmp | FcmpSignaling => Yields::Comparison,
        Parity | UaddOverflow | SaddOverflow | SsubOverflow | UmulOverflow | SmulOverflow | UaddOverflowCin
        | SaddOverflowCin | UsubOverflowBin | SsubOverflowBin | HalfCarry => Yields::Condition,
        ExtractLane => Yields::Lane,
        HighBits => Yields::Bits,
        _ => Yields::Own,
    }
}

impl Op {
    /// The operand slots that hold values, as [`Inst::value_slots`] has them.
    #[inline]
    pub const fn value_slots(self) -> u8 {
        SLOTS[self as usize]
    }
}

const fn slots(format: Format) -> u8 {
    match format {
        Format::Nullary | Format::Imm | Format::Pool | Format::Get | Format::Insn | Format::Count => 0,
        Format::Put | Format::Unary | Format::Extract | Format::FaultIf => 0b0001,
        Format::Binary | Format::Compare | Format::Shuffle | Format::Insert | Format::Load => 0b0011,
        Format::Ternary | Format::Call => 0b0111,
        Format::Store | Format::Rmw | Format::Cas => 0b1011,
    }
}

/// [`slots`] and [`result`] of each operation: translators ask for both of every instruction.
static SLOTS: [u8; Op::ALL.len()] = {
    let (mut table, mut n) = ([0; Op::ALL.len()], 0);
    while n < table.len() {
        table[n] = slots(Op::ALL[n].format());
        n += 1;
    }
    table
};
static RESULTS: [Yields; Op::ALL.len()] = {
    let (mut table, mut n) = ([Yields::None; Op::ALL.len()], 0);
    while n < table.len() {
        table[n] = result(Op::ALL[n]);
        n += 1;
    }
    table
};

/// Where control goes: a block of the same region, or a guest pc outside it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    Block(BlockId),
    Pc(GuestAddr),
}

/// How a block ends. Names state the intent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// Not yet known (while building).
    None,
    /// Unconditional.
    Goto(Target),
    /// `cond` (`i1`) chooses.
    Branch { cond: Value, taken: Target, fallthrough: Target },
    /// Jump to a computed pc (`i64`).
    Indirect(Value),
    /// Call of a known function; the return address has been pushed. `ret` is the pc behind the call.
    Call { target: Target, ret: GuestAddr },
    /// Call through a computed pc.
    CallIndirect { target: Value, ret: GuestAddr },
    /// Return to the popped pc.
    Return(Value),
    /// SYSCALL; `next` is the pc behind it. RCX, R11 and RAX are the shim's to write.
    Syscall { next: GuestAddr },
    /// Raises a fault with guest pc `pc` in the frame.
    Fault { kind: FaultKind, pc: GuestAddr },
}

impl Exit {
    /// Known targets, in order.
    #[inline]
    pub fn targets(&self) -> impl Iterator<Item = Target> {
        let (a, b) = match *self {
            Exit::Goto(t) | Exit::Call { target: t, .. } => (Some(t), None),
            Exit::Branch { taken, fallthrough, .. } => (Some(taken), Some(fallthrough)),
            _ => (None, None),
        };
        a.into_iter().chain(b)
    }

    /// Calls `f` on each known target.
    pub fn for_each_target(&mut self, mut f: impl FnMut(&mut Target)) {
        match self {
            Exit::Goto(t) | Exit::Call { target: t, .. } => f(t),
            Exit::Branch { taken, fallthrough, .. } => {
                f(taken);
                f(fallthrough);
            }
            _ => {}
        }
    }

    /// The value that decides or names the target.
    #[inline]
    pub fn value(&self) -> Option<Value> {
        match *self {
            Exit::Branch { cond: v, .. } | Exit::Indirect(v) | Exit::Return(v) => Some(v),
            Exit::CallIndirect { target, .. } => Some(target),
            _ => None,
        }
    }

    /// Renames the value that decides or names the target.
    pub fn map_value(&mut self, f: impl FnOnce(Value) -> Value) {
        match self {
            Exit::Branch { cond: v, .. } | Exit::Indirect(v) | Exit::Return(v) => *v = f(*v),
            Exit::CallIndirect { target, .. } => *target = f(*target),
            _ => {}
        }
    }
}

/// A straight line of instructions with one exit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Block {
    /// Guest pc of the first instruction; blocks inside one guest instruction (REP) share its pc.
    pub pc: GuestAddr,
    /// Range of the block's instructions in `Region::insts`.
    pub start: u32,
    pub end: u32,
    pub exit: Exit,
}

/// Ranges of guest bytes, as (start, length). Nearly all regions are blocks, which have one.
pub type Source = SmallVec<[(GuestAddr, u32); 1]>;

/// A unit of translation. Block 0 is the entry.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Region {
    pub blocks: Vec<Block>,
    pub insts: Vec<Inst>,
    /// 128-bit constants, low word first.
    pub pool: Vec<[u64; 2]>,
    /// The guest bytes that were translated: what invalidation looks at. Sorted, disjoint.
    pub source: Source,
    /// Where computed exits are likely to lead within the region, as (block that ends in one, block), ascending by the first and
    /// likelier ones before others: if the computed pc is the second block's, execution may go on there. Status flags are dead there
    /// and need not be ready.
    pub predicted: Vec<(BlockId, BlockId)>,
    /// Number of guest instructions.
    pub guest_insns: u32,
    /// Whether every path from the entry sets all status flags before anything reads them or the region is left to an unknown
    /// place: whoever arrives need not have them ready.
    pub flags_dead: bool,
}

/// What of a region runs, wherever it is.
#[derive(Clone, Copy, Debug)]
pub struct Body<'a> {
    pub blocks: &'a [Block],
    pub insts: &'a [Inst],
    pub pool: &'a [[u64; 2]],
    pub predicted: &'a [(BlockId, BlockId)],
}

impl<'a> Body<'a> {
    /// As [`Region::predicted_of`].
    pub fn predicted_of(self, block: BlockId) -> impl Iterator<Item = BlockId> + Clone + use<'a> {
        let first = self.predicted.partition_point(|(from, _)| *from < block);
        self.predicted[first..].iter().take_while(move |(from, _)| *from == block).map(|(_, to)| *to)
    }
}

impl Region {
    /// What of it runs.
    #[inline]
    pub fn body(&self) -> Body<'_> {
        Body { blocks: &self.blocks, insts: &self.insts, pool: &self.pool, predicted: &self.predicted }
    }

    /// Guest pc of the entry.
    #[inline]
    pub fn pc(&self) -> GuestAddr {
        self.blocks[0].pc
    }

    /// The instructions of a block.
    pub fn block_insts(&self, block: BlockId) -> &[Inst] {
        let b = &self.blocks[block.0 as usize];
        &self.insts[b.start as usize..b.end as usize]
    }

    /// The blocks of the region that a block's computed exit is likely to lead to.
    pub fn predicted_of(&self, block: BlockId) -> impl Iterator<Item = BlockId> + Clone {
        self.body().predicted_of(block)
    }

    /// The blocks of the region that a block may lead to, in order.
    pub fn successors(&self, block: BlockId) -> impl Iterator<Item = BlockId> {
        let known = self.blocks[block.0 as usize].exit.targets().filter_map(|target| match target {
            Target::Block(to) => Some(to),
            Target::Pc(_) => None,
        });
        known.chain(self.predicted_of(block))
    }

    /// Marks the loads and stores of the guest instructions that `is_one` knows ([`Inst::UNALIGNED`]).
    pub fn mark_unaligned(&mut self, is_one: impl Fn(GuestAddr) -> bool) {
        for block in &self.blocks {
            let mut marks = is_one(block.pc);
            for inst in &mut self.insts[block.start as usize..block.end as usize] {
                match inst.op {
                    Op::Insn => marks = is_one(GuestAddr(inst.imm())),
                    Op::Load | Op::Store if marks => inst.aux |= Inst::UNALIGNED,
                    _ => {}
                }
            }
        }
    }

    /// The block ids, in order.
    pub fn block_ids(&self) -> impl DoubleEndedIterator<Item = BlockId> + use<> {
        (0..self.blocks.len() as u32).map(BlockId)
    }
}
