//! The machine: all devices on their buses, as one thing that is accessed, advanced, saved and loaded.
//!
//! Pure: no rings, no processes, no clock. What binds it to those is [`crate::run`]. Its parts are numbered:
//! 0 is the board (interrupt lines and the request to the machine), 1 is PCI, then come the devices in the
//! order of their attachment, which is the same for the same configuration. A part is *touched* when a call
//! may have changed it; touched parts are what a commit writes.

use quintet_protocol::ram::GuestRam;
use quintet_protocol::time::VmTime;

use crate::block::Disks;
use crate::bus::hits::Hits;
use crate::bus::mmio::MovableBus;
use crate::bus::pio::Target;
use crate::bus::regmap::Attr;
use crate::bus::{
    Backplane, Device, Interrupts, LINES, Line, MachineRequest, PinTarget, PointerKind, RangeError,
    RegionKind, Requests, Size, StateError, StreamIn, StreamOut, Streams, Wire, load_state, save_state,
};
use crate::dma::Dma;
use crate::fw_cfg::{FW_CFG_DMA_PORT, FW_CFG_PORT, FwCfg};
use crate::input::I8042;
use crate::isa_dma::{self, IsaDma, IsaDmaPorts};
use crate::parts::Parts;
use crate::pci::{
    PIIX_IDE_SLOT, PIIX_PM_SLOT, PciBus, PciWindow, Shadow, WindowKind, WindowTarget, bdf, i440fx, piix3_ide,
    piix3_isa, piix4_pm, stdvga,
};
use crate::rom::Roms;
use crate::serial::{Uart, UartConfig};
use crate::sound::Playback;
use crate::sound::ac97::{AC97_SLOT, Ac97, ac97_function};
use crate::storage::floppy::{self, Floppy, FloppyDrive};
use crate::storage::ide::{self, DriveConfig, PiixIde};
use crate::storage::pflash::Pflash;
use crate::storage::virtio::{VirtioBlk, VirtioConfig, virtio_blk_function, virtio_slot};
use crate::testdev::{self, DebugExit, Debugcon, IrqSource, PcTestdev, TestMemory};

/// Number of the board among the parts.
pub const BOARD: usize = 0;
/// Number of PCI among the parts.
pub const PCI: usize = 1;
/// Number of the first device among the parts.
pub const FIRST_DEVICE: usize = 2;
/// Port of the VMware backdoor.
pub const BACKDOOR_PORT: u16 = 0x5658;
/// Ports of COM1 and COM2.
pub const COM_PORTS: [u16; 2] = [0x3F8, 0x2F8];
const COM_LINES: [u8; 2] = [4, 3];
const COM_NAMES: [&str; 2] = ["com1", "com2"];

/// What the machine has beyond what every one has.
#[derive(Debug)]
pub struct MachineConfig {
    /// Port of `isa-debug-exit`.
    pub exit_port: Option<u16>,
    /// Debug consoles: port and stream.
    pub debugcon: Vec<(u16, StreamOut)>,
    /// Whether `pc-testdev` is there.
    pub testdev: bool,
    /// Whether there is an AC'97 sound card.
    pub ac97: bool,
    /// Size of the linear frame buffer in bytes: a power of two, at least 1 MiB.
    pub vram: u32,
    /// Streams of COM1 and COM2.
    pub com: [(StreamOut, StreamIn); 2],
    /// The firmware configuration store.
    pub fw_cfg: FwCfg,
    /// Firmware and the VGA's BIOS.
    pub roms: Roms,
    /// Disk images.
    pub disks: Disks,
    /// The floppy drive.
    pub floppy: FloppyDrive,
    /// Flash chips and where each begins, the highest first.
    pub flash: Vec<(Pflash, u64)>,
    /// IDE drives on them: primary master and slave, secondary master and slave.
    pub drives: [Option<DriveConfig>; 4],
    /// Virtio block devices on them, at most [`crate::storage::virtio::UNITS`].
    pub virtio: Vec<VirtioConfig>,
}

