//! `cargo xtask guest`: the guests that are assembled from source.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::kernels;
use crate::packages;
use crate::sh::{self, Failure};

#[path = "../../guests/src/seed.rs"]
mod seed;

/// Bytes of a diskette of 1.44 MiB: what the disks are made as long as, which have their programs at the beginning.
const DISKETTE: usize = 1_474_560;

/// Lists the guests, or builds one and prints where it is. `linux` stands for Debian's kernels, whose variables are
/// printed for a shell.
///
/// # Errors
/// A [`Failure`] when it does not build or has no such name.
pub fn guest(args: &[String]) -> Result<ExitCode, Failure> {
    packages::for_build()?;
    if args.first().is_some_and(|name| name == "linux") {
        for (variable, path) in kernels::prepare(false)? {
            println!("export {variable}='{}'", path.to_string_lossy());
        }
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(name) = args.first()
        && let Some(path) = module(name)?
    {
        println!("{}", path.display());
        return Ok(ExitCode::SUCCESS);
    }
    let built = build()?;
    let Some(name) = args.first() else {
        for (name, about) in list()? {
            println!("{name:10} {about}");
        }
        println!(
            "{:10} Debian's kernels and an initramfs, as the tests boot them.",
            "linux"
        );
        return Ok(ExitCode::SUCCESS);
    };
    // A kernel, firmware, or a disk.
    let files = ["elf", "bin", "img"].map(|kind| format!("{name}.{kind}"));
    let Some(file) = files.iter().find(|file| built.join(file).is_file()) else {
        return Err(Failure::new(format!(
            "no guest {name:?}; cargo xtask guest lists them"
        )));
    };
    let from = built.join(file);
    let to = sh::target().join("guests").join(file);
    let mut bytes = sh::bytes(&from)?;
    if file.ends_with(".img") {
        bytes.resize(DISKETTE, 0);
    }
    sh::write(&to, &bytes)?;
    println!("{}", to.display());
    Ok(ExitCode::SUCCESS)
}

/// Builds a guest that is a kernel and answers where it is.
///
/// # Errors
/// A [`Failure`] when it does not build or has no such name.
pub fn kernel(name: &str) -> Result<PathBuf, Failure> {
    packages::for_build()?;
    let file = build()?.join(format!("{name}.elf"));
    match file.is_file() {
        true => Ok(file),
        false => Err(Failure::new(format!(
            "no guest {name:?}; cargo xtask guest lists them"
        ))),
    }
}

/// Assembles a WebAssembly example and answers where it is; `None` when there is none of that name.
fn module(name: &str) -> Result<Option<PathBuf>, Failure> {
    let source = Path::new("tests/guests/wat").join(format!("{name}.wat"));
    if !sh::tree()?.contains(&source) {
        return Ok(None);
    }
    let failed = |e: &dyn std::fmt::Display| Failure::new(format!("{}: {e}", source.display()));
    let text = match name {
        "seed" => seed::text(),
        _ => sh::read(&sh::root().join(&source))?,
    };
    let bytes = wat::parse_str(text).map_err(|e| failed(&e))?;
    let to = sh::target().join("guests").join(format!("{name}.wasm"));
    sh::write(&to, &bytes)?;
    Ok(Some(to))
}

/// Assembles them all and answers the directory they are in.
fn build() -> Result<PathBuf, Failure> {
    let args = [
        "build",
        "--quiet",
        "--package",
        "quintet-guests",
        "--message-format",
        "json",
    ];
    let messages = sh::output(&mut sh::cargo(&args))?;
    messages
        .lines()
        .filter(|line| line.contains("build-script-executed") && line.contains("quintet-guests"))
        .find_map(|line| {
            line.split_once("\"out_dir\":\"")?
                .1
                .split_once('"')
                .map(|(dir, _)| PathBuf::from(dir))
        })
        .ok_or_else(|| Failure::new("cargo did not say where the guests were built"))
}

/// Every source with the first sentence of its header.
fn list() -> Result<Vec<(String, String)>, Failure> {
    let mut all = Vec::new();
    for path in sh::tree()? {
        let kind = path.extension().and_then(|e| e.to_str());
        if matches!(kind, Some("S" | "wat")) && path.starts_with("tests/guests") {
            let text = sh::read(&sh::root().join(&path))?;
            let first = text
                .lines()
                .next()
                .unwrap_or_default()
                .trim_start_matches("/*")
                .trim_start_matches(";;")
                .trim();
            all.push((stem(&path), first.trim_end_matches("*/").trim().to_owned()));
        }
    }
    Ok(all)
}

fn stem(path: &Path) -> String {
    path.file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}
