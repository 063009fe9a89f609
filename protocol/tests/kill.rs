//! SIGKILL at every step: a process dies between any two shared stores of a push, a release, a commit, a
//! publication, and its successor goes on as if nothing had been.
#![cfg(not(loom))]

mod process_support;

use process_support::{KillAt, Shared, job};
use quintet_protocol::commit::{COMMIT_SIZE, CommitStore};
use quintet_protocol::ring::{self, Consumer, Position, Producer};
use quintet_protocol::seqlock::{ReadLimit, SeqReader, SeqWriter};
use quintet_protocol::shm::ViewMut;
use quintet_protocol::stream::{StreamReader, StreamWriter, stream_size};
use quintet_protocol::sync::Ordering;

const CAPACITY: usize = 64;
/// Where the parts lie in the shared memory.
const PRODUCER: usize = 0;
const CONSUMER: usize = 4096;
const STREAM: usize = 8192;
const STREAM_HEAD: usize = 12288;
const STORE: usize = 16384;
const LEN: u64 = (STORE + COMMIT_SIZE) as u64;
/// Cursors that wrap within the test.
const START: Position = Position {
    cursor: u32::MAX - 23,
    number: 0xFFFF_FFFE,
};

fn producer_part(m: &ViewMut) -> ViewMut {
    m.slice(PRODUCER, ring::ring_size(CAPACITY))
}

fn consumer_part(m: &ViewMut) -> ViewMut {
    m.slice(CONSUMER, 128)
}

/// Payload of record `n`, of lengths that make the ring wrap with and without the marker.
fn payload(n: u64) -> Vec<u8> {
    vec![n as u8; 3 + (n % 3) as usize * 8]
}

fn consumer(m: &ViewMut) -> Consumer {
    Consumer::attach_at_head(consumer_part(m), producer_part(m).view().clone()).unwrap()
}

/// What the helper does, by name.
#[test]
fn helper_process() {
    let Some((job, steps, m)) = job() else { return };
    let kill = KillAt::new(steps);
    match job.as_str() {
        "push" => push_three(&m, kill),
        "release" => release_each(&m, kill),
        "seqlock" => {
            SeqWriter::with_steps(m.slice(0, 256), kill).write(&[2; 64]);
        }
        "commit" => commit_rounds(&m, kill),
        "open" => drop(CommitStore::open_with_steps(m.slice(STORE, COMMIT_SIZE), kill)),
        "device" => device(&m, kill),
        other => panic!("no job {other}"),
    }
}

/// Runs `each` with a child that dies at step 0, 1, 2 … until one survives, and returns how many died.
fn at_every_step(mut each: impl FnMut(u32) -> bool) -> u32 {
    for steps in 0..1000 {
        if !each(steps) {
            return steps;
        }
    }
    panic!("the helper never survived");
}

fn push_three(m: &ViewMut, kill: KillAt) {
    let mut p = Producer::attach_with_steps(producer_part(m), consumer_part(m).view().clone(), kill).unwrap();
    for n in 0..3 {
        p.push(&payload(START.number + 1 + n)).unwrap();
    }
}

#[test]
fn s3_62_a_producer_killed_at_any_step_of_a_push_leaves_whole_records_and_a_usable_ring() {
    let deaths = at_every_step(|steps| {
        let shared = Shared::new(LEN);
        let m = &shared.memory;
        ring::format(&producer_part(m), &consumer_part(m), START);
        let killed = shared.run_until_killed("push", steps);
        let mut c = consumer(m);
        let mut p = Producer::attach(producer_part(m), consumer_part(m).view().clone()).unwrap();
        let mut buf = [0; 64];
        let mut expected = START.number;
        while expected < START.number + 6 {
            match c.next(&mut buf).unwrap() {
                Some(record) => {
                    expected += 1;
                    assert_eq!(record.number, expected, "after step {steps}");
                    assert_eq!(buf[..record.len], payload(expected), "after step {steps}");
                    c.release_all();
                }
                // What the dead producer had not published, its successor pushes under the same numbers.
                None => assert_eq!(p.push(&payload(expected + 1)), Ok(expected + 1)),
            }
        }
        killed
    });
    assert!(deaths >= 12, "only {deaths} steps in three pushes");
}

