//! The worker under a vCPU that is played by the test, over real rings, in one process. "Killed" means: the
//! worker unwinds between two steps of a turn, nothing of it is left but the shared files, and a successor
//! opens them.

use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;

use quintet_protocol::addr::GuestPhys;
use quintet_protocol::clock::ClockMaster;
use quintet_protocol::commit::{COMMIT_SIZE, CommitStore, DEVICES_AT};
use quintet_protocol::handshake::config::{DebugconConfig, IoConfig};
use quintet_protocol::handshake::{FileId, Role, WorkerContext, WorkerError};
use quintet_protocol::input::{InputEvent, Key};
use quintet_protocol::layout::{Ends, Region, SegmentSet};
use quintet_protocol::message::{Command, CommandFlags, MAX_COMMAND};
use quintet_protocol::payload::{Payload, PayloadKind};
use quintet_protocol::ram::RamLayout;
use quintet_protocol::reply::{ReplyReader, ReplyStatus};
use quintet_protocol::ring::{Producer, PushError};
use quintet_protocol::shm::{Map, View, ViewMut};
use quintet_protocol::status::{GuestEvent, StatusReader, StatusWord, StatusWriter};
use quintet_protocol::stream::{StreamReader, StreamWriter};
use quintet_protocol::sync::Ordering;
use quintet_protocol::wires::WireReader;
use quintet_protocol::words::Steps;

use super::worker::Global;
use super::{Turn, Worker};

/// Dies at a step, or calls a hook at every one.
#[derive(Clone)]
struct Bomb {
    left: Rc<Cell<Option<u32>>>,
    look: Option<Rc<dyn Fn()>>,
}

/// What a dying worker unwinds with.
struct Killed;

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
struct Rig {
    set: SegmentSet,
    host: Ends,
    cpu: Ends,
    status: StatusWriter,
    _clock: ClockMaster,
    config: IoConfig,
    kernel: Option<Vec<u8>>,
    worker: Option<Worker<Bomb>>,
    /// Steps that the next lives have; afterwards lives are unlimited.
    lives: VecDeque<u32>,
    generation: u32,
    look: Option<Rc<dyn Fn()>>,
    ring: Producer,
    replies: ReplyReader,
    wires: WireReader,
    edges: [u32; 24],
    out: StreamReader,
    output: Vec<u8>,
    input: StreamWriter,
}

