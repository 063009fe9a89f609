//! Commands of a vCPU, applied to the machine.

use quintet_protocol::addr::GuestPhys;
use quintet_protocol::message::{Command, CommandFlags};
use quintet_protocol::reply::ReplyStatus;

use crate::bus::Size;
use crate::machine::{Env, Machine};

/// The vCPU's process asks this one to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop;

/// What a command is answered with: nothing for a posted one.
pub type Answer = Option<(ReplyStatus, Vec<u8>)>;

/// Applies a command.
///
/// # Errors
/// [`Stop`], which is no error of anybody.
pub fn apply(machine: &mut Machine, env: &mut Env<'_>, bytes: &[u8]) -> Result<Answer, Stop> {
    let command = match Command::decode(bytes) {
        Ok(command) => command,
        Err(error) => {
            tracing::error!(%error, "command dropped");
            return Ok(None);
        }
    };
    let replied = command.wants_reply();
    let answer = match command {
        Command::Shutdown => return Err(Stop),
        Command::Nop { .. } => done(Vec::new()),
        Command::PortRead { port, size } => value(port_read(machine, env, port, size), size),
        Command::PortWrite {
            port, size, value, ..
        } => written(port_write(machine, env, port, size, value)),
        Command::MmioRead { addr, size } => value(memory_read(machine, env, addr, size), size),
        Command::MmioWrite {
            addr, size, value, ..
        } => written(memory_write(machine, env, addr, size, value)),
        Command::PciRead {
            address,
            offset,
            size,
        } => value(
            Some(u64::from(machine.pci_read(env, address, offset, size_of(size)))),
            size,
        ),
        Command::PciWrite {
            address,
            offset,
            size,
            value,
            ..
        } => {
            machine.pci_write(env, address, offset, size_of(size), value);
            done(Vec::new())
        }
        Command::StringIn { port, size, count } => {
            let mut data = Vec::with_capacity(usize::from(size) * usize::from(count));
            for _ in 0..count {
                let element = port_read(machine, env, port, size).unwrap_or(u64::MAX);
                data.extend(&element.to_le_bytes()[..usize::from(size)]);
            }
            done(data)
        }
        Command::StringOut { port, size, data, .. } => {
            for element in data.chunks_exact(usize::from(size)) {
                let mut bytes = [0; 4];
                bytes[..element.len()].copy_from_slice(element);
                port_write(machine, env, port, size, u32::from_le_bytes(bytes));
            }
            done(Vec::new())
        }
        Command::StringInPage {
            flags,
            port,
            size,
            count,
            guest,
        } => {
            for at in elements(flags, guest, size, count) {
                let element = port_read(machine, env, port, size).unwrap_or(u64::MAX);
                machine
                    .dma()
                    .write(at, &element.to_le_bytes()[..usize::from(size)]);
            }
            done(u32::from(count).to_le_bytes().to_vec())
        }
        Command::StringOutPage {
            flags,
            port,
            size,
            count,
            guest,
        } => {
            for at in elements(flags, guest, size, count) {
                let mut bytes = [0; 4];
                machine.dma().read(at, &mut bytes[..usize::from(size)]);
                port_write(machine, env, port, size, u32::from_le_bytes(bytes));
            }
            done(u32::from(count).to_le_bytes().to_vec())
        }
        // There is no disk behind these, and a PC has no module.
        Command::DiskRead { .. } | Command::DiskWrite { .. } | Command::ModuleCall { .. } => {
            (ReplyStatus::Unclaimed, Vec::new())
        }
    };
    Ok(replied.then_some(answer))
}

fn done(data: Vec<u8>) -> (ReplyStatus, Vec<u8>) {
    (ReplyStatus::Done, data)
}

fn value(read: Option<u64>, size: u8) -> (ReplyStatus, Vec<u8>) {
    let bytes = read.unwrap_or(u64::MAX).to_le_bytes()[..usize::from(size.min(8))].to_vec();
    (
        if read.is_some() {
            ReplyStatus::Done
        } else {
            ReplyStatus::Unclaimed
        },
        bytes,
    )
}

fn written(claimed: bool) -> (ReplyStatus, Vec<u8>) {
    (
        if claimed {
            ReplyStatus::Done
        } else {
            ReplyStatus::Unclaimed
        },
        Vec::new(),
    )
}

/// The size of a port or configuration access, which the decoder has checked.
fn size_of(bytes: u8) -> Size {
    Size::new(bytes).unwrap_or(Size::BYTE)
}

fn port_read(machine: &mut Machine, env: &mut Env<'_>, port: u16, size: u8) -> Option<u64> {
    machine.port_read(env, port, size_of(size))
}

fn port_write(machine: &mut Machine, env: &mut Env<'_>, port: u16, size: u8, value: u32) -> bool {
    machine.port_write(env, port, size_of(size), u64::from(value))
}

/// An access of a size that no single bus cycle has is that of its bytes.
fn memory_read(machine: &mut Machine, env: &mut Env<'_>, addr: GuestPhys, size: u8) -> Option<u64> {
    if let Some(size) = Size::new(size) {
        return machine.memory_read(env, addr.0, size);
    }
    let mut all = None;
    for i in 0..u64::from(size) {
        if let Some(byte) = machine.memory_read(env, addr.0.wrapping_add(i), Size::BYTE) {
            let value = all.unwrap_or(u64::MAX);
            all = Some(value & !(0xFF << (8 * i)) | (byte & 0xFF) << (8 * i));
        }
    }
    all
}

fn memory_write(machine: &mut Machine, env: &mut Env<'_>, addr: GuestPhys, size: u8, value: u64) -> bool {
    if let Some(size) = Size::new(size) {
        return machine.memory_write(env, addr.0, size, value & size.ones());
    }
    let mut claimed = false;
    for i in 0..u64::from(size) {
        claimed |= machine.memory_write(env, addr.0.wrapping_add(i), Size::BYTE, value >> (8 * i) & 0xFF);
    }
    claimed
}

/// Addresses of the elements of a string operation.
fn elements(flags: CommandFlags, first: GuestPhys, size: u8, count: u16) -> impl Iterator<Item = GuestPhys> {
    let backwards = flags.contains(CommandFlags::BACKWARDS);
    (0..u64::from(count)).map(move |i| {
        let step = i * u64::from(size);
        GuestPhys(if backwards {
            first.0.wrapping_sub(step)
        } else {
            first.0.wrapping_add(step)
        })
    })
}
