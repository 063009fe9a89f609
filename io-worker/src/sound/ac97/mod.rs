//! The AC'97 controller of the 82801AA, 8086:2415 (Intel 290655, chapter 13), with a codec on its link.
//!
//! Samples go out at the rate that the guest sets in the codec. What is recorded is silence: the mic in and line in have
//! nothing at their other end.
//!
//! | region | where | what |
//! |---|---|---|
//! | 0 | BAR 0 | the codec's registers, in words |
//! | 1 | BAR 1 | bus masters: PCM in, PCM out, microphone; control and status of all |

mod codec;
mod engine;

use serde::{Deserialize, Serialize};

use crate::bus::regmap::{Attr, RegMap, Register, Registers, reg};
use crate::bus::{
    Access, Backplane, Device, Interrupts, Pin, PinTarget, Region, RegionKind, StateError, load_state,
    save_state,
};
use crate::pci::{BarKind, BarSpec, Bdf, FunctionSpec, WindowTarget, bdf, pirq_of};
use codec::Codec;
use engine::{Engine, Piece};
use quintet_protocol::time::VmTime;

/// Where QEMU puts a sound card beside its network card.
pub const AC97_SLOT: Bdf = bdf(4, 0);

const NAME: &str = "ac97";
/// Regions, which are the numbers of their base address registers, too.
const MIXER: u8 = 0;
const MASTERS: u8 = 1;
/// Frames that are moved at a time at most: some 10 ms at 48 kHz.
const CHUNK: u64 = 512;

/// Bits of the global control register (13.2.8).
mod control {
    /// Cleared: the link is in its cold reset.
    pub(super) const COLD: u32 = 1 << 1;
    /// Warm reset; clears itself.
    pub(super) const WARM: u32 = 1 << 2;
    /// What holds its value: GPI interrupt enable, cold reset, link off, resume interrupt enables, channels.
    pub(super) const HELD: u32 = 0x0030_003B;
}

/// Bits of the global status register (13.2.9).
mod status {
    /// Primary codec ready.
    pub(super) const PRIMARY_READY: u32 = 1 << 8;
    /// A read of the codec found nobody.
    pub(super) const READ_FAILED: u32 = 1 << 15;
    /// Interrupt of each bus master: PCM in, PCM out, microphone.
    pub(super) const INTERRUPT: [u32; 3] = [1 << 5, 1 << 6, 1 << 7];
}

/// Bus masters by the order of their registers.
const PCM_IN: usize = 0;
const PCM_OUT: usize = 1;
const MICROPHONE: usize = 2;
/// Samples in a frame of each.
const WIDTHS: [u8; 3] = [2, 2, 1];
/// The codec's register with the rate of each.
const RATES: [u8; 3] = [codec::reg::ADC_RATE, codec::reg::DAC_RATE, codec::reg::MIC_RATE];

/// The PCI function; device number `device` of the machine answers at its windows.
pub fn ac97_function(device: u16) -> FunctionSpec {
    let window = |region: u8, len| BarSpec {
        register: 0x10 + 4 * region,
        kind: BarKind::Io,
        len,
        target: WindowTarget::Device { device, region },
    };
    FunctionSpec {
        name: NAME,
        vendor: 0x8086,
        device: 0x2415,
        revision: 1,
        class: 0x04_0100,
        multifunction: false,
        pin: 1,
        status: 0x0280,
        command: 0x0000,
        command_mask: 0x0005,
        bars: vec![window(MIXER, 256), window(MASTERS, 64)],
        registers: Vec::new(),
    }
}

#[derive(Clone, Copy, Debug)]
enum Reg {
    /// A register of the codec by its offset.
    Codec(u8),
    List(usize),
    Civ(usize),
    Lvi(usize),
    Status(usize),
    Picb(usize),
    Piv(usize),
    Control(usize),
    GlobalControl,
    GlobalStatus,
    Semaphore,
}

const fn mixer() -> [Register<Reg>; 64] {
    let mut all = [reg(0, 2, Reg::Codec(0), Attr::empty()); 64];
    let mut n = 0;
    while n < all.len() {
        all[n] = reg(2 * n as u64, 2, Reg::Codec(2 * n as u8), Attr::empty());
        n += 1;
    }
    all
}

