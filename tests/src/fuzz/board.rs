//! io-worker's machine without its process, for the targets that access it: devices, disks in memory, RAM, and a clock
//! that the input moves, so that an input does the same each time.
//!
//! It goes through the order of a worker's turn (`quintet_io_worker::run`) and checks at each what that order relies on:
//! a part that was not touched has not changed, a mirror says what a read would, and a successor that loads what was
//! saved saves the same.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use arbitrary::Unstructured;
use quintet_io_worker::block::{Disks, RawImage};
use quintet_io_worker::bus::{RegionKind, Size, StreamIn, StreamOut, Streams};
use quintet_io_worker::firmware::pci_setup;
use quintet_io_worker::fw_cfg::FwCfg;
use quintet_io_worker::machine::{Claim, Env, Machine, MachineConfig};
use quintet_io_worker::rom::Roms;
use quintet_io_worker::run::decode::{Mirrored, decode_map, mirrored};
use quintet_io_worker::storage::diskette::{FORMATS, Geometry};
use quintet_io_worker::storage::floppy::{Diskette, FloppyDrive};
use quintet_io_worker::storage::ide::{DriveConfig, DriveKind};
use quintet_io_worker::storage::virtio::VirtioConfig;
use quintet_protocol::addr::GuestPhys;
use quintet_protocol::decode_map::{self, Attributes, DecodeMap};
use quintet_protocol::input::InputEvent;
use quintet_protocol::ram::{GuestRam, RamLayout};
use quintet_protocol::time::VmTime;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

/// Guest RAM, in bytes.
pub const RAM: u64 = 2 << 20;
/// Lengths of the disks: two hard disks on IDE, a CD, one on virtio, a diskette.
const DISKS: [u64; 5] = [64 * 512, 300 * 512, 40 * 2048, 64 * 512, FORMATS[2].bytes()];
/// Most deadlines that are served between two accesses: a device that always has another one has its time pass anyway.
const DEADLINES: usize = 256;
/// Bytes that an outgoing stream takes between two turns.
const ROOM: usize = 64;

/// What goes in and out of the machine.
#[derive(Debug, Default)]
struct Outside {
    room: usize,
    incoming: VecDeque<u8>,
    events: VecDeque<InputEvent>,
}

impl Streams for Outside {
    fn put(&mut self, stream: StreamOut, _byte: u8) -> bool {
        if stream == StreamOut::NOWHERE {
            return true;
        }
        let fits = self.room > 0;
        self.room = self.room.saturating_sub(1);
        fits
    }
    fn take(&mut self, stream: StreamIn) -> Option<u8> {
        self.incoming.pop_front().filter(|_| stream != StreamIn::NOWHERE)
    }
    fn take_input(&mut self) -> Option<InputEvent> {
        self.events.pop_front()
    }
}

/// The machine, what it is made of, and what was saved of it.
#[derive(Debug)]
pub struct Board {
    machine: Machine,
    outside: Outside,
    now: VmTime,
    ram: GuestRam,
    images: Vec<OwnedFd>,
    read_only: bool,
    media: Media,
    claims: Vec<Claim>,
    decode: Option<u64>,
    /// What the vCPU goes by, and whose the mirrors in it are.
    map: DecodeMap,
    mirrors: Vec<Mirrored>,
    saved: Vec<Vec<u8>>,
}

/// What is in the drives that it can be taken out of.
#[derive(Clone, Copy, Debug)]
struct Media {
    /// How often it was changed.
    count: u32,
    /// Bytes of the diskette and of the disc, at most those of their images; 0 for none.
    floppy: u64,
    cd: u64,
}

impl Media {
    const FIRST: Self = Self {
        count: 0,
        floppy: DISKS[4],
        cd: DISKS[2],
    };
}

fn machine(ram: &GuestRam, images: &[OwnedFd], read_only: bool, media: Media) -> Machine {
    let mut disks = Disks::default();
    let mut ids = Vec::new();
    for (n, file) in images.iter().enumerate() {
        let file = file.try_clone().expect("a descriptor");
        let image = RawImage::new(file, 512).expect("a file in memory");
        // The CD can never be written.
        ids.push(disks.add_here("fuzz", Box::new(image), read_only || n == 2));
    }
    let drive = |kind, n: usize| {
        Some(DriveConfig {
            kind,
            disk: ids[n],
            len: if kind == DriveKind::Cdrom {
                media.cd
            } else {
                DISKS[n]
            },
            serial: "FUZZ".into(),
            medium: if kind == DriveKind::Cdrom { media.count } else { 0 },
        })
    };
    let mut fw_cfg = FwCfg::new();
    fw_cfg
        .add_file("opt/fuzz", (0..=255).collect())
        .expect("room for a file");
    let config = MachineConfig {
        exit_port: Some(0xF4),
        debugcon: vec![(0xE9, StreamOut(2))],
        testdev: true,
        ac97: true,
        vram: 16 << 20,
        com: [(StreamOut(0), StreamIn(0)), (StreamOut(1), StreamIn(1))],
        fw_cfg,
        roms: Roms::default(),
        floppy: FloppyDrive {
            diskette: Geometry::of(media.floppy).map(|geometry| Diskette {
                disk: ids[4],
                geometry,
            }),
            medium: media.count,
        },
        flash: Vec::new(),
        drives: [
            drive(DriveKind::Disk, 0),
            drive(DriveKind::Disk, 1),
            drive(DriveKind::Cdrom, 2),
            None,
        ],
        virtio: vec![VirtioConfig {
            disk: ids[3],
            len: DISKS[3],
            read_only,
            serial: "FUZZ".into(),
        }],
        disks,
    };
    Machine::new(config, ram.clone()).expect("a machine that can be built")
}

