//! What a device sees of the machine while it is called.

use quintet_protocol::input::InputEvent;
use quintet_protocol::time::VmTime;

use super::Interrupts;
use crate::block::Disks;
use crate::dma::Dma;
use crate::isa_dma::IsaDma;
use crate::sound::Playback;

/// An outgoing byte stream, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamOut(pub u8);

impl StreamOut {
    /// A stream that nobody connected.
    pub const NOWHERE: Self = Self(u8::MAX);
}

/// An incoming byte stream, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamIn(pub u8);

impl StreamIn {
    /// A stream that nobody connected.
    pub const NOWHERE: Self = Self(u8::MAX);
}

/// Byte streams to and from the outside, and its keyboard and pointer. Both directions take effect with the next commit only: bytes put
/// out before it become visible after it, bytes taken before it are given back to a successor otherwise.
pub trait Streams {
    /// Appends a byte; `false` when there is no room. A stream that nobody connected takes any number.
    fn put(&mut self, stream: StreamOut, byte: u8) -> bool;
    /// Takes the oldest byte; `None` for a stream that nobody connected.
    fn take(&mut self, stream: StreamIn) -> Option<u8>;
    /// Takes the oldest event of keyboard or pointer.
    fn take_input(&mut self) -> Option<InputEvent>;
}

/// What a device asks of the machine as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum MachineRequest {
    /// Pull the reset line: the keyboard controller's pulse.
    Reset,
    /// End with this value: isa-debug-exit.
    Exit(u32),
}

/// Requests, committed until they have been passed on. The first one wins: after it the guest is not meant to
/// run on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Requests {
    first: Option<MachineRequest>,
    dirty: bool,
}

impl Requests {
    /// Asks.
    pub fn ask(&mut self, request: MachineRequest) {
        self.first.get_or_insert(request);
        self.dirty = true;
    }

    /// The request, if any.
    pub fn pending(&self) -> Option<MachineRequest> {
        self.first
    }

    /// The request, if any; asked no more.
    pub fn take(&mut self) -> Option<MachineRequest> {
        self.dirty |= self.first.is_some();
        self.first.take()
    }

    /// Whether anything changed since the last call.
    pub fn take_dirty(&mut self) -> bool {
        std::mem::take(&mut self.dirty)
    }
}

/// The machine around a device for the time of a call.
pub struct Backplane<'a> {
    /// VM time of the call.
    pub now: VmTime,
    /// Interrupt pins.
    pub irq: &'a mut Interrupts,
    /// Byte streams.
    pub streams: &'a mut dyn Streams,
    /// Guest memory.
    pub dma: &'a mut Dma,
    /// Whether the device may use it as a bus master: a bit of its PCI function's command register.
    pub may_master: bool,
    /// Disk images.
    pub disks: &'a mut Disks,
    /// The ISA bus's DMA controllers.
    pub isa_dma: &'a mut IsaDma,
    /// What is to be heard.
    pub playback: &'a mut Playback,
    /// Requests to the machine.
    pub requests: &'a mut Requests,
}

impl std::fmt::Debug for Backplane<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backplane")
            .field("now", &self.now)
            .field("irq", &self.irq)
            .finish_non_exhaustive()
    }
}
