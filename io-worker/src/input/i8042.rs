//! The keyboard controller (IBM PS/2 Technical Reference, keyboard and auxiliary device controller).
//!
//! Ports 60h (region 0) and 64h (region 1), and the VMware backdoor's 5658h (region 2), whose pointer shares the mouse's
//! interrupt. The interrupt lines follow the output buffer, so that each byte gives an edge of its own (S3.92).
//!
//! Input of the host is taken here: keys wait in order until the keyboard has room for them, and the pointer does not wait
//! for the keys before it, so that a guest that leaves its keyboard alone keeps its mouse.

use std::collections::VecDeque;

use quintet_protocol::input::InputEvent;
use quintet_protocol::time::VmTime;
use serde::{Deserialize, Serialize};

use super::keyboard::{EventResult, Keyboard};
use super::keymap;
use super::mouse::Mouse;
use super::vmmouse::VmMouse;
use crate::bus::regmap::Attr;
use crate::bus::{
    Access, Backplane, Device, Interrupts, Line, MachineRequest, Pin, PinTarget, PointerKind, Region,
    RegionKind, Size, StateError, load_state, save_state,
};

const KEYBOARD_LINE: Line = Line(1);
const AUX_LINE: Line = Line(12);

mod status {
    pub(super) const OBF: u8 = 0x01;
    pub(super) const SYSTEM: u8 = 0x04;
    pub(super) const COMMAND: u8 = 0x08;
    /// The keyboard is not locked by its key.
    pub(super) const UNLOCKED: u8 = 0x10;
    pub(super) const AUX: u8 = 0x20;
}
mod ctr {
    pub(super) const KEYBOARD_IRQ: u8 = 0x01;
    pub(super) const AUX_IRQ: u8 = 0x02;
    pub(super) const SYSTEM: u8 = 0x04;
    pub(super) const KEYBOARD_OFF: u8 = 0x10;
    pub(super) const AUX_OFF: u8 = 0x20;
    pub(super) const TRANSLATE: u8 = 0x40;
}
/// Bits of the output port.
mod port {
    /// Low: the processor's reset line is pulled.
    pub(super) const NOT_RESET: u8 = 0x01;
    pub(super) const A20: u8 = 0x02;
    pub(super) const KEYBOARD_IRQ: u8 = 0x10;
    pub(super) const AUX_IRQ: u8 = 0x20;
    /// Clock and data lines of the keyboard, idle.
    pub(super) const IDLE: u8 = 0xC0;
}

/// Where a byte in the output buffer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Source {
    Keyboard,
    Controller,
    Aux,
}

/// Key events that wait for room in the keyboard; more wait in the ring.
const WAITING_MAX: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    keyboard: Keyboard,
    mouse: Mouse,
    backdoor: VmMouse,
    /// Key events for the keyboard, oldest first.
    waiting: VecDeque<InputEvent>,
    output: Option<(u8, Source)>,
    /// What the output buffer held last: reading it empty gives that.
    last: u8,
    /// Controller RAM; byte 0 is the command byte.
    ram: [u8; 32],
    out_port: u8,
    /// A command that waits for its byte at port 60h.
    command: Option<u8>,
    /// The last write went to port 64h.
    wrote_command: bool,
    /// The break prefix has been seen in translation mode.
    breaking: bool,
    /// Keys are being released.
    releasing: bool,
}

impl State {
    fn new() -> Self {
        let mut ram = [0; 32];
        ram[0] = ctr::KEYBOARD_IRQ | ctr::AUX_IRQ;
        Self {
            keyboard: Keyboard::new(),
            mouse: Mouse::new(),
            backdoor: VmMouse::new(),
            waiting: VecDeque::new(),
            output: None,
            last: 0,
            ram,
            out_port: port::NOT_RESET | port::A20,
            command: None,
            wrote_command: true,
            breaking: false,
            releasing: false,
        }
    }

    fn status(&self) -> u8 {
        let mut v = status::UNLOCKED | self.ram[0] & ctr::SYSTEM;
        const { assert!(ctr::SYSTEM == status::SYSTEM) };
        match self.output {
            Some((_, Source::Aux)) => v |= status::OBF | status::AUX,
            Some(_) => v |= status::OBF,
            None => {}
        }
        if self.wrote_command {
            v |= status::COMMAND;
        }
        v
    }

    fn lines(&self) -> (bool, bool) {
        match self.output {
            // Replies of the controller come without an interrupt only where the command says so; the chip
            // raises the keyboard's for them too.
            Some((_, Source::Keyboard | Source::Controller)) => (self.ram[0] & ctr::KEYBOARD_IRQ != 0, false),
            Some((_, Source::Aux)) => (false, self.ram[0] & ctr::AUX_IRQ != 0),
            None => (false, false),
        }
    }
}

/// The controller with its keyboard and mouse.
#[derive(Debug)]
pub struct I8042 {
    keyboard_pin: Pin,
    aux_pin: Pin,
    state: State,
}

