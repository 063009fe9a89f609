//! The five processes and the files of the shared segments, by writer.

use core::fmt;

/// One of the five processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub enum Role {
    /// `quintet`: segments, spawning, supervision.
    Coordinator,
    /// `quintet-cpu-worker`: vCPUs and the core complex.
    Cpu,
    /// `quintet-io-worker`: devices and firmware.
    Io,
    /// `quintet-gpu-worker`: scan-out and the window.
    Gpu,
    /// `quintet-audio-worker`: the host's sound.
    Audio,
}

impl Role {
    /// All five, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Coordinator, Self::Cpu, Self::Io, Self::Gpu, Self::Audio];
    /// The four that the coordinator spawns, in the order in which it does.
    pub const WORKERS: [Self; 4] = [Self::Cpu, Self::Io, Self::Gpu, Self::Audio];

    /// Number of the role, 0 to 4; indexes per-role arrays, in shared memory too.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The role of a number; `None` above 4.
    pub fn from_index(index: usize) -> Option<Self> {
        Self::ALL.get(index).copied()
    }

    /// Short name as used on the command line, in logs and in `status`: `cpu`, `io`, …
    pub const fn name(self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator",
            Self::Cpu => "cpu",
            Self::Io => "io",
            Self::Gpu => "gpu",
            Self::Audio => "audio",
        }
    }

    /// The role of a short name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.name() == name)
    }

    /// File name of the role's executable.
    pub const fn binary(self) -> &'static str {
        match self {
            Self::Coordinator => "quintet",
            Self::Cpu => "quintet-cpu-worker",
            Self::Io => "quintet-io-worker",
            Self::Gpu => "quintet-gpu-worker",
            Self::Audio => "quintet-audio-worker",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Coordinator => "coordinator",
            Self::Cpu => "cpu-worker",
            Self::Io => "io-worker",
            Self::Gpu => "gpu-worker",
            Self::Audio => "audio-worker",
        })
    }
}

/// A file of a shared segment: the unit of write permission. One process writes it, the others hold it
/// read-only; the exceptions are [`FileId::GuestRam`], which vCPUs and DMA write, and
/// [`FileId::Doorbells`], which everyone does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub enum FileId {
    /// Guest RAM (cpu and io).
    GuestRam,
    /// Futex words, one per sleeper, and the vCPUs' exit words (everyone).
    Doorbells,
    /// Status words of the named process.
    Control(Role),
    /// ioIpc, the CPU's side: command ring, IRQ-wire words of the core complex, code bitmap.
    IpcCpu,
    /// ioIpc, the I/O side: replies, wires, mirrors, decode map, invalidations, outgoing streams.
    IpcIo,
    /// Committed device state (io).
    Devices,
    /// Host input events (gpu).
    Input,
    /// VRAM and VGA registers (cpu).
    Vram,
    /// Presented frames (gpu).
    Framebuffer,
    /// Audio ring, the side of the sound devices (io).
    AudioIo,
    /// Audio ring, the side of the host's sound (audio).
    AudioHost,
    /// Trace ring of the named process.
    Trace(Role),
    /// A further linear memory of a module, by its number from 1 (cpu); only a machine for modules has them.
    Memory(u8),
}

impl FileId {
    /// Every file that each machine has, in the order in which the coordinator makes them.
    pub const ALL: [Self; 20] = [
        Self::GuestRam,
        Self::Doorbells,
        Self::Control(Role::Coordinator),
        Self::Control(Role::Cpu),
        Self::Control(Role::Io),
        Self::Control(Role::Gpu),
        Self::Control(Role::Audio),
        Self::IpcCpu,
        Self::IpcIo,
        Self::Devices,
        Self::Input,
        Self::Vram,
        Self::Framebuffer,
        Self::AudioIo,
        Self::AudioHost,
        Self::Trace(Role::Coordinator),
        Self::Trace(Role::Cpu),
        Self::Trace(Role::Io),
        Self::Trace(Role::Gpu),
        Self::Trace(Role::Audio),
    ];
    /// What a machine for modules has besides: their memories behind the first, which is guest RAM.
    pub const MEMORIES: [Self; crate::wasm::MEMORIES - 1] =
        [Self::Memory(1), Self::Memory(2), Self::Memory(3)];

    /// Every file there can be.
    pub fn every() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().chain(Self::MEMORIES)
    }

    /// Whether `role` holds the file read-write.
    pub fn writable_by(self, role: Role) -> bool {
        match self {
            Self::GuestRam => matches!(role, Role::Cpu | Role::Io),
            Self::Doorbells => true,
            Self::Control(owner) | Self::Trace(owner) => owner == role,
            Self::IpcCpu | Self::Vram | Self::Memory(_) => role == Role::Cpu,
            Self::IpcIo | Self::Devices | Self::AudioIo => role == Role::Io,
            Self::Input | Self::Framebuffer => role == Role::Gpu,
            Self::AudioHost => role == Role::Audio,
        }
    }

    /// Whether `role` maps the file at all: what a worker does not need it does not get.
    pub fn needed_by(self, role: Role) -> bool {
        if role == Role::Coordinator || self.writable_by(role) {
            return true;
        }
        match self {
            Self::Control(_) | Self::Doorbells => true,
            Self::GuestRam | Self::Devices | Self::Trace(_) | Self::Memory(_) => false,
            Self::AudioHost => role == Role::Io,
            Self::IpcCpu | Self::IpcIo => matches!(role, Role::Cpu | Role::Io),
            Self::Input => role == Role::Io,
            Self::Vram => role == Role::Gpu,
            Self::Framebuffer => role == Role::Cpu,
            Self::AudioIo => role == Role::Audio,
        }
    }

    /// Name of the memfd, as `/proc/PID/maps` shows it.
    pub fn file_name(self) -> String {
        match self {
            Self::GuestRam => "quintet-ram".into(),
            Self::Doorbells => "quintet-doorbells".into(),
            Self::Control(r) => format!("quintet-control-{}", r.name()),
            Self::IpcCpu => "quintet-ipc-cpu".into(),
            Self::IpcIo => "quintet-ipc-io".into(),
            Self::Devices => "quintet-devices".into(),
            Self::Input => "quintet-input".into(),
            Self::Vram => "quintet-vram".into(),
            Self::Framebuffer => "quintet-framebuffer".into(),
            Self::AudioIo => "quintet-audio-io".into(),
            Self::AudioHost => "quintet-audio-host".into(),
            Self::Trace(r) => format!("quintet-trace-{}", r.name()),
            Self::Memory(n) => format!("quintet-memory-{n}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s3_10_every_file_but_ram_and_doorbells_has_one_writer() {
        for id in FileId::every() {
            let writers = Role::ALL.into_iter().filter(|&r| id.writable_by(r)).count();
            match id {
                FileId::GuestRam => assert_eq!(writers, 2),
                FileId::Doorbells => assert_eq!(writers, 5),
                _ => assert_eq!(writers, 1, "{id:?}"),
            }
        }
    }

    #[test]
    fn file_names_differ_and_fit_a_memfd() {
        let names: std::collections::BTreeSet<_> = FileId::every().map(|f| f.file_name()).collect();
        assert_eq!(names.len(), FileId::every().count());
        assert!(names.iter().all(|n| n.len() < 249));
    }
}
