//! Real workers on threads, a peer's files being scribbled over while they work: each goes on, or it ends with an error
//! that names the peer; it never panics, and it always hears that it is to end.
//!
//! The peer is honest code besides, so that there is work to do: boot, devices, interrupts, frames, samples.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use quintet_protocol::clock::ClockMaster;
use quintet_protocol::handshake::config::{
    Accel, AudioConfig, AudioSink, CpuConfig, DebugconConfig, GpuConfig, IoConfig,
};
use quintet_protocol::handshake::{FileId, Role, WorkerContext, WorkerError};
use quintet_protocol::layout::{Ends, SegmentSet};
use quintet_protocol::payload::{Payload, PayloadKind};
use quintet_protocol::ram::{GuestRam, RamLayout};
use quintet_protocol::status::{MachineState, PeerState, StatusReader, StatusWord, StatusWriter};
use quintet_protocol::sync::{AtomicBool, Ordering};
use quintet_protocol::window::WindowSettings;

use quintet_tests::fuzz::scribble::Scribbler;
use quintet_tests::random::Rng;

use crate::budget::Budget;

/// Longest wait for a worker to end: a watchdog.
const PATIENCE: Duration = Duration::from_secs(120);

/// The coordinator's part of a machine whose workers are threads of the test.
struct Machine {
    set: SegmentSet,
    host: Ends,
    status: StatusWriter,
    _clock: ClockMaster,
}

impl Machine {
    fn new() -> Self {
        let set = SegmentSet::create(RamLayout::new(16 << 20), 9).expect("segments");
        let maps = set.maps(Role::Coordinator).expect("maps");
        let host = Ends::new(&maps);
        let file = maps
            .view_mut(FileId::Control(Role::Coordinator))
            .expect("writable");
        let status = StatusWriter::new(&file, Role::Coordinator);
        status.set_guest_memory(set.ram_layout());
        let mut clock = host.clock_master();
        clock.resume();
        for role in Role::WORKERS {
            status.store(StatusWord::generation(role), 1);
            status.store(StatusWord::peer(role), PeerState::Running as u32);
        }
        status.store(StatusWord::ResetGeneration, 1);
        status.store(StatusWord::MachineState, MachineState::Running as u32);
        status.store(StatusWord::RunEpoch, 1);
        Self {
            set,
            host,
            status,
            _clock: clock,
        }
    }

    /// What the coordinator would tell a worker. The guest is the one that uses most of the machine.
    fn context(&self, role: Role, generation: u32) -> WorkerContext {
        let config = match role {
            Role::Cpu => postcard::to_allocvec(&CpuConfig {
                vcpus: 1,
                model: "max".into(),
                accel: Accel::Interp,
                check_jit: false,
                no_reboot: false,
                rtc_base: 1_700_000_000,
                spin_nanos: 50_000,
                cmos: Vec::new(),
                wasm: false,
                debugger: None,
            }),
            Role::Io => postcard::to_allocvec(&IoConfig {
                vcpus: 1,
                cpuid_1: (0x633, 0x201),
                long_mode: true,
                exit_port: None,
                debugcon: vec![DebugconConfig {
                    port: 0xE9,
                    stream: 2,
                }],
                testdev: true,
                ac97: true,
                disks: Vec::new(),
                boot: Vec::new(),
                module: None,
                append: "1000000".into(),
                no_reboot: false,
                spin_nanos: 50_000,
            }),
            Role::Gpu => postcard::to_allocvec(&GpuConfig {
                headless: true,
                software: true,
                any_gpu: false,
                title: "fuzz".into(),
                window: WindowSettings::default(),
            }),
            _ => postcard::to_allocvec(&AudioConfig {
                sink: AudioSink::Null,
                rate: 48_000,
            }),
        };
        let ram = match role {
            Role::Cpu | Role::Io => self.set.guest_ram(),
            _ => Ok(GuestRam::anonymous(RamLayout::new(0)).expect("no RAM")),
        };
        let kernel = Payload::from_vec(PayloadKind::Kernel, quintet_guests::IRQSTORM.to_vec());
        WorkerContext {
            role,
            generation,
            instance: self.set.instance(),
            ram: ram.expect("RAM"),
            maps: self.set.maps(role).expect("maps"),
            config: config.expect("plain data"),
            payloads: if role == Role::Io {
                vec![kernel]
            } else {
                Vec::new()
            },
            host_fds: Vec::new(),
        }
    }

    fn become_state(&self, state: MachineState) {
        self.status.store(StatusWord::MachineState, state as u32);
        self.status.add(StatusWord::RunEpoch, 1);
        self.ring();
    }

