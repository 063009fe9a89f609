//! The life of the cpu-worker's process around a module: start, run, pause, stop, report.

use std::os::fd::OwnedFd;

use quintet_protocol::clock::VmClock;
use quintet_protocol::control::one_line;
use quintet_protocol::doorbell::{Doorbell, Sleeper, SpinPolicy, Woken};
use quintet_protocol::handshake::worker::with_sources;
use quintet_protocol::handshake::{Role, WorkerContext, WorkerError, decode, encode};
use quintet_protocol::layout::{Ends, Region, SleeperId};
use quintet_protocol::payload::{TransportTrace, try_receive_fd};
use quintet_protocol::shm::{View, ViewMut};
use quintet_protocol::status::{MachineState, PeerState, WorkerState, WorkerStatus};
use quintet_protocol::stream::{StreamReader, StreamWriter};
use quintet_protocol::time::{HostTime, NANOS_PER_SEC};
use quintet_protocol::trace::{Kind, Tracer};
use quintet_protocol::wasm::{
    Errno, GUEST_OUT_STREAMS, JobAnswer, JobOrder, JobOutcome, JobStatus, STDIN_STREAM, Service,
};

use crate::host::{Stopped, Surroundings};
use crate::kept::Kept;
use crate::memory::GuestMemory;
use crate::run::{ERROR, Runtime};
use crate::screen::Screen;
use crate::services::Client;

/// Nanoseconds between two beats.
const BEAT: u64 = NANOS_PER_SEC / 4;
/// Longest sleep in nanoseconds; doorbells wake it earlier.
const LONGEST: u64 = NANOS_PER_SEC;
/// Sleep while a stream is full, in nanoseconds.
const STREAM_WAIT: u64 = 5_000_000;
/// Wait for io-worker between two looks at whether it lives, in nanoseconds.
const SERVICE_WAIT: u64 = 50_000_000;
/// Sleep while there is no input, in nanoseconds; what comes rings.
const INPUT_WAIT: u64 = 50_000_000;

/// Runs the cpu-worker of a WebAssembly machine until the coordinator tells it to end.
///
/// # Errors
/// [`WorkerError::Config`] without a socket for orders, others when the shared memory contradicts itself.
pub fn run(context: &WorkerContext) -> Result<(), WorkerError> {
    let status = WorkerStatus::new(context);
    status.set_state(WorkerState::Starting);
    let ends = Ends::new(&context.maps);
    let orders = context
        .host_fds
        .first()
        .ok_or_else(|| WorkerError::Config("There is no socket for orders".to_owned()))?;
    let memory = GuestMemory::attach(context.ram.clone(), &context.maps, context.generation);
    let runtime = Runtime::new(memory)
        .map_err(|e| WorkerError::Failed(format!("Cannot start the WebAssembly engine: {e:#}")))?;
    let mut kept = Kept::default();
    let tracer = ends.tracer(Role::Cpu, context.generation);
    let sleeper = ends.sleeper(SleeperId::Vcpu(0), SpinPolicy::NEVER);
    status.set_ready();
    while !status.stop_requested() {
        let epoch = status.run_epoch();
        let generation = status.reset_generation();
        let state = status.machine_state();
        status.epoch_seen(epoch);
        status.set_reset_done(generation);
        if state == MachineState::Running
            && let Some((message, fd)) = try_receive_fd(orders)
                .map_err(|e| WorkerError::Failed(format!("Cannot take an order: {}", with_sources(&e))))?
        {
            let order: JobOrder = decode(&message)
                .map_err(|e| WorkerError::Failed(format!("Cannot understand an order: {e}")))?;
            let around = Around::new(&ends, &status, sleeper.clone(), generation, tracer.clone())?;
            let (begun, number) = (tracer.begin(), u64::from(order.number));
            let answer = job(&runtime, &mut kept, order, fd, around);
            tracer.end(Kind::Module, begun, number);
            if let Some(answer) = answer {
                report(&ends, &answer)?;
            }
            continue;
        }
        status.set_state(WorkerState::Parked);
        let begun = tracer.begin();
        sleeper.park(HostTime::after(LONGEST), || false);
        tracer.end(Kind::Idle, begun, 0);
        status.set_state(WorkerState::Running);
    }
    status.set_state(WorkerState::Stopping);
    Ok(())
}

/// Does one order; `None` when the machine stopped it.
fn job(
    runtime: &Runtime,
    kept: &mut Kept,
    order: JobOrder,
    fd: OwnedFd,
    around: Around,
) -> Option<JobAnswer> {
    let mut trace = TransportTrace::new(order.artefact.kind.text());
    let outcome = match kept.module(runtime, order.artefact, fd, &mut trace) {
        Ok(module) => runtime.run_module(module, &order.config, order.limits, Box::new(around))?,
        Err(e) => JobOutcome {
            status: JobStatus::LoadFailed,
            return_code: None,
            memory: None,
            pid: std::process::id(),
            error: one_line(&e.to_string(), ERROR),
            micros: 0,
        },
    };
    Some(JobAnswer {
        number: order.number,
        outcome,
        trace,
    })
}

