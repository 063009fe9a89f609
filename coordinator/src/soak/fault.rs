//! What a soak does to a machine, by name.

use std::fmt;
use std::str::FromStr;

use quintet_protocol::handshake::Role;
use serde::{Deserialize, Serialize};

/// One kind of fault, as `--faults` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Fault {
    /// A worker is killed (SIGKILL).
    Kill(Target),
    /// A worker is stopped for a while (SIGSTOP, SIGCONT).
    Stall(Target),
    /// A worker is stopped and let go by turns, some hundredths of a second each, for a while.
    Slow(Target),
    /// The machine is paused and resumed, as by `quintet pause`.
    Pause,
    /// The machine's reset button is pressed, as by `quintet reset`.
    Reset,
    /// The upper half of the disk's image is gone for a while: reads and writes there fail.
    DiskError,
    /// The disk's image may not be written in its upper half for a while, as on a host whose disk is full.
    DiskFull,
    /// The gpu-worker's ring of input is filled with rubbish for a while, and then its process is killed.
    HostileRing,
    /// Nearly all memory that the host has left is taken for a while.
    MemoryPressure,
}

/// A worker as the target of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// cpu-worker.
    Cpu,
    /// io-worker.
    Io,
    /// gpu-worker.
    Gpu,
    /// audio-worker.
    Audio,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Cpu, Self::Io, Self::Gpu, Self::Audio];

    /// The worker's role.
    pub const fn role(self) -> Role {
        match self {
            Self::Cpu => Role::Cpu,
            Self::Io => Role::Io,
            Self::Gpu => Role::Gpu,
            Self::Audio => Role::Audio,
        }
    }
}

impl Fault {
    /// Every fault that works.
    pub fn all() -> Vec<Self> {
        let each = |make: fn(Target) -> Self| Target::ALL.into_iter().map(make);
        let mut all: Vec<_> = each(Self::Kill).collect();
        all.extend(each(Self::Stall));
        all.extend(each(Self::Slow));
        all.extend([Self::Pause, Self::Reset]);
        all.extend([
            Self::DiskError,
            Self::DiskFull,
            Self::HostileRing,
            Self::MemoryPressure,
        ]);
        all
    }

    /// Those that come when none are named: that a guest is not to notice, and the host's other users neither.
    pub fn unnoticed() -> Vec<Self> {
        let mut all = Self::all();
        all.retain(|fault| {
            !fault.resets()
                && !fault.fails_disk()
                && !matches!(fault, Self::HostileRing | Self::MemoryPressure)
        });
        all
    }

    /// Whether commands for the disk fail because of it, which only the built-in workload repeats.
    pub fn fails_disk(self) -> bool {
        matches!(self, Self::DiskError | Self::DiskFull)
    }

    /// The worker that is killed in the course of it.
    pub fn kills(self) -> Option<Role> {
        match self {
            Self::Kill(t) => Some(t.role()),
            Self::HostileRing => Some(Role::Gpu),
            _ => None,
        }
    }

    /// Whether the guest starts anew because of it.
    pub fn resets(self) -> bool {
        matches!(self, Self::Kill(Target::Cpu) | Self::Reset)
    }

    /// The worker that it is done to.
    pub fn role(self) -> Option<Role> {
        match self {
            Self::Kill(t) | Self::Stall(t) | Self::Slow(t) => Some(t.role()),
            Self::DiskError | Self::DiskFull => Some(Role::Io),
            Self::HostileRing => Some(Role::Gpu),
            Self::Pause | Self::Reset | Self::MemoryPressure => None,
        }
    }

    /// Shortest and longest time that it takes, in milliseconds.
    pub fn lasts(self) -> (u64, u64) {
        match self {
            Self::Kill(_) | Self::Reset => (0, 0),
            // Longer than the coordinator lets a worker be silent, and shorter than it looks.
            Self::Stall(_) => (100, 3000),
            Self::Slow(_) => (500, 3000),
            Self::Pause => (50, 1000),
            Self::DiskError | Self::DiskFull | Self::MemoryPressure => (300, 3000),
            Self::HostileRing => (50, 500),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(t) => write!(f, "kill-{}", t.role().name()),
            Self::Stall(t) => write!(f, "stall-{}", t.role().name()),
            Self::Slow(t) => write!(f, "slow-{}", t.role().name()),
            Self::Pause => f.write_str("pause"),
            Self::Reset => f.write_str("reset"),
            Self::DiskError => f.write_str("disk-error"),
            Self::DiskFull => f.write_str("disk-full"),
            Self::HostileRing => f.write_str("hostile-ring"),
            Self::MemoryPressure => f.write_str("memory-pressure"),
        }
    }
}

impl From<Fault> for String {
    fn from(fault: Fault) -> Self {
        fault.to_string()
    }
}

impl TryFrom<String> for Fault {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        name.parse()
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        if let Some(fault) = Self::all().into_iter().find(|f| f.to_string() == name) {
            return Ok(fault);
        }
        Err(format!(
            "\"{name}\" is not a fault; these are: {}; none for no faults, all for all",
            names(&Self::all())
        ))
    }
}

/// Names behind commas.
pub fn names(faults: &[Fault]) -> String {
    faults.iter().map(Fault::to_string).collect::<Vec<_>>().join(",")
}

/// The faults that `--faults` asks for; without it, those that no guest is to notice.
///
/// # Errors
/// A sentence that names what is not a fault.
pub fn parse(words: &[String]) -> Result<Vec<Fault>, String> {
    let mut faults = match words {
        [] => Fault::unnoticed(),
        [one] if one == "none" => Vec::new(),
        [one] if one == "all" => Fault::all(),
        words => words
            .iter()
            .map(|word| word.trim().parse())
            .collect::<Result<_, _>>()?,
    };
    // The schedule depends on the set, not on how it was written down.
    faults.sort();
    faults.dedup();
    Ok(faults)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(',').map(str::to_owned).collect()
    }

    #[test]
    fn every_fault_is_found_by_its_name() {
        for fault in Fault::all() {
            assert_eq!(fault.to_string().parse(), Ok(fault));
        }
        assert_eq!(Fault::all().len(), 18);
    }

    #[test]
    fn the_order_of_the_words_does_not_matter() {
        let faults = parse(&words("stall-audio,kill-io,kill-io")).expect("parses");
        assert_eq!(names(&faults), "kill-io,stall-audio");
        assert_eq!(parse(&words("none")), Ok(Vec::new()));
        assert_eq!(parse(&words("all")), Ok(Fault::all()));
    }

    #[test]
    fn without_words_the_guest_is_not_reset() {
        let faults = parse(&[]).expect("parses");
        assert!(!faults.contains(&Fault::Kill(Target::Cpu)) && !faults.contains(&Fault::Reset));
        assert!(faults.contains(&Fault::Kill(Target::Io)));
    }

    #[test]
    fn what_is_no_fault_is_refused_with_what_is() {
        let error = parse(&words("kill-disk")).expect_err("refused");
        assert!(error.contains("\"kill-disk\" is not a fault"), "{error}");
        assert!(error.contains("kill-io"), "{error}");
    }
}
