//! Every region as the typed end that a process holds.

use super::{Region, RingRegions, SleeperId};
use crate::boot_state::{BootState, BootStateError, BootStateReader, BootStateWriter};
use crate::clock::{ClockMaster, VmClock};
use crate::codemap::{CodeMapReader, CodeMapWriter};
use crate::commit::CommitStore;
use crate::decode_map::{DecodeMapReader, DecodeMapWriter};
use crate::doorbell::{Doorbell, Sleeper, SpinPolicy};
use crate::handshake::{MapSet, Role};
use crate::invalidation::{InvalidationReader, InvalidationWriter};
use crate::mirror::{MirrorReader, MirrorWriter};
use crate::profile::{ProfileReader, ProfileWriter};
use crate::reply::{ReplyReader, ReplyWriter};
use crate::ring::{Consumer, PopError, Position, Producer, PushError, Traffic};
use crate::shm::{View, ViewMut};
use crate::speaker::{SpeakerReader, SpeakerWriter};
use crate::status::{StatusReader, StatusWord};
use crate::stream::{StreamError, StreamReader, StreamWriter};
use crate::sync::CACHE_LINE;
use crate::trace::Tracer;
use crate::wires::{self, Wire, WireReader, WireWriter};

/// The ends of everything that is shared, over the maps of one process.
///
/// A method that gives a writing end panics in a process that holds the file read-only: asking for it is a fault
/// of the program. Each end exists once per machine by the protocol; nothing here keeps count, because a
/// successor must be able to take over.
#[derive(Clone, Debug)]
pub struct Ends {
    maps: MapSet,
}

impl Ends {
    /// The ends over `maps`.
    pub fn new(maps: &MapSet) -> Self {
        Self { maps: maps.clone() }
    }

    /// A region for reading.
    pub fn view(&self, region: Region) -> View {
        self.maps.view(region.file).slice(region.offset, region.len)
    }

    /// A region for writing.
    pub fn view_mut(&self, region: Region) -> ViewMut {
        let file = self.maps.view_mut(region.file);
        let file = file.unwrap_or_else(|| panic!("{:?} is not writable here", region.file));
        file.slice(region.offset, region.len)
    }

    /// Where the vCPU says what it is doing; what a predecessor said is forgotten.
    pub fn profile_writer(&self) -> ProfileWriter {
        ProfileWriter::attach(self.view_mut(Region::profile()))
    }

    /// What the vCPU says it is doing.
    pub fn profile_reader(&self) -> ProfileReader {
        ProfileReader::new(self.view(Region::profile()))
    }

    /// Where cpu-worker tells how the PC speaker's line goes on.
    pub fn speaker_writer(&self) -> SpeakerWriter {
        SpeakerWriter::new(self.view_mut(Region::speaker()))
    }

    /// How the PC speaker's line goes on.
    pub fn speaker_reader(&self) -> SpeakerReader {
        SpeakerReader::new(self.view(Region::speaker()))
    }

    /// The doorbell of `who`, for ringing.
    pub fn doorbell(&self, who: SleeperId) -> Doorbell {
        Doorbell::new(
            self.view_mut(Region::doorbell(who)),
            self.view(Region::asleep(who)),
        )
    }

    /// Every doorbell of the machine; the coordinator forces them all after a death.
    pub fn all_doorbells(&self) -> Vec<Doorbell> {
        SleeperId::all().map(|who| self.doorbell(who)).collect()
    }

    /// The sleeping end of `who`, in its own process.
    pub fn sleeper(&self, who: SleeperId, policy: SpinPolicy) -> Sleeper {
        Sleeper::new(
            self.view_mut(Region::doorbell(who)),
            self.view_mut(Region::asleep(who)),
            policy,
        )
    }

    /// The VM clock.
    pub fn clock(&self) -> VmClock {
        VmClock::new(self.view(Region::clock()))
    }

    /// The writing end of the VM clock, in the coordinator; the clock stands at zero.
    pub fn clock_master(&self) -> ClockMaster {
        ClockMaster::new(self.view_mut(Region::clock()))
    }

    /// Producer of a vCPU's command ring, in cpu-worker.
    ///
    /// # Errors
    /// [`PushError`] when the shared words contradict each other.
    pub fn command_producer(&self, vcpu: usize) -> Result<Producer, PushError> {
        Producer::attach(
            self.view_mut(Region::command(vcpu)),
            self.view(Region::command_head(vcpu)),
        )
    }

    /// Consumer of a vCPU's command ring, in io-worker, going on at the committed position.
    ///
    /// # Errors
    /// [`PopError`].
    pub fn command_consumer(&self, vcpu: usize, at: Position) -> Result<Consumer, PopError> {
        Consumer::attach(
            self.view_mut(Region::command_head(vcpu)),
            self.view(Region::command(vcpu)),
            at,
        )
    }

    /// Producer of the event ring, in io-worker.
    ///
    /// # Errors
    /// [`PushError`] when the shared words contradict each other.
    pub fn event_producer(&self) -> Result<Producer, PushError> {
        Producer::attach(self.view_mut(Region::event()), self.view(Region::event_head()))
    }

