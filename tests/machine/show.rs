//! The disk that shows the machine off: its picture moves and tells of the processes, the pointer and the keys are taken, the tune is heard.

#[path = "support/hearing.rs"]
mod hearing;
#[path = "support/says.rs"]
mod says;
#[path = "support/screen.rs"]
mod screen;
mod support;

use hearing::{QUIET, RATE, left};
use quintet_protocol::handshake::Role;
use says::quintet_says;
use screen::{Screen, shots, until};
use support::folder::Folder;
use support::{Machine, PATIENCE, Setup, quintet};

/// Bytes of the disk.
const DISK: usize = 1 << 20;
/// What the picture says below a process that was started more than once.
const STARTED: [u8; 3] = [0xA0, 0xB0, 0xC0];

/// Dots of a colour.
fn count(screen: &Screen, colour: [u8; 3]) -> usize {
    screen.dots.iter().filter(|dot| **dot == colour).count()
}

/// The left upper corner of the pointer: nothing else is black, once there is a picture.
fn pointer(screen: &Screen) -> Option<(usize, usize)> {
    if count(screen, [0; 3]) > 100 {
        return None;
    }
    let at = screen.dots.iter().position(|dot| *dot == [0; 3])?;
    Some((at % screen.width, at / screen.width))
}

fn tell(machine: &Machine, words: &[&str]) {
    let all = [&[words[0], machine.name.as_str()], &words[1..]].concat();
    assert_eq!(quintet_says(&all), (true, String::new()), "{all:?}");
}

fn shows(accel: &str) {
    let Some(quintet) = quintet() else { return };
    let test = format!("show-{accel}");
    let folder = Folder::new(&test);
    let (disk, wav, shot) = (folder.file("disk"), folder.file("wav"), folder.file("screen.png"));
    let mut bytes = quintet_guests::SHOW.to_vec();
    bytes.resize(DISK, 0);
    std::fs::write(&disk, bytes).expect("an image");
    let mut machine = Setup::disk(quintet.clone(), format!("{},format=raw", disk.display()))
        .option("--ram", "32M")
        .option("--accel", accel)
        .option("--audio", format!("wav:{}", wav.display()))
        .option("--stable-after", "0s")
        .start(&test);
    machine.hear("show: running");
    let name = machine.name.clone();
    let look = shots(&quintet, &name, &shot);
    let wait = |what: &str, tell: &dyn Fn(&Screen) -> bool| {
        until(&look, PATIENCE, |screen| tell(screen).then_some(()))
            .unwrap_or_else(|| panic!("no {what}; {} shows what there is", shot.display()))
            .0
    };
    let first = wait("pointer", &|screen| {
        (screen.width, screen.height) == (800, 600) && pointer(screen).is_some()
    });
    assert_eq!(count(&first, STARTED), 0, "nobody was started anew");
    wait("other picture", &|screen| screen.dots != first.dots);

    let (x, y) = pointer(&first).expect("seen");
    tell(&machine, &["mouse", "move", "40", "-30"]);
    wait("pointer elsewhere", &|screen| {
        pointer(screen) == Some((x + 40, y - 30))
    });
    tell(&machine, &["type", "five"]);
    machine.hear("five");

    machine.kill(Role::Gpu);
    wait("word of the successor", &|screen| count(screen, STARTED) > 50);

    tell(&machine, &["type", "q"]);
    machine.hear("show: ");
    let frames = machine.hear(" frames");
    println!("{frames} frames");
    assert!(frames.parse().is_ok_and(|frames: u32| frames > 10), "{frames}");
    let (status, text) = machine.end();
    assert_eq!(status, Some(0), "{text}");
    let wav = std::fs::read(&wav).expect("a recording");
    let loud = |sample: &&i16| sample.unsigned_abs() > QUIET.unsigned_abs();
    let loud = left(&wav[44..]).iter().filter(loud).count();
    assert!(loud > RATE as usize / 4, "{loud} frames of a tune");
}

#[test]
fn the_show_goes_on_translated() {
    shows("jit");
}

#[test]
fn the_show_goes_on_interpreted() {
    shows("interp");
}
