//! The 80-bit extended-precision number as the x87 stores it.
//!
//! Kept as bits. A wrapper over a host type was rejected: Rust has none, and signalling NaNs, unnormals and
//! pseudo-denormals must pass through unchanged.

/// A double extended-precision number (Intel SDM volume 1, 4.2.2), any of the 2^80 patterns.
///
/// The first ten bytes are the memory format of FLD m80 and FSTP m80; six bytes of padding follow, as in a
/// register slot of the FXSAVE image.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct F80 {
    /// The significand with its explicit integer bit (bit 63). MMX registers are an alias of this field.
    pub mantissa: u64,
    /// The sign in bit 15 and the biased exponent in bits 14 to 0.
    pub sign_exponent: u16,
}

impl F80 {
    /// Positive zero.
    pub const ZERO: Self = Self::new(0, 0);
    /// One.
    pub const ONE: Self = Self::new(0x3fff, 1 << 63);
    /// The QNaN floating-point indefinite, the masked response to an invalid operation.
    pub const INDEFINITE: Self = Self::new(0xffff, 0xc000_0000_0000_0000);

    /// The number with these two fields.
    pub const fn new(sign_exponent: u16, mantissa: u64) -> Self {
        Self {
            mantissa,
            sign_exponent,
        }
    }

    /// The number in the ten bytes of its memory format.
    pub fn from_bytes(bytes: &[u8; 10]) -> Self {
        let mut mantissa = [0; 8];
        mantissa.copy_from_slice(&bytes[..8]);
        Self::new(
            u16::from_le_bytes([bytes[8], bytes[9]]),
            u64::from_le_bytes(mantissa),
        )
    }

    /// The ten bytes of the memory format.
    pub fn to_bytes(self) -> [u8; 10] {
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&self.mantissa.to_le_bytes());
        bytes[8..].copy_from_slice(&self.sign_exponent.to_le_bytes());
        bytes
    }

    /// The biased exponent, 0 to 7FFFh.
    pub const fn exponent(self) -> u16 {
        self.sign_exponent & 0x7fff
    }

    /// Whether the sign bit is set (of zeros and NaNs too).
    pub const fn is_negative(self) -> bool {
        self.sign_exponent & 0x8000 != 0
    }

    /// FABS: the sign bit cleared, nothing else looked at.
    #[must_use]
    pub const fn abs(self) -> Self {
        Self::new(self.sign_exponent & 0x7fff, self.mantissa)
    }

    /// FCHS: the sign bit inverted, nothing else looked at.
    #[must_use]
    pub const fn negate(self) -> Self {
        Self::new(self.sign_exponent ^ 0x8000, self.mantissa)
    }

    /// What FXAM says of the number (SDM volume 2, FXAM).
    pub const fn class(self) -> Class {
        match (self.exponent(), self.mantissa) {
            (0, 0) => Class::Zero,
            (0, _) => Class::Denormal,
            (_, m) if m >> 63 == 0 => Class::Unsupported,
            (0x7fff, 0x8000_0000_0000_0000) => Class::Infinity,
            (0x7fff, _) => Class::Nan,
            _ => Class::Normal,
        }
    }
}

impl core::fmt::Debug for F80 {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "F80({:04x}.{:016x})", self.sign_exponent, self.mantissa)
    }
}

/// The classes of FXAM, an empty register aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A pattern that the 387 and later do not support: an unnormal, pseudo-infinity or pseudo-NaN.
    Unsupported,
    /// A quiet or signalling NaN.
    Nan,
    /// A finite number with the integer bit set and an exponent other than zero.
    Normal,
    /// An infinity.
    Infinity,
    /// A zero.
    Zero,
    /// A denormal or pseudo-denormal.
    Denormal,
}
