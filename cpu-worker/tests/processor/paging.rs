//! Page walks: SDM vol. 3, chapter 4.

use iced_x86::code_asm::*;
use quintet_cpu_worker::cpuid::Model;
use quintet_cpu_worker::state::{Cr0, Cr4, Efer, gpr};

use crate::machine::*;

const P: u64 = 1;
const RW: u64 = 2;
const US: u64 = 4;
const A: u64 = 0x20;
const D: u64 = 0x40;
const PS: u64 = 0x80;
const NX: u64 = 1 << 63;

/// Bits of the error code.
const WRITE: u32 = 2;
const USER: u32 = 4;
const RESERVED: u32 = 8;
const FETCH: u32 = 16;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Paging {
    Bits32,
    Pae,
    Long,
}

const ALL: [Paging; 3] = [Paging::Bits32, Paging::Pae, Paging::Long];

/// Where accesses go: a page of its own, not code.
const PAGE: u64 = 0x3_0000;

fn paged(paging: Paging) -> Machine {
    let mut m = Machine::new(if paging == Paging::Long {
        Mode::Long
    } else {
        Mode::Protected
    });
    match paging {
        Paging::Bits32 => m.page_32(),
        Paging::Pae => {
            m.page_pae();
            m.cpu.state.efer |= Efer::NXE;
        }
        Paging::Long => {}
    }
    m.cpu.state.cr0 |= Cr0::WP;
    m
}

/// Reads or changes the leaf of [`PAGE`].
fn leaf(m: &Machine, paging: Paging) -> u64 {
    if paging == Paging::Bits32 {
        u64::from(m.read32(Machine::entry_32(PAGE)))
    } else {
        m.read64(Machine::wide_entry(PAGE))
    }
}

