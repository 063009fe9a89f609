/* Tables that firmware leaves below 1 MiB for what does not read ACPI: SMBIOS, MultiProcessor, PCI interrupt routing. */
.include "defs.inc"
.code32
.section .text32, "ax"
.globl smbios_tables, mp_table, pir_table
smbios_tables:
    ret
mp_table:
    ret
pir_table:
    ret
