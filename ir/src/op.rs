//! `Op`: every operation of the IR, one row each. From this list come the enum, names, formats and
//! `docs/IR.md`; the interpreter has one arm per row and is the meaning of the row.
//!
//! `ty` below is the operation's type. Unless a row says otherwise, operands have the same type as the result
//! and vector shapes apply the operation to each lane. Integer arithmetic wraps. Shift counts are of the
//! operand's type and must be below its width (the lifter masks as x86 does) except where a row says otherwise.

/// How an operation's operands are laid out in [`crate::Inst`]: `args`, `aux`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// No operands.
    Nullary,
    /// 64-bit immediate in `args[0]` (low) and `args[1]` (high).
    Imm,
    /// Constant-pool index in `args[0]` (128-bit constants of the region).
    Pool,
    /// Register in `aux`.
    Get,
    /// Register in `aux`, value in `args[0]`.
    Put,
    /// One value.
    Unary,
    /// Two values.
    Binary,
    /// Three values.
    Ternary,
    /// Two values, condition code in `aux`.
    Compare,
    /// Two values, constant-pool index in `args[2]`.
    Shuffle,
    /// One value, lane number in `aux`.
    Extract,
    /// Vector, scalar, lane number in `aux`.
    Insert,
    /// Memory operand: base value or none, index value or none, displacement (i32); log2 scale and [`crate::Inst::UNALIGNED`] in `aux`.
    Load,
    /// As `Load`, with the value in `args[3]`.
    Store,
    /// As `Store`, with the [`crate::RmwOp`] in `aux` bits 4..8.
    Rmw,
    /// Base value, expected, displacement (i32), new.
    Cas,
    /// [`crate::Helper`] in `aux`, values or none in `args[0..3]`.
    Call,
    /// Guest pc in `args[0]` (low) and `args[1]` (high), length in `aux`.
    Insn,
    /// Number of guest instructions in `args[0]`, counter in `args[1]`, guest pc of the first in `args[2]` (low) and `args[3]` (high).
    Count,
    /// `i1` in `args[0]`, [`crate::FaultKind`] in `aux`.
    FaultIf,
}

