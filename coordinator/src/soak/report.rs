//! What came of a soak, as JSON: one shape for a run and for several merged, so that whatever reads one reads the other.

use std::collections::BTreeMap;
use std::path::Path;

use quintet_protocol::handshake::Role;
use serde::{Deserialize, Serialize};

use super::fault::Fault;
use super::invariants::Violation;
use super::sample::Sample;
use super::schedule::Entry;
use crate::config::{UsageError, read_file, reason};

/// What the file's `format` says.
pub const FORMAT: &str = "quintet-soak-1";
/// Most samples that a shard keeps; the density is halved whenever there are more.
const MOST_POINTS: usize = 1200;
/// Largest report that is read, in bytes.
const MOST_BYTES: u64 = 256 << 20;

/// A report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// [`FORMAT`].
    pub format: String,
    /// The runs.
    pub shards: Vec<Shard>,
    /// All of them together.
    pub totals: Totals,
    /// Recoveries by fault.
    pub recoveries: BTreeMap<Fault, Recovery>,
}

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    /// Version of the program.
    pub version: String,
    /// Host, as it calls itself.
    pub host: String,
    /// When it began, in seconds since 1970.
    pub began: u64,
    /// Seed of the schedule.
    pub seed: u64,
    /// Faults that could come.
    pub faults: Vec<Fault>,
    /// Mean gap between two, in milliseconds.
    pub every_ms: u64,
    /// How long it was to run, in milliseconds.
    pub duration_ms: u64,
    /// How long it ran, in milliseconds.
    pub ran_ms: u64,
    /// A signal ended it before its time.
    pub interrupted: bool,
    /// The machine's command line.
    pub command: Vec<String>,
    /// What was to be done.
    pub schedule: Vec<Entry>,
    /// What was done.
    pub injected: Vec<Injected>,
    /// What went through the guest.
    pub totals: Totals,
    /// Looks at the machine.
    pub points: Vec<Point>,
    /// What must not be.
    pub violations: Vec<Violation>,
    /// Where more is kept, if there was a violation.
    pub evidence: Option<String>,
}

/// A fault that was injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Injected {
    /// When, in milliseconds since the guest began.
    pub at_ms: u64,
    /// What.
    pub fault: Fault,
    /// Until all was well again, in milliseconds, the fault's own time not counted; `None` when it never was.
    pub recovery_ms: Option<u64>,
}

/// Sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Totals {
    /// Time of runs, in milliseconds.
    pub ran_ms: u64,
    /// VM time, in milliseconds.
    pub vm_time_ms: u64,
    /// Faults injected.
    pub faults: u64,
    /// Looks at machines.
    pub looks: u64,
    /// Rounds of the guest.
    pub rounds: u64,
    /// Interrupts that were counted.
    pub interrupts: u64,
    /// Sectors written.
    pub sectors_written: u64,
    /// Sectors read and compared.
    pub sectors_read: u64,
    /// Commands for the disk that failed because it was made to fail, and were repeated.
    #[serde(default)]
    pub disk_errors: u64,
    /// Pictures compared with what the guest drew.
    pub pictures: u64,
    /// Violations.
    pub violations: u64,
}

impl Totals {
    fn add(&mut self, other: &Self) {
        self.ran_ms += other.ran_ms;
        self.vm_time_ms += other.vm_time_ms;
        self.faults += other.faults;
        self.looks += other.looks;
        self.rounds += other.rounds;
        self.interrupts += other.interrupts;
        self.sectors_written += other.sectors_written;
        self.sectors_read += other.sectors_read;
        self.disk_errors += other.disk_errors;
        self.pictures += other.pictures;
        self.violations += other.violations;
    }
}

/// How long it took until all was well again after a fault, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recovery {
    /// How often the fault was injected.
    pub count: u64,
    /// Least.
    pub least_ms: u64,
    /// Median.
    pub median_ms: u64,
    /// Most.
    pub most_ms: u64,
}

/// A look at a machine, as far as it is drawn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Point {
    /// When, in milliseconds since the guest began.
    pub at_ms: u64,
    /// VM time, in milliseconds.
    pub vm_time_ms: u64,
    /// Rounds of the guest.
    pub rounds: u64,
    /// Memory without guest RAM, in KiB: coordinator, cpu, io, gpu, audio; 0 for one that was away.
    pub memory_kib: [u64; 5],
    /// Open descriptors, in the same order.
    pub descriptors: [u64; 5],
    /// Threads, in the same order.
    pub threads: [u64; 5],
}

impl Point {
    /// What is kept of a sample.
    pub fn new(sample: &Sample) -> Self {
        let of = |what: fn(&super::sample::ProcessSample) -> u64| {
            Role::ALL.map(|role| sample.process(role).map_or(0, what))
        };
        Self {
            at_ms: sample.at_ms,
            vm_time_ms: sample.vm_time_ms,
            rounds: sample.done.rounds,
            memory_kib: of(|p| p.memory >> 10),
            descriptors: of(|p| p.descriptors),
            threads: of(|p| p.threads),
        }
    }
}

/// Points of a run of any length in bounded memory.
#[derive(Debug)]
pub struct Points {
    points: Vec<Point>,
    /// Every so many are kept.
    stride: u64,
    seen: u64,
}

impl Default for Points {
    /// None yet.
    fn default() -> Self {
        Self {
            points: Vec::new(),
            stride: 1,
            seen: 0,
        }
    }
}

impl Points {
    /// Takes a point.
    pub fn push(&mut self, point: Point) {
        if self.seen.is_multiple_of(self.stride) {
            if self.points.len() == MOST_POINTS {
                let mut n = 0;
                self.points.retain(|_| {
                    n += 1;
                    n % 2 == 1
                });
                self.stride *= 2;
            }
            // The one at hand may be one of those that are left out from now on.
            if self.seen.is_multiple_of(self.stride) {
                self.points.push(point);
            }
        }
        self.seen += 1;
    }

    /// How many were taken.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Those that are kept.
    pub fn into_points(self) -> Vec<Point> {
        self.points
    }
}

impl Report {
    /// The report of these runs.
    pub fn new(shards: Vec<Shard>) -> Self {
        let mut totals = Totals::default();
        let mut times: BTreeMap<Fault, Vec<u64>> = BTreeMap::new();
        for shard in &shards {
            totals.add(&shard.totals);
            for injected in &shard.injected {
                if let Some(ms) = injected.recovery_ms {
                    times.entry(injected.fault).or_default().push(ms);
                }
            }
        }
        let recoveries = times
            .into_iter()
            .map(|(fault, mut ms)| {
                ms.sort_unstable();
                let recovery = Recovery {
                    count: ms.len() as u64,
                    least_ms: ms[0],
                    median_ms: ms[ms.len() / 2],
                    most_ms: ms[ms.len() - 1],
                };
                (fault, recovery)
            })
            .collect();
        Self {
            format: FORMAT.to_owned(),
            shards,
            totals,
            recoveries,
        }
    }

    /// Reads a report.
    ///
    /// # Errors
    /// [`UsageError`] for a file that cannot be read or is none.
    pub fn read(path: &Path) -> Result<Self, UsageError> {
        let bytes = read_file("report", path, MOST_BYTES, |len| {
            format!(
                "The report \"{}\" has {len} bytes, {MOST_BYTES} are the most",
                path.display()
            )
        })?;
        let report: Self = serde_json::from_slice(&bytes).map_err(|e| {
            UsageError(format!(
                "\"{}\" is not a report of `quintet soak`: {e}",
                path.display()
            ))
        })?;
        if report.format != FORMAT {
            return Err(UsageError(format!(
                "The report \"{}\" has the format \"{}\"; this program reads \"{FORMAT}\"",
                path.display(),
                report.format.escape_default()
            )));
        }
        Ok(report)
    }

    /// Writes the report, and beside it the page that shows it.
    ///
    /// # Errors
    /// [`UsageError`] that names the file.
    pub fn write(&self, path: &Path) -> Result<(), UsageError> {
        let json = serde_json::to_string_pretty(self).expect("numbers, text and lists");
        let page = super::html::page(self);
        for (path, text) in [(path.to_owned(), json + "\n"), (page_beside(path), page)] {
            std::fs::write(&path, text)
                .map_err(|e| UsageError(format!("Cannot write \"{}\": {}", path.display(), reason(&e))))?;
        }
        Ok(())
    }

    /// What was found. A guest that is not ours does no rounds: of such a machine only the outside was judged, and it says so.
    pub fn verdict(&self) -> String {
        match (self.totals.violations, self.totals.rounds) {
            (0, 0) => "no violation, as far as can be seen from outside the guest".to_owned(),
            (0, _) => "no violation".to_owned(),
            (1, _) => "1 violation".to_owned(),
            (n, _) => format!("{n} violations"),
        }
    }

    /// One line about it.
    pub fn summary(&self) -> String {
        let t = &self.totals;
        let mut text = format!(
            "{} of guest time in {}, {} faults, {} rounds, {} interrupts, {} sectors, {} pictures: {}",
            seconds(t.vm_time_ms),
            seconds(t.ran_ms),
            t.faults,
            t.rounds,
            t.interrupts,
            t.sectors_written + t.sectors_read,
            t.pictures,
            self.verdict()
        );
        if self.shards.len() > 1 {
            text = format!("{} shards, {text}", self.shards.len());
        }
        text
    }
}

/// The page's file for a report's.
pub fn page_beside(path: &Path) -> std::path::PathBuf {
    path.with_extension("html")
}

