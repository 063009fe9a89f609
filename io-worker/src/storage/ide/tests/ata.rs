use super::*;

fn word(bytes: &[u8], n: usize) -> u16 {
    u16::from_le_bytes([bytes[2 * n], bytes[2 * n + 1]])
}

fn identify(d: &mut Driver) -> Vec<u8> {
    d.command(0xEC, 0, 0);
    assert_eq!(d.interrupt(), DRDY | DSC | DRQ);
    let data = d.words(0, 256);
    assert_eq!(d.alt(), DRDY | DSC);
    data
}

#[test]
fn identify_tells_size_name_and_checksum() {
    let mut d = Driver::new();
    let data = identify(&mut d);
    let lba28 = u32::from(word(&data, 60)) | u32::from(word(&data, 61)) << 16;
    assert_eq!(u64::from(lba28), DISK);
    assert_eq!(
        u64::from(word(&data, 100)) | u64::from(word(&data, 101)) << 16,
        DISK
    );
    let model: Vec<u8> = data[54..94].chunks(2).flat_map(|p| [p[1], p[0]]).collect();
    assert_eq!(String::from_utf8_lossy(&model).trim_end(), "QUINTET HARDDISK");
    assert_eq!(data.iter().fold(0_u8, |sum, b| sum.wrapping_add(*b)), 0);
    assert_eq!((word(&data, 1), word(&data, 3), word(&data, 6)), (198, 16, 63));
}

#[test]
fn read_sectors_gives_each_with_an_interrupt() {
    let mut d = Driver::new();
    d.command(0x20, 1000, 3);
    for n in 1000..1003 {
        assert_eq!(d.interrupt(), DRDY | DSC | DRQ);
        assert_eq!(number(&d.words(0, 256)), n);
    }
    d.settle();
    assert_eq!((d.alt(), d.edges(0)), (DRDY | DSC, 3));
    assert_eq!((d.inb(0, 2), d.inb(0, 3)), (0, (1003 & 0xFF) as u8));
}

#[test]
fn a_count_of_zero_is_256() {
    let mut d = Driver::new();
    d.command(0x20, 0, 0);
    for n in 0..256 {
        d.interrupt();
        assert_eq!(number(&d.words(0, 256)), n);
    }
    assert_eq!(d.alt(), DRDY | DSC);
}

#[test]
fn doublewords_read_as_two_words() {
    let mut d = Driver::new();
    d.command(0x20, 0x1_0203, 1);
    let value = d.bench.read(&mut d.ide, 0, 0, Size::DWORD);
    assert_eq!(value, 0x1_0203);
    assert_eq!(d.bench.read(&mut d.ide, 0, 0, Size::BYTE), 0xFF);
    d.words(0, 254);
    assert_eq!(d.alt(), DRDY | DSC);
}

#[test]
fn write_sectors_asks_for_each_and_interrupts_when_it_is_stored() {
    let mut d = Driver::new();
    d.command(0x30, 50, 2);
    assert_eq!((d.alt(), d.edges(0)), (DRDY | DSC | DRQ, 0));
    d.put(0, &[1; 512]);
    assert_eq!(d.alt() & BSY, BSY);
    assert_eq!(d.interrupt(), DRDY | DSC | DRQ);
    assert_eq!(d.image.sector(50), [1; 512]);
    d.put(0, &[2; 512]);
    assert_eq!(d.interrupt(), DRDY | DSC);
    assert_eq!(
        (d.image.sector(51), number(&d.image.sector(52))),
        (vec![2; 512], 52)
    );
}

#[test]
fn wide_commands_take_their_upper_halves_from_the_writes_before() {
    let mut d = Driver::new();
    d.wide(0x24, 0x2_0001, 0x101);
    for n in 0..0x101 {
        d.interrupt();
        assert_eq!(number(&d.words(0, 256)), 0x2_0001 + n);
    }
    assert_eq!(d.alt(), DRDY | DSC);
    d.wide(0x34, 150_000, 1);
    d.put(0, &[9; 512]);
    assert_eq!(d.interrupt(), DRDY | DSC);
    assert_eq!(d.image.sector(150_000), [9; 512]);
    // HOB shows the upper halves until a register is written.
    d.wide(0x42, 0x2_0304, 0x0102);
    d.outb(1, 0, 0x80);
    assert_eq!((d.inb(0, 3), d.inb(0, 4)), (0, 0));
    d.outb(0, 3, 5);
    assert_eq!(d.inb(0, 3), 5);
}

