//! The register file of the local APIC and its two doors: the xAPIC page and the x2APIC MSRs.
//!
//! SDM vol. 3 table 11-1 (xAPIC), table 11-6 (x2APIC). Register numbers here are those of x2APIC: MSR minus
//! 800h, which is the xAPIC offset divided by 16.

use quintet_protocol::time::VmTime;

use super::{BASE_BSP, BASE_ENABLE, BASE_X2APIC, Lapic, LapicOutput, lvt};

/// Register numbers: xAPIC offset / 16, x2APIC MSR − 800h.
pub mod reg {
    /// Local APIC ID.
    pub const ID: u32 = 0x02;
    /// Version.
    pub const VERSION: u32 = 0x03;
    /// Task priority.
    pub const TPR: u32 = 0x08;
    /// Arbitration priority (xAPIC only).
    pub const APR: u32 = 0x09;
    /// Processor priority.
    pub const PPR: u32 = 0x0A;
    /// End of interrupt.
    pub const EOI: u32 = 0x0B;
    /// Logical destination.
    pub const LDR: u32 = 0x0D;
    /// Destination format (xAPIC only).
    pub const DFR: u32 = 0x0E;
    /// Spurious interrupt vector.
    pub const SVR: u32 = 0x0F;
    /// First of eight in-service words.
    pub const ISR: u32 = 0x10;
    /// First of eight trigger-mode words.
    pub const TMR: u32 = 0x18;
    /// First of eight request words.
    pub const IRR: u32 = 0x20;
    /// Error status.
    pub const ESR: u32 = 0x28;
    /// Interrupt command, low half; all 64 bits in x2APIC mode.
    pub const ICR: u32 = 0x30;
    /// Interrupt command, high half (xAPIC only).
    pub const ICR_HIGH: u32 = 0x31;
    /// LVT timer entry; thermal, performance, LINT0, LINT1 and error follow.
    pub const LVT_TIMER: u32 = 0x32;
    /// LVT error entry.
    pub const LVT_ERROR: u32 = 0x37;
    /// Initial count.
    pub const INITIAL_COUNT: u32 = 0x38;
    /// Current count.
    pub const CURRENT_COUNT: u32 = 0x39;
    /// Divide configuration.
    pub const DIVIDE: u32 = 0x3E;
    /// Self IPI (x2APIC only).
    pub const SELF_IPI: u32 = 0x3F;
}

/// Version 14h with six LVT entries and no EOI-broadcast suppression.
const VERSION: u32 = 0x0005_0014;
/// ESR: a register was accessed that does not exist.
const ILLEGAL_REGISTER: u32 = 1 << 7;

/// An access to a model-specific register that raises #GP(0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("The access raises #GP(0)")]
pub struct GeneralProtection;

/// Bits of each LVT entry that can be written: timer, thermal, performance, LINT0, LINT1, error.
const LVT_WRITABLE: [u32; 6] = [0x7_00FF, 0x1_07FF, 0x1_07FF, 0x1_A7FF, 0x1_A7FF, 0x1_00FF];

impl Lapic {
    /// IA32_APIC_BASE (SDM vol. 3 §11.4.4).
    pub fn apic_base(&self) -> u64 {
        self.state.apic_base
    }

    /// WRMSR of IA32_APIC_BASE, with the transitions of SDM vol. 3 §11.12.5: from x2APIC mode only to
    /// disabled, from disabled not to x2APIC mode.
    ///
    /// # Errors
    /// [`GeneralProtection`] for reserved bits and forbidden transitions.
    pub fn set_apic_base(&mut self, value: u64) -> Result<(), GeneralProtection> {
        let address = ((1u64 << self.phys_bits) - 1) & !0xFFF;
        if value & !(address | BASE_BSP | BASE_X2APIC | BASE_ENABLE) != 0 {
            return Err(GeneralProtection);
        }
        let mode = |v: u64| (v & BASE_ENABLE != 0, v & BASE_X2APIC != 0);
        match (mode(self.state.apic_base), mode(value)) {
            (_, (false, true)) | ((false, _), (true, true)) | ((true, true), (true, false)) => {
                return Err(GeneralProtection);
            }
            ((true, _), (false, _)) => {
                // Disabling loses the state, as INIT does.
                self.init();
            }
            _ => {}
        }
        self.state.apic_base = value & !BASE_BSP | self.state.apic_base & BASE_BSP;
        Ok(())
    }

