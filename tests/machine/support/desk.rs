//! A window on an X server without a screen: what `xdotool` types and points at, and what ImageMagick's `import` sees of it.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::process::{Command, Stdio};

use crate::screen::Screen;
use crate::support::folder::Folder;
use crate::support::{Setup, wait_for};
use crate::xvfb::Xvfb;

/// Programs that this asks, for [`Xvfb::start`].
pub const TOOLS: &[&str] = &["xdotool", "import"];

/// A machine whose window is on this display, and `home` for what the window keeps.
pub fn windowed(setup: Setup, x: &Xvfb, home: &Folder) -> Setup {
    setup
        .environment("DISPLAY", &x.display)
        .environment("WAYLAND_DISPLAY", "")
        .environment("XDG_CONFIG_HOME", home.file("config"))
        .environment("XDG_DATA_HOME", home.file("data"))
}

/// What the tests do with a display.
impl Xvfb {
    /// Runs a tool on this display and answers what it printed; `None` when it fails.
    fn ask(&self, program: &str, args: &[&str]) -> Option<Vec<u8>> {
        let output = Command::new(program)
            .args(args)
            .env("DISPLAY", &self.display)
            .stderr(Stdio::null())
            .output()
            .expect("the tool starts");
        output.status.success().then_some(output.stdout)
    }

    /// The same of `xdotool`.
    pub fn xdotool(&self, args: &[&str]) -> Option<String> {
        self.ask("xdotool", args)
            .map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// The window of the machine `name`.
    pub fn window(&self, name: &str) -> Option<String> {
        let found = self.xdotool(&["search", "--onlyvisible", "--name", &format!("^{name} - ")])?;
        found.lines().next().map(str::to_owned)
    }

    /// Left edge, top edge, width and height of a window.
    pub fn geometry(&self, window: &str) -> Option<[i64; 4]> {
        let text = self.xdotool(&["getwindowgeometry", "--shell", window])?;
        let field = |name: &str| text.lines().find_map(|l| l.strip_prefix(name))?.parse().ok();
        Some([field("X=")?, field("Y=")?, field("WIDTH=")?, field("HEIGHT=")?])
    }

    /// The window's pixels.
    pub fn pixels(&self, window: &str) -> Option<Screen> {
        let [_, _, width, height] = self.geometry(window)?;
        let bytes = self.ask("import", &["-silent", "-window", window, "-depth", "8", "rgb:-"])?;
        let picture = Screen {
            width: width as usize,
            height: height as usize,
            dots: bytes.as_chunks().0.to_vec(),
        };
        (picture.dots.len() == picture.width * picture.height).then_some(picture)
    }

    /// Has the window take what is typed.
    pub fn focus(&self, window: &str) {
        wait_for("the focus", || self.xdotool(&["windowfocus", "--sync", window]));
    }

    /// Types a text.
    pub fn type_text(&self, text: &str) {
        self.xdotool(&["type", "--delay", "60", text]).expect("typed");
    }

    /// Presses keys together, as `ctrl+alt+a`.
    pub fn chord(&self, keys: &str) {
        self.xdotool(&["key", "--delay", "60", keys]).expect("typed");
    }
}
