/* Tables that firmware leaves below 1 MiB for what does not read ACPI: SMBIOS, MultiProcessor, PCI interrupt routing, BIOS32. */
.include "defs.inc"
.include "pci_core.inc"
.code32
.section .text32, "ax"

/* The byte at EBX makes the sum of ECX bytes at EDI zero. */
seal:
    mov byte ptr [ebx], 0
    call sum
    neg al
    mov [ebx], al
    ret

.globl pir_table
pir_table:
    mov edi, offset pir + 0xF0000
    lea ebx, [edi + 31]
    mov ecx, offset pir_end
    sub ecx, offset pir
    call seal
    mov edi, offset bios32 + 0xF0000
    lea ebx, [edi + 10]
    mov ecx, 16
    jmp seal

/* Called far with EAX a service, EBX = 0: AL 0 and base EBX, length ECX, entry EDX; or AL 80h. */
.globl bios32_entry
bios32_entry:
    test bl, bl
    jnz 1f
    cmp eax, 0x49435024             /* "$PCI" */
    jne 2f
    mov ebx, 0xE0000
    mov ecx, 0x20000
    mov edx, offset pci_far
    sub edx, ebx
    mov al, 0
    retf
1:  mov al, 0x81
    retf
2:  mov al, 0x80
    retf

pci_far:
    cmp ah, 0xB1
    jne 3f
    pushfd                          /* the caller's interrupt flag, our carry */
    cli
    call pci_core32
    jc 1f
    and byte ptr [esp], 0xFE
    jmp 2f
1:  or byte ptr [esp], 1
2:  popfd
    retf
3:  mov ah, PCI_UNSUPPORTED
    stc
    retf
PCI_CORE pci_core32

/* ---- MultiProcessor specification 1.4 ---- */
.set IO_APIC, 0xFEC00000
.globl mp_table
mp_table:
    mov eax, 1                      /* without a local APIC there is nothing to tell */
    cpuid
    test edx, 1 << 9
    jz 9f
    mov [0xF0000 + cpu_signature], eax
    mov [0xF0000 + cpu_features], edx
    movzx ecx, word ptr [0xF0000 + cpu_count]
    cmp ecx, 64
    jbe 1f
    mov ecx, 64
1:  mov ebp, ecx
    imul ecx, ecx, 20
    add ecx, 16 + 44 + mp_rest_end - mp_rest + 124 * 8
    mov eax, 16
    call allocate_low
    test eax, eax
    jz 9f
    mov edi, eax
    mov esi, offset mp_pointer
    mov ecx, 16 / 4
    rep movsd
    mov [eax + 4], edi
    push edi                        /* the table */
    mov esi, offset mp_header
    mov ecx, 44 / 4
    rep movsd
    xor ecx, ecx
2:  mov byte ptr [edi], 0           /* a processor; the first is the bootstrap one */
    mov [edi + 1], cl
    mov byte ptr [edi + 2], 0x14
    mov byte ptr [edi + 3], 1
    test ecx, ecx
    jnz 3f
    mov byte ptr [edi + 3], 3
3:  mov eax, [0xF0000 + cpu_signature]
    mov [edi + 4], eax
    mov eax, [0xF0000 + cpu_features]
    mov [edi + 8], eax
    mov dword ptr [edi + 12], 0
    mov dword ptr [edi + 16], 0
    add edi, 20
    inc ecx
    cmp ecx, ebp
    jb 2b
    mov esi, offset mp_rest
    mov ecx, offset mp_rest_end
    sub ecx, esi
    rep movsb
    mov ecx, 4                      /* PCI pins: slot * 4 + pin, to the line their PIRQ goes to */
4:  mov byte ptr [edi], 3
    mov byte ptr [edi + 1], 0
    mov word ptr [edi + 2], 0x0D
    mov byte ptr [edi + 4], 0
    mov [edi + 5], cl
    mov byte ptr [edi + 6], 0
    mov eax, ecx
    shr eax, 2
    lea eax, [eax + ecx - 1]
    and eax, 3
    mov al, [pirq_lines + eax]
    mov [edi + 7], al
    add edi, 8
    inc ecx
    cmp ecx, 128
    jb 4b
    pop esi
    mov ecx, edi
    sub ecx, esi
    mov [esi + 4], cx
    lea eax, [ebp + MP_REST_ENTRIES + 124]
    mov [esi + 34], ax
    mov edi, esi
    lea ebx, [esi + 7]
    call seal
    lea edi, [esi - 16]
    lea ebx, [edi + 10]
    mov ecx, 16
    jmp seal
9:  ret

