//! Disk errors as an unkind host makes them, by nothing but what every user may do to files and processes of their own.
//!
//! *Full*: the io-worker's limit of file sizes (RLIMIT_FSIZE, setrlimit(2)) is put at the middle of the image, so that no write
//! behind that is taken. *Error*: the upper half of the image is cut off besides, so that nothing can be read from there
//! either; it is kept here and put back at the end, which loses nothing, since nothing was written there meanwhile. The
//! io-worker is stopped while file and limit change, so that it meets either both or neither. A hook in the io-worker was
//! rejected: it would try its own way to an error, and not the host's.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::workload::DISK_BYTES;
use crate::supervise::process::is_stopped;

/// Where the part of the image begins that fails, in bytes.
const MIDDLE: u64 = DISK_BYTES / 2;

/// An image whose upper half fails, for one io-worker.
#[derive(Debug)]
pub struct DiskFault {
    io: Pid,
    before: Rlimit,
    /// The image and its upper half, if that was cut off.
    kept: Option<(File, Vec<u8>)>,
}

impl DiskFault {
    /// Has the upper half of the image at `path` fail for the process `io`, which is stopped: reads too, with `cut`.
    ///
    /// # Errors
    /// A sentence when the host refuses.
    pub fn begin(io: Pid, path: &Path, cut: bool) -> Result<Self, String> {
        let before = limit_of(io).ok_or("the io-worker's limits cannot be read")?;
        let middle = Rlimit {
            current: Some(MIDDLE),
            // The hard limit is everybody's to lower, and few may raise it again.
            maximum: before.maximum,
        };
        prlimit(Some(io), Resource::Fsize, middle)
            .map_err(|e| format!("the io-worker's files cannot be limited: {e}"))?;
        let mut fault = Self {
            io,
            before,
            kept: None,
        };
        if cut && let Err(e) = fault.cut(path) {
            fault.end()?;
            return Err(format!("the image cannot be cut: {e}"));
        }
        Ok(fault)
    }

    fn cut(&mut self, path: &Path) -> std::io::Result<()> {
        let file = File::options().read(true).write(true).open(path)?;
        let mut upper = vec![0; (DISK_BYTES - MIDDLE) as usize];
        file.read_exact_at(&mut upper, MIDDLE)?;
        file.set_len(MIDDLE)?;
        self.kept = Some((file, upper));
        Ok(())
    }

    /// Puts all back as it was; the io-worker is stopped again, or gone.
    ///
    /// # Errors
    /// A sentence when the host refuses.
    pub fn end(&mut self) -> Result<(), String> {
        if let Some((file, upper)) = self.kept.take() {
            file.write_all_at(&upper, MIDDLE)
                .map_err(|e| format!("the image cannot be put together again: {e}"))?;
        }
        match prlimit(Some(self.io), Resource::Fsize, self.before) {
            Ok(_) | Err(Errno::SRCH) => Ok(()),
            Err(e) => Err(format!("the io-worker's limit cannot be lifted: {e}")),
        }
    }

    /// Whether the process that it is for can be changed now: all of it is stopped, or it is gone.
    pub fn may_change(io: Pid) -> bool {
        let pid = io.as_raw_nonzero().get().cast_unsigned();
        is_stopped(pid) || !Path::new(&format!("/proc/{pid}")).exists()
    }

    /// Whose image it is.
    pub fn process(&self) -> Pid {
        self.io
    }
}

/// A process's limit of file sizes, as `/proc/PID/limits` has it (proc_pid_limits(5)).
fn limit_of(process: Pid) -> Option<Rlimit> {
    let limits = std::fs::read_to_string(format!("/proc/{process}/limits")).ok()?;
    let line = limits.lines().find_map(|l| l.strip_prefix("Max file size"))?;
    let mut values = line.split_whitespace().map(|word| match word {
        "unlimited" => Some(None),
        number => number.parse().ok().map(Some),
    });
    Some(Rlimit {
        current: values.next()??,
        maximum: values.next()??,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{getpid, getrlimit};

    #[test]
    fn the_limit_of_a_process_is_what_the_host_says() {
        let (own, said) = (limit_of(getpid()).expect("limits"), getrlimit(Resource::Fsize));
        assert_eq!((own.current, own.maximum), (said.current, said.maximum));
        assert!(limit_of(Pid::from_raw(1 << 22).expect("a number")).is_none());
    }

    #[test]
    fn an_image_is_cut_and_put_together_again_and_the_process_limited_meanwhile() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("disk.img");
        let image: Vec<u8> = (0..DISK_BYTES).map(|n| (n / 7) as u8).collect();
        std::fs::write(&path, &image).expect("an image");
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .expect("a process");
        let process = Pid::from_child(&child);
        let before = limit_of(process).expect("limits");
        assert!(!DiskFault::may_change(process), "it runs");

        let mut fault = DiskFault::begin(process, &path, true).expect("begun");
        assert_eq!(std::fs::read(&path).expect("half"), image[..MIDDLE as usize]);
        assert_eq!(limit_of(process).expect("limits").current, Some(MIDDLE));
        fault.end().expect("ended");
        assert_eq!(std::fs::read(&path).expect("whole"), image);
        assert_eq!(limit_of(process).expect("limits").current, before.current);

        let error = DiskFault::begin(process, Path::new("/nowhere"), true).expect_err("no image");
        assert!(error.contains("cannot be cut"), "{error}");
        assert_eq!(limit_of(process).expect("limits").current, before.current);
        child.kill().and_then(|()| child.wait()).expect("it ends");
        assert!(DiskFault::may_change(process), "it is gone");
    }
}
