/* INT 10h: characters and scrolling, in text and, through vga_draw.S, in graphics. */
.include "vga.inc"
.code16
.section .text16, "ax"

/* DX row and column, BH page: ES:DI its cell. */
cell:
    mov es, cs:[si + M_SEGMENT]
    movzx ax, dh
    mul byte ptr ds:[BDA_COLUMNS]
    push dx
    xor dh, dh
    add ax, dx
    shl ax, 1
    mov di, ax
    movzx ax, bh
    mul word ptr ds:[BDA_PAGE_SIZE]
    add di, ax
    pop dx
    ret

/* Page BH's cursor in DX. */
cursor_of:
    push bx
    shr bx, 8
    and bx, 7
    shl bx, 1
    mov dx, ds:[BDA_CURSORS + bx]
    pop bx
    ret

.globl cell_read, cell_write, character_write
cell_read:                          /* 08h */
    call mode_current
    jc 9f
    mov bh, [bp + F_BH]
    call cursor_of
    cmp byte ptr cs:[si + M_KIND], KIND_TEXT
    jne 1f
    call cell
    mov ax, es:[di]
    mov [bp + F_EAX], ax
9:  ret
1:  call glyph_read
    mov ah, 0
    mov [bp + F_EAX], ax
    ret

cell_write:                         /* 09h */
    mov al, 1
    jmp 1f
character_write:                    /* 0Ah */
    mov al, 0
1:  push ax
    call mode_current
    pop ax
    jc 9b
    mov cx, [bp + F_ECX]
    jcxz 9b
    mov bh, [bp + F_BH]
    call cursor_of
    cmp byte ptr cs:[si + M_KIND], KIND_TEXT
    jne 4f
    push ax
    call cell
    pop ax
    test al, al
    mov al, [bp + F_AL]
    mov ah, [bp + F_BL]
    jz 2f
    rep stosw
    ret
2:  stosb
    inc di
    loop 2b
    ret
4:  mov al, [bp + F_AL]
    mov ah, [bp + F_BL]
5:  call glyph_draw
    inc dl
    cmp dl, ds:[BDA_COLUMNS]
    jb 6f
    mov dl, 0
    inc dh
6:  loop 5b
    ret

.globl teletype
teletype:                           /* 0Eh */
    mov al, [bp + F_AL]
    mov ah, [bp + F_BL]
    mov bh, ds:[BDA_PAGE]
    mov ch, 0                       /* the attribute that is there stays */

/* Character AL to page BH behind its cursor, which moves on. CH: with attribute AH. In graphics AH is the colour. */
write_behind_cursor:
    push ax
    call mode_current
    pop ax
    jc 9f
    call cursor_of
    cmp al, 7
    je bell
    cmp al, 8
    je backspace
    cmp al, 10
    je line_feed
    cmp al, 13
    je carriage_return
    push bx
    push cx
    cmp byte ptr cs:[si + M_KIND], KIND_TEXT
    je 1f
    call glyph_draw
    jmp 3f
1:  push ax
    call cell
    pop ax
    stosb
    test ch, ch
    jz 3f
    mov es:[di], ah
3:  pop cx
    pop bx
    inc dl
    cmp dl, ds:[BDA_COLUMNS]
    jb cursor_keep
    mov dl, 0
line_feed:
    inc dh
    cmp dh, ds:[BDA_ROWS]
    jbe cursor_keep
    dec dh
    push bx
    push dx
    xor bx, bx                      /* black, or the attribute at the end of the page */
    cmp byte ptr cs:[si + M_KIND], KIND_TEXT
    jne 4f
    mov bh, ds:[BDA_PAGE]
    call cell
    mov bh, es:[di + 1]
4:  xor cx, cx
    mov dl, ds:[BDA_COLUMNS]
    dec dl
    mov ax, 1
    call scroll
    pop dx
    pop bx
    jmp cursor_keep
carriage_return:
    mov dl, 0
    jmp cursor_keep
backspace:
    test dl, dl
    jz cursor_keep
    dec dl
