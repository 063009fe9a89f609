//! What a running module has on its host: memory, console, clock, random numbers, and who may stop it.

use quintet_protocol::time::HostTime;
use quintet_protocol::wasm::service::{MAX_DATA, MAX_DIRS};
use quintet_protocol::wasm::{Errno, JobLimits, MEMORIES, Service, Span, WasmConfig};
use wasmtime::{Caller, Linker, StoreLimits, StoreLimitsBuilder};

use crate::engine::{GROWN, RESERVED};
use crate::files::Descriptors;
use crate::memory::GuestMemory;
use crate::screen::Screen;

/// Most elements of a module's tables.
const TABLE_ELEMENTS: usize = 1 << 20;
/// Longest sleep without looking up, in nanoseconds.
const LONGEST_DOZE: u64 = 100_000_000;
/// Longest line that `quintet.log` takes, in bytes.
const LOG_LINE: u32 = 4096;

/// The run is to end, because the machine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("The machine was told to stop")]
pub struct Stopped;

/// The job has used up its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("time limit: the job has run for more than {0} ms")]
pub struct TimedOut(pub u64);

/// The program ended itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("The program ended with status {0}")]
pub struct Exited(pub i32);

/// The process around a module.
pub trait Surroundings: Send + Sync + 'static {
    /// Called at least every [`crate::engine::TICK`] while the module runs.
    ///
    /// # Errors
    /// [`Stopped`].
    fn tick(&mut self) -> Result<(), Stopped>;

    /// Takes some of `bytes` for standard output (0) or error (1); 0 when there is no room after a short sleep.
    ///
    /// # Errors
    /// [`Stopped`].
    fn write(&mut self, stream: usize, bytes: &[u8]) -> Result<usize, Stopped>;

    /// Copies what has come by standard input; 0 when nothing has after a short sleep, `None` at its end.
    ///
    /// # Errors
    /// [`Stopped`].
    fn read(&mut self, into: &mut [u8]) -> Result<Option<usize>, Stopped>;

    /// VM time in nanoseconds.
    fn now(&self) -> u64;

    /// Sleeps for a while at most, or until something happens.
    fn doze(&mut self, nanos: u64);

    /// Asks io-worker for something; what it gives, or why not. Without one there is nothing to be had.
    ///
    /// # Errors
    /// [`Stopped`].
    fn service(&mut self, _service: Service) -> Result<Result<Vec<u8>, Errno>, Stopped> {
        Ok(Err(Errno::NOSYS))
    }

    /// The screen; `None` without one.
    fn screen(&mut self) -> Option<&mut Screen> {
        None
    }
}

/// A module's host.
pub struct Host {
    /// Its linear memory.
    pub memory: GuestMemory,
    /// The process around it.
    pub around: Box<dyn Surroundings>,
    /// Arguments, its name first.
    pub args: Vec<String>,
    pub(crate) limits: StoreLimits,
    pub(crate) files: Descriptors,
    random: u64,
    /// Most milliseconds, and the VM time when they are over; `None` is without end.
    deadline: Option<(u64, u64)>,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host")
            .field("memory", &self.memory)
            .field("args", &self.args)
            .finish_non_exhaustive()
    }
}

impl Host {
    /// A host for one run.
    pub fn new(
        memory: GuestMemory,
        around: Box<dyn Surroundings>,
        config: &WasmConfig,
        limits: JobLimits,
    ) -> Self {
        let end = |millis: u64| around.now().saturating_add(millis.saturating_mul(1_000_000));
        Self {
            deadline: (limits.millis != 0).then(|| (limits.millis, end(limits.millis))),
            memory,
            around,
            args: config.args.clone(),
            files: Descriptors::default(),
            limits: StoreLimitsBuilder::new()
                .memories(MEMORIES)
                .instances(1)
                .tables(16)
                .table_elements(TABLE_ELEMENTS)
                .build(),
            random: config.seed,
        }
    }

    /// Tells io-worker that another module starts, and learns which directories it has.
    ///
    /// # Errors
    /// [`Stopped`].
    pub(crate) fn begin(&mut self) -> wasmtime::Result<()> {
        if self.service(Service::Begin)?.is_err() {
            return Ok(());
        }
        for dir in 0..MAX_DIRS {
            let Ok(name) = self.service(Service::DirName { dir })? else {
                break;
            };
            self.files.give(dir, String::from_utf8_lossy(&name).into_owned());
        }
        Ok(())
    }

    /// Asks io-worker for something.
    ///
    /// # Errors
    /// [`Stopped`].
    pub(crate) fn service(&mut self, service: Service) -> wasmtime::Result<Result<Vec<u8>, Errno>> {
        self.around.service(service).map_err(wasmtime::Error::new)
    }

    /// The next random number (SplitMix64): not for secrets, which a guest should not need, but repeatable.
    pub fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Looks up: whether the machine wants something, and whether there is time left.
    ///
    /// # Errors
    /// [`Stopped`], [`TimedOut`].
    pub fn tick(&mut self) -> wasmtime::Result<()> {
        self.around.tick().map_err(wasmtime::Error::new)?;
        match self.deadline {
            Some((millis, end)) if self.around.now() > end => Err(wasmtime::Error::new(TimedOut(millis))),
            _ => Ok(()),
        }
    }

