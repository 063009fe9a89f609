//! What a CD-ROM drive tells of itself and of its disc: one session with one track of data (MMC-3, clause 6).

use super::atapi::{Cdb, INVALID_FIELD, Sense};
use super::drive::Drive;

/// More sectors than that are a DVD's.
const CD_SECTORS: u64 = 80 * 60 * 75;
/// Profiles of feature 0.
const CD_ROM: u16 = 0x08;
const DVD_ROM: u16 = 0x10;
/// Number of the track behind the last.
const LEAD_OUT: u8 = 0xAA;
/// A track of data that may not be copied: ADR 1, control 4.
const DATA_TRACK: u8 = 0x14;

/// An address as the host wants it: minute, second, frame, or the sector's number.
fn address(msf: bool, lba: u64) -> [u8; 4] {
    if msf {
        let frames = lba + 150;
        [
            0,
            (frames / 75 / 60) as u8,
            (frames / 75 % 60) as u8,
            (frames % 75) as u8,
        ]
    } else {
        (lba as u32).to_be_bytes()
    }
}

/// Puts the length of what follows in front.
fn with_length(rest: &[u8]) -> Vec<u8> {
    let mut data = (rest.len() as u16).to_be_bytes().to_vec();
    data.extend(rest);
    data
}

impl Drive {
    pub(super) fn inquiry(&self) -> Vec<u8> {
        let mut data = vec![0x05, 0x80, 0, 0x21, 31, 0, 0, 0];
        data.extend(b"QUINTET ");
        data.extend(b"DVD-ROM         ");
        data.extend(b"1.0 ");
        data
    }

    pub(super) fn table_of_contents(&self, cdb: &Cdb) -> Result<Vec<u8>, Sense> {
        let msf = cdb[1] & 2 != 0;
        // Old drivers name the format in the last byte.
        let format = match cdb[2] & 0xF {
            0 => cdb[9] >> 6,
            n => n,
        };
        let start = cdb[6];
        match format {
            0 => {
                if start > 1 && start != LEAD_OUT {
                    return Err(INVALID_FIELD);
                }
                let mut rest = vec![1, 1];
                if start <= 1 {
                    rest.extend([0, DATA_TRACK, 1, 0]);
                    rest.extend(address(msf, 0));
                }
                rest.extend([0, DATA_TRACK, LEAD_OUT, 0]);
                rest.extend(address(msf, self.total));
                Ok(with_length(&rest))
            }
            // Sessions.
            1 => {
                let mut rest = vec![1, 1, 0, DATA_TRACK, 1, 0];
                rest.extend(address(msf, 0));
                Ok(with_length(&rest))
            }
            // The whole lead-in.
            2 => {
                let mut rest = vec![1, 1];
                let mut point = |point: u8, place: [u8; 4]| {
                    rest.extend([1, DATA_TRACK, 0, point, 0, 0, 0]);
                    rest.extend(place);
                };
                point(0xA0, [0, 1, 0, 0]);
                point(0xA1, [0, 1, 0, 0]);
                point(0xA2, address(true, self.total));
                point(1, address(true, 0));
                Ok(with_length(&rest))
            }
            _ => Err(INVALID_FIELD),
        }
    }

    /// READ SUB-CHANNEL: no audio is being played.
    pub(super) fn sub_channel(&self) -> Vec<u8> {
        vec![0, 0x15, 0, 0]
    }

    fn profile(&self) -> u16 {
        match self.total {
            _ if !self.has_disc() => 0,
            0..=CD_SECTORS => CD_ROM,
            _ => DVD_ROM,
        }
    }

