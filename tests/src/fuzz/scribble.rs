//! The hostile writer: whoever holds a file read-write writes what it likes into it, when it likes.
//!
//! Words are chosen to be nearly right, because what is plainly wrong is refused at the first check.

use quintet_protocol::handshake::{FileId, Role};
use quintet_protocol::layout::{SegmentSet, regions};
use quintet_protocol::shm::ViewMut;
use quintet_protocol::sync::Ordering;

/// Everything that one process may write, and nothing else.
#[derive(Debug)]
pub struct Scribbler {
    regions: Vec<ViewMut>,
}

impl Scribbler {
    /// The files of `writer` in a machine, except those that `spared` names.
    ///
    /// # Panics
    /// When the host has no memory or descriptor left.
    pub fn new(set: &SegmentSet, writer: Role, spared: &[FileId]) -> Self {
        let maps = set.maps(writer).expect("maps");
        let regions = regions()
            .into_iter()
            .filter(|r| r.file.writable_by(writer) && r.file != FileId::GuestRam && !spared.contains(&r.file))
            .map(|r| maps.view_mut(r.file).expect("writable").slice(r.offset, r.len))
            .collect();
        Self { regions }
    }

    /// Writes one word somewhere that `next` chooses: 64-bit numbers, of which every bit counts.
    pub fn strike(&self, mut next: impl FnMut() -> u64) {
        let mut below = |n: usize| (next() >> 16) as usize % n;
        let region = &self.regions[below(self.regions.len())];
        let words = region.len() / 4;
        // Headers as often as everything behind them, and first records more often than the last.
        let word = match below(8) {
            0..4 => below(words.min(16)),
            4 | 5 => below(words.min(256)),
            6 => below(words.min(16 << 10)),
            _ => below(words),
        };
        let now = region.load_u32(word * 4, Ordering::Relaxed);
        region.store_u32(word * 4, plausible(next(), now), Ordering::Relaxed);
    }

    /// Lets every seqlock go that a strike left busy: only then are the contents looked at.
    pub fn unlock(&self) {
        for region in &self.regions {
            let now = region.load_u32(0, Ordering::Relaxed);
            region.store_u32(0, now & !1, Ordering::Relaxed);
        }
    }
}

/// A word that is likely to be nearly right where `current` stands, of 64 bits.
fn plausible(n: u64, current: u32) -> u32 {
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
