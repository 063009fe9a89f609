//! Debian 12's stock kernels and an initramfs of busybox, for the tests and benchmarks that boot Linux.
//!
//! Packages are downloaded with `apt-get download` into a cache outside the repository and only unpacked, never
//! installed. apt works in a state directory of its own there, so that neither root nor a change of the host's
//! architectures is needed. On hosts other than Debian 12 its sources are named explicitly, which needs
//! debian-archive-keyring.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bundles::{self, Bundle, SOUND, STRESS};
use crate::cpio::Cpio;
use crate::sh::{self, Failure};
use crate::{installed, installer};

/// One kind of guest.
struct Guest {
    /// Debian's architecture.
    arch: &'static str,
    /// The metapackage that depends on the newest kernel.
    meta: &'static str,
    /// Suffix of our files.
    name: &'static str,
    kernel_variable: &'static str,
    initrd_variable: &'static str,
    stress_variable: &'static str,
    disk_initrd_variable: &'static str,
    sound_initrd_variable: &'static str,
}

const GUESTS: [Guest; 2] = [
    Guest {
        arch: "amd64",
        meta: "linux-image-amd64",
        name: "amd64",
        kernel_variable: "QUINTET_KERNEL_AMD64",
        initrd_variable: "QUINTET_INITRD_AMD64",
        stress_variable: "QUINTET_STRESS_AMD64",
        disk_initrd_variable: "QUINTET_INITRD_DISK_AMD64",
        sound_initrd_variable: "QUINTET_INITRD_SOUND_AMD64",
    },
    Guest {
        arch: "i386",
        meta: "linux-image-686",
        name: "i686",
        kernel_variable: "QUINTET_KERNEL_I686",
        initrd_variable: "QUINTET_INITRD_I686",
        stress_variable: "QUINTET_STRESS_I686",
        disk_initrd_variable: "QUINTET_INITRD_DISK_I686",
        sound_initrd_variable: "QUINTET_INITRD_SOUND_I686",
    },
];

const INIT: &str = include_str!("init.sh");

/// Modules of the kernel's package that disks, CD-ROMs and their file systems need, in the order of loading.
const DISK_MODULES: [&str; 24] = [
    "crct10dif_common",
    "crc-t10dif",
    "crc64",
    "crc64-rocksoft",
    "t10-pi",
    "scsi_common",
    "scsi_mod",
    "sd_mod",
    "libata",
    "ata_piix",
    "cdrom",
    "sr_mod",
    "virtio",
    "virtio_ring",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_blk",
    "isofs",
    "crc16",
    "mbcache",
    "jbd2",
    "crc32c_generic",
    "ext4",
];

/// The same for AC'97 sound cards.
const SOUND_MODULES: [&str; 7] = [
    "soundcore",
    "snd",
    "snd-timer",
    "snd-pcm",
    "ac97_bus",
    "snd-ac97-codec",
    "snd-intel8x0",
];

/// Modules that tests load by hand, from `/lib/drivers`: most machines have no diskettes, and their driver says so at length.
const DRIVER_MODULES: [&str; 3] = ["floppy", "psmouse", "evdev"];

/// Programs of Debian's memtest86+, which boot as kernels do, and the CDs that they are on; each with its folder in the package.
const MEMORY_TESTS: [(&str, &str, &str); 4] = [
    ("QUINTET_MEMTEST_AMD64", "boot", "memtest86+x64.bin"),
    ("QUINTET_MEMTEST_I686", "boot", "memtest86+ia32.bin"),
    (
        "QUINTET_MEMTEST_CD_AMD64",
        "usr/lib/memtest86+",
        "memtest86+x64.iso",
    ),
    (
        "QUINTET_MEMTEST_CD_I686",
        "usr/lib/memtest86+",
        "memtest86+ia32.iso",
    ),
];

