//! Where the beam is: retrace and blanking bits of input status 1, computed from VM time.
//!
//! IBM VGA technical reference, CRTC 00h–18h and the miscellaneous output register. Toggling the bits with
//! every read, as simple emulators do, was rejected: guests time themselves by them.

use quintet_protocol::time::VmTime;

/// Dot clocks of miscellaneous output bits 3:2, in Hz.
const DOT_HZ: [u64; 4] = [25_175_000, 28_322_000, 25_175_000, 25_175_000];

/// One frame in character clocks and lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Nanoseconds of a line.
    pub line_nanos: u64,
    /// Nanoseconds of a line before display enable ends.
    pub shown_nanos: u64,
    /// Lines of a frame.
    pub lines: u64,
    /// Lines before vertical display end.
    pub shown_lines: u64,
    /// First line of the vertical retrace.
    pub retrace_start: u64,
    /// Lines of the vertical retrace.
    pub retrace_lines: u64,
}

/// Input status 1: the display is not being drawn.
const BLANK: u8 = 0x01;
/// Input status 1: vertical retrace.
const RETRACE: u8 = 0x08;

impl Timing {
    /// The timing that the registers ask for; that of mode 3 while they make no picture.
    pub fn new(misc: u8, clocking: u8, crtc: &[u8; 25]) -> Self {
        let overflow = u64::from(crtc[0x07]);
        let tall = |low: usize, bit8: u32, bit9: u32| {
            u64::from(crtc[low]) | (overflow >> bit8 & 1) << 8 | (overflow >> bit9 & 1) << 9
        };
        let dots = if clocking & 1 != 0 { 8 } else { 9 };
        let halved = u64::from(clocking >> 3 & 1);
        let characters = u64::from(crtc[0x00]) + 5;
        let lines = tall(0x06, 0, 5) + 2;
        let shown = u64::from(crtc[0x01]) + 1;
        let shown_lines = tall(0x12, 1, 6) + 1;
        let retrace_start = tall(0x10, 2, 7);
        if crtc[0x00] == 0 || shown >= characters || shown_lines >= lines || retrace_start >= lines {
            return Self {
                line_nanos: 31_778,
                shown_nanos: 25_422,
                lines: 449,
                shown_lines: 400,
                retrace_start: 412,
                retrace_lines: 2,
            };
        }
        let nanos = |n: u64| ((n * dots * 1_000_000_000) << halved) / DOT_HZ[usize::from(misc >> 2 & 3)];
        let end = u64::from(crtc[0x11] & 15);
        let retrace_lines = end.wrapping_sub(retrace_start) & 15;
        Self {
            line_nanos: nanos(characters).max(1),
            shown_nanos: nanos(shown),
            lines,
            shown_lines,
            retrace_start,
            retrace_lines: retrace_lines.clamp(1, lines - retrace_start),
        }
    }

    /// Nanoseconds of a frame.
    pub fn frame_nanos(&self) -> u64 {
        self.line_nanos * self.lines
    }

    /// Bits 0 and 3 of input status 1 at `now`.
    pub fn status(&self, now: VmTime) -> u8 {
        let at = now.0 % self.frame_nanos();
        let (line, within) = (at / self.line_nanos, at % self.line_nanos);
        let retrace = (self.retrace_start..self.retrace_start + self.retrace_lines).contains(&line);
        let blank = line >= self.shown_lines || within >= self.shown_nanos;
        if retrace {
            RETRACE | BLANK
        } else if blank {
            BLANK
        } else {
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quintet_protocol::vram::VgaRegisters;

    fn mode_3() -> Timing {
        let r = VgaRegisters::text_80x25();
        Timing::new(r.misc, r.sequencer[1], &r.crtc)
    }

    #[test]
    fn mode_3_has_449_lines_seventy_times_a_second() {
        let t = mode_3();
        assert_eq!(
            (t.lines, t.shown_lines, t.retrace_start, t.retrace_lines),
            (449, 400, 412, 2)
        );
        let millihertz = 1_000_000_000_000 / t.frame_nanos();
        assert!((70_000..70_200).contains(&millihertz), "{millihertz}");
    }

    #[test]
    fn status_follows_the_beam() {
        let t = mode_3();
        let at = |line: u64, nanos: u64| t.status(VmTime(3 * t.frame_nanos() + line * t.line_nanos + nanos));
        assert_eq!(at(0, 0), 0);
        assert_eq!(at(10, t.shown_nanos), BLANK);
        assert_eq!(at(399, 5), 0);
        assert_eq!(at(400, 5), BLANK);
        assert_eq!(at(412, 5), RETRACE | BLANK);
        assert_eq!(at(413, t.line_nanos - 1), RETRACE | BLANK);
        assert_eq!(at(414, 0), BLANK);
    }

    #[test]
    fn a_frame_has_exactly_one_retrace_of_the_programmed_length() {
        let t = mode_3();
        let samples = 10_000;
        let inside = (0..samples)
            .filter(|i| t.status(VmTime(t.frame_nanos() * i / samples)) & RETRACE != 0)
            .count();
        let expected = samples * t.retrace_lines / t.lines;
        assert!((inside as u64).abs_diff(expected) <= 2, "{inside} of {expected}");
    }

    #[test]
    fn registers_that_make_no_picture_still_have_a_retrace() {
        let t = Timing::new(0, 0, &[0; 25]);
        assert_eq!(t.lines, 449);
        let t = Timing::new(0xFF, 0xFF, &[0xFF; 25]);
        assert!(t.frame_nanos() > 0 && t.retrace_lines > 0);
    }
}
