//! What io-worker tells of its devices in status words, for observers: counts, lamps, which pointer moves.
//!
//! Words are stored only when they change: they share lines with words that other processes look at all the time.

use quintet_protocol::status::{StatusWord, StatusWriter};

use super::outside::InputCounts;
use crate::bus::PointerKind;
use crate::machine::Machine;

/// Tells how everything stands, with `input` given to devices and `overruns` periods of sound that found no room.
pub(super) fn show(own: &StatusWriter, machine: &mut Machine, input: InputCounts, overruns: u32) {
    let pointer = match machine.pointer() {
        None => 0,
        Some(PointerKind::Relative) => 1,
        Some(PointerKind::Absolute) => 2,
    };
    let leds = machine.keyboard_leds();
    let disks = machine.disks();
    let (under_way, traffic) = (disks.under_way() as u32, disks.take_traffic());
    let counted = |word, more| own.load(word).wrapping_add(more);
    for (word, value) in [
        (StatusWord::AudioOverrun, overruns),
        (StatusWord::DiskRequests, under_way),
        (StatusWord::DiskRead, counted(StatusWord::DiskRead, traffic.read)),
        (
            StatusWord::DiskWritten,
            counted(StatusWord::DiskWritten, traffic.written),
        ),
        (
            StatusWord::DiskFlushes,
            counted(StatusWord::DiskFlushes, traffic.flushes),
        ),
        (StatusWord::HidKeys, input.keys),
        (StatusWord::HidPointer, input.pointer),
        (StatusWord::HidDropped, input.dropped),
        (StatusWord::KeyboardLeds, leds.into()),
        (StatusWord::PointerBackend, pointer),
    ] {
        if own.load(word) != value {
            own.store(word, value);
        }
    }
}
