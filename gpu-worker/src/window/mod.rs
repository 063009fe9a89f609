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
use winit::error::EventLoopError;
use winit::event_loop::{EventLoop, EventLoopProxy};

use crate::run::Worker;
use app::{App, Peers};

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
    let event_loop = open_display().map_err(|error| {
        WorkerError::Config(format!(
            "The display cannot be opened ({}); without one, add --headless",
            reason(&error)
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
    let proxy = event_loop.create_proxy();
    let display = event_loop.owned_display_handle();
    let mut app = App::new(worker, peers, display, proxy, config);
    event_loop
        .run_app(&mut app)
        .map_err(|error| WorkerError::Failed(format!("The window system failed: {error}")))?;
    app.result()
}

/// Connects to the display that the environment names.
fn open_display() -> Result<EventLoop<Wake>, EventLoopError> {
    let mut builder = EventLoop::with_user_event();
    // With `--single-process` this is not the first thread of its process.
    winit::platform::x11::EventLoopBuilderExtX11::with_any_thread(&mut builder, true);
    winit::platform::wayland::EventLoopBuilderExtWayland::with_any_thread(&mut builder, true);
    builder.build()
}

/// Why there is no window, without the place in the window library that says so.
fn reason(error: &EventLoopError) -> String {
    let text = error.to_string();
    let behind = text
        .strip_prefix("os error at ")
        .and_then(|rest| rest.split_once(": "));
    behind.map_or(text.clone(), |(_, why)| why.to_owned())
}

/// Connects to the display as a window would, and answers which kind of window system it is. A process can do so once; libraries of
/// the window system that are missing may end it.
///
/// # Errors
/// Why it cannot be opened, in one line.
pub fn check_display() -> Result<String, String> {
    let event_loop = open_display().map_err(|error| reason(&error))?;
    let wayland = winit::platform::wayland::EventLoopExtWayland::is_wayland(&event_loop);
    Ok(if wayland { "Wayland" } else { "X11" }.to_owned())
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
