/* Guests that never come to an end, and are well all the same: a watch over progress must leave them alone.
 *
 * The last letter of the command line says how: "j" jumps on the spot with interrupts off, "d" asks a device with every
 * instruction, "r" is inside one repeated string instruction for ever. Prints "spinning" on COM1 first. */
.include "pc.inc"
MULTIBOOT_HEADER
.include "text.inc"
.include "traps.inc"

GUEST_START
    push ebx
    UART_INIT
    call text_clear
    pop ebx
    PRINT "spinning\n"
    xor eax, eax
    test dword ptr [ebx], 1 << 2
    jz 2f
    mov esi, [ebx + 16]
1:  mov al, ah
    lodsb
    xchg al, ah
    test ah, ah
    jnz 1b
2:  cmp al, 'd'
    je devices
    cmp al, 'r'
    je repeats
    jmp .

devices:                              /* the keyboard controller's data: reading it has an effect */
    mov dx, 0x60
3:  .rept 64
    in al, dx
    .endr
    jmp 3b

repeats:
    mov ecx, 0xFFFFFFFF
    rep lodsb
    jmp repeats

interrupt_hook:
    ret
