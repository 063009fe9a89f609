//! What comes through the control socket.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use quintet_protocol::control::{Answer, ErrorCode, MachineError, Request, encode_answer};
use quintet_protocol::handshake::{FileId, Role};
use quintet_protocol::input::{InputEvent, KeyStroke, parse_chord, parse_pointer, strokes_of};
use quintet_protocol::layout::SleeperId;
use quintet_protocol::lifecycle::{Input, Now, Outcome};
use quintet_protocol::payload::{sealed_memfd, send_fd};
use quintet_protocol::status::{MachineState, PeerState, StatusWord};
use quintet_protocol::time::HostTime;

use super::Machine;
use crate::control::attach::may_be_watched;
use crate::trace::Track;

/// A request that is answered later.
#[derive(Debug)]
pub(super) struct Waiting {
    socket: OwnedFd,
    until: Until,
    pub(super) deadline: Now,
    since: HostTime,
}

#[derive(Debug)]
pub(super) enum Until {
    /// The vCPUs have obeyed this run epoch.
    Epoch(u32),
    /// The reset with this number is done.
    Reset(u32),
    /// The gpu-worker has answered this request.
    Shot(u32),
    /// A successor of this process runs.
    Successor(Role, u32),
    /// This worker has told the kernel that this process may trace it.
    Traced(Role, u32),
    /// The job with this number has ended; its own limits bound it.
    Job(u32),
}

impl Waiting {
    /// What it waits for.
    pub(super) fn until(&self) -> &Until {
        &self.until
    }

    /// What that is called on a timeline.
    fn name(&self) -> &'static str {
        match self.until {
            Until::Epoch(_) => "pause",
            Until::Reset(_) => "reset",
            Until::Shot(_) => "screenshot",
            Until::Job(_) => "job",
            Until::Traced(..) => "debugger",
            Until::Successor(..) => "medium",
        }
    }

    /// Whether it waits for the job `number`.
    pub(super) fn is_for(&self, number: u32) -> bool {
        matches!(self.until, Until::Job(n) if n == number)
    }

    /// Answers.
    pub(super) fn tell(&self, answer: &Answer) {
        reply(&self.socket, answer);
    }
}

/// How long a user waits for an answer at most (S3.104).
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a debugger waits until a worker has named it: one that is to be debugged may well hang.
const TRACER_PATIENCE: Duration = Duration::from_secs(2);
/// How many requests may wait at a time (S3.108).
const MOST_WAITING: usize = 64;

impl Machine {
    pub(super) fn request(&mut self, request: Request, file: Option<OwnedFd>, socket: OwnedFd) {
        self.journal.request(&request);
        let answer = match request {
            Request::Status => Answer::Status(Box::new(self.report())),
            Request::Pause => {
                self.step(Input::Pause);
                return self.wait(socket, Until::Epoch(self.status.load(StatusWord::RunEpoch)));
            }
            Request::Resume => {
                self.step(Input::Resume);
                Answer::Done
            }
            Request::Reset => {
                self.step(Input::Reset);
                return self.wait(socket, Until::Reset(self.life.reset_generation()));
            }
            Request::Quit => {
                self.step(Input::Stop(Outcome::Asked(0)));
                Answer::Done
            }
            Request::Screenshot => {
                // One is open at a time, and whoever asks meanwhile gets the same picture.
                let open = self.waiting.iter().find_map(|w| match w.until {
                    Until::Shot(request) => Some(request),
                    _ => None,
                });
                let request = open.unwrap_or_else(|| self.ends.ask_for_shot());
                return self.wait(socket, Until::Shot(request));
            }
            Request::Submit(submission) => return self.submit(*submission, file, socket),
            Request::Watch(file) => return self.let_watch(file, &socket),
            Request::Debug(role) => match self.name_tracer(role, &socket) {
                Ok(until) => return self.wait_for(socket, until, TRACER_PATIENCE),
                Err(why) => Answer::Error(MachineError::new(ErrorCode::InvalidConfig, why, "")),
            },
            Request::Join(role, ticket) => return self.join(role, ticket, &socket),
            Request::Insert(drive, medium) => return self.insert(drive, medium, file, socket),
            Request::Eject(drive) => return self.eject(drive, socket),
            Request::Transport => Answer::Transport(self.traces.clone()),
            Request::Type(text) => match strokes_of(&text) {
                Ok(strokes) => self.press(strokes.into_iter().flat_map(KeyStroke::events)),
                Err(e) => refused(&e),
            },
            Request::Key(chord) => match parse_chord(&chord) {
                Ok(chord) => self.press(chord.events()),
                Err(e) => refused(&e),
            },
            Request::Mouse(action) => match parse_pointer(&action) {
                Ok(events) => self.press(events.into_iter()),
                Err(e) => refused(&e),
            },
        };
        reply(&socket, &answer);
    }

    /// Hands out what `quintet watch` and `quintet debug NAME profile` map.
    fn let_watch(&self, file: FileId, socket: &OwnedFd) {
        let refused = |text: &str| {
            reply(
                socket,
                &Answer::Error(MachineError::new(ErrorCode::InvalidConfig, text, "")),
            );
        };
        if self.jobs.is_none() && matches!(file, FileId::GuestRam | FileId::Memory(_)) {
            return refused("This machine is a PC; only the memory of modules is watched");
        }
        if !may_be_watched(file) || !self.set.files().any(|f| f == file) {
            return refused("That file is not for watching");
        }
        match self.set.reader(file) {
            Ok(Some(fd)) => {
                let (len, instance) = (self.set.len(file), self.set.instance());
                let answer = encode_answer(&Answer::Watch { len, instance });
                if let Err(e) = send_fd(socket, &answer, fd.as_fd()) {
                    tracing::debug!("a watcher went: {e}");
                }
            }
            Ok(None) => refused("The portable back end cannot be watched"),
            Err(e) => refused(&e.to_string()),
        }
    }

