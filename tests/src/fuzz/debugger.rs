//! gdb's packets, from whoever has connected.

use arbitrary::Unstructured;
use quintet_cpu_worker::exec::{RunExit, Stepped, Vcpu};
use quintet_cpu_worker::gdb::{Session, Stop, Wanted};
use quintet_cpu_worker::state::CodeSize;
use quintet_protocol::addr::GuestPhys;

use crate::snippet;

/// Where the code lies: a loop.
const CODE: u64 = 0x40_0000;
/// Most instructions that a request to go on has executed.
const MOST: u64 = 2000;

/// A packet with a right checksum: what changes a byte of the body rarely changes the sum to match.
fn packet(body: &[u8]) -> Vec<u8> {
    let sum = body.iter().fold(0_u8, |sum, b| sum.wrapping_add(*b));
    [b"$", body, format!("#{sum:02x}").as_bytes()].concat()
}

/// Whether what is sent is acknowledgements and whole packets with right checksums.
fn is_protocol(mut sent: &[u8]) -> bool {
    while let Some((first, rest)) = sent.split_first() {
        sent = rest;
        if *first != b'$' {
            if !b"+-".contains(first) {
                return false;
            }
            continue;
        }
        let Some(end) = sent.iter().position(|b| *b == b'#') else {
            return false;
        };
        let sum = sent[..end].iter().fold(0_u8, |sum, b| sum.wrapping_add(*b));
        if sent.get(end + 1..end + 3) != Some(format!("{sum:02x}").as_bytes()) {
            return false;
        }
        sent = &sent[end + 3..];
    }
    true
}

fn go_on(cpu: &mut Vcpu, session: &mut Session) -> bool {
    let stop = match session.take_wanted(cpu) {
        Some(Wanted::Continue) => match cpu.run(MOST) {
            RunExit::Held => cpu.take_held().map(Stop::Point),
            _ => None,
        },
        Some(Wanted::Step { .. }) => match cpu.step_held() {
            Stepped::Asleep => None,
            _ => Some(cpu.take_held().map_or(Stop::Stepped, Stop::Point)),
        },
        None => return true,
    };
    // One that does not stop by itself is interrupted, as the user would.
    match stop {
        Some(stop) => session.stopped(cpu, stop).is_ok(),
        None => session.feed(cpu, &[3]).is_ok(),
    }
}

/// Packets of a debugger, good and bad, while the vCPU runs between them. A session ends with an error or by itself, and what the
/// stub sends is its protocol.
///
/// # Panics
/// When the stub sends what is none.
pub fn gdb(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let flags: u8 = u.arbitrary().unwrap_or(0);
    let size = [CodeSize::Bits64, CodeSize::Bits32, CodeSize::Bits16][usize::from(flags % 3)];
    let mut cpu = snippet::vcpu(8 << 20);
    // Interpreted, since translated code does not count its instructions, and a packet can write a loop that never ends.
    cpu.jit = None;
    snippet::flat(
        &mut cpu,
        size,
        if size == CodeSize::Bits16 { 0x1000 } else { CODE },
    );
    // add eax, 3; jmp back.
    for at in [CODE, 0x1000] {
        cpu.mem
            .ram()
            .write(GuestPhys(at), &[0x83, 0xC0, 3, 0xEB, 0xFB])
            .expect("in RAM");
    }
    let mut session = Session::new(&mut cpu);
    for _ in 0..200 {
        if u.is_empty() || session.is_over() {
            break;
        }
        let how: u8 = u.arbitrary().unwrap_or(0);
        let n = usize::from(how & 0x7F).min(u.len());
        let body = u.bytes(n).unwrap_or(&[]);
        let fed = match how & 0x80 == 0 {
            true => session.feed(&mut cpu, &packet(body)),
            false => session.feed(&mut cpu, body),
        };
        let alive = fed.is_ok() && go_on(&mut cpu, &mut session);
        let sent = session.take_output();
        assert!(is_protocol(&sent), "{}", String::from_utf8_lossy(&sent));
        if !alive {
            break;
        }
    }
}
