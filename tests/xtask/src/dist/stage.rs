//! The files of the product, by their places below a prefix.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::icon;
use super::licences;
use super::pack::{self, Entry};
use crate::run;
use crate::sh::{self, Failure};

/// What the user calls.
const PROGRAM: &str = "quintet";

/// Everything that is installed.
#[derive(Debug)]
pub struct Product {
    /// Its version.
    pub version: String,
    /// Files below the prefix, completions of zsh and the copyright not among them: their places differ.
    common: Vec<Entry>,
    zsh: Vec<u8>,
    copyright: String,
}

impl Product {
    /// Collects the programs in `binaries`, what they say of themselves, documentation and licences.
    ///
    /// # Errors
    /// A [`Failure`] when a program is missing, or a crate has no licence.
    pub fn new(binaries: &Path, debug: bool) -> Result<Self, Failure> {
        let scratch = Scratch::new()?;
        let mut common = vec![program(binaries, PROGRAM, "bin", debug, &scratch)?];
        let workers = run::BINARIES
            .into_iter()
            .filter(|package| *package != "quintet-coordinator");
        for name in workers.chain([run::COMPILER]) {
            common.push(program(binaries, name, "libexec/quintet", debug, &scratch)?);
        }
        let (man, completions) = (scratch.0.join("man"), scratch.0.join("completions"));
        sh::run(
            Command::new(binaries.join(PROGRAM))
                .arg("generate")
                .arg("--man")
                .arg(&man)
                .arg("--completions")
                .arg(&completions),
        )?;
        for page in files(&man)? {
            let name = page.file_name().unwrap_or_default().to_string_lossy();
            let page = pack::gzip(&sh::bytes(&page)?)?;
            common.push(Entry::file(format!("share/man/man1/{name}.gz"), page));
        }
        for (from, to) in [
            ("quintet.bash", "bash-completion/completions/quintet"),
            ("quintet.fish", "fish/vendor_completions.d/quintet.fish"),
        ] {
            common.push(Entry::file(
                format!("share/{to}"),
                sh::bytes(&completions.join(from))?,
            ));
        }
        common.push(Entry::file(
            "share/applications/quintet.desktop",
            include_str!("quintet.desktop"),
        ));
        let icons = "share/icons/hicolor";
        common.push(Entry::file(
            format!("{icons}/scalable/apps/quintet.svg"),
            icon::svg(),
        ));
        for size in icon::SIZES {
            common.push(Entry::file(
                format!("{icons}/{size}x{size}/apps/quintet.png"),
                icon::png(size)?,
            ));
        }
        common.extend(documentation()?);
        let (version, crates) = licences::crates()?;
        let list = licences::list(&crates)?;
        common.push(Entry::file(
            "share/doc/quintet/licences.txt.gz",
            pack::gzip(list.as_bytes())?,
        ));
        Ok(Self {
            version,
            common,
            zsh: sh::bytes(&completions.join("_quintet"))?,
            copyright: copyright()?,
        })
    }

    /// For a directory of the user's choice.
    pub fn portable(&self) -> Vec<Entry> {
        self.with("share/zsh/site-functions/_quintet")
    }

    /// For Debian, below `usr`, sorted.
    pub fn debian(&self) -> Vec<Entry> {
        let mut files = self.with("share/zsh/vendor-completions/_quintet");
        for file in &mut files {
            file.path.insert_str(0, "usr/");
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files
    }

    fn with(&self, zsh: &str) -> Vec<Entry> {
        let mut files = self.common.clone();
        files.push(Entry::file(zsh, self.zsh.clone()));
        files.push(Entry::file("share/doc/quintet/copyright", self.copyright.clone()));
        files
    }
}

/// A directory for as long as this lives.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("quintet-dist-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A program without its debugging information: names of functions stay, for profiles and for what a panic says.
fn program(from: &Path, name: &str, to: &str, debug: bool, scratch: &Scratch) -> Result<Entry, Failure> {
    let source = from.join(name);
    if !source.is_file() {
        return Err(Failure::new(format!(
            "{} is not there; cargo xtask dist without --binaries builds all",
            source.display()
        )));
    }
    let bytes = if debug {
        sh::bytes(&source)?
    } else {
        let stripped = scratch.0.join(name);
        sh::output(
            Command::new("strip")
                .arg("--strip-debug")
                .arg("-o")
                .arg(&stripped)
                .arg(&source),
        )?;
        sh::bytes(&stripped)?
    };
    Ok(Entry {
        executable: true,
        ..Entry::file(format!("{to}/{name}"), bytes)
    })
}

/// Files of a directory, sorted.
fn files(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = std::fs::read_dir(dir).map_err(|e| Failure::new(format!("{}: {e}", dir.display())))?;
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    found.sort();
    Ok(found)
}

/// What there is to read: the README and the pages beside it, in the same places to each other.
fn documentation() -> Result<Vec<Entry>, Failure> {
    let pages = sh::tree()?.into_iter().filter(|path| {
        let page = path
            .extension()
            .is_some_and(|extension| ["md", "svg", "png"].iter().any(|kind| extension == *kind));
        path.starts_with("docs") && page
    });
    let more = ["README.md", "LICENSE-MIT"].map(PathBuf::from);
    pages
        .chain(more)
        .map(|path| {
            let bytes = sh::bytes(&sh::root().join(&path))?;
            Ok(Entry::file(
                format!("share/doc/quintet/{}", path.display()),
                bytes,
            ))
        })
        .collect()
}

/// Debian's copyright file (copyright-format 1.0), which a user of the archive may read as well.
fn copyright() -> Result<String, Failure> {
    let text = sh::read(&sh::root().join("LICENSE-MIT"))?;
    let holder = text
        .lines()
        .find_map(|line| line.strip_prefix("Copyright "))
        .unwrap_or("the Quintet project");
    let body: String = text
        .lines()
        .map(|line| {
            if line.trim().is_empty() {
                " .\n".to_owned()
            } else {
                format!(" {line}\n")
            }
        })
        .collect();
    Ok(format!(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: quintet\n\
         Comment: The programs contain other crates; each with its licence is in licences.txt.gz beside this file.\n\n\
         Files: *\nCopyright: {holder}\nLicense: Expat\n{body}"
    ))
}
