//! What a machine tells of itself.

use serde::{Deserialize, Serialize};

use super::{Drive, MachineError};
use crate::handshake::Role;
use crate::ring::Traffic;
use crate::status::{MachineState, PeerState};

/// One worker in a [`StatusReport`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerReport {
    /// Which.
    pub role: Role,
    /// Its process, while there is one; the machine's own with `--single-process`.
    pub pid: Option<i32>,
    /// Its state.
    pub state: PeerState,
    /// It sleeps until something happens.
    pub parked: bool,
    /// How often the thread that does its work has said that it goes on; wraps.
    pub beats: u32,
    /// How many processes have had the role.
    pub generation: u32,
    /// Deaths in a row.
    pub deaths: u32,
    /// How the last one before this ended; empty for the first.
    pub last_death: String,
    /// Requests that the guest's disks had and had not ended when that happened, as io-worker published them last.
    pub left_under_way: u32,
    /// That others found its rings broken, in its present life.
    pub broken: Option<BrokenReport>,
    /// What of its confinement could not be applied; empty when all was.
    pub unconfined: Vec<String>,
    /// The line to type in a shell for a worker that waits to be started by hand.
    pub awaited: Option<String>,
}

/// That a worker's peer found broken what the two share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokenReport {
    /// Who found it last.
    pub by: Role,
    /// How often it was found since the worker started.
    pub times: u32,
}

/// How a machine is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReport {
    /// Its name.
    pub name: String,
    /// The coordinator's process.
    pub pid: i32,
    /// Its state.
    pub state: MachineState,
    /// Since the coordinator started, in milliseconds.
    pub uptime_ms: u64,
    /// VM time in milliseconds.
    pub vm_time_ms: u64,
    /// Guest RAM in bytes.
    pub ram: u64,
    /// Resets so far, power-on included.
    pub resets: u32,
    /// Its workers.
    pub workers: Vec<WorkerReport>,
    /// What of the coordinator's own confinement could not be applied; empty when all was.
    pub unconfined: Vec<String>,
    /// What is lost of its sound.
    pub sound: SoundReport,
    /// What its disks do.
    pub disks: DiskReport,
    /// What is in the drives that it can be taken out of.
    pub drives: Vec<DriveReport>,
    /// What its vCPU has turned to, and how often, the most frequent first; a new cpu-worker counts anew.
    pub exits: Vec<ExitReport>,
    /// Edges of its devices' interrupt lines, of those that had any, by line.
    pub interrupts: Vec<InterruptReport>,
    /// How long people wait for it.
    pub latency: LatencyReport,
    /// Its rings; one whose consumer was too busy for a look is left out.
    pub rings: Vec<RingReport>,
    /// Whether the workers are threads of the coordinator.
    pub single_process: bool,
    /// The newest error, if there was one.
    pub error: Option<MachineError>,
}

/// A drive whose medium can be changed, in a [`StatusReport`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriveReport {
    /// Which.
    pub drive: Drive,
    /// Name of the image in it; `None` for an empty one.
    pub image: Option<String>,
}

/// What was asked of a machine's disks, in a [`StatusReport`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskReport {
    /// Requests that have not ended.
    pub under_way: u32,
    /// Sectors of 512 bytes that the guest has asked for; wraps.
    pub read: u32,
    /// Sectors of 512 bytes that the guest has given to write; wraps.
    pub written: u32,
    /// Times that the guest asked for what was written to last; wraps.
    pub flushes: u32,
}

/// A ring in a [`StatusReport`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingReport {
    /// What it carries.
    pub name: String,
    /// What went through it.
    pub traffic: Traffic,
}

/// Something that a vCPU turned to: see [`crate::profile`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitReport {
    /// What, in words.
    pub cause: String,
    /// How often it was begun.
    pub count: u64,
}

/// A line between io-worker and the interrupt controllers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterruptReport {
    /// Its number (see [`crate::wires`]).
    pub line: u32,
    /// Rising edges since power-on, modulo 2^31.
    pub edges: u32,
}

/// Times in microseconds; 0 for what has not been measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyReport {
    /// From the newest key press in the window to the next change that the window showed.
    pub echo: u32,
}

/// The sound that goes out. What was not heard as it was played is counted; both counts wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SoundReport {
    /// Frames that wait to be heard, 48 a millisecond.
    pub level: u32,
    /// Missing when they were due, and replaced by silence: io-worker was late, or dead.
    pub missing: u32,
    /// Dropped because the ring was full: audio-worker was late, or dead.
    pub dropped: u32,
    /// Silence that the host's device was given in the middle of a stream: audio-worker brought frames too late for it.
    pub unheard: u32,
}
