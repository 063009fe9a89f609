//! Power-on and reset: devices as firmware leaves them, the kernel in RAM, and the state in which the vCPU
//! starts.

use quintet_protocol::boot_state::{BootState, EntryMode};
use quintet_protocol::handshake::config::{DiskKind, IoConfig};
use quintet_protocol::payload::{Payload, PayloadKind};
use quintet_protocol::ram::GuestRam;

use super::build::has_firmware;
use crate::firmware::{self, Boot, BootError, Module};
use crate::machine::{COM_PORTS, Machine};

/// What firmware has to know of the machine of `config`.
pub(super) fn firmware_machine(config: &IoConfig) -> firmware::Machine {
    firmware::Machine {
        cpus: config.vcpus.clamp(1, 64) as u8,
        long_mode: config.long_mode,
        cpuid_1: config.cpuid_1,
        com: [COM_PORTS[0], COM_PORTS[1], 0, 0],
        ps2: true,
        fw_cfg: true,
        disks: config
            .disks
            .iter()
            .filter(|d| d.kind == DiskKind::HardDisk)
            .count() as u8,
    }
}

/// Does what firmware and boot loader do, unless there is firmware that does it. `None` when there is nothing to boot: the
/// machine then stays as after power-on.
///
/// # Errors
/// [`BootError`] names the file and what is wrong with it.
pub fn boot(
    machine: &mut Machine,
    ram: &GuestRam,
    config: &IoConfig,
    payloads: &[Payload],
    generation: u32,
) -> Result<Option<BootState>, BootError> {
    if has_firmware(config, payloads) {
        return Ok(Some(BootState {
            generation,
            mode: EntryMode::Reset,
            low_ram: ram.layout().low(),
            high_ram: ram.layout().high(),
            ..BootState::default()
        }));
    }
    let Some(kernel) = payloads.iter().find(|p| *p.kind() == PayloadKind::Kernel) else {
        return Ok(None);
    };
    let kernel_bytes = kernel.bytes();
    let initrds: Vec<(&[u8], &str)> = payloads
        .iter()
        .filter_map(|p| match p.kind() {
            PayloadKind::Initrd { cmdline } => Some((p.bytes(), cmdline.as_str())),
            _ => None,
        })
        .collect();
    let modules: Vec<Module<'_>> = initrds
        .iter()
        .map(|(data, line)| Module {
            data,
            command_line: line,
        })
        .collect();
    let boot = Boot {
        kernel: Module {
            data: &kernel_bytes,
            command_line: "kernel",
        },
        modules: &modules,
        append: &config.append,
    };
    machine.as_firmware_leaves_it();
    // The level lines of `elcr` are those that the decode map routes PIRQs to.
    let firmware::Prepared { mut state, elcr: _ } =
        firmware::prepare(ram, machine.pci_mut(), firmware_machine(config), &boot)?;
    machine.follow_pci();
    state.generation = generation;
    Ok(Some(state))
}
