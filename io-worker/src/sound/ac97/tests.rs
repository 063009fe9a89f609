//! A driver's view of the card. Section numbers are those of Intel 290655 (82801AA); codec ones say so.

use quintet_protocol::addr::GuestPhys;

use super::codec::reg as codec;
use super::engine::{cr, sr};
use super::*;
use crate::bus::contract::{Bench, device_contract, saved};
use crate::bus::{Line, Size};
use crate::sound::Staged;

const LIST: u32 = 0x1000;
const DATA: u32 = 0x2000;
/// The line that the tests route the card's pin to.
const LINE: u8 = 11;
const SECOND: u64 = 1_000_000_000;

device_contract!(ac97, |bench| Ac97::new(&mut bench.irq));

struct Driver {
    bench: Bench,
    card: Ac97,
}

impl Driver {
    /// A driver that has ended the cold reset and opened the volumes.
    fn new() -> Self {
        let mut bench = Bench::new();
        let card = Ac97::new(&mut bench.irq);
        bench.irq.route(pirq_of(AC97_SLOT.device, 1), Some(Line(LINE)));
        let mut driver = Self { bench, card };
        driver.write(MASTERS, 0x2C, Size::DWORD, 2);
        driver.codec_write(codec::MASTER, 0x0000);
        driver.codec_write(codec::PCM_OUT, 0x0808);
        driver
    }

    fn read(&mut self, region: u8, at: u64, size: Size) -> u32 {
        self.bench.read(&mut self.card, region, at, size) as u32
    }

    fn write(&mut self, region: u8, at: u64, size: Size, value: u32) {
        self.bench
            .write(&mut self.card, region, at, size, u64::from(value));
    }

    fn codec(&mut self, at: u8) -> u16 {
        self.read(MIXER, u64::from(at), Size::WORD) as u16
    }

    fn codec_write(&mut self, at: u8, value: u16) {
        self.write(MIXER, u64::from(at), Size::WORD, u32::from(value));
    }

    /// Status, current index and samples left of a bus master.
    fn place(&mut self, n: u64) -> (u16, u8, u16) {
        (
            self.read(MASTERS, 0x10 * n + 6, Size::WORD) as u16,
            self.read(MASTERS, 0x10 * n + 4, Size::BYTE) as u8,
            self.read(MASTERS, 0x10 * n + 8, Size::WORD) as u16,
        )
    }

    /// A list of buffers, each of `samples` numbered samples, with interrupts where `ioc` has a bit.
    fn list(&mut self, n: u64, buffers: u32, samples: u16, ioc: u32) {
        for i in 0..buffers {
            let at = DATA + i * u32::from(samples) * 2;
            let word = u32::from(samples) | (ioc >> i & 1) << 31;
            let entry = u64::from(at) | u64::from(word) << 32;
            self.bench
                .dma
                .write(GuestPhys(u64::from(LIST + 8 * i)), &entry.to_le_bytes());
        }
        let data: Vec<u8> = (1..)
            .take(buffers as usize * usize::from(samples))
            .flat_map(|n: i16| n.to_le_bytes())
            .collect();
        self.bench.dma.write(GuestPhys(u64::from(DATA)), &data);
        self.write(MASTERS, 0x10 * n, Size::DWORD, LIST);
        self.write(MASTERS, 0x10 * n + 5, Size::BYTE, buffers - 1);
    }

    fn control(&mut self, n: u64, value: u8) {
        self.write(MASTERS, 0x10 * n + 11, Size::BYTE, u32::from(value));
    }

    fn pass(&mut self, nanos: u64) {
        self.bench.pass(&mut self.card, nanos);
    }

    /// What was played since the last time, as 16-bit samples.
    fn heard(&mut self) -> Vec<i32> {
        let Staged { frames, .. } = self.bench.playback.take();
        frames.iter().map(|s| (s * 32768.0).round() as i32).collect()
    }

    fn line(&self) -> bool {
        self.bench.wire(usize::from(LINE)).high
    }
}

