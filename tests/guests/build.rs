//! Assembles the guests under `asm/`, the firmware under `rom/` and the boot disks under `disk/`: no guest binary is in the repository, and no
//! assembler to install.

use std::path::Path;

#[path = "../../io-worker/firmware/assemble.rs"]
mod assemble;

fn main() {
    println!("cargo:rerun-if-changed=../../io-worker/firmware/assemble.rs");
    let (asm, rom, disk) = (Path::new("asm"), Path::new("rom"), Path::new("disk"));
    let tools = assemble::Tools::new(&[asm, rom, disk]);
    let kernel = ["--no-warn-rwx-segments", "-s"];
    // What starts at a place of its own has no entry to be named; a kernel has, and its script says which.
    let image = ["--no-warn-rwx-segments", "-s", "-e", "0"];
    // Kernels, firmware images, the first sectors of disks.
    for (folder, script, extension, flags) in [
        (asm, "multiboot.ld", "elf", &kernel[..]),
        (rom, "rom.ld", "bin", &image),
        (disk, "disk.ld", "img", &image),
    ] {
        for source in assemble::sources(folder) {
            let object = tools.assemble(&source);
            let name = source.file_stem().expect("a file name").to_string_lossy();
            tools.link(
                &folder.join(script),
                &[object],
                &format!("{name}.{extension}"),
                flags,
            );
        }
    }
}
