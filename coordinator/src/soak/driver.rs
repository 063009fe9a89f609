//! The run itself: one loop that waits for the next thing to do or to hear.

use std::ffi::OsString;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use quintet_protocol::control::Request;

use super::fault::Fault;
use super::inject::{Injection, PATIENCE, Progressed, well};
use super::invariants::Invariants;
use super::machine::{Event, Machine, pixels};
use super::plan::{Plan, shown};
use super::progress::Progress;
use super::report::{Injected, Point, Points, Report, Shard, Totals, page_beside, seconds};
use super::sample::{Done, Sample};
use super::verdict;
use super::workload::{Heard, Workload, check_image, check_picture};
use crate::config::{UsageError, reason};
use crate::signals::Signals;
use crate::supervise::names::start_time;

/// From one question for a picture to the next that was not answered.
const PICTURE_RETRY: Duration = Duration::from_millis(500);
/// How long a machine may take to end.
const END_PATIENCE: Duration = Duration::from_secs(60);

/// Runs a soak by its plan, with the machine's command line.
///
/// # Errors
/// [`UsageError`] when the machine cannot be started or a file cannot be written.
pub fn run(plan: &Plan, command: &[OsString], signals: &Signals) -> Result<u8, UsageError> {
    plan.prepare()?;
    let result = Driver::start(plan, command, signals).and_then(|mut driver| {
        let signal = driver.live(signals);
        driver.finish(shown(command), signal)
    });
    let (report, signal) = match result {
        Ok(found) => found,
        Err(e) => {
            let _ = std::fs::remove_dir_all(&plan.folder);
            return Err(e);
        }
    };
    report.write(&plan.report)?;
    println!("{}", report.summary());
    for v in report.shards.iter().flat_map(|s| &s.violations) {
        println!("violation: {} at {}: {}", v.invariant, seconds(v.at_ms), v.text);
    }
    println!(
        "report: {}, {}",
        plan.report.display(),
        page_beside(&plan.report).display()
    );
    if report.totals.violations == 0 {
        let _ = std::fs::remove_dir_all(&plan.folder);
    } else {
        println!("seed {}; kept: {}", plan.seed, plan.folder.display());
    }
    match (verdict(&report), signal) {
        (0, Some(signal)) => Ok(128 + signal as u8),
        (status, _) => Ok(status),
    }
}

/// The picture that is to be looked at.
#[derive(Debug)]
struct Pictures {
    /// The frame that stands and was not looked at.
    wanted: Option<u32>,
    /// A question is under way, asked after so many resets.
    asked: Option<u32>,
    due: Instant,
    /// What the guest is told, and when, so that it draws the next.
    reply: Option<(Instant, String)>,
    /// The next one is kept for whoever looks into a violation.
    keep: bool,
    compared: u64,
}

struct Driver<'a> {
    plan: &'a Plan,
    machine: Machine,
    sender: Sender<Event>,
    events: Receiver<Event>,
    invariants: Invariants,
    workload: Option<Workload>,
    pictures: Pictures,
    resets: u32,
    points: Points,
    injected: Vec<Injected>,
    injection: Option<Injection>,
    /// When that was done: later than the schedule says if the one before took long.
    done_at: u64,
    /// How far the schedule is done.
    next: usize,
    progress: Progress,
    began: SystemTime,
    start: Instant,
    next_look: Instant,
    gap: Duration,
    last: Option<Sample>,
    /// Processes of the last look, with their starts.
    processes: Vec<(u32, u64)>,
    /// The machine has ended; nothing is asked any more.
    over: bool,
    /// What an end by itself, or a machine that cannot be started, said last.
    last_words: String,
}

