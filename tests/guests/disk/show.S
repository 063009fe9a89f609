/* A disk that shows the machine off: a picture of the five processes it runs on, drawn in a VBE mode, with the mouse pointer in it, a tune
 * on the PC speaker, and what is typed.
 *
 * Booted by the BIOS, which gives it the mode and the font; from then on in protected mode by its own hands. The picture is composed
 * in memory and copied to the screen 33 times a second. What the processes do comes from the ports of the device "processes"
 * (docs/devices.md); without it the discs stand for themselves. COM1 hears "show: running; …", what is typed, and at the end
 * "show: N frames". 'q' ends through ACPI S5. */
.include "pc.inc"
.code16

.set WIDTH, 800
.set HEIGHT, 600
.set FONT, 0x20000                  /* 256 characters of 8 by 16 */
.set SINES, 0x21000                 /* 256 of a turn, one being 16384 */
.set IDT, 0x22000
.set INFO_SEG, 0x3000               /* what VBE says of itself, and of a mode 200h behind */
.set STACK, 0x90000
.set BACK, 0x200000                 /* the picture that is being composed */
.set GROUND, 0x400000               /* what is behind everything */
.set DISC, 0x600000                 /* brightness of a disc, a byte for each of its dots */
.set DISC_SIZE, 128
.set NEEDED_KIB, (DISC - 0x100000 + DISC_SIZE * DISC_SIZE) / 1024      /* above the first MiB */
.set PROCESSES, 0x5A0               /* ports of the device */
.set SIGNATURE, 0x53503551          /* "Q5PS" */
.set HZ, 100
.set TICKS, 3                       /* for a frame */
.set STARS, 192
.set CENTRE_X, WIDTH / 2
.set CENTRE_Y, 322
.set LINE_MAX, 64

.section .boot, "ax"
    BOOT_TRACK

.section .text
main:
    UART_INIT
    mov si, offset text_no_memory
    mov ah, 0x88
    int 0x15
    jc complain
    cmp ax, NEEDED_KIB
    jb complain
    call find_mode
    jc no_mode
    push es                         /* the BIOS's font */
    push ds
    mov ax, 0x1130
    mov bh, 6
    int 0x10
    push es
    pop ds
    mov si, bp
    mov ax, FONT >> 4
    mov es, ax
    xor di, di
    mov cx, 2048
    rep movsw
    pop ds
    pop es
    mov ax, 0x4F02
    mov bx, [mode]
    or bx, 0x4000                   /* the linear frame buffer */
    int 0x10
    cmp ax, 0x004F
    jne no_mode
    mov ax, 0x2401                  /* A20 */
    int 0x15
    cli
    lgdt [gdt_register]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    ljmp 8, offset protected

no_mode:
    mov si, offset text_no_mode
/* SI to COM1 and to the screen, and that is all. */
complain:
    push si
    call puts
    pop si
1:  lodsb
    test al, al
    jz 2f
    mov ah, 0x0E
    xor bx, bx
    int 0x10
    jmp 1b
2:  hlt
    jmp 2b

/* The mode of 800 by 600 in 32 bits, its frame buffer and the length of its lines; carry when there is none. */
find_mode:
    push es
    mov ax, INFO_SEG
    mov es, ax
    xor di, di
    mov dword ptr es:[di], 0x32454256   /* "VBE2" */
    mov ax, 0x4F00
    int 0x10
    cmp ax, 0x004F
    jne 9f
    lfs si, es:[14]
    mov di, 0x200
1:  mov cx, fs:[si]
    add si, 2
    cmp cx, 0xFFFF
    je 9f
    mov ax, 0x4F01
    int 0x10
    cmp ax, 0x004F
    jne 1b
    test byte ptr es:[di], 0x80
    jz 1b
    cmp word ptr es:[di + 18], WIDTH
    jne 1b
    cmp word ptr es:[di + 20], HEIGHT
    jne 1b
    cmp byte ptr es:[di + 25], 32
    jne 1b
    mov [mode], cx
    mov eax, es:[di + 40]
    mov [screen], eax
    movzx eax, word ptr es:[di + 16]
    mov [pitch], eax
    pop es
    clc
    ret
9:  pop es
    stc
    ret

.include "text16.inc"
.include "show_draw.inc"
.include "show_input.inc"
.include "show_scene.inc"

.section .text
.code32
protected:
    mov ax, 16
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov esp, STACK
    cld
    fninit
    call make_sines
    call make_disc
    call make_ground
    call make_stars
    call interrupts_init
    mov esi, offset text_running
    call serial_puts
    sti
frame:
    call compose
    call present
    inc dword ptr [frames]
1:  cmp byte ptr [ended], 0
    jne the_end
    mov eax, [ticks]
    sub eax, [shown_at]
    cmp eax, TICKS
    jae 2f
    hlt
    jmp 1b
2:  mov eax, [ticks]
    mov [shown_at], eax
    jmp frame

the_end:
    cli
    in al, 0x61                       /* no tone behind the end */
    and al, 0xFC
    out 0x61, al
    mov esi, offset text_end
    call serial_puts
    mov eax, [frames]
    call serial_number
    mov esi, offset text_frames
    call serial_puts
    mov dx, PM1_CNT
    mov ax, SLP_EN_S5
    out dx, ax
3:  hlt
    jmp 3b

/* ESI to COM1. */
serial_puts:
    lodsb
    test al, al
    jz 1f
    call serial_putc
    jmp serial_puts
1:  ret
serial_putc:
    push edx
    push eax
    mov edx, COM1 + UART_LSR
1:  in al, dx
    test al, 0x20
    jz 1b
    mov edx, COM1
    pop eax
    out dx, al
    pop edx
    ret
/* EAX in decimal. */
serial_number:
    xor ecx, ecx
    mov ebx, 10
1:  xor edx, edx
    div ebx
    push edx
    inc ecx
    test eax, eax
    jnz 1b
2:  pop eax
    add al, '0'
    call serial_putc
    loop 2b
    ret

.section .rodata
.balign 8
gdt: .quad 0
    .quad 0x00CF9A000000FFFF          /* flat code and data */
    .quad 0x00CF92000000FFFF
gdt_register:
    .word gdt_register - gdt - 1
    .long gdt
text_no_mode: .asciz "show: no mode of 800 by 600 in 32 bits\r"
text_no_memory: .asciz "show: needs 8 MiB of memory\r"
text_running: .asciz "show: running; what is typed is echoed, q ends\r\n"
text_end: .asciz "\r\nshow: "
text_frames: .asciz " frames\r\n"

/* What changes; the disk gives it its first values. */
.section .text
.balign 4
mode: .long 0
screen: .long 0
pitch: .long 0
frames: .long 0
ticks: .long 0
shown_at: .long 0
ended: .byte 0
