//! Guests that never come to an end are not hung: they are paused and go on like any other (S3.104).

mod support;

use std::time::Duration;

use quintet_coordinator::control::client;
use quintet_protocol::control::Request;
use quintet_protocol::handshake::Role;
use quintet_protocol::status::MachineState;
use support::{Setup, guest_file, quintet, scale};

fn spins_unharmed(how: &str) {
    let Some(quintet) = quintet() else { return };
    let mut guest = Setup::new(quintet, guest_file(&format!("spin-{how}"), quintet_guests::SPIN))
        .option("--ram", "16M")
        .option("--append", how)
        .option("--hang-timeout", "400ms")
        .start(&format!("spin-{how}"));
    guest.hear("spinning");
    let pid = guest.pid(Role::Cpu);
    // A second of processor time without a heartbeat is what makes a worker hung.
    std::thread::sleep(scale(Duration::from_secs(4), Duration::from_secs(60)));
    client::ask(&guest.name, &Request::Pause).expect("paused");
    guest.wait_for("it is paused", |r| r.state == MachineState::Paused);
    client::ask(&guest.name, &Request::Resume).expect("resumed");
    let report = guest.wait_for("it runs", |r| r.state == MachineState::Running);
    assert_eq!(guest.pid(Role::Cpu), pid, "{report:?}");
    assert_eq!(report.resets, 1);
}

#[test]
fn s3_104_a_guest_that_jumps_on_the_spot_is_not_hung_and_can_be_paused() {
    spins_unharmed("j");
}

#[test]
fn s3_104_a_guest_that_asks_a_device_with_every_instruction_is_not_hung_and_can_be_paused() {
    spins_unharmed("d");
}

#[test]
fn s3_104_a_guest_inside_one_repeated_instruction_is_not_hung_and_can_be_paused() {
    spins_unharmed("r");
}
