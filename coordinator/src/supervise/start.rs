//! The coordinator's side of a worker's start: server, spawn, conversation, verdict of the wiring probe.
//!
//! `IpcOneShotServer::accept` knows no deadline and waits for ever for a child that died first. So it runs on a
//! thread of its own while the main loop watches the child's pidfd and the clock; when the child is gone,
//! [`unblock`] connects in its place, and the thread ends.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::Sender;

use ipc_channel::ipc::{IpcOneShotServer, IpcSender};
use quintet_protocol::control::{Answer, encode_answer};
use quintet_protocol::handshake::by_hand::Joined;
use quintet_protocol::handshake::files::layout_hash;
use quintet_protocol::handshake::worker::{Bootstrap, CONNECT_ARGUMENT, MESSAGE_DEADLINE};
use quintet_protocol::handshake::{
    Confinement, FileId, Hello, Mapped, ProbeResult, Proceed, Role, decode, encode,
};
use quintet_protocol::layout::{SegmentSet, SetError};
use quintet_protocol::lifecycle::Policy;
use quintet_protocol::payload::{Outgoing, PayloadKind, send_fds};
use quintet_protocol::probe::CoordinatorProbe;
use quintet_protocol::shm::ViewMut;

use super::binaries::Binaries;
use super::spawner::{Order, Spawned, Spawner};
use crate::machine::{Event, Waker};

/// The coordinator's own writable maps of every file's head, for probes.
#[derive(Debug)]
pub struct Heads(Vec<(FileId, ViewMut, u64)>);

impl Heads {
    /// Maps the heads of all files.
    ///
    /// # Errors
    /// [`SetError`].
    pub fn map(set: &SegmentSet) -> Result<Self, SetError> {
        set.files()
            .map(|file| Ok((file, set.head(file)?, set.len(file))))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    fn of(&self, role: Role) -> impl Iterator<Item = (FileId, ViewMut, u64)> + '_ {
        self.0.iter().filter(move |(f, ..)| f.needed_by(role)).cloned()
    }
}

/// What a worker is started with; the same for every process that has the role.
#[derive(Debug)]
pub struct Plan {
    /// Which worker.
    pub role: Role,
    /// Postcard bytes of its configuration.
    pub config: Vec<u8>,
    /// Host files that it gets.
    pub host_fds: Vec<OwnedFd>,
    /// What it gives up.
    pub confinement: Confinement,
    /// Log filter.
    pub log: String,
}

/// What all starts of a machine share.
#[derive(Debug)]
pub struct Common {
    /// The files.
    pub set: Arc<SegmentSet>,
    /// Their heads.
    pub heads: Heads,
    /// The workers' executables.
    pub binaries: Binaries,
    /// Kernel and modules.
    pub payloads: Vec<Outgoing>,
    /// Read end of the pipe whose write end only the coordinator holds.
    pub parent_pipe: OwnedFd,
}

/// A start under way.
#[derive(Debug)]
pub struct Begun {
    /// The process.
    pub spawned: Spawned,
    /// Name of its server, for [`unblock`].
    pub server: String,
}

/// Whether `role` is given a payload of `kind`.
pub fn wants(role: Role, kind: &PayloadKind) -> bool {
    match kind {
        PayloadKind::Kernel | PayloadKind::Initrd { .. } | PayloadKind::Firmware | PayloadKind::VgaRom => {
            role == Role::Io
        }
        // They come with an order.
        PayloadKind::WasmArtefact | PayloadKind::WasmModule => false,
    }
}

/// Who is told when a conversation is over: the main loop.
pub type Listener = (Sender<Event>, Waker);

/// Spawns a process and talks it through its start on a thread, which reports [`Event::Started`].
/// `orders` is the worker's end of a socket of its own.
///
/// # Errors
/// The host's: no descriptors, no memory, no executable.
pub fn begin(
    common: &Arc<Common>,
    plan: &Plan,
    orders: Option<OwnedFd>,
    generation: u32,
    spawner: &Spawner,
    listener: Listener,
) -> std::io::Result<Begun> {
    let start = Start::prepare(common, plan, orders, generation)?;
    let order = Order {
        binary: common.binaries.of(plan.role),
        name: plan.role.binary(),
        args: vec![CONNECT_ARGUMENT.to_owned(), start.name.clone()],
        input: None,
        answers: false,
        inherit: start.give,
        log: plan.log.clone(),
        confined: plan.confinement.enabled,
    };
    let spawned = spawner.spawn(order)?;
    talk(common, start.server, start.hello, None, listener)?;
    Ok(Begun {
        spawned,
        server: start.name,
    })
}

/// As [`begin`] for the process `pid`, which somebody else has started and which asks through `socket`. Answers the name of the server, for
/// [`unblock`].
///
/// # Errors
/// The host's, also when the process is gone.
pub fn admit(
    common: &Arc<Common>,
    plan: &Plan,
    orders: Option<OwnedFd>,
    generation: u32,
    (pid, socket): (u32, &OwnedFd),
    listener: Listener,
) -> std::io::Result<String> {
    let start = Start::prepare(common, plan, orders, generation)?;
    let joined = Answer::Joined(Joined {
        server: start.name.clone(),
        numbers: start.give.iter().map(|fd| fd.as_raw_fd()).collect(),
        log: plan.log.clone(),
        confined: plan.confinement.enabled,
    });
    let fds: Vec<_> = start.give.iter().map(|fd| fd.as_fd()).collect();
    send_fds(socket, &encode_answer(&joined), &fds).map_err(std::io::Error::other)?;
    talk(common, start.server, start.hello, Some(pid), listener)?;
    Ok(start.name)
}

