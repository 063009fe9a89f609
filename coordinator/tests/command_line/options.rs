//! Every option of `run`, judged by what it does; those that do not work yet, by what they say.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::harness::mistakes::{Files, assert_refused, run};
use crate::harness::{self, Machine, quintet, run_to_end};
use crate::listed;
use crate::modules::{self, ANSWER, LARGE, Module, module, text};

/// The test of each option of `run`, and that there is one for each.
macro_rules! options_of_run {
    ($($test:ident, $option:literal => $body:block)*) => {
        mod option {
            use super::*;
            $(#[test] fn $test() $body)*
        }
        const TESTED: &[&str] = &[$($option),*];
    };
}

#[test]
fn each_option_of_run_has_a_test() {
    let tested: BTreeSet<String> = TESTED.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(tested, listed("run"));
    assert_eq!(tested.len(), TESTED.len());
}

/// Runs a machine without a window to its end.
fn machine(options: &[&str]) -> Output {
    let mut all = vec!["run", "--headless", "--ram", "32M"];
    all.extend(options);
    run_to_end(&all)
}

/// Status and both outputs.
fn ended(options: &[&str]) -> (Option<i32>, String, String) {
    let output = machine(options);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), text(&output), errors)
}

/// The guest that storms with interrupts, `count` of each kind; its verdict is in the status: 1 is "passed".
fn storm_of(count: &str, options: &[&str]) -> (Option<i32>, String, String) {
    let files = Files::new(&format!("storm-{count}{}", options.concat().replace('/', "")));
    let kernel = files.with("irqstorm", quintet_guests::IRQSTORM);
    let mut all = vec!["--kernel", &kernel, "--append", count, "--device", "pc-testdev"];
    all.extend(["--exit-port", "0xf4", "--time-limit", "50s"]);
    all.extend(options);
    ended(&all)
}

fn storm(options: &[&str]) -> (Option<i32>, String, String) {
    storm_of("5", options)
}

/// The storm passes with these options, and says so on its serial line. Answers the errors.
#[track_caller]
fn passes(options: &[&str]) -> String {
    let (status, out, errors) = storm(options);
    assert!(
        status == Some(1) && out.contains("irqstorm: passed"),
        "{options:?}: {status:?} {out}{errors}"
    );
    errors
}

/// A boot disk that calls the BIOS and says so.
fn boot_disk(files: &Files) -> String {
    let mut image = quintet_guests::SERVICES.to_vec();
    image.resize(8 << 20, 0);
    files.with("disk", &image)
}

/// A machine of the option that does not work yet.
fn refused_until_it_works(options: &[&str], text: &str) {
    assert_refused(&run(options), &format!("{text} does not work yet"));
}

/// What a reader of metrics gets.
fn asked(mut stream: impl Read + Write) -> String {
    stream
        .write_all(b"GET /metrics HTTP/1.0\r\n\r\n")
        .expect("it takes a request");
    let mut page = String::new();
    stream.read_to_string(&mut page).expect("it answers");
    page
}

