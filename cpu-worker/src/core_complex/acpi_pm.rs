//! The ACPI power-management block of the PIIX4: PM1a, the timer, GPE0 and the SMI command port.
//!
//! ACPI 6.x §4.8 and the PIIX4 data sheet; where the blocks lie, the SMI command values and the sleep types
//! are those of QEMU's pc machine. Without SMM the command port itself switches SCI_EN. Sleep states other
//! than S5 are not offered, so that asking for them does nothing.

use quintet_protocol::time::VmTime;

use super::snapshot::Snapshot;

/// Rate of the power-management timer, in Hz.
pub const PM_TIMER_HZ: u64 = 3_579_545;
/// I/O port of GPE0: status, then enable, two bytes each.
pub const GPE0_BASE: u16 = 0xAFE0;
/// Length of GPE0, in bytes.
pub const GPE0_LEN: u16 = 4;
/// Length of the block at PMBASE, in bytes.
pub const PM_LEN: u16 = 64;
/// Written to port B2h: hands the block to the guest.
pub const ACPI_ENABLE: u8 = 0xF1;
/// Written to port B2h: takes it back.
pub const ACPI_DISABLE: u8 = 0xF0;
/// SLP_TYP of S5 in the firmware's tables.
pub const SLP_TYP_S5: u16 = 0;

/// PM1 status and enable bits.
const TMR: u16 = 1 << 0;
const GBL: u16 = 1 << 5;
const PWRBTN: u16 = 1 << 8;
const RTC: u16 = 1 << 10;
const STATUS_BITS: u16 = TMR | 1 << 4 | GBL | PWRBTN | 1 << 9 | RTC | 1 << 15;
const ENABLE_BITS: u16 = TMR | GBL | PWRBTN | 1 << 9 | RTC;
const SCI_EN: u16 = 1 << 0;
const SLP_EN: u16 = 1 << 13;

/// State of the block.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AcpiPmState {
    base: Option<u16>,
    status: u16,
    enable: u16,
    control: u16,
    gpe_status: u16,
    gpe_enable: u16,
    apm: [u8; 2],
    /// Changes of the timer's top bit that have been turned into TMR_STS.
    overflows: u64,
}

/// The power-management block.
#[derive(Clone, Debug, Default)]
pub struct AcpiPm {
    state: AcpiPmState,
}

impl AcpiPm {
    /// Power-on: PMBASE is not decoded yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Back to power-on. PMBASE is io-worker's to set and stays.
    pub fn reset(&mut self, now: VmTime) {
        self.state = AcpiPmState {
            base: self.state.base,
            overflows: Self::tops(now),
            ..AcpiPmState::default()
        };
    }

    /// PCI configuration moved the block: its first port while it is decoded.
    pub fn set_base(&mut self, base: Option<u16>) {
        self.state.base = base;
    }

    /// Whether `port` is one of the block's now.
    pub fn claims(&self, port: u16) -> bool {
        matches!(port, 0xB2 | 0xB3)
            || self
                .state
                .base
                .is_some_and(|base| port.wrapping_sub(base) < PM_LEN)
            || port.wrapping_sub(GPE0_BASE) < GPE0_LEN
    }

    /// The 24-bit timer at `now`.
    pub fn timer(now: VmTime) -> u32 {
        (now.ticks(PM_TIMER_HZ) & 0xFF_FFFF) as u32
    }

    /// How often the timer's top bit has changed by `now`.
    fn tops(now: VmTime) -> u64 {
        now.ticks(PM_TIMER_HZ) >> 23
    }

    /// Turns a change of the timer's top bit into its status bit.
    pub fn advance(&mut self, now: VmTime) {
        let tops = Self::tops(now);
        if tops > self.state.overflows {
            self.state.status |= TMR;
            self.state.overflows = tops;
        }
    }

    /// Whether the system control interrupt is asserted.
    pub fn sci(&self) -> bool {
        let s = &self.state;
        s.control & SCI_EN != 0
            && (s.status & s.enable & ENABLE_BITS != 0 || s.gpe_status & s.gpe_enable != 0)
    }

    /// Whether the guest has taken the block over (SCI_EN).
    pub fn is_acpi_enabled(&self) -> bool {
        self.state.control & SCI_EN != 0
    }

    /// Someone pressed the power button.
    pub fn press_power_button(&mut self) {
        self.state.status |= PWRBTN;
    }

    /// Raises general-purpose event `bit`, 0 to 15.
    pub fn raise_gpe(&mut self, bit: u8) {
        self.state.gpe_status |= 1 << (bit & 15);
    }

    /// When the timer will next set its status bit with the interrupt enabled.
    pub fn next_deadline(&self) -> Option<VmTime> {
        let s = &self.state;
        (s.enable & TMR != 0 && s.status & TMR == 0 && s.control & SCI_EN != 0)
            .then(|| VmTime::from_ticks((s.overflows + 1) << 23, PM_TIMER_HZ))
    }

    /// Reads `size` bytes, 1, 2 or 4, from a port of [`Self::claims`].
    pub fn read(&mut self, now: VmTime, port: u16, size: u8) -> u32 {
        self.advance(now);
        (0..u16::from(size)).fold(0, |value, i| {
            value | u32::from(self.byte(now, port.wrapping_add(i))) << (8 * i)
        })
    }

    fn byte(&self, now: VmTime, port: u16) -> u8 {
        let s = &self.state;
        let half = |word: u16, offset: u16| word.to_le_bytes()[usize::from(offset & 1)];
        if matches!(port, 0xB2 | 0xB3) {
            return s.apm[usize::from(port & 1)];
        }
        let gpe = port.wrapping_sub(GPE0_BASE);
        if gpe < GPE0_LEN {
            return half(if gpe < 2 { s.gpe_status } else { s.gpe_enable }, gpe);
        }
        match s.base.map(|base| port.wrapping_sub(base)) {
            Some(offset @ 0..=1) => half(s.status, offset),
            Some(offset @ 2..=3) => half(s.enable, offset),
            Some(offset @ 4..=5) => half(s.control, offset),
            Some(offset @ 8..=11) => Self::timer(now).to_le_bytes()[usize::from(offset & 3)],
            _ => 0,
        }
    }

    /// Writes `size` bytes, 1, 2 or 4, to a port of [`Self::claims`]. Gives the sleep type when the guest
    /// asks to sleep.
    pub fn write(&mut self, now: VmTime, port: u16, value: u32, size: u8) -> Option<u16> {
        self.advance(now);
        let mut sleep = None;
        for i in 0..u16::from(size.min(4)) {
            sleep = sleep.or(self.write_byte(port.wrapping_add(i), (value >> (8 * i)) as u8));
        }
        sleep
    }

    fn write_byte(&mut self, port: u16, value: u8) -> Option<u16> {
        let s = &mut self.state;
        let shift = 8 * (port & 1);
        let (bits, mask) = (u16::from(value) << shift, 0xFF << shift);
        match port {
            0xB2 => {
                s.apm[0] = value;
                match value {
                    ACPI_ENABLE => s.control |= SCI_EN,
                    ACPI_DISABLE => s.control &= !SCI_EN,
                    _ => {}
                }
                return None;
            }
            0xB3 => {
                s.apm[1] = value;
                return None;
            }
            _ => {}
        }
        let gpe = port.wrapping_sub(GPE0_BASE);
        if gpe < GPE0_LEN {
            if gpe < 2 {
                s.gpe_status &= !bits;
            } else {
                s.gpe_enable = s.gpe_enable & !mask | bits;
            }
            return None;
        }
        match s.base.map(|base| port.wrapping_sub(base)) {
            Some(0..=1) => s.status &= !(bits & STATUS_BITS),
            Some(2..=3) => s.enable = (s.enable & !mask | bits) & ENABLE_BITS,
            Some(4..=5) => {
                s.control = (s.control & !mask | bits) & !SLP_EN;
                if bits & SLP_EN != 0 {
                    return Some(s.control >> 10 & 7);
                }
            }
            _ => {}
        }
        None
    }
}

