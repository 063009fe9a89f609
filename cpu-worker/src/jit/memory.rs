//! Guest memory from translated code: the look into the TLB, and the address behind it.
//!
//! The tag compared is that of the last byte's page in the slot of the first byte's, so one comparison also refuses
//! accesses that cross a page (and, where asked, misaligned ones). Whatever is refused is executed by the
//! interpreter's handler, which walks the page tables, fills the TLB, and faults as it must.

use core::mem::offset_of;

use iced_x86::{Code, Instruction, MemoryOperand, Register};

use super::abi::{self, ADDR32, RAX, RCX};
use super::asm::{at, frame, frame_at};
use super::translate::{Block, Unsupported};
use crate::exec::{Frame, ModeKey, TLB_ENTRIES, TlbEntry};
use crate::state::{CodeSize, seg};

/// What an access wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Want {
    /// Bytes, 1 to 16.
    pub bytes: usize,
    /// Whether it writes (and perhaps reads).
    pub write: bool,
    /// Whether it must be aligned to its size.
    pub aligned: bool,
}

impl Want {
    /// A read of `bytes`.
    pub fn read(bytes: usize) -> Self {
        Self {
            bytes,
            write: false,
            aligned: false,
        }
    }

    /// A write of `bytes`.
    pub fn write(bytes: usize) -> Self {
        Self {
            bytes,
            write: true,
            aligned: false,
        }
    }
}

/// A guest address as the guest names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Address {
    /// Guest register number.
    pub base: Option<usize>,
    /// Guest register number, and the scale.
    pub index: Option<(usize, u32)>,
    /// Displacement; for RIP-relative and absolute operands the whole address.
    pub disp: i64,
    /// FS or GS; in segmented code, which segment it is.
    pub segment: Option<usize>,
    /// Offsets have 16 bits.
    pub short: bool,
}

impl Address {
    /// The memory operand of `i`, which lies at `rip`.
    pub fn of(i: &Instruction, mode: &ModeKey) -> Result<Self, Unsupported> {
        let segment = match i.memory_segment() {
            Register::FS => Some(seg::FS),
            Register::GS => Some(seg::GS),
            // iced numbers the segment registers as the architecture does.
            r if !mode.flat => Some(r.number()),
            // A flat code segment is as long as the others, but nobody writes to it, and not every one can be read: for the handler.
            Register::CS if mode.code != CodeSize::Bits64 => return Err(Unsupported),
            _ => None,
        };
        let bytes = if mode.code == CodeSize::Bits64 { 8 } else { 4 };
        let disp = i.memory_displacement64() as i64;
        if i.is_ip_rel_memory_operand() {
            if i.memory_base() != Register::RIP {
                return Err(Unsupported);
            }
            return Ok(Self {
                base: None,
                index: None,
                disp,
                segment,
                short: false,
            });
        }
        let (base, index) = (i.memory_base(), i.memory_index());
        let absolute = base == Register::None && index == Register::None;
        let size = match (base, index) {
            (Register::None, Register::None) if i.memory_displ_size() != 0 => i.memory_displ_size() as usize,
            (Register::None, Register::None) => bytes,
            (Register::None, r) | (r, _) => r.size(),
        };
        let short = !mode.flat && size == 2;
        let number = |r: Register| match r {
            Register::None => Ok(None),
            r if r.is_gpr() && (r.size() == bytes || short && r.size() == 2) => Ok(Some(r.number())),
            _ => Err(Unsupported),
        };
        let a = Self {
            base: number(base)?,
            index: number(index)?.map(|n| (n, i.memory_index_scale())),
            disp: match bytes {
                _ if short => disp & 0xFFFF,
                4 => i64::from(disp as i32),
                _ => disp,
            },
            segment,
            short,
        };
        // Absolute 32-bit addresses of 64-bit code, and 16-bit ones of flat 32-bit code, are for the handler.
        if absolute && bytes == 4 && size != bytes && !short {
            return Err(Unsupported);
        }
        Ok(a)
    }

