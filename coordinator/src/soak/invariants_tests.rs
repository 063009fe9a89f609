use quintet_protocol::control::{RingReport, SoundReport};

use super::*;
use crate::soak::fault::Target;
use crate::soak::sample::{Done, ProcessSample, WorkerSample};

/// A machine in good health, `n` seconds after the guest began.
fn healthy(n: u64) -> Sample {
    let process = |role| ProcessSample {
        role,
        generation: 1,
        // It breathes.
        descriptors: 20 + n % 2,
        threads: 4,
        maps: 100 + n % 10,
        memory: (10 << 20) + (n % 7) * 4096,
    };
    let worker = |role| WorkerSample {
        role,
        state: PeerState::Running,
        parked: role == Role::Audio,
        beats: if role == Role::Audio { 1 } else { n as u32 * 4 },
        generation: 1,
        last_death: String::new(),
    };
    Sample {
        at_ms: n * 1000,
        quiet: true,
        state: MachineState::Running,
        uptime_ms: 500 + n * 1000,
        vm_time_ms: n * 1000,
        resets: 1,
        processes: Role::ALL.map(process).to_vec(),
        workers: Role::WORKERS.map(worker).to_vec(),
        rings: vec![RingReport {
            name: "commands".into(),
            traffic: Traffic {
                pushed: n as u32 * 1000 + 2,
                popped: n as u32 * 1000,
                waiting: 48,
                capacity: 65536,
            },
        }],
        sound: SoundReport::default(),
        done: Done {
            rounds: n * 3,
            pictures: n,
        },
    }
}

/// Judges 200 seconds of a machine that `change` has made ill, and answers the invariants found broken.
fn judge(change: impl Fn(u64, &mut Sample)) -> Vec<Violation> {
    judged(Invariants::new(true), change)
}

fn judged(mut judge: Invariants, change: impl Fn(u64, &mut Sample)) -> Vec<Violation> {
    for n in 0..200 {
        let mut sample = healthy(n);
        change(n, &mut sample);
        judge.look(&sample);
    }
    let mut last = healthy(200);
    change(200, &mut last);
    last.state = MachineState::Paused;
    for ring in &mut last.rings {
        ring.traffic.popped = ring.traffic.pushed.wrapping_sub(ring.traffic.waiting / 1000);
        ring.traffic.waiting = if ring.traffic.records() == 0 { 0 } else { 48 };
    }
    judge.finish(&last);
    judge.into_found().into_all()
}

#[track_caller]
fn only(found: &[Violation], invariant: &str, part: &str) {
    assert!(!found.is_empty(), "nothing was found");
    for v in found {
        assert_eq!(v.invariant, invariant, "{found:?}");
    }
    assert!(found.iter().any(|v| v.text.contains(part)), "{found:?}");
}

fn of(sample: &mut Sample, role: Role) -> &mut ProcessSample {
    sample
        .processes
        .iter_mut()
        .find(|p| p.role == role)
        .expect("there")
}

fn worker(sample: &mut Sample, role: Role) -> &mut WorkerSample {
    sample.workers.iter_mut().find(|w| w.role == role).expect("there")
}

#[test]
fn a_healthy_machine_breaks_nothing() {
    assert_eq!(judge(|_, _| ()), []);
}

#[test]
fn a_leaked_descriptor_is_found() {
    let found = judge(|n, s| {
        if n > 100 {
            of(s, Role::Io).descriptors += 1;
        }
    });
    only(
        &found,
        "descriptors",
        "io-worker had 20 descriptors at first, and keeps more",
    );
}

#[test]
fn descriptors_that_are_open_for_a_moment_are_no_leak() {
    assert_eq!(
        judge(|n, s| {
            if n % 3 != 0 {
                of(s, Role::Coordinator).descriptors += 5;
            }
        }),
        []
    );
}

#[test]
fn what_a_restart_has_open_for_a_moment_does_not_count() {
    let found = judge(|n, s| {
        if (50..100).contains(&n) {
            s.quiet = false;
            of(s, Role::Gpu).descriptors += 7;
        }
    });
    assert_eq!(found, []);
}

#[test]
fn threads_and_maps_that_stay_are_found() {
    let found = judge(|n, s| of(s, Role::Gpu).threads += u64::from(n > 90));
    only(&found, "threads", "gpu-worker");
    let found = judge(|n, s| of(s, Role::Cpu).maps += n);
    only(&found, "maps", "cpu-worker");
}

#[test]
fn memory_that_grows_is_found_and_memory_that_has_grown_is_not() {
    let found = judge(|n, s| of(s, Role::Coordinator).memory += n << 20);
    only(&found, "memory", "coordinator grew from");
    let warm = judge(|n, s| of(s, Role::Cpu).memory += n.min(40) << 22);
    assert_eq!(warm, []);
}

