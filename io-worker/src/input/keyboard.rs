//! The PS/2 keyboard: commands, scan-code sets, and what it has to say.
//!
//! Events are taken from the host only when their whole sequence fits, so nothing typed is lost. The host's own
//! repetitions do not reach this place: a key that is held repeats by the rate that the guest has set.

use std::collections::{BTreeMap, VecDeque};

use quintet_protocol::input::InputEvent;
use quintet_protocol::time::{NANOS_PER_SEC, VmTime};
use serde::{Deserialize, Serialize};

use super::keymap::{self, KeyType, PAUSE, PAUSE_USAGE, PRINT_SCREEN_USAGE};

const ACK: u8 = 0xFA;
const RESEND: u8 = 0xFE;
const ECHO: u8 = 0xEE;
const SELF_TEST_PASSED: u8 = 0xAA;
/// Identity of an MF2 keyboard.
const ID: [u8; 2] = [0xAB, 0x83];
/// Bytes that the part buffers.
const BUFFER: usize = 16;
/// Bytes of the longest sequence, Pause.
const SEQUENCE_MAX: usize = 8;
/// Replies never exceed this over the buffer.
pub(super) const QUEUE_MAX: usize = BUFFER + 64;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Keyboard {
    queue: VecDeque<u8>,
    /// Bytes at the head of the queue that are replies to a command, not scan codes.
    replies: u8,
    scanning: bool,
    set: u8,
    leds: u8,
    /// A command that waits for its parameter.
    command: Option<u8>,
    /// What FEh repeats.
    last: u8,
    /// Set 3: what all keys do, unless each does what it does by itself.
    all: Option<KeyType>,
    /// Set 3: what keys do that the guest has singled out, by their codes in set 3.
    singled: BTreeMap<u8, KeyType>,
    /// Codes that Print Screen went down with, for its release.
    print_screen: Vec<u16>,
    /// Keys held, a bit per usage.
    held: [u64; 4],
    /// Parameter of F3h: bits 6–5 the delay, 4–0 the rate.
    typematic: u8,
    /// The key that repeats, and when it does next.
    repeat: Option<(u8, VmTime)>,
}

/// Typematic delay and rate after power-on: 500 ms, 10.9 a second.
const TYPEMATIC: u8 = 0x2B;

impl Keyboard {
    /// Bit 0 scroll, 1 num, 2 caps.
    pub(super) fn leds(&self) -> u8 {
        self.leds
    }

