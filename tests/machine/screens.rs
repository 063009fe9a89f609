//! Every VGA and VBE mode, dot by dot as QEMU shows it.
//!
//! One guest sets the modes by register values and fills them with pseudo-random numbers; it runs here and under QEMU,
//! and the screenshots are compared. What the guest leaves out because QEMU shows something else than hardware is in
//! `docs/display.md`.

#[path = "support/screen.rs"]
mod screen;
mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use screen::Screen;
use support::{PATIENCE, Setup, guest_file, quintet};

impl Screen {
    /// From QEMU's screendump.
    fn from_ppm(bytes: &[u8]) -> Self {
        let mut fields = bytes.splitn(4, |&b| b == b'\n');
        assert_eq!(fields.next(), Some(&b"P6"[..]));
        let size = String::from_utf8_lossy(fields.next().expect("a size")).into_owned();
        let (width, height) = size.split_once(' ').expect("two numbers");
        assert_eq!(fields.next(), Some(&b"255"[..]));
        Self {
            width: width.parse().expect("a width"),
            height: height.parse().expect("a height"),
            dots: fields.next().expect("dots").as_chunks().0.to_vec(),
        }
    }

    /// With the upper five bits of each component only.
    fn five_bits(mut self) -> Self {
        self.dots.as_flattened_mut().iter_mut().for_each(|v| *v &= 0xF8);
        self
    }

    /// How it differs from what QEMU shows; `None` when it does not.
    fn difference(&self, qemu: &Self) -> Option<String> {
        let size = |s: &Self| (s.width, s.height, s.dots.len());
        if size(self) != size(qemu) {
            return Some(format!("{:?} instead of {:?}", size(self), size(qemu)));
        }
        let differs = |at: &usize| self.dots[*at] != qemu.dots[*at];
        let count = (0..self.dots.len()).filter(differs).count();
        let first = (0..self.dots.len()).find(differs)?;
        let (x, y) = (first % self.width, first / self.width);
        let (ours, theirs) = (self.dots[first], qemu.dots[first]);
        Some(format!(
            "{count} dots, the first at {x}, {y}: {ours:?} instead of {theirs:?}"
        ))
    }
}

/// QEMU with a guest, its serial line and its monitor.
struct Qemu {
    process: Child,
    serial: BufReader<std::process::ChildStdout>,
    monitor: UnixStream,
    folder: PathBuf,
}

impl Qemu {
    fn start(folder: &Path, image: &Path) -> Option<Self> {
        let socket = folder.join("monitor");
        let process = Command::new("qemu-system-i386")
            .args(["-m", "64", "-display", "none", "-serial", "stdio", "-kernel"])
            .arg(image)
            .arg("-monitor")
            .arg(format!("unix:{},server,nowait", socket.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut process = match process {
            Ok(process) => process,
            Err(error) => {
                assert!(std::env::var_os("CI").is_none_or(|v| v != "true"), "{error}");
                eprintln!("SKIPPED: qemu-system-i386: {error}");
                return None;
            }
        };
        let start = Instant::now();
        let monitor = loop {
            match UnixStream::connect(&socket) {
                Ok(stream) => break stream,
                Err(error) => assert!(start.elapsed() < PATIENCE, "QEMU's monitor: {error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let serial = BufReader::new(process.stdout.take().expect("piped"));
        let mut qemu = Self {
            process,
            serial,
            monitor,
            folder: folder.to_owned(),
        };
        qemu.prompt();
        Some(qemu)
    }

    fn prompt(&mut self) {
        let mut seen = Vec::new();
        while !seen.ends_with(b"(qemu) ") {
            let mut byte = [0];
            self.monitor.read_exact(&mut byte).expect("QEMU's monitor");
            seen.push(byte[0]);
        }
    }

    /// The next line of the guest's.
    fn hear(&mut self) -> String {
        loop {
            let mut line = Vec::new();
            self.serial
                .read_until(b'\n', &mut line)
                .expect("QEMU's serial line");
            assert!(!line.is_empty(), "QEMU ended");
            let line = String::from_utf8_lossy(&line).trim().to_owned();
            // The firmware prints, too.
            if let Some(at) = line.find("mode ").or(line.find("screens: ")) {
                return line[at..].to_owned();
            }
        }
    }

    fn go_on(&mut self) {
        let to = self.process.stdin.as_mut().expect("piped");
        to.write_all(b"n")
            .and_then(|()| to.flush())
            .expect("QEMU's serial line");
    }

    fn screen(&mut self) -> Screen {
        let file = self.folder.join("qemu.ppm");
        writeln!(self.monitor, "screendump {}", file.display()).expect("QEMU's monitor");
        self.prompt();
        Screen::from_ppm(&std::fs::read(file).expect("QEMU's screen"))
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Compares every mode, with `options` on our side. The screenshots of modes that differ stay in the target directory.
fn compare(test: &str, options: &[(&str, &str)]) {
    let Some(quintet) = quintet() else { return };
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let image = guest_file(test, quintet_guests::SCREENS);
    let Some(mut qemu) = Qemu::start(&folder, &image) else {
        return;
    };
    let mut setup = Setup::new(quintet.clone(), &image).option("--ram", "64M");
    for (option, value) in options {
        setup = setup.option(option, value);
    }
    let mut machine = setup.start(test);
    let mut different = Vec::new();
    let mut modes = 0;
    loop {
        let theirs = qemu.hear();
        let ours = machine.hear("\n").trim().to_owned();
        assert_eq!(ours, theirs);
        let Some(mode) = ours.strip_prefix("mode ") else {
            assert_eq!(ours, "screens: done");
            break;
        };
        let png = folder.join(format!("{}.png", mode.split(' ').next().expect("a number")));
        let (mut ours, mut theirs) = (Screen::take(&quintet, &machine.name, &png), qemu.screen());
        if mode.contains("15 bits") {
            // QEMU leaves the lower bits clear in this format, and only in this one.
            (ours, theirs) = (ours.five_bits(), theirs.five_bits());
        }
        match ours.difference(&theirs) {
            None => std::fs::remove_file(png).expect("the screenshot removed"),
            Some(how) => different.push(format!("{mode}: {how}")),
        }
        modes += 1;
        qemu.go_on();
        machine.say("n");
    }
    assert!(modes >= 30, "only {modes} modes");
    let different = different.join("\n");
    assert!(
        different.is_empty(),
        "screenshots in {}:\n{different}",
        folder.display()
    );
    std::fs::remove_dir_all(folder).expect("the folder removed");
}

#[test]
fn every_mode_is_qemus_dot_by_dot() {
    compare("screens-jit", &[("--accel", "jit")]);
}

#[test]
fn every_mode_is_qemus_dot_by_dot_interpreted() {
    compare("screens-interp", &[("--accel", "interp")]);
}
