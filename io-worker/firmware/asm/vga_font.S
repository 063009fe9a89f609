/* INT 10h AH=11h and 12h: fonts, and what can be chosen. */
.include "vga.inc"
.code16
.section .text16, "ax"

/* The font of height BH for text, into block 0. */
.globl font_for_text
font_for_text:
    push es
    push cs
    pop es
    mov di, offset font8
    cmp bh, 8
    je 1f
    mov di, offset font14
    cmp bh, 14
    je 1f
    mov di, offset font16
1:  xor dx, dx
    mov cx, 256
    mov bl, 0
    call font_load
    pop es
    ret

/* CX glyphs of BH lines at ES:DI to character DX on of block BL: plane 2, as A0000h. */
font_load:
    pusha
    push ds
    push es
    cld
    push dx
    mov si, offset font_access
    call registers
    pop dx
    push es
    pop ds
    mov si, di
    mov ax, 0xA000
    mov es, ax
    mov al, bl                      /* blocks 0 to 3 are 16 KiB apart, 4 to 7 lie between */
    and ax, 3
    shl ax, 14
    test bl, 4
    jz 1f
    add ax, 0x2000
1:  shl dx, 5
    add ax, dx
    mov di, ax
    jcxz 3f
2:  push cx
    push di
    movzx cx, bh
    rep movsb
    pop di
    pop cx
    add di, 32
    loop 2b
3:  pop es
    pop ds
    mov si, offset font_done
    cmp word ptr ds:[BDA_CRTC], 0x3B4
    jne 4f
    mov si, offset font_done_mono
4:  call registers
    popa
    ret

/* Pairs of port and value at CS:SI. */
registers:
    mov dx, cs:[si]
    test dx, dx
    jz 1f
    mov ax, cs:[si + 2]
    out dx, ax
    add si, 4
    jmp registers
1:  ret

.section .rodata16, "a"
font_access:
    .word 0x3C4, 0x0402, 0x3C4, 0x0704, 0x3CE, 0x0204, 0x3CE, 0x0005, 0x3CE, 0x0406, 0
font_done:
    .word 0x3C4, 0x0302, 0x3C4, 0x0304, 0x3CE, 0x0004, 0x3CE, 0x1005, 0x3CE, 0x0E06, 0
font_done_mono:
    .word 0x3C4, 0x0302, 0x3C4, 0x0304, 0x3CE, 0x0004, 0x3CE, 0x1005, 0x3CE, 0x0A06, 0
functions_font:                     /* number, routine */
    .byte 0x00
    .word user_load
    .byte 0x10
    .word user_load
    .byte 0x01
    .word rom_load
    .byte 0x11
    .word rom_load
    .byte 0x02
    .word rom_load
    .byte 0x12
    .word rom_load
    .byte 0x04
    .word rom_load
    .byte 0x14
    .word rom_load
    .byte 0x03
    .word block_select
    .byte 0x20
    .word upper_half
    .byte 0x21
    .word graphics_user
    .byte 0x22
    .word graphics_rom
    .byte 0x23
    .word graphics_rom
    .byte 0x24
    .word graphics_rom
    .byte 0x30
    .word font_information
    .byte 0xFF

.section .text16, "ax"
.globl fonts
fonts:                              /* 11h */
    mov si, offset functions_font
1:  mov al, cs:[si]
    cmp al, 0xFF
    je 2f
    add si, 3
    cmp al, [bp + F_AL]
    jne 1b
    jmp cs:[si - 2]
2:  ret

user_load:                          /* 00h, 10h: ES:BP, CX, DX, BL block, BH height */
    mov es, [bp + F_ES]
    mov di, [bp + F_EBP]
    mov cx, [bp + F_ECX]
    mov dx, [bp + F_EDX]
    mov bx, [bp + F_EBX]
    call font_load
    jmp 3f
