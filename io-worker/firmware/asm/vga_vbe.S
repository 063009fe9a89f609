/* VESA BIOS extensions 3.0 through the Bochs interface (ports 1CEh and 1CFh): information and setting of modes. */
.include "vga.inc"
.include "vbe.inc"
.code16
.section .text16, "ax"

/* Register AL of the interface gets DX; BX, CX stay. */
.globl dispi_write, dispi_read
dispi_write:
    push dx
    movzx ax, al
    mov dx, DISPI
    out dx, ax
    pop ax
    push ax
    inc dx
    out dx, ax
    pop dx
    ret
/* Register AL in AX. */
dispi_read:
    push dx
    movzx ax, al
    mov dx, DISPI
    out dx, ax
    inc dx
    in ax, dx
    pop dx
    ret

/* Is it there, how much memory, where is the frame buffer? Kept in the ROM, which is RAM while POST runs. */
.globl vbe_initialise
vbe_initialise:
    push bx
    mov word ptr cs:[vbe_memory], 0
    mov al, DISPI_ID
    call dispi_read
    and ax, 0xFFF0
    cmp ax, 0xB0C0
    jne 9f
    mov al, DISPI_MEMORY
    call dispi_read
    mov cs:[vbe_memory], ax
    xor bx, bx                      /* function 1234:1111 of bus 0 */
1:  mov eax, 0x800000
    mov ax, bx
    shl eax, 8
    mov edi, eax
    call pci_dword
    cmp eax, 0x11111234
    je 2f
    add bx, 8
    cmp bx, 0x100
    jb 1b
    mov dword ptr cs:[vbe_frame], 0xE0000000
    jmp 9f
2:  lea eax, [edi + 0x10]
    call pci_dword
    and al, 0xF0
    mov cs:[vbe_frame], eax
9:  pop bx
    ret
pci_dword:
    mov dx, 0xCF8
    out dx, eax
    mov dx, 0xCFC
    in eax, dx
    ret

/* Back to the legacy VGA. */
.globl vbe_off
vbe_off:
    cmp word ptr cs:[vbe_memory], 0
    je vbe_is_off
    pusha
    mov al, DISPI_ENABLE
    xor dx, dx
    call dispi_write
    mov word ptr ds:[BDA_VBE_MODE], 0
    popa
vbe_is_off:
    ret

.globl vbe
vbe:                                /* 4Fh */
    cmp word ptr cs:[vbe_memory], 0
    je 9f
    movzx bx, byte ptr [bp + F_AL]
    cmp bl, 0x15
    je 2f
    cmp bl, 0x0A
    jae 9f
    shl bx, 1
    mov si, cs:[functions_vbe + bx]
1:  call si
    mov [bp + F_EAX], ax
    ret
2:  mov si, offset vbe_edid
    jmp 1b
9:  mov word ptr [bp + F_EAX], 0x0100
    ret

.section .rodata16, "a"
functions_vbe:
    .word vbe_information, vbe_mode_information, vbe_set, vbe_get, vbe_state, vbe_window, vbe_line, vbe_start
    .word vbe_dac_width, vbe_palette

.section .text16, "ax"
vbe_information:                    /* 00h: ES:DI 512 bytes, 256 when it did not say "VBE2" */
    mov es, [bp + F_ES]
    mov di, [bp + F_EDI]
    mov ebx, es:[di]
    push di
    xor ax, ax
    mov cx, 128
    cmp ebx, 0x32454256
    jne 1f
    mov cx, 256
1:  rep stosw
    pop di
    mov dword ptr es:[di], 0x41534556
    mov word ptr es:[di + 4], 0x0300
    mov word ptr es:[di + 6], offset vbe_oem
    mov es:[di + 8], cs
    mov dword ptr es:[di + 10], 1   /* the DAC can have 8 bits */
    lea ax, [di + 34]
    mov es:[di + 14], ax
    mov es:[di + 16], es
    mov ax, cs:[vbe_memory]
    mov es:[di + 18], ax
    cmp ebx, 0x32454256
    jne 2f
    mov word ptr es:[di + 20], 0x0100
    mov word ptr es:[di + 22], offset vbe_vendor
    mov es:[di + 24], cs
    mov word ptr es:[di + 26], offset vbe_product
    mov es:[di + 28], cs
    mov word ptr es:[di + 30], offset vbe_revision
    mov es:[di + 32], cs
2:  add di, 34
    mov si, offset vbe_modes
3:  cmp word ptr cs:[si], 0
    je 5f
    call vbe_fits
    jc 4f
    mov ax, cs:[si]
    stosw
4:  add si, V_SIZE
    jmp 3b
5:  mov ax, 0xFFFF
    stosw
    mov ax, 0x004F
    ret

/* EAX: bytes of a line of the mode at CS:SI. */
vbe_pitch:
    movzx eax, word ptr cs:[si + V_WIDTH]
    movzx ecx, byte ptr cs:[si + V_BITS]
    cmp cl, 4
    jne 1f
    shr eax, 3
    ret
