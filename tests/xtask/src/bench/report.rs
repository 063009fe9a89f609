//! What was measured, as a table and as JSON.

use std::fmt::Write;

use super::engine::Engine;
use super::measure::{Run, Seconds};
use super::options::Options;
use super::stats;

/// Of one engine at one thing.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// Median seconds.
    pub median: Seconds,
    /// Greatest less least, relative to the median; wall.
    pub spread: f64,
}

/// One thing that was timed.
#[derive(Debug)]
pub struct Row {
    /// A piece of work, or `boot`.
    pub name: &'static str,
    /// One per engine.
    pub figures: Vec<Option<Figure>>,
    /// Whether the engines computed different things.
    pub differs: bool,
}

/// Which of the two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The host's.
    Wall,
    /// The engine's CPU time.
    Cpu,
}

impl Clock {
    fn of(self, s: Seconds) -> f64 {
        match self {
            Self::Wall => s.wall,
            Self::Cpu => s.cpu,
        }
    }
}

/// All runs, boiled down.
#[derive(Debug)]
pub struct Report<'a> {
    /// In the order of the columns.
    pub engines: &'a [Engine],
    /// Index of the engine that ratios refer to.
    pub reference: usize,
    /// `boot` first.
    pub rows: Vec<Row>,
    options: &'a Options,
    runs: &'a [Run],
}

impl<'a> Report<'a> {
    /// Medians over the rounds.
    pub fn new(engines: &'a [Engine], options: &'a Options, runs: &'a [Run]) -> Self {
        let wanted = options.reference.unwrap_or(Engine::Qemu);
        let last = engines.len().saturating_sub(1);
        let reference = engines.iter().position(|e| *e == wanted).unwrap_or(last);
        let mut rows = vec![Row {
            name: "boot",
            figures: engines.iter().map(|e| figure(runs, *e, |run| run.boot)).collect(),
            differs: false,
        }];
        for name in &options.only {
            let seconds = |run: &Run| run.pieces.get(*name).map(|(seconds, _)| *seconds);
            let mut words: Vec<&str> = runs
                .iter()
                .filter_map(|run| Some(run.pieces.get(*name)?.1.as_str()))
                .collect();
            words.dedup();
            rows.push(Row {
                name,
                figures: engines.iter().map(|e| figure(runs, *e, seconds)).collect(),
                differs: words.len() > 1,
            });
        }
        Self {
            engines,
            reference,
            rows,
            options,
            runs,
        }
    }

