/* The fonts of the VGA BIOS, made by the build from the project's one picture of them. */
.include "vga.inc"
.section .rodata16, "a"
.globl font16, font14, font8
font16: .incbin "font8x16.bin"
font14: .incbin "font8x14.bin"
font8:  .incbin "font8x8.bin"
