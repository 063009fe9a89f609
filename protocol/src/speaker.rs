//! The line to the PC speaker: how its level goes on, told by cpu-worker whenever a guest changes that.
//!
//! The 8254 and port 61h are beside the vCPU, so this is in a file of cpu-worker's, and audio-worker makes sound of it. A
//! [`Wave`] says how the line goes on from a pulse of the 8254's clock on, and is whole by itself: it may lie ahead of now (the end of a
//! one-shot), and revokes what was told before it for the same pulses and later ones.
//!
//! The last [`SLOTS`] waves lie in a journal: a seqlock each, and a count of all that were written. The writer waits for nobody and
//! overwrites the oldest; a reader that falls behind misses some and goes on with the newest. A ring that keeps
//! the oldest, as the others do, was rejected: when nobody reads it the end of a tone would not fit, and the tone would last.
//! Sending every edge was rejected too: a tone is two words, however long it lasts.
//!
//! SYNC POINT `speaker`: the writer's release store of the count, after the slot, pairs with the reader's acquire load of it.

use crate::seqlock::{ReadLimit, SEQ_HEADER, SeqReader, SeqWriter, seq_size};
use crate::shm::{View, ViewMut};
use crate::sync::{CACHE_LINE, Ordering};

/// CLK of the 8254, in Hz (Intel 8254 data sheet; the PC's crystal of 14.31818 MHz divided by twelve).
pub const PIT_HZ: u64 = 1_193_182;
/// Waves that the journal keeps: at two a sample of 22 kHz, a twentieth of a second.
pub const SLOTS: usize = 2048;
const SLOT: usize = seq_size(RECORD);
const RECORD: usize = 32;
/// Bytes of the journal: the count in a line of its own, then the slots.
pub const SPEAKER_SIZE: usize = CACHE_LINE + SLOTS * SLOT;
/// Waves that say all about a line at any time: one-shots take the most.
pub const WAVES_MAX: usize = 3;
/// How a line goes on, each wave from where it begins; those that exist come first.
pub type Waves = [Option<Wave>; WAVES_MAX];

/// How the line goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wave {
    /// From this pulse of the 8254's clock ([`PIT_HZ`], since VM time zero) on.
    pub from: u64,
    /// Pulses of a period that are over then.
    pub phase: u32,
    /// Pulses for which the line is high at the beginning of each period. Without a period: whether it is high, 0 or not.
    pub high: u32,
    /// Pulses of a period; 0 for a line that rests.
    pub period: u32,
}

impl Wave {
    /// A line that rests from `from` on.
    pub const fn rest(from: u64, high: bool) -> Self {
        Self {
            from,
            phase: 0,
            high: high as u32,
            period: 0,
        }
    }

    /// The same from pulse `from` on, which is no earlier.
    pub fn going_on(&self, from: u64) -> Self {
        let passed = from.saturating_sub(self.from).saturating_add(self.phase.into());
        let phase = passed.checked_rem(self.period.into()).unwrap_or(0) as u32;
        Self { from, phase, ..*self }
    }

    /// The level at pulse `t`, which is no earlier than [`Self::from`].
    pub fn level(&self, t: u64) -> bool {
        if self.period == 0 {
            self.high != 0
        } else {
            self.going_on(t).phase < self.high
        }
    }

    /// Whether a change to it from `before` is heard: with what is not, audio-worker may stay asleep.
    pub fn is_heard_after(&self, before: &Self) -> bool {
        self.is_tone() || before.is_tone() || self.level(self.from) != before.level(self.from)
    }

    /// Whether it moves for as long as nothing else is told.
    pub fn is_tone(&self) -> bool {
        self.high != 0 && self.high < self.period
    }
}

/// Where a wave lies in the journal.
const fn place(number: u64) -> usize {
    CACHE_LINE + number as usize % SLOTS * SLOT
}

/// cpu-worker's end.
#[derive(Debug)]
pub struct SpeakerWriter {
    words: ViewMut,
    written: u64,
}

impl SpeakerWriter {
    /// The journal that starts `words`; goes on behind what a predecessor has written.
    pub fn new(words: ViewMut) -> Self {
        Self {
            written: words.load_u64(0, Ordering::Relaxed),
            words,
        }
    }

    /// Tells how the line goes on.
    pub fn push(&mut self, wave: Wave) {
        let number = self.written;
        SeqWriter::new(self.words.slice(place(number), SLOT)).write_with(|w| {
            let pair = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
            let words = [
                number,
                wave.from,
                pair(0, wave.phase),
                pair(wave.high, wave.period),
            ];
            for (n, word) in words.into_iter().enumerate() {
                w.store_u64(SEQ_HEADER + n * 8, word, Ordering::Relaxed);
            }
        });
        self.written = number.wrapping_add(1);
        self.words.store_u64(0, self.written, Ordering::Release);
    }
}

/// audio-worker's end.
#[derive(Debug)]
pub struct SpeakerReader {
    words: View,
    next: u64,
    missed: u64,
}

/// The writer is never asleep within a slot, but may have been killed there.
const LIMIT: ReadLimit = ReadLimit {
    tries: 64,
    nanos: 100_000,
};

impl SpeakerReader {
    /// The journal that starts `words`, from the last waves on, which say how the line is now.
    pub fn new(words: View) -> Self {
        let written = words.load_u64(0, Ordering::Acquire);
        Self {
            next: written.saturating_sub(WAVES_MAX as u64),
            words,
            missed: 0,
        }
    }

