use super::*;

/// What the guest printed under QEMU 7.2 with source of interrupts aside, 100 interrupts of each kind.
const SEEN: [&str; 4] = [
    "soak: start version 2 kinds 5 count 100 bad 0",
    "soak: frame 1",
    "soak: round 1 irqs 500 500 0 0 ide 2381 2381 0 sectors 256 128 0 0 frame 1 sum 5F49F640",
    "soak: round 2 irqs 1000 1000 0 0 ide 2586 2586 0 sectors 512 256 0 0 frame 1 sum F579399B",
];

fn begun() -> Workload {
    let mut guest = Workload::default();
    assert_eq!(guest.hear(SEEN[0]), Heard::Start);
    assert_eq!(guest.hear(SEEN[1]), Heard::Frame(1));
    assert_eq!(guest.hear(SEEN[2]), Heard::Round);
    guest
}

#[track_caller]
fn wrong(heard: Heard, part: &str) {
    let Heard::Wrong(text) = heard else {
        panic!("{heard:?}")
    };
    assert!(text.contains(part), "{text}");
}

/// The line that the model expects next.
fn next_line(guest: &Workload) -> String {
    let mut ahead = Workload {
        totals: guest.totals,
        ..*guest
    };
    let Err(text) = ahead.round(&["?"]) else {
        panic!("a question mark is no round")
    };
    let (_, line) = text.split_once("instead of \"").expect("what is expected");
    format!("soak: {}", line.trim_end_matches('"'))
}

#[test]
fn the_lines_that_a_guest_prints_are_those_of_the_model() {
    let mut guest = begun();
    assert_eq!(guest.hear(SEEN[3]), Heard::Round);
    let totals = guest.totals();
    assert_eq!((totals.starts, totals.rounds), (1, 2));
    assert_eq!((totals.written, totals.read), (512, 256));
    assert_eq!(totals.interrupts, 1000 + 2 * 205);
}

#[test]
fn a_lost_interrupt_is_found() {
    let mut guest = begun();
    let line = SEEN[3].replace("irqs 1000 1000 0 0", "irqs 1000 999 1 0");
    wrong(
        guest.hear(&line),
        "interrupts delivered: 999 instead of 1000, interrupts lost: 1",
    );
}

#[test]
fn an_interrupt_that_comes_twice_is_found() {
    let mut guest = begun();
    let line = SEEN[3].replace("irqs 1000 1000 0 0", "irqs 1000 1001 0 1");
    wrong(guest.hear(&line), "interrupts delivered twice: 1 instead of 0");
}

#[test]
fn a_lost_interrupt_of_the_disk_is_found() {
    let mut guest = begun();
    let line = SEEN[3].replace("2586 2586 0", "2585 2585 1");
    wrong(guest.hear(&line), "disk interrupts lost: 1");
}

/// The second round's line after three commands of the disk failed, with so many interrupts.
fn failed(interrupts: u32) -> String {
    let ide = 2586 + interrupts;
    SEEN[3]
        .replace("2586 2586 0", &format!("{ide} {ide} 0"))
        .replace("512 256 0 0", "512 256 0 3")
}

#[test]
fn commands_of_the_disk_may_fail_while_it_does_and_no_longer() {
    wrong(
        begun().hear(&failed(5)),
        "disk commands that failed: 3 instead of 0",
    );
    for (interrupts, right) in [(2, false), (3, true), (48, true), (49, false)] {
        let mut guest = begun();
        guest.disk_fails();
        let heard = guest.hear(&failed(interrupts));
        assert_eq!(heard == Heard::Round, right, "{interrupts}: {heard:?}");
    }
    let mut guest = begun();
    guest.disk_fails();
    guest.hear(&failed(5));
    guest.disk_is_well();
    for _ in 0..3 {
        let line = next_line(&guest);
        assert_eq!(guest.hear(&line), Heard::Round, "{line}");
    }
    assert_eq!(guest.totals().failed, 3);
    let late = next_line(&guest).replace(" 0 3 frame", " 0 4 frame");
    wrong(guest.hear(&late), "disk commands that failed: 4 instead of 3");
}

