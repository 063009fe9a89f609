//! What accesses meet: ports, memory windows and model-specific registers, handed to the devices.

use quintet_protocol::addr::GuestPhys;
use quintet_protocol::time::VmTime;

use super::acpi_pm::{self, AcpiPm};
use super::hpet::{HPET_BASE, HPET_LEN};
use super::ioapic::{IOAPIC_BASE, IOAPIC_LEN};
use super::lapic::GeneralProtection;
use super::pic::Pic;
use super::pit::Pit;
use super::reset::ResetAction;
use super::wires::WireSource;
use super::{CoreComplex, CoreEvent, Effects, ResetCause};

const MSR_TSC: u32 = 0x10;
const MSR_APIC_BASE: u32 = 0x1B;
const MSR_TSC_ADJUST: u32 = 0x3B;
const MSR_TSC_DEADLINE: u32 = 0x6E0;
const MSR_X2APIC: core::ops::RangeInclusive<u32> = 0x800..=0x8FF;

/// Where a write goes, for [`CoreComplex::would_unmask_or_eoi`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// An I/O port.
    Port(u16),
    /// A guest physical address.
    Mmio(GuestPhys),
    /// A model-specific register.
    Msr(u32),
}

/// Which window an address lies in, and where.
enum Window {
    Lapic(u64),
    IoApic(u64),
    Hpet(u64),
}

impl CoreComplex {
    /// Whether an access of `size` bytes, 1, 2 or 4, to `port` is answered here.
    pub fn claims_port(&self, port: u16, size: u8) -> bool {
        match port {
            0x92 | 0xCF9 => size == 1,
            0xCF8 => size == 4,
            0x70 | 0x71 => true,
            _ => Pic::claims(port) || Pit::claims(port) || self.pm.claims(port),
        }
    }

    /// Whether the ACPI block answers: a PMBASE moved over another device of the complex loses.
    fn is_pm(&self, port: u16) -> bool {
        self.pm.claims(port) && !Pic::claims(port) && !Pit::claims(port) && !matches!(port, 0x70 | 0x71)
    }

    /// Reads `size` bytes, 1, 2 or 4, from `port`; `None` when the access is not answered here.
    pub fn port_read(&mut self, now: VmTime, port: u16, size: u8) -> Option<u32> {
        if !self.claims_port(port, size) {
            return None;
        }
        self.catch_up(now);
        if matches!(port, 0x92 | 0xCF8 | 0xCF9) {
            return self.reset.read(port, size);
        }
        if self.is_pm(port) {
            let value = self.pm.read(now, port, size);
            self.refresh(now);
            return Some(value);
        }
        // Byte-wide devices: a wide access is one of each port in turn.
        let bytes = (0..u16::from(size)).map(|i| (i, self.read_byte(now, port.wrapping_add(i))));
        let value = bytes.fold(0, |value, (i, byte)| value | u32::from(byte) << (8 * i));
        self.refresh(now);
        Some(value)
    }

    fn read_byte(&mut self, now: VmTime, port: u16) -> u8 {
        match port {
            0x70 | 0x71 => {
                let value = self.rtc.read(now, port);
                // Reading register C lowers the wire; a tick that is owed raises it anew.
                let level = self.rtc.irq() && !self.hpet.is_legacy();
                self.set_wire(8, WireSource::Rtc, level);
                self.rtc.advance(now);
                value
            }
            _ if Pic::claims(port) => self.pic.read(port),
            _ if Pit::claims(port) => self.pit.read(now, port),
            _ => 0xFF,
        }
    }

    /// Writes `size` bytes, 1, 2 or 4, to `port`; `None` when the access is not answered here.
    pub fn port_write(&mut self, now: VmTime, port: u16, value: u32, size: u8) -> Option<Effects> {
        if !self.claims_port(port, size) {
            return None;
        }
        self.catch_up(now);
        let before = self.deadline;
        let mut view = Effects::empty();
        if matches!(port, 0x92 | 0xCF8 | 0xCF9) {
            for action in self.reset.write(port, value, size)? {
                let event = match action {
                    ResetAction::A20(open) => {
                        view = Effects::VIEW;
                        CoreEvent::A20(open)
                    }
                    ResetAction::Init if port == 0x92 => CoreEvent::Reset(ResetCause::Port92),
                    ResetAction::Init => CoreEvent::Reset(ResetCause::Cf9Soft),
                    ResetAction::Hard => CoreEvent::Reset(ResetCause::Cf9Hard),
                };
                self.events.push_back(event);
            }
        } else if self.is_pm(port) {
            if self.pm.write(now, port, value, size) == Some(acpi_pm::SLP_TYP_S5) {
                self.events.push_back(CoreEvent::PowerOff);
            }
        } else {
            for i in 0..u16::from(size) {
                self.write_byte(now, port.wrapping_add(i), (value >> (8 * i)) as u8);
            }
        }
        self.refresh(now);
        Some(self.effects(before) | view)
    }

    fn write_byte(&mut self, now: VmTime, port: u16, value: u8) {
        match port {
            0x70 | 0x71 => self.rtc.write(now, port, value),
            _ if Pic::claims(port) => self.pic.write(port, value),
            _ if Pit::claims(port) => self.pit.write(now, port, value),
            _ => {}
        }
    }

    fn window(&self, address: GuestPhys) -> Option<Window> {
        let within = |base: u64, len: u64| address.0.checked_sub(base).filter(|&offset| offset < len);
        if let Some(offset) = self.lapics[0].mmio_base().and_then(|base| within(base, 0x1000)) {
            return Some(Window::Lapic(offset));
        }
        within(IOAPIC_BASE, IOAPIC_LEN)
            .map(Window::IoApic)
            .or_else(|| within(HPET_BASE, HPET_LEN).map(Window::Hpet))
    }

