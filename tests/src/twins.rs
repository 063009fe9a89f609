//! Two vCPUs with the same program, one of which interprets it and the other translates it.

use iced_x86::{Code, Decoder, DecoderOptions, Formatter as _, Instruction, IntelFormatter, Mnemonic};
use quintet_cpu_worker::exec::Vcpu;
use quintet_cpu_worker::fp::Xmm;
use quintet_cpu_worker::state::{Activity, CodeSize, RIP, gpr};
use quintet_protocol::addr::GuestPhys;

use crate::random::Rng;
use crate::snippet;

/// Where the code lies.
pub const CODE: u64 = 0x0040_0F80;
/// Where the data lie, which the registers point into.
pub const DATA: u64 = 0x0050_0000;
/// Bytes of data.
pub const DATA_LEN: usize = 0x4000;
/// Where the stack begins.
pub const STACK: u64 = DATA + 0x3000;

/// Puts `code`, `data` and registers into both vCPUs.
///
/// # Panics
/// When they have no RAM there.
pub fn prepare(cpus: [&mut Vcpu; 2], size: CodeSize, code: &[u8], data: &[u8], seed: u64) {
    for cpu in cpus {
        snippet::flat(cpu, size, CODE);
        cpu.discard_code();
        let ram = cpu.mem.ram().clone();
        ram.write(GuestPhys(CODE), code).expect("in RAM");
        ram.write(GuestPhys(DATA), data).expect("in RAM");
        registers_at_random(cpu, size, seed);
    }
}

fn registers_at_random(cpu: &mut Vcpu, size: CodeSize, seed: u64) {
    let mut rng = Rng(seed.wrapping_mul(0xD129_0B53) | 1);
    for n in 0..16 {
        let v = rng.draw() >> rng.below(64);
        cpu.state.regs[n] = match n {
            gpr::RSP => STACK,
            gpr::RSI => DATA + 0x100 + (v & 0x1F),
            gpr::RDI => DATA + 0x1000 - (v & 0x1F),
            gpr::RBP => DATA + 0x1100,
            _ if size == CodeSize::Bits64 => v,
            _ if n < 8 => v & 0xFFFF_FFFF,
            _ => 0,
        };
    }
    for x in &mut cpu.state.xmm {
        *x = Xmm::new(rng.draw(), rng.draw());
    }
    cpu.state.flags.set_arithmetic(rng.draw());
    cpu.state.mxcsr = 0x1F80;
    cpu.state.activity = Activity::Active;
    cpu.state.cr2 = 0;
}

/// The flags that the manual leaves undefined after `i`, in iced's bits, but for AF after logical instructions: that is clear on all
/// silicon.
pub fn undefined_flags(i: &Instruction) -> u32 {
    let mut i = *i;
    match i.mnemonic() {
        Mnemonic::And | Mnemonic::Or | Mnemonic::Xor | Mnemonic::Test => return 0,
        // Executed as BSF and BSR: CPUID offers neither.
        Mnemonic::Tzcnt => i.set_code(Code::Bsf_r64_rm64),
        Mnemonic::Lzcnt => i.set_code(Code::Bsr_r64_rm64),
        _ => {}
    }
    i.rflags_undefined()
}

/// The program as text.
pub fn show(size: CodeSize, code: &[u8]) -> String {
    let mut text = String::new();
    let mut formatter = IntelFormatter::new();
    let mut decoder = Decoder::with_ip(size.bits(), code, CODE, DecoderOptions::NONE);
    let mut i = Instruction::default();
    while decoder.can_decode() {
        decoder.decode_out(&mut i);
        text.push_str(&format!("{:x}: ", i.ip()));
        formatter.format(&i, &mut text);
        text.push('\n');
    }
    text
}

/// What differs between the registers of two vCPUs after the same program.
pub fn registers(a: &Vcpu, b: &Vcpu) -> Option<String> {
    for n in 0..=RIP {
        if a.state.regs[n] != b.state.regs[n] {
            let (x, y) = (a.state.regs[n], b.state.regs[n]);
            return Some(format!("register {n}: {x:#x} interpreted, {y:#x} translated"));
        }
    }
    if a.state.flags.bits() != b.state.flags.bits() {
        let (x, y) = (a.state.flags.bits(), b.state.flags.bits());
        return Some(format!("flags: {x:#x} interpreted, {y:#x} translated"));
    }
    for n in 0..16 {
        if a.state.xmm[n].quads != b.state.xmm[n].quads {
            return Some(format!(
                "xmm{n}: {:x?} interpreted, {:x?} translated",
                a.state.xmm[n].quads, b.state.xmm[n].quads
            ));
        }
    }
    if a.state.fpu != b.state.fpu {
        let (x, y) = (&a.state.fpu, &b.state.fpu);
        return Some(format!("x87: {x:x?} interpreted,\n     {y:x?} translated"));
    }
    let rest = |cpu: &Vcpu| (cpu.state.mxcsr, cpu.state.cr2, cpu.state.activity);
    (rest(a) != rest(b)).then(|| {
        format!(
            "MXCSR, CR2, activity: {:x?} interpreted, {:x?} translated",
            rest(a),
            rest(b)
        )
    })
}

/// What differs between two vCPUs after the same program.
///
/// # Panics
/// When they have no RAM there.
pub fn difference(a: &Vcpu, b: &Vcpu) -> Option<String> {
    if let Some(what) = registers(a, b) {
        return Some(what);
    }
    let read = |c: &Vcpu| {
        let mut v = vec![0; DATA_LEN];
        c.mem.ram().read(GuestPhys(DATA), &mut v).expect("in RAM");
        v
    };
    let (x, y) = (read(a), read(b));
    if x == y {
        return None;
    }
    x.iter()
        .zip(&y)
        .position(|(x, y)| x != y)
        .map(|at| format!("memory at {:#x}: {:x} and {:x}", DATA + at as u64, x[at], y[at]))
}
