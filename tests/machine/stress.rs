//! stress-ng from Debian's packages in the guest, with `--verify`: arithmetic, memory, address spaces, signals and context
//! switches at once, each stressor comparing what it got with what it must be. Code is translated, as is the default.
//!
//! Continuous integration has three minutes for both kernels; `cargo xtask test --long` takes half an hour for each.

mod support;

use std::time::{Duration, Instant};

use support::{Setup, assert_clean, scale, variable};

/// What runs side by side on the one processor.
const STRESSORS: &str = "--cpu 1 --cpu-method all --matrix 1 --vecmath 1 --qsort 1 --qsort-size 5000 --str 1 --memcpy 1 --vm 1 --vm-bytes 16M \
    --mmap 1 --mmap-bytes 4M --fork 1 --signal 1 --sigq 1 --sigsegv 1 --switch 1 --context 1 --pipe 1 --futex 1";

/// What the table at the end of the log says that a stressor has done.
fn operations(log: &str, stressor: &str) -> u64 {
    log.lines()
        .filter_map(|line| line.split_once("] ")?.1.strip_prefix(stressor))
        .find_map(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

fn passes(architecture: &str) {
    let Some(initrd) = variable(&format!("QUINTET_STRESS_{architecture}")) else {
        return;
    };
    let Some(kernel) = variable(&format!("QUINTET_KERNEL_{architecture}")) else {
        return;
    };
    let Some(quintet) = support::quintet() else { return };
    let mut guest = Setup::new(quintet, kernel)
        .option("--initrd", initrd)
        .option("--append", "console=ttyS0")
        .option("--ram", "512M")
        .start(&format!("stress-{architecture}"));
    guest.shell();
    // A busy host is worth a message that would stand between what is read here; all of them are looked at below.
    guest.command("dmesg -n 1");
    let time: Duration = scale(Duration::from_secs(90), Duration::from_secs(1800));
    guest.command(&format!(
        "cd /tmp; (/usr/bin/stress-ng {STRESSORS} --verify --metrics-brief --timeout {}s >log 2>&1; echo $? >status) & true",
        time.as_secs()
    ));
    let start = Instant::now();
    // It ends on the guest's clock; each stressor may take a while to notice.
    let status = loop {
        std::thread::sleep(Duration::from_secs(3));
        let status = guest.command("cat /tmp/status 2>/dev/null; true");
        if !status.trim().is_empty() {
            break status;
        }
        assert!(
            start.elapsed() < time * 3 + Duration::from_secs(60),
            "stress-ng does not end"
        );
    };
    let log = guest.command("cat /tmp/log");
    println!("{log}");
    assert_eq!(status.trim(), "0", "{log}");
    assert!(log.contains("successful run completed"), "{log}");
    assert!(!log.contains("fail:"), "{log}");
    for stressor in STRESSORS.split_whitespace().filter_map(|w| w.strip_prefix("--")) {
        if matches!(stressor, "cpu-method" | "qsort-size" | "vm-bytes" | "mmap-bytes") {
            continue;
        }
        assert!(
            operations(&log, stressor) > 0,
            "{stressor} has done nothing:\n{log}"
        );
    }
    assert_clean(&guest.command("dmesg"));
    assert_clean(&guest.power_off());
}

#[test]
fn stress_ng_verifies_what_the_amd64_kernel_gets() {
    passes("AMD64");
}

#[test]
fn stress_ng_verifies_what_the_i686_kernel_gets() {
    passes("I686");
}
