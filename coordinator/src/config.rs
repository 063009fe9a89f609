//! From options to a machine that can be built, or one sentence why not.
//!
//! Everything that can be known without looking into guest data is checked here, before a segment is made or
//! a process started. What is inside a kernel is for the confined io-worker to judge.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quintet_cpu_worker::cpuid::{Feature, Model};
use quintet_protocol::control::{Drive, check_name};
use quintet_protocol::handshake::Role;
use quintet_protocol::handshake::config::{
    Accel, AudioConfig, CpuConfig, DebugconConfig, DebuggerConfig, GpuConfig, IoConfig, ModuleConfig,
};
use quintet_protocol::payload::{MAX_PAYLOAD, Outgoing, PayloadKind, TransportChoice};
use quintet_protocol::ram::RamLayout;
use quintet_protocol::wasm::WasmConfig;
use quintet_protocol::wasm::service::MAX_DIRS;
use quintet_protocol::window::WindowSettings;

use crate::cli::{AccelArg, RunArgs};
use crate::devices::Devices;
use crate::firmware::{self, Firmware};
use crate::gdb::GdbArg;
use crate::images::{self, EMPTY, ImageArg};
use crate::limits;
use crate::machine::attach;
use crate::metrics::MetricsArg;
use crate::sound::Audio;
use crate::supervise::start::random_u64;
use crate::units::show_size;
use crate::wasm::{GuestDir, WasmRun};

/// A mistake in what the user asked for: one line, exit status 1.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

pub(crate) fn refuse<T>(text: impl Into<String>) -> Result<T, UsageError> {
    Err(UsageError(text.into()))
}

/// Where bytes of a serial line or debug console go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamTarget {
    /// Standard output; for a serial line standard input too.
    Stdio,
    /// A file, created or emptied.
    File(PathBuf),
    /// Nowhere.
    None,
}

/// How the shared memory is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// memfd and futex.
    Memfd,
    /// Named shared memory and process-shared events.
    Portable,
}

/// A debug console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Debugcon {
    /// Its I/O port.
    pub port: u16,
    /// Where its bytes go.
    pub target: StreamTarget,
}

/// A checked configuration.
#[derive(Debug)]
pub struct MachineConfig {
    /// Name for the control socket.
    pub name: String,
    /// Guest RAM.
    pub ram: RamLayout,
    /// What the cpu-worker is told.
    pub cpu: CpuConfig,
    /// What the io-worker is told.
    pub io: IoConfig,
    /// What the gpu-worker is told.
    pub gpu: GpuConfig,
    /// What the machine starts with instead of a kernel.
    pub firmware: Option<Firmware>,
    /// The VGA's BIOS.
    pub vga_rom: Option<PathBuf>,
    /// Kernel path.
    pub kernel: Option<PathBuf>,
    /// Initrd or modules with the line each is given.
    pub initrd: Vec<(PathBuf, String)>,
    /// First serial line.
    pub serial: StreamTarget,
    /// Debug consoles.
    pub debugcon: Vec<Debugcon>,
    /// The guest's debugger.
    pub gdb: Option<GdbArg>,
    /// Where figures are told.
    pub metrics: Option<MetricsArg>,
    /// Workers for whose debuggers the guest waits.
    pub wait_for_debugger: Vec<Role>,
    /// Workers that somebody else starts.
    pub external: Vec<Role>,
    /// Disk images, in the order of the io-worker's disks.
    pub images: Vec<ImageArg>,
    /// Diskettes and discs that can take the place of the first of theirs.
    pub at_hand: Vec<ImageArg>,
    /// Sound.
    pub audio: Audio,
    /// After which the machine ends.
    pub time_limit: Option<Duration>,
    /// Workers as threads.
    pub single_process: bool,
    /// Whether workers are confined.
    pub sandbox: bool,
    /// How the shared memory is made.
    pub backend: Backend,
    /// Where a profile of the vCPU goes.
    pub profile: Option<PathBuf>,
    /// Where a timeline of all processes goes.
    pub trace: Option<PathBuf>,
    /// Log filter.
    pub log: String,
    /// A worker that was ready for so long has not died in vain.
    pub stable_after: Duration,
    /// Blocked silence after which a worker counts as hung.
    pub hang_timeout: Duration,
    /// A WebAssembly module instead of a PC.
    pub wasm: Option<WasmRun>,
}

