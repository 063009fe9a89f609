//! The window on an X server without a screen (Xvfb): what it shows, what is typed into it, that it comes back, and what it keeps.
//!
//! The built-in demo runs in it; `xdotool` types and clicks, ImageMagick's `import` takes the window's pixels.

#[path = "support/says.rs"]
mod says;
#[path = "support/screen.rs"]
mod screen;
mod support;
#[path = "support/xvfb.rs"]
mod xvfb;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use quintet_protocol::handshake::Role;
use quintet_protocol::status::MachineState;
use says::quintet_says;
use screen::Screen;
use support::folder::Folder;
use support::{Machine, PATIENCE, Setup, quintet};
use xvfb::Xvfb;

/// Longest wait for something on the screen: a watchdog.
const SOON: Duration = Duration::from_secs(120);

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

    fn xdotool(&self, args: &[&str]) -> Option<String> {
        self.ask("xdotool", args)
            .map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// The window whose title begins with `name`.
    fn window(&self, name: &str) -> Option<String> {
        let found = self.xdotool(&["search", "--onlyvisible", "--name", &format!("^{name} - ")])?;
        found.lines().next().map(str::to_owned)
    }

    /// Left edge, top edge, width and height of a window.
    fn geometry(&self, window: &str) -> Option<[i64; 4]> {
        let text = self.xdotool(&["getwindowgeometry", "--shell", window])?;
        let field = |name: &str| text.lines().find_map(|l| l.strip_prefix(name))?.parse().ok();
        Some([field("X=")?, field("Y=")?, field("WIDTH=")?, field("HEIGHT=")?])
    }

    /// The window's pixels.
    fn pixels(&self, window: &str) -> Option<Screen> {
        let [_, _, width, height] = self.geometry(window)?;
        let bytes = self.ask("import", &["-silent", "-window", window, "-depth", "8", "rgb:-"])?;
        let picture = Screen {
            width: width as usize,
            height: height as usize,
            dots: bytes.as_chunks().0.to_vec(),
        };
        (picture.dots.len() == picture.width * picture.height).then_some(picture)
    }
}

/// What the machine shows.
fn screen_of(machine: &Machine) -> Screen {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.png", machine.name));
    let screen = Screen::take(&quintet().expect("checked"), &machine.name, &path);
    let _ = std::fs::remove_file(path);
    screen
}

/// A screen that fills `width` by `height` pixels, each of them the dot in its place.
fn scaled(screen: &Screen, width: usize, height: usize) -> Screen {
    let dots = (0..height)
        .flat_map(|y| (0..width).map(move |x| (x, y)))
        .map(|(x, y)| screen.dots[y * screen.height / height * screen.width + x * screen.width / width])
        .collect();
    Screen { width, height, dots }
}

/// Waits until `look` finds something.
fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < SOON.min(PATIENCE), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until the window shows what the machine shows, and answers that.
fn shows_the_screen(x: &Xvfb, machine: &Machine) -> Screen {
    // The demo's clock and cursor move, so one pair of pictures may differ; not all of them.
    wait_for("the machine's screen in the window", || {
        let shown = x.pixels(&x.window(&machine.name)?)?;
        let screen = screen_of(machine);
        (shown == scaled(&screen, shown.width, shown.height)).then_some(screen)
    })
}

/// Types into the window, and waits for the echo on the serial line.
fn echoes(x: &Xvfb, window: &str, machine: &mut Machine, text: &str) {
    wait_for("the focus", || x.xdotool(&["windowfocus", "--sync", window]));
    wait_for("typing", || x.xdotool(&["type", "--delay", "60", text]));
    machine.hear(text);
}

fn chord(x: &Xvfb, keys: &str) {
    x.xdotool(&["key", "--delay", "60", keys]).expect("typed");
}

/// The demo in a window, and `home` for what it keeps.
fn demo(quintet: &Path, x: &Xvfb, home: &Folder) -> Setup {
    Setup::demo(quintet.to_owned())
        .environment("DISPLAY", &x.display)
        .environment("WAYLAND_DISPLAY", "")
        .environment("XDG_CONFIG_HOME", home.file("config"))
        .environment("XDG_DATA_HOME", home.file("data"))
}

