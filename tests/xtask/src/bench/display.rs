//! `cargo xtask bench display`: what it costs to show a moving picture in a window, under Quintet and QEMU with the same guest on the
//! same X server, one after the other in each round.
//!
//! What is shown is counted for both in the same way: the dots that the X server reports as drawn (its DAMAGE extension), in pictures of
//! the guest's size. What showing costs is the processor time of whoever draws, which is Quintet's gpu-worker and QEMU's main thread,
//! and of the X server, from the host's scheduler.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use x11rb::connection::Connection as _;
use x11rb::protocol::Event;
use x11rb::protocol::damage::{ConnectionExt as _, ReportLevel};

use super::engine::Engine;
use super::{procfs, stats};
use crate::guest;
use crate::sh::{self, Failure};

#[path = "../../../machine/support/xvfb.rs"]
mod xvfb;

use xvfb::Xvfb;

/// What `--help` prints.
const HELP: &str = "\
Usage: cargo xtask bench display [OPTIONS]

Shows a guest's picture of 1920 by 1080 dots, of which every one changes 64 times a second, in a window on an X server
without a screen (Xvfb), drawn by software: by quintet and by QEMU (TCG, GTK) in turn. Prints the processor time that a
picture shown takes of whoever draws it (quintet's gpu-worker, QEMU's main thread) and of the X server.

Options:
  --rounds N         how often each is measured [default: 3]
  --seconds N        for how long each time [default: 10]
  --quintet FILE     measure this program instead of building one in release
  --help             print this and end
";

/// Dots of the guest's picture.
const PICTURE: f64 = 1920.0 * 1080.0;
/// The X server's screen, in which the windows have room with all that is around the picture.
const SCREEN: &str = "2400x1400x24";
/// How long a window may take to settle.
const SETTLE: Duration = Duration::from_secs(3);
const ENGINES: [Engine; 2] = [Engine::Jit, Engine::Qemu];

struct Options {
    rounds: u32,
    seconds: u32,
    quintet: Option<PathBuf>,
}

fn parse(args: &[String]) -> Result<Option<Options>, Failure> {
    let mut options = Options {
        rounds: 3,
        seconds: 10,
        quintet: None,
    };
    let known = super::options_of(args, |word, value| {
        let number = || match value.parse() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err(Failure::new(format!("{word} {value}: not a number from 1 on"))),
        };
        match word {
            "--rounds" => options.rounds = number()?,
            "--seconds" => options.seconds = number()?,
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
/// A [`Failure`] when something is missing, or a window shows nothing.
pub fn display(args: &[String]) -> Result<ExitCode, Failure> {
    let Some(options) = parse(args)? else {
        print!("{HELP}");
        return Ok(ExitCode::SUCCESS);
    };
    let quintet = super::quintet_beside(options.quintet.as_deref(), &ENGINES)?;
    let windows = sh::output(Command::new("qemu-system-x86_64").args(["-display", "help"]))?;
    if !windows.lines().any(|line| line.trim() == "gtk") {
        return Err(Failure::new(
            "QEMU has no window: apt-get install qemu-system-gui",
        ));
    }
    let guest = guest::kernel("motion")?;
    let mut rows = ENGINES.map(|_| Vec::new());
    for round in 1..=options.rounds {
        for (engine, row) in ENGINES.into_iter().zip(&mut rows) {
            let shown = measure(engine, &quintet, &guest, options.seconds)?;
            eprintln!("[{round}/{}] {}: {shown}", options.rounds, engine.name());
            row.push(shown);
        }
    }
    println!("Host: {}\n", procfs::host());
    println!(
        "| | pictures a second | who draws, ms a picture | X server, ms | both |\n|---|---|---|---|---|"
    );
    let mut totals = [0.0; 2];
    for ((engine, row), total) in ENGINES.into_iter().zip(&rows).zip(&mut totals) {
        let median = |of: fn(&Shown) -> f64| stats::median(&row.iter().map(of).collect::<Vec<_>>());
        let figure = |of| median(of).unwrap_or_default();
        *total = figure(Shown::both);
        println!(
            "| {} | {:.1} | {:.2} | {:.2} | {total:.2} |",
            engine.name(),
            figure(|s| s.a_second),
            figure(|s| s.drawer),
            figure(|s| s.server),
        );
    }
    println!(
        "\nRatio of the medians of both, quintet to QEMU: {:.2}",
        totals[0] / totals[1]
    );
    Ok(ExitCode::SUCCESS)
}

/// What was seen of a window.
struct Shown {
    a_second: f64,
    /// Milliseconds of processor time for a picture: of whoever draws, and of the X server.
    drawer: f64,
    server: f64,
}

impl Shown {
    fn both(&self) -> f64 {
        self.drawer + self.server
    }
}

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            a_second,
            drawer,
            server,
        } = self;
        write!(
            f,
            "{a_second:.1} pictures a second, {drawer:.2} ms and X server {server:.2} ms each"
        )
    }
}

