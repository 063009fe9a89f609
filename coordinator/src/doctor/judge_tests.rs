//! Each remedy, on the host that needs it.

use super::super::probe::Confined;
use super::super::show;
use super::*;

/// A host on which nothing is to be wished for.
fn good() -> Facts {
    Facts {
        kernel: "6.12.1".into(),
        arch: "x86_64",
        segment: Ok(()),
        pidfd: Ok(()),
        start: ("/run/user/1000".into(), Ok(())),
        own_directory: "/usr/bin".into(),
        programs: vec![("quintet-io-worker", true), (crate::wasm::BINARY, true)],
        cores: 8,
        spins: true,
        jit_lacks: vec![],
        host_memory: 8 << 30,
        group_memory: None,
        shared_memory: 4 << 30,
        address_space: None,
        file_size: None,
        files: Some(1024),
        locked: Some(8 << 20),
        confined: Ok(Confined {
            missing: vec![],
            landlock: 6,
            landlock_off: false,
        }),
        user_namespaces: true,
        root: false,
        yama: Some(0),
        debuggers: vec!["gdb"],
        display_named: vec!["DISPLAY=:0".into()],
        display: Some(Ok("X11".into())),
        gpus: vec![("/dev/dri/renderD128".into(), true)],
        sound_server: true,
        sound: vec![("/dev/snd/pcmC0D0p".into(), true)],
    }
}

fn on(change: impl FnOnce(&mut Facts)) -> Vec<Finding> {
    let mut facts = good();
    change(&mut facts);
    judge(&facts)
}

fn finding(findings: &[Finding], name: &str) -> Finding {
    let found = findings.iter().find(|f| f.name == name);
    found.unwrap_or_else(|| panic!("nothing about {name}")).clone()
}

/// The finding stands so, and its remedy has these words. Answers whether a machine without a window can run.
#[track_caller]
fn expect(name: &str, state: State, remedy: &str, change: impl FnOnce(&mut Facts)) -> bool {
    let findings = on(change);
    let f = finding(&findings, name);
    assert_eq!(f.state, state, "{f:?}");
    assert!(f.remedy.as_deref().is_some_and(|r| r.contains(remedy)), "{f:?}");
    assert!(
        !f.means.is_empty() && !f.found.is_empty() && !f.found.contains('\n'),
        "{f:?}"
    );
    fit_headless(&findings)
}

#[test]
fn a_good_host_lacks_nothing() {
    let findings = judge(&good());
    let lacking: Vec<&str> = findings
        .iter()
        .filter(|f| f.state != State::Ok)
        .map(|f| f.name)
        .collect();
    assert!(lacking.is_empty(), "{lacking:?}");
    assert!(fit_headless(&findings) && fit_window(&findings));
    for f in &findings {
        assert_eq!(f.remedy.is_some(), f.state != State::Ok, "{f:?}");
    }
    let mut names: Vec<&str> = findings.iter().map(|f| f.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), findings.len(), "a name stands for two findings");
}

#[test]
fn what_a_start_needs() {
    let failed = |_: &str| Err("Function not implemented".to_owned());
    assert!(!expect("segments", State::Missing, "memfd_create", |f| f
        .segment =
        failed("")));
    assert!(!expect("processes", State::Missing, "pidfd_open", |f| f.pidfd =
        failed("")));
    assert!(!expect(
        "start directory",
        State::Missing,
        "XDG_RUNTIME_DIR",
        |f| {
            f.start.1 = failed("");
        }
    ));
    assert!(!expect(
        "workers",
        State::Missing,
        "/usr/bin/../libexec/quintet",
        |f| {
            f.programs[0].1 = false;
        }
    ));
    assert!(expect("compiler of modules", State::Limited, "as a whole", |f| {
        f.programs[1].1 = false;
    }));
}

#[test]
fn a_processor_without_what_the_translator_needs_or_with_one_core() {
    assert!(expect("translator", State::Limited, "host", |f| f.jit_lacks =
        vec!["AES"]));
    assert!(expect("cores", State::Limited, "second core", |f| {
        (f.cores, f.spins) = (1, false);
    }));
}

#[test]
fn memory_of_the_host_and_of_its_groups() {
    assert!(!expect("available", State::Missing, "end what else", |f| f
        .host_memory =
        64 << 20));
    assert!(expect("available", State::Limited, "--ram 64M", |f| f
        .host_memory =
        256 << 20));
    assert!(!expect("available", State::Missing, "memory limit", |f| {
        f.group_memory = Some(64 << 20);
    }));
    assert!(expect("available", State::Limited, "memory limit", |f| {
        f.group_memory = Some(256 << 20);
    }));
    let unknown = on(|f| f.host_memory = u64::MAX);
    assert!(finding(&unknown, "available").found.contains("does not say"));
}

#[test]
fn limits_of_the_process() {
    assert!(!expect("addresses", State::Missing, "ulimit -v", |f| f
        .address_space =
        Some(1 << 20)));
    assert!(expect("addresses", State::Limited, "ulimit -v", |f| f
        .address_space =
        Some(2 << 30)));
    assert!(!expect("size of files", State::Missing, "ulimit -f", |f| f
        .file_size =
        Some(1 << 20)));
    assert!(expect("size of files", State::Limited, "ulimit -f", |f| f
        .file_size =
        Some(256 << 20)));
    assert!(!expect("open files", State::Missing, "ulimit -n", |f| f.files = Some(64)));
    assert!(expect("open files", State::Limited, "ulimit -n", |f| f.files = Some(128)));
    assert_eq!(finding(&on(|f| f.files = None), "open files").found, "no limit");
}

