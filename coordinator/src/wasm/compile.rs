//! One module, one compiler process, under a time and memory budget; the artefact is sealed when it is gone.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::process::ChildStdout;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quintet_protocol::handshake::{decode, encode};
use quintet_protocol::payload::{
    Outgoing, PayloadKind, ReceiveError, Relay, SealError, Strategy, TransportTrace, open_memfd, sealed_memfd,
};
use quintet_protocol::wasm::{CompileLimits, CompileOrder, CompileReply, Compiled};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, pidfd_send_signal};

use crate::config::UsageError;
use crate::sandbox;
use crate::supervise::binaries::{open_one, own_directory};
use crate::supervise::spawner::{Order, Spawned, Spawner};

/// File name of the compiler's executable.
pub const BINARY: &str = "quintet-wasm-compile";
/// Longest answer in bytes.
const MOST: usize = 1 << 20;

/// What came of a module.
#[derive(Debug)]
pub struct Product {
    /// The artefact, sealed.
    pub payload: Outgoing,
    /// What the compiler said of it.
    pub compiled: Compiled,
    /// How the module reached the compiler.
    pub strategy: Strategy,
    /// Its way, seen from both sides.
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

/// The compiler's executable, opened once, and who starts it. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Compiler {
    binary: Arc<File>,
    spawner: Spawner,
}

impl Compiler {
    /// Opens the executable beside the running one, else in `../libexec/quintet`.
    ///
    /// # Errors
    /// [`UsageError`] when it is in neither place: it is built by a call of cargo of its own.
    pub fn open(spawner: Spawner) -> Result<Self, UsageError> {
        let binary = open_one(&own_directory(), BINARY)
            .map_err(|e| UsageError(format!("{e} (`cargo build -p {BINARY}`)")))?;
        Ok(Self { binary, spawner })
    }

    /// Compiles `module`, taking its digest meanwhile; takes as long as `limits` allow, and can be called by several threads at
    /// once.
    ///
    /// # Errors
    /// [`CompileError`].
    pub fn compile(
        &self,
        module: &mut Relay,
        limits: &CompileLimits,
        sandboxed: bool,
        refuse_map: bool,
    ) -> Result<Product, CompileError> {
        let asked = module.check_beside(|module| self.send(module, limits, sandboxed, refuse_map));
        let mut trace = module.trace().clone();
        trace.name = "WebAssembly module -> compiler".to_owned();
        let (output, reply) = match asked {
            Ok(answer) => answer?,
            Err(reason) => {
                let trace = Box::new(trace);
                return Err(CompileError::NotAnnounced { reason, trace });
            }
        };
        trace.join(&reply.trace);
        match (reply.result, reply.strategy) {
            (Ok(compiled), Some(strategy)) => {
                // The compiler has been reaped: nobody has a writable map, and nobody will.
                let payload =
                    Outgoing::adopt(PayloadKind::WasmArtefact, output, compiled.len, compiled.digest)?;
                Ok(Product {
                    payload,
                    compiled,
                    strategy,
                    trace,
                })
            }
            (result, _) => Err(CompileError::Refused {
                reason: result.err().unwrap_or_default(),
                trace: Box::new(trace),
            }),
        }
    }

    /// Gives `module` to a new process. Answers the file that it was to write, and what it says.
    fn send(
        &self,
        module: &Outgoing,
        limits: &CompileLimits,
        sandboxed: bool,
        refuse_map: bool,
    ) -> Result<(OwnedFd, CompileReply), CompileError> {
        let output = open_memfd()?;
        let given = output.try_clone().map_err(CompileError::Start)?;
        let number = given.as_raw_fd();
        let mut inherit = vec![given];
        let mut module_number = -1;
        if let Some(fd) = module.fd() {
            let fd = fd.try_clone_to_owned().map_err(CompileError::Start)?;
            module_number = fd.as_raw_fd();
            inherit.push(fd);
        }
        let mut confinement = sandbox::confinement_by("compile", sandboxed)
            .map_err(|e| CompileError::Start(std::io::Error::other(e)))?;
        confinement.max_data = Some(limits.memory);
        // No artefact is larger than what it was made in.
        confinement.max_file_size = Some(limits.memory);
        confinement.network = self.spawner.network();
        let order = encode(&CompileOrder {
            module: module.grant(module_number),
            output: number,
            limits: *limits,
            confinement,
            refuse_map,
        });
        let reply = self.ask(inherit, &order, Duration::from_millis(limits.millis))?;
        Ok((output, reply))
    }

    /// Starts a process, gives it the order, and waits for answer and end.
    fn ask(
        &self,
        inherit: Vec<OwnedFd>,
        order: &[u8],
        limit: Duration,
    ) -> Result<CompileReply, CompileError> {
        let until = Instant::now() + limit;
        // A file and not a pipe, which a process that does not read would block.
        let input = sealed_memfd(order)?;
        let order = Order {
            binary: Arc::clone(&self.binary),
            name: BINARY,
            args: Vec::new(),
            input: Some(input),
            answers: true,
            inherit,
            log: String::new(),
            confined: true,
        };
        let Spawned { mut child, pidfd } = self.spawner.spawn(order).map_err(CompileError::Start)?;
        let answer = child.stdout.take().map(|stdout| read_answer(stdout, until));
        let in_time = matches!(answer, Some(Some(_))) && ready(&pidfd, until);
        if !in_time {
            let _ = pidfd_send_signal(&pidfd, Signal::KILL);
        }
        let status = child.wait().map_err(CompileError::Start)?;
        let mut said = String::new();
        if let Some(stderr) = child.stderr.take() {
            let _ = stderr.take(4096).read_to_string(&mut said);
        }
        let (true, Some(Some(answer))) = (in_time, answer) else {
            return Err(CompileError::Timeout(limit));
        };
        if !said.is_empty() {
            tracing::warn!("the compiler said: {}", said.trim());
        }
        decode(&answer).map_err(|_| CompileError::Died {
            how: status.to_string(),
            said: said.lines().last().map(|l| format!(": {l}")).unwrap_or_default(),
        })
    }
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
