//! Rounding modes, which the x87 control word, MXCSR and immediates encode alike (SDM vol. 1 table 4-8).

/// A rounding mode, with its encoding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rounding {
    Nearest,
    Down,
    Up,
    Zero,
}

impl Rounding {
    /// From the low two bits.
    pub(crate) fn from_bits(bits: u32) -> Self {
        [Self::Nearest, Self::Down, Self::Up, Self::Zero][(bits & 3) as usize]
    }

    /// Whether the magnitude goes up, given the last kept bit, the first lost one and whether any below is set.
    pub(crate) fn increments(self, sign: bool, odd: bool, half: bool, sticky: bool) -> bool {
        match self {
            Self::Nearest => half && (sticky || odd),
            Self::Down => sign && (half || sticky),
            Self::Up => !sign && (half || sticky),
            Self::Zero => false,
        }
    }
}
