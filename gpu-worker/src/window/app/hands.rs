//! What the user's hands do: keys, chords, the pointer.

use std::time::Instant;

use quintet_protocol::handshake::WorkerError;
use quintet_protocol::input::{Button, InputEvent, Key, KeyStroke, strokes_of};
use quintet_protocol::status::StatusWord;
use quintet_protocol::window::WindowCommand;
use winit::dpi::PhysicalPosition;
use winit::event::{ElementState, KeyEvent, MouseButton, MouseScrollDelta};
use winit::keyboard::PhysicalKey;
use winit::window::{CursorGrabMode, Fullscreen};

use super::{App, COLUMNS};
use crate::window::Wake;
use crate::window::chord::{self, Chord};
use crate::window::keymap;
use crate::window::overlay::Overlay;
use crate::window::paste::clipboard;
use crate::window::scale::Scaler;

/// Pixels of a touchpad's scrolling that make a notch of a wheel.
const NOTCH: f64 = 40.0;

impl App {
    pub(super) fn command(&mut self, command: WindowCommand) {
        match self.peers.commands.push(&command.to_record()) {
            Ok(_) => self.worker.coordinator.ring(),
            Err(error) => tracing::warn!("{command:?} is not passed on: {error}"),
        }
    }

    pub(super) fn send(&mut self, event: InputEvent) -> Result<(), WorkerError> {
        self.worker.send(event)
    }

    /// Every key and button is up, whatever the window system still says of them.
    pub(super) fn let_go(&mut self) -> Result<(), WorkerError> {
        if self.held.is_empty() && self.buttons == 0 {
            return Ok(());
        }
        self.held.clear();
        self.buttons = 0;
        self.tell_held();
        self.send(InputEvent::ReleaseAll)
    }

    pub(super) fn tell_held(&self) {
        let own = self.worker.status.own();
        own.store(StatusWord::KeysHeld, self.held.len() as u32);
        own.store(StatusWord::ButtonsHeld, u32::from(self.buttons));
        own.store(StatusWord::PointerGrabbed, u32::from(self.grabbed));
    }

    pub(super) fn key(&mut self, event: &KeyEvent) -> Result<(), WorkerError> {
        let PhysicalKey::Code(code) = event.physical_key else {
            return Ok(());
        };
        let Some(key) = keymap::key(code) else {
            return Ok(());
        };
        let down = event.state == ElementState::Pressed;
        // The guest's keyboard repeats by itself.
        if event.repeat || self.held.contains(&key) == down {
            return Ok(());
        }
        if down && let Some(chord) = chord::chord(code, |key| self.held.contains(&key)) {
            return self.chord(chord);
        }
        if down {
            self.held.insert(key);
            // Shift and its like are seen with the next key only.
            if key < Key::LEFT_CTRL {
                self.pressed = Some(Instant::now());
            }
        } else {
            self.held.remove(&key);
        }
        self.tell_held();
        self.send(InputEvent::Key { key, down })
    }

    pub(super) fn chord(&mut self, chord: Chord) -> Result<(), WorkerError> {
        match chord {
            Chord::Grab => {
                // Releases that come later are not the guest's any more.
                self.let_go()?;
                self.grab(!self.grabbed);
            }
            Chord::FullScreen => {
                self.remember();
                self.full_screen = !self.full_screen;
                if let Some(shown) = &self.shown {
                    let full = self.full_screen.then_some(Fullscreen::Borderless(None));
                    shown.window.set_fullscreen(full);
                }
            }
            Chord::Integer => self.look.integer = !self.look.integer,
            Chord::Aspect => {
                self.look.aspect = !self.look.aspect;
                if !self.sized && !self.full_screen {
                    self.fit();
                }
            }
            Chord::Smooth => self.look.smooth = !self.look.smooth,
            Chord::FitWindow => {
                self.sized = false;
                self.fit();
            }
            Chord::Overlay => {
                self.overlay = match self.overlay {
                    Some(_) => None,
                    None => Some(Overlay::new("", COLUMNS)),
                };
                self.write_overlay();
            }
            Chord::Screenshot => self.command(WindowCommand::Screenshot),
            Chord::Paste => {
                // The text is not to be typed with Ctrl and Alt held.
                self.let_go()?;
                self.ask_clipboard();
            }
            Chord::Pause => self.command(WindowCommand::TogglePause),
            Chord::Reset => self.command(WindowCommand::Reset),
            Chord::Power => self.command(WindowCommand::PowerButton),
            Chord::Diskette => self.command(WindowCommand::NextDiskette),
            Chord::Disc => self.command(WindowCommand::NextDisc),
        }
        self.remember();
        self.redraw();
        Ok(())
    }

