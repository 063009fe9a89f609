//! Two processes at work at once: order, wake-ups and whole records across a real process boundary (S3.112).
#![cfg(not(loom))]

mod process_support;

use process_support::{Shared, job, was_killed};
use quintet_protocol::doorbell::{Doorbell, Sleeper, SpinPolicy, Woken};
use quintet_protocol::ring::{self, Consumer, Producer, PushError};
use quintet_protocol::seqlock::{SeqReader, SeqWriter};
use quintet_protocol::shm::ViewMut;
use quintet_protocol::sync::Ordering;
use quintet_protocol::time::HostTime;

const CAPACITY: usize = 4096;
const RECORDS: u32 = 50_000;
const SECONDS: u64 = 1_000_000_000;

fn line(m: &ViewMut, n: usize) -> ViewMut {
    m.slice(n * 128, 128)
}

fn bell(m: &ViewMut, n: usize) -> Doorbell {
    Doorbell::new(line(m, n), line(m, n + 1).view().clone())
}

fn sleeper(m: &ViewMut, n: usize) -> Sleeper {
    Sleeper::new(line(m, n), line(m, n + 1), SpinPolicy::NEVER)
}

fn ring_parts(m: &ViewMut) -> (ViewMut, ViewMut) {
    (m.slice(8192, ring::ring_size(CAPACITY)), m.slice(4096, 128))
}

#[test]
fn helper_process() {
    let Some((job, _, m)) = job() else { return };
    match job.as_str() {
        "produce" => produce(&m),
        "seqlock" => {
            let mut writer = SeqWriter::new(m.slice(0, 1024));
            let mut n = 0u8;
            while m.load_u32(2048, Ordering::Relaxed) == 0 {
                n = n.wrapping_add(1);
                writer.write(&[n; 200]);
            }
        }
        other => panic!("no job {other}"),
    }
}

/// Pushes numbered records; sleeps on doorbell 2 while the ring is full.
fn produce(m: &ViewMut) {
    let (mine, peer) = ring_parts(m);
    let mut p = Producer::attach(mine, peer.view().clone()).unwrap();
    let (consumer, space) = (bell(m, 0), sleeper(m, 2));
    let mut payload = [0; 40];
    for n in 0..RECORDS {
        payload[..4].copy_from_slice(&n.to_le_bytes());
        let len = 4 + n as usize % 36;
        payload[4..len].fill(n as u8);
        loop {
            match p.push(&payload[..len]) {
                Ok(_) => break,
                Err(PushError::Full { .. }) => {
                    consumer.nudge();
                    let room = || p.has_room(len).unwrap();
                    assert_ne!(
                        space.wait(HostTime::after(60 * SECONDS), room),
                        Woken::Deadline,
                        "no space"
                    );
                }
                Err(e) => panic!("{e}"),
            }
        }
        consumer.nudge();
    }
}

#[test]
fn s3_50_records_cross_processes_in_order_and_both_ends_sleep_and_wake() {
    let shared = Shared::new(64 << 10);
    let m = &shared.memory;
    let (peer, mine) = ring_parts(m);
    let mut c = Consumer::attach_at_head(mine, peer.view().clone()).unwrap();
    let (ears, producer) = (sleeper(m, 0), bell(m, 2));
    let mut child = shared.spawn("produce", 0);
    let mut buf = [0; 64];
    let mut next = 0u32;
    while next < RECORDS {
        let Some(record) = c.next(&mut buf).unwrap() else {
            c.release_all();
            producer.nudge();
            let woken = ears.wait(HostTime::after(60 * SECONDS), || c.has_pending());
            assert_ne!(woken, Woken::Deadline, "the producer fell silent at {next}");
            continue;
        };
        assert_eq!(record.len, 4 + next as usize % 36);
        assert_eq!(buf[..4], next.to_le_bytes());
        assert!(buf[4..record.len].iter().all(|&b| b == next as u8));
        next += 1;
    }
    c.release_all();
    assert!(!was_killed(child.wait().unwrap()));
}

#[test]
fn s3_112_a_seqlock_is_never_torn_across_processes() {
    let shared = Shared::new(4096);
    let reader = SeqReader::new(shared.memory.slice(0, 1024));
    let mut child = shared.spawn("seqlock", 0);
    let mut whole = 0;
    while whole < 20_000 {
        let mut got = [0; 200];
        if reader.read(0, &mut got).is_ok() {
            whole += 1;
            assert!(got.iter().all(|&b| b == got[0]), "torn");
        }
    }
    shared.memory.store_u32(2048, 1, Ordering::Relaxed);
    assert!(!was_killed(child.wait().unwrap()));
}
