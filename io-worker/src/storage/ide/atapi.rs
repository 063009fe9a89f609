//! A CD-ROM drive: the PACKET command and its protocol (ATA/ATAPI-6, 9.8 and 9.9), and the packets that move or
//! change something (MMC-3; SPC-2). What packets answer about disc and drive is in [`super::disc`].

use serde::{Deserialize, Serialize};

use super::drive::{Cable, Drive, DriveKind, Phase, Run, error, status};
use super::transfer::CD_BLOCK;

/// Bytes of a packet.
pub(super) const PACKET_LEN: u32 = 12;
/// Interrupt reason, in the count register: a command or status rather than data.
const COD: u8 = 1;
/// Interrupt reason: towards the host.
const IO: u8 = 2;

/// Sense key, additional sense code and its qualifier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sense(pub(super) u8, pub(super) u8, pub(super) u8);

const NO_SENSE: Sense = Sense(0, 0, 0);
const NO_MEDIUM: Sense = Sense(2, 0x3A, 0);
pub(super) const UNRECOVERED: Sense = Sense(3, 0x11, 0);
const ILLEGAL_OPCODE: Sense = Sense(5, 0x20, 0);
const OUT_OF_RANGE: Sense = Sense(5, 0x21, 0);
pub(super) const INVALID_FIELD: Sense = Sense(5, 0x24, 0);
const REMOVAL_PREVENTED: Sense = Sense(5, 0x53, 2);
const MEDIUM_CHANGED: Sense = Sense(6, 0x28, 0);
const WAS_RESET: Sense = Sense(6, 0x29, 0);

/// Events of the medium, for GET EVENT STATUS NOTIFICATION.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum MediaEvent {
    #[default]
    None,
    NewMedia,
    Removal,
}

/// What is committed of the packet side of a drive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Packet {
    /// A packet is being executed: its end has an interrupt of its own.
    pub(super) running: bool,
    /// Its data goes through the bus master.
    pub(super) dma: bool,
    /// Most bytes for each DRQ.
    limit: u16,
    pub(super) sense: Sense,
    /// Something the host has not been told yet.
    attention: Option<Sense>,
    pub(super) event: MediaEvent,
    pub(super) tray_open: bool,
    pub(super) locked: bool,
    /// [`super::DriveConfig::medium`] of the disc that this is about.
    pub(super) medium: u32,
}

impl Packet {
    pub(super) fn after_reset(medium: u32) -> Self {
        Self {
            attention: Some(WAS_RESET),
            medium,
            ..Self::default()
        }
    }
}

/// A packet as it was written.
pub(super) type Cdb = [u8; PACKET_LEN as usize];

pub(super) fn be16(bytes: &[u8]) -> u32 {
    u32::from(bytes[0]) << 8 | u32::from(bytes[1])
}

fn be32(bytes: &[u8]) -> u32 {
    be16(bytes) << 16 | be16(&bytes[2..])
}

impl Drive {
    pub(super) fn packet_drive_command(&mut self, cable: &mut Cable<'_, '_>, command: u8) {
        match command {
            0xA0 => self.packet_command(cable),
            0xA1 => {
                self.buffer = self.identify();
                self.offer(cable);
            }
            // READ SECTORS and IDENTIFY DEVICE: how a host finds out that this is no disk.
            0x20 | 0xEC => {
                self.set_signature();
                self.fail(cable, error::ABRT);
            }
            _ => self.common_command(cable, command),
        }
    }

    fn packet_command(&mut self, cable: &mut Cable<'_, '_>) {
        let t = &mut self.s.task;
        if t.feature[0] & 2 != 0 {
            // Overlapped: not offered.
            return self.fail(cable, error::ABRT);
        }
        self.s.packet.dma = t.feature[0] & 1 != 0;
        let asked = u16::from(t.mid[0]) | u16::from(t.high[0]) << 8;
        self.s.packet.limit = match asked {
            0 | 0xFFFF => 0xFFFE,
            n => n,
        };
        t.count[0] = COD;
        t.status = status::DRDY | status::DSC | status::DRQ;
        self.s.packet.running = true;
        self.s.phase = Phase::Packet;
        self.s.drq = PACKET_LEN;
        self.buffer.clear();
    }

    /// Bytes of the next DRQ, told to the host in the byte count registers.
    pub(super) fn packet_chunk(&mut self) -> u32 {
        let (left, limit) = (self.buffer.len() as u32, u32::from(self.s.packet.limit));
        // An odd limit counts only where it is the end.
        let n = if left <= limit {
            left
        } else {
            (limit & !1).max(2).min(left)
        };
        let t = &mut self.s.task;
        (t.mid[0], t.high[0]) = (n as u8, (n >> 8) as u8);
        t.count[0] = IO;
        n
    }

