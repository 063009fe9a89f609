//! The 82441FX host bridge (Intel 290549): PAM and SMRAM registers with their rules.

use super::bus::Shadow;
use super::config::{ConfigSpace, FunctionSpec};
use crate::dma::Pam;

const PAM0: u8 = 0x59;
const SMRAM: u8 = 0x72;
/// SMRAM is visible outside SMM.
const D_OPEN: u8 = 0x40;
/// Nothing but C_BASE_SEG can be changed any more.
const D_LCK: u8 = 0x10;
const DEVICE_ID: u16 = 0x1237;

/// The host bridge at 00:00.0.
pub fn i440fx() -> FunctionSpec {
    FunctionSpec {
        name: "i440fx",
        vendor: 0x8086,
        device: DEVICE_ID,
        revision: 2,
        class: 0x06_0000,
        multifunction: false,
        pin: 0,
        status: 0x0000,
        command: 0x0000,
        command_mask: 0x0147,
        bars: Vec::new(),
        registers: registers(),
    }
}

/// Offsets, reset values and writable bits of section 3.2; DRAM registers hold what is written, since there
/// is no DRAM to be timed by them.
fn registers() -> Vec<(u8, u8, u8)> {
    let mut r: Vec<(u8, u8, u8)> = (0x50..=0x58).map(|at| (at, 0, 0xFF)).collect();
    r.push((PAM0, 0x00, 0xF0));
    r.extend((0x5A..=0x5F).map(|at| (at, 0, 0xFF)));
    r.extend((0x60..=0x6F).map(|at| (at, 0, 0xFF)));
    r.extend([
        (0x70, 0, 0xFF),
        (0x71, 0, 0xFF),
        (SMRAM, 0x02, 0x78),
        (0x90, 0, 0xFF),
        (0x91, 0, 0xFF),
    ]);
    r
}

/// Rules that masks cannot say: SMRAM's lock holds the other bits and clears D_OPEN (3.2.28).
pub(super) fn after_write(function: &mut ConfigSpace, at: u8, before: u8) {
    if at != SMRAM || function.spec().device != DEVICE_ID {
        return;
    }
    if before & D_LCK != 0 {
        function.force(at, before);
    } else if function.byte(at) & D_LCK != 0 {
        function.force(at, function.byte(at) & !D_OPEN);
    }
}

pub(super) fn shadow(function: &ConfigSpace) -> Shadow {
    let mut pam = [0; 7];
    for (at, value) in (PAM0..).zip(pam.iter_mut()) {
        *value = function.byte(at);
    }
    Shadow {
        pam: Pam(pam),
        smram: function.byte(SMRAM),
    }
}
