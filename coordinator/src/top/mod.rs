//! `quintet top NAME`: a machine on a page of the terminal, looked at again and again.
//!
//! Everything on it is from the machine's report and from `/proc`; rates are what two looks differ by. So it costs the machine
//! one answer a second, and works on any machine that `quintet status` works on.

mod page;

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use quintet_protocol::control::{Request, StatusReport};
use quintet_protocol::status::MachineState;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use crate::config::{UsageError, reason};
use crate::control::client;
use crate::signals::Signals;
use crate::supervise::process;

pub use page::draw;

/// Columns and rows of a page that goes to a file or a pipe.
const PRINTED: (u16, u16) = (120, 50);
/// Longest wait for a key before signals are looked for.
const KEYS: Duration = Duration::from_millis(100);

/// A look at a machine.
#[derive(Clone, Debug)]
pub struct Look {
    /// What it says.
    pub report: StatusReport,
    /// What the host says: the coordinator, then the workers in their order; none of what has no process.
    pub processes: Vec<Option<Process>>,
    /// When.
    pub at: Instant,
}

/// What the host says of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Processor time so far.
    pub cpu: Duration,
    /// Proportional set size without guest RAM, in bytes.
    pub memory: u64,
}

impl Look {
    /// Looks at the machine `name`.
    ///
    /// # Errors
    /// [`UsageError`] when there is no such machine, or it does not answer.
    pub fn at(name: &str) -> Result<Self, UsageError> {
        let report = client::report(name)?;
        let pids = std::iter::once(Some(report.pid)).chain(report.workers.iter().map(|w| w.pid));
        let processes = pids
            .map(|pid| {
                let pid = u32::try_from(pid?).ok()?;
                Some(Process {
                    cpu: process::look(pid)?.cpu,
                    memory: process::pss(pid)?,
                })
            })
            .collect();
        Ok(Self {
            report,
            processes,
            at: Instant::now(),
        })
    }
}

/// Shows the machine `name` until a key or a signal ends it, or the machine ends. Without a terminal, or with `once`, one page is printed.
///
/// # Errors
/// [`UsageError`] when there is no such machine, or the terminal cannot be used.
pub fn run(name: &str, every: Duration, once: bool, signals: &Signals) -> Result<u8, UsageError> {
    let first = Look::at(name)?;
    if once || !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        std::thread::sleep(every);
        print!("{}", text(&first, &Look::at(name)?));
        return Ok(0);
    }
    let cannot = |e: std::io::Error| UsageError(format!("Cannot use this terminal: {}", reason(&e)));
    let mut terminal = ratatui::try_init().map_err(cannot)?;
    let ended = watch(&mut terminal, first, every, signals);
    ratatui::restore();
    if let Some(why) = ended.map_err(cannot)? {
        println!("{why}");
    }
    Ok(0)
}

/// Shows pages; answers why it stopped, unless somebody told it to.
fn watch(
    terminal: &mut ratatui::DefaultTerminal,
    first: Look,
    every: Duration,
    signals: &Signals,
) -> std::io::Result<Option<String>> {
    let name = first.report.name.clone();
    let (mut before, mut now) = (first.clone(), first);
    loop {
        terminal.draw(|frame| draw(frame, &before, &now))?;
        let until = Instant::now() + every;
        while Instant::now() < until {
            if signals.take().is_some() {
                return Ok(None);
            }
            if !event::poll(KEYS.min(until.saturating_duration_since(Instant::now())))? {
                continue;
            }
            match event::read()? {
                Event::Key(key) if key.kind == KeyEventKind::Press => match key.code {
                    KeyCode::Char('q') | KeyCode::Esc => return Ok(None),
                    KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Ok(None),
                    KeyCode::Char('p') => {
                        let paused = now.report.state == MachineState::Paused;
                        let request = if paused { Request::Resume } else { Request::Pause };
                        // What came of it is on the next page.
                        let _ = client::ask(&name, &request);
                        break;
                    }
                    _ => {}
                },
                Event::Resize(..) => break,
                _ => {}
            }
        }
        match Look::at(&name) {
            Ok(look) => before = std::mem::replace(&mut now, look),
            Err(e) => return Ok(Some(e.to_string())),
        }
    }
}

/// The page as text.
fn text(before: &Look, now: &Look) -> String {
    let mut terminal = Terminal::new(TestBackend::new(PRINTED.0, PRINTED.1)).unwrap_or_else(|e| match e {});
    terminal
        .draw(|frame| draw(frame, before, now))
        .unwrap_or_else(|e| match e {});
    let buffer = terminal.backend().buffer();
    let width = usize::from(buffer.area.width);
    let mut text = String::new();
    for row in buffer.content.chunks(width) {
        let line: String = row.iter().map(ratatui::buffer::Cell::symbol).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// A report with something of everything, for tests.
#[cfg(test)]
pub fn sample_report() -> StatusReport {
    use quintet_protocol::control::{
        DiskReport, ExitReport, InterruptReport, LatencyReport, RingReport, SoundReport, WorkerReport,
    };
    use quintet_protocol::handshake::Role;
    use quintet_protocol::ring::Traffic;
    use quintet_protocol::status::PeerState;

    StatusReport {
        name: "sample".into(),
        pid: 1000,
        state: MachineState::Running,
        uptime_ms: 90_061_000,
        vm_time_ms: 45_000_000,
        ram: 512 << 20,
        resets: 3,
        workers: Role::WORKERS
            .into_iter()
            .map(|role| WorkerReport {
                role,
                pid: (role != Role::Gpu).then_some(1000 + role.index() as i32),
                state: if role == Role::Gpu {
                    PeerState::Restarting
                } else {
                    PeerState::Running
                },
                parked: role == Role::Audio,
                beats: 40,
                generation: 2,
                deaths: 1,
                last_death: "killed by signal 9".into(),
                left_under_way: 0,
                broken: None,
                unconfined: Vec::new(),
                awaited: None,
            })
            .collect(),
        unconfined: Vec::new(),
        sound: SoundReport {
            level: 960,
            missing: 7,
            dropped: 0,
            unheard: 0,
        },
        drives: Vec::new(),
        disks: DiskReport {
            under_way: 1,
            read: 2048,
            written: 2,
            flushes: 5,
        },
        exits: vec![
            ExitReport {
                cause: "finding the next block".into(),
                count: 1_000_000,
            },
            ExitReport {
                cause: "idle".into(),
                count: 10,
            },
        ],
        interrupts: vec![InterruptReport { line: 14, edges: 300 }],
        latency: LatencyReport { echo: 12_800 },
        rings: vec![RingReport {
            name: "commands".into(),
            traffic: Traffic {
                pushed: 500,
                popped: 499,
                waiting: 16,
                capacity: 65_536,
            },
        }],
        single_process: false,
        error: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quintet_protocol::control::ExitReport;

    fn looks() -> (Look, Look) {
        let before = Look {
            report: sample_report(),
            processes: vec![
                Some(Process::default()),
                Some(Process::default()),
                None,
                None,
                None,
            ],
            at: Instant::now(),
        };
        let mut now = before.clone();
        now.at += Duration::from_secs(2);
        now.report.vm_time_ms += 1000;
        now.report.disks.read += 4096;
        now.report.disks.written = now.report.disks.written.wrapping_add(2048);
        now.report.interrupts[0].edges += 200;
        now.report.exits[0].count += 3_000_000;
        now.report.rings[0].traffic.pushed += 100;
        now.processes[1] = Some(Process {
            cpu: Duration::from_millis(500),
            memory: 3 << 20,
        });
        (before, now)
    }

    #[test]
    fn rates_are_what_two_looks_differ_by() {
        let (before, now) = looks();
        let page = text(&before, &now);
        for wanted in [
            "sample",
            "Running",
            "50 %",
            "25.0 %",
            "3.0 MiB",
            "Restarting",
            "killed by signal 9",
            "1.0 MiB/s",
            "0.5 MiB/s",
            "1500000",
            "IRQ 14",
            "100/s",
            "50/s",
            "20 ms",
            "12.8 ms",
        ] {
            assert!(page.contains(wanted), "{wanted}:\n{page}");
        }
    }

    #[test]
    fn what_began_anew_counts_from_zero() {
        let (mut before, mut now) = looks();
        before.report.exits[0].count = 5_000_000;
        now.report.exits[0].count = 4000;
        before.report.disks.read = u32::MAX;
        now.report.disks.read = 4095;
        let page = text(&before, &now);
        assert!(page.contains("2000/s") || page.contains("2000"), "{page}");
        assert!(page.contains("1.0 MiB/s"), "wrapped:\n{page}");
    }

    #[test]
    fn a_page_of_any_size_can_be_drawn_from_anything() {
        let (before, mut now) = looks();
        now.report.exits = (0..64)
            .map(|n| ExitReport {
                cause: "x".repeat(n * 3),
                count: u64::MAX,
            })
            .collect();
        now.report.name = "n".repeat(128);
        now.report.rings.clear();
        now.processes.clear();
        now.at = before.at;
        for (width, height) in [(0, 0), (1, 1), (20, 5), (80, 24), (300, 100)] {
            let backend = TestBackend::new(width, height);
            let mut terminal = Terminal::new(backend).expect("in memory");
            terminal.draw(|frame| draw(frame, &before, &now)).expect("drawn");
        }
    }
}
