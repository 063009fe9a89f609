/* The second half of POST, in real mode: vectors, data areas, the AT's chips, the screen, drives; then INT 19h. */
.include "defs.inc"
.code16
.section .text16, "ax"

.globl post16
post16:
    call set_vectors
    call set_data_area
    call set_pics
    call set_timer
    call set_clock
    call ports_find
    mov ax, 0xC000                  /* the VGA BIOS sets INT 10h and mode 3 */
    mov ds, ax
    cmp word ptr ds:[0], 0xAA55
    jne 1f
    push cs
    push offset 1f
    ljmp 0xC000, 3
1:  xor ax, ax
    mov ds, ax
    mov es, ax
    sti
    call banner
    call keyboard_init
    call option_roms
    call drives_find
    call diskettes_find
    call show_drives
    call lock_shadow
    call boot_order
    call boot_menu
    int 0x19
    jmp int18

/* ---- vectors ---- */
set_vectors:
    xor di, di
    mov es, di
    mov cx, 256
1:  mov ax, offset dummy_iret
    stosw
    mov ax, cs
    stosw
    loop 1b
    mov di, 8 * 4                   /* 08h to 1Fh as the IBM BIOS lists them */
    mov si, offset initial_vectors
    mov cx, 24
2:  movsw es:[di], cs:[si]
    add di, 2
    loop 2b
    mov word ptr es:[0x02 * 4], 0xE2C3
    mov word ptr es:[0x05 * 4], 0xFF54
    mov word ptr es:[0x40 * 4], 0xEC59
    mov word ptr es:[0x41 * 4], EBDA_FDPT0
    mov word ptr es:[0x41 * 4 + 2], EBDA_SEG
    mov word ptr es:[0x46 * 4], EBDA_FDPT1
    mov word ptr es:[0x46 * 4 + 2], EBDA_SEG
    mov di, 0x60 * 4                /* for programs */
    xor ax, ax
    mov cx, 8 * 2
    rep stosw
    mov di, 0x70 * 4
    mov si, offset slave_vectors
    mov cx, 8
3:  movsw es:[di], cs:[si]
    add di, 2
    loop 3b
    ret

/* Interrupts nobody has taken: acknowledged, and masked if they are hardware's. */
.globl irq_none
irq_none:
    push ax
    push bx
    mov al, 0x0B                    /* what is in service? */
    out PIC1, al
    in al, PIC1
    test al, al
    jz 3f
    test al, 4
    jz 1f
    mov al, 0x0B
    out PIC2, al
    in al, PIC2
    test al, al
    jz 2f
    mov bl, al
    in al, PIC2 + 1
    or al, bl
    out PIC2 + 1, al
    mov al, 0x20
    out PIC2, al
    jmp 2f
1:  mov bl, al
    in al, PIC1 + 1
    or al, bl
    out PIC1 + 1, al
2:  mov al, 0x20
    out PIC1, al
3:  pop bx
    pop ax
    iret

irq_redirected:                     /* line 9 was line 2 on the PC */
    push ax
    mov al, 0x20
    out PIC2, al
    pop ax
    int 0x0A
    iret

irq_coprocessor:
    push ax
    xor al, al
    out 0xF0, al
    mov al, 0x20
    out PIC2, al
    out PIC1, al
    pop ax
    int 2
    iret

.globl int76
int76:                              /* the hard disk's line */
    push ax
    push ds
    push 0x40
    pop ds
    mov byte ptr ds:[BDA_HD_INTERRUPT], 0xFF
    mov al, 0x20
    out PIC2, al
    out PIC1, al
    pop ds
    pop ax
    iret

.globl int02, int11, int12, int05
int02:                              /* non-maskable: nothing on this machine raises it */
    iret
int11:
    push ds
    push 0x40
    pop ds
    mov ax, ds:[BDA_EQUIPMENT]
    pop ds
    iret
int12:
    push ds
    push 0x40
    pop ds
    mov ax, ds:[BDA_MEMORY]
    pop ds
    iret

/* Print screen: every cell of the page to LPT1, status at 50:0 (1 busy, FFh failed). */
int05:
    ENTER
    sti
    push 0x50
    pop es
    cmp byte ptr es:[0], 1
    je 9f
    mov byte ptr es:[0], 1
    mov ah, 0x0F
    int 0x10
    mov dl, ah                      /* columns; the page stays in BH */
    mov ah, 3
    push dx
    int 0x10
    mov si, dx                      /* where the cursor was */
    pop dx
    mov cl, dl
    mov ch, ds:[0x84]               /* rows less one */
    xor di, di                      /* failures */
    xor dx, dx
    call newline_printed
1:  mov ah, 2
    int 0x10
    mov ah, 8
    int 0x10
    test al, al
    jnz 2f
    mov al, ' '
2:  call printed
    test di, di
    jnz 3f
    inc dl
    cmp dl, cl
    jb 1b
    xor dl, dl
    call newline_printed
    inc dh
    cmp dh, ch
    jbe 1b
3:  mov dx, si
    mov ah, 2
    int 0x10
    mov ax, di
    neg ax
    mov es:[0], al
9:  LEAVE
newline_printed:
    mov al, 13
    call printed
    mov al, 10
printed:
    push dx
    xor dx, dx
    xor ah, ah
    int 0x17
    test ah, 0x29
    jz 1f
    mov di, 1
1:  pop dx
    ret

