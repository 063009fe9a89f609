//! Runs one compiled module from loading to report.
#![allow(
    unsafe_code,
    reason = "loads machine code that the coordinator has from its own compiler"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use quintet_protocol::control::one_line;
use quintet_protocol::payload::Payload;
use quintet_protocol::wasm::{JobLimits, JobOutcome, JobStatus, WasmConfig};
use wasmtime::{Engine, ExternType, Linker, Module, Store, Trap, UpdateDeadline, Val};

use crate::engine::{self, TICK};
use crate::host::{self, Exited, Host, Stopped, Surroundings};
use crate::memory::GuestMemory;
use crate::wasi;

/// Functions that are called when none is named, in this order (S1.4).
pub const ENTRIES: [&str; 3] = ["main", "run", "_start"];
/// Longest error of a report in bytes.
pub(crate) const ERROR: usize = 480;

/// An engine whose linear memories are guest RAM.
#[derive(Debug)]
pub struct Runtime {
    engine: Engine,
    memory: GuestMemory,
    ending: Arc<AtomicBool>,
}

/// How far a job got, and what ended it.
struct Failure {
    status: JobStatus,
    error: wasmtime::Error,
}

impl Failure {
    fn at(status: JobStatus) -> impl FnOnce(wasmtime::Error) -> Self {
        move |error| Self { status, error }
    }
}

impl Runtime {
    /// An engine over `memory`, and the thread that interrupts what it runs every [`TICK`].
    ///
    /// # Errors
    /// wasmtime's, for a host that it does not support; the host's, when it has no thread left.
    pub fn new(memory: GuestMemory) -> wasmtime::Result<Self> {
        let mut config = engine::config();
        config.with_host_memory(Arc::new(memory.clone()));
        let engine = Engine::new(&config)?;
        let ending = Arc::new(AtomicBool::new(false));
        let (ticking, flag) = (engine.clone(), Arc::clone(&ending));
        std::thread::Builder::new()
            .name("wasm-tick".into())
            .spawn(move || {
                while !flag.load(Ordering::Relaxed) {
                    std::thread::sleep(TICK);
                    ticking.increment_epoch();
                }
            })
            .map_err(wasmtime::Error::new)?;
        Ok(Self {
            engine,
            memory,
            ending,
        })
    }

    /// Runs an artefact that came through the coordinator from its compiler. `None` when the machine stopped it.
    pub fn run(
        &self,
        artefact: &Payload,
        config: &WasmConfig,
        limits: JobLimits,
        around: Box<dyn Surroundings>,
    ) -> Option<JobOutcome> {
        self.run_module(self.load(artefact), config, limits, around)
    }

    /// Runs a module that is loaded, or reports why it is not. `None` when the machine stopped it.
    pub fn run_module(
        &self,
        module: wasmtime::Result<Module>,
        config: &WasmConfig,
        limits: JobLimits,
        around: Box<dyn Surroundings>,
    ) -> Option<JobOutcome> {
        let start = Instant::now();
        let mut memory = None;
        let result = module
            .map_err(Failure::at(JobStatus::LoadFailed))
            .and_then(|module| self.execute(&module, config, limits, around, &mut memory));
        let (status, return_code, error) = match result {
            Ok((status, code)) => (status, code, String::new()),
            Err(failure) => match failure.error.downcast_ref::<Exited>() {
                Some(Exited(code)) => (JobStatus::Executed, Some(i64::from(*code)), String::new()),
                None if failure.error.downcast_ref::<Stopped>().is_some() => return None,
                None => (failure.status, None, name(&failure.error)),
            },
        };
        Some(JobOutcome {
            status,
            return_code,
            memory,
            pid: std::process::id(),
            error,
            micros: start.elapsed().as_micros() as u64,
        })
    }

    /// Everything around a module but the module: a store with its limits and interruption, and the imports.
    ///
    /// # Errors
    /// wasmtime's, for an import that is there twice; [`Stopped`].
    pub fn prepare(
        &self,
        config: &WasmConfig,
        limits: JobLimits,
        around: Box<dyn Surroundings>,
    ) -> wasmtime::Result<(Store<Host>, Linker<Host>)> {
        self.memory.limit(limits.memory);
        let host = Host::new(self.memory.clone(), around, config, limits);
        let mut store = Store::new(&self.engine, host);
        store.limiter(|host| &mut host.limits);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|mut store| {
            store.data_mut().tick()?;
            Ok(UpdateDeadline::Continue(1))
        });
        let mut linker = Linker::new(&self.engine);
        host::add_to(&mut linker)?;
        wasi::add_to(&mut linker)?;
        store.data_mut().begin()?;
        Ok((store, linker))
    }

    /// Loads an artefact.
    ///
    /// # Errors
    /// wasmtime's, when it was made with other settings.
    pub fn load(&self, artefact: &Payload) -> wasmtime::Result<Module> {
        // SAFETY: the payload is sealed, and its digest is the one that the coordinator took of what its own compiler
        // wrote; no guest can reach it.
        unsafe { Module::deserialize(&self.engine, artefact.bytes()) }
    }

    fn execute(
        &self,
        module: &Module,
        config: &WasmConfig,
        limits: JobLimits,
        around: Box<dyn Surroundings>,
        memory: &mut Option<u64>,
    ) -> Result<(JobStatus, Option<i64>), Failure> {
        let entry = entry(module, config.invoke.as_deref()).map_err(Failure::at(JobStatus::LoadFailed))?;
        let (mut store, linker) = self
            .prepare(config, limits, around)
            .map_err(Failure::at(JobStatus::InstantiateFailed))?;
        let instance = linker
            .instantiate(&mut store, module)
            .map_err(Failure::at(JobStatus::InstantiateFailed));
        *memory = self.memory.size();
        let instance = instance?;
        let Some(entry) = entry else {
            return Ok((JobStatus::Loaded, None));
        };
        let function = instance
            .get_func(&mut store, &entry)
            .expect("the module exports the function");
        let ty = function.ty(&store);
        let arguments: Vec<Val> = ty.params().filter_map(|t| Val::default_for_ty(&t)).collect();
        let mut results: Vec<Val> = ty.results().filter_map(|t| Val::default_for_ty(&t)).collect();
        let called = function.call(&mut store, &arguments, &mut results);
        *memory = self.memory.size();
        called.map_err(Failure::at(JobStatus::ExecutionFailed))?;
        let code = match results.first() {
            Some(Val::I32(n)) => Some(i64::from(*n)),
            Some(Val::I64(n)) => Some(*n),
            _ => None,
        };
        Ok((JobStatus::Executed, code))
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
    }
}

/// The function to call; `None` when none is asked for and none is there.
fn entry(module: &Module, invoke: Option<&str>) -> wasmtime::Result<Option<String>> {
    let is_function = |name: &str| matches!(module.get_export(name), Some(ExternType::Func(_)));
    match invoke {
        Some(name) if is_function(name) => Ok(Some(name.to_owned())),
        Some(name) => Err(wasmtime::Error::msg(format!(
            "the module exports no function {name:?}"
        ))),
        None => Ok(ENTRIES
            .into_iter()
            .find(|name| is_function(name))
            .map(str::to_owned)),
    }
}

/// The name of what went wrong, on one line: a trap by its own name, else what wasmtime says.
fn name(error: &wasmtime::Error) -> String {
    match error.downcast_ref::<Trap>() {
        Some(trap) => one_line(&trap.to_string(), ERROR),
        None => one_line(&format!("{error:#}"), ERROR),
    }
}
