//! The options of `cargo xtask bench`.

use std::path::PathBuf;
use std::time::Duration;

use super::engine::Engine;
use super::guest;
use crate::sh::Failure;

/// What `--help` prints.
pub const HELP: &str = "\
Usage: cargo xtask bench [OPTIONS]
       cargo xtask bench disk [OPTIONS]   throughput of disks; has a --help of its own
       cargo xtask bench display [OPTIONS]   cost of a moving picture in a window; has a --help of its own

Boots Debian's kernel with an initramfs of busybox under several PC emulators and times the same pieces of work in each.
Engines alternate within a round; figures are medians over the rounds, and ratios say how many times as fast as the
reference an engine is. The benchmarks of the parts are criterion's: cargo bench -p PACKAGE.

Options:
  --engines LIST     what to measure, separated by commas: interp, jit (quintet), qemu (TCG), bochs
                     [default: interp,jit,qemu]; what is not there is skipped, and a line says so
  --reference NAME   the engine that ratios refer to [default: qemu if it is measured, else the last]
  --bits 64|32       Debian's amd64 or i686 kernel [default: 64]
  --rounds N         how often each engine boots [default: 3]
  --only LIST        only these pieces of work, separated by commas [default: all]; booting is always timed
  --scale PERCENT    how much of each piece of work to do, 1 to 1000 [default: 100]
  --ram MIB          guest RAM in MiB, 256 to 3072 [default: 512]
  --timeout SECONDS  limit of one boot with all its work [default: 1800]
  --quintet FILE     measure this program instead of building one in release
  --markdown FILE    write the table there as well
  --json FILE        write every single measurement there
  --svg FILE         write a plot of the ratios there
  --log DIRECTORY    keep what each engine wrote on its serial line there
  --list             list the pieces of work and end
  --help             print this and end

For bochs: grub-mkrescue (grub-common, grub-pc-bin, xorriso, mtools), because it boots from a CD. QEMU and Bochs are
never installed by this command. It ends with failure when an engine does not reach the end of its work, or when two
compute different things.
";

/// What the user wants.
#[derive(Debug)]
pub enum Given {
    /// To read [`HELP`].
    Help,
    /// To see the pieces of work.
    List,
    /// To measure.
    Run(Box<Options>),
}

/// What to measure, and where to write it.
#[derive(Debug)]
pub struct Options {
    /// In the order in which they run.
    pub engines: Vec<Engine>,
    /// The engine of the ratios.
    pub reference: Option<Engine>,
    /// 64 or 32.
    pub bits: u32,
    /// At least 1.
    pub rounds: usize,
    /// Names out of [`guest::PIECES`].
    pub only: Vec<&'static str>,
    /// Per cent, 1 to 1000.
    pub scale: u32,
    /// MiB.
    pub ram: u32,
    /// Of one engine's run.
    pub timeout: Duration,
    /// Instead of a build.
    pub quintet: Option<PathBuf>,
    /// Where the table goes.
    pub markdown: Option<PathBuf>,
    /// Where the measurements go.
    pub json: Option<PathBuf>,
    /// Where the plot goes.
    pub svg: Option<PathBuf>,
    /// Where serial logs go.
    pub log: Option<PathBuf>,
}

