//! What lies where in the shared files: the only place where an offset is written down.
//!
//! A file belongs to one writer ([`FileId`]); its head (header and probe window) is the business of
//! [`crate::handshake::files`]. Here are the regions of the contents behind the head: offsets count from the end
//! of the head, as [`MapSet::view`] does. [`regions`] lists them all; `docs/protocol.md` holds the same list and a
//! test compares the two, and [`layout_hash`] makes builds that differ refuse each other.
//!
//! [`Ends`] gives every region as the typed end that a process uses; [`SegmentSet`] makes all files at once,
//! for the coordinator, for `--single-process` and for tests.

mod display;
mod ends;
mod rings;
mod set;

pub use ends::Ends;
pub use rings::RingRegions;
pub use set::{SegmentSet, SetError};

use crate::audio;
use crate::boot_state::BOOT_STATE_SIZE;
use crate::codemap::CODE_MAP_SIZE;
use crate::commit::COMMIT_SIZE;
use crate::decode_map::{DECODE_MAP_SIZE, ROM_SIZE};
use crate::framebuffer;
use crate::handshake::files::HEAD_LEN;
use crate::handshake::{FileId, Role};
use crate::input::INPUT_RING;
use crate::invalidation::INVALIDATION_SIZE;
use crate::mirror::{MIRROR_SIZE, MIRRORS};
use crate::reply::REPLY_SIZE;
use crate::ring::ring_size;
use crate::status::{STATUS_LEN, STATUS_OFFSET};
use crate::stream::stream_size;
use crate::sync::CACHE_LINE;
use crate::wires::WIRES_SIZE;

#[allow(unused_imports, reason = "named by the documentation above")]
use crate::handshake::MapSet;

/// Most vCPUs of a machine.
pub const MAX_VCPUS: usize = 8;
/// Number of byte streams in each direction.
pub const STREAMS: usize = 8;
/// Capacity of a vCPU's command ring, in bytes.
pub const COMMAND_RING: usize = 64 << 10;
/// Capacity of the event ring from io-worker to cpu-worker, in bytes.
pub const EVENT_RING: usize = 32 << 10;
/// Capacity of a lifecycle ring, in bytes (S3.33).
pub const LIFECYCLE_RING: usize = 32 << 10;
/// Capacity of an outgoing byte stream, in bytes.
pub const STREAM_OUT: usize = 64 << 10;
/// Capacity of an incoming byte stream, in bytes.
pub const STREAM_IN: usize = 16 << 10;
/// Capacity of a trace ring, in bytes.
pub const TRACE_RING: usize = 512 << 10;

/// Who sleeps on a doorbell. The word lies in [`FileId::Doorbells`], the flag in the sleeper's control file, both
/// on the line with this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SleeperId {
    /// A vCPU; its word is the exit word.
    Vcpu(u8),
    /// The thread of cpu-worker that talks to the coordinator.
    Cpu,
    /// io-worker.
    Io,
    /// gpu-worker.
    Gpu,
    /// audio-worker.
    Audio,
    /// The coordinator.
    Coordinator,
    /// A second thread of io-worker (host I/O).
    IoHost,
}

impl SleeperId {
    /// Every sleeper of a machine.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..MAX_VCPUS as u8).map(Self::Vcpu).chain([
            Self::Cpu,
            Self::Io,
            Self::Gpu,
            Self::Audio,
            Self::Coordinator,
            Self::IoHost,
        ])
    }

    /// Number of its line. Panics for a vCPU beyond [`MAX_VCPUS`].
    pub fn line(self) -> usize {
        match self {
            Self::Vcpu(n) => {
                assert!(usize::from(n) < MAX_VCPUS, "vCPU {n}");
                usize::from(n)
            }
            Self::Cpu => MAX_VCPUS,
            Self::Io => MAX_VCPUS + 1,
            Self::Gpu => MAX_VCPUS + 2,
            Self::Audio => MAX_VCPUS + 3,
            Self::Coordinator => MAX_VCPUS + 4,
            Self::IoHost => MAX_VCPUS + 5,
        }
    }

    /// The process that sleeps.
    pub const fn owner(self) -> Role {
        match self {
            Self::Vcpu(_) | Self::Cpu => Role::Cpu,
            Self::Io | Self::IoHost => Role::Io,
            Self::Gpu => Role::Gpu,
            Self::Audio => Role::Audio,
            Self::Coordinator => Role::Coordinator,
        }
    }
}

