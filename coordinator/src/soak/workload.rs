//! What our own guest (`tests/guests/asm/soak.S`) is to print, show and leave on its disk, worked out for itself.
//!
//! The guest checks what it reads; that alone would let a machine pass that computes wrongly in guest and check alike. So
//! every number of its lines is compared with a model that shares no code with it, its pictures with what
//! follows from their numbers, and the image with what can have been written, by this process from outside.

use std::collections::BTreeSet;

/// Sectors that the guest writes and reads in one command.
const BLOCK_SECTORS: u32 = 16;
/// Blocks that it uses.
const BLOCKS: u32 = 256;
/// From one block of a pass to the next.
const BLOCK_STRIDE: u32 = 37;
/// Blocks that a round writes.
const ROUND_BLOCKS: u32 = 8;
/// Bytes of a sector.
const SECTOR: usize = 512;
/// Length of the disk that it needs, in bytes.
pub const DISK_BYTES: u64 = (BLOCKS * BLOCK_SECTORS) as u64 * SECTOR as u64;
/// Width and height of its frames.
pub const FRAME: (u32, u32) = (640, 480);
/// Kinds of interrupts that a round raises.
const KINDS: u32 = 5;

/// What a line of the guest meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It began.
    Start,
    /// A round is over.
    Round,
    /// The frame with this number stands.
    Frame(u32),
    /// Something is wrong, in a sentence.
    Wrong(String),
    /// Nothing of interest.
    Nothing,
}

/// Totals over all starts of the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Times that it began.
    pub starts: u32,
    /// Rounds.
    pub rounds: u64,
    /// Interrupts of the storms and of the disk.
    pub interrupts: u64,
    /// Sectors written.
    pub written: u64,
    /// Sectors read and compared.
    pub read: u64,
    /// Commands for the disk that failed, by right, and were repeated.
    pub failed: u64,
}

/// Whether commands for the disk may fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Failing {
    #[default]
    No,
    Now,
    /// In lines up to this round's: what failed before is said at the end of the round.
    Until(u32),
}

/// The guest as it is to be.
#[derive(Debug, Default)]
pub struct Workload {
    totals: Totals,
    /// Resets that have been asked for, each of which allows one more start.
    resets: u32,
    /// Since the last start:
    count: u32,
    round: u32,
    first_version: u32,
    version: u32,
    place: u32,
    ide: u32,
    written: u32,
    read: u32,
    sum: u32,
    frame: u32,
    /// Commands for the disk that failed.
    failed: u32,
    failing: Failing,
    /// What the guest's numbers are above the model's, from violations that were told already.
    shift: [u32; FIELDS.len()],
}

impl Workload {
    /// A reset was made, or cpu-worker killed: the guest may begin once more.
    pub fn reset(&mut self) {
        self.resets += 1;
    }

    /// From now on commands for the disk may fail.
    pub fn disk_fails(&mut self) {
        self.failing = Failing::Now;
    }

    /// From now on they may not any more.
    pub fn disk_is_well(&mut self) {
        // One line may be on its way, and the next is of the round in which it became well.
        self.failing = Failing::Until(self.round.wrapping_add(2));
    }

    /// What has been done so far.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Whether the guest has begun as often as it was reset: what it shows is what it said last.
    pub fn settled(&self) -> bool {
        self.totals.starts == self.resets + 1
    }

    /// The frame that stands; 0 before the first.
    pub fn frame(&self) -> u32 {
        self.frame
    }

    /// What to send to the guest when the frame that stands has been looked at.
    pub fn looked(&self) -> String {
        let number = (self.first_version << 16).wrapping_add(self.frame);
        // The first end of line ends what a reset may have cut off.
        format!("\n{number}\n")
    }

    /// Takes a line of the serial line, without its end.
    pub fn hear(&mut self, line: &str) -> Heard {
        // A reset cuts a line off in the middle, and the next begins behind it.
        let line = match line.find("soak: start ") {
            Some(at) => &line[at..],
            None => line,
        };
        let Some(rest) = line.strip_prefix("soak: ") else {
            let line = line.trim();
            return if line.is_empty() {
                Heard::Nothing
            } else {
                Heard::Wrong(format!("the guest printed \"{line}\""))
            };
        };
        let words: Vec<&str> = rest.split_whitespace().collect();
        let wrong = match words.first() {
            Some(&"start") => self.start(&words),
            Some(&"round") => self.round(&words),
            Some(&"frame") => match number(&words, 1) {
                Some(n) if n == self.frame + 1 => {
                    self.frame = n;
                    return Heard::Frame(n);
                }
                _ => Err(format!("after frame {} came \"{rest}\"", self.frame)),
            },
            _ => Err(format!("the guest says: {rest}")),
        };
        match wrong {
            Ok(heard) => heard,
            Err(text) => Heard::Wrong(text),
        }
    }

