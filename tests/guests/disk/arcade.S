/* A diskette like a game's for DOS: it takes the machine over, and talks to keyboard, timer, palette, planes and mouse itself.
 *
 * In turn, each told on COM1 for the test that plays it (tests/machine/arcade.rs):
 *   keys    an INT 09h handler of its own that reads scan codes from port 60h, until Esc has been let go
 *   timer   counter 0 at 1 kHz, every 55th tick given on to the BIOS; the ticks of one second of the RTC after another, until a byte
 *   13h     320 by 200, faded out by the palette during vertical retraces
 *   X       320 by 240 in four planes, two pages that are flipped, faded
 *   mouse   packets of the BIOS's pointing device, until the right button
 *   swap    the first sector of the diskette, again whenever the drive says that it was changed, until one says "end"
 * Where a picture stands it waits for a byte. Ends through isa-debug-exit with 0. */
.include "pc.inc"
.code16
.set BDA, 0x400
.set TICK_DIVISOR, 1193             /* of 1.193182 MHz */
.set SCREEN, 0xA000
.set PAGE, 80 * 240                 /* of mode X, in addresses */
.set SECTORS, 63                    /* behind the first */

.section .boot, "ax"
    jmp 1f
    nop
    .ascii "arcade 1"               /* where the name of who formatted a diskette stands */
1:  BOOT_START
    mov bx, 0x7E00
    mov di, 1                       /* sector by sector: a track's end comes where it will */
2:  mov ax, di
    call read_sector
    jc failed
    add bx, 512
    inc di
    cmp di, SECTORS + 1
    jb 2b
    jmp main
failed:
    hlt
    jmp failed

/* Sector AX of the diskette, counted from zero, to ES:BX; carry for an error. Keeps BX and DI. */
read_sector:
    mov cl, 36                      /* a cylinder of a diskette of 1.44 MiB */
    div cl
    mov ch, al
    mov al, ah
    mov ah, 0
    mov cl, 18
    div cl
    mov dh, al
    mov cl, ah
    inc cl
    mov dl, 0
    mov ax, 0x0201
    int 0x13
    ret

.section .text
main:
    UART_INIT
    mov si, offset text_start
    call puts
    call keys
    call timer
    call linear
    call planes
    call mouse
    call swap
    mov si, offset text_done
    call puts
1:  mov dx, COM1 + UART_LSR
    in al, dx
    test al, 0x40
    jz 1b
    OUTB EXIT_PORT, 0
2:  hlt
    jmp 2b

.include "text16.inc"

/* AL: the next byte that somebody sends. */
getc:
    mov dx, COM1 + UART_LSR
1:  in al, dx
    test al, 1
    jz 1b
    mov dx, COM1
    in al, dx
    ret

/* The line at SI; then waits for a byte. */
show:
    call puts
    jmp getc

/* The handler of interrupt AL is at BX from now on; the one before is kept in `old`. */
hook:
    mov ah, 0
    shl ax, 2
    mov di, ax
    cli
    mov eax, [di]
    mov [old], eax
    mov [di], bx
    mov word ptr [di + 2], 0
    sti
    ret
unhook:
    mov ah, 0
    shl ax, 2
    mov di, ax
    cli
    mov eax, [old]
    mov [di], eax
    sti
    ret

/* ---- keys ---- */
keys:
    mov al, 9
    mov bx, offset on_key
    call hook
    mov si, offset text_keys
    call puts
1:  hlt
    mov di, [key_out]
2:  cmp di, [key_in]
    je 1b
    mov al, [key_ring + di]
    inc di
    and di, 63
    mov [key_out], di
    push ax
    call hex2
    mov al, ' '
    call putc
    pop ax
    cmp al, 0x81                    /* Esc has been let go */
    jne 2b
    mov al, 13
    call putc
    mov al, 9
    jmp unhook

on_key:
    push ax
    push bx
    push ds
    push 0
    pop ds
    in al, 0x60
    mov bx, [key_in]
    mov [key_ring + bx], al
    inc bx
    and bx, 63
    mov [key_in], bx
    in al, 0x61                     /* as the PC/XT's keyboard wants it, and games do ever since */
    mov ah, al
    or al, 0x80
    out 0x61, al
    mov al, ah
    out 0x61, al
    mov al, 0x20
    out PIC1, al
    pop ds
    pop bx
    pop ax
    iret

/* ---- timer ---- */
timer:
    mov al, 8
    mov bx, offset on_tick
    call hook
    cli
    mov al, 0x36
    out 0x43, al
    mov ax, TICK_DIVISOR
    out 0x40, al
    mov al, ah
    out 0x40, al
    sti
    mov si, offset text_timer
    call puts
    call next_second
    cli
    mov esi, [ticks]                /* at the beginning of this second */
    mov edi, [BDA + 0x6C]
    sti
