use super::*;
use quintet_protocol::addr::GuestPhys;

const START: u8 = 1;
const TO_MEMORY: u8 = 8;

#[test]
fn a_read_fills_the_regions_and_ends_both_sides() {
    let mut d = Driver::new();
    d.table(&[(0x1_0000, 0x200), (0x2_0100, 0x600), (0x3_0000, 0x800)]);
    d.command(0xC8, 500, 8);
    assert_eq!((d.alt(), d.edges(0)), (DRDY | DSC | DRQ, 0));
    d.outb(BUS_MASTER, 0, TO_MEMORY | START);
    assert_eq!((d.inb(BUS_MASTER, 2) & 7, d.alt() & BSY), (1, BSY));
    d.settle();
    assert_eq!(d.inb(BUS_MASTER, 2) & 7, 4, "inactive, interrupt");
    assert_eq!(d.interrupt(), DRDY | DSC);
    assert_eq!(number(&d.ram(0x1_0000, 8)), 500);
    assert_eq!(number(&d.ram(0x2_0100, 8)), 501);
    assert_eq!(number(&d.ram(0x2_0500, 8)), 503);
    assert_eq!(number(&d.ram(0x3_0600, 8)), 507);
    assert_eq!(d.ram(0x3_0800, 8), [0; 8]);
    d.outb(BUS_MASTER, 0, 0);
    d.outb(BUS_MASTER, 2, 0x64);
    assert_eq!(d.inb(BUS_MASTER, 2), 0x60);
}

#[test]
fn the_engine_may_run_before_the_command_comes() {
    let mut d = Driver::new();
    d.table(&[(0x1_0000, 0x200)]);
    d.outb(BUS_MASTER, 0, TO_MEMORY | START);
    d.command(0xC8, 3, 1);
    assert_eq!(d.interrupt(), DRDY | DSC);
    assert_eq!(number(&d.ram(0x1_0000, 8)), 3);
}

#[test]
fn a_write_takes_from_the_regions() {
    let mut d = Driver::new();
    d.bench.dma.write(GuestPhys(0x1_0000), &[5; 512]);
    d.bench.dma.write(GuestPhys(0x2_0000), &[6; 512]);
    d.table(&[(0x1_0000, 0x200), (0x2_0000, 0x200)]);
    d.command(0xCA, 90, 2);
    d.outb(BUS_MASTER, 0, START);
    assert_eq!(d.interrupt(), DRDY | DSC);
    assert_eq!(
        (d.image.sector(90), d.image.sector(91)),
        (vec![5; 512], vec![6; 512])
    );
    assert_eq!(d.inb(BUS_MASTER, 2) & 1, 0);
}

#[test]
fn a_length_of_zero_is_64_kib_and_long_transfers_go_in_pieces() {
    let mut d = Driver::new();
    // 640 KiB in ten regions, all onto the same 64 KiB: what is there at the end is the last of them.
    d.table(&[(0x10_0000, 0); 10]);
    d.wide(0x25, 1000, 1280);
    d.outb(BUS_MASTER, 0, TO_MEMORY | START);
    assert_eq!(d.interrupt(), DRDY | DSC);
    assert_eq!(number(&d.ram(0x10_0000, 8)), 1000 + 1280 - 128);
    assert_eq!(number(&d.ram(0x10_FE00, 8)), 1000 + 1279);
    assert_eq!(d.inb(BUS_MASTER, 2) & 7, 4);
    d.outb(BUS_MASTER, 0, 0);
    d.wide(0x35, 2000, 1280);
    d.outb(BUS_MASTER, 0, START);
    d.settle();
    let memory = d.image.0.lock().expect("whole");
    assert_eq!(memory.writes.iter().map(|w| w.1).sum::<usize>(), 1280 * 512);
    assert!(memory.writes.len() > 1);
}

#[test]
fn a_longer_table_leaves_the_engine_active_and_a_shorter_one_interrupts_nobody() {
    let mut d = Driver::new();
    d.table(&[(0x1_0000, 0x400)]);
    d.command(0xC8, 1, 1);
    d.outb(BUS_MASTER, 0, TO_MEMORY | START);
    assert_eq!(d.interrupt(), DRDY | DSC);
    assert_eq!(d.inb(BUS_MASTER, 2) & 7, 5);
    d.outb(BUS_MASTER, 0, 0);
    assert_eq!(d.inb(BUS_MASTER, 2) & 1, 0);
    let edges = d.edges(0);
    for command in [0xC8, 0xCA] {
        d.table(&[(0x1_0000, 0x200)]);
        d.command(command, 1, 2);
        d.outb(BUS_MASTER, 0, START);
        d.settle();
        assert_eq!(
            (d.alt(), d.inb(BUS_MASTER, 2) & 1, d.edges(0)),
            (DRDY | DSC, 0, edges)
        );
        d.outb(BUS_MASTER, 0, 0);
    }
    assert_eq!(d.image.0.lock().expect("whole").writes, []);
}

#[test]
fn a_stopped_engine_moves_nothing_any_more() {
    let mut d = Driver::new();
    d.table(&[(0x1_0000, 0x200)]);
    d.command(0xC8, 8, 1);
    d.outb(BUS_MASTER, 0, TO_MEMORY | START);
    d.outb(BUS_MASTER, 0, 0);
    d.settle();
    assert_eq!((d.ram(0x1_0000, 8), d.edges(0)), (vec![0; 8], 0));
    assert_eq!(d.alt() & DRQ, DRQ);
    d.outb(1, 0, 4);
    d.outb(1, 0, 0);
    assert_eq!(d.alt(), DRDY | DSC);
}

