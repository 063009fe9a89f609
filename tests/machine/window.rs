//! The window on an X server without a screen (Xvfb): what it shows, what is typed into it, that it comes back, and what it keeps.
//!
//! The guest is the one that tests the machine; `xdotool` types and clicks, ImageMagick's `import` takes the window's pixels.

#[path = "support/desk.rs"]
mod desk;
#[path = "support/says.rs"]
mod says;
#[path = "support/screen.rs"]
mod screen;
mod support;
#[path = "support/xvfb.rs"]
mod xvfb;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use desk::windowed;
use quintet_protocol::handshake::Role;
use quintet_protocol::status::MachineState;
use says::quintet_says;
use screen::Screen;
use support::folder::Folder;
use support::{Machine, Setup, quintet, wait_for};
use xvfb::Xvfb;

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

/// Waits until the window shows what the machine shows, and answers that.
fn shows_the_screen(x: &Xvfb, machine: &Machine) -> Screen {
    // The guest's clock and cursor move, so one pair of pictures may differ; not all of them.
    wait_for("the machine's screen in the window", || {
        let shown = x.pixels(&x.window(&machine.name)?)?;
        let screen = screen_of(machine);
        (shown == scaled(&screen, shown.width, shown.height)).then_some(screen)
    })
}

/// Types into the window, and waits for the echo on the serial line.
fn echoes(x: &Xvfb, window: &str, machine: &mut Machine, text: &str) {
    x.focus(window);
    x.type_text(text);
    machine.hear(text);
}

/// A window, and `home` for what it keeps.
fn window(quintet: &Path, x: &Xvfb, home: &Folder) -> Setup {
    windowed(Setup::bare(quintet.to_owned()), x, home)
}

/// The same, with the guest that tests the machine and echoes.
fn echoing(quintet: &Path, x: &Xvfb, home: &Folder) -> Setup {
    let kernel = home.file("selftest.elf");
    std::fs::write(&kernel, quintet_guests::SELFTEST).expect("the guest as a file");
    window(quintet, x, home)
        .option("--ram", "64M")
        .option("--kernel", kernel)
}

fn opens(test: &str, option: &str) {
    let (Some(quintet), Some(x)) = (quintet(), Xvfb::start(desk::TOOLS)) else {
        return;
    };
    let home = Folder::new(test);
    let start = || echoing(&quintet, &x, &home).flag(option).start(test);
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
    x.chord("ctrl+alt+a");
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
    x.chord("ctrl+alt+p");
    title("paused");
    x.chord("ctrl+alt+p");
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
    x.focus(&window);
    x.chord("ctrl+alt+s");
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
    let mut machine = window(&quintet, &x, &folder)
        .option("--ram", "16M")
        .option("--floppy", &diskettes[0])
        .option("--floppy", &diskettes[1])
        .flag("--software")
        .start(test);
    machine.hear("keys: ");
    let window = wait_for("a window", || x.window(&machine.name));
    x.focus(&window);
    // The next one, none, the first again.
    for image in [Some(&diskettes[1]), None, Some(&diskettes[0])] {
        x.chord("ctrl+alt+d");
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
    x.chord("ctrl+alt+c");
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

/// What a desktop's scale makes of a window of 720 by 540: physical pixels, whole ones, and none of the guest's dots lost.
#[test]
fn the_window_is_as_large_as_the_desktops_scale_says() {
    let (Some(quintet), Some(x)) = (quintet(), Xvfb::start(desk::TOOLS)) else {
        return;
    };
    let home = Folder::new("window-scale");
    for (scale, size) in [("1.25", [900, 675]), ("1.5", [1080, 810]), ("2", [1440, 1080])] {
        let mut machine = echoing(&quintet, &x, &home)
            .flag("--software")
            .environment("WINIT_X11_SCALE_FACTOR", scale)
            .start("window-scale");
        machine.hear("type here");
        let window = wait_for("a window", || x.window(&machine.name));
        wait_for("its size", || (x.geometry(&window)?[2..] == size).then_some(()));
        shows_the_screen(&x, &machine);
        assert_eq!(quintet_says(&["quit", &machine.name]), (true, String::new()));
        machine.end();
    }
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
