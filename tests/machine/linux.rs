//! Debian's stock kernels on the machine of five processes: to a shell, a typed command, and off.
//!
//! The kernels and initramfs images are prepared by `cargo xtask test`, which names them in the environment.

use std::ffi::{OsStr, OsString};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Longest wait for one piece of output: a watchdog, not a measurement.
const PATIENCE: Duration = Duration::from_secs(600);

/// A variable that the test runner sets; without it the test is skipped loudly, and fails where `CI` is set.
fn variable(name: &str) -> Option<OsString> {
    let value = std::env::var_os(name);
    if value.is_none() {
        assert!(
            std::env::var_os("CI").is_none_or(|v| v != "true"),
            "{name} is not set"
        );
        eprintln!("SKIPPED: {name} is not set; run cargo xtask test");
    }
    value
}

struct Guest {
    process: Child,
    output: Receiver<u8>,
    seen: String,
}

impl Guest {
    fn boot(quintet: &Path, kernel: &OsStr, initrd: &OsStr, ram: &str) -> Self {
        let mut process = Command::new(quintet)
            .args(["run", "--headless", "--serial", "stdio", "--time-limit", "1000s"])
            .args(["--ram", ram, "--append", "console=ttyS0", "--kernel"])
            .arg(kernel)
            .arg("--initrd")
            .arg(initrd)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("quintet starts");
        let mut stdout = process.stdout.take().expect("piped");
        let (send, output) = channel();
        std::thread::spawn(move || {
            let mut byte = [0];
            while stdout.read(&mut byte).is_ok_and(|n| n == 1) && send.send(byte[0]).is_ok() {}
        });
        Self {
            process,
            output,
            seen: String::new(),
        }
    }

    fn hear(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        let from = self.seen.len();
        while !self.seen[from..].contains(text) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(byte) => self.seen.push(char::from(byte)),
                Err(_) => {
                    let _ = self.process.kill();
                    panic!("no {text:?} from the guest, but:\n{}", self.seen);
                }
            }
        }
    }

    fn say(&mut self, text: &str) {
        let stdin = self.process.stdin.as_mut().expect("piped");
        stdin.write_all(text.as_bytes()).expect("the machine takes input");
    }
}

fn boots_to_a_shell_and_powers_off(architecture: &str) {
    let folder = variable("QUINTET_BIN_DIR");
    let kernel = variable(&format!("QUINTET_KERNEL_{architecture}"));
    let initrd = variable(&format!("QUINTET_INITRD_{architecture}"));
    let (Some(folder), Some(kernel), Some(initrd)) = (folder, kernel, initrd) else {
        return;
    };
    let mut guest = Guest::boot(&PathBuf::from(folder).join("quintet"), &kernel, &initrd, "512M");
    guest.hear("quintet: ready");
    guest.hear("# ");
    guest.say("echo sum=$((6*7))\n");
    guest.hear("sum=42");
    guest.say("poweroff -f\n");
    let status = guest.process.wait().expect("it ends");
    assert_eq!(status.code(), Some(0));
    for complaint in [
        "nobody cared",
        "unstable",
        "soft lockup",
        "spurious",
        "Disabling IRQ",
    ] {
        assert!(!guest.seen.contains(complaint), "{complaint}:\n{}", guest.seen);
    }
}

#[test]
fn debians_amd64_kernel_boots_to_a_shell_and_powers_off() {
    boots_to_a_shell_and_powers_off("AMD64");
}

#[test]
fn debians_i686_kernel_boots_to_a_shell_and_powers_off() {
    boots_to_a_shell_and_powers_off("I686");
}
