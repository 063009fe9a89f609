//! Kernels built by hand, whole and broken.

use super::*;
use proptest::prelude::*;
use quintet_protocol::addr::GuestPhys;
use quintet_protocol::boot_state::EntryMode;
use quintet_protocol::ram::RamLayout;

const MACHINE: Machine = Machine {
    cpus: 1,
    long_mode: true,
    cpuid_1: (0x663, 0x0781_ABFD),
    com: [0x3F8, 0x2F8, 0, 0],
    ps2: true,
    fw_cfg: true,
    disks: 0,
};

/// A bus with nothing on it.
struct NoPci;

impl PciConfig for NoPci {
    fn read(&mut self, _: u8, _: u8, _: u8, width: u8) -> u32 {
        u32::MAX >> (32 - u32::from(width) * 8)
    }
    fn write(&mut self, _: u8, _: u8, _: u8, _: u8, _: u32) {}
}

fn ram(mib: u64) -> GuestRam {
    GuestRam::anonymous(RamLayout::new(mib << 20)).expect("ram")
}

fn boot(
    ram: &GuestRam,
    kernel: &[u8],
    modules: &[(&[u8], &str)],
    append: &str,
) -> Result<BootState, BootError> {
    let modules: Vec<Module<'_>> = modules
        .iter()
        .map(|(data, line)| Module {
            data,
            command_line: line,
        })
        .collect();
    let kernel = Module {
        data: &kernel,
        command_line: "kernel",
    };
    prepare(
        ram,
        &mut NoPci,
        MACHINE,
        &Boot {
            kernel,
            modules: &modules,
            append,
        },
    )
    .map(|prepared| prepared.state)
}

fn why(ram: &GuestRam, kernel: &[u8], modules: &[(&[u8], &str)], append: &str) -> LoadError {
    boot(ram, kernel, modules, append).expect_err("refused").reason
}

fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    bytes[at..at + what.len()].copy_from_slice(what);
}

/// A bzImage of protocol 2.12 with one setup sector and 64 bytes of kernel.
fn bzimage() -> Vec<u8> {
    let mut f = vec![0; 1024 + 64];
    f[0x1F1] = 1;
    put(&mut f, 0x1F4, &4_u32.to_le_bytes());
    put(&mut f, 0x1FE, &[0x55, 0xAA, 0xEB, 0x66]);
    put(&mut f, 0x202, b"HdrS");
    put(&mut f, 0x206, &0x020C_u16.to_le_bytes());
    f[0x211] = 1;
    put(&mut f, 0x22C, &0x7FFF_FFFF_u32.to_le_bytes());
    put(&mut f, 0x230, &0x20_0000_u32.to_le_bytes());
    f[0x234] = 1;
    put(&mut f, 0x236, &1_u16.to_le_bytes());
    put(&mut f, 0x238, &2047_u32.to_le_bytes());
    put(&mut f, 0x258, &0x100_0000_u64.to_le_bytes());
    put(&mut f, 0x260, &0x40_0000_u32.to_le_bytes());
    f[1024..].fill(0xAB);
    f
}

/// An ELF32 with one segment of 32 bytes at 2 MiB and 64 in memory, a note segment, and `extra` behind.
fn elf(multiboot: bool, pvh: bool) -> Vec<u8> {
    let mut f = vec![0; 256 + 32];
    put(&mut f, 0, b"\x7fELF\x01\x01\x01");
    put(&mut f, 16, &[2, 0, 3, 0, 1]);
    put(&mut f, 24, &0xC020_0010_u32.to_le_bytes());
    put(&mut f, 28, &52_u32.to_le_bytes());
    put(&mut f, 40, &[52, 0, 32, 0, 2, 0]);
    let load: [u32; 8] = [1, 256, 0xC020_0000, 0x20_0000, 32, 64, 7, 4096];
    let note: [u32; 8] = [4, 160, 0, 0, if pvh { 20 } else { 0 }, 20, 4, 4];
    for (i, w) in load.iter().chain(&note).enumerate() {
        put(&mut f, 52 + i * 4, &w.to_le_bytes());
    }
    if multiboot {
        for (i, w) in [0x1BAD_B002, 3, 0xE452_4FFB_u32].iter().enumerate() {
            put(&mut f, 132 + i * 4, &w.to_le_bytes());
        }
    }
    for (i, w) in [4_u32, 4, 18, u32::from_le_bytes(*b"Xen\0"), 0x20_0008]
        .iter()
        .enumerate()
    {
        put(&mut f, 160 + i * 4, &w.to_le_bytes());
    }
    f[256..].fill(0xCD);
    f
}

