//! Overlays whose process is killed, and whose host loses power, at any moment.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use rustix::fs::{MemfdFlags, memfd_create};

use super::tests::header;
use super::*;
use crate::block::SECTOR;
use crate::block::model::{Model, contents};
use crate::block::tests::MemoryImage;

/// Three clusters and a piece.
const SECTORS: u64 = 3 * 128 + 5;

type Sector = [u8; SECTOR as usize];

/// A disk of the host's, which is told when something has to last. Until then each sector may be any that was written
/// since, and so may the length.
#[derive(Debug, Default)]
struct Host {
    /// What a process sees.
    seen: Vec<u8>,
    /// What lasts.
    lasting: Vec<u8>,
    /// What was written since to each sector.
    written: BTreeMap<usize, Vec<Sector>>,
    /// Lengths that the file had since.
    lens: Vec<usize>,
    /// Calls until the process is killed.
    fuel: u32,
}

impl Host {
    fn note(&mut self, range: std::ops::Range<usize>) {
        for n in range.start / SECTOR as usize..range.end.div_ceil(SECTOR as usize) {
            let mut sector = [0; SECTOR as usize];
            let bytes = &self.seen[n * SECTOR as usize..];
            let len = bytes.len().min(sector.len());
            sector[..len].copy_from_slice(&bytes[..len]);
            self.written.entry(n).or_default().push(sector);
        }
    }

    /// The power fails; `choose(n)` picks one of n.
    fn cut(&mut self, mut choose: impl FnMut(usize) -> usize) {
        self.lens.push(self.lasting.len());
        let len = self.lens[choose(self.lens.len())];
        for (n, versions) in std::mem::take(&mut self.written) {
            let at = n * SECTOR as usize;
            if let Some(version) = choose(versions.len() + 1).checked_sub(1) {
                if self.lasting.len() < at + SECTOR as usize {
                    self.lasting.resize(at + SECTOR as usize, 0);
                }
                self.lasting[at..at + SECTOR as usize].copy_from_slice(&versions[version]);
            }
        }
        self.lasting.resize(len, 0);
        self.lens.clear();
        self.seen = self.lasting.clone();
    }

