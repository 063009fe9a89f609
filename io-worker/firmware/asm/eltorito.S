/* CDs that boot (El Torito 1.0): the catalogue, images that stand for a diskette or hard disk, INT 13h AH=4Bh. */
.include "defs.inc"
.code16
.section .text16, "ax"
.set CATALOGUE, 0x7C00          /* scratch in segment 0 */

/* Boots from the CD whose number is BL; returns when it cannot, a message in SI. */
.globl boot_cd
boot_cd:
    push 0x40
    pop ds
    mov fs, ds:[BDA_EBDA]
    xor bh, bh
    mov al, fs:[EBDA_CD_MAP + bx]
    mov dh, bl
    add dh, 0xE0
    push dx
    mov fs:[EBDA_EMU + EMU_CD], al
    call drive_entry
    call cd_ready
    mov di, offset no_medium
    jc 9f
    mov eax, 17                 /* the boot record */
    call catalogue_read
    mov di, offset unreadable
    jc 9f
    push si
    mov si, offset boot_record
    mov di, CATALOGUE
    mov cx, 30
    repe cmpsb cs:[si], es:[di]
    pop si
    mov di, offset not_bootable
    jne 9f
    mov eax, es:[CATALOGUE + 0x47]
    call catalogue_read
    mov di, offset unreadable
    jc 9f
    mov di, offset not_bootable
    cmp word ptr es:[CATALOGUE], 1      /* validation entry of an 80x86 */
    jne 9f
    cmp word ptr es:[CATALOGUE + 0x1E], 0xAA55
    jne 9f
    cmp byte ptr es:[CATALOGUE + 0x20], 0x88
    jne 9f
    mov al, es:[CATALOGUE + 0x21]
    and al, 15
    cmp al, 4
    ja 9f
    push ax
    mov ax, es:[CATALOGUE + 0x22]
    test ax, ax
    jnz 1f
    mov ax, 0x7C0
1:  mov fs:[EBDA_EMU + EMU_SEGMENT], ax
    mov cx, es:[CATALOGUE + 0x26]
    test cx, cx
    jnz 2f
    mov cx, 4
2:  mov fs:[EBDA_EMU + EMU_COUNT], cx
    mov eax, es:[CATALOGUE + 0x28]
    mov fs:[EBDA_EMU + EMU_LBA], eax
    call specification
    mov eax, fs:[EBDA_EMU + EMU_LBA]
    mov es, fs:[EBDA_EMU + EMU_SEGMENT]
    xor di, di
    movzx ecx, cx
    xor dx, dx                  /* from the first of the four sectors in a block */
    call cd_read_part
    pop bx                      /* media type */
    mov di, offset unreadable
    jc 9f
    pop dx
    mov dl, dh
    test bl, bl
    jz 3f
    call emulation_begin
3:  mov fs:[EBDA_EMU + EMU_DRIVE], dl
    mov ax, fs:[EBDA_EMU + EMU_SEGMENT]
    cmp ax, 0x7C0               /* the usual place in its usual form */
    jne 4f
    xor ax, ax
    mov cx, 0x7C00
    jmp boot_jump
4:  xor cx, cx
    jmp boot_jump
9:  mov si, di
    jmp boot_failed

/* Block EAX to 0:CATALOGUE. */
catalogue_read:
    xor cx, cx
    mov es, cx
    mov di, CATALOGUE
    mov fs:[EBDA_LBA], eax
    mov word ptr fs:[EBDA_LEFT], 1
    call cd_transfer
    push 0
    pop es
    ret

/* Where the drive is, as 4Bh says it: device in the low byte. */
specification:
    mov al, fs:[si + D_DEVICE]
    shr al, 4
    and ax, 1
    cmp word ptr fs:[si + D_PORT], 0x1F0
    je 1f
    or ah, 1
1:  mov fs:[EBDA_EMU + EMU_SPEC], ax
    ret

/* ECX sectors of 512 bytes from block EAX, leaving the first DX of them out, to ES:DI. Carry and AH. */
cd_read_part:
    push ecx
    push edx
    push ebx
    mov bl, 3
