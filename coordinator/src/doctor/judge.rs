//! From what there is to what it means, and what to do about it.

use serde::Serialize;

use super::facts::{Facts, Limit};
use crate::units::show_size;

/// How a finding stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// Something works less well, or not at all, and the rest does.
    Limited,
    /// Absent.
    Missing,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is part of.
    pub topic: &'static str,
    /// What was looked at; unique.
    pub name: &'static str,
    /// How it stands.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What that means for a machine; empty when all is well.
    pub means: String,
    /// What to do about it.
    pub remedy: Option<String>,
    /// Whether no machine runs when it is missing.
    pub needed: bool,
}

/// RAM of a machine that is not told otherwise.
const USUAL_RAM: u64 = 512 << 20;
/// What the demo guest is content with, and each process's own beside it.
const LEAST_MEMORY: u64 = 128 << 20;
/// Descriptors that a coordinator with a few images and consoles has open, as measured, with room.
const USUAL_FILES: u64 = 256;
/// With fewer no machine was seen to start.
const LEAST_FILES: u64 = 96;
/// The reserved part of the RAM segment, `guest_base` of docs/protocol.md.
const BELOW_RAM: u64 = 128 << 20;
/// What the largest worker maps beside guest RAM, measured to be between 390 and 464 MiB: its own code, stacks, shared files,
/// translated code.
const MAPPED_BESIDE: u64 = 464 << 20;
/// Addresses that a machine with a module needs: the module's memory reserves 4 GiB with its guard. 3 GB were measured to be
/// too little and 5 GB to do.
const MODULE_ADDRESSES: u64 = 5_000_000 << 10;
/// The version of Landlock that workers ask for.
const LANDLOCK: i32 = 6;

/// Judges everything.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = start(facts);
    findings.extend(processor(facts));
    findings.extend(memory(facts));
    findings.extend(confinement(facts));
    findings.extend(debugging(facts));
    findings.extend(display(facts));
    findings.push(sound(facts));
    findings
}

/// Whether a machine without a window can run.
pub fn fit_headless(findings: &[Finding]) -> bool {
    !findings.iter().any(|f| f.needed && f.state == State::Missing)
}

/// Whether a machine with a window can run.
pub fn fit_window(findings: &[Finding]) -> bool {
    fit_headless(findings)
        && findings
            .iter()
            .any(|f| f.name == "display" && f.state == State::Ok)
}

fn ok(topic: &'static str, name: &'static str, found: impl Into<String>) -> Finding {
    Finding {
        topic,
        name,
        state: State::Ok,
        found: found.into(),
        means: String::new(),
        remedy: None,
        needed: false,
    }
}

impl Finding {
    fn but(self, state: State, means: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            state,
            means: means.into(),
            remedy: Some(remedy.into()),
            ..self
        }
    }

    /// All is well, and this is to be known.
    fn note(self, means: impl Into<String>) -> Self {
        Self {
            means: means.into(),
            ..self
        }
    }

    fn needed(self) -> Self {
        Self { needed: true, ..self }
    }
}

fn start(f: &Facts) -> Vec<Finding> {
    const TOPIC: &str = "start";
    let tried = |name, result: &Result<(), String>, good: &str, remedy: &str| match result {
        Ok(()) => ok(TOPIC, name, good).needed(),
        Err(e) => ok(TOPIC, name, e)
            .but(State::Missing, "No machine can start.", remedy)
            .needed(),
    };
    let (base, made) = &f.start;
    let mut findings = vec![
        ok(TOPIC, "kernel", format!("Linux {} on {}", f.kernel, f.arch)),
        tried(
            "segments",
            &f.segment,
            "shared memory without names (memfd), sealed",
            "Linux 5.4 or newer with /proc mounted is needed; a container's policy must allow memfd_create",
        ),
        tried(
            "processes",
            &f.pidfd,
            "their deaths are seen (pidfd)",
            "Linux 5.4 or newer is needed; a container's policy must allow pidfd_open",
        ),
        tried(
            "start directory",
            made,
            &base.display().to_string(),
            &format!(
                "let your user write to {}, or name another directory in XDG_RUNTIME_DIR",
                base.display()
            ),
        ),
    ];
    let absent = |compiler: bool| {
        let of = |name: &str| name == crate::wasm::BINARY;
        let names = f
            .programs
            .iter()
            .filter(|(name, there)| !there && of(name) == compiler);
        names.map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    };
    let place = f.own_directory.display();
    let (workers, compiler) = (absent(false), absent(true));
    let remedy =
        format!("install quintet as a whole: they belong into {place} or {place}/../libexec/quintet");
    findings.push(if workers.is_empty() {
        ok(TOPIC, "workers", format!("found from {place}")).needed()
    } else {
        ok(TOPIC, "workers", format!("{workers} not found"))
            .but(State::Missing, "No machine can start.", &remedy)
            .needed()
    });
    findings.push(if compiler.is_empty() {
        ok(TOPIC, "compiler of modules", "found")
    } else {
        ok(TOPIC, "compiler of modules", format!("{compiler} not found")).but(
            State::Limited,
            "PCs run, WebAssembly modules do not.",
            remedy,
        )
    });
    findings
}