/// Lines for sleepers, in the doorbells and in each control file.
const SLEEPER_LINES: usize = 16;
const _: () = assert!(MAX_VCPUS + 6 <= SLEEPER_LINES);

/// A contiguous part of a file's contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// The file.
    pub file: FileId,
    /// Name, unique within the file; what comes in several copies is numbered by [`Self::index`].
    pub name: &'static str,
    /// Number of the copy.
    pub index: usize,
    /// Offset from the end of the file's head, in bytes.
    pub offset: usize,
    /// Length in bytes.
    pub len: usize,
}

impl Region {
    /// Offset in its file, in bytes: for whoever reads the file or a process's map of it without this crate's maps.
    pub const fn file_offset(&self) -> u64 {
        self.file.map_start() + (HEAD_LEN + self.offset) as u64
    }
}

macro_rules! region_fns {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $ty:ty)?) = $file:expr, $text:literal, [$index:expr; $count:expr], $offset:expr, $stride:expr, $len:expr;)*) => {
        impl Region {
            $(
                $(#[$doc])*
                pub fn $name($($arg: $ty)?) -> Self {
                    let (index, count): (usize, usize) = ($index, $count);
                    assert!(index < count, concat!($text, " {} of {}"), index, count);
                    Self { file: $file, name: $text, index, offset: $offset + index * $stride, len: $len }
                }
            )*
        }
    };
}

/// Distance of one lifecycle ring to the next.
const LIFECYCLE_STRIDE: usize = 0x9000;
/// Distance of one incoming stream to the next.
const STREAM_IN_STRIDE: usize = 0x5000;
/// Distance of one command ring, or outgoing stream, to the next.
const RING_STRIDE: usize = 0x1_1000;

const C: FileId = FileId::Control(Role::Coordinator);