/// The nanoseconds after which `frames` have moved at `rate`.
fn after(frames: u64, rate: u64) -> u64 {
    VmTime::from_ticks(frames, rate).0
}

const OUT: u64 = PCM_OUT as u64;

#[test]
fn the_codec_resets_to_what_the_specification_says() {
    let mut d = Driver::new();
    d.codec_write(codec::RESET, 0);
    // Audio Codec '97 2.3, table 5-1.
    for (at, value) in [
        (0x02, 0x8000),
        (0x0C, 0x8008),
        (0x0E, 0x8008),
        (0x10, 0x8808),
        (0x12, 0x8808),
        (0x16, 0x8808),
        (0x18, 0x8808),
        (0x1A, 0x0000),
        (0x1C, 0x8000),
        (0x26, 0x000F),
        (0x28, 0x0809),
        (0x2A, 0x0000),
        (0x2C, 48_000),
        (0x32, 48_000),
        (0x34, 48_000),
        // What is not there reads as zero and holds nothing (5.6).
        (0x36, 0x0000),
        (0x5A, 0x0000),
    ] {
        assert_eq!(d.codec(at), value, "{at:#x}");
    }
    d.codec_write(0x36, 0xFFFF);
    d.codec_write(codec::VENDOR_1, 0xFFFF);
    assert_eq!((d.codec(0x36), d.codec(codec::VENDOR_1)), (0, 0x8384));
}

#[test]
fn volumes_hold_the_bits_that_they_have() {
    let mut d = Driver::new();
    for (at, wrote, held) in [
        (0x02, 0xFFFF, 0x9F1F),
        // A sixth bit makes five ones (codec 5.7.2).
        (0x02, 0x2000, 0x1F00),
        (0x02, 0x1020, 0x101F),
        (0x18, 0xFFFF, 0x9F1F),
        (0x0E, 0xFFFF, 0x805F),
        (0x1C, 0xFFFF, 0x8F0F),
    ] {
        d.codec_write(at, wrote);
        assert_eq!(d.codec(at), held, "{at:#x}");
    }
    // A byte of a register leaves the other.
    d.codec_write(0x18, 0x0808);
    d.write(MIXER, 0x19, Size::BYTE, 0x80);
    assert_eq!(d.codec(0x18), 0x8008);
}

#[test]
fn rates_are_fixed_until_variable_ones_are_switched_on() {
    let mut d = Driver::new();
    d.codec_write(codec::DAC_RATE, 8000);
    assert_eq!(d.codec(codec::DAC_RATE), 48_000);
    d.codec_write(codec::EXTENDED_STATUS, 0x0001);
    for rate in [8000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000] {
        d.codec_write(codec::DAC_RATE, rate);
        d.codec_write(codec::ADC_RATE, rate);
        assert_eq!((d.codec(codec::DAC_RATE), d.codec(codec::ADC_RATE)), (rate, rate));
    }
    // The nearest (codec 5.8.4); the microphone's has a bit of its own.
    for (at, wrote, held) in [
        (codec::DAC_RATE, 4000, 8000),
        (codec::DAC_RATE, 60_000, 48_000),
        (codec::MIC_RATE, 8000, 48_000),
    ] {
        d.codec_write(at, wrote);
        assert_eq!(d.codec(at), held, "{at:#x}");
    }
    d.codec_write(codec::ADC_RATE, 8000);
    d.codec_write(codec::EXTENDED_STATUS, 0x0008);
    d.codec_write(codec::MIC_RATE, 8000);
    assert_eq!(
        (d.codec(codec::ADC_RATE), d.codec(codec::MIC_RATE)),
        (48_000, 8000)
    );
}

#[test]
fn sections_that_are_powered_down_are_not_ready() {
    let mut d = Driver::new();
    for (wrote, held) in [
        (0x0100, 0x010E),
        (0x0200, 0x020D),
        (0x0400, 0x040B),
        (0x0800, 0x0803),
    ] {
        d.codec_write(codec::POWER, wrote);
        assert_eq!(d.codec(codec::POWER), held, "{wrote:#x}");
    }
}