1:  call next_second
    cli
    mov eax, [ticks]
    mov edx, [BDA + 0x6C]
    sti
    mov ebx, eax
    mov ecx, edx
    sub eax, esi
    sub edx, edi
    mov esi, ebx
    mov edi, ecx
    push dx
    call hex4
    mov al, ' '
    call putc
    pop ax
    call hex4
    mov al, 13
    call putc
    mov dx, COM1 + UART_LSR
    in al, dx
    test al, 1                      /* a byte that says: enough */
    jz 1b
    mov dx, COM1
    in al, dx
    cli
    mov al, 0x36                    /* 18.2 Hz again */
    out 0x43, al
    mov al, 0
    out 0x40, al
    out 0x40, al
    sti
    mov al, 8
    jmp unhook

/* Until the RTC begins another second. */
next_second:
    call rtc_second
    mov bl, al
1:  hlt
    call rtc_second
    cmp al, bl
    je 1b
    ret
rtc_second:
    mov al, 0x0A
    out 0x70, al
    in al, 0x71
    test al, 0x80                   /* being updated */
    jnz rtc_second
    mov al, 0
    out 0x70, al
    in al, 0x71
    ret

on_tick:
    push ax
    push ds
    push 0
    pop ds
    inc dword ptr [ticks]
    add word ptr [fraction], TICK_DIVISOR
    jnc 1f
    pushf                           /* as often as the BIOS is used to, which ends the interrupt */
    lcall [old]
    jmp 2f
1:  mov al, 0x20
    out PIC1, al
2:  pop ds
    pop ax
    iret

/* ---- mode 13h ---- */
linear:
    mov ax, 0x13
    int 0x10
    mov ax, SCREEN
    mov es, ax
    xor di, di
    xor dx, dx                      /* row */
1:  xor bx, bx                      /* column */
2:  mov ax, bx
    add ax, dx
    stosb                           /* colour: the sum of both */
    inc bx
    cmp bx, 320
    jb 2b
    inc dx
    cmp dx, 200
    jb 1b
    xor ax, ax
    mov es, ax
    mov cx, 64
    call fade_to
    mov si, offset text_13_full
    call show
    mov cx, 32
    call fade_down
    mov si, offset text_13_half
    call show
    mov cx, 0
    call fade_down
    mov si, offset text_13_dark
    jmp show

/* The palette in 64ths CX, from one retrace to the next, at once. */
fade_to:
    mov [level], cx
    call retrace
    mov dx, 0x3C8
    mov al, 0
    out dx, al
    inc dx
    xor bx, bx                      /* colour */
1:  mov ax, bx                      /* red rises, green falls, blue goes round three times */
    call component
    mov ax, bx
    not al
    call component
    imul ax, bx, 3
    call component
    inc bx
    cmp bx, 256
    jb 1b
    ret
/* AL, eight bits, as six bits of the level, to the palette. */
component:
    mov ah, 0
    shr ax, 2
    imul ax, [level]
    shr ax, 6
    out dx, al
    ret
/* From the level that stands to CX, a step in each retrace. */
fade_down:
    push cx
1:  mov cx, [level]
    dec cx
    call fade_to
    pop cx
    push cx
    cmp [level], cx
    ja 1b
    pop cx
    ret
/* Until a vertical retrace begins. */
retrace:
    push dx
    mov dx, 0x3DA
1:  in al, dx
    test al, 8
    jnz 1b
2:  in al, dx
    test al, 8
    jz 2b
    pop dx
    ret

/* ---- mode X ---- */
planes:
    mov ax, 0x13
    int 0x10
    mov dx, 0x3C4
    mov ax, 0x0604                  /* no chain of four */
    out dx, ax
    mov ax, 0x0100                  /* sequencer held while the clock changes */
    out dx, ax
    OUTB 0x3C2, 0xE3                /* 480 lines, 25 MHz */
    mov dx, 0x3C4
    mov ax, 0x0300
    out dx, ax
    mov dx, 0x3D4
    mov al, 0x11                    /* its first registers are locked */
    out dx, al
    inc dx
    in al, dx
    and al, 0x7F
    out dx, al
    dec dx
    mov si, offset mode_x
    mov cx, (mode_x_end - mode_x) / 2
1:  lodsw
    out dx, ax
    loop 1b
    mov cx, 64
    call fade_to
    mov ax, SCREEN
    mov es, ax
    mov byte ptr [plane], 0
2:  mov cl, [plane]
    mov ah, 1
    shl ah, cl
    mov al, 2
    mov dx, 0x3C4
    out dx, ax
    xor di, di
    xor dx, dx                      /* row */