    fn burn(&mut self) -> Result<(), ImageError> {
        match self.fuel.checked_sub(1) {
            Some(left) => {
                self.fuel = left;
                Ok(())
            }
            None => Err(std::io::Error::other("killed").into()),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Weak(Arc<Mutex<Host>>);

impl Weak {
    fn host(&self) -> std::sync::MutexGuard<'_, Host> {
        self.0.lock().expect("whole")
    }
}

impl Store for Weak {
    fn size(&self) -> Result<u64, ImageError> {
        Ok(self.host().seen.len() as u64)
    }
    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), ImageError> {
        let host = self.host();
        let bytes = host.seen.get(offset as usize..offset as usize + into.len());
        into.copy_from_slice(bytes.ok_or(std::io::Error::from(std::io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }
    fn write(&mut self, offset: u64, from: &[u8]) -> Result<(), ImageError> {
        let mut host = self.host();
        let killed = host.burn();
        // Who is killed in a write has written some of it.
        let len = if killed.is_err() {
            from.len() / 1024 * 512
        } else {
            from.len()
        };
        let (at, end) = (offset as usize, offset as usize + len);
        if host.seen.len() < end {
            host.seen.resize(end, 0);
            host.lens.push(end);
        }
        host.seen[at..end].copy_from_slice(&from[..len]);
        host.note(at..end);
        killed
    }
    fn flush(&mut self) -> Result<(), ImageError> {
        let mut host = self.host();
        host.burn()?;
        host.lasting = host.seen.clone();
        host.written.clear();
        host.lens.clear();
        Ok(())
    }
    fn set_len(&mut self, len: u64) -> Result<(), ImageError> {
        let mut host = self.host();
        host.burn()?;
        host.seen.resize(len as usize, 0);
        host.lens.push(len as usize);
        Ok(())
    }
    fn zero(&mut self, offset: u64, len: u64, _unmap: bool) -> Result<bool, ImageError> {
        let mut host = self.host();
        host.burn()?;
        let end = host.seen.len().min((offset + len) as usize);
        let range = (offset as usize).min(end)..end;
        host.seen[range.clone()].fill(0);
        host.note(range);
        Ok(true)
    }
    fn next_data(&self, offset: u64) -> Result<Option<std::ops::Range<u64>>, ImageError> {
        let len = self.host().seen.len() as u64;
        Ok((offset < len).then_some(offset..len))
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write(u64, u64),
    Zero(u64, u64),
    Flush,
    /// The process is killed after so many calls; a successor takes over.
    Kill(u32),
    /// The power fails after so many calls; the numbers choose what is left.
    Cut(u32, Vec<u8>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let range = || (0..SECTORS, 1_u64..200).prop_map(|(at, len)| (at, len.min(SECTORS - at)));
    let step = prop_oneof![
        8 => range().prop_map(|(at, len)| Step::Write(at, len)),
        2 => range().prop_map(|(at, len)| Step::Zero(at, len)),
        3 => Just(Step::Flush),
        2 => (0_u32..8).prop_map(Step::Kill),
        2 => (0_u32..8, prop::collection::vec(any::<u8>(), 16)).prop_map(|(n, bytes)| Step::Cut(n, bytes)),
    ];
    prop::collection::vec(step, 1..40)
}

fn base() -> MemoryImage {
    let base = MemoryImage::numbered(SECTORS);
    base.0.lock().expect("whole").bytes.fill(0xEE);
    base
}

fn scratch() -> std::os::fd::OwnedFd {
    memfd_create("scratch", MemfdFlags::CLOEXEC).expect("memfd")
}

fn live(host: &Weak, scratch: &std::os::fd::OwnedFd) -> Overlay<Weak> {
    host.host().fuel = u32::MAX;
    let record = Scratch::open(scratch.try_clone().expect("a descriptor")).expect("a scratch");
    Overlay::open(host.clone(), Box::new(base()), Some(record)).expect("opened")
}

/// Does the steps and compares with the model after each.
fn check(steps: &[Step]) {
    let header = header(SECTORS);
    let host = Weak::default();
    {
        let mut host = host.host();
        host.seen = header.encode();
        host.seen.resize(header.data_at() as usize, 0);
        host.lasting = host.seen.clone();
    }
    let mut record = scratch();
    let mut image = live(&host, &record);
    let mut model = Model(vec![vec![0xEE]; SECTORS as usize]);
    let mut value = 0;
    let mut doomed: Option<&Step> = None;
    for step in steps {
        value = value % 200 + 1;
        let done = match step {
            Step::Write(at, len) => {
                model.set(*at, *len, value);
                image.write(at * SECTOR, &vec![value; (len * SECTOR) as usize])
            }
            Step::Zero(at, len) => {
                model.set(*at, *len, 0);
                image.zero(at * SECTOR, len * SECTOR, value % 2 == 0)
            }
            Step::Flush => image.flush(),
            Step::Kill(fuel) | Step::Cut(fuel, _) => {
                if doomed.is_none() {
                    doomed = Some(step);
                    host.host().fuel = *fuel;
                }
                continue;
            }
        };
        match (done, doomed) {
            (Ok(()), _) => {
                if matches!(step, Step::Flush) {
                    let seen = model.last();
                    model.settle(&seen);
                }
                let seen = contents(&mut image);
                for (n, sector) in model.0.iter().enumerate() {
                    assert_eq!(Some(&seen[n]), sector.last(), "sector {n}");
                }
            }
            (Err(error), None) => panic!("{error}"),
            (Err(_), Some(Step::Cut(_, choices))) => {
                doomed = None;
                let mut turn = 0;
                host.host().cut(|n| {
                    turn += 1;
                    usize::from(choices[turn % choices.len()].rotate_left(turn as u32 / 16)) % n
                });
                record = scratch();
                image = live(&host, &record);
                let seen = contents(&mut image);
                for (n, sector) in model.0.iter().enumerate() {
                    assert!(
                        sector.contains(&seen[n]),
                        "sector {n}: {} is not of {sector:?}",
                        seen[n]
                    );
                }
                model.settle(&seen);
            }
            (Err(_), Some(_)) => {
                doomed = None;
                image = live(&host, &record);
                // What had ended is there; of what had not, each sector is old or new.
                let seen = contents(&mut image);
                for (n, sector) in model.0.iter_mut().enumerate() {
                    let touched = match step {
                        Step::Write(at, len) | Step::Zero(at, len) => (*at..at + len).contains(&(n as u64)),
                        _ => false,
                    };
                    let newest = &sector[sector.len() - (1 + usize::from(touched))..];
                    assert!(
                        newest.contains(&seen[n]),
                        "sector {n}: {} is not of {newest:?}",
                        seen[n]
                    );
                    sector.push(seen[n]);
                }
            }
        }
    }
}

fn cases() -> u32 {
    match std::env::var_os("QUINTET_LONG") {
        Some(_) => 20_000,
        None => 400,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_flushed_is_lost_and_the_rest_is_old_or_new(steps in steps()) {
        check(&steps);
    }
}

/// That the test above would see it: a table written before its data is durable loses what was flushed in the base.
#[test]
fn a_host_that_loses_data_it_was_told_to_keep_is_noticed() {
    let header = header(SECTORS);
    let host = Weak::default();
    {
        let mut host = host.host();
        host.seen = header.encode();
        host.seen.resize(header.data_at() as usize + CLUSTER as usize, 0);
        host.lasting = host.seen.clone();
    }
    let entry = map::entry(header.id, 0, 0).to_le_bytes();
    let mut store = host.clone();
    host.host().fuel = u32::MAX;
    store
        .write(header.data_at(), &[7; CLUSTER as usize])
        .expect("data");
    store.write(Header::entry_at(0), &entry).expect("its entry");
    // The entry lasts and the data does not.
    let table = Header::entry_at(0) as usize / SECTOR as usize;
    let data_first = host.host().written.keys().copied().collect::<Vec<_>>();
    let mut sectors = std::iter::once(usize::MAX).chain(data_first);
    host.host().cut(|n| match sectors.next() {
        Some(sector) if sector == table => n - 1,
        _ => 0,
    });
    let seen = contents(&mut live(&host, &scratch()));
    assert!(seen[..128].iter().all(|value| *value == 0), "neither old nor new");
}