/* ---- data areas ---- */
set_data_area:
    push 0x40
    pop ds
    mov word ptr ds:[BDA_EBDA], EBDA_SEG
    mov word ptr ds:[BDA_EQUIPMENT], 0x0026     /* coprocessor, mouse, 80 columns in colour */
    mov word ptr ds:[BDA_MEMORY], EBDA_SEG >> 6
    mov word ptr ds:[BDA_KBD_HEAD], BDA_KBD_BUFFER
    mov word ptr ds:[BDA_KBD_TAIL], BDA_KBD_BUFFER
    mov word ptr ds:[BDA_KBD_START], BDA_KBD_BUFFER
    mov word ptr ds:[BDA_KBD_END], BDA_KBD_BUFFER + 32
    mov byte ptr ds:[BDA_KBD_FLAGS3], 0x10      /* 101 keys */
    mov dword ptr ds:[BDA_LPT_TIMEOUT], 0x14141414
    mov dword ptr ds:[BDA_COM_TIMEOUT], 0x01010101
    mov ax, EBDA_SEG
    mov es, ax
    mov byte ptr es:[0], 1
    mov dword ptr es:[EBDA_HD_MAP], 0xFFFFFFFF
    mov dword ptr es:[EBDA_CD_MAP], 0xFFFFFFFF
    ret

set_pics:
    mov al, 0x11
    out PIC1, al
    out PIC2, al
    mov al, 8
    out PIC1 + 1, al
    mov al, 0x70
    out PIC2 + 1, al
    mov al, 4
    out PIC1 + 1, al
    mov al, 2
    out PIC2 + 1, al
    mov al, 1
    out PIC1 + 1, al
    out PIC2 + 1, al
    mov al, 0xB8                    /* open: timer, keyboard, cascade, diskette */
    out PIC1 + 1, al
    mov al, 0x8F                    /* open: mouse, coprocessor, hard disk */
    out PIC2 + 1, al
    ret

set_timer:
    mov al, 0x36                    /* channel 0: square wave of 65536 counts, 18.2 Hz */
    out 0x43, al
    xor al, al
    out 0x40, al
    out 0x40, al
    mov al, 0x54                    /* channel 1: every 15 us, the refresh of old */
    out 0x43, al
    mov al, 18
    out 0x41, al
    ret

/* The RTC as the AT sets it, and the ticks since midnight from it. */
set_clock:
    mov ax, 0x260A
    call cmos_write
    mov ax, 0x020B
    call cmos_write
    CMOS_READ 0x0C
    CMOS_READ 0x0D
    push 0x40
    pop ds
    CMOS_READ 4
    call from_bcd
    imul eax, eax, 3600
    mov ebx, eax
    CMOS_READ 2
    call from_bcd
    imul eax, eax, 60
    add ebx, eax
    CMOS_READ 0
    call from_bcd
    add eax, ebx
    mov ecx, 1193182                /* seconds * 1193182 / 65536 */
    mul ecx
    shrd eax, edx, 16
    mov ds:[BDA_TICKS], eax
    ret
from_bcd:
    movzx eax, al
    mov dl, al
    shr dl, 4
    and al, 15
    mov ah, 10
    xchg al, dl
    mul ah
    add al, dl
    movzx eax, al
    ret
/* AH to register AL. */
.globl cmos_write
cmos_write:
    or al, 0x80
    out CMOS, al
    mov al, ah
    out CMOS + 1, al
    ret

/* Serial ports that keep a value in their scratch or interrupt register, parallel ports that keep their data. */
ports_find:
    push 0x40
    pop ds
    xor bx, bx
    mov si, offset com_ports
    mov cx, 4
1:  mov dx, cs:[si]
    inc dx
    mov al, 2                       /* interrupt enables: bit 1 stays, bits 7 to 4 read zero */
    out dx, al
    in al, dx
    cmp al, 2
    jne 2f
    xor al, al
    out dx, al
    inc dx
    in al, dx
    test al, 0x30
    jnz 2f
    sub dx, 2
    mov ds:[BDA_COM + bx], dx
    add bx, 2
2:  add si, 2
    loop 1b
    shl bx, 8                       /* twice the number, in bits 11 to 9 */
    or ds:[BDA_EQUIPMENT], bx
    xor bx, bx
    mov cx, 3
1:  mov dx, cs:[si]
    mov al, 0xAA
    out dx, al
    in al, dx
    cmp al, 0xAA
    jne 2f
    mov ds:[BDA_LPT + bx], dx
    add bx, 2
2:  add si, 2
    loop 1b
    shl bx, 13
    or ds:[BDA_EQUIPMENT], bx
    ret

/* Option ROMs between the VGA BIOS and E0000h: 55h AAh, length, entry at 3. */
option_roms:
    mov bx, 0xC800
1:  mov ds, bx
    cmp word ptr ds:[0], 0xAA55
    jne 2f
    push bx
    push bp
    mov bp, sp
    push bx
    push 3
    lcall ss:[bp - 4]
    mov sp, bp
    pop bp
    pop bx
    mov ds, bx
    movzx ax, byte ptr ds:[2]
    shl ax, 5
    add ax, 0x7F
    and ax, 0xFF80
    jz 2f
    add bx, ax
    jmp 3f
2:  add bx, 0x80
3:  cmp bx, 0xE000
    jb 1b
    xor ax, ax
    mov ds, ax
    mov es, ax
    cld
    ret

.section .rodata16, "a"
slave_vectors:
    .word int70, irq_redirected, irq_none, irq_none, int74, irq_coprocessor, int76, irq_none
com_ports:
    .word 0x3F8, 0x2F8, 0x3E8, 0x2E8, 0x378, 0x278, 0x3BC