/// A start of which the process knows nothing yet.
struct Start {
    server: IpcOneShotServer<Bootstrap>,
    /// Name of the server.
    name: String,
    hello: Hello,
    /// The descriptors of which the hello speaks.
    give: Vec<OwnedFd>,
}

impl Start {
    fn prepare(
        common: &Common,
        plan: &Plan,
        orders: Option<OwnedFd>,
        generation: u32,
    ) -> std::io::Result<Self> {
        let role = plan.role;
        let (server, name) = IpcOneShotServer::<Bootstrap>::new()?;
        // The process before this one has been reaped, and may have been killed in the middle of a wait.
        common.set.place_events(role).map_err(std::io::Error::other)?;
        let mut fds = Vec::new();
        let mut give = |fd: OwnedFd| {
            let number = fd.as_raw_fd();
            fds.push(fd);
            number
        };
        let mut files = Vec::new();
        for id in common.set.files().filter(|f| f.needed_by(role)) {
            let (grant, fd) = common.set.grant(id, role).map_err(std::io::Error::other)?;
            fd.map(&mut give);
            files.push(grant);
        }
        let mut payloads = Vec::new();
        for payload in common.payloads.iter().filter(|p| wants(role, p.kind())) {
            let number = match payload.fd() {
                Some(fd) => give(fd.try_clone_to_owned()?),
                None => -1,
            };
            payloads.push(payload.grant(number));
        }
        let mut host_fds = Vec::new();
        if let Some(orders) = orders {
            host_fds.push(give(orders));
        }
        for fd in &plan.host_fds {
            host_fds.push(give(fd.try_clone()?));
        }
        let parent_pipe = give(common.parent_pipe.try_clone()?);
        let hello = Hello {
            layout_hash: layout_hash(),
            role,
            generation,
            instance: common.set.instance(),
            ram: common.set.ram_layout(),
            files,
            config: plan.config.clone(),
            payloads,
            host_fds,
            parent_pipe,
            confinement: plan.confinement.clone(),
        };
        Ok(Self {
            server,
            name,
            hello,
            give: fds,
        })
    }
}

/// Holds the conversation on a thread. `pid` is the process that was started by hand.
fn talk(
    common: &Arc<Common>,
    server: IpcOneShotServer<Bootstrap>,
    hello: Hello,
    pid: Option<u32>,
    (events, waker): Listener,
) -> std::io::Result<()> {
    let common = Arc::clone(common);
    let (role, generation) = (hello.role, hello.generation);
    std::thread::Builder::new()
        .name(format!("start-{}", role.name()))
        .spawn(move || {
            let result = converse(&common, server, &hello, pid);
            let _ = events.send(Event::Started {
                role,
                generation,
                result,
            });
            waker.wake();
        })?;
    Ok(())
}

/// Ends an `accept` whose child is gone.
pub fn unblock(server: &str) {
    let _ = IpcSender::<Bootstrap>::connect(server.to_owned());
}

fn converse(
    common: &Common,
    server: IpcOneShotServer<Bootstrap>,
    hello: &Hello,
    pid: Option<u32>,
) -> Result<Mapped, String> {
    let role = hello.role;
    let patience = match pid {
        Some(_) => Policy::default().by_hand_patience,
        None => MESSAGE_DEADLINE,
    };
    let lost = |e: &dyn std::fmt::Display| format!("the start-up conversation broke off: {e}");
    let (_connection, bootstrap) = server.accept().map_err(|e| lost(&e))?;
    let say = |bytes| bootstrap.to_worker.send(bytes).map_err(|e| lost(&e));
    let next = || {
        bootstrap
            .from_worker
            .try_recv_timeout(patience)
            .map_err(|e| lost(&e))
    };

    say(encode(hello))?;
    let mapped: Mapped = decode(&next()?).map_err(|e| e.to_string())?;
    if mapped.layout_hash != hello.layout_hash {
        return refuse(
            say,
            format!("its layout is {:#x}: it is of another build", mapped.layout_hash),
        );
    }
    if let Some(pid) = pid.filter(|&pid| u32::try_from(mapped.pid) != Ok(pid)) {
        return refuse(
            say,
            format!("it calls itself process {}, the kernel {pid}", mapped.pid),
        );
    }
    let probe = CoordinatorProbe::begin(role, common.heads.of(role), random);
    say(encode(&probe.go()))?;
    let result: ProbeResult = decode(&next()?).map_err(|e| e.to_string())?;
    if let Err(e) = probe.finish(&result) {
        return refuse(say, e.to_string());
    }
    if let Some(fault) = mapped.faults.first() {
        return refuse(say, format!("Wiring of the {role}: {fault}"));
    }
    say(encode(&Proceed { refused: None }))?;
    Ok(mapped)
}

fn refuse(say: impl Fn(Vec<u8>) -> Result<(), String>, reason: String) -> Result<Mapped, String> {
    let _ = say(encode(&Proceed {
        refused: Some(reason.clone()),
    }));
    Err(reason)
}

/// A number that nobody can have left over: the standard library seeds its hashers from the kernel.
pub fn random_u64() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    std::hash::RandomState::new().build_hasher().finish()
}

fn random() -> u32 {
    random_u64() as u32
}
