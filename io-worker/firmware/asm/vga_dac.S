/* The DAC's contents for each kind of mode, and INT 10h AH=10h. */
.include "vga.inc"
.code16
.section .text16, "ax"

/* Loads the table AL: PAL_... */
.globl dac_load
dac_load:
    pusha
    mov ah, al
    mov dx, 0x3C8
    xor al, al
    out dx, al
    inc dx
    cmp ah, PAL_256
    je 5f
    xor cl, cl                      /* 64 colours four times would be one too many: 64, then black */
1:  mov al, cl
    cmp ah, PAL_EGA
    je 3f
    cmp ah, PAL_CGA
    je 2f
    push ax                         /* monochrome: by bits 3 and 4 */
    mov bl, al
    shr bl, 3
    and bx, 3
    mov al, cs:[greys_mono + bx]
    out dx, al
    out dx, al
    out dx, al
    pop ax
    jmp 4f
2:  call cga_colour
    jmp 4f
3:  call ega_colour
4:  inc cl
    cmp cl, 64
    jb 1b
    mov cx, 192 * 3
    xor al, al
45: out dx, al
    loop 45b
    jmp 9f

5:  xor cl, cl                      /* 16 of the CGA, 16 greys, nine wheels of 24 */
6:  mov al, cl
    test al, 8
    jz 65f
    add al, 8
65: call cga_colour
    inc cl
    cmp cl, 16
    jb 6b
    xor bx, bx
7:  mov al, cs:[greys + bx]
    out dx, al
    out dx, al
    out dx, al
    inc bx
    cmp bx, 16
    jb 7b
    mov si, offset wheels
8:  call wheel
    add si, 5
    cmp si, offset wheels + 45
    jb 8b
    xor al, al
    mov cx, 8 * 3
85: out dx, al
    loop 85b
9:  popa
    ret

/* Colour AL of 16 that repeat in 64: bit 4 is the intensity, 6 without it is brown. */
cga_colour:
    push ax
    push bx
    push cx
    mov bl, 0                       /* what every part gets */
    test al, 0x10
    jz 1f
    mov bl, 0x15
1:  mov bh, al
    and bh, 0x17
    mov cl, 4                       /* red is bit 2, green 1, blue 0 */
2:  mov ah, bl
    test al, cl
    jz 3f
    add ah, 0x2A
    cmp bh, 6
    jne 3f
    cmp cl, 2
    jne 3f
    mov ah, 0x15
3:  push ax
    mov al, ah
    out dx, al
    pop ax
    shr cl, 1
    jnz 2b
    pop cx
    pop bx
    pop ax
    ret

/* Colour AL of the EGA's 64: bits 2 to 0 two thirds of red, green and blue, bits 5 to 3 one third. */
ega_colour:
    push ax
    push cx
    mov cl, 0x24
2:  mov ah, 0
    push cx
    and cl, al
    test cl, 7
    jz 3f
    mov ah, 0x2A
3:  test cl, 0x38
    jz 4f
    add ah, 0x15
4:  pop cx
    push ax
    mov al, ah
    out dx, al
    pop ax
    shr cl, 1
    cmp cl, 4
    ja 2b
    pop cx
    pop ax
    ret

/* 24 colours around the wheel from blue over red and green, the five steps of a part at CS:SI: 0 none, 4 full. */
wheel:
    mov di, offset wheel_steps
1:  mov al, cs:[di]
    cmp al, 0xFF
    je 9f
    call 2f                         /* red */
    mov al, cs:[di + 1]
    call 2f
    mov al, cs:[di + 2]
    call 2f
    add di, 3
    jmp 1b
2:  movzx bx, al
    mov al, cs:[si + bx]
    out dx, al
9:  ret

.section .rodata16, "a"
greys_mono: .byte 0, 0x2A, 0x15, 0x3F
greys:  .byte 0, 5, 8, 11, 14, 17, 20, 24, 28, 32, 36, 40, 45, 50, 56, 63
wheels: .byte 0, 16, 31, 47, 63,  31, 39, 47, 55, 63,  45, 49, 54, 58, 63
        .byte 0, 7, 14, 21, 28,  14, 17, 21, 24, 28,  20, 22, 24, 26, 28
        .byte 0, 4, 8, 12, 16,  8, 10, 12, 14, 16,  11, 12, 13, 15, 16
wheel_steps:
        .byte 0,0,4, 1,0,4, 2,0,4, 3,0,4, 4,0,4, 4,0,3, 4,0,2, 4,0,1
        .byte 4,0,0, 4,1,0, 4,2,0, 4,3,0, 4,4,0, 3,4,0, 2,4,0, 1,4,0
        .byte 0,4,0, 0,4,1, 0,4,2, 0,4,3, 0,4,4, 0,3,4, 0,2,4, 0,1,4
        .byte 0xFF

.section .text16, "ax"
.globl palette
palette:                            /* 10h */
    movzx bx, byte ptr [bp + F_AL]
    cmp bl, 0x1C
    jae 9f
    shl bx, 1
    jmp cs:[functions_palette + bx]
9:  ret
.section .rodata16, "a"
functions_palette:
    .word one_set, border_set, all_set, blink, 9b, 9b, 9b, one_get, border_get, all_get, 9b, 9b, 9b, 9b, 9b, 9b
    .word dac_set, 9b, dac_block_set, dac_page, 9b, dac_get, 9b, dac_block_get, mask_set, mask_get, dac_page_get, dac_greys

.section .text16, "ax"
/* Attribute register AL gets AH; the screen stays on. */
.globl attribute_write, attribute_read
attribute_write:
    push dx
    call attribute_reset
    mov dx, 0x3C0
    out dx, al
    xchg al, ah
    out dx, al
    mov al, 0x20
    out dx, al
    pop dx
    ret
/* Attribute register AL in AL. */
attribute_read:
    push dx
    call attribute_reset
    mov dx, 0x3C0
    out dx, al
    inc dx
    in al, dx
    push ax
    call attribute_reset
    dec dx
    mov al, 0x20
    out dx, al
    pop ax
    pop dx
    ret

one_set:                            /* 00h: BL register, BH value */
    mov al, [bp + F_BL]
    cmp al, 0x14
    ja 9f
    mov ah, [bp + F_BH]
    jmp attribute_write
border_set:
    mov ah, [bp + F_BH]
    mov al, 0x11
    jmp attribute_write
all_set:                            /* 02h: 17 bytes at ES:DX */
    mov es, [bp + F_ES]
    mov di, [bp + F_EDX]
    xor cl, cl
1:  mov al, cl
    cmp al, 16
    jne 2f
    inc al
2:  mov ah, es:[di]
    inc di
    call attribute_write
    inc cl
    cmp cl, 16
    jbe 1b
9:  ret
blink:                              /* 03h: BL 1 blinking, 0 bright backgrounds */
    mov al, 0x10
    call attribute_read
    and al, 0xF7
    and byte ptr ds:[BDA_MSR], 0xDF
    test byte ptr [bp + F_BL], 1
    jz 1f
    or al, 8
    or byte ptr ds:[BDA_MSR], 0x20
1:  mov ah, al
    mov al, 0x10
    jmp attribute_write
one_get:
    mov al, [bp + F_BL]
    cmp al, 0x14
    ja 9b
    call attribute_read
    mov [bp + F_BH], al
    ret
border_get:
    mov al, 0x11
    call attribute_read
    mov [bp + F_BH], al
    ret
all_get:
    mov es, [bp + F_ES]
    mov di, [bp + F_EDX]
    xor cl, cl
1:  mov al, cl
    cmp al, 16
    jne 2f
    inc al
2:  call attribute_read
    mov es:[di], al
    inc di
    inc cl
    cmp cl, 16
    jbe 1b
    ret

dac_set:                            /* 10h: BX, DH red, CH green, CL blue */
    mov dx, 0x3C8
    mov al, [bp + F_BL]
    out dx, al
    inc dx
    mov al, [bp + F_DH]
    out dx, al
    mov al, [bp + F_CH]
    out dx, al
    mov al, [bp + F_CL]
    out dx, al
    ret
dac_get:                            /* 15h */
    mov dx, 0x3C7
    mov al, [bp + F_BL]
    out dx, al
    add dx, 2
    in al, dx
    mov [bp + F_DH], al
    in al, dx
    mov [bp + F_CH], al
    in al, dx
    mov [bp + F_CL], al
    ret
dac_block_set:                      /* 12h: from BX on, CX of them at ES:DX */
    mov dx, 0x3C8
    mov al, [bp + F_BL]
    out dx, al
    inc dx
    push ds
    mov ds, [bp + F_ES]
    mov si, [bp + F_EDX]
    mov cx, [bp + F_ECX]
    jcxz 2f
1:  outsb
    outsb
    outsb
    loop 1b
2:  pop ds
    ret
dac_block_get:                      /* 17h */
    mov dx, 0x3C7
    mov al, [bp + F_BL]
    out dx, al
    add dx, 2
    mov es, [bp + F_ES]
    mov di, [bp + F_EDX]
    mov cx, [bp + F_ECX]
    jcxz 2f
1:  insb
    insb
    insb
    loop 1b
2:  ret
dac_page:                           /* 13h: BL 0 how (BH), 1 which (BH) */
    mov al, 0x10
    call attribute_read
    mov ah, [bp + F_BH]
    cmp byte ptr [bp + F_BL], 1
    ja 9f
    je 1f
    shl ah, 7
    and al, 0x7F
    or ah, al
    mov al, 0x10
    jmp attribute_write
1:  test al, 0x80                   /* pages of 16 or of 64 */
    jnz 2f
    shl ah, 2
2:  and ah, 15
    mov al, 0x14
    jmp attribute_write
9:  ret
dac_page_get:                       /* 1Ah */
    mov al, 0x10
    call attribute_read
    mov ah, al
    mov al, 0x14
    call attribute_read
    and al, 15
    shr ah, 7
    jnz 1f
    shr al, 2
1:  mov [bp + F_BH], al
    mov [bp + F_BL], ah
    ret
mask_set:                           /* 18h */
    mov dx, 0x3C6
    mov al, [bp + F_BL]
    out dx, al
    ret
mask_get:
    mov dx, 0x3C6
    in al, dx
    mov [bp + F_BL], al
    ret
dac_greys:                          /* 1Bh: from BX on, CX of them */
    mov bl, [bp + F_BL]
    mov cx, [bp + F_ECX]
.globl greys_of
greys_of:
    jcxz 9b
1:  mov dx, 0x3C7
    mov al, bl
    out dx, al
    add dx, 2
    in al, dx                       /* 30 % red, 59 % green, 11 % blue */
    mov ah, 77
    mul ah
    mov si, ax
    in al, dx
    mov ah, 151
    mul ah
    add si, ax
    in al, dx
    mov ah, 28
    mul ah
    add si, ax
    add si, 0x80
    shr si, 8
    mov ax, si
    push ax
    mov dx, 0x3C8
    mov al, bl
    out dx, al
    inc dx
    pop ax
    out dx, al
    out dx, al
    out dx, al
    inc bl
    loop 1b
    ret
