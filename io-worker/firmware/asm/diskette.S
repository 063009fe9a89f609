/* Diskettes: INT 13h below 80h, and interrupt 0Eh. The controller is in fdc.S.
 *
 * The medium is found by reading: the drive's largest format first, 1.44 MB and 1.2 MB at 500 kb/s, 720 and 360 KB at 300 or 250.
 * What was found stands in the data area (90h, 91h) as the AT has it, and is forgotten when the drive says that the door was open. */
.include "defs.inc"
.code16
.section .text16, "ax"
.set DIR, 0x3F7                 /* bit 7: the medium was changed */
.set E_ADDRESS_MARK, 0x02

/* Drives by the CMOS: 1 360 KB, 2 1.2 MB, 3 720 KB, 4 1.44 MB, 5 and 6 2.88 MB. */
.globl diskettes_find
diskettes_find:
    push 0x40
    pop ds
    mov fs, ds:[BDA_EBDA]
    CMOS_READ 0x10
    xor bx, bx
    test al, 0xF0
    jz 1f
    inc bx
1:  test al, 0x0F
    jz 2f
    inc bx
2:  mov fs:[EBDA_FD_COUNT], bl
    test bx, bx
    jz 9f
    dec bx
    shl bl, 6
    or bl, 1
    or ds:[BDA_EQUIPMENT], bl
    mov byte ptr ds:[BDA_FD_TYPES], 0x07
    call controller_reset
9:  ret

/* AL: type of drive DL from the CMOS, 0 for none; zero flag then. */
drive_type:
    CMOS_READ 0x10
    cmp dl, 1
    je 1f
    ja 2f
    shr al, 4
1:  and al, 15
    ret
2:  xor al, al
    ret

.globl int0e
int0e:
    push ax
    push ds
    push 0x40
    pop ds
    or byte ptr ds:[BDA_FD_RECALIBRATED], 0x80
    mov al, 0x20
    out PIC1, al
    pop ds
    pop ax
    iret

.globl real_diskette
real_diskette:                      /* DL the drive */
    movzx bx, byte ptr [bp + F_AH]
    cmp bl, 0x15
    je fd_type
    cmp bl, 0x08
    je fd_parameters
    cmp bl, 0x01
    je fd_status
    cmp bl, 0x18
    ja bad_function
    shl bx, 1
    push bx
    call drive_type
    pop bx
    jz bad_function
    jmp cs:[functions_diskette + bx]

.section .rodata16, "a"
functions_diskette:
    .word fd_reset, bad_function, fd_read, fd_write, fd_verify, fd_format, bad_function, bad_function
    .word bad_function, bad_function, bad_function, bad_function, bad_function, bad_function, bad_function, bad_function
    .word bad_function, bad_function, bad_function, bad_function, bad_function, bad_function, fd_change, fd_set_type, fd_set_media
/* Formats: cylinders, sectors of a track, data rate, gap; by drive type the one to try first. */
formats:
    .byte 40, 9, 1, 0x2A            /* 360 KB in a drive of its own: 250 kb/s are 300 in one of 1.2 MB */
    .byte 80, 15, 0, 0x1B           /* 1.2 MB */
    .byte 80, 9, 2, 0x2A            /* 720 KB */
    .byte 80, 18, 0, 0x1B           /* 1.44 MB */
    .byte 80, 36, 3, 0x1B           /* 2.88 MB */
    .byte 80, 36, 3, 0x1B

.section .text16, "ax"
fd_status:
    mov al, ds:[BDA_FD_STATUS]
    mov [bp + F_AH], al
    CLEAR_CARRY
    test al, al
    jz 1f
    SET_CARRY
1:  LEAVE

fd_reset:
    call controller_reset
    mov byte ptr ds:[BDA_FD_RECALIBRATED], 0
    jmp good13

/* 15h: 0 none, 1 without and 2 with a line that tells of changes. */
fd_type:
    call drive_type
    mov ah, 0
    jz 1f
    mov ah, 1
    cmp al, 1
    je 1f
    inc ah
