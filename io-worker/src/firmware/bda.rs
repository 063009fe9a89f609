//! The first page of RAM and the BIOS segment as firmware leaves them: interrupt vectors, BIOS data area,
//! EBDA, and handlers that do no harm.
//!
//! There are no BIOS services here: `--kernel` starts what needs none, and whoever calls one is told that it
//! failed. The handlers exist because interrupts can arrive while a kernel still stands on the BIOS's vectors.
//! Fields are those of the IBM Personal System/2 and Personal Computer BIOS Interface Technical Reference.

use quintet_protocol::addr::GuestPhys;
use quintet_protocol::ram::{GuestRam, RamError};

use super::e820;

/// Segment of the BIOS.
const SEGMENT: u16 = 0xF000;
/// Offset of the first handler in it.
const CODE: u16 = 0xE000;

/// What of the machine the BIOS data area tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// I/O ports of COM1 to COM4, zero for none.
    pub com: [u16; 4],
    /// Hard disks.
    pub disks: u8,
}

// iret
const IRET: &[u8] = &[0xCF];
// push ax; mov al, 20h; out 20h, al; pop ax; iret
const EOI_MASTER: &[u8] = &[0x50, 0xB0, 0x20, 0xE6, 0x20, 0x58, 0xCF];
// push ax; mov al, 20h; out A0h, al; out 20h, al; pop ax; iret
const EOI_SLAVE: &[u8] = &[0x50, 0xB0, 0x20, 0xE6, 0xA0, 0xE6, 0x20, 0x58, 0xCF];
// push ax; in al, 60h; mov al, 20h; out 20h, al; pop ax; iret
const KEYBOARD: &[u8] = &[0x50, 0xE4, 0x60, 0xB0, 0x20, 0xE6, 0x20, 0x58, 0xCF];
// The tick count at 46Ch, the midnight flag at 470h, INT 1Ch and the EOI:
// push ax; push ds; xor ax, ax; mov ds, ax; inc dword [46Ch]; cmp dword [46Ch], 1800B0h; jb +14;
// mov dword [46Ch], 0; mov byte [470h], 1; int 1Ch; mov al, 20h; out 20h, al; pop ds; pop ax; iret
const TIMER: &[u8] = &[
    0x50, 0x1E, 0x31, 0xC0, 0x8E, 0xD8, 0x66, 0xFF, 0x06, 0x6C, 0x04, 0x66, 0x81, 0x3E, 0x6C, 0x04, 0xB0,
    0x00, 0x18, 0x00, 0x72, 0x0E, 0x66, 0xC7, 0x06, 0x6C, 0x04, 0x00, 0x00, 0x00, 0x00, 0xC6, 0x06, 0x70,
    0x04, 0x01, 0xCD, 0x1C, 0xB0, 0x20, 0xE6, 0x20, 0x1F, 0x58, 0xCF,
];
// push ds; xor ax, ax; mov ds, ax; mov ax, [410h]; pop ds; iret
const EQUIPMENT: &[u8] = &[0x1E, 0x31, 0xC0, 0x8E, 0xD8, 0xA1, 0x10, 0x04, 0x1F, 0xCF];
// The same for [413h], conventional memory.
const MEMORY: &[u8] = &[0x1E, 0x31, 0xC0, 0x8E, 0xD8, 0xA1, 0x13, 0x04, 0x1F, 0xCF];
// AH = 86h (function not supported) and carry in the caller's flags:
// mov ah, 86h; push bp; mov bp, sp; or byte [bp+6], 1; pop bp; iret
const UNSUPPORTED: &[u8] = &[0xB4, 0x86, 0x55, 0x89, 0xE5, 0x80, 0x4E, 0x06, 0x01, 0x5D, 0xCF];

/// Handlers and the vectors that get them; the first is for all vectors that no other names.
const HANDLERS: &[(&[u8], &[usize])] = &[
    (IRET, &[]),
    (EOI_MASTER, &[0x0A, 0x0B, 0x0C, 0x0D, 0x0E, 0x0F]),
    (EOI_SLAVE, &[0x70, 0x71, 0x72, 0x73, 0x74, 0x75, 0x76, 0x77]),
    (TIMER, &[0x08]),
    (KEYBOARD, &[0x09]),
    (EQUIPMENT, &[0x11]),
    (MEMORY, &[0x12]),
    (UNSUPPORTED, &[0x13, 0x15]),
];

