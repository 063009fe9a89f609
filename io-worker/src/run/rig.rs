//! A worker under a vCPU that is played by the test, over real rings, in one process. "Killed" means: the
//! worker unwinds between two steps of a turn, nothing of it is left but the shared files, and a successor
//! opens them.

use std::cell::Cell;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use quintet_protocol::clock::ClockMaster;
use quintet_protocol::handshake::config::{
    DebugconConfig, DiskConfig, DiskFormat, DiskKind, DiskPlace, DiskWrites, IoConfig,
};
use quintet_protocol::handshake::{FileId, Role, WorkerContext, WorkerError};
use quintet_protocol::layout::{Ends, SegmentSet};
use quintet_protocol::message::{Command, CommandFlags, MAX_COMMAND};
use quintet_protocol::payload::{Payload, PayloadKind};
use quintet_protocol::ram::RamLayout;
use quintet_protocol::reply::{ReplyReader, ReplyStatus};
use quintet_protocol::ring::{Producer, PushError};
use quintet_protocol::status::{StatusReader, StatusWord, StatusWriter};
use quintet_protocol::stream::{StreamReader, StreamWriter};
use quintet_protocol::wires::WireReader;
use quintet_protocol::words::Steps;

use rustix::fs::{MemfdFlags, memfd_create};

use super::{Turn, Worker};

/// Of the disk that a test may ask for.
const SECTORS: usize = 64;

/// Dies at a step, or calls a hook at every one.
#[derive(Clone)]
pub(super) struct Bomb {
    left: Rc<Cell<Option<u32>>>,
    look: Option<Rc<dyn Fn()>>,
}

/// What a dying worker unwinds with.
pub(super) struct Killed;

impl Steps for Bomb {
    fn step(&self) {
        if let Some(look) = &self.look {
            look();
        }
        match self.left.get() {
            Some(0) => resume_unwind(Box::new(Killed)),
            Some(n) => self.left.set(Some(n - 1)),
            None => {}
        }
    }
}

/// The machine around the worker: the coordinator's and the vCPU's ends, and the worker's lives.
pub(super) struct Rig {
    pub(super) set: SegmentSet,
    pub(super) host: Ends,
    pub(super) cpu: Ends,
    pub(super) status: StatusWriter,
    pub(super) _clock: ClockMaster,
    pub(super) config: IoConfig,
    pub(super) kernel: Option<Vec<u8>>,
    /// Images of the configuration's disks.
    pub(super) images: Vec<OwnedFd>,
    pub(super) worker: Option<Worker<Bomb>>,
    /// Steps that the next lives have; afterwards lives are unlimited.
    pub(super) lives: VecDeque<u32>,
    pub(super) generation: u32,
    pub(super) look: Option<Rc<dyn Fn()>>,
    pub(super) ring: Producer,
    pub(super) replies: ReplyReader,
    pub(super) wires: WireReader,
    pub(super) edges: [u32; 24],
    pub(super) out: StreamReader,
    pub(super) output: Vec<u8>,
    /// The bell of the worker, as the host's sides ring it.
    pub(super) rung: bool,
    pub(super) input: StreamWriter,
}

impl Rig {
    pub(super) fn new() -> Self {
        let set = SegmentSet::create(RamLayout::new(2 << 20), 7).expect("segments");
        let maps = |role| set.maps(role).expect("maps");
        let (host, cpu) = (Ends::new(&maps(Role::Coordinator)), Ends::new(&maps(Role::Cpu)));
        let file = maps(Role::Coordinator)
            .view_mut(FileId::Control(Role::Coordinator))
            .expect("writable");
        let status = StatusWriter::new(&file, Role::Coordinator);
        let mut clock = host.clock_master();
        clock.resume();
        status.store(StatusWord::ResetGeneration, 1);
        Self {
            config: IoConfig {
                vcpus: 1,
                cpuid_1: (0x633, 0x201),
                long_mode: true,
                exit_port: Some(0xF4),
                debugcon: vec![DebugconConfig {
                    port: 0xE9,
                    stream: 2,
                }],
                testdev: true,
                ac97: true,
                disks: Vec::new(),
                boot: Vec::new(),
                module: None,
                append: String::new(),
                no_reboot: false,
                spin_nanos: 0,
            },
            ring: cpu.command_producer(0).expect("ring"),
            replies: cpu.reply_reader(0),
            wires: cpu.wire_reader(),
            out: host.stream_out_reader(0).expect("stream"),
            output: Vec::new(),
            rung: false,
            input: host.stream_in_writer(0).expect("stream"),
            set,
            host,
            cpu,
            status,
            _clock: clock,
            kernel: None,
            images: Vec::new(),
            worker: None,
            lives: VecDeque::new(),
            generation: 0,
            look: None,
            edges: [0; 24],
        }
    }

