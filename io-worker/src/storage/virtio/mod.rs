//! A virtio block device on PCI (virtio 1.2, 5.2 and 4.1), the fast path to a disk: one queue, one interrupt.
//!
//! The queue is `queue`, requests are `request`, the function with its capabilities is `function`.
//!
//! # Exactly once
//! A chain that was taken from the available ring stays in the committed state until its end does (`Queue::taken`):
//! a successor walks it again and asks again, in the same order. The image's thread keeps the order of asking, so that
//! what a successor repeats is always the newest end of what was asked, and a write is never repeated over a later one
//! whose end the driver has seen. Used buffers are shown in [`Device::completed`], after the commit. The driver must
//! leave chains and data alone until then (2.7.13).

mod function;
mod queue;
mod request;

pub use function::{UNITS, WINDOW_DATA, virtio_blk_function, virtio_slot, window};

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::block::{Data, DiskId, Done, SECTOR, Ticket};
use crate::bus::regmap::{Attr, RegMap, Register, Registers, reg};
use crate::bus::{
    Access, Backplane, Device, Interrupts, Pin, PinTarget, Region, RegionKind, StateError, load_state,
    save_state,
};
use crate::pci::pirq_of;
use queue::{Broken, QUEUE_SIZE_MAX, Queue};
use request::{ID_BYTES, Plan, RANGE_SECTORS_MAX, Request, SEG_MAX, SIZE_MAX, Terms, status as ending};

/// Names of the devices, by number.
const NAMES: [&str; UNITS as usize] = [
    "virtio-blk0",
    "virtio-blk1",
    "virtio-blk2",
    "virtio-blk3",
    "virtio-blk4",
    "virtio-blk5",
    "virtio-blk6",
    "virtio-blk7",
];
/// Bytes of the configuration (5.2.4).
const CONFIG_BYTES: usize = 60;
/// Bytes under way after which no further request is taken.
const BYTES_MAX: u64 = 8 << 20;
/// No MSI-X vector.
const NO_VECTOR: u64 = 0xFFFF;

/// Bits of the device status (2.1).
mod status {
    pub(super) const DRIVER_OK: u8 = 4;
    pub(super) const FEATURES_OK: u8 = 8;
    pub(super) const NEEDS_RESET: u8 = 64;
    /// ACKNOWLEDGE, DRIVER, FAILED: noted.
    pub(super) const NOTED: u8 = 1 | 2 | 128;
}
/// Bits of the interrupt status (4.1.4.5).
mod isr {
    pub(super) const QUEUE: u8 = 1;
    pub(super) const CONFIG: u8 = 2;
}
/// Features (5.2.3, 6).
mod feature {
    pub(super) const SIZE_MAX: u64 = 1 << 1;
    pub(super) const SEG_MAX: u64 = 1 << 2;
    pub(super) const RO: u64 = 1 << 5;
    pub(super) const BLK_SIZE: u64 = 1 << 6;
    pub(super) const FLUSH: u64 = 1 << 9;
    pub(super) const CONFIG_WCE: u64 = 1 << 11;
    pub(super) const DISCARD: u64 = 1 << 13;
    pub(super) const WRITE_ZEROES: u64 = 1 << 14;
    pub(super) const INDIRECT_DESC: u64 = 1 << 28;
    pub(super) const EVENT_IDX: u64 = 1 << 29;
    pub(super) const VERSION_1: u64 = 1 << 32;
}

/// A device to be attached.
#[derive(Clone, Debug)]
pub struct VirtioConfig {
    /// What holds its sectors.
    pub disk: DiskId,
    /// Bytes of that.
    pub len: u64,
    /// Writes are refused.
    pub read_only: bool,
    /// Serial number, up to 20 characters of ASCII.
    pub serial: String,
}

#[derive(Clone, Copy, Debug)]
enum Reg {
    DeviceFeatureSelect,
    DeviceFeature,
    DriverFeatureSelect,
    DriverFeature,
    NoVector,
    NumQueues,
    Status,
    Generation,
    QueueSelect,
    QueueSize,
    QueueEnable,
    QueueNotifyOff,
    QueueDesc,
    QueueDriver,
    QueueDevice,
    Isr,
    /// A doubleword of the configuration.
    Config(usize),
    Notify,
}

/// Number of the doubleword with `writeback`.
const CONFIG_WRITEBACK: usize = 32 / 4;