/// Index of the outgoing stream of the first debug console: the two serial lines come first.
pub const FIRST_DEBUGCON_STREAM: u32 = 2;
/// Most debug consoles.
pub const MAX_DEBUGCON: usize = 4;

impl MachineConfig {
    /// Checks `args`.
    ///
    /// # Errors
    /// [`UsageError`], one sentence that names the option or file and the remedy.
    pub fn new(args: &RunArgs) -> Result<Self, UsageError> {
        refuse_unfinished(args)?;
        let ram = ram(args)?;
        let name = match &args.name {
            Some(name) => name.clone(),
            None => format!("quintet-{}", std::process::id()),
        };
        check_name(&name).map_err(|e| UsageError(e.to_string()))?;
        let model = Model::parse(&args.cpu).map_err(|e| UsageError(e.to_string()))?;
        let spin_nanos = spin_budget();
        let debugcon = args
            .debugcon
            .iter()
            .map(|s| debugcon(s))
            .collect::<Result<Vec<_>, _>>()?;
        if debugcon.len() > MAX_DEBUGCON {
            return refuse(format!("At most {MAX_DEBUGCON} --debugcon are possible"));
        }
        let Devices {
            testdev,
            ac97,
            vga_rom,
        } = Devices::parse(&args.device)?;
        // Something from which the processor starts.
        let has_firmware = args.firmware.is_some() || !args.pflash.is_empty();
        let kernel = match args.kernel.as_slice() {
            [] => None,
            [one] => Some(one.clone()),
            _ => return refuse("--kernel can be given once; modules of a multiboot kernel go into --initrd"),
        };
        if kernel.is_some() && has_firmware {
            return refuse("--firmware or --pflash with --kernel does not work yet");
        }
        if kernel.is_none() && (args.initrd.is_some() || args.append.is_some()) {
            return refuse("--initrd and --append need a --kernel");
        }
        let mut images = args
            .disk
            .iter()
            .map(|text| ImageArg::parse(text))
            .collect::<Result<Vec<_>, _>>()?;
        let of_drive = |drive| move |path: &PathBuf| ImageArg::of_drive(drive, path);
        let mut discs = args.cdrom.iter().map(of_drive(Drive::Cdrom));
        let mut diskettes = args.floppy.iter().map(of_drive(Drive::Floppy));
        images.extend(discs.next().into_iter().chain(diskettes.next()));
        let at_hand: Vec<ImageArg> = discs.chain(diskettes).collect();
        if at_hand.iter().any(ImageArg::is_empty) {
            return refuse(format!(
                "\"{EMPTY}\" stands for an empty drive, and can be the first --cdrom and the first --floppy only"
            ));
        }
        for text in &args.pflash {
            images.push(ImageArg::flash(text)?);
        }
        let wasm = wasm(args)?;
        if images.is_empty() && kernel.is_none() && !has_firmware && wasm.is_none() {
            images.push(ImageArg::demo());
        }
        let disks = images::place(&images)?;
        let boot = firmware::boot_order(args.boot)?;
        let gdb = args.gdb.as_deref().map(GdbArg::parse).transpose()?;
        let metrics = args.metrics.as_deref().map(MetricsArg::parse).transpose()?;
        let roles = |option, names: &[String]| attach::roles(option, names, args.single_process);
        let wait_for_debugger = roles("--wait-for-debugger", &args.wait_for_debugger)?;
        let external = roles("--external", &args.external)?;
        if gdb.is_some() && wasm.is_some() {
            return refuse("--gdb debugs a PC, not WebAssembly modules");
        }
        Ok(Self {
            ram,
            cpu: CpuConfig {
                vcpus: args.cpus,
                model: args.cpu.clone(),
                accel: match args.accel {
                    Some(AccelArg::Interp) => Accel::Interp,
                    // On a host that it has no code for, the cpu-worker says so and interprets.
                    Some(AccelArg::Jit) | None => Accel::Jit,
                },
                check_jit: args.check_jit,
                no_reboot: args.no_reboot,
                rtc_base: now_unix(),
                spin_nanos,
                cmos: firmware::cmos(&disks, &boot),
                wasm: args.wasm.is_some() || args.jobs,
                debugger: gdb.as_ref().map(|gdb| DebuggerConfig { wait: gdb.wait }),
            },
            io: IoConfig {
                vcpus: args.cpus,
                cpuid_1: model.identification(),
                long_mode: model.has(Feature::Lm),
                exit_port: args.exit_port,
                debugcon: debugcon
                    .iter()
                    .enumerate()
                    .map(|(i, d)| DebugconConfig {
                        port: d.port,
                        stream: FIRST_DEBUGCON_STREAM + i as u32,
                    })
                    .collect(),
                testdev,
                ac97,
                disks,
                boot,
                module: wasm.as_ref().map(|wasm| ModuleConfig {
                    dirs: wasm.dirs.iter().map(|dir| dir.guest.clone()).collect(),
                }),
                append: args.append.clone().unwrap_or_default(),
                no_reboot: args.no_reboot,
                spin_nanos,
            },
            gpu: GpuConfig {
                // Modules have no screen.
                headless: args.headless || args.wasm.is_some() || args.jobs,
                software: args.software,
                any_gpu: args.any_gpu,
                title: name.clone(),
                window: WindowSettings::default(),
            },
            name,
            // Disks are booted from when nothing else is named.
            firmware: match &args.firmware {
                Some(path) => Some(Firmware::File(path.clone())),
                // Flash holds firmware of its own.
                None if kernel.is_none()
                    && wasm.is_none()
                    && args.pflash.is_empty()
                    && !images.is_empty() =>
                {
                    if images.iter().all(|image| image.virtio) {
                        return refuse(
                            "The machine's own BIOS boots from no disk with bus=virtio yet; \
                             leave that away, or give --firmware or --kernel",
                        );
                    }
                    Some(Firmware::BuiltIn)
                }
                None => None,
            },
            vga_rom,
            kernel,
            initrd: args
                .initrd
                .as_deref()
                .map(modules)
                .transpose()?
                .unwrap_or_default(),
            serial: args
                .serial
                .as_deref()
                .map_or(Ok(StreamTarget::Stdio), |s| stream("--serial", s))?,
            debugcon,
            gdb,
            metrics,
            wait_for_debugger,
            external,
            images,
            at_hand,
            audio: Audio::parse(&args.audio)?,
            time_limit: args.time_limit,
            single_process: args.single_process,
            sandbox: !args.no_sandbox && !args.single_process,
            backend: backend(&args.backend)?,
            profile: args.profile.clone(),
            trace: args.trace.clone(),
            log: args.log.clone(),
            stable_after: args.stable_after,
            hang_timeout: args.hang_timeout,
            wasm,
        })
    }

