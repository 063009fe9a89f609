//! A debugger that holds a worker for a minute while Linux works: without gpu- or audio-worker the guest runs on, without cpu- or
//! io-worker its time stands; afterwards nobody has noticed.

#[path = "support/drives.rs"]
mod drives;
#[path = "support/iso.rs"]
mod iso;
mod support;
#[path = "support/work.rs"]
mod work;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use drives::no_trouble;
use quintet_protocol::handshake::Role;
use quintet_protocol::status::PeerState;
use support::{Machine, assert_clean, scale, state_of};
use work::Work;

/// What may pass before the coordinator sees that a worker is held, and after it is let go, in milliseconds (docs/debugging.md).
const NOTICE: u64 = 1000;

/// The guest's own idea of how long it has been up, in seconds.
fn uptime(guest: &mut Machine) -> f64 {
    let text = guest.command("cat /proc/uptime");
    let first = text.split_whitespace().next().expect("two numbers");
    first.parse().expect("a number")
}

fn vm_time(guest: &Machine) -> u64 {
    guest.report().expect("answers").vm_time_ms
}

/// Has gdb hold a worker, and looks at the guest before, meanwhile and after.
fn held(guest: &mut Machine, role: Role, seconds: u64) {
    let stands = matches!(role, Role::Cpu | Role::Io);
    let before = (uptime(guest), vm_time(guest));
    let passes = Work::passes(guest);
    let mut gdb = Command::new("gdb")
        .args(["-q", "-nx", "-batch", "-p", &guest.pid(role).to_string()])
        .args(["-ex", &format!("shell sleep {seconds}")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("gdb is installed");
    guest.wait_for("it is held", |r| state_of(r, role) == PeerState::Held);
    let (start, time) = (Instant::now(), vm_time(guest));
    if !stands {
        // The shell answers, and work goes on.
        std::thread::sleep(Duration::from_millis(seconds * 700));
        let now = Work::passes(guest);
        assert!(
            now.iter().sum::<usize>() > passes.iter().sum(),
            "{passes:?} became {now:?}"
        );
    }
    guest.wait_for("it is let go", |r| state_of(r, role) == PeerState::Running);
    let (real, passed) = (start.elapsed().as_millis() as u64, vm_time(guest) - time);
    gdb.wait().expect("gdb ends");
    println!("{role} held: {real} ms of the host's, {passed} ms of the guest's");
    assert!(if stands {
        passed < NOTICE
    } else {
        passed + NOTICE > real
    });
    // The guest's clock is the machine's, and has not jumped.
    let after = (uptime(guest), vm_time(guest));
    let (guests, machines) = (after.0 - before.0, (after.1 - before.1) as f64 / 1e3);
    assert!((guests - machines).abs() < 1.0, "{guests} s and {machines} s");
}

#[test]
fn linux_does_not_notice_that_a_worker_was_held() {
    let seconds = scale(4, 60);
    let Some((mut guest, work)) = Work::start("held", "AMD64") else {
        return;
    };
    for role in Role::WORKERS {
        held(&mut guest, role, seconds);
    }
    println!("passes: {:?}", work.end(&mut guest));
    no_trouble(&mut guest);
    let report = guest.report().expect("answers");
    assert_eq!(report.resets, 1);
    assert!(report.workers.iter().all(|w| w.generation == 1), "{report:?}");
    assert_clean(&guest.power_off());
}
