//! Types of IR operations.
//!
//! A *value* is an `i1`, an integer, a float or a 128-bit vector. A vector value has no lane type of its
//! own (`v128`); the *operation* says how it sees the lanes (`iadd.i16x8`). 256-bit guest registers are two
//! `v128` registers (`xmm3`, `ymmh3`).

/// Type of an operation: the value's type, or for vectors the shape in which the operation sees it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
#[repr(u8)]
pub enum Type {
    /// Operation without a result.
    None,
    /// A condition: 0 or 1.
    I1,
    I8,
    I16,
    I32,
    I64,
    F32,
    F64,
    /// 128 bits without lanes: loads, stores, bitwise logic, moves.
    V128,
    I8x16,
    I16x8,
    I32x4,
    I64x2,
    F32x4,
    F64x2,
}

impl Type {
    /// Every type, in the order of their discriminants.
    pub const ALL: [Type; 15] = {
        use Type::*;
        [None, I1, I8, I16, I32, I64, F32, F64, V128, I8x16, I16x8, I32x4, I64x2, F32x4, F64x2]
    };

    /// Text form, as after the dot in `iadd.i32`.
    pub fn name(self) -> &'static str {
        match self {
            Type::None => "none",
            Type::I1 => "i1",
            Type::I8 => "i8",
            Type::I16 => "i16",
            Type::I32 => "i32",
            Type::I64 => "i64",
            Type::F32 => "f32",
            Type::F64 => "f64",
            Type::V128 => "v128",
            Type::I8x16 => "i8x16",
            Type::I16x8 => "i16x8",
            Type::I32x4 => "i32x4",
            Type::I64x2 => "i64x2",
            Type::F32x4 => "f32x4",
            Type::F64x2 => "f64x2",
        }
    }

    /// Size in bits of the whole value: 1 for `i1`, 128 for every vector shape, 0 for `none`.
    #[inline]
    pub fn bits(self) -> u32 {
        match self {
            Type::None => 0,
            Type::I1 => 1,
            Type::I8 => 8,
            Type::I16 => 16,
            Type::I32 | Type::F32 => 32,
            Type::I64 | Type::F64 => 64,
            _ => 128,
        }
    }

    /// Size in bytes in guest memory; an `i1` has none.
    #[inline]
    pub fn bytes(self) -> u32 {
        self.bits() / 8
    }

    /// Whether a value of this type is a 128-bit vector.
    #[inline]
    pub fn is_vector(self) -> bool {
        self.bits() == 128
    }

    /// Whether this is `f32`, `f64` or a vector of them.
    #[inline]
    pub fn is_float(self) -> bool {
        matches!(self, Type::F32 | Type::F64 | Type::F32x4 | Type::F64x2)
    }

    /// Whether this is a scalar integer of at least 8 bits.
    #[inline]
    pub fn is_int(self) -> bool {
        matches!(self, Type::I8 | Type::I16 | Type::I32 | Type::I64)
    }

    /// Type of one lane of a vector shape; scalars are their own lane. `v128` has none.
    #[inline]
    pub fn lane(self) -> Type {
        match self {
            Type::I8x16 => Type::I8,
            Type::I16x8 => Type::I16,
            Type::I32x4 => Type::I32,
            Type::I64x2 => Type::I64,
            Type::F32x4 => Type::F32,
            Type::F64x2 => Type::F64,
            Type::V128 => Type::None,
            scalar => scalar,
        }
    }

    /// Number of lanes: 2 to 16 for shapes, 1 for scalars.
    #[inline]
    pub fn lanes(self) -> u32 {
        if self.is_vector() && self != Type::V128 { 128 / self.lane().bits() } else { 1 }
    }

    /// The type of the *value* that an operation of this type yields: shapes collapse to `v128`.
    #[inline]
    pub fn value_type(self) -> Type {
        if self.is_vector() { Type::V128 } else { self }
    }

    /// The integer type of `bits` bits (8, 16, 32, 64).
    ///
    /// # Panics
    /// For any other width.
    #[inline]
    pub fn int(bits: u32) -> Type {
        match bits {
            8 => Type::I8,
            16 => Type::I16,
            32 => Type::I32,
            64 => Type::I64,
            _ => panic!("no integer type of {bits} bits"),
        }
    }
}
