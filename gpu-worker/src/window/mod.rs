//! The window: winit on the worker's main thread, with the same steps as without a window in between.
//!
//! winit sleeps on the window system's socket, the rest of the machine rings a futex. A second thread sleeps on that and does
//! nothing but wake the first; drawing in a thread of its own was rejected, since every frame would be copied once more and
//! shown later. Nothing is drawn or woken while neither the guest nor the user does anything.

mod app;
mod chord;
mod keymap;
mod overlay;
mod paste;
mod present;
mod scale;

use std::time::Duration;

use quintet_protocol::doorbell::Sleeper;
use quintet_protocol::handshake::config::GpuConfig;
use quintet_protocol::handshake::{Role, WorkerContext, WorkerError};
use quintet_protocol::layout::{Ends, Region};
use quintet_protocol::status::StatusReader;
use quintet_protocol::time::HostTime;
use winit::event_loop::{EventLoop, EventLoopProxy};

use crate::run::Worker;
use app::{App, Peers};
use present::GpuChoice;

/// How often the ringing thread looks by itself, in nanoseconds.
const LOOK: u64 = 1_000_000_000;

/// What other threads have to say.
#[derive(Debug, Clone)]
pub(crate) enum Wake {
    /// Somebody rang.
    Rung,
    /// The text on the clipboard, which the user wants to be typed.
    Pasted(String),
}

/// Shows the machine in a window until the worker is told to stop.
///
/// # Errors
/// [`WorkerError::Config`] when there is no display, and those of [`Worker::step`].
pub(crate) fn run(worker: Worker, context: &WorkerContext, config: &GpuConfig) -> Result<(), WorkerError> {
    let mut builder = EventLoop::<Wake>::with_user_event();
    // With `--single-process` this is not the first thread of its process.
    winit::platform::x11::EventLoopBuilderExtX11::with_any_thread(&mut builder, true);
    winit::platform::wayland::EventLoopBuilderExtWayland::with_any_thread(&mut builder, true);
    let event_loop = builder.build().map_err(|error| {
        WorkerError::Config(format!(
            "The display cannot be opened ({error}); without one, add --headless"
        ))
    })?;
    let ends = Ends::new(&context.maps);
    let commands = ends
        .lifecycle_from_producer(Role::Gpu)
        .map_err(|error| WorkerError::Peer {
            peer: Role::Coordinator,
            what: error.to_string(),
        })?;
    let peers = Peers {
        commands,
        place: ends.view_mut(Region::window_place()),
        io: StatusReader::of(&context.maps, Role::Io),
        audio: StatusReader::of(&context.maps, Role::Audio),
    };
    wake_when_rung(worker.sleeper.clone(), event_loop.create_proxy())?;
    let gpu = match (config.software, config.any_gpu) {
        (true, _) => GpuChoice::Never,
        (false, true) => GpuChoice::Any,
        (false, false) => GpuChoice::Real,
    };
    let proxy = event_loop.create_proxy();
    let display = event_loop.owned_display_handle();
    let mut app = App::new(worker, peers, display, proxy, gpu, &config.title);
    event_loop
        .run_app(&mut app)
        .map_err(|error| WorkerError::Failed(format!("The window system failed: {error}")))?;
    app.result()
}

/// Starts the thread that wakes the window when the worker's doorbell rings.
fn wake_when_rung(sleeper: Sleeper, proxy: EventLoopProxy<Wake>) -> Result<(), WorkerError> {
    std::thread::Builder::new()
        .name("doorbell".into())
        .spawn(move || {
            loop {
                sleeper.park(HostTime::after(LOOK), || false);
                if proxy.send_event(Wake::Rung).is_err() {
                    return;
                }
            }
        })
        .map(|_| ())
        .map_err(|error| WorkerError::Failed(format!("Cannot start a thread: {error}")))
}

/// The time from now to `deadline`; `None` for one that never comes.
fn until(deadline: HostTime) -> Option<Duration> {
    (deadline.0 != u64::MAX).then(|| Duration::from_nanos(deadline.since(HostTime::now())))
}