#[test]
fn a_link_in_its_cold_reset_has_no_codec() {
    let mut d = Driver::new();
    d.codec_write(codec::MASTER, 0x0101);
    assert_eq!(d.read(MASTERS, 0x30, Size::DWORD), 1 << 8);
    d.write(MASTERS, 0x2C, Size::DWORD, 0);
    assert_eq!(d.read(MASTERS, 0x30, Size::DWORD), 0);
    assert_eq!(d.codec(codec::MASTER), 0xFFFF);
    // Read completion status (13.2.9), cleared by a one.
    assert_eq!(d.read(MASTERS, 0x30, Size::DWORD), 1 << 15);
    d.write(MASTERS, 0x31, Size::BYTE, 0x80);
    assert_eq!(d.read(MASTERS, 0x30, Size::DWORD), 0);
    // Cold and warm at once: the warm bit is back at zero at once, and the registers are reset.
    d.write(MASTERS, 0x2C, Size::DWORD, 0x0010_0006);
    assert_eq!(d.read(MASTERS, 0x2C, Size::DWORD), 0x0010_0002);
    assert_eq!(d.codec(codec::MASTER), 0x8000);
}

#[test]
fn the_semaphore_is_taken_by_reading_and_freed_by_an_access() {
    let mut d = Driver::new();
    let take = |d: &mut Driver| d.read(MASTERS, 0x34, Size::BYTE);
    assert_eq!((take(&mut d), take(&mut d)), (0, 1));
    d.codec(codec::MASTER);
    assert_eq!((take(&mut d), take(&mut d)), (0, 1));
    d.codec_write(codec::MASTER, 0);
    assert_eq!(take(&mut d), 0);
}

#[test]
fn samples_move_at_the_rate_of_the_codec_whoever_looks() {
    for rate in [8000_u16, 44_100, 48_000] {
        let mut d = Driver::new();
        d.codec_write(codec::EXTENDED_STATUS, 1);
        d.codec_write(codec::DAC_RATE, rate);
        d.list(OUT, 4, 1000, 0);
        d.control(OUT, cr::RPBM);
        assert_eq!(d.place(OUT), (0, 0, 1000));
        d.pass(after(100, u64::from(rate)) - 1);
        assert_eq!(d.place(OUT), (0, 0, 1000 - 2 * 99));
        d.pass(1);
        assert_eq!(d.place(OUT), (0, 0, 1000 - 2 * 100));
        d.pass(after(1400, u64::from(rate)) - after(100, u64::from(rate)));
        assert_eq!(d.place(OUT), (0, 2, 200));
        let staged = d.bench.playback.take();
        assert_eq!((staged.rate, staged.begins), (Some(u32::from(rate)), true));
        let samples: Vec<i32> = staged
            .frames
            .iter()
            .map(|s| (s * 32768.0).round() as i32)
            .collect();
        assert_eq!(samples, (1..=2800).collect::<Vec<_>>());
    }
}

#[test]
fn a_buffer_interrupts_at_its_end_if_its_descriptor_says_so() {
    let mut d = Driver::new();
    d.list(OUT, 3, 96, 0b010);
    d.control(OUT, cr::RPBM | cr::IOCE);
    d.pass(after(48, 48_000));
    assert_eq!((d.place(OUT), d.line()), ((0, 1, 96), false));
    d.pass(after(48, 48_000));
    assert_eq!((d.place(OUT), d.line()), ((sr::BCIS, 2, 96), true));
    // 13.2.9: bit 6 is PCM out's.
    assert_eq!(d.read(MASTERS, 0x30, Size::DWORD), 1 << 8 | 1 << 6);
    d.write(MASTERS, 0x16, Size::WORD, u32::from(sr::BCIS));
    assert_eq!((d.place(OUT), d.line()), ((0, 2, 96), false));
    assert_eq!(d.read(MASTERS, 0x30, Size::DWORD), 1 << 8);
}