impl Rig {
    fn new() -> Self {
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
                model: "max".into(),
                exit_port: Some(0xF4),
                debugcon: vec![DebugconConfig {
                    port: 0xE9,
                    stream: 2,
                }],
                testdev: true,
                append: String::new(),
                no_reboot: false,
                spin_nanos: 0,
            },
            ring: cpu.command_producer(0).expect("ring"),
            replies: cpu.reply_reader(0),
            wires: cpu.wire_reader(),
            out: host.stream_out_reader(0).expect("stream"),
            output: Vec::new(),
            input: host.stream_in_writer(0).expect("stream"),
            set,
            host,
            cpu,
            status,
            _clock: clock,
            kernel: None,
            worker: None,
            lives: VecDeque::new(),
            generation: 0,
            look: None,
            edges: [0; 24],
        }
    }

    fn context(&self) -> WorkerContext {
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
            host_fds: Vec::new(),
        }
    }

    /// One turn of the worker, in a new life if the last one has ended.
    fn turn(&mut self) -> Turn {
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

    /// Waits, as a vCPU does, until the worker has carried out the reset with which a machine begins.
    fn booted(mut self) -> Self {
        self.boot();
        self
    }

    fn boot(&mut self) {
        let status = self.io_status();
        for _ in 0..10_000 {
            if status.load(StatusWord::ResetDone) == 1 {
                return;
            }
            self.turn();
        }
        panic!("the worker does not start");
    }

    fn settle(&mut self) {
        let mut idle = 0;
        for _ in 0..10_000 {
            idle = if self.turn() == Turn::Idle { idle + 1 } else { 0 };
            if idle == 2 {
                return;
            }
        }
        panic!("the worker does not come to rest");
    }

    fn post(&mut self, command: Command<'_>) -> u64 {
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

    fn ask(&mut self, command: Command<'_>) -> (ReplyStatus, Vec<u8>) {
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

    fn outb(&mut self, port: u16, value: u8) {
        self.post(Command::PortWrite {
            flags: CommandFlags::POSTED,
            port,
            size: 1,
            value: u32::from(value),
        });
    }

    fn out_sync(&mut self, port: u16, size: u8, value: u32) {
        self.ask(Command::PortWrite {
            flags: CommandFlags::REPLY,
            port,
            size,
            value,
        });
    }

    fn inb(&mut self, port: u16) -> u8 {
        self.ask(Command::PortRead { port, size: 1 }).1[0]
    }

    fn typed(&mut self, bytes: &[u8]) {
        assert_eq!(self.input.write(bytes), Ok(bytes.len()));
        let at = self.input.position();
        self.input.publish(at);
    }

    /// Reads what is shown, as promptly as a coordinator can.
    fn take_output(&mut self) {
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

    fn count_edges(&mut self) {
        let edges = &mut self.edges;
        self.wires.changes(|c| edges[c.line] += c.edges);
    }

    fn io_status(&self) -> StatusReader {
        StatusReader::of(&self.set.maps(Role::Coordinator).expect("maps"), Role::Io)
    }
}

const SCR: u16 = 0x3FF;

#[test]
fn posted_writes_are_applied_in_order_and_a_read_waits_behind_them() {
    let mut r = Rig::new().booted();
    for value in 0..=200 {
        r.outb(SCR, value);
    }
    assert_eq!(r.inb(SCR), 200);
    r.settle();
    assert_eq!(r.ring.is_drained(), Ok(true));
}

#[test]
fn unclaimed_ports_and_memory_say_so_and_read_as_ones() {
    let mut r = Rig::new().booted();
    assert_eq!(
        r.ask(Command::PortRead { port: 0x80, size: 4 }),
        (ReplyStatus::Unclaimed, vec![0xFF; 4])
    );
    let addr = GuestPhys(0xFE00_0000);
    assert_eq!(
        r.ask(Command::MmioRead { addr, size: 8 }),
        (ReplyStatus::Unclaimed, vec![0xFF; 8])
    );
    let addr = GuestPhys(0xFF00_0000);
    let flags = CommandFlags::POSTED;
    r.post(Command::MmioWrite {
        flags,
        addr,
        size: 3,
        value: 0x0011_2233,
    });
    assert_eq!(
        r.ask(Command::MmioRead { addr, size: 5 }),
        (ReplyStatus::Done, vec![0x33, 0x22, 0x11, 0, 0])
    );
}

#[test]
fn string_io_moves_a_page_in_one_command() {
    let mut r = Rig::new().booted();
    let flags = CommandFlags::POSTED;
    r.post(Command::PortWrite {
        flags,
        port: 0x510,
        size: 2,
        value: 0,
    });
    assert_eq!(
        r.ask(Command::StringIn {
            port: 0x511,
            size: 1,
            count: 6
        })
        .1,
        b"QEMU\0\0"
    );
    r.post(Command::StringOut {
        flags,
        port: 0x3F8,
        size: 1,
        data: b"hello ",
    });
    let ram = r.set.guest_ram().expect("RAM");
    ram.write(GuestPhys(0x1FFB), b"dlrow").expect("RAM");
    let flags = CommandFlags::REPLY.with(CommandFlags::BACKWARDS);
    let guest = GuestPhys(0x1FFF);
    let (_, done) = r.ask(Command::StringOutPage {
        flags,
        port: 0x3F8,
        size: 1,
        count: 5,
        guest,
    });
    assert_eq!(done, 5_u32.to_le_bytes());
    assert_eq!(r.output, b"hello world");
    r.post(Command::PortWrite {
        flags: CommandFlags::POSTED,
        port: 0x510,
        size: 2,
        value: 0,
    });
    r.ask(Command::StringInPage {
        flags: CommandFlags::REPLY,
        port: 0x511,
        size: 1,
        count: 4,
        guest: GuestPhys(0x3000),
    });
    assert_eq!(ram.read_array::<4>(GuestPhys(0x3000)), Ok(*b"QEMU"));
}

#[test]
fn a_wire_that_an_access_moves_is_published_before_its_reply() {
    let mut r = Rig::new().booted();
    r.settle();
    r.worker = None;
    let (replies, wires) = (r.cpu.reply_reader(0), r.cpu.view(Region::wires()));
    let number = r.ring.number() + 1;
    let seen = Rc::new(Cell::new(0));
    let count = Rc::clone(&seen);
    r.look = Some(Rc::new(move || {
        if replies.is_ready(number) {
            let mut reader = WireReader::new(wires.clone());
            reader.changes(|_| {});
            assert!(reader.level(14), "the reply came first");
            count.set(count.get() + 1);
        }
    }));
    r.out_sync(0x200E, 1, 1);
    assert!(seen.get() > 0);
}

#[test]
fn nothing_goes_out_before_the_commit_that_contains_it() {
    let mut r = Rig::new().booted();
    r.settle();
    r.worker = None;
    let (store, stream) = (r.host.view(Region::commit()), r.host.view(Region::stream_out(0)));
    let moves = Rc::new(Cell::new(0));
    let (count, last) = (Rc::clone(&moves), Cell::new(0));
    r.look = Some(Rc::new(move || {
        let tail = stream.load_u64(0, Ordering::Acquire);
        if tail != last.replace(tail) {
            assert!(tail <= committed_output(&store), "output moved before its commit");
            count.set(count.get() + 1);
        }
    }));
    for byte in b"some text" {
        r.outb(0x3F8, *byte);
        r.turn();
    }
    r.settle();
    assert_eq!(r.output, b"some text");
    assert!(moves.get() > 0);
}

/// The position of stream 0 in the last commit, from a copy of the store, since opening one writes to it.
fn committed_output(store: &View) -> u64 {
    let copy = ViewMut::new(Arc::new(Map::anonymous(COMMIT_SIZE as u64).expect("map")));
    let mut bytes = vec![0; DEVICES_AT];
    store.read_bytes(0, &mut bytes);
    copy.write_bytes(0, &bytes);
    let global: Option<Global> = CommitStore::open(copy).load_global().expect("a commit");
    global.map_or(0, |g| g.outside.out[0])
}

#[test]
fn a_mirror_counts_only_once_it_knows_of_every_write_posted() {
    let mut r = Rig::new().booted();
    r.settle();
    let map = r.cpu.decode_map_reader().read().expect("map").1;
    let claim = *map.port(0x3FD).expect("claimed");
    let offset = usize::from(claim.mirror_offset) + (0x3FD - claim.start as usize);
    let mirror = r.cpu.mirror_reader(usize::from(claim.mirror));
    assert_eq!(mirror.read(0, 0, offset, 1), Some(0x60));
    let posted = r.post(Command::PortWrite {
        flags: CommandFlags::POSTED,
        port: 0x3FB,
        size: 1,
        value: 3,
    });
    assert_eq!(mirror.read(0, posted, offset, 1), None);
    r.settle();
    assert_eq!(mirror.read(0, posted, offset, 1), Some(0x60));
    r.typed(b"x");
    r.settle();
    assert_eq!(mirror.read(0, posted, offset, 1), Some(0x61));
}

#[test]
fn the_decode_map_is_new_before_the_write_that_changes_it_returns() {
    let mut r = Rig::new().booted();
    r.settle();
    let reader = r.cpu.decode_map_reader();
    let version = reader.version();
    let flags = CommandFlags::REPLY;
    for (register, value) in [(0x10, 0xFD00_0000), (0x04, 2)] {
        r.ask(Command::PciWrite {
            flags,
            address: 0x8000_1000 | register,
            offset: 0,
            size: 4,
            value,
        });
    }
    assert_ne!(reader.version(), version);
    let (_, map) = reader.read().expect("map");
    assert_eq!(
        map.address(0xFD00_0000).map(|c| c.device),
        Some(quintet_protocol::decode_map::DEVICE_VRAM)
    );
    assert_eq!(
        r.ask(Command::PciRead {
            address: 0x8000_0000,
            offset: 0,
            size: 4
        })
        .1,
        [0x86, 0x80, 0x37, 0x12]
    );
    r.out_sync(0x64, 1, 0xDD);
    assert!(!reader.read().expect("map").1.a20);
}

#[test]
fn exit_and_reset_reach_the_coordinator_and_a_reset_is_carried_out_once() {
    let mut r = Rig::new().booted();
    r.outb(SCR, 7);
    r.out_sync(0x64, 1, 0xFE);
    assert!(matches!(
        r.io_status().guest_event(),
        Some((1, GuestEvent::Reset(_)))
    ));
    r.outb(SCR, 9);
    r.status.store(StatusWord::ResetGeneration, 2);
    r.settle();
    assert_eq!(r.io_status().load(StatusWord::ResetDone), 2);
    assert_eq!(
        r.ring.is_drained(),
        Ok(true),
        "what was posted before belongs to the life before"
    );
    r.worker = None;
    r.settle();
    assert_eq!(
        r.io_status().guest_event().map(|e| e.0),
        Some(1),
        "not asked again"
    );
    r.out_sync(0xF4, 1, 0x10);
    assert_eq!(r.io_status().guest_event(), Some((2, GuestEvent::ExitPort(0x10))));
}

#[test]
fn a_stop_request_and_a_shutdown_command_end_the_worker() {
    let mut r = Rig::new().booted();
    r.settle();
    r.post(Command::Shutdown);
    assert_eq!(r.turn(), Turn::Stop);
    let mut r = Rig::new().booted();
    r.settle();
    r.status.store(StatusWord::StopRequested, 1 << Role::Io.index());
    assert_eq!(r.turn(), Turn::Stop);
}

#[test]
fn an_image_that_is_none_is_a_configuration_error_that_names_it() {
    let mut r = Rig::new();
    r.kernel = Some(b"no kernel".to_vec());
    let error = Worker::open(r.context()).expect_err("refused");
    assert!(matches!(error, WorkerError::Config(_)), "{error}");
}

#[test]
fn rubbish_in_the_command_ring_is_dropped_and_service_goes_on() {
    let mut r = Rig::new().booted();
    for bytes in [&[0xFF; 40][..], &[], &[2, 1]] {
        r.ring.push(bytes).expect("room");
    }
    r.outb(SCR, 5);
    assert_eq!(r.inb(SCR), 5);
}

/// What a guest saw and did, to be the same however often the worker died.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    output: Vec<u8>,
    received: Vec<u8>,
    keys: Vec<u8>,
    files: Vec<u8>,
    edges: u32,
    raised: u32,
}

/// A guest that uses everything that must happen exactly once.
fn guest(r: &mut Rig) -> Outcome {
    r.boot();
    let mut seen = Outcome {
        output: vec![],
        received: vec![],
        keys: vec![],
        files: vec![],
        edges: 0,
        raised: 0,
    };
    let ram = r.set.guest_ram().expect("RAM");
    for (reg, value) in [(3, 0x83), (0, 1), (1, 0), (3, 3), (2, 0x01), (4, 0x0B)] {
        r.outb(0x3F8 + reg, value);
    }
    r.out_sync(0x60, 1, 0xF4);
    assert_eq!(r.inb(0x60), 0xFA);
    r.typed(b"typed by the host");
    let mut to = r.host.lifecycle_to_producer(Role::Io).expect("ring");
    for usage in 4..8 {
        for down in [true, false] {
            to.push(
                InputEvent::Key {
                    key: Key(usage),
                    down,
                }
                .to_record(0)
                .as_bytes(),
            )
            .expect("room");
        }
    }
    for round in 0..4_u8 {
        for byte in format!("line {round}\n").bytes() {
            r.outb(0x3F8, byte);
        }
        r.outb(0x2022, 0);
        r.outb(0x2022, 0);
        r.count_edges();
        // Two bytes of the CPU count by port, then the signature by DMA, byte after byte.
        r.post(Command::PortWrite {
            flags: CommandFlags::POSTED,
            port: 0x510,
            size: 2,
            value: 1,
        });
        let mut control = 0x0000_000A_u32;
        for _ in 0..2 {
            let mut descriptor = control.to_be_bytes().to_vec();
            descriptor.extend(2_u32.to_be_bytes());
            descriptor.extend(0x8000_u64.to_be_bytes());
            ram.write(GuestPhys(0x9000), &descriptor).expect("RAM");
            ram.write(GuestPhys(0x8000), b"??").expect("RAM");
            r.out_sync(0x518, 4, 0x9000_u32.swap_bytes());
            assert_eq!(
                ram.read_array::<4>(GuestPhys(0x9000)),
                Ok([0; 4]),
                "completed before the reply"
            );
            seen.files
                .extend(ram.read_array::<2>(GuestPhys(0x8000)).expect("RAM"));
            control = 2;
        }
        r.out_sync(0x2020, 1, 1);
        r.outb(0x2021, 1);
        for _ in 0..4 {
            while r.inb(0x3FD) & 1 == 0 {}
            seen.received.push(r.inb(0x3F8));
        }
        while r.inb(0x64) & 1 != 0 && seen.keys.len() < 6 * usize::from(round + 1) {
            seen.keys.push(r.inb(0x60));
        }
    }
    seen.raised = u32::from_le_bytes(
        r.ask(Command::PortRead {
            port: 0x2024,
            size: 4,
        })
        .1
        .try_into()
        .expect("four"),
    );
    r.settle();
    r.count_edges();
    seen.edges = r.edges[7];
    seen.output = std::mem::take(&mut r.output);
    seen
}

fn expected() -> Outcome {
    let mut r = Rig::new();
    let seen = guest(&mut r);
    assert_eq!(seen.output, b"line 0\nline 1\nline 2\nline 3\n");
    assert_eq!(seen.received, b"typed by the hos");
    assert_eq!(seen.files, b"QEMU".repeat(4));
    assert_eq!((seen.edges, seen.raised), (8, 4));
    assert_eq!(
        seen.keys,
        [
            0x1C, 0xF0, 0x1C, 0x32, 0xF0, 0x32, 0x21, 0xF0, 0x21, 0x23, 0xF0, 0x23
        ]
    );
    assert_eq!(r.generation, 1);
    seen
}

#[test]
fn killed_once_at_every_step_the_guest_sees_everything_exactly_once() {
    let expected = expected();
    let mut step = 0;
    loop {
        let mut r = Rig::new();
        r.lives.push_back(step);
        let seen = guest(&mut r);
        assert_eq!(seen, expected, "killed at step {step}");
        if r.generation == 1 {
            break;
        }
        // Each step of the first turns, then in strides: a whole sweep takes long in a debug build.
        step += if step < 120 { 1 } else { 7 };
    }
    assert!(step > 400, "only {step} steps");
}

#[test]
fn killed_over_and_over_the_guest_sees_everything_exactly_once() {
    let expected = expected();
    for seed in 1..=12_u32 {
        let mut r = Rig::new();
        let mut x = seed;
        r.lives = (0..60)
            .map(|_| {
                x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                x >> 24 & 0x7F
            })
            .collect();
        let seen = guest(&mut r);
        assert_eq!(seen, expected, "seed {seed}");
        assert!(r.generation > 10, "the guest ended before it was hurt");
    }
}
