/* The first guest: goes back to real mode and echoes the serial line.
 *
 * The first line is echoed by polling the UART, everything after it by IRQ 4 with the processor halted in
 * between. Ctrl-D ends: through isa-debug-exit with 0 if the machine has one, else through ACPI S5. */
.include "pc.inc"
MULTIBOOT_HEADER

.section .text
.code32
.globl _start
_start:
    cli
    cld
    mov esi, offset real_load
    mov edi, REAL_BASE
    mov ecx, offset real_end         /* linked at zero, so that the end is the length */
    rep movsb
    lgdt [gdt_pointer]
    lidt [real_idt_pointer]
    jmp 0x08, 0                      /* a 16-bit code segment based at REAL_BASE */

.section .data
.balign 8
gdt:
    .quad 0
    .quad 0x00009B020000FFFF         /* 08h: code, base REAL_BASE, 64 KiB, 16 bit */
    .quad 0x000093020000FFFF         /* 10h: data, likewise */
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .long gdt
real_idt_pointer:
    .word 0x3FF
    .long 0

.section .real, "awx"
.code16
    mov ax, 0x10                     /* limits of 64 KiB before the mode is left */
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov eax, cr0
    and eax, 0x7FFFFFFE              /* no paging, no protection */
    mov cr0, eax
    ljmp REAL_SEG, offset real_mode
real_mode:
    mov ax, cs
    mov ds, ax
    mov ss, ax
    mov sp, 0xFFF0
    UART_INIT
    PIC_INIT 0x08, 0x70
    mov si, offset hello
    call puts

poll:                                /* the first line, by polling */
    mov dx, COM1 + UART_LSR
    in al, dx
    test al, 1
    jz poll
    mov dx, COM1
    in al, dx
    cmp al, 4
    je leave
    call putc
    cmp al, '\r'
    je by_interrupt
    cmp al, '\n'
    jne poll

by_interrupt:
    mov si, offset switched
    call puts
    xor ax, ax
    mov es, ax
    mov word ptr es:[0x0C * 4], offset irq4
    mov word ptr es:[0x0C * 4 + 2], cs
    OUTB COM1 + UART_IER, 1          /* received data available */
    mov al, 0xEF                     /* line 4 only */
    out PIC1 + 1, al
wait:
    sti
    hlt
    cli
    cmp byte ptr [stop], 0
    je wait
    jmp leave

irq4:
    push ax
    push dx
next_byte:
    mov dx, COM1 + UART_LSR
    in al, dx
    test al, 1
    jz served
    mov dx, COM1
    in al, dx
    cmp al, 4
    jne 1f
    mov byte ptr [stop], 1
    jmp served
1:  call putc
    jmp next_byte
served:
    mov al, 0x20
    out PIC1, al
    pop dx
    pop ax
    iret

leave:
    mov si, offset bye
    call puts
1:  mov dx, COM1 + UART_LSR          /* the last byte has left the line */
    in al, dx
    test al, 0x40
    jz 1b
    xor al, al
    mov dx, EXIT_PORT
    out dx, al
    mov dx, PM1_CNT
    mov ax, SLP_EN_S5
    out dx, ax
1:  cli
    hlt
    jmp 1b

/* AL to the line; DX is lost, CR brings LF with it */
putc:
    push ax
    mov dx, COM1 + UART_LSR
1:  in al, dx
    test al, 0x20
    jz 1b
    mov dx, COM1
    pop ax
    out dx, al
    cmp al, '\r'
    jne 2f
    push ax
    mov al, '\n'
    call putc
    pop ax
2:  ret

/* the string at DS:SI */
puts:
    lodsb
    test al, al
    jz 1f
    call putc
    jmp puts
1:  ret

hello:    .asciz "echo: real mode, polling\r"
switched: .asciz "\recho: real mode, IRQ 4\r"
bye:      .asciz "\recho: end\r"
stop:     .byte 0