#[test]
fn named_shared_memory_is_for_the_portable_back_end_alone() {
    for bytes in [64 << 20, u64::MAX] {
        assert!(expect("named shared memory", State::Limited, "/dev/shm", |f| f
            .shared_memory =
            bytes));
    }
}

fn lacking(text: &str, landlock: i32, landlock_off: bool) -> Result<Confined, String> {
    Ok(Confined {
        missing: vec![text.to_owned()],
        landlock,
        landlock_off,
    })
}

#[test]
fn each_part_of_the_confinement() {
    let name = "files and sockets";
    assert!(expect(name, State::Limited, "5.13", |f| {
        f.confined = lacking("Landlock: this kernel has none", 0, false);
    }));
    assert!(expect(name, State::Limited, "lsm=landlock", |f| {
        f.confined = lacking("Landlock: this kernel has none", 0, true);
    }));
    assert!(expect(name, State::Limited, "6.12", |f| {
        f.confined = lacking("Landlock: this kernel knows only part of it", 3, false);
    }));
    assert!(expect(
        "system calls",
        State::Limited,
        "CONFIG_SECCOMP_FILTER",
        |f| {
            f.confined = lacking("seccomp: Invalid argument", 6, false);
        }
    ));
    assert!(expect("privileges", State::Limited, "capset", |f| {
        f.confined = lacking("capabilities: Operation not permitted", 6, false);
    }));
    assert!(!expect(
        "workers' confinement",
        State::Missing,
        "--no-sandbox",
        |f| {
            f.confined = Err("signal: 31 (SIGSYS)".to_owned());
        }
    ));
}

#[test]
fn user_namespaces_are_nobodys_need() {
    let f = finding(&on(|f| f.user_namespaces = false), "user namespaces");
    assert_eq!((f.state, f.remedy), (State::Ok, None));
}

#[test]
fn yama_and_the_debuggers() {
    for scope in [1, 2] {
        assert!(expect("attaching", State::Limited, "ptrace_scope=0", |f| f
            .yama =
            Some(scope)));
        let root = on(|f| (f.yama, f.root) = (Some(scope), true));
        assert_eq!(finding(&root, "attaching").state, State::Ok);
    }
    for root in [false, true] {
        assert!(expect("attaching", State::Missing, "/etc/sysctl.d", |f| {
            (f.yama, f.root) = (Some(3), root);
        }));
    }
    assert_eq!(finding(&on(|f| f.yama = None), "attaching").state, State::Ok);
    assert!(expect("debugger", State::Limited, "install gdb", |f| f
        .debuggers =
        vec![]));
    assert!(expect("debugger", State::Limited, "lldb -p", |f| f.debuggers =
        vec!["lldb"]));
}

#[test]
fn a_display_that_is_absent_refuses_or_lacks_libraries() {
    assert!(expect("display", State::Missing, "ssh -X", |f| {
        (f.display_named, f.display) = (vec![], None);
    }));
    let fails = |why: &str| Some(Err(why.to_owned()));
    assert!(expect("display", State::Missing, "XAUTHORITY", |f| f.display =
        fails("no connection to the X server")));
    let without = "os error: libXcursor.so.1: cannot open shared object file";
    assert!(expect("display", State::Missing, "libxcursor1", |f| f.display =
        fails(without)));
    assert!(!fit_window(&on(|f| f.display = fails("no"))));
}

#[test]
fn a_gpu_that_is_absent_or_somebody_elses() {
    assert!(expect("GPU", State::Limited, "/dev/dri", |f| f.gpus = vec![]));
    assert!(expect("GPU", State::Limited, "usermod", |f| f.gpus[0].1 = false));
}

#[test]
fn sound_is_a_servers_or_a_devices_that_one_may_use() {
    let alone = |devices: &[(&str, bool)]| {
        let devices: Vec<_> = devices
            .iter()
            .map(|(path, may)| ((*path).to_owned(), *may))
            .collect();
        move |f: &mut Facts| (f.sound_server, f.sound) = (false, devices)
    };
    assert!(expect("sound", State::Limited, "wav:FILE", alone(&[])));
    assert!(expect(
        "sound",
        State::Limited,
        "usermod",
        alone(&[("/dev/snd/pcmC0D0p", false)])
    ));
    let device = alone(&[("/dev/snd/pcmC0D0p", true), ("/dev/snd/pcmC1D0p", false)]);
    let found = finding(&on(device), "sound");
    assert_eq!(
        (found.state, found.found.as_str()),
        (State::Ok, "/dev/snd/pcmC0D0p")
    );
}

#[test]
fn text_and_json_say_the_same() {
    let findings = on(|f| f.segment = Err("Function not implemented".into()));
    let text = show::text(&findings);
    let json: serde_json::Value = serde_json::from_str(&show::json(&findings)).expect("JSON");
    assert_eq!(json["headless"], false);
    let listed = json["findings"].as_array().expect("a list");
    assert_eq!(listed.len(), findings.len());
    for f in listed {
        let line = format!(
            "{:<8} {}: {}",
            f["state"].as_str().expect("a state"),
            f["name"].as_str().expect("a name"),
            f["found"].as_str().expect("found")
        );
        assert!(text.contains(&line), "{line}\n{text}");
        if let Some(remedy) = f["remedy"].as_str() {
            assert!(text.contains(&format!("remedy: {remedy}")), "{text}");
        }
    }
    assert!(text.ends_with("No machine can run here; see what is missing above.\n"));
}
