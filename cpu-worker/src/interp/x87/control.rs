//! Control instructions: words, environments, FWAIT.

use iced_x86::Mnemonic;

use crate::exec::{Flow, Handler, Insn, Op, Vcpu, Vector, flag};
use crate::fp::x87::control;
use crate::fp::x87::image::Layout;
use crate::state::{Cr0, gpr};

impl Vcpu {
    fn x87_layout(&self, op: &Op) -> Layout {
        Layout {
            wide: op.size == 28,
            protected: !self.state.real_segments(),
        }
    }
}

fn fwait(cpu: &mut Vcpu, _: &Op) -> Flow {
    if cpu.state.cr0.contains(Cr0::MP | Cr0::TS) {
        return cpu.raise(Vector::Nm);
    }
    cpu.check_numeric_error()
}

fn fninit(cpu: &mut Vcpu, _: &Op) -> Flow {
    cpu.x87_available()?;
    cpu.state.fpu.init();
    cpu.sync_ferr();
    Ok(())
}

fn fnclex(cpu: &mut Vcpu, _: &Op) -> Flow {
    cpu.x87_available()?;
    cpu.state.fpu.clear_exceptions();
    cpu.sync_ferr();
    Ok(())
}

/// FNENI, FNDISI and FNSETPM, which do nothing since the 387.
fn ignored(cpu: &mut Vcpu, _: &Op) -> Flow {
    cpu.x87_available()
}

fn fldcw(cpu: &mut Vcpu, op: &Op) -> Flow {
    cpu.x87_begin()?;
    let word = cpu.load::<u16>(op)?;
    cpu.state.fpu.set_control(word);
    cpu.sync_ferr();
    Ok(())
}

fn fnstcw(cpu: &mut Vcpu, op: &Op) -> Flow {
    cpu.x87_available()?;
    let word = cpu.state.fpu.control;
    cpu.store(op, word)
}

fn fnstsw(cpu: &mut Vcpu, op: &Op) -> Flow {
    cpu.x87_available()?;
    let word = cpu.state.fpu.status_word();
    cpu.store(op, word)
}

fn fnstsw_ax(cpu: &mut Vcpu, _: &Op) -> Flow {
    cpu.x87_available()?;
    let word = cpu.state.fpu.status_word();
    cpu.set_gpr(gpr::RAX, word);
    Ok(())
}

fn fnstenv(cpu: &mut Vcpu, op: &Op) -> Flow {
    cpu.x87_available()?;
    let layout = cpu.x87_layout(op);
    let linear = cpu.operand_linear(op, layout.size() as u64, true)?;
    let image = cpu.state.fpu.environment(layout);
    cpu.store_bytes(linear, &image[..layout.size()])?;
    let masked = cpu.state.fpu.control | control::MASKS;
    cpu.state.fpu.set_control(masked);
    cpu.sync_ferr();
    Ok(())
}

fn fldenv(cpu: &mut Vcpu, op: &Op) -> Flow {
    cpu.x87_begin()?;
    let layout = cpu.x87_layout(op);
    let linear = cpu.operand_linear(op, layout.size() as u64, false)?;
    let mut image = [0; 28];
    cpu.load_bytes(linear, &mut image[..layout.size()])?;
    cpu.state.fpu.load_environment(layout, &image);
    cpu.sync_ferr();
    Ok(())
}

fn fnsave(cpu: &mut Vcpu, op: &Op) -> Flow {
    cpu.x87_available()?;
    let layout = cpu.x87_layout(op);
    let (size, whole) = (layout.size(), layout.size() + 80);
    let linear = cpu.operand_linear(op, whole as u64, true)?;
    let mut image = [0; 108];
    image[..size].copy_from_slice(&cpu.state.fpu.environment(layout)[..size]);
    image[size..whole].copy_from_slice(&cpu.state.fpu.register_area());
    cpu.store_bytes(linear, &image[..whole])?;
    cpu.state.fpu.init();
    cpu.sync_ferr();
    Ok(())
}

fn frstor(cpu: &mut Vcpu, op: &Op) -> Flow {
    cpu.x87_begin()?;
    let layout = cpu.x87_layout(op);
    let (size, whole) = (layout.size(), layout.size() + 80);
    let linear = cpu.operand_linear(op, whole as u64, false)?;
    let mut image = [0; 108];
    cpu.load_bytes(linear, &mut image[..whole])?;
    let mut environment = [0; 28];
    environment[..size].copy_from_slice(&image[..size]);
    let mut area = [0; 80];
    area.copy_from_slice(&image[size..whole]);
    cpu.state.fpu.load_environment(layout, &environment);
    cpu.state.fpu.load_register_area(&area);
    cpu.sync_ferr();
    Ok(())
}

pub(super) fn wait(insn: &Insn<'_>) -> Option<Handler> {
    (insn.i.mnemonic() == Mnemonic::Wait).then_some(fwait)
}

pub(super) fn select(insn: &mut Insn<'_>) -> Option<Handler> {
    Some(match insn.i.mnemonic() {
        Mnemonic::Fninit => fninit,
        Mnemonic::Fnclex => fnclex,
        Mnemonic::Fneni | Mnemonic::Fndisi | Mnemonic::Fnsetpm => ignored,
        Mnemonic::Fldcw => fldcw,
        Mnemonic::Fnstcw => fnstcw,
        Mnemonic::Fnstsw if insn.op.has(flag::MEM) => fnstsw,
        Mnemonic::Fnstsw => fnstsw_ax,
        Mnemonic::Fnstenv => sized(insn, fnstenv),
        Mnemonic::Fldenv => sized(insn, fldenv),
        Mnemonic::Fnsave => sized(insn, fnsave),
        Mnemonic::Frstor => sized(insn, frstor),
        _ => return None,
    })
}

/// Notes the size of the environment in the op.
fn sized(insn: &mut Insn<'_>, handler: Handler) -> Handler {
    use iced_x86::Code::*;
    let wide = matches!(
        insn.i.code(),
        Fldenv_m28byte | Fnstenv_m28byte | Fnsave_m108byte | Frstor_m108byte
    );
    insn.op.size = if wide { 28 } else { 14 };
    handler
}
