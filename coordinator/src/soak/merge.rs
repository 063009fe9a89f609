//! Reports of several machines as one.
//!
//! A report is a list of runs, so merging is joining the lists and summing anew; what was merged can be merged again.

use std::path::{Path, PathBuf};

use super::report::{Report, Shard};
use crate::config::UsageError;

/// Merges reports.
///
/// # Errors
/// [`UsageError`] when the same run comes twice.
pub fn merge(reports: Vec<Report>) -> Result<Report, UsageError> {
    let mut shards: Vec<Shard> = reports.into_iter().flat_map(|r| r.shards).collect();
    shards.sort_by_key(|s| (s.seed, s.began));
    // The same run counted twice would make the totals wrong, and is most likely a mistake on the command line.
    if let Some(a) = shards.windows(2).find(|w| w[0] == w[1]).map(|w| &w[0]) {
        return Err(UsageError(format!(
            "The run with seed {} is in two of the reports; name each once",
            a.seed
        )));
    }
    Ok(Report::new(shards))
}

/// Merges files into one, and answers the report.
///
/// # Errors
/// [`UsageError`] that names the file.
pub fn merge_files(files: &[PathBuf], into: &Path) -> Result<Report, UsageError> {
    let reports = files
        .iter()
        .map(|file| Report::read(file))
        .collect::<Result<Vec<_>, _>>()?;
    let merged = merge(reports)?;
    merged.write(into)?;
    Ok(merged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soak::invariants::Violation;
    use crate::soak::report::tests::shard;

    fn report(seed: u64) -> Report {
        Report::new(vec![shard(seed)])
    }

    #[test]
    fn four_shards_are_summed_and_their_order_does_not_matter() {
        let merged = merge((1..=4).map(report).collect()).expect("merged");
        assert_eq!(merged.shards.len(), 4);
        assert_eq!(merged.totals.rounds, 400 + 1 + 2 + 3 + 4);
        let count: u64 = merged.recoveries.values().map(|r| r.count).sum();
        assert_eq!(count, merged.totals.faults);
        let backwards = merge((1..=4).rev().map(report).collect()).expect("merged");
        assert_eq!(backwards, merged);
        // By halves it is the same.
        let half = |a, b| merge(vec![report(a), report(b)]).expect("merged");
        assert_eq!(merge(vec![half(1, 3), half(4, 2)]).expect("merged"), merged);
    }

    #[test]
    fn a_violation_of_one_shard_is_one_of_all() {
        let mut bad = shard(2);
        bad.violations.push(Violation {
            at_ms: 5,
            invariant: "picture".into(),
            text: "torn".into(),
            times: 1,
        });
        bad.totals.violations = 1;
        let merged = merge(vec![report(1), Report::new(vec![bad])]).expect("merged");
        assert_eq!(merged.totals.violations, 1);
        assert!(merged.summary().starts_with("2 shards, ") && merged.summary().ends_with("1 violation"));
    }

    #[test]
    fn a_run_that_comes_twice_is_refused() {
        let error = merge(vec![report(1), report(2), report(1)]).expect_err("refused");
        assert!(error.to_string().contains("seed 1 is in two"), "{error}");
    }
}
