use super::I8042;
use crate::bus::contract::{Bench, device_contract, saved};
use crate::bus::{Device, MachineRequest, Size};
use quintet_protocol::input::{InputEvent, Key};

fn build(bench: &mut Bench) -> I8042 {
    I8042::new(&mut bench.irq)
}

device_contract!(contract, build);

struct Rig {
    b: Bench,
    dev: I8042,
}

impl Rig {
    fn new() -> Self {
        let mut b = Bench::new();
        let dev = build(&mut b);
        Self { b, dev }
    }
    /// As firmware leaves it.
    fn booted() -> Self {
        let mut rig = Self::new();
        rig.dev.as_firmware_leaves_it();
        rig
    }
    fn data(&mut self, value: u8) {
        self.b.write(&mut self.dev, 0, 0, Size::BYTE, u64::from(value));
    }
    fn command(&mut self, value: u8) {
        self.b.write(&mut self.dev, 1, 0, Size::BYTE, u64::from(value));
    }
    fn status(&mut self) -> u8 {
        self.b.read(&mut self.dev, 1, 0, Size::BYTE) as u8
    }
    fn get(&mut self) -> u8 {
        assert_eq!(self.status() & 1, 1, "nothing to read");
        self.b.read(&mut self.dev, 0, 0, Size::BYTE) as u8
    }
    fn all(&mut self) -> Vec<u8> {
        let mut got = Vec::new();
        while self.status() & 1 != 0 {
            got.push(self.get());
        }
        got
    }
    fn key(&mut self, usage: u8, down: bool) {
        self.b.streams.events.push_back(InputEvent::Key {
            key: Key(usage),
            down,
        });
        self.b.pass(&mut self.dev, 0);
    }
    fn tap(&mut self, usage: u8) -> Vec<u8> {
        self.key(usage, true);
        self.key(usage, false);
        self.all()
    }
}

const A: u8 = 0x04;
const RIGHT: u8 = 0x4F;
const PAUSE: u8 = 0x48;
const F7: u8 = 0x40;

#[test]
fn the_controller_tests_itself_and_its_interfaces() {
    let mut r = Rig::new();
    assert_eq!(r.status() & 0x04, 0);
    r.command(0xAA);
    assert_eq!(r.status() & 0x0D, 0x0D);
    assert_eq!(r.get(), 0x55);
    r.command(0xAB);
    assert_eq!(r.get(), 0);
    r.command(0xA9);
    assert_eq!(r.get(), 0);
}

#[test]
fn the_command_byte_is_read_and_written_and_enables_the_interfaces() {
    let mut r = Rig::new();
    r.command(0x60);
    r.data(0x47);
    assert_eq!(r.status() & 0x0C, 0x04);
    r.command(0x20);
    assert_eq!(r.get(), 0x47);
    r.command(0xAD);
    r.command(0xA7);
    r.command(0x20);
    assert_eq!(r.get(), 0x77);
    r.command(0xAE);
    r.command(0xA8);
    r.command(0x20);
    assert_eq!(r.get(), 0x47);
    r.command(0x65);
    r.data(0x99);
    r.command(0x25);
    assert_eq!(r.get(), 0x99);
}

#[test]
fn a20_follows_the_output_port_and_the_fast_commands() {
    let mut r = Rig::new();
    assert_eq!(r.dev.a20(), Some(true));
    r.command(0xD1);
    r.data(0xDD);
    assert_eq!(r.dev.a20(), Some(false));
    r.command(0xD0);
    assert_eq!(r.get() & 3, 1);
    r.command(0xDF);
    assert_eq!(r.dev.a20(), Some(true));
    r.command(0xDD);
    assert_eq!(r.dev.a20(), Some(false));
    r.dev.reset(&mut r.b.backplane());
    assert_eq!(r.dev.a20(), Some(true));
}

#[test]
fn the_reset_line_is_pulled_by_a_pulse_and_by_the_output_port() {
    let mut r = Rig::new();
    for command in [0xF1, 0xFF] {
        r.command(command);
        assert_eq!(r.b.request(), None, "{command:#x}");
    }
    r.command(0xFE);
    assert_eq!(r.b.request(), Some(MachineRequest::Reset));
    r.command(0xD1);
    r.data(0x02);
    assert_eq!(r.b.request(), Some(MachineRequest::Reset));
}