    /// GET CONFIGURATION: features from the asked number on, or one alone.
    pub(super) fn configuration(&self, cdb: &Cdb) -> Vec<u8> {
        let (kind, first) = (cdb[1] & 3, u16::from(cdb[2]) << 8 | u16::from(cdb[3]));
        let current = self.profile();
        let is = |profile: u16| u8::from(current == profile);
        let [dvd_high, dvd_low] = DVD_ROM.to_be_bytes();
        let [cd_high, cd_low] = CD_ROM.to_be_bytes();
        // Number, version and persistence, contents.
        let features: [(u16, u8, Vec<u8>); 5] = [
            (
                0x0000,
                0x03,
                vec![dvd_high, dvd_low, is(DVD_ROM), 0, cd_high, cd_low, is(CD_ROM), 0],
            ),
            // Core: ATAPI, with the bit for block events.
            (0x0001, 0x0B, vec![0, 0, 0, 2, 1, 0, 0, 0]),
            // Removable medium in a tray that can be ejected and locked.
            (0x0003, 0x03, vec![0x29, 0, 0, 0]),
            // Random reading in sectors of 2048 bytes.
            (0x0010, is(DVD_ROM) | is(CD_ROM), vec![0, 0, 8, 0, 0, 1, 0, 0]),
            (0x001E, is(CD_ROM) | 0x08, vec![0, 0, 0, 0]),
        ];
        let mut rest = vec![0, 0];
        rest.extend(current.to_be_bytes());
        for (number, flags, contents) in &features {
            let wanted = match kind {
                2 => *number == first,
                1 => *number >= first && flags & 1 != 0,
                _ => *number >= first,
            };
            if wanted {
                rest.extend(number.to_be_bytes());
                rest.extend([*flags, contents.len() as u8]);
                rest.extend(contents);
            }
        }
        let mut data = (rest.len() as u32).to_be_bytes().to_vec();
        data.extend(rest);
        data
    }

    /// READ DISC INFORMATION: a finished disc with one session.
    pub(super) fn disc_information(&self) -> Vec<u8> {
        let mut data = vec![0; 34];
        data[1] = 32;
        data[2] = 0x0E;
        (data[3], data[4], data[5], data[6]) = (1, 1, 1, 1);
        data[7] = 0x20;
        data
    }

    pub(super) fn mechanism_status(&self) -> Vec<u8> {
        vec![0, u8::from(self.s.packet.tray_open) << 4, 0, 0, 0, 0, 0, 0]
    }

    /// MODE SENSE of 6 or 10 bytes: error recovery, audio control, capabilities.
    pub(super) fn mode_sense(&self, cdb: &Cdb, short: bool) -> Result<Vec<u8>, Sense> {
        const ERROR_RECOVERY: &[u8] = &[0x01, 6, 0, 5, 0, 0, 0, 0];
        const AUDIO: &[u8] = &[0x0E, 14, 4, 0, 0, 0, 0, 0, 1, 0xFF, 2, 0xFF, 0, 0, 0, 0];
        let mut capabilities = vec![0; 22];
        (capabilities[0], capabilities[1]) = (0x2A, 20);
        // Reads CD-R, CD-RW and DVD-ROM; multi-session; can lock and eject a tray.
        (capabilities[2], capabilities[4], capabilities[6]) = (0x3B, 0x70, 0x29);
        capabilities[6] |= u8::from(self.s.packet.locked) << 1;
        // 50 times 176 KiB/s, a buffer of 512 KiB.
        let speed = (50 * 176_u16).to_be_bytes();
        capabilities[8..10].copy_from_slice(&speed);
        capabilities[12..14].copy_from_slice(&512_u16.to_be_bytes());
        capabilities[14..16].copy_from_slice(&speed);
        // Saved values: there are none.
        if cdb[2] >> 6 == 3 {
            return Err(Sense(5, 0x39, 0));
        }
        let mut pages = match cdb[2] & 0x3F {
            0x01 => ERROR_RECOVERY.to_vec(),
            0x0E => AUDIO.to_vec(),
            0x2A => capabilities,
            0x3F => [ERROR_RECOVERY, AUDIO, &capabilities].concat(),
            _ => return Err(INVALID_FIELD),
        };
        // What can be changed: nothing.
        if cdb[2] >> 6 == 1 {
            let mut at = 0;
            while at + 2 <= pages.len() {
                let end = (at + 2 + usize::from(pages[at + 1])).min(pages.len());
                pages[at + 2..end].fill(0);
                at = end;
            }
        }
        let medium = match self.has_disc() {
            true => 0x01,
            false => 0x70,
        };
        let mut data = if short {
            vec![(pages.len() + 3) as u8, medium, 0, 0]
        } else {
            let [high, low] = ((pages.len() + 6) as u16).to_be_bytes();
            vec![high, low, medium, 0, 0, 0, 0, 0]
        };
        data.append(&mut pages);
        Ok(data)
    }
}