cursor_keep:
    push bx
    shr bx, 8
    and bx, 7
    cmp bl, ds:[BDA_PAGE]
    pushf
    shl bx, 1
    mov ds:[BDA_CURSORS + bx], dx
    popf
    pop bx
    jne 9f
    push bx
    call cursor_show
    pop bx
9:  ret

bell:                               /* 0.1 s of 896 Hz */
    push dx
    mov al, 0xB6
    out 0x43, al
    mov ax, 1193182 / 896
    out 0x42, al
    mov al, ah
    out 0x42, al
    in al, 0x61
    push ax
    or al, 3
    out 0x61, al
    mov dx, PM_TIMER
    in eax, dx
    mov ecx, eax
1:  in eax, dx
    sub eax, ecx
    and eax, 0xFFFFFF
    cmp eax, PM_TIMER_MS * 100
    jb 1b
    pop ax
    out 0x61, al
    pop dx
    ret

.globl string
string:                             /* 13h */
    mov cx, [bp + F_ECX]
    test cx, cx
    jz 9b
    mov bh, [bp + F_BH]
    and bh, 7
    call cursor_of
    push dx                         /* where it was */
    movzx di, bh
    shl di, 1
    mov ax, [bp + F_EDX]
    mov ds:[BDA_CURSORS + di], ax
    mov di, [bp + F_EBP]
    mov es, [bp + F_ES]
1:  mov al, es:[di]
    inc di
    mov ah, [bp + F_BL]
    test byte ptr [bp + F_AL], 2
    jz 2f
    mov ah, es:[di]
    inc di
2:  pusha
    push es
    mov ch, 1
    call write_behind_cursor
    pop es
    popa
    loop 1b
    pop dx
    test byte ptr [bp + F_AL], 1
    jnz 3f
    call cursor_keep
3:  ret

.globl scroll_up, scroll_down
scroll_up:                          /* 06h */
    mov ah, 0
    jmp 1f
scroll_down:                        /* 07h */
    mov ah, 1
1:  mov al, [bp + F_AL]
    mov bh, [bp + F_BH]
    mov cx, [bp + F_ECX]
    mov dx, [bp + F_EDX]

/* Moves the rectangle from CX to DX by AL rows, AH 0 up, 1 down; what comes free is filled by BH. AL = 0: all of it. */
.set L_WIDTH, -2                    /* bytes of a column */
.set L_LINES, -4                    /* lines of a row in one bank */
.set L_STRIDE, -6
.set L_BANKS, -8
.set L_SHIFT, -10                   /* lines to move by */
.set L_LENGTH, -12                  /* bytes of a line of the rectangle */
.set L_TOTAL, -14                   /* lines of the rectangle */
.set L_START, -16
.set L_FILL, -18
.set L_KIND, -20
.set L_DOWN, -22
.globl scroll
scroll:
    pusha
    push es
    push ax
    call mode_current
    pop ax
    jc 19f
    push bp
    mov bp, sp
    sub sp, 22
    mov [bp + L_DOWN], ah
    cmp dl, ds:[BDA_COLUMNS]
    jb 1f
    mov dl, ds:[BDA_COLUMNS]
    dec dl
1:  cmp dh, ds:[BDA_ROWS]
    jbe 2f
    mov dh, ds:[BDA_ROWS]
2:  sub dh, ch
    jb 9f
    inc dh                          /* rows */
    sub dl, cl
    jb 9f
    inc dl                          /* columns */
    test al, al
    jz 3f
    cmp al, dh
    jbe 4f
