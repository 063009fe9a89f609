//! The vCPU's end of the path to io-worker.
//!
//! Writes are posted where the decode map says that the guest cannot tell; reads and the other writes are commands
//! with a reply. A deadline that passes is never an answer to the guest: the waiter looks at its peer and
//! goes on waiting under the same number, and only a peer that failed for good reads as an empty bus.

use quintet_protocol::addr::GuestPhys;
use quintet_protocol::commit::MAX_DEVICES;
use quintet_protocol::decode_map::{Attributes, Claim, DecodeMapReader};
use quintet_protocol::doorbell::{Doorbell, Sleeper, Woken};
use quintet_protocol::handshake::Role;
use quintet_protocol::message::{Command, CommandFlags, MAX_COMMAND, MAX_STRING};
use quintet_protocol::mirror::MirrorReader;
use quintet_protocol::profile::{Activity, ProfileWriter};
use quintet_protocol::reply::ReplyReader;
use quintet_protocol::ring::{Producer, PushError};
use quintet_protocol::status::{MachineState, PeerState, WorkerState, WorkerStatus};
use quintet_protocol::time::HostTime;
use quintet_protocol::trace::{Kind, Tracer};

use super::Tables;

/// How long one wait lasts before the waiter looks at its peer, in nanoseconds.
const LOOK: u64 = 50_000_000;

/// The ends of one vCPU.
#[derive(Debug)]
pub struct IoClient {
    /// Number of the vCPU.
    vcpu: usize,
    commands: Producer,
    replies: ReplyReader,
    mirrors: Vec<MirrorReader>,
    map: DecodeMapReader,
    map_version: u32,
    /// The vCPU's own sleeper, whose word is the exit word.
    sleeper: Sleeper,
    io_bell: Doorbell,
    /// The vCPU's own doorbell.
    own_bell: Doorbell,
    status: WorkerStatus,
    profile: ProfileWriter,
    tracer: Tracer,
    /// Number of the last command posted to each device.
    posted: Box<[u64; MAX_DEVICES]>,
    /// The epoch of the machine's state that the vCPU has obeyed.
    epoch: u32,
    /// Packets of the debugger that the vCPU has been told of.
    heard: u32,
    /// Presses of the power button that have been passed on.
    presses: u32,
}

