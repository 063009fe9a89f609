//! A worker whose memory says what no worker writes: rubbish in the gpu-worker's ring of input, which the io-worker reads.
//!
//! Written through `/proc/PID/mem` (proc_pid_mem(5)) into the gpu-worker's own map, so that to everybody else it is the
//! gpu-worker's doing; its process is killed afterwards, as whoever finds such a process would. Rings whose records are the
//! guest's own doing, such as the vCPU's commands, are not for this: no reader can tell a lie there from a guest's wish.
//! A worker made to lie was rejected: none is built that can.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use quintet_protocol::layout::Region;

/// Its name in `status`.
pub const HOSTILE_RING: &str = "input";
/// Bytes at the ring's beginning that are written over: the tail, and the first records.
const SPAN: usize = 1024;

/// The ring of input as the gpu-worker has it.
#[derive(Debug)]
pub struct HostileRing {
    memory: File,
    /// Where the ring begins in that process.
    at: u64,
    seed: u64,
}

impl HostileRing {
    /// The ring in the process `pid`.
    ///
    /// # Errors
    /// A sentence when the process cannot be written to, or has no such ring.
    pub fn open(pid: i32, seed: u64) -> Result<Self, String> {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))
            .map_err(|e| format!("the gpu-worker's maps cannot be read: {e}"))?;
        let region = Region::input();
        let at = address_of(&maps, &region.file.file_name(), region.file_offset()).ok_or(
            "the gpu-worker has no ring of input in memory of its own (--backend portable has none)",
        )?;
        let memory = File::options()
            .read(true)
            .write(true)
            .open(format!("/proc/{pid}/mem"))
            .map_err(|e| {
                format!("the gpu-worker's memory cannot be written: {e}; see kernel.yama.ptrace_scope, or run as root")
            })?;
        Ok(Self { memory, at, seed })
    }

    /// Writes rubbish.
    ///
    /// # Errors
    /// A sentence when the process is gone, or the host refuses.
    pub fn scribble(&mut self) -> Result<(), String> {
        let mut rubbish = [0; SPAN];
        for bytes in rubbish.chunks_exact_mut(8) {
            // xorshift64 (Marsaglia, 2003).
            self.seed ^= self.seed << 13;
            self.seed ^= self.seed >> 7;
            self.seed ^= self.seed << 17;
            bytes.copy_from_slice(&self.seed.to_le_bytes());
        }
        self.memory
            .write_all_at(&rubbish, self.at)
            .map_err(|e| format!("the gpu-worker's memory cannot be written: {e}"))
    }
}

/// Where byte `offset` of the memory file `name` lies in a process with these maps, in a map that it may write.
fn address_of(maps: &str, name: &str, offset: u64) -> Option<u64> {
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    maps.lines().find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let mut words = rest.split_whitespace();
        let (rights, first) = (words.next()?, hex(words.next()?)?);
        let path = words.nth(2)?;
        let (start, end) = (hex(start)?, hex(end)?);
        let inside = offset.checked_sub(first).filter(|within| *within < end - start)?;
        (path.strip_prefix("/memfd:") == Some(name) && rights.starts_with("rw")).then_some(start + inside)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_a_file_is_found_in_the_map_that_may_be_written() {
        let maps = "\
55d0c0a00000-55d0c0a02000 r--p 00000000 08:01 42   /bin/cat
7f0000000000-7f0000020000 r--s 00000000 00:01 7    /memfd:quintet-input (deleted)
7f0000100000-7f0000110000 rw-s 00000000 00:01 7    /memfd:quintet-input (deleted)
7f0000200000-7f0000240000 rw-s 00010000 00:01 7    /memfd:quintet-input (deleted)
7f0000300000-7f0000340000 rw-s 00010000 00:01 8    /memfd:quintet-input-other (deleted)
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0    [stack]
";
        let at = |offset| address_of(maps, "quintet-input", offset);
        assert_eq!(at(0x10), Some(0x7f00_0010_0010));
        assert_eq!(at(0x1_0010), Some(0x7f00_0020_0010));
        assert_eq!(at(0x5_0000), None);
        assert_eq!(address_of(maps, "quintet-vram", 0), None);
    }

    #[test]
    fn a_process_without_such_a_ring_is_refused() {
        let own = i32::try_from(std::process::id()).expect("a pid");
        let error = HostileRing::open(own, 1).expect_err("no ring");
        assert!(error.contains("no ring of input"), "{error}");
        assert!(HostileRing::open(1 << 22, 1).is_err());
    }
}
