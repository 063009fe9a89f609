//! The colour registers: 256 entries behind ports 3C6h to 3C9h (IBM VGA technical reference, "Video DAC").
//!
//! A colour is three bytes through 3C9h; it becomes visible with the third. Six bits each, or eight when the
//! VBE interface says so.

use quintet_protocol::vram::Palette;

/// State of the DAC.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DacState {
    /// Red, green, blue of every entry in turn: 768 bytes.
    colours: Vec<u8>,
    /// PEL mask, 3C6h.
    pub(super) mask: u8,
    write_index: u8,
    read_index: u8,
    /// Which component of the colour comes next, 0 to 2.
    component: u8,
    /// The last address was set for reading.
    reading: bool,
    /// Components of a colour that is not complete.
    partial: [u8; 2],
}

impl Default for DacState {
    fn default() -> Self {
        Self {
            colours: vec![0; 768],
            mask: 0xFF,
            write_index: 0,
            read_index: 0,
            component: 0,
            reading: false,
            partial: [0; 2],
        }
    }
}

impl DacState {
    /// The entries as scan-out takes them.
    pub fn palette(&self) -> Palette {
        let mut palette = Palette::default();
        for (entry, rgb) in palette.0.iter_mut().zip(self.colours.chunks_exact(3)) {
            entry.copy_from_slice(rgb);
        }
        palette
    }

    /// Sets all entries.
    pub fn set_palette(&mut self, palette: &Palette) {
        self.colours = palette.0.as_flattened().to_vec();
    }

    /// Reads port 3C6h to 3C9h.
    pub fn read(&mut self, port: u16, eight_bits: bool) -> u8 {
        match port {
            0x3C6 => self.mask,
            0x3C7 => {
                if self.reading {
                    3
                } else {
                    0
                }
            }
            0x3C8 => self.write_index,
            _ => {
                let at = usize::from(self.read_index) * 3 + usize::from(self.component);
                let value = self.colours[at];
                self.component += 1;
                if self.component == 3 {
                    self.component = 0;
                    self.read_index = self.read_index.wrapping_add(1);
                }
                if eight_bits { value } else { value & 0x3F }
            }
        }
    }

    /// Writes port 3C6h to 3C9h. Gives whether a colour changed.
    pub fn write(&mut self, port: u16, value: u8, eight_bits: bool) -> bool {
        match port {
            0x3C6 => self.mask = value,
            0x3C7 => (self.read_index, self.component, self.reading) = (value, 0, true),
            0x3C8 => (self.write_index, self.component, self.reading) = (value, 0, false),
            _ => {
                let value = if eight_bits { value } else { value & 0x3F };
                if self.component < 2 {
                    self.partial[usize::from(self.component)] = value;
                    self.component += 1;
                    return false;
                }
                let colour = [self.partial[0], self.partial[1], value];
                let entry = &mut self.colours[usize::from(self.write_index) * 3..][..3];
                let changed = entry != colour;
                entry.copy_from_slice(&colour);
                self.component = 0;
                self.write_index = self.write_index.wrapping_add(1);
                return changed;
            }
        }
        false
    }

    /// Brings values that no guest can produce into range, after a restore.
    pub fn sanitise(&mut self) {
        self.colours.resize(768, 0);
        self.component %= 3;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colour_counts_with_its_third_byte_and_the_index_goes_on() {
        let mut dac = DacState::default();
        dac.write(0x3C8, 254, false);
        let changes: Vec<_> = (1..=9).map(|v| dac.write(0x3C9, v, false)).collect();
        assert_eq!(
            changes,
            [false, false, true, false, false, true, false, false, true]
        );
        let palette = dac.palette();
        assert_eq!(
            (palette.0[254], palette.0[255], palette.0[0]),
            ([1, 2, 3], [4, 5, 6], [7, 8, 9])
        );
        assert_eq!(dac.read(0x3C8, false), 1);
    }

    #[test]
    fn reading_has_an_index_of_its_own_and_tells_so_in_the_state_register() {
        let mut dac = DacState::default();
        dac.write(0x3C8, 5, false);
        for v in [0xFF, 0x40, 0x3F] {
            dac.write(0x3C9, v, false);
        }
        assert_eq!(dac.read(0x3C7, false), 0);
        dac.write(0x3C7, 5, false);
        assert_eq!(dac.read(0x3C7, false), 3);
        assert_eq!(
            [0; 3].map(|_: u8| dac.read(0x3C9, false)),
            [0x3F, 0x00, 0x3F],
            "six bits"
        );
    }

    #[test]
    fn eight_bits_are_kept_when_they_are_asked_for() {
        let mut dac = DacState::default();
        for v in [0xFF, 0x80, 0x01] {
            dac.write(0x3C9, v, true);
        }
        assert_eq!(dac.palette().0[0], [0xFF, 0x80, 0x01]);
    }
}
