//! Images whose process is killed, and whose host loses power, at any change of a file. QEMU judges what is left.

use std::collections::BTreeMap;

use super::header::{DIRTY, INCOMPATIBLE};
use super::tests::{Dice, qemu};
use super::*;
use crate::block::SECTOR;
use crate::block::file::trace::{Step, TRACE, Trace};
use crate::block::model::{Model, contents};

const LEN: u64 = 1 << 20;
const SECTORS: u64 = LEN / SECTOR;

struct Host {
    path: String,
    /// What lasts, as far as it was looked at.
    lasting: Vec<u8>,
    scratch: OwnedFd,
    repairs: u32,
}

impl Host {
    fn live(&self) -> Qcow2Image {
        let file = qemu::open(&self.path);
        let inode = rustix::fs::fstat(&file).expect("stat").st_ino;
        TRACE.with_borrow_mut(|trace| {
            let steps = trace.take().map_or_else(Vec::new, |trace| trace.steps);
            *trace = Some(Trace {
                inode,
                fuel: u32::MAX,
                steps,
            });
        });
        qemu::live(file, &self.scratch)
    }

    /// The power fails: what was not flushed is there or not, sector by sector.
    fn cut(&mut self, dice: &mut Dice) {
        let steps = TRACE.take().expect("traced").steps;
        let mut since: BTreeMap<u64, Vec<Vec<u8>>> = BTreeMap::new();
        let mut now = self.lasting.clone();
        for step in steps {
            match step {
                Step::Write(offset, bytes) => {
                    let end = (offset as usize + bytes.len()).next_multiple_of(SECTOR as usize);
                    if now.len() < end {
                        now.resize(end, 0);
                    }
                    now[offset as usize..offset as usize + bytes.len()].copy_from_slice(&bytes);
                    for n in offset / SECTOR..(offset + bytes.len() as u64).div_ceil(SECTOR) {
                        let sector = &now[(n * SECTOR) as usize..][..SECTOR as usize];
                        since.entry(n).or_default().push(sector.to_vec());
                    }
                }
                Step::Flush => {
                    self.lasting = now.clone();
                    since.clear();
                }
            }
        }
        // Some cuts lose all, some nearly nothing, some half.
        let chance = [1, 2, 10][dice.below(3) as usize];
        for (n, versions) in since {
            if dice.below(chance) == 0 {
                continue;
            }
            let version = &versions[dice.below(versions.len() as u64) as usize];
            let at = (n * SECTOR) as usize;
            if self.lasting.len() < at + SECTOR as usize {
                self.lasting.resize(at + SECTOR as usize, 0);
            }
            self.lasting[at..at + SECTOR as usize].copy_from_slice(version);
        }
        std::fs::write(&self.path, &self.lasting).expect("written");
        self.scratch = qemu::scratch();
        // What the coordinator tells the user to do.
        if u64::from(self.lasting[INCOMPATIBLE as usize + 7]) & DIRTY != 0 {
            self.repairs += 1;
            let (code, said) = qemu::img(&["check", "-q", "-r", "all", &self.path]);
            assert_eq!(code, 0, "{said}");
        }
        qemu::assert_sound(&self.path, true);
        self.lasting = std::fs::read(&self.path).expect("the image");
    }
}

