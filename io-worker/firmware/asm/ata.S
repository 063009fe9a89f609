/* ATA disks by PIO (ATA/ATAPI-6), the interrupt off: status is polled, deadlines come from the power management timer. */
.include "defs.inc"
.code16
.section .text16, "ax"
.set BSY, 0x80
.set DF, 0x20
.set DRQ, 0x08
.set ERR, 0x01
.set NIEN, 0x0A                 /* device control: bit 3 as of old, no interrupt */
.set IEN, 0x08

/* Waits until BSY falls: status in AL, carry after 30 s. SI is the drive's entry. */
.globl ata_wait
ata_wait:
    push ecx
    push edx
    push ebx
    mov edx, PM_TIMER_MS * 1000 * 30
    call timer_start
    mov ebx, edx
1:  mov dx, fs:[si + D_CONTROL]
    in al, dx
    test al, BSY
    jz 2f
    mov edx, ebx
    call timer_passed
    mov ebx, edx
    jnc 1b
    stc
    jmp 3f
2:  clc
3:  pop ebx
    pop edx
    pop ecx
    ret

/* Chooses the drive and turns interrupts off; carry when the channel stays busy. AL: LBA 27-24 and bit 6, or a head. */
ata_select:
    push dx
    push ax
    mov dx, fs:[si + D_CONTROL]
    mov al, NIEN
    out dx, al
    call ata_wait
    pop ax
    jc 1f
    mov dx, fs:[si + D_PORT]
    add dx, 6
    or al, fs:[si + D_DEVICE]
    out dx, al
    mov dx, fs:[si + D_CONTROL]     /* 400 ns */
    push ax
    in al, dx
    in al, dx
    in al, dx
    in al, dx
    pop ax
    call ata_wait
1:  pop dx
    ret

/* Ends what ata_select began: the status is read, interrupts are on again. */
.globl ata_release
ata_release:
    push ax
    push dx
    pushf
    mov dx, fs:[si + D_PORT]
    add dx, 7
    in al, dx
    mov dx, fs:[si + D_CONTROL]
    mov al, IEN
    out dx, al
    popf
    pop dx
    pop ax
    ret

/* ES:DI without a change of address, the offset under 16. */
.globl normalise
normalise:
    push ax
    push bx
    mov ax, es
    mov bx, di
    shr bx, 4
    add ax, bx
    mov es, ax
    and di, 15
    pop bx
    pop ax
    ret

/* EBDA_LEFT sectors from EBDA_LBA on, EBDA_OP, ES:DI. Carry and AH on failure; EBDA_DONE says how many were done. */
.globl ata_transfer
ata_transfer:
    mov word ptr fs:[EBDA_DONE], 0
1:  movzx ecx, word ptr fs:[EBDA_LEFT]
    test cx, cx
    jz 8f
    cmp cx, 128
    jbe 2f
    mov cx, 128
2:  call ata_address
    jc 7f
    movzx bx, byte ptr fs:[EBDA_OP]
    cmp byte ptr fs:[EBDA_EXTENDED], 0
    je 3f
    add bx, 3
3:  mov al, cs:[ata_commands + bx]
    mov dx, fs:[si + D_PORT]
    add dx, 7
    out dx, al
    mov dx, fs:[si + D_CONTROL]
    in al, dx
    mov dx, fs:[si + D_PORT]
    mov bx, cx
    cmp byte ptr fs:[EBDA_OP], OP_VERIFY
    je 6f
4:  call ata_wait
    jc 7f
    test al, ERR | DF
    jnz 7f
    test al, DRQ
    jz 7f
    call normalise
    mov cx, 128
    cmp byte ptr fs:[EBDA_OP], OP_READ
    jne 5f
    rep insd
    jmp 55f
5:  push ds
    push si
    push es
    pop ds
    mov si, di
    rep outsd
    mov di, si
    pop si
    pop ds
55: inc word ptr fs:[EBDA_DONE]
    dec word ptr fs:[EBDA_LEFT]
    add dword ptr fs:[EBDA_LBA], 1
    adc dword ptr fs:[EBDA_LBA + 4], 0
    dec bx
    jnz 4b
    call ata_wait                   /* the drive is through with it, not only the last sector */
    jc 7f
    test al, ERR | DF
    jnz 7f
    jmp 1b
