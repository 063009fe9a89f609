use super::*;

impl Driver {
    /// Sends a packet; `dma` as the feature register has it, `limit` bytes for each DRQ.
    fn packet(&mut self, packet: &[u8], limit: u16, dma: bool) {
        self.outb(2, 6, 0xA0);
        self.outb(2, 1, u8::from(dma));
        self.outb(2, 4, limit as u8);
        self.outb(2, 5, (limit >> 8) as u8);
        self.outb(2, 7, 0xA0);
        assert_eq!((self.inb(3, 0) & DRQ, self.inb(2, 2)), (DRQ, 1));
        let mut whole = packet.to_vec();
        whole.resize(12, 0);
        self.put(2, &whole);
        self.settle();
    }

    /// The data that a packet answers, piece by piece as the drive offers it; `Err` is the sense key.
    fn answer(&mut self, packet: &[u8], limit: u16) -> Result<Vec<u8>, u8> {
        self.packet(packet, limit, false);
        let mut data = Vec::new();
        loop {
            self.settle();
            assert!(self.high(1), "no interrupt");
            let status = self.inb(2, 7);
            if status & ERR != 0 {
                return Err(self.inb(2, 1) >> 4);
            }
            if status & DRQ == 0 {
                assert_eq!(self.inb(2, 2), 3);
                return Ok(data);
            }
            assert_eq!(self.inb(2, 2), 2);
            let n = usize::from(self.inb(2, 4)) | usize::from(self.inb(2, 5)) << 8;
            assert!(n > 0 && n <= usize::from(limit), "{n}");
            data.extend(&self.words(2, n.div_ceil(2))[..n]);
        }
    }

    /// Past the attention that follows a reset.
    fn ready(mut self) -> Self {
        assert_eq!(self.answer(&[0], 0xFFFE), Err(6));
        assert_eq!(self.answer(&[0], 0xFFFE), Ok(vec![]));
        self
    }
}

fn sense(d: &mut Driver) -> (u8, u8, u8) {
    let data = d.answer(&[3, 0, 0, 0, 18], 0xFFFE).expect("sense");
    (data[2], data[12], data[13])
}

#[test]
fn a_reset_is_told_once_and_inquiry_does_not_wait_for_that() {
    let mut d = Driver::new();
    let inquiry = d.answer(&[0x12, 0, 0, 0, 36], 0xFFFE).expect("inquiry");
    assert_eq!(
        (inquiry.len(), inquiry[0], &inquiry[8..15]),
        (36, 5, &b"QUINTET"[..])
    );
    assert_eq!(sense(&mut d), (6, 0x29, 0));
    assert_eq!(d.answer(&[0], 0xFFFE), Ok(vec![]));
    assert_eq!(sense(&mut d), (0, 0, 0));
}

#[test]
fn identify_and_what_tells_it_from_a_disk() {
    let mut d = Driver::new();
    d.outb(2, 6, 0xA0);
    d.outb(2, 7, 0xEC);
    assert_eq!(d.inb(2, 7) & ERR, ERR);
    assert_eq!((d.inb(2, 1), d.inb(2, 4), d.inb(2, 5)), (error::ABRT, 0x14, 0xEB));
    d.outb(2, 7, 0xA1);
    let data = d.words(2, 256);
    assert_eq!((data[0], data[1]), (0x80, 0x85));
    assert_eq!(d.inb(2, 7), DRDY | DSC);
    d.outb(2, 7, 0x08);
    assert_eq!((d.inb(2, 5), d.inb(2, 7)), (0xEB, 0));
}

#[test]
fn read_gives_sectors_in_pieces_of_the_hosts_size() {
    for (packet, limit) in [
        (vec![0x28, 0, 0, 0, 0, 100, 0, 0, 9], 0xFFFE),
        (vec![0x28, 0, 0, 0, 0, 100, 0, 0, 9], 2048),
        (vec![0xA8, 0, 0, 0, 0, 100, 0, 0, 0, 9], 1000),
        (vec![0xBE, 0, 0, 0, 0, 100, 0, 0, 9, 0x10], 4096),
    ] {
        let mut d = Driver::new().ready();
        let data = d.answer(&packet, limit).expect("data");
        assert_eq!(data.len(), 9 * 2048);
        for (n, sector) in (400..).zip(data.chunks(512)) {
            assert_eq!(number(sector), n);
        }
    }
}

#[test]
fn raw_sectors_carry_their_address() {
    let mut d = Driver::new().ready();
    let data = d
        .answer(&[0xBE, 0, 0, 0, 0, 10, 0, 0, 2, 0xF8], 0x8000)
        .expect("data");
    assert_eq!(data.len(), 2 * 2352);
    assert_eq!(data[12..16], [0, 2, 0x10, 1]);
    assert_eq!((number(&data[16..]), number(&data[2352 + 16..])), (40, 44));
}

