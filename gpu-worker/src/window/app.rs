//! What happens in the window, and what of it goes where.

mod hands;
mod show;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quintet_protocol::handshake::WorkerError;
use quintet_protocol::handshake::config::GpuConfig;
use quintet_protocol::input::Key;
use quintet_protocol::ring::Producer;
use quintet_protocol::shm::ViewMut;
use quintet_protocol::status::StatusReader;
use quintet_protocol::window::{Look, WindowCommand, WindowPlace, WindowSettings};
use winit::application::ApplicationHandler;
use winit::dpi::{LogicalSize, PhysicalPosition, PhysicalSize};
use winit::event::{DeviceEvent, DeviceId, ElementState, WindowEvent};
use winit::event_loop::{ActiveEventLoop, ControlFlow, EventLoopProxy, OwnedDisplayHandle};
use winit::window::{Fullscreen, Window, WindowId};

use super::overlay::Overlay;
use super::present::{GpuChoice, Presenter};
use super::scale::{Scaler, natural_size};
use super::{Wake, until};
use crate::run::{Next, Worker};

/// Columns of the overlay.
const COLUMNS: usize = 40;
/// How often the window looks where it is, while something wakes it.
const LOOK_ABOUT: Duration = Duration::from_millis(250);

/// Ends of the shared memory that only a window needs.
#[derive(Debug)]
pub struct Peers {
    /// To the coordinator.
    pub commands: Producer,
    /// Where the window is, for a successor.
    pub place: ViewMut,
    /// Status words of io-worker.
    pub io: StatusReader,
    /// Status words of audio-worker.
    pub audio: StatusReader,
}

/// The window and its picture.
#[derive(Debug)]
struct Shown {
    window: Arc<Window>,
    presenter: Presenter,
    scaler: Option<Scaler>,
    /// Size of picture and window that the scaler is for, and how it is looked at.
    scaled: ((u32, u32), (u32, u32), bool, Look),
    /// Nothing of what the window shows can be relied upon.
    stale: bool,
}

/// Figures for title and overlay.
#[derive(Debug)]
struct Figures {
    since: Instant,
    vm_since: u64,
    frames: u32,
    speed: f64,
    rate: f64,
    echo: Option<Duration>,
}

/// The application that winit drives.
#[derive(Debug)]
pub struct App {
    worker: Worker,
    peers: Peers,
    display: OwnedDisplayHandle,
    proxy: EventLoopProxy<Wake>,
    gpu: GpuChoice,
    name: String,
    /// How the window is when no predecessor has left it.
    first: WindowSettings,
    shown: Option<Shown>,
    look: Look,
    /// Size of the picture, and whether it is of an old mode, that the window has taken its size from.
    followed: Option<((u32, u32), bool)>,
    sized: bool,
    full_screen: bool,
    overlay: Option<Overlay>,
    held: BTreeSet<Key>,
    buttons: u8,
    grabbed: bool,
    /// The pointer is not shown over the window.
    hidden: bool,
    /// Parts of mickeys and of notches.
    rest: (f64, f64, f64),
    remembered: Instant,
    title: String,
    figures: Figures,
    /// When a key was pressed whose echo has not been seen.
    pressed: Option<Instant>,
    result: Result<(), WorkerError>,
}

impl App {
    /// An application that opens its window when winit is ready.
    pub fn new(
        worker: Worker,
        peers: Peers,
        display: OwnedDisplayHandle,
        proxy: EventLoopProxy<Wake>,
        config: &GpuConfig,
    ) -> Self {
        let gpu = match (config.software, config.any_gpu) {
            (true, _) => GpuChoice::Never,
            (false, true) => GpuChoice::Any,
            (false, false) => GpuChoice::Real,
        };
        Self {
            worker,
            peers,
            display,
            proxy,
            gpu,
            name: config.title.clone(),
            first: config.window,
            shown: None,
            look: Look::default(),
            followed: None,
            sized: false,
            full_screen: false,
            overlay: None,
            held: BTreeSet::new(),
            buttons: 0,
            grabbed: false,
            hidden: false,
            rest: (0.0, 0.0, 0.0),
            remembered: Instant::now(),
            title: String::new(),
            figures: Figures {
                since: Instant::now(),
                vm_since: 0,
                frames: 0,
                speed: 1.0,
                rate: 0.0,
                echo: None,
            },
            pressed: None,
            result: Ok(()),
        }
    }

    /// How it ended.
    pub fn result(self) -> Result<(), WorkerError> {
        self.result
    }

    fn fail(&mut self, event_loop: &ActiveEventLoop, error: WorkerError) {
        self.result = Err(error);
        event_loop.exit();
    }

    /// Opens the window, where a predecessor left it if there was one.
    fn open(&mut self, event_loop: &ActiveEventLoop) -> Result<(), WorkerError> {
        let failed =
            |error: &dyn std::fmt::Display| WorkerError::Failed(format!("Cannot open a window: {error}"));
        let left = WindowPlace::load(self.peers.place.view());
        let settings = left.map_or(self.first, |place| place.settings());
        self.look = settings.look;
        self.sized = settings.size.is_some();
        self.overlay = settings.overlay.then(|| Overlay::new("", COLUMNS));
        let mut attributes = Window::default_attributes().with_title(&self.name);
        if let Some(place) = left {
            tracing::info!("Opening the window again: {place:?}");
            self.full_screen = place.full_screen;
            attributes = attributes.with_position(PhysicalPosition::new(place.x, place.y));
        }
        attributes = match left.map(|place| place.size).or(settings.size) {
            Some([width, height]) => attributes.with_inner_size(PhysicalSize::new(width, height)),
            None => {
                let (width, height) = self.natural();
                attributes.with_inner_size(LogicalSize::new(width, height))
            }
        };
        if self.full_screen {
            attributes = attributes.with_fullscreen(Some(Fullscreen::Borderless(None)));
        }
        self.followed = Some(self.picture());
        let window = event_loop.create_window(attributes).map_err(|e| failed(&e))?;
        let window = Arc::new(window);
        let presenter = Presenter::new(self.display.clone(), &window, self.gpu).map_err(|e| failed(&e))?;
        tracing::info!("The window is drawn by {}", presenter.name());
        self.shown = Some(Shown {
            window,
            presenter,
            scaler: None,
            scaled: ((0, 0), (0, 0), false, self.look),
            stale: true,
        });
        Ok(())
    }