    /// Whether there is something to take: one load.
    pub fn has_news(&self) -> bool {
        self.words.load_u64(0, Ordering::Acquire) != self.next
    }

    /// Waves that were overwritten before they were taken.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// The next wave. Whatever the writer does to its words meanwhile, a call looks at no more than [`SLOTS`] of them.
    pub fn take(&mut self) -> Option<Wave> {
        let written = self.words.load_u64(0, Ordering::Acquire);
        let behind = written.wrapping_sub(self.next);
        if behind > SLOTS as u64 {
            // Half of them, so that the writer does not overwrite these, too. A count that went back is a lie or a new file.
            let kept = written.min(SLOTS as u64 / 2);
            self.missed = self.missed.wrapping_add(behind.wrapping_sub(kept));
            self.next = written - kept;
        }
        while self.next != written {
            let number = self.next;
            self.next = number.wrapping_add(1);
            let slot = SeqReader::with_limit(self.words.slice(place(number), SLOT), LIMIT);
            let taken = slot
                .read_with(|w| core::array::from_fn(|n| w.load_u64(SEQ_HEADER + n * 8, Ordering::Relaxed)));
            if let Ok((_, [found, from, phase, shape])) = taken
                && found == number
            {
                return Some(Wave {
                    from,
                    phase: phase as u32,
                    high: (shape >> 32) as u32,
                    period: shape as u32,
                });
            }
            // Overwritten meanwhile, or never whole.
            self.missed = self.missed.wrapping_add(1);
        }
        None
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::shm::Map;
    use std::sync::Arc;

    fn journal() -> (ViewMut, SpeakerWriter) {
        let words = ViewMut::new(Arc::new(
            Map::anonymous(SPEAKER_SIZE.next_multiple_of(4096) as u64).unwrap(),
        ));
        (words.clone(), SpeakerWriter::new(words))
    }

    fn all(reader: &mut SpeakerReader) -> Vec<u64> {
        std::iter::from_fn(|| reader.take()).map(|w| w.from).collect()
    }

    #[test]
    fn waves_are_taken_in_order_and_whole() {
        let (words, mut writer) = journal();
        let mut reader = SpeakerReader::new(words.view().clone());
        assert!(!reader.has_news());
        let wave = Wave {
            from: 1 << 40,
            phase: 7,
            high: 0x8000_0001,
            period: u32::MAX,
        };
        writer.push(wave);
        writer.push(Wave::rest(9, true));
        assert!(reader.has_news());
        assert_eq!(reader.take(), Some(wave));
        assert_eq!(reader.take(), Some(Wave::rest(9, true)));
        assert_eq!((reader.take(), reader.has_news()), (None, false));
    }

    #[test]
    fn a_reader_that_falls_behind_goes_on_with_the_newest() {
        let (words, mut writer) = journal();
        let mut reader = SpeakerReader::new(words.view().clone());
        let count = 3 * SLOTS as u64 + 5;
        (0..count).for_each(|n| writer.push(Wave::rest(n, false)));
        let taken = all(&mut reader);
        assert_eq!(taken, (count - SLOTS as u64 / 2..count).collect::<Vec<_>>());
        assert_eq!(reader.missed() + taken.len() as u64, count);
    }

    #[test]
    fn successors_go_on() {
        let (words, mut writer) = journal();
        (0..100).for_each(|n| writer.push(Wave::rest(n, false)));
        // A killed reader's knows how the line is.
        let mut reader = SpeakerReader::new(words.view().clone());
        assert_eq!(all(&mut reader), [97, 98, 99]);
        // A killed writer's comes behind it, and repairs a slot that was left busy.
        words.store_u32(CACHE_LINE + 100 * SLOT, 1, Ordering::Relaxed);
        let mut writer = SpeakerWriter::new(words);
        writer.push(Wave::rest(100, true));
        assert_eq!(all(&mut reader), [100]);
    }

    #[test]
    fn a_lying_writer_costs_a_reader_no_more_than_the_journal() {
        let (words, mut writer) = journal();
        writer.push(Wave::rest(1, true));
        let mut reader = SpeakerReader::new(words.view().clone());
        for lie in [u64::MAX, 1 << 63, 0, 5, u64::MAX - 1, 1] {
            words.store_u64(0, lie, Ordering::Relaxed);
            let taken = all(&mut reader);
            assert!(taken.len() <= 1, "{taken:?}");
            assert!(!reader.has_news());
        }
    }

    #[test]
    fn levels_are_those_of_the_wave() {
        let tone = Wave {
            from: 98,
            phase: 5,
            high: 2,
            period: 5,
        };
        let levels: String = (98..110).map(|t| if tone.level(t) { '#' } else { '_' }).collect();
        assert_eq!(levels, "##___##___##");
        assert!(tone.is_tone() && !Wave::rest(0, true).is_tone());
        assert!(Wave::rest(0, true).level(5) && !Wave::rest(0, false).level(5));
        let (low, high) = (Wave::rest(200, false), Wave::rest(200, true));
        assert!(tone.is_heard_after(&low) && low.is_heard_after(&tone) && high.is_heard_after(&low));
        assert!(!low.is_heard_after(&Wave::rest(100, false)));
        // Always high, and never.
        assert!(Wave { high: 5, ..tone }.level(101) && !Wave { high: 0, ..tone }.level(98));
        let later = tone.going_on(1_000_000);
        assert!((1_000_000..1_000_020).all(|t| later.level(t) == tone.level(t)));
    }
}
