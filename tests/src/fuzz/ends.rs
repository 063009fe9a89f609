//! Every reading end of every file, one after another, after each handful of scribbled words.

use arbitrary::Unstructured;
use quintet_protocol::addr::RamOffset;
use quintet_protocol::audio::Format;
use quintet_protocol::commit::MAX_DEVICES;
use quintet_protocol::handshake::{FileId, Role};
use quintet_protocol::input::InputEvent;
use quintet_protocol::invalidation::Stale;
use quintet_protocol::layout::{Ends, STREAMS, SegmentSet, SleeperId};
use quintet_protocol::message::{Command, Event};
use quintet_protocol::mirror::MIRRORS;
use quintet_protocol::ram::RamLayout;
use quintet_protocol::reply::REPLY_DATA;
use quintet_protocol::ring::{Consumer, Position, Producer, PushError};
use quintet_protocol::shm::View;
use quintet_protocol::status::{StatusReader, StatusWord};
use quintet_protocol::stream::{StreamReader, StreamWriter};
use quintet_protocol::vram::DirtTracker;
use quintet_protocol::wires::LINES;

use super::scribble::Scribbler;

/// The five processes' ends of one machine.
#[derive(Debug)]
pub struct Machine {
    /// Its files.
    pub set: SegmentSet,
    ends: [Ends; 5],
}

impl Default for Machine {
    fn default() -> Self {
        let set = SegmentSet::create(RamLayout::new(1 << 20), 3).expect("segments");
        let ends = Role::ALL.map(|role| Ends::new(&set.maps(role).expect("maps")));
        // Something valid to spoil.
        let io = &ends[Role::Io.index()];
        io.decode_map_writer()
            .publish(&quintet_protocol::decode_map::DecodeMap::default())
            .expect("a map");
        io.mirror_writer(0).publish(&[0; 8], !0, &[7; 32]);
        drop(io.playback_producer(Format::new(48_000, 2)));
        drop(ends[Role::Audio.index()].capture_producer(48_000));
        drop(ends[Role::Cpu.index()].vram_writer().expect("VRAM"));
        drop(ends[Role::Gpu.index()].frame_writer());
        Self { set, ends }
    }
}

impl Machine {
    /// The ends of one of the five.
    pub fn of(&self, role: Role) -> &Ends {
        &self.ends[role.index()]
    }
}

/// Takes what there is, resynchronises after a lie, and checks what it is given.
fn drain(consumer: Result<Consumer, impl std::fmt::Debug>, mut each: impl FnMut(&[u8])) {
    let Ok(mut consumer) = consumer else { return };
    let mut buffer = [0; 512];
    for _ in 0..64 {
        match consumer.next(&mut buffer) {
            Ok(Some(record)) => each(&buffer[..record.len]),
            Ok(None) => break,
            Err(e) if e.is_corrupt() => {
                let at = consumer.skip_to_tail();
                consumer.release_skipped(at);
            }
            Err(_) => {}
        }
    }
    let _ = (consumer.has_pending(), consumer.position());
    consumer.release_all();
}

fn fill(producer: Result<Producer, PushError>) {
    let Ok(mut producer) = producer else { return };
    for n in 0..8u32 {
        let _ = producer.push(&n.to_le_bytes());
    }
    let _ = (producer.released(), producer.is_drained(), producer.has_room(64));
}

fn read_stream(reader: Result<StreamReader, impl std::fmt::Debug>) {
    let Ok(mut reader) = reader else { return };
    let mut buffer = [0; 300];
    for _ in 0..4 {
        assert!(reader.read(&mut buffer).unwrap_or(0) <= buffer.len());
        let _ = reader.pending();
        reader.release(reader.position());
    }
}

fn write_stream(writer: Result<StreamWriter, impl std::fmt::Debug>) {
    let Ok(mut writer) = writer else { return };
    let _ = writer.free();
    assert!(writer.write(&[1; 100]).unwrap_or(0) <= 100);
    writer.publish(writer.position());
}

fn status(view: &View) {
    let reader = StatusReader::new(view);
    for &word in StatusWord::ALL {
        let _ = reader.load(word);
    }
    let _ = (reader.guest_event(), reader.guest_memory());
}

/// What everybody reads of everybody.
///
/// # Panics
/// When a reader believes what cannot be.
pub fn common(m: &Machine, hostile: Role) {
    let host = m.of(Role::Coordinator);
    status(
        &m.set
            .maps(Role::Coordinator)
            .expect("maps")
            .view(FileId::Control(hostile)),
    );
    drain(host.lifecycle_from_consumer(hostile), |_| {});
    fill(host.lifecycle_to_producer(hostile));
    drain(host.trace_consumer(hostile), |_| {});
    for who in SleeperId::all().filter(|w| w.owner() == hostile) {
        // The flag of a liar costs a system call, no more.
        host.doorbell(who).nudge();
        host.doorbell(who).ring();
    }
}

