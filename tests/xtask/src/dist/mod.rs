//! `cargo xtask dist`: what a user installs, a tar archive and a Debian package.
//!
//! Both hold the same files, put together once ([`stage`]) and packed twice ([`pack`], [`deb`]), byte for byte the same from the
//! same commit: the order is that of names, times are the commit's, owners are root. `dpkg-deb` and `tar` are not needed. What was
//! decided is in docs/adr/0120.

mod deb;
mod depends;
mod icon;
mod licences;
mod pack;
mod stage;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use crate::sh::{self, Failure};
use crate::{packages, run};

const USAGE: &str = "\
Usage: cargo xtask dist [OPTIONS]

  --profile P     build with this profile of cargo [default: release]
  --binaries DIR  pack the programs in DIR, and build nothing
  --out DIR       where to put the packages [default: target/dist]
  --debug         keep debugging information";

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    profile: String,
    binaries: Option<PathBuf>,
    out: PathBuf,
    debug: bool,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self, Failure> {
        let mut options = Self {
            profile: "release".into(),
            binaries: None,
            out: sh::target().join("dist"),
            debug: false,
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || {
                let value = args.next().cloned();
                value.ok_or_else(|| Failure::new(format!("{arg} needs a value\n\n{USAGE}")))
            };
            match arg.as_str() {
                "--profile" => options.profile = value()?,
                "--binaries" => options.binaries = Some(value()?.into()),
                "--out" => options.out = value()?.into(),
                "--debug" => options.debug = true,
                _ => return Err(Failure::new(format!("no option {arg:?}\n\n{USAGE}"))),
            }
        }
        Ok(options)
    }
}

/// Builds, puts together and packs; prints the paths of the packages.
///
/// # Errors
/// A [`Failure`] when something does not build, is missing, or has no licence.
pub fn dist(args: &[String]) -> Result<ExitCode, Failure> {
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        println!("{USAGE}");
        return Ok(ExitCode::SUCCESS);
    }
    let options = Options::parse(args)?;
    let binaries = match &options.binaries {
        Some(dir) => dir.clone(),
        None => {
            packages::for_build()?;
            run::build(&options.profile)?;
            // Cargo calls the folder of its profile `dev` so.
            let folder = if options.profile == "dev" {
                "debug"
            } else {
                &options.profile
            };
            sh::target().join(folder)
        }
    };
    let time = time()?;
    let product = stage::Product::new(&binaries, options.debug)?;
    let name = format!("quintet-{}-{}-linux", product.version, std::env::consts::ARCH);
    let archive = pack::gzip(&pack::tar(&product.portable(), &format!("{name}/"), time)?)?;
    let package = deb::package(&product, time)?;
    for (file, bytes) in [
        (format!("{name}.tar.gz"), archive),
        (
            format!("quintet_{}_{}.deb", product.version, deb::architecture()?),
            package,
        ),
    ] {
        let path = options.out.join(file);
        sh::write(&path, &bytes)?;
        println!("{}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// The time of every file, in seconds since 1970: SOURCE_DATE_EPOCH (reproducible-builds.org), else that of the last commit.
fn time() -> Result<u64, Failure> {
    let text = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text,
        Err(_) => sh::output(
            Command::new("git")
                .args(["log", "-1", "--format=%ct"])
                .current_dir(sh::root()),
        )
        .map_err(|e| Failure::new(format!("without a repository, set SOURCE_DATE_EPOCH: {e}")))?,
    };
    let seconds = text.trim().parse();
    seconds.map_err(|_| {
        Failure::new(format!(
            "SOURCE_DATE_EPOCH is {text:?}, and seconds since 1970 are wanted"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, Failure> {
        Options::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn a_release_is_built_unless_binaries_are_given() {
        let release = parse("").expect("parses");
        assert_eq!((release.profile.as_str(), release.binaries), ("release", None));
        let given = parse("--binaries b --out o --debug --profile p").expect("parses");
        let wanted = Options {
            profile: "p".into(),
            binaries: Some("b".into()),
            out: "o".into(),
            debug: true,
        };
        assert_eq!(given, wanted);
        assert!(parse("--out").is_err() && parse("--outt x").is_err());
    }
}
