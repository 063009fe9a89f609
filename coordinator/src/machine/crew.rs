//! Who works for a machine, before anybody starts: what the user named is open, and the coordinator has given up what it does
//! not need any more.
//!
//! The order matters. Files may take root's rights or lie where nothing can be written later, so they are opened first. Then this
//! process, which still has one thread, confines itself; whatever it starts inherits that.

use std::os::fd::AsRawFd as _;

use quintet_protocol::control::Drive;
use quintet_protocol::handshake::confine::paths::is_directory;
use quintet_protocol::handshake::{Network, Role};

use super::confined::Confined;
use super::shelf::Shelf;
use crate::config::{MachineConfig, UsageError, reason};
use crate::images;
use crate::metrics::MetricsArg;
use crate::sandbox;
use crate::sandbox::own::{self, Tracing};
use crate::sound::Audio;
use crate::supervise::binaries::Binaries;
use crate::supervise::spawner::Spawner;
use crate::supervise::start::Plan;
use crate::wasm::Compiler;
use crate::window_files::WindowFiles;

/// The workers of a machine, none of which has started.
#[derive(Debug)]
pub(super) struct Crew {
    /// What each is started with.
    pub(super) plans: [Plan; 4],
    /// Their executables; none when they are threads.
    pub(super) binaries: Option<Binaries>,
    /// Who starts them.
    pub(super) spawner: Spawner,
    /// Who compiles, for a machine of modules.
    pub(super) compiler: Option<Compiler>,
    /// What of the coordinator's own confinement could not be applied.
    pub(super) confined: Confined,
    /// What can be put into drives later.
    pub(super) shelves: [Shelf; 2],
}

impl Crew {
    /// Opens what the user named and the executables, and confines this process.
    ///
    /// # Errors
    /// [`UsageError`] for what cannot be opened.
    pub(super) fn assemble(config: &MachineConfig, window_files: &WindowFiles) -> Result<Self, UsageError> {
        let mut plans = plans(config)?;
        let files = &plans[Role::Io.index() - 1].host_fds;
        let shelves = [
            Shelf::open(config, Drive::Floppy, files)?,
            Shelf::open(config, Drive::Cdrom, files)?,
        ];
        let binaries = match config.single_process {
            true => None,
            false => Some(Binaries::open().map_err(|e| UsageError(e.to_string()))?),
        };
        let mut missing = Vec::new();
        // A worker that needs the host's network cannot be born without it.
        let empty = config.sandbox
            && plans
                .iter()
                .all(|plan| !matches!(plan.confinement.network, Network::Host(_)));
        if config.sandbox {
            // By descriptor: what the user named may be somewhere else by now.
            let fds = plans.iter().flat_map(|plan| &plan.host_fds);
            let dirs = fds
                .filter(|fd| is_directory(fd))
                .map(|fd| format!("/proc/self/fd/{}", fd.as_raw_fd()).into())
                .chain(window_files.folders());
            // Where a worker cannot have a network of its own, a window may need an abstract address; what this process may not, it
            // may not either.
            let sockets = plans.iter().any(|plan| plan.confinement.abstract_sockets);
            // The socket's name goes when the machine does.
            let remove: Vec<_> = config.metrics.iter().filter_map(MetricsArg::directory).collect();
            // What somebody else has started is not of our making, and has to be ended all the same.
            let signals = !config.external.is_empty();
            missing = own::restrict(dirs, &remove, sockets, signals);
        }
        let spawner = Spawner::start(empty).map_err(|e| UsageError(format!("Cannot start a thread: {e}")))?;
        if empty {
            // Who is not forked here is not born there, and leaves the host's network by itself.
            let forked = |plan: &&mut Plan| !config.external.contains(&plan.role);
            for plan in plans.iter_mut().filter(forked) {
                plan.confinement.network = spawner.network();
            }
        }
        let compiler = config
            .wasm
            .is_some()
            .then(|| Compiler::open(spawner.clone(), config.sandbox))
            .transpose()?;
        let mut confined = Confined::default();
        if config.sandbox {
            missing.extend(own::give_up_rights());
            match own::tracing() {
                Tracing::NoYama(text) => missing.push(text),
                Tracing::Off(text) => confined.note(text),
                Tracing::Restricted => {}
            }
        }
        confined.learn(Role::Coordinator, missing);
        Ok(Self {
            plans,
            binaries,
            spawner,
            compiler,
            confined,
            shelves,
        })
    }
}

/// A worker's configuration as it goes to it.
pub(super) fn encode(config: &impl serde::Serialize) -> Vec<u8> {
    postcard::to_allocvec(config).expect("configurations are plain data in a growing buffer")
}

/// What each worker is started with.
fn plans(config: &MachineConfig) -> Result<[Plan; 4], UsageError> {
    let bytes = |role: Role| match role {
        Role::Cpu => encode(&config.cpu),
        Role::Io => encode(&config.io),
        Role::Gpu => encode(&config.gpu),
        Role::Audio | Role::Coordinator => encode(&config.audio_config()),
    };
    let plan = |role: Role| -> Result<Plan, UsageError> {
        let mut host_fds = Vec::new();
        if let (Role::Audio, Audio::Wav(path)) = (role, &config.audio) {
            // A successor reads what its predecessor wrote before it appends.
            let file = std::fs::File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(path)
                .map_err(|e| UsageError(format!("Cannot write \"{}\": {}", path.display(), reason(&e))))?;
            host_fds.push(file.into());
        }
        let dirs = config.wasm.as_ref().map_or(&[][..], |wasm| &wasm.dirs);
        if role == Role::Io {
            host_fds = images::open(&config.images)?;
            for dir in dirs {
                host_fds.push(dir.open()?);
            }
        }
        let policy = match role {
            Role::Cpu if config.wasm.is_some() => "cpu-wasm",
            Role::Io if !dirs.is_empty() => "io-files",
            role => role.name(),
        };
        let confinement = match role {
            Role::Gpu if !config.gpu.headless => sandbox::window_confinement(config.sandbox),
            Role::Audio if config.audio == Audio::Host => sandbox::sound_confinement(config.sandbox),
            _ => sandbox::confinement_by(policy, config.sandbox),
        };
        let confinement = confinement.map_err(|e| UsageError(e.to_string()))?;
        Ok(Plan {
            role,
            config: bytes(role),
            host_fds,
            confinement,
            log: config.log.clone(),
        })
    };
    let [cpu, io, gpu, audio] = Role::WORKERS;
    Ok([plan(cpu)?, plan(io)?, plan(gpu)?, plan(audio)?])
}
