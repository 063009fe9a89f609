//! One instruction on the host's CPU and in the interpreter, from the same state.
//!
//! The host executes a snippet between FXRSTOR and FXSAVE of the machine state given; a fault comes back as a
//! signal, whose frame holds the state at the fault. The guest is a vCPU in 64-bit mode whose memory operand
//! lies at the same address.

pub mod encode;
pub mod guest;
pub mod host;
pub mod values;

/// Where the memory operand lies, in the host process and in the guest.
pub const OPERAND: u64 = 0x1000_0000;
/// Bytes of the memory operand that are compared.
pub const OPERAND_LEN: usize = 1024;

/// General registers that instructions under test may use; RSI points at the operand, RDI too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct General {
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rbx: u64,
    pub rsi: u64,
    pub rdi: u64,
}

/// The state before or after.
#[derive(Clone, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Machine {
    /// An FXSAVE64 image.
    pub fx: [u8; 512],
    pub general: General,
    /// RFLAGS; the arithmetic ones count.
    pub flags: u64,
    pub memory: [u8; OPERAND_LEN],
}

/// How an execution ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The instruction completed.
    Completed,
    /// It faulted: #UD, or one of #MF and #XM.
    Undefined,
    Numeric,
    /// Another fault.
    Fault,
}

impl Machine {
    /// What differs between two states, in words; empty if nothing that counts does.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let mut note = |name: &str, a: &[u8], b: &[u8]| {
            if a != b {
                found.push(format!("{name}: host {} guest {}", hex(a), hex(b)));
            }
        };
        note("control word", &self.fx[0..2], &other.fx[0..2]);
        note("status word", &self.fx[2..4], &other.fx[2..4]);
        note("tags", &self.fx[4..5], &other.fx[4..5]);
        note("mxcsr", &self.fx[24..28], &other.fx[24..28]);
        for n in 0..8 {
            let at = 32 + 16 * n;
            note(&format!("st{n}"), &self.fx[at..at + 10], &other.fx[at..at + 10]);
        }
        for n in 0..16 {
            let at = 160 + 16 * n;
            note(&format!("xmm{n}"), &self.fx[at..at + 16], &other.fx[at..at + 16]);
        }
        note("memory", &self.memory, &other.memory);
        if self.general != other.general {
            found.push(format!(
                "registers: host {:x?} guest {:x?}",
                self.general, other.general
            ));
        }
        if (self.flags ^ other.flags) & 0x8d5 != 0 {
            found.push(format!(
                "flags: host {:x} guest {:x}",
                self.flags & 0x8d5,
                other.flags & 0x8d5
            ));
        }
        found
    }

    /// The registers and words that matter, for a report.
    pub fn describe(&self) -> String {
        let mut text = format!(
            "fcw {} fsw {} ftw {} mxcsr {}",
            hex(&self.fx[0..2]),
            hex(&self.fx[2..4]),
            hex(&self.fx[4..5]),
            hex(&self.fx[24..28])
        );
        for n in 0..4 {
            let (st, xmm) = (32 + 16 * n, 160 + 16 * n);
            text += &format!(
                "\n      st{n} {} xmm{n} {}",
                hex(&self.fx[st..st + 10]),
                hex(&self.fx[xmm..xmm + 16])
            );
        }
        text + &format!("\n      memory {} {:x?}", hex(&self.memory[..32]), self.general)
    }
}

/// Bytes as one hexadecimal number, most significant first; long ones cut.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(32).rev().map(|b| format!("{b:02x}")).collect()
}