region_fns! {
    /// Word of a sleeper.
    doorbell(who: SleeperId) = FileId::Doorbells, "doorbell", [who.line(); SLEEPER_LINES], 0, CACHE_LINE, CACHE_LINE;
    /// Flag of a sleeper, in its own control file.
    asleep(who: SleeperId) = FileId::Control(who.owner()), "asleep", [who.line(); SLEEPER_LINES], 0x1000, CACHE_LINE, CACHE_LINE;
    /// Status words of a process (see [`crate::status`]).
    status(role: Role) = FileId::Control(role), "status", [0; 1], STATUS_OFFSET, 0, STATUS_LEN;
    /// The VM clock.
    clock() = C, "clock", [0; 1], 0x4000, 0, CACHE_LINE;
    /// Lifecycle ring from the coordinator to a worker (for the coordinator: unused).
    lifecycle_to(role: Role) = C, "lifecycle ring", [role.index(); 5], 0x1_0000, LIFECYCLE_STRIDE, ring_size(LIFECYCLE_RING);
    /// Consumer's part of [`Self::lifecycle_to`], in the worker's file.
    lifecycle_to_head(role: Role) = FileId::Control(role), "lifecycle head", [0; 1], 0x2000, 0, CACHE_LINE;
    /// Lifecycle ring from a worker to the coordinator.
    lifecycle_from(role: Role) = FileId::Control(role), "lifecycle ring", [0; 1], 0x1_0000, 0, ring_size(LIFECYCLE_RING);
    /// Consumer's part of [`Self::lifecycle_from`], in the coordinator's file.
    lifecycle_from_head(role: Role) = C, "lifecycle head", [role.index(); 5], 0x2000, CACHE_LINE, CACHE_LINE;
    /// Incoming byte stream: serial input.
    stream_in(n: usize) = C, "stream in", [n; STREAMS], 0x4_0000, STREAM_IN_STRIDE, stream_size(STREAM_IN);
    /// Consumer's part of [`Self::stream_in`].
    stream_in_head(n: usize) = FileId::Control(Role::Io), "stream in head", [n; STREAMS], 0x2800, CACHE_LINE, CACHE_LINE;
    /// Consumer's part of [`Self::stream_out`].
    stream_out_head(n: usize) = C, "stream out head", [n; STREAMS], 0x2800, CACHE_LINE, CACHE_LINE;
    /// Consumer's part of [`Self::trace`].
    trace_head(role: Role) = C, "trace head", [role.index(); 5], 0x3000, CACHE_LINE, CACHE_LINE;
    /// Consumer's part of [`Self::input`].
    input_head() = FileId::Control(Role::Io), "input head", [0; 1], 0x3000, 0, CACHE_LINE;
    /// Command ring of a vCPU.
    command(vcpu: usize) = FileId::IpcCpu, "command ring", [vcpu; MAX_VCPUS], 0x1000, RING_STRIDE, ring_size(COMMAND_RING);
    /// Consumer's part of [`Self::event`].
    event_head() = FileId::IpcCpu, "event head", [0; 1], 0, 0, CACHE_LINE;
    /// Consumer's part of [`Self::invalidation`].
    invalidation_head() = FileId::IpcCpu, "invalidation head", [0; 1], 0x80, 0, CACHE_LINE;
    /// Code bitmap.
    code_map() = FileId::IpcCpu, "code bitmap", [0; 1], 0x80_0000, 0, CODE_MAP_SIZE;
    /// Consumer's part of [`Self::command`].
    command_head(vcpu: usize) = FileId::IpcIo, "command head", [vcpu; MAX_VCPUS], 0, CACHE_LINE, CACHE_LINE;
    /// IRQ wires of io-worker.
    wires() = FileId::IpcIo, "wires", [0; 1], 0x1000, 0, WIRES_SIZE;
    /// Reply slot of a vCPU.
    reply(vcpu: usize) = FileId::IpcIo, "reply", [vcpu; MAX_VCPUS], 0x2000, REPLY_SIZE, REPLY_SIZE;
    /// Mirrored registers.
    mirror(n: usize) = FileId::IpcIo, "mirror", [n; MIRRORS], 0x1_0000, MIRROR_SIZE, MIRROR_SIZE;
    /// Decode map.
    decode_map() = FileId::IpcIo, "decode map", [0; 1], 0x2_0000, 0, DECODE_MAP_SIZE;
    /// Boot state.
    boot_state() = FileId::IpcIo, "boot state", [0; 1], 0x3_0000, 0, BOOT_STATE_SIZE;
    /// Event ring from io-worker to cpu-worker.
    event() = FileId::IpcIo, "event ring", [0; 1], 0x4_0000, 0, ring_size(EVENT_RING);
    /// Invalidations.
    invalidation() = FileId::IpcIo, "invalidations", [0; 1], 0x5_0000, 0, INVALIDATION_SIZE;
    /// Outgoing byte stream: serial output, debug consoles.
    stream_out(n: usize) = FileId::IpcIo, "stream out", [n; STREAMS], 0x10_0000, RING_STRIDE, stream_size(STREAM_OUT);
    /// Contents of ROMs.
    rom() = FileId::IpcIo, "ROM window", [0; 1], 0x40_0000, 0, ROM_SIZE;
    /// Commit store.
    commit() = FileId::Devices, "commit store", [0; 1], 0, 0, COMMIT_SIZE;
    /// Host input events.
    input() = FileId::Input, "input ring", [0; 1], 0, 0, ring_size(INPUT_RING);
    /// VRAM with its registers (see [`crate::vram`]).
    vram() = FileId::Vram, "VRAM", [0; 1], 0, 0, crate::vram::VRAM_SEGMENT_BYTES;
    /// Presented frames and screenshots (see [`crate::framebuffer`]).
    framebuffer() = FileId::Framebuffer, "frames", [0; 1], 0, 0, framebuffer::FRAMEBUFFER_BYTES;
    /// The coordinator's lease on a frame (see [`crate::framebuffer::slots`]).
    frame_lease() = C, "frame lease", [0; 1], framebuffer::COORDINATOR_LEASE, 0, framebuffer::LEASE_BYTES;
    /// gpu-worker's armed counter and its wishes for a frame epoch (see [`crate::vram::SleepHint`]).
    vram_armed() = FileId::Control(Role::Gpu), "VRAM armed", [0; 1], framebuffer::ARMED_WORD, 0, CACHE_LINE;
    /// Where the window is (see [`crate::window`]).
    window_place() = FileId::Control(Role::Gpu), "window place", [0; 1], 0xB_0000, 0, crate::window::PLACE_BYTES;
    /// Playback ring, the producer's part (see [`crate::audio`]).
    playback() = FileId::AudioIo, "playback", [0; 1], audio::AT_PLAYBACK, 0, audio::RING_BYTES;
    /// Capture ring, the consumer's part.
    capture_head() = FileId::AudioIo, "capture head", [0; 1], audio::AT_CAPTURE_HEAD, 0, audio::HEAD_BYTES;
    /// Playback ring, the consumer's part.
    playback_head() = FileId::AudioHost, "playback head", [0; 1], audio::AT_PLAYBACK_HEAD, 0, audio::HEAD_BYTES;
    /// Capture ring, the producer's part.
    capture() = FileId::AudioHost, "capture", [0; 1], audio::AT_CAPTURE, 0, audio::RING_BYTES;
    /// What is published of a module's linear memories (see [`crate::wasm`]).
    guest_memory(n: usize) = FileId::Control(Role::Cpu), "guest memory", [n; crate::wasm::MEMORIES], 0x3000, crate::wasm::WORDS_LEN, crate::wasm::WORDS_LEN;
    /// What the vCPU is doing (see [`crate::profile`]).
    profile() = FileId::Control(Role::Cpu), "profile", [0; 1], 0x2_0000, 0, crate::profile::PROFILE_SIZE;
    /// How the PC speaker's line goes on (see [`crate::speaker`]).
    speaker() = FileId::Control(Role::Cpu), "speaker", [0; 1], 0x8_0000, 0, crate::speaker::SPEAKER_SIZE;
    /// Consumer's part of a module's standard input.
    guest_in_head() = FileId::Control(Role::Cpu), "guest in head", [0; 1], 0x2800, 0, CACHE_LINE;
    /// Outgoing byte stream of a module: standard output and error.
    guest_out(n: usize) = FileId::IpcCpu, "guest out", [n; crate::wasm::GUEST_OUT_STREAMS], 0x10_0000, RING_STRIDE, stream_size(STREAM_OUT);
    /// Consumer's part of [`Self::guest_out`].
    guest_out_head(n: usize) = C, "guest out head", [n; crate::wasm::GUEST_OUT_STREAMS], 0x3800, CACHE_LINE, CACHE_LINE;
    /// Trace ring of a process.
    trace(role: Role) = FileId::Trace(role), "trace ring", [0; 1], 0, 0, ring_size(TRACE_RING);
}

