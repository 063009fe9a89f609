//! `--gdb` on whole machines: by the remote protocol as such, and by gdb itself on Debian's kernel.

#[path = "support/gdb.rs"]
mod gdb;
mod support;

use std::process::Command;
use std::time::Duration;

use gdb::{Client, free_port};
use quintet_protocol::control::StatusReport;
use quintet_protocol::status::MachineState;
use support::{Machine, Setup, assert_clean, guest_file, quintet, variable};

fn in_state(state: MachineState) -> impl Fn(&StatusReport) -> bool {
    move |report| report.state == state
}

fn spinning(port: u16) -> Option<Machine> {
    let kernel = guest_file("spin", quintet_guests::SPIN);
    let setup = Setup::new(quintet()?, kernel)
        .option("--append", "j")
        .option("--gdb", format!("127.0.0.1:{port}"));
    let mut guest = setup.start("debugger");
    guest.hear("spinning");
    Some(guest)
}

#[test]
fn a_held_guest_is_paused_and_not_hung_and_goes_on_however_gdb_leaves() {
    let port = free_port();
    let Some(mut guest) = spinning(port) else { return };
    let pids = guest.pids();

    let mut client = Client::connect(port);
    let held = guest.wait_for("it is held", in_state(MachineState::Paused));
    let rip = client.step_to_spin();
    // Longer than a worker may be silent.
    std::thread::sleep(Duration::from_secs(4));
    let still = guest.wait_for("it is held", in_state(MachineState::Paused));
    assert_eq!(still.vm_time_ms, held.vm_time_ms, "VM time went on");
    // A second debugger is turned away at once.
    assert_eq!(
        std::io::Read::read(
            &mut std::net::TcpStream::connect(("127.0.0.1", port)).expect("it listens"),
            &mut [0; 16]
        )
        .unwrap_or(0),
        0
    );
    // It jumps on the spot.
    assert!(client.ask("s").contains("05"));
    assert_eq!(client.rip(), rip);
    client.say("c");
    guest.wait_for("it runs", in_state(MachineState::Running));
    client.interrupt();
    guest.wait_for("it is held", in_state(MachineState::Paused));
    client.done(&format!("Z0,{rip:x},1"));
    assert!(client.ask("c").contains("swbreak"));
    client.done("D");
    guest.wait_for("it was let go", in_state(MachineState::Running));
    assert_eq!(client.hear(), None);

    // A debugger that is killed while the guest stands at its breakpoint.
    let mut client = Client::connect(port);
    guest.wait_for("it is held", in_state(MachineState::Paused));
    client.done(&format!("Z1,{rip:x},1"));
    assert!(client.ask("c").contains("hwbreak"));
    drop(client);
    guest.wait_for("it goes on", in_state(MachineState::Running));

    // One that talks nonsense loses its connection, and the guest nothing.
    let mut client = Client::connect(port);
    client.send(&[b'$'; 100_000]);
    assert_eq!(client.hear(), None);
    guest.wait_for("it goes on", in_state(MachineState::Running));

    // One that resets the machine.
    let mut client = Client::connect(port);
    assert!(client.ask("?").starts_with("T05"));
    client.say("c");
    guest.wait_for("it goes on", in_state(MachineState::Running));
    client.interrupt();
    let resets = guest.report().expect("answers").resets;
    // "reset"
    client.say("qRcmd,7265736574");
    // What it says of it, and then that it is done.
    assert!(client.hear().expect("an answer").starts_with('O'));
    while client.hear().expect("an answer") != "OK" {}
    guest.wait_for("it was reset", |r| {
        r.resets == resets + 1 && r.state == MachineState::Paused
    });
    client.say("c");
    guest.wait_for("it goes on", in_state(MachineState::Running));
    guest.hear("spinning");
    assert_eq!(guest.pids(), pids, "a worker was replaced");
}

/// Debian's kernel where its symbols say it is, held until gdb lets it go.
fn held_linux(port: u16) -> Option<Setup> {
    let quintet = quintet()?;
    let kernel = variable("QUINTET_KERNEL_AMD64")?;
    let initrd = variable("QUINTET_INITRD_AMD64")?;
    // Without chance in it.
    let setup = Setup::new(quintet, kernel)
        .option("--initrd", initrd)
        .option("--append", "console=ttyS0 nokaslr")
        .option("--gdb", format!("127.0.0.1:{port},wait=on"));
    Some(setup)
}

/// What stands in the registers, `n` times: at the breakpoint, and one instruction behind it.
fn stops(accel: &str, place: u64, n: usize) -> Option<Vec<String>> {
    let port = free_port();
    let guest = held_linux(port)?
        .option("--accel", accel)
        .start(&format!("stops-{accel}"));
    let mut client = Client::connect(port);
    let mut seen = Vec::new();
    for _ in 0..n {
        client.done(&format!("Z0,{place:x},1"));
        assert!(client.ask("c").contains("swbreak"));
        assert_eq!(client.rip(), place);
        seen.push(client.ask("g"));
        client.done(&format!("z0,{place:x},1"));
        assert!(client.ask("s").contains("05"));
        seen.push(client.ask("g"));
    }
    drop(guest);
    Some(seen)
}

