/* A picture of 1920 by 1080 in 32 bits of which every dot changes, 64 times a second by the RTC: what showing it costs is what is to be
 * measured. Prints "moving" on COM1 when the first stands, and "motion: no adapter" when there is no function 1234:1111. */
.include "pc.inc"
MULTIBOOT_HEADER
.include "text.inc"
.include "vbe.inc"

.set WIDTH, 1920
.set HEIGHT, 1080
.set ENABLE_LFB, 0x41

.section .bss
.balign 16
.skip 4096
stack_top:

GUEST_START
    UART_INIT
    PIC_INIT 0x20, 0x28               /* all lines masked: the RTC is asked */
    call find_adapter
    jc no_adapter
    mov esi, offset mode
    mov ecx, 5
1:  lodsw
    movzx ebp, ax
    lodsw
    movzx ebx, ax
    mov eax, ebp
    call vbe_write
    dec ecx
    jnz 1b
    OUTB 0x70, 0x0A                   /* 32 768 Hz, one in 512 of that */
    OUTB 0x71, 0x2A
    OUTB 0x70, 0x0B                   /* periodic interrupt, 24 hours */
    OUTB 0x71, 0x42
    xor ebp, ebp                      /* number of the frame */
    call frame
    mov esi, offset text_moving
    call print
next:
    OUTB 0x70, 0x0C
2:  mov dx, 0x71
    in al, dx
    test al, 0x40                     /* PF, which reading clears */
    jz 2b
    call frame
    jmp next

no_adapter:
    mov esi, offset text_none
    call print
3:  hlt
    jmp 3b

/* Each row in one colour, which none of its neighbours has, and no frame like the one before. */
frame:
    inc ebp
    mov edi, [lfb]
    imul eax, ebp, 0x00030507
    mov edx, HEIGHT
4:  mov ecx, WIDTH
    rep stosd
    add eax, 0x00010203
    dec edx
    jnz 4b
    ret

print:                                /* ESI to the serial line alone: text would be in the picture */
    lodsb
    test al, al
    jz 5f
    call serial_putc
    jmp print
5:  ret

.section .rodata
mode:                                 /* registers of the VBE interface, and what goes there */
    .word 4, 0, 1, WIDTH, 2, HEIGHT, 3, 32, 4, ENABLE_LFB
text_moving: .asciz "moving\n"
text_none: .asciz "motion: no adapter\n"
