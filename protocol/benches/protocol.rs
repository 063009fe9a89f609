//! What crossing between processes costs: `cargo bench -p protocol`. Results stand in `docs/performance.md`.
//!
//! The peer is a thread with its own map of the same files: for cache lines and non-private futexes that is what
//! another process is.

use std::hint::black_box;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use criterion::{
    BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime,
};
use quintet_protocol::doorbell::{Doorbell, Sleeper, SpinPolicy};
use quintet_protocol::handshake::Role;
use quintet_protocol::layout::{Ends, Region, SegmentSet, SleeperId};
use quintet_protocol::message::{Command, CommandFlags, MAX_COMMAND};
use quintet_protocol::ram::RamLayout;
use quintet_protocol::reply::ReplyStatus;
use quintet_protocol::ring::{Position, PushError};
use quintet_protocol::shm::ViewMut;
use quintet_protocol::sync::{AtomicBool, Ordering, spin_hint};
use quintet_protocol::time::HostTime;

struct Machine {
    set: SegmentSet,
    cpu: Ends,
    io: Ends,
}

fn machine() -> Machine {
    let set = SegmentSet::create(RamLayout::new(1 << 20), 1).expect("segments");
    let ends = |role| Ends::new(&set.maps(role).expect("maps"));
    let (cpu, io) = (ends(Role::Cpu), ends(Role::Io));
    Machine { set, cpu, io }
}