/// Every region, ordered by file and offset.
pub fn regions() -> Vec<Region> {
    let mut all: Vec<Region> = SleeperId::all()
        .flat_map(|s| [Region::doorbell(s), Region::asleep(s)])
        .collect();
    for role in Role::ALL {
        all.extend([
            Region::status(role),
            Region::trace(role),
            Region::trace_head(role),
        ]);
    }
    for role in Role::WORKERS {
        all.extend([
            Region::lifecycle_to(role),
            Region::lifecycle_to_head(role),
            Region::lifecycle_from(role),
            Region::lifecycle_from_head(role),
        ]);
    }
    for n in 0..STREAMS {
        all.extend([
            Region::stream_in(n),
            Region::stream_in_head(n),
            Region::stream_out(n),
            Region::stream_out_head(n),
        ]);
    }
    for vcpu in 0..MAX_VCPUS {
        all.extend([
            Region::command(vcpu),
            Region::command_head(vcpu),
            Region::reply(vcpu),
        ]);
    }
    all.extend((0..MIRRORS).map(Region::mirror));
    all.extend((0..crate::wasm::MEMORIES).map(Region::guest_memory));
    for n in 0..crate::wasm::GUEST_OUT_STREAMS {
        all.extend([Region::guest_out(n), Region::guest_out_head(n)]);
    }
    all.extend([
        Region::clock(),
        Region::input_head(),
        Region::event_head(),
        Region::invalidation_head(),
        Region::code_map(),
        Region::wires(),
        Region::decode_map(),
        Region::boot_state(),
        Region::event(),
        Region::invalidation(),
        Region::rom(),
        Region::commit(),
        Region::input(),
        Region::vram(),
        Region::framebuffer(),
        Region::frame_lease(),
        Region::vram_armed(),
        Region::window_place(),
        Region::playback(),
        Region::playback_head(),
        Region::capture(),
        Region::capture_head(),
        Region::guest_in_head(),
        Region::profile(),
        Region::speaker(),
    ]);
    all.sort_by_key(|r| (r.file.number(), r.offset));
    all
}

/// FNV-1a (64 bits) over every region; part of [`crate::handshake::files::layout_hash`].
pub fn layout_hash() -> u64 {
    let mut hash = 0xCBF2_9CE4_8422_2325u64;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
    };
    for region in regions() {
        add(&region.file.number().to_le_bytes());
        add(region.name.as_bytes());
        for n in [region.index, region.offset, region.len] {
            add(&(n as u64).to_le_bytes());
        }
    }
    add(&(crate::trace::EVENT_SIZE as u64).to_le_bytes());
    for kind in crate::trace::Kind::ALL {
        add(kind.name().as_bytes());
    }
    hash
}

#[cfg(all(test, not(loom)))]
mod tests;
