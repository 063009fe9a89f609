//! The 128-bit register as bits.
//!
//! Two quadwords rather than a `u128`, which compilers keep in two general registers and have to put together
//! for every vector instruction.

/// A 128-bit register.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
#[repr(C, align(16))]
pub struct Xmm {
    /// The low and the high quadword.
    pub quads: [u64; 2],
}

impl Xmm {
    /// All zeros.
    pub const ZERO: Self = Self::new(0, 0);

    /// The register with these quadwords.
    pub const fn new(low: u64, high: u64) -> Self {
        Self { quads: [low, high] }
    }

    /// The register as a number, least significant byte first in memory.
    pub const fn to_u128(self) -> u128 {
        self.quads[0] as u128 | (self.quads[1] as u128) << 64
    }

    /// The register that holds this number.
    pub const fn from_u128(value: u128) -> Self {
        Self::new(value as u64, (value >> 64) as u64)
    }

    /// The sixteen bytes in memory order.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.to_u128().to_le_bytes()
    }

    /// The register that was stored as these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self::from_u128(u128::from_le_bytes(bytes))
    }

    /// Doubleword `n`, 0 to 3.
    pub const fn dword(self, n: usize) -> u32 {
        (self.quads[n >> 1 & 1] >> (32 * (n & 1))) as u32
    }

    /// Replaces doubleword `n`, 0 to 3.
    pub const fn set_dword(&mut self, n: usize, value: u32) {
        let shift = 32 * (n & 1);
        let quad = &mut self.quads[n >> 1 & 1];
        *quad = *quad & !(0xffff_ffff << shift) | (value as u64) << shift;
    }
}

impl core::fmt::Debug for Xmm {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Xmm({:016x}_{:016x})", self.quads[1], self.quads[0])
    }
}
