//! `quintet-wasm-compile`: gives up what standard input says, takes one order, answers on standard output, ends.
//!
//! It may be started long before there is a module, so that a module does not wait for it; it never sees a second one.
#![allow(
    unsafe_code,
    reason = "takes the descriptors that were inherited under listed numbers"
)]

use std::io::{Read as _, Write as _};
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::process::ExitCode;

use quintet_protocol::handshake::confine::confine;
use quintet_protocol::handshake::{decode, encode};
use quintet_protocol::payload::{
    Arrival, First, Payload, Stage, TransferError, TransportTrace, digest_beside, receive_fds,
};
use quintet_protocol::shm::{Map, MapError};
use quintet_protocol::wasm::{CompileLimits, CompileOrder, CompileReply, Compiled, CompilerSetup};
use quintet_wasm_compile::compile;

/// Longest order in bytes: as much as `decode` takes, for tests that send large modules inline.
const MOST: u64 = 64 << 20;
/// Exit status when there was nothing that could be answered.
const EXIT_FAILED: u8 = 70;

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            EXIT_FAILED.into()
        }
    }
}

fn serve() -> Result<(), String> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .read_to_end(&mut bytes)
        .map_err(|e| format!("What is to be given up cannot be read: {e}"))?;
    let setup: CompilerSetup =
        decode(&bytes).map_err(|e| format!("What is to be given up cannot be read: {e}"))?;
    // SAFETY: the coordinator lists each inherited number once, and nothing else in this process owns it; standard output is asked
    // for once, at the end, and nothing is printed there.
    let own = |number| unsafe { OwnedFd::from_raw_fd(number) };
    let orders = own(setup.orders);
    // What the kernel told this process at its start is read while it still may be.
    let _ = (
        rustix::param::page_size(),
        quintet_protocol::time::HostTime::now(),
    );
    for missing in confine(&setup.confinement) {
        if setup.confinement.enabled {
            eprintln!("the compiler is not fully confined: {missing}");
        }
    }
    // There may be nothing to do for hours; the coordinator's end is this one's.
    let (length, fds) = match receive_fds(&orders) {
        Err(TransferError::Closed) => return Ok(()),
        received => received.map_err(|e| format!("No order came: {e}"))?,
    };
    let mut fds = fds.into_iter();
    let (Some(order), Some(output)) = (fds.next(), fds.next()) else {
        return Err("An order came without its files".to_owned());
    };
    let order = read_order(&length, order)?;
    let (reply, _module) = answer(order, fds.next(), output.into());
    // Closed at once: who waits for the answer need not wait until the module's pages have been given back.
    std::fs::File::from(own(1))
        .write_all(&encode(&reply))
        .map_err(|e| format!("The answer cannot be written: {e}"))
}

fn read_order(length: &[u8], file: OwnedFd) -> Result<CompileOrder, String> {
    let length = length.try_into().map_or(u64::MAX, u64::from_le_bytes);
    if length > MOST {
        return Err(format!("An order is longer than {MOST} bytes"));
    }
    let mut bytes = vec![0; length as usize];
    std::fs::File::from(file)
        .read_exact_at(&mut bytes, 0)
        .map_err(|e| format!("The order cannot be read: {e}"))?;
    decode(&bytes).map_err(|e| format!("The order cannot be read: {e}"))
}

/// What is to be answered, and the module, if it arrived.
fn answer(
    order: CompileOrder,
    module_fd: Option<OwnedFd>,
    output: std::fs::File,
) -> (CompileReply, Option<Payload>) {
    let mut trace = TransportTrace::new(order.module.kind.text());
    let refuse = order.refuse_map;
    let map = |fd: std::os::fd::BorrowedFd<'_>, len: u64| {
        if refuse {
            return Err(MapError::Length(len));
        }
        Map::private(fd, len)
    };
    let arrival = Arrival::receive(order.module, order.transport, module_fd, map, &mut trace);
    let (result, found, module) = match arrival {
        Err(e) => (Err(e.to_string()), None, None),
        Ok(arrival) => {
            trace.bytes(Stage::Loader, arrival.bytes(), "");
            // Nothing of what is compiled here is executed here, so the digest may be taken meanwhile. The coordinator compares
            // it: it passes modules on before it knows what they are to be.
            let (payload, found, result) =
                arrival.find_beside(&mut trace, |module| make(module, &order.limits, output));
            (result, Some(found), Some(payload))
        }
    };
    if let Err(e) = &result
        && trace.error.is_empty()
    {
        trace.error.clone_from(e);
    }
    let reply = CompileReply {
        result,
        found,
        strategy: module.as_ref().map(Payload::strategy),
        trace,
    };
    (reply, module)
}

/// Compiles, and writes the artefact.
fn make(module: &[u8], limits: &CompileLimits, mut output: std::fs::File) -> Result<Compiled, String> {
    let artefact = compile(module, limits).map_err(|e| e.to_string())?;
    let (digest, written) = digest_beside(&artefact.bytes, First::Other, || {
        output.write_all(&artefact.bytes)
    });
    written.map_err(|e| format!("the artefact cannot be written: {e}"))?;
    Ok(Compiled {
        len: artefact.bytes.len() as u64,
        digest,
        micros: artefact.micros,
        instrumented: artefact.instrumented,
    })
}