fn release_each(m: &ViewMut, kill: KillAt) {
    let at = consumer(m).position();
    let part = (consumer_part(m), producer_part(m).view().clone());
    let mut c = Consumer::attach_with_steps(part.0, part.1, at, kill).unwrap();
    while c.next(&mut [0; 64]).unwrap().is_some() {
        c.release_all();
    }
}

#[test]
fn s3_62_a_consumer_killed_at_any_step_loses_no_record() {
    let deaths = at_every_step(|steps| {
        let shared = Shared::new(LEN);
        let m = &shared.memory;
        ring::format(&producer_part(m), &consumer_part(m), START);
        let mut p = Producer::attach(producer_part(m), consumer_part(m).view().clone()).unwrap();
        for n in 1..=2 {
            p.push(&payload(START.number + n)).unwrap();
        }
        let killed = shared.run_until_killed("release", steps);
        let mut c = consumer(m);
        let done = c.position().number;
        assert_eq!(p.released(), Ok(done), "after step {steps}");
        assert!((START.number..=START.number + 2).contains(&done));
        let mut buf = [0; 64];
        for number in done + 1..=START.number + 2 {
            let record = c.next(&mut buf).unwrap().unwrap();
            assert_eq!(
                (record.number, &buf[..record.len]),
                (number, &payload(number)[..])
            );
        }
        c.release_all();
        assert!(p.is_drained().unwrap());
        killed
    });
    assert!(deaths >= 6, "only {deaths} steps in two releases");
}

#[test]
fn s3_112_a_seqlock_writer_killed_at_any_step_leaves_the_old_record_the_new_one_or_a_stuck_lock() {
    let mut stuck = 0;
    let deaths = at_every_step(|steps| {
        let shared = Shared::new(4096);
        let lock = shared.memory.slice(0, 256);
        SeqWriter::new(lock.clone()).write(&[1; 64]);
        let killed = shared.run_until_killed("seqlock", steps);
        let reader = SeqReader::with_limit(
            lock.clone(),
            ReadLimit {
                tries: 100,
                nanos: 1_000_000,
            },
        );
        let mut got = [0; 64];
        match reader.read(0, &mut got) {
            Ok(_) => assert!(got == [1; 64] || got == [2; 64]),
            Err(_) => stuck += 1,
        }
        SeqWriter::new(lock).write(&[3; 64]);
        reader.read(0, &mut got).unwrap();
        assert_eq!(got, [3; 64]);
        killed
    });
    assert!(deaths == 4 && stuck == 2, "{deaths} deaths, {stuck} stuck");
}

fn commit_rounds(m: &ViewMut, kill: KillAt) {
    let mut store = CommitStore::open_with_steps(m.slice(STORE, COMMIT_SIZE), kill);
    for _ in 0..3 {
        let n = store.number() + 1;
        store.stage(0, &vec![n; 20]).unwrap();
        store.stage(1, &n).unwrap();
        if n.is_multiple_of(2) {
            store.stage(2, &n).unwrap();
        }
        store.commit(&n).unwrap();
    }
}

/// Checks that the store holds commit `n` and nothing else.
fn holds(store: &CommitStore, n: u64, when: &str) {
    assert_eq!(store.number(), n, "{when}");
    assert_eq!(store.load_global().unwrap(), (n > 0).then_some(n), "{when}");
    assert_eq!(store.load(0).unwrap(), (n > 0).then(|| vec![n; 20]), "{when}");
    assert_eq!(store.load(1).unwrap(), (n > 0).then_some(n), "{when}");
    assert_eq!(store.load(2).unwrap(), (n >= 2).then_some(n & !1), "{when}");
}

