//! What a package depends on, from what its programs are linked with.
//!
//! `dpkg-shlibdeps` knows the same, but only on a Debian, and answers by the symbols of the libraries that the host happens to have: the same
//! commit would make another package on another host. A program names the versions of the C library that it needs; the other
//! libraries are few, and one that is not in the table is an error.

use std::collections::{BTreeMap, BTreeSet};

use object::Endianness;
use object::elf::{DT_NEEDED, FileHeader64};
use object::read::elf::FileHeader as _;

use crate::sh::Failure;

/// A library, Debian's package for it, and the least version that its interface needs.
const LIBRARIES: [(&str, &str, Option<&str>); 5] = [
    ("libc.so.6", "libc6", None),
    ("libm.so.6", "libc6", None),
    ("ld-linux-x86-64.so.2", "libc6", None),
    // _Unwind_GetIPInfo, GCC_4.2.0, is the newest that Rust's unwinder calls.
    ("libgcc_s.so.1", "libgcc-s1", Some("4.2")),
    ("libasound.so.2", "libasound2", Some("1.0.27")),
];

/// What a program is linked with.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Names of libraries.
    libraries: BTreeSet<String>,
    /// Versions of the C library's interface, such as (2, 35).
    glibc: BTreeSet<(u32, u32)>,
}

impl Needs {
    /// Of an ELF file of 64 bits.
    ///
    /// # Errors
    /// A [`Failure`] when it is none.
    pub fn of(program: &[u8]) -> Result<Self, Failure> {
        Self::read(program).map_err(|e| Failure::new(format!("not a program of 64 bits: {e}")))
    }

    fn read(program: &[u8]) -> object::read::Result<Self> {
        let header = FileHeader64::<Endianness>::parse(program)?;
        let endian = header.endian()?;
        let sections = header.sections(endian, program)?;
        let table = sections.dynamic_table(endian, program)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut needs = Self::default();
        for entry in table.iter().filter(|entry| entry.tag == DT_NEEDED) {
            needs.libraries.insert(text(table.string(entry)?));
        }
        if let Some((mut files, link)) = sections.gnu_verneed(endian, program)? {
            let strings = sections.strings(endian, program, link)?;
            while let Some((_, mut versions)) = files.next()? {
                while let Some(version) = versions.next()? {
                    let name = text(version.name(endian, strings)?);
                    needs.glibc.extend(name.strip_prefix("GLIBC_").and_then(numbers));
                }
            }
        }
        Ok(needs)
    }

    /// Takes up what another program needs.
    pub fn join(&mut self, other: Self) {
        self.libraries.extend(other.libraries);
        self.glibc.extend(other.glibc);
    }

    /// As a package's `Depends` field.
    ///
    /// # Errors
    /// A [`Failure`] that names a library of which no package is known.
    pub fn depends(&self) -> Result<String, Failure> {
        let mut packages: BTreeMap<&str, Option<String>> = BTreeMap::new();
        for library in &self.libraries {
            let known = LIBRARIES.iter().find(|(name, ..)| name == library);
            let (_, package, least) = known.ok_or_else(|| {
                Failure::new(format!(
                    "no package is known for {library}; it belongs into tests/xtask/src/dist/depends.rs"
                ))
            })?;
            let least = match (*package, self.glibc.last()) {
                ("libc6", Some((major, minor))) => Some(format!("{major}.{minor}")),
                _ => least.map(str::to_owned),
            };
            packages.insert(package, least);
        }
        let fields: Vec<String> = packages
            .into_iter()
            .map(|(package, least)| match least {
                Some(version) => format!("{package} (>= {version})"),
                None => package.to_owned(),
            })
            .collect();
        Ok(fields.join(", "))
    }
}

/// `2.35` or `2.2.5`, its first two numbers.
fn numbers(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(libraries: &[&str], glibc: &[&str]) -> Needs {
        Needs {
            libraries: libraries.iter().map(|name| (*name).to_owned()).collect(),
            glibc: glibc.iter().filter_map(|version| numbers(version)).collect(),
        }
    }

    #[test]
    fn the_newest_interface_of_the_c_library_counts_and_by_number() {
        let n = needs(
            &["libc.so.6", "libm.so.6", "libgcc_s.so.1"],
            &["2.2.5", "2.34", "2.9"],
        );
        assert_eq!(n.depends().expect("known"), "libc6 (>= 2.34), libgcc-s1 (>= 4.2)");
    }

    #[test]
    fn sound_is_a_dependency_only_if_it_is_linked() {
        let mut n = needs(&["libc.so.6"], &["2.34"]);
        assert!(!n.depends().expect("known").contains("libasound2"));
        n.join(needs(&["libasound.so.2"], &["2.36"]));
        assert_eq!(
            n.depends().expect("known"),
            "libasound2 (>= 1.0.27), libc6 (>= 2.36)"
        );
    }

    #[test]
    fn a_library_that_nobody_knows_is_named() {
        let error = needs(&["libfrob.so.7"], &[]).depends().expect_err("unknown");
        assert!(error.to_string().contains("libfrob.so.7"), "{error}");
    }

    #[test]
    fn this_very_program_is_linked_with_the_c_library() {
        let own = std::env::current_exe()
            .and_then(std::fs::read)
            .expect("this program");
        let n = Needs::of(&own).expect("a program");
        assert!(n.libraries.contains("libc.so.6"), "{n:?}");
        assert!(n.glibc.last() >= Some(&(2, 14)), "{n:?}");
        assert!(Needs::of(b"no program").is_err());
    }
}
