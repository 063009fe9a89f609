use std::sync::Arc;

use super::*;
use crate::shm::{Map, Segment};

fn segment() -> (VramWriter, VramReader) {
    let view = ViewMut::new(Arc::new(
        Map::anonymous(VRAM_SEGMENT_BYTES as u64).expect("anonymous map"),
    ));
    let reader = VramReader::new(view.view().clone()).expect("large enough");
    (VramWriter::new(view).expect("large enough"), reader)
}

#[test]
fn registers_come_back_as_they_were_published() {
    let (writer, reader) = segment();
    let mut registers = VgaRegisters::text_80x25();
    registers.vbe = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0xB0C5];
    registers.sequencer[7] = 0x77;
    registers.graphics[8] = 0x88;
    writer.publish_registers(&registers);
    assert_eq!(reader.registers(), Ok(registers));
}

#[test]
fn the_palette_comes_back_as_it_was_published() {
    let (writer, reader) = segment();
    let mut palette = Palette::ega();
    palette.0[255] = [1, 2, 3];
    writer.publish_palette(&palette);
    assert_eq!(reader.palette(), Ok(palette));
}

#[test]
fn the_ega_palette_has_brown_and_grey_where_the_bios_has_them() {
    let palette = Palette::ega();
    assert_eq!(palette.0[0x14], [0x2A, 0x15, 0x00]);
    assert_eq!(palette.0[0x07], [0x2A, 0x2A, 0x2A]);
    assert_eq!(palette.0[0x38], [0x15, 0x15, 0x15]);
    assert_eq!(palette.0[0x3F], [0x3F, 0x3F, 0x3F]);
}

#[test]
fn s3_85_a_cursor_is_read_back_and_moves_only_its_own_generation() {
    let (writer, reader) = segment();
    let before = reader.generations();
    let cursor = CursorState {
        enable: true,
        x: -1,
        width: 16,
        ..CursorState::default()
    };
    writer.publish_cursor(&cursor);
    assert_eq!(reader.cursor(), Ok(cursor));
    let after = reader.generations();
    assert_eq!(after[..2], before[..2]);
    assert_ne!(after[2], before[2]);
}

/// The pages that a tracker takes, and whether some are open.
fn taken(tracker: &mut DirtTracker, reader: &VramReader) -> (Vec<usize>, bool) {
    let mut pages = Vec::new();
    let open = tracker.take(reader, 0..PAGES, |page| pages.push(page));
    (pages, open)
}

#[test]
fn each_reader_sees_each_mark() {
    let (writer, reader) = segment();
    let (mut a, mut b) = (DirtTracker::default(), DirtTracker::default());
    for tracker in [&mut a, &mut b] {
        assert!(tracker.any(&reader, 0..PAGES), "everything is new to it");
        assert_eq!(taken(tracker, &reader), ((0..PAGES).collect(), false));
        assert!(!tracker.any(&reader, 0..PAGES));
    }
    writer.mark(5 * PAGE_BYTES + 17);
    for tracker in [&mut a, &mut b] {
        assert!(tracker.any(&reader, 0..PAGES));
        assert_eq!(taken(tracker, &reader), (vec![5], true));
    }
}

#[test]
fn an_open_page_is_taken_until_the_epoch_after_the_last_store() {
    let (writer, reader) = segment();
    let mut tracker = DirtTracker::default();
    taken(&mut tracker, &reader);
    writer.mark(7 * PAGE_BYTES);
    assert_eq!(taken(&mut tracker, &reader), (vec![7], true));
    // By host pointer, so nobody is told.
    writer.memory().write_bytes(7 * PAGE_BYTES, &[1]);
    assert!(
        !tracker.any(&reader, 0..PAGES),
        "nothing is new before the epoch ends"
    );
    assert_eq!(
        taken(&mut tracker, &reader),
        (vec![7], true),
        "who looks all the same"
    );
    writer.begin_epoch();
    assert!(tracker.any(&reader, 0..PAGES));
    assert_eq!(
        taken(&mut tracker, &reader),
        (vec![7], false),
        "closed, and taken once more"
    );
    assert!(!tracker.any(&reader, 0..PAGES));
    assert_eq!(taken(&mut tracker, &reader), (vec![], false));
}

#[test]
fn a_mark_in_an_old_epoch_is_seen_when_it_arrives_late() {
    // A store and its mark may become visible after the look of the epoch they are made in.
    let (writer, reader) = segment();
    let mut tracker = DirtTracker::default();
    taken(&mut tracker, &reader);
    writer.mark(3 * PAGE_BYTES);
    assert_eq!(taken(&mut tracker, &reader), (vec![3], true));
    writer.mark(4 * PAGE_BYTES);
    writer.begin_epoch();
    assert_eq!(taken(&mut tracker, &reader), (vec![3, 4], false));
    assert_eq!(taken(&mut tracker, &reader), (vec![], false));
}

#[test]
fn epochs_wrap() {
    let view = ViewMut::new(Arc::new(
        Map::anonymous(VRAM_SEGMENT_BYTES as u64).expect("anonymous map"),
    ));
    let reader = VramReader::new(view.view().clone()).expect("large enough");
    view.store_u32(AT_EPOCH, u32::MAX - 1, Ordering::Relaxed);
    let writer = VramWriter::new(view.clone()).expect("large enough");
    let mut tracker = DirtTracker::default();
    for page in 0..PAGES {
        view.store_u32(AT_DIRT + 4 * page, u32::MAX - 9, Ordering::Relaxed);
    }
    for epoch in [u32::MAX, 0, 1] {
        assert_eq!(reader.epoch(), epoch);
        taken(&mut tracker, &reader);
        writer.mark(0);
        assert_eq!(taken(&mut tracker, &reader), (vec![0], true));
        writer.begin_epoch();
        assert_eq!(taken(&mut tracker, &reader), (vec![0], false));
    }
}

#[test]
fn a_wish_for_an_epoch_reaches_the_exit_word_and_is_granted_once() {
    let words = || ViewMut::new(Arc::new(Map::anonymous(4096).expect("anonymous map")));
    let (own, exit, asleep, gpu) = (words(), words(), words(), words());
    let wish = EpochWish::new(
        own.clone(),
        crate::doorbell::Doorbell::new(exit.clone(), asleep.view().clone()),
    );
    let (writer, reader) = segment();
    let bell = crate::doorbell::Doorbell::new(gpu, asleep.view().clone());
    let writer = writer.with_bell(SleepHint::new(own.view().clone(), bell));
    assert!(!writer.is_epoch_wanted());
    wish.ask();
    assert_eq!(exit.load_u32(0, Ordering::Acquire), 1);
    assert!(writer.is_epoch_wanted());
    let before = reader.epoch();
    writer.begin_epoch();
    assert_eq!(reader.epoch(), before + 1);
    assert!(!writer.is_epoch_wanted());
}

#[test]
fn a_range_marks_the_pages_it_touches_and_no_more() {
    let (writer, reader) = segment();
    let mut tracker = DirtTracker::default();
    tracker.take(&reader, 0..PAGES, |_| ());
    writer.mark_range(PAGE_BYTES - 1, 2);
    writer.mark_range(9 * PAGE_BYTES, 0);
    writer.mark_range(VRAM_BYTES - 1, 1);
    assert_eq!(taken(&mut tracker, &reader).0, [0, 1, PAGES - 1]);
}

#[test]
fn a_sleeping_reader_is_rung_once_per_arming() {
    let words = || ViewMut::new(Arc::new(Map::anonymous(4096).expect("anonymous map")));
    let (armed, word, asleep) = (words(), words(), words());
    let (writer, _) = segment();
    let bell = crate::doorbell::Doorbell::new(word.clone(), asleep.view().clone());
    let writer = writer.with_bell(SleepHint::new(armed.view().clone(), bell));
    let rung = || word.swap_u32(0, 0, Ordering::AcqRel) == 1;
    writer.mark(0);
    assert!(!rung(), "nobody sleeps");
    armed.store_u32(0, 1, Ordering::Relaxed);
    writer.mark(PAGE_BYTES);
    assert!(rung());
    writer.mark(2 * PAGE_BYTES);
    assert!(!rung(), "rung twice");
    armed.store_u32(0, 9, Ordering::Relaxed);
    writer.begin_epoch();
    assert!(rung(), "an epoch that a sleeper waits for");
    armed.store_u32(0, 2, Ordering::Relaxed);
    writer.publish_registers(&VgaRegisters::default());
    assert!(rung());
    armed.store_u32(0, 3, Ordering::Relaxed);
    writer.publish_palette(&Palette::default());
    assert!(rung());
}

#[test]
fn a_segment_of_another_build_is_refused_and_an_unwritten_one_is_not_ready() {
    let view = ViewMut::new(Arc::new(
        Map::anonymous(VRAM_SEGMENT_BYTES as u64).expect("anonymous map"),
    ));
    let reader = VramReader::new(view.view().clone()).expect("large enough");
    assert_eq!(reader.is_ready(), Ok(false));
    VramWriter::new(view.clone()).expect("large enough");
    assert_eq!(reader.is_ready(), Ok(true));
    view.store_u32(AT_VERSION, 9, Ordering::Relaxed);
    assert!(matches!(
        reader.is_ready(),
        Err(VramError::Foreign { version: 9, .. })
    ));
}

#[test]
fn a_segment_that_is_too_small_is_refused_by_both_ends() {
    let view = ViewMut::new(Arc::new(Map::anonymous(4096).expect("anonymous map")));
    assert_eq!(
        VramReader::new(view.view().clone()).err(),
        Some(VramError::TooSmall { len: 4096 })
    );
    assert_eq!(
        VramWriter::new(view).err(),
        Some(VramError::TooSmall { len: 4096 })
    );
}

#[test]
fn a_successor_finds_memory_and_registers_as_they_were() {
    let segment = Segment::create("vram", VRAM_SEGMENT_BYTES as u64).expect("memfd");
    let map = || {
        let map = Map::read_write(segment.writer(), 0, VRAM_SEGMENT_BYTES as u64).expect("map");
        ViewMut::new(Arc::new(map))
    };
    let first = VramWriter::new(map()).expect("large enough");
    first.publish_registers(&VgaRegisters::text_80x25());
    first.memory().write_bytes(plane_index(7, 2), &[0xA5]);
    drop(first);
    VramWriter::new(map()).expect("large enough");
    let fd = segment.reader().expect("read-only descriptor");
    let only = Map::read_only(std::os::fd::AsFd::as_fd(&fd), 0, VRAM_SEGMENT_BYTES as u64).expect("map");
    let reader = VramReader::new(View::new(Arc::new(only))).expect("large enough");
    assert_eq!(reader.registers(), Ok(VgaRegisters::text_80x25()));
    let mut byte = [0];
    reader.read(plane_index(7, 2), &mut byte);
    assert_eq!(byte, [0xA5]);
}
