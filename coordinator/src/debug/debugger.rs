//! The debuggers of the host: how each is started, and given our commands.

use std::fmt;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::process::Command;

use rustix::fs::MemfdFlags;

use super::table;

/// What our commands show, whatever debugger asks.
const COMMON: &str = include_str!("quintet.py");

/// A debugger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Debugger {
    /// GNU's.
    #[default]
    Gdb,
    /// LLVM's.
    Lldb,
}

impl fmt::Display for Debugger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.program())
    }
}

impl Debugger {
    fn program(self) -> &'static str {
        match self {
            Self::Gdb => "gdb",
            Self::Lldb => "lldb",
        }
    }

    /// Our commands, as this debugger has them.
    fn own(self) -> &'static str {
        match self {
            Self::Gdb => include_str!("quintet-gdb.py"),
            Self::Lldb => include_str!("quintet-lldb.py"),
        }
    }

    /// A command that attaches it to a process.
    pub(super) fn attach(self, pid: i32) -> Command {
        let mut command = Command::new(self.program());
        if self == Self::Lldb {
            // The default differs by host.
            command.args(["-O", "settings set plugin.jit-loader.gdb.enable on"]);
        }
        command.args(["-p", &pid.to_string()]);
        command
    }

    /// The same in a shell.
    pub(super) fn line(self, pid: i32) -> String {
        format!("{} -p {pid}", self.program())
    }

    /// Arguments by which it carries out one of its commands when it has attached.
    pub(super) fn order(self, order: &str) -> [String; 2] {
        let option = match self {
            Self::Gdb => "-ex",
            Self::Lldb => "-o",
        };
        [option.to_owned(), order.to_owned()]
    }

    /// The script with its table, in a memfd that the debugger inherits.
    ///
    /// # Errors
    /// The host's.
    pub(super) fn script(self) -> std::io::Result<OwnedFd> {
        let fd = rustix::fs::memfd_create("quintet.py", MemfdFlags::empty())?;
        let mut file = File::from(fd);
        writeln!(file, "import json; TABLE = json.loads('{}')", table::table())?;
        file.write_all(COMMON.as_bytes())?;
        file.write_all(self.own().as_bytes())?;
        Ok(file.into())
    }

    /// Arguments that load the script; by its name no debugger would know what it is.
    pub(super) fn load(self, script: &OwnedFd) -> [String; 2] {
        let path = format!("/proc/self/fd/{}", script.as_raw_fd());
        let language = match self {
            Self::Gdb => "python",
            Self::Lldb => "script",
        };
        self.order(&format!(
            "{language} exec(compile(open('{path}').read(), 'quintet.py', 'exec'), globals())"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_needs_no_name_in_the_file_system_and_begins_with_its_table() {
        for with in [Debugger::Gdb, Debugger::Lldb] {
            let fd = with.script().expect("a memfd");
            let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
            let text = std::fs::read_to_string(path).expect("readable");
            assert!(
                text.starts_with("import json; TABLE = json.loads('{\""),
                "{:.80}",
                text
            );
            assert!(text.ends_with(with.own()) && text.contains(COMMON));
            assert!(
                rustix::io::fcntl_getfd(&fd).expect("open").is_empty(),
                "{with} inherits it"
            );
        }
    }
}
