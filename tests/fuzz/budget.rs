//! How long the seeded targets run, and from where.

use std::time::{Duration, Instant};

/// How long a target runs and from which seed: seconds and always the same in a usual run, minutes and always
/// another with `--long`. The seed is printed; `QUINTET_FUZZ_SEED` gives it back.
pub struct Budget {
    pub seed: u64,
    until: Instant,
}

impl Budget {
    pub fn new(target: &str, short: Duration) -> Self {
        let long = std::env::var_os("QUINTET_LONG").is_some();
        let given = std::env::var("QUINTET_FUZZ_SEED")
            .ok()
            .map(|s| s.parse().expect("a number"));
        let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let seed = given.unwrap_or(if long {
            clock.map_or(1, |d| d.as_nanos() as u64)
        } else {
            1
        });
        println!("{target}: QUINTET_FUZZ_SEED={seed}");
        let length = if long { short * 60 } else { short };
        Self {
            seed,
            until: Instant::now() + length,
        }
    }

    pub fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }
}