1:  push es
    push di
    push eax
    push ecx
    push dx
    add cx, dx                  /* blocks it takes */
    add cx, 3
    shr cx, 2
    call cd_read_packet
    pop dx
    pop ecx
    mov ax, dx
    shl ax, 9
    mov fs:[EBDA_SKIP], ax
    mov eax, ecx
    shl eax, 9
    mov fs:[EBDA_WANT], eax
    call packet
    pop eax
    pop di
    pop es
    jnc 2f
    call cd_ready
    dec bl
    jnz 1b
    mov ah, E_NOT_READY
    stc
2:  pop ebx
    pop edx
    pop ecx
    ret

/* Media type BL: geometry, drive number in DL, the data area's counts. */
emulation_begin:
    mov dl, 0
    mov byte ptr fs:[EBDA_EMU + EMU_HEADS], 2
    mov word ptr fs:[EBDA_EMU + EMU_CYLINDERS], 80
    mov al, 15
    cmp bl, 1
    je 1f
    mov al, 18
    cmp bl, 2
    je 1f
    mov al, 36
    cmp bl, 3
    je 1f
    mov es, fs:[EBDA_EMU + EMU_SEGMENT]     /* the first partition's last cylinder, head and sector */
    mov dl, 0x80
    mov al, es:[0x1BE + 5]
    inc al
    mov fs:[EBDA_EMU + EMU_HEADS], al
    mov ax, es:[0x1BE + 6]
    xchg al, ah
    push ax
    shr ah, 6
    inc ax
    mov fs:[EBDA_EMU + EMU_CYLINDERS], ax
    pop ax
    mov al, ah
    and al, 0x3F
    mov fs:[EBDA_EMU + EMU_SECTORS], al
    inc byte ptr ds:[BDA_HD_COUNT]
    jmp 3f
1:  mov fs:[EBDA_EMU + EMU_SECTORS], al
    mov ax, ds:[BDA_EQUIPMENT]  /* one diskette drive more */
    test al, 1
    jnz 2f
    or al, 1
    jmp 25f
2:  add al, 0x40
25: mov ds:[BDA_EQUIPMENT], ax
3:  mov fs:[EBDA_EMU + EMU_ACTIVE], bl
    ret

.globl emulated_read, emulated_parameters, emulated_type, emulation
/* 02h and 04h */
emulated_read:
    movzx eax, byte ptr [bp + F_CL]
    mov bl, al
    and bx, 0x3F
    jz bad_function
    cmp bl, fs:[EBDA_EMU + EMU_SECTORS]
    ja bad_function
    shr al, 6
    mov ah, al
    mov al, [bp + F_CH]
    cmp ax, fs:[EBDA_EMU + EMU_CYLINDERS]
    jae bad_function
    movzx edx, byte ptr [bp + F_DH]
    cmp dl, fs:[EBDA_EMU + EMU_HEADS]
    jae bad_function
    movzx ecx, byte ptr fs:[EBDA_EMU + EMU_HEADS]
    imul eax, ecx
    add eax, edx
    movzx ecx, byte ptr fs:[EBDA_EMU + EMU_SECTORS]
    imul eax, ecx
    movzx ebx, bx
    lea eax, [eax + ebx - 1]
    movzx ecx, byte ptr [bp + F_AL]
    test cl, cl
    jz good13
    cmp byte ptr [bp + F_AH], 4
    je good13
    mov dx, ax
    and dx, 3
    shr eax, 2
    add eax, fs:[EBDA_EMU + EMU_LBA]
    mov es, [bp + F_ES]
    mov di, [bp + F_EBX]
    call cd_read_part
    jnc good13
    mov byte ptr [bp + F_AL], 0
    jmp fail13

emulated_parameters:
    mov ax, fs:[EBDA_EMU + EMU_CYLINDERS]
    dec ax
    mov [bp + F_CH], al
    shl ah, 6
    or ah, fs:[EBDA_EMU + EMU_SECTORS]
    mov [bp + F_CL], ah
    mov al, fs:[EBDA_EMU + EMU_HEADS]
    dec al
    mov [bp + F_DH], al
    mov byte ptr [bp + F_AL], 0
    mov al, fs:[EBDA_EMU + EMU_ACTIVE]
    cmp al, 4
    je 2f
    mov ah, 2                   /* drive type: 1.2 MB, 1.44 MB, 2.88 MB */
    cmp al, 1
    je 1f
    mov ah, 4
    cmp al, 2
    je 1f
    mov ah, 6