/// What the others read of io-worker.
///
/// # Panics
/// When a reader believes what cannot be.
pub fn readers_of_io(m: &Machine, round: u64) {
    let (cpu, host) = (m.of(Role::Cpu), m.of(Role::Coordinator));
    let mut page = [0; REPLY_DATA];
    for vcpu in 0..2 {
        fill(cpu.command_producer(vcpu));
        let replies = cpu.reply_reader(vcpu);
        let _ = replies.is_ready(round);
        if let Ok(Some((_, len))) = replies.take(round % 64, &mut page) {
            assert!(len <= REPLY_DATA);
        }
    }
    let mut wires = cpu.wire_reader();
    wires.changes(|c| assert!(c.line < LINES));
    let _ = (wires.any_high(), wires.level(LINES - 1));
    wires.withdraw(|c| assert!(c.line < LINES));
    for n in 0..MIRRORS {
        let _ = cpu
            .mirror_reader(n)
            .read(0, round, round as usize % 40, 1 << (round % 4));
    }
    if let Ok((_, map)) = cpu.decode_map_reader().read() {
        assert_eq!(map.validate(), Ok(()));
    }
    let _ = cpu.boot_state_reader().read();
    drain(cpu.event_consumer(), |bytes| _ = Event::decode(bytes));
    if let Ok(mut stale) = cpu.invalidation_reader() {
        for _ in 0..1000 {
            match stale.take() {
                Some(Stale::Page(_)) => {}
                Some(Stale::All) | None => break,
            }
        }
    }
    for n in 0..STREAMS {
        read_stream(host.stream_out_reader(n));
        write_stream(host.stream_in_writer(n));
    }
    let mut samples = [0.0; 256];
    let audio = m.of(Role::Audio);
    let mut playback = audio.playback_consumer(44_100);
    for _ in 0..3 {
        let _ = (playback.refresh(), playback.level(), playback.is_running());
        playback.fill(&mut samples);
        playback.skip_to_write();
    }
    audio.capture_producer(48_000).push(&samples);
    fill(m.of(Role::Gpu).input_producer());
    // A successor of io-worker opens what its hostile predecessor has committed.
    let store = m.of(Role::Io).commit_store();
    let _ = store.load_global::<(u64, Vec<u64>)>();
    for device in 0..MAX_DEVICES {
        let _ = store.load::<(u64, Vec<u8>, String)>(device);
    }
}

/// What the others read of cpu-worker.
///
/// # Panics
/// When a reader believes what cannot be.
pub fn readers_of_cpu(m: &Machine, round: u64) {
    let io = m.of(Role::Io);
    for vcpu in 0..2 {
        let at = Position {
            cursor: round as u32 & !3,
            number: round,
        };
        for at in [Position::default(), at] {
            drain(io.command_consumer(vcpu, at), |bytes| _ = Command::decode(bytes));
        }
    }
    fill(io.event_producer());
    if let Ok(mut pages) = io.invalidation_writer() {
        pages.send(round);
        pages.send_all();
    }
    io.code_map_reader()
        .hits(RamOffset(round << 12), round % (1 << 20), |page| {
            assert!(page >= round);
        });
    if let Ok(vram) = m.of(Role::Gpu).vram_reader() {
        let _ = (vram.is_ready(), vram.generations(), vram.registers());
        let _ = (vram.palette(), vram.cursor());
        let mut dirty = DirtTracker::default();
        dirty.take(&vram, 0..64, |page| assert!(page < 64));
    }
}

/// What the others read of gpu-worker.
///
/// # Panics
/// When a reader believes what cannot be.
pub fn readers_of_gpu(m: &Machine, _: u64) {
    drain(m.of(Role::Io).input_consumer(Position::default()), |bytes| {
        let _ = InputEvent::from_record(bytes);
    });
    let host = m.of(Role::Coordinator);
    let mut frames = host.frame_reader();
    let _ = (frames.newest(), frames.pacing());
    if let Ok(Some(frame)) = frames.lease() {
        let layout = frame.info().layout;
        // A picture of the largest size takes a while; a few lines of it are what counts here.
        let mut line = vec![0; layout.width as usize * 4];
        frame.read_line(0, &mut line);
        frame.read_line(layout.height - 1, &mut line);
        for rect in frame.changes_since(0) {
            assert!(rect.x + rect.width <= layout.width && rect.y + rect.height <= layout.height);
        }
    }
    let request = host.ask_for_shot();
    let _ = host.shot_reader().take(request);
    if let Ok(vram) = m.of(Role::Cpu).vram_writer() {
        vram.mark_range(0, 4096);
    }
}

/// What the others read of audio-worker.
///
/// # Panics
/// When a reader believes what cannot be.
pub fn readers_of_audio(m: &Machine, _: u64) {
    let io = m.of(Role::Io);
    let mut playback = io.playback_producer(Format::new(22_050, 1));
    assert!(playback.push(&[0.5; 64]) <= 64);
    let _ = (
        playback.free(),
        playback.level(),
        playback.underruns(),
        playback.host_rate(),
    );
    let snapshot = playback.snapshot();
    playback.restore(&snapshot);
    if let Ok(Some(mut capture)) = io.capture_consumer() {
        capture.resume();
        let mut samples = [0.0; 128];
        assert!(capture.fill(&mut samples) <= 128);
        let _ = capture.level();
    }
}

/// A process that writes what the input says into its files, while the others read.
///
/// # Panics
/// When a reader believes what cannot be.
pub fn ends(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let (hostile, readers): (_, fn(&Machine, u64)) = match u.arbitrary::<u8>().unwrap_or(0) % 4 {
        0 => (Role::Io, readers_of_io),
        1 => (Role::Cpu, readers_of_cpu),
        2 => (Role::Gpu, readers_of_gpu),
        _ => (Role::Audio, readers_of_audio),
    };
    let machine = Machine::default();
    let scribbler = Scribbler::new(&machine.set, hostile, &[FileId::Doorbells]);
    for round in 0..8 {
        for _ in 0..=u.arbitrary::<u8>().unwrap_or(0) % 32 {
            // What chooses a place is in the upper part, of 16 bits; what is written takes more.
            scribbler.strike(|| u64::from(u.arbitrary::<u32>().unwrap_or(0)) << 8);
        }
        // A seqlock that is left busy is waited for: the other form has that.
        scribbler.unlock();
        readers(&machine, round);
        common(&machine, hostile);
        if u.is_empty() {
            break;
        }
    }
}