    fn stop(&self) {
        self.status.store(StatusWord::StopRequested, !0);
        self.ring();
    }

    fn ring(&self) {
        self.host.all_doorbells().iter().for_each(|bell| bell.force());
    }
}

fn library(role: Role) -> fn(WorkerContext) -> Result<(), WorkerError> {
    match role {
        Role::Cpu => quintet_cpu_worker::machine::worker::run,
        Role::Io => quintet_io_worker::run::run,
        Role::Gpu => quintet_gpu_worker::run,
        Role::Audio => quintet_audio_worker::run,
        Role::Coordinator => panic!("not a worker"),
    }
}

/// Lives of a worker one after another until the machine ends, as the coordinator would start them. Answers how many.
fn lives<'s>(
    scope: &'s Scope<'s, '_>,
    machine: &'s Machine,
    role: Role,
    over: &'s AtomicBool,
) -> ScopedJoinHandle<'s, u32> {
    scope.spawn(move || {
        let mut generation = 0;
        while !over.load(Ordering::Relaxed) {
            generation += 1;
            machine.status.store(StatusWord::generation(role), generation);
            let context = machine.context(role, generation);
            if let Err(e) = library(role)(context) {
                println!("{role} {generation}: {e}");
                // The coordinator would wait longer.
                std::thread::sleep(Duration::from_millis(20));
            }
            machine.ring();
        }
        generation
    })
}

/// Waits for something that the machine does by itself.
fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() > PATIENCE {
            // Not a panic: the scope would wait for its threads for ever.
            eprintln!("waited in vain until {what}");
            std::process::abort();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// All four workers run a guest, and then somebody scribbles in the files of one of them.
fn attack(hostile: Role) {
    let budget = Budget::new(hostile.name(), Duration::from_secs(5));
    let machine = Machine::new();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let victims: Vec<_> = Role::WORKERS
            .into_iter()
            .filter(|&role| role != hostile)
            .map(|role| (role, lives(scope, &machine, role, &over)))
            .collect();
        // Whoever has such a writer in its files may die of it: it is the attacker's own process.
        let attacker = scope.spawn(|| {
            let mut lives = 0;
            while !over.load(Ordering::Relaxed) {
                lives += 1;
                let context = machine.context(hostile, lives);
                let run = library(hostile);
                let _ = catch_unwind(AssertUnwindSafe(|| run(context)));
                machine.ring();
                std::thread::sleep(Duration::from_millis(20));
            }
            lives
        });
        let maps = machine.set.maps(Role::Coordinator).expect("maps");
        let resets_of = |role| StatusReader::of(&maps, role).load(StatusWord::ResetDone);
        wait_for("the guest starts", || resets_of(Role::Cpu) == 1);
        std::thread::sleep(Duration::from_millis(200));
        let scribbler = Scribbler::new(&machine.set, hostile, &[]);
        let mut random = Rng::seeded(budget.seed);
        let mut resets = 1;
        while !budget.is_over() && !victims.iter().any(|(_, v)| v.is_finished()) {
            let burst = Instant::now();
            while burst.elapsed() < Duration::from_millis(50) {
                for _ in 0..16 {
                    scribbler.strike(|| random.draw());
                }
                scribbler.unlock();
                std::thread::yield_now();
            }
            // Now and then a reset of the guest, so that there is a boot to attack as well.
            resets += 1;
            machine.status.store(StatusWord::ResetGeneration, resets);
            machine.become_state(MachineState::Resetting);
            std::thread::sleep(Duration::from_millis(20));
            machine.become_state(MachineState::Running);
            std::thread::sleep(Duration::from_millis(50));
        }
        let carried_out = resets_of(Role::Cpu);
        over.store(true, Ordering::Relaxed);
        machine.stop();
        wait_for("all workers have ended", || {
            machine.ring();
            victims.iter().all(|(_, v)| v.is_finished()) && attacker.is_finished()
        });
        println!("{resets} resets asked for, {carried_out} the last carried out");
        println!("{hostile}: {} lives", attacker.join().expect("caught"));
        for (role, victim) in victims {
            println!("{role}: {} lives", victim.join().expect("no worker panics"));
        }
    });
}

#[test]
fn s3_63_the_others_survive_a_hostile_io_worker() {
    attack(Role::Io);
}

#[test]
fn s3_63_the_others_survive_a_hostile_cpu_worker() {
    attack(Role::Cpu);
}

#[test]
fn s3_63_the_others_survive_a_hostile_gpu_worker() {
    attack(Role::Gpu);
}

#[test]
fn s3_63_the_others_survive_a_hostile_audio_worker() {
    attack(Role::Audio);
}