    /// `[base + disp]` by guest register number.
    pub fn based(base: usize, disp: i64) -> Self {
        Self {
            base: Some(base),
            index: None,
            disp,
            segment: None,
            short: false,
        }
    }

    fn constant(&self) -> bool {
        self.base.is_none() && self.index.is_none() && self.segment.is_none()
    }
}

impl Block<'_> {
    /// Emits the look into the TLB for `address`, which [`Self::probe`] makes but for groups; what fails it goes to `miss`. Gives the operand to access, which uses
    /// RCX (and, in 32-bit code, the third scratch register). RAX is free afterwards; the host's flags are spoiled, so the
    /// caller has seen to them.
    pub(super) fn look(
        &mut self,
        address: &Address,
        want: Want,
        miss: super::asm::Label,
    ) -> Result<MemoryOperand, Unsupported> {
        if address.constant() {
            return self.probe_constant(address.disp, want, miss);
        }
        if self.mode.code == CodeSize::Bits64 {
            self.probe64(address, want, miss)
        } else {
            self.probe32(address, want, miss)
        }
    }

    fn table(&self, write: bool) -> usize {
        let table = if write {
            offset_of!(Frame, write)
        } else {
            offset_of!(Frame, read)
        };
        table + self.mode.index as usize * TLB_ENTRIES * size_of::<TlbEntry>()
    }

    /// RCX := the displacement of the slot of the address in `from`.
    fn slot(&mut self) {
        const SHIFT: i32 = 12 - size_of::<TlbEntry>().trailing_zeros() as i32;
        self.asm.ri(Code::Shr_rm32_imm8, Register::ECX, SHIFT);
        self.asm.ri(
            Code::And_rm32_imm32,
            Register::ECX,
            ((TLB_ENTRIES - 1) * size_of::<TlbEntry>()) as i32,
        );
    }

    /// What is added to an address before the page is taken: the last byte of an unaligned access.
    fn reach(want: Want) -> i64 {
        if want.aligned { 0 } else { want.bytes as i64 - 1 }
    }

    fn page_mask(want: Want) -> i32 {
        if want.aligned {
            -4096 | (want.bytes as i32 - 1)
        } else {
            -4096
        }
    }

    /// Compares the tag in RAX with the entry RCX names; RCX := its addend.
    fn compare(&mut self, want: Want, miss: super::asm::Label) {
        let table = self.table(want.write);
        self.asm.rm(
            Code::Cmp_r64_rm64,
            RAX,
            frame_at(RCX, table + offset_of!(TlbEntry, tag)),
        );
        self.asm.branch(Code::Jne_rel32_64, miss);
        self.asm.rm(
            Code::Mov_r64_rm64,
            RCX,
            frame_at(RCX, table + offset_of!(TlbEntry, addend)),
        );
    }

    fn probe_constant(
        &mut self,
        linear: i64,
        want: Want,
        miss: super::asm::Label,
    ) -> Result<MemoryOperand, Unsupported> {
        let linear = if self.mode.code == CodeSize::Bits64 {
            linear as u64
        } else {
            linear as u64 & 0xFFFF_FFFF
        };
        let last = linear.wrapping_add(want.bytes as u64 - 1);
        let misaligned = want.aligned && !linear.is_multiple_of(want.bytes as u64);
        if (last ^ linear) & !0xFFF != 0 || misaligned {
            return Err(Unsupported);
        }
        let entry = self.table(want.write) + Frame::tlb_slot(linear) * size_of::<TlbEntry>();
        let page = linear & !0xFFF;
        let tag = frame(entry + offset_of!(TlbEntry, tag));
        if page as i64 == i64::from(page as i32) {
            self.asm.mi(Code::Cmp_rm64_imm32, tag, page as i32);
        } else {
            self.asm.constant(RAX, page);
            self.asm.rm(Code::Cmp_r64_rm64, RAX, tag);
        }
        self.asm.branch(Code::Jne_rel32_64, miss);
        self.asm.rm(
            Code::Mov_r64_rm64,
            RCX,
            frame(entry + offset_of!(TlbEntry, addend)),
        );
        if linear as i64 == i64::from(linear as i32) {
            Ok(at(RCX, linear as i64))
        } else {
            self.asm.constant(RAX, linear);
            self.asm.rr(Code::Add_r64_rm64, RCX, RAX);
            Ok(at(RCX, 0))
        }
    }

    /// The 64-bit host register of guest register `n`, loaded into `scratch` when it lives in the frame.
    fn loaded(&mut self, n: usize, scratch: Register) -> Register {
        abi::host(n).unwrap_or_else(|| {
            self.asm.load_home(scratch, n);
            scratch
        })
    }

    /// `dst := address + add`. May spoil RAX and RCX.
    fn linear(&mut self, dst: Register, address: &Address, add: i64) -> Result<(), Unsupported> {
        let disp = address.disp + add;
        if disp != i64::from(disp as i32) {
            return Err(Unsupported);
        }
        let base = address.base.map(|n| self.loaded(n, RAX));
        let index = address.index.map(|(n, s)| (self.loaded(n, RCX), s));
        if disp == 0 && index.is_none() && address.segment.is_none() {
            let base = base.ok_or(Unsupported)?;
            if base != dst {
                self.asm.rr(Code::Mov_r64_rm64, dst, base);
            }
            return Ok(());
        }
        let m = MemoryOperand::new(
            base.unwrap_or(Register::None),
            index.map_or(Register::None, |(r, _)| r),
            index.map_or(1, |(_, s)| s),
            disp,
            if disp == 0 && base.is_some() {
                0
            } else if base.is_some() {
                1
            } else {
                8
            },
            false,
            Register::None,
        );
        if base.is_none() && index.is_none() {
            self.asm.constant(dst, disp as u64);
        } else {
            self.asm.rm(Code::Lea_r64_m, dst, m);
        }
        if let Some(s) = address.segment {
            self.asm
                .rm(Code::Add_r64_rm64, dst, frame(offset_of!(Frame, bases) + s * 8));
        }
        Ok(())
    }

    fn probe64(
        &mut self,
        address: &Address,
        want: Want,
        miss: super::asm::Label,
    ) -> Result<MemoryOperand, Unsupported> {
        // A plain base register needs no linear address of its own.
        let simple = match address {
            Address {
                base: Some(n),
                index: None,
                segment: None,
                ..
            } => abi::host(*n).filter(|_| address.disp == i64::from(address.disp as i32)),
            _ => None,
        };
        self.linear(RCX, address, 0)?;
        self.slot();
        self.linear_for_tag(address, want)?;
        self.asm.ri(Code::And_rm64_imm32, RAX, Self::page_mask(want));
        self.compare(want, miss);
        if let Some(base) = simple {
            return Ok(MemoryOperand::new(
                base,
                RCX,
                1,
                address.disp,
                u32::from(address.disp != 0),
                false,
                Register::None,
            ));
        }
        // Folds everything but an index in a host register into RCX.
        if let Some(s) = address.segment {
            self.asm
                .rm(Code::Add_r64_rm64, RCX, frame(offset_of!(Frame, bases) + s * 8));
        }
        if let Some(n) = address.base {
            let base = self.loaded(n, RAX);
            self.asm.rr(Code::Add_r64_rm64, RCX, base);
        }
        let Some((n, scale)) = address.index else {
            return Ok(at(RCX, address.disp));
        };
        match abi::host(n) {
            Some(index) => Ok(MemoryOperand::new(
                RCX,
                index,
                scale,
                address.disp,
                u32::from(address.disp != 0),
                false,
                Register::None,
            )),
            None => {
                self.asm.rm(Code::Mov_r64_rm64, RAX, frame(abi::home(n)));
                let m = MemoryOperand::new(RCX, RAX, scale, 0, 0, false, Register::None);
                self.asm.rm(Code::Lea_r64_m, RCX, m);
                Ok(at(RCX, address.disp))
            }
        }
    }

    /// RAX := address of the byte whose page is the tag. RCX holds the slot and must stay.
    fn linear_for_tag(&mut self, address: &Address, want: Want) -> Result<(), Unsupported> {
        let homed = address.index.is_some_and(|(n, _)| abi::host(n).is_none());
        if !homed {
            return self.linear(RAX, address, Self::reach(want));
        }
        // The index has no register but RAX: scale it there, then add the rest.
        let (n, scale) = address.index.ok_or(Unsupported)?;
        let disp = address.disp + Self::reach(want);
        if disp != i64::from(disp as i32) {
            return Err(Unsupported);
        }
        self.asm.rm(Code::Mov_r64_rm64, RAX, frame(abi::home(n)));
        let m = MemoryOperand::new(Register::None, RAX, scale, disp, 8, false, Register::None);
        self.asm.rm(Code::Lea_r64_m, RAX, m);
        if let Some(b) = address.base {
            match abi::host(b) {
                Some(r) => self.asm.rr(Code::Add_r64_rm64, RAX, r),
                None => self.asm.rm(Code::Add_r64_rm64, RAX, frame(abi::home(b))),
            }
        }
        if let Some(s) = address.segment {
            self.asm
                .rm(Code::Add_r64_rm64, RAX, frame(offset_of!(Frame, bases) + s * 8));
        }
        Ok(())
    }

    fn probe32(
        &mut self,
        address: &Address,
        want: Want,
        miss: super::asm::Label,
    ) -> Result<MemoryOperand, Unsupported> {
        self.offset32(address)?;
        if let Some(s) = address.segment {
            if !self.mode.flat {
                self.within(s, want, miss);
            }
            self.add_base(s);
        }
        self.asm
            .rr(Code::Mov_r32_rm32, Register::ECX, ADDR32.full_register32());
        self.slot();
        let reach = Self::reach(want);
        if reach == 0 {
            self.asm
                .rr(Code::Mov_r32_rm32, Register::EAX, ADDR32.full_register32());
        } else {
            self.asm.rm(Code::Lea_r64_m, RAX, at(ADDR32, reach));
        }
        self.asm.ri(Code::And_rm64_imm32, RAX, Self::page_mask(want));
        self.compare(want, miss);
        Ok(MemoryOperand::new(RCX, ADDR32, 1, 0, 0, false, Register::None))
    }

    /// To `miss` unless an access at the offset in the third scratch register lies in segment `s`. What wraps around does not.
    fn within(&mut self, s: usize, want: Want, miss: super::asm::Label) {
        let limits = if want.write {
            offset_of!(Frame, writable)
        } else {
            offset_of!(Frame, readable)
        };
        self.asm
            .rm(Code::Lea_r64_m, RAX, at(ADDR32, want.bytes as i64 - 1));
        self.asm.rm(Code::Cmp_r64_rm64, RAX, frame(limits + s * 8));
        self.asm.branch(Code::Jg_rel32_64, miss);
    }

    /// Adds the base of segment `s` to the offset in the third scratch register.
    fn add_base(&mut self, s: usize) {
        let base = frame(abi::frame_base(s));
        self.asm.rm(Code::Add_r32_rm32, ADDR32.full_register32(), base);
    }

    /// The third scratch register := the offset in its segment, in 16- and 32-bit code.
    fn offset32(&mut self, address: &Address) -> Result<(), Unsupported> {
        let host = |n: usize| abi::host(n).ok_or(Unsupported);
        let base = address.base.map(host).transpose()?;
        let index = address.index.map(|(n, s)| host(n).map(|r| (r, s))).transpose()?;
        let addr = ADDR32.full_register32();
        if base.is_none() && index.is_none() {
            self.asm.constant(ADDR32, address.disp as u64 & 0xFFFF_FFFF);
        } else {
            let m = MemoryOperand::new(
                base.unwrap_or(Register::None),
                index.map_or(Register::None, |(r, _)| r),
                index.map_or(1, |(_, s)| s),
                address.disp,
                if base.is_none() {
                    8
                } else {
                    u32::from(address.disp != 0)
                },
                false,
                Register::None,
            );
            self.asm.rm(Code::Lea_r32_m, addr, m);
        }
        if address.short {
            // Beside the sum of whole registers, that of their lower halves.
            self.asm.rr(Code::Movzx_r32_rm16, addr, abi::sized(ADDR32, 2));
        }
        Ok(())
    }

    /// Computes `address` and gives the register that it is in. Spoils RAX, RCX and the host's flags.
    pub(super) fn linear_of(&mut self, address: &Address) -> Result<Register, Unsupported> {
        let wide = self.mode.code == CodeSize::Bits64;
        if address.constant() {
            let linear = address.disp as u64;
            self.asm
                .constant(RCX, if wide { linear } else { linear & 0xFFFF_FFFF });
            Ok(RCX)
        } else if wide {
            self.linear(RCX, address, 0)?;
            Ok(RCX)
        } else {
            debug_assert!(self.mode.flat, "segments have limits");
            self.offset32(address)?;
            if let Some(s) = address.segment {
                self.add_base(s);
            }
            Ok(ADDR32)
        }
    }

    /// Compares the tag for an access from the address in RCX to the one in RAX; RCX := the entry's addend.
    pub(super) fn compare_at(&mut self, want: Want, miss: super::asm::Label) {
        self.slot();
        self.asm.ri(Code::And_rm64_imm32, RAX, Self::page_mask(want));
        self.compare(want, miss);
    }
}

