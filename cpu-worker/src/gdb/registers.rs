//! The values of the registers that gdb is told of.
//!
//! What a program would have to do with care is done here as the processor does it: control registers and MSRs go by the code of MOV and
//! WRMSR with its checks, so that no write leaves a state that no guest could reach. What cannot be written says so, unless it would
//! not change.

use super::layout::{Layout, Place, layout};
use crate::cpuid::Feature;
use crate::exec::Vcpu;
use crate::fp::F80;
use crate::mmu::canonical;
use crate::state::{Flag, Flags, Xmm, gpr, seg};

/// A register could not be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the processor does not take that value")]
pub(super) struct Refused;

impl Vcpu {
    /// The registers of this model.
    pub(super) fn layout(&self) -> &'static Layout {
        layout(self.model.has(Feature::Lm))
    }

    /// A register's value.
    pub(super) fn remote_register(&mut self, place: Place) -> u128 {
        let s = &self.state;
        u128::from(match place {
            Place::General(n) => s.regs[n],
            Place::Rip => s.rip(),
            Place::Flags => s.flags.bits(),
            Place::Selector(n) => s.segs[n].selector.into(),
            Place::Base(n) => s.segs[n].base,
            Place::Limit(n) => s.segs[n].limit.into(),
            Place::Rights(n) => s.segs[n].attr.0.into(),
            Place::Stack(n) => {
                let r = s.fpu.registers[s.fpu.index(n)];
                return u128::from(r.mantissa) | u128::from(r.sign_exponent) << 64;
            }
            Place::X87(n) => match n {
                0 => s.fpu.control.into(),
                1 => s.fpu.status_word().into(),
                2 => s.fpu.tag_word().into(),
                3 => s.fpu.instruction_selector.into(),
                4 => s.fpu.instruction_pointer,
                5 => s.fpu.data_selector.into(),
                6 => s.fpu.data_pointer,
                _ => s.fpu.opcode.into(),
            },
            Place::Xmm(n) => return s.xmm[n].to_u128(),
            Place::Mxcsr => s.mxcsr.into(),
            Place::Control(0) => s.cr0.bits(),
            Place::Control(2) => s.cr2,
            Place::Control(3) => s.cr3,
            Place::Control(4) => s.cr4.bits(),
            Place::Control(_) => self.bus.cr8(),
            Place::Debug(n) => s.dr[n],
            Place::TableBase(false) => s.gdtr.base,
            Place::TableBase(true) => s.idtr.base,
            Place::TableLimit(false) => s.gdtr.limit.into(),
            Place::TableLimit(true) => s.idtr.limit.into(),
            // One that this model does not have reads as 0.
            Place::Msr(index) => self.msr(index).unwrap_or(0),
        })
    }

    /// Writes a register, in the width that it is shown in.
    pub(super) fn set_remote_register(
        &mut self,
        place: Place,
        bytes: usize,
        value: u128,
    ) -> Result<(), Refused> {
        let mask = u128::MAX >> (128 - 8 * bytes);
        if self.remote_register(place) & mask == value & mask {
            return Ok(());
        }
        let taken = self.write_register(place, value & mask);
        self.refresh_mode();
        self.refresh_x87();
        if taken { Ok(()) } else { Err(Refused) }
    }

    fn write_register(&mut self, place: Place, value: u128) -> bool {
        let v = value as u64;
        let s = &mut self.state;
        match place {
            Place::General(n) => s.regs[n] = v,
            Place::Rip => s.regs[crate::state::RIP] = v,
            Place::Flags => {
                // VM86 is entered by IRET and task switches, which load segments too.
                let vm = 1 << Flag::Vm as u8;
                s.flags = Flags::from_bits(v & !vm | s.flags.bits() & vm);
            }
            Place::Selector(n) => return self.write_selector(n, v as u16),
            Place::Base(n) if n == seg::FS || n == seg::GS => {
                if !canonical(v) {
                    return false;
                }
                s.segs[n].base = v;
            }
            Place::Stack(n) => {
                let at = s.fpu.index(n);
                s.fpu.registers[at] = F80::new((value >> 64) as u16, v);
            }
            Place::X87(n) => match n {
                0 => s.fpu.set_control(v as u16),
                1 => s.fpu.set_status_word(v as u16),
                2 => s.fpu.set_tag_word(v as u16),
                3 => s.fpu.instruction_selector = v as u16,
                4 => s.fpu.instruction_pointer = v,
                5 => s.fpu.data_selector = v as u16,
                6 => s.fpu.data_pointer = v,
                _ => s.fpu.opcode = v as u16 & 0x7FF,
            },
            Place::Xmm(n) => s.xmm[n] = Xmm::from_u128(value),
            Place::Mxcsr => s.mxcsr = v as u32 & 0xFFFF,
            Place::Control(0) => return self.write_cr0(v).is_ok(),
            Place::Control(2) => s.cr2 = v,
            Place::Control(3) => return self.set_cr3(v).is_ok(),
            Place::Control(4) => return self.write_cr4(v).is_ok(),
            Place::Control(_) => {
                if v > 15 {
                    return false;
                }
                let effects = self.bus.set_cr8(v);
                self.apply(effects);
            }
            // Bits that are always set, and none above bit 31 (SDM vol. 3, figure 17-1).
            Place::Debug(6) => s.dr[6] = v & 0x1_E00F | 0xFFFE_0FF0,
            Place::Debug(7) => s.dr[7] = v & 0xFFFF_27FF | 0x400,
            Place::Debug(n) => s.dr[n] = v,
            Place::TableBase(idt) => {
                if !canonical(v) {
                    return false;
                }
                (if idt { &mut s.idtr } else { &mut s.gdtr }).base = v;
            }
            Place::TableLimit(idt) => (if idt { &mut s.idtr } else { &mut s.gdtr }).limit = v as u16,
            Place::Msr(index) => return self.set_msr(index, v).is_some(),
            Place::Base(_) | Place::Limit(_) | Place::Rights(_) => return false,
        }
        true
    }

    /// Loads a segment register as MOV does. In protected mode CS is loaded by jumps alone, LDTR and TR by their own
    /// instructions, and none of them here.
    fn write_selector(&mut self, n: usize, selector: u16) -> bool {
        if n >= seg::LDTR || n == seg::CS && !self.state.real_segments() {
            return false;
        }
        self.load_segment(n, selector).is_ok()
    }

    /// Register `number` as gdb wants it; `None` for one that does not exist.
    pub(super) fn read_number(&mut self, number: usize) -> Option<Vec<u8>> {
        let r = self.layout().registers.get(number)?;
        let value = self.remote_register(r.place).to_le_bytes();
        Some(value[..r.bytes].to_vec())
    }

    /// All registers, one after another.
    pub(super) fn read_all(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        for r in &self.layout().registers {
            all.extend_from_slice(&self.remote_register(r.place).to_le_bytes()[..r.bytes]);
        }
        all
    }

    /// Writes register `number`.
    pub(super) fn write_number(&mut self, number: usize, bytes: &[u8]) -> Result<(), Refused> {
        let r = self.layout().registers.get(number).ok_or(Refused)?;
        if bytes.len() != r.bytes {
            return Err(Refused);
        }
        let mut value = [0; 16];
        value[..r.bytes].copy_from_slice(bytes);
        self.set_remote_register(r.place, r.bytes, u128::from_le_bytes(value))
    }

    /// Writes as many registers as `bytes` has, in their order; the first that is refused ends it.
    pub(super) fn write_all(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        let mut rest = bytes;
        for (n, r) in self.layout().registers.iter().enumerate() {
            let Some((value, more)) = rest.split_at_checked(r.bytes) else {
                break;
            };
            self.write_number(n, value)?;
            rest = more;
        }
        Ok(())
    }

    /// RSP, for messages.
    pub(super) fn stack_pointer(&self) -> u64 {
        self.state.regs[gpr::RSP]
    }
}
