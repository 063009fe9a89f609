use std::sync::Arc;

use super::*;
use crate::shm::{Map, View, ViewMut};
use crate::sync::Ordering;

fn part(len: usize) -> ViewMut {
    ViewMut::new(Arc::new(Map::anonymous(len as u64).expect("anonymous map")))
}

/// Byte offsets that a hostile peer would write to.
const WRITE: usize = 128;
const READ: usize = 0;

type Producer = PlaybackProducer<ViewMut, View>;
type Consumer = PlaybackConsumer<ViewMut, View>;

fn format(capacity: u32, channels: u32) -> Format {
    Format {
        rate: 48_000,
        channels,
        capacity,
    }
}

fn ring_at(start: u32, format: Format) -> (Producer, Consumer, ViewMut, ViewMut) {
    let (ours, theirs) = (part(RING_BYTES), part(HEAD_BYTES));
    ours.store_u32(WRITE, start, Ordering::Relaxed);
    let producer = PlaybackProducer::attach(ours.clone(), theirs.view().clone(), format);
    let mut consumer = PlaybackConsumer::attach(theirs.clone(), ours.view().clone(), 48_000);
    assert_eq!(consumer.refresh(), Ok(Some(format)));
    (producer, consumer, ours, theirs)
}

#[test]
fn s3_72_vectors_of_available_and_free() {
    for (read, write, capacity, expected) in [
        (0, 0, 4, (0, 4)),
        (0, 3, 4, (3, 1)),
        (0, 4, 4, (4, 0)),
        (0, 9, 4, (4, 0)),
        (4_294_967_294, 1, 4, (3, 1)),
        (4_294_967_292, 1, 5, (5, 0)),
        (1, 0, 4, (4, 0)),
    ] {
        let found = (available(read, write, capacity), free(read, write, capacity));
        assert_eq!(found, expected, "read {read}, write {write}, capacity {capacity}");
    }
}

#[test]
fn s3_73_formats_are_clamped_and_capacities_powers_of_two() {
    let clamped = Format {
        rate: 0,
        channels: 0,
        capacity: 0,
    }
    .clamped();
    assert_eq!(
        clamped,
        Format {
            rate: 8000,
            channels: 1,
            capacity: 1
        }
    );
    let clamped = Format {
        rate: u32::MAX,
        channels: 9,
        capacity: u32::MAX,
    }
    .clamped();
    assert_eq!(
        clamped,
        Format {
            rate: 192_000,
            channels: 2,
            capacity: RING_FRAMES_MAX
        }
    );
    assert_eq!(
        Format {
            rate: 48_000,
            channels: 2,
            capacity: 9600
        }
        .clamped()
        .capacity,
        8192
    );
}

#[test]
fn s3_75_the_default_capacity_is_about_200_ms() {
    assert_eq!(Format::new(48_000, 2).capacity, 8192);
    assert_eq!(Format::new(44_100, 2).capacity, 8192);
    for rate in [8000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000] {
        let milliseconds = Format::new(rate, 2).capacity * 1000 / rate;
        assert!(
            (140..=280).contains(&milliseconds),
            "{rate} Hz: {milliseconds} ms"
        );
        assert!(Format::new(rate, 2).capacity > PREFILL);
    }
}

#[test]
fn s3_70_samples_come_out_in_order_across_many_turns_of_the_ring_and_of_the_index() {
    for start in [0, u32::MAX - 20, u32::MAX] {
        let (mut producer, mut consumer, ..) = ring_at(start, format(8, 2));
        let mut next = 0.0;
        for turn in 0..50 {
            let frames = turn % 8 + 1;
            let samples: Vec<f32> = (0..frames * 2).map(|index| next + index as f32).collect();
            assert_eq!(producer.push(&samples), frames as u32);
            let mut out = vec![-1.0; samples.len()];
            assert_eq!(
                consumer.fill(&mut out),
                Fill {
                    frames: frames as u32,
                    missing: 0
                }
            );
            assert_eq!(out, samples);
            next += samples.len() as f32;
        }
    }
}

#[test]
fn s3_71_a_full_ring_drops_what_is_new_and_counts_it() {
    let (mut producer, mut consumer, _, theirs) = ring_at(0, format(4, 1));
    assert_eq!(producer.push(&[1.0, 2.0, 3.0]), 3);
    assert_eq!(producer.push(&[4.0, 5.0, 6.0]), 1);
    assert_eq!((producer.overruns(), producer.free()), (2, 0));
    assert_eq!(
        theirs.load_u32(READ, Ordering::Relaxed),
        0,
        "the producer moved the read index"
    );
    let mut out = [0.0; 4];
    consumer.fill(&mut out);
    assert_eq!(out, [1.0, 2.0, 3.0, 4.0]);
}

