//! 128-bit values as lanes: lane 0 is the least significant, as in memory and in the SDM's figures.

use crate::state::V128;

/// A lane type.
pub(super) trait Lane: Copy {
    /// All lanes of a 128-bit value.
    type Lanes: AsRef<[Self]> + AsMut<[Self]> + Copy;

    /// Takes a value apart.
    fn split(v: V128) -> Self::Lanes;

    /// Puts a value together.
    fn join(lanes: Self::Lanes) -> V128;
}

macro_rules! lanes {
    ($($ty:ident x $n:literal)*) => { $(
        impl Lane for $ty {
            type Lanes = [$ty; $n];

            #[inline(always)]
            fn split(v: V128) -> [$ty; $n] {
                let bytes = to_bytes(v);
                std::array::from_fn(|i| {
                    let mut lane = [0; 16 / $n];
                    lane.copy_from_slice(&bytes[i * (16 / $n)..][..16 / $n]);
                    $ty::from_le_bytes(lane)
                })
            }

            #[inline(always)]
            fn join(lanes: [$ty; $n]) -> V128 {
                let mut bytes = [0; 16];
                for (to, lane) in bytes.chunks_exact_mut(16 / $n).zip(lanes) {
                    to.copy_from_slice(&lane.to_le_bytes());
                }
                from_bytes(bytes)
            }
        }
    )* };
}

lanes! { u8 x 16 i8 x 16 u16 x 8 i16 x 8 u32 x 4 i32 x 4 f32 x 4 u64 x 2 i64 x 2 f64 x 2 }

/// The sixteen bytes, least significant first.
#[inline(always)]
pub(super) fn to_bytes(v: V128) -> [u8; 16] {
    (u128::from(v[0]) | u128::from(v[1]) << 64).to_le_bytes()
}

/// The value of sixteen bytes, least significant first.
#[inline(always)]
pub(super) fn from_bytes(bytes: [u8; 16]) -> V128 {
    let v = u128::from_le_bytes(bytes);
    [v as u64, (v >> 64) as u64]
}

/// `f` of each lane.
#[inline(always)]
pub(super) fn map<T: Lane>(a: V128, mut f: impl FnMut(T) -> T) -> V128 {
    let mut lanes = T::split(a);
    for lane in lanes.as_mut() {
        *lane = f(*lane);
    }
    T::join(lanes)
}

/// `f` of each pair of lanes.
#[inline(always)]
pub(super) fn zip<T: Lane>(a: V128, b: V128, mut f: impl FnMut(T, T) -> T) -> V128 {
    let (mut a, b) = (T::split(a), T::split(b));
    for (x, y) in a.as_mut().iter_mut().zip(b.as_ref()) {
        *x = f(*x, *y);
    }
    T::join(a)
}

/// All-ones lanes where `f` holds.
#[inline(always)]
pub(super) fn mask<T: Lane, M: Lane + Ones>(a: V128, b: V128, mut f: impl FnMut(T, T) -> bool) -> V128 {
    let (a, b) = (T::split(a), T::split(b));
    let mut out = M::split([0, 0]);
    for (i, to) in out.as_mut().iter_mut().enumerate() {
        if f(a.as_ref()[i], b.as_ref()[i]) {
            *to = M::ONES;
        }
    }
    M::join(out)
}

/// Unsigned lanes, for masks.
pub(super) trait Ones {
    /// All bits one.
    const ONES: Self;
}

macro_rules! ones { ($($ty:ident)*) => { $( impl Ones for $ty { const ONES: $ty = $ty::MAX; } )* }; }

ones! { u8 u16 u32 u64 }

/// Lanes of `a`, then lanes of `b`, each through `f` to half the width.
#[inline(always)]
pub(super) fn narrow<T: Lane, U: Lane>(a: V128, b: V128, f: impl Fn(T) -> U) -> V128 {
    let (a, b) = (T::split(a), T::split(b));
    let mut out = U::split([0, 0]);
    let all = a.as_ref().iter().chain(b.as_ref());
    for (to, from) in out.as_mut().iter_mut().zip(all) {
        *to = f(*from);
    }
    U::join(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lane_zero_is_least_significant() {
        let v = [0x0807_0605_0403_0201, 0x100f_0e0d_0c0b_0a09];
        assert_eq!(u8::split(v)[0], 1);
        assert_eq!(u16::split(v)[7], 0x100f);
        assert_eq!(i32::join(i32::split(v)), v);
    }

    #[test]
    fn narrowing_keeps_the_order_of_the_operands() {
        let v = narrow::<i32, i16>([1 | 2 << 32, 3], [5, 0], |x| x as i16);
        assert_eq!(i16::split(v), [1, 2, 3, 0, 5, 0, 0, 0]);
    }
}
