//! MXCSR, FXSAVE and XSAVE.
//!
//! XCR0 knows x87 and SSE. Both count as always in use (XINUSE), which the manual allows; the compacted
//! format and supervisor states do not exist.

use iced_x86::Mnemonic;

use crate::exec::{Exit, Flow, Handler, Insn, Op, Vcpu, Vector, flag};
use crate::fp::Xmm;
use crate::fp::sse::mxcsr;
use crate::fp::x87::Unit;
use crate::state::{Cr0, Cr4, gpr};

/// Bytes of the legacy area that hold state: x87, MXCSR, XMM0 to XMM15.
const LEGACY: usize = 416;
/// Offset of XMM0.
const XMM: usize = 160;
/// The XSAVE header: XSTATE_BV, XCOMP_BV, reserved.
const HEADER: u64 = 512;
/// Component bits of XCR0.
const X87: u64 = 1;
const SSE: u64 = 2;

fn ldmxcsr(cpu: &mut Vcpu, op: &Op) -> Flow {
    cpu.sse_begin()?;
    let v = cpu.load::<u32>(op)?;
    if v & !mxcsr::VALID != 0 {
        return cpu.gp0();
    }
    cpu.state.mxcsr = v;
    Ok(())
}

fn stmxcsr(cpu: &mut Vcpu, op: &Op) -> Flow {
    cpu.sse_begin()?;
    let v = cpu.state.mxcsr;
    cpu.store(op, v)
}

impl Vcpu {
    /// The XMM registers that the mode can see.
    fn xmm_count(&self, op: &Op) -> usize {
        if op.has(flag::LONG) { 16 } else { 8 }
    }

    fn put_xmm(&self, count: usize, area: &mut [u8; LEGACY]) {
        for n in 0..count {
            area[XMM + 16 * n..XMM + 16 * (n + 1)].copy_from_slice(&self.state.xmm[n].to_bytes());
        }
    }

    fn take_xmm(&mut self, count: usize, area: &[u8; LEGACY]) {
        for (register, bytes) in self.state.xmm[..count]
            .iter_mut()
            .zip(area[XMM..].as_chunks::<16>().0)
        {
            *register = Xmm::from_bytes(*bytes);
        }
    }

    fn put_mxcsr(&self, area: &mut [u8; LEGACY]) {
        area[24..28].copy_from_slice(&self.state.mxcsr.to_le_bytes());
        area[28..32].copy_from_slice(&mxcsr::VALID.to_le_bytes());
    }

    /// The linear address of an area of `len` bytes aligned to `align`, #GP(0) if it is not.
    fn area(&mut self, op: &Op, len: u64, align: u64, write: bool) -> Result<u64, Exit> {
        let linear = self.operand_linear(op, len, write)?;
        if linear & (align - 1) != 0 {
            return self.gp0();
        }
        Ok(linear)
    }

    fn fxsave_begin(&mut self) -> Flow {
        if self.state.cr0.contains(Cr0::EM) {
            return self.ud();
        }
        if self.state.cr0.contains(Cr0::TS) {
            return self.raise(Vector::Nm);
        }
        Ok(())
    }

    fn xsave_begin(&mut self) -> Flow {
        if !self.state.cr4.contains(Cr4::OSXSAVE) {
            return self.ud();
        }
        if self.state.cr0.contains(Cr0::TS) {
            return self.raise(Vector::Nm);
        }
        Ok(())
    }

    /// The components that an XSAVE or XRSTOR instruction asks for.
    fn requested(&self) -> u64 {
        let mask = u64::from(self.gpr(gpr::RAX) as u32) | self.gpr(gpr::RDX) << 32;
        mask & self.state.xcr0
    }
}

/// Operand size 8: the layout with 64-bit pointers.
const fn wide(op: &Op) -> bool {
    op.size == 8
}

fn fxsave(cpu: &mut Vcpu, op: &Op) -> Flow {
    cpu.fxsave_begin()?;
    let linear = cpu.area(op, 512, 16, true)?;
    let mut area = [0; LEGACY];
    area[..160].copy_from_slice(&cpu.state.fpu.fxsave_area(wide(op)));
    cpu.put_mxcsr(&mut area);
    let count = cpu.xmm_count(op);
    cpu.put_xmm(count, &mut area);
    cpu.probe_write(linear, 512)?;
    cpu.store_bytes(linear, &area[..XMM + 16 * count])
}

fn fxrstor(cpu: &mut Vcpu, op: &Op) -> Flow {
    cpu.fxsave_begin()?;
    let linear = cpu.area(op, 512, 16, false)?;
    let mut area = [0; LEGACY];
    cpu.probe_read(linear, 512)?;
    cpu.load_bytes(linear, &mut area)?;
    let control = u32::from_le_bytes([area[24], area[25], area[26], area[27]]);
    if control & !mxcsr::VALID != 0 {
        return cpu.gp0();
    }
    load_x87(cpu, &area, wide(op));
    cpu.state.mxcsr = control;
    let count = cpu.xmm_count(op);
    cpu.take_xmm(count, &area);
    Ok(())
}

