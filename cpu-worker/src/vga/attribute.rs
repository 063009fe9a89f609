//! The attribute controller: one port for address and data with a flip-flop between them.
//!
//! IBM VGA technical reference, "Attribute Controller". Writes to the palette count also while bit 5 of the
//! address gives it to the display: hardware ignores them, some guests forget to clear the bit.

/// State of the controller.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AttributeState {
    /// Address register with bit 5 (PAS).
    pub(super) index: u8,
    /// Registers 00h to 14h.
    pub(super) registers: [u8; 21],
    /// The next write to 3C0h is data.
    data_next: bool,
}

/// Bits of each register after the palette's 16: mode, overscan, plane enable, panning, colour select.
const MASKS: [u8; 5] = [0xEF, 0xFF, 0x3F, 0x0F, 0x0F];

impl AttributeState {
    /// Reading input status 1 makes the next write an address.
    pub fn reset_flip_flop(&mut self) {
        self.data_next = false;
    }

    /// Reads port 3C0h (address) or 3C1h (data).
    pub fn read(&self, port: u16) -> u8 {
        if port & 1 == 0 {
            return self.index;
        }
        self.registers
            .get(usize::from(self.index & 0x1F))
            .copied()
            .unwrap_or(0)
    }

    /// Writes port 3C0h. Gives whether something that scan-out sees changed.
    pub fn write(&mut self, value: u8) -> bool {
        self.data_next = !self.data_next;
        if self.data_next {
            let before = core::mem::replace(&mut self.index, value & 0x3F);
            return (before ^ value) & 0x20 != 0;
        }
        let index = usize::from(self.index & 0x1F);
        let Some(register) = self.registers.get_mut(index) else {
            return false;
        };
        let mask = if index < 16 { 0x3F } else { MASKS[index - 16] };
        core::mem::replace(register, value & mask) != value & mask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_and_data_alternate_until_the_flip_flop_is_reset() {
        let mut a = AttributeState::default();
        a.write(0x30);
        a.write(0x0C);
        assert_eq!((a.read(0x3C0), a.read(0x3C1)), (0x30, 0x0C));
        a.write(0x31);
        a.reset_flip_flop();
        a.write(0x32);
        a.write(0xFF);
        assert_eq!(a.registers[0x12], 0x3F);
    }

    #[test]
    fn registers_that_do_not_exist_read_zero_and_take_nothing() {
        let mut a = AttributeState::default();
        a.write(0x1F);
        assert!(!a.write(0xFF));
        assert_eq!(a.read(0x3C1), 0);
    }
}