impl<'a> Driver<'a> {
    /// Starts the machine and waits until it runs.
    fn start(plan: &'a Plan, command: &[OsString], signals: &Signals) -> Result<Self, UsageError> {
        let (sender, events) = channel();
        let machine = Machine::start(command, &plan.name, &plan.folder, plan.ours, &sender)?;
        let now = Instant::now();
        let mut driver = Self {
            plan,
            machine,
            sender,
            events,
            invariants: Invariants::new(plan.ours),
            workload: plan.ours.then(Workload::default),
            pictures: Pictures {
                wanted: None,
                asked: None,
                due: now,
                reply: None,
                keep: false,
                compared: 0,
            },
            resets: 0,
            points: Points::default(),
            injected: Vec::new(),
            injection: None,
            done_at: 0,
            next: 0,
            progress: Progress::start(plan.duration),
            began: SystemTime::now(),
            start: now,
            next_look: now,
            // A short run is looked at more often, so that its plots show something.
            gap: (plan.duration / 300).clamp(Duration::from_millis(200), Duration::from_secs(1)),
            last: None,
            processes: Vec::new(),
            over: false,
            last_words: String::new(),
        };
        loop {
            driver.hear(Duration::from_millis(20));
            if let Some(status) = driver.machine.ended() {
                driver.hear(Duration::from_millis(200));
                return Err(UsageError(format!(
                    "The machine did not start ({status}): {}",
                    driver.last_words.trim_start_matches("quintet: ")
                )));
            }
            // Nothing is done to it before its guest has begun, or a start could not be told from the next.
            let begun = driver.workload.as_ref().is_none_or(Workload::settled);
            if begun && driver.machine.report().is_ok_and(|r| well(&r)) {
                break;
            }
            if let Some(signal) = signals.take() {
                return Err(UsageError(format!("Signal {signal} came before the machine ran")));
            }
            if now.elapsed() > PATIENCE {
                return Err(UsageError(format!(
                    "The machine did not run after {} s; try its options with `quintet run`",
                    PATIENCE.as_secs()
                )));
            }
        }
        driver.start = Instant::now();
        driver.next_look = driver.start;
        driver.progress.say(&format!(
            "seed {}, {} faults in {}",
            plan.seed,
            plan.schedule.len(),
            seconds(plan.duration.as_millis() as u64)
        ));
        Ok(driver)
    }

    fn at_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    fn violation(&mut self, invariant: &str, text: String) {
        let before = self.invariants.found().all().len();
        let at_ms = self.at_ms();
        self.invariants.found().add(at_ms, invariant, text);
        self.tell_new(before);
    }

    /// Tells of violations that are new, and keeps what the machine says of itself at the first.
    fn tell_new(&mut self, before: usize) {
        let new: Vec<String> = self.invariants.found().all()[before..]
            .iter()
            .map(|v| format!("violation: {}: {}", v.invariant, v.text))
            .collect();
        for line in &new {
            self.progress.say(line);
        }
        if before == 0
            && !new.is_empty()
            && let Ok(report) = self.machine.report()
        {
            let text = crate::control::show::json(&report);
            let _ = std::fs::write(self.plan.folder.join("status.json"), text);
            self.pictures.keep = true;
            if self.pictures.asked.is_none() {
                self.photograph();
            }
        }
    }

    /// Runs until the time is over, the machine ends or a signal comes, and answers the signal.
    fn live(&mut self, signals: &Signals) -> Option<i32> {
        while self.start.elapsed() < self.plan.duration {
            if let Some(signal) = signals.take() {
                return Some(signal);
            }
            if let Some(status) = self.machine.ended() {
                self.over = true;
                // What it printed last is on its way.
                self.hear(Duration::from_millis(200));
                let words = std::mem::take(&mut self.last_words);
                self.violation(
                    "ended",
                    format!("the machine ended by itself ({status}): {words}"),
                );
                return None;
            }
            self.act();
            let mut wake = self.next_look.min(self.start + self.plan.duration);
            if let Some(injection) = &self.injection {
                wake = wake.min(injection.due());
            } else if let Some(entry) = self.plan.schedule.get(self.next) {
                wake = wake.min(self.start + Duration::from_millis(entry.at_ms));
            }
            if self.pictures.wanted.is_some() && self.pictures.asked.is_none() {
                wake = wake.min(self.pictures.due);
            }
            if let Some((at, _)) = &self.pictures.reply {
                wake = wake.min(*at);
            }
            self.hear(wake.saturating_duration_since(Instant::now()));
        }
        None
    }

