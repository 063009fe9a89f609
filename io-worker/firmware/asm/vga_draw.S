/* INT 10h in graphics: characters drawn and recognised, single pixels, the CGA's colours. */
.include "vga.inc"
.code16
.section .text16, "ax"

/* The glyph of character AL at DS:SI. In modes 4 to 6 the upper half is INT 1Fh's. */
glyph_find:
    push ax
    push bx
    push 0
    pop ds
    movzx bx, byte ptr ds:[0x400 + BDA_CHARACTER]
    mov ah, 0
    cmp byte ptr ds:[0x400 + BDA_MODE], 6
    ja 1f
    cmp al, 0x80
    jb 1f
    sub al, 0x80
    mul bl
    lds si, ds:[0x1F * 4]
    jmp 2f
1:  mul bl
    lds si, ds:[0x43 * 4]
2:  add si, ax
    pop bx
    pop ax
    ret

/* Character AL in colour AH (bit 7: exclusive or) at row DH, column DL of the mode at CS:SI. */
.globl glyph_draw
glyph_draw:
    pusha
    push es
    push ds
    mov es, cs:[si + M_SEGMENT]
    movzx cx, byte ptr ds:[BDA_CHARACTER]
    mov bl, cs:[si + M_KIND]
    cmp bl, KIND_PLANAR
    je planar
    cmp bl, KIND_LINEAR
    je linear
    movzx di, dh                    /* CGA: four lines in each bank */
    imul di, di, 320
    xor dh, dh
    add di, dx
    cmp byte ptr cs:[si + M_BITS], 1
    je 1f
    add di, dx
1:  mov bh, cs:[si + M_BITS]
    call glyph_find
2:  mov bl, [si]
    inc si
    cmp bh, 1
    jne 3f
    test ah, 0x80
    jz 25f
    xor bl, es:[di]
25: mov es:[di], bl
    jmp 5f
3:  push cx                         /* eight times two bits of the colour */
    mov cx, 8
    xor dx, dx
4:  shl dx, 2
    shl bl, 1
    jnc 45f
    mov al, ah
    and al, 3
    or dl, al
45: loop 4b
    pop cx
    xchg dl, dh
    test ah, 0x80
    jz 46f
    xor dx, es:[di]
46: mov es:[di], dx
5:  xor di, 0x2000
    test di, 0x2000
    jnz 6f
    add di, 80
6:  loop 2b
    jmp drawn

linear:
    movzx di, dh
    imul di, di, 320
    imul di, cx
    xor dh, dh
    shl dx, 3
    add di, dx
    call glyph_find
1:  mov bl, [si]
    inc si
    mov bh, 8
2:  mov al, 0
    shl bl, 1
    jnc 3f
    mov al, ah
3:  stosb
    dec bh
    jnz 2b
    add di, 320 - 8
    loop 1b
    jmp drawn

planar:
    push ax
    mov ax, ds:[BDA_COLUMNS]
    mov bx, ax
    movzx di, dh
    imul di, cx
    imul di, bx
    xor dh, dh
    add di, dx
    add di, ds:[BDA_PAGE_START]
    mov dx, 0x3C4
    mov ax, 0x0F02
    out dx, ax
    mov dx, 0x3CE
    mov ax, 0x0F01                  /* colours come from set/reset */
    out dx, ax
    pop ax
    call glyph_find
    push ax
    test ah, 0x80
    jz 1f
    mov ax, 0x1803
    out dx, ax
1:  pop ax
2:  test ah, 0x80
    jnz 3f
    push ax
    mov ax, 0xFF08                  /* black first */
    out dx, ax
    mov ax, 0x0000
    out dx, ax
    mov es:[di], al
    pop ax
