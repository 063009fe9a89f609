//! Code that changes code: what is executed is what memory holds at that moment (SDM vol. 3, 8.1.3 and 11.6), by the
//! processor's own stores without any serializing instruction in between, and by a device's.

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use quintet_cpu_worker::exec::RunExit;
use quintet_cpu_worker::state::{Activity, RIP, gpr, seg};

use crate::machine::*;

/// Rounds of each loop: enough that every block is translated long before the last.
const ROUNDS: u64 = 100;
const SUM: u64 = ROUNDS * (ROUNDS + 1) / 2;

/// Assembles `code`, which is told the addresses of its own instructions, and runs it to HLT.
fn run(mode: Mode, code: impl Fn(&mut CodeAssembler, &[u64]) -> Result<(), IcedError>) -> Machine {
    let mut m = Machine::new(mode);
    let dummy = [CODE + 0x100; 64];
    let at = m.code(|a| code(a, &dummy));
    assert_eq!(m.code(|a| code(a, &at)), at, "addresses do not change lengths");
    m.cpu.discard_code();
    m.set(gpr::RCX, ROUNDS);
    m.set(gpr::RBX, 0);
    assert_eq!(m.run(), Stop::Halt);
    m
}

fn in_both(code: impl Fn(&mut CodeAssembler, &[u64]) -> Result<(), IcedError>) {
    for mode in [Mode::Protected, Mode::Long] {
        assert_eq!(run(mode, &code).reg(gpr::RBX), SUM, "{mode:?}");
    }
}

#[test]
fn a_store_into_the_next_instruction() {
    in_both(|a, at| {
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        a.mov(byte_ptr(at[1] + 1), cl)?;
        a.mov(eax, 0x11)?;
        a.add(ebx, eax)?;
        a.dec(ecx)?;
        a.jnz(again)?;
        a.hlt()
    });
}

#[test]
fn a_store_further_on_in_the_same_block() {
    in_both(|a, at| {
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        a.mov(byte_ptr(at[4] + 1), cl)?;
        a.nop()?;
        a.mov(edx, ecx)?;
        a.xor(edx, edx)?;
        a.mov(eax, 0x11)?;
        a.add(ebx, eax)?;
        a.dec(ecx)?;
        a.jnz(again)?;
        a.hlt()
    });
}

#[test]
fn a_store_into_what_was_executed_before_in_the_same_block() {
    in_both(|a, at| {
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        a.mov(eax, 1)?;
        a.add(ebx, eax)?;
        a.inc(byte_ptr(at[0] + 1))?;
        a.dec(ecx)?;
        a.jnz(again)?;
        a.hlt()
    });
}

#[test]
fn a_store_into_a_block_that_is_jumped_to_directly() {
    in_both(|a, at| {
        let (mut again, mut other, mut on) = (a.create_label(), a.create_label(), a.create_label());
        a.set_label(&mut again)?;
        a.jmp(other)?;
        a.set_label(&mut on)?;
        a.inc(byte_ptr(at[4] + 1))?;
        a.dec(ecx)?;
        a.jnz(again)?;
        a.set_label(&mut other)?;
        a.mov(eax, 1)?;
        a.add(ebx, eax)?;
        a.test(ecx, ecx)?;
        a.jnz(on)?;
        // The last time round ECX is 0, and one more was added.
        a.sub(ebx, eax)?;
        a.hlt()
    });
}

#[test]
fn a_repeated_move_over_the_code_behind_it() {
    in_both(|a, at| {
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        a.mov(dword_ptr(DATA), ecx)?;
        a.mov(esi, DATA as u32)?;
        a.mov(edi, (at[7] + 1) as u32)?;
        a.mov(edx, ecx)?;
        a.mov(ecx, 4)?;
        a.rep().movsb()?;
        a.mov(ecx, edx)?;
        a.mov(eax, 0x11)?;
        a.add(ebx, eax)?;
        a.dec(ecx)?;
        a.jnz(again)?;
        a.hlt()
    });
}

#[test]
fn a_function_that_is_written_anew_before_each_call() {
    /// MOV EAX, imm32; RET.
    const FUNCTION: u64 = 0x9000;
    in_both(|a, _| {
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        a.mov(byte_ptr(FUNCTION), 0xB8)?;
        a.mov(dword_ptr(FUNCTION + 1), ecx)?;
        a.mov(byte_ptr(FUNCTION + 5), 0xC3)?;
        a.call(FUNCTION)?;
        a.add(ebx, eax)?;
        a.dec(ecx)?;
        a.jnz(again)?;
        a.hlt()
    });
}

#[test]
fn a_store_by_another_linear_address_of_the_same_page() {
    /// Mapped to the page of the code.
    const ALIAS: u64 = 0x7_0000;
    let code = |a: &mut CodeAssembler, at: &[u64]| {
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        a.mov(byte_ptr(ALIAS + at[2] % 4096 + 1), cl)?;
        a.nop()?;
        a.mov(eax, 0x11)?;
        a.add(ebx, eax)?;
        a.dec(ecx)?;
        a.jnz(again)?;
        a.hlt()
    };
    let mut m = Machine::new(Mode::Long);
    let at = m.code(|a| code(a, &[CODE + 0x100; 8]));
    m.code(|a| code(a, &at));
    m.write64(Machine::wide_entry(ALIAS), CODE & !0xFFF | 0x67);
    m.cpu.tlb.flush_all();
    m.set(gpr::RCX, ROUNDS);
    m.set(gpr::RBX, 0);
    assert_eq!(m.run(), Stop::Halt);
    assert_eq!(m.reg(gpr::RBX), SUM);
}

/// A jump that was remembered leads to a block that is no more. In segmented code what it is remembered by is more than its linear
/// address; forgetting it by that alone left the vCPU where it was for ever.
#[test]
fn code_that_a_device_writes_over() {
    for mode in [Mode::Real, Mode::Protected, Mode::Long] {
        for segment in [0, 0x40] {
            let mut m = Machine::new(mode);
            m.set(gpr::RCX, ROUNDS);
            m.set(gpr::RBX, 0);
            // inc bx, or two of them; hlt; jmp to the start.
            m.bytes(&[0x66, 0xFF, 0xC3, 0x90, 0x90, 0x90, 0xF4, 0xEB, 0xF7]);
            if mode == Mode::Real {
                m.cpu.state.segs[seg::CS].base = 16 * segment;
                m.cpu.state.regs[RIP] = CODE - 16 * segment;
            }
            m.cpu.discard_code();
            for _ in 0..ROUNDS {
                assert_eq!(m.cpu.run(1000), RunExit::Idle);
                m.cpu.state.activity = Activity::Active;
            }
            m.write(CODE + 3, &[0x66, 0xFF, 0xC3]);
            m.cpu.invalidate_ram_page(CODE / 4096);
            assert_eq!(m.cpu.run(1000), RunExit::Idle);
            assert_eq!(m.reg(gpr::RBX), ROUNDS + 2, "{mode:?} {segment:#x}");
        }
    }
}
