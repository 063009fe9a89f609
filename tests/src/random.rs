//! One small generator for every test that draws: xorshift64* (Vigna, 2016). The same numbers from the same seed, from version to version.

/// The generator; its state is the seed, which is not 0.
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    /// The generator for a seed that somebody chose, 0 included.
    pub fn seeded(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// The next number, below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        (self.draw() >> 33) % n
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    /// Heads or tails.
    pub fn flip(&mut self) -> bool {
        self.draw() >> 40 & 1 != 0
    }
}
