//! The VMware backdoor: an IN that hands six registers over and takes six back.

use iced_x86::code_asm::*;
use quintet_cpu_worker::state::gpr;

use crate::machine::*;

const MAGIC: u32 = 0x564D_5868;

#[test]
fn a_call_carries_six_registers_there_and_back() {
    let mut m = Machine::new(Mode::Protected);
    m.code(|a| {
        a.mov(eax, MAGIC)?;
        a.mov(ebx, 11)?;
        a.mov(ecx, 12)?;
        a.mov(edx, 0x5658)?;
        a.mov(esi, 13)?;
        a.mov(edi, 14)?;
        a.in_(eax, dx)?;
        a.hlt()
    });
    assert_eq!(m.run(), Stop::Halt);
    let sent = [
        (gpr::RAX, MAGIC),
        (gpr::RBX, 11),
        (gpr::RCX, 12),
        (gpr::RDX, 0x5658),
        (gpr::RSI, 13),
        (gpr::RDI, 14),
    ];
    for (register, value) in sent {
        assert_eq!(m.reg(register), u64::from(!value), "register {register}");
    }
    assert!(m.outside.lock().expect("unpoisoned").backdoor.is_empty());
}

#[test]
fn without_the_magic_number_it_is_a_port_like_any_other() {
    let mut m = Machine::new(Mode::Protected);
    m.code(|a| {
        a.mov(eax, MAGIC)?;
        a.mov(edx, 0x5658)?;
        a.in_(ax, dx)?;
        a.mov(ebx, eax)?;
        a.xor(eax, eax)?;
        a.in_(eax, dx)?;
        a.hlt()
    });
    assert_eq!(m.run(), Stop::Halt);
    assert_eq!(m.reg(gpr::RBX), 0x564D_5A5A);
    assert_eq!(m.reg(gpr::RAX), 0x5A5A_5A5A);
    assert_eq!(m.reg(gpr::RDX), 0x5658);
}