const fn registers() -> [Register<Reg>; 33] {
    let none = Attr::empty();
    let mut all = [reg(0, 4, Reg::DeviceFeatureSelect, none); 33];
    // Common configuration (4.1.4.3).
    let common = [
        reg(0x04, 4, Reg::DeviceFeature, none),
        reg(0x08, 4, Reg::DriverFeatureSelect, none),
        reg(0x0C, 4, Reg::DriverFeature, none),
        reg(0x10, 2, Reg::NoVector, none),
        reg(0x12, 2, Reg::NumQueues, none),
        reg(0x14, 1, Reg::Status, none),
        reg(0x15, 1, Reg::Generation, none),
        reg(0x16, 2, Reg::QueueSelect, none),
        reg(0x18, 2, Reg::QueueSize, none),
        reg(0x1A, 2, Reg::NoVector, none),
        reg(0x1C, 2, Reg::QueueEnable, none),
        reg(0x1E, 2, Reg::QueueNotifyOff, none),
        reg(0x20, 8, Reg::QueueDesc, none),
        reg(0x28, 8, Reg::QueueDriver, none),
        reg(0x30, 8, Reg::QueueDevice, none),
        reg(function::ISR as u64, 1, Reg::Isr, none),
    ];
    let mut n = 0;
    while n < common.len() {
        all[1 + n] = common[n];
        n += 1;
    }
    let mut word = 0;
    while word < CONFIG_BYTES / 4 {
        let at = function::DEVICE as u64 + 4 * word as u64;
        all[1 + n + word] = reg(at, 4, Reg::Config(word), none);
        word += 1;
    }
    all[32] = reg(function::NOTIFY as u64, 2, Reg::Notify, none);
    all
}

const MAP: RegMap<Reg> = RegMap::new(function::BAR_LEN as u64, const { &registers() });

/// What is committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    device_feature_select: u32,
    driver_feature_select: u32,
    /// Features that the driver has accepted.
    features: u64,
    status: u8,
    isr: u8,
    queue_select: u16,
    /// The configuration's byte: writes end before they last.
    writeback: bool,
    queue: Queue,
}

impl State {
    fn new() -> Self {
        Self {
            device_feature_select: 0,
            driver_feature_select: 0,
            features: 0,
            status: 0,
            isr: 0,
            queue_select: 0,
            writeback: true,
            queue: Queue::new(),
        }
    }
}

/// A request that the image works on.
#[derive(Debug)]
struct Flight {
    head: u16,
    ticket: Ticket,
    request: Request,
}

/// The device.
#[derive(Debug)]
pub struct VirtioBlk {
    name: &'static str,
    pin: Pin,
    disk: DiskId,
    /// Of the image; what depends on features is filled in for each request.
    terms: Terms,
    s: State,
    /// In the order of asking, which is that of their ends.
    flights: VecDeque<Flight>,
    /// Bytes that they move.
    bytes: u64,
    /// There may be something in the available ring.
    look: bool,
    /// What the committed state has under way was not asked for in this life yet.
    resumes: bool,
}

impl VirtioBlk {
    /// Device number `unit`, below [`UNITS`], after power-on.
    pub fn new(irq: &mut Interrupts, unit: u8, config: &VirtioConfig) -> Self {
        let mut id = [0; ID_BYTES];
        for (to, from) in id.iter_mut().zip(config.serial.bytes()) {
            *to = from;
        }
        Self {
            name: NAMES[usize::from(unit)],
            pin: irq.pin(PinTarget::Pirq(pirq_of(virtio_slot(unit).device, 1))),
            disk: config.disk,
            terms: Terms {
                len: config.len / SECTOR * SECTOR,
                read_only: config.read_only,
                durable: false,
                discard: false,
                write_zeroes: false,
                id,
            },
            s: State::new(),
            flights: VecDeque::new(),
            bytes: 0,
            look: false,
            resumes: false,
        }
    }

    fn offered(&self) -> u64 {
        let always = feature::SIZE_MAX
            | feature::SEG_MAX
            | feature::BLK_SIZE
            | feature::FLUSH
            | feature::CONFIG_WCE
            | feature::INDIRECT_DESC
            | feature::EVENT_IDX
            | feature::VERSION_1;
        always
            | match self.terms.read_only {
                true => feature::RO,
                false => feature::DISCARD | feature::WRITE_ZEROES,
            }
    }

    fn has(&self, feature: u64) -> bool {
        self.s.features & feature != 0
    }