fn load_x87(cpu: &mut Vcpu, area: &[u8; LEGACY], wide: bool) {
    let mut x87 = [0; 160];
    x87.copy_from_slice(&area[..160]);
    cpu.state.fpu.load_fxsave_area(&x87, wide);
    cpu.sync_ferr();
}

fn xsave(cpu: &mut Vcpu, op: &Op) -> Flow {
    cpu.xsave_begin()?;
    let linear = cpu.area(op, HEADER + 64, 64, true)?;
    let requested = cpu.requested();
    cpu.probe_write(linear, HEADER + 64)?;
    let at = |cpu: &Vcpu, offset: u64| cpu.wrap_linear(linear.wrapping_add(offset));
    let present: u64 = cpu.load_linear(at(cpu, HEADER))?;
    let mut area = [0; LEGACY];
    if requested & X87 != 0 {
        area[..160].copy_from_slice(&cpu.state.fpu.fxsave_area(wide(op)));
        cpu.store_bytes(linear, &area[..24])?;
        cpu.store_bytes(at(cpu, 32), &area[32..160])?;
    }
    if requested & SSE != 0 {
        let count = cpu.xmm_count(op);
        cpu.put_mxcsr(&mut area);
        cpu.put_xmm(count, &mut area);
        cpu.store_bytes(at(cpu, 24), &area[24..32])?;
        cpu.store_bytes(at(cpu, XMM as u64), &area[XMM..XMM + 16 * count])?;
    }
    cpu.store_linear(at(cpu, HEADER), present | requested)
}

fn xrstor(cpu: &mut Vcpu, op: &Op) -> Flow {
    cpu.xsave_begin()?;
    let linear = cpu.area(op, HEADER + 64, 64, false)?;
    let requested = cpu.requested();
    cpu.probe_read(linear, HEADER + 64)?;
    let mut header = [0; 64];
    cpu.load_bytes(cpu.wrap_linear(linear.wrapping_add(HEADER)), &mut header)?;
    let (words, _) = header.as_chunks::<8>();
    let present = u64::from_le_bytes(words[0]);
    // The standard format has no XCOMP_BV, and the next eight bytes are reserved.
    if present & !cpu.state.xcr0 != 0 || header[8..24].iter().any(|b| *b != 0) {
        return cpu.gp0();
    }
    let mut area = [0; LEGACY];
    cpu.load_bytes(linear, &mut area)?;
    let control = u32::from_le_bytes([area[24], area[25], area[26], area[27]]);
    if requested & SSE != 0 {
        if control & !mxcsr::VALID != 0 {
            return cpu.gp0();
        }
        cpu.state.mxcsr = control;
        let count = cpu.xmm_count(op);
        if present & SSE == 0 {
            area[XMM..].fill(0);
        }
        cpu.take_xmm(count, &area);
    }
    if requested & X87 != 0 {
        if present & X87 != 0 {
            load_x87(cpu, &area, wide(op));
        } else {
            cpu.state.fpu = Unit::power_up();
            cpu.state.fpu.init();
            cpu.sync_ferr();
        }
    }
    Ok(())
}

fn xgetbv(cpu: &mut Vcpu, _: &Op) -> Flow {
    if !cpu.state.cr4.contains(Cr4::OSXSAVE) {
        return cpu.ud();
    }
    if cpu.gpr(gpr::RCX) as u32 != 0 {
        return cpu.gp0();
    }
    let v = cpu.state.xcr0;
    cpu.set_gpr(gpr::RAX, v as u32);
    cpu.set_gpr(gpr::RDX, (v >> 32) as u32);
    Ok(())
}

fn xsetbv(cpu: &mut Vcpu, _: &Op) -> Flow {
    if !cpu.state.cr4.contains(Cr4::OSXSAVE) {
        return cpu.ud();
    }
    let v = u64::from(cpu.gpr(gpr::RAX) as u32) | cpu.gpr(gpr::RDX) << 32;
    if cpu.state.cpl != 0 || cpu.gpr(gpr::RCX) as u32 != 0 || v & X87 == 0 || v & !(X87 | SSE) != 0 {
        return cpu.gp0();
    }
    cpu.state.xcr0 = v;
    Ok(())
}

pub(super) fn select(insn: &mut Insn<'_>) -> Option<Handler> {
    Some(match insn.i.mnemonic() {
        Mnemonic::Ldmxcsr => ldmxcsr,
        Mnemonic::Stmxcsr => stmxcsr,
        Mnemonic::Fxsave => fxsave,
        Mnemonic::Fxsave64 => sized(insn, fxsave),
        Mnemonic::Fxrstor => fxrstor,
        Mnemonic::Fxrstor64 => sized(insn, fxrstor),
        Mnemonic::Xsave | Mnemonic::Xsaveopt => xsave,
        Mnemonic::Xsave64 | Mnemonic::Xsaveopt64 => sized(insn, xsave),
        Mnemonic::Xrstor => xrstor,
        Mnemonic::Xrstor64 => sized(insn, xrstor),
        Mnemonic::Xgetbv => xgetbv,
        Mnemonic::Xsetbv => xsetbv,
        _ => return None,
    })
}

fn sized(insn: &mut Insn<'_>, handler: Handler) -> Handler {
    insn.op.size = 8;
    handler
}
