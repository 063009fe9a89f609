//! A machine for modules: what becomes of jobs, and who is told.

use std::os::fd::OwnedFd;

use quintet_protocol::control::{Answer, ErrorCode, MachineError};
use quintet_protocol::handshake::{Role, decode};
use quintet_protocol::layout::SleeperId;
use quintet_protocol::lifecycle::{Death, Input, Outcome};
use quintet_protocol::payload::{Relay, TransportChoice};
use quintet_protocol::status::{MachineState, PeerState};
use quintet_protocol::wasm::{JobAnswer, MAX_ANSWER, Submission};

use super::Machine;
use super::requests::{Until, reply};
use crate::control::server::receive_digest;
use crate::wasm::{MOST_JOBS, Made, Source};

impl Machine {
    /// Takes in the module that the machine was started with.
    pub(super) fn begin_with(&mut self, first: Option<Source>) {
        if let (Some(jobs), Some(source)) = (&mut self.jobs, first) {
            self.first = Some(jobs.add(Box::new(move || Ok(source))));
        }
    }

    /// Takes in a module that somebody has sent.
    pub(super) fn submit(&mut self, submission: Submission, file: Option<OwnedFd>, socket: OwnedFd) {
        let no = |code, text: &str, hint: &str| Answer::Error(MachineError::new(code, text, hint));
        let Some(jobs) = &mut self.jobs else {
            let text = "This machine is a PC and runs no modules";
            let hint = "Start one by `quintet run --headless --jobs`";
            return reply(&socket, &no(ErrorCode::InvalidConfig, text, hint));
        };
        let Some(file) = file else {
            return reply(&socket, &no(ErrorCode::InvalidConfig, "No module came", ""));
        };
        let open = jobs.open();
        if open >= MOST_JOBS {
            let text = format!("{open} jobs have not ended yet");
            let error = MachineError::new(ErrorCode::ResourceLimitExceeded, &text, "Submit it again later");
            let error = error.with_limit(open as u64 + 1, MOST_JOBS as u64);
            return reply(&socket, &Answer::Error(error));
        }
        let digest_from = match socket.try_clone() {
            Ok(socket) => socket,
            Err(e) => {
                let text = format!("The host has no descriptor left: {e}");
                return reply(&socket, &no(ErrorCode::ResourceLimitExceeded, &text, ""));
            }
        };
        let number = jobs.add(Box::new(move || {
            let transport = match submission.memfd {
                None => TransportChoice::BySize,
                Some(false) => TransportChoice::Inline,
                Some(true) => TransportChoice::Memfd,
            };
            let module = Relay::new(submission.module, file, transport).map_err(|e| e.to_string())?;
            Ok(Source {
                module,
                announced: Box::new(move || receive_digest(&digest_from)),
                transport,
                refuse_map: submission.refuse_map,
                config: submission.config,
                limits: submission.limits,
            })
        }));
        self.wait_for_job(socket, number);
    }

    /// A thread has made a job ready, or knows why it never will be.
    pub(super) fn made(&mut self, made: Made) {
        if let Some(jobs) = &mut self.jobs {
            jobs.made(made);
        }
    }

    /// The cpu-worker's process has ended.
    pub(super) fn job_died(&mut self, death: &Death) {
        // What it said last was said before it died.
        self.take_answers();
        // A machine that ends takes its module with it: that is no death.
        if self.life.outcome().is_some() {
            return;
        }
        let reason = match death {
            Death::Stopped => "it was stopped",
            Death::Crashed(reason) | Death::Config(reason) => reason,
        };
        if let Some(jobs) = &mut self.jobs {
            jobs.worker_died(reason);
        }
    }

    /// Takes what the cpu-worker has answered. A ring that contradicts itself is the end of the process that wrote it.
    fn take_answers(&mut self) {
        let Some(jobs) = &mut self.jobs else { return };
        let mut traces = Vec::new();
        let result = self.ends.lifecycle_from_consumer(Role::Cpu).and_then(|mut ring| {
            let mut bytes = vec![0; MAX_ANSWER];
            while let Some(record) = ring.next(&mut bytes)? {
                match decode::<JobAnswer>(&bytes[..record.len]) {
                    Ok(answer) => traces.extend(jobs.answered(answer)),
                    Err(e) => tracing::warn!("the {} answers strangely: {e}", Role::Cpu),
                }
                ring.release_all();
            }
            Ok(())
        });
        if let Err(e) = result {
            let process = self.life.generation(Role::Cpu);
            self.fleet
                .doom(Role::Cpu, process, format!("its answers cannot be read: {e}"));
        }
        for trace in traces {
            self.note(trace);
        }
    }

    /// Takes answers, gives orders, tells who waits.
    pub(super) fn look_at_jobs(&mut self) {
        if self.jobs.is_none() {
            return;
        }
        self.take_answers();
        self.give_order();
        let ended = self
            .jobs
            .as_mut()
            .map(crate::wasm::Jobs::take_ended)
            .unwrap_or_default();
        for (number, report) in ended {
            self.waiting.retain(|w| {
                let his = w.is_for(number);
                if his {
                    w.tell(&Answer::Job(Box::new(report.clone())));
                }
                !his
            });
            if self.first == Some(number) {
                self.job = Some(report);
                self.first = None;
                if self.config.wasm.as_ref().is_some_and(|w| !w.stay) {
                    self.step(Input::Stop(Outcome::PoweredOff));
                } else if let (Some(report), Some(wasm)) = (self.job.take(), &self.config.wasm) {
                    crate::wasm::print(&report, wasm.json);
                }
            }
        }
    }

    fn give_order(&mut self) {
        let now = self.ends.clock().now().0;
        let generation = self.life.reset_generation();
        let runs =
            self.life.machine() == MachineState::Running && self.life.peer(Role::Cpu) == PeerState::Running;
        let process = self.life.generation(Role::Cpu);
        let Some(jobs) = self.jobs.as_mut().filter(|_| runs) else {
            return;
        };
        if jobs.overdue(now) {
            let why = "its job has used up its time and it does not look up".to_owned();
            return self.fleet.doom(Role::Cpu, process, why);
        }
        if let Some((message, fd)) = jobs.order(generation, now) {
            match self.fleet.order(&message, fd) {
                Ok(()) => self.ends.doorbell(SleeperId::Vcpu(0)).ring(),
                Err(e) => {
                    let why = format!("it cannot be given an order: {e}");
                    self.fleet.doom(Role::Cpu, process, why);
                }
            }
        }
    }

    /// The machine has ended: whoever waits for a job is told so.
    pub(super) fn refuse_jobs(&mut self) {
        for waiting in self.waiting.drain(..) {
            if matches!(waiting.until(), Until::Job(_)) {
                let text = "The machine ended before the module did";
                waiting.tell(&Answer::Error(MachineError::new(
                    ErrorCode::WorkerCrashed,
                    text,
                    "",
                )));
            }
        }
    }
}
