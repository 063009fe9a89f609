//! The page itself.

use std::time::Duration;

use quintet_protocol::control::{ExitReport, WorkerReport};
use quintet_protocol::handshake::Role;
use quintet_protocol::status::{MachineState, PeerState};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Row, Table};

use super::{Look, Process};
use crate::units::show_size;

/// Bytes of a sector.
const SECTOR: f64 = 512.0;
/// Sound frames in a millisecond.
const FRAMES: u32 = 48;

/// Two looks and the time between them.
struct Page<'a> {
    before: &'a Look,
    now: &'a Look,
    seconds: f64,
}

impl Page<'_> {
    /// How often in a second something happened that is counted in 32 bits, wrapping.
    fn rate(&self, before: u32, now: u32) -> f64 {
        f64::from(now.wrapping_sub(before)) / self.seconds
    }

    fn process(&self, n: usize) -> (Option<Process>, Option<Process>) {
        let of = |look: &Look| look.processes.get(n).copied().flatten();
        (of(self.before), of(self.now))
    }

    /// Share of a processor that a process had, in hundredths.
    fn cpu(&self, n: usize) -> String {
        match self.process(n) {
            (Some(before), Some(now)) => {
                let spent = now.cpu.saturating_sub(before.cpu).as_secs_f64();
                format!("{:.1} %", spent / self.seconds * 100.0)
            }
            _ => "-".to_owned(),
        }
    }
}

/// Draws what `now` tells, with rates since `before`.
pub fn draw(frame: &mut Frame<'_>, before: &Look, now: &Look) {
    let time = now.at.saturating_duration_since(before.at);
    let page = Page {
        before,
        now,
        seconds: time.max(Duration::from_millis(1)).as_secs_f64(),
    };
    let rings = now.report.rings.len() as u16;
    let areas = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(8),
        Constraint::Length(rings.max(4) + 3),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .split(frame.area());
    frame.render_widget(heading(&page), areas[0]);
    frame.render_widget(processes(&page), areas[1]);
    let halves = Layout::horizontal([Constraint::Percentage(50), Constraint::Percentage(50)]);
    let middle = halves.split(areas[2]);
    frame.render_widget(rings_of(&page), middle[0]);
    frame.render_widget(disks_and_sound(&page), middle[1]);
    let lower = halves.split(areas[3]);
    frame.render_widget(exits(&page, lower[0]), lower[0]);
    frame.render_widget(interrupts(&page), lower[1]);
    frame.render_widget(Line::from(" q quits, p pauses and resumes").dim(), areas[4]);
}

fn headed(title: &'static str) -> Block<'static> {
    Block::bordered().title(title)
}

fn head(names: &[&'static str]) -> Row<'static> {
    Row::new(names.to_vec()).style(Style::new().add_modifier(Modifier::BOLD))
}

fn heading(page: &Page<'_>) -> Paragraph<'static> {
    let (before, now) = (&page.before.report, &page.now.report);
    let passed = now.vm_time_ms.saturating_sub(before.vm_time_ms) as f64 / 1e3;
    let colour = match now.state {
        MachineState::Running => Color::Green,
        MachineState::Failed => Color::Red,
        _ => Color::Yellow,
    };
    let first = Line::from(vec![
        Span::from(format!(" {} ", now.name)).bold(),
        Span::from(format!("{:?}", now.state)).fg(colour),
        Span::from(format!(
            ", guest time at {:.0} %, up {} s, guest time {} s, {} RAM, {} resets, pid {}",
            passed / page.seconds * 100.0,
            now.uptime_ms / 1000,
            now.vm_time_ms / 1000,
            show_size(now.ram),
            now.resets.saturating_sub(1),
            now.pid
        )),
    ]);
    let error = now
        .error
        .as_ref()
        .map_or_else(String::new, |e| format!(" {}", e.message));
    Paragraph::new(vec![first, Line::from(error).fg(Color::Red)])
}

fn state_of(worker: &WorkerReport) -> (String, Color) {
    match worker.state {
        PeerState::Running if worker.parked => ("Parked".to_owned(), Color::Green),
        PeerState::Running => ("Running".to_owned(), Color::Green),
        state @ (PeerState::Failed | PeerState::Hung) => (format!("{state:?}"), Color::Red),
        state => (format!("{state:?}"), Color::Yellow),
    }
}

fn processes(page: &Page<'_>) -> Table<'static> {
    let memory = |n| {
        let (_, now) = page.process(n);
        now.map_or_else(|| "-".to_owned(), |p| mebibytes(p.memory as f64))
    };
    let mut rows = vec![Row::new(vec![
        Role::Coordinator.to_string(),
        page.now.report.pid.to_string(),
        String::new(),
        page.cpu(0),
        memory(0),
        String::new(),
        String::new(),
        String::new(),
    ])];
    for (n, worker) in page.now.report.workers.iter().enumerate() {
        let (state, colour) = state_of(worker);
        let before = page.before.report.workers.get(n);
        // A successor counts its beats from where the last one stopped.
        let beats = before.map_or(0.0, |b| page.rate(b.beats, worker.beats));
        rows.push(
            Row::new(vec![
                worker.role.to_string(),
                worker.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
                state,
                page.cpu(n + 1),
                memory(n + 1),
                format!("{beats:.1}"),
                worker.generation.to_string(),
                worker.last_death.clone(),
            ])
            .fg(colour),
        );
    }
    let widths = [14, 8, 11, 9, 12, 8, 8].map(Constraint::Length);
    let widths = widths.into_iter().chain([Constraint::Min(10)]);
    Table::new(rows, widths)
        .header(head(&[
            "process",
            "pid",
            "state",
            "CPU",
            "memory",
            "beats/s",
            "number",
            "the one before",
        ]))
        .block(headed(" processes "))
}

fn rings_of(page: &Page<'_>) -> Table<'static> {
    let rows = page.now.report.rings.iter().map(|ring| {
        let before = page.before.report.rings.iter().find(|b| b.name == ring.name);
        let pushed = before.map_or(0.0, |b| page.rate(b.traffic.pushed, ring.traffic.pushed));
        let share = f64::from(ring.traffic.waiting) / f64::from(ring.traffic.capacity.max(1));
        Row::new(vec![
            ring.name.clone(),
            format!("{pushed:.0}/s"),
            ring.traffic.waiting.to_string(),
            format!("{:.1} %", share * 100.0),
        ])
    });
    let widths = [16, 14, 14, 8].map(Constraint::Length);
    Table::new(rows.collect::<Vec<_>>(), widths)
        .header(head(&["ring", "records", "bytes waiting", "full"]))
        .block(headed(" rings "))
}

fn disks_and_sound(page: &Page<'_>) -> Paragraph<'static> {
    let (before, now) = (&page.before.report, &page.now.report);
    let bytes = |b, n| format!("{}/s", mebibytes(page.rate(b, n) * SECTOR));
    let echo = match now.latency.echo {
        0 => "not measured".to_owned(),
        micros => format!("{:.1} ms", f64::from(micros) / 1e3),
    };
    Paragraph::new(vec![
        Line::from(format!(
            "disks   read {}, written {}",
            bytes(before.disks.read, now.disks.read),
            bytes(before.disks.written, now.disks.written),
        )),
        Line::from(format!(
            "        {:.0} flushes/s, {} requests under way",
            page.rate(before.disks.flushes, now.disks.flushes),
            now.disks.under_way
        )),
        Line::from(format!(
            "sound   {} ms wait, {} frames were missing, {} found no room, {} too late",
            now.sound.level / FRAMES,
            now.sound.missing,
            now.sound.dropped,
            now.sound.unheard
        )),
        Line::from(format!("echo    {echo} from key to picture")),
    ])
    .block(headed(" disks, sound, latency "))
}

fn exits(page: &Page<'_>, area: Rect) -> Table<'static> {
    let before = &page.before.report.exits;
    let mut rates: Vec<(f64, &ExitReport)> = page
        .now
        .report
        .exits
        .iter()
        .map(|exit| {
            let old = before
                .iter()
                .find(|b| b.cause == exit.cause)
                .map_or(0, |b| b.count);
            // A new cpu-worker counts anew.
            let new = exit.count.checked_sub(old).unwrap_or(exit.count);
            (new as f64 / page.seconds, exit)
        })
        .collect();
    rates.sort_by(|a, b| b.0.total_cmp(&a.0));
    let rows = rates.iter().take(usize::from(area.height)).map(|(rate, exit)| {
        Row::new(vec![
            format!("{rate:.0}"),
            exit.count.to_string(),
            exit.cause.clone(),
        ])
    });
    let widths = [
        Constraint::Length(12),
        Constraint::Length(16),
        Constraint::Min(10),
    ];
    Table::new(rows.collect::<Vec<_>>(), widths)
        .header(head(&["times/s", "times", "what the vCPU turned to"]))
        .block(headed(" exits "))
}

fn interrupts(page: &Page<'_>) -> Table<'static> {
    let before = &page.before.report.interrupts;
    let rows = page.now.report.interrupts.iter().map(|interrupt| {
        let old = before
            .iter()
            .find(|b| b.line == interrupt.line)
            .map_or(0, |b| b.edges);
        let rate = page.rate(old, interrupt.edges);
        Row::new(vec![
            format!("IRQ {}", interrupt.line),
            format!("{rate:.0}/s"),
            interrupt.edges.to_string(),
        ])
    });
    let widths = [10, 12, 14].map(Constraint::Length);
    Table::new(rows.collect::<Vec<_>>(), widths)
        .header(head(&["line", "edges", "so far"]))
        .block(headed(" interrupts of devices "))
}

fn mebibytes(bytes: f64) -> String {
    format!("{:.1} MiB", bytes / f64::from(1 << 20))
}