fn word(ram: &GuestRam, at: u64) -> u64 {
    u64::from(u32::from_le_bytes(ram.read_array(GuestPhys(at)).expect("ram")))
}

fn text(ram: &GuestRam, at: u64) -> String {
    let bytes = (at..)
        .map(|a| ram.read_array::<1>(GuestPhys(a)).expect("ram")[0])
        .take_while(|b| *b != 0);
    String::from_utf8(bytes.collect()).expect("utf-8")
}

#[test]
fn a_64_bit_bzimage_starts_in_long_mode_at_200h_with_boot_params_in_rsi() {
    let ram = ram(64);
    let state = boot(&ram, &bzimage(), &[], "console=ttyS0").expect("boots");
    assert_eq!((state.mode, state.rip), (EntryMode::Long64, 0x10_0200));
    assert_eq!(ram.read_array(GuestPhys(0x10_0000)), Ok([0xAB; 64]));
    assert_eq!(text(&ram, word(&ram, state.rsi + 0x228)), "console=ttyS0");
    assert_eq!(
        word(&ram, state.rsi + 0x202),
        u64::from(u32::from_le_bytes(*b"HdrS"))
    );
    assert_eq!(word(&ram, state.rsi + 0x70), acpi::RSDP);
}

#[test]
fn without_long_mode_the_same_kernel_starts_at_its_32_bit_entry() {
    let ram = ram(64);
    let image = bzimage();
    let kernel = Module {
        data: &image,
        command_line: "k",
    };
    let machine = Machine {
        long_mode: false,
        ..MACHINE
    };
    let state = prepare(
        &ram,
        &mut NoPci,
        machine,
        &Boot {
            kernel,
            modules: &[],
            append: "",
        },
    )
    .expect("boots")
    .state;
    assert_eq!(
        (state.mode, state.rip, state.cr3),
        (EntryMode::Protected32, 0x10_0000, 0)
    );
}

#[test]
fn the_page_tables_of_long_mode_map_4_gib_to_themselves() {
    let ram = ram(64);
    let state = boot(&ram, &bzimage(), &[], "").expect("boots");
    let entry = |at: u64| u64::from_le_bytes(ram.read_array(GuestPhys(at)).expect("ram"));
    for address in [0_u64, 0x10_0200, 0x1234_5678, 0xFEE0_0000, 0xFFFF_FFFF] {
        let pdpt = entry(state.cr3 + (address >> 39) * 8);
        let pd = entry((pdpt & !0xFFF) + (address >> 30 & 511) * 8);
        let pde = entry((pd & !0xFFF) + (address >> 21 & 511) * 8);
        assert_eq!((pdpt & 3, pd & 3, pde & 0x83), (3, 3, 0x83));
        assert_eq!((pde & !0x1F_FFFF) | (address & 0x1F_FFFF), address);
    }
}

#[test]
fn an_initrd_lies_as_high_as_ram_and_kernel_allow_and_off_the_kernel() {
    let ram = ram(64);
    let initrd = vec![0x77; 5000];
    let state = boot(&ram, &bzimage(), &[(&initrd, "initrd")], "").expect("boots");
    let (at, len) = (word(&ram, state.rsi + 0x218), word(&ram, state.rsi + 0x21C));
    assert_eq!(len, 5000);
    assert_eq!(at, ((64 << 20) - e820::ACPI_LEN - 5000) & !0xFFF);
    let mut back = vec![0; 5000];
    ram.read(GuestPhys(at), &mut back).expect("ram");
    assert_eq!(back, initrd);
}

