//! `--trace FILE`: one timeline of all five processes, in the JSON that Perfetto and Chrome open.
//!
//! The workers' events come through rings ([`quintet_protocol::trace`]); what happens in the coordinator, and every log
//! line, its own and the workers', comes through a [`Journal`]. One thread puts both into the file (`collect`), and nobody
//! waits for it. `tracing-chrome` was looked at and not taken: it makes events of spans of its own process, with its own
//! pid and clock, and has no way in for those of others.

mod collect;
mod file;

use std::fmt::Debug;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;

use quintet_protocol::control::{MAX_MESSAGE, Request, one_line};
use quintet_protocol::handshake::Role;
use quintet_protocol::layout::Ends;
use quintet_protocol::lifecycle::Death;
use quintet_protocol::sync::{AtomicUsize, Ordering};
use quintet_protocol::time::HostTime;
use quintet_protocol::trace::turn_on;

use crate::config::{UsageError, reason};
use collect::Collector;

/// Most entries that wait for the file; what comes then is counted instead.
const MOST_QUEUED: usize = 1 << 16;

/// Where in the coordinator's part of the timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Track {
    /// The main loop.
    Main,
    /// The machine's states.
    Machine,
    /// The states of a worker.
    Life(Role),
    /// What came through the control socket.
    Requests,
    /// Requests whose answers take time.
    Waits,
    /// Log lines of all processes.
    Log,
}

/// What goes to the thread that writes.
#[derive(Debug)]
enum Entry {
    /// A process of a worker is about to be started: its events wait until its pid is known.
    Expect(Role),
    /// It has this pid, or could not be started.
    Born(Role, u32, Option<u32>),
    Note {
        track: Track,
        name: String,
        text: String,
    },
    Span {
        track: Track,
        name: &'static str,
        since: HostTime,
    },
    State {
        track: Track,
        state: String,
    },
    Log {
        from: Option<(Role, u32)>,
        line: String,
    },
    End,
}

/// Takes note of what happens in the coordinator; empty while nothing is traced. Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub struct Journal(Option<Arc<Desk>>);

#[derive(Debug)]
struct Desk {
    to: Sender<(HostTime, Entry)>,
    queued: AtomicUsize,
    lost: AtomicUsize,
}

impl Journal {
    fn put(&self, make: impl FnOnce() -> Entry) {
        let Some(desk) = &self.0 else { return };
        if desk.queued.load(Ordering::Relaxed) >= MOST_QUEUED {
            desk.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.put_always(make());
    }

    fn put_always(&self, entry: Entry) {
        if let Some(desk) = &self.0 {
            desk.queued.fetch_add(1, Ordering::Relaxed);
            let _ = desk.to.send((HostTime::now(), entry));
        }
    }

    /// A process of a worker is about to be started.
    pub fn expect(&self, role: Role) {
        self.put_always(Entry::Expect(role));
    }

    /// It was started, with this pid, or was not.
    pub fn born(&self, role: Role, generation: u32, pid: Option<u32>) {
        self.put_always(Entry::Born(role, generation, pid));
    }

    /// Something happened.
    pub fn note(&self, track: Track, name: &str, text: &str) {
        self.put(|| Entry::Note {
            track,
            name: name.to_owned(),
            text: text.to_owned(),
        });
    }

    /// Something that began at `since` is over.
    pub fn span(&self, track: Track, name: &'static str, since: HostTime) {
        self.put(|| Entry::Span { track, name, since });
    }

    /// The state of `track` is now this one; saying so again changes nothing.
    pub fn state(&self, track: Track, state: impl Debug) {
        self.put(|| Entry::State {
            track,
            state: format!("{state:?}").to_lowercase(),
        });
    }

    /// A worker has died.
    pub fn died(&self, role: Role, death: &Death) {
        self.put(|| {
            let (name, text) = match death {
                Death::Stopped => ("ended", String::new()),
                Death::Crashed(why) => ("died", why.clone()),
                Death::Config(why) => ("gave up", why.clone()),
            };
            Entry::Note {
                track: Track::Life(role),
                name: name.to_owned(),
                text,
            }
        });
    }

    /// Somebody asks something through the control socket. What is typed is not written down.
    pub fn request(&self, request: &Request) {
        self.put(|| {
            let name = format!("{request:?}").to_lowercase();
            let end = name
                .find(|c: char| !c.is_ascii_alphanumeric())
                .unwrap_or(name.len());
            Entry::Note {
                track: Track::Requests,
                name: name[..end].to_owned(),
                text: String::new(),
            }
        });
    }
}

/// Where log lines go besides the standard error.
static LOG: RwLock<Journal> = RwLock::new(Journal(None));

/// Puts a log line, of a worker's process or our own, on the timeline, if there is one.
pub fn log_line(from: Option<(Role, u32)>, line: &str) {
    let journal = LOG.read().unwrap_or_else(PoisonError::into_inner);
    journal.put(|| Entry::Log {
        from,
        line: one_line(line, MAX_MESSAGE),
    });
}

/// The standard error for the coordinator's own log, line by line.
#[derive(Debug, Default)]
pub struct LogWriter(());

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let mut stderr = std::io::stderr();
        stderr.write_all(line)?;
        log_line(None, &String::from_utf8_lossy(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

/// Makes the file that the user named for a timeline.
///
/// # Errors
/// [`UsageError`] when that cannot be done.
pub fn create(path: &Path) -> Result<File, UsageError> {
    File::create(path).map_err(|e| {
        UsageError(format!(
            "Cannot write --trace {}: {}; name a file that can be written",
            path.display(),
            reason(&e)
        ))
    })
}

/// A timeline being written.
#[derive(Debug)]
pub struct Traced {
    journal: Journal,
    thread: JoinHandle<()>,
}

impl Traced {
    /// Has the workers trace that are started from now on, and starts to write what they and we have to tell to `file`.
    ///
    /// # Errors
    /// The host's, when it has no thread left; a ring that cannot be read.
    pub fn start(file: File, ends: &Ends) -> std::io::Result<Self> {
        let (to, from) = channel();
        let desk = Arc::new(Desk {
            to,
            queued: AtomicUsize::new(0),
            lost: AtomicUsize::new(0),
        });
        let mut collector = Collector::new(file, ends).map_err(std::io::Error::other)?;
        let at_desk = Arc::clone(&desk);
        let thread = std::thread::Builder::new().name("trace".into()).spawn(move || {
            collector.run(&from, &at_desk.queued);
            collector.finish(at_desk.lost.load(Ordering::Relaxed) as u64);
        })?;
        for role in Role::WORKERS {
            turn_on(ends, role);
        }
        let journal = Journal(Some(desk));
        *LOG.write().unwrap_or_else(PoisonError::into_inner) = journal.clone();
        Ok(Self { journal, thread })
    }

    /// For those who have something to tell.
    pub fn journal(&self) -> Journal {
        self.journal.clone()
    }

    /// Writes what there is and ends the file.
    pub fn finish(self) {
        *LOG.write().unwrap_or_else(PoisonError::into_inner) = Journal::default();
        self.journal.put_always(Entry::End);
        let _ = self.thread.join();
    }
}