    /// What the audio-worker is told.
    pub fn audio_config(&self) -> AudioConfig {
        AudioConfig {
            sink: self.audio.sink(),
            rate: 48_000,
        }
    }

    /// Reads kernel, modules and firmware, sealed for transport. They are kept for restarts and resets.
    ///
    /// # Errors
    /// [`UsageError`] for files that cannot be read, are empty or do not fit into guest RAM.
    pub fn payloads(&self) -> Result<Vec<Outgoing>, UsageError> {
        let mut payloads = Vec::new();
        if let Some(path) = &self.kernel {
            let bytes = self.read_image("kernel", path)?;
            payloads.push(outgoing(PayloadKind::Kernel, &bytes, path)?);
        }
        for (path, cmdline) in &self.initrd {
            let bytes = self.read_image("initrd", path)?;
            payloads.push(outgoing(
                PayloadKind::Initrd {
                    cmdline: cmdline.clone(),
                },
                &bytes,
                path,
            )?);
        }
        let total: u64 = payloads.iter().map(Outgoing::len).sum();
        if total > self.ram.total() {
            return refuse(format!(
                "Kernel and initrd have {total} bytes together, which do not fit into {} of RAM; try a larger --ram",
                show_size(self.ram.total())
            ));
        }
        payloads.extend(firmware::payloads(
            self.firmware.as_ref(),
            self.vga_rom.as_deref(),
        )?);
        Ok(payloads)
    }