#[test]
fn the_last_valid_buffer_halts_until_there_is_another() {
    let mut d = Driver::new();
    d.list(OUT, 2, 96, 0);
    d.control(OUT, cr::RPBM | cr::LVBIE);
    d.pass(after(96, 48_000));
    let halted = sr::LVBCI | sr::CELV | sr::DCH;
    assert_eq!((d.place(OUT), d.line()), ((halted, 1, 0), true));
    d.write(MASTERS, 0x16, Size::WORD, u32::from(sr::LVBCI));
    assert_eq!((d.place(OUT), d.line()), ((sr::CELV | sr::DCH, 1, 0), false));
    // Silence meanwhile, on the same clock (CIV wraps at 32; the list has as many entries).
    d.pass(after(10, 48_000));
    d.list(OUT, 3, 96, 0);
    assert_eq!(d.place(OUT), (0, 2, 96));
    d.pass(after(48, 48_000));
    let heard = d.heard();
    assert_eq!(heard.len(), 2 * (96 + 10 + 48));
    assert_eq!(heard[..192], (1..=192).collect::<Vec<_>>());
    assert_eq!(heard[192..212], [0; 20]);
    assert_eq!(heard[212..], (193..=288).collect::<Vec<_>>());
}

#[test]
fn an_output_that_stays_halted_falls_silent() {
    let mut d = Driver::new();
    d.list(OUT, 1, 96, 0);
    d.control(OUT, cr::RPBM);
    d.pass(SECOND / 2);
    assert_eq!(d.bench.playback.take().rate, Some(48_000));
    d.pass(SECOND);
    assert_eq!(d.bench.playback.take().rate, None);
    assert_eq!(d.card.next_deadline(), None);
    d.list(OUT, 2, 96, 0);
    assert_eq!(d.bench.playback.take().rate, Some(48_000));
    assert_eq!(d.place(OUT), (sr::LVBCI, 1, 96));
}

#[test]
fn a_list_of_empty_buffers_ends_at_the_last_valid_one() {
    let mut d = Driver::new();
    d.list(OUT, 32, 0, 0x10);
    d.control(OUT, cr::RPBM);
    assert_eq!(d.place(OUT), (sr::BCIS | sr::LVBCI | sr::CELV | sr::DCH, 31, 0));
}

#[test]
fn a_pause_keeps_the_place_and_a_reset_of_the_registers_does_not() {
    let mut d = Driver::new();
    d.list(OUT, 2, 960, 0);
    d.control(OUT, cr::RPBM | cr::IOCE);
    d.pass(after(100, 48_000));
    d.control(OUT, cr::IOCE);
    assert_eq!(d.bench.playback.take().rate, None);
    d.pass(SECOND);
    assert_eq!(d.place(OUT), (sr::DCH, 0, 760));
    d.control(OUT, cr::RPBM | cr::IOCE);
    d.pass(after(10, 48_000));
    assert_eq!(d.place(OUT), (0, 0, 740));
    assert_eq!(d.heard()[..2], [201, 202]);
    d.control(OUT, cr::IOCE);
    d.control(OUT, cr::RR);
    // 13.2.7: all but the interrupt enables.
    assert_eq!(d.place(OUT), (sr::DCH, 0, 0));
    assert_eq!(d.read(MASTERS, 0x10, Size::DWORD), 0);
    assert_eq!(d.read(MASTERS, 0x1B, Size::BYTE), u32::from(cr::IOCE));
}

