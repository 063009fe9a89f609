/* The first half of POST, flat 32-bit: shadow RAM, memory, PCI, tables, processor registers, memory map. */
.include "defs.inc"
.code32
.set STACK, 0x7000
.set ROM_HIGH, 0xFFFE0000
.set EBDA, 0x9FC00
.set HOLE, 0xE0000000           /* RAM ends here at the latest */

.section .text32, "ax"
.globl post32
post32:                         /* at its address below 4 GiB, because below 1 MiB the RAM still has to be filled */
    mov ax, 0x10
    mov ds, ax
    mov es, ax
    mov fs, ax
    mov gs, ax
    mov ss, ax
    mov esp, STACK
    mov eax, 0x80000058         /* i440FX: PAM0 at 59h, F0000h-FFFFFh; the others at 5Ah to 5Fh */
    mov dx, 0xCF8
    out dx, eax
    mov dx, 0xCFD
    mov al, 0x30
    out dx, al
    inc dx
    mov al, 0x33
    out dx, al
    inc dx
    out dx, al
    mov eax, 0x8000005C
    mov dx, 0xCF8
    out dx, eax
    mov dx, 0xCFC
    mov eax, 0x33333333
    out dx, eax
    mov esi, ROM_HIGH
    mov edi, 0xE0000
    mov ecx, 0x20000 / 4
    rep movsd
    mov eax, offset low
    jmp eax

low:
    mov esi, offset vga_rom_image
    mov edi, 0xC0000
    mov ecx, offset vga_rom_end
    sub ecx, esi
    shr ecx, 2
    rep movsd
    mov ecx, 0xE0000            /* what an earlier boot left there is no option ROM */
    sub ecx, edi
    shr ecx, 2
    xor eax, eax
    rep stosd
    push dword ptr [0x400 + BDA_RESET_FLAG]
    xor edi, edi                /* vectors and data areas */
    mov ecx, 0x600 / 4
    rep stosd
    mov edi, EBDA
    mov ecx, 1024 / 4
    rep stosd
    pop eax
    mov [0x400 + BDA_RESET_FLAG], ax

    call memory_size
    call pci_set_up
    call monitor_data
    call fw_cfg_find
    call boot_order_read
    call acpi_tables
    call smbios_tables
    call mp_table
    call pir_table
    call memory_map
    call processor
    lgdt [gdt32_pointer]
    ljmp 0x18, offset return_to_real

/* The monitor's EDID, at the beginning of the VGA's BAR 2, to where its BIOS looks for it. */
.set EDID, 0xC0100
monitor_data:
    mov ebx, 0x80000000
1:  mov eax, ebx
    call pci_read
    cmp eax, 0x11111234
    je 2f
    add ebx, 0x800
    test ebx, 0x10000
    jz 1b
    ret
2:  lea eax, [ebx + 0x18]
    call pci_read
    mov esi, eax
    and esi, 0xFFFFFFF0
    jz 9f
    cmp dword ptr [esi], 0xFFFFFF00
    jne 9f
    mov edi, EDID
    mov ecx, 128 / 4
    rep movsd
9:  ret

/* RAM below and above 4 GiB, from the CMOS (QEMU's registers 34h, 35h and 5Bh to 5Dh, in units of 64 KiB). */
memory_size:
    mov ah, 0x35
    call cmos
    mov bh, al
    mov ah, 0x34
    call cmos
    mov bl, al
    movzx eax, bx
    shl eax, 16
    add eax, 0x1000000
    test bx, bx
    jnz 1f
    mov ah, 0x31                /* KiB from 1 MiB on */
    call cmos
    mov bh, al
    mov ah, 0x30
    call cmos
    mov bl, al
    movzx eax, bx
    shl eax, 10
    add eax, 0x100000
1:  mov [0xF0000 + ram_low], eax
    mov [0xF0000 + tables_bottom], eax
    mov ah, 0x5D
    call cmos
    movzx ebx, al
    shl ebx, 8
    mov ah, 0x5C
    call cmos
    mov bl, al
    shl ebx, 8
    mov ah, 0x5B
    call cmos
    mov bl, al
    mov [0xF0000 + ram_high], ebx
    ret

cmos:
    mov al, ah
    or al, 0x80
    out CMOS, al
    in al, CMOS + 1
    ret

/* ECX bytes at the top of low RAM, at a multiple of EAX: address in EAX. They will be reserved in the map. */
.globl allocate_high
allocate_high:
    push ebx
    mov ebx, eax
    neg ebx
    mov eax, [0xF0000 + tables_bottom]
    sub eax, ecx
    and eax, ebx
    mov [0xF0000 + tables_bottom], eax
    pop ebx
    ret

/* ECX bytes in the BIOS segment at a multiple of EAX: address in EAX, 0 when there is no room. */
.globl allocate_low
allocate_low:
    push ebx
    push edx
    mov ebx, [0xF0000 + low_next]
    dec eax
    add ebx, eax
    not eax
    and ebx, eax
    mov eax, ebx
    add ebx, ecx
    cmp ebx, offset low_pool_end + 0xF0000
    ja 1f
    mov [0xF0000 + low_next], ebx
    jmp 2f
1:  xor eax, eax
2:  pop edx
    pop ebx
    ret

/* Adds a line to the memory map: EAX start, ECX length, EDX type. */
map_add:
    mov [edi], eax
    mov dword ptr [edi + 4], 0
    mov [edi + 8], ecx
    mov dword ptr [edi + 12], 0
    mov [edi + 16], edx
    add edi, 20
    ret

