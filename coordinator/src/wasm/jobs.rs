//! Jobs of a machine: made ready by up to 32 threads at once, executed one after another.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Instant;

use quintet_protocol::handshake::{Role, encode};
use quintet_protocol::payload::{Relay, TransportChoice, TransportTrace};
use quintet_protocol::wasm::{
    CompileLimits, JobAnswer, JobLimits, JobOrder, JobReport, JobStatus, WasmConfig,
};

use super::cache::{Cache, Key};
use super::compile::{CompileError, Compiler, Product};
use crate::machine::{Event, Waker};

/// Modules that are made ready at the same time.
const MOST_AT_ONCE: usize = 32;
/// Jobs of a machine that have not ended: each keeps two descriptors open, and a host gives 1024 to begin with.
pub const MOST_JOBS: usize = 256;
/// Bytes of artefacts that are kept.
const CACHE: u64 = 256 << 20;
/// How much longer than its time limit a job may take to say that it is over, before its process is taken for broken, in nanoseconds.
const GRACE: u64 = 10_000_000_000;

/// A module, and what to do with it.
#[derive(Debug)]
pub struct Source {
    /// The module.
    pub module: Relay,
    /// How it travels.
    pub transport: TransportChoice,
    /// The compiler behaves as if it could not map.
    pub refuse_map: bool,
    /// What to call, with which arguments.
    pub config: WasmConfig,
    /// What it may use.
    pub limits: JobLimits,
}

/// What came of making a job ready.
#[derive(Debug)]
pub struct Made {
    number: u32,
    report: JobReport,
    /// How the module travelled, when it was compiled now.
    trace: Option<TransportTrace>,
    ready: Option<(Arc<Product>, WasmConfig, JobLimits)>,
}

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

/// What a thread calls to get hold of a module; the reason when there is none.
pub type Fetch = Box<dyn FnOnce() -> Result<Source, String> + Send>;

/// All jobs of a machine.
pub struct Jobs {
    compiler: Compiler,
    sandboxed: bool,
    cache: Cache,
    events: Sender<Event>,
    waker: Waker,
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
    pub fn new(compiler: Compiler, sandboxed: bool, events: Sender<Event>, waker: Waker) -> Self {
        Self {
            compiler,
            sandboxed,
            cache: Cache::new(CACHE),
            events,
            waker,
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
            let (compiler, cache, sandboxed) = (self.compiler.clone(), self.cache.clone(), self.sandboxed);
            let (events, waker) = (self.events.clone(), self.waker.clone());
            let thread = std::thread::Builder::new()
                .name(format!("job-{number}"))
                .spawn(move || {
                    let mut source = fetch();
                    let made = make(number, &mut source, &compiler, &cache, sandboxed);
                    let _ = events.send(Event::Made(Box::new(made)));
                    waker.wake();
                    // Last, and beside the job: giving the pages of a large module back takes milliseconds.
                    drop(source);
                });
            match thread {
                Ok(_) => self.at_once += 1,
                Err(e) => {
                    let report = failed(format!("the host has no thread left: {e}"));
                    self.ended.push((number, report));
                }
            }
        }
    }

    /// A thread is done. Answers how the module travelled.
    pub fn made(&mut self, made: Made) -> Option<TransportTrace> {
        self.at_once -= 1;
        self.start();
        let Made {
            number,
            report,
            trace,
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
        trace
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

/// A report of a job that could not be made ready.
fn failed(error: String) -> JobReport {
    JobReport {
        status: JobStatus::LoadFailed,
        error,
        ..JobReport::default()
    }
}

/// What a thread does for a job.
fn make(
    number: u32,
    source: &mut Result<Source, String>,
    compiler: &Compiler,
    cache: &Cache,
    sandboxed: bool,
) -> Made {
    let start = Instant::now();
    let nothing = |report| Made {
        number,
        report,
        trace: None,
        ready: None,
    };
    let source = match source {
        Ok(source) => source,
        Err(error) => return nothing(failed(error.clone())),
    };
    let limits = CompileLimits::default();
    let key = Key {
        digest: source.module.announced(),
        limits,
        transport: source.transport,
        refuse_map: source.refuse_map,
    };
    let mut report = JobReport {
        transport: source.module.transport().to_owned(),
        ..JobReport::default()
    };
    let module = &mut source.module;
    let product = cache
        .get(key, || {
            compiler.compile(module, &limits, sandboxed, source.refuse_map)
        })
        .and_then(|found| match source.module.check() {
            Ok(()) => Ok(found),
            Err(reason) => {
                let trace = Box::new(source.module.trace().clone());
                Err(CompileError::NotAnnounced { reason, trace })
            }
        });
    report.compile_micros = start.elapsed().as_micros() as u64;
    match product {
        Ok((product, cached)) => {
            report.strategy = Some(product.strategy);
            report.cached = cached;
            if !cached {
                report.compiler_micros = product.compiled.micros;
            }
            Made {
                number,
                report,
                trace: (!cached).then(|| product.trace.clone()),
                ready: Some((product, source.config.clone(), source.limits)),
            }
        }
        Err(e) => {
            report.status = JobStatus::LoadFailed;
            report.error = e.to_string();
            report.trace = e.trace().cloned();
            Made {
                trace: e.trace().cloned(),
                ..nothing(report)
            }
        }
    }
}
