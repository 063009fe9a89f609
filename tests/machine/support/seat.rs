//! Where somebody sits who uses a machine: at its window, drawn by software on an X server without a screen, or anywhere, with quintet's
//! commands. What a guest is asked to do is asked of both in the same way.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::path::{Path, PathBuf};

use crate::desk::{TOOLS, windowed};
use crate::says::quintet_says;
use crate::screen::Screen;
use crate::support::folder::Folder;
use crate::support::{Machine, Setup, wait_for};
use crate::xvfb::Xvfb;

/// A place to use a machine from.
pub enum Seat {
    /// `quintet screenshot`, `type`, `key` and `mouse`; no window.
    Commands,
    /// A display, and what the window keeps.
    Window(Xvfb, Folder),
}

impl Seat {
    /// At a window whose dots are the guest's; `None`, loudly, where a tool for that is missing.
    pub fn window(test: &str) -> Option<Self> {
        let x = Xvfb::start(TOOLS)?;
        let home = Folder::new(&format!("{test}-home"));
        let settings = home.file("config/quintet");
        std::fs::create_dir_all(&settings).expect("a folder");
        std::fs::write(settings.join("window.toml"), "[look]\naspect = false\n").expect("a file");
        Some(Self::Window(x, home))
    }

    /// What a machine is started with.
    pub fn setup(&self, quintet: PathBuf) -> Setup {
        match self {
            Self::Commands => Setup::headless(quintet),
            Self::Window(x, home) => windowed(Setup::bare(quintet), x, home).flag("--software"),
        }
    }

    /// What is to be seen, which is in the file `shot`, too; `None` while there is nothing.
    pub fn look(&self, quintet: &Path, machine: &Machine, shot: &Path) -> Option<Screen> {
        match self {
            Self::Commands => Screen::try_take(quintet, &machine.name, shot),
            Self::Window(x, _) => {
                let screen = x.pixels(&x.window(&machine.name)?)?;
                screen.write(shot);
                Some(screen)
            }
        }
    }

    /// Types a text without control characters.
    pub fn type_text(&self, machine: &Machine, text: &str) {
        match self {
            Self::Commands => tell(machine, "type", &[text]),
            Self::Window(x, _) => {
                focus(x, machine);
                x.type_text(text);
            }
        }
    }

    /// Presses a key: `enter`, `up` or `down`.
    pub fn key(&self, machine: &Machine, key: &str) {
        match self {
            Self::Commands => tell(machine, "key", &[key]),
            Self::Window(x, _) => {
                focus(x, machine);
                x.chord(match key {
                    "enter" => "Return",
                    "up" => "Up",
                    "down" => "Down",
                    _ => panic!("what X calls {key} is not known here"),
                });
            }
        }
    }

    /// Has the guest take the mouse: a window must be clicked into first.
    pub fn take_mouse(&self, machine: &Machine) {
        if let Self::Window(x, _) = self {
            let window = focus(x, machine);
            x.xdotool(&["mousemove", "--window", &window, "100", "100", "click", "1"])
                .expect("clicked");
        }
    }

    /// Moves the mouse to the right and down.
    pub fn shove(&self, machine: &Machine, (x, y): (i32, i32)) {
        let by = [x.to_string(), y.to_string()];
        match self {
            Self::Commands => tell(machine, "mouse", &["move", &by[0], &by[1]]),
            Self::Window(x, _) => {
                x.xdotool(&["mousemove_relative", "--", &by[0], &by[1]])
                    .expect("moved");
            }
        }
    }

    /// Points at a dot of a screen of `size`, whose guest takes places.
    pub fn point(&self, machine: &Machine, (x, y): (usize, usize), size: (usize, usize)) {
        match self {
            Self::Commands => {
                let part = |at: usize, of: usize| format!("{:.5}", at as f64 / (of - 1) as f64);
                tell(machine, "mouse", &["to", &part(x, size.0), &part(y, size.1)]);
            }
            Self::Window(display, _) => {
                let window = focus(display, machine);
                let (x, y) = (x.to_string(), y.to_string());
                display
                    .xdotool(&["mousemove", "--window", &window, &x, &y])
                    .expect("moved");
            }
        }
    }

    /// Clicks.
    pub fn click(&self, machine: &Machine) {
        match self {
            Self::Commands => tell(machine, "mouse", &["click", "left"]),
            Self::Window(x, _) => {
                x.xdotool(&["click", "1"]).expect("clicked");
            }
        }
    }
}

/// Has a machine's window take what is typed, and answers which that is.
fn focus(x: &Xvfb, machine: &Machine) -> String {
    let window = wait_for("a window", || x.window(&machine.name));
    x.focus(&window);
    window
}

/// A command of `quintet` to a machine.
fn tell(machine: &Machine, command: &str, words: &[&str]) {
    let all = [&[command, machine.name.as_str()], words].concat();
    assert_eq!(quintet_says(&all), (true, String::new()), "{all:?}");
}
