//! Loops whose accesses move evenly, which the translator makes beside host pointers.

use iced_x86::code_asm::*;
use quintet_cpu_worker::state::gpr;

use crate::machine::*;

#[test]
fn the_first_turn_sees_the_flags_from_before_the_loop() {
    const ROUNDS: u64 = 20;
    for mode in [Mode::Protected, Mode::Long] {
        let mut m = Machine::new(mode);
        m.code(|a| {
            let (mut round, mut again) = (a.create_label(), a.create_label());
            a.set_label(&mut round)?;
            a.mov(esi, DATA as u32)?;
            a.mov(ecx, 40)?;
            a.stc()?;
            a.jmp(again)?;
            a.set_label(&mut again)?;
            // The carry of the first turn only; ADD clears it.
            a.adc(ebx, 0)?;
            if mode == Mode::Long {
                a.mov(eax, dword_ptr(rsi))?;
                a.add(rsi, 4)?;
            } else {
                a.mov(eax, dword_ptr(esi))?;
                a.add(esi, 4)?;
            }
            a.dec(ecx)?;
            a.jnz(again)?;
            a.dec(edx)?;
            a.jnz(round)?;
            a.hlt()
        });
        m.set(gpr::RBX, 0);
        m.set(gpr::RDX, ROUNDS);
        assert_eq!(m.run(), Stop::Halt);
        assert_eq!(m.reg(gpr::RBX), ROUNDS, "{mode:?}");
    }
}
