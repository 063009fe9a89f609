//! The demo guest, which a machine starts when it is given nothing: its picture moves and tells of the processes, the pointer and the keys
//! are taken, the tune is heard. From afar, and in a window.

#[path = "support/desk.rs"]
mod desk;
#[path = "support/hearing.rs"]
mod hearing;
#[path = "support/says.rs"]
mod says;
#[path = "support/screen.rs"]
mod screen;
#[path = "support/seat.rs"]
mod seat;
mod support;
#[path = "support/xvfb.rs"]
mod xvfb;

use std::path::Path;

use hearing::{QUIET, RATE, left};
use quintet_protocol::handshake::Role;
use screen::{Screen, until};
use seat::Seat;
use support::folder::Folder;
use support::{PATIENCE, quintet, wait_for};

/// Dots of the picture.
const SIZE: (usize, usize) = (800, 600);
/// What the picture says below a process that was started more than once.
const STARTED: [u8; 3] = [0xA0, 0xB0, 0xC0];

/// Dots of a colour.
fn count(screen: &Screen, colour: [u8; 3]) -> usize {
    screen.dots.iter().filter(|dot| **dot == colour).count()
}

/// The left upper corner of the pointer: nothing else is black, once there is a picture.
fn pointer(screen: &Screen) -> Option<(usize, usize)> {
    if (screen.width, screen.height) != SIZE || count(screen, [0; 3]) > 100 {
        return None;
    }
    let at = screen.dots.iter().position(|dot| *dot == [0; 3])?;
    Some((at % screen.width, at / screen.width))
}

/// Frames of a recording, which may still be under way, in which something is heard.
fn heard(wav: &Path) -> usize {
    let wav = std::fs::read(wav).unwrap_or_default();
    let loud = |sample: &&i16| sample.unsigned_abs() > QUIET.unsigned_abs();
    wav.get(44..)
        .map_or(0, |frames| left(frames).iter().filter(loud).count())
}

fn shows(test: &str, seat: &Seat, accel: &str) {
    let Some(quintet) = quintet() else { return };
    let folder = Folder::new(test);
    let (wav, shot) = (folder.file("wav"), folder.file("screen.png"));
    let mut machine = seat
        .setup(quintet.clone())
        .option("--ram", "32M")
        .option("--accel", accel)
        .option("--audio", format!("wav:{}", wav.display()))
        .option("--stable-after", "0s")
        .start(test);
    machine.hear("show: running");
    let wait = |machine: &_, what: &str, tell: &dyn Fn(&Screen) -> bool| {
        until(
            || seat.look(&quintet, machine, &shot),
            PATIENCE,
            |screen| tell(screen).then_some(()),
        )
        .unwrap_or_else(|| panic!("no {what}; {} shows what there is", shot.display()))
        .0
    };
    let first = wait(&machine, "pointer", &|screen| pointer(screen).is_some());
    assert_eq!(count(&first, STARTED), 0, "nobody was started anew");
    wait(&machine, "other picture", &|screen| screen.dots != first.dots);

    // Nobody has to click into the window before: the guest takes places.
    for at in [(200, 300), (600, 75)] {
        seat.point(&machine, at, SIZE);
        wait(&machine, "pointer there", &|screen| pointer(screen) == Some(at));
    }
    seat.type_text(&machine, "five");
    machine.hear("five");
    wait_for("a tune", || (heard(&wav) > RATE as usize / 4).then_some(()));

    machine.kill(Role::Gpu);
    wait(&machine, "word of the successor", &|screen| {
        count(screen, STARTED) > 50
    });

    seat.type_text(&machine, "q");
    machine.hear("show: ");
    let frames = machine.hear(" frames");
    assert!(frames.parse().is_ok_and(|frames: u32| frames > 10), "{frames}");
    let (status, text) = machine.end();
    assert_eq!(status, Some(0), "{text}");
}

#[test]
fn the_show_goes_on_translated() {
    shows("show-jit", &Seat::Commands, "jit");
}

#[test]
fn the_show_goes_on_interpreted() {
    shows("show-interp", &Seat::Commands, "interp");
}

#[test]
fn the_show_goes_on_in_a_window() {
    let test = "show-window";
    let Some(seat) = Seat::window(test) else { return };
    shows(test, &seat, "jit");
}
