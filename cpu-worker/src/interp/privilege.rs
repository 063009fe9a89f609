//! CLI, STI, PUSHF, POPF, HLT, INT n, INT3, INTO, INT1: what depends on CPL, IOPL and V86 mode.

use iced_x86::Mnemonic;

use crate::except::Source;
use crate::exec::{Flow, Handler, Insn, Op, Reason, Vcpu};
use crate::state::{Activity, Flag, Shadow};

/// Holds interrupts back for one instruction.
pub(super) fn hold_interrupts(cpu: &mut Vcpu, shadow: Shadow) {
    cpu.state.shadow = shadow;
    cpu.reasons |= Reason::SHADOW;
    cpu.end_block();
}

fn may_change_if(cpu: &mut Vcpu) -> Flow {
    if cpu.state.protected() && cpu.state.cpl > cpu.state.flags.iopl() {
        cpu.gp0()
    } else {
        Ok(())
    }
}

fn cli(cpu: &mut Vcpu, _: &Op) -> Flow {
    may_change_if(cpu)?;
    cpu.state.flags.set(Flag::If, false);
    Ok(())
}

fn sti(cpu: &mut Vcpu, _: &Op) -> Flow {
    may_change_if(cpu)?;
    if !cpu.state.flags.get(Flag::If) {
        cpu.state.flags.set(Flag::If, true);
        cpu.check_interrupts_next();
        hold_interrupts(cpu, Shadow::Sti);
    }
    Ok(())
}

fn pushf(cpu: &mut Vcpu, op: &Op) -> Flow {
    if cpu.state.v86() && cpu.state.flags.iopl() < 3 {
        return cpu.gp0();
    }
    // VM and RF are pushed as zero.
    let image = cpu.state.flags.bits() & !0x0003_0000;
    cpu.push_sized(image, u64::from(op.size))
}

fn popf(cpu: &mut Vcpu, op: &Op) -> Flow {
    let size = u64::from(op.size);
    let (v86, cpl, iopl) = (cpu.state.v86(), cpu.state.cpl, cpu.state.flags.iopl());
    if v86 && iopl < 3 {
        return cpu.gp0();
    }
    let image = cpu.peek_sized(0, size)?;
    let sp = cpu.sp_plus(size);
    cpu.set_sp(sp);
    let mut mask = 0x4DD5;
    if size > 2 {
        mask |= 0x0024_0000;
    }
    if !cpu.state.protected() || cpl == 0 {
        mask |= 0x3200;
    } else if cpl <= iopl {
        mask |= 0x200;
    }
    // RF is cleared by the instruction itself.
    cpu.set_flags(image & !0x1_0000, mask | 0x1_0000);
    Ok(())
}

fn hlt(cpu: &mut Vcpu, _: &Op) -> Flow {
    if cpu.state.cpl != 0 {
        return cpu.gp0();
    }
    cpu.check_interrupts_next();
    cpu.stop(Activity::Halted)
}

/// INT n; of its relatives it alone depends on IOPL in V86 mode.
fn int(cpu: &mut Vcpu, op: &Op) -> Flow {
    if cpu.state.v86() && cpu.state.flags.iopl() < 3 {
        return cpu.gp0();
    }
    cpu.software_interrupt(op.imm as u8, Source::Software)
}

fn int3(cpu: &mut Vcpu, _: &Op) -> Flow {
    cpu.software_interrupt(3, Source::Software)
}

fn int1(cpu: &mut Vcpu, _: &Op) -> Flow {
    cpu.software_interrupt(1, Source::Icebp)
}

fn into(cpu: &mut Vcpu, _: &Op) -> Flow {
    if cpu.state.flags.of() {
        cpu.software_interrupt(4, Source::Software)
    } else {
        Ok(())
    }
}

pub(super) fn select(insn: &mut Insn<'_>) -> Option<Handler> {
    use iced_x86::Code::*;
    let (handler, size): (Handler, u8) = match (insn.i.mnemonic(), insn.i.code()) {
        (Mnemonic::Cli, _) => (cli, 0),
        (Mnemonic::Sti, _) => (sti, 0),
        (_, Pushfw) => (pushf, 2),
        (_, Pushfd) => (pushf, 4),
        (_, Pushfq) => (pushf, 8),
        (_, Popfw) => (popf, 2),
        (_, Popfd) => (popf, 4),
        (_, Popfq) => (popf, 8),
        (Mnemonic::Hlt, _) => (hlt, 0),
        (Mnemonic::Int, _) => (int, 0),
        (Mnemonic::Int3, _) => (int3, 0),
        (Mnemonic::Int1, _) => (int1, 0),
        (Mnemonic::Into, _) => (into, 0),
        _ => return None,
    };
    insn.op.size = size;
    // STI and POPF end the block in progress when they change something that matters to what follows.
    if !matches!(
        insn.i.mnemonic(),
        Mnemonic::Cli
            | Mnemonic::Sti
            | Mnemonic::Pushf
            | Mnemonic::Pushfd
            | Mnemonic::Pushfq
            | Mnemonic::Popf
            | Mnemonic::Popfd
            | Mnemonic::Popfq
    ) {
        insn.ends();
    }
    Some(handler)
}
