//! The cpu-worker's process: start-up, confinement, probe, then the library.

use std::process::ExitCode;

use quintet_cpu_worker::machine::worker;
use quintet_protocol::handshake::{Role, worker::worker_main};

fn main() -> ExitCode {
    worker_main(Role::Cpu, worker::run)
}