6:  call ata_wait
    jc 7f
    test al, ERR | DF
    jnz 7f
    add fs:[EBDA_DONE], bx
    sub fs:[EBDA_LEFT], bx
    movzx eax, bx
    add fs:[EBDA_LBA], eax
    adc dword ptr fs:[EBDA_LBA + 4], 0
    jmp 1b
7:  call ata_failure
    call ata_release
    stc
    ret
8:  call ata_release
    clc
    ret

/* Registers for ECX sectors at EBDA_LBA, in the form that reaches them. */
ata_address:
    mov eax, fs:[EBDA_LBA]
    mov byte ptr fs:[EBDA_EXTENDED], 0
    test byte ptr fs:[si + D_FLAGS], 1
    jz 4f
    test byte ptr fs:[si + D_FLAGS], 2
    jz 1f
    mov edx, fs:[EBDA_LBA + 4]
    test edx, edx
    jnz 3f
    lea edx, [eax + ecx]
    cmp edx, 0x0FFFFFFF
    ja 3f
1:  push eax
    shr eax, 24
    and al, 0x0F
    or al, 0x40
    call ata_select
    pop eax
    jc 9f
2:  mov dx, fs:[si + D_PORT]
    push eax
    add dx, 2
    mov al, cl
    out dx, al
    pop eax
    inc dx
    out dx, al
    inc dx
    shr eax, 8
    out dx, al
    inc dx
    shr eax, 8
    out dx, al
    clc
9:  ret
3:  inc byte ptr fs:[EBDA_EXTENDED]
    mov al, 0x40
    call ata_select
    jc 9b
    mov dx, fs:[si + D_PORT]        /* the upper halves first */
    add dx, 2
    mov al, ch
    out dx, al
    inc dx
    mov eax, fs:[EBDA_LBA + 3]
    out dx, al
    inc dx
    shr eax, 8
    out dx, al
    inc dx
    shr eax, 8
    out dx, al
    mov eax, fs:[EBDA_LBA]
    jmp 2b
4:  push ebx                        /* cylinder, head, sector of the drive's own */
    xor edx, edx
    movzx ebx, word ptr fs:[si + D_PSECTORS]
    div ebx
    inc dx
    push dx
    xor edx, edx
    movzx ebx, word ptr fs:[si + D_PHEADS]
    div ebx
    shl eax, 8
    pop bx
    mov al, bl
    pop ebx
    push eax
    mov al, dl
    call ata_select
    pop eax
    jnc 2b
    ret

/* AH: what the error register says. */
ata_failure:
    push dx
    push bx
    mov ah, E_TIMEOUT
    mov dx, fs:[si + D_CONTROL]
    in al, dx
    test al, BSY
    jnz 9f
    mov ah, E_CONTROLLER
    test al, ERR
    jz 9f
    mov dx, fs:[si + D_PORT]
    inc dx
    in al, dx
    mov ah, E_BAD_CRC
    test al, 0xC0
    jnz 9f
    mov ah, E_NOT_FOUND
    test al, 0x10
    jnz 9f
    mov ah, E_CONTROLLER
    cmp byte ptr fs:[EBDA_OP], OP_WRITE
    jne 9f
    mov ah, E_WRITE_PROTECTED
9:  pop bx
    pop dx
    ret

/* ---- POST ---- */

/* Looks at both channels for disks and CD-ROM drives. Their names go to 0:8000h + 64 * entry. */
.globl drives_find
drives_find:
    push 0x40
    pop ds
    mov fs, ds:[BDA_EBDA]
    mov si, EBDA_DRIVES
    mov di, offset channels
1:  mov ax, cs:[di]
    test ax, ax
    jz 9f
    mov fs:[si + D_PORT], ax
    mov ax, cs:[di + 2]
    mov fs:[si + D_CONTROL], ax
    mov al, cs:[di + 4]
    mov fs:[si + D_DEVICE], al
    push di
    call drive_probe
    pop di
    add si, D_SIZE
    add di, 5
    jmp 1b
