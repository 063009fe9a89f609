//! A Debian that was installed onto a disk, for `tests/machine/installed.rs`: debootstrap's system with systemd in an ext4 file
//! system, GRUB in front. Only `cargo xtask test --long` makes it: some 300 MB are downloaded, and only root can unpack a system.

use std::path::Path;
use std::process::Command;

use crate::kernels::remove;
use crate::sh::{self, Failure};

/// Where packages come from.
const MIRROR: &str = "http://deb.debian.org/debian";
/// What debootstrap's smallest system lacks to boot.
const PACKAGES: &str = "linux-image-amd64,systemd-sysv,udev,kmod,e2fsprogs,initramfs-tools,zstd,procps";
/// By which kernel and fstab find the file system.
const UUID: &str = "6e98e4a2-8a3e-4a6b-9d0f-2d1b7a0c5f11";
/// Bytes of the disk, and where its one partition begins.
const DISK: u64 = 1200 << 20;
const PARTITION: u64 = 1 << 20;
const SECTOR: u64 = 512;
/// Where GRUB's package puts what images are made of.
const GRUB: &str = "/usr/lib/grub/i386-pc";

/// Writes numbered files that carry their own checksum, and says on the serial line what has reached the disk. At its start
/// it looks at what is there: a file whose number is not above the last that was synced has to be whole.
const WRITER: &str = r#"#!/bin/sh
mkdir -p /var/writer
cd /var/writer
last=$(cat last 2>/dev/null || echo 0)
bad=0
for f in file*; do
    [ -f "$f" ] || continue
    case $f in *.new | *.sum) continue ;; esac
    n=$(head -n 1 "$f")
    sum=$(head -n -1 "$f" | sha256sum)
    [ "$(tail -n 1 "$f")" = "$sum" ] || [ "${n:-0}" -gt "$last" ] || { bad=$((bad + 1)); echo "writer: $f is damaged" >/dev/ttyS0; }
done
echo "writer: begins after $last, $bad damaged" >/dev/ttyS0
n=$last
while :; do
    n=$((n + 1))
    f=file$((n % 50))
    { echo "$n"; seq "$n" $((n + 2000)); } >"$f.new"
    sha256sum <"$f.new" >"$f.sum"
    cat "$f.sum" >>"$f.new"
    mv "$f.new" "$f"
    if [ $((n % 5)) = 0 ]; then
        sync
        echo "$n" >last.new
        sync
        mv last.new last
        sync
        echo "writer: synced $n" >/dev/ttyS0
    fi
done
"#;
const SERVICE: &str = "[Unit]
After=multi-user.target
[Service]
ExecStart=/usr/local/bin/writer
[Install]
WantedBy=multi-user.target
";

/// Makes the disk's image at `path`.
///
/// # Errors
/// A [`Failure`] when this is not root, or something cannot be had or made.
pub fn image(path: &Path) -> Result<(), Failure> {
    if sh::output(Command::new("id").arg("-u"))?.trim() != "0" {
        return Err(Failure::new(
            "only root can make an installed system: run this as root",
        ));
    }
    let root = path.with_extension("root");
    remove(&root);
    eprintln!("xtask: making a Debian on a disk, {}", path.display());
    sh::output(
        Command::new("debootstrap")
            .args(["--variant=minbase", &format!("--include={PACKAGES}"), "bookworm"])
            .arg(&root)
            .arg(MIRROR),
    )?;
    configure(&root)?;
    let part = path.with_extension("part");
    file_system(&root, &part)?;
    boot_loader(&part)?;
    remove(&root);
    std::fs::rename(&part, path).map_err(|e| Failure::new(format!("{}: {e}", path.display())))
}

