//! Debian's graphical installer from a CD, by the machine's own BIOS or SeaBIOS: ISOLINUX with its menu over a picture, the kernel with a
//! driver for the display, an X server, keyboard and mouse. Looked at as a person would, by where the selected line is
//! and where the pointer.

#[path = "support/bios.rs"]
mod bios;
#[path = "support/desk.rs"]
mod desk;
#[path = "support/says.rs"]
mod says;
#[path = "support/screen.rs"]
mod screen;
#[path = "support/seat.rs"]
mod seat;
mod support;
#[path = "support/xvfb.rs"]
mod xvfb;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bios::Bios;
use quintet_protocol::handshake::Role;
use screen::{Screen, until};
use seat::Seat;
use support::{Machine, PATIENCE, quintet, variable};

/// What the installer's theme marks the selected line with: red, green, blue.
const SELECTED: [u8; 3] = [41, 134, 126];
/// Rows that a selected line has at least.
const LINE: usize = 12;
/// The button that leads on, from its left upper to its right lower corner, in a picture of 1280 by 800.
const CONTINUE: [(usize, usize); 2] = [(1176, 766), (1262, 782)];
/// Where a page says what it asks.
const HEADING: [(usize, usize); 2] = [(10, 82), (700, 165)];

/// From afar.
const COMMANDS: Option<Seat> = Some(Seat::Commands);

/// The installer in a machine.
struct Installer {
    seat: Seat,
    quintet: PathBuf,
    machine: Machine,
    shot: PathBuf,
    patience: Duration,
}

impl Installer {
    fn start(
        test: &str,
        seat: Option<Seat>,
        bios: Bios,
        options: &[(&str, &str)],
        patience: Duration,
    ) -> Option<Self> {
        let seat = seat?;
        let (quintet, image) = (quintet()?, variable("QUINTET_INSTALLER_AMD64")?);
        if !bios.is_there() {
            return None;
        }
        let setup = seat
            .setup(quintet.clone())
            .option("--cdrom", image)
            .option("--ram", "1G");
        let mut setup = bios.put(setup);
        for (option, value) in options {
            setup = setup.option(option, value);
        }
        Some(Self {
            seat,
            quintet,
            machine: setup.start(test),
            shot: PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
                .join(format!("{test}-{}.png", std::process::id())),
            patience,
        })
    }

    fn look(&self) -> Option<Screen> {
        self.seat.look(&self.quintet, &self.machine, &self.shot)
    }

    /// Waits for a picture that something can be told of, and answers both.
    fn see<T>(&self, what: &str, tell: impl Fn(&Screen) -> Option<T>) -> (Screen, T) {
        until(|| self.look(), self.patience, tell)
            .unwrap_or_else(|| panic!("no {what}; {} shows what there is", self.shot.display()))
    }

    fn key(&self, key: &str) {
        self.seat.key(&self.machine, key);
    }

    /// Leads the pointer to the button that leads on. The guest makes fast movements faster and slow ones slower, so that it takes
    /// looking.
    fn point_at_continue(&self) {
        let start = Instant::now();
        loop {
            let (_, at) = self.see("screen", |screen| Some(pointer(screen)));
            let by = match at {
                Some((x, y)) => {
                    let [(left, top), (right, bottom)] = CONTINUE;
                    (step(x, left, right), step(y, top, bottom))
                }
                // Too near the edge to be seen.
                None => (-8, -8),
            };
            if by == (0, 0) {
                return;
            }
            assert!(start.elapsed() < self.patience, "the pointer stays at {at:?}");
            self.seat.shove(&self.machine, by);
            std::thread::sleep(Duration::from_millis(300));
        }
    }
}

/// How far to shove what is `at` some place so that it comes between two others.
fn step(at: usize, from: usize, to: usize) -> i32 {
    let size = |distance: usize| match distance {
        100.. => 20,
        20.. => 6,
        _ => 2,
    };
    match (at < from, at > to) {
        (true, _) => size(from - at),
        (_, true) => -size(at - to),
        _ => 0,
    }
}

impl Drop for Installer {
    fn drop(&mut self) {
        // A failing test leaves its last picture.
        if !std::thread::panicking() {
            let _ = std::fs::remove_file(&self.shot);
        }
    }
}

/// First row of the selected line of the installer's list.
fn selected(screen: &Screen) -> Option<usize> {
    if (screen.width, screen.height) != (1280, 800) {
        return None;
    }
    let is_near = |dot: [u8; 3]| dot.iter().zip(SELECTED).all(|(a, b)| a.abs_diff(b) <= 24);
    let is_line = |y: &usize| (300..1200).all(|x| is_near(screen.dots[y * screen.width + x]));
    let first = (170..730).find(is_line)?;
    (first..first + LINE).all(|y| is_line(&y)).then_some(first)
}