/// A configuration in which two devices want the same addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Device {device} cannot be placed: {why}")]
pub struct BuildError {
    /// Name of the device.
    pub device: &'static str,
    /// What is in the way.
    pub why: RangeError,
}

/// What an access needs of the world.
pub struct Env<'a> {
    /// VM time.
    pub now: VmTime,
    /// Byte streams and keyboard.
    pub streams: &'a mut dyn Streams,
}

impl std::fmt::Debug for Env<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Env")
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

/// A range of the decode map that a device of this process answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Ports or memory.
    pub kind: RegionKind,
    /// First port or address.
    pub start: u64,
    /// Length.
    pub len: u64,
    /// Part that answers, and its region.
    pub part: usize,
    /// Index into the part's regions.
    pub region: u8,
    /// Offset of `start` in the region.
    pub offset: u64,
    /// Attributes of the registers there.
    pub attr: Attr,
    /// Where in the ROM window reads of the range begin, if they come from there.
    pub rom: Option<u32>,
}

/// The machine.
pub struct Machine {
    devices: Vec<Box<dyn Device>>,
    touched: Parts,
    ports: MovableBus,
    memory: MovableBus,
    pci: PciBus,
    pci_seen: u64,
    /// Devices that may not be bus masters now, by number: derived from PCI.
    idle_masters: Vec<u16>,
    irq: Interrupts,
    requests: Requests,
    dma: Dma,
    isa_dma: IsaDma,
    disks: Disks,
    playback: Playback,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.devices.iter().map(|d| d.name()).collect();
        f.debug_struct("Machine")
            .field("devices", &names)
            .field("irq", &self.irq)
            .finish_non_exhaustive()
    }
}

const BOARD_VERSION: u16 = 2;

impl Machine {
    /// A machine after power-on.
    ///
    /// # Errors
    /// [`BuildError`] when the configuration puts two devices in one place.
    pub fn new(config: MachineConfig, ram: GuestRam) -> Result<Self, BuildError> {
        let mut pci = PciBus::new();
        pci.add(bdf(0, 0), i440fx());
        pci.add(bdf(1, 0), piix3_isa());
        pci.add(PIIX_PM_SLOT, piix4_pm());
        pci.add(bdf(2, 0), stdvga(config.vram, config.roms.vga_len()));
        let mut this = Self {
            devices: Vec::new(),
            touched: Parts::first(FIRST_DEVICE),
            ports: MovableBus::ports(),
            memory: MovableBus::memory(),
            pci,
            pci_seen: 0,
            idle_masters: Vec::new(),
            irq: Interrupts::default(),
            requests: Requests::default(),
            dma: Dma::new(ram),
            isa_dma: IsaDma::default(),
            disks: config.disks,
            playback: Playback::default(),
        };
        this.dma.set_roms(config.roms);
        for (i, (out, input)) in config.com.into_iter().enumerate() {
            let pin = this.irq.pin(PinTarget::Line(Line(COM_LINES[i])));
            let uart = Uart::new(UartConfig {
                name: COM_NAMES[i],
                pin,
                out,
                input,
            });
            this.attach(uart, &[u64::from(COM_PORTS[i])])?;
        }
        let i8042 = I8042::new(&mut this.irq);
        this.attach(i8042, &[0x60, 0x64, u64::from(BACKDOOR_PORT)])?;
        this.attach(config.fw_cfg, &[FW_CFG_PORT, FW_CFG_DMA_PORT])?;
        this.pci.add(PIIX_IDE_SLOT, piix3_ide(this.devices.len() as u16));
        let ide = PiixIde::new(&mut this.irq, config.drives);
        this.attach(ide, &ide::PORTS)?;
        this.attach(IsaDmaPorts, &isa_dma::PORTS)?;
        let floppy = Floppy::new(&mut this.irq, config.floppy);
        this.attach(floppy, &floppy::PORTS)?;
        for (chip, start) in config.flash {
            this.attach(chip, &[start])?;
        }
        if config.ac97 {
            this.pci.add(AC97_SLOT, ac97_function(this.devices.len() as u16));
            let card = Ac97::new(&mut this.irq);
            this.attach(card, &[])?;
        }
        for (unit, disk) in (0..).zip(&config.virtio) {
            this.pci
                .add(virtio_slot(unit), virtio_blk_function(this.devices.len() as u16));
            let device = VirtioBlk::new(&mut this.irq, unit, disk);
            this.attach(device, &[])?;
        }
        if config.testdev {
            let testdev = PcTestdev::new(&mut this.irq);
            this.attach(testdev, &[testdev::SCRATCH_PORT, testdev::IRQ_PORT])?;
            for n in 0..testdev::BANKS {
                this.attach(TestMemory::new(n), &[testdev::MEMORY + n as u64 * testdev::BANK])?;
            }
            let source = IrqSource::new(&mut this.irq);
            this.attach(source, &[testdev::SOURCE_PORT])?;
        }
        if let Some(port) = config.exit_port {
            this.attach(DebugExit, &[u64::from(port)])?;
        }
        const NAMES: [&str; 4] = ["debugcon0", "debugcon1", "debugcon2", "debugcon3"];
        for (i, (port, out)) in config.debugcon.into_iter().enumerate() {
            this.attach(
                Debugcon::new(NAMES.get(i).copied().unwrap_or("debugcon"), out),
                &[u64::from(port)],
            )?;
        }
        this.follow_pci();
        Ok(this)
    }