    pub(super) fn context(&self) -> WorkerContext {
        let kernel = self
            .kernel
            .iter()
            .map(|k| Payload::from_vec(PayloadKind::Kernel, k.clone()));
        WorkerContext {
            role: Role::Io,
            generation: self.generation,
            instance: 7,
            ram: self.set.guest_ram().expect("RAM"),
            maps: self.set.maps(Role::Io).expect("maps"),
            config: postcard::to_allocvec(&self.config).expect("config"),
            payloads: kernel.collect(),
            host_fds: self
                .images
                .iter()
                .map(|image| image.try_clone().expect("a descriptor"))
                .collect(),
        }
    }

    /// One turn of the worker, in a new life if the last one has ended.
    pub(super) fn turn(&mut self) -> Turn {
        let worker = self.worker.take();
        if worker.is_none() {
            self.generation += 1;
        }
        let context = worker.is_none().then(|| self.context());
        let bomb = Bomb {
            left: Rc::new(Cell::new(None)),
            look: self.look.clone(),
        };
        if worker.is_none() {
            bomb.left.set(self.lives.pop_front());
        }
        let result = catch_unwind(AssertUnwindSafe(|| {
            let mut worker = match (worker, context) {
                (Some(worker), _) => worker,
                (None, Some(context)) => Worker::open_with_steps(context, bomb)?,
                (None, None) => unreachable!("a life without a context"),
            };
            if std::mem::take(&mut self.rung) {
                worker.look();
            }
            let turn = worker.turn()?;
            Ok::<_, WorkerError>((worker, turn))
        }));
        self.take_output();
        match result {
            Ok(Ok((worker, turn))) => {
                self.worker = Some(worker);
                turn
            }
            Ok(Err(error)) => panic!("{error}"),
            Err(payload) if payload.is::<Killed>() => Turn::Served,
            Err(payload) => resume_unwind(payload),
        }
    }

    /// A machine with one hard disk of [`SECTORS`].
    pub(super) fn with_disk(place: DiskPlace, serial: &str) -> Self {
        let mut r = Self::new();
        let file = memfd_create("disk", MemfdFlags::CLOEXEC).expect("memfd");
        rustix::fs::ftruncate(&file, (SECTORS * 512) as u64).expect("sized");
        r.images.push(file);
        r.config.disks.push(DiskConfig {
            name: "disk".into(),
            kind: DiskKind::HardDisk,
            place,
            read_only: false,
            serial: serial.into(),
            format: DiskFormat::Raw,
            writes: DiskWrites::Image,
            loaded: true,
            medium: 0,
        });
        r
    }

    /// What is on that disk.
    pub(super) fn disk(&self) -> Vec<u8> {
        let mut bytes = vec![0; SECTORS * 512];
        let read = rustix::io::pread(&self.images[0], &mut bytes, 0);
        assert_eq!(read, Ok(SECTORS * 512));
        bytes
    }

    /// Gives the worker sixty lives of up to 127 steps.
    pub(super) fn hurt(&mut self, seed: u32) {
        let mut x = seed;
        self.lives = (0..60)
            .map(|_| {
                x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                x >> 24 & 0x7F
            })
            .collect();
    }

    /// Has `check` done by machines of `make`'s, the worker of each being killed once, one step later each time.
    pub(super) fn killed_at_every_step(make: impl Fn() -> Self, mut check: impl FnMut(&mut Self)) {
        let (mut step, mut lives) = (0, 0);
        loop {
            let mut r = make();
            r.lives.push_back(step);
            check(&mut r);
            lives += 1;
            if r.generation == 1 {
                break;
            }
            // Each step of the first turns, then in growing strides: how often a guest looks is up to the host's threads.
            step += 1 + step / 40;
        }
        assert!(lives > 100, "only {lives} lives");
    }