    /// Writes all of `bytes`, waiting for room.
    ///
    /// # Errors
    /// As [`Self::tick`].
    pub fn write(&mut self, stream: usize, mut bytes: &[u8]) -> wasmtime::Result<()> {
        while !bytes.is_empty() {
            let n = self.around.write(stream, bytes).map_err(wasmtime::Error::new)?;
            bytes = &bytes[n..];
            if n == 0 {
                self.tick()?;
            }
        }
        Ok(())
    }

    /// Waits for standard input; 0 at its end.
    ///
    /// # Errors
    /// As [`Self::tick`].
    pub fn read(&mut self, into: &mut [u8]) -> wasmtime::Result<usize> {
        loop {
            match self.around.read(into).map_err(wasmtime::Error::new)? {
                Some(0) => self.tick()?,
                n => return Ok(n.unwrap_or(0)),
            }
        }
    }

    /// Sleeps `nanos` nanoseconds of host time, looking up often enough.
    ///
    /// # Errors
    /// As [`Self::tick`].
    pub fn sleep(&mut self, nanos: u64) -> wasmtime::Result<()> {
        let start = HostTime::now();
        loop {
            self.tick()?;
            let gone = HostTime::now().since(start);
            if gone >= nanos {
                return Ok(());
            }
            self.around.doze((nanos - gone).min(LONGEST_DOZE));
        }
    }
}

/// Adds the hook of the instrumentation and the `quintet` namespace.
///
/// # Errors
/// wasmtime's, for a name that is taken.
pub fn add_to(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.func_wrap(
        RESERVED,
        GROWN,
        |caller: Caller<'_, Host>, result: i32, memory: u32| {
            // A refused growth changes nothing (S2.9, S2.20).
            if result != -1 {
                caller.data().memory.grown(memory as usize);
            }
            result
        },
    )?;
    linker.func_wrap("quintet", "log", |caller: Caller<'_, Host>, at: u32, len: u32| {
        let mut bytes = vec![0; len.min(LOG_LINE) as usize];
        caller
            .data()
            .memory
            .read(at, &mut bytes)
            .map_err(wasmtime::Error::new)?;
        tracing::info!("module: {}", String::from_utf8_lossy(&bytes).escape_debug());
        Ok(())
    })?;
    linker.func_wrap("quintet", "now", |caller: Caller<'_, Host>| {
        caller.data().around.now()
    })?;
    linker.func_wrap(
        "quintet",
        "sleep_until",
        |mut caller: Caller<'_, Host>, time: u64| {
            // VM time stands still while the machine is paused, and the module sleeps on.
            loop {
                let host = caller.data_mut();
                host.tick()?;
                let left = time.saturating_sub(host.around.now());
                if left == 0 {
                    return Ok(());
                }
                host.around.doze(left.min(LONGEST_DOZE));
            }
        },
    )?;
    linker.func_wrap("quintet", "present", present)?;
    linker.func_wrap("quintet", "input", input)?;
    linker.func_wrap("quintet", "sound", sound)?;
    linker.func_wrap("quintet", "sound_rate", sound_rate)?;
    linker.func_wrap("quintet", "sleep", |mut caller: Caller<'_, Host>, nanos: u64| {
        caller.data_mut().sleep(nanos)
    })?;
    Ok(())
}

/// Shows a frame; 0, or -1 for a picture of a size that is not possible, or without a screen.
fn present(mut caller: Caller<'_, Host>, at: u32, width: u32, height: u32) -> wasmtime::Result<i32> {
    let host = caller.data_mut();
    let Some(screen) = host.around.screen() else {
        return Ok(-1);
    };
    let shown = screen
        .present(&host.memory, at, (width, height))
        .map_err(wasmtime::Error::new)?;
    Ok(if shown { 0 } else { -1 })
}

/// What a user did: its kind, 0 for nothing; its two numbers are stored.
fn input(mut caller: Caller<'_, Host>, at: u32) -> wasmtime::Result<i32> {
    caller.data().memory.check(at, 8).map_err(wasmtime::Error::new)?;
    let Ok(event) = caller.data_mut().service(Service::Input)? else {
        return Ok(0);
    };
    let Some((kind, numbers)) = event.split_first_chunk() else {
        return Ok(0);
    };
    let kind = i32::from_le_bytes(*kind);
    if kind != 0 {
        caller
            .data()
            .memory
            .write(at, numbers)
            .map_err(wasmtime::Error::new)?;
    }
    Ok(kind)
}

/// Plays frames, pairs of f32; how many were taken, the rest is to be given again later. -1 without sound.
fn sound(mut caller: Caller<'_, Host>, at: u32, frames: u32) -> wasmtime::Result<i32> {
    let len = frames.min(MAX_DATA / 8) * 8;
    let memory = &caller.data().memory;
    memory.check(at, len as usize).map_err(wasmtime::Error::new)?;
    let data = Span { at, len };
    let taken = caller.data_mut().service(Service::Sound { data })?;
    Ok(number(taken.ok()))
}

/// Frames per second; -1 without sound.
fn sound_rate(mut caller: Caller<'_, Host>) -> wasmtime::Result<i32> {
    let rate = caller.data_mut().service(Service::SoundRate)?;
    Ok(number(rate.ok()))
}

fn number(data: Option<Vec<u8>>) -> i32 {
    data.and_then(|d| d.first_chunk().copied())
        .map_or(-1, i32::from_le_bytes)
}
