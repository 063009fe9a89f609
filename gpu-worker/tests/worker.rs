//! The whole worker in a thread, over the files of a machine, with the test as cpu-worker and coordinator.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use quintet_gpu_worker::run;
use quintet_protocol::doorbell::SpinPolicy;
use quintet_protocol::font::CP437_8X16;
use quintet_protocol::framebuffer::FrameReader;
use quintet_protocol::handshake::config::GpuConfig;
use quintet_protocol::handshake::{Role, WorkerContext, WorkerError};
use quintet_protocol::input::{InputEvent, RECORD_MAX, strokes_of};
use quintet_protocol::layout::{Ends, Region, SegmentSet, SleeperId};
use quintet_protocol::ram::{GuestRam, RamLayout};
use quintet_protocol::ring::Position;
use quintet_protocol::status::{StatusReader, StatusWord, StatusWriter, WorkerState};
use quintet_protocol::sync::Ordering;
use quintet_protocol::vram::{Palette, VgaRegisters, VramWriter, plane_index};
use quintet_protocol::window::WindowSettings;

/// A test that waits longer than this has failed.
const PATIENCE: Duration = Duration::from_secs(20);

struct Machine {
    files: SegmentSet,
    coordinator: Ends,
    vram: VramWriter,
    status: StatusReader,
    worker: Option<JoinHandle<Result<(), WorkerError>>>,
    generation: u32,
}

impl Machine {
    fn new() -> Self {
        let files = SegmentSet::create(RamLayout::new(0x1_0000), 1).expect("files");
        let maps = files.maps(Role::Coordinator).expect("maps");
        let coordinator = Ends::new(&maps);
        let vram = Ends::new(&files.maps(Role::Cpu).expect("maps"))
            .vram_writer()
            .expect("VRAM");
        coordinator.clock_master().resume();
        let status = StatusReader::of(&maps, Role::Gpu);
        Self {
            files,
            coordinator,
            vram,
            status,
            worker: None,
            generation: 0,
        }
    }

    fn start(&mut self) {
        self.generation += 1;
        let config = GpuConfig {
            headless: true,
            software: false,
            any_gpu: false,
            title: "test".into(),
            window: WindowSettings::default(),
        };
        let context = WorkerContext {
            role: Role::Gpu,
            generation: self.generation,
            instance: 1,
            ram: GuestRam::anonymous(RamLayout::new(0)).expect("no RAM"),
            maps: self.files.maps(Role::Gpu).expect("maps"),
            config: postcard::to_stdvec(&config).expect("encodes"),
            payloads: Vec::new(),
            host_fds: Vec::new(),
        };
        self.worker = Some(std::thread::spawn(move || run(context)));
        let generation = self.generation;
        self.wait("ready", |machine| {
            machine.status.load(StatusWord::ReadyGpu) == generation
        });
    }

