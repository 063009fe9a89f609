//! Work for Linux that shows what it loses: it writes and compares two disks, takes sums and prints on its screen.
#![allow(dead_code, reason = "each test file uses its own part")]

use crate::drives::{BLOCK, Bus, Image, found, numbers};
use crate::iso::iso;
use crate::support::{Machine, Setup};

/// Blocks that a pass writes to each disk.
const BLOCKS: usize = 32;
/// Blocks more that the CD has, so that each pass can begin elsewhere.
const MORE: usize = 16;
/// The disks' buses.
const BUSES: [&str; 2] = ["ide", "virtio"];

/// What the guest does until `/tmp/go` is gone. What differs from what it should be is noted.
const WORK: &str = r#"
disk() {
  p=0
  while [ -e /tmp/go ]; do
    skip=$((p * 5 % 17))
    dd if=/tmp/cd/data.bin of=$1 bs=64k skip=$skip count=32 conv=fsync 2>/dev/null || echo "$1 write" >> /tmp/bad
    echo 3 > /proc/sys/vm/drop_caches
    a=$(dd if=$1 bs=64k count=32 2>/dev/null | md5sum)
    b=$(dd if=/tmp/cd/data.bin bs=64k skip=$skip count=32 2>/dev/null | md5sum)
    [ "$a" = "$b" ] || echo "$1 pass $p" >> /tmp/bad
    p=$((p + 1))
    echo $p > /tmp/passes-$2
  done
}
sums() {
  n=0
  while [ -e /tmp/go ]; do
    s=$(dd if=/dev/zero bs=64k count=16 2>/dev/null | sha256sum)
    [ "$s" = "30e14955ebf1352266dc2ff8067e68104607e750abb9d3b36582b8af909fcb58  -" ] || echo "sum $s" >> /tmp/bad
    n=$((n + 1))
    echo $n > /tmp/passes-sums
    sleep 0.1
  done
}
screen() {
  n=0
  while [ -e /tmp/go ]; do
    dmesg > /dev/tty1
    n=$((n + 1))
    echo $n > /tmp/passes-screen
    sleep 0.1
  done
}
touch /tmp/go
disk /dev/sda ide & disk /dev/vda virtio & sums & screen &
wait
"#;

/// A guest at work.
#[derive(Debug)]
pub struct Work {
    disks: [Image; 2],
    _cd: Image,
    data: Vec<u8>,
}

impl Work {
    /// Debian's kernel of an architecture at work in a machine whose name begins with `test`; `None` without its files.
    pub fn start(test: &str, architecture: &str) -> Option<(Machine, Self)> {
        let data = numbers(BLOCKS + MORE);
        let name = format!("{test}-{architecture}");
        let disks = BUSES.map(|bus| Image::new(&format!("{name}-{bus}"), &vec![0; 16 << 20]));
        let cd = Image::new(&format!("{name}-cd"), &iso(&data));
        let mut setup = Setup::linux_with_disks(architecture)?;
        for (disk, bus) in disks.iter().zip(BUSES) {
            setup = setup.option(
                "--disk",
                format!("{},format=raw,bus={bus}", disk.path().display()),
            );
        }
        let mut guest = setup
            .option("--ram", "256M")
            .option("--stable-after", "0s")
            .option("--cdrom", cd.path())
            .start(&name);
        found(&mut guest, Bus::Ide);
        guest.command("while [ ! -b /dev/vda ]; do sleep 0.2; done");
        for line in WORK.lines().filter(|line| !line.is_empty()) {
            guest.command(&format!("echo '{}' >> /tmp/work.sh", line.replace('\'', "'\\''")));
        }
        guest.command("{ (sh /tmp/work.sh >/tmp/said 2>&1; touch /tmp/over) & }");
        let work = Self { disks, _cd: cd, data };
        Some((guest, work))
    }

    /// Passes of both disks, sums and the screen so far.
    pub fn passes(guest: &mut Machine) -> [usize; 4] {
        ["ide", "virtio", "sums", "screen"].map(|what| {
            let text = guest.command(&format!("cat /tmp/passes-{what} 2>/dev/null || echo 0"));
            text.trim().parse().expect("a number")
        })
    }

    /// Lets the guest end its work and judges it; answers the passes.
    pub fn end(&self, guest: &mut Machine) -> [usize; 4] {
        guest.command("rm /tmp/go; while [ ! -e /tmp/over ]; do sleep 0.2; done");
        assert_eq!(guest.command("cat /tmp/bad /tmp/said 2>/dev/null || true"), "");
        let passes = Self::passes(guest);
        assert!(passes.iter().all(|n| *n > 0), "{passes:?}");
        for (disk, passes) in self.disks.iter().zip(passes) {
            let skip = (passes - 1) * 5 % 17;
            let written = &self.data[skip * BLOCK..][..BLOCKS * BLOCK];
            assert!(disk.starts_with(written), "the image has the last pass");
        }
        passes
    }
}
