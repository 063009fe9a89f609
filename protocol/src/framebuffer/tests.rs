use std::sync::Arc;

use super::slots::Leased;
use super::*;
use crate::scanout::BUSY;
use crate::shm::{Map, ViewMut};
use crate::sync::Ordering;
use crate::time::VmTime;

fn anonymous(len: usize) -> ViewMut {
    ViewMut::new(Arc::new(Map::anonymous(len as u64).expect("anonymous map")))
}

struct Screen {
    file: ViewMut,
    lease: ViewMut,
    writer: FrameWriter,
    reader: FrameReader,
}

fn screen() -> Screen {
    let (file, lease) = (anonymous(FRAMEBUFFER_BYTES), anonymous(4096));
    let writer = FrameWriter::new(file.clone(), vec![lease.view().clone()]);
    let reader = FrameReader::new(file.view().clone(), &lease);
    Screen {
        file,
        lease,
        writer,
        reader,
    }
}

/// Publishes a frame whose every pixel is `id`.
fn show(writer: &mut FrameWriter, width: u32, height: u32, id: u32) -> Published {
    let layout = FrameLayout::packed(width, height).expect("a good size");
    let pixels = id.to_le_bytes().repeat((width * height) as usize);
    writer.publish(&layout, &pixels, &TileSet::all(&layout), VmTime(u64::from(id)))
}

fn id_of(frame: &LeasedFrame<'_>) -> u32 {
    let pixels = frame.to_rgba();
    let id = u32::from_le_bytes([pixels[0], pixels[1], pixels[2], pixels[3]]);
    assert!(
        pixels.chunks_exact(4).all(|pixel| pixel == id.to_le_bytes()),
        "a torn frame near id {id}"
    );
    id
}

#[test]
fn s3_81_layout_without_tiles() {
    let layout = FrameLayout::new(640, 480, 2560, 0).expect("a good shape");
    assert_eq!([layout.packed_slot(0), layout.packed_slot(1)], [64, 1_228_864]);
    assert_eq!(layout.packed_total(2), 2_457_664);
    assert_eq!(layout.packed_total(3), 3_686_464);
}

#[test]
fn s3_81_layout_with_tiles_of_32() {
    let layout = FrameLayout::new(640, 480, 2560, 32).expect("a good shape");
    assert_eq!((layout.tiles_x, layout.tiles_y, layout.dirty_words), (20, 15, 10));
    assert_eq!([layout.packed_slot(0), layout.packed_slot(1)], [64, 1_228_928]);
    let dirty = |slot| layout.packed_slot(slot) + u64::from(layout.dirty_offset);
    assert_eq!([dirty(0), dirty(1)], [1_228_864, 2_457_728]);
    assert_eq!(layout.packed_total(2), 2_457_792);
    assert_eq!(layout.packed_total(3), 3_686_656);
}

#[test]
fn s3_82_impossible_layouts_are_refused_by_cause() {
    assert_eq!(
        FrameLayout::new(0, 1, 4, 0),
        Err(LayoutError::Empty { width: 0, height: 1 })
    );
    assert_eq!(
        FrameLayout::new(1, 0, 4, 0),
        Err(LayoutError::Empty { width: 1, height: 0 })
    );
    assert_eq!(
        FrameLayout::new(2, 1, 7, 0),
        Err(LayoutError::Stride { stride: 7, width: 2 })
    );
    assert_eq!(FrameLayout::new(2, 1, 8, 3), Err(LayoutError::Tile(3)));
    assert!(matches!(
        FrameLayout::new(1 << 30, 1, u32::MAX, 0),
        Err(LayoutError::Overflow { .. })
    ));
    assert!(matches!(
        FrameLayout::new(1 << 20, 1 << 20, 1 << 22, 0),
        Err(LayoutError::Overflow { .. })
    ));
    assert!(matches!(
        FrameLayout::new(1, u32::MAX, 4, 1),
        Err(LayoutError::Overflow { .. })
    ));
}

#[test]
fn s3_80_s3_83_a_frame_is_read_as_it_was_published() {
    let mut s = screen();
    assert!(s.reader.lease().expect("a good file").is_none());
    assert_eq!(show(&mut s.writer, 33, 35, 7), Published::Frame(1));
    let frame = s.reader.lease().expect("a good file").expect("a frame");
    assert_eq!(id_of(&frame), 7);
    assert_eq!(
        (frame.info().number, frame.info().time, frame.info().owner),
        (1, VmTime(7), 1)
    );
    assert_eq!((frame.info().layout.width, frame.info().layout.height), (33, 35));
}

