/* VESA BIOS extensions through the Bochs interface (ports 1CEh and 1CFh). */
.include "vga.inc"
.code16
.section .text16, "ax"
.globl vbe, vbe_off, vbe_initialise
vbe_initialise:
    ret
/* Back to the legacy VGA. */
vbe_off:
    push ax
    push dx
    mov dx, 0x1CE
    mov ax, 4
    out dx, ax
    inc dx
    xor ax, ax
    out dx, ax
    pop dx
    pop ax
    ret
vbe:
    mov word ptr [bp + F_EAX], 0x0100
    ret
