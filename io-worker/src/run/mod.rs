//! The process: from a [`WorkerContext`] to devices that serve vCPUs until the coordinator says stop.

mod boot;
mod build;
pub mod commands;
pub mod decode;
mod disks;
mod figures;
mod outside;
mod patience;
mod playback;
mod worker;

pub use worker::{Turn, Worker};

use quintet_protocol::doorbell::{Sleeper, SpinPolicy, Woken};
use quintet_protocol::handshake::config::IoConfig;
use quintet_protocol::handshake::{WorkerContext, WorkerError};
use quintet_protocol::layout::{Ends, SleeperId};
use quintet_protocol::status::WorkerState;
use quintet_protocol::time::HostTime;

use patience::Patience;

/// A running worker beats at most this often, in nanoseconds.
const BEAT: u64 = 300_000_000;
/// How often a worker that waits for the vCPU to stop looks whether it has, in nanoseconds.
const RESET_LOOK: u64 = 2_000_000;
/// When nothing is due.
const NEVER: u64 = u64::MAX;

/// Serves until told to stop.
///
/// # Errors
/// [`WorkerError::Config`] for what no restart mends (two devices in one place, a kernel that is none); others
/// for what one may.
pub fn run(context: WorkerContext) -> Result<(), WorkerError> {
    let config: IoConfig = context.config()?;
    let sleeper = Ends::new(&context.maps).sleeper(SleeperId::Io, SpinPolicy::NEVER);
    let mut worker = Worker::open(context)?;
    worker.status.set_ready();
    let mut beat = HostTime::now();
    let mut patience = Patience::new(config.spin_nanos);
    loop {
        match worker.turn()? {
            Turn::Stop => break,
            Turn::Served => {
                // A guest that keeps the ring full must not keep input out.
                if sleeper.take() {
                    worker.look();
                }
                let now = HostTime::now();
                if now.since(beat) >= BEAT {
                    beat = now;
                    worker.status.beat();
                }
            }
            Turn::Idle => {
                wait(&worker, &sleeper, &mut patience);
                worker.look();
            }
        }
    }
    worker.status.set_state(WorkerState::Stopping);
    Ok(())
}

/// Waits for a command, a ring of the bell, or the next deadline: spinning first, then asleep.
fn wait(worker: &Worker, sleeper: &Sleeper, patience: &mut Patience) {
    let start = HostTime::now();
    let due = worker
        .machine
        .next_deadline()
        .and_then(|at| worker.clock.host_deadline(at));
    let mut deadline = due.unwrap_or(HostTime(NEVER));
    if worker.owes_reset() {
        deadline = deadline.min(HostTime::after(RESET_LOOK));
    }
    if patience.nanos() > 0 {
        loop {
            for _ in 0..64 {
                if worker.has_commands() || sleeper.take() {
                    return;
                }
                quintet_protocol::sync::spin_hint();
            }
            let now = HostTime::now();
            if now >= deadline {
                return;
            }
            if now.since(start) >= patience.nanos() {
                break;
            }
            // The vCPU may be waiting for this very processor.
            quintet_protocol::sync::yield_processor();
        }
    }
    worker.status.set_state(WorkerState::Parked);
    let woken = sleeper.park(deadline, || worker.has_commands());
    worker.status.set_state(WorkerState::Running);
    patience.slept(HostTime::now().since(start), woken != Woken::Deadline);
}

#[cfg(test)]
mod disk_tests;
#[cfg(test)]
mod kill_tests;
#[cfg(test)]
mod rig;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod virtio_tests;
