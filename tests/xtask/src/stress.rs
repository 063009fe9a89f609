//! stress-ng for the guests that `tests/machine/stress.rs` boots: an archive that goes behind the tests' initramfs.
//!
//! Debian's package is linked dynamically, so its libraries come along. They are taken by package and by the form of their
//! names; looking for what each file asks for would need a reader of ELF files for a list that changes with a
//! release of Debian.

use std::path::{Path, PathBuf};

use crate::cpio::Cpio;
use crate::kernels::{Apt, remove};
use crate::sh::{self, Failure};

/// Packages with libraries that stress-ng of Debian 12 needs, directly or not.
const LIBRARIES: [&str; 23] = [
    "libapparmor1",
    "libbsd0",
    "libc6",
    "libcrypt1",
    "libdrm2",
    "libegl1",
    "libexpat1",
    "libffi8",
    "libgbm1",
    "libgcc-s1",
    "libgles2",
    "libglvnd0",
    "libjpeg62-turbo",
    "libjudydebian1",
    "libkmod2",
    "liblzma5",
    "libmd0",
    "libsctp1",
    "libssl3",
    "libwayland-server0",
    "libxxhash0",
    "libzstd1",
    "zlib1g",
];
/// The same for 64 bits alone.
const LIBRARIES_64: [&str; 1] = ["libipsec-mb1"];

/// The archive for Debian's architecture `arch`, made at `path` unless it is there.
///
/// # Errors
/// A [`Failure`] when a package cannot be had, or is not what it was.
pub fn archive(apt: &Apt, arch: &str, path: &Path) -> Result<(), Failure> {
    let mut c = Cpio::default();
    for dir in ["lib", "lib64", "usr", "usr/lib", "usr/bin"] {
        c.dir(dir);
    }
    let more = if arch == "amd64" { &LIBRARIES_64[..] } else { &[] };
    let packages = [&["stress-ng"], &LIBRARIES[..], more].concat();
    let root = apt.unpacked_together("stress", &packages, arch)?;
    c.program("usr/bin/stress-ng", &bytes(&root.join("usr/bin/stress-ng"))?);
    let found = libraries(&root)?;
    if found.len() < LIBRARIES.len() {
        return Err(Failure::new(format!(
            "{} libraries in {} packages",
            found.len(),
            packages.len()
        )));
    }
    for library in found {
        let Some(name) = library.file_name().and_then(|n| n.to_str()) else {
            continue;
        };
        // Where the loader itself is looked for is part of every program.
        let dir = if name == "ld-linux-x86-64.so.2" {
            "lib64"
        } else {
            "lib"
        };
        c.program(&format!("{dir}/{name}"), &bytes(&library)?);
    }
    remove(&root);
    sh::write(path, &c.finish())
}

fn bytes(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|e| Failure::new(format!("{}: {e}", path.display())))
}

/// Shared libraries below `root` by the names that programs ask for: `libm.so.6`, but not the `libz.so.1.2.13` behind a link.
fn libraries(root: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut all = Vec::new();
    for dir in ["lib", "usr/lib"] {
        let Ok(triples) = std::fs::read_dir(root.join(dir)) else {
            continue;
        };
        for triple in triples.flatten().filter(|t| t.path().is_dir()) {
            let fail = |e: std::io::Error| Failure::new(format!("{}: {e}", triple.path().display()));
            for file in std::fs::read_dir(triple.path()).map_err(fail)? {
                let path = file.map_err(fail)?.path();
                if path.is_file() && is_asked_for(&path) {
                    all.push(path);
                }
            }
        }
    }
    all.sort();
    Ok(all)
}

fn is_asked_for(path: &Path) -> bool {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    name.split_once(".so.")
        .is_some_and(|(_, version)| !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_programs_ask_for_are_taken() {
        for name in ["lib/libc.so.6", "libEGL.so.1", "ld-linux.so.2"] {
            assert!(is_asked_for(Path::new(name)), "{name}");
        }
        for name in ["libz.so.1.2.13", "libz.so", "libz.a", "gconv", "libx.so."] {
            assert!(!is_asked_for(Path::new(name)), "{name}");
        }
    }
}