/// Tip of the pointer: X's black arrow, whose upper rows grow by a dot each between white outlines.
fn pointer(screen: &Screen) -> Option<(usize, usize)> {
    const ROWS: usize = 8;
    const BLACK: [u8; 3] = [0; 3];
    const WHITE: [u8; 3] = [255; 3];
    let dot = |x: usize, y: usize| screen.dots[y * screen.width + x];
    let is_tip = |x: usize, y: usize| {
        (0..ROWS).all(|row| {
            let y = y + row;
            dot(x - 1, y) == WHITE
                && dot(x + row + 1, y) == WHITE
                && (x..=x + row).all(|x| dot(x, y) == BLACK)
        })
    };
    (1..screen.height - ROWS)
        .flat_map(|y| (1..screen.width - ROWS - 1).map(move |x| (x, y)))
        .find(|(x, y)| is_tip(*x, *y))
}

/// Whether two pictures have different headings.
fn is_other_page(a: &Screen, b: &Screen) -> bool {
    let [(left, top), (right, bottom)] = HEADING;
    let row = |s: &Screen, y: usize| s.dots[y * s.width + left..y * s.width + right].to_vec();
    (a.width, a.height) == (b.width, b.height) && (top..bottom).any(|y| row(a, y) != row(b, y))
}

/// Through the menu and the installer's first page to its second.
fn first_pages(installer: &Installer) {
    // A picture behind the menu has more colours than text.
    let before = std::cell::RefCell::new(Vec::new());
    let (menu, ()) = installer.see("menu", |screen| {
        let colours: std::collections::HashSet<[u8; 3]> = screen.dots.iter().copied().collect();
        // It is drawn piece by piece: what two looks see alike is whole.
        let stands = before.replace(screen.dots.clone()) == screen.dots;
        ((screen.width, screen.height) == (640, 480) && colours.len() > 200 && stands).then_some(())
    });
    installer.key("down");
    let (moved, ()) = installer.see("other selection", |screen| (screen != &menu).then_some(()));
    installer.key("up");
    installer.see("selection back", |screen| {
        (screen != &moved && screen == &menu).then_some(())
    });
    installer.key("enter");

    // The list is scrolled while it is built.
    let mut last = (0, 0);
    let english = loop {
        let (_, at) = installer.see("list of languages", selected);
        last = if last.0 == at { (at, last.1 + 1) } else { (at, 0) };
        if last.1 == 5 {
            break at;
        }
        std::thread::sleep(Duration::from_millis(300));
    };
    installer.key("down");
    installer.see("language below", |screen| {
        selected(screen).filter(|at| (english + LINE..english + 3 * LINE).contains(at))
    });
    installer.key("up");
    let (languages, _) = installer.see("first language", |screen| {
        selected(screen).filter(|at| *at == english)
    });

    installer.seat.take_mouse(&installer.machine);
    installer.point_at_continue();
    installer.seat.click(&installer.machine);
    installer.see("list of countries", |screen| {
        selected(screen).filter(|_| is_other_page(&languages, screen))
    });
}

#[test]
fn debians_graphical_installer_takes_keyboard_and_mouse() {
    let Some(installer) = Installer::start("installer", COMMANDS, Bios::Own, &[], PATIENCE) else {
        return;
    };
    first_pages(&installer);
}

#[test]
fn the_installer_takes_keyboard_and_mouse_in_a_window() {
    let test = "installer-window";
    let Some(installer) = Installer::start(test, Seat::window(test), Bios::Own, &[], PATIENCE) else {
        return;
    };
    first_pages(&installer);
}

#[test]
#[ignore = "takes minutes: cargo xtask test --long"]
fn the_installer_takes_keyboard_and_mouse_by_seabios() {
    let Some(installer) = Installer::start("installer-seabios", COMMANDS, Bios::Sea, &[], PATIENCE) else {
        return;
    };
    first_pages(&installer);
}

#[test]
#[ignore = "takes minutes: cargo xtask test --long"]
fn the_installer_notices_no_killed_worker() {
    let options = [("--stable-after", "0s")];
    let Some(installer) = Installer::start("installer-kills", COMMANDS, Bios::Own, &options, 4 * PATIENCE)
    else {
        return;
    };
    installer.machine.wait_for("it runs", |report| {
        report.state == quintet_protocol::status::MachineState::Running
    });
    // Two seconds in the mean.
    let pause = Duration::from_secs(4);
    let killers = [Role::Gpu, Role::Audio, Role::Io].map(|role| installer.machine.killer(role, pause));
    first_pages(&installer);
    let kills = killers.map(support::Killer::stop);
    println!("killed gpu-, audio- and io-worker: {kills:?} times");
    assert!(kills.iter().all(|n| *n >= 3), "{kills:?}");
}

#[test]
fn the_interpreter_runs_the_installer() {
    let options = [("--accel", "interp")];
    if let Some(installer) =
        Installer::start("installer-interp", COMMANDS, Bios::Own, &options, 10 * PATIENCE)
    {
        first_pages(&installer);
    }
}
