//! Assembles the guests under `asm/` and the firmware under `rom/`: no guest binary is in the repository, and no
//! assembler to install.

use std::path::Path;

#[path = "../../io-worker/firmware/assemble.rs"]
mod assemble;

fn main() {
    println!("cargo:rerun-if-changed=../../io-worker/firmware/assemble.rs");
    let (asm, rom) = (Path::new("asm"), Path::new("rom"));
    let tools = assemble::Tools::new(&[asm, rom]);
    // Kernels, and firmware images.
    for (folder, script, extension) in [(asm, "multiboot.ld", "elf"), (rom, "rom.ld", "bin")] {
        for source in assemble::sources(folder) {
            let object = tools.assemble(&source);
            let name = source.file_stem().expect("a file name").to_string_lossy();
            tools.link(
                &folder.join(script),
                &[object],
                &format!("{name}.{extension}"),
                &["--no-warn-rwx-segments", "-s", "-e", "0"],
            );
        }
    }
}
