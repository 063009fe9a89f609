use super::*;
use crate::bus::contract::{Bench, device_contract, saved};

fn build(_: &mut Bench) -> FwCfg {
    let mut dev = FwCfg::new();
    dev.add_item(KEY_CPUS, vec![1, 0]).expect("free");
    dev.add_file("etc/one", b"0123456789".to_vec()).expect("free");
    dev.add_file("etc/two", vec![0x5A; 5000]).expect("free");
    dev
}

device_contract!(contract, build);

const ONE: u16 = KEY_FIRST_FILE;

fn select(b: &mut Bench, dev: &mut FwCfg, key: u16) {
    b.write(dev, 0, 0, Size::WORD, u64::from(key));
}

fn bytes(b: &mut Bench, dev: &mut FwCfg, n: usize) -> Vec<u8> {
    (0..n).map(|_| b.read(dev, 0, 1, Size::BYTE) as u8).collect()
}

fn descriptor(b: &mut Bench, what: u32, len: u32, address: u64) {
    let mut d = what.to_be_bytes().to_vec();
    d.extend(len.to_be_bytes());
    d.extend(address.to_be_bytes());
    b.dma.write(GuestPhys(0x1000), &d);
}

fn start(b: &mut Bench, dev: &mut FwCfg) {
    b.write(dev, 1, 0, Size::DWORD, 0);
    b.write(dev, 1, 4, Size::DWORD, u64::from(0x1000_u32.swap_bytes()));
}

fn control_word(b: &mut Bench) -> u32 {
    u32::from_be_bytes(b.dma.ram().read_array(GuestPhys(0x1000)).expect("RAM"))
}

fn finish(b: &mut Bench, dev: &mut FwCfg) -> u32 {
    dev.completed(&mut b.backplane());
    control_word(b)
}

#[test]
fn items_are_read_byte_by_byte_and_end_in_zeros() {
    let (mut b, mut dev) = (Bench::new(), build(&mut Bench::new()));
    select(&mut b, &mut dev, KEY_SIGNATURE);
    assert_eq!(bytes(&mut b, &mut dev, 6), b"QEMU\0\0");
    select(&mut b, &mut dev, KEY_SIGNATURE);
    assert_eq!(bytes(&mut b, &mut dev, 2), b"QE");
    select(&mut b, &mut dev, KEY_ID);
    assert_eq!(bytes(&mut b, &mut dev, 4), [3, 0, 0, 0]);
    select(&mut b, &mut dev, 0x1234);
    assert_eq!(bytes(&mut b, &mut dev, 2), [0, 0]);
}

#[test]
fn the_directory_names_files_with_size_and_selector() {
    let (mut b, mut dev) = (Bench::new(), build(&mut Bench::new()));
    select(&mut b, &mut dev, KEY_DIRECTORY);
    assert_eq!(bytes(&mut b, &mut dev, 4), [0, 0, 0, 2]);
    let first = bytes(&mut b, &mut dev, 64);
    assert_eq!(first[..8], [0, 0, 0, 10, 0, 0x20, 0, 0]);
    assert_eq!(&first[8..16], b"etc/one\0");
    assert_eq!(
        bytes(&mut b, &mut dev, 64)[..8],
        [0, 0, 0x13, 0x88, 0, 0x21, 0, 0]
    );
}

#[test]
fn names_and_selectors_are_checked() {
    let mut dev = FwCfg::new();
    assert!(matches!(
        dev.add_file(&"x".repeat(56), vec![]),
        Err(ItemError::Name(_))
    ));
    assert!(matches!(dev.add_file("", vec![]), Err(ItemError::Name(_))));
    dev.add_file("a", vec![]).expect("free");
    assert!(matches!(dev.add_file("a", vec![]), Err(ItemError::Taken(_))));
    assert!(matches!(dev.add_item(KEY_ID, vec![]), Err(ItemError::Taken(_))));
}

