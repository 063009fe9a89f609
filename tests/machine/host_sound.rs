//! The host's sound server hears what a guest plays: a server whose sink keeps time by itself, and which dies and comes back.

#[path = "support/hearing.rs"]
mod hearing;
#[path = "support/pulse.rs"]
mod pulse;
mod support;

use std::time::{Duration, Instant};

use hearing::{RATE, pitch, sounds};
use pulse::{Server, at_homes_machine, recorded};
use quintet_coordinator::control::client;
use quintet_protocol::control::Request;
use quintet_protocol::handshake::Role;
use support::folder::Folder;
use support::{Machine, PATIENCE, Setup, guest_file, quintet};

/// What the server has heard last, in a file of the home.
const HEARD: &str = "heard";

#[test]
fn the_sound_server_hears_the_speaker() {
    let test = "host-sound";
    let Some(quintet) = quintet() else { return };
    let home = Folder::new(test);
    let Some(server) = Server::start(&home, HEARD) else {
        return;
    };
    let setup = Setup::new(quintet, guest_file(test, quintet_guests::SPEAKER))
        .option("--ram", "16M")
        .option("--exit-port", "0xf4");
    let mut guest = at_homes_machine(setup, &home).start(test);
    guest.hear("speaker: line");
    let sound = guest.report().expect("it answers").sound;
    let (status, text) = guest.end();
    assert_eq!(status, Some(1), "{text}");
    drop(server);
    let heard = recorded(&home.file(HEARD));
    let tone = sounds(&heard)[0];
    println!("{} frames of {:.2} Hz, {sound:?}", tone.len(), pitch(tone));
    // Silence in the middle would have parted it, but for what the server itself was late by.
    assert!(tone.len() > RATE as usize * 9 / 10, "{} frames", tone.len());
    assert!((pitch(tone) / 440.0 - 1.0).abs() < 0.01, "{} Hz", pitch(tone));
}

#[test]
fn a_sound_server_that_comes_back_is_played_to_again() {
    let test = "host-sound-again";
    let Some(quintet) = quintet() else { return };
    let home = Folder::new(test);
    let Some(first) = Server::start(&home, HEARD) else {
        return;
    };
    let setup = Setup::new(quintet, guest_file(test, quintet_guests::SPEAKER)).option("--ram", "16M");
    let mut guest = at_homes_machine(setup, &home).start(test);
    let hears = |guest: &mut Machine, what: &str| {
        guest.hear("speaker: done");
        let start = Instant::now();
        while sounds(&recorded(&home.file(HEARD))).is_empty() {
            assert!(start.elapsed() < PATIENCE, "{what} hears nothing");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    hears(&mut guest, "the first server");
    drop(first);
    let Some(_second) = Server::start(&home, HEARD) else {
        return;
    };
    client::ask(&guest.name, &Request::Reset).expect("done");
    hears(&mut guest, "the second server");
    let report = guest.report().expect("it answers");
    let worker = report.workers.iter().find(|w| w.role == Role::Audio);
    assert_eq!(worker.map(|w| w.generation), Some(1), "{report:?}");
}
