//! Man pages and shell completions, from the command line itself.
//!
//! A hidden command of `quintet` writes them: packagers call it on what they have built, as `cargo xtask dist` does. A build script would
//! have to compile the command line a second time, and xtask knows nothing of the workspace.

use std::path::{Path, PathBuf};

use clap::Args;
use clap_complete::Shell;

use crate::cli;
use crate::config::{UsageError, reason};

/// The options of `generate`.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// Directory for the man pages, `quintet.1` and one for each command.
    #[arg(long)]
    pub man: Option<PathBuf>,
    /// Directory for the completions, `quintet.bash`, `_quintet` and `quintet.fish`.
    #[arg(long)]
    pub completions: Option<PathBuf>,
}

/// Writes what is asked for and answers the exit status.
///
/// # Errors
/// [`UsageError`] when a directory cannot be made or written to.
pub fn run(args: &GenerateArgs) -> Result<u8, UsageError> {
    let shown = visible(&cli::command());
    if let Some(dir) = &args.man {
        into(dir, |dir| clap_mangen::generate_to(shown.clone(), dir))?;
    }
    if let Some(dir) = &args.completions {
        into(dir, |dir| {
            for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
                clap_complete::generate_to(shell, &mut shown.clone(), "quintet", dir)?;
            }
            Ok(())
        })?;
    }
    Ok(0)
}

fn into(dir: &Path, write: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<(), UsageError> {
    std::fs::create_dir_all(dir)
        .and_then(|()| write(dir))
        .map_err(|e| UsageError(format!("Cannot write to \"{}\": {}", dir.display(), reason(&e))))
}

/// The command without what is hidden from `--help`: completions would offer it.
fn visible(command: &clap::Command) -> clap::Command {
    let args: Vec<clap::Arg> = command
        .get_arguments()
        .filter(|arg| !arg.is_hide_set())
        .cloned()
        .collect();
    let subcommands: Vec<clap::Command> = command
        .get_subcommands()
        .filter(|subcommand| !subcommand.is_hide_set())
        .map(visible)
        .collect();
    let mut shown = clap::Command::new(command.get_name().to_owned())
        .args(args)
        .subcommands(subcommands)
        .disable_help_subcommand(true);
    if let Some(version) = command.get_version() {
        shown = shown.version(version.to_owned());
    }
    if let Some(about) = command.get_about() {
        shown = shown.about(about.clone());
    }
    if let Some(about) = command.get_long_about() {
        shown = shown.long_about(about.clone());
    }
    if let Some(text) = command.get_after_help() {
        shown = shown.after_help(text.clone());
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_is_not_written_and_the_rest_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let args = GenerateArgs {
            man: Some(dir.path().join("man")),
            completions: Some(dir.path().join("completions")),
        };
        assert_eq!(run(&args).expect("written"), 0);
        let mut all = String::new();
        for file in ["man/quintet.1", "man/quintet-run.1", "man/quintet-soak.1"]
            .into_iter()
            .chain(["bash", "fish"].map(|shell| match shell {
                "bash" => "completions/quintet.bash",
                _ => "completions/quintet.fish",
            }))
            .chain(["completions/_quintet"])
        {
            let text = std::fs::read_to_string(dir.path().join(file)).expect(file);
            assert!(text.contains("soak") || file.contains("run"), "{file}");
            all.push_str(&text);
        }
        for hidden in ["generate", "pretend", "hang-timeout", "stable-after", "probe"] {
            assert!(!all.replace("\\-", "-").contains(hidden), "{hidden}");
        }
        assert!(!dir.path().join("man/quintet-generate.1").exists());
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let args = GenerateArgs {
            man: Some("/dev/null/man".into()),
            completions: None,
        };
        assert!(run(&args).expect_err("refused").0.contains("\"/dev/null/man\""));
    }
}