    /// Whether writes may end before they last (5.2.6.2): as the driver says, if it can; else only if it can flush.
    fn writes_back(&self) -> bool {
        match self.has(feature::CONFIG_WCE) {
            true => self.s.writeback,
            false => self.has(feature::FLUSH),
        }
    }

    fn terms(&self) -> Terms {
        Terms {
            durable: !self.writes_back(),
            discard: self.has(feature::DISCARD),
            write_zeroes: self.has(feature::WRITE_ZEROES),
            ..self.terms.clone()
        }
    }

    /// Whether the driver has set the device going, and nothing has broken since.
    fn is_live(&self) -> bool {
        self.s.status & (status::DRIVER_OK | status::NEEDS_RESET) == status::DRIVER_OK && self.s.queue.enabled
    }

    fn config(&self) -> [u8; CONFIG_BYTES] {
        let mut config = [0; CONFIG_BYTES];
        let mut put = |at: usize, bytes: &[u8]| config[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &(self.terms.len / SECTOR).to_le_bytes());
        put(8, &SIZE_MAX.to_le_bytes());
        put(12, &SEG_MAX.to_le_bytes());
        put(20, &(SECTOR as u32).to_le_bytes());
        put(32, &[u8::from(self.s.writeback)]);
        put(34, &1_u16.to_le_bytes());
        // Most sectors and ranges of a request, and alignment in sectors; the same without alignment; may be unmapped.
        put(36, &RANGE_SECTORS_MAX.to_le_bytes());
        put(40, &1_u32.to_le_bytes());
        put(44, &8_u32.to_le_bytes());
        put(48, &RANGE_SECTORS_MAX.to_le_bytes());
        put(52, &1_u32.to_le_bytes());
        put(56, &[1]);
        config
    }

    fn peek(&self, reg: Reg) -> u64 {
        let half = |features: u64, select: u32| match select {
            0 => features & 0xFFFF_FFFF,
            1 => features >> 32,
            _ => 0,
        };
        let queue = match self.s.queue_select {
            0 => Some(&self.s.queue),
            _ => None,
        };
        let of = |f: fn(&Queue) -> u64| queue.map_or(0, f);
        match reg {
            Reg::DeviceFeatureSelect => u64::from(self.s.device_feature_select),
            Reg::DeviceFeature => half(self.offered(), self.s.device_feature_select),
            Reg::DriverFeatureSelect => u64::from(self.s.driver_feature_select),
            Reg::DriverFeature => half(self.s.features, self.s.driver_feature_select),
            Reg::NoVector => NO_VECTOR,
            Reg::NumQueues => 1,
            Reg::Status => u64::from(self.s.status),
            Reg::Generation | Reg::QueueNotifyOff | Reg::Notify => 0,
            Reg::QueueSelect => u64::from(self.s.queue_select),
            Reg::QueueSize => of(|q| u64::from(q.size)),
            Reg::QueueEnable => of(|q| u64::from(q.enabled)),
            Reg::QueueDesc => of(|q| q.desc),
            Reg::QueueDriver => of(|q| q.driver),
            Reg::QueueDevice => of(|q| q.device),
            Reg::Isr => u64::from(self.s.isr),
            Reg::Config(n) => {
                let config = self.config();
                let bytes = [
                    config[4 * n],
                    config[4 * n + 1],
                    config[4 * n + 2],
                    config[4 * n + 3],
                ];
                u64::from(u32::from_le_bytes(bytes))
            }
        }
    }

    fn write_features(&mut self, value: u32) {
        if self.s.status & status::FEATURES_OK != 0 {
            return;
        }
        let shift = match self.s.driver_feature_select {
            0 => 0,
            1 => 32,
            _ => return,
        };
        self.s.features = self.s.features & !(0xFFFF_FFFF << shift) | u64::from(value) << shift;
    }

    fn write_status(&mut self, bp: &mut Backplane<'_>, value: u8) {
        if value == 0 {
            return self.reset_device(bp);
        }
        let mut set = value & (status::NOTED | status::DRIVER_OK);
        // Only features that were offered, and never those of the legacy interface (2.2, 6.2).
        let accepted = self.s.features & !self.offered() == 0 && self.has(feature::VERSION_1);
        if value & status::FEATURES_OK != 0 && accepted {
            set |= status::FEATURES_OK;
        }
        self.s.status |= set;
        if self.s.status & status::FEATURES_OK == 0 {
            self.s.status &= !status::DRIVER_OK;
        }
        self.look = true;
    }

