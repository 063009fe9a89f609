//! The life of the cpu-worker's process around a module: start, run, pause, stop, report.

use quintet_protocol::clock::VmClock;
use quintet_protocol::doorbell::{Doorbell, Sleeper, SpinPolicy};
use quintet_protocol::handshake::config::CpuConfig;
use quintet_protocol::handshake::{Role, WorkerContext, WorkerError};
use quintet_protocol::layout::{Ends, Region, SleeperId};
use quintet_protocol::payload::{Payload, PayloadKind};
use quintet_protocol::shm::{View, ViewMut};
use quintet_protocol::status::{GuestEvent, MachineState, WorkerState, WorkerStatus};
use quintet_protocol::stream::{StreamReader, StreamWriter};
use quintet_protocol::time::{HostTime, NANOS_PER_SEC};
use quintet_protocol::wasm::{GUEST_OUT_STREAMS, JobOutcome, MemoryWriter, STDIN_STREAM, WasmConfig};

use crate::host::{Stopped, Surroundings};
use crate::memory::GuestMemory;
use crate::run::Runtime;

/// Nanoseconds between two beats.
const BEAT: u64 = NANOS_PER_SEC / 4;
/// Longest sleep in nanoseconds; doorbells wake it earlier.
const LONGEST: u64 = NANOS_PER_SEC;
/// Sleep while a stream is full or empty, in nanoseconds.
const STREAM_WAIT: u64 = 5_000_000;

/// Runs the cpu-worker of a WebAssembly guest until the coordinator tells it to end.
///
/// # Errors
/// [`WorkerError::Config`] without a module, others when the shared memory contradicts itself.
pub fn run(context: &WorkerContext, config: &CpuConfig) -> Result<(), WorkerError> {
    let wasm = config.wasm.clone().unwrap_or_default();
    let status = WorkerStatus::new(context);
    status.set_state(WorkerState::Starting);
    let ends = Ends::new(&context.maps);
    let artefact = context
        .payloads
        .iter()
        .find(|p| *p.kind() == PayloadKind::WasmArtefact)
        .ok_or_else(|| WorkerError::Config("There is no module".to_owned()))?;
    let words = MemoryWriter::attach(ends.view_mut(Region::guest_memory()), context.generation);
    let runtime = Runtime::new(GuestMemory::new(context.ram.clone(), words))
        .map_err(|e| WorkerError::Failed(format!("Cannot start the WebAssembly engine: {e:#}")))?;
    let sleeper = ends.sleeper(SleeperId::Vcpu(0), SpinPolicy::NEVER);
    status.set_ready();
    let mut done = 0;
    while !status.stop_requested() {
        let epoch = status.run_epoch();
        let wanted = status.reset_generation();
        let state = status.machine_state();
        status.epoch_seen(epoch);
        status.set_reset_done(wanted);
        if state == MachineState::Running && done != wanted {
            done = wanted;
            let around = Around::new(&ends, &status, sleeper.clone(), wanted)?;
            if let Some(outcome) = job(&runtime, artefact, &wasm, around) {
                report(&ends, &status, &outcome)?;
            }
            continue;
        }
        status.set_state(WorkerState::Parked);
        sleeper.park(HostTime::after(LONGEST), || false);
        status.set_state(WorkerState::Running);
    }
    status.set_state(WorkerState::Stopping);
    Ok(())
}

fn job(runtime: &Runtime, artefact: &Payload, config: &WasmConfig, around: Around) -> Option<JobOutcome> {
    runtime.run(artefact, config, Box::new(around))
}

/// Sends the outcome to the coordinator; for it, the end of the module is that of the machine.
fn report(ends: &Ends, status: &WorkerStatus, outcome: &JobOutcome) -> Result<(), WorkerError> {
    let failed = |e: &dyn std::fmt::Display| WorkerError::Failed(format!("Cannot report: {e}"));
    let bytes = quintet_protocol::handshake::encode(outcome);
    ends.lifecycle_from_producer(Role::Cpu)
        .map_err(|e| failed(&e))?
        .push(&bytes)
        .map_err(|e| failed(&e))?;
    status.report(GuestEvent::PowerOff);
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
}

impl Around {
    fn new(
        ends: &Ends,
        status: &WorkerStatus,
        sleeper: Sleeper,
        generation: u32,
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
        })
    }

    fn park(&mut self, nanos: u64) {
        self.status.set_state(WorkerState::Parked);
        self.sleeper.park(HostTime::after(nanos), || false);
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

    fn write(&mut self, stream: usize, mut bytes: &[u8]) -> Result<(), Stopped> {
        while !bytes.is_empty() {
            // A reader that contradicts itself is the coordinator's end, which ends us too.
            let writer = &mut self.out[stream];
            let n = writer.write(bytes).map_err(|_| Stopped)?;
            writer.publish(writer.position());
            self.coordinator.ring();
            bytes = &bytes[n..];
            if n == 0 {
                self.tick()?;
                self.park(STREAM_WAIT);
            }
        }
        Ok(())
    }

    fn read(&mut self, into: &mut [u8]) -> Result<usize, Stopped> {
        loop {
            self.tick()?;
            let n = self.input.read(into).map_err(|_| Stopped)?;
            if n != 0 {
                self.input.release(self.input.position());
                return Ok(n);
            }
            self.park(STREAM_WAIT.max(LONGEST / 20));
        }
    }

    fn now(&self) -> u64 {
        self.clock.now().0
    }

    fn doze(&mut self, nanos: u64) {
        self.park(nanos);
    }
}