#[test]
fn the_keyboard_answers_its_commands() {
    let mut r = Rig::new();
    for (bytes, answer) in [
        (&[0xFF][..], &[0xFA, 0xAA][..]),
        (&[0xF2], &[0xFA, 0xAB, 0x83]),
        (&[0xEE], &[0xEE]),
        (&[0xED, 0x02], &[0xFA, 0xFA]),
        (&[0xF3, 0x20], &[0xFA, 0xFA]),
        (&[0xF0, 0x00], &[0xFA, 0xFA, 0x02]),
        (&[0xF5], &[0xFA]),
        (&[0xF6], &[0xFA]),
        (&[0xF4], &[0xFA]),
        (&[0xEF], &[0xFE]),
        (&[0xED, 0xF4], &[0xFA, 0xFA]),
    ] {
        let mut got = Vec::new();
        for byte in bytes {
            r.data(*byte);
            got.extend(r.all());
        }
        assert_eq!(got, answer, "{bytes:02x?}");
    }
    r.data(0xF2);
    r.all();
    r.data(0xFE);
    assert_eq!(r.all(), [0x83]);
}

#[test]
fn the_identity_is_translated_like_any_byte() {
    let mut r = Rig::booted();
    r.data(0xF2);
    assert_eq!(r.all(), [0xFA, 0xAB, 0x41]);
}

#[test]
fn keys_come_in_the_set_that_was_chosen() {
    let mut r = Rig::booted();
    assert_eq!(r.tap(A), [0x1E, 0x9E]);
    assert_eq!(r.tap(RIGHT), [0xE0, 0x4D, 0xE0, 0xCD]);
    assert_eq!(r.tap(F7), [0x41, 0xC1]);
    assert_eq!(r.tap(PAUSE), [0xE1, 0x1D, 0x45, 0xE1, 0x9D, 0xC5]);
    r.command(0x60);
    r.data(0x01);
    assert_eq!(r.tap(A), [0x1C, 0xF0, 0x1C]);
    assert_eq!(r.tap(RIGHT), [0xE0, 0x74, 0xE0, 0xF0, 0x74]);
    assert_eq!(r.tap(PAUSE), [0xE1, 0x14, 0x77, 0xE1, 0xF0, 0x14, 0xF0, 0x77]);
    r.data(0xF0);
    r.data(0x01);
    r.all();
    assert_eq!(r.tap(RIGHT), [0xE0, 0x4D, 0xE0, 0xCD]);
    r.data(0xF0);
    r.data(0x03);
    r.all();
    assert_eq!(r.tap(RIGHT), [0x6A]);
    r.data(0xF8);
    r.all();
    assert_eq!(r.tap(RIGHT), [0x6A, 0xF0, 0x6A]);
}

#[test]
fn translated_codes_are_those_of_set_1_for_every_key() {
    for usage in 0..=255 {
        let mut translated = Rig::booted();
        let mut native = Rig::booted();
        native.command(0x60);
        native.data(0x01);
        native.data(0xF0);
        native.data(0x01);
        native.all();
        assert_eq!(translated.tap(usage), native.tap(usage), "{usage:#x}");
    }
}

#[test]
fn s3_92_each_byte_is_an_edge_of_its_own() {
    let mut r = Rig::booted();
    r.key(RIGHT, true);
    assert_eq!((r.b.wire(1).high, r.b.wire(1).edges), (true, 1));
    r.get();
    assert_eq!((r.b.wire(1).high, r.b.wire(1).edges), (true, 2));
    r.get();
    assert_eq!((r.b.wire(1).high, r.b.wire(1).edges), (false, 2));
}

#[test]
fn nothing_typed_is_lost_however_slow_the_guest_is() {
    let mut r = Rig::booted();
    for _ in 0..100 {
        r.key(A, true);
        r.key(A, false);
    }
    assert!(r.b.streams.events.len() > 100);
    let got = r.all();
    assert_eq!(got.len(), 200);
    assert!(got.chunks(2).all(|c| c == [0x1E, 0x9E]));
}

#[test]
fn a_disabled_interface_keeps_keys_back_and_a_silent_keyboard_drops_them() {
    let mut r = Rig::booted();
    r.command(0xAD);
    r.key(A, true);
    assert_eq!(r.status() & 1, 0);
    r.command(0xAE);
    assert_eq!(r.all(), [0x1E]);
    r.data(0xF5);
    r.all();
    r.key(A, false);
    assert_eq!(r.status() & 1, 0);
}

#[test]
fn held_keys_are_released_when_their_holder_is_gone() {
    let mut r = Rig::booted();
    for usage in [0xE1, A, RIGHT, 0x05, 0x06] {
        r.key(usage, true);
    }
    r.all();
    r.b.streams.events.push_back(InputEvent::ReleaseAll);
    r.b.pass(&mut r.dev, 0);
    assert_eq!(r.all(), [0x9E, 0xB0, 0xAE, 0xE0, 0xCD, 0xAA]);
    assert_eq!(r.tap(A), [0x1E, 0x9E]);
}