    /// Pieces of work at which not all engines computed the same.
    pub fn differing(&self) -> Vec<&'static str> {
        self.rows
            .iter()
            .filter(|row| row.differs)
            .map(|row| row.name)
            .collect()
    }

    /// How many times as fast as the reference an engine is at one thing.
    pub fn ratio(&self, row: &Row, engine: usize, clock: Clock) -> Option<f64> {
        let of = |i: usize| Some(clock.of((*row.figures.get(i)?)?.median));
        let ratio = of(self.reference)? / of(engine)?;
        (ratio.is_finite() && ratio > 0.0).then_some(ratio)
    }

    /// The geometric mean of the ratios over all work, booting excepted.
    pub fn mean(&self, engine: usize, clock: Clock) -> Option<f64> {
        let ratios = self
            .rows
            .iter()
            .skip(1)
            .filter_map(|row| self.ratio(row, engine, clock));
        stats::geometric_mean(&ratios.collect::<Vec<_>>())
    }

    /// Indices of the engines that have ratios.
    pub fn compared(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.engines.len()).filter(|i| *i != self.reference)
    }

    /// One line that says what the figures were taken with.
    pub fn conditions(&self) -> String {
        format!(
            "{} bit, {} MiB, {} % of the work, median of {}",
            self.options.bits, self.options.ram, self.options.scale, self.options.rounds
        )
    }

    /// A table; `facts` name the host and the versions.
    pub fn markdown(&self, facts: &[(String, String)]) -> String {
        let mut out = format!("{}.\n", self.conditions());
        for (name, fact) in facts {
            let _ = writeln!(out, "{name}: {fact}.");
        }
        for (i, engine) in self.engines.iter().enumerate() {
            let _ = writeln!(
                out,
                "Beside {}, other programs kept {:.1} processors busy.",
                engine.name(),
                self.others(i)
            );
        }
        let reference = self.engines.get(self.reference).map_or("", |e| e.name());
        out.push_str("\n| |");
        let mut rule = String::from("|---|");
        for engine in self.engines {
            let _ = write!(out, " {0} wall s | {0} CPU s |", engine.name());
            rule.push_str("---:|---:|");
        }
        for i in self.compared() {
            let name = self.engines[i].name();
            let _ = write!(out, " {name}: × {reference}, wall | CPU |");
            rule.push_str("---:|---:|");
        }
        let _ = write!(out, "\n{rule}\n");
        for row in &self.rows {
            let _ = write!(
                out,
                "| {}{} |",
                row.name,
                if row.differs { " **differs**" } else { "" }
            );
            for figure in &row.figures {
                match figure {
                    Some(f) => {
                        let _ = write!(
                            out,
                            " {:.2} ± {:.0} % | {:.2} |",
                            f.median.wall,
                            f.spread * 50.0,
                            f.median.cpu
                        );
                    }
                    None => out.push_str(" – | – |"),
                }
            }
            for i in self.compared() {
                for clock in [Clock::Wall, Clock::Cpu] {
                    let _ = write!(out, " {} |", times(self.ratio(row, i, clock)));
                }
            }
            out.push('\n');
        }
        out.push_str("| geometric mean, without boot |");
        out.push_str(&" | |".repeat(self.engines.len()));
        for i in self.compared() {
            for clock in [Clock::Wall, Clock::Cpu] {
                let _ = write!(out, " **{}** |", times(self.mean(i, clock)));
            }
        }
        out.push('\n');
        out
    }

    fn others(&self, engine: usize) -> f64 {
        let of = self.runs.iter().filter(|run| run.engine == self.engines[engine]);
        stats::median(&of.map(|run| run.others).collect::<Vec<_>>()).unwrap_or_default()
    }

    /// Every single measurement.
    pub fn json(&self, facts: &[(String, String)]) -> String {
        let facts: Vec<String> = facts
            .iter()
            .map(|(k, v)| format!("{}: {}", quoted(k), quoted(v)))
            .collect();
        let runs: Vec<String> = self.runs.iter().map(|run| self.run_json(run)).collect();
        format!(
            "{{\n \"bits\": {}, \"ram_mib\": {}, \"scale_percent\": {},\n \"facts\": {{{}}},\n \"runs\": [\n  {}\n ]\n}}\n",
            self.options.bits,
            self.options.ram,
            self.options.scale,
            facts.join(", "),
            runs.join(",\n  ")
        )
    }

    fn run_json(&self, run: &Run) -> String {
        let pair = |s: &Seconds| format!("\"wall\": {:.3}, \"cpu\": {:.2}", s.wall, s.cpu);
        let boot = run
            .boot
            .map_or_else(|| "null".to_owned(), |s| format!("{{{}}}", pair(&s)));
        let pieces = self.options.only.iter().filter_map(|name| {
            let (seconds, word) = run.pieces.get(*name)?;
            Some(format!(
                "{}: {{{}, \"word\": {}}}",
                quoted(name),
                pair(seconds),
                quoted(word)
            ))
        });
        format!(
            "{{\"engine\": {}, \"round\": {}, \"done\": {}, \"trouble\": {}, \"others\": {:.2}, \"boot\": {boot}, \
             \"pieces\": {{{}}}}}",
            quoted(run.engine.name()),
            run.round,
            run.done,
            run.trouble.as_deref().map_or_else(|| "null".to_owned(), quoted),
            run.others,
            pieces.collect::<Vec<_>>().join(", ")
        )
    }
}

/// A ratio with two or three digits that mean something.
pub fn times(ratio: Option<f64>) -> String {
    match ratio {
        None => "–".to_owned(),
        Some(r) if r >= 10.0 => format!("{r:.0}"),
        Some(r) if r >= 1.0 => format!("{r:.1}"),
        Some(r) if r >= 0.1 => format!("{r:.2}"),
        Some(r) => format!("{r:.3}"),
    }
}

fn figure(runs: &[Run], engine: Engine, seconds: impl Fn(&Run) -> Option<Seconds>) -> Option<Figure> {
    let all: Vec<Seconds> = runs
        .iter()
        .filter(|r| r.engine == engine)
        .filter_map(seconds)
        .collect();
    let wall: Vec<f64> = all.iter().map(|s| s.wall).collect();
    let cpu: Vec<f64> = all.iter().map(|s| s.cpu).collect();
    Some(Figure {
        median: Seconds {
            wall: stats::median(&wall)?,
            cpu: stats::median(&cpu)?,
        },
        spread: stats::spread(&wall).unwrap_or_default(),
    })
}

/// A JSON string (RFC 8259 §7).
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
pub mod tests {
    use super::super::options::Given;
    use super::*;

