//! The numbers by which a machine's life is decided.

use core::time::Duration;

use crate::handshake::Role;

/// The numbers of the restart policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// First delay before a worker is started again (S3.101).
    pub backoff_first: Duration,
    /// Longest delay (S3.101).
    pub backoff_max: Duration,
    /// A worker that was ready for so long has not died in vain.
    pub stable: Duration,
    /// Deaths in a row, each before [`Policy::stable`], after which a worker has failed for good.
    pub deaths: u32,
    /// How long a worker may take from spawn to ready.
    pub start: Duration,
    /// How long a worker may take to obey a reset (S3.104).
    pub ack: Duration,
    /// How long a worker may take to end in good order.
    pub stop: Duration,
    /// The same for the io-worker, unless it is held or hung: it puts what the guest has written where it lasts, and the host's
    /// disks may be slow.
    pub flush: Duration,
    /// Whether a guest's reset ends the machine (`--no-reboot`).
    pub no_reboot: bool,
    /// The machine ends with its cpu-worker: a reset of the guest is not wanted, or what the worker dies of is what is looked for.
    pub ends_with_cpu: bool,
    /// Whether the machine is of no use without its window.
    pub needs_gpu: bool,
    /// Which of [`Role::WORKERS`] somebody else starts, whenever he likes.
    pub by_hand: [bool; 4],
    /// How long such a worker may take for each of start, reset and end, once it is there: a tool may slow it down thirty times.
    pub by_hand_patience: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            backoff_first: Duration::from_millis(250),
            backoff_max: Duration::from_secs(10),
            stable: Duration::from_secs(10),
            deaths: 5,
            start: Duration::from_secs(10),
            ack: Duration::from_secs(10),
            stop: Duration::from_secs(2),
            flush: Duration::from_secs(30),
            no_reboot: false,
            ends_with_cpu: false,
            needs_gpu: false,
            by_hand: [false; 4],
            by_hand_patience: Duration::from_mins(2),
        }
    }
}

impl Policy {
    /// `usual`, or more when one of `roles` is started by hand.
    pub(super) fn patience(&self, usual: Duration, roles: &[Role]) -> Duration {
        match roles.iter().any(|role| self.by_hand[role.index() - 1]) {
            true => usual.max(self.by_hand_patience),
            false => usual,
        }
    }
}