    /// The packet is done.
    pub(super) fn packet_done(&mut self, cable: &mut Cable<'_, '_>) {
        self.s.packet.sense = NO_SENSE;
        self.s.packet.running = false;
        self.succeed(cable);
        self.s.task.count[0] = COD | IO;
    }

    /// The packet has failed, as REQUEST SENSE will tell.
    pub(super) fn packet_failed(&mut self, cable: &mut Cable<'_, '_>, sense: Sense) {
        self.s.packet.sense = sense;
        self.s.packet.running = false;
        self.fail(cable, sense.0 << 4 | if sense.0 == 5 { error::ABRT } else { 0 });
        self.s.task.count[0] = COD | IO;
    }

    /// Answers `data`, at most `most` bytes of it.
    fn answer(&mut self, cable: &mut Cable<'_, '_>, mut data: Vec<u8>, most: u32) {
        data.truncate(most as usize);
        self.buffer = data;
        if self.buffer.is_empty() {
            self.packet_done(cable);
        } else if self.s.packet.dma {
            self.begin_dma(cable);
        } else {
            self.offer(cable);
        }
    }

    /// Whether there is a disc in the drive.
    pub(super) fn has_disc(&self) -> bool {
        self.total > 0 && !self.s.packet.tray_open
    }

    /// The predecessor had another disc: the host is told when it asks, and what was being read has failed.
    pub(super) fn change_disc(&mut self, cable: &mut Cable<'_, '_>) {
        let there = self.total > 0;
        let packet = &mut self.s.packet;
        (packet.medium, packet.tray_open) = (self.medium, !there);
        packet.event = MediaEvent::Removal;
        if there {
            packet.event = MediaEvent::NewMedia;
            packet.attention = Some(MEDIUM_CHANGED);
        }
        if packet.running && self.s.run.left > 0 {
            self.packet_failed(cable, if there { MEDIUM_CHANGED } else { NO_MEDIUM });
        }
    }

    pub(super) fn execute_packet(&mut self, cable: &mut Cable<'_, '_>) {
        let mut cdb = Cdb::default();
        cdb.copy_from_slice(&self.buffer);
        self.buffer.clear();
        self.s.phase = Phase::Idle;
        // INQUIRY, REQUEST SENSE, GET CONFIGURATION and GET EVENT STATUS tell what they tell in any state.
        let always = matches!(cdb[0], 0x03 | 0x12 | 0x46 | 0x4A);
        if !always && let Some(sense) = self.s.packet.attention.take() {
            return self.packet_failed(cable, sense);
        }
        let needs_disc = matches!(
            cdb[0],
            0x00 | 0x25 | 0x28 | 0x2B | 0x42 | 0x43 | 0x44 | 0x51 | 0xA8 | 0xAD | 0xB9 | 0xBE
        );
        if needs_disc && !self.has_disc() {
            return self.packet_failed(cable, NO_MEDIUM);
        }
        match cdb[0] {
            // TEST UNIT READY.
            0x00 => self.packet_done(cable),
            0x03 => self.request_sense(cable, &cdb),
            0x12 => self.answer(cable, self.inquiry(), u32::from(cdb[4])),
            0x1A => match self.mode_sense(&cdb, true) {
                Ok(data) => self.answer(cable, data, u32::from(cdb[4])),
                Err(sense) => self.packet_failed(cable, sense),
            },
            0x1B => self.start_stop(cable, &cdb),
            // PREVENT ALLOW MEDIUM REMOVAL.
            0x1E => {
                self.s.packet.locked = cdb[4] & 1 != 0;
                self.packet_done(cable);
            }
            // READ CAPACITY.
            0x25 => {
                let mut data = (self.total as u32 - 1).to_be_bytes().to_vec();
                data.extend(2048_u32.to_be_bytes());
                self.answer(cable, data, 8);
            }
            0x28 => self.read(cable, be32(&cdb[2..]), be16(&cdb[7..]), false),
            0xA8 => self.read(cable, be32(&cdb[2..]), be32(&cdb[6..]), false),
            // SEEK.
            0x2B => {
                if u64::from(be32(&cdb[2..])) < self.total {
                    self.packet_done(cable);
                } else {
                    self.packet_failed(cable, OUT_OF_RANGE);
                }
            }
            0x42 => self.answer(cable, self.sub_channel(), be16(&cdb[7..])),
            0x43 => match self.table_of_contents(&cdb) {
                Ok(data) => self.answer(cable, data, be16(&cdb[7..])),
                Err(sense) => self.packet_failed(cable, sense),
            },
            0x46 => self.answer(cable, self.configuration(&cdb), be16(&cdb[7..])),
            0x4A => self.event_status(cable, &cdb),
            0x51 => self.answer(cable, self.disc_information(), be16(&cdb[7..])),
            0x5A => match self.mode_sense(&cdb, false) {
                Ok(data) => self.answer(cable, data, be16(&cdb[7..])),
                Err(sense) => self.packet_failed(cable, sense),
            },
            // SET CD SPEED.
            0xBB => self.packet_done(cable),
            0xBD => self.answer(cable, self.mechanism_status(), be16(&cdb[8..])),
            0xBE => self.read_cd(cable, &cdb),
            _ => self.packet_failed(cable, ILLEGAL_OPCODE),
        }
    }