#[test]
fn dma_moves_sectors_and_short_answers() {
    let mut d = Driver::new().ready();
    d.table(&[(0x1_0000, 0x1000)]);
    d.packet(&[0x28, 0, 0, 0, 0, 7, 0, 0, 2], 0, true);
    d.outb(BUS_MASTER, 8, 9);
    d.settle();
    assert!(d.high(1));
    assert_eq!((d.inb(2, 7), d.inb(2, 2)), (DRDY | DSC, 3));
    assert_eq!(number(&d.ram(0x1_0E00, 8)), 35);
    d.outb(BUS_MASTER, 8, 0);
    d.packet(&[0x25], 0, true);
    d.outb(BUS_MASTER, 8, 9);
    assert_eq!(d.ram(0x1_0000, 8), [0, 0, 1, 0x8F, 0, 0, 8, 0]);
    assert_eq!(d.inb(2, 7), DRDY | DSC);
}

#[test]
fn tables_of_contents() {
    let mut d = Driver::new().ready();
    let toc = |d: &mut Driver, packet: &[u8]| d.answer(packet, 0xFFFE);
    assert_eq!(
        toc(&mut d, &[0x43, 0, 0, 0, 0, 0, 0, 0, 64]).expect("toc"),
        [
            0, 18, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0, 0, 0x14, 0xAA, 0, 0, 0, 1, 0x90
        ]
    );
    let msf = toc(&mut d, &[0x43, 2, 0, 0, 0, 0, 0xAA, 0, 64]).expect("toc");
    assert_eq!(msf, [0, 10, 1, 1, 0, 0x14, 0xAA, 0, 0, 0, 7, 25]);
    assert_eq!(
        toc(&mut d, &[0x43, 0, 1, 0, 0, 0, 0, 0, 64]).expect("toc").len(),
        12
    );
    let full = toc(&mut d, &[0x43, 2, 2, 0, 0, 0, 0, 0, 100]).expect("toc");
    assert_eq!((full.len(), full[2], full[7]), (4 + 4 * 11, 1, 0xA0));
    assert_eq!(toc(&mut d, &[0x43, 0, 0, 0, 0, 0, 5, 0, 64]), Err(5));
    assert_eq!(sense(&mut d), (5, 0x24, 0));
    // The allocation length cuts.
    assert_eq!(
        toc(&mut d, &[0x43, 0, 0, 0, 0, 0, 0, 0, 4]).expect("toc"),
        [0, 18, 1, 1]
    );
}

#[test]
fn mode_pages_configuration_and_the_like() {
    let mut d = Driver::new().ready();
    let data = d
        .answer(&[0x5A, 0, 0x2A, 0, 0, 0, 0, 0, 255], 0xFFFE)
        .expect("page");
    assert_eq!((data.len(), data[1], data[2], data[8]), (30, 28, 1, 0x2A));
    let data = d.answer(&[0x1A, 0, 0x01, 0, 255], 0xFFFE).expect("page");
    assert_eq!((data.len(), data[0], data[4]), (12, 11, 1));
    let all = d
        .answer(&[0x5A, 0, 0x3F, 0, 0, 0, 0, 1, 0], 0xFFFE)
        .expect("pages");
    assert_eq!(all.len(), 8 + 8 + 16 + 22);
    assert_eq!(d.answer(&[0x5A, 0, 0x11, 0, 0, 0, 0, 1, 0], 0xFFFE), Err(5));
    let data = d
        .answer(&[0x46, 0, 0, 0, 0, 0, 0, 1, 0], 0xFFFE)
        .expect("features");
    assert_eq!(
        u32::from_be_bytes(data[..4].try_into().expect("four")) as usize + 4,
        data.len()
    );
    assert_eq!(data[6..8], [0, 8], "a CD is in it");
    let event = d
        .answer(&[0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8], 0xFFFE)
        .expect("event");
    assert_eq!(event, [0, 6, 4, 0x10, 0, 2, 0, 0]);
    assert_eq!(d.answer(&[0x4A, 0, 0, 0, 0x10, 0, 0, 0, 8], 0xFFFE), Err(5));
    assert_eq!(
        d.answer(&[0xBD, 0, 0, 0, 0, 0, 0, 0, 0, 8], 0xFFFE)
            .expect("mechanism")
            .len(),
        8
    );
    assert_eq!(
        d.answer(&[0x51, 0, 0, 0, 0, 0, 0, 0, 34], 0xFFFE)
            .expect("disc")
            .len(),
        34
    );
    assert_eq!(
        d.answer(&[0x42, 0, 0, 0, 0, 0, 0, 0, 16], 0xFFFE)
            .expect("sub-channel")
            .len(),
        4
    );
    assert_eq!(d.answer(&[0x2B, 0, 0, 0, 1, 0x8F], 0xFFFE), Ok(vec![]));
    assert_eq!(d.answer(&[0x2B, 0, 0, 0, 1, 0x90], 0xFFFE), Err(5));
    assert_eq!(d.answer(&[0x55], 0xFFFE), Err(5));
    assert_eq!(sense(&mut d), (5, 0x20, 0));
}