/* ---- SMBIOS: fw_cfg's tables behind a type 0 of ours; without fw_cfg's, a type 1 and the end ---- */
.globl smbios_tables
smbios_tables:
    mov esi, offset name_tables
    call fw_cfg_file
    mov ebp, eax                    /* its item, or 0 */
    jnc 1f
    xor ebp, ebp
    mov ecx, offset type_1_end
    sub ecx, offset type_1
1:  push ecx
    add ecx, offset type_0_end
    sub ecx, offset type_0
    mov eax, 16
    call allocate_high
    mov edi, eax
    push edi
    mov esi, offset type_0
    mov ecx, offset type_0_end
    sub ecx, esi
    rep movsb
    mov ecx, [esp + 4]
    test ebp, ebp
    jz 2f
    mov eax, ebp
    call fw_cfg_read
    jmp 3f
2:  mov esi, offset type_1
    rep movsb
3:  mov ecx, 32
    mov eax, 16
    call allocate_low
    test eax, eax
    jz 9f
    mov edi, eax
    mov ebx, eax
    mov esi, offset anchor
    mov ecx, 31
    rep movsb
    test ebp, ebp
    jz 4f
    mov esi, offset name_anchor
    call fw_cfg_file
    jc 4f
    cmp ecx, 31
    jne 4f
    mov edi, ebx
    call fw_cfg_read
    inc word ptr [ebx + 0x1C]
4:  mov eax, [esp]                  /* address */
    mov [ebx + 0x18], eax
    mov ecx, [esp + 4]
    add ecx, offset type_0_end
    sub ecx, offset type_0
    mov [ebx + 0x16], cx
    mov eax, offset type_0_end
    sub eax, offset type_0
    cmp [ebx + 8], ax
    jae 5f
    mov [ebx + 8], ax
5:  push ebx
    lea edi, [ebx + 0x10]           /* the inner sum first */
    lea ebx, [edi + 5]
    mov ecx, 15
    call seal
    pop edi
    lea ebx, [edi + 4]
    mov ecx, 31
    call seal
9:  add esp, 8
    ret

.section .rodata32, "a"
.balign 4
mp_pointer:
    .ascii "_MP_"
    .long 0
    .byte 1, 4, 0, 0, 0, 0, 0, 0
mp_header:
    .ascii "PCMP"
    .word 0
    .byte 4, 0
    .ascii "QUINTET PC          "
    .long 0
    .word 0, 0
    .long 0xFEE00000
    .long 0
mp_rest:                            /* buses, I/O APIC, ISA lines (line 0 on pin 2, 9 by level), LINT0 and LINT1 */
    .byte 1, 0
    .ascii "PCI   "
    .byte 1, 1
    .ascii "ISA   "
    .byte 2, 0, 0x11, 1
    .long IO_APIC
    .byte 3, 0, 0, 0, 1, 0, 0, 2
    .irp line, 1, 3, 4, 5, 6, 7, 8
    .byte 3, 0, 0, 0, 1, \line, 0, \line
    .endr
    .byte 3, 0, 0x0D, 0, 1, 9, 0, 9
    .irp line, 12, 13, 14, 15
    .byte 3, 0, 0, 0, 1, \line, 0, \line
    .endr
    .byte 4, 3, 0, 0, 1, 0, 0, 0
    .byte 4, 1, 0, 0, 1, 0, 0xFF, 1
mp_rest_end:
.set MP_REST_ENTRIES, (mp_rest_end - mp_rest) / 8

name_tables: .asciz "etc/smbios/smbios-tables"
name_anchor: .asciz "etc/smbios/smbios-anchor"
.balign 4
anchor:
    .ascii "_SM_"
    .byte 0, 31, 2, 8
    .word 64
    .byte 0, 0, 0, 0, 0, 0
    .ascii "_DMI_"
    .byte 0
    .word 0
    .long 0
    .word 3
    .byte 0x28
type_0:                             /* BIOS information (SMBIOS 2.8, 7.1) */
    .byte 0, 24
    .word 0
    .byte 1, 2
    .word 0xE000
    .byte 3, 1                      /* 128 KiB */
    .quad 0x0000000000018890        /* PCI, shadowing, CD boot, selectable boot, EDD */
    .byte 0x01, 0x04                /* ACPI; targeted content */
    .byte 0, 1, 0xFF, 0xFF
    .asciz "Quintet"
    .asciz "1"
    .asciz "11/21/2026"
    .byte 0
type_0_end:
type_1:                             /* system information */
    .byte 1, 27
    .word 1
    .byte 1, 2, 0, 0
    .fill 16, 1, 0
    .byte 6, 0, 0
    .asciz "Quintet"
    .asciz "PC (i440FX + PIIX, 1996)"
    .byte 0
    .byte 127, 4
    .word 2
    .byte 0, 0
type_1_end:
