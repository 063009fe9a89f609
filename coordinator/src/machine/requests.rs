//! What comes through the control socket.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use quintet_protocol::control::{
    Answer, ErrorCode, MachineError, Request, SoundReport, StatusReport, WorkerReport, encode_answer,
};
use quintet_protocol::handshake::{FileId, Role};
use quintet_protocol::input::{InputEvent, KeyStroke, parse_chord, parse_pointer, strokes_of};
use quintet_protocol::layout::SleeperId;
use quintet_protocol::lifecycle::{Input, Now, Outcome};
use quintet_protocol::payload::{sealed_memfd, send_fd};
use quintet_protocol::status::{MachineState, PeerState, StatusWord, WorkerState};

use super::Machine;
use crate::control::attach::may_be_watched;

/// A request that is answered later.
#[derive(Debug)]
pub(super) struct Waiting {
    socket: OwnedFd,
    until: Until,
    pub(super) deadline: Now,
}

#[derive(Debug)]
pub(super) enum Until {
    /// The vCPUs have obeyed this run epoch.
    Epoch(u32),
    /// The reset with this number is done.
    Reset(u32),
    /// The gpu-worker has answered this request.
    Shot(u32),
    /// The job with this number has ended; its own limits bound it.
    Job(u32),
}

impl Waiting {
    /// What it waits for.
    pub(super) fn until(&self) -> &Until {
        &self.until
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
/// How many requests may wait at a time (S3.108).
const MOST_WAITING: usize = 64;

impl Machine {
    pub(super) fn request(&mut self, request: Request, file: Option<OwnedFd>, socket: OwnedFd) {
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
                    Until::Epoch(_) | Until::Reset(_) | Until::Job(_) => None,
                });
                let request = open.unwrap_or_else(|| self.ends.ask_for_shot());
                return self.wait(socket, Until::Shot(request));
            }
            Request::Submit(submission) => return self.submit(*submission, file, socket),
            Request::Watch(file) => return self.let_watch(file, &socket),
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

    fn wait(&mut self, socket: OwnedFd, until: Until) {
        let waiting = self.waiting.iter().filter(|w| !matches!(w.until, Until::Job(_)));
        if waiting.count() >= MOST_WAITING {
            let text = format!("{MOST_WAITING} requests are waiting for an answer already");
            let mut error = MachineError::new(ErrorCode::ResourceLimitExceeded, &text, "Ask again later");
            error.limit = Some((MOST_WAITING as u64 + 1, MOST_WAITING as u64));
            return reply(&socket, &Answer::Error(error));
        }
        let deadline = self.now() + PATIENCE;
        self.waiting.push(Waiting {
            socket,
            until,
            deadline,
        });
    }

    /// Answers the socket when the job has ended, however long that takes.
    pub(super) fn wait_for_job(&mut self, socket: OwnedFd, number: u32) {
        self.waiting.push(Waiting {
            socket,
            until: Until::Job(number),
            deadline: Now::MAX,
        });
    }

    /// Answers whoever has waited long enough, for what he waited for or in vain.
    pub(super) fn answer_waiting(&mut self) {
        let now = self.now();
        let cpu = &self.seen[Role::Cpu.index() - 1].status;
        let epoch = cpu.load(StatusWord::EpochSeen);
        let machine = self.life.machine();
        let reset = self.life.reset_generation();
        let shots = self.ends.shot_reader();
        self.waiting.retain(|w| {
            let done = match w.until {
                Until::Shot(request) => match shots.take(request) {
                    Ok(None) => false,
                    Ok(Some(png)) => {
                        reply_with_file(&w.socket, &png);
                        return false;
                    }
                    Err(e) => {
                        reply(&w.socket, &refused(&e));
                        return false;
                    }
                },
                Until::Job(_) => false,
                Until::Epoch(e) => epoch.wrapping_sub(e) < 1 << 31 || machine != MachineState::Paused,
                Until::Reset(n) => {
                    n != reset || matches!(machine, MachineState::Running | MachineState::Paused)
                }
            };
            if done {
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

    fn report(&self) -> StatusReport {
        let workers = Role::WORKERS
            .into_iter()
            .map(|role| {
                let seen = &self.seen[role.index() - 1];
                let said = WorkerState::from_u32(seen.status.load(StatusWord::WorkerState));
                let state = self.life.peer(role);
                WorkerReport {
                    role,
                    pid: self.fleet.pid(role).map(|p| p as i32),
                    state,
                    parked: state == PeerState::Running && said == Some(WorkerState::Parked),
                    generation: self.life.generation(role),
                    deaths: self.life.deaths(role),
                    last_death: seen.last_death.clone(),
                    unconfined: seen.unconfined.clone(),
                }
            })
            .collect();
        let said = |role: Role, word| self.seen[role.index() - 1].status.load(word);
        StatusReport {
            name: self.config.name.clone(),
            pid: std::process::id() as i32,
            state: self.life.machine(),
            uptime_ms: self.now().as_millis() as u64,
            vm_time_ms: self.ends.clock().now().0 / 1_000_000,
            ram: self.config.ram.total(),
            resets: self.life.reset_generation(),
            workers,
            sound: SoundReport {
                missing: said(Role::Audio, StatusWord::AudioUnderrun),
                dropped: said(Role::Io, StatusWord::AudioOverrun),
            },
            single_process: self.config.single_process,
            error: self.error.clone(),
        }
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

fn refused(e: &dyn std::error::Error) -> Answer {
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