impl I8042 {
    /// A controller after power-on.
    pub fn new(irq: &mut Interrupts) -> Self {
        let keyboard_pin = irq.pin(PinTarget::Line(KEYBOARD_LINE));
        Self {
            keyboard_pin,
            aux_pin: irq.pin(PinTarget::Line(AUX_LINE)),
            state: State::new(),
        }
    }

    fn put(&mut self, byte: u8, source: Source) {
        self.state.output = Some((byte, source));
        self.state.last = byte;
    }

    fn update(&mut self, bp: &mut Backplane<'_>) {
        let (keyboard, aux) = self.state.lines();
        bp.irq.set(self.keyboard_pin, keyboard);
        bp.irq.set(self.aux_pin, aux);
    }

    /// Takes what the host's keyboard and pointer did. Returns whether there was anything.
    fn listen(&mut self, bp: &mut Backplane<'_>) -> bool {
        let mut heard = false;
        while self.state.waiting.len() < WAITING_MAX {
            let Some(event) = bp.streams.take_input() else {
                break;
            };
            heard = true;
            if matches!(event, InputEvent::Key { .. } | InputEvent::ReleaseAll) {
                self.state.waiting.push_back(event);
            }
            if self.state.backdoor.event(event) {
                self.state.mouse.nudge();
            } else if !self.state.backdoor.is_on() {
                self.state.mouse.event(event);
            }
        }
        heard
    }

    /// Gives the keyboard what waits for it. Returns whether anything moved.
    fn feed_keyboard(&mut self, now: VmTime) -> bool {
        let mut moved = false;
        while self.state.keyboard.has_room() {
            let event = if self.state.releasing {
                Some(InputEvent::ReleaseAll)
            } else {
                self.state.waiting.pop_front()
            };
            let Some(event) = event else { break };
            self.state.releasing = self.state.keyboard.event(now, event) == EventResult::Again;
            moved = true;
        }
        moved
    }

    /// Fills the output buffer if it is empty. Returns whether anything moved.
    fn refill(&mut self, bp: &mut Backplane<'_>) -> bool {
        let mut moved = self.listen(bp);
        let on = |state: &State, off: u8| state.output.is_none() && state.ram[0] & off == 0;
        while on(&self.state, ctr::KEYBOARD_OFF) {
            moved |= self.feed_keyboard(bp.now);
            // What has become free there is filled from the ring.
            moved |= self.listen(bp);
            let Some(byte) = self.state.keyboard.pop() else {
                break;
            };
            moved = true;
            if self.state.ram[0] & ctr::TRANSLATE == 0 {
                self.put(byte, Source::Keyboard);
            } else if byte == 0xF0 {
                self.state.breaking = true;
            } else {
                let high = if std::mem::take(&mut self.state.breaking) {
                    0x80
                } else {
                    0
                };
                self.put(keymap::translate(byte) | high, Source::Keyboard);
            }
        }
        if on(&self.state, ctr::AUX_OFF) {
            moved |= self.state.mouse.sample(bp.now);
            if let Some(byte) = self.state.mouse.pop() {
                self.put(byte, Source::Aux);
                moved = true;
            }
        }
        self.update(bp);
        moved
    }

    fn set_out_port(&mut self, bp: &mut Backplane<'_>, value: u8) {
        self.state.out_port = value & (port::NOT_RESET | port::A20);
        if value & port::NOT_RESET == 0 {
            self.state.out_port |= port::NOT_RESET;
            bp.requests.ask(MachineRequest::Reset);
        }
    }

    fn read_out_port(&self) -> u8 {
        let (keyboard, aux) = self.state.lines();
        let mut v = self.state.out_port | port::IDLE;
        if keyboard {
            v |= port::KEYBOARD_IRQ;
        }
        if aux {
            v |= port::AUX_IRQ;
        }
        v
    }

    fn execute(&mut self, bp: &mut Backplane<'_>, command: u8) {
        self.state.command = None;
        let ram0 = &mut self.state.ram[0];
        match command {
            0x20..=0x3F => self.put(self.state.ram[usize::from(command & 0x1F)], Source::Controller),
            0x60..=0x7F | 0xD1..=0xD4 => self.state.command = Some(command),
            // No password is installed.
            0xA4 => self.put(0xF1, Source::Controller),
            0xA7 => *ram0 |= ctr::AUX_OFF,
            0xA8 => *ram0 &= !ctr::AUX_OFF,
            // Interface tests: nothing is wrong with the lines.
            0xA9 | 0xAB => self.put(0x00, Source::Controller),
            0xAA => {
                *ram0 |= ctr::SYSTEM;
                self.put(0x55, Source::Controller);
            }
            0xAD => *ram0 |= ctr::KEYBOARD_OFF,
            0xAE => *ram0 &= !ctr::KEYBOARD_OFF,
            // Input port: not locked.
            0xC0 => self.put(0x80, Source::Controller),
            0xD0 => self.put(self.read_out_port(), Source::Controller),
            0xDD => self.state.out_port &= !port::A20,
            0xDF => self.state.out_port |= port::A20,
            // Pulse: low bits of the command that are clear pull their line; only the reset line does anything.
            0xF0..=0xFF if command & port::NOT_RESET == 0 => bp.requests.ask(MachineRequest::Reset),
            _ => {}
        }
    }

