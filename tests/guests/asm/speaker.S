/* The PC speaker, in the two ways in which programs use it: a second of 440 Hz by counter 2 of the 8254, and a second of 1004 Hz
 * by moving bit 1 of port 61h. Half a second of silence follows each. Prints "speaker: tone", "speaker: line" and "speaker: done"
 * on COM1, then 0 to isa-debug-exit. Time is counted by the refresh bit of port 61h, 18 pulses of the 8254 each. */
.include "pc.inc"
MULTIBOOT_HEADER
.include "text.inc"
.include "traps.inc"

.set PIT_CHANNEL2, 0x42
.set PIT_CONTROL, 0x43
.set PORT61, 0x61
.set GATE, 1                 /* GATE of counter 2 */
.set DATA, 2                 /* the speaker follows OUT of counter 2 */
.set REFRESH, 0x10
.set A440, 2712              /* 1193182 Hz / 440 */
.set SECOND, 66288           /* toggles of the refresh bit */
.set HALF_PERIOD, 33         /* of 1004 Hz, in such toggles */

/* Waits for ECX toggles of the refresh bit. */
.macro TOGGLES
1:  in al, PORT61
    and al, REFRESH
    cmp al, ah
    je 1b
    mov ah, al
    loop 1b
.endm

GUEST_START
    UART_INIT
    call text_clear
    xor eax, eax

    PRINT "speaker: tone\n"
    mov al, 0xB6                      /* counter 2, both bytes, mode 3 */
    out PIT_CONTROL, al
    mov al, A440 & 0xFF
    out PIT_CHANNEL2, al
    mov al, A440 >> 8
    out PIT_CHANNEL2, al
    mov al, GATE | DATA
    call set_and_wait_a_second
    xor al, al
    call set_and_wait_half

    PRINT "speaker: line\n"
    mov ebx, SECOND / HALF_PERIOD     /* with GATE low OUT stays high, so bit 1 alone moves the line */
    mov dl, DATA
2:  mov al, dl
    out PORT61, al
    xor dl, DATA
    mov ecx, HALF_PERIOD
    TOGGLES
    dec ebx
    jnz 2b
    xor al, al
    call set_and_wait_half

    PRINT "speaker: done\n"
    xor eax, eax
    out EXIT_PORT, al
    cli
3:  hlt
    jmp 3b

set_and_wait_a_second:
    out PORT61, al
    mov ecx, SECOND
    TOGGLES
    ret

set_and_wait_half:
    out PORT61, al
    mov ecx, SECOND / 2
    TOGGLES
    ret

interrupt_hook:
    ret
