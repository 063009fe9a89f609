//! What a window keeps in its user's folders: how it was looked at, and screenshots.
//!
//! Both folders are quintet's own (XDG Base Directory Specification), because the coordinator confines itself before the machine
//! runs and can write nowhere else from then on: to let it write to the folder in which it was started was rejected, since that
//! is the user's home more often than not.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy as _;
use etcetera::base_strategy::Xdg;
use quintet_protocol::window::WindowSettings;

use crate::config::{UsageError, read_file, reason};
use crate::machine_file::fault_of;

/// Name of the settings in their folder.
const SETTINGS: &str = "window.toml";
/// What it is called in an error.
const WHAT: &str = "window's settings";
/// Longest file of settings that is read, in bytes.
const MOST_BYTES: u64 = 64 << 10;
/// What stands above the settings.
const HEAD: &str =
    "# How the window was when it closed last. quintet writes this anew when something of it has changed.\n";

/// The folders, and what was found in them.
#[derive(Debug, Default)]
pub struct WindowFiles {
    settings: Option<PathBuf>,
    screenshots: Option<PathBuf>,
    found: WindowSettings,
}

impl WindowFiles {
    /// Makes the folders and reads the settings. A file that cannot be understood is named, and stays as it is.
    pub fn open() -> Self {
        match Xdg::new() {
            Ok(xdg) => Self::open_in(&xdg.config_dir(), &xdg.data_dir()),
            Err(e) => {
                tracing::warn!("nothing of the window is kept: {e}");
                Self::default()
            }
        }
    }

    fn open_in(config: &Path, data: &Path) -> Self {
        let mut this = Self {
            settings: make(config.join("quintet")),
            screenshots: make(data.join("quintet").join("screenshots")),
            found: WindowSettings::default(),
        };
        if let Some(folder) = &this.settings {
            let path = folder.join(SETTINGS);
            match read(&path) {
                Ok(found) => this.found = found.unwrap_or_default(),
                Err(why) => {
                    eprintln!(
                        "quintet: {why}; the window begins as if there were no such file. Mend or remove it"
                    );
                    this.settings = None;
                }
            }
        }
        this
    }

    /// How a window begins.
    pub fn found(&self) -> WindowSettings {
        self.found
    }

    /// The folders in which something is written later.
    pub fn folders(&self) -> impl Iterator<Item = PathBuf> {
        [&self.settings, &self.screenshots].into_iter().flatten().cloned()
    }

    /// Keeps how the window was, if that is something new.
    pub fn keep(&self, now: WindowSettings) {
        let Some(folder) = &self.settings else { return };
        // What would not be read again is not written.
        if now == self.found || !now.is_valid() {
            return;
        }
        if let Err(e) = write(folder, now) {
            let path = folder.join(SETTINGS);
            eprintln!("quintet: Cannot write \"{}\": {}", path.display(), reason(&e));
        }
    }

    /// A name that no file in the folder of screenshots has yet: that of the machine and a number.
    ///
    /// # Errors
    /// In one line, why there is no such folder.
    pub fn new_screenshot(&self, machine: &str) -> Result<PathBuf, String> {
        let folder = self.screenshots.as_ref().ok_or(
            "quintet's folder for screenshots could not be made; set XDG_DATA_HOME to a folder that you can write to",
        )?;
        let mut names = (1..).map(|n: u32| folder.join(format!("{machine}-{n}.png")));
        names
            .find(|path| !path.exists())
            .ok_or_else(|| "there are too many screenshots".to_owned())
    }
}

/// A folder that is there afterwards, or why there is none in the log.
fn make(folder: PathBuf) -> Option<PathBuf> {
    match std::fs::create_dir_all(&folder) {
        Ok(()) => Some(folder),
        Err(e) => {
            tracing::warn!("\"{}\" cannot be made: {}", folder.display(), reason(&e));
            None
        }
    }
}

