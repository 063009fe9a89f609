//! What a vCPU is doing right now, for whoever samples it.
//!
//! One word names an *activity*, and each activity has a line with its name and how often it was begun. cpu-worker stores the
//! word whenever it turns to something else; nothing more happens in the guest's process. Another process reads the word a
//! thousand times a second and so learns where the time goes, of any machine, at any moment, without stopping it. A
//! clock read at each turn was rejected (as dear as much of what would be measured), and so was a sampler inside cpu-worker
//! (it would need a thread, a file and a reason to be confined less).
//!
//! The names come with the region, so a reader needs no decoder of instructions. A reader believes none of them: they are
//! cut to printable text, and counts only ever become numbers on a page.

use crate::shm::{View, ViewMut};
use crate::sync::Ordering;

/// Lines of a profile, the first of them reserved for [`Activity`].
pub const LINES: usize = 512;
/// Bytes of a line: a count of 64 bits and a name.
const LINE: usize = 64;
/// Bytes of a name, padded with zeros.
const NAME: usize = LINE - NAMED_AT;
const NAMED_AT: usize = 8;
/// Length of the region, in bytes: the word on a line of its own, then the lines.
pub const PROFILE_SIZE: usize = 128 + LINES * LINE;

fn at(line: u16) -> usize {
    128 + usize::from(line).min(LINES - 1) * LINE
}

/// What every vCPU does, whatever its guest: the lines whose numbers are fixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Activity {
    /// Nothing has been said yet.
    Unknown,
    /// Sleeping in HLT, or while the machine is paused.
    Idle,
    /// Executing translated code.
    Translated,
    /// Executing blocks by the interpreter alone.
    Interpreted,
    /// Between blocks: finding the next one.
    Lookup,
    /// Decoding a block.
    Decode,
    /// Translating a block.
    Translate,
    /// Looking at doorbells, wires and invalidations.
    Service,
    /// Delivering an interrupt.
    Interrupt,
    /// Delivering an exception.
    Exception,
    /// Waiting for io-worker to answer or to make room.
    Io,
    /// What found no line of its own.
    Other,
}

impl Activity {
    const ALL: [(Self, &'static str); 12] = [
        (Self::Unknown, "not said"),
        (Self::Idle, "idle"),
        (Self::Translated, "translated code"),
        (Self::Interpreted, "interpreted blocks"),
        (Self::Lookup, "finding the next block"),
        (Self::Decode, "decoding"),
        (Self::Translate, "translating"),
        (Self::Service, "doorbells, wires, invalidations"),
        (Self::Interrupt, "delivering interrupts"),
        (Self::Exception, "delivering exceptions"),
        (Self::Io, "waiting for io-worker"),
        (Self::Other, "other handlers"),
    ];

    /// The number of its line.
    pub const fn line(self) -> u16 {
        self as u16
    }
}

/// The vCPU's end, used by its thread alone. Clones write the same word.
#[derive(Clone, Debug, Default)]
pub struct ProfileWriter {
    view: Option<ViewMut>,
}

impl ProfileWriter {
    /// Takes over `view`, a region of [`PROFILE_SIZE`] bytes: what a predecessor left is forgotten.
    pub fn attach(view: ViewMut) -> Self {
        view.fill(0, PROFILE_SIZE, 0);
        let this = Self { view: Some(view) };
        for (activity, name) in Activity::ALL {
            this.set_name(activity.line(), name);
        }
        this
    }

    /// Gives line `line` a name, cut to 56 bytes. Nothing is done to lines that do not exist.
    pub fn set_name(&self, line: u16, name: &str) {
        if let Some(view) = &self.view
            && usize::from(line) < LINES
        {
            let mut bytes = [0; NAME];
            let n = name.len().min(NAME);
            bytes[..n].copy_from_slice(&name.as_bytes()[..n]);
            view.write_bytes(at(line) + NAMED_AT, &bytes);
        }
    }

    /// Begins what `line` stands for, and answers what was done until now, for [`Self::resume`].
    #[inline]
    pub fn begin(&self, line: u16) -> u16 {
        let Some(view) = &self.view else { return 0 };
        let before = view.load_u32(0, Ordering::Relaxed) as u16;
        view.store_u32(0, u32::from(line), Ordering::Relaxed);
        let count = view.load_u64(at(line), Ordering::Relaxed);
        view.store_u64(at(line), count.wrapping_add(1), Ordering::Relaxed);
        before
    }

