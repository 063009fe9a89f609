//! Others' firmware: Debian's SeaBIOS with its VGA BIOS boots what Debian's GRUB makes, from CD and from disk, and GRUB boots
//! Debian's kernel.

#[path = "support/screen.rs"]
mod screen;
mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use quintet_protocol::status::MachineState;
use screen::{Font, Screen};
use support::{Machine, PATIENCE, Setup, assert_clean, quintet, variable};

/// Where Debian's package puts the firmware.
const SEABIOS: &str = "/usr/share/seabios/bios-256k.bin";
/// Where GRUB's package puts what images are made of.
const GRUB: &str = "/usr/lib/grub/i386-pc";
const VGA_BIOS: &str = "/usr/share/seabios/vgabios-stdvga.bin";

/// Whether everything is installed; says so loudly when not.
fn installed() -> bool {
    let rescue = Command::new("grub-mkrescue").arg("--version").output();
    let xorriso = Command::new("xorriso").arg("-version").output();
    let missing = [
        (Path::new(SEABIOS).exists(), "seabios"),
        (rescue.is_ok(), "grub-common"),
        (Path::new(GRUB).join("moddep.lst").exists(), "grub-pc-bin"),
        (xorriso.is_ok(), "xorriso"),
        (
            Command::new("mformat").arg("--version").output().is_ok(),
            "mtools",
        ),
    ];
    let missing: Vec<&str> = missing.iter().filter(|m| !m.0).map(|m| m.1).collect();
    if !missing.is_empty() {
        assert!(
            std::env::var_os("CI").is_none_or(|v| v != "true"),
            "{missing:?} missing"
        );
        eprintln!("SKIPPED: apt-get install {}", missing.join(" "));
    }
    missing.is_empty()
}