/// Writes vectors, data areas and handlers.
///
/// # Errors
/// [`RamError`] when there is less than 1 MiB of RAM.
pub fn write(ram: &GuestRam, ports: Ports) -> Result<(), RamError> {
    let mut bios = vec![0_u8; 0x2000];
    let mut vectors = [u32::from(SEGMENT) << 16 | u32::from(CODE); 256];
    let mut at = 0;
    for (code, numbers) in HANDLERS {
        bios[at..at + code.len()].copy_from_slice(code);
        for &n in *numbers {
            vectors[n] = u32::from(SEGMENT) << 16 | (u32::from(CODE) + at as u32);
        }
        at = (at + code.len()).next_multiple_of(16);
    }
    // The last paragraph: a jump to a halt (there is no firmware to restart), date, model byte FCh (AT).
    let last = bios.len() - 16;
    bios[last..last + 5].copy_from_slice(&[0xEA, 0xF0 - 3, 0xFF, 0x00, 0xF0]);
    bios[last - 3..last].copy_from_slice(&[0xF4, 0xEB, 0xFD]); // hlt; jmp back to it
    bios[last + 5..last + 13].copy_from_slice(b"01/01/26");
    bios[last + 14] = 0xFC;
    ram.write(GuestPhys(e820::BIOS + u64::from(CODE)), &bios)?;

    let vectors: Vec<u8> = vectors.iter().flat_map(|v| v.to_le_bytes()).collect();
    ram.write(GuestPhys(0), &vectors)?;
    ram.write(GuestPhys(0x400), &data_area(ports))?;
    // The EBDA says its own length in KiB.
    ram.write(GuestPhys(e820::EBDA), &[0; 1024])?;
    ram.write(GuestPhys(e820::EBDA), &[1])
}

/// The BIOS data area, 400h to 4FFh.
fn data_area(ports: Ports) -> [u8; 256] {
    let mut bda = [0; 256];
    let mut put = |address: usize, bytes: &[u8]| bda[address - 0x400..][..bytes.len()].copy_from_slice(bytes);
    let mut word = |address, value: u16| put(address, &value.to_le_bytes());
    for (i, &port) in ports.com.iter().enumerate() {
        word(0x400 + i * 2, port);
    }
    let serial = ports.com.iter().filter(|&&p| p != 0).count() as u16;
    word(0x40E, (e820::EBDA >> 4) as u16);
    // Equipment: coprocessor (bit 1), mouse (2), 80x25 colour (5-4 = 10), serial ports (11-9).
    word(0x410, 0x0026 | serial << 9);
    word(0x413, (e820::EBDA >> 10) as u16);
    for (address, value) in [(0x41A, 0x1E), (0x41C, 0x1E), (0x480, 0x1E), (0x482, 0x3E)] {
        word(address, value); // the keyboard's buffer: head, tail, start, end
    }
    word(0x44A, 80); // columns
    word(0x44C, 4096); // bytes of a page of text
    word(0x460, 0x0D0E); // cursor lines
    word(0x463, 0x03D4); // CRTC
    word(0x485, 16); // lines of a character
    put(0x449, &[3]); // video mode
    put(0x465, &[0x29, 0x30]); // mode control and palette as mode 3 has them
    put(0x475, &[ports.disks]);
    put(0x484, &[24]); // rows less one
    put(0x487, &[0x60, 0xF9, 0x11, 0x08]); // 256 KiB of VGA memory, switches, VGA active, colour display
    put(0x496, &[0x10]); // enhanced keyboard
    bda
}

#[cfg(test)]
mod tests {
    use super::*;
    use quintet_protocol::ram::RamLayout;

    fn written() -> GuestRam {
        let ram = GuestRam::anonymous(RamLayout::new(2 << 20)).expect("ram");
        write(
            &ram,
            Ports {
                com: [0x3F8, 0x2F8, 0, 0],
                disks: 1,
            },
        )
        .expect("written");
        ram
    }

    fn word(ram: &GuestRam, at: u64) -> u16 {
        u16::from_le_bytes(ram.read_array(GuestPhys(at)).expect("ram"))
    }

    #[test]
    fn every_vector_points_to_a_handler_that_returns() {
        let ram = written();
        for n in 0..256 {
            assert_eq!(word(&ram, n * 4 + 2), SEGMENT, "vector {n:#x}");
            let code: [u8; 64] = ram
                .read_array(GuestPhys(e820::BIOS + u64::from(word(&ram, n * 4))))
                .expect("handler");
            assert!(code.contains(&0xCF), "vector {n:#x}");
        }
    }

    #[test]
    fn hardware_vectors_have_handlers_of_their_own() {
        let ram = written();
        let iret = word(&ram, 0x60 * 4);
        for n in (8..16).chain(0x70..0x78) {
            assert_ne!(word(&ram, n * 4), iret, "vector {n:#x}");
        }
    }

    #[test]
    fn the_data_area_names_ports_memory_and_video_mode() {
        let ram = written();
        assert_eq!(
            [word(&ram, 0x400), word(&ram, 0x402), word(&ram, 0x404)],
            [0x3F8, 0x2F8, 0]
        );
        assert_eq!(word(&ram, 0x40E), 0x9FC0);
        assert_eq!(word(&ram, 0x413), 639);
        assert_eq!(word(&ram, 0x410) >> 9 & 7, 2);
        assert_eq!(ram.read_array(GuestPhys(0x449)), Ok([3]));
        assert_eq!(ram.read_array(GuestPhys(e820::EBDA)), Ok([1]));
    }

    #[test]
    fn the_machine_says_it_is_an_at() {
        assert_eq!(written().read_array(GuestPhys(0xF_FFFE)), Ok([0xFC]));
    }
}
