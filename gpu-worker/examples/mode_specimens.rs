//! Draws a specimen of each kind of screen as a PNG, for the eye: `mode_specimens DIRECTORY`.

use quintet_gpu_worker::png::encode;
use quintet_gpu_worker::render::{Damage, Inputs, Renderer};
use quintet_protocol::font::CP437_8X16;
use quintet_protocol::time::VmTime;
use quintet_protocol::vram::{Palette, VgaRegisters, plane_index};

fn main() -> anyhow::Result<()> {
    let directory = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let save =
        |name: &str, registers: &VgaRegisters, palette: &Palette, memory: &Vec<u8>| -> anyhow::Result<()> {
            let mut renderer = Renderer::default();
            renderer.render(
                &Inputs {
                    registers,
                    palette,
                    memory,
                    now: VmTime(0),
                },
                &Damage::All,
            );
            let path = format!("{directory}/{name}.png");
            std::fs::write(&path, encode(renderer.picture())?)?;
            println!("{path}");
            Ok(())
        };
    let mut memory = vec![0; 16 << 20];
    for (code, glyph) in (0..).zip(CP437_8X16) {
        for (line, bits) in (0..).zip(glyph) {
            memory[plane_index(code * 32 + line, 2)] = bits;
        }
    }
    let mut put = |row: usize, column: usize, text: &[u8], attribute: u8| {
        for (index, &character) in text.iter().enumerate() {
            let offset = ((row * 80 + column + index) * 2) as u16;
            memory[plane_index(offset, 0)] = character;
            memory[plane_index(offset, 1)] = attribute;
        }
    };
    for row in 0..25 {
        put(row, 0, &[b' '; 80], 0x07);
    }
    put(0, 0, b"Quintet", 0x0F);
    put(
        0,
        8,
        b"starting Linux 6.1.0-18-686 on a pentium3 with 512 MiB",
        0x07,
    );
    for attribute in 0..128_u8 {
        let (row, column) = (usize::from(attribute / 16) + 2, usize::from(attribute % 16) * 4);
        put(row, column, format!(" {attribute:02X} ").as_bytes(), attribute);
    }
    for code in 0..=255_u8 {
        put(11 + usize::from(code / 64), usize::from(code % 64), &[code], 0x0B);
    }
    let line = |left: u8, middle: u8, right: u8| [&[left][..], &[middle; 40], &[right]].concat();
    put(16, 2, &line(0xC9, 0xCD, 0xBB), 0x1F);
    for row in 17..21 {
        put(row, 2, &line(0xBA, b' ', 0xBA), 0x1F);
    }
    put(18, 5, b"A dialogue box, as programs had them", 0x1E);
    put(19, 5, b"[ Yes ]   < No >   \x10 Help", 0x17);
    put(21, 2, &line(0xC8, 0xCD, 0xBC), 0x1F);
    put(23, 0, b"~ # ls /proc/irq", 0x07);
    put(24, 0, b"~ # ", 0x07);
    let mut registers = VgaRegisters::text_80x25();
    registers.crtc[0x0E] = ((24 * 80 + 4) >> 8) as u8;
    registers.crtc[0x0F] = ((24 * 80 + 4) & 0xFF) as u8;
    save("text", &registers, &Palette::ega(), &memory)?;

    registers.vbe = [0xB0C5, 640, 480, 16, 0x41, 0, 640, 480, 0, 0, 256];
    for y in 0..480_usize {
        for x in 0..640_usize {
            let pixel = (x * 31 / 639) << 11 | (y * 63 / 479) << 5 | ((x ^ y) & 31);
            memory[(y * 640 + x) * 2..][..2].copy_from_slice(&(pixel as u16).to_le_bytes());
        }
    }
    save("vbe565", &registers, &Palette::ega(), &memory)?;
    Ok(())
}
