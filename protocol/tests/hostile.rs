//! A hostile peer: somebody who may write the peer's file scribbles over words and contents while this end works
//! (S3.63). Each end answers with typed errors; it never hangs, panics, or reads outside.
#![cfg(not(loom))]

use std::sync::Arc;

use quintet_protocol::decode_map::{DECODE_MAP_SIZE, DecodeMap, DecodeMapReader, DecodeMapWriter};
use quintet_protocol::message::{Command, Event};
use quintet_protocol::reply::{REPLY_DATA, REPLY_SIZE, ReplyReader};
use quintet_protocol::ring::{self, Consumer, Producer, PushError};
use quintet_protocol::shm::{Map, Segment, ViewMut};
use quintet_protocol::stream::{StreamReader, StreamWriter, stream_size};
use quintet_protocol::sync::{AtomicBool, Ordering};
use quintet_protocol::wires::{LINES, WIRES_SIZE, WireReader};

/// Two maps of one file: the victim's and the scribbler's.
fn twice(len: usize) -> (ViewMut, ViewMut) {
    let segment = Segment::create("hostile", len as u64).unwrap();
    let map = || {
        ViewMut::new(Arc::new(
            Map::read_write(segment.writer(), 0, len as u64).unwrap(),
        ))
    };
    (map(), map())
}

/// A small generator: the same scribbles every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// A word that is likely to be nearly right.
fn plausible(r: &mut Random, current: u32) -> u32 {
    let n = r.next();
    match n % 8 {
        0 => n as u32,
        1 => u32::MAX,
        2 => current.wrapping_add(4),
        3 => current.wrapping_sub(4),
        4 => current.wrapping_add((n >> 8) as u32 % 128),
        // A length that fits.
        5 | 6 => 4,
        _ => current ^ 1 << ((n >> 8) % 32),
    }
}

/// Scribbles over `memory` until `victim` returns.
fn while_scribbling(memory: ViewMut, seed: u64, victim: impl FnOnce()) {
    let stop = Arc::new(AtomicBool::new(false));
    let scribbler = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            let mut r = Random(seed);
            while !stop.load(Ordering::Relaxed) {
                // The header words as often as the contents.
                let words = memory.len() / 4;
                let at = if r.next().is_multiple_of(2) {
                    r.next() as usize % 4
                } else {
                    r.next() as usize % words
                } * 4;
                let value = plausible(&mut r, memory.load_u32(at, Ordering::Relaxed));
                memory.store_u32(at, value, Ordering::Relaxed);
                if r.next().is_multiple_of(16) {
                    std::thread::yield_now();
                }
            }
        }
    });
    victim();
    stop.store(true, Ordering::Relaxed);
    scribbler.join().unwrap();
}

#[test]
fn s3_63_a_consumer_survives_a_scribbling_producer() {
    let (mine, theirs) = twice(ring::ring_size(256));
    let head = ViewMut::new(Arc::new(Map::anonymous(128).unwrap()));
    let mut c = Consumer::attach_at_head(head, mine.view().clone()).unwrap();
    let (mut records, mut errors) = (0, 0);
    while_scribbling(theirs, 0x9E37_79B9_7F4A_7C15, || {
        let mut buf = [0; 64];
        for n in 0..100_000_000u32 {
            // Both sides of the coin, however the host schedules the two threads.
            if n > 100_000 && records > 100 && errors > 100 {
                break;
            }
            if n.is_multiple_of(256) {
                std::thread::yield_now();
            }
            match c.next(&mut buf) {
                Ok(Some(record)) => {
                    records += 1;
                    assert!(record.len <= buf.len());
                    // Copied out, then parsed.
                    let _ = Command::decode(&buf[..record.len]);
                    let _ = Event::decode(&buf[..record.len]);
                    c.release_all();
                }
                Ok(None) => {}
                Err(e) => {
                    errors += 1;
                    if e.is_corrupt() {
                        let at = c.skip_to_tail();
                        c.release_skipped(at);
                    }
                }
            }
        }
    });
    assert!(
        records > 100 && errors > 100,
        "{records} records, {errors} errors: the scribbles hit nothing"
    );
}

#[test]
fn s3_63_a_producer_survives_a_scribbling_consumer() {
    let (mine, theirs) = twice(4096);
    let records = ViewMut::new(Arc::new(Map::anonymous(4096).unwrap())).slice(0, ring::ring_size(256));
    let (mut pushed, mut refused) = (0, 0);
    while_scribbling(theirs.slice(0, 16), 42, || {
        let attach = || Producer::attach(records.clone(), mine.view().clone());
        let mut producer = None;
        for n in 0..100_000_000u32 {
            if n > 100_000 && pushed > 10 && refused > 10 {
                break;
            }
            if n.is_multiple_of(256) {
                std::thread::yield_now();
            }
            let p = match &mut producer {
                Some(p) => p,
                None => match attach() {
                    Ok(p) => producer.insert(p),
                    Err(_) => continue,
                },
            };
            match p.push(&n.to_le_bytes()) {
                Ok(_) => pushed += 1,
                Err(PushError::Full { .. }) => {}
                Err(_) => {
                    refused += 1;
                    let _ = (p.released(), p.is_drained());
                    producer = None;
                }
            }
        }
    });
    assert!(pushed > 10 && refused > 10, "{pushed} pushed, {refused} refused");
}

#[test]
fn s3_63_streams_survive_both_ways() {
    let (mine, theirs) = twice(stream_size(64));
    let head = ViewMut::new(Arc::new(Map::anonymous(128).unwrap()));
    while_scribbling(theirs, 7, || {
        let mut buf = [0; 100];
        for _ in 0..100_000 {
            let Ok(mut r) = StreamReader::attach(head.clone(), mine.view().clone(), 0) else {
                continue;
            };
            let n = r.read(&mut buf).unwrap_or(0);
            assert!(n <= 64);
            r.release(r.position());
        }
    });
    let (mine, theirs) = twice(4096);
    let data = ViewMut::new(Arc::new(Map::anonymous(4096).unwrap())).slice(0, stream_size(64));
    while_scribbling(theirs.slice(0, 16), 8, || {
        for _ in 0..100_000 {
            let Ok(mut w) = StreamWriter::attach(data.clone(), mine.view().clone(), 0) else {
                continue;
            };
            assert!(w.write(&[1; 100]).unwrap_or(0) <= 64);
            w.publish(w.position());
        }
    });
}

#[test]
fn s3_63_replies_wires_and_decode_maps_survive() {
    let (mine, theirs) = twice(REPLY_SIZE);
    let reader = ReplyReader::new(mine.view().clone());
    while_scribbling(theirs, 9, || {
        let mut page = [0; REPLY_DATA];
        for number in 0..50_000u64 {
            if let Ok(Some((_, len))) = reader.take(number % 64, &mut page) {
                assert!(len <= REPLY_DATA);
            }
        }
    });
    let (mine, theirs) = twice(WIRES_SIZE);
    let mut wires = WireReader::new(mine.view().clone());
    while_scribbling(theirs, 10, || {
        for _ in 0..20_000 {
            wires.changes(|c| assert!(c.line < LINES));
        }
    });
    let (mine, theirs) = twice(DECODE_MAP_SIZE);
    DecodeMapWriter::new(mine.clone())
        .publish(&DecodeMap::default())
        .unwrap();
    let map = DecodeMapReader::new(mine.view().clone());
    while_scribbling(theirs, 11, || {
        for _ in 0..200 {
            if let Ok((_, map)) = map.read() {
                assert_eq!(map.validate(), Ok(()));
            }
        }
    });
}
