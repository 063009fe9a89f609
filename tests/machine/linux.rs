//! Debian's stock kernels on the machine of five processes: to a shell, a typed command, and off; translated as is the
//! default, and interpreted.
//!
//! The kernels and initramfs images are prepared by `cargo xtask test`, which names them in the environment.

mod support;

use support::{Machine, Setup, assert_clean, scale};

/// Boots to a shell that answers, has `look` ask it more, and powers off; the log must be clean.
fn boots(architecture: &str, ram: &str, look: impl FnOnce(&mut Machine)) {
    boots_by("jit", architecture, ram, look);
}

fn boots_by(accel: &str, architecture: &str, ram: &str, look: impl FnOnce(&mut Machine)) {
    let Some(setup) = Setup::linux(architecture) else {
        return;
    };
    let mut guest = setup
        .option("--accel", accel)
        .option("--ram", ram)
        .start(&format!("{architecture}-{ram}-{accel}"));
    guest.shell();
    assert_eq!(guest.command("echo sum=$((6*7))").trim(), "sum=42");
    look(&mut guest);
    assert_clean(&guest.power_off());
}

/// What `/proc/meminfo` says of a field, in bytes.
fn meminfo(guest: &mut Machine, field: &str) -> u64 {
    let text = guest.command(&format!("grep ^{field}: /proc/meminfo"));
    let kib = text.split_whitespace().nth(1).expect("a number of kB");
    kib.parse::<u64>().expect("a number") << 10
}

/// The ranges of `/proc/iomem` that are RAM, as (first, last).
fn system_ram(guest: &mut Machine) -> Vec<(u64, u64)> {
    let text = guest.command("grep 'System RAM' /proc/iomem");
    let hex = |s: &str| u64::from_str_radix(s.trim(), 16).expect("hexadecimal");
    text.lines()
        .filter_map(|line| line.split_once(" : ")?.0.split_once('-'))
        .map(|(first, last)| (hex(first), hex(last)))
        .collect()
}

/// Free bytes in zone Normal.
fn zone_normal_free(guest: &mut Machine) -> u64 {
    let text = guest.command("sed -n '/zone *Normal/,$p' /proc/zoneinfo | grep -m 1 'pages free'");
    let pages = text.split_whitespace().nth(2).expect("a number of pages");
    pages.parse::<u64>().expect("a number") << 12
}

#[test]
fn debians_amd64_kernel_boots_to_a_shell_and_powers_off() {
    boots("AMD64", "512M", |_| {});
}

#[test]
fn debians_i686_kernel_boots_to_a_shell_and_powers_off() {
    boots("I686", "512M", |_| {});
}

#[test]
fn debians_amd64_kernel_boots_interpreted() {
    boots_by("interp", "AMD64", "512M", |_| {});
}

#[test]
fn debians_i686_kernel_boots_interpreted() {
    boots_by("interp", "I686", "512M", |_| {});
}

#[test]
fn debians_amd64_kernel_boots_with_128_mib() {
    boots("AMD64", "128M", |guest| {
        assert!(meminfo(guest, "MemTotal") < 128 << 20);
    });
}

#[test]
fn debians_i686_kernel_boots_with_128_mib() {
    boots("I686", "128M", |guest| {
        assert!(meminfo(guest, "MemTotal") < 128 << 20);
    });
}

#[test]
fn debians_amd64_kernel_uses_5_gib_across_the_aperture() {
    const GIB: u64 = 1 << 30;
    boots("AMD64", "5G", |guest| {
        let ram = system_ram(guest);
        let total: u64 = ram.iter().map(|(first, last)| last - first + 1).sum();
        // All but what firmware keeps below 1 MiB and for its tables.
        assert!(total > 5 * GIB - (2 << 20) && total <= 5 * GIB, "{ram:x?}");
        // The aperture begins at 0xE000_0000, the rest follows from 4 GiB.
        assert!(
            ram.iter()
                .all(|&(first, last)| last < 0xE000_0000 || first >= 4 * GIB),
            "{ram:x?}"
        );
        assert!(
            ram.contains(&(4 * GIB, 4 * GIB + 5 * GIB - 0xE000_0000 - 1)),
            "{ram:x?}"
        );
        let memory = meminfo(guest, "MemTotal");
        assert!(memory > 4 * GIB + GIB / 2, "{memory}");

        // Zone Normal is what lies above 4 GiB, and is used first. The long form needs more than lies below.
        let free = zone_normal_free(guest);
        let megabytes = scale(64, 3600);
        guest.command("mkdir /tmp/big && mount -t tmpfs -o size=95% big /tmp/big && cd /tmp/big");
        guest.command(&format!(
            "dd if=/dev/zero of=file bs=1M count={megabytes} 2>/dev/null"
        ));
        let step = megabytes / 64;
        guest.command(&format!(
            "for i in $(seq 0 {step} {}); do echo \"mark $i\" | dd of=file bs=1M seek=$i conv=notrunc 2>/dev/null; done",
            megabytes - 1
        ));
        let read = guest.command(&format!(
            "for i in $(seq 0 {step} {}); do dd if=file bs=16 skip=$((i * 65536)) count=1 2>/dev/null | head -n 1; done",
            megabytes - 1
        ));
        let marks: Vec<String> = (0..megabytes)
            .step_by(step)
            .map(|i| format!("mark {i}"))
            .collect();
        assert_eq!(read.lines().collect::<Vec<_>>(), marks);
        // Pages that others gave back meanwhile count against it (60.4 of 67.1 MB were seen), so half of it must do.
        let used = free.saturating_sub(zone_normal_free(guest));
        let wanted = (megabytes as u64).min(1024) << 19;
        assert!(used >= wanted, "only {used} bytes above 4 GiB were used");
        guest.command("cd / && umount /tmp/big");
    });
}
