use super::I8042;
use crate::bus::contract::{Bench, saved};
use crate::bus::{Device, PointerKind, Size};
use quintet_protocol::input::{Button, InputEvent};

struct Rig {
    b: Bench,
    dev: I8042,
}

impl Rig {
    /// A machine whose auxiliary port is on, with its interrupt.
    fn new() -> Self {
        let mut b = Bench::new();
        let dev = I8042::new(&mut b.irq);
        let mut rig = Self { b, dev };
        rig.command(0xA8);
        rig
    }
    fn command(&mut self, value: u8) {
        self.b.write(&mut self.dev, 1, 0, Size::BYTE, u64::from(value));
    }
    /// Sends a byte to the mouse and gives what comes back.
    fn send(&mut self, value: u8) -> Vec<u8> {
        self.command(0xD4);
        self.b.write(&mut self.dev, 0, 0, Size::BYTE, u64::from(value));
        self.all()
    }
    fn set(&mut self, command: u8, value: u8) {
        assert_eq!(self.send(command), [0xFA]);
        assert_eq!(self.send(value), [0xFA], "{command:#x} {value}");
    }
    fn knock(&mut self, rates: [u8; 3]) -> u8 {
        rates.into_iter().for_each(|rate| self.set(0xF3, rate));
        self.send(0xF2)[1]
    }
    /// Everything that can be read now, all of it from the auxiliary device.
    fn all(&mut self) -> Vec<u8> {
        let mut got = Vec::new();
        loop {
            let status = self.b.read(&mut self.dev, 1, 0, Size::BYTE) as u8;
            if status & 1 == 0 {
                return got;
            }
            assert_eq!(status & 0x20, 0x20, "a byte of the mouse");
            assert!(self.b.wire(12).high);
            got.push(self.b.read(&mut self.dev, 0, 0, Size::BYTE) as u8);
        }
    }
    fn event(&mut self, event: InputEvent) {
        self.b.streams.events.push_back(event);
        self.b.pass(&mut self.dev, 0);
    }
    fn motion(&mut self, dx: i16, dy: i16) {
        self.event(InputEvent::Motion { dx, dy });
    }
    fn button(&mut self, button: Button, down: bool) {
        self.event(InputEvent::Button { button, down });
    }
    /// Lets time for `n` samples pass, reading what comes.
    fn samples(&mut self, n: usize) -> Vec<u8> {
        let mut got = self.all();
        for _ in 0..n {
            self.b.pass(&mut self.dev, 10_000_000);
            got.extend(self.all());
        }
        got
    }
    /// A call through the backdoor: EAX, EBX, ECX, EDX, ESI, EDI.
    fn backdoor(&mut self, command: u32, parameter: u32) -> [u32; 6] {
        for value in [0x564D_5868, parameter, command, 0x5658, 0, 0] {
            self.b.write(&mut self.dev, 2, 0, Size::DWORD, u64::from(value));
        }
        std::array::from_fn(|_| self.b.read(&mut self.dev, 2, 0, Size::DWORD) as u32)
    }
}

#[test]
fn the_mouse_answers_its_commands() {
    let mut r = Rig::new();
    for (bytes, answer) in [
        (&[0xFF][..], &[0xFA, 0xAA, 0x00][..]),
        (&[0xF2], &[0xFA, 0x00]),
        (&[0xE9], &[0xFA, 0x00, 0x02, 0x64]),
        (&[0xE7], &[0xFA]),
        (&[0xF4], &[0xFA]),
        (&[0xE8, 0x03], &[0xFA, 0xFA]),
        (&[0xF3, 0x28], &[0xFA, 0xFA]),
        (&[0xE9], &[0xFA, 0x30, 0x03, 0x28]),
        (&[0xF0], &[0xFA]),
        (&[0xE9], &[0xFA, 0x70, 0x03, 0x28]),
        (&[0xEB], &[0xFA, 0x08, 0x00, 0x00]),
        (&[0xFE], &[0xFA, 0x08, 0x00, 0x00]),
        (&[0xE8, 0x07], &[0xFA, 0xFE]),
        (&[0xE1], &[0xFE]),
        (&[0xF6], &[0xFA]),
        (&[0xE9], &[0xFA, 0x00, 0x02, 0x64]),
        (&[0xEE], &[0xFA]),
        (&[0xF4], &[0xF4]),
        (&[0x12], &[0x12]),
        (&[0xEC], &[0xFA]),
    ] {
        let mut got = Vec::new();
        for byte in bytes {
            got.extend(r.send(*byte));
        }
        assert_eq!(got, answer, "{bytes:02x?}");
    }
}

