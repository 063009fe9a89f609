//! Presented frames across processes: every pixel holds its frame's number, either side is stopped, writers are killed,
//! and no reader ever sees two frames mixed.
#![cfg(not(loom))]

mod process_support;

use std::process::Child;
use std::time::{Duration, Instant};

use process_support::{Shared, job, was_killed};
use quintet_protocol::framebuffer::{
    FRAMEBUFFER_BYTES, FrameLayout, FrameReader, FrameWriter, LEASE_BYTES, LeasedFrame, Published, TileSet,
};
use quintet_protocol::shm::ViewMut;
use quintet_protocol::sync::Ordering;
use quintet_protocol::time::VmTime;
use rustix::process::{Pid, Signal, kill_process};

const LEASE: usize = FRAMEBUFFER_BYTES;
/// A word by which the test tells its helper to end.
const END: usize = LEASE + LEASE_BYTES;
/// A word in which a reading helper counts the frames that it has checked.
const CHECKED: usize = END + 4;
const LEN: u64 = (FRAMEBUFFER_BYTES + 4096) as u64;
/// Far longer than the frames take.
const PATIENCE: Duration = Duration::from_secs(60);

fn writer(m: &ViewMut) -> FrameWriter {
    FrameWriter::new(
        m.slice(0, FRAMEBUFFER_BYTES),
        vec![m.view().slice(LEASE, LEASE_BYTES)],
    )
}

fn reader(m: &ViewMut) -> FrameReader {
    FrameReader::new(m.view().slice(0, FRAMEBUFFER_BYTES), &m.slice(LEASE, LEASE_BYTES))
}

/// Publishes the frame after the newest, its number in every pixel; sizes alternate so that slots are re-used for
/// other shapes.
fn show(writer: &mut FrameWriter, pixels: &mut Vec<u8>) -> Published {
    let number = writer.newest() + 1;
    let layout = FrameLayout::packed(if (number / 50).is_multiple_of(2) { 320 } else { 200 }, 100).unwrap();
    pixels.clear();
    pixels.extend(number.to_le_bytes().repeat(layout.pixel_bytes() / 4));
    writer.publish(&layout, pixels, &TileSet::all(&layout), VmTime(u64::from(number)))
}

fn check(frame: &LeasedFrame<'_>) -> u32 {
    let number = frame.info().number;
    assert!(
        frame
            .to_rgba()
            .chunks_exact(4)
            .all(|pixel| pixel == number.to_le_bytes()),
        "frame {number} is torn"
    );
    assert_eq!(
        frame.info().time,
        VmTime(u64::from(number)),
        "the head of another frame"
    );
    number
}

#[test]
fn helper_process() {
    let Some((job, _, m)) = job() else { return };
    match job.as_str() {
        "write" => {
            let (mut writer, mut pixels) = (writer(&m), Vec::new());
            while m.load_u32(END, Ordering::Relaxed) == 0 {
                assert!(matches!(show(&mut writer, &mut pixels), Published::Frame(_)));
            }
        }
        "read" => {
            let mut reader = reader(&m);
            while m.load_u32(END, Ordering::Relaxed) == 0 {
                if let Some(frame) = reader.lease().unwrap() {
                    let number = check(&frame);
                    // However long it is stopped here, the frame stays.
                    for _ in 0..5 {
                        assert_eq!(check(&frame), number);
                        m.fetch_add_u32(CHECKED, 1, Ordering::Relaxed);
                    }
                }
            }
        }
        other => panic!("no job {other}"),
    }
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn end(shared: &Shared, mut child: Child) {
    shared.memory.store_u32(END, 1, Ordering::Relaxed);
    assert!(!was_killed(child.wait().unwrap()));
}

#[test]
fn s3_112_frames_are_whole_while_the_writer_is_stopped_at_random() {
    let shared = Shared::new(LEN);
    let child = shared.spawn("write", 0);
    let mut reader = reader(&shared.memory);
    wait_until("a frame", || reader.newest() > 0);
    for round in 0..100_u64 {
        signal(&child, Signal::STOP);
        for _ in 0..2 {
            check(&reader.lease().unwrap().expect("a frame"));
        }
        signal(&child, Signal::CONT);
        let before = reader.newest();
        for _ in 0..round % 7 {
            check(&reader.lease().unwrap().expect("a frame"));
        }
        wait_until("the writer to go on", || reader.newest() != before);
    }
    end(&shared, child);
}

#[test]
fn s3_112_a_frame_stays_whole_while_its_reader_is_stopped_and_the_writer_goes_on() {
    let shared = Shared::new(LEN);
    let (mut writer, mut pixels) = (writer(&shared.memory), Vec::new());
    show(&mut writer, &mut pixels);
    let child = shared.spawn("read", 0);
    let checked = || shared.memory.load_u32(CHECKED, Ordering::Relaxed);
    wait_until("the reader", || checked() > 0);
    for _ in 0..60 {
        signal(&child, Signal::STOP);
        let before = writer.newest();
        for _ in 0..8 {
            let published = show(&mut writer, &mut pixels);
            assert!(
                matches!(published, Published::Frame(_)),
                "a stopped reader stopped the writer"
            );
        }
        assert_eq!(writer.newest(), before + 8);
        let so_far = checked();
        signal(&child, Signal::CONT);
        wait_until("the reader to go on", || {
            show(&mut writer, &mut pixels);
            checked() != so_far
        });
    }
    end(&shared, child);
}

#[test]
fn s3_112_writers_killed_at_random_leave_whole_frames_and_growing_numbers() {
    let shared = Shared::new(LEN);
    let mut reader = reader(&shared.memory);
    let mut last = 0;
    for round in 1..=40 {
        let mut child = shared.spawn("write", 0);
        let from = reader.newest();
        wait_until("the writer", || reader.newest() > from + round % 5);
        signal(&child, Signal::KILL);
        assert!(was_killed(child.wait().unwrap()));
        for _ in 0..2 {
            let frame = reader.lease().unwrap().expect("a frame");
            let number = check(&frame);
            assert!(number >= last, "{number} after {last}");
            assert_eq!(frame.info().owner, round);
            last = number;
        }
    }
}