    /// Reads a WebAssembly module of at most `most` bytes.
    ///
    /// # Errors
    /// [`UsageError`] for a file that cannot be read, is empty or larger.
    pub fn read_module(&self, path: &Path, most: u64) -> Result<Vec<u8>, UsageError> {
        read_file("module", path, most, |len| {
            format!(
                "The module \"{}\" has {len} bytes, {} are the most",
                path.display(),
                show_size(most)
            )
        })
    }

    fn read_image(&self, what: &str, path: &Path) -> Result<Vec<u8>, UsageError> {
        let most = MAX_PAYLOAD.min(self.ram.total());
        read_file(what, path, most, |len| {
            format!(
                "The {what} \"{}\" has {len} bytes and does not fit into {} of RAM; try a larger --ram",
                path.display(),
                show_size(most)
            )
        })
    }
}

/// Reads a file of at least one and at most `most` bytes; `too_large` tells what to say of one that has more.
///
/// # Errors
/// [`UsageError`].
pub fn read_file(
    what: &str,
    path: &Path,
    most: u64,
    too_large: impl Fn(u64) -> String,
) -> Result<Vec<u8>, UsageError> {
    let shown = path.display();
    let cannot = |e: std::io::Error| UsageError(format!("Cannot read {what} \"{shown}\": {}", reason(&e)));
    let file = File::open(path).map_err(cannot)?;
    let meta = file.metadata().map_err(cannot)?;
    if !meta.is_file() {
        return refuse(format!("The {what} \"{shown}\" is not a file"));
    }
    if meta.len() == 0 {
        return refuse(format!("The {what} \"{shown}\" is empty"));
    }
    if meta.len() > most {
        return refuse(too_large(meta.len()));
    }
    let mut bytes = Vec::with_capacity(meta.len() as usize);
    // One that grows meanwhile is refused like one that was too large from the start.
    file.take(most + 1).read_to_end(&mut bytes).map_err(cannot)?;
    match bytes.len() as u64 {
        len if len > most => refuse(too_large(len)),
        _ => Ok(bytes),
    }
}

/// What is asked for of a module.
fn wasm(args: &RunArgs) -> Result<Option<WasmRun>, UsageError> {
    if args.wasm.is_none() {
        let needs = [
            (args.invoke.is_some(), "--invoke"),
            (args.json, "--json"),
            (args.exit_code, "--exit-code"),
            (!args.dir.is_empty() && !args.jobs, "--dir"),
            (!args.args.is_empty(), "Arguments behind --"),
        ];
        if let Some((_, what)) = needs.iter().find(|(given, _)| *given) {
            return refuse(format!("{what} without --wasm means nothing"));
        }
        if !args.jobs {
            return Ok(None);
        }
    }
    if args.dir.len() > MAX_DIRS as usize {
        return refuse(format!(
            "--dir may be given {MAX_DIRS} times; put directories into one"
        ));
    }
    if args.firmware.is_some() || !args.pflash.is_empty() {
        return refuse("--wasm or --jobs and firmware are two guests; a machine runs one");
    }
    if !args.kernel.is_empty() {
        return refuse("--wasm or --jobs and --kernel are two guests; a machine runs one");
    }
    let name = args.wasm.as_deref().map(|module| module.display().to_string());
    Ok(Some(WasmRun {
        module: args.wasm.clone(),
        config: WasmConfig {
            invoke: args.invoke.clone(),
            args: name.into_iter().chain(args.args.iter().cloned()).collect(),
            seed: random_u64(),
        },
        dirs: args
            .dir
            .iter()
            .map(|dir| GuestDir::parse(dir))
            .collect::<Result<_, _>>()?,
        json: args.json,
        exit_code: args.exit_code,
        stay: args.jobs,
        transport: transport(args.transport.as_deref())?,
        refuse_map: args.refuse_map,
    }))
}

