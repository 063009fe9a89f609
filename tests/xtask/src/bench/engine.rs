//! The emulators that are compared, and how each is told to boot the guest.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::guest::Files;
use crate::kernels;
use crate::sh::{self, Failure};

/// A PC emulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Quintet, interpreting.
    Interp,
    /// Quintet, translating.
    Jit,
    /// QEMU, translating (TCG).
    Qemu,
    /// Bochs, interpreting.
    Bochs,
}

/// What all engines get.
#[derive(Debug)]
pub struct Setup {
    /// 64 or 32.
    pub bits: u32,
    /// MiB.
    pub ram: u32,
    /// The kernel's command line.
    pub append: String,
    /// Our program.
    pub quintet: PathBuf,
    /// Kernel and initramfs.
    pub files: Files,
    /// A disk, for those engines that are measured with one.
    pub disk: Option<Disk>,
}

/// A raw image, and what it is behind.
#[derive(Clone, Debug)]
pub struct Disk {
    /// Written to.
    pub image: PathBuf,
    /// `ide` or `virtio`.
    pub bus: &'static str,
}

/// An engine's command line, and where its first serial port comes out.
#[derive(Debug)]
pub struct Launch {
    /// Not started yet.
    pub command: Command,
    /// A file that the engine writes, `None` for standard output.
    pub serial: Option<PathBuf>,
}

impl Engine {
    const ALL: [Self; 4] = [Self::Interp, Self::Jit, Self::Qemu, Self::Bochs];

    /// As on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Interp => "interp",
            Self::Jit => "jit",
            Self::Qemu => "qemu",
            Self::Bochs => "bochs",
        }
    }

    /// The engine of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|e| e.name() == name)
    }

    /// Whether it is quintet.
    pub const fn is_ours(self) -> bool {
        matches!(self, Self::Interp | Self::Jit)
    }

    /// Why it cannot be measured here.
    pub fn missing(self, bits: u32, quintet: &Path) -> Option<String> {
        match self {
            Self::Interp => None,
            Self::Jit => refusal(quintet, self.name()),
            Self::Qemu => {
                let program = qemu(bits);
                (!sh::has(program)).then(|| format!("{program} is not installed (package qemu-system-x86)"))
            }
            Self::Bochs => ["bochs-bin", "grub-mkrescue", "xorriso", "mformat"]
                .into_iter()
                .find(|program| !sh::has(program))
                .map(|program| {
                    format!("{program} is not installed (packages bochs, grub-common, grub-pc-bin, xorriso, mtools)")
                }),
        }
    }

    /// Its version, where that can be asked for.
    pub fn version(self) -> Option<String> {
        let mut command = match self {
            Self::Interp | Self::Jit => return None,
            Self::Qemu => Command::new(qemu(64)),
            // Bochs does not say by itself without starting a machine.
            Self::Bochs => Command::new("dpkg-query"),
        };
        match self {
            Self::Bochs => command.args(["--show", "--showformat=Bochs ${Version}", "bochs"]),
            _ => command.arg("--version"),
        };
        let said = sh::output(&mut command).ok()?;
        Some(said.lines().next()?.trim().to_owned())
    }

    /// The command that boots the guest; what it needs is written into `scratch`.
    ///
    /// # Errors
    /// A [`Failure`] when that cannot be made.
    pub fn launch(self, setup: &Setup, scratch: &Path) -> Result<Launch, Failure> {
        let Files { kernel, initrd } = &setup.files;
        let ram = setup.ram.to_string();
        let boot: [OsString; 6] = [
            "--kernel".into(),
            kernel.into(),
            "--initrd".into(),
            initrd.into(),
            "--append".into(),
            setup.append.clone().into(),
        ];
        let mut serial = None;
        let command = match self {
            Self::Interp | Self::Jit => {
                let mut command = Command::new(&setup.quintet);
                command.args([
                    "run",
                    "--headless",
                    "--no-reboot",
                    "--serial",
                    "stdio",
                    "--accel",
                    self.name(),
                ]);
                command.arg("--ram").arg(format!("{ram}M")).args(boot);
                if let Some(Disk { image, bus }) = &setup.disk {
                    let disk = format!("{},format=raw,bus={bus}", image.display());
                    command.arg("--disk").arg(disk);
                }
                command
            }
            Self::Qemu => {
                let mut command = Command::new(qemu(setup.bits));
                command.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-m", &ram]);
                command.args([
                    "-nodefaults",
                    "-no-user-config",
                    "-display",
                    "none",
                    "-serial",
                    "stdio",
                    "-no-reboot",
                ]);
                command.args(boot);
                if let Some(Disk { image, bus }) = &setup.disk {
                    let drive = format!("file={},format=raw,if={bus}", image.display());
                    command.arg("-drive").arg(drive);
                }
                command
            }
            Self::Bochs => {
                let output = scratch.join("serial");
                sh::write(&output, b"")?;
                let (config, debugger) = (scratch.join("bochsrc"), scratch.join("debugger"));
                sh::write(&config, bochsrc(setup, scratch, &output)?.as_bytes())?;
                // Debian's Bochs has its debugger built in and stops in it first.
                sh::write(&debugger, b"c\n")?;
                serial = Some(output);
                let mut command = Command::new("bochs-bin");
                command.arg("-q").arg("-f").arg(config).arg("-rc").arg(debugger);
                command
            }
        };
        Ok(Launch { command, serial })
    }
}