#[test]
fn s3_71_an_empty_ring_gives_silence_and_counts_missing_frames() {
    let (mut producer, mut consumer, ..) = ring_at(0, format(4, 2));
    producer.push(&[1.0, 2.0]);
    let mut out = [9.0; 6];
    assert_eq!(
        consumer.fill(&mut out),
        Fill {
            frames: 1,
            missing: 2
        }
    );
    assert_eq!(out, [1.0, 2.0, 0.0, 0.0, 0.0, 0.0]);
    assert_eq!((consumer.underruns(), producer.underruns()), (2, 2));
}

#[test]
fn an_incomplete_last_frame_is_ignored() {
    let (mut producer, ..) = ring_at(0, format(4, 2));
    assert_eq!(producer.push(&[1.0, 2.0, 3.0]), 1);
    assert_eq!(producer.overruns(), 0);
}

#[test]
fn samples_that_are_no_numbers_become_silence() {
    let (mut producer, mut consumer, ..) = ring_at(0, format(4, 1));
    producer.push(&[f32::NAN, f32::INFINITY, 0.5]);
    let mut out = [9.0; 3];
    consumer.fill(&mut out);
    assert_eq!(out, [0.0, 0.0, 0.5]);
}

#[test]
fn a_hostile_index_costs_sound_and_no_more() {
    let (mut producer, mut consumer, ours, theirs) = ring_at(0, format(4, 2));
    for lie in [1, 5, 1 << 31, u32::MAX] {
        theirs.store_u32(READ, lie, Ordering::Relaxed);
        assert!(producer.push(&[0.0; 64]) <= 4);
        ours.store_u32(WRITE, lie, Ordering::Relaxed);
        assert!(consumer.fill(&mut [0.0; 64]).frames <= 4);
    }
}

#[test]
fn s3_73_a_lying_header_is_an_error_and_silence() {
    for (at, value) in [
        (0, 1),
        (4, 9),
        (8, 1),
        (12, 0),
        (12, 3),
        (16, 0),
        (16, 9600),
        (16, 1 << 31),
    ] {
        let (_, _, ours, theirs) = ring_at(0, format(4, 2));
        ours.store_u32(at, value, Ordering::Relaxed);
        let mut consumer: Consumer = PlaybackConsumer::attach(theirs, ours.view().clone(), 48_000);
        assert!(consumer.refresh().is_err(), "word at {at} = {value}");
        let mut out = [9.0; 4];
        assert_eq!(
            consumer.fill(&mut out),
            Fill {
                frames: 0,
                missing: 0
            }
        );
        assert_eq!(out, [0.0; 4]);
    }
}

#[test]
fn a_ring_that_is_not_made_yet_is_silent_and_no_error() {
    let mut consumer: Consumer =
        PlaybackConsumer::attach(part(HEAD_BYTES), part(RING_BYTES).view().clone(), 48_000);
    assert_eq!(consumer.refresh(), Ok(None));
    assert_eq!(
        consumer.fill(&mut [1.0; 4]),
        Fill {
            frames: 0,
            missing: 0
        }
    );
}

#[test]
fn a_change_of_format_empties_the_ring_and_is_noticed() {
    let (mut producer, mut consumer, ..) = ring_at(7, format(4, 2));
    producer.push(&[1.0; 8]);
    producer.set_format(format(8, 1));
    let mut out = [9.0; 4];
    assert_eq!(
        consumer.fill(&mut out),
        Fill {
            frames: 0,
            missing: 0
        }
    );
    assert_eq!(out, [0.0; 4], "samples of the old format");
    assert_eq!(consumer.refresh(), Ok(Some(format(8, 1))));
    assert_eq!(consumer.level(), 0);
    producer.push(&[0.25; 3]);
    assert_eq!(consumer.fill(&mut out).frames, 3);
}

#[test]
fn a_producer_has_the_whole_ring_before_its_consumer_notices_a_change_of_format() {
    let (mut producer, mut consumer, _, theirs) = ring_at(0, format(4, 1));
    producer.push(&[1.0; 4]);
    producer.set_format(format(4, 1));
    // An index that the consumer stored late, for the stream before.
    theirs.store_u32(READ, 3, Ordering::Relaxed);
    assert_eq!(producer.push(&[2.0, 3.0, 4.0, 5.0, 6.0]), 4);
    consumer.refresh().expect("a good ring");
    let mut out = [0.0; 4];
    assert_eq!(consumer.fill(&mut out).frames, 4);
    assert_eq!(out, [2.0, 3.0, 4.0, 5.0]);
}

#[test]
fn s3_74_a_successor_of_either_side_goes_on_where_it_stood() {
    let (mut producer, mut consumer, ours, theirs) = ring_at(0, format(8, 1));
    producer.push(&[1.0, 2.0, 3.0]);
    consumer.fill(&mut [0.0; 1]);
    let mut producer: Producer = PlaybackProducer::attach(ours.clone(), theirs.view().clone(), format(8, 1));
    let mut consumer: Consumer = PlaybackConsumer::attach(theirs, ours.view().clone(), 48_000);
    assert_eq!(consumer.refresh(), Ok(Some(format(8, 1))));
    producer.push(&[4.0]);
    let mut out = [0.0; 3];
    assert_eq!(consumer.fill(&mut out).frames, 3);
    assert_eq!(out, [2.0, 3.0, 4.0]);
}

#[test]
fn s3_75_the_producer_learns_the_rate_of_the_host() {
    let (ours, theirs) = (part(RING_BYTES), part(HEAD_BYTES));
    let producer: Producer = PlaybackProducer::attach(ours.clone(), theirs.view().clone(), format(4, 2));
    assert_eq!(producer.host_rate(), None);
    let _: Consumer = PlaybackConsumer::attach(theirs, ours.view().clone(), 44_100);
    assert_eq!(producer.host_rate(), Some(44_100));
}

#[test]
fn s3_77_a_snapshot_keeps_the_level_and_restores_silence() {
    let (mut producer, mut consumer, ..) = ring_at(u32::MAX, format(8, 2));
    producer.push(&[0.5; 10]);
    producer.push(&[0.5; 10]);
    let (snapshot, overruns) = (producer.snapshot(), producer.overruns());
    producer.restore(&snapshot);
    assert_eq!(consumer.refresh(), Ok(Some(format(8, 2))));
    assert_eq!((consumer.level(), producer.overruns()), (8, overruns));
    let mut out = [9.0; 16];
    assert_eq!(consumer.fill(&mut out).frames, 8);
    assert_eq!(out, [0.0; 16]);
}

#[test]
fn s3_73_a_hostile_snapshot_is_clamped() {
    let (mut producer, ..) = ring_at(0, format(8, 2));
    producer.restore(&PlaybackSnapshot {
        read: 5,
        write: 4,
        rate: 1,
        channels: 77,
        capacity: u32::MAX,
    });
    assert_eq!(
        producer.format(),
        Format {
            rate: 8000,
            channels: 2,
            capacity: RING_FRAMES_MAX
        }
    );
    assert_eq!(producer.level(), RING_FRAMES_MAX);
}

fn microphone() -> (CaptureProducer<ViewMut, View>, ViewMut, ViewMut) {
    let (ours, theirs) = (part(RING_BYTES), part(HEAD_BYTES));
    (
        CaptureProducer::attach(ours.clone(), theirs.view().clone(), 8000),
        ours,
        theirs,
    )
}

#[test]
fn s3_76_a_full_capture_ring_keeps_the_latest_of_the_block() {
    let (mut producer, ours, theirs) = microphone();
    let mut consumer = CaptureConsumer::attach(theirs, ours.view().clone())
        .expect("a good ring")
        .expect("a ring");
    let capacity = Format::new(8000, 1).capacity as usize;
    producer.push(&vec![1.0; capacity - 2]);
    producer.push(&[10.0, 11.0, 12.0, 13.0, 14.0]);
    assert_eq!(producer.dropped(), 3);
    let mut out = vec![0.0; capacity];
    assert_eq!(consumer.fill(&mut out) as usize, capacity);
    assert_eq!(out[capacity - 3..], [1.0, 13.0, 14.0]);
    producer.push(&vec![2.0; capacity + 1]);
    assert_eq!(producer.dropped(), 4);
}

#[test]
fn s3_76_on_attach_and_resume_nothing_stale_is_heard() {
    let (mut producer, ours, theirs) = microphone();
    producer.push(&[1.0; 5]);
    let mut consumer = CaptureConsumer::attach(theirs, ours.view().clone())
        .expect("a good ring")
        .expect("a ring");
    assert_eq!(consumer.level(), 0);
    producer.push(&[2.0; 5]);
    consumer.resume();
    producer.push(&[3.0]);
    let mut out = [9.0; 2];
    assert_eq!(consumer.fill(&mut out), 1);
    assert_eq!(out, [3.0, 0.0]);
}

#[test]
fn a_lying_capture_header_is_refused() {
    for (at, value) in [(0, 1), (4, 9), (8, 0), (8, 1000), (8, 1 << 31)] {
        let (_, ours, theirs) = microphone();
        ours.store_u32(at, value, Ordering::Relaxed);
        assert!(
            CaptureConsumer::attach(theirs, ours.view().clone()).is_err(),
            "word at {at} = {value}"
        );
    }
}

#[test]
fn two_threads_pass_a_long_stream_without_loss_or_change() {
    let (mut producer, mut consumer, ..) = ring_at(u32::MAX - 1000, format(64, 2));
    const FRAMES: u32 = 20_000;
    let writer = std::thread::spawn(move || {
        let mut sent = 0;
        while sent < FRAMES {
            if producer.free() > 0 {
                sent += producer.push(&[sent as f32, -(sent as f32)]);
            } else {
                std::thread::yield_now();
            }
        }
    });
    let mut heard = 0;
    while heard < FRAMES {
        let mut out = [0.0; 32];
        let got = consumer.fill(&mut out).frames;
        for frame in out.chunks_exact(2).take(got as usize) {
            assert_eq!(frame, [heard as f32, -(heard as f32)]);
            heard += 1;
        }
        if got == 0 {
            std::thread::yield_now();
        }
    }
    writer.join().expect("writer");
}
