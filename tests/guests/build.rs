//! Assembles the guests under `asm/` with the C compiler's assembler and linker, which a Rust
//! installation needs anyway: no guest binary is in the repository, and no assembler to install.
//!
//! `QUINTET_GUEST_CC` and `QUINTET_GUEST_LD` name other tools, for hosts that are not x86.

use std::path::{Path, PathBuf};
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

fn main() {
    let asm = Path::new("asm");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let (cc, ld) = (tool("QUINTET_GUEST_CC", "cc"), tool("QUINTET_GUEST_LD", "ld"));
    println!("cargo:rerun-if-changed=asm");
    for entry in fs::read_dir(asm).expect("the directory of the guest sources") {
        let source = entry.expect("a directory entry").path();
        if source.extension().is_none_or(|e| e != "S") {
            continue;
        }
        let name = source
            .file_stem()
            .expect("a file name")
            .to_string_lossy()
            .into_owned();
        let object = out.join(format!("{name}.o"));
        let image = out.join(format!("{name}.elf"));
        run(Command::new(&cc)
            .args(["-m32", "-c", "-Wa,--fatal-warnings", "-Wa,-Iasm", "-o"])
            .arg(&object)
            .arg(&source));
        run(Command::new(&ld)
            .args([
                "-m",
                "elf_i386",
                "-static",
                "--build-id=none",
                "--no-warn-rwx-segments",
                "-T",
                "asm/multiboot.ld",
                "-s",
            ])
            .arg("-o")
            .arg(&image)
            .arg(&object));
    }
}