#[test]
fn a_function_that_is_no_bus_master_moves_nothing_until_it_is() {
    let mut d = Driver::new();
    d.table(&[(0x1_0000, 0x200)]);
    for taken_away_under_way in [false, true] {
        let edges = d.edges(0);
        d.bench.may_master = taken_away_under_way;
        d.command(0xC8, 8, 1);
        d.outb(BUS_MASTER, 0, TO_MEMORY | START);
        d.bench.may_master = false;
        d.settle();
        assert_eq!((d.ram(0x1_0000, 8), d.edges(0)), (vec![0; 8], edges));
        assert_eq!((d.alt(), d.inb(BUS_MASTER, 2) & 1), (DRDY | DSC | DRQ, 1));
        d.bench.may_master = true;
        d.ide.advance(&mut d.bench.backplane());
        assert_eq!(d.interrupt(), DRDY | DSC);
        assert_eq!(number(&d.ram(0x1_0000, 8)), 8);
        d.outb(BUS_MASTER, 0, 0);
        d.bench.dma.write(GuestPhys(0x1_0000), &[0; 8]);
    }
}

#[test]
fn dma_that_the_host_cannot_do_is_an_error_and_stops_the_engine() {
    let mut d = Driver::new();
    d.image.0.lock().expect("whole").bad = Some(600);
    d.table(&[(0x1_0000, 0x800)]);
    for (command, why) in [(0xC8, error::UNC), (0xCA, error::ABRT)] {
        d.command(command, 598, 4);
        d.outb(BUS_MASTER, 0, START);
        assert_eq!(d.interrupt(), DRDY | DSC | ERR);
        assert_eq!((d.inb(0, 1), d.inb(BUS_MASTER, 2) & 1), (why, 0));
        d.outb(BUS_MASTER, 0, 0);
    }
}

#[test]
fn a_successor_moves_the_piece_again_that_was_under_way() {
    for write in [false, true] {
        let mut d = Driver::new();
        d.bench.dma.write(GuestPhys(0x10_0000), &[9; 0xC_0000]);
        let regions: Vec<(u32, u16)> = (0x10..0x1C_u32).map(|n| (n << 16, 0)).collect();
        d.table(&regions);
        d.wide(if write { 0x35 } else { 0x25 }, 4000, 1536);
        d.outb(BUS_MASTER, 0, START);
        // The first piece is done and the second asked for.
        d.bench.submit();
        d.ide.advance(&mut d.bench.backplane());
        let state = saved(&d.ide);
        let mut next = Driver::new();
        next.ide.load(VERSION, &state).expect("state");
        next.bench.dma = std::mem::replace(&mut d.bench.dma, Bench::new().dma);
        next.ide.start(&mut next.bench.backplane());
        next.settle();
        assert_eq!(next.alt(), DRDY | DSC);
        if write {
            let memory = next.image.0.lock().expect("whole");
            let (first, last) = (memory.writes[0], memory.writes[memory.writes.len() - 1]);
            assert_eq!(first.0, (4000 + 1024) * 512);
            assert_eq!(last.0 + last.1 as u64, (4000 + 1536) * 512);
            let sectors = &memory.bytes[(4000 + 1024) * 512..(4000 + 1536) * 512];
            assert!(sectors.iter().all(|b| *b == 9));
        } else {
            assert_eq!(number(&next.ram(0x10_0000, 8)), 4000);
            assert_eq!(number(&next.ram(0x18_0000, 8)), 4000 + 1024);
            assert_eq!(number(&next.ram(0x1B_FE00, 8)), 4000 + 1535);
        }
    }
}

#[test]
fn what_was_asked_for_and_not_begun_ends_with_a_stop_or_a_reset() {
    type End = fn(&mut Driver);
    let ends: [(&str, End); 4] = [
        ("the engine is stopped", |d| d.outb(BUS_MASTER, 0, 0)),
        ("software reset", |d| d.outb(1, 0, 4)),
        ("diagnostic", |d| d.outb(0, 7, 0x90)),
        ("reset line", |d| d.ide.reset(&mut d.bench.backplane())),
    ];
    for (what, end) in ends {
        let mut d = Driver::new();
        d.bench.dma.write(GuestPhys(0x1_0000), &[7; 512]);
        d.table(&[(0x1_0000, 0x200)]);
        d.command(0xCA, 90, 1);
        d.outb(BUS_MASTER, 0, START);
        assert!(d.bench.disks.has_staged(), "{what}");
        end(&mut d);
        // The buffer is the driver's again.
        d.bench.dma.write(GuestPhys(0x1_0000), &[8; 512]);
        d.settle();
        assert_eq!(number(&d.image.sector(90)), 90, "{what}");
        assert_eq!(d.image.0.lock().expect("whole").writes, [], "{what}");
        // And the drive does what it is told next.
        d.outb(1, 0, 4);
        d.outb(1, 0, 0);
        d.outb(BUS_MASTER, 0, 0);
        d.table(&[(0x1_0000, 0x200)]);
        d.command(0xCA, 91, 1);
        d.outb(BUS_MASTER, 0, START);
        d.settle();
        assert_eq!(d.image.sector(91), [8; 512], "{what}");
    }
}
