//! The hostile writer: whoever holds a file read-write writes what it likes into it, when it likes.
//!
//! Words are chosen to be nearly right, because what is plainly wrong is refused at the first check.

use std::time::{Duration, Instant};

use quintet_protocol::handshake::{FileId, Role};
use quintet_protocol::layout::{SegmentSet, regions};
use quintet_protocol::shm::ViewMut;
use quintet_protocol::sync::Ordering;

/// A small generator: the same scribbles from the same seed.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() >> 16) as usize % n
    }
}

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

/// Everything that one process may write, and nothing else.
pub struct Scribbler {
    regions: Vec<ViewMut>,
    random: Random,
}

impl Scribbler {
    /// The files of `writer` in a machine, except those that `spared` names.
    pub fn new(set: &SegmentSet, writer: Role, seed: u64, spared: &[FileId]) -> Self {
        let maps = set.maps(writer).expect("maps");
        let regions = regions()
            .into_iter()
            .filter(|r| r.file.writable_by(writer) && r.file != FileId::GuestRam && !spared.contains(&r.file))
            .map(|r| maps.view_mut(r.file).expect("writable").slice(r.offset, r.len))
            .collect();
        Self {
            regions,
            random: Random::new(seed),
        }
    }

    /// Writes one word somewhere.
    pub fn strike(&mut self) {
        let r = &mut self.random;
        let region = &self.regions[r.below(self.regions.len())];
        let words = region.len() / 4;
        // Headers as often as everything behind them, and first records more often than the last.
        let word = match r.next() % 8 {
            0..4 => r.below(words.min(16)),
            4 | 5 => r.below(words.min(256)),
            6 => r.below(words.min(16 << 10)),
            _ => r.below(words),
        };
        let now = region.load_u32(word * 4, Ordering::Relaxed);
        region.store_u32(word * 4, plausible(r, now), Ordering::Relaxed);
    }

    /// Lets every seqlock go that a strike left busy: only then are the contents looked at.
    pub fn unlock(&self) {
        for region in &self.regions {
            let now = region.load_u32(0, Ordering::Relaxed);
            region.store_u32(0, now & !1, Ordering::Relaxed);
        }
    }
}

/// A word that is likely to be nearly right where `current` stands.
fn plausible(r: &mut Random, current: u32) -> u32 {
    let n = r.next();
    let small = (n >> 8) as u32;
    match n % 12 {
        0 => small,
        1 => u32::MAX,
        2 => 0,
        3 => current.wrapping_add(4),
        4 => current.wrapping_sub(4),
        5 => current.wrapping_add(small % 256),
        6 => current.wrapping_add(1),
        7 => 1 << (small % 32),
        8 => (1u32 << (small % 32)).wrapping_sub(1),
        9 => small % 64,
        _ => current ^ 1 << (small % 32),
    }
}
