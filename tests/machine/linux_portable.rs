//! Debian's kernel on the portable back end: with `--long`, because the demo guest shows the same in seconds.

use std::path::PathBuf;
use std::process::{Command, Stdio};

#[test]
#[ignore = "boots Linux once more, on the portable back end; part of --long"]
fn debians_amd64_kernel_runs_on_the_portable_back_end() {
    let variable = |name: &str| std::env::var_os(name).unwrap_or_else(|| panic!("{name} is not set"));
    let output = Command::new(PathBuf::from(variable("QUINTET_BIN_DIR")).join("quintet"))
        .args(["run", "--headless", "--ram", "512M", "--backend", "portable"])
        .args([
            "--time-limit",
            "1000s",
            "--append",
            "console=ttyS0 Q_OFF=1",
            "--kernel",
        ])
        .arg(variable("QUINTET_KERNEL_AMD64"))
        .arg("--initrd")
        .arg(variable("QUINTET_INITRD_AMD64"))
        .stdin(Stdio::null())
        .output()
        .expect("quintet starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("quintet: ready"), "{text}");
}
