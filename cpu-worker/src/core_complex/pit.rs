//! The 8254 interval timer with port 61h: three counters, read-back, speaker gate, refresh toggle.
//!
//! Intel 8254 data sheet; port 61h from the PIIX3 data sheet §2.5.6. Everything is computed from VM time.
//! Ticks of counter 0 that come late are kept, at most a second's worth, and handed over one after another:
//! a guest that counts them keeps its clock (other timers merge late ticks). How many are owed is known
//! here; when the next may be delivered is for the interrupt controllers to say.

use quintet_protocol::speaker::{PIT_HZ, Wave, Waves};
use quintet_protocol::time::VmTime;

use super::pit_channel::ChannelState;
use super::snapshot::Snapshot;

/// Pulses between two toggles of the refresh bit in port 61h: about 15 µs.
const REFRESH_PULSES: u64 = 18;

/// State of the timer.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PitState {
    channels: [ChannelState; 3],
    /// Bits 3:0 of port 61h.
    port61: u8,
    /// Pulse up to which rises of OUT 0 have been counted.
    counted: u64,
    /// Ticks of counter 0 that are owed to the guest.
    owed: u64,
}

/// The interval timer.
#[derive(Clone, Debug)]
pub struct Pit {
    state: PitState,
}

impl Default for Pit {
    fn default() -> Self {
        Self::new()
    }
}

impl Pit {
    /// Power-on: no counts loaded, speaker off.
    pub fn new() -> Self {
        let channels = [
            ChannelState::new(true),
            ChannelState::new(true),
            ChannelState::new(false),
        ];
        Self {
            state: PitState {
                channels,
                port61: 0,
                counted: 0,
                owed: 0,
            },
        }
    }

    /// Back to power-on.
    pub fn reset(&mut self) {
        *self = Self::new();
    }

    /// What a PC BIOS leaves: counter 0 in mode 3 with 65536 (18.2 Hz), counter 1 in mode 2 with 18,
    /// counter 2 in mode 3 with no gate.
    pub fn firmware_state(&mut self, now: VmTime) {
        for (port, value) in [
            (0x43, 0x36),
            (0x40, 0),
            (0x40, 0),
            (0x43, 0x54),
            (0x41, 18),
            (0x43, 0xB6),
        ] {
            self.write(now, port, value);
        }
        self.state.counted = now.ticks(PIT_HZ);
        self.state.owed = 0;
    }

    /// Whether `port` is one of the timer's: 40h to 43h and 61h.
    pub fn claims(port: u16) -> bool {
        matches!(port, 0x40..=0x43 | 0x61)
    }

    /// Reads a port of [`Self::claims`]. The control port reads as all ones.
    pub fn read(&mut self, now: VmTime, port: u16) -> u8 {
        let t = now.ticks(PIT_HZ);
        match port {
            0x40..=0x42 => {
                self.count_rises(t);
                self.state.channels[usize::from(port & 3)].read(t)
            }
            0x61 => {
                self.state.channels[2].settle(t);
                let refresh = ((t / REFRESH_PULSES) & 1) as u8;
                self.state.port61 | refresh << 4 | u8::from(self.state.channels[2].out(t)) << 5
            }
            _ => 0xFF,
        }
    }

    /// Writes a port of [`Self::claims`].
    pub fn write(&mut self, now: VmTime, port: u16, value: u8) {
        let t = now.ticks(PIT_HZ);
        self.count_rises(t);
        let was = self.state.channels[0].out(t);
        match port {
            0x40..=0x42 => {
                if port == 0x40 && self.state.channels[0].is_periodic() {
                    // A guest that sets a new rate starts afresh.
                    self.state.owed = 0;
                }
                self.state.channels[usize::from(port & 3)].write(t, value);
            }
            0x43 => self.command(t, value),
            _ => {
                self.state.port61 = value & 0x0F;
                self.state.channels[2].set_gate(t, value & 1 != 0);
            }
        }
        if !was && self.state.channels[0].out(t) {
            self.state.owed += 1;
        }
    }

