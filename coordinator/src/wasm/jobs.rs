//! Jobs of a machine: made ready by up to 32 threads at once ([`super::make`]), executed one after another.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use quintet_protocol::handshake::{Role, encode};
use quintet_protocol::payload::TransportTrace;
use quintet_protocol::wasm::{JobAnswer, JobLimits, JobOrder, JobReport, JobStatus, WasmConfig};

use super::compile::Product;
use super::make::{Fetch, Made, Maker, failed};

/// Modules that are made ready at the same time.
const MOST_AT_ONCE: usize = 32;
/// Jobs of a machine that have not ended: each keeps two descriptors open, and a host gives 1024 to begin with.
pub const MOST_JOBS: usize = 256;
/// How much longer than its time limit a job may take to say that it is over, before its process is taken for broken, in nanoseconds.
const GRACE: u64 = 10_000_000_000;

/// A job whose artefact is there.
#[derive(Debug)]
struct Ready {
    number: u32,
    report: JobReport,
    product: Arc<Product>,
    config: WasmConfig,
    limits: JobLimits,
}

/// The job that the cpu-worker has.
#[derive(Debug)]
struct Current {
    job: Ready,
    /// Reset generation in which it was sent; in another one it starts again.
    generation: u32,
    /// VM time in nanoseconds.
    sent: u64,
}

/// All jobs of a machine.
pub struct Jobs {
    maker: Maker,
    last: u32,
    waiting: VecDeque<(u32, Fetch)>,
    at_once: usize,
    ready: VecDeque<Ready>,
    current: Option<Current>,
    ended: Vec<(u32, JobReport)>,
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jobs")
            .field("open", &self.open())
            .field("current", &self.current)
            .finish_non_exhaustive()
    }
}

impl Jobs {
    /// No jobs yet.
    pub fn new(maker: Maker) -> Self {
        maker.expect();
        Self {
            maker,
            last: 0,
            waiting: VecDeque::new(),
            at_once: 0,
            ready: VecDeque::new(),
            current: None,
            ended: Vec::new(),
        }
    }

    /// Jobs that have not ended.
    pub fn open(&self) -> usize {
        self.waiting.len() + self.at_once + self.ready.len() + usize::from(self.current.is_some())
    }

    /// Takes a job in and answers its number. `fetch` is called by a thread.
    pub fn add(&mut self, fetch: Fetch) -> u32 {
        self.last = self.last.wrapping_add(1);
        self.waiting.push_back((self.last, fetch));
        self.start();
        self.last
    }

    /// Makes as many ready as may be at once.
    fn start(&mut self) {
        while self.at_once < MOST_AT_ONCE
            && let Some((number, fetch)) = self.waiting.pop_front()
        {
            let maker = self.maker.clone();
            let thread = std::thread::Builder::new()
                .name(format!("job-{number}"))
                .spawn(move || maker.make(number, fetch));
            match thread {
                Ok(_) => self.at_once += 1,
                Err(e) => {
                    let error = format!("the host has no thread left: {e}");
                    let report = failed(JobReport::default(), error);
                    self.ended.push((number, report));
                }
            }
        }
    }

    /// A thread has done what has to be done before the job.
    pub fn made(&mut self, made: Made) {
        self.at_once -= 1;
        self.start();
        let Made {
            number,
            report,
            ready,
        } = made;
        match ready {
            Some((product, config, limits)) => self.ready.push_back(Ready {
                number,
                report,
                product,
                config,
                limits,
            }),
            None => self.ended.push((number, report)),
        }
    }

    /// The order that the cpu-worker is to get now, with its descriptor, while it executes in reset generation
    /// `generation` and VM time is `now`.
    pub fn order(&mut self, generation: u32, now: u64) -> Option<(Vec<u8>, BorrowedFd<'_>)> {
        match &mut self.current {
            Some(current) if current.generation == generation => return None,
            Some(current) => (current.generation, current.sent) = (generation, now),
            None => {
                let job = self.ready.pop_front()?;
                self.current = Some(Current {
                    job,
                    generation,
                    sent: now,
                });
            }
        }
        let job = &self.current.as_ref()?.job;
        let order = JobOrder {
            number: job.number,
            artefact: job.product.payload.grant(0),
            config: job.config.clone(),
            limits: job.limits,
        };
        Some((encode(&order), job.product.payload.fd()?))
    }

    /// The cpu-worker has answered. Answers how the artefact travelled.
    pub fn answered(&mut self, answer: JobAnswer) -> Option<TransportTrace> {
        // An answer to an order that was withdrawn meanwhile is nobody's.
        let current = self.current.take_if(|c| c.job.number == answer.number)?;
        let mut report = current.job.report;
        let outcome = answer.outcome;
        report.status = outcome.status;
        report.return_code = outcome.return_code;
        report.memory = outcome.memory;
        report.pid = Some(outcome.pid);
        report.error = outcome.error;
        report.run_micros = outcome.micros;
        let mut trace = current.job.product.payload.trace().clone();
        trace.name = format!("{} -> {}", answer.trace.name, Role::Cpu);
        trace.join(&answer.trace);
        if report.status == JobStatus::LoadFailed {
            report.trace = Some(trace.clone());
        }
        self.ended.push((current.job.number, report));
        Some(trace)
    }

    /// The cpu-worker is dead: its job failed, and is not tried again by itself, since it may have been the cause (S1.8).
    pub fn worker_died(&mut self, reason: &str) {
        if let Some(current) = self.current.take() {
            let mut report = current.job.report;
            report.status = JobStatus::WorkerDied;
            report.error = format!("the process that ran the module died: {reason}");
            self.ended.push((current.job.number, report));
        }
    }

    /// Whether the job has been running for much longer than it may, at VM time `now`: who runs it does not look up.
    pub fn overdue(&self, now: u64) -> bool {
        self.current.as_ref().is_some_and(|c| {
            let millis = c.job.limits.millis;
            millis != 0 && now.saturating_sub(c.sent) > millis.saturating_mul(1_000_000).saturating_add(GRACE)
        })
    }

    /// The jobs that have ended since the last call.
    pub fn take_ended(&mut self) -> Vec<(u32, JobReport)> {
        std::mem::take(&mut self.ended)
    }
}