3:  mov al, dh
4:  mov ah, 0
    mov [bp + L_SHIFT], ax
    mov [bp + L_FILL], bh
    call measures
    movzx ax, dl
    mul byte ptr [bp + L_WIDTH]
    mov [bp + L_LENGTH], ax
    movzx ax, dh
    mul byte ptr [bp + L_LINES]
    mov [bp + L_TOTAL], ax
    mov ax, [bp + L_SHIFT]
    mul byte ptr [bp + L_LINES]
    mov [bp + L_SHIFT], ax
    movzx ax, ch
    mul byte ptr [bp + L_LINES]
    mul word ptr [bp + L_STRIDE]
    mov di, ax
    movzx ax, cl
    mul byte ptr [bp + L_WIDTH]
    add di, ax
    add di, ds:[BDA_PAGE_START]
    mov es, cs:[si + M_SEGMENT]
    cmp byte ptr [bp + L_DOWN], 0
    je 5f
    mov ax, [bp + L_TOTAL]          /* from the last line on */
    dec ax
    mul word ptr [bp + L_STRIDE]
    add di, ax
    neg word ptr [bp + L_STRIDE]
5:  mov [bp + L_START], di
6:  mov di, [bp + L_START]
    call scroll_bank
    add word ptr [bp + L_START], 0x2000
    dec byte ptr [bp + L_BANKS]
    jnz 6b
9:  mov sp, bp
    pop bp
19: pop es
    popa
    ret

/* Bytes, lines, stride and banks of the mode at SI. */
measures:
    push dx
    mov al, cs:[si + M_KIND]
    mov [bp + L_KIND], al
    mov byte ptr [bp + L_BANKS], 1
    mov dx, ds:[BDA_COLUMNS]
    movzx bx, byte ptr ds:[BDA_CHARACTER]
    mov ah, 1
    cmp al, KIND_PLANAR
    je 3f
    cmp al, KIND_CGA
    je 1f
    cmp al, KIND_LINEAR
    je 2f
    mov bl, 1
    mov ah, 2
    shl dx, 1
    jmp 3f
1:  mov byte ptr [bp + L_BANKS], 2
    shr bx, 1
    mov dx, 80
    mov ah, cs:[si + M_BITS]
    jmp 3f
2:  mov ah, 8
    shl dx, 3
3:  mov [bp + L_WIDTH], ah
    mov [bp + L_LINES], bx
    mov [bp + L_STRIDE], dx
    pop dx
    ret

scroll_bank:
    mov ax, [bp + L_SHIFT]
    imul word ptr [bp + L_STRIDE]
    mov si, di
    add si, ax
    mov dx, [bp + L_TOTAL]
    sub dx, [bp + L_SHIFT]
    jz 4f
    cmp byte ptr [bp + L_KIND], KIND_PLANAR
    jne 1f
    push dx
    mov dx, 0x3CE                   /* write mode 1: the latches */
    mov ax, 0x0105
    out dx, ax
    mov dx, 0x3C4
    mov ax, 0x0F02
    out dx, ax
    pop dx
1:  push si
    push di
    mov cx, [bp + L_LENGTH]
    push ds
    push es
    pop ds
    cmp byte ptr ss:[bp + L_KIND], KIND_TEXT
    jne 2f
    shr cx, 1
    rep movsw
    jmp 3f
2:  rep movsb
3:  pop ds
    pop di
    pop si
    add si, [bp + L_STRIDE]
    add di, [bp + L_STRIDE]
    dec dx
    jnz 1b
4:  cmp byte ptr [bp + L_KIND], KIND_PLANAR
    jne 5f
    mov dx, 0x3CE
    mov ax, 0x0005
    out dx, ax
    mov ah, [bp + L_FILL]
    mov al, 0
    out dx, ax
    mov ax, 0x0F01
    out dx, ax
    mov dx, 0x3C4
    mov ax, 0x0F02
    out dx, ax
5:  mov dx, [bp + L_SHIFT]
6:  push di
    mov cx, [bp + L_LENGTH]
    mov al, [bp + L_FILL]
    cmp byte ptr [bp + L_KIND], KIND_TEXT
    jne 7f
    mov ah, al
    mov al, ' '
    shr cx, 1
    rep stosw
    jmp 8f
7:  rep stosb
8:  pop di
    add di, [bp + L_STRIDE]
    dec dx
    jnz 6b
    cmp byte ptr [bp + L_KIND], KIND_PLANAR
    jne 9f
    mov dx, 0x3CE
    mov ax, 0x0001
    out dx, ax
    mov ax, 0x0000
    out dx, ax
9:  ret