    /// Goes on with what `line` stands for; it is not counted again.
    #[inline]
    pub fn resume(&self, line: u16) {
        if let Some(view) = &self.view {
            view.store_u32(0, u32::from(line), Ordering::Relaxed);
        }
    }
}

/// The end of whoever samples. Several may.
#[derive(Clone, Debug)]
pub struct ProfileReader {
    view: View,
}

/// A line as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileLine {
    /// Its name, printable ASCII; empty for a line without one.
    pub name: String,
    /// How often it was begun.
    pub count: u64,
}

impl ProfileReader {
    /// Reads `view`, a region of [`PROFILE_SIZE`] bytes.
    pub fn new(view: View) -> Self {
        Self { view }
    }

    /// The line of what is being done now; a number that is no line counts as [`Activity::Other`].
    pub fn now(&self) -> u16 {
        match self.view.load_u32(0, Ordering::Relaxed) {
            n if (n as usize) < LINES => n as u16,
            _ => Activity::Other.line(),
        }
    }

    /// The line numbered `line`; the last one stands for all beyond.
    pub fn line(&self, line: u16) -> ProfileLine {
        let mut bytes = [0; NAME];
        self.view.read_bytes(at(line) + NAMED_AT, &mut bytes);
        let printable = |&b: &u8| {
            if b.is_ascii_graphic() || b == b' ' {
                char::from(b)
            } else {
                '?'
            }
        };
        ProfileLine {
            name: bytes.iter().take_while(|&&b| b != 0).map(printable).collect(),
            count: self.view.load_u64(at(line), Ordering::Relaxed),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::shm::Map;

    fn region() -> ViewMut {
        let len = PROFILE_SIZE.next_multiple_of(4096) as u64;
        ViewMut::new(Arc::new(Map::anonymous(len).expect("anonymous map"))).slice(0, PROFILE_SIZE)
    }

    #[test]
    fn activities_nest_and_are_counted_when_they_begin() {
        let view = region();
        let writer = ProfileWriter::attach(view.clone());
        let reader = ProfileReader::new(view.view().clone());
        writer.set_name(20, "RDMSR");
        assert_eq!(writer.begin(Activity::Translated.line()), 0);
        let before = writer.begin(20);
        assert_eq!(reader.now(), 20);
        writer.resume(before);
        assert_eq!(reader.now(), Activity::Translated.line());
        assert_eq!(writer.begin(20), before);
        let line = reader.line(20);
        assert_eq!((line.name.as_str(), line.count), ("RDMSR", 2));
        assert_eq!(reader.line(before).count, 1);
        assert_eq!(reader.line(Activity::Idle.line()).name, "idle");
        // A successor starts anew.
        ProfileWriter::attach(view);
        assert_eq!((reader.now(), reader.line(20).count), (0, 0));
    }

    #[test]
    fn a_lying_writer_gives_text_and_numbers_all_the_same() {
        let view = region();
        let reader = ProfileReader::new(view.view().clone());
        view.fill(0, PROFILE_SIZE, 0xFF);
        assert_eq!(reader.now(), Activity::Other.line());
        let line = reader.line(u16::MAX);
        assert_eq!((line.name, line.count), ("?".repeat(NAME), u64::MAX));
    }

    #[test]
    fn long_names_and_numbers_that_are_no_line_do_no_harm() {
        let view = region();
        let writer = ProfileWriter::attach(view.clone());
        writer.set_name(LINES as u16, "nowhere");
        writer.set_name(LINES as u16 - 1, &"x".repeat(100));
        writer.begin(u16::MAX);
        let reader = ProfileReader::new(view.view().clone());
        assert_eq!(reader.now(), Activity::Other.line());
        assert_eq!(reader.line(LINES as u16 - 1).name, "x".repeat(NAME));
        ProfileWriter::default().begin(3);
    }

    #[test]
    fn every_activity_has_the_line_of_its_number() {
        for (n, (activity, _)) in Activity::ALL.iter().enumerate() {
            assert_eq!(usize::from(activity.line()), n);
        }
    }
}
