//! One module, one compiler process, under a time and memory budget.
//!
//! It is begun before the module's digest is known, and asked for afterwards (docs/adr/0063-digests.md). Starting a process takes
//! longer than compiling a small module, so a machine that waits for modules keeps one that waits for the next.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::process::{Child, ChildStdout};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use quintet_protocol::handshake::{decode, encode};
use quintet_protocol::payload::{
    Digest, Outgoing, PayloadKind, ReceiveError, Relay, SealError, Strategy, TransportTrace, open_memfd,
    sealed_memfd, send_fds,
};
use quintet_protocol::wasm::{CompileLimits, CompileOrder, CompileReply, Compiled, CompilerSetup};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Signal, pidfd_send_signal};

use crate::config::UsageError;
use crate::sandbox;
use crate::supervise::binaries::{open_one, own_directory};
use crate::supervise::spawner::{Order, Spawned, Spawner};

/// File name of the compiler's executable.
pub const BINARY: &str = "quintet-wasm-compile";
/// Longest answer in bytes.
const MOST: usize = 1 << 20;
/// How long a compiler may take to end when it has answered.
const GRACE: Duration = Duration::from_secs(1);

/// What came of a module.
#[derive(Debug)]
pub struct Product {
    /// The artefact, sealed.
    pub payload: Outgoing,
    /// What the compiler said of it.
    pub compiled: Compiled,
    /// How the module reached the compiler.
    pub strategy: Strategy,
    /// Its way, as the compiler saw it.
    pub trace: TransportTrace,
}

/// Why there is no artefact. One cause, one variant (S1.6).
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The module is not what was announced.
    #[error("{reason}")]
    NotAnnounced {
        /// What differs.
        reason: ReceiveError,
        /// How the module travelled.
        trace: Box<TransportTrace>,
    },
    /// The compiler refused the module, or did not get it.
    #[error("{reason}")]
    Refused {
        /// In the compiler's words.
        reason: String,
        /// How the module travelled.
        trace: Box<TransportTrace>,
    },
    /// It took too long and was killed.
    #[error("compilation took longer than {} ms and was stopped", .0.as_millis())]
    Timeout(Duration),
    /// It died.
    #[error("the compiler ended without an answer ({how}){said}")]
    Died {
        /// Exit status or signal.
        how: String,
        /// Its last words, with a colon before them; empty when it had none.
        said: String,
    },
    /// It could not be started or talked to.
    #[error("the compiler cannot be started: {0}")]
    Start(std::io::Error),
    /// What it wrote is not what it announced.
    #[error("the artefact cannot be sealed: {0}")]
    Seal(#[from] SealError),
}

impl CompileError {
    /// How the module travelled, as far as is known.
    pub fn trace(&self) -> Option<&TransportTrace> {
        match self {
            Self::NotAnnounced { trace, .. } | Self::Refused { trace, .. } => Some(trace),
            _ => None,
        }
    }
}

/// The compiler's executable, opened once, who starts it, and perhaps a process that waits for its module. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Compiler {
    binary: Arc<File>,
    spawner: Spawner,
    sandboxed: bool,
    limits: CompileLimits,
    waiting: Arc<Mutex<Option<Waiting>>>,
}

impl Compiler {
    /// Opens the executable beside the running one, else in `../libexec/quintet`. Its processes are confined if `sandboxed`.
    ///
    /// # Errors
    /// [`UsageError`] when it is in neither place: it is built by a call of cargo of its own.
    pub fn open(spawner: Spawner, sandboxed: bool) -> Result<Self, UsageError> {
        let binary = open_one(&own_directory(), BINARY)
            .map_err(|e| UsageError(format!("{e} (`cargo build -p {BINARY}`)")))?;
        Ok(Self {
            binary,
            spawner,
            sandboxed,
            limits: CompileLimits::default(),
            waiting: Arc::default(),
        })
    }

    /// What a compilation may cost.
    pub fn limits(&self) -> CompileLimits {
        self.limits
    }

    /// Starts a process that waits for the next module, if there is none. Without it that module waits for its process.
    pub fn prepare(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.is_none() {
            *waiting = self
                .start()
                .inspect_err(|e| tracing::debug!("no compiler waits: {e}"))
                .ok();
        }
    }

    /// Gives `module` to a process of its own, which has as long as the limits allow.
    ///
    /// # Errors
    /// [`CompileError::Start`], [`CompileError::Seal`].
    pub fn begin(&self, module: &Relay, refuse_map: bool) -> Result<Compilation, CompileError> {
        // The descriptor comes by itself, under a number of the receiver's.
        let order = encode(&CompileOrder {
            module: module.promise().clone(),
            transport: module.transport(-1),
            limits: self.limits,
            refuse_map,
        });
        let file = sealed_memfd(&order)?;
        let output = open_memfd()?;
        let give = |waiting: Waiting| {
            let mut fds = vec![file.as_fd(), output.as_fd()];
            fds.extend(module.fd());
            send_fds(&waiting.orders, &(order.len() as u64).to_le_bytes(), &fds).map(|()| waiting.process)
        };
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        // One that has died while it waited is none.
        let process = match waiting.map(give) {
            Some(Ok(process)) => process,
            _ => give(self.start()?).map_err(|e| CompileError::Start(std::io::Error::other(e)))?,
        };
        let limit = Duration::from_millis(self.limits.millis);
        Ok(Compilation {
            process,
            output: Some(output),
            until: Instant::now() + limit,
            limit,
        })
    }

