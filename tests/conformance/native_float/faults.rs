//! Which fault a floating-point or SIMD instruction raises, and when.

use crate::native::guest::Guest;
use crate::native::values::Random;
use crate::native::{End, Machine, OPERAND};
use quintet_cpu_worker::cpuid::Model;
use quintet_cpu_worker::exec::Vector;
use quintet_cpu_worker::state::{Cr0, Cr4};

const FADD: &[u8] = &[0xd8, 0xc1];
const FWAIT: &[u8] = &[0x9b];
const FNSTSW_AX: &[u8] = &[0xdf, 0xe0];
const FNCLEX: &[u8] = &[0xdb, 0xe2];
const PADDB_MM: &[u8] = &[0x0f, 0xfc, 0xc1];
const PADDB_XMM: &[u8] = &[0x66, 0x0f, 0xfc, 0xc1];
const DIVPS: &[u8] = &[0x0f, 0x5e, 0xc1];
const MOVAPS_LOAD: &[u8] = &[0x0f, 0x28, 0x06];
const MOVUPS_LOAD: &[u8] = &[0x0f, 0x10, 0x06];
const MOVAPS_STORE: &[u8] = &[0x0f, 0x29, 0x06];
const FXSAVE: &[u8] = &[0x0f, 0xae, 0x06];
const XSAVE: &[u8] = &[0x0f, 0xae, 0x26];
const LDMXCSR: &[u8] = &[0x0f, 0xae, 0x16];
const PCMPISTRI_LOAD: &[u8] = &[0x66, 0x0f, 0x3a, 0x63, 0x06, 0x00];
const PADDB_LOAD: &[u8] = &[0x66, 0x0f, 0xfc, 0x06];

/// The vector that `bytes` raise in a guest prepared by `prepare`, or nothing.
fn fault(bytes: &[u8], prepare: impl FnOnce(&mut Guest, &mut Machine)) -> Option<Vector> {
    let mut guest = Guest::new();
    let at = guest.place(bytes);
    let mut machine = Random::new(3).machine(false);
    // A full, quiet unit.
    machine.fx[0..2].copy_from_slice(&0x037f_u16.to_le_bytes());
    machine.fx[2..4].copy_from_slice(&0_u16.to_le_bytes());
    machine.fx[4] = 0xff;
    prepare(&mut guest, &mut machine);
    let (_, end) = guest.run(at, bytes.len(), &machine);
    (end != End::Completed).then_some(guest.cpu.pending_fault.vector)
}

/// Division by zero pending and unmasked.
fn pending(machine: &mut Machine) {
    machine.fx[0..2].copy_from_slice(&0x037b_u16.to_le_bytes());
    machine.fx[2..4].copy_from_slice(&0x0004_u16.to_le_bytes());
}

#[test]
fn x87_and_mmx_raise_nm_with_ts_and_x87_with_em() {
    for bytes in [FADD, FNSTSW_AX, FNCLEX, PADDB_MM] {
        assert_eq!(fault(bytes, |g, _| g.cpu.state.cr0 |= Cr0::TS), Some(Vector::Nm));
    }
    assert_eq!(fault(FADD, |g, _| g.cpu.state.cr0 |= Cr0::EM), Some(Vector::Nm));
    assert_eq!(
        fault(PADDB_MM, |g, _| g.cpu.state.cr0 |= Cr0::EM),
        Some(Vector::Ud)
    );
}

#[test]
fn fwait_raises_nm_only_with_both_mp_and_ts() {
    assert_eq!(
        fault(FWAIT, |g, _| g.cpu.state.cr0 |= Cr0::TS | Cr0::MP),
        Some(Vector::Nm)
    );
    assert_eq!(fault(FWAIT, |g, _| g.cpu.state.cr0.set(Cr0::MP, false)), None);
    let ts_alone = |g: &mut Guest, _: &mut Machine| {
        g.cpu.state.cr0.set(Cr0::MP, false);
        g.cpu.state.cr0 |= Cr0::TS;
    };
    assert_eq!(fault(FWAIT, ts_alone), None);
}

#[test]
fn a_pending_exception_raises_mf_at_waiting_instructions_only() {
    for bytes in [FADD, FWAIT, PADDB_MM] {
        assert_eq!(fault(bytes, |_, m| pending(m)), Some(Vector::Mf));
    }
    for bytes in [FNSTSW_AX, FNCLEX, PADDB_XMM, FXSAVE] {
        assert_eq!(fault(bytes, |_, m| pending(m)), None);
    }
}