    fn command(&mut self, t: u64, value: u8) {
        if value >> 6 == 3 {
            for (i, channel) in self.state.channels.iter_mut().enumerate() {
                if value & 2 << i != 0 {
                    if value & 0x20 == 0 {
                        channel.latch(t);
                    }
                    if value & 0x10 == 0 {
                        channel.latch_status(t);
                    }
                }
            }
            return;
        }
        let index = usize::from(value >> 6);
        if value & 0x30 == 0 {
            self.state.channels[index].latch(t);
            return;
        }
        self.state.channels[index].control(value);
        if index == 0 {
            self.state.owed = 0;
        }
    }

    fn count_rises(&mut self, t: u64) {
        let from = self.state.counted;
        if t <= from {
            return;
        }
        let channel = &mut self.state.channels[0];
        self.state.owed += channel.rises(from, t);
        self.state.counted = t;
        let second = if channel.is_periodic() {
            PIT_HZ / u64::from(channel.divisor().unwrap_or(1))
        } else {
            1
        };
        self.state.owed = self.state.owed.min(second.max(1));
    }

    /// Counts the ticks of counter 0 up to `now`.
    pub fn advance(&mut self, now: VmTime) {
        self.count_rises(now.ticks(PIT_HZ));
    }

    /// Ticks of counter 0 that are owed to the guest.
    pub fn owed(&self) -> u64 {
        self.state.owed
    }

    /// One tick was delivered.
    pub fn tick_delivered(&mut self) {
        self.state.owed = self.state.owed.saturating_sub(1);
    }

    /// The guest cannot take ticks: what is owed is lost, as it would be on hardware.
    pub fn drop_owed(&mut self) {
        self.state.owed = 0;
    }

    /// When OUT 0 rises next.
    pub fn next_deadline(&self) -> Option<VmTime> {
        self.state.channels[0]
            .next_rise(self.state.counted)
            .map(|t| VmTime::from_ticks(t, PIT_HZ))
    }

    /// How the speaker's line goes on from `now` if nothing is written: OUT of counter 2 while port 61h bit 1 is set (IBM PC AT
    /// Technical Reference, system board, speaker interface).
    pub fn speaker(&mut self, now: VmTime) -> Waves {
        let t = now.ticks(PIT_HZ);
        if self.state.port61 & 2 == 0 {
            return [Some(Wave::rest(t, false)), None, None];
        }
        let channel = &mut self.state.channels[2];
        channel.settle(t);
        channel.waves(t)
    }
}

impl Snapshot for Pit {
    const KIND: &'static str = "pit";
    const VERSION: u16 = 1;
    type State = PitState;

    fn save(&self) -> PitState {
        self.state.clone()
    }

