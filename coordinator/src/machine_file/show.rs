//! The configuration of a command line, as a machine file that means the same: `quintet config`.

use std::path::Path;

use clap::{ArgAction, ArgMatches, Command};
use toml::Value;

use super::{OPTION, is_flag, name_of, paths};

/// A machine file with every option that has a value, given or by default, in the order of `--help`; what is off is left out.
/// File names are made absolute with `here`, since nobody knows where the file will lie.
pub fn show(options: &Command, given: &ArgMatches, here: &Path) -> String {
    let mut lines = vec!["# A machine file; options of the command line count more.".to_owned()];
    for option in options.get_arguments() {
        let Some(name) = name_of(option).filter(|name| *name != OPTION) else {
            continue;
        };
        let id = option.get_id().as_str();
        let from_user = given.value_source(id) == Some(clap::parser::ValueSource::CommandLine);
        if option.is_hide_set() && !from_user {
            continue;
        }
        let texts: Vec<String> = given
            .get_raw(id)
            .into_iter()
            .flatten()
            .map(|text| paths::rebase(name, &text.to_string_lossy(), here))
            .collect();
        let value = match texts.as_slice() {
            [] => continue,
            _ if is_flag(option) && given.get_flag(id) => Value::Boolean(true),
            _ if is_flag(option) => continue,
            _ if matches!(option.get_action(), ArgAction::Append) => {
                Value::Array(texts.into_iter().map(Value::String).collect())
            }
            [.., last] => match last.parse::<i64>() {
                Ok(number) if number.to_string() == *last => Value::Integer(number),
                _ => Value::String(last.clone()),
            },
        };
        lines.push(format!("{name} = {value}"));
    }
    lines.push(String::new());
    lines.join("\n")
}