#[test]
fn multiple_moves_blocks_and_is_refused_before_it_is_set() {
    let mut d = Driver::new();
    d.command(0xC4, 0, 4);
    assert_eq!((d.interrupt() & ERR, d.inb(0, 1)), (ERR, error::ABRT));
    for bad in [3, 17, 32] {
        d.command(0xC6, 0, bad);
        assert_eq!(d.interrupt() & ERR, ERR, "{bad}");
    }
    d.command(0xC6, 0, 8);
    assert_eq!(d.interrupt() & ERR, 0);
    assert_eq!(word(&identify(&mut d), 59), 0x108);
    let edges = d.edges(0);
    d.command(0xC4, 30, 11);
    for (first, len) in [(30, 8), (38, 3)] {
        d.interrupt();
        let data = d.words(0, 256 * len);
        for (n, sector) in (first..).zip(data.chunks(512)) {
            assert_eq!(number(sector), n);
        }
    }
    assert_eq!((d.alt(), d.edges(0) - edges), (DRDY | DSC, 2));
    d.command(0xC5, 30, 11);
    d.put(0, &[3; 8 * 512]);
    assert_eq!(d.interrupt(), DRDY | DSC | DRQ);
    d.put(0, &[4; 3 * 512]);
    assert_eq!(d.interrupt(), DRDY | DSC);
    assert_eq!(
        (d.image.sector(37), d.image.sector(40)),
        (vec![3; 512], vec![4; 512])
    );
    d.wide(0x29, 41, 2);
    d.interrupt();
    assert_eq!(number(&d.words(0, 512)), 41);
}

#[test]
fn cylinders_heads_and_sectors_go_by_the_translation_in_force() {
    let mut d = Driver::new();
    let mut read = |cylinder: u8, head: u8, sector: u8| {
        for (reg, value) in [
            (2, 1),
            (3, sector),
            (4, cylinder),
            (5, 0),
            (6, 0xA0 | head),
            (7, 0x20),
        ] {
            d.outb(0, reg, value);
        }
        let status = d.interrupt();
        if status & ERR != 0 {
            return Err(d.inb(0, 1));
        }
        Ok(number(&d.words(0, 256)))
    };
    assert_eq!(read(0, 0, 1), Ok(0));
    assert_eq!(read(2, 3, 4), Ok((2 * 16 + 3) * 63 + 3));
    assert_eq!(read(0, 0, 0), Err(error::IDNF));
    assert_eq!(read(0, 0, 64), Err(error::IDNF));
    for (reg, value) in [(2, 17), (6, 0xA3), (7, 0x91)] {
        d.outb(0, reg, value);
    }
    assert_eq!(d.interrupt() & ERR, 0);
    let data = identify(&mut d);
    assert_eq!((word(&data, 55), word(&data, 56)), (4, 17));
    for (reg, value) in [(2, 1), (3, 17), (4, 5), (5, 0), (6, 0xA3), (7, 0x20)] {
        d.outb(0, reg, value);
    }
    d.interrupt();
    assert_eq!(number(&d.words(0, 256)), (5 * 4 + 3) * 17 + 16);
    assert_eq!((d.inb(0, 3), d.inb(0, 4), d.inb(0, 6) & 0xF), (1, 6, 0));
}

#[test]
fn what_lies_past_the_end_is_not_found() {
    let mut d = Driver::new();
    let last = DISK as u32 - 1;
    for (command, lba, count) in [
        (0x20, last, 2),
        (0x30, last + 1, 1),
        (0x40, 0xFFF_FFFF, 1),
        (0xC8, last, 0),
    ] {
        d.command(command, lba, count);
        assert_eq!(d.interrupt(), DRDY | DSC | ERR, "{command:#x}");
        assert_eq!(d.inb(0, 1), error::IDNF);
    }
    d.wide(0x25, u64::MAX >> 16, 1);
    assert_eq!((d.interrupt() & ERR, d.inb(0, 1)), (ERR, error::IDNF));
    d.command(0x40, last, 1);
    assert_eq!(d.interrupt(), DRDY | DSC);
    assert_eq!(d.inb(0, 1), 0);
}

