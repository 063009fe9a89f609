//! Integer instructions by name, as the text vectors name them: their bytes on fixed registers, and the flags
//! that the manual defines.
//!
//! The destination is rAX, the source rDX, the count CL; one-operand multiplications and divisions use rBX.

/// CF, PF, AF, ZF, SF, OF.
pub const ALL: u64 = 0x8D5;
const CF: u64 = 1;
const OF: u64 = 0x800;

/// Bytes of `name` at a width of 1, 2, 4 or 8 bytes, or `None` when the table has no such instruction.
///
/// `imul` is the two-operand form; `imul1` the one with rBX.
pub fn encode(name: &str, width: u64) -> Option<Vec<u8>> {
    let wide = u8::from(width > 1);
    let mut bytes = Vec::new();
    match width {
        2 => bytes.push(0x66),
        8 => bytes.push(0x48),
        _ => {}
    }
    let alu = ["add", "or", "adc", "sbb", "and", "sub", "xor", "cmp"];
    let shifts = ["rol", "ror", "rcl", "rcr", "shl", "shr", "sal", "sar"];
    let group3 = ["test", "", "not", "neg", "mul", "imul1", "div", "idiv"];
    if let Some(n) = alu.iter().position(|&a| a == name) {
        bytes.extend([n as u8 * 8 + wide, 0xD0]);
    } else if let Some(n) = shifts.iter().position(|&a| a == name) {
        bytes.extend([0xD2 + wide, 0xC0 | (n as u8) << 3]);
    } else if let Some(n) = group3.iter().position(|&a| a == name).filter(|&n| n >= 2) {
        let rm = if n >= 4 { 3 } else { 0 };
        bytes.extend([0xF6 + wide, 0xC0 | (n as u8) << 3 | rm]);
    } else {
        bytes.extend(match name {
            "test" => vec![0x84 + wide, 0xD0],
            "inc" => vec![0xFE + wide, 0xC0],
            "dec" => vec![0xFE + wide, 0xC8],
            "imul" => vec![0x0F, 0xAF, 0xC2],
            "shld" => vec![0x0F, 0xA5, 0xD0],
            "shrd" => vec![0x0F, 0xAD, 0xD0],
            "bt" => vec![0x0F, 0xA3, 0xD0],
            "bts" => vec![0x0F, 0xAB, 0xD0],
            "btr" => vec![0x0F, 0xB3, 0xD0],
            "btc" => vec![0x0F, 0xBB, 0xD0],
            "cbw" | "cwde" => vec![0x98],
            "cwd" | "cdq" => vec![0x99],
            "aaa" => vec![0x37],
            "aas" => vec![0x3F],
            "daa" => vec![0x27],
            "das" => vec![0x2F],
            "aam" => vec![0xD4, 10],
            "aad" => vec![0xD5, 10],
            _ => return None,
        });
    }
    Some(bytes)
}

/// The flags that `name` defines, `count` being the masked count of a shift.
pub fn defined(name: &str, width: u64, count: u64) -> u64 {
    let bits = width * 8;
    match name {
        "and" | "or" | "xor" | "test" => ALL & !0x10,
        "shl" | "sal" | "shr" | "sar" if count == 0 => ALL,
        "shld" | "shrd" if count == 0 => ALL,
        "shl" | "sal" | "shr" | "sar" | "shld" | "shrd" => {
            let cf = if count > bits { 0 } else { CF };
            0xC4 | cf | if count == 1 { OF } else { 0 }
        }
        "rol" | "ror" | "rcl" | "rcr" => ALL & !OF | if count <= 1 { OF } else { 0 },
        "bt" | "bts" | "btr" | "btc" => CF,
        "mul" | "imul" | "imul1" => CF | OF,
        "div" | "idiv" => 0,
        "aaa" | "aas" => 0x11,
        "daa" | "das" => 0xD5,
        "aam" | "aad" => 0xC4,
        _ => ALL,
    }
}

/// Registers before and after one instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Regs {
    /// RAX.
    pub ax: u64,
    /// RBX.
    pub bx: u64,
    /// RCX.
    pub cx: u64,
    /// RDX.
    pub dx: u64,
    /// RFLAGS.
    pub flags: u64,
}

/// Where [`execute`] puts its code.
const CODE: u64 = 0x5000;

/// Executes `bytes` on a prepared vCPU. `None`: it raised an exception.
pub fn execute(cpu: &mut quintet_cpu_worker::exec::Vcpu, bytes: &[u8], regs: Regs) -> Option<Regs> {
    use quintet_cpu_worker::state::{Flags, RIP, gpr};
    use quintet_protocol::addr::GuestPhys;
    let mut code = bytes.to_vec();
    code.push(0xF4);
    cpu.mem.ram().write(GuestPhys(CODE), &code).expect("code in RAM");
    cpu.discard_code();
    cpu.state.regs[gpr::RAX] = regs.ax;
    cpu.state.regs[gpr::RBX] = regs.bx;
    cpu.state.regs[gpr::RCX] = regs.cx;
    cpu.state.regs[gpr::RDX] = regs.dx;
    cpu.state.flags = Flags::from_bits(regs.flags | 2);
    cpu.state.regs[RIP] = CODE;
    cpu.state.activity = Default::default();
    cpu.step();
    // An exception goes to an IDT that is not there and ends in shutdown.
    (cpu.rip() == CODE + bytes.len() as u64).then(|| Regs {
        ax: cpu.state.regs[gpr::RAX],
        bx: cpu.state.regs[gpr::RBX],
        cx: cpu.state.regs[gpr::RCX],
        dx: cpu.state.regs[gpr::RDX],
        flags: cpu.state.flags.bits(),
    })
}
