//! SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS, RDFSBASE and relatives, STAC, CLAC (SDM vol. 2).

use iced_x86::Mnemonic;

use super::by_width;
use crate::cpuid::Feature;
use crate::exec::{Flow, Handler, Insn, Int, Op, Vcpu};
use crate::mmu::canonical;
use crate::state::{Attr, CodeSize, Cr4, Efer, Flag, Segment, gpr, seg};

const CODE_32: Attr = Attr(0xC09B);
const CODE_64: Attr = Attr(0xA09B);
const DATA: Attr = Attr(0xC093);

fn with_dpl(attr: Attr, dpl: u32) -> Attr {
    Attr(attr.0 & !0x60 | dpl << 5)
}

impl Vcpu {
    /// Flat CS and SS of privilege level `cpl`.
    fn set_flat(&mut self, cs: u16, ss: u16, code: Attr, cpl: u8) {
        let dpl = u32::from(cpl);
        self.state.segs[seg::SS] = Segment::new(ss, 0, u32::MAX, with_dpl(DATA, dpl));
        self.set_code_segment(Segment::new(cs, 0, u32::MAX, with_dpl(code, dpl)), cpl);
    }
}

fn syscall(cpu: &mut Vcpu, _: &Op) -> Flow {
    if !cpu.state.efer.contains(Efer::SCE) || cpu.code_size != CodeSize::Bits64 {
        return cpu.ud();
    }
    let flags = cpu.state.flags.bits();
    cpu.state.regs[gpr::RCX] = cpu.rip();
    cpu.state.regs[gpr::R11] = flags & !0x1_0000;
    let target = cpu.state.msrs.lstar;
    let star = (cpu.state.msrs.star >> 32) as u16;
    let mask = cpu.state.msrs.sfmask;
    cpu.set_flat(star & 0xFFFC, (star & 0xFFFC).wrapping_add(8), CODE_64, 0);
    cpu.set_rip(target);
    cpu.set_flags(flags & !mask & !0x1_0000, !0);
    cpu.step_by_new_flags();
    Ok(())
}

fn sysret<T: Int>(cpu: &mut Vcpu, _: &Op) -> Flow {
    if !cpu.state.efer.contains(Efer::SCE) || cpu.code_size != CodeSize::Bits64 {
        return cpu.ud();
    }
    cpu.ring0()?;
    let target = cpu.gpr(gpr::RCX);
    if T::BITS == 64 && !canonical(target) {
        return cpu.gp0();
    }
    let star = (cpu.state.msrs.star >> 48) as u16;
    let image = cpu.gpr(gpr::R11) & 0x003C_7FD7;
    if T::BITS == 64 {
        cpu.set_flat(star.wrapping_add(16) | 3, star.wrapping_add(8) | 3, CODE_64, 3);
        cpu.set_rip(target);
    } else {
        cpu.set_flat(star | 3, star.wrapping_add(8) | 3, CODE_32, 3);
        cpu.set_rip(target & 0xFFFF_FFFF);
    }
    cpu.set_flags(image, !0);
    cpu.step_by_new_flags();
    Ok(())
}

fn sysenter(cpu: &mut Vcpu, _: &Op) -> Flow {
    let cs = cpu.state.msrs.sysenter_cs as u16;
    if !cpu.state.protected() || cs & 0xFFFC == 0 {
        return cpu.gp0();
    }
    let long = cpu.state.long_mode();
    cpu.state.flags.set(Flag::Vm, false);
    cpu.state.flags.set(Flag::If, false);
    cpu.state.flags.set(Flag::Rf, false);
    let cs = cs & 0xFFFC;
    cpu.set_flat(cs, cs.wrapping_add(8), if long { CODE_64 } else { CODE_32 }, 0);
    let (rip, rsp) = (cpu.state.msrs.sysenter_eip, cpu.state.msrs.sysenter_esp);
    let mask = if long { u64::MAX } else { 0xFFFF_FFFF };
    cpu.state.regs[gpr::RSP] = rsp & mask;
    cpu.set_rip(rip & mask);
    Ok(())
}

