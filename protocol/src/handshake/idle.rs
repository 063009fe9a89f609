//! A worker that does nothing but live: ready, beating, obedient.
//!
//! For tests of the supervision, which must not depend on what workers do.

use std::time::Duration;

use super::{WorkerContext, WorkerError};
use crate::status::{WorkerState, WorkerStatus};

/// Lives until told to stop: says that it is ready, carries out resets and pauses by saying so, and beats.
///
/// # Errors
/// None; the type is that of every worker's `run`.
#[allow(
    clippy::needless_pass_by_value,
    reason = "the signature is that of every worker's run"
)]
pub fn run(context: WorkerContext) -> Result<(), WorkerError> {
    let status = WorkerStatus::new(&context);
    status.set_ready();
    while !status.stop_requested() {
        let epoch = status.run_epoch();
        status.set_reset_done(status.reset_generation());
        status.epoch_seen(epoch);
        status.beat();
        std::thread::sleep(Duration::from_millis(20));
    }
    status.set_state(WorkerState::Stopping);
    Ok(())
}