#[test]
fn a_plain_mouse_tells_movement_and_three_buttons() {
    let mut r = Rig::new();
    r.motion(5, 5);
    assert!(r.samples(1).is_empty(), "reports are off");
    r.send(0xF4);
    r.motion(5, -3);
    assert_eq!(r.all(), [0x08, 5, 3]);
    r.motion(-5, 3);
    assert!(r.all().is_empty(), "too early for the next sample");
    assert_eq!(r.samples(1), [0x38, 0xFB, 0xFD]);
    r.button(Button::Left, true);
    r.button(Button::Middle, true);
    r.button(Button::Right, true);
    r.button(Button::Left, false);
    let got = r.samples(5);
    assert_eq!(got, [0x09, 0, 0, 0x0D, 0, 0, 0x0F, 0, 0, 0x0E, 0, 0]);
    assert_eq!(r.send(0xE9), [0xFA, 0x23, 0x02, 0x64]);
    r.event(InputEvent::ReleaseAll);
    assert_eq!(r.samples(1), [0x08, 0, 0]);
    assert!(r.dev.next_deadline().is_none(), "an idle mouse waits for nothing");
}

#[test]
fn far_movement_takes_several_reports_and_ends_where_it_should() {
    let mut r = Rig::new();
    r.send(0xF4);
    r.motion(600, 0);
    assert_eq!(r.samples(5), [0x08, 255, 0, 0x08, 255, 0, 0x08, 90, 0]);
    // A click is told where it happened, not where the pointer went afterwards.
    r.b.streams.events.extend([
        InputEvent::Motion { dx: 300, dy: 0 },
        InputEvent::Button {
            button: Button::Left,
            down: true,
        },
        InputEvent::Motion { dx: -1, dy: 0 },
    ]);
    r.b.pass(&mut r.dev, 0);
    assert_eq!(r.samples(4), [0x08, 255, 0, 0x09, 45, 0, 0x19, 0xFF, 0]);
}

#[test]
fn the_knock_makes_it_tell_its_wheel_and_five_buttons() {
    let mut r = Rig::new();
    assert_eq!(r.knock([200, 200, 80]), 0, "not from a plain mouse");
    assert_eq!(r.knock([200, 100, 80]), 3);
    r.set(0xF3, 100);
    r.send(0xF4);
    r.event(InputEvent::Wheel { notches: 2 });
    assert_eq!(r.samples(1), [0x08, 0, 0, 0xFE]);
    assert_eq!(r.knock([200, 200, 80]), 4);
    r.set(0xF3, 100);
    r.event(InputEvent::Wheel { notches: -9 });
    assert_eq!(r.samples(3), [0x08, 0, 0, 7, 0x08, 0, 0, 2]);
    r.button(Button::Forward, true);
    r.button(Button::Back, true);
    assert_eq!(r.samples(2), [0x08, 0, 0, 0x20, 0x08, 0, 0, 0x30]);
    r.send(0xFF);
    assert_eq!(r.send(0xF2), [0xFA, 0x00]);
}

#[test]
fn scaling_two_to_one_bends_what_is_streamed_only() {
    let mut r = Rig::new();
    r.send(0xE7);
    r.send(0xF4);
    for (counts, told) in [(1, 1), (2, 1), (3, 3), (4, 6), (5, 9), (7, 14)] {
        r.motion(counts, 0);
        assert_eq!(r.samples(1), [0x08, told, 0]);
        r.motion(-counts, 0);
        assert_eq!(r.samples(1), [0x18, told.wrapping_neg(), 0]);
    }
    r.send(0xF0);
    r.motion(5, 0);
    assert!(r.samples(2).is_empty(), "asked for only");
    assert_eq!(r.send(0xEB), [0xFA, 0x08, 5, 0]);
}

