//! The record ring under the model checker: order, contents, wrap, and the space that a release gives back.
//!
//! What loom cannot show: that the head needs its release store, since it never lets a load see a store of the
//! future. `tests/processes.rs` leans on that side.
#![cfg(loom)]

mod loom_support;

use loom::thread;
use loom_support::{Words, model};
use quintet_protocol::ring::{self, Consumer, Position, Producer, PushError};

fn ends(capacity: usize, cursor: u32) -> (Producer<Words, Words>, Consumer<Words, Words>) {
    let (p, c) = (Words::new(ring::ring_size(capacity)), Words::new(128));
    ring::format(&p, &c, Position { cursor, number: 0 });
    let producer = Producer::attach(p.clone(), c.clone()).unwrap();
    (producer, Consumer::attach_at_head(c, p).unwrap())
}

/// Records one to three, through a ring that holds two, with cursors that pass 2^32.
fn through(cursor: u32, release_each: bool) {
    model(move || {
        let (mut p, mut c) = ends(16, cursor);
        let thread = thread::spawn(move || {
            for n in 1..=3u32 {
                while let Err(e) = p.push(&n.to_le_bytes()) {
                    assert!(matches!(e, PushError::Full { .. }), "{e}");
                    thread::yield_now();
                }
            }
        });
        let mut buf = [0; 4];
        let mut next = 1;
        while next <= 3 {
            match c.next(&mut buf).unwrap() {
                Some(record) => {
                    assert_eq!((record.len, record.number), (4, u64::from(next)));
                    assert_eq!(u32::from_le_bytes(buf), next);
                    next += 1;
                    if release_each || next == 3 {
                        c.release_all();
                    }
                }
                None => thread::yield_now(),
            }
        }
        thread.join().unwrap();
    });
}

#[test]
fn s3_112_records_arrive_whole_and_in_order() {
    through(0, true);
}

#[test]
fn s3_60_and_when_the_cursors_pass_2_32() {
    through(u32::MAX - 7, true);
}

#[test]
fn and_when_the_consumer_releases_late() {
    through(8, false);
}

#[test]
fn a_batch_is_seen_whole_or_not_at_all_per_record_and_the_marker_never_alone() {
    model(|| {
        let (mut p, mut c) = ends(32, 24);
        let thread = thread::spawn(move || {
            // Eight bytes are left before the end: a record of twelve needs the marker.
            p.stage(&[1; 8]).unwrap();
            p.stage(&[2; 4]).unwrap();
            p.publish();
        });
        let mut buf = [0; 8];
        let mut seen = Vec::new();
        while seen.len() < 2 {
            match c.next(&mut buf).unwrap() {
                Some(record) => seen.push((record.len, buf[0])),
                None => thread::yield_now(),
            }
        }
        assert_eq!(seen, [(8, 1), (4, 2)]);
        thread.join().unwrap();
    });
}
