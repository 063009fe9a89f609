/* INT 10h AH=1Ch and VBE 04h: the adapter's state in a program's memory. One block of 64 bytes for the registers, one for the data
 * area, thirteen for the DAC, one for the Bochs interface. */
.include "vga.inc"
.include "vbe.inc"
.code16
.section .text16, "ax"
.set S_REGISTERS, 1
.set S_DATA, 2
.set S_DAC, 4
.set S_DISPI, 8
.set BLOCKS_DAC, 13

/* Blocks in AX that the parts CL take. */
.globl state_blocks, state_save, state_restore
state_blocks:
    xor ax, ax
    test cl, S_REGISTERS
    jz 1f
    inc ax
1:  test cl, S_DATA
    jz 2f
    inc ax
2:  test cl, S_DAC
    jz 3f
    add ax, BLOCKS_DAC
3:  test cl, S_DISPI
    jz 4f
    inc ax
4:  ret

.globl states
states:                             /* 1Ch: AL 0 how much, 1 save, 2 restore; CX parts, ES:BX */
    mov cx, [bp + F_ECX]
    mov al, [bp + F_AL]
    test cl, 7
    jz 9f
    and cl, 7
    cmp al, 2
    ja 9f
    mov es, [bp + F_ES]
    mov di, [bp + F_EBX]
    mov byte ptr [bp + F_AL], 0x1C
    cmp al, 1
    je state_save
    ja state_restore
    call state_blocks
    mov [bp + F_EBX], ax
9:  ret

/* CX bytes of the registers behind index port DX from register AL on, to ES:DI. */
indexed_save:
    out dx, al
    inc dx
    push ax
    in al, dx
    stosb
    pop ax
    dec dx
    inc al
    loop indexed_save
    ret
indexed_restore:
    mov ah, es:[di]
    inc di
    out dx, ax
    inc al
    loop indexed_restore
    ret

/* The parts CL to ES:DI. */
state_save:
    push cx
    test cl, S_REGISTERS
    jz 2f
    push di
    mov ax, ds:[BDA_CRTC]
    stosw
    mov dx, 0x3CC
    in al, dx
    stosb
    mov dx, 0x3C4
    mov al, 1
    mov cx, 4
    call indexed_save
    mov dx, ds:[BDA_CRTC]
    mov al, 0
    mov cx, 0x19
    call indexed_save
    mov dx, 0x3CE
    mov al, 0
    mov cx, 9
    call indexed_save
    xor cl, cl
1:  mov al, cl
    call attribute_read
    stosb
    inc cl
    cmp cl, 0x14
    jbe 1b
    pop di
    add di, 64
2:  pop cx
    push cx
    test cl, S_DATA
    jz 3f
    push di
    mov si, BDA_MODE
    mov cx, 30
    rep movsb
    mov si, BDA_ROWS
    mov cx, 7
    rep movsb
    mov si, BDA_SAVE_POINTER
    movsd
    mov ax, ds:[BDA_VBE_MODE]
    stosw
    push ds
    xor ax, ax
    mov ds, ax
    mov si, 0x1F * 4
    movsd
    mov si, 0x43 * 4
    movsd
    pop ds
    pop di
    add di, 64
3:  pop cx
    push cx
    test cl, S_DAC
    jz 4f
    push di
    mov dx, 0x3C6
    in al, dx
    stosb
    inc dx
    mov al, 0
    out dx, al
    add dx, 2
    mov cx, 768
    rep insb
    pop di
    add di, BLOCKS_DAC * 64
4:  pop cx
    test cl, S_DISPI
    jz 6f
    mov cl, DISPI_WIDTH
5:  mov al, cl
    call dispi_read
    stosw
    inc cl
    cmp cl, DISPI_Y
    jbe 5b
6:  ret

state_restore:
    test cl, S_DISPI                /* it changes registers: first */
    jz 2f
    push di
    push cx
    and cl, 7
    call state_blocks
    shl ax, 6
    add di, ax
    mov al, DISPI_ENABLE
    xor dx, dx
    call dispi_write
    mov cl, DISPI_WIDTH
1:  mov dx, es:[di]
    add di, 2
    mov al, cl
    cmp al, DISPI_ENABLE
    je 15f
    call dispi_write
15: inc cl
    cmp cl, DISPI_Y
    jbe 1b
    mov dx, es:[di - 12]
    or dl, 0x80                     /* memory stays */
    mov al, DISPI_ENABLE
    call dispi_write
    sub di, 2 * (DISPI_Y - DISPI_ENABLE)    /* these go with what is on */
    mov cl, DISPI_BANK
16: mov dx, es:[di]
    add di, 2
    mov al, cl
    call dispi_write
    inc cl
    cmp cl, DISPI_Y
    jbe 16b
    pop cx
    pop di
2:  push cx
    test cl, S_REGISTERS
    jz 4f
    push di
    mov ax, es:[di]
    mov ds:[BDA_CRTC], ax
    add di, 2
    mov al, es:[di]
    inc di
    mov dx, 0x3C2
    out dx, al
    mov dx, 0x3C4
    mov ax, 0x0100
    out dx, ax
    mov al, 1
    mov cx, 4
    call indexed_restore
    mov ax, 0x0300
    out dx, ax
    mov dx, ds:[BDA_CRTC]
    mov ax, 0x0011
    out dx, ax
    mov al, 0
    mov cx, 0x19
    call indexed_restore
    mov dx, 0x3CE
    mov al, 0
    mov cx, 9
    call indexed_restore
    xor cl, cl
3:  mov al, cl
    mov ah, es:[di]
    inc di
    call attribute_write
    inc cl
    cmp cl, 0x14
    jbe 3b
    pop di
    add di, 64
4:  pop cx
    push cx
    test cl, S_DATA
    jz 5f
    push ds
    push es
    push di
    mov ax, es
    push ds
    pop es
    mov ds, ax
    mov si, di
    mov di, BDA_MODE
    mov cx, 30
    rep movsb
    mov di, BDA_ROWS
    mov cx, 7
    rep movsb
    mov di, BDA_SAVE_POINTER
    movsd
    mov di, BDA_VBE_MODE
    movsw
    xor ax, ax
    mov es, ax
    mov di, 0x1F * 4
    movsd
    mov di, 0x43 * 4
    movsd
    pop di
    pop es
    pop ds
    add di, 64
5:  pop cx
    test cl, S_DAC
    jz 6f
    push ds
    push es
    pop ds
    mov si, di
    mov dx, 0x3C6
    lodsb
    out dx, al
    mov dx, 0x3C8
    mov al, 0
    out dx, al
    inc dx
    mov cx, 768
    rep outsb
    pop ds
6:  ret

.globl vbe_state
vbe_state:                          /* 4F04h: DL 0 how much, 1 save, 2 restore; CX parts, ES:BX */
    mov cx, [bp + F_ECX]
    and cl, 15
    mov es, [bp + F_ES]
    mov di, [bp + F_EBX]
    mov al, [bp + F_DL]
    cmp al, 1
    je 1f
    ja 2f
    call state_blocks
    mov [bp + F_EBX], ax
    jmp 3f
1:  call state_save
    jmp 3f
2:  cmp al, 2
    ja 4f
    call state_restore
3:  mov ax, 0x004F
    ret
4:  mov ax, 0x014F
    ret
