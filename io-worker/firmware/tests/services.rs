//! A disk that calls every service, under Debian's SeaBIOS and under this BIOS in the same QEMU: the differences are those
//! that `differences.txt` explains.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

/// Bytes of the disk that the guest expects.
const DISK: usize = 8 << 20;
/// Every sector behind the guest's first track begins with its number.
const TRACK: usize = 64;

/// What a guest prints on COM1, with the BIOS given or QEMU's own.
fn lines(name: &str, bios: Option<&[u8]>) -> Vec<String> {
    let folder =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("services-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let (image, serial) = (folder.join("disk.img"), folder.join("serial"));
    let mut disk = quintet_guests::SERVICES.to_vec();
    disk.resize(DISK, 0);
    for (number, sector) in disk.chunks_mut(512).enumerate().skip(TRACK) {
        let number = u32::try_from(number).expect("a small disk");
        sector[..4].copy_from_slice(&number.to_le_bytes());
    }
    std::fs::write(&image, disk).expect("an image");
    let mut command = Command::new("timeout");
    command
        .args([
            "120",
            "qemu-system-x86_64",
            "-m",
            "64",
            "-display",
            "none",
            "-nic",
            "none",
        ])
        .args(["-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
        .args(["-serial", &format!("file:{}", serial.display())])
        .args(["-drive", &format!("file={},format=raw,if=ide", image.display())]);
    if let Some(bios) = bios {
        let file = folder.join("bios.bin");
        std::fs::write(&file, bios).expect("the BIOS as a file");
        command.arg("-bios").arg(file);
    }
    let status = command
        .status()
        .expect("timeout and qemu-system-x86_64 are installed");
    let text = std::fs::read(&serial).expect("the serial line");
    std::fs::remove_dir_all(&folder).expect("the folder removed");
    assert_eq!(status.code(), Some(1), "{name}: the guest ends by isa-debug-exit");
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(text.ends_with("services: done\r\n"), "{name}: {text}");
    text.lines().map(str::to_owned).collect()
}

/// A line's call: what stands before its registers.
fn call(line: &str) -> &str {
    line.split(" ax=")
        .next()
        .unwrap_or(line)
        .split("  ")
        .next()
        .unwrap_or(line)
}

#[test]
#[ignore = "needs qemu-system-x86_64 and SeaBIOS; run by cargo xtask test --long"]
fn services_answer_as_those_of_seabios_but_for_what_is_explained() {
    let (theirs, ours) = (lines("theirs", None), lines("ours", Some(quintet_firmware::BIOS)));
    assert_eq!(theirs.len(), ours.len());
    let explained: Vec<&str> = include_str!("differences.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(" | ").next().unwrap_or(line))
        .collect();
    let mut met = BTreeSet::new();
    let mut unexplained = Vec::new();
    for (theirs, ours) in theirs.iter().zip(&ours).filter(|(theirs, ours)| theirs != ours) {
        let name = call(ours);
        assert_eq!(name, call(theirs));
        match explained.iter().find(|pattern| {
            pattern
                .strip_suffix('*')
                .map_or(**pattern == name, |prefix| name.starts_with(prefix))
        }) {
            Some(pattern) => drop(met.insert(*pattern)),
            None => unexplained.push(format!("SeaBIOS {theirs}\nours    {ours}")),
        }
    }
    assert!(
        unexplained.is_empty(),
        "not explained:\n{}",
        unexplained.join("\n")
    );
    let idle: Vec<_> = explained
        .iter()
        .filter(|pattern| !met.contains(**pattern))
        .collect();
    assert!(idle.is_empty(), "explained, but no difference: {idle:?}");
}