/// A machine that ends with this value.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn measure(engine: Engine, quintet: &Path, guest: &Path, seconds: u32) -> Result<Shown, Failure> {
    let server = Xvfb::sized(SCREEN, &[]).ok_or_else(|| Failure::new("Xvfb is missing"))?;
    let settings = sh::target().join("bench-display");
    let mut command = match engine {
        Engine::Qemu => {
            let mut qemu = Command::new("qemu-system-x86_64");
            qemu.args([
                "-accel", "tcg", "-m", "256", "-vga", "std", "-display", "gtk", "-serial", "stdio", "-kernel",
            ]);
            qemu
        }
        _ => {
            let mut quintet = Command::new(quintet);
            quintet.args([
                "run",
                "--software",
                "--ram",
                "256M",
                "--serial",
                "stdio",
                "--kernel",
            ]);
            quintet
        }
    };
    let mut machine = command
        .arg(guest)
        .env("DISPLAY", &server.display)
        .env("XDG_CONFIG_HOME", &settings)
        .env("XDG_DATA_HOME", &settings)
        .env_remove("WAYLAND_DISPLAY")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map(Machine)
        .map_err(|e| Failure::new(format!("{}: {e}", engine.name())))?;
    let name = engine.name();
    let said = machine.0.stdout.take().map(BufReader::new);
    let moves = said
        .into_iter()
        .flat_map(BufReader::lines)
        .map_while(Result::ok)
        .any(|line| line.contains("moving"));
    if !moves {
        return Err(Failure::new(format!("{name}: the guest did not begin")));
    }
    std::thread::sleep(SETTLE);
    let drawer = match engine {
        Engine::Qemu => vec![PathBuf::from(format!("/proc/{0}/task/{0}", machine.0.id()))],
        _ => threads(worker(machine.0.id(), "quintet-gpu")?)?,
    };
    let server_threads = threads(server.pid())?;
    let before = (nanos(&drawer), nanos(&server_threads));
    let length = Duration::from_secs(seconds.into());
    let dots = drawn(&server.display, length)?;
    let after = (nanos(&drawer), nanos(&server_threads));
    let pictures = dots / PICTURE;
    if pictures < 1.0 {
        return Err(Failure::new(format!("{name}: the window shows nothing")));
    }
    let each = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1e6 / pictures;
    Ok(Shown {
        a_second: pictures / length.as_secs_f64(),
        drawer: each(before.0, after.0),
        server: each(before.1, after.1),
    })
}

/// The process of a name below another.
fn worker(root: u32, name: &str) -> Result<u32, Failure> {
    procfs::tree(root)
        .into_iter()
        .find(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name))
        .ok_or_else(|| Failure::new(format!("no process {name}")))
}

/// The threads of a process.
fn threads(pid: u32) -> Result<Vec<PathBuf>, Failure> {
    let folder = format!("/proc/{pid}/task");
    let entries = fs::read_dir(&folder).map_err(|e| Failure::new(format!("{folder}: {e}")))?;
    Ok(entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
}

/// Nanoseconds that threads have run for.
fn nanos(threads: &[PathBuf]) -> u64 {
    let of = |thread: &PathBuf| {
        let text = fs::read_to_string(thread.join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    threads.iter().filter_map(of).sum()
}

/// Dots that are drawn on a display within `length`.
fn drawn(display: &str, length: Duration) -> Result<f64, Failure> {
    let failed = |e: &dyn std::fmt::Display| Failure::new(format!("display {display}: {e}"));
    let (connection, screen) = x11rb::connect(Some(display)).map_err(|e| failed(&e))?;
    let root = connection.setup().roots[screen].root;
    let version = connection.damage_query_version(1, 1).map_err(|e| failed(&e))?;
    version.reply().map_err(|e| failed(&e))?;
    let damage = connection.generate_id().map_err(|e| failed(&e))?;
    let created = connection.damage_create(damage, root, ReportLevel::RAW_RECTANGLES);
    created.map_err(|e| failed(&e))?.check().map_err(|e| failed(&e))?;
    let start = Instant::now();
    let mut dots = 0.0;
    while start.elapsed() < length {
        match connection.poll_for_event().map_err(|e| failed(&e))? {
            Some(Event::DamageNotify(event)) => {
                dots += f64::from(event.area.width) * f64::from(event.area.height);
            }
            Some(_) => {}
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    Ok(dots)
}