    fn start(&mut self, words: &[&str]) -> Result<Heard, String> {
        let [
            "start",
            "version",
            version,
            "kinds",
            kinds,
            "count",
            count,
            "bad",
            bad,
        ] = words
        else {
            return Err(format!("the guest began with \"{}\"", words.join(" ")));
        };
        let parse = |text: &str| {
            text.parse::<u32>()
                .map_err(|_| format!("\"{text}\" is no number"))
        };
        let version = parse(version)?;
        // What lies on the disk is of the last start's pass, or of the one before as long as no round of this is over.
        let fitting = if self.totals.starts == 0 {
            version == 2
        } else {
            version == self.version + 2 || version == self.version && self.place == 0
        };
        let before = std::mem::take(self);
        *self = Self {
            totals: before.totals,
            resets: before.resets,
            count: parse(count)?,
            first_version: version,
            version,
            ide: (0..BLOCKS).map(read_interrupts).sum(),
            ..Self::default()
        };
        self.totals.starts += 1;
        if self.totals.starts > self.resets + 1 {
            return Err(format!(
                "the guest began {} times and was reset {} times",
                self.totals.starts, self.resets
            ));
        }
        if !fitting {
            return Err(format!(
                "the guest found version {} on its disk, where {} was being written",
                version.saturating_sub(2),
                before.version
            ));
        }
        if parse(kinds)? != KINDS || parse(bad)? != 0 {
            return Err(format!("the guest began with \"{}\"", words.join(" ")));
        }
        Ok(Heard::Start)
    }

    fn round(&mut self, words: &[&str]) -> Result<Heard, String> {
        if self.totals.starts == 0 {
            return Err("a round came before the start".to_owned());
        }
        let before = (self.ide, self.written, self.read);
        self.advance();
        self.take_failures(words);
        let each = self.count.wrapping_mul(KINDS);
        let raised = self.round.wrapping_mul(each);
        self.totals.rounds += 1;
        self.totals.interrupts += u64::from(each) + u64::from(self.ide.wrapping_sub(before.0));
        self.totals.written += u64::from(self.written.wrapping_sub(before.1));
        self.totals.read += u64::from(self.read.wrapping_sub(before.2));
        let mut due = [
            self.round,
            raised,
            raised,
            0,
            0,
            self.ide,
            self.ide,
            0,
            self.written,
            self.read,
            0,
            self.failed,
        ];
        for (due, shift) in due.iter_mut().zip(self.shift) {
            *due = due.wrapping_add(shift);
        }
        let n = |at: usize| due[at];
        let expected = format!(
            "round {} irqs {} {} {} {} ide {} {} {} sectors {} {} {} {} frame {} sum {:08X}",
            n(0),
            n(1),
            n(2),
            n(3),
            n(4),
            n(5),
            n(6),
            n(7),
            n(8),
            n(9),
            n(10),
            n(11),
            self.frame,
            self.sum,
        );
        if words.join(" ") == expected {
            return Ok(Heard::Round);
        }
        Err(self.differs(words, due, &expected))
    }

    /// Takes what a round's line says of commands that failed, as far as they may: each had at least one interrupt, and at
    /// most one for each of its sectors.
    fn take_failures(&mut self, words: &[&str]) {
        let may = match self.failing {
            Failing::No => false,
            Failing::Now => true,
            Failing::Until(round) => self.round <= round,
        };
        let said = |at: usize| {
            let said = words.iter().filter_map(|w| w.parse::<u32>().ok()).nth(at)?;
            Some(said.wrapping_sub(self.shift[at]))
        };
        let (Some(failed), Some(ide)) = (said(FAILED), said(IDE_DUE)) else {
            return;
        };
        let (failed, interrupts) = (failed.wrapping_sub(self.failed), ide.wrapping_sub(self.ide));
        if may && failed < 1 << 16 && (failed..=failed * BLOCK_SECTORS).contains(&interrupts) {
            self.failed = self.failed.wrapping_add(failed);
            self.ide = ide;
            self.totals.failed += u64::from(failed);
        }
    }

