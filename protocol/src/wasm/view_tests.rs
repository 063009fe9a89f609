//! Views: identity, detaching, bounds, and who may write.

use super::*;
use crate::layout::{Ends, Region, SegmentSet};
use crate::ram::{RamLayout, WASM_PAGE};
use crate::status::StatusWriter;
use crate::wasm::words::MemoryWriter;

struct Rig {
    set: SegmentSet,
    writer: MemoryWriter,
    status: StatusWriter,
    ram: GuestRam,
}

impl Rig {
    fn new() -> Self {
        let set = SegmentSet::create(RamLayout::new(16 * WASM_PAGE), 7).expect("files");
        let cpu = Ends::new(&set.maps(Role::Cpu).expect("maps"));
        let own = set.maps(Role::Coordinator).expect("maps");
        let status = StatusWriter::new(
            &own.view_mut(crate::handshake::FileId::Control(Role::Coordinator))
                .expect("ours"),
            Role::Coordinator,
        );
        status.store(StatusWord::generation(Role::Cpu), 1);
        status.store(StatusWord::peer(Role::Cpu), PeerState::Running as u32);
        Self {
            writer: MemoryWriter::attach(cpu.view_mut(Region::guest_memory(0)), 0, 1),
            status,
            ram: set.guest_ram().expect("ram"),
            set,
        }
    }

    /// As io-worker sees it: another map of the same files.
    fn peer(&self) -> LiveMemory {
        let maps = self.set.maps(Role::Io).expect("maps");
        let words = MemoryReader::new(Ends::new(&maps).view(Region::guest_memory(0)));
        let status = StatusReader::of(&maps, Role::Coordinator);
        LiveMemory::new(words, Some(status), self.set.guest_ram().expect("ram"))
    }
}

#[test]
fn s2_1_writes_of_either_side_are_seen_by_the_other() {
    let mut rig = Rig::new();
    rig.writer.begin(1, 16);
    let view = rig.peer().view().expect("live");
    view.write(16, &123_456u32.to_le_bytes()).expect("inside");
    assert_eq!(rig.ram.read_array(GuestPhys(16)), Ok(123_456u32.to_le_bytes()));
    rig.ram.write(GuestPhys(20), &[9]).expect("ram");
    let mut byte = [0];
    view.read(20, &mut byte).expect("inside");
    assert_eq!(byte, [9]);
}

#[test]
fn s2_2_s2_22_a_view_is_the_same_while_nothing_changed_also_without_pages() {
    let mut rig = Rig::new();
    rig.writer.begin(0, 16);
    let memory = rig.peer();
    let (a, b) = (memory.view().expect("live"), memory.view().expect("live"));
    assert_eq!(a, b);
    assert_eq!(a.len(), 0);
    assert_eq!(a.read(0, &mut []), Ok(()));
    rig.writer.grown(1);
    assert_ne!(memory.view().expect("live"), a);
    assert_eq!(a.check(), Err(ViewError::Detached { had: 0, now: 1 }));
}

#[test]
fn s2_3_s2_31_every_growth_detaches_also_by_nothing() {
    let mut rig = Rig::new();
    rig.writer.begin(1, 16);
    let memory = rig.peer();
    for pages in [2, 2] {
        let before = memory.view().expect("live");
        let had = before.len();
        assert_ne!(had, 0);
        rig.writer.grown(pages);
        let after = memory.view().expect("live");
        assert_eq!((before.len(), after.len()), (0, u64::from(pages) * WASM_PAGE));
        assert_ne!(before, after);
    }
}

#[test]
fn s2_8_out_of_bounds_and_detached_are_errors() {
    let mut rig = Rig::new();
    rig.writer.begin(1, 16);
    let view = rig.peer().view().expect("live");
    for (offset, len) in [(WASM_PAGE, 1), (WASM_PAGE - 1, 2), (u64::MAX, 1), (u64::MAX, 0)] {
        assert!(
            matches!(
                view.read(offset, &mut vec![0; len]),
                Err(ViewError::OutOfBounds { .. })
            ),
            "{offset:#x} {len}"
        );
    }
    assert_eq!(view.write(WASM_PAGE, &[]), Ok(()));
    rig.writer.grown(1);
    assert!(matches!(view.write(0, &[1]), Err(ViewError::Detached { .. })));
}

#[test]
fn s2_34_the_death_of_the_owner_detaches_without_its_help() {
    let mut rig = Rig::new();
    rig.writer.begin(1, 16);
    let memory = rig.peer();
    let view = memory.view().expect("live");
    rig.status
        .store(StatusWord::peer(Role::Cpu), PeerState::Restarting as u32);
    assert_eq!(view.read(0, &mut [0]), Err(ViewError::OwnerGone));
    assert!(memory.wait_detached(&view, Duration::from_secs(10)));
    assert_eq!(memory.view().map(|v| v.len()), Err(ViewError::OwnerGone));
}

#[test]
fn s2_33_a_sleeper_wakes_when_the_memory_grows() {
    let mut rig = Rig::new();
    rig.writer.begin(1, 16);
    let memory = rig.peer();
    let view = memory.view().expect("live");
    assert!(!memory.wait_detached(&view, Duration::from_millis(5)));
    let sleeper = std::thread::spawn(move || memory.wait_detached(&view, Duration::from_secs(60)));
    std::thread::sleep(Duration::from_millis(20));
    rig.writer.grown(1);
    assert!(sleeper.join().expect("sleeper"));
}

#[test]
fn s2_36_who_may_only_read_gets_an_error_for_a_write() {
    let mut rig = Rig::new();
    rig.writer.begin(1, 16);
    rig.ram.write(GuestPhys(5), &[77]).expect("ram");
    let file = crate::handshake::FileId::GuestRam;
    let len = rig.set.len(file) - MAP_START;
    let map = rig.set.map(file, MAP_START, len, false);
    let maps = rig.set.maps(Role::Gpu).expect("maps");
    let words = MemoryReader::new(Ends::new(&maps).view(Region::guest_memory(0)));
    let memory = LiveMemory::read_only(words, None, View::new(Arc::new(map.expect("map"))));
    let view = memory.view().expect("live");
    let mut byte = [0];
    view.read(5, &mut byte).expect("inside");
    assert_eq!(byte, [77]);
    assert_eq!(view.write(5, &[1]), Err(ViewError::ReadOnly));
}
