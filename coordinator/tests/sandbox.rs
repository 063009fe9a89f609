//! The policies of the workers, applied to processes made for it.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Output};
use std::time::Duration;

use quintet_coordinator::sandbox::confinement;
use quintet_protocol::handshake::Role;
use quintet_protocol::handshake::confine::{EXIT_TRAPPED, confine};

/// Runs one of the helpers below in a process of its own.
fn helper(name: &str, role: Role) -> Output {
    Command::new(std::env::current_exe().expect("exe"))
        .args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"])
        .env("QUINTET_TEST_ROLE", role.name())
        .env("RUST_BACKTRACE", "0")
        .output()
        .expect("helper")
}

fn role_to_take() -> Option<Role> {
    Role::from_name(&std::env::var("QUINTET_TEST_ROLE").ok()?)
}

/// Confines this process as the worker of `role`; the filter covers all of its threads.
fn take_role(role: Role) {
    let missing = confine(&confinement(role, true).expect("policy"));
    // A kernel without Landlock is no failure of the policies; and a test has several threads, so only root's can leave the network.
    let elsewhere = |m: &&String| m.starts_with("Landlock") || m.starts_with("network namespace");
    let missing: Vec<_> = missing.iter().filter(|m| !elsewhere(m)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
#[ignore = "confines its process: run by a_forbidden_call_is_trapped_and_named"]
fn helper_opens_a_file() {
    let Some(role) = role_to_take() else { return };
    take_role(role);
    let _ = std::fs::File::open("/etc/passwd");
    unreachable!("the file could be opened");
}

#[test]
#[ignore = "confines its process: run by a_confined_process_cannot_start_another"]
fn helper_starts_a_process() {
    let Some(role) = role_to_take() else { return };
    take_role(role);
    let _ = Command::new("/bin/true").status();
    unreachable!("a process could be started");
}

#[test]
#[ignore = "confines its process: run by what_workers_need_stays_possible"]
fn helper_does_what_workers_do() {
    let Some(role) = role_to_take() else { return };
    let (reader, writer) = rustix::pipe::pipe().expect("pipe");
    // The page size and the vDSO are read before, as in a worker's start.
    let _ = (rustix::param::page_size(), std::time::Instant::now());
    take_role(role);
    let big = vec![1u8; 8 << 20];
    let thread = std::thread::Builder::new().name("vcpu".into()).spawn(move || {
        std::thread::sleep(Duration::from_millis(5));
        big.iter().map(|&b| u64::from(b)).sum::<u64>()
    });
    assert_eq!(thread.expect("a thread").join().expect("its result"), 8 << 20);
    let lock = std::sync::Mutex::new(0);
    let signal = std::sync::Condvar::new();
    let guard = lock.lock().expect("lock");
    let _ = signal
        .wait_timeout(guard, Duration::from_millis(5))
        .expect("wait");
    rustix::io::write(&writer, b"x").expect("write");
    assert_eq!(rustix::io::read(&reader, &mut [0; 4]), Ok(1));
    eprintln!("all done at {:?}", std::time::Instant::now());
}

#[test]
fn a_forbidden_call_is_trapped_and_named() {
    for role in Role::WORKERS {
        let output = helper("helper_opens_a_file", role);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(EXIT_TRAPPED), "{role}: {text}");
        let number = format!(
            "system call {} (openat) is not allowed by the sandbox",
            libc::SYS_openat
        );
        assert!(text.contains(&number), "{role}: {text}");
    }
}

#[test]
fn a_confined_process_cannot_start_another() {
    for role in Role::WORKERS {
        // Starting a process blocks all signals first, so the kernel cannot deliver the trap and kills instead.
        let output = helper("helper_starts_a_process", role);
        let trapped =
            output.status.code() == Some(EXIT_TRAPPED) || output.status.signal() == Some(libc::SIGSYS);
        assert!(trapped, "{role}: {:?}", output.status);
    }
}

#[test]
fn what_workers_need_stays_possible() {
    for role in Role::WORKERS {
        let output = helper("helper_does_what_workers_do", role);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && text.contains("all done"),
            "{role}: {text}"
        );
    }
}