1:  add cl, 7                       /* 15 bits take 16 */
    shr cl, 3
    imul eax, ecx
    ret

/* Carry when the memory cannot hold the mode at CS:SI. EAX: bytes of its screen, of a plane when it has planes. */
vbe_fits:
    call vbe_pitch
    movzx ecx, word ptr cs:[si + V_HEIGHT]
    imul eax, ecx
    movzx ecx, word ptr cs:[vbe_memory]
    shl ecx, 16
    cmp ecx, eax
    ret

/* Mode BX at CS:SI; carry when there is none. */
vbe_find:
    and bx, 0x1FF
    mov si, offset vbe_modes
1:  cmp word ptr cs:[si], 0
    je 2f
    cmp cs:[si], bx
    je vbe_fits
    add si, V_SIZE
    jmp 1b
2:  stc
    ret

vbe_mode_information:               /* 01h: CX; ES:DI 256 bytes */
    mov bx, [bp + F_ECX]
    test bh, 0xC0
    jnz vbe_failed
    call vbe_find
    jc vbe_failed
    mov es, [bp + F_ES]
    mov di, [bp + F_EDI]
    push di
    xor ax, ax
    mov cx, 128
    rep stosw
    pop di
    mov word ptr es:[di], 0x009B    /* there, extended, colour, graphics, linear */
    mov byte ptr es:[di + 2], 7     /* window A: there, read, written */
    mov word ptr es:[di + 4], 64
    mov word ptr es:[di + 6], 64
    mov word ptr es:[di + 8], 0xA000
    mov word ptr es:[di + 12], offset vbe_window_far
    mov es:[di + 14], cs
    call vbe_pitch
    mov es:[di + 16], ax
    mov es:[di + 50], ax            /* of the linear form */
    mov ax, cs:[si + V_WIDTH]
    mov es:[di + 18], ax
    mov ax, cs:[si + V_HEIGHT]
    mov es:[di + 20], ax
    mov word ptr es:[di + 22], 0x1008
    mov byte ptr es:[di + 24], 1
    mov al, cs:[si + V_BITS]
    mov es:[di + 25], al
    mov byte ptr es:[di + 26], 1
    mov byte ptr es:[di + 30], 1
    mov eax, cs:[vbe_frame]
    mov es:[di + 40], eax
    call vbe_fits
    movzx edx, word ptr cs:[vbe_memory]
    mov ecx, eax
    mov eax, edx
    shl eax, 16
    cmp byte ptr cs:[si + V_BITS], 4
    jne 0f
    shr eax, 2
0:  xor edx, edx
    div ecx
    dec eax                         /* pages less one, 255 at most */
    cmp eax, 255
    jbe 1f
    mov al, 255
1:  mov es:[di + 29], al
    mov es:[di + 52], al
    mov es:[di + 53], al
    mov dword ptr es:[di + 62], 400000000
    movzx bx, byte ptr cs:[si + V_BITS]
    mov al, 4                       /* packed pixels */
    cmp bl, 8
    je 4f
    mov al, 3                       /* planes, windows alone */
    cmp bl, 4
    jne 2f
    mov byte ptr es:[di + 24], 4
    mov word ptr es:[di], 0x001B
    mov dword ptr es:[di + 40], 0
    jmp 4f
2:  mov al, 6                       /* direct colour: size and place of red, green, blue, the rest */
    mov cx, offset masks_15
    cmp bl, 15
    je 3f
    mov cx, offset masks_16
    cmp bl, 16
    je 3f
    mov cx, offset masks_24
    cmp bl, 24
    je 3f
    mov cx, offset masks_32
3:  push di
    push si
    push ax
    add di, 31
    mov si, cx
    mov cx, 4
    rep movsw es:[di], cs:[si]
    sub si, 8
    add di, 54 - 39
    mov cx, 4
    rep movsw es:[di], cs:[si]
    pop ax
    pop si
    pop di
4:  mov es:[di + 27], al
    mov ax, 0x004F
    ret
vbe_failed:
    mov ax, 0x014F
    ret

vbe_set:                            /* 02h: BX, bit 14 linear, bit 15 memory stays */
    mov bx, [bp + F_EBX]
    test bh, 1
    jnz 1f
    cmp bx, 0x80                    /* a mode of the VGA */
    mov al, bl
    jb 0f
    test bh, 0x80
    jz vbe_failed
    or al, 0x80
0:  push ax
    call mode_find
    pop ax
    jc vbe_failed
    mov [bp + F_AL], al
    call set_mode
    mov ax, 0x004F
    ret
1:  test bh, 0x08                   /* timings of the caller's own */
    jnz vbe_failed
    call vbe_find
    jc vbe_failed
    cmp byte ptr cs:[si + V_BITS], 4
    jne 2f
    test byte ptr [bp + F_BH], 0x40
    jnz vbe_failed
