//! The lease protocol of the frame slots, over any kind of words: shared memory, or a model checker's cells.
//!
//! Indices are in words of 32 bits. The writer's words: *active* (the newest frame's slot plus one, 0 for none), *frame* (its number), and a
//! sequence word per slot: the number of the frame in it, with bit 31 while it is being written. The reader's
//! word, in the reader's file: *lease*, the slot it holds plus one, or 0.
//!
//! Writer: never the active slot, never a leased one. It marks the slot busy, then looks at the leases; if one
//! names the slot, it takes the mark back and tries another. Reader: it stores its lease, then looks at the slot's
//! sequence; if it is busy, it lets go and reads the active index again. Between store and look both sides have a
//! sequentially consistent fence, so at least one of them sees the other (Dekker), and no pixel is ever written
//! while a reader that saw the slot at rest holds it.
//!
//! What may go wrong and what then happens: a writer killed in a write leaves a busy mark, and its successor
//! overwrites that slot some time, for the active slot is never the busy one. A reader killed with a lease costs
//! one slot until its successor clears the lease; the other two go round. Every slot leased: the writer
//! skips the frame. A writer that lies can tear frames, no more: readers check what they copy out.

use crate::scanout::BUSY;
use crate::sync::{Ordering, fence, spin_hint};
use crate::words::{ReadWords, WriteWords};

use super::SLOTS;

/// Index of the active word among the slot words.
pub const ACTIVE: usize = 0;
/// Index of the frame word.
pub const FRAME: usize = 1;
/// Index of the first sequence word.
pub const SEQUENCE: usize = 2;
/// Slot words in all.
pub const SLOT_WORDS: usize = SEQUENCE + SLOTS;
/// Index of the lease among a reader's words.
pub const LEASE: usize = 0;

/// Attempts of a reader, each of which fails only if a whole frame was published meanwhile.
pub const LEASE_ATTEMPTS: u32 = 1000;

/// The number of the newest frame; 0 before the first. For waiting and comparing.
pub fn newest(words: &impl ReadWords) -> u32 {
    words.load_u32(FRAME * 4, Ordering::Acquire)
}

/// Takes a slot to write, or `None` when readers hold all that are not active. The caller writes it and then
/// calls [`publish`]; to give it up, it need do nothing: a busy slot is taken again later.
pub fn take<W: WriteWords, L: ReadWords>(words: &W, leases: &[L]) -> Option<usize> {
    let active = words.load_u32(ACTIVE * 4, Ordering::Relaxed) as usize;
    let leased = |slot: usize| {
        leases
            .iter()
            .any(|lease| lease.load_u32(LEASE * 4, Ordering::Acquire) as usize == slot + 1)
    };
    // Starting behind the active slot gives readers the longest time to lease it.
    for step in 0..SLOTS {
        let slot = (active + step) % SLOTS;
        if slot + 1 == active || leased(slot) {
            continue;
        }
        let before = words.load_u32((SEQUENCE + slot) * 4, Ordering::Acquire);
        words.store_u32((SEQUENCE + slot) * 4, before | BUSY, Ordering::Relaxed);
        // SYNC POINT frame-lease: the mark before the look; pairs with the fence in `lease`.
        fence(Ordering::SeqCst);
        if leased(slot) {
            words.store_u32((SEQUENCE + slot) * 4, before, Ordering::Release);
            continue;
        }
        // The pixels come after the busy mark for a reader without a lease, too.
        fence(Ordering::Release);
        return Some(slot);
    }
    None
}

/// Shows the frame in `slot` as the newest and returns its number, 1 to 2^31 − 1.
pub fn publish(words: &impl WriteWords, slot: usize) -> u32 {
    let number = next(newest(words));
    // SYNC POINT frame-done: the pixels before the sequence; pairs with the acquire load in `lease`.
    words.store_u32((SEQUENCE + slot) * 4, number, Ordering::Release);
    words.store_u32(ACTIVE * 4, slot as u32 + 1, Ordering::Release);
    words.store_u32(FRAME * 4, number, Ordering::Release);
    number
}

/// The number after `number`; 0 is left out.
pub const fn next(number: u32) -> u32 {
    match number.wrapping_add(1) & !BUSY {
        0 => 1,
        next => next,
    }
}

/// Makes the words good after the death of a writer: the newest frame is the one that is active.
pub fn take_over(words: &impl WriteWords) {
    let active = words.load_u32(ACTIVE * 4, Ordering::Acquire) as usize;
    if (1..=SLOTS).contains(&active) {
        let number = words.load_u32((SEQUENCE + active - 1) * 4, Ordering::Acquire) & !BUSY;
        words.store_u32(FRAME * 4, number, Ordering::Release);
    } else {
        words.store_u32(ACTIVE * 4, 0, Ordering::Release);
    }
}

/// What [`lease`] answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leased {
    /// The slot and the number of the frame in it. It stays as it is until [`release`].
    Slot(usize, u32),
    /// No frame has been published.
    Nothing,
    /// The active index is no slot: the writer is broken.
    Broken(u32),
    /// A frame was published in each of the attempts, or the active slot is marked busy for ever.
    Contended,
}

/// Leases the newest frame. The reader's earlier lease ends.
pub fn lease<W: ReadWords, L: WriteWords>(words: &W, mine: &L) -> Leased {
    for _ in 0..LEASE_ATTEMPTS {
        let active = words.load_u32(ACTIVE * 4, Ordering::Acquire);
        if active == 0 {
            release(mine);
            return Leased::Nothing;
        }
        let slot = active as usize - 1;
        if slot >= SLOTS {
            release(mine);
            return Leased::Broken(active);
        }
        // Release: the reads of a slot held before come before the end of its lease.
        mine.store_u32(LEASE * 4, active, Ordering::Release);
        // SYNC POINT frame-lease: the lease before the look; pairs with the fence in `take`.
        fence(Ordering::SeqCst);
        let sequence = words.load_u32((SEQUENCE + slot) * 4, Ordering::Acquire);
        if sequence & BUSY == 0 && sequence != 0 {
            return Leased::Slot(slot, sequence);
        }
        release(mine);
        spin_hint();
    }
    Leased::Contended
}

/// Ends the lease.
pub fn release(mine: &impl WriteWords) {
    mine.store_u32(LEASE * 4, 0, Ordering::Release);
}
