//! After each mistake: one line, exit status 1, and no process, directory, socket or segment of it is left.

mod harness;

use std::path::Path;
use std::process::{Command, Stdio};

use harness::mistakes::{Files, noise};
use harness::{leftovers, quintet, run_to_end};
use quintet_coordinator::control::client;
use quintet_coordinator::supervise::names;

/// An environment variable that a coordinator's children inherit.
const MARK: &str = "QUINTET_TEST_MARK";

/// Processes that carry the mark.
fn marked(mark: &str) -> Vec<String> {
    let entry = format!("{MARK}={mark}");
    let carries = |path: &Path| {
        let environment = std::fs::read(path.join("environ")).unwrap_or_default();
        environment.split(|&b| b == 0).any(|e| e == entry.as_bytes())
    };
    std::fs::read_dir("/proc")
        .expect("processes are listed")
        .flatten()
        .map(|e| e.path())
        .filter(|path| carries(path))
        .map(|path| path.display().to_string())
        .collect()
}

/// Segments of the portable back end that belong to a process.
fn segments(process: u32) -> Vec<String> {
    let prefix = format!("{}{process}-", names::prefix("shm"));
    let entries = std::fs::read_dir(names::SHARED_MEMORY)
        .into_iter()
        .flatten()
        .flatten();
    let names = entries.map(|e| e.file_name().to_string_lossy().into_owned());
    names.filter(|n| n.starts_with(&prefix)).collect()
}

fn refused_without_a_trace(case: &str, options: &[&str]) {
    let mark = format!("{case}-{}", std::process::id());
    let child = Command::new(quintet())
        .args(["run", "--headless", "--serial", "none", "--time-limit", "30s"])
        .args(["--name", &mark])
        .args(options)
        .env(MARK, &mark)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("quintet starts");
    let process = child.id();
    let output = child.wait_with_output().expect("it ends by itself");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{case}: {text}");
    let lines = text.lines().filter(|l| !l.contains("Portable back end")).count();
    assert_eq!(lines, 1, "{case}: {text}");
    assert!(output.stdout.is_empty(), "{case}");
    assert_eq!(marked(&mark), Vec::<String>::new(), "{case}");
    assert_eq!(leftovers(process), Vec::<String>::new(), "{case}");
    assert_eq!(segments(process), Vec::<String>::new(), "{case}");
    assert!(!client::names().contains(&mark), "{case}");
}

/// A bzImage by its header alone, with noise in place of everything else.
fn noisy_bzimage(len: usize) -> Vec<u8> {
    let mut image = noise(len);
    image[0x1F1] = 4;
    image[0x1FE..0x200].copy_from_slice(&[0x55, 0xAA]);
    image[0x200..0x202].copy_from_slice(&[0xEB, 0x66]);
    image[0x202..0x208].copy_from_slice(b"HdrS\x0D\x02");
    image
}

#[test]
fn every_mistake_leaves_nothing_behind() {
    let f = Files::new("left");
    let good = f.with("good", quintet_guests::DMACODE);
    let missing = f.missing();
    let empty = f.with("empty", b"");
    let random = f.with("random", &noise(300_000));
    let large_random = f.with("large-random", &noise(3 << 20));
    let truncated = f.with(
        "truncated",
        &quintet_guests::DMACODE[..quintet_guests::DMACODE.len() / 2],
    );
    let truncated_header = f.with("truncated-header", &noisy_bzimage(0x400)[..0x210]);
    let noisy = f.with("noisy", &noisy_bzimage(200_000));
    let large = f.with("large", &vec![1; (16 << 20) + 1]);
    let ram = ["--ram", "16M"];
    let cases: &[(&str, &[&str])] = &[
        ("missing-kernel", &["--kernel", &missing]),
        ("empty-kernel", &["--kernel", &empty]),
        ("random-kernel", &["--kernel", &random]),
        ("large-random-kernel", &["--kernel", &large_random]),
        ("truncated-kernel", &["--kernel", &truncated]),
        ("truncated-bzimage", &["--kernel", &truncated_header]),
        ("noisy-bzimage", &["--kernel", &noisy]),
        ("missing-initrd", &["--kernel", &good, "--initrd", &missing]),
        ("empty-initrd", &["--kernel", &good, "--initrd", &empty]),
        ("large-initrd", &["--kernel", &good, "--initrd", &large]),
        ("two-kernels", &["--kernel", &good, "--kernel", &good]),
        ("no-ram", &["--ram", "0"]),
        ("too-much-ram", &["--ram", "1T"]),
        ("little-memory", &["--ram", "64M", "--pretend-available", "48M"]),
    ];
    for (case, options) in cases {
        let mut all = if options[0] == "--ram" {
            Vec::new()
        } else {
            ram.to_vec()
        };
        all.extend(*options);
        refused_without_a_trace(case, &all);
    }
    let all = ["--ram", "16M", "--backend", "portable", "--kernel", &random];
    refused_without_a_trace("random-kernel-portable", &all);
}

#[test]
fn a_random_or_truncated_initrd_is_the_guests_business() {
    let f = Files::new("left-initrd");
    let kernel = f.with("kernel", quintet_guests::DMACODE);
    for (n, initrd) in [noise(100_000), noise(1), b"070701"[..3].to_vec()]
        .iter()
        .enumerate()
    {
        let initrd = f.with(&format!("initrd{n}"), initrd);
        let output = run_to_end(&[
            "run",
            "--headless",
            "--ram",
            "16M",
            "--exit-port",
            "0xf4",
            "--time-limit",
            "50s",
            "--kernel",
            &kernel,
            "--initrd",
            &initrd,
        ]);
        let text = String::from_utf8_lossy(&output.stdout);
        // The guest's own verdict, through the exit port.
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("dmacode: code passed"), "{text}");
    }
}
