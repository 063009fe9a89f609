//! Byte streams between the guest's serial lines and the host.
//!
//! The io-worker's streams carry positions (see `protocol::stream`), so the coordinator only copies: outwards it
//! releases what it has written, inwards it publishes what it has read. Both sides stay right when the
//! io-worker is replaced, since the coordinator is not.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::Duration;

use quintet_protocol::doorbell::Doorbell;
use quintet_protocol::stream::{StreamReader, StreamWriter};
use quintet_protocol::sync::{AtomicBool, Ordering};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::config::{StreamTarget, UsageError, reason};
use crate::machine::{Event, Waker};
use crate::terminal::{Escape, Typed};

/// Where bytes of a stream go.
#[derive(Debug)]
pub enum Sink {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file.
    File(File),
    /// Nowhere.
    None,
}

impl Sink {
    /// Opens a target.
    ///
    /// # Errors
    /// [`UsageError`] when the file cannot be made.
    pub fn open(target: &StreamTarget) -> Result<Self, UsageError> {
        Ok(match target {
            StreamTarget::Stdio => Self::Stdout,
            StreamTarget::None => Self::None,
            StreamTarget::File(path) => {
                Self::File(File::create(path).map_err(|e| {
                    UsageError(format!("Cannot write \"{}\": {}", path.display(), reason(&e)))
                })?)
            }
        })
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Stdout => {
                let mut out = std::io::stdout().lock();
                out.write_all(bytes)?;
                out.flush()
            }
            Self::Stderr => std::io::stderr().lock().write_all(bytes),
            Self::File(file) => file.write_all(bytes),
            Self::None => Ok(()),
        }
    }
}

/// One outgoing stream.
#[derive(Debug)]
pub struct Outlet {
    /// Its reading end.
    pub reader: StreamReader,
    /// Where its bytes go.
    pub sink: Sink,
}

/// The thread that copies outgoing streams.
#[derive(Debug)]
pub struct Pump {
    thread: Option<JoinHandle<()>>,
    ending: std::sync::Arc<AtomicBool>,
}

impl Pump {
    /// Starts copying. The io-worker is rung when room was made.
    ///
    /// # Errors
    /// The host's, when it has no thread left.
    pub fn start(mut outlets: Vec<Outlet>, io: Doorbell) -> std::io::Result<Self> {
        let ending = std::sync::Arc::new(AtomicBool::new(false));
        let flag = std::sync::Arc::clone(&ending);
        let thread = std::thread::Builder::new()
            .name("streams".into())
            .spawn(move || {
                loop {
                    // Looked at before the streams: what lies in them when the end is announced is still copied.
                    let last = flag.load(Ordering::Acquire);
                    let mut moved = false;
                    for outlet in &mut outlets {
                        moved |= copy(outlet);
                    }
                    if moved {
                        io.ring();
                    } else if last {
                        return;
                    } else {
                        std::thread::park_timeout(Duration::from_secs(1));
                    }
                }
            })?;
        Ok(Self {
            thread: Some(thread),
            ending,
        })
    }

    /// Tells the thread to look.
    pub fn nudge(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }

    /// Copies what is left, but does not wait longer than `limit` for a sink that takes nothing.
    pub fn finish(mut self, limit: Duration) {
        self.ending.store(true, Ordering::Release);
        let Some(thread) = self.thread.take() else { return };
        thread.thread().unpark();
        let start = std::time::Instant::now();
        while !thread.is_finished() && start.elapsed() < limit {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Copies what one stream holds; answers whether there was something.
fn copy(outlet: &mut Outlet) -> bool {
    let mut bytes = [0; 8192];
    let n = match outlet.reader.read(&mut bytes) {
        Ok(0) => return false,
        Ok(n) => n,
        Err(e) => {
            // The io-worker's word is impossible; its successor starts from the committed position.
            tracing::warn!("{e}");
            return false;
        }
    };
    if let Err(e) = outlet.sink.write(&bytes[..n]) {
        tracing::warn!("a serial line or debug console lost its output: {e}");
        outlet.sink = Sink::None;
    }
    outlet.reader.release(outlet.reader.position());
    true
}

/// The thread that copies standard input into an incoming stream.
#[derive(Debug)]
pub struct Intake {
    /// Closing it ends the thread.
    _stop: OwnedFd,
}

impl Intake {
    /// Starts copying standard input; end of file is the stream's end, which a module is told and a serial line does not
    /// know. With `escapes`, Ctrl-A sequences are taken out and reported.
    ///
    /// # Errors
    /// The host's.
    pub fn start(
        mut writer: StreamWriter,
        io: Doorbell,
        escapes: bool,
        events: Sender<Event>,
        waker: Waker,
    ) -> std::io::Result<Self> {
        let (stopped, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        std::thread::Builder::new().name("stdin".into()).spawn(move || {
            let mut escape = escapes.then(Escape::default);
            let mut bytes = [0; 1024];
            while let Some(n) = read_input(&stopped, &mut bytes) {
                let mut typed = Vec::with_capacity(n);
                for &byte in &bytes[..n] {
                    match escape.as_mut().map_or(Typed::Byte(byte), |e| e.take(byte)) {
                        Typed::Byte(b) => typed.push(b),
                        Typed::Nothing => {}
                        key => {
                            let _ = events.send(Event::Escape(key));
                            waker.wake();
                        }
                    }
                }
                if !put(&mut writer, &io, &stopped, &typed) {
                    return;
                }
            }
            writer.end();
            io.ring();
        })?;
        Ok(Self { _stop: stop })
    }
}

/// Reads standard input; `None` at its end or when told to stop.
fn read_input(stopped: &OwnedFd, into: &mut [u8]) -> Option<usize> {
    loop {
        let stdin = std::io::stdin();
        let mut fds = [
            PollFd::new(&stdin, PollFlags::IN),
            PollFd::new(stopped, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) if !fds[1].revents().is_empty() => return None,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
        if fds[0].revents().contains(PollFlags::NVAL) {
            return None;
        }
        if fds[0].revents().is_empty() {
            continue;
        }
        match rustix::io::read(stdin.as_fd(), &mut *into) {
            Ok(0) => return None,
            Ok(n) => return Some(n),
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(_) => return None,
        }
    }
}

/// Puts all of `bytes` into the stream, waiting for room; answers false when told to stop.
fn put(writer: &mut StreamWriter, io: &Doorbell, stopped: &OwnedFd, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match writer.write(bytes) {
            Ok(0) => {}
            Ok(n) => {
                writer.publish(writer.position());
                bytes = &bytes[n..];
                io.ring();
                continue;
            }
            // The io-worker's word is impossible; wait for its successor's.
            Err(e) => tracing::warn!("{e}"),
        }
        // Full: the guest reads slower than somebody types or pipes. Ten looks a millisecond are not needed.
        let wait = Timespec {
            tv_sec: 0,
            tv_nsec: 5_000_000,
        };
        let mut fds = [PollFd::new(stopped, PollFlags::IN)];
        if !matches!(poll(&mut fds, Some(&wait)), Ok(0) | Err(rustix::io::Errno::INTR)) {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use quintet_protocol::doorbell::SpinPolicy;
    use quintet_protocol::handshake::Role;
    use quintet_protocol::layout::{Ends, SegmentSet, SleeperId};
    use quintet_protocol::ram::RamLayout;

    use super::*;

    /// A writer that waits for room looks for commands, not for room, before it sleeps.
    #[test]
    fn room_rings_for_a_writer_that_is_about_to_sleep() {
        let files = SegmentSet::create(RamLayout::new(0x1_0000), 1).expect("files");
        let ours = Ends::new(&files.maps(Role::Coordinator).expect("maps"));
        let io = Ends::new(&files.maps(Role::Io).expect("maps"));
        let sleeper = io.sleeper(SleeperId::Io, SpinPolicy::NEVER);
        let mut writer = io.stream_out_writer(0, 0).expect("a stream");
        assert_eq!(writer.write(b"guest").expect("room"), 5);
        writer.publish(writer.position());
        let outlet = Outlet {
            reader: ours.stream_out_reader(0).expect("a stream"),
            sink: Sink::None,
        };
        let pump = Pump::start(vec![outlet], ours.doorbell(SleeperId::Io)).expect("a thread");
        let start = Instant::now();
        while !sleeper.take() {
            assert!(start.elapsed() < Duration::from_secs(20), "nobody rang");
            std::thread::sleep(Duration::from_millis(1));
        }
        pump.finish(Duration::from_secs(20));
    }
}