    /// Does what is due.
    fn act(&mut self) {
        let now = Instant::now();
        if self.injection.is_none()
            && let Some(&entry) = self.plan.schedule.get(self.next)
            && now >= self.start + Duration::from_millis(entry.at_ms)
        {
            self.next += 1;
            self.done_at = self.at_ms();
            self.injection = Some(Injection::new(entry, self.plan.disk_file()));
        }
        self.inject();
        if now >= self.next_look {
            self.look();
            // Looks that a busy host swallowed are not made up for.
            self.next_look = (self.next_look + self.gap).max(Instant::now());
        }
        let wanted = self.pictures.wanted.is_some() && self.workload.as_ref().is_some_and(Workload::settled);
        if wanted && self.pictures.asked.is_none() && now >= self.pictures.due {
            self.photograph();
        }
        if let Some((_, text)) = self.pictures.reply.take_if(|(at, _)| now >= *at) {
            self.machine.say(&text);
        }
    }

    fn photograph(&mut self) {
        self.pictures.asked = Some(self.resets);
        self.machine.photograph(&self.sender);
    }

    /// Goes on with the fault that is being injected.
    fn inject(&mut self) {
        let Some(mut injection) = self.injection.take() else {
            return;
        };
        // Nothing between the fault and what is expected of it: looks come after this.
        match injection.look(&self.machine) {
            Progressed::Going => self.injection = Some(injection),
            Progressed::Done(fault) => {
                self.done_at = self.at_ms();
                self.expect(fault);
                self.injection = Some(injection);
            }
            Progressed::Well(time) if self.begun(&injection) => self.recovered(&injection, Some(time)),
            Progressed::Well(time) if time < PATIENCE => self.injection = Some(injection),
            Progressed::Well(_) => {
                self.recovered(&injection, None);
                let fault = injection.entry().fault;
                self.violation("recovery", format!("the guest did not begin again after {fault}"));
            }
            Progressed::Stuck(why) => {
                self.recovered(&injection, None);
                // A machine that has ended is told of as one that has.
                if self.machine.wait(Duration::from_millis(200)).is_none() {
                    self.violation("recovery", why);
                }
            }
        }
    }

    /// Whether a guest of ours that was reset has begun again. A reset before that would leave it open which of the two a
    /// start belongs to.
    fn begun(&self, injection: &Injection) -> bool {
        !injection.entry().fault.resets() || self.workload.as_ref().is_none_or(Workload::settled)
    }

    fn recovered(&mut self, injection: &Injection, time: Option<Duration>) {
        self.invariants.recovered();
        if let Some(workload) = self
            .workload
            .as_mut()
            .filter(|_| injection.entry().fault.fails_disk())
        {
            workload.disk_is_well();
        }
        self.injected.push(Injected {
            at_ms: self.done_at,
            fault: injection.entry().fault,
            recovery_ms: time.map(|t| t.as_millis() as u64),
        });
    }

    /// A fault was done: its traces are expected from now on.
    fn expect(&mut self, fault: Fault) {
        self.invariants.injected(fault);
        if let Some(workload) = self.workload.as_mut().filter(|_| fault.fails_disk()) {
            workload.disk_fails();
        }
        if fault.resets() {
            self.resets += 1;
            (self.pictures.wanted, self.pictures.reply) = (None, None);
            if let Some(workload) = &mut self.workload {
                workload.reset();
            }
        }
    }

