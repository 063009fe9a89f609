//! Assembler and linker for build scripts that make guest code: the C compiler's, which a Rust installation needs
//! anyway. `QUINTET_GUEST_CC` and `QUINTET_GUEST_LD` name others, for hosts that are not x86.
//!
//! A file and not a crate: build scripts take it in by path, and nothing else needs it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// The tools, and where their output goes.
pub struct Tools {
    cc: String,
    ld: String,
    folders: Vec<PathBuf>,
    /// The build script's `OUT_DIR`.
    pub out: PathBuf,
}

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

impl Tools {
    /// The tools that the environment names. The script runs again when what is in `folders` changes, and files there and
    /// in the output directory can be included.
    pub fn new(folders: &[&Path]) -> Self {
        for folder in folders {
            println!("cargo:rerun-if-changed={}", folder.display());
        }
        Self {
            folders: folders.iter().map(|&folder| folder.to_owned()).collect(),
            cc: tool("QUINTET_GUEST_CC", "cc"),
            ld: tool("QUINTET_GUEST_LD", "ld"),
            out: PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")),
        }
    }

    /// Assembles one file for 80x86 processors.
    pub fn assemble(&self, source: &Path) -> PathBuf {
        let name = source.file_stem().expect("a file name");
        let object = self.out.join(name).with_extension("o");
        run(Command::new(&self.cc)
            .args(["-m32", "-c", "-Wa,--fatal-warnings"])
            .args(
                self.folders
                    .iter()
                    .chain([&self.out])
                    .map(|folder| format!("-Wa,-I{}", folder.display())),
            )
            .arg("-o")
            .arg(&object)
            .arg(source));
        object
    }

    /// Links `objects` by `script` to the file `name`. `flags` say what it is.
    pub fn link(&self, script: &Path, objects: &[PathBuf], name: &str, flags: &[&str]) -> PathBuf {
        let image = self.out.join(name);
        run(Command::new(&self.ld)
            .args(["-m", "elf_i386", "-static", "--build-id=none"])
            .args(flags)
            .arg("-T")
            .arg(script)
            .arg("-o")
            .arg(&image)
            .args(objects));
        image
    }
}

/// The assembly sources in a directory, by name.
pub fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut list: Vec<PathBuf> = fs::read_dir(directory)
        .expect("the directory of the sources")
        .map(|entry| entry.expect("a directory entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "S"))
        .collect();
    list.sort();
    list
}
