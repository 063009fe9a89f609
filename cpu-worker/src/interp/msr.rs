//! RDMSR, WRMSR, RDTSC, RDTSCP, RDPMC, CPUID, RDRAND (SDM vol. 4 for the registers).

use iced_x86::Mnemonic;

use super::by_width;
use crate::cpuid::Feature;
use crate::exec::{Exit, Flow, Handler, Insn, Int, Op, Vcpu};
use crate::mmu::canonical;
use crate::state::{Cr4, Efer, gpr, seg};

const EFER: u32 = 0xC000_0080;

/// Whether every byte of a PAT value is a memory type.
fn good_pat(value: u64) -> bool {
    value.to_le_bytes().iter().all(|t| matches!(t, 0 | 1 | 4..=7))
}

/// Whether every byte is a memory type of an MTRR.
fn good_mtrr(value: u64) -> bool {
    value.to_le_bytes().iter().all(|t| matches!(t, 0 | 1 | 4..=6))
}

/// Number of machine-check banks, as MCG_CAP says.
const MC_BANKS: u32 = 8;

impl Vcpu {
    /// Reads a model-specific register; `None` is #GP.
    pub(crate) fn msr(&mut self, index: u32) -> Option<u64> {
        if let Some(answer) = self.bus.msr_read(index) {
            return answer.ok();
        }
        let m = &self.state.msrs;
        Some(match index {
            0x17 => 0,
            0x3A => m.feature_control,
            0x8B => 0x1_0000_0000,
            0xCE | 0x1A0 if !self.model.has(Feature::Msr) => return None,
            0xCE => 0,
            0xFE => 0x508,
            0x10A => self.model.arch_capabilities()?,
            0x174 => m.sysenter_cs,
            0x175 => m.sysenter_esp,
            0x176 => m.sysenter_eip,
            0x179 => 0x100 | u64::from(MC_BANKS),
            0x17A => m.mcg_status,
            0x17B => m.mcg_ctl,
            0x1A0 => m.misc_enable,
            0x1D9 => m.debug_ctl,
            0x200..=0x20F => m.mtrr_var[(index - 0x200) as usize],
            0x250 => m.mtrr_fixed[0],
            0x258 | 0x259 => m.mtrr_fixed[(index - 0x257) as usize],
            0x268..=0x26F => m.mtrr_fixed[(index - 0x265) as usize],
            0x277 => m.pat,
            0x2FF => m.mtrr_def_type,
            0x400..=0x41F => m.mc_banks[(index - 0x400) as usize],
            EFER => self.state.efer.bits(),
            0xC000_0081 => m.star,
            0xC000_0082 => m.lstar,
            0xC000_0083 => m.cstar,
            0xC000_0084 => m.sfmask,
            0xC000_0100 => self.state.segs[seg::FS].base,
            0xC000_0101 => self.state.segs[seg::GS].base,
            0xC000_0102 => m.kernel_gs_base,
            0xC000_0103 if self.model.has(Feature::Rdtscp) => m.tsc_aux,
            _ => return None,
        })
    }

    /// Writes a model-specific register; `None` is #GP.
    pub(crate) fn set_msr(&mut self, index: u32, v: u64) -> Option<()> {
        match self.bus.msr_write(index, v) {
            Some(Ok(effects)) => {
                self.apply(effects);
                return Some(());
            }
            Some(Err(())) => return None,
            None => {}
        }
        let long = self.model.has(Feature::Lm);
        let m = &mut self.state.msrs;
        let need = |good: bool| good.then_some(());
        match index {
            0x3A => m.feature_control = v & 0x7,
            0x79 => {}
            0x8B => need(v == 0)?,
            0x174 => m.sysenter_cs = v,
            0x175 => {
                need(canonical(v))?;
                m.sysenter_esp = v;
            }
            0x176 => {
                need(canonical(v))?;
                m.sysenter_eip = v;
            }
            0x17A => m.mcg_status = v & 7,
            0x17B => {
                need(v == 0 || v == u64::MAX)?;
                m.mcg_ctl = v;
            }
            0x1A0 => m.misc_enable = v,
            0x1D9 => m.debug_ctl = v & 3,
            0x200..=0x20F => {
                need(v >> crate::mmu::MAXPHYADDR == 0 && (index & 1 == 1 || good_mtrr(v & 0xFF)))?;
                m.mtrr_var[(index - 0x200) as usize] = v;
            }
            0x250 | 0x258 | 0x259 | 0x268..=0x26F => {
                need(good_mtrr(v))?;
                let n = match index {
                    0x250 => 0,
                    0x258 | 0x259 => index - 0x257,
                    _ => index - 0x265,
                };
                m.mtrr_fixed[n as usize] = v;
            }
            0x277 => {
                need(good_pat(v))?;
                m.pat = v;
            }
            0x2FF => {
                need(good_mtrr(v & 0xFF) && v & !0xCFF == 0)?;
                m.mtrr_def_type = v;
            }
            0x400..=0x41F => {
                // Status, address and misc registers take zero only.
                need(index & 3 == 0 || v == 0)?;
                m.mc_banks[(index - 0x400) as usize] = v;
            }
            EFER => return self.set_efer(v),
            0xC000_0081 if long => m.star = v,
            0xC000_0082 if long => {
                need(canonical(v))?;
                m.lstar = v;
            }
            0xC000_0083 if long => {
                need(canonical(v))?;
                m.cstar = v;
            }
            0xC000_0084 if long => m.sfmask = v & 0xFFFF_FFFF,
            0xC000_0100 | 0xC000_0101 if long => {
                need(canonical(v))?;
                self.state.segs[if index & 1 == 0 { seg::FS } else { seg::GS }].base = v;
            }
            0xC000_0102 if long => {
                need(canonical(v))?;
                m.kernel_gs_base = v;
            }
            0xC000_0103 if self.model.has(Feature::Rdtscp) => m.tsc_aux = v & 0xFFFF_FFFF,
            _ => return None,
        }
        Some(())
    }