const fn masters() -> [Register<Reg>; 24] {
    let mut all = [reg(0, 1, Reg::Semaphore, Attr::empty()); 24];
    let mut n = 0;
    while n < 3 {
        let at = 0x10 * n as u64;
        let block = [
            reg(at, 4, Reg::List(n), Attr::empty()),
            reg(at + 4, 1, Reg::Civ(n), Attr::empty()),
            reg(at + 5, 1, Reg::Lvi(n), Attr::empty()),
            reg(at + 6, 2, Reg::Status(n), Attr::empty()),
            reg(at + 8, 2, Reg::Picb(n), Attr::empty()),
            reg(at + 10, 1, Reg::Piv(n), Attr::empty()),
            reg(at + 11, 1, Reg::Control(n), Attr::empty()),
        ];
        let mut i = 0;
        while i < block.len() {
            all[n * block.len() + i] = block[i];
            i += 1;
        }
        n += 1;
    }
    all[21] = reg(0x2C, 4, Reg::GlobalControl, Attr::empty());
    all[22] = reg(0x30, 4, Reg::GlobalStatus, Attr::empty());
    all[23] = reg(0x34, 1, Reg::Semaphore, Attr::empty());
    all
}

const MAPS: [RegMap<Reg>; 2] = [
    RegMap::new(256, const { &mixer() }),
    RegMap::new(64, const { &masters() }),
];

/// What is committed.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    codec: Codec,
    engines: [Engine; 3],
    control: u32,
    read_failed: bool,
    /// A driver has taken the semaphore of the codec's registers (13.2.10).
    taken: bool,
}

impl State {
    fn new() -> Self {
        Self {
            codec: Codec::new(),
            engines: WIDTHS.map(Engine::new),
            control: 0,
            read_failed: false,
            taken: false,
        }
    }
}

/// The card.
#[derive(Debug)]
pub struct Ac97 {
    pin: Pin,
    s: State,
}

impl Ac97 {
    /// The card in [`AC97_SLOT`], after power-on.
    pub fn new(irq: &mut Interrupts) -> Self {
        Self {
            pin: irq.pin(PinTarget::Pirq(pirq_of(AC97_SLOT.device, 1))),
            s: State::new(),
        }
    }

    /// Whether the link is up.
    fn is_up(&self) -> bool {
        self.s.control & control::COLD != 0
    }

    fn peek(&self, reg: Reg) -> u64 {
        let engine = |n: usize| &self.s.engines[n];
        match reg {
            Reg::Codec(at) if self.is_up() => u64::from(self.s.codec.read(at)),
            Reg::Codec(_) => 0xFFFF,
            Reg::List(n) => u64::from(engine(n).list),
            Reg::Civ(n) => u64::from(engine(n).civ),
            Reg::Lvi(n) => u64::from(engine(n).lvi),
            Reg::Status(n) => u64::from(engine(n).sr),
            Reg::Picb(n) => u64::from(engine(n).picb),
            Reg::Piv(n) => u64::from(engine(n).piv),
            Reg::Control(n) => u64::from(engine(n).cr),
            Reg::GlobalControl => u64::from(self.s.control),
            Reg::GlobalStatus => {
                let ready = u32::from(self.is_up()) * status::PRIMARY_READY;
                let failed = u32::from(self.s.read_failed) * status::READ_FAILED;
                let asks = |n: usize| u32::from(engine(n).interrupts()) * status::INTERRUPT[n];
                u64::from(ready | failed | asks(PCM_IN) | asks(PCM_OUT) | asks(MICROPHONE))
            }
            Reg::Semaphore => u64::from(self.s.taken),
        }
    }

    fn rate(&self, n: usize) -> u32 {
        self.s.codec.rate(RATES[n])
    }

    /// Moves all samples that are due.
    fn catch_up(&mut self, bp: &mut Backplane<'_>) {
        let gain = self.s.codec.gain();
        let Backplane {
            now,
            dma,
            may_master,
            playback,
            ..
        } = bp;
        for (n, engine) in self.s.engines.iter_mut().enumerate() {
            engine.advance(*now, dma, *may_master, |dma, piece| match piece {
                Piece::Buffer { at, samples } if n == PCM_OUT => {
                    let mut bytes = vec![0; samples as usize * 2];
                    dma.read(at, &mut bytes);
                    for frame in bytes.chunks(4) {
                        let sample = |i: usize| {
                            let bytes = frame.get(2 * i..2 * i + 2).and_then(|b| b.try_into().ok());
                            f32::from(bytes.map_or(0, i16::from_le_bytes)) / 32768.0 * gain[i]
                        };
                        playback.push(sample(0), sample(1));
                    }
                }
                Piece::Buffer { at, samples } => dma.zero(at, u64::from(samples) * 2),
                Piece::Nothing(frames) if n == PCM_OUT => {
                    (0..frames).for_each(|_| playback.push(0.0, 0.0));
                }
                Piece::Nothing(_) => {}
            });
        }
    }