    /// Asks a worker to let the process at the other end of `socket` trace it.
    fn name_tracer(&self, role: Role, socket: &OwnedFd) -> Result<Until, &'static str> {
        if !Role::WORKERS.contains(&role) {
            return Err("The coordinator names no debugger");
        }
        // Who asks is what the kernel says, so that nobody can name another.
        let asks = rustix::net::sockopt::socket_peercred(socket).map_err(|_| "Nobody knows who asks")?;
        let pid = asks.pid.as_raw_nonzero().get() as u32;
        self.status.store(StatusWord::tracer(role), pid);
        for who in SleeperId::all().filter(|who| who.owner() == role) {
            self.ends.doorbell(who).force();
        }
        Ok(Until::Traced(role, pid))
    }

    fn wait(&mut self, socket: OwnedFd, until: Until) {
        self.wait_for(socket, until, PATIENCE);
    }

    pub(super) fn wait_for(&mut self, socket: OwnedFd, until: Until, patience: Duration) {
        let waiting = self.waiting.iter().filter(|w| !matches!(w.until, Until::Job(_)));
        if waiting.count() >= MOST_WAITING {
            let text = format!("{MOST_WAITING} requests are waiting for an answer already");
            let mut error = MachineError::new(ErrorCode::ResourceLimitExceeded, &text, "Ask again later");
            error.limit = Some((MOST_WAITING as u64 + 1, MOST_WAITING as u64));
            return reply(&socket, &Answer::Error(error));
        }
        let deadline = self.now() + patience;
        self.waiting.push(Waiting {
            socket,
            until,
            deadline,
            since: HostTime::now(),
        });
    }

    /// Answers the socket when the job has ended, however long that takes.
    pub(super) fn wait_for_job(&mut self, socket: OwnedFd, number: u32) {
        self.waiting.push(Waiting {
            socket,
            until: Until::Job(number),
            deadline: Now::MAX,
            since: HostTime::now(),
        });
    }

    /// Answers whoever has waited long enough, for what he waited for or in vain.
    pub(super) fn answer_waiting(&mut self) {
        let now = self.now();
        let seen = &self.seen;
        let cpu = &self.seen[Role::Cpu.index() - 1].status;
        let epoch = cpu.load(StatusWord::EpochSeen);
        let machine = self.life.machine();
        let reset = self.life.reset_generation();
        let life = &self.life;
        let shots = self.ends.shot_reader();
        let journal = &self.journal;
        self.waiting.retain(|w| {
            let answered = || journal.span(Track::Waits, w.name(), w.since);
            let done = match w.until {
                Until::Shot(request) => match shots.take(request) {
                    Ok(None) => false,
                    Ok(Some(png)) => {
                        reply_with_file(&w.socket, &png);
                        answered();
                        return false;
                    }
                    Err(e) => {
                        reply(&w.socket, &refused(&e));
                        return false;
                    }
                },
                Until::Job(_) => false,
                Until::Traced(role, pid) => seen[role.index() - 1].status.load(StatusWord::TracerSeen) == pid,
                Until::Successor(role, generation) => {
                    life.generation(role) != generation && life.peer(role) == PeerState::Running
                }
                Until::Epoch(e) => epoch.wrapping_sub(e) < 1 << 31 || machine != MachineState::Paused,
                Until::Reset(n) => {
                    n != reset || matches!(machine, MachineState::Running | MachineState::Paused)
                }
            };
            if done {
                answered();
                reply(&w.socket, &Answer::Done);
            } else if now >= w.deadline {
                let text = "The machine did not carry it out in time";
                let hint = "Look at `quintet status`";
                reply(
                    &w.socket,
                    &Answer::Error(MachineError::new(ErrorCode::WatchdogTimeout, text, hint)),
                );
            }
            !done && now < w.deadline
        });
    }

    /// Sends input on its way: the gpu-worker puts them among those of its window.
    fn press(&mut self, events: impl Iterator<Item = InputEvent>) -> Answer {
        let gpu = self.ends.doorbell(SleeperId::Gpu);
        let mut sent = Ok(0);
        for event in events {
            sent = self.keys.push(event.to_record(0).as_bytes());
            if sent.is_err() {
                break;
            }
        }
        gpu.ring();
        match sent {
            Ok(_) => Answer::Done,
            Err(e) => refused(&e),
        }
    }
}

pub(super) fn refused(e: &dyn std::error::Error) -> Answer {
    Answer::Error(MachineError::new(ErrorCode::InvalidConfig, &e.to_string(), ""))
}

/// Answers with a file.
fn reply_with_file(socket: &OwnedFd, bytes: &[u8]) {
    let sent = sealed_memfd(bytes).map_err(|e| e.to_string()).and_then(|fd| {
        let answer = encode_answer(&Answer::Screenshot(bytes.len() as u64));
        send_fd(socket, &answer, fd.as_fd()).map_err(|e| e.to_string())
    });
    if let Err(e) = sent {
        reply(
            socket,
            &Answer::Error(MachineError::new(ErrorCode::OutOfMemory, &e, "")),
        );
    }
}

/// Answers; an asker who has gone is none of our business.
pub(super) fn reply(socket: &OwnedFd, answer: &Answer) {
    let flags = rustix::net::SendFlags::NOSIGNAL | rustix::net::SendFlags::DONTWAIT;
    let _ = rustix::net::send(socket, &encode_answer(answer), flags);
}
