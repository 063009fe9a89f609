//! One boot of one engine: its marks on the serial line, with the host's clock and CPU time at each.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use super::engine::{Engine, Launch, Setup};
use super::procfs;
use crate::sh::Failure;

/// How long the guest may take to power off after its last mark.
const GRACE: Duration = Duration::from_secs(20);

/// What the guest says of its progress.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Mark {
    Booted,
    Start(String),
    /// With the word that depends on all that was computed.
    End(String, String),
    Done,
}

impl Mark {
    /// The mark in a line of the serial port, wherever it stands.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_once("@@")?.1.split_whitespace();
        let kind = words.next()?;
        let mut word = || words.next().map(str::to_owned);
        match kind {
            "BOOTED" => Some(Self::Booted),
            "START" => word().map(Self::Start),
            "END" => Some(Self::End(word()?, word().unwrap_or_default())),
            "DONE" => Some(Self::Done),
            _ => None,
        }
    }
}

/// Seconds of one stretch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seconds {
    /// The host's clock.
    pub wall: f64,
    /// All the engine's processes.
    pub cpu: f64,
}

/// Everything about one boot.
#[derive(Debug)]
pub struct Run {
    /// What ran.
    pub engine: Engine,
    /// From 1.
    pub round: usize,
    /// From the engine's start to `/init`.
    pub boot: Option<Seconds>,
    /// Of each piece of work that was finished, and its word.
    pub pieces: HashMap<String, (Seconds, String)>,
    /// Whether the last mark came.
    pub done: bool,
    /// What went wrong.
    pub trouble: Option<String>,
    /// Processors that other programs kept busy meanwhile, on average.
    pub others: f64,
}

impl Run {
    /// One line for people.
    pub fn outcome_line(&self) -> String {
        let boot = self
            .boot
            .map_or_else(String::new, |b| format!("booted in {:.1} s, ", b.wall));
        let end = self.trouble.clone().unwrap_or_else(|| "done".to_owned());
        format!(
            "{boot}{} pieces, {end}; others kept {:.1} processors busy",
            self.pieces.len(),
            self.others
        )
    }
}

/// Follows the marks, whatever clock they come with.
#[derive(Debug)]
struct Tracker {
    boot: Option<Seconds>,
    current: Option<(String, Seconds)>,
    pieces: HashMap<String, (Seconds, String)>,
    done: bool,
}

impl Tracker {
    fn new() -> Self {
        Self {
            boot: None,
            current: None,
            pieces: HashMap::new(),
            done: false,
        }
    }

    /// A mark came when so much had been used since the start.
    fn mark(&mut self, mark: Mark, at: Seconds) {
        match mark {
            Mark::Booted => self.boot = Some(at),
            Mark::Start(name) => self.current = Some((name, at)),
            Mark::End(name, word) => {
                if let Some((started, from)) = self.current.take()
                    && started == name
                {
                    let spent = Seconds {
                        wall: at.wall - from.wall,
                        cpu: at.cpu - from.cpu,
                    };
                    self.pieces.insert(name, (spent, word));
                }
            }
            Mark::Done => self.done = true,
        }
    }

    /// What the guest is at.
    fn activity(&self) -> &str {
        match &self.current {
            Some((name, _)) => name,
            None if self.boot.is_none() => "boot",
            None => "between",
        }
    }
}

/// An engine's processes; none outlives this.
struct Engines(Child);

impl Drop for Engines {
    fn drop(&mut self) {
        // Descendants first have to be known: they are adopted by another process when their parent dies.
        let family = procfs::tree(self.0.id());
        let _ = self.0.kill();
        let mut kill = Command::new("kill");
        kill.arg("-KILL").args(family.iter().skip(1).map(u32::to_string));
        if family.len() > 1 {
            let _ = kill.stderr(Stdio::null()).status();
        }
        let _ = self.0.wait();
    }
}