    pub(super) fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            replies: 0,
            scanning: false,
            set: 2,
            leds: 0,
            command: None,
            last: 0,
            all: None,
            singled: BTreeMap::new(),
            print_screen: Vec::new(),
            held: [0; 4],
            typematic: TYPEMATIC,
            repeat: None,
        }
    }

    /// As firmware leaves it: scanning.
    pub(super) fn enable(&mut self) {
        self.scanning = true;
    }

    pub(super) fn is_sane(&self) -> bool {
        self.queue.len() <= QUEUE_MAX
            && (1..=3).contains(&self.set)
            && usize::from(self.replies) <= self.queue.len()
            && self.singled.len() <= usize::from(keymap::SET3_MAX)
            && self.print_screen.len() <= 2
    }

    /// The next byte for the controller.
    pub(super) fn pop(&mut self) -> Option<u8> {
        let byte = self.queue.pop_front()?;
        self.replies = self.replies.saturating_sub(1);
        self.last = byte;
        Some(byte)
    }

    /// Whether a further event's sequence fits.
    pub(super) fn has_room(&self) -> bool {
        self.queue.len() + SEQUENCE_MAX <= BUFFER
    }

    fn reply(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if self.queue.len() < QUEUE_MAX {
                // Replies go before scan codes that wait.
                self.queue.insert(usize::from(self.replies), byte);
                self.replies += 1;
            }
        }
    }

    fn defaults(&mut self) {
        self.set = 2;
        self.all = None;
        self.singled.clear();
        self.typematic = TYPEMATIC;
        self.repeat = None;
        self.queue.clear();
        self.replies = 0;
    }

    /// A byte from the controller.
    pub(super) fn write(&mut self, byte: u8) {
        // A byte that can only be a command ends the wait for a parameter.
        match self.command.take() {
            Some(0xED) if byte < 0x80 => {
                self.leds = byte & 7;
                self.reply(&[ACK]);
            }
            Some(0xF3) if byte < 0x80 => {
                self.typematic = byte;
                self.reply(&[ACK]);
            }
            Some(0xF0) if byte == 0 => self.reply(&[ACK, self.set]),
            Some(0xF0) if byte <= 3 => {
                self.set = byte;
                self.reply(&[ACK]);
            }
            Some(0xF0) if byte < 0x80 => self.reply(&[RESEND]),
            Some(listed @ 0xFB..=0xFD) if byte < 0xED => {
                // A list of keys of any length; the next command ends it.
                if byte != 0 && byte <= keymap::SET3_MAX {
                    self.singled.insert(byte, KeyType::of_command(listed));
                }
                self.command = Some(listed);
                self.reply(&[ACK]);
            }
            _ => self.execute(byte),
        }
    }

    fn execute(&mut self, command: u8) {
        match command {
            0xED | 0xF0 | 0xF3 | 0xFB..=0xFD => {
                self.command = Some(command);
                self.reply(&[ACK]);
            }
            0xEE => self.reply(&[ECHO]),
            0xF2 => self.reply(&[ACK, ID[0], ID[1]]),
            0xF4 => {
                self.queue.clear();
                self.replies = 0;
                self.scanning = true;
                self.reply(&[ACK]);
            }
            0xF5 | 0xF6 => {
                self.defaults();
                if command == 0xF5 {
                    self.scanning = false;
                }
                self.reply(&[ACK]);
            }
            0xF7..=0xFA => {
                self.all = Some(KeyType::of_command(command));
                self.singled.clear();
                self.reply(&[ACK]);
            }
            0xFE => self.reply(&[self.last]),
            0xFF => {
                self.defaults();
                self.leds = 0;
                self.scanning = true;
                self.reply(&[ACK, SELF_TEST_PASSED]);
            }
            _ => self.reply(&[RESEND]),
        }
    }

    /// When a held key repeats next.
    pub(super) fn next_repeat(&self) -> Option<VmTime> {
        self.repeat.filter(|_| self.scanning).map(|(_, at)| at)
    }

    /// Lets a held key repeat if it is time. A repetition that finds no room, or comes late, is left out.
    pub(super) fn repeat(&mut self, now: VmTime) -> bool {
        let Some((usage, _)) = self.repeat.filter(|(_, at)| self.scanning && *at <= now) else {
            return false;
        };
        // (8 + A) · 2^B · 4.17 ms (IBM PS/2 Technical Reference, set typematic rate).
        let period = (8 + u64::from(self.typematic & 7)) << (self.typematic >> 3 & 3);
        self.repeat = Some((usage, now + period * NANOS_PER_SEC / 240));
        if self.has_room() {
            self.make(usage);
        }
        true
    }

    /// A key event of the host; what the pointer did is none of its business. To be called with room only.
    pub(super) fn event(&mut self, now: VmTime, event: InputEvent) -> EventResult {
        match event {
            InputEvent::Key { key, down } => self.key(now, key.0, down),
            InputEvent::ReleaseAll => {
                // One release per call, since each needs room of its own.
                let Some(word) = self.held.iter().position(|w| *w != 0) else {
                    return EventResult::Done;
                };
                let usage = (word as u32 * 64 + self.held[word].trailing_zeros()) as u8;
                self.key(now, usage, false);
                if self.held.iter().any(|w| *w != 0) {
                    return EventResult::Again;
                }
            }
            _ => {}
        }
        EventResult::Done
    }

    fn key(&mut self, now: VmTime, usage: u8, down: bool) {
        let (word, bit) = (usize::from(usage / 64), 1_u64 << (usage % 64));
        let was = self.held[word] & bit != 0;
        if keymap::codes(usage).is_none() || was == down {
            return;
        }
        self.held[word] ^= bit;
        if down {
            let delay = u64::from(self.typematic >> 5 & 3) + 1;
            let repeats = usage != PAUSE_USAGE && (self.set != 3 || self.type_of(usage).repeats);
            self.repeat = repeats.then_some((usage, now + delay * NANOS_PER_SEC / 4));
        } else if self.repeat.is_some_and(|(repeating, _)| repeating == usage) {
            self.repeat = None;
        }
        if !self.scanning {
            return;
        }
        if down {
            self.make(usage);
        } else {
            self.break_(usage);
        }
    }

    /// What a key does in set 3.
    fn type_of(&self, usage: u8) -> KeyType {
        let code = keymap::codes(usage).map_or(0, |codes| codes.set3);
        let singled = self.singled.get(&code).copied();
        singled
            .or(self.all)
            .unwrap_or_else(|| keymap::type_in_set3(usage))
    }

    fn holds(&self, usages: [u8; 2]) -> bool {
        usages
            .iter()
            .any(|usage| self.held[usize::from(usage / 64)] >> (usage % 64) & 1 != 0)
    }

    /// What Print Screen and Pause say in sets 1 and 2 depends on the keys held with them (IBM PS/2 Technical Reference,
    /// keyboard, scan code set 1, keys 124 and 126). The codes of set 2, each with its prefix in the high byte.
    fn special(&self, usage: u8) -> Option<&'static [u16]> {
        const CTRL: [u8; 2] = [0xE0, 0xE4];
        const SHIFT: [u8; 2] = [0xE1, 0xE5];
        const ALT: [u8; 2] = [0xE2, 0xE6];
        match usage {
            PRINT_SCREEN_USAGE if self.holds(ALT) => Some(&[0x84]),
            PRINT_SCREEN_USAGE if self.holds(CTRL) || self.holds(SHIFT) => Some(&[0xE07C]),
            PRINT_SCREEN_USAGE => Some(&[0xE012, 0xE07C]),
            PAUSE_USAGE if self.holds(CTRL) => Some(&[0xE07E]),
            _ => None,
        }
    }

    /// A code in set 1 or 2.
    fn code(&mut self, code: u16, released: bool) {
        let [prefix, code] = code.to_be_bytes();
        self.queue.extend((prefix != 0).then_some(prefix));
        if self.set == 1 {
            let high = if released { 0x80 } else { 0 };
            self.queue.push_back(keymap::translate(code) | high);
        } else {
            self.queue.extend(released.then_some(0xF0));
            self.queue.push_back(code);
        }
    }

    fn make(&mut self, usage: u8) {
        let Some(codes) = keymap::codes(usage) else { return };
        match (self.set, self.special(usage)) {
            (3, _) => self.queue.push_back(codes.set3),
            (_, Some(special)) => {
                for code in special {
                    self.code(*code, false);
                }
                if usage == PAUSE_USAGE {
                    // Break sends its own release when it is pressed, as Pause does.
                    self.code(special[0], true);
                } else {
                    self.print_screen = special.to_vec();
                }
            }
            // Pause sends make and break together when it is pressed.
            (1, None) if codes.set2 == PAUSE => self.queue.extend([0xE1, 0x1D, 0x45, 0xE1, 0x9D, 0xC5]),
            (_, None) if codes.set2 == PAUSE => self
                .queue
                .extend([0xE1, 0x14, 0x77, 0xE1, 0xF0, 0x14, 0xF0, 0x77]),
            (_, None) => self.code(codes.set2, false),
        }
    }

    fn break_(&mut self, usage: u8) {
        let Some(codes) = keymap::codes(usage) else { return };
        match usage {
            _ if self.set == 3 => {
                if self.type_of(usage).breaks {
                    self.queue.extend([0xF0, codes.set3]);
                }
            }
            PAUSE_USAGE => {}
            PRINT_SCREEN_USAGE => {
                for code in std::mem::take(&mut self.print_screen).into_iter().rev() {
                    self.code(code, true);
                }
            }
            _ => self.code(codes.set2, true),
        }
    }
}

/// Whether an event has been taken up whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventResult {
    Done,
    /// To be given again once there is room.
    Again,
}
