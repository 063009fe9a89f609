//! Assembles the BIOS and the VGA BIOS under `asm/`, with the fonts that `glyphs.rs` makes.

use std::fs;
use std::path::Path;

#[path = "assemble.rs"]
mod assemble;
#[path = "glyphs.rs"]
mod glyphs;

fn main() {
    for file in [
        "assemble.rs",
        "glyphs.rs",
        "../../protocol/src/font.rs",
        "../../protocol/src/font",
    ] {
        println!("cargo:rerun-if-changed={file}");
    }
    let asm = Path::new("asm");
    let tools = assemble::Tools::new(&[asm]);
    for (name, font) in [
        ("font8x16.bin", glyphs::of_16_lines()),
        ("font8x14.bin", glyphs::of_14_lines()),
        ("font8x8.bin", glyphs::of_8_lines()),
    ] {
        fs::write(tools.out.join(name), font).expect("a font written");
    }

    let (vga, bios): (Vec<_>, Vec<_>) = assemble::sources(asm).into_iter().partition(|path| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("vga"))
    });
    // The BIOS contains the VGA BIOS.
    let objects: Vec<_> = vga.iter().map(|source| tools.assemble(source)).collect();
    let rom = tools.link(&asm.join("vga.ld"), &objects, "vga.bin", &["--oformat", "binary"]);
    seal(&rom);
    let objects: Vec<_> = bios.iter().map(|source| tools.assemble(source)).collect();
    tools.link(
        &asm.join("bios.ld"),
        &objects,
        "bios.bin",
        &["--oformat", "binary"],
    );
}

/// An option ROM says its length in byte 2, in units of 512 bytes, and adds up to zero.
fn seal(rom: &Path) {
    let mut bytes = fs::read(rom).expect("the VGA BIOS");
    bytes[2] = u8::try_from(bytes.len() / 512).expect("a length that vga.ld has checked");
    let last = bytes.len() - 1;
    bytes[last] = 0;
    bytes[last] = bytes
        .iter()
        .fold(0_u8, |sum, &b| sum.wrapping_add(b))
        .wrapping_neg();
    fs::write(rom, bytes).expect("the VGA BIOS written");
}