/// All that tests load.
fn modules() -> impl Iterator<Item = &'static str> {
    [&DISK_MODULES[..], &SOUND_MODULES, &DRIVER_MODULES]
        .into_iter()
        .flatten()
        .copied()
}

/// `$QUINTET_CACHE`, else a directory of ours where caches go.
fn cache() -> Result<PathBuf, Failure> {
    if let Some(dir) = std::env::var_os("QUINTET_CACHE") {
        return Ok(dir.into());
    }
    let home = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|h| Path::new(&h).join(".cache")));
    home.map(|dir| dir.join("quintet"))
        .ok_or_else(|| Failure::new("neither QUINTET_CACHE nor HOME is set"))
}

/// Makes what is missing and answers the environment variables by which tests find it; with `long`, what only the long form needs
/// too.
///
/// # Errors
/// A [`Failure`] when packages cannot be had.
pub fn prepare(long: bool) -> Result<Vec<(&'static str, OsString)>, Failure> {
    let cache = cache()?;
    let mut apt = None;
    let mut variables = Vec::new();
    for guest in &GUESTS {
        let Software {
            kernel,
            busybox,
            modules,
        } = fetched(guest, &cache, &mut apt)?;
        // The archive is cheap and follows our own sources, so that it is made every time.
        let program = sh::bytes(&busybox)?;
        let with = |names: &[&str]| Ok(initramfs(&program, &module_files(&modules, names)?));
        let mut with_drivers = module_files(&modules, &DISK_MODULES)?;
        for name in DRIVER_MODULES {
            let bytes = sh::bytes(&modules.join(format!("{name}.ko")))?;
            with_drivers.push((format!("lib/drivers/{name}.ko"), bytes));
        }
        let mut programs = |bundle: &Bundle| {
            let path = cache.join(format!("{}-{}.cpio", bundle.name, guest.name));
            if !path.is_file() {
                bundles::archive(Apt::once(&mut apt, &cache)?, bundle, guest.arch, &path)?;
            }
            sh::bytes(&path)
        };
        let archives = [
            (guest.initrd_variable, "initrd", with(&[])?),
            (
                guest.disk_initrd_variable,
                "initrd-disk",
                initramfs(&program, &with_drivers),
            ),
            (
                guest.stress_variable,
                "initrd-stress",
                [with(&[])?, programs(&STRESS)?].concat(),
            ),
            (
                guest.sound_initrd_variable,
                "initrd-sound",
                [with(&SOUND_MODULES)?, programs(&SOUND)?].concat(),
            ),
        ];
        variables.push((guest.kernel_variable, kernel));
        for (variable, name, bytes) in archives {
            let path = cache.join(format!("{name}-{}.cpio", guest.name));
            if std::fs::read(&path).ok().as_ref() != Some(&bytes) {
                sh::write(&path, &bytes)?;
            }
            variables.push((variable, path));
        }
    }
    let paths = MEMORY_TESTS.map(|(_, _, name)| cache.join(name));
    if !paths.iter().all(|path| path.is_file()) {
        let root = Apt::once(&mut apt, &cache)?.unpacked("memtest86+", "amd64")?;
        for ((_, folder, name), path) in MEMORY_TESTS.iter().zip(&paths) {
            rename(&root.join(folder).join(name), path)?;
        }
        remove(&root);
    }
    variables.extend(
        MEMORY_TESTS
            .map(|(variable, _, _)| variable)
            .into_iter()
            .zip(paths),
    );
    let installer = cache.join("installer-amd64.iso");
    if !installer.is_file() && sh::has("xorriso") {
        installer::image(Apt::once(&mut apt, &cache)?, &installer)?;
    }
    if installer.is_file() {
        variables.push(("QUINTET_INSTALLER_AMD64", installer));
    }
    let disk = cache.join("installed-amd64.img");
    if long && !disk.is_file() {
        match installed::image(&disk) {
            Err(failure) if sh::in_ci() => return Err(failure),
            Err(failure) => eprintln!("xtask: no installed system, tests that need it will skip: {failure}"),
            Ok(()) => {}
        }
    }
    if disk.is_file() {
        variables.push(("QUINTET_INSTALLED_AMD64", disk));
    }
    // The user's own choice counts.
    let chosen = |(variable, path): (_, PathBuf)| {
        let value = std::env::var_os(variable).unwrap_or_else(|| path.into());
        (variable, value)
    };
    Ok(variables.into_iter().map(chosen).collect())
}

