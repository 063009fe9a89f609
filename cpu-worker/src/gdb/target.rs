//! A vCPU as `gdbstub`'s target: registers, memory, points, and what it is to do next.
//!
//! Executing is not done here: a request to go on is noted in [`Remote::wanted`], and whoever runs the vCPU takes it up.

use core::convert::Infallible;
use core::num::NonZeroUsize;

use gdbstub::arch::{Arch, RegId, Registers};
use gdbstub::common::Signal;
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::single_register_access::{SingleRegisterAccess, SingleRegisterAccessOps};
use gdbstub::target::ext::base::singlethread::{
    SingleThreadBase, SingleThreadRangeStepping, SingleThreadRangeSteppingOps, SingleThreadResume,
    SingleThreadResumeOps, SingleThreadSingleStep, SingleThreadSingleStepOps,
};
use gdbstub::target::ext::breakpoints::{
    Breakpoints, BreakpointsOps, HwBreakpoint, HwBreakpointOps, HwWatchpoint, HwWatchpointOps, SwBreakpoint,
    SwBreakpointOps, WatchKind,
};
use gdbstub::target::ext::monitor_cmd::MonitorCmdOps;
use gdbstub::target::ext::target_description_xml_override::{
    TargetDescriptionXmlOverride, TargetDescriptionXmlOverrideOps,
};
use gdbstub::target::{Target, TargetError, TargetResult};
use quintet_protocol::addr::GuestPhys;

use super::{Remote, Wanted};
use crate::exec::{Breakpoint, Vcpu, Watched, Watchpoint};
use crate::mmu::PageKind;

/// EFAULT: no such memory.
const FAULT: u8 = 14;
/// EINVAL: the processor does not take that.
const INVALID: u8 = 22;
/// Longest watchpoint, in bytes: more would keep much of the address space out of the TLB.
const LONGEST_WATCH: u64 = 1 << 20;

/// An x86 of either width. Its registers are bytes in the order of their numbers, since there are as many as the model has.
#[derive(Debug)]
pub enum X86 {}

impl Arch for X86 {
    type Usize = u64;
    type Registers = Bytes;
    type RegId = Number;
    type BreakpointKind = usize;
}

/// All registers as they travel.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Bytes(Vec<u8>);

impl Registers for Bytes {
    type ProgramCounter = u64;

    fn pc(&self) -> u64 {
        0
    }

    fn gdb_serialize(&self, mut write_byte: impl FnMut(Option<u8>)) {
        self.0.iter().for_each(|&b| write_byte(Some(b)));
    }

    fn gdb_deserialize(&mut self, bytes: &[u8]) -> Result<(), ()> {
        self.0 = bytes.to_vec();
        Ok(())
    }
}

/// Number of a register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Number(usize);

impl RegId for Number {
    fn from_raw_id(id: usize) -> Option<(Self, Option<NonZeroUsize>)> {
        Some((Self(id), None))
    }
}

impl Target for Vcpu {
    type Arch = X86;
    type Error = Infallible;

    fn base_ops(&mut self) -> BaseOps<'_, X86, Infallible> {
        BaseOps::SingleThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }

    fn support_monitor_cmd(&mut self) -> Option<MonitorCmdOps<'_, Self>> {
        Some(self)
    }

    fn support_target_description_xml_override(
        &mut self,
    ) -> Option<TargetDescriptionXmlOverrideOps<'_, Self>> {
        Some(self)
    }
}

impl TargetDescriptionXmlOverride for Vcpu {
    fn target_description_xml(
        &self,
        annex: &[u8],
        offset: u64,
        length: usize,
        buf: &mut [u8],
    ) -> TargetResult<usize, Self> {
        if annex != b"target.xml" {
            return Err(TargetError::NonFatal);
        }
        let xml = self.layout().xml.as_bytes();
        let from = usize::try_from(offset).map_or(xml.len(), |at| at.min(xml.len()));
        let part = &xml[from..];
        let n = part.len().min(length).min(buf.len());
        buf[..n].copy_from_slice(&part[..n]);
        Ok(n)
    }
}

impl SingleThreadBase for Vcpu {
    fn read_registers(&mut self, regs: &mut Bytes) -> TargetResult<(), Self> {
        regs.0 = self.read_all();
        Ok(())
    }

    fn write_registers(&mut self, regs: &Bytes) -> TargetResult<(), Self> {
        self.write_all(&regs.0).map_err(|_| TargetError::Errno(INVALID))
    }

    fn support_single_register_access(&mut self) -> Option<SingleRegisterAccessOps<'_, (), Self>> {
        Some(self)
    }

    fn read_addrs(&mut self, start: u64, data: &mut [u8]) -> TargetResult<usize, Self> {
        match self.remote_read(start, data) {
            0 if !data.is_empty() => Err(TargetError::Errno(FAULT)),
            n => Ok(n),
        }
    }

    fn write_addrs(&mut self, start: u64, data: &[u8]) -> TargetResult<(), Self> {
        let written = if self.remote.physical {
            self.poke_phys(start, data)
        } else {
            self.poke_linear(start, data)
        };
        if written {
            Ok(())
        } else {
            Err(TargetError::Errno(FAULT))
        }
    }

    fn support_resume(&mut self) -> Option<SingleThreadResumeOps<'_, Self>> {
        Some(self)
    }
}

