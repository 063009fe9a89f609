//! Debian's GRUB from CD, disk and diskette, and Debian's kernels by it: on the machine's own BIOS, and on others' firmware,
//! Debian's SeaBIOS with its VGA BIOS.

#[path = "support/bios.rs"]
mod bios;
#[path = "support/desk.rs"]
mod desk;
#[path = "support/says.rs"]
mod says;
#[path = "support/screen.rs"]
mod screen;
#[path = "support/seat.rs"]
mod seat;
mod support;
#[path = "support/xvfb.rs"]
mod xvfb;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bios::Bios;
use quintet_protocol::status::MachineState;
use screen::{Font, see};
use seat::Seat;
use support::folder::Folder;
use support::{Machine, PATIENCE, assert_clean, quintet, variable};

/// Where GRUB's package puts what images are made of.
const GRUB: &str = "/usr/lib/grub/i386-pc";

/// Whether everything is installed; says so loudly when not.
fn installed() -> bool {
    let rescue = Command::new("grub-mkrescue").arg("--version").output();
    let xorriso = Command::new("xorriso").arg("-version").output();
    let missing = [
        (Bios::Sea.is_installed(), "seabios"),
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

/// What `grub-mkrescue` makes of `files`, each under a name in the root: a CD that is a disk, too.
fn rescue(folder: &Folder, files: &[(&str, &Path)]) -> PathBuf {
    let root = folder.file("root");
    std::fs::create_dir_all(&root).expect("a folder");
    for (name, from) in files {
        std::fs::copy(from, root.join(name)).expect("copied");
    }
    let image = folder.file("rescue.iso");
    let made = Command::new("grub-mkrescue")
        .args(["-d", GRUB, "-o"])
        .arg(&image)
        .arg(&root)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .expect("grub-mkrescue");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    image
}

/// A diskette of 1.44 MB with GRUB: its boot sector, then what `grub-mkimage` makes.
fn grub_diskette(folder: &Folder) -> PathBuf {
    let core = folder.file("core.img");
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
    let image = folder.file("floppy.img");
    std::fs::write(&image, bytes).expect("written");
    image
}

/// A machine whose screen is read and whose keyboard is typed on.
struct Pc {
    seat: Seat,
    quintet: PathBuf,
    machine: Machine,
    font: Font,
    shot: PathBuf,
}

impl Pc {
    fn start(
        seat: Seat,
        bios: Bios,
        quintet: PathBuf,
        test: &str,
        folder: &Folder,
        options: &[(&str, &str)],
    ) -> Self {
        let mut setup = bios.put(seat.setup(quintet.clone()).option("--ram", "256M"));
        for (option, value) in options {
            setup = setup.option(option, value);
        }
        let machine = setup.start(test);
        machine.wait_for("it runs", |report| report.state == MachineState::Running);
        Self {
            seat,
            quintet,
            machine,
            font: bios.font(),
            shot: folder.file("screen.png"),
        }
    }

    /// Waits until the screen satisfies a condition.
    fn see(&self, what: &str, condition: impl Fn(&str) -> bool) {
        let look = || self.seat.look(&self.quintet, &self.machine, &self.shot);
        see(look, &self.font, PATIENCE, what, condition);
    }

    /// Types a line at GRUB's prompt, no faster than it is shown: a BIOS keeps fifteen keys.
    fn line(&self, line: &str) {
        for end in (0..line.len()).step_by(8).skip(1).chain([line.len()]) {
            self.seat.type_text(&self.machine, &line[(end - 1) / 8 * 8..end]);
            let shown = format!("grub> {}", line[..end].trim_end());
            self.see(&shown, |text| text.lines().any(|l| l.starts_with(&shown)));
        }
        self.seat.key(&self.machine, "enter");
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
fn prompt(bios: Bios, test: &str, drive: &str, image: impl Fn(&Folder) -> String, options: &[(&str, &str)]) {
    prompt_from(Some(Seat::Commands), bios, test, drive, image, options);
}

/// The same in a window, by our BIOS.
fn prompt_in_a_window(test: &str, drive: &str, image: impl Fn(&Folder) -> String) {
    prompt_from(Seat::window(test), Bios::Own, test, drive, image, &[]);
}

fn prompt_from(
    seat: Option<Seat>,
    bios: Bios,
    test: &str,
    drive: &str,
    image: impl Fn(&Folder) -> String,
    options: &[(&str, &str)],
) {
    let (Some(seat), Some(quintet)) = (seat, quintet()) else {
        return;
    };
    if !installed() {
        return;
    }
    let folder = Folder::new(test);
    let image = image(&folder);
    let mut all = vec![(drive, image.as_str())];
    all.extend(options);
    Pc::start(seat, bios, quintet, test, &folder, &all).grub();
}

fn cd(folder: &Folder) -> String {
    rescue(folder, &[]).display().to_string()
}

/// What is written onto a USB stick, too.
fn disk(folder: &Folder) -> String {
    format!("{},format=raw", rescue(folder, &[]).display())
}

fn diskette(folder: &Folder) -> String {
    grub_diskette(folder).display().to_string()
}

#[test]
fn our_bios_boots_a_cd_to_grubs_prompt_interpreted() {
    prompt(Bios::Own, "bios-cd", "--cdrom", cd, &[("--accel", "interp")]);
}

#[test]
fn our_bios_boots_a_disk_to_grubs_prompt_interpreted() {
    let options = [("--accel", "interp"), ("--boot", "c")];
    prompt(Bios::Own, "bios-disk", "--disk", disk, &options);
}

#[test]
fn our_bios_boots_a_diskette_to_grubs_prompt_interpreted() {
    let options = [("--accel", "interp"), ("--boot", "a")];
    prompt(Bios::Own, "bios-floppy", "--floppy", diskette, &options);
}

#[test]
fn seabios_boots_a_cd_to_grubs_prompt() {
    prompt(Bios::Sea, "seabios-cd", "--cdrom", cd, &[("--accel", "jit")]);
}

#[test]
fn seabios_boots_a_disk_to_grubs_prompt_interpreted() {
    let options = [("--accel", "interp"), ("--boot", "c")];
    prompt(Bios::Sea, "seabios-disk", "--disk", disk, &options);
}

#[test]
fn seabios_boots_a_virtio_disk_to_grubs_prompt() {
    let image = |folder: &Folder| format!("{},bus=virtio", disk(folder));
    prompt(Bios::Sea, "seabios-virtio", "--disk", image, &[("--boot", "c")]);
}

#[test]
fn seabios_boots_a_diskette_to_grubs_prompt() {
    prompt(
        Bios::Sea,
        "seabios-floppy",
        "--floppy",
        diskette,
        &[("--boot", "a")],
    );
}

#[test]
fn a_cd_boots_to_grubs_prompt_in_a_window() {
    prompt_in_a_window("window-cd", "--cdrom", cd);
}

#[test]
fn a_disk_boots_to_grubs_prompt_in_a_window() {
    prompt_in_a_window("window-disk", "--disk", disk);
}

#[test]
fn a_diskette_boots_to_grubs_prompt_in_a_window() {
    prompt_in_a_window("window-floppy", "--floppy", diskette);
}

/// Debian's kernel of an architecture, started by GRUB from a CD.
fn linux(bios: Bios, test: &str, architecture: &str) {
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
    let image = rescue(&folder, &files).display().to_string();
    let options = [("--cdrom", image.as_str()), ("--boot", "d")];
    let mut pc = Pc::start(Seat::Commands, bios, quintet, test, &folder, &options);
    pc.grub();
    pc.line("linux /vmlinuz console=ttyS0");
    pc.line("initrd /initrd");
    pc.line("boot");
    let guest = &mut pc.machine;
    guest.shell();
    guest.command("dmesg -n 1");
    // Our ACPI tables and SMBIOS structures have arrived, placed by the firmware.
    let tables = guest.command("ls /sys/firmware/acpi/tables");
    for table in ["APIC", "DSDT", "FACP", "FACS", "HPET"] {
        assert!(tables.contains(table), "{table} in {tables}");
    }
    assert_eq!(
        guest.command("cat /sys/class/dmi/id/product_name").trim(),
        "Quintet PC"
    );
    let vendor = guest.command("cat /sys/class/dmi/id/bios_vendor");
    assert_eq!(vendor.contains("SeaBIOS"), matches!(bios, Bios::Sea), "{vendor}");
    assert_clean(&guest.command("dmesg"));
    let Pc { machine, .. } = pc;
    machine.power_off();
}

#[test]
fn grub_on_seabios_boots_64_bit_linux_to_its_shell() {
    linux(Bios::Sea, "seabios-amd64", "AMD64");
}

#[test]
fn grub_on_seabios_boots_32_bit_linux_to_its_shell() {
    linux(Bios::Sea, "seabios-i686", "I686");
}

#[test]
fn grub_on_our_bios_boots_64_bit_linux_to_its_shell() {
    linux(Bios::Own, "bios-amd64", "AMD64");
}

#[test]
fn grub_on_our_bios_boots_32_bit_linux_to_its_shell() {
    linux(Bios::Own, "bios-i686", "I686");
}
