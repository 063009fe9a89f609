//! WASI preview 1, our own: a library would open host files in the confined process.
//!
//! Arguments, environment (empty), clocks, random numbers, standard streams, sleeping and `proc_exit`; files are in
//! `files`. Numbers are those of `wasi_snapshot_preview1.witx`.
#![allow(
    clippy::needless_pass_by_value,
    reason = "what the linker calls takes its caller by value"
)]

use wasmtime::{Caller, Error, Linker, Result};

use crate::files;
use crate::host::{Exited, Host};
use crate::memory::OutOfBounds;

/// Where a module imports from.
pub(crate) const MODULE: &str = "wasi_snapshot_preview1";

const SUCCESS: i32 = 0;
const BADF: i32 = 8;
const INVAL: i32 = 28;
const NOSYS: i32 = 52;
const NOTSUP: i32 = 58;

/// Most bytes that one call reads or writes; more comes with the next.
const MOST: usize = 64 << 10;
/// Most buffers of one call.
const MOST_BUFFERS: u32 = 1024;
type Guest<'a> = Caller<'a, Host>;

/// An address outside the memory ends the program: it is a fault of the program, as a trap is.
pub(crate) fn trap(e: OutOfBounds) -> Error {
    Error::new(e)
}

/// Adds the functions.
///
/// # Errors
/// wasmtime's, for a name that is taken.
pub fn add_to(linker: &mut Linker<Host>) -> Result<()> {
    linker.func_wrap(
        MODULE,
        "args_sizes_get",
        |c: Guest<'_>, count: u32, bytes: u32| {
            let args = &c.data().args;
            let len: usize = args.iter().map(|a| a.len() + 1).sum();
            c.data().memory.set_word(count, args.len() as u32).map_err(trap)?;
            c.data().memory.set_word(bytes, len as u32).map_err(trap)?;
            Ok(SUCCESS)
        },
    )?;
    linker.func_wrap(MODULE, "args_get", |c: Guest<'_>, list: u32, mut at: u32| {
        let (args, memory) = (&c.data().args, &c.data().memory);
        for (n, arg) in args.iter().enumerate() {
            memory
                .set_word(list.wrapping_add(4 * n as u32), at)
                .map_err(trap)?;
            memory.write(at, arg.as_bytes()).map_err(trap)?;
            at = at.wrapping_add(arg.len() as u32);
            memory.write(at, &[0]).map_err(trap)?;
            at = at.wrapping_add(1);
        }
        Ok(SUCCESS)
    })?;
    linker.func_wrap(
        MODULE,
        "environ_sizes_get",
        |c: Guest<'_>, count: u32, bytes: u32| {
            c.data().memory.set_word(count, 0).map_err(trap)?;
            c.data().memory.set_word(bytes, 0).map_err(trap)?;
            Ok(SUCCESS)
        },
    )?;
    linker.func_wrap(MODULE, "environ_get", |_: Guest<'_>, _: u32, _: u32| SUCCESS)?;
    linker.func_wrap(MODULE, "clock_res_get", |c: Guest<'_>, _: i32, at: u32| {
        c.data().memory.write(at, &1u64.to_le_bytes()).map_err(trap)?;
        Ok(SUCCESS)
    })?;
    linker.func_wrap(MODULE, "clock_time_get", clock_time_get)?;
    linker.func_wrap(MODULE, "random_get", random_get)?;
    linker.func_wrap(MODULE, "fd_write", fd_write)?;
    linker.func_wrap(MODULE, "fd_read", fd_read)?;
    linker.func_wrap(MODULE, "poll_oneoff", poll_oneoff)?;
    linker.func_wrap(MODULE, "sched_yield", |mut c: Guest<'_>| {
        c.data_mut().tick()?;
        Ok(SUCCESS)
    })?;
    linker.func_wrap(MODULE, "proc_exit", |_: Guest<'_>, status: i32| -> Result<()> {
        Err(Error::new(Exited(status)))
    })?;
    linker.func_wrap(MODULE, "proc_raise", |_: Guest<'_>, _: i32| NOSYS)?;
    files::add_to(linker)
}