/// A disk's life of `steps` steps. Answers how often it had to be repaired, and how often the power failed.
fn life(path: &str, seed: u64, steps: u32) -> (u32, u32) {
    let mut dice = Dice(seed);
    let mut host = Host {
        path: path.to_owned(),
        lasting: std::fs::read(path).expect("the image"),
        scratch: qemu::scratch(),
        repairs: 0,
    };
    TRACE.set(None);
    let mut image = host.live();
    let mut model = Model(vec![vec![0]; SECTORS as usize]);
    let seen = contents(&mut image);
    model.settle(&seen);
    let mut cuts = 0;
    let mut doomed = false;
    for step in 0..steps {
        let value = (step % 250) as u8 + 1;
        let (at, most) = (dice.below(SECTORS), [3, 20, 300][dice.below(3) as usize]);
        let len = (1 + dice.below(most)).min(SECTORS - at);
        if !doomed && dice.below(4) == 0 {
            doomed = true;
            let fuel = dice.below(25) as u32;
            TRACE.with_borrow_mut(|trace| trace.as_mut().expect("traced").fuel = fuel);
        }
        let (done, touched) = match dice.below(8) {
            0 | 1 => (image.flush(), None),
            2 => {
                model.set(at, len, 0);
                (image.zero(at * SECTOR, len * SECTOR, false), Some(at..at + len))
            }
            _ => {
                model.set(at, len, value);
                let bytes = vec![value; (len * SECTOR) as usize];
                (image.write(at * SECTOR, &bytes), Some(at..at + len))
            }
        };
        if done.is_ok() {
            if touched.is_none() {
                let last = model.last();
                model.settle(&last);
            }
            assert!(contents(&mut image) == model.last(), "seed {seed}, step {step}");
            continue;
        }
        assert!(doomed, "seed {seed}, step {step}: {done:?}");
        doomed = false;
        // Whatever the library does when it is let go, a process that was killed does not.
        TRACE.with_borrow_mut(|trace| trace.as_mut().expect("traced").fuel = 0);
        let steps = TRACE.with_borrow(|trace| trace.as_ref().expect("traced").steps.len());
        drop(image);
        TRACE.with_borrow_mut(|trace| trace.as_mut().expect("traced").steps.truncate(steps));
        let cut = dice.below(2) == 0;
        if cut {
            cuts += 1;
            host.cut(&mut dice);
        }
        image = host.live();
        let seen = contents(&mut image);
        for (n, sector) in model.0.iter_mut().enumerate() {
            let of_step = touched.as_ref().is_some_and(|range| range.contains(&(n as u64)));
            let may = match cut {
                true => &sector[..],
                false => &sector[sector.len() - 1 - usize::from(of_step)..],
            };
            assert!(
                may.contains(&seen[n]),
                "seed {seed}, step {step}, cut {cut}: sector {n} has {} and not {may:?}",
                seen[n]
            );
            sector.push(seen[n]);
        }
        if cut {
            model.settle(&seen);
        }
    }
    TRACE.set(None);
    image.flush().expect("flushed");
    drop(image);
    qemu::assert_sound(path, true);
    (host.repairs, cuts)
}

#[test]
fn nothing_flushed_is_lost_and_the_rest_is_old_or_new() {
    if !qemu::is_there() {
        return;
    }
    let lives = match std::env::var_os("QUINTET_LONG") {
        Some(_) => 400,
        None => 8,
    };
    let folder = qemu::Folder::new();
    let raw = folder.name("raw");
    let full: Vec<u8> = (0..SECTORS)
        .flat_map(|n| [(n % 251) as u8; SECTOR as usize])
        .collect();
    std::fs::write(&raw, full).expect("written");
    let packed = folder.name("packed");
    let (code, said) = qemu::img(&[
        "convert",
        "-c",
        "-O",
        "qcow2",
        "-f",
        "raw",
        "-o",
        "cluster_size=4096",
        &raw,
        &packed,
    ]);
    assert_eq!(code, 0, "{said}");
    let kinds = [
        folder.image("small", "cluster_size=512", "1M"),
        folder.image("usual", "cluster_size=65536", "1M"),
        packed,
    ];
    let (mut repairs, mut cuts) = (0, 0);
    for (kind, made) in kinds.iter().enumerate() {
        for n in 0..lives {
            let path = folder.name("life");
            std::fs::copy(made, &path).expect("copied");
            let (r, c) = life(&path, 0x9E37_79B9_7F4A_7C15 ^ (n << 8 | kind as u64), 60);
            repairs += r;
            cuts += c;
        }
    }
    println!("{cuts} losses of power, {repairs} of them with repairs");
    assert!(cuts > 10);
}
