//! IRQ wires: how io-worker's interrupt lines reach the interrupt controllers in cpu-worker (S3.90–S3.94).
//!
//! A word per line and source process holds what the wire is now: bit 0 its level, bits 1–31 a count of rising
//! edges. Level inputs look at the level, edge inputs latch when the count moves, so nothing is lost however
//! late the reader looks, and nothing is doubled however often. A ring of raise and lower events was rejected:
//! a full ring would lose a level. In front of the words, a group word per 32 lines counts publications, so
//! that a vCPU whose exit word was set reads eight words and not 256.
//!
//! The words are derived from state that is committed before they are published; a restarted source computes
//! and publishes the same words again. When a source has failed for good, the reader
//! [withdraws](WireReader::withdraw) it: its levels read as low.
//!
//! Layout of a source's part: 8 group words (u32), padding to [`CACHE_LINE`], 256 wire words (u32).
//!
//! SYNC POINT `wire`: the raiser stores the wire, then adds to its group (release), then rings the exit word; the
//! reader clears the exit word, then reads the group (acquire), then the wires.

mod counts;

pub use counts::{LineCounts, Transition, WireWarning};

use crate::shm::{View, ViewMut};
use crate::sync::{CACHE_LINE, Ordering};
use crate::words::{ReadWords, WriteWords};

/// Number of lines (S3.90).
pub const LINES: usize = 256;
const GROUP: usize = 32;
const GROUPS: usize = LINES / GROUP;
/// Bytes of a source's part.
pub const WIRES_SIZE: usize = CACHE_LINE + LINES * 4;
/// Edge counts wrap here.
const EDGES: u32 = 1 << 31;

/// The state of a wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Wire {
    /// Whether the source holds the line high.
    pub high: bool,
    /// Rising edges since power-on, modulo 2^31.
    pub edges: u32,
}

impl Wire {
    const fn pack(self) -> u32 {
        (self.edges % EDGES) << 1 | self.high as u32
    }

    const fn unpack(word: u32) -> Self {
        Self {
            high: word & 1 != 0,
            edges: word >> 1,
        }
    }
}

/// The writing end: one source process.
#[derive(Debug)]
pub struct WireWriter<W = ViewMut> {
    words: W,
}

impl<W: WriteWords> WireWriter<W> {
    /// The source whose part starts `words`.
    pub fn new(words: W) -> Self {
        Self { words }
    }

    /// Publishes a wire; answers whether it differs from what was published. The caller rings the vCPU's exit word
    /// after the last one. Panics when `line` is not below [`LINES`].
    pub fn publish(&mut self, line: usize, wire: Wire) -> bool {
        assert!(line < LINES, "line {line}");
        let (at, word) = (CACHE_LINE + line * 4, wire.pack());
        if self.words.load_u32(at, Ordering::Relaxed) == word {
            return false;
        }
        self.words.store_u32(at, word, Ordering::Relaxed);
        let group = line / GROUP * 4;
        let count = self.words.load_u32(group, Ordering::Relaxed).wrapping_add(1);
        self.words.store_u32(group, count, Ordering::Release);
        true
    }
}

/// The wires of the source whose part is `words` as they stand, for somebody who only looks.
pub fn look(words: &impl ReadWords) -> impl Iterator<Item = Wire> {
    (0..LINES).map(|line| Wire::unpack(words.load_u32(CACHE_LINE + line * 4, Ordering::Relaxed)))
}

/// A change of a line as the reader of one source sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireChange {
    /// The line.
    pub line: usize,
    /// Whether the source holds it high now.
    pub high: bool,
    /// Rising edges since the last look. An edge may have come and gone: `high` says only how it stands.
    pub edges: u32,
}

/// The reading end, in cpu-worker: one per source process.
#[derive(Debug)]
pub struct WireReader<R = View> {
    words: R,
    groups: [u32; GROUPS],
    seen: [Wire; LINES],
    withdrawn: bool,
}

impl<R: ReadWords> WireReader<R> {
    /// A reader of the source whose part starts `words`, for a guest that starts: edges so far do not count,
    /// levels do (they are the first changes).
    pub fn new(words: R) -> Self {
        let mut seen = [Wire::default(); LINES];
        for (line, wire) in seen.iter_mut().enumerate() {
            wire.edges = Wire::unpack(words.load_u32(CACHE_LINE + line * 4, Ordering::Relaxed)).edges;
        }
        // Every group differs, so that the first look visits every line.
        let groups = std::array::from_fn(|g| words.load_u32(g * 4, Ordering::Relaxed).wrapping_sub(1));
        Self {
            words,
            groups,
            seen,
            withdrawn: false,
        }
    }

