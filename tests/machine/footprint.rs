//! What an idle machine costs the host: processor time, memory, and the time until its guest starts.
//!
//! The figures in `docs/performance.md` are those of the release build, which `cargo xtask test --long` measures.

mod support;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use quintet_coordinator::supervise::process;
use support::{Machine, Setup, guest_file, quintet, scale};

/// The folder of the release build, where there is one.
fn release() -> Option<PathBuf> {
    std::env::var_os("QUINTET_RELEASE_DIR").map(PathBuf::from)
}

/// Processor time of all five processes.
fn processor_time(machine: &Machine) -> Duration {
    let of = |&pid: &i32| process::look(pid as u32).expect("it lives").cpu;
    machine.pids().iter().map(of).sum()
}

fn idle_linux_costs_little(architecture: &str) {
    let Some(mut setup) = Setup::linux(architecture) else {
        return;
    };
    if let Some(folder) = release() {
        setup = setup.built_in(folder);
    }
    let mut guest = setup.option("--ram", "256M").start("idle");
    guest.shell();
    // The kernel has work of its own to end after a boot.
    std::thread::sleep(scale(Duration::from_secs(3), Duration::from_secs(10)));
    let time = scale(Duration::from_secs(10), Duration::from_secs(30));
    let (start, before) = (Instant::now(), processor_time(&guest));
    std::thread::sleep(time);
    let (passed, used) = (start.elapsed(), processor_time(&guest) - before);
    let share = used.as_secs_f64() / passed.as_secs_f64();
    println!(
        "{architecture} idle: {:.2} % of one core over {:.0} s, all five processes",
        share * 100.0,
        passed.as_secs_f64()
    );
    let each: Vec<u64> = guest
        .pids()
        .iter()
        .map(|&pid| process::pss(pid as u32).expect("it lives"))
        .collect();
    let pss: u64 = each.iter().sum();
    println!(
        "{architecture} PSS without guest RAM: {} KiB; coordinator, cpu, io, gpu, audio: {:?}",
        pss >> 10,
        each.iter().map(|b| b >> 10).collect::<Vec<_>>()
    );
    assert!(
        share < 0.02,
        "an idle guest costs {:.2} % of a core",
        share * 100.0
    );
    assert!(pss < 120 << 20, "{} KiB", pss >> 10);
    guest.power_off();
}

#[test]
fn an_idle_amd64_guest_costs_less_than_2_percent_of_a_core_and_120_mib() {
    idle_linux_costs_little("AMD64");
}

#[test]
#[ignore = "the i686 kernel's share of the same; run by cargo xtask test --long"]
fn an_idle_i686_guest_costs_less_than_2_percent_of_a_core_and_120_mib() {
    idle_linux_costs_little("I686");
}

/// From the start of a program to the first byte of a guest that begins by printing.
fn first_byte(mut command: Command) -> Duration {
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let mut byte = [0];
    let mut stdout = child.stdout.take().expect("piped");
    std::io::Read::read_exact(&mut stdout, &mut byte).expect("the guest prints");
    let time = start.elapsed();
    let _ = child.kill();
    let _ = child.wait();
    time
}

#[test]
#[ignore = "needs qemu-system-x86_64 and a quiet host; run by cargo xtask test --long"]
fn the_time_from_launch_to_the_guests_first_byte_is_measured_beside_qemu() {
    let Some(program) = quintet() else { return };
    let program = release().map_or(program, |folder| folder.join("quintet"));
    let guest = guest_file("launch", quintet_guests::ECHO);
    let ours = || {
        let mut command = Command::new(&program);
        command.args([
            "run",
            "--headless",
            "--ram",
            "512M",
            "--serial",
            "stdio",
            "--kernel",
        ]);
        command.arg(&guest);
        command
    };
    let qemu = || {
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-m", "512", "-display", "none", "-serial", "stdio", "-kernel"]);
        command.arg(&guest);
        command
    };
    // By turns, so that both see the same host.
    let (mut a, mut b): (Vec<Duration>, Vec<Duration>) =
        (0..15).map(|_| (first_byte(ours()), first_byte(qemu()))).unzip();
    a.sort();
    b.sort();
    println!(
        "first byte: quintet least {:?} median {:?}; qemu least {:?} median {:?}",
        a[0], a[7], b[0], b[7]
    );
    assert!(
        a[0] < b[0] * 4,
        "launching takes far longer than QEMU does: {:?} against {:?}",
        a[0],
        b[0]
    );
}
