//! What looking at a module's memory through a view costs: `cargo bench -p protocol --bench views`. Results stand in
//! `docs/performance.md`.

use std::hint::black_box;

use quintet_protocol::handshake::{FileId, Role};
use quintet_protocol::layout::{Ends, Region, SegmentSet};
use quintet_protocol::ram::{RamLayout, WASM_PAGE};
use quintet_protocol::status::{PeerState, StatusReader, StatusWord, StatusWriter};
use quintet_protocol::wasm::{LiveMemory, MemoryReader, MemoryView, MemoryWriter};
use rustix::time::{ClockId, clock_gettime};

/// Looks of one round.
const LOOKS: u32 = 200_000;
/// Rounds, of which the least counts.
const ROUNDS: usize = 200;

/// Least processor time of `look` in nanoseconds.
fn least(mut look: impl FnMut()) -> f64 {
    let cpu = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
    };
    (0..ROUNDS)
        .map(|_| {
            let start = cpu();
            (0..LOOKS).for_each(|_| look());
            (cpu() - start) / f64::from(LOOKS)
        })
        .fold(f64::INFINITY, f64::min)
}

fn main() {
    if std::env::args().any(|a| a == "--test") {
        return;
    }
    let set = SegmentSet::create(RamLayout::new(4 * WASM_PAGE), 1).expect("files");
    let own = set.maps(Role::Coordinator).expect("maps");
    let control = own.view_mut(FileId::Control(Role::Coordinator)).expect("ours");
    let status = StatusWriter::new(&control, Role::Coordinator);
    status.store(StatusWord::generation(Role::Cpu), 1);
    status.store(StatusWord::peer(Role::Cpu), PeerState::Running as u32);
    let ends = Ends::new(&set.maps(Role::Cpu).expect("maps"));
    MemoryWriter::attach(ends.view_mut(Region::guest_memory(0)), 0, 1).begin(1, 1);
    let maps = set.maps(Role::Io).expect("maps");
    let words = || MemoryReader::new(Ends::new(&maps).view(Region::guest_memory(0)));
    let ram = set.guest_ram().expect("ram");
    let status = Some(StatusReader::of(&maps, Role::Coordinator));
    let peer = LiveMemory::new(words(), status, ram.clone())
        .view()
        .expect("live");
    let inside = LiveMemory::new(words(), None, ram).view().expect("live");
    let check = |view: &MemoryView| least(|| assert!(black_box(view).check().is_ok()));
    let mut bytes = [0; 4];
    let (there, here) = (check(&peer), check(&inside));
    let read = least(|| {
        black_box(&peer)
            .read(16, black_box(&mut bytes))
            .expect("attached");
    });
    println!(
        "check in another process {there:.2} ns, in the owner's {here:.2} ns; read of a word {read:.2} ns"
    );
    println!("(least processor time of {ROUNDS} times {LOOKS})");
}