    fn restore(&mut self, mut state: PitState) {
        for channel in &mut state.channels {
            channel.sanitise();
        }
        self.state = state;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core_complex::snapshot::snapshot_tests;
    use quintet_protocol::time::NANOS_PER_SEC;

    fn at(t: u64) -> VmTime {
        VmTime::from_ticks(t, PIT_HZ)
    }

    fn program(pit: &mut Pit, now: VmTime, control: u8, count: u16) {
        let port = 0x40 + u16::from(control >> 6);
        pit.write(now, 0x43, control);
        pit.write(now, port, count as u8);
        pit.write(now, port, (count >> 8) as u8);
    }

    snapshot_tests!(snapshot, Pit::new(), |p: &mut Pit| {
        program(p, at(10), 0x34, 1000);
        p.advance(at(5000));
    });

    #[test]
    fn a_tick_is_owed_at_each_rise_and_the_deadline_is_the_next_one() {
        let mut pit = Pit::new();
        program(&mut pit, at(100), 0x34, 1000);
        assert_eq!(pit.next_deadline(), Some(at(1101)));
        pit.advance(at(1100));
        assert_eq!(pit.owed(), 0);
        pit.advance(at(1101));
        assert_eq!(pit.owed(), 1);
        assert_eq!(pit.next_deadline(), Some(at(2101)));
    }

    #[test]
    fn late_ticks_are_kept_one_by_one_up_to_a_second() {
        let mut pit = Pit::new();
        program(&mut pit, at(0), 0x34, 11932);
        pit.advance(VmTime(55_000_000));
        assert_eq!(pit.owed(), 5);
        pit.tick_delivered();
        assert_eq!(pit.owed(), 4);
        pit.advance(VmTime(30 * NANOS_PER_SEC));
        assert_eq!(pit.owed(), 99, "1193182 / 11932");
    }

    #[test]
    fn a_new_control_word_drops_what_was_owed() {
        let mut pit = Pit::new();
        program(&mut pit, at(0), 0x34, 1000);
        pit.advance(at(50_000));
        program(&mut pit, at(50_000), 0x34, 2000);
        assert!(
            pit.owed() <= 1,
            "at most the rise that the control word itself makes"
        );
    }

    #[test]
    fn a_one_shot_ticks_once() {
        let mut pit = Pit::new();
        program(&mut pit, at(0), 0x30, 500);
        assert_eq!(pit.next_deadline(), Some(at(501)));
        pit.advance(at(200_000));
        assert_eq!((pit.owed(), pit.next_deadline()), (1, None));
    }

    #[test]
    fn read_back_gives_status_then_count_of_every_chosen_counter() {
        let mut pit = Pit::new();
        program(&mut pit, at(0), 0x34, 1000);
        program(&mut pit, at(0), 0xB6, 400);
        pit.write(at(101), 0x43, 0xC2 | 0x08);
        assert_eq!(
            pit.read(at(500), 0x40),
            0xB4,
            "out high, count loaded, both bytes, mode 2"
        );
        let count = [pit.read(at(500), 0x40), pit.read(at(600), 0x40)];
        assert_eq!(u16::from_le_bytes(count), 900);
        assert_eq!(pit.read(at(500), 0x42), 0xB6);
    }

    #[test]
    fn port_61h_gates_counter_two_and_shows_its_output_and_the_refresh_toggle() {
        let mut pit = Pit::new();
        pit.write(at(0), 0x61, 0x01);
        program(&mut pit, at(0), 0xB0, 100);
        assert_eq!(pit.read(at(100), 0x61) & 0x20, 0);
        assert_eq!(pit.read(at(101), 0x61) & 0x20, 0x20);
        assert_ne!(pit.read(at(0), 0x61) & 0x10, pit.read(at(18), 0x61) & 0x10);
        pit.write(at(200), 0x61, 0xFF);
        assert_eq!(pit.read(at(200), 0x61) & 0xCF, 0x0F);
    }

    #[test]
    fn the_speaker_hears_counter_two_while_bit_1_of_port_61h_is_set() {
        let mut pit = Pit::new();
        program(&mut pit, at(0), 0xB6, 1193);
        pit.write(at(5), 0x61, 0x01);
        assert_eq!(pit.speaker(at(5)), [Some(Wave::rest(5, false)), None, None]);
        pit.write(at(9), 0x61, 0x03);
        let [Some(tone), None, None] = pit.speaker(at(9)) else {
            panic!("one wave for a tone");
        };
        assert_eq!((tone.from, tone.high, tone.period), (9, 597, 1193));
        // The gate opened at 5 loads the count at the next pulse.
        assert_eq!(tone.phase, 3);
    }

    #[test]
    fn the_bios_state_ticks_eighteen_times_a_second() {
        let mut pit = Pit::new();
        pit.firmware_state(VmTime(7));
        pit.advance(VmTime(NANOS_PER_SEC));
        assert_eq!(pit.owed(), 18);
    }
}
