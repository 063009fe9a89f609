//! What a person sees of a soak while it runs: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Progress of a soak.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    duration: Duration,
    /// From one line to the next, where there is no bar.
    gap: Duration,
    next: Instant,
}

impl Progress {
    /// Begins to show the progress of a run of `duration`.
    pub fn start(duration: Duration) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(duration.as_millis() as u64);
            let style = ProgressStyle::with_template("{bar:32.cyan/blue} {percent:>3} %  {msg}");
            if let Ok(style) = style {
                bar.set_style(style);
            }
            bar
        });
        Self {
            bar,
            duration,
            gap: (duration / 20).clamp(Duration::from_secs(10), Duration::from_mins(5)),
            next: Instant::now(),
        }
    }

    /// Shows how far the run is.
    pub fn show(&mut self, passed: Duration, message: &dyn Fn() -> String) {
        if let Some(bar) = &self.bar {
            bar.set_position(passed.min(self.duration).as_millis() as u64);
            bar.set_message(message());
        } else if Instant::now() >= self.next {
            self.next = Instant::now() + self.gap;
            let part = passed.as_secs_f64() * 100.0 / self.duration.as_secs_f64().max(0.001);
            eprintln!("soak: {:.0} %, {}", part.min(100.0), message());
        }
    }

    /// Says something that is to stay.
    pub fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(format!("soak: {line}")),
            None => eprintln!("soak: {line}"),
        }
    }

    /// Ends showing.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