#[test]
fn an_interrupt_of_a_command_that_failed_may_not_be_lost() {
    let mut guest = begun();
    guest.disk_fails();
    wrong(
        guest.hear(&failed(5).replace("2591 2591 0", "2591 2590 1")),
        "disk interrupts delivered: 2590 instead of 2591",
    );
}

#[test]
fn a_wrong_sector_is_found() {
    let mut guest = begun();
    wrong(
        guest.hear("soak: bad sector 3648 begins with 8 where version 9 was written"),
        "bad sector 3648",
    );
    let line = SEEN[3].replace("512 256 0 0", "512 256 16 0");
    wrong(guest.hear(&line), "sectors with wrong contents: 16");
}

#[test]
fn a_guest_that_computes_wrongly_is_found_by_its_sum() {
    let mut guest = begun();
    wrong(guest.hear(&SEEN[3].replace("F579399B", "F579399C")), "F579399C");
}

#[test]
fn a_fault_is_told_once() {
    let mut guest = begun();
    wrong(
        guest.hear(&SEEN[3].replace("1000 1000 0 0", "1000 999 1 0")),
        "in round 2, ",
    );
    let line = next_line(&guest);
    assert!(line.contains("irqs 1500 1499 1 0"), "{line}");
    assert_eq!(guest.hear(&line), Heard::Round);
    wrong(guest.hear("soak: round 4 irqs"), "the guest's line is");
}

#[test]
fn a_round_that_is_missing_or_said_twice_is_found() {
    let mut guest = begun();
    wrong(guest.hear(SEEN[2]), "rounds: 1 instead of 2");
    let mut guest = begun();
    let third = {
        let mut ahead = begun();
        ahead.hear(SEEN[3]);
        next_line(&ahead)
    };
    wrong(guest.hear(&third), "rounds: 3 instead of 2");
}

#[test]
fn what_no_guest_of_ours_says_is_found() {
    let mut guest = begun();
    wrong(guest.hear("exception 14 at 00101234 error 0002"), "exception 14");
    wrong(guest.hear("soak: frame 3"), "after frame 1");
    assert_eq!(guest.hear(""), Heard::Nothing);
}

#[test]
fn a_start_is_allowed_for_each_reset_and_cuts_a_line_off() {
    let mut guest = begun();
    guest.reset();
    let cut = "soak: round 2 irqs 10soak: start version 4 kinds 5 count 100 bad 0";
    assert_eq!(guest.hear(cut), Heard::Start);
    assert_eq!(guest.hear("soak: frame 1"), Heard::Frame(1));
    wrong(
        guest.hear("soak: start version 4 kinds 5 count 100 bad 0"),
        "began 3 times and was reset 1 times",
    );
}

#[test]
fn a_disk_that_forgot_is_found_by_the_next_start() {
    let mut guest = begun();
    guest.reset();
    wrong(
        guest.hear("soak: start version 2 kinds 5 count 100 bad 0"),
        "found version 0 on its disk",
    );
}

#[test]
fn a_pass_ends_and_the_next_reads_what_it_left() {
    let mut guest = begun();
    for _ in 0..40 {
        let line = next_line(&guest);
        assert_eq!(guest.hear(&line), Heard::Round, "{line}");
    }
    // 256 blocks in 32 rounds; the second pass reads 16 blocks a round from its start.
    assert_eq!((guest.version, guest.place), (4, 9 * ROUND_BLOCKS));
    assert_eq!(guest.read, 128 * 16 + 256 * 25);
}

/// An image in the middle of a pass: `done` sectors in order of writing have version `new`, the others `old`.
fn image(new: u32, old: u32, done: u32) -> Vec<u8> {
    let mut image = vec![0; DISK_BYTES as usize];
    for n in 0..BLOCKS * BLOCK_SECTORS {
        let sector = block_at(n / BLOCK_SECTORS) * BLOCK_SECTORS + n % BLOCK_SECTORS;
        put(&mut image, sector, if n < done { new } else { old });
    }
    image
}