/// A directory that goes away again.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self, Failure> {
        let dir = std::env::temp_dir().join(format!("quintet-bench-{}", std::process::id()));
        std::fs::create_dir_all(&dir).map_err(|e| Failure::new(format!("{}: {e}", dir.display())))?;
        Ok(Self(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// How one boot is watched.
#[derive(Debug)]
pub struct Watch<'a> {
    /// Where what the engine says is kept.
    pub log: Option<&'a Path>,
    /// How long it may take.
    pub timeout: Duration,
}

/// Boots `engine` and follows it to the end.
///
/// # Errors
/// A [`Failure`] when it cannot be started at all; what happens later is in the [`Run`].
pub fn run(
    engine: Engine,
    setup: &Setup,
    round: usize,
    how: &Watch<'_>,
    title: &str,
) -> Result<Run, Failure> {
    let scratch = Scratch::new()?;
    let Launch { mut command, serial } = engine.launch(setup, &scratch.0)?;
    let mut log = match how.log {
        Some(dir) => Some(log_file(dir, engine, setup.bits, round)?),
        None => None,
    };
    let output = if serial.is_some() {
        Stdio::null()
    } else {
        Stdio::piped()
    };
    let errors = match &log {
        Some(file) => file.try_clone().map_or_else(|_| Stdio::null(), Stdio::from),
        None => Stdio::null(),
    };
    let busy = procfs::busy_seconds();
    let start = Instant::now();
    let child = command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn();
    let child = child.map_err(|e| Failure::new(format!("cannot run {}: {e}", engine.name())))?;
    let mut engines = Engines(child);
    let pid = engines.0.id();
    let (send, lines) = mpsc::channel();
    let stop = Arc::new(AtomicBool::new(false));
    let reader = match serial {
        Some(path) => {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || follow(&path, &stop, &send))
        }
        None => {
            let output = engines.0.stdout.take();
            std::thread::spawn(move || {
                if let Some(output) = output {
                    read_lines(output, &send);
                }
            })
        }
    };
    let mut tracker = Tracker::new();
    let trouble = watch(
        &mut engines.0,
        &mut tracker,
        &lines,
        log.as_mut(),
        start,
        how.timeout,
        title,
    );
    let used = procfs::cpu_seconds(pid);
    let wall = start.elapsed().as_secs_f64();
    let others = (procfs::busy_seconds() - busy - used).max(0.0) / wall;
    drop(engines);
    stop.store(true, Ordering::Relaxed);
    let _ = reader.join();
    Ok(Run {
        engine,
        round,
        boot: tracker.boot,
        pieces: tracker.pieces,
        done: tracker.done,
        trouble,
        others,
    })
}

/// Takes marks until the engine ends, does not end though it is done, or time is up; answers what went wrong.
fn watch(
    child: &mut Child,
    tracker: &mut Tracker,
    lines: &Receiver<(Instant, String)>,
    mut log: Option<&mut File>,
    start: Instant,
    timeout: Duration,
    title: &str,
) -> Option<String> {
    let mut progress = Progress::new(title);
    let mut finished = None;
    loop {
        match lines.recv_timeout(Duration::from_millis(100)) {
            Ok((at, line)) => {
                if let Some(file) = log.as_deref_mut() {
                    let _ = writeln!(file, "{line}");
                }
                if let Some(mark) = Mark::parse(&line) {
                    let wall = at.duration_since(start).as_secs_f64();
                    let cpu = procfs::cpu_seconds(child.id());
                    tracker.mark(mark, Seconds { wall, cpu });
                }
                if tracker.done && finished.is_none() {
                    finished = Some(Instant::now());
                }
                continue;
            }
            Err(RecvTimeoutError::Timeout) => {}
            // The output was closed: the engine ends now.
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(Duration::from_millis(20)),
        }
        progress.show(tracker.activity(), start.elapsed());
        if tracker.done {
            // Not waited for yet, so that its CPU time can still be read.
            let late = finished.is_some_and(|at| at.elapsed() > GRACE);
            if late {
                return Some("did not power off".to_owned());
            }
            if ended(child.id()) {
                return None;
            }
        } else if ended(child.id()) {
            return Some(format!("ended in {}", tracker.activity()));
        } else if start.elapsed() > timeout {
            return Some(format!("time was up in {}", tracker.activity()));
        }
    }
}

/// Whether a child has ended and waits to be waited for.
fn ended(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.split_whitespace().next());
    matches!(state, None | Some("Z" | "X"))
}

fn log_file(dir: &Path, engine: Engine, bits: u32, round: usize) -> Result<File, Failure> {
    let path = dir.join(format!("{}-{bits}-{round}.log", engine.name()));
    let fail = |e: std::io::Error| Failure::new(format!("{}: {e}", path.display()));
    std::fs::create_dir_all(dir).map_err(fail)?;
    File::create(&path).map_err(fail)
}

/// Sends each line with the time at which it was whole.
fn read_lines(output: impl Read, send: &Sender<(Instant, String)>) {
    let mut reader = BufReader::new(output);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        if send.send((Instant::now(), text)).is_err() {
            return;
        }
        line.clear();
    }
}