9:  ret

drive_probe:
    mov dx, fs:[si + D_PORT]        /* a channel without drives floats */
    add dx, 7
    in al, dx
    cmp al, 0xFF
    je 9f
    xor al, al
    call ata_select
    jc 9f
    mov dx, fs:[si + D_PORT]        /* nobody keeps a value there: no drive */
    add dx, 2
    mov al, 0x55
    out dx, al
    inc dx
    mov al, 0xAA
    out dx, al
    dec dx
    in al, dx
    cmp al, 0x55
    jne 8f
    inc dx
    in al, dx
    cmp al, 0xAA
    jne 8f
    mov ah, 0xEC
    call identify
    jnc ata_found
    mov dx, fs:[si + D_PORT]        /* refused with the signature of a packet device? */
    add dx, 4
    in al, dx
    cmp al, 0x14
    jne 8f
    inc dx
    in al, dx
    cmp al, 0xEB
    jne 8f
    mov ah, 0xA1
    call identify
    jc 8f
    mov byte ptr fs:[si + D_TYPE], 2
    call keep_name
    mov bl, fs:[EBDA_CD_COUNT]
    xor bh, bh
    call entry_number
    mov fs:[EBDA_CD_MAP + bx], al
    inc byte ptr fs:[EBDA_CD_COUNT]
8:  call ata_release
9:  ret

/* Command AH, 512 bytes to EBDA_BUFFER. */
identify:
    mov dx, fs:[si + D_PORT]
    add dx, 7
    mov al, ah
    out dx, al
    mov dx, fs:[si + D_CONTROL]
    in al, dx
    call ata_wait
    jc 1f
    test al, ERR
    jnz 1f
    test al, DRQ
    jz 1f
    push fs
    pop es
    mov di, EBDA_BUFFER
    mov dx, fs:[si + D_PORT]
    mov cx, 256
    rep insw
    clc
    ret
1:  stc
    ret

/* AL: the number of the entry at SI. */
entry_number:
    mov ax, si
    sub ax, EBDA_DRIVES
    shr ax, 5
    ret

/* The model, words 27 to 46, the first character of each in its upper byte. */
keep_name:
    push si
    call entry_number
    movzx di, al
    shl di, 6
    add di, 0x8000
    xor ax, ax
    mov es, ax
    mov si, EBDA_BUFFER + 54
    mov cx, 20
1:  mov ax, fs:[si]
    xchg al, ah
    stosw
    add si, 2
    loop 1b
    pop si
    ret

ata_found:
    mov byte ptr fs:[si + D_TYPE], 1
    mov ax, fs:[EBDA_BUFFER + 2]
    mov fs:[si + D_PCYLINDERS], ax
    mov ax, fs:[EBDA_BUFFER + 6]
    mov fs:[si + D_PHEADS], ax
    mov ax, fs:[EBDA_BUFFER + 12]
    mov fs:[si + D_PSECTORS], ax
    xor edx, edx
    mov eax, fs:[EBDA_BUFFER + 120]         /* sectors by LBA28 */
    test byte ptr fs:[EBDA_BUFFER + 99], 2
    jz 1f
    or byte ptr fs:[si + D_FLAGS], 1
    test byte ptr fs:[EBDA_BUFFER + 167], 4
    jz 2f
    or byte ptr fs:[si + D_FLAGS], 2
    mov eax, fs:[EBDA_BUFFER + 200]
    mov edx, fs:[EBDA_BUFFER + 204]
    jmp 2f
1:  movzx eax, word ptr fs:[si + D_PCYLINDERS]
    movzx edx, word ptr fs:[si + D_PHEADS]
    imul eax, edx
    movzx edx, word ptr fs:[si + D_PSECTORS]
    imul eax, edx
    xor edx, edx
2:  mov fs:[si + D_TOTAL], eax
    mov fs:[si + D_TOTAL + 4], edx
    call keep_name
    call translate
    call set_parameters
    mov bl, ds:[BDA_HD_COUNT]
    xor bh, bh
    call entry_number
    mov fs:[EBDA_HD_MAP + bx], al
    inc byte ptr ds:[BDA_HD_COUNT]
    cmp bl, 2
    jae 3f
    call fixed_disk_table
