//! Jobs of a machine: made ready by up to 32 threads at once, executed one after another.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Instant;

use quintet_protocol::handshake::{Role, encode};
use quintet_protocol::payload::{Digest, Relay, TransportChoice, TransportTrace};
use quintet_protocol::wasm::{
    CompileLimits, JobAnswer, JobLimits, JobOrder, JobReport, JobStatus, WasmConfig,
};

use super::cache::{Cache, Key};
use super::compile::{CompileError, Compiler, Product, way};
use crate::machine::{Event, Waker};

/// Modules that are made ready at the same time.
const MOST_AT_ONCE: usize = 32;
/// Jobs of a machine that have not ended: each keeps two descriptors open, and a host gives 1024 to begin with.
pub const MOST_JOBS: usize = 256;
/// Bytes of artefacts that are kept.
const CACHE: u64 = 256 << 20;
/// How much longer than its time limit a job may take to say that it is over, before its process is taken for broken, in nanoseconds.
const GRACE: u64 = 10_000_000_000;

/// What waits for a module's digest; a sentence when it does not come.
pub type Announced = Box<dyn FnOnce() -> Result<Digest, String> + Send>;

/// A module, and what to do with it.
pub struct Source {
    /// The module.
    pub module: Relay,
    /// Its digest, which may still have to come.
    pub announced: Announced,
    /// How it travels.
    pub transport: TransportChoice,
    /// The compiler behaves as if it could not map.
    pub refuse_map: bool,
    /// What to call, with which arguments.
    pub config: WasmConfig,
    /// What it may use.
    pub limits: JobLimits,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source")
            .field("module", &self.module)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// What came of making a job ready.
#[derive(Debug)]
pub struct Made {
    number: u32,
    report: JobReport,
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
            let maker = Maker {
                number,
                compiler: self.compiler.clone(),
                cache: self.cache.clone(),
                sandboxed: self.sandboxed,
                events: self.events.clone(),
                waker: self.waker.clone(),
            };
            let thread =
                std::thread::Builder::new()
                    .name(format!("job-{number}"))
                    .spawn(move || match fetch() {
                        Ok(source) => maker.make(source),
                        Err(reason) => maker.refuse(JobReport::default(), reason, None),
                    });
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

/// A report of a job that could not be made ready.
fn failed(report: JobReport, error: String) -> JobReport {
    JobReport {
        status: JobStatus::LoadFailed,
        error,
        ..report
    }
}

/// What a thread has that makes one job ready.
struct Maker {
    number: u32,
    compiler: Compiler,
    cache: Cache,
    sandboxed: bool,
    events: Sender<Event>,
    waker: Waker,
}

impl Maker {
    /// Finds or makes the artefact of `source`.
    ///
    /// A module that nobody has asked for yet goes to a compiler before its digest has come. The compiler takes one too, and what it
    /// made is executed if both are the same; this process takes its own beside the job, and keeps the artefact for others only then.
    /// Of a module that may be known, it takes the digest first (docs/adr/0063-digests.md).
    fn make(self, source: Source) {
        let start = Instant::now();
        let Source {
            mut module,
            announced,
            transport,
            refuse_map,
            config,
            limits,
        } = source;
        let mut report = JobReport {
            transport: module.transport_text().to_owned(),
            ..JobReport::default()
        };
        let bounds = CompileLimits::default();
        let begin = |module: &Relay| self.compiler.begin(module, &bounds, self.sandboxed, refuse_map);
        let mut ahead = self.cache.is_new(module.sketch()).then(|| begin(&module));
        if ahead.is_none() {
            // What goes wrong here goes wrong again when it is compared.
            let _ = module.begin();
        }
        let announced = match announced() {
            Ok(digest) => digest,
            Err(reason) => {
                let reason = format!("The payload's digest did not come: {reason}");
                return self.refuse(report, reason, Some(module.trace().clone()));
            }
        };
        let key = Key {
            digest: announced,
            limits: bounds,
            transport,
            refuse_map,
        };
        self.cache.with(key, |place| {
            let cached = place.is_some();
            let (made, compilation) = match &*place {
                Some(product) => (
                    compared(&mut module, announced).map(|()| Arc::clone(product)),
                    None,
                ),
                None => match ahead.take().unwrap_or_else(|| begin(&module)) {
                    Ok(mut c) => (c.finish(&module, announced).map(Arc::new), Some(c)),
                    Err(e) => (Err(e), None),
                },
            };
            report.compile_micros = start.elapsed().as_micros() as u64;
            let product = match made {
                Ok(product) => product,
                Err(e) => return self.refuse(report, e.to_string(), e.trace().cloned()),
            };
            report.strategy = Some(product.strategy);
            report.cached = cached;
            if !cached {
                report.compiler_micros = product.compiled.micros;
            }
            self.tell(report, Some((Arc::clone(&product), config, limits)));
            if cached {
                return;
            }
            drop(compilation);
            let compared = compared(&mut module, announced);
            self.travelled(way(&module, &product.trace));
            match compared {
                Ok(()) => *place = Some(product),
                Err(e) => tracing::warn!("an artefact is not kept: {e}"),
            }
        });
        // What was begun in vain and the pages of the module are given up last, beside the job: that takes milliseconds.
    }

    /// The module did not load.
    fn refuse(&self, report: JobReport, error: String, trace: Option<TransportTrace>) {
        if let Some(trace) = &trace {
            self.travelled(trace.clone());
        }
        let report = JobReport {
            trace,
            ..failed(report, error)
        };
        self.tell(report, None);
    }

    fn tell(&self, report: JobReport, ready: Option<(Arc<Product>, WasmConfig, JobLimits)>) {
        let made = Made {
            number: self.number,
            report,
            ready,
        };
        let _ = self.events.send(Event::Made(Box::new(made)));
        self.waker.wake();
    }

    fn travelled(&self, trace: TransportTrace) {
        let _ = self.events.send(Event::Travelled(Box::new(trace)));
        self.waker.wake();
    }
}

fn compared(module: &mut Relay, announced: Digest) -> Result<(), CompileError> {
    module
        .check(announced)
        .map_err(|reason| CompileError::NotAnnounced {
            reason,
            trace: Box::new(module.trace().clone()),
        })
}