/// The settings in a file; none if there is no file.
fn read(path: &Path) -> Result<Option<WindowSettings>, UsageError> {
    if !path.exists() {
        return Ok(None);
    }
    let shown = path.display();
    let bytes = read_file(WHAT, path, MOST_BYTES, |len| {
        format!("\"{shown}\" has {len} bytes, which are no settings of a window")
    })?;
    let text = String::from_utf8_lossy(&bytes);
    let found: WindowSettings =
        toml::from_str(&text).map_err(|e| UsageError(format!("\"{shown}\", {}", fault_of(&text, &e))))?;
    match found.is_valid() {
        true => Ok(Some(found)),
        false => Err(UsageError(format!("\"{shown}\": no window has such a size"))),
    }
}

/// Replaces the file as a whole: another machine may do the same at this moment.
fn write(folder: &Path, settings: WindowSettings) -> std::io::Result<()> {
    let text = toml::to_string(&settings).map_err(std::io::Error::other)?;
    let mut file = tempfile::Builder::new().prefix(".window-").tempfile_in(folder)?;
    file.write_all(HEAD.as_bytes())?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(folder.join(SETTINGS))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use quintet_protocol::window::Look;

    fn settings() -> WindowSettings {
        WindowSettings {
            size: Some([800, 600]),
            overlay: true,
            look: Look {
                smooth: true,
                ..Look::default()
            },
        }
    }

    #[test]
    fn what_is_kept_is_found_and_only_what_is_new_is_written() {
        let base = tempfile::tempdir().expect("a folder");
        let open = || WindowFiles::open_in(&base.path().join("config"), &base.path().join("data"));
        let file = base.path().join("config/quintet").join(SETTINGS);
        let first = open();
        assert_eq!(first.found(), WindowSettings::default());
        first.keep(WindowSettings::default());
        assert!(!file.exists(), "nothing new");
        first.keep(settings());
        assert_eq!(open().found(), settings());
        let lie = WindowSettings {
            size: Some([0, 600]),
            ..settings()
        };
        first.keep(lie);
        assert_eq!(open().found(), settings());
        let names = std::fs::read_dir(base.path().join("config/quintet")).expect("a folder");
        assert_eq!(names.count(), 1, "nothing else is left there");
    }

    #[test]
    fn a_file_that_cannot_be_understood_stays_as_it_is() {
        let base = tempfile::tempdir().expect("a folder");
        let folder = base.path().join("quintet");
        std::fs::create_dir(&folder).expect("a folder");
        for (text, why) in [
            ("overlay = 7\n", "line 1: invalid type"),
            ("\nheight = 7\n", "line 2: unknown field"),
            ("[look]\nbrightness = 1\n", "line 2: unknown field"),
            ("size = [0, 5]\n", "no window"),
            ("size = [5, 40000]\n", "no window"),
            ("size = \"\u{1}\"\n", "line 1"),
        ] {
            let file = folder.join(SETTINGS);
            std::fs::write(&file, text).expect("a file");
            let said = read(&file).expect_err("refused").to_string();
            assert!(said.contains(why) && said.lines().count() == 1, "{said}");
            let files = WindowFiles::open_in(base.path(), base.path());
            assert_eq!(files.found(), WindowSettings::default());
            files.keep(settings());
            assert_eq!(std::fs::read_to_string(&file).expect("a file"), text);
        }
    }

    #[test]
    fn a_screenshot_has_a_name_of_its_own() {
        let base = tempfile::tempdir().expect("a folder");
        let files = WindowFiles::open_in(base.path(), base.path());
        let first = files.new_screenshot("pc").expect("a name");
        assert!(first.ends_with("quintet/screenshots/pc-1.png"), "{first:?}");
        std::fs::write(&first, b"").expect("a file");
        assert!(files.new_screenshot("pc").expect("a name").ends_with("pc-2.png"));
        assert!(WindowFiles::default().new_screenshot("pc").is_err());
    }
}
