//! `--single-process`: each worker a thread, for debugging and for differential tests.
//!
//! The libraries get the same context as in a process of their own, with maps of their own of the same files,
//! so that a stray pointer is the only new way to go wrong. Nothing is confined, and a thread cannot be
//! killed: a fault that would kill a worker is refused.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use quintet_protocol::handshake::{Role, WorkerContext, WorkerError};
use quintet_protocol::layout::SegmentSet;
use quintet_protocol::lifecycle::Death;
use quintet_protocol::payload::{Outgoing, Payload};
use quintet_protocol::ram::{GuestRam, RamLayout};

use crate::machine::{Event, Waker};
use crate::supervise::start::{Plan, wants};

/// The `run` of a worker library.
type Run = fn(WorkerContext) -> Result<(), WorkerError>;

/// The library of a role. Panics for the coordinator.
fn library(role: Role) -> Run {
    match role {
        Role::Io => quintet_io_worker::run::run,
        Role::Gpu => quintet_gpu_worker::run,
        Role::Audio => quintet_audio_worker::run,
        Role::Cpu => quintet_cpu_worker::machine::worker::run,
        Role::Coordinator => panic!("the coordinator is nobody's worker"),
    }
}

/// Workers as threads.
#[derive(Debug)]
pub struct Threads {
    set: Arc<SegmentSet>,
    payloads: Vec<Outgoing>,
    plans: [Plan; 4],
    events: Sender<Event>,
    waker: Waker,
}

impl Threads {
    /// Prepares the threads of a machine; none is started.
    pub fn new(
        set: Arc<SegmentSet>,
        payloads: Vec<Outgoing>,
        plans: [Plan; 4],
        events: Sender<Event>,
        waker: Waker,
    ) -> Self {
        Self {
            set,
            payloads,
            plans,
            events,
            waker,
        }
    }

    /// What a worker is started with.
    pub fn plan(&mut self, role: Role) -> &mut Plan {
        &mut self.plans[role.index() - 1]
    }

    /// Starts a worker. `orders` is its end of a socket of its own.
    ///
    /// # Errors
    /// The host's: no maps, descriptors or threads left.
    pub fn spawn(&self, role: Role, generation: u32, orders: Option<OwnedFd>) -> std::io::Result<()> {
        let context = self.context(role, generation, orders)?;
        let (events, waker) = (self.events.clone(), self.waker.clone());
        std::thread::Builder::new()
            .name(format!("{role}"))
            .spawn(move || {
                let result = std::panic::catch_unwind(|| library(role)(context));
                let death = match result {
                    Ok(Ok(())) => Death::Stopped,
                    Ok(Err(WorkerError::Config(text))) => Death::Config(text),
                    Ok(Err(e)) => Death::Crashed(e.to_string()),
                    Err(_) => Death::Crashed("it panicked".to_owned()),
                };
                let _ = events.send(Event::ThreadEnded(role, generation, death));
                waker.wake();
            })?;
        Ok(())
    }

    fn context(
        &self,
        role: Role,
        generation: u32,
        orders: Option<OwnedFd>,
    ) -> std::io::Result<WorkerContext> {
        let other = std::io::Error::other::<Box<dyn std::error::Error + Send + Sync>>;
        let plan = &self.plans[role.index() - 1];
        let wanted = |p: &&Outgoing| wants(role, p.kind());
        let payloads = self
            .payloads
            .iter()
            .filter(wanted)
            .map(|p| {
                let fd = p.fd().map(|fd| fd.try_clone_to_owned()).transpose()?;
                Payload::receive(p.grant(-1), fd).map_err(|e| other(e.into()))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let ram = if matches!(role, Role::Cpu | Role::Io) {
            self.set.guest_ram().map_err(|e| other(e.into()))?
        } else {
            GuestRam::anonymous(RamLayout::new(0)).map_err(|e| other(e.into()))?
        };
        Ok(WorkerContext {
            role,
            generation,
            instance: self.set.instance(),
            ram,
            maps: self.set.maps(role).map_err(|e| other(e.into()))?,
            config: plan.config.clone(),
            payloads,
            host_fds: orders
                .into_iter()
                .map(Ok)
                .chain(plan.host_fds.iter().map(OwnedFd::try_clone))
                .collect::<Result<_, _>>()?,
        })
    }

    /// A thread that should be killed: all that can be done is to say so and to call it dead.
    pub fn give_up_on(&self, role: Role, generation: u32, why: String) {
        tracing::error!("the {role} is a thread and cannot be killed ({why})");
        let _ = self
            .events
            .send(Event::ThreadEnded(role, generation, Death::Crashed(why)));
        self.waker.wake();
    }
}