/// A folder of one test, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}-{}", std::process::id()));
        std::fs::create_dir_all(path.join("root")).expect("a folder");
        Self(path)
    }

    /// What `grub-mkrescue` makes of `files`, each under a name in the root: a CD that is a disk, too.
    fn rescue(&self, files: &[(&str, &Path)]) -> PathBuf {
        for (name, from) in files {
            std::fs::copy(from, self.0.join("root").join(name)).expect("copied");
        }
        let image = self.0.join("rescue.iso");
        let made = Command::new("grub-mkrescue")
            .args(["-d", GRUB, "-o"])
            .arg(&image)
            .arg(self.0.join("root"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .output()
            .expect("grub-mkrescue");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        image
    }
}

impl Folder {
    /// A diskette of 1.44 MB with GRUB: its boot sector, then what `grub-mkimage` makes.
    fn diskette(&self) -> PathBuf {
        let core = self.0.join("core.img");
        let made = Command::new("grub-mkimage")
            .args(["-O", "i386-pc", "-d", GRUB, "-p", "(fd0)/", "-o"])
            .arg(&core)
            .args(["normal", "biosdisk", "fat", "echo"])
            .output()
            .expect("grub-mkimage");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut bytes = std::fs::read(Path::new(GRUB).join("boot.img")).expect("GRUB's boot sector");
        bytes.extend(std::fs::read(core).expect("GRUB"));
        bytes.resize(1440 << 10, 0);
        let image = self.0.join("floppy.img");
        std::fs::write(&image, bytes).expect("written");
        image
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A machine whose screen is read and whose keyboard is typed on.
struct Pc {
    quintet: PathBuf,
    machine: Machine,
    font: Font,
    shot: PathBuf,
}

impl Pc {
    fn start(quintet: PathBuf, test: &str, folder: &Folder, options: &[(&str, &str)]) -> Self {
        let mut setup = Setup::firmware(quintet.clone(), SEABIOS)
            .option("--device", format!("vga,romfile={VGA_BIOS}"))
            .option("--ram", "256M");
        for (option, value) in options {
            setup = setup.option(option, value);
        }
        let machine = setup.start(test);
        machine.wait_for("it runs", |report| report.state == MachineState::Running);
        Self {
            quintet,
            machine,
            font: Font::of_vga_bios(&std::fs::read(VGA_BIOS).expect("the VGA BIOS")),
            shot: folder.0.join("screen.png"),
        }
    }

    fn text(&self) -> String {
        Screen::take(&self.quintet, &self.machine.name, &self.shot).text(&self.font)
    }

    /// Waits until the screen satisfies a condition.
    fn see(&self, what: &str, condition: impl Fn(&str) -> bool) {
        let start = Instant::now();
        loop {
            let text = self.text();
            if condition(&text) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "no {what}, but:\n{text}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn keys(&self, text: &str) {
        let status = Command::new(&self.quintet)
            .args(["type", &self.machine.name, text])
            .status()
            .expect("quintet starts");
        assert!(status.success());
    }

    /// Types a line at GRUB's prompt, no faster than it is shown: a BIOS keeps fifteen keys.
    fn line(&self, line: &str) {
        for end in (0..line.len()).step_by(8).skip(1).chain([line.len()]) {
            self.keys(&line[(end - 1) / 8 * 8..end]);
            let shown = format!("grub> {}", line[..end].trim_end());
            self.see(&shown, |text| text.lines().any(|l| l.starts_with(&shown)));
        }
        self.keys("\\n");
    }

    /// Waits for GRUB's prompt and has it calculate something, so that what is seen was not typed.
    fn grub(&self) {
        self.see("prompt", |text| text.lines().any(|l| l.starts_with("grub>")));
        self.line("set word=answer");
        self.line("echo $word-$grub_platform");
        self.see("answer", |text| text.lines().any(|l| l == "answer-pc"));
    }
}

/// GRUB's prompt on the screen, with `options` and an image of the folder behind `drive`.
fn prompt(test: &str, drive: &str, image: impl Fn(&Folder) -> String, options: &[(&str, &str)]) {
    let Some(quintet) = quintet() else { return };
    if !installed() {
        return;
    }
    let folder = Folder::new(test);
    let image = image(&folder);
    let mut all = vec![(drive, image.as_str())];
    all.extend(options);
    Pc::start(quintet, test, &folder, &all).grub();
}

#[test]
fn seabios_boots_a_cd_to_grubs_prompt() {
    let image = |folder: &Folder| folder.rescue(&[]).display().to_string();
    prompt("seabios-cd", "--cdrom", image, &[("--accel", "jit")]);
}

#[test]
fn seabios_boots_a_disk_to_grubs_prompt_interpreted() {
    let image = |folder: &Folder| format!("{},format=raw", folder.rescue(&[]).display());
    let options = [("--accel", "interp"), ("--boot", "c")];
    prompt("seabios-disk", "--disk", image, &options);
}

#[test]
fn seabios_boots_a_virtio_disk_to_grubs_prompt() {
    let image = |folder: &Folder| format!("{},format=raw,bus=virtio", folder.rescue(&[]).display());
    prompt("seabios-virtio", "--disk", image, &[("--boot", "c")]);
}

#[test]
fn seabios_boots_a_diskette_to_grubs_prompt() {
    let image = |folder: &Folder| folder.diskette().display().to_string();
    prompt("seabios-floppy", "--floppy", image, &[("--boot", "a")]);
}

/// Debian's kernel of an architecture, started by GRUB from a CD.
fn linux(test: &str, architecture: &str) {
    let (Some(quintet), Some(kernel), Some(initrd)) = (
        quintet(),
        variable(&format!("QUINTET_KERNEL_{architecture}")),
        variable(&format!("QUINTET_INITRD_{architecture}")),
    ) else {
        return;
    };
    if !installed() {
        return;
    }
    let folder = Folder::new(test);
    let files = [("vmlinuz", Path::new(&kernel)), ("initrd", Path::new(&initrd))];
    let image = folder.rescue(&files).display().to_string();
    let mut pc = Pc::start(quintet, test, &folder, &[("--cdrom", &image), ("--boot", "d")]);
    pc.grub();
    pc.line("linux /vmlinuz console=ttyS0");
    pc.line("initrd /initrd");
    pc.line("boot");
    let guest = &mut pc.machine;
    guest.shell();
    guest.command("dmesg -n 1");
    // What firmware was told in fw_cfg has arrived: our ACPI tables and SMBIOS structures, placed by it.
    let tables = guest.command("ls /sys/firmware/acpi/tables");
    for table in ["APIC", "DSDT", "FACP", "FACS", "HPET"] {
        assert!(tables.contains(table), "{table} in {tables}");
    }
    assert_eq!(
        guest.command("cat /sys/class/dmi/id/product_name").trim(),
        "Quintet PC"
    );
    assert!(
        guest
            .command("cat /sys/class/dmi/id/bios_vendor")
            .contains("SeaBIOS")
    );
    assert_clean(&guest.command("dmesg"));
    let Pc { machine, .. } = pc;
    machine.power_off();
}

#[test]
fn grub_on_seabios_boots_64_bit_linux_to_its_shell() {
    linux("seabios-amd64", "AMD64");
}

#[test]
fn grub_on_seabios_boots_32_bit_linux_to_its_shell() {
    linux("seabios-i686", "I686");
}
