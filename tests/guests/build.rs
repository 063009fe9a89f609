//! Assembles the guests under `asm/` and the firmware under `rom/` with the C compiler's assembler and linker, which a Rust
//! installation needs anyway: no guest binary is in the repository, and no assembler to install.
//!
//! `QUINTET_GUEST_CC` and `QUINTET_GUEST_LD` name other tools, for hosts that are not x86.

use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

fn tool(variable: &str, default: &str) -> String {
    println!("cargo:rerun-if-env-changed={variable}");
    env::var(variable).unwrap_or_else(|_| default.to_owned())
}

fn run(command: &mut Command) {
    let shown = format!("{command:?}");
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("{shown}: {status}"),
        Err(error) => panic!("{shown}: {error}; is a C compiler with binutils installed?"),
    }
}

/// The sources in a folder, by name.
fn sources(folder: &str) -> Vec<(String, PathBuf)> {
    println!("cargo:rerun-if-changed={folder}");
    let entries = fs::read_dir(folder).expect("the directory of the guest sources");
    entries
        .map(|entry| entry.expect("a directory entry").path())
        .filter(|source| source.extension().is_some_and(|e| e == "S"))
        .map(|source| {
            let name = source.file_stem().expect("a file name");
            (name.to_string_lossy().into_owned(), source)
        })
        .collect()
}

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let (cc, ld) = (tool("QUINTET_GUEST_CC", "cc"), tool("QUINTET_GUEST_LD", "ld"));
    // Kernels, and firmware images.
    for (folder, script, extension) in [("asm", "asm/multiboot.ld", "elf"), ("rom", "rom/rom.ld", "bin")] {
        for (name, source) in sources(folder) {
            let object = out.join(format!("{name}.o"));
            run(Command::new(&cc)
                .args(["-m32", "-c", "-Wa,--fatal-warnings", "-Wa,-Iasm", "-o"])
                .arg(&object)
                .arg(&source));
            run(Command::new(&ld)
                .args(["-m", "elf_i386", "-static", "--build-id=none"])
                .args(["--no-warn-rwx-segments", "-T", script, "-s", "-e", "0", "-o"])
                .arg(out.join(format!("{name}.{extension}")))
                .arg(&object));
        }
    }
}
