//! The cpu-worker's process: start-up, confinement, probe, then the library.

use std::process::ExitCode;

use quintet_cpu_worker::jit::{CODE_BYTES, CodeMemory};
use quintet_cpu_worker::machine::worker;
use quintet_protocol::handshake::{Role, worker::worker_main};

fn main() -> ExitCode {
    // Before the process is confined: afterwards nothing executable can be mapped. Untouched, it costs nothing.
    let code = CodeMemory::new(CODE_BYTES);
    worker_main(Role::Cpu, |context| worker::run_with(context, code.ok()))
}
