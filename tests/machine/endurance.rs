//! Linux goes on while its workers are killed, held, or short of processor time.

mod support;

use std::collections::VecDeque;
use std::process::Command;
use std::time::{Duration, Instant};

use quintet_protocol::handshake::Role;
use quintet_protocol::status::PeerState;
use support::{BusyLoops, Machine, Setup, assert_clean, scale, state_of};

/// How often the coordinator looks for workers that are held (docs/lifecycle.md, "Hung and held"). Time passes until it has seen one.
const LOOK: Duration = Duration::from_millis(500);

// ---- the serial line, while io-worker is killed ----

/// The kernel's lines in a serial log, from the first to the last before the first process.
fn kernel_lines(log: &str) -> Vec<String> {
    let is_kernel =
        |line: &&str| line.starts_with('[') && line[1..].trim_start().starts_with(char::is_numeric);
    log.lines()
        .map(|line| line.trim_end_matches('\r'))
        .filter(is_kernel)
        .take_while(|line| !line.contains("Run /init"))
        .map(str::to_owned)
        .collect()
}

/// What `dmesg -r` has of the same lines: without its level, and without what is only for debugging.
fn logged_lines(raw: &str) -> Vec<String> {
    raw.lines()
        .filter_map(|line| line.strip_prefix('<')?.split_once('>'))
        .filter(|(level, _)| level.parse::<u32>().is_ok_and(|level| level & 7 < 7))
        .map(|(_, line)| line.to_owned())
        .take_while(|line| !line.contains("Run /init"))
        .collect()
}

#[test]
fn the_i686_kernel_loses_no_line_to_a_killed_io_worker_and_keeps_its_time() {
    let Some(setup) = Setup::linux("I686") else {
        return;
    };
    let (lines, least) = scale((500, 10), (10_000, 100));
    let mut guest = setup
        .option("--ram", "128M")
        .option("--stable-after", "0s")
        .start("lines");
    guest.hear("Linux version");
    let start = Instant::now();
    let killer = guest.killer(Role::Io, scale(Duration::from_secs(4), Duration::from_secs(1)));
    guest.shell();
    let in_boot = killer.stop();
    println!(
        "{in_boot} kills in {:.0} s of boot",
        start.elapsed().as_secs_f64()
    );
    assert!(in_boot > 0);

    let logged = logged_lines(&guest.command("dmesg -r"));
    assert!(logged.len() > 100, "{logged:?}");
    assert_eq!(kernel_lines(&guest.seen), logged);

    // From here on every byte passes as it is, both ways. What the kernel has to say (an interrupt that took 30 ms because
    // its device had just died) waits meanwhile, or it would stand between the lines.
    guest.command("dmesg -n 1");
    guest.say(
        "stty raw -echo; echo G''O; while read -r l; do echo \"$l\"; [ \"$l\" = end ] && break; done; stty sane; echo BA''CK\n",
    );
    guest.hear("GO\n");
    let start = Instant::now();
    let killer = guest.killer(Role::Io, Duration::from_millis(300));
    let mut under_way = VecDeque::new();
    let (mut sent, mut heard) = (0, 0);
    while heard < lines || killer.kills() + in_boot < least {
        // The terminal's buffer in the guest holds 4 KiB.
        while under_way.len() < 64 {
            let line = format!("line {sent:06} {:08x}", (sent * 0x9E37_79B1_u64) & 0xFFFF_FFFF);
            guest.say(&format!("{line}\n"));
            under_way.push_back(line);
            sent += 1;
        }
        let line = guest.hear("\n");
        assert_eq!(Some(line), under_way.pop_front());
        heard += 1;
    }
    let kills = killer.stop();
    for line in under_way {
        assert_eq!(guest.hear("\n"), line);
    }
    println!(
        "{kills} kills while {sent} lines passed both ways in {:.0} s",
        start.elapsed().as_secs_f64()
    );
    assert!(kills > 0);
    assert_eq!(guest.report().expect("answers").resets, 1);
    guest.say("end\n");
    guest.hear("BACK");
    guest.hear("# ");
    guest.command("dmesg -n 7");
    assert_clean(&guest.command("dmesg"));

    beside_busy_loops(&mut guest, "i686");
    assert_clean(&guest.power_off());
}

// ---- the guest's clock ----

/// A reading of the guest's clock, and the moments of the host between which it was taken.
#[derive(Clone, Copy, Debug)]
struct Reading {
    uptime: f64,
    /// Seconds since 1970, whole ones.
    date: f64,
    before: Instant,
    after: Instant,
}

/// Reads the guest's clock, the narrowest of some readings.
fn read_clock(guest: &mut Machine) -> Reading {
    let one = |guest: &mut Machine| {
        let before = Instant::now();
        guest.say("read u r </proc/uptime; echo u''p=$u=$(date +%s)=\n");
        guest.hear("up=");
        let uptime = guest.hear("=").parse().expect("seconds");
        let date = guest.hear("=").parse().expect("seconds");
        let after = guest.at;
        guest.hear("# ");
        Reading {
            uptime,
            date,
            before,
            after,
        }
    };
    (0..12)
        .map(|_| one(guest))
        .min_by_key(|r| r.after.duration_since(r.before))
        .expect("some")
}