2:  push si                         /* the legacy registers as for 256 colours, planes as for 16 */
    mov al, [bp + F_AL]
    push ax
    mov byte ptr [bp + F_AL], 0x13 | 0x80
    cmp byte ptr cs:[si + V_BITS], 4
    jne 3f
    mov byte ptr [bp + F_AL], 0x12 | 0x80
3:  call set_mode
    pop ax
    mov [bp + F_AL], al
    pop si
    mov al, DISPI_ENABLE
    xor dx, dx
    call dispi_write
    mov al, DISPI_WIDTH
    mov dx, cs:[si + V_WIDTH]
    call dispi_write
    mov al, DISPI_HEIGHT
    mov dx, cs:[si + V_HEIGHT]
    call dispi_write
    mov al, DISPI_BITS
    movzx dx, byte ptr cs:[si + V_BITS]
    call dispi_write
    mov al, DISPI_BANK
    xor dx, dx
    call dispi_write
    mov dx, 1                       /* on */
    mov al, [bp + F_BH]
    test al, 0x40
    jz 4f
    or dl, 0x40
4:  test al, 0x80
    jz 5f
    or dl, 0x80
5:  mov al, DISPI_ENABLE
    call dispi_write
    mov ax, [bp + F_EBX]
    mov ds:[BDA_VBE_MODE], ax
    and ah, 0x80
    and byte ptr ds:[BDA_VIDEO_CONTROL], 0x7F
    or ds:[BDA_VIDEO_CONTROL], ah
    mov ax, cs:[si + V_WIDTH]
    shr ax, 3
    mov ds:[BDA_COLUMNS], ax
    mov ax, cs:[si + V_HEIGHT]
    shr ax, 4
    dec ax
    mov ds:[BDA_ROWS], al
    mov word ptr ds:[BDA_CHARACTER], 16
    mov byte ptr ds:[BDA_MODE], 0x7F
    mov ax, 0x004F
    ret

vbe_get:                            /* 03h */
    mov ax, ds:[BDA_VBE_MODE]
    test ax, ax
    jnz 1f
    movzx ax, byte ptr ds:[BDA_MODE]
1:  mov [bp + F_EBX], ax
    mov ax, 0x004F
    ret

.section .rodata16, "a"
vbe_oem:      .asciz "Quintet VBE"
vbe_vendor:   .asciz "Quintet"
vbe_product:  .asciz "Bochs display interface"
vbe_revision: .asciz "1"
masks_15: .byte 5, 10, 5, 5, 5, 0, 1, 15
masks_16: .byte 5, 11, 6, 5, 5, 0, 0, 0
masks_24: .byte 8, 16, 8, 8, 8, 0, 0, 0
masks_32: .byte 8, 16, 8, 8, 8, 0, 8, 24

.macro V number, width, height, bits
    .word \number, \width, \height
    .byte \bits, 0
.endm
/* Numbers up to 11Bh are VESA's, those from 140h on are this BIOS's. */
vbe_modes:
    V 0x100, 640, 400, 8
    V 0x101, 640, 480, 8
    V 0x102, 800, 600, 4
    V 0x103, 800, 600, 8
    V 0x104, 1024, 768, 4
    V 0x105, 1024, 768, 8
    V 0x106, 1280, 1024, 4
    V 0x107, 1280, 1024, 8
    V 0x10D, 320, 200, 15
    V 0x10E, 320, 200, 16
    V 0x10F, 320, 200, 24
    V 0x110, 640, 480, 15
    V 0x111, 640, 480, 16
    V 0x112, 640, 480, 24
    V 0x113, 800, 600, 15
    V 0x114, 800, 600, 16
    V 0x115, 800, 600, 24
    V 0x116, 1024, 768, 15
    V 0x117, 1024, 768, 16
    V 0x118, 1024, 768, 24
    V 0x119, 1280, 1024, 15
    V 0x11A, 1280, 1024, 16
    V 0x11B, 1280, 1024, 24
    V 0x11C, 1600, 1200, 8
    V 0x11E, 1600, 1200, 16
    V 0x140, 320, 200, 32
    V 0x141, 640, 400, 32
    V 0x142, 640, 480, 32
    V 0x143, 800, 600, 32
    V 0x144, 1024, 768, 32
    V 0x145, 1280, 1024, 32
    V 0x146, 320, 200, 8
    V 0x147, 1600, 1200, 32
    V 0x148, 1152, 864, 32
    V 0x149, 1280, 720, 32
    V 0x14A, 1280, 800, 32
    V 0x14B, 1440, 900, 32
    V 0x14C, 1680, 1050, 32
    V 0x14D, 1920, 1080, 32
    V 0x14E, 1920, 1200, 32
    V 0x14F, 2560, 1440, 32
    V 0x150, 2560, 1600, 32
    .word 0

/* What the interface's modes are made of is kept where ROM is RAM: C0000h stays writable. */
.section .data16, "aw"
.balign 4
.globl vbe_frame, vbe_memory
vbe_frame:  .long 0                 /* where the frame buffer is */
vbe_memory: .word 0                 /* units of 64 KiB, 0 without the interface */
