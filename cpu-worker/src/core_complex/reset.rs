//! Port 92h (fast A20 and reset), CF9h (reset control) and the address latch at CF8h.
//!
//! PIIX3 data sheet §2.5.7 (CF9h) and PS/2 system control port A. The latch lives here because an access
//! to CFCh–CFFh travels to io-worker together with the address, and so costs one message.

use super::snapshot::Snapshot;

/// State of the three ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ResetState {
    a20: bool,
    /// Bits of port 92h other than A20.
    port92: u8,
    /// Reset control register CF9h.
    control: u8,
    config_address: u32,
}

/// Something a write to these ports did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetAction {
    /// The A20 gate moved to this state.
    A20(bool),
    /// INIT of the processor: port 92h bit 0, or CF9h with a soft reset.
    Init,
    /// A hard reset of the machine: CF9h.
    Hard,
}

/// Ports 92h, CF8h and CF9h.
#[derive(Clone, Debug)]
pub struct ResetPorts {
    state: ResetState,
}

impl Default for ResetPorts {
    fn default() -> Self {
        Self::new()
    }
}

impl ResetPorts {
    /// Power-on: A20 is open, so that the reset vector can be fetched.
    pub fn new() -> Self {
        Self {
            state: ResetState {
                a20: true,
                ..ResetState::default()
            },
        }
    }

    /// Back to power-on.
    pub fn reset(&mut self) {
        *self = Self::new();
    }

    /// Whether address line 20 passes.
    pub fn a20(&self) -> bool {
        self.state.a20
    }

    /// The keyboard controller moved its gate. Of the two gates the one moved last wins, as in QEMU, so
    /// that either way of opening or closing works. Gives whether A20 changed.
    pub fn set_a20(&mut self, open: bool) -> bool {
        core::mem::replace(&mut self.state.a20, open) != open
    }

    /// The PCI configuration address last written to CF8h.
    pub fn config_address(&self) -> u32 {
        self.state.config_address
    }

    /// Reads a port; `None` when the access is not one of these registers.
    pub fn read(&self, port: u16, size: u8) -> Option<u32> {
        match (port, size) {
            (0x92, 1) => Some(u32::from(self.state.port92 | u8::from(self.state.a20) << 1)),
            (0xCF8, 4) => Some(self.state.config_address),
            (0xCF9, 1) => Some(u32::from(self.state.control)),
            _ => None,
        }
    }

    /// Writes a port; `None` when the access is not one of these registers.
    pub fn write(&mut self, port: u16, value: u32, size: u8) -> Option<Vec<ResetAction>> {
        let mut actions = Vec::new();
        match (port, size) {
            (0x92, 1) => {
                let (old, new) = (self.state.port92, value as u8);
                if self.set_a20(new & 2 != 0) {
                    actions.push(ResetAction::A20(new & 2 != 0));
                }
                self.state.port92 = new & !2;
                if new & !old & 1 != 0 {
                    actions.push(ResetAction::Init);
                }
            }
            // Bit 31 enables, bits 30:24 and 1:0 are reserved and read as zero.
            (0xCF8, 4) => self.state.config_address = value & 0x80FF_FFFC,
            (0xCF9, 1) => {
                let (old, new) = (self.state.control, value as u8);
                self.state.control = new & 0x0A;
                if new & 4 != 0 && old & 4 == 0 {
                    actions.push(if new & 2 != 0 {
                        ResetAction::Hard
                    } else {
                        ResetAction::Init
                    });
                }
            }
            _ => return None,
        }
        Some(actions)
    }
}

impl Snapshot for ResetPorts {
    const KIND: &'static str = "reset";
    const VERSION: u16 = 1;
    type State = ResetState;

    fn save(&self) -> ResetState {
        self.state.clone()
    }

    fn restore(&mut self, state: ResetState) {
        self.state = state;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core_complex::snapshot::snapshot_tests;

    snapshot_tests!(snapshot, ResetPorts::new(), |r: &mut ResetPorts| {
        r.write(0xCF8, 0x8000_1234, 4);
    });

    #[test]
    fn port_92h_moves_a20_and_a_rise_of_bit_0_is_init() {
        let mut r = ResetPorts::new();
        assert_eq!(r.write(0x92, 0x00, 1).unwrap(), [ResetAction::A20(false)]);
        assert_eq!(
            r.write(0x92, 0x03, 1).unwrap(),
            [ResetAction::A20(true), ResetAction::Init]
        );
        assert!(r.write(0x92, 0x03, 1).unwrap().is_empty(), "only the rise counts");
        assert_eq!(r.read(0x92, 1), Some(3));
    }

    #[test]
    fn the_gate_moved_last_wins() {
        let mut r = ResetPorts::new();
        assert!(r.set_a20(false));
        assert_eq!(r.read(0x92, 1), Some(0));
        assert_eq!(r.write(0x92, 2, 1).unwrap(), [ResetAction::A20(true)]);
    }

    #[test]
    fn cf9h_resets_on_bit_2_hard_or_soft_by_bit_1() {
        let mut r = ResetPorts::new();
        assert!(r.write(0xCF9, 0x02, 1).unwrap().is_empty());
        assert_eq!(r.write(0xCF9, 0x06, 1).unwrap(), [ResetAction::Hard]);
        assert_eq!(r.write(0xCF9, 0x04, 1).unwrap(), [ResetAction::Init]);
    }

    #[test]
    fn cf8h_is_a_latch_for_dwords_only() {
        let mut r = ResetPorts::new();
        assert!(r.write(0xCF8, 0xFFFF_FFFF, 4).unwrap().is_empty());
        assert_eq!(r.read(0xCF8, 4), Some(0x80FF_FFFC));
        assert_eq!(r.read(0xCF8, 1), None);
        assert_eq!(r.write(0xCFA, 0, 2), None);
    }
}
