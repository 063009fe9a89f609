//! A CD-ROM image with one file in its root: ISO 9660, level 1, as small as Linux takes it.

const SECTOR: usize = 2048;
/// Sectors: 16 descriptor, 17 terminator, 18 and 19 path tables, 20 root, 21 the file.
const ROOT: u32 = 20;
const FILE: u32 = 21;

fn both32(value: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&value.to_le_bytes());
    bytes[4..].copy_from_slice(&value.to_be_bytes());
    bytes
}

fn both16(value: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (value.to_le_bytes(), value.to_be_bytes());
    [a, b, c, d]
}

fn record(name: &[u8], sector: u32, len: u32, directory: bool) -> Vec<u8> {
    let size = (33 + name.len()).next_multiple_of(2);
    let mut r = vec![0; size];
    r[0] = size as u8;
    r[2..10].copy_from_slice(&both32(sector));
    r[10..18].copy_from_slice(&both32(len));
    // The first of January 2000.
    r[18..25].copy_from_slice(&[100, 1, 1, 0, 0, 0, 0]);
    r[25] = u8::from(directory) << 1;
    r[28..32].copy_from_slice(&both16(1));
    r[32] = name.len() as u8;
    r[33..33 + name.len()].copy_from_slice(name);
    r
}

/// An image with `contents` as the file `DATA.BIN`.
pub fn iso(contents: &[u8]) -> Vec<u8> {
    let sectors = FILE as usize + contents.len().div_ceil(SECTOR);
    let mut image = vec![0; sectors * SECTOR];
    let root = record(&[0], ROOT, SECTOR as u32, true);
    {
        let d = &mut image[16 * SECTOR..17 * SECTOR];
        d[..7].copy_from_slice(b"\x01CD001\x01");
        d[8..72].fill(b' ');
        d[40..47].copy_from_slice(b"QUINTET");
        d[80..88].copy_from_slice(&both32(sectors as u32));
        d[120..124].copy_from_slice(&both16(1));
        d[124..128].copy_from_slice(&both16(1));
        d[128..132].copy_from_slice(&both16(SECTOR as u16));
        d[132..140].copy_from_slice(&both32(10));
        d[140..144].copy_from_slice(&18_u32.to_le_bytes());
        d[148..152].copy_from_slice(&19_u32.to_be_bytes());
        d[156..190].copy_from_slice(&root);
        d[190..813].fill(b' ');
        d[881] = 1;
    }
    image[17 * SECTOR..][..7].copy_from_slice(b"\xFFCD001\x01");
    for (table, place) in [(18, ROOT.to_le_bytes()), (19, ROOT.to_be_bytes())] {
        let t = &mut image[table * SECTOR..];
        t[0] = 1;
        t[2..6].copy_from_slice(&place);
        t[if table == 18 { 6 } else { 7 }] = 1;
    }
    let entries = [
        root,
        record(&[1], ROOT, SECTOR as u32, true),
        record(b"DATA.BIN;1", FILE, contents.len() as u32, false),
    ]
    .concat();
    image[ROOT as usize * SECTOR..][..entries.len()].copy_from_slice(&entries);
    image[FILE as usize * SECTOR..][..contents.len()].copy_from_slice(contents);
    image
}
