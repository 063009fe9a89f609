//! The guest of the benchmarks: Debian's kernel, busybox, and pieces of work in the shell.

use std::path::PathBuf;

use crate::cpio::Cpio;
use crate::kernels;
use crate::sh::{self, Failure};

/// One thing the guest is timed at.
#[derive(Debug)]
pub struct Piece {
    /// As in `work.sh`, and on the command line.
    pub name: &'static str,
    /// For people.
    pub what: &'static str,
}

const fn piece(name: &'static str, what: &'static str) -> Piece {
    Piece { name, what }
}

/// All of them, in the order in which they run.
pub const PIECES: &[Piece] = &[
    piece("shell", "the shell's own loop and arithmetic"),
    piece("awkint", "a sieve in awk's arrays"),
    piece("awkfloat", "Mandelbrot and Newton in awk's floating point"),
    piece("sha256", "SHA-256"),
    piece("md5", "MD5"),
    piece("gzip", "compressing"),
    piece("gunzip", "expanding"),
    piece("bzip2", "block-sorting compression"),
    piece("sort", "sorting lines"),
    piece("regex", "regular expressions"),
    piece("copy", "copying a large file in tmpfs"),
    piece("syscall", "reading and writing single bytes"),
    piece("fault", "touching fresh memory"),
    piece("fork", "forking"),
    piece("exec", "forking and executing"),
    piece("switch", "two processes and two pipes"),
    piece("tree", "tar, find, many small files"),
];

/// The piece of this name.
pub fn named(name: &str) -> Option<&'static str> {
    PIECES.iter().map(|p| p.name).find(|n| *n == name)
}

/// Where kernel and initramfs lie.
#[derive(Clone, Debug)]
pub struct Files {
    /// bzImage.
    pub kernel: PathBuf,
    /// newc archive.
    pub initrd: PathBuf,
}

/// The kernel's command line: the same work for everybody, and our words for `init`.
pub fn append(only: &[&str], scale: u32) -> String {
    format!(
        "console=ttyS0,115200 quiet nokaslr mitigations=off panic=-1 Q_SCALE={scale} Q_LIST={}",
        only.join(",")
    )
}

/// Fetches the kernel and makes the initramfs.
///
/// # Errors
/// A [`Failure`] when packages cannot be had.
pub fn prepare(bits: u32) -> Result<Files, Failure> {
    let software = kernels::software(bits)?;
    let initrd = software.busybox.with_file_name(format!("bench-{bits}.cpio"));
    let busybox = sh::bytes(&software.busybox)?;
    sh::write(&initrd, &initramfs(&busybox))?;
    Ok(Files {
        kernel: software.kernel,
        initrd,
    })
}

fn initramfs(busybox: &[u8]) -> Vec<u8> {
    let mut c = Cpio::default();
    for dir in ["bin", "dev", "proc", "sys", "tmp"] {
        c.dir(dir);
    }
    c.device("dev/console", 5, 1);
    c.program("bin/busybox", busybox);
    c.program("init", include_bytes!("init.sh"));
    c.program("work.sh", include_bytes!("work.sh"));
    c.program("text", &text(1 << 20));
    c.finish()
}

/// Lines of nine made-up words, always the same: compressible and sortable about as prose is.
fn text(len: usize) -> Vec<u8> {
    const CONSONANTS: &[u8] = b"bcdfghjklmnprstvwy";
    const VOWELS: &[u8] = b"aeiou";
    let mut out = Vec::with_capacity(len + 128);
    let mut x: u64 = 1;
    while out.len() < len {
        for word in 0..9 {
            // The minimal standard generator (Park and Miller 1988).
            x = x * 16807 % 0x7FFF_FFFF;
            let mut rest = (x >> 8) as usize;
            for _ in 0..1 + x % 4 {
                out.push(CONSONANTS[rest % CONSONANTS.len()]);
                out.push(VOWELS[rest / CONSONANTS.len() % VOWELS.len()]);
                rest /= 7;
            }
            out.push(if word == 8 { b'\n' } else { b' ' });
        }
    }
    out.truncate(len);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_can_be_prepared_done_and_cleaned_up() {
        let script = include_str!("work.sh");
        for piece in PIECES {
            for step in ["prepare", "work", "clean"] {
                let function = format!("\n{step}_{}() {{", piece.name);
                assert_eq!(script.matches(&function).count(), 1, "{function}");
            }
        }
        assert_eq!(script.matches("\nwork_").count(), PIECES.len());
    }

    #[test]
    fn the_text_is_lines_of_words_and_always_the_same() {
        let text = text(4096);
        assert_eq!(text.len(), 4096);
        assert!(text.iter().all(|c| c.is_ascii_lowercase() || b" \n".contains(c)));
        assert!(text.starts_with(&super::text(100)));
    }

    #[test]
    fn the_kernel_hands_our_words_to_init() {
        let line = append(&["gzip", "sort"], 50);
        assert!(line.ends_with(" Q_SCALE=50 Q_LIST=gzip,sort"));
        let init = include_str!("init.sh");
        assert!(init.contains("$Q_LIST") && include_str!("work.sh").contains("${Q_SCALE:-100}"));
    }
}
