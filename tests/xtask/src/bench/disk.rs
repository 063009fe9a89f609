//! `cargo xtask bench disk`: throughput of a disk in the Linux guest, under Quintet and QEMU with the same image, kernel and
//! bus, one after the other in each round.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use super::procfs;
use crate::kernels;
use crate::sh::{self, Failure};
use crate::{packages, run};

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
const QEMU: &str = "qemu-system-x86_64";

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
    let mut words = args.iter();
    while let Some(word) = words.next() {
        if word == "--help" {
            return Ok(None);
        }
        let value = words
            .next()
            .ok_or_else(|| Failure::new(format!("{word}: a value is missing")))?;
        let number = || {
            value
                .parse()
                .map_err(|_| Failure::new(format!("{word} {value}: not a number")))
        };
        match word.as_str() {
            "--rounds" => options.rounds = number()?,
            "--mib" => options.mib = number()?,
            "--blocks" => options.blocks = number()?,
            "--quintet" => options.quintet = Some(value.into()),
            _ => return Err(Failure::new(format!("{word} is not known; --help tells more"))),
        }
    }
    Ok(Some(options))
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
    if !sh::has(QEMU) {
        return Err(Failure::new(format!(
            "{QEMU} is not installed (package qemu-system-x86)"
        )));
    }
    let quintet = match &options.quintet {
        Some(path) => path.clone(),
        None => {
            packages::for_build()?;
            run::build("release")?;
            sh::target().join("release/quintet")
        }
    };
    let dir = sh::target().join("bench-disk");
    std::fs::create_dir_all(&dir).map_err(|e| Failure::new(format!("{}: {e}", dir.display())))?;
    let (kernel, initrd) = guest(&dir)?;
    let image = dir.join("disk.img");
    let mut all: BTreeMap<(&str, &str, &str), Vec<f64>> = BTreeMap::new();
    for round in 1..=options.rounds {
        for bus in ["ide", "virtio"] {
            for engine in ["quintet", "qemu"] {
                sh::write(&image, &vec![0xA5; IMAGE])?;
                let files = [kernel.as_path(), &initrd, &image];
                let figures = measure(&launch(engine, bus, &quintet, files, &options), &options)?;
                let said: Vec<String> = PHASES
                    .iter()
                    .zip(figures)
                    .map(|(p, f)| format!("{p} {f:.0}"))
                    .collect();
                eprintln!("[{round}/{}] {engine} {bus}: {}", options.rounds, said.join(", "));
                for (phase, figure) in PHASES.into_iter().zip(figures) {
                    all.entry((bus, phase, engine)).or_default().push(figure);
                }
            }
        }
    }
    println!("Host: {}\n", procfs::host());
    println!("| bus | what | quintet | QEMU | ratio of medians |\n|---|---|---|---|---|");
    for bus in ["ide", "virtio"] {
        for (phase, unit) in PHASES.into_iter().zip(["MiB/s", "MiB/s", "1/s", "1/s"]) {
            let of = |engine| sorted(&all[&(bus, phase, engine)]);
            let (ours, theirs) = (of("quintet"), of("qemu"));
            let list = |f: &[f64]| f.iter().map(|f| format!("{f:.0}")).collect::<Vec<_>>().join(", ");
            let ratio = ours[ours.len() / 2] / theirs[theirs.len() / 2];
            println!(
                "| {bus} | {phase}, {unit} | {} | {} | {ratio:.2} |",
                list(&ours),
                list(&theirs)
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn sorted(figures: &[f64]) -> Vec<f64> {
    let mut figures = figures.to_vec();
    figures.sort_by(f64::total_cmp);
    figures
}

/// Kernel and initramfs with the program in it, which is built here.
fn guest(dir: &Path) -> Result<(PathBuf, PathBuf), Failure> {
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
    Ok((kernel, initrd))
}

/// A machine's command line; files are kernel, initramfs, image.
fn launch(engine: &str, bus: &str, quintet: &Path, files: [&Path; 3], options: &Options) -> Vec<String> {
    let [kernel, initrd, image] = files.map(|path| path.display().to_string());
    let device = if bus == "ide" { "/dev/sda" } else { "/dev/vda" };
    let append = format!(
        "console=ttyS0 quiet nokaslr mitigations=off Q_OFF=1 Q_RUN=\"while [ ! -b {device} ]; do sleep 0.2; done; \
         sleep 1; /bin/diskload {device} {} {}\"",
        options.mib, options.blocks
    );
    let (program, before, disk) = match engine {
        "quintet" => (
            quintet.display().to_string(),
            "run --headless --serial stdio --ram 256M",
            ["--disk".to_owned(), format!("{image},format=raw,bus={bus}")],
        ),
        _ => (
            QEMU.to_owned(),
            "-accel tcg -machine pc -m 256M -display none -serial stdio -monitor none",
            ["-drive".to_owned(), format!("file={image},format=raw,if={bus}")],
        ),
    };
    let dashes = if engine == "quintet" { "--" } else { "-" };
    let mut words = vec![program];
    words.extend(before.split_whitespace().map(str::to_owned));
    for (name, value) in [("kernel", kernel), ("initrd", initrd), ("append", append)] {
        words.extend([format!("{dashes}{name}"), value]);
    }
    words.extend(disk);
    words
}

/// Runs a machine, and answers MiB/s or blocks a second of each phase by the host's clock.
fn measure(words: &[String], options: &Options) -> Result<[f64; 4], Failure> {
    let fail = |what: String| Failure::new(format!("{}: {what}", words[0]));
    let mut child = Command::new(&words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| fail(e.to_string()))?;
    let output = child.stdout.take().ok_or_else(|| fail("no output".into()))?;
    let (send, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(output);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&line).trim().to_owned();
            line.clear();
            if send.send((text, Instant::now())).is_err() {
                return;
            }
        }
    });
    let deadline = Instant::now() + LIMIT;
    let (mut marks, mut seen) = (BTreeMap::new(), String::new());
    while let Ok((line, at)) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        if let Some(mark) = line.strip_prefix("@@ ") {
            marks.insert(mark.to_owned(), at);
        }
        seen += &line;
        seen.push('\n');
    }
    end(&mut child);
    let mut figures = [0.0; 4];
    for (n, phase) in PHASES.iter().enumerate() {
        let mark = |what: &str| marks.get(&format!("{phase} {what}"));
        let (Some(start), Some(stop)) = (mark("start"), mark("end")) else {
            return Err(fail(format!("{phase} did not end:\n{seen}")));
        };
        let work = if n < 2 { options.mib } else { options.blocks };
        figures[n] = f64::from(work) / stop.duration_since(*start).as_secs_f64();
    }
    Ok(figures)
}

fn end(child: &mut Child) {
    // After its output has ended it is gone already, or has had its time.
    let _ = child.kill();
    let _ = child.wait();
}
