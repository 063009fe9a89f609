//! Where a vCPU's time goes: `--profile FILE` for a whole run, `quintet debug NAME profile` for a while of any machine.
//!
//! cpu-worker says in one shared word what it is doing ([`quintet_protocol::profile`]); here that word is read a thousand times a
//! second. The guest's process neither knows nor waits.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use quintet_protocol::control::Request;
use quintet_protocol::handshake::{FileId, Role};
use quintet_protocol::layout::Ends;
use quintet_protocol::profile::{LINES, ProfileReader};
use quintet_protocol::sync::{AtomicBool, Ordering};

use crate::config::{UsageError, reason};
use crate::control::attach::attach;
use crate::control::client;

/// Time between two looks.
const EVERY: Duration = Duration::from_millis(1);
/// How often a machine in another process is asked whether it is still there.
const LOOK: Duration = Duration::from_secs(1);
/// How long `quintet debug NAME profile` looks unless told otherwise.
pub const DEFAULT_TIME: Duration = Duration::from_secs(10);

/// Looks, and keeps count of what was seen.
#[derive(Debug)]
struct Sampler {
    reader: ProfileReader,
    begun: Instant,
    /// Counts when the looking began.
    before: Vec<u64>,
    seen: Vec<u64>,
}

impl Sampler {
    fn new(reader: ProfileReader) -> Self {
        let before = (0..LINES as u16).map(|n| reader.line(n).count).collect();
        Self {
            reader,
            begun: Instant::now(),
            before,
            seen: vec![0; LINES],
        }
    }

    fn look(&mut self) {
        self.seen[usize::from(self.reader.now())] += 1;
    }

    /// A table of what was seen, the most first.
    fn report(&self) -> String {
        let time = self.begun.elapsed().as_secs_f64();
        let looks: u64 = self.seen.iter().sum();
        let mut rows: Vec<(u64, u64, String)> = Vec::new();
        for (n, &seen) in self.seen.iter().enumerate() {
            let line = self.reader.line(n as u16);
            // A cpu-worker that took another's place has counted anew.
            let count = line.count.checked_sub(self.before[n]).unwrap_or(line.count);
            if seen > 0 || count > 0 {
                rows.push((seen, count, line.name));
            }
        }
        rows.sort_by_key(|r| (std::cmp::Reverse(r.0), std::cmp::Reverse(r.1)));
        let mut text = format!(
            "# what the vCPU did: {looks} looks in {time:.1} s\n# {:>6} {:>14} {:>12} {:>10}  what\n",
            "share", "times", "times/s", "ns each"
        );
        for (seen, count, name) in rows {
            let share = seen as f64 / looks.max(1) as f64;
            let each = if count == 0 {
                "-".to_owned()
            } else {
                format!("{:.0}", share * time * 1e9 / count as f64)
            };
            let _ = writeln!(
                text,
                "{:>6.2} % {count:>14} {:>12.0} {each:>10}  {name}",
                share * 100.0,
                count as f64 / time.max(1e-9)
            );
        }
        text
    }
}

/// Makes the file that the user named for a profile.
///
/// # Errors
/// [`UsageError`] when that cannot be done.
pub fn create(path: &Path) -> Result<File, UsageError> {
    File::create(path).map_err(|e| {
        UsageError(format!(
            "Cannot write --profile {}: {}; name a file that can be written",
            path.display(),
            reason(&e)
        ))
    })
}

/// A profile of a whole run, written when it ends.
#[derive(Debug)]
pub struct Profiling {
    file: File,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Sampler>,
}

impl Profiling {
    /// Starts to look; what was seen will go to `file`.
    ///
    /// # Errors
    /// The host's, when it has no thread left.
    pub fn start(file: File, reader: ProfileReader) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("profile".into())
            .spawn(move || {
                let mut sampler = Sampler::new(reader);
                while !stopped.load(Ordering::Relaxed) {
                    std::thread::sleep(EVERY);
                    sampler.look();
                }
                sampler
            })?;
        Ok(Self { file, stop, thread })
    }

    /// Stops looking and writes what was seen.
    ///
    /// # Errors
    /// The host's, when the file cannot be written.
    pub fn finish(mut self) -> std::io::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let sampler = self
            .thread
            .join()
            .map_err(|_| std::io::Error::other("the thread that looked has ended"))?;
        self.file.write_all(sampler.report().as_bytes())
    }
}

/// Looks at the machine `name` for `time`, or until it ends, and prints what was seen.
///
/// # Errors
/// [`UsageError`] when there is no such machine, or it does not let its files be looked at.
pub fn of_machine(name: &str, time: Duration) -> Result<u8, UsageError> {
    let maps = attach(name, &[FileId::Control(Role::Cpu)])?;
    let mut sampler = Sampler::new(Ends::new(&maps).profile_reader());
    let mut asked = Instant::now();
    while sampler.begun.elapsed() < time {
        std::thread::sleep(EVERY);
        sampler.look();
        if asked.elapsed() >= LOOK {
            asked = Instant::now();
            if client::ask(name, &Request::Status).is_err() {
                break;
            }
        }
    }
    print!("{}", sampler.report());
    Ok(0)
}

#[cfg(test)]
mod tests {
    use quintet_protocol::profile::{Activity, PROFILE_SIZE, ProfileWriter};
    use quintet_protocol::shm::{Map, ViewMut};

    use super::*;

    #[test]
    fn what_was_seen_most_comes_first_with_its_share_and_count() {
        let len = PROFILE_SIZE.next_multiple_of(4096) as u64;
        let view = ViewMut::new(Arc::new(Map::anonymous(len).expect("map"))).slice(0, PROFILE_SIZE);
        let writer = ProfileWriter::attach(view.clone());
        writer.begin(Activity::Idle.line());
        let mut sampler = Sampler::new(ProfileReader::new(view.view().clone()));
        sampler.look();
        writer.begin(Activity::Translated.line());
        for _ in 0..3 {
            sampler.look();
        }
        let report = sampler.report();
        let rows: Vec<Vec<&str>> = report
            .lines()
            .skip(2)
            .map(|l| l.split_whitespace().collect())
            .collect();
        assert!(report.starts_with("# what the vCPU did: 4 looks"), "{report}");
        assert_eq!(rows[0][..3], ["75.00", "%", "1"], "{report}");
        assert_eq!(rows[0][5..], ["translated", "code"], "{report}");
        // It had begun before the looking did.
        assert_eq!(rows[1][..3], ["25.00", "%", "0"], "{report}");
        assert_eq!(rows[1][5..], ["idle"], "{report}");
        assert_eq!(rows.len(), 2, "{report}");
    }
}