    /// Reads `size` bytes, 1 to 8, from guest physical memory; `None` when it is not answered here. The
    /// access lies within one naturally aligned unit of its size.
    pub fn mmio_read(&mut self, now: VmTime, address: GuestPhys, size: u8) -> Option<u64> {
        let window = self.window(address)?;
        self.catch_up(now);
        let part = |word: u32, offset: u64| u64::from(word) >> (8 * (offset & 3));
        let value = match window {
            Window::Lapic(offset) => part(self.lapics[0].mmio_read(now, offset & !3), offset),
            Window::IoApic(offset) => part(self.ioapic.mmio_read(offset & !3), offset),
            Window::Hpet(offset) => self.hpet.mmio_read(now, offset, size),
        };
        Some(if size >= 8 {
            value
        } else {
            value & ((1 << (8 * size)) - 1)
        })
    }

    /// Writes `size` bytes, 1 to 8, to guest physical memory; `None` when it is not answered here. The
    /// APICs take 32-bit writes only (but for a byte to IOREGSEL), the HPET 32 and 64 bits; others are
    /// ignored.
    pub fn mmio_write(&mut self, now: VmTime, address: GuestPhys, size: u8, value: u64) -> Option<Effects> {
        let window = self.window(address)?;
        self.catch_up(now);
        let before = self.deadline;
        match window {
            Window::Lapic(offset) if size >= 4 && offset & 3 == 0 => {
                let mut out = Vec::new();
                self.lapics[0].advance(now, &self.tsc);
                self.lapics[0].mmio_write(now, offset, value as u32, &mut out);
                self.take_outputs(out.into_iter().map(|output| (0, output)).collect());
                self.retry_refused();
            }
            Window::IoApic(offset) if size >= 4 || offset & 0xFF == 0 => {
                self.ioapic.mmio_write(offset, value as u32, &mut self.messages);
            }
            Window::Hpet(offset) => {
                self.advance_hpet(now);
                self.hpet.mmio_write(now, offset, size, value);
                // A comparator set to a value just passed matches now.
                self.advance_hpet(now);
            }
            Window::Lapic(_) | Window::IoApic(_) => {}
        }
        self.refresh(now);
        Some(self.effects(before))
    }

    /// RDMSR of a register kept here: 10h, 1Bh, 3Bh, 6E0h, 800h to 8FFh; `None` for others.
    pub fn msr_read(&mut self, now: VmTime, msr: u32) -> Option<Result<u64, GeneralProtection>> {
        self.catch_up(now);
        let lapic = &self.lapics[0];
        Some(match msr {
            MSR_TSC => Ok(self.tsc.read(now)),
            MSR_APIC_BASE => Ok(lapic.apic_base()),
            MSR_TSC_ADJUST => Ok(self.tsc.adjust()),
            MSR_TSC_DEADLINE => Ok(lapic.tsc_deadline()),
            _ if MSR_X2APIC.contains(&msr) => lapic.msr_read(now, msr - MSR_X2APIC.start()),
            _ => return None,
        })
    }

    /// WRMSR of a register kept here; `None` for others.
    pub fn msr_write(
        &mut self,
        now: VmTime,
        msr: u32,
        value: u64,
    ) -> Option<Result<Effects, GeneralProtection>> {
        self.catch_up(now);
        let before = self.deadline;
        let mut out = Vec::new();
        let mut view = Effects::empty();
        self.lapics[0].advance(now, &self.tsc);
        let result = match msr {
            MSR_TSC => {
                self.tsc.write(now, value);
                Ok(())
            }
            MSR_APIC_BASE => {
                view = Effects::VIEW;
                self.lapics[0].set_apic_base(value)
            }
            MSR_TSC_ADJUST => {
                self.tsc.write_adjust(value);
                Ok(())
            }
            MSR_TSC_DEADLINE => {
                self.lapics[0].set_tsc_deadline(value);
                self.lapics[0].advance(now, &self.tsc);
                Ok(())
            }
            _ if MSR_X2APIC.contains(&msr) => {
                self.lapics[0].msr_write(now, msr - MSR_X2APIC.start(), value, &mut out)
            }
            _ => return None,
        };
        self.take_outputs(out.into_iter().map(|output| (0, output)).collect());
        self.retry_refused();
        self.refresh(now);
        Some(result.map(|()| self.effects(before) | view))
    }

    /// Whether a write would end an interrupt or unmask one. If also [`Self::is_io_level_high`], the vCPU
    /// drains its posted writes and samples the wires of io-worker again before it makes the write: else a
    /// device that has just been told to be quiet interrupts a second time.
    pub fn would_unmask_or_eoi(&self, access: Access, value: u64) -> bool {
        match access {
            Access::Port(port) => Pic::claims(port) && self.pic.would_unmask_or_eoi(port, value as u8),
            Access::Mmio(address) => match self.window(address) {
                Some(Window::Lapic(offset)) => {
                    self.lapics[0].would_unmask_or_eoi((offset >> 4) as u32, value as u32)
                }
                Some(Window::IoApic(offset)) => self.ioapic.would_unmask_or_eoi(offset, value as u32),
                Some(Window::Hpet(_)) | None => false,
            },
            Access::Msr(msr) => {
                MSR_X2APIC.contains(&msr)
                    && self.lapics[0].would_unmask_or_eoi(msr - MSR_X2APIC.start(), value as u32)
            }
        }
    }

    /// The power-management timer at `now`, 24 bits; for guests that poll it a direct way to the value.
    pub fn pm_timer(now: VmTime) -> u32 {
        AcpiPm::timer(now)
    }
}