3:  push ax
    and ah, 0x0F
    mov al, 0
    out dx, ax
    mov ah, [si]
    inc si
    mov al, 8
    out dx, ax
    mov al, es:[di]                 /* latches */
    mov es:[di], al
    pop ax
    add di, bx
    loop 2b
    mov ax, 0xFF08
    out dx, ax
    mov ax, 0x0001
    out dx, ax
    mov ax, 0x0000
    out dx, ax
    mov ax, 0x0003
    out dx, ax
drawn:
    pop ds
    pop es
    popa
    ret

/* Which character stands at DX? AL, 0 when none is like it. */
.globl glyph_read
glyph_read:
    push bp
    sub sp, 32
    mov bp, sp
    mov es, cs:[si + M_SEGMENT]
    movzx cx, byte ptr ds:[BDA_CHARACTER]
    push cx
    movzx ax, dl                    /* its top left corner */
    shl ax, 3
    movzx bx, dh
    imul bx, cx
    xor di, di
1:  push cx
    push ax
    mov cx, 8
    xor dh, dh
2:  push cx
    push ax
    push dx
    mov cx, ax
    mov dx, bx
    call pixel_at
    pop dx
    shl dh, 1
    test al, al
    jz 3f
    inc dh
3:  pop ax
    inc ax
    pop cx
    loop 2b
    mov [bp + di], dh
    inc di
    pop ax
    inc bx
    pop cx
    loop 1b
    pop cx
    xor ax, ax
4:  push ds
    push ax
    call glyph_find
    mov di, 0
5:  mov bl, [si]
    inc si
    cmp bl, ss:[bp + di]
    jne 6f
    inc di
    cmp di, cx
    jb 5b
6:  pop ax
    pop ds
    je 7f
    inc al
    jnz 4b
7:  add sp, 32
    pop bp
    ret

/* Column CX, line DX: ES:DI the byte, CL the pixel's place in it (0 left). */
pixel_place:
    call mode_current
    jc 9f
    mov es, cs:[si + M_SEGMENT]
    mov al, cs:[si + M_KIND]
    cmp al, KIND_TEXT
    je 8f
    cmp al, KIND_LINEAR
    je 3f
    cmp al, KIND_CGA
    je 1f
    mov di, dx
    imul di, ds:[BDA_COLUMNS]
    mov ax, cx
    shr ax, 3
    add di, ax
    movzx ax, byte ptr [bp + F_BH]
    push dx
    mul word ptr ds:[BDA_PAGE_SIZE]
    pop dx
    add di, ax
    and cl, 7
    clc
    ret
1:  mov di, dx
    shr di, 1
    imul di, di, 80
    test dl, 1
    jz 2f
    add di, 0x2000
2:  mov ax, cx
    cmp byte ptr cs:[si + M_BITS], 1
    je 25f
    shr ax, 2
    add di, ax
    and cl, 3
    clc
    ret
25: shr ax, 3
    add di, ax
    and cl, 7
    clc
    ret
3:  imul di, dx, 320
    add di, cx
    clc
    ret
8:  stc
9:  ret

/* The colour at column CX, line DX: AL. */
pixel_at:
    push bx
    push cx
    push dx
    push di
    push si
    push es
    call pixel_place
    mov al, 0
    jc 9f
    mov bl, cs:[si + M_KIND]
    cmp bl, KIND_PLANAR
    je 2f
    mov al, es:[di]
    cmp bl, KIND_LINEAR
    je 9f
    cmp byte ptr cs:[si + M_BITS], 1
    je 1f
    shl cl, 1
    shl al, cl
    shr al, 6
    jmp 9f
1:  shl al, cl
    shr al, 7
    jmp 9f
2:  mov ch, 0x80
    shr ch, cl
    mov dx, 0x3CE
    mov ax, 0x0304                  /* plane 3 first */
    xor bl, bl
3:  out dx, ax
    shl bl, 1
    test es:[di], ch
    jz 4f
    inc bl
4:  dec ah
    jns 3b
    mov ax, 0x0004
    out dx, ax
    mov al, bl