#[test]
fn what_may_not_be_fetched_is_a_fifo_error_and_silence() {
    let mut d = Driver::new();
    d.list(OUT, 2, 960, 0);
    d.control(OUT, cr::RPBM | cr::FEIE);
    d.pass(after(10, 48_000));
    d.bench.may_master = false;
    d.pass(after(10, 48_000));
    assert_eq!((d.place(OUT), d.line()), ((sr::FIFOE, 0, 940), true));
    d.bench.may_master = true;
    d.write(MASTERS, 0x16, Size::WORD, u32::from(sr::FIFOE));
    d.pass(after(1, 48_000));
    assert_eq!((d.place(OUT), d.line()), ((0, 0, 938), false));
    let heard = d.heard();
    assert_eq!(heard[20..40], [0; 20]);
    assert_eq!(heard[40..], [21, 22]);
}

#[test]
fn volumes_and_mutes_are_heard() {
    let mut d = Driver::new();
    d.bench.dma.write(
        GuestPhys(u64::from(DATA)),
        &[10_000_i16.to_le_bytes(), (-10_000_i16).to_le_bytes()].concat(),
    );
    let mut one = |master, pcm, power| {
        d.control(OUT, cr::RR);
        d.codec_write(codec::MASTER, master);
        d.codec_write(codec::PCM_OUT, pcm);
        d.codec_write(codec::POWER, power);
        let entry = u64::from(DATA) | 2 << 32;
        d.bench
            .dma
            .write(GuestPhys(u64::from(LIST)), &entry.to_le_bytes());
        d.write(MASTERS, 0x10, Size::DWORD, LIST);
        d.control(OUT, cr::RPBM);
        d.pass(after(1, 48_000));
        let heard = d.heard();
        (heard[0], heard[1])
    };
    assert_eq!(one(0x0000, 0x0808, 0), (10_000, -10_000));
    // 6 dB and 12 dB down, left and right; 6 dB up.
    assert_eq!(one(0x0408, 0x0808, 0), (5012, -2512));
    assert_eq!(one(0x0000, 0x0408, 0), (19_953, -10_000));
    for (master, pcm, power) in [(0x8000, 0x0808, 0), (0, 0x8808, 0), (0, 0x0808, 0x0200)] {
        assert_eq!(one(master, pcm, power), (0, 0));
    }
}

#[test]
fn what_is_recorded_is_silence_at_the_right_pace() {
    for (n, register, width) in [(0, codec::ADC_RATE, 2), (2, codec::MIC_RATE, 1)] {
        let mut d = Driver::new();
        d.codec_write(codec::EXTENDED_STATUS, 0x0009);
        d.codec_write(register, 8000);
        d.list(n, 2, 100, 0b01);
        d.control(n, cr::RPBM | cr::IOCE);
        let frames = 100 / width;
        d.pass(after(frames, 8000));
        assert_eq!((d.place(n), d.line()), ((sr::BCIS, 1, 100), true));
        assert_eq!(d.read(MASTERS, 0x30, Size::DWORD), 1 << 8 | 1 << (5 + n));
        let mut bytes = [1; 202];
        d.bench.dma.read(GuestPhys(u64::from(DATA)), &mut bytes);
        assert_eq!(bytes[..200], [0; 200]);
        assert_ne!(bytes[200..], [0; 2]);
        assert_eq!(d.bench.playback.take().rate, None);
    }
}

#[test]
fn a_successor_goes_on_with_the_very_next_sample() {
    let mut d = Driver::new();
    d.list(OUT, 32, 700, u32::MAX);
    d.control(OUT, cr::RPBM | cr::IOCE);
    let (mut heard, mut wait) = (Vec::new(), 1);
    while heard.len() < 20_000 {
        wait = wait * 7 % 9_999_991;
        d.pass(wait);
        heard.extend(d.heard());
        let state = saved(&d.card);
        let mut next = Ac97 {
            pin: d.card.pin,
            s: State::new(),
        };
        next.load(1, &state).expect("a state of its own");
        // What the predecessor did after its last commit never was.
        d.card = next;
        d.bench.playback = Default::default();
        d.card.start(&mut d.bench.backplane());
        assert!(!d.bench.playback.take().begins);
    }
    assert_eq!(heard, (1..=heard.len() as i32).collect::<Vec<_>>());
}