    /// Whether the spurious-vector register enables the APIC (bit 8).
    pub fn is_software_enabled(&self) -> bool {
        self.state.svr & 0x100 != 0
    }

    /// Reads from the xAPIC page. Registers are the first four bytes of each sixteen.
    pub fn mmio_read(&mut self, now: VmTime, offset: u64) -> u32 {
        if offset & 0xC != 0 {
            return 0;
        }
        let number = (offset >> 4) as u32 & 0xFF;
        match number {
            reg::ID => self.state.id << 24,
            reg::APR => u32::from(self.ppr()),
            reg::LDR => self.state.ldr,
            reg::DFR => self.state.dfr,
            reg::ICR_HIGH => (self.state.icr >> 32) as u32,
            reg::EOI => 0,
            _ => self.read(now, number).unwrap_or_else(|| {
                self.error(ILLEGAL_REGISTER);
                0
            }),
        }
    }

    /// Writes to the xAPIC page.
    pub fn mmio_write(&mut self, now: VmTime, offset: u64, value: u32, out: &mut Vec<LapicOutput>) {
        if offset & 0xC != 0 {
            return;
        }
        let number = (offset >> 4) as u32 & 0xFF;
        match number {
            reg::ID => self.state.id = value >> 24,
            reg::LDR => self.state.ldr = value & 0xFF00_0000,
            reg::DFR => self.state.dfr = value | 0x0FFF_FFFF,
            reg::ICR_HIGH => self.state.icr = self.state.icr & 0xFFFF_FFFF | u64::from(value) << 32,
            reg::ICR => {
                self.state.icr = self.state.icr & !0xFFFF_FFFF | u64::from(value & !0x1000);
                self.send_ipi(out);
            }
            reg::VERSION | reg::APR | reg::PPR | reg::CURRENT_COUNT | reg::ISR..reg::ESR => {}
            _ => {
                if !self.write(now, number, value, out) {
                    self.error(ILLEGAL_REGISTER);
                }
            }
        }
    }

    /// RDMSR of register `number` in x2APIC mode.
    ///
    /// # Errors
    /// [`GeneralProtection`] when the APIC is not in x2APIC mode or there is no such register to read.
    pub fn msr_read(&self, now: VmTime, number: u32) -> Result<u64, GeneralProtection> {
        if !self.is_x2apic() {
            return Err(GeneralProtection);
        }
        match number {
            reg::ID => Ok(u64::from(self.state.id)),
            reg::LDR => Ok(u64::from(self.x2apic_ldr())),
            reg::ICR => Ok(self.state.icr),
            _ => self.read(now, number).map(u64::from).ok_or(GeneralProtection),
        }
    }

    /// WRMSR of register `number` in x2APIC mode.
    ///
    /// # Errors
    /// [`GeneralProtection`] when the APIC is not in x2APIC mode, the register cannot be written, or reserved
    /// bits are set.
    pub fn msr_write(
        &mut self,
        now: VmTime,
        number: u32,
        value: u64,
        out: &mut Vec<LapicOutput>,
    ) -> Result<(), GeneralProtection> {
        let low = value as u32;
        let reserved = match number {
            reg::TPR | reg::SELF_IPI => !0xFF,
            reg::EOI | reg::ESR => !0,
            reg::SVR => !0x3FF,
            reg::ICR => !0xFFFF_FFFF_000C_DFFF,
            reg::LVT_TIMER..=reg::LVT_ERROR => {
                !u64::from(LVT_WRITABLE[(number - reg::LVT_TIMER) as usize] | 1 << 12 | lvt::REMOTE_IRR)
            }
            reg::DIVIDE => !0xB,
            reg::INITIAL_COUNT => !0xFFFF_FFFF,
            _ => return Err(GeneralProtection),
        };
        if !self.is_x2apic() || value & reserved != 0 {
            return Err(GeneralProtection);
        }
        match number {
            reg::ICR => {
                self.state.icr = value;
                self.send_ipi(out);
            }
            reg::SELF_IPI => {
                // The ICR keeps what it holds.
                let icr = core::mem::replace(&mut self.state.icr, 0x4_0000 | value);
                self.send_ipi(out);
                self.state.icr = icr;
            }
            _ => {
                self.write(now, number, low, out);
            }
        }
        Ok(())
    }

