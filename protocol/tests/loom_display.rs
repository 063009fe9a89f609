//! Display records, frame slots and the playback ring under the model checker (S3.112).
#![cfg(loom)]

mod loom_support;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;
use loom_support::{Words, model};
use quintet_protocol::audio::{Format, PlaybackConsumer, PlaybackProducer};
use quintet_protocol::framebuffer::slots::{self, Leased, SLOT_WORDS};
use quintet_protocol::scanout::{self, BUSY};
use quintet_protocol::words::{ReadWords, WriteWords};

#[test]
fn s3_85_a_record_is_never_torn_across_bit_31() {
    model(|| {
        let words = Words::new(16);
        words.store_u32(0, BUSY - 2, Ordering::Relaxed);
        let reader = words.clone();
        let writer = thread::spawn(move || {
            scanout::publish(&words, &[1, 1, 1]);
            scanout::publish(&words, &[2, 2, 2]);
        });
        let mut got = [9; 3];
        if let Ok(generation) = scanout::read_once(&reader, &mut got) {
            let record = generation.wrapping_sub(BUSY - 2) & !BUSY;
            assert_eq!(got, [record; 3]);
        }
        writer.join().unwrap();
        assert_eq!((scanout::read_once(&reader, &mut got), got), (Ok(0), [2; 3]));
    });
}

#[test]
fn s3_85_what_a_killed_writer_left_is_never_taken_for_a_record() {
    model(|| {
        let words = Words::new(12);
        words.store_u32(0, 5 | BUSY, Ordering::Relaxed);
        words.store_u32(4, 7, Ordering::Relaxed);
        let reader = words.clone();
        let successor = thread::spawn(move || scanout::publish(&words, &[1, 1]));
        let mut got = [9; 2];
        if scanout::read_once(&reader, &mut got).is_ok() {
            assert_eq!(got, [1; 2]);
        }
        assert_eq!(successor.join().unwrap(), 6);
    });
}

/// Writes `frames` frames of one pixel each, whose value is the frame's number.
fn write_frames(words: &Words, leases: &[Words], pixels: &Words, frames: u32) {
    for _ in 0..frames {
        if let Some(slot) = slots::take(words, leases) {
            let number = slots::next(slots::newest(words));
            pixels.store_u32(slot * 4, number, Ordering::Relaxed);
            assert_eq!(slots::publish(words, slot), number);
        }
    }
}

#[test]
fn a_leased_slot_holds_its_frame_for_as_long_as_it_is_leased() {
    model(|| {
        let (words, lease, pixels) = (Words::new(SLOT_WORDS * 4), Words::new(4), Words::new(12));
        // Two slots are in use: the third frame from here on is written to the slot that is active now.
        write_frames(&words, &[lease.clone()], &pixels, 2);
        let writer = thread::spawn({
            let (words, lease, pixels) = (words.clone(), lease.clone(), pixels.clone());
            move || write_frames(&words, &[lease], &pixels, 3)
        });
        if let Leased::Slot(slot, number) = slots::lease(&words, &lease) {
            for _ in 0..2 {
                assert_eq!(pixels.load_u32(slot * 4, Ordering::Relaxed), number);
            }
            slots::release(&lease);
        }
        writer.join().unwrap();
        assert!(
            slots::newest(&words) >= 4,
            "a reader of one slot leaves two to the writer"
        );
    });
}

#[test]
fn a_lease_taken_again_gives_the_old_slot_back_only_after_it_was_read() {
    model(|| {
        let (words, lease, pixels) = (Words::new(SLOT_WORDS * 4), Words::new(4), Words::new(12));
        write_frames(&words, &[lease.clone()], &pixels, 1);
        let Leased::Slot(first, 1) = slots::lease(&words, &lease) else {
            panic!("a frame stands there")
        };
        let writer = thread::spawn({
            let (words, lease, pixels) = (words.clone(), lease.clone(), pixels.clone());
            move || write_frames(&words, &[lease], &pixels, 3)
        });
        assert_eq!(pixels.load_u32(first * 4, Ordering::Relaxed), 1);
        if let Leased::Slot(slot, number) = slots::lease(&words, &lease) {
            assert_eq!(pixels.load_u32(slot * 4, Ordering::Relaxed), number);
        }
        writer.join().unwrap();
    });
}

/// Memory with words only where a ring has them: the model stays small.
#[derive(Clone)]
struct Sparse {
    cells: Arc<Vec<(usize, AtomicU32)>>,
    len: usize,
}

impl Sparse {
    fn new(len: usize, offsets: impl Iterator<Item = usize>) -> Self {
        Self {
            cells: Arc::new(offsets.map(|at| (at, AtomicU32::new(0))).collect()),
            len,
        }
    }