/// How often a place has to be met before it counts as busy: more often than [`stops`] stops there.
const MEETINGS: usize = STOPS + 100;
const STOPS: usize = 1000;

/// An address in the loops of the kernel's decompressor, which runs where it was loaded and without interrupts: what stands in the
/// registers there depends on no clock. Where a guest is after some time is the host's affair, so that the place proves itself.
fn busy_place() -> Option<u64> {
    const LOADED_BELOW: u64 = 1 << 32;
    const INTERRUPT_FLAG: u64 = 1 << 9;
    let mut seen = Vec::new();
    for n in 1..=20 {
        let port = free_port();
        let guest = held_linux(port)?.start("stops-scout");
        let mut client = Client::connect(port);
        client.say("c");
        std::thread::sleep(Duration::from_millis(40) * n);
        client.interrupt();
        let place = client.rip();
        let quiet = client.rflags() & INTERRUPT_FLAG == 0;
        if place < LOADED_BELOW && quiet && is_met(&mut client, place) {
            return Some(place);
        }
        seen.push(place);
        drop(guest);
    }
    panic!("no loop of the decompressor among {seen:x?}");
}

/// Whether the guest, which stands there, comes by again soon and as often as is asked of a busy place.
fn is_met(client: &mut Client, place: u64) -> bool {
    (0..MEETINGS).all(|_| {
        assert!(client.ask("s").contains("05"));
        client.done(&format!("Z0,{place:x},1"));
        client.say("c");
        let met = client.hears_within(Duration::from_millis(500));
        if met {
            client.done(&format!("z0,{place:x},1"));
        }
        met
    })
}

#[test]
fn a_thousand_breaks_and_steps_in_debians_kernel_agree_with_the_interpreter() {
    let Some(place) = busy_place() else { return };
    let translated = stops("jit", place, STOPS);
    let interpreted = stops("interp", place, STOPS);
    let (Some(translated), Some(interpreted)) = (translated, interpreted) else {
        return;
    };
    for (n, (a, b)) in translated.iter().zip(&interpreted).enumerate() {
        assert_eq!(a, b, "stop {n} at {place:#x}");
    }
}

#[test]
fn gdb_itself_breaks_watches_and_finishes_in_debians_kernel() {
    let port = free_port();
    let Some(setup) = Setup::linux("AMD64") else {
        return;
    };
    let mut guest = setup
        .option("--gdb", format!("127.0.0.1:{port}"))
        .start("gdb-itself");
    guest.shell();
    let symbols = guest.command("grep -E ' (uptime_proc_show|jiffies_64|linux_banner)$' /proc/kallsyms");
    let symbol = |name: &str| {
        let line = symbols.lines().find(|l| l.ends_with(name)).expect("a symbol");
        line.split(' ').next().expect("an address").to_owned()
    };
    let (function, jiffies, banner) = (
        symbol("uptime_proc_show"),
        symbol("jiffies_64"),
        symbol("linux_banner"),
    );
    guest.command("(while :; do cat /proc/uptime; done > /dev/null) & true");
    let script = format!(
        "set pagination off\nset confirm off\ntarget remote 127.0.0.1:{port}\n\
         printf \"banner: %s\\n\", (char *)0x{banner}\n\
         break *0x{function}\ncontinue\nprintf \"at: %lx\\n\", $rip\nstepi\ninfo registers rip cr3\ncontinue\nprintf \"again: %lx\\n\", $rip\n\
         delete\nwatch *(unsigned long *)0x{jiffies}\ncontinue\ncontinue\ndelete\n\
         hbreak *0x{function}\ncontinue\nx/2i $rip\nmonitor translate 0x{function}\ndelete\ndetach\n"
    );
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("gdb-itself.gdb");
    std::fs::write(&path, script).expect("the script as a file");
    let gdb = Command::new("gdb")
        .args(["-q", "-nx", "-batch", "-x"])
        .arg(&path)
        .stdin(std::process::Stdio::null())
        .output()
        .expect("gdb is installed");
    let said = String::from_utf8_lossy(&gdb.stdout).into_owned() + &String::from_utf8_lossy(&gdb.stderr);
    for wanted in [
        "banner: Linux version",
        &format!("at: {}", function.trim_start_matches('0')),
        &format!("again: {}", function.trim_start_matches('0')),
        "Hardware watchpoint",
        "Old value",
        "Hardware assisted breakpoint",
        "is at 0x",
        "detached",
    ] {
        assert!(said.contains(wanted), "no {wanted:?} in what gdb said:\n{said}");
    }
    // The guest has not noticed.
    guest.command("kill $!");
    assert_eq!(guest.command("echo $((6*7))").trim(), "42");
    assert_clean(&guest.power_off());
}
