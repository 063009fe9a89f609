//! The picture, the title and the figures.

use std::time::{Duration, Instant};

use quintet_protocol::framebuffer::dirty_rects;
use quintet_protocol::status::{MachineState, StatusWord};
use quintet_protocol::trace::Kind;

use super::{App, COLUMNS};
use crate::window::chord::CHORDS;
use crate::window::overlay::Overlay;
use crate::window::present::{Frame, GpuChoice, Presenter};
use crate::window::scale::{Scaler, natural_size, place};

/// How often figures are counted anew.
const PERIOD: Duration = Duration::from_secs(1);
/// A change of the screen that comes later than this is no echo of a key.
const ECHO_MAX: Duration = Duration::from_secs(1);

impl App {
    /// Shows what has changed.
    pub(super) fn show(&mut self) {
        let picture = self.picture();
        if self.followed.is_some_and(|followed| followed != picture) {
            self.followed = Some(picture);
            if !self.sized && !self.full_screen {
                self.fit();
            }
        }
        self.count();
        let unseen = self.worker.scanout.take_unseen();
        let Some(shown) = &mut self.shown else { return };
        let size = shown.window.inner_size();
        let size = (size.width, size.height);
        if size.0 == 0 || size.1 == 0 {
            shown.stale = true;
            return;
        }
        let ((width, height), legacy) = picture;
        let scaled = ((width, height), size, legacy, self.look);
        if shown.scaler.is_none() || shown.scaled != scaled {
            let at = place(natural_size((width, height), legacy, self.look), size, self.look);
            shown.scaler = Some(Scaler::new((width, height), at, size, self.look.smooth));
            shown.scaled = scaled;
            shown.stale = true;
        }
        if unseen.is_empty() && !shown.stale {
            return;
        }
        let Some(scaler) = &shown.scaler else { return };
        let source = self.worker.scanout.picture();
        let mut changed: Vec<_> = dirty_rects(source.layout(), unseen.words())
            .into_iter()
            .filter_map(|rect| scaler.pixels_of(rect))
            .collect();
        let overlay = self.overlay.as_ref().map(Overlay::placed);
        if let Some((_, mut at)) = overlay {
            at.width = at.width.min(size.0);
            at.height = at.height.min(size.1);
            changed.push(at);
        }
        let frame = Frame {
            dots: source.pixels().as_chunks().0,
            scaler,
            changed: &changed,
            overlay,
        };
        shown.window.pre_present_notify();
        let begun = self.worker.tracer.begin();
        let result = shown.presenter.show(size, &frame, shown.stale);
        self.worker.tracer.end(Kind::Present, begun, 0);
        match result {
            Ok(()) => shown.stale = false,
            Err(error) => {
                tracing::warn!("{error}");
                // A GPU that went away leaves the processor.
                if matches!(shown.presenter, Presenter::Gpu(_))
                    && let Ok(software) =
                        Presenter::new(self.display.clone(), &shown.window, GpuChoice::Never)
                {
                    shown.presenter = software;
                }
                shown.stale = true;
            }
        }
        let area: u64 = changed
            .iter()
            .map(|r| u64::from(r.width) * u64::from(r.height))
            .sum();
        tracing::trace!("Shown {area} pixels");
        if !unseen.is_empty() {
            self.figures.frames += 1;
            self.echoed();
        }
    }

    /// Something changed on the screen: an echo of the newest key, if it came soon.
    pub(super) fn echoed(&mut self) {
        let Some(pressed) = self.pressed.take() else {
            return;
        };
        let echo = pressed.elapsed();
        if echo <= ECHO_MAX {
            tracing::debug!("A key press was seen after {} us", echo.as_micros());
            self.figures.echo = Some(echo);
            self.worker
                .status
                .own()
                .store(StatusWord::EchoLatency, echo.as_micros() as u32);
        }
    }

    /// Counts figures anew when it is time, and writes them into title and overlay. Called when something else woke the
    /// window: figures that nobody changes need not be fresh.
    pub(super) fn count(&mut self) {
        let passed = self.figures.since.elapsed();
        if passed >= PERIOD {
            let vm = self.worker.clock.now().0;
            self.figures.speed =
                vm.saturating_sub(self.figures.vm_since) as f64 / passed.as_nanos().max(1) as f64;
            self.figures.rate = f64::from(self.figures.frames) / passed.as_secs_f64();
            self.figures.frames = 0;
            self.figures.vm_since = vm;
            self.figures.since = Instant::now();
            self.write_overlay();
        }
        self.write_title();
    }

    pub(super) fn write_title(&mut self) {
        let state = match self.worker.status.machine_state() {
            MachineState::Running => format!("{:.0} %", self.figures.speed * 100.0),
            MachineState::Paused => "paused".to_owned(),
            state => format!("{state:?}").to_lowercase(),
        };
        let grab = if self.grabbed {
            " - Ctrl+Alt+G releases the mouse"
        } else {
            ""
        };
        let title = format!("{} - {state}{grab}", self.name);
        if title != self.title
            && let Some(shown) = &self.shown
        {
            shown.window.set_title(&title);
            self.title = title;
        }
    }

    pub(super) fn write_overlay(&mut self) {
        let Some(overlay) = &self.overlay else { return };
        let figures = &self.figures;
        let echo = figures.echo.map_or("-".to_owned(), |echo| {
            format!("{:.1} ms", echo.as_secs_f64() * 1e3)
        });
        // Frames at the sink's 48 kHz.
        let audio = f64::from(self.peers.audio.load(StatusWord::AudioLevel)) / 48.0;
        let mut text = format!(
            "speed {:.0} %   {:.0} frames/s by {}\nkey to screen {echo}\nsound {audio:.0} ms   input ring {}\n\nCtrl+Alt+\n",
            figures.speed * 100.0,
            figures.rate,
            self.shown
                .as_ref()
                .map_or("nothing", |shown| shown.presenter.name()),
            self.worker.input.depth(),
        );
        for (_, _, words) in CHORDS {
            text.push_str("  ");
            text.push_str(words);
            text.push('\n');
        }
        if overlay.text() != text {
            self.overlay = Some(Overlay::new(&text, COLUMNS));
            self.redraw();
        }
    }

    /// Has all of the window drawn again, at the end of this round of events.
    pub(super) fn redraw(&mut self) {
        if let Some(shown) = &mut self.shown {
            shown.stale = true;
        }
    }
}