#[test]
fn the_dma_register_tells_of_itself_in_big_endian() {
    let (mut b, mut dev) = (Bench::new(), build(&mut Bench::new()));
    let got: Vec<u8> = (0..8).map(|i| b.read(&mut dev, 1, i, Size::BYTE) as u8).collect();
    assert_eq!(got, b"QEMU CFG");
}

#[test]
fn dma_selects_skips_and_reads_and_completes_after_the_commit_only() {
    let (mut b, mut dev) = (Bench::new(), build(&mut Bench::new()));
    b.dma.write(GuestPhys(0x2000), &[0xEE; 16]);
    let what = u32::from(ONE) << 16 | control::SELECT | control::READ;
    descriptor(&mut b, what, 4, 0x2000);
    start(&mut b, &mut dev);
    assert_eq!(b.dma.ram().read_array::<5>(GuestPhys(0x2000)), Ok(*b"0123\xEE"));
    assert_eq!(control_word(&mut b), what, "not yet");
    assert_eq!(finish(&mut b, &mut dev), 0);
    descriptor(&mut b, control::SKIP, 3, 0);
    start(&mut b, &mut dev);
    assert_eq!(finish(&mut b, &mut dev), 0);
    descriptor(&mut b, control::READ, 8, 0x2000);
    start(&mut b, &mut dev);
    assert_eq!(finish(&mut b, &mut dev), 0);
    assert_eq!(
        b.dma.ram().read_array::<9>(GuestPhys(0x2000)),
        Ok(*b"789\0\0\0\0\0\xEE")
    );
    descriptor(&mut b, control::WRITE, 8, 0x2000);
    start(&mut b, &mut dev);
    assert_eq!(finish(&mut b, &mut dev), control::ERROR);
}

#[test]
fn a_transfer_that_was_not_committed_is_repeated_whole() {
    let (mut b, mut dev) = (Bench::new(), build(&mut Bench::new()));
    let before = saved(&dev);
    descriptor(
        &mut b,
        u32::from(ONE) << 16 | control::SELECT | control::READ,
        10,
        0x2000,
    );
    start(&mut b, &mut dev);
    dev = build(&mut Bench::new());
    dev.load(1, &before).expect("state");
    b.dma.write(GuestPhys(0x2000), &[0; 10]);
    start(&mut b, &mut dev);
    let committed = saved(&dev);
    // Killed between the commit and the completion.
    dev = build(&mut Bench::new());
    dev.load(1, &committed).expect("state");
    assert_eq!(finish(&mut b, &mut dev), 0);
    assert_eq!(
        b.dma.ram().read_array::<10>(GuestPhys(0x2000)),
        Ok(*b"0123456789")
    );
}

#[test]
fn an_absurd_length_goes_on_in_steps_and_into_holes() {
    let (mut b, mut dev) = (Bench::new(), build(&mut Bench::new()));
    let what = u32::from(ONE) << 16 | control::SELECT | control::READ;
    descriptor(&mut b, what, STEP + 1, 0x8000_0000);
    start(&mut b, &mut dev);
    assert_eq!(finish(&mut b, &mut dev), what);
    assert!(dev.next_deadline().is_some());
    b.pass(&mut dev, 0);
    assert_eq!(finish(&mut b, &mut dev), 0);
    assert!(dev.next_deadline().is_none());
    descriptor(&mut b, what, 32, u64::MAX - 3);
    start(&mut b, &mut dev);
    assert_eq!(finish(&mut b, &mut dev), 0);
}

#[test]
fn a_descriptor_outside_ram_does_nothing() {
    let (mut b, mut dev) = (Bench::new(), build(&mut Bench::new()));
    b.write(&mut dev, 1, 0, Size::DWORD, u64::from(u32::MAX));
    b.write(&mut dev, 1, 4, Size::DWORD, u64::from(u32::MAX));
    dev.completed(&mut b.backplane());
    assert_eq!(b.dma.ram().read_array::<4>(GuestPhys(0)), Ok([0; 4]));
}