#[test]
fn the_auxiliary_port_loops_back_and_the_mouse_is_behind_it() {
    let mut r = Rig::new();
    r.command(0xD3);
    r.data(0x5A);
    assert_eq!(r.status() & 0x61, 0x21);
    assert!(r.b.wire(12).high);
    assert_eq!(r.get(), 0x5A);
    assert!(!r.b.wire(12).high);
    r.command(0xD4);
    r.data(0xF2);
    assert_eq!(r.status() & 0x21, 0x21);
    assert!(r.b.wire(12).high);
    assert_eq!(r.all(), [0xFA, 0x00]);
    r.command(0xD2);
    r.data(0x11);
    assert!(r.b.wire(1).high);
    assert_eq!(r.status() & 0x21, 0x01);
    assert_eq!(r.get(), 0x11);
}

#[test]
fn a_successor_goes_on_in_the_middle_of_a_sequence() {
    let mut r = Rig::booted();
    r.key(RIGHT, true);
    assert_eq!(r.get(), 0xE0);
    let bytes = saved(&r.dev);
    r.dev = build(&mut r.b);
    r.dev.load(2, &bytes).expect("state");
    assert_eq!(r.get(), 0x4D);
}

#[test]
fn a_held_key_repeats_by_the_rate_set_and_stops_with_its_release() {
    let mut r = Rig::booted();
    r.data(0xF3);
    r.data(0x00);
    r.all();
    r.key(A, true);
    assert_eq!(r.all(), [0x1E]);
    r.b.pass(&mut r.dev, 249_000_000);
    assert!(r.all().is_empty());
    r.b.pass(&mut r.dev, 1_000_000 + 3 * 34_000_000);
    assert_eq!(r.all(), [0x1E; 4]);
    r.key(A, false);
    assert_eq!(r.all(), [0x9E]);
    assert!(
        r.dev.next_deadline().is_none(),
        "an idle keyboard waits for nothing"
    );
}

#[test]
fn a_guest_that_does_not_read_is_not_flooded_by_repetitions() {
    let mut r = Rig::booted();
    r.key(A, true);
    r.b.pass(&mut r.dev, 20_000_000_000);
    let got = r.all();
    assert!(got.len() < 20 && got.iter().all(|b| *b == 0x1E));
}

#[test]
fn set_3_keys_repeat_and_release_by_their_type() {
    const LEFT_SHIFT: u8 = 0xE1;
    let mut r = Rig::booted();
    r.command(0x60);
    r.data(0x01);
    r.data(0xF0);
    r.data(0x03);
    r.all();
    // By themselves: letters repeat, F7 only says that it was pressed, Shift tells both.
    assert_eq!(
        [r.tap(A), r.tap(F7), r.tap(LEFT_SHIFT)].concat(),
        [0x1C, 0x37, 0x12, 0xF0, 0x12]
    );
    r.key(F7, true);
    assert!(r.dev.next_deadline().is_none());
    r.key(F7, false);
    // All make and break, but F7 make only.
    for byte in [0xF8, 0xFD, 0x37, 0xF4] {
        r.data(byte);
    }
    r.all();
    assert_eq!(
        [r.tap(A), r.tap(F7), r.tap(LEFT_SHIFT)].concat(),
        [0x1C, 0xF0, 0x1C, 0x37, 0x12, 0xF0, 0x12]
    );
}

#[test]
fn print_screen_and_pause_change_with_the_keys_beside_them() {
    const PRINT_SCREEN: u8 = 0x46;
    const LEFT_CTRL: u8 = 0xE0;
    const LEFT_ALT: u8 = 0xE2;
    let mut r = Rig::booted();
    assert_eq!(
        r.tap(PRINT_SCREEN),
        [0xE0, 0x2A, 0xE0, 0x37, 0xE0, 0xB7, 0xE0, 0xAA]
    );
    r.key(LEFT_CTRL, true);
    assert_eq!(r.all(), [0x1D]);
    assert_eq!(r.tap(PRINT_SCREEN), [0xE0, 0x37, 0xE0, 0xB7]);
    assert_eq!(r.tap(PAUSE), [0xE0, 0x46, 0xE0, 0xC6]);
    r.key(LEFT_CTRL, false);
    r.key(LEFT_ALT, true);
    r.key(PRINT_SCREEN, true);
    assert_eq!(r.all(), [0x9D, 0x38, 0x54]);
    // The release is that of what was pressed, whatever is held by then.
    r.key(LEFT_ALT, false);
    r.key(PRINT_SCREEN, false);
    assert_eq!(r.all(), [0xB8, 0xD4]);
}
