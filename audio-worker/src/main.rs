//! The audio-worker's process: start-up, confinement, probe, then the library.

use std::process::ExitCode;

use quintet_audio_worker::run::run;
use quintet_protocol::handshake::{Role, worker::worker_main};

fn main() -> ExitCode {
    worker_main(Role::Audio, run)
}