    /// Has the clipboard's text fetched, which then comes as an event.
    pub(super) fn ask_clipboard(&self) {
        let proxy = self.proxy.clone();
        let fetch = move || match clipboard() {
            Ok(text) => drop(proxy.send_event(Wake::Pasted(text))),
            Err(error) => tracing::warn!("{error}"),
        };
        if let Err(error) = std::thread::Builder::new().name("clipboard".into()).spawn(fetch) {
            tracing::warn!("Cannot start a thread: {error}");
        }
    }

    /// Types the clipboard's text, all of it or nothing.
    pub(super) fn paste(&mut self, text: &str) {
        match strokes_of(&text.replace("\r\n", "\n")) {
            Ok(strokes) => self
                .worker
                .input
                .type_events(strokes.into_iter().flat_map(KeyStroke::events)),
            Err(error) => tracing::warn!("Nothing is pasted: {error}"),
        }
    }

    /// Whether the guest wants places rather than movements.
    pub(super) fn is_absolute(&self) -> bool {
        self.peers.io.load(StatusWord::PointerBackend) == 2
    }

    pub(super) fn grab(&mut self, grab: bool) {
        let Some(shown) = &self.shown else { return };
        if grab {
            let caught = shown
                .window
                .set_cursor_grab(CursorGrabMode::Locked)
                .or_else(|_| shown.window.set_cursor_grab(CursorGrabMode::Confined));
            if let Err(error) = caught {
                tracing::warn!("The pointer cannot be caught: {error}");
                return;
            }
        } else {
            let _ = shown.window.set_cursor_grab(CursorGrabMode::None);
        }
        shown.window.set_cursor_visible(!grab);
        self.hidden = grab;
        self.grabbed = grab;
        self.rest = (0.0, 0.0, 0.0);
        self.tell_held();
        self.write_title();
    }

    pub(super) fn button(&mut self, button: MouseButton, down: bool) -> Result<(), WorkerError> {
        if !self.grabbed && !self.is_absolute() {
            // The click that catches the pointer is not the guest's.
            if down {
                self.grab(true);
            }
            return Ok(());
        }
        let button = match button {
            MouseButton::Left => Button::Left,
            MouseButton::Right => Button::Right,
            MouseButton::Middle => Button::Middle,
            MouseButton::Back => Button::Back,
            MouseButton::Forward => Button::Forward,
            MouseButton::Other(_) => return Ok(()),
        };
        let bit = 1 << button as u8;
        if (self.buttons & bit != 0) == down {
            return Ok(());
        }
        self.buttons ^= bit;
        self.tell_held();
        self.send(InputEvent::Button { button, down })
    }

    /// The pointer is at this place of the window.
    pub(super) fn pointer(&mut self, at: PhysicalPosition<f64>) -> Result<(), WorkerError> {
        if self.grabbed {
            return Ok(());
        }
        let absolute = self.is_absolute();
        if absolute != self.hidden
            && let Some(shown) = &self.shown
        {
            // The guest draws a pointer of its own in the same place.
            shown.window.set_cursor_visible(!absolute);
            self.hidden = absolute;
        }
        if !absolute {
            return Ok(());
        }
        let Some(area) = self
            .shown
            .as_ref()
            .and_then(|s| s.scaler.as_ref())
            .map(Scaler::place)
        else {
            return Ok(());
        };
        let part = |at: f64, from: u32, len: u32| {
            let part = (at - f64::from(from)) / f64::from(len.saturating_sub(1).max(1));
            (part.clamp(0.0, 1.0) * 32767.0).round() as u16
        };
        self.send(InputEvent::Position {
            x: part(at.x, area.x, area.width),
            y: part(at.y, area.y, area.height),
        })
    }

    pub(super) fn motion(&mut self, dx: f64, dy: f64) -> Result<(), WorkerError> {
        if !self.grabbed {
            return Ok(());
        }
        let whole = |rest: &mut f64, more: f64| {
            *rest += more;
            let whole = rest.trunc().clamp(-32767.0, 32767.0);
            *rest -= whole;
            whole as i16
        };
        let (dx, dy) = (whole(&mut self.rest.0, dx), whole(&mut self.rest.1, dy));
        if (dx, dy) == (0, 0) {
            return Ok(());
        }
        self.send(InputEvent::Motion { dx, dy })
    }

    pub(super) fn wheel(&mut self, delta: MouseScrollDelta) -> Result<(), WorkerError> {
        if !self.grabbed && !self.is_absolute() {
            return Ok(());
        }
        self.rest.2 += match delta {
            MouseScrollDelta::LineDelta(_, y) => f64::from(y),
            MouseScrollDelta::PixelDelta(at) => at.y / NOTCH,
        };
        let notches = self.rest.2.trunc().clamp(-127.0, 127.0);
        self.rest.2 -= notches;
        if notches == 0.0 {
            return Ok(());
        }
        self.send(InputEvent::Wheel {
            notches: notches as i8,
        })
    }
}
