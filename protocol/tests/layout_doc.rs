//! The layout table in `docs/protocol.md` is the layout in the code (S3.110).
#![cfg(not(loom))]

use std::fmt::Write as _;

use quintet_protocol::handshake::files::{HEAD_LEN, file_len};
use quintet_protocol::handshake::{FileId, Role};
use quintet_protocol::layout::{Region, regions};
use quintet_protocol::message::{Command, DecodeError, Event};
use quintet_protocol::ram::RamLayout;

const BEGIN: &str = "<!-- layout: begin; QUINTET_BLESS=1 cargo test -p protocol --test layout_doc -->\n";
const END: &str = "<!-- layout: end -->";

/// The copies of a region as one row: first offset, distance, number.
fn rows(file: FileId) -> Vec<(Region, usize, usize)> {
    let mut rows: Vec<(Region, usize, usize)> = Vec::new();
    for region in regions().into_iter().filter(|r| r.file == file) {
        match rows.iter_mut().find(|(first, ..)| first.name == region.name) {
            Some((first, stride, count)) => {
                *stride = (region.offset - first.offset) / (region.index - first.index);
                *count += 1;
            }
            None => rows.push((region, 0, 1)),
        }
    }
    rows
}

fn writers(file: FileId) -> String {
    let names: Vec<_> = Role::ALL
        .into_iter()
        .filter(|r| file.writable_by(*r))
        .map(Role::name)
        .collect();
    if names.len() == Role::ALL.len() {
        "everyone".into()
    } else {
        names.join(", ")
    }
}

fn table() -> String {
    let mut out =
        String::from("| file | written by | region | offset | bytes | copies |\n|---|---|---|---|---|---|\n");
    for file in FileId::every() {
        let name = file.file_name();
        let guests = match file {
            FileId::GuestRam => Some("guest RAM"),
            FileId::Memory(_) => Some("a further memory of a module"),
            _ => None,
        };
        if let Some(what) = guests {
            let writers = writers(file);
            writeln!(out, "| `{name}` | {writers} | {what} | 0 | by `--ram` | 1 |").unwrap();
            continue;
        }
        let len = file_len(file, RamLayout::new(0)) as usize - HEAD_LEN;
        writeln!(
            out,
            "| `{name}` | {} | *the whole file* | | {len:#x} | |",
            writers(file)
        )
        .unwrap();
        for (r, stride, count) in rows(file) {
            let copies = if count == 1 {
                "1".to_owned()
            } else {
                format!("{count}, every {stride:#x}")
            };
            writeln!(
                out,
                "| | | {} | {:#x} | {:#x} | {copies} |",
                r.name, r.offset, r.len
            )
            .unwrap();
        }
    }
    out
}

#[test]
fn s3_42_s3_110_the_layout_table_in_the_documentation_is_the_layout() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/protocol.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the begin marker");
    let (documented, after) = rest.split_once(END).expect("the end marker");
    if std::env::var_os("QUINTET_BLESS").is_some() {
        std::fs::write(path, format!("{before}{BEGIN}{}{END}{after}", table())).unwrap();
        return;
    }
    assert!(
        documented == table(),
        "docs/protocol.md differs from the code; bless it after review"
    );
}

#[test]
fn every_message_tag_stands_in_the_documentation() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/protocol.md")).unwrap();
    let (_, text) = text.split_once("## 4. Messages").expect("the section");
    let command = |n: u16| Command::decode(&n.to_le_bytes()).map(|_| ());
    let event = |n: u16| Event::decode(&n.to_le_bytes()).map(|_| ());
    for tag in 0..=u16::MAX {
        let known = !matches!(command(tag), Err(DecodeError::UnknownTag { .. }))
            || !matches!(event(tag), Err(DecodeError::UnknownTag { .. }));
        let row = format!("| {tag:#06x} |");
        assert_eq!(text.contains(&row), known, "tag {tag:#06x}");
    }
}
