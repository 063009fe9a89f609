//! The published state of a linear memory (S2.30).
//!
//! A seqlock in cpu-worker's control file, so that nobody sees a new generation with an old size. The generation
//! also stands as a plain word inside the record: it is what a view compares, and what a waiter sleeps on. It never
//! runs backwards within a machine, whichever memory or process it speaks of.

use crate::seqlock::{SEQ_HEADER, SeqError, SeqReader, SeqWriter, seq_size};
use crate::shm::{View, ViewMut, Word};

/// Bytes of the record.
const RECORD: usize = 32;
/// Bytes of the region.
pub const WORDS_LEN: usize = seq_size(RECORD);
/// Offset of the generation in the region; a futex word.
const GENERATION: usize = SEQ_HEADER;

/// Whether there is a memory. "No memory" and "a memory of no pages" are different things (S2.23).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryState {
    /// None has been made.
    Absent,
    /// It can be looked at.
    Live,
    /// It has been taken down (S2.7, S2.34).
    Dead,
}

/// What is published of a linear memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryWords {
    /// Plus one for every successful grow, also by nothing, and for the end of a memory (S2.30). A memory's own: what
    /// another one of the module does leaves it as it is (S2.25).
    pub generation: u32,
    /// Size in pages of 64 KiB, 0 to 65 536.
    pub pages: u32,
    /// Size that it can grow to, in pages.
    pub max_pages: u32,
    /// Whether there is one.
    pub state: MemoryState,
    /// Which process of the cpu-worker has it.
    pub owner: u32,
    /// Which memory it is, from 1; never repeated within a machine.
    pub id: u32,
}

impl MemoryWords {
    /// Size in bytes; 65 536 pages do not fit 32 bits (S2.11).
    pub fn bytes(&self) -> u64 {
        u64::from(self.pages) * crate::ram::WASM_PAGE
    }

    fn encode(&self) -> [u8; RECORD] {
        let mut record = [0; RECORD];
        let words = [
            self.generation,
            self.pages,
            self.max_pages,
            self.state as u32,
            self.owner,
            self.id,
        ];
        for (place, word) in record.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        record
    }

    /// A lying writer gets what he wrote, within what the types can hold.
    fn decode(record: &[u8; RECORD]) -> Self {
        let word = |n: usize| u32::from_le_bytes(record[n * 4..n * 4 + 4].try_into().expect("four bytes"));
        Self {
            generation: word(0),
            pages: word(1).min(65_536),
            max_pages: word(2).min(65_536),
            state: match word(3) {
                1 => MemoryState::Live,
                2 => MemoryState::Dead,
                _ => MemoryState::Absent,
            },
            owner: word(4),
            id: word(5),
        }
    }
}

/// The writing end, in cpu-worker.
#[derive(Debug)]
pub struct MemoryWriter {
    lock: SeqWriter<ViewMut>,
    region: ViewMut,
    /// Which of a module's memories this is for, from 0.
    index: u32,
    now: MemoryWords,
}

impl MemoryWriter {
    /// The writer for a module's memory number `index` and process `owner` of the cpu-worker. What a predecessor left
    /// alive is declared dead.
    pub fn attach(region: ViewMut, index: usize, owner: u32) -> Self {
        let mut record = [0; RECORD];
        region.read_bytes(SEQ_HEADER, &mut record);
        let mut this = Self {
            lock: SeqWriter::new(region.clone()),
            region,
            index: index as u32,
            now: MemoryWords::decode(&record),
        };
        this.now.owner = owner;
        match this.now.state {
            MemoryState::Live => this.end(),
            _ => this.publish(),
        }
        this
    }

    /// What is published.
    pub fn now(&self) -> MemoryWords {
        self.now
    }

    /// A memory has been made.
    pub fn begin(&mut self, pages: u32, max_pages: u32) {
        self.now.state = MemoryState::Live;
        self.now.id = match self.now.id {
            0 => self.index + 1,
            last => last.wrapping_add(super::MEMORIES as u32),
        };
        self.now.pages = pages;
        self.now.max_pages = max_pages;
        self.publish();
    }