/// Milliseconds for people.
pub fn seconds(ms: u64) -> String {
    match ms {
        0..120_000 => format!("{:.1} s", ms as f64 / 1000.0),
        120_000..7_200_000 => format!("{:.1} min", ms as f64 / 60_000.0),
        _ => format!("{:.1} h", ms as f64 / 3_600_000.0),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::soak::fault::Target;
    use crate::soak::schedule::schedule;
    use std::time::Duration;

    /// A run as it could have been, for tests.
    pub fn shard(seed: u64) -> Shard {
        let faults = vec![Fault::Kill(Target::Io), Fault::Stall(Target::Audio)];
        let schedule = schedule(seed, &faults, Duration::from_secs(60), Duration::from_secs(5));
        let injected: Vec<_> = schedule
            .iter()
            .map(|e| Injected {
                at_ms: e.at_ms,
                fault: e.fault,
                recovery_ms: Some(200 + e.at_ms % 100),
            })
            .collect();
        Shard {
            version: "0.1.0".into(),
            host: "host <&> \"quoted\"".into(),
            began: 1_790_000_000,
            seed,
            faults,
            every_ms: 5000,
            duration_ms: 60_000,
            ran_ms: 60_010,
            interrupted: false,
            command: vec!["quintet".into(), "run".into(), "--headless".into()],
            totals: Totals {
                ran_ms: 60_010,
                vm_time_ms: 59_000,
                faults: injected.len() as u64,
                looks: 60,
                rounds: 100 + seed,
                interrupts: 50_000,
                sectors_written: 25_600,
                sectors_read: 25_600,
                disk_errors: 12,
                pictures: 50,
                violations: 0,
            },
            schedule,
            injected,
            points: (0..60)
                .map(|n| Point {
                    at_ms: n * 1000,
                    vm_time_ms: n * 990,
                    rounds: n * 2,
                    memory_kib: [4000, 9000, 5000, if n == 30 { 0 } else { 7000 }, 3000],
                    descriptors: [40, 20, 30, 20, 20],
                    threads: [8, 3, 4, 3, 3],
                })
                .collect(),
            violations: Vec::new(),
            evidence: None,
        }
    }

    #[test]
    fn a_report_comes_back_as_it_was_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("soak.json");
        let report = Report::new(vec![shard(1)]);
        report.write(&path).expect("written");
        assert_eq!(Report::read(&path).expect("read"), report);
        assert!(folder.path().join("soak.html").exists());
    }

    #[test]
    fn what_is_no_report_is_refused_in_one_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("bad.json");
        let strange = Report {
            format: "quintet-soak-9\n".into(),
            ..Report::new(Vec::new())
        };
        let strange = serde_json::to_string(&strange).expect("json");
        for (text, said) in [
            ("", "is empty"),
            ("[]", "is not a report"),
            ("{\"format\": 1}", "is not a report"),
            (strange.as_str(), "quintet-soak-9\\n"),
        ] {
            std::fs::write(&path, text).expect("written");
            let error = Report::read(&path).expect_err("refused").to_string();
            assert!(error.contains(said) && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_run_of_any_length_keeps_a_bounded_number_of_even_points() {
        let mut points = Points::default();
        let template = shard(1).points[0].clone();
        for n in 0..100_000 {
            points.push(Point {
                at_ms: n,
                ..template.clone()
            });
        }
        assert_eq!(points.seen(), 100_000);
        let points = points.into_points();
        assert!(
            (MOST_POINTS / 2..=MOST_POINTS).contains(&points.len()),
            "{}",
            points.len()
        );
        let gap = points[1].at_ms;
        assert!(points.windows(2).all(|w| w[1].at_ms - w[0].at_ms == gap));
    }

    #[test]
    fn recoveries_are_counted_by_fault() {
        let mut one = shard(1);
        one.injected = [(5, Some(30)), (6, Some(10)), (7, Some(20)), (8, None)]
            .map(|(at_ms, recovery_ms)| Injected {
                at_ms,
                fault: Fault::Pause,
                recovery_ms,
            })
            .to_vec();
        let recoveries = Report::new(vec![one]).recoveries;
        assert_eq!(
            recoveries[&Fault::Pause],
            Recovery {
                count: 3,
                least_ms: 10,
                median_ms: 20,
                most_ms: 30
            }
        );
    }

    #[test]
    fn the_summary_is_one_line_with_the_verdict() {
        let report = Report::new(vec![shard(1)]);
        let text = report.summary();
        assert!(
            text.starts_with("59.0 s of guest time in 60.0 s") && text.ends_with(": no violation"),
            "{text}"
        );
        let mut other = shard(1);
        other.totals.rounds = 0;
        let text = Report::new(vec![other]).summary();
        assert!(text.ends_with("from outside the guest"), "{text}");
    }
}
