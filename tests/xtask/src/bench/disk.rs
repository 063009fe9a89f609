//! `cargo xtask bench disk`: throughput of a disk in the Linux guest, under Quintet and QEMU with the same image, kernel and
//! bus, one after the other in each round.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use super::engine::{Disk, Engine, Setup};
use super::guest::Files;
use super::measure::{self, Run, Watch};
use super::{procfs, stats};
use crate::kernels;
use crate::sh::{self, Failure};

/// What `--help` prints.
const HELP: &str = "\
Usage: cargo xtask bench disk [OPTIONS]

Boots Debian's amd64 kernel with a 64 MiB raw image on IDE and on virtio, under quintet and QEMU (TCG) in turn, and has a
program there write and read past the page cache: in order in pieces of 1 MiB, and blocks of 4 KiB at random.

Options:
  --rounds N         how often each is measured [default: 3]
  --mib N            mebibytes in order [default: 512]
  --blocks N         blocks at random [default: 8000]
  --quintet FILE     measure this program instead of building one in release
  --help             print this and end
";

/// Bytes of the image, all of which the program uses.
const IMAGE: usize = 64 << 20;
/// Longest run of one machine.
const LIMIT: Duration = Duration::from_secs(600);
const PHASES: [&str; 4] = ["seqwrite", "seqread", "randread", "randwrite"];
const BUSES: [&str; 2] = ["ide", "virtio"];
const ENGINES: [Engine; 2] = [Engine::Jit, Engine::Qemu];

struct Options {
    rounds: u32,
    mib: u32,
    blocks: u32,
    quintet: Option<PathBuf>,
}

fn parse(args: &[String]) -> Result<Option<Options>, Failure> {
    let mut options = Options {
        rounds: 3,
        mib: 512,
        blocks: 8000,
        quintet: None,
    };
    let known = super::options_of(args, |word, value| {
        let number = || {
            value
                .parse()
                .map_err(|_| Failure::new(format!("{word} {value}: not a number")))
        };
        match word {
            "--rounds" => options.rounds = number()?,
            "--mib" => options.mib = number()?,
            "--blocks" => options.blocks = number()?,
            "--quintet" => options.quintet = Some(value.into()),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(known.then_some(options))
}

/// Measures what `args` ask for.
///
/// # Errors
/// A [`Failure`] when something is missing, or a machine does not get to the end.
pub fn disk(args: &[String]) -> Result<ExitCode, Failure> {
    let Some(options) = parse(args)? else {
        print!("{HELP}");
        return Ok(ExitCode::SUCCESS);
    };
    let quintet = super::quintet_beside(options.quintet.as_deref(), &ENGINES)?;
    let dir = sh::target().join("bench-disk");
    std::fs::create_dir_all(&dir).map_err(|e| Failure::new(format!("{}: {e}", dir.display())))?;
    let files = guest(&dir)?;
    let image = dir.join("disk.img");
    let mut all: BTreeMap<(&str, &str, &str), Vec<f64>> = BTreeMap::new();
    for round in 1..=options.rounds {
        for bus in BUSES {
            let setup = Setup {
                bits: 64,
                ram: 256,
                append: append(bus, &options),
                quintet: quintet.clone(),
                files: files.clone(),
                disk: Some(Disk {
                    image: image.clone(),
                    bus,
                }),
            };
            for engine in ENGINES {
                sh::write(&image, &vec![0xA5; IMAGE])?;
                let title = format!("[{round}/{}] {} {bus}", options.rounds, engine.name());
                let how = Watch {
                    log: None,
                    timeout: LIMIT,
                };
                let run = measure::run(engine, &setup, round as usize, &how, &title)?;
                let figures = figures(&run, &options)?;
                let said: Vec<String> = PHASES
                    .iter()
                    .zip(figures)
                    .map(|(p, f)| format!("{p} {f:.0}"))
                    .collect();
                eprintln!("{title}: {}", said.join(", "));
                for (phase, figure) in PHASES.into_iter().zip(figures) {
                    all.entry((bus, phase, engine.name())).or_default().push(figure);
                }
            }
        }
    }
    println!("Host: {}\n", procfs::host());
    println!("| bus | what | quintet | QEMU | ratio of medians |\n|---|---|---|---|---|");
    for bus in BUSES {
        for (phase, unit) in PHASES.into_iter().zip(["MiB/s", "MiB/s", "1/s", "1/s"]) {
            let [ours, theirs] = ENGINES.map(|engine| &all[&(bus, phase, engine.name())]);
            let list = |f: &[f64]| f.iter().map(|f| format!("{f:.0}")).collect::<Vec<_>>().join(", ");
            let ratio = stats::median(ours)
                .zip(stats::median(theirs))
                .map_or(0.0, |(o, t)| o / t);
            println!(
                "| {bus} | {phase}, {unit} | {} | {} | {ratio:.2} |",
                list(ours),
                list(theirs)
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Kernel and initramfs with the program in it, which is built here.
fn guest(dir: &Path) -> Result<Files, Failure> {
    let program = dir.join("diskload");
    let source = sh::root().join("tests/xtask/guest/diskload.rs");
    let mut rustc = Command::new("rustc");
    rustc.args([
        "--edition",
        "2024",
        "-O",
        "-C",
        "target-feature=+crt-static",
        "-o",
    ]);
    sh::run(rustc.arg(&program).arg(&source))?;
    let (kernel, archive) = kernels::with_disks(64, &[("bin/diskload".to_owned(), sh::bytes(&program)?)])?;
    let initrd = dir.join("initrd.cpio");
    sh::write(&initrd, &archive)?;
    Ok(Files { kernel, initrd })
}

/// The kernel's command line: what its init runs.
fn append(bus: &str, options: &Options) -> String {
    let device = if bus == "ide" { "/dev/sda" } else { "/dev/vda" };
    format!(
        "console=ttyS0 quiet nokaslr mitigations=off Q_OFF=1 Q_RUN=\"while [ ! -b {device} ]; do sleep 0.2; done; \
         sleep 1; /bin/diskload {device} {} {}\"",
        options.mib, options.blocks
    )
}

/// MiB or blocks a second of each phase, by the host's clock.
fn figures(run: &Run, options: &Options) -> Result<[f64; 4], Failure> {
    let mut figures = [0.0; 4];
    for (n, phase) in PHASES.iter().enumerate() {
        let Some((spent, _)) = run.pieces.get(*phase) else {
            let (name, line) = (run.engine.name(), run.outcome_line());
            return Err(Failure::new(format!("{name}: {phase} did not end: {line}")));
        };
        let work = if n < 2 { options.mib } else { options.blocks };
        figures[n] = f64::from(work) / spent.wall;
    }
    Ok(figures)
}