fn opens(test: &str, option: &str) {
    let (Some(quintet), Some(x)) = (quintet(), Xvfb::start(&["xdotool", "import"])) else {
        return;
    };
    let home = Folder::new(test);
    let start = || {
        demo(&quintet, &x, &home)
            .option("--ram", "64M")
            .flag(option)
            .start(test)
    };
    let mut machine = start();
    machine.hear("type here");
    let window = wait_for("a window", || x.window(&machine.name));
    // 720x400 dots are shown as 4:3.
    let [_, _, width, height] = x.geometry(&window).expect("it is there");
    assert_eq!((width, height), (720, 540));
    let before = shows_the_screen(&x, &machine);
    echoes(&x, &window, &mut machine, "Five by 5");
    let after = shows_the_screen(&x, &machine);
    assert!(before != after, "the echo is on the screen, too");

    // Square dots, and another place and size that the guest's mode does not change.
    chord(&x, "ctrl+alt+a");
    wait_for("square dots", || {
        (x.geometry(&window)?[2..] == [720, 400]).then_some(())
    });
    shows_the_screen(&x, &machine);
    x.xdotool(&["windowsize", "--sync", &window, "1080", "600"])
        .expect("resized");
    x.xdotool(&["windowmove", "--sync", &window, "150", "90"])
        .expect("moved");
    shows_the_screen(&x, &machine);

    // Without a window manager nobody tells a window that it was moved: it looks several times a second.
    std::thread::sleep(Duration::from_secs(1));
    let place = x.geometry(&window).expect("it is there");
    assert_eq!(place, [150, 90, 1080, 600]);
    machine.kill(Role::Gpu);
    let window = wait_for("the window's return", || {
        let window = x.window(&machine.name)?;
        (x.geometry(&window)? == place).then_some(window)
    });
    shows_the_screen(&x, &machine);
    echoes(&x, &window, &mut machine, "still here");

    // Paused by a chord, and shown so; then on again.
    let title = |text: &str| {
        wait_for(text, || {
            let name = x.xdotool(&["getwindowname", &window])?;
            name.contains(text).then_some(())
        });
    };
    chord(&x, "ctrl+alt+p");
    title("paused");
    chord(&x, "ctrl+alt+p");
    title("%");
    echoes(&x, &window, &mut machine, "and on");

    // A window that somebody else destroys comes back, too.
    x.xdotool(&["windowclose", &window]).expect("destroyed");
    shows_the_screen(&x, &machine);
    machine.wait_for("a successor of the worker", |report| {
        report
            .workers
            .iter()
            .any(|w| w.role == Role::Gpu && w.generation == 3)
    });
    shows_the_screen(&x, &machine);

    // A screenshot goes where the coordinator may still write.
    let window = wait_for("a window", || x.window(&machine.name));
    wait_for("the focus", || x.xdotool(&["windowfocus", "--sync", &window]));
    chord(&x, "ctrl+alt+s");
    let shots = home.file("data/quintet/screenshots");
    let shot = shots.join(format!("{}-1.png", machine.name));
    wait_for("a screenshot", || {
        // The last chunk of a PNG.
        std::fs::read(&shot)
            .ok()
            .filter(|bytes| bytes.ends_with(b"IEND\xAE\x42\x60\x82"))
    });
    let shot = Screen::read(&shot);
    assert_eq!((shot.width, shot.height), (720, 400));

    // The next machine's window is as this one was.
    assert_eq!(quintet_says(&["quit", &machine.name]), (true, String::new()));
    machine.end();
    let mut machine = start();
    machine.hear("type here");
    let window = wait_for("a window", || x.window(&machine.name));
    assert_eq!(x.geometry(&window).expect("it is there")[2..], [1080, 600]);
    shows_the_screen(&x, &machine);
    echoes(&x, &window, &mut machine, "as before");
}

#[test]
fn a_key_of_the_window_puts_the_next_diskette_in() {
    let (Some(quintet), Some(x)) = (quintet(), Xvfb::start(&["xdotool"])) else {
        return;
    };
    let test = "window-diskettes";
    let folder = Folder::new(test);
    let diskettes = ["first.img", "second.img"].map(|name| {
        let mut bytes = quintet_guests::ARCADE.to_vec();
        bytes.resize(1_474_560, 0);
        let path = folder.file(name);
        std::fs::write(&path, bytes).expect("a diskette");
        path
    });
    let mut machine = demo(&quintet, &x, &folder)
        .option("--ram", "16M")
        .option("--floppy", &diskettes[0])
        .option("--floppy", &diskettes[1])
        .flag("--software")
        .start(test);
    machine.hear("keys: ");
    let window = wait_for("a window", || x.window(&machine.name));
    wait_for("the focus", || x.xdotool(&["windowfocus", "--sync", &window]));
    // The next one, none, the first again.
    for image in [Some(&diskettes[1]), None, Some(&diskettes[0])] {
        chord(&x, "ctrl+alt+d");
        machine.wait_for("another diskette", |report| {
            let there = report.drives[0].image.as_deref().map(Path::new);
            report.state == MachineState::Running && there == image.map(PathBuf::as_path)
        });
    }
    // One that is at hand can be named, too.
    let insert =
        |path: &Path| quintet_says(&["insert", &machine.name, "floppy", path.to_str().expect("a name")]);
    assert_eq!(insert(&diskettes[1]), (true, String::new()));
    // What is no diskette, and one that the drive cannot read, change nothing.
    for (len, why) in [
        (5 << 10, "diskettes have"),
        (1200 << 10, "which the drive cannot read"),
    ] {
        let path = folder.file("other.img");
        std::fs::write(&path, vec![0; len]).expect("an image");
        let (done, said) = insert(&path);
        assert!(!done && said.contains(why), "{said}");
    }
    let report = machine.report().expect("answers");
    assert_eq!(
        report.drives[0].image.as_deref().map(Path::new),
        Some(diskettes[1].as_path())
    );
    // There is no drive for discs; that is said, and nothing happens.
    chord(&x, "ctrl+alt+c");
    let report = machine.report().expect("answers");
    assert_eq!(report.workers[Role::Io.index() - 1].generation, 5);
}

#[test]
fn the_window_shows_the_screen_takes_keys_and_comes_back_drawn_by_software() {
    opens("window-software", "--software");
}

#[test]
fn the_window_shows_the_screen_takes_keys_and_comes_back_drawn_by_a_gpu() {
    opens("window-gpu", "--any-gpu");
}

#[test]
fn without_a_display_one_line_names_the_remedy() {
    let Some(quintet) = quintet() else { return };
    for display in [None, Some(":4711")] {
        let mut command = Command::new(&quintet);
        command
            .args(["run", "--ram", "16M"])
            .env_remove("WAYLAND_DISPLAY")
            .env_remove("DISPLAY");
        if let Some(display) = display {
            command.env("DISPLAY", display);
        }
        let output = command.stdin(Stdio::null()).output().expect("quintet starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains("display") && said.contains("--headless"), "{said}");
    }
}
