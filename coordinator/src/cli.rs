//! The command line, which scripts and tests rely on (docs/lifecycle.md lists the exit statuses).
//!
//! Everything of the final command line is parsed already, so that a script written for it fails with a
//! sentence and not with a usage text; what does not work yet is refused by [`crate::config`].

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{
    ArgAction, ArgMatches, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum,
};

use quintet_protocol::control::Drive;

use crate::config::UsageError;
use crate::machine_file;
use crate::units::{parse_duration, parse_port, parse_size};

/// What the exit statuses mean (docs/lifecycle.md).
const EXIT_STATUSES: &str = "\
Exit status: 0 the guest powered off, or the command did what it should; 1 usage or configuration; 2 a worker failed for good; \
3 triple fault or reset with --no-reboot; 4 a soak found a violation; 124 time limit; with --exit-port, a write of v is (v << 1) | 1.";

/// A PC emulator that is five processes over shared memory; without a command, a window on the built-in demo guest.
#[derive(Debug, Parser)]
#[command(name = "quintet", version, disable_help_subcommand = true, after_help = EXIT_STATUSES)]
pub struct Cli {
    /// What to do; without it, the built-in demo guest is run.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Subcommands that take the options of a machine, and so a machine file.
const WITH_MACHINE: [&str; 3] = ["run", "config", "soak"];

/// A command line that was read, with the machine file that it names.
#[derive(Debug)]
pub struct Line {
    /// What it says.
    pub cli: Cli,
    /// The machine that it describes.
    pub described: Described,
}

/// What a command line says about each option, and by whom it was said.
#[derive(Debug)]
pub struct Described {
    options: clap::Command,
    given: ArgMatches,
}

/// Why a command line was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// It is wrong, or help was asked for.
    #[error(transparent)]
    Clap(#[from] clap::Error),
    /// The machine file is wrong.
    #[error(transparent)]
    File(#[from] UsageError),
}

impl Line {
    /// Reads a command line, the program's name first.
    ///
    /// # Errors
    /// [`LineError`]; that somebody asks for help is one too.
    pub fn read(words: impl IntoIterator<Item = OsString>) -> Result<Self, LineError> {
        let mut words: Vec<OsString> = words.into_iter().collect();
        let options = command();
        let mut given = options.clone().try_get_matches_from(&words)?;
        if let Some((name, run)) = given.subcommand()
            && WITH_MACHINE.contains(&name)
            && let Some(subcommand) = options.find_subcommand(name)
        {
            let (mut in_file, behind) = machine_file::words(subcommand, run)?;
            if !in_file.is_empty() || !behind.is_empty() {
                // Behind the program's name and the subcommand's.
                let rest = words.split_off(2);
                words.append(&mut in_file);
                words.extend(rest);
                words.extend(behind);
                given = options.clone().try_get_matches_from(words)?;
            }
        }
        Ok(Self {
            cli: Cli::from_arg_matches(&given)?,
            described: Described { options, given },
        })
    }
}

impl Described {
    /// The machine that the line describes, as a machine file; empty if it describes none.
    pub fn machine_file(&self) -> String {
        let here = std::env::current_dir().unwrap_or_default();
        let described = self.given.subcommand().and_then(|(name, given)| {
            let options = self.options.find_subcommand(name)?;
            Some(machine_file::show(options, given, &here))
        });
        described.unwrap_or_default()
    }
}

/// The command line as it is parsed and as help shows it.
pub fn command() -> clap::Command {
    WITH_MACHINE.into_iter().fold(Cli::command(), |cli, name| {
        cli.mut_subcommand(name, flags_with_values)
    })
}

/// Lets `--flag=off` take back what a machine file says.
fn flags_with_values(command: clap::Command) -> clap::Command {
    command.mut_args(|arg| match arg.get_action() {
        ArgAction::SetTrue => arg
            .action(ArgAction::Set)
            .value_parser(BoolishValueParser::new())
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .default_value("false")
            .hide_default_value(true)
            .hide_possible_values(true)
            .value_name("on|off"),
        _ => arg,
    })
}

/// A drive whose medium can be changed.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum DriveArg {
    /// The floppy drive.
    Floppy,
    /// The first CD-ROM drive.
    Cdrom,
}

impl From<DriveArg> for Drive {
    fn from(drive: DriveArg) -> Self {
        match drive {
            DriveArg::Floppy => Self::Floppy,
            DriveArg::Cdrom => Self::Cdrom,
        }
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a machine.
    #[command(after_help = EXIT_STATUSES)]
    Run(Box<RunArgs>),
    /// List the machines of this user.
    Ps,
    /// Show how a machine and its workers are.
    Status {
        /// Name of the machine.
        name: String,
        /// Everything that the machine says of itself, as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Watch a machine: processes, speed, exits, rings, interrupts, disks, sound.
    Top {
        /// Name of the machine.
        name: String,
        /// Time from one look to the next.
        #[arg(long, value_name = "TIME", default_value = "1s")]
        every: String,
        /// Print one page and end; so it is, too, where there is no terminal.
        #[arg(long)]
        once: bool,
    },
    /// Let a machine's time stand still.
    Pause(Name),
    /// Let a paused machine go on.
    Resume(Name),
    /// End a machine without asking the guest.
    Quit(Name),
    /// Press a machine's reset button.
    Reset(Name),
    /// Show the configuration that a `run` with these options would use.
    Config(Box<RunArgs>),
    /// Save what a machine shows as a PNG file.
    Screenshot {
        /// Name of the machine.
        name: String,
        /// File to write.
        file: PathBuf,
    },
    /// Type text on a machine's keyboard.
    Type {
        /// Name of the machine.
        name: String,
        /// The text; \n is Enter, \t is Tab.
        text: String,
    },
    /// Press keys together on a machine's keyboard.
    Key {
        /// Name of the machine.
        name: String,
        /// The keys, as in ctrl-alt-delete.
        chord: String,
    },
    /// Put a diskette or a CD-ROM into a machine's drive, in place of what is there.
    Insert {
        /// Name of the machine.
        name: String,
        /// The drive.
        drive: DriveArg,
        /// Its image; a floppy image has a length that the drive can read.
        file: PathBuf,
        /// Writes to the diskette are refused.
        #[arg(long)]
        read_only: bool,
    },
    /// Take out what is in a machine's drive, whether or not the guest has locked it.
    Eject {
        /// Name of the machine.
        name: String,
        /// The drive.
        drive: DriveArg,
    },
    /// Move a machine's mouse.
    Mouse {
        /// Name of the machine.
        name: String,
        /// move DX DY, to X Y (parts of the screen, 0 to 1), click, down or up with left, right, middle, back or forward,
        /// wheel N.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        action: Vec<String>,
    },
    /// Give WebAssembly modules to a running machine.
    Submit {
        /// Name of the machine.
        name: String,
        /// The modules.
        #[arg(required = true)]
        modules: Vec<PathBuf>,
        /// Report as JSON.
        #[arg(long)]
        json: bool,
        /// Function to call.
        #[arg(long)]
        invoke: Option<String>,
        /// How long each may run.
        #[arg(long, default_value = "30s", value_parser = parse_duration)]
        time_limit: Duration,
        /// How much memory each may have.
        #[arg(long, default_value = "4G", value_parser = parse_size)]
        memory: u64,
        /// How the modules travel, whatever their size: inline or memfd.
        #[arg(long, hide = true)]
        transport: Option<String>,
        /// Arguments of the modules.
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Show the memory of the module that a machine runs, live.
    Watch {
        /// Name of the machine.
        name: String,
        /// First byte of the hex.
        #[arg(long, default_value = "0", value_parser = parse_size)]
        at: u64,
        /// How long to watch [default: until the machine ends].
        #[arg(long = "for", value_parser = parse_duration)]
        time: Option<Duration>,
        /// Which of the module's memories, from 0.
        #[arg(long, default_value_t = 0)]
        memory: usize,
    },
    /// Attach gdb or lldb to a worker, or look into a machine.
    Debug {
        /// Name of the machine.
        name: String,
        /// cpu, io, gpu, audio, coordinator; transport: how payloads travelled; profile: where the vCPU's time goes; perf-map: names of
        /// translated code for perf.
        role: String,
        /// How long to look (profile; 10s unless given).
        #[arg(long, value_parser = parse_duration)]
        time: Option<Duration>,
        /// Where the sources are, if not where they were compiled [default: $QUINTET_SOURCE].
        #[arg(long, value_name = "DIR")]
        source: Option<PathBuf>,
        /// The debugger.
        #[arg(long, value_enum, default_value_t)]
        with: crate::debug::Debugger,
        /// Arguments of the debugger.
        #[arg(last = true)]
        more: Vec<String>,
    },
    /// Run a machine for a long time while breaking it.
    Soak(Box<crate::soak::SoakArgs>),
    /// Examine this host: what a machine can have here, and the remedy for what it cannot.
    Doctor(crate::doctor::DoctorArgs),
    /// Write man pages and completions.
    #[command(hide = true)]
    Generate(crate::generate::GenerateArgs),
    /// Take nearly all memory that the host has left, for a soak.
    #[command(hide = true)]
    TakeMemory(crate::soak::pressure::PressureArgs),
}

/// A machine by name.
#[derive(Debug, Args)]
pub struct Name {
    /// Name of the machine, as `quintet ps` shows it.
    pub name: String,
}

/// Where to boot from.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Boot {
    /// Floppy.
    A,
    /// First hard disk.
    C,
    /// CD-ROM.
    D,
    /// Network.
    N,
}

/// How guest instructions are executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AccelArg {
    /// Translated to host code.
    Jit,
    /// Interpreted.
    Interp,
}

/// The options of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Without a window.
    #[arg(long)]
    pub headless: bool,
    /// Name of the machine for the other commands [default: quintet-PID].
    #[arg(long)]
    pub name: Option<String>,
    /// Guest RAM.
    #[arg(long, default_value = "512M", value_parser = parse_size)]
    pub ram: u64,
    /// Number of vCPUs.
    #[arg(long, default_value_t = 1)]
    pub cpus: u32,
    /// CPU model: max, qemu64, pentium3 or 486, with +feature and -feature behind commas.
    #[arg(long, default_value = "max")]
    pub cpu: String,
    /// How instructions are executed [default: jit, where the host can].
    #[arg(long)]
    pub accel: Option<AccelArg>,
    /// Kernel: bzImage, multiboot ELF or PVH ELF.
    #[arg(long)]
    pub kernel: Vec<PathBuf>,
    /// Initrd, or multiboot modules as "FILE ARGS,FILE ARGS".
    #[arg(long)]
    pub initrd: Option<String>,
    /// Command line of the kernel.
    #[arg(long)]
    pub append: Option<String>,
    /// Boot device.
    #[arg(long)]
    pub boot: Option<Boot>,
    /// Firmware image, 64K to 16M, in place of the machine's own; a VGA BIOS for it by --device vga,romfile=FILE.
    #[arg(long)]
    pub firmware: Option<PathBuf>,
    /// Flash image, FILE or FILE,ro=on: the first ends at 4 GiB, or lies below the firmware; each other below the one before.
    #[arg(long)]
    pub pflash: Vec<String>,
    /// Disk image, FILE and behind commas bus=ide or bus=virtio, format=raw or format=qcow2, ro=on, snapshot=on (writes are thrown away at the
    /// end), overlay=FILE (writes go there, and the image stays as it is); a comma in a file's name is written twice.
    #[arg(long)]
    pub disk: Vec<String>,
    /// CD-ROM image, or none for an empty drive. Further ones are at hand: Ctrl+Alt+C in the window puts the next one in.
    #[arg(long)]
    pub cdrom: Vec<PathBuf>,
    /// Floppy image of 160 KiB to 2880 KiB, or none for an empty drive of 1.44 MB. Further ones are at hand: Ctrl+Alt+D in the window puts the next one in.
    #[arg(long)]
    pub floppy: Vec<PathBuf>,
    /// WebAssembly module to run instead of a PC.
    #[arg(long)]
    pub wasm: Option<PathBuf>,
    /// Function of the module to call.
    #[arg(long)]
    pub invoke: Option<String>,
    /// Directory that modules may use, and the name that they know it by.
    #[arg(long, value_name = "HOST[::GUEST]")]
    pub dir: Vec<PathBuf>,
    /// Report as JSON.
    #[arg(long)]
    pub json: bool,
    /// Exit with the module's return value.
    #[arg(long)]
    pub exit_code: bool,
    /// Wait for `quintet submit` as well; without --wasm, for nothing else.
    #[arg(long)]
    pub jobs: bool,
    /// First serial line: stdio, file:FILE or none [default: stdio].
    #[arg(long)]
    pub serial: Option<String>,
    /// Sound: auto, null or wav:FILE.
    #[arg(long, default_value = "auto")]
    pub audio: String,
    /// End when the guest resets itself, or would be reset because cpu-worker died.
    #[arg(long)]
    pub no_reboot: bool,
    /// Port of isa-debug-exit: a write of v ends the machine with status (v << 1) | 1.
    #[arg(long, value_parser = parse_port)]
    pub exit_port: Option<u16>,
    /// Debug console, PORT:stdio or PORT:file:FILE.
    #[arg(long)]
    pub debugcon: Vec<String>,
    /// Extra device, AC97 or pc-testdev, or one to be different: vga,romfile=FILE.
    #[arg(long)]
    pub device: Vec<String>,
    /// End after this long, with status 124.
    #[arg(long, value_parser = parse_duration)]
    pub time_limit: Option<Duration>,
    /// File with these options, one `name = value` a line in TOML; what is given here counts more, --flag=off takes a flag back.
    #[arg(long)]
    pub machine: Option<PathBuf>,
    /// Let gdb debug the guest: `target remote HOST:PORT`; with wait=on, nothing is executed before gdb says so.
    #[arg(long, value_name = "HOST:PORT[,wait=on]")]
    pub gdb: Option<String>,
    /// Tell figures in the text format of Prometheus: unix:PATH, or HOST:PORT of this host.
    #[arg(long, value_name = "ADDRESS")]
    pub metrics: Option<String>,
    /// Let the guest wait until a debugger has attached to a worker (cpu, io, gpu, audio) and let it go on; the command to type
    /// is printed.
    #[arg(long, value_name = "ROLE")]
    pub wait_for_debugger: Vec<String>,
    /// Let somebody else start a worker (cpu, io, gpu, audio), under whatever tool: the command to type is printed, for its successors
    /// too.
    #[arg(long, value_name = "ROLE")]
    pub external: Vec<String>,
    /// Draw without a GPU.
    #[arg(long)]
    pub software: bool,
    /// Draw by what looks like a GPU, even if it is a processor in disguise.
    #[arg(long, hide = true)]
    pub any_gpu: bool,
    /// How much to log: error, warn, info, debug, trace, or a filter.
    #[arg(long, default_value = "warn")]
    pub log: String,
    /// Write a timeline of all five processes to FILE, which Perfetto and Chrome open.
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Write to FILE, when the machine ends, where the vCPU's time went: translated code, TLB misses, exits by cause, waiting.
    #[arg(long)]
    pub profile: Option<PathBuf>,
    /// Compare the JIT with the interpreter, block by block, and end at the first difference.
    #[arg(long)]
    pub check_jit: bool,
    /// Workers as threads of one process, for debugging; unconfined.
    #[arg(long)]
    pub single_process: bool,
    /// Do not confine the workers.
    #[arg(long)]
    pub no_sandbox: bool,
    /// Back end of the shared memory: memfd or portable.
    #[arg(long, default_value = "memfd")]
    pub backend: String,
    /// A worker that was ready for so long has not died in vain; five deaths in a row before are final.
    #[arg(long, hide = true, default_value = "10s", value_parser = parse_duration)]
    pub stable_after: Duration,
    /// Blocked silence of a worker after which it counts as hung.
    #[arg(long, hide = true, default_value = "2s", value_parser = parse_duration)]
    pub hang_timeout: Duration,
    /// How a WebAssembly module travels, whatever its size: inline or memfd.
    #[arg(long, hide = true)]
    pub transport: Option<String>,
    /// The compiler behaves as if it could not map the module.
    #[arg(long, hide = true)]
    pub refuse_map: bool,
    /// Pretend that the host has so much memory available.
    #[arg(long, hide = true, value_parser = parse_size)]
    pub pretend_available: Option<u64>,
    /// Arguments of the WebAssembly module.
    #[arg(last = true)]
    pub args: Vec<String>,
}

impl Default for RunArgs {
    fn default() -> Self {
        #[derive(Parser)]
        struct Only {
            #[command(flatten)]
            run: RunArgs,
        }
        Only::parse_from(["quintet"]).run
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_option_of_the_manual_is_parsed() {
        let line = "quintet run --headless --name n --ram 2G --cpus 1 --cpu max,-sse2 --accel interp --kernel k \
            --initrd i --append a --boot c --firmware f --pflash p --pflash q --disk d,bus=ide --cdrom c --floppy f \
            --wasm w --invoke i --dir d --json --exit-code --serial file:s --audio wav:a --no-reboot --exit-port 0xf4 \
            --debugcon 0xe9:stdio --device pc-testdev --time-limit 60s --machine m --gdb h:1 \
            --wait-for-debugger cpu --external io --software --log debug --trace t --profile p --check-jit \
            --single-process --no-sandbox --backend portable -- a b";
        let cli = Cli::try_parse_from(line.split_whitespace()).expect("parses");
        let Some(Command::Run(run)) = cli.command else {
            panic!("not a run")
        };
        assert_eq!(run.ram, 2 << 30);
        assert_eq!(run.exit_port, Some(0xF4));
        assert_eq!(run.args, ["a", "b"]);
    }

    #[test]
    fn the_defaults_are_those_of_a_bare_run() {
        let run = RunArgs::default();
        assert_eq!((run.ram, run.cpus, run.cpu.as_str()), (512 << 20, 1, "max"));
    }
}
