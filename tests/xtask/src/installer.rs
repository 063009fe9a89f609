//! Debian's installer with its graphical front end as a CD, for `tests/machine/installer.rs`.
//!
//! Debian packages the files that its installer is started from over the network. With ISOLINUX they make a CD whose menu, kernel
//! and initial RAM disk are Debian's own.

use std::path::Path;
use std::process::Command;

use crate::kernels::{Apt, remove};
use crate::sh::{self, Failure};

/// Package with the installer, and the folder in it that becomes the CD's root.
const INSTALLER: &str = "debian-installer-12-netboot-amd64";
const FOLDER: &str = "usr/lib/debian-installer/images/12/amd64/gtk";
/// Where the menu and its modules are, from the CD's root.
const MENU: &str = "debian-installer/amd64/boot-screens";
/// What ISOLINUX is to do: to load that menu.
const CONFIGURATION: &str = "path debian-installer/amd64/boot-screens/
include debian-installer/amd64/boot-screens/menu.cfg
default debian-installer/amd64/boot-screens/vesamenu.c32
prompt 0
timeout 0
";

/// Makes the CD's image at `path`.
///
/// # Errors
/// A [`Failure`] when a package cannot be had, is not what it was, or there is no `xorriso`.
pub fn image(apt: &Apt, path: &Path) -> Result<(), Failure> {
    let unpacked = apt.unpacked_together("installer", &[INSTALLER, "isolinux"], "all")?;
    let root = unpacked.join(FOLDER);
    sh::write(
        &root.join("isolinux.bin"),
        &sh::bytes(&unpacked.join("usr/lib/ISOLINUX/isolinux.bin"))?,
    )?;
    // The one module that ISOLINUX loads before it knows of a path.
    let module = "ldlinux.c32";
    // The package has a link there, which ISOLINUX cannot follow.
    let _ = std::fs::remove_file(root.join(module));
    sh::write(&root.join(module), &sh::bytes(&root.join(MENU).join(module))?)?;
    sh::write(&root.join("isolinux.cfg"), CONFIGURATION.as_bytes())?;
    let part = path.with_extension("part");
    let mut maker = Command::new("xorriso");
    maker
        .args([
            "-as",
            "mkisofs",
            "-quiet",
            "-J",
            "-R",
            "-b",
            "isolinux.bin",
            "-c",
            "boot.cat",
        ])
        .args(["-no-emul-boot", "-boot-load-size", "4", "-boot-info-table", "-o"])
        .arg(&part)
        .arg(&root);
    sh::output(&mut maker)?;
    remove(&unpacked);
    std::fs::rename(&part, path).map_err(|e| Failure::new(format!("{}: {e}", path.display())))
}