#[test]
fn a_leased_frame_stays_while_the_writer_goes_on() {
    let mut s = screen();
    show(&mut s.writer, 64, 64, 1);
    let frame = s.reader.lease().expect("a good file").expect("a frame");
    for id in 2..50 {
        assert_eq!(show(&mut s.writer, 64, 64, id), Published::Frame(id));
        assert_eq!(id_of(&frame), 1);
    }
    drop(frame);
    assert_eq!(
        id_of(&s.reader.lease().expect("a good file").expect("a frame")),
        49
    );
}

#[test]
fn readers_that_hold_every_slot_make_the_writer_skip_and_never_wait() {
    let file = anonymous(FRAMEBUFFER_BYTES);
    let areas: Vec<_> = (0..3).map(|_| anonymous(4096)).collect();
    let mut writer = FrameWriter::new(
        file.clone(),
        areas.iter().map(|area| area.view().clone()).collect(),
    );
    let mut readers: Vec<_> = areas
        .iter()
        .map(|area| FrameReader::new(file.view().clone(), area))
        .collect();
    let mut frames = Vec::new();
    for (id, reader) in (1..).zip(&mut readers) {
        assert_eq!(show(&mut writer, 64, 64, id), Published::Frame(id));
        frames.push(reader.lease().expect("a good file").expect("a frame"));
    }
    assert_eq!(show(&mut writer, 64, 64, 9), Published::Skipped);
    assert_eq!(writer.skipped(), 1);
    for (id, frame) in (1..).zip(&frames) {
        assert_eq!(id_of(frame), id);
    }
    frames.remove(0);
    assert_eq!(show(&mut writer, 64, 64, 10), Published::Frame(4));
}

#[test]
fn only_dirty_tiles_are_copied_and_each_slot_catches_up() {
    let mut s = screen();
    let layout = FrameLayout::packed(128, 64).expect("a good size");
    let mut pixels = vec![0; layout.pixel_bytes()];
    s.writer
        .publish(&layout, &pixels, &TileSet::none(&layout), VmTime(0));
    for step in 0..9_u32 {
        let mut dirty = TileSet::none(&layout);
        let (x, y) = (step * 13 % 128, step * 7 % 64);
        dirty.add_rect(
            &layout,
            Rect {
                x,
                y,
                width: 1,
                height: 1,
            },
        );
        pixels[(y * 128 + x) as usize * 4] = step as u8 + 1;
        s.writer.publish(&layout, &pixels, &dirty, VmTime(0));
        let frame = s.reader.lease().expect("a good file").expect("a frame");
        assert_eq!(frame.to_rgba(), pixels, "step {step}");
        let changes = frame.changes_since(frame.info().number - 1);
        assert_eq!(
            changes,
            [Rect {
                x: x / 32 * 32,
                y: y / 32 * 32,
                width: 32,
                height: 32
            }]
        );
        assert_eq!(frame.changes_since(frame.info().number), []);
        assert_eq!(
            frame.changes_since(77),
            [Rect {
                x: 0,
                y: 0,
                width: 128,
                height: 64
            }]
        );
    }
}

#[test]
fn the_dirt_of_a_skipped_frame_is_in_the_next_one() {
    let file = anonymous(FRAMEBUFFER_BYTES);
    let areas: Vec<_> = (0..3).map(|_| anonymous(4096)).collect();
    let mut writer = FrameWriter::new(
        file.clone(),
        areas.iter().map(|area| area.view().clone()).collect(),
    );
    show(&mut writer, 64, 64, 1);
    for (slot, area) in (1..).zip(&areas) {
        area.store_u32(slots::LEASE * 4, slot, Ordering::Relaxed);
    }
    let layout = FrameLayout::packed(64, 64).expect("a good size");
    let mut left = TileSet::none(&layout);
    left.add_rect(
        &layout,
        Rect {
            x: 0,
            y: 0,
            width: 1,
            height: 1,
        },
    );
    let pixels = vec![0; layout.pixel_bytes()];
    assert_eq!(
        writer.publish(&layout, &pixels, &left, VmTime(0)),
        Published::Skipped
    );
    let mut reader = FrameReader::new(file.view().clone(), &areas[2]);
    let mut right = TileSet::none(&layout);
    right.add_rect(
        &layout,
        Rect {
            x: 63,
            y: 0,
            width: 1,
            height: 1,
        },
    );
    assert_eq!(
        writer.publish(&layout, &pixels, &right, VmTime(0)),
        Published::Frame(2)
    );
    let frame = reader.lease().expect("a good file").expect("a frame");
    assert_eq!(
        frame.changes_since(1),
        [Rect {
            x: 0,
            y: 0,
            width: 64,
            height: 32
        }]
    );
}

