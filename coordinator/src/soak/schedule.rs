//! When what happens to a machine: a function of the seed, the faults, the time and the mean gap, and of nothing else.
//!
//! So a run is repeated by its seed, in another place and by another build. The generator is ChaCha with 8 rounds, whose stream
//! `rand_chacha` keeps the same between versions, and numbers are cut from it here by multiplication, since the ways of the
//! `rand` crates to do that are not promised to stay.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

use super::fault::Fault;

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When, in milliseconds since the guest began.
    pub at_ms: u64,
    /// What.
    pub fault: Fault,
    /// For how long, in milliseconds; 0 for what happens at once.
    pub lasts_ms: u64,
}

/// Most entries of a schedule: a fault a second for a day and a half.
const MOST: usize = 1 << 17;

/// The schedule of a soak: gaps between half and one and a half times `every`.
pub fn schedule(seed: u64, faults: &[Fault], duration: Duration, every: Duration) -> Vec<Entry> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    // 0..n, of 64 bits: no bias that could matter.
    let mut below = |n: u64| ((u128::from(random.next_u64()) * u128::from(n)) >> 64) as u64;
    let (duration, every) = (duration.as_millis() as u64, (every.as_millis() as u64).max(1));
    let mut entries = Vec::new();
    let mut at_ms = 0;
    while !faults.is_empty() && entries.len() < MOST {
        at_ms += every / 2 + below(every) + 1;
        let fault = faults[below(faults.len() as u64) as usize];
        let (least, most) = fault.lasts();
        let lasts_ms = least + below(most - least + 1);
        if at_ms + lasts_ms >= duration {
            break;
        }
        entries.push(Entry {
            at_ms,
            fault,
            lasts_ms,
        });
    }
    entries
}

/// The schedule as lines of text.
pub fn text(entries: &[Entry]) -> String {
    entries
        .iter()
        .map(|e| match e.lasts_ms {
            0 => format!("{:>10.3} s  {}\n", e.at_ms as f64 / 1000.0, e.fault),
            ms => format!(
                "{:>10.3} s  {} for {:.3} s\n",
                e.at_ms as f64 / 1000.0,
                e.fault,
                ms as f64 / 1000.0
            ),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soak::fault::Target;

    const MINUTE: Duration = Duration::from_secs(60);

    fn of(seed: u64) -> Vec<Entry> {
        schedule(seed, &Fault::all(), MINUTE * 10, Duration::from_secs(2))
    }

    #[test]
    fn the_same_seed_gives_the_same_schedule_and_another_one_another() {
        assert_eq!(of(7), of(7));
        assert_ne!(of(7), of(8));
    }

    #[test]
    fn a_schedule_stays_what_it_was() {
        // Written down once: a seed from an old report must mean the same thing.
        let was = [
            "     1.805 s  kill-io",
            "     3.244 s  kill-audio",
            "     5.167 s  kill-gpu",
            "     7.581 s  stall-gpu for 1.774 s",
            "     8.780 s  kill-audio",
            "    10.341 s  reset",
        ];
        let mut faults = Fault::all();
        faults.truncate(14);
        let entries = schedule(1, &faults, MINUTE * 10, Duration::from_secs(2));
        assert_eq!(text(&entries[..6]).lines().collect::<Vec<_>>(), was);
    }

    #[test]
    fn every_fault_comes_and_all_end_in_time() {
        let entries = schedule(3, &Fault::all(), MINUTE * 60, Duration::from_secs(2));
        for fault in Fault::all() {
            assert!(entries.iter().any(|e| e.fault == fault), "{fault}");
        }
        assert!(entries.iter().all(|e| e.at_ms + e.lasts_ms < 3_600_000));
        assert!(entries.windows(2).all(|w| w[0].at_ms < w[1].at_ms));
        // A fault in two seconds, in the mean.
        assert!((1700..1900).contains(&entries.len()), "{}", entries.len());
        for e in &entries {
            let (least, most) = e.fault.lasts();
            assert!((least..=most).contains(&e.lasts_ms));
        }
    }

    #[test]
    fn a_gap_of_nothing_ends_too() {
        let kill = [Fault::Kill(Target::Io)];
        assert!(!schedule(1, &kill, MINUTE, Duration::ZERO).is_empty());
        assert!(schedule(1, &[], MINUTE, Duration::ZERO).is_empty());
        assert!(schedule(1, &kill, Duration::ZERO, MINUTE).is_empty());
    }

    #[test]
    fn it_reads_as_text() {
        let entry = Entry {
            at_ms: 1500,
            fault: Fault::Stall(Target::Audio),
            lasts_ms: 250,
        };
        assert_eq!(text(&[entry]), "     1.500 s  stall-audio for 0.250 s\n");
    }
}