fn configure(root: &Path) -> Result<(), Failure> {
    let write = |name: &str, text: &str| sh::write(&root.join(name), text.as_bytes());
    let name_of = |prefix: &str| -> Result<String, Failure> {
        let found = std::fs::read_dir(root.join("boot"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .find(|name| name.starts_with(prefix));
        found.ok_or_else(|| Failure::new(format!("debootstrap left no /boot/{prefix}*")))
    };
    let (kernel, initrd) = (name_of("vmlinuz-")?, name_of("initrd.img-")?);
    write(
        "etc/fstab",
        &format!("UUID={UUID} / ext4 errors=remount-ro 0 1\n"),
    )?;
    write("etc/hostname", "quintet\n")?;
    write("usr/local/bin/writer", WRITER)?;
    write("etc/systemd/system/writer.service", SERVICE)?;
    let wants = root.join("etc/systemd/system/multi-user.target.wants");
    let grub = root.join("boot/grub");
    for dir in [&wants, &grub] {
        std::fs::create_dir_all(dir).map_err(|e| Failure::new(format!("{}: {e}", dir.display())))?;
    }
    // Without a driver for the display, the console is text that can be read dot by dot.
    write(
        "boot/grub/grub.cfg",
        &format!(
            "set timeout=1\nmenuentry \"Debian\" {{\n  \
             linux /boot/{kernel} root=UUID={UUID} ro nomodeset console=ttyS0 console=tty0\n  initrd /boot/{initrd}\n}}\n"
        ),
    )?;
    sh::run(
        Command::new("chmod")
            .arg("755")
            .arg(root.join("usr/local/bin/writer")),
    )?;
    sh::run(
        Command::new("ln")
            .args(["-sf", "/etc/systemd/system/writer.service"])
            .arg(wants.join("writer.service")),
    )?;
    for dir in ["var/cache/apt/archives", "usr/share/doc", "usr/share/locale"] {
        remove(&root.join(dir));
    }
    Ok(())
}

fn file_system(root: &Path, disk: &Path) -> Result<(), Failure> {
    sh::write(disk, &[])?;
    let kilobytes = (DISK - PARTITION) >> 10;
    sh::output(
        Command::new("mke2fs")
            .args([
                "-q",
                "-F",
                "-t",
                "ext4",
                "-U",
                UUID,
                "-E",
                &format!("offset={PARTITION}"),
                "-d",
            ])
            .arg(root)
            .arg(disk)
            .arg(format!("{kilobytes}k")),
    )?;
    let file = std::fs::File::options().write(true).open(disk);
    file.and_then(|file| file.set_len(DISK))
        .map_err(|e| Failure::new(format!("{}: {e}", disk.display())))
}

/// GRUB's boot sector with the table of partitions, and behind it what the sector loads.
fn boot_loader(disk: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::FileExt as _;
    let core = disk.with_extension("core");
    sh::output(
        Command::new("grub-mkimage")
            .args(["-O", "i386-pc", "-d", GRUB, "-p", "(hd0,msdos1)/boot/grub", "-o"])
            .arg(&core)
            .args(["normal", "biosdisk", "part_msdos", "ext2", "linux"]),
    )?;
    let mut sector = sh::bytes(&Path::new(GRUB).join("boot.img"))?;
    sector.resize(SECTOR as usize, 0);
    let (first, sectors) = (PARTITION / SECTOR, (DISK - PARTITION) / SECTOR);
    // Active, no CHS, Linux.
    let entry = &mut sector[446..462];
    entry.copy_from_slice(&[
        0x80, 0xFE, 0xFF, 0xFF, 0x83, 0xFE, 0xFF, 0xFF, 0, 0, 0, 0, 0, 0, 0, 0,
    ]);
    entry[8..12].copy_from_slice(&(first as u32).to_le_bytes());
    entry[12..].copy_from_slice(&(sectors as u32).to_le_bytes());
    sector[462..510].fill(0);
    sector[510..].copy_from_slice(&[0x55, 0xAA]);
    let behind = sh::bytes(&core)?;
    let file = std::fs::File::options().write(true).open(disk);
    let written = file.and_then(|file| {
        file.write_all_at(&sector, 0)?;
        file.write_all_at(&behind, SECTOR)
    });
    let _ = std::fs::remove_file(&core);
    written.map_err(|e| Failure::new(format!("{}: {e}", disk.display())))
}