#[test]
fn with_ne_clear_a_pending_exception_raises_no_mf() {
    let without_ne = |g: &mut Guest, m: &mut Machine| {
        g.cpu.state.cr0.set(Cr0::NE, false);
        pending(m);
    };
    assert_eq!(fault(FWAIT, without_ne), None);
}

#[test]
fn sse_raises_ud_without_osfxsr_or_with_em_and_nm_with_ts() {
    assert_eq!(
        fault(PADDB_XMM, |g, _| g.cpu.state.cr4.set(Cr4::OSFXSR, false)),
        Some(Vector::Ud)
    );
    assert_eq!(
        fault(PADDB_XMM, |g, _| g.cpu.state.cr0 |= Cr0::EM),
        Some(Vector::Ud)
    );
    assert_eq!(
        fault(PADDB_XMM, |g, _| g.cpu.state.cr0 |= Cr0::TS),
        Some(Vector::Nm)
    );
    let both = |g: &mut Guest, _: &mut Machine| g.cpu.state.cr0 |= Cr0::TS | Cr0::EM;
    assert_eq!(fault(PADDB_XMM, both), Some(Vector::Ud));
}

#[test]
fn an_unmasked_simd_exception_raises_xm_or_without_osxmmexcpt_ud() {
    let unmask = |m: &mut Machine| {
        m.fx[24..28].copy_from_slice(&0_u32.to_le_bytes());
        m.fx[160..192].fill(0);
    };
    assert_eq!(fault(DIVPS, |_, m| unmask(m)), Some(Vector::Xm));
    let unknown = |g: &mut Guest, m: &mut Machine| {
        unmask(m);
        g.cpu.state.cr4.set(Cr4::OSXMMEXCPT, false);
    };
    assert_eq!(fault(DIVPS, unknown), Some(Vector::Ud));
}

#[test]
fn aligned_forms_raise_gp_off_their_boundary_and_unaligned_forms_do_not() {
    let off = |_: &mut Guest, m: &mut Machine| m.general.rsi = OPERAND + 8;
    for bytes in [MOVAPS_LOAD, MOVAPS_STORE, PADDB_LOAD, FXSAVE] {
        assert_eq!(fault(bytes, off), Some(Vector::Gp));
    }
    for bytes in [MOVUPS_LOAD, PCMPISTRI_LOAD] {
        assert_eq!(fault(bytes, off), None);
    }
}

#[test]
fn xsave_raises_ud_without_osxsave_and_gp_off_64_bytes() {
    assert_eq!(
        fault(XSAVE, |g, _| g.cpu.state.cr4.set(Cr4::OSXSAVE, false)),
        Some(Vector::Ud)
    );
    assert_eq!(
        fault(XSAVE, |_, m| m.general.rsi = OPERAND + 16),
        Some(Vector::Gp)
    );
}

#[test]
fn ldmxcsr_raises_gp_for_a_reserved_bit() {
    let reserved = |_: &mut Guest, m: &mut Machine| {
        m.general.rsi = OPERAND;
        m.memory[..4].copy_from_slice(&0x1_1f80_u32.to_le_bytes());
    };
    assert_eq!(fault(LDMXCSR, reserved), Some(Vector::Gp));
}

#[test]
fn instructions_of_a_masked_feature_raise_ud() {
    let masked: [(&str, &[u8]); 8] = [
        ("max,-mmx", PADDB_MM),
        ("max,-sse", MOVUPS_LOAD),
        ("max,-sse2", PADDB_XMM),
        ("max,-sse4.2", PCMPISTRI_LOAD),
        ("max,-xsave", XSAVE),
        ("max,-fxsr", FXSAVE),
        // AESENC XMM0, XMM1 and FCMOVB ST(0), ST(1).
        ("max,-aes", &[0x66, 0x0f, 0x38, 0xdc, 0xc1]),
        ("max,-cmov", &[0xda, 0xc1]),
    ];
    let machine = Random::new(3).machine(false);
    for (model, bytes) in masked {
        for (name, expected) in [("max", End::Completed), (model, End::Undefined)] {
            let mut guest = Guest::with_model(Model::parse(name).expect("model"));
            let at = guest.place(bytes);
            let mut machine = machine.clone();
            machine.general.rsi = OPERAND;
            let (_, end) = guest.run(at, bytes.len(), &machine);
            assert_eq!(end, expected, "{bytes:02x?} on {name}");
        }
    }
}
