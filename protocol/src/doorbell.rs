//! Doorbells: how a process that sleeps is told to look.
//!
//! A doorbell is one futex word in a file that every process may write, and a flag in a file that only the
//! sleeper may write. The word says "look" and nothing else, so forging or clearing it costs latency only:
//! the sleeper wakes at its next deadline whatever happens. The flag says "I sleep", and whether nudges wake as well as
//! rings; while it is clear, ringing costs no system call. An eventfd was rejected (a system call per ring and per wait, and one more
//! descriptor per pair), and so was a futex word in the ringer's own file (a sleeper would need one wait per
//! peer).
//!
//! The vCPU's *exit word* is the same thing seen from translated code, which polls the word alone.
//!
//! SYNC POINT `bell`: the ringer writes its reason, then swaps 1 into the word; the owner swaps 0 into the
//! word and then reads the reasons. Swaps, not stores: a swap continues the release sequence of the ringers
//! before it, so that the owner sees every reason whose ring it has taken.
//!
//! SYNC POINT `asleep`: the owner sets its flag, then looks at the word and at its condition; the ringer writes
//! its reason (and the word), then looks at the flag; a sequentially consistent fence lies between on both
//! sides, so at least one of them sees the other.

mod futex;

use crate::shm::{View, ViewMut};
use crate::sync::{Ordering, spin_hint, yield_processor};
use crate::time::HostTime;
use crate::words::{ReadWords, WriteWords};

/// Sleeps while the word at `offset` holds `expected`, at most `nanos` nanoseconds: for words other than doorbells
/// whose change is worth waiting for. Every return means: look again.
pub(crate) fn wait_word(view: &View, offset: usize, expected: u32, nanos: u64) {
    futex::wait(view, offset, expected, nanos);
}

/// Wakes everybody who sleeps on the word at `offset`.
pub(crate) fn wake_word(view: &View, offset: usize) {
    futex::wake(view, offset);
}

/// Longest single sleep, in nanoseconds: a lost wake-up (a peer killed between the word and the wake) costs
/// this much at worst. Long enough that an idle machine's wake-ups do not show.
pub const MAX_SLEEP: u64 = 1_000_000_000;
/// Looks between two offers of the processor to others while spinning: some microseconds, which is longer than a device
/// serves an access that it has.
const YIELD: u32 = 64;

/// The flag of one that sleeps and waits for a condition, of which it is told by rings and nudges.
const LISTENS: u32 = 1;
/// The flag of one that sleeps and is told of all that it waits for by rings.
const RESTS: u32 = 2;

/// The ringing half of the protocol, without the system call. Public for the models; use [`Doorbell`].
#[derive(Clone, Debug)]
pub struct Bell<W, R> {
    /// The futex word, at offset 0.
    pub word: W,
    /// The sleeper's flag, at offset 0.
    pub asleep: R,
}

impl<W: WriteWords, R: ReadWords> Bell<W, R> {
    /// Sets the word and answers whether the sleeper must be woken by a system call.
    #[inline]
    pub fn set(&self) -> bool {
        self.word.swap_u32(0, 1, Ordering::AcqRel);
        self.sleeping()
    }

    /// Whether the sleeper sleeps, as seen after everything this thread has written.
    #[inline]
    pub fn sleeping(&self) -> bool {
        self.flag() != 0
    }

    /// As [`Self::sleeping`], and wants to be woken by a nudge.
    #[inline]
    pub fn listening(&self) -> bool {
        self.flag() == LISTENS
    }

    fn flag(&self) -> u32 {
        self.asleep.full_fence();
        self.asleep.load_u32(0, Ordering::Relaxed)
    }
}

/// The sleeping half of the protocol, without the system call. Public for the models; use [`Sleeper`].
#[derive(Clone, Debug)]
pub struct Ear<W, A> {
    /// The futex word, at offset 0.
    pub word: W,
    /// This sleeper's flag, at offset 0.
    pub asleep: A,
}

impl<W: WriteWords, A: WriteWords> Ear<W, A> {
    /// Clears the word and answers whether it was set. The reasons are read after this.
    #[inline]
    pub fn take(&self) -> bool {
        // The plain load keeps the line shared while nobody rings.
        self.word.load_u32(0, Ordering::Relaxed) != 0 && self.word.swap_u32(0, 0, Ordering::AcqRel) != 0
    }

    /// Raises the flag; the caller then looks at [`Self::rung`] and at its condition before it sleeps.
    #[inline]
    pub fn announce(&self) {
        self.raise(LISTENS);
    }

    /// Raises the flag of one that waits for nothing but a ring; the caller then looks at [`Self::rung`] before it sleeps.
    #[inline]
    pub fn announce_rest(&self) {
        self.raise(RESTS);
    }

    fn raise(&self, flag: u32) {
        self.asleep.store_u32(0, flag, Ordering::Relaxed);
        self.asleep.full_fence();
    }

    /// Lowers the flag.
    #[inline]
    pub fn awake(&self) {
        self.asleep.store_u32(0, 0, Ordering::Release);
    }

    /// Whether the word is set, without clearing it.
    #[inline]
    pub fn rung(&self) -> bool {
        self.word.load_u32(0, Ordering::Acquire) != 0
    }
}

/// The ringing end of a doorbell. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Doorbell(Bell<ViewMut, View>);

impl Doorbell {
    /// The doorbell whose word starts `word` and whose sleeper's flag starts `asleep`.
    pub fn new(word: ViewMut, asleep: View) -> Self {
        Self(Bell { word, asleep })
    }

