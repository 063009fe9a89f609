//! Machine files, `--machine FILE.toml`: the options of `run`, kept. A key is an option's long name, and what the command line
//! says about an option counts more.
//!
//! The file becomes words in front of those of the command line, so that an option means the same in both, the file can say all
//! that the command line can, and a new option needs no line here, except to say whether its value names a file.
//! Rejected: a structure of its own for `serde`, which would be every option a second time.
//!
//! File names are relative to the directory of the machine file, so that a directory with a machine in it can be
//! moved.

mod paths;
mod show;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::{UsageError, read_file};

pub use show::show;

/// The option that names the file.
const OPTION: &str = "machine";
/// The key for what stands behind `--`, which has no long name.
const ARGS: &str = "args";
/// Bytes that a machine file may have.
const MOST: u64 = 1 << 20;
/// How alike two names have to be, 0 to 1, for one to be taken for the other misspelt.
const ALIKE: f64 = 0.75;

/// Options, and what stands behind them.
pub type Words = (Vec<OsString>, Vec<OsString>);

/// Words for the options in the file that `given` names, less those that `given` has from the command line, and what goes to the
/// line's end; nothing if it names none. `options` are those of the subcommand, `given` is what the command line says about them.
///
/// # Errors
/// [`UsageError`] that names file and line: unreadable, not TOML, an unknown key, a value that its option does not take.
pub fn words(options: &Command, given: &ArgMatches) -> Result<Words, UsageError> {
    let Some(path) = given.get_one::<PathBuf>(OPTION) else {
        return Ok(Words::default());
    };
    let bytes = read_file("machine file", path, MOST, |len| {
        format!(
            "\"{}\" has {len} bytes, which is no machine file; is it an image?",
            path.display()
        )
    })?;
    let shown = path.display();
    let text = String::from_utf8(bytes).map_err(|e| {
        let line = line_of(e.as_bytes(), e.utf8_error().valid_up_to());
        UsageError(format!("\"{shown}\", line {line}: this is not UTF-8"))
    })?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let file = MachineFile {
        path,
        text: &text,
        dir: dir.unwrap_or(Path::new(".")),
        options,
    };
    file.words(given)
}

struct MachineFile<'a> {
    path: &'a Path,
    text: &'a str,
    dir: &'a Path,
    options: &'a Command,
}

impl MachineFile<'_> {
    fn words(&self, given: &ArgMatches) -> Result<Words, UsageError> {
        let table = DeTable::parse(self.text).map_err(|e| {
            let fault = fault_of(self.text, &e);
            UsageError(format!("\"{}\", {fault}", self.path.display()))
        })?;
        let mut words = Vec::new();
        let mut behind = Vec::new();
        for (key, value) in table.get_ref() {
            let at = key.span().start;
            let key = key.get_ref().as_ref();
            let option = self.option(key, at)?;
            let texts = self.texts(option, key, value)?;
            let own: Vec<OsString> = match option.get_long() {
                Some(long) => texts
                    .iter()
                    .map(|text| format!("--{long}={}", paths::rebase(long, text, self.dir)).into())
                    .collect(),
                None => std::iter::once("--".into())
                    .chain(texts.into_iter().map(OsString::from))
                    .collect(),
            };
            self.try_alone(key, at, &own)?;
            if given.value_source(option.get_id().as_str()) == Some(ValueSource::CommandLine) {
                continue;
            }
            match option.get_long() {
                Some(_) => words.extend(own),
                None => behind = own,
            }
        }
        Ok((words, behind))
    }

    /// The option that a key names.
    fn option(&self, key: &str, at: usize) -> Result<&Arg, UsageError> {
        let known = |arg: &&Arg| name_of(arg).is_some_and(|name| name != OPTION);
        let mut options = self.options.get_arguments().filter(known);
        if let Some(option) = options.find(|arg| name_of(arg) == Some(key)) {
            return Ok(option);
        }
        if key == OPTION {
            return Err(self.refuse(at, "a machine file cannot name another one"));
        }
        let nearest = self
            .options
            .get_arguments()
            .filter(known)
            .filter(|arg| !arg.is_hide_set())
            .filter_map(name_of)
            .map(|name| (strsim::jaro_winkler(key, name), name))
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let remedy = match nearest {
            Some((alike, name)) if alike >= ALIKE => format!("did you mean \"{name}\"?"),
            _ => "`quintet run --help` lists the options".to_owned(),
        };
        Err(self.refuse(at, &format!("\"{key}\" is not known; {remedy}")))
    }

    /// The words that a value stands for.
    fn texts(
        &self,
        option: &Arg,
        key: &str,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<Vec<String>, UsageError> {
        let at = value.span().start;
        let is_list = matches!(option.get_action(), ArgAction::Append);
        match value.get_ref() {
            DeValue::Boolean(on) if is_flag(option) => Ok(vec![on.to_string()]),
            _ if is_flag(option) => Err(self.refuse(at, &format!("\"{key}\" is true or false"))),
            DeValue::Array(values) if is_list => values
                .iter()
                .map(|value| {
                    text(value.get_ref()).ok_or_else(|| {
                        self.refuse(value.span().start, &format!("\"{key}\" is a list of texts"))
                    })
                })
                .collect(),
            one => match text(one) {
                Some(text) => Ok(vec![text]),
                None if is_list => Err(self.refuse(at, &format!("\"{key}\" is a text, or a list of texts"))),
                None => Err(self.refuse(at, &format!("\"{key}\" is a text or a number"))),
            },
        }
    }

    /// Whether the option takes this value, so that the error can name the line.
    fn try_alone(&self, key: &str, at: usize, words: &[OsString]) -> Result<(), UsageError> {
        let line = std::iter::once(OsString::from("quintet")).chain(words.iter().cloned());
        let command = self.options.clone().no_binary_name(false);
        match command.try_get_matches_from(line) {
            Ok(_) => Ok(()),
            // Another one is missing that the subcommand wants.
            Err(e) if e.kind() == ErrorKind::MissingRequiredArgument => Ok(()),
            Err(e) => {
                let text = e.to_string();
                let first = text.lines().next().unwrap_or(key);
                Err(self.refuse(at, first.strip_prefix("error: ").unwrap_or(first)))
            }
        }
    }

    fn refuse(&self, at: usize, why: &str) -> UsageError {
        let line = line_of(self.text.as_bytes(), at);
        UsageError(format!("\"{}\", line {line}: {why}", self.path.display()))
    }
}

/// What is wrong with a text that is not the TOML it should be, in one line: where, and why.
pub(crate) fn fault_of(text: &str, e: &toml::de::Error) -> String {
    let line = line_of(text.as_bytes(), e.span().map_or(0, |span| span.start));
    let why = e.message().lines().next().unwrap_or("this is not TOML");
    format!("line {line}: {why}")
}

/// The number of the line, from 1, that the byte at `at` stands in.
fn line_of(text: &[u8], at: usize) -> usize {
    1 + text[..at.min(text.len())].iter().filter(|b| **b == b'\n').count()
}

/// The key of an option; none for what is no option of a machine.
fn name_of(arg: &Arg) -> Option<&str> {
    match arg.get_action() {
        ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version => None,
        _ => arg.get_long().or_else(|| arg.is_last_set().then_some(ARGS)),
    }
}

/// Whether an option is on or off. The command line lets every flag have a value, for the sake of machine files.
fn is_flag(arg: &Arg) -> bool {
    arg.get_num_args().is_some_and(|values| values.min_values() == 0)
}

fn text(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .ok()
            .map(|number| number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