    fn start(&self) -> Result<Waiting, CompileError> {
        let mut confinement = sandbox::confinement_by("compile", self.sandboxed)
            .map_err(|e| CompileError::Start(std::io::Error::other(e)))?;
        confinement.max_data = Some(self.limits.memory);
        // No artefact is larger than what it was made in.
        confinement.max_file_size = Some(self.limits.memory);
        confinement.network = self.spawner.network();
        let pair = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        );
        let (orders, theirs) = pair.map_err(|e| CompileError::Start(e.into()))?;
        let setup = encode(&CompilerSetup {
            orders: theirs.as_raw_fd(),
            confinement,
        });
        let order = Order {
            binary: Arc::clone(&self.binary),
            name: BINARY,
            args: Vec::new(),
            // A file and not a pipe, which a process that does not read would block.
            input: Some(sealed_memfd(&setup)?),
            answers: true,
            inherit: vec![theirs],
            log: String::new(),
            confined: true,
        };
        let Spawned { child, pidfd } = self.spawner.spawn(order).map_err(CompileError::Start)?;
        Ok(Waiting {
            process: Process {
                child,
                pidfd,
                may_end_by: None,
            },
            orders,
        })
    }
}

/// A process that has no module yet.
#[derive(Debug)]
struct Waiting {
    process: Process,
    orders: OwnedFd,
}

/// A compiler's process. Dropping it kills it, unless it may end by itself.
#[derive(Debug)]
struct Process {
    child: Child,
    pidfd: OwnedFd,
    may_end_by: Option<Instant>,
}

impl Process {
    /// What it wrote on standard error. For a process that has ended.
    fn last_words(&mut self) -> String {
        let mut said = String::new();
        if let Some(stderr) = self.child.stderr.take() {
            let _ = stderr.take(4096).read_to_string(&mut said);
        }
        said
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.may_end_by.is_some_and(|until| ready(&self.pidfd, until)) {
            let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        }
        let _ = self.child.wait();
        let said = self.last_words();
        if !said.is_empty() {
            tracing::warn!("the compiler said: {}", said.trim());
        }
    }
}

/// A compiler at work. Dropping it waits for the process when it has answered, and kills it otherwise.
#[derive(Debug)]
pub struct Compilation {
    process: Process,
    /// What it writes the artefact to.
    output: Option<OwnedFd>,
    until: Instant,
    limit: Duration,
}

impl Compilation {
    /// Waits for the answer, and compares the digest that the compiler took of `module` with the announced one. The process may
    /// still be there afterwards.
    ///
    /// # Errors
    /// [`CompileError`].
    pub fn finish(&mut self, module: &Relay, announced: Digest) -> Result<Product, CompileError> {
        let reply = self.answer()?;
        let trace = |error: String| {
            let mut trace = way(module, &reply.trace);
            if trace.error.is_empty() {
                trace.error = error;
            }
            Box::new(trace)
        };
        if let Some(found) = &reply.found {
            let judged = found.judge(announced, module.promise().head);
            judged.map_err(|reason| CompileError::NotAnnounced {
                trace: trace(reason.to_string()),
                reason,
            })?;
        }
        match (
            &reply.result,
            reply.strategy,
            reply.found.is_some(),
            self.output.take(),
        ) {
            (Ok(compiled), Some(strategy), true, Some(output)) => Ok(Product {
                // From the seal on nobody can change it, whoever still has it; what is in it then is compared.
                payload: Outgoing::adopt(PayloadKind::WasmArtefact, output, compiled.len, compiled.digest)?,
                compiled: compiled.clone(),
                strategy,
                trace: reply.trace,
            }),
            (result, ..) => {
                let reason = match result {
                    Err(reason) => reason.clone(),
                    Ok(_) => "the compiler contradicts itself".to_owned(),
                };
                Err(CompileError::Refused {
                    trace: trace(reason.clone()),
                    reason,
                })
            }
        }
    }

    fn answer(&mut self) -> Result<CompileReply, CompileError> {
        let process = &mut self.process;
        let stdout = process.child.stdout.take();
        let Some(answer) = stdout.and_then(|stdout| read_answer(stdout, self.until)) else {
            return Err(CompileError::Timeout(self.limit));
        };
        if let Ok(reply) = decode(&answer) {
            process.may_end_by = Some(self.until.min(Instant::now() + GRACE));
            return Ok(reply);
        }
        if !ready(&process.pidfd, self.until) {
            return Err(CompileError::Timeout(self.limit));
        }
        let status = process.child.wait().map_err(CompileError::Start)?;
        let said = process.last_words();
        Err(CompileError::Died {
            how: status.to_string(),
            said: said.lines().last().map(|l| format!(": {l}")).unwrap_or_default(),
        })
    }
}

/// The way of `module`: what this process saw, and what the compiler saw.
pub fn way(module: &Relay, seen: &TransportTrace) -> TransportTrace {
    let mut trace = module.trace().clone();
    trace.name = "WebAssembly module -> compiler".to_owned();
    trace.join(seen);
    trace
}

/// Waits until something can be read from `fd`, or for a pidfd until the process is dead; false when it is too late.
fn ready(fd: impl AsFd, until: Instant) -> bool {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let wait = Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&wait)) {
            Err(rustix::io::Errno::INTR) => {}
            answer => return matches!(answer, Ok(1)),
        }
    }
}

/// Everything that the process writes until it closes its end; `None` when that takes too long.
fn read_answer(mut stdout: ChildStdout, until: Instant) -> Option<Vec<u8>> {
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    loop {
        if !ready(&stdout, until) {
            return None;
        }
        match stdout.read(&mut piece) {
            Ok(0) => return Some(answer),
            Ok(n) if answer.len() + n <= MOST => answer.extend_from_slice(&piece[..n]),
            Ok(_) => return Some(Vec::new()),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return Some(answer),
        }
    }
}
