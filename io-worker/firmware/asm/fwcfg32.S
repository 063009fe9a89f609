/* The configuration device of QEMU (docs/specs/fw_cfg.rst): files by name, and the ACPI tables that its loader script
 * describes (hw/acpi/bios-linker-loader.c states the format: commands of 128 bytes, names of 56). */
.include "defs.inc"
.code32
.section .text32, "ax"
.set DESCRIPTOR, 0x6F00         /* scratch: the DMA descriptor */
.set DIRECTORY, 0x20000         /* scratch: count and up to 1023 files, big-endian */
.set SCRIPT, 0x30000            /* scratch: etc/table-loader */
.set PLACES, 0x50000            /* scratch: name (56 bytes) and address (4) of each file loaded */

/* Reads ECX bytes of item AX to EDI. Port 518h starts the transfer. */
.globl fw_cfg_read
fw_cfg_read:
    pushad
    shl eax, 16
    or eax, 0x0A                /* select, read */
    bswap eax
    mov [DESCRIPTOR], eax
    bswap ecx
    mov [DESCRIPTOR + 4], ecx
    mov dword ptr [DESCRIPTOR + 8], 0
    bswap edi
    mov [DESCRIPTOR + 12], edi
    xor eax, eax
    mov dx, 0x514
    out dx, eax
    mov eax, DESCRIPTOR
    bswap eax
    mov dx, 0x518
    out dx, eax
1:  mov eax, [DESCRIPTOR]
    and eax, 0xFEFFFFFF         /* only the error bit may be left */
    jnz 1b
    popad
    ret

/* Is there one, with DMA? Then the directory is read. */
.globl fw_cfg_find
fw_cfg_find:
    mov dword ptr [DIRECTORY], 0
    mov dx, 0x510
    xor ax, ax
    out dx, ax
    inc dx
    mov esi, offset signature
    mov ecx, 4
1:  in al, dx
    cmp al, [esi]
    jne 9f
    inc esi
    loop 1b
    dec dx
    mov ax, 1
    out dx, ax
    inc dx
    in al, dx
    test al, 2
    jz 9f
    mov ax, 0x19
    mov edi, DIRECTORY
    mov ecx, 0xFFC0
    call fw_cfg_read
    mov eax, [DIRECTORY]
    bswap eax
    cmp eax, 1023
    jbe 2f
    xor eax, eax
2:  mov [DIRECTORY], eax
    mov ax, 5                   /* processors */
    mov edi, offset cpu_count + 0xF0000
    mov ecx, 2
    call fw_cfg_read
9:  ret

/* The file named at ESI: item in EAX, length in ECX; carry when there is none. */
.globl fw_cfg_file
fw_cfg_file:
    push edi
    push edx
    push esi
    mov edx, [DIRECTORY]
    mov edi, DIRECTORY + 4
1:  sub edx, 1
    jc 9f
    mov esi, [esp]
    push edi
    add edi, 8
2:  mov al, [esi]
    cmp al, [edi]
    jne 3f
    inc esi
    inc edi
    test al, al
    jnz 2b
    pop edi
    mov ecx, [edi]
    bswap ecx
    movzx eax, word ptr [edi + 4]
    xchg al, ah
    clc
    jmp 9f
3:  pop edi
    add edi, 64
    jmp 1b
9:  pop esi
    pop edx
    pop edi
    ret

.globl acpi_tables
acpi_tables:
    mov dword ptr [PLACES], 0
    mov esi, offset name_loader
    call fw_cfg_file
    jc 9f
    cmp ecx, 0x10000
    ja 9f
    mov edi, SCRIPT
    call fw_cfg_read
    lea ebp, [edi + ecx]        /* end of the script */
    mov esi, edi
1:  lea eax, [esi + 128]
    cmp eax, ebp
    ja 9f
    push esi
    push ebp
    mov eax, [esi]
    cmp eax, 1
    jne 2f
    call load_file
2:  cmp eax, 2
    jne 3f
    call add_pointer
3:  cmp eax, 3
    jne 4f
    call add_checksum
4:  pop ebp
    pop esi
    add esi, 128
    jmp 1b
9:  ret

/* 1: file, alignment, zone (1 anywhere, 2 in the BIOS segment). */
load_file:
    push esi
    add esi, 4
    call fw_cfg_file
    pop esi
    jc 8f
    mov ebx, eax
    mov eax, [esi + 60]
    cmp byte ptr [esi + 64], 2
    je 1f
    call allocate_high
    jmp 2f
1:  call allocate_low
    test eax, eax
    jz 8f
2:  mov edi, eax
    mov eax, ebx
    call fw_cfg_read
    mov ebx, edi
    mov edi, PLACES
3:  cmp byte ptr [edi], 0
    je 4f
    add edi, 60
    jmp 3b
4:  add esi, 4
    mov ecx, 56 / 4
    rep movsd
    mov [edi], ebx
    mov byte ptr [edi + 4], 0
8:  xor eax, eax
    ret

/* Address in EAX of the loaded file named at EDX, 0 for none. */
place:
    push esi
    push edi
    push ecx
    mov edi, PLACES
1:  xor eax, eax
    cmp byte ptr [edi], 0
    je 3f
    mov esi, edx
    push edi
    mov ecx, 56
    repe cmpsb
    pop edi
    je 2f
    add edi, 60
    jmp 1b
2:  mov eax, [edi + 56]
3:  pop ecx
    pop edi
    pop esi
    ret

/* 2: pointer in this file, to that one, at this offset, of this size. */
add_pointer:
    lea edx, [esi + 4]
    call place
    test eax, eax
    jz 8f
    mov edi, eax
    add edi, [esi + 116]
    lea edx, [esi + 60]
    call place
    test eax, eax
    jz 8f
    mov cl, [esi + 120]
    cmp cl, 4
    jb 1f
    add [edi], eax
    cmp cl, 8
    jne 8f
    adc dword ptr [edi + 4], 0
    jmp 8f
1:  cmp cl, 2
    jb 2f
    add [edi], ax
    jmp 8f
2:  add [edi], al
8:  xor eax, eax
    ret

/* 3: file, offset of the checksum, start and length of what it covers. */
add_checksum:
    lea edx, [esi + 4]
    call place
    test eax, eax
    jz 8f
    mov edi, eax
    add edi, [esi + 64]
    mov ecx, [esi + 68]
    mov ebx, [esi + 60]
    add ebx, eax
    call sum
    sub [ebx], al
8:  xor eax, eax
    ret

/* Sum in AL of ECX bytes at EDI. */
.globl sum
sum:
    xor al, al
    jecxz 2f
1:  add al, [edi]
    inc edi
    dec ecx
    jnz 1b
2:  ret

.section .rodata32, "a"
signature:   .ascii "QEMU"
name_loader: .asciz "etc/table-loader"

.section .data16, "aw"
.balign 4
.globl cpu_count
cpu_count: .word 1