    /// What of a round's line is not as expected. It is told once: later lines are measured by this one.
    fn differs(&mut self, words: &[&str], due: [u32; FIELDS.len()], expected: &str) -> String {
        let is: Vec<u32> = words
            .iter()
            .filter_map(|w| w.parse().ok())
            .take(FIELDS.len())
            .collect();
        let mut differing = Vec::new();
        // A line that is cut off says nothing about the rest.
        if let (&["round", .., sum], true) = (words, is.len() == FIELDS.len()) {
            for (n, name) in FIELDS.into_iter().enumerate() {
                if is[n] != due[n] {
                    differing.push(format!("{name}: {} instead of {}", is[n], due[n]));
                    self.shift[n] = self.shift[n].wrapping_add(is[n].wrapping_sub(due[n]));
                }
            }
            match u32::from_str_radix(sum, 16) {
                Ok(found) if found != self.sum => {
                    differing.push(format!(
                        "sum of what was read: {found:08X} instead of {:08X}",
                        self.sum
                    ));
                    self.sum = found;
                }
                _ => {}
            }
        }
        if differing.is_empty() {
            return format!(
                "the guest's line is \"{}\" instead of \"{expected}\"",
                words.join(" ")
            );
        }
        format!("in round {}, {}", self.round, differing.join(", "))
    }

    /// One round of the model.
    fn advance(&mut self) {
        self.round = self.round.wrapping_add(1);
        for n in 0..ROUND_BLOCKS {
            self.ide = self
                .ide
                .wrapping_add(2 * write_interrupts(block_at(self.place + n)));
            self.written = self.written.wrapping_add(2 * BLOCK_SECTORS);
        }
        for n in 0..ROUND_BLOCKS {
            self.verify(self.place + n, self.version + 1);
        }
        for n in 0..ROUND_BLOCKS {
            let place = self.place + n;
            if place >= BLOCKS / 2 {
                self.verify(place - BLOCKS / 2, self.version + 1);
            } else if self.version > self.first_version {
                self.verify(place + BLOCKS / 2, self.version - 1);
            }
        }
        self.place += ROUND_BLOCKS;
        if self.place == BLOCKS {
            self.place = 0;
            self.version += 2;
        }
        // FLUSH CACHE.
        self.ide = self.ide.wrapping_add(1);
    }

    fn verify(&mut self, place: u32, version: u32) {
        let block = block_at(place);
        self.ide = self.ide.wrapping_add(read_interrupts(block));
        self.read = self.read.wrapping_add(BLOCK_SECTORS);
        for sector in block * BLOCK_SECTORS..(block + 1) * BLOCK_SECTORS {
            let last = sector_words(version, sector)[127];
            self.sum = self.sum.rotate_left(1).wrapping_add(last);
        }
    }
}

/// The number that is word `n`.
fn number(words: &[&str], n: usize) -> Option<u32> {
    words.get(n)?.parse().ok()
}

/// The block at a place of a pass.
fn block_at(place: u32) -> u32 {
    place * BLOCK_STRIDE % BLOCKS
}

/// Interrupts of writing a block: even ones go by the bus master, odd ones sector by sector.
fn write_interrupts(block: u32) -> u32 {
    if block.is_multiple_of(2) { 1 } else { BLOCK_SECTORS }
}

/// Interrupts of reading a block, the other way round.
fn read_interrupts(block: u32) -> u32 {
    write_interrupts(block + 1)
}

/// Names of the fields that a round's line has, in its order.
const FIELDS: [&str; 12] = [
    "rounds",
    "interrupts raised",
    "interrupts delivered",
    "interrupts lost",
    "interrupts delivered twice",
    "disk interrupts due",
    "disk interrupts delivered",
    "disk interrupts lost",
    "sectors written",
    "sectors read",
    "sectors with wrong contents",
    "disk commands that failed",
];

/// Place of the disk's interrupts, as its commands promise them, in [`FIELDS`].
const IDE_DUE: usize = 5;
/// Place of the commands that failed.
const FAILED: usize = 11;