#[test]
fn what_lies_past_the_end_and_what_cannot_be_read() {
    let mut d = Driver::new().ready();
    assert_eq!(d.answer(&[0x28, 0, 0, 0, 1, 0x8F, 0, 0, 2], 0xFFFE), Err(5));
    assert_eq!(sense(&mut d), (5, 0x21, 0));
    assert_eq!(d.answer(&[0x28, 0, 0, 0, 1, 0x90, 0, 0, 0], 0xFFFE), Ok(vec![]));
    d.cd.0.lock().expect("whole").bad = Some(81);
    assert_eq!(d.answer(&[0x28, 0, 0, 0, 0, 20, 0, 0, 1], 0xFFFE), Err(3));
    assert_eq!(sense(&mut d), (3, 0x11, 0));
}

#[test]
fn the_tray_opens_unless_locked_and_closing_it_is_a_change_of_medium() {
    let mut d = Driver::new().ready();
    assert_eq!(d.answer(&[0x1E, 0, 0, 0, 1], 0xFFFE), Ok(vec![]));
    assert_eq!(d.answer(&[0x1B, 0, 0, 0, 2], 0xFFFE), Err(5));
    assert_eq!(sense(&mut d), (5, 0x53, 2));
    assert_eq!(d.answer(&[0x1E, 0, 0, 0, 0], 0xFFFE), Ok(vec![]));
    assert_eq!(d.answer(&[0x1B, 0, 0, 0, 2], 0xFFFE), Ok(vec![]));
    assert_eq!(d.answer(&[0x28, 0, 0, 0, 0, 0, 0, 0, 1], 0xFFFE), Err(2));
    assert_eq!(sense(&mut d), (2, 0x3A, 0));
    let event = |d: &mut Driver| {
        d.answer(&[0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8], 0xFFFE)
            .expect("event")
    };
    assert_eq!(event(&mut d)[4..6], [3, 1]);
    assert_eq!(d.answer(&[0x1B, 0, 0, 0, 3], 0xFFFE), Ok(vec![]));
    assert_eq!(event(&mut d)[4..6], [2, 2]);
    assert_eq!(d.answer(&[0], 0xFFFE), Err(6));
    assert_eq!(sense(&mut d), (6, 0x28, 0));
    assert_eq!(d.answer(&[0], 0xFFFE), Ok(vec![]));
}

/// A successor of the driver's controller that finds another disc of so many sectors in its CD-ROM drive, or none.
fn exchanged(d: &mut Driver, sectors: u64) {
    let state = saved(&d.ide);
    d.image = MemoryImage::numbered(DISK);
    d.cd = MemoryImage::numbered(sectors * 4);
    let mut cd = config(&mut d.bench, &d.cd, DriveKind::Cdrom);
    cd.medium = d.ide.channels[1].drives[0].as_ref().expect("a drive").medium + 1;
    let disk = config(&mut d.bench, &d.image, DriveKind::Disk);
    d.ide = PiixIde::new(&mut d.bench.irq, [Some(disk), None, Some(cd), None]);
    d.ide.load(VERSION, &state).expect("loads");
    d.ide.start(&mut d.bench.backplane());
    d.settle();
}

#[test]
fn another_disc_is_told_once_and_what_was_being_read_has_failed() {
    for (there, failed) in [(20, 6), (0, 2)] {
        let mut d = Driver::new().ready();
        // More than the drive keeps; the host has read a sector of it.
        d.packet(&[0x28, 0, 0, 0, 0, 200, 0, 0, 100], 2048, false);
        assert_eq!(d.inb(2, 7) & DRQ, DRQ);
        d.words(2, 1024);
        exchanged(&mut d, there);
        assert!(d.high(1), "an interrupt");
        assert_eq!((d.inb(2, 7) & ERR, d.inb(2, 1) >> 4), (ERR, failed));
        let event = d
            .answer(&[0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8], 0xFFFE)
            .expect("event");
        match there {
            0 => assert_eq!(event[4..6], [3, 1], "gone, and the tray is open"),
            _ => assert_eq!(event[4..6], [2, 2], "another disc"),
        }
        if there == 0 {
            assert_eq!(d.answer(&[0], 0xFFFE), Err(2));
            exchanged(&mut d, 20);
        }
        assert_eq!(d.answer(&[0], 0xFFFE), Err(6));
        assert_eq!(sense(&mut d), (6, 0x28, 0));
        assert_eq!(d.answer(&[0], 0xFFFE), Ok(vec![]));
        let capacity = d.answer(&[0x25], 0xFFFE).expect("capacity");
        assert_eq!(capacity[..4], 19_u32.to_be_bytes());
    }
}

#[test]
fn what_does_not_come_from_the_disc_outlives_it() {
    let mut d = Driver::new().ready();
    d.packet(&[0x12, 0, 0, 0, 36], 0xFFFE, false);
    exchanged(&mut d, 0);
    assert_eq!(d.inb(2, 7) & (DRQ | ERR), DRQ);
    assert_eq!(&d.words(2, 18)[8..15], b"QUINTET");
}