    /// Calls `each` for every line that changed since the last call, in ascending order. To be called after the exit
    /// word was cleared. Costs eight loads when nothing changed.
    pub fn changes(&mut self, mut each: impl FnMut(WireChange)) {
        if self.withdrawn {
            return;
        }
        for group in 0..GROUPS {
            let count = self.words.load_u32(group * 4, Ordering::Acquire);
            if count == self.groups[group] {
                continue;
            }
            self.groups[group] = count;
            for line in group * GROUP..(group + 1) * GROUP {
                let now = Wire::unpack(self.words.load_u32(CACHE_LINE + line * 4, Ordering::Relaxed));
                let before = std::mem::replace(&mut self.seen[line], now);
                if now != before {
                    each(WireChange {
                        line,
                        high: now.high,
                        edges: now.edges.wrapping_sub(before.edges) % EDGES,
                    });
                }
            }
        }
    }

    /// Level of `line` as last seen by [`Self::changes`].
    pub fn level(&self, line: usize) -> bool {
        self.seen[line].high
    }

    /// Whether any line is high, as last seen; a posted write must be drained before an EOI then.
    pub fn any_high(&self) -> bool {
        self.seen.iter().any(|w| w.high)
    }

    /// Drops every line that the source holds, because the source has failed for good; `each` is called for those.
    /// Further changes of the source are ignored.
    pub fn withdraw(&mut self, mut each: impl FnMut(WireChange)) {
        self.withdrawn = true;
        for (line, wire) in self.seen.iter_mut().enumerate() {
            if std::mem::take(&mut wire.high) {
                each(WireChange {
                    line,
                    high: false,
                    edges: 0,
                });
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::shm::Map;
    use std::sync::Arc;

    fn part() -> ViewMut {
        ViewMut::new(Arc::new(Map::anonymous(WIRES_SIZE as u64).unwrap()))
    }

    fn changes(r: &mut WireReader) -> Vec<WireChange> {
        let mut all = Vec::new();
        r.changes(|c| all.push(c));
        all
    }

    #[test]
    fn s3_90_a_wire_is_seen_with_its_level_and_its_edges() {
        let p = part();
        let mut w = WireWriter::new(p.clone());
        let mut r = WireReader::new(p.view().clone());
        assert_eq!(changes(&mut r), []);
        assert!(w.publish(4, Wire { high: true, edges: 1 }));
        assert!(w.publish(
            255,
            Wire {
                high: false,
                edges: 3
            }
        ));
        let expected = [
            WireChange {
                line: 4,
                high: true,
                edges: 1,
            },
            WireChange {
                line: 255,
                high: false,
                edges: 3,
            },
        ];
        assert_eq!(changes(&mut r), expected);
        assert_eq!(changes(&mut r), []);
        assert!(r.level(4) && r.any_high());
    }

    #[test]
    fn s3_92_pulses_between_two_looks_are_counted_and_not_lost() {
        let p = part();
        let mut w = WireWriter::new(p.clone());
        let mut r = WireReader::new(p.view().clone());
        for edges in 1..=5 {
            w.publish(1, Wire { high: true, edges });
            w.publish(1, Wire { high: false, edges });
        }
        assert_eq!(
            changes(&mut r),
            [WireChange {
                line: 1,
                high: false,
                edges: 5
            }]
        );
    }

    #[test]
    fn a_successor_that_publishes_the_same_words_changes_nothing() {
        let p = part();
        let mut r = WireReader::new(p.view().clone());
        WireWriter::new(p.clone()).publish(9, Wire { high: true, edges: 7 });
        assert_eq!(changes(&mut r).len(), 1);
        assert!(!WireWriter::new(p).publish(9, Wire { high: true, edges: 7 }));
        assert_eq!(changes(&mut r), []);
    }

    #[test]
    fn edge_counts_wrap() {
        let p = part();
        let mut w = WireWriter::new(p.clone());
        w.publish(
            2,
            Wire {
                high: false,
                edges: EDGES - 1,
            },
        );
        let mut r = WireReader::new(p.view().clone());
        w.publish(
            2,
            Wire {
                high: true,
                edges: EDGES + 1,
            },
        );
        assert_eq!(
            changes(&mut r),
            [WireChange {
                line: 2,
                high: true,
                edges: 2
            }]
        );
    }

    #[test]
    fn a_new_reader_sees_levels_but_no_old_edges() {
        let p = part();
        WireWriter::new(p.clone()).publish(
            11,
            Wire {
                high: true,
                edges: 40,
            },
        );
        let mut r = WireReader::new(p.view().clone());
        assert_eq!(
            changes(&mut r),
            [WireChange {
                line: 11,
                high: true,
                edges: 0
            }]
        );
    }

    #[test]
    fn the_wires_of_a_source_that_failed_are_withdrawn() {
        let p = part();
        let mut w = WireWriter::new(p.clone());
        let mut r = WireReader::new(p.view().clone());
        w.publish(5, Wire { high: true, edges: 1 });
        w.publish(
            6,
            Wire {
                high: false,
                edges: 1,
            },
        );
        changes(&mut r);
        let mut dropped = Vec::new();
        r.withdraw(|c| dropped.push(c));
        assert_eq!(
            dropped,
            [WireChange {
                line: 5,
                high: false,
                edges: 0
            }]
        );
        w.publish(5, Wire { high: true, edges: 2 });
        assert_eq!(changes(&mut r), []);
        assert!(!r.any_high());
    }
}
