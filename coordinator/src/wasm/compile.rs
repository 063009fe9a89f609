//! One module, one compiler process, under a time and memory budget; the artefact is sealed when it is gone.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use quintet_protocol::handshake::{decode, encode};
use quintet_protocol::payload::{Outgoing, PayloadKind, SealError, Strategy, TransportTrace, open_memfd};
use quintet_protocol::wasm::{CompileLimits, CompileOrder, CompileReply, Compiled};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::config::UsageError;
use crate::sandbox;
use crate::supervise::spawner::spawn_compiler;

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
            Self::Refused { trace, .. } => Some(trace),
            _ => None,
        }
    }
}

/// The compiler's executable, opened once.
#[derive(Debug)]
pub struct Compiler(File);

impl Compiler {
    /// Opens the executable beside the running one, else in `../libexec/quintet`.
    ///
    /// # Errors
    /// [`UsageError`] when it is in neither place: it is built by a call of cargo of its own.
    pub fn open() -> Result<Self, UsageError> {
        let own = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("quintet"));
        let dir = own.parent().unwrap_or(Path::new("."));
        Self::open_near(dir)
    }

    /// As [`Self::open`] for an executable in `dir`.
    ///
    /// # Errors
    /// [`UsageError`].
    pub fn open_near(dir: &Path) -> Result<Self, UsageError> {
        [dir.to_owned(), dir.join("../libexec/quintet")]
            .iter()
            .find_map(|d| File::open(d.join(BINARY)).ok())
            .map(Self)
            .ok_or_else(|| {
                UsageError(format!(
                    "Cannot open {BINARY} in {}; build it with `cargo build -p {BINARY}`",
                    dir.display()
                ))
            })
    }

    /// Compiles `module`. To be called by a thread that outlives the process it starts (the one that runs the
    /// machine): the compiler is killed when the thread ends.
    ///
    /// # Errors
    /// [`CompileError`].
    pub fn compile(
        &self,
        module: &Outgoing,
        limits: &CompileLimits,
        sandboxed: bool,
        refuse_map: bool,
    ) -> Result<Product, CompileError> {
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
        let order = encode(&CompileOrder {
            module: module.grant(module_number),
            output: number,
            limits: *limits,
            confinement,
            refuse_map,
        });
        let reply = self.ask(inherit, &order, Duration::from_millis(limits.millis))?;
        let mut trace = module.trace().clone();
        trace.name = "WebAssembly module -> compiler".to_owned();
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

    /// Starts a process, gives it the order, and waits for answer and end.
    fn ask(
        &self,
        inherit: Vec<OwnedFd>,
        order: &[u8],
        limit: Duration,
    ) -> Result<CompileReply, CompileError> {
        let start = Instant::now();
        let mut child = spawn_compiler(self.0.as_fd(), inherit).map_err(CompileError::Start)?;
        let mut stdin = child.stdin.take().expect("piped");
        // It reads everything before it does anything else; one that does not has died, and its end tells more.
        let _ = stdin.write_all(order);
        drop(stdin);
        let answer = read_answer(&mut child, start, limit);
        if answer.is_none() {
            let _ = child.kill();
        }
        let mut said = String::new();
        let status = child.wait().map_err(CompileError::Start)?;
        if let Some(stderr) = child.stderr.take() {
            let _ = stderr.take(4096).read_to_string(&mut said);
        }
        let Some(answer) = answer else {
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

/// Everything that the process writes until it closes its end; `None` when that takes too long.
fn read_answer(child: &mut Child, start: Instant, limit: Duration) -> Option<Vec<u8>> {
    let mut stdout = child.stdout.take().expect("piped");
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let left = limit.checked_sub(start.elapsed())?;
        let wait = Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let mut fds = [PollFd::new(&stdout, PollFlags::IN)];
        match poll(&mut fds, Some(&wait)) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return Some(answer),
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