#[test]
fn a_successor_goes_on_from_a_writer_killed_in_a_write() {
    let mut s = screen();
    show(&mut s.writer, 64, 64, 1);
    show(&mut s.writer, 64, 64, 2);
    let words = s.file.slice(word::SLOTS * 4, slots::SLOT_WORDS * 4);
    let slot = slots::take(&words, std::slice::from_ref(s.lease.view())).expect("a free slot");
    s.file.fill(pixels_at(slot), 64 * 64 * 2, 0xEE);
    let mut writer = FrameWriter::new(s.file.clone(), vec![s.lease.view().clone()]);
    assert_eq!(
        id_of(&s.reader.lease().expect("a good file").expect("a frame")),
        2
    );
    for id in 3..8 {
        assert_eq!(show(&mut writer, 64, 64, id), Published::Frame(id));
        let frame = s.reader.lease().expect("a good file").expect("a frame");
        assert_eq!((id_of(&frame), frame.info().owner), (id, 2));
    }
}

#[test]
fn a_successor_mends_the_frame_number_of_a_writer_killed_between_the_last_two_stores() {
    let mut s = screen();
    show(&mut s.writer, 64, 64, 1);
    let words = s.file.slice(word::SLOTS * 4, slots::SLOT_WORDS * 4);
    let slot = slots::take(&words, std::slice::from_ref(s.lease.view())).expect("a free slot");
    words.store_u32((slots::SEQUENCE + slot) * 4, 2, Ordering::Release);
    words.store_u32(slots::ACTIVE * 4, slot as u32 + 1, Ordering::Release);
    assert_eq!(s.reader.newest(), 1);
    let writer = FrameWriter::new(s.file.clone(), Vec::new());
    assert_eq!((s.reader.newest(), writer.newest()), (2, 2));
}

#[test]
fn a_reader_meets_a_slot_that_became_busy_and_takes_the_newer_one() {
    let mut s = screen();
    show(&mut s.writer, 64, 64, 1);
    let words = s.file.slice(word::SLOTS * 4, slots::SLOT_WORDS * 4);
    words.store_u32(slots::SEQUENCE * 4, 1 | BUSY, Ordering::Relaxed);
    assert_eq!(
        s.reader.lease().map(|frame| frame.is_some()),
        Err(FrameError::Contended)
    );
    assert_eq!(
        s.lease.load_u32(0, Ordering::Relaxed),
        0,
        "a lease that failed was left behind"
    );
    assert_eq!(slots::lease(&words, &s.lease), Leased::Contended);
}

#[test]
fn frame_numbers_wrap_past_bit_31_and_leave_zero_out() {
    assert_eq!(slots::next(BUSY - 1), 1);
    assert_eq!(slots::next(0), 1);
    assert_eq!(slots::next(41), 42);
}

#[test]
fn a_lying_head_is_an_error_and_never_a_read_past_the_slot() {
    for (index, value) in [
        (head::WIDTH, 0),
        (head::WIDTH, 65),
        (head::HEIGHT, 0),
        (head::HEIGHT, u32::MAX),
        (head::STRIDE, 8),
        (head::STRIDE, 1 << 24),
        (head::FORMAT, 9),
        (head::TILE, 3),
        (head::TILES_X, 99),
        (head::TILES_Y, 99),
        (head::DIRTY_WORDS, 1 << 30),
    ] {
        let mut s = screen();
        show(&mut s.writer, 64, 64, 1);
        s.file.store_u32(head_at(0, index), value, Ordering::Relaxed);
        assert!(s.reader.lease().is_err(), "word {index} = {value}");
        assert_eq!(
            s.lease.load_u32(0, Ordering::Relaxed),
            0,
            "a lease that failed was left behind"
        );
    }
    let mut s = screen();
    s.file.store_u32(word::SLOTS * 4, 4, Ordering::Relaxed);
    assert_eq!(
        s.reader.lease().map(|frame| frame.is_some()),
        Err(FrameError::Active(4))
    );
    s.file.store_u32(0, 1, Ordering::Relaxed);
    assert!(matches!(
        s.reader.lease(),
        Err(FrameError::Foreign { magic: 1, .. })
    ));
}

#[test]
fn s3_84_runs_are_merged_along_x_and_cut_at_the_edges() {
    let layout = FrameLayout::new(100, 70, 400, 32).expect("a good shape");
    assert_eq!((layout.tiles_x, layout.tiles_y), (4, 3));
    let rects = dirty_rects(&layout, &[0b1000_0000_1101]);
    let rect = |x, y, width, height| Rect { x, y, width, height };
    assert_eq!(
        rects,
        [rect(0, 0, 32, 32), rect(64, 0, 36, 32), rect(96, 64, 4, 6)]
    );
}