    /// Options for two pieces of work.
    pub fn options() -> Options {
        let words = ["--only".to_owned(), "gzip,sort".to_owned()];
        match Options::parse(&words) {
            Ok(Given::Run(options)) => *options,
            other => panic!("{other:?}"),
        }
    }

    /// One run with these seconds at both pieces.
    pub fn run(engine: Engine, wall: f64, word: &str) -> Run {
        let seconds = Seconds {
            wall,
            cpu: wall / 2.0,
        };
        let piece = |name: &str| (name.to_owned(), (seconds, word.to_owned()));
        Run {
            engine,
            round: 1,
            boot: Some(seconds),
            pieces: [piece("gzip"), piece("sort")].into(),
            done: true,
            trouble: None,
            others: 0.25,
        }
    }

    #[test]
    fn ratios_are_of_medians_and_refer_to_qemu() {
        let (engines, options) = ([Engine::Interp, Engine::Qemu], options());
        let runs = [
            run(Engine::Interp, 8.0, "7"),
            run(Engine::Interp, 100.0, "7"),
            run(Engine::Interp, 10.0, "7"),
            run(Engine::Qemu, 2.0, "7"),
        ];
        let report = Report::new(&engines, &options, &runs);
        assert_eq!(report.ratio(&report.rows[1], 0, Clock::Wall), Some(0.2));
        assert_eq!(report.ratio(&report.rows[1], 1, Clock::Cpu), Some(1.0));
        let mean = report.mean(0, Clock::Cpu).unwrap_or_default();
        assert!((mean - 0.2).abs() < 1e-12);
        let table = report.markdown(&[("host".to_owned(), "a host".to_owned())]);
        assert!(
            table.contains("| gzip | 10.00 ± 460 % | 5.00 | 2.00 ± 0 % | 1.00 | 0.20 | 0.20 |"),
            "{table}"
        );
        assert!(
            table.contains("| geometric mean, without boot | | | | | **0.20** | **0.20** |"),
            "{table}"
        );
        let columns = |line: &str| line.matches('|').count();
        let mut lines = table.lines().filter(|l| l.starts_with('|')).map(columns);
        let first = lines.next();
        assert!(first.is_some() && lines.all(|n| Some(n) == first), "{table}");
    }

    #[test]
    fn what_one_engine_did_not_finish_has_no_ratio() {
        let (engines, options) = ([Engine::Interp, Engine::Qemu], options());
        let mut half = run(Engine::Interp, 4.0, "7");
        half.pieces.remove("sort");
        let runs = [half, run(Engine::Qemu, 2.0, "7")];
        let report = Report::new(&engines, &options, &runs);
        assert_eq!(report.ratio(&report.rows[2], 0, Clock::Wall), None);
        assert_eq!(report.mean(0, Clock::Wall), Some(0.5));
        assert!(report.markdown(&[]).contains("| sort | – | – |"));
        assert!(report.differing().is_empty());
    }

    #[test]
    fn different_words_are_reported() {
        let (engines, options) = ([Engine::Interp, Engine::Qemu], options());
        let runs = [run(Engine::Interp, 4.0, "8"), run(Engine::Qemu, 2.0, "7")];
        let report = Report::new(&engines, &options, &runs);
        assert_eq!(report.differing(), ["gzip", "sort"]);
        assert!(report.markdown(&[]).contains("gzip **differs**"));
    }

    #[test]
    fn json_has_every_run_and_balanced_brackets() {
        let (engines, options) = ([Engine::Interp], options());
        let mut failed = run(Engine::Interp, 4.0, "8");
        failed.trouble = Some("ended in \"x\"\n".to_owned());
        let runs = [run(Engine::Interp, 4.0, "8"), failed];
        let json = Report::new(&engines, &options, &runs).json(&[("a".to_owned(), "b".to_owned())]);
        assert_eq!(json.matches("\"engine\": \"interp\"").count(), 2);
        assert!(json.contains(r#""trouble": "ended in \"x\"\u000a""#), "{json}");
        assert!(
            json.contains(r#""gzip": {"wall": 4.000, "cpu": 2.00, "word": "8"}"#),
            "{json}"
        );
        for (open, close) in [('{', '}'), ('[', ']')] {
            assert_eq!(json.matches(open).count(), json.matches(close).count());
        }
    }

    #[test]
    fn ratios_are_shown_with_digits_that_mean_something() {
        let shown: Vec<String> = [123.4, 2.34, 0.234, 0.0234]
            .iter()
            .map(|r| times(Some(*r)))
            .collect();
        assert_eq!(shown, ["123", "2.3", "0.23", "0.023"]);
        assert_eq!(times(None), "–");
    }
}
