//! What one side of the protocol costs: `cargo bench -p protocol`. Round trips are in `turns.rs`. Results stand in
//! `docs/performance.md`.

use std::hint::black_box;
use std::time::Duration;

use criterion::{
    BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime,
};
use quintet_protocol::handshake::Role;
use quintet_protocol::message::{Command, CommandFlags, MAX_COMMAND};
use quintet_protocol::ring::{Position, PushError};
use quintet_protocol::sync::{Ordering, spin_hint};
use quintet_protocol::time::HostTime;

mod support;

use support::{Peer, ends, machine, segments};

/// Criterion's statistics, and before them the least of many short samples: on a busy host the mean tells of the
/// host, the minimum of the code.
fn measure(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, mut routine: impl FnMut()) {
    least(name, &mut routine);
    group.bench_function(name, |b| b.iter(&mut routine));
}

/// Prints the least and the median of many short samples.
fn least(name: &str, mut routine: impl FnMut()) {
    const SAMPLES: usize = 2000;
    const EACH: u32 = 50;
    let mut samples: Vec<u64> = (0..SAMPLES)
        .map(|_| {
            let start = HostTime::now();
            (0..EACH).for_each(|_| routine());
            HostTime::now().since(start)
        })
        .collect();
    samples.sort_unstable();
    let each = |nanos: u64| nanos as f64 / f64::from(EACH);
    let (least, median) = (each(samples[0]), each(samples[SAMPLES / 2]));
    println!("least: {name}: {least:.1} ns, median {median:.1} ns");
}

/// Posted port writes through one ring, encoded, published in batches of 32, decoded by the consumer.
fn posted(group: &mut BenchmarkGroup<'_, WallTime>) {
    const BATCH: u64 = 32;
    group.throughput(Throughput::Elements(BATCH));
    let m = machine();
    let mut ring = m.cpu.command_producer(0).expect("ring");
    let mut commands = m.io.command_consumer(0, Position::default()).expect("ring");
    let mut buf = [0; 64];
    measure(group, "posted writes, both ends on one core", || {
        for value in 0..BATCH as u32 {
            let mut bytes = [0; MAX_COMMAND];
            let write = Command::PortWrite {
                flags: CommandFlags::POSTED,
                port: 0x3C9,
                size: 1,
                value,
            };
            let len = write.encode(&mut bytes);
            ring.stage(&bytes[..len]).expect("room");
        }
        ring.publish();
        while let Some(record) = commands.next(&mut buf).expect("record") {
            black_box(Command::decode(&buf[..record.len]).expect("command"));
        }
        commands.release_all();
    });
    drop((ring, commands));

    let m = machine();
    let mut ring = m.cpu.command_producer(0).expect("ring");
    let mut commands = m.io.command_consumer(0, Position::default()).expect("ring");
    let _peer = Peer::new(move |stop| {
        let mut buf = [0; 64];
        while !stop.load(Ordering::Relaxed) {
            while let Some(record) = commands.next(&mut buf).expect("record") {
                black_box(Command::decode(&buf[..record.len]).expect("command"));
            }
            commands.release_all();
            spin_hint();
        }
    });
    measure(group, "posted writes, two cores", || {
        for value in 0..BATCH as u32 {
            let mut bytes = [0; MAX_COMMAND];
            let write = Command::PortWrite {
                flags: CommandFlags::POSTED,
                port: 0x3C9,
                size: 1,
                value,
            };
            let len = write.encode(&mut bytes);
            while let Err(e) = ring.stage(&bytes[..len]) {
                assert!(matches!(e, PushError::Full { .. }), "{e}");
                ring.publish();
                spin_hint();
            }
        }
        ring.publish();
    });
}

/// What a vCPU does most: the clock, a mirrored register, an exit word that is clear.
fn local(group: &mut BenchmarkGroup<'_, WallTime>) {
    let set = segments();
    let (cpu, io) = (ends(&set, Role::Cpu), ends(&set, Role::Io));
    let mut master = ends(&set, Role::Coordinator).clock_master();
    master.resume();
    let clock = cpu.clock();
    measure(group, "VM clock", || {
        black_box(clock.now());
    });
    io.mirror_writer(0).publish(&[0; 8], 0xFF, &[0x60; 32]);
    let mirror = cpu.mirror_reader(0);
    measure(group, "mirrored register", || {
        black_box(mirror.read(0, 0, 5, 1));
    });
    let mut store = io.commit_store();
    measure(group, "commit of one small device", || {
        store.stage_bytes(0, &[7; 64]).expect("fits");
        black_box(store.commit(&(1u64, 2u64, 3u64)).expect("commit"));
    });
}

fn all(c: &mut Criterion) {
    let mut group = c.benchmark_group("protocol");
    group
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    posted(&mut group);
    local(&mut group);
    group.finish();
}

criterion_group!(benches, all);
criterion_main!(benches);
