//! `--gdb` on whole machines: by the remote protocol as such, and by gdb itself on Debian's kernel.

#[path = "support/gdb.rs"]
mod gdb;
mod support;

use std::path::Path;
use std::process::{Command, Stdio};
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

/// A Debian kernel under gdb.
struct Kernel {
    architecture: &'static str,
    /// With the registers that gdb knows for it.
    cpu: &'static str,
    /// As `as` and `ld` name it.
    bits: &'static str,
    emulation: &'static str,
    /// Where system calls enter, and there the place in the program that they return to.
    enters: &'static str,
    returns: &'static str,
    /// A function's first argument: `struct seq_file *`, whose first word is where its text is, and whose fourth how much.
    argument: &'static str,
    /// Bytes of a word.
    word: u32,
}

impl Kernel {
    /// A file with these functions of the running kernel, each as long as it is, for gdb: Debian's own files with symbols are hundreds of megabytes.
    fn functions(&self, guest: &mut Machine, names: &str, file: &Path) {
        // With those behind them, for their lengths: several names may stand for one place.
        let listed = guest.command(&format!("grep -A4 -E ' [tT] ({names})$' /proc/kallsyms"));
        let place = |line| {
            let mut words = str::split_whitespace(line);
            let at = u64::from_str_radix(words.next()?, 16).ok()?;
            Some((at, words.nth(1)?))
        };
        let mut found: Vec<(u64, u64, &str)> = Vec::new();
        for run in listed.split("--\n") {
            let run: Vec<_> = run.lines().filter_map(place).collect();
            for &(at, name) in &run {
                let next = run.iter().find(|(other, _)| *other > at);
                found.extend(next.map(|(next, _)| (at, next - at, name)));
            }
        }
        found.sort_unstable();
        let base = found.first().expect("functions").0 & !0xFFF;
        let mut source = String::from(".section .text, \"ax\", @nobits\n");
        for (at, len, name) in found {
            source += &format!(
                ".org {:#x}\n.globl {name}\n.type {name}, @function\n.size {name}, {len}\n{name}:\n",
                at - base
            );
        }
        source += ".skip 1\n";
        let object = file.with_extension("o");
        let mut assembler = Command::new("as")
            .args([self.bits, "-o"])
            .arg(&object)
            .stdin(Stdio::piped())
            .spawn()
            .expect("binutils are installed");
        std::io::Write::write_all(&mut assembler.stdin.take().expect("piped"), source.as_bytes())
            .expect("it reads");
        assert!(assembler.wait().expect("it ends").success(), "{source}");
        let linked = Command::new("ld")
            .args([
                "-m",
                self.emulation,
                "-e",
                "0",
                &format!("-Ttext={base:#x}"),
                "-o",
            ])
            .args([file, &object])
            .status()
            .expect("binutils are installed");
        assert!(linked.success());
    }

    /// Break at a function, look who called it, watch a variable, step over a system call.
    fn under_gdb(&self) {
        let port = free_port();
        let Some(setup) = Setup::linux(self.architecture) else {
            return;
        };
        let test = format!("gdb-itself-{}", self.architecture);
        let mut guest = setup
            .option("--cpu", self.cpu)
            .option("--gdb", format!("127.0.0.1:{port}"))
            .start(&test);
        guest.shell();
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}.elf"));
        let names = format!("uptime_proc_show|seq_read_iter|{}", self.enters);
        self.functions(&mut guest, &names, &file);
        let symbol = guest.command("grep ' uptime_proc_show$' /proc/kallsyms");
        let function = symbol.split(' ').next().expect("an address");
        guest.command("(while :; do cat /proc/uptime; done > /dev/null) & true");
        let Self {
            enters,
            returns,
            argument,
            word,
            ..
        } = self;
        let script = format!(
            "set pagination off\nset confirm off\nfile {file}\ntarget remote 127.0.0.1:{port}\n\
             break *uptime_proc_show\ncontinue\nprintf \"at: %lx\\n\", $pc\nbacktrace 2\nstepi\ninfo registers cr3\ncontinue\n\
             printf \"again: %lx\\n\", $pc\ndelete\n\
             set $file = {argument}\neval \"watch *(unsigned int *)%#lx\", $file + 3 * {word}\ncontinue\n\
             printf \"text: %s\\n\", *(char **)$file\ncontinue\ndelete\n\
             break *{enters}\ncontinue\nset $after = {returns}\ndelete\ntbreak *$after\ncontinue\n\
             printf \"over the call: %d\\n\", $pc == $after\n\
             hbreak *uptime_proc_show\ncontinue\nx/2i $pc\nmonitor translate 0x{function}\ndelete\ndetach\n",
            file = file.display(),
        );
        let path = file.with_extension("gdb");
        std::fs::write(&path, script).expect("the script as a file");
        let gdb = Command::new("gdb")
            .args(["-q", "-nx", "-batch", "-x"])
            .arg(&path)
            .stdin(Stdio::null())
            .output()
            .expect("gdb is installed");
        let said = String::from_utf8_lossy(&gdb.stdout).into_owned() + &String::from_utf8_lossy(&gdb.stderr);
        for wanted in [
            &format!("at: {}", function.trim_start_matches('0')),
            "in seq_read_iter ()",
            &format!("again: {}", function.trim_start_matches('0')),
            "Hardware watchpoint",
            "Old value",
            "over the call: 1",
            "Hardware assisted breakpoint",
            "is at 0x",
            "detached",
        ] {
            assert!(said.contains(wanted), "no {wanted:?} in what gdb said:\n{said}");
        }
        let text = said
            .split("text: ")
            .nth(1)
            .and_then(|text| text.split(' ').next());
        assert!(
            text.is_some_and(|seconds| seconds.parse::<f64>().is_ok()),
            "{said}"
        );
        // The guest has not noticed.
        guest.command("kill $!");
        assert_eq!(guest.command("echo $((6*7))").trim(), "42");
        assert_clean(&guest.power_off());
    }
}

#[test]
fn gdb_itself_works_on_debians_64_bit_kernel() {
    Kernel {
        architecture: "AMD64",
        cpu: "max",
        bits: "--64",
        emulation: "elf_x86_64",
        enters: "entry_SYSCALL_64",
        returns: "$rcx",
        argument: "$rdi",
        word: 8,
    }
    .under_gdb();
}

#[test]
fn gdb_itself_works_on_debians_32_bit_kernel() {
    Kernel {
        architecture: "I686",
        cpu: "pentium3",
        bits: "--32",
        emulation: "elf_i386",
        enters: "entry_SYSENTER_32",
        // The vdso has pushed three registers, and left the stack pointer in EBP.
        returns: "*(unsigned int *)($ebp + 12)",
        argument: "$eax",
        word: 4,
    }
    .under_gdb();
}
