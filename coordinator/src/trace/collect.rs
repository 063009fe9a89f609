//! The thread that reads the rings and the journal, and writes the file.
//!
//! It looks every 10 ms while there is something, every 50 ms otherwise, and at once when the journal has news. An event of a
//! process that it has not been told of is refused; the ring of one whose pid is not known yet is left alone until it is.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufWriter;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use quintet_protocol::clock::VmClock;
use quintet_protocol::handshake::Role;
use quintet_protocol::layout::Ends;
use quintet_protocol::ring::{Consumer, PopError};
use quintet_protocol::sync::{AtomicUsize, Ordering};
use quintet_protocol::time::{HostTime, VmTime};
use quintet_protocol::trace::{EVENT_SIZE, Event, Shape, Show, What};

use super::file::{Detail, Place, TraceFile};
use super::{Entry, Track};

/// Time between two looks while there is something to be seen.
const BUSY: Duration = Duration::from_millis(10);
/// Time between two looks while there is nothing.
const QUIET: Duration = Duration::from_millis(50);
/// Most events of one ring in one look, so that none of them starves the others.
const MOST: usize = 1 << 15;
/// Nanoseconds between two figures of the speed.
const SPEED_EVERY: u64 = 100_000_000;
/// Numbers of tracks that no thread of the host has: the largest are 2^22.
const NO_THREAD: u32 = 1 << 24;

/// A worker's ring, and what is known of its processes.
#[derive(Debug)]
struct Source {
    role: Role,
    ring: Consumer,
    /// Pids by generation.
    pids: HashMap<u32, u32>,
    /// Started, and its pid is not known yet.
    expected: bool,
    dropped: u64,
    refused: u64,
    left_out: u64,
}

#[derive(Debug)]
pub(super) struct Collector {
    file: TraceFile<BufWriter<File>>,
    since: HostTime,
    pid: u32,
    clock: VmClock,
    sources: Vec<Source>,
    /// The states that last, and since when.
    states: HashMap<Track, (String, HostTime)>,
    /// When the speed was last told, VM time then, and what was told, in percent.
    speed: (HostTime, VmTime, Option<u64>),
}

impl Collector {
    pub(super) fn new(file: File, ends: &Ends) -> Result<Self, PopError> {
        let since = HostTime::now();
        let sources = Role::WORKERS.into_iter().map(|role| {
            Ok(Source {
                role,
                ring: ends.trace_consumer(role)?,
                pids: HashMap::new(),
                expected: false,
                dropped: 0,
                refused: 0,
                left_out: 0,
            })
        });
        let clock = ends.clock();
        let mut this = Self {
            file: TraceFile::new(BufWriter::with_capacity(1 << 16, file), since),
            since,
            pid: std::process::id(),
            sources: sources.collect::<Result<_, PopError>>()?,
            states: HashMap::new(),
            speed: (since, clock.now(), None),
            clock,
        };
        this.introduce();
        Ok(this)
    }

    /// Names our own tracks.
    fn introduce(&mut self) {
        let mut tracks = vec![
            (Track::Main, "coordinator".to_owned()),
            (Track::Machine, "machine".to_owned()),
            (Track::Log, "log".to_owned()),
            (Track::Requests, "requests".to_owned()),
        ];
        tracks.extend(Role::WORKERS.map(|role| (Track::Life(role), format!("life of {role}"))));
        let main = self.place(Track::Main);
        self.file.call(main, "process_name", "coordinator");
        self.file.order(main, "process_sort_index", 0);
        for (n, (track, name)) in (0..).zip(tracks) {
            let place = self.place(track);
            self.file.call(place, "thread_name", &name);
            self.file.order(place, "thread_sort_index", n);
        }
    }

    fn place(&self, track: Track) -> Place {
        let tid = match track {
            Track::Main => self.pid,
            Track::Machine => NO_THREAD,
            Track::Log => NO_THREAD + 1,
            Track::Requests | Track::Waits => NO_THREAD + 2,
            Track::Life(role) => NO_THREAD + 16 + role.index() as u32,
        };
        Place { pid: self.pid, tid }
    }

    /// Where the events of a worker's process go: a thread of ours has a track of ours.
    fn place_of(own: u32, role: Role, pid: u32) -> Place {
        let tid = if pid == own {
            NO_THREAD + 32 + role.index() as u32
        } else {
            pid
        };
        Place { pid, tid }
    }

    /// Writes until told to end.
    pub(super) fn run(&mut self, from: &Receiver<(HostTime, Entry)>, queued: &AtomicUsize) {
        let mut wait = QUIET;
        loop {
            let first = match from.recv_timeout(wait) {
                Ok(entry) => Some(entry),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            for (at, entry) in first.into_iter().chain(from.try_iter()) {
                queued.fetch_sub(1, Ordering::Relaxed);
                if matches!(entry, Entry::End) {
                    self.look();
                    return;
                }
                self.take(at, entry);
            }
            wait = if self.look() { BUSY } else { QUIET };
            self.file.flush();
            if let Some(error) = self.file.take_error() {
                tracing::warn!("the trace ends here, its file cannot be written: {error}");
            }
        }
    }

    fn take(&mut self, at: HostTime, entry: Entry) {
        match entry {
            Entry::Expect(role) => self.source(role).expected = true,
            Entry::Born(role, generation, pid) => self.born(role, generation, pid),
            Entry::Note { track, name, text } => {
                let detail = if text.is_empty() {
                    Detail::Nothing
                } else {
                    Detail::Text("text", &text)
                };
                self.file.instant(self.place(track), &name, at, detail);
            }
            Entry::Span { track, name, since } => {
                let lasted = at.since(since);
                self.file
                    .beside(self.place(track), name, since, lasted, Detail::Nothing);
            }
            Entry::State { track, state } => self.state(track, at, Some(state)),
            Entry::Log { from, line } => {
                let who = match from {
                    Some((role, generation)) => format!("{role}.{generation}"),
                    None => "coordinator".to_owned(),
                };
                self.file
                    .instant(self.place(Track::Log), &line, at, Detail::Text("from", &who));
            }
            Entry::End => {}
        }
    }

    /// A state begins, and ends the one before.
    fn state(&mut self, track: Track, at: HostTime, state: Option<String>) {
        let before = self.states.remove(&track);
        if let (Some((name, since)), Some(state)) = (&before, &state)
            && name == state
        {
            self.states.insert(track, (name.clone(), *since));
            return;
        }
        if let Some((name, since)) = before {
            let lasted = at.since(since);
            self.file
                .span(self.place(track), &name, since, lasted, Detail::Nothing);
        }
        if let Some(state) = state {
            self.states.insert(track, (state, at));
        }
    }

    fn source(&mut self, role: Role) -> &mut Source {
        &mut self.sources[role.index() - 1]
    }

    fn born(&mut self, role: Role, generation: u32, pid: Option<u32>) {
        let own = self.pid;
        let source = self.source(role);
        source.expected = false;
        let Some(pid) = pid else { return };
        source.pids.insert(generation, pid);
        let place = Self::place_of(own, role, pid);
        let name = match generation {
            1 => format!("{role}"),
            n => format!("{role} #{n}"),
        };
        if pid != own {
            self.file.call(place, "process_name", &name);
            self.file.order(place, "process_sort_index", role.index() as u64);
        }
        self.file.call(place, "thread_name", &name);
    }

    /// Takes what the rings have; whether there was anything.
    fn look(&mut self) -> bool {
        let mut found = false;
        for source in &mut self.sources {
            if !source.expected {
                found |= source.drain(&mut self.file, self.since, self.pid);
            }
        }
        self.tell_speed();
        found
    }

    /// How fast VM time goes, in percent of the host's, when that has changed.
    fn tell_speed(&mut self) {
        let (now, vm) = (HostTime::now(), self.clock.now());
        let (at, before, told) = self.speed;
        let passed = now.since(at);
        if passed < SPEED_EVERY {
            return;
        }
        let percent = (u128::from(vm.since(before)) * 100).div_ceil(u128::from(passed)) as u64;
        if told != Some(percent) {
            let place = self.place(Track::Main);
            self.file
                .counter(place, "VM time, percent of the host's", now, percent);
        }
        self.speed = (now, vm, Some(percent));
    }

    /// Ends every state and the file. `lost` entries of the journal found no room.
    pub(super) fn finish(&mut self, lost: u64) {
        let now = HostTime::now();
        let tracks: Vec<Track> = self.states.keys().copied().collect();
        for track in tracks {
            self.state(track, now, None);
        }
        let mut counts = format!("journal: {lost} lost");
        for s in &self.sources {
            counts += &format!(
                "; {}: {} dropped, {} refused, {} left out",
                s.role, s.dropped, s.refused, s.left_out
            );
        }
        let main = self.place(Track::Main);
        self.file
            .instant(main, "end of the trace", now, Detail::Text("events", &counts));
        self.file.finish(main);
        if let Some(error) = self.file.take_error() {
            tracing::warn!("the trace is not whole, its file cannot be written: {error}");
        }
        let total = |of: fn(&Source) -> u64| self.sources.iter().map(of).sum::<u64>();
        let (dropped, refused) = (total(|s| s.dropped), total(|s| s.refused));
        let left_out = total(|s| s.left_out);
        if lost + dropped + refused + left_out > 0 {
            tracing::warn!(
                "the trace lacks events: {} found no room, {refused} were refused, {left_out} passed the file's limit",
                lost.saturating_add(dropped)
            );
        }
    }
}

impl Source {
    fn drain<W: std::io::Write>(&mut self, file: &mut TraceFile<W>, since: HostTime, own: u32) -> bool {
        let mut record = [0; EVENT_SIZE];
        let mut count = 0;
        while count < MOST {
            match self.ring.next(&mut record) {
                Ok(None) => break,
                Ok(Some(found)) => {
                    let now = HostTime::now();
                    match Event::check(&record[..found.len], self.role, since, now) {
                        Ok(event) => self.write(file, &event, own),
                        Err(_) => self.refused += 1,
                    }
                }
                Err(error) if error.is_corrupt() => {
                    self.refused += 1;
                    let end = self.ring.skip_to_tail();
                    self.ring.release_skipped(end);
                    return true;
                }
                Err(_) => self.refused += 1,
            }
            count += 1;
        }
        self.ring.release_all();
        count > 0
    }

    fn write<W: std::io::Write>(&mut self, file: &mut TraceFile<W>, event: &Event, own: u32) {
        let Some(&pid) = self.pids.get(&event.generation) else {
            self.refused += 1;
            return;
        };
        if file.is_full() {
            self.left_out += 1;
            return;
        }
        let place = Collector::place_of(own, self.role, pid);
        let kind = match event.what {
            What::Dropped => {
                self.dropped = self.dropped.saturating_add(event.value);
                file.instant(
                    place,
                    "events dropped",
                    event.at,
                    Detail::Number("count", event.value),
                );
                return;
            }
            What::Kind(kind) => kind,
        };
        let detail = match kind.show() {
            Show::Nothing => Detail::Nothing,
            Show::Number(name) => Detail::Number(name, event.value),
            Show::Hex(name) => Detail::Hex(name, event.value),
        };
        match kind.shape() {
            Shape::Span => file.span(place, kind.name(), event.at, event.lasted, detail),
            Shape::Instant => file.instant(place, kind.name(), event.at, detail),
            Shape::Beside => {
                let name = format!("disk {} {}", event.track, kind.name());
                file.beside(place, &name, event.at, event.lasted, detail);
            }
        }
    }
}

#[cfg(test)]
mod tests;
