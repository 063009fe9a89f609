//! What firmware makes of the files, done as QEMU's table loader says.

use std::collections::BTreeMap;

use super::*;

const MACHINE: Machine = Machine {
    cpus: 1,
    long_mode: true,
    cpuid_1: (0x0003_06C3, 0x1783_FBFF),
    com: [0x3F8, 0x2F8, 0, 0],
    ps2: true,
    fw_cfg: true,
    disks: 1,
};

fn offered(ram: u64) -> FwCfg {
    let mut fw_cfg = FwCfg::new();
    let boot = [ide_path(2), ide_path(1)];
    offer(&mut fw_cfg, MACHINE, RamLayout::new(ram), &boot).expect("offered");
    fw_cfg
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

/// Address and bytes of each file after the loader's commands.
fn load(fw_cfg: &FwCfg) -> BTreeMap<String, (u64, Vec<u8>)> {
    let script = fw_cfg.file("etc/table-loader").expect("commands");
    let text = |field: &[u8]| {
        let end = field.iter().position(|b| *b == 0).expect("ends");
        String::from_utf8(field[..end].to_vec()).expect("ASCII")
    };
    let mut files: BTreeMap<String, (u64, Vec<u8>)> = BTreeMap::new();
    let mut next = 0x0700_0040;
    for command in script.chunks(128) {
        let name = text(&command[4..60]);
        match word(command, 0) {
            1 => {
                let align = u64::from(word(command, 60));
                let bytes = fw_cfg.file(&name).expect("a file").to_vec();
                let at = match command[64] {
                    1 => next,
                    2 => 0xF_5A00,
                    zone => panic!("zone {zone}"),
                };
                assert_eq!(at % align, 0);
                next = (next + bytes.len() as u64).next_multiple_of(64) + 0x1000;
                files.insert(name, (at, bytes));
            }
            2 => {
                let to = files[&text(&command[60..116])].0;
                let (at, size) = (word(command, 116) as usize, usize::from(command[120]));
                let field = &mut files.get_mut(&name).expect("placed").1[at..at + size];
                let mut value = [0; 8];
                value[..size].copy_from_slice(field);
                field.copy_from_slice(&(u64::from_le_bytes(value) + to).to_le_bytes()[..size]);
            }
            3 => {
                let bytes = &mut files.get_mut(&name).expect("placed").1;
                let [at, start, len] = [60, 64, 68].map(|i| word(command, i) as usize);
                let sum = bytes[start..start + len]
                    .iter()
                    .fold(0_u8, |a, &b| a.wrapping_add(b));
                bytes[at] = bytes[at].wrapping_sub(sum);
            }
            other => panic!("command {other}"),
        }
    }
    files
}

#[test]
fn the_loader_leaves_tables_that_lead_from_one_to_the_next() {
    let files = load(&offered(64 << 20));
    let sum = |bytes: &[u8]| bytes.iter().fold(0_u8, |a, &b| a.wrapping_add(b));
    let (_, rsdp) = &files["etc/acpi/rsdp"];
    assert_eq!(
        (&rsdp[..8], sum(&rsdp[..20]), sum(rsdp)),
        (&b"RSD PTR "[..], 0, 0)
    );
    let table = |at: u32| {
        let (start, bytes) = &files["etc/acpi/tables"];
        let bytes = &bytes[(u64::from(at) - start) as usize..];
        let bytes = &bytes[..word(bytes, 4) as usize];
        assert_eq!(sum(bytes), 0, "{}", String::from_utf8_lossy(&bytes[..4]));
        bytes
    };
    let rsdt = table(word(rsdp, 16));
    let xsdt = table(word(rsdp, 24));
    let listed: Vec<u32> = (36..rsdt.len()).step_by(4).map(|i| word(rsdt, i)).collect();
    let wide: Vec<u32> = (36..xsdt.len()).step_by(8).map(|i| word(xsdt, i)).collect();
    assert_eq!(listed, wide);
    let names: Vec<&[u8]> = listed.iter().map(|at| &table(*at)[..4]).collect();
    assert_eq!(names, [b"FACP", b"APIC", b"HPET"]);
    let fadt = table(listed[0]);
    assert_eq!(&table(word(fadt, 40))[..4], b"DSDT");
    assert_eq!((word(fadt, 140), word(fadt, 144)), (word(fadt, 40), 0));
    let (facs_at, facs) = &files["etc/acpi/facs"];
    assert_eq!((u64::from(word(fadt, 36)), &facs[..4]), (*facs_at, &b"FACS"[..]));
}

#[test]
fn the_memory_map_is_the_ram_there_is() {
    let entry = |bytes: &[u8]| {
        let quad = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        (quad(0), quad(8), word(bytes, 16))
    };
    let map = |ram: u64| -> Vec<(u64, u64, u32)> {
        let fw_cfg = offered(ram);
        fw_cfg
            .file("etc/e820")
            .expect("a map")
            .chunks(20)
            .map(entry)
            .collect()
    };
    assert_eq!(map(64 << 20), [(0, 64 << 20, 1)]);
    assert_eq!(
        map(5 << 30),
        [(0, 3584 << 20, 1), (1 << 32, (5 << 30) - (3584 << 20), 1)]
    );
}

#[test]
fn the_boot_order_is_a_list_of_paths() {
    let fw_cfg = offered(64 << 20);
    assert_eq!(
        fw_cfg.file("bootorder"),
        Some(&b"/pci@i0cf8/ide@1,1/drive@1/disk@0\n/pci@i0cf8/ide@1,1/drive@0/disk@1\0"[..])
    );
}