#[test]
fn host_errors_become_the_drives() {
    let mut d = Driver::new();
    d.image.0.lock().expect("whole").bad = Some(12);
    d.command(0x20, 11, 2);
    d.interrupt();
    d.words(0, 256);
    assert_eq!(d.interrupt(), DRDY | DSC | ERR);
    assert_eq!((d.inb(0, 1), d.inb(0, 3)), (error::UNC, 12));
    d.command(0x30, 12, 1);
    d.put(0, &[0; 512]);
    assert_eq!((d.interrupt() & ERR, d.inb(0, 1)), (ERR, error::ABRT));
}

#[test]
fn flush_flushes_and_without_a_write_cache_every_write_does() {
    let mut d = Driver::new();
    let flushes = |d: &Driver| d.image.0.lock().expect("whole").flushes;
    for command in [0xE7, 0xEA] {
        d.command(command, 0, 0);
        assert_eq!(d.interrupt(), DRDY | DSC);
    }
    assert_eq!(flushes(&d), 2);
    d.outb(0, 1, 0x82);
    d.command(0xEF, 0, 0);
    assert_eq!((d.interrupt() & ERR, flushes(&d)), (0, 3));
    d.command(0x30, 1, 1);
    d.put(0, &[0; 512]);
    d.interrupt();
    assert_eq!(flushes(&d), 4);
    assert_eq!(word(&identify(&mut d), 85) & 0x20, 0);
}

#[test]
fn features_power_and_the_small_commands() {
    let mut d = Driver::new();
    d.outb(0, 1, 3);
    d.command(0xEF, 0, 0x21);
    assert_eq!(d.interrupt() & ERR, 0);
    assert_eq!(word(&identify(&mut d), 63), 0x0207);
    for (feature, count) in [(3, 0x4F), (0x99, 0)] {
        d.outb(0, 1, feature);
        d.command(0xEF, 0, count);
        assert_eq!((d.interrupt() & ERR, d.inb(0, 1)), (ERR, error::ABRT));
    }
    for (command, power) in [(0xE0, 0), (0xE1, 0xFF), (0xE2, 0), (0x97, 0xFF)] {
        d.command(command, 0, 0);
        assert_eq!(d.interrupt() & ERR, 0);
        d.command(0xE5, 0, 7);
        d.interrupt();
        assert_eq!(d.inb(0, 2), power, "{command:#x}");
    }
    for command in [0x10, 0x1F, 0x70] {
        d.command(command, 5, 0);
        assert_eq!(d.interrupt(), DRDY | DSC, "{command:#x}");
    }
    d.command(0x70, DISK as u32, 0);
    assert_eq!((d.interrupt() & ERR, d.inb(0, 1)), (ERR, error::IDNF));
    d.command(0xF8, 0, 0);
    d.interrupt();
    let native: Vec<u8> = (3..6).map(|reg| d.inb(0, reg)).collect();
    assert_eq!(native, (DISK as u32 - 1).to_le_bytes()[..3]);
    for command in [0x00, 0x08, 0xA0, 0xA1, 0xB0, 0xF9, 0xFF] {
        d.command(command, 0, 0);
        assert_eq!(
            (d.interrupt() & ERR, d.inb(0, 1)),
            (ERR, error::ABRT),
            "{command:#x}"
        );
    }
    d.outb(0, 6, 0xF0);
    d.outb(0, 7, 0x90);
    assert_eq!(d.interrupt(), DRDY | DSC);
    assert_eq!((d.inb(0, 1), d.inb(0, 6)), (error::PASSED, 0xA0));
}

#[test]
fn a_read_only_disk_refuses_writes() {
    let mut bench = Bench::new();
    let image = MemoryImage::numbered(8);
    let disk = bench.disks.add_here("ro", Box::new(image.clone()), true);
    let drive = DriveConfig {
        kind: DriveKind::Disk,
        disk,
        len: 4096,
        serial: String::new(),
        medium: 0,
    };
    let ide = PiixIde::new(&mut bench.irq, [Some(drive), None, None, None]);
    let mut d = Driver {
        bench,
        ide,
        image,
        cd: MemoryImage::default(),
    };
    d.command(0x30, 1, 1);
    assert_eq!((d.interrupt() & ERR, d.inb(0, 1)), (ERR, error::ABRT));
    d.command(0x20, 1, 1);
    d.interrupt();
    assert_eq!(number(&d.words(0, 256)), 1);
}