    fn request_sense(&mut self, cable: &mut Cable<'_, '_>, cdb: &Cdb) {
        let told = self.s.packet.attention.take();
        let Sense(key, code, qualifier) = told.unwrap_or(self.s.packet.sense);
        let mut data = vec![0; 18];
        (data[0], data[2], data[7], data[12], data[13]) = (0xF0, key, 10, code, qualifier);
        self.answer(cable, data, u32::from(cdb[4]));
    }

    fn read(&mut self, cable: &mut Cable<'_, '_>, lba: u32, left: u32, raw: bool) {
        if u64::from(lba) + u64::from(left) > self.total {
            return self.packet_failed(cable, OUT_OF_RANGE);
        }
        if left == 0 {
            return self.packet_done(cable);
        }
        self.s.run = Run {
            lba: u64::from(lba),
            left,
            block: CD_BLOCK,
            raw,
            ..Run::default()
        };
        if self.s.packet.dma {
            self.begin_dma(cable);
        } else {
            self.begin_pio(cable);
        }
    }

    /// READ CD: data sectors only, with or without what surrounds them.
    fn read_cd(&mut self, cable: &mut Cable<'_, '_>, cdb: &Cdb) {
        let (lba, left) = (be32(&cdb[2..]), be32(&cdb[5..]) & 0xFF_FFFF);
        match cdb[9] & 0xF8 {
            0x00 => self.packet_done(cable),
            0x10 => self.read(cable, lba, left, false),
            0xF8 => self.read(cable, lba, left, true),
            _ => self.packet_failed(cable, INVALID_FIELD),
        }
    }

    /// What the disk gave, as the host wants it: mode-1 sectors, without their correction codes, when raw.
    pub(super) fn as_asked(&self, data: Vec<u8>) -> Vec<u8> {
        if self.kind == DriveKind::Disk || !self.s.run.raw {
            return data;
        }
        let mut whole = Vec::with_capacity(data.len() / 2048 * 2352);
        for (lba, sector) in (self.s.run.lba..).zip(data.chunks_exact(2048)) {
            whole.push(0);
            whole.extend([0xFF; 10]);
            whole.push(0);
            let bcd = |n: u64| (n / 10 % 10 * 16 + n % 10) as u8;
            let frames = lba + 150;
            whole.extend([bcd(frames / 75 / 60), bcd(frames / 75 % 60), bcd(frames % 75), 1]);
            whole.extend(sector);
            whole.extend([0; 288]);
        }
        whole
    }

    /// START STOP UNIT: with bit 1, the tray.
    fn start_stop(&mut self, cable: &mut Cable<'_, '_>, cdb: &Cdb) {
        let (start, tray) = (cdb[4] & 1 != 0, cdb[4] & 2 != 0);
        if !tray {
            return self.packet_done(cable);
        }
        let packet = &mut self.s.packet;
        if !start && packet.locked && !packet.tray_open {
            return self.packet_failed(cable, REMOVAL_PREVENTED);
        }
        let open = !start;
        if packet.tray_open != open {
            packet.tray_open = open;
            if open {
                packet.event = MediaEvent::Removal;
            } else if self.total > 0 {
                packet.event = MediaEvent::NewMedia;
                packet.attention = Some(MEDIUM_CHANGED);
            }
        }
        self.packet_done(cable);
    }

    /// GET EVENT STATUS NOTIFICATION: polled, of the medium.
    fn event_status(&mut self, cable: &mut Cable<'_, '_>, cdb: &Cdb) {
        const MEDIA: u8 = 4;
        if cdb[1] & 1 == 0 {
            return self.packet_failed(cable, INVALID_FIELD);
        }
        let supported = 1 << MEDIA;
        let data = if cdb[4] & supported == 0 {
            vec![0, 2, 0x80, supported]
        } else {
            let code = match std::mem::take(&mut self.s.packet.event) {
                MediaEvent::None => 0,
                MediaEvent::NewMedia => 2,
                MediaEvent::Removal => 3,
            };
            let state = u8::from(self.s.packet.tray_open) | u8::from(self.has_disc()) << 1;
            vec![0, 6, MEDIA, supported, code, state, 0, 0]
        };
        self.answer(cable, data, be16(&cdb[7..]));
    }
}