/// The contents of a sector in a version.
pub fn sector_words(version: u32, sector: u32) -> [u32; 128] {
    let mut words = [0; 128];
    if version == 0 {
        return words;
    }
    words[0] = version;
    words[1] = sector;
    let mut x = version
        .wrapping_mul(0x9E37_79B1)
        .wrapping_add(sector.wrapping_mul(0x85EB_CA6B));
    for word in &mut words[2..127] {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *word = x;
    }
    words[127] = words[..127].iter().fold(0, |sum: u32, w| sum.wrapping_add(*w));
    words
}

/// Compares what the disk holds after the end with what can have been written, in `starts` starts of the guest: each sector is
/// whole, and versions do not rise along the order in which they are written. Answers a sentence for what cannot be.
pub fn check_image(image: &[u8], starts: u32) -> Vec<String> {
    if image.len() as u64 != DISK_BYTES {
        return vec![format!(
            "the disk has {} bytes instead of {DISK_BYTES}",
            image.len()
        )];
    }
    let mut wrong = Vec::new();
    let mut last = u32::MAX;
    let mut unfinished = BTreeSet::new();
    for place in 0..BLOCKS {
        let block = block_at(place);
        for sector in block * BLOCK_SECTORS..(block + 1) * BLOCK_SECTORS {
            let bytes = &image[sector as usize * SECTOR..][..SECTOR];
            let (words, _) = bytes.as_chunks::<4>();
            let found: Vec<u32> = words.iter().map(|w| u32::from_le_bytes(*w)).collect();
            let version = found[0];
            if found != sector_words(version, sector) {
                wrong.push(format!("sector {sector} on the disk is none that was written"));
            } else if version > last {
                wrong.push(format!(
                    "sector {sector} on the disk has version {version}, but what is written before it only {last}"
                ));
            }
            last = last.min(version);
            if version.is_multiple_of(2) && version != 0 {
                unfinished.insert(block);
            }
        }
    }
    // The second write of a block follows at once; a reset may come between the two, and so may the end.
    if unfinished.len() as u32 > starts {
        wrong.push(format!(
            "{} blocks on the disk lack their second write, after {starts} starts",
            unfinished.len()
        ));
    }
    wrong
}

/// The pixel of a frame, as 0x00RRGGBB.
fn pixel(frame: u32, at: u32) -> u32 {
    frame
        .wrapping_mul(0x61C8_8647)
        .wrapping_add(at.wrapping_mul(0x9E37_79B1))
        >> 8
}

/// Compares a picture (three bytes a pixel, row by row) with a frame.
///
/// # Errors
/// A sentence that tells which rows show what.
pub fn check_picture(size: (u32, u32), rgb: &[u8], frame: u32) -> Result<(), String> {
    if size != FRAME || rgb.len() as u32 != FRAME.0 * FRAME.1 * 3 {
        return Err(format!(
            "the picture has {}x{} pixels instead of {}x{}",
            size.0, size.1, FRAME.0, FRAME.1
        ));
    }
    let shows = |row: u32, frame: u32| {
        let pixels = &rgb[(row * FRAME.0 * 3) as usize..][..FRAME.0 as usize * 3];
        let (pixels, _) = pixels.as_chunks::<3>();
        pixels.iter().enumerate().all(|(x, p)| {
            let wanted = pixel(frame, row * FRAME.0 + x as u32).to_be_bytes();
            p == &wanted[1..]
        })
    };
    // Rows that are not this frame's, in runs of the frame that they show instead.
    let mut runs: Vec<(u32, u32, Option<u32>)> = Vec::new();
    for row in (0..FRAME.1).filter(|&row| !shows(row, frame)) {
        let older = (1..=8).map(|n| frame.wrapping_sub(n)).find(|&f| shows(row, f));
        match runs.last_mut() {
            Some((_, to, of)) if *to + 1 == row && *of == older => *to = row,
            _ => runs.push((row, row, older)),
        }
    }
    let Some(&(from, to, of)) = runs.first() else {
        return Ok(());
    };
    let of = of.map_or_else(|| "something else".to_owned(), |f| format!("frame {f}"));
    let more = if runs.len() > 1 {
        format!(" (the first of {} such parts)", runs.len())
    } else {
        String::new()
    };
    Err(format!(
        "frame {frame} is torn: rows {from} to {to} show {of}{more}"
    ))
}

#[cfg(test)]
#[path = "workload_tests.rs"]
mod tests;