1:  mov [bp + F_AH], ah
    CLEAR_CARRY
    LEAVE

fd_parameters:                      /* 08h */
    mov word ptr [bp + F_EAX], 0
    mov word ptr [bp + F_EBX], 0
    mov word ptr [bp + F_ECX], 0
    mov dh, 0
    call drive_type
    mov word ptr [bp + F_EDI], 0
    mov word ptr [bp + F_ES], 0
    jz 1f
    mov [bp + F_BL], al
    call format_of
    mov al, cs:[si]
    dec al
    mov [bp + F_CH], al
    mov al, cs:[si + 1]
    mov [bp + F_CL], al
    mov word ptr [bp + F_EDI], offset diskette_parameters
    mov [bp + F_ES], cs
    mov dh, 1
1:  mov dl, fs:[EBDA_FD_COUNT]
    mov [bp + F_EDX], dx
    mov byte ptr ds:[BDA_FD_STATUS], 0
    CLEAR_CARRY
    LEAVE

/* SI: the format of type AL. */
format_of:
    movzx si, al
    dec si
    cmp si, 6
    jb 1f
    mov si, 3
1:  shl si, 2
    add si, offset formats
    ret

fd_change:                          /* 16h */
    call motor_on
    mov dx, DIR
    in al, dx
    test al, 0x80
    jz good13
    mov ah, E_CHANGED
    jmp fail13

fd_set_type:                        /* 17h: the medium is found by reading */
    cmp byte ptr [bp + F_AL], 4
    ja bad_function
    jmp good13

fd_set_media:                       /* 18h: CH last track, CL sectors */
    call drive_type
    call format_of
    mov al, [bp + F_CL]
    and al, 0x3F
    cmp al, cs:[si + 1]
    ja 1f
    mov word ptr [bp + F_EDI], offset diskette_parameters
    mov [bp + F_ES], cs
    jmp good13
1:  mov ah, 0x0C
    jmp fail13

/* The format of what is in drive DL, at CS:SI: known from before, or tried. Carry and AH. */
medium:
    call motor_on
    push dx
    mov dx, DIR
    in al, dx
    pop dx
    test al, 0x80
    jz 1f
    movzx bx, dl                    /* the door was open: known no more; a step clears the line */
    mov byte ptr [bx + BDA_FD_STATE], 0
    mov al, 1
    call fd_seek
    mov al, 0
    call fd_seek
    push dx
    mov dx, DIR
    in al, dx
    pop dx
    test al, 0x80
    mov ah, E_TIMEOUT
    stc
    jnz 9f
1:  movzx bx, dl
    mov al, [bx + BDA_FD_STATE]
    test al, 0x10
    jz 2f
    and ax, 7                       /* our numbers in the low bits: which format */
    mov si, ax
    shl si, 2
    add si, offset formats
    jmp set_rate
2:  call drive_type
    call format_of
    call set_rate
    call probe
    jnc 5f
    mov si, offset formats + 3 * 4
    call set_rate
    call probe
    jnc 5f
    mov si, offset formats + 2 * 4
    call set_rate
    call probe
    jnc 5f
    mov si, offset formats + 4
    call set_rate
    call probe
    jnc 5f
    mov si, offset formats
    call set_rate
    call probe
    jnc 5f
    mov ah, E_ADDRESS_MARK
    stc
    ret
5:  mov ax, si
    sub ax, offset formats
    shr al, 2
    mov ah, cs:[si + 2]
    shl ah, 6
    or al, ah
    or al, 0x10
    movzx bx, dl
    mov [bx + BDA_FD_STATE], al
    clc
9:  ret

/* Is there a last sector as the format has it? READ ID would not tell 1.44 MB from 720 KB on every controller. */
probe:
    push es
    push di
    mov ax, 0
    call fd_seek
    mov ch, 0                       /* cylinder, head 0, last sector */
    mov cl, cs:[si + 1]
    mov dh, 0
    mov bh, 0x46
    mov bl, 1
    push fs
    pop es
    mov di, EBDA_BUFFER
    push si
    call fd_command
    pop si
    pop di
    pop es
    ret