/// The same of a file that grows.
fn follow(path: &Path, stop: &AtomicBool, send: &Sender<(Instant, String)>) {
    let Ok(mut file) = File::open(path) else {
        return;
    };
    let (mut rest, mut chunk) = (Vec::new(), [0; 4096]);
    while !stop.load(Ordering::Relaxed) {
        match file.read(&mut chunk) {
            Ok(0) => std::thread::sleep(Duration::from_millis(2)),
            Ok(n) => rest.extend_from_slice(&chunk[..n]),
            Err(_) => return,
        }
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if send.send((Instant::now(), text)).is_err() {
                return;
            }
        }
    }
}

/// One line on a terminal that says what is going on; nothing elsewhere.
struct Progress<'a> {
    title: &'a str,
    terminal: bool,
    second: u64,
}

impl<'a> Progress<'a> {
    fn new(title: &'a str) -> Self {
        Self {
            title,
            terminal: std::io::stderr().is_terminal(),
            second: u64::MAX,
        }
    }

    fn show(&mut self, activity: &str, elapsed: Duration) {
        if self.terminal && elapsed.as_secs() != self.second {
            self.second = elapsed.as_secs();
            eprint!("\r\x1b[K{}: {activity}, {} s", self.title, self.second);
            let _ = std::io::stderr().flush();
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if self.terminal {
            eprint!("\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(wall: f64, cpu: f64) -> Seconds {
        Seconds { wall, cpu }
    }

    #[test]
    fn marks_are_found_behind_what_else_is_on_the_line() {
        assert_eq!(Mark::parse("[    1.5] x @@BOOTED\r"), Some(Mark::Booted));
        assert_eq!(Mark::parse("@@START gzip"), Some(Mark::Start("gzip".into())));
        assert_eq!(
            Mark::parse("@@END gzip 77"),
            Some(Mark::End("gzip".into(), "77".into()))
        );
        assert_eq!(
            Mark::parse("@@END gzip"),
            Some(Mark::End("gzip".into(), String::new()))
        );
        assert_eq!(Mark::parse("@@DONE"), Some(Mark::Done));
        for line in ["", "BOOTED", "@@", "@@START", "@@OTHER x"] {
            assert_eq!(Mark::parse(line), None, "{line:?}");
        }
    }

    #[test]
    fn a_piece_takes_what_passed_between_its_marks() {
        let mut t = Tracker::new();
        assert_eq!(t.activity(), "boot");
        t.mark(Mark::Booted, at(5.0, 4.0));
        t.mark(Mark::Start("gzip".into()), at(6.0, 5.0));
        assert_eq!(t.activity(), "gzip");
        t.mark(Mark::End("gzip".into(), "1".into()), at(8.5, 7.0));
        t.mark(Mark::Done, at(9.0, 7.0));
        assert_eq!(t.boot, Some(at(5.0, 4.0)));
        assert_eq!(t.pieces["gzip"], (at(2.5, 2.0), "1".to_owned()));
        assert!(t.done);
    }

    #[test]
    fn an_end_without_its_start_counts_for_nothing() {
        let mut t = Tracker::new();
        t.mark(Mark::End("gzip".into(), "1".into()), at(1.0, 1.0));
        t.mark(Mark::Start("sort".into()), at(2.0, 2.0));
        t.mark(Mark::End("gzip".into(), "1".into()), at(3.0, 3.0));
        assert!(t.pieces.is_empty());
    }

    #[test]
    fn lines_are_sent_whole_and_the_last_one_too() {
        let (send, lines) = mpsc::channel();
        read_lines(&b"one\r\ntw\xFFo\nrest"[..], &send);
        drop(send);
        let texts: Vec<String> = lines.iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["one", "tw\u{FFFD}o", "rest"]);
    }

    #[test]
    fn a_growing_file_is_followed() {
        let path = std::env::temp_dir().join(format!("quintet-follow-{}", std::process::id()));
        let mut file = File::create(&path).expect("scratch file");
        let (send, lines) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (path, stop) = (path.clone(), Arc::clone(&stop));
            std::thread::spawn(move || follow(&path, &stop, &send))
        };
        let wait = Duration::from_secs(60);
        for text in ["@@BOOTED", "@@DONE"] {
            file.write_all(format!("{text}\nhalf").as_bytes()).expect("write");
            let (_, line) = lines.recv_timeout(wait).expect("a line");
            assert!(line.ends_with(text), "{line}");
        }
        stop.store(true, Ordering::Relaxed);
        thread.join().expect("the thread ends");
        let _ = std::fs::remove_file(path);
    }
}
