/* VBE functions on a mode that is set: windows, line length, start, DAC, and the monitor's data. */
.include "vga.inc"
.include "vbe.inc"
.code16
.section .text16, "ax"
.globl vbe_window, vbe_window_far, vbe_line, vbe_start, vbe_dac_width, vbe_palette, vbe_edid

/* 05h: BH 0 set, 1 get; BL window; DX place in units of 64 KiB. */
vbe_window:
    cmp word ptr ds:[BDA_VBE_MODE], 0
    je invalid
    cmp byte ptr [bp + F_BL], 0
    jne failed
    mov dx, [bp + F_EDX]
    cmp byte ptr [bp + F_BH], 1
    ja failed
    je 1f
    cmp dx, cs:[vbe_memory]
    jae failed
    mov al, DISPI_BANK
    call dispi_write
good:
    mov ax, 0x004F
    ret
1:  mov al, DISPI_BANK
    call dispi_read
    mov [bp + F_EDX], ax
    jmp good
failed:
    mov ax, 0x014F
    ret
invalid:                            /* not in this mode */
    mov ax, 0x034F
    ret

/* The same by a far call, its registers as the specification says. */
vbe_window_far:
    push ax
    push dx
    cmp bx, 1
    je 1f
    mov al, DISPI_BANK
    call dispi_write
    pop dx
    pop ax
    retf
1:  mov al, DISPI_BANK
    call dispi_read
    pop dx
    mov dx, ax
    pop ax
    retf

/* CX bits of a pixel, 4 with planes. */
pixel_bits:
    mov al, DISPI_BITS
    call dispi_read
    mov cx, ax
    cmp cx, 15
    jne 1f
    inc cx
1:  ret

/* 06h: BL 0 set in pixels, 1 get, 2 set in bytes, 3 the most. */
vbe_line:
    cmp word ptr ds:[BDA_VBE_MODE], 0
    je invalid
    call pixel_bits
    mov bl, [bp + F_BL]
    cmp bl, 1
    je 3f
    cmp bl, 3
    ja failed
    je 5f
    mov ax, [bp + F_ECX]
    cmp bl, 0
    je 1f
    movzx eax, ax                   /* bytes to pixels; of a plane when there are planes */
    shl eax, 3
    cmp cx, 4
    je 1f
    movzx ecx, cx
    xor edx, edx
    div ecx
1:  test ax, ax
    jz failed
    mov dx, ax
    push dx
    mov al, DISPI_WIDTH
    call dispi_read
    pop dx
    cmp dx, ax
    jb failed
    mov al, DISPI_VIRTUAL_WIDTH
    call dispi_write
    call pixel_bits
3:  mov al, DISPI_VIRTUAL_WIDTH
    call dispi_read
    mov [bp + F_ECX], ax
    call bytes_of
    mov [bp + F_EBX], ax
    movzx ebx, ax
    test ebx, ebx
    jz failed
    movzx eax, word ptr cs:[vbe_memory]
    shl eax, 16
    cmp cx, 4
    jne 4f
    shr eax, 2
4:  xor edx, edx
    div ebx
    cmp eax, 0xFFFF
    jbe 45f
    mov ax, 0xFFFF
45: mov [bp + F_EDX], ax
    jmp good
5:  mov ax, 0x3FF8                  /* 03h */
    mov [bp + F_ECX], ax
    call bytes_of
    mov [bp + F_EBX], ax
    mov word ptr [bp + F_EDX], 1
    jmp good

/* AX pixels of CX bits in bytes: AX. */
bytes_of:
    movzx eax, ax
    cmp cx, 4
    je 1f
    movzx ebx, cx
    imul eax, ebx
1:  shr eax, 3
    ret

/* 07h: BL 0 and 80h set column CX and line DX, 1 get. */
vbe_start:
    cmp word ptr ds:[BDA_VBE_MODE], 0
    je invalid
    mov bl, [bp + F_BL]
    and bl, 0x7F
    cmp bl, 1
    ja failed
    je 1f
    mov dx, [bp + F_ECX]
    mov al, DISPI_X
    call dispi_write
    mov dx, [bp + F_EDX]
    mov al, DISPI_Y
    call dispi_write
    jmp good
1:  mov al, DISPI_X
    call dispi_read
    mov [bp + F_ECX], ax
    mov al, DISPI_Y
    call dispi_read
    mov [bp + F_EDX], ax
    mov byte ptr [bp + F_BH], 0
    jmp good

/* 08h: BL 0 set BH bits, 1 get. Bit 5 of the interface's ENABLE is the wide DAC. */
vbe_dac_width:
    cmp word ptr ds:[BDA_VBE_MODE], 0
    je invalid
    mov bl, [bp + F_BL]
    cmp bl, 1
    ja failed
    mov al, DISPI_ENABLE
    call dispi_read
    cmp bl, 1
    je 1f
    mov dx, ax
    and dl, 0xDF
    or dl, 0x80                     /* memory stays */
    cmp byte ptr [bp + F_BH], 8
    jb 0f
    or dl, 0x20
0:  mov al, DISPI_ENABLE
    push dx
    call dispi_write
    pop ax
1:  mov byte ptr [bp + F_BH], 6
    test al, 0x20
    jz good
    mov byte ptr [bp + F_BH], 8
    jmp good

/* 09h: BL 0 and 80h set, 1 get; CX of them from DX on, blue, green, red, nothing at ES:DI. */
vbe_palette:
    mov bl, [bp + F_BL]
    and bl, 0x7F
    cmp bl, 1
    ja failed
    mov cx, [bp + F_ECX]
    mov ax, [bp + F_EDX]
    cmp ax, 0xFF
    ja failed
    mov dx, 0x100
    sub dx, ax
    cmp cx, dx
    ja failed
    mov es, [bp + F_ES]
    mov di, [bp + F_EDI]
    test cx, cx
    jz good
    cmp bl, 1
    je 2f
    mov dx, 0x3C8
    out dx, al
    inc dx
1:  mov al, es:[di + 2]
    out dx, al
    mov al, es:[di + 1]
    out dx, al
    mov al, es:[di]
    out dx, al
    add di, 4
    loop 1b
    jmp good
2:  mov dx, 0x3C7
    out dx, al
    add dx, 2
3:  in al, dx
    mov es:[di + 2], al
    in al, dx
    mov es:[di + 1], al
    in al, dx
    mov es:[di], al
    mov byte ptr es:[di + 3], 0
    add di, 4
    loop 3b
    jmp good

/* 15h: BL 0 what can be asked, 1 the monitor's data: 128 bytes at ES:DI. POST has put them at C000:0100h. */
vbe_edid:
    cmp word ptr cs:[edid], 0xFF00
    mov ax, 0x0100
    jne 9f
    cmp byte ptr [bp + F_BL], 1
    ja failed
    je 1f
    mov word ptr [bp + F_EBX], 0x0101
    jmp good
1:  cmp word ptr [bp + F_EDX], 0
    jne failed
    mov es, [bp + F_ES]
    mov di, [bp + F_EDI]
    mov si, offset edid
    mov cx, 64
    rep movsw es:[di], cs:[si]
    jmp good
9:  ret
