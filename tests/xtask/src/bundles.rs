//! Programs of Debian's for the guests that tests boot: archives that go behind the tests' initramfs.
//!
//! They are linked dynamically, so their libraries come along. Those are taken by package and by the form of their
//! names; looking for what each file asks for would need a reader of ELF files for a list that changes with a
//! release of Debian.

use std::path::{Path, PathBuf};

use crate::cpio::Cpio;
use crate::kernels::{Apt, remove};
use crate::sh::{self, Failure};

/// Programs with what they need.
#[derive(Debug)]
pub struct Bundle {
    /// Of the archive.
    pub name: &'static str,
    /// Package of the programs, and their names in its `usr/bin`.
    package: &'static str,
    programs: &'static [&'static str],
    /// Packages with libraries that they need in Debian 12, directly or not.
    libraries: &'static [&'static str],
    /// The same for 64 bits alone.
    libraries_64: &'static [&'static str],
}

/// stress-ng, for `tests/machine/stress.rs`.
pub const STRESS: Bundle = Bundle {
    name: "stress",
    package: "stress-ng",
    programs: &["stress-ng"],
    libraries: &[
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
    ],
    libraries_64: &["libipsec-mb1"],
};

/// A player and a mixer, for `tests/machine/sound.rs`.
pub const SOUND: Bundle = Bundle {
    name: "sound",
    package: "alsa-utils",
    programs: &["aplay", "amixer"],
    libraries: &["libasound2", "libc6"],
    libraries_64: &[],
};

/// Makes the archive of a bundle for Debian's architecture `arch` at `path`.
///
/// # Errors
/// A [`Failure`] when a package cannot be had, or is not what it was.
pub fn archive(apt: &Apt, bundle: &Bundle, arch: &str, path: &Path) -> Result<(), Failure> {
    let mut c = Cpio::default();
    for dir in ["lib", "lib64", "usr", "usr/lib", "usr/bin"] {
        c.dir(dir);
    }
    let more = if arch == "amd64" { bundle.libraries_64 } else { &[] };
    let packages = [&[bundle.package], bundle.libraries, more].concat();
    let root = apt.unpacked_together(bundle.name, &packages, arch)?;
    for program in bundle.programs {
        let path = format!("usr/bin/{program}");
        c.program(&path, &sh::bytes(&root.join(&path))?);
    }
    let found = libraries(&root)?;
    if found.len() < bundle.libraries.len() {
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
        c.program(&format!("{dir}/{name}"), &sh::bytes(&library)?);
    }
    remove(&root);
    sh::write(path, &c.finish())
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
