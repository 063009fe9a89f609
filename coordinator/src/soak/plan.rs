//! From the command line to what is run: the machine's own command line, and how it is treated.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::fault::{self, Fault};
use super::schedule::{Entry, schedule};
use super::{SoakArgs, workload};
use crate::cli::RunArgs;
use crate::config::UsageError;

/// What is run and done.
#[derive(Debug)]
pub struct Plan {
    /// Name of the machine.
    pub name: String,
    /// Whether the guest is ours.
    pub ours: bool,
    /// Seed of the schedule.
    pub seed: u64,
    /// Faults that may come.
    pub faults: Vec<Fault>,
    /// Mean gap between two.
    pub every: Duration,
    /// How long.
    pub duration: Duration,
    /// What happens when.
    pub schedule: Vec<Entry>,
    /// The report's file.
    pub report: PathBuf,
    /// Folder for everything else, removed if there is nothing to look into.
    pub folder: PathBuf,
}

/// Options of `soak` that `run` does not have; each takes a value.
const OWN: [&str; 5] = ["--duration", "--faults", "--seed", "--report", "--every"];

impl Plan {
    /// Checks what was asked for.
    ///
    /// # Errors
    /// [`UsageError`].
    pub fn new(args: &SoakArgs) -> Result<Self, UsageError> {
        let run = &args.run;
        if run.single_process {
            return Err(UsageError(
                "--single-process has no workers that could be killed; leave it away, or use `quintet run`"
                    .to_owned(),
            ));
        }
        let ours = is_ours(run);
        if ours && run.serial.is_some() {
            return Err(UsageError(
                "What the built-in workload says on its serial line is what is checked; leave --serial away, \
                 or give a guest of your own"
                    .to_owned(),
            ));
        }
        let seed = args.seed.unwrap_or_else(crate::supervise::start::random_u64);
        let mut faults = fault::parse(&args.faults).map_err(UsageError)?;
        if !ours {
            let named =
                |f: &&Fault| f.fails_disk() && args.faults.iter().any(|word| word.trim() == f.to_string());
            if let Some(fault) = faults.iter().find(named) {
                return Err(UsageError(format!(
                    "--faults {fault} needs the built-in workload, which repeats what fails; leave the guest or the fault away"
                )));
            }
            faults.retain(|f| !f.fails_disk());
        }
        let report = args
            .report
            .clone()
            .unwrap_or_else(|| PathBuf::from(format!("soak-{seed}.json")));
        let folder = report.with_extension("evidence");
        if report.extension().is_none_or(|e| e == "html" || e == "evidence") {
            return Err(UsageError(format!(
                "The report \"{}\" needs a name that ends in .json, since a page and a folder are named after it",
                report.display()
            )));
        }
        Ok(Self {
            name: run
                .name
                .clone()
                .unwrap_or_else(|| format!("soak-{}", std::process::id())),
            ours,
            seed,
            schedule: schedule(seed, &faults, args.duration, args.every),
            faults,
            every: args.every,
            duration: args.duration,
            report,
            folder,
        })
    }

    /// The machine's command line: what was given for `run`, and what is missing of that. `given` is what stands behind
    /// `quintet soak`.
    pub fn command(&self, given: &[OsString]) -> Vec<OsString> {
        let (options, arguments) = split(given);
        let has = |name: &str| {
            let with_value = format!("{name}=");
            options
                .iter()
                .any(|o| o == name || o.to_string_lossy().starts_with(&with_value))
        };
        let mut command: Vec<OsString> = vec!["run".into()];
        command.extend(options.iter().cloned());
        let mut add = |name: &str, value: Option<OsString>| {
            if !has(name) {
                command.push(name.into());
                command.extend(value);
            }
        };
        add("--headless", None);
        add("--name", Some((&self.name).into()));
        add("--serial", Some("stdio".into()));
        // Five deaths in a row are many by accident and few on purpose.
        add("--stable-after", Some("0s".into()));
        // Should the driver be killed, the machine does not stay for ever.
        let limit = self.duration.as_secs().saturating_mul(2).saturating_add(600);
        add("--time-limit", Some(format!("{limit}s").into()));
        if self.ours {
            add("--ram", Some("64M".into()));
            add("--audio", Some("null".into()));
            add("--kernel", Some(self.guest_file().into()));
            let mut disk = comma_twice(&self.disk_file());
            disk.push(",format=raw");
            add("--disk", Some(disk));
            command.extend(["--device".into(), "pc-testdev".into()]);
        }
        if !arguments.is_empty() {
            command.push("--".into());
            command.extend(arguments);
        }
        command
    }

    /// Where our guest lies.
    pub fn guest_file(&self) -> PathBuf {
        self.folder.join("guest.elf")
    }

    /// Where its disk lies.
    pub fn disk_file(&self) -> PathBuf {
        self.folder.join("disk.img")
    }