    /// The driver's reset, and the machine's.
    fn reset_device(&mut self, bp: &mut Backplane<'_>) {
        self.s = State::new();
        self.abandon(bp);
    }

    /// Drops what is under way. What the image's thread does of it still gets done, before anything that is asked later; what it has
    /// not been given is taken back, because the buffers are the driver's from now on.
    fn abandon(&mut self, bp: &mut Backplane<'_>) {
        bp.disks.withdraw(self.disk);
        self.forget();
    }

    /// Forgets what is under way in this life.
    fn forget(&mut self) {
        self.flights.clear();
        self.bytes = 0;
        self.look = false;
        self.resumes = false;
    }

    /// Changes the queue that is selected, which can be done until it is enabled.
    fn set_up(&mut self, change: impl FnOnce(&mut Queue)) {
        if self.s.queue_select == 0 && !self.s.queue.enabled {
            change(&mut self.s.queue);
        }
    }

    fn settle(&self, bp: &mut Backplane<'_>) {
        bp.irq.set(self.pin, self.s.isr != 0);
    }

    /// The driver has broken the queue's rules: nothing goes on until it resets the device (2.1.2).
    fn give_up(&mut self, bp: &mut Backplane<'_>, why: Broken) {
        tracing::warn!(device = self.name, %why, "the driver's mistake; the device needs a reset");
        self.s.status |= status::NEEDS_RESET;
        self.s.isr |= isr::CONFIG;
        self.s.queue.taken.clear();
        self.s.queue.finished.clear();
        self.abandon(bp);
    }

    /// Runs `f`, and gives up when it finds the queue broken. Answers what it did, else that something changed.
    fn try_to<'b>(
        &mut self,
        bp: &mut Backplane<'b>,
        f: impl FnOnce(&mut Self, &mut Backplane<'b>) -> Result<bool, Broken>,
    ) -> bool {
        f(self, bp).unwrap_or_else(|why| {
            self.give_up(bp, why);
            true
        })
    }

    /// Takes and begins what the driver has made available. Answers whether there was anything.
    fn serve(&mut self, bp: &mut Backplane<'_>) -> Result<bool, Broken> {
        let mut any = false;
        if !self.look || !self.is_live() || !bp.may_master {
            return Ok(false);
        }
        loop {
            let most = usize::from(self.s.queue.size);
            let queue = &mut self.s.queue;
            if self.bytes >= BYTES_MAX || queue.taken.len() + queue.finished.len() >= most {
                // Goes on when some of it has ended.
                return Ok(any);
            }
            match queue.take(bp.dma)? {
                Some(head) => {
                    any = true;
                    self.begin(bp, head)?;
                }
                None => {
                    if !queue.listen(bp.dma, self.s.features & feature::EVENT_IDX != 0)? {
                        self.look = false;
                        return Ok(any);
                    }
                }
            }
        }
    }

    /// Begins what a chain asks for.
    fn begin(&mut self, bp: &mut Backplane<'_>, head: u16) -> Result<(), Broken> {
        let chain = self
            .s
            .queue
            .chain(bp.dma, head, self.has(feature::INDIRECT_DESC))?;
        let request = Request::parse(bp.dma, chain)?;
        match request.plan(bp.dma, &self.terms()) {
            Plan::Ask(operation) => {
                let ticket = bp.disks.ask(self.disk, operation);
                self.bytes += request.len();
                self.flights.push_back(Flight {
                    head,
                    ticket,
                    request,
                });
            }
            Plan::Answer(status, data) => {
                let written = request.answer(bp.dma, status, &data);
                self.s.queue.finish(head, written);
            }
        }
        Ok(())
    }

    /// Asks again for what a predecessor had under way.
    fn resume(&mut self, bp: &mut Backplane<'_>) -> Result<bool, Broken> {
        if !self.resumes || !bp.may_master {
            return Ok(false);
        }
        self.resumes = false;
        for head in self.s.queue.taken.clone() {
            self.begin(bp, head)?;
        }
        Ok(true)
    }

    /// Ends a request.
    fn end(&mut self, bp: &mut Backplane<'_>, done: Done) -> bool {
        // What was asked for before a reset ends for nobody.
        if self.flights.front().is_none_or(|f| f.ticket != done.ticket) {
            return false;
        }
        let Some(flight) = self.flights.pop_front() else {
            return false;
        };
        self.bytes = self.bytes.saturating_sub(flight.request.len());
        let (status, data) = match done.result {
            Ok(data) => (ending::OK, data),
            Err(_) => (ending::IOERR, Data::Held(Vec::new())),
        };
        let written = flight.request.answer(bp.dma, status, &data);
        self.s.queue.finish(flight.head, written);
        true
    }
}