macro_rules! ops {
    ($( $(#[doc = $doc:literal])* $variant:ident $name:literal $format:ident $effect:ident; )*) => {
        /// An operation of the IR.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum Op { $( $(#[doc = $doc])* $variant, )* }

        impl Op {
            /// Every operation, in the order of the list.
            pub const ALL: &'static [Op] = &[ $( Op::$variant, )* ];

            /// Text form.
            pub fn name(self) -> &'static str { match self { $( Op::$variant => $name, )* } }

            /// Operand layout.
            #[inline]
            pub const fn format(self) -> Format { Self::FORMATS[self as usize] }

            /// Whether the operation may be removed when its result is unused.
            #[inline]
            pub const fn effect(self) -> Effect { Self::EFFECTS[self as usize] }

            // Tables, because translators ask often.
            const FORMATS: &'static [Format] = &[ $( Format::$format, )* ];
            const EFFECTS: &'static [Effect] = &[ $( Effect::$effect, )* ];

            /// One-line meaning, for the documentation.
            pub fn doc(self) -> &'static str { match self { $( Op::$variant => concat!($($doc),*), )* } }
        }
    };
}

impl Op {
    /// The operation with this text form.
    pub fn from_name(name: &str) -> Option<Op> {
        Self::ALL.iter().copied().find(|op| op.name() == name)
    }

    /// Whether a guest instruction may end in this operation: with a fault of its own or of the memory it touches.
    #[inline]
    pub fn may_stop(self) -> bool {
        matches!(self.effect(), Effect::Faults | Effect::Memory) && self != Op::Fence
    }

    /// Whether it may raise exceptions of SSE's floating point.
    #[inline]
    pub fn raises(self) -> bool {
        self.effect() == Effect::Raises
    }

    /// Whether it is a comparison of floats.
    #[inline]
    pub fn compares_floats(self) -> bool {
        matches!(self, Op::Fcmp | Op::FcmpSignaling)
    }
}

/// What an operation does besides yielding its result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Nothing: removable, may be merged with its equal.
    Pure,
    /// May raise exceptions of SSE's floating point: sets MXCSR's flags, and faults where they are unmasked. Never removed, but
    /// does not count as a place to stop at ([`Op::may_stop`]): with unmasked exceptions only the interpreter computes, and
    /// what the lifter gave it.
    Raises,
    /// Reads a guest register: removable.
    ReadsReg,
    /// Writes a guest register: removable when dead.
    WritesReg,
    /// May raise a guest fault (memory reads, division, `fault_if`): never removed.
    Faults,
    /// Writes memory or orders accesses: never removed.
    Memory,
    /// As [`crate::Helper::effect`] says.
    Helper,
    /// Marks a position; never removed by dead-code elimination.
    Marker,
}

ops! {
    /// Nothing. What passes leave behind until they compact.
    Nop "nop" Nullary Pure;
    /// Start of a guest instruction: its pc and length in bytes. Faults up to the next mark belong to it.
    Insn "insn" Insn Marker;
    /// A number of guest instructions, one behind the other from a pc on, have been executed: adds 1 to a counter of the thread (here the last operand) and the number to its sum.
    Count "count" Count Marker;

    /// Integer constant (`i1`..`i64`).
    Iconst "iconst" Imm Pure;
    /// 128-bit constant from the region's pool.
    Vconst "vconst" Pool Pure;
    /// Reads a guest register; a general register may be read as its low `i32`, `i16` or `i8`, a vector register as its low `i32`, `i64`, `f32` or `f64`.
    Get "get" Get ReadsReg;
    /// Writes a guest register whole; a general register written as `i32` is zero-extended.
    Put "put" Put WritesReg;

    /// Same bits as the other type of the same width (`i32`/`f32`, `i64`/`f64`); `ty` is the result's.
    Bitcast "bitcast" Unary Pure;
    /// Zero-extends a narrower integer or `i1` to `ty`.
    Uextend "uextend" Unary Pure;
    /// Sign-extends a narrower integer to `ty`.
    Sextend "sextend" Unary Pure;
    /// Low bits of a wider integer (to `i1`: bit 0).
    Ireduce "ireduce" Unary Pure;
    /// Two's complement negation.
    Ineg "ineg" Unary Pure;
    /// Bitwise complement; logical not for `i1`.
    Bnot "bnot" Unary Pure;
    /// Leading zero bits; the width for 0.
    Clz "clz" Unary Pure;
    /// Trailing zero bits; the width for 0.
    Ctz "ctz" Unary Pure;
    /// Number of one bits.
    Popcnt "popcnt" Unary Pure;
    /// Bytes in reverse order.
    Bswap "bswap" Unary Pure;
    /// `i1`: whether the low byte has an even number of one bits (PF); `ty` is the operand's.
    Parity "parity" Unary Pure;

    /// Sum.
    Iadd "iadd" Binary Pure;
    /// Difference.
    Isub "isub" Binary Pure;
    /// Low half of the product (vectors: `i16x8`, `i32x4`).
    Imul "imul" Binary Pure;
    /// High half of the unsigned product (`i64`, `i16x8`).
    Umulhi "umulhi" Binary Pure;
    /// High half of the signed product (`i64`, `i16x8`).
    Smulhi "smulhi" Binary Pure;
    /// Bitwise and.
    Band "band" Binary Pure;
    /// Bitwise or.
    Bor "bor" Binary Pure;
    /// Bitwise exclusive or.
    Bxor "bxor" Binary Pure;
    /// First operand and the complement of the second.
    BandNot "band_not" Binary Pure;
    /// Shift left.
    Ishl "ishl" Binary Pure;
    /// Shift right, zeros in.
    Ushr "ushr" Binary Pure;
    /// Shift right, sign bits in.
    Sshr "sshr" Binary Pure;
    /// Rotate left.
    Rotl "rotl" Binary Pure;
    /// Rotate right.
    Rotr "rotr" Binary Pure;
    /// `i64` first operand with bits 0..8 replaced by the `i8` second: writing AL.
    InsertLow8 "insert_low8" Binary Pure;
    /// `i64` first operand with bits 8..16 replaced by the `i8` second: writing AH.
    InsertHigh8 "insert_high8" Binary Pure;
    /// `i64` first operand with bits 0..16 replaced by the `i16` second: writing AX.
    InsertLow16 "insert_low16" Binary Pure;

    /// `i1`: comparison by condition code; vector shapes: all-ones lanes where it holds. `ty` is the operands'.
    Icmp "icmp" Compare Pure;
    /// `i1` or lane masks: floating comparison by condition code; only a signaling NaN is an invalid operation. `ty` is the operands'.
    Fcmp "fcmp" Compare Raises;
    /// The same, where any NaN is an invalid operation.
    FcmpSignaling "fcmp_signaling" Compare Raises;
    /// First operand `i1`: the second if it is 1, else the third.
    Select "select" Ternary Pure;

    /// `i1`: carry out of the sum. `ty` is the operands'.
    UaddOverflow "uadd_overflow" Binary Pure;
    /// `i1`: signed overflow of the sum.
    SaddOverflow "sadd_overflow" Binary Pure;
    /// `i1`: signed overflow of the difference.
    SsubOverflow "ssub_overflow" Binary Pure;
    /// `i1`: the unsigned product does not fit.
    UmulOverflow "umul_overflow" Binary Pure;
    /// `i1`: the signed product does not fit.
    SmulOverflow "smul_overflow" Binary Pure;
    /// `i1`: carry out of a + b + c, `c` an `i1`. `ty` is a's and b's.
    UaddOverflowCin "uadd_overflow_cin" Ternary Pure;
    /// `i1`: signed overflow of a + b + c.
    SaddOverflowCin "sadd_overflow_cin" Ternary Pure;
    /// `i1`: borrow of a - b - c.
    UsubOverflowBin "usub_overflow_bin" Ternary Pure;
    /// `i1`: signed overflow of a - b - c.
    SsubOverflowBin "ssub_overflow_bin" Ternary Pure;
    /// `i1`: bit 4 of a ^ b ^ c (AF of an addition or subtraction with result c).
    HalfCarry "half_carry" Ternary Pure;

    /// Quotient of the unsigned (a:b)/c, a the high half; faults with #DE where the SDM does.
    Udiv "udiv" Ternary Faults;
    /// Remainder of the same.
    Urem "urem" Ternary Faults;
    /// Quotient of the signed (a:b)/c, truncated; faults with #DE where the SDM does.
    Sdiv "sdiv" Ternary Faults;
    /// Remainder of the same.
    Srem "srem" Ternary Faults;

    /// Sum, rounded as MXCSR says; NaN as the SDM says (vol. 1 table 4-7), also below.
    Fadd "fadd" Binary Raises;
    /// Difference.
    Fsub "fsub" Binary Raises;
    /// Product.
    Fmul "fmul" Binary Raises;
    /// Quotient.
    Fdiv "fdiv" Binary Raises;
    /// Square root.
    Sqrt "sqrt" Unary Raises;
    /// a * b + c, rounded once; NaN: the first operand that is one, quieted, also below (SDM vol. 1 14.5.2).
    Fmadd "fmadd" Ternary Raises;
    /// a * b - c, rounded once.
    Fmsub "fmsub" Ternary Raises;
    /// -(a * b) + c, rounded once.
    Fnmadd "fnmadd" Ternary Raises;
    /// -(a * b) - c, rounded once.
    Fnmsub "fnmsub" Ternary Raises;
    /// To an integral number: up. NaNs become quiet; a fraction does not raise the precision flag; also below.
    Ceil "ceil" Unary Raises;
    /// To an integral number: down.
    Floor "floor" Unary Raises;
    /// To an integral number: toward zero.
    Trunc "trunc" Unary Raises;
    /// To the nearest integral number, ties to even.
    Nearest "nearest" Unary Raises;
    /// a < b ? a : b (MINSS: the second operand for NaN and for two zeros).
    Fmin "fmin" Binary Raises;
    /// a > b ? a : b (MAXSS).
    Fmax "fmax" Binary Raises;
    /// `f32` to `f64`.
    Fpromote "fpromote" Unary Raises;
    /// `f64` to `f32`.
    Fdemote "fdemote" Unary Raises;
    /// Low two `f32` lanes to `f64x2`.
    FvpromoteLow "fvpromote_low" Unary Raises;
    /// `f64x2` to the low two `f32` lanes, zero above; `ty` is `f32x4`.
    Fvdemote "fvdemote" Unary Raises;
    /// Signed integer (`i32`, `i64`; `i32x4` for `f32x4`) to `ty`.
    FcvtFromSint "fcvt_from_sint" Unary Raises;
    /// Low two `i32` lanes to `f64x2`.
    FcvtLowFromSint "fcvt_low_from_sint" Unary Pure;
    /// Float (`f32`, `f64`; `f32x4` for `i32x4`) to `ty`, rounded as MXCSR says; the integer indefinite (0x80..0) out of range.
    FcvtToSint "fcvt_to_sint" Unary Raises;
    /// The same, truncated.
    FcvtToSintTrunc "fcvt_to_sint_trunc" Unary Raises;
    /// `f64x2` to the low two `i32` lanes, zero above, rounded as MXCSR says; `ty` is `i32x4`.
    FcvtLowToSint "fcvt_low_to_sint" Unary Raises;
    /// The same, truncated.
    FcvtLowToSintTrunc "fcvt_low_to_sint_trunc" Unary Raises;

    /// Vector with the scalar in every lane.
    Splat "splat" Unary Pure;
    /// Lane `aux` of a vector; `ty` is the *shape*, the result its lane type.
    ExtractLane "extract_lane" Extract Pure;
    /// Vector with lane `aux` replaced; `ty` is the shape.
    InsertLane "insert_lane" Insert Pure;
    /// The scalar in lane 0 of shape `ty`, zero above.
    ScalarToVector "scalar_to_vector" Unary Pure;
    /// Vector from two `i64`, low first; `ty` is `i64x2`.
    Concat "concat" Binary Pure;
    /// Bytes of a (0..16) and b (16..32) chosen by the pool constant's bytes; an index of 0x80 or more gives 0. `ty` is `i8x16`.
    Shuffle "shuffle" Shuffle Pure;
    /// Bytes of a chosen by the low four bits of b's bytes, 0 where bit 7 is set (PSHUFB). `ty` is `i8x16`.
    Swizzle "swizzle" Binary Pure;
    /// `i32`: the lanes' top bits, lane 0 in bit 0; `ty` is the shape.
    HighBits "high_bits" Unary Pure;
    /// Shift left by an `i64` count; counts of the lane width and more give 0.
    Vshl "vshl" Binary Pure;
    /// Shift right by an `i64` count, zeros in; counts of the lane width and more give 0.
    Vushr "vushr" Binary Pure;
    /// Shift right by an `i64` count, sign bits in; counts of the lane width and more give all sign bits.
    Vsshr "vsshr" Binary Pure;
    /// Saturating unsigned sum (`i8x16`, `i16x8`).
    UaddSat "uadd_sat" Binary Pure;
    /// Saturating signed sum.
    SaddSat "sadd_sat" Binary Pure;
    /// Saturating unsigned difference.
    UsubSat "usub_sat" Binary Pure;
    /// Saturating signed difference.
    SsubSat "ssub_sat" Binary Pure;
    /// Unsigned minimum (`i8x16`, `i16x8`, `i32x4`), also below.
    Umin "umin" Binary Pure;
    /// Unsigned maximum.
    Umax "umax" Binary Pure;
    /// Signed minimum.
    Smin "smin" Binary Pure;
    /// Signed maximum.
    Smax "smax" Binary Pure;
    /// Unsigned (a + b + 1) / 2 (`i8x16`, `i16x8`).
    AvgRound "avg_round" Binary Pure;
    /// Lanes of a then of b, each halved in width with signed saturation; `ty` is the *result's* shape.
    Snarrow "snarrow" Binary Pure;
    /// The same, signed lanes to unsigned ones with unsigned saturation.
    Unarrow "unarrow" Binary Pure;
    /// Products of signed 16-bit lanes, summed in pairs (PMADDWD); `ty` is `i32x4`.
    Maddwd "maddwd" Binary Pure;
    /// Products of the even unsigned 32-bit lanes (PMULUDQ); `ty` is `i64x2`.
    Muludq "muludq" Binary Pure;
    /// Sums of absolute differences of 8 unsigned bytes each (PSADBW); `ty` is `i64x2`.
    Sad "sad" Binary Pure;

    /// Loads `ty` from guest memory.
    Load "load" Load Faults;
    /// Stores `ty` to guest memory.
    Store "store" Store Memory;
    /// Sequentially consistent read-modify-write; yields the old value.
    Rmw "rmw" Rmw Memory;
    /// Sequentially consistent compare-and-swap (`i8`..`i64`, `v128`); yields the old value.
    Cas "cas" Cas Memory;
    /// Full memory fence.
    Fence "fence" Nullary Memory;

    /// Calls a helper; `ty` is its result type.
    Call "call" Call Helper;
    /// `i32`, not 0 if generated code cannot compute with floats as the control words say (`CpuState::rt.uncarried`): the same from entering it
    /// to leaving it. The interpreter always can.
    Uncarried "uncarried" Nullary Pure;
    /// Raises the fault of `aux` if the operand is 1. All `put`s of the instruction stand behind it.
    FaultIf "fault_if" FaultIf Faults;
}
