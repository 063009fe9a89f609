//! Status words: small facts that one process writes and all may read.
//!
//! 64 words of 32 bits per control file, at [`STATUS_OFFSET`]; the index of a word is the same in each file, and
//! it is meaningful only in its owner's (S3.30, S3.31). So a worker can neither clear another's stop request
//! nor forge another's ready flag: it has no writable map of the word. The source layout, where the words of all
//! owners share lines of one page, was given up for that.

mod word;

use rustix::process::{PTracer, Pid, set_ptracer};

use crate::doorbell::Doorbell;
use crate::handshake::{FileId, MapSet, Role, WorkerContext};
use crate::layout::{Ends, SleeperId};
use crate::ram::{GUEST_BASE, PCI_MMIO_BASE, RUNTIME_RESERVED, RamLayout};
use crate::shm::{View, ViewMut, Word};
use crate::sync::Ordering;

pub use word::{Owner, StatusWord};

/// Offset of the status words in every control file, in bytes.
pub const STATUS_OFFSET: usize = 256;
/// Length of the status words, in bytes.
pub const STATUS_LEN: usize = 64 * 4;

macro_rules! coded {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $value:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        #[repr(u32)]
        pub enum $name { $($(#[$vdoc])* $variant = $value,)* }

        impl $name {
            /// Every value, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The value of a shared word; `None` for a number that has no meaning.
            pub const fn from_u32(value: u32) -> Option<Self> {
                match value { $($value => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

coded! {
    /// State of the machine (S3.100, with the states that reset and pause need).
    MachineState {
        /// Nothing runs.
        Stopped = 0,
        /// Workers are being started.
        Starting = 1,
        /// All workers are ready and VM time runs.
        Running = 2,
        /// VM time stands still because the user, or the guest's debugger, asked for it.
        Paused = 3,
        /// VM time stands still because the cpu- or the io-worker is being replaced.
        Restarting = 4,
        /// CPU and devices are being reset in place.
        Resetting = 5,
        /// The guest switched the machine off.
        PoweredOff = 6,
        /// A worker failed for good.
        Failed = 7,
    }
}

coded! {
    /// What a worker says of itself.
    WorkerState {
        /// It has not said anything yet.
        Absent = 0,
        /// It is taking over or reading its configuration; beats.
        Starting = 1,
        /// It works; beats.
        Running = 2,
        /// It sleeps until a doorbell or a deadline; need not beat.
        Parked = 3,
        /// It is ending in good order.
        Stopping = 4,
    }
}

coded! {
    /// What the coordinator says of a worker: what a waiting peer needs to know.
    PeerState {
        /// Not started.
        Absent = 0,
        /// Started, not yet ready.
        Starting = 1,
        /// Ready.
        Running = 2,
        /// Dead; a successor is on its way. Wait.
        Restarting = 3,
        /// A debugger or a stop signal holds it. Wait.
        Held = 4,
        /// It makes no progress; it is about to be killed and replaced. Wait.
        Hung = 5,
        /// It failed for good. Its answers are those of an empty bus.
        Failed = 6,
    }
}

/// What a worker reports about the guest, for the coordinator to act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestEvent {
    /// The guest switched the machine off (ACPI S5).
    PowerOff,
    /// The guest asked for a reset.
    Reset(ResetCause),
    /// The guest ended the machine through the exit port with this value.
    ExitPort(u32),
    /// The image cannot be booted; the reason is in the worker's log. The machine ends with exit status 1.
    BadImage,
}

coded! {
    /// How a guest asked for a reset.
    ResetCause {
        /// Keyboard controller, command FEh.
        KeyboardController = 1,
        /// Port 92h, bit 0.
        Port92 = 2,
        /// Port CF9h.
        Cf9 = 3,
        /// Triple fault.
        TripleFault = 4,
        /// The user, through the coordinator.
        User = 5,
    }
}

impl GuestEvent {
    fn to_words(self) -> (u32, u32) {
        match self {
            Self::PowerOff => (1, 0),
            Self::Reset(cause) => (2, cause as u32),
            Self::ExitPort(value) => (3, value),
            Self::BadImage => (4, 0),
        }
    }

    fn from_words(kind: u32, value: u32) -> Option<Self> {
        match kind {
            1 => Some(Self::PowerOff),
            2 => ResetCause::from_u32(value).map(Self::Reset),
            3 => Some(Self::ExitPort(value)),
            4 => Some(Self::BadImage),
            _ => None,
        }
    }
}

/// Why the guest-memory words were refused (S3.32).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuestWordsError {
    /// Base and size are zero.
    #[error("Guest memory is not initialised: guest_base and guest_size are both 0")]
    NotInitialised,
    /// The size passes the aperture.
    #[error("Guest memory of {0:#x} bytes overlaps MMIO, which starts at {PCI_MMIO_BASE:#x}")]
    OverlapsMmio(u32),
    /// The base or the reserved length is not ours.
    #[error(
        "Guest memory starts at {base:#x} behind {reserved:#x} reserved bytes; this build has {GUEST_BASE:#x}"
    )]
    Base {
        /// Word 16.
        base: u32,
        /// Word 18.
        reserved: u32,
    },
}

/// The status words of one control file, for reading.
#[derive(Clone, Debug)]
pub struct StatusReader(View);

impl StatusReader {
    /// The words in the control file `file`.
    pub fn new(file: &View) -> Self {
        Self(file.slice(STATUS_OFFSET, STATUS_LEN))
    }

    /// The words of `role` among the maps of this process.
    pub fn of(maps: &MapSet, role: Role) -> Self {
        Self::new(&maps.view(FileId::Control(role)))
    }

    /// Loads a word, acquiring what its writer did before.
    pub fn load(&self, word: StatusWord) -> u32 {
        self.0.load_u32(word.index() * 4, Ordering::Acquire)
    }

    /// A word for who loads it often.
    pub fn word(&self, word: StatusWord) -> Word {
        self.0.word(word.index() * 4)
    }

    /// The newest event of a worker and its number; `None` before the first and while one is being written.
    pub fn guest_event(&self) -> Option<(u32, GuestEvent)> {
        let count = self.load(StatusWord::GuestEventCount);
        let (kind, value) = (
            self.load(StatusWord::GuestEventKind),
            self.load(StatusWord::GuestEventValue),
        );
        if count == 0 || self.load(StatusWord::GuestEventCount) != count {
            return None;
        }
        Some((count, GuestEvent::from_words(kind, value)?))
    }

    /// Whom this worker last found to have broken what the two share, and how often it has found that of anybody; `None`
    /// before the first time, and for what is no role.
    pub fn peer_faults(&self) -> Option<(Role, u32)> {
        let word = self.load(StatusWord::PeerFaults);
        let role = Role::from_index((word & 7) as usize)?;
        (word >> 3 != 0).then_some((role, word >> 3))
    }

    /// Size and place of guest RAM, from the coordinator's words (S3.32).
    ///
    /// # Errors
    /// [`GuestWordsError`].
    pub fn guest_memory(&self) -> Result<RamLayout, GuestWordsError> {
        let (base, size) = (self.load(StatusWord::GuestBase), self.load(StatusWord::GuestSize));
        let reserved = self.load(StatusWord::RuntimeReserved);
        if (base, size) == (0, 0) {
            return Err(GuestWordsError::NotInitialised);
        }
        if u64::from(size) > PCI_MMIO_BASE {
            return Err(GuestWordsError::OverlapsMmio(size));
        }
        if u64::from(base) != GUEST_BASE || u64::from(reserved) != RUNTIME_RESERVED {
            return Err(GuestWordsError::Base { base, reserved });
        }
        let high = u64::from(self.load(StatusWord::HighSizeLow))
            | u64::from(self.load(StatusWord::HighSizeHigh)) << 32;
        Ok(RamLayout::new(u64::from(size).saturating_add(high)))
    }
}

/// The status words of one control file, for their owner.
#[derive(Clone, Debug)]
pub struct StatusWriter {
    words: ViewMut,
    role: Role,
}

impl StatusWriter {
    /// The words in `role`'s control file.
    pub fn new(file: &ViewMut, role: Role) -> Self {
        Self {
            words: file.slice(STATUS_OFFSET, STATUS_LEN),
            role,
        }
    }

    /// Stores a word, releasing what was done before. Panics when the word is not this process's to write.
    pub fn store(&self, word: StatusWord, value: u32) {
        let ours = match word.owner() {
            Owner::One(role) => role == self.role,
            Owner::EachWorker => self.role != Role::Coordinator,
        };
        assert!(ours, "{word:?} is not for the {} to write", self.role);
        self.words.store_u32(word.index() * 4, value, Ordering::Release);
    }

    /// Loads a word of our own.
    pub fn load(&self, word: StatusWord) -> u32 {
        self.words.load_u32(word.index() * 4, Ordering::Relaxed)
    }

    /// Adds to a word of our own, wrapping.
    pub fn add(&self, word: StatusWord, n: u32) {
        self.store(word, self.load(word).wrapping_add(n));
    }

    /// The same words, for reading.
    pub fn reader(&self) -> StatusReader {
        StatusReader(self.words.view().clone())
    }

    /// Writes size and place of guest RAM; once, before any worker starts (S3.32).
    pub fn set_guest_memory(&self, ram: RamLayout) {
        self.store(StatusWord::RuntimeReserved, RUNTIME_RESERVED as u32);
        self.store(StatusWord::HighSizeLow, ram.high() as u32);
        self.store(StatusWord::HighSizeHigh, (ram.high() >> 32) as u32);
        self.store(StatusWord::GuestSize, ram.low() as u32);
        self.store(StatusWord::GuestBase, GUEST_BASE as u32);
    }

    /// Publishes an event. A second one before the coordinator looked replaces the first.
    pub fn report(&self, event: GuestEvent) {
        let (kind, value) = event.to_words();
        self.store(StatusWord::GuestEventValue, value);
        self.store(StatusWord::GuestEventKind, kind);
        self.add(StatusWord::GuestEventCount, 1);
    }
}

/// A worker's own words together with the coordinator's: what a worker library needs of this module.
#[derive(Clone, Debug)]
pub struct WorkerStatus {
    own: StatusWriter,
    coordinator: StatusReader,
    bell: Doorbell,
    generation: u32,
}

impl WorkerStatus {
    /// The status of the worker of `ctx`. Panics when its own control file is not writable, which a checked
    /// hello rules out.
    pub fn new(ctx: &WorkerContext) -> Self {
        Self::from_maps(&ctx.maps, ctx.role, ctx.generation)
    }

    /// As [`Self::new`], from the parts.
    pub fn from_maps(maps: &MapSet, role: Role, generation: u32) -> Self {
        let own = maps
            .view_mut(FileId::Control(role))
            .expect("a worker's own control file is writable");
        Self {
            own: StatusWriter::new(&own, role),
            coordinator: StatusReader::of(maps, Role::Coordinator),
            bell: Ends::new(maps).doorbell(SleeperId::Coordinator),
            generation,
        }
    }

    /// The worker's own words.
    pub fn own(&self) -> &StatusWriter {
        &self.own
    }

    /// The coordinator's words.
    pub fn coordinator(&self) -> &StatusReader {
        &self.coordinator
    }

    /// Tells that the thread which does the work made progress. At most four times a second is enough; only
    /// that thread may call it (see `docs/lifecycle.md`).
    pub fn beat(&self) {
        self.own.add(StatusWord::Heartbeat, 1);
    }

    /// Says what the worker does. Going from parked to running beats.
    pub fn set_state(&self, state: WorkerState) {
        self.own.store(StatusWord::WorkerState, state as u32);
        if state == WorkerState::Running {
            self.beat();
        }
    }

    /// Says that this process is ready.
    pub fn set_ready(&self) {
        // Whom a predecessor has named is named anew.
        self.own.store(StatusWord::TracerSeen, 0);
        self.own.store(StatusWord::ready(self.own.role), self.generation);
        self.set_state(WorkerState::Running);
        self.bell.ring();
    }

    /// Whether this worker is to end in good order. Every worker asks whenever it is rung, so here it also tells the kernel which
    /// debugger may trace it.
    pub fn stop_requested(&self) -> bool {
        self.admit_tracer();
        self.coordinator.load(StatusWord::StopRequested) & 1 << self.own.role.index() != 0
    }

    /// The process of the debugger that was named to the kernel last; 0 before the first.
    pub fn tracer(&self) -> u32 {
        self.own.load(StatusWord::TracerSeen)
    }

    /// Names the debugger that the coordinator wants named ([`StatusWord::tracer`]) to the kernel, which with Yama lets nobody else trace
    /// a process that is not its child.
    fn admit_tracer(&self) {
        let wanted = self.coordinator.load(StatusWord::tracer(self.own.role));
        if wanted == self.own.load(StatusWord::TracerSeen) {
            return;
        }
        let pid = i32::try_from(wanted).ok().and_then(Pid::from_raw);
        // Without Yama the kernel knows nothing of it (EINVAL), and nothing needs to be done.
        let _ = set_ptracer(pid.map_or(PTracer::None, PTracer::ProcessID));
        self.own.store(StatusWord::TracerSeen, wanted);
        self.bell.ring();
    }

    /// State of the machine. A number without meaning reads as stopped.
    pub fn machine_state(&self) -> MachineState {
        MachineState::from_u32(self.coordinator.load(StatusWord::MachineState))
            .unwrap_or(MachineState::Stopped)
    }

    /// Says that the current [`StatusWord::RunEpoch`] has been obeyed; call it after looking at
    /// [`Self::machine_state`] and acting on it. `epoch` is what the word was before that look.
    pub fn epoch_seen(&self, epoch: u32) {
        if self.own.load(StatusWord::EpochSeen) != epoch {
            self.own.store(StatusWord::EpochSeen, epoch);
            self.bell.ring();
        }
    }

    /// The number of the newest change of the machine's state.
    pub fn run_epoch(&self) -> u32 {
        self.coordinator.load(StatusWord::RunEpoch)
    }

    /// How often the power button has been pressed; wraps.
    pub fn power_presses(&self) -> u32 {
        self.coordinator.load(StatusWord::PowerPresses)
    }

    /// How many packets have been sent to the stub of the guest's debugger; wraps.
    pub fn debugger_sent(&self) -> u32 {
        self.coordinator.load(StatusWord::DebuggerSent)
    }

    /// Says whether the guest's debugger holds the vCPUs.
    pub fn set_debugger_holds(&self, holds: bool) {
        if self.own.load(StatusWord::DebuggerHolds) != u32::from(holds) {
            self.own.store(StatusWord::DebuggerHolds, holds.into());
            self.bell.ring();
        }
    }

    /// What the coordinator says of a peer.
    pub fn peer(&self, role: Role) -> PeerState {
        PeerState::from_u32(self.coordinator.load(StatusWord::peer(role))).unwrap_or(PeerState::Absent)
    }

    /// Generation of the newest process of a peer.
    pub fn peer_generation(&self, role: Role) -> u32 {
        self.coordinator.load(StatusWord::generation(role))
    }

    /// Counts the resets of the guest.
    pub fn reset_generation(&self) -> u32 {
        self.coordinator.load(StatusWord::ResetGeneration)
    }

    /// Says that a reset has been carried out.
    pub fn set_reset_done(&self, generation: u32) {
        if self.own.load(StatusWord::ResetDone) != generation {
            self.own.store(StatusWord::ResetDone, generation);
            self.bell.ring();
        }
    }

    /// Publishes an event for the coordinator and rings its doorbell.
    pub fn report(&self, event: GuestEvent) {
        self.own.report(event);
        self.bell.ring();
    }

    /// Says that what `peer` shares with this worker was found broken.
    pub fn peer_broke(&self, peer: Role) {
        let times = (self.own.load(StatusWord::PeerFaults) >> 3).wrapping_add(1);
        self.own
            .store(StatusWord::PeerFaults, times << 3 | peer.index() as u32);
        self.bell.ring();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shm::Map;
    use std::sync::Arc;

    fn file() -> ViewMut {
        ViewMut::new(Arc::new(Map::anonymous(4096).expect("map")))
    }

    #[test]
    fn s3_32_guest_memory_is_refused_before_it_is_written() {
        let f = file();
        let w = StatusWriter::new(&f, Role::Coordinator);
        let r = StatusReader::new(f.view());
        assert_eq!(r.guest_memory(), Err(GuestWordsError::NotInitialised));
        w.store(StatusWord::GuestBase, GUEST_BASE as u32);
        w.store(StatusWord::RuntimeReserved, GUEST_BASE as u32);
        w.store(StatusWord::GuestSize, 0xE000_0001);
        assert_eq!(r.guest_memory(), Err(GuestWordsError::OverlapsMmio(0xE000_0001)));
        w.store(StatusWord::GuestSize, 0xE000_0000);
        w.store(StatusWord::RuntimeReserved, 4096);
        assert!(matches!(
            r.guest_memory(),
            Err(GuestWordsError::Base { reserved: 4096, .. })
        ));
    }

    #[test]
    fn s3_32_guest_memory_above_4_gib_survives_the_words() {
        let f = file();
        for bytes in [64 << 10, 512 << 20, 5 << 30, 40 << 30] {
            StatusWriter::new(&f, Role::Coordinator).set_guest_memory(RamLayout::new(bytes));
            assert_eq!(
                StatusReader::new(f.view()).guest_memory(),
                Ok(RamLayout::new(bytes))
            );
        }
    }

    #[test]
    #[should_panic(expected = "StopRequested is not for the io-worker to write")]
    fn s3_31_a_word_has_one_writer() {
        StatusWriter::new(&file(), Role::Io).store(StatusWord::StopRequested, 0);
    }

    #[test]
    fn a_peer_is_accused_by_its_role_and_no_other_number() {
        let f = file();
        let (w, r) = (StatusWriter::new(&f, Role::Io), StatusReader::new(f.view()));
        assert_eq!(r.peer_faults(), None);
        w.store(StatusWord::PeerFaults, 7 << 3 | Role::Gpu.index() as u32);
        assert_eq!(r.peer_faults(), Some((Role::Gpu, 7)));
        // A liar's words.
        for word in [Role::Gpu.index() as u32, 1 << 3 | 5, u32::MAX] {
            w.store(StatusWord::PeerFaults, word);
            assert_eq!(r.peer_faults(), None);
        }
    }

    #[test]
    fn an_event_is_seen_with_its_number() {
        let f = file();
        let w = StatusWriter::new(&f, Role::Cpu);
        let r = StatusReader::new(f.view());
        assert_eq!(r.guest_event(), None);
        w.report(GuestEvent::ExitPort(0x31));
        assert_eq!(r.guest_event(), Some((1, GuestEvent::ExitPort(0x31))));
        w.report(GuestEvent::Reset(ResetCause::TripleFault));
        assert_eq!(
            r.guest_event(),
            Some((2, GuestEvent::Reset(ResetCause::TripleFault)))
        );
    }

    #[test]
    fn a_forged_event_kind_is_no_event() {
        let f = file();
        let w = StatusWriter::new(&f, Role::Cpu);
        w.store(StatusWord::GuestEventKind, 77);
        w.store(StatusWord::GuestEventCount, 1);
        assert_eq!(StatusReader::new(f.view()).guest_event(), None);
    }
}
