//! The PS/2 keyboard: commands, scan-code sets, and what it has to say.
//!
//! There is no typematic repeat: the host's events carry the state of keys, and guests repeat for
//! themselves. Events are taken from the host only when their whole sequence fits, so nothing typed is lost.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::keymap::{self, PAUSE};
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
}

impl Keyboard {
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
            Some(0xF3) if byte < 0x80 => self.reply(&[ACK]),
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

    /// A key event of the host. To be called with room only.
    pub(super) fn event(&mut self, event: KeyEvent) -> EventResult {
        match event {
            KeyEvent::Key { usage, down } => self.key(usage, down),
            KeyEvent::ReleaseAll => {
                // One release per call, since each needs room of its own.
                let Some(word) = self.held.iter().position(|w| *w != 0) else {
                    return EventResult::Done;
                };
                let usage = (word as u32 * 64 + self.held[word].trailing_zeros()) as u8;
                self.key(usage, false);
                if self.held.iter().any(|w| *w != 0) {
                    return EventResult::Again;
                }
            }
        }
        EventResult::Done
    }

    fn key(&mut self, usage: u8, down: bool) {
        let (word, bit) = (usize::from(usage / 64), 1_u64 << (usage % 64));
        let was = self.held[word] & bit != 0;
        let Some(codes) = keymap::codes(usage) else { return };
        if down {
            self.held[word] |= bit;
        } else {
            self.held[word] &= !bit;
        }
        if !self.scanning || was == down {
            return;
        }
        if self.set == 3 {
            let breaks = self.all_break.unwrap_or_else(|| keymap::breaks_in_set3(usage));
            if down {
                self.queue.push_back(codes.set3);
            } else if breaks {
                self.queue.extend([0xF0, codes.set3]);
            }
            return;
        }
        let set1 = self.set == 1;
        if codes.set2 == PAUSE {
            // Pause sends make and break together when pressed, nothing when released.
            let sequence: &[u8] = if set1 {
                &[0xE1, 0x1D, 0x45, 0xE1, 0x9D, 0xC5]
            } else {
                &[0xE1, 0x14, 0x77, 0xE1, 0xF0, 0x14, 0xF0, 0x77]
            };
            if down {
                self.queue.extend(sequence);
            }
            return;
        }
        let [prefix, code] = codes.set2.to_be_bytes();
        if prefix != 0 {
            self.queue.push_back(prefix);
        }
        match (set1, down) {
            (true, _) => self
                .queue
                .push_back(keymap::translate(code) | if down { 0 } else { 0x80 }),
            (false, true) => self.queue.push_back(code),
            (false, false) => self.queue.extend([0xF0, code]),
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
