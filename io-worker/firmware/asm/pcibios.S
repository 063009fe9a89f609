/* INT 1Ah AH=B1h: the PCI BIOS 2.1. */
.include "defs.inc"
.code16
.section .text16, "ax"
.globl pci_bios
pci_bios:
    SET_CARRY
    mov byte ptr [bp + F_AH], 0x81
    ret
