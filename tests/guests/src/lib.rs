//! Guests assembled from source at build time: multiboot 1 kernels (ELF, 32 bit), and firmware images.
//!
//! They are small programs without an operating system whose source lies in `tests/guests/asm`, `tests/guests/rom` and
//! `tests/guests/disk`. One of them, [`SHOW`], is the built-in demo, so this crate is a dependency of the coordinator and not only of tests.
//! Checking in binaries was rejected: what runs must be what can be read.

pub mod seed;

/// Real mode: echoes the first line of COM1 by polling, all later bytes by IRQ 4. Ctrl-D ends it through
/// isa-debug-exit (value 0) or ACPI S5.
pub const ECHO: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/echo.elf"));

/// Tests the machine from inside, prints what it found on the VGA text screen and on COM1, then echoes the keyboard and
/// COM1. The verdict is a line "selftest: N checks passed, M failed" on COM1; a typed `q` powers off through ACPI S5.
pub const SELFTEST: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/selftest.elf"));

/// Interrupts that must arrive exactly once: level, acknowledged by posted writes too, and pulse through both
/// controllers, the APIC timer, and wake-ups from HLT. Needs pc-testdev; the number of each kind is the last word of the command line. Ends with "irqstorm: passed" or
/// "irqstorm: failed" on COM1 and 0 or 1 to isa-debug-exit.
pub const IRQSTORM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/irqstorm.elf"));

/// The workload of `quintet soak`: rounds of interrupts, disk sectors and frames for ever, each told on COM1 in numbers that can be
/// worked out beforehand. Needs pc-testdev and a disk of 2 MiB; words of its command line are in its source.
pub const SOAK: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/soak.elf"));

/// Code that fw_cfg's DMA overwrites, and addresses where nothing is. Verdicts on COM1 are the lines "dmacode: code
/// passed" and "dmacode: holes passed" (or failed); isa-debug-exit gets the number of failures. QEMU fails the
/// second, because its holes read as zero.
pub const DMACODE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/dmacode.elf"));

/// A picture of 1920 by 1080 of which every dot changes, 64 times a second, without end. Prints "moving" on COM1 when the first stands, and
/// "motion: no adapter" without function 1234:1111.
pub const MOTION: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/motion.elf"));

/// Never ends: the last letter of the command line is "j" (jumps on the spot), "d" (asks a device with every
/// instruction) or "r" (one repeated string instruction). Prints "spinning" on COM1 first.
pub const SPIN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/spin.elf"));

/// The PC speaker: a second of 440 Hz by counter 2 of the 8254, half a second of silence, a second of 1004 Hz by bit 1 of port 61h, half a
/// second of silence. Prints "speaker: tone", "speaker: line" and "speaker: done" on COM1; 0 to isa-debug-exit ends it.
pub const SPEAKER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/speaker.elf"));

/// Every mode of the VGA and its VBE interface in turn, by registers alone, filled with pseudo-random numbers. Prints
/// "mode N name" on COM1 when a picture stands and waits for a byte; "screens: done" after the last. The byte 'x' ends
/// it through isa-debug-exit.
pub const SCREENS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/screens.elf"));

/// Firmware of 64 KiB that looks at its own ROM, through each state of PAM0, and starts again after each kind of reset.
/// Ends with "rom: passed" or "rom: failed" on COM1; isa-debug-exit gets the number of failures. QEMU fails "PAM 2: ROM
/// is read", because it reads RAM there.
pub const RESETS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/resets.bin"));

/// The first 32 KiB of a disk that calls every BIOS service, with good and bad arguments, and prints what comes back on
/// COM1. Ends with "services: done" and 0 to isa-debug-exit. Reads sectors as drive 80h; the disk needs 8 MiB.
pub const SERVICES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/services.img"));

/// The first 32 KiB of a diskette of 1.44 MiB that takes the machine over as games do, in parts that are told on COM1; its source says what each
/// waits for. Ends with "arcade: done" and 0 to isa-debug-exit.
pub const ARCADE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/arcade.img"));

/// The built-in demo, the first 32 KiB of a disk that shows the machine off: the five processes, by the device `processes`, in a picture of 800 by 600 with the
/// mouse pointer in it, a tune, and what is typed. Says "show: running" on COM1 and echoes there, too, what is typed; 'q' ends with "show: N frames" and ACPI S5.
pub const SHOW: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/show.img"));

/// Firmware of 64 KiB that writes a flash chip of 64 KiB below it: one bit of a byte with each start, which it finds at the
/// next, and erases the block at the fourth. isa-debug-exit gets the number of failures.
pub const FLASH: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/flash.bin"));

/// Every kernel by name, for tools that list or write them.
pub const ALL: &[(&str, &[u8])] = &[
    ("dmacode", DMACODE),
    ("echo", ECHO),
    ("irqstorm", IRQSTORM),
    ("motion", MOTION),
    ("screens", SCREENS),
    ("selftest", SELFTEST),
    ("soak", SOAK),
    ("speaker", SPEAKER),
    ("spin", SPIN),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn firmware_is_64_kib_and_starts_with_a_jump() {
        assert_eq!((RESETS.len(), FLASH.len()), (64 << 10, 64 << 10));
        assert_eq!((RESETS[0xFFF0], FLASH[0xFFF0]), (0xE9, 0xEA));
    }

    #[test]
    fn a_boot_disk_has_32_kib_and_the_signature_of_its_first_sector() {
        for disk in [SERVICES, ARCADE, SHOW] {
            assert_eq!(disk.len(), 32 << 10);
            assert_eq!(disk[510..512], [0x55, 0xAA]);
        }
    }

    #[test]
    fn every_guest_is_a_32_bit_elf_with_a_multiboot_header_in_its_first_8_kib() {
        for (name, image) in ALL {
            assert_eq!(&image[..5], b"\x7fELF\x01", "{name}");
            let magic = 0x1BAD_B002_u32.to_le_bytes();
            let header = image[..image.len().min(8192)]
                .chunks_exact(4)
                .any(|word| word == magic);
            assert!(header, "{name}");
            // A loader jumps to the ELF's entry; kernels lie from 1 MiB on.
            let entry = u32::from_le_bytes(image[24..28].try_into().expect("four bytes"));
            assert!(entry >= 1 << 20, "{name} is entered at {entry:#x}");
        }
    }
}