impl Block<'_> {
    /// LEA of `bytes` into `dst`, whose register is written as the guest's instruction does. Spoils RAX and RCX.
    pub(super) fn lea_into(
        &mut self,
        dst: Register,
        address: &Address,
        bytes: usize,
    ) -> Result<(), Unsupported> {
        let sized = abi::sized(dst, bytes);
        if address.base.is_none() && address.index.is_none() {
            if bytes < 4 {
                return Err(Unsupported);
            }
            let value = address.disp as u64;
            self.asm
                .constant(dst, if bytes == 4 { value & 0xFFFF_FFFF } else { value });
            return Ok(());
        }
        if address.disp != i64::from(address.disp as i32) {
            return Err(Unsupported);
        }
        let base = address.base.map(|n| self.loaded(n, RAX));
        let index = address.index.map(|(n, s)| (self.loaded(n, RCX), s));
        let m = MemoryOperand::new(
            base.unwrap_or(Register::None),
            index.map_or(Register::None, |(r, _)| r),
            index.map_or(1, |(_, s)| s),
            address.disp,
            if base.is_none() {
                8
            } else {
                u32::from(address.disp != 0)
            },
            false,
            Register::None,
        );
        let code = match bytes {
            2 => Code::Lea_r16_m,
            4 => Code::Lea_r32_m,
            _ => Code::Lea_r64_m,
        };
        self.asm.rm(code, sized, m);
        if address.short && bytes == 4 {
            self.asm.rr(Code::Movzx_r32_rm16, sized, abi::sized(dst, 2));
        }
        Ok(())
    }
}

/// Replaces the memory operand of `i`.
pub(super) fn set_operand(i: &mut Instruction, m: &MemoryOperand) {
    i.set_memory_base(m.base);
    i.set_memory_index(m.index);
    i.set_memory_index_scale(m.scale);
    i.set_memory_displacement64(m.displacement as u64);
    i.set_memory_displ_size(m.displ_size);
    i.set_segment_prefix(m.segment_prefix);
}