    fn wait(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> bool) {
        let start = Instant::now();
        while !condition(self) {
            self.grant();
            assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn stop(&mut self) {
        let control = self.coordinator.view_mut(Region::status(Role::Coordinator));
        control.store_u32(
            StatusWord::StopRequested.index() * 4,
            1 << Role::Gpu.index(),
            Ordering::Release,
        );
        self.coordinator.doorbell(SleeperId::Gpu).ring();
        if let Some(worker) = self.worker.take() {
            worker
                .join()
                .expect("the worker panicked")
                .expect("the worker failed");
        }
        control.store_u32(StatusWord::StopRequested.index() * 4, 0, Ordering::Release);
    }

    /// Mode 3 with its font, as firmware leaves it, but without the cursor.
    fn set_mode_3(&self) {
        for (code, glyph) in (0..).zip(CP437_8X16) {
            for (line, bits) in (0..).zip(glyph) {
                self.vram
                    .memory()
                    .write_bytes(plane_index(code * 32 + line, 2), &[bits]);
            }
        }
        self.vram.mark_range(0, 0x8000);
        self.vram.publish_palette(&Palette::ega());
        let mut registers = VgaRegisters::text_80x25();
        registers.crtc[0x0A] |= 0x20;
        self.vram.publish_registers(&registers);
    }

    /// What the vCPU does when the exit word is set, or when it goes on.
    fn grant(&self) {
        if self.vram.is_epoch_wanted() {
            self.vram.begin_epoch();
        }
    }

    fn put(&self, column: u16, row: u16, text: &str) {
        for (offset, character) in (0..).zip(text.bytes()) {
            let at = (row * 80 + column + offset) * 2;
            self.vram
                .memory()
                .write_bytes(plane_index(at, 0), &[character, 0x07]);
            self.vram.mark(plane_index(at, 0));
            self.grant();
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
        }
    }
}

/// Whether the newest frame shows `character` in grey at a cell of an 80×25 screen.
fn shows(reader: &mut FrameReader, column: u32, row: u32, character: u8) -> bool {
    let Some(frame) = reader.lease().expect("a good frame") else {
        return false;
    };
    if (frame.info().layout.width, frame.info().layout.height) != (720, 400) {
        return false;
    }
    let mut line = vec![0; 720 * 4];
    (0..).zip(CP437_8X16[usize::from(character)]).all(|(y, bits)| {
        frame.read_line(row * 16 + y, &mut line);
        (0..8).all(|dot| {
            let lit = bits & 0x80 >> dot != 0;
            line[(column as usize * 9 + dot) * 4] == if lit { 170 } else { 0 }
        })
    })
}

#[test]
fn text_that_the_guest_writes_is_on_a_frame_soon() {
    let mut machine = Machine::new();
    machine.start();
    let mut reader = machine.coordinator.frame_reader();
    machine.set_mode_3();
    machine.put(3, 4, "Q");
    machine.wait("the letter", |_| shows(&mut reader, 3, 4, b'Q'));
}

#[test]
fn a_worker_asleep_is_woken_by_a_single_write() {
    let mut machine = Machine::new();
    machine.set_mode_3();
    machine.start();
    let mut reader = machine.coordinator.frame_reader();
    for (column, character) in (0..).zip("abc".chars()) {
        machine.wait("sleep", |machine| {
            machine.status.load(StatusWord::WorkerState) == WorkerState::Parked as u32
        });
        machine.put(column, 0, &character.to_string());
        machine.wait("the letter", |_| {
            shows(&mut reader, u32::from(column), 0, character as u8)
        });
    }
}

#[test]
fn a_still_screen_is_neither_drawn_nor_looked_at() {
    let mut machine = Machine::new();
    machine.set_mode_3();
    machine.start();
    machine.wait("sleep", |machine| {
        machine.status.load(StatusWord::WorkerState) == WorkerState::Parked as u32
    });
    let frames = machine.coordinator.frame_reader().newest();
    let beats = machine.status.load(StatusWord::Heartbeat);
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(machine.coordinator.frame_reader().newest(), frames);
    assert_eq!(
        machine.status.load(StatusWord::Heartbeat),
        beats,
        "the worker woke up"
    );
}

#[test]
fn frames_are_paced_however_fast_the_guest_draws() {
    let mut machine = Machine::new();
    machine.set_mode_3();
    machine.start();
    let reader = machine.coordinator.frame_reader();
    let (first, start) = (reader.newest(), Instant::now());
    let mut n = 0_u8;
    while start.elapsed() < Duration::from_millis(500) {
        n = n.wrapping_add(1);
        machine.put(0, 0, &char::from(b'a' + n % 26).to_string());
        std::thread::sleep(Duration::from_micros(200));
    }
    let frames = reader.newest() - first;
    let most = start.elapsed().as_millis() as u32 * 60 / 1000 + 2;
    assert!((1..=most).contains(&frames), "{frames} frames, at most {most}");
}

#[test]
fn a_screenshot_shows_what_was_written_before_it_was_asked_for() {
    let mut machine = Machine::new();
    machine.set_mode_3();
    machine.start();
    let shots = machine.coordinator.shot_reader();
    for (column, character) in [(5, b'x'), (6, b'y')] {
        machine.put(column, 2, &char::from(character).to_string());
        let request = machine.coordinator.ask_for_shot();
        let mut file = None;
        machine.wait("the screenshot", |_| {
            file = shots.take(request).expect("a screenshot");
            file.is_some()
        });
        let file = file.expect("a screenshot");
        let mut png = png::Decoder::new(std::io::Cursor::new(&file))
            .read_info()
            .expect("a PNG");
        let mut pixels = vec![0; png.output_buffer_size().expect("a size")];
        let info = png.next_frame(&mut pixels).expect("a picture");
        assert_eq!((info.width, info.height), (720, 400));
        for (line, bits) in CP437_8X16[usize::from(character)].into_iter().enumerate() {
            for dot in 0..8 {
                let at = ((32 + line) * 720 + usize::from(column) * 9 + dot) * 3;
                assert_eq!(pixels[at] != 0, bits & 0x80 >> dot != 0, "line {line}, dot {dot}");
            }
        }
    }
}

#[test]
fn a_successor_shows_the_screen_again_and_answers_what_its_predecessor_left() {
    let mut machine = Machine::new();
    machine.set_mode_3();
    machine.put(0, 0, "Z");
    machine.start();
    let mut reader = machine.coordinator.frame_reader();
    machine.wait("the letter", |_| shows(&mut reader, 0, 0, b'Z'));
    machine.stop();
    machine.put(1, 0, "Y");
    let request = machine.coordinator.ask_for_shot();
    let before = reader.newest();
    machine.start();
    machine.wait("the next letter", |_| {
        shows(&mut reader, 1, 0, b'Y') && shows(&mut reader, 0, 0, b'Z')
    });
    assert!(reader.newest() > before);
    let owner = reader
        .lease()
        .expect("a good frame")
        .expect("a frame")
        .info()
        .owner;
    assert_eq!(owner, 2);
    let shots = machine.coordinator.shot_reader();
    machine.wait("the screenshot", |_| {
        shots.take(request).expect("a screenshot").is_some()
    });
}

#[test]
fn typed_text_reaches_the_input_ring_in_order_however_long_it_is() {
    let mut machine = Machine::new();
    machine.start();
    let io = Ends::new(&machine.files.maps(Role::Io).expect("maps"));
    let mut ring = io.input_consumer(Position::default()).expect("a good ring");
    let mut typing = machine
        .coordinator
        .lifecycle_to_producer(Role::Gpu)
        .expect("a good ring");
    // More events than the input ring holds at once.
    let text = "The quick brown fox jumps over the lazy dog. ".repeat(60);
    let sent: Vec<InputEvent> = strokes_of(&text)
        .expect("typable")
        .into_iter()
        .flat_map(|stroke| stroke.events())
        .collect();
    let mut waiting = sent.iter();
    let mut next = waiting.next();
    let mut received = Vec::new();
    machine.wait("the text", |machine| {
        while let Some(event) = next {
            if typing.push(event.to_record(0).as_bytes()).is_err() {
                break;
            }
            next = waiting.next();
        }
        machine.coordinator.doorbell(SleeperId::Gpu).ring();
        let mut record = [0; RECORD_MAX];
        // Slower than the sender: the ring fills.
        for _ in 0..200 {
            let Some(found) = ring.next(&mut record).expect("a good ring") else {
                break;
            };
            received.push(InputEvent::from_record(&record[..found.len]).expect("an event").0);
        }
        ring.release_all();
        received.len() == sent.len()
    });
    assert_eq!(received, sent);
}

#[test]
fn typed_text_rings_for_a_device_worker_that_is_about_to_sleep() {
    let mut machine = Machine::new();
    machine.start();
    let io = Ends::new(&machine.files.maps(Role::Io).expect("maps"));
    // Awake: it has looked at its input and has not said yet that it sleeps, before which it looks at commands only.
    let sleeper = io.sleeper(SleeperId::Io, SpinPolicy::NEVER);
    let mut typing = machine
        .coordinator
        .lifecycle_to_producer(Role::Gpu)
        .expect("a good ring");
    for stroke in strokes_of("a").expect("typable") {
        for event in stroke.events() {
            typing.push(event.to_record(0).as_bytes()).expect("room");
        }
    }
    machine.coordinator.doorbell(SleeperId::Gpu).ring();
    machine.wait("a ring", |_| sleeper.take());
}

#[test]
fn a_successor_releases_all_keys_first() {
    let mut machine = Machine::new();
    machine.start();
    machine.stop();
    machine.start();
    let io = Ends::new(&machine.files.maps(Role::Io).expect("maps"));
    let mut ring = io.input_consumer(Position::default()).expect("a good ring");
    let mut record = [0; RECORD_MAX];
    let mut event = None;
    machine.wait("an event", |_| {
        let found = ring.next(&mut record).expect("a good ring");
        event = found.map(|found| InputEvent::from_record(&record[..found.len]).expect("an event").0);
        event.is_some()
    });
    assert_eq!(event, Some(InputEvent::ReleaseAll));
}

#[test]
fn a_reset_and_a_pause_are_acknowledged_without_a_ring() {
    let mut machine = Machine::new();
    machine.start();
    let maps = machine.files.maps(Role::Coordinator).expect("maps");
    let control = maps
        .view_mut(quintet_protocol::handshake::FileId::Control(Role::Coordinator))
        .expect("writable");
    let words = StatusWriter::new(&control, Role::Coordinator);
    words.store(StatusWord::ResetGeneration, 3);
    words.store(StatusWord::RunEpoch, 9);
    machine.wait("the acknowledgement", |machine| {
        machine.status.load(StatusWord::ResetDone) == 3 && machine.status.load(StatusWord::EpochSeen) == 9
    });
}
