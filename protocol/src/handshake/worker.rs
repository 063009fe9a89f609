//! The worker's side of the start: from its command line to a [`WorkerContext`].
#![allow(
    unsafe_code,
    reason = "takes the descriptors that were inherited under listed numbers"
)]

use std::os::fd::{AsFd, FromRawFd as _, OwnedFd};
use std::process::ExitCode;
use std::time::Duration;

use ipc_channel::ipc::{IpcReceiver, IpcSender};
use serde::{Deserialize, Serialize};

use super::files::{HeaderError, check_header, layout_hash};
use super::{
    FileId, FileSource, Hello, MapSet, Mapped, MessageError, ParentWatch, ProbeGo, Proceed, Role,
    WorkerContext, WorkerError, confine, decode, encode,
};
use crate::payload::{Payload, ReceiveError, Transport, TransportTrace};
use crate::probe;
use crate::ram::{GUEST_BASE, GuestRam, MAP_START};
use crate::shm::{Map, MapError, portable};

/// First argument of a worker's command line; the name of the one-shot server follows.
pub const CONNECT_ARGUMENT: &str = "--connect";
/// How long either side waits for the other's next message.
pub const MESSAGE_DEADLINE: Duration = Duration::from_secs(10);

/// Exit status of a worker that was told to end.
pub const EXIT_STOPPED: u8 = 0;
/// Exit status of a worker started by hand.
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
    let mut arguments = std::env::args().skip(1);
    let (Some(flag), Some(server)) = (arguments.next(), arguments.next()) else {
        return by_hand(role);
    };
    if flag != CONNECT_ARGUMENT {
        return by_hand(role);
    }
    // Executed by descriptor, the process would be called by a number.
    let short = std::ffi::CString::new(format!("quintet-{}", role.name())).expect("no zero byte");
    let _ = rustix::thread::set_name(&short);
    log_to_stderr();
    exit_on_panic();
    let (context, parent) = match start(role, server) {
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

fn by_hand(role: Role) -> ExitCode {
    eprintln!(
        "{} is part of quintet and is started by it: type `quintet --help`",
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
fn log_to_stderr() {
    let wanted = std::env::var("QUINTET_LOG").unwrap_or_default();
    let mut filter = tracing_subscriber::EnvFilter::try_new(&wanted)
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

/// A panic of any thread ends the process: half a worker would look alive.
fn exit_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        print(info);
        std::process::exit(i32::from(EXIT_FAILED));
    }));
}

fn start(role: Role, server: String) -> Result<(WorkerContext, ParentWatch), StartError> {
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
    let (maps, ram) = map_files(&hello)?;
    let faults = match std::fs::read_to_string("/proc/self/smaps") {
        Ok(smaps) => probe::judge_maps(&smaps, role, &maps),
        Err(e) => vec![format!("the maps cannot be judged: /proc/self/smaps: {e}")],
    };
    // SAFETY: the coordinator lists each inherited number once, and nothing else in this process owns it.
    let own = |number| unsafe { OwnedFd::from_raw_fd(number) };
    let parent = ParentWatch::new(Some(own(hello.parent_pipe)));
    let host_fds = hello.host_fds.iter().map(|&n| own(n)).collect();
    let mut traces = Vec::new();
    let payloads = hello
        .payloads
        .into_iter()
        .map(|grant| {
            let fd = match grant.transport {
                Transport::Memfd(number) => Some(own(number)),
                Transport::Inline(_) => None,
            };
            let mut trace = TransportTrace::new(grant.kind.text());
            let payload = Payload::receive_traced(grant, fd, Map::private, &mut trace);
            if payload.is_err() {
                eprint!("{trace}");
            }
            traces.push(trace);
            payload
        })
        .collect::<Result<Vec<_>, _>>()?;
    // Read what the kernel told this process at its start while that may still be read: page size, vDSO.
    let _ = (rustix::param::page_size(), crate::time::HostTime::now());
    let unconfined = confine::confine(&hello.confinement);
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
fn map_files(hello: &Hello) -> Result<(MapSet, GuestRam), StartError> {
    let mut maps = MapSet::default();
    let mut ram = None;
    for grant in &hello.files {
        let file = grant.id;
        let writable = file.writable_by(hello.role);
        let start = file.map_start();
        let len = grant.len.saturating_sub(start);
        let map = match &grant.source {
            FileSource::Descriptor(number) => {
                // SAFETY: the coordinator lists each inherited number once, and nothing else in this process
                // owns it.
                let fd = unsafe { OwnedFd::from_raw_fd(*number) };
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
