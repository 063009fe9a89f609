//! Every reading end of every file, one after another, after each handful of scribbled words; the words are of a seeded generator.

use std::time::Duration;

use quintet_protocol::handshake::{FileId, Role};
use quintet_protocol::layout::Region;
use quintet_protocol::status::{StatusWord, StatusWriter};
use quintet_tests::fuzz::ends::{
    Machine, common, readers_of_audio, readers_of_cpu, readers_of_gpu, readers_of_io,
};
use quintet_tests::fuzz::scribble::Scribbler;
use quintet_tests::random::Rng;

use crate::budget::Budget;

fn fuzz(hostile: Role, readers: fn(&Machine, u64)) {
    let budget = Budget::new(hostile.name(), Duration::from_secs(2));
    let machine = Machine::default();
    let scribbler = Scribbler::new(&machine.set, hostile, &[FileId::Doorbells]);
    let mut random = Rng::seeded(budget.seed);
    let mut round = 0;
    while round < 50 || !budget.is_over() {
        for _ in 0..=round % 32 {
            scribbler.strike(|| random.draw());
        }
        // Busy seqlocks are waited for, so they are rare here; the concurrent form has them all the time.
        if round % 64 != 0 {
            scribbler.unlock();
        }
        readers(&machine, round);
        common(&machine, hostile);
        round += 1;
    }
    println!("{round} rounds");
}

/// The same while the scribbler runs on a thread of its own, so that words change between two looks.
fn race(hostile: Role, readers: fn(&Machine, u64)) {
    let budget = Budget::new(hostile.name(), Duration::from_secs(2));
    let machine = Machine::default();
    let scribbler = Scribbler::new(&machine.set, hostile, &[]);
    let mut random = Rng::seeded(budget.seed);
    let done = quintet_protocol::sync::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let work = scope.spawn(|| {
            let mut round = 0;
            while round < 50 || !budget.is_over() {
                readers(&machine, round);
                common(&machine, hostile);
                round += 1;
            }
            println!("{round} rounds");
        });
        while !work.is_finished() && !done.load(quintet_protocol::sync::Ordering::Relaxed) {
            for _ in 0..64 {
                scribbler.strike(|| random.draw());
            }
            scribbler.unlock();
            std::thread::yield_now();
        }
        work.join().expect("no reader panics");
    });
}

macro_rules! targets {
    ($($name:ident, $race:ident, $role:ident, $readers:ident;)*) => { $(
        #[test]
        fn $name() {
            fuzz(Role::$role, $readers);
        }

        #[test]
        fn $race() {
            race(Role::$role, $readers);
        }
    )* };
}

targets! {
    s3_63_readers_survive_io_worker, s3_63_readers_survive_io_worker_at_work, Io, readers_of_io;
    s3_63_readers_survive_cpu_worker, s3_63_readers_survive_cpu_worker_at_work, Cpu, readers_of_cpu;
    s3_63_readers_survive_gpu_worker, s3_63_readers_survive_gpu_worker_at_work, Gpu, readers_of_gpu;
    s3_63_readers_survive_audio_worker, s3_63_readers_survive_audio_worker_at_work, Audio, readers_of_audio;
}

#[test]
fn the_scribbler_reaches_every_region_of_its_writer() {
    let machine = Machine::default();
    let scribbler = Scribbler::new(&machine.set, Role::Io, &[]);
    let mut random = Rng::seeded(1);
    for _ in 0..20_000 {
        scribbler.strike(|| random.draw());
    }
    let io = machine.of(Role::Io);
    let touched = |region: Region| {
        let view = io.view(region);
        let mut bytes = vec![0; view.len().min(4096)];
        view.read_bytes(0, &mut bytes);
        bytes.iter().any(|&b| b != 0)
    };
    for region in [
        Region::reply(0),
        Region::wires(),
        Region::boot_state(),
        Region::commit(),
        Region::status(Role::Io),
        Region::stream_out(0),
        Region::playback(),
        Region::mirror(31),
    ] {
        assert!(touched(region), "{region:?}");
    }
    // And nothing of anybody else's.
    let before = StatusWriter::new(
        &machine
            .set
            .maps(Role::Cpu)
            .expect("maps")
            .view_mut(FileId::Control(Role::Cpu))
            .expect("writable"),
        Role::Cpu,
    );
    assert!(StatusWord::ALL.iter().all(|&w| before.reader().load(w) == 0));
}
