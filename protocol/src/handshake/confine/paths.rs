//! Landlock: which files can be opened, and that no TCP port, no abstract socket and no process outside is in reach.

use std::os::fd::AsFd;
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, RestrictionStatus,
    Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, Scope, path_beneath_rules,
};
use rustix::fs::FileType;

/// The newest version of Landlock whose means are used.
const NEWEST: ABI = ABI::V6;

/// What a process keeps.
#[derive(Clone, Copy, Debug)]
pub struct Paths<'a, P> {
    /// Can be read, with all beneath; `None` leaves reading and executing alone.
    pub read: Option<&'a [P]>,
    /// Can be read and written, with all beneath.
    pub write: &'a [P],
    /// Directories from which files can be removed, with all beneath.
    pub remove: &'a [P],
    /// Whether others' abstract sockets are in reach.
    pub abstract_sockets: bool,
    /// Whether signals reach processes that are not of its making.
    pub signals: bool,
}

/// Whether a descriptor is a directory's.
pub fn is_directory(fd: impl AsFd) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Confines this thread and whatever it starts. Answers what could not be applied.
pub fn restrict<P: AsRef<Path>>(paths: &Paths<'_, P>) -> Option<String> {
    match apply(paths) {
        Ok(status) => missing(&status.landlock),
        Err(e) => Some(format!("Landlock: {e}")),
    }
}

fn apply<P: AsRef<Path>>(paths: &Paths<'_, P>) -> Result<RestrictionStatus, RulesetError> {
    let mut scope = Scope::from_all(NEWEST);
    if paths.abstract_sockets {
        scope.remove(Scope::AbstractUnixSocket);
    }
    if paths.signals {
        scope.remove(Scope::Signal);
    }
    let handled: BitFlags<AccessFs> = match paths.read {
        Some(_) => AccessFs::from_all(NEWEST),
        // A device that could be opened may be driven.
        None => AccessFs::from_write(NEWEST) & !AccessFs::IoctlDev,
    };
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(handled)?
        .handle_access(AccessNet::from_all(NEWEST))?;
    // None at all is refused.
    if !scope.is_empty() {
        rules = rules.scope(scope)?;
    }
    rules
        .create()?
        .add_rules(path_beneath_rules(
            paths.read.unwrap_or_default(),
            AccessFs::from_read(NEWEST),
        ))?
        .add_rules(path_beneath_rules(paths.write, handled))?
        .add_rules(path_beneath_rules(paths.remove, AccessFs::RemoveFile))?
        .restrict_self()
}

/// What a kernel lacks, by what each version of Landlock brought (Documentation/userspace-api/landlock.rst).
fn missing(status: &LandlockStatus) -> Option<String> {
    let abi = match status {
        LandlockStatus::NotImplemented => {
            return Some("Landlock: this kernel has none (Linux 5.13 has)".to_owned());
        }
        LandlockStatus::NotEnabled => {
            return Some("Landlock: it is not among the kernel's lsm= at boot".to_owned());
        }
        LandlockStatus::Available { effective_abi, .. } => *effective_abi,
    };
    let means = [
        (ABI::V2, "linking between directories"),
        (ABI::V3, "truncating files"),
        (ABI::V4, "TCP"),
        (ABI::V5, "driving devices"),
        (ABI::V6, "abstract sockets and signals"),
    ];
    let lacking: Vec<_> = means
        .iter()
        .filter(|(since, _)| abi < *since)
        .map(|m| m.1)
        .collect();
    (!lacking.is_empty()).then(|| {
        format!(
            "Landlock: that of this kernel does not know {} (Linux 6.12 does)",
            lacking.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kernel_lacks_is_named() {
        let of = |effective_abi| {
            missing(&LandlockStatus::Available {
                effective_abi,
                kernel_abi: None,
            })
        };
        assert_eq!(of(ABI::V6), None);
        let lacks = of(ABI::V3).expect("three things");
        assert!(
            lacks.contains("TCP, driving devices, abstract sockets and signals"),
            "{lacks}"
        );
        assert!(missing(&LandlockStatus::NotImplemented).is_some());
        assert!(missing(&LandlockStatus::NotEnabled).is_some_and(|m| m.contains("lsm=")));
    }
}
