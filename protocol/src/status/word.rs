//! The names of the status words, their indices and their owners.

use crate::handshake::Role;

/// Who writes a status word. A word of `EachWorker` exists once in every worker's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// One process.
    One(Role),
    /// Every worker, its own copy.
    EachWorker,
}

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident = $index:literal, $owner:expr;)*) => {
        /// A 32-bit status word (S3.30). The index is the same in every file; the file is its owner's.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum StatusWord {
            $($(#[$doc])* $name = $index,)*
        }

        impl StatusWord {
            /// Every word.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Index of the word, below 64.
            pub const fn index(self) -> usize {
                self as usize
            }

            /// Who writes it.
            pub fn owner(self) -> Owner {
                match self {
                    $(Self::$name => $owner,)*
                }
            }
        }
    };
}

use Owner::{EachWorker, One};
use Role::{Audio, Coordinator, Cpu, Gpu, Io};

words! {
    /// Counts up while the thread that does the worker's work makes progress; wraps.
    Heartbeat = 0, EachWorker;
    /// Bit `Role::index`: that worker is to end in good order.
    StopRequested = 1, One(Coordinator);
    /// Batches of input events sent; wraps.
    InputBatches = 2, One(Gpu);
    /// Input events sent; wraps.
    InputEvents = 3, One(Gpu);
    /// Frames that wait to be heard, in the playback ring and before the host's device, when the sink last took some.
    AudioLevel = 4, One(Audio);
    /// Output frames that were missing; wraps.
    AudioUnderrun = 5, One(Audio);
    /// Frames dropped because the ring was full; wraps.
    AudioOverrun = 6, One(Io);
    /// A [`super::WorkerState`].
    WorkerState = 7, EachWorker;
    /// Generation of the cpu-worker that is ready; 0 before.
    ReadyCpu = 8, One(Cpu);
    /// Generation of the gpu-worker that is ready; 0 before.
    ReadyGpu = 9, One(Gpu);
    /// Generation of the io-worker that is ready; 0 before.
    ReadyIo = 10, One(Io);
    /// Generation of the audio-worker that is ready; 0 before.
    ReadyAudio = 11, One(Audio);
    /// Keyboard events given to a device; wraps.
    HidKeys = 12, One(Io);
    /// Pointer events given to a device; wraps.
    HidPointer = 13, One(Io);
    /// Input events dropped because the guest does not take them; wraps.
    HidDropped = 14, One(Io);
    /// What peers share with this worker was found broken: how often (it wraps) above the low three bits, which hold the
    /// index of the role of the last one.
    PeerFaults = 15, EachWorker;
    /// [`crate::ram::GUEST_BASE`]; written once before any worker starts (S3.32).
    GuestBase = 16, One(Coordinator);
    /// Guest RAM below 4 GiB, in bytes (S3.3); written once.
    GuestSize = 17, One(Coordinator);
    /// [`crate::ram::RUNTIME_RESERVED`]; written once.
    RuntimeReserved = 18, One(Coordinator);
    /// Input events waiting in device queues.
    HidPending = 19, One(Io);
    /// 0 no keyboard, 1 PS/2.
    KeyboardBackend = 20, One(Io);
    /// 0 no pointer, 1 one that wants movements (PS/2), 2 one that wants places (VMware backdoor).
    PointerBackend = 21, One(Io);
    /// Keys that the window believes to be held down.
    KeysHeld = 22, One(Gpu);
    /// Pointer buttons held down, as a mask.
    ButtonsHeld = 23, One(Gpu);
    /// 1 while the window has the pointer grabbed.
    PointerGrabbed = 24, One(Gpu);
    /// Counts presses of the power button; wraps.
    PowerPresses = 25, One(Coordinator);
    /// Counts the packets sent to the stub of the guest's debugger; wraps.
    DebuggerSent = 26, One(Coordinator);
    /// 1 while the guest's debugger holds the vCPUs.
    DebuggerHolds = 27, One(Cpu);
    /// Requests of the guest's that its disks have and have not ended.
    DiskRequests = 28, One(Io);
    /// Sectors of 512 bytes that the guest has asked its disks for; wraps.
    DiskRead = 29, One(Io);
    /// Sectors of 512 bytes that the guest has given its disks to write; wraps.
    DiskWritten = 30, One(Io);
    /// Times that the guest asked a disk to make what was written last; wraps.
    DiskFlushes = 31, One(Io);
    /// Level of interrupt inputs 0–31, as the interrupt controllers see them.
    IrqLevelLow = 32, One(Cpu);
    /// Level of interrupt inputs 32–63.
    IrqLevelHigh = 33, One(Cpu);
    /// 1 while address line 20 is let through.
    A20 = 34, One(Cpu);
    /// Keystrokes repeated by the keyboard itself; wraps.
    HidRepeats = 35, One(Io);
    /// PS/2 keyboard LEDs: bit 0 scroll, 1 num, 2 caps.
    KeyboardLeds = 36, One(Io);
    /// Process that may trace the cpu-worker, as [`super::WorkerStatus::stop_requested`] tells the kernel; 0 for nobody in particular.
    TracerCpu = 37, One(Coordinator);
    /// The same of the io-worker.
    TracerIo = 38, One(Coordinator);
    /// The same of the gpu-worker.
    TracerGpu = 39, One(Coordinator);
    /// Latency of the newest input event from host to device, in microseconds; wraps.
    InputLatencyLast = 40, One(Io);
    /// Its exponentially weighted mean, in microseconds.
    InputLatencyMean = 41, One(Io);
    /// Its maximum, in microseconds.
    InputLatencyMax = 42, One(Io);
    /// From the newest key press in the window to the next change that the window showed, in microseconds.
    EchoLatency = 43, One(Gpu);
    /// As [`StatusWord::TracerCpu`], of the audio-worker.
    TracerAudio = 44, One(Coordinator);
    /// The process that this worker has told the kernel may trace it; 0 for nobody in particular.
    TracerSeen = 45, EachWorker;
    /// A [`super::MachineState`].
    MachineState = 46, One(Coordinator);
    /// Counts resets of the guest; workers reset when it moves.
    ResetGeneration = 47, One(Coordinator);
    /// The reset generation that this worker has carried out.
    ResetDone = 48, EachWorker;
    /// Counts the events reported through the two words that follow; wraps.
    GuestEventCount = 49, EachWorker;
    /// Kind of a [`super::GuestEvent`].
    GuestEventKind = 50, EachWorker;
    /// Its value.
    GuestEventValue = 51, EachWorker;
    /// Guest RAM from 4 GiB on, bits 0–31 of its size in bytes; written once.
    HighSizeLow = 52, One(Coordinator);
    /// Bits 32–63 of it.
    HighSizeHigh = 53, One(Coordinator);
    /// A [`super::PeerState`] of the cpu-worker.
    PeerCpu = 54, One(Coordinator);
    /// A [`super::PeerState`] of the io-worker.
    PeerIo = 55, One(Coordinator);
    /// A [`super::PeerState`] of the gpu-worker.
    PeerGpu = 56, One(Coordinator);
    /// A [`super::PeerState`] of the audio-worker.
    PeerAudio = 57, One(Coordinator);
    /// Generation of the newest cpu-worker.
    GenerationCpu = 58, One(Coordinator);
    /// Generation of the newest io-worker.
    GenerationIo = 59, One(Coordinator);
    /// Generation of the newest gpu-worker.
    GenerationGpu = 60, One(Coordinator);
    /// Generation of the newest audio-worker.
    GenerationAudio = 61, One(Coordinator);
    /// Counts changes of [`StatusWord::MachineState`]; wraps.
    RunEpoch = 62, One(Coordinator);
    /// The run epoch that this worker has obeyed.
    EpochSeen = 63, EachWorker;
}

