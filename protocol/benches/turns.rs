//! What crossing between processes costs, beside the bare thing: `cargo bench -p protocol`. Results stand in
//! `docs/performance.md`.
//!
//! A virtual machine's processors are moved nearer to each other or further apart while a benchmark runs, which alone
//! changes a cache line's way by four. So the protocol and what it is compared with take turns, some microseconds each,
//! between the same two threads, and every round gives a ratio of its own. Rejected: criterion's groups, which measure one
//! thing for seconds and then the other.

use std::sync::Arc;

use quintet_protocol::doorbell::{Doorbell, Sleeper, SpinPolicy};
use quintet_protocol::layout::{Ends, Region, SleeperId};
use quintet_protocol::message::{Command, MAX_COMMAND};
use quintet_protocol::reply::ReplyStatus;
use quintet_protocol::ring::Position;
use quintet_protocol::shm::ViewMut;
use quintet_protocol::sync::{AtomicU64, Ordering, spin_hint};
use quintet_protocol::time::HostTime;

mod support;

use support::{Peer, machine};

const ROUNDS: usize = 4000;
const EACH: u32 = 50;
const LONG: u64 = 10_000_000_000;

/// Something that is measured: its name, the most that it may cost beside the first of the list, and how long one round of
/// it took, in nanoseconds each.
struct Turn<'a> {
    name: &'static str,
    limit: Option<f64>,
    round: Box<dyn FnMut() -> f64 + 'a>,
}

impl<'a> Turn<'a> {
    fn new(name: &'static str, limit: Option<f64>, round: impl FnMut() -> f64 + 'a) -> Self {
        Self {
            name,
            limit,
            round: Box::new(round),
        }
    }

    /// Measures from the start of a round to its end.
    fn timed(name: &'static str, limit: Option<f64>, mut once: impl FnMut() + 'a) -> Self {
        Self::new(name, limit, move || {
            let start = HostTime::now();
            (0..EACH).for_each(|_| once());
            HostTime::now().since(start) as f64 / f64::from(EACH)
        })
    }
}

/// Lets all take their turns and prints what each cost, and how much that was beside the first one in the same round.
fn in_turns(mut turns: Vec<Turn<'_>>) {
    let mut taken = vec![Vec::with_capacity(ROUNDS); turns.len()];
    for _ in 0..ROUNDS {
        for (turn, taken) in turns.iter_mut().zip(&mut taken) {
            taken.push((turn.round)());
        }
    }
    let bare = taken[0].clone();
    for (turn, taken) in turns.iter().zip(&taken) {
        let ratios = quartiles(taken.iter().zip(&bare).map(|(one, bare)| one / bare));
        let nanos = quartiles(taken.iter().copied());
        print!(
            "{:38} least {:8.1} ns, median {:8.1} ns; beside it {:.2} (quartiles {:.2} to {:.2})",
            turn.name, nanos[0], nanos[2], ratios[2], ratios[1], ratios[3]
        );
        println!(
            "{}",
            turn.limit
                .map_or(String::new(), |limit| format!(", wanted: {limit}"))
        );
    }
}

/// Least, lower quartile, median, upper quartile.
fn quartiles(of: impl Iterator<Item = f64>) -> [f64; 4] {
    let mut of: Vec<f64> = of.collect();
    of.sort_unstable_by(f64::total_cmp);
    [0, of.len() / 4, of.len() / 2, of.len() * 3 / 4].map(|at| of[at])
}