    /// Size of the picture, and whether it is of an old mode.
    fn picture(&self) -> ((u32, u32), bool) {
        let layout = self.worker.scanout.picture().layout();
        ((layout.width, layout.height), self.worker.scanout.is_legacy())
    }

    fn natural(&self) -> (u32, u32) {
        let (size, legacy) = self.picture();
        natural_size(size, legacy, self.look)
    }

    /// Leaves word for a successor of where the window is.
    fn remember(&self) {
        let Some(shown) = &self.shown else { return };
        let (x, y, size) = match WindowPlace::load(self.peers.place.view()) {
            // What full screen covers is not what the window goes back to.
            Some(before) if self.full_screen => (before.x, before.y, before.size),
            _ => {
                // Wayland does not tell; there the window system decides anyway.
                let at = shown.window.outer_position().unwrap_or_default();
                let size = shown.window.inner_size();
                (at.x, at.y, [size.width, size.height])
            }
        };
        let place = WindowPlace {
            x,
            y,
            size,
            full_screen: self.full_screen,
            sized: self.sized,
            overlay: self.overlay.is_some(),
            look: self.look,
        };
        place.store(&self.peers.place);
    }

    /// Gives the window the size of the picture, in units that the user's scale makes larger.
    fn fit(&self) {
        let (width, height) = self.natural();
        if let Some(shown) = &self.shown {
            let _ = shown.window.request_inner_size(LogicalSize::new(width, height));
        }
    }

    /// Does what there is to do, shows what there is to show, and tells winit how long to sleep.
    fn step(&mut self, event_loop: &ActiveEventLoop) {
        match self.worker.step() {
            Ok(Next::Stop) => event_loop.exit(),
            Ok(Next::Sleep(deadline)) => {
                self.show();
                self.worker.tell_sleep(deadline);
                event_loop.set_control_flow(match until(deadline) {
                    Some(left) => ControlFlow::wait_duration(left),
                    None => ControlFlow::Wait,
                });
            }
            Err(error) => self.fail(event_loop, error),
        }
    }

    fn happened(&mut self, event: WindowEvent) -> Result<(), WorkerError> {
        match event {
            WindowEvent::CloseRequested => self.command(WindowCommand::Quit),
            WindowEvent::RedrawRequested => {
                if let Some(shown) = &mut self.shown {
                    shown.stale = true;
                }
            }
            WindowEvent::Resized(size) => {
                let natural = self.natural();
                let factor = self.shown.as_ref().map_or(1.0, |s| s.window.scale_factor());
                let own = LogicalSize::new(natural.0, natural.1).to_physical::<u32>(factor);
                self.sized |= !self.full_screen && size != own;
                self.remember();
                self.redraw();
            }
            WindowEvent::Moved(_) => self.remember(),
            WindowEvent::ScaleFactorChanged { .. } => self.redraw(),
            WindowEvent::Focused(false) => {
                self.let_go()?;
                self.grab(false);
            }
            // A key that was down when the window got the focus was not pressed for the guest.
            WindowEvent::KeyboardInput {
                event,
                is_synthetic: false,
                ..
            } => self.key(&event)?,
            WindowEvent::MouseInput { state, button, .. } => {
                self.button(button, state == ElementState::Pressed)?;
            }
            WindowEvent::CursorMoved { position, .. } => self.pointer(position)?,
            WindowEvent::MouseWheel { delta, .. } => self.wheel(delta)?,
            _ => {}
        }
        Ok(())
    }
}

impl ApplicationHandler<Wake> for App {
    fn resumed(&mut self, event_loop: &ActiveEventLoop) {
        if self.shown.is_some() {
            return;
        }
        self.worker.watched = true;
        self.worker.begin();
        self.figures.since = Instant::now();
        self.figures.vm_since = self.worker.clock.now().0;
        if let Err(error) = self.open(event_loop) {
            return self.fail(event_loop, error);
        }
        self.step(event_loop);
    }

    fn user_event(&mut self, event_loop: &ActiveEventLoop, event: Wake) {
        if let Wake::Pasted(text) = event {
            self.paste(&text);
        }
        self.step(event_loop);
    }

    fn window_event(&mut self, event_loop: &ActiveEventLoop, _id: WindowId, event: WindowEvent) {
        if let Err(error) = self.happened(event) {
            self.fail(event_loop, error);
        }
    }

    fn device_event(&mut self, event_loop: &ActiveEventLoop, _id: DeviceId, event: DeviceEvent) {
        if let DeviceEvent::MouseMotion { delta: (dx, dy) } = event
            && let Err(error) = self.motion(dx, dy)
        {
            self.fail(event_loop, error);
        }
    }

    fn about_to_wait(&mut self, event_loop: &ActiveEventLoop) {
        if !event_loop.exiting() && self.shown.is_some() {
            // Not every window manager tells of a movement.
            if self.remembered.elapsed() >= LOOK_ABOUT {
                self.remembered = Instant::now();
                self.remember();
            }
            self.step(event_loop);
        }
    }
}