impl IoClient {
    /// The ends of vCPU `vcpu`.
    #[allow(
        clippy::too_many_arguments,
        reason = "each is a different end of the shared memory, used once"
    )]
    pub fn new(
        vcpu: usize,
        commands: Producer,
        replies: ReplyReader,
        mirrors: Vec<MirrorReader>,
        map: DecodeMapReader,
        sleeper: Sleeper,
        io_bell: Doorbell,
        own_bell: Doorbell,
        status: WorkerStatus,
        profile: ProfileWriter,
        tracer: Tracer,
    ) -> Self {
        let epoch = status.run_epoch();
        let presses = status.power_presses();
        Self {
            vcpu,
            commands,
            replies,
            mirrors,
            map,
            map_version: 0,
            sleeper,
            io_bell,
            own_bell,
            status,
            profile,
            tracer,
            posted: Box::new([0; MAX_DEVICES]),
            epoch,
            heard: 0,
            presses,
        }
    }

    /// Whether the power button has been pressed since the last call.
    pub fn power_button_pressed(&mut self) -> bool {
        let presses = self.status.power_presses();
        std::mem::replace(&mut self.presses, presses) != presses
    }

    /// Whether the coordinator has changed the machine's state, wants this worker to end or to reset, or has something from
    /// the debugger.
    pub fn coordinator_wants(&self) -> bool {
        self.status.run_epoch() != self.epoch
            || self.status.stop_requested()
            || self.status.debugger_sent() != self.heard
    }

    /// Says that the state numbered `epoch` has been obeyed, and packet `sent` of the debugger been heard of.
    pub fn obey(&mut self, epoch: u32, sent: u32) {
        self.epoch = epoch;
        self.heard = sent;
        self.status.epoch_seen(epoch);
    }

    /// Makes the next [`Self::map_changed`] read the map whatever its version.
    pub fn forget_map(&mut self) {
        self.map_version = 0;
    }

    /// Rebuilds `tables` when io-worker has published another map.
    pub fn map_changed(&mut self, tables: &mut Tables) -> bool {
        if self.map.version() == self.map_version {
            return false;
        }
        match self.map.read() {
            Ok((version, map)) => {
                self.map_version = version;
                tables.replace(map);
                true
            }
            Err(error) => {
                // The writer died inside, or lies. The tables that were valid stand; its successor publishes anew.
                tracing::warn!(%error, "decode map refused");
                false
            }
        }
    }

    // ---- sending ----

    /// Puts a command into the ring, waiting for room, and gives its number. `None`: io-worker failed for good.
    fn send(&mut self, command: Command<'_>) -> Option<u64> {
        let mut buffer = [0; MAX_COMMAND];
        let len = command.encode(&mut buffer);
        let head = &buffer[..len];
        let body = match command {
            Command::StringOut { data, .. } => data,
            _ => &[],
        };
        loop {
            match self.commands.stage_two(head, body) {
                Ok(number) => {
                    self.commands.publish();
                    self.io_bell.nudge();
                    return Some(number);
                }
                Err(PushError::Full { .. }) => {
                    self.io_bell.nudge();
                    let need = head.len() + body.len();
                    let commands = &mut self.commands;
                    let before = self.profile.begin(Activity::Io.line());
                    let begun = self.tracer.begin();
                    let woken = self.sleeper.wait(HostTime::after(LOOK), || {
                        !matches!(commands.has_room(need), Ok(false))
                    });
                    self.tracer.end(Kind::RingFull, begun, 0);
                    self.profile.resume(before);
                    if !self.after_wait(woken) {
                        return None;
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "command ring is broken");
                    return None;
                }
            }
        }
    }

    /// What is to be done after a wait: whether to go on waiting.
    fn after_wait(&mut self, woken: Woken) -> bool {
        match woken {
            Woken::Ready => true,
            Woken::Rung => {
                // The ring was meant for the run loop too: it must find the word set.
                self.status_while_waiting()
            }
            Woken::Deadline => {
                self.io_bell.ring();
                self.status_while_waiting()
            }
        }
    }

    fn status_while_waiting(&mut self) -> bool {
        if self.status.peer(Role::Io) == PeerState::Failed || self.status.stop_requested() {
            return false;
        }
        // A vCPU inside an instruction executes nothing: a pause is obeyed by waiting.
        let epoch = self.status.run_epoch();
        if epoch != self.epoch && self.status.machine_state() != MachineState::Running {
            self.status.epoch_seen(epoch);
        }
        true
    }

    /// Sends a command and waits for its reply; the length of the data copied to `into`. `None`: no answer will
    /// come.
    fn ask(&mut self, command: Command<'_>, into: &mut [u8]) -> Option<usize> {
        let begun = self.tracer.begin();
        let number = self.send(command)?;
        let mut rung = false;
        let mut parked = false;
        let before = self.profile.begin(Activity::Io.line());
        let answer = loop {
            match self.replies.take(number, into) {
                Ok(Some((_, len))) => break Some(len),
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "reply not taken"),
            }
            let replies = &self.replies;
            let woken = self
                .sleeper
                .wait(HostTime::after(LOOK), || replies.is_ready(number));
            rung |= woken == Woken::Rung;
            if woken == Woken::Deadline && !parked {
                parked = true;
                self.status.set_state(WorkerState::Parked);
            }
            if !self.after_wait(woken) {
                break None;
            }
        };
        self.profile.resume(before);
        if self.tracer.is_on() {
            let (kind, value) = shown(&command);
            self.tracer.end(kind, begun, value);
        }
        if parked {
            self.status.set_state(WorkerState::Running);
        }
        if rung {
            self.look_again();
        }
        answer
    }

    /// Sets the vCPU's own exit word: a ring was consumed by a wait inside an instruction, or not all reasons were
    /// dealt with.
    pub fn look_again(&self) {
        self.own_bell.ring();
    }

    /// Waits until io-worker has carried out everything that was posted.
    pub fn drain(&mut self) {
        let mut rung = false;
        while let Ok(false) = self.commands.is_drained() {
            self.io_bell.nudge();
            let commands = &mut self.commands;
            let before = self.profile.begin(Activity::Io.line());
            let begun = self.tracer.begin();
            let woken = self.sleeper.wait(HostTime::after(LOOK), || {
                !matches!(commands.is_drained(), Ok(false))
            });
            self.tracer.end(Kind::Drain, begun, 0);
            self.profile.resume(before);
            rung |= woken == Woken::Rung;
            if !self.after_wait(woken) {
                break;
            }
        }
        if rung {
            self.look_again();
        }
    }

    // ---- accesses ----

    fn value(&mut self, command: Command<'_>, size: u8) -> u64 {
        let mut bytes = [0xFF; 8];
        let len = usize::from(size);
        match self.ask(command, &mut bytes[..len]) {
            Some(n) if n >= len => {}
            _ => bytes = [0xFF; 8],
        }
        u64::from_le_bytes(bytes) & mask(size)
    }

    /// A register from a mirror, when the claim has one and nothing posted to the device is on its way.
    fn mirrored(&self, claim: &Claim, at: u64, size: u8) -> Option<u32> {
        if !claim.attributes.contains(Attributes::MIRRORED) || size > 4 {
            return None;
        }
        let offset = usize::from(claim.mirror_offset) + (at - claim.start) as usize;
        let posted = self.posted[usize::from(claim.device)];
        self.mirrors
            .get(usize::from(claim.mirror))?
            .read(self.vcpu, posted, offset, usize::from(size))
    }

    /// Reads a port.
    pub fn port_read(&mut self, tables: &Tables, port: u16, size: u8) -> u32 {
        let Some(claim) = tables.port(port, size) else {
            return mask(size) as u32;
        };
        if claim.start <= u64::from(port)
            && let Some(v) = self.mirrored(claim, u64::from(port), size)
        {
            return v;
        }
        self.value(Command::PortRead { port, size }, size) as u32
    }

    /// Writes a port; answers whether wires and map are to be looked at before the next instruction.
    pub fn port_write(&mut self, tables: &Tables, port: u16, size: u8, value: u32) -> bool {
        let Some(claim) = tables.port(port, size) else {
            return false;
        };
        let (posted, device) = (claim.attributes.contains(Attributes::POSTED), claim.device);
        let flags = if posted {
            CommandFlags::POSTED
        } else {
            CommandFlags::REPLY
        };
        self.write(
            Command::PortWrite {
                flags,
                port,
                size,
                value: value & mask(size) as u32,
            },
            posted,
            device,
        )
    }

    fn write(&mut self, command: Command<'_>, posted: bool, device: u16) -> bool {
        if posted {
            if let Some(number) = self.send(command) {
                self.posted[usize::from(device)] = number;
            }
            return false;
        }
        self.ask(command, &mut []);
        true
    }

    /// Reads PCI configuration space through the latch at CF8h.
    pub fn pci_read(&mut self, address: u32, offset: u8, size: u8) -> u32 {
        self.value(
            Command::PciRead {
                address,
                offset,
                size,
            },
            size,
        ) as u32
    }

    /// Writes PCI configuration space through the latch at CF8h; wires and map are to be looked at afterwards.
    pub fn pci_write(&mut self, address: u32, offset: u8, size: u8, value: u32) {
        let value = value & mask(size) as u32;
        self.ask(
            Command::PciWrite {
                flags: CommandFlags::REPLY,
                address,
                offset,
                size,
                value,
            },
            &mut [],
        );
    }

    /// Reads device memory.
    pub fn mmio_read(&mut self, tables: &Tables, addr: GuestPhys, size: u8) -> u64 {
        let Some(claim) = tables.memory(addr, size) else {
            return mask(size);
        };
        if claim.start <= addr.0
            && let Some(v) = self.mirrored(claim, addr.0, size)
        {
            return u64::from(v);
        }
        self.value(Command::MmioRead { addr, size }, size)
    }

    /// Writes device memory; answers as [`Self::port_write`].
    pub fn mmio_write(&mut self, tables: &Tables, addr: GuestPhys, size: u8, value: u64) -> bool {
        let Some(claim) = tables.memory(addr, size) else {
            return false;
        };
        let has = |attribute| claim.attributes.contains(attribute);
        if has(Attributes::ROM) && !has(Attributes::AFFECTS_VIEW) {
            return false;
        }
        let (posted, device) = (has(Attributes::POSTED), claim.device);
        let flags = if posted {
            CommandFlags::POSTED
        } else {
            CommandFlags::REPLY
        };
        self.write(
            Command::MmioWrite {
                flags,
                addr,
                size,
                value: value & mask(size),
            },
            posted,
            device,
        )
    }

    /// Reads a run of elements from a port in one message; `false` when it cannot be one.
    pub fn string_in(&mut self, tables: &Tables, port: u16, size: u8, data: &mut [u8]) -> bool {
        if tables.port(port, size).is_none() {
            data.fill(0xFF);
            return true;
        }
        if data.len() > MAX_STRING {
            return false;
        }
        let count = (data.len() / usize::from(size)) as u16;
        let got = self
            .ask(Command::StringIn { port, size, count }, data)
            .unwrap_or(0);
        data[got..].fill(0xFF);
        true
    }

    /// Writes a run of elements to a port in one posted message; `false` when it cannot be one.
    pub fn string_out(&mut self, tables: &Tables, port: u16, size: u8, data: &[u8]) -> bool {
        let Some(claim) = tables.port(port, size) else {
            return true;
        };
        if !claim.attributes.contains(Attributes::POSTED) || data.len() > MAX_STRING {
            return false;
        }
        let device = claim.device;
        self.write(
            Command::StringOut {
                flags: CommandFlags::POSTED,
                port,
                size,
                data,
            },
            true,
            device,
        );
        true
    }
}

/// A command that is waited for, as it stands on a timeline.
fn shown(command: &Command<'_>) -> (Kind, u64) {
    match *command {
        Command::PortRead { port, .. } | Command::StringIn { port, .. } => (Kind::PortRead, port.into()),
        Command::PortWrite { port, .. } => (Kind::PortWrite, port.into()),
        Command::MmioRead { addr, .. } => (Kind::MmioRead, addr.0),
        Command::MmioWrite { addr, .. } => (Kind::MmioWrite, addr.0),
        _ => (Kind::OtherWait, 0),
    }
}

fn mask(size: u8) -> u64 {
    u64::MAX >> (64 - 8 * u32::from(size.clamp(1, 8)))
}