/// Sends the answer to the coordinator.
fn report(ends: &Ends, answer: &JobAnswer) -> Result<(), WorkerError> {
    let failed = |e: &dyn std::fmt::Display| WorkerError::Failed(format!("Cannot report: {e}"));
    let bytes = encode(answer);
    ends.lifecycle_from_producer(Role::Cpu)
        .map_err(|e| failed(&e))?
        .push(&bytes)
        .map_err(|e| failed(&e))?;
    ends.doorbell(SleeperId::Coordinator).ring();
    Ok(())
}

/// The process as a module's surroundings.
struct Around {
    status: WorkerStatus,
    sleeper: Sleeper,
    coordinator: Doorbell,
    clock: VmClock,
    out: Vec<StreamWriter>,
    input: StreamReader,
    generation: u32,
    last_beat: HostTime,
    services: Client,
    screen: Screen,
    tracer: Tracer,
}

impl Around {
    fn new(
        ends: &Ends,
        status: &WorkerStatus,
        sleeper: Sleeper,
        generation: u32,
        tracer: Tracer,
    ) -> Result<Self, WorkerError> {
        let broken = |e: &dyn std::fmt::Display| WorkerError::Peer {
            peer: Role::Coordinator,
            what: e.to_string(),
        };
        let out = (0..GUEST_OUT_STREAMS)
            .map(|n| {
                let mine = ends.view_mut(Region::guest_out(n));
                let at = StreamWriter::<ViewMut, View>::published(&mine);
                StreamWriter::attach(mine, ends.view(Region::guest_out_head(n)), at)
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| broken(&e))?;
        let mine = ends.view_mut(Region::guest_in_head());
        let at = StreamReader::<ViewMut, View>::released(&mine);
        let input = StreamReader::attach(mine, ends.view(Region::stream_in(STDIN_STREAM)), at)
            .map_err(|e| broken(&e))?;
        Ok(Self {
            status: status.clone(),
            sleeper,
            coordinator: ends.doorbell(SleeperId::Coordinator),
            clock: ends.clock(),
            out,
            input,
            generation,
            last_beat: HostTime::now(),
            services: Client::new(ends).map_err(|e| broken(&e))?,
            screen: Screen::new(ends.vram_writer().map_err(|e| broken(&e))?),
            tracer,
        })
    }

    fn park(&mut self, nanos: u64) {
        self.status.set_state(WorkerState::Parked);
        let begun = self.tracer.begin();
        self.sleeper.park(HostTime::after(nanos), || false);
        self.tracer.end(Kind::Idle, begun, 0);
        self.status.set_state(WorkerState::Running);
        self.last_beat = HostTime::now();
    }
}

impl Surroundings for Around {
    fn tick(&mut self) -> Result<(), Stopped> {
        loop {
            let epoch = self.status.run_epoch();
            let state = self.status.machine_state();
            if self.status.stop_requested() || self.status.reset_generation() != self.generation {
                return Err(Stopped);
            }
            self.status.epoch_seen(epoch);
            if state == MachineState::Running {
                break;
            }
            self.park(LONGEST);
        }
        let now = HostTime::now();
        if now.since(self.last_beat) >= BEAT {
            self.last_beat = now;
            self.status.beat();
        }
        Ok(())
    }

    fn write(&mut self, stream: usize, bytes: &[u8]) -> Result<usize, Stopped> {
        // A reader that contradicts itself is the coordinator's end, which ends us too.
        let writer = &mut self.out[stream];
        let n = writer.write(bytes).map_err(|_| Stopped)?;
        writer.publish(writer.position());
        self.coordinator.ring();
        if n == 0 {
            self.park(STREAM_WAIT);
        }
        Ok(n)
    }

    fn read(&mut self, into: &mut [u8]) -> Result<Option<usize>, Stopped> {
        // Looked at first: what came before the end is there by then.
        let ended = self.input.has_ended();
        let n = self.input.read(into).map_err(|_| Stopped)?;
        if n != 0 {
            self.input.release(self.input.position());
        } else if ended {
            return Ok(None);
        } else if !into.is_empty() {
            self.park(INPUT_WAIT);
        }
        Ok(Some(n))
    }

    fn now(&self) -> u64 {
        self.clock.now().0
    }

    fn doze(&mut self, nanos: u64) {
        self.park(nanos);
    }

    fn service(&mut self, service: Service) -> Result<Result<Vec<u8>, Errno>, Stopped> {
        let begun = self.tracer.begin();
        let Ok(number) = self.services.ask(service) else {
            return Ok(Err(Errno::IO));
        };
        loop {
            if let Some(answer) = self.services.answer(number) {
                self.tracer.end(Kind::Service, begun, 0);
                return Ok(answer);
            }
            // What is asked is never asked twice by this end: whoever serves it next finds it in the ring.
            if self.status.peer(Role::Io) == PeerState::Failed {
                return Ok(Err(Errno::IO));
            }
            self.tick()?;
            let (services, sleeper) = (&self.services, &self.sleeper);
            let deadline = HostTime::after(SERVICE_WAIT);
            if sleeper.wait(deadline, || services.is_answered(number)) == Woken::Deadline {
                self.services.ring();
            }
        }
    }

    fn screen(&mut self) -> Option<&mut Screen> {
        Some(&mut self.screen)
    }
}