    fn set_efer(&mut self, v: u64) -> Option<()> {
        let old = self.state.efer;
        let mut new = Efer::from_bits(v)?;
        let absent = !self.model.has(Feature::Nx) && new.contains(Efer::NXE)
            || !self.model.has(Feature::Lm) && new.contains(Efer::LME)
            || !self.model.has(Feature::Syscall) && new.contains(Efer::SCE);
        let paging = self.state.cr0.contains(crate::state::Cr0::PG);
        if absent || paging && (old ^ new).contains(Efer::LME) {
            return None;
        }
        new.set(Efer::LMA, old.contains(Efer::LMA));
        self.state.efer = new;
        if (old ^ new).contains(Efer::NXE) {
            self.tlb.flush_all();
        }
        Some(())
    }

    fn set_pair(&mut self, v: u64) {
        self.set_gpr(gpr::RAX, v as u32);
        self.set_gpr(gpr::RDX, (v >> 32) as u32);
    }
}

fn rdmsr(cpu: &mut Vcpu, _: &Op) -> Flow {
    cpu.ring0()?;
    let index = cpu.gpr(gpr::RCX) as u32;
    match cpu.msr(index) {
        Some(v) => {
            cpu.set_pair(v);
            Ok(())
        }
        None => {
            tracing::debug!(index = format_args!("{index:#x}"), "RDMSR of an unknown register");
            cpu.gp0()
        }
    }
}

fn wrmsr(cpu: &mut Vcpu, _: &Op) -> Flow {
    cpu.ring0()?;
    let index = cpu.gpr(gpr::RCX) as u32;
    let v = cpu.gpr(gpr::RDX) << 32 | cpu.gpr(gpr::RAX) & 0xFFFF_FFFF;
    if cpu.set_msr(index, v).is_none() {
        tracing::debug!(
            index = format_args!("{index:#x}"),
            value = format_args!("{v:#x}"),
            "WRMSR refused"
        );
        return cpu.gp0();
    }
    Ok(())
}

fn may_read_tsc(cpu: &mut Vcpu) -> Flow {
    if cpu.state.cr4.contains(Cr4::TSD) && cpu.state.cpl > 0 && cpu.state.protected() {
        cpu.gp0()
    } else {
        Ok(())
    }
}

fn rdtsc(cpu: &mut Vcpu, _: &Op) -> Flow {
    may_read_tsc(cpu)?;
    let v = cpu.bus.tsc();
    cpu.set_pair(v);
    Ok(())
}

fn rdtscp(cpu: &mut Vcpu, _: &Op) -> Flow {
    may_read_tsc(cpu)?;
    let v = cpu.bus.tsc();
    cpu.set_pair(v);
    let aux = cpu.state.msrs.tsc_aux;
    cpu.set_gpr(gpr::RCX, aux as u32);
    Ok(())
}

/// There are no performance counters.
fn rdpmc(cpu: &mut Vcpu, _: &Op) -> Flow {
    cpu.gp0()
}

fn cpuid(cpu: &mut Vcpu, _: &Op) -> Flow {
    let (leaf, sub) = (cpu.gpr(gpr::RAX) as u32, cpu.gpr(gpr::RCX) as u32);
    let [a, b, c, d] = cpu.model.leaf(leaf, sub, &cpu.state);
    cpu.set_gpr(gpr::RAX, a);
    cpu.set_gpr(gpr::RBX, b);
    cpu.set_gpr(gpr::RCX, c);
    cpu.set_gpr(gpr::RDX, d);
    Ok(())
}

fn random() -> Option<u64> {
    let mut bytes = [0; 8];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(8) => Some(u64::from_le_bytes(bytes)),
        _ => None,
    }
}

/// RDRAND and RDSEED: CF says whether there was a number.
fn rdrand<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let v = random();
    cpu.set_reg(op.dst, T::trunc(v.unwrap_or(0)));
    cpu.state.flags.set_arithmetic(u64::from(v.is_some()));
    Ok(())
}

/// UD0, UD1, UD2: the instructions whose meaning is #UD.
fn ud(cpu: &mut Vcpu, _: &Op) -> Result<(), Exit> {
    cpu.ud()
}

pub(super) fn select(insn: &mut Insn<'_>) -> Option<Handler> {
    let handler: Handler = match insn.i.mnemonic() {
        Mnemonic::Rdmsr if insn.model.has(Feature::Msr) => rdmsr,
        Mnemonic::Wrmsr if insn.model.has(Feature::Msr) => wrmsr,
        Mnemonic::Rdtsc if insn.model.has(Feature::Tsc) => rdtsc,
        Mnemonic::Rdtscp if insn.model.has(Feature::Rdtscp) => rdtscp,
        Mnemonic::Rdpmc => rdpmc,
        Mnemonic::Cpuid => cpuid,
        Mnemonic::Rdrand if insn.model.has(Feature::Rdrand) => {
            by_width!(insn.i.op0_register().size(), rdrand)
        }
        Mnemonic::Rdseed if insn.model.has(Feature::Rdseed) => {
            by_width!(insn.i.op0_register().size(), rdrand)
        }
        Mnemonic::Ud0 | Mnemonic::Ud1 | Mnemonic::Ud2 => ud,
        _ => return None,
    };
    if matches!(insn.i.mnemonic(), Mnemonic::Wrmsr) {
        insn.ends();
    }
    Some(handler)
}