#[test]
fn a_commit_killed_at_any_step_has_happened_wholly_or_not_at_all() {
    let mut seen = std::collections::BTreeSet::new();
    let deaths = at_every_step(|steps| {
        let shared = Shared::new(LEN);
        let words = shared.memory.slice(STORE, COMMIT_SIZE);
        let killed = shared.run_until_killed("commit", steps);
        let n = words.load_u64(0, Ordering::Acquire);
        seen.insert(n);
        // A successor that dies while it opens the store, and one that does not.
        for again in 0..2 {
            shared.run_until_killed("open", again);
        }
        let mut store = CommitStore::open(words);
        holds(&store, n, &format!("after step {steps}"));
        // The next commit does not adopt what the dead one had staged under the same number.
        store.commit(&(n + 1)).unwrap();
        assert_eq!(store.load(1).unwrap(), (n > 0).then_some(n), "after step {steps}");
        killed
    });
    assert!(deaths > 40, "only {deaths} steps in three commits");
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
}

/// A device that prints what it is told: commands in, bytes out, state committed. Every record is a batch.
fn device(m: &ViewMut, kill: KillAt) {
    let mut store = CommitStore::open_with_steps(m.slice(STORE, COMMIT_SIZE), kill.clone());
    let (at, printed): (Position, u64) = store.load_global().unwrap().unwrap_or_default();
    let mut checksum: u64 = store.load(5).unwrap().unwrap_or(0);
    let ring = producer_part(m).view().clone();
    let mut commands = Consumer::attach_with_steps(consumer_part(m), ring, at, kill.clone()).unwrap();
    let stream = m.slice(STREAM, stream_size(1024));
    let head = m.slice(STREAM_HEAD, 128).view().clone();
    let mut out = StreamWriter::attach_with_steps(stream, head, printed, kill).unwrap();
    let mut buf = [0; 64];
    while let Some(record) = commands.next(&mut buf).unwrap() {
        // The output depends on the committed state, so that a byte applied twice would show.
        checksum = checksum.wrapping_mul(31).wrapping_add(u64::from(buf[0]));
        let text = format!("{}:{checksum:x};", record.number);
        assert_eq!(out.write(text.as_bytes()), Ok(text.len()));
        store.stage(5, &checksum).unwrap();
        store.commit(&(commands.position(), out.position())).unwrap();
        commands.release(commands.position());
        out.publish(out.position());
    }
}

#[test]
fn a_device_killed_at_any_step_prints_every_byte_once() {
    let reference = {
        let mut checksum = 0u64;
        (1..=4u64)
            .map(|n| {
                checksum = checksum.wrapping_mul(31).wrapping_add(n);
                format!("{n}:{checksum:x};")
            })
            .collect::<String>()
    };
    let deaths = at_every_step(|steps| {
        let shared = Shared::new(LEN);
        let m = &shared.memory;
        let mut p = Producer::attach(producer_part(m), consumer_part(m).view().clone()).unwrap();
        for n in 1..=4u8 {
            p.push(&[n; 4]).unwrap();
        }
        let stream = m.slice(STREAM, stream_size(1024)).view().clone();
        let mut out = StreamReader::attach(m.slice(STREAM_HEAD, 128), stream, 0).unwrap();
        let mut printed = Vec::new();
        let mut collect = || {
            let mut buf = [0; 256];
            let n = out.read(&mut buf).unwrap();
            printed.extend_from_slice(&buf[..n]);
            out.release(out.position());
        };
        let killed = shared.run_until_killed("device", steps);
        collect();
        // The successor dies too, a few steps on; the one after it does not.
        shared.run_until_killed("device", 7);
        collect();
        assert!(!shared.run_until_killed("device", u32::MAX));
        collect();
        assert_eq!(
            String::from_utf8(printed).unwrap(),
            reference,
            "after step {steps}"
        );
        assert!(p.is_drained().unwrap());
        killed
    });
    assert!(deaths > 60, "only {deaths} steps");
}
