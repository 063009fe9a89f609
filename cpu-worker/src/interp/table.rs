//! LGDT, LIDT, SGDT, SIDT, LLDT, SLDT, LTR, STR, LMSW, SMSW, CLTS, MOV to and from control and debug registers,
//! INVLPG, WBINVD (SDM vol. 2).

use iced_x86::{Mnemonic, OpKind, Register};

use super::by_width;
use crate::except::{debug, selector_code};
use crate::exec::{Exit, Flow, Handler, Insn, Int, Op, Vcpu, Vector, flag};
use crate::mmu::canonical;
use crate::state::{Attr, CodeSize, Cr0, Cr4, DescriptorTable, Efer, seg};

impl Vcpu {
    /// #GP(0) unless at privilege level 0.
    pub(crate) fn ring0(&mut self) -> Flow {
        if self.state.cpl == 0 { Ok(()) } else { self.gp0() }
    }

    /// UMIP: SGDT, SIDT, SLDT, STR and SMSW are for level 0 only.
    fn user_mode_instruction(&mut self) -> Flow {
        if self.state.cr4.contains(Cr4::UMIP) && self.state.cpl > 0 {
            self.gp0()
        } else {
            Ok(())
        }
    }

    /// Loads CR3: flushes what is not global, and loads the PDPTEs when PAE paging is on.
    pub(crate) fn set_cr3(&mut self, value: u64) -> Flow {
        if self.pae_paging() {
            self.load_pdptes(value)?;
        }
        self.state.cr3 = value;
        self.tlb.flush_non_global();
        self.end_block();
        Ok(())
    }

    fn pae_paging(&self) -> bool {
        let s = &self.state;
        s.cr0.contains(Cr0::PG) && s.cr4.contains(Cr4::PAE) && !s.efer.contains(Efer::LME)
    }

    /// Reads the four PDPTEs that `cr3` points to; #GP when a present one has reserved bits set.
    pub(crate) fn load_pdptes(&mut self, cr3: u64) -> Flow {
        let base = cr3 & 0xFFFF_FFE0;
        let mut entries = [0; 4];
        for (n, e) in entries.iter_mut().enumerate() {
            *e = self.phys_read((base + 8 * n as u64) & self.state.a20_mask, 8);
            // Bits 1, 2, 5–8 and those above the physical-address width.
            if *e & 1 != 0 && *e & (0x1E6 | !0u64 << crate::mmu::MAXPHYADDR) != 0 {
                return self.gp0();
            }
        }
        self.state.pdptes = entries;
        Ok(())
    }

    /// MOV to CR0 (SDM vol. 3, 2.5 and 9.8.5).
    pub(crate) fn write_cr0(&mut self, value: u64) -> Flow {
        if value >> 32 != 0 {
            return self.gp0();
        }
        let new = Cr0::from_bits_truncate(value) | Cr0::ET;
        let old = self.state.cr0;
        if new.contains(Cr0::PG) && !new.contains(Cr0::PE) || new.contains(Cr0::NW) && !new.contains(Cr0::CD)
        {
            return self.gp0();
        }
        let paging_on = new.contains(Cr0::PG) && !old.contains(Cr0::PG);
        let paging_off = !new.contains(Cr0::PG) && old.contains(Cr0::PG);
        let lme = self.state.efer.contains(Efer::LME);
        if paging_on && lme && (!self.state.cr4.contains(Cr4::PAE) || self.state.segs[seg::CS].attr.long()) {
            return self.gp0();
        }
        if paging_off && self.code_size == CodeSize::Bits64 {
            return self.gp0();
        }
        if new.contains(Cr0::PG) && !lme && self.state.cr4.contains(Cr4::PAE) && paging_bits_changed(old, new)
        {
            let cr3 = self.state.cr3;
            self.load_pdptes(cr3)?;
        }
        if paging_on && lme {
            self.state.efer |= Efer::LMA;
        }
        if paging_off {
            self.state.efer -= Efer::LMA;
        }
        self.state.cr0 = new;
        if (old ^ new).intersects(Cr0::PG | Cr0::WP | Cr0::PE) {
            self.tlb.flush_all();
        }
        self.refresh_mode();
        self.end_block();
        Ok(())
    }

