//! What a disk may hold whose process is killed and whose host loses power: for the tests of formats that promise something then.

use super::{Image, SECTOR};

/// What each sector may be filled with: what was flushed, then what was written since, in order.
pub(super) struct Model(pub(super) Vec<Vec<u8>>);

impl Model {
    /// `len` sectors from sector `at` on were written.
    pub(super) fn set(&mut self, at: u64, len: u64, value: u8) {
        for sector in &mut self.0[at as usize..(at + len) as usize] {
            sector.push(value);
        }
    }

    /// What was seen lasts.
    pub(super) fn settle(&mut self, seen: &[u8]) {
        for (sector, seen) in self.0.iter_mut().zip(seen) {
            *sector = vec![*seen];
        }
    }

    /// What was written last.
    pub(super) fn last(&self) -> Vec<u8> {
        self.0.iter().map(|s| *s.last().expect("one")).collect()
    }
}

/// The value that each sector is filled with; sectors that hold two are torn.
pub(super) fn contents(image: &mut dyn Image) -> Vec<u8> {
    let mut bytes = vec![0; image.len() as usize];
    image.read(0, &mut bytes).expect("read");
    let sectors = bytes.chunks_exact(SECTOR as usize);
    let value = |s: &[u8]| {
        assert!(s.iter().all(|b| *b == s[0]), "torn within a sector");
        s[0]
    };
    sectors.map(value).collect()
}