impl SingleRegisterAccess<()> for Vcpu {
    fn read_register(&mut self, (): (), number: Number, buf: &mut [u8]) -> TargetResult<usize, Self> {
        let value = self.read_number(number.0).ok_or(TargetError::NonFatal)?;
        let to = buf.get_mut(..value.len()).ok_or(TargetError::NonFatal)?;
        to.copy_from_slice(&value);
        Ok(value.len())
    }

    fn write_register(&mut self, (): (), number: Number, value: &[u8]) -> TargetResult<(), Self> {
        self.write_number(number.0, value)
            .map_err(|_| TargetError::Errno(INVALID))
    }
}

// Signals mean nothing to a machine, and are dropped.
impl SingleThreadResume for Vcpu {
    fn resume(&mut self, _: Option<Signal>) -> Result<(), Infallible> {
        self.remote.wanted = Some(Wanted::Continue);
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<SingleThreadSingleStepOps<'_, Self>> {
        Some(self)
    }

    fn support_range_step(&mut self) -> Option<SingleThreadRangeSteppingOps<'_, Self>> {
        Some(self)
    }
}

impl SingleThreadSingleStep for Vcpu {
    fn step(&mut self, _: Option<Signal>) -> Result<(), Infallible> {
        self.remote.wanted = Some(Wanted::Step { start: 0, end: 0 });
        Ok(())
    }
}

impl SingleThreadRangeStepping for Vcpu {
    fn resume_range_step(&mut self, start: u64, end: u64) -> Result<(), Infallible> {
        self.remote.wanted = Some(Wanted::Step { start, end });
        Ok(())
    }
}

impl Breakpoints for Vcpu {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_watchpoint(&mut self) -> Option<HwWatchpointOps<'_, Self>> {
        Some(self)
    }
}

impl SwBreakpoint for Vcpu {
    fn add_sw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        self.add_breakpoint(Breakpoint {
            address,
            hardware: false,
        });
        Ok(true)
    }

    fn remove_sw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        Ok(self.remove_breakpoint(Breakpoint {
            address,
            hardware: false,
        }))
    }
}

impl HwBreakpoint for Vcpu {
    fn add_hw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        self.add_breakpoint(Breakpoint {
            address,
            hardware: true,
        });
        Ok(true)
    }

    fn remove_hw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        Ok(self.remove_breakpoint(Breakpoint {
            address,
            hardware: true,
        }))
    }
}

fn watchpoint(address: u64, len: u64, kind: WatchKind) -> Watchpoint {
    let kind = match kind {
        WatchKind::Read => Watched::Reads,
        WatchKind::Write => Watched::Writes,
        WatchKind::ReadWrite => Watched::Accesses,
    };
    Watchpoint { address, len, kind }
}

impl HwWatchpoint for Vcpu {
    fn add_hw_watchpoint(&mut self, address: u64, len: u64, kind: WatchKind) -> TargetResult<bool, Self> {
        if !(1..=LONGEST_WATCH).contains(&len) {
            return Ok(false);
        }
        self.add_watchpoint(watchpoint(address, len, kind));
        Ok(true)
    }

    fn remove_hw_watchpoint(&mut self, address: u64, len: u64, kind: WatchKind) -> TargetResult<bool, Self> {
        Ok(self.remove_watchpoint(watchpoint(address, len, kind)))
    }
}

impl Vcpu {
    /// Reads memory as the debugger has asked for it; how many bytes.
    pub(super) fn remote_read(&mut self, at: u64, data: &mut [u8]) -> usize {
        let Remote {
            physical, devices, ..
        } = self.remote;
        let mut done = if physical {
            self.peek_phys(at, data)
        } else {
            self.peek_linear(at, data)
        };
        while devices && done < data.len() {
            let linear = at.wrapping_add(done as u64);
            let phys = if physical {
                linear
            } else {
                let Some(phys) = self.peek_translate(linear) else {
                    break;
                };
                phys
            };
            if self.page_kind(phys / 4096) != PageKind::Device {
                // Memory again, or memory that cannot be peeked at.
                let mut byte = [0];
                if self.peek_phys(phys, &mut byte) == 0 {
                    break;
                }
                data[done] = byte[0];
                done += 1;
                continue;
            }
            // In the widest pieces that fit: registers want to be read whole.
            let left = data.len() - done;
            let size = [8, 4, 2, 1]
                .into_iter()
                .find(|&n| n <= left && phys % n as u64 == 0)
                .unwrap_or(1);
            let value = self.bus.mmio_read(GuestPhys(phys), size as u8).to_le_bytes();
            data[done..done + size].copy_from_slice(&value[..size]);
            done += size;
        }
        done
    }
}