/// What Debian's packages give for one kind of guest.
#[derive(Debug)]
pub struct Software {
    /// The stock kernel, a bzImage.
    pub kernel: PathBuf,
    /// busybox, statically linked.
    pub busybox: PathBuf,
    /// Folder with the kernel's modules that tests load.
    pub modules: PathBuf,
}

/// Kernel and busybox of 64 or 32 bits, fetched if they are not in the cache yet.
///
/// # Errors
/// A [`Failure`] when packages cannot be had.
pub fn software(bits: u32) -> Result<Software, Failure> {
    let guest = &GUESTS[usize::from(bits == 32)];
    fetched(guest, &cache()?, &mut None)
}

/// Kernel of 64 or 32 bits, and the tests' initramfs with the modules for disks and these files more.
///
/// # Errors
/// A [`Failure`] when packages cannot be had.
pub fn with_disks(bits: u32, more: &[(String, Vec<u8>)]) -> Result<(PathBuf, Vec<u8>), Failure> {
    let software = software(bits)?;
    let mut files = module_files(&software.modules, &DISK_MODULES)?;
    files.extend_from_slice(more);
    Ok((software.kernel, initramfs(&sh::bytes(&software.busybox)?, &files)))
}

/// Modules of the folder `from`, named so that they are loaded in this order.
fn module_files(from: &Path, names: &[&str]) -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let read = |(n, name): (usize, &&str)| {
        let bytes = sh::bytes(&from.join(format!("{name}.ko")))?;
        Ok((format!("lib/modules/{n:02}-{name}.ko"), bytes))
    };
    names.iter().enumerate().map(read).collect()
}

/// Files of Debian's architecture-independent package `name`, below `$QUINTET_CACHE/name`.
///
/// # Errors
/// A [`Failure`] when the package cannot be had.
pub fn package(name: &str) -> Result<PathBuf, Failure> {
    let cache = cache()?;
    let dir = cache.join(name);
    if !dir.is_dir() {
        let root = Apt::new(&cache)?.unpacked(name, "all")?;
        rename(&root, &dir)?;
    }
    Ok(dir)
}

fn fetched(guest: &Guest, cache: &Path, slot: &mut Option<Apt>) -> Result<Software, Failure> {
    // Kernel and modules are of one package; a kernel of the user's own choice is named in the environment.
    let kernel = cache.join(format!("vmlinuz-{}", guest.name));
    let modules = cache.join(format!("modules-{}", guest.name));
    let complete = self::modules().all(|module| modules.join(format!("{module}.ko")).is_file());
    if !kernel.is_file() || !complete {
        let apt = Apt::once(slot, cache)?;
        let package = apt.newest(guest)?;
        let root = apt.unpacked(&package, guest.arch)?;
        let found = find(&root.join("boot"), "vmlinuz-")?;
        let fresh = root.join("chosen");
        choose_modules(&root.join("lib/modules"), &fresh)?;
        rename(&found, &kernel)?;
        remove(&modules);
        rename(&fresh, &modules)?;
        remove(&root);
    }
    let busybox = cache.join(format!("busybox-{}", guest.name));
    if !busybox.is_file() {
        let apt = Apt::once(slot, cache)?;
        let root = apt.unpacked("busybox-static", guest.arch)?;
        let program = [root.join("bin/busybox"), root.join("usr/bin/busybox")];
        let found = program.iter().find(|p| p.is_file());
        let found = found.ok_or_else(|| Failure::new("busybox-static has no busybox"))?;
        rename(found, &busybox)?;
        remove(&root);
    }
    Ok(Software {
        kernel,
        busybox,
        modules,
    })
}

