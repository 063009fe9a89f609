//! From a module to its artefact: what a thread does for one job before it can be executed.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Instant;

use quintet_protocol::payload::{Digest, Relay, TransportChoice, TransportTrace};
use quintet_protocol::wasm::{JobLimits, JobReport, JobStatus, WasmConfig};

use super::cache::{Cache, Key};
use super::compile::{CompileError, Compiler, Product, way};
use crate::machine::{Event, Waker};

/// Bytes of artefacts that are kept.
const CACHE: u64 = 256 << 20;

/// What waits for a module's digest; a sentence when it does not come.
pub type Announced = Box<dyn FnOnce() -> Result<Digest, String> + Send>;

/// What a thread calls to get hold of a module; the reason when there is none.
pub type Fetch = Box<dyn FnOnce() -> Result<Source, String> + Send>;

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
    pub(super) number: u32,
    pub(super) report: JobReport,
    pub(super) ready: Option<(Arc<Product>, WasmConfig, JobLimits)>,
}

/// Makes jobs ready, and tells the main loop. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Maker {
    compiler: Compiler,
    cache: Cache,
    /// Whether more than one job is expected.
    many: bool,
    events: Sender<Event>,
    waker: Waker,
}

impl Maker {
    /// With nothing in its cache. If `many` jobs are expected, a compiler waits for the next one.
    pub fn new(compiler: Compiler, many: bool, events: Sender<Event>, waker: Waker) -> Self {
        Self {
            compiler,
            cache: Cache::new(CACHE),
            many,
            events,
            waker,
        }
    }

    /// Has a compiler wait for the first job, if many are expected.
    pub fn expect(&self) {
        if self.many {
            let compiler = self.compiler.clone();
            let thread = std::thread::Builder::new().name("compiler".into());
            // Without a thread, the first module waits for its compiler.
            let _ = thread.spawn(move || compiler.prepare());
        }
    }

    /// Fetches a module and makes it ready to be executed.
    pub fn make(&self, number: u32, fetch: Fetch) {
        match fetch() {
            Ok(source) => self.find_or_compile(number, source),
            Err(reason) => self.refuse(number, JobReport::default(), reason, None),
        }
        if self.many {
            self.compiler.prepare();
        }
    }

    /// A module that nobody has asked for yet goes to a compiler before its digest has come. The compiler takes one too, and what it
    /// made is executed if both are the same; this process takes its own beside the job, and keeps the artefact for others only then.
    /// Of a module that may be known, it takes the digest first (docs/adr/0063-digests.md).
    fn find_or_compile(&self, number: u32, source: Source) {
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
        let begin = |module: &Relay| self.compiler.begin(module, refuse_map);
        let mut ahead = self.cache.is_new(module.sketch()).then(|| begin(&module));
        if ahead.is_none() {
            // What goes wrong here goes wrong again when it is compared.
            let _ = module.begin();
        }
        let announced = match announced() {
            Ok(digest) => digest,
            Err(reason) => {
                let reason = format!("The payload's digest did not come: {reason}");
                return self.refuse(number, report, reason, Some(module.trace().clone()));
            }
        };
        let key = Key {
            digest: announced,
            limits: self.compiler.limits(),
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
                Err(e) => return self.refuse(number, report, e.to_string(), e.trace().cloned()),
            };
            report.strategy = Some(product.strategy);
            report.cached = cached;
            if !cached {
                report.compiler_micros = product.compiled.micros;
            }
            self.tell(number, report, Some((Arc::clone(&product), config, limits)));
            if cached {
                return;
            }
            drop(compilation);
            keep(&mut module, announced, product.clone(), place);
            self.travelled(way(&module, &product.trace));
        });
        // What was begun in vain and the pages of the module are given up last, beside the job: that takes milliseconds.
    }

    /// The module did not load.
    fn refuse(&self, number: u32, report: JobReport, error: String, trace: Option<TransportTrace>) {
        if let Some(trace) = &trace {
            self.travelled(trace.clone());
        }
        let report = JobReport {
            trace,
            ..failed(report, error)
        };
        self.tell(number, report, None);
    }

    fn tell(&self, number: u32, report: JobReport, ready: Option<(Arc<Product>, WasmConfig, JobLimits)>) {
        let made = Made {
            number,
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

/// Keeps an artefact for whoever else announces this digest, if the module is the announced one as far as this process can see: that its
/// compiler says so is the word of a process that hostile input may have taken over.
fn keep(module: &mut Relay, announced: Digest, product: Arc<Product>, place: &mut Option<Arc<Product>>) {
    match module.check(announced) {
        Ok(()) => *place = Some(product),
        Err(e) => tracing::warn!("the compiler was wrong about a module, whose artefact is not kept: {e}"),
    }
}

/// A report of a job that could not be made ready.
pub(super) fn failed(report: JobReport, error: String) -> JobReport {
    JobReport {
        status: JobStatus::LoadFailed,
        error,
        ..report
    }
}

#[cfg(test)]
mod tests {
    use quintet_protocol::payload::{PayloadKind, PayloadPromise, digest, head, sealed_memfd};

    use super::super::cache::tests::product;
    use super::*;

    #[test]
    fn s1_20_an_artefact_is_kept_only_if_this_process_finds_the_announced_digest_too() {
        let (announced, other) = (vec![1; 600_000], vec![2; 600_000]);
        for (came, kept) in [(&announced, true), (&other, false)] {
            let promise = PayloadPromise {
                kind: PayloadKind::WasmModule,
                len: came.len() as u64,
                head: head(came),
            };
            let fd = sealed_memfd(came).expect("a memfd");
            let mut module = Relay::new(promise, fd, TransportChoice::BySize).expect("in order");
            let mut place = None;
            keep(&mut module, digest(&announced), Arc::new(product(10)), &mut place);
            assert_eq!(place.is_some(), kept);
            assert_eq!(module.trace().error.is_empty(), kept, "{}", module.trace());
        }
    }
}