    /// Sets the word and wakes the sleeper if it sleeps. To be called after the reason has been published.
    #[inline]
    pub fn ring(&self) {
        if self.0.set() {
            self.wake();
        }
    }

    /// Rings only if the sleeper sleeps, which spares the line of the word. Only for reasons that the sleeper's `ready` in
    /// [`Sleeper::wait`] looks at between announcing and sleeping: a sleeper that is about to sleep misses any other, and
    /// sleeps over it until it is woken for something else, and one that [rests](Sleeper::rest) is not woken at all. Not for exit
    /// words, which translated code polls.
    #[inline]
    pub fn nudge(&self) {
        if self.0.listening() {
            self.0.word.swap_u32(0, 1, Ordering::AcqRel);
            self.wake();
        }
    }

    /// Sets the word and makes the wake-up call whatever the flag says; the coordinator does so for every
    /// doorbell after a death.
    pub fn force(&self) {
        self.0.word.swap_u32(0, 1, Ordering::AcqRel);
        self.wake();
    }

    #[cold]
    fn wake(&self) {
        futex::wake(self.0.word.view(), 0);
    }
}

/// Why [`Sleeper::wait`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// The caller's condition holds.
    Ready,
    /// Somebody rang; the word has been cleared and the reasons may be read.
    Rung,
    /// The deadline passed.
    Deadline,
}

/// How long to spin before sleeping.
///
/// Either longer than the peer's service time or not at all: a middling budget was measured at 66 µs a round
/// trip against 0.4 µs, because both sides fall asleep just before the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpinPolicy {
    tries: u32,
}

impl SpinPolicy {
    /// Sleeps at once.
    pub const NEVER: Self = Self { tries: 0 };
    /// Spins far beyond a device's service time.
    pub const LONG: Self = Self { tries: 40_000 };

    /// The policy for a host with `cores` cores: whoever spins on the only core keeps its peer from running.
    pub const fn for_cores(cores: usize) -> Self {
        if cores >= 2 { Self::LONG } else { Self::NEVER }
    }

    /// The policy for this process's share of this host (affinity and cgroup quota respected).
    pub fn for_host() -> Self {
        Self::for_cores(std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
    }

    /// Number of looks before sleeping.
    pub const fn tries(self) -> u32 {
        self.tries
    }
}

/// The sleeping end of a doorbell: one per sleeper, used by the one thread that sleeps.
#[derive(Clone, Debug)]
pub struct Sleeper {
    ear: Ear<ViewMut, ViewMut>,
    policy: SpinPolicy,
}

impl Sleeper {
    /// The sleeper of the word that starts `word`; `asleep` starts with its flag, in its own file. A flag
    /// left by a predecessor is lowered.
    pub fn new(word: ViewMut, asleep: ViewMut, policy: SpinPolicy) -> Self {
        let ear = Ear { word, asleep };
        ear.awake();
        Self { ear, policy }
    }

    /// Clears the word and answers whether it was set. The reasons are read after this.
    #[inline]
    pub fn take(&self) -> bool {
        self.ear.take()
    }

    /// Whether the word is set, without clearing it: one load.
    #[inline]
    pub fn rung(&self) -> bool {
        self.ear.rung()
    }

    /// The view that starts with the word, for translated code that polls it.
    pub fn word(&self) -> &View {
        self.ear.word.view()
    }

    /// Waits until somebody rings, `ready` holds, or `deadline` passes: spins as the policy says, then
    /// sleeps. Never returns later than the deadline plus the host's scheduling, and at least every
    /// [`MAX_SLEEP`] looks at `ready` by itself.
    pub fn wait(&self, deadline: HostTime, ready: impl FnMut() -> bool) -> Woken {
        self.wait_spinning(self.policy, deadline, ready)
    }

    /// [`Self::wait`] without spinning: for waits that are expected to be long (an idle guest).
    pub fn park(&self, deadline: HostTime, ready: impl FnMut() -> bool) -> Woken {
        self.wait_spinning(SpinPolicy::NEVER, deadline, ready)
    }

    /// Sleeps until somebody rings or `deadline` passes, whoever nudges: a halted vCPU, which has nothing to do with how far its
    /// commands are.
    pub fn rest(&self, deadline: HostTime) -> Woken {
        match self.ear.take() {
            true => Woken::Rung,
            false => self.sleep(deadline, Ear::announce_rest, || false),
        }
    }

    fn wait_spinning(
        &self,
        policy: SpinPolicy,
        deadline: HostTime,
        mut ready: impl FnMut() -> bool,
    ) -> Woken {
        for n in 0..=policy.tries {
            if ready() {
                return Woken::Ready;
            }
            if self.ear.take() {
                return Woken::Rung;
            }
            spin_hint();
            // On a host with more to do than processors, the peer may be waiting for this one.
            if n % YIELD == YIELD - 1 {
                yield_processor();
            }
        }
        self.sleep(deadline, Ear::announce, ready)
    }

    fn sleep(
        &self,
        deadline: HostTime,
        announce: impl Fn(&Ear<ViewMut, ViewMut>),
        mut ready: impl FnMut() -> bool,
    ) -> Woken {
        loop {
            let now = HostTime::now();
            if now >= deadline {
                return Woken::Deadline;
            }
            announce(&self.ear);
            if !ready() && !self.ear.rung() {
                futex::wait(self.ear.word.view(), 0, 0, deadline.since(now).min(MAX_SLEEP));
            }
            self.ear.awake();
            if ready() {
                return Woken::Ready;
            }
            if self.ear.take() {
                return Woken::Rung;
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