    /// Looks at the machine.
    fn look(&mut self) {
        let report = match self.machine.report() {
            Ok(report) => report,
            Err(e) => {
                // The end of a machine is told of by whoever sees its process end.
                if self.machine.wait(Duration::from_millis(200)).is_none() {
                    self.violation("answers", e);
                }
                return;
            }
        };
        let done = Done {
            rounds: self.workload.as_ref().map_or(0, |w| w.totals().rounds),
            pictures: self.pictures.compared,
        };
        let quiet = self.injection.is_none() && well(&report);
        let sample = Sample::new(&report, self.at_ms(), quiet, done);
        self.processes = std::iter::once(report.pid)
            .chain(report.workers.iter().filter_map(|w| w.pid))
            .filter_map(|pid| u32::try_from(pid).ok())
            .filter_map(|pid| Some((pid, start_time(pid)?)))
            .collect();
        let before = self.invariants.found().all().len();
        self.invariants.look(&sample);
        self.tell_new(before);
        self.points.push(Point::new(&sample));
        let (passed, faults) = (self.start.elapsed(), self.injected.len());
        let violations = self.invariants.found().all().len();
        self.progress.show(passed, &|| {
            format!(
                "{faults} faults, {} rounds, {} pictures, {} MiB, {violations} violations",
                done.rounds,
                done.pictures,
                sample.memory() >> 20
            )
        });
        self.last = Some(sample);
    }