memory_map:
    mov edi, offset e820_table + 0xF0000
    mov edx, 1
    xor eax, eax
    mov ecx, EBDA
    call map_add
    mov edx, 2
    mov eax, EBDA
    mov ecx, 0xA0000 - EBDA
    call map_add
    mov eax, 0xF0000
    mov ecx, 0x10000
    call map_add
    and dword ptr [0xF0000 + tables_bottom], 0xFFFFF000
    mov eax, 0x100000
    mov ecx, [0xF0000 + tables_bottom]
    sub ecx, eax
    mov edx, 1
    call map_add
    mov edx, 2
    mov eax, [0xF0000 + tables_bottom]
    mov ecx, [0xF0000 + ram_low]
    sub ecx, eax
    jz 1f
    call map_add
1:  mov eax, 0xFEC00000
    mov ecx, 0x1000
    call map_add
    mov eax, 0xFED00000
    mov ecx, 0x400
    call map_add
    mov eax, 0xFEE00000
    mov ecx, 0x1000
    call map_add
    mov eax, 0xFFFC0000
    mov ecx, 0x40000
    call map_add
    mov eax, [0xF0000 + ram_high]
    test eax, eax
    jz 2f
    mov edx, eax
    shl eax, 16
    shr edx, 16
    mov dword ptr [edi], 0
    mov dword ptr [edi + 4], 1
    mov [edi + 8], eax
    mov [edi + 12], edx
    mov dword ptr [edi + 16], 1
    add edi, 20
2:  sub edi, offset e820_table + 0xF0000
    mov [0xF0000 + e820_length], di
    ret

/* Memory types as on any PC, and the 8259 through LINT0. */
processor:
    pushfd                      /* without CPUID there is none of it */
    pop eax
    mov ecx, eax
    xor eax, 0x200000
    push eax
    popfd
    pushfd
    pop eax
    cmp eax, ecx
    je 9f
    push ecx
    popfd
    mov eax, 1
    cpuid
    mov [0xF0000 + cpu_signature], eax
    mov [0xF0000 + cpu_features], edx
    mov ebp, edx
    test ebp, 1 << 12           /* MTRR */
    jz 3f
    mov ecx, 0xFE
    rdmsr
    mov ebx, eax
    mov ecx, 0x2FF              /* off while they change */
    xor eax, eax
    xor edx, edx
    wrmsr
    test bh, 1                  /* fixed ranges: RAM write-back, video memory uncached, ROMs write-protected */
    jz 2f
    mov esi, offset fixed_mtrrs
1:  movzx ecx, word ptr [esi]
    mov eax, [esi + 2]
    mov edx, eax
    wrmsr
    add esi, 6
    cmp esi, offset fixed_mtrrs_end
    jb 1b
2:  test bl, bl
    jz 4f
    mov eax, 0x80000000
    cpuid
    mov edx, 0xF                /* 36 bits of address unless CPUID says more */
    cmp eax, 0x80000008
    jb 5f
    mov eax, 0x80000008
    cpuid
    mov ecx, eax
    sub ecx, 32
    jbe 5f
    mov edx, 1
    shl edx, cl
    dec edx
5:  mov esi, edx
    mov ecx, 0x200              /* HOLE to 4 GiB uncached */
    mov eax, HOLE
    xor edx, edx
    wrmsr
    inc ecx
    mov eax, HOLE + 0x800
    mov edx, esi
    wrmsr
4:  mov ecx, 0x2FF
    mov eax, 0x806
    test bh, 1
    jz 6f
    or eax, 0x400
6:  xor edx, edx
    wrmsr
3:  test ebp, 1 << 9            /* local APIC */
    jz 9f
    mov eax, [0xFEE000F0]
    or eax, 0x100
    mov [0xFEE000F0], eax
    mov dword ptr [0xFEE00350], 0x700
    mov dword ptr [0xFEE00360], 0x400
9:  ret

.section .rodata32, "a"
fixed_mtrrs:
    .word 0x250
    .long 0x06060606
    .word 0x258
    .long 0x06060606
    .word 0x259
    .long 0
    .irp msr, 0x268, 0x269, 0x26A, 0x26B, 0x26C, 0x26D, 0x26E, 0x26F
    .word \msr
    .long 0x05050505
    .endr
fixed_mtrrs_end:
.balign 8
gdt32:
    .quad 0
    .quad 0x00CF9B000000FFFF
    .quad 0x00CF93000000FFFF
    .quad 0x00009B0F0000FFFF
    .quad 0x000093000000FFFF
gdt32_end:
gdt32_pointer:
    .word gdt32_end - gdt32 - 1
    .long gdt32

.section .vgarom, "a"
.balign 4
vga_rom_image:
    .incbin "vga.bin"
vga_rom_end:

/* What POST leaves for the services. */
.section .data16, "aw"
.balign 4
.globl ram_low, ram_high, e820_table, e820_length, tables_bottom, cpu_signature, cpu_features
ram_low:        .long 0
ram_high:       .long 0             /* units of 64 KiB */
tables_bottom:  .long 0
cpu_signature:  .long 0
cpu_features:   .long 0
e820_length:    .word 0
.balign 4
e820_table:     .fill 20 * 12, 1, 0
low_next:       .long 0xF0000 + low_pool
.balign 16
low_pool:       .fill 4096, 1, 0
.globl low_pool_end
low_pool_end:
