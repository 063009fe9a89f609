//! Archives that depend on their contents and one time alone.

use std::collections::BTreeSet;
use std::io::Write as _;

use flate2::{Compression, GzBuilder};

use crate::sh::Failure;

/// A file of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where, without a slash in front.
    pub path: String,
    /// Whether it may be executed.
    pub executable: bool,
    /// What is in it.
    pub bytes: Vec<u8>,
}

impl Entry {
    /// A file that is read.
    pub fn file(path: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            path: path.into(),
            executable: false,
            bytes: bytes.into(),
        }
    }
}

/// A tar archive (ustar, with GNU's long names where need be) of `entries` and the directories above them, each below `prefix`.
///
/// # Errors
/// A [`Failure`] for a path that does not fit, or that is there twice.
pub fn tar(entries: &[Entry], prefix: &str, time: u64) -> Result<Vec<u8>, Failure> {
    let mut sorted: Vec<&Entry> = entries.iter().collect();
    sorted.sort_by(|a, b| a.path.cmp(&b.path));
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0].path == pair[1].path) {
        return Err(Failure::new(format!("{} is packed twice", pair[0].path)));
    }
    let directories: BTreeSet<&str> = sorted
        .iter()
        .flat_map(|entry| entry.path.match_indices('/').map(|(at, _)| &entry.path[..=at]))
        .collect();
    let mut archive = ::tar::Builder::new(Vec::new());
    let mut add = |path: &str, mode: u32, kind: ::tar::EntryType, bytes: &[u8]| {
        let mut header = ::tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(time);
        header.set_size(bytes.len() as u64);
        let named = header
            .set_username("root")
            .and_then(|()| header.set_groupname("root"));
        named
            .and_then(|()| archive.append_data(&mut header, format!("{prefix}{path}"), bytes))
            .map_err(|e| Failure::new(format!("{path}: {e}")))
    };
    if !prefix.is_empty() {
        add("", 0o755, ::tar::EntryType::Directory, &[])?;
    }
    for directory in directories {
        add(directory, 0o755, ::tar::EntryType::Directory, &[])?;
    }
    for entry in sorted {
        let mode = if entry.executable { 0o755 } else { 0o644 };
        add(&entry.path, mode, ::tar::EntryType::Regular, &entry.bytes)?;
    }
    archive
        .into_inner()
        .map_err(|e| Failure::new(format!("tar: {e}")))
}

/// The bytes, compressed, without a name or a time.
///
/// # Errors
/// None that a vector would cause.
pub fn gzip(bytes: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut out = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    let written = out.write_all(bytes).and_then(|()| out.finish());
    written.map_err(|e| Failure::new(format!("gzip: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_making_does_not_show() {
        let (a, b) = (Entry::file("x/a", "1"), Entry::file("b", "2"));
        let one = tar(&[a.clone(), b.clone()], "", 7).expect("packed");
        let other = tar(&[b, a], "", 7).expect("packed");
        assert_eq!(gzip(&one).expect("gzip"), gzip(&other).expect("gzip"));
    }

    #[test]
    fn what_goes_in_comes_out_with_mode_owner_and_time() {
        let long = format!("x/{}/end", "long".repeat(60));
        let program = Entry {
            executable: true,
            ..Entry::file("x/program", "text")
        };
        let packed = tar(&[program, Entry::file(long.clone(), "far")], "p/", 1234).expect("packed");
        let mut archive = ::tar::Archive::new(packed.as_slice());
        let mut seen = Vec::new();
        for entry in archive.entries().expect("entries") {
            let entry = entry.expect("entry");
            let header = entry.header();
            assert_eq!((header.mtime().ok(), header.uid().ok()), (Some(1234), Some(0)));
            let path = entry.path().expect("a path").display().to_string();
            seen.push((path, header.mode().expect("a mode")));
        }
        assert!(seen.contains(&("p/x/program".into(), 0o755)), "{seen:?}");
        assert!(
            seen.contains(&("p/".into(), 0o755)) && seen.contains(&("p/x/".into(), 0o755)),
            "{seen:?}"
        );
        assert!(seen.contains(&(format!("p/{long}"), 0o644)), "{seen:?}");
    }

    #[test]
    fn a_path_is_there_once() {
        let twice = [Entry::file("a", "1"), Entry::file("a", "2")];
        assert!(
            tar(&twice, "p/", 0)
                .expect_err("refused")
                .to_string()
                .contains("a is packed twice")
        );
    }
}