    /// Takes what comes within `time`.
    fn hear(&mut self, time: Duration) {
        let deadline = Instant::now() + time;
        while let Ok(event) = self
            .events
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            match event {
                Event::Serial(line) => self.serial(&line),
                Event::Log(line) => self.log(line),
                Event::Picture(picture) => self.picture(picture),
            }
            // A guest that prints without end must not keep everything else waiting.
            if Instant::now() >= deadline {
                return;
            }
        }
    }

    fn serial(&mut self, line: &str) {
        let Some(workload) = &mut self.workload else {
            return;
        };
        match workload.hear(line) {
            Heard::Frame(n) => {
                self.pictures.wanted = Some(n);
                self.pictures.due = Instant::now();
            }
            Heard::Wrong(text) => self.violation("guest", text),
            Heard::Start | Heard::Round | Heard::Nothing => {}
        }
    }

    fn log(&mut self, line: String) {
        if line.contains("panicked at") {
            self.violation("panic", line.clone());
        }
        if !line.trim().is_empty() {
            self.last_words = line;
        }
    }

    fn picture(&mut self, picture: Result<Vec<u8>, String>) {
        let asked = self.pictures.asked.take();
        self.pictures.due = Instant::now() + PICTURE_RETRY;
        let Ok(file) = picture else {
            // A gpu-worker that is stalled or dead takes none; that it always fails is seen by the count standing still.
            return;
        };
        if std::mem::take(&mut self.pictures.keep) {
            let _ = std::fs::write(self.plan.folder.join("screenshot.png"), &file);
        }
        let Some(workload) = &mut self.workload else {
            return;
        };
        let frame = workload.frame();
        let current = self.pictures.wanted == Some(frame) && asked == Some(self.resets) && workload.settled();
        if !current {
            return;
        }
        let checked = pixels(&file).and_then(|(size, rgb)| check_picture(size, &rgb, frame));
        self.pictures.wanted = None;
        self.pictures.compared += 1;
        let looked = workload.looked();
        if let Err(text) = checked {
            let _ = std::fs::write(self.plan.folder.join(format!("frame-{frame}.png")), &file);
            self.violation("picture", text);
        }
        // In a long run one a second is enough.
        self.pictures.reply = Some((Instant::now() + self.gap, looked));
    }

    /// Ends the machine and judges the whole.
    fn finish(
        &mut self,
        command: Vec<String>,
        signal: Option<i32>,
    ) -> Result<(Report, Option<i32>), UsageError> {
        let ran = self.start.elapsed();
        let last = self.last.take();
        if !self.over {
            self.end_machine();
        }
        self.progress.end();
        if let Some(workload) = &self.workload {
            let starts = workload.totals().starts;
            let wrong = match std::fs::read(self.plan.disk_file()) {
                Ok(image) => check_image(&image, starts),
                Err(e) => vec![format!("the disk cannot be read: {}", reason(&e))],
            };
            for text in wrong.into_iter().take(20) {
                self.violation("disk", text);
            }
        }
        let done = self.workload.as_ref().map(Workload::totals).unwrap_or_default();
        let violations = std::mem::replace(&mut self.invariants, Invariants::new(false))
            .into_found()
            .into_all();
        let points = std::mem::take(&mut self.points);
        let vm_time_ms = last.map_or(0, |s| s.vm_time_ms);
        let totals = Totals {
            ran_ms: ran.as_millis() as u64,
            vm_time_ms,
            faults: self.injected.len() as u64,
            looks: points.seen(),
            rounds: done.rounds,
            interrupts: done.interrupts,
            sectors_written: done.written,
            sectors_read: done.read,
            disk_errors: done.failed,
            pictures: self.pictures.compared,
            violations: violations.len() as u64,
        };
        let began = self.began.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let shard = Shard {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host: host_name(),
            began,
            seed: self.plan.seed,
            faults: self.plan.faults.clone(),
            every_ms: self.plan.every.as_millis() as u64,
            duration_ms: self.plan.duration.as_millis() as u64,
            ran_ms: totals.ran_ms,
            interrupted: signal.is_some(),
            command,
            schedule: self.plan.schedule.clone(),
            injected: std::mem::take(&mut self.injected),
            totals,
            points: points.into_points(),
            evidence: (!violations.is_empty()).then(|| self.plan.folder.display().to_string()),
            violations,
        };
        Ok((Report::new(vec![shard]), signal))
    }

    /// Ends the machine in good order, and sees to it that nothing of it stays.
    fn end_machine(&mut self) {
        if let Some(injection) = &mut self.injection {
            injection.cut_short();
        }
        while self.injection.is_some() && self.machine.ended().is_none() {
            self.hear(Duration::from_millis(5));
            self.inject();
        }
        if let Err(e) = self.machine.tell(&Request::Pause) {
            self.violation("answers", format!("it did not pause: {e}"));
        }
        // What is in the rings is taken while nothing new comes.
        let deadline = Instant::now() + Duration::from_secs(10);
        while let Ok(report) = self.machine.report() {
            let sample = Sample::new(&report, self.at_ms(), false, Done::default());
            if Invariants::drained(&sample) || Instant::now() > deadline {
                let before = self.invariants.found().all().len();
                self.invariants.finish(&sample);
                self.tell_new(before);
                break;
            }
            self.hear(Duration::from_millis(20));
        }
        if let Err(e) = self.machine.tell(&Request::Quit) {
            self.violation("answers", format!("it did not quit: {e}"));
        }
        match self.machine.wait(END_PATIENCE) {
            None => self.violation("ended", "the machine did not end when it was told to".to_owned()),
            Some(status) if status.success() => {}
            Some(status) => self.violation("ended", format!("the machine ended with {status}")),
        }
        self.over = true;
        self.hear(Duration::from_millis(100));
        for (pid, start) in std::mem::take(&mut self.processes) {
            let gone = || start_time(pid) != Some(start) || is_zombie(pid);
            let deadline = Instant::now() + Duration::from_secs(5);
            while !gone() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
            }
            if !gone() {
                self.violation("ended", format!("process {pid} of the machine outlived it"));
            }
        }
    }
}

/// Whether a process has ended and only waits to be reaped.
fn is_zombie(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| rest.starts_with('Z'))
}

/// The host's own name for itself.
fn host_name() -> String {
    let name = std::fs::read_to_string(Path::new("/proc/sys/kernel/hostname")).unwrap_or_default();
    quintet_protocol::control::one_line(&name, 64)
}
