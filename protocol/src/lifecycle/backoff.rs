//! Delays that double, with jitter from a seed.

use core::time::Duration;

/// A source of numbers for jitter: repeatable from its seed, which a fault run reports.
#[derive(Clone, Debug)]
pub struct Jitter(u64);

impl Jitter {
    /// From a seed; every seed is as good as any other.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number (SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators").
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }
}

/// Delays from a first to a longest one, doubling, each varied by ±20 % (S3.101).
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    next: Duration,
    jitter: Jitter,
}

impl Backoff {
    /// A backoff that starts at `first`.
    pub fn new(first: Duration, max: Duration, jitter: Jitter) -> Self {
        Self {
            first,
            max,
            next: first,
            jitter,
        }
    }

    /// The delay before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.next;
        self.next = (delay * 2).min(self.max);
        // 80 % to 120 % in steps of a thousandth.
        let thousandths = 800 + (self.jitter.next_u64() % 401) as u32;
        delay * thousandths / 1000
    }

    /// The next delay is the first one again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff(seed: u64) -> Backoff {
        Backoff::new(
            Duration::from_millis(250),
            Duration::from_secs(10),
            Jitter::new(seed),
        )
    }

    #[test]
    fn s3_101_delays_double_up_to_the_longest_within_a_fifth() {
        let mut b = backoff(7);
        for nominal in [250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000_u64] {
            let d = b.next_delay().as_millis() as u64;
            assert!(
                (nominal * 8 / 10..=nominal * 12 / 10).contains(&d),
                "{d} for {nominal}"
            );
        }
        b.reset();
        assert!(b.next_delay() <= Duration::from_millis(300));
    }

    #[test]
    fn delays_repeat_with_their_seed_and_differ_between_seeds() {
        let take = |seed| {
            let mut b = backoff(seed);
            (0..8).map(|_| b.next_delay()).collect::<Vec<_>>()
        };
        assert_eq!(take(3), take(3));
        assert_ne!(take(3), take(4));
    }
}