    /// Puts a device on the buses, its regions at `places` in their order. What regions it has beyond those are shown by
    /// a PCI function.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn attach(&mut self, device: impl Device + 'static, places: &[u64]) -> Result<(), BuildError> {
        let regions = device.regions();
        assert!(
            regions.len() >= places.len(),
            "{} has other regions",
            device.name()
        );
        for (i, (region, &start)) in regions.iter().zip(places).enumerate() {
            let bus = match region.kind {
                RegionKind::Port => &mut self.ports,
                RegionKind::Memory => &mut self.memory,
            };
            let target = Target {
                device: self.devices.len() as u16,
                region: i as u8,
            };
            bus.claim(start, region.len, target).map_err(|why| BuildError {
                device: device.name(),
                why,
            })?;
        }
        self.devices.push(Box::new(device));
        self.touched = Parts::first(self.part_count());
        Ok(())
    }

    /// PCI, for firmware. Call [`Self::follow_pci`] afterwards.
    pub fn pci_mut(&mut self) -> &mut PciBus {
        self.touched.add(PCI);
        &mut self.pci
    }

    /// PCI.
    pub fn pci(&self) -> &PciBus {
        &self.pci
    }

    /// Guest memory.
    pub fn dma(&mut self) -> &mut Dma {
        &mut self.dma
    }

    /// Disk images.
    pub fn disks(&mut self) -> &mut Disks {
        &mut self.disks
    }

    /// Has the disks begin what was asked of them: after the commit that records it. Answers whether some of it is done already; guest
    /// memory may have been written then.
    pub fn submit_disks(&mut self) -> bool {
        self.disks.submit(&mut self.dma)
    }

    /// What is to be heard.
    pub fn playback(&mut self) -> &mut Playback {
        &mut self.playback
    }

    /// Takes up what the PCI registers say now. Returns whether anything had changed.
    pub fn follow_pci(&mut self) -> bool {
        if self.pci.version() == self.pci_seen {
            return false;
        }
        self.pci_seen = self.pci.version();
        self.dma.set_pam(self.pci.shadow().pam);
        for (pirq, line) in (0..).zip(self.pci.routing()) {
            self.irq.route(pirq, line);
        }
        self.idle_masters = self.pci.idle_masters().collect();
        let windows = self.pci.windows();
        let of = |kind: WindowKind| {
            windows.iter().filter_map(move |w| match w.target {
                WindowTarget::Device { device, region } if w.kind == kind => {
                    Some((w.start, w.len, Target { device, region }))
                }
                _ => None,
            })
        };
        self.ports.set_windows(of(WindowKind::Port));
        self.memory.set_windows(of(WindowKind::Memory));
        true
    }

    /// Whether what [`Self::claims`] and its kin answer may differ from when this value was another.
    pub fn decode_version(&self) -> u64 {
        // A device shows its ROM or does not.
        let shown = self
            .devices
            .iter()
            .fold(0, |all, d| all << 1 | u64::from(d.rom().is_some()));
        self.pci.version() << 32 | shown
    }

    /// Ranges that devices of this process answer, fixed ones first, one per run of registers.
    pub fn claims(&self) -> Vec<Claim> {
        let mut claims = Vec::new();
        for (kind, bus) in [
            (RegionKind::Port, &self.ports),
            (RegionKind::Memory, &self.memory),
        ] {
            for (start, len, target) in bus.iter() {
                let Some(device) = self.devices.get(usize::from(target.device)) else {
                    continue;
                };
                let part = FIRST_DEVICE + usize::from(target.device);
                let regions = device.regions();
                let Some(region) = regions.get(usize::from(target.region)) else {
                    continue;
                };
                let rom = device.rom().filter(|_| target.region == 0);
                let mut at = 0;
                let mut push = |from: u64, to: u64, attr| {
                    if from < to {
                        claims.push(Claim {
                            kind,
                            start: start + from,
                            len: to - from,
                            part,
                            region: target.region,
                            offset: from,
                            attr,
                            rom: rom.map(|rom| rom + from as u32),
                        });
                    }
                };
                for &(offset, run, attr) in &region.runs {
                    push(at, offset.min(len), Attr::empty());
                    push(offset.min(len), (offset + run).min(len), attr);
                    at = (offset + run).min(len);
                }
                push(at, len, Attr::empty());
            }
        }
        claims
    }

    /// Windows that somebody beside the vCPU answers.
    pub fn foreign_windows(&self) -> Vec<PciWindow> {
        let foreign = |w: &PciWindow| !matches!(w.target, WindowTarget::Device { .. });
        self.pci.windows().into_iter().filter(foreign).collect()
    }

    /// What lies below 1 MiB.
    pub fn shadow(&self) -> Shadow {
        self.pci.shadow()
    }

    /// Firmware and the VGA's BIOS.
    pub fn roms(&self) -> &Roms {
        self.dma.roms()
    }

    /// The A20 gate as the keyboard controller drives it.
    pub fn a20(&self) -> bool {
        self.devices.iter().filter_map(|d| d.a20()).all(|open| open)
    }

    /// Lamps of the keyboard: bit 0 scroll, 1 num, 2 caps.
    pub fn keyboard_leds(&self) -> u8 {
        self.devices.iter().find_map(|d| d.leds()).unwrap_or(0)
    }

    /// What the guest's pointer wants to be told, if there is one.
    pub fn pointer(&self) -> Option<PointerKind> {
        self.devices.iter().find_map(|d| d.pointer())
    }

    /// All interrupt lines.
    pub fn wires(&self) -> &[Wire; LINES] {
        self.irq.wires()
    }

    /// What a device asked of the machine, until [`Self::request_done`].
    pub fn request(&self) -> Option<MachineRequest> {
        self.requests.pending()
    }

    /// The request has been passed on and the outcome needs no repetition.
    pub fn request_done(&mut self) {
        self.requests.take();
        self.touched.add(BOARD);
    }

    fn with<R>(
        &mut self,
        part: usize,
        env: &mut Env<'_>,
        f: impl FnOnce(&mut dyn Device, &mut Backplane<'_>) -> R,
    ) -> R {
        let device = part.checked_sub(FIRST_DEVICE);
        let mut bp = Backplane {
            now: env.now,
            irq: &mut self.irq,
            streams: env.streams,
            dma: &mut self.dma,
            may_master: !device.is_some_and(|n| self.idle_masters.contains(&(n as u16))),
            disks: &mut self.disks,
            isa_dma: &mut self.isa_dma,
            playback: &mut self.playback,
            requests: &mut self.requests,
        };
        match part {
            PCI => f(&mut self.pci, &mut bp),
            _ => f(&mut *self.devices[part - FIRST_DEVICE], &mut bp),
        }
    }

    fn parts(&self) -> std::ops::Range<usize> {
        PCI..FIRST_DEVICE + self.devices.len()
    }

    fn hits(bus: &MovableBus, address: u64, size: Size) -> Hits {
        let mut hits = Hits::default();
        bus.split(address, size, |target, access, shift| {
            hits.push(target, access, shift);
        });
        hits
    }

    fn read(&mut self, env: &mut Env<'_>, hits: &Hits, size: Size) -> Option<u64> {
        let mut value = size.ones();
        for &(target, access, shift) in hits.iter() {
            let part = FIRST_DEVICE + usize::from(target.device);
            self.touched.add(part);
            let got = self.with(part, env, |d, bp| d.read(bp, access)) & access.size.ones();
            value = value & !(access.size.ones() << shift) | got << shift;
        }
        (!hits.is_empty()).then_some(value)
    }

    fn write(&mut self, env: &mut Env<'_>, hits: &Hits, value: u64) -> bool {
        for &(target, access, shift) in hits.iter() {
            let part = FIRST_DEVICE + usize::from(target.device);
            self.touched.add(part);
            self.with(part, env, |d, bp| {
                d.write(bp, access, value >> shift & access.size.ones());
            });
        }
        !hits.is_empty()
    }

    /// Reads a port; `None` when nobody answers.
    pub fn port_read(&mut self, env: &mut Env<'_>, port: u16, size: Size) -> Option<u64> {
        let hits = Self::hits(&self.ports, u64::from(port), size);
        self.read(env, &hits, size)
    }

    /// Writes a port; `false` when nobody answers.
    pub fn port_write(&mut self, env: &mut Env<'_>, port: u16, size: Size, value: u64) -> bool {
        let hits = Self::hits(&self.ports, u64::from(port), size);
        self.write(env, &hits, value)
    }

    /// Reads device memory; `None` when nobody answers.
    pub fn memory_read(&mut self, env: &mut Env<'_>, address: u64, size: Size) -> Option<u64> {
        let hits = Self::hits(&self.memory, address, size);
        self.read(env, &hits, size)
    }

    /// Writes device memory; `false` when nobody answers.
    pub fn memory_write(&mut self, env: &mut Env<'_>, address: u64, size: Size, value: u64) -> bool {
        let hits = Self::hits(&self.memory, address, size);
        self.write(env, &hits, value)
    }

    /// Reads PCI configuration space at CFCh + `offset` under the latch `cf8`.
    pub fn pci_read(&mut self, env: &mut Env<'_>, cf8: u32, offset: u8, size: Size) -> u32 {
        if let Some((device, access)) = self.pci.window(cf8, offset, size) {
            let part = FIRST_DEVICE + usize::from(device);
            let value = self.with(part, env, |d, bp| d.read(bp, access));
            self.pci.fill_window(cf8, value as u32);
            self.touched.add(part);
            self.touched.add(PCI);
        }
        self.pci.config_read(cf8, offset, size)
    }

    /// Writes PCI configuration space; what follows from it is in force at return.
    pub fn pci_write(&mut self, env: &mut Env<'_>, cf8: u32, offset: u8, size: Size, value: u32) {
        self.touched.add(PCI);
        self.pci.config_write(cf8, offset, size, value);
        if let Some((device, access)) = self.pci.window(cf8, offset, size) {
            let part = FIRST_DEVICE + usize::from(device);
            let value = u64::from(self.pci.window_data(cf8)) & access.size.ones();
            self.with(part, env, |d, bp| d.write(bp, access, value));
            self.touched.add(part);
        }
        self.follow_pci();
    }

    /// When [`Self::advance`] is next due.
    pub fn next_deadline(&self) -> Option<VmTime> {
        self.devices.iter().filter_map(|d| d.next_deadline()).min()
    }

    /// Lets every device take up what has happened.
    pub fn advance(&mut self, env: &mut Env<'_>) {
        for part in self.parts() {
            if self.with(part, env, |d, bp| d.advance(bp)) {
                self.touched.add(part);
            }
        }
    }

    /// After a commit of `parts` and before its publication; answers whether anything changed, and so must be
    /// committed too.
    pub fn completed(&mut self, parts: Parts, env: &mut Env<'_>) -> bool {
        let mut any = false;
        for part in parts.iter().filter(|part| *part >= PCI) {
            if self.with(part, env, |d, bp| d.completed(bp)) {
                self.touched.add(part);
                any = true;
            }
        }
        any
    }

    /// Once before the guest runs in this process's life.
    pub fn start(&mut self, env: &mut Env<'_>) {
        for part in self.parts() {
            self.with(part, env, |d, bp| d.start(bp));
        }
    }

    /// VM time is about to stand still.
    pub fn pause(&mut self) {
        self.devices.iter_mut().for_each(|d| d.pause());
    }

    /// VM time goes on.
    pub fn resume(&mut self) {
        self.devices.iter_mut().for_each(|d| d.resume());
    }

    /// The reset line.
    pub fn reset(&mut self, env: &mut Env<'_>) {
        for part in self.parts() {
            self.with(part, env, |d, bp| d.reset(bp));
        }
        self.requests.take();
        self.touched = Parts::first(self.part_count());
        self.follow_pci();
    }

    /// Puts the devices into the state in which firmware leaves them.
    pub fn as_firmware_leaves_it(&mut self) {
        self.devices.iter_mut().for_each(|d| d.as_firmware_leaves_it());
        self.touched = Parts::first(self.part_count());
        self.follow_pci();
    }

    /// Number of parts.
    pub fn part_count(&self) -> usize {
        FIRST_DEVICE + self.devices.len()
    }

    /// Name of a part.
    pub fn part_name(&self, part: usize) -> &'static str {
        match part {
            BOARD => "board",
            PCI => self.pci.name(),
            _ => self.devices[part - FIRST_DEVICE].name(),
        }
    }

    /// Parts touched since the last call.
    pub fn take_touched(&mut self) -> Parts {
        // All three, each of which forgets.
        let changed = [
            self.irq.take_dirty(),
            self.requests.take_dirty(),
            self.isa_dma.take_dirty(),
        ];
        if changed.contains(&true) {
            self.touched.add(BOARD);
        }
        std::mem::take(&mut self.touched)
    }

    /// Version of what [`Self::save_part`] writes.
    pub fn part_version(&self, part: usize) -> u16 {
        match part {
            BOARD => BOARD_VERSION,
            PCI => self.pci.state_version(),
            _ => self.devices[part - FIRST_DEVICE].state_version(),
        }
    }

    /// Appends the state of a part.
    pub fn save_part(&self, part: usize, out: &mut Vec<u8>) {
        match part {
            BOARD => {
                let mut irq = Vec::new();
                self.irq.save(&mut irq);
                let mut isa_dma = Vec::new();
                self.isa_dma.save(&mut isa_dma);
                let board = (self.irq.state_version(), irq, self.requests.pending(), isa_dma);
                save_state(&board, out);
            }
            PCI => self.pci.save(out),
            _ => self.devices[part - FIRST_DEVICE].save(out),
        }
    }

    /// Takes up the state of a part.
    ///
    /// # Errors
    /// [`StateError`]; the part is unchanged then.
    pub fn load_part(&mut self, part: usize, version: u16, bytes: &[u8]) -> Result<(), StateError> {
        match part {
            BOARD => {
                type Board = (u16, Vec<u8>, Option<MachineRequest>, Vec<u8>);
                let (irq_version, irq, request, isa_dma): Board =
                    load_state("board", BOARD_VERSION, version, bytes)?;
                self.irq.load(irq_version, &irq)?;
                self.isa_dma.load(&isa_dma)?;
                self.requests = Requests::default();
                if let Some(request) = request {
                    self.requests.ask(request);
                }
            }
            PCI => {
                self.pci.load(version, bytes)?;
                self.follow_pci();
            }
            _ => self.devices[part - FIRST_DEVICE].load(version, bytes)?,
        }
        Ok(())
    }

    /// Mirror of a region as [`Device::mirror`] gives it.
    pub fn mirror(&self, part: usize, region: u8, into: &mut [u8; 16]) -> u16 {
        self.devices[part - FIRST_DEVICE].mirror(region, into)
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
