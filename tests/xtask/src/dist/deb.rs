//! A Debian package: three files in an `ar` archive (deb(5)).
//!
//! The container is sixty bytes a file, which is not worth a dependency: the rest of what such archives can have, symbol tables
//! and long names, does not occur here.

use md5::{Digest as _, Md5};

use super::depends::Needs;
use super::pack::{self, Entry};
use super::stage::Product;
use crate::sh::Failure;

/// Libraries that the window loads when it opens, a driver that draws, and what `quintet debug` starts.
const RECOMMENDS: &str =
    "libx11-xcb1, libxcursor1, libxi6, libxrandr2, libxkbcommon-x11-0, libwayland-client0, libvulkan1";
const SUGGESTS: &str = "gdb, mesa-vulkan-drivers";

/// Debian's name of the architecture that this was built for.
///
/// # Errors
/// A [`Failure`] for one that Debian has not.
pub fn architecture() -> Result<&'static str, Failure> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => Err(Failure::new(format!("no name of Debian's is known for {other}"))),
    }
}

/// The package.
///
/// # Errors
/// A [`Failure`] when a program is none, or is linked with what no package has.
pub fn package(product: &Product, time: u64) -> Result<Vec<u8>, Failure> {
    let files = product.debian();
    let mut needs = Needs::default();
    for program in files.iter().filter(|entry| entry.executable) {
        let of = Needs::of(&program.bytes);
        needs.join(of.map_err(|e| Failure::new(format!("{}: {e}", program.path)))?);
    }
    let size = files.iter().map(|entry| entry.bytes.len().div_ceil(1024)).sum();
    let sums: String = files
        .iter()
        .map(|entry| format!("{}  {}\n", hex(&Md5::digest(&entry.bytes)), entry.path))
        .collect();
    let control = [
        Entry::file("control", control(&product.version, &needs.depends()?, size)?),
        Entry::file("md5sums", sums),
    ];
    let control = pack::gzip(&pack::tar(&control, "", time)?)?;
    let data = pack::gzip(&pack::tar(&files, "", time)?)?;
    Ok(ar(
        &[
            ("debian-binary", b"2.0\n".as_slice()),
            ("control.tar.gz", &control),
            ("data.tar.gz", &data),
        ],
        time,
    ))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The fields of deb-control(5). Who packs says who maintains by DEBFULLNAME and DEBEMAIL, as with Debian's own tools.
fn control(version: &str, depends: &str, kibibytes: usize) -> Result<String, Failure> {
    let of = |name: &str, otherwise: &str| std::env::var(name).unwrap_or_else(|_| otherwise.to_owned());
    let (name, mail) = (
        of("DEBFULLNAME", "Quintet maintainers"),
        of("DEBEMAIL", "maintainers@localhost"),
    );
    let architecture = architecture()?;
    Ok(format!(
        "Package: quintet\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: {name} <{mail}>\n\
         Installed-Size: {kibibytes}\nDepends: {depends}\nRecommends: {RECOMMENDS}\nSuggests: {SUGGESTS}\n\
         Section: otherosfs\nPriority: optional\nDescription: PC emulator of five processes over shared memory\n \
         Runs operating systems for x86 PCs, and WebAssembly modules, in a window or\n \
         without. Processor, devices, picture and sound are processes of their own,\n \
         confined, and can be restarted or held by a debugger while the others go on.\n"
    ))
}

/// An archive in the common format of ar(5).
fn ar(files: &[(&str, &[u8])], time: u64) -> Vec<u8> {
    let mut out = b"!<arch>\n".to_vec();
    for (name, bytes) in files {
        let header = format!(
            "{name:<16}{time:<12}{:<6}{:<6}{:<8}{:<10}`\n",
            0,
            0,
            "100644",
            bytes.len()
        );
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(bytes);
        if bytes.len() % 2 == 1 {
            out.push(b'\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_sixty_bytes_and_contents_begin_at_even_places() {
        let archive = ar(&[("one", b"abc"), ("control.tar.gz", b"de")], 1_700_000_000);
        assert_eq!(&archive[..8], b"!<arch>\n");
        assert_eq!(
            &archive[8..68],
            b"one             1700000000  0     0     100644  3         `\n"
        );
        assert_eq!(&archive[68..72], b"abc\n");
        assert!(archive[72..].starts_with(b"control.tar.gz  "));
        assert_eq!(archive.len(), 8 + 60 + 4 + 60 + 2);
    }

    #[test]
    fn control_has_the_fields_that_dpkg_wants() {
        let text = control("0.1.0", "libc6 (>= 2.34)", 9).expect("control");
        for field in [
            "Package: quintet\n",
            "Version: 0.1.0\n",
            "Maintainer: ",
            "Depends: libc6 (>= 2.34)\n",
        ] {
            assert!(text.contains(field), "{text}");
        }
        assert!(text.ends_with(".\n") && !text.contains("\n\n"));
        assert!(
            text.lines()
                .all(|line| line.starts_with(' ') || line.contains(": ")),
            "{text}"
        );
    }
}
