//! What lies where, for the debugger's script: the protocol's own lists, as JSON.
//!
//! The script writes down no offset and no name; it is of the same build as this table, and a process of another build is
//! recognised by the layout hash in the head of its files.

use std::collections::BTreeMap;

use quintet_cpu_worker::jit::shown;
use quintet_protocol::clock::RUNNING;
use quintet_protocol::handshake::files::{HEAD_LEN, LAYOUT_OFFSET, layout_hash};
use quintet_protocol::handshake::{FileId, Role};
use quintet_protocol::layout::{Region, RingRegions, SleeperId, regions};
use quintet_protocol::ring::RING_HEADER;
use quintet_protocol::seqlock::SEQ_HEADER;
use quintet_protocol::status::{MachineState, Owner, PeerState, StatusWord, WorkerState};
use quintet_protocol::sync::CACHE_LINE;
use quintet_protocol::wires::LINES;
use serde_json::{Value, json};

/// The table of this build.
pub(super) fn table() -> Value {
    let clock = Region::clock();
    let wires = Region::wires();
    json!({
        "layout_hash": layout_hash(),
        "layout_offset": LAYOUT_OFFSET,
        "head": HEAD_LEN,
        "files": FileId::every().map(|f| (f.file_name(), f.map_start())).collect::<BTreeMap<_, _>>(),
        "roles": Role::ALL.map(|r| json!({ "name": r.name(), "control": FileId::Control(r).file_name() })),
        "regions": regions().into_iter().map(|r| json!({
            "file": r.file.file_name(), "name": r.name, "index": r.index, "offset": r.offset, "len": r.len,
        })).collect::<Vec<_>>(),
        "status": StatusWord::ALL.iter().map(|&w| json!({
            "name": format!("{w:?}"), "index": w.index(), "owners": owners(w), "kind": kind(w),
        })).collect::<Vec<_>>(),
        "kinds": {
            "MachineState": meanings(MachineState::ALL, |s| s as u32),
            "WorkerState": meanings(WorkerState::ALL, |s| s as u32),
            "PeerState": meanings(PeerState::ALL, |s| s as u32),
        },
        "rings": RingRegions::all().into_iter().map(|r| json!({
            "reported": RingRegions::reported().iter().any(|(name, _)| *name == r.name),
            "name": r.name,
            "file": r.producer.file.file_name(),
            "offset": r.producer.offset,
            "capacity": r.producer.len - RING_HEADER,
            "head_file": r.head.file.file_name(),
            "head_offset": r.head.offset,
        })).collect::<Vec<_>>(),
        "wires": { "file": wires.file.file_name(), "offset": wires.offset + CACHE_LINE, "lines": LINES },
        "clock": {
            "file": clock.file.file_name(), "offset": clock.offset, "record": SEQ_HEADER, "running": RUNNING,
        },
        "sleepers": SleeperId::all().map(|s| {
            let (bell, flag) = (Region::doorbell(s), Region::asleep(s));
            json!({
                "name": format!("{s:?}"),
                "bell_file": bell.file.file_name(),
                "bell": bell.offset,
                "flag_file": flag.file.file_name(),
                "flag": flag.offset,
            })
        }).collect::<Vec<_>>(),
        "source_mark": quintet_protocol::handshake::worker::SOURCE,
        "anchor": {
            "section": shown::SECTION,
            "magic": String::from_utf8_lossy(&shown::MAGIC),
            "words": shown::words(),
        },
    })
}

/// Short names of those who write a word.
fn owners(word: StatusWord) -> Vec<&'static str> {
    match word.owner() {
        Owner::One(role) => vec![role.name()],
        Owner::EachWorker => Role::WORKERS.map(Role::name).to_vec(),
    }
}

/// What a word's values mean, by the name of the type.
fn kind(word: StatusWord) -> &'static str {
    if word == StatusWord::MachineState {
        "MachineState"
    } else if word == StatusWord::WorkerState {
        "WorkerState"
    } else if Role::WORKERS.into_iter().any(|r| StatusWord::peer(r) == word) {
        "PeerState"
    } else {
        ""
    }
}

fn meanings<T: Copy + std::fmt::Debug>(all: &[T], number: fn(T) -> u32) -> BTreeMap<String, String> {
    all.iter()
        .map(|&v| (number(v).to_string(), format!("{v:?}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_every_region_word_and_ring() {
        let table = table();
        let count = |name: &str| table[name].as_array().map_or(0, Vec::len);
        assert_eq!(count("regions"), regions().len());
        assert_eq!(count("status"), StatusWord::ALL.len());
        assert_eq!(count("rings"), RingRegions::all().len());
        assert_eq!(table["layout_hash"].as_u64(), Some(layout_hash()));
        assert_eq!(table["kinds"]["MachineState"]["2"], "Running");
        // It goes into the script between triple quotes, as it is.
        assert!(!table.to_string().contains(['\'', '\\']));
    }
}
