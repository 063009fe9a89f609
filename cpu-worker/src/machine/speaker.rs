//! Tells audio-worker how the PC speaker's line goes on.
//!
//! Looked at after each write of a port that the line depends on. Only what differs from what was told is told: guests write these
//! ports for other reasons too (calibration by counter 2, NMI masks).

use quintet_protocol::doorbell::Doorbell;
use quintet_protocol::speaker::{PIT_HZ, SpeakerWriter, Wave, Waves};

/// So many pulses after a change that was to be heard audio-worker may have fallen asleep, and is rung. It stays awake much longer.
const RECENT: u64 = PIT_HZ / 10;

/// The line's end in cpu-worker.
#[derive(Debug)]
pub struct SpeakerLine {
    writer: SpeakerWriter,
    audio: Doorbell,
    told: Waves,
    /// Pulse of the last change that is heard.
    heard: Option<u64>,
}

impl SpeakerLine {
    /// A line that is silent, whatever a predecessor has told.
    pub fn new(mut writer: SpeakerWriter, audio: Doorbell) -> Self {
        let silent = Wave::rest(0, false);
        writer.push(silent);
        audio.ring();
        Self {
            writer,
            audio,
            told: [Some(silent), None, None],
            heard: None,
        }
    }

    /// Whether what the line does may depend on a write to `port` of `size` bytes.
    pub fn hears(port: u16, size: u8) -> bool {
        let touches = |at: u16| (port..port.saturating_add(u16::from(size))).contains(&at);
        touches(0x42) || touches(0x43) || touches(0x61)
    }

    /// Tells `waves`, which begin now.
    pub fn follow(&mut self, waves: Waves) {
        let Some(now) = waves[0] else { return };
        let told = going_on(self.told, now.from);
        if waves == told {
            return;
        }
        let asleep = self.heard.is_none_or(|at| now.from.saturating_sub(at) > RECENT);
        let mut before = told[0].unwrap_or_default();
        for wave in waves.into_iter().flatten() {
            self.writer.push(wave);
            if wave.is_heard_after(&before) {
                self.heard = Some(wave.from);
            }
            before = wave;
        }
        self.told = waves;
        if asleep {
            self.audio.ring();
        }
    }
}

/// What `told` comes to from pulse `from` on.
fn going_on(told: Waves, from: u64) -> Waves {
    let begun = told.iter().flatten().filter(|w| w.from <= from).count();
    let mut on = Waves::default();
    let rest = told.into_iter().skip(begun.saturating_sub(1));
    for (to, wave) in on.iter_mut().zip(rest) {
        *to = wave;
    }
    on[0] = on[0].map(|wave| wave.going_on(from));
    on
}

#[cfg(test)]
mod tests {
    use super::*;
    use quintet_protocol::doorbell::SpinPolicy;
    use quintet_protocol::handshake::Role;
    use quintet_protocol::layout::{Ends, SegmentSet, SleeperId};
    use quintet_protocol::ram::RamLayout;
    use quintet_protocol::speaker::SpeakerReader;

    fn line() -> (SpeakerLine, SpeakerReader) {
        let files = SegmentSet::create(RamLayout::new(0x1_0000), 1).expect("files");
        let ends = |role| Ends::new(&files.maps(role).expect("maps"));
        let (cpu, audio) = (ends(Role::Cpu), ends(Role::Audio));
        let line = SpeakerLine::new(cpu.speaker_writer(), cpu.doorbell(SleeperId::Audio));
        (line, audio.speaker_reader())
    }

    #[test]
    fn audio_worker_is_rung_unless_it_is_awake() {
        let files = SegmentSet::create(RamLayout::new(0x1_0000), 1).expect("files");
        let ends = |role| Ends::new(&files.maps(role).expect("maps"));
        let (cpu, audio) = (ends(Role::Cpu), ends(Role::Audio));
        let sleeper = audio.sleeper(SleeperId::Audio, SpinPolicy::NEVER);
        let mut line = SpeakerLine::new(cpu.speaker_writer(), cpu.doorbell(SleeperId::Audio));
        assert!(sleeper.take(), "what a predecessor told is over");
        let mut rung = |from: u64, high: bool| {
            line.follow([Some(Wave::rest(from, high)), None, None]);
            sleeper.take()
        };
        // Right at the beginning of time, then while it listens, then when it may have given up.
        assert!(rung(5, true));
        assert!(!rung(5 + RECENT, false));
        assert!(rung(6 + 2 * RECENT, true));
    }

    fn news(reader: &mut SpeakerReader) -> Vec<Wave> {
        std::iter::from_fn(|| reader.take()).collect()
    }

    const TONE: Wave = Wave {
        from: 100,
        phase: 10,
        high: 600,
        period: 1200,
    };

    #[test]
    fn what_is_told_already_is_not_told_again() {
        let (mut line, mut reader) = line();
        assert_eq!(news(&mut reader), [Wave::rest(0, false)]);
        line.follow([Some(Wave::rest(50, false)), None, None]);
        assert_eq!(news(&mut reader), []);
        line.follow([Some(TONE), None, None]);
        line.follow([Some(TONE.going_on(3000)), None, None]);
        assert_eq!(news(&mut reader), [TONE]);
        line.follow([Some(Wave { from: 3000, ..TONE }), None, None]);
        assert_eq!(news(&mut reader).len(), 1);
    }

    #[test]
    fn a_one_shot_is_told_once_before_and_after_its_end() {
        let (mut line, mut reader) = line();
        news(&mut reader);
        let end = Wave::rest(500, true);
        line.follow([Some(Wave::rest(100, false)), Some(end), None]);
        assert_eq!(news(&mut reader), [Wave::rest(100, false), end]);
        line.follow([Some(Wave::rest(300, false)), Some(end), None]);
        line.follow([Some(Wave::rest(500, true)), None, None]);
        line.follow([Some(Wave::rest(900, true)), None, None]);
        assert_eq!(news(&mut reader), []);
        line.follow([Some(Wave::rest(950, false)), None, None]);
        assert_eq!(news(&mut reader), [Wave::rest(950, false)]);
    }

    #[test]
    fn its_ports_are_those_of_counter_two_and_port_61h() {
        let ports = |size| {
            (0..0x80)
                .filter(|&p| SpeakerLine::hears(p, size))
                .collect::<Vec<_>>()
        };
        assert_eq!(ports(1), [0x42, 0x43, 0x61]);
        assert_eq!(ports(2), [0x41, 0x42, 0x43, 0x60, 0x61]);
    }
}