impl Options {
    /// Reads the command line.
    ///
    /// # Errors
    /// A [`Failure`] that names the word that is wrong.
    pub fn parse(args: &[String]) -> Result<Given, Failure> {
        let mut o = Self {
            engines: vec![Engine::Interp, Engine::Jit, Engine::Qemu],
            reference: None,
            bits: 64,
            rounds: 3,
            only: guest::PIECES.iter().map(|p| p.name).collect(),
            scale: 100,
            ram: 512,
            timeout: Duration::from_secs(1800),
            quintet: None,
            markdown: None,
            json: None,
            svg: None,
            log: None,
        };
        let mut words = args.iter();
        while let Some(word) = words.next() {
            let (name, joined) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (word.as_str(), None),
            };
            match name {
                "--help" | "-h" => return Ok(Given::Help),
                "--list" => return Ok(Given::List),
                _ => {}
            }
            let mut value = || {
                let next = joined.clone().or_else(|| words.next().cloned());
                next.filter(|v| !v.is_empty())
                    .ok_or_else(|| Failure::new(format!("{name} needs a value")))
            };
            match name {
                "--engines" => o.engines = list(&value()?, Engine::named)?,
                "--reference" => o.reference = list(&value()?, Engine::named)?.first().copied(),
                "--only" => o.only = list(&value()?, guest::named)?,
                "--bits" => {
                    o.bits = match value()?.as_str() {
                        "64" => 64,
                        "32" => 32,
                        other => return Err(Failure::new(format!("--bits is 64 or 32, not {other:?}"))),
                    }
                }
                "--rounds" => o.rounds = number(name, &value()?, 1, 1000)? as usize,
                "--scale" => o.scale = number(name, &value()?, 1, 1000)?,
                "--ram" => o.ram = number(name, &value()?, 256, 3072)?,
                "--timeout" => o.timeout = Duration::from_secs(number(name, &value()?, 1, 1_000_000)?.into()),
                "--quintet" => o.quintet = Some(value()?.into()),
                "--markdown" => o.markdown = Some(value()?.into()),
                "--json" => o.json = Some(value()?.into()),
                "--svg" => o.svg = Some(value()?.into()),
                "--log" => o.log = Some(value()?.into()),
                _ => {
                    return Err(Failure::new(format!(
                        "bench has no option {word:?}; see cargo xtask bench --help"
                    )));
                }
            }
        }
        Ok(Given::Run(Box::new(o)))
    }
}

/// Names separated by commas, none twice.
fn list<T: PartialEq>(text: &str, named: fn(&str) -> Option<T>) -> Result<Vec<T>, Failure> {
    let mut found = Vec::new();
    for name in text.split(',').filter(|name| !name.is_empty()) {
        let one = named(name).ok_or_else(|| Failure::new(format!("there is no {name:?}")))?;
        if found.contains(&one) {
            return Err(Failure::new(format!("{name:?} is there twice")));
        }
        found.push(one);
    }
    if found.is_empty() {
        return Err(Failure::new(format!("{text:?} names nothing")));
    }
    Ok(found)
}

fn number(name: &str, text: &str, least: u32, most: u32) -> Result<u32, Failure> {
    text.parse()
        .ok()
        .filter(|n| (least..=most).contains(n))
        .ok_or_else(|| Failure::new(format!("{name} is a number from {least} to {most}, not {text:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(line: &str) -> Result<Given, Failure> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Options::parse(&words)
    }

    fn run(line: &str) -> Options {
        match given(line) {
            Ok(Given::Run(options)) => *options,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn without_words_everything_is_measured_three_times() {
        let o = run("");
        assert_eq!(o.engines, [Engine::Interp, Engine::Jit, Engine::Qemu]);
        assert_eq!((o.bits, o.rounds, o.scale), (64, 3, 100));
        assert_eq!(o.only.len(), guest::PIECES.len());
    }

    #[test]
    fn values_follow_a_space_or_an_equals_sign() {
        let o = run("--bits=32 --only gzip,sort --engines bochs,qemu --rounds 5 --json=a.json");
        assert_eq!((o.bits, o.rounds), (32, 5));
        assert_eq!(o.only, ["gzip", "sort"]);
        assert_eq!(o.engines, [Engine::Bochs, Engine::Qemu]);
        assert_eq!(o.json, Some("a.json".into()));
    }

    #[test]
    fn wrong_words_are_named() {
        for (line, part) in [
            ("--bits 16", "16"),
            ("--rounds 0", "--rounds"),
            ("--only gzip,nothing", "nothing"),
            ("--only gzip,gzip", "twice"),
            ("--engines ,", "nothing"),
            ("--json", "--json"),
            ("--fast", "--fast"),
        ] {
            let said = given(line).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(said.contains(part), "{line}: {said:?}");
        }
    }

    #[test]
    fn the_help_names_every_option_that_is_read() {
        let source = include_str!("options.rs");
        let read = source
            .split("\"--")
            .skip(1)
            .filter_map(|rest| rest.split_once('"'));
        let mut count = 0;
        for (name, after) in read {
            if after.trim_start().starts_with("=>") || after.starts_with(" |") {
                assert!(HELP.contains(&format!("  --{name} ")), "--{name}");
                count += 1;
            }
        }
        assert!(count >= 14, "{count}");
    }
}
