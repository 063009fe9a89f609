//! The PS/2 keyboard: commands, scan-code sets, and what it has to say.
//!
//! Events are taken from the host only when their whole sequence fits, so nothing typed is lost. The host's own
//! repetitions do not reach this place: a key that is held repeats by the rate that the guest has set.

use std::collections::VecDeque;

use quintet_protocol::time::{NANOS_PER_SEC, VmTime};
use serde::{Deserialize, Serialize};

use super::keymap::{self, PAUSE, PAUSE_USAGE};
use crate::bus::KeyEvent;

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
    /// Set 3: break codes for all keys, for none, or by the key.
    all_break: Option<bool>,
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
            all_break: None,
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
        self.all_break = None;
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
                // Key types by the key are acknowledged; what they change is typematic only.
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
            0xF7 | 0xF9 => {
                self.all_break = Some(false);
                self.reply(&[ACK]);
            }
            0xF8 | 0xFA => {
                self.all_break = Some(true);
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

    /// A key event of the host. To be called with room only.
    pub(super) fn event(&mut self, now: VmTime, event: KeyEvent) -> EventResult {
        match event {
            KeyEvent::Key { usage, down } => self.key(now, usage, down),
            KeyEvent::ReleaseAll => {
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
            self.repeat = (usage != PAUSE_USAGE).then_some((usage, now + delay * NANOS_PER_SEC / 4));
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

    fn make(&mut self, usage: u8) {
        let Some(codes) = keymap::codes(usage) else { return };
        let [prefix, code] = codes.set2.to_be_bytes();
        match self.set {
            3 => self.queue.push_back(codes.set3),
            // Pause sends make and break together when it is pressed.
            1 if codes.set2 == PAUSE => self.queue.extend([0xE1, 0x1D, 0x45, 0xE1, 0x9D, 0xC5]),
            _ if codes.set2 == PAUSE => self
                .queue
                .extend([0xE1, 0x14, 0x77, 0xE1, 0xF0, 0x14, 0xF0, 0x77]),
            set => {
                self.queue.extend((prefix != 0).then_some(prefix));
                self.queue
                    .push_back(if set == 1 { keymap::translate(code) } else { code });
            }
        }
    }

    fn break_(&mut self, usage: u8) {
        let Some(codes) = keymap::codes(usage) else { return };
        let [prefix, code] = codes.set2.to_be_bytes();
        match self.set {
            3 if self.all_break.unwrap_or_else(|| keymap::breaks_in_set3(usage)) => {
                self.queue.extend([0xF0, codes.set3]);
            }
            3 => {}
            _ if codes.set2 == PAUSE => {}
            set => {
                self.queue.extend((prefix != 0).then_some(prefix));
                if set == 1 {
                    self.queue.push_back(keymap::translate(code) | 0x80);
                } else {
                    self.queue.extend([0xF0, code]);
                }
            }
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
