//! gdb's remote protocol against a vCPU: what `cpu_worker::gdb` and `exec::hold` promise, interpreted and translated.

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use quintet_cpu_worker::exec::{RunExit, Stepped, Vcpu};
use quintet_cpu_worker::gdb::{Session, Stop, Wanted};
use quintet_cpu_worker::jit::{CodeMemory, Jit};
use quintet_cpu_worker::state::{Cr0, gpr};

use crate::machine::*;

/// A machine and the debugger connected to it.
struct Debugged {
    m: Machine,
    session: Session,
}

fn packet(body: &str) -> Vec<u8> {
    let sum = body.bytes().fold(0u8, u8::wrapping_add);
    format!("${body}#{sum:02x}").into_bytes()
}

/// The body of the last packet in what the stub has sent, runs of equal characters written out.
fn body(sent: &[u8]) -> String {
    let text = String::from_utf8_lossy(sent);
    let Some((_, rest)) = text.rsplit_once('$') else {
        return String::new();
    };
    let packed = rest.split('#').next().unwrap_or_default();
    let mut out = String::new();
    let mut chars = packed.chars();
    while let Some(c) = chars.next() {
        if c == '*' {
            let count = chars.next().expect("a count") as usize - 29;
            let last = out.chars().last().expect("something to repeat");
            out.extend(std::iter::repeat_n(last, count));
        } else {
            out.push(c);
        }
    }
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

impl Debugged {
    fn new(mode: Mode, jit: bool) -> Self {
        let mut m = Machine::new(mode);
        m.cpu.jit = jit
            .then(|| CodeMemory::new(1 << 20).expect("memory for code"))
            .and_then(|memory| Jit::new(memory, 2));
        let session = Session::new(&mut m.cpu);
        Self { m, session }
    }

    /// With code at [`CODE`]; gives the addresses of its instructions.
    fn with(
        mode: Mode,
        jit: bool,
        code: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
    ) -> (Self, Vec<u64>) {
        let mut d = Self::new(mode, jit);
        let at = d.m.code(code);
        (d, at)
    }

    fn cpu(&mut self) -> &mut Vcpu {
        &mut self.m.cpu
    }

    /// Sends a packet and answers the body of the reply.
    fn ask(&mut self, request: &str) -> String {
        let answer = self.session.feed(&mut self.m.cpu, &packet(request));
        answer.unwrap_or_else(|e| panic!("{request}: {e}"));
        body(&self.session.take_output())
    }

    #[track_caller]
    fn done(&mut self, request: &str) {
        assert_eq!(self.ask(request), "OK", "{request}");
    }

    /// Sends a request to go on, lets the vCPU do so until it stops, and answers what the stub says of it; "" when
    /// the guest halts instead.
    fn go(&mut self, request: &str) -> String {
        assert_eq!(self.ask(request), "");
        assert!(!self.session.holds());
        match self.session.take_wanted(&mut self.m.cpu) {
            Some(Wanted::Continue) => {}
            Some(Wanted::Step { .. }) => {
                if self.cpu().step_held() == Stepped::Asleep {
                    return String::new();
                }
                let point = self.cpu().take_held().map(Stop::Point);
                return self.stopped(point.unwrap_or(Stop::Stepped));
            }
            None => panic!("{request} is no request to go on"),
        }
        match self.cpu().run(1_000_000) {
            RunExit::Held => {
                let held = self.cpu().take_held().expect("a reason");
                self.stopped(Stop::Point(held))
            }
            RunExit::Idle => String::new(),
            other => panic!("{other:?} at {:#x}", self.m.cpu.rip()),
        }
    }

    fn stopped(&mut self, stop: Stop) -> String {
        let told = self.session.stopped(&mut self.m.cpu, stop);
        told.expect("the stub is told");
        assert!(self.session.holds());
        body(&self.session.take_output())
    }

    /// Continues past what the vCPU stands at, as gdb does: with its breakpoint taken out.
    fn past(&mut self, breakpoint: u64) -> String {
        self.done(&format!("z0,{breakpoint:x},1"));
        self.go("s");
        self.done(&format!("Z0,{breakpoint:x},1"));
        self.go("c")
    }

    fn registers(&mut self) -> String {
        self.ask("g")
    }
}

#[test]
fn the_description_names_what_gdb_knows_and_matches_the_registers() {
    for (model, rip) in [("max", "rip"), ("pentium3", "eip")] {
        let model = quintet_cpu_worker::cpuid::Model::parse(model).expect("a model");
        let mut m = Machine::with_model(Mode::Protected, model);
        let session = Session::new(&mut m.cpu);
        let mut d = Debugged { m, session };
        let mut xml = String::new();
        loop {
            let part = d.ask(&format!("qXfer:features:read:target.xml:{:x},800", xml.len()));
            xml.push_str(&part[1..]);
            if part.starts_with('l') {
                break;
            }
        }
        for name in [
            "org.gnu.gdb.i386.core",
            "org.gnu.gdb.i386.sse",
            &format!("\"{rip}\""),
        ] {
            assert!(xml.contains(name), "{name}");
        }
        let bits: usize = xml
            .split("bitsize=\"")
            .skip(1)
            .map(|r| {
                r.split('"')
                    .next()
                    .expect("a number")
                    .parse::<usize>()
                    .expect("bits")
            })
            .sum();
        assert_eq!(d.registers().len(), bits / 4);
    }
}

#[test]
fn a_breakpoint_stops_before_its_instruction_every_time_and_is_not_in_memory() {
    for jit in [false, true] {
        let (mut d, at) = Debugged::with(Mode::Long, jit, |a| {
            let mut again = a.create_label();
            a.mov(ecx, 100)?;
            a.set_label(&mut again)?;
            a.add(rax, 3)?;
            a.inc(rbx)?;
            a.dec(ecx)?;
            a.jne(again)?;
            a.hlt()
        });
        let before = d.ask(&format!("m{CODE:x},20"));
        // In the middle of what is one block without it.
        let place = at[2];
        d.done(&format!("Z0,{place:x},1"));
        assert_eq!(d.ask(&format!("m{CODE:x},20")), before);
        assert!(d.go("c").contains("swbreak"));
        for turn in 0..99 {
            assert_eq!((d.cpu().rip(), d.m.reg(gpr::RBX)), (place, turn), "jit {jit}");
            assert_eq!(d.m.reg(gpr::RAX), 3 * (turn + 1));
            assert!(d.past(place).contains("swbreak"));
        }
        d.done(&format!("z0,{place:x},1"));
        assert_eq!(d.go("c"), "");
        assert_eq!((d.m.reg(gpr::RBX), d.m.reg(gpr::RAX)), (100, 300));
        assert_eq!(d.cpu().rip(), at[6]);
    }
}

/// A guard stands wherever an address has the low bits of a breakpoint's.
#[test]
fn a_guard_in_the_first_block_of_all_is_not_counted() {
    for jit in [false, true] {
        let (mut d, _) = Debugged::with(Mode::Long, jit, |a| {
            a.nop()?;
            a.nop()?;
            a.hlt()
        });
        assert_eq!(d.cpu().instructions, 0);
        d.done(&format!("Z0,{:x},1", CODE + 0x1000));
        assert_eq!(d.go("c"), "");
        assert!(d.cpu().instructions <= 3, "jit {jit}: {}", d.cpu().instructions);
    }
}

#[test]
fn a_breakpoint_set_in_code_that_has_been_translated_stops_and_one_removed_does_not() {
    for jit in [false, true] {
        let (mut d, at) = Debugged::with(Mode::Long, jit, |a| {
            let mut again = a.create_label();
            let mut sub = a.create_label();
            a.set_label(&mut again)?;
            a.call(sub)?;
            a.dec(ecx)?;
            a.jne(again)?;
            a.hlt()?;
            a.set_label(&mut sub)?;
            a.inc(rbx)?;
            a.inc(rdx)?;
            a.ret()
        });
        for (round, hardware) in [(0u64, 0), (1, 1), (2, 0)] {
            d.m.at(CODE);
            d.m.set(gpr::RCX, 1000);
            assert_eq!(d.go("c"), "");
            d.m.at(CODE);
            d.m.set(gpr::RCX, 1000);
            let place = at[5];
            d.done(&format!("Z{hardware},{place:x},1"));
            let stop = d.go("c");
            assert!(
                stop.contains(if hardware == 1 { "hwbreak" } else { "swbreak" }),
                "{stop}"
            );
            assert_eq!(
                (d.cpu().rip(), d.m.reg(gpr::RBX)),
                (place, 1000 + round * 2000 + 1)
            );
            d.done(&format!("z{hardware},{place:x},1"));
            assert_eq!(d.go("c"), "");
            assert_eq!(d.m.reg(gpr::RBX), 2000 * (round + 1));
        }
    }
}

#[test]
fn a_thousand_stops_agree_between_translated_and_interpreted_code() {
    let program = |a: &mut CodeAssembler| {
        let (mut outer, mut inner, mut skip) = (a.create_label(), a.create_label(), a.create_label());
        a.mov(r12, DATA)?;
        a.set_label(&mut outer)?;
        a.mov(ecx, 7)?;
        a.set_label(&mut inner)?;
        a.add(rax, rcx)?;
        a.rol(rax, 5)?;
        a.mov(qword_ptr(r12 + rcx * 8), rax)?;
        a.xor(rbx, qword_ptr(r12 + rcx * 8 - 8))?;
        a.test(al, 4)?;
        a.je(skip)?;
        a.push(rax)?;
        a.adc(rdx, 1)?;
        a.pop(rsi)?;
        a.set_label(&mut skip)?;
        a.movq(xmm1, rbx)?;
        a.paddq(xmm0, xmm1)?;
        a.dec(ecx)?;
        a.jne(inner)?;
        a.inc(r13)?;
        a.jmp(outer)
    };
    let (mut one, at) = Debugged::with(Mode::Long, false, program);
    let (mut other, _) = Debugged::with(Mode::Long, true, program);
    // An instruction of the inner loop after another, and sometimes one that is met once in seven turns.
    let mut places = (2..at.len() - 2).cycle();
    for n in 0..1000 {
        let place = at[places.next().expect("endless")];
        let mut stops = [&mut one, &mut other].map(|d| {
            if d.cpu().rip() == place {
                let _ = d.go("s");
            }
            d.done(&format!("Z0,{place:x},1"));
            let stop = d.go("c");
            d.done(&format!("z0,{place:x},1"));
            let step = d.go("s");
            (stop, step, d.registers())
        });
        let second = stops[1].clone();
        assert_eq!(&mut stops[0], &second, "stop {n} at {place:#x}");
    }
    assert_eq!(
        one.ask(&format!("m{DATA:x},40")),
        other.ask(&format!("m{DATA:x},40"))
    );
}

#[test]
fn watchpoints_stop_behind_the_access_and_for_no_other_on_the_page() {
    for jit in [false, true] {
        let (mut d, at) = Debugged::with(Mode::Long, jit, |a| {
            let mut again = a.create_label();
            a.mov(ebx, DATA as u32)?;
            a.set_label(&mut again)?;
            a.mov(dword_ptr(rbx), ecx)?;
            a.mov(eax, dword_ptr(rbx + 16))?;
            a.mov(qword_ptr(rbx + 28), rcx)?;
            a.inc(dword_ptr(rbx + 0x800))?;
            a.dec(ecx)?;
            a.jne(again)?;
            a.hlt()
        });
        d.m.set(gpr::RCX, 50);
        // Hot before anything is watched.
        assert_eq!(d.go("c"), "");
        for (set, behind, kind) in [
            (format!("2,{:x},4", DATA + 32), at[4], "watch"),
            (format!("3,{:x},1", DATA + 17), at[3], "rwatch"),
            (format!("4,{:x},2", DATA + 2), at[2], "awatch"),
        ] {
            d.m.at(CODE);
            d.m.set(gpr::RCX, 50);
            d.done(&format!("Z{set}"));
            for turn in 0..40 {
                let stop = d.go("c");
                assert!(
                    stop.contains(&format!(";{kind}:")) || stop.contains(&format!("{kind}:")),
                    "{stop}"
                );
                assert_eq!(
                    (d.cpu().rip(), d.m.reg(gpr::RCX)),
                    (behind, 50 - turn),
                    "jit {jit}, {kind}"
                );
            }
            d.done(&format!("z{set}"));
            assert_eq!(d.go("c"), "");
        }
    }
}

#[test]
fn a_watched_run_of_a_string_instruction_stops_between_two_elements() {
    for jit in [false, true] {
        let (mut d, at) = Debugged::with(Mode::Long, jit, |a| {
            a.mov(edi, DATA as u32)?;
            a.mov(ecx, 64)?;
            a.rep().stosd()?;
            a.hlt()
        });
        d.done(&format!("Z2,{:x},4", DATA + 80));
        assert!(d.go("c").contains("watch"));
        assert_eq!((d.cpu().rip(), d.m.reg(gpr::RCX)), (at[2], 43));
        assert_eq!(d.go("c"), "");
        assert_eq!((d.cpu().rip(), d.m.reg(gpr::RCX)), (at[4], 0));
    }
}

#[test]
fn a_fault_before_a_watched_write_does_not_count() {
    let (mut d, at) = Debugged::with(Mode::Protected, false, |a| {
        a.mov(eax, dword_ptr(DATA))?;
        a.hlt()
    });
    d.done(&format!("Z4,{DATA:x},4"));
    // A read that its segment does not allow.
    d.m.describe(FREE, descriptor(0, 0xFFF, 0x0093));
    d.m.force(quintet_cpu_worker::state::seg::DS, FREE);
    assert_eq!(d.go("c"), "");
    assert_eq!(d.cpu().rip(), Machine::handler(GP) + 1);
    assert_eq!(at[0], CODE);
}

#[test]
fn a_step_is_one_instruction_without_tf_and_without_interrupts() {
    for jit in [false, true] {
        let (mut d, at) = Debugged::with(Mode::Long, jit, |a| {
            a.sti()?;
            a.pushfq()?;
            a.pop(rax)?;
            a.int(0x40)?;
            a.hlt()
        });
        d.m.outside.lock().expect("unpoisoned").interrupt = Some(0x50);
        // A breakpoint where it stands does not hold a step back.
        d.done(&format!("Z0,{CODE:x},1"));
        for &next in &at[1..=3] {
            assert!(d.go("s").contains("05"));
            assert_eq!(d.cpu().rip(), next);
        }
        assert_eq!(d.m.reg(gpr::RAX) & (TF | IF), IF);
        let _ = d.go("s");
        assert_eq!(d.cpu().rip(), Machine::handler(0x40));
        // Its HLT: IF is clear in it.
        let _ = d.go("s");
        assert_eq!(d.go("s"), "", "asleep");
        d.m.outside.lock().expect("unpoisoned").nmi = true;
        assert_eq!(d.cpu().step_held(), Stepped::Done);
        assert_eq!(d.cpu().rip(), Machine::handler(2));
        // Running on, the interrupt comes when IF is set again.
        assert!(d.m.outside.lock().expect("unpoisoned").interrupt.is_some());
    }
}

#[test]
fn a_breakpoint_behind_sti_leaves_the_interrupt_shadow_as_it_is() {
    for jit in [false, true] {
        let (mut d, at) = Debugged::with(Mode::Long, jit, |a| {
            a.sti()?;
            a.nop()?;
            a.nop()?;
            a.hlt()
        });
        d.m.outside.lock().expect("unpoisoned").interrupt = Some(0x50);
        d.done(&format!("Z0,{:x},1", at[1]));
        assert!(d.go("c").contains("swbreak"));
        assert_eq!(d.cpu().rip(), at[1]);
        d.done(&format!("z0,{:x},1", at[1]));
        assert_eq!(d.go("c"), "");
        // It came behind the instruction that STI protects.
        let frame = d.m.reg(gpr::RSP);
        assert_eq!(
            (d.cpu().rip(), d.m.read64(frame)),
            (Machine::handler(0x50) + 1, at[2])
        );
    }
}

#[test]
fn memory_is_read_through_the_page_tables_without_a_trace() {
    let (mut d, _) = Debugged::with(Mode::Long, false, |a| a.hlt());
    d.m.write64(DATA + 0xFF8, 0x1122_3344_5566_7788);
    let tables: Vec<u8> = (0..0x8000).map(|n| d.m.cpu.mem.read::<u8>(TABLES + n)).collect();
    assert_eq!(d.ask(&format!("m{:x},8", DATA + 0xFF8)), "8877665544332211");
    d.done(&format!("M{:x},4:a1b2c3d4", DATA + 0xFFE));
    assert_eq!(d.ask(&format!("m{:x},4", DATA + 0xFFE)), "a1b2c3d4");
    let after: Vec<u8> = (0..0x8000).map(|n| d.m.cpu.mem.read::<u8>(TABLES + n)).collect();
    assert!(tables == after, "accessed or dirty bits were set");
    // Not mapped, not canonical, wrapping round, and no memory at all.
    for at in ["7fff00000000", "800000000000", "fffffffffffffffc"] {
        assert!(d.ask(&format!("m{at},8")).starts_with('E'), "{at}");
        assert!(d.ask(&format!("M{at},1:00")).starts_with('E'), "{at}");
    }
    d.done("Qqemu.PhyMemMode:1");
    assert_eq!(d.ask("qqemu.PhyMemMode"), "1");
    assert_eq!(d.ask(&format!("m{:x},2", DATA + 0xFFE)), "a1b2");
    // Half of it behind the end of RAM.
    assert_eq!(d.ask("m3ffffc,8").len(), 8);
    assert!(d.ask("M3ffffc,8:0000000000000000").starts_with('E'));
}

#[test]
fn code_written_by_the_debugger_executes() {
    for jit in [false, true] {
        let (mut d, at) = Debugged::with(Mode::Long, jit, |a| {
            let mut again = a.create_label();
            a.set_label(&mut again)?;
            a.inc(eax)?;
            a.dec(ecx)?;
            a.jne(again)?;
            a.hlt()
        });
        d.m.set(gpr::RCX, 100);
        assert_eq!(d.go("c"), "");
        assert_eq!(d.m.reg(gpr::RAX), 100);
        // DEC EAX in place of INC EAX.
        d.done(&format!("M{:x},2:ffc8", at[0]));
        d.m.at(CODE);
        d.m.set(gpr::RCX, 100);
        assert_eq!(d.go("c"), "");
        assert_eq!(d.m.reg(gpr::RAX), 0);
    }
}

#[test]
fn registers_are_written_one_by_one_and_what_the_processor_does_not_take_is_refused() {
    let (mut d, _) = Debugged::with(Mode::Long, false, |a| a.hlt());
    d.done(&format!("P0={}", hex(&0x1234_5678_9ABC_DEF0u64.to_le_bytes())));
    assert_eq!(d.m.reg(gpr::RAX), 0x1234_5678_9ABC_DEF0);
    assert_eq!(d.ask("p0"), hex(&0x1234_5678_9ABC_DEF0u64.to_le_bytes()));
    // XMM3, ST(2), EFLAGS, FS base.
    d.done(&format!("P2b={}", hex(&[7; 16])));
    assert_eq!(d.m.cpu.state.xmm[3].to_bytes(), [7; 16]);
    d.done(&format!("P1a={}", hex(&[1, 2, 3, 4, 5, 6, 7, 0x88, 0xFF, 0x3F])));
    assert_eq!(d.ask("p1a"), "01020304050607 88ff3f".replace(' ', ""));
    d.done("P11=d70a0000");
    assert_eq!(d.m.flags() & 0xFFF, 0xAD7);
    d.done("P39=0000008000000000");
    assert!(d.ask("P39=0000000000800000").starts_with('E'), "not canonical");
    // CS in protected mode, and paging off in long mode.
    assert!(d.ask("P12=10000000").starts_with('E'));
    let number = 60;
    assert_eq!(
        d.ask(&format!("p{number:x}")),
        hex(&d.m.cpu.state.cr0.bits().to_le_bytes())
    );
    assert!(d.ask(&format!("P{number:x}=1100000000000000")).starts_with('E'));
    assert!(d.m.cpu.state.cr0.contains(Cr0::PG));
    // What does not change can always be written: gdb restores everything after a call.
    let all = d.registers();
    d.done(&format!("G{all}"));
    assert_eq!(d.registers(), all);
    // No such register, and the wrong width.
    assert!(d.ask("p1000").starts_with('E') || d.ask("p1000").is_empty());
    assert!(d.ask("P0=00").starts_with('E'));
}

#[test]
fn monitor_commands_answer() {
    let (mut d, _) = Debugged::with(Mode::Long, true, |a| a.hlt());
    let mut monitor = |line: &str| {
        let request = format!("qRcmd,{}", hex(line.as_bytes()));
        let fed = d.session.feed(&mut d.m.cpu, &packet(&request));
        fed.expect("understood");
        let sent = d.session.take_output();
        let text = String::from_utf8_lossy(&sent);
        let console = text.split("$O").nth(1).unwrap_or_default();
        let mut packed = body(format!("${console}").as_bytes());
        packed.retain(|c| c.is_ascii_hexdigit());
        let bytes = packed
            .as_bytes()
            .chunks_exact(2)
            .filter_map(|p| u8::from_str_radix(core::str::from_utf8(p).ok()?, 16).ok());
        String::from_utf8(bytes.collect()).expect("text")
    };
    assert!(monitor("help").contains("translate"));
    assert!(monitor("registers").contains("efer=0xd01"));
    assert!(monitor("rdmsr 0x277").contains("0x7040600070406"));
    assert!(monitor("wrmsr 0x277 0xff").contains("does not take"));
    assert!(monitor("translate 0x10000").contains("0x10000"));
    assert!(monitor("xp 0x8000 4").contains("008000: f4"));
    assert!(monitor("jit").contains("translations"));
    assert!(monitor("make coffee").contains("not understood"));
}

#[test]
fn no_packet_is_too_bad() {
    let (mut d, _) = Debugged::with(Mode::Long, false, |a| a.hlt());
    let mut seed = 0x9E37_79B9_7F4A_7C15u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let starts = [
        "m",
        "M",
        "X",
        "g",
        "G",
        "p",
        "P",
        "Z0,",
        "z2,",
        "vCont;",
        "qXfer:features:read:",
        "H",
        "qRcmd,",
        "QC",
        "c",
        "s",
        "D",
        "qSupported:",
        "vKill",
        "?",
        "",
        "T",
    ];
    for n in 0..20_000 {
        let mut bytes = starts[random() as usize % starts.len()].as_bytes().to_vec();
        for _ in 0..random() % 24 {
            let alphabet = b"0123456789abcdef,;:.-+=*#$}\x03\x80\xFFzZr";
            bytes.push(alphabet[random() as usize % alphabet.len()]);
        }
        let mut whole = vec![b'$'];
        whole.extend_from_slice(&bytes);
        let sum = bytes.iter().fold(0u8, |a, b| a.wrapping_add(*b));
        whole.extend(format!("#{sum:02x}").bytes());
        let fed = d.session.feed(&mut d.m.cpu, &whole);
        let _ = d.session.take_output();
        if fed.is_err() || d.session.is_over() || !d.session.holds() || n % 50 == 0 {
            d.session = Session::new(&mut d.m.cpu);
        }
    }
    assert_eq!(
        Debugged::with(Mode::Real, false, |a| a.hlt()).0.ask("?")[..3],
        *"T05"
    );
}

#[test]
fn an_interrupt_stops_what_runs_and_the_end_of_a_session_takes_its_points_away() {
    let (mut d, at) = Debugged::with(Mode::Long, false, |a| {
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        a.inc(eax)?;
        a.jmp(again)
    });
    d.done(&format!("Z0,{:x},1", at[2] + 0x100));
    assert_eq!(d.ask("c"), "");
    let _ = d.session.take_wanted(&mut d.m.cpu);
    assert_eq!(d.cpu().run(10_000), RunExit::Budget);
    d.session.feed(&mut d.m.cpu, &[3]).expect("an interrupt");
    assert!(d.session.holds());
    assert_eq!(body(&d.session.take_output()), "S02");
    d.done(&format!("Z0,{:x},1", at[1]));
    d.session.feed(&mut d.m.cpu, &packet("D")).expect("detached");
    assert!(d.session.is_over());
    d.session = Session::new(&mut d.m.cpu);
    assert_eq!(d.cpu().run(10_000), RunExit::Budget);
}

#[test]
fn a_breakpoint_that_is_never_met_costs_next_to_nothing() {
    let program = |a: &mut CodeAssembler| {
        let (mut again, mut sub) = (a.create_label(), a.create_label());
        a.set_label(&mut again)?;
        a.call(sub)?;
        a.add(rax, rcx)?;
        a.dec(ecx)?;
        a.jne(again)?;
        a.hlt()?;
        a.set_label(&mut sub)?;
        a.mov(rdx, qword_ptr(rsp))?;
        a.xor(rbx, rdx)?;
        a.ret()
    };
    let (mut plain, _) = Debugged::with(Mode::Long, true, program);
    let (mut points, at) = Debugged::with(Mode::Long, true, program);
    // At the same offsets of another page, and one that is never executed.
    for place in at.iter().map(|at| at + 0x4000).chain([CODE + 0x200]) {
        points.done(&format!("Z0,{place:x},1"));
    }
    let run = |d: &mut Debugged| {
        d.m.at(CODE);
        d.m.set(gpr::RCX, 100_000);
        let start = std::time::Instant::now();
        assert_eq!(d.go("c"), "");
        start.elapsed().as_secs_f64()
    };
    let (mut least, mut least_with) = (f64::MAX, f64::MAX);
    for _ in 0..200 {
        least = least.min(run(&mut plain));
        least_with = least_with.min(run(&mut points));
    }
    let cost = least_with / least - 1.0;
    eprintln!("a breakpoint that is never met costs {:.2} %", 100.0 * cost);
    // 2 % are wanted; the rest is for hosts that do other things meanwhile.
    assert!(cost < 0.1, "{cost}");
}

#[test]
fn a_breakpoint_is_met_in_the_mapping_that_it_was_set_in_and_in_no_other() {
    for jit in [false, true] {
        let (mut d, at) = Debugged::with(Mode::Long, jit, |a| {
            let mut again = a.create_label();
            a.set_label(&mut again)?;
            a.inc(eax)?;
            a.add(rbx, 5)?;
            a.dec(ecx)?;
            a.jne(again)?;
            a.hlt()
        });
        // The page of the code is mapped a second time.
        let other = 0x3F_0000 + CODE % 4096;
        d.m.write64(TABLES + 0x4000 + 8 * (0x3F_0000 >> 12), CODE & !0xFFF | 0x67);
        let place = at[1] - CODE + other;
        let run = |d: &mut Debugged, from: u64| {
            d.m.at(from);
            d.m.set(gpr::RCX, 50);
            d.go("c")
        };
        // Found by the first mapping, before and after the breakpoint is set in the second.
        assert_eq!(run(&mut d, CODE), "");
        d.done(&format!("Z0,{place:x},1"));
        assert_eq!(run(&mut d, CODE), "");
        for _ in 0..40 {
            assert!(run(&mut d, other).contains("swbreak"), "jit {jit}");
            assert_eq!(d.cpu().rip(), place);
            assert_eq!(run(&mut d, CODE), "");
        }
        d.done(&format!("z0,{place:x},1"));
        assert_eq!(run(&mut d, other), "");
    }
}
