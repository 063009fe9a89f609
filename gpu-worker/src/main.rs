//! The gpu-worker's process: start-up, confinement, probe, then the library.

use std::process::ExitCode;

use quintet_protocol::handshake::{Role, idle, worker::worker_main};

fn main() -> ExitCode {
    worker_main(Role::Gpu, idle::run)
}