fn processor(f: &Facts) -> Vec<Finding> {
    const TOPIC: &str = "processor";
    let lacks = f.jit_lacks.join(", ");
    let translator = if f.jit_lacks.is_empty() {
        ok(TOPIC, "translator", "guest code is translated to host code")
    } else {
        ok(TOPIC, "translator", format!("no {lacks}")).but(
            State::Limited,
            "Guests are interpreted, several times slower.",
            "use a host that has it; in a virtual machine, pass the host's processor through (\"host\" model)",
        )
    };
    let cores = ok(TOPIC, "cores", f.cores.to_string());
    let cores = if f.spins {
        cores.note("A wait for a device begins by spinning.")
    } else {
        cores.but(
            State::Limited,
            "Each wait for a device costs a switch of process, so disks and consoles are slower.",
            "give this process a second core (taskset, the container's cpuset, the virtual machine's settings)",
        )
    };
    vec![translator, cores]
}

fn size_of(limit: Limit) -> String {
    limit.map_or("no limit".to_owned(), show_size)
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

fn memory(f: &Facts) -> Vec<Finding> {
    vec![
        available(f),
        addresses(f),
        file_size(f),
        descriptors(f),
        ok("memory", "locked memory", size_of(f.locked)).note("Nothing of a machine is locked in memory."),
        named(f),
    ]
}

fn available(f: &Facts) -> Finding {
    let memory = f.memory();
    let by_group = f.group_memory.is_some_and(|group| group < f.host_memory);
    let found = match memory {
        u64::MAX => "the host does not say how much".to_owned(),
        _ if by_group => format!(
            "{} are left by this control group's limit, of {} that the host has",
            mebibytes(memory),
            mebibytes(f.host_memory)
        ),
        _ => format!("{} are available", mebibytes(memory)),
    };
    let remedy = if by_group {
        "raise the memory limit of the service or container that this runs in"
    } else {
        "end what else takes memory"
    };
    let finding = ok("memory", "available", found).needed();
    match memory {
        ..LEAST_MEMORY => finding.but(State::Missing, "No machine has room.", remedy),
        LEAST_MEMORY..USUAL_RAM => finding.but(
            State::Limited,
            format!(
                "A machine with its usual {} of RAM is refused.",
                show_size(USUAL_RAM)
            ),
            format!("give machines less (--ram 64M), or {remedy}"),
        ),
        _ => finding,
    }
}

fn addresses(f: &Facts) -> Finding {
    let finding = ok("memory", "addresses", size_of(f.address_space)).needed();
    let remedy = "ulimit -v unlimited, in the shell or service that starts quintet";
    match f.address_space {
        Some(bytes) if bytes < MAPPED_BESIDE + (16 << 20) => {
            finding.but(State::Missing, "No machine has room.", remedy)
        }
        Some(bytes) if bytes < MODULE_ADDRESSES => finding.but(
            State::Limited,
            format!(
                "Guests of more than some {} may fail to start, and WebAssembly modules do not run.",
                mebibytes(bytes - MAPPED_BESIDE)
            ),
            remedy,
        ),
        _ => finding,
    }
}

fn file_size(f: &Facts) -> Finding {
    let finding = ok("memory", "size of files", size_of(f.file_size)).needed();
    let remedy = "ulimit -f unlimited, in the shell or service that starts quintet";
    match f.file_size {
        Some(bytes) if bytes < BELOW_RAM + (16 << 20) => finding.but(
            State::Missing,
            "No machine has room: guest RAM counts as a file.",
            remedy,
        ),
        Some(bytes) if bytes < BELOW_RAM + USUAL_RAM => finding.but(
            State::Limited,
            format!(
                "Machines with more than {} of RAM do not start: it counts as a file.",
                mebibytes(bytes - BELOW_RAM)
            ),
            remedy,
        ),
        _ => finding,
    }
}

fn descriptors(f: &Facts) -> Finding {
    let finding = ok("memory", "open files", size_or_count(f.files)).needed();
    let remedy = "ulimit -n 1024, in the shell or service that starts quintet";
    match f.files {
        Some(..LEAST_FILES) => finding.but(State::Missing, "No machine can start.", remedy),
        Some(..USUAL_FILES) => finding.but(
            State::Limited,
            "A machine with many disks or many jobs may run out of descriptors.",
            remedy,
        ),
        _ => finding,
    }
}

fn size_or_count(limit: Limit) -> String {
    limit.map_or("no limit".to_owned(), |count| count.to_string())
}

fn named(f: &Facts) -> Finding {
    let place = crate::supervise::names::SHARED_MEMORY;
    let found = match f.shared_memory {
        u64::MAX => format!("{place} is not there"),
        bytes => format!("{} are free in {place}", mebibytes(bytes)),
    };
    let finding = ok("memory", "named shared memory", found);
    if f.shared_memory == u64::MAX || f.shared_memory < BELOW_RAM + USUAL_RAM {
        finding.but(
            State::Limited,
            "Only --backend portable needs it: a machine with its usual RAM does not fit.",
            format!(
                "mount -o remount,size=1G {place}, for a container --shm-size=1g; or do without that option"
            ),
        )
    } else {
        finding
    }
}

fn confinement(f: &Facts) -> Vec<Finding> {
    const TOPIC: &str = "confinement";
    let confined = match &f.confined {
        Ok(confined) => confined,
        Err(e) => {
            return vec![
                ok(TOPIC, "workers' confinement", e)
                    .but(
                        State::Missing,
                        "A process died when it gave up its privileges, so workers would.",
                        "--no-sandbox runs without; please report this with your kernel's release",
                    )
                    .needed(),
            ];
        }
    };
    // The first word says what; the rest is for the report as it is.
    let about = |what: &str| confined.missing.iter().find(|text| text.starts_with(what));
    let seccomp = match about("seccomp") {
        None => ok(
            TOPIC,
            "system calls",
            "each worker keeps those that it needs (seccomp)",
        ),
        Some(text) => ok(TOPIC, "system calls", text).but(
            State::Limited,
            "A worker taken over by its guest may make any system call.",
            "use a kernel with CONFIG_SECCOMP_FILTER, on x86-64",
        ),
    };
    let landlock = match about("Landlock") {
        None => ok(
            TOPIC,
            "files and sockets",
            format!("kept from the workers (Landlock, version {})", confined.landlock),
        ),
        Some(text) => landlock(confined.landlock, confined.landlock_off, text),
    };
    let others: Vec<&str> = confined
        .missing
        .iter()
        .map(String::as_str)
        .filter(|text| !text.starts_with("seccomp") && !text.starts_with("Landlock"))
        .collect();
    let privileges = if others.is_empty() {
        ok(
            TOPIC,
            "privileges",
            "no new ones, no capabilities, limits on descriptors and memory",
        )
    } else {
        ok(TOPIC, "privileges", others.join("; ")).but(
            State::Limited,
            "A worker keeps more than it needs.",
            "a container's policy must allow prctl, capset and setrlimit",
        )
    };
    let namespaces = if f.user_namespaces {
        ok(TOPIC, "user namespaces", "possible").note("No machine needs them.")
    } else {
        ok(TOPIC, "user namespaces", "not for this user").note("No machine needs them.")
    };
    vec![seccomp, landlock, privileges, namespaces]
}

fn landlock(version: i32, off: bool, text: &str) -> Finding {
    let finding = ok("confinement", "files and sockets", text);
    let means = "A worker taken over by its guest is kept from files and sockets by its system calls alone.";
    match (version, off) {
        (1.., _) => finding.but(
            State::Limited,
            format!("Version {version} of Landlock keeps files from the workers, and not all that version {LANDLOCK} does."),
            "Linux 6.12 or newer has all of it",
        ),
        (_, true) => finding.but(
            State::Limited,
            means,
            "Landlock is built into this kernel and off: start it with lsm=landlock in front of the list in /sys/kernel/security/lsm",
        ),
        _ => finding.but(
            State::Limited,
            means,
            "use Linux 5.13 or newer with CONFIG_SECURITY_LANDLOCK, as Debian's, Ubuntu's and Fedora's are; in a container, its policy must allow landlock_create_ruleset",
        ),
    }
}

fn debugging(f: &Facts) -> Vec<Finding> {
    const TOPIC: &str = "debugging";
    let means = "`quintet debug` and `--wait-for-debugger` need a debugger with more rights.";
    let as_root = "run gdb as root (sudo gdb -p PID), or";
    let attach = match (f.yama, f.root) {
        (Some(3..), _) => ok(
            TOPIC,
            "attaching",
            "forbidden until the next boot (Yama, ptrace_scope 3)",
        )
        .but(
            State::Missing,
            "No debugger can attach to a worker; all else works.",
            "boot with kernel.yama.ptrace_scope=1 in /etc/sysctl.d",
        ),
        (Some(scope), true) if scope > 0 => ok(TOPIC, "attaching", "possible, since you are root"),
        (Some(2), false) => ok(TOPIC, "attaching", "for root alone (Yama, ptrace_scope 2)").but(
            State::Limited,
            means,
            format!("{as_root} sudo sysctl kernel.yama.ptrace_scope=0"),
        ),
        (Some(1), false) => ok(
            TOPIC,
            "attaching",
            "to one's own children alone (Yama, ptrace_scope 1)",
        )
        .but(
            State::Limited,
            means,
            format!("{as_root} sudo sysctl kernel.yama.ptrace_scope=0"),
        ),
        (Some(_), _) => ok(TOPIC, "attaching", "possible for the same user"),
        (None, _) => ok(TOPIC, "attaching", "possible for the same user (no Yama)"),
    };
    let debuggers = match f.debuggers.as_slice() {
        [] => ok(TOPIC, "debugger", "neither gdb nor lldb").but(
            State::Limited,
            "`quintet debug` prints the command instead of running it.",
            "sudo apt-get install gdb",
        ),
        found if !found.contains(&"gdb") => ok(TOPIC, "debugger", found.join(", ")).but(
            State::Limited,
            "`quintet debug` starts gdb alone, and prints its command without it.",
            "lldb -p with the process number that is printed, or sudo apt-get install gdb",
        ),
        found => ok(TOPIC, "debugger", found.join(", ")),
    };
    vec![attach, debuggers]
}

/// Libraries that the window loads when it opens, as Debian calls them.
pub const WINDOW_PACKAGES: &str = "libx11-xcb1 libxcursor1 libxi6 libxrandr2 libxkbcommon-x11-0";

fn display(f: &Facts) -> Vec<Finding> {
    const TOPIC: &str = "display";
    let named = f.display_named.join(" ");
    let connection = match &f.display {
        None => ok(TOPIC, "display", "neither WAYLAND_DISPLAY nor DISPLAY is set").but(
            State::Missing,
            "There is no window.",
            "add --headless, or start quintet from a desktop session; over ssh, connect with ssh -X",
        ),
        Some(Ok(kind)) => ok(TOPIC, "display", format!("{kind}, {named}")),
        Some(Err(e)) => ok(TOPIC, "display", format!("{named}: {e}")).but(
            State::Missing,
            "There is no window.",
            display_remedy(e),
        ),
    };
    let usable: Vec<&str> = f
        .gpus
        .iter()
        .filter(|(_, mine)| *mine)
        .map(|(p, _)| p.as_str())
        .collect();
    let gpu = match (usable.as_slice(), f.gpus.as_slice()) {
        ([], []) => ok(TOPIC, "GPU", "none").but(
            State::Limited,
            "The window is drawn by the processor.",
            "nothing need be done; a GPU with a kernel driver would appear in /dev/dri",
        ),
        ([], theirs) => ok(TOPIC, "GPU", format!("{} may not be used", theirs[0].0)).but(
            State::Limited,
            "The window is drawn by the processor.",
            "sudo usermod -aG render $USER, and log in again",
        ),
        (mine, _) => ok(TOPIC, "GPU", mine.join(", ")),
    };
    vec![connection, gpu]
}

fn display_remedy(error: &str) -> String {
    let error = error.to_lowercase();
    let library = ["librar", ".so", "dlopen"]
        .iter()
        .any(|word| error.contains(word));
    if library {
        format!("sudo apt-get install {WINDOW_PACKAGES}")
    } else {
        "check that the display named there runs and that you may use it (XAUTHORITY, xhost, the socket in \
         XDG_RUNTIME_DIR), or add --headless"
            .to_owned()
    }
}

fn sound(f: &Facts) -> Finding {
    const TOPIC: &str = "sound";
    let (mine, theirs): (Vec<_>, Vec<_>) = f.sound.iter().partition(|(_, may_use)| *may_use);
    let mine: Vec<&str> = mine.iter().map(|(path, _)| path.as_str()).collect();
    match (f.sound_server, mine.as_slice(), theirs.as_slice()) {
        (true, _, _) => ok(TOPIC, TOPIC, "a sound server"),
        (false, [], []) => ok(TOPIC, TOPIC, "neither a sound server nor a device").but(
            State::Limited,
            "--audio auto is silent.",
            "start PipeWire or PulseAudio for this user, or record what the guest plays with --audio wav:FILE",
        ),
        (false, [], theirs) => ok(TOPIC, TOPIC, format!("{} may not be used", theirs[0].0)).but(
            State::Limited,
            "--audio auto is silent.",
            "sudo usermod -aG audio $USER, and log in again",
        ),
        (false, mine, _) => ok(TOPIC, TOPIC, mine.join(", ")),
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