/// Copies [`modules`], wherever they lie below `from`, into the folder `to`.
fn choose_modules(from: &Path, to: &Path) -> Result<(), Failure> {
    fn walk(dir: &Path, to: &Path, found: &mut usize) -> std::io::Result<()> {
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            if path.is_dir() && !path.is_symlink() {
                walk(&path, to, found)?;
            } else if let Some(name) = path.file_name().and_then(|n| n.to_str()?.strip_suffix(".ko"))
                && modules().any(|module| module == name)
            {
                std::fs::copy(&path, to.join(format!("{name}.ko")))?;
                *found += 1;
            }
        }
        Ok(())
    }
    let fail = |e: std::io::Error| Failure::new(format!("{}: {e}", from.display()));
    std::fs::create_dir_all(to).map_err(fail)?;
    let mut found = 0;
    walk(from, to, &mut found).map_err(fail)?;
    if found < modules().count() {
        return Err(Failure::new(
            "the kernel's package lacks modules for disks, sound, diskettes or mice",
        ));
    }
    Ok(())
}

fn initramfs(busybox: &[u8], files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut c = Cpio::default();
    for dir in [
        "bin",
        "dev",
        "lib",
        "lib/drivers",
        "lib/modules",
        "mnt",
        "proc",
        "sys",
        "tmp",
    ] {
        c.dir(dir);
    }
    for (name, bytes) in files {
        c.program(name, bytes);
    }
    c.device("dev/console", 5, 1);
    c.program("bin/busybox", busybox);
    c.program("init", INIT.as_bytes());
    c.finish()
}

/// apt with a state of its own.
pub struct Apt {
    dir: PathBuf,
    options: Vec<String>,
}