    fn cell(&self, offset: usize) -> &AtomicU32 {
        let found = self.cells.iter().find(|(at, _)| *at == offset);
        &found.unwrap_or_else(|| panic!("no word at {offset}")).1
    }
}

impl ReadWords for Sparse {
    fn size(&self) -> usize {
        self.len
    }
    fn load_u32(&self, offset: usize, order: Ordering) -> u32 {
        self.cell(offset).load(order)
    }
    fn load_u64(&self, _: usize, _: Ordering) -> u64 {
        unimplemented!("audio rings have no wide words")
    }
    fn read_bytes(&self, _: usize, _: &mut [u8]) {
        unimplemented!("audio rings are read by word")
    }
}

impl WriteWords for Sparse {
    fn store_u32(&self, offset: usize, value: u32, order: Ordering) {
        self.cell(offset).store(value, order);
    }
    fn store_u64(&self, _: usize, _: u64, _: Ordering) {
        unimplemented!("audio rings have no wide words")
    }
    fn swap_u32(&self, offset: usize, value: u32, order: Ordering) -> u32 {
        self.cell(offset).swap(value, order)
    }
    fn fetch_or_u32(&self, offset: usize, bits: u32, order: Ordering) -> u32 {
        self.cell(offset).fetch_or(bits, order)
    }
    fn fetch_and_u32(&self, offset: usize, bits: u32, order: Ordering) -> u32 {
        self.cell(offset).fetch_and(bits, order)
    }
    fn write_bytes(&self, _: usize, _: &[u8]) {
        unimplemented!("audio rings are written by word")
    }
}

/// Both parts of a playback ring of two mono frames.
fn playback() -> (Sparse, Sparse) {
    let header = (0..28).step_by(4).chain((128..140).step_by(4));
    let ours = Sparse::new(4096 + 8, header.chain([4096, 4100]));
    (ours, Sparse::new(128, [0, 4, 8, 12, 16].into_iter()))
}

const TWO_FRAMES: Format = Format {
    rate: 48_000,
    channels: 1,
    capacity: 2,
};

#[test]
fn s3_71_frames_come_out_as_they_went_in_whatever_the_interleaving() {
    model(|| {
        let (ours, theirs) = playback();
        let mut producer = PlaybackProducer::attach(ours.clone(), theirs.clone(), TWO_FRAMES);
        let mut consumer = PlaybackConsumer::attach(theirs, ours, 48_000);
        assert_eq!(consumer.refresh(), Ok(Some(TWO_FRAMES)));
        let thread = thread::spawn(move || {
            let mut next = 1.0;
            for _ in 0..3 {
                if producer.push(&[next]) == 1 {
                    next += 1.0;
                }
            }
            next
        });
        let mut heard = 0.0;
        for _ in 0..3 {
            let mut out = [0.0];
            if consumer.fill(&mut out).frames == 1 {
                assert_eq!(out[0], heard + 1.0);
                heard = out[0];
            }
        }
        let sent = thread.join().unwrap() - 1.0;
        assert!(heard <= sent);
        let mut rest = [0.0; 2];
        let frames = consumer.fill(&mut rest).frames;
        assert_eq!(heard + frames as f32, sent, "frames were lost");
    });
}

#[test]
fn a_change_of_format_never_lets_old_samples_through() {
    model(|| {
        let (ours, theirs) = playback();
        let mut producer = PlaybackProducer::attach(ours.clone(), theirs.clone(), TWO_FRAMES);
        let mut consumer = PlaybackConsumer::attach(theirs, ours, 48_000);
        consumer.refresh().unwrap();
        producer.push(&[1.0]);
        let thread = thread::spawn(move || {
            producer.set_format(Format {
                rate: 44_100,
                ..TWO_FRAMES
            });
            producer.push(&[2.0]);
        });
        let format = consumer.refresh();
        let mut out = [0.0];
        let fill = consumer.fill(&mut out);
        // Sound of the new format is never played as that of the old one, nor the other way round.
        if fill.frames == 1 {
            assert_eq!(
                out,
                if format == Ok(Some(TWO_FRAMES)) {
                    [1.0]
                } else {
                    [2.0]
                }
            );
        }
        thread.join().unwrap();
        consumer.refresh().unwrap();
        let more = consumer.fill(&mut out);
        if more.frames == 1 {
            assert_eq!(out, [2.0]);
        }
        // The frame of the new format comes once, whenever the change was noticed.
        let early = fill.frames == 1 && format != Ok(Some(TWO_FRAMES));
        assert_eq!(more.frames, u32::from(!early));
    });
}