3:  jmp 8b

/* The geometry that INT 13h shows: the drive's own up to 1024 cylinders, else 63 sectors and as many heads as it takes
 * (the LBA-assisted way; Phoenix EDD 1.1, section 3). */
translate:
    mov ax, fs:[si + D_PSECTORS]
    mov fs:[si + D_SECTORS], ax
    mov ax, fs:[si + D_PHEADS]
    mov fs:[si + D_HEADS], ax
    mov ax, fs:[si + D_PCYLINDERS]
    mov fs:[si + D_CYLINDERS], ax
    cmp ax, 1024
    jbe 9f
    mov word ptr fs:[si + D_SECTORS], 63
    mov edx, fs:[si + D_TOTAL + 4]
    mov eax, fs:[si + D_TOTAL]
    mov ecx, 63
    cmp edx, ecx
    jae 2f
    div ecx
    mov edx, eax
    mov cx, 16
1:  movzx ebx, cx
    shl ebx, 10
    cmp edx, ebx
    jbe 3f
    shl cx, 1
    cmp cx, 128
    jbe 1b
2:  mov cx, 255
3:  mov fs:[si + D_HEADS], cx
    movzx ecx, cx
    cmp dword ptr fs:[si + D_TOTAL + 4], 0
    jne 4f
    mov eax, fs:[si + D_TOTAL]
    xor edx, edx
    mov ebx, 63
    div ebx
    xor edx, edx
    div ecx
    cmp eax, 1024
    jbe 5f
4:  mov eax, 1024
5:  mov fs:[si + D_CYLINDERS], ax
9:  ret

/* INITIALIZE DEVICE PARAMETERS: the geometry that it told. */
set_parameters:
    mov dx, fs:[si + D_PORT]
    add dx, 2
    mov al, fs:[si + D_PSECTORS]
    out dx, al
    add dx, 4
    mov al, fs:[si + D_PHEADS]
    dec al
    and al, 15
    or al, fs:[si + D_DEVICE]
    out dx, al
    inc dx
    mov al, 0x91
    out dx, al
    mov dx, fs:[si + D_CONTROL]
    in al, dx
    jmp ata_wait

/* INT 41h and 46h point to these: 16 bytes for drive BX. With a translated geometry the drive's own follows (byte 3 says
 * A0h, byte 15 makes the sum zero). */
fixed_disk_table:
    mov di, EBDA_FDPT0
    test bx, bx
    jz 1f
    mov di, EBDA_FDPT1
1:  mov ax, fs:[si + D_CYLINDERS]
    mov fs:[di], ax
    mov al, fs:[si + D_HEADS]
    mov fs:[di + 2], al
    mov byte ptr fs:[di + 3], 0xA0
    mov al, fs:[si + D_PSECTORS]
    mov fs:[di + 4], al
    mov word ptr fs:[di + 5], 0xFFFF
    mov byte ptr fs:[di + 7], 0
    mov byte ptr fs:[di + 8], 0xC8          /* no retries; bit 3: more than eight heads */
    mov ax, fs:[si + D_PCYLINDERS]
    mov fs:[di + 9], ax
    mov al, fs:[si + D_PHEADS]
    mov fs:[di + 11], al
    mov word ptr fs:[di + 12], 0
    mov al, fs:[si + D_SECTORS]
    mov fs:[di + 14], al
    xor al, al
    mov cx, 15
    mov bx, di
2:  add al, fs:[bx]
    inc bx
    loop 2b
    neg al
    mov fs:[bx], al
    ret

.section .rodata16, "a"
ata_commands:
    .byte 0x20, 0x30, 0x40, 0x24, 0x34, 0x42
channels:
    .irp device, 0xA0, 0xB0
    .word 0x1F0, 0x3F6
    .byte \device
    .endr
    .irp device, 0xA0, 0xB0
    .word 0x170, 0x376
    .byte \device
    .endr
    .word 0
