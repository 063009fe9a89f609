//! What `--device` adds or changes.

use std::path::PathBuf;

use crate::config::UsageError;
use crate::images::words;

/// The devices that the command line names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Devices {
    /// QEMU's `pc-testdev`.
    pub testdev: bool,
    /// QEMU's `AC97`: a sound card.
    pub ac97: bool,
    /// The VGA's BIOS.
    pub vga_rom: Option<PathBuf>,
}

impl Devices {
    /// `pc-testdev`, `AC97` and `vga,romfile=FILE`, each once; a comma in the file's name is written twice.
    ///
    /// # Errors
    /// [`UsageError`] for anything else.
    pub fn parse(texts: &[String]) -> Result<Self, UsageError> {
        let mut devices = Self::default();
        for text in texts {
            let refuse = |what: &str| Err(UsageError(format!("--device {text}{what}")));
            let words = words(text);
            let twice = match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
                ["pc-testdev"] => std::mem::replace(&mut devices.testdev, true),
                ["AC97"] => std::mem::replace(&mut devices.ac97, true),
                ["vga", option] => match option.strip_prefix("romfile=") {
                    Some("") => return refuse(": there is no file"),
                    Some(file) => devices.vga_rom.replace(file.into()).is_some(),
                    None => return refuse(": romfile=FILE is what a VGA can be given"),
                },
                ["vga"] => return refuse(" is there already; romfile=FILE behind it gives it a BIOS"),
                _ => return refuse(" is not known; AC97, pc-testdev and vga,romfile=FILE are"),
            };
            if twice {
                return refuse(" can be given once");
            }
        }
        Ok(devices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(texts: &[&str]) -> Result<Devices, String> {
        let texts: Vec<String> = texts.iter().map(ToString::to_string).collect();
        Devices::parse(&texts).map_err(|e| e.to_string())
    }

    #[test]
    fn each_device_is_taken_once() {
        let all = parse(&["vga,romfile=a,,b.bin", "AC97", "pc-testdev"]).expect("parses");
        assert_eq!(
            all,
            Devices {
                testdev: true,
                ac97: true,
                vga_rom: Some("a,b.bin".into())
            }
        );
        assert_eq!(parse(&[]), Ok(Devices::default()));
    }

    #[test]
    fn what_is_not_known_is_named() {
        for (texts, said) in [
            (&["floppy"][..], "--device floppy is not known"),
            (&["pc-testdev", "pc-testdev"], "can be given once"),
            (&["AC97", "AC97"], "can be given once"),
            (&["vga,romfile=a", "vga,romfile=b"], "can be given once"),
            (&["vga"], "is there already"),
            (&["vga,rom=a"], "romfile=FILE"),
            (&["vga,romfile="], "there is no file"),
            (&["vga,romfile=a,x=y"], "is not known"),
        ] {
            let error = parse(texts).expect_err("refused");
            assert!(error.contains(said), "{error}");
        }
    }
}
