//! The VGA function, as QEMU's standard VGA shows itself: only its decode is here. Frame buffer and
//! registers are served beside the vCPU.

use super::bar::{BarKind, BarSpec};
use super::bus::WindowTarget;
use super::config::FunctionSpec;

/// The VGA at 00:02.0 with a linear frame buffer of `vram` bytes (a power of two, at least 1 MiB) and, if `rom` is not
/// zero, a BIOS of so many bytes behind the ROM register.
pub fn stdvga(vram: u32, rom: u32) -> FunctionSpec {
    assert!(
        vram.is_power_of_two() && vram >= 1 << 20,
        "a frame buffer of {vram} bytes"
    );
    let mut bars = vec![
        BarSpec {
            register: 0x10,
            kind: BarKind::Memory32 { prefetchable: true },
            len: vram,
            target: WindowTarget::Vram,
        },
        BarSpec {
            register: 0x18,
            kind: BarKind::Memory32 { prefetchable: false },
            len: 4096,
            target: WindowTarget::VgaRegisters,
        },
    ];
    if rom != 0 {
        bars.push(BarSpec {
            register: 0x30,
            kind: BarKind::Rom,
            // Whole pages, as the decode map has them.
            len: rom.next_power_of_two().max(4096),
            target: WindowTarget::VgaRom,
        });
    }
    FunctionSpec {
        name: "vga",
        vendor: 0x1234,
        device: 0x1111,
        revision: 2,
        class: 0x03_0000,
        multifunction: false,
        pin: 0,
        status: 0x0000,
        command: 0x0000,
        command_mask: 0x0103,
        bars,
        registers: Vec::new(),
    }
}