impl Board {
    /// After power-on; with `ready`, as firmware leaves it: BARs placed and decoded. With `read_only`, no disk takes writes.
    ///
    /// # Panics
    /// When the host has no memory or descriptor left.
    pub fn new(ready: bool, read_only: bool) -> Self {
        let ram = GuestRam::anonymous(RamLayout::new(RAM)).expect("RAM");
        let images = DISKS.map(|len| {
            let file = memfd_create("fuzz", MemfdFlags::CLOEXEC).expect("memfd");
            ftruncate(&file, len).expect("sized");
            file
        });
        let images = Vec::from(images);
        let mut this = Self {
            machine: machine(&ram, &images, read_only, Media::FIRST),
            outside: Outside {
                room: ROOM,
                ..Outside::default()
            },
            now: VmTime(1_000_000),
            ram,
            images,
            read_only,
            media: Media::FIRST,
            claims: Vec::new(),
            decode: None,
            map: DecodeMap::default(),
            mirrors: Vec::new(),
            saved: Vec::new(),
        };
        this.saved = this.save();
        this.env(|m, env| m.start(env));
        this.reset(ready);
        this
    }

    /// The reset line; with `ready`, what firmware does then.
    ///
    /// # Panics
    /// When an invariant is broken, as [`Self::turn`].
    pub fn reset(&mut self, ready: bool) {
        self.env(|m, env| m.reset(env));
        if ready {
            self.machine.as_firmware_leaves_it();
            pci_setup::set_up(self.machine.pci_mut()).expect("the BARs fit");
            self.machine.follow_pci();
        }
        self.turn();
    }