impl Snapshot for AcpiPm {
    const KIND: &'static str = "acpi-pm";
    const VERSION: u16 = 1;
    type State = AcpiPmState;

    fn save(&self) -> AcpiPmState {
        self.state.clone()
    }

    fn restore(&mut self, state: AcpiPmState) {
        self.state = state;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core_complex::snapshot::snapshot_tests;

    const BASE: u16 = 0x600;

    fn enabled() -> AcpiPm {
        let mut pm = AcpiPm::new();
        pm.set_base(Some(BASE));
        pm.write(VmTime(0), 0xB2, u32::from(ACPI_ENABLE), 1);
        pm
    }

    snapshot_tests!(snapshot, AcpiPm::new(), |pm: &mut AcpiPm| {
        pm.set_base(Some(BASE));
        pm.press_power_button();
    });

    #[test]
    fn the_block_is_decoded_where_pmbase_says_and_only_when_enabled() {
        let mut pm = AcpiPm::new();
        assert!(!pm.claims(BASE));
        pm.set_base(Some(BASE));
        assert!(pm.claims(BASE) && pm.claims(BASE + 63) && !pm.claims(BASE + 64));
        assert!(pm.claims(0xB2) && pm.claims(GPE0_BASE + 3) && !pm.claims(GPE0_BASE + 4));
    }

    #[test]
    fn the_smi_command_port_switches_sci_en() {
        let mut pm = enabled();
        assert_eq!(pm.read(VmTime(0), BASE + 4, 2) & 1, 1);
        pm.write(VmTime(0), 0xB2, u32::from(ACPI_DISABLE), 1);
        assert_eq!(pm.read(VmTime(0), BASE + 4, 2) & 1, 0);
    }

    #[test]
    fn the_timer_counts_24_bits_and_its_top_bit_sets_the_status() {
        let mut pm = enabled();
        let edge = VmTime::from_ticks(1 << 23, PM_TIMER_HZ);
        assert_eq!(pm.read(edge - 1, BASE + 8, 4), (1 << 23) - 1);
        assert_eq!(pm.read(edge - 1, BASE, 2) & 1, 0);
        pm.write(edge - 1, BASE + 2, 1, 2);
        assert_eq!(pm.next_deadline(), Some(edge));
        pm.advance(edge);
        assert!(pm.sci());
        pm.write(edge, BASE, 1, 2);
        assert!(!pm.sci());
        assert_eq!(pm.next_deadline(), Some(VmTime::from_ticks(1 << 24, PM_TIMER_HZ)));
        assert_eq!(pm.read(VmTime::from_ticks(1 << 24, PM_TIMER_HZ), BASE + 8, 4), 0);
    }

    #[test]
    fn the_power_button_asserts_the_sci_until_its_status_is_cleared() {
        let mut pm = enabled();
        pm.press_power_button();
        assert!(!pm.sci(), "not enabled");
        pm.write(VmTime(0), BASE + 2, u32::from(PWRBTN), 2);
        assert!(pm.sci());
        pm.write(VmTime(0), BASE + 1, 1, 1);
        assert!(!pm.sci());
    }

    #[test]
    fn a_general_purpose_event_asserts_the_sci() {
        let mut pm = enabled();
        pm.write(VmTime(0), GPE0_BASE + 2, 2, 2);
        pm.raise_gpe(1);
        assert!(pm.sci());
        pm.write(VmTime(0), GPE0_BASE, 2, 1);
        assert!(!pm.sci());
    }

    #[test]
    fn sleep_enable_tells_the_type_and_reads_back_as_zero() {
        let mut pm = enabled();
        assert_eq!(pm.write(VmTime(0), BASE + 4, 0x2001, 2), Some(SLP_TYP_S5));
        assert_eq!(pm.write(VmTime(0), BASE + 4, 0x3401, 2), Some(5));
        assert_eq!(pm.read(VmTime(0), BASE + 4, 2), 0x1401);
    }
}