fd_read:
    mov bh, 0x46
    jmp 1f
fd_write:
    mov bh, 0x4A
    jmp 1f
fd_verify:
    mov bh, 0x42
1:  mov al, [bp + F_AL]
    test al, al
    jz bad_function
    push bx
    call medium
    pop bx
    jc 8f
    mov ch, [bp + F_CH]
    mov cl, [bp + F_CL]
    mov dh, [bp + F_DH]
    mov bl, [bp + F_AL]
    cmp dh, 1
    ja 7f
    test cl, cl
    jz 7f
    mov ah, E_NOT_FOUND
    cmp ch, cs:[si]
    jae 8f
    mov es, [bp + F_ES]
    mov di, [bp + F_EBX]
    mov byte ptr fs:[EBDA_DONE], 0
/* A command ends with the track's second side at the latest; what is left is another's. */
2:  mov al, ch
    push bx
    push cx
    call fd_seek
    pop cx
    pop bx
    jc 8f
    mov al, cs:[si + 1]             /* sectors to the end of the cylinder */
    mov ah, al
    test dh, dh
    jnz 3f
    add al, ah
3:  sub al, cl
    inc al
    mov ah, E_NOT_FOUND
    jbe 8f
    cmp al, bl
    jbe 4f
    mov al, bl
4:  cmp bh, 0x42                    /* verified is what is read to nowhere, a sector at a time */
    jne 41f
    mov al, 1
    push fs
    pop es
    mov di, EBDA_BUFFER
41: push ax
    push bx
    push cx
    push dx
    mov bl, al
    call fd_command
    pop dx
    pop cx
    pop bx
    jc 6f
    pop ax
    add fs:[EBDA_DONE], al
    sub bl, al
    jz 5f
    add cl, al                      /* where it goes on: on the next cylinder, too, which programs rely on */
    movzx ax, al
    shl ax, 9
    add di, ax
51: cmp cl, cs:[si + 1]
    jbe 2b
    sub cl, cs:[si + 1]
    xor dh, 1
    jnz 51b
    inc ch
    cmp ch, cs:[si]
    jb 51b
    mov ah, E_NOT_FOUND
    jmp 8f
5:  mov al, fs:[EBDA_DONE]
    mov [bp + F_AL], al
    jmp good13
6:  add sp, 2
8:  mov al, fs:[EBDA_DONE]
    mov [bp + F_AL], al
    movzx bx, dl                    /* look again what it is */
    mov byte ptr [bx + BDA_FD_STATE], 0
    jmp fail13
7:  jmp bad_function

/* 05h: track CH, head DH; four bytes for each of AL sectors at ES:BX. The format is the drive's largest, or what 18h found fit. */
fd_format:
    mov al, [bp + F_AL]
    test al, al
    jz bad_function
    push dx
    call drive_type
    call format_of
    pop dx
    call motor_on
    call set_rate
    mov al, [bp + F_CH]
    mov ah, E_NOT_FOUND
    cmp al, cs:[si]
    jae 9f
    call fd_seek
    jc 9f
    movzx eax, word ptr [bp + F_ES]
    shl eax, 4
    movzx edi, word ptr [bp + F_EBX]
    add edi, eax
    movzx cx, byte ptr [bp + F_AL]
    shl cx, 2
    dec cx
    mov ah, 0x4A
    call dma_start
    mov ah, E_BOUNDARY
    jc 9f
    mov al, 0x4D
    call fd_out
    mov ah, E_TIMEOUT
    jc 9f
    mov al, [bp + F_DH]
    and al, 1
    shl al, 2
    or al, dl
    call fd_out
    mov al, 2
    call fd_out
    mov al, [bp + F_AL]
    call fd_out
    mov al, 0x50
    call fd_out
    mov al, 0xF6
    call fd_out
    call fd_end
    jc 9f
    jmp good13
9:  jmp fail13