1:  mov [bp + F_BL], ah
    mov ax, ds:[BDA_EQUIPMENT]
    shr al, 6
    inc al
    mov [bp + F_DL], al
    mov word ptr [bp + F_EDI], offset diskette_parameters
    mov [bp + F_ES], cs
    jmp good13
2:  mov al, ds:[BDA_HD_COUNT]
    mov [bp + F_DL], al
    mov byte ptr [bp + F_AH], 0
    CLEAR_CARRY
    LEAVE

emulated_type:
    mov byte ptr [bp + F_AH], 1
    CLEAR_CARRY
    cmp byte ptr fs:[EBDA_EMU + EMU_ACTIVE], 4
    jne 1f
    mov byte ptr [bp + F_AH], 3
    movzx eax, byte ptr fs:[EBDA_EMU + EMU_SECTORS]
    mul byte ptr fs:[EBDA_EMU + EMU_HEADS]
    movzx ecx, word ptr fs:[EBDA_EMU + EMU_CYLINDERS]
    imul eax, ecx
    mov [bp + F_EDX], ax
    shr eax, 16
    mov [bp + F_ECX], ax
1:  LEAVE

/* 4Bh: the status of the emulation, and with AL = 0 its end. DS:SI is a packet of 13h bytes. */
emulation:
    mov al, [bp + F_AL]
    cmp al, 1
    ja bad_function
    cmp dl, fs:[EBDA_EMU + EMU_DRIVE]
    jne 1f
    cmp word ptr fs:[EBDA_EMU + EMU_COUNT], 0
    jne 2f
1:  jmp bad_function
2:  mov es, [bp + F_DS]
    mov di, [bp + F_ESI]
    mov byte ptr es:[di], 0x13
    mov al, fs:[EBDA_EMU + EMU_ACTIVE]
    mov es:[di + 1], al
    mov al, fs:[EBDA_EMU + EMU_DRIVE]
    mov es:[di + 2], al
    mov al, fs:[EBDA_EMU + EMU_SPEC + 1]
    mov es:[di + 3], al
    mov eax, fs:[EBDA_EMU + EMU_LBA]
    mov es:[di + 4], eax
    movzx ax, byte ptr fs:[EBDA_EMU + EMU_SPEC]
    mov es:[di + 8], ax
    mov word ptr es:[di + 10], 0
    mov ax, fs:[EBDA_EMU + EMU_SEGMENT]
    mov es:[di + 12], ax
    mov ax, fs:[EBDA_EMU + EMU_COUNT]
    mov es:[di + 14], ax
    mov ax, fs:[EBDA_EMU + EMU_CYLINDERS]
    mov es:[di + 16], al
    shl ah, 6
    or ah, fs:[EBDA_EMU + EMU_SECTORS]
    mov es:[di + 17], ah
    mov al, fs:[EBDA_EMU + EMU_HEADS]
    mov es:[di + 18], al
    cmp byte ptr [bp + F_AL], 0
    jne good13
    xor al, al
    xchg al, fs:[EBDA_EMU + EMU_ACTIVE]
    cmp al, 4
    jne 3f
    dec byte ptr ds:[BDA_HD_COUNT]
    jmp good13
3:  test al, al
    jz good13
    mov ax, ds:[BDA_EQUIPMENT]
    test al, 0xC0
    jz 4f
    sub al, 0x40
    jmp 5f
4:  and al, 0xFE
5:  mov ds:[BDA_EQUIPMENT], ax
    jmp good13

.section .rodata16, "a"
boot_record:
    .ascii "\0CD001\1EL TORITO SPECIFICATION"
no_medium:    .asciz "no disc"
unreadable:   .asciz "cannot be read"
not_bootable: .asciz "not bootable"
.globl no_medium, unreadable, not_bootable
