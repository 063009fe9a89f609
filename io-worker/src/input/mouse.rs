//! The PS/2 mouse: plain, IntelliMouse (wheel) and IntelliMouse Explorer (wheel and five buttons).
//!
//! What the host's pointer does is gathered and reported at the sample rate that the guest has set, the first movement
//! after a rest at once. Movement that does not fit into one report goes into the next ones; a button's every change
//! gets a report of its own, so that no click is lost between two samples.
//!
//! References: IBM PS/2 Hardware Interface Technical Reference, Mouse; Microsoft, "PS/2 mouse: five buttons" (the knock
//! by sample rates that makes a mouse tell its wheel).

use std::collections::VecDeque;

use quintet_protocol::input::{Button, InputEvent};
use quintet_protocol::time::{NANOS_PER_SEC, VmTime};
use serde::{Deserialize, Serialize};

const ACK: u8 = 0xFA;
const RESEND: u8 = 0xFE;
const SELF_TEST_PASSED: u8 = 0xAA;
/// Bytes that the part buffers: four reports of the longest kind.
const BUFFER: usize = 16;
/// Replies never exceed this over the buffer.
const QUEUE_MAX: usize = BUFFER + 64;
/// Changes of buttons that wait for their reports; with more, the oldest is left out.
const CLICKS_MAX: usize = 32;
/// Movement that is kept for later reports, in counts.
const FAR: i32 = 4096;

/// What the device identity says (command F2h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Kind {
    /// Three buttons, three bytes.
    Plain,
    /// With a wheel in a fourth byte.
    Wheel,
    /// With a wheel and two more buttons in a fourth byte.
    Explorer,
}

/// A change of buttons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Click {
    /// Movement before it that has not been reported.
    moved: [i32; 3],
    /// Buttons after it.
    buttons: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mouse {
    queue: VecDeque<u8>,
    /// Bytes at the head of the queue that are replies to a command, not a report.
    replies: u8,
    kind: Kind,
    reporting: bool,
    remote: bool,
    wrap: bool,
    /// Scaling 2:1.
    scaled: bool,
    /// Bits of the resolution: 2^n counts a millimetre. Told, and otherwise without effect: the host counts.
    resolution: u8,
    /// Samples a second.
    rate: u8,
    /// The two sample rates set before this one: the knock.
    rates: [u8; 2],
    /// A command that waits for its parameter.
    command: Option<u8>,
    /// What FEh repeats.
    last: Vec<u8>,
    /// Movement since the last click, not yet reported: right, down, and the wheel towards the user.
    moved: [i32; 3],
    /// Buttons as reported last: bit n is button n of [`Button`].
    buttons: u8,
    /// Changes of buttons, each to be reported where it happened.
    clicks: VecDeque<Click>,
    /// No report before this.
    next: VmTime,
}