fn put(image: &mut [u8], sector: u32, version: u32) {
    let bytes = sector_words(version, sector).map(u32::to_le_bytes).concat();
    image[sector as usize * SECTOR..][..SECTOR].copy_from_slice(&bytes);
}

#[test]
fn an_image_in_the_middle_of_a_pass_is_what_was_written() {
    assert_eq!(check_image(&image(3, 0, 700), 1), Vec::<String>::new());
    assert_eq!(check_image(&image(9, 7, 0), 1), Vec::<String>::new());
    assert_eq!(check_image(&image(9, 7, 4096), 1), Vec::<String>::new());
    // The end came between the two writes of a block, in the middle of the second.
    let mut half = image(9, 7, 64 * 16 + 16);
    for n in 5..16 {
        put(&mut half, block_at(64) * 16 + n, 8);
    }
    assert_eq!(check_image(&half, 1), Vec::<String>::new());
}

#[test]
fn a_write_that_came_twice_and_late_is_found_on_the_image() {
    let mut late = image(9, 7, 2048);
    put(&mut late, block_at(3) * 16 + 2, 8);
    let wrong = check_image(&late, 1);
    assert!(wrong.iter().any(|w| w.contains("only 8")), "{wrong:?}");
}

#[test]
fn a_write_that_was_lost_is_found_on_the_image() {
    let mut lost = image(9, 7, 2048);
    put(&mut lost, block_at(100) * 16 + 15, 7);
    assert!(!check_image(&lost, 1).is_empty());
    // The second writes of two whole blocks at the boundary.
    let mut second = image(9, 7, 32);
    for n in 0..16 {
        put(&mut second, block_at(0) * 16 + n, 8);
        put(&mut second, block_at(1) * 16 + n, 8);
    }
    let wrong = check_image(&second, 1);
    assert!(wrong[0].contains("2 blocks"), "{wrong:?}");
    assert_eq!(check_image(&second, 2), Vec::<String>::new());
}

#[test]
fn a_write_to_a_wrong_place_and_a_torn_sector_are_found() {
    let mut moved = image(9, 7, 4096);
    let bytes = sector_words(9, 17).map(u32::to_le_bytes).concat();
    moved[40 * SECTOR..][..SECTOR].copy_from_slice(&bytes);
    assert!(check_image(&moved, 1)[0].contains("sector 40 on the disk is none"));
    let mut torn = image(9, 7, 4096);
    let old = sector_words(7, 99).map(u32::to_le_bytes).concat();
    torn[99 * SECTOR + 256..][..256].copy_from_slice(&old[256..]);
    assert!(check_image(&torn, 1)[0].contains("sector 99"));
    assert!(check_image(&[0; 512], 1)[0].contains("512 bytes"));
}

/// A picture whose rows from `from` on are of another frame.
fn picture(frame: u32, from: u32, other: u32) -> Vec<u8> {
    (0..FRAME.0 * FRAME.1)
        .flat_map(|at| {
            let of = if at / FRAME.0 < from { frame } else { other };
            let [_, r, g, b] = pixel(of, at).to_be_bytes();
            [r, g, b]
        })
        .collect()
}

#[test]
fn a_whole_picture_passes_and_a_torn_or_stale_one_is_told_by_its_rows() {
    assert_eq!(check_picture(FRAME, &picture(5, 480, 0), 5), Ok(()));
    let torn = check_picture(FRAME, &picture(5, 240, 4), 5).expect_err("torn");
    assert_eq!(torn, "frame 5 is torn: rows 240 to 479 show frame 4");
    let stale = check_picture(FRAME, &picture(4, 480, 4), 5).expect_err("stale");
    assert!(stale.contains("rows 0 to 479 show frame 4"), "{stale}");
    let mut spot = picture(5, 480, 0);
    spot[100] ^= 1;
    let spot = check_picture(FRAME, &spot, 5).expect_err("a pixel");
    assert!(spot.contains("rows 0 to 0 show something else"), "{spot}");
    assert!(
        check_picture((320, 200), &[], 5)
            .expect_err("size")
            .contains("320x200")
    );
}