#[test]
fn an_initrd_respects_the_kernels_limit() {
    let ram = ram(64);
    let mut image = bzimage();
    put(&mut image, 0x22C, &0x01FF_FFFF_u32.to_le_bytes());
    let state = boot(&ram, &image, &[(&[1; 100], "i")], "").expect("boots");
    assert!(word(&ram, state.rsi + 0x218) + 100 <= 0x0200_0000);
}

#[test]
fn boot_params_carry_the_memory_map_and_the_screen() {
    let ram = ram(64);
    let state = boot(&ram, &bzimage(), &[], "").expect("boots");
    let map = e820::map(ram.layout());
    assert_eq!(
        usize::from(ram.read_array::<1>(GuestPhys(state.rsi + 0x1E8)).expect("ram")[0]),
        map.len()
    );
    for (i, e) in map.iter().enumerate() {
        let at = state.rsi + 0x2D0 + i as u64 * 20;
        assert_eq!(
            (word(&ram, at), word(&ram, at + 8), word(&ram, at + 16)),
            (e.base, e.len, e.kind as u64)
        );
    }
    assert_eq!(ram.read_array(GuestPhys(state.rsi + 6)), Ok([3, 80]));
    assert_eq!(ram.read_array(GuestPhys(state.rsi + 0xE)), Ok([25, 1, 16, 0]));
}

#[test]
fn a_multiboot_elf_gets_its_magic_map_command_line_and_modules() {
    let ram = ram(16);
    let state = boot(
        &ram,
        &elf(true, false),
        &[(b"one", "a.bin x=1"), (b"", "b.bin")],
        "debug",
    )
    .expect("boots");
    assert_eq!(
        (state.mode, state.rip, state.rax),
        (EntryMode::Protected32, 0x20_0010, 0x2BAD_B002)
    );
    let info = state.rbx;
    assert_eq!(word(&ram, info), 0b10_0100_1101);
    assert_eq!(
        (word(&ram, info + 4), word(&ram, info + 8)),
        (639, (16 << 10) - 1024 - 64)
    );
    assert_eq!(text(&ram, word(&ram, info + 16)), "kernel debug");
    assert_eq!(text(&ram, word(&ram, info + 64)), "Quintet");
    assert_eq!(word(&ram, info + 20), 2);
    let list = word(&ram, info + 24);
    let (start, end) = (word(&ram, list), word(&ram, list + 4));
    assert_eq!((start % 4096, end - start), (0, 3));
    assert_eq!(ram.read_array(GuestPhys(start)), Ok(*b"one"));
    assert_eq!(text(&ram, word(&ram, list + 8)), "a.bin x=1");
    assert_eq!(word(&ram, list + 16), word(&ram, list + 20));
    let (len, at) = (word(&ram, info + 44), word(&ram, info + 48));
    let map = e820::map(ram.layout());
    assert_eq!(len, map.len() as u64 * 24);
    assert_eq!(
        (word(&ram, at), word(&ram, at + 12), word(&ram, at + 20)),
        (20, map[0].len, 1)
    );
}

#[test]
fn the_rest_of_an_elf_segment_is_cleared_even_when_ram_was_not_empty() {
    let ram = ram(16);
    ram.write(GuestPhys(0x20_0000), &[0xFF; 64]).expect("ram");
    boot(&ram, &elf(true, false), &[], "").expect("boots");
    assert_eq!(ram.read_array(GuestPhys(0x20_0000)), Ok([0xCD; 32]));
    assert_eq!(ram.read_array(GuestPhys(0x20_0020)), Ok([0; 32]));
}

