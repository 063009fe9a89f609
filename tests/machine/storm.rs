//! Interrupts arrive exactly once each, though io-worker is killed at random meanwhile.

mod support;

use std::time::{Duration, Instant};

use quintet_protocol::handshake::Role;
use support::{Setup, guest_file, quintet, scale};

/// Runs the storm, `count` interrupts of each kind, and answers what it printed.
fn storm(test: &str, count: u32, kill: bool) -> Option<String> {
    let file = guest_file(test, quintet_guests::IRQSTORM);
    let machine = Setup::new(quintet()?, &file)
        .option("--ram", "64M")
        .option("--device", "pc-testdev")
        .option("--exit-port", "0xf4")
        .option("--append", count.to_string())
        .option("--stable-after", "0s")
        .start(test);
    let start = Instant::now();
    let killer = kill.then(|| machine.killer(Role::Io, Duration::from_secs(2)));
    let (status, text) = machine.end();
    let kills = killer.map_or(0, support::Killer::stop);
    println!("{text}\n{kills} kills, {:.0} s", start.elapsed().as_secs_f64());
    assert_eq!(status, Some(1), "isa-debug-exit was not told 0:\n{text}");
    assert!(text.contains("irqstorm: passed"), "{text}");
    assert!(!kill || kills > 0);
    Some(text)
}

#[test]
fn level_pulse_timer_and_wake_up_arrive_exactly_once_while_io_worker_is_killed() {
    let count = scale(20_000, 1_000_000);
    let Some(text) = storm("storm", count, true) else {
        return;
    };
    for kind in [
        "posted acknowledgement, 8259",
        "posted acknowledgement, I/O APIC",
        "pulse, 8259",
        "pulse, I/O APIC",
        "one shot of the APIC timer",
        "STI;HLT woken by a device, 8259",
        "STI;HLT woken by a device, I/O APIC",
        "STI;HLT woken by the APIC timer",
    ] {
        let line = format!("{kind}: {count} raised, {count} delivered, 0 lost, 0 doubled");
        assert!(text.contains(&line), "not {line:?} in:\n{text}");
    }
}