/// A peer thread that runs until the value is dropped.
struct Peer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Peer {
    fn new(run: impl FnOnce(&AtomicBool) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || run(&stop)
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Criterion's statistics, and before them the least of many short samples: on a busy host the mean tells of the
/// host, the minimum of the code.
fn measure(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, mut routine: impl FnMut()) {
    least(name, &mut routine);
    group.bench_function(name, |b| b.iter(&mut routine));
}

/// Prints the least and the median of many short samples, and answers the least, in nanoseconds.
fn least(name: &str, mut routine: impl FnMut()) -> f64 {
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
    least
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

/// From the push to the moment the peer has the record.
fn one_way(group: &mut BenchmarkGroup<'_, WallTime>) {
    group.throughput(Throughput::Elements(1));
    let m = machine();
    let mut ring = m.cpu.command_producer(0).expect("ring");
    let mut commands = m.io.command_consumer(0, Position::default()).expect("ring");
    let total = Arc::new(quintet_protocol::sync::AtomicU64::new(0));
    let sum = Arc::clone(&total);
    let _peer = Peer::new(move |stop| {
        let mut buf = [0; 8];
        while !stop.load(Ordering::Relaxed) {
            if commands.next(&mut buf).expect("record").is_some() {
                let sent = u64::from_le_bytes(buf);
                sum.fetch_add(HostTime::now().0.saturating_sub(sent), Ordering::Relaxed);
                commands.release_all();
            }
            spin_hint();
        }
    });
    let mut one = || {
        ring.push(&HostTime::now().0.to_le_bytes()).expect("room");
        while !ring.is_drained().expect("head") {
            spin_hint();
        }
    };
    // There and back: the head that says that the record has been taken is the way back.
    least("message and its release", &mut one);
    let mut ways: Vec<u64> = (0..2000)
        .map(|_| {
            total.store(0, Ordering::Relaxed);
            (0..50).for_each(|_| one());
            total.load(Ordering::Relaxed) / 50
        })
        .collect();
    ways.sort_unstable();
    println!("least: one-way message: {} ns, median {} ns", ways[0], ways[1000]);
    group.bench_function("one-way message", |b| {
        b.iter_custom(|n| {
            total.store(0, Ordering::Relaxed);
            (0..n).for_each(|_| one());
            Duration::from_nanos(total.load(Ordering::Relaxed))
        });
    });
}

/// A port read: command, reply, both ends spinning.
fn read(group: &mut BenchmarkGroup<'_, WallTime>) {
    let m = machine();
    let mut ring = m.cpu.command_producer(0).expect("ring");
    let replies = m.cpu.reply_reader(0);
    let mut commands = m.io.command_consumer(0, Position::default()).expect("ring");
    let mut reply = m.io.reply_writer(0);
    let _peer = Peer::new(move |stop| {
        let mut buf = [0; 64];
        while !stop.load(Ordering::Relaxed) {
            while let Some(record) = commands.next(&mut buf).expect("record") {
                commands.release_all();
                reply.publish(record.number, ReplyStatus::Done, &[0x60]);
            }
            spin_hint();
        }
    });
    let mut data = [0; 8];
    measure(group, "read round trip", || {
        let mut bytes = [0; MAX_COMMAND];
        let len = Command::PortRead { port: 0x3FD, size: 1 }.encode(&mut bytes);
        let number = ring.push(&bytes[..len]).expect("room");
        while replies.take(number, &mut data).expect("reply").is_none() {
            spin_hint();
        }
    });
}

/// Two words on two lines, each side spinning on the other's: what no protocol can be faster than.
fn ping_pong(group: &mut BenchmarkGroup<'_, WallTime>) {
    let m = machine();
    let words = |e: &Ends| {
        (
            e.view_mut(Region::doorbell(SleeperId::Vcpu(0))),
            e.view_mut(Region::doorbell(SleeperId::Vcpu(1))),
        )
    };
    let ((ping, pong), (their_ping, their_pong)) = (words(&m.cpu), words(&m.io));
    let _peer = Peer::new(move |stop| {
        let mut seen = 0;
        while !stop.load(Ordering::Relaxed) {
            let now = their_ping.load_u32(0, Ordering::Acquire);
            if now != seen {
                seen = now;
                their_pong.store_u32(0, now, Ordering::Release);
            }
            spin_hint();
        }
    });
    let mut n = 0;
    measure(group, "cache line ping-pong", || {
        n += 1;
        ping.store_u32(0, n, Ordering::Release);
        while pong.load_u32(0, Ordering::Acquire) != n {
            spin_hint();
        }
    });
}

const LONG: u64 = 10_000_000_000;

/// A round trip between two peers that sleep at once: by doorbells, and by the bare system calls.
fn parked(group: &mut BenchmarkGroup<'_, WallTime>) {
    let m = machine();
    let bell = |e: &Ends, who| -> Doorbell { e.doorbell(who) };
    let ear = |e: &Ends, who| -> Sleeper { e.sleeper(who, SpinPolicy::NEVER) };
    let (to, from) = (bell(&m.cpu, SleeperId::Io), ear(&m.cpu, SleeperId::Vcpu(0)));
    let (back, listen) = (bell(&m.io, SleeperId::Vcpu(0)), ear(&m.io, SleeperId::Io));
    let peer = Peer::new(move |stop| {
        while !stop.load(Ordering::Relaxed) {
            listen.wait(HostTime::after(LONG), || false);
            back.ring();
        }
    });
    measure(group, "parked peer, doorbell round trip", || {
        to.ring();
        from.wait(HostTime::after(LONG), || false);
    });
    peer.stop.store(true, Ordering::Relaxed);
    to.ring();
    drop(peer);

    let m = machine();
    let words = |e: &Ends| {
        (
            e.view_mut(Region::doorbell(SleeperId::Vcpu(2))),
            e.view_mut(Region::doorbell(SleeperId::Vcpu(3))),
        )
    };
    let ((ping, pong), (their_ping, their_pong)) = (words(&m.cpu), words(&m.io));
    let peer = Peer::new(move |stop| {
        let mut seen = 0;
        while !stop.load(Ordering::Relaxed) {
            sleep_while(&their_ping, seen);
            seen = their_ping.load_u32(0, Ordering::Acquire);
            their_pong.store_u32(0, seen, Ordering::Release);
            wake(&their_pong);
        }
    });
    let mut n = 0u32;
    measure(group, "parked peer, bare futex round trip", || {
        n += 1;
        ping.store_u32(0, n, Ordering::Release);
        wake(&ping);
        while pong.load_u32(0, Ordering::Acquire) != n {
            sleep_while(&pong, n - 1);
        }
    });
    peer.stop.store(true, Ordering::Relaxed);
    ping.store_u32(0, n + 1, Ordering::Release);
    wake(&ping);
    drop(peer);
}

fn sleep_while(word: &ViewMut, value: u32) {
    use rustix::thread::futex;
    let second = futex::Timespec {
        tv_sec: 1,
        tv_nsec: 0,
    };
    let _ = futex::wait(
        word.view().futex_word(0),
        futex::Flags::empty(),
        value,
        Some(&second),
    );
}

fn wake(word: &ViewMut) {
    use rustix::thread::futex;
    let _ = futex::wake(word.view().futex_word(0), futex::Flags::empty(), 1);
}

/// What a vCPU does most: the clock, a mirrored register, an exit word that is clear.
fn local(group: &mut BenchmarkGroup<'_, WallTime>) {
    let m = machine();
    let coordinator = Ends::new(&m.set.maps(Role::Coordinator).expect("maps"));
    let mut master = coordinator.clock_master();
    master.resume();
    let clock = m.cpu.clock();
    measure(group, "VM clock", || {
        black_box(clock.now());
    });
    m.io.mirror_writer(0).publish(&[0; 8], 0xFF, &[0x60; 32]);
    let mirror = m.cpu.mirror_reader(0);
    measure(group, "mirrored register", || {
        black_box(mirror.read(0, 0, 5, 1));
    });
    let mut store = m.io.commit_store();
    measure(group, "commit of one small device", || {
        store.stage_bytes(0, &[7; 64]).expect("fits");
        black_box(store.commit(&(1u64, 2u64, 3u64)).expect("commit"));
    });
}

/// Spin budgets: a port read every `gap` microseconds while the asker spins for one budget before it sleeps and the
/// answerer for another. A budget below the time that waking a sleeper takes makes both sleep just before the answer.
fn budgets() {
    const MICRO: u64 = 1000;
    let spin = |until: u64, mut ready: Box<dyn FnMut() -> bool + '_>| {
        let end = HostTime::now().0 + until;
        loop {
            for _ in 0..64 {
                if ready() {
                    return;
                }
                spin_hint();
            }
            if HostTime::now().0 >= end {
                return;
            }
        }
    };
    println!("budgets in us: asker, answerer; mean round trip in us at gaps of 0, 20, 100, 1000 us");
    for (asker, answerer) in [
        (0, 0),
        (50, 0),
        (50, 50),
        (200, 50),
        (2000, 0),
        (2000, 50),
        (2000, 2000),
    ] {
        let mut means = Vec::new();
        for gap in [0, 20, 100, 1000] {
            let m = machine();
            let mut ring = m.cpu.command_producer(0).expect("ring");
            let replies = m.cpu.reply_reader(0);
            let mut commands = m.io.command_consumer(0, Position::default()).expect("ring");
            let mut reply = m.io.reply_writer(0);
            let (to_io, my) = (
                m.cpu.doorbell(SleeperId::Io),
                m.cpu.sleeper(SleeperId::Vcpu(0), SpinPolicy::NEVER),
            );
            let (to_cpu, ear) = (
                m.io.doorbell(SleeperId::Vcpu(0)),
                m.io.sleeper(SleeperId::Io, SpinPolicy::NEVER),
            );
            let peer = Peer::new(move |stop| {
                let mut buf = [0; 64];
                while !stop.load(Ordering::Relaxed) {
                    while let Some(record) = commands.next(&mut buf).expect("record") {
                        commands.release_all();
                        reply.publish(record.number, ReplyStatus::Done, &[0x60]);
                        to_cpu.nudge();
                    }
                    if answerer > 0 {
                        spin(answerer * MICRO, Box::new(|| commands.has_pending()));
                    }
                    ear.wait(HostTime::after(LONG), || commands.has_pending());
                }
            });
            let mut data = [0; 8];
            let mut bytes = [0; MAX_COMMAND];
            let len = Command::PortRead { port: 0x3FD, size: 1 }.encode(&mut bytes);
            let mut total = 0;
            let rounds = if gap == 1000 { 300 } else { 2000 };
            for _ in 0..rounds {
                let start = HostTime::now();
                let number = ring.push(&bytes[..len]).expect("room");
                to_io.nudge();
                if asker > 0 {
                    spin(asker * MICRO, Box::new(|| replies.is_ready(number)));
                }
                while replies.take(number, &mut data).expect("reply").is_none() {
                    my.wait(HostTime::after(LONG), || replies.is_ready(number));
                }
                let done = HostTime::now();
                total += done.since(start);
                while HostTime::now().since(done) < gap * MICRO {
                    spin_hint();
                }
            }
            means.push(total as f64 / f64::from(rounds) / 1000.0);
            peer.stop.store(true, Ordering::Relaxed);
            to_io.force();
            drop(peer);
        }
        println!("{asker:5} {answerer:5}: {means:8.2?}");
    }
}

fn all(c: &mut Criterion) {
    budgets();
    let mut group = c.benchmark_group("protocol");
    group
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    posted(&mut group);
    one_way(&mut group);
    read(&mut group);
    ping_pong(&mut group);
    parked(&mut group);
    local(&mut group);
    group.finish();
}

criterion_group!(benches, all);
criterion_main!(benches);