/// Both sides spin: two words on two lines, each side looking at the other's, which no protocol can be faster than; a
/// port read; a message. The same peer serves all three.
fn awake() {
    let m = machine();
    let (ping, pong) = pair(&m.cpu, [0, 1]);
    let (their_ping, their_pong) = pair(&m.io, [0, 1]);
    let mut reads = m.cpu.command_producer(0).expect("ring");
    let replies = m.cpu.reply_reader(0);
    let mut commands = m.io.command_consumer(0, Position::default()).expect("ring");
    let mut reply = m.io.reply_writer(0);
    let mut messages = m.cpu.command_producer(1).expect("ring");
    let mut taken = m.io.command_consumer(1, Position::default()).expect("ring");
    let total = Arc::new(AtomicU64::new(0));
    let sum = Arc::clone(&total);
    let _peer = Peer::new(move |stop| {
        let mut seen = 0;
        let mut buf = [0; 64];
        while !stop.load(Ordering::Relaxed) {
            let now = their_ping.load_u32(0, Ordering::Acquire);
            if now != seen {
                seen = now;
                their_pong.store_u32(0, now, Ordering::Release);
            }
            while let Some(record) = commands.next(&mut buf).expect("record") {
                commands.release_all();
                reply.publish(record.number, ReplyStatus::Done, &[0x60]);
            }
            if taken.next(&mut buf).expect("record").is_some() {
                let sent = u64::from_le_bytes(buf[..8].try_into().expect("eight bytes"));
                sum.fetch_add(HostTime::now().0.saturating_sub(sent), Ordering::Relaxed);
                taken.release_all();
            }
            spin_hint();
        }
    });
    let mut n = 0;
    let mut data = [0; 8];
    in_turns(vec![
        Turn::timed("cache line there and back", None, || {
            n += 1;
            ping.store_u32(0, n, Ordering::Release);
            while pong.load_u32(0, Ordering::Acquire) != n {
                spin_hint();
            }
        }),
        Turn::timed("port read, answered", Some(2.0), || {
            let mut bytes = [0; MAX_COMMAND];
            let len = Command::PortRead { port: 0x3FD, size: 1 }.encode(&mut bytes);
            let number = reads.push(&bytes[..len]).expect("room");
            while replies.take(number, &mut data).expect("reply").is_none() {
                spin_hint();
            }
        }),
        // From the push to the moment the peer has the record; both ends read a clock, which is in the figure.
        Turn::new("message, one way", Some(2.0), || {
            total.store(0, Ordering::Relaxed);
            for _ in 0..EACH {
                messages.push(&HostTime::now().0.to_le_bytes()).expect("room");
                while !messages.is_drained().expect("head") {
                    spin_hint();
                }
            }
            total.load(Ordering::Relaxed) as f64 / f64::from(EACH)
        }),
    ]);
}

/// Both sides sleep at once: by the bare system calls, and by doorbells.
fn parked() {
    let m = machine();
    let bell = |e: &Ends, who| -> Doorbell { e.doorbell(who) };
    let ear = |e: &Ends, who| -> Sleeper { e.sleeper(who, SpinPolicy::NEVER) };
    let (to, from) = (bell(&m.cpu, SleeperId::Io), ear(&m.cpu, SleeperId::Vcpu(0)));
    let (back, listen) = (bell(&m.io, SleeperId::Vcpu(0)), ear(&m.io, SleeperId::Io));
    let by_bell = Peer::new(move |stop| {
        while !stop.load(Ordering::Relaxed) {
            listen.wait(HostTime::after(LONG), || false);
            back.ring();
        }
    });
    let (ping, pong) = pair(&m.cpu, [2, 3]);
    let (their_ping, their_pong) = pair(&m.io, [2, 3]);
    let by_word = Peer::new(move |stop| {
        let mut seen = 0;
        while !stop.load(Ordering::Relaxed) {
            sleep_while(&their_ping, seen);
            seen = their_ping.load_u32(0, Ordering::Acquire);
            their_pong.store_u32(0, seen, Ordering::Release);
            wake(&their_pong);
        }
    });
    let mut n = 0u32;
    in_turns(vec![
        Turn::timed("futex there and back", None, || {
            n += 1;
            ping.store_u32(0, n, Ordering::Release);
            wake(&ping);
            while pong.load_u32(0, Ordering::Acquire) != n {
                sleep_while(&pong, n - 1);
            }
        }),
        Turn::timed("parked peer by doorbells", Some(1.5), || {
            to.ring();
            from.wait(HostTime::after(LONG), || false);
        }),
    ]);
    by_bell.stop.store(true, Ordering::Relaxed);
    to.ring();
    by_word.stop.store(true, Ordering::Relaxed);
    ping.store_u32(0, u32::MAX, Ordering::Release);
    wake(&ping);
}

/// Two words, each on a line of its own.
fn pair(ends: &Ends, vcpus: [u8; 2]) -> (ViewMut, ViewMut) {
    let word = |vcpu| ends.view_mut(Region::doorbell(SleeperId::Vcpu(vcpu)));
    (word(vcpus[0]), word(vcpus[1]))
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

fn main() {
    awake();
    parked();
    budgets();
}
