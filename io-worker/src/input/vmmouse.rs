//! The VMware backdoor's pointer: absolute positions, as QEMU's `vmport` and `vmmouse` give them.
//!
//! The guest loads EAX with a magic number, ECX with a command and EBX with its parameter, and executes `in eax, dx` with
//! DX = 5658h; the answer comes in EAX, EBX, ECX, EDX, ESI and EDI. The cpu-worker sends the six registers as one string
//! output to the port and takes them back by one string input, so that no message of its own is needed. Whatever else
//! reads the port gets ones.
//!
//! A driver that has asked for absolute (or relative) packets gets all of the pointer, and the PS/2 mouse gives its
//! interrupt and an empty report.

use std::collections::VecDeque;

use quintet_protocol::input::{Button, InputEvent};
use serde::{Deserialize, Serialize};

/// The registers of a call: EAX, EBX, ECX, EDX, ESI, EDI.
const REGISTERS: usize = 6;
/// What EAX holds, and EBX in the answer to [`GET_VERSION`].
const MAGIC: u32 = 0x564D_5868;
const GET_VERSION: u16 = 10;
const DATA: u16 = 39;
const STATUS: u16 = 40;
const COMMAND: u16 = 41;
/// Version of the backdoor, as QEMU's.
const VERSION: u32 = 6;
/// Commands of the pointer.
const READ_ID: u32 = 0x4541_4552;
const DISABLE: u32 = 0x0000_00F5;
const REQUEST_RELATIVE: u32 = 0x4C45_5252;
const REQUEST_ABSOLUTE: u32 = 0x5342_4152;
/// Answer to [`READ_ID`].
const POINTER_VERSION: u32 = 0x3442_554A;
/// Status of a pointer that is off, in the upper half of the status word.
const OFF: u32 = 0xFFFF;
const RELATIVE_PACKET: u32 = 0x0001_0000;
/// Words of a packet.
const PACKET: usize = 4;
/// Words that are kept for the guest: 256 packets, as in QEMU.
const QUEUE: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Mode {
    Off,
    /// On, and nothing has been asked for.
    Quiet,
    Relative,
    Absolute,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct VmMouse {
    mode: Mode,
    queue: VecDeque<u32>,
    /// Registers of a call that are arriving, or of its answer that are leaving.
    registers: VecDeque<u32>,
    /// The registers are those of an answer.
    answered: bool,
    /// Last place, 0–65535 each.
    place: [u32; 2],
    /// Bit n is button n of [`Button`].
    buttons: u8,
}

impl VmMouse {
    pub(super) fn new() -> Self {
        Self {
            mode: Mode::Off,
            queue: VecDeque::new(),
            registers: VecDeque::new(),
            answered: false,
            place: [0x7FFF; 2],
            buttons: 0,
        }
    }

    pub(super) fn is_sane(&self) -> bool {
        self.queue.len() <= QUEUE && self.registers.len() <= REGISTERS
    }

    /// Whether it takes the pointer's movements.
    pub(super) fn is_on(&self) -> bool {
        matches!(self.mode, Mode::Relative | Mode::Absolute)
    }

    /// Whether the guest wants places rather than movements.
    pub(super) fn is_absolute(&self) -> bool {
        self.mode == Mode::Absolute
    }

    /// A register of a call, in their order. A seventh begins a new call.
    pub(super) fn write(&mut self, value: u32) {
        if self.answered || self.registers.len() == REGISTERS {
            self.registers.clear();
            self.answered = false;
        }
        self.registers.push_back(value);
    }

    /// A register of the answer; ones when nobody has called.
    pub(super) fn read(&mut self) -> u32 {
        if !self.answered && self.registers.len() == REGISTERS {
            let mut call = [0; REGISTERS];
            for (to, from) in call.iter_mut().zip(self.registers.drain(..)) {
                *to = from;
            }
            let answer = self.call(call);
            self.registers.extend(answer);
            self.answered = true;
        }
        if self.answered {
            self.registers.pop_front()
        } else {
            None
        }
        .unwrap_or(u32::MAX)
    }

    fn call(&mut self, mut r: [u32; REGISTERS]) -> [u32; REGISTERS] {
        if r[0] != MAGIC {
            r[0] = u32::MAX;
            return r;
        }
        match r[2] as u16 {
            GET_VERSION => {
                r[0] = VERSION;
                r[1] = MAGIC;
            }
            STATUS => r[0] = self.status(),
            COMMAND => {
                let command = r[1];
                self.command(command);
                r[0] = self.status();
            }
            DATA => self.data(&mut r),
            _ => r[0] = u32::MAX,
        }
        r
    }

    fn status(&self) -> u32 {
        let state = if self.mode == Mode::Off { OFF } else { 0 };
        state << 16 | self.queue.len() as u32
    }

    fn command(&mut self, command: u32) {
        match command {
            READ_ID => {
                self.queue.clear();
                self.queue.push_back(POINTER_VERSION);
                self.mode = Mode::Quiet;
            }
            DISABLE => self.off(),
            REQUEST_RELATIVE if self.mode != Mode::Off => self.mode = Mode::Relative,
            REQUEST_ABSOLUTE if self.mode != Mode::Off => self.mode = Mode::Absolute,
            _ => {}
        }
    }

    fn off(&mut self) {
        self.mode = Mode::Off;
        self.queue.clear();
    }

    /// Takes as many words out as EBX says. One that asks for words that are not there has lost its place in the
    /// packets: it is told so by an error, after which it starts anew.
    fn data(&mut self, r: &mut [u32; REGISTERS]) {
        let wanted = r[1] as usize;
        if wanted == 0 || wanted > REGISTERS || wanted > self.queue.len() {
            self.off();
            r[0] = OFF << 16;
            return;
        }
        for (to, from) in r.iter_mut().zip(self.queue.drain(..wanted)) {
            *to = from;
        }
    }

    /// Takes up what the pointer of the host did. Returns whether there is a packet for it.
    pub(super) fn event(&mut self, event: InputEvent) -> bool {
        let mut moved = [0; 2];
        let mut notches = 0_i32;
        match event {
            InputEvent::Position { x, y } => self.place = [u32::from(x) << 1, u32::from(y) << 1],
            InputEvent::Motion { dx, dy } => moved = [i32::from(dx), -i32::from(dy)],
            InputEvent::Wheel { notches: n } => notches = i32::from(n),
            InputEvent::Button { button, down } => {
                let bit = 1 << button as u8;
                self.buttons = self.buttons & !bit | if down { bit } else { 0 };
            }
            InputEvent::ReleaseAll if self.buttons != 0 => self.buttons = 0,
            InputEvent::ReleaseAll | InputEvent::Key { .. } => return false,
        }
        if !self.is_on() || self.queue.len() + PACKET > QUEUE {
            return false;
        }
        let pressed = |button: Button, bit| {
            if self.buttons >> button as u8 & 1 != 0 {
                bit
            } else {
                0
            }
        };
        let buttons =
            pressed(Button::Left, 0x20) | pressed(Button::Right, 0x10) | pressed(Button::Middle, 0x08);
        let turned = (-notches).cast_unsigned();
        let packet = match self.mode {
            Mode::Absolute => [buttons, self.place[0], self.place[1], turned],
            _ => [
                buttons | RELATIVE_PACKET,
                moved[0].cast_unsigned(),
                moved[1].cast_unsigned(),
                turned,
            ],
        };
        self.queue.extend(packet);
        true
    }
}