impl Apt {
    /// The one of this run, made when it is first needed.
    fn once<'a>(slot: &'a mut Option<Self>, cache: &Path) -> Result<&'a Self, Failure> {
        if slot.is_none() {
            *slot = Some(Self::new(cache)?);
        }
        slot.as_ref().ok_or_else(|| Failure::new("no apt"))
    }

    fn new(cache: &Path) -> Result<Self, Failure> {
        for tool in ["apt-get", "apt-cache", "dpkg-deb"] {
            if !sh::has(tool) {
                return Err(Failure::new(format!(
                    "{tool} is missing: guest kernels come from Debian's packages"
                )));
            }
        }
        let dir = cache.join("apt");
        for part in ["lists/partial", "cache/archives/partial", "etc"] {
            let path = dir.join(part);
            std::fs::create_dir_all(&path).map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
        }
        sh::write(&dir.join("status"), b"")?;
        let mut options: Vec<String> = vec![
            format!("Dir::State={}", dir.display()),
            format!("Dir::State::lists={}", dir.join("lists").display()),
            format!("Dir::State::status={}", dir.join("status").display()),
            format!("Dir::Cache={}", dir.join("cache").display()),
            "APT::Architectures::=amd64".into(),
            "APT::Architectures::=i386".into(),
            "APT::Sandbox::User=root".into(),
            "Acquire::Languages=none".into(),
        ];
        let release = sh::read(Path::new("/etc/os-release")).unwrap_or_default();
        if !(release.lines().any(|l| l == "ID=debian") && release.contains("VERSION_ID=\"12\"")) {
            let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
            if !Path::new(keys).exists() {
                return Err(Failure::new(
                    "Debian's keys are missing; type: sudo apt-get install debian-archive-keyring",
                ));
            }
            let list = dir.join("etc/sources.list");
            let line = |url: &str, suite: &str| format!("deb [signed-by={keys}] {url} {suite} main\n");
            let text = line("http://deb.debian.org/debian", "bookworm")
                + &line("http://deb.debian.org/debian-security", "bookworm-security");
            sh::write(&list, text.as_bytes())?;
            options.push(format!("Dir::Etc::SourceList={}", list.display()));
            options.push("Dir::Etc::SourceParts=/dev/null".into());
        }
        let apt = Self { dir, options };
        eprintln!(
            "xtask: fetching Debian's package lists and guest kernels into {}",
            cache.display()
        );
        // A partial update may still be enough; what is missing shows at the download.
        if sh::output(&mut apt.command("apt-get", &["-q", "update"])).is_err() {
            eprintln!("xtask: some package lists could not be fetched; going on with what there is");
        }
        Ok(apt)
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        for option in &self.options {
            command.args(["-o", option]);
        }
        command.args(args).current_dir(&self.dir);
        command
    }

    /// The kernel that the metapackage stands for now.
    fn newest(&self, guest: &Guest) -> Result<String, Failure> {
        let meta = format!("{}:{}", guest.meta, guest.arch);
        let said = sh::output(&mut self.command("apt-cache", &["depends", &meta]))?;
        said.lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "))
            .find(|name| name.starts_with("linux-image-"))
            .map(|name| name.split(':').next().unwrap_or(name).to_owned())
            .ok_or_else(|| Failure::new(format!("{meta} names no kernel")))
    }

    /// Downloads a package and unpacks it; answers where.
    ///
    /// # Errors
    /// A [`Failure`] when it cannot be had.
    pub fn unpacked(&self, package: &str, arch: &str) -> Result<PathBuf, Failure> {
        self.unpacked_together(package, &[package], arch)
    }

    /// Downloads packages and unpacks them all in one place, which has `name` in its name; answers where.
    ///
    /// # Errors
    /// A [`Failure`] when one cannot be had.
    pub fn unpacked_together(&self, name: &str, packages: &[&str], arch: &str) -> Result<PathBuf, Failure> {
        let into = self.dir.join(format!("unpacked-{name}-{arch}"));
        remove(&into);
        let wanted: Vec<String> = packages.iter().map(|p| format!("{p}:{arch}")).collect();
        let mut arguments = vec!["-q", "download"];
        arguments.extend(wanted.iter().map(String::as_str));
        sh::output(&mut self.command("apt-get", &arguments))?;
        for package in packages {
            let deb = self.downloaded(package, arch)?;
            sh::run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&into))?;
            std::fs::remove_file(&deb).map_err(|e| Failure::new(format!("{}: {e}", deb.display())))?;
        }
        Ok(into)
    }

    fn downloaded(&self, package: &str, arch: &str) -> Result<PathBuf, Failure> {
        let prefix = format!("{package}_");
        std::fs::read_dir(&self.dir)
            .map_err(|e| Failure::new(format!("{}: {e}", self.dir.display())))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| {
                let name = path
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                // Packages for all architectures say so.
                let ends = [arch, "all"].map(|arch| name.ends_with(&format!("_{arch}.deb")));
                name.starts_with(&prefix) && ends.contains(&true)
            })
            .ok_or_else(|| Failure::new(format!("apt-get downloaded no {package} for {arch}")))
    }
}

fn find(dir: &Path, prefix: &str) -> Result<PathBuf, Failure> {
    let fail = |e: std::io::Error| Failure::new(format!("{}: {e}", dir.display()));
    for entry in std::fs::read_dir(dir).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            return Ok(entry.path());
        }
    }
    Err(Failure::new(format!("no {prefix}* in {}", dir.display())))
}

fn rename(from: &Path, to: &Path) -> Result<(), Failure> {
    std::fs::rename(from, to).map_err(|e| Failure::new(format!("{}: {e}", to.display())))
}

/// Removes a directory of the cache.
pub fn remove(dir: &Path) {
    // What cannot be removed is in a cache and does no harm.
    let _ = std::fs::remove_dir_all(dir);
}
