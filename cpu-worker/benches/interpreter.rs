//! How many guest instructions a second a vCPU by itself executes: `cargo bench -p quintet-cpu-worker`. Results stand in
//! `docs/performance.md`.
//!
//! Each guest is an endless loop in 64-bit code with paging, run for a budget of instructions; criterion's elements
//! are instructions.

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use quintet_cpu_worker::exec::{RunExit, Vcpu};
use quintet_cpu_worker::state::CodeSize;
use quintet_protocol::addr::GuestPhys;

// The machine of RAM alone that the instruction tests use; depending on their crate would build all five processes.
#[path = "../../tests/src/snippet.rs"]
mod snippet;

/// Guest RAM, bytes.
const RAM: u64 = 16 << 20;
/// Where the code lies.
const CODE: u64 = 2 << 20;
/// Data, several MiB of it.
const DATA: u64 = 4 << 20;
/// The end of the stack.
const STACK: u64 = 12 << 20;
/// Instructions a sample.
const BUDGET: u64 = 200_000;

type Guest = fn(&mut CodeAssembler) -> Result<(), IcedError>;

/// A vCPU about to execute `guest`.
fn started(guest: Guest) -> Box<Vcpu> {
    let mut code = CodeAssembler::new(64).expect("64-bit code");
    guest(&mut code).expect("operands that exist");
    let bytes = code.assemble(CODE).expect("code that can be encoded");
    let mut cpu = snippet::vcpu(RAM);
    snippet::flat(&mut cpu, CodeSize::Bits64, CODE);
    cpu.mem.ram().write(GuestPhys(CODE), &bytes).expect("in RAM");
    cpu
}

/// Registers only: the cost of an op and of a short block.
fn registers(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut top = a.create_label();
    a.mov(ecx, 1000)?;
    a.set_label(&mut top)?;
    a.add(rax, rcx)?;
    a.xor(rdx, rax)?;
    a.shl(rdx, 3)?;
    a.lea(rbx, rdx + rax * 2 + 5)?;
    a.sub(rax, rbx)?;
    a.dec(ecx)?;
    a.jnz(top)?;
    a.jmp(CODE)
}

/// Loads and stores over 64 KiB, sixteen pages in the TLB.
fn memory(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut top = a.create_label();
    a.mov(rsi, DATA)?;
    a.mov(ecx, 65536 / 16)?;
    a.set_label(&mut top)?;
    a.mov(rax, qword_ptr(rsi))?;
    a.add(rax, rcx)?;
    a.mov(qword_ptr(rsi + 8), rax)?;
    a.add(dword_ptr(rsi), 1)?;
    a.add(rsi, 16)?;
    a.dec(ecx)?;
    a.jnz(top)?;
    a.jmp(CODE)
}

/// Calls, returns and the stack: a block is three or four instructions.
fn calls(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (mut top, mut outer, mut inner) = (a.create_label(), a.create_label(), a.create_label());
    a.mov(rsp, STACK)?;
    a.set_label(&mut top)?;
    a.call(outer)?;
    a.call(inner)?;
    a.jmp(top)?;
    a.set_label(&mut outer)?;
    a.push(rbx)?;
    a.call(inner)?;
    a.pop(rbx)?;
    a.ret()?;
    a.set_label(&mut inner)?;
    a.inc(rax)?;
    a.ret()
}

/// An indirect jump to one of 64 blocks, as a bytecode interpreter's dispatch has it.
fn dispatch(a: &mut CodeAssembler) -> Result<(), IcedError> {
    const BLOCK: u64 = 32;
    const FIRST: u64 = CODE + 64;
    a.mov(ebx, FIRST as u32)?;
    a.mov(eax, 1)?;
    a.jmp(FIRST)?;
    let used = length(a);
    a.nops_with_size((FIRST - CODE) as usize - used)?;
    for _ in 0..64 {
        let before = length(a);
        a.imul_3(eax, eax, 1_664_525)?;
        a.add(eax, 1_013_904_223)?;
        a.mov(ecx, eax)?;
        a.shr(ecx, 26)?;
        a.shl(ecx, 5)?;
        a.add(ecx, ebx)?;
        a.jmp(rcx)?;
        let used = length(a) - before;
        a.nops_with_size(BLOCK as usize - used)?;
    }
    Ok(())
}

/// Bytes assembled so far.
fn length(a: &mut CodeAssembler) -> usize {
    a.assemble(CODE).map_or(0, |bytes| bytes.len())
}

/// Scalar and packed SSE2.
fn sse(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut top = a.create_label();
    a.mov(rsi, DATA)?;
    a.mov(ecx, 1000)?;
    a.cvtsi2sd(xmm1, ecx)?;
    a.movapd(xmm2, xmm1)?;
    a.set_label(&mut top)?;
    a.mulsd(xmm0, xmm1)?;
    a.addsd(xmm0, xmm2)?;
    a.addpd(xmm3, xmm0)?;
    a.movupd(xmmword_ptr(rsi), xmm3)?;
    a.paddd(xmm4, xmm3)?;
    a.dec(ecx)?;
    a.jnz(top)?;
    a.jmp(CODE)
}

/// The x87 stack.
fn x87(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut top = a.create_label();
    a.fninit()?;
    a.fld1()?;
    a.fldpi()?;
    a.mov(ecx, 1000)?;
    a.set_label(&mut top)?;
    a.fld(st0)?;
    a.fmul_2(st0, st1)?;
    a.fadd_2(st0, st2)?;
    a.fstp(st2)?;
    a.fxch(st0, st1)?;
    a.dec(ecx)?;
    a.jnz(top)?;
    a.jmp(CODE)
}

/// Every round overwrites the immediate of an instruction that it then executes.
fn self_modifying(a: &mut CodeAssembler) -> Result<(), IcedError> {
    // mov ebx, imm32 is the first instruction: its immediate is one byte behind CODE.
    a.mov(ebx, 0)?;
    a.inc(eax)?;
    a.mov(rdi, CODE + 1)?;
    a.mov(dword_ptr(rdi), eax)?;
    a.jmp(CODE)
}

/// Every round empties the TLB through CR3 and touches sixteen pages.
fn flushes(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut top = a.create_label();
    a.mov(rax, cr3)?;
    a.mov(cr3, rax)?;
    a.mov(rsi, DATA)?;
    a.mov(ecx, 16)?;
    a.set_label(&mut top)?;
    a.mov(rdx, qword_ptr(rsi))?;
    a.add(rsi, 4096)?;
    a.dec(ecx)?;
    a.jnz(top)?;
    a.jmp(CODE)
}

fn all(c: &mut Criterion) {
    let guests: [(&str, Guest); 8] = [
        ("registers", registers),
        ("memory", memory),
        ("calls", calls),
        ("dispatch", dispatch),
        ("SSE2", sse),
        ("x87", x87),
        ("self-modifying code", self_modifying),
        ("TLB flushes", flushes),
    ];
    let mut group = c.benchmark_group("instructions");
    group
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .throughput(Throughput::Elements(BUDGET));
    for (name, guest) in guests {
        let mut cpu = started(guest);
        group.bench_function(name, |b| {
            b.iter(|| {
                let before = cpu.instructions;
                assert_eq!(cpu.run(BUDGET), RunExit::Budget, "{name}");
                // A loop that faults would triple-fault; one that leaves its code would not count.
                assert!(cpu.instructions - before >= BUDGET, "{name}");
            });
        });
    }
    group.finish();
}

criterion_group!(benches, all);
criterion_main!(benches);
