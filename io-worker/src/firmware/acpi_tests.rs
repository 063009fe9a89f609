//! The tables as a guest finds them, and as ACPICA's disassembler reads them where it is installed.

use super::*;
use quintet_protocol::addr::GuestPhys;
use quintet_protocol::ram::RamLayout;

const MACHINE: Machine = Machine {
    cpus: 2,
    com: [0x3F8, 0x2F8, 0, 0],
    ps2: true,
    fw_cfg: true,
};

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |a, &b| a.wrapping_add(b))
}

fn written() -> GuestRam {
    let ram = GuestRam::anonymous(RamLayout::new(16 << 20)).expect("ram");
    write(&ram, MACHINE).expect("written");
    ram
}

fn word32(ram: &GuestRam, at: u64) -> u64 {
    u64::from(u32::from_le_bytes(ram.read_array(GuestPhys(at)).expect("ram")))
}

/// The table at `at`, whose checksum is checked.
fn read_table(ram: &GuestRam, at: u64) -> Vec<u8> {
    let mut t = vec![0; word32(ram, at + 4) as usize];
    ram.read(GuestPhys(at), &mut t).expect("table");
    assert_eq!(sum(&t), 0, "{}", String::from_utf8_lossy(&t[..4]));
    t
}

/// Signature and address of all tables, found as a guest finds them.
fn all(ram: &GuestRam) -> Vec<(String, u64)> {
    let rsdt = word32(ram, RSDP + 16);
    let mut found = vec![("RSDT".into(), rsdt), ("XSDT".into(), word32(ram, RSDP + 24))];
    let entries = (word32(ram, rsdt + 4) - 36) / 4;
    for i in 0..entries {
        let at = word32(ram, rsdt + 36 + i * 4);
        let t = read_table(ram, at);
        found.push((String::from_utf8_lossy(&t[..4]).into_owned(), at));
    }
    let fadt = found.iter().find(|(n, _)| n == "FACP").expect("FADT").1;
    found.push(("DSDT".into(), word32(ram, fadt + 40)));
    found
}

#[test]
fn every_table_is_found_and_adds_up() {
    let ram = written();
    let names: Vec<String> = all(&ram)
        .into_iter()
        .map(|(n, at)| {
            read_table(&ram, at);
            n
        })
        .collect();
    assert_eq!(names, ["RSDT", "XSDT", "FACP", "APIC", "HPET", "DSDT"]);
}

#[test]
fn rsdt_and_xsdt_name_the_same_tables() {
    let ram = written();
    let (rsdt, xsdt) = (
        read_table(&ram, word32(&ram, RSDP + 16)),
        read_table(&ram, word32(&ram, RSDP + 24)),
    );
    let narrow: Vec<u64> = rsdt[36..]
        .chunks_exact(4)
        .map(|c| u64::from(u32::from_le_bytes(c.try_into().expect("4"))))
        .collect();
    let wide: Vec<u64> = xsdt[36..]
        .chunks_exact(8)
        .map(|c| u64::from_le_bytes(c.try_into().expect("8")))
        .collect();
    assert_eq!(narrow, wide);
}

#[test]
fn both_checksums_of_the_rsdp_hold() {
    let ram = written();
    let rsdp: [u8; 36] = ram.read_array(GuestPhys(RSDP)).expect("rsdp");
    assert_eq!((sum(&rsdp[..20]), sum(&rsdp)), (0, 0));
}

#[test]
fn tables_lie_where_the_memory_map_says_and_the_facs_where_it_may_be_written() {
    let ram = written();
    let map = e820::map(ram.layout());
    let kind_at = |at| map.iter().find(|e| e.range().contains(&at)).map(|e| e.kind);
    for (name, at) in all(&ram) {
        assert_eq!(kind_at(at), Some(e820::Kind::Acpi), "{name}");
    }
    let fadt = all(&ram).into_iter().find(|(n, _)| n == "FACP").expect("FADT").1;
    let facs = word32(&ram, fadt + 36);
    assert_eq!(ram.read_array(GuestPhys(facs)), Ok(*b"FACS"));
    assert_eq!(kind_at(facs), Some(e820::Kind::Nvs));
    assert_eq!(facs % 64, 0);
}

#[test]
fn the_timer_is_overridden_to_pin_2_and_the_sci_is_level() {
    let ram = written();
    let madt = read_table(
        &ram,
        all(&ram).into_iter().find(|(n, _)| n == "APIC").expect("MADT").1,
    );
    let mut overrides = Vec::new();
    let mut at = 44;
    while at < madt.len() {
        if madt[at] == 2 {
            overrides.push((madt[at + 3], madt[at + 4], madt[at + 8]));
        }
        at += usize::from(madt[at + 1]);
    }
    assert_eq!(overrides[0], (0, 2, 0));
    assert!(overrides.contains(&(9, 9, 0x0D)));
}

#[test]
fn iasl_disassembles_every_table_without_complaint() {
    let Ok(version) = std::process::Command::new("iasl").arg("-v").output() else {
        assert!(
            std::env::var_os("CI").is_none(),
            "iasl is missing: apt-get install acpica-tools"
        );
        eprintln!("SKIPPED: no iasl (apt-get install acpica-tools)");
        return;
    };
    assert!(version.status.success());
    let ram = written();
    let dir = std::env::temp_dir().join(format!("quintet-acpi-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("scratch directory");
    for (name, at) in all(&ram) {
        let file = dir.join(format!("{name}.dat"));
        std::fs::write(&file, read_table(&ram, at)).expect("table file");
        let run = |args: &[&str], file: &std::path::Path| {
            let out = std::process::Command::new("iasl")
                .args(args)
                .arg(file)
                .output()
                .expect("iasl");
            let said = format!(
                "{}{}",
                String::from_utf8_lossy(&out.stdout),
                String::from_utf8_lossy(&out.stderr)
            );
            assert!(out.status.success(), "{name}: {said}");
            said
        };
        let said = run(&["-d"], &file);
        for word in ["Invalid", "Error", "Warning", "unknown", "Could not"] {
            assert!(!said.contains(word), "{name}: {said}");
        }
        // What comes back must compile again: AML that only looks right does not.
        let said = run(
            &["-f", "-p", &dir.join("again").to_string_lossy()],
            &dir.join(format!("{name}.dsl")),
        );
        assert!(said.contains(" 0 Errors"), "{name}: {said}");
        if name == "DSDT" {
            assert!(said.contains(" 0 Warnings"), "{name}: {said}");
        }
    }
    std::fs::remove_dir_all(&dir).expect("scratch directory removed");
}
