//! What coordinator, compiler and cpu-worker tell each other of a module.

use serde::{Deserialize, Serialize};

use crate::handshake::Confinement;
use crate::payload::{Digest, Found, PayloadGrant, PayloadPromise, Strategy, Transport, TransportTrace};

/// What a cpu-worker is told that runs a module instead of a PC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WasmConfig {
    /// Function to call; without it `main`, else `run`, else `_start` (S1.4).
    pub invoke: Option<String>,
    /// Arguments of the program, its name first.
    pub args: Vec<String>,
    /// Seed of the random numbers that the module asks for.
    pub seed: u64,
}

/// What a compilation may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CompileLimits {
    /// Largest module in bytes; looked at before anything else.
    pub module: u64,
    /// Largest function body in bytes: one function is compiled in one go.
    pub function: u32,
    /// Wall-clock time in milliseconds, kept by the coordinator.
    pub millis: u64,
    /// Memory of the compiling process in bytes.
    pub memory: u64,
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self {
            module: 64 << 20,
            function: 1 << 20,
            millis: 60_000,
            memory: 2 << 30,
        }
    }
}

/// From the coordinator to a compiler, at its start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompilerSetup {
    /// Number of the inherited socket on which its one order comes: the order's length, with the descriptors of a file that holds the
    /// order, of an empty memfd for the artefact, and of the module if it travels in one.
    pub orders: i32,
    /// What to give up before.
    pub confinement: Confinement,
}

/// From the coordinator to a compiler: one module. The coordinator seals the artefact when it has the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompileOrder {
    /// The module. Its digest may not have come yet; the compiler answers the one that it found.
    pub module: PayloadPromise,
    /// Where its bytes are.
    pub transport: Transport,
    /// What it may cost.
    pub limits: CompileLimits,
    /// Behave as if the module could not be mapped; shows that the copy path works (S1.12).
    pub refuse_map: bool,
}

/// What became of a module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compiled {
    /// Length of the artefact in bytes.
    pub len: u64,
    /// Its digest.
    pub digest: Digest,
    /// Microseconds for validation, instrumentation and compilation.
    pub micros: [u64; 3],
    /// Whether the module had to be changed.
    pub instrumented: bool,
}

/// From a compiler, which ends then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompileReply {
    /// What became of the module, or why nothing.
    pub result: Result<Compiled, String>,
    /// The module as it was found, for the coordinator to compare with what was announced; `None` when it did not arrive.
    pub found: Option<Found>,
    /// How the module came to be readable; `None` when it did not.
    pub strategy: Option<Strategy>,
    /// How it travelled.
    pub trace: TransportTrace,
}

/// What a job may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct JobLimits {
    /// Linear memory in bytes; guest RAM is the most in any case.
    pub memory: u64,
    /// VM time in milliseconds from instantiation on, pauses not counted; 0 is without end.
    pub millis: u64,
}

impl JobLimits {
    /// As much as the machine has.
    pub const NONE: Self = Self {
        memory: u64::MAX,
        millis: 0,
    };
}

/// From a user to the coordinator: run this. The module comes beside it, as a sealed memfd; its digest follows as the next packet,
/// so that both sides take it at the same time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submission {
    /// The module.
    pub module: PayloadPromise,
    /// What to call, with which arguments.
    pub config: WasmConfig,
    /// What it may use.
    pub limits: JobLimits,
    /// How the module travels from the coordinator on; by its size when `None`, inline when `Some(false)`, as a memfd
    /// when `Some(true)`. For tests that compare the two (S1.2).
    pub memfd: Option<bool>,
    /// Behave as if the module could not be mapped (S1.12).
    pub refuse_map: bool,
}

/// From the coordinator to the cpu-worker: run this. The artefact comes beside it, as a sealed memfd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobOrder {
    /// Its number, repeated in the answer.
    pub number: u32,
    /// The artefact.
    pub artefact: PayloadGrant,
    /// What to call, with which arguments.
    pub config: WasmConfig,
    /// What it may use.
    pub limits: JobLimits,
}

/// From the cpu-worker: what became of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobAnswer {
    /// The order's number.
    pub number: u32,
    /// How it ended.
    pub outcome: JobOutcome,
    /// How the artefact arrived.
    pub trace: TransportTrace,
}

/// Longest answer to an order in bytes.
pub const MAX_ANSWER: usize = 4096;

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobStatus {
    /// A function was called and returned, or the program ended itself.
    Executed,
    /// There was nothing to call (S1.4).
    Loaded,
    /// The module did not arrive, or is not one that runs here.
    LoadFailed,
    /// Its imports, memory or start function failed.
    InstantiateFailed,
    /// It trapped, or used up what it may use.
    ExecutionFailed,
    /// The process that ran it died (S1.8).
    WorkerDied,
}

impl JobStatus {
    /// As reports say it.
    pub fn text(self) -> &'static str {
        match self {
            Self::Executed => "Executed Successfully",
            Self::Loaded => "Loaded (No Entry Point)",
            Self::LoadFailed => "Load Failed",
            Self::InstantiateFailed => "Instantiate Failed",
            Self::ExecutionFailed => "Execution Failed",
            Self::WorkerDied => "Worker Died (Try Again)",
        }
    }

    /// Whether the module did what was asked for.
    pub fn is_success(self) -> bool {
        matches!(self, Self::Executed | Self::Loaded)
    }
}

/// From the cpu-worker: how a job ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobOutcome {
    /// How.
    pub status: JobStatus,
    /// What the function returned, or the program gave as its exit status.
    pub return_code: Option<i64>,
    /// Size of the linear memory at the end, in bytes; `None` when there was none.
    pub memory: Option<u64>,
    /// The process that ran it.
    pub pid: u32,
    /// Why it failed, on one line; empty when it did not.
    pub error: String,
    /// Microseconds from the start of the artefact's loading to the end.
    pub micros: u64,
}

/// What the user is told of a job (S1.5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobReport {
    /// How it ended.
    pub status: JobStatus,
    /// What the function returned, or the program's exit status.
    pub return_code: Option<i64>,
    /// Linear memory at the end, in bytes.
    pub memory: Option<u64>,
    /// How the module travelled.
    pub transport: String,
    /// How it became readable; `None` when it did not.
    pub strategy: Option<Strategy>,
    /// The process that ran it.
    pub pid: Option<u32>,
    /// Why it failed; empty when it did not.
    pub error: String,
    /// Whether the artefact was there already.
    pub cached: bool,
    /// Microseconds from the module's arrival to the artefact.
    pub compile_micros: u64,
    /// Of these, validation, instrumentation and compilation; zeros when the artefact was there.
    pub compiler_micros: [u64; 3],
    /// Microseconds of loading and running.
    pub run_micros: u64,
    /// The module's way, when it did not load.
    pub trace: Option<TransportTrace>,
}

impl Default for JobReport {
    fn default() -> Self {
        Self {
            status: JobStatus::Loaded,
            return_code: None,
            memory: None,
            transport: String::new(),
            strategy: None,
            pid: None,
            error: String::new(),
            cached: false,
            compile_micros: 0,
            compiler_micros: [0; 3],
            run_micros: 0,
            trace: None,
        }
    }
}
