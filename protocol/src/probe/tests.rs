//! Right and wrong maps, made on purpose.
#![allow(
    unsafe_code,
    reason = "makes the private and misplaced maps that the probe must catch"
)]

use super::*;
use crate::handshake::files::{HEAD_LEN, file_len};
use crate::ram::{MAP_START, RamLayout};
use crate::shm::Segment;
use std::os::fd::AsFd;
use std::sync::Arc;

const RAM: u64 = 1 << 20;

struct Machine {
    segments: Vec<(FileId, Segment)>,
}

impl Machine {
    fn new(files: &[FileId]) -> Self {
        let ram = RamLayout::new(RAM);
        let segments = files
            .iter()
            .map(|&f| {
                (
                    f,
                    Segment::create(&f.file_name(), file_len(f, ram)).expect("segment"),
                )
            })
            .collect();
        Self { segments }
    }

    fn heads(&self) -> Vec<(FileId, ViewMut, u64)> {
        self.segments
            .iter()
            .map(|(f, s)| {
                let map = Map::read_write(s.writer(), f.map_start(), HEAD_LEN as u64).expect("head");
                (*f, ViewMut::new(Arc::new(map)), s.len())
            })
            .collect()
    }

    fn right_maps(&self, role: Role) -> MapSet {
        let mut maps = MapSet::default();
        for (f, s) in &self.segments {
            let len = s.len() - f.map_start();
            let map = if f.writable_by(role) {
                Map::read_write(s.writer(), f.map_start(), len)
            } else {
                Map::read_only(s.reader().expect("reader").as_fd(), f.map_start(), len)
            };
            maps.insert(*f, map.expect("map"));
        }
        maps
    }

    fn probe(&self, role: Role, maps: &MapSet) -> Result<(), ProbeError> {
        let mut seed = 0x1234_5678_u32;
        let probe = CoordinatorProbe::begin(role, self.heads(), || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            seed
        });
        let result = answer(role, maps, probe.go());
        probe.finish(&result)
    }
}

const FILES: [FileId; 4] = [
    FileId::GuestRam,
    FileId::IpcCpu,
    FileId::IpcIo,
    FileId::Control(Role::Coordinator),
];

#[test]
fn s3_22_right_maps_pass_for_every_role_and_leave_the_words_as_they_were() {
    let machine = Machine::new(&FILES);
    let window = |heads: Vec<(FileId, ViewMut, u64)>| {
        heads
            .into_iter()
            .map(|(_, h, _)| {
                let mut bytes = [0; PROBE_WINDOW];
                h.read_bytes(PROBE_OFFSET, &mut bytes);
                bytes
            })
            .collect::<Vec<_>>()
    };
    for (_, head, _) in machine.heads() {
        head.fill(PROBE_OFFSET, PROBE_WINDOW, 0xA5);
    }
    let before = window(machine.heads());
    for role in Role::WORKERS {
        machine
            .probe(role, &machine.right_maps(role))
            .expect("well wired");
    }
    assert_eq!(window(machine.heads()), before);
}

#[test]
fn s3_22_a_wrong_offset_is_caught_and_named() {
    let machine = Machine::new(&FILES);
    let mut maps = machine.right_maps(Role::Cpu);
    let ram = &machine.segments[0].1;
    let wrong = Map::read_write(ram.writer(), MAP_START - (64 << 10), RAM).expect("map");
    maps.insert(FileId::GuestRam, wrong);
    let e = machine.probe(Role::Cpu, &maps).expect_err("caught");
    let text = e.to_string();
    assert!(
        text.contains("GuestRam") && text.contains("coordinator to worker"),
        "{text}"
    );
    assert!(
        text.contains("wrong offset") || text.contains("not the file"),
        "{text}"
    );
    assert!(text.contains("0x7ffffc0 of 0x8100000"), "{text}");
}

#[test]
fn s3_22_a_private_map_of_a_writable_file_is_caught_and_named() {
    let machine = Machine::new(&FILES);
    let mut maps = machine.right_maps(Role::Cpu);
    maps.insert(FileId::GuestRam, private_writable(&machine.segments[0].1));
    let e = machine.probe(Role::Cpu, &maps).expect_err("caught");
    let text = e.to_string();
    assert!(
        text.contains("worker to coordinator") && text.contains("private map"),
        "{text}"
    );
    let ProbeError::Mismatch { wrote, read, .. } = e else {
        panic!("{text}")
    };
    assert_ne!(wrote, read);
}

