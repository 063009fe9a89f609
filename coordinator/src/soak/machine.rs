//! The machine under test: an ordinary `quintet run` as a child, what it prints, and what is kept of that.
//!
//! It is another process and is reached as any user reaches one, by the control socket, signals and pipes: what a soak finds
//! is what a user would meet, and the driver outlives whatever becomes of the machine.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use quintet_protocol::control::{Answer, Request, StatusReport};
use quintet_protocol::handshake::Role;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::config::{UsageError, reason};
use crate::control::{client, show};

/// What comes from the machine, or from a thread that asked it.
#[derive(Debug)]
pub enum Event {
    /// A line of our guest's serial line.
    Serial(String),
    /// A line of the machine's log.
    Log(String),
    /// A screenshot, or why there is none.
    Picture(Result<Vec<u8>, String>),
}

/// Longest line that is looked at, in bytes; a longer one comes in pieces.
const MOST_LINE: u64 = 4096;
/// A log is begun anew when it has this length in bytes, and the one before is kept.
const MOST_LOG: u64 = 8 << 20;

/// A machine that runs.
#[derive(Debug)]
pub struct Machine {
    child: Child,
    stdin: Option<ChildStdin>,
    name: String,
}

impl Machine {
    /// Starts `quintet` with `arguments`, which name the machine `name`. What it prints is kept in `folder`; lines are told if
    /// the guest is ours.
    ///
    /// # Errors
    /// [`UsageError`] when it cannot be started.
    pub fn start(
        arguments: &[OsString],
        name: &str,
        folder: &Path,
        ours: bool,
        events: &Sender<Event>,
    ) -> Result<Self, UsageError> {
        let cannot = |what: &str, e: &std::io::Error| UsageError(format!("Cannot {what}: {}", reason(e)));
        let program = std::env::current_exe().map_err(|e| cannot("find this program", &e))?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C is for the driver, which ends the machine in its own time.
            .process_group(0)
            .spawn()
            .map_err(|e| cannot("start a machine", &e))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().map(BufReader::new);
        let stderr = child.stderr.take().map(BufReader::new);
        let machine = Self {
            child,
            stdin,
            name: name.to_owned(),
        };
        if let (Some(stdout), Some(stderr)) = (stdout, stderr) {
            let log = |file: &str| Log::create(folder.join(file)).map_err(|e| cannot("keep a log", &e));
            // A machine that is told to end may be in the middle of a line, which then says nothing.
            let serial = move |line: &[u8]| (ours && is_whole(line)).then(|| Event::Serial(text(line)));
            read(stdout, log("serial.log")?, serial, events.clone())
                .map_err(|e| cannot("start a thread", &e))?;
            let said = |line: &[u8]| Some(Event::Log(text(line)));
            read(stderr, log("machine.log")?, said, events.clone())
                .map_err(|e| cannot("start a thread", &e))?;
        }
        Ok(machine)
    }

    /// Its exit status, once it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its end.
    pub fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            match self.ended() {
                None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
                status => return status,
            }
        }
    }

    /// Types into the guest's serial line. A machine that has ended takes nothing, which is noticed elsewhere.
    pub fn say(&mut self, text: &str) {
        if let Some(stdin) = &mut self.stdin {
            let _ = stdin.write_all(text.as_bytes()).and_then(|()| stdin.flush());
        }
    }

    /// How it is.
    ///
    /// # Errors
    /// A sentence when it does not answer.
    pub fn report(&self) -> Result<StatusReport, String> {
        match client::ask(&self.name, &Request::Status) {
            Ok(Answer::Status(report)) => Ok(*report),
            Ok(Answer::Error(e)) => Err(show::error(&e)),
            Ok(_) => Err("it answers strangely".to_owned()),
            Err(e) => Err(e.to_string()),
        }
    }

    /// Has it do something.
    ///
    /// # Errors
    /// A sentence when it does not.
    pub fn tell(&self, request: &Request) -> Result<(), String> {
        match client::ask(&self.name, request) {
            Ok(Answer::Error(e)) => Err(show::error(&e)),
            Ok(_) => Ok(()),
            Err(e) => Err(e.to_string()),
        }
    }

    /// Asks for a screenshot, which comes as an event: the machine may take seconds for it.
    pub fn photograph(&self, events: &Sender<Event>) {
        let (name, events) = (self.name.clone(), events.clone());
        let ask = move || {
            let _ = events.send(Event::Picture(screenshot(&name)));
        };
        // Without a thread there is no picture, and the next look asks again.
        let _ = std::thread::Builder::new().name("screenshot".into()).spawn(ask);
    }

    /// The process of a worker, to send signals to, with its generation; `None` while it has none.
    pub fn worker(&self, role: Role) -> Option<(OwnedFd, u32)> {
        let find = || {
            let report = self.report().ok()?;
            let worker = report.workers.iter().find(|w| w.role == role)?;
            Some((worker.pid?, worker.generation))
        };
        let before = find()?;
        let fd = pidfd_open(Pid::from_raw(before.0)?, PidfdFlags::empty()).ok()?;
        // The number could have passed to somebody else between the answer and the look.
        (find()? == before).then_some((fd, before.1))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Its workers end with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal; answers whether there was somebody to take it.
pub fn signal(process: &OwnedFd, signal: Signal) -> bool {
    pidfd_send_signal(process, signal).is_ok()
}

/// A screenshot as a PNG file.
fn screenshot(name: &str) -> Result<Vec<u8>, String> {
    match client::ask_for_file(name, &Request::Screenshot) {
        Ok((Answer::Screenshot(_), Some(file))) => {
            let mut file = File::from(file);
            let mut bytes = Vec::new();
            // The sender's descriptor shares its offset with this one.
            std::io::Seek::rewind(&mut file)
                .and_then(|()| file.read_to_end(&mut bytes))
                .map_err(|e| reason(&e))?;
            Ok(bytes)
        }
        Ok((Answer::Error(e), _)) => Err(show::error(&e)),
        Ok(_) => Err("it answers strangely".to_owned()),
        Err(e) => Err(e.to_string()),
    }
}

/// The pixels of a PNG file, three bytes each.
///
/// # Errors
/// A sentence for what is no such file.
pub fn pixels(file: &[u8]) -> Result<((u32, u32), Vec<u8>), String> {
    let mut decoder = png::Decoder::new(std::io::Cursor::new(file));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().map_err(|e| e.to_string())?;
    let size = reader.output_buffer_size().ok_or("it is too large")?;
    let mut pixels = vec![0; size];
    let info = reader.next_frame(&mut pixels).map_err(|e| e.to_string())?;
    pixels.truncate(info.buffer_size());
    match info.color_type {
        png::ColorType::Rgb => Ok(((info.width, info.height), pixels)),
        other => Err(format!("its pixels are {other:?}")),
    }
}

/// Whether a line, or one of the pieces of a line that is too long, was not cut off by the end of what prints it.
fn is_whole(line: &[u8]) -> bool {
    line.ends_with(b"\n") || line.len() as u64 == MOST_LINE
}

/// A line without its end.
fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line)
        .trim_end_matches(['\r', '\n'])
        .to_owned()
}