    /// Consumer of the event ring, in cpu-worker.
    ///
    /// # Errors
    /// [`PopError`].
    pub fn event_consumer(&self) -> Result<Consumer, PopError> {
        Consumer::attach_at_head(self.view_mut(Region::event_head()), self.view(Region::event()))
    }

    /// What has gone through the rings that a PC with one processor uses, by name: for whoever holds neither end.
    pub fn traffic(&self) -> Vec<(&'static str, Traffic)> {
        let look = |ring: &RingRegions| Traffic::look(&self.view(ring.producer), &self.view(ring.head));
        let rings = RingRegions::reported().into_iter();
        rings
            .filter_map(|(name, ring)| Some((name, look(&ring)?)))
            .collect()
    }

    /// Reply slot of a vCPU, in io-worker.
    pub fn reply_writer(&self, vcpu: usize) -> ReplyWriter {
        ReplyWriter::new(self.view_mut(Region::reply(vcpu)))
    }

    /// Reply slot of a vCPU, in cpu-worker.
    pub fn reply_reader(&self, vcpu: usize) -> ReplyReader {
        ReplyReader::new(self.view(Region::reply(vcpu)))
    }

    /// io-worker's wires, in io-worker.
    pub fn wire_writer(&self) -> WireWriter {
        WireWriter::new(self.view_mut(Region::wires()))
    }

    /// io-worker's wires, in cpu-worker.
    pub fn wire_reader(&self) -> WireReader {
        WireReader::new(self.view(Region::wires()))
    }

    /// io-worker's wires as they stand.
    pub fn wires(&self) -> Vec<Wire> {
        wires::look(&self.view(Region::wires())).collect()
    }

    /// A mirror, in io-worker.
    pub fn mirror_writer(&self, n: usize) -> MirrorWriter {
        MirrorWriter::new(self.view_mut(Region::mirror(n)))
    }

    /// A mirror, in cpu-worker.
    pub fn mirror_reader(&self, n: usize) -> MirrorReader {
        MirrorReader::new(self.view(Region::mirror(n)))
    }

    /// The decode map, in io-worker.
    pub fn decode_map_writer(&self) -> DecodeMapWriter {
        DecodeMapWriter::new(self.view_mut(Region::decode_map()))
    }

    /// The decode map, in cpu-worker.
    pub fn decode_map_reader(&self) -> DecodeMapReader {
        DecodeMapReader::new(self.view(Region::decode_map()))
    }

    /// The ROM window, in io-worker.
    pub fn rom_mut(&self) -> ViewMut {
        self.view_mut(Region::rom())
    }

    /// The ROM window, for reading.
    pub fn rom(&self) -> View {
        self.view(Region::rom())
    }

    /// The boot state, in io-worker.
    pub fn boot_state_writer(&self) -> BootStateWriter {
        BootStateWriter::new(self.view_mut(Region::boot_state()))
    }

    /// The boot state, in cpu-worker.
    pub fn boot_state_reader(&self) -> BootStateReader {
        BootStateReader::new(self.view(Region::boot_state()))
    }

    /// What the guest starts with in reset `generation`, once io-worker has carried that reset out to its end; `None`
    /// before.
    ///
    /// The boot state alone is no leave to start: it comes before the commit and the decode map, and without that map
    /// nobody claims a port, so that the first bytes for a serial line would go nowhere.
    ///
    /// # Errors
    /// [`BootStateError`].
    pub fn guest_start(&self, generation: u32) -> Result<Option<BootState>, BootStateError> {
        let io = StatusReader::of(&self.maps, Role::Io);
        if io.load(StatusWord::ResetDone) != generation {
            return Ok(None);
        }
        let boot = self.boot_state_reader().read()?;
        Ok(boot.filter(|boot| boot.generation == generation))
    }

    /// The code bitmap, in cpu-worker.
    pub fn code_map_writer(&self) -> CodeMapWriter {
        CodeMapWriter::new(self.view_mut(Region::code_map()))
    }

    /// The code bitmap, in io-worker.
    pub fn code_map_reader(&self) -> CodeMapReader {
        CodeMapReader::new(self.view(Region::code_map()))
    }

    /// Invalidations, in io-worker.
    ///
    /// # Errors
    /// [`PushError`] when the shared words contradict each other.
    pub fn invalidation_writer(&self) -> Result<InvalidationWriter, PushError> {
        let mine = self.view_mut(Region::invalidation());
        let ring = mine.slice(CACHE_LINE, mine.len() - CACHE_LINE);
        InvalidationWriter::attach(
            mine.slice(0, CACHE_LINE),
            ring,
            self.view(Region::invalidation_head()),
        )
    }

    /// Invalidations, in cpu-worker.
    ///
    /// # Errors
    /// [`PopError`].
    pub fn invalidation_reader(&self) -> Result<InvalidationReader, PopError> {
        let peer = self.view(Region::invalidation());
        let ring = peer.slice(CACHE_LINE, peer.len() - CACHE_LINE);
        InvalidationReader::attach(
            self.view_mut(Region::invalidation_head()),
            peer.slice(0, CACHE_LINE),
            ring,
        )
    }