    /// Makes the folder and what our guest needs in it.
    ///
    /// # Errors
    /// [`UsageError`] when it is there already: it may hold what another run found.
    pub fn prepare(&self) -> Result<(), UsageError> {
        let shown = self.folder.display();
        std::fs::create_dir(&self.folder).map_err(|e| match e.kind() {
            std::io::ErrorKind::AlreadyExists => UsageError(format!(
                "\"{shown}\" is there already, from a run before; move it away or choose another --report"
            )),
            _ => UsageError(format!("Cannot make \"{shown}\": {}", crate::config::reason(&e))),
        })?;
        let write = |path: &Path, bytes: &[u8]| {
            std::fs::write(path, bytes).map_err(|e| {
                UsageError(format!(
                    "Cannot write \"{}\": {}",
                    path.display(),
                    crate::config::reason(&e)
                ))
            })
        };
        write(
            &self.folder.join("schedule.txt"),
            super::schedule::text(&self.schedule).as_bytes(),
        )?;
        if self.ours {
            write(&self.guest_file(), quintet_guests::SOAK)?;
            write(&self.disk_file(), &vec![0; workload::DISK_BYTES as usize])?;
        }
        Ok(())
    }
}

/// Whether nothing is given that a machine could start from.
fn is_ours(run: &RunArgs) -> bool {
    run.kernel.is_empty()
        && run.disk.is_empty()
        && run.pflash.is_empty()
        && run.firmware.is_none()
        && run.cdrom.is_empty()
        && run.floppy.is_empty()
        && run.wasm.is_none()
        && run.machine.is_none()
        && !run.jobs
}

/// The options for `run`, and the arguments behind `--`.
fn split(given: &[OsString]) -> (Vec<OsString>, Vec<OsString>) {
    let mut options = Vec::new();
    let mut words = given.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            return (options, words.cloned().collect());
        }
        if OWN.iter().any(|own| word == own) {
            words.next();
        } else if !OWN
            .iter()
            .any(|own| word.to_string_lossy().starts_with(&format!("{own}=")))
        {
            options.push(word.clone());
        }
    }
    (options, Vec::new())
}

/// A path as an option whose parts stand behind commas.
fn comma_twice(path: &Path) -> OsString {
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    let bytes = path.as_os_str().as_bytes();
    OsString::from_vec(bytes.split(|&b| b == b',').collect::<Vec<_>>().join(&b",,"[..]))
}

/// Whether the text of an argument is worth a place in a report: all are, as far as they are text.
pub fn shown(command: &[OsString]) -> Vec<String> {
    let shown = |word: &OsString| OsStr::to_string_lossy(word).into_owned();
    std::iter::once("quintet".to_owned())
        .chain(command.iter().map(shown))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn plan(line: &str) -> Result<(Plan, Vec<OsString>), UsageError> {
        #[derive(clap::Parser)]
        struct Only {
            #[command(flatten)]
            soak: SoakArgs,
        }
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        let args = Only::try_parse_from(std::iter::once(OsString::from("soak")).chain(words.clone()))
            .expect("parses")
            .soak;
        Ok((Plan::new(&args)?, words))
    }

    fn command(line: &str) -> String {
        let (plan, words) = plan(line).expect("a plan");
        shown(&plan.command(&words)).join(" ")
    }

    #[test]
    fn the_built_in_workload_gets_what_it_needs() {
        let line =
            command("--duration 10s --seed=4 --faults kill-io --report a,b/r.json --accel interp --name x");
        assert_eq!(
            line,
            "quintet run --accel interp --name x --headless --serial stdio --stable-after 0s --time-limit 620s --ram 64M \
             --audio null --kernel a,b/r.evidence/guest.elf --disk a,,b/r.evidence/disk.img,format=raw --device pc-testdev"
        );
    }

    #[test]
    fn what_is_given_for_run_is_passed_on_as_it_is() {
        let line = command(
            "--kernel k --ram=1G --append a --seed 1 --time-limit 5s --serial file:s --stable-after 1s -- --seed 9",
        );
        assert_eq!(
            line.replace(&format!("soak-{}", std::process::id()), "N"),
            "quintet run --kernel k --ram=1G --append a --time-limit 5s --serial file:s --stable-after 1s \
             --headless --name N -- --seed 9"
        );
    }

    #[test]
    fn mistakes_are_told_before_anything_is_made() {
        for (line, said) in [
            ("--single-process", "--single-process"),
            ("--serial none", "leave --serial away"),
            (
                "--faults kill-io,hostile-rings",
                "\"hostile-rings\" is not a fault",
            ),
            (
                "--faults disk-full --kernel k",
                "disk-full needs the built-in workload",
            ),
            ("--report soak.html", "ends in .json"),
            ("--report soak", "ends in .json"),
        ] {
            let error = plan(line).expect_err("refused").to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn a_folder_from_a_run_before_is_left_alone() {
        let base = tempfile::tempdir().expect("a folder");
        let report = base.path().join("r.json");
        let (plan, _) = plan(&format!("--report {}", report.display())).expect("a plan");
        plan.prepare().expect("made");
        assert_eq!(
            std::fs::metadata(plan.disk_file()).expect("the disk").len(),
            workload::DISK_BYTES
        );
        let error = plan.prepare().expect_err("refused").to_string();
        assert!(error.contains("is there already"), "{error}");
    }
}