/// Checks that the guest's clock ran like the host's between two readings, less the time for which it stood still.
fn assert_clock(what: &str, a: Reading, b: Reading, stood: Duration) {
    // /proc/uptime counts hundredths.
    let resolution = 0.01;
    let guest = b.uptime - a.uptime;
    let least = (b.before - a.after).saturating_sub(stood).as_secs_f64();
    let most = (b.after - a.before).saturating_sub(stood).as_secs_f64();
    println!("{what}: guest {guest:.2} s, host {least:.3} to {most:.3} s");
    assert!(
        guest >= least * 0.999 - resolution && guest <= most * 1.001 + resolution,
        "{what}: the guest's clock ran {guest} s while the host's ran {least} to {most} s"
    );
    let date = b.date - a.date;
    assert!(
        date >= least * 0.999 - 1.0 && date <= most * 1.001 + 1.0,
        "{what}: the guest's date went on by {date} s while the host's clock ran {least} to {most} s"
    );
}

/// Checks the guest's clock and log while two busy loops take the host's processors.
fn beside_busy_loops(guest: &mut Machine, kernel: &str) {
    let source = "cat /sys/devices/system/clocksource/clocksource0/current_clocksource";
    let source_before = guest.command(source);
    let busy = BusyLoops::start(2);
    let a = read_clock(guest);
    let until = Instant::now() + scale(Duration::from_secs(30), Duration::from_secs(300));
    while Instant::now() < until {
        // The guest computes, forks, reads its devices and sleeps by turns.
        guest.command(
            "n=0; while [ $n -lt 2000 ]; do n=$((n+1)); done; cat /proc/interrupts >/dev/null; sleep 0.3",
        );
    }
    let b = read_clock(guest);
    drop(busy);
    assert_clock(&format!("{kernel} beside two busy loops"), a, b, Duration::ZERO);
    assert_eq!(
        guest.command(source),
        source_before,
        "the clock source was changed"
    );
    assert_eq!(source_before.trim(), "tsc");
    let serial = guest.command("cat /proc/tty/driver/serial");
    assert!(!serial.contains("oe:"), "serial overrun: {serial}");
    let log = guest.command("dmesg");
    assert_clean(&log);
}

// ---- workers that die, and one that is held ----

/// Holds a worker with gdb for a while.
fn hold_with_gdb(guest: &Machine, role: Role, time: Duration) -> Duration {
    let pid = guest.pid(role);
    let vm_time = |guest: &Machine| {
        let report = guest.report().expect("answers");
        (report.vm_time_ms, report.uptime_ms)
    };
    let before = vm_time(guest);
    let mut gdb = Command::new("gdb")
        .args(["-nx", "-batch", "-p", &pid.to_string()])
        .args(["-ex", &format!("shell sleep {}", time.as_secs()), "-ex", "detach"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .stdin(std::process::Stdio::null())
        .spawn()
        .expect("gdb is installed");
    let held = |r: &quintet_protocol::control::StatusReport| state_of(r, role) == PeerState::Held;
    let at = guest.wait_for("it is held", held).vm_time_ms;
    std::thread::sleep(time / 2);
    assert_eq!(guest.wait_for("it is held", held).vm_time_ms, at);
    assert!(gdb.wait().expect("gdb ends").success());
    guest.wait_for("it is let go", |r| !held(r));
    assert_eq!(guest.pid(role), pid, "a held worker was killed");
    let after = vm_time(guest);
    // How long VM time stood still, within the two milliseconds of the figures.
    Duration::from_millis(after.1 - before.1 - (after.0 - before.0))
}

#[test]
fn the_amd64_kernel_survives_dead_and_held_workers_and_keeps_its_time() {
    let Some(setup) = Setup::linux("AMD64") else {
        return;
    };
    let mut guest = setup
        .option("--ram", "256M")
        .option("--stable-after", "0s")
        .start("deaths");
    // The cpu-worker takes the guest with it: it boots again, in the same machine.
    guest.hear("Linux version");
    assert_eq!(guest.kill(Role::Cpu).resets, 2);
    guest.hear("Linux version");
    // Picture and sound come back by themselves, and the boot goes on.
    guest.hear("smpboot");
    guest.kill(Role::Gpu);
    guest.kill(Role::Audio);
    guest.hear("Run /init");
    guest.shell();
    assert_eq!(guest.report().expect("answers").resets, 2);

    let hold = scale(Duration::from_secs(3), Duration::from_secs(60));
    let a = read_clock(&mut guest);
    let stood = hold_with_gdb(&guest, Role::Io, hold);
    assert!(
        stood + LOOK >= hold,
        "VM time stood still for {stood:?} of {hold:?}"
    );
    let b = read_clock(&mut guest);
    assert_clock("io-worker held by gdb", a, b, stood);
    assert_clean(&guest.command("dmesg"));

    beside_busy_loops(&mut guest, "amd64");
    assert_clean(&guest.power_off());
}
