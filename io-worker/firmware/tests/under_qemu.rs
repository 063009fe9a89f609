//! The BIOS under QEMU, whose machine ours is like: what does not boot there is the BIOS's fault and not the machine's.
//!
//! The guest is GRUB from Debian's packages (grub-pc-bin, grub-common, xorriso, mtools), made into images here.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const GRUB: &str = "/usr/lib/grub/i386-pc";
/// A watchdog, not a measurement.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder of this test, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).expect("a file");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn run(command: &mut Command) {
    let output = command.output().expect("the tool is installed");
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// QEMU with our BIOS, its monitor on pipes.
struct Qemu {
    child: Child,
    dump: PathBuf,
}

impl Qemu {
    fn start(folder: &Folder, arguments: &[&str]) -> Self {
        let bios = folder.file("bios.bin", quintet_firmware::BIOS);
        let child = Command::new("qemu-system-x86_64")
            .args(["-m", "128", "-vga", "std", "-display", "none", "-nic", "none"])
            .args(["-monitor", "stdio", "-bios"])
            .arg(bios)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("qemu-system-x86_64 is installed");
        Self {
            child,
            dump: folder.0.join("screen"),
        }
    }

    /// The text screen, a line for each row.
    fn screen(&mut self) -> String {
        let _ = std::fs::remove_file(&self.dump);
        let command = format!("pmemsave 0xb8000 4000 \"{}\"\n", self.dump.display());
        self.child
            .stdin
            .as_mut()
            .expect("a pipe")
            .write_all(command.as_bytes())
            .expect("said");
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(cells) = std::fs::read(&self.dump)
                && cells.len() == 4000
            {
                return cells
                    .chunks(160)
                    .map(|row| row.iter().step_by(2).map(|&c| char::from(c)).collect::<String>() + "\n")
                    .collect();
            }
            assert!(Instant::now() < deadline, "the monitor does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until `text` is on the screen.
    fn see(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen();
            if screen.contains(text) {
                return;
            }
            assert!(Instant::now() < deadline, "no {text:?} on\n{screen}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Presses a key by QEMU's name of it.
    fn press(&mut self, key: &str) {
        let command = format!("sendkey {key}\n");
        self.child
            .stdin
            .as_mut()
            .expect("a pipe")
            .write_all(command.as_bytes())
            .expect("said");
        std::thread::sleep(Duration::from_millis(150));
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A CD with GRUB on it, as grub-mkrescue makes it.
fn rescue_cd(folder: &Folder) -> PathBuf {
    let tree = folder.0.join("cd");
    std::fs::create_dir_all(tree.join("boot/grub")).expect("a folder");
    let image = folder.0.join("grub.iso");
    run(Command::new("grub-mkrescue").arg("-o").arg(&image).arg(&tree));
    image
}

/// A disk of `len` bytes with GRUB in the sectors behind its boot sector, without a file system. `partition` goes into
/// the first entry of its table.
fn grub_disk(folder: &Folder, name: &str, len: usize, partition: [u8; 16]) -> PathBuf {
    let core = folder.0.join("core.img");
    run(Command::new("grub-mkimage")
        .args(["-O", "i386-pc", "-p", "(hd0)/boot/grub", "-o"])
        .arg(&core)
        .args(["biosdisk", "part_msdos", "normal", "ls", "echo"]));
    let mut disk = std::fs::read(Path::new(GRUB).join("boot.img")).expect("grub-pc-bin is installed");
    disk.truncate(446);
    disk.extend(partition);
    disk.resize(510, 0);
    disk.extend([0x55, 0xAA]);
    disk.extend(std::fs::read(core).expect("just made"));
    assert!(disk.len() <= len, "GRUB does not fit");
    disk.resize(len, 0);
    folder.file(name, &disk)
}

/// A CD whose boot image stands for another medium, as the options of mkisofs say.
fn emulating_cd(folder: &Folder, boot: &Path, options: &[&str]) -> PathBuf {
    let tree = folder.0.join("cd");
    std::fs::create_dir_all(&tree).expect("a folder");
    std::fs::copy(boot, tree.join("boot.img")).expect("a copy");
    let image = folder.0.join("boot.iso");
    run(Command::new("xorriso")
        .args(["-as", "mkisofs", "-quiet", "-b", "boot.img", "-c", "boot.cat"])
        .args(options)
        .arg("-o")
        .arg(&image)
        .arg(&tree));
    image
}

/// Bytes of a diskette of 1.44 MB.
const DISKETTE: usize = 2880 * 512;
/// Cylinders, heads and sectors of a small disk.
const GEOMETRY: [u8; 3] = [16, 16, 63];

#[test]
#[ignore = "needs qemu-system-x86_64 and GRUB's tools; run by cargo xtask test --long"]
fn a_rescue_cd_gets_to_the_prompt_of_grub_and_takes_commands() {
    let folder = Folder::new("bios-cd");
    let cd = rescue_cd(&folder);
    let mut qemu = Qemu::start(&folder, &["-cdrom", cd.to_str().expect("a name")]);
    qemu.see("grub>");
    for key in ["e", "c", "h", "o", "spc", "shift-h", "i", "ret"] {
        qemu.press(key);
    }
    qemu.see("\nHi ");
}

#[test]
#[ignore = "needs qemu-system-x86_64 and GRUB's tools; run by cargo xtask test --long"]
fn a_disk_gets_to_the_prompt_of_grub() {
    let folder = Folder::new("bios-disk");
    let disk = grub_disk(&folder, "disk.img", 8 << 20, [0; 16]);
    let drive = format!("file={},format=raw,if=ide", disk.display());
    let mut qemu = Qemu::start(&folder, &["-drive", &drive]);
    qemu.see("grub>");
}

#[test]
#[ignore = "needs qemu-system-x86_64; run by cargo xtask test --long"]
fn a_machine_without_disks_says_so() {
    let folder = Folder::new("bios-nothing");
    let mut qemu = Qemu::start(&folder, &[]);
    qemu.see("Nothing to boot from.");
}

#[test]
#[ignore = "needs qemu-system-x86_64 and GRUB's tools; run by cargo xtask test --long"]
fn a_diskette_gets_to_the_prompt_of_grub() {
    let folder = Folder::new("bios-diskette");
    let diskette = grub_disk(&folder, "diskette.img", DISKETTE, [0; 16]);
    let drive = format!("file={},format=raw,if=floppy", diskette.display());
    let mut qemu = Qemu::start(&folder, &["-drive", &drive]);
    qemu.see("grub>");
}

#[test]
#[ignore = "needs qemu-system-x86_64 and GRUB's tools; run by cargo xtask test --long"]
fn a_cd_that_stands_for_a_diskette_gets_to_the_prompt_of_grub() {
    let folder = Folder::new("bios-cd-diskette");
    let diskette = grub_disk(&folder, "diskette.img", DISKETTE, [0; 16]);
    let cd = emulating_cd(&folder, &diskette, &[]);
    let mut qemu = Qemu::start(&folder, &["-cdrom", cd.to_str().expect("a name")]);
    qemu.see("grub>");
}

#[test]
#[ignore = "needs qemu-system-x86_64 and GRUB's tools; run by cargo xtask test --long"]
fn a_cd_that_stands_for_a_disk_has_its_partition() {
    let folder = Folder::new("bios-cd-disk");
    let [cylinders, heads, sectors] = GEOMETRY;
    let total = u32::from(cylinders) * u32::from(heads) * u32::from(sectors);
    // From the second track to the end: the last cylinder, head and sector tell the BIOS the geometry.
    let mut partition = [
        0x80,
        1,
        1,
        0,
        6,
        heads - 1,
        sectors,
        cylinders - 1,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    ];
    partition[8..12].copy_from_slice(&u32::from(sectors).to_le_bytes());
    partition[12..].copy_from_slice(&(total - u32::from(sectors)).to_le_bytes());
    let disk = grub_disk(&folder, "disk.img", total as usize * 512, partition);
    let cd = emulating_cd(&folder, &disk, &["-hard-disk-boot"]);
    let mut qemu = Qemu::start(&folder, &["-cdrom", cd.to_str().expect("a name")]);
    qemu.see("grub>");
    qemu.press("l");
    qemu.press("s");
    qemu.press("ret");
    qemu.see("(hd0,msdos1)");
}

#[test]
#[ignore = "needs qemu-system-x86_64 and GRUB's tools; run by cargo xtask test --long"]
fn f12_offers_what_there_is_and_boots_what_is_chosen() {
    let folder = Folder::new("bios-menu");
    let cd = rescue_cd(&folder);
    let disk = folder.file("disk.img", &vec![0; 1 << 20]);
    let drive = format!("file={},format=raw,if=ide", disk.display());
    let cd = cd.to_str().expect("a name").to_owned();
    let mut qemu = Qemu::start(&folder, &["-drive", &drive, "-cdrom", &cd, "-boot", "c"]);
    let deadline = Instant::now() + PATIENCE;
    while !qemu.screen().contains("Boot from") {
        assert!(Instant::now() < deadline, "no menu");
        qemu.press("f12");
    }
    qemu.see("2 disk 0"); // QEMU has an empty diskette drive, too
    qemu.see("3 CD-ROM 0");
    qemu.press("3");
    qemu.see("grub>");
}

#[test]
#[ignore = "needs qemu-system-x86_64; run by cargo xtask test --long"]
fn what_fw_cfg_names_is_tried_first() {
    let folder = Folder::new("bios-order");
    let image = |name| folder.file(name, &vec![0; 1 << 20]);
    let disk = format!("file={},format=raw,if=none,id=disk", image("disk.img").display());
    let cd = format!(
        "file={},format=raw,if=none,id=cd,media=cdrom",
        image("cd.iso").display()
    );
    let mut qemu = Qemu::start(
        &folder,
        &[
            "-drive",
            &disk,
            "-device",
            "ide-hd,drive=disk,bus=ide.0,unit=0",
            "-drive",
            &cd,
            "-device",
            "ide-cd,drive=cd,bus=ide.1,unit=0,bootindex=0",
        ],
    );
    qemu.see("Nothing to boot from.");
    let screen = qemu.screen();
    let tried: Vec<&str> = screen
        .lines()
        .filter_map(|line| line.trim_end().strip_prefix("Booting from "))
        .collect();
    assert_eq!(
        tried[..2],
        ["CD-ROM: not bootable", "disk: not bootable"],
        "{screen}"
    );
}