#[test]
fn the_aout_kludge_loads_by_the_headers_addresses() {
    let ram = ram(16);
    let mut f = vec![0x90; 300];
    let flags = 0x1_0000_u32;
    let header = [
        0x1BAD_B002,
        flags,
        (0x1BAD_B002_u32.wrapping_add(flags)).wrapping_neg(),
    ];
    let addresses = [0x30_0010_u32, 0x30_0000, 0x30_0100, 0x30_0200, 0x30_0040];
    for (i, w) in header.iter().chain(&addresses).enumerate() {
        put(&mut f, 0x20 + i * 4, &w.to_le_bytes());
    }
    ram.write(GuestPhys(0x30_0000), &[0xFF; 0x201]).expect("ram");
    let state = boot(&ram, &f, &[], "").expect("boots");
    assert_eq!(state.rip, 0x30_0040);
    assert_eq!(word(&ram, 0x30_0010), 0x1BAD_B002);
    assert_eq!(ram.read_array(GuestPhys(0x30_0100)), Ok([0; 0x100]));
    assert_eq!(ram.read_array(GuestPhys(0x30_0200)), Ok([0xFF]));
}

#[test]
fn a_pvh_elf_starts_at_its_note_with_start_info_in_ebx() {
    let ram = ram(16);
    let state = boot(&ram, &elf(false, true), &[(b"initrd", "i root=x")], "quiet").expect("boots");
    assert_eq!((state.mode, state.rip), (EntryMode::Protected32, 0x20_0008));
    let info = state.rbx;
    assert_eq!(
        (word(&ram, info), word(&ram, info + 4), word(&ram, info + 12)),
        (0x336E_C578, 1, 1)
    );
    assert_eq!(text(&ram, word(&ram, info + 24)), "quiet");
    assert_eq!(word(&ram, info + 32), acpi::RSDP);
    assert_eq!(word(&ram, info + 48), e820::map(ram.layout()).len() as u64);
    let list = word(&ram, info + 16);
    assert_eq!(ram.read_array(GuestPhys(word(&ram, list))), Ok(*b"initrd"));
    assert_eq!(
        (word(&ram, list + 8), text(&ram, word(&ram, list + 16))),
        (6, "root=x".into())
    );
}

#[test]
fn the_gdt_of_every_mode_has_the_segments_the_state_names() {
    for (image, code, cr0) in [
        (bzimage(), 0x00AF_9B00, 0x8000_0011),
        (elf(true, false), 0x00CF_9B00, 0x11),
    ] {
        let ram = ram(64);
        let state = boot(&ram, &image, &[], "").expect("boots");
        let descriptor = |selector: u16| word(&ram, state.gdt_base + u64::from(selector) + 4);
        assert_eq!(descriptor(state.selectors[0]), code);
        for data in &state.selectors[1..] {
            assert_eq!(descriptor(*data), 0x00CF_9300);
            assert!(data + 7 <= state.gdt_limit);
        }
        assert_eq!(state.cr0, cr0);
        assert_eq!((state.low_ram, state.high_ram), (64 << 20, 0));
    }
}

#[test]
fn refusals_name_what_is_wrong() {
    let ram = ram(16);
    assert_eq!(why(&ram, b"", &[], ""), LoadError::Empty);
    assert_eq!(
        why(&ram, b"#!/bin/sh", &[], "").to_string(),
        "Not a kernel: neither a bzImage nor a multiboot or PVH ELF (begins with 23 21 2f 62 69 6e 2f 73)"
    );
    assert_eq!(
        why(&ram, &[0x1F, 0x8B, 8, 0], &[], ""),
        LoadError::Compressed("gzip")
    );
    assert!(matches!(
        why(&ram, &elf(false, false), &[], ""),
        LoadError::NotAKernel(_)
    ));
    assert_eq!(
        why(&ram, &bzimage(), &[], "").to_string(),
        "The unpacked kernel of 4096 KiB at 0x1000000 does not lie in free RAM (16 MiB)"
    );
}

#[test]
fn a_large_initrd_is_refused_by_its_name() {
    let ram = ram(32);
    let large = vec![0; 40 << 20];
    let error = boot(&ram, &bzimage(), &[(&large, "big.cpio arg")], "").expect_err("refused");
    assert_eq!(
        error.to_string(),
        "big.cpio: The initrd of 40960 KiB does not fit into 32 MiB of RAM"
    );
    let error = boot(&ram, &bzimage(), &[(b"", "none.cpio")], "").expect_err("refused");
    assert_eq!(error.to_string(), "none.cpio: Empty file");
}

