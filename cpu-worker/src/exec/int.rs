//! Operand widths as types, so that one generic handler serves all of them.

/// An unsigned integer that an instruction can operate on.
pub trait Int: Copy + Eq + Ord + Default + core::fmt::Debug + core::fmt::LowerHex + 'static {
    /// Width in bits.
    const BITS: u32;
    /// Width in bytes.
    const BYTES: u64 = Self::BITS as u64 / 8;
    /// All ones.
    const MAX: Self;
    /// The low bits of `v`.
    fn trunc(v: u64) -> Self;
    /// Zero-extended.
    fn to_u64(self) -> u64;
    /// Sign-extended.
    fn sext(self) -> u64;
    /// Wrapping sum.
    fn add(self, b: Self) -> Self {
        Self::trunc(self.to_u64().wrapping_add(b.to_u64()))
    }
    /// Wrapping difference.
    fn sub(self, b: Self) -> Self {
        Self::trunc(self.to_u64().wrapping_sub(b.to_u64()))
    }
    /// The most significant bit.
    fn msb(self) -> bool {
        self.sext() >> 63 != 0
    }
}

macro_rules! int {
    ($($u:ty, $i:ty);*) => {$(
        impl Int for $u {
            const BITS: u32 = <$u>::BITS;
            const MAX: Self = <$u>::MAX;
            #[inline(always)]
            fn trunc(v: u64) -> Self {
                v as Self
            }
            #[inline(always)]
            fn to_u64(self) -> u64 {
                self as u64
            }
            #[inline(always)]
            fn sext(self) -> u64 {
                self as $i as i64 as u64
            }
        }
    )*};
}
int!(u8, i8; u16, i16; u32, i32; u64, i64);
