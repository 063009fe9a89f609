/* CD-ROM drives by packet commands (SFF-8020i, MMC), data by PIO. */
.include "defs.inc"
.code16
.section .text16, "ax"
.set DRQ, 0x08
.set ERR, 0x01

/* Sends EBDA_PACKET. Of the data, EBDA_SKIP bytes are thrown away, EBDA_WANT stored at ES:DI, the rest thrown away.
 * Carry and AH on failure. SI is the drive's entry. */
.globl packet
packet:
    push dx
    push ecx
    push ebx
    mov dx, fs:[si + D_CONTROL]
    mov al, 0x0A
    out dx, al
    call ata_wait
    jc 8f
    mov dx, fs:[si + D_PORT]
    add dx, 6
    mov al, fs:[si + D_DEVICE]
    out dx, al
    mov dx, fs:[si + D_CONTROL]
    in al, dx
    in al, dx
    in al, dx
    in al, dx
    call ata_wait
    jc 8f
    mov dx, fs:[si + D_PORT]
    inc dx
    xor al, al
    out dx, al                      /* by PIO */
    add dx, 3
    xor al, al
    out dx, al                      /* at most F800h bytes at a time */
    inc dx
    mov al, 0xF8
    out dx, al
    add dx, 2
    mov al, 0xA0
    out dx, al
    mov dx, fs:[si + D_CONTROL]
    in al, dx
    call ata_wait
    jc 8f
    test al, DRQ
    jz 8f
    mov dx, fs:[si + D_PORT]
    push si
    push ds
    push fs
    pop ds
    mov si, EBDA_PACKET
    mov cx, 6
    rep outsw
    pop ds
    pop si
1:  mov dx, fs:[si + D_CONTROL]
    in al, dx
    call ata_wait
    jc 8f
    test al, ERR
    jnz 7f
    test al, DRQ
    jz 6f
    mov dx, fs:[si + D_PORT]        /* how many bytes this time */
    add dx, 5
    in al, dx
    mov ah, al
    dec dx
    in al, dx
    mov bx, ax
    inc bx
    shr bx, 1                       /* words */
    mov dx, fs:[si + D_PORT]
    mov cx, fs:[EBDA_SKIP]
    shr cx, 1
    cmp cx, bx
    jbe 2f
    mov cx, bx
2:  sub bx, cx
    sub fs:[EBDA_SKIP], cx
    sub fs:[EBDA_SKIP], cx
    call discard
    mov ecx, fs:[EBDA_WANT]
    inc ecx
    shr ecx, 1
    movzx ebx, bx
    cmp ecx, ebx
    jbe 3f
    mov ecx, ebx
3:  sub bx, cx
    mov eax, ecx
    add eax, eax
    sub fs:[EBDA_WANT], eax
    jnc 4f
    mov dword ptr fs:[EBDA_WANT], 0
4:  test cx, cx                     /* in pieces that stay in a segment */
    jz 5f
    call normalise
    push cx
    cmp cx, 0x4000
    jbe 45f
    mov cx, 0x4000
45: mov ax, cx
    rep insw
    pop cx
    sub cx, ax
    jmp 4b
5:  mov cx, bx
    call discard
    jmp 1b
6:  call ata_release
    clc
    jmp 9f
7:  mov ah, E_CONTROLLER
    call ata_release
    stc
    jmp 9f
8:  mov ah, E_TIMEOUT
    call ata_release
    stc
9:  pop ebx
    pop ecx
    pop dx
    ret

discard:                            /* CX words */
    jcxz 2f
1:  in ax, dx
    loop 1b
2:  ret

/* A packet that begins with AL, all else zero, no data wanted. */
.globl packet_clear
packet_clear:
    mov fs:[EBDA_PACKET], al
    mov byte ptr fs:[EBDA_PACKET + 1], 0
    mov word ptr fs:[EBDA_PACKET + 2], 0
    mov dword ptr fs:[EBDA_PACKET + 4], 0
    mov dword ptr fs:[EBDA_PACKET + 8], 0
    mov word ptr fs:[EBDA_SKIP], 0
    mov dword ptr fs:[EBDA_WANT], 0
    ret

/* Why did it fail? Sense key in AL, additional code in AH. */
sense:
    push es
    push di
    push fs
    pop es
    mov al, 0x03
    call packet_clear
    mov byte ptr fs:[EBDA_PACKET + 4], 18
    mov dword ptr fs:[EBDA_WANT], 18
    mov di, EBDA_BUFFER
    call packet
    mov al, fs:[EBDA_BUFFER + 2]
    and al, 15
    mov ah, fs:[EBDA_BUFFER + 12]
    pop di
    pop es
    ret

/* Is there a disc that can be read? Waits while one gets ready; carry and AH when not. */
.globl cd_ready
cd_ready:
    push bx
    push eax
    mov bx, 60
1:  xor al, al
    call packet_clear
    call packet
    jnc 8f
    call sense
    cmp ah, 0x3A                    /* no medium */
    je 7f
    cmp al, 6                       /* changed, or reset: ask again */
    je 2f
    cmp ah, 4                       /* becoming ready */
    jne 6f
    mov eax, 100
    call wait_ms
2:  dec bx
    jnz 1b
6:  pop eax
    mov ah, E_NOT_READY
    stc
    pop bx
    ret
7:  pop eax
    mov ah, E_NO_MEDIUM
    stc
    pop bx
    ret
8:  pop eax
    pop bx
    clc
    ret

/* EBDA_LEFT blocks of 2048 bytes from EBDA_LBA on to ES:DI. EBDA_DONE counts. Carry and AH on failure. */
.globl cd_transfer
cd_transfer:
    mov word ptr fs:[EBDA_DONE], 0
1:  movzx ecx, word ptr fs:[EBDA_LEFT]
    test cx, cx
    jz 9f
    cmp cx, 16
    jbe 2f
    mov cx, 16
2:  mov bl, 3                       /* attempts */
3:  push es
    push di
    mov eax, fs:[EBDA_LBA]
    call cd_read_packet
    mov edx, ecx
    shl edx, 11
    mov fs:[EBDA_WANT], edx
    call packet
    jnc 4f
    pop di
    pop es
    call sense
    cmp al, 6
    jne 5f
    dec bl
    jnz 3b
5:  mov dh, ah
    mov ah, E_NO_MEDIUM
    cmp dh, 0x3A
    je 6f
    mov ah, E_NOT_FOUND
    cmp al, 5
    je 6f
    mov ah, E_BAD_CRC
    cmp al, 3
    je 6f
    mov ah, E_NOT_READY
6:  stc
    ret
4:  add sp, 4
    add fs:[EBDA_LBA], ecx
    add fs:[EBDA_DONE], cx
    sub fs:[EBDA_LEFT], cx
    jmp 1b
9:  clc
    ret

/* READ(10) of CX blocks at EAX. */
.globl cd_read_packet
cd_read_packet:
    push eax
    mov al, 0x28
    call packet_clear
    pop eax
    bswap eax
    mov fs:[EBDA_PACKET + 2], eax
    mov fs:[EBDA_PACKET + 8], cl
    mov fs:[EBDA_PACKET + 7], ch
    ret