    /// The machine, with its surroundings.
    pub fn env<R>(&mut self, f: impl FnOnce(&mut Machine, &mut Env<'_>) -> R) -> R {
        let mut env = Env {
            now: self.now,
            streams: &mut self.outside,
        };
        f(&mut self.machine, &mut env)
    }

    /// Ranges that devices answer now.
    pub fn claims(&self) -> &[Claim] {
        &self.claims
    }

    /// Writes guest RAM, as the vCPU does; nothing where there is none.
    pub fn poke(&mut self, at: u64, bytes: &[u8]) {
        let _ = self.ram.write(GuestPhys(at), bytes);
    }

    /// A byte comes in on each serial line, or an event of the keyboard or the pointer.
    pub fn bring(&mut self, byte: u8, event: Option<InputEvent>) {
        match event {
            Some(event) => self.outside.events.push_back(event),
            None => self.outside.incoming.push_back(byte),
        }
    }

    /// Lets time pass, with its deadlines in order.
    pub fn pass(&mut self, nanos: u64) {
        let end = self.now + nanos;
        for _ in 0..DEADLINES {
            let Some(due) = self.machine.next_deadline().filter(|at| *at <= end) else {
                break;
            };
            self.now = self.now.max(due);
            self.turn();
        }
        self.now = end;
        self.turn();
    }

    fn save(&self) -> Vec<Vec<u8>> {
        let save = |part| {
            let mut bytes = Vec::new();
            self.machine.save_part(part, &mut bytes);
            bytes
        };
        (0..self.machine.part_count()).map(save).collect()
    }

    /// Takes up what was touched as a commit does.
    fn stage(&mut self) -> quintet_io_worker::parts::Parts {
        let touched = self.machine.take_touched();
        for (part, now) in self.save().into_iter().enumerate() {
            let name = self.machine.part_name(part);
            assert!(
                touched.contains(part) || now == self.saved[part],
                "{name} has changed, and nobody touched it"
            );
            self.saved[part] = now;
        }
        touched
    }

    /// A worker's turn: time, commit, completions, commit, requests to disks, publication.
    ///
    /// # Panics
    /// When a part changed that was not touched, a mirror is not what a read answers, or the decode map is none.
    pub fn turn(&mut self) {
        self.env(|m, env| m.advance(env));
        let touched = self.stage();
        if self.env(|m, env| m.completed(touched, env)) {
            self.stage();
        }
        self.machine.submit_disks();
        let _ = self.machine.dma().take_hits();
        let _ = self.machine.playback().take();
        self.outside.room = ROOM;
        if self.decode != Some(self.machine.decode_version()) {
            self.decode = Some(self.machine.decode_version());
            self.claims = self.machine.claims();
            self.mirrors = mirrored(&self.machine);
            self.map = decode_map(&self.machine, &self.mirrors);
            assert_eq!(self.map.validate(), Ok(()), "the decode map");
        }
    }

    /// Every mirrored register says what a read answers, and the read changes nothing.
    ///
    /// # Panics
    /// When one does not, or it does.
    pub fn check_mirrors(&mut self) {
        self.turn();
        let of =
            |kind, claims: &[decode_map::Claim]| -> Vec<_> { claims.iter().map(|c| (kind, *c)).collect() };
        let claims = [
            of(RegionKind::Port, &self.map.ports),
            of(RegionKind::Memory, &self.map.memory),
        ];
        for (kind, claim) in claims.concat() {
            if !claim.attributes.contains(Attributes::MIRRORED) {
                continue;
            }
            let block = self.mirrors[usize::from(claim.mirror)];
            let mut bytes = [0; 16];
            let valid = self.machine.mirror(block.part, block.region, &mut bytes);
            for at in 0..claim.len {
                let byte = usize::from(claim.mirror_offset) + at as usize;
                if valid >> byte & 1 == 0 {
                    continue;
                }
                let address = claim.start + at;
                let read = self.env(|m, env| match kind {
                    RegionKind::Port => m.port_read(env, address as u16, Size::BYTE),
                    RegionKind::Memory => m.memory_read(env, address, Size::BYTE),
                });
                let name = self.machine.part_name(block.part);
                assert_eq!(
                    read,
                    Some(u64::from(bytes[byte])),
                    "the mirror of {name}, {address:#x}"
                );
            }
        }
        assert_eq!(self.save(), self.saved, "a mirrored register was read");
    }

    /// The worker dies and a successor takes up what was committed.
    ///
    /// # Panics
    /// When it does not take it up, saves something else, or has its wires elsewhere.
    pub fn restart(&mut self) {
        self.succeed(true);
    }

    /// The same with other media: a diskette of one of three lengths or none, a disc of half a `size` of sectors or none.
    ///
    /// # Panics
    /// As [`Self::restart`].
    pub fn exchange(&mut self, size: u8) {
        let fitting = [0, FORMATS[0].bytes(), FORMATS[1].bytes(), FORMATS[2].bytes()];
        self.media = Media {
            count: self.media.count.wrapping_add(1),
            floppy: fitting[usize::from(size) % fitting.len()],
            cd: (u64::from(size / 2) * 2048).min(DISKS[2]),
        };
        self.succeed(false);
    }

    fn succeed(&mut self, same: bool) {
        self.turn();
        let mut next = machine(&self.ram, &self.images, self.read_only, self.media);
        for (part, bytes) in self.saved.iter().enumerate() {
            let version = next.part_version(part);
            let name = next.part_name(part);
            if let Err(error) = next.load_part(part, version, bytes) {
                panic!("{name} refuses its own state: {error}");
            }
        }
        assert_eq!(next.wires(), self.machine.wires());
        assert_eq!(next.request(), self.machine.request());
        assert_eq!(next.claims(), self.machine.claims());
        self.machine = next;
        if same {
            assert_eq!(self.save(), self.saved, "a successor saves something else");
        }
        self.env(|m, env| m.start(env));
        self.turn();
    }

    /// Has a part take up a state that somebody else made.
    ///
    /// # Panics
    /// When a refused state has changed something, or a state that was taken up is none that the part saves and loads.
    pub fn load(&mut self, part: u8, version: Option<u16>, bytes: &[u8]) -> bool {
        let part = usize::from(part) % self.machine.part_count();
        let name = self.machine.part_name(part);
        let version = version.unwrap_or(self.machine.part_version(part));
        if self.machine.load_part(part, version, bytes).is_err() {
            assert_eq!(
                self.save()[part],
                self.saved[part],
                "{name} refused a state, and changed"
            );
            return false;
        }
        let taken = self.save()[part].clone();
        self.machine
            .load_part(part, self.machine.part_version(part), &taken)
            .unwrap_or_else(|e| panic!("{name} refuses what it took up: {e}"));
        assert_eq!(self.save()[part], taken, "{name} saves something else each time");
        // Whoever loads a state begins a life with it.
        self.saved = self.save();
        self.decode = None;
        self.env(|m, env| m.start(env));
        true
    }

    /// What was saved of a part.
    pub fn state(&self, part: u8) -> &[u8] {
        &self.saved[usize::from(part) % self.saved.len()]
    }
}

/// A width of an access.
pub fn size(u: &mut Unstructured<'_>) -> u8 {
    [1, 2, 4, 1][usize::from(u.arbitrary::<u8>().unwrap_or(0) & 3)]
}