fn set_leaf(m: &mut Machine, paging: Paging, v: u64) {
    if paging == Paging::Bits32 {
        m.write32(Machine::entry_32(PAGE), v as u32);
    } else {
        m.write64(Machine::wide_entry(PAGE), v);
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Want {
    Read,
    Write,
    Fetch,
}

/// Accesses [`PAGE`] + 8 from code at [`CODE`]; the error code of the fault, if any.
fn access(m: &mut Machine, want: Want) -> Option<u32> {
    m.write(PAGE + 8, &[0xE6, PORT as u8]);
    m.set(gpr::RBX, PAGE + 8);
    match want {
        Want::Read => m.bytes(&[0x8B, 0x03, 0xE6, PORT as u8]),
        Want::Write => m.bytes(&[0x89, 0x03, 0xE6, PORT as u8]),
        Want::Fetch => m.bytes(&[0xFF, 0xE3]),
    }
    match m.run() {
        Stop::Port => None,
        Stop::Event(e) => {
            assert_eq!((e.vector, m.cpu.state.cr2), (PF, PAGE + 8), "{e:x?}");
            assert_eq!(e.ip, if want == Want::Fetch { PAGE + 8 } else { CODE });
            e.code
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn rights_of_pages_in_every_mode_of_paging() {
    use Want::{Fetch, Read, Write};
    // (leaf, level 3, write protection, access, error code)
    let cases = [
        (P | RW | US, true, true, Write, None),
        (P | US, true, true, Read, None),
        (P | US, true, true, Write, Some(USER | WRITE | 1)),
        (P | US, true, false, Write, Some(USER | WRITE | 1)),
        (P | RW, true, true, Read, Some(USER | 1)),
        (P | RW, true, true, Write, Some(USER | WRITE | 1)),
        (P | RW, false, true, Write, None),
        (P, false, true, Write, Some(WRITE | 1)),
        (P, false, false, Write, None),
        (P | US, false, true, Write, Some(WRITE | 1)),
        (0, false, true, Read, Some(0)),
        (RW | US, true, true, Write, Some(USER | WRITE)),
        (P | RW, true, true, Fetch, Some(USER | 1)),
        (P | US, true, true, Fetch, None),
    ];
    for paging in ALL {
        for (rights, user, wp, want, code) in cases {
            let mut m = paged(paging);
            m.cpu.state.cr0.set(Cr0::WP, wp);
            if user {
                m.user();
            }
            set_leaf(&mut m, paging, PAGE | rights);
            // Fetches are told apart where there is NX only.
            let fetch = want == Fetch && paging != Paging::Bits32;
            let code = code.map(|c| c | if fetch { FETCH } else { 0 });
            assert_eq!(
                access(&mut m, want),
                code,
                "{paging:?} {rights:x} {user} {wp} {want:?}"
            );
        }
    }
}

#[test]
fn rights_are_those_of_all_levels() {
    for (directory, want, code) in [
        (P | US, Want::Write, USER | WRITE | 1),
        (P | RW, Want::Read, USER | 1),
        (RW | US, Want::Read, USER),
    ] {
        let mut m = paged(Paging::Long);
        m.user();
        // A directory entry of its own for a copy of the tables: the address 2 MiB and above.
        m.write64(TABLES + 0x2008, (TABLES + 0x5000) | directory);
        m.set(gpr::RBX, 0x20_0000);
        match want {
            Want::Write => m.bytes(&[0x89, 0x03]),
            _ => m.bytes(&[0x8B, 0x03]),
        }
        m.fault(PF, code);
    }
}

#[test]
fn no_execute_needs_nxe_and_else_is_reserved() {
    for paging in [Paging::Pae, Paging::Long] {
        for user in [false, true] {
            let mut m = paged(paging);
            if user {
                m.user();
            }
            let level = if user { USER } else { 0 };
            set_leaf(&mut m, paging, PAGE | NX | P | RW | US);
            assert_eq!(access(&mut m, Want::Fetch), Some(level | FETCH | 1));
            let mut m = paged(paging);
            set_leaf(&mut m, paging, PAGE | NX | P | RW | US);
            assert_eq!(access(&mut m, Want::Read), None);
            m.cpu.state.efer -= Efer::NXE;
            m.cpu.tlb.flush_all();
            assert_eq!(access(&mut m, Want::Read), Some(RESERVED | 1));
        }
    }
}

#[test]
fn smep_and_smap_keep_the_supervisor_out_of_user_pages() {
    for paging in ALL {
        let mut m = paged(paging);
        m.cpu.state.cr4 |= Cr4::SMEP;
        // The code itself must not be a user page.
        for at in [CODE, HANDLERS] {
            if paging == Paging::Bits32 {
                m.write32(Machine::entry_32(at), at as u32 | 0x63);
            } else {
                m.change(at, US, 0);
            }
        }
        assert_eq!(access(&mut m, Want::Read), None);
        assert_eq!(
            access(&mut m, Want::Fetch),
            Some(FETCH | 1),
            "SMEP tells fetches apart by itself"
        );
    }
    for (flags, want, code) in [
        (0, Want::Read, Some(1)),
        (0, Want::Write, Some(WRITE | 1)),
        (AC, Want::Read, None),
        (AC, Want::Write, None),
        (0, Want::Fetch, None),
    ] {
        let mut m = paged(Paging::Long);
        // Tables and stacks belong to the supervisor, as they must with SMAP.
        for page in (0..0x40).filter(|p| p << 12 != PAGE) {
            m.change(page << 12, US, 0);
        }
        m.cpu.state.cr4 |= Cr4::SMAP;
        m.set_flags(flags);
        assert_eq!(access(&mut m, want), code, "{flags:x} {want:?}");
    }
}

#[test]
fn smap_lets_no_implicit_access_pass_whatever_ac_says() {
    let mut m = paged(Paging::Long);
    for page in (0..0x40).filter(|p| p << 12 != GDT) {
        m.change(page << 12, US, 0);
    }
    m.cpu.state.cr4 |= Cr4::SMAP;
    m.set_flags(AC);
    m.set(gpr::RAX, u64::from(DATA32));
    m.vector(PF, gate(CODE64, Machine::handler(PF), 0x8E, 0));
    m.code(|a| a.mov(ds, ax));
    // Delivering the fault reads the GDT again: double, then triple.
    assert_eq!(m.run(), Stop::Shutdown);
    assert_eq!(m.cpu.state.cr2, GDT + u64::from(CODE64));
}

#[test]
fn reserved_bits_fault_at_every_level() {
    let entry = TABLES + 0x2000;
    // (what is changed, bits set)
    let cases = [
        (Machine::wide_entry(PAGE), 1 << 40),
        (Machine::wide_entry(PAGE), 1 << 51),
        (entry + 8, 1 << 40),
        (TABLES + 0x1000, 1 << 40),
        (TABLES, 1 << 40),
        (TABLES, PS),
        (entry + 8, PS | 1 << 13),
        (entry + 8, PS | 1 << 20),
    ];
    for (at, bits) in cases {
        let mut m = paged(Paging::Long);
        let v = m.read64(at);
        m.set(gpr::RBX, if at == entry + 8 { 0x20_0000 } else { PAGE });
        m.bytes(&[0x8B, 0x03]);
        m.write64(at, v | bits);
        if at >= entry {
            m.fault(PF, RESERVED | 1);
        } else {
            // The code is behind the same entry.
            assert_eq!(m.run(), Stop::Shutdown);
        }
    }
    // PAE: bits 52 to 62, too. 4-level paging ignores them.
    for (paging, code) in [(Paging::Pae, Some(RESERVED | 1)), (Paging::Long, None)] {
        let mut m = paged(paging);
        set_leaf(&mut m, paging, PAGE | 0x67 | 1 << 52);
        assert_eq!(access(&mut m, Want::Read), code);
    }
    // A user access says so, and a write.
    let mut m = paged(Paging::Long);
    m.user();
    set_leaf(&mut m, Paging::Long, PAGE | 0x67 | 1 << 45);
    assert_eq!(access(&mut m, Want::Write), Some(RESERVED | USER | WRITE | 1));
}

#[test]
fn large_pages() {
    // 4 MiB with PSE, its bits 13 to 20 being address bits 32 to 39.
    for (pse, bits, expected) in [
        (true, 0, None),
        (true, 1 << 21, Some(RESERVED | 1)),
        (false, 0, Some(0)),
    ] {
        let mut m = paged(Paging::Bits32);
        m.cpu.state.cr4.set(Cr4::PSE, pse);
        m.write32(TABLES + 4, 0xE7 | bits);
        m.set(gpr::RBX, 0x40_0000 + DATA);
        m.write32(DATA, 0x1357);
        m.bytes(&[0x8B, 0x03, 0xE6, PORT as u8]);
        // Without PSE the entry points to a table at 0, which is empty there.
        match expected {
            Some(code) => assert_eq!(m.event().code, Some(code)),
            None => {
                assert_eq!(m.run(), Stop::Port);
                assert_eq!(m.reg(gpr::RAX), 0x1357);
            }
        }
    }
    // 2 MiB, and 1 GiB where the model has it.
    for (at, entry, linear) in [
        (TABLES + 0x2010, 0xE7, 0x40_0000),
        (TABLES + 0x1008, 0xE7, 0x4000_0000),
    ] {
        let mut m = paged(Paging::Long);
        m.write64(at, entry);
        m.write32(DATA, 0x1357);
        m.set(gpr::RBX, linear + DATA);
        m.bytes(&[0x8B, 0x03, 0xE6, PORT as u8]);
        assert_eq!(m.run(), Stop::Port);
        assert_eq!(m.reg(gpr::RAX), 0x1357);
    }
    let mut m = Machine::with_model(Mode::Long, Model::parse("qemu64").expect("a model"));
    m.write64(TABLES + 0x1008, 0xE7);
    m.set(gpr::RBX, 0x4000_0000);
    m.bytes(&[0x8B, 0x03]);
    m.fault(PF, RESERVED | 1);
}

#[test]
fn accessed_and_dirty_bits_are_set_by_what_happens() {
    for paging in ALL {
        for (want, user, bits) in [
            (Want::Read, false, A),
            (Want::Write, true, A | D),
            (Want::Fetch, true, A),
        ] {
            let mut m = paged(paging);
            if user {
                m.user();
            }
            set_leaf(&mut m, paging, PAGE | P | RW | US);
            assert_eq!(access(&mut m, want), None);
            assert_eq!(leaf(&m, paging) & (A | D), bits, "{paging:?} {want:?}");
        }
        // Read first, so that the translation is known, then written.
        let mut m = paged(paging);
        set_leaf(&mut m, paging, PAGE | P | RW | US);
        assert_eq!(access(&mut m, Want::Read), None);
        assert_eq!(leaf(&m, paging) & D, 0);
        m.set(gpr::RBX, PAGE);
        m.bytes(&[0x8B, 0x03, 0x89, 0x03, 0xE6, PORT as u8]);
        assert_eq!(m.run(), Stop::Port);
        assert_eq!(leaf(&m, paging) & D, D);
        // A write that is refused leaves no D behind.
        let mut m = paged(paging);
        set_leaf(&mut m, paging, PAGE | P);
        assert_eq!(access(&mut m, Want::Write), Some(WRITE | 1));
        assert_eq!(leaf(&m, paging) & D, 0);
    }
    // Entries above are accessed, too.
    let mut m = paged(Paging::Long);
    for at in [TABLES, TABLES + 0x1000, TABLES + 0x2000] {
        let v = m.read64(at) & !A;
        m.write64(at, v);
    }
    assert_eq!(access(&mut m, Want::Read), None);
    for at in [TABLES, TABLES + 0x1000, TABLES + 0x2000] {
        assert_eq!(m.read64(at) & (A | D), A);
    }
}

#[test]
fn pdptes_are_loaded_with_cr3_and_checked() {
    for (bits, good) in [
        (0, true),
        (2, false),
        (1 << 5, false),
        (1 << 40, false),
        (NX, false),
    ] {
        let mut m = paged(Paging::Pae);
        let at = TABLES + 0x1000;
        m.write64(at + 8, 0x1000 | P | bits);
        m.set(gpr::RAX, at);
        m.code(|a| {
            a.mov(cr3, eax)?;
            a.hlt()
        });
        if good {
            assert_eq!(m.run(), Stop::Halt);
            assert_eq!(m.cpu.state.pdptes[1], 0x1001);
        } else {
            m.fault(GP, 0);
        }
    }
    // Changed in memory alone, an entry has no effect before that.
    let mut m = paged(Paging::Pae);
    m.write64(TABLES + 0x1000, 0);
    assert_eq!(access(&mut m, Want::Read), None);
    m.cpu.state.pdptes[0] = 0;
    m.cpu.tlb.flush_all();
    m.bytes(&[0x90]);
    assert_eq!(m.run(), Stop::Shutdown);
}

#[test]
fn an_access_across_two_pages_faults_at_the_second_and_writes_nothing() {
    for paging in ALL {
        let mut m = paged(paging);
        set_leaf(&mut m, paging, 0);
        m.write32(PAGE - 4, 0);
        m.set(gpr::RBX, PAGE - 2);
        m.set(gpr::RAX, u64::MAX);
        m.bytes(&[0x89, 0x03]);
        m.fault(PF, WRITE);
        assert_eq!((m.cpu.state.cr2, m.read32(PAGE - 4)), (PAGE, 0));
        // An instruction, too.
        let mut m = paged(paging);
        set_leaf(&mut m, paging, 0);
        m.write(PAGE - 1, &[0x89]);
        m.at(PAGE - 1);
        let e = m.event();
        let fetch = if paging == Paging::Bits32 { 0 } else { FETCH };
        assert_eq!((e.vector, e.code, e.ip), (PF, Some(fetch), PAGE - 1));
        assert_eq!(m.cpu.state.cr2, PAGE);
    }
}

#[test]
fn addresses_that_are_not_canonical() {
    for (register, vector) in [(3, GP), (5, SS)] {
        let mut m = Machine::new(Mode::Long);
        m.set(register, 1 << 47);
        // MOV EAX, [RBX] and MOV EAX, [RBP + 0].
        if register == 3 {
            m.bytes(&[0x8B, 0x03]);
        } else {
            m.bytes(&[0x8B, 0x45, 0]);
        }
        m.fault(vector, 0);
    }
    let mut m = Machine::new(Mode::Long);
    m.vector(SS, gate(CODE64, Machine::handler(SS), 0x8E, 1));
    m.set(gpr::RSP, (1 << 47) + 0x100);
    m.code(|a| a.push(rax));
    m.fault(SS, 0);
    let mut m = Machine::new(Mode::Long);
    m.set(gpr::RBX, 1 << 47);
    m.code(|a| a.jmp(rbx));
    m.fault(GP, 0);
}

#[test]
fn invlpg_and_cr3_forget_translations() {
    for global in [false, true] {
        let mut m = paged(Paging::Long);
        m.cpu.state.cr4 |= Cr4::PGE;
        m.write32(PAGE, 0x11);
        m.write32(DATA, 0x22);
        set_leaf(&mut m, Paging::Long, PAGE | 0x67 | if global { 0x100 } else { 0 });
        let entry = Machine::wide_entry(PAGE);
        m.set(gpr::RBX, PAGE);
        m.set(gpr::RSI, DATA | 0x67);
        let at = m.code(|a| {
            a.mov(eax, dword_ptr(rbx))?;
            a.mov(qword_ptr(entry), rsi)?;
            a.mov(rcx, cr3)?;
            a.mov(cr3, rcx)?;
            a.mov(ecx, dword_ptr(rbx))?;
            a.invlpg(byte_ptr(rbx))?;
            a.mov(edx, dword_ptr(rbx))?;
            a.hlt()
        });
        assert!(at.len() == 9);
        assert_eq!(m.run(), Stop::Halt);
        assert_eq!(m.reg(gpr::RAX), 0x11);
        assert_eq!(
            m.reg(gpr::RCX),
            if global { 0x11 } else { 0x22 },
            "a global page outlives CR3"
        );
        assert_eq!(m.reg(gpr::RDX), 0x22);
    }
}
