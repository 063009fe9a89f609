/* The PCI BIOS 2.1: INT 1Ah AH=B1h. */
.include "defs.inc"
.include "pci_core.inc"
.code16
.section .text16, "ax"
PCI_CORE pci_core16

.globl pci_bios
pci_bios:
    mov al, [bp + F_AL]
    cmp al, 0x0E
    je routing
    mov ebx, [bp + F_EBX]
    mov ecx, [bp + F_ECX]
    mov edx, [bp + F_EDX]
    mov esi, [bp + F_ESI]
    mov edi, [bp + F_EDI]
    call pci_core16
    mov [bp + F_EBX], bx
    mov [bp + F_ECX], ecx
    mov [bp + F_EDX], edx
    mov [bp + F_EAX], ax
finish:
    jc 1f
    CLEAR_CARRY
    ret
1:  SET_CARRY
    ret

/* 0Eh: the routing table. ES:DI: length of the buffer, far pointer to it. */
routing:
    mov es, [bp + F_ES]
    mov di, [bp + F_EDI]
    mov ax, es:[di]
    mov word ptr es:[di], PIR_SLOTS * 16
    mov word ptr [bp + F_EBX], 0    /* no line is PCI's alone */
    cmp ax, PIR_SLOTS * 16
    mov byte ptr [bp + F_AH], 0x89
    jb 1b
    les di, es:[di + 2]
    mov si, offset pir_slots
    mov cx, PIR_SLOTS * 8
    rep movsw es:[di], cs:[si]
    mov byte ptr [bp + F_AH], 0
    CLEAR_CARRY
    ret

/* The PCI interrupt routing table (PCI IRQ routing table specification 1.0): each pin's link is the router's register. */
.set PIR_SLOTS, 31
.section .data16, "aw"
.balign 16
.globl pir, pir_end
pir:
    .ascii "$PIR"
    .word 0x0100
    .word pir_end - pir
    .byte 0, 0x08                   /* router: slot 1 */
    .word 0
    .long 0x122E8086                /* compatible with the PIIX */
    .long 0
    .fill 11, 1, 0
    .byte 0                         /* checksum: POST's */
pir_slots:
    .set slot, 1
    .rept PIR_SLOTS
    .byte 0, slot << 3
    .irp pin, 0, 1, 2, 3
    .byte 0x60 + ((slot + \pin - 1) & 3)
    .word 0x0C20                    /* 5, 10, 11 */
    .endr
    .byte 0, 0
    .set slot, slot + 1
    .endr
pir_end:
.balign 16
.globl bios32
bios32:                             /* the BIOS32 directory (its specification, revision 0.4) */
    .ascii "_32_"
    .long bios32_entry
    .byte 0, 1, 0                   /* revision, paragraphs, checksum: POST's */
    .fill 5, 1, 0