fn sysexit<T: Int>(cpu: &mut Vcpu, _: &Op) -> Flow {
    let cs = cpu.state.msrs.sysenter_cs as u16;
    if !cpu.state.protected() || cs & 0xFFFC == 0 {
        return cpu.gp0();
    }
    cpu.ring0()?;
    let (rip, rsp) = (cpu.gpr(gpr::RDX), cpu.gpr(gpr::RCX));
    if T::BITS == 64 {
        if !canonical(rip) || !canonical(rsp) {
            return cpu.gp0();
        }
        cpu.set_flat(cs.wrapping_add(32) | 3, cs.wrapping_add(40) | 3, CODE_64, 3);
        cpu.state.regs[gpr::RSP] = rsp;
        cpu.set_rip(rip);
    } else {
        cpu.set_flat(cs.wrapping_add(16) | 3, cs.wrapping_add(24) | 3, CODE_32, 3);
        cpu.state.regs[gpr::RSP] = rsp & 0xFFFF_FFFF;
        cpu.set_rip(rip & 0xFFFF_FFFF);
    }
    Ok(())
}

fn swapgs(cpu: &mut Vcpu, _: &Op) -> Flow {
    cpu.ring0()?;
    core::mem::swap(
        &mut cpu.state.segs[seg::GS].base,
        &mut cpu.state.msrs.kernel_gs_base,
    );
    Ok(())
}

fn base_instruction(cpu: &mut Vcpu) -> Flow {
    if cpu.state.cr4.contains(Cr4::FSGSBASE) {
        Ok(())
    } else {
        cpu.ud()
    }
}

fn read_base<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    base_instruction(cpu)?;
    let v = cpu.state.segs[op.extra as usize].base;
    cpu.set_reg(op.dst, T::trunc(v));
    Ok(())
}

fn write_base<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    base_instruction(cpu)?;
    let v = cpu.reg::<T>(op.dst).to_u64();
    if !canonical(v) {
        return cpu.gp0();
    }
    cpu.state.segs[op.extra as usize].base = v;
    Ok(())
}

fn set_ac<const ON: bool>(cpu: &mut Vcpu, _: &Op) -> Flow {
    if cpu.state.cpl != 0 {
        return cpu.ud();
    }
    cpu.state.flags.set(Flag::Ac, ON);
    cpu.refresh_mode();
    Ok(())
}

pub(super) fn select(insn: &mut Insn<'_>) -> Option<Handler> {
    let has = |insn: &Insn<'_>, f| insn.model.has(f);
    let handler: Handler = match insn.i.mnemonic() {
        Mnemonic::Syscall if has(insn, Feature::Syscall) => syscall,
        Mnemonic::Sysret if has(insn, Feature::Syscall) => sysret::<u32>,
        Mnemonic::Sysretq if has(insn, Feature::Syscall) => sysret::<u64>,
        Mnemonic::Sysenter if has(insn, Feature::Sep) => sysenter,
        Mnemonic::Sysexit if has(insn, Feature::Sep) => sysexit::<u32>,
        Mnemonic::Sysexitq if has(insn, Feature::Sep) => sysexit::<u64>,
        Mnemonic::Swapgs => swapgs,
        Mnemonic::Stac if has(insn, Feature::Smap) => set_ac::<true>,
        Mnemonic::Clac if has(insn, Feature::Smap) => set_ac::<false>,
        m @ (Mnemonic::Rdfsbase | Mnemonic::Rdgsbase | Mnemonic::Wrfsbase | Mnemonic::Wrgsbase)
            if has(insn, Feature::Fsgsbase) =>
        {
            let fs = matches!(m, Mnemonic::Rdfsbase | Mnemonic::Wrfsbase);
            insn.op.extra = (if fs { seg::FS } else { seg::GS }) as u16;
            let bytes = insn.i.op0_register().size();
            return Some(if matches!(m, Mnemonic::Rdfsbase | Mnemonic::Rdgsbase) {
                by_width!(bytes, read_base)
            } else {
                by_width!(bytes, write_base)
            });
        }
        _ => return None,
    };
    if !matches!(insn.i.mnemonic(), Mnemonic::Swapgs) {
        insn.ends();
    }
    Some(handler)
}