    /// MOV to CR4: #GP for bits that this model does not have.
    pub(crate) fn write_cr4(&mut self, value: u64) -> Flow {
        let supported = self.model.cr4_mask();
        let Some(new) = Cr4::from_bits(value).filter(|c| supported.contains(*c)) else {
            return self.gp0();
        };
        let old = self.state.cr4;
        if self.state.long_mode() && !new.contains(Cr4::PAE) {
            return self.gp0();
        }
        if self.state.cr0.contains(Cr0::PG)
            && !self.state.efer.contains(Efer::LME)
            && new.contains(Cr4::PAE)
            && (old ^ new).intersects(Cr4::PAE | Cr4::PGE | Cr4::PSE | Cr4::SMEP)
        {
            let cr3 = self.state.cr3;
            self.load_pdptes(cr3)?;
        }
        self.state.cr4 = new;
        if (old ^ new).intersects(Cr4::PAE | Cr4::PGE | Cr4::PSE | Cr4::SMEP | Cr4::SMAP | Cr4::PCIDE) {
            self.tlb.flush_all();
        }
        self.refresh_mode();
        self.end_block();
        Ok(())
    }

    /// A debug register as MOV reads it.
    fn debug_register(&mut self, n: u8) -> Result<usize, Exit> {
        match n {
            4 | 5 if self.state.cr4.contains(Cr4::DE) => self.ud(),
            4 | 5 => Ok(n as usize + 2),
            n => Ok(n as usize & 7),
        }
    }

    /// #DB when DR7.GD guards the debug registers.
    fn guard_debug(&mut self) -> Flow {
        if self.state.dr[7] & debug::GD != 0 {
            return self.debug_fault(debug::BD);
        }
        Ok(())
    }
}

fn paging_bits_changed(old: Cr0, new: Cr0) -> bool {
    (old ^ new).intersects(Cr0::PG | Cr0::CD | Cr0::NW)
}

fn load_table(cpu: &mut Vcpu, op: &Op) -> Result<DescriptorTable, Exit> {
    cpu.ring0()?;
    let long = op.has(flag::LONG);
    let linear = cpu.operand_linear(op, if long { 10 } else { 6 }, false)?;
    let limit = cpu.load_linear::<u16>(linear)?;
    let at = cpu.wrap_linear(linear.wrapping_add(2));
    let base = if long {
        cpu.load_linear::<u64>(at)?
    } else {
        let base = cpu.load_linear::<u32>(at)?;
        u64::from(if op.size == 2 { base & 0x00FF_FFFF } else { base })
    };
    if !canonical(base) {
        return cpu.gp0();
    }
    Ok(DescriptorTable { base, limit })
}

fn store_table(cpu: &mut Vcpu, op: &Op, table: DescriptorTable) -> Flow {
    cpu.user_mode_instruction()?;
    let long = op.has(flag::LONG);
    let len = if long { 10 } else { 6 };
    let linear = cpu.operand_linear(op, len, true)?;
    cpu.probe_write(linear, len)?;
    cpu.store_linear(linear, table.limit)?;
    let at = cpu.wrap_linear(linear.wrapping_add(2));
    if long {
        cpu.store_linear(at, table.base)
    } else {
        cpu.store_linear(at, table.base as u32)
    }
}

fn lgdt(cpu: &mut Vcpu, op: &Op) -> Flow {
    cpu.state.gdtr = load_table(cpu, op)?;
    Ok(())
}

fn lidt(cpu: &mut Vcpu, op: &Op) -> Flow {
    cpu.state.idtr = load_table(cpu, op)?;
    Ok(())
}

fn sgdt(cpu: &mut Vcpu, op: &Op) -> Flow {
    let table = cpu.state.gdtr;
    store_table(cpu, op, table)
}

fn sidt(cpu: &mut Vcpu, op: &Op) -> Flow {
    let table = cpu.state.idtr;
    store_table(cpu, op, table)
}

fn word_operand(cpu: &mut Vcpu, op: &Op) -> Result<u16, Exit> {
    if op.has(flag::MEM) {
        cpu.load::<u16>(op)
    } else {
        Ok(cpu.reg::<u16>(op.dst))
    }
}