const fn qemu(bits: u32) -> &'static str {
    if bits == 32 {
        "qemu-system-i386"
    } else {
        "qemu-system-x86_64"
    }
}

/// What quintet says against `--accel MODE`; a kernel that does not exist keeps it from booting anything.
fn refusal(quintet: &Path, mode: &str) -> Option<String> {
    let out = Command::new(quintet)
        .args([
            "run",
            "--headless",
            "--serial",
            "none",
            "--accel",
            mode,
            "--kernel",
            "/nonexistent",
        ])
        .stdin(Stdio::null())
        .output();
    match out {
        Ok(out) => refused(&String::from_utf8_lossy(&out.stderr)),
        Err(e) => Some(format!("{}: {e}", quintet.display())),
    }
}

/// The complaint that is about the option, not about the kernel.
fn refused(said: &str) -> Option<String> {
    let line = said.lines().find(|line| line.contains("--accel"))?;
    Some(line.trim().to_owned())
}

/// The CD from which Bochs boots the kernel, and the machine around it.
fn bochsrc(setup: &Setup, scratch: &Path, serial: &Path) -> Result<String, Failure> {
    let root = scratch.join("cd");
    let copy = |from: &Path, to: &str| {
        let to = root.join(to);
        std::fs::copy(from, &to).map_err(|e| Failure::new(format!("{}: {e}", to.display())))
    };
    sh::write(&root.join("boot/grub/grub.cfg"), grub(&setup.append).as_bytes())?;
    copy(&setup.files.kernel, "boot/kernel")?;
    copy(&setup.files.initrd, "boot/initrd")?;
    let iso = scratch.join("guest.iso");
    sh::output(Command::new("grub-mkrescue").arg("-o").arg(&iso).arg(&root))?;
    let bios = kernels::package("bochsbios")?.join("usr/share/bochs/BIOS-bochs-latest");
    let vga = kernels::package("vgabios")?.join("usr/share/vgabios/vgabios.bin");
    let log = scratch.join("bochs.log");
    Ok(format!(
        "display_library: rfb, options=\"timeout=0\"\n\
         megs: {ram}\n\
         cpu: model=corei7_haswell_4770, count=1, ips=50000000, reset_on_triple_fault=0\n\
         clock: sync=none\n\
         romimage: file={bios}\n\
         vgaromimage: file={vga}\n\
         ata0-master: type=cdrom, path={iso}, status=inserted\n\
         boot: cdrom\n\
         com1: enabled=1, mode=file, dev={serial}\n\
         sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy\n\
         plugin_ctrl: speaker=0, sb16=0, es1370=0, gameport=0, parallel=0\n\
         panic: action=fatal\n\
         log: {log}\n",
        ram = setup.ram,
        bios = bios.display(),
        vga = vga.display(),
        iso = iso.display(),
        serial = serial.display(),
        log = log.display(),
    ))
}

/// GRUB's script: boots at once.
fn grub(append: &str) -> String {
    format!("linux /boot/kernel {append}\ninitrd /boot/initrd\nboot\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_complaint_about_the_option_is_a_refusal() {
        let said = "quintet: --accel jit does not work yet\n";
        assert_eq!(
            refused(said),
            Some("quintet: --accel jit does not work yet".to_owned())
        );
        assert_eq!(refused("quintet: /nonexistent: no such file\n"), None);
    }

    #[test]
    fn engines_have_names_that_are_read_back() {
        for engine in Engine::ALL {
            assert_eq!(Engine::named(engine.name()), Some(engine));
        }
        assert_eq!(Engine::named("kvm"), None);
    }

    #[test]
    fn every_engine_gets_the_same_kernel_and_command_line() {
        let setup = Setup {
            bits: 32,
            ram: 300,
            append: "console=ttyS0 Q_LIST=gzip".to_owned(),
            quintet: "quintet".into(),
            files: Files {
                kernel: "k".into(),
                initrd: "i".into(),
            },
            disk: Some(Disk {
                image: "d".into(),
                bus: "ide",
            }),
        };
        for (engine, program, ram) in [
            (Engine::Interp, "quintet", "300M"),
            (Engine::Qemu, "qemu-system-i386", "300"),
        ] {
            let launch = engine.launch(&setup, Path::new("unused")).map(|l| l.command);
            let command = launch.unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(command.get_program(), program);
            let words: Vec<_> = command.get_args().map(|w| w.to_string_lossy()).collect();
            let line = words.join("|");
            assert!(
                line.contains("--kernel|k|--initrd|i|--append|console=ttyS0 Q_LIST=gzip"),
                "{line}"
            );
            assert!(line.contains(&format!("|{ram}|")), "{line}");
            assert!(line.contains("d,format=raw,"), "{line}");
        }
        assert!(grub(&setup.append).contains("linux /boot/kernel console=ttyS0 Q_LIST=gzip\n"));
    }
}