#[test]
fn s3_84_everything_dirty_and_no_tracking_are_one_full_rectangle() {
    let whole = [Rect {
        x: 0,
        y: 0,
        width: 100,
        height: 70,
    }];
    let tiled = FrameLayout::new(100, 70, 400, 32).expect("a good shape");
    assert_eq!(dirty_rects(&tiled, TileSet::all(&tiled).words()), whole);
    assert_eq!(dirty_rects(&tiled, &[u32::MAX]), whole);
    let untracked = FrameLayout::new(100, 70, 400, 0).expect("a good shape");
    assert_eq!(dirty_rects(&untracked, &[]), whole);
    assert_eq!(dirty_rects(&tiled, &[]), []);
}

#[test]
fn s3_84_more_than_65536_rectangles_become_one() {
    let layout = FrameLayout::new(1024, 512, 4096, 1).expect("a good shape");
    let alternate = vec![0x5555_5555; layout.dirty_words as usize];
    assert_eq!(
        dirty_rects(&layout, &alternate),
        [Rect {
            x: 0,
            y: 0,
            width: 1024,
            height: 512
        }]
    );
    let half = vec![0x5555_5555; layout.dirty_words as usize / 4];
    assert_eq!(dirty_rects(&layout, &half).len(), 65_536);
}

#[test]
fn s3_84_the_last_word_may_have_31_tiles() {
    let layout = FrameLayout::new(31, 1, 124, 1).expect("a good shape");
    assert_eq!(layout.dirty_words, 1);
    assert_eq!(TileSet::all(&layout).words(), [0x7FFF_FFFF]);
    assert_eq!(
        dirty_rects(&layout, &[1 << 30]),
        [Rect {
            x: 30,
            y: 0,
            width: 1,
            height: 1
        }]
    );
    assert_eq!(dirty_rects(&layout, &[1 << 31]), []);
}

#[test]
fn s3_86_pacing_words_count_received_presented_and_dropped() {
    let mut s = screen();
    show(&mut s.writer, 64, 64, 1);
    show(&mut s.writer, 64, 64, 2);
    assert_eq!(s.reader.pacing(), [0, 2, 2, 2, 0]);
}

#[test]
fn a_screenshot_answers_its_own_request_only() {
    let (file, lease) = (anonymous(FRAMEBUFFER_BYTES), anonymous(4096));
    let (writer, reader) = (ShotWriter::new(&file, lease.view()), ShotReader::new(file.view()));
    assert_eq!(writer.pending(), None);
    assert_eq!(ShotReader::ask(&lease), 1);
    assert_eq!((writer.pending(), reader.take(1)), (Some(1), Ok(None)));
    writer.answer(1, Some(b"png"));
    assert_eq!(writer.pending(), None);
    assert_eq!(
        (reader.take(1), reader.take(2)),
        (Ok(Some(b"png".to_vec())), Ok(None))
    );
    writer.answer(2, None);
    assert_eq!(reader.take(2), Err(ShotError::NoPicture));
    file.store_u32(AT_SHOT + 4, 1, Ordering::Relaxed);
    file.store_u32(AT_SHOT + 8, u32::MAX, Ordering::Relaxed);
    assert_eq!(
        reader.take(2),
        Err(ShotError::Broken {
            status: 1,
            len: u32::MAX
        })
    );
}

#[test]
fn the_files_are_long_enough_for_what_lies_in_them() {
    use crate::handshake::files::{HEAD_LEN, file_len};
    use crate::handshake::{FileId, Role};
    let content = |file| file_len(file, crate::ram::RamLayout::new(1 << 20)) as usize - HEAD_LEN;
    assert!(content(FileId::Framebuffer) >= FRAMEBUFFER_BYTES);
    assert!(content(FileId::Vram) >= crate::vram::VRAM_SEGMENT_BYTES);
    assert!(content(FileId::Control(Role::Coordinator)) >= COORDINATOR_LEASE + LEASE_BYTES);
    assert!(content(FileId::Control(Role::Gpu)) >= ARMED_WORD + 4);
    assert!(content(FileId::AudioIo) >= crate::audio::AT_CAPTURE_HEAD + crate::audio::HEAD_BYTES);
    assert!(content(FileId::AudioHost) >= crate::audio::AT_CAPTURE + crate::audio::RING_BYTES);
}
