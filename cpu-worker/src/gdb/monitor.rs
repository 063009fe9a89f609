//! gdb's `monitor`: what the protocol has no packets for.

use core::convert::Infallible;
use core::fmt::Write as _;

use gdbstub::target::ext::monitor_cmd::{ConsoleOutput, MonitorCmd, outputln};

use super::layout::{MSRS, Place, segments};
use crate::exec::Vcpu;

const HELP: &str = "\
registers               control registers, segments and MSRs
rdmsr INDEX             an MSR
wrmsr INDEX VALUE       writes one as WRMSR does
xp ADDRESS [BYTES]      physical memory (64 bytes)
translate ADDRESS       the physical address of a linear one
physical on|off         x and all other memory commands mean physical addresses
devices on|off          reads of memory may go to devices, which reading may change
reset                   the machine's reset button
jit                     what the translator has done";

impl MonitorCmd for Vcpu {
    fn handle_monitor_cmd(&mut self, cmd: &[u8], mut out: ConsoleOutput<'_>) -> Result<(), Infallible> {
        let line = String::from_utf8_lossy(cmd);
        let answer = self.monitor(&line);
        outputln!(out, "{answer}");
        Ok(())
    }
}

/// A number as users write it: hexadecimal with 0x, else decimal.
fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

impl Vcpu {
    /// Carries out a command and answers what to show.
    pub(super) fn monitor(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let switch = |word: &str| match word {
            "on" => Some(true),
            "off" => Some(false),
            _ => None,
        };
        let done = match words.as_slice() {
            [] | ["help"] => Some(HELP.to_owned()),
            ["registers"] | ["info", "registers"] => Some(self.show_registers()),
            ["rdmsr", index] => number(index).map(|index| self.show_msr(index)),
            ["wrmsr", index, value] => number(index)
                .zip(number(value))
                .map(|(index, value)| self.write_msr(index, value)),
            ["xp", at] => number(at).map(|at| self.show_memory(at, 64)),
            ["xp", at, len] => number(at)
                .zip(number(len).filter(|&n| n <= 4096))
                .map(|(at, len)| self.show_memory(at, len as usize)),
            ["translate", at] => number(at).map(|at| match self.peek_translate(at) {
                Some(phys) => format!("{at:#x} is at {phys:#x}"),
                None => format!("{at:#x} is not mapped"),
            }),
            ["physical", word] => switch(word).map(|on| {
                self.remote.physical = on;
                format!("addresses are {}", if on { "physical" } else { "linear" })
            }),
            ["devices", word] => switch(word).map(|on| {
                self.remote.devices = on;
                format!("devices {}", if on { "are read" } else { "are left alone" })
            }),
            ["reset" | "system_reset"] => {
                self.remote.reset = true;
                Some("the machine is being reset".to_owned())
            }
            ["jit"] => Some(self.show_jit()),
            _ => None,
        };
        done.unwrap_or_else(|| format!("\"{line}\" is not understood; these are:\n{HELP}"))
    }

    fn show_registers(&mut self) -> String {
        let mut text = String::new();
        for n in [0, 2, 3, 4, 8] {
            let v = self.remote_register(Place::Control(n));
            let _ = write!(text, "cr{n}={v:#x} ");
        }
        let efer = self.remote_register(Place::Msr(0xC000_0080));
        let s = &self.state;
        let _ = writeln!(text, "efer={efer:#x}");
        let _ = writeln!(
            text,
            "rip={:#x} rsp={:#x} rflags={:#x} cpl={} {}-bit code{}{}",
            s.rip(),
            self.stack_pointer(),
            s.flags.bits(),
            s.cpl,
            self.code_size.bits(),
            if s.activity == crate::state::Activity::Active {
                ""
            } else {
                ", halted"
            },
            if s.nmi_blocked { ", NMIs blocked" } else { "" },
        );
        for (name, n) in segments() {
            let r = &s.segs[n];
            let _ = writeln!(
                text,
                "{name:4} {:04x} base={:016x} limit={:08x} rights={:05x}",
                r.selector, r.base, r.limit, r.attr.0
            );
        }
        for (name, table) in [("gdtr", s.gdtr), ("idtr", s.idtr)] {
            let _ = writeln!(
                text,
                "{name}      base={:016x} limit={:04x}",
                table.base, table.limit
            );
        }
        for n in [0, 1, 2, 3, 6, 7] {
            let _ = write!(text, "dr{n}={:#x} ", s.dr[n]);
        }
        for (name, index) in MSRS {
            if let Some(v) = self.msr(index) {
                let _ = write!(text, "\n{name:15} {index:#010x} {v:#x}");
            }
        }
        text
    }

    fn show_msr(&mut self, index: u64) -> String {
        match u32::try_from(index).ok().and_then(|index| self.msr(index)) {
            Some(v) => format!("{v:#x}"),
            None => format!("there is no MSR {index:#x}"),
        }
    }

    fn write_msr(&mut self, index: u64, value: u64) -> String {
        let written = u32::try_from(index)
            .ok()
            .and_then(|index| self.set_msr(index, value));
        self.refresh_mode();
        match written {
            Some(()) => format!("{value:#x}"),
            None => format!("MSR {index:#x} does not take {value:#x}"),
        }
    }

    fn show_memory(&mut self, at: u64, len: usize) -> String {
        let mut bytes = vec![0; len];
        let physical = core::mem::replace(&mut self.remote.physical, true);
        let got = self.remote_read(at, &mut bytes);
        self.remote.physical = physical;
        let mut text = String::new();
        for (n, line) in bytes[..got].chunks(16).enumerate() {
            let _ = write!(text, "{:012x}:", at.wrapping_add(16 * n as u64));
            for byte in line {
                let _ = write!(text, " {byte:02x}");
            }
            text.push('\n');
        }
        if got < len {
            let _ = write!(text, "{:#x} is not memory", at.wrapping_add(got as u64));
        }
        text.trim_end().to_owned()
    }

    fn show_jit(&self) -> String {
        let Some(jit) = &self.jit else {
            return "everything is interpreted".to_owned();
        };
        let (translations, bytes) = jit.extent();
        let (shared, strayed) = jit.shared_looks();
        format!(
            "{translations} translations in {bytes} bytes, {} of loops, {} of segmented code; {shared} accesses share looks, \
             {strayed} such looks failed; room was made {} times",
            jit.loops(),
            jit.segmented(),
            jit.evictions()
        )
    }
}
