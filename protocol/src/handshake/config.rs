//! What each worker is told about the machine it belongs to: the `config` bytes of a hello, as types.
//!
//! The coordinator has checked everything that can be checked without looking into guest data. A worker that
//! finds its configuration impossible answers [`crate::handshake::WorkerError::Config`], and is not
//! restarted.

use serde::{Deserialize, Serialize};

use crate::window::WindowSettings;

/// How guest instructions are executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Accel {
    /// The interpreter, the reference.
    Interp,
    /// Translation to host code.
    Jit,
}

/// Configuration of the cpu-worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuConfig {
    /// Number of vCPUs, 1 to 255.
    pub vcpus: u32,
    /// CPU model with its features, as on the command line: `max`, `pentium3,+sse2`, …
    pub model: String,
    /// How instructions are executed.
    pub accel: Accel,
    /// Every translated block is compared with the interpreter.
    pub check_jit: bool,
    /// A triple fault or a reset by the guest is published as an end of the machine instead of being carried out.
    pub no_reboot: bool,
    /// Real-time clock at VM time zero, in seconds since 1970-01-01 UTC.
    pub rtc_base: i64,
    /// Busy-wait before sleeping when a reply is awaited, in nanoseconds; 0 sleeps at once. Decided by the
    /// coordinator from the number of host cores.
    pub spin_nanos: u64,
    /// What the builder of the machine leaves in the CMOS: index (0Eh to 7Fh) and value.
    pub cmos: Vec<(u8, u8)>,
    /// Run WebAssembly modules instead of a PC; orders come by the socket that is the first host descriptor.
    pub wasm: bool,
    /// Serve the guest's debugger, by the socket that is the first host descriptor ([`crate::debugger`]).
    pub debugger: Option<DebuggerConfig>,
}

/// The guest's debugger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DebuggerConfig {
    /// Execute nothing before it says so.
    pub wait: bool,
}

/// A debug console: a port whose written bytes go to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DebugconConfig {
    /// I/O port, usually 0xE9.
    pub port: u16,
    /// Index of the outgoing byte stream.
    pub stream: u32,
}

/// What a disk image is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskKind {
    /// A hard disk.
    HardDisk,
    /// A CD-ROM drive.
    Cdrom,
    /// A floppy drive.
    Floppy,
    /// A flash chip.
    Flash,
}

/// Where a disk is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskPlace {
    /// The IDE controller.
    Ide {
        /// 0 and 1: primary master and slave; 2 and 3: secondary ones.
        unit: u8,
    },
    /// A virtio block device of its own.
    Virtio {
        /// Its number among them, from 0.
        unit: u8,
    },
    /// The floppy disk controller's drive.
    Floppy,
    /// Below the firmware, and below the flash before it; without firmware the first ends at 4 GiB.
    Flash,
}

/// How the bytes of a disk lie in its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskFormat {
    /// As they are.
    Raw,
    /// As QEMU's qcow2 has them.
    Qcow2,
}

/// Where what is written to a disk goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskWrites {
    /// Into the image.
    Image,
    /// Into an overlay without a name, thrown away at the end.
    Temporary,
    /// Into an overlay that is kept.
    Overlay {
        /// Name of its file, for messages.
        name: String,
    },
}

/// A disk whose image the coordinator opened and locked; the io-worker's host descriptors are those of the disks, in
/// their order, [`DiskConfig::descriptors`] for each: the image, the overlay if there is one, and a file in memory if
/// there is something that outlives an io-worker but not the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskConfig {
    /// Name of the file, for messages.
    pub name: String,
    /// What it is in.
    pub kind: DiskKind,
    /// Where that is.
    pub place: DiskPlace,
    /// Writes are refused.
    pub read_only: bool,
    /// Serial number that the drive shows, up to 20 characters of ASCII.
    pub serial: String,
    /// What the image is.
    pub format: DiskFormat,
    /// Where writes go.
    pub writes: DiskWrites,
    /// Whether the drive has something in it. An empty one comes with no descriptor.
    pub loaded: bool,
    /// How often what is in the drive has been changed: an io-worker whose predecessor had another one tells the guest.
    pub medium: u32,
}

impl DiskConfig {
    /// Whether the overlay has a descriptor.
    pub fn has_overlay(&self) -> bool {
        self.writes != DiskWrites::Image
    }

    /// Whether there is a descriptor for what is not flushed yet.
    pub fn has_scratch(&self) -> bool {
        match self.writes {
            DiskWrites::Image => self.format == DiskFormat::Qcow2 && !self.read_only,
            DiskWrites::Temporary => false,
            DiskWrites::Overlay { .. } => true,
        }
    }

    /// How many host descriptors it comes with.
    pub fn descriptors(&self) -> usize {
        if !self.loaded {
            return 0;
        }
        1 + usize::from(self.has_overlay()) + usize::from(self.has_scratch())
    }
}

/// What firmware is to boot from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BootDevice {
    /// The first floppy.
    Floppy,
    /// The first hard disk.
    HardDisk,
    /// The first CD-ROM.
    Cdrom,
}

/// What an io-worker serves that has a WebAssembly module for a guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleConfig {
    /// Names that the module knows the directories by which it was given; the descriptors are the last of the host
    /// descriptors, in this order.
    pub dirs: Vec<String>,
}

/// Configuration of the io-worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoConfig {
    /// Number of vCPUs, 1 to 255; for the firmware tables.
    pub vcpus: u32,
    /// What CPUID leaf 1 of the model says in EAX and EDX; for the firmware tables.
    pub cpuid_1: (u32, u32),
    /// Whether the model has long mode.
    pub long_mode: bool,
    /// Port of `isa-debug-exit`, one byte wide, when there is one.
    pub exit_port: Option<u16>,
    /// Debug consoles.
    pub debugcon: Vec<DebugconConfig>,
    /// Whether QEMU's `pc-testdev` is present.
    pub testdev: bool,
    /// Whether there is an AC'97 sound card.
    pub ac97: bool,
    /// Disks, in the order of the host descriptors.
    pub disks: Vec<DiskConfig>,
    /// What firmware is to boot from, the first first.
    pub boot: Vec<BootDevice>,
    /// A module instead of a PC.
    pub module: Option<ModuleConfig>,
    /// Kernel command line.
    pub append: String,
    /// As [`CpuConfig::no_reboot`].
    pub no_reboot: bool,
    /// As [`CpuConfig::spin_nanos`].
    pub spin_nanos: u64,
}

/// Configuration of the gpu-worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuConfig {
    /// No window: render for screenshots only.
    pub headless: bool,
    /// Draw without a GPU.
    pub software: bool,
    /// Draw by what looks like a GPU, even if it is a processor in disguise: for tests.
    pub any_gpu: bool,
    /// Title of the window: the machine's name.
    pub title: String,
    /// How the window is at first.
    pub window: WindowSettings,
}

/// Where the sound goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AudioSink {
    /// The host's sound server or device, whichever there is when something plays.
    Host,
    /// Nowhere, at the right pace.
    Null,
    /// A WAV file, opened by the coordinator, inherited as the worker's host descriptor 0.
    Wav,
}

/// Configuration of the audio-worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AudioConfig {
    /// Where the sound goes.
    pub sink: AudioSink,
    /// Rate of the host side, in frames per second.
    pub rate: u32,
}