rom_load:                           /* x1h 8x14, x2h 8x8, x4h 8x16 */
    mov al, [bp + F_AL]
    and al, 7
    mov bh, 14
    mov di, offset font14
    cmp al, 1
    je 1f
    mov bh, 8
    mov di, offset font8
    cmp al, 2
    je 1f
    mov bh, 16
    mov di, offset font16
1:  push cs
    pop es
    mov cx, 256
    xor dx, dx
    mov bl, [bp + F_BL]
    call font_load
3:  test byte ptr [bp + F_AL], 0x10
    jz 2b
/* Text in cells of BH lines: rows, page, the end of a character and of the screen. */
    cmp bh, 2
    jb 2b
    movzx cx, bh
    mov ds:[BDA_CHARACTER], cx
    mov dx, ds:[BDA_CRTC]
    mov al, 9
    out dx, al
    inc dx
    in al, dx
    and al, 0xE0
    mov ah, bh
    dec ah
    or al, ah
    out dx, al
    mov al, 0x13                    /* how many lines there are: the sync polarities tell 350, 400, 480 */
    mov dx, 0x3CC
    in al, dx
    shr al, 6
    mov bx, 400
    cmp al, 2
    jne 4f
    mov bx, 350
4:  cmp al, 3
    jne 5f
    mov bx, 480
5:  mov ax, bx
    xor dx, dx
    div cx
    dec ax
    mov ds:[BDA_ROWS], al
    inc ax
    mov bx, ax
    mul cx
    dec ax                          /* last line shown */
    mov dx, ds:[BDA_CRTC]
    push ax
    mov ah, al
    mov al, 0x12
    out dx, ax
    pop ax
    mov ax, bx
    mul byte ptr ds:[BDA_COLUMNS]
    shl ax, 1
    add ax, 0x7FF                   /* pages are 2 KiB apart */
    and ax, 0xF800
    mov ds:[BDA_PAGE_SIZE], ax
    mov cl, ds:[BDA_CHARACTER]      /* the cursor is the two lines above the last, in the last two of eight */
    dec cl
    cmp cl, 8
    jb 6f
    dec cl
6:  mov ch, cl
    dec ch
    mov ds:[BDA_CURSOR_SHAPE], cx
    jmp cursor_lines

block_select:                       /* 03h */
    mov dx, 0x3C4
    mov al, 3
    mov ah, [bp + F_BL]
    out dx, ax
    ret

upper_half:                         /* 20h: INT 1Fh is ES:BP */
    xor ax, ax
    mov ds, ax
    mov ax, [bp + F_EBP]
    mov ds:[0x1F * 4], ax
    mov ax, [bp + F_ES]
    mov ds:[0x1F * 4 + 2], ax
    ret

graphics_user:                      /* 21h: ES:BP, CX lines */
    mov ax, [bp + F_EBP]
    mov bx, [bp + F_ES]
    mov cx, [bp + F_ECX]
    jmp 1f
graphics_rom:                       /* 22h 8x14, 23h 8x8, 24h 8x16 */
    mov bx, cs
    mov al, [bp + F_AL]
    mov cx, 14
    mov di, offset font14
    cmp al, 0x22
    je 2f
    mov cx, 8
    mov di, offset font8
    cmp al, 0x23
    je 2f
    mov cx, 16
    mov di, offset font16
2:  mov ax, di
1:  push 0
    pop es
    mov es:[0x43 * 4], ax
    mov es:[0x43 * 4 + 2], bx
    mov ds:[BDA_CHARACTER], cx
    mov al, [bp + F_DL]             /* rows: BL 0 in DL, else 14, 25, 43 */
    movzx bx, byte ptr [bp + F_BL]
    cmp bl, 0
    je 3f
    cmp bl, 3
    ja 9f
    mov al, cs:[row_counts + bx]
3:  dec al
    mov ds:[BDA_ROWS], al
9:  ret
.section .rodata16, "a"
row_counts: .byte 0, 14, 25, 43
.section .text16, "ax"

font_information:                   /* 30h: BH which; ES:BP, CX height on screen, DL rows less one */
    push 0
    pop es
    mov bl, [bp + F_BH]
    cmp bl, 7
    ja 9b
    mov ax, offset font14
    cmp bl, 2
    je 1f
    cmp bl, 5
    je 1f
    mov ax, offset font8
    cmp bl, 3
    je 1f
    mov ax, offset font8 + 1024
    cmp bl, 4
    je 1f
    mov ax, offset font16
    cmp bl, 6
    jae 1f
    mov eax, es:[0x1F * 4]
    cmp bl, 0
    je 2f
    mov eax, es:[0x43 * 4]
    jmp 2f
1:  mov bx, cs
    shl ebx, 16
    movzx eax, ax
    or eax, ebx
2:  mov [bp + F_EBP], ax
    shr eax, 16
    mov [bp + F_ES], ax
    mov ax, ds:[BDA_CHARACTER]
    mov [bp + F_ECX], ax
    mov al, ds:[BDA_ROWS]
    mov [bp + F_DL], al
    ret

.globl select
select:                             /* 12h */
    mov al, [bp + F_BL]
    mov ah, [bp + F_AL]
    cmp al, 0x10
    je information
    cmp al, 0x30
    je scan_lines
    cmp al, 0x31
    je palette_loading
    cmp al, 0x32
    je addressing
    cmp al, 0x33
    je summing
    cmp al, 0x34
    je emulation
    cmp al, 0x36
    je refresh
    cmp al, 0x20
    je 9f
    ret
9:  ret
granted:
    mov byte ptr [bp + F_AL], 0x12
    ret
information:                        /* 10h: BH 0 colour, BL 256 KiB, CX features and switches */
    xor bh, bh
    cmp word ptr ds:[BDA_CRTC], 0x3B4
    jne 1f
    inc bh
1:  mov bl, 3
    mov [bp + F_EBX], bx
    movzx cx, byte ptr ds:[BDA_SWITCHES]
    and cl, 15
    mov [bp + F_ECX], cx
    ret
scan_lines:                         /* 30h: AL 0 200, 1 350, 2 400 lines with the next mode */
    mov al, ds:[BDA_MODESET]
    and al, 0x6F
    cmp ah, 2
    ja 9b
    je 1f
    or al, 0x80
    cmp ah, 0
    je 2f
    and al, 0x6F
    jmp 2f
1:  or al, 0x10
2:  mov ds:[BDA_MODESET], al
    and byte ptr ds:[BDA_SWITCHES], 0xF0
    or byte ptr ds:[BDA_SWITCHES], 9
    test al, 0x80
    jz granted
    dec byte ptr ds:[BDA_SWITCHES]
    jmp granted
palette_loading:                    /* 31h: AL 1 stays as it is */
    cmp ah, 1
    ja 9b
    shl ah, 3
    and byte ptr ds:[BDA_MODESET], 0xF7
    or ds:[BDA_MODESET], ah
    jmp granted
addressing:                         /* 32h: AL 0 on, 1 off */
    cmp ah, 1
    ja 9b
    xor ah, 1
    shl ah, 1
    mov dx, 0x3CC
    in al, dx
    and al, 0xFD
    or al, ah
    mov dx, 0x3C2
    out dx, al
    jmp granted
summing:                            /* 33h: AL 0 greys */
    cmp ah, 1
    ja 9b
    xor ah, 1
    shl ah, 1
    and byte ptr ds:[BDA_MODESET], 0xFD
    or ds:[BDA_MODESET], ah
    jmp granted
emulation:                          /* 34h: AL 0 scales the cursor's shape */
    cmp ah, 1
    ja 9b
    and byte ptr ds:[BDA_VIDEO_CONTROL], 0xFE
    or ds:[BDA_VIDEO_CONTROL], ah
    jmp granted
refresh:                            /* 36h: AL 0 the screen on, 1 off */
    cmp ah, 1
    ja 9b
    shl ah, 5
    mov dx, 0x3C4
    mov al, 1
    out dx, al
    inc dx
    in al, dx
    and al, 0xDF
    or al, ah
    out dx, al
    jmp granted