const MODULE_ARGUMENTS: &str = "(module
    (import \"wasi_snapshot_preview1\" \"args_sizes_get\" (func $sizes (param i32 i32) (result i32)))
    (memory 1)
    (func (export \"main\") (result i32)
        (drop (call $sizes (i32.const 0) (i32.const 4))) (i32.load (i32.const 0)))
    (func (export \"other\") (result i32) (i32.const 7)))";

fn wat(name: &str, text: &str) -> Module {
    Module::new(name, &wat::parse_str(text).expect("assembles"))
}

options_of_run! {
    headless, "headless" => {
        let output = Command::new(quintet())
            .arg("run")
            .env_remove("DISPLAY").env_remove("WAYLAND_DISPLAY").env_remove("WAYLAND_SOCKET")
            .stdin(Stdio::null())
            .output()
            .expect("quintet");
        assert_refused(&output, "add --headless");
        assert_eq!(ended(&["--serial", "none", "--time-limit", "1s"]).0, Some(124));
    }
    name, "name" => {
        let machine = Machine::start("called", &[]);
        let listed = text(&run_to_end(&["ps"]));
        assert!(listed.contains(&machine.name), "{listed}");
        assert_refused(&run(&["--name", "a/b"]), "name");
    }
    ram, "ram" => {
        let files = Files::new("option-ram");
        let kernel = files.with("kernel", &vec![1; (17 << 20) + 1]);
        assert_refused(&run_to_end(&["run", "--headless", "--ram", "17M", "--kernel", &kernel]), "fit into 17M");
    }
    cpus, "cpus" => {
        refused_until_it_works(&["--cpus", "2"], "--cpus other than 1");
        passes(&["--cpus", "1"]);
    }
    cpu, "cpu" => {
        let files = Files::new("option-cpu");
        let kernel = files.with("selftest.elf", quintet_guests::SELFTEST);
        let modes = |model: &str| {
            let log = format!("{}/{model}", files.path());
            let mut machine = Command::new(quintet())
                .args(["run", "--headless", "--ram", "32M", "--time-limit", "60s", "--cpu", model])
                .args(["--kernel", &kernel, "--serial", &format!("file:{log}")])
                .stdin(Stdio::null())
                .spawn()
                .expect("quintet");
            let mut line = None;
            harness::wait_until("the guest has tried the modes", || {
                let text = std::fs::read_to_string(&log).unwrap_or_default();
                // The last line may not be there whole.
                let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
                line = whole.lines().find(|l| l.contains("long ")).map(str::to_owned);
                line.is_some()
            });
            let _ = machine.kill();
            let _ = machine.wait();
            line.expect("the condition held")
        };
        assert!(modes("pentium3").contains("long none"));
        assert!(modes("max").contains("long ok"));
        assert_refused(&run(&["--cpu", "z80"]), "z80");
    }
    accel, "accel" => {
        let files = Files::new("option-accel");
        let profile = format!("{}/profile", files.path());
        let of = |accel: &str| {
            let (status, ..) = storm_of("500", &["--accel", accel, "--profile", &profile]);
            assert_eq!(status, Some(1));
            std::fs::read_to_string(&profile).expect("a profile")
        };
        assert!(!of("interp").contains("translated code"));
        assert!(of("jit").contains("translated code"));
    }
    kernel, "kernel" => {
        passes(&[]);
    }
    initrd, "initrd" => {
        let files = Files::new("option-initrd");
        let (module, other) = (files.with("a", b"one"), files.with("b", b"two"));
        passes(&["--initrd", &format!("{module} x=1,{other} y")]);
        let kernel = files.with("kernel", quintet_guests::IRQSTORM);
        assert_refused(&run(&["--kernel", &kernel, "--initrd", &files.missing()]), "no such file");
    }
    append, "append" => {
        // The last word is the number of interrupts of each kind.
        for count in ["5", "7"] {
            let (_, out, _) = storm_of(count, &[]);
            assert!(out.contains(&format!("irqstorm: {count} of each kind")), "{out}");
        }
        assert_refused(&run(&["--append", "x"]), "need a --kernel");
    }
    boot, "boot" => {
        let files = Files::new("option-boot");
        let disk = boot_disk(&files);
        let from = |device: &str| {
            let all = ["--boot", device, "--disk", &disk, "--exit-port", "0xf4", "--time-limit", "50s"];
            ended(&all)
        };
        let (status, out, errors) = from("c");
        assert!(status == Some(1) && out.contains("services: done"), "{out}{errors}");
        refused_until_it_works(&["--boot", "n"], "--boot n");
        refused_until_it_works(&["--kernel", &disk, "--boot", "c"], "--boot with --kernel");
        assert_eq!(run(&["--boot", "q"]).status.code(), Some(1));
    }
    firmware, "firmware" => {
        let files = Files::new("option-firmware");
        let firmware = files.with("flash", quintet_guests::FLASH);
        let (_, out, errors) = ended(&["--firmware", &firmware, "--exit-port", "0xf4", "--time-limit", "50s"]);
        assert!(out.contains("flash"), "{out}{errors}");
        refused_until_it_works(&["--firmware", &firmware, "--kernel", "k"], "--firmware or --pflash with --kernel");
    }
    pflash, "pflash" => {
        let files = Files::new("option-pflash");
        let firmware = files.with("firmware", quintet_guests::FLASH);
        let flash = files.with("flash", &[0xFF; 64 << 10]);
        let all = ["--firmware", &firmware, "--pflash", &flash, "--exit-port", "0xf4", "--time-limit", "50s"];
        assert_eq!(ended(&all).0, Some(1));
        assert_ne!(std::fs::read(&flash).expect("flash"), [0xFF; 64 << 10], "nothing was written");
    }
    disk, "disk" => {
        let files = Files::new("option-disk");
        let disk = boot_disk(&files);
        let overlay = format!("{}/overlay", files.path());
        for options in [
            String::new(),
            ",bus=ide,format=raw".to_owned(),
            ",snapshot=on".to_owned(),
            format!(",overlay={overlay}"),
        ] {
            let disk = format!("{disk}{options}");
            let (status, out, errors) = ended(&["--disk", &disk, "--exit-port", "0xf4", "--time-limit", "50s"]);
            assert!(status == Some(1) && out.contains("services: done"), "{options}: {out}{errors}");
        }
        assert!(Path::new(&overlay).exists());
        for options in ["bus=virtio", "ro=on", "bus=virtio,ro=on,format=raw"] {
            let disk = format!("{disk},{options}");
            passes(&["--disk", &disk]);
        }
        for bad in ["bus=scsi", "format=vhd", "ro=perhaps", "frob=1"] {
            assert_eq!(run(&["--disk", &format!("{disk},{bad}")]).status.code(), Some(1), "{bad}");
        }
        assert_eq!(run(&["--disk", &format!("{disk},format=qcow2")]).status.code(), Some(1));
    }
    cdrom, "cdrom" => {
        let files = Files::new("option-cdrom");
        let image = files.with("cd", &[0; 64 << 10]);
        passes(&["--cdrom", &image]);
        passes(&["--cdrom", "none", "--cdrom", &image]);
        assert_refused(&run(&["--cdrom", &image, "--cdrom", "none"]), "stands for an empty drive");
        assert_refused(&run(&["--cdrom", &files.missing()]), "no such file");
    }
    floppy, "floppy" => {
        let files = Files::new("option-floppy");
        let image = files.with("floppy", &[0; 1440 << 10]);
        passes(&["--floppy", &image]);
        passes(&["--floppy", "none", "--floppy", &image]);
        assert_refused(&run(&["--floppy", "none", "--floppy", "none"]), "stands for an empty drive");
        assert_refused(&run(&["--floppy", &files.with("short", &[0; 512])]), "diskettes have");
    }
    wasm, "wasm" => {
        let output = Module::new("option-wasm", &module(&ANSWER, LARGE)).run(&[]);
        assert!(text(&output).contains("Return Code: 42"), "{output:?}");
        assert_eq!(output.status.code(), Some(0));
    }
    invoke, "invoke" => {
        let output = wat("option-invoke", MODULE_ARGUMENTS).run(&["--invoke", "other"]);
        assert!(text(&output).contains("Return Code: 7"), "{output:?}");
        assert_refused(&run(&["--invoke", "f"]), "--invoke without --wasm");
    }
    dir, "dir" => {
        let files = Files::new("option-dir");
        let output = wat("option-dir", MODULE_ARGUMENTS).run(&["--dir", &format!("{}::/data", files.path())]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let bad = wat("option-no-dir", MODULE_ARGUMENTS).run(&["--dir", &files.missing()]);
        assert_refused(&bad, "no-such-file");
    }
    json, "json" => {
        let output = wat("option-json", MODULE_ARGUMENTS).run(&["--json"]);
        let report: serde_json::Value = serde_json::from_str(&text(&output)).expect("JSON");
        assert!(report.is_object(), "{report}");
    }
    exit_code, "exit-code" => {
        let output = Module::new("option-exit-code", &module(&ANSWER, 0)).run(&["--exit-code"]);
        assert_eq!(output.status.code(), Some(42));
    }
    arguments, "ARGS" => {
        let output = wat("option-args", MODULE_ARGUMENTS).run(&["--", "a", "b c"]);
        // The module's name comes first.
        assert!(text(&output).contains("Return Code: 3"), "{output:?}");
        assert_refused(&run(&["--", "a"]), "Arguments behind -- without --wasm");
    }
    jobs, "jobs" => {
        let machine = modules::machine("option-jobs");
        let seed = Module::new("option-jobs", &module(&ANSWER, 0));
        let file = seed.0.display().to_string();
        let output = run_to_end(&["submit", &machine.name, &file]);
        assert!(text(&output).contains("Return Code: 42"), "{output:?}");
    }
    serial, "serial" => {
        let files = Files::new("option-serial");
        let log = format!("{}/log", files.path());
        let (_, out, _) = storm(&["--serial", &format!("file:{log}")]);
        assert!(std::fs::read_to_string(&log).expect("a log").contains("irqstorm: passed"));
        assert_eq!(out, "");
        assert_eq!(storm(&["--serial", "none"]).1, "");
        passes(&["--serial", "stdio"]);
    }
    audio, "audio" => {
        let files = Files::new("option-audio");
        let wav = format!("{}/out.wav", files.path());
        passes(&["--audio", &format!("wav:{wav}")]);
        assert!(std::fs::read(&wav).expect("a recording").starts_with(b"RIFF"));
        passes(&["--audio", "auto"]);
        passes(&["--audio", "null"]);
        assert_refused(&run(&["--audio", "frob"]), "auto, null and wav:FILE");
    }
    no_reboot, "no-reboot" => {
        let files = Files::new("option-no-reboot");
        let mut image = vec![0xF4; 64 << 10];
        // At the reset vector: mov al, 0FEh; out 64h, al; hlt.
        image[0xFFF0..0xFFF5].copy_from_slice(&[0xB0, 0xFE, 0xE6, 0x64, 0xF4]);
        let firmware = files.with("resets", &image);
        let of = |more: &[&str]| ended(&[&["--firmware", &firmware, "--time-limit", "3s"], more].concat()).0;
        assert_eq!(of(&["--no-reboot"]), Some(3));
        assert_eq!(of(&[]), Some(124));
    }
    exit_port, "exit-port" => {
        passes(&[]);
        assert_eq!(run(&["--exit-port", "0x10000"]).status.code(), Some(1));
    }
    debugcon, "debugcon" => {
        let files = Files::new("option-debugcon");
        let log = format!("{}/log", files.path());
        passes(&["--debugcon", &format!("0xe9:file:{log}")]);
        assert!(Path::new(&log).exists());
        assert_refused(&run(&["--debugcon", "0xe9"]), "has no target");
    }
    device, "device" => {
        passes(&["--device", "AC97"]);
        assert_refused(&run(&["--device", "frob"]), "is not known; AC97, pc-testdev");
    }
    time_limit, "time-limit" => {
        let (status, _, errors) = ended(&["--serial", "none", "--time-limit", "1s"]);
        assert!(status == Some(124) && errors.contains("time limit"), "{errors}");
    }
    machine_file, "machine" => {
        let files = Files::new("option-machine");
        let file = files.with("m.toml", b"time-limit = \"1s\"\nserial = \"none\"\n");
        assert_eq!(ended(&["--machine", &file]).0, Some(124));
        let bad = files.with("bad.toml", b"frob = 1\n");
        assert_refused(&run(&["--machine", &bad]), "frob");
    }
    gdb, "gdb" => {
        let (_, out, errors) = ended(&["--gdb", "127.0.0.1:0", "--serial", "none", "--time-limit", "1s"]);
        assert!(format!("{out}{errors}").contains("target remote 127.0.0.1:"), "{out}{errors}");
        assert_refused(&run(&["--gdb", "nowhere"]), "--gdb");
    }
    metrics, "metrics" => {
        let files = Files::new("option-metrics");
        let socket = format!("{}/socket", files.path());
        let machine = Machine::start("told", &["--metrics", &format!("unix:{socket}")]);
        let page = asked(UnixStream::connect(&socket).expect("it listens"));
        let running = format!("quintet_running{{machine=\"{}\"}} 1\n", machine.name);
        assert!(page.starts_with("HTTP/1.1 200 OK\r\n") && page.contains(&running), "{page}");
        run_to_end(&["quit", &machine.name]);
        assert_eq!(machine.end().0, Some(0));
        assert!(!Path::new(&socket).exists(), "nothing is left");
        let (_, _, errors) = ended(&["--metrics", ":0", "--serial", "none", "--time-limit", "1s"]);
        assert!(errors.contains("metrics: http://127.0.0.1:"), "{errors}");
        assert_refused(&run(&["--metrics", "0.0.0.0:1"]), "other hosts could read it");
    }
    wait_for_debugger, "wait-for-debugger" => {
        let all = ["--wait-for-debugger", "cpu", "--serial", "none", "--time-limit", "2s"];
        let (status, out, errors) = ended(&all);
        assert!(format!("{out}{errors}").contains("waits for a debugger"), "{out}{errors}");
        assert_eq!(status, Some(124));
        assert_eq!(run(&["--wait-for-debugger", "frob"]).status.code(), Some(1));
    }
    external, "external" => {
        // What is typed then: tests/machine/external.rs.
        let all = ["--external", "cpu", "--external", "gpu", "--serial", "none", "--time-limit", "2s"];
        let (status, _, errors) = ended(&all);
        assert_eq!(status, Some(124));
        for worker in ["cpu", "gpu"] {
            let command = format!("quintet: the {worker}-worker waits to be started by hand: /");
            let line = errors.lines().find(|l| l.starts_with(&command)).unwrap_or_else(|| panic!("{errors}"));
            assert!(line.contains(&format!("/quintet-{worker}-worker --join ")), "{line}");
        }
        assert_refused(&run(&["--external", "frob"]), "--external \"frob\" is not a worker");
        assert_refused(&run(&["--external", "io", "--single-process"]), "--single-process");
    }
    software, "software" => {
        // What it does to a window: tests/machine/window.rs.
        passes(&["--software"]);
    }
    log, "log" => {
        assert!(passes(&["--log", "info"]).contains("INFO"));
        assert!(!passes(&["--log", "error"]).contains("INFO"));
    }
    trace, "trace" => {
        let files = Files::new("option-trace");
        let trace = format!("{}/trace", files.path());
        passes(&["--trace", &trace]);
        let trace = std::fs::read_to_string(&trace).expect("a trace");
        assert!(trace.starts_with("[\n{") && trace.ends_with("}\n]\n"));
    }
    profile, "profile" => {
        let files = Files::new("option-profile");
        let profile = format!("{}/profile", files.path());
        passes(&["--profile", &profile]);
        assert!(std::fs::read_to_string(&profile).expect("a profile").contains("what the vCPU did"));
    }
    check_jit, "check-jit" => {
        passes(&["--check-jit"]);
    }
    single_process, "single-process" => {
        passes(&["--single-process"]);
        assert_refused(&run(&["--single-process", "--wait-for-debugger", "io"]), "--single-process");
    }
    no_sandbox, "no-sandbox" => {
        let errors = passes(&["--no-sandbox"]);
        assert!(errors.contains("WARNING: --no-sandbox"), "{errors}");
    }
    backend, "backend" => {
        let errors = passes(&["--backend", "portable"]);
        assert!(errors.contains("Portable back end"), "{errors}");
        assert_refused(&run(&["--backend", "frob"]), "memfd and portable");
    }
}