    fn data(&mut self, bp: &mut Backplane<'_>, value: u8) {
        match self.state.command.take() {
            Some(command @ 0x60..=0x7F) => self.state.ram[usize::from(command & 0x1F)] = value,
            Some(0xD1) => self.set_out_port(bp, value),
            Some(0xD2) => self.put(value, Source::Keyboard),
            Some(0xD3) => self.put(value, Source::Aux),
            Some(0xD4) => self.state.mouse.write(value),
            _ => {
                // Writing to the keyboard switches its clock on.
                self.state.ram[0] &= !ctr::KEYBOARD_OFF;
                self.state.keyboard.write(value);
            }
        }
    }
}

impl Device for I8042 {
    fn name(&self) -> &'static str {
        "i8042"
    }

    fn regions(&self) -> Vec<Region> {
        let port = |attr| Region {
            kind: RegionKind::Port,
            len: 1,
            runs: vec![(0, 1, attr)],
        };
        // Either may move A20 or pull the reset line.
        vec![
            port(Attr::VIEW),
            port(Attr::VIEW.union(Attr::MIRROR).union(Attr::PURE)),
            Region {
                kind: RegionKind::Port,
                len: 4,
                runs: vec![(0, 4, Attr::empty())],
            },
        ]
    }

    fn read(&mut self, bp: &mut Backplane<'_>, at: Access) -> u64 {
        match at.region {
            1 => return u64::from(self.state.status()),
            2 if at.offset == 0 && at.size == Size::DWORD => return u64::from(self.state.backdoor.read()),
            2 => return u64::MAX,
            _ => {}
        }
        self.state.output = None;
        let byte = self.state.last;
        // The line falls before the next byte raises it.
        self.update(bp);
        self.refill(bp);
        u64::from(byte)
    }

    fn write(&mut self, bp: &mut Backplane<'_>, at: Access, value: u64) {
        if at.region == 2 {
            if at.offset == 0 && at.size == Size::DWORD {
                self.state.backdoor.write(value as u32);
            }
            return;
        }
        self.state.wrote_command = at.region == 1;
        // What the write puts into the output buffer is a new byte, whatever was there.
        let before = self.state.output;
        if at.region == 1 {
            self.execute(bp, value as u8);
        } else {
            self.data(bp, value as u8);
        }
        if before.is_some() && self.state.output != before {
            let now = self.state.output.take();
            self.update(bp);
            self.state.output = now;
        }
        self.refill(bp);
    }

    fn reset(&mut self, bp: &mut Backplane<'_>) {
        self.state = State::new();
        self.update(bp);
    }

    /// Tested, translating, keyboard on with its interrupt, the auxiliary port off.
    fn as_firmware_leaves_it(&mut self) {
        self.state.ram[0] = ctr::KEYBOARD_IRQ | ctr::SYSTEM | ctr::AUX_OFF | ctr::TRANSLATE;
        self.state.keyboard.enable();
    }

    fn next_deadline(&self) -> Option<VmTime> {
        // What has no clock does not scan, and with a full output buffer there is nowhere to put a report.
        let with_clock = |off: u8| self.state.ram[0] & off == 0;
        let repeat = self
            .state
            .keyboard
            .next_repeat()
            .filter(|_| with_clock(ctr::KEYBOARD_OFF));
        let report = self
            .state
            .mouse
            .next_report()
            .filter(|_| with_clock(ctr::AUX_OFF) && self.state.output.is_none());
        repeat.into_iter().chain(report).min()
    }

    fn advance(&mut self, bp: &mut Backplane<'_>) -> bool {
        let moved = self.refill(bp);
        let repeats = self.state.ram[0] & ctr::KEYBOARD_OFF == 0 && self.state.keyboard.repeat(bp.now);
        self.refill(bp) | repeats | moved
    }

    fn a20(&self) -> Option<bool> {
        Some(self.state.out_port & port::A20 != 0)
    }

    fn leds(&self) -> Option<u8> {
        Some(self.state.keyboard.leds())
    }

    fn pointer(&self) -> Option<PointerKind> {
        Some(if self.state.backdoor.is_absolute() {
            PointerKind::Absolute
        } else {
            PointerKind::Relative
        })
    }

    fn state_version(&self) -> u16 {
        2
    }

    fn save(&self, out: &mut Vec<u8>) {
        save_state(&self.state, out);
    }

    fn load(&mut self, version: u16, bytes: &[u8]) -> Result<(), StateError> {
        let state: State = load_state(self.name(), self.state_version(), version, bytes)?;
        let sane = state.keyboard.is_sane()
            && state.mouse.is_sane()
            && state.backdoor.is_sane()
            && state.waiting.len() <= WAITING_MAX;
        if !sane {
            let why = "a keyboard or mouse that cannot be".to_owned();
            return Err(StateError::Damaged {
                device: self.name(),
                len: bytes.len(),
                why,
            });
        }
        self.state = state;
        Ok(())
    }

    fn mirror(&self, region: u8, into: &mut [u8; 16]) -> u16 {
        into[0] = self.state.status();
        u16::from(region == 1)
    }
}
