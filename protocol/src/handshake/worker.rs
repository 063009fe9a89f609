//! The worker's side of the start: from its command line to a [`WorkerContext`].
#![allow(
    unsafe_code,
    reason = "takes the descriptors that were inherited under listed numbers"
)]

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::process::ExitCode;
use std::time::Duration;

use ipc_channel::ipc::{IpcReceiver, IpcSender};
use serde::{Deserialize, Serialize};

use super::by_hand::{JOIN_ARGUMENT, join};
use super::files::{HeaderError, check_header, layout_hash};
use super::{
    FileId, FileSource, Hello, MapSet, Mapped, MessageError, ParentWatch, ProbeGo, Proceed, Role,
    WorkerContext, WorkerError, confine, decode, encode,
};
use crate::payload::{Payload, ReceiveError, Transport, TransportTrace};
use crate::probe;
use crate::ram::{GUEST_BASE, GuestRam, MAP_START};
use crate::shm::{Map, MapError, portable};

/// This file, as line tables have it behind the directory of the sources: every program of ours contains it.
pub const SOURCE: &str = file!();

/// First argument of a worker's command line; the name of the one-shot server follows.
pub const CONNECT_ARGUMENT: &str = "--connect";
/// How long either side waits for the other's next message.
pub const MESSAGE_DEADLINE: Duration = Duration::from_secs(10);

/// Exit status of a worker that was told to end.
pub const EXIT_STOPPED: u8 = 0;
/// Exit status of a worker whose command line is wrong, or that no machine waits for.
pub const EXIT_USAGE: u8 = 64;
/// Exit status of a worker that failed; a restart may help.
pub const EXIT_FAILED: u8 = 70;
/// Exit status of a worker whose configuration cannot work.
pub const EXIT_CONFIG: u8 = 78;
/// Exit status of a worker whose coordinator is gone.
pub const EXIT_ORPHANED: u8 = 75;

/// The two channels of a start, as the worker offers them.
#[derive(Debug, Serialize, Deserialize)]
pub struct Bootstrap {
    /// For the coordinator's messages.
    pub to_worker: IpcSender<Vec<u8>>,
    /// For the worker's messages.
    pub from_worker: IpcReceiver<Vec<u8>>,
}