#[test]
fn s3_22_a_private_map_of_a_read_only_file_is_caught_by_its_description() {
    let machine = Machine::new(&FILES);
    let mut maps = machine.right_maps(Role::Cpu);
    let io = &machine.segments[2].1;
    maps.insert(FileId::IpcIo, Map::private(io.writer(), io.len()).expect("map"));
    let smaps = std::fs::read_to_string("/proc/self/smaps").expect("smaps");
    let faults = judge_maps(&smaps, Role::Cpu, &maps);
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(
        faults[0].contains("IpcIo") && faults[0].contains("is private (r--p)"),
        "{faults:?}"
    );
}

#[test]
fn right_maps_are_described_as_shared() {
    let machine = Machine::new(&FILES);
    let maps = machine.right_maps(Role::Io);
    let smaps = std::fs::read_to_string("/proc/self/smaps").expect("smaps");
    assert_eq!(judge_maps(&smaps, Role::Io, &maps), Vec::<String>::new());
}

#[test]
fn a_writable_map_of_another_ones_file_is_named() {
    let machine = Machine::new(&FILES);
    let mut maps = machine.right_maps(Role::Cpu);
    let io = &machine.segments[2].1;
    maps.insert(
        FileId::IpcIo,
        Map::read_write(io.writer(), 0, io.len()).expect("map"),
    );
    let smaps = std::fs::read_to_string("/proc/self/smaps").expect("smaps");
    let faults = judge_maps(&smaps, Role::Cpu, &maps);
    assert!(
        faults[0].contains("is writable, which the cpu-worker may not"),
        "{faults:?}"
    );
}

#[test]
fn mixed_up_descriptors_are_named() {
    let machine = Machine::new(&FILES);
    let mut maps = machine.right_maps(Role::Gpu);
    let cpu = &machine.segments[1].1;
    maps.insert(
        FileId::IpcIo,
        Map::read_only(cpu.writer(), 0, cpu.len()).expect("map"),
    );
    let text = machine.probe(Role::Gpu, &maps).expect_err("caught").to_string();
    assert!(text.contains("descriptor of IpcCpu in its place"), "{text}");
}

#[test]
fn a_copy_taken_before_is_called_a_copy() {
    let machine = Machine::new(&FILES);
    let mut maps = machine.right_maps(Role::Gpu);
    let io = machine.segments[2].1.len();
    maps.insert(FileId::IpcIo, Map::anonymous(io).expect("map"));
    let text = machine.probe(Role::Gpu, &maps).expect_err("caught").to_string();
    assert!(text.contains("a copy made before"), "{text}");
}

#[test]
fn a_worker_that_leaves_a_file_out_is_refused() {
    let machine = Machine::new(&FILES);
    let mut maps = MapSet::default();
    let all = machine.right_maps(Role::Gpu);
    for file in all.ids().filter(|f| *f != FileId::IpcCpu) {
        let s = &machine.segments.iter().find(|(f, _)| *f == file).expect("made").1;
        maps.insert(
            file,
            Map::read_only(s.writer(), file.map_start(), s.len() - file.map_start()).expect("map"),
        );
    }
    assert_eq!(
        machine.probe(Role::Gpu, &maps),
        Err(ProbeError::Missing {
            role: Role::Gpu,
            file: FileId::IpcCpu
        })
    );
}

#[test]
fn s3_21_no_two_words_of_the_window_are_shared() {
    let words: std::collections::BTreeSet<_> =
        Role::WORKERS.into_iter().flat_map(|r| [down(r), up(r)]).collect();
    assert_eq!(words.len(), 8);
    assert!(
        words
            .iter()
            .all(|w| (PROBE_OFFSET..PROBE_OFFSET + PROBE_WINDOW).contains(w) && w % 4 == 0)
    );
}

/// What seed 1 did: a map whose writes nobody else sees.
fn private_writable(segment: &Segment) -> Map {
    let start = MAP_START;
    let len = segment.len() - start;
    let map = Map::anonymous(len).expect("map");
    // SAFETY: replaces exactly the pages of `map`, which nothing refers to yet; `map` unmaps them on drop.
    unsafe {
        rustix::mm::mmap(
            map.as_ptr().cast(),
            len as usize,
            rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE,
            rustix::mm::MapFlags::PRIVATE | rustix::mm::MapFlags::FIXED,
            segment.writer(),
            start,
        )
    }
    .expect("private map");
    map
}