    /// The memory has grown, maybe by nothing: every view detaches (S2.3, S2.20).
    pub fn grown(&mut self, pages: u32) {
        self.now.pages = pages;
        self.now.generation = self.now.generation.wrapping_add(1);
        self.publish();
    }

    /// The memory is about to go away: every view detaches first (S2.7).
    pub fn end(&mut self) {
        self.now.state = MemoryState::Dead;
        self.now.generation = self.now.generation.wrapping_add(1);
        self.publish();
    }

    fn publish(&mut self) {
        self.lock.write(&self.now.encode());
        crate::doorbell::wake_word(self.region.view(), GENERATION);
    }
}

/// The reading end, in any process.
#[derive(Clone, Debug)]
pub struct MemoryReader {
    lock: SeqReader<View>,
    region: View,
    generation: Word,
}

impl MemoryReader {
    /// A reader of the region.
    pub fn new(region: View) -> Self {
        Self {
            lock: SeqReader::new(region.clone()),
            generation: region.word(GENERATION),
            region,
        }
    }

    /// Everything, of one publication.
    ///
    /// # Errors
    /// [`SeqError::Stuck`] when the writer died while it wrote.
    pub fn read(&self) -> Result<MemoryWords, SeqError> {
        let mut record = [0; RECORD];
        self.lock.read(0, &mut record)?;
        Ok(MemoryWords::decode(&record))
    }

    /// The generation alone.
    pub fn generation(&self) -> &Word {
        &self.generation
    }

    /// Sleeps while the generation is `known`, at most `nanos` nanoseconds. Every return means: look again.
    pub fn sleep(&self, known: u32, nanos: u64) {
        crate::doorbell::wait_word(&self.region, GENERATION, known, nanos);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::shm::Map;

    fn region() -> ViewMut {
        ViewMut::new(Arc::new(Map::anonymous(4096).expect("map"))).slice(0, WORDS_LEN)
    }

    #[test]
    fn s2_11_a_full_memory_is_a_true_byte_count() {
        let region = region();
        let mut w = MemoryWriter::attach(region.clone(), 0, 1);
        w.begin(65_536, 65_536);
        let words = MemoryReader::new(region.view().clone()).read().expect("read");
        assert_eq!(words.bytes(), 1 << 32);
    }

    #[test]
    fn s2_23_no_memory_differs_from_one_without_pages() {
        let region = region();
        let r = MemoryReader::new(region.view().clone());
        let mut w = MemoryWriter::attach(region, 0, 1);
        assert_eq!(r.read().expect("read").state, MemoryState::Absent);
        w.begin(0, 10);
        let words = r.read().expect("read");
        assert_eq!((words.state, words.pages, words.id), (MemoryState::Live, 0, 1));
    }

    #[test]
    fn s2_34_a_successor_declares_what_it_finds_alive_dead() {
        let region = region();
        let r = MemoryReader::new(region.view().clone());
        let mut w = MemoryWriter::attach(region.clone(), 0, 1);
        w.begin(3, 10);
        w.grown(4);
        let before = r.read().expect("read");
        let mut w = MemoryWriter::attach(region, 0, 2);
        let after = r.read().expect("read");
        assert_eq!(after.state, MemoryState::Dead);
        assert_eq!(after.generation, before.generation + 1);
        w.begin(1, 1);
        assert_ne!(r.read().expect("read").id, before.id);
    }

    #[test]
    fn s2_30_a_new_generation_is_never_seen_with_an_old_size() {
        let region = region();
        let r = MemoryReader::new(region.view().clone());
        let mut w = MemoryWriter::attach(region, 0, 1);
        w.begin(0, 65_536);
        let writer = std::thread::spawn(move || {
            for n in 1..=20_000 {
                w.grown(n);
            }
        });
        let mut last = 0;
        while last < 20_000 {
            let words = r.read().expect("read");
            assert_eq!(words.generation, words.pages);
            assert!(words.generation >= last);
            last = words.generation;
        }
        writer.join().expect("writer");
    }
}