/// Why a worker could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The server's name leads nowhere.
    #[error("Cannot reach the coordinator")]
    Connect(#[source] std::io::Error),
    /// The conversation broke off.
    #[error("The coordinator said nothing more: {0}")]
    Lost(String),
    /// A message was not what it should be.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The hello speaks of a descriptor that was not sent.
    #[error("Descriptor {0} did not come with the others")]
    Descriptor(i32),
    /// The hello is for another role.
    #[error("This is the {ours}, the coordinator wants the {theirs}: wrong executable")]
    Role {
        /// What this executable is.
        ours: Role,
        /// What was asked for.
        theirs: Role,
    },
    /// The other side has another layout.
    #[error("Layout {theirs:#x}, this build has {ours:#x}: coordinator and worker are of different builds")]
    Layout {
        /// Hash of this build.
        ours: u64,
        /// Hash in the hello.
        theirs: u64,
    },
    /// A file could not be mapped.
    #[error("Cannot map {file:?}")]
    Map {
        /// Which.
        file: FileId,
        /// Why.
        source: MapError,
    },
    /// A file of the portable back end could not be mapped.
    #[error("Cannot map {file:?}")]
    Named {
        /// Which.
        file: FileId,
        /// Why.
        source: portable::PortableError,
    },
    /// A file's header is wrong.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// A payload did not arrive whole.
    #[error(transparent)]
    Payload(#[from] ReceiveError),
    /// The coordinator refused after the probe (S3.23).
    #[error("{0}")]
    Refused(String),
    /// The host has no thread left.
    #[error("Cannot start a thread")]
    Thread(#[source] std::io::Error),
}

/// The `main` of every worker: start-up, confinement, probe, then `run`. Answers the exit status.
///
/// The process exits from here too when a thread panics or the coordinator is gone; worker libraries never do.
pub fn worker_main(role: Role, run: impl FnOnce(WorkerContext) -> Result<(), WorkerError>) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (server, descriptors, log, quiet) = match arguments[..] {
        [CONNECT_ARGUMENT, server, ..] => {
            let log = std::env::var("QUINTET_LOG").unwrap_or_default();
            // The coordinator has seen to it that no panic looks for symbols.
            (server.to_owned(), Descriptors::Inherited, log, false)
        }
        [JOIN_ARGUMENT, name, ticket] => match join(role, name, ticket) {
            Ok((joined, fds)) => (joined.server, Descriptors::Sent(fds), joined.log, joined.confined),
            Err(e) => {
                eprintln!("{}: {}", role.binary(), with_sources(&e));
                return EXIT_USAGE.into();
            }
        },
        _ => return usage(role),
    };
    // Executed by descriptor, the process would be called by a number.
    let short = std::ffi::CString::new(format!("quintet-{}", role.name())).expect("no zero byte");
    let _ = rustix::thread::set_name(&short);
    log_to_stderr(&log);
    exit_on_panic(quiet);
    let (context, parent) = match start(role, server, descriptors) {
        Ok(started) => started,
        Err(e) => {
            eprintln!("{}", with_sources(&e));
            return EXIT_FAILED.into();
        }
    };
    let watched = parent.spawn(|| std::process::exit(i32::from(EXIT_ORPHANED)));
    if let Err(e) = watched {
        eprintln!("{}", with_sources(&StartError::Thread(e)));
        return EXIT_FAILED.into();
    }
    match run(context) {
        Ok(()) => EXIT_STOPPED.into(),
        Err(e @ WorkerError::Config(_)) => {
            eprintln!("{}", with_sources(&e));
            EXIT_CONFIG.into()
        }
        Err(e) => {
            eprintln!("{}", with_sources(&e));
            EXIT_FAILED.into()
        }
    }
}

fn usage(role: Role) -> ExitCode {
    eprintln!(
        "{} is part of quintet and is started by it, or by the line that `quintet run --external` prints: type `quintet --help`",
        role.binary()
    );
    EXIT_USAGE.into()
}

/// An error and what caused it, on one line.
pub fn with_sources(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(e) = source {
        line = format!("{line}: {e}");
        source = e.source();
    }
    line
}

/// Log lines go to the standard error, which the coordinator reads; level and target in front of each.
fn log_to_stderr(wanted: &str) {
    let mut filter = tracing_subscriber::EnvFilter::try_new(wanted)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    // A level is about us; what the window system's libraries and drivers chatter is for who asks for it by name.
    if !wanted.contains('=') {
        for chatterer in ["winit", "calloop", "wgpu_core", "wgpu_hal", "naga", "sctk"] {
            let quiet = format!("{chatterer}=error").parse().expect("a directive");
            filter = filter.add_directive(quiet);
        }
    }
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .without_time()
        .try_init();
}

/// A panic of any thread ends the process: half a worker would look alive. A `quiet` one prints no stack, whatever the environment says.
fn exit_on_panic(quiet: bool) {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if quiet {
            let thread = std::thread::current();
            eprintln!("thread '{}' {info}", thread.name().unwrap_or("<unnamed>"));
        } else {
            print(info);
        }
        std::process::exit(i32::from(EXIT_FAILED));
    }));
}

/// Where the descriptors are of which a hello speaks.
#[derive(Debug)]
enum Descriptors {
    /// Under the numbers in the hello: the coordinator has forked this process.
    Inherited,
    /// By the numbers in the hello, wherever they are here.
    Sent(BTreeMap<i32, OwnedFd>),
}

impl Descriptors {
    /// That of a number, which the hello lists once.
    fn take(&mut self, number: i32) -> Result<OwnedFd, StartError> {
        match self {
            // SAFETY: the coordinator lists each inherited number once, and nothing else in this process owns it.
            Self::Inherited => Ok(unsafe { OwnedFd::from_raw_fd(number) }),
            Self::Sent(fds) => fds.remove(&number).ok_or(StartError::Descriptor(number)),
        }
    }
}

