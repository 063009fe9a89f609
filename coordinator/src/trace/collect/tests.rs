//! What a lying worker can do to the file: nothing but be counted.

use quintet_protocol::layout::{Region, SegmentSet};
use quintet_protocol::ram::RamLayout;
use quintet_protocol::ring::Producer;
use quintet_protocol::trace::Kind;
use serde_json::Value;

use super::*;

/// Has worker `io` push `records`, and answers what is written and the source.
fn written(records: &[Vec<u8>], spoil: bool) -> (Vec<Value>, Source) {
    let set = SegmentSet::create(RamLayout::new(1 << 20), 7).expect("segments");
    let ends = Ends::new(&set.maps_of_coordinator().expect("maps"));
    let theirs = Ends::new(&set.maps(Role::Io).expect("maps"));
    let mut ring: Producer = theirs.trace_producer(Role::Io).expect("a ring");
    for record in records {
        ring.push(record).expect("room");
    }
    if spoil {
        theirs
            .view_mut(Region::trace(Role::Io))
            .store_u64(0, 0xFFFF_FFF3, Ordering::Release);
    }
    let mut source = Source {
        role: Role::Io,
        ring: ends.trace_consumer(Role::Io).expect("a ring"),
        pids: HashMap::from([(1, 100), (2, 200)]),
        expected: false,
        dropped: 0,
        refused: 0,
        left_out: 0,
    };
    let mut file = TraceFile::new(Vec::new(), HostTime(0));
    source.drain(&mut file, HostTime(0), 1);
    source.drain(&mut file, HostTime(0), 1);
    file.finish(Place { pid: 1, tid: 1 });
    let mut all: Vec<Value> = serde_json::from_slice(&file.into_inner()).expect("JSON");
    all.pop();
    (all, source)
}

fn event(generation: u32, what: What) -> Event {
    Event {
        at: HostTime(5000),
        lasted: 1000,
        value: 3,
        generation,
        track: 2,
        what,
    }
}

#[test]
fn events_get_the_pid_of_their_process() {
    let turn = What::Kind(Kind::Turn);
    let disk = What::Kind(Kind::DiskWrite);
    let records = [event(1, turn), event(2, disk)].map(|e| e.to_record().to_vec());
    let (all, source) = written(&records, false);
    assert_eq!((&all[0]["pid"], &all[0]["name"]), (&100.into(), &"turn".into()));
    assert_eq!(
        (&all[1]["pid"], &all[1]["name"]),
        (&200.into(), &"disk 2 write".into())
    );
    assert_eq!((all.len(), source.refused), (3, 0));
}

#[test]
fn lies_are_counted_and_the_truth_behind_them_is_read() {
    let turn = What::Kind(Kind::Turn);
    let mut future = event(1, turn);
    future.lasted = u64::MAX - 10_000;
    let mut number = event(1, turn).to_record().to_vec();
    number[30] = 200;
    let records = [
        event(3, turn).to_record().to_vec(),
        event(1, What::Kind(Kind::Draw)).to_record().to_vec(),
        future.to_record().to_vec(),
        number,
        vec![1; 5],
        vec![2; 300],
        Vec::new(),
        event(1, turn).to_record().to_vec(),
        event(1, What::Dropped).to_record().to_vec(),
    ];
    let (all, source) = written(&records, false);
    assert_eq!((source.refused, source.dropped), (7, 3));
    assert_eq!(all.len(), 2, "{all:?}");
    assert_eq!(all[1]["name"], "events dropped");
}

#[test]
fn a_broken_ring_is_passed_over() {
    let record = event(1, What::Kind(Kind::Turn)).to_record().to_vec();
    let (all, source) = written(&[record], true);
    assert_eq!(all.len(), 0);
    assert!((1..=2).contains(&source.refused), "{}", source.refused);
}
