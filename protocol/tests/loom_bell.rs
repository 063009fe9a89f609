//! Doorbells, exit word and wires under the model checker: no reason is lost, nobody sleeps through a ring.
#![cfg(loom)]

mod loom_support;

use loom::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use loom::thread;
use loom_support::{Words, model};
use quintet_protocol::doorbell::{Bell, Ear};
use quintet_protocol::ring::{self, Consumer, Position, Producer};
use quintet_protocol::wires::{WIRES_SIZE, Wire, WireReader, WireWriter};
use quintet_protocol::words::{ReadWords, WriteWords};

fn pair() -> (Bell<Words, Words>, Ear<Words, Words>) {
    let (word, asleep) = (Words::new(8), Words::new(8));
    (
        Bell {
            word: word.clone(),
            asleep: asleep.clone(),
        },
        Ear { word, asleep },
    )
}

#[test]
fn every_reason_is_seen_by_the_owner_that_took_its_ring() {
    model(|| {
        let (bell, ear) = pair();
        let reasons = Words::new(8);
        let raisers: Vec<_> = [0, 4]
            .into_iter()
            .map(|at| {
                let (bell, reasons) = (bell.clone(), reasons.clone());
                thread::spawn(move || {
                    reasons.store_u32(at, 1, Relaxed);
                    bell.set();
                })
            })
            .collect();
        let look = || (reasons.load_u32(0, Relaxed), reasons.load_u32(4, Relaxed));
        let mut seen = (0, 0);
        if ear.take() {
            seen = look();
        }
        raisers.into_iter().for_each(|t| t.join().unwrap());
        // Nothing rung since: then the first take was the last, and had to see both.
        if ear.take() {
            seen = look();
        }
        assert_eq!(seen, (1, 1));
    });
}

/// A ringer and an owner that goes to sleep; either may forget its fence.
fn go_to_sleep(ringer_fences: bool, owner_fences: bool) {
    model(move || {
        let (mut bell, mut ear) = pair();
        if !ringer_fences {
            bell.asleep = bell.asleep.without_fences();
        }
        if !owner_fences {
            ear.asleep = ear.asleep.without_fences();
        }
        let ringer = thread::spawn(move || bell.set());
        ear.announce();
        let sleeps = !ear.rung();
        let wakes = ringer.join().unwrap();
        assert!(!sleeps || wakes, "asleep and not woken");
    });
}

#[test]
fn an_owner_that_goes_to_sleep_is_woken_or_sees_the_word() {
    go_to_sleep(true, true);
}

#[test]
#[should_panic(expected = "asleep and not woken")]
fn the_ringers_fence_is_needed() {
    go_to_sleep(false, true);
}

#[test]
#[should_panic(expected = "asleep and not woken")]
fn the_owners_fence_is_needed() {
    go_to_sleep(true, false);
}

#[test]
fn a_nudge_after_a_push_wakes_a_consumer_that_saw_no_record() {
    model(|| {
        let (bell, ear) = pair();
        let (p, c) = (Words::new(ring::ring_size(16)), Words::new(128));
        ring::format(&p, &c, Position::default());
        let consumer = Consumer::attach_at_head(c.clone(), p.clone()).unwrap();
        let ringer = thread::spawn(move || {
            Producer::attach(p, c).unwrap().push(b"look").unwrap();
            bell.sleeping()
        });
        ear.announce();
        let sleeps = !consumer.has_pending() && !ear.rung();
        let wakes = ringer.join().unwrap();
        assert!(!sleeps || wakes, "asleep and not woken");
    });
}

#[test]
fn a_wire_published_before_the_ring_is_seen_after_the_take() {
    model(|| {
        let (bell, ear) = pair();
        let words = Words::new(WIRES_SIZE);
        let mut reader = WireReader::new(words.clone());
        // The first look visits every line; from here on only what moved.
        reader.changes(|_| {});
        let raiser = thread::spawn(move || {
            let mut writer = WireWriter::new(words);
            writer.publish(3, Wire { high: true, edges: 1 });
            writer.publish(
                3,
                Wire {
                    high: false,
                    edges: 1,
                },
            );
            bell.set();
        });
        let mut edges = 0;
        let mut high = false;
        let mut look = |reader: &mut WireReader<Words>| {
            reader.changes(|c| {
                edges += c.edges;
                high = c.high;
            });
        };
        if ear.take() {
            look(&mut reader);
        }
        raiser.join().unwrap();
        if ear.take() {
            look(&mut reader);
        }
        assert_eq!((edges, high), (1, false));
    });
}

#[test]
fn a_reply_seen_implies_the_wire_that_was_published_before_it() {
    model(|| {
        let words = Words::new(WIRES_SIZE);
        let mut reader = WireReader::new(words.clone());
        // The first look visits every line; from here on only what moved.
        reader.changes(|_| {});
        let reply = Words::new(8);
        let answer = reply.clone();
        let io = thread::spawn(move || {
            WireWriter::new(words).publish(3, Wire { high: true, edges: 1 });
            answer.store_u32(0, 1, Release);
        });
        if reply.load_u32(0, Acquire) == 1 {
            let mut seen = false;
            reader.changes(|c| seen |= c.line == 3 && c.high);
            assert!(seen);
        }
        io.join().unwrap();
    });
}

#[test]
fn a_look_for_another_reason_in_the_middle_of_a_publication_loses_nothing() {
    model(|| {
        let (bell, ear) = pair();
        let words = Words::new(WIRES_SIZE);
        let mut reader = WireReader::new(words.clone());
        reader.changes(|_| {});
        let raiser = thread::spawn(move || {
            WireWriter::new(words).publish(3, Wire { high: true, edges: 1 });
            bell.set();
        });
        let mut edges = 0;
        reader.changes(|c| edges += c.edges);
        raiser.join().unwrap();
        assert!(ear.take());
        reader.changes(|c| edges += c.edges);
        assert_eq!(edges, 1);
    });
}