    /// Shows what follows from the registers.
    fn settle(&self, bp: &mut Backplane<'_>) {
        bp.playback.set_rate(self.s.engines[PCM_OUT].rate());
        let asks = self.s.engines.iter().any(Engine::interrupts);
        bp.irq.set(self.pin, asks);
    }

    fn write_control(&mut self, value: u32) {
        if value & control::COLD == 0 {
            self.s.codec = Codec::new();
        }
        // A warm reset wakes the link up, which never sleeps.
        self.s.control = value & control::HELD & !control::WARM;
    }
}

impl Registers<Reg> for Ac97 {
    fn read_reg(&mut self, _bp: &mut Backplane<'_>, reg: Reg) -> u64 {
        let value = self.peek(reg);
        match reg {
            Reg::Codec(_) => {
                self.s.taken = false;
                self.s.read_failed |= !self.is_up();
            }
            Reg::Semaphore => self.s.taken = true,
            _ => {}
        }
        value
    }

    fn write_reg(&mut self, bp: &mut Backplane<'_>, reg: Reg, value: u64) {
        match reg {
            Reg::Codec(at) => {
                self.s.taken = false;
                if self.is_up() {
                    self.s.codec.write(at, value as u16);
                }
            }
            Reg::List(n) => self.s.engines[n].list = value as u32 & !7,
            Reg::Lvi(n) => {
                let rate = self.rate(n);
                self.s.engines[n].extend(value as u8, bp.now, rate);
            }
            Reg::Status(n) => self.s.engines[n].acknowledge(value as u16),
            Reg::Control(n) => {
                let rate = self.rate(n);
                self.s.engines[n].control(value as u8, bp.now, rate);
            }
            Reg::GlobalControl => self.write_control(value as u32),
            Reg::GlobalStatus => self.s.read_failed &= value as u32 & status::READ_FAILED == 0,
            Reg::Civ(_) | Reg::Picb(_) | Reg::Piv(_) | Reg::Semaphore => {}
        }
        for n in 0..self.s.engines.len() {
            let rate = self.rate(n);
            self.s.engines[n].set_rate(bp.now, rate);
        }
    }

    fn held(&self, reg: Reg) -> u64 {
        match reg {
            // What a write of some bytes does not cover is not acknowledged.
            Reg::Status(_) | Reg::GlobalStatus => 0,
            _ => self.peek(reg),
        }
    }
}

impl Device for Ac97 {
    fn name(&self) -> &'static str {
        NAME
    }

    fn regions(&self) -> Vec<Region> {
        MAPS.iter().map(|map| map.region(RegionKind::Port)).collect()
    }

    fn read(&mut self, bp: &mut Backplane<'_>, at: Access) -> u64 {
        self.catch_up(bp);
        let value = MAPS[usize::from(at.region)].read(self, bp, at);
        self.settle(bp);
        value
    }

    fn write(&mut self, bp: &mut Backplane<'_>, at: Access, value: u64) {
        self.catch_up(bp);
        MAPS[usize::from(at.region)].write(self, bp, at, value);
        // The first buffer of one that was set going.
        self.catch_up(bp);
        self.settle(bp);
    }

    fn start(&mut self, bp: &mut Backplane<'_>) {
        bp.playback.go_on(self.s.engines[PCM_OUT].rate());
    }

    fn reset(&mut self, bp: &mut Backplane<'_>) {
        self.s = State::new();
        self.settle(bp);
    }

    fn next_deadline(&self) -> Option<VmTime> {
        self.s.engines.iter().filter_map(|e| e.next_deadline(CHUNK)).min()
    }

    fn advance(&mut self, bp: &mut Backplane<'_>) -> bool {
        if self.s.engines.iter().all(|e| e.rate().is_none()) {
            return false;
        }
        self.catch_up(bp);
        self.settle(bp);
        true
    }

    fn save(&self, out: &mut Vec<u8>) {
        save_state(&self.s, out);
    }

    fn load(&mut self, version: u16, bytes: &[u8]) -> Result<(), StateError> {
        let state: State = load_state(NAME, self.state_version(), version, bytes)?;
        let engines = state
            .engines
            .iter()
            .zip(WIDTHS)
            .all(|(e, width)| e.is_sound(width));
        if !engines || !state.codec.is_sound() {
            return Err(StateError::Damaged {
                device: NAME,
                len: bytes.len(),
                why: "a state that no card can be in".into(),
            });
        }
        self.s = state;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