/// Stores a system register's selector: memory gets a word, a register the operand size.
fn store_selector<T: Int>(cpu: &mut Vcpu, op: &Op, value: u64) -> Flow {
    if op.has(flag::MEM) {
        cpu.store(op, value as u16)
    } else {
        cpu.set_reg(op.dst, T::trunc(value));
        Ok(())
    }
}

fn protected_only(cpu: &mut Vcpu) -> Flow {
    if cpu.state.real_segments() {
        cpu.ud()
    } else {
        Ok(())
    }
}

fn lldt(cpu: &mut Vcpu, op: &Op) -> Flow {
    protected_only(cpu)?;
    cpu.ring0()?;
    let selector = word_operand(cpu, op)?;
    cpu.load_ldtr(selector, Vector::Gp)
}

fn ltr(cpu: &mut Vcpu, op: &Op) -> Flow {
    protected_only(cpu)?;
    cpu.ring0()?;
    let selector = word_operand(cpu, op)?;
    let code = selector_code(selector);
    if selector & 0xFFFC == 0 {
        return cpu.gp0();
    }
    if selector & 4 != 0 {
        return cpu.raise_code(Vector::Gp, code);
    }
    let d = cpu.descriptor_or(selector, Vector::Gp)?;
    let long = cpu.state.long_mode();
    let known = d.attr().kind() == 9 || d.attr().kind() == 1 && !long;
    if d.attr().code_or_data() || !known {
        return cpu.raise_code(Vector::Gp, code);
    }
    if !d.attr().present() {
        return cpu.raise_code(Vector::Np, code);
    }
    let mut tr = Vcpu::segment_of(selector, &d);
    if long {
        tr.base = cpu.long_base(selector, &d)?;
    }
    cpu.store_system(d.at + 5, (d.high >> 8) as u8 | 2)?;
    tr.attr = Attr(tr.attr.0 | 2);
    cpu.state.segs[seg::TR] = tr;
    Ok(())
}

fn sldt<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    protected_only(cpu)?;
    cpu.user_mode_instruction()?;
    let v = cpu.state.segs[seg::LDTR].selector;
    store_selector::<T>(cpu, op, u64::from(v))
}

fn str<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    protected_only(cpu)?;
    cpu.user_mode_instruction()?;
    let v = cpu.state.segs[seg::TR].selector;
    store_selector::<T>(cpu, op, u64::from(v))
}

fn smsw<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    cpu.user_mode_instruction()?;
    let v = cpu.state.cr0.bits();
    store_selector::<T>(cpu, op, v)
}

/// LMSW sets PE, MP, EM and TS; it cannot clear PE.
fn lmsw(cpu: &mut Vcpu, op: &Op) -> Flow {
    cpu.ring0()?;
    let v = u64::from(word_operand(cpu, op)?);
    let old = cpu.state.cr0.bits();
    cpu.write_cr0(old & !0xE | v & 0xF | old & 1)
}

fn clts(cpu: &mut Vcpu, _: &Op) -> Flow {
    cpu.ring0()?;
    cpu.state.cr0 -= Cr0::TS;
    cpu.refresh_mode();
    Ok(())
}

/// MOV from a control register; `extra` is its number.
fn read_control(cpu: &mut Vcpu, op: &Op) -> Flow {
    cpu.ring0()?;
    let v = match op.src {
        0 => cpu.state.cr0.bits(),
        2 => cpu.state.cr2,
        3 => cpu.state.cr3,
        4 => cpu.state.cr4.bits(),
        _ => cpu.bus.cr8(),
    };
    set_control_operand(cpu, op, op.dst, v);
    Ok(())
}

fn set_control_operand(cpu: &mut Vcpu, op: &Op, at: u8, v: u64) {
    if op.has(flag::LONG) {
        cpu.set_reg(at, v);
    } else {
        cpu.set_reg(at, v as u32);
    }
}

fn control_operand(cpu: &Vcpu, op: &Op) -> u64 {
    if op.has(flag::LONG) {
        cpu.reg(op.src)
    } else {
        u64::from(cpu.reg::<u32>(op.src))
    }
}

