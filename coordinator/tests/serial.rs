//! Bytes through the serial line of a guest that echoes them.

mod harness;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use harness::{PATIENCE, echo_guest, quintet};
use quintet_coordinator::control::client;
use quintet_protocol::control::{Answer, Request};
use quintet_protocol::handshake::Role;

struct Echo {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    name: String,
}

impl Echo {
    fn start(test: &str, options: &[&str]) -> Self {
        let name = format!("serial-{test}-{}", std::process::id());
        let mut child = Command::new(quintet())
            .args([
                "run",
                "--headless",
                "--ram",
                "16M",
                "--serial",
                "stdio",
                "--time-limit",
                "120s",
            ])
            .args(["--kernel", &echo_guest(), "--name", &name])
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("quintet starts");
        let input = child.stdin.take();
        let lines = lines_of(child.stdout.take().expect("piped"));
        let echo = Self {
            child,
            input,
            lines,
            name,
        };
        // Before the guest has set up its UART, there is nobody to take what arrives there.
        echo.hear("polling");
        echo
    }

    fn say(&mut self, text: &str) {
        self.input
            .as_mut()
            .expect("open")
            .write_all(text.as_bytes())
            .expect("written");
    }

    /// The next line that contains `part`.
    fn hear(&self, part: &str) -> String {
        loop {
            let line = self
                .lines
                .recv_timeout(PATIENCE)
                .unwrap_or_else(|_| panic!("never heard {part:?}"));
            if line.contains(part) {
                return line;
            }
        }
    }

    fn kill_io(&self) {
        if let Ok(Answer::Status(r)) = client::ask(&self.name, &Request::Status)
            && let Some(pid) = r.workers.iter().find(|w| w.role == Role::Io).and_then(|w| w.pid)
        {
            let _ = rustix::process::kill_process(harness::pid(pid), rustix::process::Signal::KILL);
        }
    }

    fn end(mut self) -> Option<i32> {
        let mut status = None;
        harness::wait_until("the machine ends", || {
            status = self.child.try_wait().expect("wait");
            status.is_some()
        });
        status.and_then(|s| s.code())
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines_of(stdout: ChildStdout) -> Receiver<String> {
    let (send, lines) = channel();
    std::thread::spawn(move || {
        let mut stdout = BufReader::new(stdout);
        let mut line = Vec::new();
        while stdout.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if send.send(text).is_err() {
                return;
            }
        }
    });
    lines
}

#[test]
fn what_is_piped_in_comes_back_and_the_exit_port_ends_the_machine() {
    let mut echo = Echo::start("pipe", &["--exit-port", "0xf4"]);
    echo.say("first line\n");
    echo.hear("first line");
    echo.hear("IRQ 4");
    echo.say("second line\n");
    echo.hear("second line");
    echo.say("\u{4}");
    assert_eq!(echo.end(), Some(1));
}

#[test]
fn without_an_exit_port_the_guest_switches_itself_off() {
    let mut echo = Echo::start("off", &[]);
    echo.say("x\n");
    echo.hear("IRQ 4");
    echo.say("\u{4}");
    assert_eq!(echo.end(), Some(0));
}

#[test]
fn a_closed_standard_input_does_not_end_the_machine() {
    let mut echo = Echo::start("closed", &[]);
    echo.say("last words\n");
    echo.hear("last words");
    drop(echo.input.take());
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(matches!(
        client::ask(&echo.name, &Request::Status),
        Ok(Answer::Status(_))
    ));
    client::ask(&echo.name, &Request::Quit).expect("asked");
    assert_eq!(echo.end(), Some(0));
}

#[test]
fn no_byte_is_lost_doubled_or_altered_while_the_io_worker_is_killed() {
    let mut echo = Echo::start("kills", &["--stable-after", "0s"]);
    echo.say("begin\n");
    echo.hear("IRQ 4");
    // A kill in the middle of each batch, at another moment each time.
    let (batches, batch) = (12, 100);
    for b in 0..batches {
        let lines: Vec<String> = (0..batch).map(|n| format!("line {:05}", b * batch + n)).collect();
        echo.say(&lines.iter().map(|l| format!("{l}\n")).collect::<String>());
        std::thread::sleep(std::time::Duration::from_micros(b * 400));
        echo.kill_io();
        for line in lines {
            assert_eq!(echo.hear(""), line);
        }
    }
    let Ok(Answer::Status(report)) = client::ask(&echo.name, &Request::Status) else {
        panic!("no answer")
    };
    let io = report
        .workers
        .iter()
        .find(|w| w.role == Role::Io)
        .expect("listed");
    assert!(io.generation > 10 && report.resets == 1, "{report:?}");
}

#[test]
fn the_screen_of_a_guest_can_be_saved_as_png() {
    let mut echo = Echo::start("screen", &[]);
    echo.say("seen\n");
    echo.hear("seen");
    let file = std::env::temp_dir().join(format!("quintet-screen-{}.png", std::process::id()));
    let output = harness::run_to_end(&["screenshot", &echo.name, &file.display().to_string()]);
    let bytes = std::fs::read(&file).unwrap_or_default();
    let _ = std::fs::remove_file(&file);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(&bytes[..8], b"\x89PNG\r\n\x1a\n");
}
