//! Mistakes of the user: one line that names the remedy, exit status 1, and nothing left behind.

mod harness;

use harness::mistakes::{Files, assert_refused, noise, run};
use harness::run_to_end;

fn a_kernel() -> Vec<u8> {
    quintet_guests::ECHO.to_vec()
}

#[test]
fn a_missing_kernel() {
    let f = Files::new("missing-kernel");
    assert_refused(&run(&["--kernel", &f.missing()]), "no such file");
}

#[test]
fn an_empty_kernel() {
    let f = Files::new("empty-kernel");
    assert_refused(&run(&["--kernel", &f.with("kernel", b"")]), "is empty");
}

#[test]
fn a_directory_as_kernel() {
    let f = Files::new("directory-kernel");
    assert_refused(&run(&["--kernel", &f.path()]), "is not a file");
}

#[test]
fn a_random_kernel() {
    let f = Files::new("random-kernel");
    assert_refused(&run(&["--kernel", &f.with("kernel", &noise(100_000))]), "kernel");
}

#[test]
fn a_random_kernel_that_travels_as_a_memfd() {
    let f = Files::new("large-random-kernel");
    assert_refused(&run(&["--kernel", &f.with("kernel", &noise(700_000))]), "kernel");
}

#[test]
fn a_truncated_kernel() {
    let f = Files::new("truncated-kernel");
    let whole = a_kernel();
    for len in [1, 4, 40, 52, whole.len() / 2] {
        let kernel = f.with("kernel", &whole[..len]);
        assert_refused(&run(&["--kernel", &kernel]), "");
    }
}

#[test]
fn a_missing_initrd() {
    let f = Files::new("missing-initrd");
    let kernel = f.with("kernel", &a_kernel());
    assert_refused(
        &run(&["--kernel", &kernel, "--initrd", &f.missing()]),
        "no such file",
    );
}

#[test]
fn an_empty_initrd() {
    let f = Files::new("empty-initrd");
    let kernel = f.with("kernel", &a_kernel());
    assert_refused(
        &run(&["--kernel", &kernel, "--initrd", &f.with("initrd", b"")]),
        "is empty",
    );
}

#[test]
fn an_initrd_larger_than_ram() {
    let f = Files::new("large-initrd");
    let kernel = f.with("kernel", &a_kernel());
    let initrd = f.with("initrd", &vec![7; (32 << 20) + 1]);
    assert_refused(
        &run(&["--kernel", &kernel, "--initrd", &initrd]),
        "does not fit into 32M of RAM",
    );
}

#[test]
fn an_initrd_without_a_kernel() {
    let f = Files::new("lone-initrd");
    assert_refused(&run(&["--initrd", &f.with("initrd", b"x")]), "need a --kernel");
}

#[test]
fn two_kernels() {
    assert_refused(
        &run(&["--kernel", "a", "--kernel", "b"]),
        "--kernel can be given once",
    );
}

#[test]
fn firmware_that_cannot_be_any() {
    let f = Files::new("firmware");
    let firmware = |bytes: &[u8]| run(&["--firmware", &f.with("firmware", bytes)]);
    assert_refused(&run(&["--firmware", &f.missing()]), "no such file");
    assert_refused(&run(&["--firmware", &f.path()]), "is not a file");
    assert_refused(&firmware(b""), "is empty");
    for len in [1, 65535, 65537, 96 << 10] {
        assert_refused(&firmware(&vec![0; len]), "a multiple of 64K up to 16M");
    }
    assert_refused(
        &firmware(&vec![0; (16 << 20) + (64 << 10)]),
        "up to 16M is needed",
    );
}

#[test]
fn floppies_and_flash_that_cannot_be_any() {
    let f = Files::new("floppy");
    let floppy = |len: usize| run(&["--floppy", &f.with("floppy", &vec![0; len])]);
    assert_refused(&run(&["--floppy", &f.missing()]), "no such file");
    assert_refused(&floppy(0), "is empty");
    assert_refused(
        &floppy(512),
        "diskettes have 160, 180, 320, 360, 720, 1200, 1440, 2880 KiB",
    );
    let flash = |len: usize| run(&["--pflash", &f.with("flash", &vec![0; len])]);
    assert_refused(&run(&["--pflash", &f.missing()]), "no such file");
    assert_refused(&flash(4097), "multiples of 4096");
    assert_refused(&flash(4096), "Flash of 4096 bytes");
    assert_refused(&flash((16 << 20) + 4096), "16 MiB with the firmware");
    assert_refused(&run(&["--pflash", "f,x=y"]), "ro=on is all");
}

#[test]
fn a_vga_bios_that_cannot_be_one() {
    let f = Files::new("vga-bios");
    let with = |file: &str| run(&["--device", &format!("vga,romfile={file}")]);
    assert_refused(&with(&f.missing()), "no such file");
    assert_refused(&with(&f.with("rom", b"")), "is empty");
    assert_refused(&with(&f.with("rom", &vec![0; (4 << 20) + 1])), "4M are the most");
}

#[test]
fn no_ram() {
    assert_refused(&run_to_end(&["run", "--headless", "--ram", "0"]), "--ram 0");
}

#[test]
fn s3_9_more_ram_than_there_is() {
    assert_refused(&run_to_end(&["run", "--headless", "--ram", "1T"]), "smaller size");
}

#[test]
fn too_little_memory_by_injection() {
    let output = run_to_end(&["run", "--headless", "--ram", "64M", "--pretend-available", "48M"]);
    assert_refused(&output, "48 MiB of memory");
}

#[test]
fn a_serial_file_that_cannot_be_written() {
    let output = run_to_end(&["run", "--headless", "--serial", "file:/no/such/directory/log"]);
    assert_refused(&output, "Cannot write");
}

#[test]
fn an_option_that_does_not_work_yet_says_so() {
    assert_refused(&run(&["--cpus", "2"]), "--cpus other than 1 does not work yet");
}

#[test]
fn a_soak_that_cannot_begin() {
    assert_refused(&run_to_end(&["soak", "--faults", "kill-disk"]), "is not a fault");
    assert_refused(
        &run_to_end(&["soak", "--report", "/no/such/directory/r.json"]),
        "Cannot make",
    );
    let of_the_machine = [
        "soak",
        "--kernel",
        "/no/such/file",
        "--report",
        "/tmp/quintet-no-soak.json",
    ];
    assert_refused(&run_to_end(&of_the_machine), "The machine did not start");
    assert!(!std::path::Path::new("/tmp/quintet-no-soak.evidence").exists());
    let merge = ["soak", "--merge", "/no/such/report.json", "--report", "all.json"];
    assert_refused(&run_to_end(&merge), "/no/such/report.json");
}

#[test]
fn a_usage_mistake_has_status_1() {
    let output = run_to_end(&["run", "--no-such-option"]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_machine_that_does_not_run_is_named() {
    assert_refused(
        &run_to_end(&["status", "nobody"]),
        "There is no machine \"nobody\"",
    );
}

#[test]
fn a_bad_cpu_model() {
    assert_refused(&run(&["--cpu", "z80"]), "z80");
}