fn write_control(cpu: &mut Vcpu, op: &Op) -> Flow {
    cpu.ring0()?;
    let v = control_operand(cpu, op);
    match op.dst {
        0 => cpu.write_cr0(v),
        2 => {
            cpu.state.cr2 = v;
            Ok(())
        }
        3 => {
            if cpu.state.long_mode() && v >> crate::mmu::MAXPHYADDR != 0 {
                return cpu.gp0();
            }
            cpu.set_cr3(v)
        }
        4 => cpu.write_cr4(v),
        _ => {
            if v > 15 {
                return cpu.gp0();
            }
            let effects = cpu.bus.set_cr8(v);
            cpu.apply(effects);
            Ok(())
        }
    }
}

fn read_debug(cpu: &mut Vcpu, op: &Op) -> Flow {
    cpu.ring0()?;
    let n = cpu.debug_register(op.src)?;
    cpu.guard_debug()?;
    let v = cpu.state.dr[n];
    set_control_operand(cpu, op, op.dst, v);
    Ok(())
}

fn write_debug(cpu: &mut Vcpu, op: &Op) -> Flow {
    cpu.ring0()?;
    let n = cpu.debug_register(op.dst)?;
    cpu.guard_debug()?;
    let v = control_operand(cpu, op);
    if n >= 6 && v >> 32 != 0 {
        return cpu.gp0();
    }
    cpu.state.dr[n] = match n {
        6 => v & 0xE00F | 0xFFFF_0FF0,
        7 => v & 0xFFFF_23FF | 0x400,
        _ => v,
    };
    cpu.refresh_mode();
    cpu.end_block();
    Ok(())
}

fn invlpg(cpu: &mut Vcpu, op: &Op) -> Flow {
    cpu.ring0()?;
    let linear = cpu.state.segs[op.seg as usize].base.wrapping_add(cpu.ea(op));
    let linear = cpu.wrap_linear(linear);
    if canonical(linear) || !cpu.state.long_mode() {
        cpu.tlb.flush_page(linear);
    }
    cpu.end_block();
    Ok(())
}

/// INVD, WBINVD: there is no cache to write back.
fn invd(cpu: &mut Vcpu, _: &Op) -> Flow {
    cpu.ring0()
}

pub(super) fn select(insn: &mut Insn<'_>) -> Option<Handler> {
    let register = |insn: &Insn<'_>| match insn.i.op0_kind() {
        OpKind::Register => insn.i.op0_register().size(),
        _ => 2,
    };
    let control = |r: Register| r.is_cr();
    let handler: Handler = match insn.i.mnemonic() {
        Mnemonic::Mov if insn.i.op0_kind() == OpKind::Register && insn.i.op1_kind() == OpKind::Register => {
            let (a, b) = (insn.i.op0_register(), insn.i.op1_register());
            if control(a) || control(b) {
                if !matches!(
                    if control(a) { a.number() } else { b.number() },
                    0 | 2 | 3 | 4 | 8
                ) {
                    return None;
                }
                if control(a) { write_control } else { read_control }
            } else if a.is_dr() || b.is_dr() {
                if (if a.is_dr() { a.number() } else { b.number() }) > 7 {
                    return None;
                }
                if a.is_dr() { write_debug } else { read_debug }
            } else {
                return None;
            }
        }
        Mnemonic::Lgdt | Mnemonic::Lidt => {
            use iced_x86::Code::*;
            insn.op.size = if matches!(insn.i.code(), Lgdt_m1632_16 | Lidt_m1632_16) {
                2
            } else {
                4
            };
            if insn.i.mnemonic() == Mnemonic::Lgdt {
                lgdt
            } else {
                lidt
            }
        }
        Mnemonic::Sgdt => sgdt,
        Mnemonic::Sidt => sidt,
        Mnemonic::Lldt => lldt,
        Mnemonic::Ltr => ltr,
        Mnemonic::Sldt => by_width!(register(insn), sldt),
        Mnemonic::Str => by_width!(register(insn), str),
        Mnemonic::Smsw => by_width!(register(insn), smsw),
        Mnemonic::Lmsw => lmsw,
        Mnemonic::Clts => clts,
        Mnemonic::Invlpg => invlpg,
        Mnemonic::Invd | Mnemonic::Wbinvd => invd,
        _ => return None,
    };
    Some(handler)
}
