/* INT 10h AH=00h: sets a mode by its parameters. */
.include "vga.inc"
.code16
.section .text16, "ax"

.globl set_mode
set_mode:
    mov al, [bp + F_AL]
    call mode_find
    jc 9f
    call vbe_off
    call mode_registers
    call mode_data_area
    mov al, [bp + F_AL]
    test al, 0x80
    jnz 1f
    call clear
1:  cmp byte ptr cs:[si + M_KIND], KIND_TEXT
    jne 2f
    push si
    push bx
    mov bh, cs:[bx + P_CHARACTER]
    call font_for_text
    pop bx
    pop si
    mov cx, ds:[BDA_CURSOR_SHAPE]
    push si
    call cursor_shape_apply
    call cursor_show
    pop si
2:  call graphics_font
    mov al, [bp + F_AL]
    and al, 0x7F
    mov ah, 0x30                    /* what RBIL says is left in AL */
    cmp al, 7
    jbe 3f
    mov ah, 0x20
3:  cmp al, 6
    jne 4f
    mov ah, 0x3F
4:  mov [bp + F_AL], ah
    mov dx, 0x3C0                   /* the screen is on */
    call attribute_reset
    mov al, 0x20
    out dx, al
9:  ret

/* The next write to 3C0h is an index. */
.globl attribute_reset
attribute_reset:
    push dx
    push ax
    mov dx, ds:[BDA_CRTC]
    add dx, 6
    in al, dx
    pop ax
    pop dx
    ret

/* SI the mode, BX its parameters from here on. */
mode_registers:
    mov bx, cs:[si + M_PARAMETERS]
    mov dx, 0x3C2
    mov al, cs:[bx + P_MISC]
    out dx, al
    test al, 1
    mov dx, 0x3D4
    jnz 1f
    mov dx, 0x3B4
1:  mov ds:[BDA_CRTC], dx
    mov dx, 0x3C4                   /* sequencer, held in reset while its clocking changes */
    mov ax, 0x0100
    out dx, ax
    mov al, 1
    mov di, P_SEQUENCER
2:  mov ah, cs:[bx + di]
    cmp al, 1
    jne 3f
    or ah, 0x20                     /* nothing is shown meanwhile */
3:  out dx, ax
    inc di
    inc al
    cmp al, 4
    jbe 2b
    mov ax, 0x0300
    out dx, ax
    mov dx, ds:[BDA_CRTC]
    mov ax, 0x0011                  /* the protection of 0 to 7 */
    out dx, ax
    mov di, P_CRTC
    xor al, al
4:  mov ah, cs:[bx + di]
    out dx, ax
    inc di
    inc al
    cmp al, 0x18
    jbe 4b
    mov dx, 0x3CE
    mov di, P_GRAPHICS
    xor al, al
5:  mov ah, cs:[bx + di]
    out dx, ax
    inc di
    inc al
    cmp al, 8
    jbe 5b
    call attribute_reset
    mov dx, 0x3C0
    test byte ptr ds:[BDA_MODESET], 8       /* the palette stays if 12h/31h said so */
    mov ah, 0
    jz 6f
    mov ah, 0x10
6:  movzx di, ah
    mov al, ah
    out dx, al
    mov al, cs:[bx + di + P_ATTRIBUTE]
    out dx, al
    inc ah
    cmp ah, 0x13
    jbe 6b
    mov al, 0x14
    out dx, al
    xor al, al
    out dx, al
    test byte ptr ds:[BDA_MODESET], 8
    jnz 7f
    mov al, cs:[si + M_PALETTE]
    push bx
    call dac_load
    pop bx
7:  mov dx, 0x3C6
    mov al, 0xFF
    out dx, al
    mov dx, 0x3C4
    mov ah, cs:[bx + P_SEQUENCER]
    mov al, 1
    out dx, ax
    ret

mode_data_area:
    mov al, cs:[si + M_NUMBER]
    mov ds:[BDA_MODE], al
    movzx ax, byte ptr cs:[bx + P_COLUMNS]
    mov ds:[BDA_COLUMNS], ax
    mov al, cs:[bx + P_ROWS]
    mov ds:[BDA_ROWS], al
    movzx ax, byte ptr cs:[bx + P_CHARACTER]
    mov ds:[BDA_CHARACTER], ax
    mov ax, cs:[bx + P_PAGE]
    mov ds:[BDA_PAGE_SIZE], ax
    xor ax, ax
    mov ds:[BDA_PAGE_START], ax
    mov ds:[BDA_PAGE], al
    push ds
    pop es
    mov di, BDA_CURSORS
    mov cx, 8
    rep stosw
    mov word ptr ds:[BDA_CURSOR_SHAPE], 0
    cmp byte ptr cs:[si + M_KIND], KIND_TEXT
    jne 1f
    mov word ptr ds:[BDA_CURSOR_SHAPE], 0x0607
1:  mov al, [bp + F_AL]
    and al, 0x80
    and byte ptr ds:[BDA_VIDEO_CONTROL], 0x7F
    or ds:[BDA_VIDEO_CONTROL], al
    movzx di, byte ptr cs:[si + M_NUMBER]
    cmp di, 7
    ja 2f
    mov al, cs:[cga_modes + di]
    mov ds:[BDA_MSR], al
    mov al, 0x30
    cmp di, 6
    jne 15f
    mov al, 0x3F
15: mov ds:[BDA_PALETTE], al
2:  ret

/* Blanks, or black. */
clear:
    cld
    mov es, cs:[si + M_SEGMENT]
    xor di, di
    mov cx, 0x4000
    mov ax, 0x0720
    cmp byte ptr cs:[si + M_KIND], KIND_TEXT
    je 1f
    xor ax, ax
    cmp byte ptr cs:[si + M_KIND], KIND_CGA
    je 1f
    mov cx, 0x8000
    cmp byte ptr cs:[si + M_KIND], KIND_LINEAR
    je 1f
    push ax                         /* all planes */
    mov dx, 0x3C4
    mov ax, 0x0F02
    out dx, ax
    pop ax
1:  rep stosw
    ret

/* INT 43h: the font of characters in graphics. */
graphics_font:
    xor ax, ax
    mov es, ax
    mov al, cs:[bx + P_CHARACTER]
    mov di, offset font8
    cmp al, 8
    je 1f
    mov di, offset font14
    cmp al, 14
    je 1f
    mov di, offset font16
1:  mov es:[0x43 * 4], di
    mov es:[0x43 * 4 + 2], cs
    ret

.section .rodata16, "a"
cga_modes: .byte 0x2C, 0x28, 0x2D, 0x29, 0x2A, 0x2E, 0x1E, 0x29