3:  movzx bx, byte ptr [plane]      /* column */
4:  mov ax, bx
    xor ax, dx
    mov es:[di], al                 /* first page: exclusive or */
    mov ax, dx
    add ax, ax
    add ax, bx
    mov es:[di + PAGE], al          /* second page: column and twice the row */
    inc di
    add bx, 4
    cmp bx, 320
    jb 4b
    inc dx
    cmp dx, 240
    jb 3b
    inc byte ptr [plane]
    cmp byte ptr [plane], 4
    jb 2b
    xor ax, ax
    mov es, ax
    mov si, offset text_x_first
    call show
    mov bx, PAGE
    call flip
    mov si, offset text_x_second
    call show
    mov cx, 16
    call fade_down
    xor bx, bx
    call flip
    mov si, offset text_x_dim
    call show
    mov ax, 3
    int 0x10
    ret
/* The page at BX from the next frame on, as games do it: the address while the picture is drawn. */
flip:
    mov dx, 0x3D4
    mov al, 0x0C
    mov ah, bh
    out dx, ax
    mov al, 0x0D
    mov ah, bl
    out dx, ax
    call retrace
    jmp retrace

/* ---- mouse ---- */
mouse:
    mov ax, 0xC205                  /* packets of three bytes */
    mov bh, 3
    int 0x15
    jc 9f
    mov ax, 0xC207
    mov bx, offset on_packet
    int 0x15
    jc 9f
    mov ax, 0xC200
    mov bh, 1
    int 0x15
    jc 9f
    mov si, offset text_mouse
    call puts
1:  hlt
    mov di, [packet_out]
2:  cmp di, [packet_in]
    je 1b
    mov bl, [packets + di]
    mov cx, 3
3:  mov al, [packets + di]
    inc di
    call hex2
    loop 3b
    inc di
    and di, 255
    mov [packet_out], di
    mov al, ' '
    call putc
    test bl, 2                      /* the right button */
    jz 2b
    mov al, 13
    call putc
    mov ax, 0xC200
    mov bh, 0
    int 0x15
    ret
9:  mov si, offset text_no_mouse
    jmp puts

/* Called by the BIOS with a packet on the stack: a zero, Y, X and status below one another, in words. */
on_packet:
    push bp
    mov bp, sp
    push ax
    push bx
    push ds
    push 0
    pop ds
    mov bx, [packet_in]
    mov al, [bp + 12]               /* status */
    mov [packets + bx], al
    mov al, [bp + 10]               /* X */
    mov [packets + bx + 1], al
    mov al, [bp + 8]                /* Y */
    mov [packets + bx + 2], al
    add bx, 4
    and bx, 255
    mov [packet_in], bx
    pop ds
    pop bx
    pop ax
    pop bp
    retf

/* ---- swap ---- */
swap:
    mov bx, offset sector
    mov ax, 0
    call read_sector
    jc 8f
    mov si, offset sector + 3       /* where a name stands */
    mov di, offset last
    mov cx, 4
    repe cmpsw
    je 8f
    mov si, offset text_swap
    call puts
    mov si, offset sector + 3
    mov di, offset last
    mov cx, 8
1:  lodsb
    stosb
    call putc
    loop 1b
    mov al, 13
    call putc
    cmp dword ptr [last], 0x20646E65            /* "end " */
    je 9f
8:  hlt                             /* some time later */
    mov ah, 0x16                    /* changed? SeaBIOS says so each time */
    mov dl, 0
    int 0x13
    jnc 8b
    jmp swap
9:  ret

.section .rodata
text_start:     .asciz "arcade: start\r"
text_keys:      .asciz "keys: "
text_timer:     .asciz "timer: "
text_13_full:   .asciz "13h full\r"
text_13_half:   .asciz "13h half\r"
text_13_dark:   .asciz "13h dark\r"
text_x_first:   .asciz "X first\r"
text_x_second:  .asciz "X second\r"
text_x_dim:     .asciz "X dim\r"
text_mouse:     .asciz "mouse: "
text_no_mouse:  .asciz "no mouse\r"
text_swap:      .asciz "diskette "
text_done:      .asciz "arcade: done\r"
/* CRT controller: index, value. 240 lines of the 480, bytes instead of double words. */
mode_x:
    .byte 0x06, 0x0D, 0x07, 0x3E, 0x09, 0x41, 0x10, 0xEA, 0x11, 0xAC, 0x12, 0xDF
    .byte 0x14, 0x00, 0x15, 0xE7, 0x16, 0x06, 0x17, 0xE3
mode_x_end:

.section .scratch, "aw", @nobits
old:            .skip 4
key_in:         .skip 2
key_out:        .skip 2
key_ring:       .skip 64
ticks:          .skip 4
fraction:       .skip 2
level:          .skip 2
plane:          .skip 1
packet_in:      .skip 2
packet_out:     .skip 2
packets:        .skip 256
sector:         .skip 512
last:           .skip 8

.section .calls, "a"
calls:
