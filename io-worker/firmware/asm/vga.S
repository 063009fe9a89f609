/* The VGA BIOS: an option ROM that takes INT 10h. */
.include "vga.inc"
.code16
.section .header, "ax"
.globl vga_rom
vga_rom:
    .word 0xAA55
    .byte 0                         /* length in 512 bytes: the build's */
    jmp initialise
    .org 0x1E                       /* what is shown of itself, as programs look for it */
    .asciz "IBM compatible: Quintet VGA BIOS"
    .org 0x100
.globl edid
edid:                               /* the monitor's data, which POST reads from the adapter's memory */
    .fill 128, 1, 0
.section .text16, "ax"

/* Called by POST. */
initialise:
    pushad
    push ds
    push es
    xor ax, ax
    mov ds, ax
    mov eax, ds:[0x10 * 4]          /* the one before is INT 42h */
    mov ds:[0x42 * 4], eax
    mov word ptr ds:[0x10 * 4], offset int10
    mov ds:[0x10 * 4 + 2], cs
    mov word ptr ds:[0x1F * 4], offset font8 + 1024
    mov ds:[0x1F * 4 + 2], cs
    push 0x40
    pop ds
    and word ptr ds:[BDA_EQUIPMENT], 0xFFCF
    or word ptr ds:[BDA_EQUIPMENT], 0x20
    mov byte ptr ds:[BDA_VIDEO_CONTROL], 0x60
    mov byte ptr ds:[BDA_SWITCHES], 0xF9
    mov byte ptr ds:[BDA_MODESET], 0x51
    mov byte ptr ds:[BDA_DCC], 8
    mov word ptr ds:[BDA_SAVE_POINTER], offset save_pointers
    mov ds:[BDA_SAVE_POINTER + 2], cs
    call vbe_initialise
    mov ax, 3
    int 0x10
    push cs                         /* with what was found out in it, the ROM adds up to zero again */
    pop ds
    mov ch, ds:[2]
    shl ch, 1
    mov cl, 0
    xor si, si
    xor al, al
1:  add al, [si]
    inc si
    loop 1b
    sub [si - 1], al
    pop es
    pop ds
    popad
    retf

.globl int10
int10:
    ENTER
    sti
    movzx bx, byte ptr [bp + F_AH]
    cmp bl, 0x4F
    je 2f
    cmp bl, 0x1D
    jae 1f
    shl bx, 1
    call cs:[functions10 + bx]
1:  LEAVE
2:  call vbe
    LEAVE

.section .rodata16, "a"
functions10:
    .word set_mode, cursor_shape, cursor_set, cursor_get, light_pen, page_set, scroll_up, scroll_down
    .word cell_read, cell_write, character_write, colours_set, pixel_write, pixel_read, teletype, mode_get
    .word palette, fonts, select, string, nothing10, nothing10, nothing10, nothing10
    .word nothing10, nothing10, combination, functionality, states

/* The video parameters and what else 40:A8 leads to. */
save_pointers:
    .word parameters_seen, 0xC000
    .long 0, 0, 0
    .word secondary_pointers, 0xC000
    .long 0, 0
secondary_pointers:
    .word 26
    .word combination_table, 0xC000
    .long 0, 0, 0, 0, 0
combination_table:                  /* what may be together: VGA colour or monochrome with nothing else */
    .byte 4, 1, 8, 0
    .word 0, 0x0800, 0x0700, 0
parameters_seen = parameters

.section .text16, "ax"
nothing10:
    ret
light_pen:                          /* 04h: there is none */
    mov byte ptr [bp + F_AH], 0
    ret

/* The description of the current mode at CS:SI; carry when it has none. */
.globl mode_find, mode_current
mode_current:
    mov al, ds:[BDA_MODE]
mode_find:                          /* of mode AL */
    and al, 0x7F
    mov si, offset mode_table
1:  cmp byte ptr cs:[si], 0xFF
    je 2f
    cmp al, cs:[si]
    je 3f
    add si, M_SIZE
    jmp 1b
2:  stc
    ret
3:  clc
    ret

mode_get:                           /* 0Fh */
    mov al, ds:[BDA_MODE]
    mov ah, ds:[BDA_VIDEO_CONTROL]
    and ah, 0x80
    or al, ah
    mov [bp + F_AL], al
    mov al, ds:[BDA_COLUMNS]
    mov [bp + F_AH], al
    mov al, ds:[BDA_PAGE]
    mov [bp + F_BH], al
    ret

/* CRTC register AL gets AH. */
.globl crtc_write
crtc_write:
    push dx
    mov dx, ds:[BDA_CRTC]
    out dx, ax
    pop dx
    ret

cursor_shape:                       /* 01h: CH start, CL end */
    mov cx, [bp + F_ECX]
    mov ds:[BDA_CURSOR_SHAPE], cx
.globl cursor_shape_apply
cursor_shape_apply:                 /* CX, scaled to the height of a character unless emulation is off (87h bit 0) */
    mov al, ds:[BDA_VIDEO_CONTROL]
    test al, 1
    jnz 9f
    mov dl, ds:[BDA_CHARACTER]
    cmp dl, 8
    jbe 9f
    test ch, 0x60
    jnz 9f
    cmp cl, 8
    jae 9f
    cmp ch, 8
    jae 9f
    mov al, cl                      /* lines of a cell of 8 to lines of this one */
    inc al
    cmp cl, ch
    je 2f
    mul dl
    shr ax, 3
    dec al
    mov cl, al
    mov al, ch
    inc al
    mul dl
    shr ax, 3
    dec al
    mov ch, al
    jmp 9f
2:  mul dl
    shr ax, 3
    dec al
    mov cl, al
    dec al
    mov ch, al
.globl cursor_lines
cursor_lines:                       /* CX as it is */
9:  mov ah, ch
    mov al, 0x0A
    call crtc_write
    mov ah, cl
    mov al, 0x0B
    jmp crtc_write

cursor_set:                         /* 02h: BH page, DH row, DL column */
    movzx bx, byte ptr [bp + F_BH]
    cmp bl, 7
    ja 9f
    mov dx, [bp + F_EDX]
    shl bx, 1
    mov ds:[BDA_CURSORS + bx], dx
    shr bx, 1
    cmp bl, ds:[BDA_PAGE]
    je cursor_show
9:  ret

/* Puts the hardware's cursor where the current page has it. */
.globl cursor_show
cursor_show:
    movzx bx, byte ptr ds:[BDA_PAGE]
    shl bx, 1
    mov dx, ds:[BDA_CURSORS + bx]
    movzx ax, dh
    mul byte ptr ds:[BDA_COLUMNS]
    xor dh, dh
    add ax, dx
    mov bx, ds:[BDA_PAGE_START]
    shr bx, 1
    add bx, ax
    mov ah, bh
    mov al, 0x0E
    call crtc_write
    mov ah, bl
    mov al, 0x0F
    jmp crtc_write

cursor_get:                         /* 03h */
    movzx bx, byte ptr [bp + F_BH]
    mov ax, ds:[BDA_CURSOR_SHAPE]
    mov [bp + F_ECX], ax
    mov word ptr [bp + F_EDX], 0
    cmp bl, 7
    ja 9f
    shl bx, 1
    mov ax, ds:[BDA_CURSORS + bx]
    mov [bp + F_EDX], ax
9:  ret

page_set:                           /* 05h: AL */
    mov al, [bp + F_AL]
    cmp al, 7
    ja 9f
    mov ds:[BDA_PAGE], al
    movzx ax, al
    mul word ptr ds:[BDA_PAGE_SIZE]
    mov ds:[BDA_PAGE_START], ax
    mov bx, ax
    call mode_current
    jc 9f
    cmp byte ptr cs:[si + M_KIND], KIND_TEXT
    jne 1f
    shr bx, 1
1:  mov ah, bh
    mov al, 0x0C
    call crtc_write
    mov ah, bl
    mov al, 0x0D
    call crtc_write
    jmp cursor_show
9:  ret

/* 1Ah: the combination of displays. */
combination:
    mov al, [bp + F_AL]
    cmp al, 1
    ja 9f
    mov byte ptr [bp + F_AL], 0x1A
    je 1f
    movzx bx, byte ptr ds:[BDA_DCC]
    mov [bp + F_EBX], bx
    ret
1:  mov al, [bp + F_BL]
    mov ds:[BDA_DCC], al
9:  ret

/* 1Bh: what there is and how it stands, 64 bytes at ES:DI. */
functionality:
    cmp word ptr [bp + F_EBX], 0
    jne 9f
    mov es, [bp + F_ES]
    mov di, [bp + F_EDI]
    push di
    xor ax, ax
    mov cx, 32
    rep stosw
    pop di
    mov word ptr es:[di], offset functionality_table
    mov es:[di + 2], cs
    push di
    add di, 4
    mov si, BDA_MODE
    mov cx, 30
    rep movsb
    mov si, BDA_ROWS
    mov al, [si]
    inc al
    stosb
    inc si
    movsw
    pop di
    mov al, ds:[BDA_DCC]
    mov es:[di + 0x25], al
    mov byte ptr es:[di + 0x26], 0
    push di
    call mode_current
    pop di
    jc 2f
    movzx cx, byte ptr cs:[si + M_BITS]
    mov ax, 1
    shl ax, cl
    mov es:[di + 0x27], ax
    cmp byte ptr cs:[si + M_KIND], KIND_TEXT
    jne 1f
    mov word ptr es:[di + 0x27], 16
1:  mov bx, cs:[si + M_PARAMETERS]
    mov al, 8
    cmp byte ptr cs:[si + M_KIND], KIND_TEXT
    je 15f
    mov al, 1
15: mov es:[di + 0x29], al
    mov al, cs:[bx + P_MISC]        /* lines: 400, 350, 480; 200 are doubled */
    shr al, 6
    movzx bx, al
    mov al, cs:[line_codes + bx]
    mov es:[di + 0x2A], al
2:  mov byte ptr es:[di + 0x2D], 0x21       /* summing is off, attributes blink, all modes on all displays */
    mov byte ptr es:[di + 0x31], 3          /* 256 KiB */
    mov byte ptr [bp + F_AL], 0x1B
9:  ret

.section .rodata16, "a"
line_codes: .byte 0, 2, 1, 3
functionality_table:
    .byte 0xFF, 0xE0, 0x0F, 0, 0, 0, 0, 7, 2, 8, 0xFF, 0x0E, 0, 0, 0, 0

.section .text16, "ax"
