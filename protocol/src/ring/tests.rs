//! One behaviour each; what needs two processes, the model checker or a hostile peer is in `tests/`.

use std::sync::Arc;

use super::*;
use crate::shm::{Map, View, ViewMut};

struct Ring {
    producer_part: ViewMut,
    consumer_part: ViewMut,
}

impl Ring {
    fn at(capacity: usize, cursor: u32) -> Self {
        let part = |len| ViewMut::new(Arc::new(Map::anonymous(len).unwrap())).slice(0, len as usize);
        let ring = Self {
            producer_part: part(ring_size(capacity) as u64),
            consumer_part: part(128),
        };
        format(
            &ring.producer_part,
            &ring.consumer_part,
            Position { cursor, number: 0 },
        );
        ring
    }

    fn producer(&self) -> Producer {
        Producer::attach(self.producer_part.clone(), self.consumer_part.view().clone()).unwrap()
    }

    fn consumer(&self) -> Consumer {
        Consumer::attach_at_head(self.consumer_part.clone(), self.producer_part.view().clone()).unwrap()
    }

    fn ends(capacity: usize, cursor: u32) -> (Producer, Consumer) {
        let ring = Self::at(capacity, cursor);
        (ring.producer(), ring.consumer())
    }
}

fn pop(c: &mut Consumer) -> Option<Vec<u8>> {
    let mut buf = [0; 4096];
    let record = c.next(&mut buf).unwrap()?;
    c.release_all();
    Some(buf[..record.len].to_vec())
}

#[test]
fn s3_45_s3_46_records_lie_as_length_bytes_padding_and_wrap_with_a_marker() {
    let ring = Ring::at(64, 0);
    let (mut p, mut c) = (ring.producer(), ring.consumer());
    p.push(&[0xAA; 27]).unwrap();
    p.push(&[0xBB; 20]).unwrap();
    assert_eq!(pop(&mut c).unwrap(), [0xAA; 27]);
    p.push(b"wrapped").unwrap();
    let word = |at| ring.producer_part.load_u32(RING_HEADER + at, Ordering::Relaxed);
    assert_eq!((word(0), word(32), word(56)), (7, 20, WRAP_MARKER));
    assert_eq!(
        ring.producer_part.load_u64(0, Ordering::Relaxed),
        (3 << 32) | (64 + 12)
    );
    assert_eq!(pop(&mut c).unwrap(), [0xBB; 20]);
    assert_eq!(pop(&mut c).unwrap(), b"wrapped");
    assert_eq!(pop(&mut c), None);
}

#[test]
fn s3_45_an_empty_record_is_a_record() {
    let (mut p, mut c) = Ring::ends(64, 0);
    p.push(&[]).unwrap();
    assert_eq!(pop(&mut c).unwrap(), []);
    assert_eq!(pop(&mut c), None);
}

#[test]
fn s3_49_four_one_byte_records_fill_32_bytes_and_the_ring_is_reusable_after_draining() {
    let (mut p, mut c) = Ring::ends(32, 0);
    for round in 0..5 {
        for i in 0..4 {
            p.push(&[round * 4 + i]).unwrap();
        }
        assert_eq!(p.push(&[99]), Err(PushError::Full { len: 1 }));
        for i in 0..4 {
            assert_eq!(pop(&mut c).unwrap(), [round * 4 + i]);
        }
    }
}

#[test]
fn s3_48_s3_61_a_record_beyond_half_of_the_ring_is_refused_and_one_of_half_fits() {
    let (mut p, mut c) = Ring::ends(64, 0);
    assert_eq!(p.push(&[1; 29]), Err(PushError::TooLarge { len: 29, max: 28 }));
    p.push(&[1; 28]).unwrap();
    assert_eq!(pop(&mut c).unwrap().len(), 28);
}

#[test]
fn s3_61_every_length_fits_every_empty_ring_at_every_tail() {
    for capacity in [16usize, 32, 64, 128] {
        for tail in (0..capacity as u32).step_by(4) {
            for len in 0..=capacity / 2 - 4 {
                let (mut p, mut c) = Ring::ends(capacity, tail);
                let payload: Vec<u8> = (0..len as u8).collect();
                p.push(&payload)
                    .unwrap_or_else(|e| panic!("cap {capacity} tail {tail} len {len}: {e}"));
                assert_eq!(pop(&mut c).unwrap(), payload);
            }
        }
    }
}

#[test]
fn s3_60_cursors_wrap_past_2_32() {
    for capacity in [64, 256] {
        let (mut p, mut c) = Ring::ends(capacity, u32::MAX - 63);
        for i in 0..100u8 {
            let payload = vec![i; 1 + i as usize % 28];
            p.push(&payload).unwrap();
            assert_eq!(pop(&mut c).unwrap(), payload);
            p.push(&payload[..1]).unwrap();
            assert_eq!(pop(&mut c).unwrap(), payload[..1]);
        }
    }
}

#[test]
fn s3_60_a_capacity_that_is_no_power_of_two_is_refused() {
    let part = |len: usize| ViewMut::new(Arc::new(Map::anonymous(len as u64).unwrap())).slice(0, len);
    for capacity in [0, 4, 8, 48, 100] {
        let size = ring_size(capacity);
        let e = Producer::attach(part(size), part(128).view().clone()).unwrap_err();
        assert_eq!(e, PushError::Capacity(size));
        let e = Consumer::attach_at_head(part(128), part(size).view().clone()).unwrap_err();
        assert_eq!(e, PopError::Capacity(size));
    }
}

#[test]
fn s3_47_staged_records_are_invisible_until_published_and_then_all_there() {
    let (mut p, mut c) = Ring::ends(256, 0);
    assert_eq!(p.stage(b"one"), Ok(1));
    assert_eq!(p.stage_two(b"t", b"wo"), Ok(2));
    assert!(!c.has_pending());
    assert_eq!(pop(&mut c), None);
    p.publish();
    assert!(c.has_pending());
    assert_eq!(pop(&mut c).unwrap(), b"one");
    assert_eq!(pop(&mut c).unwrap(), b"two");
}

#[test]
fn the_head_moves_only_with_a_release_and_a_successor_reads_again_from_the_committed_position() {
    let ring = Ring::at(64, 0);
    let (mut p, mut c) = (ring.producer(), ring.consumer());
    for i in 0..6u8 {
        p.push(&[i; 4]).unwrap();
    }
    let mut buf = [0; 8];
    c.next(&mut buf).unwrap();
    c.next(&mut buf).unwrap();
    let committed = c.position();
    c.next(&mut buf).unwrap();
    assert_eq!(p.released(), Ok(0));
    assert!(!p.is_drained().unwrap());
    drop(c);
    let mut c = Consumer::attach(
        ring.consumer_part.clone(),
        ring.producer_part.view().clone(),
        committed,
    )
    .unwrap();
    assert_eq!(p.released(), Ok(2));
    assert_eq!(c.next(&mut buf), Ok(Some(Record { len: 4, number: 3 })));
    assert_eq!(buf[0], 2);
}

#[test]
fn a_successor_of_the_producer_goes_on_with_the_numbers() {
    let ring = Ring::at(64, 0);
    let mut c = ring.consumer();
    let mut p = ring.producer();
    for _ in 0..3 {
        p.push(b"abcd").unwrap();
    }
    assert_eq!(pop(&mut c).unwrap(), b"abcd");
    p.stage(b"lost").unwrap();
    drop(p);
    let mut p = ring.producer();
    assert_eq!(p.number(), 3);
    assert_eq!(p.push(b"next"), Ok(4));
    assert_eq!(pop(&mut c).unwrap(), b"abcd");
    assert_eq!(pop(&mut c).unwrap(), b"abcd");
    assert_eq!(pop(&mut c).unwrap(), b"next");
    assert!(p.is_drained().unwrap());
}

#[test]
fn numbers_pass_2_32() {
    let ring = Ring::at(64, 0);
    let start = Position {
        cursor: 0,
        number: 0xFFFF_FFFE,
    };
    format(&ring.producer_part, &ring.consumer_part, start);
    let (mut p, mut c) = (ring.producer(), ring.consumer());
    for n in 0xFFFF_FFFFu64..0x1_0000_0004 {
        assert_eq!(p.push(b"x"), Ok(n));
        assert_eq!(c.next(&mut [0; 4]).unwrap().unwrap().number, n);
        c.release_all();
        assert_eq!(p.released(), Ok(n));
    }
    assert_eq!(ring.producer().number(), 0x1_0000_0003);
    assert_eq!(ring.consumer().position().number, 0x1_0000_0003);
}

#[test]
fn s3_48_a_record_beyond_the_readers_buffer_is_dropped_and_the_next_one_read() {
    let (mut p, mut c) = Ring::ends(64, 0);
    p.push(&[1; 20]).unwrap();
    p.push(&[2; 4]).unwrap();
    assert_eq!(c.next(&mut [0; 8]), Err(PopError::TooLarge { len: 20, max: 8 }));
    assert_eq!(c.next(&mut [0; 8]), Ok(Some(Record { len: 4, number: 2 })));
}

#[test]
fn s3_63_a_tail_that_no_producer_publishes_is_corrupt_and_stays_so() {
    for tail in [3, 68, 64 + 4, u32::MAX - 3] {
        let ring = Ring::at(64, 0);
        let mut c = ring.consumer();
        ring.producer_part
            .store_u64(0, u64::from(tail), Ordering::Relaxed);
        for _ in 0..3 {
            assert_eq!(
                c.next(&mut [0; 64]),
                Err(PopError::Tail {
                    tail,
                    read: 0,
                    head: 0
                })
            );
        }
    }
}

#[test]
fn s3_63_a_producer_after_one_that_lied_begins_anew_where_the_consumer_is() {
    for (tail, head) in [(3_u32, 0_u32), (68, 0), (u32::MAX - 3, 64), (0, 32), (40, 44)] {
        let ring = Ring::at(64, 0);
        ring.producer_part
            .store_u64(0, u64::from(tail), Ordering::Relaxed);
        ring.consumer_part
            .store_u64(0, 5 << 32 | u64::from(head), Ordering::Relaxed);
        ring.consumer_part.store_u64(8, 5, Ordering::Relaxed);
        let (mut p, mut c) = (ring.producer(), ring.consumer());
        assert_eq!(p.push(b"anew"), Ok(6), "{tail} {head}");
        assert_eq!(pop(&mut c).unwrap(), b"anew", "{tail} {head}");
        assert_eq!(pop(&mut c), None);
    }
}

#[test]
fn s3_63_length_words_are_checked_against_the_ring() {
    for len in [29, 61, WRAP_MARKER, 0x8000_0000, 13] {
        let ring = Ring::at(64, 0);
        let mut c = ring.consumer();
        ring.producer_part.store_u32(RING_HEADER, len, Ordering::Relaxed);
        ring.producer_part.store_u64(0, 16, Ordering::Relaxed);
        let e = c.next(&mut [0; 64]).unwrap_err();
        assert_eq!(
            e,
            PopError::Length {
                len,
                read: 0,
                available: 16
            }
        );
        assert!(e.is_corrupt());
        assert_eq!(c.skip_to_tail().cursor, 16);
        assert_eq!(c.next(&mut [0; 64]), Ok(None));
    }
}

#[test]
fn s3_63_a_marker_without_a_record_behind_it_is_corrupt() {
    let ring = Ring::at(64, 32);
    let mut c = ring.consumer();
    ring.producer_part
        .store_u32(RING_HEADER + 32, WRAP_MARKER, Ordering::Relaxed);
    ring.producer_part.store_u64(0, 64, Ordering::Relaxed);
    assert!(c.next(&mut [0; 64]).unwrap_err().is_corrupt());
}

#[test]
fn s3_63_a_lying_head_is_an_error_and_not_a_spin() {
    let ring = Ring::at(32, 0);
    let mut p = ring.producer();
    for _ in 0..4 {
        p.push(&[0]).unwrap();
    }
    for head in [36u32, 64, u32::MAX - 3] {
        ring.consumer_part
            .store_u64(0, u64::from(head), Ordering::Relaxed);
        assert_eq!(
            p.push(&[0]),
            Err(PushError::Head {
                head,
                from: 0,
                tail: 32
            })
        );
        assert_eq!(
            p.is_drained(),
            Err(PushError::Head {
                head,
                from: 0,
                tail: 32
            })
        );
    }
    ring.consumer_part.store_u64(0, 8, Ordering::Relaxed);
    p.push(&[0]).unwrap();
    ring.consumer_part.store_u64(0, 4, Ordering::Relaxed);
    assert!(matches!(
        p.push(&[0]),
        Err(PushError::Head { head: 4, from: 8, .. })
    ));
}

#[test]
fn a_skip_passes_over_everything_published_and_keeps_the_numbers() {
    let (mut p, mut c) = Ring::ends(64, 0);
    for _ in 0..5 {
        p.push(b"old!").unwrap();
    }
    let at = c.skip_to_tail();
    assert_eq!(at.number, 5);
    c.release_skipped(at);
    assert!(p.is_drained().unwrap());
    assert_eq!(p.push(b"new!"), Ok(6));
    assert_eq!(pop(&mut c).unwrap(), b"new!");
}

#[test]
fn many_records_cross_two_threads_in_order() {
    let ring = Ring::at(8192, u32::MAX - 8191);
    let (mut p, mut c) = (ring.producer(), ring.consumer());
    let total = 100_000u32;
    let thread = std::thread::spawn(move || {
        for i in 0..total {
            let payload = i.to_le_bytes();
            while let Err(e) = p.push(&payload[..]) {
                assert!(matches!(e, PushError::Full { .. }), "{e}");
                std::thread::yield_now();
            }
        }
    });
    let mut buf = [0; 16];
    let mut expected = 0;
    while expected < total {
        match c.next(&mut buf).unwrap() {
            Some(r) => {
                assert_eq!((r.len, r.number), (4, u64::from(expected) + 1));
                assert_eq!(u32::from_le_bytes(buf[..4].try_into().unwrap()), expected);
                expected += 1;
                c.release_all();
            }
            None => std::thread::yield_now(),
        }
    }
    thread.join().unwrap();
}

#[allow(dead_code, reason = "the default types are what other crates name")]
fn default_types(_: Producer<ViewMut, View>, _: Consumer<ViewMut, View>) {}

#[test]
fn s3_63_a_misaligned_tail_that_was_passed_over_is_nothing_new() {
    let ring = Ring::at(64, 0);
    let (p, mut consumer) = (&ring.producer_part, ring.consumer());
    p.store_u64(0, 7, Ordering::Release);
    assert!(consumer.has_pending());
    assert!(consumer.next(&mut [0; 8]).unwrap_err().is_corrupt());
    let at = consumer.skip_to_tail();
    consumer.release_skipped(at);
    assert!(!consumer.has_pending());
    assert_eq!(consumer.next(&mut [0; 8]), Ok(None));
    // Any other word is looked at again.
    p.store_u64(0, 5, Ordering::Release);
    assert!(consumer.has_pending());
    assert!(consumer.next(&mut [0; 8]).unwrap_err().is_corrupt());
}
