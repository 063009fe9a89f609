//! CLC, STC, CMC, CLD, STD. CLI, STI, PUSHF and POPF depend on privilege and are system instructions.

use iced_x86::Mnemonic;

use crate::exec::{Flow, Handler, Insn, Op, Vcpu};
use crate::state::Flag;

fn clc(cpu: &mut Vcpu, _: &Op) -> Flow {
    cpu.state.flags.set(Flag::Cf, false);
    Ok(())
}

fn stc(cpu: &mut Vcpu, _: &Op) -> Flow {
    cpu.state.flags.set(Flag::Cf, true);
    Ok(())
}

fn cmc(cpu: &mut Vcpu, _: &Op) -> Flow {
    let cf = cpu.state.flags.cf();
    cpu.state.flags.set(Flag::Cf, !cf);
    Ok(())
}

fn cld(cpu: &mut Vcpu, _: &Op) -> Flow {
    cpu.state.flags.set(Flag::Df, false);
    Ok(())
}

fn std(cpu: &mut Vcpu, _: &Op) -> Flow {
    cpu.state.flags.set(Flag::Df, true);
    Ok(())
}

pub(super) fn select(insn: &mut Insn<'_>) -> Option<Handler> {
    Some(match insn.i.mnemonic() {
        Mnemonic::Clc => clc,
        Mnemonic::Stc => stc,
        Mnemonic::Cmc => cmc,
        Mnemonic::Cld => cld,
        Mnemonic::Std => std,
        _ => return None,
    })
}