/// Reads what a machine prints, on a thread of its own, until its end; `event` says what a line is told as, if at all.
fn read(
    mut from: BufReader<impl Read + Send + 'static>,
    mut log: Log,
    event: impl Fn(&[u8]) -> Option<Event> + Send + 'static,
    events: Sender<Event>,
) -> std::io::Result<()> {
    std::thread::Builder::new()
        .name("reader".into())
        .spawn(move || {
            let mut line = Vec::new();
            loop {
                line.clear();
                match from.by_ref().take(MOST_LINE).read_until(b'\n', &mut line) {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => return,
                }
                log.write(&line);
                if let Some(event) = event(&line) {
                    // The driver has gone when nobody takes it; the machine may go on printing.
                    let _ = events.send(event);
                }
            }
        })
        .map(drop)
}

/// A log of bounded length: of the newest bytes at least so many are kept.
#[derive(Debug)]
struct Log {
    path: PathBuf,
    file: File,
    len: u64,
}

impl Log {
    fn create(path: PathBuf) -> std::io::Result<Self> {
        Ok(Self {
            file: File::create(&path)?,
            path,
            len: 0,
        })
    }

    /// Writes, as far as the host lets it: a full disk must not end the run.
    fn write(&mut self, bytes: &[u8]) {
        if self.len >= MOST_LOG {
            let mut before = self.path.clone().into_os_string();
            before.push(".1");
            let _ = std::fs::rename(&self.path, before);
            if let Ok(file) = File::create(&self.path) {
                (self.file, self.len) = (file, 0);
            }
        }
        self.len += bytes.len() as u64;
        let _ = self.file.write_all(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_keeps_the_newest_bytes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let mut log = Log::create(path.clone()).expect("a log");
        let block = vec![b'x'; 1 << 20];
        for _ in 0..20 {
            log.write(&block);
        }
        log.write(b"the end");
        let newest = std::fs::read(&path).expect("the log");
        assert!(newest.ends_with(b"the end") && newest.len() as u64 <= MOST_LOG + 7);
        let before = std::fs::metadata(folder.path().join("log.1")).expect("the one before");
        assert!(before.len() >= MOST_LOG);
    }

    #[test]
    fn what_is_printed_comes_line_by_line_and_is_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let (send, events) = std::sync::mpsc::channel();
        let printed: &[u8] = b"one\r\n\xFFtwo\nthree";
        let log = Log::create(path.clone()).expect("a log");
        let told = |line: &[u8]| Some(Event::Serial(text(line)));
        read(BufReader::new(printed), log, told, send).expect("a thread");
        let lines: Vec<_> = events
            .iter()
            .map(|e| match e {
                Event::Serial(line) => line,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(lines, ["one", "\u{FFFD}two", "three"]);
        assert_eq!(std::fs::read(&path).expect("kept"), printed);
    }

    #[test]
    fn a_line_that_the_end_cuts_off_is_not_whole() {
        assert!(is_whole(b"round 41\r\n") && is_whole(&[b'x'; MOST_LINE as usize]));
        assert!(!is_whole(b"round 41 irqs 205") && !is_whole(b"round 41\r"));
    }

    #[test]
    fn a_picture_that_is_none_is_told() {
        assert!(pixels(b"no picture").is_err());
    }
}