fn clock_time_get(c: Guest<'_>, clock: i32, _precision: i64, at: u32) -> Result<i32> {
    let nanos = match clock {
        // Real time; the machine's clock runs at the host's rate, and pauses do not show in it.
        0 => std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| d.as_nanos() as u64),
        1..=3 => c.data().around.now(),
        _ => return Ok(INVAL),
    };
    c.data().memory.write(at, &nanos.to_le_bytes()).map_err(trap)?;
    Ok(SUCCESS)
}

fn random_get(mut c: Guest<'_>, at: u32, len: u32) -> Result<i32> {
    c.data().memory.check(at, len as usize).map_err(trap)?;
    let mut done = 0;
    while done < len {
        let n = (len - done).min(8);
        let bytes = c.data_mut().random().to_le_bytes();
        let to = at + done;
        c.data().memory.write(to, &bytes[..n as usize]).map_err(trap)?;
        done += n;
        if done.is_multiple_of(1 << 20) {
            c.data_mut().tick()?;
        }
    }
    Ok(SUCCESS)
}

/// The buffers of a scattered read or write, cut to [`MOST`] bytes in all.
pub(crate) fn buffers(c: &Guest<'_>, list: u32, count: u32) -> Result<Vec<(u32, usize)>> {
    let memory = &c.data().memory;
    let mut room = MOST;
    let mut all = Vec::new();
    for n in 0..count.min(MOST_BUFFERS) {
        let entry = list.wrapping_add(8 * n);
        let at = memory.word(entry).map_err(trap)?;
        let len = memory.word(entry.wrapping_add(4)).map_err(trap)? as usize;
        all.push((at, len.min(room)));
        room -= len.min(room);
        if room == 0 {
            break;
        }
    }
    Ok(all)
}

fn fd_write(mut c: Guest<'_>, fd: u32, list: u32, count: u32, written: u32) -> Result<i32> {
    let stream = match fd {
        1 => 0,
        2 => 1,
        0 => return Ok(BADF),
        _ => return files::sequential(&mut c, fd, (list, count), written, true),
    };
    let mut bytes = Vec::new();
    for (at, len) in buffers(&c, list, count)? {
        let start = bytes.len();
        bytes.resize(start + len, 0);
        c.data().memory.read(at, &mut bytes[start..]).map_err(trap)?;
    }
    c.data_mut().write(stream, &bytes)?;
    c.data()
        .memory
        .set_word(written, bytes.len() as u32)
        .map_err(trap)?;
    Ok(SUCCESS)
}

fn fd_read(mut c: Guest<'_>, fd: u32, list: u32, count: u32, read: u32) -> Result<i32> {
    match fd {
        0 => {}
        1 | 2 => return Ok(BADF),
        _ => return files::sequential(&mut c, fd, (list, count), read, false),
    }
    let buffers = buffers(&c, list, count)?;
    let room: usize = buffers.iter().map(|(_, len)| len).sum();
    let mut bytes = vec![0; room];
    let n = if room == 0 {
        0
    } else {
        c.data_mut().read(&mut bytes)?
    };
    let mut rest = &bytes[..n];
    for (at, len) in buffers {
        let (now, later) = rest.split_at(len.min(rest.len()));
        c.data().memory.write(at, now).map_err(trap)?;
        rest = later;
    }
    c.data().memory.set_word(read, n as u32).map_err(trap)?;
    Ok(SUCCESS)
}

/// Waiting for a time, which is what programs sleep with; other subscriptions are not supported.
fn poll_oneoff(mut c: Guest<'_>, subscriptions: u32, events: u32, count: u32, stored: u32) -> Result<i32> {
    if count != 1 {
        return Ok(if count == 0 { INVAL } else { NOTSUP });
    }
    let mut subscription = [0; 48];
    c.data()
        .memory
        .read(subscriptions, &mut subscription)
        .map_err(trap)?;
    if subscription[8] != 0 {
        return Ok(NOTSUP);
    }
    let timeout = u64::from_le_bytes(subscription[24..32].try_into().expect("eight bytes"));
    let absolute = subscription[40] & 1 != 0;
    let nanos = if absolute {
        timeout.saturating_sub(c.data().around.now())
    } else {
        timeout
    };
    c.data_mut().sleep(nanos)?;
    let mut event = [0; 32];
    event[..8].copy_from_slice(&subscription[..8]);
    c.data().memory.write(events, &event).map_err(trap)?;
    c.data().memory.set_word(stored, 1).map_err(trap)?;
    Ok(SUCCESS)
}