impl Registers<Reg> for VirtioBlk {
    fn read_reg(&mut self, _bp: &mut Backplane<'_>, reg: Reg) -> u64 {
        let value = self.peek(reg);
        if let Reg::Isr = reg {
            self.s.isr = 0;
        }
        value
    }

    fn write_reg(&mut self, bp: &mut Backplane<'_>, reg: Reg, value: u64) {
        match reg {
            Reg::DeviceFeatureSelect => self.s.device_feature_select = value as u32,
            Reg::DriverFeatureSelect => self.s.driver_feature_select = value as u32,
            Reg::DriverFeature => self.write_features(value as u32),
            Reg::Status => self.write_status(bp, value as u8),
            Reg::QueueSelect => self.s.queue_select = value as u16,
            Reg::QueueSize => {
                let size = value as u16;
                if size.is_power_of_two() && size <= QUEUE_SIZE_MAX {
                    self.set_up(|queue| queue.size = size);
                }
            }
            Reg::QueueEnable if value == 1 => {
                self.set_up(|queue| queue.enabled = true);
                self.look = true;
            }
            Reg::QueueDesc => self.set_up(|queue| queue.desc = value),
            Reg::QueueDriver => self.set_up(|queue| queue.driver = value),
            Reg::QueueDevice => self.set_up(|queue| queue.device = value),
            Reg::Config(CONFIG_WRITEBACK) if self.has(feature::CONFIG_WCE) => {
                self.s.writeback = value & 1 != 0;
            }
            Reg::Notify => self.look |= value as u16 == 0,
            Reg::DeviceFeature
            | Reg::NoVector
            | Reg::NumQueues
            | Reg::Generation
            | Reg::QueueEnable
            | Reg::QueueNotifyOff
            | Reg::Isr
            | Reg::Config(_) => {}
        }
    }

    fn held(&self, reg: Reg) -> u64 {
        self.peek(reg)
    }
}

impl Device for VirtioBlk {
    fn name(&self) -> &'static str {
        self.name
    }

    fn regions(&self) -> Vec<Region> {
        vec![MAP.region(RegionKind::Memory)]
    }

    fn read(&mut self, bp: &mut Backplane<'_>, at: Access) -> u64 {
        let value = MAP.read(self, bp, at);
        self.settle(bp);
        value
    }

    fn write(&mut self, bp: &mut Backplane<'_>, at: Access, value: u64) {
        MAP.write(self, bp, at, value);
        self.try_to(bp, Self::serve);
        self.settle(bp);
    }

    fn start(&mut self, bp: &mut Backplane<'_>) {
        self.resumes = true;
        // Whoever was there before may have asked not to be notified and then died.
        self.look = true;
        self.try_to(bp, Self::resume);
        self.settle(bp);
    }

    fn reset(&mut self, bp: &mut Backplane<'_>) {
        self.reset_device(bp);
        self.settle(bp);
    }

    fn advance(&mut self, bp: &mut Backplane<'_>) -> bool {
        // What has been read stays where it is until the function may write it.
        if !bp.may_master {
            return false;
        }
        let mut changed = self.try_to(bp, Self::resume);
        while let Some(done) = bp.disks.take(self.disk) {
            changed |= self.end(bp, done);
        }
        changed |= self.try_to(bp, Self::serve);
        self.settle(bp);
        changed
    }

    fn completed(&mut self, bp: &mut Backplane<'_>) -> bool {
        if self.s.queue.finished.is_empty() || !bp.may_master {
            return false;
        }
        let event_index = self.has(feature::EVENT_IDX);
        self.try_to(bp, |this, bp| {
            if this.s.queue.publish(bp.dma, event_index)? {
                this.s.isr |= isr::QUEUE;
            }
            Ok(true)
        });
        self.settle(bp);
        true
    }

    fn save(&self, out: &mut Vec<u8>) {
        save_state(&self.s, out);
    }

    fn load(&mut self, version: u16, bytes: &[u8]) -> Result<(), StateError> {
        let state: State = load_state(self.name, self.state_version(), version, bytes)?;
        if !state.queue.is_sound() {
            return Err(StateError::Damaged {
                device: self.name,
                len: bytes.len(),
                why: "a queue that cannot be".into(),
            });
        }
        self.s = state;
        self.forget();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