/// How a module is to travel.
///
/// # Errors
/// [`UsageError`] for an unknown name.
pub fn transport(name: Option<&str>) -> Result<TransportChoice, UsageError> {
    match name {
        None => Ok(TransportChoice::BySize),
        Some("inline") => Ok(TransportChoice::Inline),
        Some("memfd") => Ok(TransportChoice::Memfd),
        Some(other) => refuse(format!("--transport {other} is not known; inline and memfd are")),
    }
}

/// Bytes of a file, sealed for transport.
///
/// # Errors
/// [`UsageError`], the host's: no memory, no descriptors.
pub fn outgoing(kind: PayloadKind, bytes: &[u8], path: &Path) -> Result<Outgoing, UsageError> {
    Outgoing::new(kind, bytes, TransportChoice::BySize)
        .map_err(|e| UsageError(format!("{}: {e}", path.display())))
}

/// What went wrong with a file, without the number of the error.
pub fn reason(e: &std::io::Error) -> String {
    match e.kind() {
        std::io::ErrorKind::NotFound => "no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        std::io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        _ => e.to_string(),
    }
}

fn ram(args: &RunArgs) -> Result<RamLayout, UsageError> {
    if args.ram == 0 {
        return refuse("--ram 0 leaves nothing to boot in; try --ram 512M");
    }
    let layout = RamLayout::new(args.ram);
    let available = args
        .pretend_available
        .unwrap_or_else(|| match args.backend.as_str() {
            "portable" => limits::available_memory().min(limits::available_shared_memory()),
            _ => limits::available_memory(),
        });
    if layout.total() > available {
        return refuse(format!(
            "--ram {} is more than the {} MiB of memory that this host has available; try a smaller size",
            show_size(args.ram),
            available >> 20
        ));
    }
    Ok(layout)
}

/// Longer than a device takes to answer, or nothing: with one core the peer cannot answer while we spin.
pub(crate) fn spin_budget() -> u64 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if cores >= 2 { 50_000 } else { 0 }
}

fn now_unix() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |d| d.as_secs() as i64)
}

fn stream(option: &str, text: &str) -> Result<StreamTarget, UsageError> {
    match text.split_once(':') {
        None if text == "stdio" => Ok(StreamTarget::Stdio),
        None if text == "none" => Ok(StreamTarget::None),
        Some(("file", path)) if !path.is_empty() => Ok(StreamTarget::File(path.into())),
        _ => refuse(format!(
            "{option} {text} is not known; stdio, file:FILE and none are"
        )),
    }
}

fn debugcon(text: &str) -> Result<Debugcon, UsageError> {
    let Some((port, target)) = text.split_once(':') else {
        return refuse(format!(
            "--debugcon {text} has no target; write 0xe9:stdio or 0xe9:file:FILE"
        ));
    };
    let port = crate::units::parse_port(port).map_err(|e| UsageError(format!("--debugcon {text}: {e}")))?;
    Ok(Debugcon {
        port,
        target: stream("--debugcon", target)?,
    })
}

/// `"F ARGS,F ARGS"`: each module's file and the line it is given, which is the whole text as in QEMU.
fn modules(text: &str) -> Result<Vec<(PathBuf, String)>, UsageError> {
    text.split(',')
        .map(|module| {
            let module = module.trim();
            let file = module.split(' ').next().unwrap_or_default();
            if file.is_empty() {
                return refuse(format!("--initrd \"{text}\" names an empty file"));
            }
            Ok((PathBuf::from(file), module.to_owned()))
        })
        .collect()
}