    /// Whether a write to register `number` would end an interrupt or unmask one.
    pub fn would_unmask_or_eoi(&self, number: u32, value: u32) -> bool {
        match number {
            reg::EOI => true,
            reg::SVR => value & 0x100 != 0 && !self.is_software_enabled(),
            0x35 | 0x36 => value & lvt::MASKED == 0,
            _ => false,
        }
    }

    /// Registers that read alike through both doors.
    fn read(&self, now: VmTime, number: u32) -> Option<u32> {
        let s = &self.state;
        Some(match number {
            reg::VERSION => VERSION,
            reg::TPR => u32::from(s.tpr),
            reg::PPR => u32::from(self.ppr()),
            reg::SVR => s.svr,
            reg::ISR..reg::TMR => s.isr[(number - reg::ISR) as usize],
            reg::TMR..reg::IRR => s.tmr[(number - reg::TMR) as usize],
            reg::IRR..reg::ESR => s.irr[(number - reg::IRR) as usize],
            reg::ESR => s.esr,
            reg::ICR => s.icr as u32,
            reg::LVT_TIMER..=reg::LVT_ERROR => s.lvt[(number - reg::LVT_TIMER) as usize],
            reg::INITIAL_COUNT => self.initial_count(),
            reg::CURRENT_COUNT => self.current_count(now),
            reg::DIVIDE => self.divide(),
            _ => return None,
        })
    }

    /// Registers that are written alike through both doors. Gives whether there is such a register.
    fn write(&mut self, now: VmTime, number: u32, value: u32, out: &mut Vec<LapicOutput>) -> bool {
        match number {
            reg::TPR => self.state.tpr = value as u8,
            reg::EOI => self.end_of_interrupt(out),
            reg::SVR => {
                self.state.svr = value & 0x3FF;
                if !self.is_software_enabled() {
                    for entry in &mut self.state.lvt {
                        *entry |= lvt::MASKED;
                    }
                }
            }
            reg::ESR => self.state.esr = core::mem::take(&mut self.state.esr_pending),
            reg::LVT_TIMER..=reg::LVT_ERROR => {
                self.write_lvt(now, (number - reg::LVT_TIMER) as usize, value, out);
            }
            reg::INITIAL_COUNT => self.set_initial_count(now, value),
            reg::DIVIDE => self.set_divide(now, value),
            _ => return false,
        }
        true
    }

    fn write_lvt(&mut self, now: VmTime, index: usize, value: u32, out: &mut Vec<LapicOutput>) {
        let mut value = value & LVT_WRITABLE[index];
        if !self.is_software_enabled() {
            value |= lvt::MASKED;
        }
        match index {
            lvt::TIMER => self.set_timer_lvt(now, value),
            lvt::LINT0 | lvt::LINT1 => {
                let mut keep = self.state.lvt[index] & lvt::REMOTE_IRR;
                if value & lvt::LEVEL == 0 {
                    keep = 0;
                }
                self.state.lvt[index] = value | keep;
                self.service_lint(index - lvt::LINT0, false, out);
            }
            lvt::THERMAL | lvt::PERFORMANCE | lvt::ERROR => self.state.lvt[index] = value,
            _ => {}
        }
    }
}