#[test]
fn a_death_that_nobody_asked_for_is_found() {
    let found = judge(|n, s| {
        if n > 50 {
            let w = worker(s, Role::Io);
            (w.generation, w.last_death) = (2, "killed by signal 11".into());
        }
    });
    only(
        &found,
        "deaths",
        "io-worker died 1 times and was killed 0: killed by signal 11",
    );
}

#[test]
fn a_death_that_was_asked_for_is_none_and_a_missing_successor_is_found() {
    let mut one = Invariants::new(true);
    one.injected(Fault::Kill(Target::Io));
    assert_eq!(
        judged(one, |n, s| worker(s, Role::Io).generation += u32::from(n > 5)),
        []
    );
    let mut two = Invariants::new(true);
    two.injected(Fault::Kill(Target::Gpu));
    only(&judged(two, |_, _| ()), "deaths", "killed 1 times and replaced 0");
}

#[test]
fn resets_are_counted() {
    let found = judge(|n, s| s.resets += u32::from(n > 7));
    only(&found, "resets", "reset 1 times, 0 of them asked for");
    let mut asked = Invariants::new(true);
    asked.injected(Fault::Reset);
    only(
        &judged(asked, |_, _| ()),
        "resets",
        "1 resets were asked for, and 0 made",
    );
}

#[test]
fn time_that_goes_back_jumps_or_stands_is_found() {
    let found = judge(|n, s| s.vm_time_ms = if n == 60 { 100 } else { s.vm_time_ms });
    assert!(found.iter().any(|v| v.text.contains("went back")), "{found:?}");
    let found = judge(|n, s| s.vm_time_ms += if n > 60 { 10_000 } else { 0 });
    only(&found, "time", "11000 ms of VM time passed in 1000 ms");
    let found = judge(|n, s| s.vm_time_ms = n.min(100) * 1000);
    only(&found, "time", "stood for 60 s");
}

#[test]
fn a_guest_or_worker_that_does_not_go_on_is_found() {
    let found = judge(|_, s| s.done.rounds = s.done.rounds.min(90));
    only(&found, "progress", "stood for 60 s");
    let found = judge(|_, s| s.done.pictures = 2);
    only(&found, "pictures", "stood for 60 s");
    let found = judge(|_, s| worker(s, Role::Cpu).beats = 17);
    only(&found, "heartbeat", "cpu-worker's heartbeat");
    // Another guest than ours prints no rounds.
    assert_eq!(
        judged(Invariants::new(false), |_, s| s.done = Done::default()),
        []
    );
    // One that is parked need not beat, and one that is paused need not go on.
    assert_eq!(
        judge(|_, s| {
            (s.quiet, s.done.rounds) = (false, 3);
            worker(s, Role::Cpu).parked = true;
        }),
        []
    );
}

#[test]
fn a_record_that_is_lost_or_doubled_is_found() {
    let found = judge(|n, s| s.rings[0].traffic.pushed += if n > 9 { 100 } else { 0 });
    only(&found, "rings", "102 records wait in 48 bytes");
    let found = judge(|n, s| s.rings[0].traffic.waiting = if n == 20 { 0 } else { 48 });
    only(&found, "rings", "2 records wait in 0 bytes");
    let found = judge(|n, s| {
        if n == 33 {
            s.rings[0].traffic.pushed -= 5000;
            s.rings[0].traffic.popped -= 5000;
        }
    });
    only(&found, "rings", "went back");
    // A ring that somebody filled with rubbish begins anew, whether a look came by meanwhile or not.
    for looked in [false, true] {
        let mut judge = Invariants::new(true);
        for n in 0..20 {
            let mut sample = healthy(n);
            sample.rings[0].name = HOSTILE_RING.to_owned();
            if n >= 10 {
                sample.rings[0].traffic.pushed -= 5000;
                sample.rings[0].traffic.popped -= 5000;
            }
            if n == 10 {
                judge.injected(Fault::HostileRing);
                if looked {
                    sample.rings[0].traffic.pushed += 77;
                    judge.look(&sample);
                    sample.rings[0].traffic.pushed -= 77;
                }
                judge.recovered();
            }
            judge.look(&sample);
        }
        assert_eq!(judge.found().all(), []);
    }
}

#[test]
fn records_that_are_never_taken_are_found_at_the_end() {
    let mut judge = Invariants::new(true);
    let mut last = healthy(3);
    last.state = MachineState::Paused;
    assert!(!Invariants::drained(&last));
    judge.finish(&last);
    only(judge.found().all(), "rings", "2 commands were never taken");
}

#[test]
fn a_machine_that_failed_is_found() {
    let found = judge(|n, s| {
        if n > 150 {
            s.state = MachineState::Failed;
            worker(s, Role::Audio).state = PeerState::Failed;
        }
    });
    only(&found, "state", "audio-worker failed for good");
}

#[test]
fn the_same_violation_is_kept_once_and_counted() {
    let found = judge(|n, s| of(s, Role::Gpu).threads += u64::from(n > 90));
    assert_eq!(found.len(), 1);
    assert!(found[0].times > 50 && found[0].at_ms >= 91_000);
}
