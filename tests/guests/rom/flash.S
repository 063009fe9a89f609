/* Firmware with a flash chip of 64 KiB below it, which it writes: what it finds there tells how often it was started.
 *
 * Prints on COM1 what it does and finds; isa-debug-exit gets the number of failures. */
.include "pc.inc"

.set FLASH, 0xFFFE0000
.set COUNTER, FLASH + 0x1234            /* holds the number of starts, as ones that became zeros */
.set BLOCK, FLASH + 0x1000

.section .reset, "ax"
.code16
at_reset:
    ljmp 0xF000, offset start
    .ascii "quintet rom"

.section .text
.code16
start:
    cli
    cld
    xor ax, ax
    mov ss, ax
    mov sp, 0x7000
    mov ax, cs
    mov ds, ax
    xor bp, bp                       /* failures */
    UART_INIT
    call big_segments

    mov edi, FLASH                   /* who are you? */
    mov byte ptr fs:[edi], 0x98
    mov al, fs:[edi + 0x10]          /* "QRY", byte by byte */
    mov ah, fs:[edi + 0x11]
    cmp ax, 0x5251
    mov si, offset query
    call verdict
    mov byte ptr fs:[edi], 0xFF

    mov esi, COUNTER
    mov bl, fs:[esi]
    mov si, offset found
    call puts
    mov al, bl
    call hex
    call end_line
    mov al, bl

    cmp al, 0xF8                     /* after three starts: erase */
    jne 1f
    mov edi, BLOCK + 0xFFF
    mov byte ptr fs:[edi], 0x20
    mov byte ptr fs:[edi], 0xD0
    call ready
    mov esi, COUNTER
    cmp byte ptr fs:[esi], 0xFF
    mov si, offset erased
    call verdict
    jmp done
1:  shl al, 1                        /* one more zero */
    mov esi, COUNTER
    mov byte ptr fs:[esi], 0x40
    mov fs:[esi], al
    call ready
    cmp fs:[esi], al
    mov si, offset written
    call verdict
done:
    call flush
    mov ax, bp
    mov dx, EXIT_PORT
    out dx, al
stop:
    hlt
    jmp stop

/* until the status says ready without an error; then the array again. AX is kept. */
ready:
    push ax
    mov edi, FLASH
1:  mov al, fs:[edi]
    test al, 0x80
    jz 1b
    cmp al, 0x80
    mov byte ptr fs:[edi], 0xFF
    push si
    mov si, offset status
    call verdict
    pop si
    pop ax
    ret

/* The words at DS:SI with "ok" if ZF, else "FAILED"; AX is kept */
verdict:
    pushf
    push ax
    call puts
    pop ax
    popf
    push ax
    mov si, offset ok
    je 1f
    inc bp
    mov si, offset bad
1:  call puts
    pop ax
    ret

.include "firmware.inc"
query:   .asciz "flash answers"
found:   .asciz "flash holds "
status:  .asciz "status"
written: .asciz "flash keeps what is written"
erased:  .asciz "flash is erased"
ok:      .asciz ": ok\n"
bad:     .asciz ": FAILED\n"