9:  pop es
    pop si
    pop di
    pop dx
    pop cx
    pop bx
    ret

.globl pixel_read, pixel_write, colours_set
pixel_read:                         /* 0Dh */
    mov cx, [bp + F_ECX]
    mov dx, [bp + F_EDX]
    call pixel_at
    mov [bp + F_AL], al
    ret

pixel_write:                        /* 0Ch: AL, bit 7 exclusive or */
    mov cx, [bp + F_ECX]
    mov dx, [bp + F_EDX]
    call pixel_place
    jc 9f
    mov bl, [bp + F_AL]
    mov al, cs:[si + M_KIND]
    cmp al, KIND_LINEAR
    je 4f
    cmp al, KIND_PLANAR
    je 3f
    mov ah, 0x80                    /* CGA */
    mov bh, bl
    cmp byte ptr cs:[si + M_BITS], 1
    je 1f
    mov ah, 0xC0
    shl cl, 1
    shl bh, 6
    jmp 2f
1:  shl bh, 7
2:  shr ah, cl
    shr bh, cl
    test bl, 0x80
    jz 25f
    xor es:[di], bh
    ret
25: not ah
    and es:[di], ah
    or es:[di], bh
9:  ret
3:  mov dx, 0x3C4
    mov ax, 0x0F02
    out dx, ax
    mov dx, 0x3CE
    mov ax, 0x0F01
    out dx, ax
    mov ah, bl
    and ah, 15
    mov al, 0
    out dx, ax
    mov ah, 0x80
    shr ah, cl
    mov al, 8
    out dx, ax
    test bl, 0x80
    jz 35f
    mov ax, 0x1803
    out dx, ax
35: mov al, es:[di]
    mov es:[di], al
    mov ax, 0x0003
    out dx, ax
    mov ax, 0xFF08
    out dx, ax
    mov ax, 0x0001
    out dx, ax
    mov ax, 0x0000
    out dx, ax
    ret
4:  mov es:[di], bl
    ret

/* 0Bh: BH 0 border and background BL, 1 palette BL of modes 4 and 5. */
colours_set:
    mov bl, [bp + F_BL]
    mov al, ds:[BDA_PALETTE]
    cmp byte ptr [bp + F_BH], 1
    je 2f
    ja 9b
    and al, 0xE0
    mov ah, bl
    and ah, 0x1F
    or al, ah
    mov ds:[BDA_PALETTE], al
    mov ah, bl                      /* bright colours are 10h to 17h */
    and ah, 7
    test bl, 8
    jz 1f
    or ah, 0x10
1:  push ax
    mov al, 0x11
    call attribute_set
    pop ax
    cmp byte ptr ds:[BDA_MODE], 3
    jbe 9b
    mov al, 0
    call attribute_set
    jmp 3f
2:  and al, 0xDF
    test bl, 1
    jz 25f
    or al, 0x20
25: mov ds:[BDA_PALETTE], al
3:  mov al, ds:[BDA_MODE]           /* 1 to 3: green, red, brown or cyan, magenta, white */
    cmp al, 4
    je 4f
    cmp al, 5
    jne 9b
4:  mov ah, 2
    test byte ptr ds:[BDA_PALETTE], 0x20
    jz 5f
    inc ah
5:  test byte ptr ds:[BDA_PALETTE], 0x10
    jz 6f
    or ah, 0x10
6:  mov al, 1
7:  push ax
    call attribute_set
    pop ax
    inc ah
    cmp al, 1
    jne 8f
    inc ah                          /* 2, 4, 6 or 3, 5, 7 */
    jmp 85f
8:  inc ah
85: inc al
    cmp al, 3
    jbe 7b
    ret
attribute_set:
    push dx
    call attribute_reset
    mov dx, 0x3C0
    out dx, al
    mov al, ah
    out dx, al
    mov al, 0x20
    out dx, al
    pop dx
    ret