    /// The commit store, in io-worker.
    pub fn commit_store(&self) -> CommitStore {
        CommitStore::open(self.view_mut(Region::commit()))
    }

    /// Writer of an outgoing stream, in io-worker, going on at the committed position.
    ///
    /// # Errors
    /// [`StreamError`].
    pub fn stream_out_writer(&self, n: usize, at: u64) -> Result<StreamWriter, StreamError> {
        StreamWriter::attach(
            self.view_mut(Region::stream_out(n)),
            self.view(Region::stream_out_head(n)),
            at,
        )
    }

    /// Reader of an outgoing stream, in the coordinator, from the start.
    ///
    /// # Errors
    /// [`StreamError`].
    pub fn stream_out_reader(&self, n: usize) -> Result<StreamReader, StreamError> {
        StreamReader::attach(
            self.view_mut(Region::stream_out_head(n)),
            self.view(Region::stream_out(n)),
            0,
        )
    }

    /// Writer of an incoming stream, in the coordinator, from the start.
    ///
    /// # Errors
    /// [`StreamError`].
    pub fn stream_in_writer(&self, n: usize) -> Result<StreamWriter, StreamError> {
        StreamWriter::attach(
            self.view_mut(Region::stream_in(n)),
            self.view(Region::stream_in_head(n)),
            0,
        )
    }

    /// Reader of an incoming stream, in io-worker, going on at the committed position.
    ///
    /// # Errors
    /// [`StreamError`].
    pub fn stream_in_reader(&self, n: usize, at: u64) -> Result<StreamReader, StreamError> {
        StreamReader::attach(
            self.view_mut(Region::stream_in_head(n)),
            self.view(Region::stream_in(n)),
            at,
        )
    }

    /// Producer of the input ring, in gpu-worker.
    ///
    /// # Errors
    /// [`PushError`] when the shared words contradict each other.
    pub fn input_producer(&self) -> Result<Producer, PushError> {
        Producer::attach(self.view_mut(Region::input()), self.view(Region::input_head()))
    }

    /// Consumer of the input ring, in io-worker, going on at the committed position.
    ///
    /// # Errors
    /// [`PopError`].
    pub fn input_consumer(&self, at: Position) -> Result<Consumer, PopError> {
        Consumer::attach(
            self.view_mut(Region::input_head()),
            self.view(Region::input()),
            at,
        )
    }

    /// Producer of a process's trace ring, in that process.
    ///
    /// # Errors
    /// [`PushError`] when the shared words contradict each other.
    pub fn trace_producer(&self, role: Role) -> Result<Producer, PushError> {
        Producer::attach(
            self.view_mut(Region::trace(role)),
            self.view(Region::trace_head(role)),
        )
    }

    /// What process `generation` of a worker traces with, in that process: empty unless a trace is wanted.
    pub fn tracer(&self, role: Role, generation: u32) -> Tracer {
        Tracer::attach(self, role, generation)
    }

    /// Consumer of a process's trace ring, in the coordinator.
    ///
    /// # Errors
    /// [`PopError`].
    pub fn trace_consumer(&self, role: Role) -> Result<Consumer, PopError> {
        Consumer::attach_at_head(
            self.view_mut(Region::trace_head(role)),
            self.view(Region::trace(role)),
        )
    }

    /// Producer of the lifecycle ring to a worker, in the coordinator.
    ///
    /// # Errors
    /// [`PushError`] when the shared words contradict each other.
    pub fn lifecycle_to_producer(&self, role: Role) -> Result<Producer, PushError> {
        Producer::attach(
            self.view_mut(Region::lifecycle_to(role)),
            self.view(Region::lifecycle_to_head(role)),
        )
    }

    /// Consumer of the lifecycle ring to a worker, in the worker.
    ///
    /// # Errors
    /// [`PopError`].
    pub fn lifecycle_to_consumer(&self, role: Role) -> Result<Consumer, PopError> {
        Consumer::attach_at_head(
            self.view_mut(Region::lifecycle_to_head(role)),
            self.view(Region::lifecycle_to(role)),
        )
    }

    /// Producer of the lifecycle ring from a worker, in the worker.
    ///
    /// # Errors
    /// [`PushError`] when the shared words contradict each other.
    pub fn lifecycle_from_producer(&self, role: Role) -> Result<Producer, PushError> {
        Producer::attach(
            self.view_mut(Region::lifecycle_from(role)),
            self.view(Region::lifecycle_from_head(role)),
        )
    }

    /// Consumer of the lifecycle ring from a worker, in the coordinator.
    ///
    /// # Errors
    /// [`PopError`].
    pub fn lifecycle_from_consumer(&self, role: Role) -> Result<Consumer, PopError> {
        Consumer::attach_at_head(
            self.view_mut(Region::lifecycle_from_head(role)),
            self.view(Region::lifecycle_from(role)),
        )
    }
}