#[test]
fn truncated_kernels_are_refused_at_every_length() {
    let ram = ram(64);
    let whole = bzimage();
    for len in 1..whole.len() - 15 {
        let reason = why(&ram, &whole[..len], &[], "");
        assert!(
            matches!(reason, LoadError::Truncated { .. } | LoadError::NotAKernel(_)),
            "{len}: {reason}"
        );
    }
    let whole = elf(true, false);
    for len in 1..whole.len() {
        let reason = why(&ram, &whole[..len], &[], "");
        assert!(
            matches!(reason, LoadError::Truncated { .. } | LoadError::NotAKernel(_)),
            "{len}: {reason}"
        );
    }
}

#[test]
fn a_command_line_too_long_for_the_kernel_is_refused() {
    let long = "x".repeat(2048);
    assert_eq!(
        why(&ram(64), &bzimage(), &[], &long),
        LoadError::CommandLine { len: 2048, max: 2047 }
    );
}

#[test]
fn a_segment_outside_ram_or_over_the_bios_is_refused() {
    for at in [0_u32, 0x9_FC00, 0xF_0000, 0xFF_F000, 0xE000_0000, 0xFFFF_FFFF] {
        let mut image = elf(true, false);
        put(&mut image, 52 + 12, &at.to_le_bytes());
        put(&mut image, 52 + 20, &0x2000_u32.to_le_bytes());
        assert!(
            matches!(why(&ram(16), &image, &[], ""), LoadError::NotFree { .. }),
            "{at:#x}"
        );
    }
}

#[test]
fn too_little_ram_is_refused_before_anything_is_written() {
    let ram = ram(1);
    assert_eq!(why(&ram, &bzimage(), &[], ""), LoadError::TooLittleRam(1024));
    assert_eq!(ram.read_array(GuestPhys(0x400)), Ok([0; 256]));
}

/// Every byte outside what `prepare` may write keeps its value: there is none outside RAM, so panics and
/// `RamError` are what this looks for.
fn survives(image: &[u8], modules: &[(&[u8], &str)]) {
    let ram = ram(20);
    if let Err(error) = boot(&ram, image, modules, "x") {
        assert!(
            !matches!(error.reason, LoadError::Ram(_)),
            "a place outside RAM was not refused by name: {error}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn random_files_never_panic_and_never_leave_ram(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        survives(&bytes, &[]);
    }

    #[test]
    fn damaged_bzimages_never_panic_and_never_leave_ram(
        damage in proptest::collection::vec((0x1F0_usize..0x268, any::<u8>()), 1..8), len in 0x200_usize..1100,
    ) {
        let mut image = bzimage();
        for (at, byte) in damage {
            image[at] = byte;
        }
        image.truncate(len);
        survives(&image, &[(b"initrd", "i")]);
    }

    #[test]
    fn damaged_elves_never_panic_and_never_leave_ram(
        damage in proptest::collection::vec((0_usize..180, any::<u8>()), 1..8), len in 1_usize..300,
        multiboot in any::<bool>(),
    ) {
        let mut image = elf(multiboot, true);
        for (at, byte) in damage {
            image[at] = byte;
        }
        image.truncate(len);
        survives(&image, &[(b"module", "m a")]);
    }
}

#[test]
fn debians_kernels_are_understood() {
    for (variable, long) in [("QUINTET_KERNEL_AMD64", true), ("QUINTET_KERNEL_I686", false)] {
        let Some(path) = std::env::var_os(variable) else {
            assert!(
                std::env::var_os("CI").is_none(),
                "{variable} is not set: run cargo xtask test"
            );
            eprintln!("SKIPPED: {variable} is not set (cargo xtask test sets it)");
            continue;
        };
        let image = std::fs::read(path).expect("kernel file");
        let ram = ram(128);
        let state = boot(&ram, &image, &[(&[0; 1 << 20], "initrd")], "console=ttyS0").expect("boots");
        assert_eq!(state.mode == EntryMode::Long64, long);
        assert_ne!(ram.read_array(GuestPhys(state.rip)), Ok([0; 16]));
    }
}