/// Options of the final command line that do nothing yet say so.
fn refuse_unfinished(a: &RunArgs) -> Result<(), UsageError> {
    let unfinished = [
        (a.cpus != 1, "--cpus other than 1"),
        (a.boot.is_some() && !a.kernel.is_empty(), "--boot with --kernel"),
    ];
    if let Some((_, what)) = unfinished.iter().find(|(given, _)| *given) {
        return refuse(format!("{what} does not work yet"));
    }
    Ok(())
}

fn backend(text: &str) -> Result<Backend, UsageError> {
    match text {
        "memfd" => Ok(Backend::Memfd),
        "portable" => Ok(Backend::Portable),
        _ => refuse(format!("--backend {text} is not known; memfd and portable are")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> RunArgs {
        RunArgs {
            ram: 1 << 20,
            pretend_available: Some(1 << 30),
            ..RunArgs::default()
        }
    }

    fn error(change: impl FnOnce(&mut RunArgs)) -> String {
        let mut a = args();
        change(&mut a);
        let e = MachineConfig::new(&a).expect_err("refused").to_string();
        assert!(!e.contains('\n'), "{e}");
        e
    }

    #[test]
    fn no_ram_and_too_much_ram_are_refused_with_the_remedy() {
        assert!(error(|a| a.ram = 0).contains("--ram 0"));
        let e = error(|a| a.ram = 1 << 40);
        assert!(
            e.contains("--ram 1T") && e.contains("1024 MiB") && e.contains("smaller"),
            "{e}"
        );
    }

    #[test]
    fn two_kernels_are_refused() {
        assert!(error(|a| a.kernel = vec!["a".into(), "b".into()]).contains("--kernel can be given once"));
    }

    #[test]
    fn what_does_not_work_yet_says_so() {
        assert_eq!(error(|a| a.cpus = 2), "--cpus other than 1 does not work yet");
    }

    #[test]
    fn who_waits_for_a_debugger_or_for_its_start_is_a_process_of_its_own() {
        let alone = |a: &mut RunArgs| (a.wait_for_debugger, a.single_process) = (vec!["io".into()], true);
        assert!(error(alone).contains("--single-process"));
        let alone = |a: &mut RunArgs| (a.external, a.single_process) = (vec!["io".into()], true);
        assert!(error(alone).contains("--external needs"));
    }

    #[test]
    fn modules_keep_their_whole_line() {
        let m = modules("a.elf x=1 y,b.bin").expect("parses");
        assert_eq!(
            m,
            [
                ("a.elf".into(), "a.elf x=1 y".into()),
                ("b.bin".into(), "b.bin".into())
            ]
        );
        assert!(modules("a,,b").is_err());
    }

    #[test]
    fn streams_and_consoles_are_checked() {
        assert!(error(|a| a.serial = Some("tcp:1".into())).contains("stdio, file:FILE and none"));
        assert!(error(|a| a.debugcon = vec!["0xe9".into()]).contains("has no target"));
        assert!(error(|a| a.debugcon = vec!["9999999:stdio".into()]).contains("not an I/O port"));
        assert_eq!(
            debugcon("0xe9:file:log").expect("parses"),
            Debugcon {
                port: 0xE9,
                target: StreamTarget::File("log".into())
            }
        );
    }

    #[test]
    fn a_kernel_larger_than_ram_is_refused() {
        let file = std::env::temp_dir().join(format!("quintet-config-test-{}", std::process::id()));
        std::fs::write(&file, vec![1; (1 << 20) + 1]).expect("file");
        let mut a = args();
        a.kernel = vec![file.clone()];
        let e = MachineConfig::new(&a)
            .expect("checked")
            .payloads()
            .expect_err("refused")
            .to_string();
        std::fs::remove_file(&file).expect("remove");
        assert!(e.contains("does not fit into 1M of RAM"), "{e}");
    }
}