    /// Has `check` done by machines of `make`'s whose workers are killed over and over.
    pub(super) fn killed_over_and_over(make: impl Fn() -> Self, mut check: impl FnMut(&mut Self)) {
        for seed in 1..=10 {
            let mut r = make();
            r.hurt(seed);
            check(&mut r);
            assert!(r.generation > 10, "the guest ended before it was hurt");
        }
    }

    /// Writes a register of the PCI function whose configuration begins at `function`.
    pub(super) fn pci(&mut self, function: u32, register: u8, size: u8, value: u32) {
        self.ask(Command::PciWrite {
            flags: CommandFlags::REPLY,
            address: function | u32::from(register),
            offset: 0,
            size,
            value,
        });
    }

    /// Waits, as a vCPU does, until the worker has carried out the reset with which a machine begins.
    pub(super) fn booted(mut self) -> Self {
        self.boot();
        self
    }

    pub(super) fn boot(&mut self) {
        let status = self.io_status();
        for _ in 0..10_000 {
            if status.load(StatusWord::ResetDone) == 1 {
                return;
            }
            self.turn();
        }
        panic!("the worker does not start");
    }

    pub(super) fn settle(&mut self) {
        let mut idle = 0;
        for _ in 0..10_000 {
            idle = if self.turn() == Turn::Idle { idle + 1 } else { 0 };
            if idle == 2 {
                return;
            }
        }
        panic!("the worker does not come to rest");
    }

    pub(super) fn post(&mut self, command: Command<'_>) -> u64 {
        let mut head = [0; MAX_COMMAND];
        let len = command.encode(&mut head);
        loop {
            match self.ring.stage_two(&head[..len], command.data()) {
                Ok(number) => {
                    self.ring.publish();
                    return number;
                }
                Err(PushError::Full { .. }) => {
                    self.turn();
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Posts without ever turning the worker: for one that runs by itself.
    pub(super) fn push(&mut self, command: Command<'_>) -> u64 {
        let mut head = [0; MAX_COMMAND];
        let len = command.encode(&mut head);
        self.ring.push(&head[..len]).expect("room")
    }

    pub(super) fn ask(&mut self, command: Command<'_>) -> (ReplyStatus, Vec<u8>) {
        let number = self.post(command);
        let mut data = [0; 4096];
        for _ in 0..100_000 {
            if let Ok(Some((status, len))) = self.replies.take(number, &mut data) {
                return (status, data[..len].to_vec());
            }
            self.turn();
        }
        panic!("no reply to {command:?}");
    }

    pub(super) fn outb(&mut self, port: u16, value: u8) {
        self.post(Command::PortWrite {
            flags: CommandFlags::POSTED,
            port,
            size: 1,
            value: u32::from(value),
        });
    }

    pub(super) fn out_sync(&mut self, port: u16, size: u8, value: u32) {
        self.ask(Command::PortWrite {
            flags: CommandFlags::REPLY,
            port,
            size,
            value,
        });
    }

    pub(super) fn inb(&mut self, port: u16) -> u8 {
        self.ask(Command::PortRead { port, size: 1 }).1[0]
    }

    pub(super) fn typed(&mut self, bytes: &[u8]) {
        assert_eq!(self.input.write(bytes), Ok(bytes.len()));
        let at = self.input.position();
        self.input.publish(at);
        self.rung = true;
    }

    /// Reads what is shown, as promptly as a coordinator can.
    pub(super) fn take_output(&mut self) {
        let mut bytes = [0; 4096];
        loop {
            let n = self.out.read(&mut bytes).expect("a stream that never goes back");
            if n == 0 {
                break;
            }
            self.output.extend(&bytes[..n]);
        }
        let at = self.out.position();
        self.out.release(at);
    }

    pub(super) fn count_edges(&mut self) {
        let edges = &mut self.edges;
        self.wires.changes(|c| edges[c.line] += c.edges);
    }

    pub(super) fn io_status(&self) -> StatusReader {
        StatusReader::of(&self.set.maps(Role::Coordinator).expect("maps"), Role::Io)
    }
}
