//! Loops that lie in two pages: the second may change, go away, or never have been reached, whatever is known of it from turns before.

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use quintet_cpu_worker::exec::RunExit;
use quintet_cpu_worker::state::{Activity, gpr};

use crate::machine::*;

/// The page behind that of [`CODE`].
const SECOND: u64 = CODE + 0x1000;
/// The accessed bit.
const ACCESSED: u64 = 1 << 5;
const ROUNDS: u64 = 100;

/// Assembles `code` so that its instruction `n` lies at the start of the second page or, if it `crosses`, from the byte before on. Gives the places of its
/// instructions.
fn across(
    m: &mut Machine,
    n: usize,
    crosses: bool,
    code: impl Fn(&mut CodeAssembler) -> Result<(), IcedError>,
) -> Vec<u64> {
    let first = m.assemble(CODE, &code)[n] - CODE;
    let start = SECOND - first - u64::from(crosses);
    let places = m.assemble(start, &code);
    assert_eq!(places[n], SECOND - u64::from(crosses), "the same code");
    m.cpu.discard_code();
    m.at(start);
    places
}

/// Runs on without a look at whether memory was changed from outside.
fn go_on(m: &mut Machine, at: u64, turns: u64) -> RunExit {
    m.at(at);
    m.set(gpr::RCX, turns);
    m.cpu.state.activity = Activity::Active;
    m.cpu.run(100_000)
}

/// Counts turns in EBX before the second page and in EDX there. If ESI is not 0, leaves before that for the third.
fn counting(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (mut again, mut out) = (a.create_label(), a.create_label());
    a.set_label(&mut again)?;
    a.add(ebx, 1)?;
    a.test(esi, esi)?;
    a.jnz(out)?;
    a.add(edx, 1)?;
    a.dec(ecx)?;
    a.jnz(again)?;
    a.hlt()?;
    a.db(&[0x90; 4096])?;
    a.set_label(&mut out)?;
    a.hlt()
}

#[test]
fn a_store_into_the_part_in_the_other_page() {
    for mode in [Mode::Protected, Mode::Long] {
        let mut m = Machine::new(mode);
        across(&mut m, 2, false, |a| {
            let mut again = a.create_label();
            a.set_label(&mut again)?;
            a.add(ebx, eax)?;
            a.mov(byte_ptr(SECOND + 1), cl)?;
            a.mov(eax, 0x11)?;
            a.dec(ecx)?;
            a.jnz(again)?;
            a.add(ebx, eax)?;
            a.hlt()
        });
        m.set(gpr::RAX, 0);
        m.set(gpr::RBX, 0);
        m.set(gpr::RCX, ROUNDS);
        assert_eq!(m.run(), Stop::Halt);
        assert_eq!(m.reg(gpr::RBX), ROUNDS * (ROUNDS + 1) / 2, "{mode:?}");
    }
}

#[test]
fn the_other_page_goes_away() {
    for crosses in [false, true] {
        let mut m = Machine::new(Mode::Long);
        let places = across(&mut m, 3, crosses, counting);
        for r in [gpr::RBX, gpr::RDX, gpr::RSI] {
            m.set(r, 0);
        }
        assert_eq!(go_on(&mut m, places[0], ROUNDS), RunExit::Idle);
        assert_eq!((m.reg(gpr::RBX), m.reg(gpr::RDX)), (ROUNDS, ROUNDS));

        m.write64(Machine::wide_entry(SECOND), 0);
        m.cpu.tlb.flush_all();
        go_on(&mut m, places[0], ROUNDS);
        let event = m.event();
        assert_eq!((event.vector, event.ip), (PF, places[3]), "crosses: {crosses}");
        assert_eq!(m.cpu.state.cr2, SECOND);
        assert_eq!((m.reg(gpr::RBX), m.reg(gpr::RDX)), (ROUNDS + 1, ROUNDS));
    }
}

#[test]
fn a_turn_that_leaves_before_it_has_not_accessed_the_other_page() {
    let mut m = Machine::new(Mode::Long);
    let places = across(&mut m, 3, true, counting);
    for r in [gpr::RBX, gpr::RDX, gpr::RSI] {
        m.set(r, 0);
    }
    assert_eq!(go_on(&mut m, places[0], ROUNDS), RunExit::Idle);
    let leaf = Machine::wide_entry(SECOND);
    let accessed = |m: &Machine| m.read64(leaf) & ACCESSED != 0;
    let entry = m.read64(leaf);
    m.write64(leaf, entry & !ACCESSED);
    m.cpu.tlb.flush_all();

    m.set(gpr::RSI, 1);
    assert_eq!(go_on(&mut m, places[0], ROUNDS), RunExit::Idle);
    assert!(!accessed(&m), "nothing there was fetched");
    m.set(gpr::RSI, 0);
    assert_eq!(go_on(&mut m, places[0], ROUNDS), RunExit::Idle);
    assert!(accessed(&m));
    assert_eq!((m.reg(gpr::RBX), m.reg(gpr::RDX)), (2 * ROUNDS + 1, 2 * ROUNDS));
}