#[test]
fn reports_come_at_the_rate_set() {
    let mut r = Rig::new();
    r.set(0xF3, 20);
    r.send(0xF4);
    let mut reports = 0;
    for _ in 0..1000 {
        r.motion(1, 0);
        r.b.pass(&mut r.dev, 1_000_000);
        reports += r.all().len() / 3;
    }
    assert!((20..=21).contains(&reports), "{reports} in a second");
}

#[test]
fn a_switched_off_port_keeps_the_mouse_back() {
    let mut r = Rig::new();
    r.send(0xF4);
    r.command(0xA7);
    r.motion(1, 0);
    assert!(r.samples(2).is_empty());
    assert!(r.dev.next_deadline().is_none());
    r.command(0xA8);
    assert_eq!(r.all(), [0x08, 1, 0]);
}

#[test]
fn a_keyboard_that_nobody_reads_does_not_hold_the_mouse_up() {
    let mut r = Rig::new();
    r.send(0xF4);
    r.command(0xAD);
    for n in 0..40 {
        r.event(InputEvent::Key {
            key: quintet_protocol::input::Key(4 + n / 2),
            down: n % 2 == 0,
        });
    }
    r.motion(1, 0);
    assert_eq!(r.all(), [0x08, 1, 0]);
}

#[test]
fn s3_92_each_byte_of_a_report_is_an_edge_of_its_own() {
    let mut r = Rig::new();
    r.send(0xF4);
    let before = r.b.wire(12).edges;
    r.motion(1, 1);
    assert_eq!(r.all().len(), 3);
    assert_eq!((r.b.wire(12).high, r.b.wire(12).edges - before), (false, 3));
}

#[test]
fn a_successor_goes_on_in_the_middle_of_a_report() {
    let mut r = Rig::new();
    r.send(0xF4);
    r.motion(7, 0);
    assert_eq!(r.b.read(&mut r.dev, 0, 0, Size::BYTE), 0x08);
    r.motion(9, 0);
    let bytes = saved(&r.dev);
    r.dev = I8042::new(&mut r.b.irq);
    r.dev.load(2, &bytes).expect("state");
    assert_eq!(r.samples(1), [7, 0, 0x08, 9, 0]);
}

#[test]
fn the_backdoor_gives_places() {
    const GET_VERSION: u32 = 10;
    const DATA: u32 = 39;
    const STATUS: u32 = 40;
    const COMMAND: u32 = 41;
    let mut r = Rig::new();
    assert_eq!(r.backdoor(GET_VERSION, !0x564D_5868)[..2], [6, 0x564D_5868]);
    assert_eq!(r.backdoor(STATUS, 0)[0], 0xFFFF_0000);
    r.backdoor(COMMAND, 0x4541_4552);
    assert_eq!(r.backdoor(STATUS, 0)[0], 1);
    assert_eq!(r.backdoor(DATA, 1)[0], 0x3442_554A);
    assert_eq!(r.dev.pointer(), Some(PointerKind::Relative));
    r.backdoor(COMMAND, 0x5342_4152);
    assert_eq!(r.dev.pointer(), Some(PointerKind::Absolute));

    r.send(0xF4);
    r.event(InputEvent::Position { x: 100, y: 0x7FFF });
    assert_eq!(
        r.all(),
        [0x08, 0, 0],
        "an interrupt of the mouse, with nothing in it"
    );
    r.button(Button::Left, true);
    r.event(InputEvent::Wheel { notches: 1 });
    assert_eq!(r.backdoor(STATUS, 0)[0], 12);
    assert_eq!(r.backdoor(DATA, 4)[..4], [0, 200, 0xFFFE, 0]);
    assert_eq!(r.backdoor(DATA, 4)[..4], [0x20, 200, 0xFFFE, 0]);
    assert_eq!(r.backdoor(DATA, 4)[..4], [0x20, 200, 0xFFFE, u32::MAX]);
    // Asking for more than there is ends it.
    assert_eq!(r.backdoor(DATA, 4)[0], 0xFFFF_0000);
    assert_eq!(r.dev.pointer(), Some(PointerKind::Relative));
    assert_eq!(
        r.b.read(&mut r.dev, 2, 0, Size::DWORD),
        0xFFFF_FFFF,
        "nobody called"
    );
    assert_eq!(r.b.read(&mut r.dev, 2, 0, Size::BYTE), 0xFF);
}