impl StatusWord {
    /// The ready word of a worker. Panics for the coordinator.
    pub fn ready(role: Role) -> Self {
        match role {
            Cpu => Self::ReadyCpu,
            Io => Self::ReadyIo,
            Gpu => Self::ReadyGpu,
            Audio => Self::ReadyAudio,
            Coordinator => panic!("the coordinator has no ready word"),
        }
    }

    /// The coordinator's word on who may trace a worker. Panics for the coordinator.
    pub fn tracer(role: Role) -> Self {
        match role {
            Cpu => Self::TracerCpu,
            Io => Self::TracerIo,
            Gpu => Self::TracerGpu,
            Audio => Self::TracerAudio,
            Coordinator => panic!("the coordinator is traced by whom the kernel lets"),
        }
    }

    /// The coordinator's word on a worker's state. Panics for the coordinator.
    pub fn peer(role: Role) -> Self {
        match role {
            Cpu => Self::PeerCpu,
            Io => Self::PeerIo,
            Gpu => Self::PeerGpu,
            Audio => Self::PeerAudio,
            Coordinator => panic!("the coordinator is nobody's worker"),
        }
    }

    /// The coordinator's word on a worker's generation. Panics for the coordinator.
    pub fn generation(role: Role) -> Self {
        match role {
            Cpu => Self::GenerationCpu,
            Io => Self::GenerationIo,
            Gpu => Self::GenerationGpu,
            Audio => Self::GenerationAudio,
            Coordinator => panic!("the coordinator has one generation"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn s3_31_no_two_words_share_an_index_and_all_lie_below_64() {
        let indices: BTreeSet<_> = StatusWord::ALL.iter().map(|w| w.index()).collect();
        assert_eq!(indices.len(), StatusWord::ALL.len());
        assert!(indices.into_iter().all(|i| i < 64));
    }

    #[test]
    fn s3_30_the_words_of_the_source_keep_their_indices() {
        assert_eq!(StatusWord::Heartbeat.index(), 0);
        assert_eq!(StatusWord::StopRequested.index(), 1);
        assert_eq!(StatusWord::GuestBase.index(), 16);
        assert_eq!(StatusWord::GuestSize.index(), 17);
        assert_eq!(StatusWord::RuntimeReserved.index(), 18);
        assert_eq!(StatusWord::IrqLevelLow.index(), 32);
        assert_eq!(StatusWord::A20.index(), 34);
    }
}