impl Mouse {
    pub(super) fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            replies: 0,
            kind: Kind::Plain,
            reporting: false,
            remote: false,
            wrap: false,
            scaled: false,
            resolution: 2,
            rate: 100,
            rates: [0; 2],
            command: None,
            last: Vec::new(),
            moved: [0; 3],
            buttons: 0,
            clicks: VecDeque::new(),
            next: VmTime(0),
        }
    }

    pub(super) fn is_sane(&self) -> bool {
        self.queue.len() <= QUEUE_MAX
            && usize::from(self.replies) <= self.queue.len()
            && self.last.len() <= BUFFER
            && self.clicks.len() <= CLICKS_MAX
            && self.resolution < 4
            && self.rate != 0
    }

    /// The next byte for the controller.
    pub(super) fn pop(&mut self) -> Option<u8> {
        let byte = self.queue.pop_front()?;
        self.replies = self.replies.saturating_sub(1);
        Some(byte)
    }

    fn reply(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if self.queue.len() < QUEUE_MAX {
                self.queue.insert(usize::from(self.replies), byte);
                self.replies += 1;
            }
        }
        self.last = bytes.to_vec();
    }

    /// Settings of F6h, which leave the kind as it is.
    fn defaults(&mut self) {
        self.reporting = false;
        self.remote = false;
        self.scaled = false;
        self.resolution = 2;
        self.rate = 100;
        self.forget();
    }

    /// Drops what has not been reported. Buttons are then told as they are, with the next report.
    fn forget(&mut self) {
        self.queue.clear();
        self.replies = 0;
        self.moved = [0; 3];
        self.buttons = self.pressed();
        self.clicks.clear();
    }

    /// A byte from the controller.
    pub(super) fn write(&mut self, byte: u8) {
        if self.wrap && !matches!(byte, 0xEC | 0xFF) {
            return self.reply(&[byte]);
        }
        // A byte that can only be a command ends the wait for a parameter.
        match self.command.take() {
            Some(0xE8) if byte < 4 => {
                self.resolution = byte;
                self.reply(&[ACK]);
            }
            Some(0xF3) if matches!(byte, 10 | 20 | 40 | 60 | 80 | 100 | 200) => {
                self.set_rate(byte);
                self.reply(&[ACK]);
            }
            Some(0xE8 | 0xF3) if byte < 0xE6 => self.reply(&[RESEND]),
            _ => self.execute(byte),
        }
    }

    fn set_rate(&mut self, rate: u8) {
        self.kind = match (self.rates, rate) {
            ([200, 100], 80) => Kind::Wheel,
            ([200, 200], 80) if self.kind != Kind::Plain => Kind::Explorer,
            _ => self.kind,
        };
        self.rates = [self.rates[1], rate];
        self.rate = rate;
    }

    fn id(&self) -> u8 {
        match self.kind {
            Kind::Plain => 0,
            Kind::Wheel => 3,
            Kind::Explorer => 4,
        }
    }

    fn execute(&mut self, command: u8) {
        match command {
            0xE6 | 0xE7 => {
                self.scaled = command == 0xE7;
                self.reply(&[ACK]);
            }
            0xE8 | 0xF3 => {
                self.command = Some(command);
                self.reply(&[ACK]);
            }
            0xE9 => {
                let pressed = self.pressed();
                // Here the left button is bit 2, and the middle one bit 1.
                let buttons = (pressed & 1) << 2 | (pressed & 4) >> 1 | (pressed & 2) >> 1;
                let status = u8::from(self.remote) << 6
                    | u8::from(self.reporting) << 5
                    | u8::from(self.scaled) << 4
                    | buttons;
                self.reply(&[ACK, status, self.resolution, self.rate]);
            }
            0xEA | 0xF0 => {
                self.remote = command == 0xF0;
                self.forget();
                self.reply(&[ACK]);
            }
            0xEB => {
                self.queue.clear();
                self.replies = 0;
                let mut bytes = vec![ACK];
                bytes.extend(self.report(false));
                self.reply(&bytes);
            }
            0xEC | 0xEE => {
                self.wrap = command == 0xEE;
                self.reply(&[ACK]);
            }
            0xF2 => self.reply(&[ACK, self.id()]),
            0xF4 | 0xF5 => {
                self.reporting = command == 0xF4;
                self.forget();
                self.reply(&[ACK]);
            }
            0xF6 => {
                self.defaults();
                self.reply(&[ACK]);
            }
            0xFE => {
                let last = std::mem::take(&mut self.last);
                self.reply(&last);
            }
            0xFF => {
                self.defaults();
                self.kind = Kind::Plain;
                self.rates = [0; 2];
                self.wrap = false;
                self.reply(&[ACK, SELF_TEST_PASSED, self.id()]);
            }
            _ => self.reply(&[RESEND]),
        }
    }

    /// Buttons as they are.
    fn pressed(&self) -> u8 {
        self.clicks.back().map_or(self.buttons, |click| click.buttons)
    }

    /// Takes up what the pointer of the host did; keys are none of its business.
    pub(super) fn event(&mut self, event: InputEvent) {
        let mut buttons = self.pressed();
        let before = buttons;
        match event {
            InputEvent::Motion { dx, dy } => {
                self.moved[0] = (self.moved[0] + i32::from(dx)).clamp(-FAR, FAR);
                self.moved[1] = (self.moved[1] + i32::from(dy)).clamp(-FAR, FAR);
            }
            InputEvent::Wheel { notches } => {
                self.moved[2] = (self.moved[2] - i32::from(notches)).clamp(-FAR, FAR);
            }
            InputEvent::Button { button, down } => {
                let bit = 1 << button as u8;
                buttons = buttons & !bit | if down { bit } else { 0 };
            }
            InputEvent::ReleaseAll => buttons = 0,
            InputEvent::Key { .. } | InputEvent::Position { .. } => {}
        }
        if buttons != before {
            if self.clicks.len() == CLICKS_MAX {
                self.clicks.pop_front();
            }
            let moved = std::mem::take(&mut self.moved);
            self.clicks.push_back(Click { moved, buttons });
        }
        if !self.reporting && !self.remote {
            self.forget();
        }
    }

    /// Whether there is something that the guest wants to hear by itself, and room for it.
    fn has_news(&self) -> bool {
        let told = match self.kind {
            Kind::Plain => &self.moved[..2],
            Kind::Wheel | Kind::Explorer => &self.moved[..],
        };
        self.reporting
            && !self.remote
            && !self.wrap
            && self.queue.len() + 4 <= BUFFER
            && (!self.clicks.is_empty() || told.iter().any(|moved| *moved != 0))
    }

    /// When the next report is due.
    pub(super) fn next_report(&self) -> Option<VmTime> {
        self.has_news().then_some(self.next)
    }

    /// Queues a report if it is time for one.
    pub(super) fn sample(&mut self, now: VmTime) -> bool {
        if !self.has_news() || now < self.next {
            return false;
        }
        let report = self.report(self.scaled);
        self.queue.extend(&report);
        self.last = report;
        self.next = now + NANOS_PER_SEC / u64::from(self.rate);
        true
    }

    /// A report an absolute pointer has to show: an interrupt with nothing in it.
    pub(super) fn nudge(&mut self) {
        if self.reporting && !self.remote && self.queue.len() + 4 <= BUFFER {
            let report = self.report(false);
            self.queue.extend(&report);
        }
    }

    fn report(&mut self, scaled: bool) -> Vec<u8> {
        let moved = self
            .clicks
            .front_mut()
            .map_or(&mut self.moved, |click| &mut click.moved);
        // A report tells −256 to 255; here −255, so that both directions are as fast.
        let mut part = |axis: usize, most: i32| {
            let now = moved[axis].clamp(-most, most);
            moved[axis] -= now;
            now
        };
        let (most, sign) = if scaled {
            (127, scale as fn(i32) -> i32)
        } else {
            (255, same as _)
        };
        let (dx, dy) = (sign(part(0, most)), sign(-part(1, most)));
        let dz = part(2, if self.kind == Kind::Explorer { 7 } else { 127 });
        // The click comes with the last of the movement before it. A wheel that nobody hears of holds nothing up.
        let axes = if self.kind == Kind::Plain { 2 } else { 3 };
        if moved[..axes].iter().all(|rest| *rest == 0)
            && let Some(click) = self.clicks.pop_front()
        {
            self.buttons = click.buttons;
        }
        let first = 8 | u8::from(dx < 0) << 4 | u8::from(dy < 0) << 5 | self.buttons & 7;
        let mut report = vec![first, dx as u8, dy as u8];
        match self.kind {
            Kind::Plain => {}
            Kind::Wheel => report.push(dz as u8),
            Kind::Explorer => report.push(dz as u8 & 15 | (self.buttons & 0x18) << 1),
        }
        report
    }
}

/// Buttons by their bit in the first byte of a report are those of [`Button`].
const _: () = assert!(Button::Left as u8 == 0 && Button::Right as u8 == 1 && Button::Middle as u8 == 2);

fn same(counts: i32) -> i32 {
    counts
}

/// Scaling 2:1 (IBM PS/2 Technical Reference, mouse, command E7h).
fn scale(counts: i32) -> i32 {
    let scaled = match counts.abs() {
        n @ (0 | 1 | 3) => n,
        2 => 1,
        4 => 6,
        5 => 9,
        n => 2 * n,
    };
    scaled * counts.signum()
}