fn start(
    role: Role,
    server: String,
    mut descriptors: Descriptors,
) -> Result<(WorkerContext, ParentWatch), StartError> {
    let connection = IpcSender::connect(server).map_err(StartError::Connect)?;
    let (to_worker, messages) = ipc_channel::ipc::channel().map_err(StartError::Connect)?;
    let (answers, from_worker) = ipc_channel::ipc::channel().map_err(StartError::Connect)?;
    connection
        .send(Bootstrap {
            to_worker,
            from_worker,
        })
        .map_err(|e| StartError::Lost(e.to_string()))?;
    drop(connection);
    let next = || {
        messages
            .try_recv_timeout(MESSAGE_DEADLINE)
            .map_err(|e| StartError::Lost(e.to_string()))
    };
    let say = |bytes| answers.send(bytes).map_err(|e| StartError::Lost(e.to_string()));

    let hello: Hello = decode(&next()?)?;
    if hello.role != role {
        return Err(StartError::Role {
            ours: role,
            theirs: hello.role,
        });
    }
    if hello.layout_hash != layout_hash() {
        return Err(StartError::Layout {
            ours: layout_hash(),
            theirs: hello.layout_hash,
        });
    }
    let (maps, ram) = map_files(&hello, &mut descriptors)?;
    let faults = match std::fs::read_to_string("/proc/self/smaps") {
        Ok(smaps) => probe::judge_maps(&smaps, role, &maps),
        Err(e) => vec![format!("the maps cannot be judged: /proc/self/smaps: {e}")],
    };
    let parent = ParentWatch::new(Some(descriptors.take(hello.parent_pipe)?));
    let host_fds = hello.host_fds.iter().map(|&n| descriptors.take(n));
    let host_fds = host_fds.collect::<Result<Vec<_>, _>>()?;
    let mut traces = Vec::new();
    let payloads = hello
        .payloads
        .into_iter()
        .map(|grant| {
            let fd = match grant.transport {
                Transport::Memfd(number) => Some(descriptors.take(number)?),
                Transport::Inline(_) => None,
            };
            let mut trace = TransportTrace::new(grant.kind.text());
            let payload = Payload::receive_traced(grant, fd, Map::private, &mut trace);
            if payload.is_err() {
                eprint!("{trace}");
            }
            traces.push(trace);
            payload.map_err(StartError::from)
        })
        .collect::<Result<Vec<_>, _>>()?;
    // Read what the kernel told this process at its start while that may still be read: page size, vDSO.
    let _ = (rustix::param::page_size(), crate::time::HostTime::now());
    let mut confinement = hello.confinement;
    // A worker may do beneath a directory that it is given what its system calls let it.
    let directories = host_fds.iter().filter(|fd| confine::paths::is_directory(fd));
    let paths = directories.map(|fd| format!("/proc/self/fd/{}", fd.as_raw_fd()));
    confinement.write_paths.extend(paths);
    let unconfined = confine::confine(&confinement);
    say(encode(&Mapped {
        layout_hash: layout_hash(),
        pid: std::process::id() as i32,
        faults,
        unconfined,
        traces,
    }))?;
    let go: ProbeGo = decode(&next()?)?;
    say(encode(&probe::answer(role, &maps, go)))?;
    let proceed: Proceed = decode(&next()?)?;
    if let Some(reason) = proceed.refused {
        return Err(StartError::Refused(reason));
    }
    let context = WorkerContext {
        role,
        generation: hello.generation,
        instance: hello.instance,
        ram,
        maps,
        config: hello.config,
        payloads,
        host_fds,
    };
    Ok((context, parent))
}

/// Maps every granted file and closes its descriptor.
fn map_files(hello: &Hello, descriptors: &mut Descriptors) -> Result<(MapSet, GuestRam), StartError> {
    let mut maps = MapSet::default();
    let mut ram = None;
    for grant in &hello.files {
        let file = grant.id;
        let writable = file.writable_by(hello.role);
        let start = file.map_start();
        let len = grant.len.saturating_sub(start);
        let map = match &grant.source {
            FileSource::Descriptor(number) => {
                let fd = descriptors.take(*number)?;
                let map = if writable {
                    Map::read_write(fd.as_fd(), start, len)
                } else {
                    Map::read_only(fd.as_fd(), start, len)
                };
                map.map_err(|source| StartError::Map { file, source })?
            }
            FileSource::Name(id) => portable::open(id, start, len, writable)
                .map_err(|source| StartError::Named { file, source })?,
        };
        let map = std::sync::Arc::new(map);
        if file == FileId::GuestRam && writable {
            if len < GUEST_BASE - MAP_START + hello.ram.total() {
                return Err(StartError::Map {
                    file,
                    source: MapError::Length(len),
                });
            }
            ram = Some(GuestRam::of_map(std::sync::Arc::clone(&map), hello.ram));
        }
        maps.insert_shared(file, map);
        check_header(&maps.head(file), file, hello.layout_hash, hello.instance)?;
    }
    let ram = match ram {
        Some(ram) => ram,
        // gpu- and audio-worker do not touch guest RAM: an empty stand-in keeps the type simple.
        None => GuestRam::anonymous(crate::ram::RamLayout::new(0)).map_err(|source| StartError::Map {
            file: FileId::GuestRam,
            source,
        })?,
    };
    Ok((maps, ram))
}
